"""Exercises of *Open a real adapter*."""

from __future__ import annotations

from typing import Any

import numpy as np

from lora_np.exercises.old_laws import law, parts, real_array, same
from lora_np.exercises.old_samples import sizes

Generator = np.random.Generator


def check_peft_tensors(answer: Any, rng: Generator) -> None:
    d, k = (int(n) for n in rng.choice(np.arange(3, 9), 2, replace=False))
    paths = [
        f"model.layers.{int(i)}.self_attn.{name}" for i in rng.choice(30, 2) for name in ("q_proj", "v_proj")
    ]
    adapters = {path: (rng.normal(size=(d, 2)), rng.normal(size=(2, k))) for path in paths}
    got = answer(adapters)
    law("A function returns its answer", got is not None, "it returns None; is there a return?")
    law("The answer is a dict from keys to arrays", isinstance(got, dict), f"got {type(got).__name__}")
    right = {}
    for path, (B, A) in adapters.items():
        right[f"base_model.model.{path}.lora_A.weight"] = A
        right[f"base_model.model.{path}.lora_B.weight"] = B
    missing = [key for key in right if key not in got]
    law("PEFT finds a tensor by its key", not missing, f"{missing[0] if missing else ''} is missing")
    extra = [key for key in got if key not in right]
    law("PEFT finds a tensor by its key", not extra, f"{extra[0] if extra else ''} is none of its keys")
    for key, tensor in right.items():
        same("lora_A is (r, k), lora_B is (d, r)", key, got[key], tensor, tolerance=0)


def check_combine_adapters(answer: Any, rng: Generator) -> None:
    d, k = (int(n) for n in rng.choice(np.arange(7, 12), 2, replace=False))
    count = int(rng.integers(2, 4))
    adapters, weights, total, ranks = [], [], np.zeros((d, k)), 0
    for _ in range(count):
        r = int(rng.integers(1, 3))
        B, A, alpha = rng.normal(size=(d, r)), rng.normal(size=(r, k)), float(rng.uniform(2, 9))
        weight = float(rng.uniform(-1, 1))
        adapters.append((B, A, alpha))
        weights.append(weight)
        total += weight * alpha / r * B @ A
        ranks += r
    B, A = parts(["B", "A"], answer(adapters, weights))
    law(
        "Ranks add up",
        np.shape(B) == (d, ranks) and np.shape(A) == (ranks, k),
        f"B must have shape {(d, ranks)} and A {(ranks, k)}, got {np.shape(B)} and {np.shape(A)}",
    )
    B, A = real_array("B", B, (d, ranks)), real_array("A", A, (ranks, k))
    same(
        "Updates add up, factors do not: B A is the weighted sum of all (alpha / r) B A",
        "B @ A",
        B @ A,
        total,
    )


def check_resize_adapter(answer: Any, rng: Generator) -> None:
    d, k = sizes(rng, 2, 12, 25)
    old = int(rng.integers(4, 8))
    r = int(rng.integers(1, old))
    B = rng.normal(size=(d, old)) * np.geomspace(0.1, 10, old)
    A = rng.normal(size=(old, k))
    got_B, got_A = parts(["B", "A"], answer(B, A, r))
    got_B, got_A = real_array("B", got_B, (d, r)), real_array("A", got_A, (r, k))
    s = np.linalg.svdvals(B @ A)
    error, least = float(np.linalg.norm(B @ A - got_B @ got_A)), float(np.sqrt(np.square(s[r:]).sum()))
    law(
        "The best smaller adapter is the SVD of the product, cut",
        error <= least * (1 + 1e-8),
        f"from rank {old} to {r} the error is {error:.4g}, the least possible {least:.4g}",
    )


def check_to_bfloat16(answer: Any, rng: Generator) -> None:
    # 8 bits of precision: between 1 and 2 the numbers are 1/128 apart.
    simple = np.array([1, -2, 0, 1 + 1 / 128, 0.5], dtype=np.float32)
    exactly("Numbers that bfloat16 has stay what they are", answer, simple, simple)
    up = np.array([1 + 0.75 / 128, -(1 + 0.75 / 128), 3 + 1.5 / 64], dtype=np.float32)
    exactly(
        "A number goes to the nearest that bfloat16 has",
        answer,
        up[:2],
        np.array([1 + 1 / 128, -(1 + 1 / 128)], np.float32),
    )
    ties = np.array([1 + 0.5 / 128, 1 + 1.5 / 128, -(1 + 2.5 / 128)], dtype=np.float32)
    even = np.array([1, 1 + 2 / 128, -(1 + 2 / 128)], dtype=np.float32)
    exactly("Halfway between two numbers, the one with an even last bit is taken", answer, ties, even)
    wide = np.array([1e-30, -1e30, 3e38], dtype=np.float32)
    got = real_array("the result", answer(wide), (3,))
    law(
        "bfloat16 has the range of float32: its error is relative",
        bool(np.allclose(got, wide, rtol=2.0**-8, atol=0)),
        f"for {wide.tolist()} it gives {got.tolist()}",
    )
    x = (rng.normal(size=int(rng.integers(5, 40))) * 10.0 ** rng.integers(-5, 5)).astype(np.float32)
    once = real_array("the result", answer(x), x.shape).astype(np.float32)
    law("Rounding twice is rounding once", np.array_equal(once, np.asarray(answer(once))))
    bits = once.view(np.uint32) & np.uint32(0xFFFF)
    law("A bfloat16 is a float32 with 16 zero bits at its end", not bits.any(), "there are bits left")
    law(
        "A number goes to the nearest that bfloat16 has",
        bool((np.abs(once - x) <= 2.0**-9 * 2.0 ** (1 + np.floor(np.log2(np.abs(x))))).all()),
        "an error is larger than half of the last bit",
    )


def exactly(name: str, answer: Any, x: np.ndarray, right: np.ndarray) -> None:
    got = real_array("the result", answer(x), x.shape)
    law(name, np.array_equal(got, right), f"{x.tolist()} becomes {right.tolist()}, got {got.tolist()}")
