"""Define the interface of every kind of quantised matrix."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from lora_np.checks import Array, ArrayLike, real

PIECE = 2**18  # entries of a matrix that are dequantised at a time


class Quantised:
    """A frozen quantised matrix, made by `quantise` or read from a file.

    It is a leaf of a model's tree, but neither a Tensor nor an ndarray: it is never trained, and it
    is read as a whole matrix or a few rows at a time.

    Attributes
    ----------
    kind : str
        The kind of quantisation, such as "nf4" or "Q4_K".
    shape : tuple of int
        The shape of the matrix, (d, k).

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
        """Return the matrix that the codes and scales encode.

        Returns
        -------
        ndarray of shape (d, k)
            A new float32 array.
        """
        return self.rows(slice(None))

    def rows(self, index: Array | slice) -> Array:
        """Dequantise only the given rows.

        Parameters
        ----------
        index : array_like of int or slice
            The indices of the rows, an array of any shape or a slice.

        Returns
        -------
        ndarray of shape (*index.shape, k)
            The rows in float32.
        """
        raise NotImplementedError

    def product(self, x: Array) -> Array:
        """Compute ``x W^T``, dequantising only some rows of W at a time.

        Parameters
        ----------
        x : ndarray of shape (n, k)
            The inputs.

        Returns
        -------
        ndarray of shape (n, d)
            The outputs.
        """
        y = np.empty((len(x), self.shape[0]), np.result_type(x, np.float32))
        for part in self.pieces():
            np.matmul(x, self.rows(part).T, out=y[:, part])
        return y

    def pulled(self, g: Array) -> Array:
        """Compute ``g W`` (n, k) for g of shape (n, d), the backward pass of `product`."""
        total = np.zeros((len(g), self.shape[1]), np.result_type(g, np.float32))
        for part in self.pieces():
            total += g[:, part] @ self.rows(part)
        return total

    def pieces(self, entries: int = PIECE) -> Iterator[slice]:
        """Return slices of rows, each with about ``entries`` entries so that it fits the cache."""
        step = max(1, entries // self.shape[1])
        return (slice(i, min(i + step, self.shape[0])) for i in range(0, self.shape[0], step))

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> Array:
        """Convert to an ndarray for NumPy's functions, as in ``np.asarray(Q)``."""
        return self.dequantised().astype(dtype or self.dtype, copy=False)

    @property
    def nbytes(self) -> int:
        """The number of bytes of the codes and scales."""
        return sum(int(array.nbytes) for array in vars(self).values() if hasattr(array, "nbytes"))

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of the matrix that `dequantised` returns, which is float32."""
        return np.dtype(np.float32)

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """The number of entries of the matrix."""
        return int(np.prod(self.shape))

    @property
    def bits(self) -> float:
        """The number of bits per entry, including scales."""
        return 8 * self.nbytes / self.size

    def error(self, W: ArrayLike, *, relative: bool = False) -> float:
        """Compute the quantisation error ``||W - Q||_F``.

        Parameters
        ----------
        W : array_like of shape (d, k)
            The matrix that was quantised.
        relative : bool
            Whether to divide by ``||W||_F``. A zero matrix has an error of 0.

        Returns
        -------
        float
            The error in the Frobenius norm.

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
