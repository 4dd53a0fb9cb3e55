"""What the site's tests share: the built site, a server, and Chromium, which notices trouble."""

import contextlib
import functools
import os
import shutil
import subprocess
import tarfile
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urljoin

import pytest

ROOT = Path(__file__).parents[2]
AXE = "axe-core@4.10.2"
# milliseconds: no test is about how fast a machine is
PATIENCE = int(os.environ.get("SITE_PATIENCE", 10 * 60_000))
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
]


@pytest.fixture(scope="session")
def site():
    """The folder of the built site: SITE, or where the documented command puts it."""
    folder = Path(os.environ.get("SITE", ROOT / "docs" / "_build" / "html"))
    if not (folder / "index.html").is_file():
        pytest.fail(
            f"there is no site in {folder}: python -m sphinx -W --keep-going docs docs/_build/html"
        )
    return folder


@pytest.fixture(scope="session")
def root(site):
    """What is served: the site, or the folder of all its versions."""
    return site.parent if (site.parent / "versions.json").is_file() else site


class Server(ThreadingHTTPServer):
    request_queue_size = 128  # with 5, a busy machine drops some of what a page asks for at once


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def do_GET(self):
        if self.path == "/favicon.ico":  # asked for by Chromium itself
            self.send_response(204)
            self.end_headers()
        else:
            super().do_GET()


@pytest.fixture(scope="session")
def address(site, root):
    handler = functools.partial(Quiet, directory=str(root))
    with Server(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        folder = "" if site == root else f"{site.name}/"
        yield f"http://127.0.0.1:{server.server_port}/{folder}"
        server.shutdown()


@pytest.fixture(scope="session")
def chromium():
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        yield browser
        browser.close()


def wait_until(page, expression, *, arg=None, timeout=PATIENCE):
    """Ask until it holds: Playwright's own wait evaluates text later, which the policy forbids."""
    from playwright.sync_api import Error

    for _ in range(int(timeout // 50)):
        with contextlib.suppress(Error):  # the page is being left
            if page.evaluate(expression, arg):
                return
        page.wait_for_timeout(50)
    raise AssertionError(f"{expression} never held")


@pytest.fixture
def open_page(chromium, address):
    """``open_page(path, **settings)``; at the end no page has asked another host or failed."""
    contexts, trouble = [], []

    def watch(page):
        page.on("request", lambda r: outside(r.url) and trouble.append(f"asked for {r.url}"))
        page.on(
            "requestfailed", lambda r: left(r) or trouble.append(f"failed: {r.url}, {r.failure}")
        )
        page.on("response", lambda r: open_page.received.append(r))
        page.on("response", lambda r: r.status >= 400 and trouble.append(f"{r.status}: {r.url}"))
        page.on("console", lambda m: complains(m) and trouble.append(f"{m.type}: {m.text}"))
        page.on("pageerror", lambda error: trouble.append(f"error: {error}"))

    def left(request):  # what was still on its way when a link was followed
        return request.failure == "net::ERR_ABORTED"

    def outside(url):
        return not url.startswith((urljoin(address, "/"), "data:", "blob:"))

    def complains(message):
        # that a file was refused for its hash, the page says too
        return message.type in ("error", "warning") and "integrity" not in message.text

    def open_page(path, **settings):
        context = chromium.new_context(**{"viewport": {"width": 1280, "height": 900}, **settings})
        context.set_default_timeout(PATIENCE)
        context.route(outside, lambda route: route.abort())
        contexts.append(context)
        page = context.new_page()
        page.wait_for_function = functools.partial(wait_until, page)
        watch(page)
        page.goto(address + path)
        if not settings.get("java_script_enabled", True):
            return page
        if path == "index.html":  # the last that its script sets
            page.wait_for_function("document.querySelector('[data-part=more]').hash")
        if path.startswith("learn/explorer"):
            place = path.partition("#")[2] or "cut-a-matrix"
            page.wait_for_function(f"document.querySelector('#{place} [aria-busy=false]')")
        return page

    open_page.received = []
    yield open_page
    for context in contexts:
        context.close()
    assert not trouble


@pytest.fixture(scope="session")
def axe(tmp_path_factory):
    """The source of axe, from the npm registry."""
    folder = tmp_path_factory.mktemp("axe")
    npm = shutil.which("npm")
    subprocess.run([npm, "pack", "--silent", AXE, "--pack-destination", folder], check=True)
    (archive,) = folder.glob("*.tgz")
    with tarfile.open(archive) as package:
        return package.extractfile("package/axe.min.js").read().decode()
