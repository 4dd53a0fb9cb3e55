"""LoRA-FA: A frozen, no loss, less memory."""

from __future__ import annotations

from claims.lab.protocol import Claim, Lab, Values
from claims.lab.rules import Part, Rule


def measure(lab: Lab) -> Values:
    plain, frozen = lab.redrawn("digits", "LoRA, r = 8", "LoRA-FA, r = 8")
    # activations kept for the backward pass, of each row of inputs: x A^T instead of x
    return {"digits": plain.over(frozen), "kept": [8 / 64]}


CLAIM = Claim(
    title="A can be frozen at random with no loss of quality, and fewer activations are kept.",
    paper="Zhang et al., LoRA-FA, arXiv 2308.03303",
    finding="With A frozen, the loss was {digits:above} higher than LoRA's. For the backward pass, the layer kept {kept:percent} of the activations that LoRA keeps.",
    topic="memory",
    refuted_by="A loss that is clearly higher than LoRA's at the same rank and at a rate of its own.",
    setup="digits",
    varied="the learning rate",
    setting="We run the paper's method at rank 8. The method has half as many trainable parameters as LoRA of the same rank. The base, the data split, the initialisation of A and B, and the order of the batches are drawn anew for each seed. The base is never trained on a test image.",
    figures={
        "digits": "LoRA's test loss over LoRA-FA's on digits, each at its best learning rate, rank 8",
        "kept": "activations that a layer of 64 inputs keeps for the backward pass, LoRA-FA over LoRA",
    },
    measure=measure,
    ratios=("digits",),
    counted=("kept",),
    rule=Rule((Part("digits", above=1 / 1.05), Part("kept", below=0.5))),
    published="The total memory is up to 1.4 times smaller than LoRA's, at a similar accuracy.",
    headline="digits",
    words="LoRA's loss ÷ loss with A frozen, rank 8",
    limits="The task changes which features the layer must look at. If the base already looks at the right features, A matters less. A linear task cannot test this claim, because the best loss with a random, frozen A follows from arithmetic there.",
    advice="Freeze A if the activations do not fit into memory (`lora-np plan` tells you). Then measure how much loss it costs.",
)
