"""Watch how many tokens a decoder is given."""

from lora_np.language.decoder import Decoder


def tokens_read(monkeypatch):
    """List the number of tokens of each call of a decoder from now on."""
    numbers, run = [], Decoder.__call__

    def watched(self, tokens, **options):
        numbers.append(tokens.shape[1])
        return run(self, tokens, **options)

    monkeypatch.setattr(Decoder, "__call__", watched)
    return numbers
