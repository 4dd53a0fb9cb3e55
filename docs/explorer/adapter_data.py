"""What the inspector knows, from the package: python docs/explorer/adapter_data.py >
adapter-data.js

The rules of `lora-np check`, PEFT's settings, and the names of llama.cpp and mlx-lm; nothing is
typed twice.
"""

import json
from typing import Any

from lora_np.adapters import rules, runtimes
from lora_np.hub.dtypes import GGUF_KINDS
from lora_np.models import family_names, headers, llama_cpp_of, peft
from lora_np.models.families import names_in
from lora_np.quantise import LAYOUTS


def data() -> dict[str, Any]:
    """Rules, settings, kinds of tensors by number, and names by program."""
    return {
        "runtimes": rules.runtimes(),
        "usual": rules._OF,
        "cured": rules._TO_LORA,
        "settings": {name: rule[0] if rule else "" for name, rule in peft.SETTINGS.items()},
        "refused": peft._REFUSED,
        "fresh": peft.FRESH,
        "starts": peft._INITS_THAT_KEEP_THE_BASE,
        "kinds": GGUF_KINDS,
        "unread": sorted(set(LAYOUTS) - {"F32", "F16", "BF16", "Q8_0"}),
        "gguf": llama_cpp(),
        "heads": runtimes._HEADS,
        "mlx": {
            name: path for family in runtimes._FAMILIES for name, path in renamed("mlx", family)
        },
        "embeddings": headers._EMBEDDINGS,
        "saved": peft.EMBEDDINGS,
    }


def llama_cpp() -> dict[str, Any]:
    """By architecture: whether rows of q and k are in another order, and modules by llama.cpp's
    names.
    """
    found: dict[str, Any] = {}
    for family in family_names():
        known = llama_cpp_of(family)
        if known is None:
            continue
        architecture, turned = known
        entry = found.setdefault(architecture, {"turned": turned == "neighbours", "names": {}})
        if entry["turned"] != (turned == "neighbours"):
            raise ValueError(
                f"families of {architecture} differ in the order of rows; the inspector has one"
            )
        for name, path in renamed("llama_cpp", family):
            entry["names"].setdefault(name, path)  # the first family that has the name counts
    return found


def renamed(program: str, family: str) -> list[tuple[str, str | None]]:
    """Names and modules; none for experts and routers, which the inspector does not read."""
    return [
        (
            name,
            None if len(names) > 1 or ".experts." in path or path.endswith(".mlp.gate") else path,
        )
        for path, names in names_in(program, family).items()
        for name in names
    ]


def script() -> str:
    return f"window.loraAdapters = {json.dumps(data(), separators=(',', ':'))};\n"


if __name__ == "__main__":
    print(script(), end="")
