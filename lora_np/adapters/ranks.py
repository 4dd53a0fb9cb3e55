"""How many directions each module may keep."""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from lora_np.adapters.module import AdapterModule, header
from lora_np.adapters.peft_format import METADATA, WEIGHTS, Adapter, targeting
from lora_np.checks import Array, number, whole_number
from lora_np.hub import HubError, SafetensorsWriter
from lora_np.linalg import ENOUGH, rank_within

_PADDING = 7  # bytes at most, by which a header is padded


@dataclass(frozen=True)
class Spectrum:
    """The strengths of an update: its leading singular values, and the squared norm of what they leave.

    ``dtype`` is that of the numbers from which they were computed.
    """

    s: Array
    missing: float = 0.0
    dtype: str = "float64"

    @classmethod
    def of(cls, s: Array, scale: float) -> Spectrum:
        """That of an update, or of a stack of them, whose first directions are kept or left together."""
        strengths: Array = abs(scale) * np.linalg.norm(s.astype(np.float64).reshape(-1, s.shape[-1]), axis=0)
        return cls(strengths, dtype=s.dtype.name)

    @property
    def norm(self) -> float:
        return float(self.left(0) ** 0.5)

    def left(self, rank: int) -> float:
        """The squared norm of what ``rank`` directions leave."""
        return float(self.missing + np.square(self.s[rank:]).sum())

    def error(self, rank: int) -> float:
        """The relative error in the Frobenius norm at a rank."""
        return float((self.left(rank) / (self.left(0) or 1.0)) ** 0.5)

    def needed(self, share: float = ENOUGH) -> int:
        """The smallest rank with this share of the squared norm, by the rule of `rank_within`; 0 for zero.

        One more than there are singular values, if these do not have it.
        """
        lost = np.cumsum(np.append(self.missing, np.square(self.s[::-1])))[::-1]  # small terms first
        if not lost[0]:
            return 0
        errors = np.append(np.sqrt(lost / lost[0]), 0.0).astype(self.dtype)
        return max(1, rank_within(errors, tolerance=(1 - share) ** 0.5))


def total_error(spectra: Iterable[Spectrum], ranks: Iterable[int]) -> float:
    """The relative error of all updates together."""
    lost = norm = 0.0
    for spectrum, rank in zip(spectra, ranks, strict=True):
        lost += spectrum.left(rank)
        norm += spectrum.left(0)
    return float((lost / (norm or 1.0)) ** 0.5)


class Goal(NamedTuple):
    """What a low-rank adapter is to meet; made by `of`.

    Parameters
    ----------
    name : {"rank", "energy", "error", "bytes", "total_rank"}
        The same rank everywhere (less where a module has less); the share of its squared norm that each
        module keeps, or the relative error in the Frobenius norm that it may have; the size of
        ``adapter_model.safetensors`` or the sum of the ranks, shared out where they serve best.
    value : int or float
        How much of it.
    """

    name: str
    value: Any

    @classmethod
    def of(cls, **goals: Any) -> Goal:
        """The one of these goals that is not None; the names are those that the caller's users know."""
        given = {name: content for name, content in goals.items() if content is not None}
        if len(given) != 1:
            *first, last = goals
            said = " and ".join(given) or "none of them"
            raise ValueError(f"give one of {', '.join(first)} and {last}, got {said}")
        ((name, value),) = given.items()
        if name in ("energy", "error"):
            ends = {"open_minimum": name == "energy", "open_maximum": name == "error"}
            return cls(name, number(name, value, minimum=0, maximum=1, **ends))
        return cls(name, whole_number(name, value))

    @property
    def share(self) -> float | None:
        """The share of its squared norm that each module is to keep, if that is the goal."""
        if self.name == "error":
            return float(1 - self.value**2)
        return float(self.value) if self.name == "energy" else None

    def ranks(self, adapter: Adapter, spectra: Mapping[str, Spectrum]) -> dict[str, int]:
        """The directions of each module of ``adapter``, which is given at its largest; 0 leaves it out.

        They are the rank, except of a convolution in groups, where they are the rank of each.
        """
        modules = adapter.modules
        if self.name == "rank":
            return {
                name: min(max(1, self.value // modules[name].groups), len(spectrum.s))
                for name, spectrum in spectra.items()
            }
        # A magnitude or a bias does something without any direction, and PEFT knows no rank of 0.
        at_least = {
            name: int("magnitude" in module.parts or "bias" in module.parts)
            for name, module in modules.items()
        }
        if self.share is not None:
            return {name: max(at_least[name], x.needed(self.share)) for name, x in spectra.items()}
        values = {name: spectrum.s for name, spectrum in spectra.items()}
        if self.name == "bytes":
            return allocate_bytes(adapter, values, self.value, at_least=at_least)
        groups = {name: module.groups for name, module in modules.items()}
        return allocate(values, groups, self.value, at_least=at_least, name=self.name)


def cut(adapter: Adapter, ordered: Mapping[str, AdapterModule], ranks: Mapping[str, int]) -> Adapter:
    """``adapter`` at these ranks, from ``ordered``, whose directions are in the order of their strength."""
    modules = {
        name: module if ranks[name] == module.directions else ordered[name].leading(ranks[name])
        for name, module in adapter.modules.items()
        if ranks[name] > 0
    }
    if not modules:
        raise HubError(f"{adapter.path}: every module is zero, so there is nothing to keep")
    raw = adapter.raw
    new_factors = raw.get("ensure_weight_tying") or raw.get("init_lora_weights") == "mica"
    if new_factors or len(modules) < len(adapter.modules):
        raw = targeting(raw, modules)
    return replace(adapter, modules=modules, raw=raw)


def allocate(
    spectra: Mapping[str, Array],
    costs: Mapping[str, int],
    budget: int,
    *,
    at_least: Mapping[str, int] | None = None,
    fixed: int = 0,
    entry: Mapping[str, int] | None = None,
    name: str = "budget",
) -> dict[str, int]:
    """Ranks within a budget: greedily the directions that keep most for what they cost, or one module alone.

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
    entry : mapping of str to int, optional
        What the first direction of a module costs in addition.
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
    Without ``entry`` and with equal costs no choice keeps more. Otherwise it is a knapsack with several
    choices for each module, and beyond ``at_least`` two things are guaranteed: at least as much is kept as by
    any one module that has the whole budget, and at least half of what the best choice would keep. For the
    greedy steps up to the first that does not fit are the best use of what they cost, also if directions
    could be divided; and the module of that step has the whole budget in the other candidate.

    Examples
    --------
    >>> allocate({"a": np.array([3.0, 1.0]), "b": np.array([2.0])}, {"a": 10, "b": 10}, 20)
    {'a': 1, 'b': 1}
    >>> allocate({"a": np.array([2.0]), "b": np.array([3.0])}, {"a": 1, "b": 10}, 10)
    {'a': 0, 'b': 1}
    """
    entry = entry or dict.fromkeys(spectra, 0)
    start = {module: (at_least or {}).get(module, 0) for module in spectra}
    taken = fixed + sum(rank * costs[module] + entry[module] for module, rank in start.items() if rank)
    firsts = [] if any(start.values()) else [costs[x] + entry[x] for x, s in spectra.items() if s[0] > 0]
    if budget < taken + min(firsts, default=0):
        raise ValueError(f"{name} must be at least {taken + min(firsts, default=0)}, got {budget}")
    left, ranks = budget - taken, dict(start)

    def due(module: str) -> int:
        return 0 if ranks[module] else entry[module]

    def gains(module: str) -> Array:
        """What 1, 2, ... more directions keep, of those that fit."""
        s, most = spectra[module][ranks[module] :], max(0, (left - due(module)) // costs[module])
        return np.cumsum(np.square(s[s > 0][:most]))

    alone = {module: gains(module) for module in spectra}
    best = max(alone, key=lambda module: float(alone[module][-1:].sum()))
    waiting: list[tuple[float, str, int]] = []

    def offer(module: str) -> None:
        """The next directions that keep most for their price: one, except where an entry is due."""
        found = gains(module) if due(module) else gains(module)[:1]
        if len(found):
            worth = found / (due(module) + costs[module] * np.arange(1, len(found) + 1))
            heapq.heappush(waiting, (-float(worth.max()), module, int(worth.argmax()) + 1))

    for module in spectra:
        offer(module)
    while waiting:
        _, module, more = heapq.heappop(waiting)
        if more <= len(gains(module)):  # otherwise fewer are offered, if any fit
            left -= due(module) + more * costs[module]
            ranks[module] += more
        offer(module)
    kept = sum(float(np.square(s[start[module] : ranks[module]]).sum()) for module, s in spectra.items())
    if kept < alone[best][-1:].sum():
        return {**start, best: start[best] + len(alone[best])}
    return ranks


def allocate_bytes(
    adapter: Adapter, spectra: Mapping[str, Array], size: int, *, at_least: Mapping[str, int] | None = None
) -> dict[str, int]:
    """Ranks with which the file of ``adapter``, given at its largest, has at most ``size`` bytes.

    A module of rank 0 leaves the file and takes its part of the header with it. The header is estimated from
    above, by some 20 bytes for each module: lengths of numbers in it depend on all ranks. With that, what
    `allocate` says of a budget holds.

    Raises
    ------
    ValueError
        If no file with a direction, or with all of ``at_least``, is as small as ``size``.
    """
    end = sum(info.nbytes for info in header(adapter.tensors()).values())

    def taken(part: Adapter) -> int:
        """The bytes of tensors and of their lines in the header, at most: dtypes have four letters there."""
        tensors = header(part.tensors())
        places = {"dtype": "BF16", "data_offsets": (end, end)}
        lines = {key: {**places, "shape": x.shape} for key, x in tensors.items()}
        text = json.dumps(lines, separators=(",", ":"), ensure_ascii=False)
        return len(text.encode()) - 1 + sum(info.nbytes for info in tensors.values())

    costs = {name: module.bytes_per_rank for name, module in adapter.modules.items()}
    entry = {
        name: taken(Adapter({name: module})) - module.directions * costs[name]
        for name, module in adapter.modules.items()
    }
    fixed = SafetensorsWriter(WEIGHTS, {}, metadata=METADATA).size + _PADDING
    fixed += taken(replace(adapter, modules={}))
    return allocate(spectra, costs, size, at_least=at_least, fixed=fixed, entry=entry, name="bytes")
