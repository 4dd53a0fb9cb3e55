"""Compare language models on the same data: losses, answers and choices, example by example."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from lora_np.checks import Array, whole_number
from lora_np.files import Json, errors_at
from lora_np.language.data import AnyData, Choices, Completion, Conversation, Data, Example, as_data
from lora_np.language.decoder import LanguageModel, vocabulary_of
from lora_np.language.generation import Sampling, continued, ends_of
from lora_np.language.packing import Document, documents, mean_loss, together, within
from lora_np.language.templates import Template
from lora_np.nn import freeze
from lora_np.table import Shown, Table, json_text, one_line, page

SHORT = 40  # an expected answer of at most this many characters is compared word for word
# default limits on generated tokens, for short and for long expected answers
SPOKEN = 48, 200
SPARE = 8  # additional tokens, for what a template writes before an answer
FEWEST = 5  # intervals are computed only from at least this many examples


class Measure(NamedTuple):
    """A metric: its value for each model and example, and the examples' weights."""

    values: Array  # (models, examples)
    weights: Array  # (examples,): the weight of each example, such as its tokens in the loss

    @property
    def means(self) -> Array:
        """Each model's weighted mean over the examples."""
        return np.average(self.values, axis=1, weights=self.weights)

    def difference(self, i: int) -> tuple[float, float | None, float | None, float | None]:
        """Compare model i with the first; return difference, low, high, and detectable difference.

        Low and high bound a 95 % interval. The detectable difference is the smallest true
        difference that this many examples show in 80 of 100 cases. All but the mean are None with
        fewer than 5 examples. The examples are a sample, so the mean is a ratio of two sums; its
        variance is a first-order approximation (Cochran, *Sampling Techniques*, 1977, section 6.3).
        """
        d, w, n = self.values[i] - self.values[0], self.weights, len(self.weights)
        mean = float(np.average(d, weights=w))
        if n < FEWEST:
            return mean, None, None, None
        error = float(np.sqrt(n / (n - 1) * np.sum((w * (d - mean)) ** 2)) / np.sum(w))
        half = student(0.975, n - 1)
        return mean, mean - half * error, mean + half * error, (half + student(0.8, n - 1)) * error


@dataclass(frozen=True, eq=False, repr=False)
class Evaluation(Shown):
    """The comparison of models on the same examples, returned by `evaluate`.

    Parameters
    ----------
    names : tuple of str
        The names of the models; the others are compared with the first.
    measures : dict of str to Measure
        The measures by name: ``loss`` (nats per token), ``exact match``, ``acc`` and ``acc_norm``.
    speeds : tuple of float or None
        Tokens per second of each model; None if no text was generated.
    answers : Table
        The answers of each model, next to the expected answers.
    notes : tuple of str
        Remarks about the data for the user.
    """

    names: tuple[str, ...]
    measures: Mapping[str, Measure]
    speeds: tuple[float | None, ...]
    answers: Table
    notes: tuple[str, ...]

    @property
    def table(self) -> Table:
        """A table of the models, with the mean of each measure, perplexity and speed."""
        columns: dict[str, Sequence[float | None]] = {}
        for name, measure in self.measures.items():
            columns[name] = measure.means.tolist()
            if name == "loss":
                columns["perplexity"] = np.exp(measure.means).tolist()
        if any(self.speeds):
            columns["tokens/s"] = self.speeds
        lines = [*zip(self.names, *columns.values(), strict=True)]
        return Table(["model", *columns], lines, notes=self.notes)

    @property
    def differences(self) -> Table:
        """A table of differences from the first model, with intervals and detectable sizes."""
        names = ["model", "measure", "difference", "low", "high", "detectable"]
        lines = [
            (self.names[i], name, *measure.difference(i))
            for i in range(1, len(self.names))
            for name, measure in self.measures.items()
        ]
        note = (
            "low and high: 95 % interval over examples; detectable: the true difference that this"
            " many examples show in 80 of 100 cases"
        )
        return Table(names, lines, title=f"Differences from {self.names[0]}", notes=[note])

    def to_json(self) -> str:
        """Convert the tables of models, differences and answers to JSON."""
        tables = {
            "models": self.table, "differences": self.differences, "answers": self.answers
        }  # fmt: skip
        return json_text({name: table.content for name, table in tables.items()})

    def to_html(self) -> str:
        """Render an HTML page with the tables of models, differences and answers, unless empty."""
        parts = [self.table]
        parts += [self.differences] if len(self.names) > 1 else []
        parts += [self.answers] if self.answers.rows else []
        return page("Language models compared", parts)


def evaluate(
    models: Mapping[str, LanguageModel] | Iterable[tuple[str, LanguageModel]],
    data: AnyData,
    *,
    max_length: int | None = None,
    answers: int = 5,
) -> Evaluation:
    """Compare models on the same held-out examples.

    Parameters
    ----------
    models : mapping of str to LanguageModel, or iterable of pairs
        The models by name; the others are compared with the first. Give a generator of pairs to
        have only one model in memory at a time.
    data : Data, str or sequence
        The result of `read_data`, a text, or examples, as for `finetune`. All of them are measured,
        so the models should not have been trained on them. Examples with ``question``, ``choices``
        and ``answer`` are multiple choice.
    max_length : int, optional
        Most tokens of an example; longer ones are cut, but in multiple choice they are an error. By
        default the model's context.
    answers : int
        The largest number of answers to show side by side.

    Returns
    -------
    Evaluation
        The results in three tables. ``table`` has for each model the mean ``loss`` of the answers
        in nats per token and its ``perplexity``; ``exact match``, the share of expected answers of
        at most 40 characters that the greedy answer equals except for white space; for multiple
        choice ``acc``, the share of examples whose right choice is the likeliest, and ``acc_norm``,
        the same with likelihoods divided by the number of characters; and tokens per second.
        ``differences`` has intervals over examples. ``answers`` shows answers side by side.

    Raises
    ------
    ValueError
        If there is no model, the models have different vocabularies or cut examples at different
        lengths, an example is damaged, a multiple-choice example is longer than ``max_length``, or
        the data are conversations but a model has no chat template.

    See Also
    --------
    likelihood : Measure the loss on one text.

    Notes
    -----
    Differences are taken example by example, so that the difficulty of an example cancels. Multiple
    choice is scored as in the Language Model Evaluation Harness (``loglikelihood`` of " " and the
    choice after "Question: ...", a line feed and "Answer:").

    Examples
    --------
    >>> from lora_np import language
    >>> austen = language.load("austen")
    >>> texts = [line for line in language.read_text("genesis").splitlines() if len(line) > 50][:8]
    >>> result = evaluate({"austen": austen, "again": austen}, texts)
    >>> result.differences.rows[0][2:]
    (0.0, 0.0, 0.0, 0.0)
    """
    data = as_data(data)
    whole_number("answers", answers, minimum=0)
    shown, asked = chosen(data, answers)
    names: list[str] = []
    runs: list[Measured] = []
    for name, model in models.items() if isinstance(models, Mapping) else models:
        run = measured(freeze(model), data, asked, max_length)
        first = runs[0] if runs else run
        if not all(np.array_equal(run.weights[m], first.weights[m]) for m in run.weights):
            raise ValueError(
                f"{name} cuts the data into other tokens than {names[0]}, so that their losses"
                " cannot be compared: compare models with one vocabulary, and with a max_length"
                " (--max-length) within the shortest context"
            )
        names.append(name)
        runs.append(run)
    if not runs:
        raise ValueError("there is no model to evaluate: name at least one")
    measures = {
        name: Measure(np.array([run.values[name] for run in runs]), weights)
        for name, weights in runs[0].weights.items()
    }
    texts = dict.fromkeys(["question", "wanted", *names], one_line)
    lines = [(*parts(data.examples[i]), *(run.texts[i] for run in runs)) for i in shown]
    return Evaluation(
        names=tuple(names),
        measures=measures,
        speeds=tuple(run.speed for run in runs),
        answers=Table([*texts], lines, title="Answers", formats=texts),
        notes=(str(data), *runs[0].notes),
    )


class Measured(NamedTuple):
    """The values of each measure for one model, and its answers."""

    values: dict[str, Array]  # maps each measure to its values on the examples that have it
    weights: dict[str, Array]
    texts: dict[int, str]  # maps the index of an example to the model's answer
    speed: float | None
    notes: Sequence[str]


def measured(
    model: LanguageModel, data: Data, asked: Sequence[int], max_length: int | None
) -> Measured:
    """Measure a frozen model on all examples, and generate answers to some of them."""
    longest = within(model, model.context if max_length is None else max_length)
    weights: dict[str, Array] = {}
    notes: list[str] = []
    if isinstance(data.examples[0], Choices):
        values = accuracies(model, data, longest)
    else:
        texts, notes = documents(data, model, longest)
        values = {"loss": np.array([loss_of(model, text) for text in texts])}
        weights = {"loss": np.array([float(text.learnt) for text in texts])}
    replies, speed = answered(model, data, asked)
    short = {i: wanted for i in replies if len(wanted := parts(data.examples[i])[1]) <= SHORT}
    if short:
        equal = [
            replies[i].split() in (wanted.split(), written(model, data.examples[i]).split())
            for i, wanted in short.items()
        ]
        values["exact match"] = np.array(equal, float)
    weights = {name: weights.get(name, np.ones(len(row))) for name, row in values.items()}
    return Measured(values, weights, replies, speed, notes)


def loss_of(model: LanguageModel, document: Document) -> float:
    return mean_loss(model, together([[[document]]]))


def accuracies(model: LanguageModel, data: Data, longest: int) -> dict[str, Array]:
    """Return, as ``acc`` and ``acc_norm``, whether each example's right choice scores highest.

    A score is the log probability of a choice; ``acc_norm`` divides it by the number of characters.
    """
    vocabulary = vocabulary_of(model)
    right: dict[str, list[bool]] = {"acc": [], "acc_norm": []}
    for example, place in zip(data.examples, data.places, strict=True):
        # for mypy: the caller has checked the first example, and all are of the same kind
        assert isinstance(example, Choices)
        context = f"Question: {example.question}\nAnswer:"
        begin, scores = len(vocabulary.encode(context)), []
        for text in example.choices:
            tokens = vocabulary.encode(f"{context} {text}")
            if len(tokens) > longest + 1:
                raise ValueError(
                    f"{data.source}: {place}: a choice ends after {len(tokens)} tokens, more than"
                    f" the {longest} that the model reads"
                )
            document = Document(tokens, np.arange(len(tokens)) >= begin)
            scores.append(-loss_of(model, document) * document.learnt)
        by_length = np.divide(scores, [len(text) for text in example.choices])
        for name, row in (("acc", scores), ("acc_norm", by_length)):
            right[name].append(int(np.argmax(row)) == example.answer)
    return {name: np.array(row, float) for name, row in right.items()}


def answered(
    model: LanguageModel, data: Data, asked: Sequence[int]
) -> tuple[dict[int, str], float | None]:
    """Return greedy answers by example index, and the tokens per second (None if no tokens)."""
    replies: dict[int, str] = {}
    spoken, begin = 0, time.perf_counter()
    for i in asked:
        example = data.examples[i]
        wanted = parts(example)[1]
        most = SPOKEN[len(wanted) > SHORT]
        if len(wanted) <= SHORT:  # a short answer can still have many tokens
            most = max(most, len(vocabulary_of(model).encode(wanted)) + SPARE)
        lines = 0
        with errors_at(f"{data.source}: {data.places[i]}"):
            if isinstance(example, Conversation):
                turns = example.messages[: last_answer(example)]
                row = Template(vocabulary_of(model)).tokens(turns, add_generation_prompt=True)
                stop = []
            else:
                row = vocabulary_of(model).encode(parts(example)[0])
                # allow as many lines as the expected answer has, because a base model may go on
                lines = 1 + wanted.count("\n")
                stop = ["\n"] if lines == 1 else []
            tokens = row.tolist()
            how = Sampling(tokens=most, stop=stop, temperature=0)
            reply = continued(model, [tokens], how)[0].end()
            replies[i] = "\n".join(reply.split("\n")[:lines]) if lines else reply
            spoken += len(tokens) - len(row)
    return replies, spoken / (time.perf_counter() - begin) if spoken else None


def written(model: LanguageModel, example: Example) -> str:
    """Return the expected answer as the chat template writes it, perhaps after an empty thought."""
    if not isinstance(example, Conversation):
        return parts(example)[1]
    vocabulary, i = vocabulary_of(model), last_answer(example)
    tokens, learnt, _ = Template(vocabulary).labelled(example.messages[: i + 1], i)
    ends = {*ends_of(model), *vocabulary.specials}
    return vocabulary.decode(token for token in tokens[learnt].tolist() if token not in ends)


def parts(example: Example) -> tuple[str, str]:
    """Return an example's question and expected answer; in a conversation, the last of each."""
    if isinstance(example, Conversation):
        i = last_answer(example)
        asked = [text_of(turn) for turn in example.messages[:i] if turn["role"] == "user"]
        return "".join(asked[-1:]), text_of(example.messages[i])
    if isinstance(example, Completion):
        return example.prompt, example.text.rstrip("\n")
    return example.question, example.choices[example.answer]


def last_answer(example: Conversation) -> int:
    """Return the index of the assistant's last message."""
    return max(i for i, turn in enumerate(example.messages) if turn["role"] == "assistant")


def text_of(message: Mapping[str, Json]) -> str:
    """Return the text of a message, whose content may be a list of parts."""
    content = message.get("content") or ""
    texts = content if isinstance(content, list) else [{"text": content}]
    return "".join(str(part.get("text") or "") for part in texts)


def chosen(data: Data, answers: int) -> tuple[list[int], list[int]]:
    """Return the indices of the examples to show, and of all examples to generate answers for."""
    open_ended = [
        i
        for i, example in enumerate(data.examples)
        if not isinstance(example, Choices) and parts(example)[0]
    ]
    few = min(answers, len(open_ended))
    shown = [open_ended[i * len(open_ended) // few] for i in range(few)]
    short = [i for i in open_ended if len(parts(data.examples[i])[1]) <= SHORT]
    return shown, sorted({*shown, *short})


def student(probability: float, degrees: int) -> float:
    """Compute a quantile of Student's t distribution.

    The result is a series in the same quantile of the normal distribution (Abramowitz and Stegun,
    26.7.5). For probabilities up to 0.975 and 4 or more degrees of freedom, its error is below
    0.5 %.
    """
    z = NormalDist().inv_cdf(probability)
    terms = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return float(np.polynomial.polynomial.polyval(1 / degrees, terms))
