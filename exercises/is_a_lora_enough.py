"""What is usually done wrong, and other ways to be right."""

import numpy as np

from lora_np.grading import alternative, mistake


@mistake("nats taken for bits", breaks="bits")
def bits_per_number(losses, classes, d, k, r):
    return np.sum(np.log2(classes) - losses) / (r * (d + k))


@mistake("all that was asked", breaks="bits")
def bits_per_number(losses, classes, d, k, r):
    return len(losses) * np.log2(classes) / (r * (d + k))


@mistake("nothing below zero", breaks="bits")
def bits_per_number(losses, classes, d, k, r):
    return max(0.0, np.sum(np.log2(classes) - losses / np.log(2))) / (r * (d + k))


@mistake("no label below zero", breaks="bits")
def bits_per_number(losses, classes, d, k, r):
    return np.maximum(0, np.log2(classes) - losses / np.log(2)).sum() / (r * (d + k))


@mistake("held in nats", breaks="numbers")
def bits_per_number(losses, classes, d, k, r):
    return np.sum(np.log(classes) - losses) / (r * (d + k))


@mistake("one label", breaks="numbers")
def bits_per_number(losses, classes, d, k, r):
    return np.mean(np.log2(classes) - losses / np.log(2)) / (r * (d + k))


@mistake("the numbers of the matrix", breaks="numbers")
def bits_per_number(losses, classes, d, k, r):
    return np.sum(np.log2(classes) - losses / np.log(2)) / (d * k)


@mistake("the numbers of A alone", breaks="numbers")
def bits_per_number(losses, classes, d, k, r):
    return np.sum(np.log2(classes) - losses / np.log(2)) / (r * k)


@mistake("not divided", breaks="numbers")
def bits_per_number(losses, classes, d, k, r):
    return np.sum(np.log2(classes) - losses / np.log(2))


@mistake("chosen on the test text", breaks="own")
def fair_shares(base, validation, test):
    loss = test.mean(axis=2).min(axis=1)
    return (base - loss) / (base - loss[0])


@mistake("all at the full update's rate", breaks="own")
def fair_shares(base, validation, test):
    loss = test[:, validation[0].argmin()].mean(axis=1)
    return (base - loss) / (base - loss[0])


@mistake("all at the rate that is best on average", breaks="own")
def fair_shares(base, validation, test):
    loss = test[:, validation.mean(axis=0).argmin()].mean(axis=1)
    return (base - loss) / (base - loss[0])


@mistake("the validation losses themselves", breaks="own")
def fair_shares(base, validation, test):
    loss = validation.min(axis=1)
    with np.errstate(all="ignore"):
        return (base - loss) / (base - loss[0])


@mistake("a ratio of losses", breaks="own")
def fair_shares(base, validation, test):
    loss = test[np.arange(len(test)), validation.argmin(axis=1)].mean(axis=1)
    with np.errstate(all="ignore"):
        return loss[0] / loss


@mistake("the luckiest seed", breaks="seeds")
def fair_shares(base, validation, test):
    loss = test[np.arange(len(test)), validation.argmin(axis=1)].min(axis=1)
    return (base - loss) / (base - loss[0])


@mistake("the first seed", breaks="seeds")
def fair_shares(base, validation, test):
    loss = test[np.arange(len(test)), validation.argmin(axis=1), 0]
    with np.errstate(all="ignore"):
        return (base - loss) / (base - loss[0])


@alternative("label by label")
def bits_per_number(losses, classes, d, k, r):
    return sum(np.log2(classes * np.exp(-loss)) for loss in losses) / (d * r + r * k)


@alternative("contestant by contestant")
def fair_shares(base, validation, test):
    gains = []
    for row, runs in zip(validation, test, strict=True):
        best = min(range(len(row)), key=lambda j: row[j])
        gains.append(base - np.mean(runs[best]))
    return [gain / gains[0] for gain in gains]
