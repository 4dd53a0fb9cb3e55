"""Files that no program wrote: each is refused in one clear line, or inspected and checked as it is."""

import os
import re
import warnings

from lora_np import adapters
from lora_np.files import FileError
from tests.drawing import every
from tests.laws.hostile_files import CASES, FURTHER


def clear(text):
    """Whether a message is one line that no program wrote for itself."""
    spoilt = r"Traceback|object at 0x|invalid literal|unpack|list index|keyword argument"
    return bool(text) and text.isprintable() and not re.search(spoilt, text)


def written(case, folder):
    """The path of the files: one alone is an adapter itself."""
    folder.mkdir()
    for name, content in case.items():
        (folder / name).write_bytes(content)
    return folder / next(iter(case)) if len(case) == 1 else folder


opened = set()


@every("name", CASES)
def test_every_file_is_refused_in_a_line_or_opened(tmp_path, name):
    path = written(CASES[name], tmp_path / str(len(os.listdir(tmp_path))))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            seen = adapters.inspect(path)
            report = adapters.check(path)
        except FileError as error:
            message = str(error)
        else:
            message = ""
    if message:
        assert clear(message), message
        return
    opened.add(name)
    for row in seen.rows:
        assert row.status in ("ok", "DEAD", "NOT FINITE")
    assert {row.module for row in report.rows}
    for text in (str(seen), str(report), seen.to_json(), report.to_json()):
        assert all(line.isprintable() for line in text.splitlines())


def test_there_are_enough_of_them_and_some_are_opened():
    assert len(CASES) > 310
    assert len(FURTHER) >= 30
    assert "a module of html" in CASES
