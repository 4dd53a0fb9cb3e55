"""A Content-Security-Policy on every page: scripts of this site, the runtime, and nothing else.

The policy is written into the pages once all else is, with the hashes of the scripts inside a page.
The worker that runs Python is made by a page (see explorer/python.js), so the same policy holds in
it.
"""

import base64
import hashlib
import re
from pathlib import Path
from urllib.parse import urlsplit

import formulas
import materials
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

META = '<meta http-equiv="Content-Security-Policy" content="{}">\n'
OLD = re.compile(re.escape(META.strip()).replace(r"\{\}", '[^"]*') + r"\n")
INLINE = re.compile(r"<script(?P<attributes>[^>]*)>(?P<text>.*?)</script>", re.DOTALL | re.I)
# What a script says that a policy forbids: found in the build, not by a reader.
HANDLER = re.compile(r"<[a-z][^<>]*\s(?:on[a-z]+\s*=|href\s*=\s*[\"']?javascript:)", re.I)
ENCODING = re.compile(r"<meta charset=[^>]*>\n?", re.I)


def policy(scripts: list[str], runtime: str) -> str:
    """What a page with these scripts inside may load.

    ``runtime`` is where Python comes from: another host is named, and nothing but its files can be
    fetched from there.
    """
    host = urlsplit(runtime)
    elsewhere = [f"{host.scheme}://{host.netloc}{host.path}"] if host.netloc else []
    hashes = [f"'sha256-{digest(text)}'" for text in scripts]
    rules = {
        "default-src": ["'none'"],
        # WebAssembly is compiled; no text is ever run as a script
        "script-src": ["'self'", "'wasm-unsafe-eval'", *hashes],
        "worker-src": ["'self'", "blob:"],
        "connect-src": ["'self'", *elsewhere],
        "style-src": ["'self'", "'unsafe-inline'"],
        "img-src": ["'self'", "data:", "blob:"],
        "font-src": ["'self'"],
        "form-action": ["'self'"],
        "base-uri": ["'none'"],
    }
    return "; ".join(" ".join([name, *places]) for name, places in rules.items())


def digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def protected(page: str, runtime: str) -> str:
    """A page with its policy, right after its encoding, before anything that loads."""
    page = OLD.sub("", page)
    if found := HANDLER.search(page):
        raise ExtensionError(f"a page must have its scripts in <script>, got {found[0]!r}")
    scripts = [
        found["text"]
        for found in INLINE.finditer(page)
        if "src=" not in found["attributes"] and "json" not in found["attributes"]
    ]
    start = ENCODING.search(page)
    if start is None:
        raise ExtensionError(f"a page must say its encoding first, got {page[:200]!r}")
    meta = META.format(policy(list(dict.fromkeys(scripts)), runtime))
    before = page[: start.end()].rstrip("\n")
    return f"{before}\n{meta}{page[start.end() :]}"


def protect(app: Sphinx, problem: Exception | None) -> None:
    if problem or app.builder.format != "html":
        return
    for path in formulas.written(Path(app.outdir)):
        page = path.read_text(encoding="utf-8")
        written = protected(page, materials.place())
        if written != page:
            path.write_text(written, encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("build-finished", protect, priority=900)  # once formulas are typeset
    return {"parallel_read_safe": True, "parallel_write_safe": True}
