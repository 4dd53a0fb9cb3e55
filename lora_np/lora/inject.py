"""Put adapters into a model, and take them out again: one rewrite of the tree each way."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Iterable
from difflib import get_close_matches
from typing import Any, TypeVar

import numpy as np

from lora_np.autograd import Tensor, value
from lora_np.checks import Array, choice, whole_number
from lora_np.lora.init import kaiming
from lora_np.lora.layer import LoRAEmbedding, LoRALinear
from lora_np.lora.variants import ADAPTED, VARIANTS, DoRALinear, Settings
from lora_np.nn import Embedding, Linear, freeze, leaves, replace
from lora_np.nn.tree import join, walk
from lora_np.quantise import Quantised

T = TypeVar("T")


def inject(
    model: T,
    *,
    rank: int,
    rng: np.random.Generator | int,
    alpha: float | None = None,
    dropout: float = 0.0,
    init: Callable[[np.random.Generator, int, int], Array] = kaiming,
    where: Callable[[str, Any], bool] | None = None,
    train: Collection[str] = (),
    variant: str = "lora",
    bias: str = "none",
) -> T:
    """The same model, frozen, with ``(alpha/r) B A`` beside its linear layers; it computes what it did.

    Parameters
    ----------
    model : tree
        Any model with `Linear` layers; it is not changed, and the new one shares its arrays.
    rank : int
        r, at least 1. Above min(d, k) it is legal, but warned about: B A can then be any matrix at all.
    rng : Generator or int
        Randomness for A.
    alpha : float, optional
        The update is scaled by ``alpha / r``; by default alpha = r, a scale of one.
    dropout : float
        Rate of dropout before A, in training only.
    init : callable
        ``init(rng, r, k)`` gives A: `lora_np.lora.kaiming`, `lora_np.lora.gaussian`, or your own.
    where : callable, optional
        ``where(path, layer)`` says of each `Linear` and `Embedding` whether to adapt it; by default all
        linear layers and no embedding. (An embedding takes no dropout and no ``init``.)
    train : collection of str
        Paths of parts that are trained in full instead (a new head, say): exceptions from freezing.
    variant : {"lora", "rslora", "lora+", "lora-fa", "dora", "pissa", "olora"}
        A row of `lora_np.lora.VARIANTS`. LoRA+ differs in its optimizer alone: see `lora_np.lora.lora_plus`.
    bias : {"none", "lora_only", "all"}
        Which b of the linear layers to train as well: those of adapted layers, or all. A merged model keeps
        what they have become.

    Returns
    -------
    tree
        The adapted model; A and B are its only Tensors, beside what ``train`` names.

    Raises
    ------
    ValueError
        If there is no layer to adapt, the model has adapters already, ``train`` names nothing in it, or the
        variant or ``bias`` is not known.
    TypeError
        If ``rank`` is not a whole number, or ``where`` is no function.

    Notes
    -----
    A and B have the dtype of the weight, but at least float32, in which training is safe (as in PEFT).

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> model = inject(Linear.init(d_out=100, d_in=120, rng=rng), rank=8, alpha=16, rng=rng)
    >>> [(path, leaf.shape, type(leaf).__name__) for path, leaf in leaves(model)]
    [('base.W', (100, 120), 'ndarray'), ('A', (8, 120), 'Tensor'), ('B', (100, 8), 'Tensor')]
    """
    rank = whole_number("rank", rank)
    choice("variant", variant, VARIANTS)
    choice("bias", bias, ("none", "lora_only", "all"))
    if any(isinstance(node, ADAPTED) for _, node in walk(model)):
        raise ValueError("this model has LoRA adapters already: merge it first, or start from the base model")
    check_paths(model, train)
    if where is not None and not callable(where):
        raise TypeError(f"where must be a function of (path, layer), got {where!r}")
    rng = np.random.default_rng(rng)
    settings = Settings(rank, float(rank) if alpha is None else alpha, dropout, init, rng)
    adapted: list[Linear | Embedding] = []

    def chosen(path: str, layer: Any) -> bool:
        wanted = isinstance(layer, Linear) if where is None else where(path, layer)
        return wanted and not under(path, train)

    def adapt(path: str, layer: Any) -> Any:
        if not chosen(path, layer):
            return layer
        adapted.append(layer)
        return VARIANTS[variant].adapt(layer, settings)

    biases = [
        join(path, "b")
        for path, layer in walk(model)
        if isinstance(layer, Linear) and (bias == "all" or (bias == "lora_only" and chosen(path, layer)))
    ]
    trained = [*train, *biases]
    frozen = replace(
        model, (Tensor, np.ndarray), lambda path, a: thawed(a) if under(path, trained) else value(a)
    )
    result = replace(frozen, (Linear, Embedding), adapt)
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
    return freeze(replace(model, ADAPTED, lambda path, layer: layer.merged()))


def adapter_leaves(model: Any) -> list[tuple[str, Tensor | Array]]:
    """The adapters' own arrays, A and B of each adapted layer (and DoRA's m), with their paths.

    Examples
    --------
    >>> model = inject(Linear(np.eye(3)), rank=1, rng=np.random.default_rng(0))
    >>> [(path, a.shape) for path, a in adapter_leaves(model)]
    [('A', (1, 3)), ('B', (3, 1))]
    """
    nodes = [node for _, node in walk(model)]
    factors = {
        id(a) for node in nodes if isinstance(node, (LoRALinear, LoRAEmbedding)) for a in (node.A, node.B)
    }
    own = factors | {id(node.m) for node in nodes if isinstance(node, DoRALinear)}
    return [(path, a) for path, a in leaves(model) if id(a) in own and not isinstance(a, Quantised)]


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
