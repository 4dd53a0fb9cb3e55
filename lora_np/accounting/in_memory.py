"""Count the parameters and list the modules of lora_np's own models in memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from lora_np.autograd import Tensor, value
from lora_np.checks import Array
from lora_np.models import ModelSpec, ModuleSpec, fold
from lora_np.nn import layer_specs, leaves, walk
from lora_np.quantise import Quantised
from lora_np.table import Table, binary_bytes

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


class NamedModules(Protocol):
    """A model that lists its modules, such as a torch module."""

    def named_modules(self) -> Iterable[tuple[str, Any]]: ...


# a model's name, path or config, a torch module, or a tree of lora_np's layers
Model: TypeAlias = (
    "str | Path | Mapping[str, Any] | ModelSpec | NamedModules | DataclassInstance"
    " | Sequence[DataclassInstance] | Array"
)


def tree_count(model: Model) -> tuple[int, int, int, Table]:
    """Count trainable parameters, all parameters and bytes, and tabulate the arrays."""
    lines, nbytes, quantised = [], 0, False
    for path, leaf in leaves(model):
        quantised |= isinstance(leaf, Quantised)
        nbytes += (leaf if isinstance(leaf, Quantised) else value(leaf)).nbytes
        free = leaf.size if isinstance(leaf, Tensor) else 0
        lines.append((path, " x ".join(map(str, leaf.shape)) or "scalar", free, leaf.size - free))
    if not lines:
        raise _no_model(model)
    trainable = sum(line[2] for line in lines)
    total = trainable + sum(line[3] for line in lines)
    title = f"{type(model).__name__}: {trainable:,} of {total:,} parameters trainable"
    notes = [f"Some weights are quantised; in total {binary_bytes(nbytes)}."] if quantised else []
    table = Table(("array", "shape", "trainable", "frozen"), lines, title=title, notes=notes)
    return trainable, total, nbytes, table


def tree_spec(model: Model) -> ModelSpec:
    """Describe the modules of a model that is a tree of lora_np's layers."""
    modules = tuple(fold(_modules(model)))
    if not modules:
        raise _no_model(model)
    return ModelSpec(type(model).__name__, modules, default_targets="all-linear")


def _no_model(model: Model) -> TypeError:
    return TypeError(
        f"a model must hold arrays or have named_modules(), got {type(model).__name__}"
    )


def _modules(model: Model) -> Iterator[ModuleSpec]:
    """Yield a module for each layer, and one for each array that belongs to no layer."""
    paths = dict(walk(model))
    seen: set[int] = set()
    for module in layer_specs(model):
        layer = paths[module.name]
        if id(layer) not in seen:  # count a layer only once, even if it has several paths
            yield module._replace(name=module.name or "W")
            seen |= {id(layer), id(layer.W), id(getattr(layer, "b", None))}
    for path, leaf in leaves(model):
        if id(leaf) not in seen:
            yield ModuleSpec(
                path.partition(" = ")[0], "norm" if leaf.ndim == 1 else "parameter", leaf.shape
            )
