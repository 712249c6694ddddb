"""Other coordinates of rows, which models see in place of the values (M11, M12).

:class:`NormalScores` and :class:`OwnUnits` look at each column on its own,
:class:`PrincipalScores` and :class:`Whitening` at what the columns have in common.

Shapes: n rows, d columns, r = min(n, d) principal directions.
"""

from typing import NamedTuple

import numpy as np
import torch
from scipy.special import ndtri

from swift_hydra.data.scaler import QUANTILES
from swift_hydra.geometry import (
    WIDE,
    along,
    bend,
    filled,
    principal_axes,
    skewed_again,
    spread_over,
    unbend,
)

POINTS = 257  # most quantiles that represent a column
SAME = 2.0**-30  # standard deviations: smaller differences between values are rounding errors
RIDGE = 1e-3  # this part of the mean variance is added to the variance along every direction
LEAST = 1e-9  # smaller variances and squared lengths are rounding errors
MOST_MEDIANS = 1e100  # what can be squared, in any scale


class NormalScores:
    """Maps every column to the normal quantiles of its values' ranks.

    To a kernel, equal differences are equal wherever they are; in a skewed or heavy-tailed column
    nearly all rows lie within one bandwidth of each other. (Trees do not suffer from this, as they
    use ranks alone.) Distances that measure how unlike the normals a row is need the values, and
    keep them.

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


class OwnUnits:
    """Appends the columns whose power the scaler took, in their own unit.

    Parts and their sum depend on each other in their own unit alone, factors and their product in
    logarithms alone.

    Args:
        columns: (k,) numbers of these columns.
        start, power, scale, upright, end: (k,) what the scaler learned, and the sign of their
            values.
        own_scale: (k,) their scales in their own unit, in medians.
    """

    def __init__(self, columns, start, power, scale, upright, own_scale=1.0, end=np.inf):
        self.columns = columns
        self.start = start
        self.power = power
        self.scale = scale
        self.upright = upright
        self.end = end  # older files have none
        self.own_scale = own_scale

    @classmethod
    def of(cls, scaler):
        """Of a fitted :class:`data.scaler.ColumnScaler`; None if it took no power of any column."""
        columns = np.flatnonzero(scaler.start)
        if not len(columns):
            return None
        of_each = (scaler.start, scaler.power, scaler.scale, np.sign(scaler.centre))
        return cls(columns, *(values[columns] for values in of_each), end=scaler.end[columns])

    def fit(self, Z):
        """Learn the scales of standardised training rows Z (n, d); returns itself."""
        share, deviations = QUANTILES[0]
        low, high = np.quantile(self._own(Z), (share, 1 - share), axis=0)
        self.own_scale = np.maximum(high - low, LEAST) / deviations
        return self

    def _own(self, Z):
        straight = self.upright * unbend(Z[:, self.columns]) * self.scale
        with np.errstate(over="ignore"):
            ratio = skewed_again(straight, self.start, self.power, self.end)
        return np.clip(ratio, -MOST_MEDIANS, MOST_MEDIANS) - 1

    def __call__(self, Z):
        """Rows Z (n, d) and, beside them, k columns in their own unit: (n, d + k) float64."""
        return np.column_stack([Z, bend(self._own(Z) / self.own_scale)])

    def snapshot(self):
        """Arrays."""
        return dict(vars(self))


class PrincipalScores:
    """Maps rows to the training rows' principal directions, scaled by the spread along each.

    Columns that depend on each other, such as parts and their sum or two sensors of one quantity,
    deviate little from that dependence. A distance over the columns does not see such a small
    deviation, nor do trees; along its own direction, scaled by the spread there, it is as visible
    as any other.

    Args:
        mean: (d,) mean of the training rows.
        directions: (r, d), each divided by the standard deviation along it.
    """

    def __init__(self, mean, directions):
        self.mean = mean
        self.directions = directions

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
        return along(np.asarray(Z, dtype=np.float64) - self.mean, self.directions)

    def snapshot(self):
        """Arrays."""
        return {"mean": self.mean, "directions": self.directions}


class Whitening:
    """Maps rows to coordinates with equal variance along every direction of the reference rows.

    An anomaly along a direction in which the normals vary little is visible there.

    Args:
        reference: (m, d) rows.
    """

    RIDGE = 0.05  # in place of the module's
    STEP = 8  # columns are padded to multiples of this

    def __init__(self, reference):
        rows = np.asarray(reference, dtype=np.float64)
        self.some = spread_over(len(rows), WIDE if rows.shape[1] > WIDE else len(rows))
        rows = rows[self.some]
        self.n_rows, self.mean = len(rows), rows.mean(0)
        rows = rows - self.mean
        root, directions = principal_axes(rows)
        self.variance = variance = np.square(root)
        least = self.ridge(variance.sum())
        self.directions = torch.from_numpy(filled(directions, self.STEP, self.STEP))
        self.beyond = least**-0.5  # the scale of all directions that no row spans
        self.scale = torch.zeros(len(self.directions), dtype=torch.float64)
        self.scale[: len(variance)] = torch.from_numpy((variance + least) ** -0.5 - self.beyond)

    def __call__(self, Z):
        """Whitened rows (n, d) as a float64 tensor, padded with columns of zeros."""
        Z = torch.from_numpy(filled(np.asarray(Z, dtype=np.float64), 1, self.STEP))
        return self.beyond * Z + (Z @ self.directions.T * self.scale) @ self.directions

    def ridge(self, variance):
        """What is added to the variance along each direction, given the columns' sum of it."""
        return self.RIDGE * variance / len(self.mean) + LEAST

    def square_without(self, Z, m):
        """Squared lengths (n,) of whitened rows Z (n, d) from the mean, as if copies were none.

        ``m``: (n,) how many reference rows are equal to each (Sherman and Morrison). The ridge is
        taken without them, too: of rows that are fewer than the columns it decides the length.
        """
        Z = np.asarray(Z, dtype=np.float64) - self.mean
        n, d = self.n_rows, Z.shape[1]
        square, along = np.square(Z).sum(1), np.square(Z @ self.directions[:, :d].numpy().T)
        along = along[:, : len(self.variance)]
        left = (n - m) / n
        of_others = np.maximum(self.variance.sum() - square * m / (n - m), 0.0) / left
        ridge = left * self.ridge(of_others)
        beyond = np.maximum(square - along.sum(1), 0.0) / ridge
        square = (along / (self.variance + ridge[:, None])).sum(1) + beyond
        return n * square / np.maximum(n - m - m * square, LEAST)

    def without(self, Z, own):
        """A :class:`WithoutItself` of rows Z (n, d), given their copies ``own`` (n, m) bool."""
        size = self.n_rows
        gone = torch.from_numpy(own[:, self.some].sum(1)).double()  # (n,)
        gone[gone >= size] = 0
        direction = self(Z) - self(self.mean[None])
        weight = gone / (size - gone - gone * direction.square().sum(1)).clamp_min(LEAST)
        return WithoutItself(own, direction, weight, (size - gone) / size)


class WithoutItself(NamedTuple):
    """How to whiten rows (n, d) as if each had not been among the reference rows.

    A reference row adds variance along its own direction, and so makes itself look near; on a wide
    table all rows do. Without the row, the squared length of a difference in whitened coordinates
    is ``factor`` times (its squared length with the row, plus ``weight`` times its squared
    component along ``own_direction``), by the formula of Sherman and Morrison.
    """

    own: np.ndarray  # (n, m) bool, the reference rows that are left out: copies, own subject
    own_direction: torch.Tensor  # (n, d) the row minus the mean, whitened; not of unit length
    weight: torch.Tensor  # (n,)
    factor: torch.Tensor  # (n,)
