"""How many directions each module may keep."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lora_np.adapters.peft_format import METADATA, WEIGHTS, Adapter, header
from lora_np.checks import Array, number, whole_number
from lora_np.hub import SafetensorsWriter


@dataclass(frozen=True)
class Goal:
    """What a low-rank adapter is to meet: exactly one of the five is given (see `of`).

    Parameters
    ----------
    rank : int
        The same rank everywhere (less where a module has less).
    energy : float
        The share of its squared norm that each module keeps, as in 0.99.
    error : float
        The relative error in the Frobenius norm that each module may have, as in 0.01.
    bytes : int
        The size of ``adapter_model.safetensors``, shared out where it serves best.
    total_rank : int
        The sum of the ranks, shared out where it serves best.
    """

    rank: int | None = None
    energy: float | None = None
    error: float | None = None
    bytes: int | None = None
    total_rank: int | None = None

    @classmethod
    def of(cls, **goals: Any) -> Goal:
        """The one of these goals that is not None; the names are those that the caller's users know."""
        given = [name for name, content in goals.items() if content is not None]
        if len(given) != 1:
            *first, last = goals
            said = " and ".join(given) or "none of them"
            raise ValueError(f"give one of {', '.join(first)} and {last}, got {said}")
        return cls(**goals)

    def __post_init__(self) -> None:
        for name in ("rank", "bytes", "total_rank"):
            if getattr(self, name) is not None:
                whole_number(name, getattr(self, name))
        if self.energy is not None:
            number("energy", self.energy, minimum=0, maximum=1, open_minimum=True)
        if self.error is not None:
            number("error", self.error, minimum=0, maximum=1, open_maximum=True)

    @property
    def lost_energy(self) -> float | None:
        """The share of its squared norm that each module may lose, if that is the goal."""
        if self.energy is not None:
            return 1 - self.energy
        return None if self.error is None else self.error**2

    def rank_of(self, s: Array, missing: float = 0.0) -> int:
        """The rank of one module by itself, at least 1; see `rank_for_loss`."""
        if self.rank is not None:
            return min(self.rank, len(s))
        assert self.lost_energy is not None
        return rank_for_loss(s, self.lost_energy, missing) or len(s)


def rank_for_loss(s: Array, share: float, missing: float = 0.0) -> int:
    """The smallest rank, from 1 on, that loses at most ``share`` of the squared norm; 0 if ``s`` has none.

    ``s`` may hold the leading singular values only: ``missing`` is the sum of the squares of all others.
    """
    lost = missing + np.append(np.cumsum(np.square(s[::-1]))[::-1], 0.0)  # by rank, small terms first
    # What rounding hides is not lost: without this, a share of 0 would never be met.
    enough = lost[1:] <= (share + np.finfo(s.dtype).eps * len(s)) * lost[0]
    return int(np.argmax(enough)) + 1 if enough.any() else 0


def allocate(
    spectra: Mapping[str, Array],
    costs: Mapping[str, int],
    budget: int,
    *,
    at_least: Mapping[str, int] | None = None,
    fixed: int = 0,
    name: str = "budget",
) -> dict[str, int]:
    """Ranks within a budget, greedily: always the direction with the largest ``sigma**2`` for its cost.

    Parameters
    ----------
    spectra : mapping of str to ndarray
        The singular values of each module, descending.
    costs : mapping of str to int
        What one direction of each module costs.
    budget : int
    at_least : mapping of str to int, optional
        Ranks that are taken first.
    fixed : int
        What is spent at any rank.
    name : str
        What messages call the budget.

    Returns
    -------
    dict of str to int
        Some may be 0.

    Raises
    ------
    ValueError
        If the budget does not suffice for ``at_least``, or for any direction at all.

    Notes
    -----
    Least summed squared error, if all costs are equal. Otherwise it is a knapsack, and the greedy choice
    keeps less than the best one by at most the square of the first singular value that did not fit.

    Examples
    --------
    >>> allocate({"a": np.array([3.0, 1.0]), "b": np.array([2.0])}, {"a": 10, "b": 10}, 20)
    {'a': 1, 'b': 1}
    """
    ranks = {module: (at_least or {}).get(module, 0) for module in spectra}
    taken = fixed + sum(rank * costs[module] for module, rank in ranks.items())
    minimum = taken if any(ranks.values()) else taken + min(costs.values())
    if budget < minimum:
        raise ValueError(f"{name} must be at least {minimum}, got {budget}")
    left = budget - taken
    waiting: list[tuple[float, str]] = []

    def offer(module: str) -> None:
        if ranks[module] < len(spectra[module]):
            value = float(spectra[module][ranks[module]]) ** 2
            if value > 0:
                heapq.heappush(waiting, (-value / costs[module], module))

    for module in spectra:
        offer(module)
    while waiting:
        _, module = heapq.heappop(waiting)
        if costs[module] <= left:  # if not, no later one of this module fits either
            left -= costs[module]
            ranks[module] += 1
            offer(module)
    return ranks


def allocate_bytes(
    adapter: Adapter,
    spectra: Mapping[str, Array],
    size: int,
    *,
    at_least: Mapping[str, int] | None = None,
) -> dict[str, int]:
    """Ranks with which the file of ``adapter``, given at its largest, has at most ``size`` bytes.

    A module of rank 0 leaves the file and takes its part of the header with it. So the modules whose first
    direction serves least are left out one by one, as long as what that buys elsewhere is worth more.

    Raises
    ------
    ValueError
        If no file with a direction, or with all of ``at_least``, is as small as ``size``.
    """
    at_least = at_least or {}
    costs = {name: module.bytes_per_rank for name, module in adapter.items()}
    worth = {name: float(s[0]) ** 2 / costs[name] for name, s in spectra.items()}
    must = [name for name in adapter if at_least.get(name)]
    may = [name for name in adapter if worth[name] > 0 and not at_least.get(name)]

    def fixed(names: Sequence[str]) -> int:
        part = replace(adapter, modules={name: adapter[name] for name in names})
        largest = SafetensorsWriter(WEIGHTS, header(part.tensors()), metadata=METADATA).size
        return largest - sum(adapter[name].rank * costs[name] for name in names)

    taken = sum(at_least[name] * costs[name] for name in must)
    least = {name: fixed([*must, name]) + taken + costs[name] for name in may}
    minimum = fixed(must) + taken if must else min(least.values(), default=0)
    if size < minimum:
        raise ValueError(f"bytes must be at least {minimum}, got {size}")
    fitting = [name for name in may if least[name] <= size]
    order = [*must, *sorted(fitting, key=worth.__getitem__, reverse=True)]
    best, most = dict.fromkeys(adapter, 0), -1.0
    for count in range(len(order), max(len(must), 1) - 1, -1):
        some = {name: spectra[name] for name in order[:count]}
        try:
            ranks = allocate(
                some, {name: costs[name] for name in some}, size, at_least=at_least, fixed=fixed([*some])
            )
        except ValueError:
            continue  # the header alone is too large
        kept = sum(float(np.square(s[: ranks[name]]).sum()) for name, s in some.items())
        if kept > most:
            best, most = dict.fromkeys(adapter, 0) | ranks, kept
        elif all(ranks.values()):
            break
    return best
