"""What a lesson says about itself, read from its notebook as JSON: nobody has to type it again."""

import base64
import re
from typing import Any, NamedTuple

# below the heading of a section that the path does not ask for
MORE = "*More: the path goes on without this section.*"
WORDS, CHARACTERS = 130, 1_250  # of prose and of code, read in a minute
SHORT = 3  # words in bold: a term, not a statement
BOLD = re.compile(r"\*\*(.+?)\*\*(?:<!--\s(\w+):\s(.+?)\s-->)?", re.DOTALL)
PAGE = re.compile(r"(, or \[[^\]]*\]\([^)]*\))?<!-- page: ([\w-]+) -->")
KINDS = {
    "claim": "tried, with data",
    "proof": "proved",
    "shown": "asserted by the code next to it",
    "source": "published",
}


class Statement(NamedTuple):
    """What a lesson says in bold, and what it stands on; the last two are empty if nothing is
    named.
    """

    words: str
    kind: str
    what: str


class Cover(NamedTuple):
    """The figure that stands for a lesson: what kind of image, its bytes, what it shows."""

    kind: str
    content: bytes
    alt: str


def cells(notebook: Any, kind: str) -> list[Any]:
    """Those of the lesson itself, without the one that installs."""
    return [cell for cell in notebook["cells"] if cell["cell_type"] == kind and not installs(cell)]


def installs(cell: Any) -> bool:
    return "install" in cell["metadata"].get("tags", [])


def linked(text: str, address: str) -> str:
    """With links to the pages of exercises that comments name; ``address`` has ``{}`` for the
    name.
    """

    def link(found: re.Match[str]) -> str:
        return f", or [on their page]({address.format(found[2])})<!-- page: {found[2]} -->"

    return PAGE.sub(link, text)


def prose(notebook: Any) -> str:
    return "\n".join("".join(cell["source"]) + "\n" for cell in cells(notebook, "markdown"))


def question(notebook: Any) -> str:
    """The question that it opens with, in Markdown."""
    found = re.search(r"^\*\*([^*]+\?)\*\*$", prose(notebook).split("\n## ")[0], flags=re.MULTILINE)
    if not found:
        raise ValueError("a lesson opens with a question in bold, in a paragraph of its own")
    return " ".join(found[1].split())


def abilities(notebook: Any) -> list[str]:
    """What one can do after it, in Markdown."""
    _, _, after = prose(notebook).partition("After this lesson you can\n\n")
    items = after.split("\n\n")[0].removeprefix("- ").split("\n- ")
    return [" ".join(item.split()).rstrip(",.") for item in items]


def statements(text: str) -> list[Statement]:
    """The bold statements of a lesson's source; the marker of each is a comment right behind it."""
    prose = "\n".join(line[2:] for line in text.splitlines() if line.startswith("# "))
    found = [
        Statement(" ".join(words.split()), kind, " ".join(what.split()))
        for words, kind, what in BOLD.findall(prose)
    ]
    return [one for one in found if len(one.words.split()) > SHORT and not one.words.endswith("?")]


def core(notebook: Any) -> Any:
    """The notebook without the sections that are marked *more*."""
    kept, more = [], False
    for cell in notebook["cells"]:
        text = "".join(cell["source"])
        if cell["cell_type"] == "markdown" and text.startswith("## "):
            more = text.partition("\n")[2].startswith(f"\n{MORE}\n")
        if not more:
            kept.append(cell)
    return {**notebook, "cells": kept}


def minutes(notebook: Any) -> float:
    """How long it takes to read and to run."""
    return reading(notebook) + float(notebook["metadata"]["seconds"]) / 60


def reading(notebook: Any) -> float:
    """How many minutes it takes to read, without what is folded away and markers."""
    read = re.sub(r"<details>.*?</details>|<!--.*?-->", "", prose(notebook), flags=re.DOTALL)
    code = "".join("".join(cell["source"]) for cell in cells(notebook, "code"))
    return len(read.split()) / WORDS + len("".join(code.split())) / CHARACTERS  # not its layout


def cover(notebook: Any) -> Cover:
    """The figure of the one cell with the tag ``cover``."""
    tagged = [
        cell for cell in cells(notebook, "code") if "cover" in cell["metadata"].get("tags", [])
    ]
    if len(tagged) != 1:
        raise ValueError(f'one cell of a lesson must have tags=["cover"], got {len(tagged)}')
    for output in tagged[0]["outputs"]:
        for kind, content in output.get("data", {}).items():
            if kind.startswith("image/"):
                return Cover(kind, base64.b64decode("".join(content)), tagged[0]["metadata"]["alt"])
    raise ValueError('the cell with tags=["cover"] must draw a figure')
