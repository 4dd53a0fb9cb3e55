"""The puzzles as a notebook to take home: text, picture and hints, and a cell that checks a line.

python -m notebooks.puzzles FILE    write it
"""

import sys
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from lora_np.exercises import Puzzle, puzzles

OPENING = """\
# LoRA puzzles

LoRA in one file, but fifteen lines are missing. Each puzzle has a picture, a line with `___` for
you to complete, what it must satisfy, and hints. It takes about an hour. Run the next cell first.
Then complete a line below its `%%puzzle` and run the cell: that checks your line."""
START = """\
from IPython.core.magic import register_cell_magic

from lora_np.exercises import puzzle


@register_cell_magic("puzzle")
def check(name, line):
    return puzzle(name).solve(line)"""
ENDING = """\
## What you have built

Your lines now train a language model that has read Jane Austen: on Genesis, in about half a
minute. Change the prompt if you like. The adapter is saved in the folder, with a card to show
to others."""
TRAIN = """\
from lora_np.exercises import ending, solved

prompt, folder = "And the king ", "lora-puzzles"
ending(solved, folder, prompt=prompt, show=lambda text: print(f"{text:40}", end="\\r"))"""
CARD = """\
from IPython.display import SVG

SVG(f"{folder}/card.svg")"""
TITLES = "Hint", "One more hint", "Nearly all of it"


def notebook() -> nbformat.NotebookNode:
    """Without outputs, the same bytes each time."""
    start = new_code_cell(START, id="imports")
    cells = [new_markdown_cell(OPENING, id="title"), start]
    for one in puzzles():
        cells.append(new_markdown_cell(text(one), id=f"{one.name}-text"))
        cells.append(new_code_cell(call(one, one.blank), id=one.name))
    cells.append(new_markdown_cell(ENDING, id="ending-text"))
    cells += [new_code_cell(TRAIN, id="ending"), new_code_cell(CARD, id="card")]
    kernel = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
    return new_notebook(cells=cells, metadata={"kernelspec": kernel})


def call(one: Puzzle, line: str) -> str:
    return f"%%puzzle {one.name}\n{line}"


def text(one: Puzzle) -> str:
    folds = (
        f"<details><summary>{title}</summary>\n\n{hint}\n\n</details>"
        for title, hint in zip(TITLES, one.hints, strict=True)
    )
    return "\n\n".join([f"## {one.text}", *folds])


if __name__ == "__main__":
    nbformat.write(notebook(), Path(sys.argv[1]))
