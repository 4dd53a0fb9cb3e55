# %% [markdown]
# # See rank
#
# Here are three pictures of the same size, 600 x 512 pixels: a flag, a chessboard, and a photograph. Each is a matrix of 307,200 entries.
# You could describe the flag in one line and the chessboard in two, but you could hardly describe the photograph.
#
# **What is the number that tells these matrices apart?**
#
# After this lesson you can
#
# - find the columns of a matrix that bring something new,
# - see a rank in a picture (*more*),
# - build a matrix of any rank from two thin ones,
# - say why noise gives a matrix full rank, and what to ask instead (*more*).
#
# You need matrix multiplication and a little Python. `lora_np`, imported as `lnp`, is the package that this course belongs to. *Follow the
# post* shows why rank matters: there, 1,760 parameters change 12,000 entries.

# %%
import matplotlib.pyplot as plt
import numpy as np

import lora_np as lnp

# %% [markdown]
# ## A column that brings nothing new
#
# Take three columns on paper:
#
# $$
# M = \begin{pmatrix} 1 & 2 & 3 \\ 0 & 1 & 1 \\ 2 & 0 & 2 \end{pmatrix}
# $$
#
# The first column is new. The second is not a multiple of the first, so it is new as well. The third is the sum of the first two, so it
# brings nothing new: you can build it from them.
#
# A **linear combination** of columns, or combination for short, is a sum of multiples of these columns. A column is **independent** of the
# columns before it if it is not a combination of them. The number of independent columns is the **rank**. Python counts from 0, so
# the independent columns here are 0 and 1.

# %%
M = np.array([[1, 2, 3], [0, 1, 1], [2, 0, 2]])
assert (M[:, 2] == M[:, 0] + M[:, 1]).all()

print("independent columns:", lnp.independent_columns(M))
print("rank:", lnp.matrix_rank(M))

# %% [markdown]
# The same works with rows. This combination of the rows of $M$ gives zero: 2 times the first row, minus 4 times the second, minus the
# third. So one row can be built from the others, and two rows are independent. (In the **transpose** $M^T$, rows and columns are
# exchanged.)
#
# This is no accident: **every matrix has as many independent rows as independent columns.**<!-- proof: two lines, in the section Two thin
# matrices --> *Two thin matrices* below proves it in two lines.

# %%
assert (2 * M[0] - 4 * M[1] - M[2] == 0).all()

print("rank of M:          ", lnp.matrix_rank(M))
print("rank of M transposed:", lnp.matrix_rank(M.T))  # .T: rows become columns

# %% [markdown]
# ## All that a matrix can reach
#
# A **vector** is a list of numbers, here a column. A matrix times a vector is a combination of its columns:
#
# $$
# M x = x_0 \cdot \text{column}_0 + x_1 \cdot \text{column}_1 + \dots
# $$
#
# All possible outputs together form the **column space**. The picture shows it for two matrices of different ranks:

# %% alt="Two planes with arrows for the columns of a matrix. Left, rank 2: the arrows point in two directions and the outputs fill the plane. Right, rank 1: the arrows lie on one line, and so do all outputs."
independent = np.array([[2.0, -1.0], [1.0, 1.5]])
dependent = np.array([[2.0, -1.0], [1.0, -0.5]])  # column 1 is -1/2 times column 0

_, panels = plt.subplots(1, 2, figsize=(6.6, 3.5), layout="constrained", sharex=True, sharey=True)
for axes, columns in zip(panels, [independent, dependent], strict=True):
    outputs = columns @ np.random.default_rng(0).normal(scale=1.2, size=(2, 600))
    lnp.plots.axes(axes).plot(*outputs, ".", color=lnp.plots.SKY, markersize=3)
    axes.quiver(
        [0, 0], [0, 0], *columns, angles="xy", scale_units="xy", scale=1, width=0.01, zorder=3
    )
    for j, column in enumerate(columns.T):
        axes.annotate(f"column {j}", 1.15 * column, ha="center")
    axes.set(
        title=f"rank {np.linalg.matrix_rank(columns)}", xlim=(-3, 3), ylim=(-3, 3), aspect="equal"
    )
    axes.set(xlabel="first entry", ylabel="second entry")

# %% [markdown]
# The arrows are the columns, and each dot is $Mx$ for a random $x$. A **direction** is where a vector points, whatever its length. On the
# left, two directions are enough to reach the whole plane. On the right, the second column is a multiple of the first, so every output lies
# on one line.
#
# **The rank is the number of directions that the outputs need.**<!-- proof: outputs are combinations of the independent columns -->
# `column_space` returns such directions. Each has length 1 (the square root of the sum of its squared entries) and is **orthogonal** to the
# others, that is, at right angles: the products of their entries add up to zero. Our $3 \times 3$ matrix has two directions, and every
# output combines them:

# %%
directions = lnp.column_space(M)
print("shape of the directions:", directions.shape)

x = np.array([4, -1, 2])
output = M @ x
# A direction of length 1, times the output: how much of it is in the output.
amounts = directions.T @ output
print("output:                ", output)
print("made of two directions:", (directions @ amounts).round(6))
assert np.allclose(directions @ amounts, output)

# %% [markdown]
# ## Rank one: a column times a row
#
# The multiplication table that you learned at school has many numbers but little content. Each row is a multiple of the first, so the rank
# is 1. The table is the product of one column and one row:

# %% alt="A column with the numbers 1 to 4, times a row with the numbers 1 to 5, is a multiplication table of 4 rows and 5 columns."
column = np.arange(1, 5).reshape(4, 1)
row = np.arange(1, 6).reshape(1, 5)
table = column @ row
print("rank:", lnp.matrix_rank(table))

figure = lnp.plots.matrix_tiles({"4 x 1": column, "1 x 5": row, "4 x 5": table}, between=["·", "="])

# %% [markdown]
# Its 20 entries follow from the 4 + 5 = 9 entries of its factors.
#
# ## Two thin matrices
#
# Now take two columns and two rows. Let $B$ be $4 \times 2$ and $A$ be $2 \times 5$:

# %% alt="A matrix B of 4 rows and 2 columns, times a matrix A of 2 rows and 5 columns, is a matrix of 4 rows and 5 columns."
B = np.array([[1, 0], [2, 1], [0, 1], [1, -1]])
A = np.array([[1, 0, 2, 1, 1], [0, 1, 1, -1, 2]])
print("rank of B A:", lnp.matrix_rank(B @ A))

figure = lnp.plots.matrix_tiles(
    {"B, 4 x 2": B, "A, 2 x 5": A, "B A, 4 x 5": B @ A}, between=["·", "="]
)

# %% [markdown]
# Check one column by hand. Column 2 of $A$ holds 2 and 1, so column 2 of $BA$ is 2 times the first column of $B$ plus 1 times the second.
# **Every column of $BA$ is a combination of the columns of $B$.**<!-- proof: column j of BA is B times column j of A --> $B$ has two
# columns, so the rank of $BA$ is 2 at most, however many columns $BA$ has.
#
# The reverse is true as well. Our $3 \times 3$ matrix $M$ has rank 2, so it must be the product of a $3 \times 2$ and a $2 \times 3$
# matrix. Its independent columns become $B$, and $A$ says how to combine them: take the first, take the second, add both.

# %%
B = M[:, lnp.independent_columns(M)]
A = np.array([[1, 0, 1], [0, 1, 1]])
print(B @ A)
assert (B @ A == M).all()

# %% [markdown]
# Why are there as many independent rows as independent columns?
#
# 1. $M = BA$, where $B$ consists of the $r$ independent columns of $M$. Read this row by row: each row of $M$ is a combination of the $r$
#    rows of $A$. So at most $r$ rows are independent.
# 2. The same holds for $M^T$, whose rows are the columns of $M$. So neither number can exceed the other.

# %% alt="M of 3 rows and 3 columns is B of 3 rows and 2 columns times A of 2 rows and 3 columns. Below: its last row, 2 0 2, is 2 times the first row of A plus 0 times the second."
figure = lnp.plots.matrix_tiles({"M": M, "B": B, "A": A}, between=["=", "·"])
assert (M[2] == B[2, 0] * A[0] + B[2, 1] * A[1]).all()

# %% [markdown]
# ## Rank of a sum and of a product
#
# You will need two laws again and again:
#
# 1. **The rank of $MN$ is at most the smaller of the two ranks.**<!-- proof: its columns are combinations of M's, its rows of N's --> Its
#    columns are combinations of the columns of $M$, and its rows are combinations of the rows of $N$.
# 2. **The rank of a sum is at most the sum of the ranks.**<!-- proof: one product of factors put side by side --> $B_1 A_1 + B_2 A_2$ is a
#    single product: put $B_1$ and $B_2$ side by side, and $A_1$ above $A_2$.

# %% alt="Two columns side by side, times two rows one below the other, is a matrix of 3 rows and 4 columns: the sum of two matrices of rank one."
B1, A1 = np.array([[1], [2], [0]]), np.array([[1, 0, 1, 1]])
B2, A2 = np.array([[0], [1], [1]]), np.array([[0, 1, 1, -1]])
side_by_side, one_below = np.hstack([B1, B2]), np.vstack([A1, A2])
tiles = {
    "B1 and B2": side_by_side,
    "A1 and A2": one_below,
    "the sum, rank 2": side_by_side @ one_below,
}
figure = lnp.plots.matrix_tiles(tiles, between=["·", "="])
assert (side_by_side @ one_below == B1 @ A1 + B2 @ A2).all()
assert lnp.matrix_rank(B1 @ A1 + B2 @ A2) == 2
assert lnp.matrix_rank(M @ table[:3, :3]) == 1  # rank 2 times rank 1

# %% [markdown]
# ## Rank as a picture
#
# *More: the path goes on without this section.*
#
# Now look at the three pictures from the beginning. In the flag every row is the same, so the rank is 1. The chessboard has two kinds of
# rows, and you need one of each kind, so its rank is 2. The photograph shows Grace Hopper, who led the development of the first compilers.

# %% alt="A flag with three upright bands, of rank 1; a chessboard, of rank 2; a portrait photograph, of rank 512." tags=["cover"]
photograph = lnp.datasets.photograph()
rows, columns = np.indices(photograph.shape)
flag = columns * 3 // 512 / 2
chessboard = (rows // 75 + columns // 64) % 2

pictures = {"flag": flag, "chessboard": chessboard, "photograph": photograph}
ranks = {name: lnp.matrix_rank(picture) for name, picture in pictures.items()}
print(ranks)

figure = lnp.plots.gallery(
    {f"{name}: rank {ranks[name]}": picture for name, picture in pictures.items()}
)

# %% [markdown]
# The photograph has 512 columns, and its rank is 512: none of them is a combination of the others. The rank cannot be larger, because a
# matrix cannot have more independent columns than columns, nor more independent rows than rows.
#
# ## Noise makes everything full rank
#
# *More: the path goes on without this section.*
#
# Does the photograph really hold that much? Its rank cannot tell. Here is a matrix that we make ourselves: the product of two thin factors
# of rank 8, with 100 x 120 entries. To each entry we then add **noise**: a small random number, about a ten-thousandth as large as a
# typical entry.

# %%
rng = np.random.default_rng(0)
B, A = rng.normal(size=(100, 8)), rng.normal(size=(8, 120))
product = B @ A
noisy = product + 1e-4 * product.std() * rng.normal(size=product.shape)

print("rank of the product:          ", lnp.matrix_rank(product))
print("rank of the product with noise:", lnp.matrix_rank(noisy))

# %% [markdown]
# Noise that you could not see in a picture has raised the rank from 8 to 100, the largest possible: **full rank**. A random column is
# almost never a combination of the others. Most measurements have noise in each entry, so **measured data has full rank, unless its rows or
# columns are linearly related by construction**<!-- proof: matrices of lower rank have no volume among all; noise in each entry meets none
# of them -->.
#
# Such relations are common. A pixel that is black in every picture is a column of zeros. A column of totals is the sum of other columns. A
# column for "yes" and a column for "no" add up to a column of ones. Rows add up to zero once their mean has been subtracted.
#
# You can still find the 8 if you measure sizes instead of counting. The **singular values** of a matrix, the subject of *Cut the SVD*, say
# how strong the matrix is in its strongest direction, in the next strongest, and so on. The rank is the number of singular values that are
# not zero. The picture shows them, the largest first. Each line of the vertical axis stands for a tenth of the line above it:

# %% alt="Singular values against their index. The values of the product end after the eighth. Those of the product with noise fall by a factor of ten thousand after the eighth, then continue to the hundredth."
singular_values = {
    "with noise": np.linalg.svdvals(noisy),
    "B A": np.linalg.svdvals(product)[:8],  # the other 92 are zero, up to rounding
}
axes = lnp.plots.singular_spectrum(singular_values, rank=8)

eighth, ninth = np.linalg.svdvals(noisy)[7:9]
assert eighth > 1_000 * ninth

# %% [markdown]
# After the eighth value there is a cliff: the ninth is more than 1,000 times smaller. The rest is noise. So do not ask for the rank of
# data. Ask which rank is enough: how many directions must you keep so that the missing part is small compared with the whole matrix? (A
# matrix's size is the square root of the sum of its squared entries.)

# %%
rank = lnp.rank_for_error(noisy, tolerance=0.001)
print("rank that is enough if 0.1 % may be missing:", rank)
assert rank == 8

# %% [markdown]
# ## The law
#
# - The rank of a matrix is the number of its independent columns, of its independent rows, and of the
#   directions that its outputs need.
# - A $d \times k$ matrix has rank $\min(d, k)$ at most. With noise in each entry, it almost always has this rank.
# - If $B$ is $d \times r$ and $A$ is $r \times k$, then $BA$ has rank $r$ at most. Every $d \times k$ matrix of rank $r$ is such a product.
# - The rank of a sum is at most the sum of the ranks. The rank of a product is at most the smaller rank.
#
# **LoRA** rests on the third law. To adapt a trained model to a new task, its large matrices have to change. LoRA writes the change of each
# matrix as a product $BA$ of two thin matrices, and trains only these.
#
# ## What you can do now
#
# You can read $\text{rank}(BA) \le r$ in the paper and see why it is true. Try this, in the notebook:
#
# - Change one entry of $M$ so that its rank becomes 3. Then change as many entries as you need to make the rank 1.
#
#   <details><summary>Answer</summary>
#
#   Change any entry of the last column: with 3 instead of the last 2, column 2 is no longer the sum of the others, and the rank is 3. For
#   rank 1, all rows must be multiples of one row. Four changes are enough: make the second row $(0, 0, 0)$ and the third $(2, 4, 6)$.
#
#   </details>
# - Draw the flag of your country. What is its rank, and which rows does it need?
#
#   <details><summary>Answer</summary>
#
#   Bands give rank 1, whether they are vertical or horizontal. A plain cross, as in the flags of Denmark, Sweden and Finland, gives rank 2:
#   one row goes through its horizontal bar, and one does not. The bordered crosses of Norway and Iceland give 3. Slanted lines and stars
#   need a high rank.
#
#   </details>
# - Make the noise 1,000 times stronger. Where is the cliff now, and which rank is enough if 10 % may be missing?
#
#   <details><summary>Answer</summary>
#
#   The cliff is still after the eighth value, but it is lower: the values fall by a factor of 12 there, instead of 1,000 or more. With a
#   tolerance of 0.1 the answer is again 8.
#
#   </details>
#
# ## Further reading
#
# *More: the path goes on without this section.*
#
# - G. Strang, *Introduction to Linear Algebra*, 5th edition, Wellesley-Cambridge Press 2016, sections 3.4 and
#   3.5: independence, basis, and why rows and columns have the same rank.
# - E. Hu et al., *LoRA: Low-Rank Adaptation of Large Language Models*,
#   [arXiv 2106.09685](https://arxiv.org/abs/2106.09685), sections 1 and 4.1: where the rank enters.
# - NumPy's [`matrix_rank`](https://numpy.org/doc/stable/reference/generated/numpy.linalg.matrix_rank.html):
#   how small a singular value must be to count as zero.
