"""How every causal language model of transformers is counted, as a page.

``python -m docs._ext.causal`` builds a model of each type on the meta device, with the defaults of
its config, and holds the count against it and against PEFT. It writes ``docs/reference/causal.md``,
and ``models/data/_kinds.json``: what headers do not say about the types that no file describes. It
needs the extra ``peers`` and takes some minutes; ``python -m docs._ext.causal TYPE`` renews the row
of a type.
"""

from __future__ import annotations

import copy
import importlib.metadata
import json
import struct
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reference" / "causal.md"
KINDS = ROOT / "lora_np" / "models" / "data" / "_kinds.json"
_LAYERS = 8  # where a config takes a number of them; more would only take longer
_ROPE = {"full_attention": {"rope_type": "default", "rope_theta": 10_000.0}}
_INDEXER = {
    "indexer_n_heads": 4,
    "indexer_kv_heads": 1,
    "indexer_head_dim": 256,
    "indexer_budget": 2048,
    "indexer_compress_ratio": 64,
}
# what a config needs to be built at all, where its own defaults do not do
FIELDS: dict[str, dict[str, Any]] = {
    "aya_vision": {
        "vision_config": {"model_type": "siglip_vision_model", "num_attention_heads": 16}
    },
    "chameleon": {"vocabulary_map": {"<image>": 5, "IMGIMGA": 6}},
    "cohere_compass": {"text_config": {"num_hidden_layers": _LAYERS, "rope_parameters": _ROPE}},
    "cohere_compass_text": {"rope_parameters": _ROPE},
    "dbrx": {"attn_config": {"rope_theta": 10_000.0}},
    "deepseek_ocr2": {
        "text_config": {
            "num_hidden_layers": _LAYERS,
            "mlp_layer_types": ["dense"] + ["sparse"] * (_LAYERS - 1),
        }
    },
    "diffusion_gemma": {
        "text_config": {
            "num_hidden_layers": _LAYERS,
            "num_experts": 4,
            "top_k_experts": 2,
            "moe_intermediate_size": 704,
        }
    },
    "dots1": {"n_routed_experts": 4, "n_shared_experts": 1},
    "gemma4_assistant": {
        "text_config": {
            "model_type": "gemma4_text",
            "num_hidden_layers": _LAYERS,
            "num_kv_shared_layers": _LAYERS,
            "hidden_size_per_layer_input": 0,
            "vocab_size_per_layer_input": 0,
        }
    },
    "granite4_vision": {"downsample_rate": "1/4", "deepstack_layer_map": [[-4, 0], [-2, 4]]},
    "hunyuan_v1_dense": {"head_dim": 128},
    "hunyuan_v1_moe": {"head_dim": 128},
    "hunyuan_vl": {"text_config": {"num_hidden_layers": _LAYERS, "head_dim": 128}},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * (_LAYERS // 2)},
    "ministral": {"head_dim": 128},
    "nemotron": {"num_key_value_heads": 8},
    "qwen4_exp": {"text_config": {"num_hidden_layers": _LAYERS, **_INDEXER}},
    "qwen4_exp_text": _INDEXER,
    "reformer": {"is_decoder": True},
}
# the class of a checkpoint, where the auto class takes its config for something else or not at all
_CLASSES = {
    "evolla": "EvollaForProteinText2Text",
    "musicgen": "MusicgenForConditionalGeneration",
    "musicgen_melody": "MusicgenMelodyForConditionalGeneration",
}
_CAUSAL, _SEEING = "AutoModelForCausalLM", "AutoModelForImageTextToText"
EXACT, HEADERS, REFUSED, UNCHECKED = "exact", "from headers", "refused", "not checked"


def types() -> dict[str, str]:
    """The model types that `AutoModelForCausalLM` knows, and then those that see; each with that
    class.
    """
    from transformers.models.auto import modeling_auto as auto

    seeing = dict.fromkeys(sorted(auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES), _SEEING)
    return dict.fromkeys(sorted(auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES), _CAUSAL) | {
        kind: name
        for kind, name in seeing.items()
        if kind not in auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    }


def build(kind: str) -> Any:
    """A model of this type on the meta device; the error of transformers where it builds none."""
    import torch
    import transformers

    fields = FIELDS.get(kind, {})
    with warnings.catch_warnings(), torch.device("meta"):
        warnings.simplefilter("ignore")
        for more in ({"num_hidden_layers": _LAYERS}, {}):
            try:
                config = transformers.AutoConfig.for_model(kind, **fields, **more)
                if kind in _CLASSES:
                    return getattr(transformers, _CLASSES[kind])._from_config(config)
                return getattr(transformers, types()[kind]).from_config(config)
            except Exception as error:  # whatever a config's own checks raise
                found = error
    raise found


def kinds_of(model: Any) -> dict[str, str]:
    """The kinds of modules that the shapes of their weights do not tell, by the ends of their
    names.
    """
    from lora_np.accounting import model_spec
    from lora_np.models.headers import guess, starred

    parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    kinds = {starred(name): "buffer" for name in model.state_dict() if name not in parameters}
    for module in model_spec(model).modules:
        name, kind = module.name, str(module.kind)
        if kind == "experts":
            kinds[starred(name)] = "transposed experts" if module.transposed else kind
            continue
        if kind == "convolution" and module.groups > 1:
            kind = "parameter"  # the number of groups is in no header
        elif kind == "parameter":
            name = name.removesuffix(".weight")
        if (kind != "parameter" or name != module.name) and guess(name, module.shape) != kind:
            kinds[starred(name)] = kind
    spec = model_spec(model)
    try:
        table = model.get_input_embeddings()
    except NotImplementedError:
        table = None
    if spec.head not in ("", "lm_head"):
        kinds[spec.head] = "head"
    name = next((name for name, module in model.named_modules() if module is table), "")
    tables = [module for module in spec.groups if module.kind == "embedding"]
    if tables and name not in ("", max(tables, key=lambda module: module.shape).name):
        kinds[name] = "table"
    return dict(sorted(kinds.items()))


def save_headers(model: Any, folder: Path) -> None:
    """A checkpoint as `save_pretrained` would write it, all of whose numbers are a hole in the
    file.
    """
    from transformers.core_model_loading import revert_weight_conversion

    seen: set[int] = set()
    state = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:  # a tied weight is saved once
            state[name] = tensor.detach()
        seen.add(id(tensor))
    header, place = {}, 0
    for name, tensor in revert_weight_conversion(model, state).items():
        end = place + 2 * tensor.numel()
        header[name] = {"dtype": "F16", "shape": list(tensor.shape), "data_offsets": [place, end]}
        place = end
    text = json.dumps(header).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + place)
    model.config.architectures = [type(model).__name__]
    model.config.to_json_file(folder / "config.json", use_diff=False)


def described(model: Any) -> Any:
    """The model from its config alone, or None where no file describes it."""
    from lora_np.models import family_names, family_of, from_config

    kind, name = model.config.model_type, type(model).__name__
    if kind not in family_names() or name not in {
        family_of(kind).classes + task for task in family_of(kind).tasks
    }:
        return None
    return from_config({**model.config.to_dict(), "architectures": [name]})


def from_headers(model: Any) -> Any:
    """The model from a checkpoint's headers."""
    from lora_np.models import from_safetensors

    with tempfile.TemporaryDirectory() as folder:
        save_headers(model, Path(folder))
        return from_safetensors(folder)


def differences(model: Any, spec: Any) -> str:
    """In what ``spec`` is not the model, or a count not PEFT's; empty if in nothing."""
    import peft

    from lora_np.accounting import count_model
    from tests.models.test_families import linear_maps

    total = sum(parameter.numel() for parameter in model.parameters())
    if spec.total != total:
        return f"{spec.total:,} parameters, not {total:,}"
    maps = linear_maps(model)
    ours = {module.name: module.shape for module in spec.modules if module.kind == "linear"}
    if ours != maps:
        first = min(set(ours.items()) ^ set(maps.items()))[0]
        return f"its linear layers are not those that transformers builds, first {first}"
    try:
        count = count_model(spec, rank=4, targets="all-linear")
        found: Any = (count.trainable, count.total)
    except ValueError as error:
        found = str(error)
    try:
        config = peft.LoraConfig(r=4, target_modules="all-linear")
        theirs: Any = peft.get_peft_model(
            copy.deepcopy(model), config
        ).get_nb_trainable_parameters()
    except (ValueError, NotImplementedError) as error:
        return "" if isinstance(found, str) else f"PEFT refuses: {error}"
    return "" if found == theirs else f"{found} is not PEFT's {theirs}"


def row(kind: str, model: Any) -> tuple[str, str]:
    """How a type is counted, and a remark. A refusal that the package already has is determined
    again.
    """
    from lora_np.models.headers import MEMORY, kinds_by_type

    if isinstance(model, Exception):
        why = " ".join(str(model).replace("|", "/").split())
        return (
            UNCHECKED,
            f"transformers builds none from the defaults: {why.partition('. ')[0][:150]}",
        )
    table = kinds_by_type()
    said = table.get(kind)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            spec = described(model)
            if spec is None:
                if isinstance(said, str):
                    table[kind] = kinds_of(model)
                spec, sure = from_headers(model), HEADERS
            else:
                sure = EXACT
            wrong = differences(model, spec)
        except ValueError as error:
            return REFUSED, str(error).split(": ", 2)[2].removesuffix(f"; {MEMORY}")
        finally:
            if said is not None:
                table[kind] = said
    return (REFUSED, wrong) if wrong else (sure, "")


def page(rows: dict[str, tuple[str, str]]) -> str:
    """The page."""
    version = importlib.metadata.version("transformers")
    lines = [
        "# Every language model of transformers",
        "",
        "This page lists how `lora-np count` counts a model of each type in transformers"
        f" {version}:",
        "",
        (
            "- *exact*: from its `config.json` alone. The total, names and shapes of all linear"
            " layers, and PEFT's count for `all-linear` agree."
        ),
        (
            "- *from headers*: from the directory of a checkpoint. For a checkpoint of a usual"
            " model the same values agree, and the report lists the assumptions."
        ),
        "- *refused*: an error says why.",
        ("- *not checked*: from headers, by the rules for unknown types; nothing was compared."),
        "",
        (
            "A model in memory or on the meta device is counted exactly, whatever its type."
            " `python -m docs._ext.causal` makes these tables with the default config of each type,"
            " and a test fails if they no longer hold."
        ),
    ]
    for auto, title in ((_CAUSAL, "Causal language models"), (_SEEING, "Vision-language models")):
        mine = {kind: found for kind, found in rows.items() if types()[kind] == auto}
        words = (EXACT, HEADERS, REFUSED, UNCHECKED)
        counts = [f"{sum(found == word for found, _ in mine.values())} {word}" for word in words]
        lines += [
            "",
            f"## {title}",
            "",
            f"{len(mine)} types: {', '.join(counts)}.",
            "",
            "| model type | counted | remark |",
            "|---|---|---|",
            *(f"| `{kind}` | {found} | {why} |" for kind, (found, why) in mine.items()),
        ]
    return "\n".join(lines) + "\n"


def written() -> dict[str, tuple[str, str]]:
    """The rows of the page as it is."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    cells = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("| `")
    ]
    return {kind.strip("`"): (found, why) for kind, found, why in cells}


def is_newer() -> bool:
    """Whether the installed transformers is not the release that the page was made with."""
    return f"transformers {importlib.metadata.version('transformers')}:" not in PAGE.read_text()


def main(only: list[str]) -> None:
    """Write both files; where some types are named, with all other rows as they were."""
    from lora_np.models.headers import kinds_by_type

    table: dict[str, Any] = kinds_by_type()
    rows = written() if only else {}
    if not only:
        table.clear()
    models = {}
    for kind in only or types():
        table.pop(kind, None)
        try:
            models[kind] = build(kind)
        except Exception as error:
            models[kind] = error
        else:
            if described(models[kind]) is None:
                table[kind] = kinds_of(models[kind])
    # only now: the model of one type may have the config of another
    for kind, model in models.items():
        rows[kind] = row(kind, model)
        print(kind, *rows[kind], file=sys.stderr, flush=True)
    for kind, (found, why) in rows.items():
        if found == REFUSED and kind in table:  # the package refuses it as well
            table[kind] = why
    lines = ",\n".join(
        f"{json.dumps(kind)}: {json.dumps(kinds)}" for kind, kinds in sorted(table.items())
    )
    KINDS.write_text(f"{{{lines}}}\n", encoding="utf-8")
    PAGE.write_text(page(rows), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
