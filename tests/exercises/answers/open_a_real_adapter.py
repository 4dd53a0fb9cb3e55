"""What is usually done wrong, and other ways to be right."""

import numpy as np

from tests.attempts import alternative, mistake


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
    B = sum(
        np.pad(w * B, ((0, 0), (0, widest - B.shape[1])))
        for w, (B, A, alpha) in zip(weights, adapters)
    )
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
        columns = [
            np.sqrt(w * alpha / B.shape[1]) * B for w, (B, A, alpha) in zip(weights, adapters)
        ]
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


@mistake("one model in the prefix", breaks="keys")
def peft_tensors(adapters):
    tensors = {}
    for path, (B, A) in adapters.items():
        tensors[f"base_model.{path}.lora_A.weight"] = A
        tensors[f"base_model.{path}.lora_B.weight"] = B
    return tensors


@mistake("the path without its own model", breaks="keys")
def peft_tensors(adapters):
    tensors = {}
    for path, (B, A) in adapters.items():
        path = path.removeprefix("model.")
        tensors[f"base_model.model.{path}.lora_A.weight"] = A
        tensors[f"base_model.model.{path}.lora_B.weight"] = B
    return tensors


@mistake("the last part of the path", breaks="keys")
def peft_tensors(adapters):
    tensors = {}
    for path, (B, A) in adapters.items():
        tensors[f"base_model.model.{path.split('.')[-1]}.lora_A.weight"] = A
        tensors[f"base_model.model.{path.split('.')[-1]}.lora_B.weight"] = B
    return tensors


@mistake("small letters", breaks="keys")
def peft_tensors(adapters):
    tensors = {}
    for path, (B, A) in adapters.items():
        tensors[f"base_model.model.{path}.lora_a.weight"] = A
        tensors[f"base_model.model.{path}.lora_b.weight"] = B
    return tensors


@mistake("the name of an adapter in the key", breaks="keys")
def peft_tensors(adapters):
    tensors = {}
    for path, (B, A) in adapters.items():
        tensors[f"base_model.model.{path}.lora_A.default.weight"] = A
        tensors[f"base_model.model.{path}.lora_B.default.weight"] = B
    return tensors


@mistake("the last layer only", breaks="keys")
def peft_tensors(adapters):
    for path, (B, A) in adapters.items():
        tensors = {
            f"base_model.model.{path}.lora_A.weight": A,
            f"base_model.model.{path}.lora_B.weight": B,
        }
    return tensors


@mistake("only A", breaks="keys")
def peft_tensors(adapters):
    return {f"base_model.model.{path}.lora_A.weight": A for path, (B, A) in adapters.items()}


@mistake("the update in place of B", breaks="factors")
def peft_tensors(adapters):
    tensors = {}
    for path, (B, A) in adapters.items():
        tensors[f"base_model.model.{path}.lora_A.weight"] = A
        tensors[f"base_model.model.{path}.lora_B.weight"] = B @ A
    return tensors


@alternative("two comprehensions")
def peft_tensors(adapters):
    of_A = {f"base_model.model.{path}.lora_A.weight": pair[1] for path, pair in adapters.items()}
    return of_A | {
        f"base_model.model.{path}.lora_B.weight": pair[0] for path, pair in adapters.items()
    }


@alternative("names and factors side by side")
def peft_tensors(adapters):
    return {
        f"base_model.model.{path}.lora_{name}.weight": factor
        for path, pair in adapters.items()
        for name, factor in zip("BA", pair)
    }


@alternative("joined parts")
def peft_tensors(adapters):
    tensors = {}
    for path in sorted(adapters):
        B, A = adapters[path]
        key = ".".join(["base_model", "model", path])
        tensors.update({key + ".lora_A.weight": A.copy(), key + ".lora_B.weight": B.copy()})
    return tensors


@alternative("str.format")
def peft_tensors(adapters):
    pattern = "base_model.model.{}.lora_{}.weight"
    return dict(
        item
        for path, (B, A) in adapters.items()
        for item in ((pattern.format(path, "A"), A), (pattern.format(path, "B"), B))
    )


@mistake("alpha without its rank", breaks="sum")
def combine_adapters(adapters, weights):
    scaled = [w * alpha * B for w, (B, A, alpha) in zip(weights, adapters)]
    return np.concatenate(scaled, axis=1), np.concatenate([A for B, A, alpha in adapters])


@mistake("without the weights", breaks="sum")
def combine_adapters(adapters, weights):
    scaled = [alpha / B.shape[1] * B for w, (B, A, alpha) in zip(weights, adapters)]
    return np.concatenate(scaled, axis=1), np.concatenate([A for B, A, alpha in adapters])


@mistake("the weights without their signs", breaks="sum")
def combine_adapters(adapters, weights):
    scaled = [abs(w) * alpha / B.shape[1] * B for w, (B, A, alpha) in zip(weights, adapters)]
    return np.concatenate(scaled, axis=1), np.concatenate([A for B, A, alpha in adapters])


@mistake("the rank of the first for all", breaks="sum")
def combine_adapters(adapters, weights):
    r = adapters[0][0].shape[1]
    scaled = [w * alpha / r * B for w, (B, A, alpha) in zip(weights, adapters)]
    return np.concatenate(scaled, axis=1), np.concatenate([A for B, A, alpha in adapters])


@mistake("weights that add up to one", breaks="sum")
def combine_adapters(adapters, weights):
    total = sum(weights) or 1
    scaled = [w / total * alpha / B.shape[1] * B for w, (B, A, alpha) in zip(weights, adapters)]
    return np.concatenate(scaled, axis=1), np.concatenate([A for B, A, alpha in adapters])


@mistake("the order of A turned around", breaks="sum")
def combine_adapters(adapters, weights):
    scaled = [w * alpha / B.shape[1] * B for w, (B, A, alpha) in zip(weights, adapters)]
    return np.concatenate(scaled, axis=1), np.concatenate([A for B, A, alpha in adapters[::-1]])


@mistake("d for the rank", breaks="sum")
def combine_adapters(adapters, weights):
    scaled = [w * alpha / len(B) * B for w, (B, A, alpha) in zip(weights, adapters)]
    return np.concatenate(scaled, axis=1), np.concatenate([A for B, A, alpha in adapters])


@mistake("the update and an identity", breaks="ranks")
def combine_adapters(adapters, weights):
    update = sum(w * alpha / B.shape[1] * B @ A for w, (B, A, alpha) in zip(weights, adapters))
    return update, np.eye(update.shape[1])


@alternative("filled in place by place")
def combine_adapters(adapters, weights):
    d, k = len(adapters[0][0]), adapters[0][1].shape[1]
    total = sum(len(A) for _, A, _ in adapters)
    B_all, A_all, start = np.zeros((d, total)), np.zeros((total, k)), 0
    for w, (B, A, alpha) in zip(weights, adapters):
        end = start + len(A)
        B_all[:, start:end], A_all[start:end] = B * (w * alpha / len(A)), A
        start = end
    return B_all, A_all


@alternative("roots of the scale on both sides")
def combine_adapters(adapters, weights):
    roots = [np.sqrt(abs(w) * alpha / len(A)) for w, (_, A, alpha) in zip(weights, adapters)]
    B = np.hstack([np.sign(w) * s * B for w, s, (B, _, _) in zip(weights, roots, adapters)])
    return B, np.vstack([s * A for s, (_, A, _) in zip(roots, adapters)])


@alternative("in reverse, both of them")
def combine_adapters(adapters, weights):
    pairs = list(zip(weights, adapters))[::-1]
    B = np.concatenate([w * alpha / len(A) * B for w, (B, A, alpha) in pairs], axis=1)
    return B, np.concatenate([A for _, (_, A, _) in pairs])


@alternative("one column after the other")
def combine_adapters(adapters, weights):
    columns, rows = [], []
    for w, (B, A, alpha) in zip(weights, adapters):
        for column, row in zip(B.T, A):
            columns.append(w * alpha / len(A) * column)
            rows.append(row)
    return np.array(columns).T, np.array(rows)


@mistake("the strongest columns of B", breaks="closest")
def resize_adapter(B, A, r):
    best = np.argsort(-np.linalg.norm(B, axis=0) * np.linalg.norm(A, axis=1))[:r]
    return B[:, best], A[best]


@mistake("padded back to the old rank", breaks="closest")
def resize_adapter(B, A, r):
    QB, RB = np.linalg.qr(B)
    QA, RA = np.linalg.qr(A.T)
    U, s, Vh = np.linalg.svd(RB @ RA.T, full_matrices=False)
    s[r:] = 0
    return QB @ U * s, Vh @ QA.T


@mistake("the small matrix from one side", breaks="closest")
def resize_adapter(B, A, r):
    QB, RB = np.linalg.qr(B)
    U, s, Vh = np.linalg.svd(RB, full_matrices=False)
    return QB @ U[:, :r] * s[:r], Vh[:r] @ A


@mistake("the singular values forgotten", breaks="closest")
def resize_adapter(B, A, r):
    QB, RB = np.linalg.qr(B)
    QA, RA = np.linalg.qr(A.T)
    U, s, Vh = np.linalg.svd(RB @ RA.T, full_matrices=False)
    return QB @ U[:, :r], Vh[:r] @ QA.T


@mistake("a QR, cut", breaks="closest")
def resize_adapter(B, A, r):
    Q, R = np.linalg.qr(B)
    return Q[:, :r], R[:r] @ A


@mistake("an average of columns", breaks="closest")
def resize_adapter(B, A, r):
    old = len(A)
    P = np.zeros((old, r))
    P[np.arange(old), np.arange(old) * r // old] = 1
    return B @ P, np.linalg.pinv(P) @ A


@mistake("the update and its first rows", breaks="closest")
def resize_adapter(B, A, r):
    return (B @ A)[:, :r], np.eye(r, A.shape[1])


@alternative("eigenvectors of a small matrix")
def resize_adapter(B, A, r):
    QA, RA = np.linalg.qr(A.T)
    QB, RB = np.linalg.qr(B)
    U, s, Vh = np.linalg.svd(RA @ RB.T, full_matrices=False)
    return QB @ Vh[:r].T * s[:r], (QA @ U[:, :r]).T


@alternative("balanced")
def resize_adapter(B, A, r):
    QB, RB = np.linalg.qr(B)
    QA, RA = np.linalg.qr(A.T)
    U, s, Vh = np.linalg.svd(RB @ RA.T)
    root = np.sqrt(s[:r])
    return QB @ (U[:, :r] * root), (root[:, None] * Vh[:r]) @ QA.T


@alternative("one QR, of A")
def resize_adapter(B, A, r):
    Q, R = np.linalg.qr(A.T)
    U, s, Vh = np.linalg.svd(B @ R.T, full_matrices=False)
    return U[:, :r] * s[:r], Vh[:r] @ Q.T


@alternative("projects B on the best directions")
def resize_adapter(B, A, r):
    Q, R = np.linalg.qr(B)
    U = Q @ np.linalg.svd(R @ A, full_matrices=False)[0][:, :r]
    return U, (U.T @ B) @ A


@mistake("vectors only", breaks="kept")
def to_bfloat16(x):
    flat = [x.view(np.uint32)] if x.ndim == 0 else x.view(np.uint32)
    result = np.zeros(x.shape, np.float32)
    for i in range(len(flat)):
        bits = np.atleast_1d(flat[i])
        rounded = bits + np.uint32(0x7FFF) + ((bits >> 16) & 1)
        result[i] = (rounded & np.uint32(0xFFFF0000)).view(np.float32)[0]
    return result


@mistake("a loop over the first axis", breaks="kept")
def to_bfloat16(x):
    found = []
    for value in x:
        bits = np.float32(value).view(np.uint32)
        found.append(
            np.uint32((int(bits) + 0x7FFF + ((int(bits) >> 16) & 1)) & 0xFFFF0000).view(np.float32)
        )
    return np.array(found, dtype=np.float32)


@mistake("the wrong bit decides ties", breaks="ties")
def to_bfloat16(x):
    bits = x.view(np.uint32)
    rounded = bits + np.uint32(0x7FFF) + ((bits >> 15) & 1)
    return (rounded & np.uint32(0xFFFF0000)).view(np.float32)


@mistake("nine bits kept", breaks="nearest")
def to_bfloat16(x):
    bits = x.view(np.uint32)
    rounded = bits + np.uint32(0x3FFF) + ((bits >> 15) & 1)
    return (rounded & np.uint32(0xFFFF8000)).view(np.float32)


@mistake("halves towards zero for negative numbers", breaks="ties")
def to_bfloat16(x):
    bits = x.view(np.uint32)
    add = np.where(x < 0, np.uint32(0x7FFF), np.uint32(0x7FFF) + ((bits >> 16) & 1)).astype(
        np.uint32
    )
    return ((bits + add) & np.uint32(0xFFFF0000)).view(np.float32)


@mistake("the sign lost", breaks="kept")
def to_bfloat16(x):
    bits = x.view(np.uint32)
    rounded = bits + np.uint32(0x7FFF) + ((bits >> 16) & 1)
    return np.abs((rounded & np.uint32(0xFFFF0000)).view(np.float32))


@mistake("three decimals", breaks="kept")
def to_bfloat16(x):
    return np.array([float(f"{n:.2e}") for n in x.ravel()], dtype=np.float32).reshape(x.shape)


@mistake("as a view of whole numbers", breaks="kept")
def to_bfloat16(x):
    bits = x.view(np.uint32)
    return ((bits + np.uint32(0x7FFF) + ((bits >> 16) & 1)) >> 16).astype(np.float32)


@alternative("number by number in Python")
def to_bfloat16(x):
    result = np.empty(x.shape, dtype=np.float32)
    for place in np.ndindex(x.shape):
        bits = int(x[place].view(np.uint32))
        bits = (bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000
        result[place] = np.uint32(bits).view(np.float32)
    return result


@alternative("compares what is cut off with half")
def to_bfloat16(x):
    bits = x.view(np.uint32)
    low, rest = bits >> 16, bits & np.uint32(0xFFFF)
    up = (rest > 0x8000) | ((rest == 0x8000) & (low % 2 == 1))
    return ((low + up.astype(np.uint32)) << np.uint32(16)).view(np.float32)


@alternative("halves of the bytes")
def to_bfloat16(x):
    bits = x.view(np.uint32).astype(np.uint64)
    rounded = (bits + 0x7FFF + (bits >> np.uint64(16)) % np.uint64(2)) // 0x10000 * 0x10000
    return rounded.astype(np.uint32).view(np.float32)


@alternative("the nearer of two neighbours")
def to_bfloat16(x):
    bits = np.ascontiguousarray(x).view(np.uint32) & np.uint32(0xFFFF0000)
    below, above = bits.view(np.float32), (bits + np.uint32(0x10000)).view(np.float32)
    exact = x.astype(np.float64)
    down, up = np.abs(exact - below), np.abs(above.astype(np.float64) - exact)
    odd = (bits >> 16) & 1 == 1
    return np.where((up < down) | ((up == down) & odd), above, below).astype(np.float32)
