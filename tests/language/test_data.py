"""Data as people have it: each form is told apart and read, and what is wrong with a file is said
in one line.
"""

import csv
import json
import re

import pytest

from lora_np import language
from lora_np.cli import run
from lora_np.language.data import Completion, Conversation, as_data

from .conftest import random_model
from .test_packing import with_template

pytest.importorskip("jinja2")

ASKED = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
CHAT = Conversation(ASKED)
LINES = {
    "conversations": ({"messages": ASKED}, CHAT),
    "prompts and completions": ({"prompt": "a", "completion": "b"}, Completion("a", "b")),
    "prompts and completions of messages": (
        {"prompt": ASKED[:1], "completion": ASKED[1:]},
        Conversation(ASKED, 1),
    ),
    "instructions and outputs": ({"instruction": "hi", "output": "hello"}, CHAT),
    "instructions and outputs with input": (
        {"instruction": "add", "input": "one", "output": "two"},
        Conversation(
            [{"role": "user", "content": "add\n\none"}, {"role": "assistant", "content": "two"}]
        ),
    ),
    "texts": ({"text": "so"}, Completion("", "so")),
}


@pytest.mark.parametrize("kind", LINES)
def test_the_first_line_tells_what_the_rest_is(tmp_path, kind):
    line, example = LINES[kind]
    file = tmp_path / "data"  # whatever it is called
    written = json.dumps(line, ensure_ascii=False)
    for content in (f"{written}\n\n{written}\n", f"\ufeff{written}\n{written}"):
        file.write_text(content, encoding="utf-8")
        found = language.read_data(file)
        assert found.examples == (example, example)
        assert str(found).startswith(
            f"{file}: 2 {kind.partition(' as ')[0].partition(' with')[0].partition(' of')[0]}"
        )
    assert language.read_data(file, format="text").kind == "one text"


def test_csv_has_names_in_its_first_line(tmp_path):
    file = tmp_path / "data"
    for comma in (",", ";", "\t"):
        file.write_text(f'prompt{comma}id{comma}completion\n"one\ntwo, ""x"""{comma}1{comma} b\n')
        found = language.read_data(file)
        assert found.examples == (Completion('one\ntwo, "x"', " b"),)
        assert str(found) == f"{file}: 1 prompts and completions (not used: id)"
        assert found.places == ("line 3",)
    file.write_text("question,answer\nhi,hello\n")  # which could be prose
    assert language.read_data(file).kind == "one text"


def test_examples_in_python_are_read_as_lines_are():
    model = random_model()
    texts = ["the sea. ", "a king. "] * 4
    runs = [
        language.finetune(model, data, rank=1, steps=2, max_length=16, progress=False)
        for data in (texts, [{"text": each} for each in texts])
    ]
    assert runs[0].after == runs[1].after
    assert runs[0].notes[0] == "the data: 8 texts"


GOOD = json.dumps({"messages": ASKED})


def chat(*messages, **more):
    return json.dumps({"messages": list(messages), **more})


def said(role="user", content="hi", **more):
    return {"role": role, "content": content, **more}


TUNE = "finetune base data -o adapter --steps 1 --rank 1 --max-length 16 --sample-every 0"
# What is in the file, how the command goes on, and what is said.
WRONG = {
    "not JSON": (f"{GOOD}\n{{'messages': []}}", "", "data: line 2: not valid JSON"),
    "half a line": (f"{GOOD}\n\n{GOOD[:30]}", "", "data: line 3: not valid JSON"),
    "a list in a line": (f"{GOOD}\n[1, 2]", "", "data: line 2: must be a JSON object"),
    "NaN": ('{"text": "a", "score": NaN}', "", 'data: line 1: "score": NaN is not JSON'),
    "a key twice": ('{"text": "a", "text": "b"}', "", "line 1: the key 'text' occurs twice"),
    "a column twice": ("text,text\na,b", "--format csv", "line 1: the column 'text' occurs twice"),
    "half a pair": ('{"text": "\\ud800"}', "", "line 1: not valid JSON"),
    "a list over lines": (f"[{GOOD},\n{GOOD}]", "", "data: line 1: not valid JSON"),
    "a list": (f"[{GOOD}]", "", "data: line 1: must be a JSON object"),
    "a list that begins later": (f"[\n{GOOD}\n]", "", "data: line 1: not valid JSON"),
    "no known field": ('{"question": "a"}', "", "this has question: rename the fields that count"),
    "fields of others": (
        '{"conversations": [], "id": 1}',
        "",
        "line 1: .* this has conversations, id: rename",
    ),
    "columns of others": (
        "question,answer\na,b",
        "--format csv",
        "line 2: .*this has question, answer: rename",
    ),
    "no field": ("{}", "--format jsonl", "line 1: an example has messages"),
    "another kind later": (
        f'{GOOD}\n{{"text": "a"}}',
        "",
        "line 2: it has no messages, unlike the first example",
    ),
    "null": ('{"prompt": "a", "completion": null}', "", "line 1: it has no completion"),
    "nothing to complete": (
        '{"prompt": "a", "completion": ""}',
        "",
        "line 1: its completion is empty",
    ),
    "no text": ('{"text": ""}', "", "line 1: its text is empty"),
    "a number as text": ('{"text": 7}', "", "line 1: text must be text, got 7"),
    "texts as text": ('{"text": ["a", "b"]}', "", r"line 1: text must be text, got \['a', 'b'\]"),
    "lists as instructions": (
        '{"instruction": ["a"], "input": ["b"], "output": ["c"]}',
        "",
        "line 1: instruction must be text",
    ),
    "text and messages": (
        '{"prompt": [], "completion": "a"}',
        "",
        r"prompt must be text, got \[\]",
    ),
    "messages as text": ('{"messages": "hi"}', "", "messages must be a list of messages, got 'hi'"),
    "no messages": (chat(), "", r"messages must be a list of messages, got \[\]"),
    "a message as text": (
        chat(said(), "hello"),
        "",
        "message 2 must be an object with role and content",
    ),
    "no role": (
        chat({"content": "hi"}),
        "",
        "message 1 must have a role, such as user or assistant, got None",
    ),
    "no content": (
        chat(said(), {"role": "assistant"}),
        "",
        "message 2 must have text as its content, got None",
    ),
    "a picture": (
        chat(said(content=[{"type": "image"}])),
        "",
        "message 1 must have text as its content",
    ),
    "a weight": (
        chat(said(), said("assistant", weight=0)),
        "",
        "message 2 has weight 0, but only 1 is",
    ),
    "nobody answers": (
        chat(said(), said("system")),
        "",
        "it has no message of the assistant to learn from",
    ),
    "what the template does not take": (
        chat(said("judge"), *ASKED),
        "",
        "line 1: the chat template .* no judge",
    ),
    "what the vocabulary has not": (
        chat(said(content="HI"), ASKED[1]),
        "",
        "line 1: .*vocabulary has no 'H'",
    ),
    "one example": (GOOD, "", "one example is too few"),
    "nothing left in the context": (
        f"{GOOD}\n{GOOD}",
        "--max-length 3",
        "nothing to learn in the first 3 tokens",
    ),
    "a row that is too short": (
        "prompt,completion\na\n",
        "",
        "data: line 2: it has 1 fields, not 2",
    ),
    "an open quote": ('prompt,completion\n"a,b\n', "", "data: line 2: unexpected end of data"),
    "only names": ("prompt,completion\n", "", "data: it holds no examples"),
    "a format that is none": (GOOD, "--format parquet", "format must be one of .*got 'parquet'"),
    "a format that it is not": ("the sea", "--format jsonl", "line 1: not valid JSON"),
    "a schedule that is none": (
        f"{GOOD}\n{GOOD}",
        "--schedule step",
        "schedule must be one of .*got 'step'",
    ),
    "a variant that is none": (
        f"{GOOD}\n{GOOD}",
        "--variant qlora",
        "variant must be one of .*got 'qlora'",
    ),
    "a variant that moves the base": (
        f"{GOOD}\n{GOOD}",
        "--variant pissa",
        "variant must be one of",
    ),
    "a warm-up that is too long": (
        f"{GOOD}\n{GOOD}",
        "--warmup 2",
        "warmup must be between 0 and steps = 1",
    ),
    "no batch": (f"{GOOD}\n{GOOD}", "--accumulate 0", "accumulate must be at least 1"),
    "no patience": (f"{GOOD}\n{GOOD}", "--patience 0", "patience must be at least 1"),
    "a wrong held-out file": (f"{GOOD}\n{GOOD}", "--validation none", "none: No such file"),
    "a page that is no page": (f"{GOOD}\n{GOOD}", "--plot losses.txt", "'--plot': must end in"),
    "a place that is not there": (
        f"{GOOD}\n{GOOD}",
        "--html data/page.html",
        "'--html': '.*data' is not a directory to write page.html into",
    ),
}


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with an instructed model, in which the command runs."""
    picky = (
        "{% for m in messages %}{% if m.role == 'judge' %}{{ raise_exception('no judge') }}{% endif %}"
        "{{ m.content }}\n{% endfor %}"
    )
    language.save(with_template(random_model(), picky, eos_token="."), tmp_path / "base")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_file_or_option_is_refused_in_a_line(place, capsys, what):
    content, options, words = WRONG[what]
    (place / "data").write_text(content)
    assert run(f"{TUNE} {options}".split()) in (1, 2)
    err = capsys.readouterr().err.splitlines()
    assert [line for line in err if not line.startswith(("data: ", "learnt: "))] == err[-1:], err
    assert re.search(words, err[-1])
    assert not (place / "adapter").exists()


def test_a_model_without_a_template_has_none_invented(place, capsys):
    language.save(random_model(), "plain")
    (place / "data").write_text(f"{GOOD}\n{GOOD}\n")
    assert run(TUNE.replace("base", "plain").split()) == 1
    assert "data: line 1: this model has no chat template" in capsys.readouterr().err
    assert run(["generate", "plain", "--chat", "--prompt", "hi"]) == 1
    assert "none is invented" in capsys.readouterr().err


def test_the_library_of_templates_is_named_where_it_is_missing(place, capsys, monkeypatch):
    import sys

    from lora_np.language.templates import compiled

    compiled.cache_clear()
    monkeypatch.setitem(sys.modules, "jinja2", None)
    (place / "data").write_text(f"{GOOD}\n{GOOD}\n")
    assert run(TUNE.split()) == 1
    assert "chat templates need the library jinja2: pip install 'lora-np[language]'" in (
        capsys.readouterr().err
    )


def test_the_recipe_makes_conversations_of_our_pages(tmp_path, monkeypatch):
    """As many as are asked for; what is held out is not among them."""
    import sys

    from recipes import conversations

    out, held = (tmp_path / name for name in ("chat.jsonl", "held-out.jsonl"))
    monkeypatch.setattr(sys, "argv", ["conversations", "-o", str(out), "--held-out", str(held)])
    conversations.main()
    learnt, others = language.read_data(out), language.read_data(held)
    assert len(learnt.examples) == 200
    answers = [{chat.messages[1]["content"] for chat in data.examples} for data in (learnt, others)]
    assert len(answers[1]) > 10
    assert not answers[0] & answers[1]
    assert not any("{" in text or "](" in text for text in answers[0] | answers[1])


@pytest.mark.parametrize("data", [{"prompt": "a", "completion": "b"}, b"abc"])
def test_one_mapping_is_no_sequence_of_examples(data):
    with pytest.raises(TypeError, match="data must be a text or a sequence of examples, got"):
        as_data(data)


def test_a_field_of_csv_may_be_long(tmp_path):
    path, limit = tmp_path / "a.csv", csv.field_size_limit()
    path.write_text(f"prompt,completion\n{'x' * 140_000},b\n")
    assert language.read_data(path).examples[0].prompt == "x" * 140_000
    assert csv.field_size_limit() == limit


def test_what_is_missing_is_not_named_as_there(tmp_path):
    with pytest.raises(ValueError, match="no completion, unlike the first example, only prompt"):
        as_data([{"prompt": "a", "completion": "b"}, {"prompt": "a", "completion": None}])
    turns = [{"role": "user", "content": ["hi"]}, {"role": "assistant", "content": "x"}]
    with pytest.raises(ValueError, match=r"message 1 must have text as its content, got \['hi'\]"):
        as_data([{"messages": turns}])
