"""Matrices that decompositions must get right: every shape, every kind of spectrum."""

import numpy as np
import pytest

SHAPES = [(1, 1), (1, 7), (7, 1), (6, 6), (12, 5), (5, 12), (30, 20), (20, 30)]


@pytest.fixture(params=SHAPES, ids=str)
def shape(request):
    return request.param


@pytest.fixture
def with_spectrum():
    return _with_spectrum


@pytest.fixture
def example():
    return example_of


def _with_spectrum(s, d, k, rng):
    """A d x k matrix with these singular values and random singular vectors."""
    U = np.linalg.qr(rng.normal(size=(d, len(s))))[0]
    V = np.linalg.qr(rng.normal(size=(k, len(s))))[0]
    return (U * s) @ V.T


def example_of(kind, d, k, seed=0):
    rng = np.random.default_rng(seed)
    m = min(d, k)
    if kind == "random":
        return rng.normal(size=(d, k))
    if kind == "deficient":
        rank = max(1, m // 2)
        return rng.normal(size=(d, rank)) @ rng.normal(size=(rank, k))
    if kind == "graded":
        return _with_spectrum(np.logspace(0, -12, m), d, k, rng)
    if kind == "repeated":
        return np.ones((d, k))
    if kind == "zero":
        return np.zeros((d, k))
    if kind == "zero_column":
        M = rng.normal(size=(d, k))
        M[:, 0] = 0
        return M
    raise AssertionError(kind)
