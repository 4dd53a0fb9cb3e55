"""What comes with the package for readers: the lessons, their sliders, and the tour."""

from lora_np.course.moving import live
from lora_np.course.notebooks import copy_lessons, lessons, open_lab
from lora_np.course.runs import adaptation_runs
from lora_np.course.story import StepTime, Tour, Update, tour
from lora_np.course.voice import Voice
from lora_np.course.widgets import sliders

__all__ = [
    "StepTime",
    "Tour",
    "Update",
    "Voice",
    "adaptation_runs",
    "copy_lessons",
    "lessons",
    "live",
    "open_lab",
    "sliders",
    "tour",
]
