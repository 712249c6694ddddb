"""Bring every column to one scale, learned from training rows only (M1).

Shapes: n rows, d prepared columns.
"""

import numpy as np

from swift_hydra.geometry import bend, unbend
from swift_hydra.settings import InputError, listed

# The share of the rows beyond each of two quantiles, and the distance between these in a normal
# distribution, in standard deviations.
QUANTILES = ((0.1, 2.563), (0.05, 3.290), (0.02, 4.107), (0.01, 4.653))
MOST_DEVIATIONS = 1e150  # what a float64 can square
LARGEST = np.finfo(np.float64).max
FEW_DIGITS = 16  # float32 steps by which a constant may differ from its value in float64
SMALLEST = np.finfo(np.float64).smallest_subnormal  # least scale: one rounded to 0 is unusable
BLOCK_ROWS = 65_536  # rows in float64 at once: a whole large table would take over a gigabyte


class ColumnScaler:
    """Brings every column to one scale, robust to outliers, and compresses the tails (M1).

    u = (x - median) / scale, and z = u / sqrt(1 + (u / 5)^2): z lies within +-5 and keeps the order
    of all values. The scale is the distance between two quantiles, divided by that distance in a
    standard normal distribution. The quantiles are .1 and .9, or the first pair farther out whose
    values differ. If none differ, the scale is the median distance from the median, of the values
    that differ from it, times the square root of their share. This is like a standard deviation,
    but a single extreme value among several does not dominate it.

    All arithmetic is float64, results are float32. A constant column has scale 1, or its absolute
    value if that is smaller: its rows become 0, and a new row that differs is far away, whether the
    unit is small or the offset large. Values of a narrow type that equal the centre rounded to that
    type become 0 too, and a constant in float32 has a scale of at least ``FEW_DIGITS`` float32
    steps.

    # DIFF(paper): the released code takes mean and standard deviation.

    Args:
        centre: (d,) float64, or None before :meth:`fit`.
        scale: (d,) float64.
        block_rows: number of rows held in float64 at once.
    """

    def __init__(self, centre=None, scale=None, block_rows=BLOCK_ROWS):
        self.centre = centre
        self.scale = scale
        self.block_rows = block_rows

    def fit(self, X, flags=None):
        """Take centre and scale of the training rows X (n, d); returns itself.

        ``flags``: (d,) bool, columns of 0 and 1 that stand for a column's texts or its gaps. They
        keep their unit, so that two texts differ by about as much as two values of a column of
        numbers. In standard deviations a column of 80 texts would count as 80 columns, and one gap
        in a hundred rows would be as far out as a value at ten of them.
        """
        X = np.asarray(X)
        if X.ndim != 2 or len(X) == 0:
            raise InputError(
                f"X has shape {X.shape}: the scaler needs (rows, features) with at least one row"
            )
        stats = np.array([_centre_and_scale(column) for column in X.T], dtype=np.float64)
        self.centre, self.scale = stats.reshape(-1, 2).T.copy()
        if flags is not None:
            self.scale[flags] = 1.0
        return self

    def transform(self, X):
        """Standardise X (n, d); returns float32 (n, d) within +-5."""
        X = self._checked(X)
        out = np.empty(X.shape, dtype=np.float32)
        for i in range(0, len(X), self.block_rows):
            rows = slice(i, i + self.block_rows)
            block = self.widened(X[rows])
            with np.errstate(over="ignore"):  # computed again with halves, or clipped
                block -= self.centre
                over = np.isinf(block)
                block /= self.scale
                if over.any():
                    halves = (X[rows] / 2.0 - self.centre / 2) / (self.scale / 2)
                    block[over] = halves[over]
            np.clip(block, -MOST_DEVIATIONS, MOST_DEVIATIONS, out=block)
            out[rows] = bend(block)
        return out

    def widened(self, X):
        """Rows X (n, d) as new float64 ones; a narrow type's centre is the centre itself.

        Training may have been in float64, whose numbers a narrow type may not hold.
        """
        block = X.astype(np.float64)
        if X.dtype.kind == "f" and X.dtype.itemsize < 8:
            with np.errstate(over="ignore"):  # a centre beyond the narrow type
                found = X == self.centre.astype(X.dtype)
            block[found] = np.broadcast_to(self.centre, X.shape)[found]
        return block

    def inverse_transform(self, Z):
        """Standardised rows Z (n, d) in the input's units, float64."""
        with np.errstate(over="ignore"):
            X = unbend(self._checked(Z)) * self.scale + self.centre
        return np.clip(X, -LARGEST, LARGEST)

    def _checked(self, X):
        if self.centre is None:
            raise InputError("the scaler is not fitted: call fit(X_train) first")
        X = np.asarray(X)
        if X.ndim != 2 or X.shape[1] != len(self.centre):
            raise InputError(
                f"X has shape {X.shape}: the scaler was fitted on {len(self.centre)} features, "
                "give (rows, those)"
            )
        return X

    def snapshot(self):
        """``centre`` (d,) and ``scale`` (d,), float64, to store with the weights."""
        if self.centre is None:
            raise InputError("the scaler is not fitted: call fit(X_train) first")
        return {"centre": self.centre.copy(), "scale": self.scale.copy()}

    @classmethod
    def from_snapshot(cls, saved):
        """Rebuild from :meth:`snapshot`; results are bit-identical.

        Raises:
            ValueError: for values that no fit produces.
        """
        centre, scale = (np.array(saved[name], dtype=np.float64) for name in ("centre", "scale"))
        if not (np.isfinite(centre).all() and np.isfinite(scale).all() and (scale > 0).all()):
            raise ValueError("centre or scale is not finite, or a scale is not above 0")
        return cls(centre, scale)


def check_span(X, names, source):
    """Refuse columns of training rows X (n, d) whose differences may overflow float64.

    Raises:
        InputError: names these columns.
    """
    largest = np.maximum(X.max(axis=0), -X.min(axis=0))
    wide = np.flatnonzero(largest > LARGEST / 2)
    if len(wide):
        raise InputError(
            f"{source}: column {listed(repr(names[j]) for j in wide)} holds values beyond "
            f"{LARGEST / 2:.1g}, up to {largest[wide[0]]:.3g}: float64 does not hold their "
            "differences: divide the column by a constant"
        )


def _centre_and_scale(column):
    """Median and robust scale of one column (n,); see :class:`ColumnScaler`."""
    values = np.sort(column.astype(np.float64))
    n = len(values)
    centre = values[(n - 1) // 2]  # one of the values: a frequent one becomes exactly 0
    # A constant that was written in decimals can differ in its last digit: that is not spread.
    single = column.dtype.kind == "f" and column.dtype.itemsize <= 4
    step = 2 * np.finfo(np.float32).eps if single else 16 * np.finfo(np.float64).eps
    for share, deviations in QUANTILES:
        out = int(np.ceil(share * (n - 1)))  # rows outside on either side, at least one
        if out <= (n - 1) // 2:
            low, high = values[out], values[n - 1 - out]
            if high - low > step * max(abs(low), abs(high)):
                return centre, max((high - low) / deviations, SMALLEST)
    away = np.abs(values - centre)
    away = away[away > step * np.maximum(np.abs(values), abs(centre))]
    if not len(away):  # only its size hints at the unit of a small constant
        digits = FEW_DIGITS * float(np.spacing(np.float32(abs(centre)))) if single else 0.0
        return centre, max(min(abs(centre), 1.0) or 1.0, digits)
    return centre, max(float(np.median(away) * np.sqrt(len(away) / n)), SMALLEST)
