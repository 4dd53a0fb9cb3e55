"""A bold statement of the course says what it stands on: a claim, a proof, an assertion or a
source.
"""

import re
from pathlib import Path

import pytest

import claims
from notebooks import about

SOURCES = sorted((Path(__file__).parents[2] / "notebooks" / "src").glob("*.py"))


def sections(text):
    """The parts of a lesson between its headings, with prose and code."""
    return re.split(r"^# #+ ", text, flags=re.MULTILINE)


def wrong(text):
    """Statements without a marker, of a kind that is not known, or whose marker does not lead
    anywhere.
    """
    unwrapped = re.sub(
        r"<!--.*?-->", lambda one: one[0].replace("\n# ", " "), text, flags=re.DOTALL
    )
    for words, kind, what in about.statements(unwrapped):
        section = next(
            part for part in sections(unwrapped) if f"<!-- {kind}: {what} -->" in part or not kind
        )
        right = {
            "claim": what in claims.names(),
            "proof": len(what.split()) > 2,
            "shown": len(what.split()) > 2 and ("assert " in section or "in " in what),
            "source": all(
                part in text.partition("## Further reading")[2] for part in what.split(", ")
            ),
        }
        if not right.get(kind):
            yield words


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)
def test_a_bold_statement_says_what_it_stands_on(source):
    assert list(wrong(source.read_text(encoding="utf-8"))) == []


def test_a_statement_that_stands_on_nothing_is_found():
    text = "# ## It is so\n# **Rank one is always\n# enough for text.**{} And **LoRA** is short.\n"
    bold = "Rank one is always enough for text."
    assert list(wrong(text.format(""))) == [bold]
    assert list(wrong(text.format("<!-- hope: it would be good -->"))) == [bold]
    assert list(wrong(text.format("<!-- claim: no-such-claim -->"))) == [bold]
    assert list(wrong(text.format("<!-- claim: low-rank-suffices -->"))) == []
    assert list(wrong(text.format("<!-- shown: losses of both -->"))) == [bold]
    assert (
        list(wrong(text.format("<!-- shown: losses of both -->") + "\n# %%\nassert 1 < 2\n")) == []
    )
    assert list(wrong(text.format("<!-- source: Cover, 1965 -->"))) == [bold]
    read = "\n# ## Further reading\n# - T. Cover, 1965\n"
    assert list(wrong(text.format("<!-- source: Cover, 1965 -->") + read)) == []


def test_every_kind_of_marker_is_used():
    found = {
        one.kind
        for source in SOURCES
        for one in about.statements(source.read_text(encoding="utf-8"))
    }
    assert found == set(about.KINDS)
