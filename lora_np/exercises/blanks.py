"""Cut fifteen lines out of ``lora_np/mini.py``: puzzles for pages, notebooks and terminals."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from operator import attrgetter
from typing import Any

import numpy as np

from lora_np import mini
from lora_np.checks import ArrayLike, arrays, choice
from lora_np.exercises.catalogue import DATA, law_of
from lora_np.exercises.running import Mistake, last_line, run_cell
from lora_np.exercises.testing import SEEDS, Exercise, Law, Outcome, judge, local_caller

BLANK = "___"
TITLE = "# Puzzle {}: {}"  # begins the title above each line of a script
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
        return "\n\n".join(filter(None, parts))


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
        run = f"exec(compile({self.source(line)!r}, '<cell {self.number}>', 'exec'), names)"
        return f"names = {{}}\n{run}\n{self.name} = names[{self.name!r}]\n"

    def solve(self, line: str) -> Scene:
        """Check a line in this process: what it draws if it is right, or what is wrong with it."""
        line, names = line.strip(), dict[str, Any]()
        if BLANK in line:
            return Scene(f"Write something in place of {BLANK}.", passed=False)
        try:
            ast.parse(line)  # alone, or the message would count the lines of the file
            problem = run_cell(self.cell(line), "cell 0", names)
        except Exception as error:
            problem = last_line(error)
        if problem:
            return Scene(f"Your line raised {problem.partition(' (')[0]}", passed=False)
        outcome = judge(self, local_caller(names[self.name]), SEEDS)
        return self.after(line) if outcome.passed else Scene(told(outcome), passed=False)

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


def told(outcome: Outcome) -> str:
    """Say how the first broken law is broken, and with what input.

    Parameters
    ----------
    outcome : Outcome
        That has not passed.

    Returns
    -------
    str
        The message, then code that can be pasted.

    Examples
    --------
    >>> from lora_np.exercises import exercise
    >>> told(Outcome.failed(exercise("lora_count"), "Not handed in"))
    'Not handed in'
    """
    first = outcome.broken[0]
    message, *known = first.message.splitlines()
    if error := re.match(r"A call ends without an error: (.*?)(?: \(line \d+\))?$", message):
        return f"Your line raised {error[1]}"
    hints = [line for line in known if " Hint: " in line]  # mistakes of this puzzle
    given = first.call.rpartition("\n")[0]
    return "\n".join([message, *hints, f"\nFor example with\n{given}" * bool(given)]).strip()


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
    row["hints"] = tuple(row["hints"])
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
