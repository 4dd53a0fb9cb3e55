"""Every family that runs, with every kind of adapter, against transformers and PEFT."""

import itertools
import warnings
from zlib import crc32

import numpy as np
import pytest

import lora_np as lnp
from lora_np import adapters, language
from lora_np.language import blocks
from lora_np.models import family_names, family_of
from tests.drawing import FULL, every, twentieth
from tests.language.family_cases import CASES, SIZE, data, torch_loss
from tests.rounding import array, assert_as_near, error, in_double, torch_in_double

pytestmark = [
    pytest.mark.peers,
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated"),
    pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`"),
    pytest.mark.filterwarnings("ignore:Model with `tie_word_embeddings=True`"),
    pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False"),
]
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")

RUNNING = [name for name in family_names() if family_of(name).tables["runs"]]
NAMES = [f"{family}, {what}" if what else family for family, what, _ in CASES]
#: What of PEFT's config makes the kind of an adapter.
KINDS = {
    "plain": {},
    "rslora": {"use_rslora": True},
    "dora": {"use_dora": True},
    "patterns": {
        "rank_pattern": {r"layers\.1|h\.1|.*mlp.*": 2},
        "alpha_pattern": {r".*\.0\..*": 3},
    },
    "layers": {"layers_to_transform": [0, 2], "target_modules": "ends"},
    "bias": {"bias": "all"},
    "bias of the adapted": {"bias": "lora_only", "target_modules": "ends"},
    "saved": {"modules_to_save": "norms"},
    "saved maps": {"modules_to_save": "a map", "target_modules": "ends"},
    "saved head": {"modules_to_save": ["lm_head"]},
    "head and embedding": {"target_modules": "ends of the model"},
    "token rows": {"trainable_token_indices": [1, 4, 30], "target_modules": "ends"},
    "experts": {
        "r": 2,
        "target_parameters": ["experts.gate_up_proj", "experts.down_proj"],
        "target_modules": "ends",
    },
}


def peer(case, dtype=torch.float32, seed=0):
    """A model of transformers with random weights, norms and biases included."""
    family, _, changes = CASES[NAMES.index(case)]
    torch.manual_seed(seed)
    config = transformers.AutoConfig.for_model(family, **{**SIZE, **changes})
    experts = (
        {"experts_implementation": "eager"} if "num_experts_per_tok" in changes else {}
    )  # in float64 too
    model = transformers.AutoModelForCausalLM.from_config(config, **experts).float().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.3)
    return model.to(dtype)


def adapted(theirs, kind, seed=3):
    """PEFT's model with an adapter of this kind, all of which is random."""
    torch.manual_seed(seed)
    settings = {
        "r": 3,
        "lora_alpha": 7,
        "target_modules": "all-linear",
        "init_lora_weights": False,
        **KINDS[kind],
    }
    moe = any(
        "experts" in name for name, _ in theirs.named_parameters()
    )  # PEFT takes down_proj for the experts' too
    linear = {
        name.rpartition(".")[2]
        for name, module in theirs.named_modules()
        if type(module).__name__ in ("Linear", "Conv1D")
        and ("self_attn" in name if moe else name != "lm_head")
    }
    norms = sorted(
        name.rpartition(".")[2]
        for name, _ in theirs.named_modules()
        if "norm" in name or "ln_" in name
    )
    if settings["target_modules"] == "all-linear" and moe:
        settings["target_modules"] = ["q_proj", "k_proj", "v_proj", "o_proj", "shared_expert_gate"]
    if settings["target_modules"] == "ends":
        settings["target_modules"] = sorted(linear)[:2]
    elif settings["target_modules"] == "ends of the model":
        embedding = next(n for n, m in theirs.named_modules() if isinstance(m, torch.nn.Embedding))
        settings["target_modules"] = ["lm_head", embedding.rpartition(".")[2], sorted(linear)[0]]
    if settings.get("modules_to_save") == "a map":
        settings["modules_to_save"] = sorted(linear)[-1:]
    if settings.get("modules_to_save") == "norms":
        settings["modules_to_save"] = [
            each for each in dict.fromkeys(norms) if not each.isdecimal() and each != "norms"
        ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT: of tied heads, and of Conv1D
        model = peft.get_peft_model(theirs, peft.LoraConfig(**settings)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and "lora_" not in name:
                parameter.normal_(0, 0.3)
            elif "magnitude" in name:
                parameter.mul_(1.2)
    return model


def trained_names(model):
    """PEFT's trained parameters by our paths."""
    ends = {
        ".lora_A.default.weight": ".A",
        ".lora_B.default.weight": ".B",
        ".lora_embedding_A.default": ".A",
        ".lora_embedding_B.default": ".B",
        ".lora_magnitude_vector.default.weight": ".m",
        ".token_adapter.trainable_tokens_delta.default": ".rows",
        ".weight": ".W",
        ".bias": ".b",
    }
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            name = name.removeprefix("base_model.model.").replace(".modules_to_save.default.", ".")
            name = name.replace(".experts.base_layer.lora_", ".experts.gate_up_proj.lora_")
            name = name.replace(".experts.lora_", ".experts.down_proj.lora_").replace(
                ".base_layer.", "."
            )
            end = next(end for end in ends if name.endswith(end))
            yield name.removesuffix(end) + ends[end], parameter


def by_expert(path, gradient):
    """A gradient of PEFT's, whose factors of experts are matrices, as a stack of them; others as
    they are.
    """
    if ".experts." not in path:
        return gradient
    r = KINDS["experts"]["r"]
    if path.endswith(".A"):
        return gradient.reshape(-1, r, gradient.shape[1])
    return gradient.reshape(len(gradient), r, -1).transpose(2, 0, 1)


def plain(path):
    """Our path without what wraps a layer."""
    return path.split(" = ")[0].replace(".lora.", ".").replace(".base.", ".")


def watched_routers(patch):
    """The distances, from now on, between what counts just enough to be chosen and what just does
    not.
    """
    margins, call = [], blocks.Routed.__call__

    def routed(self, x, **how):
        scores = -np.sort(-lnp.value(self.router(x.reshape(-1, x.shape[-1]))), axis=1)
        if scores.shape[1] > self.chosen:
            margins.append((scores[:, self.chosen - 1] - scores[:, self.chosen]).min())
        return call(self, x, **how)

    patch.setattr(blocks.Routed, "__call__", routed)
    return margins


def gradients(model, tokens, labels):
    model.zero_grad()
    loss = torch_loss(model, tokens, labels)
    loss.backward()
    grads = {path: array(parameter.grad).copy() for path, parameter in trained_names(model)}
    return loss, {path: by_expert(path, gradient) for path, gradient in grads.items()}


def twenty_steps(model):
    """The losses of a model that torch trains."""
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad], lr=1e-3, weight_decay=0.01
    )
    losses = []
    for step in range(20):
        loss = torch_loss(model, *data(seed=step))
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return np.array(losses)


ROUTED = [name for name, case in zip(NAMES, CASES, strict=True) if "num_experts_per_tok" in case[2]]
#: In an order of its own, so that a twentieth has each family and each kind; then those of one kind of layer.
PAIRS = sorted(itertools.product(NAMES, KINDS), key=lambda pair: crc32(repr(pair).encode()))
APART = {
    "token rows": [("llama, tied", "token rows"), ("gpt_neox", "token rows")],
    "experts": [("mixtral", "experts"), ("qwen2_moe", "experts")],
}
DRAWN = [
    *twentieth([pair for pair in PAIRS if pair[1] not in APART]),
    *([pair for pair in PAIRS if pair[1] == "token rows"] if FULL else APART["token rows"]),
    *(
        [pair for pair in PAIRS if pair[1] == "experts" and pair[0] in ROUTED]
        if FULL
        else APART["experts"]
    ),
]


def test_every_family_that_runs_has_a_case():
    assert {family for family, _, _ in CASES} == set(RUNNING)


@pytest.mark.parametrize(("case", "kind"), DRAWN)
def test_a_family_with_an_adapter(case, kind, tmp_path, monkeypatch):
    """Logits, losses, gradients, twenty steps, files in both directions, merged and opened
    again.
    """
    theirs = peer(case)
    theirs.save_pretrained(tmp_path / "base")
    base = language.load(tmp_path / "base")
    tokens, labels = data()
    here, there = base(tokens), theirs(torch.tensor(tokens)).logits
    assert_as_near(here, there, torch_in_double(theirs)(torch.tensor(tokens)).logits)
    try:
        model = adapted(theirs, kind)
    except ValueError as refused:
        pytest.skip(f"PEFT: {refused}")
    model.save_pretrained(tmp_path / "adapter", save_embedding_layers=False)
    mine = adapters.attach(base, adapters.load(tmp_path / "adapter"))
    wide = torch_in_double(model)
    theirs_32, right = (each(torch.tensor(tokens)).logits for each in (model, wide))
    for ours in (mine, language.composed_operations(mine)):
        assert_as_near(ours(tokens), theirs_32, right)

    loss, single = gradients(model, tokens, labels)
    right_loss, exact = gradients(wide, tokens, labels)
    ours = language.token_loss(mine, tokens, labels)
    assert_as_near(ours, loss, right_loss)
    ours.backward()
    found = {plain(path): leaf.grad for path, leaf in lnp.trainable(mine)}
    assert found.keys() == exact.keys()
    for path, gradient in exact.items():
        conv1d = (
            case.startswith("gpt2")
            and path.endswith(".W")
            and gradient.ndim == 2
            and "lm_head" not in path
        )
        if conv1d:
            found[path] = found[path].T
    assert_as_near(found, single, exact)
    # over thousands of gradients they are as far from float64 as torch's
    errors = [(error(found[path], exact[path]), error(single[path], exact[path])) for path in exact]
    mean, theirs_mean = np.exp(np.mean(np.log(np.maximum(errors, 1e-9)), axis=0))
    assert mean < 1.6 * theirs_mean

    mine = adapters.attach(base, adapters.load(tmp_path / "adapter"))
    run = lnp.training_run(lnp.AdamW(lr=1e-3, weight_decay=0.01), mine)
    losses, ties = [], 20
    for step in range(20):
        with monkeypatch.context() as patch:
            margins = watched_routers(patch)
            loss = language.token_loss(mine, *data(seed=step))
        losses.append(loss.item())
        if min(margins, default=1) < 1e-6:  # which of two experts is better, float32 does not tell
            ties = min(ties, step)
        loss.backward()
        run.step()
    trajectories = (losses, twenty_steps(model), twenty_steps(wide))
    assert_as_near(*(np.float32(each[: ties or 1]) for each in trajectories))

    adapters.save(mine, tmp_path / "ours")
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base").eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        again = peft.PeftModel.from_pretrained(again, tmp_path / "ours").eval()
    merged = lnp.merge(mine)
    language.save(merged, tmp_path / "merged")
    opened = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "merged").eval()
    theirs_32, right = (
        each(torch.tensor(tokens)).logits for each in (again, torch_in_double(again))
    )
    for ours in (mine, merged, language.load(tmp_path / "merged")):
        assert_as_near(ours(tokens), theirs_32, right)
    assert_as_near(opened(torch.tensor(tokens)).logits, theirs_32, right)


@every(("case", "of_head"), [(case, head) for head in (False, True) for case in twentieth(NAMES)])
def test_trained_rows_of_tokens_are_attached_and_merged_into_the_files(
    case, of_head, tmp_path_factory
):
    """With rows of the head that are its own, or those of an embedding to which it may be tied."""
    folder = tmp_path_factory.mktemp("rows")
    theirs = peer(case)
    theirs.save_pretrained(folder / "base")
    name = next(
        n for n, m in theirs.named_modules() if isinstance(m, torch.nn.Embedding)
    ).rpartition(".")[2]
    torch.manual_seed(3)
    model = peft.get_peft_model(
        theirs,
        peft.LoraConfig(
            r=3,
            init_lora_weights=False,
            target_modules=["c_attn", "query_key_value", "v_proj", "qkv_proj"],
            trainable_token_indices={name: [1, 5, 36], **({"lm_head": [5, 7]} if of_head else {})},
        ),
    ).eval()
    with torch.no_grad():
        for path, parameter in model.named_parameters():
            if "trainable_tokens" in path:
                parameter.normal_(0, 0.3)
    model.save_pretrained(folder / "adapter")
    adapters.merge(folder / "base", folder / "adapter", folder / "merged")
    tokens, _ = data()
    tokens[:, ::3] = 5
    theirs_32, right = (
        each(torch.tensor(tokens)).logits for each in (model, torch_in_double(model))
    )
    mine = adapters.attach(language.load(folder / "base"), folder / "adapter")
    for ours in (mine, language.load(folder / "merged")):
        assert_as_near(ours(tokens), theirs_32, right)
    adapters.save(mine, folder / "again")
    again = adapters.attach(language.load(folder / "base"), folder / "again")
    np.testing.assert_array_equal(lnp.freeze(again)(tokens), lnp.freeze(mine)(tokens))


@pytest.mark.parametrize("case", ["llama, dynamic", *twentieth(NAMES)])
def test_greedy_text_with_a_cache_and_padding_on_the_left_is_that_of_transformers(case, tmp_path):
    theirs = peer(case, seed=5)
    theirs.save_pretrained(tmp_path)
    model = language.load(tmp_path)
    letters = "".join(map(chr, range(65, 65 + SIZE["vocab_size"])))
    model = type(model)(**{**vars(model), "vocabulary": language.Characters(letters)})
    prompts = ["CABBAGE", "FACED", "BADGE"]
    rows = [[ord(letter) - 65 for letter in prompt] for prompt in prompts]
    for some in [[row] for row in rows] + [rows]:
        longest = max(map(len, some))
        tokens = torch.tensor([[0] * (longest - len(row)) + row for row in some])
        mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in some])
        said = theirs.generate(
            tokens,
            attention_mask=mask,
            max_new_tokens=30,
            do_sample=False,
            pad_token_id=0,
            eos_token_id=None,
        )
        expected = [
            "".join(letters[i] for i in row[longest - len(start) :])
            for row, start in zip(said, some, strict=True)
        ]
        asked = ["".join(letters[i] for i in row) for row in some]
        if case in ("llama, dynamic", "phi3, longrope") and len(some) > 1:
            # the peer turns all rows by the length of the longest
            expected = [language.generate(model, text, tokens=30, temperature=0) for text in asked]
        assert language.generate(model, asked, tokens=30, temperature=0) == expected


@every("case", twentieth(NAMES))
def test_masks_hide_padding_and_keep_texts_apart(case, tmp_path_factory):
    """A text between others in a row has the logits that it has alone."""
    folder = tmp_path_factory.mktemp("base")
    peer(case).save_pretrained(folder)
    model = language.load(folder)
    rng = np.random.default_rng(0)
    parts = [rng.integers(0, 37, (2, n)) for n in (3, 9, 1, 6)]
    texts = np.repeat([[0, 1, 2, 3]], 2, axis=0).repeat([3, 9, 1, 6], axis=1)
    alone, exact = (
        np.concatenate([each(part) for part in parts], axis=1) for each in (model, in_double(model))
    )
    for each in (model, language.composed_operations(model)):
        together = each(np.concatenate(parts, axis=1), sequence_ids=texts)
        assert_as_near(together, alone, exact)
