"""Put adapters into a model, and take them out again: one rewrite of the tree each way."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, TypeVar

import numpy as np

from lora_np.autograd import Tensor, value
from lora_np.checks import Array, choice, close_names, generator, whole_number
from lora_np.lora.initial import kaiming
from lora_np.lora.layers import LoRAEmbedding, LoRALinear
from lora_np.lora.variants import ADAPTED, VARIANTS, DoRALinear, Settings
from lora_np.models import Targets, checked_names, ends_with, matcher
from lora_np.nn import Embedding, Linear, freeze, join, leaves, replace, walk
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
    targets: Targets = "all-linear",
    train: Collection[str] = (),
    variant: str = "lora",
    bias: str = "none",
) -> T:
    """The same model, frozen, with ``(alpha/r) B A`` next to its linear layers; it computes what it did.

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
    targets : str, iterable of str, or callable
        Which `Linear` and `Embedding` layers to adapt, as in PEFT: a list of ends of paths, such as
        ``["q_proj", "v_proj"]``; a regular expression for whole paths; ``"all-linear"`` for every linear
        layer but the output layer (one that is called ``lm_head``, or shares the array of an embedding); or
        a function of (path, layer). An embedding takes no dropout and no ``init``.
    train : collection of str
        Paths of parts that are trained in full instead (a new head, say): exceptions from freezing. A tied
        weight can be named by any of its paths, is trained once, and stays tied.
    variant : {"lora", "rslora", "lora+", "lora-fa", "dora", "pissa", "olora"}
        A row of `lora_np.lora.VARIANTS`. LoRA+ differs in its optimizer alone: see `lora_np.lora.lora_plus`.
    bias : {"none", "lora_only", "all"}
        Which b of the linear layers to train as well: those of adapted layers, or all. A merged model keeps
        what they have become.

    Returns
    -------
    tree
        The adapted model; A and B are its only Tensors, next to what ``train`` names.

    Raises
    ------
    ValueError
        If ``targets``, or one name in the list, selects no layer, the model has adapters already, ``train``
        names nothing in it, or the variant or ``bias`` is not known.
    TypeError
        If ``rank`` is not a whole number, ``rng`` is neither, or ``targets`` is of another kind.

    See Also
    --------
    merge : The way back.
    lora_np.adapters.save : Write what was trained as PEFT does.

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
    nodes = list(walk(model))
    if any(isinstance(node, ADAPTED) for _, node in nodes):
        raise ValueError("this model has LoRA adapters already: merge it first, or start from the base model")
    check_paths([path for path, _ in nodes], train)
    rng = generator(rng)
    settings = Settings(rank, float(rank) if alpha is None else alpha, dropout, init, rng)
    if not (isinstance(targets, str) or callable(targets)):
        targets = checked_names(targets)
    chosen = selection(nodes, targets)
    layers = {path: node for path, node in nodes if isinstance(node, (Linear, Embedding))}
    adapted = {path: node for path, node in layers.items() if not under(path, train) and chosen(path, node)}
    if not adapted:
        raise ValueError(no_layer(nodes, targets))
    for name in targets if isinstance(targets, list) else ():
        if not any(ends_with(path, name) for path in layers):
            raise ValueError(no_layer(nodes, [name]))
    biased = adapted if bias == "lora_only" else {path for path, node in nodes if isinstance(node, Linear)}
    trained = [*train, *(join(path, "b") for path in biased if bias != "none")]
    # By identity: a tied weight has several paths, and is trained if any of them is named.
    weights = [(path, node) for path, node in nodes if isinstance(node, (Tensor, np.ndarray))]
    thawed = {id(weight) for path, weight in weights if under(path, trained)}

    def rewrite(path: str, node: Tensor | Array) -> Tensor | Array:
        if isinstance(node, Tensor) is (id(node) in thawed):
            return node
        return value(node) if isinstance(node, Tensor) else Tensor(node)

    frozen = replace(model, (Tensor, np.ndarray), rewrite)
    result = replace(
        frozen,
        (Linear, Embedding),
        lambda path, layer: VARIANTS[variant].adapt(layer, settings) if path in adapted else layer,
    )
    full = min(min(layer.W.shape) for layer in adapted.values())
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

    Parameters
    ----------
    model : object
        A model with adapters.

    Returns
    -------
    list of (str, Tensor or ndarray)
        Paths and arrays.

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


def selection(nodes: Sequence[tuple[str, Any]], targets: Targets) -> Callable[[str, Any], bool]:
    """Whether a layer is one of the ``targets``."""
    wanted = matcher(targets)
    if not wanted.all_linear:
        return wanted
    embeddings = {id(node.W) for _, node in nodes if isinstance(node, Embedding)}

    def linear_within(path: str, layer: Any) -> bool:
        output = path.rpartition(".")[2] == "lm_head" or id(layer.W) in embeddings
        return isinstance(layer, Linear) and not output

    return linear_within


def no_layer(nodes: Sequence[tuple[str, Any]], targets: Targets) -> str:
    """What to say where ``targets`` select nothing."""
    paths = [path for path, node in nodes if isinstance(node, (Linear, Embedding))]
    if not paths:
        return "this model has no Linear and no Embedding layer to adapt"
    said, words = ("the function of (path, layer)", [""]) if callable(targets) else (repr(targets), targets)
    known = [path.rpartition(".")[2] or "''" for path in paths]
    close = (close_names(word, known) for word in ([words] if isinstance(words, str) else words))
    return f"targets selected no layer, got {said}{''.join(close)}"


def under(path: str, parts: Iterable[str]) -> bool:
    """Whether ``path`` is one of ``parts`` or is below one."""
    return any(path == part or path.startswith(f"{part}.") for part in parts)


def check_paths(known: Sequence[str], parts: Collection[str]) -> None:
    if isinstance(parts, str):
        raise TypeError(f"train must be a collection of paths such as [{parts!r}], got the string {parts!r}")
    for part in parts:
        if part not in known:
            raise ValueError(f"train names {part!r}, which is not in the model{close_names(part, known[1:])}")
