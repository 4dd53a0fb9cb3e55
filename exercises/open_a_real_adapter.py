"""What is usually done wrong, and other ways to be right."""

import numpy as np

from lora_np.grading import alternative, mistake


@mistake("no prefix", breaks="keys")
def peft_tensors(adapters):
    tensors = {}
    for path, (B, A) in adapters.items():
        tensors[f"{path}.lora_A.weight"] = A
        tensors[f"{path}.lora_B.weight"] = B
    return tensors


@mistake("A and B exchanged", breaks="factors")
def peft_tensors(adapters):
    tensors = {}
    for path, (B, A) in adapters.items():
        tensors[f"base_model.model.{path}.lora_A.weight"] = B
        tensors[f"base_model.model.{path}.lora_B.weight"] = A
    return tensors


@mistake("no .weight", breaks="keys")
def peft_tensors(adapters):
    tensors = {}
    for path, (B, A) in adapters.items():
        tensors[f"base_model.model.{path}.lora_A"] = A
        tensors[f"base_model.model.{path}.lora_B"] = B
    return tensors


@mistake("the update as well", breaks="keys")
def peft_tensors(adapters):
    tensors = {}
    for path, (B, A) in adapters.items():
        tensors[f"base_model.model.{path}.lora_A.weight"] = A
        tensors[f"base_model.model.{path}.lora_B.weight"] = B
        tensors[f"base_model.model.{path}.delta"] = B @ A
    return tensors


@mistake("transposed", breaks="factors")
def peft_tensors(adapters):
    tensors = {}
    for path, (B, A) in adapters.items():
        tensors[f"base_model.model.{path}.lora_A.weight"] = A.T
        tensors[f"base_model.model.{path}.lora_B.weight"] = B.T
    return tensors


@mistake("weights on both factors", breaks="sum")
def combine_adapters(adapters, weights):
    columns = [w * alpha / B.shape[1] * B for w, (B, A, alpha) in zip(weights, adapters)]
    rows = [w * A for w, (B, A, alpha) in zip(weights, adapters)]
    return np.concatenate(columns, axis=1), np.concatenate(rows)


@mistake("factors added", breaks="ranks")
def combine_adapters(adapters, weights):
    widest = max(B.shape[1] for B, A, alpha in adapters)
    B = sum(np.pad(w * B, ((0, 0), (0, widest - B.shape[1]))) for w, (B, A, alpha) in zip(weights, adapters))
    A = sum(np.pad(A, ((0, widest - len(A)), (0, 0))) for B, A, alpha in adapters)
    return B, A


@mistake("forgets alpha / r", breaks="sum")
def combine_adapters(adapters, weights):
    columns = [w * B for w, (B, A, alpha) in zip(weights, adapters)]
    return np.concatenate(columns, axis=1), np.concatenate([A for B, A, alpha in adapters])


@mistake("alpha / r with the sum of all ranks", breaks="sum")
def combine_adapters(adapters, weights):
    total = sum(B.shape[1] for B, A, alpha in adapters)
    columns = [w * alpha / total * B for w, (B, A, alpha) in zip(weights, adapters)]
    return np.concatenate(columns, axis=1), np.concatenate([A for B, A, alpha in adapters])


@mistake("the sum as a d x k matrix, and its SVD", breaks="ranks")
def combine_adapters(adapters, weights):
    ranks = sum(B.shape[1] for B, A, alpha in adapters)
    update = sum(w * alpha / B.shape[1] * B @ A for w, (B, A, alpha) in zip(weights, adapters))
    U, s, Vh = np.linalg.svd(update, full_matrices=False)
    more = max(0, ranks - len(s))
    columns, rows = np.pad(U * s, ((0, 0), (0, more))), np.pad(Vh, ((0, more), (0, 0)))
    return columns[:, :ranks], rows[:ranks]


@mistake("roots of the weights", breaks="ranks")
def combine_adapters(adapters, weights):
    with np.errstate(all="ignore"):
        columns = [np.sqrt(w * alpha / B.shape[1]) * B for w, (B, A, alpha) in zip(weights, adapters)]
        rows = [np.sqrt(w * alpha / B.shape[1]) * A for w, (B, A, alpha) in zip(weights, adapters)]
    return np.concatenate(columns, axis=1), np.concatenate(rows)


@mistake("the first r columns and rows", breaks="closest")
def resize_adapter(B, A, r):
    return B[:, :r], A[:r]


@mistake("each factor cut by itself", breaks="closest")
def resize_adapter(B, A, r):
    U, s, Vh = np.linalg.svd(B, full_matrices=False)
    return U[:, :r] * s[:r], Vh[:r] @ A


@mistake("singular values on both sides", breaks="closest")
def resize_adapter(B, A, r):
    U, s, Vh = np.linalg.svd(B @ A, full_matrices=False)
    return U[:, :r] * s[:r], s[:r, None] * Vh[:r]


@mistake("the small matrix alone", breaks="closest")
def resize_adapter(B, A, r):
    U, s, Vh = np.linalg.svd(np.linalg.qr(B)[1] @ np.linalg.qr(A.T)[1].T)
    return U[:, :r] * s[:r], Vh[:r]


@mistake("a transpose missing in the middle", breaks="closest")
def resize_adapter(B, A, r):
    QB, RB = np.linalg.qr(B)
    QA, RA = np.linalg.qr(A.T)
    U, s, Vh = np.linalg.svd(RB @ RA)
    return QB @ U[:, :r] * s[:r], Vh[:r] @ QA.T


@mistake("drops the bits", breaks="nearest")
def to_bfloat16(x):
    return (x.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)


@mistake("halfway always up", breaks="ties")
def to_bfloat16(x):
    return ((x.view(np.uint32) + np.uint32(0x8000)) & np.uint32(0xFFFF0000)).view(np.float32)


@mistake("halfway always down", breaks="ties")
def to_bfloat16(x):
    return ((x.view(np.uint32) + np.uint32(0x7FFF)) & np.uint32(0xFFFF0000)).view(np.float32)


@mistake("float16", breaks="kept")
def to_bfloat16(x):
    with np.errstate(all="ignore"):
        return x.astype(np.float16).astype(np.float32)


@mistake("a grid of 1/128, whatever the size", breaks="kept")
def to_bfloat16(x):
    return (np.rint(x.astype(np.float64) * 128) / 128).astype(np.float32)


@mistake("leaves it as it is", breaks="nearest")
def to_bfloat16(x):
    return x


@mistake("the last r columns and rows", breaks="closest")
def resize_adapter(B, A, r):
    return B[:, -r:], A[-r:]


@mistake("the SVD of the product", breaks="thin")
def resize_adapter(B, A, r):
    U, s, Vh = np.linalg.svd(B @ A, full_matrices=False)
    return U[:, :r] * s[:r], Vh[:r]


@alternative("weights and scales on A")
def combine_adapters(adapters, weights):
    B = np.hstack([B for B, _, _ in adapters])
    return B, np.vstack([w * alpha / len(A) * A for w, (_, A, alpha) in zip(weights, adapters)])


@alternative("all singular values in A")
def resize_adapter(B, A, r):
    Q, R = np.linalg.qr(B)
    U, s, Vh = np.linalg.svd(R @ A, full_matrices=False)
    return Q @ U[:, :r], s[:r, None] * Vh[:r]


@alternative("by mantissa and exponent")
def to_bfloat16(x):
    mantissa, exponent = np.frexp(x.astype(np.float64))
    return np.ldexp(np.rint(256 * mantissa), exponent - 8).astype(np.float32)
