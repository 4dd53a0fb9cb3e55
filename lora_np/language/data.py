"""Read examples for training and evaluation from JSON lines, CSV or text.

This module detects the format, validates the examples and converts them to a common form. Then
``packing.documents`` converts them to tokens.
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

ONE = "one text"  # names the kind of data that consists of one continuous text
FORMATS = ("jsonl", "csv", "text")
ENDINGS = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".tsv": "csv"}
# Maps each kind of example to its required and optional fields. The data are of the first kind in
# this mapping whose required fields the first example has.
KINDS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "conversations": (("messages",), ()),
    "prompts and completions": (("prompt", "completion"), ()),
    "instructions and outputs": (("instruction", "output"), ("input",)),
    "texts": (("text",), ()),
    "multiple choice": (("question", "choices", "answer"), ()),
}


class Conversation(NamedTuple):
    """A list of messages; the assistant's messages at index ``first`` or later are in the loss."""

    messages: Sequence[Mapping[str, Json]]
    first: int = 0


class Completion(NamedTuple):
    """A prompt, and the completion that the model learns."""

    prompt: str
    text: str


class Choices(NamedTuple):
    """A multiple-choice question and the index of its right answer."""

    question: str
    choices: Sequence[str]
    answer: int


Example: TypeAlias = Conversation | Completion | Choices


@dataclass(frozen=True, eq=False)
class Data:
    """Examples of one kind for training or evaluation, returned by `read_data`.

    Parameters
    ----------
    examples : tuple of Conversation, Completion or Choices
        The examples in their order.
    places : tuple of str
        The place of each example in the source, such as ``"line 3"``.
    kind : str
        The kind of the examples, a key of `KINDS`, or "one text".
    source : str
        The name of the source, for messages.
    unused : tuple of str
        Fields of the examples that are ignored.
    """

    examples: tuple[Example, ...]
    places: tuple[str, ...]
    kind: str
    source: str = "the data"
    unused: tuple[str, ...] = ()

    @property
    def whole(self) -> str | None:
        """The text if the data are one continuous text, otherwise None."""
        return str(self.examples[0][1]) if self.kind == ONE else None

    def __str__(self) -> str:
        what = self.kind if self.kind == ONE else f"{len(self.examples):,} {self.kind}"
        return f"{self.source}: {what}" + (
            f" (not used: {', '.join(self.unused)})" if self.unused else ""
        )


AnyData = Data | str | Iterable[Any]  # the types that `as_data` accepts


def read_data(source: StrPath, *, format: str | None = None) -> Data:
    """Read examples from a file, or from standard input if ``source`` is "-".

    Parameters
    ----------
    source : str or path
        A file of JSON lines with ``messages``; ``prompt`` and ``completion``; ``instruction``,
        ``output`` and perhaps ``input``; ``text``; or, for `evaluate`, ``question``, ``choices``
        and ``answer``. A CSV file whose first line names such columns. Any other file is one
        continuous text. A name such as "genesis" is a text that the package ships.
    format : {"jsonl", "csv", "text"}, optional
        The format of the file; by default it is detected from the first line, or else the
        extension.

    Returns
    -------
    Data
        Examples of one kind.

    Raises
    ------
    ValueError
        If the file is empty or not text, or a line is damaged, is not an example, or has nothing to
        learn from; the message gives its number.
    FileNotFoundError
        If there is no such file.

    See Also
    --------
    finetune : Train on the examples.

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
    """Convert a continuous text, or examples that are mappings or texts, to `Data`, if needed."""
    if isinstance(data, Data):
        return data
    if isinstance(data, str):
        return Data((Completion("", data),), ("",), ONE, "the text")
    if isinstance(data, bytes | Mapping):
        raise TypeError(f"data must be a text or a sequence of examples, got {shown(data)}")
    examples = ({"text": item} if isinstance(item, str) else item for item in data)
    return data_of((f"example {i}", item) for i, item in enumerate(examples, start=1))


def told_by(content: str, ending: str) -> str:
    """Detect a file's format from its first line, or else from its extension."""
    first = content.lstrip().partition("\n")[0]
    # treat a JSON list as JSON lines, so that the error for this unsupported format names a line
    if re.match(r'\[?\s*\{\s*"|\[\s*$', first):
        return "jsonl"
    names = {name.strip(' "') for name in re.split("[,;\t]", first)}
    if any(len(fields) > 1 and names.issuperset(fields) for fields, _ in KINDS.values()):
        return "csv"
    return ENDINGS.get(ending, "text")


def json_records(content: str) -> Iterator[tuple[str, Json]]:
    """Yield a label such as "line 3" and the JSON value of each line that is not empty."""
    for i, line in enumerate(content.split("\n"), start=1):
        if line.strip():
            with errors_at(f"line {i}"):
                record = parse_json(line.encode())
            yield f"line {i}", record


def csv_records(content: str) -> Iterator[tuple[str, Json]]:
    """Yield a label such as "line 3" and the fields of each CSV record, by column name."""
    first = content.partition("\n")[0]
    limit = csv.field_size_limit(len(content))  # a field may be as long as the file
    reader = csv.reader(
        io.StringIO(content, newline=""), delimiter=max(",;\t", key=first.count), strict=True
    )
    try:
        names = [name.strip() for name in next(reader)]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"line 1: the column {name!r} occurs twice")
        for record in filter(None, reader):
            if len(record) != len(names):
                raise ValueError(
                    f"line {reader.line_num}: it has {len(record)} fields, not {len(names)}"
                )
            yield f"line {reader.line_num}", dict(zip(names, record, strict=True))
    except csv.Error as error:
        raise ValueError(f"line {reader.line_num}: {error}") from None
    finally:
        csv.field_size_limit(limit)


def data_of(records: Iterable[tuple[str, Json]], source: str = "the data") -> Data:
    """Validate records and convert them to `Data`; all must be of the same kind as the first."""
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
    """Convert a record to a validated example of the given kind."""
    needed, optional = KINDS[kind]
    values: dict[str, Any] = {name: fields.get(name) for name in (*needed, *optional)}
    if missing := [name for name in needed if values[name] is None]:
        there = [name for name, value in fields.items() if value is not None]
        raise ValueError(
            f"it has no {missing[0]}, unlike the first example, only {', '.join(there)}"
        )
    if kind == "conversations":
        return conversation(values["messages"])
    if kind == "multiple choice":
        return choices(**values)
    if "prompt" in values and all(isinstance(value, list) for value in values.values()):
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
    """Validate a multiple-choice question, and return it with the index of its answer."""
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
    """Validate messages beyond what chat templates check, and return a `Conversation`."""
    if not isinstance(messages, list) or not messages:
        raise ValueError(f"messages must be a list of messages, got {shown(messages)}")
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
        contents = content if isinstance(content, list) else [{"text": content}]
        texts = [part.get("text") if isinstance(part, Mapping) else None for part in contents]
        if not all(isinstance(text, str) for text in texts) and not message.get("tool_calls"):
            raise ValueError(f"message {i} must have text as its content, got {shown(content)}")
        if message.get("weight", 1) != 1:
            raise ValueError(
                f"message {i} has weight {shown(message['weight'])}, but only 1 is understood"
            )
    if not any(message["role"] == "assistant" for message in messages[first:]):
        raise ValueError("it has no message of the assistant to learn from")
    return Conversation(messages, first)
