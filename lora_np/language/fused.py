"""The operations of `composed`, one primitive each: where a step on real text spends its time.

They save passes over memory: attention never normalises its weights and skips what no token may see, the head
computes its logits a few rows at a time, and shared work is done once. Laws in the tests check that values
and gradients equal those of the composed versions.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import numpy as np

from lora_np.autograd import primitive
from lora_np.checks import Array
from lora_np.language import composed
from lora_np.quantise import Quantised

BLOCK = 32  # queries at a time
HARMLESS = 30.0  # scores of this size neither overflow in exp nor make its sums vanish
KEPT = 2**22  # numbers: more attention weights of a layer than this are recomputed in the backward pass
PIECE = 2**15  # numbers that several passes find in the cache
ROWS = 1024  # of the head, at a time
LOGITS = 2**18  # of the head, at a time
SWAPPED = np.array([1, 0])


# RMSNorm


def norm_forward(x: Array, W: Array, *, eps: float) -> tuple[Array, Array]:
    inverse = ((np.vecdot(x, x) / x.shape[-1] + eps) ** -0.5).reshape(-1, 1)
    y = inverse.dot(W[np.newaxis])  # faster than broadcasting one after the other
    y *= rows(x)
    return y.reshape(x.shape), inverse


def norm_joint(inverse: Array, x: Array, W: Array, *, wanted: tuple[bool, ...], eps: float) -> Any:
    x2 = rows(x)

    def pull(g: Array) -> tuple[Array | None, Array | None]:
        gx = gW = None
        if wanted[1]:
            gW = np.einsum("ij,ij,i->j", rows(g), x2, inverse.ravel())
        if wanted[0]:
            gx = inverse.dot(W[np.newaxis])
            gx *= rows(g)
            mean = np.vecdot(gx, x2)[:, np.newaxis]
            mean *= inverse
            mean *= inverse
            mean /= x.shape[-1]
            along_x = widened(mean, x.shape[-1])
            along_x *= x2
            gx -= along_x
            gx = gx.reshape(x.shape)
        return gx, gW

    return pull


rms_norm = primitive(norm_forward, joint=norm_joint, keeps=True, composed=composed.rms_norm)


# The gated unit, in pieces that stay in the cache from one pass to the next. Intermediate values are
# recomputed in the backward pass, since that is faster than loading them from memory.


def gated_forward(gate: Array, up: Array) -> Array:
    y = np.empty(gate.shape, gate.dtype)
    for gate_part, up_part, part in pieces(gate, up, y):
        np.divide(gate_part, one_plus_exp(gate_part), out=part)  # silu = gate sigmoid(gate)
        part *= up_part
    return y


def gated_joint(y: Array, gate: Array, up: Array, *, wanted: tuple[bool, ...]) -> Any:
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
    """``1 + exp(-x)``, the inverse of the sigmoid; infinity where that is zero."""
    y = np.negative(x)
    with np.errstate(over="ignore"):
        np.exp(y, out=y)
    y += 1
    return y


def pieces(*arrays: Array) -> Iterator[list[Array]]:
    flat = [array.reshape(-1) for array in arrays]
    for i in range(0, flat[0].size, PIECE):
        yield [array[i : i + PIECE] for array in flat]


gated = primitive(gated_forward, joint=gated_joint, composed=composed.gated)


# Attention. Rows of a head group are ordered (token, head), so that a block of tokens is one slice.


def attention_forward(
    q: Array,
    k: Array,
    v: Array,
    *,
    cos: Array,
    sin: Array,
    heads: int,
    kv: int,
    window: int | None = None,
    scale: float | None = None,
    texts: Array | None = None,
) -> tuple[Array, Any]:
    tokens, each, d = q.shape[1], heads // kv, q.shape[2] // heads
    scale = d**-0.5 if scale is None else scale
    Q = by_group(turned(q, cos * scale, sin * scale), kv, d)
    K, V = by_group(turned(k, cos, sin), kv, d), by_group(v, kv, d)
    KT = np.ascontiguousarray(K.swapaxes(-1, -2))  # BLAS is faster with it
    largest = np.empty((*Q.shape[:-1], 1), Q.dtype) if may_overflow(Q, K) else None
    mixed = np.empty_like(Q)  # (batch, kv, tokens * each, d)
    sums = np.empty((*Q.shape[:-1], 1), Q.dtype)
    weights: list[Array | None] = []
    kept = 0
    for t, end, first, block in blocks(tokens, each, window):
        E = scores(Q[:, :, block], KT, t, end, first, each, window, texts)
        if largest is not None:
            np.max(E, axis=-1, keepdims=True, out=largest[:, :, block])
            E -= largest[:, :, block]
        np.exp(E, out=E)
        sums[:, :, block] = row_sums(E)
        np.matmul(E, V[:, :, first:end], out=mixed[:, :, block])
        kept += E.size
        weights.append(E if kept <= KEPT else None)
    mixed /= widened(sums, d)
    return by_token(mixed, each), (Q, K, V, mixed, weights, largest, sums)


def attention_joint(
    kept: Any,
    q: Array,
    k: Array,
    v: Array,
    *,
    wanted: tuple[bool, ...],
    cos: Array,
    sin: Array,
    heads: int,
    kv: int,
    window: int | None = None,
    scale: float | None = None,
    texts: Array | None = None,
) -> Any:
    batch, tokens, width = q.shape
    each, d = heads // kv, width // heads
    scale = d**-0.5 if scale is None else scale

    def pull(g: Array) -> tuple[Array | None, Array | None, Array | None]:
        Q, K, V, mixed, weights, largest, sums = kept
        KT = K.swapaxes(-1, -2)
        # The gradient of a score is its weight times (g V^T - their mean): one product with a column more.
        dmixed = np.empty((*Q.shape[:-1], d + 1), Q.dtype)
        weighted = by_group(g, kv, d) / widened(sums, d)
        dmixed[..., :d] = weighted
        weighted *= mixed
        np.negative(row_sums(weighted), out=dmixed[..., d:])
        V1T = np.ones((batch, kv, d + 1, tokens), V.dtype)
        V1T[..., :d, :] = V.swapaxes(-1, -2)
        dQ, dK, dV = np.empty_like(Q), np.zeros_like(K), np.zeros_like(V)
        for i, (t, end, first, block) in enumerate(blocks(tokens, each, window)):
            E, weights[i] = weights[i], None
            if E is None:
                E = scores(Q[:, :, block], KT, t, end, first, each, window, texts)
                if largest is not None:
                    E -= largest[:, :, block]
                np.exp(E, out=E)
            if wanted[0] or wanted[1]:
                dS = np.matmul(dmixed[:, :, block], V1T[..., first:end])
                dS *= E
            if wanted[2]:
                dV[:, :, first:end] += np.matmul(E.swapaxes(-1, -2), dmixed[:, :, block, :d])
            if wanted[0]:
                np.matmul(dS, K[:, :, first:end], out=dQ[:, :, block])
            if wanted[1]:
                dK[:, :, first:end] += np.matmul(dS.swapaxes(-1, -2), Q[:, :, block])
        return (
            turned(by_token(dQ, each), cos * scale, sin * -scale) if wanted[0] else None,
            turned(by_token(dK, 1), cos, -sin) if wanted[1] else None,
            by_token(dV, 1) if wanted[2] else None,
        )

    return pull


attention = primitive(attention_forward, joint=attention_joint, keeps=True, composed=composed.attention)


def may_overflow(Q: Array, K: Array) -> bool:
    """Whether a score may be too large for exp: none is larger than the longest q times the longest k.

    If none is, nothing needs to be subtracted from them first, which saves two passes over the scores.
    """
    d = Q.shape[-1]
    if d * largest_of(Q) * largest_of(K) < HARMLESS:  # fast, and usually enough
        return False
    longest_q, longest_k = (float(np.einsum("...i,...i->...", x, x).max()) for x in (Q, K))
    return not longest_q * longest_k < HARMLESS**2


def largest_of(x: Array) -> float:
    return max(float(x.max()), -float(x.min()))


def blocks(tokens: int, each: int, window: int | None) -> Any:
    """Blocks of queries: (first token, end, first key that one of them sees, rows)."""
    for t in range(0, tokens, BLOCK):
        end = min(t + BLOCK, tokens)
        first = 0 if window is None else max(0, t - window + 1)
        yield t, end, first, slice(t * each, end * each)


def scores(
    Q: Array, KT: Array, t: int, end: int, first: int, each: int, window: int | None, texts: Array | None
) -> Array:
    """``Q K^T`` of tokens t to end and the keys that they see, minus infinity where one does not."""
    S: Array = np.matmul(Q, KT[..., first:end])
    if window is None and t > 4 * BLOCK:  # before that, one pass over all keys is faster
        S[..., t:] += barred(end - t, end - t, each, None, S.dtype)
    else:
        S += barred(end - t, end - first, each, window, S.dtype)
    if texts is not None:
        other = texts[:, t:end, np.newaxis] != texts[:, np.newaxis, first:end]
        S += np.where(np.repeat(other, each, axis=1), -np.inf, 0).astype(S.dtype)[:, np.newaxis]
    return S


@functools.lru_cache(maxsize=32)
def barred(queries: int, keys: int, each: int, window: int | None, dtype: np.dtype[Any]) -> Array:
    mask = np.where(composed.visible(queries, keys, window), 0, -np.inf).astype(dtype)
    return np.repeat(mask, each, axis=0)


def by_group(x: Array, kv: int, d: int) -> Array:
    """(batch, tokens, kv * each * d) to (batch, kv, tokens * each, d)."""
    batch, tokens, _ = x.shape
    return x.reshape(batch, tokens, kv, -1, d).transpose(0, 2, 1, 3, 4).reshape(batch, kv, -1, d)


def by_token(x: Array, each: int) -> Array:
    """The inverse of `by_group`."""
    batch, kv, n, d = x.shape
    return x.reshape(batch, kv, -1, each, d).transpose(0, 2, 1, 3, 4).reshape(batch, n // each, -1)


def turned(x: Array, cos: Array, sin: Array) -> Array:
    """``x cos + x R sin`` for each head of x (batch, tokens, heads * d), where R turns a pair by 90 degrees.

    With ``-sin`` this is its transpose.
    """
    halves = x.reshape(*x.shape[:2], -1, 2, cos.shape[1])
    heads = halves.shape[2] if len(x) > 2 else 1  # for many texts, tables of x's width save passes
    cos, sin = (np.stack(pair, axis=1)[:, np.newaxis] for pair in ((cos, cos), (-sin, sin)))
    cos, sin = (np.repeat(table, heads, axis=1) for table in (cos, sin))
    y = np.empty_like(halves)
    texts = max(1, PIECE // cos.size)
    for i in range(0, len(x), texts):
        some, out = halves[i : i + texts], y[i : i + texts]
        some.take(SWAPPED, axis=-2, out=out, mode="clip")  # with this mode nothing is buffered
        out *= sin
        out += some * cos
    return y.reshape(x.shape)


# The head and its loss, for some rows of h and a part of the vocabulary at a time, so that logits stay in the
# cache. The gradient of h is computed along the way: the mean of W's rows, weighted by the softmax, minus the
# label's.


def head_forward(h: Array, W: Array | Quantised, *, labels: Array) -> tuple[Any, tuple[Array, Array, Array]]:
    h2, labels = rows(h), labels.reshape(-1)
    keep = np.flatnonzero(labels != composed.IGNORED)
    dh = np.zeros_like(h2)
    log_sum = np.empty((len(keep), 1), h.dtype)
    total = 0.0
    for part, some, wanted in some_rows(h2, labels, keep):
        largest, picked = np.full((len(some), 1), -np.inf, h.dtype), np.empty((len(some), 1), h.dtype)
        mean = sums = np.zeros((1, 1), h.dtype)
        for start, W_part in some_tokens(W, len(some)):
            z = some.dot(W_part.T)
            here = picks(wanted, start, len(W_part))
            picked[here[0], 0] = z[here]
            before, largest = largest, np.maximum(largest, z.max(axis=1, keepdims=True))
            z -= largest
            np.exp(z, out=z)
            shrunk = np.exp(before - largest)
            mean = z.dot(W_part) if start == 0 else mean * shrunk + z.dot(W_part)
            sums = sums * shrunk + row_sums(z)
        mean /= sums
        mean -= tokens_of(W, wanted)
        dh[keep[part]] = mean
        log_sum[part] = np.log(sums) + largest
        total += float(np.sum(largest - picked, dtype=np.float64) + np.sum(np.log(sums), dtype=np.float64))
    return np.asarray(total / len(keep), h.dtype), (dh.reshape(h.shape), keep, log_sum)


def head_joint(kept: Any, h: Array, W: Any, *, wanted: tuple[bool, ...], labels: Array) -> Any:
    dh, keep, log_sum = kept

    def pull(g: Array) -> tuple[Array | None, Array | None]:
        dW = None
        if wanted[1]:  # if the head is trained, its logits are recomputed
            dW = np.zeros_like(W)
            for part, some, chosen in some_rows(rows(h), labels.reshape(-1), keep):
                for start, W_part in some_tokens(W, len(some)):
                    z = some.dot(W_part.T)
                    z -= log_sum[part]
                    np.exp(z, out=z)
                    z[picks(chosen, start, len(W_part))] -= 1
                    dW[start : start + len(W_part)] += z.T.dot(some)
            dW *= float(g) / len(keep)
        return dh * (g / len(keep)) if wanted[0] else None, dW

    return pull


head_loss = primitive(head_forward, joint=head_joint, keeps=True, composed=composed.head_loss)


def some_rows(h: Array, labels: Array, keep: Array) -> Iterator[tuple[slice, Array, Array]]:
    """Rows of h that count, 1,024 at a time: (their places in ``keep``, the rows, their labels)."""
    for i in range(0, len(keep), ROWS):
        part = slice(i, i + ROWS)
        yield part, h[keep[part]], labels[keep[part]]


def some_tokens(W: Array | Quantised, n: int) -> Iterator[tuple[int, Array]]:
    """Rows of W, as many as make ``LOGITS`` logits with n rows of h: (the first, the rows)."""
    step = max(1, LOGITS // n)
    for start in range(0, W.shape[0], step):
        stop = min(start + step, W.shape[0])
        yield start, W.rows(np.arange(start, stop)) if isinstance(W, Quantised) else W[start:stop]


def tokens_of(W: Array | Quantised, tokens: Array) -> Array:
    return W.rows(tokens) if isinstance(W, Quantised) else W[tokens]


def picks(labels: Array, start: int, n: int) -> tuple[Array, Array]:
    """Where the labels are that lie among n tokens from ``start``: (rows, columns)."""
    column = labels - start
    row = np.flatnonzero((column >= 0) & (column < n))
    return row, column[row]


def row_sums(x: Array) -> Array:
    """Sums over the last axis, which is kept: BLAS adds faster than np.sum."""
    total: Array = rows(x).dot(ones(x.shape[-1], x.dtype))
    return total.reshape(*x.shape[:-1], 1)


@functools.lru_cache(maxsize=32)
def ones(n: int, dtype: np.dtype[Any]) -> Array:
    return np.ones(n, dtype)


def widened(column: Array, n: int) -> Array:
    """The column n times, side by side: working with it is then faster than broadcasting."""
    return np.repeat(column, n, axis=-1)


def rows(x: Array) -> Array:
    return x.reshape(-1, x.shape[-1])
