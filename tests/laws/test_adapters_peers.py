"""PEFT and transformers as judges: on tiny real models, adapters travel both ways and operations
agree.
"""

import warnings

import numpy as np
import pytest

import lora_np as lnp
from lora_np import adapters
from lora_np.adapters.peft_format import WEIGHTS, targeting
from lora_np.hub import safetensors
from lora_np.lora import MERGE_METHODS, WeightedUpdate
from lora_np.nn import Embedding
from tests.rounding import FLOOR, assert_as_near, torch_in_double

pytestmark = [
    pytest.mark.peers,
    pytest.mark.filterwarnings("ignore::FutureWarning"),  # between PEFT and transformers
]

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")

TOKENS = torch.arange(12).reshape(2, 6)
SMALL = {"vocab_size": 61, "hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 4}


def llama(**kwargs):
    config = transformers.LlamaConfig(
        **SMALL, intermediate_size=40, num_key_value_heads=2, attention_bias=True, **kwargs
    )
    return transformers.LlamaForCausalLM(config)


def qwen2():
    config = transformers.Qwen2Config(
        **SMALL, intermediate_size=40, num_key_value_heads=2, tie_word_embeddings=True
    )
    return transformers.Qwen2ForCausalLM(config)


def gpt2():
    return transformers.GPT2LMHeadModel(
        transformers.GPT2Config(vocab_size=61, n_positions=16, n_embd=24, n_layer=3, n_head=4)
    )


def bert():
    config = transformers.BertConfig(
        **SMALL, intermediate_size=40, max_position_embeddings=16, num_labels=3
    )
    return transformers.BertForSequenceClassification(config)


MODELS = {"llama": llama, "qwen2": qwen2, "gpt2": gpt2, "bert": bert}
QV = ["q_proj", "v_proj"]
CASES = {
    "linear": ("llama", {"target_modules": QV}),
    "all linear": ("llama", {"target_modules": "all-linear"}),
    "expression": ("llama", {"target_modules": r".*\.(q|o)_proj"}),
    "rslora": ("llama", {"target_modules": QV, "use_rslora": True}),
    "dora": ("llama", {"target_modules": QV, "use_dora": True}),
    "lora_bias": ("llama", {"target_modules": QV, "lora_bias": True}),
    "bias all": ("llama", {"target_modules": QV, "bias": "all"}),
    "bias lora_only": ("llama", {"target_modules": QV, "bias": "lora_only"}),
    "patterns": (
        "llama",
        {
            "target_modules": [*QV, "down_proj"],
            "rank_pattern": {r"layers\.0\.self_attn\.q_proj": 2, "v_proj": 6},
            "alpha_pattern": {"^model.layers.1.mlp.down_proj": 5, "v_proj": 32},
        },
    ),
    "patterns and rslora": (
        "llama",
        {"target_modules": QV, "rank_pattern": {"v_proj": 6}, "use_rslora": True},
    ),
    "some layers": ("llama", {"target_modules": QV, "layers_to_transform": [0, 2]}),
    "one layer": (
        "llama",
        {"target_modules": QV, "layers_to_transform": 1, "layers_pattern": "layers"},
    ),
    "saved head": ("llama", {"target_modules": QV, "modules_to_save": ["lm_head", "norm"]}),
    "tied": ("qwen2", {"target_modules": [*QV, "up_proj"]}),
    "conv1d": ("gpt2", {"target_modules": ["c_attn", "c_proj"], "fan_in_fan_out": True}),
    "conv1d dora": (
        "gpt2",
        {"target_modules": ["c_attn", "c_fc"], "fan_in_fan_out": True, "use_dora": True},
    ),
    "conv1d and embedding": ("gpt2", {"target_modules": ["c_attn", "wpe"], "fan_in_fan_out": True}),
    "embedding": ("bert", {"target_modules": ["query", "word_embeddings"]}),
    "embedding dora": ("bert", {"target_modules": ["query", "word_embeddings"], "use_dora": True}),
    "embedding rslora": ("bert", {"target_modules": ["word_embeddings"], "use_rslora": True}),
    "classifier": ("bert", {"target_modules": ["query", "value"], "task_type": "SEQ_CLS"}),
    "saved embedding": ("llama", {"target_modules": ["embed_tokens", "q_proj"]}),
}


def randomize(model):
    """Adapters as if trained: B is not zero, magnitudes and biases are not what they start as."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "magnitude" in name:
                parameter.mul_(1 + 0.3 * torch.rand_like(parameter))
            elif parameter.requires_grad or "lora_" in name:
                parameter.copy_(0.2 * torch.randn_like(parameter))


def logits(model):
    with torch.no_grad():
        return model.eval()(TOKENS).logits.double().numpy()


def adapted(base, config, name="default"):
    model = peft.get_peft_model(
        base, peft.LoraConfig(r=4, lora_alpha=8, **config), adapter_name=name
    )
    randomize(model)
    return model


def loaded(folder, kind=None):
    return getattr(transformers, kind or "AutoModelForCausalLM").from_pretrained(folder)


def opened_by_peft(folder, name, kind=None):
    """PEFT's model of the adapter ``name`` on the base; any warning about its keys is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", FutureWarning)
        return peft.PeftModel.from_pretrained(loaded(folder / "base", kind), folder / name)


@pytest.fixture(params=CASES, ids=str)
def case(request, tmp_path):
    """A base on the disk, and beside it a random adapter that PEFT made for it."""
    torch.manual_seed(list(CASES).index(request.param))
    kind, config = CASES[request.param]
    base = MODELS[kind]()
    base.save_pretrained(tmp_path / "base", max_shard_size="30KB")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = adapted(base, config)
        model.save_pretrained(tmp_path / "adapter")
    return tmp_path, type(base).__name__, model


def test_merging_gives_what_peft_gives(case):
    folder, kind, model = case
    wide = torch_in_double(model)
    before, exact = logits(model), logits(wide)
    adapters.merge(folder / "base", folder / "adapter", folder / "merged")
    merged = loaded(folder / "merged", kind)
    expected, right = (each.merge_and_unload().state_dict() for each in (model, wide))
    for name, parameter in merged.state_dict().items():
        assert_as_near(parameter, expected[name], right[name], floor=2)
    assert_as_near(logits(merged), before, exact)


def test_what_is_saved_again_loads_in_peft_without_a_warning(case):
    folder, kind, model = case
    adapters.save(adapters.load(folder / "adapter"), folder / "again")
    for name in safetensors.open(folder / "adapter" / WEIGHTS).tensors:
        old, new = (
            safetensors.open(folder / which / WEIGHTS).read(name) for which in ("adapter", "again")
        )
        assert old.tobytes() == new.tobytes()
    assert (
        safetensors.open(folder / "again" / WEIGHTS).tensors.keys()
        == safetensors.open(folder / "adapter" / WEIGHTS).tensors.keys()
    )
    again = opened_by_peft(folder, "again", kind)
    np.testing.assert_array_equal(logits(again), logits(model))


def test_an_adapter_composed_anew_loads_in_peft_without_a_warning(case):
    """Ranks, alphas and targets named module by module, as `resize` and `combine` write them."""
    folder, kind, model = case
    adapter = adapters.load(folder / "adapter")
    raw = {
        key: content
        for key, content in adapter.raw.items()
        if key not in ("r", "lora_alpha", "rank_pattern", "alpha_pattern")
    }
    adapters.save(
        adapters.Adapter(adapter.modules, adapter.full, targeting(raw, adapter)), folder / "again"
    )
    again = opened_by_peft(folder, "again", kind)
    assert_as_near(logits(again), logits(model), logits(torch_in_double(model)))


def test_deltas_are_those_of_peft(case):
    folder, _, model = case
    adapter = adapters.load(folder / "adapter")
    for name in adapter:
        layer = model.base_model.model.get_submodule(name)
        transposed = adapter[name].embedding or layer.fan_in_fan_out
        deltas = [
            each.get_delta_weight("default").detach().numpy()
            for each in (layer, torch_in_double(layer))
        ]
        theirs, exact = (delta.T if transposed else delta for delta in deltas)
        assert_as_near(adapter.delta(name), theirs, exact, floor=4)


@pytest.mark.parametrize(
    "config",
    [
        {"target_modules": ["lm_head", "q_proj"]},
        {"target_modules": ["embed_tokens", "q_proj"]},
        {"target_modules": ["embed_tokens", "lm_head"]},
        {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"]},
        {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
    ],
    ids=str,
)
def test_a_tied_head_is_untied_where_one_of_the_two_is_adapted(tmp_path, config):
    """PEFT merges into the shared numbers, and warns; what the adapter computes is the reference
    here.
    """
    torch.manual_seed(0)
    base = qwen2()
    base.save_pretrained(tmp_path / "base", max_shard_size="30KB")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = adapted(base, config)
        model.save_pretrained(tmp_path / "adapter")
    adapters.merge(tmp_path / "base", tmp_path / "adapter", tmp_path / "merged")
    merged = loaded(tmp_path / "merged")
    assert merged.config.tie_word_embeddings is False
    assert_as_near(logits(merged), logits(model), logits(torch_in_double(model)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("kind", ["llama", "qwen2", "gpt2"])
def test_the_merged_directory_gives_pefts_logits_in_its_own_precision(tmp_path, kind, dtype):
    torch.manual_seed(1)
    base = MODELS[kind]().to(dtype)
    base.save_pretrained(tmp_path / "base", max_shard_size="20KB")
    config = (
        {"target_modules": ["c_attn"], "fan_in_fan_out": True}
        if kind == "gpt2"
        else {"target_modules": QV}
    )
    model = adapted(base, config)
    model.save_pretrained(tmp_path / "adapter")
    table = adapters.merge(tmp_path / "base", tmp_path / "adapter", tmp_path / "merged").table
    merged = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype="auto")
    assert merged.dtype == dtype
    rounding = float(torch.finfo(dtype).eps)
    assert_as_near(
        logits(merged), logits(model), logits(torch_in_double(model)), floor=8, unit=rounding
    )
    errors = [row["rounding error"] for row in table.records]
    assert 0 < max(errors) < rounding


COMBINED = {
    "llama": [
        {"r": 4, "lora_alpha": 8, "target_modules": QV},
        {"r": 4, "lora_alpha": 2, "target_modules": ["q_proj", "o_proj"], "use_rslora": True},
        {"r": 4, "lora_alpha": 5, "target_modules": QV},
    ],
    "gpt2": [{"r": 4, "lora_alpha": 8, "target_modules": ["c_attn", "wpe"], "fan_in_fan_out": True}]
    * 2,
    "bert": [
        {"r": 4, "lora_alpha": a, "target_modules": ["query", "word_embeddings"]} for a in (3, 8)
    ],
}


ON_ENTRIES = ["ties", "dare_linear", "dare_ties", "magnitude_prune"]
COMBINATIONS = ["cat", "linear", "svd", *ON_ENTRIES, *(f"{name}_svd" for name in ON_ENTRIES)]


class Replayed(np.random.Generator):
    """Draws that keep the entries which torch kept."""

    def __init__(self, masks):
        super().__init__(np.random.PCG64(0))
        self.masks = masks

    def random(self, shape):
        mask = next(self.masks)
        return 1.0 - (mask if mask.shape == shape else mask.T)  # PEFT turns some updates around


@pytest.mark.parametrize("method", COMBINATIONS)
@pytest.mark.parametrize("kind", COMBINED)
def test_combining_gives_what_add_weighted_adapter_gives(tmp_path, monkeypatch, kind, method):
    torch.manual_seed(2)
    configs = COMBINED[kind]
    names, weights = [f"a{i}" for i in range(len(configs))], [0.7, -1.5, 0.2][: len(configs)]
    options = {} if method in ("cat", "linear", "svd") else {"density": 0.4}
    masks, bernoulli = [], torch.bernoulli
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # In double precision: entries of nearly equal size, and votes that nearly cancel, are
        # sensitive to rounding.
        model = peft.get_peft_model(
            MODELS[kind]().double(), peft.LoraConfig(**configs[0]), adapter_name=names[0]
        )
        for name, config in zip(names[1:], configs[1:], strict=True):
            model.add_adapter(name, peft.LoraConfig(**config))
        randomize(model)
        model.save_pretrained(tmp_path)
        monkeypatch.setattr(torch, "bernoulli", lambda p: masks.append(bernoulli(p)) or masks[-1])
        model.add_weighted_adapter(names, weights, "sum", combination_type=method, **options)
    sources = [adapters.load(tmp_path / name) for name in names]
    if not masks:
        adapters.combine(sources, tmp_path / "sum", weights=weights, method=method, **options)
        ours = adapters.load(tmp_path / "sum")
    drawn = iter([mask.numpy() for mask in masks])
    seen = 0
    for name, layer in model.base_model.model.named_modules():
        terms = [
            WeightedUpdate(*source[name].factors(), weight, source[name].scale)
            for source, weight in zip(sources, weights, strict=True)
            if name in source
        ]
        if not terms:
            continue
        theirs = layer.get_delta_weight("sum").detach().numpy()
        if sources[0].fan_in_fan_out or "embedding" in name or name.endswith("wpe"):
            theirs = theirs.T
        if masks:
            B, A = MERGE_METHODS[method](terms, **options, rng=Replayed(drawn))
            found = B @ A
        else:
            found = ours.delta(name)
        np.testing.assert_allclose(
            found, theirs, rtol=0, atol=1e-6 * np.abs(theirs).max(), err_msg=name
        )
        seen += 1
    assert seen == len({name for source in sources for name in source})
    assert next(drawn, None) is None


def test_peft_applies_the_root_of_the_rank_again_if_the_first_adapter_is_stabilised(tmp_path):
    """Of 0.21; the sum that it computes already has the factor."""
    torch.manual_seed(6)
    config = peft.LoraConfig(r=4, target_modules=QV, use_rslora=True)
    model = peft.get_peft_model(llama(), config, adapter_name="one")
    model.add_adapter("two", peft.LoraConfig(r=4, target_modules=QV))
    randomize(model)
    model.save_pretrained(tmp_path)
    model.add_weighted_adapter(["one", "two"], [1.0, 1.0], "sum", combination_type="cat")
    wide = torch_in_double(model).base_model.model
    adapters.combine([tmp_path / "one", tmp_path / "two"], tmp_path / "sum")
    ours = adapters.load(tmp_path / "sum")
    for name in ours:
        theirs = model.base_model.model.get_submodule(name).get_delta_weight("sum").detach().numpy()
        right = 8**0.5 if peft.__version__ < "0.22" else 1
        exact = wide.get_submodule(name).get_delta_weight("sum").detach().numpy()
        assert_as_near(right * ours.delta(name), theirs, exact, floor=4)


@pytest.mark.parametrize("method", ["cat", "svd"])
def test_combining_different_ranks_gives_what_add_weighted_adapter_gives(tmp_path, method):
    torch.manual_seed(3)
    configs = [
        {"r": 2, "target_modules": QV, "rank_pattern": {"v_proj": 6}},
        {"r": 5, "lora_alpha": 20, "target_modules": [*QV, "down_proj"]},
    ]
    # In double precision: a cut between two singular values that are close is sensitive to
    # rounding.
    model = peft.get_peft_model(llama().double(), peft.LoraConfig(**configs[0]), adapter_name="one")
    model.add_adapter("two", peft.LoraConfig(**configs[1]))
    randomize(model)
    model.save_pretrained(tmp_path)
    model.add_weighted_adapter(["one", "two"], [1.0, 2.0], "sum", combination_type=method)
    adapters.combine(
        [tmp_path / "one", tmp_path / "two"], tmp_path / "sum", weights=[1.0, 2.0], method=method
    )
    ours = adapters.load(tmp_path / "sum")
    for name in ours:
        theirs = model.base_model.model.get_submodule(name).get_delta_weight("sum").detach().numpy()
        np.testing.assert_allclose(
            ours.delta(name), theirs, atol=1e-9 * np.abs(theirs).max(), err_msg=name
        )


@pytest.mark.parametrize(
    "goal", [{"rank": 2}, {"energy": 0.8}, {"total_rank": 12}, {"budget": 6_000}], ids=str
)
def test_a_resized_adapter_is_the_truncated_svd_of_the_product_and_loads_in_peft(tmp_path, goal):
    torch.manual_seed(4)
    base = llama()
    base.save_pretrained(tmp_path / "base")
    adapted(base, {"target_modules": [*QV, "down_proj"], "use_rslora": True}).save_pretrained(
        tmp_path / "adapter"
    )
    adapters.resize(tmp_path / "adapter", tmp_path / "small", **goal)
    before, after = adapters.load(tmp_path / "adapter"), adapters.load(tmp_path / "small")
    model = opened_by_peft(tmp_path, "small")
    for name, module in after.items():
        B, A = (factor.astype(float) for factor in before[name].factors())
        U, s, Vh = np.linalg.svd(before[name].scale * B @ A, full_matrices=False)
        best = (U[:, : module.rank] * s[: module.rank]) @ Vh[: module.rank]
        in_peft = (
            model.base_model.model.get_submodule(name).get_delta_weight("default").detach().numpy()
        )
        for delta in (module.delta(), in_peft):
            assert_as_near(delta, np.float32(best), best, floor=16)


@pytest.mark.parametrize(
    ("kind", "config", "dtype"),
    [
        (
            "llama",
            {"target_modules": [*QV, "lm_head"], "bias": "all", "modules_to_save": ["model.norm"]},
            torch.float32,
        ),
        ("llama", {"target_modules": QV}, torch.bfloat16),
        ("qwen2", {"target_modules": [*QV, "down_proj"]}, torch.float32),
        (
            "gpt2",
            {"target_modules": ["c_attn", "c_proj", "wpe"], "fan_in_fan_out": True},
            torch.float32,
        ),
        (
            "bert",
            {"target_modules": ["query", "word_embeddings"], "task_type": "SEQ_CLS"},
            torch.float32,
        ),
    ],
    ids=str,
)
def test_an_extracted_adapter_leads_peft_from_the_base_to_the_tuned_model(
    tmp_path, kind, config, dtype
):
    torch.manual_seed(5)
    base = MODELS[kind]().to(dtype)
    base.save_pretrained(tmp_path / "base", max_shard_size="30KB")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = adapted(base, config)
        tuned = model.merge_and_unload()
    tuned.save_pretrained(tmp_path / "tuned", max_shard_size="20KB")
    adapters.extract(
        tmp_path / "base", tmp_path / "tuned", tmp_path / "adapter", rank=4, save_others=True
    )
    model = opened_by_peft(tmp_path, "adapter", type(base).__name__).to(dtype)
    unit = float(torch.finfo(dtype).eps)
    floor = FLOOR if dtype is torch.float32 else 16
    assert_as_near(
        logits(model), logits(tuned), logits(torch_in_double(tuned)), floor=floor, unit=unit
    )


class Net(torch.nn.Module):
    """The torch twin of a Sequential of ours: the same weights under the same paths."""

    def __init__(self, model):
        super().__init__()
        self.layers = torch.nn.ModuleList([self.twin(layer) for layer in model.layers])

    @staticmethod
    def twin(layer):
        W = torch.tensor(lnp.value(layer.W))
        if isinstance(layer, Embedding):
            return torch.nn.Embedding.from_pretrained(W)
        twin = torch.nn.Linear(W.shape[1], W.shape[0], bias=layer.b is not None, dtype=W.dtype)
        twin.weight.data = W
        if layer.b is not None:
            twin.bias.data = torch.tensor(lnp.value(layer.b))
        return twin

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"variant": "rslora", "alpha": 3},
        {"variant": "dora"},
        {"variant": "dora", "bias": "lora_only"},
        {"variant": "pissa"},
        {"variant": "olora"},
        {"bias": "all", "targets": lambda path, layer: path == "layers.1"},
        {"train": ["layers.2"]},
        {"targets": lambda path, layer: True},
    ],
    ids=lambda options: " ".join(
        map(str, [*options, options.get("variant", "")])
    ),  # a function has an address
)
def test_what_is_trained_here_loads_in_peft_without_a_warning(tmp_path, options):
    rng = np.random.default_rng(0)
    base = lnp.Sequential(
        [
            Embedding(rng.standard_normal((9, 6))),
            lnp.Linear.init(d_out=7, d_in=6, bias=True, rng=rng),
            lnp.Linear.init(d_out=4, d_in=7, bias=True, rng=rng),
        ]
    )
    tokens, y = np.arange(9), rng.standard_normal((9, 4))
    model = lnp.inject(base, rank=2, rng=rng, **{"alpha": 2} | options)
    model = lnp.fit(model, tokens, y, optimizer=lnp.Adam(lr=0.1), steps=20, progress=False).model
    moved = options.get("variant") in ("pissa", "olora")
    adapters.save(lnp.lora.rebase(model, base) if moved else model, tmp_path / "adapter")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        theirs = peft.PeftModel.from_pretrained(
            Net(base), tmp_path / "adapter", autocast_adapter_dtype=False
        )
    with torch.no_grad():
        np.testing.assert_allclose(
            theirs(torch.tensor(tokens)).numpy(), lnp.freeze(model)(tokens), rtol=1e-9
        )
