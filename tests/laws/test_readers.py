"""Files are opened in `lora_np.files` and `lora_np.hub` alone, which refuse pipes and whatever has
no end; every other place has a reason.
"""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

import lora_np

PACKAGE = Path(lora_np.__file__).parent
parsed = cache(ast.parse)
OPENERS = {"open", "read_text", "read_bytes", "load", "loadtxt", "genfromtxt", "fromfile", "memmap"}
WRITTEN = re.compile(rf"\b({'|'.join(OPENERS)})\s*\(")
OURS = {"safetensors", "gguf", "json", "tomllib", "language", "adapters", "lnp", "formats"}

SHIPPED = "a file that the package ships"
SYSTEM = "the system's own file"
REASONS = {
    "adapters/rules.py": {"read_text": SHIPPED},
    "adapters/spectra.py": {"fromfile": "what this run put aside, in a folder that it made"},
    "cli/course.py": {"read_bytes": "the puzzles' file, which has been checked before it is run"},
    "cli/dispatch.py": {"open": SYSTEM, "read_text": SHIPPED},
    "course/guided_tour.py": {
        "read_text": "the report, after is_file, and a template that the package ships",
        "read_bytes": "the figure that this run has drawn",
    },
    "course/notebooks.py": {"read_text": SHIPPED},
    "datasets/images.py": {"open": SHIPPED, "load": SHIPPED},
    "exercises/catalogue.py": {"read_text": SHIPPED},
    "exercises/regions.py": {"read_text": SHIPPED},
    "grading/channel.py": {"read_text": SYSTEM},
    "grading/child.py": {"open": SYSTEM},
    "grading/classroom.py": {
        "open": "the first line of a table of grades, after is_file",
    },
    "grading/confine.py": {
        "read_bytes": "attempts to read what is refused", "read_text": SYSTEM,
        "open": "folders that the sandbox allows",
    },
    "language/adapting.py": {"read_text": SYSTEM},
    "models/families.py": {"read_text": SHIPPED},
    "models/gguf_vocabulary.py": {"read_text": SHIPPED},
    "plots/style.py": {"read_bytes": SHIPPED},
    "mini.py": {
        "read_bytes": "the file that it has written, in a reader of a few lines",
    },
    "mini_llama.py": {
        "read_text": "a folder that its reader names, in a reader of a few lines",
        "read_bytes": "a folder that its reader names, in a reader of a few lines",
    },
}  # fmt: skip


def opened(source):
    """The calls in a module that open a file by themselves."""
    for node in ast.walk(parsed(source)) if WRITTEN.search(source) else ():
        if not isinstance(node, ast.Call):
            continue
        function = node.func
        name = getattr(function, "id", None) or getattr(function, "attr", "")
        owner = function.value if isinstance(function, ast.Attribute) else None
        known = isinstance(owner, ast.Name) and owner.id in OURS
        numpy = isinstance(owner, ast.Name) and owner.id in ("np", "numpy")
        bare = isinstance(function, ast.Name) and name == "open"
        if (
            bare
            or (numpy and name in OPENERS)
            or (owner is not None and not known and name in ("open", "read_text", "read_bytes"))
        ):
            yield name


def modules():
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE).as_posix()
        if name != "files.py" and not name.startswith("hub/"):
            yield name, path.read_text(encoding="utf-8")


def test_files_are_opened_in_one_place():
    found = {name: set(opened(source)) for name, source in modules()}
    assert {name: calls for name, calls in found.items() if calls} == {
        name: set(reasons) for name, reasons in REASONS.items()
    }


@pytest.mark.parametrize(
    "line",
    [
        "np.load(path)", "open(path)", "path.open()", "Path(x).read_text()", "io.open(x)",
        "(folder / name).read_bytes()", "np.fromfile(path)", "numpy.memmap(path)", "os.open(x, 0)",
    ],
)  # fmt: skip
def test_a_reader_elsewhere_would_be_found(line):
    assert list(opened(line))


@pytest.mark.parametrize("line", ["safetensors.open(x)", "open_regular(x)", "json.load(x)"])
def test_our_readers_are_allowed(line):
    assert not list(opened(line))


# Joined to a folder without `inside`: names that the package chooses, that `inside` has let
# through, or that lead to a place to write.
JOINED = {
    "adapters/formats.py": {"path / names[format_of(path)[0]]"},
    "adapters/merging.py": {"source.path / name", "stage / name", "stage / source.home[1]"},
    "course/guided_tour.py": {"folder / name", "folder / f'adapter-r{rank}'"},
    "course/notebooks.py": {"target / lesson.name", "place / folder"},
    "exercises/catalogue.py": {"DATA / f'{name}.md'", "DATA / f\"{project['slug']}.md\""},
    "exercises/handouts.py": {"folder / f'{lesson.stem}.py'", "folder / f'{lesson.stem}.ipynb'"},
    "grading/classroom.py": {"folder / file_name(student)"},
    "language/storing.py": {"folder / name", "target / name", "stage / name"},
    "models/headers.py": {"self.path / name"},
}
FOLDERS = {
    "folder", "path", "parent", "out", "stage", "target", "place", "directory", "root", "DATA",
}  # fmt: skip


def joins(source):
    """The places where a variable that is a name is put below a folder: ``folder / name``."""
    for node in ast.walk(parsed(source)):
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
            left, right = node.left, node.right
            folder = isinstance(left, ast.Name) and left.id in FOLDERS
            folder = folder or (isinstance(left, ast.Attribute) and left.attr in FOLDERS)
            last = getattr(right, "id", None) or getattr(right, "attr", "")
            written_here = isinstance(right, ast.Constant) or last.isupper()
            if folder and not written_here:
                yield ast.unparse(node)


def test_names_from_files_go_through_inside():
    found = {name: set(joins(source)) for name, source in modules()}
    assert {name: calls for name, calls in found.items() if calls} == JOINED
