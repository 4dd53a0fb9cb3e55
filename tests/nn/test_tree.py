"""One walk and one rewrite."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pytest

from lora_np import (
    Activation,
    Linear,
    Sequential,
    Tensor,
    freeze,
    leaves,
    replace,
    trainable,
    value,
)
from lora_np.nn import relu


@dataclass(frozen=True, eq=False)
class Tied:
    embedding: Linear
    head: Linear
    scale: float = 2.0
    extra: Any = None


def model():
    rng = np.random.default_rng(0)
    return Sequential(
        [
            Linear.init(d_out=4, d_in=3, rng=rng, bias=True),
            Activation(relu),
            Linear(np.ones((2, 4))),
        ]
    )


def test_leaves_in_the_order_of_the_fields():
    assert [(path, a.shape) for path, a in leaves(model())] == [
        ("layers.0.W", (4, 3)),
        ("layers.0.b", (4,)),
        ("layers.2.W", (2, 4)),
    ]
    assert [path for path, _ in trainable(model())] == ["layers.0.W", "layers.0.b"]


def test_leaves_of_nests():
    a = np.ones(1)
    assert [p for p, _ in leaves({"x": [a, (Tensor(a), None)], "y": 3.0})] == ["x.0", "x.1.0"]
    assert [p for p, _ in leaves(a)] == [""]
    assert leaves(3.0) == []


def test_a_tied_weight_comes_once_under_all_its_paths():
    W = Tensor(np.ones((3, 3)))
    tree = Tied(Linear(W), Linear(W))
    assert [path for path, _ in leaves(tree)] == ["embedding.W = head.W"]


def test_a_tied_weight_stays_tied_through_replace():
    W = Tensor(np.ones((3, 3)))
    calls = []
    tree = replace(
        Tied(Linear(W), Linear(W)),
        Tensor,
        lambda path, leaf: calls.append(path) or Tensor(2 * leaf.data),
    )
    assert tree.embedding.W is tree.head.W
    assert calls == ["embedding.W"]


def test_a_tied_layer_stays_tied():
    layer = Linear(np.ones((3, 3)))
    tree = replace(Tied(layer, layer), Linear, lambda path, old: Linear(2 * old.W))
    assert tree.embedding is tree.head


def test_replace_shares_what_it_does_not_change():
    before = model()
    after = replace(before, Activation, lambda path, layer: Activation(np.tanh))
    assert after is not before
    assert after.layers[0] is before.layers[0]
    assert after.layers[1].function is np.tanh
    assert before.layers[1].function is relu


def test_replace_without_a_match_is_the_identity():
    before = model()
    assert replace(before, Tied, lambda path, node: None) is before


def test_replace_sees_paths_and_does_not_enter_what_it_put_there():
    seen = []

    def wrap(path, layer):
        seen.append(path)
        return Sequential([layer])

    replace(model(), Linear, wrap)
    assert seen == ["layers.0", "layers.2"]


def test_freeze_computes_the_same_without_tensors():
    m, x = model(), np.random.default_rng(1).normal(size=(5, 3))
    frozen = freeze(m)
    assert trainable(frozen) == []
    assert type(frozen(x)) is np.ndarray
    np.testing.assert_array_equal(frozen(x), value(m(x)))
    assert frozen.layers[0].W is m.layers[0].W.data


class Pair(NamedTuple):
    first: Any
    second: Any = None


ONE = np.ones(1)


@pytest.mark.parametrize("tree", [[ONE], (ONE,), {"a": ONE}, Pair(ONE), Pair(ONE, ONE)], ids=repr)
def test_containers_keep_their_type_and_paths(tree):
    doubled = replace(tree, np.ndarray, lambda path, a: a * 2)
    assert type(doubled) is type(tree)
    assert leaves(doubled) == [(path, 2) for path, _ in leaves(tree)]
