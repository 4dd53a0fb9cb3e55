"""Two releases, rehearsed on this machine: python .ci/rehearsal.py

A bare repository stands in for GitHub's, folders for its releases and pages, a server on this
machine for the package index. Commands are read from the workflows and from
docs/develop/publishing.md. Left out are the tests, which CI runs, and all pages of the site but
one.
"""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import tomllib
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from html import unescape
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

ROOT = Path(__file__).parents[1]
PUBLISHED = (ROOT / "tests" / "published.toml").read_text(encoding="utf-8")
VERSION = r'__version__ = "(.*)"'
FIRST = re.search(VERSION, (ROOT / "lora_np" / "version.py").read_text(encoding="utf-8"))[1]
SECOND = f"{int(FIRST.split('.')[0]) + 1}.0.0"
DATE = "(2030-01-31)"
QUIET = ("-c", "advice.detachedHead=false")
LEFT_OUT = ("[docs]", "pytest", "docs/_ext/offline.py")  # in the commands of a step
# GitHub's command line: a release is a folder; a workflow that is started is a line in a file.
GH = """\
#!{python}
import os, shutil, sys
from pathlib import Path

here, words = Path({folder!r}), sys.argv[1:]
assert os.environ["GH_TOKEN"]
match words:
    case ["release", "create", tag, "--title", _, "--notes-file", *files]:
        (here / "releases" / tag).mkdir(parents=True)
        for file in files:
            shutil.copy(file, here / "releases" / tag)
    case ["release", "list", *_]:
        print(*sorted(folder.name for folder in (here / "releases").iterdir()), sep="\\n")
    case ["release", "download", tag, "--pattern", pattern, "--dir", target]:
        for file in (here / "releases" / tag).glob(pattern):
            shutil.copy(file, target)
    case ["workflow", "run", name, "--ref", ref]:
        (here / "started").write_text(f"{{name}} {{ref}}")
    case _:
        sys.exit(f"gh {{words}} is not rehearsed")
"""
CONF = """\
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent / "_ext"), str(Path(__file__).parents[1])]
extensions, include_patterns = ["published"], ["index.rst"]
"""
PAGE = """\
lora_np
=======

::

    $ pip install ".[notebooks]"
"""


class GitHub:
    """What workflows find there, in one folder."""

    def __init__(self, folder: Path, index: str) -> None:
        self.folder, self.index, self.runs = folder, index, 0
        self.remote, self.pages = folder / "remote.git", folder / "pages"
        run("git", "init", "--quiet", "--bare", "--initial-branch", "main", self.remote)
        gh = folder / "bin" / "gh"
        gh.parent.mkdir()
        gh.write_text(GH.format(python=sys.executable, folder=str(folder)))
        gh.chmod(0o755)
        self.path = os.pathsep.join(
            [str(gh.parent), str(Path(sys.executable).parent), os.environ["PATH"]]
        )

    def workflow(self, name: str, ref: str) -> None:
        """Its jobs, each in an empty folder, in an order that `needs` allows."""
        self.runs += 1
        place = self.folder / f"run-{self.runs}"
        text = (ROOT / ".github" / "workflows" / name).read_text(encoding="utf-8")
        done = []
        for title, job in YAML(typ="safe").load(text)["jobs"].items():
            needs = job.get("needs", [])
            assert set([needs] if isinstance(needs, str) else needs) <= set(done), title
            done.append(title)
            (place / title).mkdir(parents=True)
            for step in job["steps"]:
                if "uses" in step:
                    self.action(
                        step["uses"].split("@")[0], step.get("with", {}), job, place / title, ref
                    )
                elif any(words in step["run"] for words in LEFT_OUT):
                    print(f"left out: {step['run'].splitlines()[-1]}", flush=True)
                else:
                    print(f"{title}$ {step['run'].strip()}", flush=True)
                    variables = job.get("env", {}) | step.get("env", {})
                    self.command(
                        step["run"],
                        {name: filled(value, place / title) for name, value in variables.items()},
                        place / title,
                        ref,
                    )

    def command(self, text: str, variables: dict[str, str], place: Path, ref: str) -> None:
        assert "${{" not in text, "an expression in a command can inject another"
        run(
            "bash",
            "-eo",
            "pipefail",
            "-c",
            text,
            at=place,
            PATH=self.path,
            GITHUB_REF_NAME=ref,
            **variables,
        )

    def action(
        self, name: str, given: dict[str, Any], job: dict[str, Any], place: Path, ref: str
    ) -> None:
        """What the action of this name does, as far as we ask for it."""
        artifacts = place.parent / "artifacts"
        match name:
            case "actions/checkout":
                run("git", *QUIET, "clone", "--quiet", "--branch", ref, self.remote, place)
            case "actions/setup-python":
                assert given["python-version"] == "3.12"
            case "actions/upload-artifact":
                for file in place.glob(given["path"]):
                    copy(file, artifacts / given["name"])
            case "actions/download-artifact":
                for artifact in (
                    [artifacts / given["name"]] if "name" in given else artifacts.iterdir()
                ):
                    copy(artifact, place / given["path"])
            case "pypa/gh-action-pypi-publish":
                assert (job["permissions"], job["environment"]) == ({"id-token": "write"}, "pypi")
                self.upload(*(place / "dist").iterdir())
            case "actions/upload-pages-artifact":
                shutil.rmtree(self.pages, ignore_errors=True)
                copy(place / given["path"], self.pages)
            case "actions/deploy-pages":
                assert job["permissions"] == {"pages": "write", "id-token": "write"}
            case _:
                raise AssertionError(f"{name} is not rehearsed")

    def upload(self, *files: Path) -> None:
        login = {"TWINE_REPOSITORY_URL": self.index, "TWINE_USERNAME": "-", "TWINE_PASSWORD": "-"}
        run(sys.executable, "-m", "twine", "upload", "--disable-progress-bar", *files, **login)


def filled(value: str, workspace: Path) -> str:
    known = {
        "github.token": "token",
        "github.event.repository.default_branch": "main",
        "github.workspace": str(workspace),
    }
    return re.sub(r"\$\{\{ (.+?) \}\}", lambda found: known[found[1]], value)


def copy(source: Path, target: Path) -> None:
    """A file into a folder, or what a folder has into another."""
    target.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, dirs_exist_ok=True)
    else:
        shutil.copy(source, target)


def run(*command: object, at: Path = ROOT, **variables: str) -> str:
    words = [str(word) for word in command]
    done = subprocess.run(
        words, cwd=at, env=os.environ | variables, text=True, stdout=subprocess.PIPE
    )
    assert done.returncode == 0, f"{words}\n{done.stdout}"
    return done.stdout


@contextmanager
def package_index(folder: Path) -> Iterator[str]:
    """The address of an empty index, which takes what anybody on this machine uploads."""
    folder.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    words = [
        "-p",
        str(port),
        "-i",
        "127.0.0.1",
        "-P",
        ".",
        "-a",
        ".",
        "--disable-fallback",
        str(folder),
    ]
    server = subprocess.Popen(
        [sys.executable, "-m", "pypiserver", "run", *words], stderr=subprocess.DEVNULL
    )
    try:
        for _ in range(100):
            with socket.socket() as test:
                if test.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}/"
    finally:
        server.terminate()
        server.wait()


def project(folder: Path) -> Path:
    """A repository of its own with what this checkout has, addresses filled in, and a site of one
    page.
    """
    names = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")
    for name in names:
        if (ROOT / name).is_file():
            copy(ROOT / name, (folder / name).parent)
    addresses = PUBLISHED.split("[tool.publication]\n")[1]
    edit(folder / "pyproject.toml", r"(?s)(\[tool\.publication\]\n).*?\n\n", rf"\1{addresses}\n")
    (folder / "docs" / "conf.py").write_text(CONF)
    (folder / "docs" / "index.rst").write_text(PAGE)
    (folder / "docs" / "index.md").unlink()
    run("git", "init", "--quiet", "--initial-branch", "main", at=folder)
    return folder


def edit(path: Path, pattern: str, new: str) -> None:
    text, count = re.subn(pattern, new, path.read_text(encoding="utf-8"), count=1)
    assert count == 1, (path, pattern)
    path.write_text(text, encoding="utf-8")


def release(github: GitHub, folder: Path, version: str) -> None:
    """What publishing.md says to do for each version, and what the workflows then do."""
    edit(folder / "lora_np" / "version.py", VERSION, f'__version__ = "{version}"')
    run(sys.executable, "docs/_ext/citation.py", at=folder)
    run("git", "add", "--all", at=folder)
    run("git", "commit", "--quiet", "--message", f"Release {version}", at=folder)
    steps = (ROOT / "docs" / "develop" / "publishing.md").read_text(encoding="utf-8")
    commands = re.findall(r"(?m)^ +(git (?:tag|push) .*)v[\d.]+$", steps)
    assert len(commands) == 2, commands
    for command in commands:
        run(*f"{command}v{version}".split(), at=folder)
    github.workflow("release.yml", f"v{version}")
    github.workflow(*(github.folder / "started").read_text().split())


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def rehearse(folder: Path, index: str) -> None:
    github = GitHub(folder, index)
    ours = project(folder / "project")
    run("git", "remote", "add", "origin", github.remote, at=ours)
    edit(ours / "CHANGELOG.md", rf"(?m)^## {re.escape(FIRST)} .*$", f"## {FIRST} {DATE}")
    release(github, ours, FIRST)

    assert json.loads((github.pages / "versions.json").read_text()) == ["latest", FIRST]
    page = re.sub("<.*?>", "", (github.pages / FIRST / "index.html").read_text(encoding="utf-8"))
    assert 'pip install "lora-np[notebooks]"' in unescape(page), page
    before = contents(github.pages / FIRST)

    fresh = folder / "fresh"
    venv.create(fresh, with_pip=True)
    needs = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"][
        "dependencies"
    ]
    pip = (fresh / "bin" / "pip", "--disable-pip-version-check", "--quiet", "install")
    run(*pip, *needs)
    # All that it needs is there: from this index comes nothing but the package, from another not
    # even that.
    only = {"PIP_CONFIG_FILE": os.devnull, "PIP_EXTRA_INDEX_URL": "", "PIP_FIND_LINKS": ""}
    only["PIP_INDEX_URL"] = f"{index}simple/"
    run(*pip, "lora-np", **only)
    counted = run(fresh / "bin" / "lora-np", "count", "llama-3-8b", at=folder)
    assert counted.startswith("llama-3-8b: 8,030,261,248 parameters"), counted
    assert "pip install lora-np &&" in (ours / "README.md").read_text(encoding="utf-8")
    described = run(fresh / "bin" / "pip", "show", "--verbose", "lora-np")
    assert "Source, https://github.com/someone/lora_np" in described, described

    edit(ours / "CHANGELOG.md", r"(?m)^## ", f"## {SECOND} {DATE}\n\n- The second.\n\n## ")
    release(github, ours, SECOND)

    assert json.loads((github.pages / "versions.json").read_text()) == ["latest", SECOND, FIRST]
    assert f"url={SECOND}/" in (github.pages / "index.html").read_text(encoding="utf-8")
    assert contents(github.pages / FIRST) == before, "an old site must stay as it was built"
    assert (github.folder / "releases" / f"v{SECOND}" / "notes.md").read_text() == "- The second.\n"
    for wish, version in (("lora-np==" + FIRST, FIRST), ("--upgrade lora-np", SECOND)):
        run(*pip, *wish.split(), **only)
        assert version in run(fresh / "bin" / "lora-np", "--version", at=folder)
    print(f"rehearsed: {FIRST} and {SECOND}, installed, and a site with both")


if __name__ == "__main__":
    os.environ |= {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    for who in ("AUTHOR", "COMMITTER"):
        os.environ |= {
            f"GIT_{who}_NAME": "rehearsal",
            f"GIT_{who}_EMAIL": "rehearsal@lora-np.example",
        }
    with tempfile.TemporaryDirectory() as place, package_index(Path(place) / "index") as address:
        rehearse(Path(place), address)
