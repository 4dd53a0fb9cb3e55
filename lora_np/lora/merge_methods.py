"""Merge several LoRAs of one module by one of the methods in `MERGE_METHODS`.

PEFT's rules act on entries: they drop some (``_largest``, ``_dropped``) and add up the others,
perhaps only the entries that agree in sign. A rule can act on the As and the Bs, on the updates
``scale B A``, or on the updates in a shared basis (KnOTS, Core Space). Where possible, methods
compute with the factors and form no (d, k) matrix.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import copysign

import numpy as np

from lora_np.checks import Array, Rng, generator, matrix, number, real, refuse, whole_number
from lora_np.linalg import SVD, svd_of_product, truncated_svd

Pair = tuple[Array, Array]
Tensors = Sequence[Array]
Weights = Sequence[float]
Rule = Callable[[Tensors, Weights], Array]

# RegMean multiplies the off-diagonal entries of Gram matrices by this factor.
_SHRUNK = 0.9
# RegMean adds this share of a Gram matrix's largest entry to its diagonal, so that the matrix is
# invertible even if some directions have no inputs.
_RIDGE = 1e-6


@dataclass(frozen=True, eq=False)
class WeightedUpdate:
    """The weighted update of one LoRA of a module, ``weight * scale * B @ A``.

    Parameters
    ----------
    B : ndarray of shape (d, r)
        The output factor.
    A : ndarray of shape (r, k)
        The input factor.
    weight : float
        The weight of the update in the sum.
    scale : float
        ``alpha / r``, or ``alpha / sqrt(r)`` with rsLoRA.
    gram : ndarray of shape (k, k), optional
        For "regmean", ``X.T @ X`` of the module's inputs X on the adapter's own data.

    Examples
    --------
    >>> WeightedUpdate(np.array([[1.0], [2.0]]), np.array([[3.0, 0.0]]), scale=2.0).delta
    array([[ 6.,  0.],
           [12.,  0.]])
    """

    B: Array
    A: Array
    weight: float = 1.0
    scale: float = 1.0
    gram: Array | None = None

    def __post_init__(self) -> None:
        for name, given in [*vars(self).items()]:
            if name in ("B", "A", "gram") and given is not None:
                object.__setattr__(self, name, real(name, given))

    @property
    def weighted(self) -> Array:
        """The factor A (r, k), multiplied by the weight and the scale."""
        return np.asarray(self.A * self.A.dtype.type(self.weight * self.scale))

    @property
    def delta(self) -> Array:
        """The update ``scale * B @ A`` (d, k), without the weight."""
        update = self.B @ self.A
        update *= update.dtype.type(self.scale)
        return update


Updates = Sequence[WeightedUpdate]


@dataclass(frozen=True)
class MergeMethod:
    """A row of `MERGE_METHODS`: a function of updates that returns the factors of their merge.

    Parameters
    ----------
    formula : callable
        A function of the updates, and of a rule for entries if there is a ``mix``, that returns
        (B, A) or a (d, k) array.
    mix : callable, optional
        A function of tensors and their weights that returns one tensor.
    prune : callable, optional
        A function of a tensor and the share of entries to keep that sets the others to zero.
    density : float, optional
        The default share of entries to keep.
    chance : bool
        Whether ``prune`` is random, and takes a Generator.
    cut : bool
        Whether to truncate to the largest rank of the updates by default.
    exact : bool
        Whether the result, before truncation, is exactly the weighted sum of the updates.
    warning : str
        A warning about the method, which follows its name in messages.

    Examples
    --------
    >>> updates = [
    ...     WeightedUpdate(np.eye(2)[:, [i]], np.eye(2)[[i]], weight)
    ...     for i, weight in [(0, 1.0), (1, 2.0)]
    ... ]
    >>> for name in ("sum", "linear", "iso"):
    ...     B, A = MERGE_METHODS[name](updates)
    ...     print(name, np.round(B @ A, 3).tolist())
    sum [[1.0, 0.0], [0.0, 2.0]]
    linear [[1.0, 1.414], [1.414, 2.0]]
    iso [[1.5, 0.0], [0.0, 1.5]]
    """

    formula: Callable[..., Pair | Array]
    mix: Rule | None = None
    prune: Callable[..., Array] | None = None
    density: float | None = None
    chance: bool = False
    cut: bool = False
    exact: bool = False
    warning: str = ""

    def __call__(
        self,
        updates: Updates,
        *,
        density: float | None = None,
        rank: int | None = None,
        rng: Rng | int = None,
    ) -> Pair:
        """Compute the factors of the merged update: B (d, m) and A (m, k).

        Parameters
        ----------
        updates : sequence of WeightedUpdate
            One or more updates with the same d and k.
        density : float, optional
            The share of entries to keep, for methods that drop some.
        rank : int, optional
            Truncate the result to this rank by an SVD.
        rng : Generator or int
            Randomness, for methods that drop entries at random.

        Raises
        ------
        TypeError
            If ``rng`` is missing or has the wrong type.
        ValueError
            If an option is out of range or does not apply to this method, ranks differ where
            factors are added, or a Gram matrix is missing or has another shape.
        """
        density, rank, rng = self.valid_options(density=density, rank=rank, rng=rng)

        def rule(tensors: Tensors, weights: Weights) -> Array:
            if self.prune is not None and density < 1:
                drawn = (rng,) if self.chance else ()
                tensors = [self.prune(tensor, density, *drawn) for tensor in tensors]
            return self.mix(tensors, weights)  # type: ignore[misc]

        merged = self.formula(updates, rule) if self.mix else self.formula(updates)
        if rank is None and self.cut:
            rank = max(update.A.shape[0] for update in updates)
        if not isinstance(merged, tuple):
            U, s, Vh = truncated_svd(merged, rank=min(rank, *merged.shape))
        elif rank is not None and rank < len(merged[1]):
            U, s, Vh = svd_of_product(*merged)
        else:
            return merged
        return U[:, :rank] * s[:rank], Vh[:rank]

    def valid_options(
        self, *, density: float | None, rank: int | None, rng: Rng | int
    ) -> tuple[float, int | None, Rng]:
        """Validate the options; return density or its default, rank, and a Generator if needed."""
        if density is not None and self.density is None:
            refuse(f"density is for methods that drop entries, such as 'ties', got {density!r}")
        share = (self.density or 1.0) if density is None else density
        share = number("density", share, maximum=1, open_minimum=True)
        rank = None if rank is None else whole_number("rank", rank)
        return share, rank, generator(rng) if self.chance else None


# Rules that drop entries


def _largest(T: Array, density: float) -> Array:
    """Keep the ``int(density * n)`` entries that are largest in absolute value."""
    dropped = T.size - int(density * T.size)
    order = np.argpartition(np.abs(T), min(dropped, T.size - 1), axis=None)
    kept = T.ravel().copy()
    kept[order[:dropped]] = 0
    return kept.reshape(T.shape)


def _dropped(T: Array, density: float, rng: np.random.Generator) -> Array:
    """Keep each entry with probability ``density`` and divide it by ``density`` (DARE)."""
    return np.asarray(np.where(rng.random(T.shape) < density, T, 0) / T.dtype.type(density))


def _dropped_to_norm(T: Array, density: float, rng: np.random.Generator) -> Array:
    """Drop entries like DARE, then restore the sum of absolute values, as in mergekit."""
    kept = np.where(rng.random(T.shape) < density, T, 0)
    before, after = np.abs(T).sum(), np.abs(kept).sum()
    if min(before, after) >= 1e-7:
        kept *= before / after
    return kept


# Rules that add up the remaining entries


def _weighted(tensors: Tensors, weights: Weights) -> list[Array]:
    return [T * T.dtype.type(w) for T, w in zip(tensors, weights, strict=True)]


def _added(tensors: Tensors, weights: Weights) -> Array:
    """Compute ``sum_i w_i T_i``."""
    return sum(_weighted(tensors, weights))  # type: ignore[return-value]


def _of_agreeing(
    tensors: Tensors, weights: Weights, *, weigh_votes: bool, divisor: Callable[[Weights], Array]
) -> Array:
    """Sum entries that have the majority's sign; divide by a function of their weights (TIES)."""
    votes = _weighted(tensors, weights) if weigh_votes else tensors
    agreeing = np.sign(votes) == np.where(np.sum(votes, axis=0) >= 0, 1, -1)
    total = _added([*(tensors * agreeing)], weights)
    share = np.tensordot(divisor(weights), agreeing, axes=1)
    total /= np.where(share == 0, 1, share)
    return total


# PEFT divides the sum by the number of entries that agree, and mergekit by the sum of their
# weights. For DARE, mergekit does not divide.
_peft_ties = partial(_of_agreeing, weigh_votes=False, divisor=np.ones_like)
_mergekit_ties = partial(_of_agreeing, weigh_votes=True, divisor=np.asarray)
_mergekit_dare_ties = partial(_of_agreeing, weigh_votes=True, divisor=np.zeros_like)


# Functions that choose the tensors on which a rule acts


def _on_factors(updates: Updates, rule: Rule) -> Pair:
    """Apply the rule to all A and to all B, weighted by the root of ``|weight * scale|``.

    If ``weight * scale`` is negative, A gets the sign.
    """
    ranks = sorted({update.A.shape[0] for update in updates})
    if len(ranks) > 1:
        raise ValueError(
            f"ranks are {ranks}; adding factors needs equal ones, unlike 'sum' or methods in '_svd'"
        )
    scales = [update.weight * update.scale for update in updates]
    roots = [abs(scale) ** 0.5 for scale in scales]
    A = rule([update.A for update in updates], [*map(copysign, roots, scales)])
    return rule([update.B for update in updates], roots), A


def _on_updates(updates: Updates, rule: Rule) -> Array:
    """Apply the rule to the updates as full (d, k) matrices."""
    return rule([update.delta for update in updates], _weights(updates))


def _weights(updates: Updates) -> Weights:
    return [update.weight for update in updates]


def _shared(updates: Updates) -> tuple[Array, Array, list[Array]]:
    """Return orthonormal bases U of all B and V^T of all A, and each ``U^T dW_i V``."""
    U = _svd(_wide(updates)).U
    Vh = _svd(np.vstack([update.A for update in updates])).Vh
    return U, Vh, [replace(update, B=U.T @ update.B, A=update.A @ Vh.T).delta for update in updates]


def _core(updates: Updates, rule: Rule) -> Pair:
    """Apply the rule to the updates in their shared basis, without forming any dW."""
    U, Vh, inner = _shared(updates)
    return U, rule(inner, _weights(updates)) @ Vh


def _knots(updates: Updates, rule: Rule) -> Pair:
    """Apply the rule to ``S V_i`` in ``[dW_1 .. dW_n] = U S [V_1 .. V_n]``, forming no dW."""
    U, Vh, inner = _shared(updates)
    F = _svd(np.hstack(inner))
    parts = [part @ Vh for part in np.split(F.s[:, None] * F.Vh, len(updates), axis=1)]
    return U @ F.U, rule(parts, _weights(updates))


# Methods with their own formulas


def _sum(updates: Updates) -> Pair:
    """Concatenate the factors: ``[B_1 .. B_n]`` times the stacked ``w_i s_i A_i`` is the sum."""
    return _wide(updates), np.vstack([update.weighted for update in updates])


def _wide(updates: Updates) -> Array:
    return np.hstack([update.B for update in updates])


def _iso(updates: Updates) -> Pair:
    """Set the nonzero singular values of the sum to their mean."""
    U, s, Vh = svd_of_product(*_sum(updates)).significant()
    return U * s.mean(), Vh


def _tsv(updates: Updates) -> Pair:
    """Sum truncated SVDs, with their singular vectors orthonormalised across all updates."""
    most = max(1, min(len(updates[0].B), updates[0].A.shape[1]) // len(updates))
    svds = [svd_of_product(update.B, update.weighted).significant() for update in updates]
    B = _orthonormal(np.hstack([svd.U[:, :most] for svd in svds]))
    A = _orthonormal(np.vstack([svd.Vh[:most] for svd in svds]))
    return B * np.concatenate([svd.s[:most] for svd in svds]), A


def _orthonormal(M: Array) -> Array:
    """Find the nearest matrix with orthonormal columns or rows, within the span of M."""
    U, _, Vh = _svd(M)
    return np.asarray(U @ Vh)


def _svd(M: Array) -> SVD:
    return SVD(*np.linalg.svd(matrix("M", M), full_matrices=False)).significant()


def _regmean(updates: Updates) -> Pair:
    """Compute ``sum_i w_i dW_i G_i (sum_i G_i)^-1``, a least-squares fit of all outputs."""
    grams = [_conditioned(update.gram, update.A.shape[1]) for update in updates]
    pairs = zip(grams, updates, strict=True)
    products = np.hstack([gram @ update.weighted.T for gram, update in pairs])
    A = np.linalg.solve(sum(grams), products).T
    return _wide(updates), A.astype(updates[0].A.dtype)


def _conditioned(gram: Array | None, k: int) -> Array:
    """Make a Gram matrix invertible: shrink its off-diagonal entries, and add a ridge."""
    if gram is None:
        raise ValueError("'regmean' needs a Gram matrix of each adapter's inputs (grams=)")
    G = matrix("a Gram matrix", gram).astype(np.float64)
    if G.shape != (k, k):
        raise ValueError(f"a Gram matrix of {k} inputs must have shape {(k, k)}, got {G.shape}")
    diagonal = np.diag(G)
    return _SHRUNK * G + np.diag((1 - _SHRUNK) * diagonal + _RIDGE * (diagonal.max() or 1.0))


def _ties(method: MergeMethod, mix: Rule = _peft_ties) -> MergeMethod:
    return replace(method, mix=mix, prune=_largest, density=0.2)


def _magnitude(method: MergeMethod) -> MergeMethod:
    return replace(method, mix=_added, prune=_largest, density=0.5)


def _dare(
    method: MergeMethod, mix: Rule = _added, prune: Callable[..., Array] = _dropped
) -> MergeMethod:
    return replace(method, mix=mix, prune=prune, density=0.5, chance=True)


_exact = MergeMethod(_sum, exact=True)
_factors = MergeMethod(
    _on_factors,
    warning="adds factors, not updates, so it multiplies each B with every A: 'sum' is exact",
)
_updates = MergeMethod(_on_updates, cut=True)

# Methods that PEFT also has are named by their ``combination_type`` in PEFT.
MERGE_METHODS: dict[str, MergeMethod] = {
    "sum": _exact,
    "cat": _exact,
    "svd": MergeMethod(_sum, cut=True, exact=True),
    "linear": replace(_factors, mix=_added),
    "ties": _ties(_factors),
    "dare_linear": _dare(_factors),
    "dare_ties": _dare(_factors, _peft_ties),
    "magnitude_prune": _magnitude(_factors),
    "ties_svd": _ties(_updates),
    "dare_linear_svd": _dare(_updates),
    "dare_ties_svd": _dare(_updates, _peft_ties),
    "magnitude_prune_svd": _magnitude(_updates),
    "mergekit_ties": _ties(_updates, _mergekit_ties),
    "mergekit_dare_linear": _dare(_updates, prune=_dropped_to_norm),
    "mergekit_dare_ties": _dare(_updates, _mergekit_dare_ties, _dropped_to_norm),
    "knots": _ties(MergeMethod(_knots)),
    "core": _ties(MergeMethod(_core)),
    "tsv": MergeMethod(_tsv),
    "iso": MergeMethod(_iso),
    "regmean": MergeMethod(_regmean),
}
