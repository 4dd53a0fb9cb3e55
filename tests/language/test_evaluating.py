"""Models compared on the same examples: what is measured, and how sure one may be of a difference."""

import gc
import json
import weakref
from dataclasses import replace

import numpy as np
import pytest

import lora_np as lnp
from lora_np import language
from lora_np.cli import run
from lora_np.language.evaluating import Measure, student
from lora_np.language.vocabulary import read_vocabulary
from tests.drawing import FULL
from tests.language.conftest import byte_level, needs_tokenizers, random_model

TEMPLATE = (
    b"{% for m in messages %}{{ m.content }}{% if m.role == 'user' %} {% endif %}{% endfor %}"
)


@pytest.fixture
def speaker(model):
    letters = language.Characters(model.vocabulary.characters, {"chat_template.jinja": TEMPLATE})
    return replace(model, vocabulary=letters)


def chats(*pairs):
    return [
        {"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": a}]}
        for q, a in pairs
    ]


@pytest.mark.parametrize("seed", range(4))
def test_the_loss_of_all_examples_is_that_of_their_tokens(model, seed):
    """Examples of any length: the mean over all tokens, not over examples."""
    rng = np.random.default_rng(seed)
    letters = "abcdefghijklmnopqrstuvwxyz ."
    texts = ["".join(rng.choice([*letters], rng.integers(2, 31))) for _ in range(9)]
    other = random_model(rng=seed + 1)
    result = language.evaluate({"one": model, "other": other}, texts)
    total = [0.0, 0.0]
    for text in texts:
        tokens = model.vocabulary.encode(text)[None]
        for i, each in enumerate((model, other)):
            total[i] += float(language.token_loss(each, tokens)) * (tokens.size - 1)
    n = sum(len(text) - 1 for text in texts)
    np.testing.assert_allclose(result.measures["loss"].means, np.divide(total, n), rtol=1e-6)
    record = result.table.records[0]
    assert record["perplexity"] == pytest.approx(np.exp(record["loss"]))


def test_intervals_hold_the_true_difference_in_95_of_100_samples():
    """Examples of unequal weight, whose difference goes with their weight; and the smallest
    difference that is named is seen in 80 of 100.
    """
    rng, held, seen, draws, n = np.random.default_rng(0), 0, 0, 4000 if FULL else 1500, 40
    weights, noise = rng.integers(5, 60, (draws, n)).astype(float), rng.normal(size=(draws, n))
    d = 0.02 * weights + noise
    true = 0.02 * np.mean(np.arange(5, 60) ** 2) / np.mean(np.arange(5, 60))
    for w, row in zip(weights, d, strict=True):
        mean, low, high, detectable = Measure(np.array([np.zeros(n), row]), w).difference(1)
        held += low <= true <= high
        shifted = Measure(np.array([np.zeros(n), row - true + detectable]), w).difference(1)
        seen += shifted[1] > 0
        assert low < mean < high
    assert 0.93 < held / draws < 0.965
    assert 0.76 < seen / draws < 0.84


@pytest.mark.parametrize(
    ("p", "degrees", "expected"),
    [(0.975, 4, 2.7764), (0.975, 10, 2.2281), (0.8, 4, 0.9410), (0.8, 30, 0.8538)],
)
def test_quantiles_are_those_of_the_tables(p, degrees, expected):
    assert student(p, degrees) == pytest.approx(expected, rel=5e-3)


def test_few_examples_have_a_difference_and_no_interval(model):
    result = language.evaluate({"a": model, "b": random_model(rng=3)}, ["abc", "de", "fgh", "ij"])
    (row,) = result.differences.rows
    assert isinstance(row[2], float)
    assert row[3:] == (None, None, None)


def ends_early(speaker, questions):
    """The model with an end token that it says soon after each question, and what it says before."""
    texts = [
        language.answer(speaker, [{"role": "user", "content": q}], tokens=20, temperature=0)
        for q in questions
    ]
    letter = max("abcdefghijklmnopqrstuvwxyz. ", key=lambda c: sum(c in text for text in texts))
    texts, questions = zip(
        *((t, q) for t, q in zip(texts, questions, strict=True) if letter in t[1:]), strict=True
    )
    end = speaker.vocabulary.number(letter)
    ended = replace(speaker, generation={"eos_token_id": end})
    return ended, questions, [text[: text.index(letter)] for text in texts]


def test_an_answer_matches_if_it_is_the_wanted_one_but_for_white_space(speaker):
    pytest.importorskip("jinja2")
    asked = [*"abcdefghijklmn", "the king", "men of"]
    ended, questions, said = ends_early(speaker, asked)
    assert len(questions) > 5
    wanted = [f" {text}\n" if text.strip() else "x" for text in said]
    right = [text.strip() != "" for text in said]
    result = language.evaluate({"it": ended}, chats(*zip(questions, wanted, strict=True)))
    assert result.measures["exact match"].values.tolist() == [[float(each) for each in right]]
    assert result.speeds[0] > 0
    assert len(result.answers.rows) == 5
    for question, _, text in result.answers.rows:
        assert text == said[questions.index(question)]
    long = chats(*((q, text + "a" * 41) for q, text in zip(questions, said, strict=True)))
    assert "exact match" not in language.evaluate({"it": ended}, long, answers=0).measures


def test_completions_are_continued_to_the_end_of_their_line(model):
    letters = replace(model, vocabulary=language.Characters(model.vocabulary.characters))
    line = language.generate(letters, "ab", tokens=200, temperature=0)[2:].partition("\n")[0]
    data = [{"prompt": "ab", "completion": line}] * 5
    result = language.evaluate({"it": letters}, data)
    assert all(text == line for _, _, text in result.answers.rows)
    assert result.measures.keys() == ({"loss", "exact match"} if len(line) <= 40 else {"loss"})


CHOICES = [
    {"question": "who", "choices": ["men", "a king", "q"], "answer": "B"},
    {"question": "where", "choices": ["zz", "home"], "answer": 1},
    {"question": "why", "choices": ["so", "for a king", "x"], "answer": 0},
    {"question": "what", "choices": ["a", "b", "c", "d"], "answer": "D"},
    {"question": "when", "choices": ["now", "then"], "answer": 0},
]


def test_the_likeliest_choice_is_taken_by_its_sum_and_by_its_length():
    """By the definition: the probability of each token of " " and the choice, after the question."""
    letters = language.Characters(
        "\nQuestion: Awhrym abcdefgijklnopqsvxz"[:1]
        + "".join(sorted({*"Question: Answer: \nabcdefghijklmnopqrstuvwxyz"} - {"\n"}))
    )
    config = {"vocab_size": len(letters), "max_position_embeddings": 64}
    for seed in range(5):
        model = replace(random_model(rng=seed, **config), vocabulary=letters)
        result, expected = language.evaluate({"it": model}, CHOICES), {"acc": [], "acc_norm": []}
        for each in CHOICES:
            scores = []
            for text in each["choices"]:
                context = f"Question: {each['question']}\nAnswer:"
                tokens = letters.encode(f"{context} {text}")
                logits = np.asarray(lnp.freeze(model)(tokens[None]), float)[0]
                logits -= np.log(np.exp(logits).sum(-1, keepdims=True))
                n = len(context)
                scores.append(sum(logits[i - 1, tokens[i]] for i in range(n, len(tokens))))
            answer = each["answer"] if isinstance(each["answer"], int) else ord(each["answer"]) - 65
            lengths = [len(text) for text in each["choices"]]
            expected["acc"].append(int(np.argmax(scores)) == answer)
            expected["acc_norm"].append(int(np.argmax(np.divide(scores, lengths))) == answer)
        for name, row in expected.items():
            assert result.measures[name].values.tolist() == [[float(each) for each in row]]


@pytest.mark.parametrize(
    ("models", "data", "message"),
    [
        ({}, ["abc"], "no model"),
        ({"m": None}, [{"question": "a", "choices": ["b", ""], "answer": 0}], "list of texts"),
        ({"m": None}, [{"question": "a", "choices": ["b"], "answer": 1}], "from 0, or its letter"),
        ({"m": None}, [{"question": "a", "choices": ["b"], "answer": "B"}], "from 0, or its letter"),
        ({"m": None}, [{"question": "a", "choices": ["b"], "answer": True}], "got True"),
        ({"m": None}, [{"question": 1, "choices": ["b"], "answer": 0}], "question must be text"),
        ({"m": None}, [{"question": "a", "choices": ["b" * 90, "c"], "answer": 0}], "example 1: a choice"),
        ({"m": None}, chats(("a", "b")), "no chat template"),
    ],
)  # fmt: skip
def test_what_cannot_be_compared_is_refused(models, data, message):
    letters = language.Characters(
        "\n :" + "".join(sorted({*"QuestionAnswerabcdefghijklmnopqrstuvwxyz"}))
    )
    tiny = replace(random_model(vocab_size=len(letters)), vocabulary=letters)
    with pytest.raises(ValueError, match=message):
        language.evaluate(dict.fromkeys(models, tiny), data)


def test_models_that_cut_the_text_otherwise_are_refused(model):
    shorter = random_model(max_position_embeddings=8)
    texts = ["abcdefghijklmno"] * 5
    with pytest.raises(ValueError, match=r"short cuts the data .* than long, .* max_length"):
        language.evaluate({"long": model, "short": shorter}, texts)
    assert language.evaluate({"long": model, "short": shorter}, texts, max_length=8).names


def test_nothing_is_learnt_from_multiple_choice(model):
    with pytest.raises(ValueError, match="multiple choice is for evaluate"):
        language.finetune(model, CHOICES, steps=1, progress=False)


def test_models_of_a_generator_are_held_one_at_a_time():
    alive = []

    def made():
        for seed in range(3):
            gc.collect()
            assert (
                sum(each() is not None for each in alive) <= 1
            )  # the one before, until it is replaced
            model = random_model(rng=seed)
            alive.append(weakref.ref(model.model))
            yield f"model {seed}", model
            del model

    assert len(language.evaluate(made(), ["abc"] * 5).names) == 3


def test_the_command_compares_an_adapter_with_its_base(speaker, tmp_path, monkeypatch, capsys):
    pytest.importorskip("jinja2")
    monkeypatch.chdir(tmp_path)
    language.save(speaker, "base")
    adapted = language.finetune(
        language.load("base"),
        "the king went home. " * 30,
        alpha=16,
        steps=30,
        lr=0.02,
        progress=False,
    ).model
    lnp.adapters.save(adapted, "mine", base="base")
    lines = [json.dumps(each) for each in chats(*((c, "the king went home.") for c in "abcdef"))]
    (tmp_path / "data.jsonl").write_text("\n".join(lines))
    command = ["evaluate", "base", "--adapter", "mine", "--data", "data.jsonl"]
    assert run([*command, "--answers", "2", "--html", "page.html"]) == 0
    out = capsys.readouterr().out
    assert out.count("--- wanted: the king went home.") == 2
    assert "<td" in (tmp_path / "page.html").read_text()
    assert run([*command, "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    base, mine = content["models"]["rows"]
    assert mine["loss"] < base["loss"]
    (difference,) = [row for row in content["differences"]["rows"] if row["measure"] == "loss"]
    assert difference["high"] < 0
    assert difference["difference"] == pytest.approx(mine["loss"] - base["loss"])
    assert run(["evaluate", "base", "base", "--data", "data.jsonl"]) == 2
    assert run([*command, "--html", "page.html"]) == 2
    assert "--force" in capsys.readouterr().err


def reciting(text, vocabulary, end="~"):
    """A model that writes this text, whatever it reads: its next token depends on the position."""
    tokens, n = vocabulary.encode(text), len(vocabulary) + len(vocabulary) % 2
    width = context = len(tokens) + len(tokens) % 2 + 64
    head = np.zeros((n, width), np.float32)
    head[tokens[1:], np.arange(len(tokens) - 1)] = 50
    shapes = {
        "wte.weight": (n, width), "c_attn.weight": (width, 3 * width),
        "c_attn.bias": 3 * width, "attn.c_proj.weight": (width, width), "c_fc.weight": (width, 2),
        "c_fc.bias": 2, "mlp.c_proj.weight": (2, width), "c_proj.bias": width,
    }  # fmt: skip

    def read(name):
        if name == "lm_head.weight":
            return head
        if name == "transformer.wpe.weight":
            return np.eye(context, width, dtype=np.float32)
        if ".ln_" in name:
            return np.full(width, float(name.endswith("weight")), np.float32)
        return next(
            (np.zeros(s, np.float32) for end, s in shapes.items() if name.endswith(end)), None
        )

    config = {
        "model_type": "gpt2", "vocab_size": n, "n_embd": width, "n_layer": 1, "n_head": 1,
        "n_inner": 2, "n_positions": context, "tie_word_embeddings": False,
        "eos_token_id": vocabulary.number(end),
    }  # fmt: skip
    return language.build(config, read, vocabulary=vocabulary)


@pytest.mark.parametrize("wanted", ["\nyes", "yes\nmax", " yes", "yes", "a\n\nb\n"])
def test_a_completion_of_several_lines_matches(wanted):
    characters = "".join(sorted({*f"Q{wanted}~"}))
    for said, right in ((wanted, 1), (f"{wanted.rstrip()}x", 0)):
        model = reciting(f"Q{said}~", language.Characters("".join(sorted({*characters, *said}))))
        result = language.evaluate({"it": model}, [{"prompt": "Q", "completion": wanted}] * 5)
        assert result.measures["exact match"].means == [right]


def test_an_answer_that_the_template_begins_matches():
    """As Qwen3's template writes an empty thought before the last answer."""
    pytest.importorskip("jinja2")
    source = (
        "{% for m in messages %}^{{ m.role }}\n{% if m.role == 'assistant' and loop.last %}"
        "<think>\n\n</think>\n\n{% endif %}{{ m.content }}~{% endfor %}"
        "{% if add_generation_prompt %}^assistant\n{% endif %}"
    )
    begin, answer = "^user\nHow?~^assistant\n", "Fine."
    characters = "".join(sorted({*f"{begin}<think></think>{answer}y~"}))
    files = {"chat_template.jinja": source.encode()}
    data = chats(*[("How?", answer)] * 5)
    for said, right in (("<think>\n\n</think>\n\nFine.", 1), ("Fine.", 1), ("<think>Fine.", 0)):
        model = reciting(f"{begin}{said}~", language.Characters(characters, files))
        assert language.evaluate({"it": model}, data).measures["exact match"].means == [right]


@needs_tokenizers
def test_a_short_answer_of_many_tokens_matches():
    wanted = "नमस्ते दुनिया भारत"
    vocabulary = read_vocabulary(byte_level(special=["~~"]), {})
    assert len(wanted) <= 40 < 48 < len(vocabulary.encode(wanted))
    model = reciting(f"Q{wanted}~~", vocabulary, "~~")
    result = language.evaluate({"it": model}, [{"prompt": "Q", "completion": wanted}] * 5)
    assert result.measures["exact match"].means == [1]
