"""How many bits a LoRA can learn by heart, as a range that was measured, and the rank that is
enough.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from types import MappingProxyType
from typing import Any

from lora_np.accounting.lora import LoraCount, count
from lora_np.checks import choice, number, whole_number
from lora_np.table import Cell, Shown, Table

# Bits for each trained number, from the results of the claim capacity-range (a test compares them)
MEASURED: Mapping[str, tuple[float, float]] = MappingProxyType(
    {"labels": (1.86, 2.78), "labels, rank 1": (0.92, 1.38), "text": (0.07, 0.61)}
)
SHARE = 4  # the highest rank that was measured is one of so many parts of min(d, k)


@dataclass(frozen=True, repr=False)
class Capacity(Shown):
    """Bits that a LoRA can hold, and that are asked of it: the result of `capacity`.

    Parameters
    ----------
    count : LoraCount
        The LoRA.
    content : str
        What is learnt, "text" or "labels".
    low, high : float
        Bits that it can hold.
    bits : float or None
        Bits that are asked.
    enough : int or None
        The smallest rank whose ``low`` is at least ``bits``.
    """

    count: LoraCount
    content: str
    low: float
    high: float
    bits: float | None = None
    enough: int | None = None

    @property
    def free(self) -> int:
        """Degrees of freedom: ``r (d + k - r)`` of each module, since B M and M^-1 A are the same
        update.
        """
        return self.count.trainable - sum(
            each.rank**2 * each.copies for each in self.count.adapters
        )

    @property
    def table(self) -> Table:
        """What is held and asked; a note warns above half of ``low``."""
        heads = ["rank", "numbers trained", "degrees of freedom", "bits held, at least", "at most"]
        row: list[Cell] = [self.count.rank, self.count.trainable, self.free]
        row += [round(self.low), round(self.high)]
        notes = [f"As measured for {self.content}, with plain LoRA and Adam at its best rate."]
        if self.bits is not None:
            heads, row = (
                [*heads, "bits asked", "smallest rank"],
                [*row, round(self.bits), self.enough],
            )
            if self.bits > self.low / 2:
                share = f"{self.bits / self.low:.0%} of what it surely holds"
                notes.append(f"Warning: {share} is asked; above half, learning slows.")
            if self.enough is None:
                notes.append("The smallest rank would be above those that were measured.")
        return Table(
            heads, [tuple(row)], title=f"Capacity of a LoRA on {self.count.spec.name}", notes=notes
        )


def capacity(
    model: Any, *, rank: int, bits: float | None = None, content: str = "text", **options: Any
) -> Capacity:
    """Numbers trained times the bits for each that were measured: a range, never one figure.

    Parameters
    ----------
    model : object
        Whatever `count` takes.
    rank : int
        Of the LoRA.
    bits : float, optional
        What is to be learnt by heart: `lora_np.language.bits_to_learn` measures it for a model that
        runs.
    content : {"text", "labels"}
        Tokens of a language model, or labels of independent inputs. The range for labels is a
        factor of 1.5 wide; that for text depends on the module, and is wider.
    **options
        Of `count`, such as ``targets``.

    Returns
    -------
    Capacity
        The range, and the smallest rank whose lower end holds ``bits``.

    Raises
    ------
    ValueError
        If nothing was measured for the case: DoRA and other tuners, modules trained in full, or a
        rank above a quarter of ``min(d, k)``.

    References
    ----------
    J. Morris et al., "How much do language models memorize?", arXiv 2505.24832.

    Examples
    --------
    >>> found = capacity("llama-3-8b", rank=8, bits=1e6)
    >>> found.count.trainable, round(found.low), found.enough
    (3407872, 238551, 34)
    """
    choice("content", content, ("text", "labels"))
    found, one = (plain(model, each, options) for each in (rank, 1))
    low, high = held(found, content)
    enough = None
    if bits is not None:
        bits = number("bits", bits, minimum=0)
        above = max(2, ceil(bits / (MEASURED[content][0] * one.trainable)))
        needed = 1 if bits <= held(one, content)[0] else above
        enough = needed if needed <= highest(found) else None
    return Capacity(found, content, low, high, bits, enough)


def plain(model: Any, rank: int, options: Mapping[str, Any]) -> LoraCount:
    """The LoRA, if it is of a kind that was measured."""
    found: LoraCount = count(model, rank=rank, **options)
    if found.dora or found.tuner or found.saved or found.biases:
        raise ValueError(
            "only plain LoRA was measured: no DoRA, other tuners, or modules trained in full"
        )
    top = "a quarter of the smallest min(d, k), above which nothing was measured,"
    whole_number("rank", found.rank, maximum=highest(found), top=top)
    return found


def highest(found: LoraCount) -> int:
    """The highest rank of the kind that was measured."""
    return max(1, min(each.limit for each in found.adapters) // SHARE)


def held(found: LoraCount, content: str) -> tuple[float, float]:
    """The lowest and the highest number of bits that was measured."""
    alone = f"{content}, rank {found.rank}"
    low, high = MEASURED.get(alone, MEASURED[content])
    return low * found.trainable, high * found.trainable
