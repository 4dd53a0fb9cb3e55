"""Small expressions over the fields of a config: shapes and conditions in a family's data file."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from types import CodeType
from typing import Any

from lora_np.checks import shown


class Formulas(ast.NodeTransformer):
    """Evaluate expressions over the variables of one family.

    An expression holds names, whole numbers, strings, ``True`` and ``False``, lists, ``+ - * // / %``,
    comparisons, ``in``, ``and or not``, ``a if b else c``, ``x[i]``, and calls of ``min``, ``max``,
    ``len`` and ``at(x, key, default)``. ``/`` must divide without a remainder, or the config is refused.
    ``text.d`` is the variable ``d`` of the part ``text``.

    Parameters
    ----------
    fields : mapping of str to str
        The field of the config that a name was read from, for messages.
    """

    def __init__(self, fields: Mapping[str, str]) -> None:
        self.fields = fields
        self._codes: dict[str, CodeType] = {}

    def value(self, said: str | bool | int | float, variables: Mapping[str, Any]) -> Any:
        """What a data file says: an expression, of a tuple where it has commas, or a number."""
        if not isinstance(said, str):
            return said
        if said not in self._codes:
            tree = self.visit(ast.parse(f"({said})", mode="eval"))
            self._codes[said] = compile(ast.fix_missing_locations(tree), said, "eval")
        return eval(self._codes[said], _CALLS, variables)

    def visit_Attribute(self, node: ast.Attribute) -> ast.Name:
        """The name of a variable with a dot in it."""
        return ast.Name(ast.unparse(node), ast.Load())

    def visit_BinOp(self, node: ast.BinOp) -> Any:
        """``/`` as a call of `divided`."""
        if not isinstance(node.op, ast.Div):
            return self.generic_visit(node)
        texts = [ast.unparse(side) for side in (node.left, node.right)]
        names = [ast.Constant(self.fields.get(text, text)) for text in texts]
        sides = [self.visit(side) for side in (node.left, node.right)]
        return ast.Call(ast.Name("/", ast.Load()), [*sides, *names], [])


def divided(whole: int, by: int, whole_name: str, name: str) -> int:
    """``whole / by`` if the remainder is zero.

    Raises
    ------
    ValueError
        If there is one.
    """
    if by == 0 or whole % by:
        raise ValueError(f"{name} must divide {whole_name} = {whole}, got {by}")
    return whole // by


def at(values: Any, key: int | str, default: Any) -> Any:
    """``values[key]`` of an object in JSON, whose keys are text; ``default`` where there is none."""
    found = values.get(str(key), default) if isinstance(values, Mapping) else default
    if isinstance(found, (int, list, Mapping)):
        return found
    raise TypeError(f"{key} must be a number or an object, got {shown(found)}")


# all that an expression can call
_CALLS: dict[str, Any] = {"__builtins__": {}, "min": min, "max": max, "len": len, "at": at, "/": divided}
