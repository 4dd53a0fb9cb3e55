"""Operations on adapter files: time and peak memory against PEFT and torch, on the same files."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks._measure import peers, versions
from lora_np import adapters
from lora_np.hub import TensorInfo, safetensors
from lora_np.table import Cell, Table, binary_bytes

MIB = 2**20
TARGETS = ("self_attn.q_proj", "self_attn.v_proj")

# Runs a piece of work in a separate process; prints its seconds, imports left out, and the peak of
# its anonymous memory: what is mapped from files can be dropped at any time, and does not count.
WATCHED = """
import sys, threading, time
from pathlib import Path
folder = Path(sys.argv[1])
{imports}
peak, done = 0, threading.Event()
def watch():
    global peak
    while not done.is_set():
        with open("/proc/self/status") as status:
            line = next(line for line in status if line.startswith("RssAnon"))
        peak = max(peak, 1024 * int(line.split()[1]))
        time.sleep(0.002)
watcher = threading.Thread(target=watch)
watcher.start()
start = time.perf_counter()
{work}
seconds = time.perf_counter() - start
done.set()
watcher.join()
print(seconds, peak)
"""

OURS = """
from lora_np import adapters
base, adapter = folder / "base", folder / "adapter"
"""
PEFT = """
import warnings
warnings.simplefilter("ignore")
import peft, torch, transformers
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
"""

# task, contender, imports, work
WORK = [
    ("merge", "lora_np", OURS, "adapters.merge(base, adapter, folder / 'ours')"),
    ("merge", "lora_np, 2 jobs", OURS, "adapters.merge(base, adapter, folder / 'two', jobs=2)"),
    ("merge", "PEFT", PEFT, """
model = transformers.AutoModelForCausalLM.from_pretrained(folder / "base", dtype=torch.bfloat16)
model = peft.PeftModel.from_pretrained(model, folder / "adapter")
model.merge_and_unload().save_pretrained(folder / "theirs")
"""),
    ("extract r = 8", "lora_np", OURS,
     "adapters.extract(base, folder / 'ours', folder / 'back', rank=8)"),
    ("resize to 4", "lora_np", OURS, "adapters.resize(adapter, folder / 'small', rank=4)"),
    ("resize to 4, 2 modules", "lora_np", OURS,
     "adapters.resize(folder / 'few', folder / 'few4', rank=4)"),
    ("resize to 4, 2 modules", "torch, product formed", """
import torch
from safetensors.torch import load_file, save_file
""", """
tensors = load_file(folder / "few" / "adapter_model.safetensors")
for key in [key for key in tensors if "lora_A" in key]:
    other = key.replace("lora_A", "lora_B")
    U, s, Vh = torch.linalg.svd(tensors[other].float() @ tensors[key].float(), full_matrices=False)
    tensors[other] = (U[:, :4] * s[:4]).bfloat16().contiguous()
    tensors[key] = Vh[:4].bfloat16().contiguous()
save_file(tensors, folder / "few4.safetensors")
"""),
]  # fmt: skip


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks adapters", description=__doc__)
    parser.add_argument("--gib", type=float, default=2.0, help="size of the base in bfloat16")
    parser.add_argument(
        "--quick", action="store_true", help="a tiny base, in this process, without measuring"
    )
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    found = peers("torch", "peft", "transformers")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        size, largest = build(folder, None if options.quick else options.gib)
        rows = list(measured(folder, with_peers=len(found) == 3, quick=options.quick))
    limit = 200 + 8 * largest / MIB
    table = Table(
        ["task", "contender", "seconds", "peak MiB"],
        rows,
        title=f"A base of {binary_bytes(size)} in bfloat16, r = 8",
        notes=[
            (
                "limit of merge and extract: 200 MiB + 8 times the largest tensor in float32 ="
                f" {limit:,.0f} MiB"
            ),
            "peak of anonymous memory of the process; imports are not timed",
            (
                "lora_np has the disk hold what it wrote before it renames it (fsync), PEFT and"
                " torch do not"
            ),
            versions("numpy", "torch", "peft", "transformers"),
        ],
    )
    print(table.to_json() if options.json else table)


def measured(folder: Path, *, with_peers: bool, quick: bool) -> Iterator[list[Cell]]:
    for task, contender, imports, work in WORK:
        if with_peers or contender.startswith("lora_np"):
            if quick:
                exec(imports + work, {"folder": folder})
                yield [task, contender, None, None]
                continue
            os.sync()  # nobody waits for what others wrote
            code = WATCHED.format(imports=imports, work=work)
            result = subprocess.run(
                [sys.executable, "-c", code, str(folder)],
                capture_output=True,
                text=True,
                check=False,
            )
            if result.returncode:
                sys.exit(f"{task} by {contender} failed:\n{result.stderr}")
            seconds, peak = map(float, result.stdout.split()[-2:])
            yield [task, contender, seconds, peak / MIB]


def build(folder: Path, gib: float | None) -> tuple[int, int]:
    """Write a random Llama of this size, or a tiny one, and adapters for it; return the bytes of
    the whole, and of its largest tensor in F32.
    """
    d, wide, vocab = (64, 176, 1000) if gib is None else (2048, 5632, 32_000)
    layer = {
        **{f"self_attn.{x}_proj": (d, d) for x in "qkvo"},
        **{f"mlp.{x}_proj": (wide, d) for x in ("gate", "up")},
        "mlp.down_proj": (d, wide),
    }
    per_layer = 2 * sum(a * b for a, b in layer.values())
    layers = 2 if gib is None else max(1, round((gib * 2**30 - 4 * d * vocab) / per_layer))
    shards = [
        {
            **{f"model.layers.{i}.{name}.weight": shape for name, shape in layer.items()},
            **{
                f"model.layers.{i}.{name}_layernorm.weight": (d,)
                for name in ("input", "post_attention")
            },
        }
        for i in range(layers)
    ]
    shards.append(
        {
            "model.embed_tokens.weight": (vocab, d),
            "lm_head.weight": (vocab, d),
            "model.norm.weight": (d,),
        }
    )
    write_base(folder / "base", shards)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": d,
        "intermediate_size": wide,
        "num_hidden_layers": layers,
        "num_attention_heads": 16,
        "num_key_value_heads": 16,
        "vocab_size": vocab,
        "tie_word_embeddings": False,
        "dtype": "bfloat16",
    }
    (folder / "base" / "config.json").write_text(json.dumps(config))
    write_adapter(
        folder / "adapter",
        [f"model.layers.{i}.{name}" for i in range(layers) for name in TARGETS],
        d,
    )
    write_adapter(folder / "few", [f"model.layers.0.{name}" for name in TARGETS], d)
    return (
        sum(2 * int(np.prod(shape)) for shard in shards for shape in shard.values()),
        4 * vocab * d,
    )


def write_base(folder: Path, shards: list[dict[str, tuple[int, ...]]]) -> None:
    folder.mkdir()
    rng = np.random.default_rng(0)
    where: dict[str, str] = {}
    for i, shapes in enumerate(shards):
        file = f"model-{i + 1:05}-of-{len(shards):05}.safetensors"
        header = {name: TensorInfo("bfloat16", shape) for name, shape in shapes.items()}

        def read(name: str, shapes: dict[str, tuple[int, ...]] = shapes) -> np.ndarray:
            return 0.02 * rng.standard_normal(shapes[name], np.float32)

        safetensors.write(header, read, folder / file, metadata={"format": "pt"})
        where |= dict.fromkeys(shapes, file)
    index = {"metadata": {}, "weight_map": where}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def write_adapter(folder: Path, names: list[str], d: int) -> None:
    rng = np.random.default_rng(1)
    modules = {
        name: adapters.AdapterModule.of(
            A=rng.standard_normal((8, d), np.float32) / d**0.5,
            B=0.1 * rng.standard_normal((d, 8), np.float32),
            alpha=16.0,
            dtype="bfloat16",
        )
        for name in names
    }
    raw = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "target_modules": list(modules)}
    adapters.save(adapters.Adapter(modules, raw=raw), folder)
