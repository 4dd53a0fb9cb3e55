"""Make lora_np/quantise/data/grids.npz, the grids of the IQ kinds: `python -m recipes.grids` (needs
gguf).
"""

from pathlib import Path

import numpy as np
from gguf import quants

KINDS = {
    "IQ1": "IQ1_S",
    "IQ2_XXS": "IQ2_XXS",
    "IQ2_XS": "IQ2_XS",
    "IQ2_S": "IQ2_S",
    "IQ3_XXS": "IQ3_XXS",
    "IQ3_S": "IQ3_S",
}
PATH = Path(__file__).parents[1] / "lora_np" / "quantise" / "data" / "grids.npz"


def grids():
    """The vectors of each kind, int8 of shape (number of codes, 4 or 8)."""
    found = {}
    for name, kind in KINDS.items():
        described = getattr(quants, kind)
        described.init_grid()
        found[name] = described.grid.reshape(described.grid_shape).astype(np.int8)
    return found


if __name__ == "__main__":
    np.savez_compressed(PATH, **grids())
