"""Estimate how many bits a LoRA can memorise, and the smallest rank for a number of bits."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from lora_np.accounting.lora import LoraCount, Option, count_adapter, reusable
from lora_np.checks import choice, number, whole_number
from lora_np.table import Cell, Shown, Table

if TYPE_CHECKING:
    from lora_np.accounting.in_memory import Model

# The lowest and highest bits per trainable parameter, by kind of data, as measured for the claim
# capacity-range.
MEASURED: Mapping[str, tuple[float, float]] = MappingProxyType(
    {"labels": (1.86, 2.78), "labels, rank 1": (0.92, 1.38), "text": (0.07, 0.61)}
)
SHARE = 4  # capacity was measured at ranks up to min(d, k) / SHARE


@dataclass(frozen=True, repr=False)
class Capacity(Shown):
    """The bits that a LoRA can memorise and the bits that data require, returned by `capacity`.

    Parameters
    ----------
    count : LoraCount
        The LoRA.
    content : str
        The kind of content to memorise, "text" or "labels".
    low, high : float
        The range of bits that the LoRA can memorise.
    bits : float or None
        The bits that the data require, if they were given.
    enough : int or None
        The smallest rank whose ``low`` is at least ``bits``; None without ``bits``, or if that rank
        is above those that were measured.
    """

    count: LoraCount
    content: str
    low: float
    high: float
    bits: float | None = None
    enough: int | None = None

    @property
    def free(self) -> int:
        """The degrees of freedom, ``r (d + k - r)`` per module.

        They are fewer than the parameters, because the factors B M and M^-1 A give the same update
        for any invertible M.
        """
        return self.count.trainable - sum(
            adapted.rank**2 * adapted.module.sides[0] * adapted.copies
            for adapted in self.count.adapters
        )

    @property
    def table(self) -> Table:
        """A table of capacity and required bits; a note warns above half of the low estimate."""
        row: dict[str, Cell] = {
            "rank": self.count.rank,
            "trainable parameters": self.count.trainable,
            "degrees of freedom": self.free,
            "bits, low estimate": round(self.low),
            "high estimate": round(self.high),
        }
        notes = [f"Measured for {self.content}, with LoRA and Adam at its best learning rate."]
        if self.bits is not None:
            row |= {"bits required": round(self.bits), "smallest rank": self.enough}
            if self.bits > self.low / 2:
                share = f"{self.bits / self.low:.0%} of the low estimate"
                notes.append(f"Warning: the data requires {share}; above half, learning slows.")
            if self.enough is None:
                notes.append("The smallest rank would be above those that were measured.")
        title = f"Capacity of a LoRA on {self.count.spec.name}"
        return Table([*row], [[*row.values()]], title=title, notes=notes)


def capacity(
    model: Model, *, rank: int, bits: float | None = None, content: str = "text", **options: Option
) -> Capacity:
    """Estimate how many bits a LoRA can memorise: parameters times measured bits per parameter.

    Parameters
    ----------
    model : str, Path, mapping or model
        A model, as in `count`.
    rank : int
        The rank of the LoRA.
    bits : float, optional
        The bits to memorise, which `lora_np.language.bits_to_learn` measures.
    content : {"text", "labels"}
        The kind of content: tokens of a language model, or labels of independent inputs. The range
        for labels spans a factor of 1.5. The range for text is wider, because it depends on the
        module.
    **options
        Options of `count_model`, such as ``targets``.

    Returns
    -------
    Capacity
        The range of bits, and the smallest rank whose low estimate is at least ``bits``.

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
    >>> result = capacity("llama-3-8b", rank=8, bits=1e6)
    >>> result.count.trainable, round(result.low), result.enough
    (3407872, 238551, 34)
    """
    choice("content", content, ("text", "labels"))
    bits = None if bits is None else number("bits", bits)
    whole_number("rank", rank)
    options = reusable(options)
    lora = _plain(model, rank, options)
    enough = None
    if bits is not None:
        ranks = range(1, _highest(lora) + 1)
        i = bisect_left(ranks, bits, key=lambda r: estimated(_plain(model, r, options), content)[0])
        enough = ranks[i] if i < len(ranks) else None
    return Capacity(lora, content, *estimated(lora, content), bits, enough)


def _plain(model: Model, rank: int, options: Mapping[str, Option]) -> LoraCount:
    """Count a LoRA's parameters; raise an error if no measurement covers this kind of LoRA."""
    lora = count_adapter(model, {**options, "rank": rank})
    if lora.dora or lora.tuner or lora.saved or lora.biases or lora.frozen:
        raise ValueError(
            "only plain LoRA was measured: no DoRA, other tuners, or modules trained in full"
        )
    top = "a quarter of the smallest min(d, k), above which nothing was measured,"
    whole_number("rank", lora.rank, maximum=_highest(lora), top=top)
    return lora


def _highest(lora: LoraCount) -> int:
    """Return the highest rank to which the measurements apply."""
    return max(1, min(adapted.limit for adapted in lora.adapters) // SHARE)


def estimated(lora: LoraCount, content: str) -> tuple[float, float]:
    """Return the low and the high estimate of the capacity in bits."""
    low, high = MEASURED.get(f"{content}, rank {lora.rank}", MEASURED[content])
    return low * lora.trainable, high * lora.trainable
