"""A bold statement of the course is a definition, a theorem or a count, or it carries the name of its claim."""

import re
from pathlib import Path

import pytest

import claims

SOURCES = sorted((Path(__file__).parents[2] / "notebooks" / "src").glob("*.py"))
BOLD = re.compile(r"\*\*(.+?)\*\*(?:<!-- claim: (\S+) -->)?", re.S)
SHORT = 3  # words: a term, not a statement

# Definitions, theorems and counts, and what the lesson itself shows of one example by an assertion.
NOT_EMPIRICAL = {
    "They are linear maps, so a LoRA fits on each.",
    "Where old inputs have nothing in these directions, nothing is forgotten.",
    "1. Less to train.",
    "2. Less to compute.",
    "3. Less to store",
    "inside of a network LoRA saves at most one third of the multiplications",
    "If memory is short at rank 64, rank 8 will seldom help.",
    "The singular values are the half axes.",
    "Keep the first $r$ parts of the SVD, and no matrix of rank $r$ comes closer",
    "Along a path, slopes multiply.",
    "Where paths meet, gradients add.",
    "What $W$ does forwards, $W^T$ does backwards.",
    "Copy forwards, sum backwards.",
    "The SVD is never beaten",
    "the product is what counts, not its factors.",
    "each bit halves it.",
    "A block confines the outlier.",
    "the loss cannot tell the two apart",
    "The LoRA learns around the error of its base.",
    "What differs hardly matters.",
    "A high $\\phi$ says: the same inputs are used. It does not say: the same is done with them.",
    "The rank in the file is 2, and 1 is needed",
    "A cut update can be worse than none at all.",
    "every matrix has as many independent rows as independent columns.",
    "The rank is the number of directions that the outputs need.",
    "Every column of $BA$ is a mixture of the columns of $B$.",
    "measured data has full rank, unless its columns are tied by how they were made",
    "A direction matters if the error changes when you take it away.",
}


def bold(text):
    """Each bold statement with the claim that it names, or None."""
    prose = "\n".join(line[2:] for line in text.splitlines() if line.startswith("# "))
    found = ((" ".join(words.split()), name) for words, name in BOLD.findall(prose))
    return [(words, name) for words, name in found if len(words.split()) > SHORT and not words.endswith("?")]


def unmarked(text):
    return [words for words, name in bold(text) if not name and words not in NOT_EMPIRICAL]


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)
def test_a_bold_statement_names_its_claim(source):
    text = source.read_text(encoding="utf-8")
    assert unmarked(text) == []
    assert {name for _, name in bold(text) if name} <= {*claims.names()}


def test_a_statement_without_its_claim_is_found():
    text = "# It is so:\n# **Rank one is always\n# enough for text.** And **LoRA** is short.\n"
    assert unmarked(text) == ["Rank one is always enough for text."]
    assert unmarked(text.replace("text.**", "text.**<!-- claim: low-rank-suffices -->")) == []


def test_the_list_of_exceptions_has_nothing_that_no_lesson_says():
    said = {words for source in SOURCES for words, _ in bold(source.read_text(encoding="utf-8"))}
    assert said >= NOT_EMPIRICAL
