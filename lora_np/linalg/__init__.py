"""Rank, decompositions, the best low-rank approximation, and what subspaces say."""

from lora_np.linalg.lowrank import (
    low_rank_factors,
    rank_errors,
    rank_for_energy,
    rank_for_error,
    svd_of_product,
    truncated_svd,
)
from lora_np.linalg.rank import (
    column_space,
    effective_rank,
    energy,
    independent_columns,
    matrix_rank,
    null_space,
    row_echelon,
    stable_rank,
)
from lora_np.linalg.regression import optimal_losses, reduced_rank_regression

__all__ = [
    "column_space",
    "effective_rank",
    "energy",
    "independent_columns",
    "low_rank_factors",
    "matrix_rank",
    "null_space",
    "optimal_losses",
    "rank_errors",
    "rank_for_energy",
    "rank_for_error",
    "reduced_rank_regression",
    "row_echelon",
    "stable_rank",
    "svd_of_product",
    "truncated_svd",
]
