"""Figures that more than one place uses: functions that take arrays and an optional ``ax=``.

What they are made of is public too: `axes`, `sheet`, `label_line` and the colours, each with its meaning.
"""

from lora_np.plots.adapters import (
    adapter_overview,
    module_kinds,
    short_name,
    update_norms,
    update_ranks,
    update_shares,
)
from lora_np.plots.costs import memory_by_cause, parameters_against_rank
from lora_np.plots.curves import lines, rank_error_curves, singular_spectrum
from lora_np.plots.maps import heatmap
from lora_np.plots.pictures import compression, gallery, grey_png, matrix_tiles, strips
from lora_np.plots.style import (
    ACCENT,
    CYCLE,
    FULL,
    INK,
    LORA,
    MUTED,
    OPTIMUM,
    SKY,
    axes,
    label_ends,
    label_line,
    sheet,
)
from lora_np.plots.training import error_with_spread, training_curve

__all__ = [
    "ACCENT",
    "CYCLE",
    "FULL",
    "INK",
    "LORA",
    "MUTED",
    "OPTIMUM",
    "SKY",
    "adapter_overview",
    "axes",
    "compression",
    "error_with_spread",
    "gallery",
    "grey_png",
    "heatmap",
    "label_ends",
    "label_line",
    "lines",
    "matrix_tiles",
    "memory_by_cause",
    "module_kinds",
    "parameters_against_rank",
    "rank_error_curves",
    "sheet",
    "short_name",
    "singular_spectrum",
    "strips",
    "training_curve",
    "update_norms",
    "update_ranks",
    "update_shares",
]
