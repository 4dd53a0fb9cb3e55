"""A word that a lesson introduces, in bold, is in the glossary."""

import re
from pathlib import Path

import pytest

from lora_np.course.notebooks import lessons

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "reference" / "glossary.md").read_text(encoding="utf-8").split(":::{glossary}")[1]
TERMS = re.findall(r"^(\S.*)\n  ", TEXT, flags=re.MULTILINE)
SAME = {"amplification": "amplification factor", "output directions": "input directions", "svd": "singular value decomposition"}  # fmt: skip
# Bold for the sake of emphasis, and headings of a list.
EMPHASIS = {
    "a", "and", "b", "back", "backward", "both random", "both zero", "by energy", "by error",
    "count again", "ellipse", "every", "first", "forward", "half", "less", "no", "not", "one zero",
    "other", "random", "read backwards", "stored", "the first step", "why even bother",
}  # fmt: skip


def introduced(path):
    """What is bold and no sentence: at most three words."""
    text = path.read_text(encoding="utf-8")
    bold = {" ".join(found.split()) for found in re.findall(r"\*\*([^*$`{}\\]+?)\*\*", text)}
    return {words.lower().rstrip(".,:?") for words in bold if len(words.split()) <= 3 and words[0].isalpha()}


def known(words):
    terms = {term.lower() for term in TERMS}
    named = SAME.get(words, words)
    return named in terms or named.removesuffix("s") in terms or f"{named}s" in terms


@pytest.mark.parametrize("path", lessons(), ids=lambda path: path.stem)
def test_words_that_lessons_introduce_are_explained(path):
    assert {words for words in introduced(path) - EMPHASIS if not known(words)} == set()


def test_terms_are_in_order_and_each_once():
    assert [term.lower() for term in TERMS] == sorted({term.lower() for term in TERMS})
    assert len(TERMS) > 60
