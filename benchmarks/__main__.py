"""``python -m benchmarks NAME [OPTIONS]`` runs one benchmark; without a name it lists them."""

from __future__ import annotations

import ast
import sys
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

import benchmarks


def main(arguments: list[str]) -> int:
    names = benchmark_modules()
    if not arguments or arguments[0] in ("-h", "--help"):
        for name, module in names.items():
            print(f"{name:<14} {first_line(module)}")
        return 0
    name, *rest = arguments
    if name not in names:
        print(f"no benchmark {name!r}: choose one of {', '.join(names)}", file=sys.stderr)
        return 2
    import_module(f"benchmarks.{names[name]}").main(rest)
    return 0


def benchmark_modules() -> dict[str, str]:
    """Return the modules that can be run, by the names of their benchmarks."""
    modules = [m.name for m in iter_modules(benchmarks.__path__) if not m.name.startswith("_")]
    runnable = sorted(module for module in modules if "\ndef main(" in source(module))
    return {module.removesuffix("_"): module for module in runnable}  # "import" needs the "_"


def source(module: str) -> str:
    """Read a module without running its imports of peers."""
    return (Path(benchmarks.__path__[0]) / f"{module}.py").read_text(encoding="utf-8")


def first_line(module: str) -> str:
    """Return the first line of a module's docstring."""
    return (ast.get_docstring(ast.parse(source(module))) or "").partition("\n")[0]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
