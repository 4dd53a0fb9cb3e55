"""Load small real data sets: a photograph, a terrain map and handwritten digits, with licences."""

from lora_np.lazy import on_demand

with on_demand(globals()):
    from lora_np.datasets.images import (
        digits as digits,
        patches as patches,
        photograph as photograph,
        standardised as standardised,
        terrain as terrain,
    )
