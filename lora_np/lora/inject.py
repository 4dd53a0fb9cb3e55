"""Put adapters into a model, and take them out again: one rewrite of the tree each way."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Iterable
from difflib import get_close_matches
from typing import Any, TypeVar

import numpy as np

from lora_np._checks import Array, whole_number
from lora_np.autograd import Tensor, value
from lora_np.lora.init import kaiming
from lora_np.lora.layer import LoRALinear
from lora_np.nn import Linear, freeze, leaves, replace
from lora_np.nn.tree import walk

T = TypeVar("T")


def inject(
    model: T,
    *,
    rank: int,
    rng: np.random.Generator,
    alpha: float | None = None,
    dropout: float = 0.0,
    init: Callable[[np.random.Generator, int, int], Array] = kaiming,
    where: Callable[[str, Linear], bool] | None = None,
    train: Collection[str] = (),
) -> T:
    """The same model, frozen, with ``(alpha/r) B A`` beside its linear layers; it computes what it did.

    Parameters
    ----------
    model : tree
        Any model with `Linear` layers; it is not changed, and the new one shares its arrays.
    rank : int
        r, at least 1. Above min(d, k) it is legal, but warned about: B A can then be any matrix at all.
    rng : Generator
        Randomness for A.
    alpha : float, optional
        The update is scaled by ``alpha / r``; by default alpha = r, a scale of one.
    dropout : float
        Rate of dropout before A, in training only.
    init : callable
        ``init(rng, r, k)`` gives A: `lora_np.lora.kaiming`, `lora_np.lora.gaussian`, or your own.
    where : callable, optional
        ``where(path, layer)`` says whether to adapt a layer; by default all of them.
    train : collection of str
        Paths of parts that are trained in full instead (a new head, say): exceptions from freezing.

    Returns
    -------
    tree
        The adapted model; A and B are its only Tensors, beside what ``train`` names.

    Raises
    ------
    ValueError
        If there is no layer to adapt, the model has adapters already, or ``train`` names nothing in it.
    TypeError
        If ``rank`` is not a whole number.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> model = inject(Linear.init(d_out=100, d_in=120, rng=rng), rank=8, alpha=16, rng=rng)
    >>> [(path, leaf.shape, type(leaf).__name__) for path, leaf in leaves(model)]
    [('base.W', (100, 120), 'ndarray'), ('A', (8, 120), 'Tensor'), ('B', (100, 8), 'Tensor')]
    """
    rank = whole_number("rank", rank)
    if any(isinstance(node, LoRALinear) for _, node in walk(model)):
        raise ValueError("this model has LoRA adapters already: merge it first, or start from the base model")
    check_paths(model, train)
    adapted: list[Linear] = []

    def adapt(path: str, layer: Linear) -> Linear | LoRALinear:
        if under(path, train) or not (where is None or where(path, layer)):
            return layer
        adapted.append(layer)
        dtype = layer.W.dtype
        A = Tensor(np.asarray(init(rng, rank, layer.d_in), dtype=dtype))
        B = Tensor(np.zeros((layer.d_out, rank), dtype=dtype))
        return LoRALinear(layer, A, B, rank if alpha is None else alpha, dropout)

    frozen = replace(
        model, (Tensor, np.ndarray), lambda path, a: thawed(a) if under(path, train) else value(a)
    )
    result = replace(frozen, Linear, adapt)
    if not adapted:
        raise ValueError(
            "there is no Linear layer to adapt" + (", or where= refuses them all" if where else "")
        )
    full = min(min(layer.W.shape) for layer in adapted)
    if rank > full:
        warnings.warn(
            f"rank {rank} is above min(d, k) = {full}: B A can be any matrix, from more numbers than it has",
            stacklevel=2,
        )
    return result


def merge(model: T) -> T:
    """The model without adapters: each ``W0 + (alpha/r) B A`` as one plain array.

    Parameters
    ----------
    model : tree
        An adapted model; it is not changed.

    Returns
    -------
    tree
        The same model as ordinary NumPy, without any Tensor.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> merge(inject(Linear(np.eye(2)), rank=1, rng=rng)).W
    array([[1., 0.],
           [0., 1.]])
    """
    return freeze(replace(model, LoRALinear, lambda path, layer: layer.merged()))


def adapter_leaves(model: Any) -> list[tuple[str, Tensor | Array]]:
    """The adapters' own arrays, A and B of each adapted layer, with their paths.

    Examples
    --------
    >>> model = inject(Linear(np.eye(3)), rank=1, rng=np.random.default_rng(0))
    >>> [(path, a.shape) for path, a in adapter_leaves(model)]
    [('A', (1, 3)), ('B', (3, 1))]
    """
    own = {id(a) for _, node in walk(model) if isinstance(node, LoRALinear) for a in (node.A, node.B)}
    return [(path, leaf) for path, leaf in leaves(model) if id(leaf) in own]


def thawed(a: Tensor | Array) -> Tensor:
    return a if isinstance(a, Tensor) else Tensor(a)


def under(path: str, parts: Iterable[str]) -> bool:
    """Whether ``path`` is one of ``parts`` or stands below one."""
    return any(path == part or path.startswith(f"{part}.") for part in parts)


def check_paths(model: Any, parts: Collection[str]) -> None:
    if isinstance(parts, str):
        raise TypeError(f"train must be a collection of paths such as [{parts!r}], got the string {parts!r}")
    known = [path for path, _ in walk(model)]
    for part in parts:
        if part not in known:
            close = ", ".join(get_close_matches(part, known, n=3, cutoff=0.3)) or ", ".join(known[1:6])
            raise ValueError(f"train names {part!r}, which is not in the model; close: {close}")
