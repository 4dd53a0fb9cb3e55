"""Small checkpoints and adapters on the disk."""

import json

import numpy as np
import pytest

from lora_np import adapters
from lora_np.hub import safetensors

SHAPES = {
    "model.layers.0.q_proj": (6, 4),
    "model.layers.0.v_proj": (3, 4),
    "model.layers.1.q_proj": (6, 4),
}


def write_adapter(path, *, seed=0, rank=2, alpha=4.0, dtype="float32", shapes=SHAPES, **raw):
    rng = np.random.default_rng(seed)
    modules = {
        name: adapters.AdapterModule.of(
            A=rng.standard_normal((rank, k)),
            B=rng.standard_normal((d, rank)),
            alpha=alpha,
            rslora=raw.get("use_rslora", False),
            dtype=dtype,
        )
        for name, (d, k) in shapes.items()
    }
    raw = {"peft_type": "LORA", "target_modules": sorted(modules), **raw}
    adapters.save(adapters.Adapter(modules, raw=raw), path)
    return path


def write_checkpoint(path, *, seed=1, dtype="float32", shards=2, shapes=SHAPES, config=None):
    rng = np.random.default_rng(seed)
    tensors = {f"{name}.weight": rng.standard_normal(shape) for name, shape in shapes.items()}
    tensors |= {f"{name}.bias": rng.standard_normal(d) for name, (d, _) in shapes.items()}
    tensors["model.norm.weight"] = rng.standard_normal(4)
    path.mkdir()
    (path / "config.json").write_text(
        json.dumps({"architectures": ["TestModel"], **(config or {})})
    )
    (path / "tokenizer.json").write_text("{}")
    names = sorted(tensors)
    if shards == 1:
        safetensors.save(
            tensors, path / "model.safetensors", dtype=dtype, metadata={"format": "pt"}
        )
        return path
    where = {}
    for i in range(shards):
        file = f"model-{i + 1:05}-of-{shards:05}.safetensors"
        part = {name: tensors[name] for name in names[i::shards]}
        safetensors.save(part, path / file, dtype=dtype, metadata={"format": "pt"})
        where |= dict.fromkeys(part, file)
    index = {"metadata": {"total_size": 1}, "weight_map": where}
    (path / "model.safetensors.index.json").write_text(json.dumps(index))
    return path


def directory(path):
    """The bytes of each file."""
    return {file.name: file.read_bytes() for file in path.iterdir()}


def truncated(M, rank):
    U, s, Vh = np.linalg.svd(M, full_matrices=False)
    return (U[:, :rank] * s[:rank]) @ Vh[:rank]


@pytest.fixture
def adapter(tmp_path):
    return write_adapter(tmp_path / "adapter")


@pytest.fixture
def checkpoint(tmp_path):
    return write_checkpoint(tmp_path / "base")


@pytest.fixture
def make_adapter(tmp_path):
    return lambda name, **options: write_adapter(tmp_path / name, **options)


@pytest.fixture
def make_checkpoint(tmp_path):
    return lambda name, **options: write_checkpoint(tmp_path / name, **options)
