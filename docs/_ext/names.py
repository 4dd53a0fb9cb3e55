"""Which tensors transformers renames or fuses when it loads, as data.

``python -m docs._ext.names`` writes ``models/data/_names.json`` from the table of the installed
transformers (``conversion_mapping.py``, Apache License 2.0) for all language models, models with a
vision part, and families that are described.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

TARGET = Path(__file__).parents[2] / "lora_np" / "models" / "data" / "_names.json"
# that may have rules without their type
_CLASSES = ("ForConditionalGeneration", "ForCausalLM", "Model")


def wanted() -> set[str]:
    """The model types that the file describes."""
    from transformers.models.auto import modeling_auto as auto

    from lora_np.models import family_names

    return {
        *auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        *auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
        *family_names(),
        *(
            f"{name}_{part}"
            for name in ("clip", "siglip", "siglip2")
            for part in ("vision_model", "text_model")
        ),
    }


def rules() -> dict[str, Any]:
    """Types by their rules, those with several parts and none, and those whose rules are left
    out.
    """
    from peft import utils
    from transformers.conversion_mapping import _build_checkpoint_conversion_mapping
    from transformers.models.auto import modeling_auto as auto

    table = _build_checkpoint_conversion_mapping()
    groups: dict[str, list[str]] = {}
    others = []
    chosen = wanted()
    for kind in sorted(
        {*auto.MODEL_MAPPING_NAMES, *chosen, *(key for key in table if key == key.lower())}
    ):
        base = auto.MODEL_MAPPING_NAMES.get(kind, "")
        stem = (base if isinstance(base, str) else base[0]).removesuffix("Model")
        keys = [kind, *(stem + end for end in _CLASSES)]
        found = next((table[key] for key in keys if key in table), None)
        if found is None:
            continue
        if kind not in chosen:
            others.append(kind)
            continue
        groups.setdefault(json.dumps([_rule(each) for each in found]), []).append(kind)
    ruled = {kind for types in groups.values() for kind in types}
    return {
        "same": sorted(chosen - ruled),
        "fused": fused(),
        "targets": dict(sorted(utils.TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING.items())),
        "rules": [{"types": types, "rules": json.loads(text)} for text, types in groups.items()],
        "others": others,
    }


def fused() -> list[dict[str, Any]]:
    """Types whose experts were separate once: the names that PEFT still takes, and what they mean
    now.
    """
    from peft.utils import transformers_weight_conversion as conversion

    # as in _convert_peft_config_moe and what calls it
    types: dict[str, list[str]] = {}
    for kind, like in sorted(conversion._MODEL_TO_CONVERSION_PATTERN.items()):
        if (
            conversion.get_checkpoint_conversion_mapping(kind)
            and like in conversion._MOE_FUSED_TARGETS
        ):
            types.setdefault(like, []).append(kind)
    return [
        {"types": found, "names": conversion._MOE_TARGET_MODULE_MAPPING[like]}
        for like, found in types.items()
    ]


def _rule(transform: Any) -> dict[str, Any]:
    """One entry: a rename, experts that are stacked, or what this package does not undo."""
    sources, targets = list(transform.source_patterns), list(transform.target_patterns)
    operations = [type(operation).__name__ for operation in getattr(transform, "operations", [])]
    if type(transform).__name__ in ("WeightRenaming", "PrefixChange") and len(targets) == 1:
        return {"rename": sources, "to": targets[0].replace("\\.", ".")}
    if operations in (["MergeModulelist"], ["MergeModulelist", "Concatenate"]):
        return {"experts": sources, "to": targets[0].replace("\\.", ".")}
    if operations == ["Transpose"] and sources == targets:
        return {"transpose": sources, "to": targets[0]}
    return {"unread": sources or operations}


def text() -> str:
    """The content of the file."""
    found = rules()
    lines = [json.dumps(each) for each in found["rules"]]
    body = ",\n".join(lines)
    rest = "".join(f'"{key}": {json.dumps(found[key])},\n' for key in found if key != "rules")
    return f'{{{rest}"rules": [\n{body}\n]}}\n'


if __name__ == "__main__":
    TARGET.write_text(text(), encoding="utf-8")
    print(f"{TARGET}: {TARGET.stat().st_size:,} bytes", file=sys.stderr)
