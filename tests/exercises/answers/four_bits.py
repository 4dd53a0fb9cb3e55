"""What is usually done wrong, and other ways to be right."""

import numpy as np

from tests.attempts import alternative, mistake


@mistake("the largest number, not the largest magnitude", breaks="scale")
def nearest_levels(w, levels):
    scale = w.max()
    return np.abs(w[:, None] - scale * levels).argmin(axis=1), scale


@mistake("divides by zero", breaks="nearest")
def nearest_levels(w, levels):
    scale = np.abs(w).max()
    with np.errstate(all="ignore"):
        return np.searchsorted(levels, w / scale), scale


@mistake("the next level below", breaks="nearest")
def nearest_levels(w, levels):
    scale = np.abs(w).max()
    return np.searchsorted(levels * scale, w, side="right") - 1, scale


@mistake("levels as if they were even", breaks="nearest")
def nearest_levels(w, levels):
    scale = np.abs(w).max()
    steps = (w / (scale or 1) + 1) / 2 * (len(levels) - 1)
    return np.rint(steps).astype(int), scale


@alternative("number by number")
def nearest_levels(w, levels):
    scale = max(abs(n) for n in w)
    return [min(range(len(levels)), key=lambda i: abs(n - scale * levels[i])) for n in w], scale


@mistake("one scale for all", breaks="read")
def read_in_blocks(codes, scales, levels, size):
    return levels[codes] * scales[0]


@mistake("the codes for the levels", breaks="read")
def read_in_blocks(codes, scales, levels, size):
    return codes * np.repeat(scales, size)[: len(codes)]


@mistake("blocks of equal size", breaks="read")
def read_in_blocks(codes, scales, levels, size):
    blocks = np.array_split(levels[codes], len(scales))
    return np.concatenate([scale * block for scale, block in zip(scales, blocks)])


@mistake("scales in turn", breaks="read")
def read_in_blocks(codes, scales, levels, size):
    return levels[codes] * np.tile(scales, size)[: len(codes)]


@mistake("the last block must be full", breaks="outlier")
def read_in_blocks(codes, scales, levels, size):
    return (levels[codes].reshape(-1, size) * scales[:, None]).ravel()


@alternative("number by number")
def read_in_blocks(codes, scales, levels, size):
    return [levels[code] * scales[i // size] for i, code in enumerate(codes)]


@mistake("without the scale of the layer", breaks="closest")
def repair(W, Q, r, alpha):
    U, s, Vh = np.linalg.svd(W - Q, full_matrices=False)
    return U[:, :r] * s[:r], Vh[:r]


@mistake("the SVD of the weight", breaks="closest")
def repair(W, Q, r, alpha):
    U, s, Vh = np.linalg.svd(W, full_matrices=False)
    return U[:, :r] * s[:r] * (r / alpha), Vh[:r]


@mistake("the other way round", breaks="smaller")
def repair(W, Q, r, alpha):
    U, s, Vh = np.linalg.svd(Q - W, full_matrices=False)
    return U[:, :r] * s[:r] * (r / alpha), Vh[:r]


@mistake("the last r columns and rows", breaks="closest")
def repair(W, Q, r, alpha):
    U, s, Vh = np.linalg.svd(W - Q, full_matrices=False)
    return U[:, -r:] * s[-r:] * (r / alpha), Vh[-r:]


@alternative("balanced")
def repair(W, Q, r, alpha):
    U, s, Vh = np.linalg.svd((W - Q) * (r / alpha), full_matrices=False)
    root = np.sqrt(s[:r])
    return U[:, :r] * root, root[:, None] * Vh[:r]


@mistake("a scale of one", breaks="scale")
def nearest_levels(w, levels):
    return np.abs(w[:, None] - levels).argmin(axis=1), 1.0


@mistake("the mean magnitude", breaks="scale")
def nearest_levels(w, levels):
    scale = np.abs(w).mean()
    return np.abs(w[:, None] - scale * levels).argmin(axis=1), scale


@mistake("half of the range", breaks="scale")
def nearest_levels(w, levels):
    scale = (w.max() - w.min()) / 2
    return np.abs(w[:, None] - scale * levels).argmin(axis=1), scale


@mistake("the level above", breaks="nearest")
def nearest_levels(w, levels):
    scale = np.abs(w).max()
    return np.minimum(np.searchsorted(levels * scale, w), len(levels) - 1), scale


@mistake("the farthest level", breaks="nearest")
def nearest_levels(w, levels):
    scale = np.abs(w).max()
    return np.abs(w[:, None] - scale * levels).argmax(axis=1), scale


@mistake("levels, not their indices", breaks="scale")
def nearest_levels(w, levels):
    scale = np.abs(w).max()
    return levels[np.abs(w[:, None] - scale * levels).argmin(axis=1)], scale


@mistake("magnitudes to magnitudes", breaks="nearest")
def nearest_levels(w, levels):
    scale = np.abs(w).max()
    return np.abs(np.abs(w)[:, None] - scale * levels).argmin(axis=1), scale


@mistake("the nearest number for each level", breaks="scale")
def nearest_levels(w, levels):
    scale = np.abs(w).max()
    return np.abs(w[:, None] - scale * levels).argmin(axis=0), scale


@mistake("one for the scale of zeros", breaks="scale")
def nearest_levels(w, levels):
    scale = np.abs(w).max() or 1.0
    return np.abs(w[:, None] - scale * levels).argmin(axis=1), scale


@alternative("halfway points")
def nearest_levels(w, levels):
    scale = np.abs(w).max()
    if scale == 0:
        return np.full(len(w), np.argmin(np.abs(levels))), 0.0
    return np.searchsorted((levels[1:] + levels[:-1]) / 2, w / scale), scale


@alternative("divided, where there is something to divide by")
def nearest_levels(w, levels):
    scale = max(w.max(), -w.min())
    part = w / scale if scale else w
    return np.argmin(np.abs(part[:, None] - levels[None, :]), axis=1), scale


@alternative("squares of distances")
def nearest_levels(w, levels):
    scale = np.linalg.norm(w, np.inf)
    return ((np.subtract.outer(w, scale * levels)) ** 2).argmin(axis=1), scale


@alternative("a loop over levels")
def nearest_levels(w, levels):
    scale = np.max(np.abs(w))
    codes, best = np.zeros(len(w), dtype=int), np.full(len(w), np.inf)
    for i, level in enumerate(levels):
        distance = np.abs(w - scale * level)
        codes = np.where(distance < best, i, codes)
        best = np.minimum(distance, best)
    return codes, scale


@mistake("a scale for each index", breaks="read")
def read_in_blocks(codes, scales, levels, size):
    return levels[codes] * np.resize(scales, len(codes))


@mistake("the next block's scale", breaks="read")
def read_in_blocks(codes, scales, levels, size):
    return levels[codes] * np.roll(np.repeat(scales, size), -1)[: len(codes)]


@mistake("divided by the scale", breaks="read")
def read_in_blocks(codes, scales, levels, size):
    return levels[codes] / np.repeat(scales, size)[: len(codes)]


@mistake("without scales", breaks="read")
def read_in_blocks(codes, scales, levels, size):
    return levels[codes]


@mistake("the largest scale", breaks="read")
def read_in_blocks(codes, scales, levels, size):
    return levels[codes] * scales.max()


@mistake("the last block left out", breaks="read")
def read_in_blocks(codes, scales, levels, size):
    full = len(codes) // size * size
    return levels[codes[:full]] * np.repeat(scales, size)[:full]


@mistake("the last numbers of the scales", breaks="read")
def read_in_blocks(codes, scales, levels, size):
    return levels[codes] * np.repeat(scales, size)[-len(codes) :]


@mistake("padded to full blocks", breaks="read")
def read_in_blocks(codes, scales, levels, size):
    wide = np.pad(codes, (0, len(scales) * size - len(codes)))
    return levels[wide] * np.repeat(scales, size)


@alternative("indices of blocks")
def read_in_blocks(codes, scales, levels, size):
    return levels[codes] * scales[np.arange(len(codes)) // size]


@alternative("block by block")
def read_in_blocks(codes, scales, levels, size):
    starts = range(0, len(codes), size)
    return np.concatenate([levels[codes[i : i + size]] * s for i, s in zip(starts, scales)])


@alternative("padded, reshaped and cut")
def read_in_blocks(codes, scales, levels, size):
    wide = np.pad(codes, (0, len(scales) * size - len(codes)))
    return (levels[wide].reshape(-1, size) * scales[:, None]).ravel()[: len(codes)]


@alternative("in place")
def read_in_blocks(codes, scales, levels, size):
    result = np.take(levels, codes).astype(float)
    for i, scale in enumerate(scales):
        result[i * size : (i + 1) * size] *= scale
    return result


@mistake("alpha over r on both sides", breaks="closest")
def repair(W, Q, r, alpha):
    U, s, Vh = np.linalg.svd(W - Q, full_matrices=False)
    return U[:, :r] * s[:r] * (r / alpha), Vh[:r] * (r / alpha)


@mistake("multiplied by the scale", breaks="closest")
def repair(W, Q, r, alpha):
    U, s, Vh = np.linalg.svd(W - Q, full_matrices=False)
    return U[:, :r] * s[:r] * (alpha / r), Vh[:r]


@mistake("the SVD of what is left", breaks="closest")
def repair(W, Q, r, alpha):
    U, s, Vh = np.linalg.svd(Q, full_matrices=False)
    return U[:, :r] * s[:r] * (r / alpha), Vh[:r]


@mistake("nothing repaired", breaks="closest")
def repair(W, Q, r, alpha):
    return np.zeros((len(W), r)), np.random.default_rng(0).normal(size=(r, W.shape[1]))


@mistake("divided by alpha alone", breaks="closest")
def repair(W, Q, r, alpha):
    U, s, Vh = np.linalg.svd(W - Q, full_matrices=False)
    return U[:, :r] * s[:r] / alpha, Vh[:r]


@mistake("a QR of what was lost", breaks="closest")
def repair(W, Q, r, alpha):
    B, R = np.linalg.qr(W - Q)
    return B[:, :r], R[:r] * (r / alpha)


@mistake("the whole loss", breaks="closest")
def repair(W, Q, r, alpha):
    return (W - Q) * (r / alpha), np.eye(W.shape[1])


@mistake("the singular values forgotten", breaks="closest")
def repair(W, Q, r, alpha):
    U, s, Vh = np.linalg.svd(W - Q, full_matrices=False)
    return U[:, :r] * (r / alpha), Vh[:r]


@alternative("all in A")
def repair(W, Q, r, alpha):
    U, s, Vh = np.linalg.svd(W - Q)
    return U[:, :r], s[:r, None] * Vh[:r] / (alpha / r)


@alternative("projected on the best directions")
def repair(W, Q, r, alpha):
    lost = W - Q
    U = np.linalg.svd(lost, full_matrices=False)[0][:, :r]
    return U * (r / alpha), U.T @ lost


@alternative("on the best inputs")
def repair(W, Q, r, alpha):
    lost = (W - Q) / (alpha / r)
    V = np.linalg.svd(lost, full_matrices=False)[2][:r]
    return lost @ V.T, V


@alternative("both negative")
def repair(W, Q, r, alpha):
    U, s, Vh = np.linalg.svd(Q - W, full_matrices=False)
    return -U[:, :r] * s[:r] * r / alpha, Vh[:r]
