"""Compute the SVD of updates B A from their factors; truncate them, and allocate ranks."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, ParamSpec, TypeVar

import numpy as np
import numpy.typing as npt

from lora_np.adapters.adapter import FILES, Adapter, AdapterModule, Stored
from lora_np.adapters.peft_format import file_size, targeting
from lora_np.adapters.scaling import made_portable
from lora_np.checks import (
    Array,
    StrPath,
    close_names,
    matrix,
    number,
    overflow_allowed,
    refuse,
    whole_number,
)
from lora_np.files import FileError
from lora_np.linalg import ENOUGH, SVD, rank_within, svd_of_product
from lora_np.table import parse_bytes

Inputs = ParamSpec("Inputs")
Result = TypeVar("Result")
Grams = Mapping[str, npt.ArrayLike]

_NOT_FINITE = "the result is not finite: there is a NaN, or numbers overflow"


def root_of(name: str, grams: Grams | None, k: int) -> Array | None:
    """Compute the root R (k, k) of the Gram matrix, ``R^T R``; return None if ``grams`` is None."""
    if grams is None:
        return None
    if name not in grams:
        raise FileError(f"grams= has no Gram matrix for {name!r}{close_names(name, grams)}")
    gram = matrix(f"the Gram matrix of {name!r}", grams[name])
    if gram.shape != (k, k):
        raise FileError(f"the Gram matrix of {name!r} must have shape {(k, k)}, got {gram.shape}")
    values, vectors = np.linalg.eigh(gram)
    return np.asarray(np.sqrt(np.maximum(values, 0))[:, None] * vectors.T)


def back(projected: Array, s: Array) -> Array:
    """Divide each row of ``U.T @ D`` by its singular value of ``D R^T``; tiny values give zeros."""
    above_rounding = s > s[0] * projected.shape[1] * np.finfo(s.dtype).eps
    zeros = np.zeros_like(projected)
    return np.asarray(np.divide(projected, s[:, None], out=zeros, where=above_rounding[:, None]))


def put_aside(array: Array, path: Path, dtype: str) -> Stored:
    """Write an array to a temporary file; return it as a `Stored` of the given ``dtype``."""
    # do not use `numpy.save`: if the disk is full, its error does not name the file
    path.write_bytes(np.ascontiguousarray(array).data)
    kind, shape = array.dtype, array.shape
    return Stored(dtype, shape, lambda: np.fromfile(path, kind).reshape(shape))


def balanced(svd: SVD, path: Path, *, B: str, A: str) -> dict[str, Stored]:
    """Write the factors ``B = U sqrt(s)`` and ``A = sqrt(s) Vh`` to temporary files."""
    root = np.sqrt(svd.s)
    return {
        "B": put_aside(svd.U * root[..., None, :], path.with_suffix(".B"), B),
        "A": put_aside(root[..., None] * svd.Vh, path.with_suffix(".A"), A),
    }


def directions(place: str, B: Array, A: Array, root: Array | None = None) -> SVD:
    """Compute the SVD of B A, or of each matrix of a stack; with a root, of ``B A R^T``."""
    if B.ndim == 3:
        svds = (directions(place, *factors, root) for factors in zip(B, A, strict=True))
        return SVD(*map(np.stack, zip(*svds, strict=True)))
    inputs = A if root is None else A @ root.T.astype(A.dtype)
    U, s, Vh = finite(place, svd_of_product, B, inputs)
    return SVD(U, s, Vh if root is None else back(U.T @ B @ A, s))


def side_by_side(factors: Iterable[tuple[Array, Array]]) -> tuple[Array, Array]:
    """Return the factors of a sum of updates; each update is a pair (B, A)."""
    B, A = zip(*factors, strict=True)
    return np.concatenate(B, axis=-1), np.concatenate(A, axis=-2)


def finite(
    place: str,
    function: Callable[Inputs, Result],
    *inputs: Inputs.args,
    **options: Inputs.kwargs,
) -> Result:
    """Call ``function``; if it raises a ValueError or overflows, name ``place`` in the message."""
    try:
        with overflow_allowed():
            return no_overflow(place, function(*inputs, **options))
    except np.linalg.LinAlgError:  # NumPy's SVD raises this error for values that overflowed
        raise FileError(f"{place}: {_NOT_FINITE}") from None
    except FileError:
        raise
    except ValueError as error:
        raise FileError(f"{place}: {error}") from None


def no_overflow(place: str, result: Result) -> Result:
    """Return ``result`` after checking that all its arrays are finite."""
    if isinstance(result, tuple):
        for part in result:
            no_overflow(place, part)
    elif result is not None and not np.isfinite(result).all():  # type: ignore[call-overload]
        raise FileError(f"{place}: {_NOT_FINITE}")
    return result


def norm(s: Array) -> float:
    """Compute the norm of an array in float64, since squares above 3e38 overflow in float32."""
    return float(np.linalg.norm(s.astype(np.float64)))


@dataclass(frozen=True)
class Spectrum:
    """The leading singular values of an update, and the squared norm of the other directions.

    ``dtype`` is the precision in which they were computed.
    """

    s: Array
    missing: float = 0.0
    dtype: str = "float64"

    @classmethod
    def of(cls, s: Array, scale: float) -> Spectrum:
        """Make a spectrum from the singular values of an update, (r,), or of a stack, (n, r).

        The matrices of a stack are truncated together, so that they share one spectrum.
        """
        strengths = abs(scale) * np.linalg.norm(
            s.astype(np.float64).reshape(-1, s.shape[-1]), axis=0
        )
        return cls(strengths, dtype=s.dtype.name)

    def left(self, rank: int) -> float:
        """Compute the squared norm that remains after the first ``rank`` directions."""
        return float(self.missing + np.square(self.s[rank:]).sum())

    def error(self, rank: int) -> float:
        """Compute the relative Frobenius error of truncating the update to ``rank``."""
        return float((self.left(rank) / (self.left(0) or 1.0)) ** 0.5)

    def needed(self, energy: float = ENOUGH) -> int:
        """Find the smallest rank that keeps ``energy`` of the squared norm; 0 for a zero update.

        If the known singular values do not suffice, the result is one more than their number.
        """
        # add small terms first, which loses the least precision
        lost = np.cumsum(np.append(self.missing, np.square(self.s[::-1])))[::-1]
        if not lost[0]:
            return 0
        errors = np.append(np.sqrt(lost / lost[0]), 0.0).astype(self.dtype)
        return max(1, rank_within(errors, tolerance=(1 - energy) ** 0.5))


Spectra = Mapping[str, Spectrum]
Modules = Mapping[str, AdapterModule]


class Goal(NamedTuple):
    """The goal of a rank reduction, made by ``Goal.of``.

    Parameters
    ----------
    name : {"rank", "energy", "budget", "total_rank"}
        "rank" is one rank for every module. "energy" is the share of its squared norm that each
        module keeps; a tolerance is converted to it. "budget" is a size of
        ``adapter_model.safetensors`` and "total_rank" a sum of ranks; both are allocated where they
        help most.
    value : int or float
        The value of the goal.
    """

    name: str
    value: float

    @classmethod
    def of(cls, out: StrPath, /, **goals: float | str | None) -> Goal:
        """Make the goal for the new adapter ``out``; raise an error unless exactly one is given."""
        given = [(name, value) for name, value in goals.items() if value is not None]
        if len(given) != 1:
            names = " and ".join(name for name, _ in given) or "none of them"
            refuse(f"give one of {', '.join(goals)}, got {names}")
        ((name, value),) = given
        if name in ("energy", "tolerance"):
            ends = {"open_minimum": name == "energy", "open_maximum": name == "tolerance"}
            share = number(name, value, maximum=1, **ends)
            return cls("energy", share if name == "energy" else 1 - share**2)
        if name == "budget" and Path(out).suffix in FILES:
            refuse(f"budget is the size of PEFT's file, but {Path(out).name} has another format")
        if name == "budget" and isinstance(value, str):
            value = parse_bytes(name, value)
        return cls(name, whole_number(name, value))

    def ranks(
        self, adapter: Adapter, spectra: Spectra, ordered: Modules, *, portable: bool = False
    ) -> dict[str, int]:
        """Choose how many directions each module of ``adapter`` keeps; 0 leaves it out.

        The number is the rank, or the rank of each group of a convolution. ``ordered`` contains
        the modules with their directions ordered by strength, which `cut` truncates.
        """
        budget = int(self.value)
        groups = {name: module.groups for name, module in adapter.items()}

        def equal(rank: int) -> dict[str, int]:
            return {
                name: min(max(1, rank // groups[name]), len(x.s)) for name, x in spectra.items()
            }

        def size(ranks: Mapping[str, int]) -> int:
            return file_size(cut(adapter, ordered, ranks, portable=portable))

        if self.name == "rank":
            return equal(budget)
        if self.name == "budget" and portable:
            most = max(module.rank for module in adapter.values())
            return largest(budget, equal, range(1, most + 1), size, name=self.name)
        # modules with a magnitude or a bias keep at least rank 1, because PEFT rejects rank 0
        at_least = {
            name: int(bool({"magnitude", "bias"} & x.parts.keys())) for name, x in adapter.items()
        }
        if self.name == "energy":
            return {name: max(at_least[name], x.needed(self.value)) for name, x in spectra.items()}
        values = {name: spectrum.s for name, spectrum in spectra.items()}
        if self.name == "total_rank":
            return allocate(values, groups, budget, at_least=at_least, name=self.name)
        ends = {
            name: (x.parts["A"].shape[-1], x.parts["B"].shape[-2]) for name, x in adapter.items()
        }
        costs = {name: adapter[name].maps * sum(widths) for name, widths in ends.items()}
        return allocate(values, costs, budget, at_least=at_least, taken=size, name=self.name)


def cut(
    adapter: Adapter, ordered: Modules, ranks: Mapping[str, int], *, portable: bool = False
) -> Adapter:
    """Truncate modules to ``ranks``; in ``ordered``, their strongest directions come first."""
    modules = {
        name: module if ranks[name] == module.directions else ordered[name].leading(ranks[name])
        for name, module in adapter.modules.items()
        if ranks[name] > 0
    }
    if not modules:
        raise FileError(f"{adapter}: every module is zero, so there is nothing to keep")
    raw = adapter.raw
    if raw.get("r") != max(module.rank for module in modules.values()):
        # drop r, so that the largest new rank becomes r: some programs reject an r above a limit
        raw = {key: content for key, content in raw.items() if key not in ("r", "lora_alpha")}
    new_factors = raw.get("ensure_weight_tying") or raw.get("init_lora_weights") == "mica"
    if new_factors or len(modules) < len(adapter.modules):
        raw = targeting(raw, modules)
    made = replace(adapter, modules=modules, raw=raw)
    return made_portable(made) if portable else made


def allocate(
    spectra: Mapping[str, Array],
    costs: Mapping[str, int],
    budget: int,
    *,
    at_least: Mapping[str, int] | None = None,
    taken: Callable[[Mapping[str, int]], int] | None = None,
    name: str = "budget",
) -> dict[str, int]:
    """Allocate a budget to the directions with the most squared norm per cost, while they fit.

    Parameters
    ----------
    spectra : mapping of str to ndarray
        The singular values of each module, descending.
    costs : mapping of str to int
        The cost of one direction of each module.
    budget : int
        The largest total cost.
    at_least : mapping of str to int, optional
        Ranks that are allocated first.
    taken : callable, optional
        A function from ranks to their cost; by default the sum over directions.
    name : str
        The name of the budget in messages.

    Returns
    -------
    dict of str to int
        The rank of each module, which may be 0.

    Raises
    ------
    ValueError
        If the budget is too small for ``at_least``, or for a single direction.

    Notes
    -----
    With equal costs, no other choice keeps more. With different costs this is a knapsack problem,
    and the result loses at most the square of the first value that does not fit.

    Examples
    --------
    >>> allocate({"a": np.array([3.0, 1.0]), "b": np.array([2.0])}, {"a": 10, "b": 10}, 20)
    {'a': 1, 'b': 1}
    """
    least = {module: (at_least or {}).get(module, 0) for module in spectra}
    rest = {module: s[least[module] :].tolist() for module, s in spectra.items()}
    worth = [(-x * x / costs[module], module) for module, s in rest.items() for x in s if x > 0]
    order = [module for _, module in sorted(worth)]

    def first(n: int) -> dict[str, int]:
        more = Counter(order[:n])
        return {module: rank + more[module] for module, rank in least.items()}

    def cost(ranks: Mapping[str, int]) -> int:
        return sum(rank * costs[module] for module, rank in ranks.items())

    fewest = 0 if any(least.values()) else min(1, len(order))
    return largest(budget, first, range(fewest, len(order) + 1), taken or cost, name=name)


def largest(
    budget: int,
    ranks: Callable[[int], dict[str, int]],
    sizes: range,
    taken: Callable[[Mapping[str, int]], int],
    *,
    name: str,
) -> dict[str, int]:
    """Return ``ranks(size)`` for the largest of ``sizes`` whose ranks fit the budget."""
    fitting = bisect_right(sizes, budget, key=lambda n: taken(ranks(n)))
    if not fitting:
        raise ValueError(f"{name} must be at least {taken(ranks(sizes[0]))}, got {budget}")
    return ranks(sizes[fitting - 1])
