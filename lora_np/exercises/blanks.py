"""Cut fifteen lines out of ``lora_np/mini.py``: puzzles for pages, notebooks and terminals."""

from __future__ import annotations

import ast
import inspect
import re
import sys
import textwrap
import time
import tomllib
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from operator import attrgetter
from types import FrameType
from typing import Any

import numpy as np

from lora_np import mini
from lora_np.checks import ArrayLike, StrPath, arrays, choice, encodable
from lora_np.exercises.catalogue import DATA, law_of
from lora_np.exercises.running import Mistake, run_cell
from lora_np.exercises.testing import SEEDS, Exercise, Law, Outcome, judge, local_caller
from lora_np.exercises.values import Value
from lora_np.work import one_thread

BLANK = "___"
TITLE = "# Puzzle {}: {}"  # begins the title above each line of a script
SECONDS = 9.0  # of CPU: what takes longer does not end
solved: dict[str, str] = {}  # lines that have passed in this process, by the puzzles' names
SHADES, BARS = ("  ", "░░", "▒▒", "▓▓", "██"), "▁▂▃▄▅▆▇█"


@dataclass(frozen=True)
class Scene:
    """Show what a line does, or what is wrong with it; a terminal draws it with letters.

    Parameters
    ----------
    said : str
        A sentence.
    panels : mapping of str to array_like
        A matrix is drawn in shades, a list of numbers as a curve; ``?`` stands for NaN.
    passed : bool
        Whether the line is right.

    Examples
    --------
    >>> Scene("Half of it.", {"loss": [8, 6, 4, 2, 0]})
    Half of it.
    <BLANKLINE>
    loss
    █▆▅▃▁
    """

    said: str
    panels: Mapping[str, ArrayLike] = field(default_factory=dict)
    passed: bool = True

    def __repr__(self) -> str:
        parts, panels = [self.said], arrays(self.panels)
        for label, M in panels.items():
            alike = [np.abs(p[np.isfinite(p)]) for p in panels.values() if p.ndim == M.ndim]
            most = max(p.max(initial=0) for p in alike) or 1
            marks = SHADES if M.ndim == 2 else BARS
            M = np.abs(np.atleast_2d(M))
            small = M[:: -(-len(M) // 16) or 1, :: -(-M.shape[1] * len(marks[0]) // 60) or 1]
            steps = np.rint(np.minimum(small / most, 1) * (len(marks) - 1))
            signs = (
                "".join("?" * len(marks[0]) if np.isnan(i) else marks[int(i)] for i in row)
                for row in steps
            )
            parts.append("\n".join([label, *signs]))
        text = "\n\n".join(filter(None, parts))
        return encodable(text, getattr(sys.stdout, "encoding", None))  # which print would refuse


@dataclass(frozen=True)
class Puzzle(Exercise):
    """Hold an exercise of one line; its stub is how the laws ask the completed file.

    Parameters
    ----------
    name, title, difficulty, minutes, laws, statement, stub, hints : various
        See `Exercise`.
    solution, forbids, cases, needs, example, mistakes, answer, more : various
        See `Exercise`.
    number : int
        From 1.
    blank : str
        The line with ``___`` for what is missing.
    law : str
        What the line must satisfy, as a sentence.
    within : str
        The function that has the line; empty outside of functions.
    diagram : str
        A picture made of letters; may be empty.
    picture, victory : str
        Code that draws, before the line is written and after.
    says : tuple of (str, str)
        Patterns of a line or its error, and what to say of these mistakes.

    Examples
    --------
    >>> from lora_np.exercises import puzzle
    >>> one = puzzle("parameters")
    >>> one.blank, one.solve("parameters = r * (d + k)").passed
    ('parameters = ___', True)
    """

    number: int = 0
    blank: str = ""
    law: str = ""
    within: str = ""
    diagram: str = ""
    picture: str = ""
    victory: str = ""
    says: tuple[tuple[str, str], ...] = ()

    @property
    def heading(self) -> str:
        """Number and title."""
        return f"{self.number}. {self.title}"

    @property
    def block(self) -> str:
        """The part of ``mini.py`` that has the line."""
        return inspect.getsource(attrgetter(self.within)(mini) if self.within else mini)

    @property
    def right(self) -> str:
        """The line that ``mini.py`` has, without its comment."""
        anything = re.escape(self.blank).replace(BLANK, ".+?")
        (line,) = re.findall(rf"^ *({anything})(?:  #.*)?$", self.block, re.M)
        return str(line)

    @property
    def shown(self) -> str:
        """The function with the blank, or the blank alone."""
        if not self.within:
            return self.blank
        function = self.block.replace(self.right, self.blank)
        for other in puzzles():  # hide the other puzzles' answers
            function = function.replace(other.right, other.blank.replace(BLANK, "..."))
        return textwrap.dedent(function).strip()

    @property
    def text(self) -> str:
        """All but the hints, as Markdown that a terminal can show."""
        shown = self.diagram.strip("\n"), str(self.before()), self.shown
        indented = [textwrap.indent(part, "    ") for part in shown if part]
        law = f"Your line must satisfy: {self.law}"
        return "\n\n".join([self.heading, self.statement.strip(), *indented, law])

    def source(self, line: str) -> str:
        """Complete ``mini.py`` with this line, followed by how the laws ask it."""
        whole = inspect.getsource(mini).replace(self.right, line)
        return f"{whole}\n\n{self.stub.replace(self.blank, line)}"

    def cell(self, line: str) -> str:
        """Define the function that the laws ask, in a namespace of its own."""
        run = f"exec(compile(source, '<cell {self.number}>', 'exec'), names)"
        ours = f"guarded(names[{self.name!r}], {line!r}, {self.says!r}, source)"
        start = "from lora_np.exercises.blanks import guarded\nnames = {}"
        return f"{start}\nsource = {self.source(line)!r}\n{run}\n{self.name} = {ours}\n"

    def told(self, line: str, outcome: Outcome) -> str:
        """Say how a line breaks the first law that it breaks, and on what input."""
        try:
            ast.parse(line)  # alone, or the message would count the lines of the file
        except SyntaxError as error:
            part = line[(error.offset or 1) - 1 :] or line
            why = [said for of, said in self.says if re.search(of, line)]
            return ". ".join([f"Python cannot read `{part[:60]}`: {error.msg}", *why])
        message, *known = outcome.broken[0].message.splitlines()
        start = re.split("=|(?<=return)", self.blank)[0]
        if not line.startswith(start):
            return f"`{line[:60]}` must begin with `{start.strip()}`, as the line that was given"
        filled = f"`{line.removeprefix('return ')[-75:]}`"
        if slip := re.search(r"Slip: (.*)$", message):
            return slip[1] if slip[1].startswith("`") else f"{filled} {slip[1]}"
        other = "^(An answer is made of arrays|The answer has the type).*"
        message = re.sub(other, f"it is neither a number nor a matrix. {self.law}", message)
        hints = [line for line in known if " Hint: " in line]  # mistakes of this puzzle
        given = outcome.broken[0].call.rpartition("\n")[0]
        example = f"\nFor example with\n{given}" * bool(given)
        return "\n".join([f"{filled} is not right: {message}", *hints, example]).strip()

    def solve(self, line: str) -> Scene:
        """Check a line in this process: what it draws if it is right, or what is wrong with it."""
        line, names = line.strip(), dict[str, Callable[..., Value]]()
        if BLANK in line or not line:
            return Scene(f"Write something in place of {BLANK}.", passed=False)
        problem = run_cell(self.cell(line), "cell 0", names)
        outcome = Outcome.failed(self, problem)
        if not problem:
            outcome = judge(self, local_caller(names[self.name]), SEEDS)
        if not outcome.passed:
            return Scene(self.told(line, outcome), passed=False)
        solved[self.name] = line
        return self.after(line)

    def before(self) -> Scene:
        """Draw the scene before the puzzle is solved."""
        return drawn(self.source(self.right), self.picture)

    def after(self, line: str) -> Scene:
        """Draw the scene that a right line produces."""
        return drawn(self.source(line), self.picture, self.victory)


def drawn(*codes: str) -> Scene:
    names: dict[str, Any] = {}
    problem = run_cell("\n".join(codes), "cell 0", names)
    return Scene(problem or names.get("said", ""), names.get("panels", {}))


class Slip(Exception):  # noqa: N818
    """What is wrong with a line, in place of an error."""

    __module__ = "builtins"  # or the name of this module would stand before the sentence


def guarded(
    function: Callable[..., Value], line: str, says: tuple[tuple[str, str], ...], source: str
) -> Callable[..., Value]:
    """Wrap what the laws ask: an error is told as the line's, and so is what does not end."""
    seconds, lines = SECONDS, source.splitlines()

    def asked(*arguments: Value) -> Value:
        nonlocal seconds
        before = sys.gettrace()
        # the second clock counts, and the first is fast
        end, cpu_end = time.monotonic() + seconds, time.process_time() + seconds

        def watch(frame: FrameType, event: str, _: object) -> Any:
            if not frame.f_code.co_filename.startswith("<cell"):
                return None  # or all that it calls would be slow
            if time.monotonic() > end and time.process_time() > cpu_end:
                raise TimeoutError(f"does not end: it was stopped after {SECONDS:g} seconds")
            frame.f_trace_opcodes = True  # `while True: pass` has no other events
            return watch

        sys.settrace(watch)
        try:
            return function(*arguments)
        except (Exception, SystemExit) as error:
            text = f"{type(error).__name__}: {error}".replace("'Size'", "'int'")
            text, said = text.partition(", with gufunc")[0], "cannot be used by the next lines"
            for frame in traceback.extract_tb(error.__traceback__):
                whole = "".join(lines[(frame.lineno or 1) - 1 :][:1])
                if frame.filename.startswith("<cell") and whole.lstrip().startswith(line):
                    part = whole.encode()[frame.colno : frame.end_colno].decode()
                    said = f"`{part[-60:]}` raises {text}"
            if isinstance(error, (TimeoutError, AssertionError)):  # the latter of a stub
                said = str(error)
                seconds *= isinstance(error, AssertionError)  # to wait once is enough
            why = (more for of, more in says if re.search(of, f"{line}\n{text}"))
            raise Slip(". ".join([said, *why])) from None
        finally:
            sys.settrace(before)

    return asked


@cache
def puzzles() -> tuple[Puzzle, ...]:
    """List the puzzles, in their order.

    Returns
    -------
    tuple of Puzzle
        Fifteen.

    Examples
    --------
    >>> len(puzzles()), puzzles()[0].right
    (15, 'parameters = r * (d + k)')
    """
    rows = tomllib.loads((DATA / "puzzles.toml").read_text(encoding="utf-8"))["puzzle"]
    return tuple(read(number, **row) for number, row in enumerate(rows, start=1))


def ending(lines: Mapping[str, str], folder: StrPath, **settings: object) -> Scene:
    """Train a language model with a reader's fifteen lines, and let it write.

    Parameters
    ----------
    lines : mapping of str to str
        By the puzzles' names; a puzzle that is left out has the line of ``mini.py``.
    folder : path
        To be written: the adapter, and ``card.svg``.
    **settings : object
        ``prompt``, what both texts begin with, and ``tokens`` of each; ``steps``, ``lr`` and
        ``seed`` of the training; ``every``, to measure the loss on every so many of 78 pages;
        ``show``, given a text for each step.

    Returns
    -------
    Scene
        Both texts and losses, and the loss of each step.

    Raises
    ------
    ValueError
        If a line fails.

    Examples
    --------
    >>> import tempfile
    >>> scene = ending({}, tempfile.mkdtemp(), steps=1, every=39, tokens=9)
    >>> "37,376 parameters" in scene.said
    True
    """
    code, stubs = inspect.getsource(mini), ""
    for one in puzzles():
        line = lines.get(one.name, one.right)
        code, stubs = code.replace(one.right, line), stubs + one.stub.replace(one.blank, line)
    usual = tomllib.loads((DATA / "puzzles.toml").read_text(encoding="utf-8"))["ending"]
    found = usual | {"show": str, "lines": lines, "folder": folder} | settings
    with one_thread():  # matrices this small are multiplied no faster by two
        problem = run_cell(code + stubs + found["code"], "cell 0", found)
    if problem:
        raise ValueError(f"the lines do not train a model: {problem}")
    return Scene(found["said"], found["panels"])


def puzzle(name: str) -> Puzzle:
    """Look up a puzzle by its name.

    Parameters
    ----------
    name : str
        Such as ``"parameters"``.

    Returns
    -------
    Puzzle
        Its ``solve`` checks a line.

    Raises
    ------
    ValueError
        If there is none of that name.

    Examples
    --------
    >>> puzzle("parameters").solve("parameters = ___")
    Write something in place of ___.
    """
    known = {one.name: one for one in puzzles()}
    return known[choice("puzzle", name, known)]


def read(
    number: int, law: str, laws: list[str], wrong: dict[str, tuple[str, int]], **row: Any
) -> Puzzle:
    known = tuple(Law(key, law.rstrip("."), 1, law_of(*key.split())) for key in laws)
    row |= {"hints": tuple(row["hints"]), "says": tuple(row.get("says", {}).items())}
    one = Puzzle(difficulty=1, minutes=4, cases=15, laws=known, number=number, law=law, **row)
    mistakes = (
        Mistake(name, one.hints[hint - 1], one.source(line)) for name, (line, hint) in wrong.items()
    )
    return replace(one, answer=one.source(one.right), mistakes=tuple(mistakes))


def puzzle_script() -> str:
    """Write ``mini.py`` with its fifteen blanks, each below its title.

    Returns
    -------
    str
        A script that runs once all blanks are filled in.

    Examples
    --------
    >>> "parameters = ___" in puzzle_script()
    True
    """
    text = inspect.getsource(mini)
    for one in puzzles():
        title = TITLE.format(one.number, one.title)
        text = re.sub(rf"( *){re.escape(one.right)}", rf"\1{title}\n\1{one.blank}", text)
    return text


def puzzle_lines(script: str) -> dict[str, str]:
    r"""Find the lines below the titles in a script.

    Parameters
    ----------
    script : str
        What `puzzle_script` has written, edited.

    Returns
    -------
    dict of str to str
        By the puzzles' names; a puzzle whose title is gone is left out.

    Examples
    --------
    >>> puzzle_lines("# Puzzle 1: Count\nparameters = r")
    {'parameters': 'parameters = r'}
    """
    titles = {TITLE.format(one.number, ""): one.name for one in puzzles()}
    lines = re.findall(r"^[ \t]*(# Puzzle \d+: ).*\n[ \t]*(.*?)[ \t]*$", script, re.M)
    return {titles[title]: line for title, line in lines if title in titles}
