"""Material for readers: the lessons, their sliders, and the tour."""

from lora_np.lazy import on_demand

with on_demand(globals()):
    from lora_np.course.guided_tour import StepTime as StepTime, Tour as Tour, Update as Update, tour as tour
    from lora_np.course.live_figure import live as live
    from lora_np.course.notebooks import (
        copy_lessons as copy_lessons,
        lessons as lessons,
        open_lab as open_lab,
    )
    from lora_np.course.runs import adaptation_runs as adaptation_runs, claims as claims
    from lora_np.course.voice import Voice as Voice
    from lora_np.course.widgets import sliders as sliders
