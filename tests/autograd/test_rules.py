"""Every row of the tables, in calls that are drawn: keywords, indices and forms of arguments as NumPy
takes them. A call is right, to second order, or it is refused; it never changes an operand.
"""

import copy
import warnings

import numpy as np
import pytest

from lora_np.autograd import Tensor, check_derivative, primitive, value
from lora_np.autograd.tables import COMPOSITIONS, CONSTANTS, DERIVATIVES, name_of
from tests.autograd.calls import DRAWERS, of_ufunc
from tests.autograd.examples import EXAMPLES
from tests.drawing import FULL, every

CALLS, INDICES = (20_000, 4_000) if FULL else (1_000, 300)
GETITEM = next(f for f in DRAWERS if getattr(f, "__name__", "") == "getitem")
FUNCTIONS = sorted(
    (f for f in EXAMPLES if f in DRAWERS or (isinstance(f, np.ufunc) and f in DERIVATIVES)),
    key=name_of,
)


def drawn(number, functions):
    """So many calls that NumPy takes, without a warning."""
    seed = 0
    while number:
        seed += 1
        rng = np.random.default_rng(seed)
        function = functions[rng.integers(len(functions))]
        try:
            call = DRAWERS.get(function, of_ufunc)(rng, function)
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                warnings.simplefilter("ignore", UserWarning)
                expected = plain(call)
        except (TypeError, ValueError, IndexError, np.linalg.LinAlgError, RuntimeWarning):
            continue
        number -= 1
        yield seed, rng, call, expected


def plain(call):
    """NumPy's answer, for copies of everything."""
    settings = copy.deepcopy(call.settings)
    arrays = [a.copy() for a in call.arrays]
    if isinstance(settings.get("out"), str):
        settings["out"] = arrays[0]
    return copy.deepcopy(call(*arrays, **settings))


def overwritten(setting):
    """Change in place all that a caller can change in a setting."""
    if isinstance(setting, list):
        for i, item in enumerate(setting):
            setting[i] = overwritten(item)
        setting += [0]
    elif isinstance(setting, tuple):
        for item in setting:
            overwritten(item)
    elif isinstance(setting, np.ndarray):
        setting[...] = ~setting if setting.dtype == bool else setting[::-1] if setting.ndim else 0
    elif hasattr(setting, "append"):  # an array.array or a deque
        setting.append(setting[0] if len(setting) else 0)
        setting[0] = setting[-1] = 0
    return setting


def parts(result):
    return list(result) if isinstance(result, list | tuple) else [result]


def check(seed, rng, call, expected):
    """Whether a call was taken; it is right, or refused, and changes nothing."""
    traced = rng.random(len(call.arrays)) < 0.7
    traced[rng.integers(len(traced))] = True
    operands = [Tensor(a) if t else a.copy() for a, t in zip(call.arrays, traced, strict=True)]
    settings = copy.deepcopy(call.settings)
    if isinstance(settings.get("out"), str):
        settings["out"] = operands[0]
    before = copy.deepcopy(
        {name: value(s) if isinstance(s, Tensor) else s for name, s in settings.items()}
    )
    try:
        result = call(*operands, **settings)
        refusal = "covered by the derivative"
    except TypeError as error:
        result, refusal = None, str(error)
    assert any(words in refusal for words in ("cover", "derivative", "writing")), refusal
    assert result is not None or call.function != GETITEM, "every index that NumPy takes is taken"
    for operand, a in zip(operands, call.arrays, strict=True):
        np.testing.assert_array_equal(value(operand), a)
    for name, setting in before.items():
        now = settings[name]
        with warnings.catch_warnings():  # NumPy 2.0 asks an empty range for its truth
            warnings.simplefilter("ignore", DeprecationWarning)
            np.testing.assert_equal(value(now) if isinstance(now, Tensor) else now, setting)
    if result is None:
        return False
    for mine, numpys in zip(parts(result), parts(expected), strict=True):
        alone = call.function in (np.atleast_1d, np.atleast_2d)  # each result of one operand
        assert isinstance(mine, Tensor) or (alone and not all(traced)), "a result without gradient"
        np.testing.assert_allclose(value(mine), numpys, rtol=1e-12, atol=1e-12)
        assert mine.dtype == np.asarray(numpys).dtype
    f = lambda *arrays: joined(call(*arrays))
    w = rng.standard_normal(np.shape(f(*call.arrays)))
    total = np.sum(joined(result) * w)
    for setting in settings.values():
        overwritten(setting)
    total.backward()
    gradients = [t.grad for t in operands if isinstance(t, Tensor)]
    fresh = [Tensor(a) if t else a for a, t in zip(call.arrays, traced, strict=True)]
    np.sum(f(*fresh) * w).backward()
    for gradient, leaf in zip(gradients, (t for t in fresh if isinstance(t, Tensor)), strict=True):
        np.testing.assert_array_equal(gradient, leaf.grad)
    check_derivative(f, *call.arrays, directions=1, order=2, tolerance=2e-5, rng=seed)
    return True


def joined(result):
    """One array of all results."""
    flat = [np.ravel(part) for part in parts(result)]
    return flat[0] if len(flat) == 1 else np.concatenate(flat)


def run(number, functions):
    taken = {}
    for seed, rng, call, expected in drawn(number, functions):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                warnings.simplefilter("ignore", UserWarning)  # NumPy's about where= without out=
                right = check(seed, rng, call, expected)
        except BaseException as error:
            error.add_note(f"seed {seed}: {call!r}"[:2_000])
            raise
        taken.setdefault(name_of(call.function), []).append(right)
    return taken


def test_drawn_calls_are_right_or_refused():
    taken = run(CALLS, FUNCTIONS)
    assert sum(map(sum, taken.values())) > 0.7 * CALLS
    assert not FULL or all(map(any, taken.values())), "a function that is always refused"


def test_every_index_that_numpy_takes_has_the_right_gradient():
    assert sum(map(sum, run(INDICES, [GETITEM]).values())) == INDICES


def test_every_function_of_numpy_is_drawn():
    numpys = [f for module in (np, np.linalg) for f in vars(module).values() if callable(f)]
    known = {f for f in numpys if f in DERIVATIVES or f in COMPOSITIONS}
    assert known - set(FUNCTIONS) <= {np.cbrt, np.trapezoid}  # the docstrings' examples


@every("function", sorted(CONSTANTS, key=name_of))
def test_functions_without_a_gradient_write_into_no_operand(function):
    x = Tensor(np.array([[1.7, -2.2], [0.3, 0.4]]))
    before = x.data.copy()
    arguments = (x,) * (function.nin if isinstance(function, np.ufunc) else 1)
    for out in (x, (x,)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # np.fix, since NumPy 2.4
            with pytest.raises((TypeError, ValueError)):
                function(*arguments, out=out)
        np.testing.assert_array_equal(x.data, before)


def test_settings_of_an_operation_of_ones_own_are_copied():
    """Conditions, indices and lists; arrays of real numbers are not."""
    chosen = lambda a, *, at, order: a[at][order]
    operation = primitive(
        chosen, lambda y, a, *, at, order: lambda g: put_back(g, a.size, at, order)
    )

    def put_back(g, size, at, order):
        gradient = np.zeros(size)
        np.add.at(gradient, np.flatnonzero(at)[order], g)
        return gradient

    x, at, order = Tensor(np.ones(4)), np.array([True, False, True, True]), [0, 2, 2]
    y = operation(x, at=at, order=order)
    at[:], order[:] = True, [1, 1, 1]
    y.backward([1.0, 2.0, 3.0])
    np.testing.assert_array_equal(x.grad, [1, 0, 0, 5])


@pytest.mark.parametrize("axis", [None, 0, 1, (0, 1)])
@pytest.mark.parametrize("shape", [(0, 2), (2, 0), (0, 0)])
def test_the_product_of_nothing_is_a_tensor(shape, axis):
    x = Tensor(np.zeros(shape))
    y = np.prod(x, axis=axis)
    np.testing.assert_array_equal(y.data, np.prod(x.data, axis=axis))
    np.sum(y).backward()
    assert x.grad.shape == shape


@pytest.mark.skipif(np.lib.NumpyVersion(np.__version__) < "2.1.0", reason="new in NumPy 2.1")
def test_clip_takes_min_and_max():
    for settings in ({"min": -0.5}, {"max": 0.5}, {"min": -0.5, "max": 0.5}):
        check_derivative(lambda a, s=settings: np.clip(a, **s), [-1.0, 0.2, 0.9], order=2)
    check_derivative(lambda a, low: a.clip(min=low), [-1.0, 0.2], [-0.3, -0.4], order=2)
