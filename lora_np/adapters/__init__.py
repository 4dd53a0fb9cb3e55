"""Adapters as files: read and write PEFT's, look into them, and operate on them without PyTorch."""

from lora_np.lazy import on_demand

with on_demand(globals()):
    from lora_np.adapters.combining import (
        CombinedModule as CombinedModule,
        CombineResult as CombineResult,
        combine as combine,
    )
    from lora_np.adapters.difference import (
        ComparedPart as ComparedPart,
        Difference as Difference,
        diff as diff,
    )
    from lora_np.adapters.extraction import (
        ExtractedTensor as ExtractedTensor,
        ExtractResult as ExtractResult,
        extract as extract,
    )
    from lora_np.adapters.inspection import (
        InspectedModule as InspectedModule,
        Inspection as Inspection,
        inspect as inspect,
    )
    from lora_np.adapters.merging import (
        MergedTensor as MergedTensor,
        MergeResult as MergeResult,
        merge as merge,
    )
    from lora_np.adapters.models import attach as attach, save as save
    from lora_np.adapters.module import AdapterModule as AdapterModule
    from lora_np.adapters.peft_format import Adapter as Adapter, load as load
    from lora_np.adapters.resizing import (
        ResizedModule as ResizedModule,
        ResizeResult as ResizeResult,
        resize as resize,
    )
