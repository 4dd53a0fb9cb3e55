"""What is usually done wrong, and other ways to be right."""

import numpy as np

from lora_np.grading import alternative, mistake


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
