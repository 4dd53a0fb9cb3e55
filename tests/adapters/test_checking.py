"""What is said of programs: the cases that are known to go wrong, and factors against the programs'
own rules.
"""

import json

import numpy as np
import pytest

from lora_np import adapters
from lora_np.adapters import Adapter, AdapterModule
from lora_np.adapters.adapter import TokenRows, held
from lora_np.adapters.scaling import runtimes
from lora_np.cli import run
from lora_np.models import peft
from tests.adapters.test_formats import LLAMA, drawn

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
    tensors = {name: held(np.ones((2, 16))) for name in full}
    tokens = {name: TokenRows((0, 1), held(np.ones((2, 16)))) for name in rows}
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
    """vLLM refuses by the config alone."""
    adapter = made(raw={"modules_to_save": ["lm_head"]})
    assert {row.status for row in findings(adapter, "vllm").values()} == {"refused", "fine"}
    assert adapters.check(adapter, runtime="sglang").fine
    assert "the file has nothing of modules_to_save, ['lm_head']" in adapters.inspect(adapter).notes
    whole = made(raw={"modules_to_save": ["lm_head"]}, full=["lm_head.weight"])
    assert not any("nothing of modules_to_save" in note for note in adapters.inspect(whole).notes)


def test_what_is_portable_is_fine_everywhere_or_one_command_away(tmp_path):
    adapter = drawn(LLAMA, rslora=True)
    adapters.convert(adapter, tmp_path / "portable", to="portable", base=LLAMA)
    found = adapters.check(tmp_path / "portable", base=LLAMA)
    assert {(row.runtime, row.fix) for row in found.rows if row.status != "fine"} == {
        ("mlx", "lora-np convert --to mlx"),
        ("tensorrt-llm", "lora-np merge"),  # of the head
    }
    for to, runtime in [("mlx", "mlx"), ("gguf", "llama.cpp")]:
        out = tmp_path / f"adapter.{to}"
        adapters.convert(adapter, out, to=to, base=LLAMA)
        assert adapters.check(out, runtime=runtime, base=LLAMA).fine


def test_every_rule_has_its_version_and_source_and_is_about_something_known():
    known = {"magnitude", "bias", "kernel", "embedding", "parameter", "head", "saved", "saved norm", "trained bias",
             "rows", "expression", "unknown", "tied", "tied embedding", "copy", "other rank", "moved base",
             "only named"}  # fmt: skip
    for rules in runtimes().values():
        assert all(rules[key] for key in ("version", "date", "source", "reads", "instead"))
        for rule in rules.get("rules", ()):
            assert {*rule["has"]} <= known
            assert rule["status"] in ("refused", "ignored", "wrong scale")
            assert rule["why"]


def test_the_command(tmp_path, capsys):
    adapters.save(made(ranks=(4, 2), alphas=(8.0, 4.0)), tmp_path / "a")
    assert run(["check", str(tmp_path / "a"), "--for", "vllm"]) == 0
    assert "vllm 0.30.0" in capsys.readouterr().out
    assert run(["check", str(tmp_path / "a"), "--for", "llama.cpp", "--json"]) == 3
    rows = json.loads(capsys.readouterr().out)["rows"]
    found = {(row["module"], row["status"], row["scale_error"]) for row in rows}
    assert found == {(Q, "fine", 1.0), (K, "wrong scale", 2.0)}
    assert run(["check", str(tmp_path / "a"), "--for", "ollama"]) == 1
    assert "runtime must be" in capsys.readouterr().err
