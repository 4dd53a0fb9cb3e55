"""llama.cpp's changes to a model in a GGUF file, undone: names, config, order of rows.

Sources: llama.cpp, ``convert_hf_to_gguf.py`` and ``gguf-py/gguf/tensor_mapping.py``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np

from lora_np.checks import Array, StrPath, close_names
from lora_np.files import FileError
from lora_np.hub import gguf
from lora_np.models.families import family_names, family_of, llama_cpp_of, names_in
from lora_np.models.names import Place
from lora_np.quantise import Blocks, Quantised

__all__ = ["GGUFModel", "named_in", "names_for", "open_gguf", "row_order"]

_CONFIG = {
    "hidden_size": "embedding_length", "intermediate_size": "feed_forward_length",
    "num_hidden_layers": "block_count", "num_attention_heads": "attention.head_count",
    "num_key_value_heads": "attention.head_count_kv", "head_dim": "attention.key_length",
    "max_position_embeddings": "context_length", "rms_norm_eps": "attention.layer_norm_rms_epsilon",
    "rope_theta": "rope.freq_base",
}  # fmt: skip
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
    names : mapping of str to str
        From the name of a tensor in a checkpoint to that in the file.
    """

    file: gguf.GGUFFile
    config: Mapping[str, Any]
    names: Mapping[str, str] = field(repr=False)

    def read(self, name: str) -> Array | Quantised:
        """Read one tensor by its name in a checkpoint, with its rows in transformers' order.

        Parameters
        ----------
        name : str
            Such as ``"model.layers.0.self_attn.q_proj.weight"``.

        Returns
        -------
        ndarray or Quantised
            float32 if the file stores that, and for all vectors; other matrices in the blocks of
            the file.

        Raises
        ------
        FileError
            If no tensor has that name, or its kind cannot be read.
        """
        if name not in self.names:
            raise FileError(f"{self.file.path} has no {name!r}{close_names(name, self.names)}")
        tensor = self.file.quantised(self.names[name])
        order = row_order(self.config, name)
        if order is not None:
            if len(order) != tensor.shape[0]:
                raise FileError(
                    f"{self.file.path}: {name!r} has {tensor.shape[0]} rows, not {len(order)}"
                )
            tensor = Blocks(tensor.kind, tensor.data[order], tensor.shape)
        return tensor if tensor.ndim == 2 and tensor.kind != "F32" else tensor.dequantised()


def open_gguf(path: StrPath) -> GGUFModel:
    """Open the model in a GGUF file; no tensor is read yet.

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
        If the file is damaged, its family is not one of llama, qwen2 and qwen3, or a setting or a
        tensor is missing or not understood.
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
    family = file.metadata.get("general.architecture")
    if file.metadata.get("general.type", "model") != "model":
        raise FileError(
            f"{path}: general.type is {file.metadata['general.type']!r:.40}, not 'model'"
        )
    if family not in family_names() or not family_of(family).tables["gguf"]:
        known = ", ".join(name for name in family_names() if family_of(name).tables["gguf"])
        raise FileError(f"{path}: family {family!r:.40} is not read; those that are: {known}")
    config: dict[str, Any] = {"model_type": family, "hidden_act": "silu"}
    for ours, theirs in _CONFIG.items():
        value = file.metadata.get(f"{family}.{theirs}")
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            config[ours] = value
        elif value is not None or ours in _NEEDED:
            raise FileError(f"{path}: {family}.{theirs} must be a number, got {value!r:.40}")
    scaling = file.metadata.get(f"{family}.rope.scaling.type", "none")
    if scaling != "none" or "rope_freqs.weight" in file.tensors:
        raise FileError(f"{path}: scaled rotary positions are not read from a GGUF file")
    names = {}
    for theirs in file.tensors:
        module, _, part = theirs.rpartition(".")
        found = named_in("llama_cpp", module, [family]) if part in ("weight", "bias") else None
        if found is None:
            raise FileError(f"{path}: the tensor {theirs!r:.80} has no place in a {family} model")
        names[f"{found.parameter}.{part}"] = theirs
    if "model.embed_tokens.weight" not in names:
        raise FileError(f"{path} has no tensor 'token_embd.weight': it does not hold a whole model")
    config["vocab_size"] = file.tensors["token_embd.weight"].shape[0]
    config["tie_word_embeddings"] = "lm_head.weight" not in names
    for ours in ("bos_token_id", "eos_token_id"):
        token = file.metadata.get(f"tokenizer.ggml.{ours}")
        if isinstance(token, int):
            config[ours] = token
    return GGUFModel(file, config, names)


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
    found = names_in(program, family).get(_NUMBER.sub("{}", module, count=1), ())
    return tuple(name.format(number and number[0]) for name in found)


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


def row_order(config: Mapping[str, Any], name: str, rows: int | None = None) -> Array | None:
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
