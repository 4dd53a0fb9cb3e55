"""What is usually done wrong, and other ways to be right."""

import numpy as np

import lora_np as lnp
from tests.attempts import alternative, mistake


@mistake("no transposes", breaks="gradients")
def matmul_gradients(g, a, b):
    return g @ b, a @ g


@mistake("the two exchanged", breaks="gradients")
def matmul_gradients(g, a, b):
    return a.T @ g, g @ b.T


@mistake("forgets g", breaks="gradients")
def matmul_gradients(g, a, b):
    ones = np.ones_like(g)
    return ones @ b.T, a.T @ ones


@mistake("one of two", breaks="gradients")
def matmul_gradients(g, a, b):
    return g @ b.T, np.zeros_like(b)


@mistake("half of the product rule", breaks="rule")
def swish_gradient(g, x):
    return g / (1 + np.exp(-x))


@mistake("forgets g", breaks="rule")
def swish_gradient(g, x):
    sigma = 1 / (1 + np.exp(-x))
    return sigma + x * sigma * (1 - sigma)


@mistake("the derivative of the sigmoid", breaks="rule")
def swish_gradient(g, x):
    sigma = 1 / (1 + np.exp(-x))
    return g * sigma * (1 - sigma)


@mistake("summed up", breaks="rule")
def swish_gradient(g, x):
    sigma = 1 / (1 + np.exp(-x))
    return np.sum(g * (sigma + x * sigma * (1 - sigma)))


@mistake("one side only", breaks="square")
def slope(f, x):
    result = np.zeros(x.shape)
    step = 1e-4
    for place in np.ndindex(x.shape):
        move = np.zeros(x.shape)
        move[place] = step
        result[place] = (f(x + move) - f(x)) / step
    return result


@mistake("divides by one step", breaks="linear")
def slope(f, x):
    result = np.zeros(x.shape)
    step = 1e-4
    for place in np.ndindex(x.shape):
        move = np.zeros(x.shape)
        move[place] = step
        result[place] = (f(x + move) - f(x - move)) / step
    return result


@mistake("moves x itself and leaves it there", breaks="linear")
def slope(f, x):
    result = np.zeros(x.shape)
    step = 1e-4
    for place in np.ndindex(x.shape):
        x[place] += step
        up = f(x)
        x[place] -= 2 * step
        result[place] = (up - f(x)) / (2 * step)
    return result


@mistake("moves all entries at once", breaks="linear")
def slope(f, x):
    step = 1e-4
    return (f(x + step) - f(x - step)) / (2 * step)


@mistake("forgets the shape", breaks="linear")
def slope(f, x):
    result = []
    step = 1e-4
    for place in np.ndindex(x.shape):
        move = np.zeros(x.shape)
        move[place] = step
        result.append((f(x + move) - f(x - move)) / (2 * step))
    return result


@mistake("the mean of the copies", breaks="front")
def unbroadcast(g, shape):
    g = g.mean(axis=tuple(range(g.ndim - len(shape))))
    return g.mean(axis=tuple(i for i, n in enumerate(shape) if n == 1), keepdims=True)


@mistake("the first of the copies", breaks="front")
def unbroadcast(g, shape):
    while g.ndim > len(shape):
        g = g[0]
    for i, n in enumerate(shape):
        if n == 1:
            g = g.take([0], axis=i)
    return g


@mistake("only axes in front", breaks="ones")
def unbroadcast(g, shape):
    return g.sum(axis=tuple(range(g.ndim - len(shape))))


@mistake("only stretched axes", breaks="front")
def unbroadcast(g, shape):
    return g.sum(axis=tuple(i for i, n in enumerate(shape) if n == 1), keepdims=True)


@mistake("the total, everywhere", breaks="front")
def unbroadcast(g, shape):
    return np.full(shape, g.sum())


@mistake("the last path wins", breaks="paths")
def backward(parents, slopes):
    gradient = [0.0] * len(parents)
    gradient[-1] = 1.0
    for i in reversed(range(len(parents))):
        for parent, factor in zip(parents[i], slopes[i]):
            gradient[parent] = gradient[i] * factor
    return gradient


@mistake("starts with zero", breaks="chain")
def backward(parents, slopes):
    gradient = [0.0] * len(parents)
    for i in reversed(range(len(parents))):
        for parent, factor in zip(parents[i], slopes[i]):
            gradient[parent] += gradient[i] * factor
    return gradient


@mistake("from the first to the last", breaks="chain")
def backward(parents, slopes):
    gradient = [0.0] * len(parents)
    gradient[-1] = 1.0
    for i in range(len(parents)):
        for parent, factor in zip(parents[i], slopes[i]):
            gradient[parent] += gradient[i] * factor
    return gradient


@mistake("one step only", breaks="chain")
def backward(parents, slopes):
    gradient = [0.0] * len(parents)
    gradient[-1] = 1.0
    for parent, factor in zip(parents[-1], slopes[-1]):
        gradient[parent] += factor
    return gradient


@mistake("adds slopes along a path", breaks="chain")
def backward(parents, slopes):
    gradient = [0.0] * len(parents)
    gradient[-1] = 1.0
    for i in reversed(range(len(parents))):
        for parent, factor in zip(parents[i], slopes[i]):
            gradient[parent] += gradient[i] + factor
    return gradient


@mistake("the first and the last axis only", breaks="ones")
def unbroadcast(g, shape):
    g = g.sum(axis=tuple(range(g.ndim - len(shape))))
    if shape and shape[0] == 1:
        g = g.sum(axis=0, keepdims=True)
    if shape and shape[-1] == 1:
        g = g.sum(axis=-1, keepdims=True)
    return g


@mistake("adds to all parents at once, so a repeated one gets one of two", breaks="repeats")
def backward(parents, slopes):
    gradient = np.zeros(len(parents))
    gradient[-1] = 1.0
    for i in reversed(range(len(parents))):
        if parents[i]:
            gradient[parents[i]] += gradient[i] * np.array(slopes[i])
    return gradient


@alternative("the simpler form")
def swish_gradient(g, x):
    sigma = 0.5 * (1 + np.tanh(x / 2))
    return g * sigma * (1 + x * (1 - sigma))


@alternative("a larger step")
def slope(f, x):
    result = np.empty(x.shape)
    for place in np.ndindex(x.shape):
        up, down = np.array(x, dtype=float), np.array(x, dtype=float)
        up[place] += 1e-2
        down[place] -= 1e-2
        result[place] = (f(up) - f(down)) / 2e-2
    return result


@alternative("axis by axis")
def unbroadcast(g, shape):
    while g.ndim > len(shape):
        g = g.sum(axis=0)
    for axis, n in enumerate(shape):
        if n < g.shape[axis]:
            g = g.sum(axis=axis, keepdims=True)
    return g


@alternative("all paths, as powers of a matrix")
def backward(parents, slopes):
    n = len(parents)
    J = np.zeros((n, n))
    for i in range(n):
        for parent, factor in zip(parents[i], slopes[i]):
            J[i, parent] += factor
    total = power = np.eye(n)
    for _ in range(n):
        power = power @ J
        total = total + power
    return total[-1]


@mistake("the transposes on the wrong factors", breaks="gradients")
def matmul_gradients(g, a, b):
    return np.resize(g.T @ a, a.shape), np.resize(b @ g.T, b.shape)


@mistake("both the same product", breaks="gradients")
def matmul_gradients(g, a, b):
    return g @ b.T, (g @ b.T).T @ g


@mistake("the mean over the rows", breaks="gradients")
def matmul_gradients(g, a, b):
    return g @ b.T, a.T @ g / len(a)


@mistake("signs of the factors only", breaks="gradients")
def matmul_gradients(g, a, b):
    return g @ np.sign(b).T, np.sign(a).T @ g


@mistake("the factors themselves", breaks="gradients")
def matmul_gradients(g, a, b):
    return a, b


@mistake("twice", breaks="gradients")
def matmul_gradients(g, a, b):
    return 2 * g @ b.T, 2 * a.T @ g


@mistake("gradients transposed", breaks="gradients")
def matmul_gradients(g, a, b):
    return (g @ b.T).T, (a.T @ g).T


@alternative("by einsum")
def matmul_gradients(g, a, b):
    return np.einsum("nm,km->nk", g, b), np.einsum("nk,nm->km", a, g)


@alternative("with Tensors")
def matmul_gradients(g, a, b):
    a, b = lnp.Tensor(a * 1.0), lnp.Tensor(b * 1.0)
    np.sum((a @ b) * g).backward()
    return a.grad, b.grad


@alternative("row by row")
def matmul_gradients(g, a, b):
    return [b @ row for row in g], sum(np.outer(x, y) for x, y in zip(a, g))


@alternative("tensordot")
def matmul_gradients(g, a, b):
    return np.tensordot(g, b, axes=(1, 1)), np.tensordot(a, g, axes=(0, 0))


@mistake("the slope of the sigmoid without x", breaks="rule")
def swish_gradient(g, x):
    sigma = 1 / (1 + np.exp(-x))
    return g * (sigma + sigma * (1 - sigma))


@mistake("x squared", breaks="rule")
def swish_gradient(g, x):
    sigma = 1 / (1 + np.exp(-x))
    return g * (sigma + x**2 * sigma * (1 - sigma))


@mistake("the sign of the exponent", breaks="rule")
def swish_gradient(g, x):
    sigma = 1 / (1 + np.exp(x))
    return g * (sigma + x * sigma * (1 - sigma))


@mistake("subtracts the second path", breaks="rule")
def swish_gradient(g, x):
    sigma = 1 / (1 + np.exp(-x))
    return g * (sigma - x * sigma * (1 - sigma))


@mistake("a smooth step for the sigmoid's slope", breaks="rule")
def swish_gradient(g, x):
    sigma = 1 / (1 + np.exp(-x))
    return g * (sigma + x * (1 - sigma**2))


@mistake("swish itself", breaks="rule")
def swish_gradient(g, x):
    return g * x / (1 + np.exp(-x))


@mistake("the slope of relu", breaks="rule")
def swish_gradient(g, x):
    return g * (x > 0)


@mistake("the mean", breaks="rule")
def swish_gradient(g, x):
    sigma = 1 / (1 + np.exp(-x))
    return g * (sigma + x * sigma * (1 - sigma)) / x.size


@alternative("with a Tensor")
def swish_gradient(g, x):
    x = lnp.Tensor(np.array(x, dtype=float))
    np.sum(g * x * (1 + np.tanh(x / 2)) / 2).backward()
    return x.grad


@alternative("from y")
def swish_gradient(g, x):
    sigma = 1 / (1 + np.exp(-x))
    y = x * sigma
    return g * (y + sigma * (1 - y))


@alternative("in two halves, without overflow")
def swish_gradient(g, x):
    e = np.exp(-np.abs(x))
    sigma = np.where(x >= 0, 1 / (1 + e), e / (1 + e))
    return g * sigma * (1 + x * (1 - sigma))


@alternative("as a quotient")
def swish_gradient(g, x):
    e = np.exp(-np.minimum(np.abs(x), 700))
    below, above = e + e**2 + x * e, 1 + e + x * e
    return g * np.where(x < 0, below, above) / (1 + e) ** 2


@mistake("as a quotient that overflows", breaks="rule")
def swish_gradient(g, x):
    e = np.exp(-x)
    return g * (1 + e + x * e) / (1 + e) ** 2


@mistake("with a Tensor, through an exponential that overflows", breaks="rule")
def swish_gradient(g, x):
    x = lnp.Tensor(np.array(x, dtype=float))
    np.sum(g * (x / (1 + np.exp(-x)))).backward()
    return x.grad


@mistake("moves along rows only", breaks="linear")
def slope(f, x):
    result = np.zeros(x.shape)
    step = 1e-4
    for i in range(len(x)):
        move = np.zeros(x.shape)
        move[i] = step
        result[i] = (f(x + move) - f(x - move)) / (2 * step)
    return result


@mistake("a step of one to one side", breaks="square")
def slope(f, x):
    result = np.zeros(x.shape)
    for place in np.ndindex(x.shape):
        move = np.zeros(x.shape)
        move[place] = 1
        result[place] = f(x + move) - f(x)
    return result


@mistake("a step that is lost in rounding", breaks="linear")
def slope(f, x):
    result = np.zeros(x.shape)
    for place in np.ndindex(x.shape):
        move = np.zeros(x.shape)
        move[place] = 1e-15
        result[place] = (f(x + move) - f(x - move)) / 2e-15
    return result


@mistake("the wrong sign", breaks="linear")
def slope(f, x):
    result = np.zeros(x.shape)
    for place in np.ndindex(x.shape):
        move = np.zeros(x.shape)
        move[place] = 1e-4
        result[place] = (f(x - move) - f(x + move)) / 2e-4
    return result


@mistake("the value, not the slope", breaks="linear")
def slope(f, x):
    return np.full(x.shape, f(x))


@mistake("at zero", breaks="square")
def slope(f, x):
    result = np.zeros(x.shape)
    for place in np.ndindex(x.shape):
        move = np.zeros(x.shape)
        move[place] = 1e-4
        result[place] = (f(move) - f(-move)) / 2e-4
    return result


@mistake("a relative step, none at zero", breaks="linear")
def slope(f, x):
    result = np.zeros(x.shape)
    for place in np.ndindex(x.shape):
        step = 1e-4 * abs(x[place])
        move = np.zeros(x.shape)
        move[place] = step
        result[place] = (f(x + move) - f(x - move)) / (2 * step) if step else 0
    return result


@alternative("flat, with a unit step")
def slope(f, x):
    flat = x.ravel().astype(float)
    found = []
    for i in range(x.size):
        up, down = flat.copy(), flat.copy()
        up[i], down[i] = up[i] + 1, down[i] - 1
        found.append((f(up.reshape(x.shape)) - f(down.reshape(x.shape))) / 2)
    return np.array(found).reshape(x.shape)


@alternative("a step as large as the entries")
def slope(f, x):
    step = 1e-3 * max(1.0, np.abs(x).max())
    moves = step * np.eye(x.size).reshape(x.size, *x.shape)
    return np.reshape([(f(x + m) - f(x - m)) / (2 * step) for m in moves], x.shape)


@alternative("nditer")
def slope(f, x):
    x, result = np.array(x, dtype=float), np.zeros(x.shape)
    walk = np.nditer(x, flags=["multi_index"])
    for _ in walk:
        i = walk.multi_index
        old = x[i]
        x[i] = old + 1e-3
        up = f(x)
        x[i] = old - 1e-3
        result[i] = (up - f(x)) / 2e-3
        x[i] = old
    return result


@alternative("four points")
def slope(f, x):
    result, h = np.zeros(x.shape), 1e-2
    for place in np.ndindex(x.shape):
        e = np.zeros(x.shape)
        e[place] = h
        near, far = f(x + e) - f(x - e), f(x + 2 * e) - f(x - 2 * e)
        result[place] = (8 * near - far) / (12 * h)
    return result


@mistake("a reshape", breaks="front")
def unbroadcast(g, shape):
    return np.resize(g, shape)


@mistake("stretched axes lost", breaks="front")
def unbroadcast(g, shape):
    g = g.sum(axis=tuple(range(g.ndim - len(shape))))
    return g.sum(axis=tuple(i for i, n in enumerate(shape) if n == 1))


@mistake("axes added at the end", breaks="front")
def unbroadcast(g, shape):
    while g.ndim > len(shape):
        g = g.sum(axis=-1)
    return g.sum(axis=tuple(i for i, n in enumerate(shape) if n == 1), keepdims=True)


@mistake("one axis in front", breaks="front")
def unbroadcast(g, shape):
    if g.ndim > len(shape):
        g = g.sum(axis=0)
    return g.sum(axis=tuple(i for i, n in enumerate(shape) if n == 1), keepdims=True)


@mistake("the largest of the copies", breaks="front")
def unbroadcast(g, shape):
    g = g.max(axis=tuple(range(g.ndim - len(shape))))
    return g.max(axis=tuple(i for i, n in enumerate(shape) if n == 1), keepdims=True)


@mistake("one stretched axis", breaks="ones")
def unbroadcast(g, shape):
    g = g.sum(axis=tuple(range(g.ndim - len(shape))))
    for i, n in enumerate(shape):
        if n == 1 and g.shape[i] > 1:
            return g.sum(axis=i, keepdims=True)
    return g


@mistake("as it came", breaks="front")
def unbroadcast(g, shape):
    return g


@alternative("both at once, then the shape")
def unbroadcast(g, shape):
    new = g.ndim - len(shape)
    axes = tuple(range(new)) + tuple(new + i for i, n in enumerate(shape) if n == 1)
    return g.sum(axis=axes).reshape(shape)


@alternative("entry by entry")
def unbroadcast(g, shape):
    result = np.zeros(shape, dtype=g.dtype)
    for place in np.ndindex(g.shape):
        own = place[g.ndim - len(shape) :]
        result[tuple(0 if n == 1 else i for i, n in zip(own, shape))] += g[place]
    return result


@alternative("np.add.at on a view of indices")
def unbroadcast(g, shape):
    result = np.zeros(int(np.prod(shape)), dtype=g.dtype)
    places = np.broadcast_to(np.arange(result.size).reshape(shape), g.shape)
    np.add.at(result, places.ravel(), g.ravel())
    return result.reshape(shape)


@alternative("ones in front of the shape")
def unbroadcast(g, shape):
    full = (1,) * (g.ndim - len(shape)) + tuple(shape)
    for axis in range(g.ndim):
        if full[axis] != g.shape[axis]:
            g = np.sum(g, axis=axis, keepdims=True)
    return np.reshape(g, shape)


@mistake("forgets slopes", breaks="chain")
def backward(parents, slopes):
    gradient = [0.0] * len(parents)
    gradient[-1] = 1.0
    for i in reversed(range(len(parents))):
        for parent in parents[i]:
            gradient[parent] += gradient[i]
    return gradient


@mistake("the first parent only", breaks="paths")
def backward(parents, slopes):
    gradient = [0.0] * len(parents)
    gradient[-1] = 1.0
    for i in reversed(range(len(parents))):
        if parents[i]:
            gradient[parents[i][0]] += gradient[i] * slopes[i][0]
    return gradient


@mistake("every number starts with one", breaks="chain")
def backward(parents, slopes):
    gradient = [1.0] * len(parents)
    for i in reversed(range(len(parents))):
        for parent, factor in zip(parents[i], slopes[i]):
            gradient[parent] += gradient[i] * factor
    return gradient


@mistake("the slope alone", breaks="chain")
def backward(parents, slopes):
    gradient = [0.0] * len(parents)
    gradient[-1] = 1.0
    for i in reversed(range(len(parents))):
        for parent, factor in zip(parents[i], slopes[i]):
            gradient[parent] += factor
    return gradient


@mistake("repeats dropped", breaks="repeats")
def backward(parents, slopes):
    gradient = [0.0] * len(parents)
    gradient[-1] = 1.0
    for i in reversed(range(len(parents))):
        for parent, factor in dict(zip(parents[i], slopes[i])).items():
            gradient[parent] += gradient[i] * factor
    return gradient


@mistake("walks depth first, and visits no number twice", breaks="paths")
def backward(parents, slopes):
    gradient, seen = [0.0] * len(parents), set()
    gradient[-1] = 1.0

    def visit(i):
        seen.add(i)
        for parent, factor in zip(parents[i], slopes[i]):
            gradient[parent] += gradient[i] * factor
            if parent not in seen:
                visit(parent)

    visit(len(parents) - 1)
    return gradient


@mistake("walks all paths, and adds what has already been passed on", breaks="paths")
def backward(parents, slopes):
    gradient = [0.0] * len(parents)
    gradient[-1] = 1.0

    def visit(i):
        for parent, factor in zip(parents[i], slopes[i]):
            gradient[parent] += gradient[i] * factor
            visit(parent)

    visit(len(parents) - 1)
    return gradient


@mistake("the largest path only", breaks="paths")
def backward(parents, slopes):
    gradient = [0.0] * len(parents)
    gradient[-1] = 1.0
    for i in reversed(range(len(parents))):
        for parent, factor in zip(parents[i], slopes[i]):
            gradient[parent] = max(gradient[parent], gradient[i] * factor, key=abs)
    return gradient


@alternative("solves a triangle of equations")
def backward(parents, slopes):
    n = len(parents)
    J = np.zeros((n, n))
    for i in range(n):
        np.add.at(J[i], np.array(parents[i], dtype=int), slopes[i])
    last = np.zeros(n)
    last[-1] = 1
    return np.linalg.solve(np.eye(n) - J.T, last)


@alternative("forward, one number at a time")
def backward(parents, slopes):
    found = []
    for source in range(len(parents)):
        tangent = [float(i == source) for i in range(len(parents))]
        for i in range(len(parents)):
            tangent[i] += sum(tangent[p] * s for p, s in zip(parents[i], slopes[i]))
        found.append(tangent[-1])
    return found


@alternative("asks the children")
def backward(parents, slopes):
    n = len(parents)
    gradient = np.zeros(n)
    gradient[n - 1] = 1
    for i in range(n - 2, -1, -1):
        for child in range(i + 1, n):
            for p, s in zip(parents[child], slopes[child]):
                if p == i:
                    gradient[i] += gradient[child] * s
    return gradient


@alternative("np.add.at, which counts repeats")
def backward(parents, slopes):
    gradient = np.zeros(len(parents))
    gradient[-1] = 1.0
    for i in range(len(parents) - 1, -1, -1):
        np.add.at(
            gradient,
            np.array(parents[i], dtype=int),
            gradient[i] * np.array(slopes[i], dtype=float),
        )
    return gradient.tolist()


@mistake("recursion over all paths", breaks="paths")
def backward(parents, slopes):
    n = len(parents)

    def by(i, j):
        return float(i == j) + sum(s * by(p, j) for p, s in zip(parents[i], slopes[i]))

    return [by(n - 1, j) for j in range(n)]
