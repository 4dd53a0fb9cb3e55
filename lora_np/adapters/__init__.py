"""Adapter files: read, write, inspect, transform those of PEFT, llama.cpp, mlx-lm, kohya, without PyTorch."""

from lora_np.lazy import on_demand

with on_demand(globals()):
    from lora_np.adapters.adapter import Adapter as Adapter, AdapterModule as AdapterModule
    from lora_np.adapters.checking import Checked as Checked, CheckedModule as CheckedModule, check as check
    from lora_np.adapters.combining import CombinedModule as CombinedModule, combine as combine
    from lora_np.adapters.converting import (
        ConvertedModule as ConvertedModule,
        convert as convert,
        to_lora as to_lora,
    )
    from lora_np.adapters.extraction import ExtractedTensor as ExtractedTensor, extract as extract
    from lora_np.adapters.formats import load as load
    from lora_np.adapters.inspection import (
        ComparedPart as ComparedPart,
        Difference as Difference,
        InspectedModule as InspectedModule,
        Inspection as Inspection,
        diff as diff,
        inspect as inspect,
    )
    from lora_np.adapters.live import attach as attach, save as save
    from lora_np.adapters.merging import MergedTensor as MergedTensor, merge as merge
    from lora_np.adapters.overlapping import (
        Overlap as Overlap,
        Overlapping as Overlapping,
        overlap as overlap,
    )
    from lora_np.adapters.resizing import (
        ResizedModule as ResizedModule,
        ResizeResult as ResizeResult,
        resize as resize,
    )
    from lora_np.adapters.results import Written as Written
