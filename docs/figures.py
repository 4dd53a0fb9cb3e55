"""Make the pictures of the README and the documents: python docs/figures.py"""

from pathlib import Path
from shutil import copy
from tempfile import TemporaryDirectory

from lora_np.course.guided_tour import tour

IMAGES = Path(__file__).parent / "images"

if __name__ == "__main__":
    IMAGES.mkdir(exist_ok=True)
    with TemporaryDirectory() as folder:
        tour(folder)
        copy(Path(folder) / "rank-and-error.png", IMAGES)
