"""Laws of *Build a LoRA from nothing*."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import numpy as np

from lora_np.autograd import Tensor, value
from lora_np.checks import Array
from lora_np.exercises.asking import Answer
from lora_np.exercises.checks.files import PATHS
from lora_np.exercises.checks.training import WHITE, layer
from lora_np.exercises.drawing import Draw
from lora_np.exercises.laws import exactly, law, parts, real_array, same
from lora_np.exercises.samples import scale
from lora_np.linalg import optimal_losses

ONCE = ("t[0].mean()", "(t[0] + t[1]).mean()", "(t[0] - t[1]).mean()", "(t[0] * t[1]).mean()",
        "(t[0] @ t[2]).mean()", "((t[0] - t[1]).T @ t[3] * t[4]).mean()")  # fmt: skip
AGAIN = ("(t[0] + t[0]).mean()", "(t[0] * t[0]).mean()", "((t[0] @ t[2]) * (t[1] @ t[2])).mean()",
         "(lambda a: (a * a + a).mean())(t[0] - t[1])")  # fmt: skip
CONSTANT = ("(t[0] + t[1].data).mean()", "(t[0] - t[1].data).mean()", "(t[0] * t[1].data).mean()",
            "(t[0] @ t[2].data).mean()", "(t[0] * 2.0).mean()")  # fmt: skip


def derived(draw: Draw, answer: Answer, expressions: tuple[str, ...]) -> None:
    n, m, k = draw.sizes("nmk", high=3)
    expression = draw.pick("expression", expressions)
    shapes = {0: (n, m), 1: (n, m), 2: (m, k), 3: (n, k), 4: (m, k)}
    needed = 1 + max(i for i in shapes if f"t[{i}]" in expression)
    arrays = [draw.array(f"t{i}", *shapes[i]) for i in range(needed)]
    t = [Tensor(array) for array in arrays]
    result = eval(expression, {"t": t})
    result.backward()
    answered = answer(expression, arrays)
    law(isinstance(answered, tuple) and len(answered) == 2, "project_tensor was changed")
    same(f"the value of {expression}", answered[0], value(result), size=25)
    for i, one in enumerate(t):
        if one.grad is not None and f"t[{i}].data" not in expression:
            same(f"the gradient of t[{i}] in {expression}", answered[1][i], value(one.grad), size=5)


project_tensor_steps = partial(derived, expressions=ONCE)
project_tensor_constants = partial(derived, expressions=CONSTANT)
project_tensor_reuse = partial(derived, expressions=AGAIN)


def linear(draw: Draw, answer: Answer) -> tuple[Array, ...]:
    n, d, k = draw.sizes("ndk", high=4)
    x, y, W = draw.array("x", n, k), draw.array("y", n, d), draw.array("W", d, k)
    return *parts("h gradient", answer(x, y, W), (n, d), (d, k)), x @ W.T, 2 * (x @ W.T - y).T @ x / y.size


def project_linear_forward(draw: Draw, answer: Answer) -> None:
    h, _, right, _ = linear(draw, answer)
    same("h", h, right, size=1)


def project_linear_gradient(draw: Draw, answer: Answer) -> None:
    _, gradient, _, right = linear(draw, answer)
    same("the gradient of W", gradient, right, size=1)


def lora(draw: Draw, answer: Answer) -> tuple[Array, ...]:
    x, W0, A, B = layer(draw)
    x, alpha = scale(draw) * x, draw.number("alpha", 1, 32)
    draw.assume(len(A) <= min(W0.shape))
    answered = answer(x, W0, len(A), alpha, draw.whole("rng", 0, 9), A, B)
    right = x @ (W0 + alpha / len(A) * B @ A).T
    return *parts("A B h", answered, A.shape, B.shape, right.shape), right, np.abs(x).max()


def project_lora_start(draw: Draw, answer: Answer) -> None:
    A, B, *_ = lora(draw, answer)
    law(not B.any(), f"B must be zero at the start, got {B.tolist()}")
    rank = np.linalg.matrix_rank(A)
    law(rank == len(A), f"A must have rank {len(A)} at the start, got {rank}")
    W0 = np.zeros((len(B), A.shape[1]))
    other, again = (answer(W0[:1], W0, len(A), 1.0, rng, A, B)[0] for rng in (10, 10))
    law(np.array_equal(other, again), "the same rng must give the same start")
    law(not np.array_equal(other, A), "another rng must give another start")


def project_lora_forward(draw: Draw, answer: Answer) -> None:
    _, _, h, right, size = lora(draw, answer)
    same("h", h, right, size=float(size))


def project_training_finds(draw: Draw, answer: Answer) -> None:
    d, k = draw.sizes("dk", high=2)
    W0 = draw.array("W0", d, k, low=-1, high=1)
    found, _ = parts("found W", answer(np.eye(k), np.zeros((k, d)), W0, 1, 1), (), (d, k))
    law(found == 3, f"a LoRA, twice in a list, and a trained layer have 3 Tensors, found {found:.0f}")


def project_training_best(draw: Draw, answer: Answer) -> None:
    d, k = draw.sizes("dk", high=2)
    r, n = draw.whole("r", 1, min(d, k)), draw.pick("inputs", (2, 4))
    x = WHITE[:n, :k]
    y, W0 = draw.array("y", n, d, low=-3, high=3), draw.array("W0", d, k, low=-1, high=1)
    losses = optimal_losses(x, y, W0=W0)
    draw.assume(losses[0] - losses[r] > 0.1 * losses[0])
    _, W = parts("found W", answer(x, y, W0, r, 400), (), (d, k))
    loss, enough = float(np.mean(np.square(x @ W.T - y))), float(losses[r] + 0.02 * (losses[0] - losses[r]))
    law(
        loss <= enough,
        f"the loss is {loss:.4f}, and must be at most {enough:.4f}; the best is {losses[r]:.4f}",
    )


def counted(draw: Draw, answer: Answer, place: int) -> None:
    shapes = [(draw.whole(f"d{i}", 1, 20), draw.whole(f"k{i}", 1, 20)) for i in range(draw.whole("n", 1, 3))]
    r = draw.whole("rank", 1, 4)
    answered = answer(shapes, r)
    law(
        isinstance(answered, (tuple, list)) and len(answered) == 2,
        f"two numbers are asked for, got {answered!r}",
    )
    right = sum(d * k for d, k in shapes) if place else r * sum(d + k for d, k in shapes)
    exactly("the count", answered[place], right)


project_counting_trained = partial(counted, place=0)
project_counting_frozen = partial(counted, place=1)


def written(
    draw: Draw, answer: Answer
) -> tuple[dict[str, object], dict[str, Array], dict[str, Array], dict[str, object]]:
    """The tensors that the file holds, those that it should hold, and both configs."""
    r, alpha = draw.whole("r", 1, 2), draw.number("alpha", 1, 16)
    layers: dict[str, Any] = {}
    right: dict[str, Array] = {}
    for path in PATHS[: draw.whole("layers", 1, 3)]:
        d, k = draw.whole(f"d of {path}", 1, 3), draw.whole(f"k of {path}", 1, 3)
        B, A = draw.array(f"B of {path}", d, r), draw.array(f"A of {path}", r, k)
        layers[path] = (B, A, alpha)
        right |= {f"base_model.model.{path}.lora_{name}.weight": one for name, one in (("A", A), ("B", B))}
    answered = answer(layers)
    law(isinstance(answered, tuple) and len(answered) == 2, "a config and the bytes of a file are asked for")
    config, file = answered
    law(isinstance(config, dict), f"the config is a dict, got {type(config).__name__}")
    content = real_array("the file", file, (None,)).astype(np.uint8).tobytes()
    end = 8 + int.from_bytes(content[:8], "little")
    law(
        8 < end <= len(content),
        f"the header should be {end - 8:,} bytes long, but the file has {len(content):,}",
    )
    found = {}
    try:
        for key, about in json.loads(content[8:end]).items():
            start, stop = about["data_offsets"]
            law(about["dtype"] == "F32", f"{key} must have dtype F32, got {about['dtype']}")
            array = np.frombuffer(content[end + start : end + stop], "<f4")
            found[key] = array.reshape(about["shape"])
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        law(False, f"the header cannot be read: {type(error).__name__}: {error}")
    expected = {"peft_type": "LORA", "r": int(r), "lora_alpha": alpha}
    return (
        config,
        found,
        right,
        expected | {"target_modules": sorted({path.split(".")[-1] for path in layers})},
    )


def project_adapter_file(draw: Draw, answer: Answer) -> None:
    _, found, right, _ = written(draw, answer)
    for got in found.values():
        law(
            any(np.allclose(got, one) for one in right.values() if one.shape == got.shape),
            f"{got} is no factor",
        )
    law(len(found) == len(right), f"{len(right)} tensors are asked for, the file has {len(found)}")


def project_adapter_keys(draw: Draw, answer: Answer) -> None:
    _, found, right, _ = written(draw, answer)
    law(found.keys() == right.keys(), f"the keys must be {sorted(right)}, got {sorted(found)}")
    for key, array in right.items():
        same(key, found[key], array)


def project_adapter_config(draw: Draw, answer: Answer) -> None:
    config, _, _, expected = written(draw, answer)
    for key, right in expected.items():
        law(config.get(key) == right, f"{key} must be {right!r}, got {config.get(key)!r}")
