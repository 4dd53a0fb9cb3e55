"""Evaluate the formulas in families' data files, which give shapes and conditions."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from lora_np.checks import shown
from lora_np.files import Json

Config = Mapping[str, Json]  # the fields of a config.json
Formula = Callable[[Config], Any]


class Formulas:
    """An evaluator of the formulas of one family, which caches each parsed formula.

    A formula consists of names, numbers, strings (``'text'``), lists, ``+ - * / // % **``,
    comparisons, ``in``, ``and``, ``or``, ``not``, ``a if b else c``, ``x[i]``, and calls of
    ``min``, ``max``, ``len``, ``whole(x)``, which drops the fraction, and ``at(x, key, default)``;
    commas make a tuple. ``/`` must divide without a remainder, or the config is rejected.
    ``text.d`` is the variable ``d`` of the part ``text``.

    Parameters
    ----------
    fields : mapping of str to str
        From each variable to the field of the config that it was read from, for messages.

    Examples
    --------
    >>> formulas = Formulas({"d": "hidden_size", "heads": "num_attention_heads"})
    >>> formulas.value("2 * d, d / heads", {"d": 12, "heads": 3})
    (24, 4)
    """

    def __init__(self, fields: Mapping[str, str]) -> None:
        self.fields = fields
        self._read: dict[str, Formula] = {}

    def value(self, entry: Json, variables: Config) -> Any:
        """Evaluate a formula from a data file; return an entry that is not a string unchanged."""
        if not isinstance(entry, str):
            return entry
        if entry not in self._read:
            self._read[entry] = self._formula(ast.parse(entry, mode="eval").body)
        return self._read[entry](variables)

    def _formula(self, node: ast.expr) -> Formula:
        match node:
            case ast.Constant(int() | float() | str() as constant):
                return lambda variables: constant
            case ast.Name() | ast.Attribute(ast.Name()):
                return operator.itemgetter(ast.unparse(node))
            case ast.Tuple(items):
                return self._applied(lambda *values: values, *items)
            case ast.List(items):
                return self._applied(lambda *values: [*values], *items)
            case ast.Call(ast.Name(name), items):
                return self._applied(_CALLS[name], *items)
            case ast.Subscript(whole, index):
                return self._applied(operator.getitem, whole, index)
            case ast.UnaryOp(sign, operand):
                return self._applied(_OPERATORS[type(sign)], operand)
            case ast.BinOp(left, ast.Div(), right):
                names = self._field(left), self._field(right)
                return self._applied(partial(_divided, *names), left, right)
            case ast.BinOp(left, sign, right) | ast.Compare(left, [sign], [right]):
                return self._applied(_OPERATORS[type(sign)], left, right)
            case ast.IfExp():
                test, then, other = map(self._formula, (node.test, node.body, node.orelse))
                return lambda variables: (then if test(variables) else other)(variables)
            case ast.BoolOp(sign, items):
                formulas, both = [*map(self._formula, items)], isinstance(sign, ast.And)

                def joined(variables: Config) -> Any:
                    for formula in formulas:
                        value = formula(variables)
                        if bool(value) != both:
                            break
                    return value

                return joined
        raise SyntaxError(f"not a formula: {ast.unparse(node)}")

    def _field(self, node: ast.expr) -> str:
        name = ast.unparse(node)
        return self.fields.get(name, name)

    def _applied(self, function: Callable[..., Any], *nodes: ast.expr) -> Formula:
        formulas = [self._formula(node) for node in nodes]
        return lambda variables: function(*[formula(variables) for formula in formulas])


def _divided(whole_name: str, name: str, whole: int, by: int) -> int:
    if by == 0 or whole % by:
        raise ValueError(f"{name} must divide {whole_name} = {whole}, got {by}")
    return whole // by


def _at(values: Json, key: int | str, default: Json) -> Json:
    """Return the entry for a key, or the default; raise an error for texts, fractions and null."""
    entry = default
    if isinstance(values, Mapping):  # transformers pads the numbers of layers, as in "05"
        names = {name.lstrip("0") or "0": name for name in values} if isinstance(key, int) else {}
        entry = values.get(names.get(str(key), str(key)), default)
    if isinstance(entry, (int, list, Mapping)):
        return entry
    raise TypeError(f"{key} must be a number or an object, got {shown(entry)}")


_CALLS: Mapping[str, Callable[..., Json]] = {
    "min": min, "max": max, "len": len, "whole": int, "at": _at,
}  # fmt: skip
_OPERATORS: Mapping[type[ast.AST], Callable[..., Json]] = {
    ast.Not: operator.not_,
    ast.USub: operator.neg,
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda item, items: item in items,
    ast.NotIn: lambda item, items: item not in items,
}
