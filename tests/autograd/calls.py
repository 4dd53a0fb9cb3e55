"""Drawn calls of the functions in the tables: array arguments, keywords and indices as NumPy takes
them.
"""

import array
import operator
from collections import deque

import numpy as np

from lora_np.autograd.methods import astype

MODES = ("constant", "edge", "reflect", "symmetric", "wrap")
#: Where a function is smooth, and far from its kinks and poles.
DOMAINS = {
    **dict.fromkeys((np.arcsin, np.arccos, np.arctanh), (-0.8, 0.8)),
    **dict.fromkeys((np.sqrt, np.log, np.log1p, np.log2, np.log10, np.power), (0.4, 1.6)),
    np.arccosh: (1.5, 2.5),
    np.tan: (-1.2, 1.2),
}
SETTINGS_OF_UFUNCS = ("out", "where", "dtype", "casting", "order", "subok")


def real(rng, shape, low=-2.0, high=2.0):
    """Distinct values, none close to zero."""
    values = rng.permutation(np.linspace(low, high, 4 * int(np.prod(shape)) + 3))
    values = values[np.abs(values) > 0.05][: int(np.prod(shape, dtype=int))]
    return (values * rng.uniform(0.97, 1.03, values.shape)).reshape(shape)


def shape_of(rng, least=0, most=3):
    sizes = rng.choice(4, rng.integers(least, most + 1), p=[0.06, 0.3, 0.32, 0.32])
    return tuple(sizes.tolist())


def narrower(rng, shape):
    """A shape that broadcasts against ``shape``."""
    return tuple(n if rng.random() < 0.6 else 1 for n in shape[rng.integers(len(shape) + 1) :])


def as_any(rng, numbers, *, ints=True):
    """Whole numbers in one of the forms that NumPy takes for them."""
    numbers = np.asarray(numbers)
    forms = [numbers, numbers.tolist(), numbers.astype(rng.choice(["i1", "i4", "i8"]))]
    if numbers.ndim == 0:
        forms += [np.int16(numbers), int(numbers)]
    elif numbers.ndim == 1:
        forms += [tuple(numbers.tolist()), array.array("q", numbers.tolist())]
    return forms[rng.integers(len(forms))]


def some_axes(rng, ndim, most=None):
    axes = rng.permutation(ndim)[: rng.integers(1, (most or ndim) + 1)] if ndim else []
    return tuple(int(i) - ndim * int(rng.random() < 0.3) for i in axes)


def axis_of(rng, a):
    return int(rng.integers(-a.ndim, a.ndim)) if a.ndim else 0


def axes_of(rng, a):
    """One axis, several or all of them."""
    axes = some_axes(rng, a.ndim)
    return [None, axes, axes[0] if axes else None, ()][rng.choice(4, p=[0.3, 0.3, 0.3, 0.1])]


def part_of_index(rng, n):
    """What may stand for an axis of length ``n`` in an index."""
    kind = rng.integers(12)
    some = rng.integers(-n, n, rng.integers(0, 4))
    if kind == 0:
        return int(rng.integers(-n, n))
    if kind == 1:
        return np.array(rng.integers(-n, n))[()]
    if kind == 2:
        return np.array(rng.integers(-n, n))
    if kind in (3, 4):
        ends = [None, *range(-n, n + 1)]
        start, stop = (ends[i] for i in rng.integers(len(ends), size=2))
        return slice(start, stop, [None, 1, 2, -1, -2][rng.integers(5)])
    if kind == 5:
        return some.tolist()
    if kind == 6:
        return tuple(some.tolist()) or [0]
    if kind == 7:
        return array.array("i", some.tolist())
    if kind == 8:
        return range(int(rng.integers(0, n + 1)))
    if kind == 9:
        return rng.integers(-n, n, shape_of(rng, 1, 2)).astype(rng.choice(["i1", "i4", "i8"]))
    mask = rng.random(n) < 0.6
    return mask if kind == 10 else mask.tolist()


def index_of(rng, shape):
    """An index of any kind: alone, or in a tuple with slices, None and an ellipsis."""
    kind = rng.integers(8)
    if kind == 0:
        return rng.random(shape) < 0.5
    if kind == 1:
        return [None, Ellipsis, (), True, False, np.True_][rng.integers(6)]
    if kind == 2 and shape:
        whole = rng.integers(0, shape[0], shape_of(rng, 1, 2))
        return [whole.tolist(), deque(whole.ravel().tolist()), whole.astype("u1")][rng.integers(3)]
    if kind == 3 and shape:
        return part_of_index(rng, shape[0])
    if kind == 4 and len(shape) > 1:  # as from zip(*pairs)
        pairs = [[int(rng.integers(n)) for n in shape[:2]] for _ in range(rng.integers(1, 5))]
        return tuple(zip(*pairs, strict=True))
    used = shape[: rng.integers(len(shape) + 1)]
    parts = [part_of_index(rng, n) for n in used]
    if len(parts) > 1 and rng.random() < 0.2:
        parts[:2] = [rng.random(shape[:2]) < 0.5]
    if rng.random() < 0.4:
        parts.insert(rng.integers(len(parts) + 1), None)
    if len(used) == len(shape) and rng.random() < 0.4:
        parts.insert(rng.integers(len(parts) + 1), Ellipsis)
    return tuple(parts)


class Call:
    """A function, its array arguments, and how they and settings make a call."""

    def __init__(self, function, arrays, settings=None, *, build=None):
        self.function, self.arrays, self.settings = function, arrays, settings or {}
        self.build = build or (lambda f, arrays, **settings: f(*arrays, **settings))

    def __call__(self, *arrays, **changed):
        return self.build(self.function, arrays, **{**self.settings, **changed})

    def __repr__(self):
        name = getattr(self.function, "__name__", self.function)
        return f"{name}(*{self.arrays!r}, **{self.settings!r})"


def positional(*names):
    """A call whose settings of these names are given by position."""

    def build(f, arrays, **settings):
        first = []
        for name in names:
            if name not in settings:
                break
            first.append(settings.pop(name))
        return f(*arrays, *first, **settings)

    return build


def sequence(f, arrays, **settings):
    return f(list(arrays), **settings)


def chosen(rng, settings, share=0.5):
    """Some of the settings, in any number."""
    return {name: draw() for name, draw in settings.items() if rng.random() < share}


def common(rng, a, *, where=True):
    """Settings that are refused, unless they say what NumPy does anyway."""
    names = {
        "dtype": lambda: [None, np.float64, np.float32][rng.integers(3)],
        "out": lambda: [None, np.zeros(np.shape(a)), "operand"][rng.integers(3)],
    }
    if where:
        names["where"] = lambda: [True, rng.random(np.shape(a)) < 0.5][rng.integers(2)]
    return chosen(rng, names, 0.12)


def of_ufunc(rng, f):
    low, high = DOMAINS.get(f, (-2.0, 2.0))
    shape = shape_of(rng)
    if f is np.matmul:
        return of_matmul(rng, f)
    arrays = [real(rng, shape, low, high)]
    if f.nin == 2:
        arrays.append(real(rng, narrower(rng, shape), low, high))
        if rng.random() < 0.5:
            arrays.reverse()
    if f in (np.remainder, np.fmod):
        arrays = [rng.uniform(2.1, 2.9, a.shape) * 1.0 for a in arrays]
        arrays[1] = arrays[1] * 0 + rng.uniform(0.9, 1.1, arrays[1].shape)
        arrays[0] = rng.uniform(2.3, 2.6, arrays[0].shape)
    settings = common(rng, arrays[0]) | chosen(rng, {
        "casting": lambda: ["same_kind", "unsafe"][rng.integers(2)],
        "order": lambda: ["K", "C"][rng.integers(2)], "subok": lambda: bool(rng.integers(2)),
    }, 0.1)  # fmt: skip
    return Call(f, arrays, settings)


def of_matmul(rng, f):
    n = int(rng.integers(1, 4))
    left, right = (
        [(n,), (2, n), (3, 2, n)][rng.integers(3)],
        [(n,), (n, 2), (3, n, 2)][rng.integers(3)],
    )
    return Call(f, [real(rng, left), real(rng, right)], common(rng, 0.0, where=False))


def reduction(rng, f):
    a = real(rng, shape_of(rng), *((0.4, 1.6) if f is np.prod else (-2.0, 2.0)))
    settings = common(rng, a) | chosen(rng, {
        "axis": lambda: axes_of(rng, a), "keepdims": lambda: bool(rng.integers(2)),
    })  # fmt: skip
    if f in (np.var, np.std):
        settings |= chosen(
            rng, {"ddof": lambda: int(rng.integers(2)), "correction": lambda: 0.5}, 0.2
        )
    elif f is not np.mean:
        settings |= chosen(rng, {"initial": lambda: 3.0}, 0.1)
    return Call(f, [a], settings)


def simple(*drawers, build=None, least=0, most=3, **settings):
    """One array, and settings that are drawn from it; those in ``drawers`` are always given."""

    def draw(rng, f):
        a = real(rng, shape_of(rng, least, most))
        given = {name: how(rng, a) for name, how in drawers}
        given |= chosen(rng, {name: lambda how=how: how(rng, a) for name, how in settings.items()})
        if rng.random() < 0.1 and "out" in OUT.get(f, ()):
            given["out"] = [None, np.zeros(a.shape), "operand"][rng.integers(3)]
        return Call(f, [a], given, build=build)

    return draw


def several(*, build=sequence, same=False, least=0, **settings):
    """Several arrays in a sequence."""

    def draw(rng, f):
        shape = shape_of(rng, least)
        arrays = [real(rng, shape) for _ in range(rng.integers(1, 4))]
        a = arrays[0]
        given = chosen(rng, {name: lambda how=how: how(rng, a) for name, how in settings.items()})
        given |= chosen(rng, {
            "dtype": lambda: [None, np.float32][rng.integers(2)], "casting": lambda: "same_kind",
            "out": lambda: [None, np.zeros((1,))][rng.integers(2)],
        }, 0.05 if f is not np.column_stack else 0.0)  # fmt: skip
        return Call(f, arrays, given, build=build)

    return draw


def of_where(rng, f):
    shape = shape_of(rng)
    condition = rng.random(narrower(rng, shape)) < 0.5
    forms = [condition, condition.tolist(), condition.astype(int), condition * 2.0]
    return Call(f, [real(rng, shape), real(rng, narrower(rng, shape))],
                {"condition": forms[rng.integers(4)]}, build=lambda f, a, condition: f(condition, *a))  # fmt: skip


def of_clip(rng, f):
    a = real(rng, shape_of(rng))
    low = real(rng, narrower(rng, a.shape), -1.5, -0.1) + 0.003
    high = real(rng, narrower(rng, a.shape), 0.1, 1.5) + 0.003
    form = rng.integers(6)
    if form == 0:
        return Call(f, [a, low, high], common(rng, a))
    if form == 1:
        return Call(f, [a, low, high], build=lambda f, a: f(a[0], min=a[1], max=a[2]))
    if form == 2:
        return Call(f, [a, high], build=lambda f, a: f(a[0], max=a[1]))
    if form == 3:
        return Call(f, [a, low], build=lambda f, a: f(a[0], min=a[1]))
    if form == 4:
        return Call(f, [a, low, high], build=lambda f, a: f(a[0], a_max=a[2], a_min=a[1]))
    return Call(f, [a, high], build=lambda f, a: f(a[0], None, a[1]))


def of_tensordot(rng, f):
    a = real(rng, shape_of(rng, 1))
    count = int(rng.integers(0, a.ndim + 1))
    mine = rng.permutation(a.ndim)[:count]
    others = shape_of(rng, 0, 1)
    b = real(rng, (*(a.shape[i] for i in mine), *others))
    theirs = rng.permutation(count)
    b = (
        np.ascontiguousarray(
            np.transpose(b, (*np.argsort(np.argsort(theirs)), *range(count, b.ndim)))
        )
        if count
        else b
    )
    b = real(rng, (*(a.shape[mine[list(theirs).index(i)]] for i in range(count)), *others))
    axes = (as_any(rng, mine.astype(int)), as_any(rng, theirs.astype(int)))
    if rng.random() < 0.2:
        return Call(f, [a, real(rng, (*a.shape[a.ndim - count :], *others))], {"axes": count})
    return Call(f, [a, b], {"axes": [axes, list(axes)][rng.integers(2)]})


def of_einsum(rng, f):
    letters, sizes = "abcd", rng.integers(1, 4, 4)
    labels = [
        "".join(rng.permutation(list(letters))[: rng.integers(1, 4)])
        for _ in range(rng.integers(1, 4))
    ]
    known = sorted(set("".join(labels)))
    output = "".join(rng.permutation(known)[: rng.integers(len(known) + 1)])
    arrays = [real(rng, tuple(int(sizes[letters.index(c)]) for c in label)) for label in labels]
    settings = chosen(rng, {
        "optimize": lambda: [True, False, "greedy", "optimal"][rng.integers(4)],
        "out": lambda: [None, np.zeros(tuple(int(sizes[letters.index(c)]) for c in output))][rng.integers(2)],
        "dtype": lambda: [None, np.float32][rng.integers(2)], "casting": lambda: "safe", "order": lambda: "K",
    }, 0.15)  # fmt: skip
    subscripts = f"{','.join(labels)}->{output}"
    return Call(f, arrays, settings, build=lambda f, a, **settings: f(subscripts, *a, **settings))


def of_solve(rng, f):
    n = int(rng.integers(1, 4))
    stack = shape_of(rng, 0, 1)
    a = real(rng, (*stack, n, n)) * 0.3 + 3 * np.eye(n)
    if f is np.linalg.inv:
        return Call(f, [a])
    return Call(f, [a, real(rng, (n,) if rng.random() < 0.4 else (*stack, n, 2))])


def of_pad(rng, f):
    a = real(rng, shape_of(rng, 1, 2))
    widths = rng.integers(0, 3, (a.ndim, 2))
    forms = [
        int(widths[0, 0]),
        widths,
        widths.tolist(),
        tuple(map(tuple, widths.tolist())),
        [int(widths[0, 1])],
    ]
    mode = MODES[rng.integers(5)]
    settings = {"pad_width": forms[rng.integers(5)], "mode": mode}
    if mode == "constant" and rng.random() < 0.5:
        settings["constant_values"] = [2.0, (1.0, 2.0)][rng.integers(2)]
    if mode in ("reflect", "symmetric") and rng.random() < 0.2:
        settings["reflect_type"] = ["even", "odd"][rng.integers(2)]
    return Call(f, [a], settings, build=positional("pad_width"))


def of_take(rng, f):
    a = real(rng, shape_of(rng, 1))
    axis = [None, axis_of(rng, a)][rng.integers(2)]
    n = a.size if axis is None else a.shape[axis]
    settings = {"indices": as_any(rng, rng.integers(-n, n, shape_of(rng, 0, 2)))}
    settings |= {"axis": axis} if axis is not None or rng.random() < 0.5 else {}
    settings |= chosen(
        rng, {"mode": lambda: ["raise", "wrap", "clip"][rng.integers(3)], "out": lambda: None}, 0.15
    )
    return Call(f, [a], settings, build=positional("indices"))


def of_take_along_axis(rng, f):
    a = real(rng, shape_of(rng, 1))
    axis = axis_of(rng, a)
    shape = list(a.shape)
    shape[axis] = int(rng.integers(1, 4))
    indices = rng.integers(-a.shape[axis], a.shape[axis], shape)
    return Call(f, [a], {"indices": indices, "axis": axis})


def of_delete(rng, f):
    a = real(rng, shape_of(rng, 1))
    axis = [None, axis_of(rng, a)][rng.integers(2)]
    n = a.size if axis is None else a.shape[axis]
    forms = [
        int(rng.integers(-n, n)),
        slice(0, n, 2),
        rng.integers(0, n, 2),
        rng.integers(0, n, 2).tolist(),
        rng.random(n) < 0.5,
    ]
    return Call(f, [a], {"obj": forms[rng.integers(5)], "axis": axis})


def of_split(rng, f):
    a = real(rng, (int(rng.integers(1, 3)) * 2, *shape_of(rng, 0, 1)))
    forms = [2, np.int64(1), [1], (1, 2), np.array([1, 3]), []]
    return Call(
        f, [a], {"indices_or_sections": forms[rng.integers(6)]} | chosen(rng, {"axis": lambda: 0})
    )


def of_getitem(rng, f):
    a = real(rng, shape_of(rng))
    return Call(f, [a], {"index": index_of(rng, a.shape)}, build=lambda f, a, index: f(a[0], index))


def permutation(rng, a):
    axes = rng.permutation(a.ndim) - a.ndim * (rng.random(a.ndim) < 0.2)
    return [None, as_any(rng, axes.astype(int))][rng.integers(2)]


def new_shape(rng, a):
    shape = [a.size] if rng.random() < 0.5 else [*a.shape[::-1]]
    if rng.random() < 0.3 and shape:
        shape[rng.integers(len(shape))] = -1
    return [shape, tuple(shape), np.array(shape, int)][rng.integers(3)]


def pair(rng, a):
    return some_axes(rng, a.ndim, 2) if a.ndim > 1 else (0, 0)


def two_axes(rng, a):
    return tuple(int(i) for i in rng.permutation(a.ndim)[:2])


def of_moveaxis(rng, f):
    a = real(rng, shape_of(rng, 1))
    count = int(rng.integers(1, a.ndim + 1))
    source, destination = (rng.permutation(a.ndim)[:count].astype(int) for _ in range(2))
    if count == 1 and rng.random() < 0.5:
        return Call(f, [a], {"source": int(source[0]), "destination": int(destination[0])})
    return Call(f, [a], {"source": as_any(rng, source), "destination": as_any(rng, destination)})


def of_norm(rng, f):
    a = real(rng, shape_of(rng, 1))
    return Call(f, [a], chosen(rng, {
        "ord": lambda: [None, 2, "fro", 1, np.inf][rng.integers(5)], "axis": lambda: axes_of(rng, a),
        "keepdims": lambda: bool(rng.integers(2)),
    }))  # fmt: skip


def of_two(*shapes, **settings):
    """Two arrays of one of the pairs of shapes."""

    def draw(rng, f):
        arrays = [real(rng, shape) for shape in shapes[rng.integers(len(shapes))]]
        given = chosen(
            rng, {name: lambda how=how: how(rng, arrays[0]) for name, how in settings.items()}, 0.2
        )
        return Call(f, arrays, given)

    return draw


flag = lambda rng, a: bool(rng.integers(2))
small = lambda rng, a: int(rng.integers(-2, 3))
number = lambda rng, a: [2.0, None][rng.integers(2)]
order = lambda rng, a: "CFA"[rng.integers(3)]
nothing = lambda rng, a: None
VECTORS = (((), (3,)), ((3,), ()), ((3,), (3,)), ((2, 3), (3,)))
OUT = dict.fromkeys(
    (np.cumsum, np.cumprod, np.trace, np.max, np.round, np.argmax, np.argmin, np.any, np.all),
    ("out",),
)
DRAWERS = {
    **dict.fromkeys((np.sum, np.mean, np.max, np.min, np.prod, np.var, np.std), reduction),
    **dict.fromkeys((np.cumsum, np.cumprod), simple(axis=axis_of, dtype=lambda rng, a: [None, np.float32][rng.integers(2)])),
    np.clip: of_clip, np.where: of_where, np.tensordot: of_tensordot, np.einsum: of_einsum, np.pad: of_pad,
    np.take: of_take, np.take_along_axis: of_take_along_axis, np.delete: of_delete, np.matmul: of_matmul,
    np.moveaxis: of_moveaxis, np.linalg.norm: of_norm, operator.getitem: of_getitem,
    **dict.fromkeys((np.split, np.array_split), of_split),
    **dict.fromkeys((np.linalg.solve, np.linalg.inv), of_solve),
    np.nan_to_num: simple(copy=flag, nan=number, posinf=number, neginf=number),
    np.copy: simple(order=order, subok=flag),
    np.reshape: simple(("shape", new_shape), order=order, copy=lambda rng, a: [None, True, False][rng.integers(3)], build=positional("shape")),
    np.transpose: simple(axes=permutation), np.swapaxes: simple(("axis1", axis_of), ("axis2", axis_of), least=1),
    np.flip: simple(axis=axes_of), np.fliplr: simple(least=2), np.flipud: simple(least=1),
    np.tril: simple(k=small, least=1), np.triu: simple(k=small, least=1),
    np.concatenate: several(least=1, axis=axis_of), np.stack: several(axis=axis_of), np.vstack: several(), np.hstack: several(),
    np.column_stack: several(least=1), np.append: of_two(((2, 3), (2, 3)), ((2,), (3,)), axis=lambda rng, a: [None, 0][rng.integers(2)]),
    np.squeeze: simple(axis=lambda rng, a: None), np.ravel: simple(order=order), np.matrix_transpose: simple(least=2),
    np.expand_dims: simple(("axis", lambda rng, a: [0, -1, (0, 1), [0], (0, -1)][rng.integers(5)])),
    np.broadcast_to: simple(("shape", lambda rng, a: [(2, *a.shape), [3, *a.shape]][rng.integers(2)]), subok=flag),
    np.roll: simple(("shift", lambda rng, a: [1, -2, np.int8(1)][rng.integers(3)]), axis=lambda rng, a: [None, axis_of(rng, a)][rng.integers(2)], least=1),
    np.rot90: simple(k=small, axes=lambda rng, a: [two_axes(rng, a), list(two_axes(rng, a))][rng.integers(2)], least=2),
    np.tile: simple(("reps", lambda rng, a: [2, (1, 2), [2, 1], np.array([1, 2])][rng.integers(4)])),
    np.repeat: simple(("repeats", lambda rng, a: [2, np.int64(2), [2], np.array([1])][rng.integers(4)]), axis=lambda rng, a: [None, axis_of(rng, a)][rng.integers(2)], least=1),
    np.diag: simple(k=small, least=1, most=2), np.resize: simple(("new_shape", lambda rng, a: [(2, 3), [4], 5, np.array([2, 2])][rng.integers(4)])),
    np.diagonal: simple(offset=small, axis1=lambda rng, a: 0, axis2=lambda rng, a: -1, least=2),
    np.trace: simple(offset=small, axis1=lambda rng, a: 0, axis2=lambda rng, a: -1, dtype=lambda rng, a: [None, np.float32][rng.integers(2)], least=2),
    np.sort: simple(axis=lambda rng, a: [None, axis_of(rng, a)][rng.integers(2)], kind=lambda rng, a: [None, "stable", "heapsort"][rng.integers(3)], stable=lambda rng, a: [None, True][rng.integers(2)], least=1),
    np.diff: simple(n=lambda rng, a: int(rng.integers(3)), axis=axis_of, prepend=lambda rng, a: 1.0, least=1),
    np.dot: of_two(*VECTORS, ((2, 3), (4, 3, 2)), out=nothing), np.inner: of_two(*VECTORS, ((2, 3), (4, 3))),
    np.vdot: of_two(((3,), (3,)), ((2, 3), (3, 2))), np.outer: of_two(((2,), (3,)), ((2, 2), (3,)), out=nothing),
    np.kron: of_two(*VECTORS, ((2, 1), (3, 2))),
    np.atleast_1d: several(build=lambda f, a: f(*a)), np.atleast_2d: several(build=lambda f, a: f(*a)),
    np.linalg.vector_norm: simple(axis=axes_of, keepdims=flag, ord=lambda rng, a: [2, 1][rng.integers(2)], least=1),
    np.linalg.matrix_norm: simple(keepdims=flag, ord=lambda rng, a: ["fro", 2][rng.integers(2)], least=2),
    astype: simple(("dtype", lambda rng, a: [np.float64, "f8", float][rng.integers(3)])),
    np.vecdot: of_two(((3,), (3,)), ((2, 3), (3,)), axis=lambda rng, a: -1),
}  # fmt: skip
