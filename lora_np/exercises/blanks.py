"""Make puzzles for pages, notebooks and terminals from fifteen lines of ``lora_np/mini.py``."""

from __future__ import annotations

import ast
import inspect
import re
import sys
import textwrap
import time
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
from lora_np.exercises.catalogue import law_of
from lora_np.exercises.regions import table
from lora_np.exercises.running import Mistake, run_cell
from lora_np.exercises.testing import SEEDS, Exercise, Law, Outcome, judge, local_caller
from lora_np.exercises.values import Value
from lora_np.work import one_thread

BLANK = "___"
TITLE = "# Puzzle {}: {}"  # the heading of each puzzle in a script of puzzles
SECONDS = 9.0  # a student's line may take this many seconds of CPU time
solved: dict[str, str] = {}  # maps a puzzle's name to the line that solved it in this process
SHADES, BARS = ("  ", "░░", "▒▒", "▓▓", "██"), "▁▂▃▄▅▆▇█"


@dataclass(frozen=True)
class Scene:
    """A picture of a line's effect or mistake; in a terminal, it is drawn with characters.

    Parameters
    ----------
    said : str
        The sentence to show.
    panels : mapping of str to array_like
        The pictures by title: a matrix is drawn in shades, a list of numbers as a curve; ``?``
        stands for NaN.
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
        # replace characters that the terminal's encoding lacks, because print would raise an error
        return encodable(text, getattr(sys.stdout, "encoding", None))


@dataclass(frozen=True)
class Puzzle(Exercise):
    """An exercise to complete one line of ``mini.py``; its stub is the function that laws call.

    Parameters
    ----------
    name, title, difficulty, minutes, laws, statement, stub, hints : various
        See `Exercise`.
    solution, forbids, cases, needs, example, mistakes, answer, more : various
        See `Exercise`.
    number : int
        The puzzle's number, from 1.
    blank : str
        The line with ``___`` for the missing part.
    law : str
        A sentence that states the condition on the line.
    within : str
        The function that contains the line; empty outside of functions.
    diagram : str
        A picture made of characters; may be empty.
    picture, victory : str
        Code that draws the scenes before and after the line is written.
    says : tuple of (str, str)
        Patterns of a line or its error, and explanations of these mistakes.

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
        """The number and the title of the puzzle."""
        return f"{self.number}. {self.title}"

    @property
    def block(self) -> str:
        """The source of the function around the line or, outside of functions, of ``mini.py``."""
        return inspect.getsource(attrgetter(self.within)(mini) if self.within else mini)

    @property
    def right(self) -> str:
        """The correct line, as in ``mini.py`` but without its comment."""
        anything = re.escape(self.blank).replace(BLANK, ".+?")
        (line,) = re.findall(rf"^ *({anything})(?:  #.*)?$", self.block, re.M)
        return str(line)

    @property
    def shown(self) -> str:
        """The function around the blank line, or only that line if it is outside of functions."""
        if not self.within:
            return self.blank
        function = self.block.replace(self.right, self.blank)
        for other in puzzles():  # hide the other puzzles' answers
            function = function.replace(other.right, other.blank.replace(BLANK, "..."))
        return textwrap.dedent(function).strip()

    @property
    def text(self) -> str:
        """The whole puzzle except for the hints, as Markdown that a terminal can show."""
        shown = self.diagram.strip("\n"), str(self.before()), self.shown
        indented = [textwrap.indent(part, "    ") for part in shown if part]
        law = f"Your line must satisfy: {self.law}"
        return "\n\n".join([self.heading, self.statement.strip(), *indented, law])

    def source(self, line: str) -> str:
        """Return the code of ``mini.py`` with ``line`` in it, and the function that laws call."""
        whole = inspect.getsource(mini).replace(self.right, line)
        return f"{whole}\n\n{self.stub.replace(self.blank, line)}"

    def cell(self, line: str) -> str:
        """Return code that defines, in a separate namespace, the function that laws call."""
        run = f"exec(compile(source, '<cell {self.number}>', 'exec'), names)"
        ours = f"guarded(names[{self.name!r}], {line!r}, {self.says!r}, source)"
        head = "from lora_np.exercises.blanks import guarded\nnames = {}"
        return f"{head}\nsource = {self.source(line)!r}\n{run}\n{self.name} = {ours}\n"

    def told(self, line: str, outcome: Outcome) -> str:
        """Explain why a line is wrong, with an input for which it breaks a law."""
        try:
            # parse the line alone, because an error in the whole source has a line number that
            # means nothing to the student
            ast.parse(line)
        except SyntaxError as error:
            part = line[(error.offset or 1) - 1 :] or line
            why = [said for of, said in self.says if re.search(of, line)]
            return ". ".join([f"Python cannot read `{part[:60]}`: {error.msg}", *why])
        message, *known = outcome.broken[0].message.splitlines()
        head = re.split("=|(?<=return)", self.blank)[0]
        if not line.startswith(head):
            return f"`{line[:60]}` must begin with `{head.strip()}`, as the line that was given"
        filled = f"`{line.removeprefix('return ')[-75:]}`"
        if slip := re.search(r"Slip: (.*)$", message):
            return slip[1] if slip[1].startswith("`") else f"{filled} {slip[1]}"
        other = "^(An answer is made of arrays|The answer has the type).*"
        message = re.sub(other, f"it is neither a number nor a matrix. {self.law}", message)
        # leave out known mistakes without a hint, because they are not specific to this puzzle
        hints = [line for line in known if " Hint: " in line]
        given = outcome.broken[0].call.rpartition("\n")[0]
        example = f"\nFor example with\n{given}" * bool(given)
        return "\n".join([f"{filled} is not right: {message}", *hints, example]).strip()

    def solve(self, line: str) -> Scene:
        """Check a line in this process; return a scene that shows its effect or its mistake."""
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
        """Draw the scene that a correct line produces."""
        return drawn(self.source(line), self.picture, self.victory)


def drawn(*codes: str) -> Scene:
    names: dict[str, Any] = {}
    problem = run_cell("\n".join(codes), "cell 0", names)
    return Scene(problem or names.get("said", ""), names.get("panels", {}))


class Slip(Exception):  # noqa: N818
    """Raised in place of a line's error, with a sentence that explains the mistake."""

    __module__ = "builtins"  # a traceback then prints `Slip` without its module


def guarded(
    function: Callable[..., Value], line: str, says: tuple[tuple[str, str], ...], source: str
) -> Callable[..., Value]:
    """Wrap a student's function so that an error or an endless loop is reported with its line."""
    seconds, lines = SECONDS, source.splitlines()

    def asked(*arguments: Value) -> Value:
        nonlocal seconds
        before = sys.gettrace()
        # the limit is on CPU time, but `watch` reads the wall clock first, because that is faster
        end, cpu_end = time.monotonic() + seconds, time.process_time() + seconds

        def watch(frame: FrameType, event: str, _: object) -> Any:
            if not frame.f_code.co_filename.startswith("<cell"):
                return None  # do not trace library functions, because that would slow them down
            if time.monotonic() > end and time.process_time() > cpu_end:
                raise TimeoutError(f"does not end: it was stopped after {SECONDS:g} seconds")
            # trace opcodes, because `while True: pass` causes no other events in Python 3.11
            frame.f_trace_opcodes = True
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
            # `watch` raises a TimeoutError, and the puzzle's stub an AssertionError
            if isinstance(error, (TimeoutError, AssertionError)):
                said = str(error)
                # after a timeout, set the limit to zero, so that later calls stop at once
                seconds *= isinstance(error, AssertionError)
            why = (more for of, more in says if re.search(of, f"{line}\n{text}"))
            raise Slip(". ".join([said, *why])) from None
        finally:
            sys.settrace(before)

    return asked


@cache
def puzzles() -> tuple[Puzzle, ...]:
    """List the fifteen puzzles in the order of their numbers.

    Returns
    -------
    tuple of Puzzle
        The fifteen puzzles.

    Examples
    --------
    >>> len(puzzles()), puzzles()[0].right
    (15, 'parameters = r * (d + k)')
    """
    records = enumerate(table("puzzles")["puzzle"], start=1)
    return tuple(read(number, **record) for number, record in records)


def ending(lines: Mapping[str, str], folder: StrPath, **settings: object) -> Scene:
    """Train a language model with a reader's fifteen lines, and generate text.

    Parameters
    ----------
    lines : mapping of str to str
        From the names of puzzles to lines; missing ones are taken from ``mini.py``.
    folder : path
        The folder to write the adapter and ``card.svg`` to.
    **settings : object
        ``prompt`` and ``tokens``, the beginning and the length of both texts; ``steps``, ``lr`` and
        ``seed`` of the training; ``every``, to measure the loss on every n-th of 78 pages;
        ``show``, a function that is called with a text for each step.

    Returns
    -------
    Scene
        Texts and losses before and after training, and the loss of each step.

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
    found = table("puzzles")["ending"] | {"show": str, "lines": lines, "folder": folder} | settings
    with one_thread():  # the matrices are too small to gain from more threads
        problem = run_cell(code + stubs + found["code"], "cell 0", found)
    if problem:
        raise ValueError(f"the lines do not train a model: {problem}")
    return Scene(found["said"], found["panels"])


def puzzle(name: str) -> Puzzle:
    """Look up a puzzle by its name.

    Parameters
    ----------
    name : str
        The name, such as ``"parameters"``.

    Returns
    -------
    Puzzle
        The puzzle, whose ``solve`` checks a line.

    Raises
    ------
    ValueError
        If no puzzle has this name.

    Examples
    --------
    >>> puzzle("parameters").solve("parameters = ___")
    Write something in place of ___.
    """
    known = {one.name: one for one in puzzles()}
    return known[choice("puzzle", name, known)]


def read(
    number: int, law: str, laws: list[str], wrong: dict[str, tuple[str, int]], **fields: Any
) -> Puzzle:
    known = tuple(Law(key, law.rstrip("."), 1, law_of(*key.split())) for key in laws)
    fields |= {"hints": tuple(fields["hints"]), "says": tuple(fields.get("says", {}).items())}
    one = Puzzle(difficulty=1, minutes=4, cases=15, laws=known, number=number, law=law, **fields)
    mistakes = (
        Mistake(name, one.hints[hint - 1], one.source(line)) for name, (line, hint) in wrong.items()
    )
    return replace(one, answer=one.source(one.right), mistakes=tuple(mistakes))


def puzzle_script() -> str:
    """Return the text of ``mini.py`` with fifteen blanks, each below its title.

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
    r"""Map the name of each puzzle in a script to the line below its title.

    Parameters
    ----------
    script : str
        The text of `puzzle_script`, in which blanks may be filled in.

    Returns
    -------
    dict of str to str
        From the names of puzzles to lines, without puzzles whose title is missing.

    Examples
    --------
    >>> puzzle_lines("# Puzzle 1: Count\nparameters = r")
    {'parameters': 'parameters = r'}
    """
    titles = {TITLE.format(one.number, ""): one.name for one in puzzles()}
    lines = re.findall(r"^[ \t]*(# Puzzle \d+: ).*\n[ \t]*(.*?)[ \t]*$", script, re.M)
    return {titles[title]: line for title, line in lines if title in titles}
