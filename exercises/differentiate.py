"""What is usually done wrong, and other ways to be right."""

import numpy as np

from lora_np.grading import alternative, mistake


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


@mistake("the last path wins", breaks="chain")
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
