"""Read weights that bitsandbytes quantised (nf4 or int8) from safetensors.

Source: bitsandbytes 0.50, ``functional.py`` (``QuantState.as_dict``) and ``nn/modules.py``.
"""

from __future__ import annotations

import numpy as np

from lora_np.checks import Array, whole_number
from lora_np.files import FileError, Json, errors_at, parse_json
from lora_np.hub.folders import ModelDirectory
from lora_np.quantise import BlockScales, FourBit, Int8, Quantised, nf4_levels

_NOTE = "quant_state.bitsandbytes__nf4"
_OTHER_NOTE = "quant_state.bitsandbytes__fp4"
# suffixes of tensor names that show that bitsandbytes has quantised a weight
BITSANDBYTES = (f".{_NOTE}", f".{_OTHER_NOTE}", ".SCB")
_LARGEST = 2**31 - 1
_PARTS = ("absmax", "quant_map", "nested_absmax", "nested_quant_map", _NOTE)


def bitsandbytes_parts(model: ModelDirectory, name: str) -> tuple[str, ...]:
    """List the tensors of one quantised weight: its codes, its scales and its quant_state.

    Parameters
    ----------
    model : ModelDirectory
        A checkpoint.
    name : str
        The name of a weight, such as ``"model.layers.0.mlp.up_proj.weight"``.

    Returns
    -------
    tuple of str
        The names of the tensors; empty if bitsandbytes did not quantise this weight.

    Raises
    ------
    FileError
        If the weight is quantised as fp4, which is not supported.

    See Also
    --------
    read_bitsandbytes : Read the weight itself.

    Examples
    --------
    >>> import tempfile
    >>> from lora_np.hub import open_directory, safetensors
    >>> path = f"{tempfile.mkdtemp()}/model.safetensors"
    >>> safetensors.save({"fc.weight": np.int8([[127, 64]]), "fc.SCB": np.float32([0.5])}, path)
    >>> bitsandbytes_parts(open_directory(path), "fc.weight")
    ('fc.weight', 'fc.SCB')
    """
    if f"{name}.{_OTHER_NOTE}" in model.places:
        raise FileError(
            f"{model.path}: {name!r} is in bitsandbytes' fp4: only nf4 and int8 are supported"
        )
    module = name.removesuffix(".weight")
    parts = [f"{name}.{part}" for part in _PARTS] + [
        f"{module}.{part}" for part in ("SCB", "weight_format")
    ]
    present = [part for part in parts if part in model.places]
    marked = any(part.endswith(BITSANDBYTES) for part in present)
    return (name, *present) if marked and name in model.places else ()


def bitsandbytes_size(model: ModelDirectory, name: str) -> tuple[tuple[int, ...], int]:
    """Return the shape and the size in bytes of a weight that bitsandbytes quantised.

    Parameters
    ----------
    model : ModelDirectory
        A checkpoint.
    name : str
        The name of a weight for which `bitsandbytes_parts` is not empty.

    Returns
    -------
    shape : tuple of int
        The shape of the weight, not of its packed codes.
    nbytes : int
        The memory that the result of `read_bitsandbytes` takes. Only the note of an nf4 weight is
        read from the file.

    Raises
    ------
    FileError
        If the note is malformed.

    See Also
    --------
    read_bitsandbytes : Read the weight itself.

    Examples
    --------
    >>> import tempfile
    >>> from lora_np.hub import open_directory, safetensors
    >>> path = f"{tempfile.mkdtemp()}/model.safetensors"
    >>> safetensors.save({"fc.weight": np.int8([[127, 64]]), "fc.SCB": np.float32([0.5])}, path)
    >>> bitsandbytes_size(open_directory(path), "fc.weight")
    ((1, 2), 6)
    """
    parts = bitsandbytes_parts(model, name)
    kept = [part for part in parts if not part.endswith(("quant_map", _NOTE, "weight_format"))]
    size = sum(model.info(part).nbytes for part in kept)
    if f"{name}.{_NOTE}" not in parts:
        return model.info(name).shape, size
    with errors_at(f"{model.path}: {name!r}", (TypeError, ValueError)):
        note = _note(model, name)
        return _shape(note), size + 4 * ("nested_offset" in note)


def read_bitsandbytes(model: ModelDirectory, name: str) -> Quantised:
    """Read one weight that bitsandbytes quantised, without dequantising it.

    Parameters
    ----------
    model : ModelDirectory
        A checkpoint.
    name : str
        The name of a weight for which `bitsandbytes_parts` is not empty.

    Returns
    -------
    FourBit or Int8
        The codes and scales of the file, after checking that they fit each other.

    Raises
    ------
    FileError
        If a part is missing or does not fit the others, or the levels are not nf4's.

    See Also
    --------
    bitsandbytes_parts : List the tensors of a quantised weight.

    Examples
    --------
    >>> import tempfile
    >>> from lora_np.hub import open_directory, safetensors
    >>> path = f"{tempfile.mkdtemp()}/model.safetensors"
    >>> safetensors.save({"fc.weight": np.int8([[127, 64]]), "fc.SCB": np.float32([0.5])}, path)
    >>> read_bitsandbytes(open_directory(path), "fc.weight").dequantised()
    array([[0.5      , 0.2519685]], dtype=float32)
    """
    with errors_at(f"{model.path}: {name!r}", (TypeError, ValueError)):
        return _read_nf4(model, name) if f"{name}.{_NOTE}" in model else _read_int8(model, name)


def _read_int8(model: ModelDirectory, name: str) -> Int8:
    form = f"{name.removesuffix('.weight')}.weight_format"
    if form in model and model.read(form).any():
        raise FileError("its int8 codes are not in rows: save it again with a newer bitsandbytes")
    codes = _part(model, name, np.int8)
    scales = _part(model, f"{name.removesuffix('.weight')}.SCB", np.float32)
    if codes.ndim != 2 or scales.shape != codes.shape[:1]:
        raise FileError(f"int8 codes of shape {codes.shape} have scales of shape {scales.shape}")
    return Int8(codes, scales)


def _read_nf4(model: ModelDirectory, name: str) -> FourBit:
    note = _note(model, name)
    shape, block = _shape(note), whole_number("blocksize", note.get("blocksize"), maximum=_LARGEST)
    size = shape[0] * shape[1]
    # the codes are bytes, whatever bnb_4bit_quant_storage says that they are
    packed = np.frombuffer(model.files[model.places[name]].raw(model.info(name)), np.uint8)
    blocks = -(-size // block)
    if not np.array_equal(_part(model, f"{name}.quant_map", np.float32), nf4_levels()):
        raise FileError("its quant_map does not have the levels of nf4")
    if packed.shape != (-(-size // 2),):
        raise FileError(f"shape {shape} needs {-(-size // 2)} bytes, got {packed.size}")
    if "nested_offset" not in note:
        return FourBit(
            "nf4", packed, _part(model, f"{name}.absmax", np.float32, blocks), shape, block
        )
    nested = whole_number("nested_blocksize", note.get("nested_blocksize"), maximum=_LARGEST)
    offset = note["nested_offset"]
    if not isinstance(offset, float) or not np.isfinite(offset):
        raise FileError(f"nested_offset must be a number, got {offset!r:.40}")
    double = BlockScales(
        _part(model, f"{name}.absmax", np.uint8, blocks),
        _part(model, f"{name}.nested_absmax", np.float32, -(-blocks // nested)),
        np.float32(offset),
        _part(model, f"{name}.nested_quant_map", np.float32, 256),
        nested,
    )
    return FourBit("nf4", packed, double, shape, block)


def _part(
    model: ModelDirectory, name: str, dtype: type[np.generic], count: int | None = None
) -> Array:
    """Read a tensor after checking its dtype and, if ``count`` is given, its length."""
    if name not in model:
        raise FileError(f"needs the tensor {name!r}, which is missing")
    array = model.read(name)
    if array.dtype != dtype:
        raise FileError(f"{name!r} must be {np.dtype(dtype)}, got {array.dtype}")
    if count is not None and array.shape != (count,):
        raise FileError(f"{name!r} must have shape ({count},), got {array.shape}")
    return array


def _note(model: ModelDirectory, name: str) -> dict[str, Json]:
    """Parse the quant_state of an nf4 weight, which is stored as JSON."""
    with errors_at("its quant_state"):
        note = parse_json(_part(model, f"{name}.{_NOTE}", np.uint8).tobytes())
    if note.get("quant_type") != "nf4":
        raise FileError(
            f"its quant_state does not describe nf4, but {note.get('quant_type')!r:.40}"
        )
    return note


def _shape(note: dict[str, Json]) -> tuple[int, int]:
    sizes = note.get("shape")
    if not isinstance(sizes, list) or len(sizes) != 2:
        raise FileError(f"shape must be two whole numbers, got {sizes!r:.40}")
    rows, columns = (whole_number("shape", size, maximum=_LARGEST) for size in sizes)
    return rows, columns
