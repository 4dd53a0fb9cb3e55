"""Fused primitives against the composed texts that define them: values and gradients, in
float64.
"""

import tracemalloc

import numpy as np
import pytest

import lora_np as lnp
from lora_np import language
from lora_np.language import composed, fused
from lora_np.language.blocks import Cache
from lora_np.language.rotary import Rotary
from tests.drawing import every
from tests.language.conftest import random_model
from tests.rounding import assert_as_near, assert_near, in_double


def random(rng, *shape):
    return lnp.Tensor(rng.normal(size=shape))


def compare(name, tensors, **settings):
    """Both give the same result, and the same gradient for each subset of arguments that wants
    one.
    """
    results = []
    for operations in (fused, composed):
        y = getattr(operations, name)(*tensors, **settings)
        weights = np.cos(np.arange(y.size)).reshape(y.shape)
        np.sum(np.tanh(y) * weights).backward()
        results.append([y.data, *(t.grad for t in tensors)])
        for t in tensors:
            t.grad = None
    for one, other in zip(*results, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-11 * max(1, np.abs(other).max()))
    for only in range(len(tensors)):
        arrays = [t if i == only else t.data for i, t in enumerate(tensors)]
        y = getattr(fused, name)(*arrays, **settings)
        np.sum(np.tanh(y) * weights).backward()
        np.testing.assert_allclose(tensors[only].grad, results[0][1 + only], rtol=1e-10, atol=1e-12)
        tensors[only].grad = None
    plain = getattr(fused, name)(*(t.data for t in tensors), **settings)
    np.testing.assert_array_equal(plain, results[0][0])


@pytest.mark.parametrize("shape", [(1, 1, 2), (2, 3, 8), (1, 5, 1)])
def test_rms_norm(shape):
    rng = np.random.default_rng(shape[1])
    compare("rms_norm", [random(rng, *shape), random(rng, shape[-1])], eps=1e-5)


@pytest.mark.parametrize("scale", [1.0, 300.0])
def test_gated(scale):
    rng = np.random.default_rng(0)
    compare("gated", [lnp.Tensor(scale * rng.normal(size=(2, 3, 5))), random(rng, 2, 3, 5)])


def rotary_by(theta, d, **more):
    """Pair i turns by theta^(-2i/d) a token."""
    return Rotary(tuple((theta ** -(np.arange(0, d, 2) / d)).tolist()), **more)


@every("piece", [1, 100, 2**15])
@every("heads", [1, 3])
@every("batch", [1, 2, 3, 5])
def test_rotation(batch, heads, piece, monkeypatch):
    """Some texts at a time, and tables of one head or of all."""
    monkeypatch.setattr(fused, "PIECE", piece)
    rng = np.random.default_rng(batch)
    cos, sin = rotary_by(100.0, 4, attention=1.3, width=6).turns(slice(2, 9), 9, np.dtype(float))
    compare("rotate", [random(rng, batch, 7, heads, 6)], cos=cos, sin=sin)


@every("kept", [0, 5000, 2**22])
@every("window", [None, 1, 3, 64, 70])
@every(("heads", "kv"), [(1, 1), (4, 4), (6, 2), (3, 1)])
@every(
    ("tokens", "before"), [(1, 0), (2, 0), (2, 1), (65, 0), (65, 62), (130, 0), (130, 3), (130, 50)]
)
def test_attention(tokens, before, heads, kv, window, kept, monkeypatch):
    """Blocks, groups, windows, tiles, keys before the first query, and weights that are made again
    on the way back.
    """
    monkeypatch.setattr(fused, "KEPT", kept)
    monkeypatch.setattr(fused, "TILE", 512 if kept == 2**22 else 40)
    rng = np.random.default_rng(tokens * heads)
    q, k, v = (random(rng, 2, tokens, n, 4) for n in (heads, kv, kv))
    compare("attend", [lnp.Tensor(q.data[:, before:]), k, v], window=window, scale=0.5)


@every("kept", [0, 2**22])
@every("window", [None, 3, 70])
@every(("heads", "kv"), [(1, 1), (6, 2)])
@every("lengths", [[1, 1], [2, 63], [40, 1, 89], [130]])
def test_attention_within_texts(lengths, heads, kv, window, kept, monkeypatch):
    """Texts one after the other in a row, another number of them in each row, and a factor of their
    own on scores.
    """
    monkeypatch.setattr(fused, "KEPT", kept)
    monkeypatch.setattr(fused, "TILE", 40)
    tokens = sum(lengths)
    rng = np.random.default_rng(tokens * heads)
    q, k, v = (random(rng, 2, tokens, n, 4) for n in (heads, kv, kv))
    texts = np.stack([np.repeat(range(len(lengths)), lengths), np.arange(tokens) % 2])
    how = {"window": window, "scale": 0.3, "sequence_ids": texts}
    for before in {0, 1, tokens // 2} - {tokens}:  # the first query
        compare("attend", [lnp.Tensor(q.data[:, before:]), k, v], **how)
    whole = fused.attend(q.data, k.data, v.data, **how)
    start = 0
    for length in lengths:  # each text is the one that it would be alone
        part = slice(start, start + length)
        alone = [t.data[:1, part] for t in (q, k, v)]
        found = fused.attend(*alone, **{**how, "sequence_ids": None})
        np.testing.assert_allclose(found, whole[:1, part], atol=1e-12)
        start += length


@pytest.mark.parametrize("sign", [1, -1])
def test_the_largest_scores_from_which_nothing_is_subtracted(sign):
    """In float32, and gradients too: they are as near as where the largest is subtracted."""
    rng = np.random.default_rng(3)
    q, k, v = (rng.normal(size=(1, 70, 2, 8)) for _ in range(3))
    q[..., 0], k[..., 0] = 20, sign * 20
    k *= fused.HARMLESS / np.sqrt((q**2).sum(-1).max() * (k**2).sum(-1).max()) * 0.999
    g = rng.normal(size=(1, 70, 16))
    found = []
    for dtype, limit in ((float, 0.0), (np.float32, 0.0), (np.float32, fused.HARMLESS)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(fused, "HARMLESS", limit)
            parts = [lnp.Tensor(x.astype(dtype)) for x in (q, k, v)]
            heads = q.transpose(0, 2, 1, 3), k.transpose(0, 2, 3, 1)
            assert fused.may_overflow(*heads) == (limit == 0)
            y = fused.attend(*parts, window=None, scale=1.0)
            np.sum(y * g.astype(dtype)).backward()
        found.append([y.data, *(t.grad for t in parts)])
    exact, subtracted, plain = found
    for at in range(4):
        assert_as_near(plain[at], subtracted[at], exact[at])


@pytest.mark.parametrize("size", [0.1, 1.0, 30.0])
def test_scores_that_would_overflow(size):
    """Scores up to 10^4, of which exp is beyond float64: then the largest is subtracted, and else
    need not be.
    """
    rng = np.random.default_rng(0)
    q, k, v = (random(rng, 2, 70, 2, 4) for _ in range(3))
    q.data *= size * 10
    k.data *= size
    compare("attend", [q, k, v], window=None, scale=0.5)


def test_no_token_sees_a_later_one():
    rng = np.random.default_rng(0)
    q, k, v = (rng.normal(size=(1, 100, 2, 4)) for _ in range(3))
    before = fused.attend(q, k, v, window=None, scale=0.5)
    k[:, 70], v[:, 70] = 5.0, 5.0
    after = fused.attend(q, k, v, window=None, scale=0.5)
    changed = (before != after).any(axis=(0, 2))
    assert not changed[:70].any()
    assert changed[70:].all()


@pytest.mark.parametrize(("logits", "rows"), [(1, 1), (40, 4), (40, 1024), (2**18, 1024)])
@pytest.mark.parametrize("ignored", [0, 3, 20])
def test_head_log_probabilities(logits, rows, ignored, monkeypatch):
    monkeypatch.setattr(fused, "LOGITS", logits)
    monkeypatch.setattr(fused, "ROWS", rows)
    rng = np.random.default_rng(ignored)
    labels = rng.integers(0, 11, (3, 7))
    labels.ravel()[rng.permutation(21)[:ignored]] = -100
    compare(
        "head_log_probabilities", [random(rng, 3, 7, 5)], W=rng.normal(size=(11, 5)), labels=labels
    )


@pytest.mark.parametrize(("logits", "rows"), [(1, 1), (40, 4), (40, 1024), (2**18, 1024)])
@pytest.mark.parametrize("ignored", [0, 3, 20])
@pytest.mark.parametrize("size", [1.0, 100.0])
def test_distillation_loss(logits, rows, ignored, size, monkeypatch):
    """Nearly equal, and far apart."""
    monkeypatch.setattr(fused, "LOGITS", logits)
    monkeypatch.setattr(fused, "ROWS", rows)
    rng = np.random.default_rng(ignored)
    counts = np.ones(21, bool)
    counts[rng.permutation(21)[:ignored]] = False
    teacher = size * rng.normal(size=(21 - ignored, 5))
    W, counts = rng.normal(size=(11, 5)), counts.reshape(3, 7)
    compare("distillation_loss", [random(rng, 3, 7, 5)], W=W, teacher=teacher, counts=counts)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_distillation_is_zero_at_the_teacher_and_positive_elsewhere(dtype):
    """By its definition, over all tokens; and so is its gradient there, to the last bit."""
    rng = np.random.default_rng(0)
    W, teacher = rng.normal(size=(40, 6)).astype(dtype), rng.normal(size=(9, 6)).astype(dtype)
    h, counts = lnp.Tensor(teacher[None].copy()), np.ones((1, 9), bool)
    loss = fused.distillation_loss(h, W, teacher=teacher, counts=counts)
    loss.backward()
    assert loss.data == 0
    assert not h.grad.any()
    h = teacher + rng.normal(size=teacher.shape).astype(dtype)
    p, q = (np.exp(x @ W.T) / np.exp(x @ W.T).sum(1, keepdims=True) for x in (h, teacher))
    expected = np.mean(np.sum(q * np.log(q / p), axis=1))
    found = fused.distillation_loss(h[None], W, teacher=teacher, counts=counts)
    assert 0 < found == pytest.approx(expected, rel=1e-10 if dtype == np.float64 else 1e-5)


def test_a_loss_of_nothing(model):
    tokens = np.zeros((1, 4), int)
    with pytest.raises(ValueError, match="all 4 labels are -100"):
        language.token_loss(model, tokens, np.full((1, 4), -100))


LONG = {
    "plain": {},
    "capped": {
        "model_type": "gemma2",
        "head_dim": 4,
        "query_pre_attn_scalar": 4,
        "sliding_window": 5000,
    },
    "windows": {"model_type": "mistral", "sliding_window": 300},
}


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("composing", [False, True])
@pytest.mark.parametrize("kind", LONG)
def test_the_memory_of_a_long_prompt_grows_with_its_length(kind, composing, padded):
    """And not with its square, with or without another text beside it."""
    tokens = 2048
    # one layer, whose scores of all tokens and heads would take 64 MiB
    model = random_model(
        **{"num_hidden_layers": 1, "max_position_embeddings": tokens, **LONG[kind]}
    )
    model = language.composed_operations(model) if composing else model
    prompt = np.random.default_rng(0).integers(0, 30, (1, tokens))
    texts = np.arange(tokens)[np.newaxis] >= 100 if padded else None
    caches = [Cache(tokens) for _ in model.model.layers]
    tracemalloc.start()
    try:
        said = model.model(prompt, caches=caches, sequence_ids=texts)[:, -1]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < tokens * 4 * 1200
    if not (composing or padded):
        assert_near(said, in_double(model).model(prompt)[:, -1])
