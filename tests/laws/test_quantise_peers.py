"""The same bits as bitsandbytes and gguf; the quantiles of SciPy."""

import numpy as np
import pytest

from lora_np.quantise import LAYOUTS, Blocks, nf4_levels, normal_quantile, quantise
from lora_np.quantise.scaled import dynamic_levels, mean_as_torch
from tests.rounding import assert_as_near

pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore")]

SHAPES = [(1, 1), (1, 3), (4, 16), (7, 9), (64, 64), (3, 1001), (120, 100), (1, 65), (33, 640)]
# which gguf cannot make: tests/laws/test_adapters_gguf_peers.py compares them with ggml's
BY_GGML = ("Q4_K", "Q5_K", "Q6_K")
GGUF_SHAPES = [(1, 32), (3, 64), (50, 96), (7, 256), (20, 512)]


def hard(shape, seed):
    """Matrices of many kinds: heavy tails, rows of zeros, ties halfway between levels, extreme
    scales.
    """
    rng = np.random.default_rng([seed, *shape])
    kind = seed % 8
    W = rng.normal(size=shape)
    if kind == 1:
        W = rng.standard_t(1, size=shape)
    elif kind == 2:
        W *= rng.random((shape[0], 1)) < 0.5
    elif kind == 3:
        middle = (nf4_levels()[:-1] + nf4_levels()[1:]) / 2
        W = rng.choice(np.concatenate([middle, nf4_levels()]), shape)
    elif kind == 4:
        W *= 10.0 ** rng.integers(-30, 4, (shape[0], 1))
    elif kind == 5:
        W = rng.integers(-3, 4, shape)
    elif kind == 6:
        W = np.full(shape, rng.normal())
    elif kind == 7:  # nearly denormal numbers, in all rows or in some; smaller blocks are refused
        W *= 10.0 ** rng.choice([-36.0, -37.0, rng.choice([0.0, -36.5])], (shape[0], 1))
    return W.astype(np.float32)


@pytest.fixture(scope="module")
def bnb():
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
    return pytest.importorskip("bitsandbytes.functional")


def test_quantiles_are_those_of_scipy():
    from scipy.special import ndtri

    p = np.concatenate(
        [10.0 ** -np.arange(1.0, 300.0, 20.0), np.random.default_rng(0).random(10_000)]
    )
    np.testing.assert_allclose(normal_quantile(p), ndtri(p), rtol=2e-13, atol=1e-15)


def test_levels_are_those_of_bitsandbytes(bnb):
    np.testing.assert_array_equal(nf4_levels(), bnb.get_4bit_type("nf4", device="cpu").numpy())
    import torch

    # torch's linspace rounds otherwise without AVX2
    ulp = 4 if torch.backends.cpu.get_cpu_capability() == "DEFAULT" else 0
    np.testing.assert_array_max_ulp(dynamic_levels(), bnb.create_dynamic_map().numpy(), maxulp=ulp)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("block", [64, 32, 128])
def test_nf4_is_bitsandbytes_bit_for_bit(bnb, shape, block):
    import torch

    for seed in range(16):
        W = hard(shape, seed)
        packed, state = bnb.quantize_4bit(torch.tensor(W), blocksize=block, quant_type="nf4")
        Q = quantise(W, "nf4", block=block)
        np.testing.assert_array_equal(Q.packed, packed.numpy().ravel())
        np.testing.assert_array_equal(Q.scales, state.absmax.numpy())
        if shape[1] >= block:  # the kernel for the CPU confuses blocks that are longer than rows
            np.testing.assert_array_equal(
                Q.dequantised(), bnb.dequantize_4bit(packed, state).numpy()
            )


@pytest.mark.parametrize("shape", [*SHAPES, (512, 256)])
def test_double_quantisation_is_bitsandbytes_bit_for_bit(bnb, shape):
    import torch

    if torch.backends.cpu.get_cpu_capability() == "DEFAULT":
        pytest.skip("without AVX2 torch rounds levels and means otherwise")
    for seed in range(16):
        W = hard(shape, seed)
        packed, state = bnb.quantize_4bit(
            torch.tensor(W), quant_type="nf4", compress_statistics=True
        )
        Q = quantise(W, "nf4", double=True)
        assert Q.scales.offset == np.float32(state.offset.item())
        np.testing.assert_array_equal(Q.scales.codes, state.absmax.numpy())
        np.testing.assert_array_equal(Q.scales.scales, state.state2.absmax.numpy())
        np.testing.assert_array_equal(Q.dequantised(), bnb.dequantize_4bit(packed, state).numpy())


def test_the_mean_of_scales_is_torchs():
    import torch

    rng = np.random.default_rng(0)
    for n in [*range(1, 80), *rng.integers(80, 32_768, 60)]:
        x = (rng.random(n) * 10.0 ** rng.integers(-3, 3)).astype(np.float32)
        assert mean_as_torch(x) == np.float32(torch.tensor(x).mean().item())


@pytest.mark.parametrize("shape", SHAPES)
def test_int8_is_bitsandbytes_bit_for_bit(bnb, shape):
    import torch

    for seed in range(16):
        W = hard(shape, seed)
        W[np.abs(W).max(1) == 0] = 1  # there, bitsandbytes divides zero by zero
        if np.abs(W).max(1).min() < 3.8e-37:  # there, 127 over the scale overflows
            with pytest.raises(ValueError, match="too small for int8"):
                quantise(W, "int8")
            continue
        codes, scales, _ = bnb.int8_vectorwise_quant(torch.tensor(W))
        Q = quantise(W, "int8")
        np.testing.assert_array_equal(Q.codes, codes.numpy())
        np.testing.assert_array_equal(Q.scales, scales.numpy())
        exact = codes.double() * scales.double()[:, None] / 127
        theirs = bnb.int8_vectorwise_dequant(codes, scales)
        assert_as_near(Q.dequantised(), theirs, exact, floor=2)


@pytest.mark.parametrize(
    "kind",
    [kind for kind in LAYOUTS if LAYOUTS[kind].encode and kind != "F32" and kind not in BY_GGML],
)
@pytest.mark.parametrize("shape", GGUF_SHAPES)
def test_made_blocks_are_those_of_gguf(kind, shape):
    import gguf

    if shape[1] % LAYOUTS[kind].entries:
        return
    for seed in range(16):
        W = hard(shape, seed)
        theirs = gguf.quantize(W, gguf.GGMLQuantizationType[kind])
        if (
            kind not in ("F16", "BF16")
            and not np.isfinite(gguf.dequantize(theirs, gguf.GGMLQuantizationType[kind])).all()
        ):
            continue
        if np.isinf(gguf.dequantize(theirs, gguf.GGMLQuantizationType[kind])).any():
            continue
        Q = quantise(W, kind)
        if (
            seed % 8 == 7
        ):  # what becomes of an infinite code, or of an exponent below 0, is the processor's choice
            read = gguf.dequantize(theirs, gguf.GGMLQuantizationType[kind])
            assert np.abs(Q.dequantised() - W).max() <= np.abs(read - W).max()
            continue
        assert Q.data.tobytes() == theirs.tobytes()
        assert Q.nbytes == theirs.nbytes


@pytest.mark.parametrize("kind", [kind for kind in LAYOUTS if kind != "F32"])
def test_any_bytes_are_read_as_gguf_reads_them(kind):
    import gguf

    layout = LAYOUTS[kind]
    rng = np.random.default_rng(0)
    data = rng.integers(0, 256, (300, 2, layout.block.itemsize), dtype=np.uint8)
    ours = Blocks(kind, data.view(layout.block)[..., 0], (300, 2 * layout.entries)).dequantised()
    theirs = gguf.dequantize(data.reshape(300, -1), gguf.GGMLQuantizationType[kind])
    np.testing.assert_array_equal(ours, theirs)
    # signs of zeros too
    assert ((ours.view(np.uint32) == theirs.view(np.uint32)) | np.isnan(ours)).all()


def test_kinds_that_gguf_reads_are_read_but_for_those_of_one_or_two_bits():
    from gguf.quants import _type_traits

    cut = ("IQ1", "IQ2", "IQ3", "TQ", "NVFP4")
    theirs = {kind.name: traits for kind, traits in _type_traits.items()}
    kept = {name: traits for name, traits in theirs.items() if not name.startswith(cut)}
    assert {*kept, "F32", "F16"} == set(LAYOUTS)
    made = {name for name, traits in kept.items() if "quantize_blocks" in vars(traits)}
    assert made | {"F32", "F16", *BY_GGML} == {
        kind for kind, layout in LAYOUTS.items() if layout.encode
    }
