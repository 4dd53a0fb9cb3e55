"""What is usually done wrong, and other ways to be right."""

import numpy as np

from tests.attempts import alternative, mistake


@mistake("what W0 answers already is asked of B again", breaks="least")
def frozen_a(X, Y, W0, A):
    return np.linalg.lstsq(X @ A.T, Y)[0].T


@mistake("not transposed back", breaks="least")
def frozen_a(X, Y, W0, A):
    return np.linalg.lstsq(X @ A.T, Y - X @ W0.T)[0]


@mistake("the full update, taken apart by the pseudoinverse of A", breaks="least")
def frozen_a(X, Y, W0, A):
    return np.linalg.lstsq(X, Y - X @ W0.T)[0].T @ np.linalg.pinv(A)


@mistake("one step along the gradient", breaks="least")
def frozen_a(X, Y, W0, A):
    return (Y - X @ W0.T).T @ (X @ A.T) / len(X)


@alternative("normal equations")
def frozen_a(X, Y, W0, A):
    Z = X @ A.T
    return np.linalg.solve(Z.T @ Z, Z.T @ (Y - X @ W0.T)).T


@alternative("by the pseudoinverse")
def frozen_a(X, Y, W0, A):
    return (np.linalg.pinv(X @ A.T) @ (Y - X @ W0.T)).T


@mistake("W0 taken off on the wrong side", breaks="least")
def frozen_a(X, Y, W0, A):
    return np.linalg.lstsq(X @ A.T, Y + X @ W0.T)[0].T


@mistake("a ridge that is not asked for", breaks="least")
def frozen_a(X, Y, W0, A):
    Z = X @ A.T
    return np.linalg.solve(Z.T @ Z + np.eye(len(A)), Z.T @ (Y - X @ W0.T)).T


@mistake("W0 answers through A", breaks="least")
def frozen_a(X, Y, W0, A):
    Z = X @ A.T
    return np.linalg.lstsq(Z, Y - Z @ (W0 @ np.linalg.pinv(A)).T)[0].T


@alternative("output by output")
def frozen_a(X, Y, W0, A):
    missing = Y - X @ W0.T
    return np.stack([np.linalg.lstsq(X @ A.T, missing[:, i])[0] for i in range(len(W0))])


@alternative("by QR")
def frozen_a(X, Y, W0, A):
    Q, R = np.linalg.qr(X @ A.T)
    return np.linalg.solve(R, Q.T @ (Y - X @ W0.T)).T
