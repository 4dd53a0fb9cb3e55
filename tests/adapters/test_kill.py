"""``kill -9`` in the midst of replacing: the old or the new stands whole, and the next run succeeds."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest

from lora_np.cli import run

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL here")

SHAPES = {f"model.layers.{i}.q_proj": (256, 192) for i in range(6)}

# Replaces the target by one result and by the other, for ever: whenever the kill comes, it comes in the midst.
ENDLESS = """
import contextlib, io, sys
from lora_np.cli import run
first, second = (text.split("\\t") for text in sys.argv[1:])
while True:
    for arguments in (first, second):
        with contextlib.redirect_stdout(io.StringIO()):
            assert run(arguments) == 0
    print("ready", flush=True)  # once all is imported
"""


def content(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def results(commands, target):
    found = []
    for arguments in commands:
        assert run(arguments) == 0
        found.append(content(target))
    return found


def killed(commands, moment):
    process = subprocess.Popen(
        [sys.executable, "-c", ENDLESS, *("\t".join(arguments) for arguments in commands)],
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout.readline() == "ready\n"
        time.sleep(moment)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL


def check(commands, target, capsys, *, in_the_midst, at_least=1):
    """Kill until so many runs were in the midst of writing: how long they write, of all they do, may change."""
    possible = results(commands, target)
    assert possible[0] != possible[1]
    moments = random.Random(0)
    seen = 0
    for times in range(1, 121):
        killed(commands, moments.uniform(0.0, 0.4))
        places = [place for place in target.parent.iterdir() if target.name in place.name and place.is_dir()]
        whole = [content(place) for place in places]
        assert any(found in possible for found in whole)
        assert not target.exists() or content(target) in possible
        seen += any(name.startswith(f".{target.name}") for name in os.listdir(target.parent))
        assert results(commands[:1], target) == possible[:1]
        assert not [name for name in os.listdir(target.parent) if name.startswith(".")]
        if times >= at_least and seen >= in_the_midst:
            break
    capsys.readouterr()
    assert seen >= in_the_midst


@pytest.fixture
def commands(request, make_adapter, make_checkpoint, tmp_path):
    """Two commands that replace the same target, by their name."""
    base = make_checkpoint("base", shapes=SHAPES, shards=3)
    a, b = (make_adapter(name, shapes=SHAPES, rank=12, seed=i) for i, name in enumerate("ab"))
    ends = ["-o", str(tmp_path / "target"), "--force"]
    return {
        "merge": [["merge", str(base), str(adapter), *ends] for adapter in (a, b)],
        "resize": [["resize", str(a), "--rank", rank, *ends] for rank in ("3", "9")],
    }[request.param]


@pytest.mark.parametrize("commands", ["merge", "resize"], indirect=True)
def test_killed_once(commands, tmp_path, capsys):
    check(commands, tmp_path / "target", capsys, in_the_midst=0)


@pytest.mark.slow
@pytest.mark.parametrize("commands", ["merge", "resize"], indirect=True)
def test_killed_at_twenty_random_moments(commands, tmp_path, capsys):
    check(commands, tmp_path / "target", capsys, in_the_midst=5, at_least=20)
