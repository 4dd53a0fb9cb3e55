"""A larger rate for B than for A."""

from __future__ import annotations

from claims.lab.protocol import Claim, Lab, Values
from claims.lab.rules import Part, Rule
from lora_np.checks import Array


def measure(lab: Lab) -> Values:
    found: dict[str, Array] = {}
    for setup, name, width in (("digits", "digits", ""), ("linear", "wide", "width 256, ")):
        rank = "" if width else ", r = 8"
        plain, plus = lab.redrawn(setup, f"{width}LoRA{rank}", f"{width}LoRA+ 16{rank}")
        found |= {
            name: plain.over(plus),
            f"{name}_early": plain.over(plus, "early"),
            f"{name}_fixed": plain.over_at(plus, plain),
        }
    return found


CLAIM = Claim(
    title="A learning rate for B that is 16 times that for A learns better and up to twice as fast.",
    paper="Hayou et al., arXiv 2402.12354",
    finding="LoRA+'s loss was {digits:lower} below LoRA's on digits, and {wide:inverse} times LoRA's on the linear task.",
    topic="rate",
    refuted_by="One rate for both that does as well once it is tuned.",
    setup="digits, linear",
    varied="the width, and A's learning rate, with B's 16 times as large",
    setting="The ratio is 16, as in the paper's code. The widths are 64 and 256, and alpha is 16 at rank 8. The base, the data split, the initialisation of A and B, and the order of the batches are drawn anew for each seed. The base is never trained on a test image.",
    figures={
        "digits": "LoRA's test loss over LoRA+'s at the end, each at its best learning rate, digits",
        "digits_early": "LoRA's test loss over LoRA+'s after a quarter of the steps, each at its best learning rate, digits",
        "digits_fixed": "LoRA's test loss over LoRA+'s at the end, both at LoRA's best learning rate, digits",
        "wide": "LoRA's test loss over LoRA+'s at the end, each at its best learning rate, linear task of width 256",
        "wide_early": "LoRA's test loss over LoRA+'s after a quarter of the steps, best learning rates, linear task of width 256",
        "wide_fixed": "LoRA's test loss over LoRA+'s at the end, both at LoRA's best learning rate, linear task of width 256",
    },
    measure=measure,
    ratios=("digits", "digits_early", "digits_fixed", "wide", "wide_early", "wide_fixed"),
    rule=Rule(
        tuple(
            Part(name, above=1, worth=1.1)
            for name in ("digits", "wide", "digits_early", "wide_early")
        ),
    ),
    published="LoRA+ is 1 to 2 % better, and up to 2 times faster.",
    headline="digits",
    words="LoRA's loss ÷ LoRA+'s at the end, digits",
    beats={
        "digits": ("digits", "LoRA, r = 8"),
        "digits_early": ("digits", "LoRA, r = 8", "early"),
        "wide": ("linear", "width 256, LoRA"),
        "wide_early": ("linear", "width 256, LoRA", "early"),
    },
    limits=(
        "LoRA+ with ratio x is LoRA with x times alpha (one-knob). So LoRA+ gains as much as a larger alpha does at this alpha, rank and width. Runs agree to the last bit if x is "
        "a power of two and no gradient is clipped. Adam's epsilon for B must also be divided by x. Here we use the usual epsilon of 1e-8. With this epsilon, the logits on digits "
        "differ by 0.005 after 100 steps, and by as much as 5 after 300. If the norm of gradients is clipped, LoRA+ and LoRA with a larger alpha are different methods."
    ),
    advice="Tune alpha instead. LoRA+ with ratio 16 is LoRA with 16 times alpha, so it is enough to tune one learning rate and alpha.",
)
