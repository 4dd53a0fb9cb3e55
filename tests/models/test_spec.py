"""What each parameter of each family belongs to, against transformers: kind, storage, and names in
checkpoints.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from docs._ext.causal import save_headers
from lora_np.models import open_model
from lora_np.models.sources import from_named_modules
from tests.drawing import twentieth
from tests.laws.test_models_family_cases import built
from tests.models import family_cases, test_families

CASES = [*test_families.CASES, *family_cases.CASES]
# one case of each family and task: what differs between those of one is numbers
FIRST = {(family, task): fields for family, task, fields in reversed(CASES)}


def kind_in_torch(holder: Any, name: str, tensor: Any) -> tuple[str, bool]:
    """What a parameter is by the class that holds it, and whether it has inputs before outputs."""
    import torch
    from transformers.pytorch_utils import Conv1D

    if tensor.ndim == 3 and type(holder).__name__.endswith("Experts"):
        return "experts", bool(getattr(holder, "is_transposed", False))
    if name not in ("weight", "bias"):
        return "parameter", False
    if isinstance(holder, (torch.nn.Linear, Conv1D)):
        return "linear", isinstance(holder, Conv1D)
    if isinstance(holder, torch.nn.Embedding):
        return "embedding", False
    if isinstance(holder, torch.nn.modules.conv._ConvNd):
        return "convolution", False
    if type(holder).__name__.endswith("Router"):
        return "router", False
    weight = getattr(holder, "weight", None)
    norm = weight is not None and (weight.ndim == 1 or type(holder).__name__.endswith("Norm"))
    return "norm" if norm else "parameter", False


def kinds_of(model: Any) -> dict[str, tuple[str, bool]]:
    return {
        f"{path}.{name}" if path else name: kind_in_torch(holder, name, tensor)
        for path, holder in model.named_modules()
        for name, tensor in holder.named_parameters(recurse=False)
    }


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("family", "task"),
    twentieth(FIRST),
    ids=lambda each: str(each),
)
def test_each_parameter_of_a_checkpoint_is_what_transformers_makes_of_it(
    family: str, task: str, tmp_path: Path
) -> None:
    model = built(family, task, FIRST[family, task])
    save_headers(model, tmp_path)
    found = open_model(tmp_path)
    theirs = kinds_of(model)
    tied = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    tied -= {name for name, _ in model.named_parameters()}
    assert found.described is not None
    assert {*found.parameters} <= {*theirs, *dict(model.named_buffers())}
    # which transformers splits or joins
    assert set(theirs) - tied <= {*found.parameters} or found.unread
    for name in found.parameters.keys() & theirs.keys():
        module = found.module_of(name)
        assert (module.kind, module.transposed) == theirs[name], name
    # which of two modules owns a weight, the order in the class says there
    again = from_named_modules(model)
    shared, ours = (
        sorted(each.shape for each in spec.modules if each.tied)
        for spec in (again, found.described)
    )
    assert ours == shared
