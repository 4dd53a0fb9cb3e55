"""The operations of `composed`, one primitive each: what a step on real text spends its time in.

They save what composing costs in passes over memory: attention never normalises its weights and skips what no
token may see, the head makes its logits a few rows at a time, and shared work is done once. Laws in the tests
hold values and gradients equal to the composed texts.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from lora_np.autograd import primitive
from lora_np.checks import Array
from lora_np.language import composed

BLOCK = 64  # queries at a time
KEPT = 2**24  # numbers: attention weights beyond that are made again on the way back
LOGITS = 2**21  # numbers: the head's rows at a time


# RMSNorm


def norm_forward(x: Array, W: Array, *, eps: float) -> tuple[Array, Array]:
    inverse = np.vecdot(x, x)[..., np.newaxis]
    inverse /= x.shape[-1]
    inverse += eps
    np.sqrt(inverse, out=inverse)
    np.reciprocal(inverse, out=inverse)
    y = x * inverse
    y *= W
    return y, inverse


def norm_joint(inverse: Array, x: Array, W: Array, *, wanted: tuple[bool, ...], eps: float) -> Any:
    def pull(g: Array) -> tuple[Array | None, Array | None]:
        gx = gW = None
        if wanted[1]:
            gW = np.einsum("ij,ij,i->j", rows(g), rows(x), inverse.ravel())
        if wanted[0]:
            gx = g * W
            mean = np.vecdot(gx, x)[..., np.newaxis]
            mean *= inverse
            mean *= inverse
            mean /= x.shape[-1]
            gx -= x * mean
            gx *= inverse
        return gx, gW

    return pull


rms_norm = primitive(norm_forward, joint=norm_joint, keeps=True, composed=composed.rms_norm)


# The gated unit


def gated_forward(gate: Array, up: Array) -> tuple[Array, tuple[Array, Array]]:
    s = np.negative(gate)
    np.minimum(s, 80, out=s)  # exp overflows in float32 from 89 on; sigmoid(-80) is 1e-35
    np.exp(s, out=s)
    s += 1
    np.reciprocal(s, out=s)
    silu = gate * s
    return silu * up, (s, silu)


def gated_joint(kept: tuple[Array, Array], gate: Array, up: Array, *, wanted: tuple[bool, ...]) -> Any:
    s, silu = kept

    def pull(g: Array) -> tuple[Array | None, Array | None]:
        dgate = None
        if wanted[0]:
            dgate = gate - silu  # silu' = s (1 + gate - silu)
            dgate += 1
            dgate *= s
            dgate *= up
            dgate *= g
        return dgate, g * silu if wanted[1] else None

    return pull


gated = primitive(gated_forward, joint=gated_joint, keeps=True, composed=composed.gated)


# Attention. Rows of a head group are ordered (token, head), so that a block of tokens is one slice.


def attention_forward(
    q: Array, k: Array, v: Array, *, cos: Array, sin: Array, heads: int, kv: int, window: int | None = None
) -> tuple[Array, Any]:
    batch, tokens, width = q.shape
    each, d = heads // kv, width // heads
    Q = turned(q, cos, sin, kv, each, d**-0.5)
    K = turned(k, cos, sin, kv, 1)
    V = np.ascontiguousarray(v.reshape(batch, tokens, kv, d).transpose(0, 2, 1, 3))
    mixed = np.empty_like(Q)  # (batch, kv, tokens * each, d)
    largest, sums = np.empty((2, *Q.shape[:-1], 1), Q.dtype)
    weights: list[Array | None] = []
    kept = 0
    for t, end, first, block in blocks(tokens, each, window):
        S = scores(Q[:, :, block], K, t, end, first, each, window)
        np.max(S, axis=-1, keepdims=True, out=largest[:, :, block])
        S -= largest[:, :, block]
        np.exp(S, out=S)
        np.sum(S, axis=-1, keepdims=True, out=sums[:, :, block])
        np.matmul(S, V[:, :, first:end], out=mixed[:, :, block])
        kept += S.size
        weights.append(S if kept <= KEPT else None)
    mixed /= sums
    y = mixed.reshape(batch, kv, tokens, each, d).transpose(0, 2, 1, 3, 4).reshape(batch, tokens, width)
    return y, (Q, K, V, mixed, weights, largest, sums)


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
) -> Any:
    batch, tokens, width = q.shape
    each, d = heads // kv, width // heads

    def pull(g: Array) -> tuple[Array, Array, Array]:
        Q, K, V, mixed, weights, largest, sums = kept
        dmixed = g.reshape(batch, tokens, kv, each, d).transpose(0, 2, 1, 3, 4).reshape(Q.shape) / sums
        mean = np.vecdot(dmixed, mixed)[..., np.newaxis]  # sum over keys of weight times its gradient
        dQ, dK, dV = np.empty_like(Q), np.zeros_like(K), np.zeros_like(V)
        VT = V.swapaxes(-1, -2)
        for i, (t, end, first, block) in enumerate(blocks(tokens, each, window)):
            E, weights[i] = weights[i], None
            if E is None:
                E = scores(Q[:, :, block], K, t, end, first, each, window)
                E -= largest[:, :, block]
                np.exp(E, out=E)
            dm = dmixed[:, :, block]
            dV[:, :, first:end] += np.matmul(E.swapaxes(-1, -2), dm)
            dS = np.matmul(dm, VT[..., first:end])
            dS -= mean[:, :, block]
            dS *= E
            np.matmul(dS, K[:, :, first:end], out=dQ[:, :, block])
            dK[:, :, first:end] += np.matmul(dS.swapaxes(-1, -2), Q[:, :, block])
        return (
            turned_back(dQ, cos, sin, each, d**-0.5),
            turned_back(dK, cos, sin, 1),
            dV.transpose(0, 2, 1, 3).reshape(v.shape),
        )

    return pull


attention = primitive(attention_forward, joint=attention_joint, keeps=True, composed=composed.attention)


def blocks(tokens: int, each: int, window: int | None) -> Any:
    """Blocks of queries: (first token, end, first key that one of them sees, rows)."""
    for t in range(0, tokens, BLOCK):
        end = min(t + BLOCK, tokens)
        first = 0 if window is None else max(0, t - window + 1)
        yield t, end, first, slice(t * each, end * each)


def scores(Q: Array, K: Array, t: int, end: int, first: int, each: int, window: int | None) -> Array:
    """``Q K^T`` of tokens t to end and the keys that they see, minus infinity where one does not."""
    S: Array = np.matmul(Q, K[:, :, first:end].swapaxes(-1, -2))
    if window is None:
        S[..., t:] += barred(end - t, end - t, each, None, S.dtype)
    else:
        S += barred(end - t, end - first, each, window, S.dtype)
    return S


@functools.lru_cache(maxsize=32)
def barred(queries: int, keys: int, each: int, window: int | None, dtype: np.dtype[Any]) -> Array:
    mask = np.where(composed.visible(queries, keys, window), 0, -np.inf).astype(dtype)
    return np.repeat(mask, each, axis=0)


def turned(x: Array, cos: Array, sin: Array, kv: int, each: int, scale: float = 1.0) -> Array:
    """Rotated and scaled heads: (batch, tokens, kv * each * d) to (batch, kv, tokens * each, d)."""
    batch, tokens, width = x.shape
    d = width // (kv * each)
    y = np.empty((batch, kv, tokens, each, d), x.dtype)
    turn(x.reshape(batch, tokens, kv, each, d).transpose(0, 2, 1, 3, 4), y, cos * scale, sin * scale)
    return y.reshape(batch, kv, tokens * each, d)


def turned_back(g: Array, cos: Array, sin: Array, each: int, scale: float = 1.0) -> Array:
    """The transpose of `turned`: the same with the opposite angle, the other way round."""
    batch, kv, n, d = g.shape
    tokens = n // each
    y = np.empty((batch, tokens, kv, each, d), g.dtype)
    turn(g.reshape(batch, kv, tokens, each, d), y.transpose(0, 2, 1, 3, 4), cos * scale, sin * -scale)
    return y.reshape(batch, tokens, kv * each * d)


def turn(x: Array, y: Array, cos: Array, sin: Array) -> None:
    """Write x (batch, kv, tokens, each, d), rotated, into y."""
    half = x.shape[-1] // 2
    cos, sin = cos[:, np.newaxis], sin[:, np.newaxis]
    a, b, ya, yb = x[..., :half], x[..., half:], y[..., :half], y[..., half:]
    np.multiply(a, cos, out=ya)
    ya -= b * sin
    np.multiply(b, cos, out=yb)
    yb += a * sin


# The head and its loss. The gradient of h is made in the forward pass, while the logits are in memory.


def head_forward(
    h: Array, W: Array, *, labels: Array, ignore: int = -100
) -> tuple[Any, tuple[Array, Array, Array]]:
    h2, labels = rows(h), labels.reshape(-1)
    keep = np.flatnonzero(labels != ignore)
    dh = np.zeros_like(h2)
    log_sum = np.empty((len(keep), 1), h.dtype)
    total = 0.0
    for part, chosen in chunks(keep, W):
        z = h2[chosen].dot(W.T)
        at = np.arange(len(chosen)), labels[chosen]
        largest = z.max(axis=1, keepdims=True)
        z -= largest
        total -= float(z[at].sum(dtype=np.float64))
        np.exp(z, out=z)
        sums = z.sum(axis=1, keepdims=True)
        total += float(np.log(sums).sum(dtype=np.float64))
        log_sum[part] = largest + np.log(sums)
        z /= sums
        z[at] -= 1
        dh[chosen] = z.dot(W)
    dh /= len(keep)
    return np.asarray(total / len(keep), h.dtype), (dh.reshape(h.shape), keep, log_sum)


def head_joint(
    kept: tuple[Array, Array, Array],
    h: Array,
    W: Array,
    *,
    wanted: tuple[bool, ...],
    labels: Array,
    ignore: int = -100,
) -> Any:
    dh, keep, log_sum = kept

    def pull(g: Array) -> tuple[Array | None, Array | None]:
        dW = None
        if wanted[1]:  # where the head is trained, its logits are made again
            dW, h2, targets = np.zeros_like(W), rows(h), labels.reshape(-1)
            for part, chosen in chunks(keep, W):
                z = h2[chosen].dot(W.T)
                z -= log_sum[part]
                np.exp(z, out=z)
                z[np.arange(len(chosen)), targets[chosen]] -= 1
                dW += z.T.dot(h2[chosen])
            dW *= float(g) / len(keep)
        return dh * g if wanted[0] else None, dW

    return pull


head_loss = primitive(head_forward, joint=head_joint, keeps=True, composed=composed.head_loss)


# A quantised head has numbers for the time of the forward pass, where the gradient of h is made too.
quantised_head_loss = primitive(
    lambda h, *, W, labels, ignore=-100: head_forward(h, W.dequantised(), labels=labels, ignore=ignore),
    lambda kept, h, *, W, labels, ignore=-100: lambda g: kept[0] * g,
    keeps=True,
    composed=lambda h, *, W, labels, ignore=-100: composed.head_loss(
        h, W.dequantised(), labels=labels, ignore=ignore
    ),
)


def chunks(keep: Array, W: Array) -> Any:
    """Rows of logits that fit together: (their places in ``keep``, ``keep`` there)."""
    step = max(1, LOGITS // len(W))
    for i in range(0, len(keep), step):
        part = slice(i, i + step)
        yield part, keep[part]


def rows(x: Array) -> Array:
    return x.reshape(-1, x.shape[-1])
