"""Formulas are typeset by MathJax once the pages are written: readers load fonts, and no script.

Each is there for screen readers as MathML. One style sheet has the letters and signs that any page
uses.
"""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

MATHJAX = Path(__file__).parents[1] / "_build" / "made" / "mathjax-node"
FORMULA = re.compile(
    r'<(span|div) class="math notranslate'
    r' nohighlight"([^>]*)>\s*(?:\\\(|\\\[)([^<]*?)(?:\\\)|\\\])\s*</\1>'
)
TYPESET = re.compile(r'<(span|div) class="math notranslate nohighlight"[^>]* data-tex="([^"]*)">')
MATHJAX_TAGS = re.compile(
    r'\s*<script>window\.MathJax = .*?</script>|\s*<script [^>]*src="([^"]*)mathjax/[^>]*></script>'
)
SCRIPT = """
const [main, path] = [process.argv[1], process.argv[1].replace(/.node-main.js$/, "")];
const formulas = JSON.parse(require("fs").readFileSync(0, "utf8"));
require(main).init({
  loader: { load: ["input/tex", "output/chtml", "a11y/assistive-mml"], paths: { mathjax: path } },
  chtml: { fontURL: "mathjax/output/chtml/fonts/woff-v2" },
}).then(async (MathJax) => {
  const made = [], adaptor = MathJax.startup.adaptor;
  for (const [tex, display] of formulas) {
    made.push(adaptor.outerHTML(await MathJax.tex2chtmlPromise(tex, { display })));
  }
  const style = adaptor.textContent(MathJax.chtmlStylesheet());
  require("fs").writeFileSync(1, JSON.stringify([made, style]));
});
"""
SIZE = "\nmjx-container { font-size: 113%; }\n"  # as high as the letters around it
Formula = tuple[str, bool]  # TeX, and whether it is a displayed formula


def typeset(app: Sphinx, problem: Exception | None) -> None:
    if problem or app.builder.format != "html":
        return
    pages = {path: path.read_text(encoding="utf-8") for path in written(Path(app.outdir))}
    new = {
        formula(match[1], match[3]) for text in pages.values() for match in FORMULA.finditer(text)
    }
    old = {
        formula(match[1], match[2]) for text in pages.values() for match in TYPESET.finditer(text)
    }
    formulas = sorted(new | old)
    texts, style = in_mathjax(formulas)
    made = dict(zip(formulas, texts, strict=True))
    (Path(app.outdir) / "_static" / "formulas.css").write_text(style + SIZE, encoding="utf-8")
    for path, text in pages.items():
        shown = FORMULA.sub(lambda match: element(match, made), text)
        if shown != text:
            path.write_text(without_script(shown), encoding="utf-8")


def written(folder: Path) -> list[Path]:
    return [p for p in folder.rglob("*.html") if p.relative_to(folder).parts[0] != "_static"]


def formula(tag: str, tex: str) -> Formula:
    return html.unescape(tex).strip(), tag == "div"


def element(match: re.Match[str], made: dict[Formula, str]) -> str:
    tag, attributes, tex = match.groups()
    written = html.escape(html.unescape(tex).strip())
    start = f'<{tag} class="math notranslate nohighlight"{attributes} data-tex="{written}">'
    return f"{start}{made[formula(tag, tex)]}</{tag}>"


def without_script(text: str) -> str:
    """A page that loads the style sheet instead of MathJax."""
    (static,) = {match[1] for match in MATHJAX_TAGS.finditer(text) if match[1]}
    link = f'<link rel="stylesheet" href="{static}formulas.css">\n</head>'
    return MATHJAX_TAGS.sub("", text).replace("</head>", link, 1)


def in_mathjax(formulas: list[Formula]) -> tuple[list[str], str]:
    """The HTML of each formula, and the style of all."""
    node = shutil.which("node")
    if node is None:
        raise ExtensionError("node is needed to typeset formulas; install Node.js")
    command = [node, "-e", SCRIPT, str(MATHJAX / "node-main.js")]
    done = subprocess.run(command, input=json.dumps(formulas), capture_output=True, text=True)
    if done.returncode or "merror" in done.stdout.partition('"mjx-math {')[0]:
        raise ExtensionError(f"MathJax could not read a formula:\n{done.stderr or done.stdout}")
    made, style = json.loads(done.stdout)
    return [re.sub(r">\s+<", "><", text) for text in made], style


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("build-finished", typeset)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
