"""Training on text with `fit` itself: streams, ignored labels, accumulation, validation, samples,
resuming.
"""

import itertools
import tracemalloc
from dataclasses import dataclass, replace as changed

import numpy as np
import pytest

import lora_np as lnp
from lora_np import language
from lora_np.language import fused
from tests.language.conftest import random_model
from tests.rounding import assert_near, in_double


def masked_loss(model, batch, *, rng=None):
    tokens, labels = batch
    return language.token_loss(model, tokens, labels, rng=rng)


@dataclass(frozen=True)
class Stream:
    """Batches by the number of the step, with some labels ignored."""

    rows: np.ndarray
    size: int

    def __call__(self, step):
        rng = np.random.default_rng(step)
        rows = self.rows[rng.integers(0, len(self.rows), self.size)]
        labels = np.where(rng.random((self.size, rows.shape[1] - 1)) < 0.3, -100, rows[:, 1:])
        return rows[:, :-1], labels


@pytest.fixture
def stream(model, text):
    return Stream(language.windows(model.vocabulary.encode(text), 16), 4)


@pytest.fixture
def adapted(model):
    return lnp.inject(model, rank=2, alpha=8, rng=0)


def leaves(result):
    return [leaf.data for _, leaf in lnp.trainable(result.model)]


def test_a_stream_is_learnt_from_and_sampled_on_the_way(adapted, stream):
    """Validation is the mean over its batches, and comes with a sample of text, before, between and
    after.
    """
    held_out, said = [stream(1000 + i) for i in range(3)], []

    def sample(step, frozen):
        said.append((step, language.generate(frozen, "the ", tokens=5, temperature=0)))

    settings = {"loss": masked_loss, "optimizer": lnp.AdamW(lr=1e-2), "progress": False}
    result = lnp.fit(
        adapted, stream, steps=30, validation=held_out, validate_every=10, sample=sample, **settings
    )
    history = result.history
    assert history.validation_steps.tolist() == [step for step, _ in said] == [0, 10, 20, 30]
    assert history.validation_loss[-1] < history.validation_loss[0]
    final = np.mean([float(masked_loss(lnp.freeze(result.model), batch)) for batch in held_out])
    assert history.validation_loss[-1] == pytest.approx(final, rel=1e-6)
    assert all(text.startswith("the ") and len(text) == 9 for _, text in said)


def test_accumulated_batches_are_one_large_batch(adapted, model, text):
    """The same rows in one batch or in four make the same step, where each part has as many
    labels.
    """
    rows = language.windows(model.vocabulary.encode(text), 16)[:48]
    settings = {
        "loss": language.token_loss,
        "optimizer": lnp.SGD(lr=0.1),
        "steps": 3,
        "progress": False,
    }
    whole = lnp.fit(adapted, list(rows.reshape(3, 16, 17)), **settings)
    parts = lnp.fit(adapted, list(rows.reshape(12, 4, 17)), accumulate=4, **settings)
    exact = lnp.fit(in_double(adapted), list(rows.reshape(3, 16, 17)), **settings)
    for found in (whole, parts):
        assert_near(np.array(found.history.loss), np.array(exact.history.loss))
        for one, right in zip(leaves(found), leaves(exact), strict=True):
            assert_near(one, right)


@pytest.mark.parametrize("stop", [1, 4, 7])
def test_a_stream_is_resumed_bit_for_bit(adapted, stream, tmp_path, stop):
    settings = {
        "loss": masked_loss,
        "optimizer": lnp.AdamW(lr=1e-2),
        "steps": 8,
        "accumulate": 2,
        "progress": False,
    }
    whole = lnp.fit(adapted, stream, checkpoint=tmp_path / "whole", **settings)

    def die(step, model):
        if step == stop:
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        lnp.fit(adapted, stream, checkpoint=tmp_path / "run", watch=die, **settings)
    again = lnp.fit(adapted, stream, checkpoint=tmp_path / "run", resume=True, **settings)
    np.testing.assert_array_equal(again.history.loss, whole.history.loss)
    for one, other in zip(leaves(whole), leaves(again), strict=True):
        np.testing.assert_array_equal(one, other)
    spoken = changed(adapted, vocabulary=language.Characters(adapted.vocabulary.characters[::-1]))
    with pytest.raises(ValueError, match="its model is"):
        lnp.fit(spoken, stream, checkpoint=tmp_path / "run", resume=True, **settings)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("name", ["lm_head", "model.embed_tokens"])
def test_a_head_that_is_to_be_trained_is(stream, tied, name):
    """A tied head is one array with two names: trained by either of them, and tied still."""
    base = random_model(tie_word_embeddings=tied)
    model = lnp.inject(base, rank=2, alpha=2, rng=0, train=[name])
    result = lnp.fit(
        model, stream, loss=masked_loss, optimizer=lnp.AdamW(lr=1e-2), steps=4, progress=False
    )
    head, embedding = result.model.lm_head.W, result.model.model.embed_tokens.W
    assert (head is embedding) == tied
    trained = {"lm_head": head, "model.embed_tokens": embedding}[name]
    before = {"lm_head": base.lm_head.W, "model.embed_tokens": base.model.embed_tokens.W}[name]
    assert isinstance(trained, lnp.Tensor)
    assert np.abs(trained.data - before).max() > 1e-3
    if not tied:
        other = embedding if name == "lm_head" else head
        assert isinstance(other, np.ndarray)


def test_the_gradient_of_a_tied_head_is_that_of_both_its_uses():
    """Against the slope of the loss, in float64."""
    model = lnp.inject(random_model(dtype=np.float64), rank=2, alpha=2, rng=0, train=["lm_head"])
    tokens = np.random.default_rng(0).integers(0, 30, (2, 9))
    language.token_loss(model, tokens).backward()
    W = model.lm_head.W
    direction, values, step = np.random.default_rng(1).normal(size=W.shape), W.data.copy(), 1e-5
    ends = []
    for sign in (1, -1):
        W.data[...] = values + sign * step * direction
        ends.append(language.token_loss(model, tokens).item())
    assert (ends[0] - ends[1]) / (2 * step) == pytest.approx(
        float(np.sum(W.grad * direction)), rel=1e-6
    )


@pytest.mark.parametrize("tied", [True, False])
def test_an_adapted_head_has_the_loss_of_its_sum(tied):
    """A head with an adapter has another way to its loss; the one with the summed weight is the
    reference.
    """
    base = random_model(tie_word_embeddings=tied)
    model = lnp.inject(base, rank=2, alpha=6, rng=0, targets=["lm_head", "v_proj"])
    rng = np.random.default_rng(0)
    model = lnp.replace(
        model, lnp.Tensor, lambda path, t: lnp.Tensor(rng.normal(size=t.shape).astype("f4"))
    )
    tokens = rng.integers(0, 30, (2, 9))
    labels = np.where(rng.random(tokens.shape) < 0.3, -100, tokens)
    loss = language.token_loss(model, tokens, labels)
    assert loss.item() == pytest.approx(
        float(language.token_loss(lnp.merge(model), tokens, labels)), rel=1e-5
    )
    loss.backward()
    assert all(np.abs(leaf.grad).max() > 0 for _, leaf in lnp.trainable(model))


def test_memory_grows_with_a_text_and_not_with_its_square(monkeypatch):
    """Twice the tokens take twice the memory, far less than all weights of attention would."""
    monkeypatch.setattr(fused, "KEPT", 2**14)
    model = lnp.inject(random_model(max_position_embeddings=8192), rank=2, alpha=2, rng=0)
    peaks = []
    for n in (1536, 3072, 6144):  # more queries at a time than in shorter texts
        tokens = np.random.default_rng(0).integers(0, 30, (1, n + 1))
        language.token_loss(model, tokens).backward()  # tables of angles are made once
        tracemalloc.start()
        language.token_loss(model, tokens).backward()
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert all(after < 2.2 * before for before, after in itertools.pairwise(peaks))
    assert peaks[-1] < 0.5 * 4 * 4 * 2048**2  # bytes of the weights of 4 heads in one layer


def test_memory_of_generation_grows_with_the_prompt_and_not_with_its_square(monkeypatch):
    monkeypatch.setattr(fused, "KEPT", 2**14)
    model = random_model(max_position_embeddings=8192)
    peaks = []
    for n in (512, 1024, 2048):
        prompt = "the sea " * (n // 8)
        language.generate(model, prompt, tokens=1)
        tracemalloc.start()
        language.generate(model, prompt, tokens=2)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert all(after < 2.2 * before for before, after in itertools.pairwise(peaks))
    assert peaks[-1] < 0.5 * 4 * 4 * 2048**2


def test_perplexity_and_bits_a_byte(model, text):
    """A uniform guess among 30 characters has a perplexity of 30 and log2 30 bits for each byte."""
    blank = lnp.replace(model, np.ndarray, lambda path, array: np.zeros_like(array))
    found = language.likelihood(blank, text)
    assert found.perplexity == pytest.approx(30, rel=1e-5)
    assert found.bits_per_byte == pytest.approx(np.log2(30), rel=1e-5)
