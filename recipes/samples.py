"""Write the page of samples: what the shipped model says before and after its adapter, from the same prompts.

python -m recipes.samples > docs/use/language-samples.md
"""

from __future__ import annotations

from lora_np import adapters, language

PROMPTS = (
    "It was ", "And the ", "She had ", "The king ", "In the morning ", "My father ", "He said unto ", "There was a ",
    "When they ", "Mr. Darcy ", "And God ", "The house ", "Her sister ", "Two years ", "The land of ", "I will ",
    "Then came ", "His brother ", "It came to pass ", "On the day ",
)  # fmt: skip
SETTINGS = {"tokens": 200, "temperature": 0.6}

BEGIN = """# Twenty samples, before and after

What the shipped model writes after each of twenty prompts, by itself and with the adapter `king-james`: 200 characters at
temperature 0.6, the number of the sample as the random seed. None was left out. `python -m recipes.samples` writes this
page.

**Read critically.** Before, 99.5 % of the 829 whole words are words of the six novels, in sentences that run on as hers do
and lines as long as those of the books. After, 98 % of the 855 are words of Genesis; "said unto" and "the land of" are
everywhere, 12 of the 20 come to a verse with its number (which need not follow the one before), and the rest are names
in the manner of the book (Mahalakel, Thilah) and slips (doetn, strubetparted). Neither makes sense for longer than a phrase.
This is what 750,720 parameters can do that see one character at a time; it is enough to see what an adapter of 74,752
numbers changes.
"""


def main() -> None:
    model = language.load("austen")
    adapted = adapters.attach(model, adapters.load(language.located_adapter("king-james")))
    print(BEGIN)
    for i, prompt in enumerate(PROMPTS):
        print(f"## {i + 1}. {prompt.strip()}\n")
        for title, speaker in (("Before", model), ("After", adapted)):
            said = language.generate(speaker, prompt, rng=i, **SETTINGS)
            print(f"{title}:\n\n```text\n{said.rstrip()}\n```\n")


if __name__ == "__main__":
    main()
