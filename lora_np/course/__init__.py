"""What comes with the package for readers: the lessons, their figures and sliders, and the tour."""

from lora_np.course.figures import (
    columns_in_plane,
    columns_on_line,
    error_against_rank,
    factor_areas,
    loss_map,
    memory_by_cause,
    old_and_new,
    rank_one_errors,
    similarity_heatmap,
)
from lora_np.course.graphs import computation_graph
from lora_np.course.notebooks import Copied, copy_lessons, lessons, open_lab
from lora_np.course.story import StepTime, Tour, Update, tour
from lora_np.course.widgets import picture_slider, rank_slider, training_sliders

__all__ = [
    "Copied",
    "StepTime",
    "Tour",
    "Update",
    "columns_in_plane",
    "columns_on_line",
    "computation_graph",
    "copy_lessons",
    "error_against_rank",
    "factor_areas",
    "lessons",
    "loss_map",
    "memory_by_cause",
    "old_and_new",
    "open_lab",
    "picture_slider",
    "rank_one_errors",
    "rank_slider",
    "similarity_heatmap",
    "tour",
    "training_sliders",
]
