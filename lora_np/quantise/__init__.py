"""Quantise matrices to a few levels per block, and measure the error."""

from lora_np.lazy import on_demand

with on_demand(globals()):
    from lora_np.quantise.gguf_blocks import LAYOUTS as LAYOUTS, Blocks as Blocks
    from lora_np.quantise.scaled import (
        KINDS as KINDS,
        BlockScales as BlockScales,
        FourBit as FourBit,
        Int8 as Int8,
        nf4_levels as nf4_levels,
        normal_quantile as normal_quantile,
        quantise as quantise,
        uniform_levels as uniform_levels,
    )
    from lora_np.quantise.weight import Quantised as Quantised
