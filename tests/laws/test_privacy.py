"""An underscore means private to the file; between packages only what ``__all__`` names is
imported.
"""

import ast
import importlib
from pathlib import Path

from benchmarks.size import nodes_of
from tests.drawing import every

PACKAGE = Path(__file__).parents[2] / "lora_np"
FILES = {path.relative_to(PACKAGE).as_posix(): path for path in sorted(PACKAGE.rglob("*.py"))}
# Modules of the lowest layer have no package around them; every package may import their plain
# names.
FOUNDATION = {
    "lora_np.checks",
    "lora_np.files",
    "lora_np.lazy",
    "lora_np.table",
    "lora_np.version",
    "lora_np.settings",
    "lora_np.work",
}
# Public in spite of the underscore: namedtuple, ctypes, os, sys, IPython and pickle call their own
# names so.
OF_OTHERS = {
    "_replace",
    "_asdict",
    "_fields",
    "_make",
    "_field_defaults",
    "_fields_",
    "_exit",
    "_getframe",
    "_repr_html_",
    "_Unpickler",
}


def private(name):
    return name.startswith("_") and not name.startswith("__") and name not in OF_OTHERS


def module_of(file):
    parts = ("lora_np", *Path(file).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def package_of(module):
    return ".".join(module.split(".")[:2])


def is_module(name):
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def imports(nodes):
    """Every import from ``lora_np``: module, name, and what it is called here."""
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "lora_np":
            for alias in node.names:
                yield node.module, alias.name, alias.asname or alias.name
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith("lora_np."):
                    yield alias.name, None, alias.asname or alias.name


def complaints(file, text=None):
    nodes = nodes_of(FILES[file]) if text is None else [*ast.walk(ast.parse(text))]
    module = module_of(file)
    if any(private(part) for part in module.split(".")):
        yield f"{module} has an underscore"
    yield from foreign_imports(module, nodes)
    yield from private_attributes(nodes)


def foreign_imports(module, nodes):
    """Names of another file that are private, or of another package that it does not offer."""
    offered = {}  # what a package is called here, and what may be taken from it
    for source, name, here in imports(nodes):
        if name is not None and private(name):
            yield f"imports {source}.{name}"
        elif module in ("lora_np", "lora_np.__main__") or source in FOUNDATION:
            continue
        elif source == "lora_np":
            if f"lora_np.{name}" not in FOUNDATION and is_module(f"lora_np.{name}"):
                offered[here] = f"lora_np.{name}"
        elif package_of(source) != package_of(module) and (source, name) != (
            package_of(source),
            None,
        ):
            if source != package_of(source):
                yield f"imports {name} from {source} rather than from {package_of(source)}"
            elif name not in public_names(source):
                yield f"imports {name}, which {source}.__all__ does not name"
            elif is_module(f"{source}.{name}"):
                offered[here] = f"{source}.{name}"
    for node in nodes:
        if (
            isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id in offered
        ):
            package = offered[node.value.id]
            if package_of(package) != package_of(module) and node.attr not in public_names(package):
                yield f"uses {node.attr}, which {package}.__all__ does not name"


def private_attributes(nodes):
    """Attributes with an underscore that this file does not define itself."""
    own = set(OF_OTHERS)
    for node in nodes:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            own.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            own.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            own.add(node.attr)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            own.add(node.value)  # object.__setattr__(self, "_name", ...), __slots__
    for node in nodes:
        if isinstance(node, ast.Attribute) and private(node.attr) and node.attr not in own:
            yield f"uses .{node.attr}"


def public_names(module):
    return getattr(importlib.import_module(module), "__all__", ())


@every("file", FILES)
def test_privacy(file):
    found = sorted(set(complaints(file)))
    assert not found, "\n".join(found)


def test_what_is_private_is_found():
    text = """
from lora_np.nn.tree import walk
from lora_np.nn import nonsense, Linear, _private
from lora_np.lora.injection import inject
from lora_np import nn, checks
from lora_np.table import Table
nn.Linear, nn.nonsense, checks.whole_number
x._secret, x._own, x._repr_html_
def _own(): ...
"""
    assert list(complaints("lora/variants.py", text)) == [
        "imports walk from lora_np.nn.tree rather than from lora_np.nn",
        "imports nonsense, which lora_np.nn.__all__ does not name",
        "imports lora_np.nn._private",
        "uses nonsense, which lora_np.nn.__all__ does not name",
        "uses ._secret",
    ]
    assert list(complaints("lora/_hidden.py", "")) == ["lora_np.lora._hidden has an underscore"]
