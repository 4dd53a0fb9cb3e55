"""What the package says of a reader's files, which lie below `ROOT` while a question is answered.

They are read where they lie, tensor by tensor. A refusal is a line without the names of folders
that exist only here. Adapters of a high rank are measured by ``spectra.js``, since NumPy's LAPACK
takes minutes there.
"""

from __future__ import annotations

import math
import re
import tempfile
import warnings
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from pyodide.ffi import JsException

from lora_np.files import FileError

ROOT = Path("/given")
FORMATS = {
    "peft": "PEFT",
    "gguf": "GGUF",
    "mlx": "mlx-lm",
    "kohya": "image models (kohya, ComfyUI, diffusers)",
}
OF_BOTH = ("rank", "scale", "norm")
LONGEST = 500  # letters of a message, in which names may have any number
Asked = dict[str, Any]  # what the page asks
Said = dict[str, Any]  # what it shows
made = b""  # the file of the last answer that has one


def answer(asked: Asked) -> Said:
    """What the page shows of ``asked["kind"]``, or why it is refused; and what was warned of."""
    if asked["kind"] != "fit":
        import_module("lora_np_browser.quick")
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            said = KINDS[asked["kind"]](asked)
        except (FileError, ValueError, TypeError, OSError, MemoryError) as error:
            said = {"refused": without_folders(str(error) or type(error).__name__)}
        except JsException:
            said = {"refused": "a file cannot be read; if it is a folder, choose the files in it"}
    said["warned"] = [without_folders(str(warning.message)) for warning in warned]
    return {str(key): plain(value) for key, value in said.items()}


def without_folders(text: str) -> str:
    """Text without the folders that files were put into for a while."""
    text = re.sub(rf"{ROOT}/\w+(?:/|(?=\W)|$)|{tempfile.gettempdir()}/\w+/", "", text)
    text = re.sub(r"^\W+(?=\w)", "", text) if text.startswith(":") else text
    text = text.strip()
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 60]} … {text[-50:]}"


def plain(value: Any) -> Any:
    """The same as JSON can hold it: what is not finite as text."""
    if isinstance(value, dict):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def path_of(place: str) -> Path:
    """The files that were given: a folder, or one file alone, which is an adapter itself."""
    folder = ROOT / place
    files = [*folder.iterdir()]
    return files[0] if len(files) == 1 else folder


def inspect(asked: Asked) -> Said:
    """What `lora-np inspect` and `lora-np check` say."""
    from lora_np import adapters
    from lora_np.adapters.formats import format_of

    path = path_of(asked["place"])
    found, checked = adapters.inspect(path), adapters.check(path)
    length = len(found.headings)
    return {
        "format": FORMATS[format_of(path)[0]],
        "contents": found.contents,
        "words": found.contents_table.rows,
        "headings": found.headings,
        "rows": [dict(zip(row._fields, row[:length], strict=False)) for row in found.rows],
        "spectra": {name: s.tolist() for name, s in found.spectra.items()},
        "notes": [without_folders(note) for note in found.notes],
        "check": {
            "headings": checked.headings,
            "rows": checked.table.rows,
            "programs": {
                name: all(row.status == "fine" for row in checked.rows if row.runtime == name)
                for name in dict.fromkeys(row.runtime for row in checked.rows)
            },
            "notes": [without_folders(note) for note in checked.notes],
        },
    }


def compare(asked: Asked) -> Said:
    """What `lora-np overlap` and `lora-np diff` say of two adapters, and the second's own rows."""
    from lora_np import adapters

    first, second = map(path_of, ("first", "second"))
    said = inspect({"place": "second"})
    overlap = adapters.overlap([first, second], any_base=True)
    said["overlap"] = [row._asdict() for row in overlap.rows]
    said["pairs"] = {
        "headings": ["module", "overlap", "cosine", "inputs", "outputs", *OF_BOTH],
        "rows": pairs(overlap.rows, inspect({"place": "first"})["rows"], said["rows"]),
    }
    try:
        difference = adapters.diff(first, second)
        said["diff"] = {
            "headings": difference.headings,
            "rows": difference.rows,
            "notes": [without_folders(note) for note in difference.notes],
        }
    except (FileError, ValueError) as error:
        said["diff"] = {"headings": [], "rows": [], "notes": [without_folders(str(error))]}
    return said


def pairs(overlaps: Sequence[Any], *both: list[dict[str, Any]]) -> list[list[Any]]:
    """The table of two adapters: first all modules, then each that both have."""
    named: list[dict[str, Any]] = [{row["name"]: row for row in rows} for rows in both]
    for rows, each in zip(both, named, strict=True):
        each["all"] = {"norm": math.sqrt(sum((row["norm"] or 0) ** 2 for row in rows))}
    return [
        [
            row.module, row.overlap, row.cosine, f"{row.inputs:.1f}°", f"{row.outputs:.1f}°",
            *(_both(named, row.module, what) for what in OF_BOTH),
        ]
        for row in (overlaps[-1], *overlaps[:-1])
    ]  # fmt: skip


def _both(named: list[dict[str, Any]], module: str, what: str) -> str:
    values = (each[module].get(what) for each in named)
    return " | ".join(f"{value:.4g}" for value in values if value is not None)


def cut(asked: Asked) -> Said:
    """What `lora-np resize` makes of it: the error, the size, the config, and the file itself."""
    global made
    from lora_np import adapters

    with tempfile.TemporaryDirectory() as folder:
        done = adapters.resize(path_of("first"), Path(folder) / "cut", rank=asked["rank"])
        made = (done.path / "adapter_model.safetensors").read_bytes()
        config = (done.path / "adapter_config.json").read_text("utf-8")
    return {"error": done.error, "size": done.bytes, "config": config, "file": True}


def fit(asked: Asked) -> Said:
    """The terms of a model's memory, and what a link needs of its config."""
    from lora_np_browser import terms  # type: ignore[attr-defined]

    from lora_np import models

    config = asked.get("config")
    spec = models.preset(asked["model"]) if config is None else models.from_config(config)
    if not spec.layers:
        raise ValueError("its layers are not known, so its memory is not")
    choices = [asked["targets"]] if isinstance(asked.get("targets"), list) else []
    found: Said = {"terms": terms.of(spec, choices)}
    if config is not None and not choices:
        found |= {"config": terms.needed(config)}
        found["terms"]["name"] = "config.json"
    return found


KINDS = {"fit": fit, "inspect": inspect, "compare": compare, "cut": cut}
