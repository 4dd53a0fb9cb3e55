"""The modules of a checkpoint, from the headers of its safetensors files: no tensor is read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from lora_np.hub import INDEX, Kind, ModelSpec, ModuleSpec, fold, open_model

# the last names of tables that are looked up rather than multiplied
_EMBEDDINGS = ("wte", "wpe", "shared", "embed_in", "relative_attention_bias", "token_embd", "tok_embeddings")
_ASSUMED = (
    "Counted from headers: a matrix called weight is taken for a linear map unless it is named as an "
    "embedding, names are those of the files, and a tied head that is not stored is not seen. PEFT may "
    "count otherwise."
)
_HEADS = ("lm_head", "embed_out", "proj_out", "output")


def from_safetensors(source: str | Path) -> ModelSpec:
    """The modules of a safetensors file, an index, or a directory that holds either; only headers are read.

    A matrix called ``weight`` is a linear map, unless its name is that of an embedding; an array of more axes
    is a convolution, a vector a norm. Anything else is a bare parameter.

    Parameters
    ----------
    source : str or Path
        The file, index or directory.

    Returns
    -------
    ModelSpec
        Without default targets, because a file does not say what family it is of.

    Raises
    ------
    HubError
        If there is no such model, or `open_model` finds it damaged.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from lora_np.hub import safetensors
    >>> from lora_np.accounting import count_model
    >>> path = Path(tempfile.mkdtemp()) / "model.safetensors"
    >>> safetensors.save({"q_proj.weight": np.zeros((100, 120)), "q_proj.bias": np.zeros(100)}, path)
    >>> count_model(from_safetensors(path), rank=8, targets=["q_proj"]).trainable
    1760
    """
    path = Path(source)
    model = open_model(path)
    shapes = {name: model.info(name).shape for name in model.places}
    modules = tuple(fold(_modules(shapes)))
    heads = [module.name for module in modules if module.name.rpartition(".")[2] in _HEADS]
    name = path.name if path.is_dir() or path.name != INDEX else path.parent.name
    return ModelSpec(name or str(path), modules, head=heads[0] if len(heads) == 1 else "", assumed=_ASSUMED)


def _modules(shapes: Mapping[str, tuple[int, ...]]) -> Iterator[ModuleSpec]:
    for name, shape in shapes.items():
        owner, _, last = name.rpartition(".")
        if last == "weight" and owner:
            bias = shapes.get(f"{owner}.bias")
            kind = _guess(owner, shape)
            if kind == "linear" and bias is not None and bias == shape[1:] != shape[:1]:
                # GPT-2's Conv1D stores its weight as (d_in, d_out); its bias gives that away
                shape = shape[::-1]
            yield ModuleSpec(owner, kind, shape, bias=bias is not None)
        elif last != "bias" or f"{owner}.weight" not in shapes:
            yield ModuleSpec(name, "parameter", shape)


def _guess(name: str, shape: tuple[int, ...]) -> Kind:
    last = name.rpartition(".")[2]
    if len(shape) == 1:
        return "norm"
    if len(shape) == 2:
        return "embedding" if last in _EMBEDDINGS or "embed" in last.removeprefix("embed_out") else "linear"
    return "convolution" if len(shape) in (3, 4, 5) else "parameter"
