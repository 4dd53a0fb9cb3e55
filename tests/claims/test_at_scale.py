"""The second setup: figures and verdicts of as much as has run, and rules that can be reached."""

import json
import os

import numpy as np
import pytest

import claims
from claims.lab import at_scale
from claims.lab.at_scale import METHODS, SEEDS, Runs, between
from claims.lab.redrawn import rate
from claims.lab.rules import CONTRADICTED, NOT_RUN, NOT_SHOWN, SCALE, STRENGTH, SUPPORTED, Figure
from claims.lab.trial import Number, compared
from tests.drawing import every

RECORDED = claims.records()
SCALES = {name: claims.claim(name).at_scale for name in claims.names()}
SCALES = {name: scale for name, scale in SCALES.items() if scale is not None}
DRAWS = 400 if os.environ.get("LORA_NP_FULL") else 60
SPREAD = 0.0034  # of a paired log ratio: 0.013 nats of some 3.85


def write(folder, runs, name="smollm2"):
    """Lines as `claims.lab.longer` writes them: (method, place, seed, losses)."""
    with (folder / f"{name}.0.jsonl").open("a", encoding="utf-8") as file:
        for name, place, seed, losses in runs:
            run = {"method": name, "rate": rate(place), "seeds": seed}
            logs = {part: [None if x is None else round(x, 4)] for part, x in losses.items()}
            file.write(json.dumps({"run": run} | logs) + "\n")


def bowl(name, best, level, seeds, *, slope=0.0):
    """Two seeds at five rates around the best, the others at the best; each has a level of its own."""
    for seed in range(seeds):
        for place in range(best - 2, best + 3) if seed < 2 else (best,):
            new = level + 0.02 * (place - best) ** 2 + 0.05 * seed
            old = 3 + slope * (place - best)
            yield name, place, seed, {"first": new, "second": new + 0.01, "old": old}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(at_scale, "FOLDER", tmp_path)
    return tmp_path


def found(name):
    return SCALES[name].recorded()


def test_eight_have_a_second_setup_and_ask_for_methods_that_run():
    asked = set()
    for name, scale in SCALES.items():
        runs = Runs()
        scale.measure(runs)
        assert runs.asked
        asked |= {*runs.asked}
        assert {part.figure for part in scale.rule.parts} <= {*scale.figures}, name
        shares = {key for key, label in scale.figures.items() if label.startswith("share")}
        assert {*scale.ratios} == {*scale.figures} - shares
    assert asked == {*METHODS}


@pytest.mark.slow
@every("name", SCALES)
def test_what_is_recorded_follows_from_the_lines(name):
    assert RECORDED[name]["at scale"] == found(name)


def test_labels_and_findings_are_whole():
    labels = [label for scale in SCALES.values() for label in scale.figures.values()]
    assert len({*labels}) == len(labels)
    assert min(len(label.split()) for label in labels) >= 8
    for name, scale in SCALES.items():
        figures = {figure: scale.figure(figure, [1.02, 1.02]) for figure in scale.figures}
        finding = scale.found(figures)
        assert 40 <= len(finding) <= 180
        assert ("2 % above" in finding) == (":than" in scale.finding), name


@every("name", SCALES)
def test_nothing_has_run(folder, name):
    record = found(name)
    assert record["verdict"] == NOT_RUN
    assert record["figures"] == {}
    assert record["seeds"] == []
    assert record["finding"] == "Not run yet."
    assert "nan" not in json.dumps(record).lower()


def test_four_seeds_of_one_method_and_two_of_another(folder):
    write(folder, bowl("MLP, r = 5", -3, 1.3, 4))
    assert found("attention-or-mlp")["verdict"] == NOT_RUN
    write(folder, bowl("attention, r = 8", -2, 1.35, 2))
    two = found("attention-or-mlp")
    assert two["seeds"] == [0, 1]
    assert two["figures"]["gap"]["values"] == pytest.approx([np.exp(0.05)] * 2, abs=1e-3)
    assert "sets" not in two["figures"]["gap"]
    more = [run for run in bowl("attention, r = 8", -2, 1.35, 5) if run[2] >= 2]
    write(folder, more)
    four = found("attention-or-mlp")
    assert four["seeds"] == [0, 1, 2, 3]
    assert four["figures"]["gap"]["sets"] == pytest.approx([np.exp(0.05)] * 2, abs=1e-3)
    assert four["verdict"] == SUPPORTED
    assert four["finding"].startswith("With attention adapted, the loss was 5.1 % above")


def test_one_piece_chooses_the_rate_and_the_other_counts(folder):
    write(folder, bowl("MLP, r = 5", -3, 1.3, 2))
    runs = []
    for seed in range(2):
        for place in range(-5, 0):
            first, second = 1.4 + 0.02 * (place + 3) ** 2, 1.4 + 0.05 * (place + 2) ** 2
            losses = {"first": first, "second": second, "old": 3 + 0.1 * place}
            runs.append(("attention, r = 8", place, seed, losses))
    write(folder, runs)
    # the first piece chooses place -3, where the second has 1.45; the second -2, the first 1.42
    means = np.array([1.435 - 1.305, 1.435 - 1.355])
    values = found("attention-or-mlp")["figures"]["gap"]["values"]
    assert values == pytest.approx(np.exp(means), abs=2e-4)


def test_a_search_that_goes_on_gives_no_figure(folder):
    write(folder, bowl("MLP, r = 5", -3, 1.3, 4))
    ended = [run for run in bowl("attention, r = 8", -2, 1.35, 4) if run[1] <= -2]
    write(folder, ended)  # the best so far is at the end of what was tried
    assert found("attention-or-mlp")["verdict"] == NOT_RUN
    assert found("attention-or-mlp")["figures"] == {}


def test_some_figures_of_a_rule_give_no_verdict_yet(folder):
    write(folder, bowl("LoRA, r = 8", -3, 1.3, 4))
    write(folder, bowl("LoRA, r = 8, kappa / 16", -1, 1.4, 4))
    record = found("one-knob")
    assert record["verdict"] == NOT_RUN
    assert [*record["figures"]] == ["smaller"]
    assert "Not run yet: loss at alpha 32 over loss at alpha 512" in record["sentence"]
    assert "So far: Supported: loss at alpha 2 over" in record["sentence"]


def test_one_rate_for_all_ranks(folder):
    write(folder, bowl("LoRA, r = 8", -3, 1.3, 4))
    write(folder, bowl("LoRA, r = 1", -3, 1.4, 4))
    write(folder, bowl("LoRA, r = 64", -2, 1.3, 4))
    record = found("rate-and-rank")
    assert record["figures"]["lost1"]["values"] == [1, 1, 1, 1]
    assert record["figures"]["lost64"]["values"] == pytest.approx([np.exp(0.02)] * 2, abs=1e-3)
    assert record["figures"]["spread"]["mean"] == pytest.approx(2, rel=0.02)
    assert record["verdict"] == CONTRADICTED  # as its card says: 2 % are lost
    assert "the loss of rank 1 was the same as its own best loss" in record["finding"]


@pytest.mark.slow
def test_the_frontier_compares_at_equal_new_loss(folder):
    for text in ("smollm2", "smollm2-far"):
        write(folder, bowl("LoRA, r = 8", -3, 1.34, 4), text)
        write(folder, bowl("LoRA, r = 64", -3, 1.33, 4), text)
        write(folder, [*bowl("full", -7, 1.3, 4, slope=0.1), *base(1.5, 2.0)], text)
    record = found("forgetting-frontier")
    # two rates below the best the full update's new loss is higher by 0.08, one by 0.02: 0.04 lies
    # a third of the way, where its old loss is lower by 0.1 + 0.1 / 3
    assert record["figures"]["old8"]["values"] == pytest.approx(
        [np.exp(-0.1 - 0.1 / 3)] * 2, abs=1e-3
    )
    # at half of LoRA's best rate, 1.36, and at a quarter, 1.42: there the line comes from the untrained model
    for figure, old in (
        ("far8", -0.1 / 3 - 0.1),
        ("far8_half", -0.5 / 3),
        ("far8_quarter", -1.4 / 3),
    ):
        assert record["figures"][figure]["values"] == pytest.approx([np.exp(old)] * 2, abs=1e-3)
    assert record["verdict"] == CONTRADICTED
    few = [
        run for run in bowl("full", -7, 1.3, 4) if run[1] >= -8
    ]  # back at 0.04 above the best only
    for text in ("smollm2", "smollm2-far"):
        (folder / f"{text}.0.jsonl").unlink()
    write(folder, [*few, *bowl("LoRA, r = 8", -3, 1.34, 4)])
    assert {*found("forgetting-frontier")["figures"]} == {"new8"}
    assert "lost8" not in found("forgetting-frontier")["figures"]  # the base has not run
    # LoRA ends lower: it is brought to the full update's new loss, at a third of the way
    (folder / "smollm2.0.jsonl").unlink()
    write(folder, [*bowl("full", -7, 1.34, 4), *bowl("LoRA, r = 8", -3, 1.3, 4, slope=0.1)])
    assert found("forgetting-frontier")["verdict"] == "not run yet"
    record = found("forgetting-frontier")
    assert record["figures"]["old8"]["values"] == pytest.approx(
        [np.exp(0.1 + 0.1 / 3)] * 2, abs=1e-3
    )
    assert record["figures"]["new8"]["mean"] == pytest.approx(np.exp(0.04), abs=1e-3)
    assert np.isnan(between([(1.0, 5.0), (0.9, 6.0)], 0.8))
    assert between([(1.0, 5.0), (0.9, 6.0)], 0.95) == pytest.approx(5.5)


def base(new, old, seeds=4):
    for seed in range(seeds):
        losses = {"first": new + 0.05 * seed, "second": new + 0.01 + 0.05 * seed, "old": old}
        yield "untrained", 0, seed, losses


@pytest.mark.slow
@pytest.mark.parametrize(("old", "verdict"), [(2.8, "contradicted here"), (3.2, "needs scale")])
def test_forgetting_needs_both_methods_above_the_untrained_model(folder, old, verdict):
    for text in ("smollm2", "smollm2-far"):
        for name, best in (("LoRA, r = 8", -3), ("LoRA, r = 64", -3), ("full", -7)):
            write(folder, bowl(name, best, 1.34, 4), text)
        write(folder, base(1.5, old), text)
    record = found("forgetting-frontier")
    assert record["figures"]["old8"]["values"] == pytest.approx([1] * 2)
    assert record["figures"]["lost8"]["values"] == pytest.approx([np.exp(3 - old)] * 2, rel=1e-3)
    assert record["figures"]["gained8"]["values"] == pytest.approx([np.exp(0.16)] * 4, rel=1e-3)
    assert record["verdict"] == verdict
    assert ("There was nothing to lose" in record["sentence"]) == (verdict == "needs scale")


def test_a_run_that_diverged_is_not_the_best(folder):
    write(folder, bowl("MLP, r = 5", -3, 1.3, 4))
    runs = [*bowl("attention, r = 8", -2, 1.35, 4)]
    last = {"first": None, "second": None, "old": None}
    write(folder, [run if run[1] < -1 else (*run[:3], last) for run in runs])
    record = found("attention-or-mlp")
    assert record["figures"]["gap"]["mean"] == pytest.approx(np.exp(0.05), rel=1e-3)
    assert None in record["methods"]["attention, r = 8"]["rates"][f"{rate(0):g}"]["test"]


def test_rates_chosen_elsewhere(folder):
    """Another program's runs, at the rates that ours have chosen."""
    write(folder, bowl("MLP, r = 5", -3, 1.3, 2))
    write(folder, bowl("attention, r = 8", -2, 1.35, 2))
    other = folder / "other.0.jsonl"
    lines = (folder / "smollm2.0.jsonl").read_text("utf-8").splitlines()
    chosen = (rate(-3), rate(-2))
    kept = [
        line
        for line, want in ((line, json.loads(line)["run"]) for line in lines)
        if want["rate"] == chosen[want["method"].startswith("attention")]
    ]
    other.write_text("\n".join(kept) + "\n", encoding="utf-8")
    scale = SCALES["attention-or-mlp"]
    assert scale.recorded(Runs("other"))["verdict"] == NOT_RUN
    ours, theirs = scale.recorded(), scale.recorded(Runs("other", rates=Runs()))
    assert theirs["figures"] == ours["figures"]


def test_what_torch_and_peft_give_stands_beside_ours(folder):
    for name, best, level in (("MLP, r = 5", -3, 1.3), ("attention, r = 8", -2, 1.35)):
        write(folder, bowl(name, best, level, 4))
        assert "torch and PEFT" not in found("attention-or-mlp")
    text = (folder / "smollm2.0.jsonl").read_text(encoding="utf-8")
    lines = [json.loads(line) for line in text.splitlines()]
    lines = [line for line in lines if line["run"]["seeds"] < 2]
    for line in lines:
        line["second"] = [line["second"][0] + 1e-4]
    peft = folder / "smollm2-peft.0.jsonl"
    peft.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    again = found("attention-or-mlp")["torch and PEFT"]
    assert again["runs"] == len(lines) == 20
    assert 1e-4 * np.exp(1.3) < again["apart"] < 1e-4 * np.exp(1.6)
    assert len(again["figures"]["gap"]["values"]) == 2
    assert again["verdict"] == SUPPORTED
    assert "torch and PEFT" not in found("rslora")


def simulated(scale, truth, rng):
    drawn = {}
    for part in scale.rule.parts:
        values = truth(part) + SPREAD * rng.normal(size=SEEDS)
        drawn[part.figure] = scale.figure(part.figure, np.exp(values))
    return needed(scale) | drawn


def needed(scale):
    """What is to be lost before anything can be kept."""
    parts = [part for part in scale.rule.parts if part.needs]
    return {part.needs: scale.figure(part.needs, [1.1, 1.11, 1.12]) for part in parts}


@every("name", SCALES)
def test_a_rule_is_reached_at_a_known_truth(name):
    """With the spread of the pilot and all seeds: 1 % is told from nothing, and nothing from 1 %."""
    scale, rng = SCALES[name], np.random.default_rng(0)
    share = lambda truth, wanted: np.mean(
        [scale.rule.verdict(simulated(scale, truth, rng)) in wanted for _ in range(DRAWS)]
    )
    beyond = lambda part: np.log(part.bound) + part.sign * 0.02
    short = lambda part: np.log(part.least) - part.sign * 0.02
    assert share(beyond, {SUPPORTED}) >= 0.8
    assert share(short, {CONTRADICTED, SCALE}) >= 0.8
    null = share(lambda part: np.log(part.bound), {SUPPORTED})
    assert null <= 0.05 + 2 * (0.05 * 0.95 / DRAWS) ** 0.5


@every("name", SCALES)
def test_better_evidence_never_gives_a_weaker_verdict(name):
    scale, rng = SCALES[name], np.random.default_rng(0)
    for _ in range(DRAWS):
        drawn = needed(scale)
        for part in scale.rule.parts:
            n = int(rng.choice([2, 4, 6, 12]))
            values = np.log(part.bound) + 0.01 * (rng.normal() + rng.normal(size=n))
            drawn[part.figure] = scale.figure(part.figure, np.exp(values))
        part = scale.rule.parts[rng.integers(len(scale.rule.parts))]
        before = STRENGTH[scale.rule.verdict(drawn)]
        further = np.exp(part.sign * 0.01 * rng.exponential())
        better = [x * further for x in drawn[part.figure].values]
        moved = drawn | {part.figure: scale.figure(part.figure, better)}
        assert STRENGTH[scale.rule.verdict(moved)] >= before


def test_sets_are_halves_of_what_ran():
    figure = SCALES["rslora"].figure
    assert figure("tuned", [1.0, 2.0, 3.0]).sets == []
    assert figure("tuned", [1.0, 1.0, 2.0, 2.0]).sets == pytest.approx([1, 2])
    assert figure("tuned", [1.0, 1.0, 2.0, 2.0, 2.0]).sets == pytest.approx([1, 2])
    assert Figure((1.0,) * 7).sets == []


def test_a_ratio_in_words_says_on_which_side_it_is():
    assert compared(1.05) == "5 % above"
    assert compared(0.95) == "5 % below"
    assert compared(1) == "the same as"
    assert compared(1.0004) == compared(0.9996) == "within 0.05 % of"
    assert compared(0.9993) == "0.07 % below"
    assert f"{Number(0.9876):than}" == "1.2 % below"


def test_few_seeds_show_nothing_of_a_small_effect(folder):
    write(folder, bowl("MLP, r = 5", -3, 1.3, 4))
    rng = np.random.default_rng(0)
    runs = [
        (name, place, seed, {part: x + 0.02 * rng.normal() for part, x in losses.items()})
        for name, place, seed, losses in bowl("attention, r = 8", -2, 1.305, 4)
    ]
    write(folder, runs)
    record = found("attention-or-mlp")
    assert record["verdict"] == NOT_SHOWN
    assert "would have been seen" in record["sentence"]
