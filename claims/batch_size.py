"""Large batches hurt LoRA more."""

from __future__ import annotations

from claims.lab.protocol import Claim, Lab, Values
from claims.lab.rules import Part, Rule
from lora_np.checks import Array


def measure(lab: Lab) -> Values:
    found: dict[str, Array] = {}
    for name in ("digits", "linear"):
        lora = lab.redrawn(name, "LoRA, batch 256", "LoRA, batch 16")
        full = lab.redrawn(name, "full, batch 256", "full, batch 16")
        worse = lora[0].over(lora[1])
        found |= {name: worse / full[0].over(full[1]), f"{name}_lora": worse}
    return found


CLAIM = Claim(
    title="In some scenarios large batches hurt LoRA more than full fine-tuning, at any learning rate.",
    paper="J. Schulman and Thinking Machines Lab, LoRA Without Regret, 2025",
    finding="From batch 16 to batch 256, the loss grows by some factor. LoRA's factor was {digits} times the full update's on digits, and {linear} times on the linear task.",
    topic="rate",
    refuted_by="A full update that loses as much from a large batch.",
    setup="digits, linear",
    varied="the batch size, at an equal number of examples",
    setting="The batch sizes are 16 and 256, with the same total number of examples. The learning rate is tuned for each batch size. The base, the data split, the initialisation of A and B, and the order of the batches are drawn anew for each seed. The base is never trained on a test image.",
    figures={
        "digits": "factor by which LoRA's loss grows from batch 16 to 256, over the full update's factor, digits",
        "digits_lora": "factor by which LoRA's loss grows from batch 16 to 256, digits",
        "linear": "factor by which LoRA's loss grows from batch 16 to 256, over the full update's factor, linear task with noise",
        "linear_lora": "factor by which LoRA's loss grows from batch 16 to 256, linear task with noise",
    },
    measure=measure,
    ratios=("digits", "digits_lora", "linear", "linear_lora"),
    rule=Rule((Part("digits", above=1, worth=1.1), Part("linear", above=1, worth=1.1))),
    headline="digits",
    words="growth of LoRA's loss with the batch size ÷ the full update's",
    limits="At an equal number of examples, a large batch means few steps: here 75 on digits and 38 on the linear task. We have not yet compared LoRA with the full update at an equal number of steps.",
    advice="Keep LoRA's batch small unless the hardware needs a larger one: 16 was better than 256, and nothing between was measured. Tune the learning rate for each batch size.",
)
