"""What is usually done wrong, and other ways to be right."""

import numpy as np

from tests.attempts import alternative, mistake


@mistake("nats taken for bits", breaks="bits")
def bits_per_parameter(losses, classes, d, k, r):
    return np.sum(np.log2(classes) - losses) / (r * (d + k))


@mistake("all that was asked", breaks="bits")
def bits_per_parameter(losses, classes, d, k, r):
    return len(losses) * np.log2(classes) / (r * (d + k))


@mistake("nothing below zero", breaks="bits")
def bits_per_parameter(losses, classes, d, k, r):
    return max(0.0, np.sum(np.log2(classes) - losses / np.log(2))) / (r * (d + k))


@mistake("no label below zero", breaks="bits")
def bits_per_parameter(losses, classes, d, k, r):
    return np.maximum(0, np.log2(classes) - losses / np.log(2)).sum() / (r * (d + k))


@mistake("held in nats", breaks="parameters")
def bits_per_parameter(losses, classes, d, k, r):
    return np.sum(np.log(classes) - losses) / (r * (d + k))


@mistake("one label", breaks="parameters")
def bits_per_parameter(losses, classes, d, k, r):
    return np.mean(np.log2(classes) - losses / np.log(2)) / (r * (d + k))


@mistake("the entries of the matrix", breaks="parameters")
def bits_per_parameter(losses, classes, d, k, r):
    return np.sum(np.log2(classes) - losses / np.log(2)) / (d * k)


@mistake("the parameters of A alone", breaks="parameters")
def bits_per_parameter(losses, classes, d, k, r):
    return np.sum(np.log2(classes) - losses / np.log(2)) / (r * k)


@mistake("not divided", breaks="parameters")
def bits_per_parameter(losses, classes, d, k, r):
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
def bits_per_parameter(losses, classes, d, k, r):
    return sum(np.log2(classes * np.exp(-loss)) for loss in losses) / (d * r + r * k)


@alternative("contestant by contestant")
def fair_shares(base, validation, test):
    gains = []
    for row, runs in zip(validation, test, strict=True):
        best = min(range(len(row)), key=lambda j: row[j])
        gains.append(base - np.mean(runs[best]))
    return [gain / gains[0] for gain in gains]


@mistake("the number of classes, not its logarithm", breaks="bits")
def bits_per_parameter(losses, classes, d, k, r):
    return np.sum(classes - losses / np.log(2)) / (r * (d + k))


@mistake("losses multiplied by ln 2", breaks="bits")
def bits_per_parameter(losses, classes, d, k, r):
    return np.sum(np.log2(classes) - losses * np.log(2)) / (r * (d + k))


@mistake("log2 of the losses", breaks="bits")
def bits_per_parameter(losses, classes, d, k, r):
    with np.errstate(all="ignore"):
        return np.sum(np.log2(classes) - np.log2(losses)) / (r * (d + k))


@mistake("one label's bits, all losses", breaks="bits")
def bits_per_parameter(losses, classes, d, k, r):
    return (np.log2(classes) - np.sum(losses) / np.log(2)) / (r * (d + k))


@mistake("the parameters per bit", breaks="bits")
def bits_per_parameter(losses, classes, d, k, r):
    return (r * (d + k)) / (np.sum(np.log2(classes) - losses / np.log(2)) or 1)


@mistake("what is still needed", breaks="bits")
def bits_per_parameter(losses, classes, d, k, r):
    return np.sum(losses) / np.log(2) / (r * (d + k))


@mistake("without the rank", breaks="bits")
def bits_per_parameter(losses, classes, d, k, r):
    return np.sum(np.log2(classes) - losses / np.log(2)) / (d + k)


@alternative("in nats first")
def bits_per_parameter(losses, classes, d, k, r):
    return (len(losses) * np.log(classes) - np.sum(losses)) / np.log(2) / (r * d + r * k)


@alternative("the mean, times the number")
def bits_per_parameter(losses, classes, d, k, r):
    bits = np.log2(classes) - np.mean(losses) * np.log2(np.e)
    return bits * len(losses) / r / (d + k)


@alternative("sizes of arrays")
def bits_per_parameter(losses, classes, d, k, r):
    numbers = np.zeros((d, r)).size + np.zeros((r, k)).size
    return float(np.dot(np.log2(classes) - losses / np.log(2), np.ones(len(losses)))) / numbers


@alternative("a running sum")
def bits_per_parameter(losses, classes, d, k, r):
    total = 0.0
    for loss in losses.tolist():
        total += (np.log(classes) - loss) / np.log(2)
    return total / (r * (d + k))


@mistake("the best of means over rates on validation and test together", breaks="own")
def fair_shares(base, validation, test):
    best = (validation + test.mean(axis=2)).argmin(axis=1)
    loss = test[np.arange(len(test)), best].mean(axis=1)
    return (base - loss) / (base - loss[0])


@mistake("the worst rate", breaks="own")
def fair_shares(base, validation, test):
    best = validation.argmax(axis=1)
    loss = test[np.arange(len(test)), best].mean(axis=1)
    with np.errstate(all="ignore"):
        return (base - loss) / (base - loss[0])


@mistake("rates chosen along the contestants", breaks="own")
def fair_shares(base, validation, test):
    best = np.resize(validation.argmin(axis=0), len(test)) % test.shape[1]
    loss = test[np.arange(len(test)), best].mean(axis=1)
    with np.errstate(all="ignore"):
        return (base - loss) / (base - loss[0])


@mistake("gains, not shares", breaks="own")
def fair_shares(base, validation, test):
    loss = test[np.arange(len(test)), validation.argmin(axis=1)].mean(axis=1)
    return base - loss


@mistake("relative to the best contestant", breaks="own")
def fair_shares(base, validation, test):
    loss = test[np.arange(len(test)), validation.argmin(axis=1)].mean(axis=1)
    return (base - loss) / (base - loss).max()


@mistake("the median seed", breaks="seeds")
def fair_shares(base, validation, test):
    loss = np.median(test[np.arange(len(test)), validation.argmin(axis=1)], axis=1)
    with np.errstate(all="ignore"):
        return (base - loss) / (base - loss[0])


@mistake("the last of equal rates", breaks="own")
def fair_shares(base, validation, test):
    best = validation.shape[1] - 1 - validation[:, ::-1].argmin(axis=1)
    loss = test[np.arange(len(test)), best].mean(axis=1)
    with np.errstate(all="ignore"):
        return (base - loss) / (base - loss[0])


@mistake("without the full update", breaks="own")
def fair_shares(base, validation, test):
    loss = test[np.arange(len(test)), validation.argmin(axis=1)].mean(axis=1)
    return ((base - loss) / (base - loss[0]))[1:]


@alternative("means first")
def fair_shares(base, validation, test):
    means, best = np.mean(test, axis=-1), np.argmin(validation, axis=1)
    loss = np.take_along_axis(means, best[:, None], axis=1)[:, 0]
    return (loss - base) / (loss[0] - base)


@alternative("gains in a list")
def fair_shares(base, validation, test):
    gains = [base - runs[np.argmin(row)].mean() for row, runs in zip(validation, test)]
    return np.divide(gains, gains[0])


@alternative("one-hot choices")
def fair_shares(base, validation, test):
    hot = np.eye(validation.shape[1])[validation.argmin(axis=1)]
    loss = np.einsum("cr,crs->c", hot, test) / test.shape[2]
    return (base - loss) / (base - loss[0])


@alternative("index by index")
def fair_shares(base, validation, test):
    losses = []
    for c in range(len(validation)):
        best = 0
        for j in range(1, validation.shape[1]):
            if validation[c, j] < validation[c, best]:
                best = j
        losses.append(sum(test[c, best]) / len(test[c, best]))
    return [(base - loss) / (base - losses[0]) for loss in losses]
