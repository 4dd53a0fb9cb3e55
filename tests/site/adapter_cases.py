"""Adapters, and what the script of the inspector must say of each: that which the package says."""

import base64
import json

import numpy as np

from lora_np import adapters
from lora_np.adapters.peft_format import keyed

# Takes the two files of an adapter; gives what the page shows, and the adapter cut to each rank.
SCRIPT = """({weights, config, ranks}) => {
  const bytes = Uint8Array.from(atob(weights), (c) => c.charCodeAt(0));
  const opened = loraAdapter.read(bytes.buffer, config);
  const text = (bytes) => { let s = ""; for (const b of bytes) s += String.fromCharCode(b); return btoa(s); };
  return {
    rows: loraAdapter.inspect(opened).map(({s, ...row}) => ({...row, s: s && [...s]})),
    resized: ranks.map((rank) => {
      const {file, config, error} = loraAdapter.resize(opened, rank);
      return {file: text(file), config, error};
    }),
  };
}"""


def given(path, ranks):
    """The argument of `SCRIPT`."""
    weights = base64.b64encode((path / "adapter_model.safetensors").read_bytes()).decode()
    return {
        "weights": weights,
        "config": json.loads((path / "adapter_config.json").read_text()),
        "ranks": ranks,
    }


def check(path, ranks, answer, folder):
    """Every number of the script's ``answer`` against the package."""
    seen = adapters.inspect(path)
    assert [row["name"] for row in answer["rows"]] == [row.name for row in seen.rows]
    for row, theirs in zip(seen.rows, answer["rows"], strict=True):
        for field in ("status", "rank", "needed", "wasted"):
            assert theirs.get(field) == getattr(row, field), (row.name, field)
        for field in ("scale", "norm", "share", "effective_rank", "stable_rank"):
            ours = getattr(row, field)
            assert (ours is None) == (field not in theirs)
            if ours is not None:
                np.testing.assert_allclose(theirs[field], ours, rtol=2e-5, atol=1e-12, err_msg=row.name)
        if row.norm:
            largest = seen.spectra[row.name].max()
            np.testing.assert_allclose(theirs["s"], seen.spectra[row.name], rtol=1e-5, atol=1e-5 * largest)
    for rank, resized in zip(ranks, answer["resized"], strict=True):
        ours = adapters.resize(path, folder / f"ours-{rank}", rank=rank)
        np.testing.assert_allclose(resized["error"], ours.error, rtol=1e-3, atol=1e-6)
        target = folder / f"theirs-{rank}"
        target.mkdir()
        (target / "adapter_model.safetensors").write_bytes(base64.b64decode(resized["file"]))
        (target / "adapter_config.json").write_text(json.dumps(resized["config"]))
        want, got = adapters.load(ours.path), adapters.load(target)  # which refuses what does not fit
        # The order of tensors, and with it the digits of the header's numbers, may differ.
        assert abs((target / "adapter_model.safetensors").stat().st_size - ours.bytes) <= 64
        assert {name: m.rank for name, m in got.items()} == {name: m.rank for name, m in want.items()}
        for name, module in want.items():
            assert np.isclose(got[name].scale, module.scale, rtol=1e-14)
        assert set(keyed(got)) == set(keyed(want))
        for name, module in want.items():
            scale = np.abs(module.delta()).max()
            step = {"bfloat16": 2**-7, "float16": 2**-9}.get(module.parts["A"].dtype, 1e-5)
            np.testing.assert_allclose(got.delta(name), module.delta(), atol=step * scale, rtol=0)
