"""Files of lora_np, and calls of its functions, that one small use of each kind takes once all is
loaded.

Small uses are all overhead: what they cost is how often Python enters a function of the package.
And these files are what one reads to follow the use.
"""

from __future__ import annotations

import argparse
import gc
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import lora_np as lnp
from lora_np import adapters, grading, language
from lora_np.accounting import count_model, plan
from lora_np.models.sources import preset_config
from lora_np.table import Table

FILES = 12  # of the package, that a use should do with


class Flow(NamedTuple):
    """One use: a function to be called twice, the files that it may take, and why where these are
    more.
    """

    use: Callable[[], Any]
    files: int = FILES
    why: str = ""


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks calls", description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument(
        "--files", action="store_true", help="name the files, and the calls into each"
    )
    options = parser.parse_args(arguments)
    rows: list[tuple[str | int | None, ...]] = []
    with tempfile.TemporaryDirectory() as folder:
        for name, flow in flows(Path(folder)).items():
            entered = calls(flow.use)
            if options.files:
                rows += [(name, file, times) for file, times in sorted(entered.items())]
            else:
                rows.append(
                    (name, len(entered), flow.files, sum(entered.values()), flow.why or None)
                )
    table = Table(
        (
            ("use", "file", "calls")
            if options.files
            else ("use", "files", "at most", "calls", "why more")
        ),
        rows,
        title="Files of lora_np that a use enters, and calls (sys.setprofile), the second time",
    )
    print(table.to_json() if options.json else table)


def flows(folder: Path) -> dict[str, Flow]:
    """The uses by name; they write below ``folder``."""
    rng = np.random.default_rng(0)
    W0, x = rng.standard_normal((100, 120)), rng.standard_normal((256, 120))
    y = x @ rng.standard_normal((120, 100))
    model = lnp.inject(lnp.Linear(W0), rank=8, rng=rng)
    config = preset_config("llama-3-8b")
    adapters.save(model, folder / "adapter", names=lambda path: "q_proj")
    llm = language.load("austen")
    text = "It is a truth universally acknowledged. " * 8
    tuned = language.finetune(
        llm, text, rank=2, steps=1, batch_size=2, max_length=16, progress=False
    )
    adapters.save(tuned.model, folder / "style")
    (folder / "handed-in").mkdir()
    answer = "def lora_count(d, k, r):\n    return r * (d + k)\n"
    (folder / "handed-in" / "ada.py").write_text(answer, encoding="utf-8")
    return {
        "count": Flow(lambda: count_model(config, rank=16)),
        "one step of fit": Flow(
            lambda: lnp.fit(model, x, y, steps=1, validation=(x, y), progress=False),
            13,
            "the engine is four files, and layers, LoRA, loss, optimizer, tree, data and loop are"
            " one each",
        ),
        "resize": Flow(
            lambda: adapters.resize(folder / "adapter", folder / "resized", rank=4, force=True),
            18,
            "safetensors, PEFT's config, names and a directory that appears whole are six packages'"
            " concern; the formats, told by looking, what the rules of programs say of the result,"
            " and the wrappers that training leaves in names are six more",
        ),
        "merge": Flow(
            lambda: adapters.merge("austen", folder / "style", folder / "merged", force=True),
            23,
            "as resize, with a second checkpoint: its quantised tensors, its names, and its family,"
            " which says what shares the embedding's numbers",
        ),
        "convert": Flow(
            lambda: adapters.convert(folder / "style", folder / "mlx", to="mlx", force=True),
            17,
            "as resize, with a second format, read back once it is written",
        ),
        "finetune": Flow(
            lambda: language.finetune(
                llm, text, rank=2, steps=1, batch_size=2, max_length=16, progress=False
            ),
            27,
            "a step of fit, a decoder with its vocabulary, and the LoRA: selected by name and"
            " injected, with its rate; what the data says, how it is packed and the schedule are"
            " one each",
        ),
        "plan": Flow(lambda: plan(config, gpu="RTX 4090")),
        "grade": Flow(lambda: grading.grade(folder / "handed-in", rng=0)),
    }


def calls(use: Callable[[], Any]) -> Counter[str]:
    """How many times Python enters a function of each file of the package, the second time."""
    home = Path(lnp.__file__).parent
    entered: Counter[str] = Counter()

    def seen(frame: Any, event: str, argument: Any) -> None:
        if event == "call":
            entered[frame.f_code.co_filename] += 1

    use()
    gc.collect()  # a generator that somebody left is closed by entering its function
    gc.disable()
    sys.setprofile(seen)
    try:
        use()
    finally:
        sys.setprofile(None)
        gc.enable()
    inside = {file: times for file, times in entered.items() if Path(file).is_relative_to(home)}
    return Counter(
        {Path(file).relative_to(home).as_posix(): times for file, times in inside.items()}
    )
