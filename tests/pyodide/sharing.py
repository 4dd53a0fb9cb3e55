"""Share the tests between two processes, file by file: a plugin for pytest.

One process begins with the first file and one with the last. A file belongs to whichever makes its
folder in `TAKEN` first, so both end at the same time, however long each file takes.
"""

from pathlib import Path
from urllib.parse import quote

import pytest

TAKEN = Path("/wheels/taken")  # on the host, where both processes see it


def pytest_addoption(parser):
    parser.addoption("--begin", choices=["first", "last"], required=True)


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session):
    files = {}
    for item in session.items:
        files.setdefault(item.nodeid.partition("::")[0], []).append(item)
    names = list(files)
    for name in names if session.config.option.begin == "first" else reversed(names):
        try:
            (TAKEN / quote(name, safe="")).mkdir()
        except FileExistsError:
            continue
        for item, following in zip(files[name], [*files[name][1:], None], strict=True):
            session.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
    return True
