"""The site with all its versions in one folder. Each is built once, from its own sources, and then
kept.

python docs/_ext/versions.py build VERSION FOLDER
    this checkout's site as FOLDER/VERSION; main is "latest"
python docs/_ext/versions.py collect FOLDER ARCHIVES
    unpack ARCHIVES/site-VERSION.tar.gz; list and forward
python docs/_ext/versions.py notes VERSION
    what CHANGELOG.md says of a version
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
FORWARD = """\
<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; base-uri 'none'">
<title>lora_np: LoRA in plain NumPy</title>
<meta name="description" content="LoRA in plain NumPy: learn it, count it, use adapter files.">
<meta property="og:title" content="Freeze the big matrix. Train two thin ones.">
<meta property="og:image" content="{1}{0}/_static/card.png">
<meta name="twitter:card" content="summary_large_image">
<link rel="canonical" href="{1}{0}/">
<meta http-equiv="refresh" content="0; url={0}/">
<a href="{0}/">lora_np {0}</a>
</html>
"""


def build(version: str, folder: Path) -> None:
    """The site of this checkout, by the packages that are installed."""
    sphinx = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going"]
    settings = os.environ | {"SITE_VERSION": version}
    subprocess.run([*sphinx, str(ROOT / "docs"), str(folder / version)], check=True, env=settings)
    # myst-nb keeps the notebooks that it ran beside the site, where they would pass for a version
    shutil.rmtree(folder / "jupyter_execute", ignore_errors=True)


def collect(folder: Path, archives: Path) -> None:
    """Unpack what releases keep; write ``versions.json``, which all pages read, and a page that
    forwards.
    """
    for archive in archives.glob("site-*.tar.gz"):
        with tarfile.open(archive) as packed:
            packed.extractall(folder, filter="data")
    found = sorted(
        (entry.name for entry in folder.iterdir() if entry.is_dir()), key=newness, reverse=True
    )
    (folder / "versions.json").write_text(json.dumps(found), encoding="utf-8")
    newest = next((name for name in found if name != "latest"), "latest")
    (folder / "index.html").write_text(FORWARD.format(newest, address()), encoding="utf-8")


def address() -> str:
    """The address of the site; empty until it is published."""
    file = Path(os.environ.get("PUBLICATION") or ROOT / "pyproject.toml")
    return str(tomllib.loads(file.read_text(encoding="utf-8"))["tool"]["publication"]["site"])


def newness(version: str) -> tuple[bool, list[tuple[bool, int, str]]]:
    """By number, so that 0.10 is after 0.9; main's is the newest of all, and 1.0rc1 before 1.0."""
    parts = re.findall(r"\d+|[a-z]+", version)
    ordered = [(part.isdigit(), int(part) if part.isdigit() else 0, part) for part in parts]
    return version == "latest", [*ordered, (True, -1, "")]


def notes(version: str, changelog: str) -> str:
    """The section of a version in the changelog, without its heading."""
    found = re.search(rf"(?ms)^## {re.escape(version)}(?![\w.])[^\n]*\n(.*?)(?=^## |\Z)", changelog)
    if not found:
        raise SystemExit(f"CHANGELOG.md has no section ## {version}")
    return found[1].strip() + "\n"


def main(arguments: list[str]) -> None:
    match arguments:
        case ["build", version, folder]:
            build(version, Path(folder))
        case ["collect", folder, archives]:
            collect(Path(folder), Path(archives))
        case ["notes", version]:
            print(notes(version, (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")), end="")
        case _:
            raise SystemExit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
