"""Grade a folder of submissions: new inputs, and a process for each submission."""

from __future__ import annotations

import csv
import hashlib
import os
import re
import secrets
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path

import numpy as np

from lora_np.checks import choice
from lora_np.exercises import Exercise, Lesson, Outcome, lessons, other_seeds, plural
from lora_np.files import write_text
from lora_np.grading.channel import STARTING, Ended
from lora_np.grading.confine import USUAL, Limits
from lora_np.grading.judge import judged
from lora_np.grading.sandbox import Sandbox
from lora_np.grading.submissions import Report, kind, printable, text_of
from lora_np.table import Cell, Table
from lora_np.work import parallel_map

DEEPEST = 10  # folders in folders of one student
MOST = 100  # files of one student
ARCHIVES = (".zip", ".gz", ".tgz", ".tar", ".7z", ".rar")
Row = dict[str, str]  # a row of a roster


@dataclass(frozen=True)
class Grades:
    """Hold the points of a class.

    Attributes
    ----------
    lessons : tuple of Lesson
        What was graded.
    rng : int
        The seed of the questions; the same number gives the same grades.
    reports : dict of str to list of Report
        For each student, one for each file.
    roster : sequence of dict
        A row for each student of the class, by column; empty if there is none.
    """

    lessons: tuple[Lesson, ...]
    rng: int
    reports: Mapping[str, list[Report]]
    roster: Sequence[Row] = ()

    @property
    def exercises(self) -> list[Exercise]:
        """The graded exercises, in the order of the course."""
        return [exercise for lesson in self.lessons for exercise in lesson.exercises]

    @property
    def maximum(self) -> int:
        """The points that can be reached."""
        return sum(exercise.points for exercise in self.exercises)

    @property
    def missing(self) -> dict[str, str]:
        """Limits that could not be enforced on this computer, and why."""
        return {
            k: v
            for files in self.reports.values()
            for file in files
            for k, v in file.missing.items()
        }

    def outcome(self, student: str, exercise: Exercise) -> Outcome:
        """Return the student's best answer, if it is in several files."""
        files = self.reports[student]
        answers = [file.outcomes[exercise.name] for file in files if exercise.name in file.outcomes]
        if answers:
            return min(answers, key=lambda one: (-one.points, one.message.startswith("Not ")))
        unread = [f"Not readable: {file.failure}" for file in files if file.failure]
        return Outcome.failed(exercise, [*unread, "Not handed in"][0])

    def outcomes(self, student: str) -> list[Outcome]:
        """Return the student's best answer to each exercise."""
        return [self.outcome(student, exercise) for exercise in self.exercises]

    def state(self, student: str) -> str:
        """Return ``"absent"``, ``"unreadable"``, ``"does not parse"``, or nothing.

        ``"partly unreadable"`` if the student has other files, whose points count.
        """
        files = self.reports[student]
        unreadable = [file.unreadable for file in files]
        if all(unreadable):
            return "unreadable" if files else "absent"
        texts = [text for file in files for text in (file.failure, *file.problems)]
        if any("SyntaxError" in text or "IndentationError" in text for text in texts):
            return "does not parse"
        return "partly unreadable" if any(unreadable) else ""

    def points(self, student: str) -> int:
        """Add up the points of all exercises."""
        return sum(outcome.points for outcome in self.outcomes(student))

    def total(self, student: str) -> Cell:
        """Return the points, or nothing for a student none of whose files could be read."""
        return "" if self.state(student) in {"absent", "unreadable"} else self.points(student)

    @property
    def table(self) -> Table:
        """A row for each student; as notes what was hard, missing limits, and files not graded."""
        rows = [(one, self.total(one), self.maximum, self.state(one)) for one in self.reports]
        notes = [
            f"Questions drawn with seed {self.rng}: the same number asks them again.",
            *self.hard(),
            *(f"Limit not enforced here: {name} ({why})." for name, why in self.missing.items()),
            *(f"{file}: {why}" for file, why in self.failures.items()),
        ]
        return Table(["student", "points", "of", "state"], rows, notes=notes)

    def hard(self) -> list[str]:
        """Name the exercises that fewer than half of the students solved, if there are any."""
        class_size, hard = len(self.reports), []
        for exercise in self.exercises:
            solved = sum(self.outcome(student, exercise).passed for student in self.reports)
            if 2 * solved < class_size:
                hard.append(f"{exercise.name} ({solved})")
        told = f"Solved by fewer than half of {plural(class_size, 'student')}: {', '.join(hard)}."
        return [told] if hard else []

    @property
    def failures(self) -> dict[str, str]:
        """Files that could not be graded completely, by student and name, and why."""
        files = [(student, file) for student, several in self.reports.items() for file in several]
        return {f"{who}, {readable_name(f.path.name)}": f.failure for who, f in files if f.failure}

    def to_csv(self) -> str:
        """Write a row for each student and a column for each exercise, then the sum."""
        rows: list[list[Cell]] = []
        for student in self.reports:
            outcomes = self.outcomes(student)
            earned = [
                "" if one.message.startswith(("Not handed in", "Not readable")) else one.points
                for one in outcomes
            ]
            rows.append([harmless(student), *earned, self.total(student), self.maximum])
        columns = ["student", *(exercise.name for exercise in self.exercises), "points", "of"]
        return Table(columns, rows).to_csv()

    def feedback(self, student: str) -> str:
        """Write a student's feedback as Markdown: points, and the broken law for each loss."""
        lines = [f"# {student}: {self.points(student)} of {plural(self.maximum, 'point')}", ""]
        for lesson in self.lessons:
            lines += [f"## {lesson.number}. {lesson.title}", ""]
            for exercise in lesson.exercises:
                lines += [f"**{exercise.title}**", "", quoted(self.outcome(student, exercise).text)]
        for file in self.reports[student]:
            if problems := [text for text in (file.failure, *file.problems) if text]:
                heading = f"## Problems while {file.path.name} was run"
                lines += [heading, "", quoted("\n".join(problems))]
            if file.printed:
                lines += [f"## What {file.path.name} printed", "", quoted(file.printed)]
        return "\n".join(lines).rstrip() + "\n"

    def write(self, path: Path, column: str = "lora-np") -> list[Path]:
        """Write grades, feedback, broken laws and, with a roster, a gradebook."""
        folder = path.with_name(f"{path.stem}-feedback")
        folder.mkdir(parents=True, exist_ok=True)
        write_text(path, self.to_csv())
        for student in self.reports:
            write_text(folder / file_name(student), self.feedback(student))
        laws, book = (path.with_name(f"{path.stem}-{what}.csv") for what in ("laws", "gradebook"))
        outcomes = [one for student in self.reports for one in self.outcomes(student)]
        write_text(laws, broken_laws(outcomes).to_csv())
        if self.roster:
            totals = {student: self.total(student) for student in self.reports}
            write_text(book, gradebook(self.roster, totals, column).to_csv())
        return [path, folder, laws, *([book] if self.roster else [])]


def grade(
    folder: Path,
    *,
    numbers: Sequence[int] = (),
    only: Sequence[str] = (),
    roster: Path | None = None,
    rng: np.random.Generator | int | None = None,
    limits: Limits = USUAL,
    jobs: int | None = None,
    progress: bool = False,
) -> Grades:
    """Grade all submissions in ``folder``: a file or a folder of files for each student.

    Three processes share the work: this one holds names and grades; a judge for each file decodes
    and checks the answers; the file's code runs in a process without rights. Whatever happens to
    the second and third costs only that file's points.

    Parameters
    ----------
    folder : Path
        ``alice.py``, ``bob.ipynb``, ``carol/01-see-rank.ipynb``: the file or folder has the
        student's name.
    numbers : sequence of int
        The lessons to grade; by default those for which somebody has handed something in.
    only : sequence of str
        Names of exercises, for a part of the lessons.
    roster : Path, optional
        The class, as a CSV that a gradebook exports, with the names of students' files or folders
        in its first column: students without a file are graded as absent.
    rng : Generator or int, optional
        Draws the questions; by default, new ones each time.
    limits : Limits, optional
        For each submission.
    jobs : int, optional
        How many submissions run at the same time; by default as many as there are processors.
    progress : bool
        Show a progress bar in a terminal.

    Returns
    -------
    Grades
        To be shown, and written with `Grades.write`.

    Raises
    ------
    ValueError
        If there are no submissions, or none answers any exercise and no lesson is named.
    OSError
        If no process can be started.

    See Also
    --------
    check_file : Check one file.

    Examples
    --------
    >>> import tempfile
    >>> from lora_np.exercises import solution
    >>> folder = Path(tempfile.mkdtemp())
    >>> _ = (folder / "alice.py").write_text(solution("lora_count").code)
    >>> grade(folder, only=["lora_count"], rng=0, jobs=1).table.rows
    (('alice', 1, 1, ''),)
    """
    wanted = part_of(lessons(numbers), only) if numbers or only else None
    students = {name: list(map(look_at, paths)) for name, paths in submissions_in(folder).items()}
    known = read_roster(roster) if roster else []
    students = by_roster(known, students)
    try:  # Whatever fails from here on is the fault of one file.
        with Sandbox([], replace(limits, total_seconds=STARTING)):
            pass
    except Ended as ended:
        raise OSError(f"no process for submissions can be started: {ended}") from None
    graded = lessons_answered(students) if wanted is None else wanted
    seeds = other_seeds(secrets.randbelow(2**31) if rng is None else rng)
    exercises = [exercise.name for lesson in graded for exercise in lesson.exercises]

    def reports_of(files: Sequence[HandedIn]) -> list[Report]:
        left, reports = limits.student_seconds, []
        for place, file in enumerate(files):
            answered = [name for name in exercises if name in file.answers]
            over = (
                f"The files of one student have {limits.student_seconds:g} seconds, which are over."
            )
            beyond = f"Only {MOST} files of one student are graded."
            if failure := file.failure or beyond * (place >= MOST) or over * (left <= 0):
                reports.append(
                    Report(file.path, {}, failure=failure, unreadable=bool(file.failure))
                )
            elif answered:
                own = replace(limits, total_seconds=min(left, limits.total_seconds))
                reports.append(judged(file.path, answered, seeds, own))
                left -= reports[-1].seconds
            else:
                nothing = "It defines no function that these exercises ask for."
                reports.append(Report(file.path, {}, [nothing]))
        return reports

    workers = os.cpu_count() or 1 if jobs is None else jobs
    reports = parallel_map(reports_of, students, jobs=workers, progress=progress, label="grading")
    return Grades(tuple(graded), seeds[0], reports, known)


def check_out(path: Path, submissions: Path) -> None:
    """Refuse an output path that would overwrite a file.

    Parameters
    ----------
    path : Path
        Where the table of grades is to be written; one that `Grades.write` has written may be
        replaced.
    submissions : Path
        The folder that is graded.

    Raises
    ------
    ValueError
        If it is a directory, is among the submissions, or is a file of another kind.

    Examples
    --------
    >>> check_out(Path("grades.csv"), Path("submissions"))
    >>> check_out(Path("submissions/grades.csv"), Path("submissions"))
    Traceback (most recent call last):
        ...
    ValueError: grades must not be written among the submissions in submissions, got
    submissions/grades.csv
    """
    if path.name == "" or path.is_dir():
        raise ValueError(f"grades must go into a file, got the directory {str(path)!r}")
    if path.resolve().is_relative_to(submissions.resolve()):
        raise ValueError(
            f"grades must not be written among the submissions in {submissions}, got {path}"
        )
    if path.exists() and not is_table_of_grades(path):
        raise ValueError(f"{path} exists and is not a table of grades; name another file")


def is_table_of_grades(path: Path) -> bool:
    """Return whether it begins as `Grades.to_csv` does."""
    if not path.is_file():
        return False
    with path.open(encoding="utf-8", errors="replace") as file:
        heading = file.readline(10_000).rstrip("\n").split(",")
    return heading[0] == "student" and heading[-2:] == ["points", "of"]


def submissions_in(folder: Path) -> dict[str, list[Path]]:
    """List the files of each student; links are not followed, since they may lead anywhere."""
    if not folder.is_dir():
        raise ValueError(f"{folder} must be a folder of submissions")
    students: dict[str, list[Path]] = {}
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith(".") or entry.is_symlink():
            continue
        if entry.is_dir():
            students.setdefault(entry.name, []).extend(files_below(entry))
        elif (kind(entry) or entry.suffix in ARCHIVES) and entry.is_file():
            students.setdefault(entry.name.removesuffix(".txt").rpartition(".")[0], []).append(
                entry
            )
    if not students:
        raise ValueError(f"{folder} holds no .py or .ipynb files, and no folders of them")
    readable: dict[str, list[Path]] = {}
    for name, files in students.items():
        shown = readable_name(name)
        while shown in readable:  # names that differ on disk may look the same
            shown += "'"
        readable[shown] = files
    return readable


def readable_name(name: str) -> str:
    """Decode the name of a file as text, for any bytes."""
    return printable(os.fsencode(name).decode("utf-8", "backslashreplace")).replace("\n", " ")


@dataclass(frozen=True)
class HandedIn:
    """Describe a file to the supervisor, which reads its text once and only searches it."""

    path: Path
    answers: Collection[str] = ()  # names of exercises that it seems to define
    failure: str = ""


def look_at(path: Path) -> HandedIn:
    if not kind(path):
        told = "is neither a notebook nor a script" + " (an archive)" * (path.suffix in ARCHIVES)
        return HandedIn(path, failure=f"{readable_name(path.name)} {told}")
    try:
        text = text_of(path)
    except (OSError, ValueError) as error:
        return HandedIn(path, failure=printable(f"{error}".replace(f"{path}", path.name)))
    known = {exercise.name for lesson in lessons() for exercise in lesson.exercises}
    return HandedIn(path, known.intersection(re.findall(r"\bdef (\w{1,100})", text)))


def files_below(folder: Path) -> list[Path]:
    """List notebooks and scripts in a student's folder, or else all files; at most one too many."""
    files: list[Path] = []
    for place, folders, names in os.walk(folder):
        deepest = len(Path(place).relative_to(folder).parts) == DEEPEST
        folders[:] = [] if deepest else [name for name in folders if name != ".ipynb_checkpoints"]
        paths = (Path(place, name) for name in names)
        files += [path for path in paths if path.is_file() and not path.is_symlink()]
    return sorted(filter(kind, files) if any(map(kind, files)) else files)[: MOST + 1]


def lessons_answered(students: Mapping[str, Sequence[HandedIn]]) -> list[Lesson]:
    """List the lessons that anybody has an answer to."""
    answered = {name for files in students.values() for file in files for name in file.answers}
    answered_lessons = [
        lesson for lesson in lessons() if any(e.name in answered for e in lesson.exercises)
    ]
    if not answered_lessons:
        raise ValueError(
            "no submission answers any exercise; name the lessons to grade with --lesson"
        )
    return answered_lessons


def quoted(text: str) -> str:
    """Quote text as a block of code: what a submission prints is never read as Markdown."""
    return "\n".join(f"    {line}" for line in printable(text).splitlines()) + "\n"


def harmless(text: str) -> str:
    """Write a name that a spreadsheet does not mistake for a formula."""
    clean = printable(text).replace("\n", " ")
    return f"'{clean}" if clean.lstrip()[:1] in {"=", "+", "-", "@"} else clean


def file_name(student: str) -> str:
    """Name a student's feedback as every file system accepts it."""
    if len(student.encode()) <= 200 and "/" not in student and "\\" not in student:
        return f"{student}.md"
    clean = re.sub(r"[/\\]", "_", student).encode()[:150].decode("utf-8", "ignore")
    return f"{clean}-{hashlib.sha256(student.encode()).hexdigest()[:12]}.md"


# The class as a gradebook knows it: who is absent, points to hand back, and what to teach again


def read_roster(path: Path) -> list[Row]:
    """Read the students of a class from the CSV that a gradebook exports.

    The first column has the names of students' files or folders; the others, such as Moodle's
    ``Email address`` or Canvas's ``ID``, are handed back as they are.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "class.csv"
    >>> with path.open("w", newline="") as file:
    ...     csv.writer(file).writerows([["Name", "Email address"], ["alice", "alice@example.org"]])
    >>> read_roster(path)
    [{'Name': 'alice', 'Email address': 'alice@example.org'}]
    """
    lines = StringIO(text_of(path))
    try:
        rows = [row for row in csv.DictReader(lines, strict=True) if any(row.values())]
    except csv.Error as error:
        raise ValueError(f"{path} is not a roster in CSV: {error}") from None
    if not rows or any(None in row or None in row.values() for row in rows):
        raise ValueError(f"{path} must have a line of headings, and as many fields in each line")
    (name, count), *_ = Counter(map(name_in, rows)).most_common(1)
    if count > 1:
        raise ValueError(f"{path} names {name!r} twice")
    return rows


def name_in(row: Row) -> str:
    """Return the student's name, which is in the first column."""
    return next(iter(row.values()))


def by_roster(
    rows: Sequence[Row], handed_in: Mapping[str, list[HandedIn]]
) -> dict[str, list[HandedIn]]:
    """Assign files to the students of a roster, then list students whom it does not name.

    A folder is a student's if it has the name, or begins with it and an underscore, as downloads
    from Moodle and Canvas do.

    Examples
    --------
    >>> by_roster([{"name": "Ada"}, {"name": "Bob"}], {"Ada_17_file": ["a.py"], "Cy": ["c.py"]})
    {'Ada': ['a.py'], 'Bob': [], 'Cy': ['c.py']}
    """
    left = dict(handed_in)
    result: dict[str, list[HandedIn]] = {}
    for row in rows:
        name = name_in(row)
        own = [folder for folder in left if folder == name or folder.startswith(f"{name}_")]
        result[name] = [one for folder in own for one in left.pop(folder)]
    return result | left


def gradebook(rows: Sequence[Row], points: Mapping[str, Cell], column: str) -> Table:
    """Add a column of points to the roster, for import into Moodle and Canvas.

    Examples
    --------
    >>> print(gradebook([{"Student": "Ada", "ID": "17"}], {"Ada": 4}, "LoRA (99)").to_csv())
    Student,ID,LoRA (99)
    Ada,17,4
    <BLANKLINE>
    """
    body: list[list[Cell]] = [[*row.values(), points[name_in(row)]] for row in rows]
    return Table([*rows[0], column], body)


def part_of(lessons: Sequence[Lesson], names: Sequence[str]) -> list[Lesson]:
    """Select the exercises of these names in each lesson; all of them if none is named."""
    known = [one.name for lesson in lessons for one in lesson.exercises]
    wanted = {choice("exercise", name, known) for name in names} or set(known)
    pairs = [
        (lesson, tuple(one for one in lesson.exercises if one.name in wanted)) for lesson in lessons
    ]
    return [replace(lesson, exercises=part) for lesson, part in pairs if part]


def broken_laws(outcomes: Sequence[Outcome]) -> Table:
    """Count the students who broke each law: known mistakes first, the most frequent on top.

    Parameters
    ----------
    outcomes : sequence of Outcome
        Of all students and exercises; those that were not handed in count as nothing.

    Returns
    -------
    Table
        A row for each law and mistake; no mistake where none that is known gives the same.
    """
    broken = [
        (outcome.exercise.name, law.name, verdict.mistake)
        for outcome in outcomes
        for law, verdict in zip(outcome.exercise.laws, outcome.verdicts, strict=True)
        if not verdict.passed and not verdict.message.startswith("Not ")
    ]
    rows = [(*what, count) for what, count in Counter(broken).most_common()]
    rows.sort(key=lambda row: not row[2])  # what names no mistake comes last
    return Table(["exercise", "law", "known mistake", "students"], rows)
