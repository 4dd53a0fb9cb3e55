"""What a run is: another activation, loss or helper is another run, whichever way the code is
reached.
"""

import dataclasses
import importlib
import subprocess
import sys
import threading

import numpy as np
import pytest

import lora_np as lnp
from lora_np.nn import Linear, Sequential
from lora_np.training.checkpoint import CheckpointError, UnknownIdentityError, describe

WAYS = {  # files, by name, in which X stands for one function or the other
    "a method": """
@dataclass(frozen=True)
class Act:
    def __call__(self, x, *, rng=None):
        return X(x)
thing = Act()
""",
    "a method of a base": """
class Base:
    def __call__(self, x, *, rng=None):
        return X(x)
@dataclass(frozen=True)
class Act(Base):
    pass
thing = Act()
""",
    "a method that is called": """
@dataclass(frozen=True)
class Act:
    def __call__(self, x, *, rng=None):
        return self.inner(x)
    @staticmethod
    def inner(x):
        return X(x)
thing = Act()
""",
    "a property": """
@dataclass(frozen=True)
class Act:
    @property
    def inner(self):
        return X
    def __call__(self, x, *, rng=None):
        return self.inner(x)
thing = Act()
""",
    "a value of the class": """
@dataclass(frozen=True)
class Act:
    inner = staticmethod(X)
    def __call__(self, x, *, rng=None):
        return self.inner(x)
thing = Act()
""",
    "a call of the class": """
@dataclass(frozen=True)
class Act:
    __call__ = X
thing = Act()
""",
    "a class that a function makes": """
class Act:
    def __init__(self):
        self.inner = X
def thing(x, *, rng=None):
    return Act().inner(x)
""",
    "a cached function": """
@functools.cache
def inner():
    return X
def thing(x, *, rng=None):
    return inner()(x)
""",
    "a module": """
import one_helpers
def thing(x, *, rng=None):
    return one_helpers.act(x)
""",
    "a module under another name": """
import one_helpers as h
def thing(x, *, rng=None):
    return h.act(x)
""",
    "a module by a text": """
import one_helpers as h
def thing(x, *, rng=None):
    return getattr(h, "a" + "ct")(x)
""",
    "a module that is imported late": """
def thing(x, *, rng=None):
    import one_helpers
    return one_helpers.act(x)
""",
    "a name that is imported late": """
def thing(x, *, rng=None):
    def inner(x):
        from one_helpers import act
        return act(x)
    return inner(x)
""",
    "a module of a module": """
import one_package
def thing(x, *, rng=None):
    return one_package.more.act(x)
""",
}


@pytest.fixture
def made(tmp_path, monkeypatch):
    """``thing`` of one of the ways, with X as given, as another process would find it."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def make(way, function):
        code = WAYS[way]
        head = "import functools\nfrom dataclasses import dataclass\nimport numpy as np\n"
        head += "def sine(x):\n    return np.sin(3 * x)\n"
        (tmp_path / "one_.py").write_text(head + code.replace("X", function))
        (tmp_path / "one_helpers.py").write_text(f"{head}def act(x):\n    return {function}(x)\n")
        (tmp_path / "one_package").mkdir(exist_ok=True)
        (tmp_path / "one_package" / "__init__.py").write_text("from one_package import more\n")
        (tmp_path / "one_package" / "more.py").write_text(
            f"{head}def act(x):\n    return {function}(x)\n"
        )
        for name in ("one_", "one_helpers", "one_package.more", "one_package"):
            sys.modules.pop(name, None)
        importlib.invalidate_caches()
        return importlib.import_module("one_").thing

    return make


@pytest.mark.parametrize("way", WAYS)
def test_other_code_is_another_thing_and_the_same_is_the_same(made, way):
    first = describe(made(way, "np.tanh"))
    assert describe(made(way, "np.tanh")) == first
    for other in ("np.arctan", "sine"):
        assert describe(made(way, other)) != first


@pytest.mark.parametrize("way", ["a method", "a module"])
def test_a_checkpoint_takes_no_run_for_another(made, way, tmp_path):
    rng = np.random.default_rng(0)
    x, y, W0 = rng.normal(size=(40, 6)), rng.normal(size=(40, 5)), rng.normal(size=(5, 6))

    def run(function):
        model = Sequential([Linear(W0), made(way, function), Linear(np.eye(5))])
        adapted = lnp.inject(model, rank=2, rng=0)
        lnp.fit(
            adapted, x, y, steps=3, progress=False, checkpoint=tmp_path / "run.npz", resume=True
        )

    run("np.tanh")
    run("np.tanh")
    with pytest.raises(CheckpointError, match="model"):
        run("sine")


def test_what_cannot_be_known_is_refused():
    for thing in (
        np.frompyfunc(abs, 1, 1),
        (i for i in "ab"),
        threading.Lock(),
        sys.stdout,
        [lambda x, a=(i for i in "ab").__next__: a()],
    ):
        with pytest.raises(UnknownIdentityError, match="cannot be recognised in another process"):
            describe(thing)


def test_the_versions_of_libraries_stand_for_their_code():
    @dataclasses.dataclass
    class Text:
        def __call__(self, x):
            return pytest.approx(x)

    assert f"pytest {pytest.__version__}" in describe(
        Text()
    ) or f" {pytest.__version__}(" in describe(Text())
    assert describe(np.linalg.norm) == "numpy.linalg.norm"


@pytest.mark.skipif(sys.platform == "emscripten", reason="starts a process")
def test_a_description_is_the_same_in_another_process():
    code = (
        "import functools, numpy as np\n"
        "from dataclasses import dataclass, field\n"
        "from lora_np.training.checkpoint import describe\n"
        "@dataclass(frozen=True, order=True, slots=True)\n"
        "class Act:\n"
        "    p: float = 2.0\n"
        "    q: list = field(default_factory=list)\n"
        "    names = frozenset({'a', 'b', 'c'})\n"
        "    def __call__(self, x, *, rng=None):\n"
        "        return np.tanh(x) if rng in {'a', 'b', 'c'} else super().__call__(x)\n"
        "print(describe([Act(), Act, functools.lru_cache(abs)]))\n"
    )
    said = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        for _ in range(3)
    ]
    assert [process.stderr for process in said] == [""] * 3
    assert len({process.stdout for process in said}) == 1
