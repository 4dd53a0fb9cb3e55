"""GGUF files of tensors that are in memory."""

from lora_np.hub import TensorInfo, gguf
from lora_np.quantise import Blocks

KINDS = {"float32": "F32", "float16": "F16"}


def save_gguf(tensors, path, *, metadata=None):
    """Write arrays of float32 or float16, and blocks of any kind, each as it is."""
    kinds = {
        name: x.kind if isinstance(x, Blocks) else KINDS[x.dtype.name]
        for name, x in tensors.items()
    }
    infos = {name: TensorInfo(kinds[name], x.shape) for name, x in tensors.items()}
    gguf.write(infos, tensors.__getitem__, path, metadata=metadata)
