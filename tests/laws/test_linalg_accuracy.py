"""Every function of linalg keeps the bound that its page states, on two kernels of OpenBLAS."""

import importlib.util
import re
from pathlib import Path

import pytest

pytest.importorskip("mpmath")

from lora_np import linalg
from tests.drawing import SHARE, only_full

SPEC = importlib.util.spec_from_file_location(
    "accuracy", Path(__file__).parents[1] / "linalg" / "accuracy.py"
)
accuracy = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(accuracy)

SEEDS = [
    pytest.param(accuracy.ALL // SHARE, id="a twentieth"),
    pytest.param(accuracy.ALL, marks=[pytest.mark.slow, only_full]),
]


@pytest.mark.parametrize("seeds", SEEDS)
@pytest.mark.parametrize("kernel", accuracy.KERNELS)
def test_errors_stay_below_their_bounds(kernel, seeds):
    found = accuracy.with_kernel(kernel, seeds)
    broken = {
        name: (error, f"seed {seed}")
        for name, (error, seed) in found.items()
        if error > accuracy.BOUNDS[name][1]
    }
    assert not broken


def test_every_function_has_a_bound():
    functions = {name for name in linalg.__all__ if callable(getattr(linalg, name))}
    of_low_rank_factors = {"qr_pivoted"}
    assert functions - {"SVD", "Norm", "rank_within"} == {*accuracy.BOUNDS} - of_low_rank_factors


def test_the_page_states_the_bounds():
    open_table = re.escape(accuracy.table()).replace(re.escape("([^|]*)"), "[^|]+")
    assert re.search(open_table, accuracy.PAGE.read_text(encoding="utf-8")), (
        "python tests/linalg/accuracy.py --write"
    )
