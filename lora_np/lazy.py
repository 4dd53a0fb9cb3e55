"""Defer the imports in a block ``with on_demand(globals()):`` of an ``__init__``.

Each import runs when one of its names is first used (SPEC 1 of Scientific Python), so nobody waits
for unused modules. Type checkers, editors and readers see ordinary imports, and each name is
written once. ``from lora_np.lazy import numpy as np`` is NumPy, imported on first use.
"""

import builtins
from _thread import RLock  # not from threading, whose import takes a millisecond


class on_demand:  # noqa: N801  lower case like suppress, as it is used in a with statement
    """A context that defers the imports in its block, and lists their names in ``__all__``.

    Parameters
    ----------
    namespace : dict
        The ``globals()`` of the module, whose block contains only ``from module import name as
        name``.
    """

    lock = RLock()  # the with block replaces ``builtins.__import__``, which all threads share

    def __init__(self, namespace: dict[str, object]) -> None:
        self.namespace = namespace
        self.origins: dict[str, str] = {}  # maps each name to its module

    def __enter__(self) -> None:
        self.lock.acquire()
        self.import_ = builtins.__import__
        builtins.__import__ = self.note  # type: ignore[assignment]

    def note(self, name: str, *given: object, **named: object) -> object:
        """Record an import instead of running it; this replaces ``__import__`` in the block."""
        # An import by other code, such as another thread, runs as usual.
        if not given or given[0] is not self.namespace:
            return self.import_(name, *given, **named)  # type: ignore[arg-type]
        fromlist: tuple[str, ...] = given[2]  # type: ignore[assignment]
        nothing_yet = dict.fromkeys(fromlist)
        self.origins |= dict.fromkeys(fromlist, name)
        return type(name, (), nothing_yet)

    def __exit__(self, *error: object) -> None:
        builtins.__import__ = self.import_
        self.lock.release()
        for name in self.origins:
            self.namespace.pop(name, None)
        self.namespace |= {
            "__all__": sorted(self.origins),
            "__dir__": self.names,
            "__getattr__": self.load,
        }

    def names(self) -> list[str]:
        """List the names of the module; this method becomes its ``__dir__``."""
        return sorted({*self.namespace, *self.origins})

    def load(self, name: str) -> object:
        """Import a name of the module; this method becomes its ``__getattr__``."""
        from importlib import import_module

        package = self.namespace["__name__"]
        if name not in self.origins:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        origin = self.origins[name]
        if origin == package:  # a submodule of the package
            return import_module(f"{package}.{name}")
        value = self.namespace[name] = getattr(import_module(origin), name)
        return value


TYPE_CHECKING = False  # type checkers know this name, and typing need not be imported
if TYPE_CHECKING:
    from types import ModuleType as Module
else:
    Module = type(builtins)


class Deferred(Module):
    """A module that is imported when one of its names is first used.

    Examples
    --------
    >>> Deferred("math").sqrt(4)
    2.0
    """

    def __getattr__(self, name: str) -> object:
        from importlib import import_module

        value = getattr(import_module(self.__name__), name)
        setattr(self, name, value)  # later uses find the value without this method
        return value


if TYPE_CHECKING:
    import numpy as numpy  # in this form, type checkers let other modules import the name
else:
    numpy = Deferred("numpy")
