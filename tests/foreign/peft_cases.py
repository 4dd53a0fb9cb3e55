"""A pytest plugin: each LoRA that PEFT's tests build is saved by PEFT, and this package is held
against PEFT on it.

With ``CASES_FULL=1`` every test runs to its end; otherwise it ends where it has built one model.
"""

import copy
import importlib.machinery
import importlib.util
import json
import os
import re
import sys
import tempfile
import warnings
from pathlib import Path
from unittest.mock import MagicMock

import numpy as np
import peft
import pytest
import torch
import transformers  # noqa: F401  (looks for what is stubbed below)
from peft.tuners.lora.variants import BdLoraLinearVariant, BlockDiagonalLinear
from safetensors.torch import save_file

from lora_np import adapters
from lora_np.files import FileError
from lora_np.hub import safetensors

# Imported by PEFT's tests for parts that are not run here.
for module in ("datasets", "diffusers", "parameterized", "torchvision"):
    if importlib.util.find_spec(module) is None:
        sys.modules[module] = MagicMock(__spec__=importlib.machinery.ModuleSpec(module, None))

FULL = os.environ.get("CASES_FULL") == "1"
SAYS_NOTHING = {  # of what is computed
    "auto_mapping", "base_model_name_or_path", "inference_mode", "peft_version", "revision", "task_type"
}  # fmt: skip
WEIGHTS = (0.75, -0.5)
COPY = re.compile(r"\.(modules_to_save|original_module)(?=\.)")
FACTORS = ("lora_A", "lora_embedding_A")
cases = {}  # by what they are: a record of each
judging = False
build = peft.PeftModel.__init__


def built(self, model, peft_config, adapter_name="default", **options):
    """`PeftModel.__init__`; a new model is judged by the way."""
    global judging
    if judging or type(peft_config) is not peft.LoraConfig:  # AdaLoRA is one too, by inheritance
        return build(self, model, peft_config, adapter_name, **options)
    said = {
        key: content for key, content in peft_config.to_dict().items() if key not in SAYS_NOTHING
    }
    shapes = [(name, tuple(parameter.shape)) for name, parameter in model.named_parameters()]
    key = repr((type(model).__name__, shapes, sorted((k, repr(v)) for k, v in said.items())))
    before, config = copy.deepcopy(model), copy.deepcopy(peft_config)
    build(self, model, peft_config, adapter_name, **options)
    if key not in cases:
        judging = True
        cases[key] = record = {"test": os.environ["PYTEST_CURRENT_TEST"].split(" ")[0]}
        try:
            with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(action="ignore"):
                record |= outcome(before, config, Path(folder))
        finally:
            judging = False
    if not FULL:
        pytest.skip("the model is built")
    return None


peft.PeftModel.__init__ = built


def pytest_collection_modifyitems(items):
    """Leave out what is about other methods than LoRA."""

    def other(item):
        kinds = (getattr(item, "callspec", None) and item.callspec.params.values()) or ()
        return any(
            isinstance(kind, type)
            and issubclass(kind, peft.PeftConfig)
            and kind is not peft.LoraConfig
            for kind in kinds
        )

    items[:] = [item for item in items if not other(item)]


def pytest_sessionfinish():
    Path(os.environ["CASES_TO"]).write_text(json.dumps(list(cases.values())))


def outcome(base, config, folder):
    """What is wrong with one case, or why it is refused."""
    model, other = (
        saved_model(base, config, folder / name, seed) for seed, name in enumerate(("one", "two"))
    )
    try:
        ours = adapters.load(folder / "one")
    except FileError as error:
        return {"refused": str(error)}
    judges = {
        "updates": lambda: updates_agree(model, ours),
        "count": lambda: count_agrees(model, ours),
        "merge": lambda: merge_agrees(base, model, folder),
        "sum": lambda: sum_agrees(base, config, model, other, folder),
        "rewrite": lambda: rewrite_agrees(base, model, folder),
        "resize": lambda: resize_agrees(base, folder),
    }
    said = {}
    for name, judge in judges.items():
        try:
            said[name] = judge() or "equal"
        except AssertionError as error:
            said[name] = f"WRONG: {str(error)[:600]}"
        except Exception as error:
            said[name] = f"WRONG: {type(error).__name__}: {str(error)[:600]}"
    return said


def saved_model(base, config, path, seed):
    """A PEFT model with random numbers in all that is trained, and its directory."""
    model = peft.get_peft_model(copy.deepcopy(base), copy.deepcopy(config))
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            new = torch.randn(parameter.shape, generator=generator) / 4
            parameter.data = (new.abs() + 0.5 if "magnitude" in name else new).to(parameter.dtype)
    model.save_pretrained(path)
    return model


def layers_of(model):
    """PEFT's layers by our names."""
    found = {}
    for path, layer in model.base_model.model.named_modules():
        if not any(len(getattr(layer, factors, ())) for factors in FACTORS):
            continue
        parameter = getattr(layer, "parameter_name", None)
        path = ".".join(segment for segment in path.split(".") if segment != "base_layer")
        found[f"{path}.{parameter}" if parameter else path] = layer
    return found


def delta_of(layer):
    """The update as PEFT has it, outputs by inputs."""
    if getattr(layer.get_base_layer(), "groups", 1) > 1:
        return delta_in_groups(layer)
    variant = layer.lora_variant.get("default")
    if isinstance(variant, BdLoraLinearVariant):  # the ordinary way does not know how it is stored
        return variant._get_bdlora_delta_weight(layer, "default").detach().double().numpy()
    delta = layer.get_delta_weight("default").detach().double().numpy()
    embedding = len(layer.lora_embedding_A) > 0
    flipped = getattr(layer, "num_experts", 1) > 1 and not layer._did_swap_in_out_features
    return (
        delta.swapaxes(-1, -2)
        if embedding or getattr(layer, "fan_in_fan_out", False) or flipped
        else delta
    )


def delta_in_groups(layer):
    """What PEFT cannot say as a weight: the response of its two convolutions to each input
    alone.
    """
    A, B = layer.lora_A["default"], layer.lora_B["default"]
    sizes = (2 * size - 1 for size in A.kernel_size)
    impulses = torch.zeros(A.in_channels, A.in_channels, *sizes, dtype=A.weight.dtype)
    for i in range(A.in_channels):
        impulses[(i, i, *(size - 1 for size in A.kernel_size))] = 1
    first = type(A)(A.in_channels, A.out_channels, A.kernel_size, bias=False)
    first.weight.data = A.weight.data
    response = B(first(impulses)) - (0 if B.bias is None else B(torch.zeros_like(first(impulses))))
    flipped = response.flip(tuple(range(2, response.ndim))).transpose(0, 1)
    return layer.scaling["default"] * flipped.detach().numpy()


def in_double(model):
    return copy.deepcopy(model).double()


def close(ours, theirs, exact, what):
    """As tests/rounding.py has it, which cannot be imported here: PEFT's own tests are `tests`."""
    unit = float(np.finfo(np.float32).eps) * float(np.linalg.norm(exact))
    error, peers = (float(np.linalg.norm(found - exact)) for found in (ours, theirs))
    assert peers <= 1000 * unit, f"{what}: PEFT computes something else in float64"
    assert error <= max(16 * unit, 2 * peers), f"{what}: {error / unit:.1f} units off"


def updates_agree(model, ours):
    layers = layers_of(model)
    assert layers.keys() == ours.keys(), f"PEFT adapts {sorted(layers)}, read {sorted(ours)}"
    wide = layers_of(in_double(model))
    for name, layer in layers.items():
        close(ours.delta(name), delta_of(layer), delta_of(wide[name]), name)


def count_agrees(model, ours):
    state = peft.get_peft_model_state_dict(model)
    names = {COPY.sub("", key): tensor for key, tensor in state.items()}  # some biases thrice
    theirs = sum(tensor.numel() for tensor in names.values())
    assert f"{theirs:,} parameters" in repr(ours), f"PEFT saves {theirs:,} parameters, {ours}"


def as_numpy(model):
    return {name: tensor.detach().double().numpy() for name, tensor in model.state_dict().items()}


def merge_agrees(base, model, folder):
    state = {name: tensor.clone().contiguous() for name, tensor in base.state_dict().items()}
    (folder / "base").mkdir()
    save_file(state, folder / "base" / "model.safetensors", metadata={"format": "pt"})
    try:
        theirs = copy.deepcopy(model).merge_and_unload()
    except Exception as error:
        with pytest.raises(FileError):
            adapters.merge(folder / "base", folder / "one", folder / "merged")
        return f"refused by both: PEFT says {str(error)[:100]}"
    adapters.merge(folder / "base", folder / "one", folder / "merged")
    file = safetensors.open(folder / "merged" / "model.safetensors")
    theirs, exact = as_numpy(theirs), as_numpy(in_double(model).merge_and_unload())
    assert theirs.keys() == file.tensors.keys()
    for name, tensor in theirs.items():
        close(file.read(name), tensor, exact[name], name)
    return None


def sum_agrees(base, config, model, other, folder):
    try:
        adapters.combine(
            [folder / "one", folder / "two"], folder / "sum", weights=WEIGHTS, method="cat"
        )
    except FileError as error:
        if "magnitudes" not in str(error) and "replaces" not in str(error):
            raise
        return f"refused: {str(error).partition(': ')[2][:100]}"
    ours = adapters.load(folder / "sum")
    theirs, exact = (
        {
            name: WEIGHTS[0] * delta_of(one) + WEIGHTS[1] * delta_of(two)
            for (name, one), two in zip(
                layers_of(first).items(), layers_of(second).values(), strict=True
            )
        }
        for first, second in ((model, other), (in_double(model), in_double(other)))
    )
    for name in theirs:
        close(ours.delta(name), theirs[name], exact[name], name)
    return None


def opened(base, path):
    """The model with an adapter of ours, if PEFT reads all of it."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        model = peft.PeftModel.from_pretrained(copy.deepcopy(base), path)
    said = [str(warning.message) for warning in said]
    assert not any("missing" in text.lower() or "unexpected" in text.lower() for text in said), said
    return model


def in_full(model):
    """What PEFT saves, with block-diagonal factors as the matrices that they are: those we
    write.
    """
    saved = peft.get_peft_model_state_dict(model)
    for path, factor in model.named_modules():
        if isinstance(factor, BlockDiagonalLinear):
            saved[f"{path.removesuffix('.default')}.weight"] = (
                factor.weight_as_blockdiagonal_matrix()
            )
    return saved


def rewrite_agrees(base, model, folder):
    adapters.save(adapters.load(folder / "one"), folder / "again")
    theirs, ours = (in_full(m) for m in (model, opened(base, folder / "again")))
    assert theirs.keys() == ours.keys(), f"PEFT has {sorted(theirs)}, and of ours {sorted(ours)}"
    for name, tensor in theirs.items():
        assert torch.equal(tensor, ours[name]), name


def resize_agrees(base, folder):
    module = next(iter(adapters.load(folder / "one").values()), None)
    if module is None:
        return "nothing to resize"
    adapters.resize(folder / "one", folder / "small", total_rank=10**6)
    adapters.resize(folder / "one", folder / "small", rank=max(1, module.rank // 2), force=True)
    updates_agree(opened(base, folder / "small"), adapters.load(folder / "small"))
    return None
