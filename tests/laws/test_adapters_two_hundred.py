"""120 files that PEFT, mlx-lm, diffusers and LyCORIS write, and 80 damaged ones: read right, repaired or refused.

The library that wrote a file judges: by logits, or where a pipeline would be needed by the forward pass of each module.
"""

from __future__ import annotations

import copy
import json
import logging
import re
from collections import Counter
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lora_np import adapters
from lora_np.adapters import Adapter, AdapterModule
from lora_np.files import FileError
from tests.drawing import few
from tests.laws import test_adapters_matrix as matrix
from tests.laws.adapter_files import (
    DAMAGED,
    DIFFUSERS,
    LYCORIS,
    MLX,
    NEEDS_THE_WEIGHT,
    PEFT,
    WRITTEN,
    Damaged,
    Written,
)

pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore")]

CLOSE = 1e-3  # of the adapter's effect: float32 on two programs
TOKENS = np.array([[3, 1, 4, 1, 5, 9, 2, 6]])
#: From an adapter and the folder of its base to how far it is from what its writer computes.
Judge = Callable[[Any], float]


def far(ours: Any, theirs: Any, base: Any) -> float:
    """The error of ours relative to what the adapter changes."""
    ours, theirs, base = (np.asarray(each, np.float64) for each in (ours, theirs, base))
    effect = np.abs(theirs - base).max()
    assert effect > 1e-5, "an adapter that does nothing judges nobody"
    return float(np.abs(ours - theirs).max() / effect)


def randomised(parameters: Iterable[tuple[str, Any]], strength: float = 0.3) -> None:
    """Draw what is trained, as if it were; scales and block structures stay."""
    import torch

    with torch.no_grad():
        for name, parameter in parameters:
            if "magnitude" in name or "dora_scale" in name:
                parameter.mul_(1 + 0.3 * torch.rand_like(parameter))
            elif "alpha" not in name and "on_input" not in name:
                parameter.add_(strength * torch.randn_like(parameter))


# PEFT and mlx-lm: whole models, by their logits.


def by_transformers(folder: Path, kind: Any) -> Any:
    return matrix.outputs(
        model := kind.from_pretrained(folder).float().eval(), matrix.inputs(model)
    )


def of_peft(file: Written, folder: Path) -> Judge:
    import peft
    import torch

    model = matrix.base_of(file.base, classifier=False)
    model.save_pretrained(folder / "base")
    bert = file.base == "bert"
    said = {
        "QUERY": "query" if bert else "q_proj",
        "VALUE": "value" if bert else "v_proj",
        "TABLE": "word_embeddings" if bert else "embed_tokens",
    }
    text = re.sub("|".join(said), lambda found: said[found[0]], json.dumps(PEFT[file.way]))
    torch.manual_seed(0)
    kinds = {"LOHA": (peft.LoHaConfig, "alpha"), "LOKR": (peft.LoKrConfig, "alpha")}
    config, alpha = kinds.get(file.way, (peft.LoraConfig, "lora_alpha"))
    made = peft.get_peft_model(
        copy.deepcopy(model), config(**{"r": 4, alpha: 6, **json.loads(text)})
    ).eval()
    randomised((name, x) for name, x in made.named_parameters() if x.requires_grad)
    made.save_pretrained(folder / "adapter")
    given = matrix.inputs(model)
    theirs, base = matrix.outputs(made, given), matrix.outputs(model, given)

    def judge(adapter: Any) -> float:
        adapters.merge(folder / "base", adapter, folder / "merged", force=True)
        return far(by_transformers(folder / "merged", type(model)), theirs, base)

    return judge


def of_mlx(file: Written, folder: Path) -> Judge:
    mx = pytest.importorskip("mlx.core")
    from mlx.utils import tree_flatten, tree_unflatten
    from mlx_lm.tuner.utils import linear_to_lora_layers, load_adapters
    from mlx_lm.utils import load_model

    mx.set_default_device(mx.cpu)
    model = matrix.base_of(file.base, classifier=False)
    model.save_pretrained(folder / "base")
    path = folder / "base" / "config.json"
    said = json.loads(path.read_text())
    # mlx-lm reads some fields under the names of transformers 4
    path.write_text(json.dumps({**said, **(said.get("rope_parameters") or {})}))

    def logits(theirs: Any) -> Any:
        return np.asarray(theirs(mx.array(TOKENS))).ravel()

    way = {"fine_tune_type": "lora", "num_layers": -1, "scale": 1.5, "rank": 4, **MLX[file.way]}
    parameters = {key: way[key] for key in ("rank", "scale", "keys") if key in way} | {
        "dropout": 0.0
    }
    trained, _ = load_model(folder / "base")
    base = logits(trained)
    trained.freeze()
    dora = way["fine_tune_type"] == "dora"
    layers = way["num_layers"] if way["num_layers"] > 0 else len(trained.layers)
    linear_to_lora_layers(trained, layers, parameters, use_dora=dora)
    rng = np.random.default_rng(0)
    drawn = [
        (name, mx.array(np.asarray(x) + 0.2 * rng.standard_normal(x.shape).astype(np.float32)))
        for name, x in tree_flatten(trained.trainable_parameters())
        if not name.endswith(".m")
    ]
    trained.update(tree_unflatten(drawn))
    out = folder / "adapter"
    out.mkdir()
    mx.save_safetensors(
        str(out / "adapters.safetensors"), dict(tree_flatten(trained.trainable_parameters()))
    )
    settings = {
        "fine_tune_type": way["fine_tune_type"],
        "num_layers": way["num_layers"],
        "lora_parameters": parameters,
    }
    (out / "adapter_config.json").write_text(json.dumps(settings))
    again, _ = load_model(folder / "base")
    load_adapters(again, str(out))
    theirs = logits(again.eval())

    def judge(adapter: Any) -> float:
        import torch

        adapters.merge(folder / "base", adapter, folder / "merged", force=True)
        merged = type(model).from_pretrained(folder / "merged").float().eval()
        with torch.no_grad():
            return far(merged(torch.tensor(TOKENS)).logits.numpy().ravel(), theirs, base)

    return judge


# diffusers and LyCORIS: single modules, by their forward pass.


def outputs_of(layer: Any, forward: Any = None) -> Any:
    """What a linear layer or a convolution makes of fixed inputs."""
    import torch

    rng = torch.Generator().manual_seed(0)
    shape = (
        (5, layer.in_features) if hasattr(layer, "in_features") else (2, layer.in_channels, 6, 6)
    )
    with torch.no_grad():
        return (forward or layer)(torch.randn(shape, generator=rng)).numpy()


def applied(layer: Any, module: AdapterModule, bias: Any = None) -> Any:
    """The layer with the update in its weight; a DoRA's rows get their lengths."""
    import torch

    new = copy.deepcopy(layer)
    with torch.no_grad():
        V = new.weight + torch.tensor(module.delta()).reshape(new.weight.shape)
        if module.magnitude is not None:
            column = (-1, *(1,) * (V.ndim - 1))
            lengths = V.flatten(1).norm(dim=1).reshape(column)
            V = torch.tensor(module.magnitude).reshape(column) * V / lengths
        new.weight.copy_(V)
        if bias is not None:
            new.bias.add_(torch.tensor(bias))
    return outputs_of(new)


def by_modules(layers: dict[str, Any], theirs: dict[str, Any], bare: Callable[[str], str]) -> Judge:
    """Judge each module by its outputs, under the names that the library has for them."""

    def judge(adapter: Any) -> float:
        found = adapter if isinstance(adapter, Adapter) else adapters.load(adapter)
        named = {bare(name): module for name, module in found.items()}
        assert named.keys() == theirs.keys()
        biases = {
            bare(name): x.read() for name, x in found.full.items() if name.endswith(".diff_b")
        }
        return max(
            far(
                applied(layer, named[name], biases.get(f"{name}.diff_b")),
                theirs[name],
                outputs_of(layer),
            )
            for name, layer in layers.items()
            if name in theirs
        )

    return judge


@cache
def diffusers_model(name: str) -> Any:
    """A small denoiser: its part of the pipeline, the pipeline's class, and itself."""
    import diffusers
    import torch

    torch.manual_seed(0)
    unet = {
        "sample_size": 8, "block_out_channels": (8, 16), "norm_num_groups": 4, "layers_per_block": 1, "cross_attention_dim": 12,
        "attention_head_dim": 4, "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"), "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    }  # fmt: skip
    large = {
        "use_linear_projection": True, "addition_embed_type": "text_time", "addition_time_embed_dim": 4,
        "projection_class_embeddings_input_dim": 36, "transformer_layers_per_block": 2,
    }  # fmt: skip
    flux = {
        "patch_size": 1, "in_channels": 4, "num_layers": 1, "num_single_layers": 1, "attention_head_dim": 16, "num_attention_heads": 2,
        "joint_attention_dim": 32, "pooled_projection_dim": 32, "axes_dims_rope": [4, 4, 8],
    }  # fmt: skip
    sd3 = {
        "sample_size": 8, "patch_size": 1, "in_channels": 4, "num_layers": 2, "attention_head_dim": 8, "num_attention_heads": 4,
        "joint_attention_dim": 32, "caption_projection_dim": 32, "pooled_projection_dim": 16, "out_channels": 4, "pos_embed_max_size": 8,
    }  # fmt: skip
    wan = {
        "num_attention_heads": 2, "attention_head_dim": 12, "in_channels": 4, "out_channels": 4, "text_dim": 16, "freq_dim": 16,
        "ffn_dim": 32, "num_layers": 2, "rope_max_seq_len": 32,
    }  # fmt: skip
    part, pipeline, model = {
        "sd15": lambda: ("unet", diffusers.StableDiffusionPipeline, diffusers.UNet2DConditionModel(**unet)),
        "sdxl": lambda: ("unet", diffusers.StableDiffusionXLPipeline, diffusers.UNet2DConditionModel(**unet, **large)),
        "flux": lambda: ("transformer", diffusers.FluxPipeline, diffusers.FluxTransformer2DModel(**flux)),
        "sd3": lambda: ("transformer", diffusers.StableDiffusion3Pipeline, diffusers.SD3Transformer2DModel(**sd3)),
        "wan": lambda: ("transformer", diffusers.WanPipeline, diffusers.WanTransformer3DModel(**wan)),
    }[name]()  # fmt: skip
    return part, pipeline, model.eval()


def of_diffusers(file: Written, folder: Path) -> Judge:
    import peft
    import torch
    from diffusers.training_utils import _collate_lora_metadata

    part, pipeline, base = diffusers_model(file.base)
    trained = copy.deepcopy(base)
    torch.manual_seed(0)
    trained.add_adapter(peft.LoraConfig(**{"r": 4, "lora_alpha": 6, **DIFFUSERS[file.way]}))
    randomised((name, x) for name, x in trained.named_parameters() if ".lora_" in name)
    layers = {f"{part}_lora_layers": peft.get_peft_model_state_dict(trained)}
    pipeline.save_lora_weights(
        folder / "adapter", **layers, **_collate_lora_metadata({part: trained})
    )
    again = copy.deepcopy(base)
    file_name = "pytorch_lora_weights.safetensors"
    again.load_lora_adapter(str(folder / "adapter"), prefix=part, weight_name=file_name)
    adapted = {
        name: layer
        for name, layer in again.named_modules()
        if isinstance(layer, peft.tuners.lora.LoraLayer)
    }
    theirs = {name: outputs_of(layer.base_layer, layer.forward) for name, layer in adapted.items()}
    plain = {name: base.get_submodule(name) for name in adapted}
    return by_modules(plain, theirs, lambda name: name.removeprefix(f"{part}."))


def block(*, convolutions: bool = True) -> Any:
    import torch

    class Block(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.to_q = torch.nn.Linear(8, 12)
            self.to_out = torch.nn.Sequential(torch.nn.Linear(8, 8))
            if convolutions:
                self.conv = torch.nn.Conv2d(4, 6, 3, padding=1)
                self.proj = torch.nn.Conv2d(4, 4, 1)
            self.norm = torch.nn.LayerNorm(8)

    torch.manual_seed(0)
    return Block()


def of_lycoris(file: Written, folder: Path) -> Judge:
    import torch

    pytest.importorskip("lycoris")
    logging.getLogger("LyCORIS").setLevel(logging.ERROR)
    from lycoris.wrapper import LycorisNetwork, create_lycoris, create_lycoris_from_weights

    options = {"dim": 4, "alpha": 2, "conv_dim": 3, "conv_alpha": 1.5, **LYCORIS[file.way]}
    prefix, dtype, dim, alpha = (
        options.pop(key, usual)
        for key, usual in (("prefix", "lycoris"), ("dtype", None), ("dim", 4), ("alpha", 2))
    )
    LycorisNetwork.LORA_PREFIX = prefix
    convolutions = options.pop("convolutions", True)
    path = folder / "adapter.safetensors"
    try:
        model = block(convolutions=convolutions)
        if "network_module" in options:  # has options that create_lycoris does not pass on
            options["conv_lora_dim"] = options.pop("conv_dim")
            network = LycorisNetwork(model, lora_dim=dim, alpha=alpha, **options)
        else:
            network = create_lycoris(model, 1.0, linear_dim=dim, linear_alpha=alpha, **options)
        network.apply_to()
        randomised(network.named_parameters())
        network.save_weights(str(path), dtype and getattr(torch, dtype), {})
        # what it has rounded it reads again; it does not reload all that it writes
        if dtype or file.way == "dylora":
            model = block(convolutions=convolutions)
            network, _ = create_lycoris_from_weights(1.0, str(path), model)
            network.apply_to()
    finally:
        LycorisNetwork.LORA_PREFIX = "lycoris"
    plain = dict(block().named_modules())
    flat = {name.replace(".", "_"): name for name in plain}
    adapted = {
        flat[lora.lora_name.removeprefix(f"{prefix}_")]
        for lora in network.loras
        if type(lora).__name__ != "NormModule"
    }
    theirs = {name: outputs_of(plain[name], model.get_submodule(name)) for name in adapted}

    def bare(name: str) -> str:
        name, _, end = re.sub("^(lycoris|lora_unet|lora_transformer)_", "", name).partition(".")
        return flat[name] + f".{end}" * bool(end)

    return by_modules(plain, theirs, bare)


WRITE = {"peft": of_peft, "mlx-lm": of_mlx, "diffusers": of_diffusers, "lycoris": of_lycoris}


def place_of(file: Written, folder: Path) -> Path:
    return folder / ("adapter.safetensors" if file.library == "lycoris" else "adapter")


def outcome(path: Path, judge: Judge, folder: Path) -> str:
    """``right``, ``repaired``, ``refused: why``, or ``WRONG``."""
    try:
        found, error = "right", judge(path)
    except FileError as refused:
        base, new = folder / "base", folder / f"new{path.suffix}"
        if not base.exists():  # of what is in a pipeline
            return f"refused: {refused}"
        try:
            adapters.repair(path, new, base=base)
            found, error = "repaired", judge(new)
        except FileError as still:
            return f"refused: {refused}; {still}"
    return found if error < CLOSE else f"WRONG: {error:.1e}"


def test_the_list_is_whole():
    assert len(WRITTEN) == len(set(WRITTEN)) == 120
    assert len(DAMAGED) == len(set(DAMAGED)) == 80
    assert sum(case.whole for case in DAMAGED) == 60
    assert sum(file.way in NEEDS_THE_WEIGHT and file.library == "lycoris" for file in WRITTEN) == 5
    assert min(Counter(file.library for file in WRITTEN).values()) >= 20


@pytest.mark.parametrize("file", few(WRITTEN, 9), ids=str)
def test_what_a_library_writes_is_read_as_it_reads_it(file: Written, tmp_path: Path) -> None:
    judge = WRITE[file.library](file, tmp_path)
    found = outcome(place_of(file, tmp_path), judge, tmp_path)
    if file.way in NEEDS_THE_WEIGHT and file.library == "lycoris":
        assert re.search("refused: .* needs the base weights", found)
    else:
        assert found == "right"


# What is done to files. A change takes the tensors by key, each its dtype, shape and bytes, and the config.

Tensors = dict[str, tuple[str, list[int], bytes]]
PREFIX = "base_model.model."


def renaming(change: Callable[[str], str]) -> Callable[[Tensors, dict[str, Any]], None]:
    def changed(tensors: Tensors, said: dict[str, Any]) -> None:
        old = dict(tensors)
        tensors.clear()
        tensors |= {change(key): tensor for key, tensor in old.items()}

    return changed


def named(key: str) -> str:
    """The key as PEFT has it in memory: the adapter's name after the factor's."""
    return re.sub(
        r"\.(lora_[AB]|lora_embedding_[AB]|lora_magnitude_vector|(hada|lokr)_\w+)(?=\.|$)",
        r".\1.default",
        key,
    )


def emptied(tensors: Tensors, said: dict[str, Any]) -> None:
    for key, (dtype, _, _) in tensors.items():
        tensors[key] = (dtype, [0], b"")


def halved(tensors: Tensors, said: dict[str, Any]) -> None:
    ends = ("lora_B.weight", "lora_b", "lora_up.weight", "lokr_w2_b")
    del tensors[next(key for key in sorted(tensors) if key.endswith(ends))]


def told(**settings: Any) -> Callable[[Tensors, dict[str, Any]], None]:
    return lambda tensors, said: said.update(settings)


def with_container(tensors: Tensors, said: dict[str, Any]) -> None:
    said["target_modules"] = [
        *said["target_modules"],
        "layer" if any("bert" in key for key in tensors) else "layers",
    ]


def with_old_patterns(tensors: Tensors, said: dict[str, Any]) -> None:
    """Patterns for names that the model has lost since."""
    said["rank_pattern"] = {
        key.replace("q_proj", "query_proj"): r for key, r in said["rank_pattern"].items()
    }


def of_one_entry(tensors: Tensors, said: dict[str, Any]) -> None:
    for key, (dtype, _, data) in tensors.items():
        if key.endswith(".alpha"):
            tensors[key] = (dtype, [1], data)


def reversed_order(tensors: Tensors, said: dict[str, Any]) -> None:
    entries = [*tensors.items()][::-1]
    tensors.clear()
    tensors.update(entries)


DAMAGE: dict[str, Callable[[Tensors, dict[str, Any]], None]] = {
    "_orig_mod. before names": renaming(lambda key: key.replace(PREFIX, f"{PREFIX}_orig_mod.")),
    "_orig_mod. in names": renaming(lambda key: re.sub(r"^(unet|transformer)\.", r"\1._orig_mod.", key)),
    "module. before names": renaming(
        lambda key: key.replace(PREFIX, f"{PREFIX}module.") if key.startswith(PREFIX) else f"module.{key}"
    ),
    "base_model.model. twice": renaming(lambda key: PREFIX + key),
    "base_model.model. missing": renaming(lambda key: key.removeprefix(PREFIX)),
    "base_model.model. after the prefix": renaming(lambda key: key.replace(".", f".{PREFIX}", 1)),
    "base_model.model. before the prefix": renaming(lambda key: PREFIX + key),
    ".default in keys": renaming(named),
    "language_model. in names": renaming(
        lambda key: re.sub(r"\bmodel\.(?=layers|embed_tokens|norm)", "model.language_model.", key)
    ),
    "no model. in names": renaming(lambda key: re.sub(r"\bmodel\.(?=layers|embed_tokens|norm)", "", key)),
    "magnitudes with .weight": renaming(
        lambda key: key + ".weight" * key.endswith(".lora_magnitude_vector")
    ),
    "a container among the targets": with_container,
    "a pattern that matches nothing": with_old_patterns,
    "targets that match nothing": told(target_modules=["to_q", "to_v"]),
    "tensors emptied by ZeRO-3": emptied,
    "one factor missing": halved,
    "lora_transformer_ for the prefix": renaming(lambda key: key.replace("lycoris_", "lora_transformer_")),
    "alphas of shape (1,)": of_one_entry,
    "keys in another order": reversed_order,
}  # fmt: skip


def damage(case: Damaged, path: Path) -> None:
    """Do to the file at a path what the case says."""
    name = {
        "peft": "adapter_model.safetensors", "mlx-lm": "adapters.safetensors", "diffusers": "pytorch_lora_weights.safetensors",
    }.get(case.file.library)  # fmt: skip
    file, config = (path / name if name else path), path / "adapter_config.json"
    data = file.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    metadata = header.pop("__metadata__", None)
    tensors: Tensors = {}
    for key, entry in header.items():
        first, last = entry["data_offsets"]
        tensors[key] = (entry["dtype"], entry["shape"], data[start + first : start + last])
    said = json.loads(config.read_text()) if config.exists() else {}
    before = (dict(tensors), [*tensors], json.dumps(said))
    DAMAGE[case.damage](tensors, said)
    assert (tensors, [*tensors], json.dumps(said)) != before
    new: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    place = 0
    for key, (dtype, shape, values) in tensors.items():
        new[key] = {"dtype": dtype, "shape": shape, "data_offsets": [place, place + len(values)]}
        place += len(values)
    text = json.dumps(new).encode()
    body = b"".join(values for _, _, values in tensors.values())
    file.write_bytes(len(text).to_bytes(8, "little") + text + body)
    if said:
        config.write_text(json.dumps(said))


# What a refusal of a file that lacks something must say.
CAUSES = {
    "tensors emptied by ZeRO-3": "ZeRO-3",
    "one factor missing": "has no|only one factor",
    "a pattern that matches nothing": "has rank 2, but the config says 4",
}


@pytest.mark.parametrize("case", few(DAMAGED, 9), ids=str)
def test_what_is_damaged_is_read_repaired_or_refused_with_the_cause(
    case: Damaged, tmp_path: Path
) -> None:
    judge = WRITE[case.file.library](case.file, tmp_path)
    path = place_of(case.file, tmp_path)
    damage(case, path)
    found = outcome(path, judge, tmp_path)
    if case.whole:
        assert found in ("right", "repaired")
    else:
        assert re.search(f"refused: .*({CAUSES[case.damage]})", found)
