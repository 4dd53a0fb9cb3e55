"""The reference follows ``__all__``: directives, and a place in the index for every public name.

Each thing is documented once, in its package. Wherever else it can be imported from is an alias in
the index: ``lora_np.fit`` leads to ``lora_np.training.fit``.
"""

import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.pycode import ModuleAnalyzer
from sphinx.util.docutils import SphinxDirective

import lora_np

# From tasks to functions.
TASKS, TASK = (
    Path(__file__).parent.parent / "reference" / "index.md",
    re.compile(r"`~(lora_np[\w.]*)`"),
)


class PublicNames(SphinxDirective):
    """A table of the public names of a module, then each of them in full, functions first."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        name = self.arguments[0]
        elsewhere = of_others(name)
        own = [
            public for public in importlib.import_module(name).__all__ if public not in elsewhere
        ]
        functions, classes, constants = by_kind(name, own)
        texts = [table(name), f".. automodule:: {name}\n   :no-members:"]
        for directive, names in (("function", functions), ("class", classes), ("data", constants)):
            texts += [f".. auto{directive}:: {name}.{public}" for public in names]
        return self.parse_text_to_nodes("\n\n".join(texts))


class FrontDoor(SphinxDirective):
    """The table of what can be imported from the package itself; each name leads to its package."""

    def run(self) -> list[nodes.Node]:
        return self.parse_text_to_nodes(table("lora_np"))


def table(name: str) -> str:
    """Summaries of the functions of a module, by what they are for if they are many, then of its
    classes.
    """
    functions, classes, _ = by_kind(name, importlib.import_module(name).__all__)
    parts = [f".. currentmodule:: {name}"]
    subjects = by_subject(name, functions)
    for title, names in (*(subjects or {"Functions": functions}).items(), ("Classes", classes)):
        rows = "\n".join(f"   {public}" for public in names)
        if names:
            parts += [f".. rubric:: {title}", f".. autosummary::\n   :nosignatures:\n\n{rows}"]
    return "\n\n".join(parts) + "\n"


def by_subject(name: str, functions: Sequence[str]) -> dict[str, list[str]]:
    """Many functions under the first words of their files; empty if a file has hardly more than
    one.
    """
    module, subjects = importlib.import_module(name), dict[str, list[str]]()
    for public in functions:
        file = importlib.import_module(inspect.unwrap(getattr(module, public)).__module__)
        subject = re.sub(r":\w+:(`\w+`)", r"`\1`", re.split(r"[.:;,](?=\s)", f"{file.__doc__} ")[0])
        subjects.setdefault(subject, []).append(public)
    return subjects if 10 < len(functions) >= 2 * len(subjects) > 2 else {}


def by_kind(name: str, names: Sequence[str]) -> tuple[list[str], list[str], list[str]]:
    """Of these names of a module: functions, classes, and constants that a comment describes.

    Names that the table of tasks leads to come first, in its order.
    """
    module = importlib.import_module(name)
    tasks = TASK.findall(TASKS.read_text(encoding="utf-8"))

    def place(public: str) -> tuple[int, str]:
        named = [full for full in (f"{name}.{public}", f"lora_np.{public}") if full in tasks]
        return tasks.index(named[0]) if named else len(tasks), public.lower()

    names = sorted(names, key=place)
    functions = [public for public in names if inspect.isroutine(getattr(module, public))]
    classes = [public for public in names if isinstance(getattr(module, public), type)]
    described = ModuleAnalyzer.for_module(name).find_attr_docs()
    constants = [public for public in names if ("", public) in described]
    return functions, classes, constants


def of_others(name: str) -> list[str]:
    """Public names of a module that are documented with another package, where they are defined."""
    module = importlib.import_module(name)
    package = ".".join(name.split(".")[:2])
    homes = {
        public: getattr(getattr(module, public), "__module__", None) for public in module.__all__
    }
    return [
        public
        for public, home in homes.items()
        if isinstance(home, str)
        and home.startswith("lora_np.")
        and not f"{home}.".startswith(f"{package}.")
    ]


def has_docstring(thing: object) -> bool:
    """Functions, classes and modules describe themselves; a page describes constants and type
    aliases.
    """
    return isinstance(thing, type | ModuleType) or inspect.isroutine(thing)


def public_modules() -> Iterator[ModuleType]:
    """The package and every module of it that says what is public."""
    yield lora_np
    for module in pkgutil.walk_packages(lora_np.__path__, "lora_np."):
        if not module.name.endswith("__main__"):
            found = importlib.import_module(module.name)
            if hasattr(found, "__all__"):
                yield found


def public_things() -> Iterator[tuple[str, object]]:
    for module in public_modules():
        for name in module.__all__:
            yield f"{module.__name__}.{name}", getattr(module, name)


def note_aliases(app: Sphinx, env: BuildEnvironment) -> list[str]:
    objects = env.domains.python_domain.objects
    documented = {id(thing): objects[name] for name, thing in public_things() if name in objects}
    for name, thing in public_things():
        if id(thing) not in documented:
            continue
        for full in (name, *(f"{name}.{member}" for member in members(thing))):
            if full not in objects:
                objects[full] = documented[id(thing)]._replace(aliased=True)
    return []


def members(thing: object) -> set[str]:
    """What a class has of its own or from another class of the package: its text describes its
    fields.
    """
    ours = [
        each for each in getattr(thing, "__mro__", ()) if each.__module__.startswith("lora_np.")
    ]
    names = {name for each in ours for name in (*vars(each), *inspect.get_annotations(each))}
    return {name for name in names if not name.startswith("_")}


def leave_out(
    app: Sphinx, what: str, name: str, thing: object, skip: bool, options: object
) -> bool | None:
    """Skip fields of a NamedTuple that have no text but their number."""
    return True if (inspect.getdoc(thing) or "").startswith("Alias for field number") else None


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("public-names", PublicNames)
    app.add_directive("front-door", FrontDoor)
    app.connect("autodoc-skip-member", leave_out)
    app.connect("env-updated", note_aliases)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
