"""Which modules of a described model a LoRA adapts.

Sources: PEFT 0.21, ``tuners/tuners_utils.py`` (``_maybe_include_all_linear_layers``), ``utils/other.py``
(``_set_trainable``) and, for fused experts, ``utils/transformers_weight_conversion.py``
(``_convert_peft_config_moe``).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from lora_np.checks import close_names
from lora_np.models.expressions import Expression
from lora_np.models.spec import ModelSpec, ModuleSpec
from lora_np.models.targets import ALL_LINEAR, Patterns, Targets, checked_names, ends_with, matcher
from lora_np.table import shape_text

ADAPTABLE = ("linear", "embedding", "convolution")
# PEFT refuses what these models compute without calling the module (``_check_lora_target_modules_mamba``)
_STATE_SPACE = ("falcon_h1", "falcon_mamba", "mamba", "mamba2", "nemotron_h")
_UNCALLED = ("out_proj", "conv1d")


class Pick(NamedTuple):
    """Modules that are adapted: all of a group, or those of it that are named.

    Parameters
    ----------
    module : ModuleSpec
        The group.
    names : tuple of str, optional
        Those that are adapted; all by default.
    times : int
        Factor of the rank: PEFT gives maps that were fused into one the ranks of all of them.
    parameter : str
        Where not the module is adapted but a parameter: its name in the module, or nothing for a bare one.
    """

    module: ModuleSpec
    names: tuple[str, ...] | None = None
    times: int = 1
    parameter: str | None = None

    def path(self, name: str) -> str:
        """What patterns are matched with for the module ``name``."""
        return f"{name}.{self.parameter}" if self.parameter else name


def pick(
    spec: ModelSpec,
    targets: Targets | None,
    saved: Collection[str],
    exclude: str | Sequence[str],
    layers: int | Sequence[int],
    layers_pattern: str | Sequence[str],
    target_parameters: Collection[str],
) -> list[Pick]:
    """The modules that ``targets`` mean, less those that ``saved`` (``modules_to_save``) trains in full.

    Parameters
    ----------
    spec : ModelSpec
        The model.
    targets : str, iterable of str, callable or None
        As PEFT reads them; None takes the family's default.
    saved : collection of str
        Ends of names that ``modules_to_save`` trains in full.
    exclude : str or sequence of str
        What is left out: ends of names, or one expression.
    layers : int or sequence of int
        Of modules that a list names, only those in the layers of these numbers.
    layers_pattern : str or sequence of str
        The names of the lists of layers that ``layers`` counts; by default any.
    target_parameters : collection of str
        Ends of the names of parameters that are adapted by themselves. With them ``targets`` may be empty.

    Returns
    -------
    list of Pick
        In the order of the model.

    Raises
    ------
    ValueError
        If a target matches no module, or nothing is left.
    """
    if targets is None:
        lost = target_parameters and (spec.fused or not spec.default_targets)
        targets = () if lost else _defaults(spec)
    if not isinstance(targets, str) and not callable(targets):
        targets = checked_names(targets) if targets or not target_parameters else []
    elif layers != ():
        raise ValueError("layers needs a list of targets: an expression says itself which layers it means")
    if layers_pattern and layers == ():
        raise ValueError("layers_pattern says what layers counts, which must be given as well")
    picks = _picked(spec, targets) if targets else []
    if saved or exclude or layers != ():
        # As in PEFT none of that holds for parameters, and a whole path is wanted in any layer.
        whole = set() if isinstance(targets, str) or callable(targets) else {*targets}
        left_in = matcher(lambda path, layer: True, exclude=exclude, saved=saved)

        def kept(each: Pick) -> Pick:
            last = each.module.name.rpartition(".")[2]
            in_layer = matcher([last], layers=layers, layers_pattern=layers_pattern)
            names = each.names or tuple(each.module.names())
            left = tuple(name for name in names if left_in(name) and (name in whole or in_layer(name)))
            return each if each.parameter is not None or left == names else each._replace(names=left)

        picks = [pick for pick in map(kept, picks) if pick.names != ()]
        if not picks and not target_parameters:
            raise ValueError(f"targets: all that they select of {spec.name} is left out again")
    for each in picks if spec.family in _STATE_SPACE else ():
        if each.module.name.rpartition(".")[2] in _UNCALLED:
            raise ValueError(
                f"targets: PEFT adapts no {' and no '.join(_UNCALLED)} in a {spec.family} model, which uses "
                "their weights without calling them; name other modules"
            )
    return picks + _pick_parameters(spec, target_parameters, {each.module for each in picks})


def _picked(spec: ModelSpec, targets: Targets) -> list[Pick]:
    if callable(targets):
        picks = _picks(_found(_names(module for module in spec.groups if module.kind in ADAPTABLE), targets))
        if not picks:
            raise ValueError(f"targets: the function selected no module of {spec.name}")
        return picks
    if spec.fused:
        return _pick_fused(spec, targets if isinstance(targets, str) else list(targets))
    if not isinstance(targets, str):
        return _pick_names(spec, list(targets))
    if targets.lower() == ALL_LINEAR:
        return [Pick(module) for module in _all_linear(spec)]
    return _pick_pattern(spec, targets)


def check_patterns(spec: ModelSpec, patterns: Patterns) -> None:
    """Refuse a pattern for names that no module has.

    Parameters
    ----------
    spec : ModelSpec
        The model.
    patterns : Patterns
        Values by expressions.

    Raises
    ------
    ValueError
        If an expression matches no module.
    """
    names = [name for module in spec.modules for name in {module.name, _parameter_name(module)}]
    for key in patterns.unused(names):
        close = close_names(key, _leaf_names(spec))
        raise ValueError(f"{patterns.what}: {key!r} matches no module of {spec.name}{close}")


def saved_modules(spec: ModelSpec, saved: Collection[str]) -> dict[str, ModuleSpec]:
    """The modules that ``saved`` trains in full: their name, or a parent's, ends with one of its entries.

    Parameters
    ----------
    spec : ModelSpec
        The model.
    saved : collection of str
        Ends of names.

    Returns
    -------
    dict of str to ModuleSpec
        By name.

    Raises
    ------
    ValueError
        If an entry matches no module.
    """
    found: set[str] = set()
    for end in saved:
        named = {module.name for module in spec.modules if any(path.endswith(end) for path in _paths(module))}
        if not named:
            paths = {path.rpartition(".")[2] for module in spec.modules for path in _paths(module)}
            close = close_names(end, paths)
            raise ValueError(f"modules_to_save: {end!r} matches no module of {spec.name}{close}")
        found |= named
    return {module.name: module for module in spec.modules if module.name in found}


def _defaults(spec: ModelSpec) -> tuple[str, ...] | str:
    if not spec.default_targets:
        raise ValueError(
            f"targets must be given: PEFT has no default for {spec.family or spec.name}. "
            f"Candidates: {', '.join(_leaf_names(spec))}, or 'all-linear'"
        )
    return spec.default_targets


Names = list[dict[ModuleSpec, list[str]]]  # the names of each group, and those in checkpoints that differ


def _names(groups: Iterable[ModuleSpec]) -> Names:
    groups = list(groups)
    return [
        {module: module.names() for module in groups},
        {module: module._replace(name=module.alias).names() for module in groups if module.alias},
    ]


def _found(names: Names, wanted: Callable[[str, ModuleSpec], bool]) -> dict[ModuleSpec, set[int]]:
    """Which of each group are wanted: by their names, or by those in checkpoints where no name is."""
    for naming in names:
        found = {}
        for module, each in naming.items():
            hits = {place for place, name in enumerate(each) if wanted(name, module)}
            if hits:
                found[module] = hits
        if found:
            return found
    return {}


def _picks(found: Mapping[ModuleSpec, set[int]]) -> list[Pick]:
    return [
        Pick(module, None if len(hits) == module.copies else tuple(module.names()[i] for i in sorted(hits)))
        for module, hits in found.items()
    ]


def _all_linear(spec: ModelSpec) -> list[ModuleSpec]:
    """Every linear map but the output head."""
    found = [module for module in spec.groups if module.kind == "linear" and module.name != spec.head]
    if not found:
        raise ValueError(f"targets 'all-linear' matches nothing: {spec.name} has no linear maps")
    return found


def _pick_names(spec: ModelSpec, targets: list[str]) -> list[Pick]:
    """Modules whose names end with one of ``targets``."""
    groups = [module for module in spec.groups if module.kind in (*ADAPTABLE, "experts")]
    names = _names(groups)
    # layers differ in an index, which only a target that holds an index can tell apart
    indexed = any(part.isdigit() for target in targets for part in target.split("."))
    if not indexed:
        names = [{module: each[:1] for module, each in naming.items()} for naming in names]
    found: dict[ModuleSpec, set[int]] = {}
    for target in targets:
        hits = _found(names, lambda name, _, end=f".{target}": f".{name}".endswith(end))  # type: ignore[misc]
        if not hits:
            raise ValueError(f"targets: {target!r} {_why_not(spec, target)}")
        for module, places in hits.items():
            found.setdefault(module, set()).update(places)
    if not indexed:
        return [Pick(module) for module in groups if module in found]
    return _picks({module: found[module] for module in groups if module in found})


def _pick_pattern(spec: ModelSpec, text: str) -> list[Pick]:
    """Modules whose whole names match the regular expression ``text``."""
    pattern = Expression(text, what="targets")
    for path in dict.fromkeys(path for module in spec.modules for path in _paths(module)[1:]):
        if pattern.matches(path):
            raise ValueError(
                f"targets: the pattern {text!r} also matches the container {path!r}, which LoRA cannot adapt"
            )
    found = _found(_names(spec.groups), lambda name, _: pattern.matches(name))
    for module, places in found.items():
        if module.kind not in ADAPTABLE:
            what = f"the {module.kind} {module.names()[min(places)]!r}"
            raise ValueError(f"targets: {text!r} also matches {what}, which LoRA cannot adapt")
    if not found:
        raise ValueError(f"targets: {_no_match(spec, text)}")
    return _picks(found)


def _pick_fused(spec: ModelSpec, targets: str | list[str]) -> list[Pick]:
    """As PEFT does where transformers fuses experts: it looks for parameters under the names that were fused.

    A string is first turned into last names, so a pattern cannot tell layers apart. The fused names
    (``down_proj``) then mean experts only, even where dense layers have maps of the same name.
    """
    fused = spec.fused or {}
    if isinstance(targets, str):
        if targets.lower() == ALL_LINEAR:
            leaves = {module.name.rpartition(".")[2] for module in _all_linear(spec)} | set(fused)
        else:
            leaves = _fused_leaves(spec, targets, fused)
        targets = sorted(leaves)
    rest: list[str] = []
    parameters: dict[str, set[str]] = {}
    for target in targets:
        old = next((name for name in fused if ends_with(target, name)), None)
        if old is None:
            rest.append(target)
        else:
            parameters.setdefault(fused[old], set()).add(old)
    picks = _pick_names(spec, rest) if rest else []
    for name, present in parameters.items():
        needed = [old for old in fused if fused[old] == name]
        if set(needed) != present:
            missing = ", ".join(old for old in needed if old not in present)
            raise ValueError(
                f"targets: {', '.join(sorted(present))} needs {missing} too: PEFT adapts them fused in {name}"
            )
        picks += [
            Pick(module, times=len(needed), parameter=_parameter(module))
            for module in spec.groups
            if module.kind in ("router", "experts", "linear") and ends_with(_parameter_name(module), name)
        ]
    return picks


def _fused_leaves(spec: ModelSpec, text: str, fused: Mapping[str, str]) -> set[str]:
    pattern = Expression(text, what="targets")
    leaves: set[str] = set()
    for module in spec.modules:
        if pattern.matches(module.name):
            leaves.add(module.name.rpartition(".")[2])
        if module.kind == "experts":
            container = module.name.rpartition(".")[0]
            leaves.update(old for old in fused if pattern.matches(f"{container}.{old}"))
    if not leaves:
        raise ValueError(f"targets: {_no_match(spec, text)}")
    return leaves


def _parameter(module: ModuleSpec) -> str:
    """The weight's name in its module; nothing for a bare parameter."""
    return "" if module.kind in ("parameter", "experts") else "weight"


def _parameter_name(module: ModuleSpec) -> str:
    return Pick(module, parameter=_parameter(module)).path(module.name)


def _pick_parameters(spec: ModelSpec, targets: Collection[str], taken: Collection[ModuleSpec]) -> list[Pick]:
    """Parameters whose names end with one of ``targets``: PEFT's ``target_parameters``."""
    if not targets:
        return []
    paths = {
        module: [Pick(module, parameter=_parameter(module)).path(name) for name in module.names()]
        for module in spec.groups
    }
    found: dict[ModuleSpec, set[int]] = {}
    for target in targets:
        hits = _found([paths], lambda path, _, target=target: ends_with(path, target))  # type: ignore[misc]
        if not hits:
            close = close_names(target, {_parameter_name(module).rpartition("}.")[2] for module in paths})
            raise ValueError(f"target_parameters: {target!r} matches no parameter of {spec.name}{close}")
        for module, places in hits.items():
            if len(module.shape) not in (2, 3) or module.kind == "convolution":
                raise ValueError(
                    f"target_parameters: {target!r} is {paths[module][min(places)]}, a {module.kind} of "
                    f"shape {shape_text(module.shape)}; matrices and stacks of matrices can be adapted"
                )
            if module in taken:
                raise ValueError(f"target_parameters: {target!r} is of a module that targets select as well")
            found.setdefault(module, set()).update(places)
    return [each._replace(parameter=_parameter(each.module)) for each in _picks(found)]


def _why_not(spec: ModelSpec, target: str) -> str:
    holders = [each for each in spec.modules if any(ends_with(path, target) for path in _paths(each)[1:])]
    inside = sorted({module.name.rpartition(".")[2] for module in holders})
    if inside:
        return f"is a container, which LoRA cannot adapt; it holds {', '.join(inside)}"
    for module in spec.groups:
        if ends_with(module.names()[0], target):
            return f"is a {module.kind}, which LoRA cannot adapt"
    names = {*_leaf_names(spec), *(module.alias.rpartition(".")[2] for module in spec.groups if module.alias)}
    return f"matches no module of {spec.name}{close_names(target, names)}"


def _no_match(spec: ModelSpec, text: str) -> str:
    names = [name for name in _leaf_names(spec) if Expression(text, what="targets").matches(name)]
    if names:
        return (
            f"the string {text!r} is a regular expression for whole names and matches none of {spec.name}; "
            f"for the ends of names give a list: {names}"
        )
    return f"the pattern {text!r} matches no module of {spec.name}{close_names(text, set(_leaf_names(spec)))}"


def _leaf_names(spec: ModelSpec) -> list[str]:
    """The last names of the modules that can be adapted, each once, in the model's order."""
    names = [module.name.rpartition(".")[2] for module in spec.groups if module.kind in ADAPTABLE]
    return list(dict.fromkeys(name for name in names if name != "{}"))


def _paths(module: ModuleSpec) -> list[str]:
    """The module's own path and those of all its parents; a bare parameter is not a module."""
    parts = module.name.split(".")
    paths = [".".join(parts[:end]) for end in range(len(parts), 0, -1)]
    return paths[1:] if module.kind in ("parameter", "experts") else paths
