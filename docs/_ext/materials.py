"""Files of the site that are not in Git, made before Sphinx reads: lessons, wheels, MathJax, data.

PYODIDE_DIST=DIR makes a site that serves the Pyodide runtime in DIR and needs no network; without
it pages fetch Pyodide from its public address. In both cases they run only files whose hashes are
those of docs/browser/pyodide.sha256, or follow from them.
"""

import base64
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import claim_pages
import exercise_pages
import gallery
import inventories
import lesson_cells
import nbformat
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.errors import ConfigError

from claims import records
from notebooks import about, drill, puzzles

DOCS = Path(__file__).parent.parent
ROOT = DOCS.parent
MADE = DOCS / "_build" / "made"
PYTHON = MADE / "static" / "python"  # the wheels and the runtime that pages load

# For the inspector and the model that speaks.
EXAMPLE = ROOT / "lora_np" / "hub" / "data" / "austen" / "king-james"

MATHJAX = "mathjax@3.2.2"
MATHJAX_FONTS = "output/chtml/fonts/woff-v2"
# of Pyodide's own files; its lock has the hashes of packages
HASHES = DOCS / "browser" / "pyodide.sha256"
# what a page runs as a script, in this order, and then its own
SCRIPTS = ("pyodide.asm.js", "pyodide.js")
# where Pyodide is without PYODIDE_DIST
CDN = "https://cdn.jsdelivr.net/pyodide/v0.27.7/full/"
PYTHON_IN_BROWSER = "3.12"
IN_PYODIDE = ("numpy", "matplotlib")  # compiled, so they come with the runtime
WABT = "wabt@1.0.39"  # assembles product.wat
PRACTICE = "../practice/{}.md"  # where a page of exercises is for a lesson
NOT_IN_BROWSER = ("lora_np/notebooks/", "lora_np/grading/", "lora_np/cli/", "lora_np/__main__.py")
NEEDED_BY_THEM = ("click",)
# what pages fetch when it is opened, from this size on, and where they find it
DATA, LARGE, PLACE = ("lora_np/hub/data/", "lora_np/datasets/"), 20_000, MADE / "static" / "data"


def make(app: Sphinx, config: Config) -> None:
    lessons()
    explorables()
    exercise_pages.write(DOCS / "practice")
    nbformat.write(puzzles.notebook(), MADE / "static" / "notebooks" / "lora-puzzles.ipynb")
    nbformat.write(drill.notebook(), MADE / "static" / "notebooks" / "lora-drill.ipynb")
    claim_pages.write(DOCS / "claims")
    gallery.write_covers(DOCS / "lessons" / "covers")
    inventories.write(MADE / "inventories")
    once("mathjax-node", mathjax)
    once("wabt", wabt)
    once("wheels", wheels)
    python()


def once(name: str, function: Callable[[], None]) -> None:
    """Downloads are kept between builds: delete docs/_build to fetch them again."""
    stamp = MADE / f"{name}.done"
    if not stamp.exists():
        function()
        stamp.touch()


def lessons() -> None:
    """The executed notebooks, as pages and to take home, written only where they have changed."""
    home = {
        source.name: source.read_text("utf-8") for source in (ROOT / "notebooks").glob("*.ipynb")
    }
    pages = {
        name: as_page(about.linked(text, PRACTICE), name.removesuffix(".ipynb"))
        for name, text in home.items()
    }
    for target, texts in ((DOCS / "lessons", pages), (MADE / "static" / "notebooks", home)):
        target.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            copy = target / name
            if not copy.exists() or copy.read_text("utf-8") != text:
                copy.write_text(text, "utf-8")
        for copy in target.glob("*.ipynb"):
            if copy.name not in texts:
                copy.unlink()


def as_page(text: str, stem: str) -> str:
    notebook = nbformat.reads(text, as_version=4)
    return f"{nbformat.writes(lesson_cells.with_exercises(notebook, stem))}\n"


def explorables() -> None:
    """The scripts and styles of the explorables, and their data, computed by the package itself."""
    sys.path.insert(0, str(DOCS / "explorer"))
    import card
    import export
    import fit_data
    import fit_parts
    import front_data
    import speaker_data
    import stills
    import training_data

    target = MADE / "static"
    target.mkdir(parents=True, exist_ok=True)
    (target / "explorer-data.js").write_text(export.script(), encoding="utf-8")
    (target / "front-data.js").write_text(front_data.script(), encoding="utf-8")
    (target / "training-data.js").write_text(training_data.script(), encoding="utf-8")
    (target / "fit-data.js").write_text(fit_data.script(), encoding="utf-8")
    (target / "fit-parts.json").write_text(fit_parts.script(), encoding="utf-8")
    (target / "speaker-data.js").write_text(speaker_data.script(), encoding="utf-8")
    stills.write(target)
    card.write(target, records())
    (target / "austen").mkdir(exist_ok=True)
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        shutil.copyfile(EXAMPLE.parent / name, target / "austen" / name)
    for name, style in speaker_data.STYLES.items():
        shutil.copytree(EXAMPLE.parent / name, target / style.folder, dirs_exist_ok=True)
        speaker_data.write_ordered(name, target / style.folder / "ordered.safetensors")
    for pattern in ("*.js", "*.css"):
        for part in (DOCS / "explorer").glob(pattern):
            shutil.copyfile(part, target / part.name)


def mathjax() -> None:
    """MathJax, which typesets formulas in the build (see formulas.py), and its fonts, which readers
    load.
    """
    with from_npm(MATHJAX) as package:
        whole = package / "es5"
        shutil.copytree(
            whole / MATHJAX_FONTS, MADE / "static" / "mathjax" / MATHJAX_FONTS, dirs_exist_ok=True
        )
        shutil.rmtree(MADE / "mathjax-node", ignore_errors=True)
        shutil.move(whole, MADE / "mathjax-node")


def wabt() -> None:
    with from_npm(WABT) as package:
        shutil.copyfile(package / "index.js", MADE / "wabt.js")


@contextmanager
def from_npm(name: str) -> Iterator[Path]:
    """A temporary folder for an npm package."""
    npm = shutil.which("npm")
    if npm is None:
        raise ConfigError(f"npm is needed to fetch {name} for the site; install Node.js")
    with tempfile.TemporaryDirectory() as folder:
        run(npm, "pack", "--silent", name, "--pack-destination", folder)
        (archive,) = Path(folder).glob("*.tgz")
        with tarfile.open(archive) as package:
            package.extractall(folder, filter="data")
        yield Path(folder) / "package"


def wheels() -> None:
    """The pure Python wheels that the package depends on."""
    target = PYTHON
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    elsewhere = (*IN_PYODIDE, *NEEDED_BY_THEM)
    needed = [need for need in project["dependencies"] if not need.startswith(elsewhere)]
    pure = [
        "--only-binary",
        ":all:",
        "--platform",
        "any",
        "--abi",
        "none",
        "--implementation",
        "py",
    ]
    pip("download", "-d", target, *pure, "--python-version", PYTHON_IN_BROWSER, *needed)


def python() -> None:
    """What pages run: our wheel, always fresh, the wheels it needs, the runtime if there is one."""
    PYTHON.mkdir(parents=True, exist_ok=True)
    for old in PYTHON.glob("lora_np-*.whl"):
        old.unlink()
    needed = sorted(PYTHON.glob("*.whl"))
    pip("wheel", "--no-deps", "-w", PYTHON, ROOT)
    (wheel,) = PYTHON.glob("lora_np-*.whl")
    for_the_browser(wheel)
    shutil.rmtree(PYTHON / "pyodide", ignore_errors=True)
    data, drawing = without_data(wheel), exercise_pages.DRAWING
    hashes = {f"{place()}{name}": found for name, found in published().items()}
    if (given := runtime()) is not None:
        once("slimmed", slimmed)
        drawing = copy_runtime(given, PYTHON / "pyodide")
        shutil.copytree(MADE / "slimmed" / "data", PLACE, dirs_exist_ok=True)
        data += sorted(
            path.relative_to(PLACE).as_posix() for path in PLACE.glob("matplotlib/**/*.*")
        )
        hashes = {f"{place()}{name}": integrity(PYTHON / "pyodide" / name) for name in published()}
    hashes |= {f"_static/python/{one.name}": integrity(one) for one in [wheel, *needed]}
    scripts = [f"{place()}{name}" for name in SCRIPTS]
    script = exercise_pages.script([wheel, *needed], data, place(), scripts, hashes, drawing)
    (MADE / "static" / "python-data.js").write_text(script, encoding="utf-8")


def for_the_browser(wheel: Path) -> None:
    """Remove from the wheel what no notebook in the browser uses, and add what only they use."""
    parts = {}
    with zipfile.ZipFile(wheel) as whole:
        for name in whole.namelist():
            if not name.startswith(NOT_IN_BROWSER):
                parts[name] = whole.read(name)
    (record,) = (name for name in parts if name.endswith(".dist-info/RECORD"))
    (metadata,) = (name for name in parts if name.endswith(".dist-info/METADATA"))
    parts[metadata] = without(
        parts[metadata], *(f"Requires-Dist: {name}" for name in NEEDED_BY_THEM)
    )
    parts["lora_np_browser/__init__.py"] = (DOCS / "browser" / "lora_np_browser.py").read_bytes()
    for name in ("page.py", "scenes.py", "given.py", "quick.py", "terms.py"):
        parts[f"lora_np_browser/{name}"] = (DOCS / "browser" / name).read_bytes()
    parts["lora_np_browser/product.wasm"] = assembled(DOCS / "browser" / "product.wat")
    parts[record] = "".join(f"{name},,\n" for name in parts).encode()
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as trimmed:
        for name, content in parts.items():
            trimmed.writestr(name, content)


def without_data(wheel: Path) -> list[str]:
    """Take large data out of the wheel, to be fetched when they are opened; their paths."""
    shutil.rmtree(PLACE, ignore_errors=True)
    with zipfile.ZipFile(wheel) as whole:
        parts = {part.filename: whole.read(part) for part in whole.infolist()}
    large = {
        name for name, content in parts.items() if len(content) >= LARGE and name.startswith(DATA)
    }
    for name in large:
        (PLACE / name).parent.mkdir(parents=True, exist_ok=True)
        (PLACE / name).write_bytes(parts[name])
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as rest:
        for name, content in parts.items():
            if name not in large:
                rest.writestr(name, content)
    return sorted(large)


def without(text: bytes, *starts: str) -> bytes:
    lines = text.decode().splitlines(keepends=True)
    return "".join(line for line in lines if not line.startswith(starts)).encode()


def assembled(source: Path) -> bytes:
    """A module that ctypes can load in Pyodide: it begins with a section for the dynamic linker."""
    script = """
        require(process.argv[1])().then((wabt) => {
          const text = require("fs").readFileSync(process.argv[2], "utf8");
          const module = wabt.parseWat(process.argv[2], text, { simd: true });
          module.resolveNames();
          module.validate();
          console.log(Buffer.from(module.toBinary({}).buffer).toString("hex"));
        });"""
    binary = bytes.fromhex(run("node", "-e", script, str(MADE / "wabt.js"), str(source)))
    content = b"\x08dylink.0" + bytes([1, 4, 0, 0, 0, 0])  # it has neither data nor a table
    return binary[:8] + bytes([0, len(content)]) + content + binary[8:]


def slimmed() -> None:
    """The runtime's wheels again, with bytecode and without what figures rarely need, so that
    Python starts sooner.
    """
    target = MADE / "slimmed"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    run("node", str(DOCS / "browser" / "slim.mjs"), str(runtime()), str(target), *IN_PYODIDE)


def copy_runtime(source: Path, target: Path) -> int:
    """Its files, and a lock that lists only what is there; how many bytes matplotlib takes."""
    target.mkdir(parents=True)
    for folder in (source, MADE / "slimmed"):
        for part in folder.iterdir():
            if part.is_file():
                shutil.copyfile(part, target / part.name)
    lock = json.loads((target / "pyodide-lock.json").read_text(encoding="utf-8"))
    lock["packages"] = {
        name: package
        for name, package in lock["packages"].items()
        if (target / package["file_name"]).is_file()
    }
    (target / "pyodide-lock.json").write_text(json.dumps(lock), encoding="utf-8")
    drawing = {"matplotlib", *lock["packages"]["matplotlib"]["depends"]} - {"numpy"}
    files = [target / lock["packages"][name]["file_name"] for name in drawing]
    return sum(file.stat().st_size for file in files)


def published() -> dict[str, str]:
    """Pyodide's own files and their hashes, as a browser writes them."""
    lines = HASHES.read_text(encoding="utf-8").splitlines()
    pairs = (line.split() for line in lines)
    return {name: f"sha256-{base64.b64encode(bytes.fromhex(h)).decode()}" for h, name in pairs}


def integrity(file: Path) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(file.read_bytes()).digest()).decode()}"


def place() -> str:
    """Where pages find the runtime: in the site, or at its public address."""
    return "_static/python/pyodide/" if runtime() else CDN


def runtime() -> Path | None:
    given = os.environ.get("PYODIDE_DIST")
    if not given:
        return None
    folder = Path(given).resolve()
    if not (folder / "pyodide.js").is_file():
        raise ConfigError(f"PYODIDE_DIST must be a folder with pyodide.js, got {given!r}")
    for name, expected in published().items():
        if integrity(folder / name) != expected:
            raise ConfigError(f"{folder / name} is not that of Pyodide: see {HASHES.name}")
    return folder


def pip(*arguments: object) -> None:
    run(sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *map(str, arguments))


def run(*command: str) -> str:
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        raise ConfigError(f"{' '.join(command)} failed:\n{result.stderr or result.stdout}")
    return result.stdout


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("config-inited", make)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
