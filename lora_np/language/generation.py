"""Generate text from a model, one token at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass, replace as changed
from typing import TypeVar

import numpy as np

from lora_np.autograd import value
from lora_np.checks import (
    Array,
    Seed,
    configured,
    generator,
    overflow_allowed,
    shown,
)
from lora_np.language.blocks import Cache
from lora_np.language.decoder import LanguageModel, vocabulary_of
from lora_np.language.templates import Messages, Template, shared
from lora_np.nn import freeze, replace, softmax
from lora_np.quantise import Blocks
from lora_np.settings import check_settings, setting
from lora_np.work import keep_pages

Prompt = TypeVar("Prompt", str, Sequence[str])
AT_ONCE = 16  # largest number of token sequences in a batch of `replies`


@dataclass(frozen=True, kw_only=True, eq=False)
class Sampling:
    """The settings of text generation, applied in the same order as in transformers.

    Parameters
    ----------
    tokens : int
        The largest number of tokens to add.
    temperature : float
        Logits are divided by this; 0 takes the most likely token every time.
    top_k : int
        Draw among this many of the most likely tokens; 0 for all.
    top_p : float
        Draw among the most likely tokens that together have this probability.
    min_p : float
        Leave out tokens less likely than this share of the most likely one.
    repetition_penalty : float
        If a token is already in the text, its logit is divided by this if it is positive, and
        multiplied if it is negative.
    stop : sequence of str
        Texts that end generation, and are not part of the result.
    rng : Generator or int
        Random seed of the draws.
    stream : callable, optional
        ``stream(text)`` is called with each new piece of text.

    Raises
    ------
    ValueError
        If a setting is out of range.

    Examples
    --------
    >>> Sampling(temperature=1, top_k=2).scores(np.array([1.0, 3.0, 2.0]), before=[])
    array([-inf,   0.,  -1.])
    """

    tokens: int = setting(300, "Most tokens to add", minimum=0)
    temperature: float = setting(0.7, "0 always takes the most likely token", open_minimum=False)
    top_k: int = setting(0, "Draw from this many of the most likely tokens; 0 for all", minimum=0)
    top_p: float = setting(
        1.0, "Draw from the most likely tokens of this total probability", maximum=1
    )
    min_p: float = setting(
        0.0,
        "Leave out tokens less likely than this fraction of the most likely",
        open_minimum=False,
        maximum=1,
    )
    repetition_penalty: float = setting(1.0, "Above 1, earlier tokens become less likely")
    stop: Sequence[str] = ()
    rng: Seed = 0
    stream: Callable[[str], None] | None = None

    def __post_init__(self) -> None:
        check_settings(self)
        check_texts("stop", self.stop)

    def draw(self, logits: Array, before: Sequence[int], rng: np.random.Generator) -> int:
        """Draw the next token from its logits; the tokens ``before`` it may be penalised."""
        if not np.isfinite(logits).all():
            raise FloatingPointError(
                "logits are not finite: weights, perhaps an adapter's, are too large"
            )
        z = self.scores(logits, before)
        return int(z.argmax()) if self.temperature == 0 else int(rng.choice(len(z), p=softmax(z)))

    def scores(self, logits: Array, before: Sequence[int]) -> Array:
        """Compute the logits to draw from: the largest is 0, excluded tokens have -inf."""
        z = logits.astype(np.float64)
        if (penalty := self.repetition_penalty) != 1:
            seen = np.unique(np.asarray(before, dtype=int))
            z[seen] = np.where(z[seen] < 0, z[seen] * penalty, z[seen] / penalty)
        z -= z.max()
        if self.temperature == 0:
            return z
        # at a tiny temperature, logits can overflow to -inf, which only excludes unlikely tokens
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


def check_texts(name: str, texts: Sequence[str]) -> None:
    """Raise an error if ``texts`` is not a list of texts, or one of them is empty."""
    if isinstance(texts, str) or not all(isinstance(text, str) and text for text in texts):
        raise ValueError(f"{name} must be a list of texts that are not empty, got {shown(texts)}")


@configured(Sampling)
def generate(model: LanguageModel, prompt: Prompt, settings: Sampling) -> Prompt:
    """Generate a continuation of one prompt, or of several.

    Parameters
    ----------
    model : LanguageModel
        The model, with or without adapters.
    prompt : str, or list of str
        The beginning, of at least one token. If texts of the vocabulary begin with a special token
        (BOS), it is added, and is not part of the result.
    tokens : int
        The largest number of tokens to add. Generation stops earlier at an end token of
        ``generation_config.json``, or else of ``config.json``.
    temperature : float
        Logits are divided by this; 0 takes the most likely token every time.
    top_k, top_p, min_p, repetition_penalty : float
        Settings with the same meaning as in transformers; see `Sampling`.
    stop : sequence of str
        Texts that end a continuation, and are not part of the result.
    rng : Generator or int
        Random seed of the draws.
    stream : callable, optional
        ``stream(text)`` is called with each new piece of text, the prompt first; for one prompt.

    Returns
    -------
    str, or list of str
        The prompt with its continuation; a list if ``prompt`` is one.

    Raises
    ------
    ValueError
        If a prompt is empty or has characters outside the vocabulary, a setting is out of range, or
        the model has no vocabulary.

    Notes
    -----
    Keys and values of earlier tokens are cached. A text longer than ``model.context``, or than the
    length to which rotary embeddings extend it, restarts from the last half of that many tokens.
    Dynamic rotary embeddings have no such limit. If there are several prompts, shorter ones are
    padded on the left, and no token sees the padding: at temperature 0, each text is the same as
    without the others, up to rounding.

    Examples
    --------
    >>> from lora_np import language
    >>> generate(language.load("austen"), "It is a truth ", tokens=20, temperature=0)
    'It is a truth to be a great deal o'
    """
    vocabulary = vocabulary_of(model)
    if not isinstance(prompt, Sequence) or not all(isinstance(text, str) for text in prompt):
        raise TypeError(f"prompt must be text or a list of texts, got {shown(prompt)}")
    prompts = [prompt] if isinstance(prompt, str) else list(prompt)
    if settings.stream is not None and len(prompts) != 1:
        raise ValueError(f"stream is for one prompt, got {len(prompts)}")
    rows = [vocabulary.encode(text).tolist() for text in prompts]
    made = continued(model, rows, settings, prefix=len(vocabulary.begins))
    texts = [continuation.end() for continuation in made]
    return texts[0] if isinstance(prompt, str) else texts


@configured(Sampling)
def answer(model: LanguageModel, messages: Messages, settings: Sampling) -> str:
    """Generate the model's next message in a conversation.

    Parameters
    ----------
    model : LanguageModel
        A model with a chat template.
    messages : sequence of mapping
        The conversation so far, each message with ``role`` and ``content``.
    **settings
        The settings of `generate`.

    Returns
    -------
    str
        The answer, without the token that ends it.

    Raises
    ------
    ValueError
        If the model has no chat template, the template rejects the messages, or a setting is out of
        range.
    ImportError
        If jinja2 is not installed.

    See Also
    --------
    generate : Continue a text.

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
    return continued(model, [row], settings)[0].end()


def replies(
    model: LanguageModel, rows: Sequence[list[int]], settings: Sampling
) -> list[Continuation]:
    """Continue many token sequences in batches, and reuse the cache of their common prefix."""
    settings = changed(settings, rng=generator(settings.rng))
    reader = Reader(model)
    same = shared(np.array(min(rows)), np.array(max(rows)))
    if same:
        reader.read([rows[0][:same]])
    made: list[Continuation] = []
    for first in range(0, len(rows), AT_ONCE):
        some = [[*row] for row in rows[first : first + AT_ONCE]]
        made += continued(reader.model, some, settings, reader.spread(some))
    return made


class Continuation:
    """A generated continuation, which is decoded, searched for stop strings and streamed."""

    def __init__(
        self, model: LanguageModel, row: list[int], begins: int, settings: Sampling
    ) -> None:
        self.vocabulary, self.row, self.begins = vocabulary_of(model), row, begins
        self.stop, self.stream = settings.stop, settings.stream
        self.ended = False
        self.hidden: list[Array] = []  # the hidden state that predicted each new token
        self.streamed = 0  # number of characters streamed so far
        # the index of the first new character; stop strings before it are ignored
        self.first = len(self.vocabulary.decode(row[begins:]))
        self.update()

    @property
    def tokens(self) -> list[int]:
        """The sequence without its first ``begins`` tokens; an end token is included."""
        return self.row[self.begins :]

    def update(self) -> bool:
        """Decode and stream the text so far; return whether its new part contains a stop string."""
        text = self.vocabulary.decode(self.tokens[: -1 if self.ended else None])
        stops = [i for stop in self.stop if (i := text.find(stop, self.first)) >= 0]
        self.text = text[: min(stops, default=None)]
        # a final U+FFFD stands for a character whose last bytes are still missing
        if stops or not text.endswith("\ufffd"):
            # hold back the end of the text, which may be the beginning of a stop string
            self.write(0 if stops else max(map(len, self.stop), default=1) - 1)
        return bool(stops)

    def end(self) -> str:
        """Stream the remaining text, and return the whole text without the end token."""
        self.write(0)
        self.stream = None
        self.update()
        return self.text

    def write(self, held_back: int) -> None:
        """Stream the remaining text, except for its last ``held_back`` characters."""
        end = len(self.text) - held_back
        if self.stream is not None and end > self.streamed:
            self.stream(self.text[self.streamed : end])
            self.streamed = end


class Reader:
    """A model with a key-value cache, which processes only new tokens.

    Parameters
    ----------
    model : LanguageModel

    Examples
    --------
    >>> from lora_np import language
    >>> reader = Reader(language.load("austen"))
    >>> reader.read([[3, 1, 4]]).shape  # the hidden state of the last token
    (1, 128)
    >>> reader.take([0, 0]).read([[3, 1, 4, 1], [3, 1, 4, 5]]).shape
    (2, 128)
    """

    def __init__(self, model: LanguageModel) -> None:
        keep_pages()  # each layer reuses the memory that the previous layer freed

        # unpack codes to one byte each now, because every token dequantises all weights again
        self.model = replace(freeze(model), Blocks, lambda path, W: W.expanded())
        rotary = [layer.attention.rotary for layer in model.model.layers]
        turning = [rope for rope in rotary if rope]
        #: The length of the longest text, in tokens, for which the model has positions.
        self.reach = max([model.context, *(rope.reach for rope in turning)])
        # beyond this length, longrope uses other angles, so cached keys become invalid
        self.limit = next((rope.trained for rope in turning if rope.longer), math.inf)
        self.rows: list[list[int]] = []
        self.ids: Array = np.empty((0, 1), int)
        self.caches: list[Cache] = []

    def take(self, rows: Sequence[int]) -> Reader:
        """Return a copy with the selected rows; a row may be selected more than once."""
        taken = copy(self)
        taken.rows, taken.ids = [self.rows[i] for i in rows], self.ids[rows]
        taken.caches = [cache.take(rows) for cache in self.caches]
        return taken

    def spread(self, rows: Sequence[Sequence[int]]) -> Reader:
        """Return a copy that repeats the only cached row, a prefix of all ``rows``, once for each.

        Shorter rows are padded on the left. If no cached token is left for one of them, the copy is
        empty.
        """
        longest, cached = max(map(len, rows)), len(self.rows) and self.ids.shape[1]
        gaps = [longest - len(row) for row in rows]
        if cached <= max(gaps):
            return Reader(self.model)
        taken = self.take([0] * len(rows))
        for i, gap in enumerate(gaps):
            for cache in taken.caches:
                cache.room[:, i, gap:] = cache.room[:, i, : cached - gap].copy()
            taken.ids[i, :gap] = 0
            taken.rows[i] = taken.rows[i][: cached - gap]
        return taken

    def read(self, rows: list[list[int]]) -> Array:
        """Process the tokens that are not cached; return the hidden state of each row's last token.

        Parameters
        ----------
        rows : list of list of int
            The whole sequences, each from its first token.

        Returns
        -------
        ndarray of shape (rows, d)
        """
        gaps = np.argmax(self.ids, axis=1)  # the number of padding tokens at the start of each row
        common = self.common(rows, gaps)
        new = [row[common - int(gap) :] for row, gap in zip(rows, gaps, strict=False)]
        if common and min(map(len, new)) == max(map(len, new)):
            tokens, ids = np.array(new), np.ones((len(rows), len(new[0])), int)
            self.ids = np.concatenate([self.ids[:, :common], ids], axis=1)
            for cache in self.caches:
                cache.tokens = common
        else:
            tokens, self.ids = padded(rows)
            self.caches = [Cache(tokens.shape[1] + 64) for _ in self.model.model.layers]
        self.rows = [list(row) for row in rows]
        mask = None if self.ids.all() else self.ids
        # suppress overflow warnings, because `Sampling.draw` rejects non-finite logits
        with overflow_allowed():
            hidden = self.model.model(tokens, caches=self.caches, sequence_ids=mask, last=True)
        return value(hidden)[:, -1]

    def common(self, rows: list[list[int]], gaps: Array) -> int:
        """Count the cached columns that ``rows`` can reuse, without the last token of any row."""
        if len(rows) != len(self.rows):
            return 0
        columns = []
        for row, before, gap in zip(rows, self.rows, gaps, strict=True):
            pairs = enumerate(zip(before, row[:-1], strict=False))
            same = next((i for i, (a, b) in pairs if a != b), min(len(before), len(row) - 1))
            across = (len(before) > self.limit) != (len(row) > self.limit)
            columns.append(0 if across or not same else int(gap) + same)
        return min(columns)


def continued(
    model: LanguageModel,
    rows: list[list[int]],
    settings: Sampling,
    reader: Reader | None = None,
    *,
    prefix: int | None = None,
) -> list[Continuation]:
    """Extend rows in place until each has an end token or stop string, or the limit is reached."""
    if not all(rows):
        raise ValueError("the prompt must hold at least one token, got an empty text")
    reader = reader or Reader(model)
    rng, ends, reach = generator(settings.rng), ends_of(model), reader.reach
    continuations = [
        Continuation(model, row, len(row) if prefix is None else prefix, settings) for row in rows
    ]
    starts = [int(max(len(row) - reach, 0)) for row in rows]
    going = [*range(len(rows))]
    listening = settings.stop or settings.stream is not None
    for _ in range(settings.tokens if rows else 0):
        for i in going:
            if len(rows[i]) - starts[i] > reach:
                starts[i] = len(rows[i]) - max(int(reach) // 2, 1)
        hidden = reader.read([rows[i][starts[i] :] for i in going])
        with overflow_allowed():
            logits = value(reader.model.logits(hidden))
        for i, scores, state in zip(going, logits, hidden, strict=True):
            continuations[i].hidden.append(state.copy())
            rows[i].append(settings.draw(scores, rows[i], rng))
            continuations[i].ended = rows[i][-1] in ends
        some = [continuations[i] for i in going]
        left = [k for k, one in enumerate(some) if not (one.ended or (listening and one.update()))]
        if not left:
            break
        if len(left) < len(going):
            reader, going = reader.take(left), [going[k] for k in left]
    return continuations


def padded(rows: Sequence[Sequence[int]]) -> tuple[Array, Array]:
    """Pad rows on the left, and return them with a mask of the tokens that are not padding.

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
    return tokens, theirs


def ends_of(model: LanguageModel) -> list[int]:
    """List the tokens that end a text, from ``generation_config.json`` or else ``config.json``."""
    ends = model.generation.get("eos_token_id")
    where = "config.json" if ends is None else "generation_config.json"
    ends = model.config.get("eos_token_id") if ends is None else ends
    tokens = ends if isinstance(ends, list) else [] if ends is None else [ends]
    if not all(isinstance(token, int) and not isinstance(token, bool) for token in tokens):
        raise ValueError(
            f"{where}: eos_token_id must be a token or a list of tokens, got {shown(ends)}"
        )
    return tokens
