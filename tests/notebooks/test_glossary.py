"""A word that a lesson introduces, in bold, or takes from the field, is in the glossary."""

import json
import re
from pathlib import Path

import pytest

from lora_np.course.notebooks import lessons

ROOT = Path(__file__).parents[2]
TEXT = (
    (ROOT / "docs" / "reference" / "glossary.md")
    .read_text(encoding="utf-8")
    .split(":::{glossary}")[1]
)
TERMS = re.findall(r"^(\S.*)\n  ", TEXT, flags=re.MULTILINE)
SAME = {"amplification": "amplification factor", "base": "base model", "output directions": "input directions", "svd": "singular value decomposition", "frozen": "freeze", "linear combination": "combination", "orthogonal": "right angles", "qr decomposition": "QR", "truncated": "singular value decomposition", **dict.fromkeys(["query", "key", "value"], "query, key, value")}  # fmt: skip
# Bold for the sake of emphasis, and headings of a list.
EMPHASIS = {
    "a", "and", "b", "back", "backward", "both random", "both zero", "by energy", "by error", "cheaper", "every path",
    "count again", "ellipse", "every", "exercises", "files are not", "first", "forward", "half", "less", "less time", "next", "no", "not", "one zero",
    "other", "random", "read backwards", "same photograph", "stored", "the first step", "training", "why even bother",
}  # fmt: skip

# Words of the field, as they begin. What a lesson says of them, bold or not, has to be explained; a
# new word that is missing here belongs here first. Forms that are called otherwise in the glossary
# follow after a colon.
FIELD = """
activation adamw adapter alpha attention autograd bfloat16 batch bias broadcast:broadcasting capacity
chain-rule checkpoint column-space context-window control cosine covariance cross-entropy decoder-only derivative
dequantis:dequantise dropout eigenvalue:eigenvector eigenvector embedding epoch fine-tun:fine-tuning
finite-difference float16 float32 frobenius-norm gguf gradient held-out hyperparameter interval
intruder:intruder-dimension key:query,-key,-value layer-norm learning-rate least-squares level
logit loftq lora+ loss low-rank:lora matrix merge mini-batch moment momentum nat nf4:normalfloat noise olora optimizer
orthonormal outlier overfit parameter peft perplexity pissa pivot pretrained prompt qlora quantile
quantis:quantise queries:query,-key,-value query:query,-key,-value rank rank-one regulariz regularis reverse-mode
rotary rslora safetensors sampling seed singular-value softmax span spectral-norm standard-error
subspace-similarity sweep temperature tensor test-text:test threshold token tokenizer transpose
truncated:singular-value-decomposition accuracy bitfit clip context covariance full-rank gram-matrix heap ia3 identity interference
intrinsic-dimension inverse least-squares mean-squared-error mlp nats:nat norm parameter-efficient:peft portable prefix:prefix-tuning relu
replay ridge saddle schedule tanh window validation variance vector vocabulary weight-decay white
"""


def used(path):
    """The terms of the glossary for words of the field in a lesson's text, code and its names left
    out.
    """
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    text = " ".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    text = text.partition("## Further reading")[0]
    text = re.sub(r"```.*?```|\]\([^)]*\)|\$[^$]*\$", " ", text, flags=re.DOTALL).lower()
    for word in FIELD.split():
        begins, _, term = word.partition(":")
        if re.search(rf"\b{re.escape(begins)}".replace(r"\-", "[- ]"), text):
            yield (term or begins).replace("-", " ")


def introduced(path):
    """What is bold and no sentence: at most three words."""
    text = path.read_text(encoding="utf-8")
    bold = {" ".join(found.split()) for found in re.findall(r"\*\*([^*$`{}\\]+?)\*\*", text)}
    return {
        words.lower().rstrip(".,:?")
        for words in bold
        if len(words.split()) <= 3 and words[0].isalpha()
    }


def known(words):
    terms = {term.lower() for term in TERMS}
    named = SAME.get(words, words).lower()
    return named in terms or named.removesuffix("s") in terms or f"{named}s" in terms


@pytest.mark.parametrize("path", lessons(), ids=lambda path: path.stem)
def test_words_that_lessons_introduce_are_explained(path):
    assert {words for words in introduced(path) - EMPHASIS if not known(words)} == set()


@pytest.mark.parametrize("path", lessons(), ids=lambda path: path.stem)
def test_words_of_the_field_that_lessons_use_are_explained(path):
    assert [
        word for word in used(path) if not known(word) and not known(word.replace(" ", "-"))
    ] == []


def test_terms_are_in_order_and_each_once():
    assert [term.lower() for term in TERMS] == sorted({term.lower() for term in TERMS})
    assert len(TERMS) > 60
