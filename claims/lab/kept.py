"""Runs of long studies, kept as they come: a line of JSON for each, with the commit of its rule.

A study has a rule, a file of `claims` that is committed before any of its runs. Lines are appended
whole, so that several processes may write to one file and a process that is killed loses the run it
was at, and no other. What is there does not run again.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parents[1]
RUNS = HERE / "runs"


class OutOfTimeError(Exception):
    """The minutes that were asked for are over."""


@dataclass(frozen=True)
class Kept:
    """The lines of one file, and the rule that they follow."""

    path: Path | None  # None keeps them in memory, for a quick run
    rule: Path
    ends: float = float("inf")  # in seconds of `time.monotonic`

    @functools.cached_property
    def lines(self) -> dict[str, dict[str, Any]]:
        """What is recorded, by the key of the run."""
        if self.path is None or not self.path.exists():
            return {}
        found = {}
        for text in self.path.read_text(encoding="utf-8").splitlines():
            try:
                line = json.loads(text)
            except json.JSONDecodeError:  # a line that was being written when the machine stopped
                continue
            found[key(line["run"])] = line
        return found

    @functools.cached_property
    def commit(self) -> str:
        """The commit of the rule as it is now: a rule that is not committed records nothing."""
        if self.path is None:
            return "quick"
        return committed(self.rule)

    def once(self, run: Mapping[str, Any], compute: Any) -> dict[str, Any]:
        """The line of a run: from the file, or computed and appended to it."""
        name = key(run)
        if name not in self.lines:
            if time.monotonic() > self.ends:
                raise OutOfTimeError
            commit, begin = self.commit, time.process_time()
            values = compute()
            seconds = round(time.process_time() - begin, 2)
            line = {"run": dict(run)} | values | {"rule": commit, "cpu": seconds}
            self.append(line)
            self.lines[name] = line
        return self.lines[name]

    def append(self, line: Mapping[str, Any]) -> None:
        """One write of a whole line, after one that a crash has cut."""
        if self.path is None:
            return
        self.path.parent.mkdir(exist_ok=True)
        cut = self.path.exists() and not self.path.read_bytes().endswith(b"\n")
        text = ("\n" if cut and self.path.stat().st_size else "") + json.dumps(line) + "\n"
        file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            os.write(file, text.encode())
        finally:
            os.close(file)


def key(run: Mapping[str, Any]) -> str:
    return json.dumps(run, sort_keys=True)


def git(*words: str) -> str:
    """What git answers about this repository."""
    done = subprocess.run(
        ["git", *words], cwd=HERE.parent, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def committed(rule: Path) -> str:
    """The commit that holds the rule as the file is now."""
    if git("status", "--porcelain", "--", str(rule)):
        raise SystemExit(f"{rule.name} has changes that are not committed: commit the rule first")
    found = git("log", "-1", "--format=%H", "--", str(rule))
    if not found:
        raise SystemExit(f"{rule.name} was never committed: commit the rule first")
    return found[:12]


def share(text: str) -> tuple[int, int]:
    """Which share of the work, of how many: ``0/2``."""
    part, _, of = text.partition("/")
    numbers = int(part), int(of or 1)
    if not 0 <= numbers[0] < numbers[1]:
        raise ValueError(f"part must be such as 0/2 or 1/2, got {text!r}")
    return numbers


def write_page(page: Path, parts: Mapping[str, str]) -> None:
    """Write figures into a page: each part stands between comments with its name."""
    text = page.read_text(encoding="utf-8")
    for name, part in parts.items():
        first, last = (
            text.index(comment) for comment in (f"<!-- {name} -->", f"<!-- end of {name} -->")
        )
        text = f"{text[:first]}<!-- {name} -->\n\n{part}\n\n{text[last:]}"
    page.write_text(text, encoding="utf-8")
