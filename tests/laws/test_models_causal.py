"""The page that lists how every language model of transformers is counted, against transformers and
PEFT.
"""

from __future__ import annotations

import json
import re
from math import prod
from pathlib import Path

import numpy as np
import pytest

from docs._ext import causal
from lora_np.files import FileError
from lora_np.hub import safetensors
from lora_np.models import from_safetensors
from lora_np.models.headers import kinds_by_type
from tests.drawing import every, twentieth

ROWS = causal.written()


def test_every_row_says_one_of_four_things_and_a_refusal_says_why() -> None:
    assert len(ROWS) > 200
    for kind, (found, why) in ROWS.items():
        assert found in (causal.EXACT, causal.HEADERS, causal.REFUSED, causal.UNCHECKED), kind
        assert bool(why) == (found in (causal.REFUSED, causal.UNCHECKED)), kind
        assert (kind in kinds_by_type()) == (found in (causal.HEADERS, causal.REFUSED)), kind


@every("kind", [kind for kind, (found, _) in ROWS.items() if found != causal.EXACT])
def test_the_package_counts_or_refuses_as_its_row_says(tmp_path: Path, kind: str) -> None:
    found, why = ROWS[kind]
    kinds = kinds_by_type().get(kind, {})
    names = [] if isinstance(kinds, str) else [f"model.layers.0.{name}" for name in kinds]
    shapes = {name: (2, 3, 5) for name in names if kinds[name[15:]] == "experts"}
    shapes |= {
        f"{name}.weight": (3, 5) for name in names if kinds[name[15:]] not in ("buffer", "experts")
    }
    # a matrix whose bias has another shape
    shapes |= {"model.layers.0.odd.weight": (4, 5), "model.layers.0.odd.bias": (4, 5)}
    buffers = {name: (7,) for name in names if kinds[name[15:]] == "buffer"}
    save(tmp_path, kind, shapes | buffers)
    if found == causal.REFUSED:
        assert kinds == why
        with pytest.raises(
            FileError, match=f"headers do not tell the modules of a {re.escape(kind)} model: "
        ):
            from_safetensors(tmp_path)
        return
    spec = from_safetensors(tmp_path)
    assert spec.total == sum(prod(shape) for shape in shapes.values())
    assert ("models in transformers" in spec.assumed) == (found == causal.HEADERS)


def save(folder: Path, kind: str, shapes: dict[str, tuple[int, ...]]) -> None:
    arrays = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    safetensors.save(arrays, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"model_type": kind}))


@pytest.mark.peers
def test_the_page_has_every_type() -> None:
    types = causal.types().keys()
    # a newer release may have more types, which the page has once it is made again
    known = types & ROWS.keys() if causal.is_newer() else types
    assert ROWS.keys() == known, "run python -m docs._ext.causal"


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", twentieth(ROWS))
def test_a_row_of_the_page_holds(kind: str) -> None:
    try:
        model = causal.build(kind)
    except Exception as error:
        model = error
    assert causal.row(kind, model) == ROWS[kind], "run python -m docs._ext.causal"
    if kind in kinds_by_type() and ROWS[kind][0] == causal.HEADERS:
        assert causal.kinds_of(model) == kinds_by_type()[kind]
