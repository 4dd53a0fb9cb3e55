"""Rank, decompositions, the best low-rank approximation, and what subspaces say."""

from lora_np.linalg.decompositions import lu, qr, qr_pivoted, svd
from lora_np.linalg.lowrank import (
    ENOUGH,
    Norm,
    low_rank_factors,
    rank_errors,
    rank_for_energy,
    rank_for_error,
    rank_within,
    svd_of_product,
    truncated_svd,
)
from lora_np.linalg.rank import (
    column_space,
    effective_rank,
    energy,
    independent_columns,
    matrix_rank,
    row_echelon,
    stable_rank,
)
from lora_np.linalg.regression import optimal_losses, reduced_rank_regression
from lora_np.linalg.spectrum import SVD
from lora_np.linalg.subspaces import (
    amplification_factor,
    intruder_dimensions,
    principal_angles,
    similarity_grid,
    subspace_similarity,
)

__all__ = [
    "ENOUGH",
    "SVD",
    "Norm",
    "amplification_factor",
    "column_space",
    "effective_rank",
    "energy",
    "independent_columns",
    "intruder_dimensions",
    "low_rank_factors",
    "lu",
    "matrix_rank",
    "optimal_losses",
    "principal_angles",
    "qr",
    "qr_pivoted",
    "rank_errors",
    "rank_for_energy",
    "rank_for_error",
    "rank_within",
    "reduced_rank_regression",
    "row_echelon",
    "similarity_grid",
    "stable_rank",
    "subspace_similarity",
    "svd",
    "svd_of_product",
    "truncated_svd",
]
