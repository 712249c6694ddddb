"""What a fit learned about the columns of a table, and how new rows compare with it.

:class:`Columns` prepares and standardises new rows as the training rows were, :class:`Tally` counts
in what they differ and says so.

Shapes: n rows, d columns of the table, d' prepared ones.
"""

import hashlib
import json
from functools import cached_property

import numpy as np
from scipy.special import gammainccinv

from swift_hydra.data.cells import Held
from swift_hydra.data.columns import Preparation
from swift_hydra.data.frames import as_known, day_of, frame_names, repeated, with_columns
from swift_hydra.data.scaler import ColumnScaler
from swift_hydra.data.suspicious import CERTAIN, beyond_float32, end_with_float32, too_coarse
from swift_hydra.data.table import made_up_names
from swift_hydra.data.text_files import INDEX
from swift_hydra.settings import InputError, listed, tell

ENOUGH = 30  # new rows that are judged together; fewer may all lack a value by chance
MOSTLY = 0.5  # share of new rows outside a column's training range that is worth a warning
ONE_SIDE = 0.95  # share of new rows on one side of the training's median worth a warning
LOOKED_AT = 4096  # new rows, the first, in which relations among columns are looked at
SHOWN = 3  # most columns that such a warning names
DRIFT = 0.01  # share of rows outside the training range above which score names a column
CHANCE = 0.01  # of a drift warning for any column of rows from the training's source
NAMED = 5  # most columns with drift that are named


class Columns:
    """How the columns of a table are prepared, standardised, and compared with the training's.

    Args:
        preparation: a fitted :class:`data.columns.Preparation`.
        scaler: a fitted :class:`data.scaler.ColumnScaler` of the prepared columns.
        centre: (d',) a typical normal row, prepared.
        low: (d',) smallest prepared values of the training rows.
        high: (d',) largest.
    """

    def __init__(self, preparation, scaler, centre, low, high):
        self.preparation = preparation
        self.scaler = scaler
        self.centre = centre
        self.low = low
        self.high = high

    @property
    def n_features(self):
        """d, the columns of the table as given."""
        return self.preparation.d

    @property
    def given_names(self):
        """d names, or None where the training table had none."""
        return self.preparation.columns

    @property
    def own_names(self):
        """The d names if they are the user's, or None if they are made up (x0, x1, ...)."""
        named = self.preparation.named
        if named is None:  # an older file does not say: judge by the names themselves
            named = self.given_names not in (None, made_up_names(self.n_features))
        return list(self.given_names) if named else None

    @property
    def names(self):
        """d names: those of the training table, or x0, x1, ..."""
        return list(self.given_names or made_up_names(self.n_features))

    @property
    def texts(self):
        """{column number: its texts} of the text columns."""
        return self.preparation.texts

    @property
    def fingerprint(self):
        """SHA256 of names, texts and how the file was read, which the rows' numbers do not show."""
        saved = self.preparation.snapshot()
        told = {name: saved[name] for name in ("columns", "texts", "names", "reading")}
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()

    @property
    def held(self):
        """What the columns held, as a :class:`data.cells.Held`."""
        low, high = self.low[self.first], self.high[self.first]
        beyond = frozenset(np.flatnonzero((low < 0) | (high > 1)).tolist())
        return Held(self.preparation.dated, beyond.difference(self.texts))

    def in_order(self, X, label_name):
        """A data frame with its columns in the training's order, by name; else X as it is.

        Args:
            X: array-like, data frame or Table.
            label_name: name of the label column, which a frame may still hold, or None.

        Raises:
            InputError: if columns are missing, unknown or ambiguous.
        """
        names = self.own_names
        here = frame_names(X)
        if here is None:
            return X
        if names is None:
            names = self._made_up_for(here)
        if names is None or here == names:
            return X
        given = here = as_known(here, names)
        known, present = set(names), set(here)
        missing = [name for name in names if name not in present]
        # The frame may still hold the label column, and the index that pandas wrote into a file,
        # which reading that file leaves out: neither is a feature.
        apart = {name for name in here if name == label_name or INDEX.fullmatch(str(name))}
        here = [name for name in here if name in known or name not in apart]
        other = [name for name in here if name not in known]
        # Columns of equal names are ambiguous, unless all columns are in the training's order.
        twice = repeated(here) if here != names else []
        if missing or other or twice or len(here) != len(names):
            parts = [f"column {listed(map(repr, missing))} is missing"] if missing else []
            parts += [f"column {listed(map(repr, other))} is not known"] if other else []
            parts += [f"column {listed(map(repr, twice))} is there more than once"] if twice else []
            parts = parts or ["a column is there fewer times than in training"]
            raise InputError(
                f"X: {' and '.join(parts)}: give the columns it was trained on, "
                f"{listed(map(repr, names))}, in any order"
            )
        # Label columns, of which there may be several, are dropped; other names are unique here.
        if here == names:
            return with_columns(X, [j for j, name in enumerate(given) if name in known])
        place = {name: j for j, name in enumerate(given)}
        return with_columns(X, [place[name] for name in names])

    def _made_up_for(self, here):
        """The names of an array's columns as a frame has them: x0, x1, ..., or pandas' 0, 1, ...

        None if the frame's names ``here`` are others.
        """
        numbered = [str(j) for j in range(self.n_features)]
        names = next((some for some in (self.names, numbered) if set(here) == set(some)), None)
        if names == numbered and here != names:
            tell(
                "X: its columns are numbered in another order than 0, 1, 2, ...: they were "
                "taken by these numbers, as columns of the array that was learned from",
            )
        return names

    def prepare(self, table):
        """New rows with gaps filled and marked, and texts encoded: (n, d'), finite."""
        return self.preparation.mark_gaps(self.preparation.transform(table, new=True), table)

    def standardise(self, X):
        """Prepared rows (n, d') as the networks read them: float32 (n, d')."""
        return self.scaler.transform(X)

    def in_units(self, Z):
        """Standardised rows (n, d') in the units of the prepared columns."""
        return self.scaler.inverse_transform(Z)

    def without(self, X, j):
        """Prepared rows X (n, d') with column j of the table at its typical value."""
        return np.where(self.preparation.groups == j, self.centre, X)

    def outside(self, table, X):
        """(n, d) True where a row lies outside the training rows' range of a column.

        Args:
            table: n rows as given.
            X: (n, d') the same rows, prepared.
        """
        # Rounding in a text file, or of a constant in another type, does not count as outside.
        digits = 4 * np.finfo(np.float32).eps * np.maximum(abs(self.low), abs(self.high))
        slack = np.maximum(self.slack, np.where(self.high > self.low, 0, digits))
        beyond = (X < self.low - slack) | (X > self.high + slack)
        beyond = np.logical_or.reduceat(beyond, self.first, axis=1)
        return beyond | self.preparation.unknown(table)

    @property
    def slack(self):
        """(d',) differences that count as none beside the training rows' range."""
        return 1e-4 * (self.high - self.low)

    @cached_property
    def near(self):
        """(d,) differences from the training's typical value that count as none."""
        gap = self.preparation.steps
        centre = np.abs(self.centre[self.first].astype(np.float64))
        return 1e-6 * centre + (0.0 if gap is None else 2 * gap)

    @cached_property
    def first(self):
        """(d,) the number of each column's first prepared column."""
        return self.preparation.first

    @cached_property
    def _lost(self):
        """(d',) digits of the training's values that float32 cuts off, 0 if the rest is enough."""
        digits = beyond_float32(np.stack([self.scaler.centre, self.low, self.high])).max(axis=0)
        dated = np.isin(self.preparation.groups, self.preparation.dated or ())
        return np.where(too_coarse(self.scaler) & ~dated, digits, 0)

    def shortened(self, X):
        """Of which columns prepared rows X (n, d') hold float32's digits alone, training had more.

        The type itself may be lost: beside other columns float32 becomes float64.

        Returns:
            Two (d,) bool: no value has more digits; and the values are such that this is no chance.
        """
        short, told = np.zeros((2, self.n_features), dtype=bool)
        for k in np.flatnonzero(self._lost > 0):
            values, j = np.unique(X[:, k]), self.preparation.groups[k]
            if self.preparation.fill is not None:
                values = values[values != self.preparation.in_gaps[j]]  # filled in float64
            short[j] = not len(values) or beyond_float32(values).max() <= 0
            if short[j] and len(values):
                told[j] = end_with_float32(values, self._lost[k]) or self._is_one(values, k)
        return short, told

    def _is_one(self, values, k):
        """Have the values of prepared column k become one, among the training's?"""
        step = np.finfo(np.float32).eps * abs(values[0])
        near = self.low[k] - step <= values[0] <= self.high[k] + step
        return len(values) == 1 and near and self._lost[k] >= CERTAIN

    def range_of(self, j):
        """The range of the training rows in column j of the table, as a text."""
        if j in self.texts:
            return f"{len(self.texts[j])} texts"
        at = self.preparation.first_of(j)
        low, high = float(self.low[at]), float(self.high[at])
        if j in (self.preparation.dated or ()):
            return f"{day_of(low)} to {day_of(high)}"
        return " to ".join(self.written(at, end) for end in (low, high))

    def written(self, k, value):
        """A value of prepared column k, with digits to tell 1000000.5 from 1000001.5 if need be."""
        low, high = float(self.low[k]), float(self.high[k])
        offset = max(abs(low), abs(high)) / (high - low) if high > low else 1e3
        digits = 4 + min(max(int(np.log10(offset)), 0), 13)
        return f"{value:.{digits}g}"

    def snapshot(self):
        """Arrays and plain values."""
        return {
            "preparation": self.preparation.snapshot(),
            "scaler": self.scaler.snapshot(),
            "centre": self.centre,
            "low": self.low,
            "high": self.high,
        }

    @classmethod
    def from_snapshot(cls, saved, n_features):
        """Rebuild from :meth:`snapshot`.

        Raises:
            ValueError: for values that no fit on ``n_features`` columns produces.
        """
        preparation = Preparation.from_snapshot(saved["preparation"])
        preparation.check(n_features)
        d = len(preparation.names)
        for name in ("centre", "low", "high"):
            if saved[name].shape != (d,) or not np.isfinite(saved[name]).all():
                raise ValueError(f"{name} is not finite or its shape is not {(d,)}")
        scaler = ColumnScaler.from_snapshot(saved["scaler"])
        return cls(preparation, scaler, saved["centre"], saved["low"], saved["high"])


class Tally:
    """Counts new rows, those above the threshold, gaps, lost digits, and values out of range.

    Args:
        columns: a :class:`Columns`.
    """

    def __init__(self, columns):
        self.columns = columns
        self.outside = np.zeros(columns.n_features, dtype=np.int64)
        self.gaps = np.zeros(columns.n_features, dtype=np.int64)
        self.short = np.ones(columns.n_features, dtype=bool)  # see Columns.shortened
        self.told = np.zeros(columns.n_features, dtype=bool)
        self.first = columns.centre  # (d',) the first row, prepared
        self.same = np.ones(len(columns.centre), dtype=bool)  # all rows are like it
        self.below, self.above = np.zeros((2, columns.n_features), dtype=np.int64)  # the median
        self.some = []  # blocks of the first rows, prepared
        self.n_rows = 0
        self.n_above = 0

    def add(self, table, X, n_above):
        """Count a block: its rows as given and prepared (n, d'), and those above the threshold."""
        self.outside += self.columns.outside(table, X).sum(0)
        gaps = np.isnan(table.X)
        self.gaps += gaps.sum(0)
        self.first = self.first if self.n_rows else X[0].copy()
        self.same &= (X == self.first).all(axis=0)
        with np.errstate(over="ignore"):
            away = X[:, self.columns.first] - self.columns.centre[self.columns.first]
        self.below += (~gaps & (away < -self.columns.near)).sum(0)
        self.above += (~gaps & (away > self.columns.near)).sum(0)
        self.some += [X[: max(LOOKED_AT - self.n_rows, 0)].copy()]
        short, told = self.columns.shortened(X)
        self.short &= short
        self.told |= told
        self.n_rows += len(X)
        self.n_above += n_above

    def emptied(self):
        """A warning if some columns have no value in any of the rows, else None."""
        preparation = self.columns.preparation
        empty = np.flatnonzero(self.gaps == self.n_rows)
        if not len(empty) or self.n_rows < ENOUGH or preparation.fill is None:
            return None  # without a fill such rows are refused
        # Columns with gaps in training have an indicator, by which a missing value can be unusual.
        told = set(empty) <= set(preparation.gaps)
        usual = "" if told else ", as if nothing were unusual there"
        names = [repr(self.columns.names[j]) for j in empty]
        return (
            f"column {listed(names)} is empty in all {self.n_rows} rows and was not in training: a "
            f"typical value stands for it{usual}"
        )

    def unmet(self):
        """A warning of gaps that have no indicator, as training had none in their column."""
        preparation = self.columns.preparation
        some = (self.gaps > 0) & ((self.gaps < self.n_rows) | (self.n_rows < ENOUGH))
        some[preparation.gaps] = False
        found = np.flatnonzero(some)
        if preparation.impute != "indicator" or not len(found):
            return None
        names = listed(repr(self.columns.names[j]) for j in found)
        return (
            f"column {names} has gaps and had none in training, which gave it no indicator: a "
            "typical value stands for them, as if nothing were unusual there"
        )

    def fall_together(self):
        """A warning if columns hold fewer digits than in training, else None."""
        found = np.flatnonzero(self.short & self.told)
        if self.n_rows < ENOUGH or not len(found):
            return None
        names = listed(repr(self.columns.names[j]) for j in found)
        return (
            f"column {names} has fewer digits than in training, no more than float32 holds: its "
            "values fall together: give float64"
        )

    def stuck(self):
        """A warning of columns of numbers that have one value in all of many rows, else None.

        Not if it is the training's median, as it may be the usual value there, or if something
        else is said of the column.
        """
        if self.n_rows < ENOUGH:
            return None
        columns = self.columns
        usual = np.abs(self.first - columns.centre) <= columns.slack
        ranged = (columns.high > columns.low) & ~usual
        one = (self.same & ranged)[columns.first] & (self.outside == 0) & (self.gaps < self.n_rows)
        one &= ~(self.short & self.told)
        one[[*columns.texts, *(columns.preparation.dated or ())]] = False
        found = np.flatnonzero(one)
        if not len(found):
            return None
        values = (columns.written(k, self.first[k]) for k in columns.first[found])
        shown = [f"{columns.names[j]!r} ({value})" for j, value in zip(found, values, strict=True)]
        return (
            f"column {listed(shown)} has one value in all {self.n_rows} rows and had others in "
            "training: if these rows were not chosen by it, look at where it comes from"
        )

    def moved(self):
        """A warning of columns whose training's median nearly all of many rows lie on one side of.

        In another unit, the values may lie within the training's range, as it has zeros. Not if
        most rows are outside that range or have one value, which is said elsewhere.
        """
        if self.n_rows < ENOUGH:
            return None
        columns = self.columns
        side = np.maximum(self.below, self.above)
        n_values = self.n_rows - self.gaps
        found = (side >= ONE_SIDE * n_values) & (n_values >= ENOUGH) & ~self.same[columns.first]
        found &= self.outside < MOSTLY * self.n_rows
        found[[*columns.texts, *(columns.preparation.dated or ())]] = False
        told = []
        for j in np.flatnonzero(found):
            which = "below" if self.below[j] == side[j] else "above"
            at = columns.first[j]
            told.append(f"{columns.names[j]!r} ({which} {columns.written(at, columns.centre[at])})")
        if not told:
            return None
        return (
            f"of column {listed(told)} at least {100 * ONE_SIDE:g} % of the values lie "
            "on one side of the training's median: if these rows were not chosen by it, look at "
            "its unit"
        )

    def far_outside(self):
        """A warning of columns whose training range most of many rows leave, else None."""
        if self.n_rows < ENOUGH:
            return None
        columns = self.columns
        share = self.outside / self.n_rows
        found = []
        for j in np.flatnonzero(share >= MOSTLY):
            how = f"is outside its training range ({columns.range_of(j)})"
            how = "holds a text that training did not have" if j in columns.texts else how
            found.append(f"column {columns.names[j]!r} {how} in {100 * share[j]:.0f} % of the rows")
        more = [f"... ({len(found)} in all)"] if len(found) > SHOWN else []
        return "; ".join([*found[:SHOWN], *more]) or None

    def drift(self, n_training):
        """Yield a warning for each of at most ``NAMED`` columns whose training range rows leave.

        Beyond the extremes of ``n_training`` rows lies a share of the same source's new rows that
        follows a gamma distribution, of mean 2 / n. Few training rows have a range of their own.
        """
        by_chance = self.n_rows * gammainccinv(2, CHANCE / len(self.outside)) / n_training
        usual = max(DRIFT * self.n_rows, by_chance + 3 * np.sqrt(by_chance), 3)
        for j in np.argsort(-self.outside, kind="stable")[:NAMED]:
            if self.outside[j] > usual:
                share = 100 * self.outside[j] / self.n_rows
                yield (
                    f"drift: {share:.1f} % of the rows are outside the training range of "
                    f"column {self.columns.names[j]!r} ({self.columns.range_of(j)})"
                )
