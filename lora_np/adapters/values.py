"""Find what is wrong with an adapter itself: values, and tensors that it should have.

One tensor is in memory at a time, or one module's two factors: a file may have many gigabytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lora_np.adapters.adapter import Adapter, AdapterModule, Stored
from lora_np.checks import close_names
from lora_np.files import FileError
from lora_np.models import (
    OpenModel,
    Patterns,
    ends_with,
    is_all_linear,
    kinds_and_layers,
    peft,
    targeted,
)

_LARGEST = float(np.finfo(np.float32).max)
_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")


class Fault(NamedTuple):
    """What is wrong with a module, a parameter that is replaced, or the whole file."""

    status: str  # "not finite", "zero", "absent" or "not known"
    why: str  # names the tensors, by what follows the module's name in their keys


def value_faults(adapter: Adapter) -> Iterator[tuple[str, Fault]]:
    """Yield what is wrong with values, by the names of modules and replaced parameters."""
    for name, module in adapter.items():
        if fault := fault_of(name, module):
            yield name, fault
    replaced = [*adapter.full.items(), *((name, rows.new) for name, rows in adapter.rows.items())]
    for name, stored in replaced:
        if fault := _not_finite(name, [("it", stored)]):
            yield name, fault


def check_finite(adapter: Adapter) -> list[str]:
    """Refuse values that are not finite, by their tensor; note modules that change nothing."""
    idle: dict[str, Fault] = {}
    for name, fault in value_faults(adapter):
        if fault.status == "not finite":
            raise FileError(f"{adapter}: {name!r} is not finite: {fault.why}")
        idle[name] = fault
    if not idle:
        return []
    name, fault = next(iter(idle.items()))
    return [f"modules that change nothing: {len(idle)}, the first {name!r}: {fault.why}"]


def fault_of(name: str, module: AdapterModule) -> Fault | None:
    """Tell whether a module's tensors or its update are not finite, or the update is zero."""
    tuned = module.tuned
    if fault := _not_finite(name, (tuned.tensors if tuned else module.parts).items()):
        return fault
    if tuned:
        with suppress(FileError):  # it depends on the base, which is not given
            if not tuned.delta().any():
                return Fault("zero", f"its {tuned.tuner.name} changes nothing")
        return None
    bias = module.bias
    return None if bias is not None and bias.any() else _of_product(name, module)


def _of_product(name: str, module: AdapterModule) -> Fault | None:
    """Tell why scale * B A is zero or overflows, from norms and Gram matrices of its factors."""
    B, A = (factor.astype(np.float64) for factor in module.factors())
    b, a = (_named(name, part, module.parts[part]) for part in "BA")
    columns, rows = np.linalg.norm(B, axis=-2), np.linalg.norm(A, axis=-1)
    if zero := [what for what, norms in ((a, rows), (b, columns)) if not norms.any()]:
        why = f"{' and '.join(zero)} {'is' if len(zero) == 1 else 'are'} zero, as without training"
        half = module.parts["B"].dtype == "float16"
        return Fault("zero", why + ", or too small for float16" * half)
    if not module.scale:
        return Fault("zero", "alpha is 0")
    products = columns * rows
    if not products.any():
        return Fault("zero", f"where columns of {b} are not zero, rows of {a} are")
    with np.errstate(over="ignore", invalid="ignore"):
        square = float(((B.mT @ B) * (A @ A.mT)).sum())  # ||B A||^2 = <B^T B, A A^T>
        if square <= B.shape[-1] * np.finfo(np.float64).eps * float(products.sum()) ** 2:
            return Fault("zero", f"{b} times {a} is zero, though neither is")
        if not abs(module.scale) * max(square, 0.0) ** 0.5 <= _LARGEST:
            return Fault("not finite", f"{b} and {a} are finite, but their product overflows")
    return None


def _not_finite(name: str, parts: Iterable[tuple[str, Stored]]) -> Fault | None:
    """Name the first tensor with a NaN or an infinity."""
    for part, stored in parts:
        x = stored.read()
        # without an array of truth values, which would be as long
        with np.errstate(invalid="ignore"):
            ends = np.array([x.min(initial=0), x.max(initial=0)], np.float64)
        if not np.isfinite(ends).all():
            what = "NaN" if np.isnan(ends).any() else "an infinite value"
            return Fault("not finite", f"{_named(name, part, stored)} holds {what}")
    return None


def _named(name: str, part: str, stored: Stored) -> str:
    """Name a tensor by what its key has after the module's name, or by its key."""
    _, found, end = stored.key.partition(f"{name}.")
    return (end if found else stored.key) or part


def missing(adapter: Adapter, base: OpenModel | None) -> Iterator[Fault]:
    """Yield what the config of PEFT names and the file has no tensors of."""
    raw = adapter.raw
    if raw.get("peft_type") != "LORA":
        return
    bare = [name.removesuffix(".weight") for name in adapter]
    for what in ("rank_pattern", "alpha_pattern"):
        for key in Patterns(raw.get(what) or {}, what).unused(adapter):
            close = close_names(key, {name.rpartition(".")[2] for name in bare})
            yield Fault("absent", f"{what} has {key!r}, which matches no module{close}")
    known = base.known if base else None
    modules = base.modules if base and known and not known.assumed else {}
    saved = [f".{name}." for name in (*adapter.full, *adapter.rows)]
    listed = raw.get("modules_to_save") or ()
    for end in listed:
        if not any(f".{end}." in name for name in saved) and (
            not adapter.full or any(ends_with(name, end) for name in modules)
        ):
            yield Fault("absent", f"the file has nothing of modules_to_save, {end!r}")
    targets = raw.get("target_modules")
    if base and known and modules:
        others = base.counterparts(bare)
        names = [others.get(name, name) for name in bare]
        have = {modules[name].name for name in names if name in modules}
        kinds = {_NUMBER.sub("*", name) for name in have}
        every = not targets or is_all_linear(targets)
        wanted = targeted(known, peft.parse(Path(peft.NAME), raw).targets)[0] if have else []
        lost = [name for name in wanted if not every or _NUMBER.sub("*", name) in kinds]
        if lost := [name for name in lost if name not in have]:
            yield Fault("absent", f"no tensors of {shortened(lost)}, which target_modules select")
    elif isinstance(targets, list):
        if unused := [end for end in targets if not any(ends_with(name, end) for name in bare)]:
            why = f"no tensors of {shortened(unused)}, in target_modules: give --base MODEL"
            yield Fault("not known", why)
        layers = sorted({int(x) for _, x in kinds_and_layers(bare).values() if x.isdecimal()})
        step = layers[1] - layers[0] if len(layers) > 1 else 1
        some = raw.get("layers_to_transform") is not None or re.search(r"\d", "".join(targets))
        regular = range(layers[0] if step > 1 else 0, layers[-1] + 1, step) if layers else ()
        if not some and (lost := [f"layer {i}" for i in regular if i not in layers]):
            yield Fault("not known", f"no tensors of {shortened(lost)}: give --base MODEL")


def shortened(names: list[str]) -> str:
    """Give two names, or one and how many more."""
    return ", ".join(names) if len(names) <= 2 else f"{names[0]} and {len(names) - 1} more"
