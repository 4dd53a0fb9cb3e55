"""Count models in memory: our own layers, and torch's."""

from __future__ import annotations

import numpy as np
import pytest

from lora_np import Activation, Linear, Sequential, inject
from lora_np.accounting import count, count_model, model_spec


def test_our_own_models() -> None:
    rng = np.random.default_rng(0)
    base = Sequential(
        [
            Linear.init(d_out=20, d_in=30, rng=rng, bias=True),
            Activation(np.tanh),
            Linear.init(d_out=5, d_in=20, rng=rng),
        ]
    )
    spec = model_spec(base)
    assert [(module.name, module.shape) for module in spec.modules] == [
        ("layers.0", (20, 30)),
        ("layers.2", (5, 20)),
    ]
    adapted = inject(base, rank=4, alpha=8, rng=rng)
    counted = count(adapted)
    assert (
        counted.trainable
        == count_model(spec, rank=4, targets="all-linear").trainable
        == 4 * (50 + 25)
    )
    assert counted.frozen == spec.total == 20 * 30 + 20 + 5 * 20
    assert sum(row["trainable"] for row in counted.table.records) == counted.trainable  # type: ignore[misc]


def test_a_tied_weight_of_ours_is_counted_once() -> None:
    W = np.zeros((4, 4))
    model = Sequential([Linear(W), Linear(W)])
    assert model_spec(model).total == count(model).total == 16
    assert count_model(model_spec(model), rank=1, targets="all-linear").trainable == 16


@pytest.mark.parametrize("thing", [3, None, [], object()])
def test_what_is_no_model(thing: object) -> None:
    with pytest.raises(TypeError, match="must hold arrays"):
        count(thing)
    with pytest.raises(TypeError, match="must hold arrays or have named_modules"):
        model_spec(thing)
