"""The colours and the type of all pages: lora_np/plots/tokens.json, as variables of the theme.

Each colour has one meaning: ``base`` the frozen matrix, ``lora`` the low-rank update, ``full`` an
update of every weight, ``plus`` and ``minus`` the entries of a matrix, ``good``, ``tight`` and
``not`` what fits. With ``-text`` it is dark enough for words, with ``-wash`` it is a ground. A
verdict has a shape and no colour.
"""

import json
from pathlib import Path

FILE = Path(__file__).parents[2] / "lora_np" / "plots" / "tokens.json"
TOKENS: dict[str, dict[str, str]] = json.loads(FILE.read_text(encoding="utf-8"))

# what the theme calls them
THEME = {
    "font-stack": "sans",
    "font-stack--headings": "sans",
    "font-stack--monospace": "mono",
    "color-brand-primary": "link",
    "color-brand-content": "link",
    "color-brand-visited": "link",
    "color-foreground-primary": "ink",
    "color-foreground-secondary": "ink-2",
    "color-foreground-muted": "ink-2",
    "color-foreground-border": "line-strong",
    "color-background-primary": "paper",
    "color-background-secondary": "wash",
    "color-background-hover": "base-wash",
    "color-background-border": "line",
    "color-background-item": "line",
    "color-highlight-on-target": "tight-wash",
    "color-highlighted-background": "tight-wash",
    "color-problematic": "not",
    "color-api-name": "ink",
    "color-api-pre-name": "ink-2",
}
NOTES = {
    "good": ("hint", "tip"),
    "tight": ("attention", "caution", "important", "warning"),
    "not": ("danger", "error"),
    "base": ("admonition-todo", "note", "seealso"),
}
for token, kinds in NOTES.items():
    for kind in kinds:
        THEME[f"color-admonition-title--{kind}"] = token
        THEME[f"color-admonition-title-background--{kind}"] = f"{token}-wash"


def rgb(name: str) -> tuple[int, int, int]:
    """Red, green and blue of a colour on white, from 0 to 255."""
    red, green, blue = bytes.fromhex(TOKENS["light"][name][1:])
    return red, green, blue


def variables(scheme: str) -> dict[str, str]:
    """All variables of one scheme: the tokens, and the theme's by them."""
    named = {name: f"var(--{token})" for name, token in THEME.items()}
    return TOKENS["type"] | TOKENS[scheme] | named
