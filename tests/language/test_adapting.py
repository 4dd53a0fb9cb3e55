"""Training as people expect it: schedules, variants, budgets of validation, early stop, a forecast,
a page; and chat.
"""

import io
import json
import re
import subprocess
import sys

import numpy as np
import pytest

import lora_np as lnp
from lora_np import adapters, language
from lora_np.cli import run
from lora_np.language import adapting, packing
from lora_np.training import fitting
from tests.language.conftest import random_model

pytest.importorskip("jinja2")

from tests.language.test_packing import with_template
from tests.rounding import assert_as_near, in_double

ASKED = [("hi", "hello."), ("who", "a king."), ("where", "the sea."), ("when", "so soon.")]
CHATS = [
    {"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": a}]}
    for q, a in ASKED * 5
]


@pytest.fixture(scope="module")
def chatty():
    return with_template(random_model(max_position_embeddings=64))


def tuned(model, data=CHATS, **settings):
    settings = {"rank": 2, "steps": 30, "lr": 0.02, "max_length": 48, "progress": False, **settings}
    settings.setdefault("alpha", 2 * settings["rank"])
    return language.finetune(model, data, **settings)


def test_answers_are_learnt_and_then_said(chatty):
    result = tuned(chatty, steps=200, rank=8, lr=0.01)
    assert result.after < 0.5 < 2 < result.before  # no lower: its logits are bounded
    for question, answer in ASKED:
        told = []
        said = language.answer(
            result.model,
            [{"role": "user", "content": question}],
            temperature=0,
            tokens=20,
            stop=["\n"],
            stream=told.append,
        )
        assert said == "".join(told) == answer


@pytest.mark.parametrize(
    ("answer", "prompt", "wanted"),
    [
        ("01100110", [0, 1, 2, 3, 4], [5, 6]),  # the last of two answers, without what follows it
        ("00011", [0, 1, 2], [3, 4]),
        ("10", [], [0]),
        ("11111100", [0, 1, 2], [3, 4, 5]),  # no prompt: halves of the text
    ],
)
def test_a_question_is_what_precedes_the_last_answer(answer, prompt, wanted):
    flags = np.array([flag == "1" for flag in answer])
    found = adapting.question(packing.Document(np.arange(len(flags)), flags))
    assert found == (prompt, wanted)


def test_the_rate_is_that_of_the_schedule(chatty):
    for schedule, rates in {
        "cosine": [0.5, 1, *(0.5 + 0.5 * np.cos(np.pi * np.arange(7) / 8))],
        "linear": [0.5, 1, *(1 - np.arange(7) / 8)],
        "constant": [0.5, *[1] * 8],
    }.items():
        plan = prepared(chatty, schedule=schedule, warmup=2, steps=10, lr=1.0)
        assert [plan.optimizer.lr(step) for step in range(9)] == pytest.approx(rates)


def prepared(model, data=CHATS, **chosen):
    settings = language.FinetuneSettings(**{"max_length": 48, **chosen})
    return adapting.prepared(model, data, settings)


def test_variants_have_their_layers_and_their_optimizer(chatty):
    plain, stable, plus, dora = (
        tuned(chatty, variant=v, steps=1, rank=4) for v in ("lora", "rslora", "lora+", "dora")
    )
    layer = lambda result: result.model.model.layers[0].self_attn.q_proj
    assert layer(stable).scale == pytest.approx(8 / 4**0.5)
    assert isinstance(layer(dora), lnp.lora.DoRALinear)
    moved = [np.abs(layer(result).B.data).max() for result in (plain, plus)]
    assert moved[1] == pytest.approx(
        16 * moved[0], rel=1e-4
    )  # the first step of Adam has the size of the rate
    # A times 1 - 0.02 * 50 before the step
    decayed = tuned(chatty, weight_decay=50.0, steps=1, warmup=0)
    assert np.abs(layer(decayed).A.data).max() < 0.03 < np.abs(layer(plain).A.data).max()


@pytest.mark.parametrize("parts", [2, 4])
def test_a_step_in_parts_is_the_same_step(chatty, parts):
    """However many labels each part has."""
    whole, split, exact = (
        tuned(model, batch_size=8 // n, accumulate=n, steps=1, warmup=0)
        for model, n in ((chatty, 1), (chatty, parts), (in_double(chatty), 1))
    )
    assert_as_near(split.history.loss, whole.history.loss, exact.history.loss)
    assert_as_near(split.after, whole.after, exact.after)


@pytest.mark.parametrize("seed", range(40))
def test_validations_take_at_most_a_tenth_of_the_work(seed):
    rng = np.random.default_rng(seed)
    rows = [
        [packing.Document(np.zeros(n, int), np.ones(n, bool))]
        for n in rng.integers(2, 300, rng.integers(1, 200))
    ]
    steps, tokens = int(rng.integers(1, 400)), int(rng.integers(50, 5000))
    for asked in (None, int(rng.integers(1, 50))):
        every, times, watched = adapting.budget(rows, steps * tokens, steps, asked)
        taken = {*range(0, steps, every), steps}
        assert times == len(taken)
        assert asked in (None, every)
        passed = times * sum(map(packing.length, watched))
        mean = sum(map(packing.length, rows)) / len(rows)
        chance = (
            len(watched) == 1
            or passed <= 0.1 * 2 * steps * tokens * max(map(packing.length, watched)) / mean
        )
        assert chance
        assert 1 <= len(watched) <= len(rows)
        assert asked is not None or 2 <= times <= adapting.MOST


def test_what_is_watched_is_told_before_and_after(chatty):
    result = tuned(chatty, validate_every=10)
    assert result.history.validation_steps.tolist() == [0, 10, 20, 30]
    assert [result.before, result.after] == result.history.validation_loss[[0, -1]].tolist()
    assert result.loss_table.records[0] == {
        "step": 0, "training loss": None, "held-out loss": result.before
    }  # fmt: skip
    assert result.loss_table.records[2]["training loss"] == pytest.approx(
        result.history.loss[10:20].mean()
    )


def test_an_early_stop_keeps_the_model_of_the_lowest_loss(chatty, tmp_path):
    """Held-out answers that contradict what is learnt get worse; resumed, it ends the same."""
    wrong = [
        {"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": "no."}]}
        for q, _ in ASKED
    ]
    how = {"validation": wrong, "validate_every": 5, "patience": 2, "steps": 200}
    result = tuned(chatty, **how)
    losses = result.history.validation_loss
    best = int(losses.argmin())
    assert len(losses) == best + 3
    assert result.steps == 5 * (best + 2) < 200
    assert result.after == losses[best] < losses[-1]
    plan = prepared(chatty, validation=wrong)
    frozen = lnp.freeze(result.model)
    watched, exact = (
        np.mean([packing.batch_loss(model, part) for part in plan.watched])
        for model in (frozen, in_double(frozen))
    )
    assert_as_near(watched, result.after, exact)

    with pytest.raises(ValueError, match="patience needs held-out data: pass validation="):
        lnp.fit(lnp.inject(chatty, rank=1), [1], loss=packing.batch_loss, patience=1)

    def die(step, model):
        if step == result.steps - 3:
            raise RuntimeError

    with pytest.raises(RuntimeError):
        tuned(chatty, **how, checkpoint=tmp_path / "run", watch=die)
    again = tuned(chatty, **how, checkpoint=tmp_path / "run", resume=True)
    for (_, one), (_, other) in zip(
        lnp.trainable(result.model), lnp.trainable(again.model), strict=True
    ):
        np.testing.assert_array_equal(one.data, other.data)


def test_an_early_stop_at_a_loss_of_nan_tells_the_loss_of_the_model_that_it_keeps(chatty):
    result = tuned(chatty, steps=1, lr=1e30, schedule="constant", warmup=0, patience=1)
    assert np.isnan(result.history.validation_loss[-1])
    assert result.after == result.before
    assert not result.diverged


def test_a_forecast_counts_what_a_run_does(chatty, monkeypatch):
    """With a clock that ticks once for each look at it, a batch takes a second, also of a
    validation.
    """
    ticks = iter(range(1000))
    monkeypatch.setattr(adapting.time, "perf_counter", lambda: float(next(ticks)))
    how = {"rank": 2, "steps": 30, "max_length": 48, "batch_size": 2, "accumulate": 2}
    found = language.forecast(chatty, CHATS, **how)
    plan = prepared(chatty, **how)
    documents = [document for row in plan.batches.items for document in row]
    assert len(documents) == 18
    assert found.tokens == sum(len(document.tokens) - 1 for document in documents)
    assert found.learnt == sum(document.learnt for document in documents)
    assert found.epochs == pytest.approx(30 * 4 / len(plan.batches.items), rel=0.02)
    assert len(found.examples) == 3
    assert all(
        re.fullmatch(r"u. \w+\na. \[\[[\w ]+\.\n\]\]", example) for example in found.examples
    )
    watching = len(plan.watched) * plan.times
    assert found.seconds == pytest.approx(30 * 2 + watching, rel=0.15)
    assert found.memory is None or found.memory > 10 * 2**20
    assert "epochs" in str(found.table)


@pytest.mark.skipif(adapting.peak_memory() is None, reason="the system does not tell")
def test_a_forecast_predicts_the_memory_of_the_run_within_three_per_cent():
    """Each in a process of its own."""
    begin = (
        "from lora_np import language; from lora_np.language.adapting import peak_memory;"
        "model, text = language.load('austen'), language.read_text('genesis')[:25000];"
        "how = {'rank': 4, 'steps': 4, 'batch_size': 8};"
    )
    foretold, taken = (
        int(
            subprocess.run(
                [sys.executable, "-c", begin + end], capture_output=True, check=True, text=True
            ).stdout
        )
        for end in (
            "print(language.forecast(model, text, **how).memory)",
            "language.finetune(model, text, **how, progress=False); print(peak_memory())",
        )
    )
    assert taken > 100 * 2**20  # far more than the imports
    assert foretold == pytest.approx(taken, rel=0.03)


@pytest.fixture
def place(chatty, tmp_path, monkeypatch):
    language.save(chatty, tmp_path / "base")
    (tmp_path / "data.jsonl").write_text("\n".join(map(json.dumps, CHATS)))
    monkeypatch.chdir(tmp_path)
    return tmp_path


TUNE = "finetune base data.jsonl -o adapter --rank 2 --alpha 4 --steps 20 --max-length 48 --lr 0.02"


def test_a_dry_run_shows_and_writes_nothing(place, capsys):
    assert run(f"{TUNE.replace('-o adapter', '')} --dry-run".split()) == 0
    out, err = capsys.readouterr()
    assert "u. hi\na. [[hello.\n]]" in out
    assert "epochs" in out
    assert err.startswith("data.jsonl: 20 conversations\nlearnt: what the chat template adds")
    assert sorted(path.name for path in place.iterdir()) == ["base", "data.jsonl"]
    assert run(TUNE.replace("-o adapter", "").split()) == 2
    assert "-o" in capsys.readouterr().err


def test_the_page_holds_the_whole_run(place, capsys):
    assert run(f"{TUNE} --html page.html --plot losses.png".split()) == 0
    out, err = capsys.readouterr()
    assert [line.split(":")[0] for line in err.splitlines()][-2:] == [
        "After 0 steps",
        "After 20 steps",
    ]
    page = (place / "page.html").read_text()
    for part in (
        "data.jsonl: 20 conversations", "weight_decay", "0.02", "held-out loss", "<svg",
        "Questions and answers", "wanted", "memory of the process",
        f"lora-np {TUNE} --html page.html --plot losses.png",
    ):  # fmt: skip
        assert part in page
    assert (place / "losses.png").read_bytes().startswith(b"\x89PNG")
    assert "held-out loss before" in out


@pytest.mark.parametrize("sampled", ["", " --sample-every 6"])
def test_the_page_of_a_resumed_run_is_that_of_an_uninterrupted_one(place, monkeypatch, sampled):
    """But for times and the memory of the process."""
    command = f"{TUNE}{sampled} --checkpoint run.npz --html page.html"
    assert run(command.split()) == 0
    whole = page_without_times(place)
    gradients = fitting.Training.gradients

    def killed(training):
        if training.run.steps == 13:
            raise SystemExit(9)
        return gradients(training)

    for name in ("page.html", "run.npz"):
        (place / name).unlink()
    monkeypatch.setattr(fitting.Training, "gradients", killed)
    with pytest.raises(SystemExit):
        run([*command.split(), "--force"])
    monkeypatch.setattr(fitting.Training, "gradients", gradients)
    assert run([*command.split(), "--resume", "--force"]) == 0
    assert page_without_times(place).replace(" --force", "") == whole
    assert ("After 6 steps" in whole) == bool(sampled)


def page_without_times(place):
    page = (place / "page.html").read_text()
    page, memory = re.subn("memory of the process: .*<", "", page)
    page, seconds = re.subn(r"<td[^>]*>\d+\.\d</td></tr>", "", page, count=1)
    assert memory == seconds == 1
    return page


def test_the_page_answers_five_held_out_questions_whole(chatty):
    """By the most likely tokens, up to their end or a mark; and what was forgotten, where it can be
    measured.
    """
    chats = [*CHATS, *CHATS, *CHATS]
    result = tuned(chatty, data=chats, questions=5, steps=120, rank=8)
    assert [answer.wanted for answer in result.answers] == [
        chat["messages"][-1]["content"] for chat in chats[9::10][:5]
    ]
    for answer, chat in zip(result.answers, chats[9::10], strict=False):
        said = language.answer(result.model, chat["messages"][:-1], temperature=0)
        assert answer.after.removesuffix("[...]").strip() == said.strip()
    assert all(text.endswith("[...]") for text in (answer.before for answer in result.answers))
    assert result.general == ()
    told = []
    austen, text = language.load("austen"), language.read_text("genesis")[:6000]
    result = language.finetune(
        austen, text, questions=["And "], steps=2, max_length=64, tell=told.append, progress=False
    )
    assert result.answers[0].question == "And"
    assert [line.split(":")[0] for line in told[-2:]] == ["After 0 steps", "After 2 steps"]
    before, after = result.general
    assert before != after == pytest.approx(before, rel=0.1)


def test_defaults_follow_the_data(chatty):
    """Three epochs, but at most 300 steps; above ten, a warning."""
    few, many = prepared(chatty, batch_size=2), prepared(chatty, CHATS * 40, batch_size=1)
    assert few.steps == int(np.ceil(3 * (len(few.batches.items) // 2)))
    assert many.steps == 300 < 3 * len(many.batches.items)
    for plan in (few, many):
        assert plan.notes[-1].startswith(f"{plan.steps} steps: by default 3 epochs, but at most")
    chosen = prepared(chatty, batch_size=2, epochs=11)
    assert chosen.steps == 11 * (len(few.batches.items) // 2)
    assert chosen.notes[-1] == "11 epochs: after ten, most models memorise"
    assert prepared(chatty, batch_size=2, epochs=10).notes == few.notes[:-1]
    assert prepared(chatty, batch_size=2, accumulate=2, epochs=4).steps == few.steps * 4 // 6
    with pytest.raises(ValueError, match=r"not both: got steps=3 and epochs=2"):
        prepared(chatty, steps=3, epochs=2)
    with pytest.raises(ValueError, match="epochs must be above 0, got 0"):
        prepared(chatty, epochs=0)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"sample_every": 2, "validate_every": 3}, "must equal validate_every, got 2 and 3"),
        ({"questions": "In the"}, "questions must be a list of texts"),
        ({"questions": [""]}, "questions must be a list of texts"),
        ({"questions": -1}, "questions must be at least 0"),
    ],
)
def test_questions_that_cannot_be_asked_are_refused_before_training(chatty, settings, words):
    with pytest.raises(ValueError, match=words):
        prepared(chatty, **settings)
    assert prepared(chatty, sample_every=2, validate_every=2).every == 2


def test_the_adapter_of_a_chat_is_heard_in_a_chat(place, monkeypatch, capsys):
    assert run(f"{TUNE} --steps 200 --rank 8 --alpha 16 --lr 0.01 --sample-every 0".split()) == 0
    capsys.readouterr()
    chat = [
        "generate",
        "base",
        "--adapter",
        "adapter",
        "--chat",
        "--temperature",
        "0",
        "--tokens",
        "20",
        "--stop",
    ]
    monkeypatch.setattr(sys, "stdin", io.StringIO("hi\n\nwhere\n"))
    assert run([*chat, "\n"]) == 0
    first, second, nothing = capsys.readouterr().out.split("\n")
    assert (first, nothing) == ("hello.", "")
    speaker = adapters.attach(language.load("base"), adapters.load("adapter"))
    so_far = [("user", "hi"), ("assistant", first), ("user", "where")]
    messages = [{"role": role, "content": text} for role, text in so_far]
    assert second == language.answer(speaker, messages, temperature=0, tokens=20, stop=["\n"])
    assert run([*chat, "\n", "--prompt", "who"]) == 0
    assert capsys.readouterr().out == "a king.\n"
    assert run(["generate", "base", "--system", "so"]) == 2


def test_an_instructed_base_that_is_merged_answers_as_before_and_keeps_its_template(place):
    result = tuned(language.load("base"), steps=60)
    language.save(lnp.merge(result.model), "merged")
    merged = language.load("merged")
    asked = [{"role": "user", "content": "hi"}]
    both = [
        language.answer(each, asked, temperature=0, tokens=12)
        for each in (lnp.merge(result.model), merged)
    ]
    assert both[0] == both[1]
    assert (place / "merged/tokenizer_config.json").read_bytes() == (
        place / "base/tokenizer_config.json"
    ).read_bytes()


def test_a_text_stops_before_a_stop_string_and_is_streamed_as_it_stays(model):
    whole = language.generate(model, "the ", tokens=40, temperature=0)
    for stop in (whole[20:23], whole[10], whole[15:40]):
        told = []
        said = language.generate(
            model, "the ", tokens=40, temperature=0, stop=["QQ", stop], stream=told.append
        )
        assert said == "".join(told) == whole[: whole.index(stop, 4)]
    # in the prompt it is of no matter
    assert (
        language.generate(model, "the ", tokens=40, temperature=0, stop=["the "])
        == whole.partition("the the ")[0]
    )
    # what only looks like the beginning of one is said after all, also at the end
    told = []
    near = whole[-3:] + "Q"
    assert (
        language.generate(model, "the ", tokens=40, temperature=0, stop=[near], stream=told.append)
        == whole
    )
    assert "".join(told) == whole
    for wrong in ("abc", [""], [3]):
        with pytest.raises(ValueError, match="stop must be"):
            language.generate(model, "the ", tokens=1, stop=wrong)


def test_rules_of_sampling_reach_the_draw(model):
    for rule in ({"top_k": 1}, {"min_p": 1.0}, {"top_p": 1e-9}):
        assert language.generate(
            model, "the ", tokens=9, temperature=2.0, **rule
        ) == language.generate(model, "the ", tokens=9, temperature=0)
    kept = language.generate(model, "the ", tokens=25, temperature=0, repetition_penalty=1e6)
    assert len(set(kept)) > len(set(language.generate(model, "the ", tokens=25, temperature=0)))


def test_the_bar_counts_tokens(chatty, monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    result = tuned(chatty, steps=4, progress=True)
    shown = capsys.readouterr().err
    total = 4 * prepared(chatty).batches.tokens
    assert f"/{total} [" in shown
    assert "token/s" in shown
    assert result.steps == 4


def test_an_adapter_made_on_chats_opens_again(place):
    result = tuned(language.load("base"))
    adapters.save(result.model, "adapter", base="base")
    opened = adapters.attach(language.load("base"), adapters.load("adapter"))
    tokens = np.arange(20)[np.newaxis]
    opened, made = lnp.freeze(opened), lnp.freeze(result.model)
    assert_as_near(opened(tokens), made(tokens), in_double(made)(tokens))
