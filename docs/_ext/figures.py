"""Make the picture of the README: python docs/_ext/figures.py"""

import sys
from pathlib import Path

DOCS = Path(__file__).parents[1]
sys.path.insert(0, str(DOCS / "explorer"))

import card  # noqa: E402

if __name__ == "__main__":
    card.draw().savefig(DOCS / "images" / "card.png")
