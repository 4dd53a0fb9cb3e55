"""Mutations that know the structure of what they change, and a process with little memory to try
them in.
"""

import copy
import gc
import struct
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest

from tests.drawing import SHARE, only_full

MEMORY = 256 * 2**20  # bytes, on top of what is in use before the first mutation
SECONDS = 5  # of the processor, for one mutant: most take milliseconds
INTERESTING = [
    0,
    1,
    2,
    3,
    8,
    9,
    31,
    32,
    33,
    255,
    2**16,
    2**31,
    2**32 - 1,
    2**32,
    2**60,
    2**63,
    2**64 - 1,
]
WILD = [
    None, True, False, -1, 0, 1, 2, 3, 7, 2**31, 2**63, 2**70, 10**30, 10**400, 0.0, -0.0, 0.5, 1e300, 1e-300,
    float("nan"), float("inf"), "", "x", "0", "__proto__", "../x", "a\x00b", "(a|a)" * 30 + "b", ".*" * 9, "é" * 300, "\ud800",
    [], [1], [0] * 40, [[]], {}, {"a": 1}, [None, "x", {}],
]  # fmt: skip

#: How many mutants a test tries.
ALL = 20_000
COUNTS = [ALL // SHARE, pytest.param(ALL, marks=[pytest.mark.slow, only_full])]


def places(document):
    """Every container in a document with each of its keys."""
    found, left = [], [document]
    while left:
        part = left.pop()
        keys = (
            list(part)
            if isinstance(part, dict)
            else range(len(part))
            if isinstance(part, list)
            else ()
        )
        found += [(part, key) for key in keys]
        left += [part[key] for key in keys]
    return found


def changed(document, rng, wild=WILD):
    """A copy of a JSON document in which one to three things are another value, elsewhere, more or
    gone.
    """
    document = copy.deepcopy(document)
    for _ in range(rng.integers(1, 4)):
        everywhere = places(document)
        if not everywhere:
            return document
        part, key = everywhere[rng.integers(len(everywhere))]
        other, other_key = everywhere[rng.integers(len(everywhere))]
        kind = rng.integers(7)
        if kind <= 1:
            part[key] = copy.deepcopy(wild[rng.integers(len(wild))])
        elif kind == 2:
            part[key] = copy.deepcopy(other[other_key])
        elif kind == 3:
            del part[key]
        elif kind == 4 and isinstance(part, dict):
            part[str(wild[rng.integers(len(wild))])] = part.pop(key)
        elif kind == 4:
            part *= int(rng.integers(2, 5))
        elif kind == 5 and type(part[key]) in (int, float):
            part[key] = part[key] * (2, -1, 0.5, 10)[rng.integers(4)] + int(rng.integers(-1, 2))
        elif kind == 5:
            part[key] = [part[key]]
        else:
            for _ in range(int(rng.choice([1, 5, 200]))):
                part[key] = [part[key]]
    return document


def overwritten(content, rng, header_size=None):
    """Bytes of which one or two places are other bytes, numbers, cut off or pushed apart; mostly in
    the header.
    """
    content = bytearray(content)
    for _ in range(rng.integers(1, 3)):
        kind = rng.integers(6)
        header = len(content) if header_size is None else min(header_size, len(content))
        place = int(rng.integers(header if rng.random() < 0.8 else len(content)))
        if kind == 0:
            content[place] = rng.integers(256)
        elif kind == 1:
            content[place : place + 8] = struct.pack(
                "<Q", INTERESTING[rng.integers(len(INTERESTING))]
            )
        elif kind == 2:
            content[place : place + 4] = struct.pack("<I", INTERESTING[rng.integers(12)])
        elif kind == 3:
            content[place] ^= 1 << rng.integers(8)
        elif kind == 4 and rng.random() < 0.3:
            del content[place + 1 :]
        elif kind == 5 and rng.random() < 0.3:
            content[place:place] = bytes(rng.integers(1, 9))
    return bytes(content)


def refusal(call, *arguments, errors):
    """What the call returns, and the one line in which it refuses; any other error is raised."""
    start = time.process_time()
    message = ""
    result = None
    try:
        result = call(*arguments)
    except errors as error:
        message = str(error)
        assert 0 < len(message) < 2_000, f"{len(message)} characters: {message[:300]!r}"
        assert message.isprintable(), repr(message)
    assert time.process_time() - start < SECONDS
    return result, message


CHILD = """
import sys
from tests.mutations import begin
begin(*sys.argv[1:])
"""


def in_little_memory(test, folder, count):
    """What ``function(folder, count)`` prints, in a process that has 256 MiB more than the function
    needs to begin.

    The function is named by the module it is in, such as ``"tests.hub.test_gguf:run"``; a first
    round of twenty loads what it imports.
    """
    if sys.platform != "linux":
        pytest.skip("limits of memory are Linux's")
    root = Path(__file__).parent.parent
    command = [sys.executable, "-c", CHILD, test, str(folder), str(count)]
    found = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr[-3_000:]
    return found.stdout


def begin(test, folder, count):
    """In the child: load the function, take away the memory, run it."""
    import resource
    from importlib import import_module

    warnings.simplefilter("error")
    module, _, name = test.partition(":")
    function = getattr(import_module(module), name)
    first = Path(folder) / "first"
    first.mkdir()
    function(first, 20)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    print(function(Path(folder), int(count)))


def is_linear(prepare, call, size):
    """Whether sixteen times the size takes about sixteen times the time, where a square takes 256
    times.

    Both times are returned too. ``size`` is the larger one. The collector of garbage is off, as in
    `timeit`: what it walks through is all that earlier tests have left.
    """
    seconds = []
    gc.disable()
    try:
        for prepared in map(prepare, (size // 16, size)):
            times = []
            for _ in range(3):
                start = time.process_time()
                call(prepared)
                times.append(time.process_time() - start)
            seconds.append(min(times))
    finally:
        gc.enable()
    return seconds[1] < 90 * seconds[0] + 0.2, seconds  # the rest: memory that is cleared meanwhile
