"""The counts that the LoRA paper prints, rebuilt from its own settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from lora_np.accounting.matrix import count_lora
from lora_np.models import preset
from lora_np.table import Cell, Table, binary_bytes, decimal_bytes


class Claim(NamedTuple):
    """A count that the paper prints, and the settings that it names for it."""

    where: str
    model: str
    stated: str  # in millions, as printed
    layers: int
    width: int
    rank: int
    matrices: int
    why: str = ""

    @property
    def exact(self) -> int:
        """``L m r (d + d)``: what the settings give (section 5.1)."""
        return self.layers * self.matrices * count_lora(self.width, self.width, rank=self.rank)

    @property
    def follows(self) -> bool:
        """Whether ``exact``, rounded or cut off, is within one unit of the last digit that is printed."""
        decimals = len(self.stated.partition(".")[2])
        unit: int = 10 ** (6 - decimals)
        printed: int = round(float(self.stated) * 10**decimals)
        cut, rounded = self.exact // unit, round(self.exact / unit)
        return abs(printed - cut) <= 1 or abs(printed - rounded) <= 1


# arXiv 2106.09685v2; q v is two matrices in each layer, q k v o four
CLAIMS = (
    Claim("table 2", "RoBERTa base", "0.3", 12, 768, 8, 2, "the classifier is not counted"),
    Claim("table 2", "RoBERTa large", "0.8", 24, 1024, 8, 2),
    Claim("table 2", "DeBERTa XXL", "4.7", 48, 1536, 16, 2, "the rank of the released script"),
    Claim("table 2", "DeBERTa XXL", "4.7", 48, 1536, 8, 2, "the rank that table 10 prints gives half"),
    Claim("table 3", "GPT-2 M", "0.35", 24, 1024, 4, 2, "an open question: microsoft/LoRA#172"),
    Claim("table 3", "GPT-2 L", "0.77", 36, 1280, 4, 2, "an open question: microsoft/LoRA#172"),
    Claim("table 4", "GPT-3", "4.7", 96, 12288, 1, 2),
    Claim("table 4", "GPT-3", "37.7", 96, 12288, 8, 2),
    Claim("table 4", "GPT-3", "37.7", 96, 12288, 4, 4),
    Claim("table 4", "GPT-3", "37.7", 96, 12288, 2, 4, "the rank that appendix D.4 prints gives half"),
    Claim("table 5", "GPT-3", "18", 96, 12288, 8, 1),
    Claim("table 5", "GPT-3", "18", 96, 12288, 4, 2),
    Claim("table 5", "GPT-3", "18", 96, 12288, 2, 4),
    Claim("table 15", "GPT-3", "9.4", 96, 12288, 2, 2),
    Claim("table 15", "GPT-3", "301.9", 96, 12288, 64, 2),
    Claim("table 15", "GPT-3", "603.8", 96, 12288, 64, 4),
)

_MATRICES = {1: "one", 2: "q v", 4: "q k v o"}

# of GPT-3 at r = 4 on q v (section 4.2): what is said, and a remark
_SIZES = (
    ("adapter checkpoint, fp16", "35 MB", "within one unit if it is in MiB"),
    ("full checkpoint, fp16", "350 GB", "two bytes for each parameter"),
    ("full over adapter", "10,000x", "parameters of table 4 over those of r = 4"),
    ("training with Adam", "1.2 TB", "not explained: fp16 weights and gradients, fp32 moments need 12"),
)


@dataclass(frozen=True)
class PaperClaims:
    """What the LoRA paper says about its sizes: made by `paper_claims`.

    Parameters
    ----------
    counts : tuple of Claim
        Every count of trainable parameters, stated and exact.
    sizes : tuple of tuple of str
        What it says of bytes (section 4.2, GPT-3 at r = 4 on q v): claim, stated, computed, remark.
    """

    counts: tuple[Claim, ...]
    sizes: tuple[tuple[str, ...], ...]

    @property
    def table(self) -> Table:
        """The counts, with the reason where one does not follow from the settings."""
        rows: list[tuple[Cell, ...]] = []
        for each in self.counts:
            settings = each.layers, each.width, each.rank, _MATRICES[each.matrices]
            follows = "yes" if each.follows else "no"
            rows.append((each.where, each.model, *settings, f"{each.stated}M", each.exact, follows, each.why))
        columns = ("where", "model", "layers", "d", "r", "matrices", "stated", "exact", "follows", "remark")
        return Table(columns, rows, title="Trainable parameters in the LoRA paper")

    @property
    def size_table(self) -> Table:
        """The bytes."""
        columns = ("claim", "stated", "computed", "remark")
        return Table(columns, self.sizes, title="Bytes in the LoRA paper: GPT-3")


def paper_claims() -> PaperClaims:
    """Every count and size of the LoRA paper, stated and as its settings give it.

    A count follows if it agrees within one unit of the last printed digit, rounded or cut off: the paper
    does both.

    Returns
    -------
    PaperClaims
        Both tables of the paper.

    References
    ----------
    E. Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", arXiv 2106.09685v2.

    Examples
    --------
    >>> claims = paper_claims()
    >>> sum(not claim.follows for claim in claims.counts)
    4
    >>> for claim, stated, computed, _ in claims.sizes:
    ...     print(claim, "|", stated, "|", computed)
    adapter checkpoint, fp16 | 35 MB | 37.75 MB = 36.00 MiB
    full checkpoint, fp16 | 350 GB | 349.21 GB
    full over adapter | 10,000x | 9,285x
    training with Adam | 1.2 TB | 6.9 bytes a parameter
    """
    total = preset("gpt3-175b").total
    adapter = Claim("", "GPT-3", "", 96, 12288, 4, 2).exact
    computed = (
        f"{decimal_bytes(2 * adapter)} = {binary_bytes(2 * adapter)}",
        decimal_bytes(2 * total),
        f"{175_255_800_000 / adapter:,.0f}x",  # table 4: parameters of full fine-tuning
        f"{1.2e12 / total:.1f} bytes a parameter",
    )
    sizes = [(*said, found, why) for (*said, why), found in zip(_SIZES, computed, strict=True)]
    return PaperClaims(CLAIMS, tuple(sizes))
