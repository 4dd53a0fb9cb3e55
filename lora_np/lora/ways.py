"""Ways to combine the LoRAs of one module: a row each, its formula on the factors.

PEFT's rules act on entries: some are dropped (`_largest`, `_dropped`), and those that are left are
added up, perhaps only where they agree in sign. The same rules act on the As and the Bs, on the
updates ``scale B A``, or on the updates in a basis that they share (KnOTS, Core Space). Where the
algebra allows, no (d, k) matrix is formed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from math import copysign
from typing import Any, NamedTuple

import numpy as np

from lora_np.checks import Array, generator, matrix, number, whole_number
from lora_np.linalg import SVD, svd_of_product, truncated_svd

Pair = tuple[Array, Array]
Tensors = Sequence[Array]
Weights = Sequence[float]
Rule = Callable[[Tensors, Weights], Array]

_SHRUNK = 0.9  # RegMean: what is left of the entries off a Gram matrix's diagonal
_RIDGE = 1e-6  # on its diagonal, relative to the largest entry: what no input reaches is averaged


class Term(NamedTuple):
    """One LoRA of a module, ``weight * scale * B @ A``.

    Parameters
    ----------
    B : ndarray of shape (d, r)
        The outputs' factor.
    A : ndarray of shape (r, k)
        The inputs' factor.
    weight : float
        Its part in the sum.
    scale : float
        ``alpha / r``, or ``alpha / sqrt(r)`` with rsLoRA.
    gram : ndarray of shape (k, k), optional
        ``X.T @ X`` of the inputs X of its module on its own data, for "regmean".

    Examples
    --------
    >>> Term(np.array([[1.0], [2.0]]), np.array([[3.0, 0.0]]), scale=2.0).update
    array([[ 6.,  0.],
           [12.,  0.]])
    """

    B: Array
    A: Array
    weight: float = 1.0
    scale: float = 1.0
    gram: Array | None = None

    @property
    def weighted(self) -> Array:
        """A with all of the strength."""
        return np.asarray(self.A * self.A.dtype.type(self.weight * self.scale))

    @property
    def update(self) -> Array:
        """``scale * B @ A``."""
        update: Array = self.B @ self.A
        update *= update.dtype.type(self.scale)
        return update


Terms = Sequence[Term]


@dataclass(frozen=True)
class Way:
    """A row of `WAYS`: called with terms, it gives the factors of their combination.

    Parameters
    ----------
    formula : callable
        From terms, and a rule for entries if there is a ``mix``, to (B, A), or to a (d, k) array.
    mix : callable, optional
        From tensors and their weights to one tensor.
    prune : callable, optional
        From a tensor and the share of entries to keep to the tensor with the others at zero.
    density : float, optional
        That share, if the caller gives none.
    chance : bool
        Whether ``prune`` draws, and takes a Generator.
    cut : bool
        Whether the rank is by default the largest of the terms; otherwise it is whatever the
        formula gives.
    exact : bool
        Whether the result is the weighted sum of the updates, but for a cut.
    warning : str
        What is wrong with it, after its name.

    Examples
    --------
    >>> terms = [Term(np.eye(2)[:, [i]], np.eye(2)[[i]], weight) for i, weight in [(0, 1.0), (1,
    ...     2.0)]]
    >>> for name in ("sum", "linear", "iso"):
    ...     B, A = WAYS[name](terms)
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
        terms: Terms,
        *,
        density: float | None = None,
        rank: int | None = None,
        rng: object = None,
    ) -> Pair:
        """The factors of the combination: B (d, m) and A (m, k).

        Parameters
        ----------
        terms : sequence of Term
            One or more, of the same d and k.
        density : float, optional
            The share of entries that survive, for ways that drop some.
        rank : int, optional
            Cut the result to this rank by an SVD.
        rng : Generator or int
            For ways that draw.

        Raises
        ------
        TypeError
            If ``rng`` is missing or of another kind.
        ValueError
            If an option is out of range or not for this way, ranks differ where factors are added,
            or a Gram matrix is missing or of another shape.
        """
        density, rank, rng = self.checked(density=density, rank=rank, rng=rng)

        def rule(tensors: Tensors, weights: Weights) -> Array:
            if self.prune is not None and density < 1:
                drawn = (rng,) if self.chance else ()
                tensors = [self.prune(tensor, density, *drawn) for tensor in tensors]
            return self.mix(tensors, weights)  # type: ignore[misc]

        found = self.formula(terms, rule) if self.mix else self.formula(terms)
        if rank is None and self.cut:
            rank = max(term.A.shape[0] for term in terms)
        if not isinstance(found, tuple):
            U, s, Vh = truncated_svd(found, rank=min(rank, *found.shape))
        elif rank is not None and rank < found[0].shape[1]:
            U, s, Vh = svd_of_product(*found)
        else:
            return found
        return U[:, :rank] * s[:rank], Vh[:rank]

    def checked(
        self, *, density: float | None, rank: int | None, rng: Any
    ) -> tuple[float, int | None, Any]:
        """The options, checked, with the default density, and a Generator if it draws."""
        if density is not None and self.density is None:
            raise ValueError(
                f"density is for ways that drop entries, such as 'ties', got {density!r}"
            )
        share = (self.density or 1.0) if density is None else density
        share = number("density", share, minimum=0, maximum=1, open_minimum=True)
        rank = None if rank is None else whole_number("rank", rank)
        return share, rank, generator(rng) if self.chance else None


# What is dropped


def _largest(T: Array, density: float) -> Array:
    """The ``int(density * n)`` entries that are largest in absolute value."""
    dropped = T.size - int(density * T.size)
    order = np.argpartition(np.abs(T), min(dropped, T.size - 1), axis=None)
    kept = T.ravel().copy()
    kept[order[:dropped]] = 0
    return kept.reshape(T.shape)


def _dropped(T: Array, density: float, rng: np.random.Generator) -> Array:
    """DARE: each entry with this probability, divided by it."""
    return np.asarray(np.where(rng.random(T.shape) < density, T, 0) / T.dtype.type(density))


def _dropped_to_norm(T: Array, density: float, rng: np.random.Generator) -> Array:
    """DARE as in mergekit: what is left is brought back to the sum of absolute values."""
    kept = np.where(rng.random(T.shape) < density, T, 0)
    before, after = np.abs(T).sum(), np.abs(kept).sum()
    if min(before, after) >= 1e-7:
        kept *= before / after
    return kept


# How the rest is added up


def _weighted(tensors: Tensors, weights: Weights) -> list[Array]:
    return [T * T.dtype.type(w) for T, w in zip(tensors, weights, strict=True)]


def _added(tensors: Tensors, weights: Weights) -> Array:
    """``sum_i w_i T_i``."""
    return sum(_weighted(tensors, weights))  # type: ignore[return-value]


def _of_agreeing(
    tensors: Tensors, weights: Weights, *, weigh_votes: bool, divisor: Callable[[Any], Any]
) -> Array:
    """TIES: the weighted sum of what has the sign of most, over the ``divisor`` of the weights that
    agree.
    """
    votes = _weighted(tensors, weights) if weigh_votes else tensors
    agreeing = np.sign(votes) == np.where(np.sum(votes, axis=0) >= 0, 1, -1)
    total = _added([*(tensors * agreeing)], weights)
    share = np.tensordot(divisor(weights), agreeing, axes=1)
    total /= np.where(share == 0, 1, share)
    return total


# in PEFT by how many agree; in mergekit by their weights, with DARE by nothing
_peft_ties = partial(_of_agreeing, weigh_votes=False, divisor=np.ones_like)
_mergekit_ties = partial(_of_agreeing, weigh_votes=True, divisor=np.asarray)
_mergekit_dare_ties = partial(_of_agreeing, weigh_votes=True, divisor=np.zeros_like)


# What the rules act on


def _on_factors(terms: Terms, rule: Rule) -> Pair:
    """The As and the Bs separately, each with the root of its strength, whose sign is A's."""
    ranks = sorted({term.A.shape[0] for term in terms})
    if len(ranks) > 1:
        raise ValueError(
            f"ranks are {ranks}; a way that adds factors needs equal ones, unlike 'sum'"
        )
    strengths = [term.weight * term.scale for term in terms]
    roots = [abs(strength) ** 0.5 for strength in strengths]
    signed = [copysign(root, strength) for root, strength in zip(roots, strengths, strict=True)]
    A = rule([term.A for term in terms], signed)
    return rule([term.B for term in terms], roots), A


def _on_updates(terms: Terms, rule: Rule) -> Array:
    """The updates."""
    return rule([term.update for term in terms], [term.weight for term in terms])


def _shared(terms: Terms) -> tuple[Array, Array, list[Array]]:
    """U from the SVD of all Bs side by side, V^T from that of all As, and the ``U^T dW_i V``."""
    U = _svd(np.hstack([term.B for term in terms])).U
    Vh = _svd(np.vstack([term.A for term in terms])).Vh
    return U, Vh, [term._replace(B=U.T @ term.B, A=term.A @ Vh.T).update for term in terms]


def _core(terms: Terms, rule: Rule) -> Pair:
    """The updates in the basis that they share: no dW is formed."""
    U, Vh, inner = _shared(terms)
    return U, rule(inner, [term.weight for term in terms]) @ Vh


def _knots(terms: Terms, rule: Rule) -> Pair:
    """With ``[dW_1 .. dW_n] = U S [V_1 .. V_n]``, the ``S V_i``; no dW is formed."""
    U, Vh, inner = _shared(terms)
    F = _svd(np.hstack(inner))
    parts = [part @ Vh for part in np.split(F.s[:, None] * F.Vh, len(terms), axis=1)]
    return U @ F.U, rule(parts, [term.weight for term in terms])


# Ways with formulas of their own


def _sum(terms: Terms) -> Pair:
    """``[B_1 .. B_n]`` on the stacked ``w_i s_i A_i``: the weighted sum of the updates."""
    return np.hstack([term.B for term in terms]), np.vstack([term.weighted for term in terms])


def _iso(terms: Terms) -> Pair:
    """The sum with all its singular values at their mean."""
    U, s, Vh = svd_of_product(*_sum(terms)).significant()
    return U * s.mean(), Vh


def _tsv(terms: Terms) -> Pair:
    """The sum of the SVDs, the Us of all made orthonormal together, and the Vs."""
    most = max(1, min(len(terms[0].B), terms[0].A.shape[1]) // len(terms))
    found = [svd_of_product(term.B, term.weighted).significant() for term in terms]
    strengths = np.concatenate([each.s[:most] for each in found])
    B = _orthonormal(np.hstack([each.U[:, :most] for each in found]))
    return B * strengths, _orthonormal(np.vstack([each.Vh[:most] for each in found]))


def _orthonormal(M: Array) -> Array:
    """The nearest matrix with orthonormal columns or rows (Procrustes), within the span of M."""
    U, _, Vh = _svd(M)
    return np.asarray(U @ Vh)


def _svd(M: Array) -> SVD:
    return SVD(*np.linalg.svd(M, full_matrices=False)).significant()


def _regmean(terms: Terms) -> Pair:
    """``sum_i w_i dW_i G_i (sum_i G_i)^-1``: the least squares of all outputs ``w_i dW_i x``
    together.
    """
    if any(term.gram is None for term in terms):
        raise ValueError("'regmean' needs a Gram matrix of each adapter's inputs (grams=)")
    grams = [_conditioned(term.gram, term.A.shape[1]) for term in terms]
    seen = np.hstack([gram @ term.weighted.T for gram, term in zip(grams, terms, strict=True)])
    A = np.linalg.solve(sum(grams), seen).T
    return np.hstack([term.B for term in terms]), A.astype(terms[0].A.dtype)


def _conditioned(gram: Any, k: int) -> Array:
    """A Gram matrix with smaller entries off the diagonal, as the paper does it, that can be
    inverted.
    """
    G = matrix("a Gram matrix", gram).astype(np.float64)
    if G.shape != (k, k):
        raise ValueError(f"a Gram matrix of {k} inputs must have shape {(k, k)}, got {G.shape}")
    diagonal = np.diag(G)
    G = _SHRUNK * G + np.diag((1 - _SHRUNK) * diagonal + _RIDGE * (diagonal.max() or 1.0))
    return G


_TIES: dict[str, Any] = {"mix": _peft_ties, "prune": _largest, "density": 0.2}
_MAGNITUDE: dict[str, Any] = {"mix": _added, "prune": _largest, "density": 0.5}
_DARE: dict[str, Any] = {"prune": _dropped, "density": 0.5, "chance": True}
_NORMED: dict[str, Any] = {**_DARE, "prune": _dropped_to_norm}
_FACTORS: dict[str, Any] = {
    "formula": _on_factors,
    "warning": (
        "adds up factors, not updates, and so multiplies each B with every A: 'sum' is exact"
    ),
}
_UPDATES: dict[str, Any] = {"formula": _on_updates, "cut": True}
_exact = Way(_sum, exact=True)

# By the names of PEFT's ``combination_type`` where it has them.
WAYS: dict[str, Way] = {
    "sum": _exact,
    "cat": _exact,
    "svd": Way(_sum, cut=True, exact=True),
    "linear": Way(mix=_added, **_FACTORS),
    "ties": Way(**_FACTORS, **_TIES),
    "dare_linear": Way(mix=_added, **_FACTORS, **_DARE),
    "dare_ties": Way(mix=_peft_ties, **_FACTORS, **_DARE),
    "magnitude_prune": Way(**_FACTORS, **_MAGNITUDE),
    "ties_svd": Way(**_UPDATES, **_TIES),
    "dare_linear_svd": Way(mix=_added, **_UPDATES, **_DARE),
    "dare_ties_svd": Way(mix=_peft_ties, **_UPDATES, **_DARE),
    "magnitude_prune_svd": Way(**_UPDATES, **_MAGNITUDE),
    "mergekit_ties": Way(**_UPDATES, **{**_TIES, "mix": _mergekit_ties}),
    "mergekit_dare_linear": Way(mix=_added, **_UPDATES, **_NORMED),
    "mergekit_dare_ties": Way(mix=_mergekit_dare_ties, **_UPDATES, **_NORMED),
    "knots": Way(_knots, **_TIES),
    "core": Way(_core, **_TIES),
    "tsv": Way(_tsv),
    "iso": Way(_iso),
    "regmean": Way(_regmean),
}
