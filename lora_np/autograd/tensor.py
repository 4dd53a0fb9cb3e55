"""The engine: a ``Tensor`` remembers how it was computed, and ``backward`` walks that memory.

NumPy is the forward pass. A ``Tensor`` answers NumPy's own protocols (``__array_ufunc__``, NEP 13, and
``__array_function__``, NEP 18), so ``np.tanh(x @ W.T)`` works on Tensors and gives a Tensor. What NumPy
cannot know, the derivative of each function, stands in one table (``derivatives.py``).

An array that wants a gradient is a ``Tensor``; whatever is not a ``Tensor`` is a constant.
"""

from __future__ import annotations

import functools
import heapq
import inspect
from collections.abc import Callable, Iterator
from difflib import get_close_matches
from itertools import compress, count
from typing import Any, NamedTuple, NoReturn, TypeAlias

import numpy as np
import numpy.typing as npt
from numpy.lib.mixins import NDArrayOperatorsMixin

from lora_np.checks import Array

Pull: TypeAlias = Callable[..., Any]  # g -> gradient: what flows back along one edge
Rule: TypeAlias = Callable[..., Pull]  # (y, *arguments) -> pull; y is the function's result


class Tensor(NDArrayOperatorsMixin):
    """An array that wants a gradient.

    Parameters
    ----------
    data : array_like
        The values, *copied*: training must not change the caller's array. Integers become float64;
        float16, float32 and float64 stay what they are.

    Attributes
    ----------
    data : ndarray
        The values. Reading them stops the gradient; `lora_np.value` does so for arrays and Tensors alike.
    grad : ndarray or None
        In a leaf (a Tensor that was not computed from others): the sum of what every ``backward()`` since the
        last clearing has brought. Set it to ``None`` to start afresh.

    Raises
    ------
    TypeError
        If ``data`` does not hold real numbers, or is itself a Tensor.

    Examples
    --------
    >>> W = Tensor([[1.0, 2.0], [3.0, 4.0]])
    >>> loss = np.mean(np.square(np.array([1.0, -1.0]) @ W.T))
    >>> loss.backward()
    >>> W.grad
    array([[-1.,  1.],
           [-1.,  1.]])
    """

    __slots__ = ("__weakref__", "data", "grad", "node")
    __hash__ = object.__hash__  # the mixin's == compares elements; as a key, a Tensor is itself

    data: Array
    grad: Array | None
    node: Node | None  # None in a leaf

    def __init__(self, data: npt.ArrayLike) -> None:
        values = np.array(data)
        if values.dtype.kind in "iub":
            values = values.astype(np.float64)
        if values.dtype.kind != "f":
            raise TypeError(f"a Tensor holds real numbers, got dtype {values.dtype}")
        self.data = values
        self.grad = None
        self.node = None

    # NumPy's protocols

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        if method != "__call__":
            raise TypeError(
                f"np.{ufunc.__name__}.{method} has no derivative; use np.sum, np.max, np.outer and the like"
            )
        return dispatch(ufunc, inputs, kwargs)

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        return dispatch(function, args, kwargs)

    def __array__(self, dtype: Any = None, copy: Any = None) -> Array:
        raise TypeError(
            "a Tensor turned into an ndarray loses its gradient; say lora_np.value(x) where that is meant"
        )

    # The mixin's operators, by the short way: without NumPy asking whom to ask.

    def __add__(self, other: Any) -> Any:
        return record(np.add, (self, other), {})

    def __sub__(self, other: Any) -> Any:
        return record(np.subtract, (self, other), {})

    def __mul__(self, other: Any) -> Any:
        return record(np.multiply, (self, other), {})

    def __truediv__(self, other: Any) -> Any:
        return record(np.divide, (self, other), {})

    def __matmul__(self, other: Any) -> Any:
        return record(np.matmul, (self, other), {})

    # A Tensor as a Python object

    def __repr__(self) -> str:
        body = np.array2string(self.data, separator=", ", prefix="Tensor(")
        dtype = "" if self.data.dtype == np.float64 else f", dtype={self.data.dtype}"
        origin = "" if self.node is None else f", from={self.node.name}"
        return f"Tensor({body}{dtype}{origin})"

    def __format__(self, spec: str) -> str:
        return format(self.data, spec)

    def __bool__(self) -> bool:
        return bool(self.data)

    def __len__(self) -> int:
        return len(self.data)

    def __iter__(self) -> Iterator[Tensor]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: Any) -> Any:
        from lora_np.autograd.derivatives import getitem

        return getitem(self, index)

    def __setitem__(self, index: Any, value: Any) -> NoReturn:
        raise TypeError(IN_PLACE)

    def __reduce__(self) -> tuple[type[Tensor], tuple[Array]]:
        if self.node is not None:
            raise TypeError(
                f"the result of {self.node.name} is part of a graph and is not copied or pickled; "
                "take lora_np.value(x)"
            )
        return Tensor, (self.data,)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.data.shape

    @property
    def ndim(self) -> int:
        return self.data.ndim

    @property
    def size(self) -> int:
        return self.data.size

    @property
    def nbytes(self) -> int:
        return self.data.nbytes

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.data.dtype

    def item(self) -> float:
        """The value of a Tensor with one element, as a Python number."""
        return self.data.item()  # type: ignore[no-any-return]

    # Methods only forward to NumPy

    @property
    def T(self) -> Any:
        # Every linear layer asks for it, so it goes by the short way; what np.transpose(self) would record.
        return derived("np.transpose", self.data.T, [self.node or self], lambda g: (g.T,))

    @property
    def mT(self) -> Any:
        return np.swapaxes(self, -1, -2)

    def reshape(self, *shape: Any) -> Any:
        return np.reshape(self, shape[0] if len(shape) == 1 else shape)

    def transpose(self, *axes: Any) -> Any:
        return np.transpose(self, (axes[0] if len(axes) == 1 else axes) or None)

    def sum(self, *args: Any, **kwargs: Any) -> Any:
        return np.sum(self, *args, **kwargs)

    def mean(self, *args: Any, **kwargs: Any) -> Any:
        return np.mean(self, *args, **kwargs)

    def var(self, *args: Any, **kwargs: Any) -> Any:
        return np.var(self, *args, **kwargs)

    def std(self, *args: Any, **kwargs: Any) -> Any:
        return np.std(self, *args, **kwargs)

    def max(self, *args: Any, **kwargs: Any) -> Any:
        return np.max(self, *args, **kwargs)

    def min(self, *args: Any, **kwargs: Any) -> Any:
        return np.min(self, *args, **kwargs)

    def argmax(self, *args: Any, **kwargs: Any) -> Any:
        return np.argmax(self, *args, **kwargs)

    def argmin(self, *args: Any, **kwargs: Any) -> Any:
        return np.argmin(self, *args, **kwargs)

    def clip(self, *args: Any, **kwargs: Any) -> Any:
        return np.clip(self, *args, **kwargs)

    def dot(self, other: Any) -> Any:
        return np.dot(self, other)

    def ravel(self) -> Any:
        return np.ravel(self)

    def squeeze(self, axis: Any = None) -> Any:
        return np.squeeze(self, axis)

    def swapaxes(self, axis1: int, axis2: int) -> Any:
        return np.swapaxes(self, axis1, axis2)

    def take(self, *args: Any, **kwargs: Any) -> Any:
        return np.take(self, *args, **kwargs)

    def trace(self, *args: Any, **kwargs: Any) -> Any:
        return np.trace(self, *args, **kwargs)

    def diagonal(self, *args: Any, **kwargs: Any) -> Any:
        return np.diagonal(self, *args, **kwargs)

    # Reverse mode

    def backward(self, gradient: npt.ArrayLike | None = None) -> None:
        """Add the gradient of this Tensor to ``.grad`` of every leaf it was computed from.

        The graph is used up on the way: its memory is freed step by step, and a second call raises.

        Parameters
        ----------
        gradient : array_like, optional
            What flows into this Tensor, of its shape. A scalar needs none: it starts from one.

        Raises
        ------
        ValueError
            If this is no scalar and no gradient is given, or the gradient has another shape.
        RuntimeError
            If the graph, or a part of it, was used by an earlier ``backward()``.
        """
        data = self.data
        if gradient is not None:
            start = np.array(gradient, dtype=data.dtype)
            if start.shape != data.shape:
                raise ValueError(f"gradient must have this Tensor's shape {self.shape}, got {start.shape}")
        elif data.size == 1:
            start = np.array(1, dtype=data.dtype, ndmin=data.ndim)
        else:
            raise ValueError(
                f"backward() starts from a scalar, got shape {self.shape}: "
                "take a sum or a mean first, or pass gradient= of that shape"
            )
        for leaf, g in leaf_gradients(self, start).items():
            leaf.grad = np.asarray(g if leaf.grad is None else leaf.grad + g)


def value(x: Tensor | npt.ArrayLike) -> Array:
    """The ndarray of a Tensor or of anything array-like: this is how a gradient is stopped.

    Examples
    --------
    >>> value(Tensor([1.0, 2.0])), value([3.0])
    (array([1., 2.]), array([3.]))
    """
    return x.data if isinstance(x, Tensor) else np.asarray(x)


class Node:
    """A step of the computation: where its gradient flows to. It holds no values of its own."""

    __slots__ = ("dtype", "name", "order", "pull", "shape", "targets")

    clock = count()

    def __init__(self, name: str, y: Array, targets: list[Node | Tensor], pull: Pull) -> None:
        self.name = name
        self.shape = y.shape
        self.dtype = y.dtype
        self.targets = targets  # the steps and leaves it was computed from
        self.pull: Pull | None = pull  # g -> a gradient for each target; None once used
        self.order = next(Node.clock)


def leaf_gradients(root: Tensor, start: Array) -> dict[Tensor, Array]:
    """Walk from ``root`` to the leaves, later steps first, and return what arrives at each leaf.

    A step can only use results that existed before it, so the order of creation is a topological order.
    """
    if root.node is None:
        return {root: start}
    leaves: dict[Tensor, Array] = {}
    pending: dict[Node, Array] = {root.node: start}
    latest_first = [(-root.node.order, root.node)]
    while latest_first:
        node = heapq.heappop(latest_first)[1]
        g = pending.pop(node)
        pull, node.pull = node.pull, None
        if pull is None:
            raise RuntimeError(
                f"this graph ({node.name}) was used by an earlier backward(); run the forward pass again"
            )
        for target, pulled in zip(node.targets, pull(g), strict=True):
            if pulled.shape != target.shape or pulled.dtype is not target.dtype:
                pulled = unbroadcast(pulled, target.shape, target.dtype, node.name)
            if isinstance(target, Tensor):
                if target in leaves:
                    leaves[target] = leaves[target] + pulled
                else:
                    # A copy of what is not its own: addition hands one array to both of its inputs.
                    leaves[target] = pulled.copy() if pulled is g or pulled.base is not None else pulled
            elif target in pending:
                pending[target] = pending[target] + pulled
            else:
                pending[target] = pulled
                heapq.heappush(latest_first, (-target.order, target))
        node.targets = []
    return leaves


def unbroadcast(g: Any, shape: tuple[int, ...], dtype: np.dtype[Any], name: str) -> Array:
    """Sum ``g`` down to ``shape``: the transpose of NumPy broadcasting."""
    total = g
    if g.ndim > len(shape):
        total = total.sum(axis=tuple(range(g.ndim - len(shape))))
    if total.shape != shape:
        total = total.sum(axis=tuple(i for i, n in enumerate(shape) if n == 1), keepdims=True)
    if total.shape != shape:
        raise ValueError(f"{name}: a rule gave a gradient of shape {g.shape} to an argument of shape {shape}")
    return np.asarray(total, dtype)


# The three tables


class Each(NamedTuple):
    """Marks the rule of an argument that is a sequence of arrays: ``pull(g, i)`` is the gradient of item i.

    Examples
    --------
    >>> total = primitive(lambda arrays: sum(arrays), Each(lambda y, arrays: lambda g, i: g))
    >>> x = Tensor(2.0)
    >>> total([x, 3.0, x]).backward()
    >>> x.grad
    array(2.)
    """

    rule: Rule


class Row(NamedTuple):
    """One row of the table: the forward function, and a rule for each of its array arguments."""

    name: str
    forward: Callable[..., Any]
    rules: tuple[Any, ...]  # of Rule, Each or NOT_DIFFERENTIABLE
    joint: Callable[..., Pull] | None  # one rule for all arguments, in the place of theirs
    keeps: bool  # the forward function returns (y, kept), and the rules see kept instead of y


DERIVATIVES: dict[Callable[..., Any], Row] = {}  # differentiable functions
CONSTANTS: set[Callable[..., Any]] = set()  # functions with a derivative of zero, or with no real result
COMPOSITIONS: dict[Callable[..., Any], Callable[..., Any]] = {}  # functions written in terms of others

NOT_DIFFERENTIABLE = None  # in a row: a Tensor in this argument is an error

IN_PLACE = (
    "writing into an array cannot be differentiated: write h = h + x instead of h += x, out= or h[i] = x"
)


def derivative(function: Callable[..., Any], *rules: Rule | Each | None) -> None:
    """Add a row to the table: one vector-Jacobian product for each array argument of ``function``.

    Parameters
    ----------
    function : callable
        A NumPy function or ufunc. For a function of your own, use `primitive`.
    *rules : callable, Each or None
        For each argument, ``rule(y, *arguments, **keywords)`` returns ``pull``, and ``pull(g)`` returns the
        gradient of that argument when ``g`` is the gradient of the result ``y``. The engine sums over
        broadcast axes and restores the dtype. Let ``pull`` capture only what it needs: that is what stays in
        memory. ``NOT_DIFFERENTIABLE`` makes a Tensor in that place an error; ``Each(rule)`` is for an
        argument that is a sequence of arrays.

    Examples
    --------
    >>> derivative(np.sinh, lambda y, a: lambda g: g * np.cosh(a))
    >>> x = Tensor(0.0)
    >>> np.sinh(x).backward()
    >>> x.grad
    array(1.)
    """
    DERIVATIVES[function] = Row(name_of(function), function, rules, None, False)


def primitive(
    function: Callable[..., Any],
    *rules: Rule | Each | None,
    joint: Callable[..., Pull] | None = None,
    keeps: bool = False,
    composed: Callable[..., Any] | None = None,
) -> Callable[..., Any]:
    """An operation of your own, from its forward pass on arrays and its derivative rules.

    Parameters
    ----------
    function : callable
        The forward pass. It receives and returns plain arrays.
    *rules : callable, Each or None
        As for `derivative`.
    joint : callable, optional
        One rule for all arguments, in the place of ``rules``, which lets their gradients share work:
        ``joint(y, *arguments, wanted)`` returns ``pull``, and ``pull(g)`` a tuple with the gradient of each
        argument, or None where ``wanted``, a tuple of booleans, says that nobody asks for it. Its positional
        parameters after ``y`` are the array arguments; those after ``wanted`` are settings.
    keeps : bool
        Whether the forward pass returns ``(y, kept)``: the result, and something that the rules shall find in
        the place of ``y``, which saves computing it twice.
    composed : callable, optional
        The same operation written in NumPy functions. It defines the operation, and is differentiated in its
        place where a gradient of a gradient is wanted.

    Returns
    -------
    operation : callable
        Takes Tensors or arrays; the result is a Tensor as soon as one argument is.

    Raises
    ------
    TypeError
        If neither rules nor ``joint`` are given, or both.

    Examples
    --------
    >>> cube = primitive(lambda a: a * a * a, lambda y, a: lambda g: g * 3 * a * a)
    >>> x = Tensor([2.0])
    >>> cube(x).backward()
    >>> x.grad, cube(np.array([2.0]))
    (array([12.]), array([8.]))

    Both gradients of ``a^2 b`` need ``g a``:

    >>> def both(y, a, b, *, wanted):
    ...     def pull(g):
    ...         ga = g * a
    ...         return 2 * ga * b if wanted[0] else None, ga * a if wanted[1] else None
    ...     return pull
    >>> a, b = Tensor(3.0), Tensor(4.0)
    >>> primitive(lambda a, b: a * a * b, joint=both)(a, b).backward()
    >>> a.grad, b.grad
    (array(24.), array(9.))
    """
    if (joint is None) is (not rules):
        raise TypeError("primitive needs either a rule for each array argument, or joint=")
    if joint is not None:
        places = inspect.signature(joint).parameters.values()
        rules = (joint,) * (sum(p.kind is p.POSITIONAL_OR_KEYWORD for p in places if p.name != "wanted") - 1)

    @functools.wraps(function)
    def operation(*args: Any, **kwargs: Any) -> Any:
        for a in (*args, *kwargs.values()) if kwargs else args:
            if isinstance(a, Tensor) or (isinstance(a, (list, tuple)) and holds_tensor(a)):
                return record(operation, args, kwargs)
        y = function(
            *(
                members(operation, rules, i, a) if isinstance(a, (list, tuple)) and i < len(rules) else a
                for i, a in enumerate(args)
            ),
            **kwargs,
        )
        return y[0] if keeps else y

    DERIVATIVES[operation] = Row(name_of(function), function, rules, joint, keeps)
    return operation


def constant(*functions: Callable[..., Any]) -> None:
    """Declare functions whose result carries no gradient: they return plain arrays."""
    CONSTANTS.update(functions)


def composition(function: Callable[..., Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorate a definition of a NumPy function in terms of functions that the tables know."""

    def register(definition: Callable[..., Any]) -> Callable[..., Any]:
        COMPOSITIONS[function] = definition
        return definition

    return register


# From a NumPy call to a step of the graph


def dispatch(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Answer a NumPy call that has a Tensor among its arguments."""
    if function in DERIVATIVES:
        return record(function, args, kwargs)
    if function in COMPOSITIONS:
        return COMPOSITIONS[function](*args, **kwargs)
    if function in CONSTANTS:
        return function(*map(bare, args), **{name: bare(a) for name, a in kwargs.items()})
    name = name_of(function)
    close = get_close_matches(name, known(), n=3, cutoff=0)
    raise TypeError(
        f"{name} has no derivative here. Use a function that has one (close: {', '.join(close)}; all: "
        "lora_np.autograd.known()), stop the gradient with lora_np.value(x), "
        f"or add a row with lora_np.autograd.derivative({name}, ...)"
    )


def record(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """Run ``function`` on the bare arrays and remember how to pull a gradient back to each Tensor."""
    name, forward, rules, joint, keeps = DERIVATIVES[function]
    if kwargs or len(args) > len(rules):
        args, kwargs = arrange(function, rules, args, kwargs)
    values = list(args)
    tensors, lists = [], []  # their places
    for i, a in enumerate(args):
        if isinstance(a, Tensor):
            if not callable(rules[i]):
                raise not_differentiable(function, parameters(function, rules)[i])
            values[i] = a.data
            tensors.append(i)
        elif isinstance(a, (list, tuple)):
            values[i] = members(function, rules, i, a)
            lists.append(i)
    y = forward(*values, **kwargs)
    if keeps:
        y, seen = y
        y = np.asarray(y)
    else:
        y = seen = np.asarray(y)
    targets: list[Node | Tensor] = [args[i].node or args[i] for i in tensors]
    if joint is not None:
        wanted = tuple(i in tensors for i in range(len(rules)))
        together = joint(seen, *values, **kwargs, wanted=wanted)
        return derived(name, y, targets, lambda g: compress(together(g), wanted))
    pulls = [rules[i](seen, *values, **kwargs) for i in tensors]
    for i in lists:
        if isinstance(rules[i], Each):
            pull = rules[i].rule(seen, *values, **kwargs)
            for j, b in enumerate(args[i]):
                if isinstance(b, Tensor):
                    targets.append(b.node or b)
                    pulls.append(functools.partial(pull, i=j))
    return derived(name, y, targets, one_by_one(pulls))


def one_by_one(pulls: list[Pull]) -> Pull:
    """The pull of a step from those of its arguments."""
    if len(pulls) == 1:
        return lambda g: (pulls[0](g),)
    return lambda g: (pull(g) for pull in pulls)


def derived(name: str, y: Array, targets: list[Node | Tensor], pull: Pull) -> Tensor:
    result = Tensor.__new__(Tensor)  # takes the values as they are, without a leaf's copy
    result.data = y
    result.grad = None
    result.node = Node(name, y, targets, pull)
    return result


def members(function: Callable[..., Any], rules: tuple[Any, ...], i: int, a: Any) -> Any:
    """What ``function`` gets for the list or tuple ``a``: its items as arrays for Each, otherwise an array.

    A Tensor deeper inside would lose its gradient, which is an error.
    """
    rule = rules[i]
    items = [b.data if isinstance(b, Tensor) else b for b in a] if isinstance(rule, Each) else a
    if not holds_tensor(items):
        return np.asarray(items) if callable(rule) else items
    name = parameters(function, rules)[i]
    if rule is NOT_DIFFERENTIABLE:
        raise not_differentiable(function, name)
    raise TypeError(
        f"{name_of(function)}: the argument {name} is a {type(a).__name__} with Tensors in it, whose "
        "gradient would be lost; make it one Tensor with np.stack"
    )


def holds_tensor(a: Any) -> bool:
    return isinstance(a, Tensor) or (isinstance(a, (list, tuple)) and any(map(holds_tensor, a)))


def bare(a: Any) -> Any:
    """``a`` without Tensors: its array, or the arrays inside a list or tuple. Scalars stay as they are."""
    if isinstance(a, Tensor):
        return a.data
    if holds_tensor(a):
        return [bare(b) for b in a] if isinstance(a, list) else tuple(bare(b) for b in a)
    return a


def arrange(
    function: Callable[..., Any], rules: tuple[Any, ...], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Array arguments by position, settings by keyword, whichever way the caller wrote them."""
    names = parameters(function, rules)
    settings = dict(zip(names[len(rules) :], args[len(rules) :], strict=False)) | kwargs
    arrays = list(args[: len(rules)])
    while len(arrays) < len(rules) and names[len(arrays)] in settings:
        arrays.append(settings.pop(names[len(arrays)]))
    if settings.pop("out", None) is not None:
        raise TypeError(IN_PLACE)
    for name, setting in settings.items():
        if holds_tensor(setting):
            raise not_differentiable(function, name)
        if name not in covered(rules):
            raise TypeError(
                f"{name_of(function)}: the derivative does not cover the argument {name}={setting!r}"
            )
    return tuple(arrays), settings


@functools.cache
def parameters(function: Callable[..., Any], rules: tuple[Any, ...]) -> list[str]:
    """Names of the function's arguments in order: its signature's, or its rules' where it has none."""
    if not isinstance(function, np.ufunc):
        try:
            return list(inspect.signature(function).parameters)
        except ValueError:
            pass
    return covered(rules)


@functools.cache
def covered(rules: tuple[Any, ...]) -> list[str]:
    """Names of the arguments that the rules take, after ``y``."""
    rule = next(r.rule if isinstance(r, Each) else r for r in rules if r is not None)
    return [name for name in inspect.signature(rule).parameters if name != "wanted"][1:]


def name_of(function: Callable[..., Any]) -> str:
    """``np.sum``, ``np.linalg.norm``, or the plain name of a primitive."""
    name = getattr(function, "__name__", repr(function))
    module = getattr(function, "__module__", None) or "numpy"
    if not (isinstance(function, np.ufunc) or module.split(".")[0] == "numpy"):
        return name
    return (
        f"{module.replace('numpy', 'np', 1)}.{name}"
        if module in ("numpy.linalg", "numpy.fft")
        else f"np.{name}"
    )


def not_differentiable(function: Callable[..., Any], name: str) -> TypeError:
    return TypeError(
        f"{name_of(function)}: the argument {name} has no derivative, so it cannot be a Tensor; "
        f"pass lora_np.value({name})"
    )


def known() -> list[str]:
    """Names of the functions that take Tensors.

    Examples
    --------
    >>> "np.tanh" in known()
    True
    """
    return sorted({name_of(function) for function in (*DERIVATIVES, *COMPOSITIONS, *CONSTANTS)})
