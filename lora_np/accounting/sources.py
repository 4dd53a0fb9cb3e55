"""The modules of a model, however it is given."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from lora_np.models import ModelSpec, describe


def model_spec(model: object) -> ModelSpec:
    """The modules of a model, from any source that describes one.

    Parameters
    ----------
    model : str, Path, mapping, ModelSpec or model
        ``"100x120"`` for one matrix, the name of a preset or of a shipped model, a ``config.json``, a
        ``*.safetensors`` or ``*.gguf`` file, a directory that holds a config or safetensors, the fields of a
        config, a model of ours, or any object with ``named_modules()``, such as a torch model, on the meta
        device too (torch is never imported here).

    Returns
    -------
    ModelSpec
        The modules by name, kind, shape and role.

    Raises
    ------
    FileNotFoundError
        If the file or preset does not exist.
    ValueError
        If the file or the config cannot be understood.
    TypeError
        If the model is none of these.

    Examples
    --------
    >>> model_spec("100x120").total, model_spec("gpt2").total
    (12000, 124439808)
    """
    if isinstance(model, ModelSpec):
        return model
    if is_described(model):
        return describe(model)
    from lora_np.accounting.live import tree_spec

    return tree_spec(model)


def is_described(model: object) -> bool:
    """Whether `lora_np.models` knows the modules of ``model``, rather than the tree of our layers."""
    return isinstance(model, (ModelSpec, str, Path, Mapping)) or hasattr(model, "named_modules")
