"""The directive ``puzzles``: all puzzles with their pictures, fields and hints; the last page."""

import html
import re
import sys
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from lora_np import exercises

sys.path.insert(0, str(Path(__file__).parent.parent / "browser"))

from scenes import as_html

HINTS = "Hint", "One more hint", "Nearly all of it"
PROGRESS = """\
<nav class="puzzle-progress" aria-label="Progress"><ol>{squares}</ol>
<p role="status" data-show="done">0 of 15 solved</p></nav>
<noscript><p>To check a line here, JavaScript is needed. Or use the terminal:
<code>lora-np puzzles</code>.</p></noscript>"""
FORM = """\
<form class="puzzle" id="puzzle-{name}" data-puzzle="{name}">
<label class="visually-hidden" for="line-{name}">Your line for puzzle {number}</label>
<textarea id="line-{name}" name="code" rows="1" spellcheck="false" autocomplete="off"
autocapitalize="off">{blank}</textarea>
<p class="exercise-buttons"><button type="submit" name="check" class="primary">Check</button>
<button type="button" name="stop" hidden>Stop</button>
<button type="button" name="reset">Start again</button>
<span data-show="state" role="status"></span></p>
<p class="python-loading" hidden><progress max="1" aria-label="Loading Python"></progress>
<span></span></p>
<div class="puzzle-outcome" data-show="outcome" aria-live="polite" hidden></div>
</form>"""
LAST = """\
## What you have built

All fifteen lines together are [the whole file](mini.md): a LoRA that counts, trains, merges,
shrinks and saves. The course explains why it works, from
[the first lesson](../lessons/{first}.ipynb) on.

Together they also train a language model. It has read Jane Austen; here it reads Genesis,
in this page, in about two minutes, and writes before and after.

```{{raw}} html
<form class="puzzle-ending" id="puzzle-ending">
<label for="ending-prompt">How both texts begin</label>
<input id="ending-prompt" name="prompt" value="And the king " maxlength="60" autocomplete="off">
<p class="exercise-buttons">
<button type="submit" name="train" class="primary" disabled>Train it</button>
<button type="button" name="stop" hidden>Stop</button>
<button type="button" name="save" hidden>Save the card</button>
<span data-show="state" role="status">Solve all fifteen first.</span></p>
<p class="python-loading" hidden><progress max="1" aria-label="Loading Python"></progress>
<span></span></p>
<div class="puzzle-outcome" data-show="outcome" aria-live="polite" hidden></div>
</form>
<form class="puzzle-share" id="puzzle-share" hidden>
<label for="puzzle-text">To show to others: it holds no names, only how many are solved.</label>
<textarea id="puzzle-text" rows="4" readonly></textarea>
<p class="exercise-buttons"><button type="submit" class="primary">Copy</button>
<span role="status" data-show="copied"></span></p>
</form>
```"""


def markdown(one: exercises.Puzzle) -> str:
    """A section for one puzzle."""
    form = FORM.format(name=one.name, number=one.number, blank=html.escape(one.blank))
    parts = [f"## {one.heading}", typeset(one.statement)]
    if one.picture:
        parts.append(raw(as_html(one.before())))
    if diagram := one.diagram.strip("\n"):
        parts.append(f"```text\n{diagram}\n```")
    if one.shown != one.blank:
        parts.append(f"```python\n{one.shown}\n```")
    parts += [f"**Your line must satisfy:** {one.law}", raw(form)]
    folded = zip(HINTS, map(typeset, one.hints), strict=True)
    parts += [f":::{{dropdown}} {title}\n{text}\n:::" for title, text in folded]
    return "\n\n".join(parts)


def typeset(text: str) -> str:
    """Shapes in letters as formulas, as in the lessons; a terminal shows them as written."""
    return re.sub(r"\b([a-z]) x\s+([a-z])\b", r"$\1 \\times \2$", text)


def raw(text: str) -> str:
    return f"```{{raw}} html\n{text}\n```"


class Progress(SphinxDirective):
    """A square for each puzzle: before `Puzzles`, whose sections would come first."""

    def run(self) -> list[nodes.Node]:
        squares = "".join(
            f'<li><a href="#puzzle-{one.name}" data-square="{one.name}"'
            f' title="{html.escape(one.title)}">{one.number}</a></li>'
            for one in exercises.puzzles()
        )
        return [nodes.raw("", PROGRESS.format(squares=squares), format="html")]


class Puzzles(SphinxDirective):
    """All puzzles, one below the other."""

    def run(self) -> list[nodes.Node]:
        first = exercises.lessons([0])[0].stem
        text = "\n\n".join([*map(markdown, exercises.puzzles()), LAST.format(first=first)])
        return self.parse_text_to_nodes(text, allow_section_headings=True)


def add_files(
    app: Sphinx, pagename: str, template: str, context: dict[str, Any], doctree: object
) -> None:
    if pagename == "learn/puzzles":
        app.add_js_file("python-data.js", loading_method="defer")
        for name in ("python.css", "exercises.css", "puzzles.css"):
            app.add_css_file(name)
        for name in ("programs.js", "python.js", "puzzles.js"):
            app.add_js_file(name, loading_method="defer")


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("puzzle-progress", Progress)
    app.add_directive("puzzles", Puzzles)
    app.connect("html-page-context", add_files)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
