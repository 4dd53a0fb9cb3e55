"""The diagram of the rooms, drawn from what the code imports: python docs/diagram.py

A room is a package or a module directly under ``lora_np``. An arrow leads to a room that is imported; arrows
that follow from others are left out. A test holds the picture against the code, and the code against floors.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
PICTURE = ROOT / "docs" / "images" / "architecture.svg"

# From the cellar up; a room imports only from lower floors.
FLOORS = (
    ("safetensors",),
    ("autograd", "linalg", "datasets", "plots"),
    ("nn",),
    ("lora", "accounting"),
    ("training", "adapters"),
    ("tour", "exercises", "widgets", "lessons"),
    ("cli",),
)
# Where the middle of a room stands, in hundredths of the width.
PLACES = {
    "cli": 50,
    "tour": 30, "exercises": 52, "widgets": 74, "lessons": 90,
    "training": 22, "adapters": 44,
    "lora": 22, "accounting": 52,
    "nn": 15,
    "autograd": 15, "linalg": 42, "datasets": 68, "plots": 88,
    "safetensors": 42,
}  # fmt: skip
WIDTH, STOREY, BOX = 800, 86, (108, 36)
INK, QUIET, LINE, EDGE, FILL, PAPER = "#1b1b1b", "#595959", "#b5b5b5", "#0072b2", "#eaf3f9", "#ffffff"
TITLE = "The rooms of lora_np on their floors; arrows lead to what a room imports, always downwards"


def floor_of(room: str) -> int:
    return next(number for number, rooms in enumerate(FLOORS) if room in rooms)


def room_of(path: Path) -> str:
    return path.relative_to(ROOT / "lora_np").parts[0].removesuffix(".py")


def sources() -> Iterator[Path]:
    """The modules that belong to a room: not the front door, and not the checks that all share."""
    for path in sorted((ROOT / "lora_np").rglob("*.py")):
        if not room_of(path).startswith("_"):
            yield path


def imported(path: Path) -> set[str]:
    """The rooms that a module imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    inside = (name.split(".") for name in names if name.startswith("lora_np."))
    return {parts[1] for parts in inside if not parts[1].startswith("_")}


def imports() -> dict[str, set[str]]:
    """For each room, the rooms that it imports."""
    found: dict[str, set[str]] = {}
    for path in sources():
        found.setdefault(room_of(path), set()).update(imported(path) - {room_of(path)})
    return found


def arrows(graph: dict[str, set[str]]) -> list[tuple[str, str]]:
    """The imports that do not follow from others."""

    def below(room: str) -> set[str]:
        return graph[room].union(*(below(other) for other in graph[room]))

    return sorted(
        (room, other)
        for room, others in graph.items()
        for other in others
        if not any(other in below(between) for between in others)
    )


def svg(graph: dict[str, set[str]]) -> str:
    height = STOREY * len(FLOORS) + 8
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'font-family="system-ui, sans-serif" font-size="15" fill="{INK}">',
        f"<title>{TITLE}</title>",
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
        'orient="auto">'
        f'<path d="M0 0.5L7 4L0 7.5z" fill="{EDGE}"/></marker></defs>',
        f'<rect width="{WIDTH}" height="{height}" rx="8" fill="{PAPER}"/>',
    ]
    for number in range(len(FLOORS)):
        y = top(number) + BOX[1] + (STOREY - BOX[1]) / 2
        label = str(number - 1) if number else "cellar"
        parts.append(
            f'<line x1="16" x2="{WIDTH - 16}" y1="{y:g}" y2="{y:g}" stroke="{LINE}" stroke-width="0.5"/>'
        )
        parts.append(f'<text x="16" y="{y - 8:g}" font-size="12" fill="{QUIET}">{label}</text>')
    parts += [arrow(*edge) for edge in arrows(graph)]
    parts += [box(room) for rooms in FLOORS for room in rooms]
    return "\n".join([*parts, "</svg>", ""])


def top(number: int) -> float:
    """The upper edge of the boxes of a floor; floors are numbered upwards and y grows downwards."""
    return STOREY * (len(FLOORS) - 1 - number) + (STOREY - BOX[1]) / 2


def middle(room: str) -> float:
    return WIDTH * PLACES[room] / 100


def box(room: str) -> str:
    x, y = middle(room), top(floor_of(room))
    return (
        f'<rect x="{x - BOX[0] / 2:g}" y="{y:g}" width="{BOX[0]}" height="{BOX[1]}" rx="6" fill="{FILL}" '
        f'stroke="{EDGE}"/><text x="{x:g}" y="{y + 23:g}" text-anchor="middle">{room}</text>'
    )


def arrow(room: str, other: str) -> str:
    x1, y1 = middle(room), top(floor_of(room)) + BOX[1]
    x2, y2 = middle(other), top(floor_of(other)) - 1
    bend = (y2 - y1) / 2
    return (
        f'<path d="M{x1:g} {y1:g}C{x1:g} {y1 + bend:g} {x2:g} {y2 - bend:g} {x2:g} {y2:g}" fill="none" '
        f'stroke="{EDGE}" stroke-width="1.3" opacity="0.75" marker-end="url(#tip)"/>'
    )


if __name__ == "__main__":
    PICTURE.write_text(svg(imports()), encoding="utf-8")
