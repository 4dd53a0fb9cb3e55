"""Bases are checked; and the names of vision-language models are those that PEFT goes by."""

import json

import numpy as np
import pytest

from lora_np import adapters, language
from lora_np.files import FileError
from lora_np.hub import safetensors
from lora_np.models.dialects import Dialects
from tests.rounding import assert_as_near, torch_in_double


def checkpoint(folder, value, **config):
    folder.mkdir()
    safetensors.save({"model.q_proj.weight": np.full((4, 4), value)}, folder / "model.safetensors")
    (folder / "config.json").write_text(
        json.dumps({"model_type": "llama", "hidden_size": 4} | config)
    )
    return folder


def adapter(folder, base):
    module = adapters.AdapterModule.of(A=np.ones((1, 4)), B=np.ones((4, 1)), alpha=1)
    adapters.save(adapters.Adapter({"model.q_proj": module}), folder, base=base)
    return folder


@pytest.mark.parametrize("base", ["x" * 5000, "\u00e9" * 200, "a\0b", "forbidden/base"])
def test_a_base_that_cannot_be_looked_at_is_not_here(base, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    forbidden = tmp_path / "forbidden"
    forbidden.mkdir(mode=0)
    (source := adapters.load("king-james")).raw["base_model_name_or_path"] = base
    adapters.save(source, "adapter")
    assert adapters.check("adapter", runtime="peft").fine
    assert any("not here" in note for note in adapters.merge("austen", "adapter", "merged").notes)
    adapters.convert("adapter", "mlx", to="mlx")
    forbidden.chmod(0o700)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {"model_type": "qwen3"},
            "model_type is 'qwen3', but 'llama' in .*base: not the same base",
        ),
        ({"hidden_size": 8}, "hidden_size is 8, but 4 in"),
        ({"vision_config": {}, "model_type": "unheard_of"}, "model_type is 'unheard_of'"),
    ],
)
def test_extract_takes_one_base_only(tmp_path, config, message):
    base, tuned = checkpoint(tmp_path / "base", 1.0), checkpoint(tmp_path / "tuned", 2.0, **config)
    with pytest.raises(FileError, match=message):
        adapters.extract(base, tuned, tmp_path / "out", rank=1)
    assert not (tmp_path / "out").exists()
    adapters.extract(base, tuned, tmp_path / "out", rank=1, any_base=True)


def test_names_that_cannot_be_told_are_refused(tmp_path):
    config = {"vision_config": {}, "model_type": "unheard_of"}
    base, tuned = (
        checkpoint(tmp_path / name, i + 1.0, **config) for i, name in enumerate(("base", "tuned"))
    )
    with pytest.raises(FileError, match="module names of a 'unheard_of' model are not known here"):
        adapters.extract(base, tuned, tmp_path / "out", rank=1)


def test_merge_knows_the_base_that_the_adapter_names(tmp_path):
    base, other = (
        checkpoint(tmp_path / "base", 1.0),
        checkpoint(tmp_path / "other", 1.0, model_type="gemma3_text"),
    )
    made = adapter(tmp_path / "adapter", str(base))
    with pytest.raises(
        FileError, match=r"other: model_type is 'gemma3_text', but 'llama' in .*base"
    ):
        adapters.merge(other, made, tmp_path / "out")
    adapters.merge(base, made, tmp_path / "out")
    adapters.merge(other, made, tmp_path / "insisted", any_base=True)


def made_for(folder, name, base=None, library=None):
    """An adapter as PEFT writes it for a model of this class."""
    made = adapter(folder, base)
    config = json.loads((made / "adapter_config.json").read_text())
    library = library or f"transformers.models.{name.lower()}.modeling_{name.lower()}"
    config["auto_mapping"] = {"base_model_class": name, "parent_library": library}
    (made / "adapter_config.json").write_text(json.dumps(config))
    return made


LLAMA = "transformers.models.llama.modeling_llama"


@pytest.mark.parametrize(
    ("config", "refused"),
    [
        ({"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"]}, True),
        ({"model_type": "mistral", "architectures": ["MistralForCausalLM"]}, True),
        ({"model_type": "gemma3_text", "architectures": ["Gemma3ForCausalLM"]}, True),
        ({"model_type": "qwen3"}, True),
        ({"model_type": "stablelm_like", "architectures": ["StableLmLikeForCausalLM"]}, True),
        ({"model_type": "llama", "architectures": ["LlamaForCausalLM"]}, False),
        ({"model_type": "llama", "architectures": ["LlamaModel"]}, False),
        ({"model_type": "llama", "architectures": ["LlamaForSequenceClassification"]}, False),
        ({"model_type": "llama", "architectures": ["LLaMAForCausalLM"]}, False),
        ({"model_type": "internlm3", "architectures": ["InternLM3ForCausalLM"]}, True),
        ({"model_type": "unheard_of"}, False),
        ({"model_type": None}, False),
    ],
)
@pytest.mark.parametrize("name", ["LlamaForCausalLM", "LlamaModel"])
@pytest.mark.parametrize("named", [None, "meta-llama/Meta-Llama-3-8B"])
def test_the_class_that_peft_wrote_down_tells_the_base(tmp_path, config, refused, name, named):
    base = checkpoint(tmp_path / "base", 1.0, **config)
    made = made_for(tmp_path / "adapter", name, named, LLAMA)
    if not refused:
        adapters.merge(base, made, tmp_path / "out")
        adapters.inspect(made, base=base)
        return
    message = (
        f"is of type '{config['model_type']}', but the adapter was made for a {name}: not the same"
    )
    with pytest.raises(FileError, match=message):
        adapters.merge(base, made, tmp_path / "out")
    with pytest.raises(FileError, match=message):
        adapters.inspect(made, base=base)
    assert not (tmp_path / "out").exists()
    adapters.merge(base, made, tmp_path / "out", any_base=True)
    adapters.inspect(made, base=base, any_base=True)


@pytest.mark.parametrize(
    ("name", "library"),
    [
        ("AutoModelForCausalLM", "transformers.models.auto.modeling_auto"),
        ("MyOwn", "__main__"),
        ("LlamaForCausalLM", "somewhere.else"),
        (3, None),
    ],
)
def test_a_class_that_is_not_a_family_of_transformers_tells_nothing(tmp_path, name, library):
    base = checkpoint(tmp_path / "base", 1.0, model_type="qwen3")
    made = made_for(tmp_path / "adapter", str(name), None, library)
    if name == 3:
        config = json.loads((made / "adapter_config.json").read_text()) | {"auto_mapping": 3}
        (made / "adapter_config.json").write_text(json.dumps(config))
    notes = adapters.merge(base, made, tmp_path / "out").notes
    assert any("does not name its base" in note for note in notes)


def test_a_base_that_is_told_by_a_name_only_is_noted(tmp_path):
    base = checkpoint(tmp_path / "tiny", 1.0)
    for i, (name, noted) in enumerate([("org/other", True), ("org/tiny", False), (None, True)]):
        made = adapter(tmp_path / f"adapter{i}", name)
        for notes in (
            adapters.merge(base, made, tmp_path / f"out{i}").notes,
            adapters.inspect(made, base=base).notes,
        ):
            assert (
                any("only the names and shapes of modules were compared" in note for note in notes)
                == noted
            )
    made = adapter(tmp_path / "local", str(base))
    assert not any("compared" in note for note in adapters.inspect(made, base=base).notes)
    assert not any("compared" in note for note in adapters.inspect(made).notes)


def test_combine_takes_adapters_of_one_architecture_only(tmp_path):
    one = made_for(tmp_path / "one", "LlamaForCausalLM", library=LLAMA)
    two = made_for(tmp_path / "two", "Qwen3ForCausalLM")
    with pytest.raises(
        FileError, match=r"two: is for a Qwen3ForCausalLM, but .*one is for a LlamaForCausalLM"
    ):
        adapters.combine([one, two], tmp_path / "out")
    adapters.combine(
        [one, made_for(tmp_path / "body", "LlamaModel", library=LLAMA)], tmp_path / "out"
    )


def language_model(**config):
    sizes = {
        "hidden_size": 8,
        "intermediate_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    sizes |= {"num_key_value_heads": 2, "head_dim": 4}
    config = {
        "model_type": "llama",
        "vocab_size": 5,
        "tie_word_embeddings": True,
        **sizes,
        **config,
    }

    def read(name):
        kinds = {"q_norm": (4,), "k_norm": (4,), "norm": (8,), "embed": (5, 8)}
        if name.endswith(".bias"):
            return None
        return np.ones(next((shape for kind, shape in kinds.items() if kind in name), (8, 8)))

    return language.build(config, read)


def test_attach_knows_the_base_as_merge_does(tmp_path):
    module = adapters.AdapterModule.of(A=np.ones((1, 8)), B=np.ones((8, 1)), alpha=1)
    said = {"base_model_class": "LlamaForCausalLM", "parent_library": LLAMA}
    raw = {"peft_type": "LORA", "auto_mapping": said}
    made = adapters.Adapter({"model.layers.0.mlp.up_proj": module}, raw=raw)
    adapters.attach(language_model(), made)
    qwen = language_model(model_type="qwen3")
    with pytest.raises(
        FileError, match="this model: is of type 'qwen3', but the adapter was made for a Llama"
    ):
        adapters.attach(qwen, made)
    adapters.attach(qwen, made, any_base=True)


def test_a_gguf_of_mistral_calls_it_llama(tmp_path):
    """So does llama.cpp, and the file has no architectures."""
    module = adapters.AdapterModule.of(A=np.ones((1, 8)), B=np.ones((8, 1)), alpha=1)
    base = tmp_path / "mistral"
    base.mkdir()
    config = {"model_type": "mistral", "hidden_size": 8, "rms_norm_eps": 1e-5}
    (base / "config.json").write_text(json.dumps(config))
    said = {
        "base_model_class": "MistralForCausalLM",
        "parent_library": "transformers.models.mistral.modeling",
    }
    raw = {"peft_type": "LORA", "auto_mapping": said, "base_model_name_or_path": str(base)}
    made = adapters.Adapter({"model.layers.0.mlp.up_proj": module}, raw=raw)
    adapters.attach(language_model(rms_norm_eps=float(np.float32(1e-5))), made)
    (base / "config.json").write_text(json.dumps(config | {"hidden_size": 16}))
    with pytest.raises(FileError, match="hidden_size is 8, but 16 in"):
        adapters.attach(language_model(), made)


def test_combine_takes_adapters_of_one_base_only(tmp_path):
    one, two = adapter(tmp_path / "one", "org/llama"), adapter(tmp_path / "two", "org/qwen")
    with pytest.raises(
        FileError, match=r"two: is for the base 'org/qwen', but .*one is for the base 'org/llama'"
    ):
        adapters.combine([one, two], tmp_path / "out")
    adapters.combine([one, two], tmp_path / "out", any_base=True)
    adapters.combine([one, adapter(tmp_path / "any", None)], tmp_path / "fine")


@pytest.mark.parametrize(
    ("model_type", "name", "path"),
    [
        (
            "gemma3",
            "language_model.model.layers.0.mlp.up_proj",
            "model.language_model.layers.0.mlp.up_proj",
        ),
        ("llava", "language_model.lm_head", "lm_head"),
        ("llava", "vision_tower.x", "model.vision_tower.x"),
        ("qwen2_5_vl", "model.layers.0.q", "model.language_model.layers.0.q"),
        ("qwen2_5_vl", "visual.blocks.0", "model.visual.blocks.0"),
        ("qwen2_5_vl", "model.visual.blocks.0", "model.visual.blocks.0"),
        ("qwen2_5_vl", "lm_head", "lm_head"),
        ("llama", "model.layers.0.q", "model.layers.0.q"),
    ],
)
def test_names_as_transformers_renames_them(model_type, name, path):
    assert Dialects({"model_type": model_type}).place(name).parameter == path


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("family", ["gemma3", "qwen2_5_vl"])
def test_an_extracted_adapter_of_a_vision_language_model_works_in_peft(tmp_path, family):
    torch, transformers, peft = map(pytest.importorskip, ("torch", "transformers", "peft"))
    torch.manual_seed(0)
    text = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "vocab_size": 40,
    }
    text |= {"num_key_value_heads": 1, "head_dim": 8}
    if family == "gemma3":
        vision = {
            "hidden_size": 8,
            "intermediate_size": 8,
            "num_hidden_layers": 1,
            "num_attention_heads": 1,
        }
        vision |= {"image_size": 28, "patch_size": 14}
        config = transformers.Gemma3Config(
            text_config=text, vision_config=vision, mm_tokens_per_image=4
        )
        model = transformers.Gemma3ForConditionalGeneration(config)
    else:
        vision = {
            "depth": 1,
            "hidden_size": 8,
            "intermediate_size": 8,
            "num_heads": 1,
            "out_hidden_size": 16,
        }
        text["rope_scaling"] = {"type": "mrope", "mrope_section": [1, 1, 2], "rope_type": "default"}
        config = transformers.Qwen2_5_VLConfig(text_config=text, vision_config=vision)
        model = transformers.Qwen2_5_VLForConditionalGeneration(config)
    model.eval().save_pretrained(tmp_path / "base")
    ids = torch.arange(4, 12)[None]
    before = model(input_ids=ids).logits
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "q_proj.weight" in name and "vision" not in name:
                parameter += 5 * torch.outer(
                    torch.randn(len(parameter)), torch.randn(parameter.shape[1])
                )
    model.save_pretrained(tmp_path / "tuned")
    wanted = model(input_ids=ids).logits
    assert not torch.allclose(before, wanted, atol=1e-2)
    adapters.extract(tmp_path / "base", tmp_path / "tuned", tmp_path / "adapter", rank=1)
    base = type(model).from_pretrained(tmp_path / "base")
    theirs = peft.PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
    adapters.merge(tmp_path / "base", tmp_path / "adapter", tmp_path / "merged")
    merged = type(model).from_pretrained(tmp_path / "merged").eval()
    exact = torch_in_double(model)(input_ids=ids).logits
    for ours in (theirs, merged):
        assert_as_near(ours(input_ids=ids).logits, wanted, exact)
