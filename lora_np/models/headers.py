"""Open a base model: read weights under transformers' names, and derive modules from headers."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache, cached_property
from math import prod
from pathlib import Path
from typing import get_args

import numpy as np

from lora_np import hub
from lora_np.checks import Array, StrPath
from lora_np.files import FileError, Json, errors_at, read_json
from lora_np.hub import ModelDirectory
from lora_np.models.dialects import Dialects, renamed
from lora_np.models.families import family_names, family_of, from_config
from lora_np.models.formulas import Config
from lora_np.models.names import Place, fused_names, names_are_known
from lora_np.models.spec import Kind, ModelSpec, ModuleSpec, fold, of_family
from lora_np.quantise import Quantised

HEAD = "lm_head.weight"
# if a model's class name ends in one of these, it has the head `lm_head`
_HEADED = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")
# if a model's class name ends in one of these, its head is tied by default, and the head's name
# depends on the family
_MASKED = ("ForMaskedLM", "ForPreTraining")
# a module is an embedding if the last part of its path is one of these
_EMBEDDINGS = (
    "wte",
    "wpe",
    "shared",
    "embed_in",
    "relative_attention_bias",
    "token_embd",
    "tok_embeddings",
)
_ASSUMED = (
    "Counted from headers: a matrix called weight is a linear layer's unless named as an embedding,"
    " names are those of the files, and a tied head is not seen. PEFT may count otherwise."
)
_KNOWN = (
    "Counted from headers, assuming the modules of {} models in transformers: PEFT may count"
    " differently if this model has others."
)
MEMORY = "count the model in memory, on the meta device"
_HEADS = ("lm_head", "embed_out", "proj_out", "output")


Shapes = Mapping[str, tuple[int, ...]]
Naming = Callable[[str], str]


@dataclass(frozen=True, eq=False)
class OpenModel(ModelDirectory):
    """An open base model, with its config, modules and names; weights are read on demand.

    `open_model` and `open_base` make it. Modules and names are derived only when they are needed,
    so a config without weights is enough for a base. The live model is the model that transformers
    loads from the files; its parameters may have other names and shapes than the tensors in the
    files.

    Parameters
    ----------
    path : Path
        The directory, or the one file.
    config : mapping
        The fields of ``config.json``; empty if there is none.
    title : str
        The name in messages; by default the name of the file or directory.
    on_disk : bool
        Whether there are weights at the path; otherwise only the config is known.
    """

    title: str = ""
    on_disk: bool = True

    @property
    def model_type(self) -> str:
        """The field ``model_type`` of the config; "None" if it is missing."""
        return str(self.config.get("model_type"))

    @cached_property
    def described(self) -> ModelSpec | None:
        """The model's description by family; None if that is unknown or a field is invalid."""
        with suppress(TypeError, ValueError):
            return self.by_family
        return None

    @cached_property
    def by_family(self) -> ModelSpec:
        """The model's description by family; an error if that is unknown or a field is invalid."""
        name = self.title or self.path.name
        with errors_at(name or "config.json"):
            return from_config(self.config, name=name)

    @cached_property
    def spec(self) -> ModelSpec:
        """The model's description by family or else by headers; an error if neither is enough."""
        kind = self.config.get("model_type")
        if not self.on_disk:
            return self.by_family
        if kind in family_names():
            if "quantization_config" in self.config:
                with suppress(FileError, OSError):  # the files of some weights may be missing
                    return replace(self.by_family, quantised=quantised_size(few_bits(self)))
            return self.by_family
        if not self.config:
            return from_headers(self)
        whole = any((self.path / name).is_file() for name in hub.HOMES)
        files = [self.path] if whole else sorted(self.path.glob("*.safetensors"))
        if len(files) != 1:
            return self.by_family
        spec = from_headers(self if whole else open_model(files[0]))
        return replace(spec, assumed=f"The family {kind!r} is not described. {spec.assumed}")

    @cached_property
    def known(self) -> ModelSpec | None:
        """The model's description; None if neither a family nor headers provide it."""
        with suppress(ValueError, OSError):
            return self.spec
        return None

    @cached_property
    def modules(self) -> Mapping[str, ModuleSpec]:
        """A mapping from module names, in transformers and in checkpoints, to the modules."""
        modules = self.known.modules if self.known else ()
        return {name: module for module in modules for name in (module.alias, module.name) if name}

    @cached_property
    def quantised(self) -> Mapping[str, tuple[str, ...]]:
        """A mapping from the weights that bitsandbytes quantised to the tensors that store them."""
        if not any(name.endswith(hub.BITSANDBYTES) for name in self.places):
            return {}
        parts = {name: hub.bitsandbytes_parts(self, name) for name in self.places}
        return {name: own for name, own in parts.items() if own}

    def module_of(self, parameter: str) -> ModuleSpec:
        """Find the module that a parameter of the live model belongs to.

        The family describes the module; for an unknown family, it is derived from shapes and names.
        """
        if parameter in self._described_modules:
            return self._described_modules[parameter]
        owner = parameter.rpartition(".")[0]
        near = {parameter, f"{owner}.weight", f"{owner}.bias"} & self.parameters.keys()
        shapes = {name: self.parameters[name].shape for name in near}
        shapes = shapes or {parameter: self.info(parameter).shape}
        fused = fused_names(self.model_type) or {}
        module = module_from_shapes(parameter, shapes, self._kinds, fused)
        square = module.kind == "linear" and module.bias and len({*module.shape}) == 1
        return module._replace(transposed=True) if square and self._conv1d else module

    @property
    def _kinds(self) -> Mapping[str, str]:
        kinds = kinds_by_type().get(self.model_type)
        return kinds if isinstance(kinds, dict) else {}

    @cached_property
    def names(self) -> Collection[str]:
        """The names of modules, experts and their weights, in transformers and in checkpoints."""
        apart = self.known.per_expert().modules if self.known else ()
        names = {*self.modules, *(name for x in apart for name in (x.name, x.alias) if name)}
        return names | {f"{name}.weight" for name in names}

    def counterparts(self, names: Iterable[str]) -> dict[str, str]:
        """Map unknown names to the base's names that differ only in a prefix, if just one does."""
        strange = [name for name in names if name.removesuffix(".weight") not in self.modules]
        return renamed(strange, self.names) if strange and self.modules else {}

    @cached_property
    def _described_modules(self) -> Mapping[str, ModuleSpec]:
        """A mapping from the names of parameters to their modules in the family's description."""
        modules = {}
        for module in self.described.modules if self.described else ():
            bare = module.kind in ("parameter", "experts")
            for end in [""] if bare else [".weight", ".bias"]:
                modules[module.name + end] = module
        naming = _best(lambda name: name, self.parameters, modules, modules)
        named = {name: naming(name) for name in self.parameters}
        return {name: modules[own] for name, own in named.items() if own in modules}

    @cached_property
    def _conv1d(self) -> bool:
        """Whether linear weights are stored as inputs by outputs, which a bias's length reveals."""
        for name in self.places:
            shape, bias = self.info(name).shape, f"{name.removesuffix('weight')}bias"
            if len(shape) == 2 and bias in self and self.info(bias).shape == shape[1:] != shape[:1]:
                return True
        return False

    @cached_property
    def tied(self) -> Mapping[str, str]:
        """A mapping from tied parameters that the checkpoint omits to the tensors they share."""
        if self.table is None:
            return {}
        owners = {f"{name}.weight": self.table for name in self.sharing}
        for module in self.described.modules if self.described else ():
            if module.tied_bias:
                owners[f"{module.name}.bias"] = f"{module.holder}.bias"
        here = self.parameters
        return {
            name: here[owner].tensor
            for name, owner in owners.items()
            if name not in here and owner in here
        }

    @property
    def can_untie(self) -> bool:
        """Whether the config has a setting that gives `tied` parameters values of their own."""
        if self.described is None:
            return "others" not in self.sharing
        return not any(module.tied for module in from_config(untied(self.config)).groups)

    @cached_property
    def table(self) -> str | None:
        """The name of the token embedding's weight; None if not found or known to be unshared."""
        order = {}
        for name in self.parameters:
            module = self.module_of(name)
            embeds = module.kind == "embedding" and module.role != "position"
            if embeds and name.endswith(".weight"):
                order[name] = self._kinds.get(module.name) == "table", module.shape
        if self.described:
            tied = [module.shape for module in self.described.groups if module.tied]
            order = {name: key for name, key in order.items() if key[1] in tied}
        return max(order, key=lambda name: order[name], default=None)

    @cached_property
    def sharing(self) -> tuple[str, ...]:
        """The names of the modules that share the `table`; "others" if the names are unknown."""
        if self.described:
            shape = self.table and self.module_of(self.table).shape
            tied = (module for module in self.described.modules if module.tied)
            return tuple(module.name for module in tied if module.shape == shape)
        names = [str(name) for name in self.config.get("architectures") or []]
        if self.config.get("is_encoder_decoder") or any(name.endswith(_MASKED) for name in names):
            # encoder-decoders and masked models tie embeddings unless the config says otherwise
            return () if self.config.get("tie_word_embeddings") is False else ("others",)
        return ("lm_head",) if any(name.endswith(_HEADED) for name in names) else ()

    @cached_property
    def parameters(self) -> Mapping[str, Parameter]:
        """The parameters of the live model, by name."""
        parameters: dict[str, dict[str, Place]] = {}
        for name, place in self._located.items():
            if place is not None:
                live = place.transposed and self._is_live(place.parameter, self.info(name).shape)
                place = place._replace(transposed=False) if live else place
                parameters.setdefault(place.parameter, {})[name] = place
        return {name: Parameter(self, name, places) for name, places in parameters.items()}

    def _is_live(self, parameter: str, shape: tuple[int, ...]) -> bool:
        """Return whether the file stores experts in the orientation of the live model."""
        part = self.config.get("text_config")
        text = part if isinstance(part, Mapping) else self.config
        width, inner = text.get("hidden_size"), text.get("moe_intermediate_size") or 0
        into = parameter.endswith("gate_up_proj")
        return shape[1:] == ((2 * inner, width) if into else (width, inner))

    @cached_property
    def unread(self) -> tuple[str, ...]:
        """The tensors that are not read, because no ``Place`` describes what becomes of them."""
        return tuple(name for name, place in self._located.items() if place is None)

    @cached_property
    def _located(self) -> Mapping[str, Place | None]:
        return {name: self.dialects.place(name) for name in self.places}

    @property
    def architecture(self) -> str:
        """The name of the model's class in transformers, or the model type if no class is known."""
        if names := self.config.get("architectures"):
            return str(names[0])
        if self.model_type not in family_names():
            return self.model_type
        family = family_of(self.model_type)
        return family.classes + family.tasks[0]

    @cached_property
    def dialects(self) -> Dialects:
        """The translator of the model's names to and from checkpoints and other programs."""
        return Dialects(self.config)

    def _stored(self, name: str) -> Parameter | None:
        """Find the parameter ``name``, or ``name`` without its first component; None if absent.

        A checkpoint that was saved from a model without a head omits that component.
        """
        return self.parameters.get(name) or self.parameters.get(name.partition(".")[2])

    def tensors_of(self, name: str) -> Collection[str]:
        """List the tensors that store a parameter of the live model, including its scales."""
        if parts := self.quantised.get(name):
            return parts
        found = self._stored(name)
        return found.places if found else ()

    def weight(self, name: str) -> Array | Quantised | None:
        """Read a parameter of the live model, which may stay quantised; None if it is absent."""
        if name in self.quantised:
            return hub.read_bitsandbytes(self, name)
        found = self._stored(name)
        return found.whole() if found else None

    def naming(self, wanted: Iterable[str]) -> Naming:
        """Return a function from an adapter's parameter names to this checkpoint's tensor names.

        The adapter uses the names of the live model, or the names of an older version. If only the
        adapter or only the checkpoint was saved from a model with a head, all names differ by one
        segment at the front (``bert.encoder...`` and ``encoder...``).
        """
        names, parameters = self.dialects, self.parameters

        def tensor(name: str) -> str:
            own = parameters.get(name)
            if own is None or len(own.places) > 1:
                place = names.place(name)
                own = parameters.get(place.parameter) if place else None
            return own.tensor if own and len(own.places) == 1 else name

        return _best(tensor, wanted, parameters, self.places)


Base = StrPath | Config | OpenModel


@dataclass(frozen=True, eq=False)
class Parameter:
    """A parameter of the live model, read as one or more d x k matrices.

    Parameters
    ----------
    model : OpenModel
        The model that it belongs to.
    name : str
        The name in the live model.
    places : mapping of str to Place
        The tensors that store it, and the location of each in the parameter.
    told : ModuleSpec, optional
        The module that it belongs to, if another checkpoint describes it better.

    Examples
    --------
    >>> from lora_np.hub import located
    >>> model = open_model(located("austen"))
    >>> q = model.parameters["model.layers.0.self_attn.q_proj.weight"]
    >>> q.shape == next(q.matrices()).shape == q.module.shape
    True
    """

    model: OpenModel
    name: str
    places: Mapping[str, Place]
    told: ModuleSpec | None = None

    @property
    def tensor(self) -> str:
        """The name of the first tensor that stores the parameter."""
        return next(iter(self.places))

    @property
    def dtype(self) -> str:
        """The dtype of the parameter's first tensor in the file."""
        return self.model.info(self.tensor).dtype

    @property
    def holder(self) -> str:
        """The name of the module that the parameter belongs to."""
        return self.name.rpartition(".")[0]

    @cached_property
    def module(self) -> ModuleSpec:
        """The module that the parameter belongs to."""
        return self.told or self.model.module_of(self.name)

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """The shape of the parameter in the live model."""
        (name, first), *_ = self.places.items()
        shape = self.model.info(name).shape
        if first.transposed:
            shape = (*shape[:-2], shape[-1], shape[-2])
        if first.expert is None:
            return shape
        stored = {(place.expert, place.part) for place in self.places.values()}
        experts = 1 + max(place.expert or 0 for place in self.places.values())
        alike = all(self.model.info(tensor).shape == shape for tensor in self.places)
        if len(shape) != 2 or not alike or len(stored) != experts * first.parts:
            raise FileError(
                f"{self.model.path}: experts of {self.name!r} are missing, or not of one shape"
            )
        return experts, first.parts * shape[0], shape[1]

    def maps(self, read: Callable[[str], Array]) -> Iterator[Array]:
        """Yield the matrices in the live model's orientation; ``read`` returns a tensor by name."""
        experts: dict[int | None, dict[int, str]] = {}
        for name, place in self.places.items():
            experts.setdefault(place.expert, {})[place.part] = name
        for expert, parts in sorted(experts.items(), key=lambda entry: entry[0] or 0):
            if expert is None:  # one tensor holds the whole parameter
                W = self.whole(read)
                yield from W if W.ndim == 3 else [W]
            else:
                yield np.concatenate([read(parts[part]) for part in sorted(parts)])

    def matrices(self, read: Callable[[str], Array] | None = None) -> Iterator[Array]:
        """Yield the parameter's matrices of shape (outputs, inputs), one for each expert."""
        transposed = self.module.transposed or self.module.kind == "embedding"
        for W in self.maps(read or self.model.read):
            yield W.T if transposed else W

    def whole(self, read: Callable[[str], Array] | None = None) -> Array:
        """Read the whole parameter, in the shape of the live model."""
        read = read or self.model.read
        if self.places[self.tensor].expert is not None:
            return np.stack([*self.maps(read)]).reshape(self.shape)
        W = read(self.tensor)
        return W.swapaxes(-1, -2) if self.places[self.tensor].transposed else W

    def oriented(
        self,
        tensor: str,
        W: Array,
        shape: tuple[int, ...],
        *,
        kernel: bool = False,
        embedding: bool = False,
        transposed: bool = False,
    ) -> Array:
        """Return a view of a tensor as one or more (d, k) matrices; writing to it changes ``W``.

        ``shape`` is the shape of an update; ``kernel`` is true for a convolution. Embeddings are
        stored as inputs by outputs. So are other tensors if their module is transposed (GPT-2's
        Conv1D, the experts of gpt-oss). If no family describes the model, ``transposed`` from an
        adapter's config decides. That setting applies to all layers even if it is right only for
        some, so the shape decides if it can.
        """
        place = self.places[tensor]
        known = self.name in self.model.parameters
        stored = known and self.module.transposed
        if place.expert is not None:
            transposed = False
        elif kernel or len(shape) == 2 or shape[0] == 1:
            transposed = stored or (transposed and self.model.described is None)
        else:
            transposed = shape[-1] != shape[-2] or stored != place.transposed
        W = W[:, None] if W.ndim == 1 else W
        swapped = shape if kernel else (*shape[:-2], shape[-1], shape[-2])
        transposed = embedding or (transposed and W.shape == swapped)
        if W.shape != (swapped if transposed else shape) and W.shape != (1, *shape):
            hint = "; it is stored transposed, which needs fan_in_fan_out" * (W.shape == swapped)
            raise FileError(
                f"{self.model.path}: {tensor!r} of shape {W.shape} does not fit an update of shape "
                f"{shape}{hint}"
            )
        maps = W.reshape(len(W), -1) if kernel else W.reshape(W.shape[-len(shape) :])
        return maps.swapaxes(-1, -2) if transposed else maps


def _best(
    tensor: Naming, wanted: Iterable[str], names: Iterable[str], known: Container[str]
) -> Naming:
    """Choose between ``tensor`` and its variants that add or drop the first segment of a name.

    The result is the function that finds the most names in ``known``.
    """
    wanted = list(wanted)
    fronts = sorted({name.partition(".")[0] for name in names})

    def after(front: str) -> Naming:
        return lambda name: tensor(f"{front}.{name}")

    if all(tensor(name) in known for name in wanted):
        return tensor
    namings = [tensor, lambda name: tensor(name.partition(".")[2]), *map(after, fronts)]
    return max(namings, key=lambda naming: sum(naming(name) in known for name in wanted))


def untied(config: Config) -> dict[str, Json]:
    """Return a copy of a config in which the head does not share the embedding's weight.

    Parameters
    ----------
    config : mapping
        The fields of a ``config.json``.

    Returns
    -------
    dict
        A copy with ``tie_word_embeddings`` false, also in its ``text_config``.

    See Also
    --------
    OpenModel : Find the parameters that are tied.

    Examples
    --------
    >>> untied({"model_type": "gemma"})
    {'model_type': 'gemma', 'tie_word_embeddings': False}
    """
    part = config.get("text_config")
    inner = {"text_config": untied(part)} if part and isinstance(part, Mapping) else {}
    return {**config, **inner, "tie_word_embeddings": False}


def resized(config: Config, tokens: int) -> dict[str, Json]:
    """Return a copy of a config with another vocabulary size.

    Parameters
    ----------
    config : mapping
        The fields of a ``config.json``.
    tokens : int
        The number of rows of the embedding.

    Returns
    -------
    dict
        A copy with this ``vocab_size``, in its ``text_config`` if it has one.

    See Also
    --------
    untied : Return a copy of a config in which the head has its own weight.

    Examples
    --------
    >>> resized({"model_type": "gemma"}, 100)
    {'model_type': 'gemma', 'vocab_size': 100}
    """
    part = config.get("text_config")
    if not isinstance(part, Mapping):
        return {**config, "vocab_size": tokens}
    own = {"vocab_size": tokens} if "vocab_size" in config else {}
    return {**config, "text_config": {**part, "vocab_size": tokens}, **own}


def open_model(path: StrPath) -> OpenModel:
    """Open a model on disk; read its config and headers, but no tensor.

    Parameters
    ----------
    path : path
        A directory, an index, or one safetensors file.

    Returns
    -------
    OpenModel
        The model, with the names, dtypes and shapes of its tensors and the live parameters.

    Raises
    ------
    FileError
        If the model does not exist or is damaged.

    Examples
    --------
    >>> from lora_np.hub import located
    >>> open_model(located("austen")).config["model_type"]
    'llama'
    """
    opened = hub.open_directory(path)
    model = OpenModel(opened.path, opened.config)
    vars(model).update(vars(opened))  # reuse the headers that have already been read
    return model


def from_safetensors(source: str | Path) -> ModelSpec:
    """Describe the modules of a safetensors file, index or directory without reading tensors.

    A matrix called ``weight`` belongs to a linear layer, unless its module is named as an
    embedding. An array with more axes belongs to a convolution, and a vector to a norm. Anything
    else is a bare parameter, and so is a ``weight`` whose bias does not fit it. If a
    ``config.json`` gives the type of a language model in transformers, modules have their names
    and kinds in transformers.

    Parameters
    ----------
    source : str or Path
        The file, index or directory.

    Returns
    -------
    ModelSpec
        The modules; its field ``assumed`` states the assumptions.

    Raises
    ------
    FileError
        If the model does not exist or is damaged, or headers do not show its modules because
        transformers splits or joins its tensors on loading.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from lora_np.hub import safetensors
    >>> from lora_np.accounting import count_model
    >>> path = Path(tempfile.mkdtemp()) / "model.safetensors"
    >>> safetensors.save({"q_proj.weight": np.zeros((100, 120)), "q_proj.bias": np.zeros(100)},
    ...     path)
    >>> count_model(from_safetensors(path), rank=8, targets=["q_proj"]).trainable
    1760
    """
    return from_headers(open_model(source))


def from_headers(model: OpenModel) -> ModelSpec:
    """Describe the modules of an open model as `from_safetensors` does."""
    path = model.path
    family = str(model.config.get("model_type") or "")
    title = path.name if path.is_dir() or path.name != hub.INDEX else path.parent.name
    listed = kinds_by_type().get(family) if names_are_known(model.config) else None
    known = listed if isinstance(listed, dict) else {}
    why = listed if isinstance(listed, str) else ""
    if model.unread:
        why = f"transformers splits or joins {model.unread[0]!r} when it loads it"
    if why:
        raise FileError(
            f"{path}: headers do not tell the modules of a {family} model: {why}; {MEMORY}"
        )
    few = few_bits(model)
    shapes = _shapes(model, known, few)
    fused = fused_names(family) or {}
    modules = list(dict.fromkeys(module_from_shapes(name, shapes, known, fused) for name in shapes))
    head = _head(model, modules, known if listed is not None else None)
    modules = [
        module._replace(role="head") if module.name == head else module for module in modules
    ]
    assumed = _ASSUMED if listed is None else _KNOWN.format(family)
    size = quantised_size(few)
    return of_family(title or str(path), fold(modules), family, assumed=assumed, quantised=size)


def _shapes(
    model: OpenModel, known: Mapping[str, str], few: Mapping[str, tuple[tuple[int, ...], int]]
) -> dict[str, tuple[int, ...]]:
    """Return the shapes of parameters, except buffers and the scales of quantised weights."""
    parts = {part for own in model.quantised.values() for part in own} - few.keys()
    shapes = {}
    for name, parameter in model.parameters.items():
        packed = [tensor for tensor in parameter.places if tensor in few]
        if packed and len(parameter.places) > 1:
            raise FileError(
                f"{model.path}: no header tells the shape of quantised experts, {packed[0]!r};"
                f" {MEMORY}"
            )
        if parts.isdisjoint(parameter.places) and known.get(starred(name)) != "buffer":
            shapes[name] = few[packed[0]][0] if packed else parameter.shape
    return shapes


def _head(model: OpenModel, modules: list[ModuleSpec], known: Mapping[str, str] | None) -> str:
    """Return the head's name, also if it has no tensor, or ""; add a tied head to ``modules``."""
    if known is None:
        heads = [module.name for module in modules if module.leaf in _HEADS]
        return heads[0] if len(heads) == 1 else ""
    head = next((name for name, kind in known.items() if kind == "head"), "lm_head")
    tables = [module for module in modules if module.kind == "embedding"]
    tables = [module for module in tables if known.get(module.name) == "table"] or tables
    names = list(map(str, model.config.get("architectures") or ()))
    with_head = any("LMHead" in name or not name.endswith("Model") for name in names)
    if with_head and tables and all(module.name != head for module in modules):
        largest = max(table.shape for table in tables)
        modules.append(ModuleSpec(head, "linear", largest, tied=True))
    return head


def few_bits(model: OpenModel) -> dict[str, tuple[tuple[int, ...], int]]:
    """Return the shape and the number of bytes of each weight that bitsandbytes quantised."""
    return {name: hub.bitsandbytes_size(model, name) for name in model.quantised}


def quantised_size(few: Mapping[str, tuple[tuple[int, ...], int]]) -> tuple[int, int]:
    """Add up the parameters and the bytes of all quantised weights."""
    return sum(prod(shape) for shape, _ in few.values()), sum(size for _, size in few.values())


@cache
def kinds_by_type() -> dict[str, dict[str, str] | str]:
    """Map model types to corrections of `guess`, or to the reason why headers do not suffice."""
    return read_json(Path(__file__).parent / "data" / "_kinds.json")


def starred(name: str) -> str:
    """Return the part of ``name`` after the last index, which is the same in all layers."""
    return re.split(r"(?:^|\.)\d+\.", name)[-1]


def guess(name: str, shape: tuple[int, ...]) -> Kind:
    """Guess the kind of a module from its name and the shape of its ``weight``.

    Parameters
    ----------
    name : str
        The path of the module.
    shape : tuple of int
        The shape of the weight.

    Returns
    -------
    str
        A kind as in `ModuleSpec`.

    Examples
    --------
    >>> guess("transformer.wte", (100, 8)), guess("q_proj", (8, 8))
    ('embedding', 'linear')
    """
    last = name.rpartition(".")[2]
    if len(shape) == 1:
        return "norm"
    if len(shape) == 2:
        embeds = last in _EMBEDDINGS or "embed" in last.removeprefix("embed_out")
        return "embedding" if embeds else "linear"
    return "convolution" if len(shape) in (3, 4, 5) else "parameter"


def module_from_shapes(
    name: str, shapes: Shapes, kinds: Mapping[str, str], fused: Mapping[str, str]
) -> ModuleSpec:
    """Derive the module of a parameter from names and shapes, without a family's description.

    Parameters
    ----------
    name : str
        The name in the live model.
    shapes : mapping of str to tuple of int
        The shapes of all parameters, by their names in the live model.
    kinds : mapping of str to str
        An entry of `kinds_by_type`.
    fused : mapping of str to str
        The names of fused experts, from `fused_names`.
    """
    owner, _, last = name.rpartition(".")
    if (kind := kinds.get(starred(name), "")) in _EXPERTS:
        parts = tuple(old for old, new in fused.items() if new == last)
        return ModuleSpec(
            name, "experts", shapes[name], parts=parts or (last,), transposed=kind != "experts"
        )
    weight, bias = shapes.get(f"{owner}.weight"), shapes.get(f"{owner}.bias")
    experts = kinds.get(starred(f"{owner}.weight")) in _EXPERTS
    if weight is None or not owner or last not in ("weight", "bias") or experts:
        return ModuleSpec(name, "parameter", shapes[name])
    known = kinds.get(starred(owner), "")
    kind = known if known in get_args(Kind) else guess(owner, weight)
    # if only the second axis fits the bias, the weight is (d_in, d_out), as in GPT-2's Conv1D
    transposed = kind == "linear" and bias is not None and bias == weight[1:] != weight[:1]
    weight = weight[::-1] if transposed else weight
    fits = bias == weight[:1]
    if kind != known and bias is not None and not fits:
        # the guess is wrong, for example for a transposed convolution or a per-head norm
        kind = "parameter"
    if kind == "parameter" or (last == "bias" and not fits):
        return ModuleSpec(name, "parameter", shapes[name])
    return ModuleSpec(owner, kind, weight, bias=fits, transposed=transposed)  # type: ignore[arg-type]


_EXPERTS = ("experts", "transposed experts")
