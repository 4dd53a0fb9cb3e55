"""Build the site of `main` (as latest/) and of each tag v* into one folder: python docs/versions.py FOLDER

Each is built from a fresh checkout in a fresh environment, so nothing has to be kept between two runs.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
FORWARD = """\
<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<title>lora_np</title>
<meta http-equiv="refresh" content="0; url={0}/">
<a href="{0}/">lora_np {0}</a>
</html>
"""


def versions() -> dict[str, str]:
    """The folder of each version, and what Git calls it: the latest first, then releases from new to old."""
    tags = output("git", "tag", "--list", "v*", "--sort=-version:refname").split()
    return {"latest": "HEAD"} | {tag.removeprefix("v"): tag for tag in tags}


def build(target: Path) -> None:
    found = versions()
    for name, reference in found.items():
        with tempfile.TemporaryDirectory() as folder:
            checkout, environment = Path(folder) / "checkout", Path(folder) / "environment"
            run("git", "clone", "--quiet", str(ROOT), str(checkout))
            run(
                "git",
                "-C",
                str(checkout),
                "checkout",
                "--quiet",
                output("git", "rev-parse", reference).strip(),
            )
            run(sys.executable, "-m", "venv", str(environment))
            python = str(environment / ("Scripts" if os.name == "nt" else "bin") / "python")
            run(python, "-m", "pip", "install", "--quiet", f"{checkout}[docs]")
            settings = os.environ | {"SITE_VERSIONS": " ".join(found), "SITE_VERSION": name}
            sphinx = [python, "-m", "sphinx", "-q", "-W", "--keep-going"]
            run(*sphinx, str(checkout / "docs"), str(target / name), env=settings)
    newest = next((name for name in found if name != "latest"), "latest")
    (target / "index.html").write_text(FORWARD.format(newest), encoding="utf-8")


def output(*command: str) -> str:
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout


def run(*command: str, env: "os._Environ[str] | dict[str, str] | None" = None) -> None:
    subprocess.run(command, check=True, env=env)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python docs/versions.py FOLDER")
    build(Path(sys.argv[1]))
