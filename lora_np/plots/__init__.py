"""Draw the figures that several subpackages share, from plain arrays.

Their building blocks are public too: `axes`, `label_line` and the colours, each with its
meaning.
"""

from lora_np.lazy import on_demand

with on_demand(globals()):
    from lora_np.plots.adapters import (
        adapter_overview as adapter_overview,
        short_name as short_name,
    )
    from lora_np.plots.curves import (
        lines as lines,
        rank_error_curves as rank_error_curves,
        singular_spectrum as singular_spectrum,
    )
    from lora_np.plots.pictures import (
        gallery as gallery,
        heatmap as heatmap,
        image_approximations as image_approximations,
        matrix_tiles as matrix_tiles,
    )
    from lora_np.plots.style import (
        ACCENT as ACCENT,
        CYCLE as CYCLE,
        FULL as FULL,
        INK as INK,
        LORA as LORA,
        MUTED as MUTED,
        SKY as SKY,
        axes as axes,
        label_line as label_line,
    )
