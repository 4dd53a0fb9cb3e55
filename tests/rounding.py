"""Two results in float32 are both rounded: each is judged from float64, never one from the other.

What a processor rounds depends on its kernels, so no fixed limit between two roundings holds
everywhere. Ours may be twice as far from the exact result as a peer's is.
"""

import contextlib
import copy

import numpy as np
import pytest

import lora_np as lnp

#: Units in the last place that a result of some layers may be off, if a peer's error is less by luck.
FLOOR = 64
UNIT = float(np.finfo(np.float32).eps)


def array(x):
    return x.detach().numpy() if hasattr(x, "detach") else np.asarray(lnp.value(x))


def error(result, exact):
    """How far an array is from the exact one, relative to it: norms, whose noise is small.

    Of arrays by name, the root mean square of the errors.
    """
    if isinstance(exact, dict):
        assert result.keys() == exact.keys()
        return float(np.sqrt(np.mean([error(result[name], exact[name]) ** 2 for name in exact])))
    result, exact = array(result), array(exact).astype(float)
    assert result.shape == exact.shape, (result.shape, exact.shape)
    distance = float(np.linalg.norm(result - exact))
    return distance and distance / float(np.linalg.norm(exact))


def allowed(theirs, exact, floor=FLOOR, unit=UNIT):
    """The error that a result of ours may have where a peer's is `theirs`."""
    peers = error(theirs, exact)
    assert peers < 1000 * unit, "what is taken for exact is something else"
    return max(floor * unit, 2 * peers)


def assert_as_near(ours, theirs, exact, floor=FLOOR, unit=UNIT):
    """Refuse `ours` if it is farther from `exact` than twice `theirs`, with a floor in units."""
    assert error(ours, exact) <= allowed(theirs, exact, floor, unit)


def assert_near(ours, exact, floor=FLOOR, unit=UNIT):
    """Refuse `ours` if it is farther from `exact` than so many units: where no peer computes it."""
    assert_as_near(ours, exact, exact, floor, unit)


def assert_again(losses, recorded, within=1e-3):
    """Refuse the log losses of a training's seeds if they are not those recorded.

    Training amplifies rounding: where BLAS has another kernel, most seeds end within 1e-4 of the
    recorded loss, but a seed may end elsewhere. So the median seed is judged.
    """
    differences = np.abs(np.subtract(losses, recorded))
    assert np.median(differences) < within, differences


def in_double(tree):
    """A model of ours with the same numbers in float64."""
    wide = lambda a: a.astype(float) if a.dtype == np.float32 else a
    tree = lnp.replace(tree, np.ndarray, lambda path, a: wide(a))
    return lnp.replace(tree, lnp.Tensor, lambda path, t: lnp.Tensor(wide(t.data)))


def torch_in_double(model):
    """A copy of a model of transformers or PEFT that computes everything in float64.

    Norms, angles and softmax too, which transformers computes in float32 whatever the dtype.
    """
    import torch

    @contextlib.contextmanager
    def nothing_in_float32():
        before = torch.get_default_dtype()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch, "float", torch.float64)
            patch.setattr(torch, "float32", torch.float64)
            patch.setattr(torch.Tensor, "float", torch.Tensor.double)
            torch.set_default_dtype(torch.float64)
            try:
                yield
            finally:
                torch.set_default_dtype(before)

    model = copy.deepcopy(model).double()
    for module in model.modules():
        if getattr(getattr(module, "config", None), "_experts_implementation", None):
            module.config._experts_implementation = "eager"  # the others take no float64
        if any("inv_freq" in name for name, _ in module.named_buffers(recurse=False)):
            with nothing_in_float32():
                vars(module).update(vars(type(module)(module.config)))
        if isinstance(getattr(module, "embed_scale", None), torch.Tensor):
            scale = round(float(module.embed_scale) ** 2) ** 0.5  # the root of a size
            module.embed_scale = torch.tensor(scale, dtype=torch.float64)
    forward = model.forward

    def widened(x):
        return x.double() if isinstance(x, torch.Tensor) and x.is_floating_point() else x

    def in_float64(*inputs, **options):
        options = {name: widened(option) for name, option in options.items()}
        with nothing_in_float32():
            return forward(*map(widened, inputs), **options)

    model.forward = in_float64
    return model
