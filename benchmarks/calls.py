"""How much of lora_np one small use of each kind goes through, once all is loaded.

Small uses are all overhead: what they cost is how often Python enters a function of the package.
And the files and functions are what one reads to follow the use, going from file to file. A base
model is opened once: its files are read, and its modules built from its config, a single time.
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
    more; and how many base models it opens.
    """

    use: Callable[[], Any]
    files: int = FILES
    why: str = ""
    bases: int = 0


class Watched(NamedTuple):
    """What Python entered of the package during one use.

    Calls by the file and the function's name (comprehensions in one file are alike), how often the
    next call was in another file, and how often each JSON file was read.
    """

    calls: Counter[tuple[str, str]]
    changes: int
    read: Counter[str]

    @property
    def files(self) -> Counter[str]:
        """Calls by file."""
        files: Counter[str] = Counter()
        for (file, _), times in self.calls.items():
            files[file] += times
        return files

    @property
    def built(self) -> int:
        """How often a list of modules was built from a config."""
        return self.calls["models/families.py", "from_config"]


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
            seen = watch(flow.use)
            if options.files:
                rows += [(name, file, times) for file, times in sorted(seen.files.items())]
            else:
                sizes = len(seen.calls), seen.changes, sum(seen.calls.values())
                rows.append((name, len(seen.files), flow.files, *sizes, flow.why or None))
    headings = ("use", "files", "at most", "functions", "changes of file", "calls", "why more")
    table = Table(
        ("use", "file", "calls") if options.files else headings,
        rows,
        title="What a use enters of lora_np (sys.setprofile), the second time",
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
    adapters.save(tuned.model, folder / "named", base="austen")
    adapters.merge("austen", folder / "style", folder / "tuned", any_base=True)
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
            20,
            "as resize, and a second checkpoint: its names in every dialect, and its family, which"
            " says what shares the embedding's numbers",
            bases=1,
        ),
        "convert": Flow(
            lambda: adapters.convert(folder / "style", folder / "mlx", to="mlx", force=True),
            18,
            "as resize, with the adapter's values, and a second format, read back once written",
        ),
        "convert, with the base": Flow(
            lambda: adapters.convert(
                folder / "style", folder / "based", to="mlx", base="austen", force=True
            ),
            23,
            "as convert, with the base's family, its names and the layout of its experts",
            bases=1,
        ),
        "convert to GGUF": Flow(
            lambda: adapters.convert(
                folder / "named", folder / "named.gguf", to="gguf", force=True
            ),
            25,
            "as convert, with the base that the adapter names: its family, names, order of rows and"
            " layout of experts",
            bases=1,
        ),
        "extract": Flow(
            lambda: adapters.extract("austen", folder / "tuned", folder / "x", rank=2, force=True),
            26,
            "two checkpoints and the layout of their experts, their difference and its spectrum, an"
            " adapter written, and merged again to check it",
            bases=2,
        ),
        "repair": Flow(
            lambda: adapters.repair(folder / "style", folder / "r", base="austen", force=True),
            23,
            "an adapter read and written under the names of its base, in the layout of its experts,"
            " and both measured",
            bases=1,
        ),
        "check": Flow(
            lambda: adapters.check(folder / "style", base="austen"),
            20,
            "an adapter read with its values, compared with its base, the layout of its experts and"
            " its own targets, and judged by every program's rules",
            bases=1,
        ),
        "load": Flow(
            lambda: language.load("austen"),
            17,
            "a checkpoint, its family, a decoder with all its layers, and a vocabulary",
            bases=1,
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


def watch(use: Callable[[], Any]) -> Watched:
    """Watch which functions of the package Python enters, the second time."""
    home = f"{Path(lnp.__file__).parent}/"
    calls: Counter[tuple[str, str]] = Counter()
    read: Counter[str] = Counter()
    changes, last = 0, ""

    def seen(frame: Any, event: str, argument: Any) -> None:
        nonlocal changes, last
        if event != "call" or not frame.f_code.co_filename.startswith(home):
            return
        file, name = frame.f_code.co_filename, frame.f_code.co_name
        calls[file.removeprefix(home), name] += 1
        changes += bool(last) and file != last
        last = file
        if name == "read_json":
            read[str(frame.f_locals["path"])] += 1

    use()
    gc.collect()  # a generator that somebody left is closed by entering its function
    gc.disable()
    sys.setprofile(seen)
    try:
        use()
    finally:
        sys.setprofile(None)
        gc.enable()
    return Watched(calls, changes, read)
