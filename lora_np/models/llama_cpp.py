"""Read a model from a GGUF file: undo llama.cpp's changes to names, config and order of rows.

Sources: llama.cpp, ``conversion/*.py`` and ``gguf-py/gguf/tensor_mapping.py``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from lora_np.checks import Array, StrPath
from lora_np.files import FileError, errors_at
from lora_np.hub import SafetensorsFile, TensorInfo, gguf
from lora_np.models.dialects import Dialects
from lora_np.models.families import (
    family_names,
    family_of,
    llama_cpp_of,
)
from lora_np.models.headers import OpenModel
from lora_np.models.spec import ModelSpec
from lora_np.quantise import Blocks, Quantised

__all__ = [
    "GGUFModel",
    "as_stored",
    "open_gguf",
    "row_order",
]

Fields = Mapping[str, Any]  # the fields of a config, or the metadata of a file
Made = dict[str, Any]  # a config, or a part of one, built from metadata

# tensors that divide rotary frequencies: one for all lengths, or one for short and one for long
_FACTORS = ("rope_freqs.weight", "rope_factors_short.weight", "rope_factors_long.weight")
_NEEDED = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "rms_norm_eps",
)


@dataclass(frozen=True, eq=False)
class GGUFModel(OpenModel):
    """A model in a GGUF file, with the names and the config that transformers uses.

    Parameters
    ----------
    path : Path
        The file.
    config : mapping
        The fields that its ``config.json`` would have.
    title : str
        The name in messages.
    on_disk : bool
        Always true.
    file : GGUFFile
        The file's tensors by llama.cpp's names.
    names : mapping of str to tuple of str
        From the name of a parameter in transformers to its tensors in the file. There are several
        if transformers stacks them along the outputs, as it does for experts.
    """

    file: gguf.GGUFFile = field(kw_only=True)
    names: Mapping[str, tuple[str, ...]] = field(kw_only=True, repr=False)

    @cached_property
    def places(self) -> Mapping[str, str]:
        """A mapping from each parameter to the name of its file; there is only one file."""
        return dict.fromkeys(self.names, self.path.name)

    @cached_property
    def files(self) -> Mapping[str, SafetensorsFile]:
        """An empty mapping, because the model has no safetensors files."""
        return {}

    @cached_property
    def spec(self) -> ModelSpec:
        """The description; if a matrix is quantised, every matrix not in float32 counts as such."""
        tensors = [self.file.info(name) for names in self.names.values() for name in names]
        few = [tensor for tensor in tensors if len(tensor.shape) == 2 and tensor.dtype != "F32"]
        if all(tensor.dtype in ("F16", "BF16") for tensor in few):
            return self.by_family
        size = sum(tensor.size for tensor in few), sum(tensor.nbytes for tensor in few)
        return replace(self.by_family, quantised=size)

    def info(self, name: str) -> TensorInfo:
        """Return the shape of one parameter, and the dtype in which it is read, float32."""
        tensors = self.names[name]
        *stack, rows, columns = (1, 1, *(shape := self.file.tensors[tensors[0]].shape))
        return TensorInfo("float32", (*stack, rows * len(tensors), columns)[-len(shape) :])

    def read(self, name: str) -> Array:
        """Read one parameter as a new float32 array.

        Raises
        ------
        FileError
            If the type of a tensor is not supported.
        """
        return np.array(self.weight(name))

    def weight(self, name: str) -> Array | Quantised | None:
        """Read a parameter by its name in transformers: as an array, or as the blocks of the file.

        Parameters
        ----------
        name : str
            The name, such as ``"model.layers.0.self_attn.q_proj.weight"``.

        Returns
        -------
        ndarray, Quantised or None
            A float32 array for vectors, experts, and anything that the file stores in float32; for
            other matrices, the blocks of the file. None if no tensor has that name.

        Raises
        ------
        FileError
            If the type of a tensor is not supported.
        """
        if name not in self.names:
            return None
        tensor, *others = map(self.file.quantised, self.names[name])
        order = row_order(self.config, name)
        if order is not None:
            if len(order) != tensor.shape[0]:
                raise FileError(
                    f"{self.file.path}: {name!r} has {tensor.shape[0]} rows, not {len(order)}"
                )
            tensor = Blocks(tensor.kind, tensor.data[order], tensor.shape)
        if tensor.ndim == 2 and tensor.kind != "F32":
            return tensor
        W = np.concatenate(
            [one.dequantised() for one in (tensor, *others)], axis=-min(2, tensor.ndim)
        )
        return W - 1 if from_one(self.config, name) else W


def open_gguf(path: StrPath) -> GGUFModel:
    """Open the model in a GGUF file without reading its weights.

    Parameters
    ----------
    path : str or path-like
        The file.

    Returns
    -------
    GGUFModel
        The model, with its config and its parameters.

    Raises
    ------
    FileError
        If the file is damaged, its architecture is not supported, or a setting or a tensor is
        missing or invalid.
    OSError
        If the file cannot be read.

    Examples
    --------
    >>> import tempfile
    >>> from lora_np.hub import TensorInfo
    >>> path = f"{tempfile.mkdtemp()}/adapter.gguf"
    >>> gguf.write({}, None, path, metadata={"general.type": "adapter"})
    >>> open_gguf(path)
    Traceback (most recent call last):
        ...
    lora_np.files.FileError: ...: general.type is 'adapter', not 'model'
    """
    file = gguf.open(path)
    if file.metadata.get("general.type", "model") != "model":
        raise FileError(
            f"{path}: general.type is {file.metadata['general.type']!r:.40}, not 'model'"
        )
    if (parts := file.metadata.get("split.count", 1)) != 1:
        raise FileError(
            f"{path}: one of {parts!r:.40} parts of a model: join them with llama-gguf-split"
        )
    architecture = file.metadata.get("general.architecture")
    family = family_in_gguf(architecture)
    if family is None:
        read = ", ".join(family_of(name).tables["llama_cpp"][0] for name in gguf_families())
        raise FileError(f"{path}: family {architecture!r:.40} is not read; those that are: {read}")
    names: dict[str, list[str]] = {}
    known = Dialects({"model_type": family})
    for theirs, info in file.tensors.items():
        module, _, part = theirs.rpartition(".")
        if theirs in _FACTORS:
            continue
        place = known.place_in("llama_cpp", module) if part in ("weight", "bias") else None
        if place is None:
            raise FileError(f"{path}: the tensor {theirs!r:.80} has no place in a {family} model")
        # fused experts have more than two axes, and transformers' name for them has no `.weight`
        ours = place.parameter if len(info.shape) > 2 else f"{place.parameter}.{part}"
        names.setdefault(ours, [""] * place.parts)[place.part] = theirs
    with errors_at(path, (TypeError, ValueError)):
        config = config_in(file.metadata, family)
        config["tie_word_embeddings"] = "lm_head.weight" not in names
        if "token_embd.weight" in file.tensors:
            config["vocab_size"] = file.tensors["token_embd.weight"].shape[0]
        if scaling := scaling_in(file, str(architecture)):
            config["rope_scaling"] = scaling
        complete = {ours: tuple(theirs) for ours, theirs in names.items() if all(theirs)}
        path = Path(path)
        model = GGUFModel(path, config, path.stem, file=file, names=complete)
        check_complete(model)
    return model


def check_complete(model: GGUFModel) -> None:
    """Raise an error unless the file has the weight of every module that is not tied."""
    for module in model.spec.modules:
        name = module.name if module.kind == "experts" else f"{module.name}.weight"
        if not module.tied and name not in model.names:
            theirs = " and ".join(Dialects(model.config).names_in("llama_cpp", module.name))
            raise ValueError(f"the model has no tensor {name} (llama.cpp's {theirs})")


def gguf_families(names: Iterable[str] | None = None) -> list[str]:
    """List the families, among ``names`` if given, whose models can be read from GGUF files."""
    return [name for name in names or family_names() if family_of(name).tables["in_gguf"]]


def family_in_gguf(architecture: object) -> str | None:
    """Find the family of a llama.cpp architecture; None if its models are not supported."""
    # reading a family's data file is slow: read only those of families whose names, without "_",
    # start with the architecture
    near = (name for name in family_names() if name.replace("_", "").startswith(str(architecture)))
    tables = {name: family_of(name).tables for name in gguf_families(near)}
    return next((name for name in tables if tables[name]["llama_cpp"][0] == architecture), None)


def config_in(metadata: Fields, family: str) -> Made:
    """Build a config from the settings of a GGUF file and the values that llama.cpp assumes."""
    architecture = family_of(family).tables["llama_cpp"][0]
    table = family_of(family).tables["gguf"]
    config: Made = {"model_type": family}

    def setting(key: str, *, needed: bool = False) -> float | None:
        value = metadata.get(f"{architecture}.{key}")
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return value if needed else value or None  # 0 means that the feature is off
        if value is not None or needed:
            raise ValueError(f"{architecture}.{key} must be a number, got {value!r:.40}")
        return None

    for key, ours in table["keys"].items():
        if ours and (value := setting(key, needed=ours in _NEEDED)) is not None:
            config[ours] = value
    if "sliding_window" not in table["keys"].values() and setting("attention.sliding_window"):
        raise ValueError(f"{architecture}.attention.sliding_window is not read for this family")
    width = config.setdefault(
        "head_dim", config["hidden_size"] // max(1, config["num_attention_heads"])
    )
    if (rotary := setting("rope.dimension_count")) and rotary != width:
        config["partial_rotary_factor"] = rotary / width
    for ours, formula in table["assumed"].items():
        config[ours] = family_of(family).formulas.value(formula, config)
    for ours in ("bos_token_id", "eos_token_id"):
        token = metadata.get(f"tokenizer.ggml.{ours}")
        if isinstance(token, int):
            config[ours] = token
    return config


def scaling_in(file: gguf.GGUFFile, architecture: str) -> Made | None:
    """Read the scaling of the rotary embedding from a GGUF file; None if there is none."""
    kind = file.metadata.get(f"{architecture}.rope.scaling.type", "none")
    factors = [file.read(name).tolist() for name in _FACTORS if name in file.tensors]
    if factors:  # one list for all lengths, or one for short and one for long
        parameters = {
            "rope_type": "longrope",
            "short_factor": factors[0],
            "long_factor": factors[-1],
        }
        return parameters if len(factors) > 1 else {**parameters, "attention_factor": 1.0}
    if kind == "linear":
        return {
            "rope_type": kind,
            "factor": file.metadata.get(f"{architecture}.rope.scaling.factor"),
        }
    if kind in ("none", "longrope"):
        return None
    raise ValueError(f"rotary positions scaled by {kind!r:.40} are not read from a GGUF file")


def as_stored(config: Fields, name: str, W: Array) -> Array:
    """Convert a parameter to llama.cpp's layout, the reverse of `GGUFModel.read`.

    Parameters
    ----------
    config : mapping
        The fields of ``config.json``.
    name : str
        The parameter's name in transformers.
    W : ndarray
        Its value in transformers.

    Returns
    -------
    ndarray
        The value with its rows in llama.cpp's order, or ``1 + W`` if a norm multiplies by
        ``1 + W``.

    See Also
    --------
    lora_np.models.Dialects : Find the names of the tensors in the file.

    Examples
    --------
    >>> as_stored({"model_type": "gemma2"}, "model.norm.weight", np.zeros(2))
    array([1., 1.])
    """
    order = row_order(config, name, len(W))
    W = W if order is None else W[np.argsort(order)]
    return W + 1 if from_one(config, name) else W


def from_one(config: Fields, name: str) -> bool:
    """Return whether a parameter is the weight W of a norm that the file stores as ``1 + W``."""
    decoder = family_of(config["model_type"]).tables["decoder"]
    return bool(decoder.get("from_one")) and name.endswith("norm.weight")


def row_order(config: Fields, name: str, rows: int | None = None) -> Array | None:
    """Return the row in llama.cpp's file for each row of a weight; None if the order is the same.

    transformers rotates the pairs ``(i, i + d/2)`` of a head; llama.cpp rotates the neighbours
    ``(2i, 2i + 1)``.

    Parameters
    ----------
    config : mapping
        The fields of ``config.json``.
    name : str
        The name of a module or a tensor, as in a checkpoint.
    rows : int, optional
        The number of rows; by default it follows from the config.

    Returns
    -------
    ndarray of int or None
        An array ``order`` such that ``file[order]`` has transformers' order.

    Raises
    ------
    FileError
        If the rows do not divide evenly among the heads.

    Examples
    --------
    >>> config = {"model_type": "llama", "hidden_size": 8, "num_attention_heads": 2}
    >>> row_order(config, "model.layers.0.self_attn.q_proj.weight")
    array([0, 2, 1, 3, 4, 6, 5, 7])
    """
    known = llama_cpp_of(config["model_type"])
    part = next((part for part in ("q_proj", "k_proj") if f".self_attn.{part}" in name), None)
    if part is None or known is None or known[1] != "neighbours":
        return None
    queries = config["num_attention_heads"]
    heads = queries if part == "q_proj" else config.get("num_key_value_heads") or queries
    if rows is None:
        rows = heads * (config.get("head_dim") or config["hidden_size"] // queries)
    if rows % (2 * heads):
        raise FileError(f"{name!r} has {rows} outputs, which {heads} heads do not share")
    return np.arange(rows).reshape(heads, -1, 2).swapaxes(1, 2).reshape(-1)
