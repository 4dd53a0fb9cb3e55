"""The modules of models in memory: ours, and any with ``named_modules()``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from lora_np.autograd import Tensor, value
from lora_np.hub import ModelSpec, ModuleSpec, default_targets, fold, fused_names
from lora_np.nn import Linear, leaves, walk
from lora_np.quantise import Quantised
from lora_np.table import Shown, Table, decimal_bytes

_ASSUMED = "The experts of this family are not described: PEFT may adapt them under other names."


@dataclass(frozen=True, repr=False)
class ModelCount(Shown):
    """The numbers in a model of ours, by leaf: what :func:`count` gives.

    Parameters
    ----------
    trainable, total : int
        Numbers in Tensors, and in all arrays.
    nbytes : int
        The memory that they take; of a quantised weight, that of its codes and scales.
    table : Table
        One row for each leaf.
    """

    trainable: int
    total: int
    nbytes: int
    table: Table

    @property
    def frozen(self) -> int:
        """Numbers in plain arrays."""
        return self.total - self.trainable


def count(model: Any) -> ModelCount:
    """The trainable and the frozen numbers of a model of ours; a tied weight is counted once.

    Parameters
    ----------
    model : object
        A tree of layers.

    Returns
    -------
    ModelCount
        The numbers of each array, which print as a table.

    Raises
    ------
    TypeError
        If the object holds no arrays.

    Examples
    --------
    >>> import numpy as np
    >>> from lora_np import Linear, inject
    >>> model = inject(Linear(np.zeros((100, 120))), rank=8, alpha=16, rng=np.random.default_rng(0))
    >>> count(model)
    LoRALinear: 1,760 of 13,760 numbers trainable
    array   shape      trainable  frozen
    ------  ---------  ---------  ------
    base.W  100 x 120          0  12,000
    A       8 x 120          960       0
    B       100 x 8          800       0
    """
    rows = []
    nbytes = 0
    for path, leaf in leaves(model):
        nbytes += (leaf if isinstance(leaf, Quantised) else value(leaf)).nbytes
        numbers = leaf.size
        free = isinstance(leaf, Tensor)
        shape = " x ".join(map(str, leaf.shape)) or "scalar"
        rows.append((path, shape, numbers if free else 0, 0 if free else numbers))
    if not rows:
        raise TypeError(f"a model must hold arrays, got {type(model).__name__} with none")
    trainable = sum(row[2] for row in rows)
    total = trainable + sum(row[3] for row in rows)
    quantised = any(isinstance(leaf, Quantised) for _, leaf in leaves(model))
    title = f"{type(model).__name__}: {trainable:,} of {total:,} numbers trainable"
    notes = [f"Quantised weights; all in all {decimal_bytes(nbytes)}."] if quantised else []
    table = Table(("array", "shape", "trainable", "frozen"), rows, title=title, notes=notes)
    return ModelCount(trainable, total, nbytes, table)


def from_model(model: Any) -> ModelSpec:
    """The modules of a model in memory: one of ours, or any object with ``named_modules()``.

    Parameters
    ----------
    model : object
        A tree of our layers; or a torch model, on the meta device too. torch is never imported here: what
        counts is that modules have ``named_parameters(recurse=False)`` with shapes.

    Returns
    -------
    ModelSpec
        The modules by name, kind, shape and role.

    Raises
    ------
    TypeError
        If the object is neither.

    Examples
    --------
    >>> import numpy as np
    >>> from lora_np import Linear, Sequential
    >>> from lora_np.accounting import count_model
    >>> model = Sequential([Linear(np.zeros((100, 120)), np.zeros(100)), Linear(np.zeros((5, 100)))])
    >>> spec = from_model(model)
    >>> spec.total, count_model(spec, rank=8, targets=["layers.0"]).trainable
    (12600, 1760)
    """
    if hasattr(model, "named_modules"):
        return _from_named_modules(model)
    modules = tuple(fold(_tree_modules(model)))
    if not modules:
        raise TypeError(f"a model must hold arrays or have named_modules(), got {type(model).__name__}")
    return ModelSpec(type(model).__name__, modules)


def _tree_modules(model: Any) -> Iterator[ModuleSpec]:
    """Linear layers as such, and every array outside them as a bare parameter."""
    seen: set[int] = set()
    for path, node in walk(model):
        if isinstance(node, Linear) and id(node) not in seen:
            tied = id(node.W) in seen
            tied_bias = node.b is not None and id(node.b) in seen
            yield ModuleSpec(path or "W", "linear", node.W.shape, node.b is not None, tied, tied_bias)
            seen |= {id(node), id(node.W), id(node.b)}
    for path, leaf in leaves(model):
        if id(leaf) not in seen:
            yield ModuleSpec(path.partition(" = ")[0], "norm" if leaf.ndim == 1 else "parameter", leaf.shape)


def _from_named_modules(model: Any) -> ModelSpec:
    family_name = getattr(getattr(model, "config", None), "model_type", "")
    fused = fused_names(family_name)
    seen: set[int] = set()
    modules: list[ModuleSpec] = []
    for name, module in model.named_modules():
        modules += _torch_modules(name, module, seen, fused or {})
    output = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    return ModelSpec(
        type(model).__name__,
        tuple(fold(modules)),
        family=family_name,
        head=next((name for name, module in model.named_modules() if module is output), ""),
        default_targets=default_targets(family_name),
        fused=fused or None,
        assumed=_ASSUMED if fused is None and any(module.kind == "experts" for module in modules) else "",
    )


def _torch_modules(name: str, module: Any, seen: set[int], fused: Mapping[str, str]) -> Iterator[ModuleSpec]:
    """A module's own parameters as one module where its kind is known, and by themselves where it is not."""
    shapes: dict[str, tuple[int, ...]] = {}
    tied: dict[str, bool] = {}
    for key, parameter in module.named_parameters(recurse=False):
        shapes[key] = tuple(parameter.shape)
        tied[key] = id(parameter) in seen
        seen.add(id(parameter))
    known = _known(module, shapes)
    if known is not None:
        bias = "bias" in shapes
        yield known._replace(
            name=name or type(module).__name__,
            bias=bias,
            tied=tied["weight"],
            tied_bias=bias and tied["bias"],
        )
        shapes = {key: shape for key, shape in shapes.items() if key not in ("weight", "bias")}
    for key, shape in shapes.items():
        path = f"{name}.{key}" if name else key
        if type(module).__name__.endswith("Experts") and len(shape) == 3:
            parts = tuple(old for old, new in fused.items() if new == key)
            yield ModuleSpec(path, "experts", shape, tied=tied[key], parts=parts or (key,))
        else:
            yield ModuleSpec(path, "parameter", shape, tied=tied[key])


def _known(module: Any, shapes: Mapping[str, tuple[int, ...]]) -> ModuleSpec | None:
    weight = shapes.get("weight", ())
    if weight and hasattr(module, "in_features") and hasattr(module, "out_features"):
        # a quantized weight is packed: its own shape would mislead
        return ModuleSpec("", "linear", (module.out_features, module.in_features))
    if len(weight) == 2 and type(module).__name__ == "Conv1D":
        return ModuleSpec("", "linear", (weight[1], weight[0]))
    if len(weight) == 2 and hasattr(module, "num_embeddings"):
        return ModuleSpec("", "embedding", weight)
    if len(weight) == 2 and type(module).__name__.endswith("Router"):
        return ModuleSpec("", "router", weight)
    if len(weight) >= 3 and hasattr(module, "kernel_size") and not getattr(module, "transposed", False):
        return ModuleSpec("", "convolution", weight, groups=module.groups)
    if len(weight) == 1:
        return ModuleSpec("", "norm", weight)
    return None
