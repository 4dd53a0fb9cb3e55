"""Six broken adapters: each has its cause, the tools tell them apart, and the notebook says who is right."""

import json
from pathlib import Path

import numpy as np
import pytest

from lora_np import adapters, language
from notebooks import broken
from tests.drawing import FULL

SEEDS = range(10 if FULL else 2)
HEALTHY = language.located_adapter("king-james")
BASE = HEALTHY.parent
MEANT = 2.0  # alpha / r of the healthy adapter


def diagnosed(folder):
    """The cause, by what the three tools show, in the order in which the notebook's end asks."""
    modules = adapters.inspect(folder).table.records
    statuses = {row["status"] for row in modules}
    if "NOT FINITE" in statuses:
        return "NaN"
    if statuses == {"DEAD"}:
        return "zero"
    if max(row["scale"] for row in modules) < MEANT / 100:
        return "scale"
    rows = adapters.check(folder, runtime="peft", base=BASE).rows
    if any("no module of the base" in row.why for row in rows):
        return "names"
    if any("use the base" in row.fix for row in rows):
        return "wrong base"
    rows = adapters.check(folder, runtime="all", base=BASE).rows
    assert any("tied" in row.why for row in rows)
    return "tied head"


@pytest.fixture(scope="module")
def drills(tmp_path_factory):
    """By their seeds: the folder, and what answers a guess."""
    folders = {seed: tmp_path_factory.mktemp("drill") for seed in SEEDS}
    return {seed: (folder, broken.build(folder, seed)) for seed, folder in folders.items()}


@pytest.mark.parametrize("seed", SEEDS)
def test_each_cause_is_found_by_inspect_and_check(drills, seed):
    folder, answer = drills[seed]
    assert sorted(broken.order(seed)) == sorted(broken.CAUSES) == sorted(broken.BREAK)
    for number, cause in enumerate(broken.order(seed), start=1):
        assert diagnosed(folder / str(number)) == cause
        assert answer(number, cause) == "Right."
        others = {answer(number, other) for other in broken.CAUSES if other != cause}
        assert others == {"No. Which line of a table says so?"}
    assert answer(1, "___").startswith("the cause must be one of NaN, names, ")


def test_the_healthy_adapter_has_none_of_the_causes():
    rows = adapters.inspect(HEALTHY).table.records
    assert {row["status"] for row in rows} == {"ok"}
    assert {row["scale"] for row in rows} == {MEANT}
    assert adapters.check(HEALTHY, runtime="peft", base=BASE).fine


def test_symptoms_are_what_the_notebook_says(drills):
    """Of those that the package can attach: what the model then thinks of Genesis."""
    seed, (folder, _) = 0, drills[0]
    model, text = language.load("austen"), language.read_text("genesis")[-2_000:]
    base = language.likelihood(model, text).loss
    numbers = {cause: n for n, cause in enumerate(broken.order(seed), start=1)}

    def loss(cause):
        adapter = adapters.load(folder / str(numbers[cause]))
        with np.errstate(all="ignore"):
            return language.likelihood(adapters.attach(model, adapter), text).loss

    assert loss("zero") == base
    assert 0 < abs(loss("scale") - base) < 0.05
    assert abs(loss("tied head") - base) > 0.05  # it has an effect
    for cause, told in [("names", "the model has no"), ("wrong base", "does not fit")]:
        with pytest.raises(ValueError, match=told):
            loss(cause)
    broken_by_nan = adapters.attach(model, adapters.load(folder / str(numbers["NaN"])))
    with pytest.raises(FloatingPointError, match="not finite"):
        language.generate(broken_by_nan, "And ", tokens=1)


def test_a_seed_gives_the_same_files_and_another_seed_others(drills, tmp_path):
    def files(folder):
        return [path.read_bytes() for path in sorted(folder.rglob("*.safetensors"))]

    broken.build(tmp_path, 0)
    first = files(tmp_path)
    assert len(first) == 6
    assert first == files(drills[0][0]) != files(drills[1][0])
    assert len({tuple(broken.order(seed)) for seed in range(10)}) > 5


def test_the_page_and_the_notebook_name_every_cause():
    page = (Path(__file__).parents[2] / "docs" / "learn" / "drill.md").read_text("utf-8")
    for cause in broken.CAUSES:
        assert f"<summary>{cause[0].upper()}{cause[1:]}: " in page


def test_all_cells_run_and_a_right_answer_is_told(tmp_path):
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    from notebooks import drill

    book = drill.notebook()
    assert json.dumps(book) == json.dumps(drill.notebook())
    for number, cause in enumerate(broken.order(drill.SEED), start=1):
        (cell,) = [cell for cell in book.cells if cell.id == f"answer-{number}"]
        assert cell.source == f'answer({number}, "___")'
        cell.source = cell.source.replace("___", cause)
    nbclient.NotebookClient(book, timeout=600, resources={"metadata": {"path": tmp_path}}).execute()
    said = [cell.outputs for cell in book.cells if cell.id.startswith("answer")]
    assert [out.data["text/plain"] for (out,) in said] == ["'Right.'"] * 6
