"""How many small mistakes the tests notice: mutants of lora_np's functions, one at a time.

A mutant differs from the package in one place: a comparison is reversed, an arithmetic operator
replaced, a number changed by one, a condition negated, a returned value replaced by None, or a
statement deleted. The tests of its module run on a copy of the package, and kill it if one fails.
If none does, the tests that use its package run too: a function may be tested through its callers.
"""

from __future__ import annotations

import argparse
import ast
import copy
import difflib
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

from lora_np.table import Table

ROOT = Path(__file__).parents[1]
READ_ALONE = ("mini.py", "mini_llama.py")  # whole implementations in one file, to be read
# Folders of tests of other code than lora_np, or in another place.
ELSEWHERE = {"benchmarks", "browser", "claims", "foreign", "notebooks", "pyodide", "site"}

COMPARISONS: Mapping[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Lt: ast.GtE,
    ast.GtE: ast.Lt,
    ast.Gt: ast.LtE,
    ast.LtE: ast.Gt,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
}
OPERATORS: Mapping[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
}
DELETED = (
    ast.Assign,
    ast.AugAssign,
    ast.Break,
    ast.Continue,
    ast.Delete,
    ast.Expr,
    ast.Raise,
)


class Mutant(NamedTuple):
    """A change of one file: ``text`` replaces the bytes from ``begin`` to ``end``."""

    kind: str
    file: str  # relative to the tree
    line: int
    begin: int
    end: int
    text: str

    def applied(self, source: bytes) -> bytes:
        """Return the file with the change."""
        return source[: self.begin] + self.text.encode() + source[self.end :]

    def diff(self, source: bytes) -> str:
        """Describe the change in one line: the old and the new lines of the file."""
        old, new = (text.decode().splitlines() for text in (source, self.applied(source)))
        lines = list(difflib.unified_diff(old, new, n=0, lineterm=""))[3:]
        removed, added = (
            " ".join(" ".join(line[1:].split()) for line in lines if line[0] == sign)
            for sign in "-+"
        )
        return f"{self.file}:{self.line}: - {removed} + {added}"


class Outcome(NamedTuple):
    """The result of the tests of a mutant."""

    mutant: Mutant
    result: str  # "killed", "over the limit" or "survived"
    seconds: float  # of the processor


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks mutants", description=__doc__)
    parser.add_argument("--number", type=int, default=300, help="mutants to draw")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--tree", type=Path, default=ROOT, help="folder of the package and its tests"
    )
    parser.add_argument("--limit", type=int, default=300, help="seconds of CPU for a mutant")
    parser.add_argument("--list", action="store_true", help="show the mutants without any test")
    parser.add_argument("--quick", action="store_true", help="three mutants")
    options = parser.parse_args(arguments)
    tree = options.tree.resolve()
    mutants = drawn(tree, 3 if options.quick else options.number, options.seed)
    if options.list:
        for mutant in mutants:
            print(f"{mutant.kind}: {mutant.diff((tree / mutant.file).read_bytes())}")
        return
    outcomes = tested(tree, mutants, options.limit)
    print(table_of(outcomes, f"{len(mutants)} mutants of lora_np, seed {options.seed}"))
    for outcome in outcomes:
        if outcome.result == "survived":
            source = (tree / outcome.mutant.file).read_bytes()
            print(f"survived: {outcome.mutant.kind}: {outcome.mutant.diff(source)}")


def table_of(outcomes: Sequence[Outcome], title: str) -> Table:
    """Count the mutants that were killed, by kind and in all, with an interval for the share."""
    rows: list[list[str | int | float]] = []
    kinds = sorted({outcome.mutant.kind for outcome in outcomes})
    for kind in [*kinds, "all"]:
        chosen = [one for one in outcomes if kind in ("all", one.mutant.kind)]
        killed = sum(one.result != "survived" for one in chosen)
        low, high = interval(killed, len(chosen))
        seconds = sum(one.seconds for one in chosen)
        interval_text = f"{100 * low:.1f} to {100 * high:.1f}"
        share = 100 * killed / max(len(chosen), 1)
        rows.append([kind, len(chosen), killed, f"{share:.1f}", interval_text, round(seconds, 1)])
    over = Counter(outcome.result for outcome in outcomes)["over the limit"]
    return Table(
        ["kind", "mutants", "killed", "% killed", "95 % interval", "CPU seconds"],
        rows,
        title=title,
        notes=[
            f"{over} of the killed mutants exceeded the limit of CPU time",
            "the interval is Wilson's; the seconds include all processes that the tests start",
        ],
    )


def interval(successes: int, trials: int, z: float = 1.96) -> tuple[float, float]:
    """Compute Wilson's interval for a probability; from 0 to 1 without trials."""
    if not trials:
        return 0.0, 1.0
    share, n = successes / trials, trials
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * (share * (1 - share) / n + z**2 / (4 * n**2)) ** 0.5 / (1 + z**2 / n)
    return max(0.0, centre - half), min(1.0, centre + half)


# Drawing


def drawn(tree: Path, number: int, seed: int) -> list[Mutant]:
    """Draw different mutants, in random order; each change of the package is equally likely."""
    paths = [
        path for path in sorted((tree / "lora_np").rglob("*.py")) if path.name not in READ_ALONE
    ]
    places = [
        (path, i) for path in paths for i, _ in enumerate(changes_in(ast.parse(path.read_bytes())))
    ]
    found: list[Mutant] = []
    for path, i in random.Random(seed).sample(places, len(places)):
        if len(found) == number:
            break
        source = path.read_bytes()
        (mutant,) = mutants_of(source, path.relative_to(tree).as_posix(), {i}.__contains__)
        if is_valid(mutant.applied(source)):
            found.append(mutant)
    return found


def is_valid(source: bytes) -> bool:
    """Return whether a file compiles: a nonlocal name without an assignment is an error."""
    try:
        compile(source, "<mutant>", "exec", dont_inherit=True)
    except SyntaxError:
        return False
    return True


def mutants_of(
    source: bytes, file: str, chosen: Callable[[int], bool] = lambda i: True
) -> list[Mutant]:
    """List the mutants of the functions of a file: all, or those with chosen numbers."""
    begins = [0]
    for line in source.splitlines(keepends=True):
        begins.append(begins[-1] + len(line))
    found = []
    for i, (node, kind, text) in enumerate(changes_in(ast.parse(source))):
        if chosen(i):
            begin = begins[node.lineno - 1] + node.col_offset
            end = begins[(node.end_lineno or 1) - 1] + (node.end_col_offset or 0)
            found.append(Mutant(kind, file, node.lineno, begin, end, text()))
    return found


Change = tuple["ast.expr | ast.stmt", str, Callable[[], str]]  # a node, a kind, the new text


def changes_in(tree: ast.Module) -> Iterator[Change]:
    """Yield the changes in the bodies of all functions, from the first to the last."""
    left: list[tuple[ast.AST, bool]] = [(tree, False)]
    while left:
        node, inside = left.pop()
        if inside and isinstance(node, ast.expr | ast.stmt | ast.comprehension):
            yield from changes_of(node)
        if isinstance(node, ast.JoinedStr):  # before Python 3.12, positions inside are wrong
            continue
        function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        below = []
        for name, value in ast.iter_fields(node):
            if name not in ("annotation", "returns", "decorator_list"):
                children = value if isinstance(value, list) else [value]
                within = inside or (function and name == "body")
                below += [(child, within) for child in children if isinstance(child, ast.AST)]
        left += reversed(below)


def changes_of(node: ast.expr | ast.stmt | ast.comprehension) -> Iterator[Change]:
    """Yield the changes of one node."""
    match node:
        case ast.Compare(ops=[op]):
            yield node, "comparison", partial(replaced, node, ops=[COMPARISONS[type(op)]()])
        case ast.BinOp(op=op) | ast.AugAssign(op=op) if type(op) in OPERATORS:
            yield node, "operator", partial(replaced, node, op=OPERATORS[type(op)]())
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
            for step in (1, -1):
                yield node, "number", partial("({!r})".format, number + step)
        case ast.If(test=test) | ast.While(test=test) | ast.IfExp(test=test):
            yield test, "condition", partial(negated, test)
        case ast.comprehension(ifs=tests):
            for test in tests:
                yield test, "condition", partial(negated, test)
        case ast.Return(value=value) if value and not is_none(value):
            yield node, "return", lambda: "return None"
    if isinstance(node, DELETED) and not (
        isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    ):
        yield node, "statement", lambda: "pass"


def is_none(node: ast.expr) -> bool:
    """Tell whether an expression is None."""
    return isinstance(node, ast.Constant) and node.value is None


def negated(test: ast.expr) -> str:
    """Write the negation of a condition."""
    return f"(not ({ast.unparse(test)}))"


def replaced(node: ast.expr | ast.stmt, **fields: Any) -> str:
    """Write a node with other fields."""
    new = copy.copy(node)
    for name, value in fields.items():
        setattr(new, name, value)
    return f"({ast.unparse(new)})" if isinstance(node, ast.expr) else ast.unparse(new)


# Testing


def tested(tree: Path, mutants: Sequence[Mutant], limit: int) -> list[Outcome]:
    """Run the tests of each mutant on a copy of the package.

    The tests first run on the unchanged copy, and those that fail there are left out.
    """
    changed = sorted({one.file for one in mutants})
    files = {file: (tests_of(tree, file), more_tests_of(tree, file)) for file in changed}
    outcomes = []
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        place = copied(tree, Path(folder))
        wanted = sorted({test for first, more in files.values() for test in [*first, *more]})
        _, output, _ = run(place, wanted, ["-rfE"], limit=None)
        failing = failing_in(output)
        for name in failing:
            print(f"left out, since it fails without a mutant: {name}", file=sys.stderr)
        skipped = [f"--deselect={name}" for name in failing]
        for i, mutant in enumerate(mutants, start=1):
            path = place / mutant.file
            source = path.read_bytes()
            write(path, mutant.applied(source), 2 * i)
            seconds = 0.0
            for tests in files[mutant.file]:
                code, output, more = run(place, tests, ["-x", *skipped], limit=limit)
                seconds += more
                if code not in (0, 5):
                    break
            write(path, source, 2 * i + 1)
            if code == 4:
                raise RuntimeError(output)
            # 0: all tests passed; 5: there is no test; below 0: a signal ended the process
            result = "survived" if code in (0, 5) else "over the limit" if code < 0 else "killed"
            outcomes.append(Outcome(mutant, result, seconds))
            told = f"{i} of {len(mutants)}: {mutant.file}:{mutant.line} {mutant.kind}"
            print(f"{told}: {result}, {seconds:.1f} s", file=sys.stderr, flush=True)
    return outcomes


def write(path: Path, content: bytes, second: int) -> None:
    """Write a file with a time of its own, so that Python does not use an older compiled file."""
    path.write_bytes(content)
    os.utime(path, (second, second))


def copied(tree: Path, folder: Path) -> Path:
    """Copy the package and its tests into a folder, beside links to everything else."""
    ignored = shutil.ignore_patterns("__pycache__")
    for path in tree.iterdir():
        target = folder / path.name
        if path.name in ("lora_np", "tests"):
            shutil.copytree(path, target, ignore=ignored)
        elif path.name != ".git":
            target.symlink_to(path)
    return folder


def run(
    place: Path, tests: Sequence[str], options: Sequence[str], *, limit: int | None
) -> tuple[int, str, float]:
    """Run tests in one process; return its exit status, its output, and seconds of CPU time."""
    if not tests:
        return 5, "", 0.0
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options, *tests]
    more = {"PYTHONPATH": str(place), "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    before = cpu_seconds()
    process = subprocess.run(
        command,
        cwd=place,
        env=os.environ | more,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        preexec_fn=None if limit is None else limited_to(limit),
        check=False,
    )
    return process.returncode, process.stdout, cpu_seconds() - before


def limited_to(seconds: int) -> Callable[[], None]:
    """Return a function that limits the CPU time of the process that calls it."""
    import resource  # not on Windows

    return lambda: resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))


def cpu_seconds() -> float:
    """Return the CPU time of all processes that this process has started and awaited."""
    times = os.times()
    return times.children_user + times.children_system


def failing_in(output: str) -> list[str]:
    """List the tests that pytest's summary of a run reports as failed."""
    words = (line.split(" ", 1) for line in output.splitlines())
    return [
        rest[0].partition(" - ")[0] for word, *rest in words if word in ("FAILED", "ERROR") and rest
    ]


# Tests of a module


def tests_of(tree: Path, file: str) -> list[str]:
    """List the tests of a module: its examples, the file of its name, and laws that use it.

    If neither of the last two exists, every test that uses the module counts; and if there is none
    either, because only other modules import it, every test that uses its package.
    """
    path = Path(file)
    module = ".".join(path.with_suffix("").parts).removesuffix(".__init__")
    below = path.relative_to("lora_np")
    own = Path("tests", below.parent, f"test_{below.stem.lstrip('_')}.py")
    users = users_of(tree, module)
    laws = [one for one in users if one.startswith("tests/laws/")]
    found = [own.as_posix()] * (tree / own).is_file()
    found += [one for one in laws if one not in found]
    package = module
    while not users and "." in package:
        package = package.rpartition(".")[0]
        users = users_of(tree, package)
    return [file, *(found or users)]


def more_tests_of(tree: Path, file: str) -> list[str]:
    """List further tests that use a module's package, or a module that is in none but lora_np."""
    module = ".".join(Path(file).with_suffix("").parts).removesuffix(".__init__")
    package = module.rpartition(".")[0]
    first = tests_of(tree, file)
    users = users_of(tree, module if package == "lora_np" else package)
    return [one for one in users if one not in first]


def users_of(tree: Path, module: str) -> list[str]:
    """List the test files that use a module, or a module of a package."""
    return [
        one
        for one, modules in uses(tree).items()
        if any(f"{used}.".startswith(f"{module}.") for used in modules)
    ]


@cache
def uses(tree: Path) -> dict[str, set[str]]:
    """Map each test file of the package to the modules of lora_np that it uses."""
    exported = exports(tree)
    found = {}
    for path in sorted((tree / "tests").rglob("test_*.py")):
        place = path.relative_to(tree)
        if place.parts[1] not in ELSEWHERE:
            names = names_in(ast.parse(path.read_bytes()))
            found[place.as_posix()] = {
                module for name in names for module in homes(name, tree, exported)
            }
    return found


def names_in(tree: ast.Module) -> set[str]:
    """List the dotted names from lora_np that a file uses, through the names that it imports."""
    known: dict[str, str] = {}
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                names.add(alias.name)
                whole = alias.name if alias.asname else alias.name.partition(".")[0]
                known[alias.asname or whole] = whole
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                known[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    names |= {*known.values()}
    for node in ast.walk(tree):
        parts: list[str] = []
        inner: ast.AST = node
        while isinstance(inner, ast.Attribute):
            parts.insert(0, inner.attr)
            inner = inner.value
        if parts and isinstance(inner, ast.Name) and inner.id in known:
            names.add(".".join([known[inner.id], *parts]))
    return {name for name in names if name.partition(".")[0] == "lora_np"}


def exports(tree: Path) -> dict[str, str]:
    """Map the names that the packages' ``__init__`` files import to the names in their modules."""
    found = {}
    for path in sorted((tree / "lora_np").rglob("__init__.py")):
        package = ".".join(path.parent.relative_to(tree).parts)
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                for alias in node.names:
                    found[f"{package}.{alias.asname or alias.name}"] = f"{node.module}.{alias.name}"
    return found


def homes(name: str, tree: Path, exported: Mapping[str, str]) -> Iterable[str]:
    """Yield the module that a dotted name leads to, through the exports of packages."""
    parts = name.split(".")
    home, place = "", tree
    for i, part in enumerate(parts, start=1):
        head, place = ".".join(parts[:i]), place / part
        aim = exported.get(head, head)
        if not f"{aim}.".startswith(f"{head}."):
            yield from homes(".".join([aim, *parts[i:]]), tree, exported)
            return
        if not (place.is_dir() or place.with_suffix(".py").is_file()):
            break
        home = head
    if home:
        yield home
