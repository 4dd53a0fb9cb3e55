"""Which modules of a described model a LoRA adapts.

Sources: PEFT 0.21, ``tuners/tuners_utils.py`` (``_maybe_include_all_linear_layers``), ``utils/other.py``
(``_set_trainable``) and, for fused experts, ``utils/transformers_weight_conversion.py``
(``_convert_peft_config_moe``).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import compress
from typing import TYPE_CHECKING, NamedTuple

from lora_np.hub.patterns import Expression
from lora_np.hub.targets import ALL_LINEAR, Patterns, Targets, checked_names, close_names, ends_with

if TYPE_CHECKING:
    from lora_np.hub.model import ModelSpec, ModuleSpec

ADAPTABLE = ("linear", "embedding", "convolution")


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
    """

    module: ModuleSpec
    names: tuple[str, ...] | None = None
    times: int = 1  # PEFT gives maps that were fused into one the ranks of all of them


def pick(spec: ModelSpec, targets: Targets | None, saved: Collection[str]) -> list[Pick]:
    """The modules that ``targets`` mean, less those that ``saved`` (``modules_to_save``) trains in full.

    Parameters
    ----------
    spec : ModelSpec
        The model.
    targets : str, iterable of str, callable or None
        As PEFT reads them; None takes the family's default.
    saved : collection of str
        Ends of names that ``modules_to_save`` trains in full.

    Returns
    -------
    list of Pick
        In the order of the model.

    Raises
    ------
    ValueError
        If a target matches no module.
    """
    if targets is None:
        targets = _defaults(spec)
    if callable(targets):
        picks = _pick_chosen(spec, targets)
    else:
        targets = targets if isinstance(targets, str) else checked_names(targets)
        picks = _pick_fused(spec, targets) if spec.fused else _pick(spec, targets)
    return list(_without(picks, saved)) if saved else picks


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
    names = [_parameter_name(module) if module.kind == "router" else module.name for module in spec.modules]
    for key in patterns.unused(names):
        raise ValueError(
            f"{patterns.what}: {key!r} matches no module of {spec.name}{close_names(key, _leaf_names(spec))}"
        )


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
    unmatched = list(saved)
    found: dict[str, ModuleSpec] = {}
    for module in spec.modules:
        for path in _paths(module):
            ends = [end for end in saved if path.endswith(end)]
            if ends:
                unmatched = [end for end in unmatched if end not in ends]
                found[module.name] = module
    for end in unmatched:
        paths = {path.rpartition(".")[2] for module in spec.modules for path in _paths(module)}
        close = close_names(end, paths)
        raise ValueError(f"modules_to_save: {end!r} matches no module of {spec.name}{close}")
    return found


def _defaults(spec: ModelSpec) -> tuple[str, ...]:
    if not spec.default_targets:
        raise ValueError(
            f"targets must be given: PEFT has no default for {spec.family or spec.name}. "
            f"Candidates: {', '.join(_leaf_names(spec))}, or 'all-linear'"
        )
    return spec.default_targets


def _picked(module: ModuleSpec, hits: Sequence[object]) -> list[Pick]:
    """Those modules of a group whose names were hit: ``hits`` has an entry for each of them."""
    if not any(hits):
        return []
    return [Pick(module, None if all(hits) else tuple(compress(module.names(), hits)))]


def _pick_chosen(spec: ModelSpec, chosen: Callable[[str, ModuleSpec], bool]) -> list[Pick]:
    """Modules of which the caller's function says yes."""
    picks = []
    for module in spec.groups:
        if module.kind in ADAPTABLE:
            picks += _picked(module, [chosen(name, module) for name in module.names()])
    if not picks:
        raise ValueError(f"targets: the function selected no module of {spec.name}")
    return picks


def _pick(spec: ModelSpec, targets: str | list[str]) -> list[Pick]:
    if not isinstance(targets, str):
        return _pick_names(spec, targets)
    if targets.lower() == ALL_LINEAR:
        return [Pick(module) for module in _all_linear(spec)]
    return _pick_pattern(spec, targets)


def _all_linear(spec: ModelSpec) -> list[ModuleSpec]:
    """Every linear map but the output head."""
    found = [module for module in spec.groups if module.kind == "linear" and module.name != spec.head]
    if not found:
        raise ValueError(f"targets 'all-linear' matches nothing: {spec.name} has no linear maps")
    return found


def _pick_names(spec: ModelSpec, targets: list[str]) -> list[Pick]:
    """Modules whose names end with one of ``targets``; names in checkpoints count where no name matches."""
    groups = [module for module in spec.groups if module.kind in (*ADAPTABLE, "experts")]
    picks, unmatched = _match(groups, targets, aliases=False)
    if unmatched:
        more, unmatched = _match(groups, unmatched, aliases=True)
        picks = _union(picks, more)
    for target in unmatched:
        raise ValueError(f"targets: {target!r} {_why_not(spec, target)}")
    return picks


def _match(groups: list[ModuleSpec], targets: list[str], *, aliases: bool) -> tuple[list[Pick], list[str]]:
    unmatched = list(targets)
    picks = []
    # layers differ in an index, which only a target that holds an index can tell apart
    indexed = any(part.isdigit() for target in targets for part in target.split("."))
    for module in groups:
        names = module.aliases() if aliases else module.names()
        names = names if indexed else names[:1]
        hits = []
        for name in names:
            hits.append([target for target in targets if ends_with(name, target)])
            if hits[-1]:
                unmatched = [target for target in unmatched if target not in hits[-1]]
        picks += _picked(module, hits)
    return picks, unmatched


def _union(picks: list[Pick], more: list[Pick]) -> list[Pick]:
    merged = {each.module: each for each in picks}
    for each in more:
        known = merged.get(each.module, each)
        both = None if None in (known.names, each.names) else {*(known.names or ()), *(each.names or ())}
        merged[each.module] = Pick(each.module, None if both is None else tuple(sorted(both)))
    return list(merged.values())


def _pick_pattern(spec: ModelSpec, text: str) -> list[Pick]:
    """Modules whose whole names match the regular expression ``text``, or their names in checkpoints."""
    pattern = Expression(text, what="targets")
    for path in dict.fromkeys(path for module in spec.modules for path in _paths(module)[1:]):
        if pattern.matches(path):
            raise ValueError(
                f"targets: the pattern {text!r} also matches the container {path!r}, which LoRA cannot adapt"
            )
    for aliases in (False, True):
        picks = []
        for module in spec.groups:
            names = module.aliases() if aliases else module.names()
            hits = [pattern.matches(name) for name in names]
            if any(hits) and module.kind not in ADAPTABLE:
                name = names[hits.index(True)]
                raise ValueError(
                    f"targets: the pattern {text!r} also matches the {module.kind} {name!r}, which LoRA "
                    "cannot adapt"
                )
            picks += _picked(module, hits)
        if picks:
            return picks
    raise ValueError(f"targets: {_no_match(spec, text)}")


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
            Pick(module, times=len(needed))
            for module in spec.groups
            if module.kind in ("router", "experts") and ends_with(_parameter_name(module), name)
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


def _parameter_name(module: ModuleSpec) -> str:
    return f"{module.name}.weight" if module.kind == "router" else module.name


def _without(picks: Iterable[Pick], saved: Collection[str]) -> Iterator[Pick]:
    """Picks less the modules that are trained in full: PEFT never adapts those."""
    patterns = [Expression(rf"(^|.*\.){end}($|\..*)", what="modules_to_save") for end in saved]
    for each in picks:
        names = each.module.names() if each.names is None else each.names
        kept = tuple(name for name in names if not any(pattern.matches(name) for pattern in patterns))
        if len(kept) == len(names):
            yield each
        elif kept:
            yield each._replace(names=kept)


def _why_not(spec: ModelSpec, target: str) -> str:
    inside = sorted(
        {
            module.name.rpartition(".")[2]
            for module in spec.modules
            if any(ends_with(path, target) for path in _paths(module)[1:])
        }
    )
    if inside:
        return f"is a container, which LoRA cannot adapt; it holds {', '.join(inside)}"
    for module in spec.groups:
        if ends_with(module.first, target):
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
