"""Which training rows are left out together: all copies of a row, in balanced folds.

A fit that has seen a copy of a row, label included, does not predict that row: it remembers it. So
copies are left out together. There are two exceptions. If a large part of the rows are copies of
each other, leaving all of them out would remove much of the table. And if normal rows recur as
codes (combinations of values that many rows share), a new row may well be one more of them. Such
copies are distributed over the folds, whatever their labels, and only those of one fold are left
out together. What the other folds' rows say about the code does not depend on the labels that are
left out.

Rows that were measured on one subject (a patient, a machine) tell about each other as copies do,
however much they differ. Where subjects are known, the rows of one are in one fold and left out
together.

Shapes: n rows, F folds.
"""

from typing import NamedTuple

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from swift_hydra.cleaning.repeats import expected_counts
from swift_hydra.geometry import ROUNDING, copies
from swift_hydra.seeds import stage_rng

OFTEN = 3  # up to so many copies of a row may be duplicates by mistake
# If a larger share of the rows with copies has more than OFTEN, no row's copies are a mistake.
SHARE_OFTEN = 0.1
MANY = 16  # more copies of a normal row than sampling with replacement produces
ENOUGH = 10  # so many groups of copies do not have a common divisor of their sizes by chance
ODD = 1 / 3  # share of the groups beyond ENOUGH whose size may not be a multiple of the divisor
RARE = 0.05  # a code with fewer expected rows than this is ignored
LEAST_COMMON = 8  # a frequent value has more rows than this, unless the table is tiny


class FreshScores(NamedTuple):
    """A weighted sample of scores: what as many fresh rows of the table are expected to score."""

    row: np.ndarray  # (m,) number of the training row whose score it is
    score: np.ndarray  # (m,)
    weight: np.ndarray  # (m,) how many fresh rows it stands for
    normal: np.ndarray  # (m,) how many fresh rows without a known anomaly it stands for

    @classmethod
    def plain(cls, score, normal):
        """Each training row counts once: scores (n,), and which rows are normal, (n,) bool."""
        return cls(np.arange(len(score)), score, np.ones(len(score)), normal.astype(np.float64))


class CopyGroups(NamedTuple):
    """What the copies among training rows are, before the rows are dealt to folds: c groups."""

    size: np.ndarray  # (c,) number of rows
    normal: np.ndarray  # (c,) bool, has normal rows
    large: np.ndarray  # (c,) bool, more rows than duplicates by mistake have
    frequent: np.ndarray  # (c,) bool, codes: split over the folds
    common: np.ndarray  # (c,) bool, see :func:`_made_of_common_values`
    coded: np.ndarray  # (c,) bool, others that a new row may well be a copy of
    times: int  # common factor of the sizes
    written: int  # how many times the whole table was written

    @classmethod
    def of(cls, Z, y, same, n_folds, subjects):
        """Judge the copies.

        Args:
            Z: (n, d) standardised rows.
            y: (n,) labels.
            same: (n,) numbers from 0, equal for copies.
            n_folds: F.
            subjects: (n,) numbers, or None.
        """
        size, size_of_normals = _sizes(same, y == 0, subjects)
        normal = np.bincount(same, y == 0) > 0
        times = _common_factor(size_of_normals)  # a multiple of k if the table was written k times
        # Copies that exist only because the whole table was written k times are no recurrence.
        by_chance = subjects is not None or _by_chance(Z, same, size_of_normals, times)
        written = 1 if by_chance else times
        common = _made_of_common_values(Z, same)
        coded = common & (Z.shape[1] > 1)
        # A code, not a duplicate by mistake: it has many rows, or several with common values.
        many = size > min(max(len(y) / (2 * n_folds), LEAST_COMMON), len(y) / 2)
        large = many | (size > MANY * times)
        several = coded & (size > times)
        frequent = many | ((several | large) & normal)
        coded &= (size > written) | (written == 1)
        coded &= several.any()
        return cls(size, normal, large, frequent, common, coded, times, written)

    def that_come_again(self, frequent):
        """Which groups new rows will be copies of.

        Args:
            frequent: (c,) bool, the groups that were split over the folds.

        Returns:
            (c,) bool, those whose left-out rows meet fewer copies than a new row will; and (c,)
            bool, these and those that meet as many.
        """
        size = self.size
        # Many copies are no mistake: they are a code or a template.
        often = size > OFTEN * self.times
        # If many rows have so many copies, the smaller groups are no mistake either.
        often |= size[often].sum() > SHARE_OFTEN * size[size > 1].sum()
        # Codes with few copies in each fold: a left-out row meets as many as a new row will, so
        # that its left-out score is what a fresh row gets.
        few = frequent & ~self.large
        again = (size > self.written) | frequent
        met_again = (size > 1) & again & (often | frequent | self.common) & ~few
        return met_again, met_again | (few & (size > 1))


class LeaveOut:
    """Groups and folds of training rows.

    Args:
        Z: (n, d) standardised rows.
        y: (n,) labels.
        n_folds: F.
        seed: the run's seed.
        subjects: (n,) the subject each row was measured on, numbered from 0; None: every row has
            its own.

    Attributes:
        subjects: the argument.
        folds: (n,) fold numbers from 0; both classes are spread evenly over the folds.
        groups: (n,) group numbers; the rows of a group are left out together.
        coded: (n,) bool, rows that a new row may well be a copy of: the row has many copies, or
            rows of the table recur and it consists of values that other rows have too.
    """

    def __init__(self, Z, y, n_folds, seed, subjects=None):
        self._same = copies(Z, ROUNDING)
        self.subjects = subjects
        found = CopyGroups.of(Z, y, self._same, n_folds, subjects)
        frequent = found.frequent
        self._deal(y, n_folds, frequent, stage_rng(seed, "folds"))
        of_normals = self.folds[y == 0]
        if (of_normals == of_normals[0]).all():  # no normal rows would remain without that fold
            frequent = frequent | found.normal
            self._deal(y, n_folds, frequent, stage_rng(seed, "folds"))
        self.coded = (frequent | found.coded)[self._same]
        self._written = found.written
        self._met_again, self._codes = found.that_come_again(frequent)

    def _deal(self, y, n_folds, frequent, rng):
        """Set groups and folds; ``frequent`` groups of copies are split over the folds."""
        same = self._same
        alone = len(frequent) + np.arange(len(y))
        unit = np.where(frequent[same], alone, same)
        if self.subjects is not None:
            unit = _joined(self.subjects, same, ~frequent[same])
            most = max(len(y) / n_folds, np.bincount(self.subjects).max())
            joined = np.bincount(unit).max() > most  # by shared copies, too many subjects
            if joined or len(np.unique(unit[y == 0])) == 1:
                unit = self.subjects
        unit = np.unique(unit, return_inverse=True)[1]
        count = np.bincount(unit)
        kind = (np.bincount(unit, y) > 0).astype(np.int64)
        if self.subjects is not None:  # a subject with anomalies may have no normal row
            kind += np.bincount(unit, y == 0) == 0
        fold = np.zeros(len(count), dtype=np.int64)
        start = 0
        for which in range(3):
            units = rng.permutation(np.flatnonzero(kind == which))
            order = np.argsort(-count[units], kind="stable")  # else in random order
            fold[units[order]] = (start + np.arange(len(units))) % n_folds
            if self.subjects is not None:  # else the few of each kind would fill the first folds
                start += len(units)
        if len(np.unique(fold % 2)) == 1:  # few groups, all in one of the C-VAEs' two halves
            fold = np.arange(len(count)) % n_folds
        self.folds = fold[unit]
        part = len(frequent) + same * n_folds + self.folds
        self.groups = np.where(frequent[same], part, same)
        if self.subjects is not None:
            self.groups = _joined(unit, part, frequent[same])

    def as_fresh(self, left_out, score, normal):
        """Estimate what fresh rows of the same table would score, from the training rows.

        Where rows recur because the columns have few values, a fresh row can be a copy of training
        rows; it then gets the score that the detector gives to them. A row that was duplicated by
        mistake has no fresh copies, and its left-out score is what a fresh row would get, as for
        rows without a copy. How often a code will recur is estimated, see :mod:`cleaning.repeats`;
        codes that occur once stand for those that have not been seen.

        Args:
            left_out: (n,) left-out scores of the training rows.
            score: a function from numbers of training rows to the detector's scores of them.
            normal: (n,) bool, rows without a known anomaly.

        Returns:
            (n,) scores of the training rows as fresh rows, and :class:`FreshScores`.
        """
        if not self._codes.any():
            return left_out, FreshScores.plain(left_out, normal)
        first, size = np.unique(self._same, return_index=True, return_counts=True)[1:]
        weights = [self._stand_for(rows) for rows in (np.ones_like(normal), normal)]
        alone, again = (np.stack(part) for part in zip(*weights, strict=True))  # (2, n) each
        needed = self._met_again.copy()
        needed[self._same[again.any(0)]] = True
        own = np.zeros(len(size))
        own[needed] = score(first[needed])
        fresh = np.where(self._met_again[self._same], own[self._same], left_out)
        rows = [np.flatnonzero(part.any(0)) for part in (alone, again)]
        scores = [left_out[rows[0]], own[self._same[rows[1]]]]
        weight, of_normal = np.concatenate([alone[:, rows[0]], again[:, rows[1]]], axis=1)
        return fresh, FreshScores(np.concatenate(rows), np.concatenate(scores), weight, of_normal)

    def stand_for(self):
        """How many fresh rows each training row stands for, (2, n), or None if no row recurs.

        By its left-out score, and by the detector's own score of it, see :meth:`as_fresh`.
        """
        if not self._codes.any():
            return None
        every = np.ones(len(self._same), dtype=bool)
        return np.stack(self._stand_for(every))

    def _stand_for(self, rows):
        """How many fresh rows a row's left-out score, and the detector's score of it, stand for.

        Args:
            rows: (n,) bool, the rows that are counted.

        Returns:
            Weights of the left-out scores (n,) and of the detector's scores (n,), which add up to
            the number of ``rows``.
        """
        # All other groups of copies are duplicates by mistake.
        comes_again = self._codes | (np.bincount(self._same) <= self._written)
        count = np.bincount(self._same, rows, len(comes_again)) / self._written
        count = np.ceil(count).astype(np.int64)  # up, as labels may differ between the copies
        expected = np.zeros(len(count))
        codes = comes_again & (count > 0)
        if codes.any():
            expected[codes] = expected_counts(count[codes])
        # Where most rows occur once, each of them hardly recurs: scoring them is not worth it.
        expected[expected < RARE] = 0.0
        share = expected / np.maximum(count, 1)  # split evenly over the copies
        again = np.where(rows, share[self._same], 0.0)
        alone = np.where(rows & ((count == 1) | ~comes_again)[self._same], 1.0, 0.0)
        scale = rows.sum() / max(alone.sum() + again.sum(), 1e-12)
        return alone * scale, again * scale


def _sizes(same, normal, subjects):
    """Number of rows in every group of copies, and of normal rows in every group that has any.

    Args:
        same: (n,) numbers from 0, equal for copies.
        normal: (n,) bool.
        subjects: (n,) numbers, or None. A row that recurs within one subject is no code, so each
            subject counts once in a group.
    """

    def size(rows):
        if subjects is None:
            return np.bincount(same[rows])
        return np.bincount(np.unique(np.column_stack([same, subjects])[rows], axis=0)[:, 0])

    of_normals = size(normal)
    return size(np.ones_like(normal)), of_normals[of_normals > 0]


def _common_factor(size):
    """The largest number that divides the sizes (m,); where they are many, a part may differ.

    A table that was written twice may lack a row of the second copy, or have one more. Of sizes
    that arise by chance at most half are even, and the tolerance is one that these meet in one
    table out of 500.
    """
    n_odd = int(max(len(size) - ENOUGH, 0) * ODD)
    most = np.sort(size)[n_odd] if len(size) else 1
    factors = np.arange(1, most + 1)
    n_others = (size % factors[:, None] > 0).sum(1)
    return int(factors[n_others <= n_odd].max())


def _by_chance(Z, same, of_normals, times):
    """Whether the sizes may share the factor ``times`` though nothing was written several times.

    Args:
        Z: (n, d) standardised rows.
        same: (n,) numbers from 0, equal for copies.
        of_normals: number of normal rows in every group that has any.
        times: the sizes' common factor.
    """
    if len(of_normals) < ENOUGH:
        return True
    if times == 1 or (of_normals == times).mean() <= 1 - ODD or Z.shape[1] == 1:
        return False
    rows = _different(Z, same)
    cells = np.log([len(np.unique(column)) for column in rows.T]).sum()
    return cells < np.log(2 * len(rows))  # a factorial design: all cells equally frequent


def _joined(first, second, where):
    """Component numbers (n,): rows are connected if equal in ``first`` or in ``second``, both (n,).

    Args:
        first: (n,) numbers.
        second: (n,) numbers.
        where: (n,) bool, rows whose second number counts.
    """
    second = np.unique(second, return_inverse=True)[1]
    n_first = first.max() + 1
    n = n_first + second.max() + 1
    edges = (first[where], n_first + second[where])
    graph = coo_array((np.ones(len(edges[0])), edges), shape=(n, n))
    return connected_components(graph, directed=False)[1][first]


def _different(Z, same):
    """One row of each group of copies, in units of rounding: (groups, d) of rows Z (n, d)."""
    first = np.unique(same, return_index=True)[1]
    return np.rint(np.asarray(Z, dtype=np.float64)[first] / ROUNDING)


def _made_of_common_values(Z, same):
    """(groups,) bool: groups of copies whose every value also occurs in another group.

    A single column cannot tell: there, all groups are True, as any of its values may recur.
    """
    n_groups = same.max() + 1
    common = np.ones(n_groups, dtype=bool)
    if Z.shape[1] == 1 or n_groups == len(same):
        return common
    rows = _different(Z, same)
    for column in rows.T:
        _, value, count = np.unique(column, return_inverse=True, return_counts=True)
        common &= count[value] > 1
    return common
