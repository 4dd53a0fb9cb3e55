"""A conversation that is kept says what each answer alone says, and reads only what is new."""

import io

import numpy as np
import pytest

import lora_np as lnp
from lora_np import adapters, language
from lora_np.cli import run
from lora_np.language.blocks import Cache
from tests.language.conftest import random_model
from tests.language.reading import tokens_read

pytest.importorskip("jinja2")

from tests.language.test_packing import with_template

QUESTIONS = ["hi", "who is the king", "where", "when is the sea so soon", "hi"]
SYSTEM = [{"role": "system", "content": "be a king"}]


@pytest.fixture(scope="module")
def chatty():
    return with_template(random_model(max_position_embeddings=512))


@pytest.mark.parametrize("begin", [[], SYSTEM], ids=["alone", "system"])
@pytest.mark.parametrize("temperature", [0, 1.0])
def test_each_answer_is_the_one_without_a_memory_and_reads_only_what_is_new(
    chatty, begin, temperature, monkeypatch
):
    chat = language.Chat(chatty, begin)
    messages, known = [*begin], 0
    for i, question in enumerate(QUESTIONS):
        messages.append({"role": "user", "content": question})
        how = {"tokens": 12, "temperature": temperature, "rng": i}
        alone = language.answer(chatty, messages, **how)
        with monkeypatch.context() as patch:
            read = tokens_read(patch)
            assert chat.ask(question, **how) == alone
        messages.append({"role": "assistant", "content": alone})
        assert chat.messages == messages
        total = len(chat.template.tokens(messages[:-1], add_generation_prompt=True))
        assert read[0] <= total - known + 1  # at most the last token is read again
        assert set(read[1:]) <= {1}
        known = total
    chat.messages = chat.messages[: len(begin) + 1]  # what was said after it does not count
    assert chat.ask("hi", tokens=9, temperature=0) == language.answer(
        chatty, chat.messages[:-1], tokens=9, temperature=0
    )


@pytest.mark.parametrize("places", [1, 3, 20])
def test_an_answer_that_is_stopped_stays_as_far_as_it_came(chatty, places, monkeypatch):
    """Whether between tokens or in the middle of a layer, the next answer is right."""
    for stop in ("stream", "layer"):
        chat, pieces, calls = language.Chat(chatty), [], iter(range(10**6))
        chat.ask("hi", tokens=5, temperature=0)
        with monkeypatch.context() as patch:
            if stop == "layer":
                extend = Cache.extend

                def stopped(self, k, v, extend=extend, calls=calls):
                    if next(calls) == places:
                        raise KeyboardInterrupt
                    return extend(self, k, v)

                patch.setattr(Cache, "extend", stopped)

            def stream(text, pieces=pieces, stop=stop):
                pieces.append(text)
                if stop == "stream" and len(pieces) == places:
                    raise KeyboardInterrupt

            said = chat.ask("who", tokens=40, temperature=0, stream=stream)
        assert len(said) < 40
        assert said.startswith("".join(pieces))
        assert chat.messages[-1] == {"role": "assistant", "content": said}
        again = chat.ask("where", tokens=9, temperature=0)
        assert again == language.answer(chatty, chat.messages[:-1], tokens=9, temperature=0)


def test_commands_of_a_chat(chatty, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    language.save(chatty, "base")
    tuned = lnp.inject(chatty, rank=2, alpha=2, rng=0, targets="all-linear")
    leaves = lnp.trainable(tuned)
    rng = np.random.default_rng(0)
    for _, leaf in leaves:
        leaf.data[...] = rng.normal(size=leaf.shape)
    adapters.save(tuned, "style", base="base")
    command = [
        "generate",
        "base",
        "--chat",
        "--system",
        "king",
        "--tokens",
        "8",
        "--temperature",
        "0",
    ]

    def said(*lines):
        monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(lines) + "\n"))
        assert run(command) == 0
        return capsys.readouterr().out.splitlines()

    system = [{"role": "system", "content": "king"}]

    def answered(model, *turns):
        chat = language.Chat(model, system)
        return [chat.ask(turn, tokens=8, temperature=0) for turn in turns]

    base = language.load("base")
    style = adapters.attach(base, adapters.load("style", base=base.config))
    assert said("hi", "/reset", "hi") == answered(base, "hi") * 2
    mixed = language.Chat(base, system)
    expected = []
    for model in (base, style, base):
        mixed.switch(model)
        expected.append(mixed.ask("hi", tokens=8, temperature=0))
    assert said("hi", "/adapter style", "hi", "/base", "hi") == expected
    assert expected[1] != expected[2]
    monkeypatch.setattr("sys.stdin", io.StringIO("/adapter nothing\n"))
    assert run(command) == 1
    assert "nothing" in capsys.readouterr().err


def test_messages_are_a_list_of_objects_with_some_text(chatty):
    for wrong in ("What is it?", {"role": "user", "content": "x"}, ["x"]):
        with pytest.raises(TypeError, match="messages must be a list of objects with role and"):
            language.answer(chatty, wrong)
    silent = with_template(chatty, "{% for m in messages %}{{ m.content }}{% endfor %}")
    with pytest.raises(ValueError, match="the prompt must hold at least one token"):
        language.answer(silent, [{"role": "user", "content": ""}], tokens=5)
