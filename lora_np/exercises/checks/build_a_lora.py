"""Check the steps of *Build a LoRA from nothing*."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from lora_np.autograd import Tensor, value
from lora_np.checks import Array
from lora_np.exercises.checks.files import PATHS, drawn_layers, drawn_shapes
from lora_np.exercises.checks.training import (
    lora_forward_sum,
    lora_start,
    near_best,
    regression,
)
from lora_np.exercises.inputs import Draw
from lora_np.exercises.laws import LawBroken, exactly, law, parts, real_array, same
from lora_np.exercises.testing import Answer
from lora_np.files import FileError
from lora_np.hub import safetensors

EXPRESSIONS = {
    "steps": ("t[0].mean()", "(t[0] + t[1]).mean()", "(t[0] - t[1]).mean()", "(t[0] * t[1]).mean()",
              "(t[0] @ t[2]).mean()", "((t[0] - t[1]).T @ t[3] * t[2]).mean()"),
    "constants": ("(t[0] + t[1].data).mean()", "(t[0] - t[1].data).mean()",
    "(t[0] * t[1].data).mean()",
                  "(t[0] @ t[2].data).mean()", "(t[0] * 2.0).mean()"),
    "reuse": ("(t[0] + t[0]).mean()", "(t[0] * t[0]).mean()",
    "((t[0] @ t[2]) * (t[1] @ t[2])).mean()",
              "(lambda a: (a * a + a).mean())(t[0] - t[1])",
              "(lambda a: (a + a * a).mean())(t[0] - t[1])"),
}  # fmt: skip


def project_tensor(draw: Draw, answer: Answer, key: str) -> None:
    n, m, k = draw.sizes("nmk", high=3)
    expression = draw.pick("expression", EXPRESSIONS[key])
    shapes = {0: (n, m), 1: (n, m), 2: (m, k), 3: (n, k)}
    needed = 1 + max(i for i in shapes if f"t[{i}]" in expression)
    arrays = [draw.array(f"t{i}", *shapes[i]) for i in range(needed)]
    t = [Tensor(array) for array in arrays]
    result = eval(expression, {"t": t})
    result.backward()
    answered = answer(expression, arrays)
    whole = isinstance(answered, tuple) and len(answered) == 2 and isinstance(answered[1], list)
    law(whole and len(answered[1]) == len(t), "project_tensor was changed")
    same(f"the value of {expression}", answered[0], value(result), size=25)
    for i, one in enumerate(t):
        if one.grad is not None and f"t[{i}].data" not in expression:
            same(f"the gradient of t[{i}] in {expression}", answered[1][i], value(one.grad), size=5)


def project_linear(draw: Draw, answer: Answer, key: str) -> None:
    n, d, k = draw.sizes("ndk", high=4)
    x, y, W = draw.array("x", n, k), draw.array("y", n, d), draw.array("W", d, k)
    h, gradient = parts("h gradient", answer(x, y, W), (n, d), (d, k))
    if key == "forward":
        same("h", h, x @ W.T, size=1)
    if key == "gradient":
        same("the gradient of W", gradient, 2 * (x @ W.T - y).T @ x / y.size, size=1)


def project_lora(draw: Draw, answer: Answer, key: str) -> None:
    def built(x: Array, W0: Array, A: Array, B: Array, alpha: float, rng: int) -> tuple[Array, ...]:
        shapes = A.shape, B.shape, (len(x), len(W0))
        return parts("A B h", answer(x, W0, len(A), alpha, rng, A, B), *shapes)

    def initial(d: int, k: int, r: int, rng: int) -> tuple[Array, ...]:
        W0, A, B = np.zeros((d, k)), np.ones((r, k)), np.ones((d, r))
        A, B, _ = built(W0[:1], W0, A, B, 1.0, rng)
        same("B at the start", B, np.zeros_like(B))
        return A, B

    if key == "forward":
        lora_forward_sum(draw, lambda x, W0, A, B, alpha: built(x, W0, A, B, alpha, 0)[2])
    if key == "start":
        lora_start(draw, initial, draw.pick("of the start", ("moves", "rng")))


def project_training_finds(draw: Draw, answer: Answer) -> None:
    d, k = draw.sizes("dk", high=2)
    W0 = draw.array("W0", d, k, low=-1, high=1)
    count, _ = parts("found W", answer(np.eye(k), np.zeros((k, d)), W0, 1, 1, 0.1), (), (d, k))
    told = "a LoRA, twice in a list, and a trained layer have 3 Tensors"
    law(count == 3, f"{told}, found {count:.0f}")


def project_training_best(draw: Draw, answer: Answer) -> None:
    x, y, W0, r, losses = regression(draw, stretched=False)
    lr = draw.pick("lr", (0.1, 0.05))
    _, W = parts("found W", answer(x, y, W0, r, round(40 / lr), lr), (), W0.shape)
    near_best(float(np.mean(np.square(x @ W.T - y))), losses[0], losses[r])
    for steps, rate in ((0, lr), (3, 0.0)):
        _, W = parts("found W", answer(x, y, W0, r, steps, rate), (), W0.shape)
        same(f"W after {steps} steps at a learning rate of {rate}", W, W0, size=1)


def project_counting(draw: Draw, answer: Answer, key: str) -> None:
    shapes, r = drawn_shapes(draw, high=20), draw.whole("rank", 1, 4)
    trained, frozen = parts("trained frozen", answer(shapes, r), (), ())
    if key == "trained":
        exactly("the count", trained, r * sum(d + k for d, k in shapes))
    if key == "frozen":
        exactly("the count", frozen, sum(d * k for d, k in shapes))


def project_adapter(draw: Draw, answer: Answer, key: str) -> None:
    r, alpha = draw.whole("r", 1, 2), draw.number("alpha", 1, 16)
    layers, right = drawn_layers(draw, PATHS[: draw.whole("layers", 1, 4)], r)
    answered = answer({path: (B, A, alpha) for path, (B, A) in layers.items()})
    law(
        isinstance(answered, tuple) and len(answered) == 2,
        "a config and the bytes of a file are asked for",
    )
    config, file = answered
    law(isinstance(config, dict), f"the config is a dict, got {type(config).__name__}")
    tensors = tensors_in(real_array("the file", file, (None,)).astype(np.uint8).tobytes())
    if key == "file":
        for got in tensors.values():
            known = any(np.allclose(got, one) for one in right.values() if one.shape == got.shape)
            law(known, f"{got} is no factor")
        law(
            len(tensors) == len(right),
            f"{len(right)} tensors are asked for, the file has {len(tensors)}",
        )
    if key == "keys":
        law(
            tensors.keys() == right.keys(),
            f"the keys must be {sorted(right)}, got {sorted(tensors)}",
        )
        for name, array in right.items():
            same(name, tensors[name], array)
    if key == "config":
        modules = sorted({path.split(".")[-1] for path in layers})
        expected = {
            "peft_type": "LORA",
            "r": int(r),
            "lora_alpha": alpha,
            "target_modules": modules,
        }
        for name, setting in expected.items():
            law(
                config.get(name) == setting, f"{name} must be {setting!r}, got {config.get(name)!r}"
            )


def tensors_in(content: bytes) -> dict[str, Array]:
    """Read tensors from the bytes of a safetensors file; raise an error unless all are float32."""
    with TemporaryDirectory() as folder:
        path = Path(folder, "adapter_model.safetensors")
        path.write_bytes(content)
        try:
            file = safetensors.open(path)
            for name, about in file.tensors.items():
                law(about.dtype == "float32", f"{name} must have dtype F32, got {about.dtype}")
            return {name: file.read(name) for name in file.tensors}
        except FileError as error:
            raise LawBroken("", str(error).replace(str(path), path.name)) from None
