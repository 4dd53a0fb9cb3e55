"""What a checkpoint takes for the same run: nothing that computes otherwise, as far as it looks."""

import dataclasses
import functools
import os
import subprocess
import sys
import threading

import numpy as np
import pytest

import lora_np as lnp
from lora_np.autograd import primitive
from lora_np.training.identity import describe


@dataclasses.dataclass
class Scale:
    power: int = 1

    def __call__(self, x):
        return x * getattr(self, "extra", 1) ** self.power


@dataclasses.dataclass(frozen=True)
class Named:
    identity: str
    lock: object = dataclasses.field(default_factory=threading.Lock)


def closure(p):
    return lambda x: x * p


def code(p):
    return {1: lambda x: x + x, 2: lambda x: x + x + x, 3: lambda x: x * x}[p]


def inner_code(p):
    return {1: lambda x: [y + 1 for y in x], 2: lambda x: [y + 2 for y in x]}[p]


def handler(p):
    def first(x):
        try:
            return x[5]
        except IndexError:
            return x

    return first if p == 1 else type(first)(first.__code__.replace(co_exceptiontable=b""), {})


def arguments(p):
    """The same bytes of code, and other arguments."""
    return {1: lambda x, a=1, b=3: x * a, 2: lambda x, a=1, *, b=3: x * a}[p]


def default(p):
    return lambda x, factor=p, *, other=1: x * factor * other


def keyword(p):
    return lambda x, *, factor=p: x * factor


def attribute(p):
    def f(x):
        return x * f.factor

    f.factor = p
    return f


def recursive(p):
    def f(x, n=p):
        return x if n == 0 else f(2 * x, n - 1)

    return f


def partial(p):
    return functools.partial(lambda factor, x: x * factor, p)


def bound(p):
    return Scale(p).__call__


def array(p):
    values = np.array([1.0, p])
    return lambda x: x * values


def extra(p):
    thing = Scale()
    thing.extra = p
    return thing


def method(p):
    body = {"__call__": code(p), "__annotations__": {}}
    return dataclasses.dataclass(type("Act", (), body))()


def inherited(p):
    base = type("Base", (), {"__call__": code(p)})
    return dataclasses.dataclass(type("Act", (base,), {}))()


def value_of_class(p):
    return dataclasses.dataclass(type("Act", (), {"factor": p}))()


def descriptors(p):
    body = {"f": staticmethod(code(p)), "g": property(code(p)), "h": functools.cached_property(abs)}
    return dataclasses.dataclass(type("Act", (), body))()


def operation(p):
    return primitive(lambda x: p * x, lambda y, x: lambda g: p * g)


KINDS = {
    function.__name__: function
    for function in (
        closure, code, inner_code, handler, arguments, default, keyword, attribute, recursive,
        partial, bound, array, Scale, extra, method, inherited, value_of_class, descriptors,
        operation,
    )
} | {
    "the shape of an array": lambda p: np.zeros((p, 2)),
    "the dtype of an array": lambda p: np.zeros(3, ["f4", "f8"][p - 1]),
    "a dtype": lambda p: np.dtype(["f4", "f8"][p - 1]),
    "a type": lambda p: [int, float][p - 1],
    "a ufunc": lambda p: [np.tanh, np.sin][p - 1],
    "a function of NumPy": lambda p: [np.mean, np.linalg.norm][p - 1],
    "a number and its type": lambda p: [1, True][p - 1],
    "the sign of zero": lambda p: [0.0, -0.0][p - 1],
    "a scalar of NumPy": lambda p: [np.float32(1), np.float64(1)][p - 1],
    "a list or a tuple": lambda p: [[1], (1,)][p - 1],
    "a set": lambda p: {"a", "b", p},
    "keys": lambda p: {p: 0},
    "the order of a dict": lambda p: dict([("a", 0), ("b", 0)][:: 2 * p - 3]),
    "a name of its own": lambda p: Named(str(p)),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_told_from_another_and_known_again(kind):
    make = KINDS[kind]
    one, other = make(1), make(2)
    places = [(one, other, one), (one, other, other), (other, one, one), (one,), (other,), one]
    assert len(set(map(describe, places))) == len(places)
    assert describe([make(1), make(2)]) == describe([one, other])
    with_closure = [lambda: one, lambda: other]  # wherever it is held
    assert describe(with_closure[:1]) != describe(with_closure[1:])


def test_what_holds_itself_is_known_by_where():
    one, two = [], []
    one.append(one)
    two.append([two])
    assert describe(one) != describe(two)


def test_having_run_changes_no_description():
    @dataclasses.dataclass(frozen=True)
    class Act:
        @functools.cached_property
        def slow(self):
            return 1

    thing = Act()
    before = describe(thing)
    assert thing.slow
    assert describe(thing) == before


@pytest.mark.parametrize("make", [
    lambda: np.frompyfunc(abs, 1, 1),
    lambda: (i for i in "ab"),
    threading.Lock,
    lambda: sys.stdout,
    lambda: np.array([None], object),
    lambda: np.ma.MaskedArray([1.0], [True]),
    lambda: [lambda x, a=(i for i in "ab").__next__: a()],
    lambda: {1: np.random.default_rng(0)},
    lambda: type("Plain", (), {})(),
    lambda: type("Number", (float,), {})(1.0),
])  # fmt: skip
def test_what_it_does_not_understand_it_refuses(make):
    with pytest.raises(TypeError, match=r"cannot be recognised .*make it a dataclass .*identity="):
        describe(make())


def test_what_is_nested_too_deep_is_refused():
    deep = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(TypeError, match="nested too deep"):
        describe(deep)


# Runs that are continued


def run(path, *, parts=(np.tanh,), W0=None, seed=0, rng=0, **settings):
    first = np.random.default_rng(9).normal(size=(4, 3)) if W0 is None else W0
    layers = [lnp.Linear(first), *map(lnp.Activation, parts), lnp.Linear(np.eye(2, 4))]
    x = np.random.default_rng(1).normal(size=(12, 3))
    model = lnp.inject(lnp.Sequential(layers), rank=1, rng=seed)
    settings = {"steps": 4, "batch_size": 4, "progress": False, "resume": True} | settings
    return lnp.fit(model, x, x[:, :2], rng=rng, checkpoint=path, **settings)


def used(rng):
    rng.random()
    return rng


A, B = closure(1), closure(2)
X = np.ones((2, 3))
OTHERS = {
    "the order of closures": ({"parts": (A, B, A)}, {"parts": (A, B, B)}, "its model is"),
    "another rng": ({}, {"rng": 1}, "what differs is the state of rng"),
    "a generator that has been used": ({"rng": np.random.default_rng(0)}, {"rng": used(np.random.default_rng(0))}, "the state of rng"),
    "another initialisation": ({}, {"seed": 1}, r"what differs is the first values of layers\.0\.A"),
    "another base": ({}, {"W0": np.ones((4, 3))}, "its model is"),
    "another validation": ({"validation": (X, X[:, :2])}, {"validation": (2 * X, X[:, :2])}, "its validation is"),
    "a function's attribute": ({"parts": (attribute(1),)}, {"parts": (attribute(2),)}, "its model is"),
    "another name": ({"identity": "one"}, {"identity": "two"}, "its name is one, here it is two"),
    "a name and none": ({"identity": "one"}, {}, "its name is one"),
}  # fmt: skip


@pytest.mark.parametrize("what", OTHERS)
def test_a_refused_resume_names_what_differs(what, tmp_path):
    ours, theirs, said = OTHERS[what]
    path = tmp_path / "run.npz"
    run(path, **ours)
    whole = path.read_bytes()
    with pytest.raises(ValueError, match=f"belongs to another run: .*{said}"):
        run(path, **theirs)
    assert path.read_bytes() == whole


@pytest.mark.parametrize("settings", [{}, {"identity": "mine"}])
def test_the_same_call_is_continued(settings, tmp_path):
    """Also for more steps, if the optimizer does not depend on them."""
    settings = settings | {"optimizer": lnp.Adam(lr=0.01)}
    whole = run(tmp_path / "whole.npz", steps=9, **settings)
    run(tmp_path / "run.npz", steps=5, **settings)
    continued = run(tmp_path / "run.npz", steps=9, **settings)
    np.testing.assert_array_equal(continued.history.loss, whole.history.loss)


def test_a_name_stands_for_what_cannot_be_recognised(tmp_path):
    def activation(lock):
        return lambda x: np.tanh(x) if lock else None

    with pytest.raises(TypeError, match="cannot be recognised"):
        run(tmp_path / "run.npz", parts=(activation(threading.Lock()),))
    for _ in range(2):
        run(tmp_path / "run.npz", parts=(activation(threading.Lock()),), identity="mine")


# Another process

SCRIPT = """
import functools, sys
from dataclasses import dataclass, field
import numpy as np
{imports}
import lora_np as lnp
from lora_np.autograd import derivative, primitive
from lora_np.autograd.tables import composition
from lora_np.lora import VARIANTS
@dataclass(frozen=True)
class Act:
    p: float = 2.0
    names: frozenset = frozenset({{"a", "b", "c"}})
    bag: set = field(default_factory=lambda: {{"x", "y", "z"}})
    def __call__(self, x, *, rng=None):
        return np.tanh(self.p * x) if "a" in self.names | {{"x", "y"}} else x
    @functools.cached_property
    def slow(self):
        return 1
cube = primitive(lambda a: a * a * a, lambda y, a: lambda g: {cube} * g * a * a)
derivative(np.cbrt, lambda y, a: lambda g: {root} * g / (y * y))
@composition(np.fix)
def fix(x):
    return {fix} * x
def loss(p, y):
    return np.mean(np.abs(p - y))
a, b = (lambda c: lambda x: x * c)(1.0), (lambda c: lambda x: x * c)(0.5)
rng = np.random.default_rng(0)
act = Act()
layers = [lnp.Linear(rng.normal(size=(4, 3))), lnp.Activation(a), act, lnp.Activation(b)]
layers += [lnp.Activation(lambda x: np.fix(np.cbrt(cube(x) + 9)))]
model = lnp.Sequential([*layers, lnp.Linear(rng.normal(size=(2, 4)))])
x = rng.normal(size=(9, 3))
{before}
settings = dict(loss=loss, steps=2, validation=(x, x[:, :2]), progress=False, resume=True)
for variant in ("lora", "lora+"):
    tuned = lnp.inject(model, rank=2, variant=variant, rng=0)
    optimizer = VARIANTS[variant].optimizer(lnp.Adam(1e-2))
    if sys.argv[1] == "reads":
        settings["watch"] = lambda *_: sys.exit("ran again")
    path = variant + ".npz"
    fitted = lnp.fit(tuned, x, x[:, :2], optimizer=optimizer, checkpoint=path, **settings)
    print(fitted.history.loss, fitted.history.validation_loss)
"""
RULES = {"cube": 3, "root": "1 / 3", "fix": 2}
LATE = "import decimal, json, asyncio, lora_np.language, tqdm, joblib, numpy.ma"


@pytest.mark.skipif(sys.platform == "emscripten", reason="starts processes")
def test_another_process_continues_unless_a_rule_is_another(tmp_path):
    def process(seed, mode, imports="", before="", **rules):
        code = SCRIPT.format(imports=imports, before=before, **RULES | rules)
        environment = os.environ | {"PYTHONHASHSEED": str(seed)}
        command = [sys.executable, "-c", code, mode]
        return subprocess.run(
            command, capture_output=True, text=True, cwd=tmp_path, env=environment
        )

    first = process(0, "writes")
    assert first.returncode == 0, first.stderr
    for i, (imports, before) in enumerate([(LATE, ""), ("", "model(x); act.slow")], start=1):
        again = process(i, "reads", imports, before)
        assert (again.returncode, again.stdout) == (0, first.stdout), again.stderr
    for rule in RULES:
        other = process(9, "reads", **{rule: 5})
        assert "belongs to another run: its derivatives is" in other.stderr
