"""Every figure of the package: functions that take arrays and an optional ``ax=`` and return the axes."""

from lora_np.plots.adapters import adapter_overview, update_norms, update_spectra
from lora_np.plots.classroom import class_results
from lora_np.plots.counting import budget_by_kind, memory_by_cause, parameters_against_rank
from lora_np.plots.forgetting import old_and_new
from lora_np.plots.graph import computation_graph
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
from lora_np.plots.projections import columns_on_line
from lora_np.plots.rates import errors_against_rate, loss_map
from lora_np.plots.slopes import slope_errors
from lora_np.plots.small_files import error_against_bytes, rounding_against_strength
from lora_np.plots.spectra import (
    compression,
    energy_curves,
    rank_error_curves,
    similarity_heatmap,
    singular_spectrum,
)
from lora_np.plots.subspaces import closest_directions, subspace_angles
from lora_np.plots.training import dynamics, error_with_spread, gap_curve, training_curve

__all__ = [
    "adapter_overview",
    "budget_by_kind",
    "class_results",
    "closest_directions",
    "columns_in_plane",
    "columns_on_line",
    "compression",
    "computation_graph",
    "dynamics",
    "energy_curves",
    "error_against_bytes",
    "error_against_rank",
    "error_with_spread",
    "errors_against_rate",
    "factor_areas",
    "gallery",
    "gap_curve",
    "loss_map",
    "losses_against_rank",
    "matrix_tiles",
    "memory_by_cause",
    "old_and_new",
    "parameters_against_rank",
    "rank_error_curves",
    "rank_one_errors",
    "rounding_against_strength",
    "similarity_heatmap",
    "singular_spectrum",
    "slope_errors",
    "strips",
    "subspace_angles",
    "training_curve",
    "update_norms",
    "update_spectra",
]
