"""Read and write PEFT's adapter directories: the keys of tensors, and the config."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from lora_np.adapters.adapter import Adapter, AdapterModule, Stored, TokenRows, check_shapes, header
from lora_np.files import FileError
from lora_np.hub import FLOATS, TensorInfo, safetensors
from lora_np.models import ends_with, peft

WEIGHTS = "adapter_model.safetensors"
METADATA = {"format": "pt"}
PREFIX = "base_model.model."
REPAIR = "; lora-np repair --base MODEL corrects the config"

# Maps the end of a key, after the module's path, to the name of the part and to whether the module
# is an embedding (None: it may or may not be one).
_PARTS = {
    "lora_A.weight": ("A", False),
    "lora_B.weight": ("B", False),
    "lora_B.bias": ("bias", False),
    "lora_embedding_A": ("A", True),
    "lora_embedding_B": ("B", True),
    "lora_magnitude_vector": ("magnitude", None),
    "lora_velora_embed": ("velora", False),  # has no effect on outputs
}
_HEADS = {suffix.partition(".")[0] for suffix in _PARTS}
_TOKENS = ".token_adapter.trainable_tokens_delta"  # ends the key of an embedding's replaced rows
_TABLE = ".token_adapter.base_layer.weight"  # ends the key of that embedding's base weight
# matches the names that PEFT inserts into the keys of modules that it copies
_COPIES = re.compile(r"\.(modules_to_save|original_module)(?=\.)")
_WRAPPED = ".base_layer"  # PEFT's name for a module inside the layer that wraps it


def only_lora(adapter: Adapter) -> Adapter:
    """Return the adapter as a LoRA; raise an error if another tuner of PEFT trained it.

    In files for image models, updates by other tuners become LoRAs.
    """
    for update in (module.tuned for module in adapter.modules.values() if module.tuned):
        if adapter.raw.get("peft_type") == "LORA":
            modules = {name: module.as_lora() for name, module in adapter.items()}
            return replace(adapter, modules=modules)
        raise FileError(
            f"{adapter}: {update.tuner.name} is not a LoRA: convert it first "
            "(lora-np convert --to lora)"
        )
    return adapter


def write(adapter: Adapter, folder: Path, *, dtype: str | None = None) -> None:
    """Write ``adapter`` as PEFT's two files, after checking that `load` would restore it."""
    adapter = only_lora(adapter)
    if not (adapter.modules or adapter.rows):
        raise FileError("an adapter needs at least one module, got none")
    # list the targets, because PEFT would use its defaults without them
    if not {"target_modules", "target_parameters"} & adapter.raw.keys():
        adapter = replace(adapter, raw=targeting(adapter.raw, adapter.modules))
    for name, module in adapter.modules.items():
        if not isinstance(name, str) or not _HEADS.isdisjoint(name.split(".")):
            raise FileError(
                f"a module's name must be its path, without parts such as lora_A; got {name!r}"
            )
        if missing := {"A", "B"} - module.parts.keys():
            raise FileError(f"{name!r} has no {min(missing)}")
    tensors = keyed(adapter)
    infos = header(tensors, dtype)
    text = _checked_config(adapter, infos)
    safetensors.write(infos, lambda key: tensors[key].read(), folder / WEIGHTS, metadata=METADATA)
    (folder / peft.NAME).write_text(text, encoding="utf-8")


def file_size(adapter: Adapter) -> int:
    """Compute the size in bytes of ``adapter_model.safetensors``."""
    return safetensors.file_size(header(keyed(adapter)), metadata=METADATA)


def keyed(adapter: Adapter) -> dict[str, Stored]:
    """Return the adapter's tensors by their keys in PEFT's file."""
    tensors = {}
    # maps each module that PEFT wraps to its adapted parameters, or to itself
    wrapped: dict[str, list[str]] = {}
    for name, module in adapter.modules.items():
        wrapped.setdefault(name.rpartition(".")[0] if module.parameter else name, []).append(name)
    for holder, names in wrapped.items():
        # PEFT wraps a module once per adapted parameter; each wrapper adds ".base_layer" to keys
        for depth, name in enumerate(reversed(nested(names))):
            module = adapter.modules[name]
            for suffix, (part, embedding) in _PARTS.items():
                if part in module.parts and embedding in (None, module.embedding):
                    tensors[f"{PREFIX}{holder}{_WRAPPED * depth}.{suffix}"] = in_file(module, part)
    for name, stored in adapter.full.items():
        holder, _, parameter = name.rpartition(".")
        own = f"{_WRAPPED * len(wrapped.get(holder, ()))}.{parameter}"
        tensors[PREFIX + holder + (_TABLE if name in adapter.rows else own)] = stored
    for name, rows in adapter.rows.items():
        tensors[f"{PREFIX}{name.removesuffix('.weight')}{_TOKENS}"] = rows.new
    return tensors


def _checked_config(adapter: Adapter, tensors: Mapping[str, TensorInfo]) -> str:
    """Return the config's text, after checking that `load` would restore ``adapter`` from it."""
    try:
        raw = json.loads(json.dumps(adapter.raw, allow_nan=False))
        config = peft.compose(raw, adapter.ranks_and_alphas)
        text = json.dumps(config.raw, indent=2, ensure_ascii=False) + "\n"
        text.encode()
    except FileError:
        raise
    except (TypeError, ValueError, RecursionError) as error:
        raise FileError(f"{peft.NAME}: the settings are not JSON: {error}") from None
    read = interpret(safetensors.SafetensorsFile(Path(WEIGHTS), tensors, METADATA), config, Path())
    for name, module in adapter.modules.items():
        back = read.modules[name]
        for what in ("alpha", "rslora", "embedding", "kernel", "parameter", "shape", "alora"):
            mine, theirs = getattr(module, what), getattr(back, what)
            if mine != theirs:
                raise FileError(f"{name!r} has {what} {mine}, but the settings make it {theirs}")
        if lost := sorted(module.parts.keys() - back.parts.keys()):
            raise FileError(f"{name!r} has a {lost[0]}, which PEFT cannot store in such a module")
    tokens, restored = (
        {name: (*tokens,) for name, (tokens, _) in x.rows.items()} for x in (adapter, read)
    )
    if tokens != restored:
        raise FileError(f"{peft.NAME}: trainable_token_indices do not match the adapter's rows")
    if unread := sorted(adapter.full.keys() - read.full.keys()):
        raise FileError(
            f"saved in full under names that would not be read: {', '.join(map(repr, unread))}"
        )
    return text


def targeting(raw: Mapping[str, Any], modules: Mapping[str, AdapterModule]) -> dict[str, Any]:
    """Return the settings ``raw`` with the full paths of ``modules`` as targets.

    MiCA's initialisation is removed: with it, PEFT would freeze B, but a new B must be trainable.
    """
    left_out = {
        "layers_to_transform", "layers_pattern", "exclude_modules", "target_parameters",
        "velora_config",
        "ensure_weight_tying", "r", "lora_alpha",
    }  # fmt: skip
    new = {key: content for key, content in raw.items() if key not in left_out}
    if raw.get("init_lora_weights") == "mica":
        new["init_lora_weights"] = True
    if parameters := sorted(name for name, module in modules.items() if module.parameter):
        new["target_parameters"] = parameters
    return {**new, "target_modules": sorted(modules.keys() - set(parameters))}


def interpret(
    file: safetensors.SafetensorsFile, config: peft.AdapterConfig, folder: Path
) -> Adapter:
    """Make an adapter from ``file``; raise an error for keys that the config does not explain."""
    # the keys are a module's path and a level of PEFT's nested wrappers, 0 for the outermost
    factors: dict[tuple[str, int], dict[str, Stored]] = {}
    embeddings: dict[tuple[str, int], bool] = {}
    full: dict[str, Stored] = {}
    rows: dict[str, TokenRows] = {}
    others: dict[str, Stored] = {}
    for key, tensor in {key: Stored.of(file, key) for key in file.tensors}.items():
        name = key.removeprefix(PREFIX)
        suffix = next((ending for ending in _PARTS if name.endswith(f".{ending}")), None)
        if suffix is None:
            others[name] = tensor
            continue
        part, embedding = _PARTS[suffix]
        wrapped = holder, _ = _unwrapped(name.removesuffix(f".{suffix}"))
        if _WRAPPED[1:] in holder.split("."):
            raise FileError(f"{key!r} adapts torch's MultiheadAttention, which is not supported")
        if embedding is not None and embeddings.setdefault(wrapped, embedding) != embedding:
            raise FileError(f"{holder!r} has factors of a linear layer and of an embedding")
        factors.setdefault(wrapped, {})[part] = tensor
    wraps = Counter(holder for holder, _ in factors)
    modules = _modules(factors, embeddings, wraps, config)
    for key, tensor in others.items():
        if key.endswith(_TOKENS):
            name = key.removesuffix(_TOKENS)
            # skip the rows of a tied head, which the config does not name: they repeat the
            # embedding's rows
            if config.tokens_of(name) or name + _TABLE not in others:
                rows[f"{name}.weight"] = _token_rows(name, config, tensor)
            continue
        key = key.removesuffix(_TABLE) + ".weight" * key.endswith(_TABLE)
        if (own := _COPIES.sub("", key)) != key and own in others:
            # PEFT saves resized embeddings and biases twice, so skip the second copy
            continue
        name = full_name(PREFIX + key, config, wraps)
        if name in full:
            raise FileError(f"{PREFIX + key!r} is a second tensor for {name!r}")
        full[name] = tensor
    if not (modules or rows):
        raise FileError(f"holds no LoRA: it has no key such as '{PREFIX}<module>.lora_A.weight'")
    if config.raw.get("trainable_token_indices") and not rows:
        raise FileError("has no rows for the config's trainable_token_indices")
    stacks = (name for name, module in modules.items() if module.parameter)
    named = all(name in config.parameters_of(name.rpartition(".")[0]) for name in stacks)
    raw = config.raw if named else targeting(config.raw, modules)
    return Adapter(modules, full, raw, folder, rows)


def _modules(
    factors: Mapping[tuple[str, int], dict[str, Stored]],
    embeddings: Mapping[tuple[str, int], bool],
    wraps: Mapping[str, int],
    config: peft.AdapterConfig,
) -> dict[str, AdapterModule]:
    """Map each name to the module made of its factors, which must fit the config."""
    modules: dict[str, AdapterModule] = {}
    targeted = dict(zip(wraps, map(config.targets, wraps), strict=True))
    named: dict[str, tuple[str, int]] = {}
    stacks = {
        holder
        for (holder, _), parts in factors.items()
        if "A" in parts and is_stack(holder, parts["A"].shape)
    }
    for holder, depth in factors:
        both = wraps[holder] == 2 and holder.endswith(".experts")
        own = holder in stacks or (targeted[holder] and not both)
        name = holder if own else _parameter(holder, depth, wraps[holder], config)
        if name in named or (depth and name == holder):
            raise FileError(f"{holder!r} is adapted twice, which PEFT does not do")
        named[name] = holder, depth
    settings = {name: config.rank_and_alpha(name) for name in named}
    for name, wrapped in named.items():
        rank, alpha = settings[name]
        embedded = embeddings.get(wrapped, False)
        parameter = name != wrapped[0] or name in stacks
        parts, kernel = as_maps(checked_parts(name, factors[wrapped]), rank if parameter else 0)
        modules[name] = AdapterModule(
            parts, alpha, bool(config.raw.get("use_rslora")), embedded, kernel, parameter,
            alora=bool(config.raw.get("alora_invocation_tokens")),
        )  # fmt: skip
    _check_modules(modules, {name: rank for name, (rank, _) in settings.items()}, config)
    return modules


def is_stack(holder: str, shape: tuple[int, ...]) -> bool:
    """Return whether a module is a stack of experts with a single name, as Megatron saves it."""
    return ".experts." in holder and len(shape) == 3


def _unwrapped(holder: str) -> tuple[str, int]:
    """Return the path of a module without PEFT's wrappers, and the number of wrappers."""
    end = len(holder)
    while holder.endswith(_WRAPPED, 0, end):
        end -= len(_WRAPPED)
    return holder[:end], (len(holder) - end) // len(_WRAPPED)


def nested(names: Collection[str]) -> list[str]:
    """Sort the parameters of one module in the order in which PEFT wraps them.

    PEFT follows the order in which the model registers them, which a file does not contain. In
    transformers 5, every model registers its experts' down projection last.
    """
    return sorted(names, key=lambda name: (name.rpartition(".")[2].startswith("down"), name))


def _parameter(holder: str, depth: int, wraps: int, config: peft.AdapterConfig) -> str:
    """Return the name of the parameter or module that factors at wrapper level ``depth`` adapt."""
    names = nested(config.parameters_of(holder))
    # a config for vLLM that targets an expert layer means both parameters of the layer
    if not names and config.targets(holder):
        names = [f"{holder}.{name}" for name in ("gate_up_proj", "down_proj")]
    # prefer targets with a path, because a bare name can be meant for other modules
    if len(names) > wraps:
        ends = [end for end in config.raw["target_parameters"] if "." in end]
        names = [name for name in names if any(ends_with(name, end) for end in ends)] or names
    if not names:
        # with tied weights, PEFT also adapts the head, although the config does not name it
        if config.raw.get("ensure_weight_tying"):
            return holder
        raise FileError(
            f"{holder!r} is not among the config's target_modules; PEFT would ignore it{REPAIR}"
        )
    if len(names) != wraps or depth >= wraps:
        raise FileError(
            f"{holder!r} has factors of {wraps} parameters, but target_parameters selects "
            f"{len(names)}: {', '.join(names)}"
        )
    return names[::-1][depth]


def checked_parts(name: str, parts: dict[str, Stored]) -> dict[str, Stored]:
    """Return a module's tensors after checking that they include both factors and are floats."""
    if missing := {"A", "B"} - parts.keys():
        raise FileError(f"{name!r} has no lora_{min(missing)}")
    for part, tensor in parts.items():
        if tensor.dtype not in FLOATS:
            raise FileError(
                f"{part} of {name!r} is stored as {tensor.dtype}, not as {' or '.join(FLOATS)}"
            )
    return parts


def _check_modules(
    modules: Mapping[str, AdapterModule], ranks: Mapping[str, int], config: peft.AdapterConfig
) -> None:
    """Raise an error if a module's tensors do not fit each other or the config."""
    wanted = {
        part: (flag, bool(config.raw.get(flag)))
        for part, flag in (("magnitude", "use_dora"), ("bias", "lora_bias"))
    }
    for name, module in modules.items():
        check_shapes(module.parts, f" of {name!r}")
        if (rank := module.rank) != ranks[name]:
            scales = " or ".join(f"{module.alpha / r:g}" for r in (rank, ranks[name]))
            raise FileError(
                f"{name!r} has rank {rank}, but the config says {ranks[name]}: its scale may be"
                f" {scales}"
            )
        for part, (flag, wants) in wanted.items():
            if (part in module.parts) != wants:
                raise FileError(
                    f"{name!r} has {'no' if wants else 'a'} {part}, but {flag} is"
                    f" {str(wants).lower()}"
                )


def as_maps(parts: Mapping[str, Stored], rank: int) -> tuple[dict[str, Stored], tuple[int, ...]]:
    """Reshape a file's tensors to A (r, k) and B (d, r), or to stacks; also return the kernel size.

    With a ``rank``, the factors may belong to several experts: PEFT orders the rows of A by expert
    first, and the columns of B by direction first.
    """
    maps, A, B = dict(parts), parts["A"].shape, parts["B"].shape
    kernel = A[2:] if len(A) == len(B) > 2 and set(B[2:]) == {1} and not rank else ()
    if 0 in (*A, *B):
        return maps, kernel
    if kernel and A[0] % B[1] == 0 and B[0] % (A[0] // B[1]) == 0:
        n = A[0] // B[1]
        groups = (n,) if n > 1 else ()
        maps["A"] = parts["A"].seen(lambda a: a.reshape(*groups, A[0] // n, -1))
        maps["B"] = parts["B"].seen(lambda b: b.reshape(*groups, B[0] // n, B[1]))
        if "magnitude" in parts and parts["magnitude"].shape == (1, B[0], *B[2:]):
            maps["magnitude"] = parts["magnitude"].seen(lambda m: m.reshape(-1))
    elif rank and len(A) == len(B) == 2 and A[0] == B[1] > rank and A[0] % rank == 0:
        maps["A"] = parts["A"].seen(lambda a: a.reshape(-1, rank, A[1]))
        maps["B"] = parts["B"].seen(lambda b: b.reshape(B[0], rank, -1).transpose(2, 0, 1))
    elif rank and len(A) == len(B) == 3 and B[1:] == A[1::-1] and B[::2] != A[:2]:
        maps["B"] = parts["B"].seen(lambda b: b.transpose(2, 0, 1))
    return maps, kernel


def in_file(module: AdapterModule, part: str) -> Stored:
    """Return a module's tensor in the shape that PEFT stores, the reverse of `as_maps`."""
    tensor, ones = module.parts[part], (1,) * len(module.kernel)
    if module.kernel and part != "bias":
        d, *inputs = module.shape
        shape = {
            "A": (module.rank, *inputs),
            "B": (d, module.directions, *ones),
            "magnitude": (1, d, *ones),
        }[part]
        return tensor.seen(lambda array: array.reshape(shape))
    if len(tensor.shape) < 3 or module.maps == 1:
        return tensor
    if part == "A":
        return tensor.seen(lambda A: A.reshape(-1, A.shape[-1]))
    return tensor.seen(lambda B: B.transpose(1, 2, 0).reshape(B.shape[1], -1))


def _token_rows(name: str, config: peft.AdapterConfig, tensor: Stored) -> TokenRows:
    """Return the replaced rows of an embedding, after checking them against the config."""
    tokens = config.tokens_of(name)
    if tokens is None:
        raise FileError(f"{name!r} is not among the config's trainable_token_indices")
    if len(tensor.shape) != 2 or tensor.shape[0] != len(tokens) or tensor.dtype not in FLOATS:
        raise FileError(
            f"{name!r} must have {len(tokens)} rows of floats, got {tensor.dtype} {tensor.shape}"
        )
    return TokenRows(tokens, tensor)


def full_name(
    key: str, config: peft.AdapterConfig, adapted: Collection[str], what: str = "LoRA"
) -> str:
    """Return the base's name of a parameter saved in full, after checking it against the config."""
    *inner, parameter = key.removeprefix(PREFIX).split(".")
    if {*_HEADS, "modules_to_save", "token_adapter"} & {*inner[1:]}:
        raise FileError(f"{key!r} is not a key that PEFT writes for a LoRA")
    module = ".".join(inner)
    bare, depth = _unwrapped(module)
    replaced = depth > 0 and bare in adapted
    module = bare if replaced else module
    trained_bias = parameter == "bias" and config.raw.get("bias", "none") != "none"
    # accept embeddings, because PEFT saves an embedding in full if it is adapted or resized
    embedding = parameter == "weight" and module.rpartition(".")[2] in peft.VOCABULARY
    if not module or not (replaced or trained_bias or embedding or config.saves(module)):
        raise FileError(f"{key!r} belongs to no {what}, modules_to_save or trained bias")
    return f"{module}.{parameter}"
