"""Solutions, and what is usually done wrong."""

import numpy as np

from lora_np.grading import mistake


def matmul_gradients(g, a, b):
    return g @ b.T, a.T @ g


@mistake("no transposes", breaks="A call ends without an error")
def matmul_gradients(g, a, b):
    return g @ b, a @ g


@mistake("the two exchanged", breaks="The shape of the gradient of a")
def matmul_gradients(g, a, b):
    return a.T @ g, g @ b.T


@mistake("forgets g", breaks="A small change of a changes the loss")
def matmul_gradients(g, a, b):
    ones = np.ones_like(g)
    return ones @ b.T, a.T @ ones


@mistake("one of two", breaks="A small change of b changes the loss")
def matmul_gradients(g, a, b):
    return g @ b.T, np.zeros_like(b)


def swish_gradient(g, x):
    sigma = 1 / (1 + np.exp(-x))
    return g * (sigma + x * sigma * (1 - sigma))


@mistake("half of the product rule", breaks="The rule agrees with central differences")
def swish_gradient(g, x):
    return g / (1 + np.exp(-x))


@mistake("forgets g", breaks="A gradient is linear in g")
def swish_gradient(g, x):
    sigma = 1 / (1 + np.exp(-x))
    return sigma + x * sigma * (1 - sigma)


@mistake("the derivative of the sigmoid", breaks="The rule agrees with central differences")
def swish_gradient(g, x):
    sigma = 1 / (1 + np.exp(-x))
    return g * sigma * (1 - sigma)


@mistake("summed up", breaks="The shape of the gradient")
def swish_gradient(g, x):
    sigma = 1 / (1 + np.exp(-x))
    return np.sum(g * (sigma + x * sigma * (1 - sigma)))


def slope(f, x):
    result = np.zeros(x.shape)
    step = 1e-4
    for place in np.ndindex(x.shape):
        move = np.zeros(x.shape)
        move[place] = step
        result[place] = (f(x + move) - f(x - move)) / (2 * step)
    return result


@mistake("one side only", breaks="Central differences give the slope of a square exactly")
def slope(f, x):
    result = np.zeros(x.shape)
    step = 1e-4
    for place in np.ndindex(x.shape):
        move = np.zeros(x.shape)
        move[place] = step
        result[place] = (f(x + move) - f(x)) / step
    return result


@mistake("divides by one step", breaks="Central differences give the slope of a square exactly")
def slope(f, x):
    result = np.zeros(x.shape)
    step = 1e-4
    for place in np.ndindex(x.shape):
        move = np.zeros(x.shape)
        move[place] = step
        result[place] = (f(x + move) - f(x - move)) / step
    return result


@mistake("moves x itself and leaves it there", breaks="your function has changed x")
def slope(f, x):
    result = np.zeros(x.shape)
    step = 1e-4
    for place in np.ndindex(x.shape):
        x[place] += step
        up = f(x)
        x[place] -= 2 * step
        result[place] = (up - f(x)) / (2 * step)
    return result


@mistake("moves all entries at once", breaks="The shape of the slope")
def slope(f, x):
    step = 1e-4
    return (f(x + step) - f(x - step)) / (2 * step)


@mistake("forgets the shape", breaks="The shape of the slope")
def slope(f, x):
    result = []
    step = 1e-4
    for place in np.ndindex(x.shape):
        move = np.zeros(x.shape)
        move[place] = step
        result.append((f(x + move) - f(x - move)) / (2 * step))
    return result


def unbroadcast(g, shape):
    g = g.sum(axis=tuple(range(g.ndim - len(shape))))
    return g.sum(axis=tuple(i for i, n in enumerate(shape) if n == 1), keepdims=True)


@mistake("the mean of the copies", breaks="Summing down is the transpose of broadcasting")
def unbroadcast(g, shape):
    g = g.mean(axis=tuple(range(g.ndim - len(shape))))
    return g.mean(axis=tuple(i for i, n in enumerate(shape) if n == 1), keepdims=True)


@mistake("the first of the copies", breaks="Summing down is the transpose of broadcasting")
def unbroadcast(g, shape):
    while g.ndim > len(shape):
        g = g[0]
    for i, n in enumerate(shape):
        if n == 1:
            g = g.take([0], axis=i)
    return g


@mistake("only axes in front", breaks="The shape of the gradient")
def unbroadcast(g, shape):
    return g.sum(axis=tuple(range(g.ndim - len(shape))))


@mistake("only stretched axes", breaks="The shape of the gradient")
def unbroadcast(g, shape):
    return g.sum(axis=tuple(i for i, n in enumerate(shape) if n == 1), keepdims=True)


@mistake("the total, everywhere", breaks="Summing down is the transpose of broadcasting")
def unbroadcast(g, shape):
    return np.full(shape, g.sum())


def backward(parents, slopes):
    gradient = [0.0] * len(parents)
    gradient[-1] = 1.0
    for i in reversed(range(len(parents))):
        for parent, factor in zip(parents[i], slopes[i]):
            gradient[parent] += gradient[i] * factor
    return gradient


@mistake("the last path wins", breaks="Gradients of all paths")
def backward(parents, slopes):
    gradient = [0.0] * len(parents)
    gradient[-1] = 1.0
    for i in reversed(range(len(parents))):
        for parent, factor in zip(parents[i], slopes[i]):
            gradient[parent] = gradient[i] * factor
    return gradient


@mistake("starts with zero", breaks="The last number moves with itself")
def backward(parents, slopes):
    gradient = [0.0] * len(parents)
    for i in reversed(range(len(parents))):
        for parent, factor in zip(parents[i], slopes[i]):
            gradient[parent] += gradient[i] * factor
    return gradient


@mistake("from the first to the last", breaks="Gradients of all paths")
def backward(parents, slopes):
    gradient = [0.0] * len(parents)
    gradient[-1] = 1.0
    for i in range(len(parents)):
        for parent, factor in zip(parents[i], slopes[i]):
            gradient[parent] += gradient[i] * factor
    return gradient


@mistake("one step only", breaks="Gradients of all paths")
def backward(parents, slopes):
    gradient = [0.0] * len(parents)
    gradient[-1] = 1.0
    for parent, factor in zip(parents[-1], slopes[-1]):
        gradient[parent] += factor
    return gradient


@mistake("adds slopes along a path", breaks="Gradients of all paths")
def backward(parents, slopes):
    gradient = [0.0] * len(parents)
    gradient[-1] = 1.0
    for i in reversed(range(len(parents))):
        for parent, factor in zip(parents[i], slopes[i]):
            gradient[parent] += gradient[i] + factor
    return gradient
