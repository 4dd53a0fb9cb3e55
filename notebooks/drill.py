"""A drill as a notebook to take home: six adapters that do nothing, and why.

python -m notebooks.drill FILE    write it
"""

import sys
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from notebooks import broken

SEED = 0
OPENING = """\
# My adapter does nothing

Six adapters of rank 1 to 4 should make the shipped model `austen` write like the book of
Genesis. None of them does: one has no effect, one has too little, one stops the model, and some
cannot even be loaded. Each has a different cause. Find it, as you would for an adapter that you
have downloaded: with `inspect`, `check` and `diff`, and without any training.

The causes, in the order of the alphabet:

{causes}

The next cell makes the adapters from a seed, in a folder `drill`. With another seed they come in
another order. The drill takes about half an hour. In a terminal, the same tools are
`lora-np inspect drill/1`, `lora-np check drill/1 --base austen --for all` and
`lora-np diff king-james drill/1`."""
START = """\
import json
from pathlib import Path
from typing import Any

import numpy as np

from lora_np import adapters, language
from lora_np.hub import safetensors

healthy = language.located_adapter("king-james")  # what all six were before they were broken
{source}

seed = {seed}
answer = build("drill", seed)"""
TASK = """\
## Adapter {number}

{symptom} Run `inspect`, then `check`. If you are still in doubt, compare the adapter with the
healthy one: `diff`. Then complete the answer.

<details><summary>Hint</summary>

{hint}

</details>"""
ANSWER = """\
answer({number}, "___")"""
ENDING = """\
## What you can do now

Where an adapter does nothing, ask in this order:

1. `inspect`: is every module *ok*? DEAD means that B A is zero, and NOT FINITE that there is a NaN.
   Is the *scale* the one that you trained with?
2. `check` with the base: do names and shapes agree with the model that you load it into?
3. `check` for all programs: can the program that serves it adapt these modules, such as a head
   that is tied to the embedding?
4. `diff` with an adapter that works: is the update the same up to a factor?

What repairs each of the six, if anything does:

{fixes}"""


def notebook(seed: int = SEED) -> nbformat.NotebookNode:
    """Without outputs, the same bytes each time."""
    causes = "\n".join(f"- `{name}`: {one.meaning}" for name, one in broken.CAUSES.items())
    fixes = "\n".join(f"- *{name}*: {one.fix}" for name, one in broken.CAUSES.items())
    start = START.format(source=source(), seed=seed)
    cells = [
        new_markdown_cell(OPENING.format(causes=causes), id="title"),
        new_code_cell(start, id="start"),
    ]
    for number, name in enumerate(broken.order(seed), start=1):
        one = broken.CAUSES[name]
        task = TASK.format(number=number, symptom=one.symptom, hint=one.hint)
        folder = f'"drill/{number}"'
        cells += [
            new_markdown_cell(task, id=f"task-{number}"),
            new_code_cell(f"adapters.inspect({folder})", id=f"inspect-{number}"),
            new_code_cell(
                f'adapters.check({folder}, runtime="all", base=healthy.parent)',
                id=f"check-{number}",
            ),
            new_code_cell(  # which stops where a number is not finite
                f"adapters.diff(healthy, {folder})",
                id=f"diff-{number}",
                metadata={"tags": ["raises-exception"]},
            ),
            new_code_cell(ANSWER.format(number=number), id=f"answer-{number}"),
        ]
    cells.append(new_markdown_cell(ENDING.format(fixes=fixes), id="ending"))
    kernel = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
    return new_notebook(cells=cells, metadata={"kernelspec": kernel})


def source() -> str:
    """The code that breaks adapters, without its docstring and what says how to find them."""
    text = Path(broken.__file__).read_text(encoding="utf-8")
    return text.partition("# Begin\n")[2].partition("# End\n")[0].strip()


if __name__ == "__main__":
    nbformat.write(notebook(), Path(sys.argv[1]))
