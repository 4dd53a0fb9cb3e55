"""What is wrong with an adapter itself: forty damaged or idle ones, and none of them is fine."""

import json
import struct
import tomllib
from pathlib import Path

import numpy as np
import pytest

from lora_np import adapters
from lora_np.adapters import Adapter, AdapterModule
from lora_np.adapters.rules import ALL
from lora_np.adapters.values import check_finite, fault_of
from lora_np.cli import run
from lora_np.files import FileError
from lora_np.hub import safetensors
from tests.adapters.test_formats import LLAMA, drawn
from tests.drawing import few

LIST = Path(__file__).with_name("damaged.toml")
CASES = {case["name"]: case for case in tomllib.loads(LIST.read_text("utf-8"))["adapters"]}
BASE = {
    "model_type": "llama", "num_hidden_layers": 4, "hidden_size": 64, "intermediate_size": 128,
    "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 256, "tie_word_embeddings": False,
}  # fmt: skip
WIDTHS = {"q_proj": 64, "v_proj": 32}


def key(layer, module, part):
    return f"base_model.model.model.layers.{layer}.self_attn.{module}.lora_{part}.weight"


class Draft:
    """The reference, to be damaged and written."""

    def __init__(self):
        rng = np.random.default_rng(0)
        self.tensors = {}
        for layer in range(4):
            for module, width in WIDTHS.items():
                self.tensors[key(layer, module, "A")] = rng.normal(size=(8, 64))
                self.tensors[key(layer, module, "B")] = rng.normal(size=(width, 8))
        self.config = {
            "peft_type": "LORA", "r": 8, "lora_alpha": 16, "target_modules": ["q_proj", "v_proj"],
        }  # fmt: skip
        self.base = dict(BASE)
        self.dtypes = {}
        self.cut = {}  # the share of a file that is left
        self.instead = {}  # what a file holds instead

    def each(self, part, change, where=""):
        for name in [name for name in self.tensors if f"lora_{part}" in name and where in name]:
            self.tensors[name] = change(self.tensors[name])

    def rename(self, change):
        self.tensors = {change(name): x for name, x in self.tensors.items()}

    def write(self, folder):
        folder.mkdir()
        (folder / "adapter_config.json").write_text(json.dumps(self.config))
        header, data = {}, b""
        for name, x in self.tensors.items():
            dtype = self.dtypes.get(name, self.dtypes.get("", "F32"))
            kind = {"F32": np.float32, "F16": np.float16, "I32": np.int32, "U8": np.uint8}[dtype]
            with np.errstate(over="ignore"):
                own = np.ascontiguousarray(x.astype(kind)).tobytes()
            ends = [len(data), len(data) + len(own)]
            header[name] = {"dtype": dtype, "shape": list(x.shape), "data_offsets": ends}
            data += own
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        whole = struct.pack("<Q", len(text)) + text + data
        (folder / "adapter_model.safetensors").write_bytes(whole)
        for name, content in self.instead.items():
            if content is None:
                (folder / name).unlink()
            else:
                (folder / name).write_bytes(content)
        for name, share in self.cut.items():
            content = (folder / name).read_bytes()
            (folder / name).write_bytes(content[: int(len(content) * share)])
        (folder.parent / "config.json").write_text(json.dumps(self.base))
        return folder


def scaled(x, largest):
    return x / np.abs(x).max() * largest


def nothing(draft):
    draft.each("B", np.zeros_like)


def no_A(draft):
    draft.each("A", np.zeros_like)


def neither(draft):
    draft.each("", np.zeros_like)


def idle_layer(draft):
    draft.each("B", np.zeros_like, "layers.2.")


def integers(draft):
    draft.each("", lambda x: scaled(x, 0.9))
    draft.dtypes[""] = "I32"


def underflow(draft):
    draft.each("B", lambda x: scaled(x, 1e-9))
    draft.dtypes[""] = "F16"


def disjoint(draft):
    draft.each("A", lambda A: A * (np.arange(8) < 4)[:, None])
    draft.each("B", lambda B: B * (np.arange(8) >= 4))


def one_nan(draft):
    draft.each("B", lambda x: x * np.nan, "1.self_attn.v_proj")


def all_nan(draft):
    draft.each("", lambda x: x * np.nan)


def infinity(draft):
    draft.tensors[key(0, "q_proj", "A")][3, 5] = np.inf


def overflow(draft):
    draft.each("B", lambda x: scaled(x, 1e6), "3.self_attn.q_proj")
    draft.dtypes[""] = "F16"


def product(draft):
    draft.each("", lambda x: np.full_like(x, 1e30), "0.self_attn.q_proj")


def missing_layer(draft):
    draft.tensors = {name: x for name, x in draft.tensors.items() if "layers.2." not in name}


def tied_head(draft):
    draft.base["tie_word_embeddings"] = True
    draft.tensors = {"base_model.model.lm_head.weight": np.ones((256, 64))}


def shards(draft):
    draft.each("A", lambda x: x[:0])
    draft.each("B", lambda x: x[:, :0])


def placeholders(draft):
    for layer in (2, 3):
        draft.each("", lambda x: np.zeros(0), f"layers.{layer}.")


def made_up(draft):
    for layer in range(4):
        for module in WIDTHS:
            old = f"model.layers.{layer}.self_attn.{module}"
            draft.rename(
                lambda name, o=old, n=f"blorp.wobble.{layer}.{module[0]}": name.replace(o, n)
            )
    draft.config["target_modules"] = ["q", "v"]


def gpt2(draft):
    draft.rename(lambda name: name.replace("model.layers.", "transformer.h."))
    draft.rename(lambda name: name.replace("self_attn.q_proj", "attn.c_attn"))
    draft.rename(lambda name: name.replace("self_attn.v_proj", "attn.c_proj"))
    draft.config["target_modules"] = ["c_attn", "c_proj"]


def fifth_layer(draft):
    more = {name.replace("s.3.", "s.4."): x for name, x in draft.tensors.items() if "s.3." in name}
    draft.tensors |= more


def wider(draft):
    rng = np.random.default_rng(1)
    draft.each("A", lambda x: rng.normal(size=(8, 96)))
    draft.each("B", lambda x: rng.normal(size=(96, 8)), "q_proj")
    draft.each("B", lambda x: rng.normal(size=(48, 8)), "v_proj")


def packed(draft):
    name = key(0, "q_proj", "A")
    draft.tensors[name], draft.dtypes[name] = np.arange(256)[:, None], "U8"


def transposed(draft):
    draft.each("A", np.transpose, "0.self_attn.v_proj")


def shorter(draft):
    draft.each("B", lambda x: x[:, :4], "2.self_attn.q_proj")


def setting(**settings):
    return lambda draft: draft.config.update(settings)


def file(name, content):
    return lambda draft: draft.instead.update({name: content})


def cutting(name, share):
    return lambda draft: draft.cut.update({name: share})


WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
B, A = "lora_B.weight", "lora_A.weight"
ZIP = b"PK\x03\x04" + bytes(60)
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 9\n"
# the damage, and what the answer must say: of a status in the table, or of an error
DAMAGES = {
    "never trained": (nothing, [f"{B} is zero"]),
    "A zero": (no_A, [f"{A} is zero"]),
    "A and B zero": (neither, [f"{A} and {B} are zero"]),
    "one layer idle": (idle_layer, ["layers.2.self_attn.q_proj", "layers.2.self_attn.v_proj", f"{B} is zero"]),
    "alpha 0": (setting(lora_alpha=0), ["alpha is 0"]),
    "alpha pattern 0": (setting(alpha_pattern={"v_proj": 0}), ["v_proj", "alpha is 0"]),
    "wrong dtype, integers": (integers, ["layers.0.self_attn.q_proj", "int32"]),
    "underflow in half precision": (underflow, [f"{B} is zero", "too small for float16"]),
    "A and B miss each other": (disjoint, [f"wherever a column of {B} is not zero, the row of {A} is"]),
    "one module NaN": (one_nan, ["layers.1.self_attn.v_proj", f"{B} holds NaN"]),
    "all NaN after divergence": (all_nan, [f"{A} holds NaN"]),
    "a single infinity": (infinity, ["layers.0.self_attn.q_proj", f"{A} holds an infinite value"]),
    "overflow in half precision": (overflow, ["layers.3.self_attn.q_proj", f"{B} holds an infinite value"]),
    "product overflows": (product, ["layers.0.self_attn.q_proj", "their product overflows"]),
    "alpha NaN": (setting(lora_alpha=float("nan")), ["lora_alpha", "NaN"]),
    "missing layer": (missing_layer, ["layers.2.self_attn.q_proj", "layers.2.self_attn.v_proj"]),
    "missing B": (lambda draft: draft.tensors.pop(key(1, "q_proj", "B")), ["layers.1.self_attn.q_proj", "lora_B"]),
    "a whole target is missing": (setting(target_modules=["q_proj", "v_proj", "o_proj"]), ["o_proj"]),
    "tied head only": (tied_head, ["no LoRA"]),
    "no tensors": (lambda draft: draft.tensors.clear(), [WEIGHTS]),
    "no configuration": (file(CONFIG, None), [CONFIG]),
    "DoRA without magnitudes": (setting(use_dora=True), ["magnitude", "use_dora"]),
    "saved module is missing": (setting(modules_to_save=["lm_head"]), ["modules_to_save", "lm_head"]),
    "ZeRO-3, all modules": (shards, [key(0, "q_proj", "A"), "DeepSpeed ZeRO-3"]),
    "ZeRO-3, flat placeholders in two layers": (placeholders, [key(2, "q_proj", "A"), key(3, "v_proj", "B")]),
    "made-up module": (made_up, ["blorp.wobble.0.q", "blorp.wobble.3.v", "the base has no such module"]),
    "names of another base": (gpt2, ["transformer.h.0.attn.c_attn", "the base has no such module"]),
    "prefix twice": (lambda draft: draft.rename(lambda x: f"base_model.model.{x}"), ["PEFT does not find"]),
    "prefix of torch.compile": (
        lambda draft: draft.rename(lambda x: x.replace("l.model.", "l._orig_mod.model.")), ["_orig_mod"],
    ),
    "more layers than the base": (fifth_layer, ["layers.4.self_attn.q_proj", "the base has no such module"]),
    "pattern that matches nothing": (setting(rank_pattern={"q_prj": 8}), ["rank_pattern", "q_prj", "q_proj"]),
    "wrong rank in the configuration": (setting(r=16), ["rank 8", "16"]),
    "transposed A": (transposed, ["layers.0.self_attn.v_proj", "(64, 8)"]),
    "A and B of different ranks": (shorter, ["layers.2.self_attn.q_proj", "(8, 64)", "(64, 4)"]),
    "a larger model of the same family": (wider, ["layers.0.self_attn.q_proj", "another shape"]),
    "wrong dtype, packed four-bit": (packed, ["layers.0.self_attn.q_proj", "uint8"]),
    "truncated download": (cutting(WEIGHTS, 0.6), [WEIGHTS]),
    "Git LFS pointer": (file(WEIGHTS, POINTER), [WEIGHTS, "LFS"]),
    "pickle under the wrong name": (file(WEIGHTS, ZIP), [WEIGHTS]),
    "broken configuration": (cutting(CONFIG, 0.5), [CONFIG]),
}  # fmt: skip


def test_every_damage_of_the_list_is_built():
    assert DAMAGES.keys() == CASES.keys()
    assert len(CASES) == 40


def damaged(name, folder):
    draft = Draft()
    DAMAGES[name][0](draft)
    return draft.write(folder / "adapter"), draft.base


def test_the_reference_is_fine(tmp_path):
    folder = Draft().write(tmp_path / "adapter")
    found = adapters.check(folder, base=BASE)
    fine = {row.runtime for row in found.rows if row.status == "fine"}
    assert fine == {"peft", "vllm", "sglang", "llama.cpp", "tensorrt-llm"}
    assert {row.runtime for row in found.rows if row.status != "fine"} == {"mlx"}  # another format
    assert (
        run(["check", str(folder), "--base", str(tmp_path / "config.json"), "--for", "vllm"]) == 0
    )


@pytest.mark.parametrize("name", DAMAGES)
def test_no_damaged_adapter_is_fine_and_the_cause_is_named(tmp_path, name, capsys):
    folder, base = damaged(name, tmp_path)
    status, named = CASES[name]["status"], DAMAGES[name][1]
    try:
        found = adapters.check(folder, base=base)
    except (FileError, ValueError) as error:
        text, code = str(error), 1
    else:
        text, code = "", 3
        for row in found.rows:
            text += f"{row.module}: {row.status}: {row.why}\n"
        text += "\n".join(found.notes)
        for program in {row.runtime for row in found.rows}:
            assert any(row.status != "fine" for row in found.rows if row.runtime == program)
        if status in ("zero", "not finite", "absent", "empty"):
            assert {row.status for row in found.rows} >= {status}
            sound = {
                row.module for row in found.rows if row.status == "fine" and row.runtime == "peft"
            }
            assert not any(row.module in sound for row in found.rows if row.status == status)
    assert [word for word in named if word not in text] == []
    arguments = ["check", str(folder), "--base", str(tmp_path / "config.json")]
    assert run(arguments) == code
    assert run([*arguments, "--for", "vllm"]) == code
    capsys.readouterr()


def test_zero_nan_and_infinity_are_found_wherever_they_are():
    """Of random modules, in any entry of either factor; and where only a product is zero."""
    for seed in few(range(40), 10):
        rng = np.random.default_rng(seed)
        r, d, k = rng.integers(1, 5, 3)
        factors = {"A": rng.normal(size=(r, k)), "B": rng.normal(size=(d, r))}
        sound = AdapterModule.of(**factors, alpha=1.0)
        assert fault_of("q", sound) is None
        part = "AB"[seed % 2]
        place = tuple(rng.integers(factors[part].shape))
        for bad, what in ((np.nan, "NaN"), (np.inf, "infinite"), (-np.inf, "infinite")):
            changed = {name: x.copy() for name, x in factors.items()}
            changed[part][place] = bad
            fault = fault_of("q", AdapterModule.of(**changed, alpha=1.0))
            assert fault.status == "not finite"
            assert f"{part} holds" in fault.why
            assert what in fault.why
        # [B, -B] [A; A] is zero, though no factor is; [B, B] [A; A] is not
        for sign in (-1, 1):
            A, B = np.vstack([factors["A"]] * 2), np.hstack([factors["B"], sign * factors["B"]])
            fault = fault_of("q", AdapterModule.of(A=A, B=B, alpha=1.0))
            assert (fault is None) == (sign == 1)
        zero = AdapterModule.of(**{**factors, part: 0 * factors[part]}, alpha=1.0)
        assert fault_of("q", zero).why.startswith(f"{part} is zero")


@pytest.mark.parametrize("part", ["magnitude", "bias"])
def test_a_magnitude_or_a_bias_may_act_without_b(part):
    huge = np.full((2, 1), 1e30, np.float32)
    make = lambda B: AdapterModule.of(A=huge.T, B=B, alpha=1, **{part: np.ones(2)})
    assert fault_of("q", make(0 * huge)) is None
    assert fault_of("q", make(huge)).status == "not finite"


def test_what_was_made_in_memory_lacks_no_module():
    """It has no target_modules, which would select more."""
    module = AdapterModule.of(A=np.ones((1, 64)), B=np.ones((64, 1)), alpha=1)
    adapter = Adapter({"model.layers.2.self_attn.q_proj": module})
    for base in (BASE, None):
        assert adapters.check(adapter, runtime="peft", base=base).fine


def test_merge_and_convert_blame_the_adapter(tmp_path):
    """And the base for its own NaN."""
    folder, _ = damaged("one module NaN", tmp_path)
    name = "'model.layers.1.self_attn.v_proj' is not finite: lora_B.weight holds NaN"
    base = tmp_path / "base"
    base.mkdir()
    weights = {f"model.layers.{i}.self_attn.{m}.weight": np.ones((n, 64), np.float32)
               for i in range(4) for m, n in WIDTHS.items()}  # fmt: skip
    safetensors.save(weights, base / "model.safetensors")
    (base / "config.json").write_text(json.dumps(BASE))
    for operation in (
        lambda: adapters.merge(base, folder, tmp_path / "merged"),
        lambda: adapters.convert(folder, tmp_path / "mlx", to="mlx"),
        lambda: adapters.convert(folder, tmp_path / "portable", to="portable"),
    ):
        with pytest.raises(FileError) as caught:
            operation()
        assert str(caught.value) == f"{folder}: {name}"
    assert not {x.name for x in tmp_path.iterdir()} & {"merged", "mlx", "portable"}
    weights["model.layers.0.self_attn.q_proj.weight"][0, 0] = np.nan
    safetensors.save(weights, base / "model.safetensors")
    sound = Draft().write(tmp_path / "sound")
    with pytest.raises(
        FileError, match=r"base.*safetensors: 'model\.layers\.0\.self_attn\.q_proj\.weight' is not"
    ):
        adapters.merge(base, sound, tmp_path / "merged")


def test_inspect_says_the_same_as_check(tmp_path):
    folder, _ = damaged("one module NaN", tmp_path)
    found = adapters.inspect(folder)
    assert [row.name for row in found.rows if row.status == "NOT FINITE"] == [
        "model.layers.1.self_attn.v_proj"
    ]
    assert found.notes == ("NOT FINITE: model.layers.1.self_attn.v_proj: lora_B.weight holds NaN",)


def test_a_nan_in_what_is_saved_in_full_is_named():
    """An embedding, say: its own name, not that of a module."""
    full = {"lm_head.weight": adapters.adapter.in_memory(np.array([[np.nan]]))}
    adapter = Adapter(dict(drawn(LLAMA)), full)
    with pytest.raises(FileError, match=r"'lm_head\.weight' is not finite: it holds NaN"):
        check_finite(adapter)
    rows = adapters.check(adapter, runtime="comfyui").rows
    assert {row.module for row in rows if row.status == "not finite"} == {"lm_head.weight"}


def test_without_a_base_what_it_would_tell_is_not_known(tmp_path):
    """A layer may be missing on purpose: the base, or the config, tells."""
    folder, _ = damaged("missing layer", tmp_path)
    rows = adapters.check(folder, runtime="vllm").rows
    assert [row.status for row in rows if row.module == ALL] == ["not known"]
    (tmp_path / "some").mkdir()
    draft = Draft()
    missing_layer(draft)
    draft.config["layers_to_transform"] = [0, 1, 3]
    assert adapters.check(
        draft.write(tmp_path / "some" / "adapter"), runtime="vllm", base=BASE
    ).fine
