"""The project: six steps in one file, each on the student's own or on the package's, up to a file
that PEFT reads.
"""

import numpy as np
import pytest

import lora_np as lnp
from lora_np import adapters
from lora_np.exercises import HEADER, SEEDS, judge, lessons, run_cell, solution
from lora_np.exercises.catalogue import code_in
from lora_np.exercises.handouts import script
from lora_np.exercises.testing import local_caller
from lora_np.hub import located
from lora_np.language import load
from tests.drawing import FULL, few
from tests.rounding import assert_as_near, torch_in_double

# BLAS sometimes raises this flag for finite matrices of odd shapes; a learner sees no warning
pytestmark = pytest.mark.filterwarnings("ignore:invalid value encountered in matmul")

PROJECT = lessons()[-1]
TEXT = "It is a truth, that a rank is a number; and that a number is not always a rank. " * 40
REFERENCES = {"project_tensor": "Tensor", "project_linear": "Linear", "project_lora": "LoRA"}
OURS = {"Tensor": "lnp.Tensor", "Linear": "lnp.Linear", "LoRA": "lnp.LoRALinear"}


def whole_file(instead="", borrowed=()):
    """All steps one after the other, with these lines in place of the classes of some, and the
    end.
    """
    names = {"__name__": "submission"}
    for one in PROJECT.exercises:
        assert run_cell(HEADER + "\n" + solution(one.name).code, one.name, names) == ""
        if one.name in borrowed:
            assert run_cell(instead, one.name, names) in ("", "NameError")
    assert run_cell(code_in(PROJECT.closing), "the end", names) == ""
    return names


def test_the_file_has_every_step_and_its_end():
    text = script(PROJECT)
    places = [text.index(one.stub) for one in PROJECT.exercises]
    assert places == sorted(places)
    assert text.index(code_in(PROJECT.closing).strip()) > places[-1]
    compile(text, "project", "exec")


@pytest.mark.parametrize("name", few(REFERENCES, 2))
def test_steps_may_use_the_package_and_earn_nothing_for_it(name):
    """All steps up to this one are the package's; the others are one's own, and pass."""
    borrowed = list(REFERENCES)[: list(REFERENCES).index(name) + 1]
    lines = [f"{REFERENCES[step]} = {OURS[REFERENCES[step]]}" for step in borrowed]
    namespace = whole_file("\n".join(lines), borrowed)
    for one in PROJECT.exercises:
        if one.name == "project_training" and not FULL:
            continue  # long, and its laws are held by test_catalogue.py
        result = judge(one, local_caller(namespace[one.name]), SEEDS[:1], smallest=False)
        if one.name in borrowed:
            assert result.points < one.points, result
            assert "is not allowed in this exercise" in result.message
        else:
            assert result.passed, result


def test_ones_own_lora_adapts_the_terrain():
    before, after = whole_file()["terrain"]()
    assert after < 0.9 * before


def written(folder):
    names = whole_file()
    before, after = names["language"](TEXT, folder, steps=60 if FULL else 25)
    assert after < before - 0.3
    return names


@pytest.mark.slow
def test_ones_own_lora_adapts_a_language_model_and_the_package_reads_its_file(tmp_path):
    written(tmp_path / "own")
    assert "4" in str(adapters.inspect(tmp_path / "own").table)


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")
def test_peft_reads_what_ones_own_code_wrote(tmp_path):
    torch, peft, transformers = map(pytest.importorskip, ("torch", "peft", "transformers"))
    written(tmp_path / "own")
    base = load("austen")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        located("austen"), dtype=torch.float32
    ).eval()
    theirs = peft.PeftModel.from_pretrained(theirs, tmp_path / "own").eval()
    ids = base.vocabulary.encode("It is a truth, that")[None]
    with torch.no_grad():
        said = theirs(torch.tensor(ids)).logits.numpy()
        exact = torch_in_double(theirs)(torch.tensor(ids)).logits
    ours = adapters.attach(base, adapters.load(tmp_path / "own"))
    assert_as_near(ours(ids), said, exact)
    assert np.abs(lnp.value(base(ids)) - said).max() > 0.1
