"""Which files are the model, and what is not JSON: one answer for every command, and transformers'
own.
"""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from lora_np import adapters
from lora_np.files import FileError, read_json
from lora_np.hub import TensorInfo, open_directory, safetensors
from lora_np.models import describe, from_safetensors, open_model
from tests.drawing import examples

NAMES = ("model.embed_tokens.weight", "model.norm.weight")
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 4,
    "intermediate_size": 4,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
    "vocab_size": 8,
    "tie_word_embeddings": True,
}


def llama(value):
    layer = "model.layers.0."
    shapes = {"model.embed_tokens.weight": (8, 4), "model.norm.weight": (4,)}
    shapes |= {f"{layer}self_attn.{name}_proj.weight": (4, 4) for name in "qkvo"}
    shapes |= {f"{layer}mlp.{name}_proj.weight": (4, 4) for name in ("gate", "up", "down")}
    shapes |= {f"{layer}{name}_layernorm.weight": (4,) for name in ("input", "post_attention")}
    return {name: np.full(shape, value, np.float32) for name, shape in shapes.items()}


def write(folder, single, sharded, stray):
    """A directory with any mixture of one file (of ones), shards (of twos) and a file that is no
    part of it.
    """
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    if single:
        safetensors.save(llama(1.0), folder / "model.safetensors", metadata={"format": "pt"})
    if sharded:
        tensors = llama(2.0)
        names = sorted(tensors)
        files = {
            name: f"model-0000{1 + (place % 2)}-of-00002.safetensors"
            for place, name in enumerate(names)
        }
        for file in set(files.values()):
            part = {name: tensors[name] for name in names if files[name] == file}
            safetensors.save(part, folder / file, metadata={"format": "pt"})
        (folder / "model.safetensors.index.json").write_text(
            json.dumps({"metadata": {}, "weight_map": files})
        )
    for name in stray:
        safetensors.save(
            llama(3.0) | {"extra": np.ones(2)}, folder / name, metadata={"format": "pt"}
        )


MIXTURES = [
    (single, sharded, stray)
    for single in (False, True)
    for sharded in (False, True)
    for stray in (
        (),
        ("consolidated.safetensors",),
        ("model-00003-of-00003.safetensors", "x.safetensors"),
    )
]


@pytest.mark.peers
@pytest.mark.parametrize(("single", "sharded", "stray"), MIXTURES)
def test_count_merge_and_transformers_agree_which_files_are_the_model(
    tmp_path, single, sharded, stray
):
    transformers = pytest.importorskip("transformers")
    folder = tmp_path / "base"
    write(folder, single, sharded, stray)
    module = adapters.AdapterModule.of(A=np.zeros((1, 4)), B=np.zeros((4, 1)), alpha=1)
    adapters.save(
        adapters.Adapter({"model.layers.0.self_attn.q_proj": module}), tmp_path / "adapter"
    )
    if not (single or sharded):
        with pytest.raises(OSError, match="no file named"):
            transformers.AutoModelForCausalLM.from_pretrained(folder)
        for refuses in (open_model, from_safetensors):
            with pytest.raises(FileError, match=r"no model\.safetensors"):
                refuses(folder)
        with pytest.raises(FileError, match=r"no model\.safetensors"):
            adapters.merge(folder, tmp_path / "adapter", tmp_path / "out")
        return
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder).state_dict()
    ours = open_model(folder)
    assert {name: ours.read(name).flat[0] for name in ours.places} == {
        name: tensor.flatten()[0].item()
        for name, tensor in theirs.items()
        if name != "lm_head.weight"
    }
    assert from_safetensors(folder).total == sum(ours.info(name).size for name in ours.places)
    adapters.merge(folder, tmp_path / "adapter", tmp_path / "out")
    merged = open_model(tmp_path / "out")
    assert merged.places == ours.places
    for name in ours.places:
        assert np.array_equal(merged.read(name), ours.read(name))


def test_one_file_and_an_index_are_models_too(tmp_path):
    write(tmp_path / "base", True, True, ())
    assert open_model(tmp_path / "base" / "model.safetensors").read(NAMES[1])[0] == 1
    assert open_model(tmp_path / "base" / "model.safetensors.index.json").read(NAMES[1])[0] == 2


def test_a_stray_file_is_named_where_there_is_no_model(tmp_path):
    write(tmp_path / "base", False, False, ("stray.safetensors",))
    with pytest.raises(FileError, match=r"name the file itself: stray\.safetensors"):
        open_model(tmp_path / "base")


def test_infinity_is_read_as_transformers_writes_it(tmp_path):
    config = {"model_type": "mamba", "time_step_limit": [0.0, float("inf")]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert read_json(tmp_path / "config.json") == config
    assert describe(tmp_path / "config.json").total == describe({"model_type": "mamba"}).total


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1, "a": 2}', "the key 'a' occurs twice"),
        ('{"b": {"a": 1, "a": 2}}', "the key 'a' occurs twice"),
        ('{"a": NaN}', "NaN is not JSON"),
        ('{"a": -Infinity}', "-Infinity is not JSON"),
        ('{"a": 1', "not valid JSON"),
        ("[1]", "must be a JSON object, got list"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a": ' * 100_000, "nested too deeply"),
        ('{"\\ud800": 1}', "surrogates not allowed"),
        ('{"a": "\\udc00"}', "surrogates not allowed"),
        ('{"a": ' + "9" * 5000 + "}", "not valid JSON"),
        (b'{"a": "\xff"}', "not valid JSON"),
        ('{"a": -0}', "-0 does not mean the same to all readers"),
        ('{"a": [' + "[]," * 1_500_000 + "[]]}", "more than 3,000,000 items"),
        ('{"a": [' + "0," * 3_000_000 + "0]}", "more than 3,000,000 items"),
    ],
)
def test_json_means_one_thing_or_is_refused(tmp_path, text, message):
    path = tmp_path / "config.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(FileError, match=message):
        read_json(path)


def test_minus_zero_is_refused_as_a_number_alone(tmp_path):
    path = tmp_path / "config.json"
    path.write_text('{"a-0": "-0, -0", "b": -0.0, "c": 1e-05, "d": -10}')
    assert read_json(path) == {"a-0": "-0, -0", "b": 0.0, "c": 1e-05, "d": -10}


@pytest.mark.skipif(
    os.name != "posix" or sys.platform == "emscripten", reason="no limits or processes"
)
def test_what_hostile_json_costs_is_bounded(tmp_path):
    """In a process of its own, with a limit on memory and on CPU time."""
    path = tmp_path / "config.json"
    path.write_text("[" + "[]," * 10_000_000 + "0]")
    code = f"""if True:
        import resource
        from lora_np.files import FileError, read_json
        resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))
        resource.setrlimit(resource.RLIMIT_CPU, (20, 20))
        try:
            read_json({str(path)!r})
        except FileError as error:
            print(error)
    """
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "3,000,000 items" in result.stdout, result.stderr


@settings(max_examples=examples(100), deadline=None)
@given(
    st.dictionaries(
        st.text(), st.recursive(st.none() | st.integers() | st.text(), st.lists), max_size=4
    )
)
def test_what_json_writes_is_read(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("json") / "x.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    assert read_json(path) == content


def test_a_key_that_repeats_last_takes_linear_time(tmp_path):
    path = tmp_path / "config.json"
    keys = [f'"{i}": 0' for i in range(400_000)]
    path.write_text("{" + ", ".join([*keys, '"399999": 0']) + "}")
    with pytest.raises(FileError, match="'399999' occurs twice"):
        read_json(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names")
def test_pipes_and_devices_are_no_files(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/zero"):
        for reader in (read_json, safetensors.open):
            with pytest.raises(FileError, match="not a regular file"):
                reader(path)
    (tmp_path / "base").mkdir()
    os.mkfifo(tmp_path / "base" / "model.safetensors")
    with pytest.raises(FileError, match="not a regular file"):
        open_model(tmp_path / "base")


def split(folder, tensors):
    """Write each tensor to a shard of its own, with an index."""
    places = {}
    for i, (name, array) in enumerate(tensors.items()):
        places[name] = f"model-{i}.safetensors"
        if isinstance(array, TensorInfo):
            safetensors.write({name: array}, lambda n: np.eye(8), folder / places[name])
        elif array is not None:
            safetensors.save({name: array}, folder / places[name])
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))


def test_a_scale_in_another_shard_is_seen(tmp_path):
    scale = {"a.weight_scale_inv": np.ones((1, 1), np.float32)}
    split(tmp_path, {"a.weight": TensorInfo("float8_e4m3", (8, 8)), **scale})
    with pytest.raises(FileError, match=r"float8_e4m3 times 'a.weight_scale_inv'"):
        open_directory(tmp_path).read("a.weight")


def test_a_tensor_is_no_scale_of_its_own(tmp_path):
    split(tmp_path, {"block.scale_table": TensorInfo("float8_e4m3", (8, 8))})
    assert (open_directory(tmp_path).read("block.scale_table") == np.eye(8)).all()


def test_a_missing_shard_is_named_beside_a_trainer_s_files(tmp_path):
    split(tmp_path, {"a.weight": np.eye(2), "b.weight": None})
    for name in ("training_args.bin", "optimizer.pt", "scheduler.pt", "rng_state_0.pth"):
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(FileError, match=r"model-1.safetensors: no such file"):
        open_directory(tmp_path)


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_folders_in_a_snapshot_of_the_cache_are_read(tmp_path, depth):
    root = tmp_path / "models--x--y"
    folder = root.joinpath("snapshots", "abc", *["part"] * depth)
    folder.mkdir(parents=True)
    (root / "blobs").mkdir()
    safetensors.save({"a.weight": np.eye(2)}, root / "blobs" / "0")
    (folder / "model.safetensors").symlink_to("../" * (depth + 2) + "blobs/0")
    assert (open_directory(folder).read("a.weight") == np.eye(2)).all()
