"""PEFT's adapter directories: the only place that knows a PEFT key.

What is saved here loads in PEFT, and what PEFT saved opens here. An `Adapter` reads a tensor when it is asked
for it, so that an adapter of any size can be gone through one module at a time.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from lora_np.adapters.module import AdapterModule, Stored, TokenRows, header, misfit
from lora_np.checks import Array
from lora_np.hub import (
    FLOATS,
    HubError,
    SafetensorsFile,
    SafetensorsWriter,
    TensorInfo,
    directory,
    inside,
    read_json,
    safetensors,
)
from lora_np.models import peft

WEIGHTS = "adapter_model.safetensors"
METADATA = {"format": "pt"}
PREFIX = "base_model.model."

# What follows a module's path in a key: the part that it holds, and whether it belongs to an embedding.
_PARTS = {
    "lora_A.weight": ("A", False),
    "lora_B.weight": ("B", False),
    "lora_B.bias": ("bias", False),
    "lora_embedding_A": ("A", True),
    "lora_embedding_B": ("B", True),
    "lora_magnitude_vector": ("magnitude", None),
    "lora_velora_embed": ("velora", False),  # for the backward pass only
}
_HEADS = {suffix.partition(".")[0] for suffix in _PARTS}
_TOKENS = ".token_adapter.trainable_tokens_delta"  # of the rows of an embedding
_WRAPPED = "base_layer"  # what PEFT calls a module inside of the one that it puts in its place
# PEFT saves these in full next to the adapter of an embedding, or when the vocabulary was resized.
_EMBEDDING_LAYERS = ("embed_tokens", "lm_head")


@dataclass(frozen=True, eq=False, repr=False)
class Adapter(Mapping[str, AdapterModule]):
    """An adapter: a mapping from the paths of modules to what is done to each.

    Paths are as PEFT names them: ``"model.layers.0.self_attn.q_proj"``. Made by `load`.

    Parameters
    ----------
    modules : mapping of str to AdapterModule
        What is done to each module, by its path.
    full : mapping of str to Stored
        Parameters that are replaced rather than adapted, by their names in the base model: those of
        ``modules_to_save``, trained biases, embeddings that were saved with their adapter.
    raw : mapping
        The settings of ``adapter_config.json``.
    path : path, optional
        Where it was read from.
    rows : mapping of str to TokenRows
        TokenRows of embeddings that are replaced, by the names of the weights in the base model.

    Examples
    --------
    >>> module = AdapterModule.of(A=np.ones((2, 3)), B=np.ones((4, 2)), alpha=8.0)
    >>> Adapter({"layer": module}).delta("layer")[0]
    array([8., 8., 8.])
    """

    modules: Mapping[str, AdapterModule]
    full: Mapping[str, Stored] = field(default_factory=dict)
    raw: Mapping[str, Any] = field(default_factory=lambda: {"peft_type": "LORA"})
    path: Path | None = None
    rows: Mapping[str, TokenRows] = field(default_factory=dict)

    def __getitem__(self, name: str) -> AdapterModule:
        return self.modules[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.modules)

    def __len__(self) -> int:
        return len(self.modules)

    def __repr__(self) -> str:
        numbers = sum(stored.size for stored in self.tensors().values())
        modules = "1 module" if len(self) == 1 else f"{len(self)} modules"
        return f"<Adapter of {modules}, {numbers:,} numbers{f', {self.path}' if self.path else ''}>"

    @property
    def config(self) -> dict[str, Any]:
        """The content of ``adapter_config.json``, with the rank and alpha of every module."""
        return dict(peft.compose(self.raw, self._ranks_and_alphas()).raw)

    def _ranks_and_alphas(self) -> dict[str, tuple[int, float]]:
        return {name: (module.rank, module.alpha) for name, module in self.modules.items()}

    @property
    def fan_in_fan_out(self) -> bool:
        """Whether the base stores its linear weights as (k, d), as GPT-2's Conv1D does."""
        return bool(self.raw.get("fan_in_fan_out"))

    def delta(self, name: str) -> Array:
        """``scale * B @ A`` of one module: outputs by inputs, however the base stores its weight.

        With DoRA this is the update of the direction, before rows are brought to their magnitudes.
        """
        return self[name].delta()

    def tensors(self) -> dict[str, Stored]:
        """Every tensor by its key in PEFT's file."""
        found = {}
        wrapped: dict[str, list[str]] = {}  # modules, and parameters of modules, by what PEFT wraps
        for name, module in self.modules.items():
            wrapped.setdefault(name.rpartition(".")[0] if module.parameter else name, []).append(name)
        for holder, names in wrapped.items():
            for depth, name in enumerate(reversed(nested(names))):  # once more for each parameter
                module = self.modules[name]
                for suffix, (part, embedding) in _PARTS.items():
                    if part in module.parts and embedding in (None, module.embedding):
                        key = f"{PREFIX}{holder}{f'.{_WRAPPED}' * depth}.{suffix}"
                        found[key] = _in_file(module, part)
        for name, stored in self.full.items():
            holder, _, parameter = name.rpartition(".")
            inner = f".{_WRAPPED}" * len(wrapped.get(holder, ()))
            found[f"{PREFIX}{holder}{inner}.{parameter}"] = stored
        for name, rows in self.rows.items():
            found[f"{PREFIX}{name.removesuffix('.weight')}{_TOKENS}"] = rows.new
        return found


def load(path: str | os.PathLike[str]) -> Adapter:
    """Open an adapter's directory as PEFT writes it. All but the numbers is read and checked now.

    Parameters
    ----------
    path : path
        A directory with ``adapter_config.json`` and ``adapter_model.safetensors``.

    Returns
    -------
    Adapter
        A mapping from module paths to `AdapterModule`, with ``delta(name)``.

    Raises
    ------
    HubError
        If anything is missing, damaged, contradictory or not supported. Nothing is dropped in silence, and no
        pickle (``adapter_model.bin``) is ever opened.

    See Also
    --------
    save : Write one.

    Examples
    --------
    >>> import tempfile, lora_np as lnp
    >>> rng = np.random.default_rng(0)
    >>> model = lnp.inject(lnp.Linear.init(d_out=100, d_in=120, rng=rng), rank=8, alpha=16, rng=rng)
    >>> path = Path(tempfile.mkdtemp()) / "adapter"
    >>> lnp.adapters.save(model, path)
    >>> {name: (module.rank, module.scale) for name, module in load(path).items()}
    {'linear': (8, 2.0)}
    """
    folder = directory(path)
    path = inside(folder, peft.NAME)
    said = peft.parse(path, read_json(path))
    return interpret(safetensors.open(inside(folder, WEIGHTS)), said, folder)


def write(adapter: Adapter, folder: Path, *, dtype: str | None = None) -> None:
    """The two files of ``adapter``, one tensor in memory at a time; none if `load` would not read them."""
    if not (adapter.modules or adapter.rows):
        raise HubError("an adapter needs at least one module, got none")
    for name, module in adapter.modules.items():
        if not isinstance(name, str) or not _HEADS.isdisjoint(name.split(".")):
            raise HubError(f"a module must be called by its path, without lora_A and the like; got {name!r}")
        for part in ("A", "B"):
            if part not in module.parts:
                raise HubError(f"{name!r} has no {part}")
    tensors = adapter.tensors()
    infos = header(tensors, dtype)
    text = _checked_config(adapter, infos)
    with SafetensorsWriter(folder / WEIGHTS, infos, metadata=METADATA) as writer:
        for key, stored in tensors.items():
            writer.write(key, stored.read())
    (folder / peft.NAME).write_text(text, encoding="utf-8")


def _checked_config(adapter: Adapter, tensors: Mapping[str, TensorInfo]) -> str:
    """The text of the config, if `load` makes of it and of a file with these tensors what ``adapter`` is."""
    try:
        raw = json.loads(json.dumps(adapter.raw, allow_nan=False))
        said = peft.compose(raw, adapter._ranks_and_alphas())
        text = json.dumps(said.raw, indent=2, ensure_ascii=False) + "\n"
        text.encode()
    except HubError:
        raise
    except (TypeError, ValueError, RecursionError) as error:
        raise HubError(f"{peft.NAME}: the settings are not JSON: {error}") from None
    read = interpret(SafetensorsFile(Path(WEIGHTS), tensors, METADATA), said, Path())
    for name, module in adapter.modules.items():
        back = read.modules[name]
        for what in ("alpha", "rslora", "embedding", "kernel", "parameter", "shape"):
            mine, theirs = getattr(module, what), getattr(back, what)
            if mine != theirs:
                raise HubError(f"{name!r} has {what} {mine}, but the settings make it {theirs}")
        lost = sorted(module.parts.keys() - back.parts.keys())
        if lost:
            raise HubError(f"{name!r} has a {lost[0]}, for which PEFT has no place in such a module")
    for name, rows in adapter.rows.items():
        if name not in read.rows or read.rows[name].tokens != tuple(rows.tokens):
            raise HubError(f"{peft.NAME}: trainable_token_indices are not those of the adapter's rows")
    if read.full.keys() != adapter.full.keys():
        unread = ", ".join(map(repr, sorted(adapter.full.keys() - read.full.keys())))
        raise HubError(f"saved in full, but of a name that would not be read: {unread}")
    return text


def targeting(raw: Mapping[str, Any], modules: Mapping[str, AdapterModule]) -> dict[str, Any]:
    """``raw`` for exactly these modules, named by their full paths, each with factors of its own.

    A B that is not the one that MiCA froze is one to train.
    """
    left_out = {
        "layers_to_transform", "layers_pattern", "exclude_modules", "target_parameters", "velora_config",
        "ensure_weight_tying",
    }  # fmt: skip
    new = {key: content for key, content in raw.items() if key not in left_out}
    if raw.get("init_lora_weights") == "mica":
        new["init_lora_weights"] = True
    if parameters := sorted(name for name, module in modules.items() if module.parameter):
        new["target_parameters"] = parameters
    return {**new, "target_modules": sorted(modules.keys() - set(parameters))}


def interpret(file: SafetensorsFile, said: peft.AdapterConfig, folder: Path) -> Adapter:
    """The tensors of ``file`` by module and part, every key accounted for."""
    found: dict[str, dict[int, dict[str, Stored]]] = {}  # by the module, and how often it is wrapped
    embeddings: dict[tuple[str, int], bool] = {}
    rows: dict[str, TokenRows] = {}
    others: dict[str, Stored] = {}
    for key, info in file.tensors.items():
        if not key.startswith(PREFIX):
            raise HubError(f"{file.path}: {key!r} does not begin with {PREFIX!r}; PEFT would ignore it")
        name, tensor = key.removeprefix(PREFIX), Stored(info.dtype, info.shape, partial(file.read, key))
        for suffix in _PARTS:
            if name.endswith(f".{suffix}"):
                break
        else:
            others[name] = tensor
            continue
        part, embedding = _PARTS[suffix]
        holder, depth = name.removesuffix(f".{suffix}"), 0
        while holder.endswith(f".{_WRAPPED}"):
            holder, depth = holder.removesuffix(f".{_WRAPPED}"), depth + 1
        if _WRAPPED in holder.split("."):
            raise HubError(
                f"{file.path}: {key!r} adapts torch's MultiheadAttention, which reads its weights by itself "
                "and is not supported"
            )
        if embedding is not None and embeddings.setdefault((holder, depth), embedding) != embedding:
            raise HubError(f"{file.path}: {holder!r} has factors of a linear layer and of an embedding")
        found.setdefault(holder, {}).setdefault(depth, {})[part] = tensor
    modules: dict[str, AdapterModule] = {}
    for holder, layers in found.items():
        for depth, parts in layers.items():
            name, parameter = _named(file.path, holder, depth, len(layers), said)
            if name in modules or (depth and not parameter):
                raise HubError(f"{file.path}: {holder!r} is adapted a second time, which PEFT does not do")
            embedded = embeddings.get((holder, depth), False)
            modules[name] = _module(file.path, name, parts, said, embedding=embedded, parameter=parameter)
    full: dict[str, Stored] = {}
    for key, tensor in others.items():
        if key.endswith(_TOKENS):
            name = key.removesuffix(_TOKENS)
            rows[f"{name}.weight"] = _rows(file.path, name, said, tensor)
            continue
        name = _full_name(file.path, key, said, found)
        if name in full:
            raise HubError(f"{file.path}: {PREFIX + key!r} gives {name!r} a second time")
        full[name] = tensor
    if not (modules or rows):
        raise HubError(f"{file.path}: holds no LoRA, no key such as '{PREFIX}<module>.lora_A.weight'")
    if said.raw.get("trainable_token_indices") and not rows:
        raise HubError(f"{file.path}: has no rows for the config's trainable_token_indices")
    raw = {**said.raw, "use_bdlora": None} if said.raw.get("use_bdlora") else said.raw  # in full now
    return Adapter(modules, full, raw, folder, rows)


def nested(names: Collection[str]) -> list[str]:
    """Parameters of one module in the order in which PEFT wraps it: that in which the model registers them.

    A file does not say it. Every model of transformers 5 registers what leads into its experts before what
    leads out of them.
    """
    return sorted(names, key=lambda name: (name.rpartition(".")[2].startswith("down"), name))


def _named(path: Path, holder: str, depth: int, wraps: int, said: peft.AdapterConfig) -> tuple[str, bool]:
    """The name by which a wrapped module's factors go, and whether it is that of a parameter."""
    if said.targets(holder):
        return holder, False
    names = nested(said.parameters_of(holder))
    if not names:
        if said.raw.get("ensure_weight_tying"):  # a head that follows the embedding without being named
            return holder, False
        raise HubError(f"{path}: {holder!r} is not among the config's target_modules; PEFT would ignore it")
    if len(names) != wraps or depth >= wraps:
        raise HubError(
            f"{path}: {holder!r} has factors of {wraps} parameters, but target_parameters name "
            f"{len(names)}: {', '.join(names)}"
        )
    return names[::-1][depth], True


def _module(
    path: Path,
    name: str,
    parts: dict[str, Stored],
    said: peft.AdapterConfig,
    *,
    embedding: bool,
    parameter: bool,
) -> AdapterModule:
    """A module of these tensors, its factors as stacks of maps, if they fit each other and the config."""
    for part in ("A", "B"):
        if part not in parts:
            raise HubError(f"{path}: {name!r} has no lora_{part}")
    for part, tensor in parts.items():
        if tensor.dtype not in FLOATS:
            floats = f"{', '.join(FLOATS[:-1])} or {FLOATS[-1]}"
            raise HubError(f"{path}: {part} of {name!r} is stored as {tensor.dtype}, not as {floats}")
    rank, alpha = said.rank_and_alpha(name)
    for part, blocks in said.blocks_of(name).items():
        parts[part] = _expanded(path, name, parts[part], blocks)
    parts, kernel = _as_maps(parts, rank if parameter else 0)
    wrong = misfit(parts, f" of {name!r}")
    if wrong:
        raise HubError(f"{path}: {wrong}")
    rslora = bool(said.raw.get("use_rslora"))
    module = AdapterModule(parts, alpha, rslora, embedding, kernel, parameter)
    if module.rank != rank:
        raise HubError(f"{path}: {name!r} has rank {module.rank}, but the config says {rank}")
    for part, flag in (("magnitude", "use_dora"), ("bias", "lora_bias")):
        wanted = bool(said.raw.get(flag))
        if (part in parts) != wanted:
            has = "a" if part in parts else "no"
            raise HubError(f"{path}: {name!r} has {has} {part}, but {flag} is {str(wanted).lower()}")
    return module


def _expanded(path: Path, name: str, factor: Stored, blocks: int) -> Stored:
    """A factor of BD-LoRA with its blocks on the diagonal; PEFT stores them one below the other."""
    if len(factor.shape) != 2 or factor.shape[0] % blocks:
        raise HubError(f"{path}: factors of {name!r} must be {blocks} equal blocks, got {factor.shape}")
    rows, columns = factor.shape

    def read() -> Array:
        below = factor.read()
        full = np.zeros((blocks, rows // blocks, blocks, columns), below.dtype)
        full[range(blocks), :, range(blocks)] = below.reshape(blocks, rows // blocks, columns)
        return full.reshape(rows, blocks * columns)

    return Stored(factor.dtype, (rows, blocks * columns), read, blocks)


def _as_maps(parts: Mapping[str, Stored], rank: int) -> tuple[dict[str, Stored], tuple[int, ...]]:
    """Tensors as in the file, as A (r, k) and B (d, r) or stacks of them, and the kernel of a convolution.

    With a ``rank``, the factors may be those of several experts: PEFT has the rows of A by expert, and the
    columns of B by direction.
    """
    found, A, B = dict(parts), parts["A"].shape, parts["B"].shape
    kernel = A[2:] if len(A) == len(B) > 2 and set(B[2:]) == {1} else ()
    if kernel and 0 not in (*A, *B) and A[0] % B[1] == 0 and B[0] % (A[0] // B[1]) == 0:
        groups = (A[0] // B[1],) if A[0] > B[1] else ()
        n = prod(groups)
        found["A"] = _reshaped(parts["A"], (*groups, A[0] // n, prod(A[1:])))
        found["B"] = _reshaped(parts["B"], (*groups, B[0] // n, B[1]))
        if "magnitude" in parts and parts["magnitude"].shape == (1, B[0], *B[2:]):
            found["magnitude"] = _reshaped(parts["magnitude"], B[:1])
    elif rank and len(A) == len(B) == 2 and A[0] == B[1] > rank and A[0] % rank == 0:
        n = A[0] // rank
        found["A"] = _reshaped(parts["A"], (n, rank, A[1]))
        found["B"] = _reshaped(parts["B"], (B[0], rank, n), (2, 0, 1))
    return found, kernel


def _in_file(module: AdapterModule, part: str) -> Stored:
    """One tensor of a module as PEFT shapes it: the reverse of `_as_maps`."""
    tensor, ones = module.parts[part], (1,) * len(module.kernel)
    if part == "A" and module.kernel:
        return _reshaped(tensor, (module.rank, *module.shape[1:]))
    if part == "B" and module.kernel:
        return _reshaped(tensor, (module.shape[0], module.directions, *ones))
    if part == "magnitude" and module.kernel:
        return _reshaped(tensor, (1, *tensor.shape, *ones))
    if part == "A" and module.maps > 1:
        return _reshaped(tensor, (module.maps * module.directions, tensor.shape[-1]))
    if part == "B" and module.maps > 1:
        n, d, r = tensor.shape
        return Stored(tensor.dtype, (d, r * n), lambda: tensor.read().transpose(1, 2, 0).reshape(d, r * n))
    return tensor


def _reshaped(tensor: Stored, shape: tuple[int, ...], axes: tuple[int, ...] | None = None) -> Stored:
    """A tensor in another shape, its axes then in another order."""
    axes = axes or tuple(range(len(shape)))
    turned = tuple(shape[axis] for axis in axes)
    return Stored(
        tensor.dtype, turned, lambda: np.ascontiguousarray(tensor.read().reshape(shape).transpose(axes))
    )


def _rows(path: Path, name: str, said: peft.AdapterConfig, tensor: Stored) -> TokenRows:
    """The rows that replace some of an embedding's."""
    tokens = said.tokens_of(name)
    if tokens is None:
        raise HubError(f"{path}: {name!r} is not among the config's trainable_token_indices")
    if len(tensor.shape) != 2 or tensor.shape[0] != len(tokens) or tensor.dtype not in FLOATS:
        raise HubError(
            f"{path}: {name!r} must have {len(tokens)} rows, one for each of trainable_token_indices, "
            f"got {tensor.dtype} {tensor.shape}"
        )
    return TokenRows(tokens, tensor)


def _full_name(path: Path, key: str, said: peft.AdapterConfig, adapted: Collection[str]) -> str:
    """The base model's name of a parameter that is saved in full, if the config accounts for it."""
    *inner, parameter = key.split(".")
    if parameter == "bias" and inner[-1:] == ["modules_to_save"]:
        raise HubError(f"{path}: {PREFIX + key!r} gives a bias a second time: trained, and saved in full")
    if {*_HEADS, "modules_to_save", "token_adapter"} & {*inner[1:]}:
        raise HubError(f"{path}: {PREFIX + key!r} is not a key that PEFT writes for a LoRA")
    module = ".".join(inner)
    bare = re.sub(rf"(\.{_WRAPPED})+$", "", module)
    replaced = bare != module and bare in adapted
    module = bare if replaced else module
    trained_bias = parameter == "bias" and said.raw.get("bias", "none") != "none"
    embedding = parameter == "weight" and module.rpartition(".")[2] in _EMBEDDING_LAYERS
    if not module or not (replaced or trained_bias or embedding or said.saves(module)):
        raise HubError(f"{path}: {PREFIX + key!r} belongs to no LoRA, modules_to_save or trained bias")
    return f"{module}.{parameter}"
