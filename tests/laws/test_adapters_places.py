"""Where programs can put a LoRA: their lists, and what is said of sixty architectures."""

import json
import re
import zipfile

import numpy as np
import pytest

from lora_np import adapters
from lora_np.adapters import Adapter, AdapterModule
from lora_np.adapters.adapter import Stored
from lora_np.adapters.peft_format import targeting
from lora_np.adapters.rules import placed, places, predictions
from lora_np.models import open_base, peft
from recipes import places as recipe
from tests.adapters.test_formats import LLAMA, drawn

SERVERS = ("vllm", "sglang", "tensorrt-llm", "llama.cpp", "mlx", "ollama")
# of language models in use, by type
SIXTY = (
    "apertus", "arcee", "bloom", "cohere", "cohere2", "deepseek_v2", "deepseek_v3",
    "deepseek_v32", "ernie4_5", "ernie4_5_moe", "exaone4", "falcon", "falcon_h1", "gemma",
    "gemma2", "gemma3", "gemma3_text", "gemma4", "glm", "glm4", "glm4_moe", "glm4_moe_lite",
    "gpt2", "gpt_neox", "gpt_oss", "gptj", "granite", "granitemoe", "granitemoehybrid",
    "hunyuan_v1_dense", "jamba", "lfm2", "lfm2_moe", "llama", "llama4", "llava", "mamba",
    "minimax_m2", "ministral", "mistral", "mistral3", "mixtral", "mllama", "nemotron",
    "nemotron_h", "olmo", "olmo2", "olmo3", "olmoe", "opt", "phi", "phi3", "phimoe", "qwen2",
    "qwen2_5_vl", "qwen2_moe", "qwen3", "qwen3_5", "qwen3_moe", "qwen3_next", "qwen3_vl",
    "seed_oss", "smollm3", "stablelm", "starcoder2",
)  # fmt: skip


def unread():
    raise AssertionError("names need no values")


def all_linear(base):
    """An adapter of all linear layers but the head, of which no value can be read."""
    modules = {}
    for module in base.spec.modules:
        if module.kind == "linear" and module.name != base.spec.head:
            d, k = module.shape
            parts = {"A": Stored("float32", (2, k), unread), "B": Stored("float32", (d, 2), unread)}
            modules[module.name] = AdapterModule(parts, 2.0)
    return Adapter(modules, raw=targeting(peft.FRESH, modules))


def fine_for(program, adapter, base):
    rows = predictions(adapter, "mlx" if program == "mlx" else "peft", base, [program])
    assert {row.module for row in rows} >= {*adapter} or {row.module for row in rows} == {"(all)"}
    return all(row.status == "fine" for row in rows)


def accepts(program, adapter, base):
    """Whether a program's own list has a place for each module."""
    if program not in places():
        return False
    own = base.config["model_type"] if program == "mlx" else base.architecture
    names = placed(program, own)
    return names is not None and {name.rpartition(".")[2] for name in adapter} <= {*names}


def cells():
    for kind in SIXTY:
        base = open_base({"model_type": kind})
        adapter = all_linear(base)
        for program in SERVERS:
            yield kind, program, accepts(program, adapter, base), fine_for(program, adapter, base)


def test_of_sixty_architectures_none_is_wrongly_fine_and_most_that_are_accepted_are_fine():
    table = [*cells()]
    assert len({kind for kind, *_ in table}) >= 60
    assert [(kind, program) for kind, program, accepted, fine in table if fine > accepted] == []
    accepted = [fine for *_, accepted, fine in table if accepted]
    assert len(accepted) >= 100
    assert sum(accepted) >= 0.7 * len(accepted)
    # what was wrongly fine before there were lists
    wrong = (
        "gpt2",
        "falcon",
        "phi3",
        "gpt_neox",
        "bloom",
        "deepseek_v2",
        "phi",
        "opt",
        "starcoder2",
        "qwen3_5",
        "lfm2",
    )
    answers = {(kind, program): fine for kind, program, _, fine in table}
    assert not any(answers[kind, "tensorrt-llm"] for kind in wrong)
    assert not answers["qwen3_5", "vllm"]
    assert all(answers["llama", program] for program in SERVERS if program != "ollama")


def test_every_list_says_where_it_is_from_and_has_an_architecture_once():
    assert places().keys() == {*SERVERS} - {"ollama"}
    for program, table in places().items():
        assert re.fullmatch(r"20\d\d-\d\d-\d\d", table["date"])
        assert table["version"]
        assert table["table"]
        owners = [name for names in table["places"].values() for name in names.split()]
        assert len(owners) == len({*owners}) > 20, program
        for names in table["places"]:
            assert names.split() == sorted({*names.split()})
        assert placed(program, "Blorp") is None


def renamed(*names):
    module = AdapterModule.of(A=np.ones((2, 16)), B=np.ones((16, 2)), alpha=2.0)
    modules = dict.fromkeys(names, module)
    return Adapter(modules, raw=targeting(peft.FRESH, modules))


@pytest.mark.parametrize("base", [None, LLAMA], ids=["no base", "base"])
@pytest.mark.parametrize(
    "name", ["blorp.wobble", "blorp.layers.0.q_proj", "model.blorp.0.self_attn.q_proj"]
)
def test_a_made_up_name_is_never_fine(tmp_path, base, name):
    adapter = renamed(name)
    for program in ("peft", *SERVERS):
        assert not adapters.check(adapter, runtime=program, base=base).fine
    adapters.save(adapter, tmp_path / "peft")
    found = adapters.check(tmp_path / "peft", base=base)
    assert {row.status for row in found.rows} <= {"not known", "ignored", "refused"}


def test_an_architecture_without_a_list_is_not_known():
    base = {**LLAMA, "architectures": ["LlamaForTokenClassification"]}
    adapter = drawn(LLAMA, roles=["linear"], scales=(1.0,), ranks=(2,))
    rows = predictions(adapter, "peft", open_base(base), ["vllm", "sglang"])
    assert {(row.status, row.why) for row in rows if ".layers." in row.module} == {
        ("not known", "its modules of LlamaForTokenClassification are not listed here")
    }


KEYS = {
    # keys of lora_parameters, num_layers; how many of the two layers' q_proj it selects
    "auto": (["auto"], -1, 0),
    "in blocks": (["self_attn.q_proj"], -1, 2),
    "whole paths": (["model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.q_proj"], 1, 2),
    "none": (None, -1, 2),
}


@pytest.mark.parametrize("case", KEYS)
def test_what_keys_of_mlx_do_not_select_is_refused(tmp_path, case):
    keys, count, selected = KEYS[case]
    adapter = renamed(*(f"model.layers.{i}.self_attn.q_proj" for i in range(2)))
    adapters.convert(adapter, tmp_path / "a", to="mlx", base=LLAMA)
    path = tmp_path / "a" / "adapter_config.json"
    settings = json.loads(path.read_text())
    settings["num_layers"] = count
    settings["lora_parameters"]["keys"] = keys
    path.write_text(json.dumps(settings))
    rows = adapters.check(tmp_path / "a", runtime="mlx", base=LLAMA).rows
    assert sum(row.status == "fine" for row in rows) == selected
    assert sum(row.status == "refused" for row in rows) == 2 - selected


TINY = {
    "vllm/model_executor/models/registry.py": "A = {'TinyForCausalLM': ('tiny', 'Tiny'), 'NoForCausalLM': ('tiny', 'No')}",
    "vllm/model_executor/models/parts.py": "class Mlp:\n  def __init__(s):\n    s.up = MergedColumnParallelLinear(2)\n    s.no = nn.Linear(2)",
    "vllm/model_executor/models/tiny.py": """
from .parts import Mlp as M
class Block:
    def __init__(self):
        self.qkv = QKVParallelLinear(1)
        self.mlp = M()
class No:
    def __init__(self):
        self.block = Block()
class Tiny(No, SupportsLoRA):
    packed_modules_mapping = {'qkv': ['q', 'k'], 'other': ['x']}
    embedding_modules = {'lm_head': 'output'}
""",
}


def test_the_recipe_reads_what_classes_build_and_fuse(tmp_path, monkeypatch):
    wheel = tmp_path / "vllm-1.2.3-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, text in TINY.items():
            archive.writestr(name, text)
    monkeypatch.setattr(recipe, "TARGET", tmp_path / "places.json")
    monkeypatch.setattr("sys.argv", ["places", str(wheel), "--date", "2026-12-01"])
    recipe.main()
    found = json.loads((tmp_path / "places.json").read_text())["vllm"]
    assert found["version"] == "1.2.3"
    assert found["places"] == {"": "NoForCausalLM", "k lm_head q up": "TinyForCausalLM"}


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")
def test_the_list_of_mlx_is_that_of_its_own_models(tmp_path):
    """Of models that mlx-lm builds from our fields: the layers that it would adapt."""
    nn = pytest.importorskip("mlx.nn")
    utils = pytest.importorskip("mlx_lm.utils")
    from mlx_lm.models.switch_layers import SwitchLinear

    built = 0
    for kind in SIXTY:
        fields = {**LLAMA, "model_type": kind}
        names = placed("mlx", kind)
        try:
            model_class, arguments = utils._get_classes(fields)
            model = model_class(arguments.from_dict(fields))
        except (Exception, SystemExit):  # it wants other fields or packages, or has no such model
            continue
        own = {
            name.rpartition(".")[2]
            for name, module in model.named_modules()
            if isinstance(module, (nn.Linear, nn.Embedding, SwitchLinear))
        }
        built += 1
        assert own <= {*names}, kind
    assert built >= 10
