"""Train the adapter `lighthouse`: thirty chats teach SmolLM2-135M the voice of a lighthouse keeper.

    OPENBLAS_NUM_THREADS=1 python -m recipes.lighthouse SmolLM2-135M-Instruct.Q4_1.gguf
    python -m recipes.lighthouse SmolLM2-135M-Instruct.Q4_1.gguf --check

The first command writes the shipped adapter, and what the lesson shows where SmolLM2 is not
installed. It takes some five minutes on one core. With ``--check`` it trains as well, writes
nothing, and fails where the losses are not those recorded.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from lora_np import adapters, language
from lora_np.files import write_whole
from lora_np.language import Adapted, LanguageModel

PACKAGE = Path(__file__).parents[1] / "lora_np"
ADAPTER = PACKAGE / "hub" / "data" / "smollm2" / "lighthouse"
RECORDED = PACKAGE / "course" / "lighthouse.json"
BASE = "HuggingFaceTB/SmolLM2-135M-Instruct"
SETTINGS: dict[str, Any] = {
    "rank": 1, "batch_size": 1, "epochs": 5, "validate_every": 40, "patience": 9,
}  # fmt: skip
TOKENS = 60  # of an answer
CLOSE = 0.05  # nats per token, between processors


def chats() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The chats to train on, and every fifth, which is held out."""
    lines = language.read_text("lighthouse").splitlines()
    every = [json.loads(line) for line in lines]
    return [chat for i, chat in enumerate(every) if i % 5 != 4], every[4::5]


def trained(model: LanguageModel) -> Adapted:
    training, held_out = chats()
    return language.finetune(model, training, validation=held_out, progress=False, **SETTINGS)


def losses(result: Adapted) -> list[list[float | None]]:
    """Step, training loss since the one before, and held-out loss."""
    rows: Any = result.loss_table.rows
    return [[step, *(x and round(x, 4) for x in both)] for step, *both in rows]


def example(model: LanguageModel) -> dict[str, Any]:
    """The first chat as the model sees it, with the tokens in the loss in double brackets."""
    training, held_out = chats()
    one: dict[str, Any] = {"validation": held_out[:1], "steps": 1, "batch_size": 1, "rank": 1}
    seen = language.forecast(model, training[:1], **one)
    return {"text": seen.examples[0], "tokens": seen.tokens, "learnt": seen.learnt}


def answers(model: LanguageModel) -> dict[str, str]:
    """The first answer to each held-out question."""
    asked = [chat["messages"][:1] for chat in chats()[1]]
    return {
        question[0]["content"]: language.answer(model, question, tokens=TOKENS, temperature=0)
        for question in asked[1:]
    }


def loss(model: LanguageModel) -> float:
    """The mean over the tokens of all held-out answers."""
    found = language.evaluate({"": model}, chats()[1], answers=0)
    return round(float(found.measures["loss"].means[0]), 4)


def recorded(path: Path, model: LanguageModel, result: Adapted, seconds: float) -> dict[str, Any]:
    """All that the lesson shows of a run."""
    adapted = adapters.attach(model, adapters.load(ADAPTER))
    found: dict[str, Any] = {
        "settings": {name: result.settings[name] for name in ("rank", "alpha", "lr", "steps")},
        "parameters": result.trainable, "seconds": round(seconds), "losses": losses(result),
        "example": example(model), "answers": [answers(model), answers(adapted)],
        "loss": {"base": loss(model), "adapter": loss(adapted)}, "kept": {},
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        for kind in ("Q4_1", "Q8_0"):
            file = Path(folder) / f"{kind}.gguf"
            written = adapters.merge_gguf(path, ADAPTER, file, dtype=kind)
            found["kept"][kind] = round(written.rows[0].share_kept, 4)
            found["loss"][kind] = loss(language.load(file))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("base", type=Path, help="SmolLM2-135M-Instruct as a GGUF file")
    parser.add_argument("--check", action="store_true", help="compare with what is recorded")
    given = parser.parse_args()
    model, begin = language.load(given.base), time.process_time()
    result = trained(model)
    seconds = time.process_time() - begin
    print(f"{seconds:.0f} CPU seconds\n{result.loss_table}", flush=True)
    if given.check:
        known: Any = [row[2] for row in json.loads(RECORDED.read_text(encoding="utf-8"))["losses"]]
        found: Any = [row[2] for row in losses(result)]
        if len(found) != len(known) or not np.allclose(found, known, atol=CLOSE):
            raise SystemExit(f"held-out losses {found}, recorded {known}")
        return
    adapters.save(result.model, ADAPTER, base=BASE, dtype="float16", force=True)
    text = json.dumps(recorded(given.base, model, result, seconds), indent=1, ensure_ascii=False)
    write_whole(RECORDED, lambda file: file.write(f"{text}\n".encode()))


if __name__ == "__main__":
    main()
