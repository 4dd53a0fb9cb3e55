"""Singular values of updates B A, which are never formed: measured, truncated, shared out."""

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
    """R (k, k) with ``||D R^T||`` the norm of what D makes of a module's inputs, if these count."""
    if grams is None:
        return None
    if name not in grams:
        raise FileError(
            f"there is no Gram matrix of the inputs of {name!r}{close_names(name, grams)}"
        )
    gram = matrix(f"the Gram matrix of {name!r}", grams[name])
    if gram.shape != (k, k):
        raise FileError(f"the Gram matrix of {name!r} must have shape {(k, k)}, got {gram.shape}")
    values, vectors = np.linalg.eigh(gram)
    return np.asarray(np.sqrt(np.maximum(values, 0))[:, None] * vectors.T)


def back(projected: Array, s: Array) -> Array:
    """Compute right vectors of weights from ``U.T @ D`` and singular values of ``D R^T``."""
    seen = s > s[0] * projected.shape[1] * np.finfo(s.dtype).eps  # others are of rounding alone
    return np.asarray(
        np.divide(projected, s[:, None], out=np.zeros_like(projected), where=seen[:, None])
    )


def put_aside(array: Array, path: Path, dtype: str) -> Stored:
    """An array on the disk until it is read; a file will hold it as ``dtype``."""
    # Not `numpy.save`: its error on a full disk says neither that the disk is full nor where.
    path.write_bytes(np.ascontiguousarray(array).data)
    kind, shape = array.dtype, array.shape
    return Stored(dtype, shape, lambda: np.fromfile(path, kind).reshape(shape))


def balanced(svd: SVD, path: Path, *, B: str, A: str) -> dict[str, Stored]:
    """Store the factors of ``U s Vh`` on disk, strongest direction first."""
    root = np.sqrt(svd.s)
    return {
        "B": put_aside(svd.U * root[..., None, :], path.with_suffix(".B"), B),
        "A": put_aside(root[..., None] * svd.Vh, path.with_suffix(".A"), A),
    }


def directions(place: str, B: Array, A: Array, root: Array | None = None) -> SVD:
    """The SVD of B A, or the stack of those of a stack; with a root, of the outputs ``B A R^T``."""
    if B.ndim == 3:
        svds = (directions(place, *factors, root) for factors in zip(B, A, strict=True))
        return SVD(*map(np.stack, zip(*svds, strict=True)))
    seen = A if root is None else A @ root.T.astype(A.dtype)
    U, s, Vh = finite(place, svd_of_product, B, seen)
    return SVD(U, s, Vh if root is None else back(U.T @ B @ A, s))


def side_by_side(factors: Iterable[tuple[Array, Array]]) -> tuple[Array, Array]:
    """Factors of the sum of the updates given by pairs (B, A)."""
    B, A = zip(*factors, strict=True)
    return np.concatenate(B, axis=-1), np.concatenate(A, axis=-2)


def finite(
    place: str,
    function: Callable[Inputs, Result],
    *inputs: Inputs.args,
    **options: Inputs.kwargs,
) -> Result:
    """Call ``function``; name the module if it refuses NaN or infinity, or overflows."""
    try:
        with overflow_allowed():
            return no_overflow(place, function(*inputs, **options))
    except np.linalg.LinAlgError:  # LAPACK's error for an overflow inside it
        raise FileError(f"{place}: {_NOT_FINITE}") from None
    except FileError:
        raise
    except ValueError as error:
        raise FileError(f"{place}: {error}") from None


def no_overflow(place: str, result: Result) -> Result:
    """``found``, the result of a computation on finite numbers, if it is finite."""
    if isinstance(result, tuple):
        for part in result:
            no_overflow(place, part)
    elif result is not None and not np.isfinite(result).all():  # type: ignore[call-overload]
        raise FileError(f"{place}: {_NOT_FINITE}")
    return result


def norm(s: Array) -> float:
    return float(np.linalg.norm(s.astype(np.float64)))  # squares of float32 overflow from 2e19 on


@dataclass(frozen=True)
class Spectrum:
    """The leading singular values of an update, and the squared norm of what they leave.

    ``dtype`` is that of the numbers from which they were computed.
    """

    s: Array
    missing: float = 0.0
    dtype: str = "float64"

    @classmethod
    def of(cls, s: Array, scale: float) -> Spectrum:
        """Measure an update, or a stack of them that is truncated together."""
        strengths: Array = abs(scale) * np.linalg.norm(
            s.astype(np.float64).reshape(-1, s.shape[-1]), axis=0
        )
        return cls(strengths, dtype=s.dtype.name)

    def left(self, rank: int) -> float:
        """The squared norm of what ``rank`` directions leave."""
        return float(self.missing + np.square(self.s[rank:]).sum())

    def error(self, rank: int) -> float:
        """The relative error in the Frobenius norm at a rank."""
        return float((self.left(rank) / (self.left(0) or 1.0)) ** 0.5)

    def needed(self, energy: float = ENOUGH) -> int:
        """Find the smallest rank that keeps this energy, as `rank_within` does; 0 for zero.

        One more than there are singular values, if these do not have it.
        """
        # small terms first
        lost = np.cumsum(np.append(self.missing, np.square(self.s[::-1])))[::-1]
        if not lost[0]:
            return 0
        errors = np.append(np.sqrt(lost / lost[0]), 0.0).astype(self.dtype)
        return max(1, rank_within(errors, tolerance=(1 - energy) ** 0.5))


Spectra = Mapping[str, Spectrum]
Modules = Mapping[str, AdapterModule]


class Goal(NamedTuple):
    """The goal of a low-rank adapter; made by `of`.

    Parameters
    ----------
    name : {"rank", "energy", "budget", "total_rank"}
        The same rank everywhere (less where a module has less); the share of its squared norm that
        each module keeps, to which a relative error comes down; the size of
        ``adapter_model.safetensors`` or the sum of the ranks, shared out where they help most.
    value : int or float
        Its value.
    """

    name: str
    value: float

    @classmethod
    def of(cls, out: StrPath, /, **goals: float | str | None) -> Goal:
        """Choose the one goal for ``out`` that is not None."""
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
            refuse(f"budget is the size of PEFT's file, and {Path(out).name} is of another format")
        if name == "budget" and isinstance(value, str):
            value = parse_bytes(name, value)
        return cls(name, whole_number(name, value))

    def ranks(
        self, adapter: Adapter, spectra: Spectra, ordered: Modules, *, portable: bool = False
    ) -> dict[str, int]:
        """Choose how many directions each module of ``adapter`` keeps; 0 leaves it out.

        They are the rank, except of a convolution in groups, where they are the rank of each.
        ``ordered`` are the modules in the order of their strength, of which `cut` makes the result.
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
        # A magnitude or a bias has an effect without any direction, and PEFT has no rank of 0.
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
    """Truncate ``adapter`` to these ranks, from modules ordered by strength."""
    modules = {
        name: module if ranks[name] == module.directions else ordered[name].leading(ranks[name])
        for name, module in adapter.modules.items()
        if ranks[name] > 0
    }
    if not modules:
        raise FileError(f"{adapter.path}: every module is zero, so there is nothing to keep")
    raw = adapter.raw
    if raw.get("r") != max(module.rank for module in modules.values()):
        # without them r becomes the largest rank, where programs with a limit look
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
    """Share out a budget: take the directions that keep most for their cost while they fit.

    Parameters
    ----------
    spectra : mapping of str to ndarray
        The singular values of each module, descending.
    costs : mapping of str to int
        What one direction of each module costs.
    budget : int
    at_least : mapping of str to int, optional
        Ranks that are taken first.
    taken : callable, optional
        What ranks take of the budget; by default the sum of their costs.
    name : str
        What messages call the budget.

    Returns
    -------
    dict of str to int
        Some may be 0.

    Raises
    ------
    ValueError
        If the budget is too small for ``at_least``, or for any direction at all.

    Notes
    -----
    With equal costs no choice keeps more. Otherwise it is a knapsack, in which at most the square
    of the first value that does not fit is missing.

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
    """The ``ranks`` of the largest of ``sizes`` of which no more than the budget is taken."""
    fitting = bisect_right(sizes, budget, key=lambda n: taken(ranks(n)))
    if not fitting:
        raise ValueError(f"{name} must be at least {taken(ranks(sizes[0]))}, got {budget}")
    return ranks(sizes[fitting - 1])
