"""Data as people have it: conversations, completions, instructions, texts; as JSON lines, CSV or
plain text.

Here it is told apart, checked and brought to one form; `documents` makes tokens of it.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from lora_np.checks import StrPath, choice, shown
from lora_np.files import Json, errors_at, parse_json
from lora_np.language.storing import read_text

ONE = "one text"  # the kind of data that has no parts
FORMATS = ("jsonl", "csv", "text")
ENDINGS = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".tsv": "csv"}
# What an example can be, told by its fields, and fields that it may have besides; the first that
# fits.
KINDS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "conversations": (("messages",), ()),
    "prompts and completions": (("prompt", "completion"), ()),
    "instructions and outputs": (("instruction", "output"), ("input",)),
    "texts": (("text",), ()),
    "multiple choice": (("question", "choices", "answer"), ()),
}


class Conversation(NamedTuple):
    """Messages, of which the assistant's are in the loss, starting at ``first``."""

    messages: Sequence[Mapping[str, Json]]
    first: int = 0


class Completion(NamedTuple):
    """A prompt and the completion to learn."""

    prompt: str
    text: str


class Choices(NamedTuple):
    """A question with possible answers, one of which is right."""

    question: str
    choices: Sequence[str]
    answer: int


Example: TypeAlias = Conversation | Completion | Choices


@dataclass(frozen=True, eq=False)
class Data:
    """Examples to learn from: see `read_data`.

    Parameters
    ----------
    examples : tuple of Conversation, Completion or Choices
        In their order.
    places : tuple of str
        Where each stands, such as ``"line 3"``.
    kind : str
        What they are; "one text" has no ends.
    source : str
        Where they come from.
    unused : tuple of str
        Fields that nothing is learnt from.
    """

    examples: tuple[Example, ...]
    places: tuple[str, ...]
    kind: str
    source: str = "the data"
    unused: tuple[str, ...] = ()

    @property
    def whole(self) -> str | None:
        """The text, if it is one continuous text."""
        return str(self.examples[0][1]) if self.kind == ONE else None

    def __str__(self) -> str:
        what = self.kind if self.kind == ONE else f"{len(self.examples):,} {self.kind}"
        return f"{self.source}: {what}" + (
            f" (not used: {', '.join(self.unused)})" if self.unused else ""
        )


AnyData = Data | str | Iterable[Any]  # what `as_data` takes


def read_data(source: StrPath, *, format: str | None = None) -> Data:
    """Read examples from a file, or from standard input for "-".

    Parameters
    ----------
    source : str or path
        JSON lines of objects with ``messages``, ``prompt`` and ``completion``, ``instruction``,
        ``output`` and perhaps ``input``, ``text``, or, for `evaluate`, ``question``, ``choices``
        and ``answer``; CSV whose first line names such columns; anything else is one continuous
        text. A name such as "genesis" is a text that is shipped.
    format : {"jsonl", "csv", "text"}, optional
        How the file is written; by default told by its first line.

    Returns
    -------
    Data
        Examples of one kind.

    Raises
    ------
    ValueError
        If the file is empty or not text, or a line is damaged, not an example, or has
        nothing to learn from; the message has its number.
    FileNotFoundError
        If there is no such file.

    See Also
    --------
    finetune : Learn from it.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "data.jsonl"
    >>> _ = path.write_text('{"prompt": "2 + 2 =", "completion": " 4"}')
    >>> read_data(path).examples
    (Completion(prompt='2 + 2 =', text=' 4'),)
    """
    if format is not None:
        choice("format", format, FORMATS)
    content, name = read_text(source), str(source)
    form = format or told_by(content, Path(name).suffix.lower())
    if form == "text":
        return replace(as_data(content), source=name)
    with errors_at(name):
        return data_of(json_records(content) if form == "jsonl" else csv_records(content), name)


def as_data(data: AnyData) -> Data:
    """Make data from one continuous text, or from examples: mappings, or texts."""
    if isinstance(data, Data):
        return data
    if isinstance(data, str):
        return Data((Completion("", data),), ("",), ONE, "the text")
    examples = ({"text": item} if isinstance(item, str) else item for item in data)
    return data_of((f"example {i}", item) for i, item in enumerate(examples, start=1))


def told_by(content: str, ending: str) -> str:
    """Detect a file's format from its first line, or from its extension if that does not tell."""
    first = content.lstrip().partition("\n")[0]
    # a JSON list is not supported: its first line is reported as damaged
    if re.match(r'\[?\s*\{\s*"|\[\s*$', first):
        return "jsonl"
    names = {name.strip(' "') for name in re.split("[,;\t]", first)}
    if any(len(fields) > 1 and names.issuperset(fields) for fields, _ in KINDS.values()):
        return "csv"
    return ENDINGS.get(ending, "text")


def json_records(content: str) -> Iterator[tuple[str, Json]]:
    """Yield the place and the object of each line."""
    for i, line in enumerate(content.split("\n"), start=1):
        if line.strip():
            with errors_at(f"line {i}"):
                record = parse_json(line.encode())
            yield f"line {i}", record


def csv_records(content: str) -> Iterator[tuple[str, Json]]:
    """Yield each row as an object, and the line where it ends."""
    first = content.partition("\n")[0]
    rows = csv.reader(
        io.StringIO(content, newline=""), delimiter=max(",;\t", key=first.count), strict=True
    )
    try:
        names = [name.strip() for name in next(rows)]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"line 1: the column {name!r} occurs twice")
        for row in filter(None, rows):
            if len(row) != len(names):
                raise ValueError(
                    f"line {rows.line_num}: it has {len(row)} fields, not {len(names)}"
                )
            yield f"line {rows.line_num}", dict(zip(names, row, strict=True))
    except csv.Error as error:
        raise ValueError(f"line {rows.line_num}: {error}") from None


def data_of(records: Iterable[tuple[str, Json]], source: str = "the data") -> Data:
    """Check examples, all of which must be of the same kind as the first."""
    examples, places, kind = [], [], ""
    unused: dict[str, None] = {}
    for place, record in records:
        with errors_at(place):
            if not isinstance(record, Mapping):
                raise ValueError(f"it must be an object with named fields, got {shown(record)}")
            kind = kind or next(
                (name for name, needed in KINDS.items() if record.keys() >= {*needed[0]}), ""
            )
            if not kind:
                raise ValueError(
                    "an example has messages, prompt and completion, instruction and output, or"
                    f" text; this has {', '.join(record) or 'none'}: rename the fields that count"
                )
            examples.append(example(record, kind))
        places.append(place)
        unused |= dict.fromkeys(name for name in record if name not in sum(KINDS[kind], ()))
    if not examples:
        raise ValueError("it holds no examples")
    return Data(tuple(examples), tuple(places), kind, source, tuple(unused))


def example(fields: Mapping[str, Any], kind: str) -> Example:
    """Check one example of a given kind."""
    needed, optional = KINDS[kind]
    values: dict[str, Any] = {name: fields.get(name) for name in (*needed, *optional)}
    if missing := [name for name in needed if values[name] is None]:
        raise ValueError(
            f"it has no {missing[0]}, unlike the first example, only {', '.join(fields)}"
        )
    if kind == "conversations":
        return conversation(values["messages"])
    if kind == "multiple choice":
        return choices(**values)
    if all(isinstance(value, list) for value in values.values()):
        return conversation([*values["prompt"], *values["completion"]], len(values["prompt"]))
    for name, text in values.items():
        if text is not None and not isinstance(text, str):
            raise ValueError(f"{name} must be text, got {shown(text)}")
    if not values[needed[-1]]:
        raise ValueError(f"its {needed[-1]} is empty: there is nothing to learn")
    if kind == "instructions and outputs":
        asked = "\n\n".join(filter(None, (values["instruction"], values["input"])))
        turns = {"user": asked, "assistant": values["output"]}
        return Conversation([{"role": role, "content": text} for role, text in turns.items()])
    return Completion(values.get("prompt", ""), values[needed[-1]])


def choices(question: Json, choices: Json, answer: Json) -> Choices:
    """Check a question of multiple choice."""
    if not isinstance(question, str):
        raise ValueError(f"question must be text, got {shown(question)}")
    if not isinstance(choices, list) or not all(isinstance(text, str) and text for text in choices):
        raise ValueError(f"choices must be a list of texts, got {shown(choices)}")
    letters = [chr(ord("A") + i) for i in range(len(choices))]
    if isinstance(answer, str) and answer in letters:
        answer = letters.index(answer)
    if not isinstance(answer, int) or isinstance(answer, bool) or answer not in range(len(choices)):
        raise ValueError(
            f"answer must be the number of a choice, from 0, or its letter, got {shown(answer)}"
        )
    return Choices(question, choices, answer)


def conversation(messages: Json, first: int = 0) -> Conversation:
    """Check the parts of a conversation that chat templates do not check."""
    if not isinstance(messages, list) or not messages:
        raise ValueError(f"messages must be a list of them, got {shown(messages)}")
    for i, message in enumerate(messages, start=1):
        if not isinstance(message, Mapping):
            raise ValueError(
                f"message {i} must be an object with role and content, got {shown(message)}"
            )
        role, content = message.get("role"), message.get("content")
        if not isinstance(role, str):
            raise ValueError(
                f"message {i} must have a role, such as user or assistant, got {shown(role)}"
            )
        texts = [part.get("text") for part in content] if isinstance(content, list) else [content]
        if not all(isinstance(text, str) for text in texts) and not message.get("tool_calls"):
            raise ValueError(f"message {i} must have text as its content, got {shown(content)}")
        if message.get("weight", 1) != 1:
            raise ValueError(
                f"message {i} has weight {shown(message['weight'])}, but only 1 is understood"
            )
    if not any(message["role"] == "assistant" for message in messages[first:]):
        raise ValueError("it has no message of the assistant to learn from")
    return Conversation(messages, first)
