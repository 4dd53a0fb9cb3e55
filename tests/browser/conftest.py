"""What browser tests share: a clean environment with the wheel, a server that a person would start,
Chromium.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PATIENCE = 5 * 60_000  # milliseconds: no test is about how fast a machine is
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="session")
def clean_environment(tmp_path_factory):
    """The folder of programs of a new environment: the wheel, its extra ``notebooks``, nothing
    else.
    """
    folder = tmp_path_factory.mktemp("clean")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", folder, ROOT], check=True)
    (wheel,) = folder.glob("lora_np-*.whl")
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    python = folder / "venv" / "bin" / "python"
    subprocess.run([python, *pip[1:], "install", f"{wheel}[notebooks]"], check=True)
    return python.parent


@pytest.fixture
def lab(clean_environment, tmp_path):
    """The address of ``lora-np lab --no-browser``, run as by a person who has no settings of any
    kind.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {
        name: value
        for name, value in os.environ.items()
        if name in {"LANG", "LC_ALL", "TMPDIR", "SSL_CERT_FILE"}
    }
    environment |= {"HOME": str(tmp_path), "PATH": f"{clean_environment}:/usr/bin:/bin"}
    log = tmp_path / "server.log"
    with log.open("w") as stream:
        server = subprocess.Popen(
            ["lora-np", "lab", "--no-browser", "--port", str(port)],
            executable=clean_environment / "lora-np",
            cwd=tmp_path,
            env=environment,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        )
    try:
        yield address(log, server)
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(timeout=60)


def address(log, server):
    """The address with its token, as soon as the server has printed it."""
    for _ in range(PATIENCE // 100):
        if found := re.search(r"http://127\.0\.0\.1:\d+/lab\S*", log.read_text()):
            return found[0]
        if server.poll() is not None:
            break
        time.sleep(0.1)
    pytest.fail(f"the server did not come up:\n{log.read_text()}")


@pytest.fixture(scope="session")
def chromium():
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), headless=True, args=FLAGS
        )
        yield browser
        browser.close()


@pytest.fixture
def page(chromium):
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(PATIENCE)
    yield context.new_page()
    context.close()
