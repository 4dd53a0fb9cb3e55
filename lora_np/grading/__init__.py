"""What teachers run: submissions in a process without rights, grades, feedback, and courses for nbgrader."""

from lora_np.grading.assignments import nbgrader
from lora_np.grading.classroom import Grades, check_out, grade
from lora_np.grading.confine import Limits
from lora_np.grading.repository import Attempt, alternative, attempts, mistake
from lora_np.grading.submissions import Report, check_file

__all__ = [
    "Attempt",
    "Grades",
    "Limits",
    "Report",
    "alternative",
    "attempts",
    "check_file",
    "check_out",
    "grade",
    "mistake",
    "nbgrader",
]
