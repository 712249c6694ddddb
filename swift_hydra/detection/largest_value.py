"""How far out rows are in their most unusual column, or in a relation among columns (M12).

:class:`LargestValue` takes the largest of all columns' values, :class:`KeptRelations` find what
counts as one more column: that a row breaks a relation which nearly all training rows keep.

# DIFF(paper): an addition; the paper's models see the values alone.

Shapes: n rows, d columns, k measured ones, r relations.
"""

from typing import NamedTuple

import numpy as np

from swift_hydra.data.scaler import QUANTILES as SCALES
from swift_hydra.data.scaler import ColumnScaler, without_themselves
from swift_hydra.detection.coordinates import OwnUnits
from swift_hydra.geometry import VECTOR, along, principal_axes, spread_over, unbend

KEPT = 0.05  # most spread of a relation, if columns had a spread of 1 and were independent
ROWS = 10  # training rows for each column: fewer seem to keep relations by chance
MOST_ROWS = 4096  # training rows that relations are looked for in, which bounds the columns, too
ROUNDS = 3  # of looking again without the rows that break what was found
BREAKS = 4.0  # spreads from a relation's middle
AT_MOST = 0.2  # share of the rows that may break relations
POSITIVE = 0.99  # share of the rows where a factor has its usual sign
SHARE, DEVIATIONS = SCALES[0]  # the scaler's outer quantiles, and what lies between them
QUANTILES = (SHARE, 0.5, 1 - SHARE)
LEAST = 1e-4  # least spread of a relation, in the same unit
PART = 0.01  # a column with a smaller part in a relation has none
MORE = 0.1  # share of rows beyond the usual one that break a relation which is no longer kept
NAMED = 0.2  # of a relation's columns those with so much of the largest part are named
MOST = 1e100
STEP = 4 * np.finfo(np.float32).eps  # relative error of standardised values


class System(NamedTuple):
    """Relations of one kind: sums, or sums of logarithms."""

    logs: bool
    columns: np.ndarray  # (c,) numbers of the columns
    centre: np.ndarray  # (c,)
    scale: np.ndarray  # (c,)
    directions: np.ndarray  # (r, c) what hardly varies
    middle: np.ndarray  # (r,) its medians
    spread: np.ndarray  # (r,)
    usual: np.ndarray | float = AT_MOST  # (r,) share of the training rows that break them

    def values(self, X):
        """What is summed, (n, c) float64 of rows X (n, k); a factor of another sign is NaN."""
        with np.errstate(all="ignore"):
            X = X[:, self.columns]
            if self.logs:
                ratio = X / self.centre
                values = np.log(np.where(ratio > 0, ratio, np.nan)) / self.scale
            else:
                values = (X - self.centre) / self.scale
        return np.clip(values, -MOST, MOST)  # what can be squared

    def broken(self, values, nearby, gaps=None):
        """By how many spreads rows (n, c) break each relation: (n, r).

        Args:
            values: what is summed.
            nearby: the values after a change as large as their rounding error.
            gaps: (n, c) bool, gaps that were filled; None: there are none. Nobody knows whether a
                relation with such a column is kept.
        """
        off = np.abs(along(values, self.directions) - self.middle)
        error = along(np.abs(values - nearby), np.abs(self.directions))
        with np.errstate(invalid="ignore"):
            each = off / (self.spread + error)
            if gaps is not None:
                each[gaps.astype(float) @ (np.abs(self.directions.T) > PART) > 0] = 0.0
        return np.where(np.isnan(each), 0.0, each)  # a factor of another sign: nothing to compare


class KeptRelations:
    """By how many spreads a row breaks the relation among columns that it breaks most.

    The parts of a total, shares of a whole, a price, a number and an amount, one quantity in two
    units, two sensors of one thing: a combination of such columns hardly varies, and a row that
    breaks the relation may be usual in every value and near to its neighbours. Such combinations
    are the last principal axes of the values (sums) or of their logarithms (products). Quantiles
    say how little they vary, and axes are computed again without rows that break what was found,
    since hidden anomalies are among the rows.

    Args:
        measured: (d,) bool, the columns that take many values; others keep relations by chance.
        scaler: the fitted :class:`data.scaler.ColumnScaler` of these columns.
        filled: two (k,) bounds between which values of these columns are filled gaps; None if no
            gaps are filled, and in older files.
        systems: a list of :class:`System`.
    """

    def __init__(self, measured, scaler, filled=None, systems=()):
        self.measured = np.asarray(measured)
        self.scaler = scaler
        self.filled = filled
        self.systems = list(systems)

    @classmethod
    def of(cls, Z, measured, scaler, filled=None):
        """Look for relations in standardised training rows Z (n, d); None if there is none.

        Args:
            Z: the rows.
            measured: see above.
            scaler: the :class:`data.scaler.ColumnScaler` of all columns.
            filled: two (d,) bounds, see above; or None.
        """
        columns = np.flatnonzero(measured)
        rows = spread_over(len(Z), MOST_ROWS)
        if len(columns) < 2 or len(rows) < ROWS * len(columns):
            return None
        own = {name: values[columns] for name, values in scaler.snapshot().items()}
        filled = filled and [bound[columns] for bound in filled]
        self = cls(measured, ColumnScaler.from_snapshot(own), filled)
        rows = np.asarray(Z)[rows]
        gaps = self._gaps(rows)
        if gaps is not None:
            rows = rows[~gaps.any(1)]
            if len(rows) < ROWS * len(columns):
                return None
        X, nearby = self._amounts(rows)
        centre = self.scaler.centre
        with np.errstate(all="ignore"):
            factors = np.flatnonzero((X / centre > 0).mean(0) >= POSITIVE)
        found = [_found(X, nearby, False, np.arange(len(columns)), centre)]
        if len(factors) > 2:  # of two, a sum says the same
            found.append(_found(X, nearby, True, factors, centre[factors]))
        self.systems = [system for system in found if system is not None]
        return self if self.systems else None

    def __call__(self, Z):
        """(n,) float64, 0 or more, of standardised rows Z (n, d)."""
        return np.max([each.max(1) for each in self._broken(Z)], axis=0)

    def no_longer_kept(self, Z):
        """The relations that more of the rows Z (n, d) break than training rows may have done.

        Returns:
            For each, the numbers of its columns and the share of the rows that break it.
        """
        numbers, found = np.flatnonzero(self.measured), []
        for system, each in zip(self.systems, self._broken(Z), strict=True):
            share = (each > BREAKS).mean(0)
            by_chance = 4 * np.sqrt(system.usual * (1 - system.usual) / len(each))
            for r in np.flatnonzero(share > system.usual + np.maximum(by_chance, MORE)):
                part = np.abs(system.directions[r])
                found.append((numbers[system.columns[part > NAMED * part.max()]], share[r]))
        return found

    def _broken(self, Z):
        """Yield by how many spreads rows Z (n, d) break the relations of each system: (n, r)."""
        X, nearby = self._amounts(Z)
        gaps = self._gaps(Z)
        for system in self.systems:
            own = None if gaps is None else gaps[:, system.columns]
            yield system.broken(*map(system.values, (X, nearby)), own)

    def _gaps(self, Z):
        """Where rows Z (n, d) have a filled gap in a measured column: (n, k) bool, or None."""
        if self.filled is None:
            return None
        low, high = self.filled
        values = np.asarray(Z)[:, self.measured]
        return (low < values) & (values < high)

    def _amounts(self, Z):
        """The measured columns in the input's unit (n, k), and after a small change."""
        Z = np.asarray(Z, dtype=np.float64)[:, self.measured]
        return (self.scaler.inverse_transform(rows) for rows in (Z, Z * (1 - STEP)))

    def snapshot(self):
        """Arrays and plain values."""
        systems = [system._asdict() for system in self.systems]
        own = {"measured": self.measured, "filled": self.filled}
        return own | {"scaler": self.scaler.snapshot(), "systems": systems}

    @classmethod
    def from_snapshot(cls, saved):
        """Rebuild from :meth:`snapshot`."""
        systems = [System(**system) for system in saved["systems"]]
        scaler = ColumnScaler.from_snapshot(saved["scaler"])
        return cls(saved["measured"], scaler, saved.get("filled"), systems)


def _found(X, nearby, logs, columns, centre):
    """The :class:`System` of one kind in rows X (n, k), or None.

    Args:
        X: the rows in the input's unit.
        nearby: the same after a change as large as their rounding error.
        logs: look at logarithms.
        columns: (c,) numbers of the columns.
        centre: (c,) their medians.
    """
    none = np.empty(0)
    system = System(logs, columns, centre, np.ones(len(columns)), none, none, none)
    low, high = np.nanquantile(system.values(X), (QUANTILES[0], QUANTILES[-1]), axis=0)
    varies = (high > low) & np.isfinite(high - low)
    if varies.sum() < 2:
        return None
    scale = (high - low)[varies] / DEVIATIONS
    system = system._replace(columns=columns[varies], centre=centre[varies], scale=scale)
    values, nearby = system.values(X), system.values(nearby)
    whole = np.isfinite(values).all(1)
    values, nearby = values[whole], nearby[whole]
    if len(values) < ROWS * len(scale):  # each factor has its usual sign, hardly any row has all
        return None
    kept = np.ones(len(values), dtype=bool)
    for _ in range(ROUNDS):
        rows = values[kept]
        axes = principal_axes(rows - rows.mean(0))[1]
        low, middle, high = np.quantile(values @ axes.T, QUANTILES, axis=0)
        spread = (high - low) / DEVIATIONS  # 1 along each axis of independent columns
        tight = spread < KEPT
        if not tight.any():
            return None
        spread = np.maximum(spread[tight], LEAST)
        system = system._replace(directions=axes[tight], middle=middle[tight], spread=spread)
        each = system.broken(values, nearby)
        broken = each.max(1)
        kept = broken <= max(BREAKS, np.quantile(broken, 1 - AT_MOST))
    return system._replace(usual=(each > BREAKS).mean(0))


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
    usual: np.ndarray | bool = False  # (k,) bool, where a gap is usual, it is 0; False in old files

    @classmethod
    def of(cls, Z, flags):
        """Of training rows Z (n, d); ``flags``: (d,) bool, or None. None without two columns."""
        if flags is None or flags.sum() < 2:
            return None
        columns = np.flatnonzero(flags)
        # The scaler takes the median away: 0 is what most rows have, and a value may be -1.
        self = cls(columns, np.empty(0), np.asarray(Z)[:, columns].max(0) <= 0)
        n_gaps = self._in(Z)
        counts = np.bincount(n_gaps, minlength=len(columns) + 1)
        share = counts[::-1].cumsum()[::-1] / len(n_gaps)  # of the rows with as many or more
        return self._replace(rarity=_score_of_rare(share, len(n_gaps)))

    def _in(self, Z):
        """How many gaps rows (n, d) have: (n,)."""
        return ((np.asarray(Z)[:, self.columns] != 0) != self.usual).sum(1)

    def __call__(self, Z):
        """(n,) of rows Z (n, d), in standard deviations."""
        return self.rarity[self._in(Z)]


class LargestValue:
    """How far out a row is in the one column where it is farthest out.

    A slip of the keyboard or a spike of one sensor changes one value of a row. Among many columns a
    distance hardly shows it: of fifty normal ones a value at five standard deviations adds a
    quarter to the length of the row's difference from the mean. Other rows do not matter to this
    measure. Values of columns that take many count as they were before the scaler compressed them.
    A rare code does not: it is far out only because it is rare. A text is as far out as
    :meth:`rarity_of` says, and so many gaps as :class:`GapCounts` says. A relation among columns
    that nearly all rows keep counts as one more column, see
    :class:`KeptRelations`.

    Args:
        measured: (d,) bool, the columns that take many values.
        rarity: (d,) how far out a row is that holds a column's text; 1 for columns of numbers. None
            stands for ones, as in older files.
        relations: a :class:`KeptRelations`; None without relations, and in
            older files.
        gaps: a :class:`GapCounts`; None without, and in older files.
    """

    INSIDE, OUTSIDE = 0.5, 20.0  # standard deviations; values nearer and farther count as these
    BROKEN = 1000.0  # the same of relations: where they are exact, a row far off is no heavy tail
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
        relations = about.scaler and KeptRelations.of(Z, measured, about.scaler, about.filled)
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

    def __call__(self, Z, among=None):
        """Logarithms (n,) of the largest values of rows (n, d), in standard deviations.

        ``among``: (m, d) all rows that the scaler learned from, if these are some of them. Each
        counts in units learned from the others, or few rows would seem nearer than new rows do.
        """
        size = np.abs(Z)
        if self.rarity is not None:
            size = size * self.rarity
        codes = size[:, ~self.measured].max(1, initial=0.0).astype(np.float64)  # (n,)
        if among is not None:
            columns = np.flatnonzero(self.measured)
            measured = np.zeros(len(Z))
            for start in range(0, len(columns), VECTOR):  # not all at once in float64
                some = columns[start : start + VECTOR]
                u, of_all = (unbend(rows[:, some].astype(np.float64)) for rows in (Z, among))
                measured = np.maximum(measured, np.abs(without_themselves(u, of_all)).max(1))
        else:  # of the largest alone: all that follows keeps the order
            measured = unbend(size[:, self.measured].max(1, initial=0.0).astype(np.float64))
        if self.gaps is not None:
            codes = np.maximum(codes, self.gaps(Z))
        largest = np.clip(np.maximum(codes, measured), self.INSIDE, self.OUTSIDE)
        if self.relations is not None:
            largest = np.maximum(largest, np.minimum(self.relations(Z), self.BROKEN))
        return np.log(largest)

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


class AboutColumns(NamedTuple):
    """What a detector is told of the columns beside their standardised values."""

    rarity: np.ndarray | None = None  # (d,) see :class:`LargestValue`
    own_units: OwnUnits | None = None
    scaler: ColumnScaler | None = None  # of the table
    gaps: np.ndarray | None = None  # (d,) bool, the columns that say where a value is missing
    filled: tuple | None = None  # see :meth:`data.columns.Preparation.bounds_of_gaps`

    @classmethod
    def of(cls, rows):
        """Of :class:`data.rows.TrainingRows`."""
        preparation, scaler = rows.columns.preparation, rows.columns.scaler
        rarity = LargestValue.rarity_of(rows.Z, preparation.flags(), rows.subjects)
        own_units, gaps = OwnUnits.of(scaler), preparation.gap_flags()
        return cls(rarity, own_units, scaler, gaps, preparation.bounds_of_gaps(scaler))
