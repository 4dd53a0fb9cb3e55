"""The reference follows ``__all__``: directives, and a place in the index for every public name.

Each thing is documented once, in its package. Wherever else it can be imported from is an alias in the index:
``lora_np.fit`` leads to ``lora_np.training.fit``.
"""

import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from types import ModuleType

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.docutils import SphinxDirective

import lora_np


class PublicNames(SphinxDirective):
    """A table of the public names of a module, then each of them in full."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        name = self.arguments[0]
        options = "   :members:\n   :undoc-members:\n"
        if aliases := ", ".join(of_others(name)):
            options += f"   :exclude-members: {aliases}\n"
        return self.parse_text_to_nodes(f"{table(name)}\n\n.. automodule:: {name}\n{options}")


class FrontDoor(SphinxDirective):
    """The table of what can be imported from the package itself; each name leads to its package."""

    def run(self) -> list[nodes.Node]:
        return self.parse_text_to_nodes(table("lora_np"))


def table(name: str) -> str:
    module = importlib.import_module(name)
    shown = [public for public in module.__all__ if has_docstring(getattr(module, public))]
    rows = "\n".join(f"   {public}" for public in sorted(shown, key=str.lower))
    return f".. currentmodule:: {name}\n\n.. autosummary::\n   :nosignatures:\n\n{rows}\n"


def of_others(name: str) -> list[str]:
    """Public names of a module that are documented with another package, where they are defined."""
    module = importlib.import_module(name)
    package = ".".join(name.split(".")[:2])
    homes = {public: getattr(getattr(module, public), "__module__", None) for public in module.__all__}
    return [
        public
        for public, home in homes.items()
        if isinstance(home, str) and home.startswith("lora_np.") and not f"{home}.".startswith(f"{package}.")
    ]


def has_docstring(thing: object) -> bool:
    """Functions, classes and modules describe themselves; a page describes constants and type aliases."""
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
        if name not in objects and id(thing) in documented:
            objects[name] = documented[id(thing)]._replace(aliased=True)
    return []


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("public-names", PublicNames)
    app.add_directive("front-door", FrontDoor)
    app.connect("env-updated", note_aliases)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
