"""A sandbox for chat templates that bounds their work: a template is a program from a stranger.

jinja2's own sandbox keeps a template away from Python's objects, not from a loop without end or a
string of a terabyte. Here each operation that can produce or repeat something pays for it
beforehand, in characters, entries or evaluated nodes, and rendering stops when the budget is spent.
The work is counted rather than timed, so that every machine draws the line at the same place.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, NoReturn, TypeVar

from jinja2 import nodes, pass_context, utils
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

LARGEST_SOURCE = 1_000_000  # characters; the longest templates that are published have some 20,000
WORK = 10_000_000  # characters, entries and nodes of one rendering,
WORK_PER_CHARACTER = 100  # and more where the conversation itself is longer
LARGEST_NUMBER = 10_000  # bits of an integer
WIDEST = 9_999  # widest column in a format
WIDE = re.compile(r"\d{5,}|\*|\{[^{}]*\{")

T = TypeVar("T")
# Filters and methods whose result can be many times as long as what they are given.
REPEATING = {
    "batch", "center", "expandtabs", "format", "indent", "join", "ljust", "replace", "rjust",
    "round", "slice", "tojson", "translate", "truncate", "urlize", "wordwrap", "xmlattr", "zfill",
}  # fmt: skip


class BoundedNamespace(utils.Namespace):
    """A namespace that is printed without its contents, which may refer to one another."""

    def __repr__(self) -> str:
        return "<Namespace>"


class TemplateSandbox(ImmutableSandboxedEnvironment):
    """The environment of chat templates: transformers' conventions, and bounded work.

    Attributes
    ----------
    left : int
        What the current rendering may still spend.
    spans : list of (int, int)
        Where in ``blocks`` the template marks text as generated.
    blocks : list of str
        What was rendered so far.
    """

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self) -> None:
        self.left = WORK
        self.blocks: list[str] = []
        self.spans: list[tuple[int, int]] = []
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            optimized=False,  # an expression that is worked out beforehand would not be paid for
            extensions=[Generation, loopcontrols],
            finalize=pass_context(lambda context, value: self.charged(value)),
        )
        self.filters["tojson"] = to_json
        self.filters = {name: self.paid(name, rule) for name, rule in self.filters.items()}
        self.filters |= {
            "counted": self.counted,
            "charged": self.charged,
            "spent": self.spend,
        }
        del self.globals["lipsum"]  # it generates text of any length
        self.globals |= {
            "namespace": BoundedNamespace,
            "strftime_now": lambda form: datetime.now().strftime(form[:100]),
            "raise_exception": refuse,
        }

    def compiled(self, source: str) -> nodes.Template:
        """Compile a template with cost accounting."""
        if len(source) > LARGEST_SOURCE:
            raise ValueError(
                f"it has {len(source):,} characters, at most {LARGEST_SOURCE:,} are read"
            )
        tree = self.parse(source)
        Payments().visit(tree)
        return tree

    def renew(self, conversation: Any) -> None:
        """Reset the budget before a rendering."""
        self.left = WORK + WORK_PER_CHARACTER * printed_size(conversation, {})
        self.blocks.clear()
        self.spans.clear()

    def spend(self, work: int) -> None:
        """Charge a cost to the budget; stop the rendering if it is exhausted."""
        self.left -= work
        if self.left < 0:
            raise ValueError(f"it takes more than {WORK:,} characters, entries and steps of work")

    def counted(self, items: Iterable[T], weight: int) -> Iterator[T]:
        """Yield the items, charging ``weight`` for each."""
        for item in items:
            self.spend(weight)
            yield item

    def charged(self, value: T) -> T:
        """Charge for the printed size of a value, or for an iterator's items as they come."""
        if isinstance(value, Iterator):
            return map(self.charged, value)  # type: ignore[return-value]
        self.spend(printed_size(value, {}))
        return value

    def pay(self, name: str, value: Any, settings: list[Any]) -> None:
        """Charge for the longest possible result of a filter or method."""
        # a field wider than this, or of a width that is an argument
        form = name in ("format", "format_map", "%") and isinstance(value, str)
        if form and WIDE.search(value):
            raise ValueError(f"a format has a field wider than {WIDEST:,} characters")
        size, repeated = printed_size(value, {}), sum(map(as_count, settings))
        if name == "replace":  # every occurrence is replaced
            times = str(value).count(str(settings[0])) if settings else 0
            self.spend(size + times * repeated)
        elif name in REPEATING:
            self.spend((1 + size) * (1 + repeated))
        else:
            self.spend(size + repeated)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Evaluate ``left operator right`` if the budget has room for its result."""
        if not (isinstance(left, int) and isinstance(right, int)):
            times = as_count(left) * as_count(right)
            self.pay(operator, left, [times if operator == "*" else right])
        elif (abs(right) if operator == "**" else 1) * left.bit_length() > LARGEST_NUMBER:
            raise ValueError(f"a number has more than {LARGEST_NUMBER:,} bits")
        return super().call_binop(context, operator, left, right)

    def call(self, context: Context, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Call what a template calls if the budget has room for the result."""
        call = functools.partial(super().call, context, function)
        if isinstance(function, Macro):
            return self.charged(call(*args, **kwargs))
        method = getattr(function, "__wrapped__", function)  # jinja2 wraps str.format
        owner = getattr(method, "__self__", None)
        name = method.__name__ if isinstance(owner, str) else ""
        return self.paid(name, call, owner if name else 0)(*args, **kwargs)

    def paid(self, name: str, rule: Callable[..., Any], *owner: Any) -> Callable[..., Any]:
        """Wrap a filter, or a method of ``owner``: what it is given bounds and pays for its result,
        and the result is paid for as well.
        """

        @functools.wraps(rule)  # keeps the marks of filters that take the context
        def paying(*args: Any, **kwargs: Any) -> Any:
            given = [arg if isinstance(arg, CONTEXTS) else self.charged(arg) for arg in args]
            value, *settings = [*owner, *(arg for arg in given if not isinstance(arg, CONTEXTS))]
            self.pay(name, value, [*settings, *kwargs.values()])
            return self.charged(rule(*given, **kwargs))

        return paying


CONTEXTS = (Context, nodes.EvalContext, TemplateSandbox)  # what jinja2 passes to filters first


class Generation(Extension):
    """``{% generation %}``: the text that the model is to generate."""

    tags = {"generation"}  # noqa: RUF012 (jinja2 declares it so)
    environment: TemplateSandbox

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("note"), [], [], body).set_lineno(line)

    def note(self, caller: Callable[[], str]) -> str:
        text, start = caller(), sum(map(len, self.environment.blocks))
        self.environment.spans.append((start, start + len(text)))
        return text


class Payments(NodeTransformer):
    """Inserts cost accounting into a template's syntax tree: loops, macros and containers."""

    def generic_visit(self, node: nodes.Node, *args: object, **kwargs: object) -> nodes.Node:
        super().generic_visit(node)
        if isinstance(node, nodes.For | nodes.Macro | nodes.CallBlock):
            weight = nodes.Const(weight_of(node))
            if isinstance(node, nodes.For):
                node.iter = applied("counted", node.iter, weight)
            # macros and recursive loops enter their bodies in other ways
            node.body.insert(0, nodes.ExprStmt(applied("spent", weight)))
        elif isinstance(node, nodes.Concat):
            return applied("join", nodes.List(node.nodes))
        makes = isinstance(node, nodes.List | nodes.Dict | nodes.Tuple)
        if makes and getattr(node, "ctx", "load") == "load":  # not {% set a, b = ... %}
            return applied("charged", node)
        return node


def applied(name: str, value: nodes.Node, *settings: nodes.Node) -> nodes.Filter:
    """Make the syntax node of ``value | name(*settings)``."""
    return nodes.Filter(value, name, [*settings], [], None, None)


def weight_of(node: nodes.Node) -> int:
    """Count the nodes below a node, and the characters of text among them."""
    text = sum(len(data.data) for data in node.find_all(nodes.TemplateData))
    return 1 + text + sum(1 for _ in node.find_all(nodes.Node))


def printed_size(value: Any, known: dict[int, int]) -> int:
    """Count the characters of a printed value, including every occurrence of shared parts.

    ``known`` holds the sizes of the containers met so far, so that a structure whose parts are
    shared, and which would be exponentially long in print, is measured in linear time.
    """
    if isinstance(value, str):
        return len(value)
    if isinstance(value, int):
        return 1 + value.bit_length() // 3
    if not isinstance(value, Mapping | list | tuple | set | frozenset):
        return 1
    if id(value) not in known:
        known[id(value)] = 0  # where a structure contains itself, Python prints "..."
        parts = [*value, *value.values()] if isinstance(value, Mapping) else value
        known[id(value)] = 2 + sum(2 + printed_size(part, known) for part in parts)
    return known[id(value)]


def as_count(value: Any) -> int:
    """Bound how often an argument can repeat another: a number's value, or a size."""
    return abs(value) if isinstance(value, int) else printed_size(value, {})


def to_json(value: Any, ensure_ascii: bool = False, **settings: Any) -> str:
    """Write JSON as transformers does: not escaped for HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, **settings)


def refuse(message: str) -> NoReturn:
    """Stop rendering: a template's own ``raise_exception(message)``."""
    raise ValueError(str(message)[:500])
