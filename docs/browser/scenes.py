"""Draw the matrices and curves of a puzzle as HTML."""

import struct
import zlib
from base64 import b64encode
from collections.abc import Mapping
from html import escape

import numpy as np

from lora_np.exercises import Scene
from lora_np.plots import CYCLE, LORA, SKY

TALL, CELL = 160, 14  # pixels: of the tallest matrix, and at most of an entry
COLOURS = CYCLE[:3]
BLUE, ORANGE = (np.array([*bytes.fromhex(colour[1:])]) for colour in (SKY, LORA))


def as_html(scene: Scene) -> str:
    """The sentence, and below it what is drawn."""
    found = {label: np.asarray(panel, np.float64) for label, panel in scene.panels.items()}
    matrices = {label: M for label, M in found.items() if M.ndim == 2}
    curves = {label: y for label, y in found.items() if y.ndim == 1}
    largest = max((np.abs(M).max() for M in matrices.values()), default=0) or 1
    cell = min(CELL, TALL / max(map(len, matrices.values()), default=1))
    signed = any((M < 0).any() for M in matrices.values())
    figures = [image(label, M / largest, cell, signed) for label, M in matrices.items()]
    if curves:
        figures.append(plot(curves))
    said = f'<p style="white-space:pre-wrap">{escape(scene.said)}</p>' * bool(scene.said)
    return said + f'<div class="scene">{"".join(figures)}</div>' * bool(figures)


def image(label: str, M: np.ndarray, cell: float, signed: bool) -> str:
    """Draw numbers from -1 to 1 in blue and orange, or from 0 to 1 in greys."""
    size = np.abs(M)[..., None]
    pixels = 255 * size
    if signed:
        pixels = 255 * (1 - size) + size * np.where(M[..., None] < 0, BLUE, ORANGE)
    source = b64encode(png(pixels.astype(np.uint8) + np.zeros(3, np.uint8))).decode("ascii")
    d, k = M.shape
    return (
        f'<figure style="margin:0"><img alt="{escape(label)}" width="{k * cell:.0f}"'
        f' height="{d * cell:.0f}" style="image-rendering:pixelated"'
        f' src="data:image/png;base64,{source}"><figcaption>{escape(label)}</figcaption></figure>'
    )


def png(pixels: np.ndarray) -> bytes:
    """Write a picture of shape (rows, columns, 3) without a library.

    Examples
    --------
    >>> png(np.zeros((2, 3, 3), np.uint8))[1:4]
    b'PNG'
    """

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)

    rows, columns, _ = pixels.shape
    lines = np.insert(pixels.reshape(rows, -1), 0, 0, axis=1).tobytes()  # 0: no filter
    head = struct.pack(">IIBBBBB", columns, rows, 8, 2, 0, 0, 0)  # eight bits, RGB
    parts = [(b"IHDR", head), (b"IDAT", zlib.compress(lines)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def plot(curves: Mapping[str, np.ndarray]) -> str:
    """Draw curves from left to right on one scale, which begins at zero."""
    most = max(float(y.max()) for y in curves.values()) or 1.0
    told = f"{most:,.0f}" if most >= 100 else f"{most:.3g}"
    parts = [
        '<path d="M52 8V142H312" fill="none" stroke="currentColor"/>',
        f'<text x="46" y="14" text-anchor="end">{told}</text>',
        '<text x="46" y="146" text-anchor="end">0</text>',
    ]
    for i, (label, y) in enumerate(curves.items()):
        xs, ys = np.linspace(52, 312, len(y)), 142 - 130 * y / most
        points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(xs, ys, strict=True))
        shape = f'points="{points}" fill="none" stroke-width="2.5" stroke="{COLOURS[i]}"'
        parts.append(f"<polyline {shape}/>")
        parts.append(f'<rect x="52" y="{155 + 18 * i}" width="14" height="4" fill="{COLOURS[i]}"/>')
        parts.append(f'<text x="72" y="{162 + 18 * i}">{escape(label)}</text>')
    tall, label = 152 + 18 * len(curves), escape("; ".join(curves))
    return (
        f'<svg viewBox="0 0 320 {tall}" width="320" height="{tall}" role="img"'
        f' aria-label="{label}" style="max-width:100%;font-size:13px" fill="currentColor">'
        f"{''.join(parts)}</svg>"
    )
