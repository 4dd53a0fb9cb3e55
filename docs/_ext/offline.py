"""The site as a zip that opens by a double click, without a server or a network: python
docs/_ext/offline.py VERSION FOLDER

Builds the site of this checkout in FOLDER/VERSION with a Pyodide of its own (that of PYODIDE_DIST,
or its public files, whose hashes are checked) unless that is there, and writes
FOLDER/lora_np-offline.zip. What pages fetch is packed into scripts, since a browser loads
nothing else from files: see docs/browser/offline.js.
"""

import base64
import hashlib
import json
import os
import re
import subprocess
import sys
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parents[1]
CDN = "https://cdn.jsdelivr.net/pyodide/v0.27.7/full/"
HASHES = DOCS / "browser" / "pyodide.sha256"
DRAWS = ("numpy", "matplotlib")  # packages of Pyodide that pages load
MOST = 45_000_000  # bytes of the zip
# what pages fetch, and of these what Python opens without waiting
FETCHED = re.compile(
    r"_static/(python/|data/|austen/|example-adapter/|fit-parts\.json"
    r"|(python-worker|safetensors|spectra)\.js"
    r"|[\w-]+/.*\.safetensors)"
)
FIRST = "_static/data/"
THREADS = ("_static/svd.js",)  # scripts that are workers as they are
SCRIPTS = ("_static/safetensors.js",)  # which a page has, and which is fetched for a worker
LEFT_OUT = re.compile(
    r"\.doctrees/|_sources/|404\.html|sitemap\.xml|\.buildinfo|objects\.inv|_static/card[^/]*\.png"
)
NEEDED = re.compile(r"pyodide(\.asm)?\.(js|wasm)|pyodide-lock\.json|python_stdlib\.zip")
HEAD = re.compile(r'(?i)<meta charset=[^>]*>\s*<meta http-equiv="Content-Security-Policy"[^>]*>\n?')


def runtime(target: Path) -> Path:
    """A folder with Pyodide and the packages that pages load, fetched once."""
    target.mkdir(parents=True, exist_ok=True)
    hashes = {name: found for found, name in map(str.split, HASHES.read_text().splitlines())}
    for name, found in hashes.items():
        fetch(target / name, found)
    for package in packages(target):
        fetch(target / package["file_name"], package["sha256"])
    return target


def packages(folder: Path) -> list[dict[str, Any]]:
    """What the lock of a runtime says of the packages that pages load, and of what these need."""
    locked = json.loads((folder / "pyodide-lock.json").read_text("utf-8"))["packages"]
    wanted = [*DRAWS]
    for name in wanted:
        wanted += [need for need in locked[name]["depends"] if need not in wanted]
    return [locked[name] for name in wanted]


def fetch(file: Path, expected: str) -> None:
    if not file.exists():
        with urllib.request.urlopen(CDN + file.name) as answer:
            file.write_bytes(answer.read())
    if hashlib.sha256(file.read_bytes()).hexdigest() != expected:
        file.unlink()
        raise SystemExit(f"{file.name} from {CDN} is not that of Pyodide: see {HASHES.name}")


def pack(site: Path, archive: Path) -> None:
    """Write the zip of a site that was built with a runtime of its own."""
    if not (site / "_static/python/pyodide/pyodide.js").is_file():
        raise SystemExit(f"{site} was built without PYODIDE_DIST: it has no Python to pack")
    fetched = {name: path for name, path in files(site) if FETCHED.match(name)}
    given = {
        "packed": [*fetched],
        "first": [name for name in fetched if name.startswith(FIRST)],
        "threads": {name: (site / name).read_text("utf-8") for name in THREADS},
    }
    answers = (DOCS / "browser" / "offline.js").read_text("utf-8")
    script = f"window.loraOffline = {json.dumps(given)};\n{answers}"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as packed:
        folder = archive.stem
        packed.writestr(f"{folder}/_static/offline.js", script)
        for name, path in files(site):
            if name in fetched:
                text = base64.b64encode(path.read_bytes()).decode("ascii")
                packed.writestr(f"{folder}/{name}.js", f'loraOffline.put("{name}", "{text}");\n')
            if name.endswith(".html"):
                packed.writestr(f"{folder}/{name}", offline(path.read_text("utf-8"), name))
            elif name not in fetched or name in SCRIPTS:
                packed.write(path, f"{folder}/{name}")
    if (size := archive.stat().st_size) > MOST:
        raise SystemExit(f"{archive} must have at most {MOST:,} bytes, got {size:,}")


def files(site: Path) -> Iterator[tuple[str, Path]]:
    """The site's files that go into the zip, by their paths in it."""
    needed = needed_of(site / "_static/python/pyodide")
    for path in sorted(site.rglob("*")):
        name = path.relative_to(site).as_posix()
        unused = path.parent.name == "pyodide" and path.name not in needed
        if path.is_file() and not unused and not LEFT_OUT.match(name):
            yield name, path


def needed_of(folder: Path) -> set[str]:
    """Pyodide's own files and those of the packages that pages load."""
    own = {path.name for path in folder.iterdir() if NEEDED.fullmatch(path.name)}
    return own | {package["file_name"] for package in packages(folder)}


def offline(page: str, name: str) -> str:
    """A page that begins with the script which answers what it fetches."""
    script = f'<script src="{"../" * name.count("/")}_static/offline.js"></script>\n'
    return HEAD.sub(lambda found: f"{found[0].rstrip()}\n{script}", page, count=1)


def main(version: str, folder: Path) -> None:
    if not (folder / version / "index.html").is_file():
        given = os.environ.get("PYODIDE_DIST") or runtime(DOCS / "_build" / "pyodide")
        command = [
            sys.executable,
            str(Path(__file__).with_name("versions.py")),
            "build",
            version,
            str(folder),
        ]
        subprocess.run(command, check=True, env=os.environ | {"PYODIDE_DIST": str(given)})
    pack(folder / version, folder / "lora_np-offline.zip")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    main(sys.argv[1], Path(sys.argv[2]))
