"""The directive ``papers``: the bibliography, from papers.toml, with the claims that test each."""

import functools
import tomllib
from pathlib import Path
from typing import TypedDict

from claim_pages import page_of
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from lora_np import course

FILE = Path(__file__).parents[1] / "reference" / "papers.toml"
# How claims name the papers that have no number
NAMES = {"hira": "HiRA", "without-regret": "LoRA Without Regret"}


class Paper(TypedDict, total=False):
    """An entry of papers.toml."""

    authors: str
    title: str
    topic: str
    note: str


def papers() -> dict[str, Paper]:
    """Every paper, by its arXiv number or a short name."""
    with FILE.open("rb") as file:
        return tomllib.load(file)


claims = functools.cache(course.claims)


def tried_by(key: str) -> list[str]:
    """The claims that name a paper."""
    name = NAMES.get(key, key)
    return [claim for claim, record in claims().items() if name in record["paper"]]


def entry(key: str, paper: Paper) -> str:
    """One line of Markdown."""
    year = "" if key in NAMES else f", 20{key[:2]}"
    link = "" if key in NAMES else f" [arXiv {key}](https://arxiv.org/abs/{key})."
    note = f" {paper['note']}" if "note" in paper else ""
    known = claims()
    tried = "; ".join(
        f"[{one['title'].rstrip('.')}]({page_of(name, one)}) (*{one['verdicts']}*)"
        for name, one in ((name, known[name]) for name in tried_by(key))
    )
    return f"- {paper['authors']}, *{paper['title']}*{year}.{link}{note}" + (
        f" Tested here: {tried}." if tried else ""
    )


class Papers(SphinxDirective):
    """The papers of a topic, which is the argument."""

    required_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        topic = self.arguments[0]
        found = [entry(key, paper) for key, paper in papers().items() if paper["topic"] == topic]
        if not found:
            raise self.error(f"no paper has the topic {topic!r}")
        return self.parse_text_to_nodes("\n".join(found))


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("papers", Papers)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
