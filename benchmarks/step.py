"""A training step, LoRA and full: time, memory and page faults against the limit, torch, autograd,
jax.
"""

from __future__ import annotations

import argparse
import os
import sys
import tracemalloc
from collections.abc import Callable
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np

import lora_np as lnp
from benchmarks import limit
from benchmarks._measure import one_thread, peers, versions
from lora_np.checks import Array
from lora_np.table import Cell, Table, shape_text

if sys.platform != "win32":
    import resource

BATCH = 256
# d, k, r, and steps in a round
SIZES = [(100, 120, 8, 300), (768, 768, 8, 20), (1024, 1024, 8, 10), (4096, 4096, 16, 2)]
RATE = 1e-3
LIMIT, FIT, FULL = "the limit", "lora_np, fit", "lora_np, fit, full"

Steps = Callable[[int], float]  # takes so many steps, and returns the seconds they took


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks step", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="the smallest size, once")
    parser.add_argument("--rounds", type=int, default=15, help="(a third of them at 4096 x 4096)")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    modules = peers("torch", "loralib", "peft", "autograd", "jax")
    sizes = SIZES[:1] if options.quick else SIZES
    rows: list[list[Cell]] = []
    with one_thread():
        for d, k, r, steps in sizes:
            rounds = options.rounds if d < 4096 else max(3, options.rounds // 3)
            if options.quick:
                rounds, steps = 1, 3
            rows += measure(d, k, r, steps, rounds, modules)
    table = Table(
        ["size", "step", "ms", "times the limit", "peak, MB", "page faults"],
        rows,
        title=f"A training step on {BATCH} rows, float32, Adam, one thread",
        notes=[
            "times the limit: median of the ratios of each round, in which all run in turn, "
            "in one process",
            "peak: of traced memory, from after x, y, W0, A and B exist; page faults: minor ones, "
            "a step; both only where NumPy allocates",
            "composed: NumPy's functions one by one, and the library's mean_squared_error; "
            "layer: the LoRA layer and the loss in a step each; "
            "fit: the same layer and loss in lora_np.fit",
            versions("numpy", "torch", "loralib", "peft", "autograd", "jax"),
        ],
        formats={
            "ms": "{:.3f}".format, "times the limit": "{:.2f}".format,
            "peak, MB": "{:.2f}".format, "page faults": "{:.1f}".format,
        },
    )  # fmt: skip
    print(table.to_json() if options.json else table)


def measure(
    d: int, k: int, r: int, steps: int, rounds: int, modules: dict[str, Any]
) -> list[list[Cell]]:
    x, y, W0, A, B = limit.problem(BATCH, d, k, r)
    ours = {LIMIT: the_limit, "plain NumPy": plain, "lora_np, composed": composed,
            "lora_np, layer": layer, FIT: fit, FULL: full}  # fmt: skip
    theirs = {"torch + loralib": loralib, "torch + PEFT": peft, "torch, full": torch_full,
              "HIPS autograd": autograd, "jax.jit": jax}  # fmt: skip
    needs = {"torch + loralib": {"torch", "loralib"}, "torch + PEFT": {"torch", "peft"},
             "torch, full": {"torch"}, "HIPS autograd": {"autograd"},
             "jax.jit": {"jax"}}  # fmt: skip
    contenders: dict[str, Steps] = {name: make(x, y, W0, A, B) for name, make in ours.items()}
    for name, make in theirs.items():
        if needs[name] <= set(modules):
            contenders[name] = make(x, y, W0, A, B)
    for run in contenders.values():
        run(2)
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, run in contenders.items():
            seconds[name].append(run(steps) / steps)
    size = f"{shape_text((d, k))}, r = {r}"
    rows: list[list[Cell]] = []
    for name in contenders:
        ratios = [t / best for t, best in zip(seconds[name], seconds[LIMIT], strict=True)]
        traced = name in ours or name == "HIPS autograd"
        rows.append([
            size, name, 1e3 * median(seconds[name]), median(ratios),
            peak({**ours, **theirs}[name], x, y, W0, A, B) / 1e6 if traced else None,
            faults(contenders[name], steps) if traced else None,
        ])  # fmt: skip
    return rows


def timed(step: Callable[[], Any]) -> Steps:
    def run(steps: int) -> float:
        begin = perf_counter()
        for _ in range(steps):
            step()
        return perf_counter() - begin

    return run


def peak(make: Callable[..., Steps], *problem: Array) -> float:
    """Largest amount of traced memory in building and running three steps."""
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    make(*problem)(3)
    result = tracemalloc.get_traced_memory()[1] - before
    tracemalloc.stop()
    return result


def faults(run: Steps, steps: int) -> float | None:
    """Minor page faults a step: those of twice as many steps, less what is spent on starting."""
    if sys.platform == "win32":
        return None
    counts = []
    for n in (steps, 3 * steps):
        begin = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        run(n)
        counts.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - begin)
    return max(0.0, (counts[1] - counts[0]) / (2 * steps))


# Contenders. Every one takes x, y, W0, A, B, with the scale alpha / r = 1.


def the_limit(x: Array, y: Array, W0: Array, A: Array, B: Array) -> Steps:
    return timed(limit.lora_step(x, y, W0, A, B, 1.0, RATE))


def plain(x: Array, y: Array, W0: Array, A: Array, B: Array) -> Steps:
    """What one writes first: no buffers, and Adam for each array, but nothing computed twice."""
    A, B = A.copy(), B.copy()
    state = [(p, np.zeros_like(p), np.zeros_like(p)) for p in (A, B)]
    count = 0

    def step() -> Any:
        nonlocal count
        count += 1
        z = x @ A.T
        residual = x @ W0.T + z @ B.T - y
        loss = np.mean(residual**2)
        g = residual * (2 / residual.size)
        for (p, m, v), gradient in zip(state, ((g @ B).T @ x, g.T @ z), strict=True):
            m[...] = 0.9 * m + 0.1 * gradient
            v[...] = 0.999 * v + 0.001 * gradient**2
            p -= RATE * (m / (1 - 0.9**count)) / (np.sqrt(v / (1 - 0.999**count)) + 1e-8)
        return loss

    return timed(step)


def composed(x: Array, y: Array, W0: Array, A: Array, B: Array) -> Steps:
    a, b = lnp.Tensor(A), lnp.Tensor(B)
    run = lnp.training_run(lnp.Adam(lr=RATE), [a, b])

    def step() -> float:
        loss: Any = lnp.mean_squared_error(x @ W0.T + (x @ a.T * 1.0) @ b.T, y)
        loss.backward()
        run.step()
        return float(loss.item())

    return timed(step)


def layer(x: Array, y: Array, W0: Array, A: Array, B: Array) -> Steps:
    model = adapted(W0, A, B)
    run = lnp.training_run(lnp.Adam(lr=RATE), model)

    def step() -> float:
        loss: Any = lnp.mean_squared_error(model(x), y)
        loss.backward()
        run.step()
        return float(loss.item())

    return timed(step)


def fit(x: Array, y: Array, W0: Array, A: Array, B: Array) -> Steps:
    return fitted(adapted(W0, A, B), x, y)


def full(x: Array, y: Array, W0: Array, A: Array, B: Array) -> Steps:
    return fitted(lnp.Linear(lnp.Tensor(W0)), x, y)


def adapted(W0: Array, A: Array, B: Array) -> lnp.LoRALinear:
    return lnp.LoRALinear(lnp.Linear(W0), lnp.Tensor(A), lnp.Tensor(B), alpha=float(len(A)))


def fitted(model: Any, x: Array, y: Array) -> Steps:
    def run(steps: int) -> float:
        result = lnp.fit(model, x, y, optimizer=lnp.Adam(lr=RATE), steps=steps, progress=False)
        return result.history.seconds

    return run


def torch_steps(model: Any, x: Array, y: Array) -> Steps:
    import torch

    x, y = torch.from_numpy(x), torch.from_numpy(y)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=RATE)

    def step() -> float:
        loss = torch.nn.functional.mse_loss(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return float(loss.item())

    return timed(step)


def torch_linear(W0: Array) -> Any:
    import torch

    linear = torch.nn.Linear(W0.shape[1], W0.shape[0], bias=False)
    linear.weight.data = torch.from_numpy(W0.copy())
    return linear


def loralib(x: Array, y: Array, W0: Array, A: Array, B: Array) -> Steps:
    import loralib
    import torch

    model = loralib.Linear(W0.shape[1], W0.shape[0], r=len(A), lora_alpha=len(A), bias=False)
    model.weight.data, model.lora_A.data, model.lora_B.data = (
        torch.from_numpy(a.copy()) for a in (W0, A, B)
    )
    return torch_steps(model, x, y)


def peft(x: Array, y: Array, W0: Array, A: Array, B: Array) -> Steps:
    import torch
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=len(A), lora_alpha=len(A), target_modules=["0"], lora_dropout=0.0)
    model = get_peft_model(torch.nn.Sequential(torch_linear(W0)), config)
    inner = model.base_model.model[0]
    inner.lora_A["default"].weight.data = torch.from_numpy(A.copy())
    inner.lora_B["default"].weight.data = torch.from_numpy(B.copy())
    return torch_steps(model, x, y)


def torch_full(x: Array, y: Array, W0: Array, A: Array, B: Array) -> Steps:
    return torch_steps(torch_linear(W0), x, y)


def autograd(x: Array, y: Array, W0: Array, A: Array, B: Array) -> Steps:
    import autograd.numpy as anp
    from autograd import value_and_grad

    bank = np.concatenate([A.ravel(), B.ravel()])
    update = limit.flat_adam(bank.size, RATE)

    def loss(bank: Any) -> Any:
        a, b = bank[: A.size].reshape(A.shape), bank[A.size :].reshape(B.shape)
        return anp.mean((x @ W0.T + (x @ a.T) @ b.T - y) ** 2)

    both = value_and_grad(loss)

    def step() -> Any:
        now, gradient = both(bank)
        update(bank, gradient)
        return now

    return timed(step)


def jax(x: Array, y: Array, W0: Array, A: Array, B: Array) -> Steps:
    import jax
    import jax.numpy as jnp

    x, y, W0 = jnp.asarray(x), jnp.asarray(y), jnp.asarray(W0)

    def loss(p: Any, x: Any, y: Any, W0: Any) -> Any:
        return jnp.mean((x @ W0.T + (x @ p[0].T) @ p[1].T - y) ** 2)

    def next_state(x: Any, y: Any, W0: Any, p: Any, m: Any, v: Any, count: Any) -> Any:
        # The data is an argument: of a constant, x W0^T would be computed once for all steps.
        now, g = jax.value_and_grad(loss)(p, x, y, W0)
        m = [0.9 * a + 0.1 * b for a, b in zip(m, g, strict=True)]
        v = [0.999 * a + 0.001 * b * b for a, b in zip(v, g, strict=True)]
        first, second = 1 - 0.9**count, 1 - 0.999**count
        p = [
            w - RATE * (a / first) / (jnp.sqrt(b / second) + 1e-8)
            for w, a, b in zip(p, m, v, strict=True)
        ]
        return now, p, m, v

    update: Any = jax.jit(next_state)

    p = [jnp.asarray(A), jnp.asarray(B)]
    state = [p, [jnp.zeros_like(a) for a in p], [jnp.zeros_like(a) for a in p]]
    count = 0

    def step() -> float:
        nonlocal count
        count += 1
        now, *state[:] = update(x, y, W0, *state, float(count))
        return float(now)

    return timed(step)
