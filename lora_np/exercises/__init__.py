"""Exercises that grade themselves: what students call, and what teachers run."""

from lora_np.exercises.course import check, course, exercise, lessons
from lora_np.exercises.exercise import Exercise, Lesson, Outcome
from lora_np.exercises.laws import LawBroken

__all__ = ["Exercise", "LawBroken", "Lesson", "Outcome", "check", "course", "exercise", "lessons"]
