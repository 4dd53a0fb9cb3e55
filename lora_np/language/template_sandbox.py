"""Render chat templates in a sandbox with limits on their work, as a template is untrusted code.

jinja2's own sandbox keeps a template away from Python's objects, but does not stop an endless loop
or a string of a terabyte. Here each operation that can produce or repeat something first pays for
it from a budget of characters, entries and evaluated nodes, and rendering stops when the budget is
spent. Work is counted rather than timed, so that the limit is the same on every machine.
"""

from __future__ import annotations

import functools
import json
import re
import string
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, NoReturn, TypeVar

from jinja2 import nodes, pass_context, utils
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

LARGEST_SOURCE = 1_000_000  # characters; the longest published templates have about 20,000
WORK = 10_000_000  # the budget for one rendering, in characters, entries and nodes
WORK_PER_CHARACTER = 100  # added to the budget for each character of the conversation
WORK_PER_MESSAGE = 10  # added to that for each message
LARGEST_NUMBER = 10_000  # largest number of bits of a computed integer
WIDEST = 9_999  # largest width of a field in a format string
# a field after "%", or the specification of a field in braces, that is wider or has its width as
# an argument
WIDE = re.compile(r"%(\([^)]*\))?[-#0 +]*(\d*\.)?(\*|\d{5,})")
WIDE_BRACES = re.compile(r"\{|\d{5,}")

T = TypeVar("T")
# Filters and methods whose result can be many times as long as their arguments.
REPEATING = {
    "batch", "center", "expandtabs", "indent", "join", "ljust", "replace", "rjust", "round",
    "slice", "to_bytes", "tojson", "translate", "urlize", "wordwrap", "xmlattr", "zfill",
}  # fmt: skip


class BoundedNamespace(utils.Namespace):
    """A namespace that is printed without its contents, which may contain the namespace itself."""

    def __repr__(self) -> str:
        return "<Namespace>"


class TemplateSandbox(ImmutableSandboxedEnvironment):
    """The jinja2 environment of chat templates, with transformers' conventions and bounded work.

    Attributes
    ----------
    left : int
        The remaining budget of the current rendering.
    spans : list of (int, int)
        Beginning and end of each text in ``blocks`` that the template marks as generated.
    blocks : list of str
        The text rendered so far.
    """

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self) -> None:
        self.left = WORK
        self.blocks: list[str] = []
        self.spans: list[tuple[int, int]] = []
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            optimized=False,  # an expression evaluated at compile time would not be charged
            extensions=[Generation, loopcontrols],
            finalize=pass_context(lambda context, value: self.charged(value)),
        )
        self.filters["tojson"] = to_json
        self.filters["%"] = self.filters["format"]
        self.filters = {name: self.paid(name, rule) for name, rule in self.filters.items()}
        self.filters["format"] = self.filters["%"]  # the method of this name has another syntax
        self.filters |= {
            "counted": self.counted,
            "charged": self.charged,
            "spent": self.spend,
        }
        del self.globals["lipsum"]  # this function generates text of any length
        self.globals |= {
            "namespace": BoundedNamespace,
            "strftime_now": lambda form: datetime.now().strftime(form[:100]),
            "raise_exception": refuse,
        }

    def compiled(self, source: str) -> nodes.Template:
        """Parse a template into a syntax tree with cost accounting."""
        if len(source) > LARGEST_SOURCE:
            raise ValueError(
                f"it has {len(source):,} characters, at most {LARGEST_SOURCE:,} are read"
            )
        tree = self.parse(source)
        Payments().visit(tree)
        return tree

    def renew(self, conversation: Any) -> None:
        """Reset the budget and discard the earlier text before a rendering."""
        # some templates look at the whole conversation for each message
        self.left = WORK + printed_size(conversation, {}) * (
            WORK_PER_CHARACTER + WORK_PER_MESSAGE * len(conversation)
        )
        self.blocks.clear()
        self.spans.clear()

    def spend(self, work: int) -> None:
        """Subtract a cost from the budget; stop the rendering if the budget is exhausted."""
        self.left -= work
        if self.left < 0:
            raise ValueError(f"it takes more than {WORK:,} characters, entries and steps of work")

    def counted(self, items: Iterable[T], weight: int) -> Iterator[T]:
        """Yield the items, charging ``weight`` for each."""
        for item in items:
            self.spend(weight)
            yield item

    def charged(self, value: T) -> T:
        """Return a value after charging the budget for its printed size, or for each item read."""
        if isinstance(value, Iterator):
            return map(self.charged, value)  # type: ignore[return-value]
        self.spend(printed_size(value, {}))
        return value

    def pay(self, name: str, value: Any, settings: list[Any]) -> None:
        """Charge for the longest possible result of a filter, method or operator."""
        by_value = name in REPEATING or name == "*"
        size = printed_size(value, {})
        repeated = sum(as_count(x) if by_value else printed_size(x, {}) for x in settings)
        if name in ("format", "format_map", "%") and isinstance(value, str):
            if is_wide(name, value):
                raise ValueError(f"a format has a field wider than {WIDEST:,} characters")
            # each field inserts one argument
            self.spend(size + value.count("%" if name == "%" else "{") * repeated)
        elif name == "replace":  # each occurrence adds at most the length of the new text
            times = str(value).count(str(settings[0])) if settings else 0
            self.spend(size + times * repeated)
        elif name in REPEATING:
            self.spend((1 + size) * (1 + repeated))
        else:
            self.spend(size + repeated)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Evaluate a binary operator if the budget covers the result and integers stay short."""
        if not (isinstance(left, int) and isinstance(right, int)):
            times = as_count(left) * as_count(right)
            self.pay(operator, left, [times if operator == "*" else right])
        elif (abs(right) if operator == "**" else 1) * left.bit_length() > LARGEST_NUMBER:
            raise ValueError(f"a number has more than {LARGEST_NUMBER:,} bits")
        return super().call_binop(context, operator, left, right)

    def call(self, context: Context, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Call a function, macro or method of a template if the budget covers the result."""
        call = functools.partial(super().call, context, function)
        if isinstance(function, Macro):
            return self.charged(call(*args, **kwargs))
        # unwrap str.format, which jinja2 wraps in a function without `__self__`
        method = getattr(function, "__wrapped__", function)
        owner = getattr(method, "__self__", None)
        name = method.__name__ if isinstance(owner, str | bytes | int) else ""
        return self.paid(name, call, owner if name else 0)(*args, **kwargs)

    def paid(self, name: str, rule: Callable[..., Any], *owner: Any) -> Callable[..., Any]:
        """Wrap a filter, method or function, so that its arguments and result are charged.

        The arguments also determine the charge for the longest possible result. ``owner``
        is the text whose method is called, or 0 for another function.
        """

        @functools.wraps(rule)  # keeps the marks of jinja2 on filters that take the context
        def paying(*args: Any, **kwargs: Any) -> Any:
            given = [arg if isinstance(arg, CONTEXTS) else self.charged(arg) for arg in args]
            value, *settings = [*owner, *(arg for arg in given if not isinstance(arg, CONTEXTS))]
            self.pay(name, value, [*settings, *kwargs.values()])
            return self.charged(rule(*given, **kwargs))

        return paying


# types of the first argument that jinja2 may add to a call
CONTEXTS = (Context, nodes.EvalContext, TemplateSandbox)


class Generation(Extension):
    """The tag ``{% generation %}``, which marks text that the model should generate."""

    tags = {"generation"}  # noqa: RUF012 (jinja2 declares it so)
    environment: TemplateSandbox

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("note"), [], [], body).set_lineno(line)

    def note(self, caller: Callable[[], str]) -> str:
        text, begin = caller(), sum(map(len, self.environment.blocks))
        self.environment.spans.append((begin, begin + len(text)))
        return text


class Payments(NodeTransformer):
    """A visitor that adds cost accounting to a template's loops, macros and containers."""

    def generic_visit(self, node: nodes.Node, *args: object, **kwargs: object) -> nodes.Node:
        super().generic_visit(node)
        if isinstance(node, nodes.For | nodes.Macro | nodes.CallBlock):
            weight = nodes.Const(weight_of(node))
            if isinstance(node, nodes.For):
                node.iter = applied("counted", node.iter, weight)
            # charge in the body as well, because recursive loops and macros bypass this iterator
            node.body.insert(0, nodes.ExprStmt(applied("spent", weight)))
        elif isinstance(node, nodes.Concat):
            return applied("join", nodes.List(node.nodes))
        makes = isinstance(node, nodes.List | nodes.Dict | nodes.Tuple)
        # do not charge the tuple of targets in {% set a, b = ... %}, which holds no values
        if makes and getattr(node, "ctx", "load") == "load":
            return applied("charged", node)
        return node


def applied(name: str, value: nodes.Node, *settings: nodes.Node) -> nodes.Filter:
    """Build the syntax node of ``value | name(*settings)``."""
    return nodes.Filter(value, name, [*settings], [], None, None)


def weight_of(node: nodes.Node) -> int:
    """Return the cost of evaluating a node once: its syntax nodes and characters of text."""
    text = sum(len(data.data) for data in node.find_all(nodes.TemplateData))
    return 1 + text + sum(1 for _ in node.find_all(nodes.Node))


def printed_size(value: Any, known: dict[int, int]) -> int:
    """Estimate the length of a value in print; a shared part counts each time that it occurs.

    ``known`` caches the sizes of containers by id, so that a structure of shared parts is measured
    in linear time although its print may be exponentially long.
    """
    if isinstance(value, str):
        return len(value)
    if isinstance(value, int):
        return 1 + value.bit_length() // 3
    if isinstance(value, range):  # prints little, and has many entries to read
        return len(value)
    if not isinstance(value, Mapping | list | tuple | set | frozenset):
        return 1
    if id(value) not in known:
        known[id(value)] = 0  # Python prints "..." where a structure contains itself
        parts = [*value, *value.values()] if isinstance(value, Mapping) else value
        known[id(value)] = 2 + sum(2 + printed_size(part, known) for part in parts)
    return known[id(value)]


def as_count(value: Any) -> int:
    """Return an upper bound on the repetitions that an argument can cause: its value or size."""
    return abs(value) if isinstance(value, int) else printed_size(value, {})


def is_wide(name: str, form: str) -> bool:
    """Return whether a field of a format is wider than `WIDEST`, or as wide as an argument says."""
    if name == "%":
        return WIDE.search(form) is not None
    try:
        fields = [*string.Formatter().parse(form)]
    except ValueError:  # which the formatting will raise again
        return False
    return any(WIDE_BRACES.search(specification or "") for _, _, specification, _ in fields)


def to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Convert a value to JSON without escaping it for HTML, as transformers does."""
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def refuse(message: str) -> NoReturn:
    """Stop rendering with a message; templates call it ``raise_exception``."""
    raise ValueError(str(message)[:500])
