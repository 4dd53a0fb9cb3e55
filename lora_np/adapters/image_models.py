"""Files of image models' adapters, read by their keys and shapes alone, and written.

Sources: sd-scripts, ``networks/lora.py``; diffusers 0.42.1, ``loaders``; ComfyUI,
``comfy/weight_adapter``; LyCORIS 4.1.3, ``lycoris/modules``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from math import prod
from pathlib import Path

import numpy as np

from lora_np.adapters import scaling
from lora_np.adapters.adapter import (
    Adapter,
    AdapterModule,
    Stored,
    TunedUpdate,
    check_shapes,
    header,
)
from lora_np.adapters.peft_format import as_maps, in_file, only_lora
from lora_np.adapters.runtimes import real
from lora_np.checks import Array
from lora_np.files import FileError, parse_json
from lora_np.hub import FLOATS, safetensors
from lora_np.lora import TUNERS, Tuner
from lora_np.models import peft

Parts = dict[str, Stored]

# Spellings of one key: PEFT's prefix after that of a pipeline, and early diffusers' keys.
_SPELLINGS = (
    (r"base_model\.model\.", ""),
    (r"\.default_\d+(?=\.|$)", ""),
    (r"\.processor\.(to_\w+)_lora\.", r".\1.lora."),
    (r"\.to_out\.lora\.", ".to_out.0.lora."),
    (r"\.lora(_linear_layer)?\.(down|up)\.", r".lora_\2."),
    (r"\.lora_B\.bias$", ".diff_b"),
    (r"\.weight$", ""),
)
_FACTORS = ("w1_a", "w1_b", "w2_a", "w2_b", "t1", "t2")
_PARTS = {
    "lora_down": "A", "lora_A": "A", "lora_up": "B", "lora_B": "B", "lora_mid": "core",
    "lora_magnitude_vector": "magnitude", "magnitude": "magnitude", "dora_scale": "dora_scale",
    "alpha": "alpha",
    **{name: name for name in ("diff", "lokr_w1", "lokr_w2")},
    **{f"{own}_{w}": f"{own}_{w}" for own in ("hada", "lokr") for w in _FACTORS},
}  # fmt: skip
# Added to norms and biases, or in the place of weights: kept as they are.
_BESIDE = ("w_norm", "b_norm", "diff_b", "set_weight")
_ON_WEIGHTS = {"on_input": "(IA)^3", "a1": "GLoRA", "oft_blocks": "OFT", "oft_R": "OFT"}
_ACTS = "acts on the weights of the base, which are in the pipeline: only its programs can apply it"
_HEADER = "lora_adapter_metadata"  # diffusers' LoraConfigs
_FULL = Tuner(
    "full difference", "2309.14859", "", lambda d, k: {"diff": (d, k)}, {},
    lambda diff: (diff, np.eye(diff.shape[1], dtype=diff.dtype)),
    directions=lambda d, k: min(d, k),
)  # fmt: skip


def read(
    file: safetensors.SafetensorsFile, known: Iterable[str] | None
) -> tuple[dict[str, AdapterModule], Parts]:
    """Read the modules of a file, and what it has beside them.

    They have the ``known`` names of a base's modules, or else the file's.
    """
    keys = {key: _split(key) for key in file.tensors}
    for key, (_, part) in keys.items():
        if part in _ON_WEIGHTS:
            raise FileError(f"{key!r} is of {_ON_WEIGHTS[part]}, which {_ACTS}")
    groups: dict[str, Parts] = {}
    beside: Parts = {}
    for key, (place, part) in keys.items():
        info = file.tensors[key]
        holds = info.dtype in FLOATS and 0 not in info.shape
        if not (place and part in (*_PARTS, *_BESIDE) and (holds or part == "alpha")):
            raise FileError(f"{key!r} of {info.dtype} is no part of a LoRA in this format")
        own, name = groups.setdefault(place, {}), _PARTS.get(part, "")
        if part in _BESIDE or (part == "diff" and len(info.shape) < 2):
            own, name = beside, f"{place}.{part}"
        if name in own:
            raise FileError(f"{key!r} gives {part} of {place!r} a second time")
        own[name] = Stored(info.dtype, info.shape, partial(file.read, key))
    names: dict[str, list[str]] = {}
    for name in known or ():
        names.setdefault(name.replace(".", "_"), []).append(name)
    said = _settings(file)
    modules: dict[str, AdapterModule] = {}
    for place, parts in groups.items():
        if not parts:
            continue
        bare = place
        for prefix in (*scaling.KOHYA_PREFIXES, *scaling.PARTS_OF_PIPELINES):
            bare = bare.removeprefix(prefix)
        here = [place] if known is None else names.get(bare.replace(".", "_"), [])
        if len(here) != 1:
            raise FileError(f"{place!r} is {' or '.join(here) or 'no module'} of the base")
        modules[here[0]] = _module(place, parts, said)
    if known is not None and beside:
        raise FileError(f"{min(beside)!r} is no LoRA, and is not merged")
    if not (modules or beside):
        raise FileError("holds no LoRA")
    return modules, beside


def write(adapter: Adapter, path: Path, _: object, dtype: str | None) -> None:
    """Write one file: with diffusers' keys if the names have dots in the file that was read."""
    adapter = adapter if adapter.pipeline else only_lora(adapter)
    others = {
        x: y for x, y in adapter.full.items() if not (adapter.pipeline and x.endswith(_BESIDE))
    }
    scaling.check_sayable(replace(adapter, full=others), "kohya's format", ("kernel", "magnitude"))
    tensors: dict[str, Parts] = {}
    for name, module in adapter.items():
        dotted = adapter.pipeline and "." in name
        place = name if dotted else scaling.flat(name)
        if place in tensors:
            raise FileError(f"{name!r} and another module are both {place!r} in kohya's format")
        tensors[place] = _keyed(name, module, dotted=dotted)
    keyed = {f"{place}.{end}": x for place, parts in tensors.items() for end, x in parts.items()}
    metadata = {"ss_network_module": "networks.lora", "modelspec.architecture": "lora"}
    keyed |= adapter.full
    safetensors.write(header(keyed, dtype), lambda key: keyed[key].read(), path, metadata=metadata)


def _keyed(name: str, module: AdapterModule, *, dotted: bool) -> Parts:
    """The tensors of a module by the ends of their keys."""
    if module.tuned:
        prefix, alpha = module.tuned.tuner.prefix, module.alpha
        parts = {f"{prefix}{part}": stored for part, stored in module.parts.items()}
    else:
        if dotted or not module.scale:  # for alpha 0 means r
            module = scaling.rescaled(module, 1.0)
        alpha = module.scale * module.rank
        ends = {"lora_A": "A", "lora_B": "B"} if dotted else {"lora_down": "A", "lora_up": "B"}
        parts = {f"{end}.weight": in_file(module, part) for end, part in ends.items()}
        if "magnitude" in module.parts:
            column = (-1, *(1,) * (1 + len(module.kernel)))
            lengths = in_file(module, "magnitude")
            if dotted and not name.startswith("diffusion_model."):
                parts["lora_magnitude_vector"] = lengths
            else:
                parts["dora_scale"] = lengths.seen(lambda m: m.reshape(column))
    if (module.tuned and "diff" not in parts) or not dotted:
        number = np.array(alpha, np.float32)
        parts["alpha"] = Stored("float32", (), partial(np.copy, number))
    return parts


def _split(key: str) -> tuple[str, str]:
    """The module's name in a key, and what the tensor is."""
    for spelling, usual in _SPELLINGS:
        key = re.sub(spelling, usual, key)
    place, _, part = key.rpartition(".")
    return place, part


def _settings(file: safetensors.SafetensorsFile) -> dict[str, peft.AdapterConfig]:
    """The settings in diffusers' header, by the part of the pipeline."""
    raw: dict[str, dict[str, object]] = {}
    for key, value in parse_json(file.metadata.get(_HEADER, "{}").encode()).items():
        model, _, setting = key.partition(".")
        raw.setdefault(model, {})[setting] = value
    return {model: peft.parse(file.path, settings) for model, settings in raw.items()}


def _module(place: str, parts: Parts, said: Mapping[str, peft.AdapterConfig]) -> AdapterModule:
    """Make a module of these tensors; an alpha that is missing, or 0, means the rank."""
    alpha, given = 0.0, parts.pop("alpha", None)
    model, _, name = place.partition(".")
    config = said.get(model)
    if given is not None:
        if given.size != 1:
            raise FileError(f"{place!r} must have one number alpha, got shape {given.shape}")
        alpha = real(f"alpha of {place!r}", float(given.read().reshape(())))
    elif config:
        alpha = config.rank_and_alpha(name)[1]
    for kind in ("hada_", "lokr_", "diff"):
        if any(part.startswith(kind) for part in parts):
            return _tuned(place, kind, parts, alpha)
    if not {"A", "B"} <= parts.keys() or min(len(parts[part].shape) for part in "AB") < 2:
        raise FileError(f"{place!r} has only one factor, or one that is no matrix")
    if core := parts.pop("core", None):
        parts["A"] = _product(core, parts["A"])
    if lengths := parts.pop("dora_scale", None):
        if lengths.shape[:1] == (1,) != parts["B"].shape[:1]:
            raise FileError(f"{place!r} is a DoRA by inputs, which {_ACTS}")
        parts["magnitude"] = lengths.seen(np.ravel)
    factors, kernel = as_maps(parts, 0)
    check_shapes(factors, f" of {place!r}")
    rslora = bool(config and given is None and config.raw.get("use_rslora"))
    module = AdapterModule(factors, 1.0, rslora, kernel=kernel)
    return replace(module, alpha=alpha or float(module.rank))


def _tuned(place: str, kind: str, given: Parts, alpha: float) -> AdapterModule:
    """A module that another tuner trained, by the beginning of its tensors' names."""
    parts = {part.removeprefix(kind) or part: stored for part, stored in given.items()}
    if few := [part for part, stored in parts.items() if len(stored.shape) < 2]:
        raise FileError(f"{few[0]} of {place!r} is no matrix")
    if not {"magnitude", "dora_scale"}.isdisjoint(parts):
        raise FileError(f"{place!r} is a DoRA of another tuner than LoRA, which {_ACTS}")
    try:
        tensors, kernel = _matrices(parts)
    except KeyError as missing:
        raise FileError(f"{place!r} has no {kind}{missing.args[0]}") from None
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    rank = next((shapes[b][0] for b in ("w2_b", "w1_b") if b in shapes), 0)
    alpha = alpha or float(rank) or 1.0
    if kind == "diff":
        tuner, size = _FULL, shapes["diff"]
    elif kind == "hada_":
        tuner, size = TUNERS["LOHA"], (shapes["w1_a"][0], shapes["w1_b"][1])
    else:
        w1, w2 = (shapes.get(w) or (shapes[f"{w}_a"][0], shapes[f"{w}_b"][1]) for w in ("w1", "w2"))
        size = (w1[0] * w2[0], w1[1] * w2[1])
        if "w1" not in tensors:
            tensors["w1"] = _product(tensors.pop("w1_a"), tensors.pop("w1_b"))
        fit = {"w1": w1, "w2": w2}
        if "w2" not in shapes:
            fit = {"w1": w1, "w2_a": (w2[0], rank), "w2_b": (rank, w2[1])}
        tuner = replace(
            TUNERS["LOKR"],
            shapes=lambda d, k: fit if (d, k) == size else {},
            directions=lambda: min(w1) * min(fit.get("w2", (rank,))),
        )
    settings = {"alpha": alpha, "r": rank or alpha}  # both of LoKr's in full: the scale is 1
    update = TunedUpdate(place, tuner, settings, tensors).on(size)
    return AdapterModule(parts, alpha, kernel=kernel, tuned=update)


def _matrices(parts: Parts) -> tuple[Parts, tuple[int, ...]]:
    """Factors as PEFT has them, of the map of patches, and the kernel if they show it."""
    if "diff" in parts:
        return {"diff": parts["diff"].seen(_rows)}, parts["diff"].shape[2:]
    tensors: Parts = {}
    kernel: tuple[int, ...] = ()
    for w, t in (("w1", "t1"), ("w2", "t2")):
        whole, core = parts.get(w), parts.get(t)
        kernel = (whole or core or parts[f"{w}_b"]).shape[2:]
        if whole:
            tensors[w] = whole.seen(_rows)
            continue
        a, b = (parts[f"{w}_{end}"] for end in "ab")
        if core:
            a, b = a.seen(np.transpose), _product(core, b)
        tensors |= {f"{w}_a": a, f"{w}_b": b.seen(_rows)}
    return tensors, kernel


def _product(core: Stored, down: Stored) -> Stored:
    """``sum_j core[i, j, ...] down[j, c]``, of shape (i, c, ...)."""
    if core.shape[1] != down.shape[0] or prod(down.shape[2:]) != 1:
        raise FileError(f"factors of shapes {core.shape} and {down.shape} do not fit")
    shape = (core.shape[0], down.shape[1], *core.shape[2:])

    def read() -> Array:
        product: Array = np.einsum("ij...,jc->ic...", core.single(), _rows(down.single()))
        return product

    return Stored("float32", shape, read)


def _rows(array: Array) -> Array:
    return array.reshape(len(array), -1)
