"""A model's weights on disk, under the names of the live model, and the modules that headers
tell.
"""

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
_HEADED = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")  # how a class with a head ends
# of classes whose head has the embedding's numbers, by another name
_MASKED = ("ForMaskedLM", "ForPreTraining")
# the last names of tables that are looked up rather than multiplied
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
    "Counted from headers, as {} models are in transformers: PEFT counts this one otherwise if it"
    " differs."
)
MEMORY = "count the model in memory, on the meta device"
_HEADS = ("lm_head", "embed_out", "proj_out", "output")


Shapes = Mapping[str, tuple[int, ...]]
Naming = Callable[[str], str]


@dataclass(frozen=True, eq=False)
class OpenModel(ModelDirectory):
    """A base model, opened once: its config, modules, weights and names.

    Made by `open_model` and `open_base`. What is not asked for is not read: a base may be a config
    alone.

    Parameters
    ----------
    path : Path
        The directory, or the one file.
    config : mapping
        The fields of ``config.json``; empty if there is none.
    title : str
        For messages; by default the name of the file or directory.
    on_disk : bool
        Whether there are weights at the path; otherwise the config is all that is known.
    """

    title: str = ""
    on_disk: bool = True

    @cached_property
    def described(self) -> ModelSpec | None:
        """The model as its family describes it, or None."""
        # there may be no such family, or it may lack the architecture or the fields
        with suppress(TypeError, ValueError):
            return self.by_family
        return None

    @cached_property
    def by_family(self) -> ModelSpec:
        """The modules as the family describes them."""
        name = self.title or self.path.name
        with errors_at(name or "config.json"):
            return from_config(self.config, name=name)

    @cached_property
    def spec(self) -> ModelSpec:
        """The modules, as the family describes them or else from headers."""
        kind = self.config.get("model_type")
        if not self.on_disk:
            return self.by_family
        if kind in family_names():
            if "quantization_config" in self.config:
                with suppress(FileError, OSError):  # names need no weights: some may be missing
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
        """The modules, if they can be told."""
        with suppress(ValueError, OSError):
            return self.spec
        return None

    @cached_property
    def modules(self) -> Mapping[str, ModuleSpec]:
        """The modules by their names, here and in checkpoints."""
        modules = self.known.modules if self.known else ()
        return {name: module for module in modules for name in (module.alias, module.name) if name}

    @cached_property
    def quantised(self) -> Mapping[str, tuple[str, ...]]:
        """The weights that bitsandbytes quantised, with the tensors of each."""
        if not any(name.endswith(hub.BITSANDBYTES) for name in self.places):
            return {}
        parts = {name: hub.bitsandbytes_parts(self, name) for name in self.places}
        return {name: own for name, own in parts.items() if own}

    def module_of(self, parameter: str) -> ModuleSpec:
        """Find the module that a parameter of the live model belongs to.

        As the model's family describes it, or otherwise by the rule for models without a family.
        """
        if parameter in self._described_modules:
            return self._described_modules[parameter]
        owner = parameter.rpartition(".")[0]
        near = {parameter, f"{owner}.weight", f"{owner}.bias"} & self.parameters.keys()
        shapes = {name: self.parameters[name].shape for name in near}
        shapes = shapes or {parameter: self.info(parameter).shape}
        module = judged(
            parameter, shapes, self._kinds, fused_names(str(self.config.get("model_type"))) or {}
        )
        square = module.kind == "linear" and module.bias and len({*module.shape}) == 1
        return module._replace(transposed=True) if square and self._conv1d else module

    @property
    def _kinds(self) -> Mapping[str, str]:
        kinds = kinds_by_type().get(str(self.config.get("model_type")))
        return kinds if isinstance(kinds, dict) else {}

    @cached_property
    def names(self) -> Collection[str]:
        """What modules, single experts and their weights may be called, here and in checkpoints."""
        apart = self.known.per_expert().modules if self.known else ()
        names = {*self.modules, *(name for x in apart for name in (x.name, x.alias) if name)}
        return names | {f"{name}.weight" for name in names}

    def counterparts(self, names: Iterable[str]) -> dict[str, str]:
        """Find the base's names of modules that differ in nothing but a known prefix."""
        strange = [name for name in names if name.removesuffix(".weight") not in self.modules]
        return renamed(strange, self.names) if strange and self.modules else {}

    @cached_property
    def _described_modules(self) -> Mapping[str, ModuleSpec]:
        """The family's module of each parameter, by its name in this checkpoint."""
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
        """Whether linear layers are stored as inputs by outputs, as the lengths of biases show."""
        for name in self.places:
            shape, bias = self.info(name).shape, f"{name.removesuffix('weight')}bias"
            if len(shape) == 2 and bias in self and self.info(bias).shape == shape[1:] != shape[:1]:
                return True
        return False

    @cached_property
    def tied(self) -> Mapping[str, str]:
        """The live parameters that the checkpoint lacks, and the tensors that they share."""
        if self.table is None:
            return {}
        owners = {f"{name}.weight": self.table for name in self.sharing}
        for module in self.described.modules if self.described else ():
            if module.tied_bias:
                owners[f"{module.name}.bias"] = f"{module.name.rpartition('.')[0]}.bias"
        here = self.parameters
        return {
            name: here[owner].tensor
            for name, owner in owners.items()
            if name not in here and owner in here
        }

    @property
    def can_untie(self) -> bool:
        """Whether a config can say that the `tied` parameters have their own values."""
        if self.described is None:
            return "others" not in self.sharing
        return not any(module.tied for module in from_config(untied(self.config)).groups)

    @cached_property
    def table(self) -> str | None:
        """The parameter of the live model that embeds tokens, if other modules may share it."""
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
        """The names of the modules that share the weights of the `table`, or "others"."""
        if self.described:
            shape = self.table and self.module_of(self.table).shape
            tied = (module for module in self.described.modules if module.tied)
            return tuple(module.name for module in tied if module.shape == shape)
        names = [str(name) for name in self.config.get("architectures") or []]
        if self.config.get("is_encoder_decoder") or any(name.endswith(_MASKED) for name in names):
            # by default they are tied
            return () if self.config.get("tie_word_embeddings") is False else ("others",)
        return ("lm_head",) if any(name.endswith(_HEADED) for name in names) else ()

    @cached_property
    def parameters(self) -> Mapping[str, Parameter]:
        """The parameters of the live model, by their names there."""
        parameters: dict[str, dict[str, Place]] = {}
        for name, place in self._located.items():
            if place is not None:
                live = place.transposed and self._is_live(place.parameter, self.info(name).shape)
                place = place._replace(transposed=False) if live else place
                parameters.setdefault(place.parameter, {})[name] = place
        return {name: Parameter(self, name, places) for name, places in parameters.items()}

    def _is_live(self, parameter: str, shape: tuple[int, ...]) -> bool:
        """Whether experts are stored as they compute: transformers turns no others."""
        part = self.config.get("text_config")
        text = part if isinstance(part, Mapping) else self.config
        width, inner = text.get("hidden_size"), text.get("moe_intermediate_size") or 0
        into = parameter.endswith("gate_up_proj")
        return shape[1:] == ((2 * inner, width) if into else (width, inner))

    @cached_property
    def unread(self) -> tuple[str, ...]:
        """The tensors without a place: transformers splits, joins or permutes them on loading."""
        return tuple(name for name, place in self._located.items() if place is None)

    @cached_property
    def _located(self) -> Mapping[str, Place | None]:
        return {name: self.dialects.place(name) for name in self.places}

    @property
    def architecture(self) -> str:
        """The name of its class in transformers, or of its type if no family describes it."""
        if names := self.config.get("architectures"):
            return str(names[0])
        kind = str(self.config.get("model_type"))
        family = family_of(kind) if kind in family_names() else None
        return family.classes + family.tasks[0] if family else kind

    @cached_property
    def dialects(self) -> Dialects:
        """What its modules are called in checkpoints and by other programs."""
        return Dialects(self.config)

    def _stored(self, name: str) -> Parameter | None:
        """The parameter of this name, or of its name in a checkpoint without a head."""
        return self.parameters.get(name) or self.parameters.get(name.partition(".")[2])

    def tensors_of(self, name: str) -> Collection[str]:
        """The tensors that a parameter of the live model takes, those of its scales too."""
        if parts := self.quantised.get(name):
            return parts
        found = self._stored(name)
        return found.places if found else ()

    def weight(self, name: str) -> Array | Quantised | None:
        """Read one parameter of the live model; None if it is not there.

        It is quantised if it is stored so.
        """
        if name in self.quantised:
            return hub.read_bitsandbytes(self, name)
        found = self._stored(name)
        return found.whole() if found else None

    def naming(self, wanted: Iterable[str]) -> Naming:
        """Map an adapter's parameter names to this checkpoint's.

        They are those of the live model, or those of an older version. One may have been saved from
        a model with a head and the other only from its body: then all names differ by one segment
        at the front (``bert.encoder...`` and ``encoder...``).
        """
        names, parameters = self.dialects, self.parameters

        def tensor(name: str) -> str:
            own = parameters.get(name)
            if own is None or len(own.places) > 1:
                place = names.place(name)
                own = parameters.get(place.parameter) if place else None
            return own.tensor if own and len(own.places) == 1 else name

        return _best(tensor, wanted, parameters, self.places)


Base = StrPath | Config | OpenModel  # what a base model may be given as


@dataclass(frozen=True, eq=False)
class Parameter:
    """A parameter of the live model: one or more d x k matrices, handed out one by one.

    Parameters
    ----------
    model : OpenModel
        Whose it is.
    name : str
        In the live model.
    places : mapping of str to Place
        The tensors that make it up, and where each goes.
    told : ModuleSpec, optional
        The module that it belongs to, if another checkpoint tells it better.

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
        """The first of its tensors."""
        return next(iter(self.places))

    @property
    def dtype(self) -> str:
        """The dtype in the file."""
        return self.model.info(self.tensor).dtype

    @property
    def holder(self) -> str:
        """The name of the module that it is a parameter of."""
        return self.name.rpartition(".")[0]

    @cached_property
    def module(self) -> ModuleSpec:
        """The module that it belongs to."""
        return self.told or self.model.module_of(self.name)

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """The shape in the live model."""
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
        """Yield its matrices as the live model keeps them, from tensors as ``read`` gives them."""
        experts: dict[int | None, dict[int, str]] = {}
        for name, place in self.places.items():
            experts.setdefault(place.expert, {})[place.part] = name
        for expert, parts in sorted(experts.items(), key=lambda entry: entry[0] or 0):
            if expert is None:  # one tensor is all of it
                W = self.whole(read)
                yield from W if W.ndim == 3 else [W]
            else:
                yield np.concatenate([read(parts[part]) for part in sorted(parts)])

    def matrices(self, read: Callable[[str], Array] | None = None) -> Iterator[Array]:
        """Yield its matrices, outputs by inputs, those of experts one by one."""
        turned = self.module.transposed or self.module.kind == "embedding"
        for W in self.maps(read or self.model.read):
            yield W.T if turned else W

    def whole(self, read: Callable[[str], Array] | None = None) -> Array:
        """Read all of it, as the live model keeps it."""
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
        turned: bool = False,
    ) -> Array:
        """See a tensor as matrices of outputs by inputs, (d, k) or a stack: writing changes ``W``.

        ``shape`` is that of an update, of a convolution if it has a kernel. Embeddings are stored
        as inputs by outputs. Whether other tensors are (GPT-2's Conv1D, the experts of gpt-oss)
        follows from the module; of what no family describes, a config may say it (``turned``). It
        may say so for all layers and mean some, so the shape decides if it can.
        """
        place = self.places[tensor]
        known = self.name in self.model.parameters
        stored = known and self.module.transposed
        if place.expert is not None:
            turned = False
        elif kernel or len(shape) == 2 or shape[0] == 1:
            turned = stored or (turned and self.model.described is None)
        else:
            turned = shape[-1] != shape[-2] or stored != place.transposed
        W = W[:, None] if W.ndim == 1 else W
        swapped = shape if kernel else (*shape[:-2], shape[-1], shape[-2])
        turned = embedding or (turned and W.shape == swapped)
        if W.shape != (swapped if turned else shape) and W.shape != (1, *shape):
            hint = "; it is stored transposed, which needs fan_in_fan_out" * (W.shape == swapped)
            raise FileError(
                f"{self.model.path}: {tensor!r} of shape {W.shape} does not fit an update of shape "
                f"{shape}{hint}"
            )
        maps = W.reshape(len(W), -1) if kernel else W.reshape(W.shape[-len(shape) :])
        return maps.swapaxes(-1, -2) if turned else maps


def _best(
    tensor: Naming, wanted: Iterable[str], names: Iterable[str], known: Container[str]
) -> Naming:
    """Choose among name changes (as is, one segment fewer or more) the one that matches most."""
    wanted = list(wanted)
    fronts = sorted({name.partition(".")[0] for name in names})

    def after(front: str) -> Naming:
        return lambda name: tensor(f"{front}.{name}")

    if all(tensor(name) in known for name in wanted):
        return tensor
    namings = [tensor, lambda name: tensor(name.partition(".")[2]), *map(after, fronts)]
    return max(namings, key=lambda naming: sum(naming(name) in known for name in wanted))


def untied(config: Config) -> dict[str, Json]:
    """Change a config so that the head has its own weights instead of the embedding's.

    Parameters
    ----------
    config : mapping
        The fields of a ``config.json``.

    Returns
    -------
    dict
        The same with ``tie_word_embeddings`` false, in its ``text_config`` too.

    See Also
    --------
    OpenModel : Which parameters share numbers.

    Examples
    --------
    >>> untied({"model_type": "gemma"})
    {'model_type': 'gemma', 'tie_word_embeddings': False}
    """
    part = config.get("text_config")
    inner = {"text_config": untied(part)} if part and isinstance(part, Mapping) else {}
    return {**config, **inner, "tie_word_embeddings": False}


def resized(config: Config, tokens: int) -> dict[str, Json]:
    """Change a config so that the model has a vocabulary of another size.

    Parameters
    ----------
    config : mapping
        The fields of a ``config.json``.
    tokens : int
        How many rows its embedding has.

    Returns
    -------
    dict
        The same with this ``vocab_size``, in its ``text_config`` if it has one.

    See Also
    --------
    untied : Another change of a config.

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
    """Open the model in a directory as `hub.open_directory` does; no tensor is read.

    Parameters
    ----------
    path : path
        A directory, an index, or one safetensors file.

    Returns
    -------
    OpenModel
        Its names, dtypes and shapes, ``read`` for one tensor, and the parameters of the live model.

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
    vars(model).update(vars(opened))  # the headers, which are read already
    return model


def from_safetensors(source: str | Path) -> ModelSpec:
    """Describe the modules of a safetensors file, an index or a directory, from headers only.

    A matrix called ``weight`` is a linear layer's, unless its name is that of an embedding; an
    array of more axes is a convolution, a vector a norm. Anything else is a bare parameter, and so
    is a ``weight`` whose bias has another shape. If a ``config.json`` gives the model's type, and
    transformers has language models of that type, names and kinds are as there.

    Parameters
    ----------
    source : str or Path
        The file, index or directory.

    Returns
    -------
    ModelSpec
        Its field ``assumed`` says what was assumed.

    Raises
    ------
    FileError
        If there is no such model, `open_model` finds it damaged, or its modules cannot be told,
        because transformers splits or joins tensors of it when it loads.

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
    modules = list(dict.fromkeys(judged(name, shapes, known, fused) for name in shapes))
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
    """Return the shapes of parameters, without buffers and the parts of quantised weights."""
    parts = {part for own in model.quantised.values() for part in own} - few.keys()
    shapes = {}
    for name, parameter in model.parameters.items():
        held = [tensor for tensor in parameter.places if tensor in few]
        if held and len(parameter.places) > 1:
            raise FileError(
                f"{model.path}: no header tells the shape of quantised experts, {held[0]!r};"
                f" {MEMORY}"
            )
        if parts.isdisjoint(parameter.places) and known.get(starred(name)) != "buffer":
            shapes[name] = few[held[0]][0] if held else parameter.shape
    return shapes


def _head(model: OpenModel, modules: list[ModuleSpec], known: Mapping[str, str] | None) -> str:
    """Name the head; a head that is the embedding, which no checkpoint holds, joins the modules."""
    if known is None:
        heads = [module.name for module in modules if module.name.rpartition(".")[2] in _HEADS]
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
    """Find the weights that bitsandbytes quantised, with their shapes and bytes."""
    return {name: hub.bitsandbytes_size(model, name) for name in model.quantised}


def quantised_size(few: Mapping[str, tuple[tuple[int, ...], int]]) -> tuple[int, int]:
    """Add up the parameters and the bytes of all such weights."""
    return sum(prod(shape) for shape, _ in few.values()), sum(size for _, size in few.values())


@cache
def kinds_by_type() -> dict[str, dict[str, str] | str]:
    """Read, for each type of `docs._ext.causal`, where `guess` is wrong or why it is refused."""
    return read_json(Path(__file__).parent / "data" / "_kinds.json")


def starred(name: str) -> str:
    """Return what follows the last index in ``name``, which is the same in all layers."""
    return re.split(r"(?:^|\.)\d+\.", name)[-1]


def guess(name: str, shape: tuple[int, ...]) -> Kind:
    """Guess the kind of a module with a ``weight`` of this shape.

    Parameters
    ----------
    name : str
        Its path in the model.
    shape : tuple of int
        Of the weight.

    Returns
    -------
    str
        As in `ModuleSpec`.

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


def judged(
    name: str, shapes: Shapes, kinds: Mapping[str, str], fused: Mapping[str, str]
) -> ModuleSpec:
    """Describe the module of the parameter ``name`` if no family does.

    Parameters
    ----------
    name : str
        In the live model.
    shapes : mapping of str to tuple of int
        Of all parameters, by their names in the live model.
    kinds : mapping of str to str
        An entry of `kinds_by_type`.
    fused : mapping of str to str
        As `fused_names` gives it.
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
    # GPT-2's Conv1D stores its weight as (d_in, d_out); its bias reveals that
    turned = kind == "linear" and bias is not None and bias == weight[1:] != weight[:1]
    weight = weight[::-1] if turned else weight
    fits = bias == weight[:1]
    if kind != known and bias is not None and not fits:
        kind = "parameter"  # such as a norm of each head, or a transposed convolution
    if kind == "parameter" or (last == "bias" and not fits):
        return ModuleSpec(name, "parameter", shapes[name])
    return ModuleSpec(owner, kind, weight, bias=fits, transposed=turned)  # type: ignore[arg-type]


_EXPERTS = ("experts", "transposed experts")
