"""The page that says what the suites written elsewhere have found: its tables are made here, and
held against a run.
"""

import os
import re
from pathlib import Path

import pytest

# Plugins of runs of other suites, which need what those runs set.
collect_ignore = ["peft_cases.py", "with_our_decompositions.py"]

PAGE = Path(__file__).parents[2] / "docs" / "develop" / "foreign.md"


@pytest.fixture(scope="session")
def on_page():
    return compare_with_page


def compare_with_page(suite, version, unit, counts):
    """The table headed ``suite version`` on the page has these counts; with FOREIGN_WRITE=1, it
    gets them.

    Of another version of the suite nothing is expected. Where a derivative is lost in rounding
    depends on the processor, so a count may be off by one in fifty.
    """
    lines = [
        f"| {suite} {version} | {unit} |",
        "|---|---|",
        *(f"| {row} | {n:,} |" for row, n in counts.items()),
    ]
    text = PAGE.read_text(encoding="utf-8")
    pattern = rf"^\| {re.escape(suite)} (\S+) \|.*\n(?:\|.*\n)+"
    found = re.search(pattern, text, flags=re.MULTILINE)
    assert found, f"{PAGE.name} has no table of {suite}"
    if os.environ.get("FOREIGN_WRITE") == "1":
        PAGE.write_text(text.replace(found[0], "\n".join(lines) + "\n"), encoding="utf-8")
    elif found[1] == version:
        rows = re.findall(r"^\| (.*) \| ([\d,]+) \|$", found[0], flags=re.MULTILINE)
        written = {row: int(n.replace(",", "")) for row, n in rows}
        assert list(written) == list(counts)
        different = {
            row: (written[row], n)
            for row, n in counts.items()
            if abs(written[row] - n) > 1 + n / 50
        }
        assert not different, f"on the page and found: {different}; FOREIGN_WRITE=1 writes the page"
