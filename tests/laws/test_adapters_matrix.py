"""Whatever PEFT's LoRA writes: many bases, every way to write a config, judged by PEFT's own
logits.
"""

from __future__ import annotations

import copy
import re
import warnings
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest

from lora_np import accounting, adapters
from lora_np.files import FileError
from lora_np.models.families import family_names, family_of
from tests import rounding
from tests.drawing import few
from tests.laws.test_models_adapted import inputs as of_tokens
from tests.models import family_cases, test_families

pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore")]

_ROUTED = {**family_cases.ROUTED, "shared_expert_intermediate_size": 20}
_JAMBA = {
    **family_cases.LOCAL, "num_experts": 2, "attn_layer_period": 2, "attn_layer_offset": 1, "mamba_d_state": 4,
    "expert_layer_period": 2, "expert_layer_offset": 1, "use_mamba_kernels": False,
}  # fmt: skip
BASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "llama": ("llama", "ForCausalLM", {**family_cases.GROUPED, "attention_bias": True}),
    "mistral": ("mistral", "ForCausalLM", family_cases.GROUPED),
    "qwen2": ("qwen2", "ForCausalLM", {**family_cases.GROUPED, "tie_word_embeddings": True}),
    "qwen3": ("qwen3", "ForCausalLM", {**family_cases.GROUPED, "head_dim": 12}),
    "gemma": ("gemma", "ForCausalLM", {**family_cases.GROUPED, "head_dim": 8}),
    "gemma2": ("gemma2", "ForCausalLM", {**family_cases.GROUPED, "head_dim": 12}),
    "gemma3": ("gemma3_text", "ForCausalLM", {**family_cases.GROUPED, "head_dim": 12}),
    "phi3": ("phi3", "ForCausalLM", family_cases.GROUPED),
    "gpt2": ("gpt2", "LMHeadModel", test_families.GPT2),
    "gpt_neox": ("gpt_neox", "ForCausalLM", test_families.DECODER),
    "opt": ("opt", "ForCausalLM", test_families.OPT),
    "bloom": ("bloom", "ForCausalLM", test_families.BLOOM),
    "falcon": ("falcon", "ForCausalLM", test_families.FALCON),
    "bert": ("bert", "ForMaskedLM", test_families.ENCODER),
    "roberta": ("roberta", "ForMaskedLM", test_families.ENCODER),
    "distilbert": ("distilbert", "ForMaskedLM", {
        "dim": 32, "n_heads": 4, "n_layers": 2, "hidden_dim": 40, "vocab_size": 97,
    }),
    "deberta": ("deberta-v2", "ForMaskedLM", test_families.ENCODER),
    "t5": ("t5", "ForConditionalGeneration", test_families.T5),
    "bart": ("bart", "ForConditionalGeneration", family_cases.BART),
    "mixtral": ("mixtral", "ForCausalLM", family_cases.LOCAL),
    "qwen2_moe": ("qwen2_moe", "ForCausalLM", {**_ROUTED, "mlp_only_layers": [1], "num_hidden_layers": 3}),
    "qwen3_moe": ("qwen3_moe", "ForCausalLM", {**_ROUTED, "head_dim": 12}),
    "qwen3_next": ("qwen3_next", "ForCausalLM", family_cases.DELTA),
    "gpt_oss": ("gpt_oss", "ForCausalLM", {**family_cases.LOCAL, "head_dim": 12}),
    "llama4": ("llama4_text", "ForCausalLM", {**family_cases.LOCAL, "head_dim": 12, "intermediate_size_mlp": 50}),
    "jamba": ("jamba", "ForCausalLM", _JAMBA),
    "vit": ("vit", "ForImageClassification", {**family_cases.VISION, "num_labels": 5}),
    "clip": ("clip", "Model", {
        "text_config": {**family_cases.TEXT, "max_position_embeddings": 9},
        "vision_config": family_cases.VISION, "projection_dim": 10,
    }),
    "whisper": ("whisper", "ForConditionalGeneration", test_families.WHISPER),
}  # fmt: skip


@dataclass
class Parts:
    """The names in a model that a config can mean."""

    linear: list[str]
    leaves: list[str]
    embedding: str
    head: str
    norms: list[str]
    stacks: list[str]
    convolutions: list[str]
    gates: list[str]


def parts_of(model: Any) -> Parts:
    import torch
    from transformers.pytorch_utils import Conv1D

    modules = dict(model.named_modules())
    output = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    linear = [
        name
        for name, module in modules.items()
        if isinstance(module, (torch.nn.Linear, Conv1D)) and module is not output
    ]
    tables = [name for name, module in modules.items() if isinstance(module, torch.nn.Embedding)]
    owner = {
        f"{name}.{key}"
        for name, module in modules.items()
        for key, _ in module.named_parameters(recurse=False)
    }
    return Parts(
        linear=linear,
        leaves=list(dict.fromkeys(name.rpartition(".")[2] for name in linear)),
        embedding=tables[0].rpartition(".")[2] if tables else "",
        head=next((name for name, module in modules.items() if module is output), ""),
        norms=[name for name, module in modules.items() if type(module).__name__.endswith("Norm") and [*module.parameters()]],
        stacks=[name for name in owner if model.get_parameter(name).ndim == 3 and "experts" in name],
        convolutions=[name for name, module in modules.items() if type(module).__name__.startswith("Conv") and module.__module__.startswith("torch") and module.groups == 1],
        gates=[name for name in owner if name.endswith(("gate.weight", "router.weight"))],
    )  # fmt: skip


def ways(parts: Parts, family: str = "") -> dict[str, dict[str, Any] | None]:
    """Configs by what is unusual about them; None where the model has no such part."""
    some = parts.leaves[:2]
    first = parts.linear[0]
    stacks = sorted({name.rpartition(".")[2] for name in parts.stacks})
    table, head = parts.embedding, parts.head
    old = ["w1", "w2", "w3"] if family == "mixtral" else ["gate_proj", "up_proj", "down_proj"]

    def if_(part: Any, **config: Any) -> dict[str, Any] | None:
        return config if part else None

    return {
        "all-linear": {"target_modules": "all-linear"},
        "names": {"target_modules": parts.leaves},
        "default": {"target_modules": None},
        "one path": {"target_modules": [first]},
        "expression": {"target_modules": rf".*\b({'|'.join(map(re.escape, some))})"},
        "classifier": {"target_modules": some, "task_type": "SEQ_CLS"},
        "classifier all-linear": {"target_modules": "all-linear", "task_type": "SEQ_CLS"},
        "rslora": {"target_modules": some, "use_rslora": True},
        "dora": {"target_modules": some, "use_dora": True},
        "lora_bias": {"target_modules": some, "lora_bias": True},
        "lora_bias all-linear": {"target_modules": "all-linear", "lora_bias": True},
        "bias all": {"target_modules": some, "bias": "all"},
        "bias lora_only": {"target_modules": some, "bias": "lora_only"},
        "rank pattern": {"target_modules": parts.leaves, "rank_pattern": dict(sorted({some[-1]: 5, re.escape(first): 2}.items()))},
        "alpha pattern": {"target_modules": some, "alpha_pattern": {f"^{re.escape(first)}": 7, some[0]: 3}},
        "layers": {"target_modules": parts.leaves, "layers_to_transform": [1]},
        "exclude": {"target_modules": "all-linear", "exclude_modules": some[:1]},
        "exclude expression": {"target_modules": parts.leaves, "exclude_modules": r".*\.0\..*"},
        "saved norm": if_(parts.norms, target_modules=some, modules_to_save=parts.norms[-1:]),
        "saved norms": if_(parts.norms, target_modules=some, modules_to_save=[parts.norms[0].rpartition(".")[2]] if parts.norms else []),
        "saved linear": if_(len(some) > 1, target_modules=some[:1], modules_to_save=some[1:]),
        "saved head": if_(head, target_modules=some, modules_to_save=[head]),
        "saved table": if_(table, target_modules=some, modules_to_save=[table]),
        "saved table and head": if_(table and head, target_modules=some, modules_to_save=[table, head]),
        "head": if_(head, target_modules=[head, *some]),
        "table": if_(table, target_modules=[table, *some]),
        "table and head": if_(table and head, target_modules=[table, head]),
        "table dora": if_(table, target_modules=[table, *some], use_dora=True),
        "table expression": if_(table, target_modules=rf".*({table}|{some[0]})"),
        "tying": if_(table, target_modules=[table, *some], ensure_weight_tying=True),
        "tying head": if_(head, target_modules=[head, *some], ensure_weight_tying=True),
        "tying saved": if_(table, target_modules=some, modules_to_save=[table], ensure_weight_tying=True),
        "tying tokens": if_(table, target_modules=some, trainable_token_indices=[1, 4], ensure_weight_tying=True),
        "tokens": if_(table, target_modules=some, trainable_token_indices=[4, 9, 5]),
        "tokens alone": if_(table, target_modules=[], trainable_token_indices={table: [4, 9, 5]}),
        "tokens of both": if_(table and head, target_modules=some, trainable_token_indices={table: [4], head: [5, 7]}),
        "empty": {"target_modules": [], "target_parameters": [f"{first}.weight"]},
        "parameters": {"target_modules": None, "target_parameters": [f"{some[0]}.weight"]},
        "experts": if_(stacks, target_modules=[], target_parameters=stacks),
        "experts and linear": if_(stacks, target_modules=some, target_parameters=[f"experts.{name}" for name in stacks]),
        "one stack": if_(stacks, target_modules=[], target_parameters=[parts.stacks[-1]] if stacks else []),
        "end of a stack": if_(stacks, target_modules=[], target_parameters=[parts.stacks[0].split(".layers.")[-1]] if stacks else []),
        "stacks of some layers": if_(stacks, target_modules=[], target_parameters=[*parts.stacks[:1], stacks[0]] if stacks else []),
        "experts by old names": if_(stacks, target_modules=old),
        "one expert by old name": if_(stacks, target_modules=["down_proj" if "down_proj" in old else "w2"]),
        "experts with ranks": if_(stacks, target_modules="all-linear", rank_pattern={r".*\.experts\.down_proj": 2}),
        "router": if_(parts.gates, target_modules=[], target_parameters=[parts.gates[0]] if parts.gates else []),
        "convolution": if_(parts.convolutions, target_modules=[*parts.convolutions, *some]),
        "gaussian": {"target_modules": some, "init_lora_weights": "gaussian"},
        "orthogonal": {"target_modules": some, "init_lora_weights": "orthogonal"},
        "mica": {"target_modules": some, "init_lora_weights": "mica"},
        "mica table": if_(table, target_modules=[table, *some], init_lora_weights="mica"),
        "pissa": {"target_modules": some, "init_lora_weights": "pissa"},
        "pissa patterns": {"target_modules": some, "init_lora_weights": "pissa", "use_rslora": True, "rank_pattern": {some[0]: 2}},
        "olora": {"target_modules": some, "init_lora_weights": "olora"},
    }  # fmt: skip


@cache
def base_of(name: str, *, classifier: bool) -> Any:
    """A small model with random weights, kept for all its configs."""
    import importlib

    import torch
    import transformers

    family, task, fields = BASES[name]
    special = (
        {"eos_token_id": 3, "bos_token_id": 2, "pad_token_id": 0} if "vocab_size" in fields else {}
    )
    config = transformers.AutoConfig.for_model(family, **{**fields, **special})
    home = importlib.import_module(type(config).__module__.replace("configuration", "modeling"))
    ending = "ForSequenceClassification" if classifier else task
    prefix = family_of(family).classes if family in family_names() else "Jamba"
    kind = getattr(home, prefix + ending, None)
    if kind is None:
        return None
    torch.manual_seed(len(name))
    model = kind(config).float().eval()
    with torch.no_grad():  # the biases that transformers starts at zero say nothing
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    with TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        try:
            return kind.from_pretrained(folder).float().eval()
        except RuntimeError:  # classifiers of Gemma 3, which transformers does not reload
            return None


_WAYS = list(ways(Parts(["l.0.a", "l.0.b"], ["a", "b"], "e", "h", ["n"], ["s"], ["c"], ["g"])))
CASES = list(product(BASES, _WAYS))

# What is refused, or is not what PEFT's forward pass gives: base, way, what is said, and why.
KNOWN = [
    (
        ".*", "lora_bias.*", "merge: .*to which the bias of B could be added",
        "the merged checkpoint would need biases that the model does not have; PEFT refuses to merge as well",
    ),
    (
        "t5", ".*(table|head|tying|tokens).*", "merge: .*this type always share them",
        "transformers ties all four embeddings of a T5, whatever the config says",
    ),
    (
        "qwen3_next", ".*pissa.*", r"merge: differs by \d\.\de-0[56]",
        "the rounding of merged weights grows in its recurrence",
    ),
    (
        "jamba", ".*", "merge: differs|resize: differs",
        "a Jamba uses the weight of dt_proj without calling it, so that PEFT's forward pass ignores the adapter "
        "there, and its merge does not",
    ),
]  # fmt: skip


def is_known(base: str, way: str, said: str) -> bool:
    return any(
        re.fullmatch(bases, base) and re.fullmatch(kinds, way) and re.match(message, said)
        for bases, kinds, message, _ in KNOWN
    )


def inputs(model: Any) -> dict[str, Any]:
    import torch

    pictures = {"pixel_values": torch.linspace(-1, 1, 3 * 28 * 28).reshape(1, 3, 28, 28)}
    return of_tokens(model) | (pictures if model.config.model_type == "clip" else {})


def outputs(model: Any, given: dict[str, Any]) -> Any:
    """Every number of what the model returns, but for its caches."""
    import torch

    with torch.no_grad():
        found = model(**given, return_dict=True)
    return np.concatenate(
        [each.numpy().ravel() for each in found.values() if isinstance(each, torch.Tensor)]
    )


def randomise(model: Any, strength: float) -> None:
    """Adapters as if trained: B is not zero, magnitudes and rows are not what they start as."""
    import torch

    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not parameter.requires_grad:
                continue
            if "magnitude" in name:
                parameter.mul_(1 + 0.3 * torch.rand_like(parameter))
            else:
                parameter.add_((strength if "lora_" in name else 0.1) * torch.randn_like(parameter))


class SkippedError(Exception):
    """PEFT does not make or reload such an adapter."""


def attempt(name: str, way: str, folder: Path) -> list[str]:
    """What goes wrong with one config; `SkippedError` where PEFT does not do it."""
    import peft
    import torch

    model = base_of(name, classifier=way.startswith("classifier"))
    if model is None:
        raise SkippedError("no such class")
    parts = parts_of(model)
    options, head = ways(parts, name)[way], parts.head
    if options is None:
        raise SkippedError("no such part")
    if name == "gpt2":
        options.setdefault("fan_in_fan_out", True)
    model.save_pretrained(folder / "base")
    given = inputs(model)
    before = outputs(model, given)
    torch.manual_seed(0)
    try:
        config = peft.LoraConfig(r=4, lora_alpha=6, **options)
        original = copy.deepcopy(config)
        theirs = peft.get_peft_model(copy.deepcopy(model), config).eval()
        expected = theirs.get_nb_trainable_parameters()
        # whose recurrence makes rounding grow
        randomise(theirs, 0.1 if name == "qwen3_next" else 0.3)
        after = outputs(theirs, given)
        theirs.save_pretrained(folder / "adapter")
        again = reloaded(model, folder / "adapter")
        change = np.abs(after - before).max()
        if not np.isfinite(after).all() or change < 1e-4:
            raise SkippedError("no change")
        if np.abs(outputs(again, given) - after).max() > 1e-5 * change:
            raise SkippedError("PEFT reloads another model")
    except SkippedError:
        raise
    except Exception as error:  # of any kind: it is PEFT's
        raise SkippedError(f"PEFT: {type(error).__name__} {error}"[:200]) from None

    wrong = []

    def tried(what: str, act: Any) -> None:
        try:
            said = act()
        except (FileError, ValueError, TypeError) as error:
            said = f"{type(error).__name__}: {error}".replace(str(folder), "")
        if said:
            wrong.append(f"{what}: {said}")

    def counted() -> str:
        sources = (folder / "base", model)
        configs = {"saved": folder / "adapter", "given": original}
        found = {
            f"{kind} of {'memory' if source is model else 'disk'}": accounting.count(
                source, config=each
            )
            for source in sources
            for kind, each in configs.items()
        }
        return ", ".join(
            f"{kind} {each.trainable, each.total} for {expected}"
            for kind, each in found.items()
            if (each.trainable, each.total) != expected
        )

    exact = outputs(rounding.torch_in_double(theirs), given)

    def distance(model: Any, wanted: Any = after, right: Any = exact) -> str:
        far = rounding.error(outputs(model, given), right)
        return "" if far <= rounding.allowed(wanted, right) else f"differs by {far:.1e}"

    def merged(adapter: str, out: str) -> Any:
        adapters.merge(folder / "base", folder / adapter, folder / out)
        made = type(model).from_pretrained(folder / out).float().eval()
        if (
            head
            and type(again.base_model.model.get_submodule(head)).__name__
            == "TrainableTokensWrapper"
        ):
            made.get_output_embeddings().bias = None  # which PEFT forgets in its layer for rows
        return made

    def resized() -> str:
        ordinary = adapters.load(folder / "adapter")
        if ordinary.init:  # PiSSA and OLoRA
            ordinary = adapters.to_lora(ordinary, base=folder / "base", any_base=True)
        adapters.resize(ordinary, folder / "small", rank=2)
        small = reloaded(model, folder / "small")
        if any("merge: FileError" in each for each in wrong):  # so is that of this one
            return ""
        right = outputs(rounding.torch_in_double(small), given)
        return distance(merged("small", "merged small"), outputs(small, given), right)

    def saved() -> str:
        adapters.save(adapters.load(folder / "adapter"), folder / "again")
        return distance(reloaded(model, folder / "again"))

    tried("inspect", lambda: str(adapters.inspect(folder / "adapter").table) and "")
    tried("count", counted)
    tried("merge", lambda: distance(merged("adapter", "merged")))
    tried("resize", resized)
    tried("save", saved)
    return wrong


def reloaded(model: Any, path: Path) -> Any:
    import peft

    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*missing adapter keys.*")
        return peft.PeftModel.from_pretrained(copy.deepcopy(model), path).eval()


@pytest.mark.parametrize(("base", "way"), few(CASES, 23), ids=str)
def test_what_peft_reloads_is_read_counted_merged_resized_and_saved(
    base: str, way: str, tmp_path: Path
) -> None:
    try:
        wrong = attempt(base, way, tmp_path)
    except SkippedError as reason:
        pytest.skip(str(reason))
    assert not [each for each in wrong if not is_known(base, way, each)]
