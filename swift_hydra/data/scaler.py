"""Bring every column to one scale, learned from training rows only (M1).

Shapes: n rows, d prepared columns.
"""

import numpy as np
from scipy.special import boxcox, inv_boxcox

from swift_hydra.geometry import bend, skewed_again, straightened, unbend
from swift_hydra.settings import InputError, listed

# The share of the rows beyond each of two quantiles, and the distance between these in a normal
# distribution, in standard deviations.
QUANTILES = ((0.1, 2.563), (0.05, 3.290), (0.02, 4.107), (0.01, 4.653))
MOST_DEVIATIONS = 1e150  # what a float64 can square
LARGEST = np.finfo(np.float64).max
FEW_DIGITS = 16  # float32 steps by which a constant may differ from its value in float64
SMALLEST = np.finfo(np.float64).smallest_subnormal  # least scale: one rounded to 0 is unusable
BLOCK_ROWS = 65_536  # rows in float64 at once: a whole large table would take over a gigabyte
LEARNED = ("centre", "scale", "start", "power", "end")
# When and how a skewed column is bent straight, see :func:`_power_of`.
SKEWED = 2.0  # the upper tenth lies so many times as far from the median as the lower one
POWERS = (0.0, 0.25)  # of Box and Cox: the logarithm and the fourth root
SHARES = (0.1, 0.05)  # of the rows, beyond the two quantiles that show the skew
LEAST_SHARE = 0.01  # share of the rows that lie below those whose power is taken
LEAST_START = 1e-100  # a tangent at a smaller part of the median might overflow
FARTHER = 5.0  # standard deviations below these rows until which it is
LEAST_PART = 1e-6  # of their start: a root ends at zero
NO_POWER = (0.0, 0.0, np.inf)
ZERO_IS = 0.25  # of the unit to which amounts are rounded: the middle of what becomes zero
SMALL_AMOUNTS = 5  # values, the lowest, that show to what unit all are rounded
UP_TO = 0.01  # of that unit
FEWEST = 5  # rows of which one can be left out
VARIED = 20  # more different values make a measured column


class ColumnScaler:
    """Brings every column to one scale, robust to outliers, and compresses the tails (M1).

    u = (x - median) / scale, and z = u / sqrt(1 + (u / 5)^2): z lies within +-5 and keeps the order
    of all values. The scale is the distance between two quantiles, divided by that distance in a
    standard normal distribution. The quantiles are .1 and .9, or the first pair farther out whose
    values differ. If none differ, the scale is the median distance from the median, of the values
    that differ from it, times the square root of their share. This is like a standard deviation,
    but a single extreme value among several does not dominate it.

    A column that spans orders of magnitude (amounts, counts, concentrations) counts by its
    logarithm or its fourth root, whichever is less skewed (Box and Cox 1964): in its own unit all
    but the largest values would fall together, and one at a tenth of its usual size could not be
    seen. There u = boxcox(x / median, power) / scale. Five standard deviations below the training's
    .01 quantile the curve goes on as its tangent, so that zeros and slipped signs have a place, far
    out. Less than half of a column may be zeros. If more than one row in a hundred is, the tangent
    starts at the .01 quantile of what is not zero, so that zeros are near the smallest amounts; if
    no more are, and amounts are rounded and as small as their unit, no lower than at a quarter of
    it.

    A root ends at the .9 quantile, and goes on as its tangent there: the upper tail of such columns
    (waiting times, squares) is exponential in their own unit, and a root of it would hide the
    values far beyond it among the many that are small.

    All arithmetic is float64, results are float32. A constant column has scale 1, or its absolute
    value if that is smaller: its rows become 0, and a new row that differs is far away, whether the
    unit is small or the offset large. Values of a narrow type that equal the centre rounded to that
    type become 0 too, and a constant in float32 has a scale of at least ``FEW_DIGITS`` float32
    steps.

    # DIFF(paper): the released code takes mean and standard deviation.

    Args:
        centre: (d,) float64, or None before :meth:`fit`.
        scale: (d,) float64; that of the power, where one is taken.
        start: (d,) float64, from which part of the centre on a power is taken; 0 for columns in
            their own unit.
        power: (d,) float64, one of ``POWERS``.
        end: (d,) float64, from which part of the centre on the curve is straight; infinite for
            logarithms and columns in their own unit.
        block_rows: number of rows held in float64 at once.
    """

    def __init__(
        self, centre=None, scale=None, start=None, power=None, end=None, block_rows=BLOCK_ROWS
    ):
        self.centre = centre
        self.scale = scale
        self.start = start
        self.power = power
        self.end = end
        self.block_rows = block_rows

    def fit(self, X, flags=None, places=None):
        """Take centre and scale of the training rows X (n, d); returns itself.

        ``flags``: (d,) bool, columns of 0 and 1 that stand for a column's texts or its gaps. They
        keep their unit, so that two texts differ by about as much as two values of a column of
        numbers. In standard deviations a column of 80 texts would count as 80 columns, and one gap
        in a hundred rows would be as far out as a value at ten of them.

        ``places``: (d,) bool, columns of places in an alphabet. No power of them is taken.
        """
        X = np.asarray(X)
        if X.ndim != 2 or len(X) == 0:
            raise InputError(
                f"X has shape {X.shape}: the scaler needs (rows, features) with at least one row"
            )
        bends = np.ones(X.shape[1], dtype=bool) if places is None else ~places
        stats = [_learned(column, may) for column, may in zip(X.T, bends, strict=True)]
        stats = np.array(stats, dtype=np.float64)
        self.centre, self.scale, self.start, self.power, self.end = stats.reshape(-1, 5).T.copy()
        if flags is not None:
            self.scale[flags], self.start[flags] = 1.0, 0.0
        return self

    def transform(self, X):
        """Standardise X (n, d); returns float32 (n, d) within +-5."""
        X = self._checked(X)
        out = np.empty(X.shape, dtype=np.float32)
        for i in range(0, len(X), self.block_rows):
            out[i : i + self.block_rows] = bend(self._deviations(X[i : i + self.block_rows]))
        return out

    def deviations(self, X):
        """u of the rows X (n, d), before the tails are compressed: float64 (n, d)."""
        return self._deviations(self._checked(X))

    def _deviations(self, X):
        block = self.widened(X)
        skewed = np.flatnonzero(self.start)
        with np.errstate(over="ignore"):  # computed again with halves, or clipped
            ratio = block[:, skewed] / self.centre[skewed]
            block -= self.centre
            over = np.isinf(block)
            block /= self.scale
            if over.any():
                halves = (X / 2.0 - self.centre / 2) / (self.scale / 2)
                block[over] = halves[over]
            if len(skewed):
                upright = np.sign(self.centre[skewed])  # all values of a column may be negative
                straight = straightened(ratio, *self._curve(skewed))
                block[:, skewed] = upright * straight / self.scale[skewed]
        return np.clip(block, -MOST_DEVIATIONS, MOST_DEVIATIONS, out=block)

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
        skewed = np.flatnonzero(self.start)
        with np.errstate(over="ignore"):
            u = unbend(self._checked(Z)) * self.scale
            X = u + self.centre
            upright = np.sign(self.centre[skewed])
            again = skewed_again(upright * u[:, skewed], *self._curve(skewed))
            X[:, skewed] = self.centre[skewed] * again
        return np.clip(X, -LARGEST, LARGEST)

    def _curve(self, columns):
        return self.start[columns], self.power[columns], self.end[columns]

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
        """What ``LEARNED`` names, (d,) float64 each, to store with the weights."""
        if self.centre is None:
            raise InputError("the scaler is not fitted: call fit(X_train) first")
        return {name: getattr(self, name).copy() for name in LEARNED}

    @classmethod
    def from_snapshot(cls, saved):
        """Rebuild from :meth:`snapshot`; results are bit-identical.

        Raises:
            ValueError: for values that no fit produces.
        """
        none = np.zeros(len(saved["centre"]))
        saved = {"start": none, "power": none, "end": none + np.inf, **saved}  # in older files not
        centre, scale, start, power, end = (np.array(saved[n], dtype=np.float64) for n in LEARNED)
        if not (np.isfinite(centre).all() and np.isfinite(scale).all() and (scale > 0).all()):
            raise ValueError("centre or scale is not finite, or a scale is not above 0")
        skewed = start != 0
        usable = (start > 0) & (start <= 1) & (end > 1) & (centre != 0) & np.isin(power, POWERS)
        if not (usable | ~skewed).all():
            raise ValueError("a power is unknown, or does not start and end around the centre")
        return cls(centre, scale, start, power, end)


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


def _learned(column, may_bend):
    """Median, robust scale, start, power and end of a column (n,); in its own unit start is 0.

    ``may_bend``: a power may be taken.
    """
    values = np.sort(column.astype(np.float64))
    single = column.dtype.kind == "f" and column.dtype.itemsize <= 4
    centre = values[(len(values) - 1) // 2]
    upright = values[::-1] if centre < 0 else values  # of one sign: from the smallest amount on
    start, power, end = _power_of(upright, centre) if may_bend else NO_POWER
    if not start:
        return *_centre_and_scale(values, single), *NO_POWER
    with np.errstate(over="ignore"):
        ratio = upright / centre
        straight = straightened(ratio, start, power, end)
    scale = _centre_and_scale(straight, single)[1]
    if np.count_nonzero(ratio <= 0) <= LEAST_SHARE * len(ratio):
        # Smaller amounts than these go on like them; zeros that many rows hold are near.
        farther = inv_boxcox(boxcox(start, power) - FARTHER * scale, power)
        # NaN where the power would have to be negative, so that the least part counts.
        start = np.fmax(farther, max(start * LEAST_PART, LEAST_START))
        start = max(start, ZERO_IS * _step(ratio[ratio > 0]))
    return centre, scale, float(start), power, end


def _step(amounts):
    """The unit to which amounts (n,), ascending, are rounded if they come as small as it, else 0.

    There a zero is a small amount, rounded. Among amounts that are never small it is none.
    """
    with np.errstate(over="ignore"):
        lowest = np.unique(amounts)[:SMALL_AMOUNTS] / amounts[0]
    small = lowest[-1] <= 2 * SMALL_AMOUNTS
    return amounts[0] if small and np.abs(lowest - np.rint(lowest)).max() < UP_TO else 0.0


def _power_of(amounts, centre):
    """From which part of the median on a power of a column is taken, which, and up to where.

    One is if the values have one sign, but for one in a hundred and zeros, and are skewed as those
    that span orders of magnitude are, the more so the farther out, and if a power makes them half
    as skewed. Quantiles of what is not zero decide, so that no single row does. Else the start is
    0.

    Args:
        amounts: (n,) float64 values, ascending, or descending if the median is negative.
        centre: their median.
    """
    if centre == 0:
        return NO_POWER
    with np.errstate(all="ignore"):  # what is infinite or undefined is refused below
        amounts = amounts / centre
    if np.count_nonzero(amounts < 0) > LEAST_SHARE * len(amounts):
        return NO_POWER
    amounts = amounts[amounts > 0]
    n = len(amounts)
    out = np.ceil(np.multiply((LEAST_SHARE, *SHARES), n - 1)).astype(int)
    start, middle = amounts[out[0]], amounts[(n - 1) // 2]
    with np.errstate(all="ignore"):
        low, high = amounts[out[1:]] / middle, amounts[n - 1 - out[1:]] / middle
    if not (
        LEAST_START <= start <= 1
        and 0 < low.min() <= low.max() < 1 < high.min()
        and high.max() < np.inf
    ):
        return NO_POWER
    plain = np.log((high - 1) / (1 - low))  # 0 for symmetric values
    if not np.log(SKEWED) <= plain[0] < plain[1]:  # values with a bound do not go on like this
        return NO_POWER
    if np.count_nonzero(amounts[1:] != amounts[:-1]) < VARIED:
        return NO_POWER
    skews = [np.log(boxcox(high, power) / -boxcox(low, power)) for power in POWERS]
    best = int(np.argmin([np.abs(skew).sum() for skew in skews]))
    if np.abs(skews[best]).sum() > plain.sum() / 2:
        return NO_POWER
    return float(start), POWERS[best], float(high[0]) if POWERS[best] else np.inf


def _centre_and_scale(values, single):
    """Median and robust scale of a column's values (n,), ascending; see :class:`ColumnScaler`.

    ``single``: they came in float32 or less.
    """
    n = len(values)
    centre = values[(n - 1) // 2]  # one of the values: a frequent one becomes exactly 0
    # A constant that was written in decimals can differ in its last digit: that is not spread.
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


def without_themselves(u, among):
    """Deviations u (n, d) of training rows, each value's in units learned from the other rows.

    The median and the quantiles that the scale is taken from move by one place where a row is left
    out, and in few rows places are far apart.

    Args:
        u: the deviations.
        among: (m, d) those of all training rows.
    """
    m = len(among)
    if m < FEWEST:
        return u
    ordered = np.sort(among, axis=0)

    def of_others(place):  # (n, d), the value at this place among the others
        return np.where(u <= ordered[place], ordered[place + 1], ordered[place])

    factor, found = np.ones_like(u), np.zeros(u.shape[1], dtype=bool)
    for share, _ in QUANTILES:
        out, left = (int(np.ceil(share * (rows - 1))) for rows in (m, m - 1))
        if out > (m - 1) // 2 or left > (m - 2) // 2:
            continue
        width = ordered[m - 1 - out] - ordered[out]  # (d,)
        of_rest = of_others(m - 2 - left) - of_others(left)
        taken = ~found & (width > 0)
        usable = taken & (of_rest > 0)
        factor = np.where(usable, width / np.where(usable, of_rest, 1.0), factor)
        found |= taken
    return (u - (of_others((m - 2) // 2) - ordered[(m - 1) // 2])) * factor
