"""Tiny models of every family, with unusual shapes, against transformers and PEFT."""

import json
import warnings

import numpy as np
import pytest

import lora_np as lnp
from lora_np import adapters, language

from .conftest import byte_level, checkpoint_name
from .family_cases import SIZE, data, torch_loss

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


def in_double(model, ours):
    """Let the peer compute in float64 what it computes in float32 whatever the model's dtype."""

    def angles(x, position_ids, **_):
        n = int(position_ids.max()) + 1
        cos, sin = (a[:, 0] for a in ours.turns(slice(n), n, np.dtype(float)))
        # ours are those of the halves, with their signs
        sin = sin * np.repeat([-1, 1], sin.shape[1] // 2)
        return torch.tensor(cos)[None], torch.tensor(sin)[None]

    model.model.rotary_emb.forward = angles
    for module in model.modules():
        kind = type(module).__name__
        if hasattr(module, "embed_scale"):
            module.embed_scale = torch.tensor(model.config.hidden_size**0.5, dtype=torch.float64)
        if kind.endswith("RMSNorm"):
            eps = getattr(module, "eps", None) or module.variance_epsilon
            weight = module.weight + 1 if kind.startswith("Gemma") else module.weight
            module.forward = lambda x, w=weight.detach(), eps=eps: (
                w * x / torch.sqrt(x.square().mean(-1, keepdim=True) + eps)
            )


def opened(model, folder, dtype):
    model.save_pretrained(folder)
    return language.load(folder, dtype=dtype)


def closeness(one, other):
    one, other = (
        np.asarray(one),
        other.detach().numpy() if hasattr(other, "detach") else np.asarray(other),
    )
    assert one.shape == other.shape
    return np.abs(one - other).max() / np.abs(other).max()


DTYPES = [(torch.float32, np.float32, 1e-5), (torch.float64, np.float64, 1e-10)]


@pytest.mark.parametrize(("dtype", "ours", "limit"), DTYPES, ids=["float32", "float64"])
@pytest.mark.parametrize("case", CASES)
def test_logits_loss_and_gradients_are_those_of_transformers_and_peft(
    case, dtype, ours, limit, tmp_path
):
    theirs = peer(case, dtype)
    model = opened(theirs, tmp_path / "base", ours)
    if dtype == torch.float64:
        turning = next(layer for layer in model.model.layers if layer.self_attn.rotary)
        in_double(theirs, turning.self_attn.rotary)
    tokens, labels = data()
    assert closeness(model(tokens), theirs(torch.tensor(tokens)).logits) < limit
    assert (
        closeness(language.composed_operations(model)(tokens), theirs(torch.tensor(tokens)).logits)
        < limit
    )

    settings = peft.LoraConfig(
        r=3, lora_alpha=7, target_modules="all-linear", init_lora_weights=False
    )
    torch.manual_seed(3)
    adapted = peft.get_peft_model(theirs, settings)
    adapted.save_pretrained(tmp_path / "adapter")
    mine = adapters.attach(model, adapters.load(tmp_path / "adapter"))
    if ours is np.float64:  # PEFT keeps its factors in float32
        adapted = adapted.double()
        mine = lnp.replace(mine, lnp.Tensor, lambda path, t: lnp.Tensor(t.data.astype(float)))
    loss, expected = language.token_loss(mine, tokens, labels), torch_loss(adapted, tokens, labels)
    assert closeness(loss.data, expected) < limit
    loss.backward()
    expected.backward()
    gradients = {
        name.removeprefix("base_model.model."): p.grad
        for name, p in adapted.named_parameters()
        if p.requires_grad
    }
    compared = 0
    for path, leaf in lnp.trainable(mine):
        module, _, factor = path.rpartition(".")
        name = f"{module}.lora_{factor}.default.weight"
        assert closeness(leaf.grad, gradients[name]) < limit, path
        compared += 1
    assert compared == len(gradients) == 3 * 7 * 2


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
    tokens, _ = data()
    assert closeness(language.load(folder)(tokens), theirs(torch.tensor(tokens)).logits) < 1e-5


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
    assert closeness(lnp.value(mine(tokens)), adapted(torch.tensor(tokens)).logits) < 1e-5
    loss, expected = language.token_loss(mine, tokens, labels), torch_loss(adapted, tokens, labels)
    assert closeness(loss.data, expected) < 1e-5
    loss.backward()
    expected.backward()
    gradients = [p.grad.numpy() for p in adapted.parameters() if p.requires_grad]
    ours = [leaf.grad for _, leaf in lnp.trainable(mine)]
    assert len(ours) == len(gradients) == 2 * (2 + 3)
    for gradient in ours:  # the two trees list their parts in different orders
        same = [closeness(gradient, g) for g in gradients if g.shape == gradient.shape]
        assert min(same) < 1e-5


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
    trained = [p for p in adapted.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-2, weight_decay=0.01)
    for step in range(20):
        tokens, labels = data(seed=step)
        loss, expected = (
            language.token_loss(mine, tokens, labels),
            torch_loss(adapted, tokens, labels),
        )
        assert loss.item() == pytest.approx(expected.item(), rel=1e-4 if step else 1e-6)
        loss.backward()
        run.step()
        optimizer.zero_grad()
        expected.backward()
        optimizer.step()
    # ours opens in PEFT, with the same logits
    adapters.save(mine, tmp_path / "ours")
    base = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    again = peft.PeftModel.from_pretrained(base, tmp_path / "ours").eval()
    assert closeness(lnp.value(mine(tokens)), again(torch.tensor(tokens)).logits) < 1e-5
    # and theirs opens here
    adapted.save_pretrained(tmp_path / "theirs")
    read = adapters.attach(model, adapters.load(tmp_path / "theirs"))
    assert closeness(lnp.value(read(tokens)), adapted(torch.tensor(tokens)).logits) < 1e-5


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
        lnp.inject(model, rank=2, rng=0, targets=[target]),
        lnp.Tensor,
        lambda path, t: lnp.Tensor(rng.normal(size=t.shape).astype(np.float32)),
    )
    language.save(lnp.merge(adapted), tmp_path / "ours")
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours").eval()
    tokens, _ = data()
    assert closeness(lnp.value(adapted(tokens)), again(torch.tensor(tokens)).logits) < 1e-5
    assert (
        closeness(language.load(tmp_path / "ours")(tokens), again(torch.tensor(tokens)).logits)
        < 1e-5
    )


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
