"""Known mistakes in another form: other signs, or another split of one product into two factors.

Each row names an exercise, one of its known mistakes, and the form in which it is handed in.
"""

import numpy as np

HEAD = (
    "import numpy as np\n\n\ndef signs(n):\n    return np.where(np.arange(n) % 2, 1.0, -1.0)\n\n\n"
)
# What is returned in place of the mistake's own answer.
FORMS = {
    "other signs": "B, A = answer\n    return B * signs(len(A)), signs(len(A))[:, None] * A",
    "another split": "B, A = answer\n    return 2 * B, A / 2",
    "frozen, other signs": "W, B, A = answer\n    return W, B * signs(len(A)), signs(len(A))[:, None] * A",
    "frozen, all in A": "W, B, A = answer\n    n = np.linalg.norm(B, axis=0) + 1e-300\n    return W, B / n, n[:, None] * A",
    "columns of other signs": "return answer * signs(answer.shape[1])",
    "turned": (
        "c = 0.6 * np.eye(answer.shape[1])\n    c[:2, :2] = [[0.6, -0.8], [0.8, 0.6]] if len(c) > 1 else -1\n"
        "    return answer @ (c if len(c) < 3 else np.linalg.qr(c + np.tri(len(c)))[0])"
    ),
    "singular vectors of other signs": "U, s, Vh = answer\n    return U * signs(len(Vh)), s, signs(len(Vh))[:, None] * Vh",
}  # fmt: skip
VARIANTS = [
    ("best_update", "with the least-squares update, cut: inputs are not white", "other signs"),
    ("best_update", "as if W0 were zero", "another split"),
    ("best_update", "with W0 added, not taken off", "other signs"),
    ("best_update", "with the weakest directions", "another split"),
    ("repair", "when it forgets that the layer multiplies by alpha / r", "other signs"),
    ("repair", "with the SVD of W, not of what was lost", "another split"),
    ("repair", "with the weakest terms", "other signs"),
    ("repair", "with Q - W: it doubles the damage", "another split"),
    ("combine_adapters", "without alpha / r", "other signs"),
    ("combine_adapters", "without the weights", "another split"),
    ("combine_adapters", "with the rank of the first for all", "other signs"),
    ("pissa_start", "with the weakest terms", "frozen, other signs"),
    ("pissa_start", "when the rest forgets alpha / r", "frozen, other signs"),
    ("pissa_start", "when all of W0 is frozen, and trained terms are there twice", "frozen, other signs"),
    ("pissa_start", "when the trained part is added to W0", "frozen, all in A"),
    ("olora_start", "when all of W0 is frozen, and trained terms are there twice", "frozen, other signs"),
    ("olora_start", "with the SVD", "frozen, other signs"),
    ("olora_start", "with the last terms", "frozen, other signs"),
    ("gram_schmidt", "when what should be taken away is added", "columns of other signs"),
    ("gram_schmidt", "when columns are divided by their lengths, and nothing else", "columns of other signs"),
    ("top_directions", "with a QR of M", "turned"),
    ("top_directions", "after one step: the weaker directions are still there", "columns of other signs"),
    ("top_directions", "after one product with M: the weaker directions are still there", "turned"),
    ("resize_adapter", "with the weakest terms", "other signs"),
    ("svd_by_eigenvectors", "with the smallest first", "singular vectors of other signs"),
    ("svd_by_eigenvectors", "with eigenvalues that were not rooted", "singular vectors of other signs"),
    ("svd_by_eigenvectors", "when U is divided by eigenvalues", "singular vectors of other signs"),
]  # fmt: skip


def handed_in(mistake, name, form):
    """The answer of the mistake, in this form."""
    names = {"np": np}
    exec(f"{HEAD}def changed(answer):\n    {FORMS[form]}\n", names)
    exec(mistake.code, names)
    given = names[name]

    def wrong(*arguments):
        with np.errstate(all="ignore"):
            return names["changed"](given(*arguments))

    return wrong
