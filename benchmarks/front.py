"""What the site's first page costs: script time a frame while B and A are trained, in a slow
Chromium.

The budget is 8 ms, slowed down four times. Needs playwright, Chromium, and a built site
(``--site``).
"""

from __future__ import annotations

import argparse
import json
import shutil
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np

from benchmarks._measure import versions
from lora_np.table import Table

BUDGET = 8.0  # ms
RANKS = (1, 8, 20, 54, 60)
FRAMES = 150
# Counts the frames in which the page has run.
COUNT = """
window.frames_run = 0;
const ask = window.requestAnimationFrame.bind(window);
window.requestAnimationFrame = (callback) => ask((time) => {
  window.frames_run += 1; callback(time); });
"""
CHOOSE = """rank => {
  window.frames_run = 0;
  const slider = document.querySelector("#front-rank");
  slider.value = rank;
  slider.dispatchEvent(new Event("input"));
}"""


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments: Any) -> None:
        """Nothing: requests are not what is measured."""


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks front", description=__doc__)
    parser.add_argument("--site", type=Path, default=Path("docs/_build/html"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="once, and a few frames")
    parser.add_argument("--slower", type=float, default=4.0)
    options = parser.parse_args(arguments)
    frames = 3 if options.quick else FRAMES
    if options.quick:
        options.rounds = 1
    from playwright.sync_api import sync_playwright

    with (
        ThreadingHTTPServer(
            ("127.0.0.1", 0), partial(Quiet, directory=str(options.site))
        ) as server,
        sync_playwright() as playwright,
    ):
        threading.Thread(target=server.serve_forever, daemon=True).start()
        flags = ["--no-sandbox", "--disable-gpu"]
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=flags)
        address = f"http://127.0.0.1:{server.server_port}/index.html"
        rounds = [measured(browser, address, options.slower, frames) for _ in range(options.rounds)]
        name = f"Chromium {browser.version}"
        browser.close()
        server.shutdown()
    rows = [[rank, *(median(each[rank][i] for each in rounds) for i in range(3))] for rank in RANKS]
    table = Table(
        ["rank", "mean", "95 in 100 below", "longest"],
        rows,
        title=f"Front page, {options.slower:g} times slowed down: ms of script a frame",
        notes=[
            (
                f"CPU time; medians of {options.rounds} rounds of {frames} frames; the budget is"
                f" {BUDGET:g} ms"
            ),
            f"{name}, {versions('playwright')}",
        ],
        formats=dict.fromkeys(("mean", "95 in 100 below", "longest"), "{:.1f}".format),
    )
    print(table)


def measured(
    browser: Any, address: str, slower: float, frames: int
) -> dict[int, tuple[float, ...]]:
    """Of each rank: the script time of frames, in ms: the mean, the 95th of a hundred, and the
    longest.
    """
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.add_init_script(COUNT)
    page.goto(address)
    page.context.new_cdp_session(page).send("Emulation.setCPUThrottlingRate", {"rate": slower})
    found: dict[int, tuple[float, ...]] = {}
    for rank in RANKS:
        browser.start_tracing(page=page, categories=["devtools.timeline"])
        page.evaluate(CHOOSE, rank)
        page.wait_for_function(f"frames_run >= {frames}", polling=200, timeout=0)
        events = json.loads(browser.stop_tracing())["traceEvents"]
        # CPU time of the thread: what else runs on the machine does not count
        spent = [
            each["tdur"] / 1e3
            for each in events
            if each["name"] == "FireAnimationFrame" and "tdur" in each
        ]
        found[rank] = (mean(spent), float(np.quantile(spent, 0.95)), max(spent))
    page.close()
    return found
