"""Write the page of samples: what the shipped model writes without and with each adapter.

python -m recipes.samples > docs/use/language-samples.md
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from statistics import mean

from lora_np import adapters, language
from lora_np.table import Cell, Table
from recipes.pages import markdown

TOKENS = 200
TEMPERATURES = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
REPEATED = 0.1  # of its pairs of words, at most, that a sample says again


@dataclass(frozen=True)
class Style:
    """An adapter with its text, best temperature, prompts, what its layout looks like, and a
    reader's judgment.
    """

    text: str
    temperature: float
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
        0.6,
        GENESIS_PROMPTS,
        r"\n\d+ [A-Z]",
        "begin a verse with its number",
        '"Said unto" and "the land of" are everywhere. Names are from the book, or sound like it (Mahalakel, Thilah).\n'
        "Verse numbers are not consecutive, no sentence makes sense to its end, and some words are misspelt (doetn, strubetparted).",
    ),
    "devils-dictionary": Style(
        "devils-dictionary",
        0.5,
        (
            "LOVE, n.", "HUSBAND, n.", "MONEY, n.", "POET, n.", "LAWYER, n.", "SILENCE, n.", "TO DINE, v.i.",
            "HONEST, adj.", "ENEMY, n.", "NOVEL, n.", "It was ", "The king ", "A person who ", "Mr. Darcy ",
            "One of the ", "In the morning ", "The art of ", "She had ", "An instrument ", "To marry ",
        ),
        r"\n\n[A-Z][A-Z' -]+, [a-z]+\.",
        "begin another entry: a blank line, a word in capitals, its part of speech",
        "The model has learned the layout: two spaces between sentences, lines as wide as the book's, a word in capitals with its part\n"
        "of speech, and a definition that begins as this part of speech requires (A ..., The ..., To ..., Pertaining to ...). It has also learned the\n"
        "subjects: the dead, the gods, politics, the professions. The defined words are invented (HINTANT,\n"
        "CORNITINE), and so are others (sancification, gloomestic). The text has 8,313 different words in 245,439 characters, more than this base can learn to spell;\n"
        "Genesis has 2,446 in 201,584. The grammar is worse than with king-james, and\n"
        "if a definition is funny, it is by accident.",
    ),
}  # fmt: skip

BEGIN = """# Twenty samples, before and after

This page shows how each shipped adapter changes what the shipped model writes. For each of twenty prompts per adapter, it shows the next 200 characters,
without and with the adapter. The random seed is the number of the sample minus one. No sample was left out. Samples are drawn at the adapter's best
temperature: the lowest at which samples repeat at most a tenth of their word pairs on average. At lower temperatures the model repeats itself (at 0 always); at higher
temperatures it invents more words. `python -m recipes.samples` writes this page and counts the words.
"""


def words(text: str) -> list[str]:
    """Words in small letters; one that the end may have cut is left out."""
    return re.findall(r"[a-z]+(?=[^a-z])", text.lower())


def share(said: list[str], known: set[str]) -> str:
    """How many words of samples are words of a text."""
    spoken = [word for text in said for word in words(text)]
    return f"{sum(word in known for word in spoken) / len(spoken):.1%} of {len(spoken)} words"


def repeated(text: str) -> float:
    """The share of its pairs of neighbouring words that a text has said before."""
    said = text.lower().split()
    pairs = list(itertools.pairwise(said))
    return 1 - len(set(pairs)) / max(len(pairs), 1)


def samples(
    model: language.LanguageModel, style: Style, temperature: float, count: int = 20
) -> list[str]:
    """What a model writes after each of the prompts, or the first of them."""
    return [
        language.generate(model, prompt, rng=i, tokens=TOKENS, temperature=temperature).rstrip()
        for i, prompt in enumerate(style.prompts[:count])
    ]


def pair(number: int, name: str, style: Style, before: str, after: str) -> str:
    """A sample in the page."""
    return (
        f"\n### {name} {number + 1}: {style.prompts[number].strip()}\n\n"
        f"Before:\n\n```text\n{before}\n```\n\nAfter:\n\n```text\n{after}\n```"
    )


def main() -> None:
    model = language.load("austen")
    print(BEGIN, end="")
    for name, style in STYLES.items():
        adapted = adapters.attach(model, adapters.load(language.located_adapter(name)))
        known = set(words(language.read_text(style.text)))
        found = {temperature: samples(adapted, style, temperature) for temperature in TEMPERATURES}
        again = {temperature: mean(map(repeated, said)) for temperature, said in found.items()}
        best = min(temperature for temperature, often in again.items() if often <= REPEATED)
        if best != style.temperature:
            raise SystemExit(f"{name}: the best temperature is {best}, not {style.temperature}")
        rows: list[list[Cell]] = [
            [t, share(said, known), f"{again[t]:.1%}"] for t, said in found.items()
        ]
        columns = ["temperature", "words found in its text", "repeated word pairs"]
        pairs = samples(model, style, best), found[best]
        shaped = [sum(bool(re.search(style.layout, text)) for text in said) for said in pairs]
        print(f"\n## Adapter: {name}, at temperature {best}\n")
        print(markdown(Table(columns, rows)), end="\n\n")
        print(
            f"Words found in its text, at {best}: before, {share(pairs[0], known)}; after, {share(pairs[1], known)}.\n"
            f"Layout: {shaped[0]} of 20 before and {shaped[1]} of 20 after {style.layout_words}.\n"
        )
        print(f"**Read critically.** {style.judgment}")
        for i, (before, after) in enumerate(zip(*pairs, strict=True)):
            print(pair(i, name, style, before, after))


if __name__ == "__main__":
    main()
