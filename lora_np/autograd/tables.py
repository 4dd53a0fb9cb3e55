"""The table machinery: which function has which derivative, and how a NumPy call becomes a step of the graph.

There are three tables. A function is differentiable (a row with a rule for each of its arguments), constant
(its result carries no gradient), or a composition (written in terms of other functions).
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from itertools import compress
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from lora_np.autograd.engine import Node, Pull, Tensor, tensor
from lora_np.autograd.methods import IN_PLACE, value

Rule: TypeAlias = Callable[..., Pull]  # (y, *arguments) -> pull; y is the function's result


class Each(NamedTuple):
    """Marks the rule of an argument that is a sequence of arrays: ``pull(g, i)`` is the gradient of item i.

    Parameters
    ----------
    rule : callable
        As for `derivative`, but its pull takes the item's number too.

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
    joint: Callable[..., Pull] | None = None  # one rule for all arguments, in the place of theirs
    keeps: bool = False  # the forward function returns (y, kept), and the rules see kept instead of y
    composed: Callable[..., Any] | None = None  # the same in NumPy functions, for gradients of gradients

    @property
    def fused(self) -> bool:
        """Whether the rules are for arrays alone."""
        return self.joint is not None or self.keeps

    @property
    def covers(self) -> list[str]:
        """Names of the arguments that the rules take."""
        rule = next(r for r in self.rules if r is not NOT_DIFFERENTIABLE)
        return signature(rule.rule if isinstance(rule, Each) else rule)[0][1:]


DERIVATIVES: dict[Callable[..., Any], Row] = {}  # differentiable functions
CONSTANTS: set[Callable[..., Any]] = set()  # functions with a derivative of zero, or with no real result
COMPOSITIONS: dict[Callable[..., Any], Callable[..., Any]] = {}  # functions written in terms of others

NOT_DIFFERENTIABLE = None  # in a row: a Tensor in this argument is an error


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
    >>> derivative(np.cbrt, lambda y, a: lambda g: g / (3 * y * y))
    >>> x = Tensor(1.0)
    >>> np.cbrt(x).backward()
    >>> x.grad
    array(0.33333333)
    """
    DERIVATIVES[function] = Row(name_of(function), function, rules)


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
        argument, or None where ``wanted``, a tuple of booleans, says that it is not wanted. Its positional
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
        rules = (joint,) * ((signature(joint)[1] or 1) - 1)

    @functools.wraps(function)
    def operation(*args: Any, **kwargs: Any) -> Any:
        lists = False
        for a in (*args, *kwargs.values()) if kwargs else args:
            if isinstance(a, Tensor):
                return record(operation, args, kwargs)
            if isinstance(a, LISTS):
                if holds_tensor(a):
                    return record(operation, args, kwargs)
                lists = True
        if lists:
            n = len(rules)
            args = (
                *(members(operation, i, a) if isinstance(a, LISTS) else a for i, a in enumerate(args[:n])),
                *args[n:],
            )
        y = function(*args, **kwargs)
        return y[0] if keeps else y

    DERIVATIVES[operation] = Row(name_of(function), function, rules, joint, keeps, composed)
    return operation


def constant(*functions: Callable[..., Any]) -> None:
    """Declare functions whose result carries no gradient: given Tensors, they return plain arrays.

    Parameters
    ----------
    *functions : callable
        NumPy functions, such as comparisons and those that return positions.

    Examples
    --------
    >>> constant(np.spacing)
    >>> np.spacing(Tensor(1.0))
    np.float64(2.220446049250313e-16)
    """
    CONSTANTS.update(functions)


def composition(function: Callable[..., Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorate a definition of a NumPy function in terms of functions that the tables know.

    Parameters
    ----------
    function : callable
        The NumPy function. The definition takes arguments of the same names; those that it lacks may only
        have NumPy's default.

    Returns
    -------
    callable
        The decorator. It returns the definition unchanged.

    Examples
    --------
    >>> @composition(np.trapezoid)
    ... def trapezoid(y):
    ...     return np.sum(y[1:] + y[:-1]) / 2
    >>> y = Tensor([1.0, 2.0, 4.0])
    >>> np.trapezoid(y).backward()
    >>> y.grad
    array([0.5, 1. , 0.5])
    """

    def register(definition: Callable[..., Any]) -> Callable[..., Any]:
        COMPOSITIONS[function] = definition
        return definition

    return register


# From a NumPy call to a step of the graph


def dispatch(function: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """Answer a NumPy call that has a Tensor among its arguments."""
    if function in DERIVATIVES:
        return record(function, args, kwargs)
    if function in COMPOSITIONS:
        definition = COMPOSITIONS[function]
        covers, places = signature(definition)
        if places is None:  # takes any number
            places = len(args)
        if kwargs or len(args) > places:
            args, kwargs = arrange(function, covers, places, args, kwargs)
        return definition(*args, **kwargs)
    if function in CONSTANTS:
        return function(*map(bare, args), **{name: bare(a) for name, a in kwargs.items()})
    name = name_of(function)
    close = get_close_matches(name, known(), n=3, cutoff=0)
    raise TypeError(
        f"{name} has no derivative here. Use a function that has one (close: {', '.join(close)}; all: "
        "lora_np.autograd.known()), stop the gradient with lora_np.value(x), "
        f"or add a row with lora_np.autograd.derivative({name}, ...)"
    )


Tensor.answer = staticmethod(dispatch)


def record(function: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """Run ``function`` on the bare arrays and remember how to pull a gradient back to each Tensor.

    Of Tensors of several levels (`grad` inside `grad`) only the highest are differentiated here. The others
    are constants to them, and the function and its rules compute with them as they would with arrays.
    """
    row = DERIVATIVES[function]
    name, forward, rules, joint, keeps, composed = row
    if kwargs or len(args) > len(rules):
        args, kwargs = arrange(function, row.covers, len(rules), args, kwargs)
    values, places, lists, level = list(args), [], [], 0
    targets: list[Node | Tensor] = []
    for i, a in enumerate(args):
        if isinstance(a, Tensor):
            if not callable(rules[i]):
                if isinstance(rules[i], Each):  # one Tensor in the place of a sequence: its rows
                    return record(function, (*args[:i], list(a), *args[i + 1 :]), kwargs)
                raise not_differentiable(function, i)
            values[i] = a.data
            places.append(i)
            targets.append(a.node or a)
            level = a.level or level
        elif isinstance(a, LISTS):
            lists.append(i)
    if level or lists:
        level = max(
            b.level for a in args for b in (a if isinstance(a, LISTS) else (a,)) if isinstance(b, Tensor)
        )
        places = [i for i in places if args[i].level == level]
        targets = [args[i].node or args[i] for i in places]
        values = [a.data if i in places else a for i, a in enumerate(args)]
        for i in lists:
            values[i] = members(function, i, args[i], level)
        if level and composed is not None:
            return composed(*args, **kwargs)
        if any(map(holds_tensor, values)):
            if row.fused:
                raise no_second_order(name)
            forward = function  # which remembers the step for them, too
    y = forward(*values, **kwargs)
    if keeps:
        y, seen = y
    if not isinstance(y, Tensor):
        y = np.asarray(y)
        if y.dtype.kind != "f":
            raise TypeError(f"{name}: a Tensor holds real numbers, and the result has dtype {y.dtype}")
    if not keeps:
        seen = y
    pull: Pull
    if joint is not None:
        wanted = tuple(map(places.__contains__, range(len(rules))))
        pull = selected(joint(seen, *values, **kwargs, wanted=wanted), wanted)
    else:
        pulls = []
        for i in places:
            pulls.append(rules[i](seen, *values, **kwargs))  # quicker than a comprehension, which is a call
        for i in lists:
            if isinstance(rules[i], Each):
                of_item = rules[i].rule(seen, *values, **kwargs)
                for j, b in enumerate(args[i]):
                    if isinstance(b, Tensor) and b.level == level:
                        targets.append(b.node or b)
                        pulls.append(functools.partial(of_item, i=j))
        pull = one_by_one(pulls)
    if level and row.fused:
        pull = only_arrays(name, pull)
    return tensor(y, level, Node(name, y, targets, pull))


def selected(pull: Pull, wanted: tuple[bool, ...]) -> Pull:
    """The pull of a step from one that returns a gradient, or None, for each argument."""
    return lambda g: compress(pull(g), wanted)


def one_by_one(pulls: list[Pull]) -> Pull:
    """The pull of a step from those of its arguments."""
    if len(pulls) == 1:
        (only,) = pulls
        return lambda g: (only(g),)
    return lambda g: (pull(g) for pull in pulls)


def only_arrays(name: str, pull: Pull) -> Pull:
    def checked(g: Any) -> Any:
        if isinstance(g, Tensor):
            raise no_second_order(name)
        return pull(g)

    return checked


def no_second_order(name: str) -> TypeError:
    return TypeError(
        f"{name} is one step for speed, and its gradient has no gradient; give its primitive composed=, "
        "the same operation written in NumPy functions"
    )


LISTS = (list, tuple)


def members(function: Callable[..., Any], i: int, a: Any, level: int = 0) -> Any:
    """What ``function`` gets for the list or tuple ``a``: its items as arrays for Each, otherwise an array.

    A Tensor deeper inside would lose its gradient, which is an error.
    """
    row = DERIVATIVES[function]
    rule = row.rules[i]
    if isinstance(rule, Each):
        if not any(isinstance(b, LISTS) and holds_tensor(b) for b in a):
            return [b.data if isinstance(b, Tensor) and b.level == level else b for b in a]
    elif not holds_tensor(a):
        return np.asarray(a) if callable(rule) else a
    elif rule is NOT_DIFFERENTIABLE:
        raise not_differentiable(function, i)
    raise TypeError(
        f"{row.name}: the argument {names_of(function)[i]} is a {type(a).__name__} with Tensors in it, whose "
        "gradient would be lost; make it one Tensor with np.stack"
    )


def holds_tensor(a: Any) -> bool:
    return isinstance(a, Tensor) or (isinstance(a, LISTS) and any(map(holds_tensor, a)))


def bare(a: Any) -> Any:
    """``a`` without Tensors: its array, or the arrays inside a list or tuple. Scalars stay as they are."""
    if isinstance(a, Tensor):
        return value(a)
    if holds_tensor(a):
        return [bare(b) for b in a] if isinstance(a, list) else tuple(bare(b) for b in a)
    return a


# Who is who among the arguments


def arrange(
    function: Callable[..., Any], covers: list[str], places: int, args: Sequence[Any], kwargs: dict[str, Any]
) -> tuple[Sequence[Any], dict[str, Any]]:
    """Array arguments by position, settings by keyword, whichever way the caller wrote them.

    A setting that is NumPy's default says nothing and goes; any other must be among what the rule ``covers``.
    """
    names = names_of(function)
    settings = dict(zip(names[places:], args[places:], strict=False)) | kwargs
    arrays = list(args[:places])
    while len(arrays) < min(places, len(names)) and names[len(arrays)] in settings:
        arrays.append(settings.pop(names[len(arrays)]))
    usual = defaults(function)
    settings = {n: s for n, s in settings.items() if not (n in usual and same(s, usual[n]))}
    if "out" in settings:
        raise TypeError(IN_PLACE)
    for name, setting in settings.items():
        if name not in covers:
            raise TypeError(
                f"{name_of(function)}: the derivative does not cover the argument {name}={setting!r}"
            )
        if function in DERIVATIVES and holds_tensor(setting):
            raise not_differentiable(function, name)
    return arrays, settings


def same(a: Any, b: Any) -> bool:
    return a is b or (isinstance(a, (bool, int, str)) and type(a) is type(b) and bool(a == b))


@functools.cache
def signature(rule: Callable[..., Any]) -> tuple[list[str], int | None]:
    """Names of the arguments that a rule or a definition takes, and how many by position (None: any)."""
    parameters = [p for p in inspect.signature(rule).parameters.values() if p.name != "wanted"]
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return [p.name for p in parameters], None
    return [p.name for p in parameters], sum(p.kind is p.POSITIONAL_OR_KEYWORD for p in parameters)


@functools.cache
def names_of(function: Callable[..., Any]) -> list[str]:
    """Names of the function's arguments in order: its signature's, or its rules' where it has none."""
    if not (isinstance(function, np.ufunc) or inspect.isbuiltin(function)):
        try:
            return list(inspect.signature(function).parameters)
        except ValueError:
            pass
    return DERIVATIVES[function].covers if function in DERIVATIVES else signature(COMPOSITIONS[function])[0]


@functools.cache
def defaults(function: Callable[..., Any]) -> dict[str, Any]:
    if isinstance(function, np.ufunc):
        return {
            "out": None,
            "where": True,
            "dtype": None,
            "casting": "same_kind",
            "order": "K",
            "subok": True,
        }
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError:  # a function in C, in NumPy 2.0
        return {"out": None, "dtype": None, "casting": "same_kind"}
    usual = {p.name: p.default for p in parameters if p.default is not p.empty}
    # NumPy means these by its "no value"; which one it shows depends on its version.
    meant = {"where": True, "casting": "same_kind"}
    return usual | {name: default for name, default in meant.items() if name in usual}


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


def not_differentiable(function: Callable[..., Any], argument: int | str) -> TypeError:
    name = names_of(function)[argument] if isinstance(argument, int) else argument
    return TypeError(
        f"{name_of(function)}: the argument {name} has no derivative, so it cannot be a Tensor; "
        f"pass lora_np.value({name})"
    )


def known() -> list[str]:
    """Names of the functions that take Tensors.

    Returns
    -------
    list of str
        In alphabetical order.

    Examples
    --------
    >>> "np.tanh" in known()
    True
    """
    return sorted({name_of(function) for function in (*DERIVATIVES, *COMPOSITIONS, *CONSTANTS)})
