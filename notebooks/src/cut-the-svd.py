# %% [markdown]
# # Cut the SVD
#
# A photograph of 600 x 512 pixels is a matrix of 307,200 entries. Suppose that you may keep only 8,896 entries: a product $BA$ of two thin
# matrices of rank 8 has that many.
#
# **Which $B$ and $A$ come closest to the photograph, and how close is that?**
#
# After this lesson you can
#
# - find the best approximation of any rank to any matrix,
# - say how large its error is before you compute it,
# - choose a rank by error or by energy (*more*).
#
# You need matrix multiplication and the idea of rank, from *See rank*.

# %%
import matplotlib.pyplot as plt
import numpy as np

import lora_np as lnp
from lora_np.plots import LORA, MUTED, SKY
from lora_np.table import Table

# %% [markdown]
# ## A matrix as a sum of two
#
# The **singular value decomposition**, SVD for short, writes a matrix as a sum of matrices of rank one, the strongest first. Each of these
# matrices is called a **term**. Here is a small example:
#
# $$
# M = \begin{pmatrix} 2 & 1 \\ 1 & 2 \end{pmatrix}
#   = 3 \cdot \begin{pmatrix} \tfrac12 & \tfrac12 \\ \tfrac12 & \tfrac12 \end{pmatrix}
#   + 1 \cdot \begin{pmatrix} \tfrac12 & -\tfrac12 \\ -\tfrac12 & \tfrac12 \end{pmatrix}
# $$
#
# The last two matrices have rank one: each is a column times a row, both of length 1. The transpose, $^T$, turns a column into a row.
#
# $$
# u_1 v_1^T \text{ with } u_1 = v_1 = \tfrac{1}{\sqrt 2} \begin{pmatrix} 1 \\ 1 \end{pmatrix}, \qquad
# u_2 v_2^T \text{ with } u_2 = v_2 = \tfrac{1}{\sqrt 2} \begin{pmatrix} 1 \\ -1 \end{pmatrix}
# $$
#
# The columns $u_i$ are orthogonal to each other, and so are the rows $v_i^T$. The factors, 3 and 1, are the **singular values** $\sigma_1
# \ge \sigma_2 \ge \dots$ Every matrix has such a decomposition:
#
# $$
# M = \sigma_1\, u_1 v_1^T + \sigma_2\, u_2 v_2^T + \dots
# $$

# %%
M = np.array([[2.0, 1.0], [1.0, 2.0]])
U, s, Vh = np.linalg.svd(M)

print("singular values:", s)
first = s[0] * np.outer(U[:, 0], Vh[0])
second = s[1] * np.outer(U[:, 1], Vh[1])
print("first term:\n", first)
print("second term:\n", second)
assert np.allclose(first + second, M)

# %% [markdown]
# NumPy returns the left **singular vectors** $u_i$ as the columns of `U` and the right singular vectors $v_i^T$ as the rows of `Vh`.
#
# What does the matrix do to a vector? $M v_1 = \sigma_1 u_1$, since $v_1^T v_1 = 1$ and $v_2^T v_1 = 0$: the matrix turns $v_1$ into $u_1$
# and stretches it by $\sigma_1$. In the same way, $v_2$ becomes $\sigma_2 u_2$. All vectors of length 1 form a circle, and the matrix turns
# this circle into an **ellipse**. The picture uses another matrix, because our $M$ turns neither $v_1$ nor $v_2$:

# %% alt="Left, a circle of radius 1 with two arrows at right angles, v1 and v2. Right, what a matrix makes of it: an ellipse, whose half axes are the arrows sigma1 u1, of length 3.6, and sigma2 u2, of length 1.4, again at right angles."
turning = np.array([[3.0, 1.0], [1.0, 2.0]]) @ np.array([[0.8, -0.6], [0.6, 0.8]])
left, stretch, right = np.linalg.svd(turning)
around = np.linspace(0, 2 * np.pi, 200)
circle = np.stack([np.cos(around), np.sin(around)])

_, panels = plt.subplots(1, 2, figsize=(6.4, 3.2), layout="constrained", sharex=True, sharey=True)
sides = [
    ("before", circle, right.T, "$v_{}$"),
    ("after", turning @ circle, left * stretch, "$\\sigma_{0} u_{0}$"),
]
for axes, (title, curve, arrows, name) in zip(panels, sides, strict=True):
    lnp.plots.axes(axes).plot(*curve, color=MUTED)
    for i, (arrow, color) in enumerate(zip(arrows.T, [LORA, SKY], strict=True), start=1):
        axes.quiver(0, 0, *arrow, angles="xy", scale_units="xy", scale=1, color=color, width=0.012)
        axes.annotate(
            name.format(i),
            1.1 * arrow + 0.35 * arrow / np.hypot(*arrow),
            color=color,
            ha="center",
            va="center",
        )
    axes.set(title=title, xlim=(-4.3, 4.3), ylim=(-4.3, 4.3), aspect="equal")
assert np.allclose(turning @ right.T, left * stretch)

# %% [markdown]
# Every 2 x 2 matrix does this: it turns or flips a vector, stretches it along two directions, and turns it again. **The singular values are
# half the length and half the width of the ellipse.**<!-- proof: M v = sigma u along right angles --> Truncating to rank 1 flattens the
# ellipse to its longest line.
#
# ## Cut it
#
# If you keep the first term and drop the second, you have a **truncated** SVD. How large is its error? Measure a matrix as if it were one
# long vector: the square root of the sum of all squared entries is called the **Frobenius norm** $\|M\|$. The dropped term has four entries
# of size one half, so its norm is $\sqrt{4 \cdot \tfrac14} = 1$. This is the dropped singular value:

# %%
error = np.linalg.norm(M - first)
print(f"error {error:.6f}, dropped singular value {s[1]:.6f}")
assert np.isclose(error, s[1])

# %% [markdown]
# Could another matrix of rank one come closer? Any such matrix has the form $c\, b\, a^T$, with directions $a$ and $b$ and a number $c$. A
# direction in the plane is an angle, so one map can show them all: the angle of $a$ to the right, the angle of $b$ upwards. Each point of
# the map shows the error for the best $c$. This is $c = b^T M a$, which makes the squared error, $\|M\|^2 - 2\,c\,b^T M a + c^2$, smallest.

# %% alt="A map of the error over the directions of a and b, both from 0 to 180 degrees. There is one lowest point, at 45 degrees for both, where the error is 1."
degrees = np.arange(0, 180.5, 0.5)
directions = np.stack([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))])
best_c = directions.T @ M @ directions  # for unit vectors; what is left of ||M||^2 is ||M||^2 - c^2
errors = np.sqrt(np.maximum(np.sum(M**2) - best_c**2, 0))

axes = lnp.plots.heatmap(
    errors, rows=degrees, columns=degrees, xlabel="direction of a, in degrees",
    ylabel="direction of b, in degrees", label="error $\\|M - c\\,b\\,a^T\\|$",
)  # fmt: skip
row, column = np.unravel_index(np.argmin(errors), errors.shape)
lowest = degrees[column], degrees[row]
axes.plot(*lowest, "wo", markeredgecolor=lnp.plots.INK)
_ = axes.annotate(f"  smallest: {errors.min():.3g}", lowest, color=lnp.plots.INK, va="center")

# %% [markdown]
# At the lowest point both angles are 45 degrees, as for $u_1$ and $v_1$. No rank-one matrix has an error below 1.
#
# The same holds for every matrix and every rank. **If you keep the first $r$ terms of the SVD, no matrix of rank $r$ comes closer**<!--
# proof: two steps, in the next section; Eckart and Young, 1936 --> (Eckart and Young, 1936). Seen as long vectors, the dropped terms are
# orthogonal to each other, so by Pythagoras their squared sizes add up:
#
# $$
# \|M - M_r\| = \sqrt{\sigma_{r+1}^2 + \sigma_{r+2}^2 + \dots}
# $$
#
# ## Why nothing is closer
#
# *More: the path goes on without this section.*
#
# Let $N$ be any matrix of rank $r$, and let $E = M - N$ be its error.
#
# 1. The outputs of $N$ need only $r$ directions, so the $r + 1$ vectors $N v_1, \dots, N v_{r+1}$ cannot be independent. Therefore some
#    combination $x$ of $v_1, \dots, v_{r+1}$, of length 1, has $Nx = 0$, and so $Ex = Mx$. $M$ stretches every combination of $v_1, \dots,
#    v_{r+1}$ at least by $\sigma_{r+1}$, the smallest of their singular values. So $E$ stretches $x$ by $\sigma_{r+1}$ or more. The first
#    singular value of $E$ is the most that $E$ stretches any vector, so it is at least $\sigma_{r+1}$.
#
# 2. The other singular values of $E$ are no smaller than the dropped ones either. Add the $i$ strongest terms of $E$ to $N$. The new error
#    is $E$ without these terms, so its first singular value is number $i + 1$ of $E$. The new matrix has rank $r + i$ at most, so step 1
#    applies with $r + i$ instead of $r$: that singular value is at least $\sigma_{r+i+1}$.
#
# So the singular values of $E$ are at least $\sigma_{r+1}, \sigma_{r+2}, \dots$, respectively. The error is the square root of the sum of
# their squares, and for the truncated SVD it is as small as possible.
#
# The picture shows this for a 30 x 40 matrix $M$ that is truncated to rank 5. It also shows three other choices of five columns for $B$,
# each with its best $A$: the first five columns of $M$, five random combinations of all columns, and these combinations multiplied by $M
# M^T$, which makes strong directions stronger (a *power step*). At every index, the singular values of their errors are at least as large
# as with the truncated SVD:

# %% alt="Singular values of what is left of a matrix after taking off one of rank 5. Those of the SVD's cut are the lowest at each index. Those of three other choices, its first five columns, five random directions and one step of power iteration, lie above them."
mixed = np.random.default_rng(0).normal(size=(30, 40)) * 0.85 ** np.arange(40)
random_columns = mixed @ np.random.default_rng(1).normal(size=(40, 5))
choices = {
    "five columns": mixed[:, :5],
    "five random directions": random_columns,
    "one power step": mixed @ mixed.T @ random_columns,
}
kept = lnp.low_rank_factors(mixed, rank=5)
left_over = {"truncated SVD": np.linalg.svdvals(mixed - kept[0] @ kept[1])[:20]}
for name, some in choices.items():
    Q, _ = np.linalg.qr(some)  # the same combinations, from orthogonal columns
    left_over[name] = np.linalg.svdvals(mixed - Q @ Q.T @ mixed)[
        :20
    ]  # the best that these columns allow
    assert (left_over[name] >= np.linalg.svdvals(mixed)[5:25] - 1e-12).all()
axes = lnp.plots.singular_spectrum(left_over)

# %% [markdown]
# ## The cut is two thin matrices
#
# Write the first $r$ terms as two thin matrices. Each matrix gets the square roots of the singular values:
#
# $$
# B = \begin{pmatrix} \sqrt{\sigma_1}\, u_1 & \dots & \sqrt{\sigma_r}\, u_r \end{pmatrix}, \qquad
# A = \begin{pmatrix} \sqrt{\sigma_1}\, v_1^T \\ \vdots \\ \sqrt{\sigma_r}\, v_r^T \end{pmatrix}
# $$
#
# `low_rank_factors` computes them:

# %%
B, A = lnp.low_rank_factors(M, rank=1)
print("B A:\n", B @ A)
assert np.allclose(B @ A, first)

# %% [markdown]
# ## Cut a photograph
#
# Now truncate the photograph to rank 1, 8, 20 and 50. A rank-$r$ product of this size takes $600\,r + 512\,r$ entries. The relative error
# is $\|M - BA\| / \|M\|$.

# %%
photograph = lnp.datasets.photograph()
ranks = [1, 8, 20, 50]
approximations, rows = {}, []
for rank in ranks:
    B, A = lnp.low_rank_factors(photograph, rank=rank)
    error = np.linalg.norm(photograph - B @ A) / np.linalg.norm(photograph)
    approximations[f"r = {rank}"] = B @ A
    rows.append((rank, B.size + A.size, (B.size + A.size) / photograph.size, error))

formats = {"share of all": "{:.1%}".format, "relative error": "{:.1%}".format}
Table(["rank", "entries", "share of all", "relative error"], rows, formats=formats)

# %% alt="The photograph and its approximations of rank 1, 8, 20 and 50, with what each lacks below. Rank 1 is a plaid pattern, rank 8 a blurred person, rank 20 a face with ripples, rank 50 close to the photograph."
figure = lnp.plots.image_approximations(photograph, approximations, width=5.8)

# %% [markdown]
# The second row of the table answers the question at the top. Rank 1 is a column times a row, a plaid pattern. At rank 8 you see a person,
# and at rank 20 a face. At rank 50 you have to look for the difference. The lower pictures show what is missing: first large areas, then
# edges, then grain.
#
# For a picture of your own, put the path of a PNG file between the quotation marks. Without a path, the cell takes the photograph.

# %% alt="The photograph, and its approximation of rank 20 beside it." tags=["cover"]
path = ""

picture = plt.imread(path).astype(float) if path else photograph
if picture.ndim == 3:  # grey is the mean of red, green and blue
    picture = picture[:, :, :3].mean(axis=2)
B, A = lnp.low_rank_factors(picture, rank=min(20, *picture.shape))
figure = lnp.plots.gallery(
    {f"{picture.size:,} entries": picture, f"{B.size + A.size:,} entries": B @ A}, width=3.2
)

# %% [markdown]
# ## Know the error beforehand
#
# The formula above needs only the singular values. `rank_errors` applies it and returns the error for every rank from 0 upwards, without
# computing a single approximation. Another measure of a matrix's size is its largest singular value, the **spectral norm**. In this norm
# the error is simply $\sigma_{r+1}$:

# %%
errors = lnp.rank_errors(photograph, relative=True)
print("from the singular values:", errors[ranks].round(4))
print("measured above:          ", np.array([row[3] for row in rows]).round(4))
assert np.allclose(errors[ranks], [row[3] for row in rows], rtol=1e-4)

missing = photograph - approximations["r = 8"]
print("largest singular value of what rank 8 misses:", np.linalg.svdvals(missing)[0].round(4))
print("ninth singular value of the photograph:      ", np.linalg.svdvals(photograph)[8].round(4))
assert np.isclose(np.linalg.svdvals(missing)[0], np.linalg.svdvals(photograph)[8])

# %% [markdown]
# How fast the error falls is a property of the matrix. The picture compares the photograph with the terrain around the Jacksboro fault in
# Tennessee (heights, minus their mean) and with pure noise. Each line of the vertical axis stands for a tenth of the line above it.

# %% alt="Relative error against rank for three matrices, on a logarithmic scale. An error of ten percent is marked: the terrain reaches it at rank 33, the photograph at rank 57, noise at rank 423."
terrain = lnp.datasets.terrain()
matrices = {
    "photograph": photograph,
    "terrain": terrain - terrain.mean(),
    "noise": np.random.default_rng(0).normal(size=(600, 512)),
}
enough = {name: lnp.rank_for_error(matrix, tolerance=0.1) for name, matrix in matrices.items()}
print("rank for an error of 10 %:", enough)

curves = {name: lnp.rank_errors(matrix, relative=True)[:450] for name, matrix in matrices.items()}
axes = lnp.plots.rank_error_curves(curves, tolerance=0.1)

# %% [markdown]
# Neighbouring pixels resemble each other, and neighbouring heights even more so. Therefore a few terms hold most of the matrix. In noise no
# term is much stronger than the next, so truncation loses a lot.
#
# ## Move the rank yourself
#
# *More: the path goes on without this section.*
#
# If you run this cell in your browser or in JupyterLab, you get a slider. Find the rank at which you recognise a person, and the rank at
# which you would hang the picture on a wall. In other viewers you see four ranks side by side.

# %% alt="The photograph at four ranks, from 1 to 100, with the error of each."
U, s, Vh = np.linalg.svd(photograph, full_matrices=False)  # no u or v beyond the last of s
relative = lnp.rank_errors(photograph, relative=True)


def cut(rank):
    caption = (
        f"rank {rank}: error {relative[rank]:.1%},\n{lnp.count_lora(600, 512, rank=rank):,} entries"
    )
    return (U[:, :rank] * s[:rank]) @ Vh[:rank], caption


lnp.course.sliders(cut, rank=[1, 2, 3, 5, 8, 12, 16, 20, 30, 40, 50, 70, 100])

# %% [markdown]
# ## Choose a rank
#
# *More: the path goes on without this section.*
#
# **By error**, choose the smallest rank whose relative error is small enough. **By energy**, choose the smallest rank that keeps a given
# share of the sum of all squared entries. That sum is $\sigma_1^2 + \sigma_2^2 + \dots$, so the two rules are equivalent:
#
# $$
# \text{energy kept} = 1 - (\text{relative error})^2
# $$
#
# An error of 10 % means that 99 % of the energy is kept. If you read "99 % of the energy" as 1 % error, you are off by a factor of ten.

# %%
rows = []
for tolerance in [0.5, 0.2, 0.1, 0.05]:
    share = 1 - tolerance**2
    rank = lnp.rank_for_error(photograph, tolerance=tolerance)
    assert rank == lnp.linalg.rank_for_energy(photograph, energy=share)
    rows.append((tolerance, share, rank, lnp.count_lora(600, 512, rank=rank) / photograph.size))

percent = "{:.4g} %".format
formats = {
    "relative error": lambda value: percent(100 * value),
    "energy kept": lambda value: percent(100 * value),
    "entries, share of all": "{:.1%}".format,
}
columns = ["relative error", "energy kept", "smallest rank", "entries, share of all"]
Table(columns, rows, formats=formats)

# %% alt="Energy kept against rank. The terrain needs the smallest rank for 99 percent of its energy, the photograph more, and noise most."
shares = {name: lnp.linalg.energy(matrix) for name, matrix in matrices.items()}
at_rank = {name: (np.arange(1, len(kept)), kept[1:]) for name, kept in shares.items()}
axes = lnp.plots.lines(
    at_rank, xlabel="rank r", ylabel="share of the energy kept", logarithmic="x", level=0.99
)

# %% [markdown]
# The marked ranks have an error of 10 %, as expected.
#
# ## The law
#
# - Every matrix is a sum of rank-one terms $\sigma_i\, u_i v_i^T$, the strongest first, orthogonal to
#   each other.
# - The first $r$ terms are the best approximation of rank $r$, in the Frobenius norm and in the spectral norm.
# - The error is $\sqrt{\sigma_{r+1}^2 + \sigma_{r+2}^2 + \dots}$ in the Frobenius norm and $\sigma_{r+1}$ in the spectral norm.
# - The energy kept is one minus the squared relative error.
#
# For LoRA this says how good an update $BA$ of rank $r$ can be: if a model needs a change whose singular values fall fast, a small rank
# misses little of that change.
#
# ## What you can do now
#
# You can approximate any matrix by two thin matrices and say how large the error is. Try this, in the notebook:
#
# - Cut $\begin{pmatrix} 3 & 0 \\ 0 & 1 \end{pmatrix}$ to rank 1 on paper. What is the error?
#
#   <details><summary>Answer</summary>
#
#   $\begin{pmatrix} 3 & 0 \\ 0 & 0 \end{pmatrix}$ is left, and the error is the dropped singular value, 1.
#
#   </details>
# - Shuffle the rows of the photograph. Does the error at rank 8 change? Does it change if you shuffle all pixels?
#
#   <details><summary>Answer</summary>
#
#   With shuffled rows the error stays at 28.9 %: the entries of each $u_i$ are shuffled too, and the singular values do not change.
#   Shuffled pixels are noise of the same brightness, and the error is 65 %.
#
#   </details>
# - Up to which rank do $B$ and $A$ hold fewer entries than the photograph? *Count parameters* has the answer.
#
#   <details><summary>Answer</summary>
#
#   Up to rank 276: $r \cdot (600 + 512) < 307{,}200$.
#
#   </details>
#
# ## Further reading
#
# *More: the path goes on without this section.*
#
# - C. Eckart, G. Young, "The approximation of one matrix by another of lower rank", *Psychometrika* 1,
#   211-218, 1936, [doi 10.1007/BF02288367](https://doi.org/10.1007/BF02288367).
# - L. Mirsky, "Symmetric gauge functions and unitarily invariant norms", *Quarterly Journal of Mathematics*
#   11, 50-59, 1960, [doi 10.1093/qmath/11.1.50](https://doi.org/10.1093/qmath/11.1.50): the same for many
#   norms at once.
# - L. N. Trefethen, D. Bau, *Numerical Linear Algebra*, SIAM 1997, lectures 4 and 5: the SVD in pictures and
#   in proofs.
# - G. Strang, *Introduction to Linear Algebra*, 5th edition, Wellesley-Cambridge Press 2016, section 7.1:
#   images and the SVD.
