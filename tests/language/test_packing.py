"""Examples as labelled tokens, side by side in rows: each keeps to itself, and every label counts
the same.
"""

import json
from dataclasses import replace

import numpy as np
import pytest

import lora_np as lnp
from lora_np import language
from lora_np.language import packing
from lora_np.language.data import as_data
from lora_np.language.templates import Template
from lora_np.language.vocabulary import read_vocabulary
from tests.drawing import few
from tests.rounding import assert_near, in_double

from .conftest import LETTERS, byte_level, needs_tokenizers, random_model

jinja2 = pytest.importorskip("jinja2")

TEMPLATE = (
    "{% for m in messages %}{{ m.role[0] }}. {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}a. {% endif %}"
)
MARKED = (
    "{% for m in messages %}{{ m.role[0] }}. "
    "{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{% endgeneration %}{% else %}{{ m.content }}{% endif %}"
    "{{ '\n' }}{% endfor %}"
)


def with_template(model, template=TEMPLATE, **settings):
    """The same model with a chat template and special tokens."""
    settings = {"chat_template": template, **settings}
    files = {"tokenizer_config.json": json.dumps(settings).encode()}
    return replace(model, vocabulary=language.Characters(LETTERS, files))


@pytest.fixture(scope="module")
def chatty():
    return with_template(random_model(max_position_embeddings=64))


def drawn_documents(rng, n=9, longest=20):
    lengths = rng.integers(2, longest, n)
    found = [packing.Document(rng.integers(0, 30, k), rng.random(k) < 0.6) for k in lengths]
    return [document for document in found if document.learnt] or drawn_documents(rng)


def apart(model, documents):
    """The loss of documents one by one: the mean over all labels."""
    total = n = 0
    for document in documents:
        labels = np.where(document.answer, document.tokens, -100)[np.newaxis, 1:]
        loss = language.token_loss(model, document.tokens[np.newaxis, :-1], labels)
        total, n = total + loss * document.learnt, n + document.learnt
    return total / n


VARIED = [{}, {"sliding_window": 5, "model_type": "mistral"}]


@pytest.mark.parametrize("changes", VARIED, ids=str)
@pytest.mark.parametrize("composed", [False, True])
@pytest.mark.parametrize("seed", few(range(40), 10))
def test_documents_side_by_side_are_as_if_each_were_alone(seed, composed, changes):
    """Losses and gradients of rows, in parts of a step or at once, are those of one document after
    the other.
    """
    rng = np.random.default_rng(seed)
    base = random_model(rng=seed, dtype=np.float64, max_position_embeddings=64, **changes)
    base = language.composed_operations(base) if composed else base
    model = lnp.inject(base, rank=2, alpha=2, rng=seed)
    model = lnp.replace(
        model, lnp.Tensor, lambda path, leaf: lnp.Tensor(rng.normal(size=leaf.shape) * 0.3)
    )
    documents = drawn_documents(rng)
    rows = packing.packed(documents, 40)
    apart(model, documents).backward()
    expected = [leaf.grad for _, leaf in lnp.trainable(model)]
    value = apart(model, documents).item()
    for size in (1, 2, len(rows)):
        parts = packing.together([rows[i : i + size] for i in range(0, len(rows), size)])
        for _, leaf in lnp.trainable(model):
            leaf.grad = None
        losses = [packing.batch_loss(model, part) / len(parts) for part in parts]
        for loss in losses:
            loss.backward()
        assert sum(loss.item() for loss in losses) == pytest.approx(value, rel=1e-12)
        for (_, leaf), gradient in zip(lnp.trainable(model), expected, strict=True):
            np.testing.assert_allclose(leaf.grad, gradient, atol=1e-12 * np.abs(gradient).max())


def test_a_document_does_not_depend_on_its_neighbours():
    """A poisoned neighbour would show: the hidden states of the others are the same to the bit."""
    model = random_model(max_position_embeddings=64)
    rng = np.random.default_rng(0)
    one, other, third = (
        packing.Document(rng.integers(0, 30, n), np.ones(n, bool)) for n in (9, 14, 11)
    )
    batches = [
        packing.batch([[one, each]]) for each in (other, third._replace(tokens=third.tokens[::-1]))
    ]
    exact = in_double(model).model(one.tokens[np.newaxis, :8])[0]
    for b in batches:
        assert_near(model.model(b.tokens, sequence_ids=b.sequence_ids)[0, :8], exact)


def test_without_labels_no_token_is_predicted_from_another_sequence():
    model, rng = in_double(random_model(max_position_embeddings=64)), np.random.default_rng(0)
    pair = [packing.Document(rng.integers(0, 30, n), np.ones(n, bool)) for n in (6, 9)]
    tokens = np.concatenate([document.tokens for document in pair])[np.newaxis]
    ids = np.repeat([[1, 2]], [6, 9], axis=1)
    log_p = language.log_probabilities(model, tokens, sequence_ids=ids)
    assert np.flatnonzero(log_p == 0).tolist() == [5]
    loss = language.token_loss(model, tokens, sequence_ids=ids)
    assert loss == pytest.approx(apart(model, pair), rel=1e-12)


@pytest.mark.parametrize("seed", few(range(60), 10))
def test_rows_hold_each_document_once_and_none_is_too_long(seed):
    """Best fit, longest first: a document goes where the least is left, and opens a row only if
    none has room.
    """
    rng = np.random.default_rng(seed)
    documents = [
        packing.Document(np.zeros(n, int), np.ones(n, bool)) for n in rng.integers(1, 33, 30)
    ]
    rows = packing.packed(documents, 32)
    assert sorted(map(id, documents)) == sorted(id(document) for row in rows for document in row)
    used: list[int] = []
    first_come: list[list] = []
    for document in sorted(documents, key=lambda d: -len(d.tokens)):
        n = len(document.tokens)
        room = [(32 - u, i) for i, u in enumerate(used) if 32 - u >= n]
        least = min((space for space, _ in room), default=None)
        row = next(row for row in rows if any(each is document for each in row))
        place = next((i for i, known in enumerate(first_come) if known is row), None)
        if least is None:
            assert place is None
            first_come.append(row)
            used.append(n)
        else:
            assert 32 - used[place] == least
            used[place] += n


def test_a_batch_has_each_token_with_the_one_that_follows_it():
    a = packing.Document(np.array([5, 6, 7]), np.array([True, False, True]))
    b = packing.Document(np.array([8, 9]), np.array([False, True]))
    batch = packing.batch([[a, b], [b]])
    assert batch.tokens.tolist() == [[5, 6, 8], [8, 0, 0]]
    assert batch.labels.tolist() == [[-100, 7, 9], [9, -100, -100]]
    assert batch.sequence_ids.tolist() == [[1, 1, 2], [1, 0, 0]]
    assert packing.batch([[a], [b]]).sequence_ids is None  # what comes last is seen by none


CHAT = [
    {"role": "user", "content": "hi"},
    {"role": "assistant", "content": "hello"},
    {"role": "user", "content": "you"},
    {"role": "assistant", "content": "me"},
]


def test_answers_are_labelled_and_nothing_else(chatty):
    (document,), notes = packing.documents(as_data([{"messages": CHAT}]), chatty, 64)
    assert packing.marked(document, chatty.vocabulary) == "u. hi\na. [[hello\n]]u. you\na. [[me\n]]"
    assert "no {% generation %}" in notes[0]
    marked = with_template(chatty, MARKED)
    (document,), notes = packing.documents(as_data([{"messages": CHAT}]), marked, 64)
    assert packing.marked(document, chatty.vocabulary) == "u. hi\na. [[hello]]\nu. you\na. [[me]]\n"
    assert not notes
    for model in (chatty, marked):  # prompt and completion as messages: only what is completed
        data = as_data([{"prompt": CHAT[:3], "completion": CHAT[3:]}])
        (document,), _ = packing.documents(data, model, 64)
        assert packing.marked(document, chatty.vocabulary).startswith(
            "u. hi\na. hello\nu. you\na. [[me"
        )


def test_texts_and_completions_end_in_the_end_token():
    model = with_template(random_model(), eos_token=".")
    data = [{"prompt": "the ", "completion": "sea"}, {"prompt": "a ", "completion": "king."}]
    found, notes = packing.documents(as_data(data), model, 32)
    assert [packing.marked(each, model.vocabulary) for each in found] == [
        "the [[sea.]]",
        "a [[king.]]",
    ]
    (found,), _ = packing.documents(as_data(["the sea"]), model, 32)
    assert packing.marked(found, model.vocabulary) == "[[the sea.]]"
    assert not notes
    assert "no end token" in packing.documents(as_data(data), random_model(), 32)[1][0]
    by_config = random_model(eos_token_id=LETTERS.index(","))
    assert packing.documents(as_data(["so"]), by_config, 32)[0][0].tokens[-1] == LETTERS.index(",")


def test_what_is_too_long_is_cut_and_counted():
    model = random_model()
    data = as_data([{"prompt": "a" * n, "completion": "bc"} for n in (2, 7, 8, 9)])
    found, notes = packing.documents(data, model, 9)
    assert [packing.marked(each, model.vocabulary) for each in found] == [
        "aa[[bc]]",
        "aaaaaaa[[bc]]",
        "aaaaaaaa[[b]]",
    ]
    assert notes[:2] == [
        "2 of 4 examples are longer than 9 tokens and were cut",
        "1 examples had nothing to learn in these tokens and were left out",
    ]
    with pytest.raises(ValueError, match="nothing to learn in the first 2 tokens of an example"):
        packing.documents(data, model, 2)


def test_a_template_that_rewrites_what_it_wrote_leaves_those_answers_out():
    thinking = TEMPLATE.replace(
        "{{ m.content }}",
        "{{ 'hm ' if loop.last and m.role == 'assistant' else '' }}{{ m.content }}",
    )
    model = with_template(random_model(max_position_embeddings=64), thinking)
    (document,), notes = packing.documents(as_data([{"messages": CHAT}]), model, 64)
    assert packing.marked(document, model.vocabulary) == "u. hi\na. hello\nu. you\na. [[hm me\n]]"
    assert any(note.startswith("1 answers are not learnt") for note in notes)


def test_all_rows_come_once_in_an_epoch_and_a_step_has_the_same_in_any_number_of_batches():
    rng = np.random.default_rng(0)
    rows = packing.packed(drawn_documents(rng, 40), 30)
    rows = rows[: len(rows) // 4 * 4]
    whole, parts = (
        packing.Shuffled(rows, packing.together, size, n, 7, {}) for size, n in ((4, 1), (2, 2))
    )
    model = random_model(max_position_embeddings=64)
    for step in range(3):
        losses = [packing.batch_loss(model, parts(2 * step + i)) for i in range(2)]
        exact = packing.batch_loss(in_double(model), whole(step))
        for loss in (np.mean(losses), packing.batch_loss(model, whole(step))):
            assert_near(loss, exact)
    epoch = [row for i in range(len(rows) // 4) for row in whole.drawn(i)]
    assert sorted(map(id, epoch)) == sorted(map(id, rows))


@pytest.mark.parametrize("head", ["frozen", "trained", "capped"])
@pytest.mark.parametrize("seed", few(range(12), 4))
def test_log_probabilities_are_those_of_the_logits_and_the_loss_is_minus_their_mean(seed, head):
    """Values and gradients, against log softmax in NumPy; a label that is ignored has none."""
    capped = {"final_logit_softcapping": 2.0, "model_type": "gemma2", "head_dim": 4}
    model = in_double(random_model(**capped if head == "capped" else {}))
    if head == "trained":
        model = lnp.replace(model, np.ndarray, lambda path, W: lnp.Tensor(W))
    else:
        model = lnp.inject(model, rank=2, variant="lora", targets="all-linear", rng=seed)
        model = lnp.replace(
            model, lnp.Tensor, lambda path, leaf: lnp.Tensor(leaf.data + 0.1 * np.cos(leaf.data))
        )
    rng = np.random.default_rng(seed)
    tokens = rng.integers(0, 30, (2, 7))
    labels = np.where(rng.random((2, 7)) < 0.6, rng.integers(0, 30, (2, 7)), -100)
    labels[0, 0] = 3
    weights, counts = rng.normal(size=(2, 7)), labels >= 0

    def by_hand():
        z = model(tokens)
        picked = z[np.arange(2)[:, None], np.arange(7), np.where(counts, labels, 0)]
        return (picked - np.log(np.sum(np.exp(z), axis=-1))) * counts

    found = []
    for log_p in (language.log_probabilities(model, tokens, labels), by_hand()):
        np.sum(log_p * weights).backward()
        grads = [leaf.grad for _, leaf in lnp.trainable(model)]
        found.append([log_p.data, *grads])
        for _, leaf in lnp.trainable(model):
            leaf.grad = None
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-11)
    assert not found[0][0][~counts].any()
    loss = language.token_loss(model, tokens, labels)
    assert float(lnp.value(loss)) == pytest.approx(-found[0][0].sum() / counts.sum(), rel=1e-12)
    whole = language.log_probabilities(lnp.freeze(model), tokens)
    assert whole.shape == (2, 6)
    assert float(language.token_loss(lnp.freeze(model), tokens)) == pytest.approx(-whole.mean())


@needs_tokenizers
def test_answers_are_learnt_whose_end_is_cut_otherwise_before_more_text():
    """At the end of a text, two line feeds are one token of this vocabulary."""
    source = "{% for m in messages %}### {{ m.role }}:\n{{ m.content }}\n\n{% endfor %}"
    source += "{% if add_generation_prompt %}### assistant:\n{% endif %}"
    contents = byte_level(merges=[("Ċ", "Ċ")])
    vocabulary = read_vocabulary(contents, {"chat_template.jinja": source.encode()})
    said = ["one", "two", "three"]
    turns = [(role, text) for text in said for role in ("user", "assistant")]
    template = Template(vocabulary)
    tokens, answer, left = template.labelled([{"role": r, "content": c} for r, c in turns])
    assert left == 0
    runs = np.split(tokens, np.flatnonzero(np.diff(answer)) + 1)
    assert [vocabulary.decode(run) for run in runs[1::2]] == [f"{text}\n\n" for text in said]
