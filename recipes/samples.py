"""Write the page of samples: what the shipped model says before and after each of its adapters.

python -m recipes.samples > docs/use/language-samples.md
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from lora_np import adapters, language

SETTINGS = {"tokens": 200, "temperature": 0.6}


@dataclass(frozen=True)
class Style:
    """An adapter with its text, prompts for it, what its layout looks like, and a reader's judgment."""

    text: str
    prompts: tuple[str, ...]
    layout: str  # a regular expression
    layout_words: str
    judgment: str


GENESIS_PROMPTS = (
    "It was ", "And the ", "She had ", "The king ", "In the morning ", "My father ", "He said unto ",
    "There was a ", "When they ", "Mr. Darcy ", "And God ", "The house ", "Her sister ", "Two years ",
    "The land of ", "I will ", "Then came ", "His brother ", "It came to pass ", "On the day ",
)  # fmt: skip
STYLES = {
    "king-james": Style(
        "genesis",
        GENESIS_PROMPTS,
        r"\n\d+ [A-Z]",
        "begin a verse with its number",
        'Its "said unto" and "the land of" are everywhere, and the names are those of the book or in their manner\n'
        "(Mahalakel, Thilah). A verse's number need not follow the one before, no sentence makes sense to its end, and\n"
        "there are slips (doetn, strubetparted).",
    ),
    "genesis-by-peft": Style(
        "genesis",
        GENESIS_PROMPTS,
        r"\n\d+ [A-Z]",
        "begin a verse with its number",
        "Half a translation. It has the layout, *And* after a verse's number, \"the sons of\", and now and then unto, thy and\n"
        "begat; but Mr. Darcy, Mrs. Collah, compliments and a visit are still there, and a verse may come to a theatre or to\n"
        "somebody's inclination. Only q and v are adapted: where the model looks and what it takes from there, and nothing of\n"
        "how it spells. So there are more slips than in king-james (beel, profesding, companment) and few names of\n"
        "the book (Isaac, Jacob), and the loss on the held-out tenth is 1.396, between 2.132 without an adapter and the 1.125 of\n"
        "king-james.",
    ),
    "devils-dictionary": Style(
        "devils-dictionary",
        (
            "LOVE, n.", "HUSBAND, n.", "MONEY, n.", "POET, n.", "LAWYER, n.", "SILENCE, n.", "TO DINE, v.i.",
            "HONEST, adj.", "ENEMY, n.", "NOVEL, n.", "It was ", "The king ", "A person who ", "Mr. Darcy ",
            "One of the ", "In the morning ", "The art of ", "She had ", "An instrument ", "To marry ",
        ),
        r"\n\n[A-Z][A-Z' -]+, [a-z]+\.",
        "come to a next entry: a blank line, a word in capitals, its part of speech",
        "The layout is learnt: two spaces between sentences, lines as wide as the book's, a word in capitals with its part\n"
        "of speech, and a definition that begins as that asks (A ..., The ..., To ..., Pertaining to ...). So is the\n"
        "register: the dead, the gods, politics, the professions. The words that are defined are made up (HINTANT,\n"
        "CORNITINE), and so are others (sancification, gloomestic): 8,313 different words on 245,439 characters, where Genesis\n"
        "has 2,446 on 201,584, are more than this base can learn to spell. The grammar is worse than that of king-james, and\n"
        "where a definition is funny, it is by accident.",
    ),
}  # fmt: skip

BEGIN = """# Twenty samples, before and after

What the shipped model writes after each of twenty prompts, by itself and with an adapter: 200 characters at temperature
0.6, the number of the sample as the random seed. None was left out. `python -m recipes.samples` writes this page and
counts its words.
"""


def words(text: str) -> list[str]:
    """Words in small letters; one that the end may have cut is left out."""
    return re.findall(r"[a-z]+(?=[^a-z])", text.lower())


def share(said: list[str], known: set[str]) -> str:
    """How many words of samples are words of a text."""
    spoken = [word for text in said for word in words(text)]
    return f"{sum(word in known for word in spoken) / len(spoken):.1%} of {len(spoken)} words"


def main() -> None:
    model = language.load("austen")
    print(BEGIN, end="")
    for name, style in STYLES.items():
        adapted = adapters.attach(model, adapters.load(language.located_adapter(name)))
        known = set(words(language.read_text(style.text)))
        pairs = [
            [
                language.generate(speaker, prompt, rng=i, **SETTINGS).rstrip()
                for i, prompt in enumerate(style.prompts)
            ]
            for speaker in (model, adapted)
        ]
        shaped = [sum(bool(re.search(style.layout, text)) for text in said) for said in pairs]
        print(f"\n## Adapter: {name}\n")
        print(
            f"Words of its text: before, {share(pairs[0], known)}; after, {share(pairs[1], known)}.\n"
            f"Layout: {shaped[0]} of 20 before and {shaped[1]} of 20 after {style.layout_words}.\n"
        )
        print(f"**Read critically.** {style.judgment}")
        for i, (before, after) in enumerate(zip(*pairs, strict=True)):
            print(f"\n### {name} {i + 1}: {style.prompts[i].strip()}\n")
            print(f"Before:\n\n```text\n{before}\n```\n\nAfter:\n\n```text\n{after}\n```")


if __name__ == "__main__":
    main()
