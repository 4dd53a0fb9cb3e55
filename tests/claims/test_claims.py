"""Claims: what is recorded follows the protocol, and every verdict follows from its numbers by the
written rule.
"""

import ast
import copy
import importlib
import json
import re
from itertools import pairwise

import numpy as np
import pytest

import claims
from claims.__main__ import check, compared, main
from claims.lab import recording, redrawn, tasks
from claims.lab.protocol import FACTOR, Claim, Lab
from claims.lab.recording import RESULTS
from claims.lab.rules import CONTRADICTED, NOT_SHOWN, SCALE, SUPPORTED, VERDICTS
from claims.lab.trial import decided, figures_of, read
from lora_np.cli import run
from tests.drawing import every

NAMES = claims.names()
RECORDED = claims.records()
LONGEST = 15 * 60  # seconds of a core


def test_there_are_two_dozen_claims_all_recorded():
    assert len(NAMES) >= 24
    assert sorted(RECORDED) == NAMES


def test_every_module_beside_the_two_studies_is_a_claim():
    """Tools are in claims/lab; the studies keep their files, whose order of commits others check."""
    studies = {
        f"{study}_{kind}" for study in ("rate_law", "reward_rank") for kind in ("rule", "runs")
    }
    files = {path.stem for path in RESULTS.parent.glob("*.py")}
    own = files - {"__init__", "__main__", "rate_law_peft"} - studies
    assert own == {name.replace("-", "_") for name in NAMES}
    for name in own:
        module = importlib.import_module(f"claims.{name}")
        assert isinstance(module.CLAIM, Claim), f"claims/{name}.py is a tool: move it to claims/lab"
    for path in RESULTS.parent.joinpath("lab").glob("*.py"):
        tool = importlib.import_module(f"claims.lab.{path.stem}")
        assert not hasattr(tool, "CLAIM"), f"{path.name} is a claim: move it out of claims/lab"


@every("name", NAMES)
def test_a_claim_is_short_complete_and_public(name):
    path = RESULTS.parent / f"{name.replace('-', '_')}.py"
    text = path.read_text(encoding="utf-8")
    assert 30 <= text.count("\n") <= 210
    claim = claims.claim(name)
    for part in ("title", "paper", "topic", "refuted_by", "setup", "setting", "limits", "advice"):
        assert getattr(claim, part), part
    for trial in filter(None, (claim, claim.at_scale)):
        parts = {part.figure for part in trial.rule.parts}
        needed = {part.needs for part in trial.rule.parts} - {""}
        assert parts | needed | {*trial.ratios, *trial.counted, *trial.beats} <= {*trial.figures}
        assert len(parts) == len(trial.rule.parts), "a figure has one bound"
        assert trial.headline in trial.figures
        assert 4 <= len(trial.words.split()) <= 12
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and node.module.startswith("lora_np"):
            assert node.module.count(".") <= 1, node.module
            module = importlib.import_module(node.module)
            assert all(hasattr(module, alias.name) for alias in node.names)


@pytest.mark.slow
@every("name", NAMES)
def test_words_and_verdicts_follow_from_the_file_and_the_figures(name):
    claim, record = claims.claim(name), RECORDED[name]
    assert recording.words(claim).items() <= record.items()
    first = record.get("alone", record["verdict"])
    assert first == claim.rule.verdict(read(claim, record["figures"]))
    assert record["quick"] == recording.quickly(record["quick"], first)
    for part in (record, record["quick"], record.get("other seeds", record)):
        assert part["figures"].keys() == claim.figures.keys()
        found = decided(claim, part["figures"])
        assert part["sentence"].endswith(found["sentence"])
        assert part["cannot tell"] == found["cannot tell"]
        assert part["parts"] == found["parts"]
        own = found["verdict"]
        if part is record:
            own = tasks.verdict(name, own, recording.failed(record))
        assert part.get("found", part["verdict"]) == own
        values = {figure: numbers["values"] for figure, numbers in part["figures"].items()}
        choices = {figure: one.get("choice", 0.0) for figure, one in part["figures"].items()}
        assert part["figures"] == figures_of(claim, values, choices)


@every("name", NAMES)
def test_both_scales_stand_in_one_verdict(name):
    record = RECORDED[name]
    large = record.get("at scale")
    assert record["verdicts"] == (
        record["verdict"]
        if large is None
        else f"small: {record['verdict']}; 135M: {large['verdict']}"
    )
    for one in filter(None, (record, large)):
        for part in one["parts"]:
            assert {"figure", "bound", "sign", "worth", "verdict", "seen", "reach"} <= {*part}


def test_a_label_says_by_itself_what_a_figure_is():
    for name in NAMES:
        labels = claims.claim(name).figures
        assert len({*labels.values()}) == len(labels), name
        for label in labels.values():
            assert not re.search(
                r"\b(the same|that of these|as the first|as the second)\b", label
            ), label
            assert len(label.split()) >= 5, label


def test_no_largest_over_smallest_has_an_interval_below_one():
    for name in NAMES:
        for figure, label in claims.claim(name).figures.items():
            if label.startswith("largest") and " over the smallest" in label:
                assert figure in claims.claim(name).ratios
                assert RECORDED[name]["figures"][figure]["low"] >= 1


def test_two_thirds_of_quick_runs_agree_and_the_others_show_nothing():
    agree = []
    for name in NAMES:
        if RECORDED[name]["quick"]["verdict"] == RECORDED[name].get("alone", RECORDED[name]["verdict"]):  # fmt: skip
            agree.append(name)
    assert len(agree) >= 20
    assert all(RECORDED[name]["quick"]["verdict"] == "not shown" for name in {*NAMES} - {*agree})


def mutations(figures):
    """The same figures with one or all of them moved: what a wrong digit or another world would
    give.
    """
    rng = np.random.default_rng(0)
    moves = [
        lambda x: 0.0,
        lambda x: -x,
        lambda x: 3 * x,
        lambda x: 10 * x,
        lambda x: x / 10,
        lambda x: x + 1,
        lambda x: x - 1,
        lambda x: 1 + 0.01 * np.sin(99 * x),  # nothing but noise
    ]
    for name in figures:
        for move in moves:
            yield {**figures, name: moved(move, figures[name])}
    for _ in range(300):
        yield {
            name: moved(moves[rng.integers(len(moves))], figure) for name, figure in figures.items()
        }


def moved(move, figure):
    return {"values": [None if x is None else move(x) for x in figure["values"]]}


@pytest.mark.slow
@every("name", NAMES)
def test_other_numbers_turn_the_verdict(name):
    claim, record = claims.claim(name), RECORDED[name]
    reached = {claim.rule.verdict(read(claim, figures)) for figures in mutations(record["figures"])}
    assert len(reached | {record["verdict"]}) >= 2
    assert reached - {record["verdict"]}
    assert reached <= {*VERDICTS}


@every("name", NAMES)
def test_every_way_was_swept_until_neither_end_was_best(name):
    record = RECORDED[name]
    for method, sweep in record["methods"].items():
        rates = {float(rate): runs for rate, runs in sweep["rates"].items()}
        order = sorted(rates)
        place = order.index(sweep["best"])
        assert 0 < place < len(order) - 1
        drawn = "validation" not in rates[sweep["best"]]  # each seed draws everything
        setup, _, own = method.partition(": ")
        seeds = range(redrawn.sweeps(setup)[own].seeds if drawn else 5)
        for near in (place - 1, place, place + 1):
            assert rates[order[near]]["seeds"] == [*seeds]
        for low, high in pairwise(order):
            steps = np.log(high / low) / np.log(redrawn.FACTOR if drawn else FACTOR)
            beside = sweep["best"] in (low, high)  # a rate far from the best may stand alone
            assert abs(steps - (1 if beside else round(steps))) < 0.05
        if drawn:
            known = redrawn.sweeps(setup)[own]
            for half in redrawn.HALVES:
                means = [
                    np.mean(known.logs(known.best(half, seeds) + i, half, seeds))
                    for i in (-1, 0, 1)
                ]
                assert means[1] == min(means)
        else:
            assert all(len(runs["seeds"]) >= 2 for runs in rates.values())
            means = [
                mean(rates[order[near]]["validation"]) for near in (place - 1, place, place + 1)
            ]
            assert means[1] == min(means)


def mean(values):
    return np.inf if None in values else np.mean(values)


def test_times_are_within_what_a_reader_is_told():
    for name, record in RECORDED.items():
        assert record["seconds"] <= LONGEST, name
    halves = [0.0, 0.0]  # as CI runs them, side by side
    for record in RECORDED.values():
        halves[record["setup"].startswith("language")] += record["quick"]["seconds"]
    assert max(halves) <= 3 * 60


def test_no_claim_turns_from_supported_to_contradicted_with_other_seeds():
    again = {name: record for name, record in RECORDED.items() if "other seeds" in record}
    for name, record in again.items():
        assert not {*record["seeds"]} & {*record["other seeds"]["seeds"]}
        assert not {SUPPORTED, CONTRADICTED} <= {record["other seeds"]["verdict"], record["verdict"]}, name  # fmt: skip
    two = 0
    for name, record in RECORDED.items():
        claim = claims.claim(name)
        for part in claim.rule.parts:
            figure = claim.figure(part.figure, record["figures"][part.figure]["values"])
            if figure.halves:
                two += 1
                found = {*map(part.verdict, figure.halves)}
                assert not {SUPPORTED, CONTRADICTED} <= found, (name, part.figure)
    assert len(again) + two >= 60


def test_published_figures_stand_beside_ours_and_what_needs_scale_says_which():
    assert sum(bool(record["published"]) for record in RECORDED.values()) >= 5
    for name, record in RECORDED.items():
        if claims.claim(name).rule.scale:
            assert record["verdict"] == SCALE, name
        assert claims.claim(name).rule.scale in record["sentence"]


class Bowl:
    """A setup whose best rate is known: the loss is smallest at ``best`` and grows with the distance
    in powers.
    """

    def __init__(self, best):
        self.best, self.runs = best, 0

    def __repr__(self):
        return f"Bowl({self.best}, {id(self)})"

    def shortened(self):
        return self

    def run(self, lr, seed, **method):
        self.runs += 1
        noise = 1e-3 * np.random.default_rng([seed, round(1e6 * lr)]).normal()
        loss = (np.log10(lr) - np.log10(self.best)) ** 2 + noise
        return {"validation": loss, "test": loss} if lr < 30 * self.best else {"validation": np.nan}


@pytest.mark.parametrize("best", [1e-4, 3e-3, 1e-2, 0.05, 1.0])
def test_the_search_finds_the_best_rate_wherever_it_starts(best, tmp_path, monkeypatch):
    for start in (-3, 0, 2):
        setup, lab = Bowl(best), Lab()
        lab.notes, lab.known = tmp_path / "notes", {}
        sweep = lab.sweep("method", setup, start=start)
        assert abs(np.log(sweep.best / best)) <= np.log(FACTOR) / 2 + 1e-2
        assert np.abs(np.log(sweep.peaks() / best)).max() < 0.2
        once = setup.runs
        lab.sweep("again", setup, start=start)
        assert setup.runs == once  # what is noted is not run again


def test_the_check_of_ci_finds_a_figure_outside_its_interval_and_a_turned_verdict(
    tmp_path, monkeypatch
):
    name = "nf4-optimal"
    monkeypatch.setattr(recording, "RESULTS", tmp_path)
    for moved, verdict_then, in_full, found in [
        (0, None, None, 0), (1, None, None, 1), (0, SUPPORTED, SUPPORTED, 1), (0, SUPPORTED, None, 0),
    ]:  # fmt: skip
        record = copy.deepcopy(RECORDED[name])
        figure = record["quick"]["figures"]["use"]
        figure.update(low=figure["low"] + 9 * moved, high=figure["high"] + 9 * moved)
        record["quick"]["found"] = verdict_then or record["quick"]["found"]
        record["verdict"] = in_full or record["verdict"]
        recording.write(name, record)
        assert len(check(name, claims.claim(name))) == found


def test_a_quick_run_is_held_to_its_own_verdict_and_not_to_that_of_the_full_run(
    tmp_path, monkeypatch
):
    name = "vera-numbers"  # mixed, and so in small
    monkeypatch.setattr(recording, "RESULTS", tmp_path)
    record = copy.deepcopy(RECORDED[name]) | {"verdict": NOT_SHOWN}
    record["quick"] = recording.quickly(record["quick"], NOT_SHOWN)
    assert record["quick"]["verdict"] == NOT_SHOWN
    recording.write(name, record)
    assert not check(name, claims.claim(name))


@pytest.mark.parametrize("page", ["README.md", "docs/index.md"])
def test_the_front_pages_count_verdicts(page):
    large = [record["at scale"] for record in RECORDED.values() if "at scale" in record]
    said = f"small: {counted(RECORDED.values())}; 135M: {counted(large)}"
    (row,) = (
        line
        for line in (RESULTS.parents[1] / page).read_text("utf-8").splitlines()
        if "claims of papers" in line
    )
    assert f"{len(NAMES)} claims of papers" in row
    assert f"| {said} |" in row


def counted(records):
    """How many have each verdict, in words."""
    found = [record["verdict"] for record in records]
    return ", ".join(f"{found.count(name)} {name}" for name in VERDICTS if name in found)


def test_the_command_shows_all_and_one(capsys):
    def said(*arguments):
        assert run([*arguments]) == 0
        return capsys.readouterr().out

    shown = said("claims")
    for name, record in RECORDED.items():
        assert name in shown
        assert record["verdicts"] in shown
        assert record["title"] in shown
    one = said("claims", "rslora")
    for part in ("verdicts", "sentence", "rule", "limits", "advice"):
        assert RECORDED["rslora"][part] in one
    assert RECORDED["rslora"]["at scale"]["sentence"] in one
    for label in RECORDED["rslora"]["at scale"]["meaning"].values():
        assert label[:40] in one
    assert json.loads(said("claims", "rslora", "--json"))["title"] == RECORDED["rslora"]["title"]
    assert run(["claims", "nonsense"]) == 2
    assert "nonsense" in capsys.readouterr().err


def commanded(monkeypatch, *arguments):
    monkeypatch.setattr("sys.argv", ["python -m claims", *map(str, arguments)])
    main()


def test_run_trains_into_a_folder_and_touches_nothing_else(tmp_path, monkeypatch, capsys):
    """Small, so that it takes seconds: a setup of one by one runs, and one whose seeds draw all."""
    files = [path for path in RESULTS.parent.rglob("*") if path.suffix in (".json", ".jsonl")]
    before = {path: path.read_bytes() for path in files}
    commanded(
        monkeypatch, "run", "scaled-descent", "--seeds", 2, "--first", 1000, "--out", tmp_path
    )
    said = capsys.readouterr().out
    seconds = float(re.search(r"\((\d+\.\d) CPU seconds", said)[1])
    assert "published: supported" in said
    assert "CPU seconds in all" in said
    found = json.loads((tmp_path / "scaled-descent.json").read_text(encoding="utf-8"))
    assert found["seeds"] == [1000, 1001]
    assert len(found["figures"]["gain"]["values"]) == 2
    assert found["figures"]["gain"]["values"] != RECORDED["scaled-descent"]["figures"]["gain"]["values"][:2]  # fmt: skip
    assert [*tmp_path.glob("descent-1000-1001.jsonl")]
    assert seconds < 60
    assert {path: path.read_bytes() for path in files} == before
    assert {*RESULTS.parent.rglob("*.jsonl")} | {*files} == {*files} | {*RESULTS.parent.glob(".runs.jsonl")}  # fmt: skip


def test_a_figure_at_the_best_rate_of_another_method_includes_the_choice_of_that_rate():
    assert RECORDED["rslora"]["figures"]["fixed"]["choice"] > 0.1
    small, plain, _ = Lab(recorded=RECORDED["rslora"]).redrawn(
        "digits", "LoRA, r = 4, alpha = 16", "LoRA, r = 64, alpha = 16", "rsLoRA, r = 64"
    )
    chosen = set()
    for number in range(20):
        with redrawn.resampled(number):
            chosen.add(float(np.mean(plain.losses(at=small.sweep))))
    assert len(chosen) > 1
    assert np.all(np.isfinite([*chosen]))


def test_a_run_with_fewer_seeds_says_what_as_many_recorded_ones_decide():
    claim, known = claims.claim("batch-size"), RECORDED["batch-size"]
    said = lambda verdict, count: compared(
        claim, {"verdict": verdict, "seeds": range(count)}, known
    )
    assert said("supported", 8) == "published: supported, from 64 seeds"
    assert said("not shown", 64) == "published: supported, from 64 seeds"
    alone = []
    for first in range(0, 64, 8):
        figures = copy.deepcopy(known["figures"])
        for part in claim.rule.parts:
            figures[part.figure]["values"] = figures[part.figure]["values"][first : first + 8]
        alone.append(decided(claim, figures)["verdict"])
    count = alone.count("supported")
    assert count < 8
    assert f"8 recorded seeds give 'supported' in {count} of 8 sets" in said("not shown", 8)
    task = compared(claims.claim("lora-xs"), {"verdict": "supported", "seeds": range(8)}, RECORDED["lora-xs"])  # fmt: skip
    assert task == "published: depends on the task, from 64 seeds; of the task that ran here: supported"  # fmt: skip


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "rslora"),
        ("run", "--out", "x"),
        ("run", "rslora", "--out", "x", "--seeds", "1"),
        ("run", "rslora", "--out", str(RESULTS)),
        ("show", "nonsense"),
    ],
)
def test_the_command_says_what_it_wants(arguments, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        commanded(monkeypatch, *arguments)
    assert re.search(r"wants the NAME|lies in claims/|no claim is called", capsys.readouterr().err)


def test_show_computes_what_is_recorded_and_writes_nothing(monkeypatch, capsys):
    path = RESULTS / "vera-numbers.json"
    before = path.read_bytes()
    commanded(monkeypatch, "show", "vera-numbers")
    said = capsys.readouterr().out
    for figure in RECORDED["vera-numbers"]["figures"].values():
        assert str(figure["mean"]) in said
    assert path.read_bytes() == before
