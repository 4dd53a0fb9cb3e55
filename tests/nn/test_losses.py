"""Losses against their definitions."""

import numpy as np
import pytest

from lora_np import Tensor, cross_entropy, mean_squared_error
from lora_np.autograd import check_derivative
from lora_np.nn import accuracy, softmax

RNG = np.random.default_rng(5)


def test_mean_squared_error():
    a, b = RNG.normal(size=(4, 3)), RNG.normal(size=(4, 3))
    assert mean_squared_error(a, b) == pytest.approx(np.mean((a - b) ** 2))
    check_derivative(lambda p: mean_squared_error(p, b), a, order=2)
    check_derivative(lambda t: mean_squared_error(a, t), b, order=2)
    with pytest.raises(ValueError, match=r"differ in shape: \(4, 3\) and \(4,\)"):
        mean_squared_error(a, b[:, 0])


def test_cross_entropy_is_minus_the_mean_log_probability():
    logits, labels = RNG.normal(size=(6, 4)), RNG.integers(0, 4, 6)
    expected = -np.mean(np.log(softmax(logits))[np.arange(6), labels])
    assert cross_entropy(logits, labels) == pytest.approx(expected)
    check_derivative(lambda x: cross_entropy(x, labels), logits)


def test_cross_entropy_does_not_overflow():
    assert cross_entropy(np.array([[1e4, 0.0]]), np.array([0])) == 0
    x = Tensor(np.array([[1e4, 0.0]]))
    cross_entropy(x, np.array([1])).backward()
    np.testing.assert_array_equal(x.grad, [[1, -1]])


@pytest.mark.parametrize(("labels", "error", "match"), [
    (np.array([0.0, 1.0]), TypeError, "must be whole numbers, got dtype float64"),
    (np.array([0, 3]), ValueError, "between 0 and 2, got 3"),
    (np.array([-1, 0]), ValueError, "between 0 and 2, got -1"),
    (np.array([0]), ValueError, r"must fit, got \(2, 3\) and \(1,\)"),
])  # fmt: skip
def test_labels_that_are_none(labels, error, match):
    with pytest.raises(error, match=match):
        cross_entropy(np.zeros((2, 3)), labels)


def test_accuracy():
    assert accuracy(
        Tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]), np.array([0, 1, 1])
    ) == pytest.approx(2 / 3)
    for labels in ([[0], [1], [2]], [0]):
        with pytest.raises(ValueError, match=r"must fit, got \(3, 3\) and \("):
            accuracy(np.eye(3), labels)


@pytest.mark.peers
def test_same_as_torch():
    import torch

    logits, labels = RNG.normal(size=(6, 4)), RNG.integers(0, 4, 6)
    reference = torch.nn.functional.cross_entropy(torch.tensor(logits), torch.tensor(labels))
    assert cross_entropy(logits, labels) == pytest.approx(reference.item(), rel=1e-12)
