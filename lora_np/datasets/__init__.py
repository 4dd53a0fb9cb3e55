"""Small real data: a photograph, a terrain map and handwritten digits, with their licences beside them."""

from lora_np.datasets.digits import digits
from lora_np.datasets.images import patches, photograph, standardised, terrain

__all__ = ["digits", "patches", "photograph", "standardised", "terrain"]
