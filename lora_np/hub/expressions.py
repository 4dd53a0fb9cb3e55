"""Small expressions over the fields of a config: what a family's data file says of shapes and conditions."""

from __future__ import annotations

import ast
from collections.abc import Collection, Mapping
from types import CodeType
from typing import Any

from lora_np.checks import shown

_FORMS = (
    ast.Expression, ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.IfExp, ast.Subscript, ast.List,
    ast.Tuple, ast.Load, ast.Add, ast.Sub, ast.Mult, ast.FloorDiv, ast.Div, ast.Mod, ast.And, ast.Or, ast.Not,
    ast.USub, ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.In, ast.NotIn,
)  # fmt: skip


class Expressions:
    """Compile expressions over the names of one family.

    An expression holds names, whole numbers, strings, ``True`` and ``False``, lists, ``+ - * // / %``,
    comparisons, ``in``, ``and or not``, ``a if b else c``, ``x[i]``, and calls of ``min``, ``max``,
    ``len`` and ``at(x, key, default)``. ``/`` divides without a remainder, or the config is refused.
    ``text.d`` is the variable ``d`` of the part ``text``.

    Parameters
    ----------
    fields : mapping of str to str
        The field of the config that a name was read from, for messages.
    parts : collection of str
        Names that may be followed by a dot.
    """

    def __init__(self, fields: Mapping[str, str], parts: Collection[str] = ()) -> None:
        self.fields = fields
        self.parts = parts
        self._codes: dict[str, CodeType] = {}

    def value(self, said: str | bool | int | float, variables: Mapping[str, Any]) -> Any:
        """What a data file says: an expression, of a tuple where it has commas, or a number.

        Raises
        ------
        ValueError
            If the text holds anything that an expression may not hold.
        """
        if not isinstance(said, str):
            return said
        if said not in self._codes:
            self._codes[said] = self._compiled(said)
        return eval(self._codes[said], _CALLS, variables)

    def _compiled(self, text: str) -> CodeType:
        try:
            tree = ast.parse(f"({text})", "<family>", mode="eval")
        except (SyntaxError, ValueError, RecursionError):
            raise ValueError(f"not an expression: {text!r}") from None
        return compile(ast.fix_missing_locations(self._checked(tree)), "<family>", "eval")

    def _checked(self, node: ast.AST) -> Any:
        """The same tree with names of parts joined and ``/`` made exact."""
        match node:
            case ast.Name() | ast.Constant(value=int() | float() | str()):
                return node
            case ast.Attribute(value=ast.Name(id=part), attr=name) if part in self.parts:
                return ast.Name(f"{part}.{name}", ast.Load())
            case ast.Call(func=ast.Name(id="min" | "max" | "len" | "at"), keywords=[]):
                node.args = [self._checked(argument) for argument in node.args]
                return node
            case ast.BinOp(op=ast.Div()):
                return self._exact(node)
            case _ if isinstance(node, _FORMS):
                for name, value in ast.iter_fields(node):
                    if isinstance(value, list):
                        setattr(node, name, [self._checked(item) for item in value])
                    elif isinstance(value, ast.AST):
                        setattr(node, name, self._checked(value))
                return node
        raise ValueError(f"not allowed in an expression: {ast.unparse(node)}")

    def _exact(self, node: ast.BinOp) -> ast.Call:
        names = [self._named(side) for side in (node.left, node.right)]
        sides = [self._checked(side) for side in (node.left, node.right)]
        words: list[ast.expr] = [ast.Constant(name) for name in names]
        return ast.Call(ast.Name("/", ast.Load()), [*sides, *words], [])

    def _named(self, node: ast.expr) -> str:
        return self.fields.get(node.id, node.id) if isinstance(node, ast.Name) else ast.unparse(node)


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
