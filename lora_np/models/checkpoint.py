"""A model's weights on the disk, by the names that its parameters have in the live model."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from lora_np.hub import HubError, ModelDirectory, open_directory
from lora_np.models.names import NameMap, Place

HEAD = "lm_head.weight"
_HEADED = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")  # how a class with a head ends
_TIED = ("embed_tokens.weight", "wte.weight", "word_embeddings.weight", "embed_in.weight")


@dataclass(frozen=True, eq=False)
class OpenModel(ModelDirectory):
    """The tensors of a model, and where each of them goes in the live model; made by `open_model`."""

    @property
    def tied_embedding(self) -> str | None:
        """The embedding that serves a language model as its head, if the checkpoint has no separate head."""
        architectures = self.config.get("architectures") or []
        has_head = any(str(name).endswith(_HEADED) for name in architectures)
        if HEAD in self.parameters or not has_head or self.config.get("is_encoder_decoder"):
            return None
        return next((name for name in self.places if name.endswith(_TIED)), None)

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
        with a head and the other from its body alone: then all names differ by one segment at the front
        (``bert.encoder...`` and ``encoder...``).
        """
        names, parameters = NameMap(self.config), self.parameters

        def tensor(name: str) -> str:
            place = names.place(name)
            for live in (name, place.parameter if place else name):
                if len(parameters.get(live, ())) == 1:
                    return next(iter(parameters[live]))
            return name

        wanted = list(wanted)
        fronts = sorted({name.partition(".")[0] for name in parameters})
        ways: list[Callable[[str], str]] = [
            tensor,
            lambda name: tensor(name.partition(".")[2]),
            *[lambda name, front=front: tensor(f"{front}.{name}") for front in fronts],
        ]
        return max(ways, key=lambda way: sum(way(name) in self.places for name in wanted))


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
