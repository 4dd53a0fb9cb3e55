"""How much of a long sweep a run takes: a fixed share, or all of it where LORA_NP_FULL=1."""

import functools
import inspect
import os
from pathlib import Path
from zlib import crc32

import pytest

FULL = os.environ.get("LORA_NP_FULL") == "1"
QUARTER = os.environ.get("LORA_NP_QUARTER") == "1" and not FULL
SHARE = 20
Case = type(pytest.param())

#: For what only a full run does.
only_full = pytest.mark.skipif(not FULL, reason="with LORA_NP_FULL=1")


def twentieth(cases):
    """One case in twenty, the same ones in every run; all of them in a full run."""
    return few(cases, SHARE)


def few(cases, share):
    """One case in ``share``, the same ones in every run; all of them in a full run."""
    cases = list(cases)
    return cases if FULL else cases[share // 2 :: share] or cases[:1]


def examples(number):
    """How many of ``number`` examples Hypothesis tries: all in a full run, else a tenth, but no
    fewer than 15.
    """
    return number if FULL else min(number, max(number // 10, 15))


def peak_memory():
    """The most memory that this process has held, in MiB; ``ru_maxrss`` counts its parent too."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) // 1024


def in_quarter(name):
    """Whether a test is one of the quarter that is run again in a second environment."""
    return crc32(name.encode()) % 4 == 0


def every(names, cases):
    """One test that takes every case, where `pytest.mark.parametrize` would make a test of each.

    For thousands of cases of a millisecond: to collect and report a test takes longer than that.
    The cases share the fixtures of the test; what fails names its case.
    """
    names = [name.strip() for name in names.split(",")] if isinstance(names, str) else names
    cases = [
        case if isinstance(case, Case) else pytest.param(*([case] if len(names) == 1 else case))
        for case in cases
    ]
    assert not any(case.marks for case in cases), "a case of many has no mark of its own"

    def decorate(test):
        signature = inspect.signature(test)

        @functools.wraps(test)
        def all_of_them(**fixtures):
            for case in cases:
                given = dict(zip(names, case.values, strict=True))
                try:
                    test(**given, **fixtures)
                except pytest.skip.Exception:
                    continue
                except BaseException as error:
                    error.add_note(f"case {case.id or ''}: {given!r}"[:2_000])
                    raise

        all_of_them.__signature__ = signature.replace(
            parameters=[p for name, p in signature.parameters.items() if name not in names]
        )
        return all_of_them

    return decorate
