"""What comes with the package for readers: the lessons, sliders for notebooks, and the tour."""

from lora_np.course.notebooks import Copied, copy_lessons, lessons, open_lab
from lora_np.course.story import StepTime, Tour, Update, tour
from lora_np.course.widgets import picture_slider, rank_slider, training_sliders

__all__ = [
    "Copied",
    "StepTime",
    "Tour",
    "Update",
    "copy_lessons",
    "lessons",
    "open_lab",
    "picture_slider",
    "rank_slider",
    "tour",
    "training_sliders",
]
