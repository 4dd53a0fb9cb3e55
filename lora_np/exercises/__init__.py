"""Exercises that check themselves: statements, laws, and what students call."""

from lora_np.exercises.asking import QUESTIONS, Exercise, Law, Lesson, Outcome, Verdict, judge, plural
from lora_np.exercises.catalogue import (
    DATA,
    Solution,
    check,
    exercise,
    lessons,
    other_questions,
    solution,
)
from lora_np.exercises.handouts import HEADER, heading, notebook, notebook_text, start
from lora_np.exercises.laws import LawBroken
from lora_np.exercises.running import Namespace, call
from lora_np.exercises.values import Remote, WireError, decode, encode

__all__ = [
    "DATA",
    "HEADER",
    "QUESTIONS",
    "Exercise",
    "Law",
    "LawBroken",
    "Lesson",
    "Namespace",
    "Outcome",
    "Remote",
    "Solution",
    "Verdict",
    "WireError",
    "call",
    "check",
    "decode",
    "encode",
    "exercise",
    "heading",
    "judge",
    "lessons",
    "notebook",
    "notebook_text",
    "other_questions",
    "plural",
    "solution",
    "start",
]
