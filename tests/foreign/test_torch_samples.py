"""torch's sample inputs: wherever NumPy's function of the same name gives torch's values, gradients
must agree too.
"""

import collections

import numpy as np
import pytest

from lora_np.autograd import Tensor, value
from lora_np.autograd.tables import COMPOSITIONS, DERIVATIVES

torch = pytest.importorskip("torch")
pytest.importorskip("expecttest", reason="torch.testing._internal needs it")
pytestmark = [pytest.mark.foreign, pytest.mark.filterwarnings("ignore")]

NAMES = {
    "sub": "subtract", "mul": "multiply", "div": "divide", "neg": "negative", "amax": "max", "amin": "min", "pow": "power",
    "abs": "absolute", "acos": "arccos", "asin": "arcsin", "atan": "arctan", "atan2": "arctan2", "acosh": "arccosh",
    "asinh": "arcsinh", "atanh": "arctanh", "max": "maximum", "min": "minimum",
}  # fmt: skip
SETTINGS = {"dim": "axis", "keepdim": "keepdims", "ord": "ord", "axis": "axis"}

ROWS = {
    "equal": "values and gradients equal",
    "different": "values equal, gradients different",
    "other meaning": "NumPy's function of this name gives another value, or takes other arguments",
    "other arguments": "arguments that NumPy does not have, or a list of arrays",
    "several results or none": "several results, or none with a gradient",
    "refused": "rejected, with an error that names the function or argument",
}


def operations():
    from torch.testing._internal.common_methods_invocations import op_db

    for op in op_db:
        name = op.name.removeprefix("linalg.")
        function = getattr(
            np.linalg if op.name.startswith("linalg.") else np, NAMES.get(name, name), None
        )
        if (function in DERIVATIVES or function in COMPOSITIONS) and torch.float64 in op.dtypes:
            yield op, function


def test_gradients_of_torchs_samples(on_page):
    tally, different = collections.Counter(), collections.defaultdict(list)
    rng = np.random.default_rng(0)
    for op, function in operations():
        torch.manual_seed(0)
        for sample in list(op.sample_inputs("cpu", torch.float64, requires_grad=True))[:60]:
            try:
                outcome = compare(op, function, sample, rng)
            except Exception as problem:
                outcome = "error"
                different[op.name].append((sample, repr(problem)))
            tally[outcome] += 1
            if outcome == "different":
                different[op.name].append(sample)
    assert not different, {name: samples[0] for name, samples in different.items()}
    assert tally["equal"] > 560
    on_page(
        "torch",
        torch.__version__.split("+")[0],
        "samples",
        {row: tally[outcome] for outcome, row in ROWS.items()},
    )


def compare(op, function, sample, rng):
    theirs = [sample.input, *sample.args]
    if not set(sample.kwargs) <= set(SETTINGS) or any(
        isinstance(a, (list, tuple)) and not isinstance(a[0] if a else 0, int) for a in theirs
    ):
        return "other arguments"  # fmt: skip
    bare = [a.detach().numpy() if isinstance(a, torch.Tensor) else a for a in theirs]
    ours = [
        Tensor(a) if isinstance(t, torch.Tensor) and t.requires_grad else a
        for a, t in zip(bare, theirs, strict=True)
    ]
    settings = {SETTINGS[name]: setting for name, setting in sample.kwargs.items()}
    z = op(sample.input, *sample.args, **sample.kwargs)
    if not isinstance(z, torch.Tensor) or not z.requires_grad:
        return "several results or none"
    try:
        expected = function(*bare, **settings)
    except Exception:
        return "other meaning"  # of arguments or of the name
    if np.shape(expected) != tuple(z.shape) or not np.allclose(
        expected, z.detach().numpy(), equal_nan=True
    ):
        return "other meaning"
    try:
        y = function(*ours, **settings)
    except TypeError:
        return "refused"
    np.testing.assert_allclose(value(y), expected, rtol=1e-9, atol=1e-12)
    w = rng.standard_normal(np.shape(y))
    if isinstance(y, Tensor):
        y.backward(w)
    gradients = torch.autograd.grad(
        z,
        [t for t in theirs if isinstance(t, torch.Tensor) and t.requires_grad],
        torch.tensor(w),
        allow_unused=True,
    )
    leaves = [a for a in ours if isinstance(a, Tensor)]
    for a, g in zip(leaves, gradients, strict=True):
        mine = np.zeros(a.shape) if a.grad is None else a.grad
        if not np.allclose(
            mine, 0 if g is None else g.numpy(), rtol=1e-7, atol=1e-9, equal_nan=True
        ):
            return "different"
    return "equal"
