"""Small real data: a photograph, a terrain map and handwritten digits, with their licences."""

from lora_np.datasets.images import digits, patches, photograph, standardised, terrain

__all__ = ["digits", "patches", "photograph", "standardised", "terrain"]
