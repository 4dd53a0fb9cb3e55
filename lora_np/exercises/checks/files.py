"""Check the lessons on counting, adapter files and quantisation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lora_np.checks import Array
from lora_np.exercises.inputs import Draw
from lora_np.exercises.laws import at_most, closest, exactly, law, parts, same, whole
from lora_np.exercises.samples import rank_and_sides, scale
from lora_np.exercises.testing import Answer
from lora_np.exercises.values import Value

# Checks of the lesson "Count parameters"


# 1 if the weight of the target module has d rows, 0 if it has d_kv rows
ROWS = {"q": 1, "k": 0, "v": 0, "o": 1}


def lora_count_entries(draw: Draw, answer: Answer) -> None:
    d, k, r = draw.sizes("dkr", high=5000)
    exactly("the count", answer(d, k, r), d * r + r * k)


def largest(fits: bool, answered: Value, one: int, budget: int) -> None:
    """Require that a rank fits the budget or, if ``fits`` is false, that the next rank does not."""
    r = whole("the rank", answered)
    size, more = r * one, (r + 1) * one
    if fits:
        law(size <= budget, f"rank {r} has {size:,} parameters, more than {budget:,}")
    else:
        law(r >= 0, f"a rank is not negative, got {r}")
        told = f"rank {r + 1} has {more:,} parameters, at most {budget:,} are allowed"
        law(more > budget, told)


def last_rank_that_saves(draw: Draw, answer: Answer, key: str) -> None:
    d, k = map(int, draw.sizes("dk", high=400))
    a, b = draw.sizes("ab", high=9)
    # sometimes draw sides for which d + k divides d k or d k - 1, to catch ranks that are off by 1
    tie = draw.pick("tie", ("", "d k", "d k - 1"))
    if tie:
        d, k = (a * (a + b), b * (a + b)) if tie == "d k" else (a + 1, a * (a + 1) + 1)
    largest(key == "saves", answer(d, k), d + k, d * k - 1)


def drawn_shapes(draw: Draw, high: int) -> list[tuple[int, int]]:
    """Draw the shapes of one to three matrices, of which the last is often like the first."""
    count = draw.whole("n", 1, 3)
    drawn = ((draw.whole(f"d{i}", 1, high), draw.whole(f"k{i}", 1, high)) for i in range(count))
    shapes: list[tuple[int, int]] = [*drawn]
    if draw.pick("repeated", (False, True)):
        shapes[-1] = shapes[0]
    return shapes


def multiple_or_not(draw: Draw, name: str, one: int) -> int:
    """Draw a number below ten times ``one``, often a multiple of ``one`` or a multiple minus 1."""
    number = draw.whole(name, 0, 10 * one - 1)
    beside = draw.pick("beside a multiple", (None, None, 0, -1))
    return number if beside is None else max(0, number - number % one + beside)


def affordable_rank(draw: Draw, answer: Answer, key: str) -> None:
    shapes = drawn_shapes(draw, high=9)
    one = sum(d + k for d, k in shapes)
    budget = multiple_or_not(draw, "budget", one)
    largest(key == "fits", answer(shapes, budget), one, budget)


def attention_count(draw: Draw, answer: Answer, key: str) -> None:
    layers = draw.whole("layers", 1, 100) if key == "model" else 1
    d, r = draw.whole("d", 1, 64), draw.whole("r", 1, 8)
    narrow = draw.whole("d_kv", 1, d)
    if key == "model":
        targets = [target for target in "vqok" if draw.pick(target, (True, False))]
    else:
        targets = [draw.pick("target", tuple(ROWS))]
    right = layers * sum(r * ((d if ROWS[target] else narrow) + d) for target in targets)
    exactly("the count", answer(layers, d, narrow, targets, r), right)


def training_bytes(draw: Draw, answer: Answer, key: str) -> None:
    trained = draw.whole("trained", 1, 10**6) if key == "trained" else 0
    base = draw.whole("base", 0 if trained else 1, 10**9)
    exactly("the bytes", answer(base, trained), 2 * base + 16 * trained)


def step_multiplications(draw: Draw, answer: Answer, key: str) -> None:
    d, k, r = draw.sizes("dkr", high=5000)
    right = 3 * d * k if key == "full" else 2 * d * k + 3 * r * (d + k)
    exactly("the count", answer(d, k, 0 if key == "full" else r), right)


def rank_for_bits_smallest(draw: Draw, answer: Answer) -> None:
    shapes, per_parameter = drawn_shapes(draw, high=9), draw.whole("per_parameter", 1, 5)
    room = per_parameter * sum(d + k for d, k in shapes)
    bits = multiple_or_not(draw, "bits", room)
    exactly("the rank", answer(bits, shapes, per_parameter), -(-bits // room))


# Checks of the lesson "Open a real adapter"


def one_alpha_same(draw: Draw, answer: Answer) -> None:
    d, r = draw.sizes("dr", high=3)
    B, own, alpha = draw.array("B", d, r), draw.whole("own", 1, 9), draw.whole("alpha", 1, 9)
    same("B", answer(B, own, alpha), B * own / alpha)


PATHS = (
    "lm_head",
    "model.layers.11.mlp.up_proj",
    "model.layers.0.self_attn.q_proj",
    "model.layers.1.self_attn.q_proj",
    "encoder.model.lora.0",
)


def drawn_layers(
    draw: Draw, paths: Sequence[str], r: int | None = None
) -> tuple[dict[str, tuple[Array, Array]], dict[str, Array]]:
    """Draw B and A for each path, by default of random rank; also return them as PEFT's tensors."""
    layers: dict[str, tuple[Array, Array]] = {}
    tensors: dict[str, Array] = {}
    for path in paths:
        rank = draw.whole(f"r of {path}", 1, 3) if r is None else r
        B = draw.array(f"B of {path}", draw.whole(f"d of {path}", 1, 3), rank)
        A = draw.array(f"A of {path}", rank, draw.whole(f"k of {path}", 1, 3))
        layers[path] = B, A
        tensors |= {
            f"base_model.model.{path}.lora_{name}.weight": one for name, one in (("A", A), ("B", B))
        }
    return layers, tensors


def peft_tensors(draw: Draw, answer: Answer, key: str) -> None:
    layers, right = drawn_layers(
        draw, PATHS[draw.whole("first", 0, 3) :][: draw.whole("layers", 0, 4)]
    )
    got = answer(layers)
    law(
        isinstance(got, dict),
        f"got {type(got).__name__}",
        name="The answer is a dict from keys to arrays",
    )
    if key == "keys":
        missing, extra = [n for n in right if n not in got], [n for n in got if n not in right]
        law(not missing, f"{missing[:1]} is missing, there is {extra[:1]}")
        law(not extra, f"{extra[:1]} is none of PEFT's keys")
    if key == "factors":
        for n, tensor in got.items():
            factor, paths = str(n).split("lora_")[-1][:1], [p for p in PATHS if p in str(n)]
            known = bool(paths) and factor in ("A", "B")
            law(known, f"the key {n!r} does not say which layer's A or B it holds")
            same(
                f"the tensor of {n}",
                tensor,
                right[f"base_model.model.{paths[0]}.lora_{factor}.weight"],
            )


def combine_adapters(draw: Draw, answer: Answer, key: str) -> None:
    d, k, count = draw.sizes("d k count", high=3)
    large = key == "ranks" and draw.effort > 0.5 and draw.pick("large", (False, True))
    # with large sides, an answer that computes a d x k matrix exceeds the memory limit
    if large:
        d, k = draw.whole("many rows", 150, 180), draw.whole("many columns", 150, 180)
    adapters, weights, ranks = [], [], 0
    total, size = np.zeros((d, k)), 0.0
    for i in range(count):
        r, alpha = draw.whole(f"r{i}", 1, 3), draw.number(f"alpha {i}", 1, 16)
        weight = draw.number(f"weight {i}")
        B, A = draw.array(f"B{i}", d, r), draw.array(f"A{i}", r, k)
        adapters.append((B, A, alpha))
        weights.append(weight)
        total, ranks = total + weight * alpha / r * B @ A, ranks + r
        size += abs(weight) * alpha / r * float((np.abs(B) @ np.abs(A)).max())
    answered = answer(adapters, weights, within=4 * d * k if large else None)
    B, A = parts("B A", answered, (d, ranks), (ranks, k))
    if key == "sum":
        same("B @ A", B @ A, total, size=size)


def resize_adapter_closest(draw: Draw, answer: Answer) -> None:
    r, d, k, old = rank_and_sides(draw, "d k old")
    B, A = scale(draw) * draw.array("B", d, old), draw.array("A", old, k)
    new_B, new_A = parts("B A", answer(B, A, r), (d, r), (r, k))
    closest("the error", B @ A, new_B @ new_A, r, size=float(np.linalg.norm(B) * np.linalg.norm(A)))


def resize_adapter_thin(draw: Draw, answer: Answer) -> None:
    d, k, old = draw.whole("d", 1, 120), draw.whole("k", 1, 120), draw.whole("old", 1, 5)
    r = draw.whole("r", 1, min(d, k, old))
    B, A = draw.array("B", d, old), draw.array("A", old, k)
    parts("B A", answer(B, A, r, within=max(30_000, 3 * d * k)), (d, r), (r, k))


def to_bfloat16(draw: Draw, answer: Answer, key: str) -> None:
    shape = draw.sizes("abc"[: draw.whole("axes", 1, 3)], high=3)
    if key == "ties":
        x = 128.5 + np.rint(draw.array("x", *shape, low=0, high=126))
    else:
        x = np.rint(draw.array("x", *shape, low=-255, high=255))
    if key == "nearest":
        x += draw.array("rest", *shape, low=-0.49, high=0.49)
    unit = draw.pick(
        "unit", (1.0, -1.0, 2.0**-110) if key == "ties" else (1.0, 2.0**-110, 2.0**110)
    )
    single = (x * unit).astype(np.float32)
    mantissa, exponent = np.frexp(single.astype(np.float64))
    same("the result", answer(single), np.ldexp(np.rint(256 * mantissa), exponent - 8), tolerance=0)


# Checks of the lesson "Train on four bits"


def levels_of(draw: Draw) -> Array:
    inner = draw.array("levels", draw.whole("inner", 0, 3), low=-8, high=8)
    return np.unique([*np.rint(inner) / 8, 0.0, 1.0])


def nearest_levels(draw: Draw, answer: Answer, key: str) -> None:
    w, levels = scale(draw) * draw.array("w", draw.whole("n", 1, 5)), levels_of(draw)
    codes, got = parts("codes scale", answer(w, levels), (len(w),), ())
    inside = np.isin(codes, range(len(levels))).all()
    law(inside, f"codes are indices from 0 to {len(levels) - 1}, got {codes.tolist()}")
    size = float(np.abs(w).max())
    if key == "scale":
        same("the scale", float(got), size)
    if key == "nearest":
        least = np.abs(w[:, None] - size * levels).min(axis=1)
        distances = np.abs(w - size * levels[codes.astype(int)])
        same("the distances to the levels", distances, least, size=size)


def read_in_blocks(draw: Draw, answer: Answer, key: str) -> None:
    n, size, levels = draw.whole("n", 1, 16), draw.whole("size", 1, 5), levels_of(draw)
    codes = np.array([int(draw.whole(f"code {i}", 0, len(levels) - 1)) for i in range(n)])
    scales = draw.array("scales", -(-n // size), low=1, high=1000 if key == "outlier" else 5)
    right = [levels[code] * scales[i // size] for i, code in enumerate(codes)]
    same("the values", answer(codes, scales, levels, size), right, tolerance=1e-6)


def repair(draw: Draw, answer: Answer, key: str) -> None:
    r, d, k = rank_and_sides(draw)
    unit, alpha = scale(draw), draw.number("alpha", 1, 32)
    W, Q = unit * draw.array("W", d, k), unit * draw.array("Q", d, k)
    B, A = parts("B A", answer(W, Q, r, alpha), (d, r), (r, k))
    update, before = alpha / r * B @ A, float(np.linalg.norm(W - Q))
    size = float(np.linalg.norm(W)) + before
    if key == "closest":
        closest("the distance to W", W - Q, update, r, size=size)
    if key == "smaller":
        at_most("the distance to W", float(np.linalg.norm(W - Q - update)), before, size=size)
