"""The puzzles' notebook: with the right lines all cells say and draw what a victory does."""

import pytest

from lora_np.exercises import puzzles

nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")


def test_all_cells_run_with_the_right_lines(tmp_path):
    from notebooks.puzzles import call, notebook

    book = notebook()
    right = {one.name: call(one, one.right) for one in puzzles()}
    for cell in book.cells:
        cell.source = right.get(cell.id, cell.source).replace(
            "folder, prompt", "folder, steps=2, prompt"
        )
    nbclient.NotebookClient(book, timeout=600, resources={"metadata": {"path": tmp_path}}).execute()
    shown = {cell.id: cell.outputs for cell in book.cells if cell.id in right}
    assert len(shown) == 15
    for one in puzzles():
        (output,) = shown[one.name]
        said = output.data["text/plain"]
        assert said.partition("\n")[0][:20] == one.after(one.right).said[:20]

    outputs, (card,) = (c.outputs for c in book.cells if c.id in ("ending", "card"))
    *progress, ended = outputs  # what is printed comes in any number of parts
    assert "Step 2 of 2: loss" in "".join(part.text for part in progress)
    assert ended.data["text/plain"].startswith("Your fifteen lines have trained a language model")
    assert 'width="1200" height="630"' in card.data["image/svg+xml"]


def test_a_cell_with_a_blank_says_what_to_do():
    from notebooks.puzzles import notebook

    cells = {cell.id: cell.source for cell in notebook().cells}
    assert cells["parameters"] == "%%puzzle parameters\nparameters = ___"
    assert "Your line must satisfy" in cells["parameters-text"]


def test_a_line_is_coloured_as_code_and_is_in_no_string():
    """As JupyterLab does it, and most viewers: what follows the first line is Python."""
    pygments = pytest.importorskip("pygments")
    from pygments.lexers import PythonLexer
    from pygments.token import Keyword, String

    from notebooks.puzzles import notebook

    cells = {cell.id: cell.source for cell in notebook().cells}
    kinds = set()
    for one in puzzles():
        magic, line = cells[one.name].split("\n", 1)
        assert (magic, line) == (f"%%puzzle {one.name}", one.blank)
        tokens = list(pygments.lex(cells[one.name], PythonLexer()))
        kinds |= {kind for kind, text in tokens if text in ("return", "for", "in", "lambda")}
        assert not [text for kind, text in tokens if kind in String and "___" in text]
    assert any(kind in Keyword for kind in kinds)
