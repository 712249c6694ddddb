"""Rows along their principal directions: what one kernel expert sees in place of the values (M11).

Columns that go together, such as parts and their sum or two sensors of one thing, differ little
from what they say of each other. A distance over the columns does not see such a difference, nor do
trees; along the narrow direction itself it is a step like any other.

Shapes: n rows, d columns, r = min(n, d) directions.
"""

import numpy as np

from swift_hydra.geometry import WIDE, filled, principal_axes, spread_over

RIDGE = 1e-3  # of the mean variance, added to that along every direction
LEAST = 1e-9  # variance: less is what cancels
VECTOR = 16  # products are of multiples of so many rows, columns and directions


class PrincipalScores:
    """Every row along the directions of the training rows, by its spread along each.

    Args:
        mean: (d,) of the training rows.
        directions: (r, d), each divided by the standard deviation along it.
    """

    def __init__(self, mean, directions):
        self.mean = mean
        self.directions = directions
        self._filled = filled(directions.T, VECTOR, VECTOR)  # (d', r')

    @classmethod
    def fit(cls, Z):
        """From standardised rows (n, d)."""
        rows = np.asarray(Z, dtype=np.float64)
        if rows.shape[1] > WIDE:  # of any more rows as many directions
            rows = rows[spread_over(len(rows), WIDE)]
        mean = rows.mean(0)
        root, directions = principal_axes(rows - mean)
        variance = np.square(root)
        variance += RIDGE * variance.sum() / rows.shape[1] + LEAST
        return cls(mean, directions / np.sqrt(variance)[:, None])

    def __call__(self, Z):
        """(n, r) float64 of rows (n, d); row by row the same."""
        n = len(Z)
        rows = filled(np.asarray(Z, dtype=np.float64) - self.mean, VECTOR, VECTOR)
        return (rows @ self._filled)[:n, : len(self.directions)]

    def snapshot(self):
        """Arrays."""
        return {"mean": self.mean, "directions": self.directions}
