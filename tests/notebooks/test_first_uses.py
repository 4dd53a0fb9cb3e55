"""On the path, and in each lesson, a word of the field is not used before it is explained."""

import json
import re
from functools import cache
from pathlib import Path

import pytest

from lora_np import exercises
from notebooks import about

ROOT = Path(__file__).parents[2]
COURSE = [one for one in exercises.lessons() if one.group != "project"]
TITLES = {one.title: one for one in COURSE}

# Terms of the glossary, as they begin; after a bar, what else a lesson calls them. Capitals count.
# A lesson explains a term where it stands in bold.
TERMS = """
accuracy, activation, Adam, adapter, amplification, attention, autograd, base, batch, bfloat16,
bias, block, broadcasting, chain rule, checkpoint, column space, control, correlat, cosine,
covariance, cross-entropy, derivative, direction, divergence, DoRA, double quantisation, energy,
fine-tun, Frobenius, frozen|freeze, full rank, GGUF, gradient, gradient descent, head|heads, heap,
held out|held-out, identity, interference, interval, intrinsic dimension, intruder, inverse, Iso,
Jacobian, layer, leaf, learning rate, least squares|least-squares, linear layer, LoftQ, logit,
LoRA, LoRA+, loss, LU, master weight, mean squared error, merge|merging, mlp|MLP, model, module,
moments, nats, network, nf4|NormalFloat, node, noise, OLoRA, optimizer, orthogonal, outlier,
parameter, PEFT, PiSSA, pretrained, principal angle, prompt, QLoRA, QR, quantile, quantis, quer,
rank, reduced-rank regression, RegMean, relu, replay, ridge, rsLoRA, saddle,
safetensors, scale, seed, singular value, singular vector, softmax, spectral norm, spectrum,
standard deviation, standard error, SVD, sweep, target module, teacher, term|terms, TIES, token,
train, transpose, update, upstream, validation, variance, vector, verdict, vocabulary, white,
window
"""
WORDS = [word.strip() for word in TERMS.replace("\n", " ").split(",")]
WHOLE = {
    "base", "head|heads", "Iso", "leaf", "LoRA", "LoRA+", "loss", "LU", "nats", "node", "QR", "rank", "SVD",
    "term|terms", "TIES", "white",
}  # fmt: skip


def pattern(word):
    forms = "|".join(
        re.escape(form) if form.isupper() else f"(?i:{re.escape(form)})" for form in word.split("|")
    )
    return rf"(?<![\w-])(?:{forms})" + r"(?![\w+])" * (word in WHOLE)


PATTERNS = {word: re.compile(pattern(word)) for word in WORDS}


@cache
def cells(lesson):
    path = ROOT / "notebooks" / f"{lesson.stem}.ipynb"
    return about.prose(json.loads(path.read_text(encoding="utf-8")))


def paragraphs(text):
    """What a reader reads after the opening: without headings, code, formulas and titles."""
    body = text.partition("\n## ")[2].partition("## Further reading")[0]
    for paragraph in re.split(r"\n\s*\n|\n(?=## )", re.sub(r"```.*?```", "", body, flags=re.S)):
        read = re.sub(r"^## .*$|`[^`]*`|\$[^$]*\$|<!--.*?-->", " ", paragraph, flags=re.M | re.S)
        read = " ".join(read.split())
        yield re.sub(
            r"(?<!\*)\*([^*]+)\*(?!\*)", lambda name: " " if name[1] in TITLES else name[0], read
        )


def uses(text, known):
    """The words that a text uses before it explains them, and all that it explains."""
    explained, early = set(), []
    for paragraph in paragraphs(text):
        bold = re.findall(r"\*\*([^*]+)\*\*", paragraph)
        terms = " | ".join(words for words in bold if len(words.split()) <= 4)
        explained |= {word for word, found in PATTERNS.items() if found.search(terms)}
        told = known | explained | {*early}
        early += [word for word in WORDS if word not in told and PATTERNS[word].search(paragraph)]
    return early, explained


@cache
def explained_in(lesson):
    return uses(cells(lesson), set(WORDS))[1]


def needed(text):
    sentence = re.search(r"^You need (.+?)\n\n", text, flags=re.M | re.S)[1]
    names = re.findall(r"(?<!\*)\*([^*]+)\*(?!\*)", " ".join(sentence.split()))
    return [TITLES[name] for name in names if name in TITLES]


def before(lesson):
    """The path up to a lesson; for depth all of the path, its group so far, and what it needs."""
    same = [one for one in COURSE if one.group in ("path", lesson.group)]
    return [one for one in same if one.number < lesson.number] + needed(cells(lesson))


@pytest.mark.parametrize("lesson", COURSE, ids=lambda lesson: lesson.slug)
def test_no_word_is_used_before_it_is_explained(lesson):
    known = {word for one in before(lesson) for word in explained_in(one)}
    assert uses(cells(lesson), known)[0] == []


def test_a_word_that_comes_too_early_is_found():
    text = (
        "# T\n\nYou need *See rank*.\n\n## A\n\nThe gradient of it.\n\nA **gradient** is a slope."
    )
    assert uses(text, set()) == (["gradient"], {"gradient"})
    assert uses(text, {"gradient"})[0] == []
    assert uses(text.replace("The gradient of it.", "The *See rank* of it."), set())[0] == []


def test_every_word_of_the_list_is_explained_somewhere():
    explained = {word for one in COURSE for word in explained_in(one)}
    assert set(WORDS) - explained == set()
