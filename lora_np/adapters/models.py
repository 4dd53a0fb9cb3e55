"""Between adapters on the disk and our own models: `save` and `attach`."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace as changed
from typing import Any, TypeVar

import numpy as np

from lora_np._checks import Array
from lora_np.adapters import config as settings
from lora_np.adapters.files import AdapterError, replacing
from lora_np.adapters.peft_format import FLOATS, Adapter, Module, Stored, at_least_single, held, write
from lora_np.autograd import Tensor, value
from lora_np.lora import LoRALinear
from lora_np.nn import Linear, freeze, replace, trainable
from lora_np.nn.tree import walk

T = TypeVar("T")

_PARAMETERS = {"W": "weight", "b": "bias"}  # our names of a layer's arrays, and torch's


def save(
    source: Any,
    path: str | os.PathLike[str],
    *,
    base: str | None = None,
    names: Callable[[str], str] | None = None,
    dtype: str | None = None,
    force: bool = False,
) -> None:
    """Write the adapters of a model, or an `Adapter`, as a directory that PEFT loads.

    Parameters
    ----------
    source : tree or Adapter
        A model made by `lora_np.inject` or `attach`. Whatever else in it is trained is saved in full, as
        PEFT's ``modules_to_save``.
    path : path
        The directory to make.
    base : str, optional
        The name of the base model, noted in the config for whoever loads the adapter.
    names : callable, optional
        From a path in the model to PEFT's name of that module; by default the same. A model that is a single
        layer has no path, and becomes ``"linear"``.
    dtype : {"F64", "F32", "F16", "BF16"}, optional
        Round the numbers to this; by default they are kept as they are.
    force : bool
        Whether to replace an adapter that stands there.

    Raises
    ------
    AdapterError
        If the target exists (unless ``force``), or the model has parts that the format cannot hold.

    Notes
    -----
    The directory appears when it is whole. A crash at any moment leaves the old one or none.

    Examples
    --------
    >>> import tempfile, lora_np as lnp
    >>> from pathlib import Path
    >>> rng = np.random.default_rng(0)
    >>> model = lnp.inject(lnp.Linear.init(d_out=100, d_in=120, rng=rng), rank=8, rng=rng)
    >>> path = Path(tempfile.mkdtemp()) / "adapter"
    >>> save(model, path, dtype="F32")
    >>> sorted(file.name for file in path.iterdir())
    ['adapter_config.json', 'adapter_model.safetensors']
    """
    if dtype is not None and dtype not in FLOATS:
        raise ValueError(f"dtype must be one of {', '.join(FLOATS)}, got {dtype!r}")
    adapter = source if isinstance(source, Adapter) else adapter_of(source, names=names)
    if base is not None:
        adapter = changed(adapter, raw={**adapter.raw, "base_model_name_or_path": base})
    with replacing(path, force=force, inputs=[adapter.path] if adapter.path else []) as stage:
        write(adapter, stage, dtype=dtype)


def attach(model: T, adapter: Adapter, *, names: Callable[[str], str] | None = None) -> T:
    """The same model, frozen, with the adapter beside its layers; A and B are trainable again.

    Parameters
    ----------
    model : tree
        A model of ours without adapters; it is not changed.
    adapter : Adapter
    names : callable, optional
        As in `save`: from a path in the model to the name in the adapter.

    Returns
    -------
    tree
        `lora_np.freeze` it for use, or `lora_np.fit` it to train on.

    Raises
    ------
    AdapterError
        If the adapter names a module that the model does not have, or does not fit it.

    Examples
    --------
    >>> import lora_np as lnp
    >>> adapter = Adapter({"linear": Module.of(A=np.ones((1, 3)), B=np.ones((2, 1)), alpha=1.0)})
    >>> model = attach(lnp.Linear(np.zeros((2, 3))), adapter)
    >>> lnp.freeze(model)(np.ones(3))
    array([3., 3.])
    """
    if any(isinstance(node, LoRALinear) for _, node in walk(model)):
        raise ValueError("this model has LoRA adapters already: merge it first, or start from the base model")
    named = _namer(names)
    waiting = {*adapter, *adapter.full}

    def adapt(path: str, layer: Linear) -> Linear | LoRALinear:
        name = named(path)
        for ours, theirs in _PARAMETERS.items():
            key = f"{name}.{theirs}"
            if key in adapter.full:
                layer = changed(layer, **{ours: _replaced(key, adapter.full[key], getattr(layer, ours))})
                waiting.discard(key)
        if name not in adapter:
            return layer
        waiting.discard(name)
        return _adapted(name, layer, adapter[name])

    result = replace(freeze(model), Linear, adapt)
    if waiting:
        known = [named(path) for path, node in walk(model) if isinstance(node, Linear)]
        raise AdapterError(f"the model has no {_listed(sorted(waiting))}; its layers: {_listed(known)}")
    return result


def adapter_of(model: Any, *, names: Callable[[str], str] | None = None) -> Adapter:
    """The adapters in a model of ours, and whatever else in it is trained."""
    named = _namer(names)
    layers = {path: node for path, node in walk(model) if isinstance(node, LoRALinear)}
    if not layers:
        raise AdapterError("this model has no LoRA adapters to save")
    modules = {}
    for path, layer in layers.items():
        name = named(path)
        if name in modules:
            raise AdapterError(f"names gives {name!r} to two layers; each needs its own")
        modules[name] = Module.of(A=value(layer.A), B=value(layer.B), alpha=layer.alpha)
    full, saved, bias = _trained_in_full(model, layers, named)
    raw = {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": None,
        "inference_mode": True,
        "lora_dropout": max(layer.dropout for layer in layers.values()),
        "bias": bias,
        "modules_to_save": saved or None,
    }
    return Adapter(modules, full, settings.with_targets(raw, modules))


def _trained_in_full(
    model: Any, layers: Mapping[str, LoRALinear], named: Callable[[str], str]
) -> tuple[dict[str, Stored], list[str], str]:
    """Trained parameters outside of adapters; the modules that are saved whole for it; PEFT's ``bias``."""
    own = {id(leaf) for layer in layers.values() for leaf in (layer.A, layer.B)}
    nodes = dict(walk(model))
    full: dict[str, Stored] = {}
    saved: list[str] = []
    bias = "none"
    for path, leaf in trainable(model):
        if id(leaf) in own:
            continue
        holder, _, field = path.split(" = ")[0].rpartition(".")
        adapted = holder.removesuffix(".base") if holder != "base" else ""
        name = named(adapted if adapted in layers else holder)
        if field == "b" and not isinstance(nodes[holder].W, Tensor):
            full[f"{name}.bias"] = held(value(leaf))
            bias = "lora_only" if adapted in layers and bias != "all" else "all"
        elif adapted in layers:
            raise AdapterError(f"{path}: the weight under an adapter is trained too, which PEFT can not hold")
        else:
            # PEFT reads a module that is saved in full with all its parameters, trained or not.
            saved.append(name)
            for ours, array in vars(nodes[holder]).items():
                if isinstance(array, (Tensor, np.ndarray)):
                    full[f"{name}.{_PARAMETERS.get(ours, ours)}"] = held(value(array))
    return full, sorted(set(saved)), bias


def _adapted(name: str, layer: Linear, module: Module) -> LoRALinear:
    if module.embedding or module.rslora or not {*module.parts} <= {"A", "B"}:
        raise AdapterError(f"{name!r}: only plain LoRA on linear layers can be attached to a model of ours")
    if module.shape != layer.W.shape:
        raise AdapterError(f"{name!r}: B A of shape {module.shape} does not fit a weight of {layer.W.shape}")
    dtype = layer.W.dtype
    return LoRALinear(layer, Tensor(module.A.astype(dtype)), Tensor(module.B.astype(dtype)), module.alpha)


def _replaced(key: str, stored: Stored, old: Tensor | Array | None) -> Tensor:
    new = at_least_single(stored.read())
    if old is None or new.shape != old.shape:
        has = "none" if old is None else old.shape
        raise AdapterError(f"{key!r} of shape {new.shape} does not fit the model's {has}")
    return Tensor(new.astype(old.dtype))


def _namer(names: Callable[[str], str] | None) -> Callable[[str], str]:
    return names or (lambda path: path or "linear")


def _listed(names: list[str]) -> str:
    shown = ", ".join(map(repr, names[:5]))
    return f"{shown} and {len(names) - 5} more" if len(names) > 5 else shown or "none"
