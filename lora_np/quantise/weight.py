"""The interface of every kind of quantised matrix."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from lora_np.checks import Array, ArrayLike, real

PIECE = 2**18  # entries of a matrix at a time


class Quantised:
    """A frozen quantised matrix, made by `quantise` or read from a file.

    It is a leaf of a model's tree, neither a Tensor nor an ndarray: it is never trained, and its
    entries are read as a matrix or a few rows at a time.

    Attributes
    ----------
    kind : str
        One of `KINDS`.
    shape : tuple of int
        Of the matrix, (d, k).

    Examples
    --------
    >>> from lora_np.quantise import quantise
    >>> Q = quantise(np.random.default_rng(0).normal(size=(6, 64)), "int8")
    >>> isinstance(Q, Quantised), Q
    (True, <int8 matrix, 6 x 64, 8.5 bits per entry>)
    >>> Q.rows([0, 5]).shape  # without the others
    (2, 64)
    """

    kind: str
    shape: tuple[int, ...]

    def dequantised(self) -> Array:
        """Return the matrix that the bits encode.

        Returns
        -------
        ndarray of shape (d, k)
            float32, and new with each call.
        """
        return self.rows(slice(None))

    def rows(self, index: Array | slice) -> Array:
        """Return some rows of ``dequantised``, without the others.

        Parameters
        ----------
        index : array_like of int or slice
            Of any shape; entries from 0 to d - 1.

        Returns
        -------
        ndarray of shape (*index.shape, k)
        """
        raise NotImplementedError

    def product(self, x: Array) -> Array:
        """Return ``x W^T``, dequantising only some rows of W at a time.

        Parameters
        ----------
        x : ndarray of shape (n, k)

        Returns
        -------
        ndarray of shape (n, d)
        """
        y = np.empty((len(x), self.shape[0]), np.result_type(x, np.float32))
        for part in self.pieces():
            np.matmul(x, self.rows(part).T, out=y[:, part])
        return y

    def pulled(self, g: Array) -> Array:
        """Return ``g W`` for g of shape (n, d): the gradient of `product`."""
        total = np.zeros((len(g), self.shape[1]), np.result_type(g, np.float32))
        for part in self.pieces():
            total += g[:, part] @ self.rows(part)
        return total

    def pieces(self, entries: int = PIECE) -> Iterator[slice]:
        """Yield slices of rows, each as many as have so many entries, which fit the cache."""
        step = max(1, entries // self.shape[1])
        return (slice(i, min(i + step, self.shape[0])) for i in range(0, self.shape[0], step))

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> Array:
        """Return `dequantised` for NumPy's functions: ``np.asarray(Q)``."""
        return self.dequantised().astype(dtype or self.dtype, copy=False)

    @property
    def nbytes(self) -> int:
        """The bytes that codes and scales take."""
        return sum(int(array.nbytes) for array in vars(self).values() if hasattr(array, "nbytes"))

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype that `dequantised` returns: float32."""
        return np.dtype(np.float32)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """The number of entries of the matrix."""
        return int(np.prod(self.shape))

    @property
    def bits(self) -> float:
        """Bits per entry, scales included."""
        return 8 * self.nbytes / self.size

    def error(self, W: ArrayLike, *, relative: bool = False) -> float:
        """Return ``||W - Q||_F``, the error relative to the matrix that was quantised.

        Parameters
        ----------
        W : array_like of shape (d, k)
        relative : bool
            Divide by ``||W||_F``. A zero matrix has an error of 0.

        Returns
        -------
        float

        Raises
        ------
        ValueError
            If W has another shape.

        Examples
        --------
        >>> from lora_np.quantise import quantise
        >>> W = np.diag(np.float32([0.5, 1.0]))
        >>> quantise(W, "int8").error(W)
        0.0
        """
        W = real("W", W)
        if W.shape != self.shape:
            raise ValueError(f"W must have shape {self.shape}, got {W.shape}")
        lost, size = (
            float(np.linalg.norm(M.astype(np.float64))) for M in (W - self.dequantised(), W)
        )
        return lost / (size or 1.0) if relative else lost

    def __repr__(self) -> str:
        shape = " x ".join(f"{n:,}" for n in self.shape)
        return f"<{self.kind} matrix, {shape}, {self.bits:.3g} bits per entry>"
