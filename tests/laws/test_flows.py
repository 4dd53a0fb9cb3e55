"""How much of the package one small use of each kind goes through: benchmarks/calls.py says why
where it is more.
"""

from pathlib import Path

import pytest

from benchmarks.calls import FILES, calls, flows

NAMES = ("count", "one step of fit", "resize", "merge", "convert", "finetune", "plan", "grade")


@pytest.fixture(scope="module")
def uses(tmp_path_factory):
    return flows(tmp_path_factory.mktemp("flows"))


def test_every_use_is_here(uses):
    assert tuple(uses) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_use_takes_few_files_or_the_benchmark_says_why(uses, name):
    flow = uses[name]
    assert flow.files == FILES if not flow.why else flow.files > FILES
    entered = calls(flow.use)
    assert 0 < len(entered) <= flow.files, sorted(entered)
    assert all(Path("lora_np", file).is_file() for file in entered)
