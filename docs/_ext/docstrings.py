"""Docstrings on the site: names are links, types are words.

Single backticks find a public name of the package wherever it is documented, and complain about any
other. Types lose Napoleon's markup, a reference for each word: ``array_like of shape (d, k)`` is
one piece.
"""

import re
from typing import Any

import public_names
from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.ext.napoleon import docstring
from sphinx.util.docutils import SphinxRole

ALIASES = {
    "ndarray": "numpy.ndarray",
    "Generator": "numpy.random.Generator",
    "Axes": "matplotlib.axes.Axes",
    "Figure": "matplotlib.figure.Figure",
}
KNOWN = dict(public_names.public_things())
MODULES = {module.__name__ for module in public_names.public_modules()}
# values in braces or quotes; a name that may be a class; anything else
TOKEN = re.compile(r"\{[^}]*\}|\"[^\"]*\"|[A-Za-z_][\w.]*|[^A-Za-z_{\"]+")


def full_name(text: str, module: str = "", owner: str = "") -> str:
    """The public name that is meant from within a module and a class; empty if there is none, or
    several.
    """
    if owner and has_attribute(f"{module}.{owner}", text):
        return f"{module}.{owner}.{text}"
    for candidate in (text, f"{module}.{text}", f"lora_np.{text}"):
        if candidate in KNOWN or candidate in MODULES:
            return candidate
    owner, _, attribute = text.rpartition(".")
    if owner and has_attribute(found := full_name(owner, module), attribute):
        return f"{found}.{attribute}"
    things = {id(thing): full for full, thing in KNOWN.items() if full.endswith(f".{text}")}
    return next(iter(things.values())) if len(things) == 1 else ""


def has_attribute(full: str, name: str) -> bool:
    """Whether a public class has a method, a property or a field of this name."""
    thing = KNOWN.get(full)
    return isinstance(thing, type) and (
        hasattr(thing, name) or name in getattr(thing, "__dataclass_fields__", {})
    )


class Name(SphinxRole):
    """A public name of the package, in single backticks."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        module, owner = (self.env.ref_context.get(key) or "" for key in ("py:module", "py:class"))
        elsewhere = self.text if self.text.startswith(("numpy.", "matplotlib.")) else ""
        found = elsewhere or full_name(self.text, module, owner)
        code = nodes.literal("", self.text)
        if found in MODULES or (found in KNOWN and not public_names.has_docstring(KNOWN[found])):
            return [code], []  # a page describes it, under no name
        if not found:
            message = f"`{self.text}` in {module} is no public name: use ``double backticks``"
            return [code], [self.inliner.reporter.warning(message, line=self.lineno)]
        target = addnodes.pending_xref(
            "",
            code,
            refdomain="py",
            reftype="obj",
            reftarget=found,
            refwarn=True,
            refdoc=self.env.docname,
        )
        return [target], []


def type_words(text: str, *_: Any, **__: Any) -> str:
    """A type as reStructuredText: classes are links, values and shapes are code, the rest is
    prose.
    """
    if re.fullmatch(r"[\w.]*(Error|Exception|Interrupt|Warning)", text):
        return f":py:class:`{text}`"
    pieces: list[tuple[str, str]] = []  # role and text
    for token in TOKEN.findall(text):
        if token[0] in '{"':
            pieces.append(("code", token))
        elif target := ALIASES.get(token) or class_name(token):
            pieces.append(("py:class", f"~{target}"))
        elif pieces and pieces[-1][0] == "words":
            pieces[-1] = ("words", pieces[-1][1] + token)
        else:
            pieces.append(("words", token))
    return "\\ ".join(marked(*piece) for piece in pieces)


def marked(role: str, text: str) -> str:
    """Text in a role, with what blanks are around it outside."""
    inner = text.strip()
    before, _, after = text.partition(inner) if inner else (text, "", "")
    if role == "code":
        return f"``{inner}``"
    return f"{before}:{role}:`{inner}`{after}" if inner else text


def class_name(token: str) -> str:
    return (
        full_name(token)
        if token[0].isupper() and isinstance(KNOWN.get(full_name(token)), type)
        else ""
    )


def words(role: str, rawtext: str, text: str, *_: Any) -> tuple[list[nodes.Node], list[nodes.Node]]:
    return [nodes.inline(rawtext, text, classes=["type"])], []


def setup(app: Sphinx) -> dict[str, bool]:
    docstring._convert_type_spec = type_words
    app.add_role("name", Name())
    app.add_role("words", words)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
