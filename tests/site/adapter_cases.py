"""Adapters, and what the scripts of the inspector must say of each: that which the package says."""

import base64
import json
import re

import numpy as np

from lora_np import adapters
from lora_np.adapters.formats import weights_file
from lora_np.adapters.peft_format import keyed
from lora_np.adapters.rules import CheckedModule

# Takes the files of an adapter, perhaps those of a second one, and ranks; gives what the page
# shows: what it says of the modules and what programs make of them, what both have in common, and
# the adapter cut to each rank.
SCRIPT = """async ({first, second, ranks}) => {
  const opened = (files) => loraFormats.open(files.map(({name, content}) => {
    const characters = atob(content), bytes = new Uint8Array(characters.length);
    for (let i = 0; i < bytes.length; i++) bytes[i] = characters.charCodeAt(i);
    return {name, size: bytes.length, arrayBuffer: async () => bytes.buffer};
  }));
  const text = (bytes) => { let s = ""; for (const b of bytes) s += String.fromCharCode(b); return btoa(s); };
  const scaleError = ({scale_error, ...row}) => ({...row, scale_error: scale_error === Infinity ? "inf" : scale_error});
  const told = (make) => { try { return make(); } catch (error) { return {refused: error.message}; } };
  try {
    const adapter = await opened(first), other = second && await opened(second);
    const checked = loraChecking.check(adapter);
    return {
      rows: loraAdapter.inspect(adapter).map(({s, ...row}) => ({...row, s: s && [...s]})),
      checked: checked.map(scaleError),
      table: loraChecking.grouped(checked),
      overlap: other && told(() => loraChecking.overlap(adapter, other)),
      resized: ranks.map((rank) => told(() => {
        const {file, config, error, size} = loraAdapter.resize(adapter, rank);
        return {file: text(file), config, error, size};
      })),
    };
  } catch (error) {
    return {refused: error.message};
  }
}"""


def given(path, ranks=(), second=None):
    """The argument of `SCRIPT`: the files at a path, or files by name."""
    return {"first": files(path), "second": second and files(second), "ranks": list(ranks)}


def files(path):
    if not isinstance(path, dict):
        found = [path] if path.is_file() else [weights_file(path), path / "adapter_config.json"]
        path = {each.name: each.read_bytes() for each in found}
    return [
        {"name": name, "content": base64.b64encode(content).decode()}
        for name, content in path.items()
    ]


def check(path, ranks, answer, folder):
    """Every number and word of the script's ``answer`` against the package."""
    assert "refused" not in answer, answer
    check_rows(path, answer)
    check_findings(path, answer)
    for rank, resized in zip(ranks, answer["resized"], strict=True):
        check_resized(path, rank, resized, folder)


def check_rows(path, answer):
    seen = adapters.inspect(path)
    assert [row["name"] for row in answer["rows"]] == [row.name for row in seen.rows]
    for row, theirs in zip(seen.rows, answer["rows"], strict=True):
        for field in ("status", "rank", "rank_for_99", "excess_rank"):
            assert theirs.get(field) == getattr(row, field), (row.name, field)
        for field in ("scale", "norm", "share", "effective_rank", "stable_rank"):
            ours = getattr(row, field)
            assert (ours is None) == (field not in theirs)
            if ours is not None:
                np.testing.assert_allclose(
                    theirs[field], ours, rtol=2e-5, atol=1e-12, err_msg=row.name
                )
        if row.norm:
            largest = seen.spectra[row.name].max()
            np.testing.assert_allclose(
                theirs["s"], seen.spectra[row.name], rtol=1e-5, atol=1e-5 * largest
            )


def check_findings(path, answer):
    """The verdicts, factors, reasons and fixes of every program, and how they are listed."""
    ours = adapters.check(path)
    theirs = [
        CheckedModule(**{**row, "scale_error": row["scale_error"] and float(row["scale_error"])})
        for row in answer["checked"]
    ]
    assert [row._replace(scale_error=None) for row in theirs] == [
        row._replace(scale_error=None) for row in ours.rows
    ]
    for mine, found in zip(ours.rows, theirs, strict=True):
        assert (mine.scale_error is None) == (found.scale_error is None), mine
        if mine.scale_error is not None:
            np.testing.assert_allclose(found.scale_error, mine.scale_error, rtol=1e-14)
    assert [row[:3] + row[4:] for row in answer["table"]] == [
        [*row[:3], *row[4:]] for row in ours.table.rows
    ]


def check_overlap(first, second, found):
    """Each number of the overlap; angles of what does nothing are those of no direction."""
    assert "refused" not in found, found
    ours = {row.module: row for row in adapters.overlap([first, second], any_base=True).rows}
    theirs = {row["module"]: row for row in found}
    assert ours.keys() == theirs.keys()
    for name, row in ours.items():
        for field in ("overlap", "cosine", "share_of_first", "share_of_second"):
            np.testing.assert_allclose(
                theirs[name][field], getattr(row, field), rtol=2e-5, atol=2e-6, err_msg=name
            )
        for field in ("inputs", "outputs"):  # in degrees
            np.testing.assert_allclose(
                theirs[name][field], getattr(row, field), atol=2e-3, err_msg=name
            )


def check_resized(path, rank, resized, folder):
    assert "refused" not in resized, resized
    ours = adapters.resize(path, folder / f"ours-{rank}", rank=rank)
    np.testing.assert_allclose(resized["error"], ours.error, rtol=1e-3, atol=1e-6)
    target = folder / f"theirs-{rank}"
    target.mkdir()
    (target / "adapter_model.safetensors").write_bytes(base64.b64decode(resized["file"]))
    (target / "adapter_config.json").write_text(json.dumps(resized["config"]))
    want, got = adapters.load(ours.path), adapters.load(target)  # which refuses what does not fit
    size = (target / "adapter_model.safetensors").stat().st_size
    # The order of tensors, and with it the digits of the header's numbers, may differ.
    assert abs(size - ours.bytes) <= 64 + size // 200
    assert resized["size"] == size
    assert {name: m.rank for name, m in got.items()} == {name: m.rank for name, m in want.items()}
    assert got.raw["r"] == want.raw["r"]  # where programs with a limit look
    for name, module in want.items():
        assert np.isclose(got[name].scale, module.scale, rtol=1e-14)
    assert set(keyed(got)) == set(keyed(want))
    for name, module in want.items():
        scale = np.abs(module.delta()).max()
        step = {"bfloat16": 2**-7, "float16": 2**-9}.get(module.parts["A"].dtype, 1e-5)
        np.testing.assert_allclose(got.delta(name), module.delta(), atol=step * scale, rtol=0)


def refusal(text):
    """A message that a page may show: one clear line, which no program wrote for itself."""
    return (
        len(text) < 400
        and "\n" not in text
        and not re.search(
            r"undefined|NaN(?! or infinity)|\[object|is not a function|Cannot read|Invalid|RangeError",
            text,
        )
    )
