"""Find the derivative of a NumPy call in tables, and record the call in the graph.

There are three tables. A function is differentiable (a row with a rule for each of its arguments),
constant (its result has no gradient), or a composition (defined by other functions).
"""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable, Sequence
from itertools import compress
from typing import Any, NamedTuple, TypeVar

import numpy as np

from lora_np.autograd.engine import Node, Operand, Pull, Pulls, Tensor, tensor
from lora_np.autograd.methods import IN_PLACE, value
from lora_np.checks import Array, close_names, plain, real

Rule = Callable[..., Pull]  # takes the result y and the arguments, and returns a pull
Joint = Callable[..., Pulls]  # one rule for all arguments; its pull returns a gradient for each
Definition = TypeVar("Definition", bound=Callable[..., Any])
Wanted = Sequence[bool]  # for each argument, whether its gradient is needed


class Each(NamedTuple):
    """A rule for an argument that is a sequence; ``pull(g, i)`` returns the gradient of item i.

    Parameters
    ----------
    rule : callable
        A rule as for `derivative`, whose pull also takes the index of the item.

    Examples
    --------
    >>> total = primitive(lambda arrays: sum(arrays), Each(lambda y, arrays: lambda g, i: g))
    >>> x = Tensor(2.0)
    >>> total([x, 3.0, x]).backward()
    >>> x.grad
    array(2.)
    """

    rule: Rule


class Row:
    """A row of the table of derivatives: a forward function, and a rule for each array argument."""

    def __init__(
        self,
        function: Callable[..., Any],
        rules: Sequence[Rule | Each | None],
        joint: Joint | None = None,  # one rule for all arguments, instead of one for each
        # whether the function returns a pair (y, kept); the rules then get `kept` instead of y
        keeps: bool = False,
        # the same function made of NumPy functions, which `grad` can differentiate repeatedly
        composed: Callable[..., Operand] | None = None,
    ) -> None:
        self.name, self.forward = name_of(function), function
        self.keeps, self.composed = keeps, composed
        rule = joint or next(r for r in rules if r is not NOT_DIFFERENTIABLE)
        self.spread = isinstance(rule, Each)  # whether the arguments are the items of one sequence
        self.joint = each_of(rule.rule) if isinstance(rule, Each) else joint
        names, places = signature(rule.rule if isinstance(rule, Each) else rule)
        self.covers = names[1:]  # the names of the rule's arguments after y
        self.rules: tuple[Any, ...] = tuple(rules) or (joint,) * ((places or 1) - 1)
        self.fixed = [i for i, r in enumerate(self.rules) if r is NOT_DIFFERENTIABLE]

    def pull(
        self, y: Any, values: Sequence[Any], settings: dict[str, Any], wanted: list[bool]
    ) -> Pulls:
        """Return the function that pulls a gradient back to each wanted argument."""
        if self.joint is not None:
            wanted += [False] * (len(self.rules) - len(wanted))
            joint = self.joint(y, *values, **settings, wanted=tuple(wanted))
            return lambda g: compress(joint(g), wanted)
        pulls = []
        for rule in compress(self.rules, wanted):
            # use a loop, because before Python 3.12 a comprehension costs a function call
            pulls.append(rule(y, *values, **settings))
        if len(pulls) == 1:
            (only,) = pulls
            return lambda g: (only(g),)
        return lambda g: (pull(g) for pull in pulls)


DERIVATIVES: dict[Callable[..., Operand], Row] = {}  # maps differentiable functions to rules

# functions whose derivative is zero, or whose result has no derivative, such as an index
CONSTANTS: set[Callable[..., Any]] = set()
# maps functions to definitions made of functions that have a derivative
COMPOSITIONS: dict[Callable[..., Any], Callable[..., Any]] = {}

NOT_DIFFERENTIABLE = None  # in place of a rule: the argument must not be a Tensor


def derivative(function: Callable[..., Operand], *rules: Rule | Each | None) -> None:
    """Add a row to the table: one vector-Jacobian product for each array argument of ``function``.

    Parameters
    ----------
    function : callable
        A NumPy function or ufunc. For a function of your own, use `primitive`.
    *rules : callable, Each or None
        For each argument, ``rule(y, *arguments, **keywords)`` returns ``pull``, and ``pull(g)``
        returns the gradient of that argument when ``g`` is the gradient of the result ``y``. The
        engine sums over broadcast axes and restores the dtype. ``pull`` should capture only what it
        needs: that is what stays in memory. ``NOT_DIFFERENTIABLE`` makes a Tensor in that position
        an error; ``Each(rule)`` is for an argument that is a sequence of arrays.

    Examples
    --------
    >>> derivative(np.cbrt, lambda y, a: lambda g: g / (3 * y * y))
    >>> x = Tensor(1.0)
    >>> np.cbrt(x).backward()
    >>> x.grad
    array(0.33333333)
    """
    DERIVATIVES[function] = Row(function, rules)


def primitive(
    function: Callable[..., Any],
    *rules: Rule | Each | None,
    joint: Joint | None = None,
    keeps: bool = False,
    composed: Callable[..., Operand] | None = None,
) -> Callable[..., Operand]:
    """Define a differentiable operation from its forward pass on arrays and its derivative rules.

    Parameters
    ----------
    function : callable
        The forward pass, which receives and returns plain arrays. Lists, and arrays of integers,
        are converted as in `Tensor`, except in a position that is not differentiable.
    *rules : callable, Each or None
        The rules, as for `derivative`.
    joint : callable, optional
        One rule for all arguments, instead of ``rules``, so that their gradients can share work.
        ``joint(y, *arguments, wanted)`` returns ``pull``, and ``pull(g)`` returns a tuple with the
        gradient of each argument, or None if the boolean in ``wanted`` is False. Positional
        parameters after ``y`` are array arguments; parameters after ``wanted`` are settings.
    keeps : bool
        Whether the forward pass returns ``(y, kept)``, and the rules get ``kept`` instead of ``y``,
        to avoid computing something twice.
    composed : callable, optional
        The same operation written in NumPy functions. It defines the operation, and replaces it
        inside `grad`. An operation with ``joint`` or ``keeps`` needs it, because their rules work
        only with arrays.

    Returns
    -------
    operation : callable
        A function of Tensors or arrays; the result is a Tensor if an argument is one.

    Raises
    ------
    TypeError
        If neither rules nor ``joint`` is given, or both are; or if ``joint`` or ``keeps`` is given
        without ``composed``.

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
    >>> product = lambda a, b: a * a * b
    >>> primitive(product, joint=both, composed=product)(a, b).backward()
    >>> a.grad, b.grad
    (array(24.), array(9.))
    """
    if (joint is None) is (not rules):
        raise TypeError("primitive needs either a rule for each array argument, or joint=")
    if (joint is not None or keeps) and composed is None:
        raise TypeError(
            "joint= and keeps= are for arrays alone: say by composed= what `grad` takes instead"
        )

    row = Row(function, rules, joint, keeps, composed)
    # integer arrays are numbers, unless an argument is NOT_DIFFERENTIABLE: then they may be indices
    of_numbers = not row.fixed

    @functools.wraps(function)
    def operation(*args: Any, **kwargs: Any) -> Any:
        for a in (*args, *kwargs.values()) if kwargs else args:
            if type(a) is np.ndarray:
                if a.dtype.kind == "f" or not of_numbers:
                    continue
            elif not isinstance(a, HOLDERS):
                continue
            return record(operation, args, kwargs)
        y = function(*args, **kwargs)
        return y[0] if keeps else y

    DERIVATIVES[operation] = row
    return operation


def constant(*functions: Callable[..., Any]) -> None:
    """Declare functions whose result has no gradient: given Tensors, they return plain arrays.

    Parameters
    ----------
    *functions : callable
        NumPy functions, such as comparisons, or functions that return indices.

    Examples
    --------
    >>> constant(np.spacing)
    >>> np.spacing(Tensor(1.0))
    np.float64(2.220446049250313e-16)
    """
    CONSTANTS.update(functions)


def composition(function: Callable[..., Any]) -> Callable[[Definition], Definition]:
    """Return a decorator that defines a NumPy function in terms of functions in the tables.

    Parameters
    ----------
    function : callable
        The NumPy function. The definition has arguments of the same names; in calls, arguments that
        it lacks must have NumPy's default.

    Returns
    -------
    callable
        The decorator, which returns the definition unchanged.

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

    def register(definition: Definition) -> Definition:
        COMPOSITIONS[function] = definition
        return definition

    return register


def added_rows() -> list[tuple[Any, ...]]:
    """List the derivatives and compositions that code outside the package has added to the tables.

    Returns
    -------
    list of tuple
        The name of the function in each row, and its rules or its definition.

    Examples
    --------
    >>> [name for name, *_ in added_rows() if name == "np.tanh"]
    []
    """
    entries = [(row.name, row.joint, row.composed, *row.rules) for row in DERIVATIVES.values()]
    entries += [(name_of(function), written) for function, written in COMPOSITIONS.items()]
    return [row for row in entries if not all(map(is_ours, row))]


def is_ours(part: Any) -> bool:
    function = part.rule if isinstance(part, Each) else getattr(part, "func", part)
    home = getattr(function, "__module__", None) or "numpy"
    return home.partition(".")[0] in ("lora_np", "numpy")


# Recording a NumPy call as a step of the graph


def dispatch(function: Callable[..., Operand], args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """Return the result of a NumPy call that has a Tensor among its arguments."""
    if function in DERIVATIVES:
        return record(function, args, kwargs)
    if function in COMPOSITIONS:
        definition = COMPOSITIONS[function]
        covers, places = signature(definition)
        if places is None:  # the function takes any number of arguments
            places = len(args)
        if kwargs or len(args) > places:
            args, kwargs = arrange(function, covers, places, args, kwargs)
        return definition(*args, **kwargs)
    if function in CONSTANTS:
        return function(*map(constants, args), **{name: constants(a) for name, a in kwargs.items()})
    name = name_of(function)
    raise TypeError(
        f"{name} has no derivative here. Use a function of lora_np.autograd.known(), stop the"
        f" gradient with lora_np.value(x), or add a row with lora_np.autograd.derivative({name},"
        f" ...){close_names(name, known())}"
    )


Tensor.answer = staticmethod(dispatch)


def record(function: Callable[..., Operand], args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """Run ``function`` on the arrays, and record how to pull a gradient back to each Tensor.

    If Tensors have several levels (`grad` inside `grad`), only the Tensors of the highest level are
    differentiated here. The others count as constants, and the function and its rules compute with
    them as with arrays.
    """
    row = DERIVATIVES[function]
    if kwargs or len(args) > len(row.rules):
        args, kwargs = arrange(function, row.covers, len(row.rules), args, kwargs)
    for i in row.fixed:
        if holds_tensor(args[i]):
            raise not_differentiable(function, i)
    if row.spread:
        args = args[0]
    level, values = 0, list(args)
    for i, a in enumerate(args):
        if isinstance(a, Tensor):
            if a.level > level:
                level = a.level
        elif type(a) is np.ndarray and (a.dtype.kind == "f" or function is row.forward):
            continue  # floats need no conversion; NumPy's functions convert other arrays
        elif isinstance(a, HOLDERS) and i not in row.fixed:
            convert = plain if function is row.forward else real
            values[i] = convert(row.covers[0 if row.spread else i], a)
    if level and row.composed:
        return row.composed(*values, **kwargs)
    wanted, targets, forward = [False] * len(values), [], row.forward
    for i, a in enumerate(values):
        if isinstance(a, Tensor):
            if a.level == level:
                values[i], wanted[i] = a.data, True
                targets.append(a.node or a)
            if level and isinstance(values[i], Tensor):
                forward = function  # calling `function` records the step for an outer `grad`
    y = forward(values, **kwargs) if row.spread else forward(*values, **kwargs)
    kept = None
    if row.keeps:
        y, kept = y
    if not targets:
        return y
    if not isinstance(y, Tensor):
        y = np.asarray(y)
        if y.dtype.kind != "f":
            raise TypeError(
                f"{row.name}: a Tensor holds real numbers, and the result has dtype {y.dtype}"
            )
    pull = row.pull(kept if row.keeps else y, values, kwargs, wanted)
    return tensor(y, level, Node(row.name, y, targets, pull))


def each_of(rule: Rule) -> Joint:
    """Make a joint rule for all items of a sequence from the rule for one item."""

    def joint(y: Array, *arrays: Array, wanted: Wanted, **settings: Any) -> Pulls:
        pull = rule(y, arrays, **settings)
        return lambda g: (pull(g, i) if want else None for i, want in enumerate(wanted))

    return joint


LISTS = (list, tuple)
HOLDERS = (Tensor, np.ndarray, *LISTS)


def holds_tensor(a: Any) -> bool:
    return isinstance(a, Tensor) or (isinstance(a, LISTS) and any(map(holds_tensor, a)))


def constants(a: Any) -> Any:
    """Replace each Tensor, also in lists and tuples, by a read-only view of its array."""
    if isinstance(a, Tensor):
        a = value(a).view()
        a.flags.writeable = False  # so that no function overwrites the Tensor's values
        return a
    return (list if isinstance(a, list) else tuple)(map(constants, a)) if holds_tensor(a) else a


# Matching arguments with parameters


def arrange(
    function: Callable[..., Operand],
    covers: list[str],
    places: int,
    args: Sequence[Any],
    kwargs: dict[str, Any],
) -> tuple[Sequence[Any], dict[str, Any]]:
    """Return array arguments by position and settings by keyword, however they were passed.

    A setting that equals NumPy's default is dropped; any other must be among ``covers``, the
    arguments of the rule.
    """
    usual = parameters(function)
    names = list(usual)
    settings = dict(zip(names[places:], args[places:], strict=False)) | kwargs
    arrays = list(args[:places])
    while len(arrays) < min(places, len(names)) and names[len(arrays)] in settings:
        arrays.append(settings.pop(names[len(arrays)]))
    settings = {n: s for n, s in settings.items() if not same(s, usual.get(n, REQUIRED))}
    if "out" in settings:
        raise TypeError(IN_PLACE)
    for name, setting in settings.items():
        if name not in covers:
            raise TypeError(
                f"{name_of(function)}: the derivative does not cover {name}={setting!r}"
            )
        if holds_tensor(setting):
            if function in DERIVATIVES:
                raise not_differentiable(function, name)
        else:
            settings[name] = snapshot(setting)
    return arrays, settings


def snapshot(setting: Any) -> Any:
    """Return a setting, copied if it is a list or an array of indices or conditions.

    The caller may change these before the backward pass.
    """
    if isinstance(setting, np.ndarray):
        return setting if setting.dtype.kind == "f" else setting.copy()
    changes = isinstance(setting, Sequence) and not is_simple(setting)
    return copy.deepcopy(setting) if changes else setting


def is_simple(setting: Any) -> bool:
    """Return whether a setting or an index has only immutable values, such as numbers or slices."""
    parts = setting if isinstance(setting, tuple) else (setting,)
    return all(isinstance(part, SIMPLE) for part in parts)


SIMPLE = (int, float, str, slice, np.generic, type(None), type(Ellipsis))


def same(a: Any, b: Any) -> bool:
    return a is b or (isinstance(a, (bool, int, str)) and type(a) is type(b) and bool(a == b))


@functools.cache
def signature(rule: Callable[..., Operand]) -> tuple[list[str], int | None]:
    """Return the argument names of a rule or definition, and the number of positional arguments.

    The number is None if the function takes any number of arguments.
    """
    parameters = inspect.signature(rule).parameters.values()
    kinds = {p.name: p.kind for p in parameters if p.name != "wanted"}
    places = list(kinds.values()).count(inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return list(kinds), None if inspect.Parameter.VAR_POSITIONAL in kinds.values() else places


REQUIRED = inspect.Parameter.empty
# Defaults that a signature may lack: some signatures show only "no value", and in NumPy 2.0,
# functions in C have no signature.
USUAL = {
    "out": None,
    "where": True,
    "dtype": None,
    "casting": "same_kind",
    "order": "K",
    "subok": True,
}


@functools.cache
def parameters(function: Callable[..., Operand]) -> dict[str, Any]:
    """Return the names of the function's arguments in order, with their defaults."""
    if not (isinstance(function, np.ufunc) or inspect.isbuiltin(function)):
        try:
            given = inspect.signature(function).parameters.values()
            defaults = {p.name: p.default for p in given}
            usual = [n for n in ("where", "casting") if defaults.get(n, REQUIRED) is not REQUIRED]
            return defaults | {n: USUAL[n] for n in usual}
        except ValueError:  # in NumPy 2.0, functions in C have no signature
            pass
    row, definition = DERIVATIVES.get(function), COMPOSITIONS.get(function)
    return dict.fromkeys(row.covers if row else signature(definition)[0], REQUIRED) | USUAL


def name_of(function: Callable[..., Operand]) -> str:
    """Return a function's name, such as ``np.linalg.norm``, or the plain name of a primitive."""
    name = getattr(function, "__name__", repr(function))
    module = getattr(function, "__module__", None) or "numpy"
    if module.split(".")[0] != "numpy":
        return name
    return f"{module.replace('numpy', 'np')}.{name}" if module == "numpy.linalg" else f"np.{name}"


def not_differentiable(function: Callable[..., Operand], argument: int | str) -> TypeError:
    name = list(parameters(function))[argument] if isinstance(argument, int) else argument
    return TypeError(
        f"{name_of(function)}: the argument {name} has no derivative; use lora_np.value({name})"
    )


def known() -> list[str]:
    """List the names of the functions that accept Tensors.

    Returns
    -------
    list of str
        The names in alphabetical order.

    Examples
    --------
    >>> "np.tanh" in known()
    True
    """
    return sorted({name_of(function) for function in (*DERIVATIVES, *COMPOSITIONS, *CONSTANTS)})
