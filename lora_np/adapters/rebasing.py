"""Adapters that began with a part of the base, as ordinary ones of the original."""

from __future__ import annotations

import os
from dataclasses import replace

from lora_np.adapters.adapter import Adapter, AdapterModule
from lora_np.adapters.formats import load
from lora_np.adapters.peft_format import targeting
from lora_np.adapters.weights import Merging, from_start, oriented
from lora_np.hub import directory
from lora_np.models import open_model


def rebase(adapter: Adapter | str | os.PathLike[str], base: str | os.PathLike[str]) -> Adapter:
    """An adapter that PEFT began with PiSSA or OLoRA as an ordinary one of the original base.

    It has twice the rank: ``W - s B0 A0 + s B A = W + s [B, -B0] [A; A0]``.

    Parameters
    ----------
    adapter : path or Adapter
        One whose ``init_lora_weights`` is "pissa" or "olora".
    base : path
        The directory of the original model.

    Returns
    -------
    Adapter
        To be saved, resized or combined. Any other adapter is returned as it is.

    Raises
    ------
    HubError
        If the base does not fit, or the initialisation cannot be computed from it alone.

    See Also
    --------
    lora_np.lora.rebase : The same for a model in memory.
    """
    adapter = load(adapter)
    if adapter.start is None:
        return adapter
    modules: dict[str, AdapterModule] = {}
    for name, change in Merging(open_model(directory(base)), adapter).by_module().items():
        module = adapter[name]
        W = oriented(name, change.start.read(), module, transposed=change.transposed)
        modules[name] = from_start(module, W, adapter.start)
    raw = {**adapter.raw, "init_lora_weights": True}
    return replace(adapter, modules=modules, raw=targeting(raw, modules))
