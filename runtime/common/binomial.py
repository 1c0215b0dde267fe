"""The exact test of paired verdicts, in closed form: a line has no SciPy (`tests` hold it to SciPy's `binomtest`)."""

import math


def at_least(found: int, of: int) -> float:
    """Return how likely `of` throws of a coin give `found` heads or more."""
    if found <= 0:
        return 1.0
    if found > of:
        return 0.0
    if 2 * found <= of:  # the short tail is summed up
        return 1.0 - at_least(of - found + 1, of)
    log = math.lgamma(of + 1) - math.lgamma(found + 1) - math.lgamma(of - found + 1) - of * math.log(2)
    term = total = math.exp(log)
    for heads in range(found, of):
        term *= (of - heads) / (heads + 1)
        total += term
        if term < 1e-17 * total:
            break
    return min(1.0, total)


def mcnemar(first: int, second: int) -> float:
    """Return the two-sided p value of McNemar's exact test: pairs of which `first` alone, or `second` alone, say so."""
    return min(1.0, 2 * at_least(max(first, second), first + second))
