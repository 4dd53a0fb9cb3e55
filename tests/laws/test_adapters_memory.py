"""Memory follows the largest tensor, not the checkpoint."""

import json
import subprocess
import sys

import numpy as np
import pytest

from lora_np import adapters
from lora_np.hub import safetensors

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

MIB = 2**20

# Runs one command, and prints the peak of its anonymous memory in bytes.
WATCHED = """
import contextlib, io, sys, threading, time
from lora_np.cli import run
peak, done = 0, threading.Event()
def watch():
    global peak
    while not done.is_set():
        with open("/proc/self/status") as status:
            line = next(line for line in status if line.startswith("RssAnon"))
        peak = max(peak, 1024 * int(line.split()[1]))
        time.sleep(0.001)
watcher = threading.Thread(target=watch)
watcher.start()
with contextlib.redirect_stdout(io.StringIO()):
    status = run(sys.argv[1:])
done.set()
watcher.join()
print(peak)
sys.exit(status)
"""


def peak(*arguments):
    result = subprocess.run(
        [sys.executable, "-c", WATCHED, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=3_600,
    )
    assert result.returncode == 0, result.stderr
    return int(result.stdout)


def checkpoint(path, size, tensors, change=None):
    """``tensors`` square matrices in bfloat16, four to a shard; ``change`` adds noise of full rank
    to them.
    """
    path.mkdir()
    where = {}
    rng = np.random.default_rng(0)
    W = 0.02 * rng.standard_normal((size, size), np.float32)
    if change is not None:
        W += change * rng.standard_normal((size, size), np.float32)
    for first in range(0, tensors, 4):
        names = [f"model.layers.{i}.q_proj.weight" for i in range(first, min(first + 4, tensors))]
        file = f"model-{first:05}.safetensors"
        header = {name: safetensors.TensorInfo("bfloat16", W.shape) for name in names}
        safetensors.write(header, lambda _: W, path / file, metadata={"format": "pt"})
        where |= dict.fromkeys(names, file)
    (path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    return path


def wide_adapter(path, size, tensors):
    """Of full rank, so that A and B are as large as the weights; the scale goes into B."""
    A = adapters.AdapterModule.of(
        A=np.ones((size, size), np.float32), B=np.ones((size, size), np.float32), alpha=3
    )
    modules = {f"model.layers.{i}.self_attn.q_proj": A for i in range(tensors)}
    adapters.save(
        adapters.Adapter(modules, raw={"peft_type": "LORA", "target_modules": ["q_proj"]}), path
    )


def oft(path, size, tensors):
    """An adapter whose update is formed in full, and needs the base."""
    path.mkdir()
    config = {"peft_type": "OFT", "oft_block_size": 8, "target_modules": ["q_proj"]}
    (path / "adapter_config.json").write_text(json.dumps(config))
    weight = np.random.default_rng(0).standard_normal((size // 8, 28), np.float32)
    keys = [f"base_model.model.model.layers.{i}.q_proj.oft_R.weight" for i in range(tensors)]
    safetensors.save(dict.fromkeys(keys, weight), path / "adapter_model.safetensors")
    return path


def check(tmp_path, size, tensors):
    base = checkpoint(tmp_path / "base", size, tensors)
    tuned = checkpoint(tmp_path / "tuned", size, tensors, change=0.001)
    limit = 200 * MIB + 8 * 4 * size**2
    extracted = peak("extract", base, tuned, "--rank", 8, "-o", tmp_path / "adapter")
    merged = peak("merge", base, tmp_path / "adapter", "-o", tmp_path / "merged")
    assert len(adapters.load(tmp_path / "adapter")) == tensors
    wide_adapter(tmp_path / "wide", size, tensors // 4)  # together still more than the limit
    config = {"model_type": "llama", "num_attention_heads": 8, "hidden_size": size}
    (tmp_path / "config.json").write_text(json.dumps(config))
    converted = {
        f"convert --to {to}": peak(
            "convert",
            tmp_path / "wide",
            "--to",
            to,
            "--base",
            tmp_path / "config.json",
            "-o",
            tmp_path / out,
        )
        for to, out in [("gguf", "a.gguf"), ("mlx", "mlx")]
    }
    rotated = peak("merge", base, oft(tmp_path / "oft", size, tensors), "-o", tmp_path / "rotated")
    checking = peak("check", tmp_path / "wide", "--for", "peft")
    return limit, {
        "extract": extracted, "merge": merged, "merge OFT": rotated, "check": checking, **converted,
    }  # fmt: skip


def test_small_checkpoints_stay_below_the_limit(tmp_path):
    limit, peaks = check(tmp_path, 256, 8)
    assert all(found < limit for found in peaks.values()), peaks


@pytest.mark.slow
def test_checkpoints_larger_than_the_limit_stay_below_it(tmp_path):
    size, tensors = 2048, 48
    limit, peaks = check(tmp_path, size, tensors)
    assert limit < 2 * size**2 * tensors  # what holding all of it would take
    assert all(found < limit for found in peaks.values()), peaks
    print(
        {name: f"{found / MIB:.0f} MiB" for name, found in peaks.items()},
        f"limit {limit / MIB:.0f} MiB",
    )


@pytest.mark.slow
@pytest.mark.parametrize("goal", [("--energy", 0.95), ("--rank", 2048)], ids=str)
def test_a_goal_that_needs_the_whole_svd_takes_what_lapack_needs(tmp_path, goal):
    size = 2048
    base = checkpoint(tmp_path / "base", size, 1)
    tuned = checkpoint(tmp_path / "tuned", size, 1, change=0.001)
    found = peak("extract", base, tuned, *goal, "-o", tmp_path / "adapter")
    assert found < 200 * MIB + 20 * 4 * size**2
    print(f"{found / MIB:.0f} MiB")
