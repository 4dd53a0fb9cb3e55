"""Matrices in few bits: the levels, the blocks, and the error next to W0."""

from lora_np.quantise.blocks import LAYOUTS, Blocks, Layout
from lora_np.quantise.levels import dynamic_levels, nf4_levels, normal_quantile, uniform_levels
from lora_np.quantise.quantising import KINDS, quantise
from lora_np.quantise.scaled import BlockScales, FourBit, Int8
from lora_np.quantise.weight import Quantised

__all__ = [
    "KINDS",
    "LAYOUTS",
    "BlockScales",
    "Blocks",
    "FourBit",
    "Int8",
    "Layout",
    "Quantised",
    "dynamic_levels",
    "nf4_levels",
    "normal_quantile",
    "quantise",
    "uniform_levels",
]
