"""A prompt baked into an adapter: the loss against its definition, and what the adapter has learnt."""

import json
import re
import sys
from dataclasses import replace

import numpy as np
import pytest

import lora_np as lnp
from lora_np import language
from lora_np.cli import output, run
from lora_np.language import baking
from lora_np.language.baking import BakeSettings, Dialogue, batches_of, taught_loss
from lora_np.language.generation import Sampling
from lora_np.language.vocabulary import read_vocabulary
from lora_np.training import fitting
from tests.drawing import FULL
from tests.language.conftest import byte_level, needs_tokenizers, random_model

BEGINNINGS = [
    "the ",
    "a king ",
    "men of ",
    "so ",
    "home. ",
    "who is ",
    "when the ",
    "it ",
    "we ",
    "he ",
]
TEMPLATE = (
    b"{% for m in messages %}{{ m.content }}{% if m.role != 'assistant' %} {% endif %}{% endfor %}"
)
QUIET = {"plain": True, "answer_length": 8, "progress": False}


@pytest.fixture
def wide():
    return random_model(max_position_embeddings=256)


def examples_of(model, prompt="the old king. ", questions=BEGINNINGS[:3], n=5):
    sampling = Sampling(tokens=n, temperature=1.0, rng=0)
    pairs = [(question, "") for question in questions]
    return baking.taught(
        lnp.freeze(model),
        Dialogue(model, prompt, BakeSettings(plain=True, answer_length=n)),
        pairs,
        sampling,
    )


def test_the_loss_is_the_divergence_of_the_next_token_from_the_prompted_model(wide):
    """By its definition, from the logits of each row alone, over the answers."""
    adapted = lnp.inject(wide, rank=2, rng=1)
    adapted = lnp.replace(
        adapted, lnp.Tensor, lambda path, t: lnp.Tensor(0.1 + 0.3 * np.cos(np.arange(t.size)).reshape(t.shape).astype(np.float32))
    )  # fmt: skip
    examples, expected = examples_of(wide), []
    for example in examples:
        n = len(example.hidden)
        p, q = (
            np.exp(np.asarray(lnp.freeze(m)(np.array([row[:-1]])), float)[0, -n:])
            for m, row in ((adapted, example.row), (wide, example.prompted))
        )
        p, q = (x / x.sum(-1, keepdims=True) for x in (p, q))
        expected += np.sum(q * np.log(q / p), axis=-1).tolist()
    loss = taught_loss(adapted, batches_of([examples])[0])
    assert loss.item() == pytest.approx(np.mean(expected), rel=1e-4)
    capped = replace(adapted, cap=3.0)
    ours = taught_loss(replace(capped), batches_of([examples_of(replace(wide, cap=3.0))])[0])
    assert 0 < ours.item() < loss.item()


def test_its_gradient_is_the_slope():
    model = lnp.inject(random_model(dtype=np.float64), rank=2, rng=0)
    batch = batches_of([examples_of(model, prompt="zz. ")])[0]
    taught_loss(model, batch).backward()
    rng, step = np.random.default_rng(0), 1e-5
    for _, leaf in lnp.trainable(model)[:6]:
        direction, values, ends = rng.normal(size=leaf.shape), leaf.data.copy(), []
        for sign in (1, -1):
            leaf.data[...] = values + sign * step * direction
            ends.append(taught_loss(model, batch).item())
        leaf.data[...] = values
        slope = (ends[0] - ends[1]) / (2 * step)
        assert np.sum(leaf.grad * direction) == pytest.approx(slope, rel=1e-5, abs=1e-9)


def test_the_teacher_is_no_distance_from_itself(wide):
    frozen = lnp.freeze(wide)
    for example in examples_of(wide):
        own = example._replace(row=example.prompted)
        kl, same = baking.apart_from_teacher(frozen, own)
        assert np.abs(kl).max() < 1e-6
        assert same.all()


def test_what_is_baked_comes_nearer_in_closed_form_and_by_training():
    austen = language.load("austen")
    prompt = "And God said unto Moses, Go unto Pharaoh, and the children of Israel. "
    questions = [
        "And the ",
        "He said ",
        "The sons of ",
        "In the ",
        "They ",
        "And it came ",
        "Then ",
        "The king ",
        "She was ",
        "I am ",
        "When the ",
        "Behold, ",
        "A man ",
        "For the ",
        "Now ",
        "It was ",
        "Mr. ",
        "What ",
        "The ",
        "But ",
    ]
    how = {"plain": True, "questions": questions, "answer_length": 40, "progress": False}
    means = {}
    for name, steps in {"closed": 0, "trained": 12}.items():
        results = [
            language.bake(austen, prompt, **how, steps=steps, rng=rng)
            for rng in range(2 if FULL else 1)
        ]
        for result in results:
            assert result.saved == len(prompt)
            assert len(result.answers.rows) == 4
        means[name] = {
            key: np.mean([np.concatenate(result.divergences[key]).mean() for result in results])
            for key in results[0].divergences
        }
    for kind in ("sampled", "greedy"):
        base = means["closed"][f"base, {kind}"]
        assert means["closed"][f"baked, {kind}"] < 0.95 * base
        assert means["trained"][f"baked, {kind}"] < means["closed"][f"baked, {kind}"]
        assert means["trained"][f"baked, {kind}"] < 0.7 * base


def test_where_the_prompt_changes_nothing_the_closed_form_is_zero(wide):
    adapted = lnp.inject(wide, rank=2, targets=["o_proj"], rng=0)
    d = wide.lm_head.W.shape[1]
    lacks = [(np.eye(d), np.zeros((d, d)))] * len(wide.model.layers)
    for layer in baking.closed_form(adapted, lacks).model.layers:
        found = layer.attention.output
        assert np.isfinite(found.A.data).all()
        assert np.isfinite(found.B.data).all()
        assert not (found.B.data @ found.A.data).any()


def test_the_same_seed_makes_the_same_bytes_and_a_resumed_run_too(wide, tmp_path):
    class KilledError(Exception):
        pass

    def die(step, model):
        if step == 3:
            raise KilledError

    how = {**QUIET, "questions": BEGINNINGS, "steps": 6, "rank": 2, "rng": 3}
    first, second = (language.bake(wide, "the old king. ", **how) for _ in range(2))
    with pytest.raises(KilledError):
        language.bake(wide, "the old king. ", **how, checkpoint=tmp_path / "run", watch=die)
    third = language.bake(wide, "the old king. ", **how, checkpoint=tmp_path / "run", resume=True)
    other = language.bake(wide, "the old king. ", **{**how, "rng": 4})
    assert len(first.history.loss) == len(third.history.loss) == 6
    leaves = [
        [t.data for _, t in lnp.trainable(each.model)] for each in (first, second, third, other)
    ]
    for a, b, c in zip(*leaves[:3], strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(a, c)
    assert any((a != d).any() for a, d in zip(leaves[0], leaves[3], strict=True))


def test_an_answer_ends_with_its_token_and_a_cut_one_without(wide):
    pytest.importorskip("jinja2")
    letters = language.Characters(wide.vocabulary.characters, {"chat_template.jinja": TEMPLATE})
    end = letters.number(".")
    model = replace(wide, vocabulary=letters, generation={"eos_token_id": end})
    dialogue = Dialogue(model, "be kind.", BakeSettings(answer_length=12))
    pairs = [(text, "") for text in BEGINNINGS]
    sampling = Sampling(tokens=12, temperature=1.0, rng=0)
    examples = baking.taught(lnp.freeze(model), dialogue, pairs, sampling)
    for example in examples:
        answer = example.row[-len(example.hidden) :]
        assert end not in answer[:-1]
        assert answer[-1] == end or len(answer) == 12
        assert example.text == letters.decode(answer).removesuffix(".")
        assert letters.decode(example.row).startswith(f"{example.question} ")
        assert letters.decode(example.prompted).startswith(f"be kind. {example.question} ")
    assert {len(example.hidden) for example in examples} > {12}
    cut = sum(len(example.hidden) == 12 for example in examples)
    result = language.bake(
        model, "be kind.", questions=BEGINNINGS, answer_length=2, steps=0, rank=1
    )
    assert cut
    (note,) = result.notes
    assert re.fullmatch("[1-8] of 8 answers were cut at 2 tokens.", note)
    assert note in str(result.table)
    # an answer that ends at the last token is whole
    always = replace(model, generation={"eos_token_id": [*range(len(letters))]})
    result = language.bake(
        always, "be kind.", questions=BEGINNINGS, answer_length=1, steps=0, rank=1
    )
    assert result.notes == ()


def test_the_base_writes_questions_about_each_sentence(wide, monkeypatch):
    pytest.importorskip("jinja2")
    letters = language.Characters(
        "".join(sorted({*baking.ASK + wide.vocabulary.characters} - {*"{}"})),
        {"chat_template.jinja": TEMPLATE},
    )
    model = random_model(vocab_size=len(letters), max_position_embeddings=512)
    model = replace(model, vocabulary=letters)
    told = []
    result = language.bake(
        model, "be kind. say no more.", tell=told.append, steps=0, rank=1, answer_length=4
    )
    (text,) = told
    assert text.startswith("Questions:\n")
    held = [row[:2] for row in result.left.rows]
    assert {*result.questions, *(question for question, _ in held)} == {*text.splitlines()[1:]}
    assert {sentence for _, sentence in held} <= {"be kind.", "say no more."}
    assert [row[-1] for row in result.left.rows] == sorted(
        (row[-1] for row in result.left.rows), reverse=True
    )
    assert "What did not transfer" in result.to_html(prompt="be kind.")


def test_a_template_that_drops_the_prompt_is_told_before_anything_is_generated(wide, monkeypatch):
    pytest.importorskip("jinja2")
    monkeypatch.setattr(baking, "replies", None)
    only = b"{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}"
    refuses = b"{{ raise_exception('No system role') if messages[0].role == 'system' }}"
    for template, message in ((only, "nothing to bake"), (refuses, "No system role")):
        files = {"chat_template.jinja": template}
        model = replace(wide, vocabulary=language.Characters(wide.vocabulary.characters, files))
        with pytest.raises(ValueError, match=message):
            language.bake(model, "be kind.")


def test_a_prompt_that_is_too_long_is_told_before_the_base_writes_questions(wide, monkeypatch):
    pytest.importorskip("jinja2")
    monkeypatch.setattr(baking, "replies", None)
    files = {"chat_template.jinja": TEMPLATE}
    model = replace(wide, vocabulary=language.Characters(wide.vocabulary.characters, files))
    with pytest.raises(ValueError, match="have 311, and the model's context is 256"):
        language.bake(model, "so " * 87)


@pytest.mark.parametrize(
    ("prompt", "settings", "message"),
    [
        (" \n", {}, "the prompt is empty"),
        ("the " * 70, {}, "context is 256: take a shorter prompt"),
        ("the ", {"plain": False}, "no chat template"),
        ("the ", {"questions": ()}, "pass questions"),
        ("the ", {"questions": BEGINNINGS[:4]}, "4 questions are too few"),
        ("the ", {"questions": "who"}, "questions must be a list"),
        ("the ", {"questions": [*BEGINNINGS, " "]}, "questions must be a list"),
        ("the ", {"targets": ["lm_head", "q_proj"]}, "the head must have no adapter"),
        ("the ", {"steps": -1}, "steps must be at least 0"),
        ("the ", {"start": "pissa"}, "start must be one of"),
        ("the ", {"answer_length": 0}, "answer_length must be at least 1"),
        ("the ", {"lr": 0}, "lr must be"),
        ("THE ", {}, "vocabulary has no 'T'"),
    ],
)
def test_what_cannot_be_baked_is_refused(wide, prompt, settings, message):
    with pytest.raises(ValueError, match=message):
        language.bake(wide, prompt, **{**QUIET, "questions": BEGINNINGS, "steps": 1, **settings})


def test_the_command_writes_an_adapter_or_nothing(wide, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    language.save(wide, "base")
    (tmp_path / "prompt.txt").write_text("the old king. \n")
    (tmp_path / "asked.txt").write_text("\n".join(BEGINNINGS))
    (tmp_path / "long.txt").write_text("the " * 80)
    command = "bake base --plain --questions asked.txt --answer-length 8 --steps 2 --rank 2 -o new"
    for bad in ("--prompt long.txt", "--prompt missing.txt", "--prompt prompt.txt --targets lm_head",
                "--prompt prompt.txt --rank 0", "--prompt prompt.txt --questions prompt.txt"):  # fmt: skip
        assert run([*command.split(), *bad.split()]) in (1, 2)
        assert capsys.readouterr().err.count("\n") == 1
        assert not (tmp_path / "new").exists()
    assert run(["bake", "base", "--prompt", "prompt.txt", "-o", "new"]) == 1
    assert "no chat template" in (error := capsys.readouterr().err)
    assert error.count("\n") == 1
    assert not (tmp_path / "new").exists()
    good = [*command.split(), "--prompt", "prompt.txt"]
    assert run([*good, "--json", "--html", "page.html"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [(row["held-out answers"], row["model"]) for row in rows] == [
        (kind, model) for kind in ("sampled", "greedy") for model in ("base", "baked")
    ]
    assert "the old king." in (tmp_path / "page.html").read_text()
    adapter = lnp.adapters.load("new", base=wide.config)
    attached = lnp.adapters.attach(language.load("base"), adapter, any_base=True)
    assert not np.array_equal(*(lnp.freeze(m)(np.array([[1, 2]])) for m in (wide, attached)))
    gradients = fitting.Training.gradients

    def stopped(training):
        if training.run.steps == 1:
            raise KeyboardInterrupt
        return gradients(training)

    with monkeypatch.context() as patched:
        patched.setattr(fitting.Training, "gradients", stopped)
        assert language.bake(
            wide, "the old king. ", **QUIET, questions=BEGINNINGS, steps=2
        ).interrupted
        assert run([*good[:-3], "early", *good[-2:]]) == 130
    out, err = capsys.readouterr()
    assert "Written: early" in out
    assert err.endswith("\nlora-np: interrupted\n")
    assert (tmp_path / "early").exists()
    assert run(good) == 2
    assert "--force" in capsys.readouterr().err
    content = (tmp_path / "new" / "adapter_model.safetensors").read_bytes()
    monkeypatch.setattr(output, "SECONDS", 0.01)
    assert run([*good, "--force"]) == 0
    if sys.platform != "emscripten":
        assert re.search(r"^running for \d+ s$", capsys.readouterr().err, re.MULTILINE)
    assert (tmp_path / "new" / "adapter_model.safetensors").read_bytes() == content


def test_a_plain_prompt_and_its_questions_keep_their_spaces(wide, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    language.save(wide, "base")
    (tmp_path / "prompt.txt").write_text("the old king. \n")
    (tmp_path / "asked.txt").write_text("\n".join(BEGINNINGS))
    texts, encode = [], language.Characters.encode
    monkeypatch.setattr(
        language.Characters,
        "encode",
        lambda self, text, **more: (texts.append(text), encode(self, text, **more))[1],
    )
    command = "bake base --plain --prompt prompt.txt --questions asked.txt --answer-length 8"
    assert run(f"{command} --steps 0 --rank 2 -o new".split()) == 0
    assert f"the old king. {BEGINNINGS[0]}" in texts


def test_a_prompt_as_long_as_the_template_s_own_is_baked(wide):
    """Qwen2.5's template has a system message of its own, for conversations without one."""
    pytest.importorskip("jinja2")
    source = b"{% if messages[0].role != 'system' %}so kind. {% endif %}" + TEMPLATE
    vocabulary = language.Characters(wide.vocabulary.characters, {"chat_template.jinja": source})
    result = language.bake(
        replace(wide, vocabulary=vocabulary), "be kind.", questions=BEGINNINGS[:6], rank=1, steps=0,
        answer_length=4, progress=False,
    )  # fmt: skip
    assert result.saved == 0
    assert "Each call saves" not in str(result.table)


@needs_tokenizers
def test_a_question_may_take_fewer_tokens_after_the_prompt():
    """'ab' 'cd' of the prompt and the question become 'a' 'bc' 'd' together."""
    merges = [("b", "c"), ("a", "b"), ("c", "d")]
    vocabulary = read_vocabulary(byte_level(merges=merges), {})
    model = replace(random_model(vocab_size=len(vocabulary) + len(vocabulary) % 2,
                                 max_position_embeddings=64), vocabulary=vocabulary)  # fmt: skip
    questions = ["e one ", "cd two ", "f three ", "g four ", "h five ", "i six"]
    result = language.bake(
        model, "x ab", questions=questions, plain=True, rank=1, steps=1, answer_length=4,
        progress=False,
    )  # fmt: skip
    assert np.isfinite(result.history.loss).all()
