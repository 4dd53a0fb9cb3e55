"""How much of the package one small use of each kind goes through: benchmarks/calls.py says why
where it is more.
"""

from collections import Counter
from pathlib import Path

import pytest

from benchmarks.calls import FILES, flows, watch

NAMES = (
    "count", "one step of fit", "resize", "merge", "convert", "convert, with the base",
    "convert to GGUF", "extract", "repair", "check", "load", "finetune", "plan", "grade",
)  # fmt: skip
#: functions, changes of file and calls, at most
MOST = {"merge": (226, 1_000, 4_900), "convert to GGUF": (242, 3_130, 10_400)}


@pytest.fixture(scope="module")
def uses(tmp_path_factory):
    return flows(tmp_path_factory.mktemp("flows"))


def test_every_use_is_here(uses):
    assert tuple(uses) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_use_takes_few_files_or_the_benchmark_says_why(uses, name):
    flow = uses[name]
    assert flow.files == FILES if not flow.why else flow.files > FILES
    seen = watch(flow.use)
    assert 0 < len(seen.files) <= flow.files, sorted(seen.files)
    assert all(Path("lora_np", file).is_file() for file in seen.files)
    if flow.bases:  # each is opened once: no file of it is read, and no config understood, twice
        assert seen.built <= flow.bases
        assert seen.read
        assert max(seen.read.values()) == 1, seen.read
    sizes = len(seen.calls), seen.changes, sum(seen.calls.values())
    for size, most in zip(sizes, MOST.get(name, sizes), strict=True):
        assert 0 < size <= most


def test_a_use_is_watched_by_file_and_function():
    from lora_np import hub
    from lora_np.files import read_json

    config = hub.directory("austen") / "config.json"
    seen = watch(lambda: [read_json(config), hub.directory("austen"), read_json(config)])
    assert seen.read == Counter({str(config): 2})
    assert seen.calls["files.py", "read_json"] == 2
    assert seen.files.keys() == {"files.py", "hub/folders.py"} | seen.files.keys()
    assert seen.files["hub/folders.py"] >= 2
    assert seen.changes == 2
    assert not seen.built
