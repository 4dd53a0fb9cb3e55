"""``python -m benchmarks NAME [OPTIONS]`` runs one benchmark; without a name it lists them."""

from __future__ import annotations

import sys
from importlib import import_module
from pkgutil import iter_modules

import benchmarks


def main(arguments: list[str]) -> int:
    helpers = ("__main__", "_language", "_measure", "limit")
    modules = [m.name for m in iter_modules(benchmarks.__path__) if m.name not in helpers]
    # "import" needs the "_"
    names = {module.removesuffix("_"): module for module in sorted(modules)}
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


def first_line(module: str) -> str:
    """Of the module's docstring, read without running the module's imports of peers."""
    import ast
    from pathlib import Path

    source = (Path(benchmarks.__path__[0]) / f"{module}.py").read_text(encoding="utf-8")
    return (ast.get_docstring(ast.parse(source)) or "").partition("\n")[0]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
