"""What the site's first page costs: script time a frame while B and A are trained, in a slow Chromium.

The budget is 8 ms, slowed down four times. Needs playwright, Chromium, and a built site (``--site``).
"""

from __future__ import annotations

import argparse
import shutil
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks._measure import versions
from lora_np.table import Table

BUDGET = 8.0  # ms
RANKS = (1, 8, 20, 54, 60)
# How long the page's own callbacks of each frame take; several of one frame are added.
WATCH = """
(() => {
  const ask = window.requestAnimationFrame.bind(window);
  window.frames_ms = [];
  let last;
  window.requestAnimationFrame = (callback) => ask((time) => {
    const start = performance.now();
    callback(time);
    const spent = performance.now() - start;
    if (time === last) frames_ms[frames_ms.length - 1] += spent;
    else frames_ms.push(spent);
    last = time;
  });
})();
"""
TRAINED = (
    "frames_ms.length > 9 && document.querySelector('[data-show=step]').textContent.startsWith('step 300')"
)


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments: Any) -> None:
        """Nothing: requests are not what is measured."""


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks front", description=__doc__)
    parser.add_argument("--site", type=Path, default=Path("docs/_build/html"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--slower", type=float, default=4.0)
    options = parser.parse_args(arguments)
    from playwright.sync_api import sync_playwright

    with (
        ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(options.site))) as server,
        sync_playwright() as playwright,
    ):
        threading.Thread(target=server.serve_forever, daemon=True).start()
        flags = ["--no-sandbox", "--disable-gpu"]
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=flags)
        address = f"http://127.0.0.1:{server.server_port}/index.html"
        rounds = [measured(browser, address, options.slower) for _ in range(options.rounds)]
        name = f"Chromium {browser.version}"
        browser.close()
        server.shutdown()
    rows = [[rank, *(median(each[rank][i] for each in rounds) for i in range(4))] for rank in RANKS]
    table = Table(
        ["rank", "frames", "script", "95 in 100 below", "longest"],
        rows,
        title=f"Front page, {options.slower:g} times slowed down: ms of script a frame",
        notes=[
            f"medians of {options.rounds} rounds; the budget is {BUDGET:g} ms",
            f"{name}, {versions('playwright')}",
        ],
        formats=dict.fromkeys(("script", "95 in 100 below", "longest"), "{:.1f}".format),
    )
    print(table)


def measured(browser: Any, address: str, slower: float) -> dict[int, tuple[float, ...]]:
    """Of each rank: frames, the mean script time of one, that of the 95th of a hundred, and the longest."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.add_init_script(WATCH)
    page.goto(address)
    page.locator('button[data-rank="8"]').click()  # who touches it is not shown another rank
    page.wait_for_function(TRAINED)
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable")
    session.send("Emulation.setCPUThrottlingRate", {"rate": slower})
    found = {}
    for rank in RANKS:
        page.evaluate("frames_ms.length = 0")
        before = script_seconds(session)
        page.evaluate(
            """rank => {
              const slider = document.querySelector("#front-rank");
              slider.value = rank;
              slider.dispatchEvent(new Event("input"));
            }""",
            rank,
        )
        page.wait_for_function(TRAINED, polling=500)
        total = script_seconds(session) - before
        spent = page.evaluate("frames_ms")
        found[rank] = (len(spent), 1e3 * total / len(spent), float(np.quantile(spent, 0.95)), max(spent))
    page.close()
    return found


def script_seconds(session: Any) -> float:
    metrics = session.send("Performance.getMetrics")["metrics"]
    return next(each["value"] for each in metrics if each["name"] == "ScriptDuration")
