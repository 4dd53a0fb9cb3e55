"""Grade submissions in an unprivileged process, and write feedback and courses for nbgrader."""

from lora_np.lazy import on_demand

with on_demand(globals()):
    from lora_np.grading.assignments import nbgrader as nbgrader
    from lora_np.grading.classroom import (
        Grades as Grades,
        check_out as check_out,
        grade as grade,
    )
    from lora_np.grading.confine import Limits as Limits
    from lora_np.grading.submissions import (
        Report as Report,
        check_file as check_file,
        check_puzzles as check_puzzles,
    )
