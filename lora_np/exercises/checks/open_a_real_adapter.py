"""Laws of *Open a real adapter*."""

from __future__ import annotations

from typing import Any

import numpy as np

from lora_np.checks import Array
from lora_np.exercises.asking import Answer
from lora_np.exercises.drawing import Draw
from lora_np.exercises.laws import at_most, law, parts, same
from lora_np.exercises.samples import scale

PATHS = ("lm_head", "model.layers.0.self_attn.q_proj", "model.layers.11.mlp.up_proj", "encoder.model.lora.0")


def named(draw: Draw, answer: Answer) -> tuple[dict[str, Any], dict[str, Array]]:
    adapters: dict[str, Any] = {}
    right: dict[str, Array] = {}
    for path in PATHS[draw.whole("first", 0, 3) :][: draw.whole("layers", 0, 2)]:
        d, r, k = (draw.whole(f"{size} of {path}", 1, 3) for size in "drk")
        B, A = draw.array(f"B of {path}", d, r), draw.array(f"A of {path}", r, k)
        adapters[path] = (B, A)
        right |= {f"base_model.model.{path}.lora_{name}.weight": one for name, one in (("A", A), ("B", B))}
    got = answer(adapters)
    law(got is not None, "it returns None; is there a return?", name="A function returns its answer")
    law(isinstance(got, dict), f"got {type(got).__name__}", name="The answer is a dict from keys to arrays")
    return got, right


def peft_tensors_keys(draw: Draw, answer: Answer) -> None:
    got, right = named(draw, answer)
    missing, extra = [key for key in right if key not in got], [key for key in got if key not in right]
    law(not missing, f"{missing[:1]} is missing, there is {extra[:1]}")
    law(not extra, f"{extra[:1]} is none of PEFT's keys")


def peft_tensors_factors(draw: Draw, answer: Answer) -> None:
    got, right = named(draw, answer)
    for key, tensor in got.items():
        name, path = str(key).split("lora_")[-1][:1], [p for p in PATHS if p in str(key)]
        expected = [right[f"base_model.model.{p}.lora_{name}.weight"] for p in path if name in ("A", "B")]
        law(bool(expected), f"the key {key!r} does not say which layer's A or B it holds")
        same(f"the tensor of {key}", tensor, expected[0])


def combined(draw: Draw, answer: Answer) -> tuple[Array, Array, Array, float]:
    d, k, count = draw.sizes("d k count", high=3)
    adapters, weights, ranks = [], [], 0
    total, size = np.zeros((d, k)), 0.0
    for i in range(count):
        r, alpha, weight = (
            draw.whole(f"r{i}", 1, 3),
            draw.number(f"alpha {i}", 1, 16),
            draw.number(f"weight {i}"),
        )
        B, A = draw.array(f"B{i}", d, r), draw.array(f"A{i}", r, k)
        adapters.append((B, A, alpha))
        weights.append(weight)
        total, ranks = total + weight * alpha / r * B @ A, ranks + r
        size += abs(weight) * alpha / r * float((np.abs(B) @ np.abs(A)).max())
    B, A = parts("B A", answer(adapters, weights), (d, ranks), (ranks, k))
    return B, A, total, size


def combine_adapters_ranks(draw: Draw, answer: Answer) -> None:
    combined(draw, answer)


def combine_adapters_sum(draw: Draw, answer: Answer) -> None:
    B, A, total, size = combined(draw, answer)
    same("B @ A", B @ A, total, size=size)


def resize_adapter_closest(draw: Draw, answer: Answer) -> None:
    d, k, old = draw.sizes("d k old", high=4)
    r = draw.whole("r", 1, min(d, k, old))
    B, A = scale(draw) * draw.array("B", d, old), draw.array("A", old, k)
    new_B, new_A = parts("B A", answer(B, A, r), (d, r), (r, k))
    s, error = np.linalg.svdvals(B @ A), float(np.linalg.norm(B @ A - new_B @ new_A))
    size = float(np.linalg.norm(B) * np.linalg.norm(A))
    at_most("the error", error, float(np.linalg.norm(s[r:])), size=size)


def resize_adapter_thin(draw: Draw, answer: Answer) -> None:
    d, k, old = draw.whole("d", 100, 120), draw.whole("k", 100, 120), draw.whole("old", 1, 3)
    r = draw.whole("r", 1, old)
    B, A = draw.array("B", d, old), draw.array("A", old, k)
    parts("B A", answer(B, A, r, within=3 * d * k), (d, r), (r, k))


def rounded(answer: Answer, x: Array) -> None:
    x = x.astype(np.float32)
    mantissa, exponent = np.frexp(x.astype(np.float64))
    same("the result", answer(x), np.ldexp(np.rint(256 * mantissa), exponent - 8), tolerance=0)


def to_bfloat16_kept(draw: Draw, answer: Answer) -> None:
    x = np.rint(draw.array("x", draw.whole("n", 1, 4), low=-255, high=255))
    rounded(answer, x * draw.pick("unit", (1.0, 2.0**-110, 2.0**110)))


def to_bfloat16_nearest(draw: Draw, answer: Answer) -> None:
    n = draw.whole("n", 1, 4)
    x = np.rint(draw.array("x", n, low=-255, high=255)) + draw.array("rest", n, low=-0.49, high=0.49)
    rounded(answer, x * draw.pick("unit", (1.0, 2.0**-110, 2.0**110)))


def to_bfloat16_ties(draw: Draw, answer: Answer) -> None:
    x = 128.5 + np.rint(draw.array("x", draw.whole("n", 1, 4), low=0, high=126))
    rounded(answer, x * draw.pick("unit", (1.0, -1.0, 2.0**-110)))
