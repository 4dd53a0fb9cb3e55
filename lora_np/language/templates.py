"""Format conversations with a model's own chat template, which jinja2 renders in a sandbox.

The conventions are those of transformers, for which templates are written.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from lora_np.checks import Array, needed, shown
from lora_np.files import Json
from lora_np.language.vocabulary import Vocabulary

if TYPE_CHECKING:
    import jinja2

    from lora_np.language.template_sandbox import TemplateSandbox

Messages = Sequence[Mapping[str, Json]]
MARKED = re.compile(r"\{%-?\s*generation\s*-?%\}")  # the tag before text that the model generates
# names of the field with the model's reasoning, which differ between models
REASONING = ("reasoning_content", "thinking", "reasoning")


class Template:
    """The chat template of a vocabulary.

    Parameters
    ----------
    vocabulary : Characters or Subwords
        A vocabulary with the template among its files.

    Raises
    ------
    ValueError
        If there is no template, or jinja2 cannot read it.
    ImportError
        If jinja2 is not installed.

    Examples
    --------
    >>> from lora_np.language import Characters
    >>> source = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
    >>> letters = Characters("abc", {"chat_template.jinja": source.encode()})
    >>> Template(letters).render([{"role": "user", "content": "ab"}])
    '<user>ab'
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        source = vocabulary.chat_template()
        if not isinstance(source, str):
            raise ValueError(
                "this model has no chat template (in tokenizer_config.json, chat_template.jinja or"
                " GGUF) and none is invented: take an instruction-tuned model, or data of prompts"
                " and completions"
            )
        self.vocabulary = vocabulary
        self.marked = MARKED.search(source) is not None
        self.compiled, self.sandbox = compiled(source)

    def render(self, messages: Messages, *, add_generation_prompt: bool = False) -> str:
        """Render a conversation as text; afterwards ``self.sandbox.spans`` has the marked parts."""
        if isinstance(messages, str | Mapping) or not all(isinstance(m, Mapping) for m in messages):
            raise TypeError(
                f"messages must be a list of objects with role and content, got {shown(messages)}"
            )
        told = [complete(message) for message in messages]
        self.sandbox.renew(told)
        blocks = self.sandbox.blocks
        options = {"tools": None, "documents": None, "add_generation_prompt": add_generation_prompt}
        try:
            for block in self.compiled.generate(
                messages=told, **options, **self.vocabulary.special
            ):
                blocks.append(block)
        except Exception as error:  # a template may raise any exception
            raise ValueError(f"the chat template does not take these messages: {error}") from None
        return "".join(blocks)

    def tokens(self, messages: Messages, **options: bool) -> Array:
        """Encode a conversation without adding BOS, because the template adds it."""
        return self.vocabulary.encode(self.render(messages, **options), special=False)

    def labelled(self, messages: Messages, first: int = 0) -> tuple[Array, Array, int]:
        """Encode a conversation, and mark the tokens that the model should produce.

        Parameters
        ----------
        messages : sequence of mapping
            The conversation.
        first : int
            The index of the first message to learn from.

        Returns
        -------
        tokens : ndarray of int, shape (n,)
        answer : ndarray of bool, shape (n,)
            True for the text that the template marks by ``{% generation %}``. If it has no such
            tag, True for the tokens of each answer of the assistant, without the generation prompt
            before it.
        left : int
            The number of answers without labels, because the template rewrites them when further
            messages follow.
        """
        text = self.render(messages)
        spans = list(self.sandbox.spans)
        tokens, places = self.vocabulary.cut(text)
        answer, left = np.zeros(len(tokens), bool), 0
        if self.marked:
            for begin, end in spans:
                answer |= (places[:, 0] < end) & (places[:, 1] > begin)
            answer[: self.prompt(messages[:first], tokens)] = False
            return tokens, answer, left
        for i in range(first, len(messages)):
            if messages[i]["role"] == "assistant":
                said = self.render(messages[: i + 1])
                upto = self.vocabulary.encode(said, special=False)
                end = shared(upto, tokens)
                if text.startswith(said):  # its last tokens may differ, where more text follows
                    end = int(np.sum(places[:, 0] < len(said)))
                elif not self.vocabulary.specials.issuperset(upto[end:].tolist()):
                    left += 1
                    continue
                answer[self.prompt(messages[:i], tokens) : end] = True
        return tokens, answer, left

    def prompt(self, messages: Messages, tokens: Array) -> int:
        """Count the leading ``tokens`` that come from ``messages`` and the generation prompt."""
        return shared(self.tokens(messages, add_generation_prompt=True), tokens) if messages else 0


@functools.lru_cache(maxsize=8)
def compiled(source: str) -> tuple[jinja2.Template, TemplateSandbox]:
    """Compile a template, and return it with its sandbox."""
    needed("jinja2", extra="language", why="chat templates need the library jinja2")
    from jinja2 import TemplateError

    from lora_np.language.template_sandbox import TemplateSandbox

    sandbox = TemplateSandbox()
    try:
        return sandbox.from_string(sandbox.compiled(source)), sandbox
    except (TemplateError, ValueError, SyntaxError, RecursionError, MemoryError) as error:
        raise ValueError(f"the chat template cannot be read: {error}") from None


def complete(message: Mapping[str, Json]) -> dict[str, Json]:
    """Drop a message's null fields, and store its reasoning under both names that templates use."""
    known: dict[str, Json] = {name: v for name, v in message.items() if v is not None}
    thoughts = next((known[name] for name in REASONING if name in known), None)
    return (
        known
        if thoughts is None
        else {"thinking": thoughts, **known, "reasoning_content": thoughts}
    )


def shared(one: Array, other: Array) -> int:
    """Return the length of the longest common prefix of two token sequences."""
    n = min(len(one), len(other))
    return int(np.argmin(np.append(one[:n] == other[:n], False)))
