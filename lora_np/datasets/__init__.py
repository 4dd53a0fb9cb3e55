"""Small real data: a photograph and a terrain map, each with its licence beside it."""

from lora_np.datasets.images import patches, photograph, standardised, terrain

__all__ = ["patches", "photograph", "standardised", "terrain"]
