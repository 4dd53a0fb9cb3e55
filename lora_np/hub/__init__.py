"""Read and write bytes on disk: safetensors, GGUF, bitsandbytes, JSON, and directories of them.

Nothing here depends on the architecture of a model.
"""

from lora_np.lazy import on_demand

with on_demand(globals()):
    from lora_np.hub import gguf as gguf, safetensors as safetensors
    from lora_np.hub.arrays import (
        arrays_in as arrays_in,
        load_matrix as load_matrix,
        read_arrays as read_arrays,
    )
    from lora_np.hub.bitsandbytes import (
        BITSANDBYTES as BITSANDBYTES,
        bitsandbytes_parts as bitsandbytes_parts,
        bitsandbytes_size as bitsandbytes_size,
        read_bitsandbytes as read_bitsandbytes,
    )
    from lora_np.hub.dtypes import (
        ALL_FLOATS as ALL_FLOATS,
        FLOATS as FLOATS,
        float_dtype as float_dtype,
        rounded as rounded,
    )
    from lora_np.hub.folders import (
        HOMES as HOMES,
        INDEX as INDEX,
        PICKLES as PICKLES,
        SINGLE as SINGLE,
        ModelDirectory as ModelDirectory,
        directory as directory,
        inside as inside,
        located as located,
        open_directory as open_directory,
        shipped_paths as shipped_paths,
    )
    from lora_np.hub.pickles import open_pickle as open_pickle
    from lora_np.hub.safetensors import SafetensorsFile as SafetensorsFile
    from lora_np.hub.tensors import TensorInfo as TensorInfo
