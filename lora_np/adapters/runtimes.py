"""Read and write the adapter files of llama.cpp and mlx-lm.

Sources: llama.cpp, ``src/llama-adapter.cpp`` and ``convert_lora_to_gguf.py``; mlx-lm,
``tuner/utils.py``, ``tuner/lora.py`` and ``tuner/dora.py``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from lora_np.adapters import scaling
from lora_np.adapters.adapter import (
    MLX_WEIGHTS,
    Adapter,
    AdapterModule,
    Stored,
    check_shapes,
    header,
)
from lora_np.checks import Array, number, shown
from lora_np.files import FileError, write_json
from lora_np.hub import FLOATS, TensorInfo, gguf, safetensors
from lora_np.models import (
    Dialects,
    OpenModel,
    Place,
    family_names,
    guess,
    llama_cpp_of,
    peft,
    row_order,
)
from lora_np.quantise import LAYOUTS

Config = Mapping[str, Any]
File = safetensors.SafetensorsFile | gguf.GGUFFile

# Maps each type of tensor, such as "Q8_0" or "F16", to the dtype in which it is read.
_DTYPES = {**{name: name for name in FLOATS}, **dict.fromkeys(LAYOUTS, "float32"), "F16": "float16"}
_DTYPES["BF16"] = "bfloat16"
_KINDS = {"float64": "F32", "float32": "F32", "float16": "F16", "bfloat16": "BF16"}
_GGUF = {".weight.lora_a": "A", ".weight.lora_b": "B"}
_HEADS = {
    "num_attention_heads": "attention.head_count",
    "num_key_value_heads": "attention.head_count_kv",
}

_MLX = {".lora_a": "A", ".lora_b": "B", ".m": "magnitude"}
# These two families together have every name that mlx-lm uses for experts. In transformers, experts
# have the same names in every family.
_EXPERTS = Dialects({}, ("qwen3_moe", "mixtral"))
# The usual names, for models whose modules have the same names in transformers and mlx-lm.
_MLX_NAMES = Dialects({})


def grouped(file: File, ends: Mapping[str, str]) -> dict[str, dict[str, Stored]]:
    """Group the tensors of a file by module and part, according to the ends of their keys."""
    groups: dict[str, dict[str, Stored]] = {}
    for key, info in file.tensors.items():
        end = next((end for end in ends if key.endswith(end)), None)
        if end is None or info.dtype not in _DTYPES:
            raise FileError(f"{key!r} of {info.dtype} is not part of a LoRA in this format")
        stored = Stored(_DTYPES[info.dtype], info.shape, partial(file.read, key), key)
        groups.setdefault(key.removesuffix(end), {})[ends[end]] = stored
    for place, parts in groups.items():
        if not {"A", "B"} <= parts.keys() or min(len(parts[part].shape) for part in "AB") < 2:
            raise FileError(f"{place!r} has only one factor, or a factor that is not a matrix")
    if not groups:
        raise FileError("holds no LoRA")
    return groups


def assembled(
    parts: Iterable[tuple[Place, AdapterModule]], linear: Collection[str] = ()
) -> dict[str, AdapterModule]:
    """Build PEFT's modules, keyed by name, from the parts in which a program stores them.

    ``linear`` lists modules that are known to be linear layers.
    """
    modules: dict[str, list[AdapterModule | None]] = {}
    for place, module in parts:
        check_shapes(module.parts, f" of {place.parameter!r}")
        # PEFT adapts routers and experts as parameters, unless they are known to be linear layers.
        known = place.parameter in linear
        router = place.parameter.endswith(".mlp.gate") and not known
        name = place.parameter + ".weight" * router
        module = replace(module, parameter=router or (".experts." in name and not known))
        modules.setdefault(name, [None] * place.parts)[place.part] = module
    return {name: scaling.joined(in_parts) for name, in_parts in modules.items()}


def write_gguf(adapter: Adapter, path: Path, base: OpenModel | None, dtype: str | None) -> None:
    """Write an adapter as a GGUF file for llama.cpp, with the names and row order of its base."""
    if base is None:
        raise FileError(
            "llama.cpp's names and order of rows depend on the base, and the adapter names no base "
            "that is on this disk: convert it with lora-np convert --to gguf --base MODEL"
        )
    config, family = base.config, base.model_type
    known = llama_cpp_of(family)
    if known is None:
        names = ", ".join(name for name in family_names() if llama_cpp_of(name))
        raise FileError(
            f"llama.cpp's names are known for models of {names}, not of {shown(family)}"
        )
    (architecture, pairing), spec = known, base.spec
    scaling.check_sayable(adapter, "llama.cpp", ("embedding", "parameter"))
    alpha = float(
        np.float32(scaling.usual(module.scale * module.rank for module in adapter.values()))
    )
    layers = spec.layers[0]
    heads = (
        dict(zip(_HEADS, (layers.heads, layers.kv_heads), strict=True))
        if pairing == "neighbours"
        else {}
    )
    tensors: dict[str, Stored] = {}
    for name, module in adapter.items():
        places = base.dialects.names_in("llama_cpp", name.removesuffix(".weight"))
        if not places:
            raise FileError(f"llama.cpp has no name for {name!r} of {family}")
        for place, part in zip(places, scaling.parted(module, len(places)), strict=True):
            factors = scaling.rescaled(part, alpha / part.rank).parts
            A = factors["A"].seen(np.transpose) if module.embedding else factors["A"]
            tensors[f"{place}.weight.lora_a"] = A
            tensors[f"{place}.weight.lora_b"] = _ordered(
                name, factors["B"], {**config, **heads}, path, back=True
            )
    metadata = {
        "general.type": "adapter",
        "general.architecture": architecture,
        "general.name": "LoRA",
        "adapter.type": "lora",
        "adapter.lora.alpha": alpha,
        # numbers of heads, which `read_gguf` needs if it gets no base; llama.cpp reads the base's
        **{f"{architecture}.{_HEADS[field]}": count for field, count in heads.items()},
    }
    infos = {
        key: TensorInfo(_KINDS[info.dtype], info.shape)
        for key, info in header(tensors, dtype).items()
    }
    gguf.write(infos, lambda key: tensors[key].read(), path, metadata=metadata)


def read_gguf(path: Path, config: Config | None, *, ordered: bool) -> dict[str, AdapterModule]:
    """Read the modules of a GGUF file, with rows in transformers' order if ``ordered``."""
    file = gguf.open(path)
    metadata = file.metadata
    for key, wanted in (("general.type", "adapter"), ("adapter.type", "lora")):
        if metadata.get(key) != wanted:
            raise FileError(
                f"{key} is {shown(metadata.get(key))}, not {wanted!r}: not a LoRA for llama.cpp"
            )
    if "adapter.alora.invocation_tokens" in metadata:
        raise FileError(
            "aLoRA applies only from its invocation tokens on, which no change of the weights can"
            " express"
        )
    architecture = metadata.get("general.architecture")
    alpha = real("adapter.lora.alpha", metadata.get("adapter.lora.alpha", 0.0))
    families = _families(architecture)
    if not families:
        raise FileError(f"the names of the architecture {shown(architecture)} are unknown here")
    if config is not None and config.get("model_type") not in families:
        raise FileError(f"is for {architecture}, but the base is {shown(config.get('model_type'))}")
    base = config or base_of(file)
    parts: list[tuple[Place, AdapterModule]] = []
    names = Dialects({}, families)
    for key, factors in grouped(file, _GGUF).items():
        place = names.place_in("llama_cpp", key)
        if place is None:
            raise FileError(f"{shown(key)} is not a module of a {architecture} model")
        embedding = key == "token_embd"
        A, B = factors["A"].seen(np.transpose) if embedding else factors["A"], factors["B"]
        if ordered:
            B = _ordered(place.parameter, B, base, path)
        # alpha = r gives a scale of 1, which llama.cpp uses if alpha is missing or 0
        own = alpha or float(A.shape[-2])
        parts.append((place, AdapterModule({"A": A, "B": B}, own, embedding=embedding)))
    return assembled(parts)


def real(name: str, value: object) -> float:
    """Return ``value`` after checking that it is a number of at most 2^63 in magnitude."""
    try:
        return number(name, value, minimum=-(2.0**63), maximum=2.0**63)
    except (TypeError, ValueError) as error:
        raise FileError(str(error)) from None


def base_of(file: gguf.GGUFFile) -> dict[str, str | int]:
    """Guess the base's config from an adapter's file: the family, and any known head counts."""
    architecture = file.metadata.get("general.architecture")
    keys = {key.removesuffix(end) for key in file.tensors for end in _GGUF if key.endswith(end)}

    def known(family: str) -> int:
        names = Dialects({}, [family])
        return sum(bool(names.place_in("llama_cpp", key)) for key in keys)

    family = max(_families(architecture), key=known)
    heads = {field: file.metadata.get(f"{architecture}.{key}") for field, key in _HEADS.items()}
    return {
        "model_type": family,
        **{name: n for name, n in heads.items() if type(n) is int and n > 0},
    }


def told_base(adapter: Adapter) -> OpenModel | None:
    """Return the base that an adapter's GGUF file describes; None for files of other formats."""
    if not (path := adapter.path) or path.suffix != ".gguf":
        return None
    return OpenModel(path, base_of(gguf.open(path)), on_disk=False)


def _families(architecture: object) -> list[str]:
    return [
        name
        for name in family_names()
        if (known := llama_cpp_of(name)) and known[0] == architecture
    ]


def _ordered(name: str, B: Stored, config: Config, path: Path, *, back: bool = False) -> Stored:
    """Put the rows of B in transformers' order, or, with ``back``, in llama.cpp's order."""
    try:
        order = row_order(config, name, B.shape[-2])
    except KeyError:  # the config lacks the number of heads

        def refused() -> Array:
            raise FileError(
                f"{path}: {name!r}: llama.cpp stores its rows in an order that depends on the base,"
                " which the file does not describe: run lora-np convert --base MODEL --to peft"
            )

        return replace(B, read=refused)
    if order is None:
        return B
    return B.seen(partial(np.take, indices=np.argsort(order) if back else order, axis=-2))


def write_mlx(adapter: Adapter, folder: Path, base: OpenModel | None, dtype: str | None) -> None:
    """Write mlx-lm's two files into a directory; the names of experts depend on the base."""
    dora = adapter.has_magnitudes
    scaling.check_sayable(adapter, "mlx-lm", ("magnitude",) if dora else ("embedding", "parameter"))
    for name, module in adapter.items():
        if dora and "magnitude" not in module.parts:
            raise FileError(
                f"{name!r} has no magnitude, but in mlx-lm either all modules are DoRA or none is"
            )
    scale = scaling.usual(module.scale for module in adapter.values())
    rank = max(module.rank for module in adapter.values())
    tensors: dict[str, Stored] = {}
    for name, module in adapter.items():
        names = _mlx_names(adapter, name, base)
        for place, part in zip(names, scaling.parted(module, len(names)), strict=True):
            parts = _transposed(scaling.padded(scaling.rescaled(part, scale), rank).parts)
            tensors |= {f"{place}{end}": parts[what] for end, what in _MLX.items() if what in parts}
    # mlx supports float64 only on CPUs, so write float32
    wide = any(tensor.dtype == "float64" for tensor in tensors.values())
    infos = header(tensors, dtype or ("float32" if wide else None))
    metadata = {"format": "mlx"}
    safetensors.write(
        infos, lambda key: tensors[key].read(), folder / MLX_WEIGHTS, metadata=metadata
    )
    keys = sorted({key.rpartition(".")[0] for key in tensors})
    settings = {
        "model": adapter.raw.get("base_model_name_or_path"),
        "fine_tune_type": "dora" if dora else "lora",
        "num_layers": -1,  # all layers, because `keys` already selects by whole paths
        "lora_parameters": {"rank": rank, "scale": scale, "dropout": 0.0, "keys": keys},
    }
    write_json(folder / peft.NAME, settings)


def _transposed(parts: Mapping[str, Stored]) -> dict[str, Stored]:
    """Transpose factors from PEFT's orientation to mlx-lm's, or back, unless they are stacked."""
    return {part: x.seen(np.transpose) if len(x.shape) == 2 else x for part, x in parts.items()}


def _mlx_names(adapter: Adapter, name: str, base: OpenModel | None) -> tuple[str, ...]:
    """List mlx-lm's names for the parts of a module."""
    bare = name.removesuffix(".weight") if adapter[name].parameter else name
    names = (base.dialects if base else _MLX_NAMES).names_in("mlx", bare)
    known = base is not None and names != _MLX_NAMES.names_in("mlx", bare)
    if adapter[name].parameter and not known and (base is None or ".experts." in name):
        raise FileError(
            f"mlx-lm's name for {name!r} depends on the base: give a known one (--base MODEL)"
        )
    return names


def read_mlx(
    settings: Config, file: safetensors.SafetensorsFile, base: OpenModel | None
) -> dict[str, AdapterModule]:
    """Read an mlx-lm directory's modules; without a base, infer their kinds from their names."""
    kind, parameters = settings.get("fine_tune_type", "lora"), settings.get("lora_parameters")
    if kind not in ("lora", "dora"):
        raise FileError(
            f"fine_tune_type must be 'lora' or 'dora', got {shown(kind)}; lora-np extract makes a"
            " LoRA of the difference"
        )
    scale = parameters.get("scale") if isinstance(parameters, Mapping) else None
    scale = real("lora_parameters.scale", scale)
    modules: list[tuple[Place, AdapterModule]] = []
    known = base.known.modules if base and base.known else ()
    kinds = {module.name: module.kind for module in known}
    own = {mlx: name for name in kinds for mlx in _MLX_NAMES.names_in("mlx", name)}
    for key, stored in grouped(file, _MLX).items():
        key = own.get(key, key)
        parts, place = _transposed(stored), _EXPERTS.place_in("mlx", key) or Place(key)
        if ("magnitude" in parts) != (kind == "dora"):
            raise FileError(f"{key!r} must have m if fine_tune_type is 'dora', and only then")
        embedding = kinds.get(place.parameter, guess(key, (1, 1))) == "embedding"
        module = AdapterModule(parts, scale * parts["A"].shape[-2], embedding=embedding)
        modules.append((place, module))
    return assembled(modules, [name for name, kind in kinds.items() if kind == "linear"])
