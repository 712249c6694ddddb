"""Normal scores of ranks: what kernel experts see in place of the values (M11).

To a kernel, equal differences are equal wherever they are; in a skewed or heavy-tailed column
nearly all rows lie within one bandwidth of each other. (Trees do not suffer from this, as they use
ranks alone.) Distances that measure how unlike the normals a row is need the values, and keep them.

Shapes: n rows, d columns.
"""

import numpy as np
from scipy.special import ndtri

POINTS = 257  # most quantiles that represent a column
SAME = 2.0**-30  # standard deviations: smaller differences between values are rounding errors


class NormalScores:
    """Maps every column to the normal quantiles of its values' ranks.

    Beyond the range of the training rows it continues with slope 1.

    Args:
        values: for each column, its distinct quantiles, ascending.
        scores: for each column, the normal scores of these.
    """

    def __init__(self, values, scores):
        self.values = values
        self.scores = scores

    @classmethod
    def fit(cls, Z):
        """Fit to standardised rows (n, d)."""
        n = len(Z)
        levels = np.linspace(0, 1, min(n, POINTS))
        values, scores = [], []
        for column in np.asarray(Z, dtype=np.float64).T:
            points = np.quantile(column, levels, method="inverted_cdf")
            first = np.flatnonzero(np.diff(points, prepend=-np.inf) > SAME)
            last = np.append(first[1:], len(points)) - 1
            middle = (levels[first] + levels[last]) / 2  # ties share their ranks
            values.append(points[first])
            scores.append(ndtri(np.clip(middle, 0.5 / n, 1 - 0.5 / n)))
        return cls(values, scores)

    def __call__(self, Z):
        """Rows (n, d) as normal scores, float32; values keep their order beyond the range, too.

        A row's result does not depend on the rows beside it.
        """
        scores = np.empty(Z.shape, dtype=np.float32)
        for j, (points, at_points) in enumerate(zip(self.values, self.scores, strict=True)):
            column = np.asarray(Z[:, j], dtype=np.float64)
            inside = np.clip(column, points[0], points[-1])
            scores[:, j] = np.interp(inside, points, at_points) + (column - inside)
        return scores

    def snapshot(self):
        """Lists with the arrays of each column."""
        return {"values": self.values, "scores": self.scores}
