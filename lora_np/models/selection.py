"""Select the modules of a model that a LoRA adapts, by PEFT's rules.

The same selection serves configs, checkpoints and models in memory.

Sources: PEFT 0.21, ``tuners/tuners_utils.py`` (``inject_adapter``), ``utils/other.py``
(``_set_trainable``) and, for fused experts, ``utils/transformers_weight_conversion.py``
(``_convert_peft_config_moe``).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from lora_np.models.expressions import Expression

if TYPE_CHECKING:
    from lora_np.models.spec import ModelSpec, ModuleSpec

T = TypeVar("T")
Targets = str | Iterable[str] | Callable[[str, Any], bool]

ALL_LINEAR = "all-linear"
_MAX_PATTERNS = 1_000  # a limit, because each expression is compared with each path
_PLAIN_PATTERNS = 200  # after this many expressions, plain names are looked up in a dictionary
_MAX_DIGITS = 18  # digits read of a layer's index; further digits are ignored

_EXACT = re.compile(r"\^((?:[\w-]|\\[.-])+)\$?")  # a pattern for one path, from `peft.compose`
_PLAIN = re.compile(r"[\w.-]+")
ADAPTABLE = ("linear", "embedding", "convolution")
# In models of these types, PEFT rejects the modules `_UNCALLED`: the models read their weights but
# never call them, so adapters would have no effect or fail (``_check_lora_target_modules_mamba``).
_STATE_SPACE = ("falcon_h1", "falcon_mamba", "mamba", "mamba2", "nemotron_h")
_UNCALLED = ("out_proj", "conv1d")


class Selected(NamedTuple):
    """The adapted modules of one group of identical modules.

    Parameters
    ----------
    module : ModuleSpec
        The group.
    names : tuple of str, optional
        The names of the adapted modules; by default all of the group.
    times : int
        A factor on the rank: PEFT gives fused matrices the sum of their separate ranks.
    parameter : str
        The name of the adapted parameter in the module, if a parameter is adapted instead of the
        module; empty for a bare parameter.

    Examples
    --------
    >>> from lora_np.models import ModuleSpec
    >>> Selected(ModuleSpec("mlp.experts", "experts", (2, 8, 6)),
    ...     parameter="down_proj").path("mlp.experts")
    'mlp.experts.down_proj'
    """

    module: ModuleSpec
    names: tuple[str, ...] | None = None
    times: int = 1
    parameter: str | None = None

    def path(self, name: str) -> str:
        """Return the path of the adapted parameter of the module ``name``, or else ``name``."""
        return f"{name}.{self.parameter}" if self.parameter else name


def select(
    spec: ModelSpec,
    targets: Targets | None,
    *,
    target_parameters: Collection[str] = (),
    **filters: Any,
) -> list[Selected]:
    """Select the modules and parameters that a LoRA adapts, by PEFT's rules.

    Parameters
    ----------
    spec : ModelSpec
        The model.
    targets : str, iterable of str, callable or None
        Targets as in PEFT; None takes the family's default. A function is called with (name,
        ModuleSpec).
    target_parameters : collection of str
        Ends of the names of parameters to adapt directly. With them ``targets`` may be empty.
    **filters
        ``exclude``, ``layers``, ``layers_pattern`` and ``saved``, as `matcher` takes them.

    Returns
    -------
    list of Selected
        The groups that have adapted modules, in the order of the model.

    Raises
    ------
    ValueError
        If a target matches no module or one that LoRA cannot adapt, or if no module is left.

    Examples
    --------
    >>> from lora_np.models import preset
    >>> llama = preset("llama-2-7b")
    >>> [each.module.name for each in select(llama, ["q_proj", "v_proj"])]
    ['model.layers.{}.self_attn.q_proj', 'model.layers.{}.self_attn.v_proj']
    """
    if targets is None:
        lost = target_parameters and (spec.fused or not spec.default_targets)
        targets = () if lost else spec.default_targets
        if not targets and not lost:
            known, family = ", ".join(_leaf_names(spec)), spec.family or spec.name
            why = f"PEFT has no default for {family}"
            raise ValueError(f"targets must be given: {why}. Candidates: {known}, or 'all-linear'")
    if not isinstance(targets, str) and not callable(targets):
        targets = checked_names(targets) if targets or not target_parameters else []
    elif filters.get("layers", ()) != ():
        raise ValueError(
            "layers needs a list of targets: an expression says itself which layers it means"
        )
    if filters.get("layers_pattern") and filters.get("layers", ()) == ():
        raise ValueError("layers_pattern says what layers counts, which must be given as well")
    targets, fused = _unfused(spec, targets)
    selections = _modules(spec, targets, filters) if targets else []
    parameters = _parameters(
        spec,
        target_parameters,
        fused,
        {name for one in selections for name in one.names or one.module.names()},
    )
    if not selections and not parameters:
        raise ValueError(f"targets: all that they select of {spec.name} is left out again")
    return selections + parameters


def check_patterns(spec: ModelSpec, patterns: Patterns[T]) -> None:
    """Raise an error if a pattern matches no module.

    Parameters
    ----------
    spec : ModelSpec
        The model.
    patterns : Patterns
        Values by regular expressions.

    Raises
    ------
    ValueError
        If a pattern matches no module.

    Examples
    --------
    >>> from lora_np.models import preset
    >>> check_patterns(preset("llama-2-7b"), Patterns({"q_prj": 4}))
    Traceback (most recent call last):
        ...
    ValueError: rank_pattern: ...q_prj...
    """
    names = [
        name
        for module in spec.modules
        for name in {module.name, _parameter(module).path(module.name)}
    ]
    for key in patterns.unused(names):
        raise spec.missing(f"{patterns.what}:", key, _leaf_names(spec))


def saved_modules(spec: ModelSpec, saved: Collection[str]) -> dict[str, ModuleSpec]:
    """Find the modules that are trained in full, as PEFT's ``modules_to_save`` selects them.

    Parameters
    ----------
    spec : ModelSpec
        The model.
    saved : collection of str
        Ends of the names of modules, or of modules that contain them.

    Returns
    -------
    dict of str to ModuleSpec
        From names to modules.

    Raises
    ------
    ValueError
        If an entry matches no module.

    Examples
    --------
    >>> from lora_np.models import preset
    >>> list(saved_modules(preset("llama-2-7b"), ["lm_head"]))
    ['lm_head']
    """
    names: set[str] = set()
    for end in saved:
        named = {
            module.name
            for module in spec.modules
            if any(path.endswith(end) for path in _homes(module))
        }
        if not named:
            paths = {path.rpartition(".")[2] for module in spec.modules for path in _homes(module)}
            raise spec.missing("modules_to_save:", end, paths)
        names |= named
    return {module.name: module for module in spec.modules if module.name in names}


def _modules(spec: ModelSpec, targets: Targets, filters: Mapping[str, Any]) -> list[Selected]:
    """Select the modules that match ``targets``; raise an error if LoRA cannot adapt them all."""
    wanted = matcher(targets, **filters)
    listed = targets if isinstance(targets, list) else []
    groups = _told_apart(spec.groups, targets, filters)
    paths = _candidates(groups, targets)
    chosen = {path for path, module in paths.items() if wanted(path, module)}
    if listed:
        known = {end for path in paths for end in ends(path)}
        missing = [target for target in listed if target not in known]
    else:
        match = matcher(targets)  # a target is not misspelt if only the filters exclude it
        every = chosen or any(match(path, module) for path, module in paths.items())
        missing = [] if every else [targets]
    for target in missing:  # checkpoints may use a missing target as a module's name
        is_named = matcher([target] if listed else target, **filters)
        stored = replace(spec, groups=groups).modules
        aliased = {
            module.name
            for module in stored
            if module.kind in ADAPTABLE and module.alias and is_named(module.alias)
        }
        if not aliased:
            raise _no_match(spec, target, listed)
        chosen |= aliased
    for path in [path for path in paths if path in chosen]:
        _check_adaptable(spec, path, paths[path], targets)
    selections = []
    for module, shown in zip(spec.groups, groups, strict=True):
        names = shown.names()
        own = tuple(name for name in names if name in chosen and paths.get(name) is shown)
        if own and spec.family in _STATE_SPACE and module.leaf in _UNCALLED:
            uncalled = " and no ".join(_UNCALLED)
            raise ValueError(
                f"targets: PEFT adapts no {uncalled} in a {spec.family} model; name others"
            )
        if own:
            selections.append(Selected(module, None if len(own) == len(names) else own))
    return selections


def _told_apart(
    groups: tuple[ModuleSpec, ...], targets: Targets, filters: Mapping[str, object]
) -> tuple[ModuleSpec, ...]:
    """Reduce each group to its first layer, unless ``targets`` or filters can distinguish layers.

    The paths of layers differ only in an index, so targets without an index match all or none.
    """
    listed = targets if isinstance(targets, list) else []
    if not (listed or is_all_linear(targets)) or filters.get("layers", ()) != ():
        return groups
    if any(filters.values()) or any(
        part.isdecimal() for target in listed for part in target.split(".")
    ):
        return groups
    return tuple(group._replace(ranges=tuple(r[:1] for r in group.ranges)) for group in groups)


def _candidates(groups: Sequence[ModuleSpec], targets: Targets) -> dict[str, ModuleSpec | None]:
    """Map the paths that ``targets`` may match to their modules, or to None for containers."""
    paths, all_linear = _paths(groups), is_all_linear(targets)
    if not all_linear and not callable(targets):
        return paths
    kinds, left_out = (("linear",), "head") if all_linear else (ADAPTABLE, None)
    able = {path: module for path, module in paths.items() if module and module.kind in kinds}
    return {path: module for path, module in able.items() if module.role != left_out}


def _check_adaptable(
    spec: ModelSpec, path: str, module: ModuleSpec | None, targets: Targets
) -> None:
    """Raise an error if ``path``, which a target matches, is not a module that LoRA can adapt."""
    if module is not None and module.kind in ADAPTABLE:
        return
    listed = targets if isinstance(targets, list) else []
    what = next((target for target in listed if ends_with(path, target)), targets)
    inside = {
        one.name[len(path) + 1 :].partition(".")[0]
        for one in spec.modules
        if one.name.startswith(f"{path}.")
    }
    kind, holds = "container", f"; it holds {', '.join(sorted(inside))}"
    if module:
        kind, holds = module.kind, ""
    raise ValueError(
        f"targets: {what!r} matches the {kind} {path!r}, which LoRA cannot adapt{holds}"
    )


def _unfused(spec: ModelSpec, targets: Targets) -> tuple[Targets, dict[str, int]]:
    """Split ``targets`` into names of modules, and a map from fused parameters to rank factors.

    If transformers fuses the experts of a family, PEFT adapts the fused parameters instead. It
    first converts a pattern to the last parts of paths, so a pattern cannot distinguish layers.
    The names that were fused, such as ``down_proj``, then refer to experts only, even if dense
    layers have modules of the same name.
    """
    fused = spec.fused
    if not fused or callable(targets):
        return targets, {}
    if isinstance(targets, str):
        targets = sorted(_leaves(spec, targets, fused))
    targets = list(targets)
    means = {old: [target for target in targets if ends_with(target, old)] for old in fused}
    times = {}
    for name in dict.fromkeys(fused[old] for old in fused if means[old]):
        needed = [old for old in fused if fused[old] == name]
        if missing := ", ".join(old for old in needed if not means[old]):
            present = ", ".join(sorted(old for old in needed if means[old]))
            raise ValueError(
                f"targets: {present} needs {missing} too: PEFT adapts them fused in {name}"
            )
        times[name] = len(needed)
    fused_away = {target for targets in means.values() for target in targets}
    return [target for target in targets if target not in fused_away], times


def widest_targets(spec: ModelSpec) -> str | list[str]:
    """Return targets for every linear layer that PEFT adapts, except the output head.

    Parameters
    ----------
    spec : ModelSpec
        The model.

    Returns
    -------
    str or list of str
        ``"all-linear"``; in a state-space model, where PEFT rejects some layers, the others' names.

    Examples
    --------
    >>> from lora_np.models import from_config
    >>> widest_targets(from_config({"model_type": "mamba"}))
    ['dt_proj', 'in_proj', 'x_proj']
    """
    if spec.family not in _STATE_SPACE:
        return ALL_LINEAR
    return sorted(_leaves(spec, ALL_LINEAR, {}) - {*_UNCALLED})


def _leaves(spec: ModelSpec, text: str, fused: Mapping[str, str]) -> set[str]:
    """Return the last parts of the paths of the modules that a pattern matches."""
    if is_all_linear(text):
        linear = [
            module for module in spec.groups if module.kind == "linear" and module.role != "head"
        ]
        return {module.leaf for module in linear} | set(fused)
    pattern = Expression(text, what="targets")
    leaves: set[str] = set()
    for module in spec.modules:
        if pattern.matches(module.name):
            leaves.add(module.leaf)
        if module.kind == "experts":
            leaves.update(old for old in fused if pattern.matches(f"{module.holder}.{old}"))
    if not leaves:
        raise _no_match(spec, text, ())
    return leaves


def _parameter(module: ModuleSpec) -> Selected:
    """Select the weight of a module, or a bare parameter itself, as a target parameter."""
    return Selected(module, parameter="" if module.kind in ("parameter", "experts") else "weight")


def _parameters(
    spec: ModelSpec,
    targets: Collection[str],
    fused: Mapping[str, int],
    taken: set[str],
) -> list[Selected]:
    """Select the parameters whose names end with a target or with the name of fused experts."""
    wanted = {*targets, *fused}
    matched, selections = set(), []
    for module in spec.groups if wanted else ():
        selection = _parameter(module)
        names = module.names()
        endings = {name: wanted.intersection(ends(selection.path(name))) for name in names}
        chosen = tuple(name for name in names if endings[name])
        if not chosen:
            continue
        target = min(endings[chosen[0]])
        matched |= {ending for name in chosen for ending in endings[name]}
        if len(module.shape) not in (2, 3) or module.kind == "convolution":
            what = f"a {module.kind} of shape {module.shape}"
            raise ValueError(
                f"target_parameters: {target!r} is {what}, neither a matrix nor a stack of them"
            )
        if not taken.isdisjoint(chosen):
            raise ValueError(
                f"target_parameters: {target!r} is of a module that targets select as well"
            )
        times = max(fused.get(end, 1) for end in ends(selection.path(chosen[0])))
        selections.append(
            selection._replace(names=None if len(chosen) == len(names) else chosen, times=times)
        )
    for target in targets:
        if target not in matched:
            known = {
                _parameter(module).path(module.name).rpartition("}.")[2] for module in spec.groups
            }
            raise spec.missing("target_parameters:", target, known, kind="parameter")
    return selections


def _paths(groups: Iterable[ModuleSpec]) -> dict[str, ModuleSpec | None]:
    """Map the paths of modules to the modules, and the paths of containers to None."""
    paths: dict[str, ModuleSpec | None] = {}
    for module in groups:
        for name in module.names():
            path, *above = holders(name)
            if module.kind not in ("parameter", "experts"):
                paths[path] = module
            for holder in above:
                paths.setdefault(holder, None)
    return paths


def targeted(spec: ModelSpec, wanted: Callable[..., bool]) -> tuple[list[str], list[str]]:
    """Split the matched paths into modules that LoRA can adapt and paths that PEFT rejects.

    Parameters
    ----------
    spec : ModelSpec
        The model.
    wanted : callable
        A function of (path, module), from `matcher`.

    Returns
    -------
    able, unable : list of str
        The paths of modules that LoRA can adapt, and the paths that PEFT would reject.

    Examples
    --------
    >>> from lora_np.models import preset
    >>> [len(paths) for paths in targeted(preset("gpt2"), matcher(["c_attn", "0"]))]
    [12, 1]
    """
    paths: dict[bool, list[str]] = {True: [], False: []}
    for path, module in _paths(spec.modules).items():
        if wanted(path, module):
            paths[module is not None and module.kind in ADAPTABLE].append(path)
    return paths[True], paths[False]


def _no_match(spec: ModelSpec, target: Targets, listed: Collection[str]) -> ValueError:
    """Return an error that explains why a name, a pattern or a function selects nothing."""
    leaves = _leaf_names(spec)
    if not isinstance(target, str):
        return ValueError(f"targets: the function selected no module of {spec.name}")
    if listed:
        stored = [
            module.alias.rpartition(".")[2] for module in spec.groups if module.kind in ADAPTABLE
        ]
        return spec.missing("targets:", target, {*stored, *leaves} - {""})
    if is_all_linear(target):
        return ValueError(f"targets {target!r} matches nothing: {spec.name} has no linear layers")
    listed = [name.strip() for name in target.split(",")]
    expression = Expression(target, what="targets")
    names = [name for name in leaves if name in listed or expression.matches(name)]
    if names:
        what = f"the string {target!r} is a regular expression for whole names"
        return ValueError(
            f"targets: {what}, and matches none; for the ends of names give a list: {names}"
        )
    return spec.missing("targets: the pattern", target, leaves)


def _leaf_names(spec: ModelSpec) -> list[str]:
    """List the last parts of the paths of modules that LoRA can adapt, without duplicates."""
    names = [module.leaf for module in spec.groups if module.kind in ADAPTABLE]
    return list(dict.fromkeys(name for name in names if name != "{}"))


def _homes(module: ModuleSpec) -> list[str]:
    """List the paths of a module and of all its parents; for a bare parameter, only the parents."""
    return list(holders(module.name))[module.kind in ("parameter", "experts") :]


# PEFT's rules for names, which apply to any tree of modules


def is_all_linear(targets: Targets) -> bool:
    """Return whether ``targets`` is the string "all-linear", in upper or lower case.

    Parameters
    ----------
    targets : str, iterable of str, or callable
        Targets as in `matcher`.

    Returns
    -------
    bool
        Whether it is this string; False for a list that contains it.

    Examples
    --------
    >>> is_all_linear("All-Linear"), is_all_linear(["all-linear"])
    (True, False)
    """
    return isinstance(targets, str) and targets.lower() == ALL_LINEAR


def matcher(
    targets: Targets,
    *,
    exclude: str | Sequence[str] = (),
    layers: int | Sequence[int] = (),
    layers_pattern: str | Sequence[str] = (),
    saved: Collection[str] = (),
    what: str = "targets",
) -> Callable[..., bool]:
    """Return a function that decides whether ``targets`` select a module, as in PEFT.

    Parameters
    ----------
    targets : str, iterable of str, or callable
        A list contains ends of paths that begin after a dot, such as ``["q_proj",
        "layers.0.mlp.up_proj"]``. A string is a regular expression for whole paths, or
        ``"all-linear"``. A function of (path, layer) returns whether to select the layer.
    exclude : str or sequence of str
        The modules to leave out, in the same form: PEFT's ``exclude_modules``.
    layers : int or sequence of int
        The numbers of the layers to select from, if ``targets`` is a list: PEFT's
        ``layers_to_transform``.
    layers_pattern : str or sequence of str
        The names of the lists of layers that ``layers`` numbers; by default any list.
    saved : collection of str
        Modules that are trained in full with all their parts, and never adapted: PEFT's
        ``modules_to_save``.
    what : str
        The name of the targets in messages.

    Returns
    -------
    callable
        A function of (path, layer) that returns whether the module is selected.

    Raises
    ------
    ValueError
        If a list is empty, or an expression is invalid.
    TypeError
        If ``targets`` has another type.

    See Also
    --------
    Patterns : Look up values by regular expressions for paths.

    Examples
    --------
    >>> wanted = matcher(["q_proj", "v_proj"], exclude=["layers.1.v_proj"])
    >>> [wanted(f"model.layers.{i}.{name}") for i in (0, 1) for name in ("q_proj", "v_proj",
    ...     "up_proj")]
    [True, True, False, True, False, False]
    """
    excluded = [_ending(exclude, "exclude")] if exclude else []
    for end in saved:
        excluded.append(Expression(rf"(^|.*\.){end}($|\..*)", what="modules_to_save").matches)
    wanted: Callable[..., bool]
    if callable(targets):
        wanted = targets
    elif is_all_linear(targets):
        wanted = lambda path, layer=None: True
    elif isinstance(targets, str):
        wanted = _ending(targets, what)
    else:
        wanted = _ending(names := frozenset(checked_names(targets)), what)
    if callable(targets) or isinstance(targets, str) or layers == () or layers == []:
        return lambda path, layer=None: (
            wanted(path, layer) and not any(drops(path) for drops in excluded)
        )
    numbers = {layers} if isinstance(layers, int) else set(layers)
    number_of = _numbering(layers_pattern)

    def selects(path: str, layer: Any = None) -> bool:
        # as in PEFT, a target that is a whole path is selected even if `layers` lacks its layer
        named = path in names or (wanted(path, layer) and number_of(path) in numbers)
        return named and not any(drops(path) for drops in excluded)

    return selects


def checked_names(targets: Iterable[str]) -> list[str]:
    """Check that targets are names, and return them as a list.

    Parameters
    ----------
    targets : iterable of str
        Ends of paths, as in `matcher`.

    Returns
    -------
    list of str
        The names.

    Raises
    ------
    ValueError
        If the list is empty.
    TypeError
        If ``targets`` is not a list, or an entry is not a name.

    See Also
    --------
    matcher : Select the modules that the names match.
    """
    if not isinstance(targets, Iterable):
        raise TypeError(f"targets must be a list of names, a string or a function, got {targets!r}")
    names = list(targets)
    if not names:
        raise ValueError("targets must name at least one module, got an empty list")
    for name in names:
        if not isinstance(name, str) or not name:
            raise TypeError(f"targets must be names of modules, got {name!r}")
    return names


def ends_with(path: str, target: str) -> bool:
    """Return whether ``path`` is ``target`` or ends with a dot and ``target``.

    Parameters
    ----------
    path : str
        The path of a module or a parameter.
    target : str
        The end to look for.

    Returns
    -------
    bool
        Whether the path has this end.

    Examples
    --------
    >>> ends_with("layers.0.q_proj", "q_proj"), ends_with("layers.0.q_proj", "proj")
    (True, False)
    """
    return path == target or path.endswith(f".{target}")


def ends(path: str) -> Iterator[str]:
    """Yield ``path``, then the part after its first dot, after its second dot, and so on.

    Parameters
    ----------
    path : str
        The path of a module or a parameter.

    Yields
    ------
    str
        The ends of the path, from the longest to the shortest.

    Examples
    --------
    >>> list(ends("layers.0.q_proj"))
    ['layers.0.q_proj', '0.q_proj', 'q_proj']
    """
    yield path
    while path := path.partition(".")[2]:
        yield path


def holders(path: str) -> Iterator[str]:
    """Yield ``path`` and the paths of all modules that contain it.

    Parameters
    ----------
    path : str
        The path of a module or a parameter.

    Yields
    ------
    str
        The paths, from the longest to the shortest.

    Examples
    --------
    >>> list(holders("layers.0.q_proj"))
    ['layers.0.q_proj', 'layers.0', 'layers']
    """
    yield path
    while path := path.rpartition(".")[0]:
        yield path


class Patterns(Generic[T]):
    r"""A mapping from regular expressions for ends of paths to values; the first match counts.

    These are PEFT's ``rank_pattern`` and ``alpha_pattern``: a key matches a path if
    ``(.*\.)?(key)$`` does.

    Parameters
    ----------
    values : mapping of str to object
        From regular expressions to values.
    what : str
        The name of the mapping in messages.

    Raises
    ------
    ValueError
        If a key is not an expression that can be matched in bounded time, or there are more than
        1,000 keys that are not plain names.

    Examples
    --------
    >>> ranks = Patterns({r"layers\.0\.q_proj": 4, "q_proj": 2})
    >>> [ranks.get(f"model.layers.{i}.q_proj", 8) for i in (0, 1)], ranks.get("model.lm_head", 8)
    ([4, 2], 8)
    """

    def __init__(self, values: Mapping[str, T], what: str = "rank_pattern") -> None:
        self.values, self.what, self._keys = values, what, [*values]
        self._places: dict[str, int] = {}  # maps a path's ending, or "^" + path, to a key's index
        self._others: list[tuple[int, Expression]] = []
        for place, key in enumerate(self._keys):
            exact = _EXACT.fullmatch(key)
            # after 200 patterns, plain names go to a dictionary, where a dot matches only a dot
            if exact or (len(self._others) >= _PLAIN_PATTERNS and _PLAIN.fullmatch(key)):
                self._places.setdefault("^" + exact[1].replace("\\", "") if exact else key, place)
            elif len(self._others) >= _MAX_PATTERNS:
                raise ValueError(f"{self.what} must have at most {_MAX_PATTERNS:,} expressions")
            else:
                self._others.append(
                    (place, Expression(key, what=f"{self.what}[{key!r}]", end=True))
                )

    def key(self, path: str) -> str | None:
        """Return the first key that matches ``path``, or None if no key does."""
        none = len(self._keys)
        place = none
        if self._places:
            place = min(self._places.get(end, none) for end in (f"^{path}", *ends(path)))
        for earlier, expression in self._others:
            if earlier >= place:
                break
            if expression.matches(path):
                return self._keys[earlier]
        return self._keys[place] if place < none else None

    def get(self, path: str, default: T) -> T:
        """Return the value of the first key that matches ``path``, or the default."""
        key = self.key(path) if self._keys else None
        return default if key is None else self.values[key]

    def unused(self, paths: Iterable[str]) -> list[str]:
        """List the keys that match none of ``paths``."""
        paths = list(paths)
        known = {end for path in paths for end in (f"^{path}", *ends(path))}
        unused = {place for end, place in self._places.items() if end not in known}
        unused |= {
            place for place, expression in self._others if not any(map(expression.matches, paths))
        }
        return [self._keys[place] for place in sorted(unused)]


def _ending(names: str | Iterable[str], what: str) -> Callable[..., bool]:
    """Return a function that matches paths by their ends or by one regular expression."""
    if isinstance(names, str):
        whole = Expression(names, what=what)
        return lambda path, layer=None: whole.matches(path)
    paths = frozenset(names)
    ends = tuple(map(".".__add__, paths))
    return lambda path, layer=None: path in paths or path.endswith(ends)


def _numbering(pattern: str | Sequence[str]) -> Callable[[str], int | None]:
    """Return a function that maps a path to its layer's index, or to None if it has none."""
    lists = [pattern] if isinstance(pattern, str) and pattern else list(pattern)
    # each expression must match the end of the path before the number
    named = [Expression(name, what="layers_pattern", end=True) for name in lists]

    def number(path: str) -> int | None:
        parts = path.split(".")
        # As in PEFT, the layer's index is the first number directly after a match of a pattern.
        # Without a pattern, it is the first number after at least two parts.
        places = [place for place in range(1, len(parts) - 1) if parts[place].isdecimal()]
        matches = [
            place
            for pattern in named
            for place in places
            if pattern.matches(".".join(parts[:place]))
        ]
        place = next(iter(matches if named else [place for place in places if place > 1]), None)
        return None if place is None else int(parts[place][:_MAX_DIGITS])

    return number
