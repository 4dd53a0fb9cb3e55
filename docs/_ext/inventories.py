"""Inventories of NumPy and matplotlib for intersphinx, after their sites' own scheme.

A build can reach package registries but perhaps no other host, so these are made, not downloaded.
"""

import zlib
from collections.abc import Iterator
from pathlib import Path

import matplotlib
import matplotlib.axes
import matplotlib.figure
import numpy as np

Place = tuple[str, str, str]  # name, role, page


def write(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    save(folder / "numpy.inv", "NumPy", np.__version__, numpy_places())
    save(folder / "matplotlib.inv", "Matplotlib", matplotlib.__version__, matplotlib_places())


def numpy_places() -> Iterator[Place]:
    """Each name has a separate page, except those of the random generator."""
    for module in (np, np.linalg):
        for name in module.__all__:
            full = f"{module.__name__}.{name}"
            role = "class" if isinstance(getattr(module, name), type) else "function"
            yield full, role, f"reference/generated/{full}.html"
    yield "numpy.random.Generator", "class", "reference/random/generator.html"


def matplotlib_places() -> Iterator[Place]:
    for kind in (matplotlib.axes.Axes, matplotlib.figure.Figure):
        full = f"matplotlib.{kind.__module__.split('.')[1]}.{kind.__name__}"
        yield full, "class", f"api/_as_gen/{full}.html"


def save(path: Path, project: str, version: str, places: Iterator[Place]) -> None:
    """Sphinx's inventory format, version 2."""
    header = (
        "# Sphinx inventory version 2\n"
        f"# Project: {project}\n"
        f"# Version: {version}\n"
        "# The remainder of this file is compressed using zlib.\n"
    )
    lines = "".join(f"{name} py:{role} 1 {page}#{name} -\n" for name, role, page in places)
    path.write_bytes(header.encode() + zlib.compress(lines.encode()))
