"""Our own models in memory: their modules, and their numbers by leaf."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lora_np.autograd import Tensor, value
from lora_np.models import ModelSpec, ModuleSpec, fold
from lora_np.nn import layer_specs, leaves, walk
from lora_np.quantise import Quantised
from lora_np.table import Table, decimal_bytes


def tree_count(model: Any) -> tuple[int, int, int, Table]:
    """Trainable numbers, all numbers, their bytes, and a table with a row for each array."""
    rows, nbytes = [], 0
    for path, leaf in leaves(model):
        nbytes += (leaf if isinstance(leaf, Quantised) else value(leaf)).nbytes
        free = leaf.size if isinstance(leaf, Tensor) else 0
        rows.append((path, " x ".join(map(str, leaf.shape)) or "scalar", free, leaf.size - free))
    if not rows:
        raise TypeError(
            f"a model must hold arrays or have named_modules(), got {type(model).__name__}"
        )
    trainable = sum(row[2] for row in rows)
    total = trainable + sum(row[3] for row in rows)
    quantised = any(isinstance(leaf, Quantised) for _, leaf in leaves(model))
    title = f"{type(model).__name__}: {trainable:,} of {total:,} numbers trainable"
    notes = [f"Quantised weights; all in all {decimal_bytes(nbytes)}."] if quantised else []
    table = Table(("array", "shape", "trainable", "frozen"), rows, title=title, notes=notes)
    return trainable, total, nbytes, table


def tree_spec(model: Any) -> ModelSpec:
    """The modules of a tree of our layers."""
    modules = tuple(fold(_modules(model)))
    if not modules:
        raise TypeError(
            f"a model must hold arrays or have named_modules(), got {type(model).__name__}"
        )
    return ModelSpec(type(model).__name__, modules, default_targets="all-linear")


def _modules(model: Any) -> Iterator[ModuleSpec]:
    """Layers, and every array outside them as a bare parameter."""
    paths = dict(walk(model))
    seen: set[int] = set()
    for module in layer_specs(model):
        layer = paths[module.name]
        if id(layer) not in seen:  # a layer in several places is one
            yield module._replace(name=module.name or "W")
            seen |= {id(layer), id(layer.W), id(getattr(layer, "b", None))}
    for path, leaf in leaves(model):
        if id(leaf) not in seen:
            yield ModuleSpec(
                path.partition(" = ")[0], "norm" if leaf.ndim == 1 else "parameter", leaf.shape
            )
