"""Runs of torch and PEFT start where ours do and end there, to float32's rounding."""

import pytest

from claims.lab import peft_runs
from claims.lab.at_scale import METHODS
from claims.lab.text import Text

SMALL = {"bases": ("austen",), "steps": 12, "batch": 2, "length": 24, "rows": 6}


@pytest.mark.parametrize("steps", [1, 3, 12, 60])
def test_the_schedule_is_ours(steps):
    import lora_np as lnp

    ours = lnp.cosine_schedule(0.3, steps=steps, warmup=min(10, steps // 4))
    for step in range(steps):
        assert 0.3 * peft_runs.share(step, steps) == pytest.approx(ours(step), abs=1e-12)


def test_methods_that_run_again_are_loras():
    assert {METHODS[name][0]["kind"] for name in peft_runs.NAMES} == {"lora"}


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")
@pytest.mark.parametrize(
    "name", ["LoRA, r = 8", "MLP, r = 5", "attention, r = 8", "LoRA, r = 64, alpha 256"]
)
def test_a_run_ends_where_ours_does(name):
    for module in ("torch", "transformers", "peft"):
        pytest.importorskip(module)
    method, _ = METHODS[name]
    lr = 5 / (128 * method["alpha"] ** 0.5)
    ours = Text(**SMALL).once(1, lr, **method)
    theirs = peft_runs.PeftText(**SMALL).once(1, lr, **method)
    untouched = Text(**SMALL | {"steps": 1}).once(1, 1e-9, **method)
    apart = {part: abs(theirs[part] - loss) for part, loss in ours.items()}
    assert max(apart.values()) < 1e-5
    moved = [abs(untouched[part] - loss) for part, loss in ours.items()]
    assert max(moved) > 100 * max(apart.values())  # it has learned
    other = Text(**SMALL).once(2, lr, **method)
    assert abs(other["first"] - ours["first"]) > 100 * max(apart.values())
