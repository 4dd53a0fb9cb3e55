"""Define settings once, as fields of a dataclass with default, help and choices."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import Field, field, fields
from functools import cache, partial
from typing import TYPE_CHECKING, Any, TypeVar

from lora_np.checks import choice, number, whole_number

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T")
CHECKS: dict[str, Callable[..., float]] = {
    "int": whole_number,
    "float": partial(number, open_minimum=True),
}


def setting(default: T, help: str, *, choices: tuple[str, ...] = (), **limits: float) -> T:
    """Declare a setting in a dataclass, as in ``batch_size: int = setting(1, "Batch size")``.

    The command line turns it into an option, with the choices and the default after ``help``.
    ``limits`` are keywords of `whole_number` or `number`, for `check_settings`.
    """
    return field(default=default, metadata={"help": help, "choices": choices, "limits": limits})


def settings_of(owner: type[DataclassInstance]) -> list[Field[Any]]:
    """List the fields of a dataclass that `setting` declared, own fields before inherited ones."""
    known = {field.name: field for field in fields(owner) if "help" in field.metadata}
    ordered = [name for cls in owner.__mro__ for name in inspect.get_annotations(cls)]
    return [known[name] for name in dict.fromkeys(ordered) if name in known]


@cache
def choices_of(owner: type[DataclassInstance]) -> dict[str, tuple[str, ...]]:
    """Map the names of settings that have choices to their choices."""
    settings = settings_of(owner)
    return {
        field.name: field.metadata["choices"] for field in settings if field.metadata["choices"]
    }


def check_settings(settings: DataclassInstance) -> None:
    """Raise an error if a setting is not one of its choices, or a number is out of range.

    Without limits, whole numbers are at least 1, and other numbers above 0.
    """
    for name, choices in choices_of(type(settings)).items():
        choice(name, getattr(settings, name), choices)
    for own in fields(settings):
        check = CHECKS.get(str(own.type).removesuffix(" | None"))
        value = getattr(settings, own.name)
        if check is not None and value is not None:
            check(own.name, value, **own.metadata.get("limits", {}))
