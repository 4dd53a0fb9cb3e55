"""Conversations from our pages: questions and answers for the terms of the glossary, and those of
the FAQ.

    python -m recipes.conversations -o chat.jsonl --held-out held-out.jsonl

The held-out answers are those of every tenth entry, which the other file does not have.
"""

import argparse
import itertools
import json
import re
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"
ASKED = (
    "What is {}?",
    "Explain {} in a sentence or two.",
    "Tell me about {}.",
    "What does {} mean?",
)
MARKS = (
    (r"```.*?```", ""),
    (r"\{\w+\}`([^`<]+?)(?: <[^`]*)?`", r"\1"),
    (r"\[([^\]]+)\]\([^)]*\)", r"\1"),
)


def plain(text: str) -> str:
    """Markdown without links, roles and blocks of code, on one line."""
    for mark, instead in MARKS:
        text = re.sub(mark, instead, text, flags=re.S)
    return " ".join(text.split())


def terms(page: str) -> list[tuple[list[str], str]]:
    """Each term of a glossary, asked for in four ways, and what it says."""
    inside = page.partition(":::{glossary}")[2].partition("\n:::")[0]
    entries = re.findall(r"^(\S.*)\n((?:  .*\n|\n(?=  ))+)", inside, flags=re.M)
    return [([asked.format(term) for asked in ASKED], plain(text)) for term, text in entries]


def questions(page: str) -> list[tuple[list[str], str]]:
    """Each question of the FAQ and its answer."""
    parts = re.split(r"^### ", page, flags=re.M)[1:]
    found = (part.partition("\n") for part in parts)
    return [([question], plain(answer.partition("\n## ")[0])) for question, _, answer in found]


def conversations(entries: list[tuple[list[str], str]]) -> list[dict[str, object]]:
    """A first question for each entry, then a second, and so on."""
    rounds = itertools.zip_longest(*(asked for asked, _ in entries))
    return [
        {"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]}
        for around in rounds
        for asked, (_, answer) in zip(around, entries, strict=True)
        if asked is not None
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-o", "--out", type=Path, required=True, help="JSON lines to write")
    parser.add_argument(
        "--held-out", type=Path, required=True, help="JSON lines of the entries that are left out"
    )
    parser.add_argument("--number", type=int, default=200, help="how many conversations")
    given = parser.parse_args()
    entries = terms((DOCS / "reference" / "glossary.md").read_text(encoding="utf-8"))
    entries += questions((DOCS / "understand" / "faq.md").read_text(encoding="utf-8"))
    held = entries[9::10]
    for path, chosen, number in (
        (given.out, [entry for entry in entries if entry not in held], given.number),
        (given.held_out, held, len(held)),
    ):
        path.write_text(
            "".join(
                json.dumps(each, ensure_ascii=False) + "\n"
                for each in conversations(chosen)[:number]
            )
        )


if __name__ == "__main__":
    main()
