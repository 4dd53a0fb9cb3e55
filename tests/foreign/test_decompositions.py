"""SciPy's and scikit-learn's own tests, with answers of this package's decompositions."""

import collections
import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.foreign
HERE = Path(__file__).parent
ROOT = HERE.parents[1]
#: Which of their tests, as pytest's ``-k`` takes it.
CHOSEN = {
    "scipy": "(svd or qr or decomp_lu or orth or angles or polar or procrustes or interpolative) and not nofegfault",
    "sklearn": "not (array_api or sparse or solver_auto)",
}

FILES = {
    "scipy": [
        "linalg/tests/test_decomp.py", "linalg/tests/test_decomp_lu.py", "linalg/tests/test_decomp_polar.py",
        "linalg/tests/test_interpolative.py", "linalg/tests/test_procrustes.py", "sparse/linalg/_eigen/tests/test_svds.py",
    ],
    "sklearn": [
        "datasets/tests/test_samples_generator.py", "decomposition/tests/test_incremental_pca.py", "decomposition/tests/test_pca.py",
        "decomposition/tests/test_truncated_svd.py", "utils/tests/test_extmath.py",
    ],
}  # fmt: skip

# What has answered at least once.
FUNCTIONS = {
    "scipy": {"estimate_rank", "lu", "orth", "qr", "subspace_angles", "svd", "svds", "svdvals"},
    "sklearn": {"_randomized_svd", "randomized_svd", "svd"},
}
NAMES = {"scipy": "SciPy", "sklearn": "scikit-learn"}

# Why a test may fail that has got an answer of ours, and which do.
OUT_OF_SCOPE = {
    "scipy": {
        "LAPACK's signs, or its choice among the factors of a zero matrix":
            r"TestQR::test_(simple|random)(_fat)?_(left|right)|TestOrthogonalProcrustes::test_empty|test_precomputed_cases",
        "a random start that shows in the result": r"Test_SVDS_ARPACK::test_svd_rng",
    },
    "sklearn": {
        "a test that too few iterations give a wrong answer, where ours is right":
            r"test_randomized_svd_(low_rank_with_noise|infinite_rank|power_iteration_normalizer)",
    },
}  # fmt: skip


@pytest.mark.parametrize("suite", FILES)
def test_of_others_pass_with_our_decompositions(suite, tmp_path, on_page):
    package = importlib.import_module(suite)
    folder = Path(package.__file__).parent
    files = [folder / name for name in FILES[suite]]
    missing = [str(file) for file in files if not file.exists()]
    assert not missing, f"this {suite} has no {missing}"
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "ignore", "-p", "with_our_decompositions", "-p", "no:cacheprovider",
         "-m", "not slow", "-k", CHOSEN[suite], "-c", "/dev/null", "--rootdir", str(folder), "--tb=short", *map(str, files)],
        cwd=tmp_path, env={"PYTHONPATH": f"{HERE}:{ROOT}", "PATH": "", "OPENBLAS_NUM_THREADS": "1",
                           "FOREIGN_SUITE": suite, "FOREIGN_REPORT": str(tmp_path / "report.json")},
        capture_output=True, text=True, timeout=5_400, check=False,
    )  # fmt: skip
    assert (tmp_path / "report.json").exists(), run.stdout[-3000:] + run.stderr[-3000:]
    tests = json.loads((tmp_path / "report.json").read_text())
    passed, failed, beyond = 0, dict.fromkeys(OUT_OF_SCOPE[suite], 0), collections.Counter()
    for name, seen in tests.items():
        if not seen["ours"]:
            beyond[seen["beyond"][0]] += 1
        elif "failed" not in seen["outcome"]:
            passed += 1
        else:
            reasons = [
                why for why, pattern in OUT_OF_SCOPE[suite].items() if re.search(pattern, name)
            ]
            assert len(reasons) == 1, f"{name} fails\n{run.stdout[-6000:]}"
            failed[reasons[0]] += 1
    functions = {name for seen in tests.values() for name in seen["ours"]}
    assert functions >= FUNCTIONS[suite]
    rows = {"pass": passed}
    rows |= {f"fail: {why}": count for why, count in failed.items()}
    rows |= {f"out of scope: {why}": beyond[why] for why in sorted(beyond)}
    on_page(NAMES[suite], package.__version__, "tests", rows)
