"""The study of rewards and rank: tasks as the rule says, an unbiased estimator, and known optima."""

import json
from itertools import product

import numpy as np
import pytest

import lora_np as lnp
from claims import reward_rank_rule as rule, reward_rank_runs as runs
from claims.lab import kept
from claims.reward_rank_runs import Bandit, Study, Writer, advantages, surrogate, to_go
from lora_np import language
from tests.claims.history import follows, on_page
from tests.drawing import few
from tests.language.conftest import random_model
from tests.rounding import in_double


@pytest.mark.parametrize("seed", few(range(40), 6))
def test_a_task_has_the_rank_and_the_bits_that_the_rule_says(seed):
    for bits in rule.BITS:
        one, sixteen = (rule.teacher(geometry, bits, seed) for geometry in rule.GEOMETRIES)
        assert np.linalg.matrix_rank(one) == 1
        assert np.linalg.matrix_rank(sixteen) == 16
        assert [np.sum(T**2) / 64 for T in (one, sixteen)] == pytest.approx([1, 1])
        # the same diagonals, and so the same bits: rank 1 shows them
        rows, columns = rule.diagonals(bits, np.random.default_rng([seed, 41, bits]))
        plain = rule.orthonormal(0)[:, 0], rule.orthonormal(1)[:, 0]
        found = one / np.outer(*plain)
        ratio = found / np.outer(rows, columns)
        assert np.allclose(ratio, ratio[0, 0], rtol=1e-6)
        levels = [len({*np.round(x, 6)}) for x in (rows, columns)]
        assert max(levels) <= (2 if bits == 22 else 16)
    drawn = {rule.teacher(1, 22, other).tobytes() for other in range(seed, seed + 20)}
    assert len(drawn) == 20


@pytest.mark.parametrize("seed", few(range(30), 5))
def test_the_estimator_is_the_exact_gradient_of_the_bandit_on_average(seed):
    """Over all pairs of actions of a context, by their probability, with the other as baseline."""
    rng = np.random.default_rng(seed)
    z, log_p0 = rng.normal(size=(1, 5)), runs.log_softmax(rng.normal(size=(1, 5)))
    rewards, beta = rng.normal(size=(1, 5)), rule.BETA
    exact = lnp.Tensor(z.copy())
    np.sum(runs.expected(runs.log_softmax(exact), log_p0, rewards)).backward()
    mean = np.zeros_like(z)
    for pair in product(range(5), repeat=2):
        leaf = lnp.Tensor(z.copy())
        log_p = runs.log_softmax(leaf)
        some = (np.zeros(2, int), np.array(pair))
        returns = (rewards - beta * (log_p.data - log_p0))[some]
        surrogate(log_p[some], advantages(returns, axis=0)).backward()
        mean -= leaf.grad * np.exp(log_p.data[some].sum())
    np.testing.assert_allclose(mean, exact.grad, rtol=1e-5, atol=1e-12)
    wrong = mean * 0.5  # as the mean of both samples as baseline would give
    assert not np.allclose(wrong, exact.grad, rtol=1e-5)


@pytest.mark.parametrize("seed", few(range(20), 4))
def test_weights_of_sampled_actions_are_the_estimator(seed):
    """What the bandit trains with is the surrogate of the actions that the noise chooses."""
    rng = np.random.default_rng(seed)
    shape = (2, 3, rule.CONTEXTS, 64)
    z, log_p0 = rng.normal(size=shape), runs.log_softmax(rng.normal(size=shape))
    rewards, noise = rng.normal(size=shape), rng.random((2, 1, rule.CONTEXTS, rule.SAMPLES, 1))
    log_p = runs.log_softmax(z)
    weights = runs.sampled(log_p, log_p0, rewards, noise)
    cumulated = np.cumsum(np.exp(log_p), axis=-1)
    for i, j in product(range(2), range(3)):
        expected = np.zeros((rule.CONTEXTS, 64))
        for c in range(rule.CONTEXTS):
            actions = [int(np.searchsorted(cumulated[i, j, c], u)) for u in noise[i, 0, c, :, 0]]
            earned = [
                rewards[i, j, c, a] - rule.BETA * (log_p - log_p0)[i, j, c, a] for a in actions
            ]
            for place, a in enumerate(actions):
                others = np.mean(earned[:place] + earned[place + 1 :])
                expected[c, a] += (earned[place] - others) / (rule.CONTEXTS * rule.SAMPLES)
        np.testing.assert_allclose(weights[i, j], expected, atol=1e-7)


@pytest.mark.parametrize("written", [1, 2])
def test_the_estimator_is_the_exact_gradient_of_a_language_model_on_average(written):
    """Over all continuations, by their probability: E[reward] - beta KL, with rewards to go."""
    model = in_double(random_model(vocab_size=5))
    base = lnp.freeze(model)
    policy = lnp.inject(model, rank=2, targets="all-linear", rng=0)
    rng = np.random.default_rng(1)
    policy = lnp.replace(
        policy,
        lnp.Tensor,
        lambda path, leaf: lnp.Tensor(leaf.data + 0.3 * rng.normal(size=leaf.shape)),
    )
    ends = np.array([*product(range(5), repeat=written)])
    tokens = np.column_stack([np.full(len(ends), 3), np.full(len(ends), 1), ends])
    labels = np.column_stack([np.full(len(ends), -100), ends])
    reward, beta = rng.normal(size=(5, 5))[tokens[:, 1:-1], ends], 0.3

    def log_p(one):
        return language.log_probabilities(one, tokens[:, :-1], labels)[:, 1:]

    def gradient(loss):
        loss.backward()
        found = np.concatenate([leaf.grad.ravel() for _, leaf in lnp.trainable(policy)])
        for _, leaf in lnp.trainable(policy):
            leaf.grad = None
        return found

    whole, theirs = log_p(policy), log_p(base)
    p = np.exp(np.sum(whole, axis=1))
    earned = np.sum(reward - beta * (whole - theirs), axis=1)
    exact = gradient(-np.sum(p * earned))
    ours = log_p(policy)
    returns = to_go(reward - beta * (lnp.value(ours) - theirs))
    weights = returns * lnp.value(p)[:, None]
    estimated = gradient(surrogate(ours, weights) * ours.size)
    np.testing.assert_allclose(estimated, exact, rtol=1e-5, atol=1e-5 * np.abs(exact).max())
    if written == 2:  # the divergence of this token only is not enough
        short = to_go(reward) - beta * (lnp.value(ours) - theirs)
        wrong = gradient(
            surrogate(ours := log_p(policy), short * lnp.value(p)[:, None]) * ours.size
        )
        assert np.linalg.norm(wrong - exact) > 1e-3 * np.linalg.norm(exact)


def test_the_optimum_of_the_bandit_is_where_the_rule_says():
    """T / beta as the update reaches J*, and no step from there is better."""
    setup = Bandit(16, 22, range(2))
    base, optimum = setup.references()
    _, held, W0, T = setup.drawn
    rewards, log_p0 = held @ runs.transposed(T), runs.log_softmax(held @ runs.transposed(W0))
    there = lambda change: runs.expected(
        runs.log_softmax(held @ runs.transposed(W0 + T / rule.BETA + change)), log_p0, rewards
    )
    assert np.allclose(there(0), optimum, rtol=1e-5)
    assert (base < optimum - 0.3).all()
    rng = np.random.default_rng(0)
    for _ in range(5):
        assert (there(0.05 * rng.normal(size=W0.shape)) < optimum).all()


def test_sixteen_ranks_close_a_gap_that_one_cannot_and_a_kill_loses_one_run(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "RUNS", tmp_path)
    monkeypatch.setattr(kept, "committed", lambda path: "abc")
    few_steps, study = (16, 22, 40), Study()
    one, full = (study.bandit(few_steps, rank, 0, width=2).mean() for rank in (1, 0))
    assert one < 0.3 < full
    path = tmp_path / "reward-rank.bandit.jsonl"
    lines = path.read_text().splitlines()
    assert all(json.loads(line)["rule"] == "abc" for line in lines)
    path.write_text("\n".join(lines[:-1]) + "\n" + lines[-1][:20])  # killed while writing
    again = Study()
    assert again.bandit(few_steps, 0, 0, width=2).mean() == pytest.approx(full, abs=1e-4)
    rows = path.read_text().splitlines()
    assert len(rows) == len(lines) + 1  # the cut line, and the run that it was
    assert json.loads(rows[-1])["run"] == json.loads(lines[-1])["run"]


def test_a_reward_is_of_the_character_that_earns_it():
    encode = lambda text: np.array([Writer("lipogram", 0).base.vocabulary.encode(text)])
    text = "the sea " + "see so, It's Sense: ness"
    lost, won = (Writer(task, 0).earned(encode(text))[0] for task in rule.LANGUAGE)
    written = text[rule.PROMPT :]
    assert len(written) == rule.WRITTEN
    assert [written[i] for i in np.flatnonzero(lost)] == ["e"] * written.count("e")
    assert [*np.flatnonzero(won)] == [0, 4, 13]


def test_a_verdict_asks_for_small_intervals_and_can_say_every_word():
    rng = np.random.default_rng(0)
    tasks = runs.tasks()

    def verdict_of(size, shift):
        return rule.verdict({task: shift(*task) + size * rng.normal(size=8) for task in tasks})[0]

    assert verdict_of(0.001, lambda g, b, n: 0.1 * (b == 512)) == "supported"
    assert verdict_of(0.001, lambda g, b, n: 0.1 * (g == 16)) == "contradicted here"
    assert verdict_of(0.001, lambda g, b, n: 0.0) == "mixed"
    assert verdict_of(0.2, lambda g, b, n: 0.1 * (g == 16)) == "not shown"
    _, facts = rule.verdict(
        {task: 0.1 * (task[2] == 150) + 1e-4 * rng.normal(size=8) for task in tasks}
    )
    assert facts[2].startswith("steps explains")
    assert facts[0].startswith("geometry does not explain")


def test_recorded_lines_follow_the_committed_rule():
    for name in ("bandit", "language"):
        follows(f"reward-rank.{name}.jsonl", "reward_rank_rule.py")


def test_every_grid_of_the_bandit_is_closed_and_small_effects_would_have_been_seen():
    """Read from the lines: no end of a grid is better than all rates between the ends."""
    ends, grids = {}, {}
    for text in (kept.RUNS / "reward-rank.bandit.jsonl").read_text(encoding="utf-8").splitlines():
        line = json.loads(text)
        run = line["run"]
        of_task = tuple(run[name] for name in ("geometry", "bits", "seeds"))
        if "rate" in run:
            same = *of_task, run["steps"], run["rank"], run.get("exact")
            base, optimum = ends[of_task]
            share = (np.array(line["J"]) - base) / (optimum - base)
            grids.setdefault(same, {})[run["rate"]] = share
        else:
            ends[of_task] = np.array(line["base"]), np.array(line["optimum"])
    assert len(grids) >= 8 * 4 + 8
    for (*_, exact), grid in grids.items():
        rates = sorted(grid)
        assert np.allclose(np.diff(np.log2(rates)), 1, atol=1e-2)
        for half in (slice(None),) if exact else (slice(None, 4), slice(4, None)):
            means = [grid[rate][half].mean() for rate in rates]
            assert max(means[1:-1]) > max(means) - 1e-5  # at the optimum, rates tie
    known = Study(minutes=0)
    effects = rule.causes(runs.behind(known, runs.blocks(known)))
    assert max(one.smallest for one in effects.values()) <= rule.SMALLEST


def test_the_page_says_what_is_recorded():
    """python -m claims.reward_rank_runs --page writes it."""
    known = Study(minutes=0)
    assert on_page(runs.PAGE, "bandit") == runs.report(known)
    assert on_page(runs.PAGE, "language") == runs.language_report(known)


def test_ranks_on_language_stand_beside_what_needs_no_learning(tmp_path, monkeypatch):
    """With known J: each rank at its best rate, the rule's words, and nothing before it has run."""
    monkeypatch.setattr(runs, "RUNS", tmp_path)
    monkeypatch.setattr(kept, "committed", lambda path: "abc")
    assert runs.language_report(Study(minutes=0)) == "Not run yet."

    class Known:
        def __init__(self, task, seed):
            self.seed = seed

        def references(self):
            return {"base": -0.1, "no foresight": -0.03, "ban": -0.028, "optimum": -0.01}

        def trained(self, rank, lr):
            return {1: -0.04, 16: -0.02, 0: -0.04}[rank], np.log(lr / 0.003) ** 2

        def measured(self, model):
            best, off = model
            return {"J": best - 0.01 * off + 1e-4 * self.seed + 1e-4 * (self.seed % 2) * best}

    monkeypatch.setattr(runs, "Writer", Known)
    for _ in range(2):  # nothing runs twice
        runs.languages(Study(), 0, 1, ["lipogram"])
    text = runs.language_report(Study(minutes=0))
    assert "- lipogram, without learning: base -0.1000, no foresight -0.0300, ban -0.0280, optimum -0.0100 (" in text  # fmt: skip
    assert text.count("8 seeds:") == 3
    assert "rank 1 beside full: **no worse**, " in text
    assert "rank 1 beside rank 16: **worse**, -0.2" in text
    assert "s words" not in text
    rates = {}
    for line in (tmp_path / "reward-rank.language.jsonl").read_text().splitlines():
        run = json.loads(line)["run"]
        if "rank" in run:
            rates.setdefault((run["rank"], run["rate"]), []).append(run["seed"])
    for rank in rule.LANGUAGE_RANKS:
        own = {rate: seeds for (r, rate), seeds in rates.items() if r == rank}
        (best,) = (rate for rate, seeds in own.items() if sorted(seeds) == [*range(8)])
        assert min(own) < best < max(own)
        assert all(sorted(seeds) in ([0, 1], [*range(8)]) for seeds in own.values())


def test_a_writer_learns_the_same_again_and_needs_no_learning_for_a_ban(monkeypatch):
    monkeypatch.setattr(rule, "EVALUATED", 128)
    writer = Writer("lipogram", 1)
    once, again = (writer.measured(writer.trained(1, 0.005, steps=3)) for _ in range(2))
    assert once == again
    before = writer.measured(writer.base)
    assert before["kl"] == 0
    assert once["kl"] > 0
    banned = writer.tilted(np.random.default_rng(0), 30.0, n=64)
    without_foresight = writer.tilted(np.random.default_rng(0), 1 / writer.beta, n=64)
    # the policy without foresight is the best of those that look at one character only
    assert before["J"] + 0.03 < banned < without_foresight + 0.003 < 0
