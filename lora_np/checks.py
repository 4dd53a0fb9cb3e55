"""Validate arguments; every message names the wrong value and the right ones."""

from __future__ import annotations

import codecs
import functools
import importlib
import math
import operator
import os
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, Any, Concatenate, NoReturn, ParamSpec, TypeAlias, TypeVar

from lora_np.lazy import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

P = ParamSpec("P")
R = TypeVar("R")
First = TypeVar("First")
Second = TypeVar("Second")
Settings = TypeVar("Settings")
if TYPE_CHECKING:
    Array = npt.NDArray[Any]
    ArrayLike = npt.ArrayLike
else:  # NumPy is slow to import, and commands that only count parameters do not need it
    Array = ArrayLike = Any
StrPath = str | os.PathLike[str]
# `Rng` is the generator for dropout when a layer is called. `Rng` and `Seed` are quoted, because
# numpy.random is slow to import.
Rng: TypeAlias = "np.random.Generator | None"
Seed: TypeAlias = "np.random.Generator | int"  # the generator of a run, or its seed


def refuse(message: str) -> NoReturn:
    """Raise a ValueError about an argument; a command then exits with status 2."""
    raise ValueError(message)


def overflow_allowed(**settings: Any) -> np.errstate:
    """Suppress NumPy's warnings about overflow and NaN, which the caller handles afterwards."""
    return np.errstate(over="ignore", under="ignore", invalid="ignore", **settings)


def brief(text: str, longest: int) -> str:
    """Shorten ``text`` for a message, because text from a file may be long."""
    half = longest // 2
    return printable(text if len(text) <= longest else f"{text[:half]} ... {text[-half:]}")


def printable(text: str, *, keep: str = "") -> str:
    """Escape control characters, which terminals and browsers interpret, except any in ``keep``."""
    return "".join(c if c.isprintable() or c in keep else repr(c)[1:-1] for c in text)


# maps drawing characters to ASCII characters, for encodings that lack them
ASCII = dict(zip("░▒▓█▁▂▃▄▅▆▇□■─│├┤┌┐└┘►◄↑↓·√−", ".:+#_.-=+*%o#-|++++++><^v*V-", strict=True))


def encodable(text: str, encoding: str | None) -> str:
    """Replace characters that an encoding lacks: drawing characters by ASCII, others by escapes."""

    def fallback(error: Any) -> tuple[str | bytes, int]:
        error.end = error.start + 1
        letter = ASCII.get(error.object[error.start])
        return (letter, error.end) if letter else codecs.backslashreplace_errors(error)

    codecs.register_error("lora_np", fallback)
    encoding = encoding or "utf-8"
    return text.encode(encoding, "lora_np").decode(encoding)


def shown(value: object) -> str:
    """Format ``value`` for an error message."""
    return brief(repr(value), 200)


def whole_number(
    name: str, value: object, *, minimum: int = 1, maximum: int | None = None, top: str = ""
) -> int:
    """Convert ``value`` to an int; booleans and fractions are rejected.

    ``top`` names ``maximum`` in the message, as in ``"min(d, k)"``.
    """
    if type(value).__name__ in ("bool", "bool_"):  # test for numpy.bool without importing NumPy
        raise TypeError(f"{name} must be a whole number, got the boolean {value}")
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"{name} must be a whole number, got {shown(value)}") from None
    if number < minimum or (maximum is not None and number > maximum):
        limit = f"{top} = {maximum}" if top else maximum
        right = f"at least {minimum}" if maximum is None else f"between {minimum} and {limit}"
        raise ValueError(f"{name} must be {right}, got {shown(number)}")
    return number


def whole_numbers(name: str, value: object) -> tuple[int, ...]:
    """Convert one or several whole numbers, such as ranks, to a tuple.

    They are at least 1 and at most 2**20, because matrices of models have no more rows.
    """
    several = isinstance(value, Iterable) and not isinstance(value, (str, bytes))
    return tuple(whole_number(name, one, maximum=2**20) for one in (value if several else (value,)))  # type: ignore[attr-defined]


def numbers_below(name: str, values: npt.ArrayLike, count: int) -> Array:
    """Convert ``values`` to an array of whole numbers from 0 to ``count - 1``."""
    array = plain(name, values)
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name} must be whole numbers, got dtype {array.dtype}")
    wrong = array[(array < 0) | (array >= count)]
    if wrong.size:
        raise ValueError(f"{name} must be between 0 and {count - 1}, got {wrong[0]}")
    return array


def matrix(name: str, value: npt.ArrayLike) -> Array:
    """Convert ``value`` to a finite, non-empty matrix of float32 or float64.

    These are the dtypes of LAPACK. float16 becomes float32; integers, booleans and longdouble
    become float64.
    """
    array = real(name, value)
    single = array.dtype.itemsize <= 4
    array = array.astype(np.float32 if single else np.float64, copy=False)
    if array.ndim != 2:
        raise ValueError(f"{name} must be a matrix (2 axes), got shape {array.shape}")
    if array.size == 0:
        raise ValueError(f"{name} must not be empty, got shape {array.shape}")
    finite(name, array)
    return array


def real(name: str, value: object) -> Array:
    """Convert ``value`` to floats: floats keep their dtype, integers and bools become float64."""
    if type(value) is np.ndarray and value.dtype.kind == "f":
        return value  # return early, because this runs in every training step
    array = numbers(name, value)
    return array if array.dtype.kind == "f" else array.astype(np.float64)


def convert_arrays(new: object) -> None:
    """Convert the arrays and lists in a new dataclass's fields to floats, as `real` does."""
    for name, given in [*vars(new).items()]:
        if isinstance(given, (np.ndarray, list)):
            object.__setattr__(new, name, real(name, given))


def numbers(name: str, value: object) -> Array:
    """Convert ``value`` to an array of real numbers of any dtype."""
    array = plain(name, value)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name} must hold real numbers, got dtype {array.dtype}")
    return array


def plain(name: str, value: object) -> Array:
    """Convert ``value`` to an ndarray; a masked array is an error, as its mask would be lost."""
    if type(value) is not np.ndarray:
        if masked(value):
            raise TypeError(
                f"{name} must not be a masked array: fill it first, as in {name}.filled(0)"
            )
        try:
            value = np.asarray(value)
        except (TypeError, ValueError) as error:  # a Tensor, or lists of different lengths
            raise type(error)(f"{name} must be an array: {error}") from None
    return value


def masked(value: object) -> bool:
    """Return whether ``value`` is a masked array or a list that contains one."""
    if isinstance(value, (list, tuple)):
        return any(map(masked, value))
    # masked arrays are found by their `mask`, because importing numpy.ma would take time
    return isinstance(value, np.ndarray) and hasattr(value, "mask")


def arrays(named: Mapping[str, ArrayLike]) -> dict[str, Array]:
    """Convert named arrays to floats, as `real` does."""
    return {name: real(name, array) for name, array in named.items()}


def finite(name: str, array: Array) -> None:
    """Raise an error with the index of the first NaN or infinity, if there is one."""
    if not np.isfinite(array).all():
        index = tuple(np.argwhere(~np.isfinite(array))[0].tolist())
        raise ValueError(f"{name} must be finite, got {array[index]} at {index}")


def number(
    name: str,
    value: object,
    *,
    minimum: float = 0,
    maximum: float = float("inf"),
    open_minimum: bool = False,
    open_maximum: bool = False,
) -> float:
    """Convert ``value`` to a finite float in a range, whose ends may be excluded."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, got {shown(value)}")
    try:
        result = float(value)
    except OverflowError:  # the integer is beyond the range of floats
        result = float("inf")
    if not math.isfinite(result):
        raise ValueError(f"{name} must be finite, got {brief(str(value), 100)}")
    too_low = result <= minimum if open_minimum else result < minimum
    if too_low or (result >= maximum if open_maximum else result > maximum):
        right = f"{'above' if open_minimum else 'at least'} {minimum:g}"
        if math.isfinite(maximum):
            right += f" and {'below' if open_maximum else 'at most'} {maximum:g}"
        raise ValueError(f"{name} must be {right}, got {value}")
    return result


def choice(name: str, value: str, options: Iterable[str]) -> str:
    """Return ``value`` if it is one of ``options``; the error lists them, or the closest ones."""
    known = list(options)
    if value not in known:
        from difflib import get_close_matches  # imported here, because it is rarely needed

        text, names = str(value)[:100].lower(), {name.lower(): name for name in known}
        close = [names[name] for name in get_close_matches(text, names, n=12, cutoff=0.0)]
        likely = get_close_matches(text, names, n=1)
        hint = f" (did you mean {close[0]!r}?)" if likely else ""
        few = known if len(known) <= 24 else close
        listed = ", ".join(map(repr, few))
        listed += f" or {len(known) - len(few)} more" if few is not known else ""
        raise ValueError(f"{name} must be one of {listed}, got {shown(value)}{hint}")
    return value


def generator(rng: object) -> np.random.Generator:
    """Return ``rng`` if it is a Generator, otherwise a new Generator with the seed ``rng``."""
    if isinstance(rng, np.random.Generator):
        return rng
    try:
        return np.random.default_rng(whole_number("rng", rng, minimum=0))
    except (TypeError, ValueError) as error:
        right = "rng must be a numpy.random.Generator or a whole number from 0"
        raise type(error)(f"{right}, got {shown(rng)}") from None


def float_name(dtype: object, known: Collection[str]) -> str:
    """Return ``dtype`` if it is a ``known`` name; else raise an error, with the right spelling."""
    if isinstance(dtype, str) and dtype in known:
        return dtype
    name = respelled(str(dtype))
    if name in known:
        raise ValueError(f"dtype must be {name!r}, not {shown(dtype)}")
    raise ValueError(f"dtype must be one of {', '.join(known)}, got {shown(dtype)}")


def respelled(dtype: str) -> str:
    """Translate a dtype's name, such as ``bf16`` or ``torch.float16``, to lora_np's name for it."""
    return re.sub(r"(?:torch\.)?(b?)f(?:p|loat)?(?=\d\d)", r"\1float", dtype.lower())


def computed_dtype(dtype: npt.DTypeLike) -> np.dtype[Any]:
    """Return ``dtype`` as a NumPy dtype; raise an error if it is not float32 or float64."""
    if isinstance(dtype, (type, np.dtype)):
        dtype = np.dtype(dtype).name
    return np.dtype(float_name(dtype, ("float32", "float64")))


@dataclass(frozen=True)
class Names:
    """An index of names that finds a name in various spellings.

    Parameters
    ----------
    known : mapping of str to str
        From names to their meanings.
    noise : str
        A regular expression for parts that are removed before names are compared.
    optional : str
        A regular expression for words that may be missing from the typed name.
    free : str
        A regular expression for words that do not change the meaning, such as how a model was
        trained.
    """

    known: Mapping[str, str]
    noise: str
    optional: str
    free: str = "(?!)"

    def find(self, text: str) -> str:
        """Return the meaning of ``text``, or "" if no name matches or the matches disagree.

        These names are tried in order: the same name; the same words in any order; the same words
        written apart or together; names with additional words that are optional. The last three
        are then tried again without words that do not change the meaning.
        """
        means = self.several(text)
        return means[0] if len(means) == 1 else ""

    def several(self, text: str) -> list[str]:
        """List all possible meanings of ``text``."""
        known = self.known.items()
        means = [meant for name, meant in known if name.lower() == text.lower()]
        for own in (self._words, self._needed):
            if means:
                break
            asked, words = own(text), {name: own(name) for name in self.known}
            for form in (sorted, _joined):
                typed = form(asked)
                means = means or [meant for name, meant in known if form(words[name]) == typed]
            means = means or [
                meant
                for name, meant in known
                if asked and {*asked} < {*words[name]}
                if all(re.fullmatch(self.optional, word) for word in {*words[name]} - {*asked})
            ]
        return list(dict.fromkeys(means))

    def nearest(self, text: str) -> list[str]:
        """List the meanings of up to five names that are most alike in family, version and size."""
        scores = dict.fromkeys(self.several(text), 9.0)
        family, versions, size = self._parts(text)
        for name, meant in self.known.items():
            other = self._parts(name)
            score = 2 * _alike(_pairs(family), _pairs(other[0])) + _alike(versions, other[1]) / 2
            if size and other[2]:
                score += 2 / (1 + abs(math.log2(size / other[2])))
            scores[meant] = max(score, scores.get(meant, 0))
        # leave out names with a score of 0, which have nothing in common with the text
        return sorted(filter(scores.get, scores), key=lambda meant: (-scores[meant], meant))[:5]

    def _words(self, name: str) -> list[str]:
        """Split a name into words and numbers, without its owner and the matches of ``noise``."""
        plain = re.sub(self.noise, " ", name.lower().rpartition("/")[2])
        return re.findall(WORD, plain)

    def _needed(self, name: str) -> list[str]:
        words = self._words(name)
        return [word for word in words if not re.fullmatch(self.free, word)] or words

    def _parts(self, name: str) -> tuple[str, list[str], float]:
        """Return the family (with its version), the version numbers and the size in a name."""
        words = self._needed(name)
        sizes = [word for word in words if re.fullmatch(r"\d[\d.]*[bm]", word)]
        family = "".join(word for word in words if word not in sizes)
        versions = [word for word in words if not word.isalpha() and word not in sizes]
        unit = {"b": 1e9, "m": 1e6}
        return family, versions, max([float(x[:-1]) * unit[x[-1]] for x in sizes], default=0)


WORD = r"v?\d+(?:\.\d+)?(?:x\d+)?(?:[bmk](?![a-z]))?|[a-z]+"


def _joined(words: list[str]) -> list[str]:
    return ["".join(filter(str.isalpha, words)), *(word for word in words if not word.isalpha())]


def _pairs(name: str) -> list[str]:
    return [name[i : i + 2] for i in range(len(name) - 1)]


def _alike(first: list[str], second: list[str]) -> float:
    return 2 * len({*first} & {*second}) / max(1, len({*first}) + len({*second}))


def close_names(name: str, known: Iterable[str]) -> str:
    """Format the names closest to ``name``, or up to twelve known names, as the end of a message.

    Parameters
    ----------
    name : str
        The unknown name.
    known : iterable of str
        The known names.

    Returns
    -------
    str
        A text that begins with a semicolon; empty if there are no known names.
    """
    from difflib import get_close_matches  # imported here, because it is rarely needed

    known = list(dict.fromkeys(known))
    close = get_close_matches(name, known, n=3) or get_close_matches(
        name.rpartition(".")[2], known, n=3
    )
    if close:
        return f"; close names: {', '.join(close)}"
    more = f" and {len(known) - 12} more" if len(known) > 12 else ""
    return f"; it has {', '.join(sorted(known)[:12])}{more}" if known else ""


def guided(**remedies: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorate a function (or an ``__init__``) so that errors about wrong calls give advice.

    ``remedies`` map parameter names of other libraries to the right ones.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            try:
                return function(*args, **kwargs)
            except TypeError as error:
                # a longer traceback means that the error arose inside the function, so give no
                # advice about the call
                if error.__traceback__ is None or error.__traceback__.tb_next:
                    raise
                raise TypeError(f"{error}{remedy(function, len(args), kwargs, remedies)}") from None

        return call

    return decorate


def configured(
    owner: Callable[P, Settings], **remedies: str
) -> Callable[[Callable[[First, Second, Settings], R]], Callable[Concatenate[First, Second, P], R]]:
    """Decorate ``f(first, second, settings)``, so that callers pass each setting by its name.

    ``remedies`` map parameter names of other libraries to the right ones.
    """
    import inspect

    def decorate(
        function: Callable[[First, Second, Settings], R],
    ) -> Callable[Concatenate[First, Second, P], R]:
        first, second, _ = inspect.signature(function).parameters.values()
        own = [*inspect.get_annotations(owner)]  # list the class's own fields before inherited ones
        settings = sorted(
            inspect.signature(owner).parameters.values(),
            key=lambda p: (p.kind, own.index(p.name) if p.name in own else len(own)),
        )
        shape = inspect.Signature([first, second, *settings])
        make: Callable[..., Settings] = owner

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> R:
            try:
                given = shape.bind(*args, **kwargs).arguments
            except TypeError as error:
                unknown = [name for name in kwargs if name not in shape.parameters]
                advice = remedy(call, len(args), kwargs, remedies)
                if unknown and not advice:
                    advice = close_names(unknown[0], shape.parameters)
                raise TypeError(f"{function.__name__}() {error}{advice}") from None
            return function(given.pop(first.name), given.pop(second.name), make(**given))

        vars(call)["__signature__"] = shape
        return call

    return decorate


def remedy(
    function: Callable[..., Any], args: int, words: Iterable[str], remedies: Mapping[str, str]
) -> str:
    """Format advice on how to correct a call's arguments, as the end of an error message."""
    import inspect

    name = function.__qualname__.removesuffix(".__init__")
    told = [f"{name} has {remedies[word]} for {word}" for word in words if word in remedies]
    parameters = inspect.signature(function).parameters.values()
    named = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
    places = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    if named and args > len(places):
        told.append(f"{name} takes {named[0]} by name: {name}({', '.join(places)}, {named[0]}=...)")
    return "".join(f"; {part}" for part in told)


def needed(module: str, *, extra: str, why: str) -> Any:
    """Import an optional module, or raise an error that names the ``extra`` to install."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError:
        raise ModuleNotFoundError(f"{why}: pip install 'lora-np[{extra}]'", name=module) from None
