"""Sentences of pages and of what the claims say, and the share of them that is long.

``python -m tests.sentences`` prints the share of each page, the worst first; with the name of a page
behind it, such as ``docs/use/extract.md`` or ``claims/rslora``, its long sentences.
"""

import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
LONG = 25  # words; a sentence with more is long
CARD = ("title", "finding", "sentence", "rule", "setup", "setting", "published", "limits", "advice")

END = re.compile(
    r"(?<=[.?!])(?<!e\.g\.)(?<!i\.e\.)(?<!vs\.)(?<! al\.)(?<!\([A-Z]\.)"  # "(A. Bierce"
    r"[\"”)]*\s+(?=[\"“(]*[A-Z0-9§\[])"
)
WHOLE = re.compile(r"[.?!:][\"”)]*$")
ROLE = re.compile(r"\{\w+\}`(?:([^`<]+) <[^`>]*>|[^`]*)`")
FORMULA = re.compile(r"\$\$?[^$]+\$\$?|`[^`]*`")
MARKS = re.compile(r"\*\*|(?<![\w*])\*|\*(?![\w*])|</?su[bp]>|\\")


def prose(page):
    """The texts of a page of Markdown: paragraphs, items of lists, cells of tables, headings."""
    page = re.sub(r"(?ms)^```.*?^```$", "\n\n", page)  # code and directives
    page = re.sub(r"(?ms)^\$\$.*?\$\$$", "\n\n", page)
    page = re.sub(r"(?s)<!--.*?-->", "\n\n", page)
    for block in re.split(r"\n\s*\n", page):
        if re.match(r" {4}(?! *(?:[-*]|\d+\.) )", block):
            continue  # code by its indent
        for item in re.split(r"\n(?=\s*(?:[-*]|\d+\.) |\||#)", block):
            for cell in item.strip("| ").split(" | ") if item.startswith("|") else [item]:
                yield " ".join(re.sub(r"^\s*(?:#+|[-*]|\d+\.|\{\.lead\})\s", "", cell).split())


def plain(text):
    """A text as it is read: a link by its words, a formula, a figure or code as one word."""
    text = re.sub(r"!?\[([^\]]*)\]\([^)\s]*\)", r"\1", text)
    text = ROLE.sub(lambda role: role[1] or "Figure", text)
    return MARKS.sub("", FORMULA.sub("Code", text))


def sentences(texts):
    """The whole sentences of texts: no labels, headings or cells of a word."""
    return [one for text in texts for one in END.split(plain(text)) if WHOLE.search(one)]


def length(sentence):
    """How many words it has."""
    return sum(bool(re.search(r"\w", word)) for word in sentence.split())


def long(found):
    """The long ones of some sentences."""
    return [one for one in found if length(one) > LONG]


def card(record):
    """What a claim says of itself, at both scales; what would contradict it is frozen, and left out."""
    scales = (record, record.get("at scale", {}))
    return [scale[name] for scale in scales for name in CARD if name in scale]


def pages():
    """The sentences of each page, by group and name."""
    records = map(json.loads, (p.read_text("utf-8") for p in (ROOT / "claims/results").iterdir()))
    found = {"claims": {f"claims/{one['name']}": sentences(card(one)) for one in records}}
    for folder in ("understand", "use"):
        paths = sorted((ROOT / "docs" / folder).glob("*.md"))
        found[folder] = {
            path.relative_to(ROOT).as_posix(): sentences(prose(path.read_text("utf-8")))
            for path in paths
        }
    return found


def report(group):
    """The pages of a group with long sentences, the worst first."""
    counts = {name: (len(long(found)), len(found)) for name, found in group.items()}
    worst = sorted(counts, key=lambda name: -counts[name][0] / max(counts[name][1], 1))
    return [f"{name}: {counts[name][0]} of {counts[name][1]}" for name in worst if counts[name][0]]


def share(group):
    """The share of the sentences of a group of pages that is long."""
    return sum(len(long(found)) for found in group.values()) / sum(map(len, group.values()))


if __name__ == "__main__":
    for name, group in pages().items():
        chosen = [page for page in sys.argv[1:] if page in group]
        if not sys.argv[1:]:
            print(f"{name}: {share(group):.1%} of the sentences have over {LONG} words")
            print("".join(f"    {line}\n" for line in report(group)))
        for page in chosen:
            print("".join(f"{length(one)}: {one}\n" for one in long(group[page])))
