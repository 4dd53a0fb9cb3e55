"""The interface that a ``Tensor`` shares with ndarray: attributes, operators and methods.

Nothing here computes a gradient. Each method calls a NumPy function, and the tables handle the
call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from operator import attrgetter, getitem
from typing import Any, ClassVar, Literal, NoReturn

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin
from numpy.typing import DTypeLike

from lora_np.checks import Array, ArrayLike, plain

IN_PLACE = (
    "writing into an array cannot be differentiated: write h = h + x instead of h[i] = x or out=h"
)


def operation(ufunc: np.ufunc) -> Callable[[ArrayMethods, ArrayLike], Any]:
    def operate(self: ArrayMethods, other: ArrayLike) -> Any:
        return self.answer(ufunc, (self, other), {})

    return operate


def astype(a: Array, dtype: DTypeLike) -> Array:
    return a.astype(dtype)


class ArrayMethods(NDArrayOperatorsMixin):
    """The attributes, operators and methods that a ``Tensor`` shares with ndarray."""

    __slots__ = ()

    data: Any  # an ndarray; in a nested `grad`, a Tensor
    grad: Array | None
    node: Any  # the step that computed this Tensor; None for a leaf
    answer: ClassVar[Callable[..., Any]]  # calls function(*args, **kwargs); set in tables.py

    # Redefine the most common operators of NDArrayOperatorsMixin to avoid NumPy's slow dispatch.
    __add__ = operation(np.add)
    __sub__ = operation(np.subtract)
    __mul__ = operation(np.multiply)
    __truediv__ = operation(np.divide)
    __matmul__ = operation(np.matmul)

    # x += y creates a new Tensor, because changing x's array could make gradients wrong
    __iadd__ = __add__
    __isub__ = __sub__
    __imul__ = __mul__
    __itruediv__ = __truediv__
    __imod__ = NDArrayOperatorsMixin.__mod__
    __ipow__ = NDArrayOperatorsMixin.__pow__
    __imatmul__ = __matmul__

    def __setitem__(self, index: Any, value: ArrayLike) -> NoReturn:
        raise TypeError(IN_PLACE)

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NoReturn:
        raise TypeError(
            "a Tensor converted to an ndarray loses its gradient: join Tensors by np.stack([x, y]),"
            " or pass lora_np.value(x) if a constant is meant"
        )

    def __repr__(self) -> str:
        if isinstance(self.data, ArrayMethods):  # a nested `grad` puts a Tensor inside a Tensor
            return f"Tensor({self.data!r})"
        body = np.array2string(self.data, separator=", ", prefix="Tensor(")
        dtype = "" if self.dtype == np.float64 else f", dtype={self.dtype}"
        origin = "" if self.node is None else f", from={self.node.name}"
        return f"Tensor({body}{dtype}{origin})"

    def __reduce__(self) -> tuple[object, ...]:
        if self.node is not None:
            raise TypeError(
                f"the result of {self.node.name} is in a graph: copy or pickle lora_np.value(x)"
            )
        return type(self), (self.data,), (None, {"grad": self.grad})

    def __iter__(self) -> Iterator[Any]:
        return (self.answer(getitem, (self, i), {}) for i in range(len(self)))

    def __len__(self) -> int:
        return len(self.data)

    def __bool__(self) -> bool:
        return bool(self.data)

    def __format__(self, spec: str) -> str:
        return format(self.data, spec)

    def item(self) -> float:
        """Return the value of a Tensor with one element as a Python number."""
        return self.data.item()  # type: ignore[no-any-return]

    # use attrgetter, which is fast, because every step of a graph reads these attributes
    shape: tuple[int, ...] = property(attrgetter("data.shape"))  # type: ignore[assignment]
    ndim: int = property(attrgetter("data.ndim"))  # type: ignore[assignment]
    size: int = property(attrgetter("data.size"))  # type: ignore[assignment]
    nbytes: int = property(attrgetter("data.nbytes"))  # type: ignore[assignment]
    dtype: np.dtype[Any] = property(attrgetter("data.dtype"))  # type: ignore[assignment]

    @property
    def T(self) -> Any:
        return self.answer(np.transpose, (self,), {})

    @property
    def mT(self) -> Any:
        return np.swapaxes(self, -1, -2)

    def reshape(self, *shape: int | Sequence[int], order: Literal["C", "F", "A"] = "C") -> Any:
        return np.reshape(self, shape[0] if len(shape) == 1 else shape, order=order)

    def astype(self, dtype: DTypeLike) -> Any:
        return self.answer(astype, (self, dtype), {})

    def transpose(self, *axes: Any) -> Any:
        return np.transpose(self, (axes[0] if len(axes) == 1 else axes) or None)

    # NumPy's functions work as methods: x.sum(...) calls np.sum(x, ...)
    flatten = ravel = np.ravel
    copy, dot, trace = np.copy, np.dot, np.trace
    sum, prod, mean, var, std = np.sum, np.prod, np.mean, np.var, np.std
    max, min, all, any = np.max, np.min, np.all, np.any
    argmax, argmin, argsort = np.argmax, np.argmin, np.argsort
    round, clip, cumsum, cumprod = np.round, np.clip, np.cumsum, np.cumprod
    squeeze, swapaxes, diagonal = np.squeeze, np.swapaxes, np.diagonal
    take, repeat = np.take, np.repeat


def value(x: Any) -> Array:
    """Return the array of a Tensor or array-like; no gradient flows back through it.

    Parameters
    ----------
    x : Tensor or array_like
        A Tensor or an array.

    Returns
    -------
    ndarray
        The values, which are not copied.

    Examples
    --------
    >>> from lora_np import Tensor
    >>> value(Tensor([1.0, 2.0])), value([3.0])
    (array([1., 2.]), array([3.]))
    """
    while isinstance(x, ArrayMethods):
        x = x.data
    return x if type(x) is np.ndarray else plain("x", x)
