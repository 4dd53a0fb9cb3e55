"""Find faults in an adapter: bad values and missing tensors.

At most one module's factors are in memory at a time, since a file may be many gigabytes large.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lora_np.adapters.adapter import Adapter, AdapterModule, Stored
from lora_np.checks import Array, close_names
from lora_np.files import FileError
from lora_np.models import OpenModel, Patterns, ends_with, is_all_linear, peft, targeted

_LARGEST = float(np.finfo(np.float32).max)
_LAYER = re.compile(r"(?<=\.)\d+(?=\.)")


class Fault(NamedTuple):
    """A fault of a module, of a replaced parameter, or of the whole file."""

    status: str  # "not finite", "zero", "empty", "absent", "refused", "ignored" or "not known"
    why: str  # the reason, which names tensors by the ends of their keys


def value_faults(adapter: Adapter) -> Iterator[tuple[str, Fault]]:
    """Yield the name and the fault of each module or replaced parameter with bad values."""
    for name, module in adapter.items():
        if fault := fault_of(name, module):
            yield name, fault
    rows = {name: trained.new for name, trained in adapter.rows.items()}
    for name, stored in (*adapter.full.items(), *rows.items()):
        if fault := _not_finite(name, {"it": stored}):
            yield name, fault


def check_finite(adapter: Adapter) -> None:
    """Raise an error that names the tensor if an adapter has values that are not finite."""
    for name, fault in value_faults(adapter):
        if fault.status == "not finite":
            raise FileError(f"{adapter}: {name!r} is not finite: {fault.why}")


def fault_of(name: str, module: AdapterModule) -> Fault | None:
    """Return the fault of a module that is not finite or has a zero update, otherwise None."""
    tuned, bias = module.tuned, module.bias
    if fault := _not_finite(name, tuned.tensors if tuned else module.parts):
        return fault
    if tuned:
        with suppress(FileError):  # the update may depend on a base that is not given
            if not tuned.delta().any():
                return Fault("zero", f"its {tuned.tuner.name} changes nothing")
        return None
    acts = "magnitude" in module.parts or (bias is not None and bias.any())
    fault = _of_product(name, module)
    return None if acts and fault and fault.status == "zero" else fault


def _of_product(name: str, module: AdapterModule) -> Fault | None:
    """Return the fault if scale * B A is zero or overflows, without forming B A; otherwise None."""
    B, A = module.factors()
    b, a = (_named(name, part, module.parts[part]) for part in "BA")
    (columns, inner), (rows, outer) = map(_gram, (B.mT, A))
    if zero := [what for what, norms in ((a, rows), (b, columns)) if not norms.any()]:
        why = f"{' and '.join(zero)} {'is' if len(zero) == 1 else 'are'} zero, as without training"
        half = module.parts["B"].dtype == "float16"
        return Fault("zero", why + ", or too small for float16" * half)
    if not module.scale:
        return Fault("zero", "alpha is 0")
    with np.errstate(over="ignore", invalid="ignore"):
        if not (products := columns * rows).any():
            return Fault("zero", f"wherever a column of {b} is not zero, the row of {a} is")
        square = max(float(np.vdot(inner, outer)), 0.0)  # ||B A||^2 = <B^T B, A A^T>
        most = products.sum() ** 2
    if not abs(module.scale) * square**0.5 <= _LARGEST:
        return Fault("not finite", f"{b} and {a} are finite, but their product overflows")
    if square <= B.shape[-1] * np.finfo(np.float64).eps * most:
        return Fault("zero", f"{b} times {a} is zero, though neither factor is")
    return None


def _gram(factor: Array) -> tuple[Array, Array]:
    """Compute the norms of a factor's rows (r,) and their Gram matrix (r, r)."""
    wide = factor.astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        return np.linalg.norm(wide, axis=-1), wide @ wide.mT


def _not_finite(name: str, parts: Mapping[str, Stored]) -> Fault | None:
    """Return a fault that names the first tensor with a NaN or an infinity, or None."""
    for part, stored in parts.items():
        x = stored.read()
        # use min and max, because np.isfinite(x) would allocate a boolean for each entry
        with np.errstate(invalid="ignore"):
            ends = [float(x.min(initial=0)), float(x.max(initial=0))]
        if not np.isfinite(ends).all():
            what = "NaN" if np.isnan(ends).any() else "an infinite value"
            return Fault("not finite", f"{_named(name, part, stored)} holds {what}")
    return None


def _named(name: str, part: str, stored: Stored) -> str:
    """Return the end of a tensor's key after the module's name, or else the whole key."""
    return stored.key.partition(f"{name}.")[2] or stored.key or part


def missing(adapter: Adapter, base: OpenModel | None) -> Iterator[Fault]:
    """Yield faults for patterns and modules in PEFT's settings that match nothing in the file."""
    raw, known = adapter.raw, base.known if base else None
    if raw.get("peft_type") != "LORA":
        return
    for what in ("rank_pattern", "alpha_pattern"):
        for key in Patterns(raw.get(what) or {}, what).unused(adapter):
            close = close_names(key, {name.rpartition(".")[2] for name in adapter})
            yield Fault("ignored", f"{what} has {key!r}, which matches no module{close}")
    sure = base if known and not known.assumed else None
    saved = [f".{name}" for name in (*adapter.full, *adapter.rows)]
    for end in raw.get("modules_to_save") or ():
        named = any(f".{end}." in name for name in saved)
        has = sure is not None and any(ends_with(name, end) for name in sure.modules)
        if not named and (has or not saved):
            yield Fault("absent", f"the file has no tensor of {end!r} in modules_to_save")
    # an adapter made in memory may list no targets
    if {"target_modules", "target_parameters"} & raw.keys():
        yield from _lost(adapter, sure)


def _lost(adapter: Adapter, base: OpenModel | None) -> Iterator[Fault]:
    """Yield one fault that names the modules selected as targets but missing, if there are any."""
    bare, targets = [x.removesuffix(".weight") for x in adapter], adapter.raw.get("target_modules")
    wanted = peft.parse(Path(peft.NAME), adapter.raw).targets
    others = base.counterparts(bare) if base else {}
    have = {others.get(name, name) for name in bare}
    kinds = {_LAYER.sub("*", name, count=1) for name in have}
    if base:
        every = targeted(base.spec, wanted)[0] if have & base.modules.keys() else []
        if not targets or is_all_linear(targets):
            every = [name for name in every if _LAYER.sub("*", name, count=1) in kinds]
        status, why = "absent", "which target_modules selects"
    else:  # without a base, assume that all layers have the same modules
        depth = max((int(x[0]) for name in have if (x := _LAYER.search(name))), default=0)
        layers = product(kinds, map(str, range(depth)))
        every = [name for kind, i in layers if wanted(name := kind.replace("*", i))]
        status, why = "not known", "which other layers have: give --base MODEL"
    if lost := [name for name in every if name not in have]:
        yield Fault(status, f"no tensors of {shortened(lost)}, {why}")


def shortened(names: list[str]) -> str:
    """Format names for a message; if there are more than two, name the first and count the rest."""
    return ", ".join(names) if len(names) <= 2 else f"{names[0]} and {len(names) - 1} more"
