"""Rows along their principal directions: what one kernel expert sees in place of the values (M11).

Columns that depend on each other, such as parts and their sum or two sensors of one quantity,
deviate little from that dependence. A distance over the columns does not see such a small
deviation, nor do trees; along its own direction, scaled by the spread there, it is as visible as
any other.

Shapes: n rows, d columns, r = min(n, d) directions.
"""

import numpy as np

from swift_hydra.geometry import WIDE, filled, principal_axes, spread_over

RIDGE = 1e-3  # this part of the mean variance is added to the variance along every direction
LEAST = 1e-9  # a smaller variance is a rounding error
VECTOR = 16  # rows, columns and directions are padded to multiples of this in products


class PrincipalScores:
    """Maps rows to the training rows' principal directions, scaled by the spread along each.

    Args:
        mean: (d,) mean of the training rows.
        directions: (r, d), each divided by the standard deviation along it.
    """

    def __init__(self, mean, directions):
        self.mean = mean
        self.directions = directions
        self._filled = filled(directions.T, VECTOR, VECTOR)  # (d', r')

    @classmethod
    def fit(cls, Z):
        """Fit to standardised rows (n, d)."""
        rows = np.asarray(Z, dtype=np.float64)
        if rows.shape[1] > WIDE:  # a sample of the rows bounds the number of directions
            rows = rows[spread_over(len(rows), WIDE)]
        mean = rows.mean(0)
        root, directions = principal_axes(rows - mean)
        variance = np.square(root)
        variance += RIDGE * variance.sum() / rows.shape[1] + LEAST
        return cls(mean, directions / np.sqrt(variance)[:, None])

    def __call__(self, Z):
        """Rows (n, d) along the directions: (n, r) float64, each independent of the others."""
        n = len(Z)
        rows = filled(np.asarray(Z, dtype=np.float64) - self.mean, VECTOR, VECTOR)
        return (rows @ self._filled)[:n, : len(self.directions)]

    def snapshot(self):
        """Arrays."""
        return {"mean": self.mean, "directions": self.directions}
