"""Grade a folder of submissions on new inputs, each in a process of its own."""

from __future__ import annotations

import csv
import hashlib
import os
import re
import secrets
import unicodedata
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path

from lora_np.checks import Seed, choice, refuse
from lora_np.exercises import Exercise, Lesson, Outcome, lessons, other_seeds, plural
from lora_np.files import write_text
from lora_np.grading.channel import STARTING, Ended
from lora_np.grading.confine import USUAL, Limits
from lora_np.grading.judge import judged
from lora_np.grading.sandbox import Sandbox
from lora_np.grading.submissions import Report, kind, printable, text_of
from lora_np.table import Cell, Table
from lora_np.work import parallel_map

DEEPEST = 10  # depth to which a student's folders are searched
MOST = 100  # largest number of files to grade for one student
NOTES = (".txt", ".md", ".csv")  # extensions of the teacher's own files next to the submissions
ARCHIVES = (".zip", ".gz", ".tgz", ".tar", ".7z", ".rar")
Record = dict[str, str]  # a student's row in a roster; maps the name of each column to its value


@dataclass(frozen=True)
class Grades:
    """The grades of a class, with a report on each submitted file.

    Attributes
    ----------
    lessons : tuple of Lesson
        The graded lessons.
    rng : int
        The random seed of the questions; the same seed gives the same grades.
    reports : dict of str to list of Report
        The reports on each student's files.
    roster : sequence of dict
        The students of the class, from columns to values; empty without a roster.
    """

    lessons: tuple[Lesson, ...]
    rng: int
    reports: Mapping[str, list[Report]]
    roster: Sequence[Record] = ()

    @property
    def exercises(self) -> list[Exercise]:
        """The graded exercises, in the order of the course."""
        return [exercise for lesson in self.lessons for exercise in lesson.exercises]

    @property
    def maximum(self) -> int:
        """The largest possible number of points."""
        return sum(exercise.points for exercise in self.exercises)

    @property
    def missing(self) -> dict[str, str]:
        """The limits that could not be enforced on this computer, and why."""
        return {
            k: v
            for files in self.reports.values()
            for file in files
            for k, v in file.missing.items()
        }

    def outcome(self, student: str, exercise: Exercise) -> Outcome:
        """Return the outcome of a student's best answer to an exercise; failed if there is none."""
        files = self.reports[student]
        answers = [file.outcomes[exercise.name] for file in files if exercise.name in file.outcomes]
        if answers:
            return min(answers, key=lambda one: (-one.points, one.message.startswith("Not ")))
        unread = [f"Not readable: {file.failure}" for file in files if file.failure]
        return Outcome.failed(exercise, [*unread, "Not handed in"][0])

    def outcomes(self, student: str) -> list[Outcome]:
        """Return the outcome of a student's best answer to each exercise."""
        return [self.outcome(student, exercise) for exercise in self.exercises]

    def state(self, student: str) -> str:
        """Return what is wrong with a student's files: "absent" if there are none, "" for nothing.

        Otherwise it is "unreadable", "does not parse", or "partly unreadable" if there are other
        files, whose points count.
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
        """Add up a student's points for all exercises."""
        return sum(outcome.points for outcome in self.outcomes(student))

    def total(self, student: str) -> Cell:
        """Return a student's points, or an empty text if no file of the student could be read."""
        return "" if self.state(student) in {"absent", "unreadable"} else self.points(student)

    @property
    def table(self) -> Table:
        """The points of each student, with notes on hard exercises, missing limits and failures."""
        lines = [(one, self.total(one), self.maximum, self.state(one)) for one in self.reports]
        notes = [
            f"Questions drawn with seed {self.rng}: the same number asks them again.",
            *self.hard(),
            *(f"Limit not enforced here: {name} ({why})." for name, why in self.missing.items()),
            *(f"{file}: {why}" for file, why in self.failures.items()),
        ]
        return Table(["student", "points", "of", "state"], lines, notes=notes)

    def hard(self) -> list[str]:
        """Return a list with a note on exercises that most students did not solve; may be empty."""
        class_size, hard = len(self.reports), []
        for exercise in self.exercises:
            solved = sum(self.outcome(student, exercise).passed for student in self.reports)
            if 2 * solved < class_size:
                hard.append(f"{exercise.name} ({solved})")
        told = f"Solved by fewer than half of {plural(class_size, 'student')}: {', '.join(hard)}."
        return [told] if hard else []

    @property
    def failures(self) -> dict[str, str]:
        """The reasons why files could not be graded completely, by student and file name."""
        files = [(student, file) for student, several in self.reports.items() for file in several]
        return {f"{who}, {readable_name(f.path.name)}": f.failure for who, f in files if f.failure}

    def to_csv(self) -> str:
        """Format grades as CSV: a line per student; the points per exercise, total and maximum."""
        lines: list[list[Cell]] = []
        for student in self.reports:
            outcomes = self.outcomes(student)
            earned = [
                "" if one.message.startswith(("Not handed in", "Not readable")) else one.points
                for one in outcomes
            ]
            lines.append([harmless(student), *earned, self.total(student), self.maximum])
        columns = ["student", *(exercise.name for exercise in self.exercises), "points", "of"]
        return Table(columns, lines).to_csv()

    def feedback(self, student: str) -> str:
        """Format a student's feedback as Markdown: points, broken laws, problems and output."""
        lines = [f"# {student}: {self.points(student)} of {plural(self.maximum, 'point')}", ""]
        for lesson in self.lessons:
            lines += [f"## {lesson.number}. {lesson.title}", ""]
            for exercise in lesson.exercises:
                lines += [f"**{exercise.title}**", "", quoted(self.outcome(student, exercise).text)]
        for file in self.reports[student]:
            name = readable_name(file.path.name)
            if problems := [text for text in (file.failure, *file.problems) if text]:
                heading = f"## Problems while {name} was run"
                lines += [heading, "", quoted("\n".join(problems))]
            if file.printed:
                lines += [f"## What {name} printed", "", quoted(file.printed)]
        return "\n".join(lines).rstrip() + "\n"

    def write(self, path: Path, column: str = "lora-np") -> list[Path]:
        """Write grades, feedback, broken laws and, with a roster, a gradebook; return the paths."""
        path, folder, laws, *books = paths = outputs(path, self.roster)
        folder.mkdir(parents=True, exist_ok=True)
        write_text(path, self.to_csv())
        for student in self.reports:
            write_text(folder / file_name(student), self.feedback(student))
        outcomes = [one for student in self.reports for one in self.outcomes(student)]
        write_text(laws, broken_laws(outcomes).to_csv())
        for book in books:
            totals = {student: self.total(student) for student in self.reports}
            write_text(book, gradebook(self.roster, totals, column).to_csv())
        return paths


def outputs(path: Path, roster: object) -> list[Path]:
    """List the paths that `Grades.write` writes to; only with a roster, the last is a gradebook."""
    names = ("-feedback", "-laws.csv", *["-gradebook.csv"] * bool(roster))
    return [path, *(path.with_name(path.stem + name) for name in names)]


def grade(
    folder: Path,
    *,
    numbers: Sequence[int] = (),
    only: Sequence[str] = (),
    roster: Path | None = None,
    rng: Seed | None = None,
    limits: Limits = USUAL,
    jobs: int | None = None,
    progress: bool = False,
) -> Grades:
    """Grade all submissions in ``folder``: a file or a folder of files for each student.

    Three processes share the work: this one collects names and grades; a judge for each file
    decodes and checks the answers; and the file's code runs in a process without rights. If the
    second or third process fails, only that file loses points.

    Parameters
    ----------
    folder : Path
        The folder with files or folders that have the students' names, such as ``alice.py``,
        ``bob.ipynb`` or ``carol/01-see-rank.ipynb``.
    numbers : sequence of int
        The lessons to grade; by default all lessons to which there is an answer.
    only : sequence of str
        The names of exercises, to grade a part of the lessons.
    roster : Path, optional
        The class, as a CSV file that a gradebook exports, with the names of students' files or
        folders in its first column: students without a file are graded as absent.
    rng : Generator or int, optional
        Random seed of the questions; by default a new one each time.
    limits : Limits, optional
        The limits of each submission.
    jobs : int, optional
        The number of submissions to run at the same time; by default the number of processors.
    progress : bool
        Show a progress bar in a terminal.

    Returns
    -------
    Grades
        The grades, which print as a table; `Grades.write` writes files.

    Raises
    ------
    ValueError
        If there are no submissions, or none answers an exercise and no lesson is given.
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
    try:  # check that processes can start, so that one file must be the cause of a later failure
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


def check_out(
    path: Path, submissions: Path, roster: Path | None = None, *, force: bool = False
) -> None:
    """Raise an error for output paths that must not be written to.

    Parameters
    ----------
    path : Path
        The path for the table of grades; a table that `Grades.write` has written may be replaced.
    submissions : Path
        The folder that is graded.
    roster : Path, optional
        The class.
    force : bool
        Also allow to replace the feedback, laws and gradebook next to the table.

    Raises
    ------
    ValueError
        If the path is a directory or a file of another kind, or an output path exists or is what
        `grade` reads.

    Examples
    --------
    >>> check_out(Path("grades.csv"), Path("submissions"))
    >>> check_out(Path("submissions/grades.csv"), Path("submissions"))
    Traceback (most recent call last):
        ...
    ValueError: submissions/grades.csv must not be written, because submissions is read
    """
    if path.name == "" or path.is_dir():
        raise ValueError(f"grades must go into a file, got the directory {str(path)!r}")
    for one in outputs(path, roster):
        for read in filter(None, (submissions, roster)):
            if one.resolve().is_relative_to(read.resolve()):
                raise ValueError(f"{one} must not be written, because {read} is read")
        if one != path and os.path.lexists(one) and not force:
            refuse(f"{str(one)!r} already exists; pass --force to replace it")
    if path.exists() and not is_table_of_grades(path):
        raise ValueError(f"{path} exists and is not a table of grades; name another file")


def is_table_of_grades(path: Path) -> bool:
    """Return whether a file has the columns of `Grades.to_csv`."""
    if not path.is_file():
        return False
    with path.open(encoding="utf-8", errors="replace") as file:
        heading = file.readline(10_000).rstrip("\n").split(",")
    return heading[0] == "student" and heading[-2:] == ["points", "of"]


def submissions_in(folder: Path) -> dict[str, list[Path]]:
    """Map each student's name to files, except links, because links may lead anywhere."""
    if not folder.is_dir():
        raise ValueError(f"{folder} must be a folder of submissions")
    students: dict[str, list[Path]] = {}
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith(".") or entry.is_symlink():
            continue
        if entry.is_dir():
            students.setdefault(entry.name, []).extend(files_below(entry))
        # include files of other kinds, such as Word documents, so that the report mentions them
        elif entry.is_file() and (kind(entry) or entry.suffix.lower() not in NOTES):
            students.setdefault(Path(entry.name.removesuffix(".txt")).stem, []).append(entry)
    if not students:
        raise ValueError(f"{folder} holds no .py or .ipynb files, and no folders of them")
    readable: dict[str, list[Path]] = {}
    for name, files in students.items():
        shown = readable_name(name)
        while shown in readable:  # two names on disk may become the same readable name
            shown += "'"
        readable[shown] = files
    return readable


def readable_name(name: str) -> str:
    """Convert the name of a file, which may consist of any bytes, to printable text."""
    return printable(os.fsencode(name).decode("utf-8", "backslashreplace")).replace("\n", " ")


@dataclass(frozen=True)
class HandedIn:
    """A submitted file; this process searches its text but never runs it."""

    path: Path
    answers: Collection[str] = ()  # the names of exercises that the file seems to answer
    failure: str = ""


def look_at(path: Path) -> HandedIn:
    if not kind(path):
        told = f"{readable_name(path.name)} is neither a notebook nor a script"
        archive = " (an archive)" * (path.suffix.lower() in ARCHIVES)
        return HandedIn(path, failure=told + archive)
    try:
        text = text_of(path)
    except (OSError, ValueError) as error:
        return HandedIn(path, failure=printable(f"{error}".replace(f"{path}", path.name)))
    known = {exercise.name for lesson in lessons() for exercise in lesson.exercises}
    # Search a notebook's JSON without parsing it, which could take much memory. In JSON, a
    # definition may follow the two characters \n.
    defined = r"(?:\b|\\n)(?:def\s+|(?=\w+\s*=\s*lambda))(\w{1,100})"
    return HandedIn(path, known.intersection(re.findall(defined, text)))


def files_below(folder: Path) -> list[Path]:
    """List up to 101 notebooks and scripts in a student's folder, or other files if none."""
    files: list[Path] = []
    for place, folders, names in os.walk(folder):
        deepest = len(Path(place).relative_to(folder).parts) == DEEPEST
        folders[:] = [] if deepest else [name for name in folders if name != ".ipynb_checkpoints"]
        paths = (Path(place, name) for name in names)
        files += [path for path in paths if path.is_file() and not path.is_symlink()]
    return sorted(filter(kind, files) if any(map(kind, files)) else files)[: MOST + 1]


def lessons_answered(students: Mapping[str, Sequence[HandedIn]]) -> list[Lesson]:
    """List the lessons with an answer in any submission; raise an error if there are none."""
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
    """Quote text as a block of code, so that a submission's output is never read as Markdown."""
    return "\n".join(f"    {line}" for line in printable(text).splitlines()) + "\n"


def harmless(text: str) -> str:
    """Convert a name to text that a spreadsheet does not mistake for a formula."""
    clean = printable(text).replace("\n", " ")
    return f"'{clean}" if clean.lstrip()[:1] in {"=", "+", "-", "@"} else clean


def file_name(student: str) -> str:
    """Return a name for a student's feedback that every file system accepts."""
    if len(student.encode()) <= 200 and "/" not in student and "\\" not in student:
        return f"{student}.md"
    clean = re.sub(r"[/\\]", "_", student).encode()[:150].decode("utf-8", "ignore")
    return f"{clean}-{hashlib.sha256(student.encode()).hexdigest()[:12]}.md"


# Functions for rosters, gradebooks and the table of broken laws


def read_roster(path: Path) -> list[Record]:
    """Read the students of a class from the CSV file that a gradebook exports.

    The first column has the names of students' files or folders; other columns, such as Moodle's
    ``Email address`` or Canvas's ``ID``, are written back unchanged.

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
        records = [one for one in csv.DictReader(lines, strict=True) if any(one.values())]
    except csv.Error as error:
        raise ValueError(f"{path} is not a roster in CSV: {error}") from None
    if not records or any(None in one or None in one.values() for one in records):
        raise ValueError(f"{path} must have a line of headings, and as many fields in each line")
    (name, count), *_ = Counter(map(name_in, records)).most_common(1)
    if count > 1:
        raise ValueError(f"{path} names {name!r} twice")
    return records


def name_in(record: Record) -> str:
    """Return the student's name, which is in the first column."""
    return next(iter(record.values()))


def by_roster(
    records: Sequence[Record], handed_in: Mapping[str, list[HandedIn]]
) -> dict[str, list[HandedIn]]:
    """Assign files to the students of a roster, and add students whom the roster does not name.

    A folder belongs to the student with the longest name that is the folder's, or with which it
    begins before an underscore, as in downloads from Moodle and Canvas.

    Examples
    --------
    >>> by_roster([{"name": "Ada"}, {"name": "Bob"}], {"Ada_17_file": ["a.py"], "Cy": ["c.py"]})
    {'Ada': ['a.py'], 'Bob': [], 'Cy': ['c.py']}
    """

    def start(name: str) -> str:
        # file names on macOS may store accents as separate characters
        return unicodedata.normalize("NFC", f"{name}_")

    result: dict[str, list[HandedIn]] = {name_in(record): [] for record in records}
    for folder, files in handed_in.items():
        owners = [one for one in map(name_in, records) if start(folder).startswith(start(one))]
        result.setdefault(max(owners, key=start, default=folder), []).extend(files)
    return result


def gradebook(records: Sequence[Record], points: Mapping[str, Cell], column: str) -> Table:
    """Add a column of points to the roster, for import into Moodle and Canvas.

    Examples
    --------
    >>> print(gradebook([{"Student": "Ada", "ID": "17"}], {"Ada": 4}, "LoRA (99)").to_csv())
    Student,ID,LoRA (99)
    Ada,17,4
    <BLANKLINE>
    """
    lines = [[*one.values(), points[name_in(one)]] for one in records]
    return Table([*records[0], column], lines)


def part_of(lessons: Sequence[Lesson], names: Sequence[str]) -> list[Lesson]:
    """Restrict lessons to the exercises with these names; without names, keep all exercises."""
    known = [one.name for lesson in lessons for one in lesson.exercises]
    wanted = {choice("exercise", name, known) for name in names} or set(known)
    pairs = [
        (lesson, tuple(one for one in lesson.exercises if one.name in wanted)) for lesson in lessons
    ]
    return [replace(lesson, exercises=part) for lesson, part in pairs if part]


def broken_laws(outcomes: Sequence[Outcome]) -> Table:
    """Count the students who broke each law; known mistakes come first, sorted by frequency.

    Parameters
    ----------
    outcomes : sequence of Outcome
        The outcomes of all students and exercises; missing answers are not counted.

    Returns
    -------
    Table
        The laws and known mistakes; the mistake is empty if no known one gives the answer.
    """
    broken = [
        (outcome.exercise.name, law.name, verdict.mistake)
        for outcome in outcomes
        for law, verdict in zip(outcome.exercise.laws, outcome.verdicts, strict=True)
        if not verdict.passed and not verdict.message.startswith("Not ")
    ]
    lines = [(*what, count) for what, count in Counter(broken).most_common()]
    lines.sort(key=lambda line: not line[2])  # laws broken without a known mistake come last
    return Table(["exercise", "law", "known mistake", "students"], lines)
