"""Save the adapters of models made with lora_np, and attach adapters to such models."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import is_dataclass, replace as changed
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from lora_np import lora
from lora_np.adapters.adapter import (
    FILES,
    Adapter,
    AdapterModule,
    Source,
    Stored,
    TokenRows,
    check_init,
    in_memory,
)
from lora_np.adapters.base_models import check_base
from lora_np.adapters.formats import base_of, load, new_adapter, without_copies, write
from lora_np.adapters.peft_format import only_lora, targeting
from lora_np.autograd import Tensor, value
from lora_np.checks import Array, StrPath, close_names, number, refuse
from lora_np.files import FileError, errors_at
from lora_np.models import OpenModel, decoder_of, family_names, open_base, peft
from lora_np.nn import LEAVES, Embedding, Linear, Named, freeze, join, replace, trainable, walk
from lora_np.quantise import Quantised

T = TypeVar("T")
Names = Callable[[str], str]

_PARAMETERS = {"W": "weight", "b": "bias"}  # torch's names for a layer's arrays


def save(
    source: Any,
    path: StrPath,
    *,
    base: str | None = None,
    names: Names | None = None,
    dtype: str | None = None,
    force: bool = False,
) -> None:
    """Write a model's adapters, or an `Adapter`, as a PEFT directory or a single file.

    Parameters
    ----------
    source : tree or Adapter
        A model made by `lora_np.inject` or `attach`. Other trained parameters in it are saved in
        full, as PEFT's ``modules_to_save``.
    path : path
        The directory to make; or a file that ends in ``.gguf``, for llama.cpp's ``--lora``, or in
        ``.safetensors``, as kohya's sd-scripts writes it.
    base : str, optional
        The name of the base model, which is recorded in the config for programs that load the
        adapter.
    names : callable, optional
        A function from a path in the model to PEFT's name of that module; by default they are the
        same. A model that is a single layer has no path, and becomes ``"linear"``.
    dtype : {"float64", "float32", "float16", "bfloat16"}, optional
        Round the parameters to this dtype; by default they are not rounded.
    force : bool
        Whether to replace an existing adapter. A directory that contains anything else is refused;
        a README.md is kept.

    Raises
    ------
    FileError
        If the model has parts that the format cannot express: `load` reads back exactly what was
        saved.
    ValueError
        If the target exists (unless ``force``), or an `Adapter` comes with ``names``.

    See Also
    --------
    load : Read an adapter.

    Notes
    -----
    The directory appears only once it is complete: a crash leaves the old one or none.

    Variants that change W0 (PiSSA, OLoRA) cannot be saved, since the file would not contain the
    changed weights: save the result of `lora_np.lora.rebase` instead.

    Examples
    --------
    >>> import tempfile, lora_np as lnp
    >>> from pathlib import Path
    >>> rng = np.random.default_rng(0)
    >>> model = lnp.inject(lnp.Linear.init(d_out=100, d_in=120, rng=rng), rank=8, rng=rng)
    >>> path = Path(tempfile.mkdtemp()) / "adapter"
    >>> save(model, path, dtype="float32")
    >>> sorted(file.name for file in path.iterdir())
    ['adapter_config.json', 'adapter_model.safetensors']
    """
    ready = isinstance(source, Adapter)
    if ready and names:
        refuse("names is for a model, and an Adapter has its names already")
    adapter = source if ready else adapter_of(source, names=names)
    config = None if ready else getattr(source, "config", None)
    if base is not None:
        adapter = changed(adapter, raw={**adapter.raw, "base_model_name_or_path": base})
    # do not write copies of base weights to GGUF and kohya files, because programs that read these
    # files take the weights from the base
    if Path(path).suffix in FILES:
        if ready:  # remove only copies that equal the base's weights
            adapter = without_copies(adapter, base_of(adapter, None))
        else:
            full = {name: x for name, x in adapter.full.items() if name not in adapter.copies}
            adapter = changed(adapter, full=full)
    with new_adapter(path, force=force, inputs=[adapter]) as (stage, _):
        write(adapter, stage, base=config and open_base(config), dtype=dtype)


def attach(model: T, adapter: Source, *, names: Names | None = None, any_base: bool = False) -> T:
    """Return a frozen copy of the model with the adapter's trainable parameters attached.

    Parameters
    ----------
    model : tree
        A model made with lora_np, without adapters; it is not changed.
    adapter : path or Adapter
        An adapter in any format that `load` reads, or its result.
    names : callable, optional
        As in `save`, a function from a path in the model to the module's name in the adapter.
    any_base : bool
        Whether to continue if the model's config shows another kind of base than the adapter's.

    Returns
    -------
    tree
        The adapted model: freeze it for use (`lora_np.freeze`), or continue its training
        (`lora_np.fit`).

    Raises
    ------
    FileError
        If the adapter names a module that the model does not have, has updates of other shapes, or
        is for another kind of base.

    See Also
    --------
    save : Write the adapters of a model.

    Examples
    --------
    >>> import lora_np as lnp
    >>> adapter = Adapter({"linear": AdapterModule.of(A=np.ones((1, 3)), B=np.ones((2, 1)),
    ...     alpha=1.0)})
    >>> model = attach(lnp.Linear(np.zeros((2, 3))), adapter)
    >>> lnp.freeze(model)(np.ones(3))
    array([3., 3.])
    """
    config = getattr(model, "config", None)
    config = config if isinstance(config, Mapping) else None
    base = OpenModel(Path("this model"), config, on_disk=False) if config else None
    adapter = only_lora(load(adapter, base=base))
    if any(isinstance(node, lora.ADAPTED) for _, node in walk(model)):
        raise ValueError(
            "this model has LoRA adapters already: merge it first, or start from the base model"
        )
    if base and not any_base:
        check_base(base, adapter)
    check_init(adapter, with_base=True)
    with errors_at(adapter):
        for name, module in adapter.items():
            number(f"alpha of {name!r}", module.alpha, open_minimum=True)
    named = names or _own_name
    waiting, transposed = {*adapter, *adapter.full, *adapter.rows}, _transposed_layers(model)
    frozen = _on_their_base(freeze(model), adapter, named)
    nodes = [(named(path), node) for path, node in walk(frozen) if _arrays(node)]
    build = _Building(
        adapter, {id(node.W): name for name, node in nodes if isinstance(node, Embedding)}
    )

    def adapt(path: str, layer: Any) -> Any:
        name = named(path)
        for field, parameter in _arrays(layer).items():
            key, old = f"{name}.{parameter}", getattr(layer, field)
            if key in adapter and adapter[key].parameter:
                layer = changed(layer, **{field: build.experts(key, old)})
            if key in adapter.full and (parameter != "weight" or name not in adapter):
                new = build.replaced(key, old, field == "W" and path in transposed)
                layer = changed(layer, **{field: new})
            waiting.difference_update({key} - adapter.rows.keys())
        waiting.discard(name)
        rowed = build.with_rows(name, layer)
        if rowed is not layer:
            waiting.discard(f"{name}.weight")
        if name not in adapter:
            return rowed
        adapter[name].check_everywhere(adapter)
        if rowed is not layer:
            raise FileError(
                f"{name!r} is adapted and has trained rows, which no layer here combines: merge it"
                " into the base first"
            )
        return build.adapted(name, layer)

    holders = {key.rpartition(".")[0] for key in (*adapter.full, *adapter)}
    kinds = {type(node) for name, node in nodes if name in holders} | {Linear, Embedding}
    result = replace(frozen, tuple(kinds), adapt)
    if waiting:
        missing, known = min(waiting), [name for name, _ in nodes]
        raise FileError(f"the model has no {missing!r}{close_names(missing, known)}")
    return result


def _arrays(node: Any) -> dict[str, str]:
    """Map each array field of a layer to torch's name for the array."""
    own = vars(node) if is_dataclass(node) else {}
    names = _PARAMETERS | dict(node.names if isinstance(node, Named) else {})
    return {
        field: names.get(field, field) for field, array in own.items() if isinstance(array, LEAVES)
    }


def _on_their_base(model: T, adapter: Adapter, named: Names) -> T:
    """Return a frozen model whose base weights are replaced by the adapter's copies, if any."""
    theirs = {}
    for path, node in walk(model):
        key = f"{named(path)}.weight"
        if isinstance(node, (Linear, Embedding)) and named(path) in adapter and key in adapter.full:
            new = _fitting(key, adapter.full[key], node.W)
            if isinstance(node.W, np.ndarray) and not np.array_equal(new, node.W):
                theirs[id(node.W)] = new
    return replace(model, np.ndarray, lambda _, array: theirs.get(id(array), array))


def adapter_of(model: Any, *, names: Names | None = None) -> Adapter:
    """Collect the adapters and the other trained parameters of a lora_np model."""
    named = names or _own_name
    adapted = {path: node for path, node in walk(model) if isinstance(node, lora.ADAPTED)}
    inner = {
        join(path, "lora") for path, node in adapted.items() if isinstance(node, lora.DoRALinear)
    }
    layers = {path: node for path, node in adapted.items() if path not in inner}
    if not layers:
        raise FileError("this model has no LoRA adapters to save")
    modules: dict[str, AdapterModule] = {}
    # The keys are ids of arrays, so that rows shared by an embedding and its tied head occur once.
    rows: dict[int, tuple[str, TokenRows]] = {}
    full, saved, bias, ties = _trained_in_full(model, layers, named)
    biased = any(getattr(layer, "c", None) is not None for layer in layers.values())
    for path, layer in layers.items():
        name = named(path)
        if name in modules:
            raise FileError(f"names= gives two layers the name {name!r}; each needs its own")
        if isinstance(getattr(layer, "base", None), lora.Residual):
            how = "save lora_np.lora.rebase(model, original)"
            raise FileError(f"the base of {name} is not W0 any more (PiSSA, OLoRA): {how}")
        if isinstance(layer, lora.TrainableTokens):
            rows.setdefault(
                id(layer.rows), (name, TokenRows(layer.tokens, in_memory(value(layer.rows))))
            )
            continue
        core = layer.lora if isinstance(layer, lora.DoRALinear) else layer
        modules[name] = _module_of(name, layer, core, biased=biased)
        if isinstance(layer, lora.LoRAExperts):
            continue
        if name.rpartition(".")[2] in peft.EMBEDDINGS and isinstance(core.base.W, np.ndarray):
            # also save the base weight, as PEFT does, because the vocabulary may have grown
            full[f"{name}.weight"] = in_memory(core.base.W)
    dropout = max(getattr(node, "dropout", 0.0) for _, node in walk(model))
    dora = Adapter(modules).has_magnitudes
    raw = {**peft.FRESH, "lora_dropout": dropout, "use_dora": dora, "bias": bias}
    unusual = {
        "modules_to_save": saved,
        "lora_bias": biased,
        "ensure_weight_tying": ties,
        "trainable_token_indices": {name: [*trained.tokens] for name, trained in rows.values()},
    }
    settings = {key: setting for key, setting in unusual.items() if setting}
    replaced = {f"{name}.weight": trained for name, trained in rows.values()}
    return Adapter(modules, full, targeting(raw, modules) | settings, rows=replaced)


def _module_of(name: str, layer: Any, core: Any, *, biased: bool) -> AdapterModule:
    """Convert a layer to a module; ``core`` is the layer or, in a DoRA, the LoRA inside it."""
    if isinstance(core, lora.LoRAExperts):
        parts = {"A": in_memory(value(core.A)), "B": in_memory(value(core.B))}
        return AdapterModule(parts, core.alpha, parameter=True)
    if not isinstance(core, (lora.LoRALinear, lora.LoRAEmbedding)):
        raise FileError(
            f"{name} is a {type(layer).__name__}, which no adapter file can express: merge it"
        )
    m = None if core is layer else value(layer.m)
    A, B, c = value(core.A), value(core.B), None
    embedding = isinstance(core.base, Embedding)
    if isinstance(layer, lora.LoRAEmbedding) and not embedding:
        A, B = B.T, A.T  # a tied head's factors are the embedding's, transposed

    # In PEFT, either all layers or no layers have a bias of B, so a missing bias becomes zeros.
    elif biased and isinstance(layer, lora.LoRALinear):
        c = np.zeros(len(B), B.dtype) if layer.c is None else value(layer.c)
    return AdapterModule.of(A=A, B=B, alpha=core.alpha, magnitude=m, bias=c, embedding=embedding)


def _own_name(path: str) -> str:
    return path or "linear"


def _trained_in_full(
    model: Any, layers: Mapping[str, Any], named: Names
) -> tuple[dict[str, Stored], list[str], str, bool]:
    """Collect the parameters trained outside the adapters, and PEFT's settings for them.

    Returns the parameters, ``modules_to_save``, ``bias`` and ``ensure_weight_tying``.
    """
    own = {id(leaf) for _, leaf in lora.adapter_leaves(model)}
    owner = {join(path, part): path for path in layers for part in ("base", "lora.base")}
    owner |= dict(zip(layers, layers, strict=True))
    nodes, transposed = dict(walk(model)), _transposed_layers(model)
    full: dict[str, Stored] = {}
    saved: set[str] = set()
    biased: set[bool] = set()  # True if adapted layers train biases, False if other layers do
    ties = any(
        isinstance(x, lora.LoRAEmbedding) and isinstance(x.base, Linear) for x in layers.values()
    )
    for path, leaf in trainable(model):
        if id(leaf) in own:
            continue
        places = [place.rpartition(".")[::2] for place in path.split(" = ")]
        holder, field = places[0]
        name = named(owner.get(holder, holder))
        if field == "b" and (
            holder in owner or not isinstance(getattr(nodes[holder], "W", None), Tensor)
        ):
            full[f"{name}.bias"] = in_memory(value(leaf))
            biased.add(holder in owner)
        elif holder in owner:
            raise FileError(
                f"{path}: PEFT's format cannot express a weight that is both adapted and trained"
            )
        else:
            # save every parameter of the module, trained or not, as PEFT's modules_to_save requires
            sharing = {id(nodes[holder]): holder for holder, _ in reversed(places)}
            ties = ties or len(sharing) > 1
            for holder in sharing.values():
                saved.add(named(holder))
                for ours, theirs in _arrays(nodes[holder]).items():
                    array = value(getattr(nodes[holder], ours))
                    array = array.T if ours == "W" and holder in transposed else array
                    full[f"{named(holder)}.{theirs}"] = in_memory(array)
    bias = "all" if False in biased else "lora_only" if biased else "none"
    return full, sorted(saved), bias, ties


class _Building:
    """A builder of a model's adapted layers, which shares tensors between tied layers."""

    def __init__(self, adapter: Adapter, tables: Mapping[int, str]) -> None:
        self.adapter = adapter
        self.embeddings = tables  # maps the id of an embedding's array to its name
        self.tables = tables if adapter.raw.get("ensure_weight_tying") else {}
        self.made: dict[str | int | tuple[str, str], Tensor] = {}

    def tensor(self, place: str | int | tuple[str, str], array: Array) -> Tensor:
        """Return the earlier tensor for ``place`` if it equals ``array``, otherwise a new one."""
        made = self.made.setdefault(place, Tensor(array))
        return made if np.array_equal(value(made), array) else Tensor(array)

    def replaced(self, key: str, old: Array, transposed: bool) -> Tensor:
        """Return the trainable tensor that replaces ``old``; layers that are tied may share it."""
        place = id(old) if id(old) in self.tables else key
        return self.tensor(place, _fitting(key, self.adapter.full[key], old, transposed))

    def factors(self, name: str, dtype: npt.DTypeLike) -> tuple[Tensor | Array, Tensor]:
        """Return B (d, r) and A (r, k) of a module; B is frozen if MiCA trained the adapter."""
        B, A = (getattr(self.adapter[name], part).astype(dtype) for part in "BA")
        frozen = self.adapter.raw.get("init_lora_weights") == "mica"
        return B if frozen else self.tensor((name, "B"), B), self.tensor((name, "A"), A)

    def experts(self, key: str, W: Array) -> lora.LoRAExperts:
        """Return the stacked weights of a layer's experts with the adapter's factors."""
        module = self.adapter[key]
        if module.shape != W.shape or W.ndim != 3:
            raise FileError(
                f"{key!r} adapts a parameter of shape {module.shape}: attach needs experts,"
                f" (experts, d, k), of the model's shape {W.shape}"
            )
        A, B = (Tensor(part.astype(W.dtype)) for part in (module.A, module.B))
        return lora.LoRAExperts(W, A, B, module.scale * module.rank)

    def with_rows(self, name: str, layer: T) -> T | lora.TrainableTokens:
        """Attach the trained rows of a layer or of its tied embedding, if the adapter has any."""
        own = name
        if f"{name}.weight" not in self.adapter.rows:
            own = self.embeddings.get(id(getattr(layer, "W", None)), "")
        if not isinstance(layer, (Linear, Embedding)) or f"{own}.weight" not in self.adapter.rows:
            return layer
        tokens, new = self.adapter.rows[f"{own}.weight"]
        vocab, d = layer.W.shape
        if (width := new.shape[1]) != d or max(tokens) >= vocab:
            raise FileError(
                f"{own!r} of shape {(vocab, d)} has no row {max(tokens)} of {width} entries"
            )
        rows = new.single().astype(layer.W.dtype)
        return lora.TrainableTokens(layer, tokens, self.tensor((own, "rows"), rows))

    def adapted(self, name: str, layer: Any) -> Any:
        """Return a trainable layer: ``layer`` with the factors of the adapter's module ``name``."""
        module, dtype = self.adapter[name], layer.W.dtype
        d, k = reversed(layer.W.shape) if module.embedding else layer.W.shape
        if module.embedding != isinstance(layer, Embedding) or module.shape != (d, k):
            kind = "an embedding" if module.embedding else "a linear layer"
            here = f"{type(layer).__name__} {layer.W.shape}"
            raise FileError(
                f"{name!r} adapts {kind} of shape {module.shape}, which does not fit {here}"
            )
        alpha = module.scale * module.rank  # lora_np's layers compute their scale as alpha / r
        B, A = self.factors(name, dtype)
        if module.embedding:
            if module.magnitude is not None:
                raise FileError(
                    f"{name!r}: DoRA on an embedding is not supported in a model of lora_np"
                )
            return lora.LoRAEmbedding(layer, A, B, alpha)
        table = self.tables.get(id(layer.W), "")
        if table in self.adapter:
            of_B, of_A = self.factors(table, dtype)
            if np.array_equal(value(of_B), value(A).T) and np.array_equal(value(of_A), value(B).T):
                return lora.LoRAEmbedding(layer, of_A, of_B, alpha)
        if init := self.adapter.init:
            B0, A0 = lora.STARTS[init](value(layer.W).astype(np.float64), module.rank, module.scale)
            layer = lora.Residual(
                (value(layer.W) - module.scale * (B0 @ A0)).astype(dtype), layer.b
            )
        dropout = float(self.adapter.raw.get("lora_dropout") or 0.0)
        if module.magnitude is None:
            c = None if module.bias is None else Tensor(module.bias.astype(dtype))
            return lora.LoRALinear(layer, A, B, alpha, dropout, c)
        direction = lora.LoRALinear(changed(layer, b=None), A, B, alpha, dropout)
        return lora.DoRALinear(direction, Tensor(module.magnitude.astype(dtype)), layer.b)


def _transposed_layers(model: object) -> Collection[str]:
    """List the names of layers whose weights transformers stores as (k, d), as in GPT-2."""
    config = getattr(model, "config", None)
    if not isinstance(config, Mapping) or config.get("model_type") not in family_names():
        return ()
    return {module.name for module in decoder_of(config).spec.modules if module.transposed}


def _fitting(
    key: str, stored: Stored, old: Array | Tensor | Quantised, transposed: bool = False
) -> Array:
    """Read the tensor that replaces ``old``, check its shape, and convert it to ``old.dtype``."""
    new = stored.single().T if transposed else stored.single()
    if new.shape != old.shape:
        raise FileError(f"{key!r} of shape {new.shape} does not fit the model's {old.shape}")
    return new.astype(old.dtype)
