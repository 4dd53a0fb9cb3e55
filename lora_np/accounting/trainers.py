"""Plans from the settings of a trainer: TRL, Axolotl or LLaMA-Factory."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from lora_np.accounting.activations import ITEMSIZE, OPTIMIZERS
from lora_np.accounting.memory import split
from lora_np.accounting.planning import METHODS, Plan, plan
from lora_np.checks import choice, needed, respelled, shown
from lora_np.files import FileError, open_regular, read_json
from lora_np.models import ALL_LINEAR

# What `plan` calls a setting, and what trainers do.
_NAMES = {
    "model": ("model_name_or_path", "base_model", "base_model_name_or_path"),
    "rank": ("lora_r", "lora_rank", "r"),
    "targets": ("lora_target_modules", "lora_target", "target_modules"),
    "modules_to_save": ("lora_modules_to_save", "additional_target", "modules_to_save"),
    "dora": ("use_dora", "peft_use_dora"),
    "double_quantization": (
        "double_quantization",
        "use_bnb_nested_quant",
        "bnb_4bit_use_double_quant",
    ),
    "optimizer": ("optim", "optimizer"),
    "batch_size": ("per_device_train_batch_size", "micro_batch_size"),
    "context": ("max_length", "max_seq_length", "sequence_len", "cutoff_len"),
    "checkpointing": ("gradient_checkpointing",),
}
_PARTS = ("LoraConfig", "SFTConfig", "ModelConfig", "args", "peft_config", "quantization_config")
_WAYS = {"finetuning_type": ("full", "lora"), "adapter": ("lora", "qlora"), "peft_type": ("LORA",)}
_NOT_COUNTED = (
    "activation_offloading", "context_parallel_size", "deepspeed", "enable_liger_kernel",
    "exclude_modules",
    "fsdp", "fsdp_config", "gptq", "layer_replication", "layers_to_transform",
    "liger_fused_linear_cross_entropy", "lora_on_cpu", "lora_target_parameters",
    "peft_layers_to_transform",
    "rank_pattern", "relora", "sequence_parallel_degree", "target_parameters",
    "tensor_parallel_size",
    "trainable_token_indices", "unfrozen_parameters", "use_apollo", "use_badam", "use_galore",
    "use_liger_kernel", "use_qalora", "use_unsloth",
)  # fmt: skip
_LARGEST = 2**16  # bytes of YAML, which takes a second and more for ten times as many


def plan_from(
    file: str | Path,
    *,
    card: str | int,
    model: Any = None,
    methods: Iterable[str] = (),
    **options: Any,
) -> Plan:
    """`plan` with the settings in a trainer's file, of which those given here take the place.

    Parameters
    ----------
    file : str or Path
        JSON or YAML: arguments of TRL, among them what its ``SFTConfig`` and PEFT's ``LoraConfig``
        save, or a config of Axolotl or LLaMA-Factory. YAML needs the library PyYAML (``pip install
        'lora-np[yaml]'``).
    card : str or int
        As for `plan`.
    model : object, optional
        Instead of the base model that the file names: a path, a preset, or a preset's name on the
        hub.
    methods : iterable of str, optional
        By default that of the file.
    **options
        As for `plan`.

    Returns
    -------
    Plan
        Its ``notes`` name what the file does not say, and what it says that is not counted.

    Raises
    ------
    ValueError
        If the file cannot be understood, names no base model, or a value is wrong.
    ImportError
        If YAML is to be read without PyYAML.

    Examples
    --------
    >>> import json, tempfile
    >>> path = Path(tempfile.mkdtemp()) / "sft.json"
    >>> _ = path.write_text(json.dumps({"base_model": "Qwen/Qwen3-4B", "adapter": "qlora",
    ...     "lora_r": 32}))
    >>> [(each.method, each.rank, each.verdict) for each in plan_from(path, card="T4",
    ...     context=1024).choices]
    [('QLoRA', 32, 'fits'), ('QLoRA', 32, 'fits')]
    """
    path = Path(file)
    fields = _fields(path)
    said, notes = _understood(fields)
    base = said.pop("model", None)
    if not (model or base):
        raise ValueError(f"{path} names no base model ({', '.join(_NAMES['model'])}): give one")
    (training, lora), asked = split(said), split(options)[1]
    few = (said | options).get("dtype") in ("int8", "nf4")
    ways = tuple(methods)
    # Axolotl trains in full unless an adapter is named; the others say so
    full = fields.get("finetuning_type") == "full" or fields.get("use_peft") is False
    if not ways and not asked and (full or ("base_model" in fields and "adapter" not in fields)):
        ways = ("full",)
    elif not ways and (lora or asked or few):
        ways = ("QLoRA" if few else "LoRA",)
    # what the file says of another way than the one that is asked for
    if ways == ("full",):
        lora = {}
    if ways and (training.get("dtype") in ITEMSIZE) == (ways == ("QLoRA",)):
        training.pop("dtype", None)
    found = plan(
        model or base, card=card, methods=ways or METHODS, **{**lora, **training, **options}
    )
    names = ("batch_size", "context", "optimizer", "checkpointing")
    if unsaid := [name for name in names if name not in said | options]:
        notes.append(f"Not in {path.name}, so as plan has it: {', '.join(unsaid)}.")
    return replace(found, notes=(*found.notes, *notes))


def _understood(fields: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The base model and options of `plan`, and what to know about them."""
    for name, known in _WAYS.items():
        choice(name, fields.get(name, known[0]), known)
    said = {
        ours: fields[each] for ours, names in _NAMES.items() for each in names if each in fields
    }
    if fields.get("lora_target_linear") or said.get("targets") == "all":
        said["targets"] = ALL_LINEAR
    for name in ("targets", "modules_to_save"):
        if (
            re.fullmatch(r"[\w.\s-]+(,[\w.\s-]+)*", text := str(said.get(name, "")))
            and text != ALL_LINEAR
        ):
            said[name] = [each.strip() for each in text.split(",")]
    if dtype := _dtype(fields):
        said["dtype"] = dtype
    if "disable_gradient_checkpointing" in fields:
        said["checkpointing"] = not fields["disable_gradient_checkpointing"]
    elif "checkpointing" in said:  # Axolotl's may be a word, such as offload
        said["checkpointing"] = bool(said["checkpointing"])
    notes = []
    if "optimizer" in said:
        # which library's it is does not matter
        said["optimizer"] = re.sub("_(torch|fused|hf|apex|bnb|32bit)", "", str(said["optimizer"]))
        if said["optimizer"] not in OPTIMIZERS:
            notes.append(f"plan counts adamw, not the optimizer {shown(said.pop('optimizer'))}.")
    if ignored := [name for name in _NOT_COUNTED if fields.get(name)]:
        notes.append(f"Not counted, though memory depends on it: {', '.join(ignored)}.")
    return said, notes


def _dtype(fields: Mapping[str, Any]) -> str | None:
    """How the base is held: in few bits, else as loaded, else as computed; None if the file does
    not say.
    """
    bits = fields.get("quantization_bit")
    if fields.get("load_in_4bit") or fields.get("adapter") == "qlora" or bits == 4:
        return "nf4"
    if fields.get("load_in_8bit") or bits == 8:
        return "int8"
    given = fields.get("dtype", fields.get("torch_dtype"))
    named = [name for name in ITEMSIZE if respelled(str(given)) == name]
    computed = [
        name for short, name in (("bf16", "bfloat16"), ("fp16", "float16")) if fields.get(short)
    ]
    return next(iter(named + computed), None)


def _fields(path: Path) -> dict[str, Any]:
    """What is set in a file, and in the parts of it that hold settings."""
    suffix = choice("the ending of the file", path.suffix.lower(), (".json", ".yaml", ".yml"))
    content = read_json(path) if suffix == ".json" else _yaml(path)
    parts = [content, *(content[name] for name in _PARTS if isinstance(content.get(name), dict))]
    return {
        name: value
        for part in parts
        for name, value in part.items()
        if value not in (None, "", [], {})
    }


def _yaml(path: Path) -> dict[str, Any]:
    yaml = needed("yaml", extra="yaml", why=f"{path}: YAML needs the library PyYAML")
    with open_regular(path) as file:
        data = file.read(_LARGEST + 1)
    try:  # an alias may stand for more than memory holds
        aliases = any(
            isinstance(each, yaml.AliasEvent) for each in yaml.parse(data, yaml.SafeLoader)
        )
        content = None if aliases else yaml.safe_load(data)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise FileError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict) or len(data) > _LARGEST:
        raise FileError(
            f"{path}: must hold settings by name, at most {_LARGEST:,} bytes, and no aliases"
        )
    return content
