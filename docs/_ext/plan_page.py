"""Run what docs/use/plan.md shows, and compare our figures with published ones: python
docs/_ext/plan_page.py
"""

import contextlib
import io
import re
import shlex
import tomllib
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from lora_np.accounting import count_model, gpus, training_memory
from lora_np.cli import run
from lora_np.models import from_config, preset

PAGE = Path(__file__).parents[1] / "use" / "plan.md"
# figures of sources that state all settings, with what was measured
LISTED = tomllib.loads(
    (PAGE.parents[2] / "tests" / "accounting" / "published_memory.toml").read_text("utf-8")
)
LORA_PAPER = "[LoRA, 1.2](https://arxiv.org/abs/2106.09685)"
QLORA_PAPER = "[QLoRA](https://arxiv.org/abs/2305.14314)"
FACTORY = "[LLaMA-Factory](https://github.com/hiyouga/LLaMA-Factory/wiki/Performance-comparison)"
PEFT = "[PEFT](https://github.com/huggingface/peft)"
TORCHTUNE = "[torchtune](https://github.com/pytorch/torchtune)"
TUTORIAL = "[torchtune, QLoRA](https://pytorch.org/torchtune/stable/tutorials/qlora_finetune.html)"
LONGLORA = "[LongLoRA](https://arxiv.org/abs/2309.12307)"
ISSUE = "[artidoro/qlora #193](https://github.com/artidoro/qlora/issues/193)"
FMS = (
    "[fms-acceleration](https://github.com/foundation-model-stack/fms-acceleration/blob/main/"
    "scripts/benchmarks/refs/a100_80gb.csv)"
)
LITGPT = "[LitGPT](https://github.com/Lightning-AI/litgpt/blob/main/tutorials/resource-tables.md)"
SWIFT = "[ms-swift](https://github.com/modelscope/ms-swift/blob/46922151e06cdfc110882e182757674f12352f2c/docs/source_en/LLM/Benchmark.md)"
UNSLOTH = "[Unsloth](https://docs.unsloth.ai/basics/unsloth-benchmarks)"

LLAMA_65B = from_config(
    {
        "model_type": "llama", "hidden_size": 8192, "intermediate_size": 22016,
        "num_hidden_layers": 80,
        "num_attention_heads": 64, "vocab_size": 32000,
    },
)  # fmt: skip
T0_3B = from_config(
    {
        "model_type": "t5", "d_model": 2048, "d_kv": 64, "d_ff": 5120, "num_layers": 24,
        "num_heads": 32,
        "vocab_size": 32128, "feed_forward_proj": "gated-gelu",
    },
)  # fmt: skip
MT0_XXL = from_config(
    {
        "model_type": "mt5", "d_model": 4096, "d_kv": 64, "d_ff": 10240, "num_layers": 24,
        "num_heads": 64,
        "vocab_size": 250112, "tie_word_embeddings": False,
    },
)  # fmt: skip
BLOOMZ = from_config(
    {"model_type": "bloom", "hidden_size": 4096, "n_layer": 30, "n_head": 32, "vocab_size": 250880}
)
YI = from_config(
    {
        "model_type": "llama", "hidden_size": 4096, "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 4, "vocab_size": 64000,
    },
)  # fmt: skip
LLAMA_2 = replace(
    preset("llama-2-7b"), name="Llama 2 7B", positions=0
)  # longer than its positions, as measured
LLAMA_3 = preset("llama-3.2-3b")
LLAMA_31_8B, LLAMA_33_70B = (  # they too
    replace(preset(name), positions=0) for name in ("llama-3.1-8b", "llama-3.1-70b")
)
GB, GIB = 10**9, 2**30
ALL, QV = "all-linear", ["q_proj", "v_proj"]
SHORT = {"batch_size": 8, "max_length": 64}
PACKED = {"batch_size": 2, "max_length": 4096}
ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
FOUR = {"batch_size": 4, "max_length": 4096}
NF4 = {"dtype": "nf4", **FOUR}
NARROW = {**NF4, "unquantised_dtype": "float16"}
ALPACA = {
    "max_length": 1304,
    "checkpointing": False,
    "adapter_dtype": "bfloat16",
}  # the longest text
EXAMPLE = "PEFT's example has batch 8 and 64 tokens"
COPIED = "transformers of that time copied the shifted logits once more"
LOADED = "as the driver shows it"
DRIVER = "as the driver shows it, with CUDA's context and what the allocator keeps"

LONGEST = {
    "dtype": "nf4",
    "unquantised_dtype": "bfloat16",
    "cross_entropy": "fused",
    "offloading": True,
}
FILLED = "the GPU's memory, at the longest sequence that fitted; Unsloth's own backward keeps less"

LATER = 13  # at the end: chosen, with their settings, before ours were computed

# (model, how, source, measured, model as counted, options, reason for the difference)
CLAIMS: list[tuple[Any, ...]] = [
    (
        "GPT-3 175B",
        "full, Adam",
        LORA_PAPER,
        1200 * GB,
        preset("gpt3-175b"),
        {"dtype": "float16", "max_length": 2048},
        "stated, not explained: 6.9 bytes per parameter, where 16 bits throughout take 8",
    ),
    (
        "GPT-3 175B",
        "LoRA r = 4, q v",
        LORA_PAPER,
        350 * GB,
        ("gpt3-175b", 4, None),
        {"dtype": "float16"},
        "the weights alone",
    ),
    (
        "LLaMA 65B",
        "full, 16 bits",
        QLORA_PAPER,
        780 * GB,
        LLAMA_65B,
        {"optimizer": "paged_adamw", "host": True},
        "2 + 2 + 8 bytes per parameter: moments in float32",
    ),
    (
        "LLaMA 65B",
        "QLoRA r = 64",
        QLORA_PAPER,
        48 * GB,
        (LLAMA_65B, 64, ALL),
        {"dtype": "nf4", "optimizer": "paged_adamw"},
        "stated as an upper bound; embeddings and head in float32",
    ),
    ("T0 3B", "full, float32", PEFT, 47.14 * GB, T0_3B, {"dtype": "float32", **SHORT}, EXAMPLE),
    (
        "T0 3B",
        "LoRA r = 8, float32",
        PEFT,
        14.4 * GB,
        (T0_3B, 8, None),
        {"dtype": "float32", **SHORT, "checkpointing": False},
        EXAMPLE,
    ),
    (
        "mT0 XXL 12B",
        "LoRA r = 8, float32",
        PEFT,
        56 * GB,
        (MT0_XXL, 8, None),
        {"dtype": "float32", **SHORT, "checkpointing": False},
        EXAMPLE,
    ),
    (
        "BLOOMZ 7B",
        "LoRA r = 8, float32",
        PEFT,
        32 * GB,
        (BLOOMZ, 8, None),
        {"dtype": "float32", **SHORT, "checkpointing": False},
        EXAMPLE,
    ),
    (
        "Llama 2 7B",
        "LoRA r = 8, 4 x 1,024",
        FACTORY,
        17 * GB,
        (LLAMA_2, 8, ALL),
        {"batch_size": 4, "max_length": 1024},
        DRIVER,
    ),
    (
        "Llama 2 7B",
        "QLoRA r = 8, 4 x 1,024",
        FACTORY,
        9 * GB,
        (LLAMA_2, 8, ALL),
        {"dtype": "nf4", "batch_size": 4, "max_length": 1024},
        DRIVER,
    ),
    *[
        (
            "Llama 2 7B",
            f"QLoRA r = 8, 1 x {tokens:,}",
            FACTORY,
            size * GB,
            (LLAMA_2, 8, ALL),
            {"dtype": "nf4", "max_length": tokens},
            DRIVER,
        )
        for tokens, size in ((1024, 6), (4096, 9), (8192, 12), (16384, 19), (32768, 32))
    ],
    (
        "Llama 2 7B",
        "LoRA, 1 x 8,192",
        LONGLORA,
        25.7 * GB,
        (LLAMA_2, 8, ["q_proj", "k_proj", "v_proj", "o_proj"]),
        {"max_length": 8192},
        "one of eight GPUs; the embedding and norms may be trained as well",
    ),
    (
        "Llama 2 7B",
        "LoRA",
        TUTORIAL,
        15.57 * GB,
        (LLAMA_2, 8, QV),
        {"adapter_dtype": "bfloat16", "batch_size": 2},
        "sequences of one batch vary in length; memory reserved",
    ),
    (
        "Llama 2 7B",
        "QLoRA",
        TUTORIAL,
        9.29 * GB,
        (LLAMA_2, 8, QV),
        {
            "dtype": "nf4",
            "adapter_dtype": "bfloat16",
            "unquantised_dtype": "bfloat16",
            "batch_size": 2,
        },
        "9.13 GB are taken while the model is quantised",
    ),
    (
        "Llama 3.2 3B",
        "full, 2 x 4,096",
        TORCHTUNE,
        60 * GIB,
        LLAMA_3,
        {**PACKED, "checkpointing": False},
        "no checkpointing",
    ),
    (
        "Llama 3.2 3B",
        "full, checkpointing, fused loss",
        TORCHTUNE,
        24.9 * GIB,
        LLAMA_3,
        {**PACKED, "cross_entropy": "fused"},
        "compiled",
    ),
    (
        "Llama 3.2 3B",
        "LoRA, the same",
        TORCHTUNE,
        8.5 * GIB,
        (LLAMA_3, 8, ALL),
        {**PACKED, "cross_entropy": "fused", "adapter_dtype": "bfloat16", "offloading": True},
        "activations are offloaded, here too; the rest is not explained",
    ),
    (
        "Llama 3.2 3B",
        "QLoRA, the same",
        TORCHTUNE,
        4.6 * GIB,
        (LLAMA_3, 8, ALL),
        {
            **PACKED,
            "cross_entropy": "fused",
            "adapter_dtype": "bfloat16",
            "dtype": "nf4",
            "unquantised_dtype": "bfloat16",
            "offloading": True,
        },
        "activations are offloaded, here too; the rest is not explained",
    ),
    (
        "LLaMA 7B",
        "nf4 weights, loaded",
        ISSUE,
        4.6 * GB,
        (LLAMA_2, 8, QV),
        {"dtype": "nf4", "cause": "weights"},
        LOADED,
    ),
    (
        "LLaMA 13B",
        "nf4 weights, loaded",
        ISSUE,
        8.0 * GB,
        ("llama-2-13b", 8, QV),
        {"dtype": "nf4", "cause": "weights"},
        LOADED,
    ),
    (
        "Mistral 7B",
        "full, 4 x 4,096",
        FMS,
        72_971_724_288,
        preset("mistral-7b"),
        FOUR,
        "the peak is AdamW's step, which makes copies of its own: a batch of 8 takes the same",
    ),
    (
        "Mistral 7B",
        "LoRA r = 16, 4 x 4,096",
        FMS,
        26_108_963_328,
        ("mistral-7b", 16, ATTENTION),
        FOUR,
        COPIED,
    ),
    (
        "Mistral 7B",
        "QLoRA, the same",
        FMS,
        22_825_932_800,
        ("mistral-7b", 16, ATTENTION),
        NF4,
        COPIED,
    ),
    (
        "Mistral 7B",
        "QLoRA, unquantised weights in 16 bits",
        FMS,
        15_860_019_712,
        ("mistral-7b", 16, ATTENTION),
        NARROW,
        COPIED,
    ),
    (
        "Mixtral 8x7B",
        "QLoRA, the same",
        FMS,
        46_419_968_512,
        ("mixtral-8x7b", 16, ATTENTION),
        NF4,
        f"{COPIED}; over float32 a token takes 0.2 MB more than in Mistral, unexplained",
    ),
    (
        "Mixtral 8x7B",
        "QLoRA, unquantised weights in 16 bits",
        FMS,
        36_218_024_448,
        ("mixtral-8x7b", 16, ATTENTION),
        NARROW,
        COPIED,
    ),
    (
        "Llama 2 70B",
        "QLoRA, unquantised weights in 16 bits",
        FMS,
        68_159_977_472,
        ("llama-2-70b", 16, ATTENTION),
        NARROW,
        COPIED,
    ),
    (
        "Llama 2 7B",
        "LoRA r = 8, 1 x 1,304",
        LITGPT,
        21.30 * GB,
        (LLAMA_2, 8, QV),
        ALPACA,
        "LitGPT adapts q, k and v as one projection and pads B A x with zeros",
    ),
    (
        "Llama 2 13B",
        "QLoRA r = 8, 1 x 1,304",
        LITGPT,
        22.55 * GB,
        ("llama-2-13b", 8, QV),
        {**ALPACA, "dtype": "nf4", "unquantised_dtype": "bfloat16"},
        "the same, and bitsandbytes 0.41 kept every linear layer's input; later versions do not",
    ),
    (
        "Yi 6B",
        "LoRA r = 8, 1 x 2,048",
        SWIFT,
        16.95 * GIB,
        (YI, 8, ["q_proj", "k_proj", "v_proj"]),
        {"max_length": 2048},
        "memory reserved; texts of all lengths up to 2,048",
    ),
    (
        "Llama 3.1 8B",
        "QLoRA r = 32, offloading, 1 x 78,475",
        UNSLOTH,
        24 * GIB,
        (LLAMA_31_8B, 32, ALL),
        {**LONGEST, "max_length": 78_475},
        FILLED,
    ),
    (
        "Llama 3.1 8B",
        "QLoRA r = 32, offloading, 1 x 342,733",
        UNSLOTH,
        80 * GIB,
        (LLAMA_31_8B, 32, ALL),
        {**LONGEST, "max_length": 342_733},
        FILLED,
    ),
    (
        "Llama 3.3 70B",
        "QLoRA r = 32, offloading, 1 x 89,389",
        UNSLOTH,
        80 * GIB,
        (LLAMA_33_70B, 32, ALL),
        {**LONGEST, "max_length": 89_389},
        FILLED,
    ),
]


def published() -> str:
    """The published measurements next to our figures, as a Markdown table."""
    rows = []
    for model, how, source, measured, counted, options, reason in CLAIMS:
        options = dict(options)
        host, cause = options.pop("host", False), options.pop("cause", "total")
        if isinstance(counted, tuple):
            spec, rank, targets = counted
            spec = preset(spec) if isinstance(spec, str) else spec
            counted = count_model(spec, rank=rank, targets=targets)
        memory = training_memory(counted, **options)
        ours = getattr(memory, cause) + (memory.host if host else 0)
        rows.append((model, how, source, int(measured), ours, ours / measured - 1, reason))
    near = [abs(difference) <= 0.15 for *_, difference, _ in rows]
    lines = [
        f"{sum(near)} of {len(near)} are within 15 %; of the last {LATER}, {sum(near[-LATER:])}.\n",
        "| model | training | source | published | ours | difference | why they differ |",
        "| --- | --- | --- | ---: | ---: | ---: | --- |",
    ]
    for *text, measured, ours, difference, reason in rows:
        sizes = f"{measured / GB:,.2f} GB", f"{ours / GB:,.2f} GB", f"{difference:+.0%}"
        lines.append(f"| {' | '.join([*text, *sizes, reason])} |")
    return "\n".join(lines) + "\n"


def estimated(figure: dict[str, Any]) -> tuple[int, int]:
    """Our estimate for a listed figure, in bytes, and the trainable parameters."""
    config = LISTED["models"].get(figure["model"])
    spec = preset(figure["model"]) if config is None else from_config(config)
    options = {**LISTED["settings"][figure["source"]], **figure["options"]}
    rank, targets = options.pop("rank"), options.pop("targets")
    if not rank:
        return training_memory(spec, **options).total, spec.total
    lora = count_model(spec, rank=rank, targets=targets)
    return training_memory(lora, **options).total, lora.trainable


def listed() -> str:
    """The listed measurements next to our estimates, as a Markdown table."""
    rows, off = [], []
    for figure in LISTED["figures"]:
        options = {**LISTED["settings"][figure["source"]], **figure["options"]}
        ours, measured = estimated(figure)[0], figure["published"]
        off.append(ours / measured - 1)
        dtype, rest = options.get("dtype", "bfloat16"), options.get("unquantised_dtype", "float32")
        base = f"nf4, rest {rest}" if dtype == "nf4" else dtype
        rank = f"rank {options['rank']}" if options["rank"] else "full"
        size = f"{options['batch_size']} x {options['max_length']:,}"
        source = f"[{figure['source']}]({LISTED['sources'][figure['source']]})"
        figures = f"{measured / GB:,.2f} GB", f"{ours / GB:,.2f} GB", f"{off[-1]:+.0%}"
        rows.append(f"| {' | '.join([figure['model'], rank, base, size, source, *figures])} |")
    near = [abs(error) for error in off if abs(error) <= 0.15]
    return "\n".join([
        f"{len(near)} of {len(off)} are within 15 %; the median difference is"
        f" {100 * median(map(abs, off)):.0f} %.\n",
        "| model | training | base | batch | source | published | ours | difference |",
        "| --- | --- | --- | --- | --- | ---: | ---: | ---: |", *rows, "",
    ])  # fmt: skip


def sold() -> str:
    """The GPUs as a Markdown table."""
    lines = ["| GPU | sold with | driver | note |", "| --- | ---: | ---: | --- |"]
    for name, gpu in gpus().items():
        lacks = {"No native bfloat16.": gpu.bfloat16, "No nf4 in bitsandbytes.": gpu.nf4}
        notes = [note for note, works in lacks.items() if not works] + [gpu.note]
        note = " ".join(filter(None, notes))
        lines.append(f"| {name} | {gpu.sold} GB | {gpu.memory // 2**20:,} MiB | {note} |")
    return "\n".join(lines) + "\n"


def page() -> str:
    """The page, with what its commands print and the table of published measurements."""
    text = PAGE.read_text(encoding="utf-8")

    def printed(found: re.Match[str]) -> str:
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            run(shlex.split(found[1])[1:])
        return f"$ {found[1]}\n{out.getvalue().strip()}\n```"

    text = re.sub(r"\$ (lora-np plan [^\n]*)\n.*?```", printed, text, flags=re.DOTALL)
    for name, table in {"gpus": sold(), "published": published(), "listed": listed()}.items():
        before, rest = text.split(f"<!-- {name} -->\n")
        text = f"{before}<!-- {name} -->\n\n{table}\n<!-- end -->{rest.split('<!-- end -->', 1)[1]}"
    return text


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
