"""Describe a model by the names, kinds and shapes of its modules, and by how its layers compute."""

from lora_np.lazy import on_demand

with on_demand(globals()):
    from lora_np.models import peft as peft
    from lora_np.models.dialects import (
        KOHYA as KOHYA,
        Dialects as Dialects,
        Rewrite as Rewrite,
        flat as flat,
        is_flat as is_flat,
        renamed as renamed,
        unwrapped as unwrapped,
    )
    from lora_np.models.families import (
        DecoderConfig as DecoderConfig,
        DecoderNode as DecoderNode,
        LayerConfig as LayerConfig,
        decoder_of as decoder_of,
        family_names as family_names,
        family_of as family_of,
        from_config as from_config,
        llama_cpp_of as llama_cpp_of,
    )
    from lora_np.models.gguf_vocabulary import (
        gguf_tokenizer as gguf_tokenizer,
        tokenizer_settings as tokenizer_settings,
    )
    from lora_np.models.headers import (
        HEAD as HEAD,
        Base as Base,
        OpenModel as OpenModel,
        Parameter as Parameter,
        from_safetensors as from_safetensors,
        guess as guess,
        open_model as open_model,
        resized as resized,
        untied as untied,
    )
    from lora_np.models.llama_cpp import (
        GGUFModel as GGUFModel,
        as_stored as as_stored,
        open_gguf as open_gguf,
        row_order as row_order,
    )
    from lora_np.models.names import (
        Place as Place,
        default_targets as default_targets,
        fused_names as fused_names,
        kinds_and_layers as kinds_and_layers,
        names_are_known as names_are_known,
    )
    from lora_np.models.selection import (
        ALL_LINEAR as ALL_LINEAR,
        Patterns as Patterns,
        Selected as Selected,
        Targets as Targets,
        check_patterns as check_patterns,
        ends_with as ends_with,
        holders as holders,
        is_all_linear as is_all_linear,
        matcher as matcher,
        saved_modules as saved_modules,
        select as select,
        targeted as targeted,
        widest_targets as widest_targets,
    )
    from lora_np.models.sources import (
        Catalogue as Catalogue,
        catalogue as catalogue,
        describe as describe,
        matrix_size as matrix_size,
        open_base as open_base,
        preset as preset,
        preset_names as preset_names,
    )
    from lora_np.models.spec import (
        ATTENTION as ATTENTION,
        Layers as Layers,
        ModelSpec as ModelSpec,
        ModuleSpec as ModuleSpec,
        fold as fold,
    )
