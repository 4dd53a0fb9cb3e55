"""Sentences are short: of claims and of the pages of understand and use, few have over 25 words."""

import pytest

from tests.sentences import LONG, long, pages, prose, report, sentences, share

MOST = 0.12


@pytest.mark.parametrize("name", ["claims", "understand", "use"])
def test_few_sentences_are_long(name):
    group = pages()[name]
    assert len(group) >= 10
    assert share(group) <= MOST, report(group)


def test_a_page_is_read_as_its_sentences():
    page = """\
# A heading counts for nothing

{.lead}
One sentence, with `code that has dots. And spaces` and a
[link of words](page.md). Two, e.g. here (A. Bierce)? {fact}`seeds` three.

- Four, $a + b + c$.
- **Five.** Six:

| head | of a table |
|---|---|
| a cell | Seven: {found}`rslora: tuned`. Eight. |

```console
$ lora-np no sentence. Nor this.
```

    nor = "this one. Nor that."
"""
    found = sentences(prose(page))
    assert found == [
        "One sentence, with Code and a link of words.",
        "Two, e.g. here (A. Bierce)?",
        "Figure three.",
        "Four, Code.",
        "Five.",
        "Six:",
        "Seven: Figure.",
        "Eight.",
    ]
    words = "word " * LONG
    assert long([words + "more.", words.strip() + "."]) == [words + "more."]
