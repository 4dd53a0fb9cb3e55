"""Compute the errors of the best approximations of a matrix at every rank."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lora_np import linalg
from lora_np.accounting.matrix import count_full, count_lora
from lora_np.checks import Array, ArrayLike, matrix as checked_matrix, number, refuse
from lora_np.hub import load_matrix
from lora_np.table import Table, shape_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class RankErrors:
    """The relative errors of the best rank-r approximations, computed by `rank_errors_of`.

    Parameters
    ----------
    source : str
        The file of the matrix, or "a matrix".
    shape : tuple of int
        The rows and columns of the matrix.
    norm : str
        The norm in which errors are measured.
    rank : int
        The smallest rank that meets the requirement.
    enough : str
        The requirement, in words.
    tolerance : float
        The accepted relative error: in ``norm`` if it was given, otherwise in the Frobenius norm.
    errors : ndarray of shape (min(d, k) + 1,)
        Relative errors at ranks 0, 1, ..., which fall from 1 to 0.
    energy : ndarray of shape (min(d, k) + 1,)
        The energy, or share of the squared norm, that ranks 0, 1, ... keep.
    """

    source: str
    shape: tuple[int, int]
    norm: str
    rank: int
    enough: str
    tolerance: float
    errors: Array
    energy: Array

    def figure(self) -> Figure:
        """Draw the errors against the rank, and mark the smallest sufficient rank."""
        from matplotlib.figure import Figure

        from lora_np.plots import rank_error_curves, short_name

        figure = Figure(figsize=(6.4, 4.2), layout="constrained")
        # do not mark an error of zero, because the logarithmic axis cannot show it
        enough = float(self.errors[self.rank]) or None
        ax = rank_error_curves(
            {"rank that is enough": self.errors}, tolerance=enough, ax=figure.add_subplot()
        )
        ax.set_title(
            f"{short_name(self.source, 58)}, {shape_text(self.shape)}", loc="left", fontsize=10
        )
        ax.set_ylabel(f"relative error in the {self.norm} norm")
        ax.set_xlabel(f"rank r, of at most {len(self.errors) - 1:,}")
        return figure

    @property
    def table(self) -> Table:
        """A table of errors at ranks 1, 2, 4, ..., the smallest sufficient rank and full rank."""
        last = len(self.errors) - 1
        ranks = sorted({2**i for i in range(last.bit_length())} | {self.rank, last} - {0})
        full, lines = count_full(*self.shape), []
        for rank in ranks:
            error, energy = float(self.errors[rank]), float(self.energy[rank])
            parameters = count_lora(*self.shape, rank=rank)
            lines.append((rank, error, energy, parameters, 100 * parameters / full))
        columns = ["rank", "relative error", "energy", "parameters", "% of full"]
        title = f"{self.source}, {shape_text(self.shape)}, {self.norm} norm"
        notes = [
            f"rank {self.rank} is the smallest {self.enough}",
            (
                "relative error: ||M - M_r|| / ||M||; energy: the share of the squared Frobenius"
                " norm that M_r keeps; parameters: r (d + k)"
            ),
        ]
        formats = {
            "relative error": "{:.3g}".format,
            "energy": "{:.4%}".format,
            "% of full": "{:.1f}".format,
        }
        return Table(columns, lines, title=title, notes=notes, formats=formats)


def rank_errors_of(
    matrix: ArrayLike | Path,
    *,
    norm: linalg.Norm = "fro",
    energy: float | None = None,
    tolerance: float | None = None,
) -> RankErrors:
    """Compute the best approximation's error at every rank, and the smallest sufficient rank.

    Parameters
    ----------
    matrix : array_like of shape (d, k), str or Path
        The matrix, or its file: ``FILE.npy``, or ``FILE.safetensors:TENSOR``, where only that
        tensor is read.
    norm : {"fro", "spectral", "nuclear"}
        The norm in which errors are measured.
    energy : float, optional
        The share of the squared Frobenius norm to keep, as in `adapters.inspect` and
        `adapters.resize`; 0.99 by default.
    tolerance : float, optional
        Instead, the accepted relative error in ``norm``.

    Returns
    -------
    RankErrors
        The errors of every rank, and the smallest sufficient rank.

    Raises
    ------
    TypeError
        If the matrix does not hold real numbers, or ``energy`` or ``tolerance`` is not a number.
    ValueError
        If it is not a finite matrix, an option is out of range, or both ``energy`` and
        ``tolerance`` are given.
    OSError
        If the file cannot be read.

    See Also
    --------
    lora_np.linalg.rank_within : Find the smallest rank within a tolerance.

    Examples
    --------
    >>> M = np.diag([1.0, 0.1, 0.001])
    >>> rank_errors_of(M).rank, rank_errors_of(M, tolerance=0.01).rank
    (1, 2)
    """
    if energy is not None and tolerance is not None:
        refuse(f"give one of energy and tolerance, got energy {energy} and tolerance {tolerance}")
    share = linalg.ENOUGH if energy is None else energy
    share = number("energy", share, maximum=1, open_minimum=True)
    if tolerance is not None:
        tolerance = number("tolerance", tolerance, maximum=1)
    if isinstance(matrix, (str, Path)):
        source = str(matrix)
        M = load_matrix(source)
    else:
        source, M = "a matrix", checked_matrix("matrix", matrix)
    errors = linalg.rank_errors(M, norm=norm, relative=True)
    frobenius = errors if norm == "fro" else linalg.rank_errors(M, relative=True)
    if tolerance is not None:
        curve = errors
        enough = f"with an error of at most {tolerance:g} in the {norm} norm"
    else:
        curve, tolerance = frobenius, (1 - share) ** 0.5
        which = "" if norm == "fro" else " in the Frobenius norm"
        error = f"an error of at most {tolerance:.3g}{which}"
        enough = f"that keeps {share:.6g} of the squared norm ({error})"
    rank = linalg.rank_within(curve, tolerance=tolerance)
    return RankErrors(
        source, M.shape, norm, rank, enough, tolerance, errors, 1 - np.square(frobenius)
    )
