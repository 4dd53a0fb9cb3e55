"""Matrices are multiplied in the browser, on a Pyodide that the site itself serves, as NumPy does."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

import lora_np as lnp
from lora_np.datasets import photograph

pytestmark = pytest.mark.browser

PRODUCTS = """
import itertools
import numpy as np
import lora_np as lnp
from lora_np.autograd import kernels, rules
import lora_np_browser

rng = np.random.default_rng(0)
faster = 0

def draw(m, n):
    # whole numbers, so that sums are exact, in one of four layouts
    M = rng.integers(-5, 6, size=(m, n)).astype(np.float32)
    M[rng.random(m) < 0.2] = 0
    return [M, np.asfortranarray(M), M[::-1], np.repeat(M, 2, axis=1)[:, ::2]][rng.integers(4)]

def multiply(*arguments):
    global faster
    faster += 1
    native(*arguments)

native, lora_np_browser.multiply = lora_np_browser.multiply, multiply
lora_np_browser.WORTH = 1
sizes = [1, 2, 3, 4, 5, 7, 8, 9, 16, 17, 300]
for m, k, n in itertools.product(sizes, repeat=3):
    a, b = draw(m, k), draw(k, n)
    assert np.array_equal(kernels.product(a, b), np.asarray(a, float) @ b), (m, k, n)
    g = draw(m, n)
    assert np.array_equal(rules.sum_of_outer(g, a), np.asarray(g, float).T @ a), (m, k, n)
x = rng.integers(-5, 6, size=(2, 9, 8)).astype(np.float32)
W = lnp.Tensor(rng.integers(-5, 6, size=(7, 8)).astype(np.float32))
y = lnp.autograd.affine(x, W)
assert np.array_equal(y.data, x.astype(float) @ W.data.T)
faster
"""


@pytest.fixture
def runtime(site):
    if not (site / "_static" / "python" / "pyodide" / "pyodide.js").is_file():
        pytest.skip("the site was built without PYODIDE_DIST, so it has no runtime of its own")


def test_products_in_the_browser_are_those_of_numpy(open_page, site, runtime):
    page = open_page("404.html")
    (wheel,) = (site / "_static" / "python").glob("lora_np-*.whl")
    faster = page.evaluate(
        """async ([wheel, program]) => {
          const { loadPyodide } = await import(new URL("_static/python/pyodide/pyodide.mjs", document.baseURI));
          const pyodide = await loadPyodide({ packages: ["numpy", "matplotlib"] });
          pyodide.unpackArchive(await (await fetch(wheel)).arrayBuffer(), "wheel");
          return pyodide.runPython(program);
        }""",
        [f"_static/python/{wheel.name}", PRODUCTS],
    )
    assert faster > 2_000


def caption(rank):
    error = lnp.rank_errors(photograph(), relative=True)[rank]
    count = lnp.count_lora(*photograph().shape, rank=rank)
    return f"rank {rank}: error {error:.1%}, {count:,} entries"


def cut(rank):
    """Grey levels of the photograph at this rank."""
    B, A = lnp.low_rank_factors(photograph(), rank=rank)
    return 255 * np.clip(B @ A, 0, 1)


def pixels(picture):
    encoded = picture.get_attribute("src").removeprefix("data:image/png;base64,")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded))), dtype=float)
