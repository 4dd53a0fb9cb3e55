"""Models on disk: safetensors, GGUF, directories, names, targets, dtypes, and the families of models."""

from lora_np.lazy import on_demand

with on_demand(globals()):
    from lora_np.hub import gguf as gguf, safetensors as safetensors, settings as settings
    from lora_np.hub.bitsandbytes import (
        bitsandbytes_parts as bitsandbytes_parts,
        bitsandbytes_size as bitsandbytes_size,
        read_bitsandbytes as read_bitsandbytes,
    )
    from lora_np.hub.dtypes import FLOATS as FLOATS, float_dtype as float_dtype, rounded as rounded
    from lora_np.hub.families import (
        build_spec as build_spec,
        family_names as family_names,
        family_of as family_of,
    )
    from lora_np.hub.folders import (
        HEAD as HEAD,
        INDEX as INDEX,
        PICKLES as PICKLES,
        SINGLE as SINGLE,
        ModelDirectory as ModelDirectory,
        directory as directory,
        inside as inside,
        open_model as open_model,
    )
    from lora_np.hub.llama_cpp import (
        GGUFModel as GGUFModel,
        gguf_name as gguf_name,
        open_gguf as open_gguf,
        row_order as row_order,
    )
    from lora_np.hub.matrices import load_matrix as load_matrix
    from lora_np.hub.model import (
        ATTENTION as ATTENTION,
        Kind as Kind,
        Layers as Layers,
        ModelSpec as ModelSpec,
        ModuleSpec as ModuleSpec,
        fold as fold,
    )
    from lora_np.hub.names import (
        Place as Place,
        default_targets as default_targets,
        fused_names as fused_names,
        names_are_known as names_are_known,
    )
    from lora_np.hub.patterns import Expression as Expression
    from lora_np.hub.reading import HubError as HubError, open_regular as open_regular, read_json as read_json
    from lora_np.hub.safetensors import (
        SafetensorsFile as SafetensorsFile,
        SafetensorsWriter as SafetensorsWriter,
    )
    from lora_np.hub.shipped import located as located, shipped_paths as shipped_paths
    from lora_np.hub.targets import (
        ALL_LINEAR as ALL_LINEAR,
        Patterns as Patterns,
        Targets as Targets,
        checked_names as checked_names,
        close_names as close_names,
        ends_with as ends_with,
        matcher as matcher,
    )
    from lora_np.hub.tensors import TensorInfo as TensorInfo
