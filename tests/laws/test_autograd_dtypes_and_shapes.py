"""Every row of the tables, with constants of every dtype and memory layout and arguments of every
shape, to third order.

Driven by the examples, of which every row has some. The page docs/develop/derivatives.md has the
counts of a full run.
"""

import itertools
import os
import re
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from lora_np.autograd import Tensor, check_derivative, grad, value
from lora_np.autograd.tables import name_of
from tests.autograd.examples import EXAMPLES
from tests.drawing import FULL, twentieth

PAGE = Path(__file__).parents[2] / "docs" / "develop" / "derivatives.md"
ORDERS = (1, 2, 3)
#: For each dtype, by what the numbers of an example are multiplied: the second time, their squares do not fit.
SCALES = {
    "bool": [1], "int8": [3, 40], "uint8": [3, 100], "int16": [3, 20_000], "int32": [3, 60_000],
    "int64": [3, 60_000], "float16": [1, 300], "float32": [1, 1e25], "float64": [1],
}  # fmt: skip
LAYOUTS = {
    "negative strides": lambda a: np.ascontiguousarray(np.flip(a))[
        (slice(None, None, -1),) * a.ndim
    ],
    "Fortran order": np.asfortranarray,
    "read-only": lambda a: np.broadcast_to(a, a.shape),  # a view that cannot be written to
}
SHAPES = ("size 1", "empty", "0-d")
#: Their arguments are matrices that fit each other: none is broadcast.
MATRICES = {"affine", "adapted_affine", "plus_low_rank"}


def as_dtype(a, dtype, scale):
    if dtype == "bool":
        return a > 0
    if dtype.startswith("float"):
        return (a * scale).astype(dtype)
    whole = np.rint(a * scale)
    return (np.abs(whole) if dtype.startswith("u") else whole).astype(dtype)


def with_constants():
    """An example, which argument is the Tensor, and which constant becomes what."""
    for function, examples in EXAMPLES.items():
        for number, (f, args) in enumerate(examples):
            args = [np.asarray(a) for a in args]
            for i, j in itertools.permutations(range(len(args)), 2):
                for dtype, scales in SCALES.items():
                    for scale in scales:
                        constant = as_dtype(args[j], dtype, scale)
                        wide = constant.astype(np.float64)
                        yield (
                            dtype, f"{name_of(function)}-{number}: {i} by {dtype} {j} x {scale:g}", f, i,
                            *([*args[:j], c, *args[j + 1 :]] for c in (constant, wide)),
                        )  # fmt: skip
                for layout, lay in LAYOUTS.items():
                    yield (
                        layout, f"{name_of(function)}-{number}: {i} by {layout} {j}", f, i,
                        [*args[:j], lay(args[j]), *args[j + 1 :]], args,
                    )  # fmt: skip


def gradients(f, args, i, orders=ORDERS):
    """Value and gradient by argument i, of f, of the gradient, of the gradient's gradient."""
    rng, of, found = np.random.default_rng(0), f, []
    for _ in orders:
        x = Tensor(args[i])
        y = of(*args[:i], x, *args[i + 1 :])
        w = rng.standard_normal(np.shape(y))
        if isinstance(y, Tensor):
            y.backward(w)
        found += [value(y), np.zeros_like(x.data) if x.grad is None else x.grad]
        of = grad(lambda *a, of=of, w=w: np.sum(w * of(*a)), argument=i)
    return found


def quietly(call, *args, **kwargs):
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        return call(*args, **kwargs)


def answer(f, args):
    """What NumPy answers, or None where it refuses."""
    try:
        return np.asarray(f(*args))
    except (ValueError, TypeError, IndexError, ZeroDivisionError, np.linalg.LinAlgError):
        return None


def equal(a, b, rtol):
    """Up to rounding, which is that of the largest number."""
    largest = np.max(np.abs(b[np.isfinite(b)]), initial=0.0)
    return a.shape == b.shape and np.allclose(a, b, rtol=rtol, atol=rtol * largest, equal_nan=True)


def constant_is_as_good_as_float64(f, i, args, wide):
    plain = answer(f, args)
    if plain is None:
        return False
    found, expected = gradients(f, args, i), gradients(f, wide, i)
    assert found[0].dtype == plain.dtype
    assert equal(found[0], plain, 1e-14)
    if not equal(plain, np.asarray(f(*wide)), 1e-12):
        return False  # NumPy itself has rounded, or its integers have overflowed
    for order, (a, b) in enumerate(zip(found, expected, strict=True)):
        assert equal(a, b, 1e-10), (
            f"{'gradient' if order % 2 else 'value'} of order {order // 2 + 1}: {a}, {b}"
        )
    return True


def resized(a, old, new):
    for axis, n in enumerate(a.shape):
        a = np.take(a, range(new), axis=axis) if n == old else a
    return a


def with_shapes():
    """Examples with axes of one length cut to 1 or 0, in all arguments or in one, and with
    arguments of no axis.
    """
    for function, examples in EXAMPLES.items():
        for number, (f, args) in enumerate(examples):
            args = [np.asarray(a, np.float64) for a in args]
            everywhere = range(len(args))
            fitting = name_of(function) in MATRICES
            groups = [tuple(everywhere), *([] if fitting else ((i,) for i in everywhere))]
            seen = {tuple(a.shape for a in args)}
            for kind, places in itertools.product(SHAPES, groups):
                if kind == "0-d":
                    cuts = (
                        []
                        if fitting or not all(a.size for a in args)
                        else [lambda a: a.reshape(-1)[0]]
                    )
                else:
                    new = int(kind == "size 1")
                    lengths = sorted({n for i in places for n in args[i].shape if n > new})
                    cuts = [lambda a, n=n, new=new: resized(a, n, new) for n in lengths]
                for cut in cuts:
                    case = [np.asarray(cut(a)) if i in places else a for i, a in enumerate(args)]
                    shapes = tuple(a.shape for a in case)
                    if shapes not in seen:
                        seen.add(shapes)
                        yield kind, f"{name_of(function)}-{number}: {shapes}", f, case


def answers_where_numpy_does(f, args):
    plain = answer(f, args)
    if plain is None:
        return False
    for i in range(len(args)):
        found = gradients(f, args, i)
        assert equal(found[0], plain, 1e-12)
        assert found[0].dtype == plain.dtype
        assert {a.shape for a in found[1:]} == {args[i].shape}
    if np.isfinite(plain).all():
        # Where the truth is zero, the difference of rounded gradients is not: a wide step keeps
        # that small.
        check_derivative(f, *args, order=3, directions=1, step=1e-5, tolerance=1e-3)
    return True


def holding(check, cases):
    """How many cases of each kind hold; those that fail, together."""
    counts, failures = Counter(), []
    for kind, title, *case in cases:
        try:
            counts[kind] += quietly(check, *case)
        except Exception as problem:
            failures.append(f"{title}: {problem!r:.300}")
    assert not failures, "\n".join([f"{len(failures)} fail", *failures[:20]])
    return counts


def on_page(heading, counts):
    """In a full run the table under this heading has these counts; with DERIVATIVES_WRITE=1, it
    gets them.
    """
    lines = [
        f"| {heading} | cases |",
        "|---|---:|",
        *(f"| {kind} | {n:,} |" for kind, n in counts.items()),
    ]
    table = "\n".join(lines) + "\n"
    text = PAGE.read_text(encoding="utf-8")
    found = re.search(
        rf"^\| {re.escape(heading)} \| cases \|\n(?:\|.*\n)+", text, flags=re.MULTILINE
    )
    assert found, f"{PAGE.name} has no table of {heading}"
    written = {
        kind: int(n.replace(",", ""))
        for kind, n in re.findall(r"^\| (.*) \| ([\d,]+) \|$", found[0], flags=re.MULTILINE)
    }
    if os.environ.get("DERIVATIVES_WRITE") == "1":
        PAGE.write_text(text.replace(found[0], table), encoding="utf-8")
        return
    assert list(written) == list(counts)
    # Another NumPy has other functions, and refuses other things.
    assert not FULL or all(abs(written[kind] - n) <= n / 50 for kind, n in counts.items())


def test_a_constant_of_any_dtype_and_layout_gives_the_gradients_of_float64():
    counts = Counter(dict.fromkeys([*SCALES, *LAYOUTS], 0))
    counts.update(holding(constant_is_as_good_as_float64, twentieth(with_constants())))
    on_page("a constant", counts)


def test_the_law_holds_for_every_shape_that_numpy_answers():
    counts = Counter(dict.fromkeys(SHAPES, 0))
    counts.update(holding(answers_where_numpy_does, twentieth(with_shapes())))
    on_page("an argument", counts)


@pytest.mark.parametrize(
    ("f", "x", "constant"),
    [
        (lambda x, c: c**x, np.float64(1.5), np.int8(3)), (lambda x, c: x**c, np.float64(1.5), np.int8(-128)), (lambda x, c: x**c, np.float64(1.5), np.float16(0.1)),
        (np.arctan2, np.float64(1.5), np.int8(100)), (np.arctan2, np.float64(1.5), np.float16(300)),
    ],
)  # fmt: skip
def test_the_rule_computes_in_the_dtype_of_the_result(f, x, constant):
    assert quietly(
        constant_is_as_good_as_float64, f, 0, [x, constant], [x, constant.astype(np.float64)]
    )


@pytest.mark.parametrize("shape", [(0,), (0, 3), (2, 0)])
@pytest.mark.parametrize("f", [np.mean, np.var, np.std, np.prod, np.sum])
def test_reductions_of_empty_arrays_are_numpys(f, shape):
    for axis in (None, *range(len(shape))):
        assert quietly(
            answers_where_numpy_does, lambda a, axis=axis: f(a, axis=axis), [np.zeros(shape)]
        )
    assert quietly(answers_where_numpy_does, lambda a: np.var(a, axis=0, ddof=5), [np.ones(3)])
    assert quietly(
        answers_where_numpy_does, lambda a: np.take(a, [0, 0], axis=0), [np.float64(2.0)]
    )
