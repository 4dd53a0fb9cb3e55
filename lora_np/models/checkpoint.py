"""A model's weights on disk, under the names of the live model's parameters."""

from __future__ import annotations

import os
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from lora_np.hub import HubError, ModelDirectory, open_directory
from lora_np.models.families import build_spec, family_names
from lora_np.models.kinds import judged, kinds_by_type
from lora_np.models.names import NameMap, Place, fused_names
from lora_np.models.spec import ModelSpec, ModuleSpec

HEAD = "lm_head.weight"
_HEAD = HEAD.removesuffix(".weight")
_HEADED = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")  # how a class with a head ends
_MASKED = (
    "ForMaskedLM",
    "ForPreTraining",
)  # of classes whose head has the embedding's numbers, by another name


@dataclass(frozen=True, eq=False)
class OpenModel(ModelDirectory):
    """The tensors of a model, and where each of them goes in the live model; made by `open_model`.

    Parameters
    ----------
    path : Path
        The directory, or the one file.
    files : mapping of str to SafetensorsFile
        The files that are the model, by name.
    places : mapping of str to str
        From the name of a tensor to that of its file.
    config : mapping
        The fields of ``config.json``; empty if there is none.
    index : mapping or None
        The content of the index, where the model is in shards.
    """

    @cached_property
    def described(self) -> ModelSpec | None:
        """The model as its family describes it, if one does."""
        try:
            return build_spec(self.config) if self.config.get("model_type") in family_names() else None
        except (TypeError, ValueError):  # an architecture or fields that the family does not have
            return None

    def module_of(self, parameter: str) -> ModuleSpec:
        """The module that a parameter of the live model belongs to.

        As the model's family describes it, or otherwise by the rule for models without a family.
        """
        found = self._described_modules.get(parameter)
        if found is not None:
            return found
        owner = parameter.rpartition(".")[0]
        near = (name for name in (parameter, f"{owner}.weight", f"{owner}.bias") if name in self.parameters)
        shapes = {name: self.shape(self.parameters[name]) for name in near}
        shapes = shapes or {parameter: self.info(parameter).shape}
        module = judged(parameter, shapes, self._kinds, fused_names(str(self.config.get("model_type"))) or {})
        square = module.kind == "linear" and module.bias and len({*module.shape}) == 1
        return module._replace(transposed=True) if square and self._conv1d else module

    @property
    def _kinds(self) -> Mapping[str, str]:
        found = kinds_by_type().get(str(self.config.get("model_type")))
        return found if isinstance(found, dict) else {}

    @cached_property
    def _described_modules(self) -> Mapping[str, ModuleSpec]:
        """The module of each parameter that the family describes, by the name in this checkpoint."""
        found = {}
        for module in self.described.modules if self.described else ():
            bare = module.kind in ("parameter", "experts")
            for name in [module.name] if bare else [f"{module.name}.weight", f"{module.name}.bias"]:
                found[name] = module
        way = _best(lambda name: name, self.parameters, found, found)
        return {name: found[way(name)] for name in self.parameters if way(name) in found}

    @cached_property
    def _conv1d(self) -> bool:
        """Whether linear maps are kept as inputs by outputs, as biases show where the two differ."""
        for name in self.places:
            weight, bias = self.info(name).shape, f"{name.removesuffix('weight')}bias"
            if len(weight) == 2 and bias in self and self.info(bias).shape == weight[1:] != weight[:1]:
                return True
        return False

    @cached_property
    def tied(self) -> Mapping[str, str]:
        """The live parameters that are not in the checkpoint, and the tensors whose numbers they have."""
        if self.table is None:
            return {}
        owners = {f"{name}.weight": self.table for name in self.sharing}
        for module in self.described.modules if self.described else ():
            if module.tied_bias:
                owners[f"{module.name}.bias"] = f"{module.name.rpartition('.')[0]}.bias"
        return {
            name: next(iter(self.parameters[owner]))
            for name, owner in owners.items()
            if name not in self.parameters and owner in self.parameters
        }

    @property
    def can_untie(self) -> bool:
        """Whether a config can say that the `tied` parameters have their own numbers."""
        if self.described is None:
            return "others" not in self.sharing
        return not any(module.tied for module in build_spec(untied(self.config)).groups)

    @cached_property
    def table(self) -> str | None:
        """The parameter of the live model that embeds tokens, if other modules may share it."""
        tables = {name: self.module_of(name) for name in self.parameters if name.endswith(".weight")}
        tables = {name: module for name, module in tables.items() if module.kind == "embedding"}
        if self.described:
            tied = [module.shape for module in self.described.groups if module.tied]
            tables = {name: module for name, module in tables.items() if module.shape in tied}
        known = self._kinds
        return max(
            tables,
            key=lambda name: (known.get(tables[name].name) == "table", tables[name].shape),
            default=None,
        )

    @cached_property
    def sharing(self) -> tuple[str, ...]:
        """The names of the modules that have the numbers of the `table`, or "others"."""
        if self.described:
            shape = self.table and self.module_of(self.table).shape
            return tuple(
                module.name for module in self.described.modules if module.tied and module.shape == shape
            )
        tied = self.config.get("tie_word_embeddings") is not False  # by default they are
        names = self.config.get("architectures") or []
        if self.config.get("is_encoder_decoder") or any(str(name).endswith(_MASKED) for name in names):
            return ("others",) if tied else ()
        return (_HEAD,) if any(str(name).endswith(_HEADED) for name in names) else ()

    @cached_property
    def parameters(self) -> Mapping[str, Mapping[str, Place]]:
        """The parameters of the live model: for each, the tensors that make it up and their places in it."""
        names = NameMap(self.config)
        found: dict[str, dict[str, Place]] = {}
        for name in self.places:
            place = names.place(name)
            if place is not None:
                found.setdefault(place.parameter, {})[name] = place
        return found

    @cached_property
    def unread(self) -> tuple[str, ...]:
        """The tensors that transformers splits, joins or permutes as it loads them: they have no place."""
        names = NameMap(self.config)
        return tuple(name for name in self.places if names.place(name) is None)

    def shape(self, places: Mapping[str, Place]) -> tuple[int, ...]:
        """The shape of the parameter of the live model that tensors make up, from their places in it."""
        (name, first), *_ = places.items()
        shape = self.info(name).shape
        if first.transposed:
            shape = (*shape[:-2], shape[-1], shape[-2])
        if first.expert is None:
            return shape
        found = {(place.expert, place.part) for place in places.values()}
        experts = 1 + max(place.expert or 0 for place in places.values())
        alike = all(self.info(each).shape == shape for each in places)
        if len(shape) != 2 or not alike or len(found) != experts * first.parts:
            raise HubError(f"{self.path}: experts of {first.parameter!r} are missing, or not of one shape")
        return experts, first.parts * shape[0], shape[1]

    def naming(self, wanted: Iterable[str]) -> Callable[[str], str]:
        """From an adapter's names of parameters to this checkpoint's.

        They are those of the live model, or those of an older version. One may have been saved from a model
        with a head and the other only from its body: then all names differ by one segment at the front
        (``bert.encoder...`` and ``encoder...``).
        """
        names, parameters = NameMap(self.config), self.parameters

        def tensor(name: str) -> str:
            place = names.place(name)
            for live in (name, place.parameter if place else name):
                if len(parameters.get(live, ())) == 1:
                    return next(iter(parameters[live]))
            return name

        return _best(tensor, wanted, parameters, self.places)


def _best(
    tensor: Callable[[str], str], wanted: Iterable[str], names: Iterable[str], found: Container[str]
) -> Callable[[str], str]:
    """``tensor`` of a name, of it without its first segment, or with one in front: whichever finds most."""
    wanted = list(wanted)
    fronts = sorted({name.partition(".")[0] for name in names})
    ways: list[Callable[[str], str]] = [
        tensor,
        lambda name: tensor(name.partition(".")[2]),
        *[lambda name, front=front: tensor(f"{front}.{name}") for front in fronts],
    ]
    return max(ways, key=lambda way: sum(way(name) in found for name in wanted))


def untied(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config by which the head, or whatever shares the embedding's numbers, has its own.

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
    parts = {key: untied(part) for key, part in config.items() if key == "text_config" and part}
    return {**config, **parts, "tie_word_embeddings": False}


def open_model(path: str | os.PathLike[str]) -> OpenModel:
    """The model in a directory, as `hub.open_directory` reads it; no tensor is read.

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
    HubError
        If the model does not exist or is damaged.

    Examples
    --------
    >>> from lora_np.hub import located
    >>> open_model(located("austen")).config["model_type"]
    'llama'
    """
    found = open_directory(path)
    return OpenModel(found.path, found.files, found.places, found.config, found.index)
