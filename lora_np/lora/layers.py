"""Define LoRA's layers: the linear layer of the paper, embeddings, experts and trained rows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from lora_np.autograd import Tensor, adapted_affine, affine, plus_low_rank, value
from lora_np.checks import Array, Rng, convert_arrays, number
from lora_np.nn import Embedding, Linear, dropout, freeze, outline


class LowRank:
    """The base class of layers with low-rank factors A and B."""

    A: Tensor | Array
    B: Tensor | Array
    alpha: float

    __repr__ = outline

    def __post_init__(self) -> None:
        convert_arrays(self)
        # Store a plain float, because a float64 scalar would turn float32 outputs into float64.
        object.__setattr__(self, "alpha", number("alpha", self.alpha, open_minimum=True))

    @property
    def rank(self) -> int:
        return self.A.shape[-2]

    @cached_property
    def scale(self) -> float:
        """The scale of the update, ``alpha / r``."""
        return self.alpha / self.A.shape[-2]

    def delta(self) -> Array:
        """Compute the update ``(alpha/r) B A`` of shape (d, k)."""
        return np.asarray(value(self.B) @ value(self.A) * self.scale)


@dataclass(frozen=True, eq=False, repr=False)
class LoRALinear(LowRank):
    """A linear layer with LoRA, ``h = W0 x + (alpha/r) B A x``: equation 3 of the LoRA paper.

    Use `inject` to wrap the layers of a model.

    Parameters
    ----------
    base : Linear
        The layer that is adapted; frozen if its arrays are ndarrays.
    A : Tensor or ndarray of shape (r, k)
        The input factor, which is random at the start to break the symmetry.
    B : Tensor or ndarray of shape (d, r)
        The output factor, which is zero at the start, so that training starts at the base model.
    alpha : float
        The update is scaled by ``alpha / r``.
    dropout : float
        The rate of dropout on the input of A, if the call is given an ``rng``.
    c : Tensor or ndarray of shape (d,), optional
        A bias of B: ``(alpha/r) (B A x + c)``, PEFT's ``lora_bias``.

    Raises
    ------
    ValueError
        If the shapes do not fit each other, or a setting is out of range.

    References
    ----------
    Hu et al., "LoRA: low-rank adaptation of large language models", arXiv 2106.09685.

    Examples
    --------
    >>> layer = LoRALinear(Linear(np.zeros((2, 3))), A=np.ones((1, 3)), B=np.ones((2, 1)),
    ...     alpha=2.0)
    >>> layer(np.array([[1.0, 2.0, 3.0]]))
    array([[12., 12.]])
    """

    base: Linear
    A: Tensor | Array  # (r, k)
    B: Tensor | Array  # (d, r)
    alpha: float
    dropout: float = 0.0
    c: Tensor | Array | None = None  # (d,)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_factors(self.A, self.B, self.base.W.shape)
        if self.c is not None and self.c.shape != (self.base.d_out,):
            raise ValueError(f"c must have shape ({self.base.d_out},), got {self.c.shape}")
        rate = number("dropout", self.dropout, maximum=1, open_maximum=True)
        object.__setattr__(self, "dropout", rate)

    def __call__(self, x: Any, *, rng: Rng = None) -> Any:
        kept = x if rng is None else dropout(x, self.dropout, rng=rng)
        W = self.base.W
        if kept is x and isinstance(W, (Tensor, np.ndarray)):
            h = adapted_affine(x, W, self.A, self.B, self.scale, self.base.b)
        else:
            h = plus_low_rank(self.base(x), kept, self.A, self.B, self.scale)
        return h if self.c is None else h + self.c * self.scale

    def merged(self) -> Linear:
        """Build one frozen `Linear` with the same outputs: ``W = W0 + (alpha/r) B A``."""
        b = self.base.b
        if self.c is not None:
            b = (0 if b is None else value(b)) + value(self.c) * self.scale
        return freeze(Linear(value(self.base.W) + self.delta(), b))


@dataclass(frozen=True, eq=False, repr=False)
class LoRAEmbedding(LowRank):
    """An embedding with LoRA, ``h = W0[i] + (alpha/r) B A[:, i]`` for the token i.

    Parameters
    ----------
    base : Embedding or Linear
        The embedding that is adapted; or the tied head, which is adapted by the same A and B.
    A : Tensor or ndarray of shape (r, vocab)
        The factor of the tokens, which is zero at the start.
    B : Tensor or ndarray of shape (d, r)
        The factor of the features, which is random at the start.
    alpha : float
        The update is scaled by ``alpha / r``.

    Raises
    ------
    ValueError
        If the shapes do not fit each other, or alpha is out of range.

    Notes
    -----
    As in loralib and PEFT, A is zero and B is random at the start (a linear layer has the reverse),
    so that the first steps change only the tokens that occur.

    Examples
    --------
    >>> layer = LoRAEmbedding(Embedding(np.zeros((3, 2))), A=np.eye(1, 3), B=np.ones((2, 1)),
    ...     alpha=2.0)
    >>> layer(np.array([0, 2]))
    array([[2., 2.],
           [0., 0.]])
    """

    base: Embedding | Linear
    A: Tensor | Array  # (r, vocab)
    B: Tensor | Array  # (d, r)
    alpha: float

    def __post_init__(self) -> None:
        super().__post_init__()
        vocab, d = self.base.W.shape
        check_factors(self.A, self.B, (d, vocab))

    def __call__(self, tokens: Any, *, rng: Rng = None) -> Any:
        base = self.base(tokens)  # raises an error for invalid tokens
        if isinstance(self.base, Linear):
            return plus_low_rank(base, tokens, self.B.T, self.A.T, self.scale)
        return base + (self.A.T[tokens] * self.scale) @ self.B.T

    def delta(self) -> Array:
        """Compute the update ``(alpha/r) A^T B^T``, in the embedding's shape (vocab, d)."""
        return super().delta().T

    def merged(self) -> Embedding | Linear:
        """Build one frozen layer with the same outputs."""
        return freeze(replace(self.base, W=value(self.base.W) + self.delta()))


@dataclass(frozen=True, eq=False)
class TrainableTokens:
    """An embedding or head with trained rows for some tokens: PEFT's ``trainable_token_indices``.

    Parameters
    ----------
    base : Embedding or Linear
        The embedding or head; frozen if its arrays are ndarrays.
    tokens : tuple of int
        The indices of the n trained rows.
    rows : Tensor or ndarray of shape (n, d)
        The trained rows.

    Examples
    --------
    >>> table = Embedding(np.zeros((3, 2)))
    >>> TrainableTokens(table, (1,), np.ones((1, 2)))(np.array([0, 1]))
    array([[0., 0.],
           [1., 1.]])
    """

    base: Embedding | Linear
    tokens: tuple[int, ...]
    rows: Tensor | Array  # (n, d)

    __repr__ = outline

    def __post_init__(self) -> None:
        convert_arrays(self)

    def __call__(self, x: Any, *, rng: Rng = None) -> Any:
        old, tokens = self.base(x), [*self.tokens]
        # Maps each token to a row of the old rows (or outputs) followed by the trained ones.
        place = np.arange(self.base.W.shape[0])
        place[tokens] = len(place) + np.arange(len(tokens))
        if isinstance(self.base, Linear):
            new = affine(x, self.rows, None if self.base.b is None else self.base.b[tokens])
            return np.concatenate([old, new], axis=-1)[..., place]
        at = place[x] - len(place)
        return np.where(at[..., None] < 0, old, self.rows[np.maximum(at, 0)])

    def merged(self) -> Embedding | Linear:
        """Build one frozen layer with the same outputs."""
        W = np.array(value(self.base.W))
        W[[*self.tokens]] = value(self.rows)
        return freeze(replace(self.base, W=W))


@dataclass(frozen=True, eq=False, repr=False)
class LoRAExperts(LowRank):
    """Weights of experts with LoRA, ``W0[i] + (alpha/r) B[i] A[i]``: PEFT's ``target_parameters``.

    Parameters
    ----------
    base : Tensor or ndarray of shape (experts, d, k)
        The weights of the experts.
    A : Tensor or ndarray of shape (experts, r, k)
        The input factor of each expert.
    B : Tensor or ndarray of shape (experts, d, r)
        The output factor of each expert.
    alpha : float
        The update is scaled by ``alpha / r``.

    Examples
    --------
    >>> LoRAExperts(np.zeros((1, 2, 2)), A=np.eye(2)[None], B=np.eye(2)[None],
    ...     alpha=6.0)[0]
    array([[3., 0.],
           [0., 3.]])
    """

    base: Tensor | Array  # (experts, d, k)
    A: Tensor | Array  # (experts, r, k)
    B: Tensor | Array  # (experts, d, r)
    alpha: float

    def __getitem__(self, i: Any) -> Any:
        return self.base[i] + self.B[i] @ self.A[i] * self.scale

    def merged(self) -> Array:
        """Compute the merged weights as one frozen array."""
        return value(self[:])


def check_factors(A: Tensor | Array, B: Tensor | Array, shape: tuple[int, ...]) -> None:
    """Check that ``B A`` is defined and has the ``shape`` of the weight."""
    a, b = A.shape, B.shape
    if len(a) != 2 or len(b) != 2 or a[0] != b[1]:
        raise ValueError(f"A (r, k) and B (d, r) must agree in r, got {a} and {b}")
    if (b[0], a[1]) != shape:
        raise ValueError(
            f"B A of shape {(b[0], a[1])} does not fit the base weight of shape {shape}"
        )
