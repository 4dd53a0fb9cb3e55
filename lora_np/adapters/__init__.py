"""Read, write, repair, inspect and transform adapter files of PEFT, llama.cpp, mlx-lm and kohya."""

from lora_np.lazy import on_demand

with on_demand(globals()):
    from lora_np.adapters.adapter import Adapter as Adapter, AdapterModule as AdapterModule
    from lora_np.adapters.attaching import attach as attach, save as save
    from lora_np.adapters.checking import Checked as Checked, check as check
    from lora_np.adapters.combining import (
        Overlap as Overlap,
        combine as combine,
        overlap as overlap,
    )
    from lora_np.adapters.converting import convert as convert, to_lora as to_lora
    from lora_np.adapters.extraction import Extraction as Extraction, extract as extract
    from lora_np.adapters.formats import Written as Written, load as load
    from lora_np.adapters.gguf_merging import merge_gguf as merge_gguf
    from lora_np.adapters.inspection import (
        Inspection as Inspection,
        diff as diff,
        inspect as inspect,
    )
    from lora_np.adapters.merging import merge as merge
    from lora_np.adapters.repairing import repair as repair
    from lora_np.adapters.resizing import ResizeResult as ResizeResult, resize as resize
