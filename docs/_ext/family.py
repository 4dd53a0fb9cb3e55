"""The directive ``family-of-lora``: a table of PEFT's tuners, made from `lora.TUNERS`."""

from html import escape
from math import prod

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from lora_np.lora import TUNERS, Tuner

D, K = 100, 120
# What differs from PEFT's defaults: rank 8 where there is one, and blocks that divide the matrix.
USED = {"r": 8, "init_r": 8, "oft_block_size": 20}
OWN = {"OFT": {"r": 0}, "VERA": {"r": 256}}
GAP, THIN, HEIGHT = 5, 2, 104  # in entries of a matrix, as the pictures are drawn


class Family(SphinxDirective):
    """One row for each tuner: formula, picture, count, and whether it is a LoRA in disguise."""

    def run(self) -> list[nodes.Node]:
        return [nodes.raw("", table(), format="html")]


def table() -> str:
    heads = (
        "tuner",
        "update",
        "what is trained, next to the matrix",
        f"numbers on {D} x {K}",
        "as LoRA",
    )
    head = "".join(f'<th scope="col">{text}</th>' for text in heads)
    body = "\n".join(row(key, each) for key, each in TUNERS.items())
    whole = f"<thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody>"
    return f'<div class="table-wrapper"><table class="docutils family">{whole}</table></div>'


def row(key: str, each: Tuner) -> str:
    own = settings(key, each)
    arrays = each.trained(D, K, **own)
    paper = (
        '<a class="reference external"'
        f' href="https://arxiv.org/abs/{each.paper}">{escape(each.name)}</a>'
    )
    formula = (each.formula.__doc__ or "").partition("\n")[0]
    code = "".join(
        f"<code>{escape(text)}</code>" if i % 2 else escape(text)
        for i, text in enumerate(formula.rstrip(".").split("``"))
    )
    shown = ", ".join(f"{name} = {value}" for name, value in own.items() if name in each.settings)
    numbers = sum(map(prod, arrays.values()))
    rank = f"exact, rank {escape(each.rank)}" if each.rank else "no"
    said = f"<br><small>{escape(shown)}</small>" if shown else ""
    cells = (code + said, picture(arrays), f"{numbers:,}", rank)
    return (
        f'<tr><th scope="row">{paper}</th>'
        + "".join(f"<td>{cell}</td>" for cell in cells)
        + "</tr>"
    )


def settings(key: str, each: Tuner) -> dict[str, float]:
    used = {name: value for name, value in USED.items() if name in each.settings}
    return {**used, **OWN.get(key, {})}


def picture(shapes: dict[str, tuple[int, ...]]) -> str:
    """The matrix as an outline, and next to it each trained array at the same scale: an area is a
    count.
    """
    said = ", ".join(f"{name} {' x '.join(map(str, shape))}" for name, shape in shapes.items())
    parts, x, y, width = [f'<rect class="whole" width="{K}" height="{D}"/>'], K + 3 * GAP, 0, 0
    for shape in shapes.values():
        rows, columns = drawn(shape)
        for _ in range(prod(shape[:-2])):
            if y + rows > HEIGHT and y:
                x, y, width = x + width + GAP, 0, 0
            parts.append(f'<rect class="part" x="{x}" y="{y}" width="{columns}" height="{rows}"/>')
            y, width = y + rows + GAP // 2, max(width, columns)
    x += width
    return (
        f'<svg role="img" aria-label="{escape(said)}" viewBox="-1 -1 {x + 2} {HEIGHT}" '
        f'width="{round(0.45 * x)}"><title>{escape(said)}</title>{"".join(parts)}</svg>'
    )


def drawn(shape: tuple[int, ...]) -> tuple[int, int]:
    """Rows and columns of one array; a vector is a row, or a column if it has an entry for each
    output.

    Rows that are longer than those of the matrix are folded.
    """
    rows, columns = shape[-2:] if len(shape) > 1 else (D, 1) if shape[0] == D else (1, shape[0])
    rows, columns = rows * -(-columns // K), min(columns, K)
    return max(rows, THIN), max(columns, THIN)


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("family-of-lora", Family)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
