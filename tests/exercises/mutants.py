"""Mutants of a right answer, made by rules: each is what somebody might plausibly write instead."""

import ast
import copy
from collections.abc import Iterator

SWAPPED = {
    "argmax": "argmin", "argmin": "argmax", "max": "min", "min": "max", "mean": "sum", "sum": "mean",
    "zeros": "ones", "cumsum": "cumprod", "floor": "ceil", "flatnonzero": "nonzero", "square": "abs",
    "stack": "concatenate", "concatenate": "stack", "multiply": "add",
}  # fmt: skip
DROPPED = {"abs", "sqrt", "square", "exp", "log", "reversed", "sorted", "cumsum", "list"}
OPERATORS = {
    ast.Add: (ast.Sub,), ast.Sub: (ast.Add,), ast.Mult: (ast.Div, ast.Add), ast.Div: (ast.Mult,),
    ast.FloorDiv: (ast.Div,), ast.MatMult: (), ast.Pow: (ast.Mult,), ast.Mod: (ast.FloorDiv,),
    ast.BitAnd: (ast.BitOr,), ast.RShift: (ast.LShift,), ast.LShift: (ast.RShift,),
}  # fmt: skip
COMPARISONS = {
    ast.Gt: (ast.GtE, ast.Lt), ast.GtE: (ast.Gt, ast.Lt), ast.Lt: (ast.LtE, ast.Gt), ast.LtE: (ast.Lt, ast.Gt),
    ast.Eq: (ast.NotEq,), ast.NotEq: (ast.Eq,),
}  # fmt: skip


def mutants(source: str) -> list[str]:
    """Every source that differs from this one in one place, by one rule."""
    tree = ast.parse(source)
    given = ast.unparse(tree)
    parameters = {
        a.arg for f in ast.walk(tree) if isinstance(f, ast.FunctionDef) for a in f.args.args
    }
    found: dict[str, None] = {}
    for path, node in places(tree):
        for new in replacements(node, parameters):
            put(tree, path, ast.copy_location(new, node))  # its line is asked for in statements
            try:
                found.setdefault(ast.unparse(tree) + "\n")
            except Exception:  # not a program: a pass in a place for a value
                continue
            finally:
                put(tree, path, node)
    found.pop(given + "\n", None)
    return list(found)


def difference(source: str, mutant: str) -> str:
    """The line that is new in the mutant; where a line is gone, a minus sign and that line."""
    before, after = ast.unparse(ast.parse(source)).splitlines(), mutant.splitlines()
    same = next(
        (i for i, (a, b) in enumerate(zip(before, after, strict=False)) if a != b), len(after) - 1
    )
    return after[same].strip() if len(before) == len(after) else f"- {before[same].strip()}"


def places(tree: ast.AST) -> Iterator[tuple[list[tuple[str, int | None]], ast.AST]]:
    """Every node with the way to it, signatures and docstrings left out."""

    def walk(node, path):
        yield path, node
        for name, value in ast.iter_fields(node):
            if name in ("args", "decorator_list") and isinstance(node, ast.FunctionDef):
                continue
            for i, child in enumerate(value if isinstance(value, list) else [value]):
                if isinstance(child, ast.AST) and not isinstance(
                    child, (ast.expr_context, ast.operator)
                ):
                    yield from walk(child, [*path, (name, i if isinstance(value, list) else None)])

    yield from walk(tree, [])


def put(tree, path, new) -> None:
    for name, i in path[:-1]:
        tree = getattr(tree, name) if i is None else getattr(tree, name)[i]
    name, i = path[-1]
    if i is None:
        setattr(tree, name, new)
    else:
        getattr(tree, name)[i] = new


def variant(node, **changes):
    new = copy.deepcopy(node)
    for name, value in changes.items():
        setattr(new, name, value)
    return new


def replacements(node: ast.AST, parameters: set[str]) -> Iterator[ast.AST]:
    match node:
        case ast.Name(id=name, ctx=ast.Load()) if name in parameters:
            yield ast.Constant(1)
            yield ast.Constant(0.6 if name in ("threshold", "share", "alpha") else 2)
        case ast.Constant(value=bool(value)):
            yield ast.Constant(not value)
        case ast.Constant(value=int(value)):
            yield ast.Constant(value + 1)
            if value:
                yield ast.Constant(value - 1)
        case ast.Constant(value=float(value)):
            yield ast.Constant(10 * value if value else 1.0)
            if value:
                yield ast.Constant(value / 2)
        case ast.Constant(value=str(value)) if value:
            yield ast.Constant(value + "s")
        case ast.BinOp(left=left, op=op, right=right):
            yield from (variant(node, op=new()) for new in OPERATORS.get(type(op), ()))
            if not isinstance(op, (ast.Add, ast.Mult, ast.BitAnd)):
                yield variant(node, left=right, right=left)
            yield left  # one side only
            yield right
        case ast.UnaryOp(operand=operand):
            yield operand
        case ast.Compare(ops=[op]):
            yield from (variant(node, ops=[new()]) for new in COMPARISONS.get(type(op), ()))
        case ast.AugAssign(target=target, op=op, value=value):
            yield ast.Assign([target], value)
            yield from (variant(node, op=new()) for new in OPERATORS.get(type(op), ()))
            yield ast.Pass()
        case ast.Attribute(value=value, attr=attr):
            if attr == "T":
                yield value
            if attr in SWAPPED:
                yield variant(node, attr=SWAPPED[attr])
        case ast.Call(func=func, args=args, keywords=keywords):
            name = func.attr if isinstance(func, ast.Attribute) else getattr(func, "id", "")
            if name in ("array", "copy"):  # no copy
                yield args[0] if args else func.value
            if name in DROPPED and args:
                yield args[0]
            if (
                len(args) == 2
                and name not in ("max", "min")
                and not any(isinstance(a, ast.Starred) for a in args)
            ):
                yield variant(node, args=args[::-1])
            for i, keyword in enumerate(keywords):
                if keyword.arg == "dtype":
                    yield variant(
                        node, keywords=[variant(keyword, value=ast.Name("int", ast.Load()))]
                    )
                else:
                    yield variant(node, keywords=keywords[:i] + keywords[i + 1 :])
                if keyword.arg == "axis" and isinstance(keyword.value, ast.Constant):
                    other = variant(keyword, value=ast.Constant(1 - keyword.value.value))
                    yield variant(node, keywords=[*keywords[:i], other, *keywords[i + 1 :]])
        case ast.Slice(lower=None, upper=upper, step=None) if upper is not None:
            yield ast.Slice(ast.UnaryOp(ast.USub(), upper), None, None)  # the last, not the first
            yield ast.Slice(None, ast.BinOp(upper, ast.Add(), ast.Constant(1)), None)
            yield ast.Slice()
        case ast.Slice(lower=lower, upper=None, step=None) if lower is not None:
            yield ast.Slice(None, lower, None)
            yield ast.Slice(ast.BinOp(lower, ast.Add(), ast.Constant(1)), None, None)
            yield ast.Slice()
        case ast.Slice(step=step) if step is not None:
            yield ast.Slice()
        case ast.Subscript(value=value, slice=ast.Tuple(elts=[first, second]) as both):
            yield variant(node, slice=variant(both, elts=[second, first]))  # the other axis
        case ast.Tuple(elts=[first, *_] as elements, ctx=ast.Load()) if len(elements) > 1:
            yield variant(node, elts=elements[::-1])
            yield variant(node, elts=[first] * len(elements))
        case ast.Assign() | ast.Expr() | ast.If():
            yield ast.Pass()
        case ast.Continue():
            yield ast.Break()
        case ast.IfExp(body=body, orelse=orelse):
            yield body
            yield orelse
        case _:
            return
