"""What check and repair say of names, judged by PEFT's and mlx-lm's own outputs.

What is *fine* has the outputs of the adapter as it was trained, what is *ignored* those of the base,
and what is *refused* is an error of the program.
"""

import copy
import json
import re
import shutil
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest

from lora_np import adapters
from lora_np.adapters.peft_format import WEIGHTS
from lora_np.adapters.runtimes import write_mlx
from lora_np.files import FileError
from lora_np.hub import safetensors
from tests.adapters.name_cases import CASES, WAYS, WRAPPERS
from tests.drawing import few

pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore")]

TOKENS = [[3, 1, 4, 1, 5]]
TEXT = {
    "vocab_size": 97, "hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "tie_word_embeddings": False,
}  # fmt: skip
EYES = {"hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 32}
SQUARE = {
    **TEXT,
    "vocab_size": 32,
    "intermediate_size": 32,
    "num_key_value_heads": 4,
    "num_experts": 2,
    "num_local_experts": 2,
    "num_experts_per_tok": 1,
    "moe_intermediate_size": 16,
}
SEEN = {
    "vision_config": {**EYES, "depth": 1, "deepstack_visual_indexes": [0]},
    "image_token_id": 28,
    "video_token_id": 29,
    "vision_start_token_id": 30,
    "vision_end_token_id": 31,
}
MROPE = {
    "rope_parameters": {"rope_type": "default", "mrope_section": [2, 1, 1], "rope_theta": 10000.0}
}
CONFIGS = {
    "llama": ("LlamaForCausalLM", TEXT),
    "qwen3": ("Qwen3ForCausalLM", TEXT),
    "qwen3 without head": ("Qwen3Model", TEXT),
    "qwen3_vl": ("Qwen3VLForConditionalGeneration", {
        "text_config": {**TEXT, "rope_parameters": {"rope_type": "default", "mrope_section": [2, 1, 1], "rope_theta": 10000.0}},
        "vision_config": {**EYES, "depth": 1, "deepstack_visual_indexes": [0]},
        "image_token_id": 90, "video_token_id": 91, "vision_start_token_id": 92, "vision_end_token_id": 93,
    }),
    "gemma3_text": ("Gemma3ForCausalLM", TEXT),
    "gemma3": ("Gemma3ForConditionalGeneration", {
        "text_config": TEXT, "mm_tokens_per_image": 4, "image_token_index": 90, "boi_token_index": 91, "eoi_token_index": 92,
        "vision_config": {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 8, "patch_size": 4},
    }),
    "gpt2": ("GPT2LMHeadModel", {"vocab_size": 97, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 16}),
    "bert": ("BertForMaskedLM", {**TEXT, "max_position_embeddings": 16}),
    "bert without head": ("BertModel", {**TEXT, "max_position_embeddings": 16}),
    "mixtral": ("MixtralForCausalLM", {**TEXT, "num_local_experts": 2, "num_experts_per_tok": 1}),
    "llama square": ("LlamaForCausalLM", SQUARE),
    "gpt2 square": ("GPT2LMHeadModel", {"vocab_size": 32, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 32, "n_inner": 32}),
    "mixtral square": ("MixtralForCausalLM", SQUARE),
    "qwen3_moe square": ("Qwen3MoeForCausalLM", SQUARE),
    "qwen3_vl_moe square": ("Qwen3VLMoeForConditionalGeneration", {"text_config": {**SQUARE, **MROPE}, **SEEN}),
    "qwen3_vl_moe square down": (
        "Qwen3VLMoeForConditionalGeneration", {"text_config": {**SQUARE, **MROPE, "moe_intermediate_size": 32}, **SEEN},
    ),
}  # fmt: skip
PLACES = {"gpt2": ("c_attn", "c_fc", "wte"), "bert": ("query", "value", "word_embeddings")}
ROOT = TemporaryDirectory()


@cache
def made(name):
    """A model with large weights, so that every update shows, and where it is on the disk."""
    import torch
    import transformers

    kind, fields = CONFIGS[name]
    torch.manual_seed(0)
    one = getattr(transformers, kind)
    model = one(one.config_class(**fields)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.2)
    folder = Path(ROOT.name, "bases", name)
    model.save_pretrained(folder)
    return model, folder


def outputs(model):
    import torch

    with torch.no_grad():
        return model(input_ids=torch.tensor(TOKENS))[0].numpy()


@cache
def trained(name, way):
    """The folder of an adapter, and its outputs; None if the model has no such part."""
    import peft
    import torch

    first, second, table = PLACES.get(
        name.partition(" ")[0], ("q_proj", "down_proj", "embed_tokens")
    )
    if "target_parameters" in WAYS[way] and "mixtral" not in name and "moe" not in name:
        return None
    model = copy.deepcopy(made(name)[0])
    whole = [path for path, _ in model.named_modules() if re.search(rf"\.1\..*{first}$", path)]
    names = {"FIRST": first, "SECOND": second, "TABLE": table, "PATH": whole[0]}
    settings = json.loads(
        re.sub("FIRST|SECOND|TABLE|PATH", lambda m: names[m[0]], json.dumps(WAYS[way]))
    )
    torch.manual_seed(1)
    model = peft.get_peft_model(model, peft.LoraConfig(r=4, lora_alpha=6, **settings))
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if "lora_" in key and "magnitude" not in key:
                parameter.normal_(std=0.3)
    folder = Path(ROOT.name, "trained", name, way)
    model.save_pretrained(folder, save_embedding_layers=False)
    return folder, outputs(model.eval())


def by_peft(name, adapter):
    """Outputs over a model, or the error."""
    import peft

    try:
        return outputs(peft.PeftModel.from_pretrained(copy.deepcopy(made(name)[0]), adapter).eval())
    except (ValueError, RuntimeError, KeyError) as error:
        return error


def wrapped(folder, out, wrapper, file=WEIGHTS):
    pattern, to = WRAPPERS[wrapper]
    shutil.copytree(folder, out)
    opened = safetensors.open(out / file)
    tensors = {re.sub(pattern, to, key, count=1): opened.read(key) for key in opened.tensors}
    safetensors.save(tensors, out / file, metadata={"format": "pt"})


def near(one, other, tolerance=1e-4):
    return np.abs(one - other).max() <= tolerance * np.abs(other).max()


@pytest.mark.parametrize(("name", "loaded", "way", "wrapper"), few(CASES, 25))
def test_peft_does_what_check_says_and_finds_what_repair_writes(
    tmp_path, name, loaded, way, wrapper
):
    made_of = trained(name, way)
    if made_of is None:
        pytest.skip("the model has no such part")
    folder, theirs = made_of
    model, base = made(loaded)
    wrapped(folder, tmp_path / "a", wrapper)
    plain, got = outputs(model), by_peft(loaded, tmp_path / "a")
    rows = adapters.check(tmp_path / "a", runtime="peft", base=base).rows
    statuses = {row.status for row in rows}
    if "refused" in statuses:
        assert isinstance(got, Exception)
    elif statuses == {"fine"}:
        assert name == loaded
        assert near(got, theirs)
        assert not near(got, plain, 1e-5)
    elif statuses == {"ignored"}:
        assert near(got, plain)
    else:
        assert statuses <= {"not known", "ignored", "absent", "fine"}
    parts = any(re.search(r"\.(visual|vision_tower)\.|^cls\.", row.module) for row in rows)
    if parts and loaded != name and "vision_config" not in CONFIGS[loaded][1]:
        with pytest.raises(FileError, match="is not a module of"):
            adapters.repair(tmp_path / "a", tmp_path / "new", base=base)
        return
    adapters.repair(tmp_path / "a", tmp_path / "new", base=base)
    assert adapters.check(tmp_path / "new", runtime="peft", base=base).fine
    repaired = by_peft(loaded, tmp_path / "new")
    assert not near(repaired, plain, 1e-5)
    if name == loaded:
        assert near(repaired, theirs)
    adapters.merge(base, tmp_path / "a", tmp_path / "merged", any_base=True)
    merged = type(model).from_pretrained(tmp_path / "merged").eval()
    assert near(outputs(merged), repaired)


MLX = [
    (name, way, wrapper)
    for name in ("llama", "qwen3", "qwen3 without head", "llama square")
    for way in ("ends", "rsLoRA", "patterns", "embedding")
    for wrapper in WRAPPERS
    if wrapper not in ("twice", "missing")  # of PEFT's prefix
]


@pytest.mark.parametrize(("name", "way", "wrapper"), few(MLX, 8))
def test_mlx_does_what_check_says(tmp_path, name, way, wrapper):
    pytest.importorskip("mlx.core")
    from tests.adapters.test_runtimes import by_mlx

    folder, _ = trained(name, way)
    served = name.removesuffix(" without head")
    base = tmp_path / "base"
    shutil.copytree(made(served)[1], base)
    path = base / "config.json"
    fields = json.loads(path.read_text())
    path.write_text(json.dumps({**fields, **fields.get("rope_parameters", {})}))
    if name != served:
        with pytest.raises(FileError, match=r"mlx \(refused\)"):
            adapters.convert(folder, tmp_path / "mlx", to="mlx")
        (tmp_path / "mlx").mkdir()
        write_mlx(adapters.load(folder), tmp_path / "mlx", None, None)
    else:
        adapters.convert(folder, tmp_path / "mlx", to="mlx")
    wrapped(
        tmp_path / "mlx",
        tmp_path / "a",
        wrapper.replace("inside", "outside"),
        "adapters.safetensors",
    )
    report = adapters.check(tmp_path / "a", runtime="mlx", base=base)
    if not report.fine:
        before, after = (
            safetensors.open(tmp_path / folder / "adapters.safetensors").tensors
            for folder in ("mlx", "a")
        )
        same = {key.rpartition(".")[0] for key in before.keys() & after.keys()}
        for row in report.rows:
            assert row.status == "refused" or (row.status == "fine" and row.module in same)
        with pytest.raises(ValueError, match=r"incompatible|No module|not an adapter"):
            by_mlx(base, tmp_path / "a")
        adapters.repair(tmp_path / "a", tmp_path / "new", base=base)
    adapter = tmp_path / ("a" if report.fine else "new")
    assert adapters.check(adapter, runtime="mlx", base=base).fine
    adapters.merge(base, adapter, tmp_path / "merged", any_base=True)
    ours, theirs, plain = (
        by_mlx(*pair) for pair in [(tmp_path / "merged",), (base, adapter), (base,)]
    )
    assert near(ours, theirs)
    assert not near(plain, theirs)
