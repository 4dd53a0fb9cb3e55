"""Adapters that are damaged, hostile, contradictory or not supported: one clear error each, nothing
in silence.
"""

import json
import os
import re

import numpy as np
import pytest

from lora_np import adapters
from lora_np.adapters.peft_format import PREFIX, WEIGHTS
from lora_np.files import FileError
from lora_np.hub import TensorInfo, rounded, safetensors
from lora_np.models import open_model
from lora_np.models.peft import compose, parse

Q = f"{PREFIX}model.layers.0.q_proj"


def change_config(adapter, **settings):
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))


def change_tensors(adapter, change, metadata=None):
    file = safetensors.open(adapter / WEIGHTS)
    tensors = {name: file.read(name) for name in file.tensors}
    change(tensors)
    safetensors.save(tensors, adapter / WEIGHTS)


def test_an_adapter_is_a_mapping_from_modules_to_what_is_done_to_them(adapter):
    found = adapters.load(adapter)
    assert list(found) == [
        "model.layers.0.q_proj",
        "model.layers.0.v_proj",
        "model.layers.1.q_proj",
    ]
    module = found["model.layers.0.v_proj"]
    assert (module.rank, module.alpha, module.scale, module.shape) == (2, 4.0, 2.0, (3, 4))
    np.testing.assert_allclose(found.delta("model.layers.0.v_proj"), 2 * module.B @ module.A)
    assert module.magnitude is None
    assert module.bias is None
    assert repr(found) == f"<Adapter of 3 modules, 54 parameters, {adapter}>"


@pytest.mark.parametrize(
    "key", ["q.lora_A.{}.weight", "head.modules_to_save.{}.weight", "q.lora_embedding_A.{}"]
)
def test_keys_with_the_name_of_another_adapter_are_refused(adapter, key):
    change_config(adapter, modules_to_save=["head"])
    key = f"{PREFIX}{key.format('my-task')}"
    change_tensors(adapter, lambda t: t.update({key: np.ones((2, 2))}))
    with pytest.raises(FileError, match="is not a key that PEFT writes for a LoRA"):
        adapters.load(adapter)


WRAPPED = {
    "without the prefix": lambda key: key.removeprefix(PREFIX),
    "with the prefix twice": lambda key: PREFIX + key,
    "of a compiled model": lambda key: f"_orig_mod.{key}",
    "of a model in parallel": lambda key: key.replace(PREFIX, f"{PREFIX}module."),
    "with the adapter's name": lambda key: re.sub(r"(\.weight)?$", r".default\1", key, count=1),
}


@pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED)
@pytest.mark.parametrize("saved", [False, True])
def test_keys_with_something_around_them_are_read_and_it_is_said(adapter, wrap, saved):
    before = {name: module.delta() for name, module in adapters.load(adapter).items()}
    change_config(adapter, modules_to_save=["head"] if saved else None)
    extra = {f"{PREFIX}head.weight": np.ones((2, 2))} if saved else {}

    def change(tensors):
        new = {wrap(key): tensor for key, tensor in {**tensors, **extra}.items()}
        tensors.clear()
        tensors.update(new)

    change_tensors(adapter, change)
    with pytest.warns(
        UserWarning, match="names are read without their wrappers or prefixes in the file"
    ):
        after = adapters.load(adapter)
    assert [*after] == [*before]
    assert [*after.full] == ["head.weight"] * saved
    assert after.renamed.keys() == {*after, *after.full}
    for name in before:
        np.testing.assert_array_equal(after.delta(name), before[name])


def test_one_module_under_two_keys_is_refused(adapter):
    key = f"{Q}.lora_A.weight"
    change_tensors(adapter, lambda t: t.update({f"_orig_mod.{key}": t[key]}))
    with pytest.raises(FileError, match=r"another key both become 'base.*' without wrappers"):
        adapters.load(adapter)


def test_tensors_that_zero_3_emptied_are_refused_with_their_cause(adapter):
    change_tensors(adapter, lambda t: t.update({f"{Q}.lora_B.weight": np.ones(0)}))
    with pytest.raises(FileError, match=r"lora_B.weight' is empty: DeepSpeed ZeRO-3"):
        adapters.load(adapter)


@pytest.mark.parametrize("inside", ["", "out_proj."])
def test_a_bias_that_peft_writes_three_times_is_taken_once(adapter, inside):
    """With ``bias="all"`` it saves what the wrapper of a trained module holds, too."""
    change_config(adapter, modules_to_save=["lin"], bias="all")
    thrice = {
        f"{PREFIX}lin.{inside}bias": np.full(2, 5.0),
        f"{PREFIX}lin.modules_to_save.{inside}bias": np.full(2, 5.0),
        f"{PREFIX}lin.original_module.{inside}bias": np.ones(2),
    }
    change_tensors(adapter, lambda t: t.update(thrice))
    full = adapters.load(adapter).full
    assert [*full] == [f"lin.{inside}bias"]
    np.testing.assert_array_equal(full[f"lin.{inside}bias"].read(), [5, 5])


@pytest.mark.parametrize("shapes", [((0, 4), (0, 2)), ((0, 4), (6, 2)), ((2, 4), (0, 2))])
def test_factors_that_zero_3_emptied_are_refused_with_their_cause(adapter, shapes):
    A, B = map(np.ones, shapes)
    change_tensors(adapter, lambda t: t.update({f"{Q}.lora_A.weight": A, f"{Q}.lora_B.weight": B}))
    with pytest.raises(FileError, match=r"must not be empty, got .*: DeepSpeed ZeRO-3 leaves"):
        adapters.load(adapter)


@pytest.mark.parametrize("content", [True, 3, "on", {"a": 1}])
@pytest.mark.parametrize("version", [{}, {"peft_version": "0.21.2"}, {"peft_version": "0.9.0"}])
def test_a_setting_that_peft_does_not_know_is_ignored_with_a_warning(adapter, content, version):
    before = adapters.load(adapter).delta("model.layers.0.q_proj")
    change_config(adapter, use_xlora=content, **version)
    with pytest.warns(
        UserWarning, match="use_xlora = .* is not a setting of PEFT, which ignores it"
    ):
        read = adapters.load(adapter)
    np.testing.assert_array_equal(read.delta("model.layers.0.q_proj"), before)


@pytest.mark.parametrize("dtype", ["float8_e4m3", "float8_e5m2"])
def test_factors_in_eight_bits_are_read_and_written_as_float16(adapter, tmp_path, dtype):
    file = safetensors.open(adapter / WEIGHTS)
    infos = {key: TensorInfo(dtype, info.shape) for key, info in file.tensors.items()}
    arrays = {key: file.read(key) for key in file.tensors}
    safetensors.write(infos, arrays.__getitem__, adapter / WEIGHTS, metadata={"format": "pt"})
    small = safetensors.open(adapter / WEIGHTS)
    adapters.save(adapters.load(adapter), tmp_path / "again")
    again = safetensors.open(tmp_path / "again" / WEIGHTS)
    for key, array in arrays.items():
        assert again.info(key).dtype == "float16"
        np.testing.assert_array_equal(again.read(key), rounded(array, dtype))
        np.testing.assert_array_equal(again.read(key), small.read(key))


TENSORS = {
    "a key without the prefix and of no module": (
        lambda t: t.update(
            {"q.lora_A.weight": t[f"{Q}.lora_A.weight"], "q.lora_B.weight": t[f"{Q}.lora_B.weight"]}
        ),
        "'q' is not among the config's target_modules; PEFT would ignore it; lora-np repair",
    ),
    "no B": (lambda t: t.pop(f"{Q}.lora_B.weight"), "'model.layers.0.q_proj' has no lora_B"),
    "no A": (lambda t: t.pop(f"{Q}.lora_A.weight"), "'model.layers.0.q_proj' has no lora_A"),
    "A and B that do not fit": (
        lambda t: t.update({f"{Q}.lora_B.weight": np.ones((6, 3))}),
        r"A \(r, k\) and B \(d, r\) of 'model.layers.0.q_proj' must fit, got \(2, 4\) and \(6, 3\)",
    ),
    "an empty factor": (
        lambda t: t.update({f"{Q}.lora_A.weight": np.ones((2, 0))}),
        r"must not be empty, got \(2, 0\)",
    ),
    "a convolution whose parts do not fit": (
        lambda t: t.update(
            {
                f"{Q}.lora_A.weight": np.ones((2, 4, 3, 3)),
                f"{Q}.lora_B.weight": np.ones((6, 3, 1, 1)),
            }
        ),
        r"must fit, got \(2, 4, 3, 3\) and \(6, 3, 1, 1\)",
    ),
    "whole numbers": (
        lambda t: t.update({f"{Q}.lora_A.weight": np.ones((2, 4), np.int32)}),
        "A of 'model.layers.0.q_proj' is stored as int32, not as float64 or float32 or bfloat16 or float16",
    ),
    "a key of some other method": (
        lambda t: t.update({f"{Q}.lora_A.weight.quant_state": np.ones(2)}),
        "is not a key that PEFT writes for a LoRA",
    ),
    "a tensor that nothing accounts for": (
        lambda t: t.update({f"{PREFIX}model.norm.weight": np.ones(2)}),
        "'base_model.model.model.norm.weight' belongs to no LoRA, modules_to_save or trained bias",
    ),
    "linear and embedding": (
        lambda t: t.update({f"{Q}.lora_embedding_A": t.pop(f"{Q}.lora_A.weight")}),
        "factors of a linear layer and of an embedding",
    ),
    "a magnitude without DoRA": (
        lambda t: t.update({f"{Q}.lora_magnitude_vector": np.ones(6)}),
        "'model.layers.0.q_proj' has a magnitude, but use_dora is false",
    ),
    "a bias of the wrong length": (
        lambda t: t.update({f"{Q}.lora_B.bias": np.ones(5)}),
        r"bias of 'model.layers.0.q_proj' must have shape \(6,\), got \(5,\)",
    ),
    "no LoRA at all": (lambda t: t.clear(), "holds no LoRA"),
}


@pytest.mark.parametrize(("change", "message"), TENSORS.values(), ids=TENSORS)
def test_tensors_that_do_not_add_up_are_refused_by_name(adapter, change, message):
    change_tensors(adapter, change)
    with pytest.raises(FileError, match=message) as caught:
        adapters.load(adapter)
    assert str(caught.value).startswith(str(adapter / WEIGHTS))
    assert "\n" not in str(caught.value)


CONFIGS = {
    "another method": ({"peft_type": "XLORA"}, "peft_type = 'XLORA' is not supported, only LORA"),
    "a rank of zero": ({"r": 0}, "r must be a whole number from 1 on, got 0"),
    "a rank that is true": ({"r": True}, "r must be a whole number from 1 on, got True"),
    "another rank": ({"r": 3}, "'model.layers.0.q_proj' has rank 2, but the config says 3"),
    "a rank that a pattern changes": (
        {"rank_pattern": {"layers.1.q_proj": 4}},
        "'model.layers.1.q_proj' has rank 2, but the config says 4",
    ),
    "an alpha that is text": ({"lora_alpha": "16"}, "lora_alpha must be a finite number, got '16'"),
    "an alpha beyond numbers": (
        {"lora_alpha": 10**400},
        "lora_alpha must be a finite number, got 1000",
    ),
    "patterns that are a list": (
        {"rank_pattern": [1]},
        r"rank_pattern must be an object, got \[1\]",
    ),
    "a pattern that is no expression": (
        {"alpha_pattern": {"(": 2}},
        "must be a regular expression",
    ),
    "a pattern that could take for ever": (
        {"alpha_pattern": {"(?>a+)+b": 2}},
        r"alpha_pattern\['\(\?>a\+\)\+b'\] .* has an atomic group, which cannot be matched in bounded time",
    ),
    "targets that do not include a module": (
        {"target_modules": ["v_proj"]},
        "'model.layers.0.q_proj' is not among the config's target_modules; PEFT would ignore it",
    ),
    "targets in one expression that does not match a module": (
        {"target_modules": r".*\.v_proj"},
        "'model.layers.0.q_proj' is not among the config's target_modules; PEFT would ignore it",
    ),
    "targets that are no expression": (
        {"target_modules": "q_proj("},
        "target_modules must be a regular expr",
    ),
    "layers that do not include a module": (
        {"target_modules": ["q_proj", "v_proj"], "layers_to_transform": [0]},
        "'model.layers.1.q_proj' is not among",
    ),
    "targets that are a number": (
        {"target_modules": 3},
        "target_modules must be a list of names or one expression, got 3",
    ),
    "a replicated layer": (
        {"layer_replication": [[0, 4]]},
        r"layer_replication = \[\[0, 4\]\] is not supported",
    ),
    "a setting of the future": (
        {"use_xlora": True, "peft_version": "0.22.0.dev0"},
        "use_xlora = True is not supported: PEFT is newer",
    ),
    "invocation tokens that are text": (
        {"alora_invocation_tokens": ["<a>"]},
        r"alora_invocation_tokens must be a list of whole numbers, got \['<a>'\]",
    ),
    "DoRA without magnitudes": ({"use_dora": True}, "has no magnitude, but use_dora is true"),
    "a flag that is text": ({"use_rslora": "yes"}, "use_rslora must be true or false, got 'yes'"),
    "an unknown bias": ({"bias": "some"}, "bias must be 'none', 'all' or 'lora_only', got 'some'"),
    "a dropout of one": ({"lora_dropout": 1}, "lora_dropout must be from 0 to below 1, got 1"),
    "names that are numbers": (
        {"modules_to_save": [1]},
        r"modules_to_save must be a list of names, got \[1\]",
    ),
}


@pytest.mark.parametrize(("settings", "message"), CONFIGS.values(), ids=CONFIGS)
def test_settings_that_are_wrong_or_not_supported_are_refused_by_name(adapter, settings, message):
    change_config(adapter, **settings)
    with pytest.raises(FileError, match=message) as caught:
        adapters.load(adapter)
    assert str(caught.value).startswith(str(adapter))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "not valid JSON"),
        (b"[]", "must be a JSON object, got list"),
        (b'{"r": 8, "r": 9}', "the key 'r' occurs twice"),
        (b'{"r": NaN}', "NaN is not JSON"),
        (b"\xff\xfe", "not valid JSON"),
        (b'{"a":' * 100_000, "not valid JSON"),
        (b'{"r": ' + b"9" * 5_000 + b"}", "not valid JSON"),
    ],
    ids=["empty", "list", "twice", "nan", "bytes", "deep", "digits"],
)
def test_configs_that_are_not_json_are_refused(adapter, text, message):
    (adapter / "adapter_config.json").write_bytes(text)
    with pytest.raises(FileError, match=message):
        adapters.load(adapter)


def test_a_config_of_absurd_size_is_not_read(adapter):
    with (adapter / "adapter_config.json").open("r+b") as file:
        file.truncate(2**40)
    with pytest.raises(FileError, match="more than 67,108,864 bytes of JSON"):
        adapters.load(adapter)


def test_missing_files_and_directories_are_named(adapter, tmp_path):
    with pytest.raises(FileError, match="nowhere: no such directory"):
        adapters.load(tmp_path / "nowhere")
    (adapter / "notes.txt").write_text("")
    with pytest.raises(FileError, match=r"notes\.txt: a \.txt file is not an adapter"):
        adapters.load(adapter / "notes.txt")
    (adapter / WEIGHTS).unlink()
    with pytest.raises(FileError, match=f"{WEIGHTS}: no such file"):
        adapters.load(adapter)
    (adapter / "adapter_config.json").unlink()
    with pytest.raises(FileError, match=r"adapter_config\.json: no such file"):
        adapters.load(adapter)


@pytest.mark.parametrize(
    ("name", "kind"), [("photo.png", ".png"), ("paper.pdf", ".pdf"), ("adapter", "nameless")]
)
def test_a_file_of_another_kind_is_called_what_it_is(tmp_path, name, kind):
    (tmp_path / name).write_bytes(b"\x89PNG")
    said = f"{name}: a {kind} file is not an adapter: it must be a directory, or a .safetensors or"
    for of_adapters in (adapters.load, adapters.inspect, adapters.check):
        with pytest.raises(FileError, match=re.escape(said)):
            of_adapters(tmp_path / name)


@pytest.mark.parametrize("name", ["adapter_model.pkl", "adapter_model.pt"])
def test_a_pickle_is_refused_with_the_reason_and_never_opened(adapter, name):
    (adapter / WEIGHTS).rename(adapter / name)
    os.chmod(adapter / name, 0)
    with pytest.raises(FileError, match=f"{name}: a pickle can run any code when it is opened"):
        adapters.load(adapter)


def test_a_truncated_file_is_refused(adapter):
    content = (adapter / WEIGHTS).read_bytes()
    (adapter / WEIGHTS).write_bytes(content[:-1])
    with pytest.raises(FileError, match=WEIGHTS):
        adapters.load(adapter)


def test_a_link_out_of_the_directory_is_refused(adapter, tmp_path):
    (adapter / WEIGHTS).rename(tmp_path / "elsewhere")
    (adapter / WEIGHTS).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FileError, match="a link that leads out of the directory"):
        adapters.load(adapter)


def test_settings_are_left_as_they_are_where_they_are_right_already():
    raw = {
        "peft_type": "LORA",
        "r": 4,
        "lora_alpha": 8,
        "rank_pattern": {"v_proj": 2},
        "alpha_pattern": {},
    }
    modules = {"a.q_proj": (4, 8.0), "a.v_proj": (2, 8.0)}
    assert compose(raw, modules).raw == raw


def test_the_commonest_rank_becomes_the_default_and_every_exception_is_named():
    modules = {"0.q": (4, 8.0), "1.q": (4, 8.5), "a.1.q": (2, 8.0), "x+y.q": (1, 8.0)}
    config = compose({"peft_type": "LORA"}, modules).raw
    assert (config["r"], config["lora_alpha"]) == (4, 8)
    said = parse("config", config)
    assert {name: said.rank_and_alpha(name) for name in modules} == modules


def index_of(checkpoint):
    return checkpoint / "model.safetensors.index.json"


def change_index(checkpoint, change):
    index = json.loads(index_of(checkpoint).read_text())
    change(index)
    index_of(checkpoint).write_text(json.dumps(index))


INDEXES = {
    "no map": (
        lambda i: i.pop("weight_map"),
        "weight_map must map the names of tensors to names of files",
    ),
    "an empty map": (lambda i: i.update(weight_map={}), "weight_map must map"),
    "a map to numbers": (lambda i: i.update(weight_map={"a": 1}), "weight_map must map"),
    "a path out of the directory": (
        lambda i: i["weight_map"].update(x="../x.safetensors"),
        r"'../x.safetensors' must be a plain name inside the directory",
    ),
    "an absolute path": (
        lambda i: i["weight_map"].update(x="/x.safetensors"),
        "must be a plain name",
    ),
    "a pickle": (
        lambda i: i["weight_map"].update(x="x.bin"),
        "'x.bin' has tensors, but only safetensors can",
    ),
    "a missing shard": (
        lambda i: i["weight_map"].update(x="x.safetensors"),
        "x.safetensors: no such file",
    ),
    "a tensor that is not there": (
        lambda i: i["weight_map"].update(x="model-00001-of-00002.safetensors"),
        "says that 'x' is in model-00001-of-00002.safetensors, but it is not",
    ),
}


@pytest.mark.parametrize(("change", "message"), INDEXES.values(), ids=INDEXES)
def test_indexes_that_lie_are_refused(checkpoint, change, message):
    change_index(checkpoint, change)
    with pytest.raises(FileError, match=message):
        open_model(checkpoint)


def test_a_tensor_in_two_shards_is_refused(checkpoint):
    safetensors.save(
        {"model.norm.weight": np.ones(4), "x": np.ones(1)}, checkpoint / "more.safetensors"
    )
    change_index(checkpoint, lambda i: i["weight_map"].update(x="more.safetensors"))
    with pytest.raises(
        FileError, match=r"'model.norm.weight' is in model-0000\d-of-00002.safetensors too"
    ):
        open_model(checkpoint)


def test_a_checkpoint_of_pickles_is_refused_with_the_reason(tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04")
    with pytest.raises(FileError, match=r"pytorch_model.bin: a pickle can run any code"):
        open_model(tmp_path)


def test_a_directory_without_weights_is_refused(tmp_path):
    with pytest.raises(
        FileError, match=r"no model.safetensors and no model.safetensors.index.json"
    ):
        open_model(tmp_path)


def test_an_adapter_made_by_hand_names_its_modules_for_peft(tmp_path):
    """Without them PEFT takes the defaults of the model's type, and leaves other modules out."""
    made = adapters.AdapterModule.of(A=np.ones((1, 3)), B=np.ones((2, 1)), alpha=1)
    adapters.save(adapters.Adapter({"layers.0.o_proj": made, "head": made}), tmp_path / "made")
    config = json.loads((tmp_path / "made" / "adapter_config.json").read_text())
    assert config["target_modules"] == ["head", "layers.0.o_proj"]
