"""The modules of a checkpoint, from the headers of its safetensors files: no tensor is read."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from pathlib import Path

from lora_np.checks import choice
from lora_np.hub import INDEX, HubError, bitsandbytes_parts, bitsandbytes_size
from lora_np.models.checkpoint import OpenModel, open_model
from lora_np.models.kinds import judged, kinds_by_type, starred
from lora_np.models.names import Place, default_targets, fused_names, names_are_known
from lora_np.models.spec import Kind, ModelSpec, ModuleSpec, fold

_ASSUMED = (
    "Counted from headers: a matrix called weight is taken for a linear map unless it is named as an "
    "embedding, names are those of the files, and a tied head that is not stored is not seen. PEFT may "
    "count otherwise."
)
_KNOWN = (
    "Counted from headers, as the modules of {} models are in transformers: PEFT counts otherwise where this "
    "model differs from a usual one."
)
MEMORY = "count the model in memory, on the meta device"
_KINDS = ("linear", "embedding", "convolution", "norm", "parameter")  # that a caller may say
_HEADS = ("lm_head", "embed_out", "proj_out", "output")


def from_safetensors(source: str | Path, *, kinds: Mapping[str, Kind] | None = None) -> ModelSpec:
    """The modules of a safetensors file, an index, or a directory that holds either; only headers are read.

    A matrix called ``weight`` is a linear map, unless its name is that of an embedding; an array of more axes
    is a convolution, a vector a norm. Anything else is a bare parameter, and so is a ``weight`` whose bias
    has another shape. If a ``config.json`` gives the model's type, and transformers has language models of
    that type, names and kinds are as there.

    Parameters
    ----------
    source : str or Path
        The file, index or directory.
    kinds : mapping of str to str, optional
        The kinds of modules with misleading names: from the end of a name to ``"linear"``, ``"embedding"``,
        ``"convolution"``, ``"norm"`` or ``"parameter"``.

    Returns
    -------
    ModelSpec
        Its field ``assumed`` says what was assumed.

    Raises
    ------
    ValueError
        If an entry of ``kinds`` is none of these.
    HubError
        If there is no such model, `open_model` finds it damaged, or its modules cannot be told, because
        transformers splits or joins tensors of it when it loads.

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
    for end, kind in (kinds or {}).items():
        choice(f"kinds[{end!r}]", kind, _KINDS)
    path = Path(source)
    model = open_model(path)
    family = str(model.config.get("model_type") or "")
    title = path.name if path.is_dir() or path.name != INDEX else path.parent.name
    known = kinds_by_type().get(family) if names_are_known(model.config) else None
    why = known if isinstance(known, str) else ""
    if model.unread:
        why = f"transformers splits or joins {model.unread[0]!r} when it loads it"
    if why:
        raise HubError(f"{path}: headers do not tell the modules of a {family} model: {why}; {MEMORY}")
    few = few_bits(model)
    parts = {part for name in few for part in bitsandbytes_parts(model, name)}
    parts -= few.keys()
    shapes = {
        name: _shape(model, places, few)
        for name, places in model.parameters.items()
        if parts.isdisjoint(places)
    }
    shapes = {name: shape for name, shape in shapes.items() if (known or {}).get(starred(name)) != "buffer"}
    fused = fused_names(family) or {}
    found = {name: judged(name, shapes, known or {}, fused, kinds) for name in shapes}
    modules = list(dict.fromkeys(found.values()))
    if known is None:
        heads = [module.name for module in modules if module.name.rpartition(".")[2] in _HEADS]
        head = heads[0] if len(heads) == 1 else ""
    else:
        head = next((name for name, kind in known.items() if kind == "head"), "lm_head")
        tables = [module for module in modules if module.kind == "embedding"]
        tables = [module for module in tables if known.get(module.name) == "table"] or tables
        names = list(map(str, model.config.get("architectures") or ()))
        with_head = any("LMHead" in name or not name.endswith("Model") for name in names)
        if with_head and tables and all(module.name != head for module in modules):
            # a checkpoint does not hold a head that is the embedding
            modules.append(ModuleSpec(head, "linear", max(each.shape for each in tables), tied=True))
    modules = [each._replace(role="head") if each.name == head else each for each in modules]
    return ModelSpec(
        title or str(path),
        tuple(fold(modules)),
        family=family,
        default_targets=default_targets(family),
        fused=fused or None,
        assumed=_ASSUMED if known is None else _KNOWN.format(family),
        quantised=quantised_size(few),
    )


def few_bits(model: OpenModel) -> dict[str, tuple[tuple[int, ...], int]]:
    """The weights that bitsandbytes quantised, each with its shape and the bytes that it takes."""
    names = [name for name in model.places if len(bitsandbytes_parts(model, name)) > 1]
    return {name: bitsandbytes_size(model, name) for name in names}


def quantised_size(few: Mapping[str, tuple[tuple[int, ...], int]]) -> tuple[int, int]:
    """The numbers in all such weights, and their bytes."""
    return sum(prod(shape) for shape, _ in few.values()), sum(size for _, size in few.values())


def _shape(
    model: OpenModel, places: Mapping[str, Place], few: Mapping[str, tuple[tuple[int, ...], int]]
) -> tuple[int, ...]:
    quantised = [name for name in places if name in few]
    if not quantised:
        return model.shape(places)
    if len(places) > 1:
        raise HubError(
            f"{model.path}: headers do not tell the shape of experts in few bits, {quantised[0]!r}; {MEMORY}"
        )
    return few[quantised[0]][0]
