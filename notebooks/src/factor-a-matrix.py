# %% [markdown]
# # Factor a matrix
#
# You want to send a picture over a slow line, as a sum of terms. Each term is a column times a row. After twenty terms the picture should
# be recognisable.
#
# **Which columns and rows do you send first?**
#
# After this lesson you can
#
# - write a matrix as a sum of terms in three ways: LU, QR and SVD,
# - read each sum as a product of two thin matrices,
# - say which of the three loses least when it is truncated.
#
# You need *See rank*.

# %%
import matplotlib.pyplot as plt
import numpy as np

import lora_np as lnp
from lora_np.table import Table

# %% [markdown]
# ## A product is a sum of terms
#
# Look inside a product. The first column of the left matrix is multiplied only by the first row of the right matrix, and the second column
# only by the second row:
#
# $$
# \begin{pmatrix} 1 & 0 \\ 0 & 1 \\ 2 & -4 \end{pmatrix}
# \begin{pmatrix} 1 & 2 & 3 \\ 0 & 1 & 1 \end{pmatrix}
# = \begin{pmatrix} 1 \\ 0 \\ 2 \end{pmatrix} \begin{pmatrix} 1 & 2 & 3 \end{pmatrix}
# + \begin{pmatrix} 0 \\ 1 \\ -4 \end{pmatrix} \begin{pmatrix} 0 & 1 & 1 \end{pmatrix}
# $$
#
# Each column times its row is a matrix of rank 1, one term of the sum. Two columns and two rows give two terms.

# %% alt="Two terms of 3 by 3 add up to the matrix with the rows 1 2 3, 0 1 1 and 2 0 2. The first term has the rows 1 2 3, zeros, and 2 4 6. The second has zeros, 0 1 1, and 0 -4 -4."
B = np.array([[1, 0], [0, 1], [2, -4]])
A = np.array([[1, 2, 3], [0, 1, 1]])
terms = [np.outer(B[:, i], A[i]) for i in range(2)]
assert (terms[0] + terms[1] == B @ A).all()

figure = lnp.plots.matrix_tiles(
    {"term 0": terms[0], "term 1": terms[1], "B A": B @ A}, between=["+", "="]
)

# %% [markdown]
# The sum is the matrix $M$ of *See rank*. To **factor** a matrix means to go in the opposite direction, from the matrix to its terms.
#
# ## LU: copy a row and a column
#
# Start with $M$. Its first row is $(1, 2, 3)$, and its first column is $(1, 0, 2)$. The column times the row is a term with the same first
# row and the same first column as $M$. Subtract this term:
#
# $$
# \begin{pmatrix} 1 & 2 & 3 \\ 0 & 1 & 1 \\ 2 & 0 & 2 \end{pmatrix}
# - \begin{pmatrix} 1 & 2 & 3 \\ 0 & 0 & 0 \\ 2 & 4 & 6 \end{pmatrix}
# = \begin{pmatrix} 0 & 0 & 0 \\ 0 & 1 & 1 \\ 0 & -4 & -4 \end{pmatrix}
# $$
#
# One row and one column are done. Do the same with the rest: its second row is $(0, 1, 1)$, and its second column is $(0, 1, -4)$. Then
# nothing is left. We needed two terms, because the rank is 2.
#
# The entry where the row and the column cross was 1. If it is another number, divide the column by it, so that the term fits.


# %%
def peel(rest, i, j):
    """The term through row i and column j, as a column and a row."""
    return rest[:, j] / rest[i, j], rest[i]


M = np.array([[1.0, 2.0, 3.0], [0.0, 1.0, 1.0], [2.0, 0.0, 2.0]])
rest = M
for i in range(2):
    column, row = peel(rest, i, i)
    rest = rest - np.outer(column, row)
    print(f"column {column}, row {row}; left:\n{rest}")
assert not rest.any()

# %% [markdown]
# This is **elimination**, which you may know from school as a way to solve equations. The columns form a matrix $L$ and the rows a matrix
# $U$, hence the name **LU**.
#
# At each step, `linalg.lu` takes the row whose entry in the current column is largest in absolute value, so that no entry of $L$ is larger
# than 1. It returns the order of the rows as `order`.

# %%
order, L, U = lnp.linalg.lu(M)
print("rows in the order", order)
print("L:\n", L)
print("U:\n", U)
assert np.allclose(L @ U, M[order])

# %% [markdown]
# The last row of $U$ is zero, so the last term is zero. Read as a product, two columns of $L$ and two rows of $U$ already give all of
# $M$. These are the thin $B$ and $A$ that *See rank* promised for every matrix of rank 2.
#
# `low_rank_factors` truncates a factorisation to a given number of terms and puts the rows back in order:

# %%
B, A = lnp.low_rank_factors(M, rank=2, method="lu")
print("B, 3 x 2:\n", B)
print("A, 2 x 3:\n", A)
assert np.allclose(B @ A, M)

# %% [markdown]
# ## One term for two columns
#
# Now keep fewer terms than the rank. This matrix has rank 2, and you may keep only one term:
#
# $$
# N = \begin{pmatrix} 3 & 5 \\ 4 & 0 \end{pmatrix}
# $$
#
# All columns of a term are multiples of one column, so in a drawing they lie on one line. The two columns $(3, 4)$ and $(5, 0)$, both of
# length 5, therefore have to move onto a line. How far must they move?
#
# **LU.** The largest entry of the first column is 4, in the row $(4, 0)$. The column divided by 4 is $(\tfrac34, 1)$. The first column
# stays where it is, and the second moves to zero.
#
# $$
# \begin{pmatrix} \tfrac34 \\ 1 \end{pmatrix} \begin{pmatrix} 4 & 0 \end{pmatrix}
# = \begin{pmatrix} 3 & 0 \\ 4 & 0 \end{pmatrix}
# $$
#
# **QR.** Keep the line through the first column. But the second column need not move to zero: it can move to the nearest point on the line.
# The first column has length $\sqrt{3^2 + 4^2} = 5$, so the vector of length 1 in its direction is $q = (\tfrac35, \tfrac45)$. As in *See
# rank*, $q^T N$ says how much of $q$ is in each column: $(5, 3)$. (A $T$ turns a column into a row.) So the nearest points lie at the
# distances 5 and 3 along $q$.
#
# $$
# \begin{pmatrix} \tfrac35 \\ \tfrac45 \end{pmatrix} \begin{pmatrix} 5 & 3 \end{pmatrix}
# = \begin{pmatrix} 3 & 1.8 \\ 4 & 2.4 \end{pmatrix}
# $$
#
# **SVD.** Why should the line go through a column at all? Both columns have length 5, so the best line lies midway between them, in the
# direction of their sum, $(8, 4)$. (If one column is longer, the line lies nearer to that column, and the sum does not give the line.) The
# direction, scaled to length 1, is $u = (2, 1) / \sqrt5$, and $u^T N = (\sqrt{20}, \sqrt{20})$.
#
# $$
# \frac{1}{\sqrt5} \begin{pmatrix} 2 \\ 1 \end{pmatrix} \begin{pmatrix} \sqrt{20} & \sqrt{20} \end{pmatrix}
# = \begin{pmatrix} 4 & 4 \\ 2 & 2 \end{pmatrix}
# $$

# %% alt="Three panels with the columns (3, 4) and (5, 0) as arrows and a line onto which they move. LU: the line goes through column 0, column 1 moves by 5, to zero. QR: the same line, column 1 moves by 4, to the nearest point. SVD: a line between the columns, each moves by 2.24. The errors are 5, 4 and 3.16."
N = np.array([[3.0, 5.0], [4.0, 0.0]])
one_term, errors = {}, {}
for method in ["lu", "qr", "svd"]:
    B, A = lnp.low_rank_factors(N, rank=1, method=method)
    errors[method] = np.linalg.norm(N - B @ A)
    one_term[f"{method.upper()}: error {errors[method]:.2f}"] = B @ A
    print(f"{method}:\n{(B @ A).round(9)}")
assert np.allclose(list(errors.values()), [5, 4, 10**0.5])

_, panels = plt.subplots(1, 3, figsize=(9, 3.3), layout="constrained", sharex=True, sharey=True)
for axes, (heading, moved) in zip(panels, one_term.items(), strict=True):
    longest = moved[:, np.argmax(np.linalg.norm(moved, axis=0))]
    lnp.plots.axes(axes).axline((0, 0), longest, color=lnp.plots.LORA, alpha=0.5)
    axes.quiver([0, 0], [0, 0], *N, angles="xy", scale_units="xy", scale=1, width=0.012)
    for column, end in zip(N.T, moved.T, strict=True):
        axes.plot(*zip(column, end, strict=True), "--", color=lnp.plots.SKY)
        axes.plot(*end, "o", color=lnp.plots.LORA)
        if not np.allclose(column, end):
            axes.annotate(f"{np.linalg.norm(column - end):.3g}", (column + end) / 2 + 0.2)
    axes.set(title=heading, xlim=(-1, 6), ylim=(-1, 5), aspect="equal", xlabel="first entry")
_ = panels[0].set_ylabel("second entry")

# %% [markdown]
# The **error** is the square root of the sum of all squared differences, so two moves of length 2.24 make an error of $\sqrt{2.24^2 +
# 2.24^2} = 3.16$.
#
# Is there an even better line? We try all lines, in steps of a tenth of a degree:

# %%
angles = np.radians(np.arange(0, 180, 0.1))
directions = np.stack([np.cos(angles), np.sin(angles)])  # a column of length 1 for each angle
distances = [np.linalg.norm(N - np.outer(u, u @ N)) for u in directions.T]
best = int(np.argmin(distances))

print(f"best line: {np.degrees(angles[best]):.1f} degrees, error {distances[best]:.4f}")
print(f"the SVD's: {np.degrees(np.arctan2(1, 2)):.1f} degrees, error {errors['svd']:.4f}")
assert errors["svd"] <= distances[best] < errors["svd"] + 1e-4

# %% [markdown]
# ## What each keeps orthogonal
#
# Here are both terms of each method. The second term is the rest that the first term leaves.

# %%
Q, R = np.linalg.qr(N)
order, L, U = lnp.linalg.lu(N)
L = L[np.argsort(order)]  # the rows back in the order of N
left, s, right = np.linalg.svd(N)

for name, columns, rows in [("LU", L, U), ("QR", Q, R), ("SVD", left * s, right)]:
    assert np.allclose(columns @ rows, N)
    print(name)
    for i in range(2):
        print(np.outer(columns[:, i], rows[i]).round(9) + 0.0)  # + 0.0: no minus before a zero

# %% [markdown]
# Two vectors are **orthogonal** (at right angles) if the products of their entries add up to zero.
#
# - **LU**: neither columns nor rows are orthogonal. After the first term, the rest has zeros where a row and a column were copied. LU is
#   cheap, and designed for solving equations.
# - **QR**: the columns of $Q$ are orthogonal and have length 1. $R$ has zeros below its diagonal. QR is designed for finding nearest
#   points.
# - **SVD**: columns **and** rows are orthogonal. In the example, $(2, 1)$ and $(-1, 2)$ are orthogonal, and so are $(1, 1)$ and $(1, -1)$.
#   The name is short for *singular value decomposition*.

# %%
for name, columns, rows in [("LU", L, U), ("QR", Q, R), ("SVD", left, right)]:
    products = np.round([columns[:, 0] @ columns[:, 1], rows[0] @ rows[1]], 9) + 0.0
    print(f"{name:3}  columns: {products[0]:6.2f}   rows: {products[1]:6.2f}")

assert np.isclose(Q[:, 0] @ Q[:, 1], 0)
assert np.allclose([left[:, 0] @ left[:, 1], right[0] @ right[1]], 0)

# %% [markdown]
# The rows of LU are orthogonal in this example, by chance. In general they are not.
#
# ## Send a photograph
#
# Now we send the picture, 600 x 512 pixels, in twenty terms. In a large matrix, the order of the terms matters. QR always takes the column
# with the largest part that has not been sent yet. LU, as used for equations, takes the columns from left to right and chooses only the
# row.

# %% alt="The photograph, and what twenty terms make of it. LU is a pattern of stripes that shows nobody, right only in a narrow strip at the left edge. QR shows a person with streaks. The SVD shows a clear person with ripples." tags=["cover"]
photograph = lnp.datasets.photograph()
methods = {"LU": "lu", "QR": "qr", "SVD": "svd"}
factors = {
    name: lnp.low_rank_factors(photograph, rank=100, method=way) for name, way in methods.items()
}
received = {f"{name}, 20 terms": B[:, :20] @ A[:20] for name, (B, A) in factors.items()}

figure = lnp.plots.image_approximations(photograph, received)
assert np.allclose(received["LU, 20 terms"][:, :20], photograph[:, :20])  # the left edge

# %% [markdown]
# Here is the error for every number of terms up to 100, as a share of the whole photograph:


# %% alt="Relative error against the number of terms, from 0 to 100. LU goes up and down between 0.8 and 1.1. QR and SVD fall steadily, and the SVD is the lowest everywhere."
def errors_of_cuts(M, B, A):
    """Relative error after 0, 1, 2, ... terms."""
    rest, errors = M, [1.0]
    for column, row in zip(B.T, A, strict=True):
        rest = rest - np.outer(column, row)
        errors.append(np.linalg.norm(rest) / np.linalg.norm(M))
    return np.array(errors)


curves = {name: errors_of_cuts(photograph, B, A) for name, (B, A) in factors.items()}
axes = lnp.plots.rank_error_curves(curves)
axes.set_xlabel("terms")
axes.set_ylabel("relative error")

for name in ["LU", "QR"]:
    assert (curves["SVD"][1:] < curves[name][1:]).all()
assert 0.7 < curves["LU"].min() < 1 < curves["LU"].max() < 1.3

# %%
rows = [(terms, *(curves[name][terms] for name in methods)) for terms in [1, 8, 20, 50, 100]]
Table(["terms", *methods], rows, formats=dict.fromkeys(methods, "{:.1%}".format))

# %% [markdown]
# LU has sent the left edge exactly but little of the rest, because it takes the columns in order. QR chooses its columns, and chooses them
# well.
#
# **By this measure of error, no sum of equally many terms is better than the SVD's**<!-- proof: Eckart and Young, in Cut the SVD -->, here
# or on any other matrix. This is true for the square root of the sum of squares, and for any other measure that does not change when the
# matrix is turned. It is not true, for example, for the largest error of a single pixel. *Cut the SVD* shows why, and how to know the error
# in advance. So send the terms of the SVD, the strongest first.
#
# On the photograph, LU is sometimes worse than sending nothing: its curve rises above 1. The same happens after 20 terms with the heights
# around the Jacksboro fault in Tennessee, minus their mean:

# %%
heights = lnp.datasets.terrain() - lnp.datasets.terrain().mean()
after_20 = {}
for name, method in methods.items():
    B, A = lnp.low_rank_factors(heights, rank=20, method=method)
    after_20[name] = np.linalg.norm(heights - B @ A) / np.linalg.norm(heights)
    print(f"{name:3} {after_20[name]:.0%}")
assert after_20["LU"] > 1 > after_20["QR"] > after_20["SVD"]

# %% [markdown]
# ## One product, many factors
#
# Let us return to $M$, which has rank 2. Two terms of each method give all of $M$, but each method has its own $B$ and $A$. Here are the
# matrices $B$ of LU and of QR:

# %%
pairs = [lnp.low_rank_factors(M, rank=2, method=method) for method in methods.values()]
for B, A in pairs:
    assert np.allclose(B @ A, M)
print(pairs[0][0].round(3))
print(pairs[1][0].round(3))

# %% [markdown]
# (QR has written its first term with two minus signs, as $(-q)(-r)$. The term is the same.)
#
# What do these matrices have in common? Put the matrices $B$ of all three methods side by side. The rank of the six columns is still 2:
# they lie in the same plane, the column space of $M$.

# %%
print("rank of all columns:", lnp.matrix_rank(np.hstack([B for B, _ in pairs])))

# %% [markdown]
# You can make more pairs with the same product. Take any square matrix $C$ that has an inverse, a matrix $C^{-1}$ that undoes $C$, so that
# $C\,C^{-1} A = A$. Then $(B\,C)(C^{-1} A) = B A$. So **the product is what counts, not its factors.**<!-- proof: (B M)(M^-1 A) = B A -->
# Remember this when you look at a trained LoRA: its $B$ and $A$ are one pair of many.

# %%
B, A = pairs[0]
C = np.array([[1.0, 2.0], [0.0, 1.0]])
assert np.allclose((B @ C) @ (np.linalg.inv(C) @ A), M)
print("(B C)(C^-1 A):\n", (B @ C) @ (np.linalg.inv(C) @ A))

# %% [markdown]
# ## The law
#
# - A product $BA$ is a sum of terms: column $i$ of $B$ times row $i$ of $A$. The first $r$ terms are a product of two thin matrices.
# - LU copies rows and columns. QR moves columns to nearest points and has orthogonal columns. The SVD has orthogonal columns and orthogonal
#   rows.
# - A matrix of rank $r$ needs $r$ terms. QR (if it always takes the column with the largest rest) and the SVD never need more.
# - With the same number of terms, the SVD has the smallest sum of squared errors.
# - $BA$ and $(BC)(C^{-1}A)$ are the same matrix.
#
# **LoRA** starts from the other end: it never forms the matrix, but trains $B$ and $A$. Their initial values can come from a factorisation:
# **PiSSA** takes the first terms of the SVD of $W_0$, the matrix to adapt, and **OLoRA** the first terms of the QR of $W_0$. *Choose rank,
# alpha and initialisation* tries both.
#
# ## What you can do now
#
# You can take a matrix apart in three ways, truncate it and say what is lost. Try this, in the notebook:
#
# - Peel $\begin{pmatrix} 2 & 1 \\ 4 & 5 \end{pmatrix}$ on paper, starting with the first row. Then start with the row of the 4, as `lu`
#   does. Which terms do you get each time?
#
#   <details><summary>Answer</summary>
#
#   First row first: $\begin{pmatrix} 2 & 1 \\ 4 & 2 \end{pmatrix} + \begin{pmatrix} 0 & 0 \\ 0 & 3
#   \end{pmatrix}$. Row of the 4 first: $\begin{pmatrix} 2 & 2.5 \\ 4 & 5 \end{pmatrix} + \begin{pmatrix} 0 & -1.5 \\ 0 & 0 \end{pmatrix}$.
#   The terms differ, but their sum is the same.
#
#   </details>
# - Swap the columns of $N$. Which of the three errors change, and why does the SVD's error not change?
#
#   <details><summary>Answer</summary>
#
#   The error of LU falls from 5 to 4, because it now copies another column first. The error of QR stays at 4, but only because both columns
#   have the same length. The SVD does not take columns in any order: if you swap them, the entries of its rows are swapped, and nothing
#   else changes.
#
#   </details>
# - How many terms does `lu` need for $\begin{pmatrix} 0 & 1 \\ 0 & 2 \end{pmatrix}$, and what is the rank of this matrix?
#
#   <details><summary>Answer</summary>
#
#   It needs two, although the rank is 1. The first column has no entry to divide by, so the first term is zero, and the second term gives
#   the whole matrix. The SVD and QR need no entry to divide by, so one term is enough.
#
#   </details>
#
# ## Further reading
#
# - G. Strang, *Linear Algebra and Learning from Data*, Wellesley-Cambridge Press 2019, sections I.2 and I.4:
#   products and elimination as sums of rank-one matrices.
# - L. N. Trefethen, D. Bau, *Numerical Linear Algebra*, SIAM 1997, lectures 4 (SVD), 7 (QR), 20 and 21 (LU
#   and its pivots).
# - F. Meng, Z. Wang, M. Zhang, *PiSSA: Principal Singular Values and Singular Vectors Adaptation of Large
#   Language Models*, [arXiv 2404.02948](https://arxiv.org/abs/2404.02948).
# - K. Büyükakyüz, *OLoRA: Orthonormal Low-Rank Adaptation of Large Language Models*, [arXiv
#   2406.01775](https://arxiv.org/abs/2406.01775).
