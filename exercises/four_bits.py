"""What is usually done wrong, and other ways to be right."""

import numpy as np

from lora_np.grading import alternative, mistake


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
