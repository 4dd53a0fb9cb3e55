"""Training beside torch + PEFT in float64, our initial weights copied in: the same losses, the same
merged weights.
"""

import numpy as np
import pytest

import lora_np as lnp
from lora_np.lora import DoRALinear, lora_plus

pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore")]

RANK, ALPHA, STEPS = 3, 5.0, 50


def network():
    rng = np.random.default_rng(0)
    return lnp.freeze(
        lnp.Sequential([
            lnp.Linear.init(d_out=8, d_in=6, rng=rng, bias=True),
            lnp.Activation(np.tanh),
            lnp.Linear.init(d_out=5, d_in=8, rng=rng, bias=True),
        ])
    )  # fmt: skip


def data():
    rng = np.random.default_rng(1)
    return rng.normal(size=(40, 6)), rng.normal(size=(40, 5))


def in_torch(model):
    """The base model in torch."""
    import torch

    layers = []
    for layer in model.layers:
        if isinstance(layer, lnp.Activation):
            layers.append(torch.nn.Tanh())
            continue
        linear = torch.nn.Linear(layer.d_in, layer.d_out, dtype=torch.float64)
        linear.weight.data = torch.tensor(lnp.value(layer.W))
        linear.bias.data = torch.tensor(lnp.value(layer.b))
        layers.append(linear)
    return torch.nn.Sequential(*layers)


def in_peft(tuned, base, **settings):
    """``base`` in PEFT with the adapters of ``tuned`` copied in."""
    import torch
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=RANK, lora_alpha=ALPHA, target_modules=["0", "2"], lora_dropout=0.0, **settings
    )
    model = get_peft_model(in_torch(base), config, autocast_adapter_dtype=False)
    for place in (0, 2):
        ours, theirs = tuned.layers[place], model.base_model.model[place]
        if isinstance(ours, DoRALinear):
            theirs.lora_magnitude_vector["default"].weight.data = torch.tensor(lnp.value(ours.m))
            ours = ours.lora
        theirs.base_layer.weight.data = torch.tensor(lnp.value(ours.base.W))
        for factor in ("A", "B"):
            getattr(theirs, f"lora_{factor}")["default"].weight.data = torch.tensor(
                lnp.value(getattr(ours, factor))
            )
    return model


def optimizers(kind, variant):
    """Ours, and torch's on a PEFT model. PEFT's own LoRA+ optimizer stands in its place."""
    import torch
    from peft.optimizers import create_loraplus_optimizer

    rate = 0.05 if kind == "SGD" else 0.01
    decay = 0.0 if kind == "SGD" else 0.02
    ours = lnp.SGD(lr=rate) if kind == "SGD" else lnp.AdamW(lr=rate, weight_decay=decay)
    theirs = getattr(torch.optim, kind)
    if variant != "lora+":
        return ours, lambda model: theirs(
            [p for p in model.parameters() if p.requires_grad], lr=rate, weight_decay=decay
        )
    return lora_plus(ours, ratio=4), lambda model: create_loraplus_optimizer(
        model, theirs, lr=rate, loraplus_lr_ratio=4, loraplus_weight_decay=decay
    )


SETTINGS = {"rslora": {"use_rslora": True}, "dora": {"use_dora": True}}


@pytest.mark.parametrize("kind", ["SGD", "AdamW"])
@pytest.mark.parametrize("variant", ["lora", "rslora", "dora", "lora+", "pissa", "olora"])
def test_the_same_training(variant, kind):
    import torch

    x, y = data()
    base = network()
    tuned = lnp.inject(base, rank=RANK, alpha=ALPHA, variant=variant, rng=np.random.default_rng(2))
    ours, theirs = optimizers(kind, variant)
    result = lnp.fit(tuned, x, y, optimizer=ours, steps=STEPS, progress=False)

    model = in_peft(tuned, base, **SETTINGS.get(variant, {}))
    run = theirs(model)
    losses = []
    for _ in range(STEPS):
        loss = torch.nn.functional.mse_loss(model(torch.tensor(x)), torch.tensor(y))
        losses.append(loss.item())
        run.zero_grad()
        loss.backward()
        run.step()
    np.testing.assert_allclose(result.history.loss, losses, rtol=1e-9)
    assert losses[-1] < 0.95 * losses[0]

    merged, expected = lnp.merge(result.model), model.merge_and_unload()
    for place in (0, 2):
        np.testing.assert_allclose(
            merged.layers[place].W, expected[place].weight.detach().numpy(), rtol=0, atol=1e-9
        )


@pytest.mark.parametrize("bias", ["none", "lora_only", "all"])
def test_the_same_biases_are_trained(bias):
    from peft import LoraConfig, get_peft_model

    base = network()
    tuned = lnp.inject(
        base,
        rank=RANK,
        bias=bias,
        targets=lambda path, layer: path == "layers.0",
        rng=np.random.default_rng(0),
    )
    model = get_peft_model(in_torch(base), LoraConfig(r=RANK, target_modules=["0"], bias=bias))
    theirs = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert sum(leaf.size for _, leaf in lnp.trainable(tuned)) == theirs


@pytest.mark.parametrize("variant", ["pissa", "olora"])
def test_the_same_initial_products(variant):
    from peft import LoraConfig, get_peft_model

    base = network()
    tuned = lnp.inject(base, rank=RANK, alpha=ALPHA, variant=variant, rng=np.random.default_rng(2))
    config = LoraConfig(
        r=RANK, lora_alpha=ALPHA, target_modules=["0", "2"], init_lora_weights=variant
    )
    model = get_peft_model(in_torch(base).float(), config)  # float64 is refused
    for place in (0, 2):
        ours, theirs = tuned.layers[place], model.base_model.model[place]
        A, B = (getattr(theirs, f"lora_{f}")["default"].weight.detach().numpy() for f in "AB")
        digits = {"rtol": 0, "atol": 1e-6}
        np.testing.assert_allclose(ours.delta(), theirs.scaling["default"] * B @ A, **digits)
        np.testing.assert_allclose(ours.base.W, theirs.base_layer.weight.detach().numpy(), **digits)


def test_the_same_embedding():
    import torch
    from peft import LoraConfig, get_peft_model

    rng = np.random.default_rng(0)
    W0, tokens = rng.normal(size=(9, 4)), np.array([[1, 8, 3], [3, 3, 0]])
    layer = lnp.inject(
        lnp.nn.Embedding(W0), rank=RANK, alpha=ALPHA, targets=lambda path, layer: True, rng=rng
    )
    layer.A.data[...] = rng.normal(size=layer.A.shape)
    net = torch.nn.Sequential(torch.nn.Embedding(9, 4, dtype=torch.float64))
    net[0].weight.data = torch.tensor(W0)
    model = get_peft_model(
        net,
        LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=["0"]),
        autocast_adapter_dtype=False,
    )
    theirs = model.base_model.model[0]
    assert not theirs.lora_embedding_A["default"].any()  # zero, as ours
    assert theirs.lora_embedding_B["default"].any()
    theirs.lora_embedding_A["default"].data = torch.tensor(layer.A.data)
    theirs.lora_embedding_B["default"].data = torch.tensor(layer.B.data)
    expected = model(torch.tensor(tokens)).detach().numpy()
    np.testing.assert_allclose(lnp.value(layer(tokens)), expected, atol=1e-12)
    np.testing.assert_allclose(
        lnp.merge(layer).W, model.merge_and_unload()[0].weight.detach().numpy(), atol=1e-12
    )
