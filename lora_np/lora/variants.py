"""Define the variants of LoRA, each by a small function and a row of `VARIANTS`.

A variant determines which layer replaces a layer (``adapt``), and may change its optimizer.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace as changed
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, get_args

import numpy as np
import numpy.typing as npt

from lora_np.autograd import Tensor, value
from lora_np.checks import Array, Rng, Seed, convert_arrays, generator, matrix, number, whole_number
from lora_np.lora.layers import LoRAEmbedding, LoRAExperts, LoRALinear, LowRank, TrainableTokens
from lora_np.nn import Embedding, Linear, freeze, outline, replace, walk
from lora_np.quantise import Quantised

if TYPE_CHECKING:
    from lora_np.nn import Groups, Optimizer

T = TypeVar("T")
Quantiser = Callable[[Array], Quantised]


def kaiming(rng: Seed, r: int, k: int) -> Array:
    """Draw A uniformly from ``[-1/sqrt(k), 1/sqrt(k)]``, the default of loralib and PEFT.

    This is Kaiming's initialisation at ``a = sqrt(5)``.

    Parameters
    ----------
    rng : Generator or int
        Randomness for A.
    r, k : int
        The shape of A.

    Returns
    -------
    ndarray of shape (r, k)
        The initial A.

    References
    ----------
    He et al., "Delving deep into rectifiers", arXiv 1502.01852.

    Examples
    --------
    >>> A = kaiming(np.random.default_rng(0), 8, 100)
    >>> A.shape, bool(np.abs(A).max() <= 0.1)
    ((8, 100), True)
    """
    return generator(rng).uniform(-(k**-0.5), k**-0.5, (r, k))


class Settings(NamedTuple):
    """The options of `inject` for one layer."""

    rank: int
    alpha: float
    dropout: float
    rng: np.random.Generator
    quantise: Quantiser | None = None  # quantises the frozen weight; None leaves it unchanged
    gradient: Array | None = None  # gradient of the loss with respect to this layer's W


class Variant(NamedTuple):
    """A row of `VARIANTS`: how a layer is adapted, and how the optimizer changes."""

    adapt: Callable[..., Adapted]
    embeds: bool = False  # whether the variant supports embeddings
    ratio: float = 1.0  # the learning rate of B divided by the learning rate of A

    def optimizer(self, optimizer: Optimizer) -> Optimizer:
        return optimizer if self.ratio == 1 else lora_plus(optimizer, ratio=self.ratio)


def lora(layer: Linear | Embedding, s: Settings) -> LoRALinear | LoRAEmbedding:
    """Add ``(alpha/r) B A`` to W0 (Hu et al., arXiv 2106.09685)."""
    if isinstance(layer, Linear):
        return lora_linear(layer, s)
    vocab, d = layer.W.shape
    B = Tensor(s.rng.normal(size=(d, s.rank)).astype(dtype_of(layer)))
    return LoRAEmbedding(layer, Tensor(np.zeros((s.rank, vocab), B.dtype)), B, s.alpha)


def lora_linear(layer: Linear, s: Settings) -> LoRALinear:
    A = kaiming(s.rng, s.rank, layer.d_in).astype(dtype_of(layer))
    return beside(quantised_base(layer, s), np.zeros((layer.d_out, s.rank), A.dtype), A, s)


def beside(base: Linear, B: Array, A: Array, s: Settings) -> LoRALinear:
    return LoRALinear(base, Tensor(A), Tensor(B), s.alpha, s.dropout)


def dtype_of(layer: Linear | Embedding) -> np.dtype[np.floating]:
    """Return the dtype of A and B, which is the dtype of the weight but at least float32."""
    kind = layer.W.dtype
    return np.result_type(kind, np.float32) if kind.kind == "f" else np.dtype(np.float64)


def rslora(layer: Linear | Embedding, s: Settings) -> LoRALinear | LoRAEmbedding:
    """Add ``(alpha/sqrt r) B A`` to W0, so that steps do not shrink at high ranks (rsLoRA).

    Because ``alpha / sqrt(r) = alpha sqrt(r) / r``, it is plain LoRA with another alpha (arXiv
    2312.03732).
    """
    return lora(layer, s._replace(alpha=s.alpha * math.sqrt(s.rank)))


def lora_fa(layer: Linear, s: Settings) -> LoRALinear:
    """Train only B, with A frozen (LoRA-FA; Zhang et al., arXiv 2308.03303).

    A square layer has half as many trainable parameters as with LoRA. The backward pass needs
    ``x A^T`` but not x.
    """
    adapted = lora_linear(layer, s)
    return changed(adapted, A=value(adapted.A))


def dora(layer: Linear, s: Settings) -> DoRALinear:
    """Train the magnitude and the direction of each row separately; see `DoRALinear`."""
    adapted = lora_linear(Linear(layer.W), s)
    m = row_norms(value(adapted.base.W).astype(adapted.A.dtype, copy=False))
    return DoRALinear(adapted, Tensor(m), layer.b)


def pissa_start(W: Array, rank: int, scale: float) -> tuple[Array, Array]:
    """Initialise B and A with W0's top r singular triplets (PiSSA; Meng et al., arXiv 2404.02948).

    The initial update is ``(alpha/r) B A = U_r S_r V_r^T``, with the root of the singular values in
    each factor. The rest of W0 is frozen.
    """
    from lora_np.linalg import truncated_svd

    U, S, Vh = truncated_svd(W, rank=rank)
    root = np.sqrt(S / scale)
    return U * root, root[:, None] * Vh


def olora_start(W: Array, rank: int, scale: float) -> tuple[Array, Array]:
    """Initialise B and A with columns of Q and rows of R in W0 = Q R (OLoRA; arXiv 2406.01775).

    The residual ``W0 - (alpha/r) B A`` is frozen.
    """
    rank = whole_number("rank", rank, maximum=min(W.shape), top="min(d, k)")
    Q, R = np.linalg.qr(matrix("W", W))
    return Q[:, :rank], R[:rank]


Start = Callable[[Array, int, float], tuple[Array, Array]]
# Maps the variants whose initial B A is a part of W0 to functions that compute B and A.
STARTS: dict[str, Start] = {"pissa": pissa_start, "olora": olora_start}


def with_part(start: Start, layer: Linear, s: Settings) -> LoRALinear:
    """Initialise B and A with the part of W0 that ``start`` selects, and freeze the remainder."""
    return around_residual(layer, *start(value(layer.W), s.rank, s.alpha / s.rank), s)


def loftq_start(layer: Linear, s: Settings) -> LoRALinear:
    """Initialise A and B to reduce the quantisation error; see `loftq`."""
    if s.quantise is None:
        raise ValueError("loftq reduces a quantisation error: pass quantise=, such as 'nf4'")
    repaired = loftq(value(layer.W), rank=s.rank, kind=s.quantise)
    root = math.sqrt(s.rank / s.alpha)
    return beside(Residual(repaired.Q, layer.b), root * repaired.B, root * repaired.A, s)


def lora_ga(layer: Linear, s: Settings) -> LoRALinear:
    """Initialise A and B with singular vectors of the first gradient G (LoRA-GA; arXiv 2407.05000).

    The factors are ``A = c V_1..r^T`` and ``B = c U_r+1..2r`` for ``G = U S V^T``, with
    ``c = d^(1/4) / 4``. The initial ``(alpha/r) B A`` is subtracted from W0.
    """
    U, _, Vh = np.linalg.svd(first_gradient(layer, s), full_matrices=False)
    r = whole_number("rank", s.rank, maximum=len(Vh) // 2, top="min(d, k) / 2")
    c = layer.d_out**0.25 / 4
    return around_residual(layer, c * U[:, r : 2 * r], c * Vh[:r], s)


def lora_one(layer: Linear, s: Settings) -> LoRALinear:
    """Initialise B A with the best rank-r approximation of a gradient step (arXiv 2502.01235).

    For ``G = U S V^T``, the initial product is ``B A = -U_r S_r V_r^T / (128 s_1)``, with the root
    of the singular values in each factor. W0 does not change, so training starts one step away from
    the base.
    """
    from lora_np.linalg import truncated_svd

    U, S, Vh = truncated_svd(first_gradient(layer, s), rank=s.rank)
    root = np.sqrt(S / (128 * (S[0] or 1.0)))
    return beside(quantised_base(layer, s), -U * root, root[:, None] * Vh, s)


def lora_xs(layer: Linear, s: Settings) -> XSLinear:
    """Train an (r, r) matrix between W0's top r singular vectors; see `XSLinear`."""
    from lora_np.linalg import truncated_svd

    U, S, Vh = truncated_svd(value(layer.W), rank=s.rank)
    R = np.zeros((s.rank, s.rank), Vh.dtype)
    return XSLinear(quantised_base(layer, s), Vh, Tensor(R), U * S * (s.alpha / s.rank))


def hira(layer: Linear, s: Settings) -> HiRALinear:
    """Train a high-rank update made of two thin factors; see `HiRALinear`."""
    adapted = lora_linear(layer, s)
    return HiRALinear(adapted.base, adapted.A, adapted.B, s.alpha)


VARIANTS: dict[str, Variant] = {
    "lora": Variant(lora, embeds=True),
    "rslora": Variant(rslora, embeds=True),
    "lora+": Variant(lora, embeds=True, ratio=16.0),
    "lora-fa": Variant(lora_fa),
    "dora": Variant(dora),
    **{name: Variant(partial(with_part, start)) for name, start in STARTS.items()},
    "loftq": Variant(loftq_start),
    "lora-ga": Variant(lora_ga),
    "lora-one": Variant(lora_one),
    "lora-xs": Variant(lora_xs),
    "hira": Variant(hira),
}


class LoftQ(NamedTuple):
    """The result of `loftq`, a sum ``Q + B A`` that is close to W.

    Attributes
    ----------
    Q : Quantised of shape (d, k)
        The quantised matrix.
    B : ndarray of shape (d, r)
        The left factor of the low-rank matrix.
    A : ndarray of shape (r, k)
        The right factor of the low-rank matrix.
    errors : tuple of float
        ``||W - Q - B A||_F / ||W||_F`` after each step. The first is the error of quantisation
        alone, the smallest the error of the returned Q, B and A.

    Examples
    --------
    >>> from lora_np.lora import loftq
    >>> repaired = loftq(np.random.default_rng(0).normal(size=(8, 8)), rank=2)
    >>> repaired.B.shape, repaired.A.shape, min(repaired.errors) < repaired.errors[0]
    ((8, 2), (2, 8), True)
    """

    Q: Quantised
    B: Array
    A: Array
    errors: tuple[float, ...]


def loftq(W: npt.ArrayLike, *, rank: int, kind: str | Quantiser = "nf4", steps: int = 5) -> LoftQ:
    """Approximate W by the sum of a quantised and a low-rank matrix, computed alternately.

    Each step computes ``Q = quantised(W - B A)``, then ``B A`` as the best rank-r approximation of
    ``W - Q``. The second half of a step is optimal (Eckart-Young), but the first is rounding, which
    may increase the error. So the result of the best step is returned.

    Parameters
    ----------
    W : array_like of shape (d, k)
        The matrix to approximate.
    rank : int
        The rank of B A, ``1 <= rank <= min(d, k)``.
    kind : str or callable
        One of `lora_np.quantise.KINDS`, or a function that quantises a matrix.
    steps : int
        The number of steps, at least 1.

    Returns
    -------
    LoftQ
        The matrices ``Q``, ``B``, ``A`` and the ``errors`` of the steps.

    Raises
    ------
    ValueError
        If W is not a finite matrix, an option is out of range, or the kind does not fit W.

    References
    ----------
    Y. Li et al., "LoftQ: LoRA-fine-tuning-aware quantization for large language models", 2023,
    arXiv 2310.08659.

    Examples
    --------
    >>> W = np.random.default_rng(0).normal(size=(64, 64))
    >>> [round(error, 5) for error in loftq(W, rank=16, steps=2).errors]
    [0.09207, 0.05568, 0.05194]
    """
    from lora_np.linalg import low_rank_factors

    W = matrix("W", W)
    rank = whole_number("rank", rank, maximum=min(W.shape), top="min(d, k)")
    quantised = quantiser(kind)
    size = float(np.linalg.norm(W)) or 1.0
    B, A = np.zeros((W.shape[0], rank), W.dtype), np.zeros((rank, W.shape[1]), W.dtype)
    Q = quantised(W)
    best, errors = (Q, B, A), [float(np.linalg.norm(W - Q.dequantised())) / size]
    for step in range(whole_number("steps", steps)):
        if step:
            Q = quantised(W - B @ A)
        left = W - Q.dequantised()
        B, A = low_rank_factors(left, rank=rank)
        errors.append(float(np.linalg.norm(left - B @ A)) / size)
        if errors[-1] == min(errors):
            best = (Q, B, A)
    return LoftQ(*best, tuple(errors))


def quantiser(kind: str | Quantiser) -> Quantiser:
    """Return a function that quantises to ``kind``, or ``kind`` itself if it is a function."""
    from lora_np.quantise import quantise

    return kind if callable(kind) else partial(quantise, kind=kind)


@dataclass(frozen=True, eq=False)
class DoRALinear:
    """A linear layer with DoRA, ``h = m V x / ||V|| + b`` with ``V = W0 + (alpha/r) B A``.

    The norm is taken of each row. It is treated as a constant in the backward pass (section 4.3 of
    the paper), which costs little accuracy and saves the memory of its graph.

    Parameters
    ----------
    lora : LoRALinear
        The direction; its base has no b.
    m : Tensor or ndarray of shape (d,)
        The magnitude of each row.
    b : Tensor or ndarray of shape (d,), optional
        The bias of the layer.

    Raises
    ------
    ValueError
        If the shapes do not fit, or the base of ``lora`` has a b.

    References
    ----------
    Liu et al., "DoRA: weight-decomposed low-rank adaptation", arXiv 2402.09353.

    Examples
    --------
    >>> base = Linear(np.array([[3.0, 4.0]]))
    >>> direction = LoRALinear(base, A=np.ones((1, 2)), B=np.zeros((1, 1)), alpha=1.0)
    >>> DoRALinear(direction, m=np.array([10.0]))(np.array([[1.0, 0.0]]))
    array([[6.]])
    """

    lora: LoRALinear
    m: Tensor | Array  # (d,)
    b: Tensor | Array | None = None  # (d,)

    __repr__ = outline

    def __post_init__(self) -> None:
        if self.lora.base.b is not None:
            raise ValueError(
                "lora's base must not have a b, which would be scaled: give it to DoRALinear"
            )
        convert_arrays(self)
        for name, vector in (("m", self.m), ("b", self.b)):
            if vector is not None and vector.shape != (self.lora.base.d_out,):
                raise ValueError(
                    f"{name} must have shape ({self.lora.base.d_out},), got {vector.shape}"
                )

    def __call__(self, x: Any, *, rng: Rng = None) -> Any:
        h = self.lora(x, rng=rng) * (
            self.m / row_norms(value(self.lora.base.W) + self.lora.delta())
        )
        return h if self.b is None else h + self.b

    def merged(self) -> Linear:
        """Build one frozen `Linear` with the same outputs."""
        layer = self.lora.merged()
        gain, b = value(self.m) / row_norms(layer.W), self.b
        if layer.b is not None:
            b = gain * layer.b + (0 if b is None else value(b))
        return freeze(Linear(gain[:, None] * layer.W, b))


@dataclass(frozen=True, eq=False)
class XSLinear:
    """A linear layer with LoRA-XS, ``h = W0 x + B R A x``, where only R is trained.

    Parameters
    ----------
    base : Linear
        The layer that is adapted.
    A : ndarray of shape (r, k)
        The top right singular vectors of W0; frozen.
    R : Tensor or ndarray of shape (r, r)
        The trained matrix, which is zero at the start.
    B : ndarray of shape (d, r)
        The top left singular vectors of W0 times its singular values and ``alpha / r``; frozen.

    References
    ----------
    Balazy et al., "LoRA-XS: low-rank adaptation with extremely small number of parameters", arXiv
    2405.17604.

    Examples
    --------
    >>> XSLinear(Linear(np.eye(2)), np.eye(1, 2), np.ones((1, 1)), np.ones((2, 1)))(np.array([2.0,
    ...     3.0]))
    array([4., 5.])
    """

    base: Linear
    A: Array  # (r, k)
    R: Tensor | Array  # (r, r)
    B: Array  # (d, r)

    __repr__ = outline

    def __post_init__(self) -> None:
        convert_arrays(self)

    def __call__(self, x: Any, *, rng: Rng = None) -> Any:
        return self.base(x) + x @ self.A.T @ self.R.T @ self.B.T

    def merged(self) -> Linear:
        """Build one frozen `Linear` with the same outputs."""
        return freeze(Linear(value(self.base.W) + self.B @ value(self.R) @ self.A, self.base.b))


@dataclass(frozen=True, eq=False, repr=False)
class HiRALinear(LowRank):
    """A linear layer with HiRA, ``h = (W0 * (1 + (alpha/r) B A)) x + b``.

    The product ``*`` is entry by entry. The rank of the update is up to r times the rank of W0.

    Parameters
    ----------
    base : Linear
        The layer that is adapted.
    A : Tensor or ndarray of shape (r, k)
        The input factor, which is random at the start.
    B : Tensor or ndarray of shape (d, r)
        The output factor, which is zero at the start.
    alpha : float
        The product is scaled by ``alpha / r``.

    References
    ----------
    Huang et al., "HiRA: parameter-efficient Hadamard high-rank adaptation for large language
    models", ICLR 2025.

    Examples
    --------
    >>> layer = HiRALinear(Linear(np.eye(2)), A=np.ones((1, 2)), B=np.ones((2, 1)), alpha=3.0)
    >>> layer(np.array([1.0, 2.0]))
    array([4., 8.])
    """

    base: Linear
    A: Tensor | Array  # (r, k)
    B: Tensor | Array  # (d, r)
    alpha: float

    def __call__(self, x: Any, *, rng: Rng = None) -> Any:
        W = value(self.base.W) * (1 + self.scale * (self.B @ self.A))
        return Linear(W, self.base.b)(x)

    def merged(self) -> Linear:
        """Build one frozen `Linear` with the same outputs."""
        return freeze(Linear(value(self.base.W) * (1 + self.delta()), self.base.b))


Adapted = LoRALinear | LoRAEmbedding | DoRALinear | XSLinear | HiRALinear
# All classes that replace a layer or its weights.
ADAPTED = (*get_args(Adapted), LoRAExperts, TrainableTokens)


def lora_plus(optimizer: Optimizer, *, ratio: float = 16.0) -> Groups:
    """Return an optimizer with ``lr_B = ratio lr_A`` (LoRA+; Hayou et al., arXiv 2402.12354).

    B is zero and A random at the start, so with equal steps they change at unequal speeds; in wide
    layers, B is much too slow.

    Parameters
    ----------
    optimizer : Optimizer
        The optimizer of all parameters other than the adapters' B.
    ratio : float
        The ratio of the learning rates, above 0; the paper recommends 16, but the best value
        depends on the task.

    Returns
    -------
    Groups
        An optimizer with one rule for B, and one for all other parameters.

    Examples
    --------
    >>> from lora_np.nn import Adam
    >>> lora_plus(Adam(lr=1e-3)).of("layers.0.B").lr
    0.016
    """
    from lora_np.nn import Groups

    ratio = number("ratio", ratio, open_minimum=True)
    return Groups({"B": optimizer.times(ratio), ".*": optimizer})


def rebase(tuned: T, original: T) -> T:
    """Rewrite adapters whose variant changed W0 (PiSSA, OLoRA) as adapters of the original W0.

    The outputs of the model stay the same: ``W_res + s B A = W0 + s B A - (W0 - W_res)``, where the
    last term is the initial ``s B A`` and has rank r. So the update of W0 has rank 2r:
    ``[B, -B_start] [A; A_start]``.

    Parameters
    ----------
    tuned : tree
        A model with `LoRALinear` layers whose bases differ from the original by rank r or less.
    original : tree
        The model as it was before `inject`.

    Returns
    -------
    tree
        The model ``tuned``, frozen, with the original weights as bases, so that it can be saved as
        an adapter for them.

    Raises
    ------
    ValueError
        If the models do not fit each other, or a base differs by more than rank r.

    Examples
    --------
    >>> from lora_np.lora import inject, merge
    >>> original = Linear(np.diag([3.0, 2.0, 1.0]))
    >>> tuned = inject(original, rank=1, variant="pissa", rng=np.random.default_rng(0))
    >>> adapter = rebase(tuned, original)
    >>> adapter.rank, adapter.base.W is original.W, bool(np.allclose(merge(adapter).W,
    ...     merge(tuned).W))
    (2, True, True)
    """
    from lora_np.linalg import low_rank_factors

    bases = {path: node for path, node in walk(original) if isinstance(node, Linear)}

    def on_original(path: str, layer: LoRALinear) -> LoRALinear:
        base = bases.get(path)
        if base is None or base.W.shape != layer.base.W.shape:
            raise ValueError(
                f"the original model has no Linear layer like {path or 'the adapted one'!r}"
            )
        W0 = value(base.W)
        moved = W0.astype(np.float64) - value(layer.base.W)
        B, A = low_rank_factors(moved, rank=min(layer.rank, *W0.shape))
        rounding = 100 * np.finfo(W0.dtype).eps * float(np.linalg.norm(W0))
        if np.linalg.norm(moved - B @ A) > rounding:
            far = f"differs from the original by more than rank {layer.rank}: is it another model?"
            raise ValueError(f"the base of {path or 'the adapted layer'!r} {far}")
        A = np.concatenate([value(layer.A), A / layer.scale]).astype(W0.dtype)
        B = np.concatenate([value(layer.B), -B], axis=1).astype(W0.dtype)
        return LoRALinear(
            freeze(Linear(W0, layer.base.b)), A, B, layer.scale * len(A), layer.dropout, layer.c
        )

    return replace(tuned, LoRALinear, on_original)


def around_residual(layer: Linear, B: Array, A: Array, s: Settings) -> LoRALinear:
    """Adapt a layer with B A, and subtract ``(alpha/r) B A`` from W0 to keep the outputs."""
    W = value(layer.W) - (s.alpha / s.rank) * (B @ A)
    return beside(Residual(W if s.quantise is None else s.quantise(W), layer.b), B, A, s)


class Residual(Linear):
    """A linear layer whose weight is W0 minus the initial ``(alpha/r) B A``; see `rebase`.

    Parameters
    ----------
    W : ndarray or Quantised of shape (d, k)
        ``W0 - (alpha/r) B A`` for the initial B and A, perhaps quantised.
    b : ndarray of shape (d,), optional
        The bias.

    Examples
    --------
    >>> from lora_np.lora import inject
    >>> layer = inject(Linear(np.diag([3.0, 2.0])), rank=1, variant="pissa", rng=0)
    >>> layer.base.W.round(6)  # the strongest direction has moved into B A
    array([[0., 0.],
           [0., 2.]])
    """


def quantised_base(layer: Linear, s: Settings) -> Linear:
    return layer if s.quantise is None else Linear(s.quantise(value(layer.W)), layer.b)


def first_gradient(layer: Linear, s: Settings) -> Array:
    shape = layer.W.shape
    G = None if s.gradient is None else matrix("gradients", s.gradient)
    if G is None or G.shape != shape:
        got = None if G is None else G.shape
        raise ValueError(f"needs the first gradient, of shape {shape}, got {got}: pass gradients=")
    return G.astype(dtype_of(layer), copy=False)


def row_norms(W: Tensor | Array | Quantised) -> Array:
    return np.asarray(np.linalg.norm(value(W), axis=1))
