"""The study of LoRA's learning rate: laws as written, an exact identity, and the order of commits."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest

import lora_np as lnp
from claims import rate_law_rule as rule, rate_law_runs as runs
from claims.lab import batched, kept
from claims.lab.text import adapted
from claims.rate_law_rule import Measured, Point
from tests.claims.history import follows, need_history, on_page
from tests.drawing import few


@pytest.mark.parametrize("family", runs.FAMILIES)
def test_recorded_lines_follow_the_committed_rule(family):
    follows(f"rate-law.{family}.jsonl", "rate_law_rule.py")


@pytest.mark.parametrize("seed", few(range(40), 8))
def test_law_b_is_the_root_of_its_equation_and_has_both_ends(seed):
    rng = np.random.default_rng(seed)
    full, alpha, k = 10 ** rng.uniform(-5, 0), 10 ** rng.uniform(0, 6), rng.integers(16, 4096)
    lora = rule.law_b(full, alpha, k)
    assert alpha * lora * (rule.C1 / k + rule.G * lora) == pytest.approx(full)
    assert lora < min(rule.law_a(full, alpha), rule.frozen_a(full, alpha, k))
    step = 1e-5
    slope = np.log(rule.law_b(full * (1 + step), alpha, k) / lora) / np.log1p(step)
    assert slope == pytest.approx(rule.steepness(full, alpha, k), rel=1e-3)
    knee = rule.knee(full, k)
    assert rule.law_a(full, knee) == pytest.approx(rule.frozen_a(full, knee, k))
    ends = [rule.steepness(full, knee * x, k) for x in (1e-6, 1, 1e6)]
    assert ends == pytest.approx([0.5, 0.7236, 1], abs=2e-3)
    # the identity: inputs over c, W times c
    c = 2.0 ** rng.integers(-8, 9)
    assert rule.law_b(full * c, alpha, k) == pytest.approx(rule.law_b(full, alpha / c, k))


def test_the_slopes_that_are_committed_are_those_of_law_b():
    def slope(family, ks, alphas, x, **more):
        ends = [Point("", family, k, alpha, **more) for k, alpha in zip(ks, alphas, strict=True)]
        lora = [rule.expected_lora(point) for point in ends]
        return np.log(lora[1] / lora[0]) / np.log(x)

    def by_gain(family):
        ends = [Point("", family, 128, setting={"gain": gain}) for gain in (1 / 64, 8)]
        return np.log(rule.expected_lora(ends[1]) / rule.expected_lora(ends[0])) / np.log(512)

    base = {"setting": {"base": 1}}
    sgd, frozen = {"setting": {"sgd": 1}}, {"lora": {"frozen": 1}}
    found = {
        "digits 96, alpha 2 to 2,048": slope("digits", (96, 96), (2, 2048), 1024),
        "digits 96, alpha 32,768 to 524,288": slope("digits", (96, 96), (32768, 524288), 16),
        "text 128, alpha 2 to 128": slope("text", (128, 128), (2, 128), 64),
        "text 128, alpha 1,024 to 8,192": slope("text", (128, 128), (1024, 8192), 8),
        "text 256, alpha 2 to 128": slope("text", (256, 256), (2, 128), 64, **base),
        "text 256, alpha 2,048 to 16,384": slope("text", (256, 256), (2048, 16384), 8, **base),
        "digits 128, gain 1/64 to 8": by_gain("digits"),
        "text 128, gain 1/64 to 8": by_gain("text"),
        "digits, width 96 to 384": slope("digits", (96, 384), (32, 32), 4),
        "text, width 64 to 384": slope("text", (64, 384), (32, 32), 6, **base),
        "digits 128, steps, of full": rule.steepness(0.038, 32, 128),
        "text 128, steps, of full": rule.steepness(0.0024, 32, 128),
        "text 128, bases and sceptics, of full": rule.steepness(0.0024, 32, 128),
        "digits 96, frozen A, alpha 2 to 8,192": slope(
            "digits", (96, 96), (2, 8192), 4096, **frozen
        ),
        "text 128, frozen A, alpha 8 to 2,048": slope("text", (128, 128), (8, 2048), 256, **frozen),
        "digits 96, SGD, alpha 8 to 128": slope("digits", (96, 96), (8, 128), 16, **sgd),
        "text 128, SGD, alpha 8 to 128": slope("text", (128, 128), (8, 128), 16, **sgd),
    }
    assert found == pytest.approx(dict(rule.SLOPES), abs=1e-3)


def test_points_are_named_apart_and_the_pilots_are_not_held_out():
    points = rule.points()
    names = [point.name for point in points]
    assert len({*names}) == len(names)
    assert sum(point.held for point in points) >= rule.POINTS_NEEDED
    tried = {(family, k, alpha) for family, k, alpha, *_ in rule.PILOT}
    for point in points:
        plain = not point.setting and not point.lora and point.rank == 8
        if plain and (point.family, point.k, point.alpha) in tried:
            assert not point.held, point.name


def test_an_input_over_c_is_alpha_over_c_to_the_last_bit_and_c_times_the_full_rate():
    """The identity, on trained networks."""
    plain, scaled = (runs.Digits(steps=40, width=16, gain=gain) for gain in (1, 1 / 8))
    method = {"kind": "lora", "rank": 2}
    one = plain.runs(range(8), [0.03], **method, alpha=4.0)
    other = scaled.runs(range(8), [0.03], **method, alpha=32.0)
    assert np.array_equal(one["first"], other["first"])
    assert np.isfinite(one["first"]).all()
    full = {"kind": "full", "targets": runs.Digits.targets}
    one, other = (
        setup.runs(range(8), [rate], **full) for setup, rate in ((plain, 0.02), (scaled, 0.16))
    )
    np.testing.assert_allclose(one["second"], other["second"], rtol=0.02)


def test_gains_leave_the_function_and_the_full_update_trains_w_alone():
    base = batched.readers(0)[0]
    x = np.random.default_rng(0).normal(size=(5, 64)).astype(np.float32)
    assert np.array_equal(runs.scaled(base, 1 / 64)(x), base(x))
    model = runs.Text(gain=0.125).base(0)
    tokens = np.arange(12).reshape(1, 12)
    assert np.array_equal(model(tokens), runs.Text().base(0)(tokens))
    assert not np.array_equal(
        lnp.value(model.model.layers[0].self_attn.q_proj.W),
        lnp.value(runs.Text().base(0).model.layers[0].self_attn.q_proj.W),
    )
    setup = runs.Digits(steps=1)
    tasks = setup.tasks([0])
    (start,) = batched.starts(setup, tasks, [0], {"kind": "full", "targets": setup.targets})
    assert [path for path, _ in lnp.trainable(runs.without_bias(start))] == ["layers.2.W"]


def test_text_with_nothing_changed_is_the_text_of_the_other_claims():
    from claims.lab import text

    small = {"steps": 8, "batch": 2, "length": 16, "rows": 4}
    for method in (adapted(2), {"kind": "full", "targets": "all-linear"}):
        one, other = (kind(**small).once(1, 0.004, **method) for kind in (runs.Text, text.Text))
        assert one == pytest.approx(other, rel=1e-6)
    plain = runs.Text(**small).once(1, 0.02, **adapted(2))["first"]
    for change in (
        {"constant": True},
        {"clip": None},
        {"decay": 0.5},
        {"beta2": 0.9},
        {"sgd": True},
        {"gain": 1.0},
    ):
        assert runs.Text(**small, **change).once(1, 0.02, **adapted(2))["first"] != plain, change


class Valley(runs.Study):
    """A study whose best rates are known."""

    def __post_init__(self):
        super().__post_init__()
        self.count = 0

    def setup(self, point):
        study = self

        class Known:
            targets = "all-linear"

            def runs(self, seeds, rates, **method):
                study.count += 1
                best = 0.003 if method["kind"] == "full" else 0.011
                logs = [
                    [0.1 * np.log(lr / best) ** 2 + seed / 100 for lr in rates] for seed in seeds
                ]
                return dict.fromkeys(("first", "second"), np.exp(logs))

        return Known()


def test_a_search_finds_the_best_rate_and_a_second_one_repeats_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "RUNS", tmp_path)
    monkeypatch.setattr(kept, "committed", lambda path: "abc")
    point = Point("alpha", "text", 128, 32)
    first, again = Valley(), Valley()
    found = first.measured(point)
    assert found.full == pytest.approx(0.003, rel=0.02)
    assert found.lora == pytest.approx(0.011, rel=0.02)
    expected = 0.1 * np.log(found.predicted / 0.011) ** 2
    assert found.cost == pytest.approx(np.expm1(expected) * np.exp(0.055), abs=0.02)
    assert first.count > 0
    assert again.measured(point) == found
    assert again.count == 0
    with pytest.raises(kept.OutOfTimeError):
        Valley(minutes=0).measured(replace(point, alpha=64))


def test_a_verdict_counts_held_out_points_and_can_say_every_word():
    points = [point for point in rule.points() if point.held]

    def verdict_of(factor, cost=0.0, chosen=points):
        rng = np.random.default_rng(0)
        made = []
        for i, point in enumerate(chosen):
            full = float(10 ** rng.uniform(-4, -2))  # the rivals are off by far
            predicted = rule.expected_lora(point, full)
            made.append(Measured(point, full, predicted * (factor if i % 3 == 0 else 1.05), cost))
        return rule.verdict(made, [1.01], [1.1])[0]

    assert verdict_of(1.05) == "supported"
    assert verdict_of(1.05, cost=0.02) == "mixed"
    assert verdict_of(1.6) == "contradicted here"
    assert verdict_of(1.05, chosen=points[:25]) == "not run yet"
    assert verdict_of(1.05, chosen=points[:5]) == "not run yet"
    full = [Measured(point, 0.002, rule.expected_lora(point, 0.002), 0) for point in points]
    assert rule.verdict(full, [1.06], [1.0])[0] == "mixed"
    assert rule.verdict(full, [], [])[0] == "mixed"


def test_a_rule_that_is_not_committed_records_nothing():
    need_history()
    with pytest.raises(SystemExit, match="commit the rule first"):
        kept.committed(kept.HERE / "never-written.py")


def test_a_peak_is_the_vertex_of_a_parabola():
    for best in (0.0013, 0.004, 0.019):
        logs = {p: 0.2 * np.log(rule.rate(p) / best) ** 2 for p in range(-24, 24)}
        for offsets in rule.OFFSETS.values():
            assert rule.peak(logs, offsets) == pytest.approx(best, rel=1e-3)
    flat = dict.fromkeys(range(-5, 6), 1.0) | {0: 0.5, 2: np.inf, 1: np.inf, -1: np.inf}
    assert rule.peak(flat, (-2, -1, 0, 1, 2)) == pytest.approx(rule.rate(0), rel=1e-3)


def test_the_page_says_what_is_recorded():
    """python -m claims.rate_law_runs --page writes it."""
    assert on_page(runs.PAGE, "published") == runs.published()
    measured = runs.recorded()
    assert on_page(runs.PAGE, "recorded") == runs.report(measured)
    assert on_page(runs.PAGE, "picture") == runs.picture(measured)


def test_the_learning_rates_are_equal_at_the_alpha_that_the_page_names():
    text = runs.PAGE.read_text(encoding="utf-8")
    for name, k, full, alpha in (("text", 128, 0.0025, 105), ("SmolLM2", 576, 1e-4, 830)):
        assert re.search(rf"\b{alpha} on (our )?{name}", text)
        assert rule.law_b(full, alpha, k) == pytest.approx(full, rel=0.01)


def test_the_picture_has_every_held_out_point_and_those_beyond_the_band():
    measured = runs.recorded()
    drawn = runs.picture(measured)
    held = [one for one in measured if one.point.held]
    band = re.search(r'polygon class="band" points="([\d.]+),([\d.]+)', drawn)
    left, top_of_band = map(float, band.groups())
    bottom = 348.0
    marks = [(float(x), float(y)) for x, y in re.findall(r"M([\d.]+) ([\d.]+)m", drawn)]
    points = [(x, y) for x, y in marks if x != left + 14]  # without those of the key
    assert (len(points), len(marks)) == (len(held), len(held) + 3)
    far = [abs((bottom - y) - (x - left)) > bottom - top_of_band for x, y in points]
    misses = sum(one.factor > rule.WITHIN for one in held)
    assert abs(sum(far) - misses) <= 1  # a factor of 1.5 may be drawn on either side


def test_every_grid_that_has_run_is_closed_around_its_best_rate():
    """Read from the lines: the best rate of all seeds of a set has all its neighbours."""
    sides = {}
    for family in runs.FAMILIES:
        path = kept.RUNS / f"rate-law.{family}.jsonl"
        for text in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
            line = json.loads(text)
            run = line["run"]
            of_rate = sides.setdefault((run["point"], run["side"]), {}).setdefault(run["rate"], {})
            logs = [np.inf if x is None else x for half in batched.HALVES for x in line[half]]
            of_rate[run["seed"]] = np.mean(logs)
    measured = runs.recorded()
    assert len(measured) >= 45
    for one in measured:
        point, n = one.point, rule.SETS[one.point.family]
        for side, name, first in (("full", point.full, 0), ("lora", point.name, n)):
            width = n if point.family == "digits" else 1
            seeds = {*range(first, first + n, width)}
            means = {rate: np.mean([found[seed] for seed in seeds])
                     for rate, found in sides[name, side].items() if seeds <= {*found}}  # fmt: skip
            places = {place: means[rate] for place in range(-40, 40)
                      if (rate := rule.rate(place)) in means}  # fmt: skip
            best = min(places, key=places.get)
            assert {best + i for i in rule.OFFSETS[point.family]} <= {*places}, name


def test_the_identity_holds_for_the_recorded_rates_of_the_full_update():
    found = runs.identities(runs.recorded())
    assert len(found) == 6
    assert max(found) <= rule.IDENTITY


def test_slopes_are_found_between_the_ends_that_the_rule_names():
    """Points that follow B at the expected full rates have B's slopes."""
    exact = []
    for i, point in enumerate(rule.points()):
        spread = 1.1 ** (i % 3) if point.part in ("steps", "base", "sceptic") else 1
        full = rule.expected_full(point) * spread
        exact.append(Measured(point, full, rule.expected_lora(point, full), 0))
    found = runs.slopes(exact)
    assert found.keys() == rule.SLOPES.keys()
    for name, slope in found.items():
        assert slope == pytest.approx(rule.SLOPES[name], abs=0.02), name
    assert runs.identities(exact) == pytest.approx([1] * 6)
    some = [one for one in exact if one.point.family == "digits"]
    assert {name.split()[0].strip(",") for name in runs.slopes(some)} == {"digits"}


def test_the_best_rates_of_another_program_are_compared_at_the_same_seeds(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "RUNS", tmp_path)
    monkeypatch.setattr(kept, "committed", lambda path: "abc")

    class Peft:
        def once(self, seed, lr, **method):
            assert seed in range(4, 8)
            return dict.fromkeys(("first", "second"), np.exp(0.1 * np.log(lr / 0.0121) ** 2))

    assert runs.agreement(Peft()) == []  # nothing to compare with
    for point in runs.AGAIN:
        Valley().measured(point)
    assert runs.agreement() == []
    assert runs.agreement(Peft()) == pytest.approx([1.1, 1.1], abs=0.02)
    assert runs.agreement() == pytest.approx([1.1, 1.1], abs=0.02)
