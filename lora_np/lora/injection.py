"""Inject adapters into a model, or merge them, by rewriting its tree of layers."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace as changed
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from lora_np.autograd import Tensor, value
from lora_np.checks import Array, Seed, choice, close_names, generator, guided, whole_number
from lora_np.lora.defaults import ALPHA
from lora_np.lora.layers import LoRAExperts
from lora_np.lora.variants import (
    ADAPTED,
    VARIANTS,
    Adapted,
    DoRALinear,
    Quantiser,
    Settings,
    quantiser,
)
from lora_np.nn import Embedding, Linear, freeze, join, layer_specs, leaves, replace, walk
from lora_np.quantise import Quantised

if TYPE_CHECKING:
    from lora_np.models import Targets

T = TypeVar("T")


@guided(
    r="rank=", lora_alpha="alpha=", lora_dropout="dropout=", target_modules="targets=",
    modules_to_save="train=", init_lora_weights="variant=", use_rslora="variant='rslora'",
    use_dora="variant='dora'", seed="rng=",
)  # fmt: skip
def inject(
    model: T,
    *,
    rank: int,
    rng: Seed = 0,
    alpha: float = ALPHA,
    dropout: float = 0.0,
    targets: Targets = "all-linear",
    train: Collection[str] = (),
    variant: str = "lora",
    bias: str = "none",
    quantise: str | Quantiser | None = None,
    gradients: Mapping[str, Array] | None = None,
) -> T:
    """Freeze a model and add a trainable update ``(alpha/r) B A`` to its linear layers.

    At first, the outputs of the model stay the same, except with the variant "lora-one" or with
    ``quantise``.

    Parameters
    ----------
    model : tree
        Any model with `Linear` layers; it is not changed, and the new model shares its arrays.
    rank : int
        The rank r, at least 1. A rank above min(d, k) causes a warning, since B A can then be any
        matrix.
    rng : Generator or int
        Randomness for A.
    alpha : float
        The update is scaled by ``alpha / r``. The default is the same at every rank, so the same
        learning rate works for all: see `lora_np.lora.learning_rate`.
    dropout : float
        The rate of dropout before A, in training only.
    targets : str, iterable of str, or callable
        The `Linear` and `Embedding` layers to adapt, as in PEFT: a list of ends of paths, such as
        ``["q_proj", "v_proj"]``; a regular expression for whole paths; ``"all-linear"`` for every
        linear layer but the output layer (one called ``lm_head``, or one that shares the array of
        an embedding); or a function of (path, layer). Embeddings, HiRA and LoRA-XS have no dropout.
    train : collection of str
        The paths of parts that are trained in full instead of being frozen, such as a new head. A
        tied weight can be named by any of its paths, is trained once, and stays tied.
    variant : str
        A row of `lora_np.lora.VARIANTS`. LoRA+ differs only in its optimizer: see
        `lora_np.lora.lora_plus`.
        "loftq" needs ``quantise``, "lora-ga" and "lora-one" need ``gradients``.
    bias : {"none", "lora_only", "all"}
        Whether to train the biases b of the linear layers as well: of adapted layers, or of all. A
        merged model keeps their trained values.
    quantise : str or callable, optional
        Quantise the adapted linear weights (QLoRA): one of `lora_np.quantise.KINDS`, or a
        function of a matrix. The model then starts with the quantisation error, which the variant
        "loftq" reduces. A model whose weights are already quantised does not need this.
    gradients : mapping of str to ndarray, optional
        The gradient of the loss with respect to each adapted W, by the path of its layer.

    Returns
    -------
    tree
        The adapted model, whose only Tensors are the trained factors of the adapters and what
        ``train`` and ``bias`` select.

    Raises
    ------
    ValueError
        If ``targets``, or one name in the list, selects no layer, the model already has adapters,
        ``train`` names a part that does not exist, the variant or ``bias`` is unknown, or a weight
        does not fit the variant or ``quantise``, or is already quantised.
    TypeError
        If ``rank`` is not a whole number, or ``rng`` or ``targets`` has the wrong type.

    See Also
    --------
    merge : Add the updates to the weights and remove the adapters.
    lora_np.adapters.save : Write the trained adapter in PEFT's format.

    Notes
    -----
    A and B have the weight's dtype, but at least float32, in which training is stable (as in PEFT).

    References
    ----------
    T. Dettmers, A. Pagnoni, A. Holtzman, L. Zettlemoyer, "QLoRA", 2023, arXiv 2305.14314.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> model = inject(Linear.init(d_out=100, d_in=120, rng=rng), rank=8, alpha=16, rng=rng)
    >>> [(path, leaf.shape, type(leaf).__name__) for path, leaf in leaves(model)]
    [('base.W', (100, 120), 'ndarray'), ('A', (8, 120), 'Tensor'), ('B', (100, 8), 'Tensor')]

    In four bits, with the initial error relative to the original:

    >>> base = Linear(np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32))
    >>> for variant in ("lora", "loftq"):
    ...     start = inject(base, rank=8, quantise="nf4", variant=variant, rng=0)
    ...     lost = np.linalg.norm(merge(start).W - base.W) / np.linalg.norm(base.W)
    ...     print(start.base.W, lost.round(3))
    <nf4 matrix, 64 x 64, 4.5 bits per entry> 0.092
    <nf4 matrix, 64 x 64, 4.5 bits per entry> 0.062
    """
    rank = whole_number("rank", rank)
    choice("variant", variant, VARIANTS)
    if dropout and variant in ("hira", "lora-xs"):
        raise ValueError(f"dropout must be 0 for the variant {variant!r}, got {dropout}")
    choice("bias", bias, ("none", "lora_only", "all"))
    nodes = list(walk(model))
    if any(isinstance(node, ADAPTED) for _, node in nodes):
        raise ValueError(
            "this model has LoRA adapters already: merge it first, or start from the base model"
        )
    check_paths([path for path, _ in nodes], train)
    quantised = None if quantise is None else quantiser(quantise)
    settings = Settings(rank, alpha, dropout, generator(rng), quantised)
    adapted = selected(model, nodes, targets, train)
    biased = (
        adapted
        if bias == "lora_only"
        else {path for path, node in nodes if isinstance(node, Linear)}
    )
    trained = [*train, *(join(path, "b") for path in biased if bias != "none")]
    # Compare by identity: a tied weight has several paths, and naming any of them trains it.
    weights = [(path, node) for path, node in nodes if isinstance(node, (Tensor, np.ndarray))]
    thawed = {id(weight) for path, weight in weights if under(path, trained)}

    def rewrite(path: str, node: Tensor | Array) -> Tensor | Array:
        if isinstance(node, Tensor) is (id(node) in thawed):
            return node
        return value(node) if isinstance(node, Tensor) else Tensor(node)

    def adapt(path: str, layer: Linear | Embedding) -> Linear | Embedding | Adapted:
        if path not in adapted:
            return layer
        if isinstance(layer, Embedding) and not VARIANTS[variant].embeds:
            raise TypeError(
                f"{variant} is for Linear layers, got Embedding: remove it from targets"
            )
        if quantised and isinstance(layer.W, Quantised):
            raise ValueError(f"{path or 'the layer'} is already quantised: leave quantise= out")
        try:
            return VARIANTS[variant].adapt(
                layer, settings._replace(gradient=(gradients or {}).get(path))
            )
        except ValueError as error:
            raise ValueError(f"{path or 'the layer'}: {error}") from None

    result = replace(replace(model, (Tensor, np.ndarray), rewrite), (Linear, Embedding), adapt)
    full = min(min(layer.W.shape) for layer in adapted.values())
    if rank > full:
        why = f"rank {rank} is above min(d, k) = {full}: B A has more parameters than entries"
        warnings.warn(why, stacklevel=3)
    return result


def merge(model: T, *, quantise: str | Quantiser | None = None) -> T:
    """Merge the adapters of a model: each ``W0 + (alpha/r) B A`` becomes one plain array.

    Parameters
    ----------
    model : tree
        An adapted model; it is not changed.
    quantise : str or callable, optional
        Quantise each merged weight: "same" uses the kind of a quantised W0; otherwise one of
        `lora_np.quantise.KINDS`, or a function of a matrix. This loses part of the update, often
        most of it, because an update is small compared with a quantisation step.

    Returns
    -------
    tree
        The merged model, without any Tensor.

    Raises
    ------
    ValueError
        If a weight does not fit the kind, or no weight is quantised.

    Warns
    -----
    UserWarning
        If rounding changes some weights more than their update does; it names the first such
        layer and gives their number.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> merge(inject(Linear(np.eye(2)), rank=1, rng=rng)).W
    array([[1., 0.],
           [0., 1.]])
    >>> merge(inject(Linear(np.eye(64)), rank=1, quantise="nf4", rng=rng), quantise="same").W
    <nf4 matrix, 64 x 64, 4.5 bits per entry>
    """
    # Maps the path of each rounded layer to whether rounding changes it more than its update does.
    drowned: dict[str, bool] = {}

    def without(path: str, layer: Any) -> Any:
        merged = layer.merged()
        base = (layer.lora if isinstance(layer, DoRALinear) else layer).base
        W0 = base if isinstance(layer, LoRAExperts) else base.W
        kind = quantise
        if quantise == "same":
            kind = like(W0) if isinstance(W0, Quantised) else None
        if kind is None:
            return merged
        try:
            Q = quantiser(kind)(merged.W)
        except ValueError as error:
            raise ValueError(f"{path or 'the layer'}: {error}") from None
        drowned[path or "the layer"] = bool(
            Q.error(merged.W) > np.linalg.norm(merged.W - value(W0)) > 0
        )
        return changed(merged, W=Q)

    result = freeze(replace(model, ADAPTED, without))
    if quantise is not None and not drowned:
        raise ValueError(
            "the model has no adapter on a quantised layer; pass a kind to quantise other layers"
        )
    if worse := [path for path, drowns in drowned.items() if drowns]:
        where = f"{len(worse)} of {len(drowned)} layers, the first {worse[0]}"
        how = "merge in full precision, or keep the adapter"
        warnings.warn(f"rounding loses more than training added in {where}: {how}", stacklevel=2)
    return result


def like(Q: Quantised) -> Quantiser:
    """Return a function that quantises like Q: in its kind, block size and double quantisation."""
    from lora_np.quantise import BlockScales, FourBit, quantise

    if isinstance(Q, FourBit):
        return lambda W: quantise(
            W, Q.kind, block=Q.block, double=isinstance(Q.scales, BlockScales)
        )
    return lambda W: quantise(W, Q.kind)


def adapter_leaves(model: Any) -> list[tuple[str, Tensor | Array]]:
    """List the arrays of all adapters with their paths, such as A and B of each layer.

    Further arrays are the bias c of B, DoRA's m, LoRA-XS's R and the rows of trained tokens.

    Parameters
    ----------
    model : object
        A model with adapters.

    Returns
    -------
    list of (str, Tensor or ndarray)
        The path of each array, and the array.

    Examples
    --------
    >>> model = inject(Linear(np.eye(3)), rank=1, rng=np.random.default_rng(0))
    >>> [(path, a.shape) for path, a in adapter_leaves(model)]
    [('A', (1, 3)), ('B', (3, 1))]
    """
    nodes = [node for _, node in walk(model)]
    parts = (*"ABRcm", "rows")
    own = {
        id(getattr(node, part, None))
        for node in nodes
        if isinstance(node, ADAPTED)
        for part in parts
    }
    return [(path, a) for path, a in leaves(model) if id(a) in own and not isinstance(a, Quantised)]


def selected(
    model: object, nodes: Sequence[tuple[str, Any]], targets: Targets, train: Collection[str]
) -> dict[str, Any]:
    """Map paths to layers that match ``targets`` by any of their paths and are not in ``train``."""
    from lora_np.models import ModelSpec, select

    layers = {path: node for path, node in nodes if isinstance(node, (Linear, Embedding))}
    if not layers:
        raise ValueError("this model has no Linear and no Embedding layer to adapt")
    asked = (lambda path, _: targets(path, layers[path])) if callable(targets) else targets
    adapted = select(ModelSpec(type(model).__name__, tuple(layer_specs(model))), asked)
    chosen = {id(layers[one.module.name]) for one in adapted if not under(one.module.name, train)}
    if not chosen:
        raise ValueError(f"targets selects only layers that train={[*train]} trains in full")
    return {path: layer for path, layer in layers.items() if id(layer) in chosen}


def under(path: str, parts: Iterable[str]) -> bool:
    """Return whether ``path`` is one of ``parts`` or lies below one of them."""
    return any(path == part or path.startswith(f"{part}.") for part in parts)


def check_paths(known: Sequence[str], parts: Collection[str]) -> None:
    """Raise an error if a path in ``parts`` (the option ``train``) is not in the model."""
    if isinstance(parts, str):
        raise TypeError(
            f"train must be a collection of paths such as [{parts!r}], got the string {parts!r}"
        )
    for part in parts:
        if part not in known:
            raise ValueError(
                f"train names {part!r}, which is not in the model{close_names(part, known[1:])}"
            )
