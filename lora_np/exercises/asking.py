"""An exercise, and what becomes of an answer to it."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from lora_np.exercises.laws import LawBroken
from lora_np.exercises.running import call
from lora_np.exercises.values import WireError, decode, encode

Caller = Callable[[Sequence[Any], Sequence[str]], dict[str, Any]]
QUESTIONS = (0, 1, 2, 3)  # of the checks that students run: each number draws one

LONGEST = 300  # characters of arguments that are shown

SVD = ("numpy.linalg.svd", "numpy.linalg.svdvals", "lora_np.linalg.svd", "lora_np.linalg.truncated_svd")
"""Functions to forbid where the SVD is what is to be written; what is made of them is forbidden with them."""


@dataclass(frozen=True)
class Exercise:
    """Statement, stub, hints and check: all of an exercise that a student may see.

    Its solution and the usual mistakes have the same name in ``exercises/`` of the repository.

    Parameters
    ----------
    title : str
        With a verb or a thing.
    points : int
        From 1 (a line) to 3 (an algorithm).
    statement : str
        Markdown.
    stub : str
        The function to fill in; its last line says ``...``.
    hints : tuple of str
        Two, the second of which nearly gives it away.
    check : callable
        ``check(answer, rng)`` puts questions of random shapes to the function and raises `LawBroken`.
    forbids : tuple of str
        Functions, such as ``"numpy.linalg.matrix_rank"``, that must not be used.
    """

    title: str
    points: int
    statement: str
    stub: str
    hints: tuple[str, str]
    check: Callable[[Answer, np.random.Generator], None] = field(repr=False)
    forbids: tuple[str, ...] = ()

    @cached_property
    def name(self) -> str:
        """The function's name, which no other exercise has."""
        return self.definition.name

    @cached_property
    def parameters(self) -> list[str]:
        """The function's parameters."""
        return [argument.arg for argument in self.definition.args.args]

    @property
    def definition(self) -> ast.FunctionDef:
        (function,) = ast.parse(self.stub).body
        assert isinstance(function, ast.FunctionDef)
        return function


@dataclass(frozen=True)
class Lesson:
    """The exercises of a lesson, easy ones first.

    Parameters
    ----------
    number : int
        Its place in the course, from 1.
    slug : str
        Its name in file names.
    title : str
        As its notebook is headed.
    exercises : tuple of Exercise
        At least one.
    """

    number: int
    slug: str
    title: str
    exercises: tuple[Exercise, ...]

    @property
    def stem(self) -> str:
        """How its files are called, as in ``01-see-rank``."""
        return f"{self.number:02d}-{self.slug}"

    @property
    def points(self) -> int:
        """The sum over its exercises."""
        return sum(exercise.points for exercise in self.exercises)


@dataclass(frozen=True)
class Outcome:
    """What a check found.

    Attributes
    ----------
    exercise : Exercise
    passed : bool
    message : str
        The law that was broken, and how; empty if none was.
    call : str
        The call that broke it.
    """

    exercise: Exercise
    passed: bool
    message: str = ""
    call: str = ""

    @property
    def points(self) -> int:
        """All or nothing."""
        return self.exercise.points if self.passed else 0

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "exercise": self.exercise.name,
            "passed": self.passed,
            "points": self.points,
            "of": self.exercise.points,
            "message": self.message,
            "call": self.call,
        }

    def require(self) -> None:
        """Raise `LawBroken` unless the check passed, for graders that count exceptions."""
        if not self.passed:
            raise LawBroken(self.message, self.call)

    def __repr__(self) -> str:
        head = f"{self.exercise.name}: {self.points} of {plural(self.exercise.points, 'point')}"
        if self.passed:
            return f"{head}. All laws hold."
        return "\n".join(line for line in (head, f"  {self.message}", f"  {self.call}") if line.strip())


class Answer:
    """A student's function as a check sees it: it takes arrays, and gives plain values or breaks a law."""

    def __init__(self, exercise: Exercise, caller: Caller) -> None:
        self.exercise = exercise
        self.caller = caller
        self.last = ""

    def __call__(self, *arguments: Any) -> Any:
        reply = self.reply(arguments)
        if "error" in reply:
            raise LawBroken(*explanation(str(reply["error"]), reply.get("kind")))
        if "unusable" in reply:
            advice = (
                "; lora_np.value(x) is the array of a Tensor" if "Tensor" in str(reply["unusable"]) else ""
            )
            raise LawBroken("An answer is made of arrays and numbers", f"{reply['unusable']}{advice}")
        changed = [self.exercise.parameters[i] for i in reply.get("changed", ())]
        if changed:
            raise LawBroken(
                "Arguments stay as they are", f"your function has changed {' and '.join(changed)}"
            )
        return reply["value"]

    def raises(self, *arguments: Any) -> str | None:
        """The name of the exception that a call ends in, if it does."""
        reply = self.reply(arguments)
        return str(reply.get("kind")) if "error" in reply else None

    def reply(self, arguments: Sequence[Any]) -> dict[str, Any]:
        self.last = description(self.exercise, arguments)
        return self.caller(arguments, self.exercise.forbids)


def explanation(error: str, kind: Any) -> tuple[str, str]:
    """The law that a call broke which came to nothing."""
    laws = {
        "NotImplementedError": ("Not written yet", ""),
        "missing": ("Not written yet", error),
        "Forbidden": ("The exercise forbids a function", error),
        "Ended": ("A call comes back in time and within its limits", error),
    }
    return laws.get(str(kind), ("A call ends without an error", error))


def judge(exercise: Exercise, caller: Caller, questions: Iterable[Any]) -> Outcome:
    """Put the exercise's questions to an answer, one after the other, until a law is broken.

    Parameters
    ----------
    exercise : Exercise
        Whose check asks.
    caller : callable
        ``caller(arguments, forbids)`` calls the answer, here or in another process: see `call`.
    questions : iterable
        Each draws one question, as the seed of a Generator.

    Returns
    -------
    Outcome
        The first law that was broken, if one was.
    """
    answer = Answer(exercise, caller)
    for question in questions:
        try:
            exercise.check(answer, np.random.default_rng(question))
        except LawBroken as broken:
            return Outcome(exercise, False, str(broken), answer.last)
        except Exception as error:  # a check must not fall over an answer, but if one does, grading goes on
            message = f"The answer has the type that the exercise asks for: {type(error).__name__}: {error}"
            return Outcome(exercise, False, message, answer.last)
    return Outcome(exercise, True)


def here(function: Any) -> Caller:
    """Call a function of this process, with the same kinds of values as from another process."""

    def caller(arguments: Sequence[Any], forbids: Sequence[str]) -> dict[str, Any]:
        reply = call(function, arguments, forbids)
        if "value" in reply:
            buffers: list[bytes] = []
            try:
                document = encode(reply["value"], buffers)
            except WireError as error:
                return {"unusable": str(error)}
            reply["value"] = decode(document, memoryview(b"".join(buffers)))
        return reply

    return caller


def description(exercise: Exercise, arguments: Sequence[Any]) -> str:
    """The call in words: small arguments in full, large ones by their shapes."""
    shown = zip(exercise.parameters, arguments, strict=True)
    text = ", ".join(f"{name} = {brief(value)}" for name, value in shown)
    return f"in {exercise.name}({text if len(text) <= LONGEST else text[:LONGEST] + ' ...'})"


def brief(value: Any) -> str:
    if callable(value):
        return "a function"
    if isinstance(value, np.ndarray):
        if value.size > 12:
            return f"an array of shape {value.shape}"
        return np.array2string(value, precision=4, separator=", ", suppress_small=True).replace("\n", "")
    if isinstance(value, (list, tuple)) and len(value) > 6:
        return f"{len(value)} items"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(brief, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key!r}: {brief(item)}' for key, item in value.items())}}}"
    return repr(value) if not isinstance(value, np.generic) else repr(value.item())


def plural(count: int, what: str) -> str:
    """``count`` and ``what``, with an s unless there is one.

    Parameters
    ----------
    count : int
        How many.
    what : str
        A noun.

    Returns
    -------
    str
        As in ``"2 points"``.
    """
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
