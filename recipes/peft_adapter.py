"""Make an adapter with PEFT and torch alone: the lesson *Open a real adapter* opens it.

    OPENBLAS_NUM_THREADS=1 python -m recipes.peft_adapter -o genesis-by-peft

The shipped model is opened by transformers, and learns the book of Genesis (public domain) on
queries and values. It takes about a minute on one core.
"""

from __future__ import annotations

import argparse

import numpy as np
import peft
import torch
import transformers

from lora_np import language
from lora_np.language import windows
from lora_np.language.decoder import vocabulary_of

RANK, ALPHA, STEPS, BATCH, CONTEXT, RATE = 16, 16, 300, 8, 64, 1e-2


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-o", "--out", required=True, help="directory to write")
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    source = language.located_adapter("king-james").parent
    base = transformers.AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    config = peft.LoraConfig(
        task_type="CAUSAL_LM", r=RANK, lora_alpha=ALPHA, target_modules=["q_proj", "v_proj"]
    )
    model = peft.get_peft_model(base, config)
    tokens = vocabulary_of(language.load("austen")).encode(language.read_text("genesis"))
    rows = windows(tokens[: len(tokens) * 9 // 10], CONTEXT)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    rng = np.random.default_rng(0)
    for step in range(STEPS):
        batch = torch.as_tensor(rows[rng.integers(len(rows), size=BATCH)])
        loss = model(input_ids=batch, labels=batch).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if (step + 1) % 50 == 0:
            print(f"step {step + 1}: {loss.item():.3f}", flush=True)
    model.peft_config["default"].base_model_name_or_path = "austen"
    model.save_pretrained(options.out)


if __name__ == "__main__":
    main()
