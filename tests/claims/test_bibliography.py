"""The bibliography: every paper that a claim tries is in it, and nothing that nobody cites."""

import re
import sys
from pathlib import Path

import pytest

import claims

ROOT = Path(__file__).parents[2]
READ = (
    "claims/**/*.py",
    "docs/**/*.md",
    "notebooks/src/*.py",
    "lora_np/**/*.py",
    "lora_np/**/*.md",
)
NUMBER = re.compile(r"\b\d{4}\.\d{5}\b")


@pytest.fixture
def bibliography(monkeypatch):
    pytest.importorskip("sphinx")
    monkeypatch.setattr(sys, "path", [str(ROOT / "docs" / "_ext"), *sys.path])
    import bibliography

    return bibliography


def test_each_paper_of_a_claim_is_in_it(bibliography):
    known = bibliography.papers()
    for name in claims.names():
        paper = claims.claim(name).paper
        numbers = NUMBER.findall(paper)
        named = [key for key, words in bibliography.NAMES.items() if words in paper]
        assert numbers or named, name
        assert {*numbers, *named} <= {*known}, name
        for key in (*numbers, *named):
            assert name in bibliography.tried_by(key)
            assert f"/claims/{name}.md" in bibliography.entry(key, known[key])


def test_each_paper_in_it_is_cited_and_complete(bibliography):
    own = {ROOT / "docs" / "reference" / "bibliography.md"}
    text = "\n".join(
        path.read_text(encoding="utf-8")
        for pattern in READ for path in ROOT.glob(pattern) if path not in own and "_build" not in path.parts
    )  # fmt: skip
    page = (ROOT / "docs" / "reference" / "bibliography.md").read_text(encoding="utf-8")
    for key, paper in bibliography.papers().items():
        assert bibliography.NAMES.get(key, key) in text, key
        assert paper["authors"]
        assert paper["title"]
        assert f"{{papers}} {paper['topic']}\n" in page
