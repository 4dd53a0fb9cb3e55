"""LoRA on weights in few bits: QLoRA, starts that repair the error of quantisation, and the way back."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from lora_np.autograd import Tensor, value
from lora_np.checks import Array, choice, matrix, whole_number
from lora_np.linalg import low_rank_factors
from lora_np.lora.injection import inject
from lora_np.lora.layers import LoRALinear
from lora_np.lora.variants import ADAPTED, Residual
from lora_np.models import Targets
from lora_np.nn import Linear, freeze, replace
from lora_np.quantise import BlockScales, FourBit, Quantised, quantise
from lora_np.table import Table

T = TypeVar("T")
Start = Literal["zero", "loftq", "pissa"]


@dataclass(frozen=True, eq=False)
class LoftQ:
    """``Q + B A``, close to W: what `loftq` gives.

    Attributes
    ----------
    Q : Quantised of shape (d, k)
        In few bits.
    B : ndarray of shape (d, r)
        What it is repaired with: left factor.
    A : ndarray of shape (r, k)
        Right factor.
    errors : tuple of float
        ``||W - Q - B A||_F / ||W||_F`` after each step; the first is that of quantisation alone.
    """

    Q: Quantised
    B: Array
    A: Array
    errors: tuple[float, ...]

    @property
    def error(self) -> float:
        """That of Q, B and A: the smallest."""
        return min(self.errors)

    @property
    def table(self) -> Table:
        """The errors, one row for each step."""
        rows = [(step, error) for step, error in enumerate(self.errors)]
        return Table(("step", "relative error"), rows, title=f"{self.Q.kind} and rank {len(self.A)}")


def loftq(
    W: npt.ArrayLike,
    *,
    rank: int,
    kind: str = "nf4",
    steps: int = 5,
    double: bool = False,
    start: Literal["loftq", "pissa"] = "loftq",
) -> LoftQ:
    """A quantised matrix and a low-rank one whose sum is close to W: quantise and cut an SVD, in turn.

    ``Q = quantised(W - B A)``, then ``B A`` = the best rank-r approximation of ``W - Q``, and again. The
    second half of a step is optimal (Eckart-Young); the first is rounding, which may do worse than before. So
    the best of the steps is kept.

    Parameters
    ----------
    W : array_like of shape (d, k)
        What is to be approximated.
    rank : int
        Of B A: ``1 <= rank <= min(d, k)``.
    kind : str
        One of `lora_np.quantise.KINDS`.
    steps : int
        At least 1.
    double : bool
        For nf4 and int4, quantise the scales too.
    start : {"loftq", "pissa"}
        Whether the first step quantises W (LoftQ), or what is left of W without its r largest singular values
        (PiSSA), which is smaller and easier to quantise.

    Returns
    -------
    LoftQ
        With ``Q``, ``B``, ``A``, the ``errors`` of the steps and a ``table``.

    Raises
    ------
    ValueError
        If W is not a finite matrix, an option is out of range, or the kind does not fit W.

    References
    ----------
    Y. Li et al., "LoftQ: LoRA-fine-tuning-aware quantization for large language models", 2023, arXiv
    2310.08659.
    F. Meng, Z. Wang, M. Zhang, "PiSSA", 2024, arXiv 2404.02948, section 4.

    Examples
    --------
    >>> W = np.random.default_rng(0).normal(size=(64, 64))
    >>> loftq(W, rank=16, steps=2).table
    nf4 and rank 16
    step  relative error
    ----  --------------
       0         0.09207
       1         0.05568
       2         0.05194
    """
    W = matrix("W", W)
    rank = whole_number("rank", rank, maximum=min(W.shape), top="min(d, k)")
    steps = whole_number("steps", steps)
    choice("start", start, ("loftq", "pissa"))
    size = float(np.linalg.norm(W)) or 1.0
    B, A = np.zeros((W.shape[0], rank), W.dtype), np.zeros((rank, W.shape[1]), W.dtype)
    Q = quantise(W, kind, double=double)
    best, errors = (Q, B, A), [float(np.linalg.norm(W - Q.dequantised())) / size]
    if start == "pissa":
        B, A = low_rank_factors(W, rank=rank)
    for step in range(steps):
        if step or start == "pissa":
            Q = quantise(W - B @ A, kind, double=double)
        left = W - Q.dequantised()
        if step or start == "loftq":
            B, A = low_rank_factors(left, rank=rank)
        errors.append(float(np.linalg.norm(left - B @ A)) / size)
        if errors[-1] == min(errors):
            best = (Q, B, A)
    return LoftQ(*best, tuple(errors))


@dataclass(frozen=True)
class QuantisedModule:
    """What became of one layer.

    Attributes
    ----------
    path : str
        In the model.
    kind : str
        Of the quantised weight.
    bits : float
        For each number, scales included.
    alone : float
        ``||W - Q||_F / ||W||_F``, the error of quantisation alone.
    start : float
        ``||W - Q - (alpha/r) B A||_F / ||W||_F``, where training starts.
    """

    path: str
    kind: str
    bits: float
    alone: float
    start: float


@dataclass(frozen=True, eq=False)
class QuantisedStart(Generic[T]):
    """A model that is ready for QLoRA: what `inject_quantised` gives.

    Attributes
    ----------
    model : tree
        The adapted model.
    modules : tuple of QuantisedModule
        What became of each layer.
    """

    model: T
    modules: tuple[QuantisedModule, ...] = field(repr=False)

    @property
    def table(self) -> Table:
        """One row for each layer."""
        rows = [(m.path, m.kind, m.bits, m.alone, m.start) for m in self.modules]
        return Table(("module", "kind", "bits", "error alone", "error at the start"), rows)


def inject_quantised(
    model: T,
    *,
    rank: int,
    rng: np.random.Generator | int,
    kind: str = "nf4",
    start: Start = "zero",
    alpha: float | None = None,
    dropout: float = 0.0,
    steps: int = 5,
    double: bool = False,
    targets: Targets = "all-linear",
) -> QuantisedStart[T]:
    """QLoRA: linear layers in few bits, frozen, and ``(alpha/r) B A`` next to each.

    Parameters
    ----------
    model : tree
        With weights in full precision; it is not changed.
    rank : int
        Of B A, at least 1.
    rng : Generator or int
        Randomness for A.
    kind : str
        One of `lora_np.quantise.KINDS`.
    start : {"zero", "loftq", "pissa"}
        What A and B are at first: B zero and A random, as in QLoRA, so that the model starts with the error
        of quantisation; or what repairs a part of it, as in `loftq`.
    alpha : float, optional
        The update is scaled by ``alpha / r``; by default alpha = r.
    dropout : float
        Rate of dropout before A, in training only.
    steps : int
        Of `loftq`; for "pissa", 1 leaves A and B at the largest singular values of W.
    double : bool
        For nf4 and int4, quantise the scales too.
    targets : str, iterable of str, or callable
        Which linear layers, as for `inject`.

    Returns
    -------
    QuantisedStart
        With ``model``, ``modules`` and ``table``.

    Raises
    ------
    ValueError
        If the layer does not exist or is quantised already, or an option is out of range.

    See Also
    --------
    merge_quantised : The way back.
    loftq : One matrix.

    Notes
    -----
    To train on a model whose weights are quantised already, `inject` is enough.

    References
    ----------
    T. Dettmers, A. Pagnoni, A. Holtzman, L. Zettlemoyer, "QLoRA", 2023, arXiv 2305.14314.

    Examples
    --------
    >>> base = Linear(np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32))
    >>> for start in ("zero", "loftq"):
    ...     print(round(inject_quantised(base, rank=8, rng=0, start=start).modules[0].start, 3))
    0.092
    0.062
    """
    choice("start", start, ("zero", "loftq", "pissa"))
    adapted = inject(model, rank=rank, rng=rng, alpha=alpha, dropout=dropout, targets=targets)
    modules: list[QuantisedModule] = []

    def few_bits(path: str, layer: LoRALinear) -> LoRALinear:
        if isinstance(layer.base.W, Quantised):
            raise ValueError(f"{path or 'the layer'} is already quantised: inject adapts it directly")
        W = value(layer.base.W)
        size = float(np.linalg.norm(W)) or 1.0
        try:
            if start == "zero":
                Q = quantise(W, kind, double=double)
                alone = Q.error(W) / size
                modules.append(QuantisedModule(path, kind, Q.bits, alone, alone))
                return LoRALinear(Linear(Q, layer.base.b), layer.A, layer.B, layer.alpha, layer.dropout)
            found = loftq(W, rank=layer.rank, kind=kind, steps=steps, double=double, start=start)
        except ValueError as error:
            raise ValueError(f"{path or 'the layer'}: {error}") from None
        modules.append(QuantisedModule(path, kind, found.Q.bits, found.errors[0], found.error))
        root = layer.scale**-0.5
        A, B = (Tensor((a * root).astype(layer.A.dtype)) for a in (found.A, found.B))
        return LoRALinear(Residual(found.Q, layer.base.b), A, B, layer.alpha, layer.dropout)

    return QuantisedStart(replace(adapted, LoRALinear, few_bits), tuple(modules))


@dataclass(frozen=True)
class RequantisedModule:
    """What merging cost one layer.

    Attributes
    ----------
    path : str
        In the model.
    kind : str
        Of the quantised weight.
    update : float
        ``||dW||_F``, the size of what the adapter adds.
    error : float
        ``||W + dW - Q||_F``, the size of what requantisation takes away again.
    """

    path: str
    kind: str
    update: float
    error: float

    @property
    def ratio(self) -> float:
        """The error over the update: from 1 on, rounding drowns what was learnt."""
        return self.error / self.update if self.update else float("inf") if self.error else 0.0


@dataclass(frozen=True, eq=False)
class QuantisedMerge(Generic[T]):
    """A merged model in few bits, and what that cost: what `merge_quantised` gives.

    Attributes
    ----------
    model : tree
        The merged model.
    modules : tuple of RequantisedModule
        What merging cost each layer.
    loss_before : float or None
        Of the adapted model, where a loss was given.
    loss_after : float or None
        Of the merged model.
    """

    model: T
    modules: tuple[RequantisedModule, ...] = field(repr=False)
    loss_before: float | None = None
    loss_after: float | None = None

    @property
    def table(self) -> Table:
        """One row for each layer; the shift in loss below."""
        rows = [(m.path, m.kind, m.update, m.error, m.ratio) for m in self.modules]
        notes = []
        if self.loss_after is not None:
            notes = [f"Loss {self.loss_before:.5g} with the adapter, {self.loss_after:.5g} merged."]
        return Table(("module", "kind", "update", "error", "error / update"), rows, notes=notes)


def merge_quantised(
    model: T, *, kind: str | None = None, loss: Callable[[T], Any] | None = None
) -> QuantisedMerge[T]:
    """The model without adapters, each merged weight in few bits again, and the error that this makes.

    `merge` gives the exact sums in full precision. Rounding them to few bits once more loses part of what was
    learnt: often most of it, because an update is small next to a step of the code.

    Parameters
    ----------
    model : tree
        With adapters on quantised (or other) linear layers; it is not changed.
    kind : str, optional
        One of `lora_np.quantise.KINDS`; by default, each weight's own kind, blocks and scales.
    loss : callable, optional
        ``loss(model)`` is compared before and after.

    Returns
    -------
    QuantisedMerge
        With ``model``, ``modules``, ``table`` and both losses.

    Raises
    ------
    ValueError
        If the model has no adapters, or a weight cannot be given that kind.

    See Also
    --------
    inject_quantised : The way there.

    Examples
    --------
    >>> start = inject_quantised(Linear(np.eye(64, dtype=np.float32)), rank=1, rng=0)
    >>> merge_quantised(start.model).modules[0].error
    0.0
    """
    modules: list[RequantisedModule] = []

    def few_bits(path: str, layer: Any) -> Any:
        merged = layer.merged()
        base = layer.lora.base if hasattr(layer, "lora") else layer.base
        if kind is None and not isinstance(base.W, Quantised):
            return merged
        try:
            Q = requantised(merged.W, base.W) if kind is None else quantise(merged.W, kind)
        except ValueError as error:
            raise ValueError(f"{path or 'the layer'}: {error}") from None
        update = float(np.linalg.norm(merged.W.astype(np.float64) - value(base.W)))
        modules.append(RequantisedModule(path, Q.kind, update, Q.error(merged.W)))
        return dataclasses.replace(merged, W=Q)

    result = freeze(replace(model, ADAPTED, few_bits))
    if not modules:
        raise ValueError("the model has no adapter on a quantised layer; give kind= to quantise others")
    losses = () if loss is None else (float(value(loss(each))) for each in (freeze(model), result))
    return QuantisedMerge(result, tuple(modules), *losses)


def requantised(W: Array, like: Quantised) -> Quantised:
    """W in the kind, blocks and scales of ``like``."""
    if isinstance(like, FourBit):
        return quantise(W, like.kind, block=like.block, double=isinstance(like.scales, BlockScales))
    return quantise(W, like.kind)
