"""From a name in the reference to the lines that define it, in the repository."""

import importlib
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def lines_of(module: str, name: str) -> tuple[str, int, int] | None:
    """The file, from the root of the repository, and the first and last line; None where there is
    no code.
    """
    thing: Any = importlib.import_module(module)
    for part in name.split("."):  # of a package by asking it, since it may load the name only then
        read = getattr if inspect.ismodule(thing) else inspect.getattr_static
        thing = read(thing, part, None)
    thing = (
        getattr(thing, "fget", None)
        or getattr(thing, "func", None)
        or getattr(thing, "__func__", thing)
    )
    thing = inspect.unwrap(thing) if callable(thing) else thing
    try:
        file = Path(inspect.getsourcefile(thing) or "")
        code, first = inspect.getsourcelines(thing)
    except (TypeError, OSError):  # a constant, a field
        return None
    if ROOT not in file.parents:  # made by a library, such as a dataclass's methods
        return None
    return file.relative_to(ROOT).as_posix(), first, first + len(code) - 1


def resolver(repository: str, ref: str) -> Callable[[str, dict[str, str]], str | None]:
    """What `sphinx.ext.linkcode` asks for the address of the source of a name."""

    def resolve(domain: str, info: dict[str, str]) -> str | None:
        found = (
            lines_of(info["module"], info["fullname"])
            if domain == "py" and info["module"]
            else None
        )
        if found is None:
            return None
        file, first, last = found
        return f"https://github.com/{repository}/blob/{ref}/{file}#L{first}-L{last}"

    return resolve
