"""How large the package is, in Python tokens, and what it could spare."""

from __future__ import annotations

import argparse
import ast
import io
import re
import tokenize
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

from lora_np.table import Table

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "lora_np"
READ_ALONE = ("mini.py", "mini_llama.py")  # whole implementations in one file, to be read
LAYOUT = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENCODING,
    tokenize.ENDMARKER,
}
# Where a mention of a public name counts as a use. Tests and docs/reference list names themselves.
READERS = ("notebooks/src", "tests/exercises/answers", "claims", "recipes", "docs")
# What tells a use: imports, attributes, and signatures of functions and classes.
TELLING = ast.ImportFrom | ast.Attribute | ast.FunctionDef | ast.ClassDef
CALLED = r"\b([A-Za-z_]\w*)(?=\()|(?<=\.)([A-Za-z_]\w*)|^\s*from lora_np.*import (.+)"


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks size", description=__doc__)
    parser.add_argument("--files", action="store_true", help="a row for each file")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    rows: dict[str, Counter[str]] = {}
    for path in sources():
        place = path.relative_to(PACKAGE)
        name = place.as_posix() if options.files else place.parts[0]
        rows.setdefault(name, Counter()).update(measure(path))
    total: Counter[str] = sum(rows.values(), Counter())
    ordered = sorted(rows.items(), key=lambda row: -row[1]["tokens"])
    table = Table(
        ["place", "tokens", "lines", "tokens a line", "Any"],
        [
            [name, row["tokens"], row["lines"], row["tokens"] / max(row["lines"], 1), row["Any"]]
            for name, row in [*ordered, ("all", total)]
        ],
        title="Size of lora_np, without mini.py and mini_llama.py",
        notes=[
            "tokens: without comments, docstrings, newlines and indents; "
            "lines: those that hold such a token",
            f"public names that nothing uses: {', '.join(unused_names()) or 'none'}",
        ],
        formats={"tokens a line": "{:.1f}".format},
    )
    print(table.to_json() if options.json else table)


def sources() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if path.name not in READ_ALONE)


def measure(path: Path) -> Counter[str]:
    """Count the tokens of code in a file, the lines that hold them, and mentions of ``Any``."""
    code = code_of(path)
    lines = {line for first, last, _ in code for line in range(first, last + 1)}
    return Counter(tokens=len(code), lines=len(lines), Any=sum(is_any for *_, is_any in code))


@cache
def tree_of(path: Path) -> ast.Module:
    """Parse a file once."""
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def nodes_of(path: Path) -> list[ast.AST]:
    """List all nodes of a file, once for all who read them."""
    return [*ast.walk(tree_of(path))]


@cache
def code_of(path: Path) -> list[tuple[int, int, bool]]:
    """List the first and last line of each token of code, and whether it is ``Any``."""
    tokens = code_tokens(path.read_text(encoding="utf-8"), tree_of(path))
    return [(token.start[0], token.end[0], token.string == "Any") for token in tokens]


class Function(NamedTuple):
    """A function's tokens, as `measure` counts those of a file, and its branches."""

    name: str  # with its file
    tokens: int
    branches: int


def functions(path: Path) -> list[Function]:
    """Measure every function of a file, and each function inside another as a part of it too."""
    lines = [first for first, *_ in code_of(path)]
    return [
        Function(
            f"{path.relative_to(PACKAGE).as_posix()} {node.name}",
            bisect_right(lines, node.end_lineno or 0) - bisect_left(lines, node.lineno),
            sum(map(branches, ast.walk(node))),
        )
        for node in nodes_of(path)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]


def branches(node: ast.AST) -> int:
    """Count the ways that a node adds: conditions, loops, handlers and comprehensions."""
    if isinstance(node, ast.comprehension):
        return 1 + len(node.ifs)
    kinds = ast.If | ast.IfExp | ast.For | ast.While | ast.ExceptHandler | ast.match_case
    return isinstance(node, kinds)


def code_tokens(text: str, tree: ast.AST) -> list[tokenize.TokenInfo]:
    """List the tokens of code: no comments, docstrings, newlines and indents."""
    documented = set(docstring_lines(tree))
    return [
        token
        for token in whole_strings(tokenize.generate_tokens(io.StringIO(text).readline))
        if token.type not in LAYOUT
        and not (token.type == tokenize.STRING and token.start[0] in documented)
    ]


def whole_strings(tokens: Iterator[tokenize.TokenInfo]) -> Iterator[tokenize.TokenInfo]:
    """Make one token of each f-string, which Python takes apart from 3.12 on."""
    starts: list[tokenize.TokenInfo] = []
    for token in tokens:
        kind = tokenize.tok_name[token.type]
        if kind == "FSTRING_START":
            starts.append(token)
        elif kind == "FSTRING_END":
            first = starts.pop()
            if not starts:
                yield token._replace(type=tokenize.STRING, string="", start=first.start)
        elif not starts:
            yield token


def docstring_lines(tree: ast.AST) -> Iterator[int]:
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            and ast.get_docstring(node, clean=False) is not None
        ):
            first = node.body[0]
            yield from range(first.lineno, (first.end_lineno or first.lineno) + 1)


def public_names() -> dict[str, set[str]]:
    """The names that each package exports, by the package's name."""
    return {
        ".".join(path.parent.relative_to(ROOT).parts): {
            alias.name
            for node in nodes_of(path)
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
            if alias.name == alias.asname
        }
        for path in sorted(PACKAGE.rglob("__init__.py"))
    }


def unused_names() -> list[str]:
    """Public names that no reader calls, no other package imports, and no signature names."""
    readers = [
        path
        for folder in READERS
        for path in (ROOT / folder).rglob("*")
        if path.suffix in (".py", ".md", ".toml")
        and not {"reference", "_build"} & set(path.relative_to(ROOT).parts)
    ]
    called = {
        name
        for path in [*readers, ROOT / "README.md"]
        for found in re.findall(CALLED, path.read_text(encoding="utf-8"), re.MULTILINE)
        for name in re.findall(r"\w+", " ".join(found))
    }
    nodes: dict[Path, list[ast.AST]] = {
        path: [node for node in nodes_of(path) if isinstance(node, TELLING)]
        for path in PACKAGE.rglob("*.py")
        if path.name != "__init__.py"  # to export a name again is no use of it
    }
    uses = {
        path: [node for node in inside if isinstance(node, ast.ImportFrom | ast.Attribute)]
        for path, inside in nodes.items()
    }
    spare = []
    for package, names in public_names().items():
        folder = ROOT.joinpath(*package.split("."))
        imported = {
            name
            for path, inside in uses.items()
            if package != "lora_np" and not path.is_relative_to(folder)
            for name in imports(inside, package)
        }
        signatures = {
            name
            for path, inside in nodes.items()
            if path.is_relative_to(folder)
            for name in names_in_signatures(inside, names)
        }
        spare += [f"{package}.{name}" for name in sorted(names - called - imported - signatures)]
    return spare


def imports(nodes: list[ast.ImportFrom | ast.Attribute], package: str) -> Iterator[str]:
    """The names that a file takes from a package: by import, or as attributes of it."""
    parent, _, short = package.rpartition(".")
    shorts = {short} | {  # and what a file calls it
        alias.asname
        for node in nodes
        if isinstance(node, ast.ImportFrom) and node.module == parent
        for alias in node.names
        if alias.name == short
    }
    for node in nodes:
        if isinstance(node, ast.ImportFrom):
            if f"{node.module}.".startswith(f"{package}."):
                yield from (alias.name for alias in node.names)
        elif isinstance(node.value, ast.Name | ast.Attribute):
            owner = node.value.id if isinstance(node.value, ast.Name) else node.value.attr
            if owner in shorts:
                yield node.attr


def names_in_signatures(nodes: list[ast.AST], public: set[str]) -> Iterator[str]:
    """Words of the annotations of public functions, and of the fields of public classes."""
    for node in nodes:
        if isinstance(node, ast.FunctionDef) and node.name in public:
            arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            annotations = [argument.annotation for argument in arguments] + [node.returns]
        elif isinstance(node, ast.ClassDef) and node.name in public:
            annotations = [
                part.annotation if isinstance(part, ast.AnnAssign) else part.returns
                for part in node.body
                if isinstance(part, ast.AnnAssign | ast.FunctionDef)
            ]
        else:
            continue
        for annotation in annotations:
            if annotation is not None:
                yield from re.findall(r"\w+", ast.unparse(annotation))
