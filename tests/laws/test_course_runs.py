"""What lessons plot and do not run: a fair comparison, whole."""

from collections import defaultdict

import pytest

from lora_np.course import adaptation_runs
from recipes.adaptation import ALPHAS, CONTESTANTS, RATES, SEEDS


def runs_of(who):
    return [run for run in adaptation_runs() if who.items() <= run.items()]


@pytest.mark.parametrize("who", [*CONTESTANTS, *ALPHAS], ids=str)
def test_the_best_rate_has_worse_neighbours_and_then_runs_with_every_seed(who):
    losses = {run["lr"]: run["validation"] for run in runs_of(who) if run["seed"] == 0}
    best = min(losses, key=losses.get)
    i = RATES.index(best)
    assert losses[best] < min(losses[RATES[i - 1]], losses[RATES[i + 1]])
    if who in CONTESTANTS:
        assert {run["seed"] for run in runs_of(who) if run["lr"] == best} == set(SEEDS)


def test_no_run_is_there_twice():
    seen = defaultdict(int)
    for run in adaptation_runs():
        seen[tuple(run[key] for key in ("targets", "rank", "alpha", "lr", "seed"))] += 1
    assert set(seen.values()) == {1}
