"""How often a code that was counted in one sample will occur in another of the same size.

# DIFF(paper): an addition; thresholds and p-values of tables with recurring rows rest on it.

A code is a combination of values that recurs in the table. Which codes are flagged depends on how
often they occurred: of two equally frequent codes, the one that occurred less often by chance looks
more anomalous. By their raw counts, the flagged codes would seem rarer than they are. Empirical
Bayes corrects this (Robbins 1956): counts are Poisson, the distribution of the codes' means is the
one of maximum likelihood (Kiefer and Wolfowitz 1956; here on a grid, by the EM algorithm), and a
code's expected count is the posterior mean given its count.
"""

import numpy as np
from scipy.special import gammaln

MOST = 50  # a larger count is taken as it is
GRID = np.geomspace(0.02, 1.2 * MOST, 80)  # means that codes may have
STEPS = 200  # of the EM algorithm


def expected_counts(counts):
    """Expected counts (m,) of codes in another sample, from their counts (m,) >= 1 in this one.

    Codes that did not occur are not included. In another sample they are expected to have as many
    rows as there are codes that occurred once in this one (Good 1953).
    """
    counts = np.asarray(counts)
    few = counts <= MOST
    expected = counts.astype(np.float64)
    if not few.any():
        return expected
    count, place, times = np.unique(counts[few], return_inverse=True, return_counts=True)
    count = count[:, None].astype(np.float64)
    likelihood = np.exp(count * np.log(GRID) - GRID - gammaln(count + 1))  # (counts, means)
    likelihood /= -np.expm1(-GRID)  # truncated: codes with a count of 0 are not observed
    share = np.full(len(GRID), 1 / len(GRID))
    for _ in range(STEPS):
        of_mean = likelihood * share
        of_mean /= of_mean.sum(1, keepdims=True)
        share = times @ of_mean / times.sum()
    of_mean = likelihood * share
    expected[few] = (of_mean @ GRID / of_mean.sum(1))[place]
    return expected
