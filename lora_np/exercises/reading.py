"""Exercises as files: all of their prose, and which laws are worth how much."""

from __future__ import annotations

import importlib
import pkgutil
import re
import tomllib
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

from lora_np.exercises import checks
from lora_np.exercises.asking import Answer, Exercise, Law, Lesson
from lora_np.exercises.drawing import Draw
from lora_np.exercises.forbidden import FAMILIES, names_something

DATA = Path(__file__).parent / "data"


@cache
def course() -> tuple[Lesson, ...]:
    """All lessons in the order of ``lessons.toml``, which alone numbers them; then the project."""
    table = tomllib.loads((DATA / "lessons.toml").read_text(encoding="utf-8"))
    project = table["project"]
    closing = (DATA / f"{project['slug']}.md").read_text(encoding="utf-8")
    return tuple(
        Lesson(number, one["slug"], one["title"], tuple(map(read, one["exercises"])), one.get("closing", ""))
        for number, one in enumerate([*table["lesson"], {**project, "closing": closing}], start=1)
    )


def read(name: str) -> Exercise:
    """The exercise in ``name.md``: settings between two lines of ``+++``, then sections of Markdown."""
    _, settings, text = (DATA / f"{name}.md").read_text(encoding="utf-8").split("+++\n", 2)
    about = tomllib.loads(settings)
    sections = {
        title: body.strip() for title, body in re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", text, re.M | re.S)
    }
    statement = sections["Statement"]
    if "Example" in sections:
        statement += f"\n\nFor example:\n\n{sections['Example']}"
    for rule in about.get("forbids", ()):
        if not names_something(rule):
            families = ", ".join(FAMILIES)
            raise ValueError(
                f"{name}.md forbids {rule!r}, which is no family ({families}) and nothing of lora_np"
            )
    if about.get("forbids"):
        statement += f"\n\nNot allowed here: {', '.join(about['forbids'])}."
    if about.get("dtype") == "float64":
        statement += "\n\nHere float32 is too coarse: compute in float64."
    laws = about.pop("laws")
    more: dict[str, Any] = {key: tuple(one) if isinstance(one, list) else one for key, one in about.items()}
    return Exercise(
        **more,
        laws=tuple(Law(key, law["law"], law["points"], law_of(name, key)) for key, law in laws.items()),
        statement=statement,
        stub=code_in(sections["Stub"]),
        hints=tuple(
            " ".join(hint.split()) for hint in re.split(r"^\d\. ", sections["Hints"], flags=re.M)[1:]
        ),
        solution=sections.get("Solution", ""),
    )


def law_of(exercise: str, key: str) -> Callable[[Draw, Answer], None]:
    """``exercise_key``, or the function of all laws of the exercise, which is told the key of one."""
    found = functions()
    return found.get(f"{exercise}_{key}") or partial(found[exercise], key=key)


def code_in(markdown: str) -> str:
    """The last block of Python, without its fences."""
    return str(re.findall(r"^```python\n(.*?)^```", markdown + "\n", re.M | re.S)[-1])


@cache
def functions() -> dict[str, Any]:
    """Everything that the modules of ``checks`` define, by name."""
    found: dict[str, Any] = {}
    for module in pkgutil.iter_modules(checks.__path__):
        found |= vars(importlib.import_module(f"{checks.__name__}.{module.name}"))
    return found
