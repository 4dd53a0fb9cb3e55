"""A pytest plugin for NumPy's own tests: every call of a function with a derivative is repeated
with Tensors.

Only the test files see the wrapped functions; NumPy itself and this package call the bare ones.
"""

import collections
import json
import os
import re
import types
import warnings
from pathlib import Path

import numpy as np

from lora_np.autograd import Tensor, value
from lora_np.autograd.tables import COMPOSITIONS, DERIVATIVES, name_of

LIMIT = 5000 if os.environ.get("LORA_NP_FULL") == "1" else 250  # calls of one function in one file
RNG = np.random.default_rng(0)
TALLY: collections.Counter = collections.Counter()
FUNCTIONS: dict[str, collections.Counter] = collections.defaultdict(collections.Counter)
REFUSED: collections.Counter = collections.Counter()
WRONG: list[str] = []

# Where the values may differ by rounding, or because a composition sums in another order.
TOLERANCE = {2: 1e-2, 4: 1e-4, 8: 1e-9, 16: 1e-9}


class Through:
    """A NumPy function that also checks itself with Tensors; in everything else it is that
    function.
    """

    def __init__(self, function):
        self.__wrapped__ = function
        self.__name__ = function.__name__

    def __getattr__(self, name):
        return getattr(self.__wrapped__, name)

    def __eq__(self, other):
        return self.__wrapped__ is getattr(other, "__wrapped__", other)

    def __hash__(self):
        return hash(self.__wrapped__)

    def __call__(self, *args, **kwargs):
        y = self.__wrapped__(*args, **kwargs)
        name, file = (
            name_of(self.__wrapped__),
            os.environ.get("PYTEST_CURRENT_TEST", "").split("::")[0],
        )
        if suitable([*args, *kwargs.values()]) and FUNCTIONS[name][file] < LIMIT:
            with warnings.catch_warnings(), np.errstate(all="ignore"):
                warnings.simplefilter("ignore")
                outcome = check(self.__wrapped__, args, kwargs, y)
            TALLY["calls"] += 1
            TALLY[outcome] += 1
            FUNCTIONS[name][file] += outcome != "refused"
        return y


def leaves(a):
    """The float arrays in an argument, which may be a list or a tuple of them; a list of floats is
    one, too.
    """
    if floats(a):
        return [np.array(a)]
    if isinstance(a, (list, tuple)):
        return [leaf for item in a for leaf in leaves(item)]
    return [a] if type(a) is np.ndarray and a.dtype.kind == "f" else []


def floats(a):
    """Whether this is a list of floats, or of lists of them, that NumPy makes one array of."""
    if not (isinstance(a, list) and a):
        return False
    if all(map(floats, a)):
        return len({np.shape(row) for row in a}) == 1
    return all(type(number) is float for number in a)


def others(a):
    """What answers NumPy's protocols itself, or holds complex numbers or objects: not this
    package's matter.
    """
    if isinstance(a, (list, tuple)):
        return any(map(others, a))
    if isinstance(a, (np.ndarray, np.generic)):
        return (
            type(a) is not np.ndarray and isinstance(a, np.ndarray)
        ) or a.dtype.kind not in "fiub"
    return (
        isinstance(a, complex) or hasattr(a, "__array_function__") or hasattr(a, "__array_ufunc__")
    )


def suitable(args):
    found = [leaf for a in args for leaf in leaves(a)]
    return bool(found) and sum(a.size for a in found) <= 5000 and not any(map(others, args))


def replaced(a, make):
    """The argument with ``make(array)`` in the place of each of its float arrays, in the order of
    leaves.
    """
    if floats(a):
        return make(np.array(a))
    if isinstance(a, (list, tuple)) and leaves(a):
        return type(a)([replaced(item, make) for item in a]) if type(a) in (list, tuple) else a
    return make(a) if leaves(a) else a


def call(function, args, kwargs, make):
    return function(
        *(replaced(a, make) for a in args), **{n: replaced(a, make) for n, a in kwargs.items()}
    )


def parts(y):
    return list(y) if isinstance(y, (list, tuple)) else [y]


def check(function, args, kwargs, expected):
    tensors = []

    def make(a):
        tensors.append(Tensor(a))
        return tensors[-1]

    try:
        y = call(function, args, kwargs, make)
    except (TypeError, ValueError) as problem:
        return by_name(function, problem, args, kwargs)
    except Exception as problem:
        return wrong(function, args, kwargs, f"raised {problem!r}")
    problem = unlike(parts(y), parts(expected))
    if problem:
        return wrong(function, args, kwargs, problem)
    results = [part for part in parts(y) if isinstance(part, Tensor)]
    if not results:
        return "constant"
    cotangents = [RNG.standard_normal(part.shape).astype(part.dtype) for part in results]
    try:
        for part, w in zip(results, cotangents, strict=True):
            weighed = part if len(results) == 1 else np.sum(part * w)
            total = weighed if part is results[0] else total + weighed  # noqa: F821 (bound in the first round)
        total.backward(w if len(results) == 1 else None)
    except Exception as problem:
        return wrong(function, args, kwargs, f"backward raised {problem!r}")
    for x in tensors:
        if x.grad is not None and (x.grad.shape != x.shape or x.grad.dtype != x.dtype):
            return wrong(
                function, args, kwargs, f"gradient {x.grad.shape} {x.grad.dtype} for {x!r}"
            )
    return compare(function, args, kwargs, y, cotangents, tensors)


def unlike(results, expected):
    if len(results) != len(expected):
        return f"{len(results)} results for {len(expected)}"
    for a, b in zip(results, expected, strict=True):
        a, b = value(a), np.asarray(b)
        if a.shape != b.shape or a.dtype != b.dtype:
            return f"result {a.shape} {a.dtype} for {b.shape} {b.dtype}"
        tolerance = TOLERANCE[b.dtype.itemsize] if b.dtype.kind == "f" else 0
        largest = np.max(np.abs(b[np.isfinite(b)]), initial=0) if b.dtype.kind == "f" else 0
        if not np.allclose(a, b, rtol=tolerance, atol=tolerance * float(largest), equal_nan=True):
            return f"result {a!r} for {b!r}"
    return None


def compare(function, args, kwargs, y, cotangents, tensors):
    """Hold the gradients against a central difference along a random direction."""
    if any(x.dtype != np.float64 for x in tensors) or sum(x.size for x in tensors) > 60:
        return "equal: value, shape, dtype"
    chosen = [i for i, part in enumerate(parts(y)) if isinstance(part, Tensor)]
    if not all(np.all(np.isfinite(x.data)) for x in tensors):
        return "equal: value, shape, dtype"
    directions = [
        RNG.standard_normal(x.shape) * np.where(x.data == 0, 1, np.abs(x.data)) for x in tensors
    ]

    def along(step):
        found = iter(zip(tensors, directions, strict=True))

        def make(_):
            x, v = next(found)
            return x.data + step * v

        results = parts(call(function, args, kwargs, make))
        return sum(
            float(np.sum(w * np.asarray(results[i])))
            for i, w in zip(chosen, cotangents, strict=True)
        )

    h = 1e-6
    try:
        before, here, after = along(-h), along(0), along(h)
        wide = (along(8 * h) - along(-8 * h)) / (16 * h)
    except Exception:  # the neighbourhood is not all in the domain
        return "equal: value, shape, dtype"
    got = sum(
        float(np.sum(x.grad * v))
        for x, v in zip(tensors, directions, strict=True)
        if x.grad is not None
    )
    size = sum(
        float(np.sum(np.abs(w * value(parts(y)[i]))))
        for i, w in zip(chosen, cotangents, strict=True)
    )
    left, right, difference = (here - before) / h, (after - here) / h, (after - before) / (2 * h)
    noise = 64 * 2.2e-16 * size / h
    scale = max(abs(difference), noise, 1e-9)
    # A kink, a jump, the edge of the domain, or rounding that is as large as the derivative.
    smooth = (
        abs(left - right) <= 1e-3 * scale + noise and abs(wide - difference) <= 1e-4 * scale + noise
    )
    if (
        not (np.isfinite(difference) and smooth)
        or noise > 0.01 * max(abs(difference), abs(got), 1e-9) > 1e-8
    ):
        return "equal: value, shape, dtype"
    if not abs(got - difference) <= 1e-4 * scale + noise:
        return wrong(function, args, kwargs, f"derivative {got} for {difference} by differences")
    return "equal: gradient too"


def by_name(function, problem, args, kwargs):
    text = str(problem)
    names = [function.__name__, "Tensor", "gradient", "derivative", "differentiated"]
    own = re.search(
        r"unexpected keyword|positional argument|required keyword|not subscriptable|unsupported",
        text,
    )
    if own or not any(name in text for name in names):
        return wrong(function, args, kwargs, f"raised {problem!r}")
    reason = re.sub(r"'.*?'|\(.*?\)|=\S+|\[.*?\]", "_", text.splitlines()[0])
    return refused(reason[:110])


def refused(reason):
    REFUSED[reason] += 1
    return "refused"


def wrong(function, args, kwargs, problem):
    test = os.environ.get("PYTEST_CURRENT_TEST", "")
    WRONG.append(f"{name_of(function)}: {problem} | {args!r:.300} {kwargs!r:.200} | {test}")
    return "wrong"


WRAPPED = {
    function: Through(function)
    for function in (*DERIVATIVES, *COMPOSITIONS)
    if function in [getattr(module, function.__name__, None) for module in (np, np.linalg)]
}


class Module(types.ModuleType):
    """``np`` or ``np.linalg`` as a test file sees it."""

    def __init__(self, module):
        super().__init__(module.__name__)
        self.__module = module

    def __getattr__(self, name):
        return seen(getattr(self.__module, name))


MODULES = {np: Module(np), np.linalg: Module(np.linalg)}


def seen(thing):
    try:
        return WRAPPED.get(thing) or MODULES.get(thing, thing)
    except TypeError:  # not hashable
        return thing


def pytest_configure(config):
    import resource

    # some of NumPy's tests take 18 GB
    resource.setrlimit(resource.RLIMIT_AS, (4 * 2**30, 4 * 2**30))


def pytest_collection_finish(session):
    for module in {item.module for item in session.items if hasattr(item, "module")}:
        for name, thing in list(vars(module).items()):
            if not name.startswith("__"):
                setattr(module, name, seen(thing))


def pytest_sessionfinish(session):
    report = {
        "tally": TALLY, "functions": {name: sum(of.values()) for name, of in sorted(FUNCTIONS.items())},
        "refused": dict(REFUSED.most_common()), "wrong": WRONG,
    }  # fmt: skip
    Path(os.environ["NUMPY_THROUGH_TENSORS"]).write_text(json.dumps(report, indent=1))
