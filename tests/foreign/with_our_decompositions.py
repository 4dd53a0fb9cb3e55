"""A pytest plugin for SciPy's and scikit-learn's own tests: this package's decompositions answer
for theirs.

Where a call asks what a function of `lora_np.linalg` answers, it gets that answer, and the test
judges it. Every other call goes to the function that the test names, and is counted with the
reason.
"""

import collections
import functools
import importlib
import inspect
import json
import os
import types
import unittest.mock
from pathlib import Path

import numpy as np

from lora_np import linalg
from lora_np.linalg import decompositions, lowrank

# the sides of a matrix that decompositions written out in Python are given
WIDEST, LONGEST = 40, 500
TESTS: dict[str, dict[str, list[str]]] = collections.defaultdict(
    lambda: {"ours": [], "beyond": [], "outcome": []}
)


OTHER = "options, methods and results that it does not have"


class Beyond(Exception):  # noqa: N818
    """A call that asks something else."""


def matrix(a, widest=WIDEST):
    if not isinstance(a, (np.ndarray, list, tuple)) or isinstance(
        a, (np.ma.MaskedArray, np.matrix)
    ):
        raise Beyond("sparse matrices, operators, and subclasses of arrays")
    a = np.asarray(a)
    if a.dtype.kind == "c":
        raise Beyond("complex numbers")
    if a.dtype.kind not in "fiub" or a.dtype.itemsize not in (1, 4, 8):
        raise Beyond("objects, half and extended precision")
    if a.ndim > 2:
        raise Beyond("stacks of matrices")
    if a.size == 0:
        raise Beyond("empty matrices")
    if min(a.shape, default=1) > widest or max(a.shape, default=1) > max(widest, LONGEST):
        raise Beyond("matrices that are too large for code written out in Python")
    return a


def qr(a, mode, pivoting, **settings):
    a = matrix(a)
    if mode not in ("economic", "full", "r") or (
        mode != "economic" and (a.ndim != 2 or a.shape[0] > a.shape[1])
    ):
        raise Beyond(OTHER)
    Q, R, *order = (decompositions.qr_pivoted if pivoting else linalg.qr)(a)
    order = [p.astype(np.int32) for p in order]  # as LAPACK counts
    return (R, *order) if mode == "r" else (Q, R, *order)


def svd(a, full_matrices=True, compute_uv=True, lapack_driver="gesdd", hermitian=False, **settings):
    a = matrix(a)
    if hermitian or lapack_driver not in ("gesdd", "gesvd"):
        raise Beyond(OTHER)
    if compute_uv and full_matrices and (a.ndim != 2 or a.shape[0] != a.shape[1]):
        raise Beyond(OTHER)
    found = linalg.svd(a)
    return tuple(found) if compute_uv else found.s


def svdvals(a, **settings):
    return linalg.svd(matrix(a)).s


def lu(a, permute_l, p_indices, **settings):
    order, L, U = linalg.lu(matrix(a))
    rows = np.argsort(order)  # A[order] = L U, so A = L[rows] U
    if permute_l:
        return L[rows], U
    return (rows if p_indices else np.eye(len(rows), dtype=L.dtype)[rows]), L, U


def orth(A, rcond):
    A = matrix(A)
    tolerance = None if rcond is None else rcond * np.linalg.svdvals(A).max()
    return linalg.column_space(A, tolerance=tolerance)


def subspace_angles(A, B):
    A, B = matrix(A, 10**4), matrix(B, 10**4)
    if np.linalg.matrix_rank(A) < min(np.shape(A)) or np.linalg.matrix_rank(B) < min(np.shape(B)):
        raise Beyond("angles of vectors that are not there")
    return linalg.principal_angles(A, B)[::-1]


def estimate_rank(A, eps, **settings):
    return linalg.matrix_rank(matrix(A, 10**4), tolerance=eps * np.linalg.norm(A, 2))


def interpolative_svd(A, eps_or_k, **settings):
    A = matrix(A, 10**4)
    rank = (
        eps_or_k if eps_or_k >= 1 else linalg.rank_for_error(A, tolerance=eps_or_k, norm="spectral")
    )
    U, s, Vh = linalg.truncated_svd(A, rank=rank, tolerance=1e-12)
    return U, s, Vh.T


def iterated(M, **settings):
    """By iteration, however small M is."""
    with unittest.mock.patch.object(lowrank, "SMALL", 0):
        return linalg.truncated_svd(M, **settings)


def svds(A, k, which, tol, solver, return_singular_vectors, rng, options, **settings):
    A = matrix(A, 10**4)
    ours = which == "LM" and solver == "arpack" and isinstance(tol, (int, float)) and tol == 0
    if (
        not ours
        or return_singular_vectors not in (True, False)
        or any(s is not None for s in settings.values())
    ):
        raise Beyond(OTHER)
    if A.dtype.kind != "f" or A.ndim != 2 or not (isinstance(k, int) and 0 < k < min(A.shape)):
        raise Beyond("arguments that it refuses in its own words")
    U, s, Vh = iterated(A, rank=k, tolerance=1e-12)
    return (U[:, ::-1], s[::-1], Vh[::-1]) if return_singular_vectors else s[::-1]


def randomized_svd(M, n_components, flip_sign=True, **settings):
    from sklearn.utils.extmath import svd_flip

    M = matrix(M, 10**4)
    if n_components > min(M.shape):
        raise Beyond("arguments that it refuses in its own words")
    U, s, Vh = iterated(M, rank=n_components)
    U, Vh = svd_flip(U, Vh) if flip_sign else (U, Vh)
    return U, s, Vh


SUITE = os.environ["FOREIGN_SUITE"]
#: Which of their functions get an answer of ours, by module.
ANSWERS = {
    "numpy.linalg": {"svd": svd},
    "scipy.linalg": {
        "lu": lu, "orth": orth, "qr": qr, "subspace_angles": subspace_angles, "svd": svd, "svdvals": svdvals,
    },
    "scipy.linalg.interpolative": {"estimate_rank": estimate_rank, "svd": interpolative_svd},
    "scipy.sparse.linalg": {"svds": svds},
    "sklearn.utils.extmath": {"_randomized_svd": randomized_svd, "randomized_svd": randomized_svd},
}  # fmt: skip
#: Besides the tests themselves, the code under test that calls them.
INSIDE = [
    "scipy.linalg._decomp_polar", "scipy.linalg._procrustes", "sklearn.decomposition._incremental_pca",
    "sklearn.decomposition._pca", "sklearn.decomposition._truncated_svd",
]  # fmt: skip


def through(theirs, ours):
    """``theirs``, with an answer of ``ours`` to each call that it has one for."""
    signature = inspect.signature(theirs)

    @functools.wraps(theirs)
    def call(*args, **kwargs):
        seen = TESTS[os.environ.get("PYTEST_CURRENT_TEST", "").rpartition(" ")[0]]
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError:
            return theirs(*args, **kwargs)  # which says what is wrong
        bound.apply_defaults()
        seen["ours"].append(theirs.__name__)  # an error is an answer, too
        try:
            return ours(**bound.arguments)
        except Beyond as beyond:
            seen["ours"].pop()
            seen["beyond"].append(str(beyond))
        return theirs(*args, **kwargs)

    return call


class Module(types.ModuleType):
    """A module of theirs as others see it: some of its functions are answered for."""

    def __init__(self, module, answers):
        super().__init__(module.__name__)
        self.__dict__.update(vars(module), **answers)


def pytest_configure(config):
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (4 * 2**30, 4 * 2**30))


def pytest_collection_finish(session):
    instead = {}
    for name, answers in ANSWERS.items():
        if name.partition(".")[0] in ("numpy", "scipy", SUITE):
            module = importlib.import_module(name)
            wrapped = {
                called: through(getattr(module, called), ours) for called, ours in answers.items()
            }
            instead |= {
                id(getattr(module, called)): function for called, function in wrapped.items()
            }
            instead[id(module)] = Module(module, wrapped)
    inside = [importlib.import_module(name) for name in INSIDE if name.startswith(SUITE)]
    for module in {item.module for item in session.items if hasattr(item, "module")}.union(inside):
        for name, thing in list(vars(module).items()):
            if not name.startswith("__"):
                setattr(module, name, instead.get(id(thing), thing))


def pytest_runtest_logreport(report):
    if report.nodeid in TESTS and (report.when == "call" or report.outcome != "passed"):
        TESTS[report.nodeid]["outcome"].append(report.outcome)


def pytest_sessionfinish(session):
    Path(os.environ["FOREIGN_REPORT"]).write_text(json.dumps(TESTS, indent=1))
