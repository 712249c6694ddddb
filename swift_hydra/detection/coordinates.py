"""Other coordinates of rows, which models see in place of the values (M11, M12).

:class:`NormalScores` look at each column on its own, :class:`PrincipalScores` and
:class:`Whitening` at what the columns have in common.

Shapes: n rows, d columns, r = min(n, d) principal directions.
"""

from typing import NamedTuple

import numpy as np
import torch
from scipy.special import ndtri

from swift_hydra.data.scaler import QUANTILES, ColumnScaler, without_themselves
from swift_hydra.detection.relations import KeptRelations
from swift_hydra.geometry import (
    VECTOR,
    WIDE,
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


def _score_of_rare(share, n):
    """Standard scores of events that happen in these shares of n rows; none is rarer than once."""
    return np.maximum(share, 1 / (n + 1)) ** -0.5


class GapCounts(NamedTuple):
    """How far out a row is by the number of its gaps, as :meth:`LargestValue.rarity_of` counts.

    Where one sensor fails now and then, that four of eight fail together is rare, however usual
    each gap is.
    """

    columns: np.ndarray  # (k,) numbers of the columns that say where a value is missing
    rarity: np.ndarray  # (k + 1,) of a row with so many gaps

    @classmethod
    def of(cls, Z, flags):
        """Of training rows Z (n, d); ``flags``: (d,) bool, or None. None without two columns."""
        if flags is None or flags.sum() < 2:
            return None
        columns = np.flatnonzero(flags)
        n_gaps = np.count_nonzero(np.asarray(Z)[:, columns], axis=1)
        counts = np.bincount(n_gaps, minlength=len(columns) + 1)
        share = counts[::-1].cumsum()[::-1] / len(n_gaps)  # of the rows with as many or more
        return cls(columns, _score_of_rare(share, len(n_gaps)))

    def __call__(self, Z):
        """(n,) of rows Z (n, d), in standard deviations."""
        return self.rarity[np.count_nonzero(Z[:, self.columns], axis=1)]


class LargestValue:
    """How far out a row is in the one column where it is farthest out.

    A slip of the keyboard or a spike of one sensor changes one value of a row. Among many columns a
    distance hardly shows it: of fifty normal ones a value at five standard deviations adds a
    quarter to the length of the row's difference from the mean. Other rows do not matter to this
    measure. Values of columns that take many count as they were before the scaler compressed them.
    A rare code does not: it is far out only because it is rare. A text is as far out as
    :meth:`rarity_of` says, and so many gaps as :class:`GapCounts` says. A relation among columns
    that nearly all rows keep counts as one more column, see
    :class:`detection.relations.KeptRelations`.

    Args:
        measured: (d,) bool, the columns that take many values.
        rarity: (d,) how far out a row is that holds a column's text; 1 for columns of numbers. None
            stands for ones, as in older files.
        relations: a :class:`detection.relations.KeptRelations`; None without relations, and in
            older files.
        gaps: a :class:`GapCounts`; None without, and in older files.
    """

    INSIDE, OUTSIDE = 0.5, 20.0  # standard deviations; values nearer and farther count as these
    FEW_VALUES = 20  # a column of codes has no more

    def __init__(self, measured, rarity=None, relations=None, gaps=None):
        self.measured = np.asarray(measured)
        self.rarity = rarity
        self.relations = relations
        self.gaps = gaps

    @classmethod
    def of(cls, Z, about):
        """For a table of standardised rows Z (n, d); ``about``: its :class:`AboutColumns`."""
        measured = [len(np.unique(column)) > cls.FEW_VALUES for column in np.asarray(Z).T]
        relations = about.scaler and KeptRelations.of(Z, measured, about.scaler)
        return cls(measured, about.rarity, relations, GapCounts.of(Z, about.gaps))

    @staticmethod
    def rarity_of(Z, flags, subjects=None):
        """How far out the texts are, for ``rarity``: (d,) float32, or None without texts.

        It is the standard score of an event as probable as that a row holds a text as rare in any
        column: a misspelt text tells more in a table of few texts than in one of hundreds. A text
        that no row holds counts like those of single rows.

        Args:
            Z: (n, d) standardised rows.
            flags: (d,) bool, the columns that stand for a text, or for a gap.
            subjects: (n,) a text is as rare as the subjects that hold it are few; None: as the
                rows are.
        """
        if not flags.any():
            return None
        n = len(Z)
        rarest = np.full(n, n)  # of each row's texts
        counts = []
        for j in np.flatnonzero(flags):
            rows = np.flatnonzero(Z[:, j])
            held = len(rows) if subjects is None else len(np.unique(subjects[rows]))
            counts.append(max(held, 1))
            rarest[rows] = np.minimum(rarest[rows], held)
        share = np.searchsorted(np.sort(rarest), counts, side="right") / n
        rarity = np.ones(len(flags), dtype=np.float32)
        rarity[flags] = _score_of_rare(share, n)
        return rarity

    def __call__(self, Z, training=False):
        """Logarithms (n,) of the largest values of rows (n, d), in standard deviations.

        ``training``: they are all rows that the scaler learned from, and each counts in units
        learned from the others. Else the values of few rows would seem smaller than new rows' are.
        """
        size = np.abs(Z)
        if self.rarity is not None:
            size = size * self.rarity
        codes = size[:, ~self.measured].max(1, initial=0.0).astype(np.float64)  # (n,)
        if training:
            columns = np.flatnonzero(self.measured)
            measured = np.zeros(len(Z))
            for start in range(0, len(columns), VECTOR):  # not all at once in float64
                u = unbend(Z[:, columns[start : start + VECTOR]].astype(np.float64))
                measured = np.maximum(measured, np.abs(without_themselves(u)).max(1))
        else:  # of the largest alone: all that follows keeps the order
            measured = unbend(size[:, self.measured].max(1, initial=0.0).astype(np.float64))
        if self.gaps is not None:
            codes = np.maximum(codes, self.gaps(Z))
        if self.relations is not None:
            measured = np.maximum(measured, self.relations(Z))
        return np.log(np.clip(np.maximum(codes, measured), self.INSIDE, self.OUTSIDE))

    def snapshot(self):
        """Arrays."""
        relations = self.relations and self.relations.snapshot()
        gaps = self.gaps and self.gaps._asdict()
        own = {"measured": self.measured, "rarity": self.rarity}
        return own | {"relations": relations, "gaps": gaps}

    @classmethod
    def from_snapshot(cls, saved):
        """Rebuild from :meth:`snapshot`, of which others may be a part; older files lack a part."""
        relations = saved.get("relations")
        relations = relations and KeptRelations.from_snapshot(relations)
        gaps = saved.get("gaps") and GapCounts(**saved["gaps"])
        return cls(saved["measured"], saved.get("rarity"), relations, gaps)


class OwnUnits:
    """Appends the columns whose power the scaler took, in their own unit.

    Parts and their sum depend on each other in their own unit alone, factors and their product in
    logarithms alone.

    Args:
        columns: (k,) numbers of these columns.
        start, power, scale, upright: (k,) what the scaler learned, and the sign of their values.
        own_scale: (k,) their scales in their own unit, in medians.
    """

    def __init__(self, columns, start, power, scale, upright, own_scale=1.0):
        self.columns = columns
        self.start = start
        self.power = power
        self.scale = scale
        self.upright = upright
        self.own_scale = own_scale

    @classmethod
    def of(cls, scaler):
        """Of a fitted :class:`data.scaler.ColumnScaler`; None if it took no power of any column."""
        columns = np.flatnonzero(scaler.start)
        if not len(columns):
            return None
        of_each = (scaler.start, scaler.power, scaler.scale, np.sign(scaler.centre))
        return cls(columns, *(values[columns] for values in of_each))

    def fit(self, Z):
        """Learn the scales of standardised training rows Z (n, d); returns itself."""
        share, deviations = QUANTILES[0]
        low, high = np.quantile(self._own(Z), (share, 1 - share), axis=0)
        self.own_scale = np.maximum(high - low, LEAST) / deviations
        return self

    def _own(self, Z):
        straight = self.upright * unbend(Z[:, self.columns]) * self.scale
        with np.errstate(over="ignore"):
            ratio = skewed_again(straight, self.start, self.power)
        return np.clip(ratio, -MOST_MEDIANS, MOST_MEDIANS) - 1

    def __call__(self, Z):
        """Rows Z (n, d) and, beside them, k columns in their own unit: (n, d + k) float64."""
        return np.column_stack([Z, bend(self._own(Z) / self.own_scale)])

    def snapshot(self):
        """Arrays."""
        return dict(vars(self))


class AboutColumns(NamedTuple):
    """What a detector is told of the columns beside their standardised values."""

    rarity: np.ndarray | None = None  # (d,) see :class:`LargestValue`
    own_units: OwnUnits | None = None
    scaler: ColumnScaler | None = None  # of the table
    gaps: np.ndarray | None = None  # (d,) bool, the columns that say where a value is missing

    @classmethod
    def of(cls, rows):
        """Of :class:`data.rows.TrainingRows`."""
        flags = rows.columns.preparation.flags()
        rarity = LargestValue.rarity_of(rows.Z, flags, rows.subjects)
        scaler = rows.columns.scaler
        return cls(rarity, OwnUnits.of(scaler), scaler, rows.columns.preparation.gap_flags())


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
        variance = np.square(root)
        least = self.RIDGE * variance.sum() / rows.shape[1] + LEAST
        self.directions = torch.from_numpy(filled(directions, self.STEP, self.STEP))
        self.beyond = least**-0.5  # the scale of all directions that no row spans
        self.scale = torch.zeros(len(self.directions), dtype=torch.float64)
        self.scale[: len(variance)] = torch.from_numpy((variance + least) ** -0.5 - self.beyond)

    def __call__(self, Z):
        """Whitened rows (n, d) as a float64 tensor, padded with columns of zeros."""
        Z = torch.from_numpy(filled(np.asarray(Z, dtype=np.float64), 1, self.STEP))
        return self.beyond * Z + (Z @ self.directions.T * self.scale) @ self.directions

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
