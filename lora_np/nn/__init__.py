"""Layers, losses, optimizers, and the tree that a model is."""

from lora_np.nn.layers import Activation, Embedding, Linear, Sequential, dropout, gelu, relu, sigmoid, softmax
from lora_np.nn.losses import accuracy, cross_entropy, mean_squared_error
from lora_np.nn.modules import layer_specs
from lora_np.nn.optim import SGD, Adam, AdamW, Groups, Optimizer, Run, start
from lora_np.nn.schedules import cosine_schedule, linear_schedule, rate_at
from lora_np.nn.tree import freeze, join, leaves, replace, trainable, walk

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
    "cosine_schedule",
    "cross_entropy",
    "dropout",
    "freeze",
    "gelu",
    "join",
    "layer_specs",
    "leaves",
    "linear_schedule",
    "mean_squared_error",
    "rate_at",
    "relu",
    "replace",
    "sigmoid",
    "softmax",
    "start",
    "trainable",
    "walk",
]
