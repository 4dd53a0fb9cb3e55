"""Adapters of PEFT's other tuners: read, merged, made into a LoRA, and judged by PEFT."""

import dataclasses
import json

import numpy as np
import pytest

from lora_np import Linear, Sequential, accounting, adapters
from lora_np.cli import run
from lora_np.files import FileError
from lora_np.hub import safetensors
from lora_np.lora import TUNERS
from tests.drawing import FULL, every, few
from tests.lora.test_tuners import EXACT, SETTINGS, delta_of, example, rng_of
from tests.rounding import assert_as_near, torch_in_double


@pytest.fixture
def written(tmp_path):
    """Write a base of the modules up (16, 12), with a bias, and down (12, 16), and an adapter for
    it.
    """

    def write(kind, settings=(), seed=0, **raw):
        rng = rng_of(kind, seed)
        weights = {"up": rng.normal(size=(16, 12)), "down": rng.normal(size=(12, 16))}
        base, folder = tmp_path / f"base{seed}", tmp_path / f"{kind}{seed}".replace(" ", "-")
        for each in (base, folder):
            each.mkdir(exist_ok=True)
        (base / "config.json").write_text("{}")
        named = {f"{name}.weight": W for name, W in weights.items()} | {
            "up.bias": rng.normal(size=16)
        }
        safetensors.save(named, base / "model.safetensors")
        tensors, prefix = {}, TUNERS[kind].prefix
        for name, W in weights.items():
            own, found, _ = example(kind, *W.shape, seed, **dict(settings))
            if kind == "VERA":  # A and B are saved once
                own = {key: own[key] for key in ("lambda_b", "lambda_d")}
            tensors |= {f"base_model.model.{name}.{prefix}{key}": x for key, x in own.items()}
        if kind == "VERA":
            tensors["base_model.vera_A"] = rng.normal(size=(2, 16))
            tensors["base_model.vera_B"] = rng.normal(size=(16, 2))
        config = {"peft_type": kind.split()[0], "target_modules": ["up", "down"], **found, **raw}
        (folder / "adapter_config.json").write_text(json.dumps(config))
        safetensors.save(tensors, folder / "adapter_model.safetensors")
        return base, folder, named

    return write


KINDS = sorted(SETTINGS)


@pytest.mark.parametrize("kind", KINDS)
def test_merged_is_the_weight_of_the_formula_and_as_lora_too(kind, written, tmp_path):
    base, folder, named = written(kind)
    opened = adapters.load(folder)
    adapters.merge(base, folder, tmp_path / "merged", any_base=True)
    as_lora = adapters.to_lora(folder, base=base, tolerance=0.0, any_base=True)
    adapters.save(as_lora, tmp_path / "lora")
    adapters.merge(base, tmp_path / "lora", tmp_path / "merged-too", any_base=True)
    one, two = (
        safetensors.open(tmp_path / name / "model.safetensors") for name in ("merged", "merged-too")
    )
    for name in named:
        np.testing.assert_allclose(one.read(name), two.read(name), rtol=1e-5, atol=1e-5)
        if name.endswith("weight"):
            module, W = opened[name.removesuffix(".weight")], named[name]
            tensors = {each: part.read() for each, part in module.parts.items()}
            wanted = delta_of(TUNERS[kind], tensors, W, module.tuned.settings)
            np.testing.assert_allclose(one.read(name), W + wanted, atol=1e-9)
            assert np.abs(wanted).max() > 1e-3
    moved = not np.array_equal(one.read("up.bias"), named["up.bias"])
    assert moved == (kind == "IA3")
    found = adapters.inspect(folder, base=base, any_base=True)
    assert found.contents["type"] == TUNERS[kind].name
    assert {row.status for row in found.rows} == {"ok"}
    assert adapters.diff(folder, folder, base=base).same
    assert adapters.diff(folder, tmp_path / "lora", base=base).largest < 1e-5 or moved


def test_what_has_factors_is_exact_without_an_error(written):
    for kind in EXACT:
        base, folder, named = written(kind, {"r": 1} if kind == "LOKR" else ())
        tuner, opened = TUNERS[kind], adapters.load(folder)
        found = adapters.to_lora(folder, base=base if kind == "VERA" else None, any_base=True)
        for name, module in found.items():
            assert (module.tuned, module.scale) == (None, 1.0)
            tensors = {key: part.read() for key, part in opened[name].parts.items()}
            settings = opened[name].tuned.settings
            wanted = delta_of(tuner, tensors, named[f"{name}.weight"], settings)
            assert module.rank == {"LOHA": 4, "LOKR": 3}.get(kind, 2), kind
            np.testing.assert_allclose(module.delta(), wanted, rtol=1e-5, atol=1e-5)


@every("kind", ["IA3", "OFT"])
@every("error", [0.5, 0.1])
def test_the_rank_is_the_smallest_within_the_error(kind, error, written):
    base, folder, named = written(kind)
    rng = rng_of(kind)
    # inputs that lie mostly in a few directions
    inputs = {name: rng.normal(size=(40, W.shape[1])) * 0.5 ** np.arange(W.shape[1])
              for name, W in named.items() if W.ndim == 2 for name in [name.removesuffix(".weight")]}  # fmt: skip
    opened = adapters.load(folder)
    grams = {name: X.T @ X for name, X in inputs.items()}
    for given in ({}, {"grams": grams}):
        found = adapters.to_lora(folder, base=base, tolerance=error, any_base=True, **given)
        for name, module in found.items():
            tensors = {each: part.read() for each, part in opened[name].parts.items()}
            settings = opened[name].tuned.settings
            dW = delta_of(TUNERS[kind], tensors, named[f"{name}.weight"], settings)
            X = inputs[name] if given else np.eye(dW.shape[1])
            products = X @ dW.T
            left = np.linalg.norm(products - X @ module.delta().T) / np.linalg.norm(products)
            best = np.sqrt(np.append(np.cumsum(np.linalg.svdvals(products)[::-1] ** 2)[::-1], 0))
            assert left <= error * (1 + 1e-6)
            assert best[module.rank - 1] / np.linalg.norm(products) > error
    with pytest.raises(FileError, match="no Gram matrix for 'down'"):
        adapters.to_lora(
            folder, base=base, tolerance=error, any_base=True, grams={"up": grams["up"]}
        )


def rewritten(folder, change=None, **raw):
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | raw))
    if change:
        file = safetensors.open(folder / "adapter_model.safetensors")
        tensors = change({key: file.read(key) for key in file.tensors})
        safetensors.save(tensors, folder / "adapter_model.safetensors")
    return folder


@every(
    "kind, raw, why",
    [
        ("LOHA", {"quantum": 3}, "quantum = 3 is not supported for LoHa"),
        ("LOHA", {"r": "two"}, "r must be a whole number"),
        (
            "OFT",
            {"use_cayley_neumann": "yes"},
            "use_cayley_neumann must be true or false, got 'yes'",
        ),
        ("ADALORA", {"use_rslora": True}, "use_rslora = True is not supported for AdaLoRA"),
        ("LOKR", {"rank_pattern": {"up": 3}}, "rank_pattern = {'up': 3} is not supported for LoKr"),
        ("LOKR", {"decompose_both": True}, "decompose_both = True is not supported for LoKr"),
        ("OFT", {"coft": True}, "coft = True is not supported for OFT"),
        ("OFT", {"block_share": True}, "block_share = True is not supported for OFT"),
        ("ADALORA", {"rank_pattern": {"up.lora_E": ["no"]}}, "unsupported operand"),
        ("OFT", {"target_modules": ["up"]}, "'down' is not among the config's target_modules"),
        ("LOHA", {"r": 3}, r"'\w+': on a weight of shape .*, LoHa has"),
        ("LOHA", {"peft_type": "HRA"}, "peft_type = 'HRA' is not supported, only LORA, ADALORA"),
        ("LOHA", {"peft_type": "BEFT"}, "peft_type = 'BEFT' is not supported, only LORA, ADALORA"),
    ],
)
def test_unknown_settings_are_refused_by_name(kind, raw, why, written):
    with pytest.raises(FileError, match=why):
        adapters.load(rewritten(written(kind)[1], **raw))


@every(
    "kind, change, why",
    [
        (
            "LOHA",
            lambda t: t | {"base_model.model.up.hada_t1": np.ones(2)},
            "up' has hada_t1, which is not a tensor",
        ),
        ("LOHA", lambda t: t | {"other": np.ones(2)}, "other' belongs to no LoHa"),
        (
            "VERA",
            lambda t: {key: x for key, x in t.items() if key != "base_model.vera_A"},
            "has no vera_A",
        ),
        (
            "LOKR",
            lambda t: {key: x for key, x in t.items() if "down.lokr_w2" not in key},
            r"LoKr needs a weight of shape \(d, k\), got",
        ),
        (
            "LOHA",
            lambda t: t | {"base_model.model.up.hada_w1_b": np.ones(2)},
            "LoHa has no tensors of such shapes",
        ),
        (
            "LOHA",
            lambda t: (
                t
                | {"base_model.model.up.hada_w1_a": np.ones((2**17, 1))}
                | {"base_model.model.up.hada_w1_b": np.ones((1, 2**17))}
            ),
            "more than 4,294,967,296",
        ),
        (
            "LOHA",
            lambda t: t | {"base_model.model.up.hada_w1_a": np.ones(3)},
            "'up': on a weight of shape",
        ),
        ("LOHA", lambda t: {"base_model.vera_A": np.ones(2)}, "belongs to no LoHa"),
    ],
)
def test_damaged_files_are_refused(kind, change, why, written):
    with pytest.raises(FileError, match=why):
        adapters.load(rewritten(written(kind)[1], change))


def test_what_is_not_a_lora_says_what_it_needs(written, tmp_path):
    for kind, why in (
        ("OFT", "the update of 'down' by OFT depends on the base: pass --base"),
        ("VERA", "the update of 'down' by VeRA"),
    ):
        base, folder, _ = written(kind)
        with pytest.raises(FileError, match=why):
            adapters.to_lora(folder, tolerance=0.1)
        with pytest.raises(FileError, match="is not a LoRA: convert it first"):
            adapters.save(adapters.load(folder), tmp_path / "copy")
        with pytest.raises(FileError, match="is not a LoRA: convert it first"):
            adapters.resize(folder, tmp_path / "copy", rank=1)
        with pytest.raises(FileError, match="is not a LoRA: convert it first"):
            adapters.combine([folder, folder], tmp_path / "copy")
        with pytest.raises(FileError, match="is not a LoRA: convert it first"):
            adapters.attach(Linear(np.ones((16, 12))), folder, names=lambda path: "up")
    wrong = rewritten(folder, lambda t: t | {"base_model.model.up.vera_lambda_b": np.ones(15)})
    with pytest.raises(FileError, match=r"'up': on a weight of shape \(16, 12\), VeRA has"):
        adapters.merge(base, wrong, tmp_path / "merged", any_base=True)


def test_adalora_that_was_pruned(written):
    _, folder, named = written("ADALORA")
    masks = {"up": [True, False], "down": [False, False]}

    def prune(tensors):
        for name, kept in masks.items():
            for part, axis in (("A", 0), ("E", 0), ("B", 1)):
                key = f"base_model.model.{name}.lora_{part}"
                tensors[key] = np.compress(kept, tensors[key], axis=axis)
        return tensors

    pruned = rewritten(
        folder, prune, init_r=2, rank_pattern={f"{name}.lora_E": m for name, m in masks.items()}
    )
    opened = adapters.load(pruned)
    assert {name: module.rank for name, module in opened.items()} == {"up": 1, "down": 1}
    A, E, B = (opened["up"].parts[part].read() for part in "AEB")
    np.testing.assert_allclose(opened.delta("up"), 8 / 2.00001 * B @ (A * E), rtol=1e-5)
    assert not adapters.to_lora(pruned).delta("down").any()
    assert [row.status for row in adapters.inspect(pruned).rows] == ["DEAD", "ok"]
    layers = Sequential([Linear(named[f"{name}.weight"]) for name in masks])
    config = {
        **opened.raw,
        "target_modules": ["0", "1"],
        "rank_pattern": {f"layers.{i}.lora_E": m for i, m in enumerate(masks.values())},
    }
    assert accounting.count(layers, config=config).trainable == 12 + 1 + 16


def test_saved_modules_biases_and_shared_tensors_are_kept_and_counted_once(written):
    base, folder, _ = written("VERA")
    more = {
        "base_model.model.head.weight": np.ones((2, 3)),
        "base_model.model.up.base_layer.bias": np.ones(16),
    }
    opened = adapters.load(
        rewritten(folder, lambda t: t | more, modules_to_save=["head"], bias="vera_only")
    )
    assert sorted(opened.full) == ["head.weight", "up.bias"]
    assert (
        sum(part.size for part in opened.stored) == (16 + 2) + (12 + 2) + 2 * 16 + 16 * 2 + 6 + 16
    )
    converted = adapters.to_lora(opened, base=base, any_base=True)
    assert (sorted(converted.full), converted.raw["bias"]) == (
        ["head.weight", "up.bias"],
        "lora_only",
    )


def test_dora_becomes_a_lora_within_an_error(written, tmp_path):
    base, _, named = written("LOHA")
    rng = rng_of("dora")
    modules = {
        name: adapters.AdapterModule.of(
            A=rng.normal(size=(2, k)),
            B=rng.normal(size=(d, 2)),
            alpha=2,
            magnitude=rng.uniform(1, 2, size=d),
        )
        for name, (d, k) in {"up": (16, 12), "down": (12, 16)}.items()
    }
    dora = adapters.Adapter(
        modules, raw={"peft_type": "LORA", "use_dora": True, "target_modules": [*modules]}
    )
    with pytest.raises(
        FileError, match="the update of 'up' by DoRA depends on the base: pass --base"
    ):
        adapters.to_lora(dora, tolerance=0.1)
    with pytest.raises(FileError, match="DoRA has no exact LoRA with fewer parameters"):
        adapters.to_lora(dora, base=base, any_base=True)
    found = adapters.to_lora(dora, base=base, tolerance=0.05, any_base=True)
    for name, module in modules.items():
        W, tensors = (
            named[f"{name}.weight"],
            {"A": module.A, "B": module.B, "magnitude_vector": module.magnitude},
        )
        dW = TUNERS["LORA use_dora"].delta(tensors, W=W, lora_alpha=2)
        assert np.linalg.norm(found.delta(name) - dW) <= 0.05 * np.linalg.norm(dW)
    (kept,) = adapters.to_lora(
        adapters.Adapter({"up": dataclasses.replace(modules["up"], embedding=True)}, raw=dora.raw),
        base=transposed(base, tmp_path), tolerance=0.05, any_base=True,
    ).values()  # fmt: skip
    assert kept.embedding
    np.testing.assert_allclose(kept.delta(), found.delta("up"), atol=1e-4)


def transposed(base, tmp_path):
    """A base whose weight of up is stored as that of an embedding."""
    (tmp_path / "transposed").mkdir()
    file = safetensors.open(base / "model.safetensors")
    tensors = {"up.weight": np.ascontiguousarray(file.read("up.weight").T)}
    safetensors.save(tensors, tmp_path / "transposed" / "model.safetensors")
    return tmp_path / "transposed"


def test_ia3_in_a_feedforward_module_scales_inputs_and_no_bias(written, tmp_path):
    base, folder, named = written("IA3", {"feedforward": True})
    config = {
        "peft_type": "IA3",
        "target_modules": ["up", "down"],
        "feedforward_modules": ["p", "down"],
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))
    adapters.merge(base, folder, tmp_path / "merged", any_base=True)
    merged = safetensors.open(tmp_path / "merged" / "model.safetensors")
    l = adapters.load(folder)["up"].parts["l"].read()
    np.testing.assert_allclose(merged.read("up.weight"), named["up.weight"] * l)
    np.testing.assert_array_equal(merged.read("up.bias"), named["up.bias"])


def test_the_commands_take_them(written, tmp_path, capsys):
    base, oft, _ = written("OFT")
    _, vera, _ = written("VERA")
    (base / "config.json").write_text(json.dumps({"model_type": "unknown"}))

    def lora_np(*words):
        status = run([str(word) for word in words])
        return status, "".join(capsys.readouterr())

    assert lora_np("merge", base, oft, "-o", tmp_path / "out", "--any-base")[0] == 0
    assert "pass --base" in lora_np("inspect", oft)[1]
    assert "OFT" in lora_np("inspect", oft, "--base", base, "--any-base")[1]
    assert "pass --base" in lora_np("diff", oft, oft)[1]
    assert lora_np("diff", oft, oft, "--base", base)[0] == 0
    assert lora_np("diff", oft, vera, "--base", base)[0] == 3
    settings = {"peft_type": "VERA", "r": 4, "target_modules": ["q_proj"]}
    (vera / "adapter_config.json").write_text(json.dumps(settings))
    said = lora_np("count", "llama-3.2-1b", "--config", vera)[1]
    assert f"trainable params: {16 * (2048 + 4):,} " in said
    (vera / "adapter_config.json").write_text(
        json.dumps(settings | {"target_modules": ["embed_tokens"]})
    )
    assert (
        "VeRA is supported on linear layers, not on"
        in lora_np("count", "llama-3.2-1b", "--config", vera)[1]
    )
    loha = written("LOHA")[1]
    assert "convert it" in lora_np("resize", loha, "--rank", 1, "-o", tmp_path / "small")[1]


@pytest.fixture
def torch():
    torch = pytest.importorskip("torch")
    pytest.importorskip("peft")
    torch.manual_seed(0)
    return torch


def net(torch, seed=0):
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.up, self.down = torch.nn.Linear(12, 16), torch.nn.Linear(16, 12, bias=False)

        def forward(self, x):
            return self.down(torch.tanh(self.up(x)))

    torch.manual_seed(seed)
    return Net()


def weights_of(torch, model):
    """The weight and the bias of each layer, as its forward pass shows them."""
    found = {}
    for name in ("up", "down"):
        layer = getattr(model.base_model.model, name).double()
        size = {"up": 12, "down": 16}[name]
        bias = layer(torch.zeros(1, size, dtype=torch.float64))
        found[f"{name}.weight"] = (
            (layer(torch.eye(size, dtype=torch.float64)) - bias).T.detach().numpy()
        )
        found[f"{name}.bias"] = bias[0].detach().numpy()
    return found


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_every_row_is_what_peft_computes(kind, torch, tmp_path):
    """Merged weights, counts, and the LoRA made of it as PEFT reloads it."""
    import peft

    name, all_of_them = SETTINGS[kind]
    for i, settings in enumerate(
        all_of_them if FULL else all_of_them[:1] + few(all_of_them[1:], 3)
    ):
        model, here = net(torch), tmp_path / str(i)
        (here / "base").mkdir(parents=True)
        (here / "base" / "config.json").write_text("{}")
        base = {key: value.numpy().copy() for key, value in model.state_dict().items()}
        safetensors.save(base, here / "base" / "model.safetensors")
        config = getattr(peft, name)(target_modules=["up", "down"], **settings)
        tuned = peft.get_peft_model(model, config)
        for parameter in tuned.parameters():
            if parameter.requires_grad:
                parameter.data.normal_(0, 0.3)
        tuned.eval().save_pretrained(here / "adapter")
        assert (
            accounting.count(net(torch), config=config).trainable
            == tuned.get_nb_trainable_parameters()[0]
        )
        counted = accounting.count(net(torch), config=here / "adapter")
        assert (counted.trainable, counted.total) == tuned.get_nb_trainable_parameters()
        adapters.merge(here / "base", here / "adapter", here / "merged", any_base=True)
        merged = safetensors.open(here / "merged" / "model.safetensors")
        wanted, exact = weights_of(torch, tuned), weights_of(torch, torch_in_double(tuned))
        converted = adapters.to_lora(
            here / "adapter", base=here / "base", tolerance=0.0, any_base=True
        )
        adapters.save(converted, here / "lora")
        reloaded = weights_of(
            torch, peft.PeftModel.from_pretrained(net(torch), here / "lora").eval()
        )
        for key in base:
            change = np.abs(wanted[key] - base[key]).max()
            assert change > 1e-3 or key == "up.bias"
            for ours in (merged.read(key), reloaded[key]):
                assert_as_near(ours, wanted[key], exact[key], floor=16)


TRANSPOSED = {
    "IA3": {"target_modules": ["c_attn", "mlp.c_proj"], "feedforward_modules": ["mlp.c_proj"]},
    "VERA": {"r": 4},
    "ADALORA": {"init_r": 3, "total_step": 10},
}


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("kind", TRANSPOSED if FULL else [*TRANSPOSED][:2])
def test_weights_that_are_stored_transposed(kind, torch, tmp_path):
    """GPT-2's Conv1D, judged by logits: merged, and as a LoRA that PEFT reloads."""
    import peft

    transformers = pytest.importorskip("transformers")
    sizes = {"n_layer": 2, "n_embd": 12, "n_head": 2, "vocab_size": 40, "n_positions": 16}
    transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes)).save_pretrained(
        tmp_path / "base"
    )
    load, tokens = transformers.GPT2LMHeadModel.from_pretrained, torch.arange(12)[None]
    before = load(tmp_path / "base").eval()(tokens).logits
    asked = {"target_modules": ["c_attn", "c_proj"], "fan_in_fan_out": True} | TRANSPOSED[kind]
    tuned = peft.get_peft_model(load(tmp_path / "base"), getattr(peft, SETTINGS[kind][0])(**asked))
    for parameter in tuned.parameters():
        if parameter.requires_grad:
            parameter.data.normal_(0, 0.3)
    tuned.eval().save_pretrained(tmp_path / "adapter")
    counted = accounting.count(tmp_path / "base", config=tmp_path / "adapter")
    assert counted.trainable == tuned.get_nb_trainable_parameters()[0]
    adapters.merge(tmp_path / "base", tmp_path / "adapter", tmp_path / "merged")
    adapters.save(
        adapters.to_lora(tmp_path / "adapter", base=tmp_path / "base", tolerance=0.0),
        tmp_path / "lora",
    )
    wanted, exact = (model(tokens).logits for model in (tuned, torch_in_double(tuned)))
    assert (wanted - before).norm() > 0.01 * wanted.norm()
    for model in (
        load(tmp_path / "merged"),
        peft.PeftModel.from_pretrained(load(tmp_path / "base"), tmp_path / "lora"),
    ):
        assert_as_near(model.eval()(tokens).logits, wanted, exact)


@every("start", ["pissa", "olora"])
def test_what_began_with_a_part_of_the_base_is_rebased(start, written):
    base, _, named = written("LOHA")
    rng = rng_of(start)
    modules = {
        name: adapters.AdapterModule.of(
            A=rng.normal(size=(2, k)), B=rng.normal(size=(d, 2)), alpha=3
        )
        for name, (d, k) in {"up": (16, 12), "down": (12, 16)}.items()
    }
    raw = {"peft_type": "LORA", "init_lora_weights": start, "target_modules": [*modules]}
    moved = adapters.Adapter(modules, raw=raw)
    with pytest.raises(FileError, match="takes the first B A out of the base"):
        adapters.to_lora(moved)
    found = adapters.to_lora(moved, base=base, any_base=True)
    for name, module in modules.items():
        W = named[f"{name}.weight"]
        U, s, Vh = np.linalg.svd(W)
        Q, R = np.linalg.qr(W)
        taken = U[:, :2] * s[:2] @ Vh[:2] if start == "pissa" else 1.5 * Q[:, :2] @ R[:2]
        assert found[name].rank == 4
        np.testing.assert_allclose(found.delta(name), module.delta() - taken, atol=1e-5)
