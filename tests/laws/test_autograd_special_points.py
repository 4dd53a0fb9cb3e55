"""Values and gradients at NaN, at the infinities and at kinks: those of torch."""

import itertools
import warnings

import numpy as np
import pytest

from lora_np.autograd import Tensor, check_derivative
from lora_np.autograd.tables import COMPOSITIONS, DERIVATIVES, name_of
from lora_np.nn import gelu, relu, sigmoid, softmax

NAN, INF = float("nan"), float("inf")
POINTS = (NAN, INF, -INF, 0.0, -0.0, 1.0, -1.0, 2.0)
VECTORS = (
    [NAN, 1, 2], [1, NAN, NAN], [NAN, NAN, NAN], [INF, 1, 2], [INF, INF, 0], [-INF, 1, INF],
    [-INF, -INF, -INF], [NAN, INF, 0], [0, 0, 0], [1, 2, 2],
)  # fmt: skip

#: Functions of one and of two numbers whose name in torch is another, and those of the same name.
OTHER_NAMES = {
    "absolute": "abs", "fabs": "abs", "negative": "neg", "add": "add", "subtract": "sub",
    "multiply": "mul", "divide": "div", "power": "pow", "degrees": "rad2deg", "radians": "deg2rad",
    "conjugate": "conj",
}  # fmt: skip
#: Of arrays: ours, and torch's.
REDUCTIONS = {
    "max": (np.max, lambda t: t.amax), "min": (np.min, lambda t: t.amin),
    "sum": (np.sum, lambda t: t.sum), "mean": (np.mean, lambda t: t.mean),
    "norm": (np.linalg.norm, lambda t: t.linalg.norm),
    "prod": (np.prod, lambda t: t.prod),
    "cumprod": (np.cumprod, lambda t: lambda x: t.cumprod(x, 0)),
    "var": (np.var, lambda t: lambda x: t.var(x, correction=0)),
    "std": (np.std, lambda t: lambda x: t.std(x, correction=0)),
    "cumsum": (np.cumsum, lambda t: lambda x: t.cumsum(x, 0)),
    "sort": (np.sort, lambda t: lambda x: t.sort(x)[0]),
    "clip": (lambda x: np.clip(x, -1, 1), lambda t: lambda x: t.clamp(x, -1, 1)),
    "relu": (relu, lambda t: t.relu), "sigmoid": (sigmoid, lambda t: t.sigmoid),
    "softmax": (softmax, lambda t: lambda x: t.softmax(x, -1)),
    "gelu": (gelu, lambda t: lambda x: t.nn.functional.gelu(x, approximate="tanh")),
}  # fmt: skip
#: Where torch gives something else, and why this does not follow it.
DIFFERENT = {
    "absolute": "torch's sign of NaN is 0, so that a gradient of NaN would disappear",
    "fabs": "as absolute",
    "hypot": "NaN at (0, 0); a norm has slope 0 there, in torch too",
    "prod": "torch divides the product by the factor, which makes NaN of infinity; this multiplies the other factors",
    "cumprod": "as prod",
    "var": "infinity in torch for finite entries beside an infinite one, although the variance is NaN",
}  # fmt: skip


def with_torch(torch, function, points):
    tensors = [torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in points]
    y = function(*tensors)
    y.sum().backward()
    return [y.detach().numpy(), *(tensor.grad.numpy() for tensor in tensors)]


def with_ours(function, points):
    tensors = [Tensor(x) for x in points]
    with np.errstate(all="ignore"):
        y = function(*tensors)
        np.sum(y).backward()
    return [y.data, *(tensor.grad for tensor in tensors)]


def ufuncs():
    for function in DERIVATIVES:
        if isinstance(function, np.ufunc) and not function.signature:  # not np.matmul
            yield function


def compare(torch, ours, theirs, points):
    for a, b in zip(with_ours(ours, points), with_torch(torch, theirs, points), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-15, err_msg=str(points))


@pytest.mark.peers
@pytest.mark.parametrize("function", list(ufuncs()), ids=name_of)
def test_rules_of_numbers_are_torchs_at_special_points(function):
    torch = pytest.importorskip("torch")
    name = function.__name__
    theirs = getattr(torch, OTHER_NAMES.get(name, name), None)
    if theirs is None:
        assert name == "cbrt", f"say what {name} is called in torch"
        return
    for points in itertools.product(POINTS, repeat=function.nin):
        if name in DIFFERENT and (np.isnan(points).any() or not np.any(points)):
            continue
        compare(torch, function, theirs, points)


@pytest.mark.peers
@pytest.mark.parametrize("name", REDUCTIONS)
def test_rules_of_arrays_are_torchs_at_special_points(name):
    torch = pytest.importorskip("torch")
    ours, theirs = REDUCTIONS[name]
    for vector in VECTORS:
        if np.isfinite(vector).all() or name not in DIFFERENT:
            compare(torch, ours, theirs(torch), [np.array(vector, np.float64)])


@pytest.mark.parametrize("function", [np.max, np.min])
@pytest.mark.parametrize("axis", [None, 0, 1])
def test_the_gradient_of_a_maximum_that_is_nan_is_nan_without_a_warning(function, axis):
    x = Tensor([[NAN, 1.0, 2.0], [1.0, 3.0, 3.0]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.sum(function(x, axis=axis)).backward()
    broken = np.isnan(x.data).any(axis=axis, keepdims=True)
    np.testing.assert_array_equal(np.isnan(x.grad), np.broadcast_to(broken, x.shape))


@pytest.mark.parametrize("function", [np.logaddexp, np.logaddexp2])
def test_the_gradient_of_logaddexp_neither_overflows_nor_is_nan_at_infinity(function):
    pairs = [
        (INF, 0.0, 1.0),
        (-INF, 0.0, 0.0),
        (2000.0, 0.0, 1.0),
        (-2000.0, 0.0, 0.0),
        (0, 0, 0.5),
    ]
    for a, b, slope in pairs:
        for order in (1, -1):
            x, y = Tensor(float(a)), Tensor(float(b))
            with warnings.catch_warnings(), np.errstate(over="raise", invalid="raise"):
                warnings.simplefilter("error")
                function(*(x, y)[::order]).backward()
            assert (x.grad, y.grad) == (slope, 1 - slope)
    check_derivative(function, [-50.0, -3.0, 0.5, 40.0], [0.0, 1.0, 0.25, 1.0], order=3)


def test_what_is_different_is_still_so():
    """A reason that no longer holds is taken off the list."""
    names = {name_of(f).removeprefix("np.") for f in (*DERIVATIVES, *COMPOSITIONS)}
    assert names >= {"absolute", "fabs", "hypot", "prod", "cumprod", "var"} == set(DIFFERENT)
    for function in (np.absolute, np.fabs):
        assert np.isnan(with_ours(function, [NAN])[1])
    assert with_ours(np.hypot, [0.0, 0.0])[1:] == [0, 0]
    for first in (INF, NAN):
        np.testing.assert_array_equal(with_ours(np.prod, [[first, 1.0, 2.0]])[1], [2, first, first])
        np.testing.assert_array_equal(
            with_ours(np.cumprod, [[first, 1.0, 2.0]])[1], [4, first, first]
        )
    assert np.isnan(with_ours(np.var, [[INF, 1.0, 2.0]])[1]).all()


def test_relu_hands_nan_on():
    x = Tensor([NAN, 1.0, 0.0, -1.0])
    y = relu(x)
    np.sum(y).backward()
    np.testing.assert_array_equal(y.data, [NAN, 1, 0, 0])
    np.testing.assert_array_equal(x.grad, [1, 1, 0, 0])
