"""Define fused primitives for the operations of ``composed`` that take most of the time.

The primitives save passes over memory. Attention never normalises its weights and skips the keys
that no query sees; the head computes logits for a few rows at a time; and shared work is done once.
Tests check that values and gradients equal those of the composed versions.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np

from lora_np.autograd import NOT_DIFFERENTIABLE, primitive
from lora_np.checks import Array
from lora_np.language import composed
from lora_np.quantise import Quantised

# maps the result's gradient to the arguments' gradients; a gradient that is not needed is None
Pulls = Callable[[Array], tuple[Array | None, ...]]
BLOCK = 32  # number of tokens whose queries are processed at once; doubled above 2 * TILE keys
HARMLESS = 60.0  # exp neither overflows nor underflows for scores up to this absolute value

# largest number of attention weights that a layer keeps; the backward pass recomputes all others
KEPT = 2**22
TILE = 512  # number of keys that attention processes at once when it keeps no more weights
PIECE = 2**15  # number of entries to process at once; so many fit in the processor's cache
ROWS = 1024  # largest number of rows that the head processes at once
LOGITS = 2**18  # largest number of logits that the head computes at once
SWAPPED = np.array([1, 0])


# RMSNorm


def norm_forward(x: Array, W: Array, *, eps: float) -> tuple[Array, Array]:
    inverse = ((np.vecdot(x, x) / x.shape[-1] + eps) ** -0.5).reshape(-1, 1)
    y = inverse.dot(W[None])  # an outer product is faster than a product with broadcasting
    y *= rows(x)
    return y.reshape(x.shape), inverse


def norm_joint(
    inverse: Array, x: Array, W: Array, *, wanted: tuple[bool, ...], eps: float
) -> Pulls:
    x2 = rows(x)

    def pull(g: Array) -> tuple[Array | None, Array | None]:
        gx = gW = None
        if wanted[1]:
            gW = np.einsum("ij,ij,i->j", rows(g), x2, inverse.ravel())
        if wanted[0]:
            gx = inverse.dot(W[None])
            gx *= rows(g)
            mean = np.vecdot(gx, x2)[:, None]
            mean *= inverse
            mean *= inverse
            mean /= x.shape[-1]
            along_x = repeated(mean, x.shape[-1])
            along_x *= x2
            gx -= along_x
            gx = gx.reshape(x.shape)
        return gx, gW

    return pull


rms_norm = primitive(norm_forward, joint=norm_joint, keeps=True, composed=composed.rms_norm)


# The gated unit processes pieces that are small enough to stay in the processor's cache. The
# backward pass recomputes intermediate values, because loading them from memory would be slower.


def gated_forward(gate: Array, up: Array) -> Array:
    y = np.empty(gate.shape, gate.dtype)
    for gate_part, up_part, part in pieces(gate, up, y):
        np.divide(gate_part, one_plus_exp(gate_part), out=part)  # silu = gate sigmoid(gate)
        part *= up_part
    return y


def gated_joint(y: Array, gate: Array, up: Array, *, wanted: tuple[bool, ...]) -> Pulls:
    def pull(g: Array) -> tuple[Array, Array]:
        dgate, dup = (np.empty(gate.shape, gate.dtype) for _ in range(2))
        for gate_part, up_part, g_part, d, silu in pieces(gate, up, g, dgate, dup):
            inverse = one_plus_exp(gate_part)
            np.divide(gate_part, inverse, out=silu)
            np.subtract(gate_part, silu, out=d)
            d += 1
            d /= inverse  # silu' = sigmoid (1 + gate - silu)
            d *= up_part
            d *= g_part
            silu *= g_part
        return dgate, dup

    return pull


def one_plus_exp(x: Array) -> Array:
    """Compute ``1 + exp(-x)``, the reciprocal of the sigmoid; infinity if the sigmoid is zero."""
    y = np.negative(x)
    with np.errstate(over="ignore"):
        np.exp(y, out=y)
    y += 1
    return y


def pieces(*arrays: Array) -> Iterator[list[Array]]:
    flat = arrays if arrays[0].size <= PIECE else [array.reshape(-1) for array in arrays]
    for i in range(0, flat[0].size, PIECE):
        yield [array[i : i + PIECE] for array in flat]


gated = primitive(gated_forward, joint=gated_joint, composed=composed.gated)


# Rotary embeddings


def turned(x: Array, *, cos: Array, sin: Array) -> Array:
    """Rotate x by angles, given their cosines and sines; negate ``sin`` to rotate back."""
    halves = x.reshape(*x.shape[:-1], 2, -1)
    by_row = cos.ndim == x.ndim
    # with more than two sequences, repeating cos and sin for each head is faster than broadcasting
    heads = x.shape[2] if len(x) > 2 and not by_row else 1
    tables = (table.reshape(*table.shape[:-2], 1, 2, halves.shape[-1]) for table in (cos, sin))
    cos, sin = (np.repeat(table, heads, axis=-3) for table in tables)
    y = np.empty_like(halves)
    sequences = 1 if by_row else max(1, PIECE // cos.size)
    for i in range(0, len(x), sequences):
        some, out = halves[i : i + sequences], y[i : i + sequences]
        some.take(SWAPPED, axis=-2, out=out, mode="clip")  # mode="clip" avoids a buffer
        out *= sin[i] if by_row else sin
        out += some * (cos[i] if by_row else cos)
    return y.reshape(x.shape)


rotate = primitive(
    turned,
    lambda y, x, *, cos, sin: lambda g: turned(g, cos=cos, sin=-sin),
    composed=composed.rotate,
)


# Attention: within a group of heads, rows are ordered by token, then by head, so that a block of
# tokens is one slice of rows.


def attend_forward(
    q: Array,
    k: Array,
    v: Array,
    *,
    window: int | None,
    scale: float,
    sequence_ids: Array | None = None,
    keep: int | None = None,  # largest number of attention weights to keep; by default KEPT
) -> tuple[Array, Any]:
    keep = KEPT if keep is None else keep
    Q, V = by_group(q, k.shape[2]), by_group(v, k.shape[2])
    KT = np.multiply(k.transpose(0, 2, 3, 1), scale, order="C")  # BLAS is faster on contiguous keys
    largest = np.empty((*Q.shape[:-1], 1), Q.dtype) if may_overflow(Q, KT) else None
    mixed = np.empty_like(Q)  # (batch, kv, tokens * heads / kv, d)
    sums = np.empty((*Q.shape[:-1], 1), Q.dtype)
    weights: list[Array | None] = []
    kept = 0
    for some, keys, block in blocks(q, k, window):
        edges = [keys.start, keys.stop]
        kept += sums[:, :, block].size * (keys.stop - keys.start)
        if kept > keep and largest is None and window is None:
            edges[1:1] = range(TILE, some.start, TILE)
        for first, end in pairwise(edges):
            E = scores(Q[:, :, block], KT, some, slice(first, end), window, sequence_ids)
            if largest is not None:
                np.max(E, axis=-1, keepdims=True, out=largest[:, :, block])
                E -= largest[:, :, block]
            np.exp(E, out=E)
            if first == keys.start:
                sums[:, :, block] = row_sums(E)
                np.matmul(E, V[:, :, first:end], out=mixed[:, :, block])
            else:
                sums[:, :, block] += row_sums(E)
                mixed[:, :, block] += np.matmul(E, V[:, :, first:end])
        weights.append(E if kept <= keep else None)
    mixed /= repeated(sums, q.shape[-1])
    return by_token(mixed, (*q.shape[:2], -1)), (Q, KT, V, mixed, weights, largest, sums)


def attend_joint(
    kept: Any,
    q: Array,
    k: Array,
    v: Array,
    *,
    wanted: tuple[bool, ...],
    window: int | None,
    scale: float,
    sequence_ids: Array | None = None,
) -> Pulls:
    wide, narrow, steps = q.shape, k.shape, [*blocks(q, k, window)]
    d = wide[-1]

    def pull(g: Array) -> tuple[Array | None, ...]:
        Q, KT, V, mixed, weights, largest, sums = kept
        # The gradient of a score is its weight times the difference between g V^T and the weighted
        # mean of g V^T. An extra column of dmixed, times a row of ones in V1T, subtracts the mean.
        dmixed = np.empty((*Q.shape[:-1], d + 1), Q.dtype)
        weighted = by_group(g.reshape(wide), narrow[2]) / repeated(sums, d)
        dmixed[..., :d] = weighted
        weighted *= mixed
        np.negative(row_sums(weighted), out=dmixed[..., d:])
        V1T = np.ones((*KT.shape[:2], d + 1, KT.shape[3]), V.dtype)
        V1T[..., :d, :] = V.swapaxes(-1, -2)
        dQ, dK, dV = np.empty_like(Q), np.zeros_like(V), np.zeros_like(V)
        for i, (some, keys, block) in enumerate(steps):
            E, weights[i] = weights[i], None
            if E is None:
                E = scores(Q[:, :, block], KT, some, keys, window, sequence_ids)
                if largest is not None:
                    E -= largest[:, :, block]
                np.exp(E, out=E)
            if wanted[0] or wanted[1]:
                dS = np.matmul(dmixed[:, :, block], V1T[..., keys])
                dS *= E
            if wanted[2]:
                dV[:, :, keys] += np.matmul(E.swapaxes(-1, -2), dmixed[:, :, block, :d])
            if wanted[0]:
                np.matmul(dS, KT[..., keys].swapaxes(-1, -2), out=dQ[:, :, block])
            if wanted[1]:
                dK[:, :, keys] += np.matmul(dS.swapaxes(-1, -2), Q[:, :, block])
        dK *= scale
        shapes = (dQ, wide), (dK, narrow), (dV, narrow)
        return tuple(
            by_token(*pair) if asked else None for pair, asked in zip(shapes, wanted, strict=True)
        )

    return pull


attend = primitive(attend_forward, joint=attend_joint, keeps=True, composed=composed.attend)


def may_overflow(Q: Array, KT: Array) -> bool:
    """Return whether ``exp(score)`` may overflow, by a bound from the norms of q and k.

    If not, the largest score need not be subtracted, which saves two passes over the scores.
    """
    # try a looser bound first, because it is faster and usually suffices
    if Q.shape[-1] * largest_of(Q) * largest_of(KT) < HARMLESS:
        return False
    both = Q, KT.swapaxes(-1, -2)
    longest_q, longest_k = (float(np.einsum("...i,...i->...", x, x).max()) for x in both)
    return not longest_q * longest_k < HARMLESS**2


def largest_of(x: Array) -> float:
    return max(float(x.max()), -float(x.min()))


def blocks(q: Array, k: Array, window: int | None) -> Iterator[tuple[slice, slice, slice]]:
    """Yield three slices for each block of queries: its tokens, the keys it may see, its rows.

    There is a key for each token, but queries only for the last tokens.
    """
    tokens, group = k.shape[1], q.shape[2] // k.shape[2]
    before = tokens - q.shape[1]
    size = BLOCK if tokens <= 2 * TILE else 2 * BLOCK
    for t in range(before, tokens, size):
        end = min(t + size, tokens)
        first = 0 if window is None else max(0, t - window + 1)
        rows = slice((t - before) * group, (end - before) * group)
        yield slice(t, end), slice(first, end), rows


def scores(
    Q: Array, KT: Array, some: slice, keys: slice, window: int | None, sequence_ids: Array | None
) -> Array:
    """Compute scaled scores ``Q K^T`` of a block of tokens, with minus infinity for masked keys."""
    S: Array = np.matmul(Q, KT[..., keys])
    t, end, first = some.start, some.stop, keys.start
    group = Q.shape[2] // (end - t)
    # Without a window, every query sees all keys before the block. If there are many of these keys,
    # the mask is added only to the block's own keys, to save time.
    seen = t - first if window is None and t - first > 4 * BLOCK else 0
    if keys.stop == end:
        S[..., seen:] += barred(end - t, end - first - seen, group, window, S.dtype)
    if sequence_ids is not None:
        other = sequence_ids[:, some, None] != sequence_ids[:, None, keys]
        S += np.where(np.repeat(other, group, axis=1), -np.inf, 0).astype(S.dtype)[:, None]
    return S


@functools.lru_cache(maxsize=32)
def barred(
    queries: int, keys: int, group: int, window: int | None, dtype: np.dtype[np.generic]
) -> Array:
    mask = np.where(composed.visible(queries, keys, window), 0, -np.inf).astype(dtype)
    return np.repeat(mask, group, axis=0)


def by_group(x: Array, kv: int) -> Array:
    """Reorder (batch, tokens, heads, d) to (batch, kv, tokens * heads / kv, d)."""
    batch, tokens, _, d = x.shape
    return x.reshape(batch, tokens, kv, -1, d).transpose(0, 2, 1, 3, 4).reshape(batch, kv, -1, d)


def by_token(x: Array, shape: tuple[int, ...]) -> Array:
    """Undo ``by_group``, and reshape the result to ``shape``, which is (batch, tokens, ...)."""
    batch, kv, _, d = x.shape
    return x.reshape(batch, kv, shape[1], -1, d).transpose(0, 2, 1, 3, 4).reshape(shape)


# The head and its loss process some rows of h and a part of the vocabulary at a time, so that the
# logits stay in the processor's cache. The same pass computes the gradient with respect to h: for a
# label's log probability, it is the label's row of W minus the softmax-weighted mean of all rows. A
# trainable head uses the composed loss, because this pass computes no gradient of W.


class Expected:
    """A softmax-weighted mean of vectors, accumulated over one part of the vocabulary at a time."""

    def __init__(self, n: int, dtype: np.dtype[np.generic]) -> None:
        self.largest = np.full((n, 1), -np.inf, dtype)
        self.sums = self.total = np.zeros((1, 1), dtype)

    def add(self, z: Array, values: Array) -> Array:
        """Add a part, overwrite its logits z by weights, and return the factor on earlier sums."""
        before, self.largest = self.largest, np.maximum(self.largest, z.max(axis=1, keepdims=True))
        z -= self.largest
        np.exp(z, out=z)
        shrunk: Array = np.exp(before - self.largest)
        first = self.total.size == 1
        self.total = z.dot(values) if first else self.total * shrunk + z.dot(values)
        self.sums = self.sums * shrunk + row_sums(z)
        return shrunk

    @property
    def mean(self) -> Array:
        """The weighted mean of the values, of shape (rows, d)."""
        return self.total / self.sums

    @property
    def log_sums(self) -> Array:
        """The logarithm of the sum of ``exp(z)`` in each row."""
        return self.largest + np.log(self.sums)


def head_forward(h: Array, W: Array | Quantised, *, labels: Array) -> tuple[Array, Array]:
    h2, flat = rows(h), labels.reshape(-1)
    keep = np.flatnonzero(flat != composed.IGNORED)
    log_p, dh = np.zeros(len(h2), h.dtype), np.zeros_like(h2)
    for i in range(0, len(keep), ROWS):
        part = keep[i : i + ROWS]
        some, wanted, step = h2[part], flat[part], max(1, LOGITS // len(part))
        picked, expected = np.empty((len(some), 1), h.dtype), Expected(len(some), h.dtype)
        for begin in range(0, W.shape[0], step):
            W_part = tokens_of(W, slice(begin, begin + step))
            z = some.dot(W_part.T)
            column = wanted - begin
            here = np.flatnonzero((column >= 0) & (column < len(W_part)))
            picked[here, 0] = z[here, column[here]]
            expected.add(z, W_part)
        dh[part] = tokens_of(W, wanted) - expected.mean
        log_p[part] = (picked - expected.log_sums)[:, 0]
    return log_p.reshape(labels.shape), dh.reshape(h.shape)


head_log_probabilities = primitive(
    head_forward,
    lambda dh, h, W, *, labels: lambda g: dh * g[..., None],
    NOT_DIFFERENTIABLE,
    keeps=True,
    composed=composed.head_log_probabilities,
)


def distillation_forward(
    h: Array, W: Array | Quantised, *, teacher: Array, counts: Array
) -> tuple[Array, Array]:
    h2, keep = rows(h), np.flatnonzero(counts)
    dh = np.zeros_like(h2)
    total = 0.0
    for i in range(0, len(keep), ROWS):
        part = keep[i : i + ROWS]
        n, step = len(part), max(1, LOGITS // len(part))
        ours, theirs, apart = Expected(n, h.dtype), Expected(n, h.dtype), np.zeros((n, 1), h.dtype)
        for begin in range(0, W.shape[0], step):
            W_part = tokens_of(W, slice(begin, begin + step))
            z, wanted = h2[part].dot(W_part.T), teacher[i : i + ROWS].dot(W_part.T)
            off = wanted - z
            ours.add(z, W_part)
            apart = apart * theirs.add(wanted, W_part)
            off *= wanted
            apart += row_sums(off)
        dh[part] = ours.mean - theirs.mean
        divergences = apart / theirs.sums + ours.log_sums - theirs.log_sums
        total += float(np.sum(divergences, dtype=np.float64))
    dh /= len(keep)
    return np.asarray(total / len(keep), h.dtype), dh.reshape(h.shape)


distillation_loss = primitive(
    distillation_forward,
    lambda dh, h, W, *, teacher, counts: lambda g: dh * g,
    NOT_DIFFERENTIABLE,
    keeps=True,
    composed=composed.distillation_loss,
)


def tokens_of(W: Array | Quantised, tokens: Array | slice) -> Array:
    return W.rows(tokens) if isinstance(W, Quantised) else W[tokens]


def row_sums(x: Array) -> Array:
    """Sum over the last axis, with ``keepdims``; the dot product is faster than ``np.sum``."""
    total: Array = rows(x).dot(np.ones(x.shape[-1], x.dtype))
    return total.reshape(*x.shape[:-1], 1)


def repeated(column: Array, n: int) -> Array:
    """Repeat a column n times along the last axis, which is faster than broadcasting it."""
    return np.repeat(column, n, axis=-1)


def rows(x: Array) -> Array:
    return x.reshape(-1, x.shape[-1])
