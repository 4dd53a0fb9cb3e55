"""Provide the lessons, their sliders and live figures, and the guided tour."""

from lora_np.lazy import on_demand

with on_demand(globals()):
    from lora_np.course.guided_tour import (
        Sample as Sample,
        Tour as Tour,
        Update as Update,
        tour as tour,
    )
    from lora_np.course.notebooks import (
        adaptation_runs as adaptation_runs,
        claims as claims,
        copy_lessons as copy_lessons,
        lessons as lessons,
        open_lab as open_lab,
    )
    from lora_np.course.widgets import live_figure as live_figure, sliders as sliders
