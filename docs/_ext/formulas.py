"""Formulas for readers without script: MathML next to each, made by MathJax once the pages are written."""

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
    r'(<(span|div) class="math notranslate nohighlight"[^>]*>\s*(\\\(|\\\[)([^<]*?)(?:\\\)|\\\])\s*</\2>)'
    r"(?!<noscript>)"
)
HIDE = "<noscript><style>.math { display: none; }</style></noscript>\n</head>"
SCRIPT = """
const [main, path] = [process.argv[1], process.argv[1].replace(/.node-main.js$/, "")];
require(main).init({ loader: { load: ["input/tex"], paths: { mathjax: path } } }).then(async (MathJax) => {
  const made = [];
  for (const [tex, display] of JSON.parse(require("fs").readFileSync(0, "utf8"))) {
    made.push(await MathJax.tex2mmlPromise(tex, { display }));
  }
  console.log(JSON.stringify(made));
});
"""
Formula = tuple[str, bool]  # TeX, and whether it is a displayed formula


def add_mathml(app: Sphinx, problem: Exception | None) -> None:
    if problem or app.builder.format != "html":
        return
    pages = {path: path.read_text(encoding="utf-8") for path in written(Path(app.outdir))}
    formulas = sorted({formula(match) for text in pages.values() for match in FORMULA.finditer(text)})
    made = dict(zip(formulas, mathml(formulas), strict=True)) if formulas else {}
    for path, text in pages.items():
        with_both = FORMULA.sub(lambda match: f"{match[1]}<noscript>{made[formula(match)]}</noscript>", text)
        if with_both != text:
            if HIDE not in with_both:
                with_both = with_both.replace("</head>", HIDE, 1)
            path.write_text(with_both, encoding="utf-8")


def written(folder: Path) -> list[Path]:
    return [p for p in folder.rglob("*.html") if p.relative_to(folder).parts[0] not in ("lite", "_static")]


def formula(match: re.Match[str]) -> Formula:
    return html.unescape(match[4]).strip(), match[3] == "\\["


def mathml(formulas: list[Formula]) -> list[str]:
    node = shutil.which("node")
    if node is None:
        raise ExtensionError("node is needed to write formulas for readers without script; install Node.js")
    command = [node, "-e", SCRIPT, str(MATHJAX / "node-main.js")]
    done = subprocess.run(command, input=json.dumps(formulas), capture_output=True, text=True)
    if done.returncode or "merror" in done.stdout:
        raise ExtensionError(f"MathJax could not read a formula:\n{done.stderr or done.stdout}")
    return [re.sub(r">\s+<", "><", text) for text in json.loads(done.stdout)]


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("build-finished", add_mathml)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
