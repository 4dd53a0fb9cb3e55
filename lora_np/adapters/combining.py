"""Several adapters in one, as PEFT's ``add_weighted_adapter`` combines them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from lora_np.adapters.adapter import Adapter, AdapterModule, check_start
from lora_np.adapters.bases import check_bases
from lora_np.adapters.checking import strength_notes
from lora_np.adapters.formats import load, new_adapter, write
from lora_np.adapters.peft_format import only_lora, targeting
from lora_np.adapters.resizing import (
    directions,
    largest_rank,
    no_overflow,
    norm,
    put_aside,
    side_by_side,
)
from lora_np.adapters.results import Written
from lora_np.adapters.scaling import made_portable
from lora_np.checks import Array, choice, number, whole_number
from lora_np.hub import HubError
from lora_np.work import each_of

Method = Literal["cat", "linear", "svd"]


class CombinedModule(NamedTuple):
    """A module of the sum, and its relative difference from the weighted sum of the updates.

    Parameters
    ----------
    name : str
        Its path.
    rank : int
        Of the sum.
    difference : float
        ``||sum - wanted|| / ||wanted||``.
    """

    name: str
    rank: int
    difference: float


def combine(
    adapters: Sequence[Adapter | str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    weights: Sequence[float] | None = None,
    method: Method = "svd",
    rank: int | None = None,
    portable: bool = False,
    any_base: bool = False,
    jobs: int = 1,
    force: bool = False,
    progress: bool = False,
) -> Written[CombinedModule]:
    """Write one adapter whose updates are the weighted sum of those given, or close to it.

    Parameters
    ----------
    adapters : sequence of path or Adapter
        In any format that `load` reads, or its results.
    out : path
        The directory to make, or a file that ends in ``.gguf``.
    weights : sequence of float, optional
        One for each adapter; may be negative; by default 1.
    method : {"cat", "linear", "svd"}
        "cat" stacks the factors: exact, and the ranks add up. "svd" truncates that to ``rank``: the best of
        its rank. "linear" adds the As and the Bs separately, which is **not** the sum of the updates: it
        includes products of one adapter's B with another's A. The table says how far off it is.
    rank : int, optional
        For "svd": by default the largest rank among the adapters, as in PEFT.
    portable : bool
        Write it as ``convert --to portable`` does, every module padded to the largest rank.
    any_base : bool
        Whether to continue if the adapters name different bases.
    jobs : int
        How many modules to work on at a time.
    force : bool
        Whether to replace an existing adapter at ``out``, though none of ``adapters``. A directory that
        holds anything else is refused; a README.md stays.
    progress : bool
        Show a bar, if standard error is a terminal.

    Returns
    -------
    Written
        For each module its rank and the relative difference from the weighted sum of the updates.

    Raises
    ------
    HubError
        If the adapters do not fit each other, replace the same parameters, or use DoRA, whose magnitudes have
        no weighted sum without the base; if the sum is not finite; or if the target exists.
    TypeError
        If ``adapters`` are not a sequence of paths.
    ValueError
        If an option is out of range.

    See Also
    --------
    merge : An adapter and its base in one checkpoint.

    Notes
    -----
    Unlike in PEFT, which leaves them as initialised, biases of B are added as well; and the result never uses
    rank-stabilised scaling, whose factor PEFT applies again to a sum that already has it.

    Examples
    --------
    >>> import tempfile, lora_np as lnp
    >>> folder = Path(tempfile.mkdtemp())
    >>> for name, k in [("a", 0), ("b", 1)]:
    ...     module = AdapterModule.of(A=np.eye(2)[[k]], B=np.eye(2)[:, [k]], alpha=1)
    ...     lnp.adapters.save(Adapter({"q": module}), folder / name)
    >>> for method in ("cat", "linear"):
    ...     result = combine([folder / "a", folder / "b"], folder / method, method=method)
    ...     print(lnp.adapters.load(folder / method).delta("q").tolist())
    [[1.0, 0.0], [0.0, 1.0]]
    [[1.0, 1.0], [1.0, 1.0]]
    """
    method = choice("method", method, ("cat", "linear", "svd"))  # type: ignore[assignment]
    if rank is not None:
        rank = whole_number("rank", rank)
        if method != "svd":
            raise ValueError(f"rank is for method 'svd'; '{method}' has no choice of it")
    if isinstance(adapters, (str, bytes, os.PathLike)) or not isinstance(adapters, Sequence):
        raise TypeError(f"adapters must be a sequence of paths, as in ['a', 'b'], got {adapters!r}")
    weights = [1.0] * len(adapters) if weights is None else weights
    if not len(adapters) == len(weights) > 0:
        raise ValueError(f"each adapter needs one weight, got {len(weights)} for {len(adapters)} adapters")
    loaded = [only_lora(load(path)) for path in adapters]
    weights = [
        number(f"the weight of {path}", weight, minimum=float("-inf"))
        for path, weight in zip(adapters, weights, strict=True)
    ]
    _check(loaded)
    if not any_base:
        check_bases(loaded)
    modules = [module for source in loaded for module in source.values()]
    target = rank or max(module.rank for module in modules)
    with_bias = any("bias" in module.parts for module in modules)
    terms: dict[str, list[tuple[AdapterModule, float]]] = {}
    for source, weight in zip(loaded, weights, strict=True):
        for name, module in source.items():
            terms.setdefault(name, []).append((module, weight))
    with new_adapter(out, force=force, inputs=loaded) as (stage, aside):
        work = {name: (name, terms[name], aside / str(i)) for i, name in enumerate(terms)}
        combined_by = partial(_combined, method, target, with_bias)
        results = each_of(combined_by, work, jobs=jobs, progress=progress, label="combine")
        combined = {name: module for name, (module, _) in results.items()}
        full = {name: tensor for source in loaded for name, tensor in source.full.items()}
        tokens = {name: rows for source in loaded for name, rows in source.rows.items()}
        made = Adapter(combined, full, _raw(loaded, with_bias, combined), rows=tokens)
        made = made_portable(made) if portable else made
        write(made, stage)
    rows = tuple(CombinedModule(name, module.rank, error) for name, (module, error) in results.items())
    title = " + ".join(f"{weight:g} {path}" for path, weight in zip(adapters, weights, strict=True))
    note = "'linear' adds up factors, not updates: the last column is what that changes"
    notes = (*((note,) if method == "linear" else ()), *strength_notes(made, out))
    headings = ("module", "rank", "relative difference")
    return Written(f"{method}: {title}", rows, notes, headings, Path(out))


def _combined(
    method: Method, rank: int, with_bias: bool, work: tuple[str, list[tuple[AdapterModule, float]], Path]
) -> tuple[AdapterModule, float]:
    """The combined module, stored on disk, and how far it is from the weighted sum of the updates."""
    name, terms, path = work
    first, off = terms[0][0], 0.0
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused
        B, A = wanted = no_overflow(name, side_by_side(module.weighted(weight) for module, weight in terms))
        U, s, Vh = directions(name, B, A)
        if method == "svd":
            kept = max(1, rank // first.groups)
            off = norm(s[..., kept:])
            B, A = U[..., :kept] * s[..., None, :kept], Vh[..., :kept, :]
        elif method == "linear":
            B, A = _added_up(name, terms)
            off = norm(directions(name, *side_by_side([(B, A), (-wanted[0], wanted[1])])).s)
        arrays = {"A": A, "B": B}
        if with_bias:  # a module without one adds nothing
            scaled = ((module.bias, weight * module.scale) for module, weight in terms)
            biases = [scale * bias for bias, scale in scaled if bias is not None]
            arrays["bias"] = no_overflow(name, sum(biases, np.zeros(first.shape[0])))
    parts = {
        part: put_aside(array, path.with_suffix(f".{part}"), first.parts.get(part, first.parts["B"]).dtype)
        for part, array in arrays.items()
    }
    module = replace(first, parts=parts, rslora=False)
    return replace(module, alpha=float(module.rank)), off / (norm(s) or 1.0)


def _added_up(name: str, terms: list[tuple[AdapterModule, float]]) -> tuple[Array, Array]:
    """PEFT's "linear": the As and the Bs summed, each with the root of its weight, the sign in A."""
    ranks = sorted({module.rank for module, _ in terms})
    if len(ranks) > 1:
        raise HubError(f"{name!r} has ranks {ranks}; only 'cat' and 'svd' combine different ones")
    factors = [(*module.factors(), weight * module.scale) for module, weight in terms]
    B = sum(B * B.dtype.type(abs(weight) ** 0.5) for B, _, weight in factors)
    A = sum(A * A.dtype.type(np.copysign(abs(weight) ** 0.5, weight)) for _, A, weight in factors)
    return no_overflow(name, (B, A))


def _check(sources: list[Adapter]) -> None:
    """Whether the adapters fit each other: each is compared with those before it."""
    first: dict[str, AdapterModule] = {}
    replaced: set[str] = set()
    for source in sources:
        check_start(source)
        if source.has_magnitudes:
            raise HubError(f"{source}: DoRA's magnitudes have no weighted sum without the base")
        if source.fan_in_fan_out != sources[0].fan_in_fan_out:
            raise HubError(f"{source}: fan_in_fan_out differs from that of {sources[0]}")
        for name in (*source.full, *source.rows):
            if name in replaced:
                raise HubError(f"{source}: replaces {name!r}, as an adapter before it does")
            replaced.add(name)
        for name, module in source.items():
            before = first.setdefault(name, module)
            if before.kind != module.kind:
                raise HubError(f"{source}: {name!r} is of shape {module.shape}, not {before.shape}")


def _raw(sources: list[Adapter], with_bias: bool, modules: Mapping[str, AdapterModule]) -> dict[str, object]:
    """The settings of the first adapter, with what the others save in full."""
    saved = sorted({name for source in sources for name in source.raw.get("modules_to_save") or ()})
    biases = {source.raw.get("bias") or "none" for source in sources} - {"none"}
    rows = [item for source in sources for item in source.rows.items()]
    tokens = {name.removesuffix(".weight"): list(each.tokens) for name, each in rows}
    raw = {
        **sources[0].raw,
        "use_rslora": False,
        "lora_bias": with_bias,
        "modules_to_save": saved or None,
        "bias": biases.pop() if len(biases) == 1 else "all" if biases else "none",
        "trainable_token_indices": tokens or None,
    }
    return targeting(largest_rank(raw, modules), modules)
