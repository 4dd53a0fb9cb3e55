"""Random programs, at first and second order, against torch: arrays of size 1, empty and of no
axis, mixed dtypes.

A program is drawn step by step: a step that NumPy refuses on plain arrays is drawn again, so that
all that is left must run with Tensors, with NumPy's values, shapes and dtypes. torch computes the
same in float64.
"""

import warnings

import numpy as np
import pytest

from lora_np.autograd import Tensor, grad, value
from tests.drawing import FULL, twentieth

pytestmark = pytest.mark.peers

PROGRAMS = 5000
CONSTANTS = ["bool", "int8", "uint8", "int16", "int32", "int64", "float16", "float32", "float64"]
#: How far gradients may be off, relative to the largest; of float16 only shape and dtype are looked at.
TOLERANCE = {2: np.inf, 4: 5e-3, 8: 1e-8}
LARGEST = 1e3
BEYOND = "torch raises"  # in its own second derivatives of std, for example


def axis_of(rng, a, *_):
    return int(rng.integers(-a.ndim, a.ndim)) if a.ndim else None


def some_axes(rng, a, *_):
    if a.ndim == 0 or rng.random() < 0.3:
        return None
    axes = tuple(int(i) for i in rng.permutation(a.ndim)[: rng.integers(1, a.ndim + 1)])
    return axes if len(axes) > 1 else axes[0]


def nothing(rng, *args):
    return None


def condition(rng, a, *_):
    return rng.random(a.shape) < 0.5


def index_of(rng, a, *_):
    n = len(a) if a.ndim else 0
    choices = [(Ellipsis,), (None,), (slice(None, None, 2),)]
    if n:
        choices += [
            (int(rng.integers(-n, n)),),
            (rng.integers(0, n, 3),),
            (rng.integers(0, n, (2, 1)),),
            (rng.random(n) < 0.5,),
        ]
        choices += [(slice(1, None),), (rng.integers(0, n, 0),)]
    if a.ndim > 1 and a.shape[1]:
        choices += [(slice(None), int(rng.integers(a.shape[1]))), (Ellipsis, slice(None, 1))]
    return choices[rng.integers(len(choices))]


def wider(rng, a, *_):
    return (
        *rng.integers(0, 3, rng.integers(0, 2)),
        *(rng.integers(1, 4) if n == 1 else n for n in a.shape),
    )


def permutation(rng, a, *_):
    return tuple(int(i) for i in rng.permutation(a.ndim))


def pads(rng, a, *_):
    return [(int(rng.integers(2)), int(rng.integers(3))) for _ in a.shape]


def pieces(rng, a, *_):
    axis = axis_of(rng, a)
    return None if axis is None else (int(rng.integers(1, 4)), axis)


def letters(rng, a, b):
    both = "ijklmn"[: a.ndim], "".join(rng.permutation(list("ijklmn"))[: b.ndim])
    known = sorted(set("".join(both)))
    return f"{','.join(both)}->{''.join(rng.permutation(known)[: rng.integers(len(known) + 1)])}"


def operations(torch):
    """Name, how many operands, what else is drawn, the step in NumPy, and in torch."""

    def over(f):
        """A reduction in torch, where no axis means all of them and an empty tuple is not all."""
        return lambda axis, a: f(a, tuple(range(a.ndim)) if axis is None else axis)

    def one_by_one(f):
        def reduce(axis, a):
            axes = (
                range(a.ndim)
                if axis is None
                else [i % a.ndim for i in np.atleast_1d(axis).tolist()]
            )
            for i in sorted(axes, reverse=True):
                a = f(a, dim=i)
            return a

        return reduce

    def flat(a):
        return a.reshape(-1)

    def square(a):
        return a.expand(len(a), len(a)) if a.ndim == 1 else a  # np.tril makes a square of a vector

    def solve(a, b):
        inverse = torch.linalg.inv(torch.tanh(a) + eye_of_torch(a))
        return inverse @ b if b.ndim > 1 else (inverse @ b[:, None])[..., 0]

    def clamp(a, b):
        a, b = torch.broadcast_tensors(a, b)
        return torch.clamp(a, torch.full_like(a, -1), b)

    def wide(b):
        return b * np.float64(1)  # functions of a constant alone would round in its own dtype

    def at(index):
        return tuple(torch.tensor(i) if isinstance(i, np.ndarray) else i for i in index)

    eye = lambda a: 3 * np.eye(a.shape[-1], dtype=value(a).dtype)
    eye_of_torch = lambda a: 3 * torch.eye(a.shape[-1], dtype=torch.float64)
    unary = {
        "tanh": (np.tanh, torch.tanh), "sin": (np.sin, torch.sin), "cos": (np.cos, torch.cos), "abs": (np.abs, torch.abs),
        "square": (np.square, torch.square), "arctan": (np.arctan, torch.arctan), "negative": (np.negative, torch.neg),
        "exp": (lambda a: np.exp(np.tanh(a)), lambda a: torch.exp(torch.tanh(a))),
        "log1p": (lambda a: np.log1p(a * a), lambda a: torch.log1p(a * a)),
        "sqrt": (lambda a: np.sqrt(a * a + 1), lambda a: torch.sqrt(a * a + 1)),
        "reciprocal": (lambda a: np.reciprocal(a * a + 1), lambda a: torch.reciprocal(a * a + 1)),
        "arcsinh": (np.arcsinh, torch.arcsinh), "sinh": (lambda a: np.sinh(np.tanh(a)), lambda a: torch.sinh(torch.tanh(a))),
        "ravel": (np.ravel, flat), "T": (np.transpose, lambda a: a.permute(tuple(range(a.ndim))[::-1])),
        "atleast_1d": (np.atleast_1d, torch.atleast_1d), "atleast_2d": (np.atleast_2d, torch.atleast_2d),
        "tril": (np.tril, lambda a: torch.tril(square(a))), "triu": (lambda a: np.triu(a, 1), lambda a: torch.triu(square(a), 1)),
        "diagonal": (np.diagonal, torch.diagonal), "diag": (np.diag, torch.diag), "squeeze": (np.squeeze, torch.squeeze),
        "trace": (np.trace, lambda a: torch.diagonal(a).sum(-1)), "flip": (np.flip, lambda a: torch.flip(a, tuple(range(a.ndim)))),
        "inv": (lambda a: np.linalg.inv(np.tanh(a) + eye(a)), lambda a: torch.linalg.inv(torch.tanh(a) + eye_of_torch(a))),
        "norm": (np.linalg.norm, lambda a: torch.linalg.vector_norm(a)),
        "tile": (lambda a: np.tile(a, 2), lambda a: torch.tile(a, (2,))), "repeat": (lambda a: np.repeat(a, 2), lambda a: flat(a).repeat_interleave(2)),
        "roll": (lambda a: np.roll(a, 1), lambda a: torch.roll(a, 1)), "copy": (np.copy, torch.clone),
    }  # fmt: skip
    binary = {
        "add": (np.add, torch.add), "subtract": (np.subtract, torch.sub), "multiply": (np.multiply, torch.mul),
        "divide": (lambda a, b: np.divide(a, np.square(wide(b)) + 1), lambda a, b: a / (b * b + 1)),
        "power": (lambda a, b: (np.abs(a) + 0.5) ** b, lambda a, b: (torch.abs(a) + 0.5) ** b),
        "exponent": (lambda a, b: (np.abs(wide(b)) + 0.5) ** np.tanh(a), lambda a, b: (torch.abs(b) + 0.5) ** torch.tanh(a)),
        "of constant": (lambda a, b: np.power(b, np.tanh(a)), lambda a, b: torch.pow(b, torch.tanh(a))),
        "maximum": (np.maximum, torch.maximum), "minimum": (np.minimum, torch.minimum),
        "arctan2": (np.arctan2, torch.arctan2), "hypot": (np.hypot, torch.hypot), "logaddexp": (np.logaddexp, torch.logaddexp),
        "remainder": (lambda a, b: np.remainder(a, np.abs(wide(b)) + 0.7), lambda a, b: torch.remainder(a, torch.abs(b) + 0.7)),
        "clip": (lambda a, b: np.clip(a, -1, b), clamp),
        "matmul": (np.matmul, torch.matmul), "outer": (np.outer, lambda a, b: torch.outer(flat(a), flat(b))),
        "dot": (np.dot, lambda a, b: a * b if 0 in (a.ndim, b.ndim) else torch.tensordot(a, b, dims=([a.ndim - 1], [max(b.ndim - 2, 0)]))),
        "inner": (np.inner, lambda a, b: a * b if 0 in (a.ndim, b.ndim) else torch.tensordot(a, b, dims=([a.ndim - 1], [b.ndim - 1]))),
        "kron": (np.kron, torch.kron), "append": (np.append, lambda a, b: torch.cat([flat(a), flat(b)])),
        "solve": (lambda a, b: np.linalg.solve(np.tanh(wide(a)) + eye(wide(a)), b), solve),
    }  # fmt: skip
    drawn = {
        "sum": (1, some_axes, lambda axis, a: np.sum(a, axis=axis), over(torch.sum)),
        "mean": (1, some_axes, lambda axis, a: np.mean(a, axis=axis), over(torch.mean)),
        "max": (1, some_axes, lambda axis, a: np.max(a, axis=axis), over(torch.amax)),
        "min": (1, some_axes, lambda axis, a: np.min(a, axis=axis), over(torch.amin)),
        "prod": (1, some_axes, lambda axis, a: np.prod(a, axis=axis), one_by_one(torch.prod)),
        "var": (1, some_axes, lambda axis, a: np.var(a, axis=axis), over(lambda a, dim: torch.var(a, dim, correction=0))),
        "std": (1, some_axes, lambda axis, a: np.std(a, axis=axis), over(lambda a, dim: torch.std(a, dim, correction=0))),
        "cumsum": (1, axis_of, lambda axis, a: np.cumsum(a, axis=axis), lambda axis, a: torch.cumsum(flat(a) if axis is None else a, axis or 0)),
        "cumprod": (1, axis_of, lambda axis, a: np.cumprod(a, axis=axis), lambda axis, a: torch.cumprod(flat(a) if axis is None else a, axis or 0)),
        "sort": (1, axis_of, lambda axis, a: np.sort(a, axis=axis), lambda axis, a: torch.sort(flat(a) if axis is None else a, stable=True, dim=axis or 0).values),
        "diff": (1, axis_of, lambda axis, a: np.diff(a, axis=-1 if axis is None else axis), lambda axis, a: torch.diff(a, dim=axis)),
        "norms": (1, axis_of, lambda axis, a: np.linalg.norm(a, axis=axis), lambda axis, a: torch.linalg.vector_norm(a, dim=axis)),
        "expand_dims": (1, axis_of, lambda axis, a: np.expand_dims(a, axis or 0), lambda axis, a: a.unsqueeze(axis or 0)),
        "transpose": (1, permutation, lambda axes, a: np.transpose(a, axes), lambda axes, a: a.permute(axes)),
        "broadcast_to": (1, wider, lambda shape, a: np.broadcast_to(a, shape), lambda shape, a: a.broadcast_to(tuple(map(int, shape)))),
        "getitem": (1, index_of, lambda index, a: a[index], lambda index, a: a[at(index)]),
        "pad": (1, pads, lambda widths, a: np.pad(a, widths), lambda widths, a: torch.nn.functional.pad(a, [n for pair in widths[::-1] for n in pair]) if widths else a),
        "split": (1, pieces, lambda cut, a: np.array_split(a, *cut)[0], lambda cut, a: torch.tensor_split(a, cut[0], dim=cut[1])[0]),
        "where": (2, condition, lambda c, a, b: np.where(c, a, b), lambda c, a, b: torch.where(torch.tensor(c), a, b)),
        "concatenate": (2, axis_of, lambda axis, a, b: np.concatenate([a, b, a], axis=axis or 0), lambda axis, a, b: torch.cat([a, b, a], dim=axis or 0)),
        "stack": (2, axis_of, lambda axis, a, b: np.stack([a, b], axis=axis or 0), lambda axis, a, b: torch.stack([a, b], dim=axis or 0)),
        "einsum": (2, letters, lambda text, a, b: np.einsum(text, a, b), lambda text, a, b: torch.einsum(text, a, b)),
        "tensordot": (2, lambda rng, a, b: int(rng.integers(0, 3)), lambda n, a, b: np.tensordot(a, b, n), lambda n, a, b: torch.tensordot(a, b, n)),
    }  # fmt: skip

    def without_settings(arity, pair):
        return (arity, nothing, *((lambda _, *args, f=f: f(*args)) for f in pair))

    return drawn | {
        name: without_settings(arity, pair)
        for arity, group in ((1, unary), (2, binary))
        for name, pair in group.items()
    }


def shape_of(rng):
    return tuple(int(n) for n in rng.choice([0, 1, 1, 2, 2, 3], rng.integers(0, 4)))


class Program:
    """Leaves, constants, and steps: the number of an operation, of its operands, and what else it
    takes.
    """

    def __init__(self, seed, table):
        rng = np.random.default_rng(seed)
        width = rng.choice([8, 8, 8, 8, 8, 8, 8, 4, 4, 2])
        self.leaves = [
            (rng.standard_normal(shape_of(rng))).astype(f"f{width}")
            for _ in range(rng.integers(1, 4))
        ]
        self.leaves = [
            a if i or width == 2 else a.astype(np.float64) for i, a in enumerate(self.leaves)
        ]
        self.constants, self.steps, self.width, self.text = [], [], width, [f"seed {seed}"]
        values = [np.asarray(a) for a in self.leaves]
        names = list(table)
        for _ in range(200):
            if len(self.steps) == 6:
                break
            name = names[rng.integers(len(names))]
            arity, draw, step, _ = table[name]
            operands, constants = [int(rng.integers(len(values)))], []
            if arity == 2:
                if rng.random() < 0.5:
                    shape = values[operands[0]].shape if rng.random() < 0.6 else shape_of(rng)
                    constants = [(2 * rng.standard_normal(shape)).astype(rng.choice(CONSTANTS))]
                    operands.append(~len(self.constants))
                else:
                    operands.append(int(rng.integers(len(values))))
                if name not in ("exponent", "of constant", "power") and rng.random() < 0.5:
                    operands.reverse()
            args = [values[i] if i >= 0 else constants[0] for i in operands]
            try:
                settings = draw(rng, *args)
                y = np.asarray(step(settings, *args))
            except (ValueError, TypeError, IndexError, ZeroDivisionError, np.linalg.LinAlgError):
                continue
            if y.size > 60 or y.dtype.kind != "f" or not np.all(np.abs(y) < LARGEST):
                continue
            self.constants += constants
            self.steps.append((name, operands, settings))
            self.text.append(f"{len(values)} = {name}({operands}, {settings}): {y.dtype} {y.shape}")
            values.append(y)
        self.results = values
        self.weights = [rng.standard_normal(y.shape) for y in values]
        self.directions = [rng.standard_normal(a.shape) for a in self.leaves]

    def run(self, leaves, constants, steps):
        values = list(leaves)
        for name, operands, settings in self.steps:
            values.append(
                steps[name](settings, *(values[i] if i >= 0 else constants[~i] for i in operands))
            )
        return values


def ours(program, table):
    """The values of all steps, and gradients of first and second order of a weighed sum of them."""
    steps = {name: row[2] for name, row in table.items()}

    def loss(*leaves):
        values = program.run(leaves, program.constants, steps)
        return sum(np.sum(v * w) for v, w in zip(values, program.weights, strict=True))

    leaves = [Tensor(a) for a in program.leaves]
    values = program.run(leaves, program.constants, steps)
    sum(np.sum(v * w) for v, w in zip(values, program.weights, strict=True)).backward()
    first = [x.grad for x in leaves]
    again = [Tensor(a) for a in program.leaves]
    slopes = grad(loss, argument=tuple(range(len(again))))(*again)
    total = sum(np.sum(g * v) for g, v in zip(slopes, program.directions, strict=True))
    if isinstance(total, Tensor):
        total.backward()
    return (
        [value(v) for v in values],
        first,
        [np.zeros_like(x.data) if x.grad is None else x.grad for x in again],
    )


def theirs(program, table, torch):
    steps = {name: row[3] for name, row in table.items()}
    leaves = [torch.tensor(a.astype(np.float64), requires_grad=True) for a in program.leaves]
    constants = [torch.tensor(np.asarray(a, np.float64)) for a in program.constants]
    values = program.run(leaves, constants, steps)
    loss = sum((v * torch.tensor(w)).sum() for v, w in zip(values, program.weights, strict=True))
    first = torch.autograd.grad(loss, leaves, create_graph=True)
    total = sum((g * torch.tensor(v)).sum() for g, v in zip(first, program.directions, strict=True))
    second = (
        torch.autograd.grad(total, leaves, allow_unused=True)
        if total.requires_grad
        else [None] * len(leaves)
    )
    return (
        [g.numpy(force=True) for g in first],
        [
            np.zeros_like(a, np.float64) if g is None else g.numpy(force=True)
            for g, a in zip(second, program.leaves, strict=True)
        ],
    )


def differ(a, b, tolerance):
    """Where torch has a number; at a kink it may have none."""
    there = np.isfinite(b) & (tolerance < np.inf)
    largest = np.max(np.abs(b[there]), initial=1.0)
    return a.shape != b.shape or not np.all(np.abs(a[there] - b[there]) <= tolerance * largest)


def problem_of(program, table, torch):
    values, *gradients = ours(program, table)
    narrowest = min(y.dtype.itemsize for y in program.results)
    for i, (found, expected) in enumerate(zip(values, program.results, strict=True)):
        if found.shape != expected.shape or found.dtype != expected.dtype:
            return (
                f"value {i}: {found.dtype} {found.shape}, NumPy's {expected.dtype} {expected.shape}"
            )
        if differ(found, expected, TOLERANCE[narrowest] / 10):
            return f"value {i}: {found}, NumPy's {expected}"
    try:
        of_torch = theirs(program, table, torch)
    except RuntimeError:
        return BEYOND
    for order, (found, expected) in enumerate(zip(gradients, of_torch, strict=True), 1):
        for i, (a, b) in enumerate(zip(found, expected, strict=True)):
            if a.dtype != program.leaves[i].dtype or differ(a, b, TOLERANCE[narrowest]):
                return f"gradient of order {order} by leaf {i}: {a} ({a.dtype}), torch's {b}"
    return None


def test_random_programs_have_torchs_gradients():
    torch = pytest.importorskip("torch")
    table = operations(torch)
    failures, used, beyond = [], set(), 0
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        for seed in twentieth(range(PROGRAMS)):
            program = Program(seed, table)
            used |= {name for name, _, _ in program.steps}
            try:
                problem = problem_of(program, table, torch)
            except Exception as error:
                problem = repr(error)
            beyond += problem is BEYOND
            if problem and problem is not BEYOND:
                failures.append("\n".join([*program.text, *map(repr, program.leaves), problem]))
    assert not failures, "\n\n".join([f"{len(failures)} programs", *failures[:10]])
    assert beyond <= PROGRAMS / 100
    assert not FULL or used == set(table)
