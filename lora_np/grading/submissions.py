"""Check the answers in a student's notebook or script."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from pathlib import Path

from lora_np.exercises import (
    BLANK,
    SEEDS,
    Exercise,
    Outcome,
    Reply,
    Rules,
    Value,
    judge,
    lessons,
    plural,
    puzzle_lines,
    puzzles,
)
from lora_np.files import decode_text, errors_at, open_regular
from lora_np.grading.channel import Ended
from lora_np.grading.confine import USUAL, Limits
from lora_np.grading.sandbox import Sandbox

SUFFIXES = (".py", ".ipynb")
LARGEST = 20 * 2**20  # largest size of a file in bytes

# in scripts of at most this many lines, errors give the line in the file, not in the cell
NUMBERED = 5_000
CELLS = 1_000  # largest number of code cells in a file; empty cells do not count
PROBLEMS = 50  # largest number of cells whose errors a report shows
LONGEST = 2_000  # largest number of characters in one text that a report shows
UNPRINTABLE = (
    r"[^\S\n]|[\x00-\x09\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
PATIENCE = 3  # time limit of one exercise, as a multiple of the time limit of one call


@dataclass(frozen=True)
class Report:
    """The result of checking one file.

    Parameters
    ----------
    path : Path
        The file.
    outcomes : dict of str to Outcome
        From the names of exercises to outcomes.
    problems : list of str
        The errors while the cells of the file ran.
    missing : dict of str to str
        Limits that could not be enforced, and why.
    printed : str
        The beginning of the file's output.
    failure : str
        The reason if the file could not be judged completely; otherwise empty.
    seconds : float
        The time that its process ran.
    unreadable : bool
        Whether the file could not be read.
    """

    path: Path
    outcomes: dict[str, Outcome]
    problems: list[str] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)
    printed: str = ""
    failure: str = ""
    seconds: float = 0.0
    unreadable: bool = False

    @property
    def passed(self) -> bool:
        """Whether the answers to all exercises passed."""
        return all(outcome.passed for outcome in self.outcomes.values())

    def __repr__(self) -> str:
        points = sum(outcome.points for outcome in self.outcomes.values())
        total = sum(outcome.exercise.points for outcome in self.outcomes.values())
        lines = [*(outcome.text for outcome in self.outcomes.values()), *self.problems]
        if any(outcome.explained for outcome in self.outcomes.values()):
            lines.append("How it can be done: lora-np exercises solution NAME")
        return "\n".join([*lines, f"{points} of {plural(total, 'point')}."])

    def to_dict(self) -> dict[str, Value]:
        """Convert the report to a dictionary that can be written as JSON."""
        return {
            "file": printable(str(self.path)),
            "exercises": [outcome.to_dict() for outcome in self.outcomes.values()],
            "problems": self.problems,
            "limits not enforced": self.missing,
            "printed": self.printed,
            "failure": self.failure,
        }


def check_file(
    path: Path,
    exercises: Sequence[Exercise] = (),
    *,
    seeds: Sequence[int] = SEEDS,
    limits: Limits = USUAL,
) -> Report:
    """Check answers in a notebook or script, in a separate process.

    Parameters
    ----------
    path : Path
        A ``.py`` or ``.ipynb`` file.
    exercises : sequence of Exercise, optional
        The exercises to check; by default all whose function the file defines.
    seeds : sequence of int
        Random seeds of the inputs; by default the seeds of the inputs that students see.
    limits : Limits, optional
        The limits of the process; by default those of `Limits`.

    Returns
    -------
    Report
        The points and messages, and the limits that could not be enforced.

    Raises
    ------
    ValueError
        If the file is neither a notebook nor a script, or answers no exercise.
    OSError
        If the file cannot be read.

    See Also
    --------
    grade : Grade the submissions of a whole class.
    lora_np.exercises.check : Check one function, in this process.

    Examples
    --------
    >>> import tempfile
    >>> from lora_np.exercises import solution
    >>> path = Path(tempfile.mkdtemp()) / "answers.py"
    >>> _ = path.write_text(solution("lora_count").code)
    >>> check_file(path).passed
    True
    """
    cells = cells_of(path)
    exercises = exercises or defined_in(cells)
    if not exercises:
        raise ValueError(
            f"{path} defines no function that an exercise asks for: see lora-np exercises list"
        )
    return report_on(path, cells, exercises, seeds, limits)


def check_puzzles(path: Path) -> dict[str, tuple[str, Outcome]]:
    r"""Check the completed lines of a script of puzzles, in a separate process.

    Parameters
    ----------
    path : Path
        The script, which `puzzle_script` has written and a reader has edited.

    Returns
    -------
    dict of str to tuple
        The line and the outcome of each completed puzzle, by the puzzle's name.

    Raises
    ------
    ValueError
        If the file has no puzzle.
    OSError
        If the file cannot be read.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "puzzles.py"
    >>> _ = path.write_text("# Puzzle 1: Count what LoRA trains\nparameters = d * k")
    >>> [(name, outcome.passed) for name, (line, outcome) in check_puzzles(path).items()]
    [('parameters', False)]
    """
    lines = puzzle_lines("\n".join(cells_of(path)))
    if not lines:
        raise ValueError(f"{path} has no line such as '# Puzzle 1: ...': name another file")
    written = [one for one in puzzles() if BLANK not in lines.get(one.name, BLANK)]
    cells = [one.cell(lines[one.name]) for one in written]
    outcomes = report_on(path, cells, written, SEEDS, USUAL).outcomes if written else {}
    return {name: (lines[name], outcome) for name, outcome in outcomes.items()}


def report_on(
    path: Path,
    cells: Sequence[str],
    exercises: Sequence[Exercise],
    seeds: Sequence[int],
    limits: Limits,
) -> Report:
    box = Sandbox(cells, limits)
    outcomes, failure = {}, ""
    try:
        with box:
            for one in exercises:
                outcomes[one.name] = bounded(outcome_of(one, box, cells, seeds))
    except Ended as ended:
        failure = printable(str(ended))
    for one in exercises:
        outcomes.setdefault(one.name, Outcome.failed(one, failure))
    printed, seconds = printable(box.printed), limits.total_seconds - box.left
    first = sorted(box.problems.items())[:PROBLEMS]
    problems = [printable(f"cell {number}: {text}") for number, text in first]
    return Report(path, outcomes, problems, box.missing, printed, failure, seconds)


def bounded(outcome: Outcome) -> Outcome:
    """Shorten the texts of an outcome, and replace the submission's control characters."""
    safe = (
        replace(v, message=printable(v.message), call=printable(v.call)) for v in outcome.verdicts
    )
    return replace(outcome, verdicts=tuple(safe))


def printable(text: str) -> str:
    """Replace control characters in a text, and shorten it to 2,000 characters."""
    if len(text) > LONGEST:
        text = f"{text[: LONGEST - 4]} ..."
    return re.sub(UNPRINTABLE, " ", text)


def outcome_of(one: Exercise, box: Sandbox, cells: Sequence[str], seeds: Sequence[int]) -> Outcome:
    if one.name not in box.names:
        defines = re.compile(rf"^\s*(?:def|class) {one.name}\b|^{one.name}\b.*=", re.MULTILINE)
        places = [number for number in box.problems if defines.search(cells[number - 1])]
        why = [
            f"Its cell could not be run: cell {number}: {box.problems[number]}" for number in places
        ]
        return Outcome.failed(one, (why or ["Not handed in"])[0])
    enough = box.left - PATIENCE * box.limits.seconds

    def caller(arguments: Sequence[Value], rules: Rules) -> Reply:
        return box.call(one.name, arguments, rules, seconds=box.left - enough)

    return judge(one, caller, seeds)


def defined_in(cells: Sequence[str]) -> list[Exercise]:
    """List the exercises whose function a cell defines, in the order of the course."""
    names = set(re.findall(r"^def\s+(\w+)", "\n".join(cells), re.MULTILINE))
    return [one for lesson in lessons() for one in lesson.exercises if one.name in names]


def kind(path: Path) -> str:
    """Return ``".py"`` or ``".ipynb"``, even if a browser added ``.txt``; otherwise an empty text.

    Examples
    --------
    >>> kind(Path("ivy (copy).PY.txt")), kind(Path("work.zip"))
    ('.py', '')
    """
    plain = path.with_suffix("") if path.suffix.lower() == ".txt" else path
    suffix = plain.suffix.lower()
    return suffix if suffix in SUFFIXES else ""


def text_of(path: Path) -> str:
    """Read a submitted file in any common encoding.

    Raises
    ------
    ValueError
        If it is not a regular file, is too large or is not text.
    """
    with open_regular(path) as file:
        content = file.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise ValueError(f"{path} is larger than {LARGEST:,} bytes")
    with errors_at(path):
        return decode_text(content)


def cells_of(path: Path) -> list[str]:
    """Split a notebook, or a script at each ``# %%`` or ``# In[``, into cells of code.

    Lines that only IPython understands (``%magic``, ``x = !command``, ``help?``) are left out.

    Raises
    ------
    ValueError
        If it is neither a notebook nor a script, is not text, or has too many cells.
    """
    if not kind(path):
        raise ValueError(f"{path} must be a .py or .ipynb file")
    text = text_of(path)
    try:
        if kind(path) == ".ipynb":
            code = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
            cells = ["".join(cell["source"]) for cell in code]
        else:
            cells = re.split(r"^# ?(?:%%|In\[).*$", text, flags=re.M)
        full = sum(1 for cell in cells if cell.strip())
    except (MemoryError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{path} is neither a notebook nor a script: {error!r}") from None
    if full > CELLS:
        raise ValueError(f"{path} has {full:,} cells of code, and may have {CELLS:,}")
    if kind(path) == ".py" and text.count("\n") <= NUMBERED:
        starts = accumulate((cell.count("\n") for cell in cells[:-1]), initial=0)
        cells = ["\n" * before + cell for before, cell in zip(starts, cells, strict=True)]
    only_ipython = re.compile(r"^(?:[%!?]|[\w, ]+= *[%!]|[\w.]+\?\??$).*$", flags=re.MULTILINE)
    return [only_ipython.sub("", cell) if cell.strip() else "" for cell in cells]
