"""How often a code that was counted in one sample is met in another of as many rows.

# DIFF(paper): an addition; thresholds and p-values of tables whose rows come again rest on it.

Which codes are flagged depends on how often they were met: of two that are as frequent, the one
that was met less often by chance looks the more unlike. Counted as they are, the flagged codes then
seem rarer than they are. Empirical Bayes mends it (Robbins 1956): counts are Poisson, the means of
the codes follow whatever distribution makes the counts likeliest (Kiefer and Wolfowitz 1956), here
on a grid and by the EM algorithm, and a code's expected count is its mean given its count.
"""

import numpy as np
from scipy.special import gammaln

MOST = 50  # a larger count says how often a code is met
GRID = np.geomspace(0.02, 1.2 * MOST, 80)  # means that codes may have
STEPS = 200  # of the EM algorithm


def expected_counts(counts):
    """Expected counts (m,) of codes in another sample, of their counts (m,) in this one, from 1 on.

    Codes that were not met are not among them: they are as many rows of another sample as codes
    were met once (Good 1953).
    """
    counts = np.asarray(counts)
    few = counts <= MOST
    expected = counts.astype(np.float64)
    if not few.any():
        return expected
    count, place, times = np.unique(counts[few], return_inverse=True, return_counts=True)
    count = count[:, None].astype(np.float64)
    likelihood = np.exp(count * np.log(GRID) - GRID - gammaln(count + 1))  # (counts, means)
    likelihood /= -np.expm1(-GRID)  # only codes that were met are counted
    share = np.full(len(GRID), 1 / len(GRID))
    for _ in range(STEPS):
        of_mean = likelihood * share
        of_mean /= of_mean.sum(1, keepdims=True)
        share = times @ of_mean / times.sum()
    of_mean = likelihood * share
    expected[few] = (of_mean @ GRID / of_mean.sum(1))[place]
    return expected
