"""Make the picture of the README: python docs/figures.py"""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "explorer"))

import card  # noqa: E402

if __name__ == "__main__":
    card.draw().savefig(HERE / "images" / "card.png")
