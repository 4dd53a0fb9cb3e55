"""Answers of an instructed model to a conversation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from lora_np.checks import generator, whole_number
from lora_np.language.decoder import LanguageModel
from lora_np.language.generation import Speech, continued, ends_of
from lora_np.language.sampling import Sampling
from lora_np.language.templates import Message, Template
from lora_np.language.text import vocabulary_of


def answer(
    model: LanguageModel,
    messages: Sequence[Message],
    *,
    tools: Any = None,
    tokens: int = 500,
    stop: Sequence[str] = (),
    rng: np.random.Generator | int = 0,
    stream: Callable[[str], Any] | None = None,
    **sampling: Any,
) -> str:
    """What the model says next in a conversation, written as its chat template writes it.

    Parameters
    ----------
    model : LanguageModel
        With a chat template.
    messages : sequence of mapping
        The conversation so far, each message with ``role`` and ``content``.
    tools : list, optional
        Descriptions of functions, as the template takes them.
    tokens : int
        The largest number of tokens. The answer ends earlier at an end token of ``generation_config.json``,
        or else of ``config.json``.
    stop : sequence of str
        Texts before which it ends.
    rng : Generator or int
        Randomness of the draws.
    stream : callable, optional
        ``stream(text)`` is called with each new piece of text.
    **sampling
        How tokens are drawn, as for `generate`.

    Returns
    -------
    str
        The answer, without its end token.

    Raises
    ------
    ValueError
        If the model has no chat template, it does not take the messages, or a setting is out of range.
    ImportError
        If jinja2 is not installed.

    See Also
    --------
    generate : The continuation of a text.
    """
    vocabulary, ends = vocabulary_of(model), ends_of(model)
    template = Template(vocabulary, tools=bool(tools))
    row = template.tokens(messages, tools=tools, add_generation_prompt=True).tolist()
    speech = Speech(vocabulary, row, len(row), stop, stream)
    count, rule = whole_number("tokens", tokens, minimum=0), Sampling(**sampling)
    for _ in continued(model, [row], tokens=count, rule=rule, rng=generator(rng), ends=ends):
        if speech.hear(row):
            break
    return speech.end(row[:-1] if row[-1] in ends else row)
