"""Metadata of the built package: README and addresses, from `[tool.publication]` in
pyproject.toml.
"""

import os
import re
import tomllib
from pathlib import Path
from typing import Any

try:
    from hatchling.metadata.plugin.interface import MetadataHookInterface
except ImportError:  # the site and the tests read the addresses without hatchling
    MetadataHookInterface = object  # type: ignore[assignment, misc]

ROOT = Path(__file__).parent


def place() -> dict[str, str]:
    """`[tool.publication]`, or what the file that the variable PUBLICATION names has there: to try
    it.
    """
    file = Path(os.environ.get("PUBLICATION") or ROOT / "pyproject.toml")
    found: dict[str, str] = tomllib.loads(file.read_text(encoding="utf-8"))["tool"]["publication"]
    return found


def publication() -> tuple[str, str]:
    """``repository`` (owner/name on GitHub) and ``site`` (an address with its last slash), perhaps
    empty.
    """
    return place()["repository"], place()["site"]


def package() -> str:
    """The name on the package index; empty until it is there."""
    return place()["package"]


def urls(repository: str, site: str) -> dict[str, str]:
    """What the package index shows at the side of the page."""
    source = f"https://github.com/{repository}"
    found = {"Documentation": site} if site else {}
    if repository:
        found |= {
            "Source": source,
            "Issues": f"{source}/issues",
            "Changelog": f"{source}/blob/main/CHANGELOG.md",
        }
    return found


def readable_anywhere(text: str, repository: str) -> str:
    """The README without links into the checkout: they lead to the repository, or are words without
    one.
    """
    relative = r"(!?)\[([^\]]*)\]\((?![a-z]+:|#)([^)]+)\)"

    def absolute(match: re.Match[str]) -> str:
        image, words, path = match.groups()
        if not repository:
            return f"*{words}.*" if image else words
        host = "raw.githubusercontent.com" if image else "github.com"
        kind = "main" if image else "blob/main"
        return f"{image}[{words}](https://{host}/{repository}/{kind}/{path})"

    return re.sub(relative, absolute, text)


def installable(text: str, package: str) -> str:
    """The commands of a text for those who have no copy of the repository, once there is a
    package.
    """
    if not package:
        return text
    text = re.sub(r",\s+from\s+a\s+copy\s+of\s+the\s+repository", "", text)
    here = r"""pip (install|wheel) (["']?)\.(\[[a-z,]+\])?\2(?![\w.])"""
    return re.sub(here, rf"pip \1 \2{package}\3\2", text)


class Metadata(MetadataHookInterface):
    """What hatchling calls; ``dynamic`` in pyproject.toml names the two fields."""

    PLUGIN_NAME = "custom"

    def update(self, metadata: dict[str, Any]) -> None:
        repository, site = publication()
        text = (ROOT / "README.md").read_text(encoding="utf-8")
        metadata["readme"] = {
            "content-type": "text/markdown",
            "text": installable(readable_anywhere(text, repository), package()),
        }
        metadata["urls"] = urls(repository, site)
