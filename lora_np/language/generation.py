"""Text from a model, one token after the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from lora_np.autograd import value
from lora_np.checks import Array, generator, number, shown, whole_number
from lora_np.language.blocks import Cache
from lora_np.language.decoder import LanguageModel
from lora_np.language.text import vocabulary_of
from lora_np.nn import freeze


def generate(
    model: LanguageModel,
    prompt: str,
    *,
    tokens: int = 200,
    temperature: float = 0.8,
    top_p: float = 1.0,
    rng: np.random.Generator | int = 0,
    stream: Callable[[str], Any] | None = None,
) -> str:
    """The prompt and the model's continuation.

    Parameters
    ----------
    model : LanguageModel
        With adapters or without.
    prompt : str
        The beginning; at least one token. If the vocabulary has a token for the beginning of a text (BOS), it
        is put first, and is not part of the result.
    tokens : int
        The largest number of tokens to add. Generation stops earlier at a token that ends a text: those of
        ``generation_config.json``, or else of ``config.json``.
    temperature : float
        Logits are divided by this; 0 takes the most likely token every time.
    top_p : float
        Draw among the most likely tokens that together have this probability.
    rng : Generator or int
        Randomness of the draws.
    stream : callable, optional
        ``stream(text)`` is called with each new piece of text, the prompt first.

    Returns
    -------
    str
        The whole text, with the prompt.

    Raises
    ------
    ValueError
        If the prompt is empty or has characters outside the vocabulary, a setting is out of range, or the
        model has no vocabulary.

    Notes
    -----
    Keys and values of earlier tokens are kept. Beyond ``model.context`` the model has no positions: it then
    restarts from the last half of that many tokens.
    """
    whole_number("tokens", tokens, minimum=0)
    number("temperature", temperature, minimum=0)
    number("top_p", top_p, minimum=0, maximum=1, open_minimum=True)
    vocabulary = vocabulary_of(model)
    said = [int(i) for i in vocabulary.encode(prompt)]
    if not said:
        raise ValueError("the prompt must hold at least one token, got an empty text")
    random = generator(rng)
    frozen = freeze(model)
    longest = min(model.context, len(said) + tokens)
    stops = ends_of(model)
    told = 0  # characters that have been streamed

    def text() -> str:
        return vocabulary.decode(said[len(vocabulary.begins) :])

    def tell() -> None:
        nonlocal told
        if stream is not None and not (now := text()).endswith("\ufffd"):  # an incomplete character
            stream(now[told:])
            told = len(now)

    tell()
    step, caches = said[-model.context :], fresh(frozen, longest)
    for _ in range(tokens):
        if caches[0].tokens + len(step) > model.context:
            step, caches = said[-max(model.context // 2, 1) :], fresh(frozen, longest)
        with np.errstate(over="ignore", invalid="ignore"):  # of weights that are out of bounds, drawn tells
            hidden = frozen.model(np.array([step]), caches=caches)[:, -1:]
            logits = value(frozen.logits(hidden))[0, 0]
        said.append(drawn(logits, temperature, top_p, random))
        step = said[-1:]
        if said[-1] in stops:
            break
        tell()
    return text()


def ends_of(model: LanguageModel) -> list[int]:
    """The tokens that end a text: of ``generation_config.json``, or else of ``config.json``."""
    ends = model.generation.get("eos_token_id")
    where = "config.json" if ends is None else "generation_config.json"
    ends = model.config.get("eos_token_id") if ends is None else ends
    found = ends if isinstance(ends, list) else [] if ends is None else [ends]
    if not all(isinstance(each, int) and not isinstance(each, bool) for each in found):
        raise ValueError(f"{where}: eos_token_id must be a token or a list of tokens, got {shown(ends)}")
    return found


def fresh(model: LanguageModel, longest: int) -> list[Cache]:
    return [Cache(longest) for _ in model.model.stack]


def drawn(logits: Array, temperature: float, top_p: float, rng: np.random.Generator) -> int:
    """A token by its probability, among the most likely ones that make up ``top_p``."""
    if not np.isfinite(logits).all():
        raise FloatingPointError(
            "the model's logits are not finite: its weights, or an adapter's, are too large"
        )
    if temperature == 0:
        return int(logits.argmax())
    with np.errstate(over="ignore"):  # as temperature goes to 0, all but the most likely go to 0
        p = np.exp((logits.astype(np.float64) - logits.max()) / temperature)
    p /= p.sum()
    if top_p < 1:
        order = np.argsort(-p, kind="stable")
        before = np.cumsum(p[order]) - p[order]
        p[order[before >= top_p]] = 0
        p /= p.sum()
    return int(rng.choice(len(p), p=p))
