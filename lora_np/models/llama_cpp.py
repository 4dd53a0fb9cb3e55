"""llama.cpp's changes to a model in a GGUF file, made and undone: names, config, order of rows.

Sources: llama.cpp, ``conversion/*.py`` and ``gguf-py/gguf/tensor_mapping.py``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np

from lora_np.checks import Array, StrPath, close_names, shown
from lora_np.files import FileError, errors_at
from lora_np.hub import gguf
from lora_np.models.families import (
    DecoderConfig,
    decoder_of,
    family_names,
    family_of,
    from_config,
    llama_cpp_of,
    names_in,
)
from lora_np.models.names import Place
from lora_np.quantise import Blocks, Quantised

__all__ = [
    "GGUFModel",
    "as_stored",
    "check_complete",
    "gguf_settings",
    "named_in",
    "names_for",
    "open_gguf",
    "row_order",
]

Fields = Mapping[str, Any]  # of a config, or of the metadata of a file
Made = dict[str, Any]  # those, as they are made here
# by what the angles of each pair are divided: in all texts, or in short and in long ones
_FACTORS = ("rope_freqs.weight", "rope_factors_short.weight", "rope_factors_long.weight")
_NUMBER = re.compile(r"(?<=\.)\d{1,6}(?=\.)")  # of a layer
_NEEDED = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "rms_norm_eps",
)


@dataclass(frozen=True)
class GGUFModel:
    """A model in a GGUF file, with transformers' names and config.

    Attributes
    ----------
    file : GGUFFile
    config : mapping
        As in ``config.json``.
    names : mapping of str to tuple of str
        From the name of a parameter in transformers to the tensors in the file; several where
        those are stacked along the outputs, as experts are.
    """

    file: gguf.GGUFFile
    config: Fields
    names: Mapping[str, tuple[str, ...]] = field(repr=False)

    def read(self, name: str) -> Array | Quantised:
        """Read one parameter by its name in transformers, as it is there.

        Parameters
        ----------
        name : str
            Such as ``"model.layers.0.self_attn.q_proj.weight"``.

        Returns
        -------
        ndarray or Quantised
            float32 if the file stores that, and for all vectors and experts; other matrices in the
            blocks of the file.

        Raises
        ------
        FileError
            If no tensor has that name, or its kind cannot be read.
        """
        if name not in self.names:
            raise FileError(f"{self.file.path} has no {name!r}{close_names(name, self.names)}")
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
    """Open the model in a GGUF file; no weight is read yet.

    Parameters
    ----------
    path : str or path-like
        The file.

    Returns
    -------
    GGUFModel
        With ``config`` and ``read(name)``.

    Raises
    ------
    FileError
        If the file is damaged, llama.cpp's architecture is not one whose family is known here, or a
        setting or a tensor is missing or not understood.
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
    architecture = file.metadata.get("general.architecture")
    family = family_in_gguf(architecture)
    if family is None:
        known = ", ".join(family_of(name).tables["llama_cpp"][0] for name in gguf_families())
        raise FileError(f"{path}: family {architecture!r:.40} is not read; those that are: {known}")
    names: dict[str, list[str]] = {}
    for theirs, info in file.tensors.items():
        module, _, part = theirs.rpartition(".")
        if theirs in _FACTORS:
            continue
        place = named_in("llama_cpp", module, [family]) if part in ("weight", "bias") else None
        if place is None:
            raise FileError(f"{path}: the tensor {theirs!r:.80} has no place in a {family} model")
        ours = place.parameter if len(info.shape) > 2 else f"{place.parameter}.{part}"  # experts
        names.setdefault(ours, [""] * place.parts)[place.part] = theirs
    with errors_at(path, (TypeError, ValueError)):
        config = config_in(file.metadata, family)
        config["tie_word_embeddings"] = "lm_head.weight" not in names
        if "token_embd.weight" in file.tensors:
            config["vocab_size"] = file.tensors["token_embd.weight"].shape[0]
        if scaling := scaling_in(file, str(architecture)):
            config["rope_scaling"] = scaling
        complete = {ours: tuple(theirs) for ours, theirs in names.items() if all(theirs)}
        check_complete(config, complete)
    return GGUFModel(file, config, complete)


def check_complete(config: Fields, names: Container[str]) -> None:
    """Refuse a model that lacks the weight of a module.

    Parameters
    ----------
    config : mapping
        As in ``config.json``.
    names : container of str
        The parameters that there are, as in transformers.

    Raises
    ------
    ValueError
        The message names the weight, and what llama.cpp calls its module.

    Examples
    --------
    >>> check_complete({"model_type": "llama", "num_hidden_layers": 0}, ["model.norm.weight"])
    Traceback (most recent call last):
    ValueError: the model has no tensor model.embed_tokens.weight (llama.cpp's token_embd)
    """
    for module in from_config(config).modules:
        name = module.name if module.kind == "experts" else f"{module.name}.weight"
        if not module.tied and name not in names:
            theirs = " and ".join(names_for("llama_cpp", module.name, str(config["model_type"])))
            raise ValueError(f"the model has no tensor {name} (llama.cpp's {theirs})")


def gguf_families(names: Iterable[str] | None = None) -> list[str]:
    """List the families whose models are read from GGUF files, and written to them."""
    return [name for name in names or family_names() if family_of(name).tables["in_gguf"]]


def family_in_gguf(architecture: object) -> str | None:
    """Find the family that llama.cpp calls so, if its models are read."""
    # only these are looked at: "gemma3" is gemma3_text, "qwen3moe" is qwen3_moe
    near = (name for name in family_names() if name.replace("_", "").startswith(str(architecture)))
    tables = {name: family_of(name).tables for name in gguf_families(near)}
    return next((name for name in tables if tables[name]["llama_cpp"][0] == architecture), None)


def config_in(metadata: Fields, family: str) -> Made:
    """Read a config from the settings of a GGUF file, and what llama.cpp assumes of all of them."""
    architecture = family_of(family).tables["llama_cpp"][0]
    table = family_of(family).tables["gguf"]
    config: Made = {"model_type": family}

    def setting(key: str, *, needed: bool = False) -> float | None:
        value = metadata.get(f"{architecture}.{key}")
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return value if needed else value or None  # 0 says that there is none
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
    if (turned := setting("rope.dimension_count")) and turned != width:
        config["partial_rotary_factor"] = turned / width
    for ours, formula in table["assumed"].items():
        config[ours] = family_of(family).formulas.value(formula, config)
    for ours in ("bos_token_id", "eos_token_id"):
        token = metadata.get(f"tokenizer.ggml.{ours}")
        if isinstance(token, int):
            config[ours] = token
    return config


def gguf_settings(config: Fields) -> tuple[Made, dict[str, Array]]:
    """Write the settings of a model as a GGUF file has them: the reverse of `open_gguf`.

    Parameters
    ----------
    config : mapping
        As in ``config.json``.

    Returns
    -------
    metadata : dict
        But for the vocabulary.
    factors : dict of str to ndarray
        Tensors of the file that are no weights: how rotary positions are stretched.

    Raises
    ------
    ValueError
        If models of the family are not written, or llama.cpp would compute something else.

    Examples
    --------
    >>> metadata, factors = gguf_settings({"model_type": "qwen3", "num_hidden_layers": 2})
    >>> metadata["qwen3.block_count"], metadata["qwen3.rope.freq_base"]
    (2, 10000.0)
    """
    family = str(config.get("model_type"))
    if family not in (known := gguf_families()):
        raise ValueError(
            f"{shown(family)} models are not written to GGUF files, only {', '.join(known)}"
        )
    architecture = family_of(family).tables["llama_cpp"][0]
    config, scaling = unstretched(config)
    decoder = decoder_of(config)
    fields = {"max_position_embeddings": decoder.spec.positions or 2048, **decoder.fields}
    keys = family_of(family).tables["gguf"]["keys"]
    settings: Made = {key: fields.get(ours) for key, ours in keys.items() if ours}
    if part := decoder.whole.part:
        settings["rope.dimension_count"] = int(decoder.whole.width * part)
    stretched, factors = scaling_of(scaling, decoder)
    settings |= stretched
    metadata = {
        f"{architecture}.{key}": value
        for key, value in settings.items()
        if value or isinstance(value, int)
    }
    again = decoder_of({**config_in(metadata, family), "vocab_size": decoder.fields["vocab_size"]})
    for ours, theirs in zip(decoder.layers, again.layers, strict=True):
        for entry, wanted in ours._asdict().items():
            if wanted != (other := getattr(theirs, entry)):
                why = f"{entry} is {shown(wanted)}, in llama.cpp's {architecture} {shown(other)}"
                raise ValueError(f"a GGUF file cannot say how this model computes: {why}")
    return {"general.architecture": architecture, "general.type": "model", **metadata}, factors


def unstretched(config: Fields) -> tuple[Made, Fields]:
    """Separate how rotary positions are stretched from a config, and name the rest as before 5."""
    rope = config.get("rope_parameters") or {}
    local = rope.get("sliding_attention") or {}
    rope = rope.get("full_attention") or rope
    if local.get("rope_type", "default") != "default":
        raise ValueError("rotary positions stretched in windows are not written to GGUF files")
    named = {
        "rope_theta": rope.get("rope_theta"),
        "partial_rotary_factor": rope.get("partial_rotary_factor"),
        "rope_local_base_freq": local.get("rope_theta"),
    }
    plain = {**config, **{name: value for name, value in named.items() if value is not None}}
    plain.pop("rope_parameters", None)
    return plain, plain.pop("rope_scaling", None) or rope


def scaling_of(rope: Fields, decoder: DecoderConfig) -> tuple[Made, dict[str, Array]]:
    """Write how rotary positions are stretched: settings, and by what angles are divided."""
    kind = rope.get("rope_type", rope.get("type", "default"))
    original = int(decoder.whole.original or rope.get("original_max_position_embeddings") or 0)
    if kind == "default":
        return {}, {}
    if kind == "linear":
        return {"rope.scaling.type": kind, "rope.scaling.factor": float(rope["factor"])}, {}
    if kind == "longrope":
        stretch = max(decoder.spec.positions / original, 1)
        attention = (1 + math.log(stretch) / math.log(original)) ** 0.5
        divisors = [rope["short_factor"], rope["long_factor"]]
        lists = {
            name: np.array(x, np.float32) for name, x in zip(_FACTORS[1:], divisors, strict=True)
        }
        return {"rope.scaling.attn_factor": rope.get("attention_factor", attention)}, lists
    if kind == "llama3":
        width, theta = decoder.whole.width, decoder.whole.theta
        turns = original * theta ** -(np.arange(0, width, 2) / width) / (2 * math.pi)
        low, high = rope["low_freq_factor"], rope["high_freq_factor"]
        kept = np.clip((turns - low) / (high - low), 0, 1)
        return {}, {_FACTORS[0]: (1 / (kept + (1 - kept) / rope["factor"])).astype(np.float32)}
    raise ValueError(f"rotary positions stretched by {shown(kind)} are not written to GGUF files")


def scaling_in(file: gguf.GGUFFile, architecture: str) -> Made | None:
    """Read from a GGUF file how rotary positions are stretched."""
    kind = file.metadata.get(f"{architecture}.rope.scaling.type", "none")
    factors = [file.read(name).tolist() for name in _FACTORS if name in file.tensors]
    if factors:  # one list for all texts, or one for short ones and one for long ones
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
    """Change a parameter to what llama.cpp's file has of it: the reverse of `GGUFModel.read`.

    Parameters
    ----------
    config : mapping
        As in ``config.json``.
    name : str
        As in transformers.
    W : ndarray
        As there.

    Returns
    -------
    ndarray
        With its rows in llama.cpp's order; and ``1 + W`` of a norm that multiplies by that.

    See Also
    --------
    names_for : The tensors in the file, of which there may be several.

    Examples
    --------
    >>> as_stored({"model_type": "gemma2"}, "model.norm.weight", np.zeros(2))
    array([1., 1.])
    """
    order = row_order(config, name, len(W))
    W = W if order is None else W[np.argsort(order)]
    return W + 1 if from_one(config, name) else W


def from_one(config: Fields, name: str) -> bool:
    """Tell whether the file stores ``1 + W`` of a norm that multiplies by ``1 + W``."""
    decoder = family_of(config["model_type"]).tables["decoder"]
    return bool(decoder.get("from_one")) and name.endswith("norm.weight")


def names_for(program: str, module: str, family: str) -> tuple[str, ...]:
    """Look up the names that a program has for a module.

    Parameters
    ----------
    program : {"llama_cpp", "mlx"}
        llama.cpp, or mlx-lm, whose names are those of transformers but for a few.
    module : str
        As transformers calls it.
    family : str
        The model type.

    Returns
    -------
    tuple of str
        One for each of the maps that transformers stacks along the outputs; empty if none is known.

    See Also
    --------
    named_in : The reverse.

    Examples
    --------
    >>> names_for("llama_cpp", "model.layers.7.self_attn.q_proj", "mixtral")
    ('blk.7.attn_q',)
    >>> names_for("llama_cpp", "model.layers.7.mlp.experts.gate_up_proj", "mixtral")
    ('blk.7.ffn_gate_exps', 'blk.7.ffn_up_exps')
    """
    number = _NUMBER.search(module)
    templates = names_in(program, family).get(_NUMBER.sub("{}", module, count=1), ())
    return tuple(name.format(number and number[0]) for name in templates)


def named_in(program: str, name: str, families: Iterable[str]) -> Place | None:
    """Look up the module that a program calls ``name``, and which part of its outputs it is.

    Parameters
    ----------
    program : {"llama_cpp", "mlx"}
        Whose name it is.
    name : str
        Of a module, without ``.weight``.
    families : iterable of str
        Model types; the first that has the name counts.

    Returns
    -------
    Place or None
        None if no family has such a module.

    Examples
    --------
    >>> named_in("llama_cpp", "blk.7.ffn_up_exps", ["llama", "mixtral"])
    Place(parameter='model.layers.7.mlp.experts.gate_up_proj', expert=None, part=1, parts=2,
    transposed=False)
    """
    number, pattern = _NUMBER.search(name), _NUMBER.sub("{}", name, count=1)
    for family in families:
        if pattern in (places := _places_in(program, family)):
            place = places[pattern]
            return place._replace(parameter=place.parameter.format(number and number[0]))
    return None


@cache
def _places_in(program: str, family: str) -> Mapping[str, Place]:
    """Invert `names_in`: the module of each name that a program has."""
    return {
        name: Place(path, None, part, len(names))
        for path, names in names_in(program, family).items()
        for part, name in enumerate(names)
    }


def row_order(config: Fields, name: str, rows: int | None = None) -> Array | None:
    """Compute where each row of a module is in llama.cpp's file; None if rows are not moved.

    transformers rotates the pairs ``(i, i + d/2)`` of a head, llama.cpp the neighbours ``(2i, 2i +
    1)``.

    Parameters
    ----------
    config : mapping
        As in ``config.json``.
    name : str
        Of a module or a tensor, as in a checkpoint.
    rows : int, optional
        How many it has; by default as the config says.

    Returns
    -------
    ndarray of int or None
        ``file[order]`` is in transformers' order.

    Raises
    ------
    FileError
        If the heads do not share the rows.

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
    order: Array = np.arange(rows).reshape(heads, -1, 2).swapaxes(1, 2).reshape(-1)
    return order
