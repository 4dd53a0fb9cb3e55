"""A matrix from an untrusted file."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lora_np.checks import Array, matrix
from lora_np.hub import safetensors
from lora_np.hub.reading import open_regular


def load_matrix(source: str) -> Array:
    """The matrix in ``FILE.npy``, or the tensor ``NAME`` of ``FILE.safetensors:NAME``; nothing else is read.

    Parameters
    ----------
    source : str
        The file, and the tensor after a colon.

    Returns
    -------
    ndarray of shape (d, k)
        In float32 or float64: half precisions become float32, which holds them exactly, integers float64.

    Raises
    ------
    ValueError
        If the source is of neither form; the file is malformed, or a pickle (never loaded, because it could
        run code); no tensor has that name (the message lists close ones); or it is not a finite matrix.
    TypeError
        If it does not hold real numbers.
    OSError
        If the file cannot be read.

    Examples
    --------
    >>> import tempfile
    >>> from lora_np.hub import safetensors
    >>> path = f"{tempfile.mkdtemp()}/adapter.safetensors"
    >>> safetensors.save({"lora_A": np.eye(2, 3), "lora_B": np.zeros((4, 2))}, path)
    >>> load_matrix(f"{path}:lora_A")
    array([[1., 0., 0.],
           [0., 1., 0.]])
    """
    head, extension, tensor = source.rpartition(".safetensors:")
    if extension:
        return matrix(repr(tensor), safetensors.open(head + ".safetensors").read(tensor))
    if source.endswith(".safetensors"):
        names = [name for name, info in safetensors.open(source).tensors.items() if len(info.shape) == 2]
        example = f"{source}:{names[0]}" if names else "but it holds no matrix"
        raise ValueError(f"name one of the {len(names)} matrices in {source}, as in {example}")
    if not source.endswith(".npy"):
        raise ValueError(f"a matrix is read from FILE.npy or FILE.safetensors:TENSOR, got {source!r}")
    return matrix(Path(source).name, _read_npy(source))


def _read_npy(path: str) -> Array:
    open_regular(Path(path)).close()  # a pipe would never end
    try:
        # A memory map never unpickles and checks the size in the header against the file's.
        return np.array(np.lib.format.open_memmap(path, mode="r"))
    except ValueError as error:
        raise ValueError(
            f"{path} is not a plain .npy array of numbers (pickles are never loaded): {error}"
        ) from None
