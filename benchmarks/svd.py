"""Truncated SVD: time, and error above the optimum, against NumPy, SciPy, scikit-learn and
torch.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from benchmarks._measure import medians, one_thread, peers, versions
from lora_np.checks import Array
from lora_np.linalg import svd_of_product, truncated_svd
from lora_np.table import Cell, Table, shape_text

SPECTRA: dict[str, Callable[[Array], Array]] = {
    "slow, i^-1/2": lambda i: i**-0.5,
    "fast, 0.8^i": lambda i: 0.8**i,
}


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks svd", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small matrices, once")
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    modules = peers("scipy.sparse.linalg", "sklearn.utils.extmath", "torch")
    cases: list[tuple[int, int, type]] = [(1000, 1200, np.float64), (1000, 1200, np.float32)]
    if options.quick:
        cases, options.rounds = [(60, 80, np.float32)], 1
    else:
        cases.append((4096, 4096, np.float32))  # takes minutes
    rows: list[list[Cell]] = []
    with one_thread():
        for d, k, dtype in cases:
            for name in SPECTRA:
                rows += truncation(d, k, dtype, name, options.rank, options.rounds, modules)
        rows += product(*(60, 80) if options.quick else (1024, 1024), options.rank, options.rounds)
    table = Table(
        ["matrix", "method", "ms", "times faster", "excess error"],
        rows,
        title=f"The {options.rank} largest singular triplets, median times on one thread",
        notes=[
            "times faster: than numpy.linalg.svd, in the same process",
            (
                "excess error: ||M - U S V||_F over the smallest possible, minus 1; for the"
                " product, the largest relative difference of a singular value"
            ),
            versions("numpy", "scipy", "scikit-learn", "torch"),
        ],
        formats={
            "ms": "{:,.2f}".format,
            "times faster": "{:,.1f}".format,
            "excess error": "{:.0e}".format,
        },
    )
    print(table.to_json() if options.json else table)


def truncation(
    d: int, k: int, dtype: type, spectrum: str, rank: int, rounds: int, modules: dict[str, Any]
) -> list[list[Cell]]:
    s = SPECTRA[spectrum](np.arange(1.0, min(d, k) + 1))
    M: Array = with_spectrum(s, d, k).astype(dtype)
    contenders: dict[str, Callable[[], Any]] = {
        "numpy.linalg.svd": lambda: np.linalg.svd(M, full_matrices=False),
        "lora_np.truncated_svd": lambda: truncated_svd(M, rank=rank),
    }
    if scipy := modules.get("scipy.sparse.linalg"):
        contenders["scipy svds"] = lambda: scipy.svds(M, k=rank, random_state=0)
    if sklearn := modules.get("sklearn.utils.extmath"):
        contenders["sklearn randomized_svd"] = lambda: sklearn.randomized_svd(
            M, rank, random_state=0
        )
    if torch := modules.get("torch"):
        tensor = torch.from_numpy(M)
        for n in (2, 16):
            contenders[f"torch svd_lowrank, niter={n}"] = partial(
                torch.svd_lowrank, tensor, q=rank, niter=n
            )
    seconds, results = medians(contenders, rounds=rounds)
    label = f"{shape_text((d, k))} {np.dtype(dtype).name}, {spectrum}"
    best = float(np.linalg.norm(s[rank:]))
    return [
        [
            label,
            name,
            1e3 * t,
            seconds["numpy.linalg.svd"] / t,
            excess(M, results[name], rank, best, name),
        ]
        for name, t in seconds.items()
    ]


def product(d: int, k: int, rank: int, rounds: int) -> list[list[Cell]]:
    rng = np.random.default_rng(0)
    B = rng.standard_normal((d, rank), dtype=np.float32)
    A = rng.standard_normal((rank, k), dtype=np.float32)
    seconds, results = medians(
        {
            "numpy.linalg.svd(B @ A)": lambda: np.linalg.svd(B @ A, full_matrices=False),
            "lora_np.svd_of_product(B, A)": lambda: svd_of_product(B, A),
        },
        rounds=rounds,
    )
    formed, ours = results.values()
    difference = float(np.abs(ours[1] / formed[1][:rank] - 1).max())
    slow, fast = seconds.values()
    label = f"B A, {shape_text((d, k))} float32"
    names = list(seconds)
    return [
        [label, names[0], 1e3 * slow, 1.0, None],
        [label, names[1], 1e3 * fast, slow / fast, difference],
    ]


def excess(M: Array, result: Any, rank: int, best: float, name: str) -> float:
    U, s, Vh = (np.asarray(part, dtype=np.float64) for part in result)
    if name.startswith("torch"):
        Vh = Vh.T
    largest = np.argsort(-s)[:rank]
    error = np.linalg.norm(M - (U[:, largest] * s[largest]) @ Vh[largest])
    return float(error / best - 1)


def with_spectrum(s: Array, d: int, k: int) -> Array:
    """A d x k matrix with singular values s; its singular vectors are spread over all entries."""
    rng = np.random.default_rng(0)
    M = np.zeros((d, k))
    np.fill_diagonal(M, s)
    return _mixed(_mixed(M, rng).T, rng).T


def _mixed(M: Array, rng: np.random.Generator) -> Array:
    """Random signs and Hartley transforms of the columns: an orthogonal map, in O(n log n) a
    column.
    """
    for _ in range(2):
        F = np.fft.fft(rng.choice([-1.0, 1.0], size=len(M))[:, None] * M, axis=0) / np.sqrt(len(M))
        M = F.real - F.imag
    return M
