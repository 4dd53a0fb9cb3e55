"""Layers, losses, optimizers, and the tree that a model is."""

from lora_np.nn.layers import Activation, Embedding, Linear, Sequential, dropout, gelu, relu, sigmoid, softmax
from lora_np.nn.losses import accuracy, cross_entropy, mean_squared_error
from lora_np.nn.optim import SGD, Adam, AdamW, Groups, Optimizer, Run, start
from lora_np.nn.schedules import cosine, linear
from lora_np.nn.tree import freeze, leaves, replace, trainable

__all__ = [
    "SGD",
    "Activation",
    "Adam",
    "AdamW",
    "Embedding",
    "Groups",
    "Linear",
    "Optimizer",
    "Run",
    "Sequential",
    "accuracy",
    "cosine",
    "cross_entropy",
    "dropout",
    "freeze",
    "gelu",
    "leaves",
    "linear",
    "mean_squared_error",
    "relu",
    "replace",
    "sigmoid",
    "softmax",
    "start",
    "trainable",
]
