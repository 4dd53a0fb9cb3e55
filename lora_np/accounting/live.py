"""The modules of models in memory: ours, and any with ``named_modules()``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_np.autograd import Tensor, value
from lora_np.models import ModelSpec, ModuleSpec, describe, fold
from lora_np.nn import layer_specs, leaves, walk
from lora_np.quantise import Quantised
from lora_np.table import Shown, Table, decimal_bytes


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


def model_spec(source: object) -> ModelSpec:
    """The modules of a model, from any source that describes one.

    Parameters
    ----------
    source : str, Path, mapping or model
        ``"100x120"`` for one matrix, the name of a preset or of a shipped model, a ``config.json``, a
        ``*.safetensors`` or ``*.gguf`` file, a directory that holds a config or safetensors, the fields of a
        config, a model of ours, or any object with ``named_modules()``.

    Returns
    -------
    ModelSpec
        The modules by name, kind, shape and role.

    Raises
    ------
    FileNotFoundError
        If the file or preset does not exist.
    ValueError
        If the file or the config cannot be understood.
    TypeError
        If the source is none of these.

    Examples
    --------
    >>> model_spec("100x120").total, model_spec("gpt2").total
    (12000, 124439808)
    """
    if isinstance(source, (str, Path, Mapping)) or hasattr(source, "named_modules"):
        return describe(source)
    return from_model(source)


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
        return describe(model)
    modules = tuple(fold(_tree_modules(model)))
    if not modules:
        raise TypeError(f"a model must hold arrays or have named_modules(), got {type(model).__name__}")
    return ModelSpec(type(model).__name__, modules)


def _tree_modules(model: Any) -> Iterator[ModuleSpec]:
    """Layers as such, and every array outside them as a bare parameter."""
    nodes = walk(model)
    first = {id(node): path for path, node in reversed(nodes)}
    paths = dict(nodes)
    seen: set[int] = set()
    for module in layer_specs(model):
        layer = paths[module.name]
        if first[id(layer)] == module.name:  # a layer in several places is one
            yield module._replace(name=module.name or "W")
            seen |= {id(layer.W), id(getattr(layer, "b", None))}
    for path, leaf in leaves(model):
        if id(leaf) not in seen:
            yield ModuleSpec(path.partition(" = ")[0], "norm" if leaf.ndim == 1 else "parameter", leaf.shape)
