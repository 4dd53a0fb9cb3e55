"""Two that compute otherwise never share a description; the same, made in another process, always
does.
"""

import dataclasses
import enum
import functools
import math
import os
import subprocess
import sys
import types
from collections import namedtuple

import numpy as np
import pytest

import lora_np as lnp
from lora_np.training import CheckpointError
from lora_np.training.checkpoint import Description, UnknownIdentityError, describe
from tests.drawing import twentieth


class Wrapper:
    """A callable with state, which calls itself what it wraps."""

    def __init__(self, factor):
        self.factor = factor
        functools.update_wrapper(self, np.tanh)

    def __call__(self, x):
        return np.tanh(x) * self.factor


@dataclasses.dataclass
class Scale:
    power: int = 1

    def __call__(self, x):
        return x * getattr(self, "extra", 1) ** self.power


class Slotted:
    __slots__ = ("factor",)

    def __call__(self, x):
        return x * self.factor

    def method(self, x):
        return x * self.factor


class Number(float):
    pass


class Table(np.ndarray):
    pass


Pair = namedtuple("Pair", "factor")


def closure(p):
    return lambda x: x * p


def with_attribute(p):
    def f(x):
        return x * f.factor

    f.factor = p
    return f


def with_default(p):
    return lambda x, factor=p, *, other=1: x * factor * other


def with_keyword(p):
    def f(x, *, factor=p):
        return x * factor

    return f


def dataclass_extra(p):
    thing = Scale()
    thing.extra = p
    return thing


def class_of_one_name(p):
    return type("Act", (), {"__call__": lambda self, x: x * self.factor, "factor": p})()


def class_by_code(p):
    body = {1: lambda self, x: x, 2: lambda self, x: x + x, 3: lambda self, x: x * 3}[p]
    return type("Act", (), {"__call__": body})()


def slotted(p):
    thing = Slotted()
    thing.factor = p
    return thing


def float_subclass(p):
    number = Number(1.0)
    number.factor = p
    return lambda x: x * number.factor


def array_subclass(p):
    table = np.ones(2).view(Table)
    table.factor = p
    return lambda x: x * table.factor


def masked(p):
    mask = np.arange(3) < p
    values = np.ma.MaskedArray(np.arange(1.0, 4.0), mask)
    return lambda x: x * (values.sum() if p < 3 else 7.0)


def partial_of(p):
    return functools.partial(lambda factor, x: x * factor, p)


def cached(p):
    inner = functools.lru_cache(lambda: p)
    return lambda x: x * inner()


def generator(p):
    rng = np.random.default_rng(p)
    state = rng.bit_generator.state

    def f(x):
        y = x * (1 + rng.random())
        rng.bit_generator.state = state
        return y

    return f


def bound(p):
    return slotted(p).method


def builtin_method(p):
    return lambda x, get={"factor": p}.get: x * get("factor")


def named_tuple(p):
    pair = Pair(p)
    return lambda x: x * pair.factor


def enumeration(p):
    kind = enum.Enum("Kind", {"FACTOR": p})
    return lambda x: x * kind.FACTOR.value


def mutable(p):
    return lambda x, factors=[1, p]: x * factors[-1]


def object_array(p):
    things = np.array([None, p], dtype=object)
    return lambda x: x * things[1]


def counted_arguments(p):
    """The same bytes of code, and other arguments."""
    f = {
        1: lambda x, a=1, b=3: x * a,
        2: lambda x, a=1, *, b=3: x * (a + 1),
        3: lambda x, a=3, *, b=1: x * a,
    }[p]
    return lambda x: f(x)


def handler(p):
    def one(x):
        try:
            y = x[(0,) * p]
        except IndexError:
            return x * 2
        return y + 0 * x

    return one


def recursive(p):
    def f(x, n=p):
        return x if n == 0 else f(2 * x, n - 1)

    return f


def frozen_set(p):
    return lambda x: x * (2 if len(frozenset({"a", "b", str(p)}) & {"1", "2"}) else 3) + p


PARTS = (
    closure, with_attribute, with_default, with_keyword, dataclass_extra, class_of_one_name, class_by_code, slotted,
    float_subclass, array_subclass, masked, partial_of, cached, generator, bound, builtin_method, named_tuple,
    enumeration, mutable, object_array, counted_arguments, handler, recursive, frozen_set, Wrapper,
)  # fmt: skip


@dataclasses.dataclass(frozen=True, eq=False)
class Chain:
    """Parts one after the other, so that their order matters."""

    parts: tuple

    def __call__(self, x, *, rng=None):
        for i, part in enumerate(self.parts):
            x = np.tanh(part(x)) + 0.1 * i
        return x


def drawn(seed):
    """A plan: parts (a kind and its number), and which of them stands where."""
    rng = np.random.default_rng(seed)
    pool = [(int(rng.integers(len(PARTS))), int(rng.integers(1, 4))) for _ in range(2)]
    if rng.random() < 0.5:  # two of one kind
        pool[1] = (pool[0][0], int(rng.integers(1, 4)))
    return pool, [int(i) for i in rng.integers(2, size=rng.integers(1, 5))]


def changed(plan, seed):
    """The plan, with a part or a place changed."""
    rng, (pool, order) = np.random.default_rng([seed, 1]), plan
    pool, order = list(pool), list(order)
    if rng.random() < 0.5:
        i = int(rng.integers(2))
        pool[i] = (pool[i][0], int(rng.integers(1, 4)))
    else:
        i = int(rng.integers(len(order)))
        order[i] = 1 - order[i]
    return pool, order


def built(plan):
    pool, order = plan
    made = [PARTS[kind](number) for kind, number in pool]
    return Chain(tuple(made[i] for i in order))


X = np.linspace(-1.0, 1.0, 3).reshape(1, 3)


@pytest.mark.parametrize("seed", twentieth(range(1000)))
def test_two_that_compute_otherwise_are_described_otherwise(seed):
    plan = drawn(seed)
    other = changed(plan, seed)
    ours, theirs = built(plan), built(other)
    described = describe(ours), describe(theirs)
    assert describe(built(plan)) == described[0]  # made once more, the same
    if not np.array_equal(ours(X), theirs(X)):
        assert described[0] != described[1]
    assert (describe(ours), describe(theirs)) == described  # and having run changes nothing


def test_the_draw_is_worth_its_name():
    """Most pairs compute otherwise, and each kind of part is among them."""
    pairs = [(built(drawn(seed)), built(changed(drawn(seed), seed))) for seed in range(300)]
    assert sum(not np.array_equal(a(X), b(X)) for a, b in pairs) > 150
    assert {kind for seed in range(300) for kind, _ in drawn(seed)[0]} == set(range(len(PARTS)))


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.__name__)
def test_each_part_is_told_from_another_of_its_kind_and_place(part):
    a, b = part(1), part(2)
    words = {
        describe(Chain(parts)) for parts in [(a, b, a), (a, b, b), (b, a, a), (a, a, b), (a,), (b,)]
    }
    assert len(words) == 6
    assert np.array_equal(Chain((part(1), part(2)))(X), Chain((a, b))(X))
    # one object in two places may keep something between them
    assert describe([part(1), part(1)]) != describe([a, a])


def test_classes_and_modules_of_one_name_are_told_apart():
    def module(p):
        made = types.ModuleType("helpers")
        made.factor = p
        return made

    def make(helpers):
        code = compile("def user(x):\n    return x * helpers.factor\n", "here", "exec")
        names = {"helpers": helpers, "__name__": "here"}
        exec(code, names)
        return names["user"]

    one, two = make(module(1)), make(module(2))
    assert describe(one) != describe(two)
    assert describe([one, two, one]) != describe([one, two, two])
    assert describe(make(module(1))) == describe(one)


def with_code(function, **changes):
    return types.FunctionType(function.__code__.replace(**changes), globals(), "f")


def caught(x):
    try:
        return x[5]
    except IndexError:
        return x


def put_into_math(function):
    function.__module__, function.__qualname__ = "math", "sine"
    math.sine = function
    return describe(function)


def test_what_code_and_arrays_do_not_show_at_first_sight(monkeypatch):
    assert describe(with_code(caught)) != describe(with_code(caught, co_exceptiontable=b""))
    positional, by_name = (lambda x, a: x * a), (lambda x, *, a: x * a)
    assert Description().code(positional.__code__) != Description().code(by_name.__code__)
    one, two = (np.full(3, p).view(Table) for p in (1.0, 2.0))
    assert describe(one) != describe(two)
    monkeypatch.setattr(math, "sine", None, raising=False)
    assert put_into_math(lambda x: x) != put_into_math(lambda x: 2 * x)
    assert describe(np.ones((2, 3))) != describe(np.asfortranarray(np.ones((2, 3))))


def test_what_holds_itself_is_described_and_what_is_too_deep_refused():
    one, two = [], []
    one.append(one)
    two.append([two])
    assert describe(one) == describe(one)
    assert describe(one) != describe(two)
    deep = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(UnknownIdentityError, match="nested too deep"):
        describe(deep)


def test_being_described_changes_no_description():
    def make():
        return type("Act", (), {"p": 1})

    first, second = make(), make()
    describe(second())
    assert describe(first) == describe(second)


# Runs that are continued


def run(path, *, parts=None, W0=None, seed=0, rng=0, **settings):
    parts = parts or (np.tanh,)
    first = np.random.default_rng(9).normal(size=(4, 3)) if W0 is None else W0
    model = lnp.Sequential(
        [lnp.Linear(first), *map(lnp.Activation, parts), lnp.Linear(np.eye(2, 4))]
    )
    x = np.random.default_rng(1).normal(size=(12, 3))
    adapted = lnp.inject(model, rank=1, rng=seed)
    return lnp.fit(
        adapted,
        x,
        x[:, :2],
        batch_size=4,
        rng=rng,
        progress=False,
        checkpoint=path,
        resume=True,
        **{"steps": 4, **settings},
    )


A, B = closure(1), closure(2)
X2 = np.ones((2, 3))
OTHERS = {
    "the order of closures": ({"parts": (A, B, A)}, {"parts": (A, B, B)}, "its model is"),
    "another rng": ({}, {"rng": 1}, "what differs is the state of rng"),
    "a generator that has been used": ({"rng": np.random.default_rng(0)}, {"rng": np.random.default_rng(0)}, "the state of rng"),
    "another initialisation": ({}, {"seed": 1}, r"what differs is the first values of layers\.0\.A"),
    "another base": ({}, {"W0": np.ones((4, 3))}, "its model is"),
    "another validation": ({"validation": (X2, X2[:, :2])}, {"validation": (2 * X2, X2[:, :2])}, "its validation is"),
    "a function's attribute": ({"parts": (with_attribute(1),)}, {"parts": (with_attribute(2),)}, "its model is"),
}  # fmt: skip
OTHERS["a generator that has been used"][1]["rng"].random()


@pytest.mark.parametrize("what", OTHERS)
def test_a_refused_resume_names_what_differs(what, tmp_path):
    ours, theirs, said = OTHERS[what]
    path = tmp_path / "run.npz"
    run(path, **ours)
    whole = path.read_bytes()
    with pytest.raises(CheckpointError, match=f"belongs to another run: .*{said}"):
        run(path, **theirs)
    assert path.read_bytes() == whole


def test_the_same_call_is_continued(tmp_path):
    whole = run(tmp_path / "whole.npz", steps=9)
    run(tmp_path / "run.npz", steps=5)
    continued = run(tmp_path / "run.npz", steps=9)
    np.testing.assert_array_equal(continued.history.loss, whole.history.loss)


# Another process

SCRIPT = """
{first}
import functools, os, sys
from dataclasses import dataclass, field
import numpy as np
{second}
import lora_np as lnp
import helpers_of_ours.activations as acts
from lora_np.lora import VARIANTS
@dataclass(frozen=True)
class Act:
    p: float = 2.0
    names: frozenset = frozenset({{"a", "b", "c"}})
    bag: set = field(default_factory=lambda: {{"x", "y", "z"}})
    def __call__(self, x, *, rng=None):
        return np.tanh(self.p * x) if "a" in self.names else acts.act(x)
    @functools.cached_property
    def slow(self):
        return 1
def late(x):
    import helpers_of_ours
    return helpers_of_ours.more.act(x) + x.shape[0]
a, b = (lambda c: lambda x: x * c)(1.0), (lambda c: lambda x: x * c)(0.5)
rng = np.random.default_rng(0)
act = Act()
layers = [lnp.Linear(rng.normal(size=(4, 3))), lnp.Activation(a), act, lnp.Activation(b), lnp.Activation(a)]
layers += [lnp.Activation(late), lnp.Activation(acts.act), lnp.Activation(functools.lru_cache(maxsize=None)(np.sin).__wrapped__)]
model = lnp.Sequential([*layers, lnp.Linear(rng.normal(size=(2, 4)))])
x = rng.normal(size=(9, 3))
{third}
settings = dict(loss=acts.loss, steps=2, validation=(x, x[:, :2]), progress=False, resume=True)
for variant in ("lora", "lora+"):
    tuned = lnp.inject(model, rank=2, variant=variant, rng=0)
    optimizer = VARIANTS[variant].optimizer(lnp.Adam(1e-2))
    if sys.argv[1] == "reads":
        settings["watch"] = lambda *_: sys.exit("ran again")
    fitted = lnp.fit(tuned, x, x[:, :2], optimizer=optimizer, checkpoint=variant + ".npz", **settings)
    print(fitted.history.loss, fitted.history.validation_loss)
"""
ORDERS = [
    ("", "", ""),
    (
        "import decimal, json, asyncio, helpers_of_ours.activations",
        "import lora_np.language, lora_np.lora",
        "model(x)",
    ),
    (
        "import lora_np.training.checkpoint, helpers_of_ours.more, helpers_of_ours.shape",
        "import tqdm, joblib, numpy.ma",
        "act.slow; late(x)",
    ),
]


@pytest.mark.skipif(sys.platform == "emscripten", reason="starts processes")
def test_another_process_continues_whatever_it_has_imported(tmp_path):
    package = tmp_path / "helpers_of_ours"
    package.mkdir()
    (package / "__init__.py").write_text("")
    # an attribute's name, which not every process loads
    (package / "shape.py").write_text("factor = 2\n")
    (package / "more.py").write_text("import numpy as np\ndef act(x):\n    return np.arctan(x)\n")
    (package / "activations.py").write_text(
        "import numpy as np\nimport helpers_of_ours.more\n"
        "def act(x):\n    return helpers_of_ours.more.act(x)\n"
        "def loss(p, y):\n    return np.mean((p - y) ** 2)\n"
    )
    said = []
    for i, (first, second, third) in enumerate([*ORDERS, ORDERS[0]]):
        code = SCRIPT.format(first=first, second=second, third=third)
        environment = os.environ | {
            "PYTHONHASHSEED": str(i),
            "PYTHONPATH": f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}",
        }
        mode = "writes" if i == 0 else "reads"
        done = subprocess.run(
            [sys.executable, "-c", code, mode],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=environment,
        )
        assert done.returncode == 0, done.stderr
        said.append(done.stdout)
    assert len(set(said)) == 1
    assert len(list(tmp_path.glob("*.npz"))) == 2
