"""The diagram of the packages, drawn from what the code imports: python docs/_ext/diagram.py

An arrow leads from a package to one that it imports; arrows that follow from others are left out. A
test compares the picture with the code, and the code with the layers.
"""

import ast
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "lora_np"
PICTURE = ROOT / "docs" / "images" / "architecture.svg"
TOKENS = json.loads((PACKAGE / "plots" / "tokens.json").read_text(encoding="utf-8"))["light"]

# From the bottom up; a package imports only from lower layers.
LAYERS = (
    ("checks", "files", "lazy", "mini", "mini_llama", "settings", "table", "version", "work"),
    ("autograd", "linalg", "datasets", "plots"),
    ("quantise",),
    ("hub",),
    ("models",),
    ("nn",),
    ("lora",),
    ("accounting", "training"),
    ("language", "adapters"),
    ("exercises",),
    ("grading",),
    ("course",),
    ("cli",),
)
# Every package may import the modules of the lowest layer, so no arrow shows it.
FOUNDATION = LAYERS[0]
WIDTH, STEP, BOX = 800, 66, (104, 34)
INK, QUIET, LINE, EDGE, FILL, PAPER = (
    TOKENS[name] for name in ("ink", "ink-2", "line-strong", "base", "base-wash", "paper")
)
TITLE = "The packages of lora_np in layers; arrows lead to what a package imports, always downwards"
# The middle of each box, in hundredths of the width.
PLACES = {
    "cli": 70, "course": 52, "grading": 84, "exercises": 9, "language": 22, "adapters": 54,
    "training": 39,
    "accounting": 75, "lora": 39, "nn": 39, "models": 60, "hub": 52, "quantise": 52,
    "autograd": 14, "linalg": 42, "datasets": 68, "plots": 90,
}  # fmt: skip


def layer_of(name: str) -> int:
    return next(number for number, names in enumerate(LAYERS) if name in names)


def package_of(path: Path) -> str:
    """The package that a file belongs to, or the module that it is, directly under ``lora_np``."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def sources() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def nodes_of(path: Path) -> list[ast.AST]:
    return [*ast.walk(ast.parse(path.read_text(encoding="utf-8")))]


IMPORTERS = ("import_module", "__import__", "find_spec", "run_module", "reload")


def import_statements(path: Path) -> Iterator[tuple[str, str | None]]:
    """List what a file imports from ``lora_np``: pairs of a module and a name (or None).

    Statements anywhere in the file, strings given to functions that import, and paths into another
    package, made from ``__file__`` or by ``importlib.resources.files``.
    """
    yield from ((module, None) for module in modules_in_strings(path))
    yield from ((package, None) for package in packages_in_paths(path))
    for node in nodes_of(path):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "lora_np":
                    yield alias.name, None
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "lora_np":
            for alias in node.names:
                yield str(node.module), alias.name


def words_of(node: ast.expr) -> str:
    """The text of a string, or of an f-string up to what is filled in."""
    if isinstance(node, ast.JoinedStr) and node.values:
        return words_of(node.values[0]).rpartition(".")[0]
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def name_of(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else getattr(node, "attr", "")


def modules_in_strings(path: Path) -> Iterator[str]:
    for node in nodes_of(path):
        if isinstance(node, ast.Call) and name_of(node.func) in IMPORTERS:
            for argument in (*node.args, *(keyword.value for keyword in node.keywords)):
                module = words_of(argument)  # "lora_np.own." and a name: which file is not known
                if module.startswith("lora_np") and module != f"lora_np.{package_of(path)}":
                    yield module


def packages_in_paths(path: Path) -> Iterator[str]:
    """The other packages into which a path of this file leads."""
    places: dict[str, Path] = {"__file__": path}

    def leads_to(node: ast.expr) -> Path | None:
        match node:
            case ast.Name(name):
                return places.get(name)
            case ast.Attribute(inner, "parent"):
                return place.parent if (place := leads_to(inner)) else None
            case ast.Subscript(ast.Attribute(inner, "parents"), ast.Constant(int(up))):
                return place.parents[up] if (place := leads_to(inner)) else None
            case ast.BinOp(left, ast.Div(), right):
                return place / words_of(right) if (place := leads_to(left)) else None
            case ast.Call(ast.Name("Path"), [inner, *parts]):
                place = leads_to(inner)
                return place.joinpath(*map(words_of, parts)) if place else None
            case ast.Call(ast.Name("files") | ast.Attribute(_, "files"), [package]):
                return PACKAGE.parent.joinpath(*words_of(package).split("."))
            case ast.Call(ast.Attribute(inner, method), parts) if place := leads_to(inner):
                beside = {"joinpath": place, "with_name": place.parent}.get(method)
                return beside.joinpath(*map(words_of, parts)) if beside else place
        return None

    for node in nodes_of(path):
        match node:
            case ast.Assign([ast.Name(name)], value) if place := leads_to(value):
                places[name] = place
    for node in nodes_of(path):
        place = leads_to(node) if isinstance(node, ast.expr) else None
        inside = place and place.is_relative_to(PACKAGE) and place != PACKAGE
        if place and inside and package_of(place) != package_of(path):
            yield f"lora_np.{package_of(place)}"


@cache
def file_graph() -> dict[str, set[str]]:
    """For each module, the modules that it imports: at the top, in functions and for type checkers
    alike.
    """
    modules = {module_name(path): path for path in sources()}
    graph: dict[str, set[str]] = {}
    for module, path in modules.items():
        found = {
            inner if (inner := f"{outer}.{name}") in modules else outer
            for outer, name in import_statements(path)
        }
        graph[module] = found - {module}
    return graph


def package_graph() -> dict[str, set[str]]:
    """For each package (and each module of the lowest layer), what it imports; the front door is
    left out.
    """
    graph: dict[str, set[str]] = {}
    for module, imported in file_graph().items():
        if module not in ("lora_np", "lora_np.__main__"):
            package = module.split(".")[1]
            others = {other.split(".")[1] for other in imported if "." in other}
            graph.setdefault(package, set()).update(others - {package})
    return graph


def reachable(graph: dict[str, set[str]], start: str) -> set[str]:
    """Everything that ``start`` leads to, itself only where there is a circle."""
    found: set[str] = set()
    ahead = list(graph.get(start, ()))
    while ahead:
        node = ahead.pop()
        if node not in found:
            found.add(node)
            ahead += graph.get(node, ())
    return found


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """The groups of nodes that lead to one another."""
    below = {node: reachable(graph, node) for node in graph}
    groups = {
        tuple(sorted(other for other in below[node] if node in below.get(other, ())))
        for node in graph
        if node in below[node]
    }
    return sorted(map(list, groups))


def arrows(graph: dict[str, set[str]]) -> list[tuple[str, str]]:
    """The imports that do not follow from others."""
    below = {node: reachable(graph, node) for node in graph}
    return sorted(
        (package, other)
        for package, others in graph.items()
        for other in others
        if not any(other in below[between] for between in others)
    )


def svg(graph: dict[str, set[str]]) -> str:
    graph = {
        package: others - set(FOUNDATION)
        for package, others in graph.items()
        if package not in FOUNDATION
    }
    height = STEP * len(LAYERS) + 8
    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
            f'font-family="system-ui, sans-serif" font-size="15" fill="{INK}">'
        ),
        f"<title>{TITLE}</title>",
        (
            '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7"'
            ' markerHeight="7" orient="auto"><path d="M0 0.5L7 4L0 7.5z"'
            f' fill="{EDGE}"/></marker></defs>'
        ),
        f'<rect width="{WIDTH}" height="{height}" rx="8" fill="{PAPER}"/>',
    ]
    for number in range(len(LAYERS)):
        y = top(number) + BOX[1] + (STEP - BOX[1]) / 2
        parts.append(
            f'<line x1="16" x2="{WIDTH - 16}" y1="{y:g}" y2="{y:g}" stroke="{LINE}"'
            ' stroke-width="0.5"/>'
        )
        parts.append(f'<text x="16" y="{y - 8:g}" font-size="12" fill="{QUIET}">{number}</text>')
    parts += [arrow(*edge) for edge in arrows(graph)]
    parts += [
        box(package, middle(package), BOX[0])
        for package in sorted(graph, key=layer_of, reverse=True)
    ]
    parts.append(
        box(" \u00b7 ".join(f"{name}.py" for name in FOUNDATION), WIDTH / 2, WIDTH - 100, 0)
    )
    return "\n".join([*parts, "</svg>", ""])


def top(number: int) -> float:
    """The upper edge of the boxes of a layer; layers are numbered upwards and y grows downwards."""
    return STEP * (len(LAYERS) - 1 - number) + (STEP - BOX[1]) / 2


def middle(package: str) -> float:
    return WIDTH * PLACES[package] / 100


def box(label: str, x: float, width: float, layer: int | None = None) -> str:
    y = top(layer_of(label) if layer is None else layer)
    return (
        f'<rect x="{x - width / 2:g}" y="{y:g}" width="{width:g}" height="{BOX[1]}" rx="6"'
        f' fill="{FILL}" stroke="{EDGE}"/><text x="{x:g}" y="{y + 22:g}"'
        f' text-anchor="middle">{label}</text>'
    )


def arrow(package: str, other: str) -> str:
    x1, y1 = middle(package), top(layer_of(package)) + BOX[1]
    x2, y2 = middle(other), top(layer_of(other)) - 1
    bend = (y2 - y1) / 2
    return (
        f'<path d="M{x1:g} {y1:g}C{x1:g} {y1 + bend:g} {x2:g} {y2 - bend:g} {x2:g} {y2:g}"'
        f' fill="none" stroke="{EDGE}" stroke-width="1.3" opacity="0.75" marker-end="url(#tip)"/>'
    )


if __name__ == "__main__":
    PICTURE.write_text(svg(package_graph()), encoding="utf-8")
