"""Compute ranks, decompositions, best low-rank approximations, and angles of subspaces."""

from lora_np.lazy import on_demand

with on_demand(globals()):
    from lora_np.linalg.decompositions import (
        lu as lu,
        qr as qr,
        svd as svd,
    )
    from lora_np.linalg.lowrank import (
        ENOUGH as ENOUGH,
        Norm as Norm,
        low_rank_factors as low_rank_factors,
        rank_errors as rank_errors,
        rank_for_energy as rank_for_energy,
        rank_for_error as rank_for_error,
        rank_within as rank_within,
        svd_of_product as svd_of_product,
        truncated_svd as truncated_svd,
    )
    from lora_np.linalg.rank import (
        column_space as column_space,
        effective_rank as effective_rank,
        energy as energy,
        independent_columns as independent_columns,
        matrix_rank as matrix_rank,
        row_echelon as row_echelon,
        stable_rank as stable_rank,
    )
    from lora_np.linalg.regression import (
        optimal_losses as optimal_losses,
        reduced_rank_regression as reduced_rank_regression,
    )
    from lora_np.linalg.spectrum import SVD as SVD
    from lora_np.linalg.subspaces import (
        amplification_factor as amplification_factor,
        intruder_dimensions as intruder_dimensions,
        principal_angles as principal_angles,
        similarity_grid as similarity_grid,
        subspace_similarity as subspace_similarity,
    )
