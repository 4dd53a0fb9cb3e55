"""Exercises of *Look inside an update*."""

from __future__ import annotations

from typing import Any

import numpy as np

from lora_np.exercises.old_laws import law, real_array, same
from lora_np.exercises.old_samples import sizes, with_spectrum
from lora_np.linalg import amplification_factor, subspace_similarity

Generator = np.random.Generator
HALF = np.array([[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]]) / 2


def check_chance_similarity(answer: Any, rng: Generator) -> None:
    k = int(rng.integers(20, 500))
    i, j = (int(n) for n in rng.choice(np.arange(1, 20), 2, replace=False))
    same("All of space contains every direction: similarity 1", "the similarity", answer(k, i, k), 1.0)
    same(
        "Two random directions share 1/k: the squares of a random cosine with k axes add up to one",
        "the similarity",
        answer(k, 1, 1),
        1 / k,
    )
    same(
        "A random subspace holds its share of every direction",
        "the similarity",
        answer(k, i, j),
        max(i, j) / k,
    )


def check_similarity(answer: Any, rng: Generator) -> None:
    k, r = int(rng.integers(8, 14)), int(rng.integers(3, 6))
    A1 = with_spectrum(rng, r, k, np.linspace(5, 1, r))
    A2 = with_spectrum(rng, r, k, np.linspace(7, 2, r))
    i, j = (int(n) for n in rng.choice(np.arange(1, r), 2, replace=False)) if r > 2 else (1, 1)
    same("A subspace contains itself: similarity 1", "phi", answer(A1, A1, i, i), 1.0)
    same("A subspace is contained in a larger one: similarity 1", "phi", answer(A1, A1, 1, r), 1.0)
    turn = np.linalg.qr(rng.normal(size=(r, r)))[0]
    same(
        "Input directions do not change when the rows of A are turned",
        "phi",
        answer(turn @ A1, A1, i, i),
        1.0,
    )
    same(
        "phi is the squared norm of V1^T V2, over the smaller dimension",
        "phi",
        answer(A1, A2, i, j),
        subspace_similarity(A1, A2, i, j),
    )


def check_amplification(answer: Any, rng: Generator) -> None:
    d, k = sizes(rng, 2, 6, 10)
    r = int(rng.integers(1, 4))
    W0, dW = rng.normal(size=(d, k)), with_spectrum(rng, d, k, np.linspace(3, 2, r))
    right = amplification_factor(W0, dW, rank=r)
    got = float(real_array("the factor", answer(W0, dW, r), ()))
    same("Twice the update, twice the amplification", "the factor", answer(W0, 2 * dW, r), 2 * got)
    same("Twice the base, half the amplification", "the factor", answer(2 * W0, dW, r), got / 2)
    same(
        "Amplification compares the update with W0, seen in the update's directions", "the factor", got, right
    )


def check_intruders(answer: Any, rng: Generator) -> None:
    n = int(rng.integers(9, 13))
    U, V = (np.linalg.qr(rng.normal(size=(n, n)))[0] for _ in range(2))
    s = np.linspace(n, 1, n)
    new = np.linalg.qr(rng.normal(size=(n, n)))[0]  # right vectors say nothing here
    order = np.concatenate([rng.permutation(n - 4), np.arange(n - 4, n)])
    mixed = U[:, order] * rng.choice([-1.0, 1.0], n)
    mixed[:, n - 4 :] = U[:, n - 4 :] @ HALF  # each at 60 degrees to four of the old ones
    places = rng.permutation(n)
    tuned = mixed[:, places]
    top = int(rng.integers(5, n))
    right = [j for j in range(top) if places[j] >= n - 4]
    W0, W = (U * s) @ V.T, (tuned * s) @ new.T
    got = sorted(real_array("the list", answer(W0, W, top, 0.6), (None,)).tolist())
    law(
        "An intruder is a leading left singular vector of W that is close to none of W0's, whatever its place or sign",  # noqa: E501
        got == right,
        f"places {right} hold intruders, got {got}",
    )
    law("A weight has no intruders in itself", np.size(answer(W0, W0, top, 0.6)) == 0)
