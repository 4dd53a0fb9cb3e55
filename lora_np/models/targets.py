"""Which modules an adapter selects: PEFT's rules for names, for everything that has names.

Source: PEFT 0.21, ``tuners/tuners_utils.py`` (``check_target_module_exists``) and ``utils/other.py``
(``get_pattern_key``).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from lora_np.models.expressions import Expression

Targets: TypeAlias = str | Iterable[str] | Callable[[str, Any], bool]

ALL_LINEAR = "all-linear"
_MAX_PATTERNS = 1_000  # expressions, which are tried one after the other
_PLAIN_PATTERNS = 200  # plain names that are read as expressions too; any number are read as names
_MAX_DIGITS = 18  # in the number of a layer

_EXACT = re.compile(r"\^((?:[\w-]|\\[.-])+)\$?")  # one whole path, as `adapters` writes it
_PLAIN = re.compile(r"[\w.-]+")


@dataclass(frozen=True, eq=False)
class Matcher:
    """Decides whether a path and its layer are selected; made by `matcher`.

    Attributes
    ----------
    all_linear : bool
        Whether the targets are ``"all-linear"``. Every path matches then: the caller knows which modules are
        linear, and which is the output layer.
    wanted : callable
        Whether a path and its layer are selected.
    unwanted : callable, optional
        Whether a path is excluded after all.
    """

    wanted: Callable[[str, Any], bool]
    unwanted: Callable[..., bool] | None
    all_linear: bool = False

    def __call__(self, path: str, layer: Any = None) -> bool:
        return self.wanted(path, layer) and not (self.unwanted and self.unwanted(path))


def matcher(
    targets: Targets,
    *,
    exclude: str | Sequence[str] = (),
    layers: int | Sequence[int] = (),
    layers_pattern: str | Sequence[str] = (),
    saved: Collection[str] = (),
    what: str = "targets",
) -> Matcher:
    """Which modules ``targets`` mean, as PEFT reads them.

    Parameters
    ----------
    targets : str, iterable of str, or callable
        A list holds ends of paths, at a dot: ``["q_proj", "layers.0.mlp.up_proj"]``. A string is a regular
        expression for whole paths, or ``"all-linear"``. A function of (path, layer) returns whether to select
        it.
    exclude : str or sequence of str
        What to leave out, in the same form: PEFT's ``exclude_modules``.
    layers : int or sequence of int
        Only layers of these numbers, of modules that a list names: PEFT's ``layers_to_transform``.
    layers_pattern : str or sequence of str
        The names of the lists of layers that ``layers`` counts; by default any.
    saved : collection of str
        Modules trained in full, with everything in them, and never adapted: PEFT's ``modules_to_save``.
    what : str
        What messages call the targets.

    Returns
    -------
    Matcher
        A function of (path, layer).

    Raises
    ------
    ValueError
        If a list is empty, or an expression cannot be read.
    TypeError
        If ``targets`` are of another kind.

    See Also
    --------
    Patterns : Values for some modules by expressions for their names.

    Examples
    --------
    >>> wanted = matcher(["q_proj", "v_proj"], exclude=["layers.1.v_proj"])
    >>> [wanted(f"model.layers.{i}.{name}") for i in (0, 1) for name in ("q_proj", "v_proj", "up_proj")]
    [True, True, False, True, False, False]
    """
    excluded = [_ending(exclude, "exclude")] if exclude else []
    for end in saved:
        excluded.append(Expression(rf"(^|.*\.){end}($|\..*)", what="modules_to_save").matches)
    unwanted = (lambda path: any(drops(path) for drops in excluded)) if excluded else None
    if callable(targets):
        return Matcher(targets, unwanted)
    if isinstance(targets, str):
        if targets.lower() == ALL_LINEAR:
            return Matcher(lambda path, layer: True, unwanted, all_linear=True)
        return Matcher(_ending(targets, what), unwanted)
    names = frozenset(checked_names(targets))
    ending = _ending(names, what)
    if isinstance(layers, Sequence) and not layers:
        return Matcher(ending, unwanted)
    numbers = {layers} if isinstance(layers, int) else set(layers)
    number_of = _numbering(layers_pattern)
    return Matcher(
        # a module that is named by its whole path is wanted for any layer number, as in PEFT
        lambda path, layer: path in names or (ending(path) and number_of(path) in numbers),
        unwanted,
    )


def checked_names(targets: Iterable[str]) -> list[str]:
    """``targets`` as a list of ends of names, each of them checked.

    Parameters
    ----------
    targets : iterable of str
        As `matcher` takes them.

    Returns
    -------
    list of str
        The same.

    Raises
    ------
    ValueError
        If there are none.
    TypeError
        If they are no names.

    See Also
    --------
    matcher : Which modules they mean.
    """
    try:
        names = list(targets)
    except TypeError:
        raise TypeError(f"targets must be a list of names, a string or a function, got {targets!r}") from None
    if not names:
        raise ValueError("targets must name at least one module, got an empty list")
    for name in names:
        if not isinstance(name, str) or not name:
            raise TypeError(f"targets must be names of modules, got {name!r}")
    return names


def ends_with(path: str, target: str) -> bool:
    """Whether ``path`` is ``target`` or ends with it at a dot.

    Parameters
    ----------
    path : str
        Of a module or a parameter.
    target : str
        The name to look for.

    Returns
    -------
    bool
        True if it is found there.

    Examples
    --------
    >>> ends_with("layers.0.q_proj", "q_proj"), ends_with("layers.0.q_proj", "proj")
    (True, False)
    """
    return path == target or path.endswith(f".{target}")


def ends(path: str) -> Iterator[str]:
    """``path`` and every end of it from a dot on.

    Parameters
    ----------
    path : str
        Of a module or a parameter.

    Yields
    ------
    str
        The whole first.

    Examples
    --------
    >>> list(ends("layers.0.q_proj"))
    ['layers.0.q_proj', '0.q_proj', 'q_proj']
    """
    yield path
    while path := path.partition(".")[2]:
        yield path


@dataclass(frozen=True, eq=False)
class Patterns:
    r"""Values for some modules, by an expression for the end of their paths; the first that matches wins.

    PEFT's ``rank_pattern`` and ``alpha_pattern``: a key matches where ``(.*\.)?(key)$`` does.

    Parameters
    ----------
    values : mapping of str to object
        By the expressions.
    what : str
        What messages call it.

    Raises
    ------
    ValueError
        If a key is not an expression that can be matched in bounded time, or there are more than 1,000 that
        leave a choice.

    Examples
    --------
    >>> ranks = Patterns({r"layers\.0\.q_proj": 4, "q_proj": 2})
    >>> [ranks.get(f"model.layers.{i}.q_proj", 8) for i in (0, 1)], ranks.get("model.lm_head", 8)
    ([4, 2], 8)
    """

    values: Mapping[str, Any]
    what: str = "rank_pattern"
    _places: dict[str, int] = field(init=False, default_factory=dict)  # of plain ends, and of ^whole paths
    _others: list[tuple[int, Expression]] = field(init=False, default_factory=list)
    _keys: list[str] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        self._keys.extend(self.values)
        for place, key in enumerate(self._keys):
            exact = _EXACT.fullmatch(key)
            # so many plain names must be those of modules: a dot is a dot
            if exact or (len(self._others) >= _PLAIN_PATTERNS and _PLAIN.fullmatch(key)):
                self._places.setdefault("^" + exact[1].replace("\\", "") if exact else key, place)
            elif len(self._others) >= _MAX_PATTERNS:
                raise ValueError(f"{self.what} must have at most {_MAX_PATTERNS:,} expressions")
            else:
                self._others.append((place, Expression(key, what=f"{self.what}[{key!r}]", end=True)))

    def key(self, path: str) -> str | None:
        """The first key that matches ``path``, or None."""
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

    def get(self, path: str, default: Any) -> Any:
        """The value of the first key that matches ``path``."""
        key = self.key(path) if self._keys else None
        return default if key is None else self.values[key]

    def unused(self, paths: Iterable[str]) -> list[str]:
        """The keys that match none of ``paths``, even if another key comes first."""
        paths = list(paths)
        known = {end for path in paths for end in (f"^{path}", *ends(path))}
        unused = {place for end, place in self._places.items() if end not in known}
        unused |= {place for place, expression in self._others if not any(map(expression.matches, paths))}
        return [self._keys[place] for place in sorted(unused)]


def _ending(names: str | Iterable[str], what: str) -> Callable[..., bool]:
    """Whether a path, of any layer, ends with one of the names, or matches the one expression."""
    if isinstance(names, str):
        whole = Expression(names, what=what)
        return lambda path, layer=None: whole.matches(path)
    paths = frozenset(names)
    ends = tuple(map(".".__add__, paths))
    return lambda path, layer=None: path in paths or path.endswith(ends)


def _numbering(pattern: str | Sequence[str]) -> Callable[[str], int | None]:
    """The number of the layer that a path belongs to."""
    lists = [pattern] if isinstance(pattern, str) and pattern else list(pattern)
    # of all that comes before the number
    named = [Expression(name, what="layers_pattern", end=True) for name in lists]

    def number(path: str) -> int | None:
        parts = path.split(".")
        # the first number with a name before it, or with two where no pattern says which, as in PEFT
        places = [place for place in range(1, len(parts) - 1) if parts[place].isdecimal()]
        found = [place for each in named for place in places if each.matches(".".join(parts[:place]))]
        place = next(iter(found if named else [place for place in places if place > 1]), None)
        return None if place is None else int(parts[place][:_MAX_DIGITS])

    return number
