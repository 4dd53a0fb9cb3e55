"""Library functions that an exercise forbids: calling one raises, under any name."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

LIBRARIES = ("numpy", "lora_np", "scipy")


class Forbidden(Exception):  # noqa: N818
    """A function was called that the exercise asks to do without."""


@contextmanager
def forbidden(names: Sequence[str], namespace: dict[str, Any]) -> Iterator[None]:
    """While inside, calling one of the functions ``names`` raises `Forbidden`.

    They are replaced wherever a module of a library or ``namespace`` (the student's own names) holds them, so
    that neither ``from numpy.linalg import svd as helper`` nor another function that is made of one is a way
    around. It keeps a student from submitting the library's answer; it does not stop malice.

    Parameters
    ----------
    names : sequence of str
        Like ``"numpy.linalg.svd"``.
    namespace : dict
        Where the student's function looks up its names.
    """
    replaced: list[tuple[dict[str, Any], str, Any]] = []
    refusals = {id(function): (function, refusal(name)) for name, function in find(names)}
    if refusals:
        spaces = [vars(m) for key, m in list(sys.modules.items()) if key.partition(".")[0] in LIBRARIES and m]
        for space in [*spaces, namespace]:
            for key, value in list(space.items()):
                if id(value) in refusals:
                    replaced.append((space, key, value))
                    space[key] = refusals[id(value)][1]
    try:
        yield
    finally:
        for space, key, value in replaced:
            space[key] = value


def find(names: Sequence[str]) -> Iterator[tuple[str, Any]]:
    for name in names:
        module, _, attribute = name.rpartition(".")
        yield name, getattr(importlib.import_module(module), attribute)


def refusal(name: str) -> Callable[..., NoReturn]:
    def refuse(*args: Any, **kwargs: Any) -> NoReturn:
        raise Forbidden(f"{name} is not allowed in this exercise: write it yourself")

    return refuse
