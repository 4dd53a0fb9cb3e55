"""Files of image models, against formulas of their own: every kind, in every writer's keys."""

import json

import numpy as np
import pytest

from lora_np import adapters
from lora_np.files import FileError
from lora_np.hub import safetensors
from tests.drawing import every, few

SHAPES = [(6, 4), (4, 6), (4, 4), (12, 8)]
KERNELS = [(), (1, 1), (3, 3), (3, 1, 2)]
KINDS = [
    "lora", "locon tucker", "loha", "loha tucker", "lokr", "lokr whole", "lokr both", "lokr tucker", "full",
]  # fmt: skip
PREFIXES = [
    "lora_unet_down_0_to_q", "lora_te_text_model_k", "lora_te2_x", "lycoris_to_out_0", "lora_transformer_a_b",
    "diffusion_model.blocks.0.attn.to_q", "unet.down.0.to_out.0", "transformer.single.1.proj_out",
    "text_encoder_2.layers.0.fc1", "blocks.0.cross_attn.q",
]  # fmt: skip
DIFFUSERS = {"lora_A.weight", "lora_B.weight"}


def tensors_of(kind, shape, kernel, rng, rank=2, alpha=3.0):
    """The tensors of one module by the ends of their keys, and its update by LyCORIS' formulas."""
    d, k = shape
    cells = int(np.prod(kernel))
    flat = (d, k * cells)

    def drawn(*size):
        return rng.standard_normal(size).astype(np.float32)

    def through(core, a, b):  # a (r, d), b (r, k)
        return np.einsum("ij...,io,jc->oc...", core, a, b)

    scale, ones = alpha / rank, (1,) * len(kernel)
    if kind == "lora":
        t = {"lora_down.weight": drawn(rank, k, *kernel), "lora_up.weight": drawn(d, rank, *ones)}
        dW = t["lora_up.weight"].reshape(d, rank) @ t["lora_down.weight"].reshape(rank, -1)
    elif kind == "locon tucker":
        t = {
            "lora_down.weight": drawn(rank, k, *ones),
            "lora_mid.weight": drawn(rank, rank, *kernel),
            "lora_up.weight": drawn(d, rank, *ones),
        }
        up, down = t["lora_up.weight"].reshape(d, rank).T, t["lora_down.weight"].reshape(rank, k)
        dW = through(t["lora_mid.weight"], up, down)
    elif kind == "loha":
        t = {
            f"hada_w{i}_{x}": drawn(*((d, rank) if x == "a" else (rank, flat[1])))
            for i in "12"
            for x in "ab"
        }
        dW = (t["hada_w1_a"] @ t["hada_w1_b"]) * (t["hada_w2_a"] @ t["hada_w2_b"])
    elif kind == "loha tucker":
        t = {f"hada_w{i}_{x}": drawn(rank, d if x == "a" else k) for i in "12" for x in "ab"}
        t |= {f"hada_t{i}": drawn(rank, rank, *kernel) for i in "12"}
        one, two = (through(t[f"hada_t{i}"], t[f"hada_w{i}_a"], t[f"hada_w{i}_b"]) for i in "12")
        dW = one * two
    elif kind == "full":
        t, scale, alpha = {"diff": drawn(d, k, *kernel)}, 1.0, None
        dW = t["diff"]
    else:
        w1 = drawn(2, 2)
        t = {"lokr_w1": w1}
        if kind == "lokr both":
            t = {"lokr_w1_a": drawn(2, 1), "lokr_w1_b": drawn(1, 2)}
            w1 = t["lokr_w1_a"] @ t["lokr_w1_b"]
        if kind == "lokr whole":
            t["lokr_w2"], scale = drawn(d // 2, k // 2, *kernel), 1.0
            w2 = t["lokr_w2"]
        elif kind == "lokr tucker":
            t |= {"lokr_w2_a": drawn(rank, d // 2), "lokr_w2_b": drawn(rank, k // 2)}
            t["lokr_t2"] = drawn(rank, rank, *kernel)
            w2 = through(t["lokr_t2"], t["lokr_w2_a"], t["lokr_w2_b"])
        else:
            t |= {"lokr_w2_a": drawn(d // 2, rank), "lokr_w2_b": drawn(rank, k // 2 * cells)}
            w2 = t["lokr_w2_a"] @ t["lokr_w2_b"]
        w2 = w2.reshape(d // 2, k // 2, cells)
        dW = np.einsum("ab,cde->acbde", w1, w2)
    if alpha is not None:
        t["alpha"] = np.array(alpha, np.float32)
    return t, scale * dW.reshape(flat)


def saved(path, modules, **metadata):
    tensors = {f"{name}.{end}": x for name, parts in modules.items() for end, x in parts.items()}
    safetensors.save(tensors, path, metadata={"format": "pt", **metadata})
    return path


def as_matrix(module):
    return module.delta().reshape(module.shape[0], -1)


@every(
    "kind, shape, kernel",
    few(
        [
            (kind, shape, kernel)
            for kind in KINDS
            for shape in SHAPES
            for kernel in KERNELS
            if kernel or "tucker" not in kind
        ],
        6,
    ),
)
def test_the_update_is_that_of_the_formula_in_every_spelling(tmp_path, kind, shape, kernel):
    rng = np.random.default_rng(0)
    modules, wanted = {}, {}
    for name in PREFIXES:
        modules[name], wanted[name] = tensors_of(kind, shape, kernel, rng)
    found = adapters.load(saved(tmp_path / "a.safetensors", modules))
    assert found.keys() == wanted.keys()
    for name, module in found.items():
        np.testing.assert_allclose(as_matrix(module), wanted[name], rtol=2e-5, atol=2e-5)
        assert module.shape in ((*shape, *kernel), (shape[0], wanted[name].shape[1]))
        B, A = module.factors()  # of the rank that is promised, which resize needs
        np.testing.assert_allclose(module.scale * B @ A, wanted[name], rtol=2e-5, atol=2e-5)
    # written back: its own keys and numbers, and the same update
    (tmp_path / "b.safetensors").unlink(missing_ok=True)
    adapters.convert(tmp_path / "a.safetensors", tmp_path / "b.safetensors", to="kohya")
    again = adapters.load(tmp_path / "b.safetensors")
    for name, module in again.items():
        np.testing.assert_allclose(as_matrix(module), wanted[name], rtol=2e-5, atol=2e-5)
    keys = safetensors.open(tmp_path / "b.safetensors").tensors
    for name, parts in modules.items():
        ends = {key.removeprefix(f"{name}.") for key in keys if key.startswith(f"{name}.")}
        if kind not in ("lora", "full"):
            assert ends == parts.keys()
        elif kind != "full":
            flat = {"lora_down.weight", "lora_up.weight", "alpha"}
            assert ends == (DIFFUSERS if "." in name else flat)


SPELLED = {
    "unet.attn.processor.to_q_lora.{}.weight": "unet.attn.to_q",
    "unet.attn.processor.to_out_lora.{}.weight": "unet.attn.to_out.0",
    "unet.attn.to_k.lora.{}.weight": "unet.attn.to_k",
    "text_encoder.layers.0.q_proj.lora_linear_layer.{}.weight": "text_encoder.layers.0.q_proj",
    "transformer.base_model.model.proj.lora_{}.weight": "transformer.proj",
    "diffusion_model.proj.lora_{}.default_0.weight": "diffusion_model.proj",
    "blocks.0.proj.lora_{}.default.weight": "blocks.0.proj",
    "mochi.proj.lora_{}": "mochi.proj",
}


@pytest.mark.filterwarnings("ignore:.*names are read")
@pytest.mark.parametrize("key", SPELLED)
def test_keys_of_other_writers_name_the_same_module(tmp_path, key):
    down, up = ("A", "B") if "lora_{}" in key else ("down", "up")
    factors = {
        key.format(down): np.ones((2, 4), np.float32),
        key.format(up): np.ones((3, 2), np.float32),
    }
    safetensors.save(factors, tmp_path / "a.safetensors")
    found = adapters.load(tmp_path / "a.safetensors")
    assert [*found] == [SPELLED[key]]
    np.testing.assert_array_equal(
        found.delta(SPELLED[key]), np.full((3, 4), 2.0)
    )  # no alpha: s = 1


@pytest.mark.parametrize(
    ("said", "scale"),
    [
        ({"r": 2, "lora_alpha": 16}, {"to_q": 8.0, "ff": 8.0}),
        ({"r": 2, "lora_alpha": 8, "use_rslora": True}, {"to_q": 8 / 2**0.5, "ff": 8 / 2**0.5}),
        ({"r": 2, "lora_alpha": 2, "alpha_pattern": {"to_q": 6}}, {"to_q": 3.0, "ff": 1.0}),
    ],
    ids=str,
)
def test_diffusers_header_has_the_scales_and_a_folder_is_known(tmp_path, said, scale):
    factors = {
        "lora_A.weight": np.ones((2, 4), np.float32),
        "lora_B.weight": np.ones((3, 2), np.float32),
    }
    header = json.dumps({f"unet.{key}": value for key, value in said.items()})
    path = tmp_path / "pytorch_lora_weights.safetensors"
    saved(path, {"unet.to_q": factors, "unet.ff": factors}, lora_adapter_metadata=header)
    for place in (path, tmp_path):
        found = adapters.load(place)
        assert {
            name.removeprefix("unet."): module.scale for name, module in found.items()
        } == pytest.approx(scale)
    adapters.resize(path, tmp_path / "small.safetensors", rank=1)
    small = adapters.load(
        tmp_path / "small.safetensors"
    )  # the scale is in the numbers, without a header
    for name, module in small.items():
        np.testing.assert_allclose(module.delta(), found.delta(name), rtol=1e-5)
        assert module.scale == 1
    header = json.dumps({"unet.r": 3, "unet.lora_alpha": 3})
    saved(path, {"unet.to_q": factors}, lora_adapter_metadata=header)
    with pytest.raises(FileError, match=r"has rank 2, but the file's header says 3"):
        adapters.load(path)


@pytest.mark.parametrize(("alpha", "dtype"), [(301.0, "bfloat16"), (1e5, "float16")])
def test_an_alpha_is_not_rounded(tmp_path, alpha, dtype):
    made = adapters.AdapterModule.of(A=np.ones((2, 4)), B=np.ones((3, 2)), alpha=alpha)
    path = tmp_path / "a.safetensors"
    adapters.convert(adapters.Adapter({"q": made}), path, to="kohya", dtype=dtype)
    assert {module.alpha for module in adapters.load(path).values()} == {alpha}


@pytest.mark.parametrize("name", ["lora_unet_to_q", "unet.to_q", "diffusion_model.to_q"])
@pytest.mark.parametrize("kernel", [(), (3, 3)])
def test_a_dora_by_outputs_keeps_its_lengths_where_its_programs_look(tmp_path, name, kernel):
    rng = np.random.default_rng(0)
    parts, _ = tensors_of("lora", (4, 4), kernel, rng)
    lengths = rng.standard_normal((4, *(1,) * (1 + len(kernel)))).astype(np.float32)
    saved(tmp_path / "a.safetensors", {name: {**parts, "dora_scale": lengths}})
    adapters.convert(tmp_path / "a.safetensors", tmp_path / "b.safetensors", to="kohya")
    for path in ("a", "b"):
        found = adapters.load(tmp_path / f"{path}.safetensors")[name]
        np.testing.assert_array_equal(found.magnitude, lengths.ravel())
    key = f"{name}.lora_magnitude_vector" if name.startswith("unet") else f"{name}.dora_scale"
    shape = safetensors.open(tmp_path / "b.safetensors").tensors[key].shape
    by_diffusers = (1, 4, 1, 1) if kernel else (4,)
    assert shape == (by_diffusers if name.startswith("unet") else lengths.shape)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["lora_unet_to_q", "transformer.to_q"])
def test_what_is_additive_becomes_a_lora_and_is_resized_and_combined(tmp_path, kind, name):
    kernel = (3, 3) if "tucker" in kind else ()
    parts, wanted = tensors_of(kind, (8, 6), kernel, np.random.default_rng(0))
    path = saved(tmp_path / "a.safetensors", {name: parts})
    adapters.convert(path, tmp_path / "lora.safetensors", to="lora")
    lora = adapters.load(tmp_path / "lora.safetensors")
    assert lora[name].tuned is None
    np.testing.assert_allclose(as_matrix(lora[name]), wanted, rtol=1e-4, atol=1e-4)
    assert adapters.diff(path, tmp_path / "lora.safetensors").same
    s = np.linalg.svd(wanted.astype(np.float64), compute_uv=False)
    result = adapters.resize(path, tmp_path / "small.safetensors", rank=1)
    assert result.rows[0].error == pytest.approx((1 - s[0] ** 2 / np.sum(s**2)) ** 0.5, abs=1e-3)
    small = as_matrix(adapters.load(tmp_path / "small.safetensors")[name])
    assert np.linalg.norm(small - wanted) == pytest.approx(np.linalg.norm(s[1:]), abs=1e-3)
    adapters.combine([path, path], tmp_path / "sum.safetensors", weights=[0.25, 0.5])
    total = as_matrix(adapters.load(tmp_path / "sum.safetensors")[name])
    np.testing.assert_allclose(total, 0.75 * wanted, rtol=1e-4, atol=1e-4)
    row = adapters.inspect(path).rows[0]
    assert row.norm == pytest.approx(np.linalg.norm(wanted), rel=1e-5)
    numbers = sum(x.size for end, x in parts.items() if end != "alpha")
    assert adapters.inspect(path).contents["parameters"] == numbers


def test_norms_and_biases_are_kept_but_not_combined(tmp_path):
    rng = np.random.default_rng(0)
    parts, _ = tensors_of("lora", (4, 6), (), rng)
    others = {"w_norm": rng.standard_normal(4), "b_norm": rng.standard_normal(4)}
    modules = {"lora_unet_q": {**parts, "diff_b": rng.standard_normal(4)}, "lora_unet_norm": others}
    path = saved(tmp_path / "a.safetensors", modules)
    adapters.resize(path, tmp_path / "b.safetensors", rank=1)
    for name, file in (("a", path), ("b", tmp_path / "b.safetensors")):
        found = adapters.load(file).full
        assert found.keys() == {
            "lora_unet_q.diff_b",
            "lora_unet_norm.w_norm",
            "lora_unet_norm.b_norm",
        }, name
        np.testing.assert_array_equal(found["lora_unet_norm.w_norm"].read(), others["w_norm"])
    with pytest.raises(FileError, match=r"'lora_unet_.*' changes a bias or a norm"):
        adapters.combine(
            [path, path], tmp_path / "c.safetensors", weights=[0.5, 0.5], on_conflict="first"
        )


def _without(kind, part):
    parts, _ = tensors_of(
        kind, (4, 6), (3, 3) if "tucker" in kind else (), np.random.default_rng(0)
    )
    del parts[part]
    return parts


def _with(kind, **others):
    parts, _ = tensors_of(kind, (4, 6), (), np.random.default_rng(0))
    return {**parts, **others}


ONES = np.ones((4, 4), np.float32)
REFUSED = [
    (lambda: _without("lora", "lora_up.weight"), "'lora_unet_q' has only one factor"),
    (lambda: _without("loha", "hada_w2_b"), "'lora_unet_q' has no hada_w2_b"),
    (lambda: _without("loha", "hada_w1_a"), "'lora_unet_q' has no hada_w1_a"),
    (lambda: _without("lokr", "lokr_w1"), "'lora_unet_q' has no lokr_w1_a"),
    (lambda: _without("lokr", "lokr_w2_a"), "'lora_unet_q' has no lokr_w2_a"),
    (lambda: _without("lokr", "lokr_w2_b"), "'lora_unet_q' has no lokr_w2_b"),
    (lambda: _with("loha", hada_w1_b=ONES), "'lora_unet_q': on a weight of shape .*, LoHa has"),
    (lambda: _with("loha", hada_w1_a=np.ones((5, 2))), "'lora_unet_q': on a weight of shape .*, LoHa has"),
    (lambda: _with("lokr", lokr_w2_a=np.ones((2, 3))), "'lora_unet_q': on a weight of shape .*, LoKr has"),
    (lambda: _with("lora", **{"lora_up.weight": ONES}), "of 'lora_unet_q' must fit"),
    (lambda: _with("lora", **{"lora_mid.weight": np.ones((3, 3, 3))}), "factors of shapes"),
    (lambda: _without("locon tucker", "lora_up.weight"), "'lora_unet_q' has no"),
    (lambda: _with("lora", alpha=np.ones(2)), "alpha of 'lora_unet_q' must be one number"),
    (lambda: _with("lora", alpha=np.array(np.inf)), "alpha of 'lora_unet_q' must be finite"),
    (lambda: _with("lora", dora_scale=np.ones((1, 6))), "is a DoRA with a magnitude per input, which needs the base weights"),
    (lambda: _with("lora", dora_scale=np.ones((5, 1))), "magnitude of 'lora_unet_q' must have shape"),
    (lambda: _with("loha", dora_scale=np.ones((4, 1))), "DoRA of another tuner than LoRA, which needs the base weights"),
    (lambda: {"weight": np.ones(4), "on_input": np.array(0)}, r"belongs to \(IA\)\^3, which needs the base weights"),
    (lambda: {"a1.weight": ONES, "a2.weight": ONES, "b1.weight": ONES, "b2.weight": ONES}, "belongs to GLoRA, which needs"),
    (lambda: {"oft_blocks": np.ones((2, 2, 2))}, "belongs to OFT, which needs the base weights"),
    (lambda: _with("lora", hada_w3_a=ONES), "'lora_unet_q.hada_w3_a' of float64 is not part|is not part"),
    (lambda: _with("lora", diff_m=ONES), "'lora_unet_q.diff_m' of float32 is not part of a LoRA"),
    (lambda: _with("lora", **{"lora_A.weight": ONES}), "is a second lora_.* of 'lora_unet_q'"),
    (lambda: {"lokr_w1": np.ones(4), "lokr_w2": ONES}, "'lora_unet_q'"),
    (lambda: {"w_norm": np.ones(4)}, "holds no LoRA"),
]  # fmt: skip


@pytest.mark.parametrize("case", range(len(REFUSED)))
def test_what_is_missing_or_needs_the_weights_is_refused_by_name(tmp_path, case):
    parts, message = REFUSED[case]
    with pytest.raises(FileError, match=message):
        adapters.load(saved(tmp_path / "a.safetensors", {"lora_unet_q": parts()}))


def test_a_pipeline_is_refused_with_the_reason_and_kinds_are_named(tmp_path):
    rng = np.random.default_rng(0)
    kinds = {
        f"lora_unet_{i}": tensors_of(kind, (4, 6), (), rng)[0]
        for i, kind in enumerate(("lora", "loha", "lokr"))
    }
    path = saved(tmp_path / "a.safetensors", kinds)
    assert adapters.inspect(path).contents["type"] == "LoHa, LoKr, LoRA"
    (tmp_path / "pipe").mkdir()
    (tmp_path / "pipe" / "model_index.json").write_text("{}")
    with pytest.raises(FileError, match="it is a pipeline of diffusers"):
        adapters.merge(tmp_path / "pipe", path, tmp_path / "merged")


def test_tensors_of_peft_without_their_config_have_no_scale(tmp_path):
    key = "base_model.model.layers.0.q_proj.lora_{}.weight"
    factors = {key.format("A"): np.ones((2, 4)), key.format("B"): np.ones((3, 2))}
    safetensors.save(factors, tmp_path / "a.safetensors")
    with pytest.raises(FileError, match=r"has PEFT's keys, but no adapter_config.json"):
        adapters.load(tmp_path / "a.safetensors")


def test_names_in_a_pipeline_are_no_names_of_a_model(tmp_path):
    parts, wanted = tensors_of("loha", (4, 6), (), np.random.default_rng(0))
    path = saved(tmp_path / "a.safetensors", {"unet.down.to_q": parts})
    with pytest.raises(
        FileError, match=r"'unet.down.to_q' is the name of a module in a pipeline.*--base"
    ):
        adapters.convert(path, tmp_path / "peft", to="peft")
    safetensors.save(
        {"down.to_q.weight": np.zeros((4, 6), np.float32)}, tmp_path / "base.safetensors"
    )
    adapters.convert(path, tmp_path / "peft", to="peft", base=tmp_path / "base.safetensors")
    found = adapters.load(tmp_path / "peft")
    np.testing.assert_allclose(found.delta("down.to_q"), wanted, rtol=1e-5, atol=1e-5)
    safetensors.save(
        {"up.to_q.weight": np.zeros((4, 6), np.float32)}, tmp_path / "other.safetensors"
    )
    with pytest.raises(FileError, match="is no module of the base"):
        adapters.load(path, base=tmp_path / "other.safetensors")
