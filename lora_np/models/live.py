"""The modules of models in memory that have ``named_modules()``, such as torch's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from lora_np.models.names import default_targets, fused_names
from lora_np.models.spec import ModelSpec, ModuleSpec, fold

_ASSUMED = "The experts of this family are not described: PEFT may adapt them under other names."


def from_named_modules(model: Any) -> ModelSpec:
    """The modules of any object with ``named_modules()``, such as a torch model on the meta device.

    torch is never imported here: modules only need ``named_parameters(recurse=False)`` with
    shapes.

    Parameters
    ----------
    model : object
        With ``named_modules()``.

    Returns
    -------
    ModelSpec
        The modules by name, kind and shape.
    """
    family_name = getattr(getattr(model, "config", None), "model_type", "")
    fused = fused_names(family_name)
    seen: set[int] = set()
    modules: list[ModuleSpec] = []
    output = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    for name, module in model.named_modules():
        for found in _torch_modules(name, module, seen, fused or {}):
            modules.append(found._replace(role="head") if module is output else found)
    return ModelSpec(
        type(model).__name__,
        tuple(fold(modules)),
        family=family_name,
        default_targets=default_targets(family_name),
        fused=fused or None,
        assumed=_ASSUMED if fused is None and any(module.kind == "experts" for module in modules) else "",
    )


def _torch_modules(name: str, module: Any, seen: set[int], fused: Mapping[str, str]) -> Iterator[ModuleSpec]:
    """A module's own parameters as one module if its kind is known, otherwise one by one."""
    shapes: dict[str, tuple[int, ...]] = {}
    tied: dict[str, bool] = {}
    for key, parameter in module.named_parameters(recurse=False):
        shapes[key] = tuple(parameter.shape)
        tied[key] = id(parameter) in seen
        seen.add(id(parameter))
    known = _known(module, shapes)
    if known is not None:
        bias = "bias" in shapes
        yield known._replace(
            name=name or type(module).__name__,
            bias=bias,
            tied=tied["weight"],
            tied_bias=bias and tied["bias"],
        )
        shapes = {key: shape for key, shape in shapes.items() if key not in ("weight", "bias")}
    for key, shape in shapes.items():
        path = f"{name}.{key}" if name else key
        if type(module).__name__.endswith("Experts") and len(shape) == 3:
            parts = tuple(old for old, new in fused.items() if new == key) or (key,)
            transposed = bool(getattr(module, "is_transposed", False))
            shape = (shape[0], shape[2], shape[1]) if transposed else shape
            yield ModuleSpec(path, "experts", shape, tied=tied[key], parts=parts, transposed=transposed)
        else:
            yield ModuleSpec(path, "parameter", shape, tied=tied[key])


def _known(module: Any, shapes: Mapping[str, tuple[int, ...]]) -> ModuleSpec | None:
    weight = shapes.get("weight", ())
    if weight and hasattr(module, "in_features") and hasattr(module, "out_features"):
        # a quantized weight is packed: its own shape would mislead
        return ModuleSpec("", "linear", (module.out_features, module.in_features))
    if len(weight) == 2 and type(module).__name__ == "Conv1D":
        return ModuleSpec("", "linear", (weight[1], weight[0]), transposed=True)
    if len(weight) == 2 and hasattr(module, "num_embeddings"):
        return ModuleSpec("", "embedding", weight)
    if len(weight) == 2 and type(module).__name__.endswith("Router"):
        return ModuleSpec("", "router", weight)
    if len(weight) >= 3 and hasattr(module, "kernel_size") and not getattr(module, "transposed", False):
        return ModuleSpec("", "convolution", weight, groups=module.groups)
    if len(weight) == 1:
        return ModuleSpec("", "norm", weight)
    return None
