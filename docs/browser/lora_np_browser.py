"""Imported first in the browser, by notebooks and pages: a faster matrix product, and no font cache
to build.

NumPy has no BLAS there. ``product.wat``, which the site's build assembles, multiplies float32
matrices about nine times as fast.
"""

import ctypes
import json
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from lora_np.autograd import kernels, rules

TERMS = 256  # of a sum at a time: so many rows of eight columns stay in the cache
WORTH = 2**13  # multiplications, below which the call costs more than it saves

multiply = ctypes.CDLL(str(Path(__file__).with_name("product.wasm"))).product
multiply.argtypes = [ctypes.c_int] * 11
multiply.restype = None
panel = np.empty(8 * TERMS + 8, np.float32)


def dot(a: Any, b: Any) -> Any:
    """``a @ b`` of two matrices."""
    if not (
        type(a) is type(b) is np.ndarray
        and a.dtype == b.dtype == np.float32
        and a.ndim == b.ndim == 2
    ):
        return a.dot(b)
    (m, k), n = a.shape, b.shape[1]
    if k != len(b) or m < 4 or m * k * n < WORTH:
        return a.dot(b)
    result = np.zeros((m, n), np.float32)
    (a_row, a_column), (b_row, b_column) = a.strides, b.strides
    for start in range(0, k, TERMS):
        multiply(
            a.ctypes.data + start * a_column, a_row, a_column, b.ctypes.data + start * b_row,
            b_row, b_column,
            result.ctypes.data, panel.ctypes.data, m, min(TERMS, k - start), n,
        )  # fmt: skip
    return result


def product(a: Any, b: Any) -> Any:
    if a.ndim <= 2:
        return dot(a, b)
    return dot(a.reshape(-1, a.shape[-1]), b).reshape(*a.shape[:-1], b.shape[1])


def sum_of_outer(g: Any, x: Any) -> Any:
    if g.ndim != 2:
        g, x = g.reshape(-1, g.shape[-1]), x.reshape(-1, x.shape[-1])
    return dot(g.T, x)


def keep_fonts() -> None:
    """Let matplotlib take the list of fonts that it brings there, which is labelled as of another
    version.
    """
    found = find_spec("matplotlib")
    assert found is not None
    assert found.origin is not None
    folder = Path(found.origin).parent
    source = (folder / "font_manager.py").read_text("utf-8")
    version, *_ = re.findall(r"__version__ = (\d+)", source)
    fonts = json.loads((folder / "fontlist.json").read_text("utf-8"))
    (folder / "fontlist.json").write_text(json.dumps(fonts | {"_version": int(version)}), "utf-8")


kernels.product = product
kernels.sum_of_outer = vars(rules)["sum_of_outer"] = sum_of_outer
if find_spec("matplotlib"):  # a page fetches it when something is drawn
    keep_fonts()
