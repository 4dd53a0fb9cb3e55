"""What is said of programs: the cases that are known to go wrong, and factors against the programs'
own rules.
"""

import json
import re
import shlex
import shutil
from collections import Counter
from itertools import product

import numpy as np
import pytest

import lora_np.adapters.checking  # noqa: F401  # before a test replaces what it imports
from lora_np import adapters, hub
from lora_np.adapters import Adapter, AdapterModule
from lora_np.adapters.adapter import TokenRows, in_memory
from lora_np.adapters.peft_format import WEIGHTS
from lora_np.adapters.rules import FEATURES, runtimes
from lora_np.adapters.runtimes import write_mlx
from lora_np.cli import run
from lora_np.files import FileError
from lora_np.hub import gguf, safetensors
from lora_np.language import located_adapter
from lora_np.models import peft
from tests.adapters.test_formats import LLAMA, drawn
from tests.drawing import every
from tests.gguf_files import save_gguf
from tests.models.test_dialects import wrap

Q, K = "model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.k_proj"


def made(
    *,
    ranks=(4, 4),
    alphas=(8.0, 8.0),
    full=(),
    rows=(),
    parts=(),
    raw=None,
    embedding=False,
    **settings,
):
    modules = {
        name: AdapterModule.of(
            A=np.ones((r, 16)), B=np.ones((16, r)), alpha=alpha, rslora=settings.get("use_rslora", False),
            embedding=embedding, **{part: np.ones(16) for part in parts},
        )
        for name, r, alpha in zip((Q, K), ranks, alphas, strict=True)
    }  # fmt: skip
    raw = {**peft.FRESH, "target_modules": [Q, K], **settings, **(raw or {})}
    tensors = {name: in_memory(np.ones((2, 16))) for name in full}
    tokens = {name: TokenRows((0, 1), in_memory(np.ones((2, 16)))) for name in rows}
    return Adapter(modules, tensors, raw, None, tokens)


def findings(adapter, runtime, base=None):
    found = adapters.check(adapter, runtime=runtime, base=base)
    assert found.fine == all(row.status == "fine" for row in found.rows)
    return {row.module: row for row in found.rows}


# the case; then for each program what becomes of q or of what is named, and how much too strong k
# runs
CASES = {
    "nothing special": ({}, dict.fromkeys(("peft", "vllm", "sglang", "llama.cpp", "tensorrt-llm"), ("fine", 1.0))),
    "ranks that differ": (
        {"ranks": (4, 2), "alphas": (8.0, 4.0)},
        {"peft": ("fine", 1.0), "vllm": ("fine", 1.0), "sglang": ("fine", 1.0), "llama.cpp": ("wrong scale", 2.0),
         "tensorrt-llm": ("wrong scale", 2.0), "mlx": ("refused", None)},
    ),
    "alphas that differ": (
        {"alphas": (8.0, 2.0), "r": 4, "lora_alpha": 8, "alpha_pattern": {"k_proj": 2}},
        {"peft": ("fine", 1.0), **dict.fromkeys(("vllm", "sglang", "llama.cpp", "tensorrt-llm", "mlx"), ("wrong scale", 4.0))},
    ),
    "rank-stabilised": (
        {"use_rslora": True},
        {"peft": ("fine", 1.0), "vllm": ("fine", 1.0), "tensorrt-llm": ("fine", 1.0), "sglang": ("wrong scale", 0.5),
         "llama.cpp": ("wrong scale", 0.5), "mlx": ("wrong scale", 0.5)},
    ),
    "a rank above the limit": (
        {"ranks": (100, 100), "alphas": (100.0, 100.0)},
        {"peft": ("fine", 1.0), "vllm": ("refused", None), "tensorrt-llm": ("refused", None), "llama.cpp": ("fine", 1.0)},
    ),
    "DoRA": (
        {"parts": ["magnitude"], "raw": {"use_dora": True}},
        {"peft": ("fine", 1.0), "vllm": ("refused", None), "sglang": ("refused", None), "llama.cpp": ("refused", None),
         "tensorrt-llm": ("fine", 1.0)},
    ),
    "PiSSA": (
        {"init_lora_weights": "pissa"},
        {"peft": ("fine", 1.0), "vllm": ("refused", None), **dict.fromkeys(("sglang", "llama.cpp", "tensorrt-llm", "mlx"), ("wrong scale", None))},
    ),
    "a bias of B": (
        {"parts": ["bias"], "raw": {"lora_bias": True}},
        {"peft": ("fine", 1.0), **dict.fromkeys(("vllm", "sglang", "llama.cpp", "tensorrt-llm", "mlx"), ("refused", None))},
    ),
}  # fmt: skip
ASKED = [(case, runtime) for case, (_, wanted) in CASES.items() for runtime in wanted]


@pytest.mark.parametrize(("case", "runtime"), ASKED)
def test_what_becomes_of_a_module(case, runtime):
    settings, wanted = CASES[case]
    row = findings(made(**settings), runtime)[K]
    assert (row.status, row.scale_error) == (wanted[runtime][0], pytest.approx(wanted[runtime][1]))
    assert bool(row.why and row.fix and row.source) == (row.status != "fine")
    assert row.version
    assert row.date


@pytest.mark.parametrize("runtime", ["vllm", "sglang", "llama.cpp", "tensorrt-llm", "mlx"])
@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"full": ["score.weight"], "modules_to_save": ["score"]}, "score.weight"),
        ({"full": [f"{Q}.bias"], "bias": "lora_only"}, f"{Q}.bias"),
        (
            {
                "rows": ["model.embed_tokens.weight"],
                "trainable_token_indices": {"embed_tokens": [0, 1]},
            },
            "model.embed_tokens.weight",
        ),
    ],
)
def test_what_is_replaced_is_refused(runtime, settings, name):
    found = findings(made(**settings), runtime)
    assert found[name].status == "refused"
    assert runtime == "mlx" or found[K].status == "fine"
    assert findings(made(**settings), "peft")[name].status == "fine"


def test_the_option_for_a_rank_is_the_smallest_that_allows_it():
    for rank, option in [(16, ""), (17, "--max-lora-rank 32"), (64, "--max-lora-rank 64"), (300, "--max-lora-rank 320"),
                         (513, "lora-np resize --rank 512")]:  # fmt: skip
        found = findings(made(ranks=(rank, 4), alphas=(float(rank), 4.0)), "vllm")
        assert found[Q].fix == option
        assert found[K].status == "fine"
    raised = findings(made(r=32, lora_alpha=32, rank_pattern={"q_proj": 4, "k_proj": 4}, alphas=(4.0, 4.0),
                           alpha_pattern={"q_proj": 4, "k_proj": 4}), "vllm")  # fmt: skip
    assert raised["(all)"].fix == "--max-lora-rank 32"  # r alone is too large


def test_a_base_says_what_is_tied_and_what_is_not_there():
    adapter = drawn(LLAMA, roles=["linear", "embedding"], scales=(1.0,), ranks=(2,))
    tied = {**LLAMA, "tie_word_embeddings": True}
    assert findings(adapter, "llama.cpp", LLAMA)["model.embed_tokens"].status == "fine"
    for name in ("model.embed_tokens", "lm_head"):
        assert findings(adapter, "llama.cpp", tied)[name].status == "refused"
        assert findings(adapter, "tensorrt-llm")[name].status == "ignored"
    smaller = {**LLAMA, "num_hidden_layers": 1}
    found = findings(adapter, "vllm", smaller)
    assert {name for name, row in found.items() if row.status == "ignored"} == {
        name for name in adapter if ".layers.1." in name
    }


def test_a_list_of_saved_modules_that_are_not_in_the_file_is_noticed():
    adapter = made(raw={"modules_to_save": ["lm_head"]})
    for runtime in ("peft", "vllm", "sglang"):
        assert findings(adapter, runtime)["(all)"].status == "absent"
    assert (
        "the file has no tensor of 'lm_head' in modules_to_save" in adapters.inspect(adapter).notes
    )
    whole = made(raw={"modules_to_save": ["lm_head"]}, full=["lm_head.weight"])
    assert not any("in modules_to_save" in note for note in adapters.inspect(whole).notes)


def test_what_is_portable_is_fine_everywhere_or_one_command_away(tmp_path):
    adapter = drawn(LLAMA, rslora=True)
    adapters.convert(adapter, tmp_path / "portable", to="portable", base=LLAMA)
    found = adapters.check(tmp_path / "portable", base=LLAMA)
    assert {(row.runtime, row.fix) for row in found.rows if row.status != "fine"} == {
        ("mlx", "lora-np convert --to mlx"),
        ("tensorrt-llm", "lora-np merge"),  # of the head
        ("vllm", "lora-np merge"),  # the same, and of the embedding: not known
    }
    assert {row.status for row in found.rows if row.runtime == "vllm"} == {"fine", "not known"}
    for to, runtime in [("mlx", "mlx"), ("gguf", "llama.cpp")]:
        out = tmp_path / f"adapter.{to}"
        adapters.convert(adapter, out, to=to, base=LLAMA)
        assert adapters.check(out, runtime=runtime, base=LLAMA).fine


@pytest.mark.parametrize("runtime", [name for name, x in runtimes().items() if x["reads"]])
def test_every_feature_has_a_rule_for_every_program_or_is_said_not_to_be_known(runtime):
    rules = runtimes()[runtime]
    assert all(rules[key] for key in ("version", "date", "source", "reads", "instead"))
    ruled = Counter([*rules["fine"], *(what for rule in rules["rules"] for what in rule["has"])])
    assert ruled == Counter(FEATURES)
    for rule in rules["rules"]:
        assert rule["status"] in ("refused", "ignored", "wrong scale", "not known")
        assert rule["why"]
        assert rule.get("source", rules["source"])
        assert re.fullmatch(r"20\d\d-\d\d(-\d\d)?", rule.get("date", rules["date"]))


@every("runtime, feature", product(runtimes(), FEATURES))
def test_a_feature_without_a_rule_is_never_fine(monkeypatch, runtime, feature):
    rules = dict(runtimes()[runtime])
    rules["fine"] = [what for what in rules["fine"] if what != feature]
    rules["rules"] = [
        {**rule, "has": [what for what in rule["has"] if what != feature]}
        for rule in rules["rules"]
    ]
    monkeypatch.setattr("lora_np.adapters.rules.runtimes", lambda: {runtime: rules})
    monkeypatch.setattr("lora_np.adapters.rules._features", lambda *_: {feature: {K}})
    row = findings(made(), runtime)[K]
    assert (row.status, row.why) == ("not known", f"there is no rule for: {feature}")


def renaming(adapter, change):
    """The same modules under other names, each targeted by its last name."""
    modules = {change(name): module for name, module in adapter.items()}
    ends = sorted({name.rpartition(".")[2] for name in modules})
    return Adapter(modules, raw={**peft.FRESH, "target_modules": ends})


VISION = {
    "model_type": "qwen3_vl", "text_config": {**LLAMA, "model_type": "qwen3_vl_text", "head_dim": 4},
    "vision_config": {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 16},
}  # fmt: skip
TEXT = {**LLAMA, "model_type": "qwen3", "head_dim": 4}


@pytest.mark.parametrize(
    ("adapted", "served"), [(TEXT, VISION), (VISION, TEXT)], ids=["text", "vision"]
)
def test_names_of_another_model_around_the_same_one_are_fine_nowhere(adapted, served):
    adapter = drawn(adapted, roles=["linear"], scales=(1.0,), ranks=(2,))
    own = adapters.check(adapter, base=adapted)
    assert {row.status for row in own.rows if row.runtime == "peft"} == {"fine"}
    found = adapters.check(adapter, base=served)
    text = [row for row in found.rows if ".layers." in row.module]
    assert "fine" not in {row.status for row in text}
    assert {row.status for row in text if row.runtime in ("peft", "vllm")} == {"ignored"}
    assert found.notes[-1].startswith("what would help: lora-np repair ")


@pytest.mark.parametrize("family", ["llama", "qwen2", "gemma3_text"])
def test_an_adapter_of_a_model_without_its_head_is_not_fine_on_the_one_with_it(tmp_path, family):
    config = {**LLAMA, "model_type": family}
    adapter = drawn(config, roles=["linear"], scales=(1.0,), ranks=(2,))
    bare = renaming(adapter, lambda name: name.removeprefix("model."))
    with pytest.raises(FileError, match=r"mlx \(refused\): .*; lora-np repair --base MODEL"):
        adapters.convert(bare, tmp_path / "mlx", to="mlx")
    assert not (tmp_path / "mlx").exists()
    (tmp_path / "mlx").mkdir()
    write_mlx(bare, tmp_path / "mlx", None, None)
    for base in (config, None):
        found = adapters.check(tmp_path / "mlx", runtime="mlx", base=base)
        assert {row.status for row in found.rows if row.module != "lm_head"} == {"refused"}
    assert findings(bare, "peft", config)["layers.0.self_attn.q_proj"].status == "ignored"


WRAPPED = {
    "_orig_mod.": "ignored", "module.": "ignored", "base_model.model.": "ignored", "default": "fine",
    "missing": "not known",
}  # fmt: skip


@pytest.mark.parametrize("wrapper", WRAPPED)
@pytest.mark.parametrize("base", [None, LLAMA], ids=["no base", "base"])
def test_wrappers_are_recognised_with_and_without_a_base(tmp_path, wrapper, base):
    adapters.save(drawn(LLAMA, roles=["linear"], scales=(1.0,), ranks=(2,)), tmp_path / "a")
    file = safetensors.open(tmp_path / "a" / WEIGHTS)
    tensors = {wrap(name, wrapper): file.read(name) for name in file.tensors}
    safetensors.save(tensors, tmp_path / "a" / WEIGHTS)
    found = adapters.check(tmp_path / "a", base=base)
    statuses = {}
    for row in found.rows:
        if "q_proj" in row.module:
            statuses.setdefault(row.runtime, set()).add(row.status)
    assert statuses["peft"] == {WRAPPED[wrapper]}
    fine = {name for name, status in statuses.items() if status == {"fine"}}
    assert fine <= {"llama.cpp"} | ({"peft"} if wrapper == "default" else set())
    assert any("names are not as their program writes them: " in note for note in found.notes)
    base_words = "MODEL" if base is None else "NEW"
    assert found.notes[-1].startswith(f"what would help: lora-np repair {tmp_path / 'a'} --base")
    assert base_words in found.notes[-1]


def test_fused_experts_are_fine_only_where_somebody_has_seen_it():
    moe = {
        **LLAMA,
        "model_type": "qwen3_moe",
        "num_experts": 2,
        "moe_intermediate_size": 8,
        "head_dim": 4,
    }
    adapter = drawn(moe, roles=["experts"], scales=(1.0,), ranks=(2,))
    statuses = {
        row.runtime: row.status
        for row in adapters.check(adapter, base=moe).rows
        if "down_proj" in row.module
    }
    assert statuses == {"peft": "fine", "vllm": "not known", "sglang": "not known", "llama.cpp": "refused",
                        "tensorrt-llm": "not known"}  # fmt: skip


@pytest.mark.parametrize("family", ["mixtral", "olmoe", "qwen3_moe"])
def test_experts_one_by_one_are_not_refused_by_the_program_that_they_are_written_for(
    tmp_path, family
):
    config = {**LLAMA, "model_type": family, "head_dim": 4, "moe_intermediate_size": 24}
    config |= {"num_experts": 2, "num_local_experts": 2}
    adapter = drawn(config, roles=["experts"], scales=(1.0,), ranks=(2,))
    adapters.convert(adapter, tmp_path / "out", to="vllm", base=config)
    found = findings(tmp_path / "out", "vllm", config)
    assert {(row.status, row.why[:6]) for row in found.values()} == {("not known", "served")}


def test_a_gguf_file_without_heads_is_checked_without_a_base(tmp_path):
    path = tmp_path / "a.gguf"
    adapters.convert(drawn(LLAMA), path, to="gguf", base=LLAMA)
    file = gguf.open(path)
    metadata = {key: value for key, value in file.metadata.items() if "head_count" not in key}
    save_gguf({name: file.read(name) for name in file.tensors}, path, metadata=metadata)
    assert adapters.check(path, runtime="llama.cpp").fine


def test_an_advice_can_be_pasted(tmp_path):
    path = tmp_path / "my adapter"
    adapters.save(made(ranks=(4, 2), alphas=(8.0, 4.0)), path)
    note = adapters.check(path, runtime="llama.cpp").notes[-1]
    assert shlex.split(note.partition(": ")[2])[:3] == ["lora-np", "convert", str(path)]


def test_an_advice_about_an_adapter_in_memory_has_a_word_in_its_place():
    note = adapters.check(made(ranks=(4, 2), alphas=(8.0, 4.0)), runtime="llama.cpp").notes[-1]
    assert note == "what would help: lora-np convert ADAPTER --to gguf -o NEW.gguf"


def test_a_tied_head_and_an_own_router_are_not_fine_for_mlx(tmp_path):
    tied = {**LLAMA, "tie_word_embeddings": True}
    head = drawn(LLAMA, roles=["linear"], scales=(1.0,), ranks=(2,))
    adapters.convert(head, tmp_path / "head", to="mlx")
    assert findings(tmp_path / "head", "mlx", tied)["lm_head"].status == "refused"
    assert findings(tmp_path / "head", "mlx", LLAMA)["lm_head"].status == "fine"
    gate = Adapter(
        {
            "model.layers.0.mlp.gate": AdapterModule.of(
                A=np.ones((2, 16)), B=np.ones((3, 2)), alpha=2.0
            )
        }
    )
    adapters.convert(gate, tmp_path / "gate", to="mlx")
    assert {row.status for row in findings(tmp_path / "gate", "mlx").values()} == {"not known"}


def test_targets_that_match_a_container_or_nothing_and_other_shapes_are_refused_by_peft():
    adapter = drawn(LLAMA, roles=["linear"], scales=(1.0,), ranks=(2,))
    names = sorted({name.rpartition(".")[2] for name in adapter})

    def targeting(*targets):
        return Adapter(dict(adapter), raw={**peft.FRESH, "target_modules": list(targets)})

    fine = findings(targeting(*names), "peft", LLAMA)
    assert {row.status for row in fine.values()} == {"fine"}
    for targets in ([*names, "mlp"], [*names, "0"], [*names, "input_layernorm"]):
        assert findings(targeting(*targets), "peft", LLAMA)["(all)"].status == "refused"
    for expression in ("encoder.*q_proj", r".*\.q_prj"):
        none = Adapter(dict(adapter), raw={**peft.FRESH, "target_modules": expression})
        assert "matches no module" in findings(none, "peft", LLAMA)["(all)"].why
    wider = {**LLAMA, "intermediate_size": LLAMA["intermediate_size"] + 4}
    found = findings(targeting(*names), "peft", wider)
    assert {name.rpartition(".")[2] for name, row in found.items() if row.status == "refused"} == {
        "gate_proj", "up_proj", "down_proj",
    }  # fmt: skip


def test_the_command(tmp_path, capsys):
    adapters.save(made(ranks=(4, 2), alphas=(8.0, 4.0)), tmp_path / "a")
    assert run(["check", str(tmp_path / "a"), "--for", "vllm"]) == 0
    assert "vllm 0.30.0" in capsys.readouterr().out
    assert run(["check", str(tmp_path / "a"), "--for", "llama.cpp", "--json"]) == 3
    rows = json.loads(capsys.readouterr().out)["rows"]
    found = {(row["module"], row["status"], row["scale_error"]) for row in rows}
    assert found == {(Q, "fine", 1.0), (K, "wrong scale", 2.0)}
    assert run(["check", str(tmp_path / "a"), "--for", "ollama"]) == 3
    assert "reads no adapter" in capsys.readouterr().out
    assert run(["check", str(tmp_path / "a"), "--for", "blorp"]) == 2
    assert "runtime must be" in capsys.readouterr().err


def test_what_programs_would_not_run_is_said_by_whoever_writes(tmp_path):
    tied = {**LLAMA, "tie_word_embeddings": True}
    adapter = drawn(LLAMA, roles=["linear"], scales=(1.0,), ranks=(18,))
    notes = adapters.convert(adapter, tmp_path / "portable", to="portable", base=LLAMA).notes
    assert any(
        "vllm (refused): " in note and " and 14 more: a rank above 16" in note for note in notes
    )
    assert any("--max-lora-rank 32" in note for note in notes)
    assert any("tensorrt-llm (ignored): lm_head: keys of lm_head" in note for note in notes)
    assert not any("peft" in note for note in notes)
    base = tmp_path / "base"
    base.mkdir()
    (base / "config.json").write_text(json.dumps(tied))
    adapter = Adapter(dict(adapter), raw={**adapter.raw, "base_model_name_or_path": str(base)})
    for write in (adapters.resize, adapters.convert):
        options = {"rank": 2} if write is adapters.resize else {"to": "gguf"}
        with pytest.raises(FileError, match=r"llama.cpp \(refused\): lm_head: a tied weight"):
            write(adapter, tmp_path / "a.gguf", **options)
    assert not (tmp_path / "a.gguf").exists()
    wider = {**LLAMA, "hidden_size": 32}
    with pytest.raises(FileError, match=r"peft \(refused\): .*: the base's module has another"):
        adapters.convert(adapter, tmp_path / "peft", to="peft", base=wider)
    assert not (tmp_path / "peft").exists()
    smaller = adapters.convert(
        adapter, tmp_path / "peft", to="peft", base={**LLAMA, "num_hidden_layers": 1}
    )
    assert any(note.startswith("peft (ignored): model.layers.1.") for note in smaller.notes)


FACTORS = {"lora_down.weight": np.ones((2, 8)), "lora_up.weight": np.ones((8, 2))}
IMAGES = {
    # the modules' tensors; their statuses for diffusers and ComfyUI
    "kohya": ({"lora_unet_q": {**FACTORS, "alpha": np.array(1.0)}}, ["fine"], ["fine"]),
    "alphas": (
        {f"lora_unet_{x}": {**FACTORS, "alpha": np.array(float(max(x, 1)))} for x in (0, 1, 2)},
        ["fine", "fine", "not known"],
        ["fine", "fine", "fine"],
    ),
    "DoRA": ({"lora_unet_q": {**FACTORS, "dora_scale": np.ones((8, 1))}}, ["not known"], ["wrong scale"]),
    "LoKr": ({"lycoris_q": {"lokr_w1": np.ones((2, 2)), "lokr_w2": np.ones((4, 4))}}, ["not known"], ["not known"]),
    "ComfyUI's prefix": ({"diffusion_model.q": FACTORS}, ["not known"], ["fine"]),
    "no prefix": ({"blocks.0.q": FACTORS}, ["not known"], ["not known"]),
}  # fmt: skip


@pytest.mark.parametrize("case", IMAGES)
def test_files_of_image_models_are_judged_for_programs_that_read_them(tmp_path, case):
    modules, *wanted = IMAGES[case]
    path = tmp_path / "a.safetensors"
    tensors = {f"{name}.{end}": x for name, parts in modules.items() for end, x in parts.items()}
    safetensors.save(tensors, path, dtype="float32")
    report = adapters.check(path)
    assert {row.runtime for row in report.rows} == {"diffusers", "comfyui"}
    for runtime, statuses in zip(("diffusers", "comfyui"), wanted, strict=True):
        assert [row.status for row in report.rows if row.runtime == runtime] == statuses
    if case == "LoKr":  # the advice helps
        assert (
            report.notes[-1]
            == f"what would help: lora-np convert {path} --to lora -o NEW.safetensors"
        )
        adapters.convert(path, tmp_path / "NEW.safetensors", to="lora")
        assert not adapters.load(tmp_path / "NEW.safetensors")["lycoris_q"].tuned
    other = adapters.check(path, runtime="peft").notes[-1]
    assert other == f"what would help: lora-np convert {path} --to peft --base MODEL -o NEW"


def test_the_file_of_an_advice_has_the_ending_of_its_format(tmp_path):
    adapters.convert(drawn(LLAMA), tmp_path / "b.gguf", to="gguf", base=LLAMA)
    notes = adapters.check(tmp_path / "b.gguf", runtime="mlx").notes
    assert notes[-1] == f"what would help: lora-np convert {tmp_path / 'b.gguf'} --to mlx -o NEW"
    experts = drawn(
        {**LLAMA, "model_type": "qwen3_moe", "num_experts": 2, "moe_intermediate_size": 8},
        roles=["experts"], scales=(1.0,), ranks=(2,),
    )  # fmt: skip
    adapters.save(experts, tmp_path / "experts")
    notes = adapters.check(tmp_path / "experts", runtime="llama.cpp").notes
    assert notes[-1].endswith("--to gguf --base MODEL -o NEW.gguf")


def test_a_base_of_other_shapes_is_not_a_case_for_repair():
    report = adapters.check(located_adapter("king-james"), base="llama-3-8b")
    assert str(report).rstrip().endswith("what would help: use the base that it was trained on")


def test_a_missing_adapter_is_named_with_those_that_are_shipped():
    with pytest.raises(FileError, match=r"king-jame: no such directory, and nothing .* king-james"):
        adapters.check("king-jame")


def test_what_peft_ignores_is_warned_of_once(tmp_path):
    shutil.copytree(hub.directory("king-james"), tmp_path / "a")
    config = tmp_path / "a" / "adapter_config.json"
    fields = json.loads(config.read_text(encoding="utf-8"))
    config.write_text(json.dumps({**fields, "future": True}), encoding="utf-8")
    with pytest.warns(UserWarning, match="future = True is not a setting of PEFT") as warned:
        adapters.check(tmp_path / "a")
    assert len(warned) == 1
