"""Define exercises and lessons, and judge an answer by its exercise's laws."""

from __future__ import annotations

import ast
import contextlib
import doctest
import io
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache, cached_property
from typing import Any, TypeAlias, cast

import numpy as np

from lora_np.exercises.diagnosis import (
    OFTEN,
    Broken,
    alike,
    unused,
    usual,
    written,
)
from lora_np.exercises.forbidden import Rules
from lora_np.exercises.inputs import Counterexample, Draw, Inputs, Rejected, shrink
from lora_np.exercises.laws import LawBroken
from lora_np.exercises.regions import regions, table
from lora_np.exercises.running import Exchange, Mistake, Reply, call, values_alike
from lora_np.exercises.values import Json, Source, Value, WireError, decode, encode

# calls a student's function with arguments and rules, as `call` does, and returns its reply
Caller = Callable[[Sequence[Value], Rules], Reply]
Check: TypeAlias = "Callable[[Draw, Answer], None]"
SEEDS = (0,)  # seeds of the inputs on which students check their own answers
LARGEST = 200  # at most this many characters are shown of a counterexample, and of its explanation
PATIENCE = 150  # stop a test after this many draws in a row that are in no missing region
ATTEMPTS = 15  # largest number of attempts to shrink an input, per case of the exercise
UNWRITTEN = "Not written yet"
TOO_MUCH = "Nothing is computed that is not asked for"
ENDED = "A call comes back in time and within its limits"
GIVEN = "The statement's example holds"
EXAMPLE = 5e-3  # relative tolerance of a statement's examples, which may show only two digits
LAWS = {  # maps the kind of a call's error to the law that the call breaks
    "NotImplementedError": UNWRITTEN,
    "missing": UNWRITTEN,
    "Forbidden": "The exercise forbids it",
    "TooMuch": TOO_MUCH,
    "Ended": ENDED,
    "None": "A function returns its answer",
    "arity": "The function takes the arguments that the statement names",
}


@dataclass(frozen=True)
class Law:
    """A condition that a right answer satisfies on every input that the law can draw.

    Parameters
    ----------
    slug : str
        The key of the law in the exercise's file.
    name : str
        The condition, as a sentence.
    points : int
        The points that it is worth.
    check : callable
        ``check(draw, answer)`` draws an input, passes it to the answer and raises ``LawBroken`` if
        the law fails.
    """

    slug: str
    name: str
    points: int
    check: Check = field(repr=False)


@dataclass(frozen=True)
class Exercise:
    """An exercise with its statement, stub, hints, laws and solution.

    Parameters
    ----------
    name : str
        The function's name, which is unique in the course.
    title : str
        The title.
    difficulty : int
        From 1 (a line) to 3 (an algorithm).
    minutes : int
        The usual time in minutes, after reading the lesson.
    laws : tuple of Law
        The laws that are checked, each for its points.
    statement : str
        The task in Markdown, with an example in small whole numbers.
    stub : str
        The function to fill in; its last line is ``...``.
    hints : tuple of str
        Three hints, from a nudge to nearly everything.
    solution : str
        The reason and the code in Markdown; empty in a course that omits it.
    forbids : tuple of str
        Families of functions, or single ones, that must not run, as in
        ``lora_np.exercises.forbidden``.
    cases : int
        The number of inputs for each law, before inputs of missing regions are drawn.
    needs : tuple of str
        Exercises whose answers this one uses, as earlier steps of a project.
    example : str
        The statement's example, as a doctest whose outputs are numbers and arrays.
    mistakes : tuple of Mistake
        Known mistakes, which a check can name.
    answer : str
        The solution's code with everything that it needs; empty in a course that omits it.
    more : bool
        Whether it goes beyond the three hours of the path.
    """

    name: str
    title: str
    difficulty: int
    minutes: int
    laws: tuple[Law, ...]
    statement: str
    stub: str
    hints: tuple[str, ...]
    solution: str = ""
    forbids: tuple[str, ...] = ()
    cases: int = 30
    needs: tuple[str, ...] = ()
    example: str = field(default="", repr=False)
    mistakes: tuple[Mistake, ...] = field(default=(), repr=False)
    answer: str = field(default="", repr=False)
    more: bool = False

    @cached_property
    def parameters(self) -> list[str]:
        """The names of the function's parameters."""
        function = ast.parse(self.stub).body[-1]
        assert isinstance(function, ast.FunctionDef)
        return [argument.arg for argument in function.args.args]

    @property
    def points(self) -> int:
        """The sum of the points of all laws."""
        return sum(law.points for law in self.laws)

    @property
    def effort(self) -> str:
        """Difficulty and time, such as ``"easy, 5 minutes"``, with a note if it is optional."""
        effort = f"{('easy', 'medium', 'hard')[self.difficulty - 1]}, {self.minutes} minutes"
        return effort + ", more: beyond the path" * self.more


@dataclass(frozen=True)
class Lesson:
    """The exercises of a lesson, easy ones first.

    Parameters
    ----------
    number : int
        The number of the lesson in the course, from 0.
    slug : str
        Its name in file names.
    title : str
        The title of its notebook.
    group : str
        ``"path"`` for lessons to read in order, otherwise a topic, such as ``"files"``.
    exercises : tuple of Exercise
        The exercises.
    closing : str
        The end of a project: Markdown, and a block of code that uses all answers together.
    """

    number: int
    slug: str
    title: str
    group: str
    exercises: tuple[Exercise, ...]
    closing: str = ""

    @property
    def stem(self) -> str:
        """The name of the lesson's files without an extension, such as ``01-see-rank``."""
        return f"{self.number:02d}-{self.slug}"

    @property
    def points(self) -> int:
        """The sum of the points of all exercises."""
        return sum(exercise.points for exercise in self.exercises)


@dataclass(frozen=True)
class Verdict:
    """The result of testing one law.

    Parameters
    ----------
    law : str
        The key of the law in the exercise.
    passed : bool
        Whether the law holds on all inputs.
    message : str
        The law, the right value and the answer's; empty if the law holds.
    call : str
        Code to paste: the smallest input found that breaks the law, and the call.
    mistake : str
        The known mistake that gives the same answer, such as ``"without alpha / r"``; empty if none
        does.
    """

    law: str
    passed: bool
    message: str = ""
    call: str = ""
    mistake: str = ""


@dataclass(frozen=True)
class Outcome:
    """The result of checking an answer: a verdict on each law.

    Parameters
    ----------
    exercise : Exercise
        The exercise.
    verdicts : tuple of Verdict
        The result of each law, in order.
    """

    exercise: Exercise
    verdicts: tuple[Verdict, ...]

    @classmethod
    def failed(cls, exercise: Exercise, message: str) -> Outcome:
        """Return an outcome that fails all laws for one reason, such as a missing answer."""
        return cls(exercise, tuple(Verdict(law.slug, False, message) for law in exercise.laws))

    @property
    def passed(self) -> bool:
        """Whether all laws hold."""
        return all(verdict.passed for verdict in self.verdicts)

    @property
    def points(self) -> int:
        """The sum of the points of the laws that hold."""
        pairs = zip(self.exercise.laws, self.verdicts, strict=True)
        return sum(law.points for law, verdict in pairs if verdict.passed)

    @property
    def message(self) -> str:
        """The message of the first broken law; empty if all laws hold."""
        return next((verdict.message for verdict in self.verdicts if not verdict.passed), "")

    @property
    def broken(self) -> list[Verdict]:
        """The verdicts on broken laws; only the first if several laws have the same message."""
        by_message: dict[str, Verdict] = {}
        for verdict in self.verdicts:
            if not verdict.passed:
                by_message.setdefault(verdict.message, verdict)
        return list(by_message.values())

    def to_dict(self) -> dict[str, Json]:
        """Convert the outcome to a dictionary that can be written as JSON."""
        points = {"points": self.points, "of": self.exercise.points}
        laws = [asdict(verdict) for verdict in self.verdicts]
        return {"exercise": self.exercise.name, "passed": self.passed, **points, "laws": laws}

    @property
    def explained(self) -> bool:
        """Whether the answer passed and there is a solution to read."""
        return self.passed and bool(self.exercise.solution)

    def __repr__(self) -> str:
        more = f'\n  How it can be done: lora_np.exercises.solution("{self.exercise.name}")'
        return self.text + more * self.explained

    @property
    def text(self) -> str:
        """The points and each broken law, without a reference to the solution."""
        head = f"{self.exercise.name}: {self.points} of {plural(self.exercise.points, 'point')}"
        if self.passed:
            return f"{head}. All laws hold."
        texts = (f"\n{verdict.message}\n{verdict.call}".rstrip() for verdict in self.broken)
        return head + "".join(texts).replace("\n", "\n  ")


@dataclass
class Answer:
    """A student's function as laws call it: it returns plain values, or raises `LawBroken`."""

    exercise: Exercise
    caller: Caller
    last: Exchange = ((), {})  # the arguments of the last call, and the reply

    # returns whether a law needs a call with these arguments
    wanted: Callable[[Sequence[Value]], bool] = lambda arguments: True
    named: bool = False  # whether a known mistake has already been named for this answer

    def __call__(
        self, *arguments: Value, within: int | None = None, steps: int | None = None
    ) -> Any:
        """Call the function with at most ``within`` bytes and ``steps`` instructions."""
        if not self.wanted(arguments):
            raise Rejected
        rules = Rules(self.exercise.forbids, within, steps)
        self.last = arguments, {}
        reply = self.caller(arguments, rules)
        self.last = arguments, reply
        if "error" in reply:
            kind = str(reply.get("kind"))
            why = "" if kind == "NotImplementedError" else str(reply["error"])
            if re.match(rf"TypeError: (\S+\.)?{self.exercise.name}\(\) (takes|missing)", why):
                kind = "arity"
            raise LawBroken(LAWS.get(kind, "A call ends without an error"), why)
        if "unusable" in reply:
            detail = str(reply["unusable"])
            if "Tensor" in detail:
                detail += "; lora_np.value(x) is the array of a Tensor"
            raise LawBroken("An answer is made of arrays and numbers", detail)
        # compare the arguments in this process, because an answer that runs in another process
        # cannot tamper with the comparison
        kept: Any = reply["arguments"]
        pairs = zip(self.exercise.parameters, arguments, kept, strict=True)
        copied = ((name, a, left) for name, a, left in pairs if not isinstance(a, Source))
        changed = [name for name, a, left in copied if encode(a) != encode(left)]
        if changed:
            detail = f"your function has changed {' and '.join(changed)}"
            raise LawBroken("Arguments stay as they are", detail)
        return reply["value"]


def judge(
    exercise: Exercise, caller: Caller, seeds: Sequence[int], *, smallest: bool = True
) -> Outcome:
    """Test each law on inputs from small to large, and shrink an input that breaks it.

    Parameters
    ----------
    exercise : Exercise
        The exercise whose laws to test.
    caller : callable
        ``caller(arguments, rules)`` calls the answer, here or in another process, as `call` does.
    seeds : sequence of int
        Seeds of the inputs.
    smallest : bool
        Whether to search for the smallest input that breaks a law, and for a known mistake that
        gives the same answer.

    Returns
    -------
    Outcome
        The verdicts on all laws.

    Examples
    --------
    >>> from lora_np.exercises import call, exercise
    >>> def caller(arguments, rules):
    ...     return call(lambda d, k, r: d * k, arguments, rules)
    >>> outcome = judge(exercise("lora_count"), caller, SEEDS)
    >>> outcome.points, [verdict.passed for verdict in outcome.verdicts]
    (0, [False])
    """
    answer = Answer(exercise, caller)
    broken = [first_broken(law, answer, [*seeds, place]) for place, law in enumerate(exercise.laws)]
    # test all laws before shrinking, which could use up a slow answer's time and cost it points
    pairs = zip(exercise.laws, broken, strict=True)
    verdicts = [verdict_on(law, answer, broken, smallest) for law, broken in pairs]
    if not any(broken) and (message := example_broken(answer)):
        call = "\n".join(re.findall(r"^(?:>>>|\.\.\.) (.*)$", exercise.example, re.M))
        verdicts[0] = Verdict(exercise.laws[0].slug, False, message, call)
    return Outcome(exercise, tuple(verdicts))


def arrays(value: Any) -> Value:
    """Convert lists of numbers to arrays, also in tuples, because examples compute with them."""
    if isinstance(value, tuple):
        return tuple(map(arrays, value))
    try:
        return np.asarray(value) if isinstance(value, list) else value
    except ValueError:  # the rows differ in length
        return list(map(arrays, value))


def example_broken(answer: Answer) -> str:
    """Explain how an answer differs from the statement's example; return "" if it agrees."""
    examples = doctest.DocTestParser().get_examples(answer.exercise.example)
    nodes = ast.walk(ast.parse("".join(one.source for one in examples)))
    given = (Source(ast.unparse(node)) for node in nodes if isinstance(node, ast.Lambda))

    def asked(*arguments: Value) -> Value:
        return arrays(answer(*(next(given) if callable(a) else a for a in arguments)))

    names = {"np": np, answer.exercise.name: asked}
    shown = {"array": np.array, "float32": np.float32}
    try:
        for one in examples:
            if not one.want:
                exec(one.source, names)
                continue
            want = eval(one.want.replace("<BLANKLINE>", ""), shown)
            got = eval(one.source, names)
            if not values_alike(got, want, EXAMPLE, floor=1e-6):
                must = f"{one.source.strip()} must give {literal(want)}, got {literal(got)}"
                return f"{GIVEN}: {cut(must)}"
    except Exception as error:
        return f"{GIVEN}: {cut(str(error))}"
    return ""


def first_broken(law: Law, answer: Answer, seed: Sequence[int]) -> Counterexample | None:
    """Find an input that breaks the law, small ones first; None if it holds on all inputs.

    After the exercise's number of cases, the answer is called only on inputs from regions in which
    the law needs more tests. The search ends when no region needs more, or when no such input has
    been drawn for a long time.
    """
    one, rng = answer.exercise, np.random.default_rng(seed)
    known, missing = regions(one.name, law.slug, tuple(one.parameters)), dict[str, int]()
    drawn = asked = 0

    def wanted(arguments: Sequence[Value]) -> bool:
        nonlocal asked
        for name, condition in known.items():
            left = missing.get(name, OFTEN)
            if left and (inside := condition(*arguments)) is not None:
                missing[name] = left - bool(inside)
                asked = drawn if inside else asked
        return drawn < one.cases or asked == drawn

    answer = replace(answer, wanted=wanted)
    while drawn < one.cases or (any(missing.values()) and drawn - asked < PATIENCE):
        draw = Draw(rng, min(1.0, drawn / max(1, one.cases - 1)))
        if broken := breaks(law, draw, answer):
            return broken
        drawn += 1
    return None


def verdict_on(law: Law, answer: Answer, broken: Counterexample | None, smallest: bool) -> Verdict:
    """Return the verdict on a law, with the smallest input found that breaks it in the same way."""
    if broken is None:
        return Verdict(law.slug, True)
    name = broken.why.name

    def likewise(inputs: Inputs) -> Broken:
        shown = again(law, answer, inputs)
        return shown if shown and shown.why.name == name else None

    if smallest and name not in (UNWRITTEN, ENDED):
        # make few attempts if a call costs too much, because only large, slow inputs show the cost
        attempts = 24 if name == TOO_MUCH else ATTEMPTS * answer.exercise.cases
        broken = shrink(likewise, broken, attempts=attempts)
    message, mistake = str(LawBroken(name or law.name, cut(broken.why.detail))), None
    if smallest and name not in LAWS.values() and not answer.named:
        with warnings.catch_warnings(action="ignore"), np.errstate(all="ignore"):
            mistake = named(law, answer, broken)
        answer.named = mistake is not None
    if mistake:
        hint = f" Hint: {mistake.hint}" if mistake.hint else ""
        message += f"\nA known mistake gives this answer: {mistake.name}.{hint}"
    pasted = "" if name == UNWRITTEN else code_of(answer.exercise, broken.asked[0])
    return Verdict(law.slug, False, message, pasted, mistake.name if mistake else "")


def named(law: Law, answer: Answer, shown: Counterexample) -> Mistake | None:
    """Return a mistake that explains a wrong answer, or None if no mistake is proved."""
    one = answer.exercise
    listed = table("diagnosis")["unproved"].get(f"{one.name} {law.slug}", ())

    for known in (one.mistakes, usual(one.name)):
        suspects = [
            m
            for m in known
            if m.name not in listed and alike(shown, again(law, by(m.code, one), shown.drawn))
        ]
        if found := proved(law, answer, suspects):
            return found
    if shown.why.name:
        return None
    laws = sorted(one.laws, key=lambda other: other is not law)
    ignored = unused(
        one.parameters,
        answer.caller,
        by(one.answer, one).caller,
        lambda: (arguments for of in laws for _, arguments in telling(one, of)),
    )
    return Mistake(ignored, "", "") if ignored else None


def proved(law: Law, answer: Answer, suspects: Sequence[Mistake]) -> Mistake | None:
    """Return the first suspect that agrees with the answer on all ``telling`` inputs, or None.

    On at least five of these inputs, the answer must return a value that breaks the law. Tests
    check that all other mistakes, and small changes of the solution, differ on at least five
    inputs, with listed exceptions.
    """
    one, values = answer.exercise, 0
    for i, (drawn, _) in enumerate(telling(one, law) if suspects else ()):
        given = again(law, answer, drawn)
        values += given is not None and "value" in given.asked[1]
        suspects = [m for m in suspects if alike(given, given_by(m.code, one, law, i))]
        if not suspects:
            return None
    return suspects[0] if values >= OFTEN else None


@cache
def telling(one: Exercise, law: Law) -> list[tuple[Inputs, Sequence[Value]]]:
    """Draw inputs from all regions to distinguish mistakes; also return each call's arguments."""
    found: dict[str, tuple[Inputs, Sequence[Value]]] = {}

    def check(draw: Draw, answer: Answer) -> None:
        # use large inputs, because different mistakes often give equal answers on small ones
        draw.effort = 1.0
        law.check(draw, answer)
        found[repr(encode(answer.last[0]))] = draw.drawn, answer.last[0]

    # the last argument is a seed that no check of this law uses
    first_broken(replace(law, check=check), by(one.answer, one), [1, one.laws.index(law)])
    return list(found.values())


def by(code: str, one: Exercise) -> Answer:
    """Wrap the function that ``code`` defines as an ``Answer`` whose calls have no rules."""
    return Answer(one, lambda arguments, _: call(written(code, one.name, one.answer), arguments))


@cache
def given_by(code: str, one: Exercise, law: Law, place: int) -> Broken:
    """Test one ``telling`` input; return a counterexample if ``code`` breaks the law, else None."""
    return again(law, by(code, one), telling(one, law)[place][0])


def again(law: Law, answer: Answer, inputs: Inputs) -> Broken:
    """Test the law on earlier inputs; return a counterexample, None if it holds or is skipped."""
    # pass no random generator, because nothing is drawn and creating a generator is slow
    return breaks(law, Draw(cast(np.random.Generator, None), remembered=inputs), answer)


def breaks(law: Law, draw: Draw, answer: Answer) -> Counterexample | None:
    """Test the law on drawn inputs; return a counterexample, or None if it holds or is skipped."""
    try:
        law.check(draw, answer)
        return None
    except Rejected:
        return None
    except LawBroken as broken:
        why = broken
    # a law should not crash on an answer, but if it does, the other laws must still run
    except Exception as error:
        what = "The answer has the type that the exercise asks for"
        why = LawBroken(what, f"{type(error).__name__}: {error}")
    return Counterexample(draw.drawn, why, answer.last)


def local_caller(function: Callable[..., Value]) -> Caller:
    """Wrap a function so that its values are encoded as they would be between processes."""

    def caller(arguments: Sequence[Value], rules: Rules) -> Reply:
        try:
            # hide the function's output, because it would be printed for every input
            with contextlib.redirect_stdout(io.StringIO()):
                return cast(Reply, decode(encode(call(function, arguments, rules))))
        except WireError as error:
            return {"unusable": str(error)}

    return caller


def code_of(exercise: Exercise, arguments: Sequence[Value]) -> str:
    """Write a call as code to paste: a line for each argument, then the call.

    Code that is too long to read is cut; the message says which entry differs.
    """
    lines = [lines_of(*pair) for pair in zip(exercise.parameters, arguments, strict=True)]
    return cut("\n".join([*lines, f"{exercise.name}({', '.join(exercise.parameters)})"]))


def cut(text: str) -> str:
    """Shorten a text to at most 200 characters.

    Examples
    --------
    >>> cut("short"), len(cut("long" * 100))
    ('short', 200)
    """
    return text if len(text) <= LARGEST else text[: LARGEST - 3] + "..."


def lines_of(name: str, value: Value) -> str:
    """Write code that assigns ``value`` to a name, in short form if most entries are equal.

    Examples
    --------
    >>> print(lines_of("B", np.eye(1, 40)))
    B = np.full((1, 40), 0.0)
    B[0, 0] = 1.0
    """
    whole = f"{name} = {literal(value)}"
    if not isinstance(value, np.ndarray) or value.size < 5:
        return whole
    numbers, counts = np.unique(value, return_counts=True)
    usual = np.full_like(value, numbers[counts.argmax()])
    places = np.argwhere(value != usual).tolist()
    changes = (f"{name}{place} = {value[tuple(place)]}" for place in places)
    return min("\n".join([f"{name} = {literal(usual)}", *changes]), whole, key=len)


def literal(value: Value) -> str:
    """Write ``value`` as a Python expression.

    Examples
    --------
    >>> literal([np.array([[0.0, 1.5]]), 2])
    '[np.array([[0.0, 1.5]]), 2]'
    """
    if isinstance(value, np.ndarray):
        return array_literal(value)
    if isinstance(value, dict):
        return repr({key: Source(literal(item)) for key, item in value.items()})
    if isinstance(value, (list, tuple)):
        return repr(type(value)(Source(literal(item)) for item in value))
    return repr(value.item() if isinstance(value, np.generic) else value)


def array_literal(value: np.ndarray) -> str:
    """Write an array as a Python expression, in short form if all entries are equal."""
    if value.size == 0:
        return f"np.zeros({value.shape})"
    if value.size > 4 and (value == value.flat[0]).all():
        return f"np.full({value.shape}, {value.flat[0]})"
    kind = "" if value.dtype in (np.float64, np.int64) else f", dtype=np.{value.dtype}"
    return f"np.array({value.tolist()}{kind})"


def plural(count: int, what: str) -> str:
    """Write a count with its noun in singular or plural.

    Parameters
    ----------
    count : int
        The number of things.
    what : str
        The noun in singular.

    Returns
    -------
    str
        A text such as ``"2 points"``.

    Examples
    --------
    >>> plural(1, "point"), plural(3, "point")
    ('1 point', '3 points')
    """
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
