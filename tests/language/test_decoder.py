"""Tiny models of every family, with unusual shapes, against transformers and PEFT."""

import json
import warnings

import numpy as np
import pytest

import lora_np as lnp
from lora_np import adapters, language
from tests.language.conftest import byte_level, checkpoint_name
from tests.language.family_cases import SIZE, data, torch_loss
from tests.rounding import assert_as_near, error, in_double, torch_in_double

pytestmark = [
    pytest.mark.peers,
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated"),
]
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")
tokenizers = pytest.importorskip("tokenizers")


def rope(kind, **settings):
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 500.0, **settings}}


LLAMA3 = {
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 3.0,
    "original_max_position_embeddings": 16,
}
YARN = {"factor": 4.0, "original_max_position_embeddings": 16}
CASES = {
    "llama": ("Llama", {"tie_word_embeddings": True}),
    "llama-biases": ("Llama", {"attention_bias": True, "mlp_bias": True, "head_dim": 10}),
    "llama-one-head": ("Llama", {"num_attention_heads": 1, "num_key_value_heads": 1}),
    "llama-linear": ("Llama", rope("linear", factor=3.0)),
    "llama-dynamic": ("Llama", {**rope("dynamic", factor=2.0), "max_position_embeddings": 11}),
    "llama-llama3": ("Llama", rope("llama3", **LLAMA3)),
    "llama-yarn": ("Llama", {**rope("yarn", **YARN), "head_dim": 16}),
    "mistral": ("Mistral", {"sliding_window": 7, "head_dim": 6}),
    "mistral-all": ("Mistral", {"sliding_window": None}),
    "qwen2": ("Qwen2", {"tie_word_embeddings": True}),
    "qwen2-windows": (
        "Qwen2",
        {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1},
    ),
    "qwen3": ("Qwen3", {"head_dim": 8}),
    "smollm3": ("SmolLM3", {"no_rope_layer_interval": 2}),
    "smollm3-windows": (
        "SmolLM3",
        {"no_rope_layer_interval": 2, "use_sliding_window": True, "sliding_window": 4},
    ),
    "gemma": ("Gemma", {"head_dim": 12, "hidden_act": "gelu_pytorch_tanh"}),
}


def peer(case, dtype=torch.float32, seed=0):
    """A model of transformers with random weights, norms and biases included."""
    torch.manual_seed(seed)
    family, changes = CASES[case]
    config = getattr(transformers, f"{family}Config")(**{**SIZE, **changes})
    model = getattr(transformers, f"{family}ForCausalLM")(config).to(dtype).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.3)
    return model


def opened(model, folder, dtype):
    model.save_pretrained(folder)
    return language.load(folder, dtype=dtype)


def twenty_steps(model):
    """The losses of a model that torch trains."""
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-2, weight_decay=0.01)
    losses = []
    for step in range(20):
        loss = torch_loss(model, *data(seed=step))
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return np.array(losses)


def assert_same_logits(ours, theirs):
    """In float32, judged from theirs in float64; `ours` are logits, or a model."""
    tokens = torch.tensor(data()[0])
    logits = ours(tokens.numpy()) if callable(ours) else ours
    assert_as_near(logits, theirs(tokens).logits, torch_in_double(theirs)(tokens).logits)


def results(model, tokens, labels):
    """Logits, loss, and gradients by the names that PEFT gives them."""
    loss = language.token_loss(model, tokens, labels)
    loss.backward()
    gradients = {}
    for path, leaf in lnp.trainable(model):
        module, _, factor = path.rpartition(".")
        gradients[f"base_model.model.{module}.lora_{factor}.default.weight"] = leaf.grad
    return model(tokens), loss, gradients


def peer_results(model, tokens, labels):
    loss = torch_loss(model, tokens, labels)
    loss.backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    return model(torch.tensor(tokens)).logits, loss, gradients


@pytest.mark.parametrize("case", CASES)
def test_logits_loss_and_gradients_are_those_of_transformers_and_peft(case, tmp_path):
    theirs = peer(case)
    model = opened(theirs, tmp_path / "base", np.float32)
    tokens, labels = data()
    assert_same_logits(model, theirs)
    assert_same_logits(language.composed_operations(model), theirs)

    settings = peft.LoraConfig(
        r=3, lora_alpha=7, target_modules="all-linear", init_lora_weights=False
    )
    torch.manual_seed(3)
    adapted = peft.get_peft_model(theirs, settings)
    adapted.save_pretrained(tmp_path / "adapter")
    mine = adapters.attach(model, adapters.load(tmp_path / "adapter"))
    exact = peer_results(torch_in_double(adapted), tokens, labels)
    assert len(exact[-1]) == 3 * 7 * 2
    in_float32 = zip(
        results(mine, tokens, labels), peer_results(adapted, tokens, labels), exact, strict=True
    )
    for ours, peers, right in in_float32:
        assert_as_near(ours, peers, right)
    for ours, right in zip(results(in_double(mine), tokens, labels), exact, strict=True):
        assert error(ours, right) < 1e-12


FAMILIES = {
    "llama": "Llama",
    "mistral": "Mistral",
    "qwen2": "Qwen2",
    "qwen3": "Qwen3",
    "smollm3": "SmolLM3",
    "gemma": "Gemma",
}


def same_as_theirs(folder):
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    assert_same_logits(language.load(folder), theirs)


@pytest.mark.parametrize("family", FAMILIES)
def test_fields_that_are_absent_mean_what_they_mean_in_transformers(family, tmp_path):
    """Only the sizes are left in the config: activation, windows, positions, ties are the
    family's.
    """
    torch.manual_seed(0)
    sizes = {**SIZE, "head_dim": 6, "num_hidden_layers": 5}
    model = getattr(transformers, f"{FAMILIES[family]}ForCausalLM")(
        getattr(transformers, f"{FAMILIES[family]}Config")(**sizes)
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.3)
    model.save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    file.write_text(json.dumps({"model_type": family, **sizes}))
    same_as_theirs(tmp_path)


@pytest.mark.parametrize("family", ["mistral", "qwen2", "qwen3", "smollm3"])
def test_windows_and_positions_are_where_transformers_has_them(family, tmp_path):
    """Drawn settings of windows and positions, absent and null among them."""
    torch.manual_seed(0)
    theirs = peer("mistral" if family == "mistral" else family)
    theirs.save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    start = json.loads(file.read_text())
    gone = [
        "use_sliding_window",
        "sliding_window",
        "max_window_layers",
        "layer_types",
        "no_rope_layers",
    ]
    for name in [*gone, "no_rope_layer_interval"]:
        start.pop(name, None)
    rng = np.random.default_rng(0)
    draw = lambda *options: options[rng.integers(len(options))]
    kinds = ["full_attention", "sliding_attention", "full_attention"]
    for _ in range(12):
        said = {"sliding_window": draw(..., None, 3, 8)}
        if family != "mistral":
            said |= {
                "use_sliding_window": draw(..., False, True, True),
                "layer_types": draw(..., None, kinds),
            }
            if not said["use_sliding_window"] or said["sliding_window"] in (None, ...):
                said["layer_types"] = ...  # which transformers does not take together
        if family == "smollm3":
            said |= {
                "no_rope_layers": draw(..., None, [0, 1, 1]),
                "no_rope_layer_interval": draw(..., 2, 3),
            }
        elif family != "mistral":
            said |= {"max_window_layers": draw(..., 0, 1, 2)}
        file.write_text(
            json.dumps(start | {name: value for name, value in said.items() if value is not ...})
        )
        same_as_theirs(tmp_path)


@pytest.mark.parametrize("case", ["qwen2", "smollm3", "mistral"])  # tied, tied by default, not tied
def test_adapters_on_head_and_embedding_are_those_of_peft(case, tmp_path):
    theirs = peer(case)
    model = opened(theirs, tmp_path / "base", np.float32)
    targets = ["lm_head", "embed_tokens", "o_proj"]
    torch.manual_seed(3)
    settings = peft.LoraConfig(r=3, lora_alpha=7, target_modules=targets, init_lora_weights=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT: merging such an adapter would untie the head
        adapted = peft.get_peft_model(theirs, settings)
        adapted.save_pretrained(tmp_path / "adapter", save_embedding_layers=False)
    mine = adapters.attach(model, adapters.load(tmp_path / "adapter"))
    tokens, labels = data()
    assert_same_logits(mine, adapted)
    loss = language.token_loss(mine, tokens, labels)
    loss.backward()
    losses, gradients = [], []
    for model in (adapted, torch_in_double(adapted)):
        losses.append(torch_loss(model, tokens, labels))
        losses[-1].backward()
        gradients.append([p.grad.numpy() for p in model.parameters() if p.requires_grad])
    assert_as_near(loss, *losses)
    ours = [leaf.grad for _, leaf in lnp.trainable(mine)]
    assert len(ours) == len(gradients[0]) == 2 * (2 + 3)
    # the two trees list their parts in different orders
    same = [
        min(
            (i for i, right in enumerate(gradients[1]) if right.shape == gradient.shape),
            key=lambda i: error(gradient, gradients[1][i]),
        )
        for gradient in ours
    ]
    assert sorted(same) == list(range(len(ours)))
    named = [dict(enumerate(group)) for group in gradients]
    assert_as_near(dict(zip(same, ours, strict=True)), *named)


@pytest.mark.parametrize("case", ["llama", "mistral", "qwen2", "qwen3", "smollm3", "gemma"])
def test_twenty_steps_of_adamw_are_those_of_torch(case, tmp_path):
    theirs = peer(case)
    model = opened(theirs, tmp_path / "base", np.float32)
    adapted = peft.get_peft_model(
        theirs,
        peft.LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"], lora_dropout=0.0),
    )
    adapted.save_pretrained(tmp_path / "start")
    mine = adapters.attach(model, adapters.load(tmp_path / "start"))
    run = lnp.training_run(lnp.AdamW(lr=1e-2, weight_decay=0.01), mine)
    losses = []
    for step in range(20):
        loss = language.token_loss(mine, *data(seed=step))
        losses.append(loss.item())
        loss.backward()
        run.step()
    exact = twenty_steps(torch_in_double(adapted))
    assert_as_near(np.float32(losses), twenty_steps(adapted), exact)
    # ours opens in PEFT, with the same logits
    adapters.save(mine, tmp_path / "ours")
    base = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    again = peft.PeftModel.from_pretrained(base, tmp_path / "ours").eval()
    assert_same_logits(mine, again)
    # and theirs opens here
    adapted.save_pretrained(tmp_path / "theirs")
    read = adapters.attach(model, adapters.load(tmp_path / "theirs"))
    assert_same_logits(read, adapted)


@pytest.mark.parametrize("case", [case for case in CASES if case != "llama-dynamic"])
def test_a_directory_of_ours_opens_in_transformers_with_the_same_greedy_text(case, tmp_path):
    # (with the scaling "dynamic" the peer keeps keys that were turned by the angles of a shorter
    # text)
    model = opened(peer(case, seed=5), tmp_path / "theirs", np.float32)
    letters = "".join(map(chr, range(65, 65 + SIZE["vocab_size"])))
    model = language.build(
        model.config,
        {checkpoint_name(p): a for names, a in lnp.leaves(model) for p in names.split(" = ")}.get,
        vocabulary=language.Characters(letters),
    )
    language.save(model, tmp_path / "ours")
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "ours")
    prompt = "CABBAGE"
    tokens = tokenizer(prompt, return_tensors="pt").input_ids
    said = again.generate(tokens, max_new_tokens=30, do_sample=False)
    assert tokenizer.decode(said[0]) == language.generate(model, prompt, tokens=30, temperature=0)


# tied, tied by default, not tied
@pytest.mark.parametrize("case", ["llama", "smollm3", "gemma", "mistral"])
@pytest.mark.parametrize("target", ["lm_head", "model.embed_tokens"])
def test_a_merged_head_or_embedding_is_the_same_in_transformers(case, target, tmp_path):
    model = opened(peer(case), tmp_path / "theirs", np.float32)
    rng = np.random.default_rng(0)
    adapted = lnp.replace(
        lnp.inject(model, rank=2, alpha=2, rng=0, targets=[target]),
        lnp.Tensor,
        lambda path, t: lnp.Tensor(rng.normal(size=t.shape).astype(np.float32)),
    )
    language.save(lnp.merge(adapted), tmp_path / "ours")
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours").eval()
    assert_same_logits(adapted, again)
    assert_same_logits(language.load(tmp_path / "ours"), again)


def test_bos_is_where_the_default_call_of_transformers_has_it(tmp_path):
    """A byte-level vocabulary whose post-processor puts BOS before, as Llama 3's does; read and
    saved.
    """
    torch.manual_seed(0)
    config = transformers.LlamaConfig(**{**SIZE, "vocab_size": 257, "bos_token_id": 256})
    theirs = transformers.LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.normal_(0, 0.3)
    theirs.save_pretrained(tmp_path / "theirs")
    backend = tokenizers.Tokenizer.from_str(json.dumps(byte_level(special=["<s>"])))
    backend.post_processor = tokenizers.processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 256)]
    )
    transformers.PreTrainedTokenizerFast(tokenizer_object=backend).save_pretrained(
        tmp_path / "theirs"
    )
    model = language.load(tmp_path / "theirs")
    language.save(model, tmp_path / "ours")
    for folder in ("theirs", "ours"):
        tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / folder)
        again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / folder).eval()
        for prompt in ("ab", "The n\u00e9 king", "<s>a"):
            tokens = tokenizer(prompt, return_tensors="pt").input_ids
            assert model.vocabulary.encode(prompt).tolist() == tokens[0].tolist()
            said = again.generate(tokens, max_new_tokens=20, do_sample=False)[0]
            text = tokenizer.decode(said[1:], clean_up_tokenization_spaces=False)
            assert language.generate(model, prompt, tokens=20, temperature=0) == text
