"""The page that lists how every language model of transformers is counted, against transformers and PEFT."""

from __future__ import annotations

import pytest

from docs import causal
from lora_np.accounting.checkpoint import kinds_by_type
from tests.drawing import twentieth

ROWS = causal.written()


def test_every_row_says_one_of_three_things_and_a_refusal_says_why() -> None:
    assert len(ROWS) > 200
    for kind, (found, why) in ROWS.items():
        assert found in (causal.EXACT, causal.HEADERS, causal.REFUSED), kind
        assert why or found != causal.REFUSED, kind
        assert (kind in kinds_by_type()) == (found != causal.EXACT and not why.startswith("not checked")), (
            kind
        )


@pytest.mark.peers
def test_the_page_has_every_type() -> None:
    assert ROWS.keys() == causal.types().keys(), "run python -m docs.causal"


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", twentieth(ROWS))
def test_a_row_of_the_page_holds(kind: str) -> None:
    try:
        model = causal.build(kind)
    except Exception as error:
        model = error
    assert causal.row(kind, model) == ROWS[kind], "run python -m docs.causal"
    if kind in kinds_by_type() and ROWS[kind][0] == causal.HEADERS:
        assert causal.kinds_of(model) == kinds_by_type()[kind]
