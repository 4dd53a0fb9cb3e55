"""Models from the headers of checkpoints, which are not believed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from lora_np.accounting import count_model, model_spec
from lora_np.hub import safetensors
from lora_np.models import from_safetensors
from tests.models.test_families import CASES


def shapes_of(path: Path, shapes: dict[str, tuple[int, ...]]) -> Path:
    safetensors.save({name: np.zeros(shape, np.float16) for name, shape in shapes.items()}, path)
    return path


TINY = {
    "model.embed_tokens.weight": (11, 6),
    "model.layers.0.q_proj.weight": (4, 6),
    "model.layers.0.q_proj.bias": (4,),
    "model.layers.1.q_proj.weight": (4, 6),
    "model.layers.1.q_proj.bias": (4,),
    "model.norm.weight": (6,),
    "conv.weight": (5, 3, 2, 2),
    "position": (1, 7, 6),
    "lm_head.weight": (11, 6),
}


def test_a_checkpoint_is_counted_from_its_header(tmp_path: Path) -> None:
    spec = model_spec(shapes_of(tmp_path / "model.safetensors", TINY))
    assert spec.total == sum(int(np.prod(shape)) for shape in TINY.values())
    kinds = {module.name: module.kind for module in spec.modules}
    assert kinds == {
        "model.embed_tokens": "embedding",
        "model.layers.0.q_proj": "linear",
        "model.layers.1.q_proj": "linear",
        "model.norm": "norm",
        "conv": "convolution",
        "position": "parameter",
        "lm_head": "linear",
    }
    assert count_model(spec, rank=2, targets="all-linear").trainable == 2 * 2 * 10
    without = count_model(spec, rank=2)
    assert without.trainable == 2 * 2 * 10
    assert "no default targets" in without.notes[0]


def test_a_transposed_map_is_known_by_its_bias(tmp_path: Path) -> None:
    path = shapes_of(
        tmp_path / "gpt2.safetensors", {"c_attn.weight": (6, 18), "c_attn.bias": (18,)}
    )
    (module,) = from_safetensors(path).modules
    assert module.shape == (18, 6)


def test_a_bias_of_another_shape_is_counted_whole(tmp_path: Path) -> None:
    shapes = {
        "q_norm.weight": (4, 6),  # a norm of each head
        "q_norm.bias": (4, 6),
        "up.weight": (3, 5, 2),  # a transposed convolution
        "up.bias": (5,),
        "norm.weight": (6,),
        "norm.bias": (1,),
        "scale.weight": (),
        "scale.bias": (2,),
    }
    spec = from_safetensors(shapes_of(tmp_path / "odd.safetensors", shapes))
    assert spec.total == sum(int(np.prod(shape)) for shape in shapes.values())
    assert {module.kind for module in spec.modules} == {"parameter"}
    with pytest.raises(ValueError, match="has no linear"):
        count_model(spec, rank=2, targets="all-linear")


def test_names_with_braces_and_odd_numbers_are_kept(tmp_path: Path) -> None:
    names = {
        "a.{}.weight": (2, 3),
        "a.{x.weight": (2, 3),
        "l.007.weight": (2, 3),
        "l.8.weight": (2, 3),
    }
    spec = from_safetensors(shapes_of(tmp_path / "odd.safetensors", names))
    assert {f"{module.name}.weight" for module in spec.modules} == set(names)
    assert count_model(spec, rank=1, targets=["l.007"]).trainable == 5


def sharded(directory: Path, weight_map: dict[str, str]) -> Path:
    shapes_of(directory / "a.safetensors", {"x.weight": (2, 3)})
    shapes_of(directory / "b.safetensors", {"y.weight": (4, 5)})
    index = directory / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    return index


def test_a_sharded_directory(tmp_path: Path) -> None:
    index = sharded(tmp_path, {"x.weight": "a.safetensors", "y.weight": "b.safetensors"})
    assert model_spec(tmp_path).total == model_spec(index).total == 26


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("../a.safetensors", "must be a plain name inside the directory"),
        ("/etc/passwd", "has tensors, but only safetensors can"),
        ("sub/a.safetensors", "must be a plain name inside the directory"),
        ("..\\\\a.safetensors", "must be a plain name inside the directory"),
        ("..", "has tensors, but only safetensors can"),
        ("", "has tensors, but only safetensors can"),
        ("c.safetensors", "no such file"),
        ("b.safetensors", "says that 'x.weight' is in b.safetensors, but it is not"),
    ],
)
def test_an_index_is_not_believed(tmp_path: Path, file: str, message: str) -> None:
    sharded(tmp_path, {"x.weight": file})
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        model_spec(tmp_path)


def test_an_index_without_a_map(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": ["a"]}')
    with pytest.raises(ValueError, match="weight_map must map"):
        model_spec(tmp_path)


def test_a_truncated_or_lying_header(tmp_path: Path) -> None:
    path = shapes_of(tmp_path / "model.safetensors", TINY)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) - 2])
    with pytest.raises(ValueError, match="not a valid safetensors file"):
        model_spec(path)
    path.write_bytes((2**40).to_bytes(8, "little") + content[8:])
    with pytest.raises(ValueError, match="not a valid safetensors file"):
        model_spec(path)
    path.write_bytes(content.replace(b"[11,6]", b"[12,6]"))
    with pytest.raises(ValueError, match="not a valid safetensors file"):
        model_spec(path)


@pytest.mark.peers
@pytest.mark.parametrize("family", ["llama", "gpt2", "vit"])
def test_a_saved_checkpoint_has_the_configs_size(tmp_path: Path, family: str) -> None:
    import torch
    import transformers

    fields = next(fields for name, _, fields in CASES if name == family)
    config = transformers.AutoConfig.for_model(family, **fields)
    model = transformers.AutoModel.from_config(config)
    model.save_pretrained(tmp_path)
    spec = from_safetensors(tmp_path)
    assert spec.total == sum(p.numel() for p in model.parameters())
    linear = [
        m for m in model.modules() if isinstance(m, torch.nn.Linear) or type(m).__name__ == "Conv1D"
    ]
    assert sum(m.copies for m in spec.groups if m.kind == "linear") == len(linear)
