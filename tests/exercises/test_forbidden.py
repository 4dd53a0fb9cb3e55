"""What an exercise forbids is refused by whatever way it is reached, compiled code and threads included."""

import importlib
import sys
import threading

import numpy as np
import pytest

from lora_np.exercises import QUESTIONS, check, exercise, reading
from lora_np.exercises.forbidden import forbidden
from tests.exercises.test_exercises import function_of, outcome

RIGHT = "    return U[:, :r]\n"
BYPASSES = {
    "lapack": "import scipy.linalg.lapack\ndef top_directions(M, r):\n"
    "    U, s, Vh, info = scipy.linalg.lapack.dgesdd(M)\n",
    "lapack by another name": "from scipy.linalg.lapack import dgesdd as mine\ndef top_directions(M, r):\n"
    "    U, s, Vh, info = mine(M)\n",
    "lapack, imported inside": "def top_directions(M, r):\n    from scipy.linalg.lapack import dgesdd\n"
    "    U, s, Vh, info = dgesdd(M)\n",
    "lapack, in a list": "from scipy.linalg import lapack\nheld = {'it': [lapack.dgesvd]}\n"
    "def top_directions(M, r):\n    U, s, Vh, info = held['it'][0](M)\n",
    "lapack, as a default": "from scipy.linalg import lapack\ndef top_directions(M, r, f=lapack.dgesvd):\n"
    "    U, s, Vh, info = f(M)\n",
    "lapack, through map": "from scipy.linalg import lapack\ndef top_directions(M, r):\n"
    "    U, s, Vh, info = next(map(lapack.dgesdd, [M]))\n",
    "lapack, through partial": "from functools import partial\nfrom scipy.linalg import lapack\n"
    "svd = partial(lapack.dgesdd, full_matrices=0)\ndef top_directions(M, r):\n    U, s, Vh, info = svd(M)\n",
    "lapack, in a closure": "from scipy.linalg import lapack\ndef outer(f):\n    def top_directions(M, r):\n"
    "        U, s, Vh, info = f(M)\n        return U[:, :r]\n    return top_directions\n"
    "top_directions = outer(lapack.dgesdd)\n#",
    "lapack, in an object": "from scipy.linalg import lapack\nclass Mine:\n    def __init__(self): self.f = lapack.dgesdd\n"
    "mine = Mine()\ndef top_directions(M, r):\n    U, s, Vh, info = mine.f(M)\n",
    "get_lapack_funcs": "import scipy.linalg\ndef top_directions(M, r):\n"
    "    U, s, Vh, info = scipy.linalg.get_lapack_funcs('gesdd', (M,))(M)\n",
    "_flapack": "def top_directions(M, r):\n    import importlib\n"
    "    U, s, Vh, info = importlib.import_module('scipy.linalg._flapack').dgesdd(M)\n",
    "eigenvectors by lapack": "from scipy.linalg import lapack\ndef top_directions(M, r):\n"
    "    w, V, info = lapack.dsyev(M @ M.T)\n    U = V[:, ::-1]\n",
    "interpolative": "def top_directions(M, r):\n    from scipy.linalg import interpolative\n"
    "    U, s, V = interpolative.svd(M, min(M.shape), rand=False)\n",
    "the ufunc": "def top_directions(M, r):\n    made = np.linalg._umath_linalg\n"
    "    U, s, Vh = getattr(made, 'svd', getattr(made, 'svd_n_f', None))(M)\n",  # of new NumPy, or old
    "the ufunc by another name": "made = np.linalg._umath_linalg\nmine = getattr(made, 'svd', getattr(made, 'svd_n_f', None))\n"
    "def top_directions(M, r):\n    U, s, Vh = mine(M)\n",
    "numpy by another name": "mine = np.linalg.svd\ndef top_directions(M, r):\n    U, s, Vh = mine(M)\n",
    "numpy, unwrapped": "def top_directions(M, r):\n    U, s, Vh = np.linalg.svd.__wrapped__(M)\n",
    "numpy, in a pool": "from concurrent.futures import ThreadPoolExecutor\ndef top_directions(M, r):\n"
    "    with ThreadPoolExecutor() as pool: U, s, Vh = pool.submit(np.linalg.svd, M).result()\n",
    "numpy, in a pool from before": "from concurrent.futures import ThreadPoolExecutor\npool = ThreadPoolExecutor(1)\n"
    "pool.submit(int).result()\ndef top_directions(M, r):\n"
    "    U, s, Vh = pool.submit(np.linalg.svd, M).result()\n",
    "scipy, in a pool": "from concurrent.futures import ThreadPoolExecutor\nimport scipy.linalg\n"
    "def top_directions(M, r):\n"
    "    with ThreadPoolExecutor() as pool: U, s, Vh = pool.submit(scipy.linalg.svd, M).result()\n",
    "scipy, in a pool from before": "from concurrent.futures import ThreadPoolExecutor\nimport scipy.linalg\n"
    "pool = ThreadPoolExecutor(1)\npool.submit(int).result()\ndef top_directions(M, r):\n"
    "    U, s, Vh = pool.submit(scipy.linalg.svd, M).result()\n",
    "scipy, in a thread from before": "import queue, threading\nimport scipy.linalg\nquestions, answers = queue.Queue(), queue.Queue()\n"
    "def work():\n    while True: answers.put(scipy.linalg.svd(questions.get()))\n"
    "threading.Thread(target=work, daemon=True).start()\ndef top_directions(M, r):\n    questions.put(M)\n"
    "    U, s, Vh = answers.get(timeout=5)\n",
    "numpy, in a thread": "import threading\ndef top_directions(M, r):\n    found = []\n"
    "    thread = threading.Thread(target=lambda: found.append(np.linalg.svd(M)))\n    thread.start()\n"
    "    thread.join()\n    U, s, Vh = found[0]\n",
    "numpy, in a bare thread": "import _thread\ndef top_directions(M, r):\n    found = []\n"
    "    _thread.start_new_thread(lambda: found.append(np.linalg.svd(M)), ())\n"
    "    while not found: pass\n    U, s, Vh = found[0]\n",
    "ctypes": "import ctypes\ndef top_directions(M, r):\n    ctypes.CDLL(None)\n    U = np.eye(len(M))\n",
    "ctypes, from before": "import ctypes\nlibrary = ctypes.CDLL(None)\ndef top_directions(M, r):\n"
    "    library.getpid\n    U = np.eye(len(M))\n",
    "the exception is swallowed": "from scipy.linalg import lapack\ndef top_directions(M, r):\n"
    "    try: U, s, Vh, info = lapack.dgesdd(M)\n    except BaseException: U = np.eye(len(M))\n",
}  # fmt: skip
THREADS = sys.platform != "emscripten"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("way", BYPASSES)
def test_a_bypass_is_refused(way):
    source = BYPASSES[way] + RIGHT
    if "scipy" in source:
        pytest.importorskip("scipy")
    if not THREADS and ("thread" in source.lower() or "ctypes" in source):
        pytest.skip("no threads here")
    result = outcome(exercise("top_directions"), source, QUESTIONS, smallest=False)
    assert result.points == 0, way
    assert all("is not allowed in this exercise" in verdict.message for verdict in result.verdicts), result


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("svd_by_eigenvectors", "(M):\n    return lapack.dgesdd(M, full_matrices=0)[:3]\n"),
        ("rank_by_elimination", "(M):\n    return int((lapack.dgesdd(M)[1] > 1e-10).sum())\n"),
        ("gram_schmidt", "(M):\n    qr, tau, *_ = lapack.dgeqrf(M)\n    return lapack.dorgqr(qr, tau)[0]\n"),
        (
            "gram_schmidt",
            "(M):\n    return np.linalg.lapack_lite.dgeqrf(*M.shape, M, 1, M[0], M[0], -1, 0)\n",
        ),
    ],
)
def test_lapack_earns_nothing_elsewhere(name, body):
    pytest.importorskip("scipy")
    source = f"from scipy.linalg import lapack\nimport numpy.linalg.lapack_lite\ndef {name}{body}"
    result = outcome(exercise(name), source, QUESTIONS, smallest=False)
    assert result.points == 0
    assert "lapack" in result.message
    assert "is not allowed in this exercise" in result.message


def test_what_is_allowed_may_use_compiled_functions():
    """A library's own calls, products of BLAS, and threads that do nothing forbidden."""
    lapack = pytest.importorskip("scipy.linalg.lapack")
    import scipy.linalg

    def allowed(M):
        threads = [threading.Thread(target=np.linalg.qr, args=(M,))] if THREADS else []
        for thread in threads:
            thread.start()
            thread.join()
        return (
            scipy.linalg.solve(M, scipy.linalg.lu(M)[1]),
            np.linalg.inv(M),
            scipy.linalg.blas.dgemm(1.0, M, M),
        )

    with forbidden(["SVD"], allowed):
        assert allowed(2 * np.eye(2))[1][0, 0] == 0.5
    assert lapack.dgesdd(np.eye(2))[3] == 0
    assert np.linalg._umath_linalg.svd.nin == 1


def test_compiled_functions_come_back():
    check(function_of("def gram_schmidt(M):\n    return np.linalg.qr(M)[0]\n", "gram_schmidt"))
    assert isinstance(importlib.import_module("numpy.linalg._umath_linalg").qr_reduced, np.ufunc)


@pytest.mark.parametrize("rule", ["saving", "log_softmax", "lora_np.lowrank", "SVDs"])
def test_an_exercise_that_forbids_nothing_is_not_read(rule, tmp_path, monkeypatch):
    text = (reading.DATA / "cut.md").read_text(encoding="utf-8")
    (tmp_path / "cut.md").write_text(text.replace('"energy"', f'"{rule}"'), encoding="utf-8")
    monkeypatch.setattr(reading, "DATA", tmp_path)
    with pytest.raises(ValueError, match=f"cut.md forbids '{rule}', which is no family"):
        reading.read("cut")
