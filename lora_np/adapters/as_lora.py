"""Any adapter as a LoRA: exactly where algebra allows it, else at the smallest rank within an error."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from lora_np.adapters.adapter import Adapter, AdapterModule, at_least_single, check_start, held
from lora_np.adapters.bases import check_base
from lora_np.adapters.formats import load
from lora_np.adapters.mapped import MappedModule
from lora_np.adapters.peft_format import targeting
from lora_np.adapters.rebasing import rebase
from lora_np.adapters.resizing import Spectrum, finite, put_aside
from lora_np.adapters.weights import Change, Merging, oriented
from lora_np.checks import Array, matrix, number
from lora_np.hub import HubError, directory
from lora_np.linalg import optimal_losses, rank_within, reduced_rank_regression, truncated_svd
from lora_np.lora import MAPS, map_of, selecting
from lora_np.models import GGUFModel, open_gguf, open_model, peft

Reader = Callable[[], Array]


def to_lora(
    adapter: Adapter | str | os.PathLike[str],
    *,
    base: str | os.PathLike[str] | None = None,
    error: float | None = None,
    inputs: Mapping[str, npt.ArrayLike] | None = None,
    grams: Mapping[str, npt.ArrayLike] | None = None,
    any_base: bool = False,
    aside: Path | None = None,
) -> Adapter:
    """The adapter as a LoRA for the same base: what it does to each weight as B A, at one scale of 1.

    Exact where the update has factors in closed form that are fewer numbers than itself: see
    `lora_np.lora.MAPS`; and of a PiSSA or OLoRA, at twice its rank. Else each module gets the smallest rank
    within ``error``.

    Parameters
    ----------
    adapter : path or Adapter
        Of any tuner in `lora_np.lora.MAPS`.
    base : path, optional
        The base model, which some tuners need.
    error : float, optional
        The relative error in the Frobenius norm that a module's update may have, where it is not exact.
    inputs : mapping of str to array_like of shape (n, k), optional
        Inputs x of each module. The error is then that of the products ``dW x`` with these, and each rank
        takes less than without them.
    grams : mapping of str to array_like of shape (k, k), optional
        Instead of inputs X, their ``X^T X``.
    any_base : bool
        Whether to continue if the adapter is for another kind of base.
    aside : path, optional
        A directory for the factors of modules that are done; by default they are held in memory.

    Returns
    -------
    Adapter
        A LoRA, in float32 or better; modules that do nothing are left out.

    Raises
    ------
    HubError
        If the adapter is damaged or not finite, needs a base or does not fit it, or is not exact as a LoRA
        and no ``error`` is given.
    ValueError
        If ``error`` is out of range.

    See Also
    --------
    resize : A LoRA at another rank.

    References
    ----------
    C. Eckart, G. Young, "The approximation of one matrix by another of lower rank", 1936; with inputs,
    A. J. Izenman, "Reduced-rank regression for the multivariate linear model", 1975.

    Examples
    --------
    >>> import json, tempfile
    >>> from lora_np.hub import safetensors
    >>> folder = Path(tempfile.mkdtemp())
    >>> config = {"peft_type": "LOHA", "r": 1, "alpha": 1, "target_modules": ["q"]}
    >>> _ = (folder / "adapter_config.json").write_text(json.dumps(config))
    >>> parts = {"w1_a": (4, 1), "w1_b": (1, 5), "w2_a": (4, 1), "w2_b": (1, 5)}
    >>> tensors = {f"base_model.model.q.hada_{name}": np.ones(shape) for name, shape in parts.items()}
    >>> safetensors.save(tensors, folder / "adapter_model.safetensors")
    >>> to_lora(folder)["q"].rank, float(to_lora(folder).delta("q")[0, 0])
    (1, 1.0)
    """
    if error is not None:
        error = number("error", error, minimum=0, maximum=1, open_maximum=True)
    known = on_base(load(adapter), base, any_base=any_base)
    modules, before = dict(known.adapter.modules), known.adapter
    if before.start is not None:
        check_start(before, with_base=base is not None)
        return before if base is None else rebase(before, base)
    if not (map_of(before.raw) or before.has_magnitudes):
        return before
    for i, (name, module) in enumerate(before.modules.items()):
        place, root = f"{adapter}: {name!r}", _root(name, inputs, grams)
        B, A = finite(place, _factors, place, module, known.weights.get(name), error, root)
        stored = {
            part: put_aside(x, aside / f"{i}.{part}", x.dtype.name) if aside else held(x)
            for part, x in (("B", B), ("A", A))
        }
        kind = module.embedding, module.kernel, module.parameter
        modules[name] = AdapterModule(stored, float(len(A)), False, *kind)
    modules = {name: module for name, module in modules.items() if module.rank}  # others do nothing
    if not modules:
        raise HubError(f"{adapter}: every module is zero, so there is nothing to keep")
    full = {**before.full, **{name: held(read()) for name, read in known.biases.items()}}
    raw = {key: before.raw.get(key) for key in peft.FRESH} | selecting(before.raw)
    if known.biases:
        raw["bias"] = "lora_only"
    return Adapter(modules, full, targeting(raw, modules), rows=before.rows)


def _factors(
    place: str, module: AdapterModule, weight: Reader | None, error: float | None, root: Array | None
) -> tuple[Array, Array]:
    """``B, A`` of a module's update, exactly if they are fewer numbers, else within the error."""
    if isinstance(module, MappedModule):
        row, update = module.row, module.delta
        if module.exact and module.rank * sum(module.shape) < prod(module.shape):
            return module.factors()
    elif weight is None or "bias" in module.parts:
        missing = "it has a bias of B, which is not converted" if weight else "give the base model (--base)"
        raise HubError(f"{place} is a DoRA: {missing}")
    else:
        row, W, alpha = MAPS["LORA use_dora"], weight(), module.scale * module.rank
        tensors = {"A": module.A, "B": module.B, "magnitude_vector": module.magnitude}
        update = partial(row.delta, tensors, W=W, lora_alpha=alpha)
    if error is None:
        why = f"{row.name} is not exact as a LoRA of fewer numbers than its update"
        raise HubError(f"{place}: {why}; say which relative error is accepted (--error)")
    return _nearest(update(), error, root)


def _nearest(update: Array, error: float, root: Array | None) -> tuple[Array, Array]:
    """The factors of smallest rank within a relative error of the update, or of ``root @ update.T``."""
    if root is not None:
        products = root @ update.T
        losses = optimal_losses(root, products)
        rank = rank_within(np.sqrt(losses / (losses[0] or 1.0)), tolerance=error)
        B, A = reduced_rank_regression(root, products)
        return B[:, :rank], A[:rank]
    U, s, Vh = truncated_svd(update, rank=min(update.shape))
    rank = Spectrum.of(s, 1.0).needed(1 - error**2)
    return U[:, :rank] * s[:rank], Vh[:rank]


def _root(
    name: str, inputs: Mapping[str, npt.ArrayLike] | None, grams: Mapping[str, npt.ArrayLike] | None
) -> Array | None:
    """A matrix X of at most k rows with the module's ``X^T X``."""
    given = inputs if inputs is not None else grams
    if given is None:
        return None
    if name not in given:
        raise HubError(f"there are no inputs of {name!r}; give those of every module")
    X = matrix(f"inputs of {name!r}", given[name])
    if inputs is not None:
        return np.linalg.qr(X).R if len(X) > X.shape[1] else X
    values, vectors = np.linalg.eigh(X)
    root: Array = np.sqrt(np.maximum(values, 0))[:, None] * vectors.T
    return root


class Based(NamedTuple):
    """An adapter whose modules know their weights; readers of these (d, k), and of biases that are moved."""

    adapter: Adapter
    weights: Mapping[str, Reader]
    biases: Mapping[str, Reader]
    unsure: tuple[str, ...]


def on_base(adapter: Adapter, base: str | os.PathLike[str] | None, *, any_base: bool = False) -> Based:
    """The adapter on a base model, a directory or a GGUF file; without one, as it is."""
    if base is None:
        return Based(adapter, {}, {}, ())
    source = open_gguf(base) if Path(base).suffix == ".gguf" else open_model(directory(base))
    check_start(adapter, with_base=True)
    unsure = () if any_base else check_base(source.config, base, adapter)
    weights: dict[str, Reader] = {}
    biases: dict[str, Reader] = {}
    modules = dict(adapter.modules)
    if isinstance(source, GGUFModel):
        for name, module in modules.items():
            read: Callable[[], Any] = partial(source.read, f"{name}.weight")
            if isinstance(module, MappedModule):
                modules[name] = module = module.on(read().shape)
            weights[name] = partial(_oriented, f"{base}: {name!r}", read, module, False)
    else:
        merging = Merging(source, adapter)
        for name, change in merging.by_module().items():
            module = change.module or modules[name]
            if isinstance(module, MappedModule):
                modules[name] = module
                if module.moves_bias and (moved := merging.changes.get(merging.named(f"{name}.bias"))):
                    biases[f"{name}.bias"] = partial(_moved, moved, f"{base}: bias of {name!r}")
            read, turned = change.start.read, change.transposed
            weights[name] = partial(_oriented, f"{base}: {name!r}", read, module, turned)
    for name, module in modules.items():
        if isinstance(module, MappedModule) and name in weights:
            modules[name] = replace(module, base=weights[name])
    return Based(replace(adapter, modules=modules), weights, biases, unsure)


def _moved(change: Change, place: str) -> Array:
    return change.result(place, "float32")[0]


def _oriented(place: str, read: Callable[[], Any], module: AdapterModule, transposed: bool) -> Array:
    return oriented(place, at_least_single(np.asarray(read())), module, transposed=transposed)
