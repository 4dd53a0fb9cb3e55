"""Text from a model, one token after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np

from lora_np.autograd import value
from lora_np.checks import Array, generator, number, shown, whole_number
from lora_np.language.blocks import Cache
from lora_np.language.decoder import LanguageModel, vocabulary_of
from lora_np.language.templates import Messages, Template
from lora_np.language.vocabulary import Vocabulary
from lora_np.nn import freeze, replace, softmax
from lora_np.quantise import Blocks


@overload
def generate(model: LanguageModel, prompt: str, **options: Any) -> str: ...
@overload
def generate(model: LanguageModel, prompt: Sequence[str], **options: Any) -> list[str]: ...
def generate(
    model: LanguageModel,
    prompt: str | Sequence[str],
    *,
    tokens: int = 200,
    stop: Sequence[str] = (),
    rng: np.random.Generator | int = 0,
    stream: Callable[[str], None] | None = None,
    **sampling: Any,
) -> str | list[str]:
    """Continue a prompt, or several at once.

    Parameters
    ----------
    model : LanguageModel
        With adapters or without.
    prompt : str, or sequence of str
        The beginning; at least one token. If the vocabulary has a token for the beginning of a text
        (BOS), it is put first, and is not part of the result.
    tokens : int
        The largest number of tokens to add. Generation stops earlier at a token that ends a text:
        those of ``generation_config.json``, or else of ``config.json``.
    stop : sequence of str
        Texts before which a continuation ends.
    rng : Generator or int
        Randomness of the draws.
    stream : callable, optional
        ``stream(text)`` is called with each new piece of text, the prompt first; for one prompt.
    **sampling
        How tokens are drawn: ``temperature`` (0.8; 0 takes the most likely token every time),
        ``top_k``, ``top_p``, ``min_p`` and ``repetition_penalty``, as transformers has them.

    Returns
    -------
    str, or list of str
        The whole text, with the prompt; one for each prompt.

    Raises
    ------
    ValueError
        If a prompt is empty or has characters outside the vocabulary, a setting is out of range, or
        the model has no vocabulary.

    Notes
    -----
    Keys and values of earlier tokens are kept. Beyond ``model.context`` the model has no positions:
    it then restarts from the last half of that many tokens. Of several prompts, shorter ones are
    padded on the left, where nothing sees it: at temperature 0, and within the context, each text
    is the one that it would be alone, up to rounding.

    Examples
    --------
    >>> from lora_np import language
    >>> generate(language.load("austen"), "It is a truth ", tokens=20, temperature=0)
    'It is a truth to be a great deal o'
    """
    vocabulary = vocabulary_of(model)
    if not isinstance(prompt, Sequence) or not all(isinstance(each, str) for each in prompt):
        raise TypeError(f"prompt must be text or a list of texts, got {shown(prompt)}")
    prompts = [prompt] if isinstance(prompt, str) else list(prompt)
    if stream is not None and len(prompts) != 1:
        raise ValueError(f"stream is for one prompt, got {len(prompts)}")
    said = [[int(i) for i in vocabulary.encode(each)] for each in prompts]
    if not all(said):
        raise ValueError("the prompt must hold at least one token, got an empty text")
    how = {"tokens": tokens, "stop": stop, "rng": rng, "stream": stream, **sampling}
    texts = [speech.end() for speech in spoken(model, said, len(vocabulary.begins), **how)]
    return texts[0] if isinstance(prompt, str) else texts


def answer(model: LanguageModel, messages: Messages, *, tokens: int = 500, **options: Any) -> str:
    """Generate the model's next message of a conversation, in its chat template.

    Parameters
    ----------
    model : LanguageModel
        With a chat template.
    messages : sequence of mapping
        The conversation so far, each message with ``role`` and ``content``.
    tokens : int
        The largest number of tokens. The answer ends earlier at an end token of
        ``generation_config.json``, or else of ``config.json``.
    **options
        ``stop``, ``rng``, ``stream`` and how tokens are drawn, as for `generate`.

    Returns
    -------
    str
        The answer, without its end token.

    Raises
    ------
    ValueError
        If the model has no chat template, it does not take the messages, or a setting is out of
        range.
    ImportError
        If jinja2 is not installed.

    See Also
    --------
    generate : The continuation of a text.

    Examples
    --------
    >>> from dataclasses import replace
    >>> from lora_np import language
    >>> austen = language.load("austen")
    >>> template = b"{% for m in messages %}{{ m.content }}{% endfor %}"
    >>> files = {"chat_template.jinja": template}
    >>> speaker = replace(austen, vocabulary=language.Characters(austen.vocabulary.characters,
    ...     files))
    >>> answer(speaker, [{"role": "user", "content": "It is a truth "}], tokens=20, temperature=0)
    'to be a great deal o'
    """
    row = Template(vocabulary_of(model)).tokens(messages, add_generation_prompt=True).tolist()
    (speech,) = spoken(model, [row], len(row), tokens=tokens, **options)
    if row[-1] in ends_of(model):
        row.pop()
    return speech.end()


class Speech:
    """The text of a row of tokens from the ``begins``-th on, which may stop and is streamed."""

    def __init__(
        self,
        vocabulary: Vocabulary,
        row: list[int],
        begins: int,
        stop: Sequence[str],
        stream: Callable[[str], None] | None = None,
    ) -> None:
        if isinstance(stop, str) or not all(isinstance(each, str) and each for each in stop):
            raise ValueError(f"stop must be a list of texts that are not empty, got {shown(stop)}")
        self.vocabulary, self.row, self.begins, self.stop, self.stream = (
            vocabulary,
            row,
            begins,
            stop,
            stream,
        )
        self.told = 0  # characters that have been streamed
        self.first = len(vocabulary.decode(row[begins:]))  # before it nothing stops
        self.hear()

    def hear(self) -> bool:
        """Take in the row as it has become, and tell whether the text stops."""
        text = self.vocabulary.decode(self.row[self.begins :])
        found = [place for each in self.stop if (place := text.find(each, self.first)) >= 0]
        self.text = text[: min(found, default=None)]
        if found or not text.endswith("\ufffd"):  # an incomplete character
            # may be the beginning of a stop
            begun = 0 if found else max(map(len, self.stop), default=1) - 1
            self.tell(len(self.text) - begun)
        return bool(found)

    def end(self) -> str:
        """Return the whole text, after streaming the rest, without the token that ends it."""
        self.tell(len(self.text))
        self.stream = None
        self.hear()
        return self.text

    def tell(self, end: int) -> None:
        """Stream what comes before the ``end``-th character."""
        if self.stream is not None and end > self.told:
            self.stream(self.text[self.told : end])
            self.told = end


def spoken(
    model: LanguageModel,
    said: list[list[int]],
    begins: int,
    *,
    tokens: int,
    stop: Sequence[str] = (),
    rng: np.random.Generator | int = 0,
    stream: Callable[[str], None] | None = None,
    **sampling: Any,
) -> list[Speech]:
    """Append tokens to each row, until there are enough, all rows have ended, or all texts stop."""
    whole_number("tokens", tokens, minimum=0)
    rule, draws, ends = Sampling(**sampling), generator(rng), ends_of(model)
    speeches = [Speech(vocabulary_of(model), row, begins, stop, stream) for row in said]
    # a byte for each code, as long as text is made: every token needs all weights
    frozen = replace(freeze(model), Blocks, lambda path, W: W.expanded())
    context = model.context
    longest = min(context, max(map(len, said), default=0) + tokens)
    # where these kinds of positions change, all keys do
    turning = [layer.attention.rotary for layer in frozen.model.layers]
    trained = next((rotary.trained for rotary in turning if rotary and rotary.longer), 0)
    going = [*said]
    caches: list[Cache] = []
    for _ in range(tokens if said else 0):
        held = caches[0].tokens if caches else 0
        if held in (0, trained, context):
            most = max(context // 2, 1) if held == context else context
            caches = [Cache(longest) for _ in frozen.model.layers]
            step, sequence_ids = padded([row[-most:] for row in said])
        else:
            step = np.array([row[-1:] for row in said])
            sequence_ids = (
                None
                if sequence_ids is None
                else np.pad(sequence_ids, ((0, 0), (0, 1)), constant_values=1)
            )
        # of weights that are out of bounds, draw tells
        with np.errstate(over="ignore", invalid="ignore"):
            hidden = frozen.model(step, caches=caches, sequence_ids=sequence_ids)[:, -1:]
            logits = value(frozen.logits(hidden))[:, 0]
        for row, scores in zip(said, logits, strict=True):
            if any(row is each for each in going):
                row.append(rule.draw(scores, row, draws))
        going = [row for row in going if row[-1] not in ends]
        # what ends a text is not heard; without a listener only ends count
        heard = going and (stop or stream is not None)
        stopped = [speech.hear() for speech in speeches] if heard else [not going]
        if all(stopped):
            break
    return speeches


def padded(rows: Sequence[Sequence[int]]) -> tuple[Array, Array | None]:
    """Pad rows on the left, and tell which entries are theirs, if not all are.

    Examples
    --------
    >>> padded([[3], [4, 5]])
    (array([[0, 3],
           [4, 5]]), array([[0, 1],
           [1, 1]]))
    """
    longest = max(map(len, rows))
    tokens = np.array([[0] * (longest - len(row)) + list(row) for row in rows])
    theirs = np.array([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
    return tokens, None if theirs.all() else theirs


def ends_of(model: LanguageModel) -> list[int]:
    """List the tokens that end a text: of ``generation_config.json``, or else ``config.json``."""
    ends = model.generation.get("eos_token_id")
    where = "config.json" if ends is None else "generation_config.json"
    ends = model.config.get("eos_token_id") if ends is None else ends
    found = ends if isinstance(ends, list) else [] if ends is None else [ends]
    if not all(isinstance(each, int) and not isinstance(each, bool) for each in found):
        raise ValueError(
            f"{where}: eos_token_id must be a token or a list of tokens, got {shown(ends)}"
        )
    return found


@dataclass(frozen=True)
class Sampling:
    """How the next token is drawn: the rules of transformers, in their order.

    Parameters
    ----------
    temperature : float
        Logits are divided by this; 0 takes the most likely token every time.
    top_k : int
        Draw among this many of the most likely tokens; 0 for all.
    top_p : float
        Draw among the most likely tokens that together have this probability.
    min_p : float
        Leave out tokens less likely than this share of the most likely one.
    repetition_penalty : float
        A positive logit of a token that the text already has is divided by this, a negative one
        multiplied.

    Raises
    ------
    ValueError
        If one of them is out of range.

    Examples
    --------
    >>> Sampling(temperature=1, top_k=2).scores(np.array([1.0, 3.0, 2.0]), said=[])
    array([-inf,   0.,  -1.])
    """

    temperature: float = 0.8
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0

    def __post_init__(self) -> None:
        number("temperature", self.temperature)
        whole_number("top_k", self.top_k, minimum=0)
        number("top_p", self.top_p, maximum=1, open_minimum=True)
        number("min_p", self.min_p, maximum=1)
        number("repetition_penalty", self.repetition_penalty, open_minimum=True)

    def draw(self, logits: Array, said: Sequence[int], rng: np.random.Generator) -> int:
        """Draw the token that follows the tokens ``said``."""
        if not np.isfinite(logits).all():
            raise FloatingPointError(
                "logits are not finite: weights, perhaps an adapter's, are too large"
            )
        z = self.scores(logits, said)
        return int(z.argmax()) if self.temperature == 0 else int(rng.choice(len(z), p=softmax(z)))

    def scores(self, logits: Array, said: Sequence[int]) -> Array:
        """Compute the logits to draw from: the largest is 0, those left out are -inf."""
        z = logits.astype(np.float64)
        if (penalty := self.repetition_penalty) != 1:
            seen = np.unique(np.asarray(said, dtype=int))
            z[seen] = np.where(z[seen] < 0, z[seen] * penalty, z[seen] / penalty)
        z -= z.max()
        if self.temperature == 0:
            return z
        # as temperature goes to 0, all but the most likely go to -inf
        with np.errstate(over="ignore"):
            z /= self.temperature
        if 0 < self.top_k < len(z):
            z[z < np.partition(z, -self.top_k)[-self.top_k]] = -np.inf
        if self.top_p < 1:
            order = np.argsort(-z, kind="stable")
            p = softmax(z[order])
            z[order[np.cumsum(p) - p >= self.top_p]] = -np.inf
        if self.min_p > 0:
            z[np.exp(z) < self.min_p] = -np.inf
        return z
