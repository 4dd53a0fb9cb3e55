"""How well a matrix of each rank approximates a given one, and what it costs."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np

from lora_np import linalg
from lora_np.accounting.matrix import count_full, count_lora
from lora_np.checks import Array, number
from lora_np.hub import load_matrix
from lora_np.table import Table, shape_text


@dataclass(frozen=True)
class RankErrors:
    """The relative errors of the best approximations of one matrix; made by `rank_errors_of`.

    Parameters
    ----------
    source : str
        Where the matrix was read.
    shape : tuple of int
        Its rows and columns.
    norm : str
        The norm that errors are measured in.
    tolerance : float
        The error that is good enough.
    errors : ndarray of shape (min(d, k) + 1,)
        Relative errors of ranks 0, 1, ..., from 1 to 0.
    """

    source: str
    shape: tuple[int, int]
    norm: str
    tolerance: float
    errors: Array  # (min(d, k) + 1,), from 1 to 0

    @property
    def rank(self) -> int:
        """The smallest rank whose error is within the tolerance."""
        return int(np.argmax(self.errors <= self.tolerance))

    def to_json(self) -> str:
        """Everything, for programs."""
        values = {**vars(self), "rank": self.rank, "errors": self.errors.tolist()}
        return json.dumps(values, indent=2)

    @property
    def table(self) -> Table:
        """Ranks 1, 2, 4, ..., the one that is enough, and the full one."""
        last = len(self.errors) - 1
        ranks = sorted({2**i for i in range(last.bit_length())} | {self.rank, last} - {0})
        costs = [count_lora(*self.shape, rank=rank) for rank in ranks]
        full = count_full(*self.shape)
        return Table(
            ["rank", "relative error", "numbers", "share of all"],
            [
                (rank, float(self.errors[rank]), cost, cost / full)
                for rank, cost in zip(ranks, costs, strict=True)
            ],
            title=f"{self.source}, {shape_text(self.shape)}, {self.norm} norm",
            notes=[f"rank {self.rank} is the smallest with an error of at most {self.tolerance:g}"],
            formats={"relative error": "{:.3g}".format, "share of all": "{:.1%}".format},
        )


def rank_errors_of(source: str, *, norm: linalg.Norm = "fro", tolerance: float = 0.01) -> RankErrors:
    """The error curve of the matrix in a file.

    Parameters
    ----------
    source : str
        ``FILE.npy`` or ``FILE.safetensors:TENSOR``, of which only that tensor is read.
    norm : {"fro", "spectral", "nuclear"}
        Which norm.
    tolerance : float
        Between 0 and 1.

    Returns
    -------
    RankErrors
        The errors of every rank, and the smallest rank that is good enough.

    Raises
    ------
    TypeError
        If the file does not hold real numbers, or ``tolerance`` is not a number.
    ValueError
        If the file does not hold a finite matrix, or ``norm`` or ``tolerance`` is out of range.
    OSError
        If the file cannot be read.

    Examples
    --------
    >>> import tempfile
    >>> path = f"{tempfile.mkdtemp()}/M.npy"
    >>> np.save(path, np.diag([1.0, 0.1, 0.001]))
    >>> rank_errors_of(path).rank
    2
    """
    tolerance = number("tolerance", tolerance, minimum=0, maximum=1)
    M = load_matrix(source)
    errors = linalg.rank_errors(M, norm=norm, relative=True)
    return RankErrors(source, (M.shape[0], M.shape[1]), norm, tolerance, errors)
