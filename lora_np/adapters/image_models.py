"""Read and write adapter files of image models, which are interpreted by their keys and shapes.

Sources: sd-scripts, ``networks/lora.py``; diffusers 0.42.1, ``loaders``; ComfyUI,
``comfy/weight_adapter``; LyCORIS 4.1.3, ``lycoris/modules``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
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
    in_memory,
)
from lora_np.adapters.peft_format import as_maps, in_file, only_lora
from lora_np.adapters.runtimes import real
from lora_np.checks import Array
from lora_np.files import FileError, parse_json
from lora_np.hub import FLOATS, safetensors
from lora_np.lora import TUNERS
from lora_np.models import KOHYA, flat, peft

Parts = dict[str, Stored]

# Patterns and replacements that turn unusual keys into usual ones. Pipelines with PEFT and early
# versions of diffusers write the unusual keys.
_SPELLINGS = (
    (r"base_model\.model\.", ""),
    (r"\.default_\d+(?=\.|$)", ""),
    (r"\.processor\.(to_\w+)_lora\.", r".\1.lora."),
    (r"\.to_out\.lora\.", ".to_out.0.lora."),
    (r"\.lora(_linear_layer)?\.(down|up)\.", r".lora_\2."),
    (r"\.lora_B\.bias$", ".diff_b"),
    (r"\.weight$", ""),
)
_PARTS = {
    "lora_down": "A", "lora_A": "A", "lora_up": "B", "lora_B": "B", "lora_mid": "lora_mid",
    "lora_magnitude_vector": "magnitude", "magnitude": "magnitude", "dora_scale": "dora_scale",
    "alpha": "alpha",
}  # fmt: skip
_TUNED = re.compile("diff|lokr_w[12]|(lokr|hada)_(w[12]_[ab]|t[12])")
# These tensors are added to norms and biases, or replace weights. They are copied unchanged.
_BESIDE = ("w_norm", "b_norm", "diff_b", "set_weight")
_ON_WEIGHTS = {"on_input": "(IA)^3", "a1": "GLoRA", "oft_blocks": "OFT", "oft_R": "OFT"}
_ACTS = "needs the base weights, which are in the pipeline: only its programs can apply it"
_HEADER = "lora_adapter_metadata"  # diffusers stores its LoraConfigs under this metadata key


def read(
    file: safetensors.SafetensorsFile, known: Iterable[str] | None
) -> tuple[dict[str, AdapterModule], Parts]:
    """Read the modules of a file, and collect its other tensors by their keys.

    If ``known`` lists the names of the base's modules, modules get these names; otherwise they keep
    their names in the file.
    """
    keys = {key: _split(key) for key in file.tensors}
    for key, (_, part) in keys.items():
        if part in _ON_WEIGHTS:
            raise FileError(f"{key!r} belongs to {_ON_WEIGHTS[part]}, which {_ACTS}")
    groups: dict[str, Parts] = {}
    beside: Parts = {}
    for key, (place, part) in keys.items():
        info = file.tensors[key]
        name = part if _TUNED.fullmatch(part) else _PARTS.get(part)
        tensor = Stored.of(file, key)
        if place and (part in _BESIDE or (part == "diff" and len(info.shape) < 2)):
            beside[f"{place}.{part}"] = tensor
        elif not (place and name and (tensor.dtype in FLOATS or part == "alpha")):
            raise FileError(f"{key!r} of {info.dtype} is not part of a LoRA in this format")
        elif name in groups.setdefault(place, {}):
            raise FileError(f"{key!r} is a second {part} of {place!r}")
        else:
            groups[place][name] = tensor
    names: dict[str, list[str]] = {}
    for name in known or ():
        names.setdefault(name.replace(".", "_"), []).append(name)
    settings = _settings(file)
    modules: dict[str, AdapterModule] = {}
    for place, parts in groups.items():
        place_name = KOHYA.sub("", place).replace(".", "_")
        here = [place] if known is None else names.get(place_name, [])
        if len(here) != 1:
            raise FileError(f"{place!r} is {' or '.join(here) or 'no module'} of the base")
        modules[here[0]] = _module(place, parts, settings)
    if not modules or (known is not None and beside):
        raise FileError(f"holds {'more than LoRAs' if modules else 'no LoRA'}")
    return modules, beside


def has_scales(file: safetensors.SafetensorsFile) -> bool:
    """Return whether a file contains the scale of any module."""
    return _HEADER in file.metadata or any(key.endswith(".alpha") for key in file.tensors)


def write(adapter: Adapter, path: Path, dtype: str | None) -> None:
    """Write a file with kohya's keys, or with diffusers' for names with dots in a pipeline."""
    pipeline = adapter.pipeline
    adapter = adapter if pipeline else only_lora(adapter)
    modules = replace(adapter, full={}) if pipeline else adapter
    scaling.check_sayable(modules, "kohya's format", ("kernel", "magnitude", "tuned"))
    tensors = dict(adapter.full)
    for name, module in adapter.items():
        dotted = pipeline and "." in name
        place = name if dotted else flat(name)
        keyed = {f"{place}.{end}": x for end, x in _keyed(name, module, dotted=dotted).items()}
        if not tensors.keys().isdisjoint(keyed):
            raise FileError(f"{name!r} and another module both become {place!r} in kohya's format")
        tensors |= keyed
    metadata = {"ss_network_module": "networks.lora", "modelspec.architecture": "lora"}
    # keep alphas in float32 for any `dtype`, because they are settings and not weights
    alphas = header({key: x for key, x in tensors.items() if key.endswith(".alpha")})
    infos = header(tensors, dtype) | alphas
    safetensors.write(infos, lambda key: tensors[key].read(), path, metadata=metadata)


def _keyed(name: str, module: AdapterModule, *, dotted: bool) -> Parts:
    """Map the end of each key of a module, such as ``lora_up.weight``, to its tensor."""
    parts, alpha = dict(module.parts), module.alpha
    if not module.tuned:
        if dotted or not module.scale:  # dotted keys have no alpha; programs read alpha = 0 as r
            module = scaling.rescaled(module, 1.0)
        alpha = module.scale * module.rank
        ends = {"lora_A": "A", "lora_B": "B"} if dotted else {"lora_down": "A", "lora_up": "B"}
        parts = {f"{end}.weight": in_file(module, part) for end, part in ends.items()}
        if dotted and "magnitude" in module.parts and not name.startswith("diffusion_model."):
            parts["lora_magnitude_vector"] = in_file(module, "magnitude")
        elif lengths := module.parts.get("magnitude"):
            column = (-1, *(1,) * (1 + len(module.kernel)))
            parts["dora_scale"] = lengths.seen(lambda m: m.reshape(column))
    # diffusers rejects an alpha beside its own keys; LyCORIS rejects a LoKr without an alpha.
    if "diff" not in parts and not (dotted and module.tuned is None):
        parts["alpha"] = in_memory(np.float32(alpha))
    return parts


def _split(key: str) -> tuple[str, str]:
    """Split a key into the module's name and the kind of tensor."""
    for spelling, usual in _SPELLINGS:
        key = re.sub(spelling, usual, key)
    place, _, part = key.rpartition(".")
    return place, part


def _settings(file: safetensors.SafetensorsFile) -> dict[str, peft.AdapterConfig]:
    """Parse the settings in diffusers' metadata, one config per component of the pipeline."""
    raw: dict[str, dict[str, object]] = {}
    for key, value in parse_json(file.metadata.get(_HEADER, "{}").encode()).items():
        model, _, setting = key.partition(".")
        raw.setdefault(model, {"peft_type": "LORA"})[setting] = value
    return {model: peft.parse(file.path, settings) for model, settings in raw.items()}


def _module(place: str, parts: Parts, settings: Mapping[str, peft.AdapterConfig]) -> AdapterModule:
    """Make a module from its tensors; an alpha that is missing or 0 becomes the rank."""
    rank, alpha, rslora = 0, 0.0, False
    model, _, name = place.partition(".")
    if given := parts.pop("alpha", None):
        if given.size != 1:
            raise FileError(f"alpha of {place!r} must be one number, got shape {given.shape}")
        alpha = real(f"alpha of {place!r}", float(given.read().reshape(())))
    elif config := settings.get(model):
        rank, alpha = config.rank_and_alpha(name)
        rslora = bool(config.raw.get("use_rslora"))
    factors = [part for part in parts if part not in ("magnitude", "dora_scale")]
    few = len(factors) < 2 and "diff" not in parts
    if few or min(len(parts[part].shape) for part in factors) < 2:
        raise FileError(f"{place!r} has only one factor, or a factor that is not a matrix")
    if not {"A", "B"} >= {*factors}:
        return _tuned(place, parts, alpha)
    if lengths := parts.pop("dora_scale", None):
        if lengths.shape[:1] == (1,) != parts["B"].shape[:1]:
            raise FileError(f"{place!r} is a DoRA with a magnitude per input, which {_ACTS}")
        parts["magnitude"] = lengths.seen(np.ravel)
    parts, kernel = as_maps(parts, 0)
    check_shapes(parts, f" of {place!r}")
    module = AdapterModule(parts, 1.0, rslora, kernel=kernel)
    if rank not in (0, module.rank):
        raise FileError(f"{place!r} has rank {module.rank}, but the file's header says {rank}")
    return replace(module, alpha=alpha or float(module.rank))


def _tuned(place: str, parts: Parts, alpha: float) -> AdapterModule:
    """Make a module whose update is an entrywise product (LoHa) or a Kronecker product (LoKr).

    A full difference, or a LoCon with a core, is treated as the Kronecker product of 1 and itself.
    """
    if not {"magnitude", "dora_scale"}.isdisjoint(parts):
        raise FileError(f"{place!r} is a DoRA of another tuner than LoRA, which {_ACTS}")
    own, one = parts, {"lokr_w1": in_memory(np.ones((1, 1), np.float32))}
    try:
        if "diff" in parts:
            own = one | {"lokr_w2": parts["diff"]}
        elif core := parts.get("lora_mid"):
            down, up = parts["A"], parts["B"]
            a = up.seen(lambda up: _as_matrix(up).T)
            own = one | {"lokr_w2_a": a, "lokr_w2_b": down, "lokr_t2": core}
            parts = {"lora_down.weight": down, "lora_up.weight": up, "lora_mid.weight": core}
        kind = min(own)[:5]
        (B1, A1), (B2, A2) = (_pair(own, f"{kind}w{i}", f"{kind}t{i}") for i in "12")
    except KeyError as missing:
        raise FileError(f"{place!r} has no {missing.args[0]}") from None
    rank = next((own[kind + w].shape[0] for w in ("w2_b", "w1_b") if kind + w in own), 0)
    tensors = {"w1_a": B1, "w1_b": A1, "w2_a": B2, "w2_b": A2}
    # a LoKr of two whole matrices has no rank, so its scale is 1
    tuner, settings = TUNERS["LOHA"], {"alpha": alpha or rank or 1.0, "r": rank or alpha or 1.0}
    size = (B1.shape[0], A1.shape[1])
    if kind == "lokr_":
        size = (size[0] * B2.shape[0], size[1] * A2.shape[1])
        r1, r2 = A1.shape[0], A2.shape[0]
        shapes = {part: x.shape for part, x in tensors.items()}
        shapes |= {"w1_a": (B1.shape[0], r1), "w2_a": (B2.shape[0], r2)}
        tuner = replace(
            TUNERS["LOKR"],
            shapes=lambda d, k: shapes if (d, k) == size else {},
            factors=lambda w1_a, w1_b, w2_a, w2_b, *, alpha, r: (
                alpha / r * np.kron(w1_a, w2_a),
                np.kron(w1_b, w2_b),
            ),
            directions=lambda: r1 * r2,
        )
    update = TunedUpdate(place, tuner, settings, tensors).on(size)
    kernel = (own.get(f"{kind}t2") or own.get(f"{kind}w2") or B2).shape[2:]
    return AdapterModule(parts, settings["alpha"], kernel=kernel, tuned=update)


def _pair(parts: Parts, w: str, t: str) -> tuple[Stored, Stored]:
    """Return the factors B and A of one of the product's two matrices, with kernels flattened."""
    if whole := parts.get(w):
        matrix = whole.seen(_as_matrix)
        one = matrix.seen(lambda w: np.eye(min(w.shape), dtype=w.dtype))
        return (matrix, one) if matrix.shape[1] < matrix.shape[0] else (one, matrix)
    a, b = parts[f"{w}_a"], parts[f"{w}_b"]
    if core := parts.get(t):
        a, b = a.seen(np.transpose), _product(core, b)
    return a, b.seen(_as_matrix)


def _product(core: Stored, down: Stored) -> Stored:
    """Return ``sum_j core[i, j, ...] down[j, c]``, of shape (i, c, ...)."""
    if core.shape[1] != down.shape[0] or prod(down.shape[2:]) != 1:
        raise FileError(f"factors of shapes {core.shape} and {down.shape} do not fit")
    shape = (core.shape[0], down.shape[1], *core.shape[2:])

    def read() -> Array:
        product: Array = np.einsum("ij...,jc->ic...", core.single(), _as_matrix(down.single()))
        return product

    return Stored("float32", shape, read)


def _as_matrix(array: Array) -> Array:
    return array.reshape(len(array), -1)
