"""Settings written once: fields of a dataclass that carry default, help and choices."""

from __future__ import annotations

import inspect
from dataclasses import Field, field, fields
from typing import TYPE_CHECKING, Any, TypeVar

from lora_np.checks import choice

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T")


def setting(default: T, help: str, *, choices: tuple[str, ...] = ()) -> T:
    """Declare a field of a dataclass of settings: ``batch_size: int = setting(1, "Batch size")``.

    The command line makes an option of it, with the default and the choices after ``help``.
    """
    return field(default=default, metadata={"help": help, "choices": choices})


def settings_of(owner: type[DataclassInstance]) -> list[Field[Any]]:
    """List the fields of a dataclass that `setting` declared, own ones before inherited ones."""
    known = {field.name: field for field in fields(owner) if "help" in field.metadata}
    ordered = [name for cls in owner.__mro__ for name in inspect.get_annotations(cls)]
    return [known[name] for name in dict.fromkeys(ordered) if name in known]


def choices_of(owner: type[DataclassInstance]) -> dict[str, tuple[str, ...]]:
    """Map the settings that have choices to these."""
    settings = settings_of(owner)
    return {
        field.name: field.metadata["choices"] for field in settings if field.metadata["choices"]
    }


def check_choices(settings: DataclassInstance) -> None:
    """Raise a ValueError if a setting with choices has none of them as its value."""
    for name, choices in choices_of(type(settings)).items():
        choice(name, getattr(settings, name), choices)
