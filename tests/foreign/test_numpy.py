"""NumPy's own tests, with Tensors in the place of float arrays in every call of a function with a
derivative.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.drawing import FULL

pytestmark = pytest.mark.foreign
HERE = Path(__file__).parent
ROOT = HERE.parents[1]

# The files that call what the tables know, and not those about dtypes, printing, files and memory.
FILES = {
    "_core": [
        "shape_base", "numeric", "umath", "einsum", "item_selection", "multiarray", "function_base", "half", "indexing",
        "ufunc", "regression",
    ],
    "lib": [
        "shape_base", "function_base", "arraypad", "twodim_base", "index_tricks", "stride_tricks", "ufunclike", "type_check",
    ],
    "linalg": ["linalg", "regression"],
}  # fmt: skip

# How a call may be refused: with Tensors, these say what they do not do, by the name of function or
# argument.
REFUSALS = {
    "writes into an array": r"writing into an array",
    "an argument that the derivative does not cover": r"the derivative does not cover",
    "a mode, or a choice of result, without a derivative":
        r"np\.pad has no derivative for mode|np\.linalg\.norm has a derivative for the root",
    "subscripts of an Einstein sum in lists": r"np\.einsum has a derivative for subscripts in a string",
    "an array made of Tensors": r"a Tensor converted to an ndarray",
}  # fmt: skip


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("numpy")
    package = Path(np.__file__).parent
    files = [
        package / part / "tests" / f"test_{name}.py"
        for part, names in FILES.items()
        for name in names
    ]
    missing = [str(file) for file in files if not file.exists()]
    assert not missing, f"this NumPy has no {missing}"
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "ignore", "-p", "numpy_through_tensors", "-p", "no:cacheprovider",
         "-m", "not slow", "-c", "/dev/null", "--rootdir", str(package), "--tb=no", *map(str, files)],
        cwd=folder, env={"PYTHONPATH": f"{HERE}:{ROOT}", "PATH": "", "OPENBLAS_NUM_THREADS": "1",
                         "NUMPY_THROUGH_TENSORS": str(folder / "report.json"),
                         "LORA_NP_FULL": os.environ.get("LORA_NP_FULL", "")},
        capture_output=True, text=True, timeout=5_400, check=False,
    )  # fmt: skip
    assert (folder / "report.json").exists(), run.stdout[-3000:] + run.stderr[-3000:]
    print(run.stdout[-300:])
    return json.loads((folder / "report.json").read_text())


def test_no_wrong_value_or_gradient_in_calls_that_numpys_tests_make(report):
    assert not report["wrong"], "\n".join(report["wrong"][:20])
    tally = report["tally"]
    print(tally)
    assert tally["calls"] == sum(count for outcome, count in tally.items() if outcome != "calls")
    assert tally["equal: gradient too"] > 4300
    assert tally["equal: value, shape, dtype"] > 4000
    assert sum(count > 0 for count in report["functions"].values()) > 70


def test_each_refusal_has_its_reason(report, on_page):
    counts = dict.fromkeys(REFUSALS, 0)
    for text, count in report["refused"].items():
        reasons = [reason for reason, pattern in REFUSALS.items() if re.search(pattern, text)]
        assert len(reasons) == 1, f"{count} calls are refused for another reason: {text}"
        counts[reasons[0]] += count
    assert all(counts.values())
    if not FULL:
        tally = report["tally"]
        rows = {
            "repeated with Tensors": tally["calls"],
            "value, shape and dtype equal, gradients equal to a central difference": tally["equal: gradient too"],
            "value, shape and dtype equal, gradients of the right shape and dtype": tally["equal: value, shape, dtype"],
            **{f"rejected: {reason}": count for reason, count in counts.items()},
            "wrong": tally.get("wrong", 0),
        }  # fmt: skip
        on_page("NumPy", np.__version__, "calls", rows)
