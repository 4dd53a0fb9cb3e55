"""Every figure of the package: functions that take arrays and an optional ``ax=`` and return the axes."""

from lora_np.plots.counting import budget_by_kind, memory_by_cause, parameters_against_rank
from lora_np.plots.images import strips
from lora_np.plots.lessons import (
    columns_in_plane,
    factor_areas,
    gallery,
    losses_against_rank,
    matrix_tiles,
    rank_one_errors,
)
from lora_np.plots.lora import error_against_rank
from lora_np.plots.small_files import error_against_bytes, rounding_against_strength
from lora_np.plots.spectra import (
    compression,
    energy_curves,
    rank_error_curves,
    similarity_heatmap,
    singular_spectrum,
)
from lora_np.plots.training import dynamics, error_with_spread, gap_curve, training_curve

__all__ = [
    "budget_by_kind",
    "columns_in_plane",
    "compression",
    "dynamics",
    "energy_curves",
    "error_against_bytes",
    "error_against_rank",
    "error_with_spread",
    "factor_areas",
    "gallery",
    "gap_curve",
    "losses_against_rank",
    "matrix_tiles",
    "memory_by_cause",
    "parameters_against_rank",
    "rank_error_curves",
    "rank_one_errors",
    "rounding_against_strength",
    "similarity_heatmap",
    "singular_spectrum",
    "strips",
    "training_curve",
]
