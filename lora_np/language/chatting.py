"""Chat with a model, keeping the key-value cache between turns."""

from __future__ import annotations

from collections.abc import Mapping

from lora_np.checks import configured
from lora_np.files import Json
from lora_np.language.decoder import LanguageModel, vocabulary_of
from lora_np.language.generation import Reader, Sampling, continued
from lora_np.language.templates import Messages, Template


class Chat:
    """A conversation with a model, which keeps the key-value cache between turns.

    Parameters
    ----------
    model : LanguageModel
        A model with a chat template.
    messages : sequence of mapping
        The beginning of the conversation, such as a system message.

    Attributes
    ----------
    messages : list of mapping
        The conversation so far, each message with ``role`` and ``content``; it may be changed.

    Raises
    ------
    ValueError
        If the model has no chat template.
    ImportError
        If jinja2 is not installed.

    See Also
    --------
    answer : Generate one answer without keeping the conversation.

    Examples
    --------
    >>> from dataclasses import replace
    >>> from lora_np import language
    >>> austen = language.load("austen")
    >>> files = {"chat_template.jinja": b"{% for m in messages %}{{ m.content }}{% endfor %}"}
    >>> characters = language.Characters(austen.vocabulary.characters, files)
    >>> chat = Chat(replace(austen, vocabulary=characters))
    >>> chat.ask("It is a truth ", tokens=20, temperature=0)
    'to be a great deal o'
    >>> len(chat.messages)
    2
    """

    def __init__(self, model: LanguageModel, messages: Messages = ()) -> None:
        self.messages: list[Mapping[str, Json]] = [*messages]
        self.switch(model)

    def switch(self, model: LanguageModel) -> None:
        """Continue with another model, such as the same model with an adapter.

        Parameters
        ----------
        model : LanguageModel
            A model with a chat template.
        """
        self.template = Template(vocabulary_of(model))
        self.model, self.reader = model, Reader(model)

    @configured(Sampling)
    def ask(self, question: str, settings: Sampling) -> str:
        """Ask a question, append it and the model's answer to ``messages``, and return the answer.

        Ctrl-C ends the answer early.

        Parameters
        ----------
        question : str
            The next message of the user.
        **settings
            The settings of `generate`.

        Returns
        -------
        str
            The answer.

        Raises
        ------
        ValueError
            If the template does not take the messages, or a setting is out of range.
        """
        messages = [*self.messages, {"role": "user", "content": question}]
        row = self.template.tokens(messages, add_generation_prompt=True).tolist()
        begins = len(row)
        try:
            text = continued(self.model, [row], settings, self.reader)[0].end()
        except KeyboardInterrupt:
            text = vocabulary_of(self.model).decode(row[begins:])
            # drop the answer from the cache, because Ctrl-C may have stopped the model before all
            # layers had cached the last token
            self.reader.rows = [row[:begins]] if len(row) > begins else []
        self.messages = [*messages, {"role": "assistant", "content": text}]
        return text
