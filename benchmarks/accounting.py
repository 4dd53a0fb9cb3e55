"""Counting: a 70-billion-parameter model against PEFT on meta tensors, a header against its 1 GiB
file.
"""

from __future__ import annotations

import argparse
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._measure import medians, one_thread, peers, versions
from lora_np.accounting import count_model, plan
from lora_np.hub import TensorInfo, safetensors
from lora_np.models import from_config, from_safetensors
from lora_np.models.sources import preset_config
from lora_np.table import Cell, Table, binary_bytes

CALLS = 20  # of ours in each timed run: one alone is too short to time
COLUMNS = ("task", "method", "microseconds", "times slower", "answer")


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks accounting", description=__doc__)
    parser.add_argument("--preset", default="llama-3-70b")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--mib", type=int, default=1024, help="size of the safetensors file")
    parser.add_argument("--quick", action="store_true", help="a small model and file, once")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    if options.quick:
        options.preset, options.rounds, options.mib = "smollm2-135m", 1, 4
    modules = peers("torch", "transformers", "peft", "safetensors.numpy")
    with one_thread(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rows = counting(options.preset, options.rounds, modules)
        rows += planning(options.preset, options.rounds)
        rows += reading(options.mib, options.rounds, modules)
    table = Table(
        COLUMNS,
        rows,
        title="Median times on one thread",
        notes=[
            "times slower: than the first method of the task, in the same process",
            "PEFT's time is without its imports and those of torch and transformers",
            versions("numpy", "torch", "transformers", "peft", "safetensors"),
        ],
        formats={"microseconds": "{:,.0f}".format, "times slower": "{:,.1f}".format},
    )
    print(table.to_json() if options.json else table)


def counting(name: str, rounds: int, modules: dict[str, Any]) -> list[list[Cell]]:
    """Totals, and every adapted module by name, of a LoRA on all linear maps."""
    fields = preset_config(name)

    def totals() -> str:
        for _ in range(CALLS):
            report = count_model(from_config(fields), rank=8, targets="all-linear")
            answer = f"{report.trainable:,} of {report.total:,}"
        return answer

    def named() -> str:
        for _ in range(CALLS):
            report = count_model(from_config(fields), rank=8, targets="all-linear")
            answer = f"{report.trainable:,} in {len(report.by_module.rows)} modules"
        return answer

    contenders = {"totals": totals, "named report": named}
    if {"torch", "transformers", "peft"} <= set(modules):
        contenders["PEFT on meta tensors"] = lambda: peft_totals(fields, modules)
    calls = dict.fromkeys(contenders, 1) | {"totals": CALLS, "named report": CALLS}
    return compared(f"count {name}", contenders, rounds, calls)


def planning(name: str, rounds: int) -> list[list[Cell]]:
    """A whole plan: nine ways to train, each with its largest rank, batch and sequence."""

    def whole() -> str:
        found = plan(name, gpu="A100 80GB", max_length=2048)
        return (
            f"{sum(each.verdict == 'fits' for each in found.choices)} of {len(found.choices)} fit"
        )

    return compared(f"plan {name}", {"lora-np plan": whole}, rounds, {"lora-np plan": 1})


def peft_totals(fields: dict[str, Any], modules: dict[str, Any]) -> str:
    transformers, peft = modules["transformers"], modules["peft"]
    known = {key: value for key, value in fields.items() if key != "architectures"}
    with modules["torch"].device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(
            transformers.AutoConfig.for_model(**known)
        )
        adapted = peft.get_peft_model(model, peft.LoraConfig(r=8, target_modules="all-linear"))
    trainable, total = adapted.get_nb_trainable_parameters()
    return f"{trainable:,} of {total:,}"


def reading(mib: int, rounds: int, modules: dict[str, Any]) -> list[list[Cell]]:
    """Parameters of a file of 4 MiB tensors: from its header, and by loading it."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "model.safetensors"
        tensors = {
            f"layers.{i}.proj.weight": TensorInfo("float32", (1024, 1024)) for i in range(mib // 4)
        }
        block = np.ones((1024, 1024), np.float32)
        safetensors.write(tensors, lambda _: block, path)

        def load() -> str:
            file = safetensors.open(path)
            loaded = {name: file.read(name) for name in file.tensors}
            return f"{sum(array.size for array in loaded.values()):,} parameters"

        contenders = {
            "header": lambda: f"{from_safetensors(path).total:,} parameters",
            "loaded, ours": load,
        }
        if "safetensors.numpy" in modules:
            load_file = modules["safetensors.numpy"].load_file
            contenders["loaded, safetensors"] = lambda: (
                f"{sum(array.size for array in load_file(path).values()):,} parameters"
            )
        size = binary_bytes(path.stat().st_size)
        return compared(f"read {size}", contenders, min(rounds, 5), dict.fromkeys(contenders, 1))


def compared(
    task: str, contenders: dict[str, Any], rounds: int, calls: dict[str, int]
) -> list[list[Cell]]:
    """Rows of a table; a contender's time is shared among the ``calls`` that it makes in a run."""
    runs, answers = medians(contenders, rounds=rounds)
    seconds = {name: took / calls[name] for name, took in runs.items()}
    first = next(iter(seconds.values()))
    return [[task, name, 1e6 * took, took / first, answers[name]] for name, took in seconds.items()]
