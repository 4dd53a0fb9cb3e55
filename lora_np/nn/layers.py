"""Define layers as frozen dataclasses that are called on inputs; ``rng=`` enables dropout."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lora_np.autograd import Operand, Tensor, affine, primitive, value
from lora_np.checks import (
    Array,
    Rng,
    Seed,
    computed_dtype,
    convert_arrays,
    generator,
    number,
    numbers_below,
    shown,
    whole_number,
)
from lora_np.nn.losses import operand
from lora_np.nn.tree import outline
from lora_np.quantise import Quantised

Layer = Callable[..., Operand]  # a layer is called as layer(x, rng=rng)


@dataclass(frozen=True, eq=False)
class Linear:
    """A linear layer ``h = W x + b``, or ``h = x W^T + b`` for inputs in rows.

    Parameters
    ----------
    W : Tensor, ndarray or Quantised of shape (d, k)
        The weight. A Tensor is trained, an ndarray is frozen, and so is a quantised weight, which
        is dequantised only during a product.
    b : Tensor or ndarray of shape (d,), optional
        The bias, added to each row; none by default.

    Raises
    ------
    ValueError
        If the shapes do not fit each other.
    TypeError
        If W or b is not an array. To make a layer of a given size, use `Linear.init`.

    Examples
    --------
    >>> layer = Linear(np.array([[1.0, 2.0, 3.0]]))
    >>> layer(np.array([[1.0, 1.0, 1.0]]))
    array([[6.]])
    """

    W: Tensor | Array | Quantised  # (d, k)
    b: Tensor | Array | None = None  # (d,)

    __repr__ = outline

    def __post_init__(self) -> None:
        if isinstance(self.W, int):  # a size, as other libraries' layers expect
            sizes = f"d_in={self.W!r}, d_out={self.b if isinstance(self.b, int) else '...'}"
            raise TypeError(
                f"Linear takes its weight W, an array; from sizes: Linear.init({sizes}, rng=0)"
            )
        check_weight("W", self.W)
        if self.W.ndim != 2:
            raise ValueError(f"W must be a matrix (d, k), got shape {self.W.shape}")
        if self.b is not None:
            check_weight("b", self.b, quantised=False)
            if self.b.shape != (self.d_out,):
                raise ValueError(
                    f"b must have shape ({self.d_out},), as W has rows, got {self.b.shape}"
                )
        convert_arrays(self)

    @classmethod
    def init(
        cls,
        *,
        d_out: int,
        d_in: int,
        rng: Seed,
        bias: bool = False,
        dtype: npt.DTypeLike = np.float64,
    ) -> Linear:
        """Create a trainable layer: W uniform within ``+-1/sqrt(d_in)``, as in torch; b zero.

        Parameters
        ----------
        d_out, d_in : int
            The numbers of outputs and inputs; W has shape (d_out, d_in).
        rng : Generator or int
            Random seed of W.
        bias : bool
            Whether the layer has a bias b.
        dtype : dtype
            The dtype of W and b, float64 or float32.

        Raises
        ------
        ValueError
            If a size is below 1, or ``dtype`` is neither of these.
        TypeError
            If ``rng`` is neither a Generator nor an int.

        Examples
        --------
        >>> Linear.init(d_out=100, d_in=120, rng=np.random.default_rng(0)).W.shape
        (100, 120)
        """
        d_out, d_in = whole_number("d_out", d_out), whole_number("d_in", d_in)
        dtype = computed_dtype(dtype)
        bound = d_in**-0.5
        W = generator(rng).uniform(-bound, bound, (d_out, d_in)).astype(dtype)
        return cls(Tensor(W), Tensor(np.zeros(d_out, dtype)) if bias else None)

    @property
    def d_out(self) -> int:
        return self.W.shape[0]

    @property
    def d_in(self) -> int:
        return self.W.shape[1]

    def __call__(self, x: Operand, *, rng: Rng = None) -> Operand:
        if isinstance(self.W, Quantised):
            return affine_quantised(x, self.b, W=self.W)
        return affine(x, self.W, self.b)


@dataclass(frozen=True, eq=False)
class Embedding:
    """A layer that looks up a row of W for each token, ``h = W[i]``.

    The result equals ``W^T`` times a one-hot vector.

    Parameters
    ----------
    W : Tensor, ndarray or Quantised of shape (vocab, d)
        The weight, with a row for each token.

    Raises
    ------
    ValueError
        If W is not a matrix, or, in a call, a token is not one of its rows.
    TypeError
        If tokens are not whole numbers.

    Examples
    --------
    >>> Embedding(np.array([[1.0, 2.0], [3.0, 4.0]]))(np.array([1, 1, 0]))
    array([[3., 4.],
           [3., 4.],
           [1., 2.]])
    """

    W: Tensor | Array | Quantised  # (vocab, d)

    __repr__ = outline

    def __post_init__(self) -> None:
        if isinstance(self.W, int):
            raise TypeError(
                "Embedding takes its weight: Embedding(Tensor(rng.normal(size=(vocab, d))))"
            )
        check_weight("W", self.W)
        if self.W.ndim != 2:
            raise ValueError(f"W must be a matrix (vocab, d), got shape {self.W.shape}")
        convert_arrays(self)

    def __call__(self, tokens: Array, *, rng: Rng = None) -> Operand:
        tokens = numbers_below("tokens", tokens, self.W.shape[0])
        return self.W.rows(tokens) if isinstance(self.W, Quantised) else self.W[tokens]


@dataclass(frozen=True, eq=False)
class Activation:
    """A layer that applies a function to its input.

    Parameters
    ----------
    function : callable
        A function of one array, such as ``np.tanh``.

    Examples
    --------
    >>> Activation(np.tanh)(np.zeros(2))
    array([0., 0.])
    """

    function: Callable[[Operand], Operand]

    __repr__ = outline

    def __call__(self, x: Operand, *, rng: Rng = None) -> Operand:
        return self.function(x)


@dataclass(frozen=True, eq=False)
class Sequential:
    """A chain of layers, in which each layer takes the output of the previous one.

    Parameters
    ----------
    layers : iterable of layers
        The layers, which are called as ``layer(x, rng=rng)``.

    Raises
    ------
    TypeError
        If ``layers`` is a layer.

    Examples
    --------
    >>> model = Sequential([Linear(np.eye(2)), Activation(relu)])
    >>> model(np.array([[1.0, -1.0]]))
    array([[1., 0.]])
    """

    layers: tuple[Layer, ...]

    def __init__(self, layers: Iterable[Layer], *more: Layer) -> None:
        if more or not isinstance(layers, Iterable):
            raise TypeError("Sequential takes one list of layers: Sequential([first, second])")
        object.__setattr__(self, "layers", tuple(layers))

    __repr__ = outline

    def __call__(self, x: Operand, *, rng: Rng = None) -> Operand:
        for layer in self.layers:
            x = layer(x, rng=rng)
        return x


# To save memory, W is dequantised a few rows at a time, and again in the backward pass.
def affine_dequantised(x: Array, b: Array | None = None, *, W: Quantised) -> Array:
    y = W.product(x.reshape(-1, *x.shape[-1:])).reshape(*x.shape[:-1], -1)
    return y if b is None else y + b


affine_quantised = primitive(
    affine_dequantised,
    lambda y, x, b=None, *, W: (
        lambda g: W.pulled(g.reshape(-1, g.shape[-1])).reshape(*g.shape[:-1], -1)
    ),
    lambda y, x, b=None, *, W: lambda g: g,
    composed=lambda x, b=None, *, W: affine(x, W.dequantised(), b),
)


def check_weight(name: str, weight: object, *, quantised: bool = True) -> None:
    if not isinstance(
        weight, (Tensor, np.ndarray, Quantised) if quantised else (Tensor, np.ndarray)
    ):
        kind = type(weight).__name__
        raise TypeError(
            f"{name} must be an ndarray (frozen) or a Tensor (trained), got {kind}: np.array it"
        )


def relu(x: Operand) -> Operand:
    """Return ``max(x, 0)``, with derivative 0 at 0.

    Parameters
    ----------
    x : Tensor or ndarray
        The input, of any shape.

    Returns
    -------
    Tensor or ndarray
        The result, of the same shape; a Tensor if ``x`` is one.

    See Also
    --------
    gelu : Compute a smooth version.

    Examples
    --------
    >>> relu(np.array([-1.0, 2.0]))
    array([0., 2.])
    """
    x = operand("x", x)
    return np.where(x <= 0, 0, x)  # with the condition x > 0, NaN would become 0


def sigmoid(x: Operand) -> Operand:
    """Return ``1 / (1 + exp(-x))``, written with tanh so that nothing overflows.

    Parameters
    ----------
    x : Tensor or ndarray
        The input, of any shape.

    Returns
    -------
    Tensor or ndarray
        The result, of the same shape; a Tensor if ``x`` is one.

    See Also
    --------
    softmax : Compute probabilities of more than two classes.

    Examples
    --------
    >>> sigmoid(np.array([-1000.0, 0.0]))
    array([0. , 0.5])
    """
    x = operand("x", x)
    y: Operand = 0.5 * np.tanh(0.5 * x) + 0.5
    return y


def gelu(x: Operand) -> Operand:
    """Return the tanh approximation of the Gaussian error linear unit (arXiv 1606.08415).

    Parameters
    ----------
    x : Tensor or ndarray
        The input, of any shape.

    Returns
    -------
    Tensor or ndarray
        The result, of the same shape; a Tensor if ``x`` is one.

    See Also
    --------
    relu : Compute its limit for large inputs.

    Examples
    --------
    >>> gelu(np.array([0.0, 10.0]))
    array([ 0., 10.])
    """
    x = operand("x", x)
    y: Operand = 0.5 * x * (1 + np.tanh((2 / np.pi) ** 0.5 * (x + 0.044715 * x * x * x)))
    return y


def softmax(x: Operand, *, axis: int = -1) -> Operand:
    """Return ``exp(x) / sum(exp(x))`` along ``axis``.

    Parameters
    ----------
    x : Tensor or ndarray
        The input, of any shape.
    axis : int
        The axis along which the results sum to 1.

    Returns
    -------
    Tensor or ndarray
        The result, of the same shape; a Tensor if ``x`` is one.

    See Also
    --------
    cross_entropy : Compute a loss from its logarithm.

    Examples
    --------
    >>> softmax(np.array([1000.0, 1000.0]))
    array([0.5, 0.5])
    """
    x = operand("x", x)
    # a constant shift does not change the result, and this one keeps exp from overflowing
    with np.errstate(under="ignore"):
        e = np.exp(x - value(x).max(axis=axis, keepdims=True))
        y: Operand = e / e.sum(axis=axis, keepdims=True)
    return y


def dropout(x: Operand, rate: float, *, rng: Rng) -> Operand:
    """Set entries of ``x`` to zero with probability ``rate``, and scale up the remaining ones.

    Without ``rng``, ``x`` is returned unchanged.

    Parameters
    ----------
    x : Tensor or ndarray
        The input, of any shape.
    rate : float
        The probability that an entry is dropped, ``0 <= rate < 1``.
    rng : Generator or None
        The source of randomness; ``None`` turns dropout off. An int is not accepted, because all
        layers would drop the same entries.

    Returns
    -------
    Tensor or ndarray
        The result, of the same shape; a Tensor if ``x`` is one.

    Raises
    ------
    TypeError
        If ``rng`` is neither a Generator nor None.
    ValueError
        If ``rate`` is out of range.

    Examples
    --------
    >>> dropout(np.ones(4), 0.5, rng=np.random.default_rng(0))
    array([2., 2., 2., 0.])
    >>> dropout(np.ones(4), 0.5, rng=None)
    array([1., 1., 1., 1.])
    """
    if number("rate", rate, maximum=1, open_maximum=True) == 0 or rng is None:
        return x
    if not isinstance(rng, np.random.Generator):
        raise TypeError(
            f"rng must be a numpy.random.Generator, or None for no dropout, got {shown(rng)}"
        )
    x = operand("x", x)
    kept = rng.random(x.shape, dtype=np.float32) >= rate
    y: Operand = x * (kept / (1 - rate)).astype(x.dtype)
    return y
