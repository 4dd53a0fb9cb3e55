"""From a name in a checkpoint to the path of the module that transformers makes of it.

They differ for vision-language models, whose checkpoints keep the names of older versions. Source:
transformers 5, ``conversion_mapping.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_LLAVA = (
    ("language_model.lm_head", "lm_head"),
    ("language_model.model", "model.language_model"),
    ("language_model", "model.language_model"),
    ("vision_tower", "model.vision_tower"),
    ("multi_modal_projector", "model.multi_modal_projector"),
    ("image_newline", "model.image_newline"),
)
_QWEN2_VL = (
    ("visual", "model.visual"),
    ("model.visual", "model.visual"),
    ("model.language_model", "model.language_model"),
    ("model", "model.language_model"),
)
_BEGINNINGS: dict[str, tuple[tuple[str, str], ...]] = {
    **dict.fromkeys(
        (
            "aya_vision", "gemma3", "got_ocr2", "internvl", "llava", "llava_next", "llava_next_video",
            "llava_onevision", "mistral3", "paligemma", "vipllava",
        ),
        _LLAVA,
    ),
    **dict.fromkeys(("qwen2_vl", "qwen2_5_vl"), _QWEN2_VL),
    **dict.fromkeys(("qwen3_vl", "qwen3_vl_moe"), ()),
}  # fmt: skip


def module_path(name: str, config: Mapping[str, Any]) -> str:
    """The path in the live model of what a checkpoint calls ``name``.

    Parameters
    ----------
    name : str
        Of a tensor.
    config : mapping
        The fields of the checkpoint's ``config.json``.

    Returns
    -------
    str
        The same name, unless transformers renames it.

    See Also
    --------
    names_are_known : Whether that can be told.

    Examples
    --------
    >>> module_path("language_model.model.layers.0.mlp.up_proj.weight", {"model_type": "gemma3"})
    'model.language_model.layers.0.mlp.up_proj.weight'
    """
    for before, after in _BEGINNINGS.get(str(config.get("model_type")), ()):
        if name == before or name.startswith(f"{before}."):
            return after + name[len(before) :]
    return name


def names_are_known(config: Mapping[str, Any]) -> bool:
    """Whether `module_path` knows what becomes of a model's names: of all but some that see or hear.

    Parameters
    ----------
    config : mapping
        The fields of a ``config.json``.

    Returns
    -------
    bool
        False for a model with a vision or an audio part of a type that is not in the table.

    See Also
    --------
    module_path : The name itself.
    """
    composite = any(key in config for key in ("vision_config", "audio_config"))
    return not composite or config.get("model_type") in _BEGINNINGS
