"""What an exercise forbids is refused by whatever name it is called, and what it allows is not."""

import gc
import re
import sys
import weakref
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

import lora_np
from lora_np.exercises import SEEDS, exercise, lessons, solution
from lora_np.exercises.forbidden import FAMILIES, Forbidden, Rules, TooMuch, watched
from tests.exercises.test_catalogue import function_of, outcome

RIGHT = "    return U[:, :r]\n"
WAYS = {
    "by another name": "mine = np.linalg.svd\ndef top_directions(M, r):\n    U, s, Vh = mine(M)\n",
    "imported by another name": "from numpy.linalg import svd as mine\ndef top_directions(M, r):\n    U, s, Vh = mine(M)\n",
    "in a list": "held = {'it': [np.linalg.svd]}\ndef top_directions(M, r):\n    U, s, Vh = held['it'][0](M)\n",
    "as a default": "def top_directions(M, r, f=np.linalg.svd):\n    U, s, Vh = f(M)\n",
    "through map": "def top_directions(M, r):\n    U, s, Vh = next(map(np.linalg.svd, [M]))\n",
    "through partial": "from functools import partial\nsvd = partial(np.linalg.svd, full_matrices=False)\n"
    "def top_directions(M, r):\n    U, s, Vh = svd(M)\n",
    "unwrapped": "def top_directions(M, r):\n    U, s, Vh = np.linalg.svd.__wrapped__(M)\n",
    "by another function": "def top_directions(M, r):\n    np.linalg.pinv(M)\n    U = np.eye(len(M))\n",
    "from this package": "def top_directions(M, r):\n    U, s, Vh = lnp.truncated_svd(M, rank=r)\n",
    "from scipy": "import scipy.linalg\ndef top_directions(M, r):\n    U, s, Vh = scipy.linalg.svd(M)\n",
    "the exception is caught": "def top_directions(M, r):\n    try: U, s, Vh = np.linalg.svd(M)\n"
    "    except BaseException: U = np.eye(len(M))\n",
    "the watch is taken away": "import sys\ndef top_directions(M, r):\n    try: np.linalg.svd(M)\n    except Exception: pass\n"
    "    U, s, Vh = np.linalg.svd(M)\n",
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_a_forbidden_function_is_refused(way):
    if "scipy" in WAYS[way]:
        pytest.importorskip("scipy")
    result = outcome(exercise("top_directions"), WAYS[way] + RIGHT, SEEDS, smallest=False)
    assert result.points == 0, way
    assert all(
        "is not allowed in this exercise" in verdict.message for verdict in result.verdicts
    ), result


@pytest.mark.parametrize("library", ["numpy.linalg", "scipy.linalg"])
@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("rank_by_elimination", "int(lstsq(M, np.zeros((len(M), 1)))[2])"),
        (
            "svd_by_eigenvectors",
            "np.eye(*M.shape), lstsq(M, np.zeros((len(M), 1)))[3], np.eye(M.shape[1])",
        ),
    ],
)
def test_what_a_solver_returns_besides_earns_nothing(name, answer, library):
    """Least squares also return the rank and the singular values."""
    pytest.importorskip(library)
    source = f"from {library} import lstsq\ndef {name}(M):\n    return {answer}\n"
    result = outcome(exercise(name), source, SEEDS, smallest=False)
    assert result.points == 0
    assert "lstsq is not allowed in this exercise" in result.message


@pytest.mark.parametrize("family", ["SVD", "ranks", "solvers"])
def test_least_squares_are_of_three_families(family):
    with pytest.raises(Forbidden, match=r"numpy\.linalg\.lstsq is not allowed"):
        watched(np.linalg.lstsq, [np.eye(2), np.ones(2)], Rules([family]))


def test_what_is_allowed_is_called_and_the_watch_ends():
    def allowed(M):
        return np.linalg.inv(M), np.linalg.qr(M)[0]

    before = sys.getprofile(), sys.gettrace()
    assert watched(allowed, [2 * np.eye(2)], Rules(["SVD", "lora_np"]))[0][0, 0] == 0.5
    with pytest.raises(Forbidden, match=r"numpy\.linalg\.qr is not allowed"):
        watched(allowed, [np.eye(2)], Rules(["QR"]))
    assert (sys.getprofile(), sys.gettrace()) == before
    with pytest.raises(ZeroDivisionError):
        watched(lambda: 1 / 0, [], Rules(["SVD"], 10**6, 10**6))
    assert (sys.getprofile(), sys.gettrace()) == before


@pytest.mark.parametrize(
    ("limit", "most", "enough", "words"),
    [
        ("within", 10_000, 90_000, "the call took 80,... bytes of memory; 10,000 are enough"),
        ("steps", 1_000, 100_000, "the call took .* steps of Python; 1,000 are enough"),
    ],
)
def test_what_is_computed_has_a_limit(limit, most, enough, words):
    def computes():
        return sum(i for i in range(1_000)) and len(np.zeros(10_000))

    with pytest.raises(TooMuch, match=words):
        watched(computes, [], Rules(**{limit: most}))
    assert watched(computes, [], Rules(**{limit: enough})) == 10_000


def test_ones_own_function_may_be_called_like_a_forbidden_one():
    source = solution("gram_schmidt").code.replace("def gram_schmidt", "def qr")
    assert outcome(exercise("gram_schmidt"), source + "\ngram_schmidt = qr\n", SEEDS).passed


def test_what_is_forbidden_comes_back():
    exercises = lora_np.exercises
    exercises.check(
        function_of("def gram_schmidt(M):\n    return np.linalg.qr(M)[0]\n", "gram_schmidt")
    )
    assert np.linalg.qr(np.eye(2))[0].shape == (2, 2)


RULES = sorted({rule for lesson in lessons() for one in lesson.exercises for rule in one.forbids})
HOME = Path(lora_np.__file__).parent
SOURCES = "\n".join(
    path.read_text("utf-8") for path in HOME.rglob("*.py") if "exercises" not in path.parts
)


def forbids_something(rule):
    """A family, a package or a function of ours."""
    if rule.partition(".")[0] == "lora_np":
        return find_spec(rule) is not None
    return rule in FAMILIES or re.search(rf"^def {rule}\(", SOURCES, re.MULTILINE) is not None


@pytest.mark.parametrize("rule", RULES)
def test_what_an_exercise_forbids_is_there(rule):
    assert forbids_something(rule)


@pytest.mark.parametrize("rule", ["saving", "log_softmax_", "lora_np.lowrank", "SVDs"])
def test_a_rule_with_a_slip_is_seen(rule):
    assert not forbids_something(rule)


def test_a_generator_that_is_collected_meanwhile_is_no_call():
    """Whoever left it: a collection may begin at any allocation."""
    library = {"__name__": "lora_np.lora"}
    exec("def half_read():\n    try:\n        yield\n    finally:\n        pass\n", library)
    left = [library["half_read"]()]
    next(left[0])
    gone = weakref.ref(left[0])
    left.append(left)  # a cycle, so that only the collector closes it
    kept = [left]
    del left

    def answer():
        kept.clear()
        return len([[] for _ in range(5000)])

    assert watched(answer, (), Rules(["lora_np.lora"])) == 5000
    assert gc.isenabled()
    gc.collect()
    assert gone() is None
