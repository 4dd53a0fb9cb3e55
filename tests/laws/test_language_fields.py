"""The law of fields: each moves our logits as transformers', or is refused by name."""

import copy
import dataclasses

import numpy as np
import pytest

from lora_np import language
from lora_np.models import family_names, family_of
from tests.drawing import few
from tests.language.field_cases import NOT_READ, VALUES, base_of, cases_of, changed
from tests.rounding import array, assert_as_near, error, torch_in_double

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore")]

RUNNING = [name for name in family_names() if family_of(name).tables["runs"]]
NEAR = 2e-5  # of two results in float32; what is farther apart is judged from float64
TOKENS = np.random.default_rng(1).integers(0, 37, (2, 29))


def fields_of(family):
    return [field.name for field in dataclasses.fields(transformers.CONFIG_MAPPING[family])]


def peer(config):
    """A model of transformers with random weights, norms and biases included; None if refused."""
    torch.manual_seed(0)
    try:
        made = transformers.CONFIG_MAPPING[config["model_type"]].from_dict(copy.deepcopy(config))
        experts = {"experts_implementation": "eager"} if "num_experts_per_tok" in config else {}
        model = transformers.AutoModelForCausalLM.from_config(made, **experts).float().eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.normal_(0, 0.3)
            model(torch.tensor(TOKENS))
    except Exception:
        return None
    return model


def outcome(family, changes):
    """What becomes of a config with these changes: "refused by transformers", "refused", "same"."""
    config = changed(base_of(family), changes)
    theirs = peer(config)
    if theirs is None:
        return "refused by transformers"
    weights = {name: array(tensor) for name, tensor in theirs.state_dict().items()}
    try:
        ours = language.build(config, weights.get)
    except (TypeError, ValueError) as refused:
        inner = [key for value in changes.values() if isinstance(value, dict) for key in value]
        if not any(name in str(refused) for name in (*changes, *inner)):
            raise AssertionError(f"refused, but not by name: {refused}") from refused
        return "refused"
    with torch.no_grad():
        expected = theirs(torch.tensor(TOKENS)).logits
        found = ours(TOKENS)
        if not error(found, expected) < NEAR:
            exact = torch_in_double(theirs)(torch.tensor(TOKENS)).logits
            assert_as_near(found, expected, exact)
    return "same"


@pytest.mark.parametrize("family", RUNNING)
def test_every_field_has_values(family):
    assert {*fields_of(family)} <= {*VALUES, *NOT_READ}


@pytest.mark.parametrize("family", RUNNING)
def test_a_field_moves_logits_as_in_transformers_or_is_refused_by_name(family):
    wrong, seen = [], set()
    for changes in few(cases_of(fields_of(family)), 100):
        try:
            seen.add(outcome(family, changes))
        except AssertionError as failed:
            wrong.append((changes, str(failed).splitlines()[:2]))
    assert not wrong, f"{len(wrong)}: {wrong[:5]}"
    assert "same" in seen
