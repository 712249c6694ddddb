"""Which training rows are left out together: copies of a row, in folds of equal make-up.

A prediction of a row by a fit that has seen a copy of it, label included, is no prediction. A value
that a large part of the rows has is another matter: left out as a whole it would take much of the
table with it. So is a code that normals come again with: a new row may be one more of them. Their
rows are dealt over the folds whatever their labels, and those of a fold are left out together: what
the other folds' rows say of the value does not depend on these labels.

Rows that were measured of one subject (a patient, a machine) tell of each other as copies do,
however they differ: where it is known which are, those of a subject are in one fold and left out
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

OFTEN = 3  # copies up to which a row may have been written twice by mistake
SHARE_OFTEN = 0.1  # of the rows with copies, that have more than so many: no row's are a mistake
MANY = 16  # copies of normals that no sample with replacement leaves
ENOUGH = 10  # groups of copies whose sizes have no common divisor by chance
ODD = 1 / 3  # of the groups beyond these, which were written more or less often than the table
RARE = 0.05  # rows that are expected of a code: less counts for nothing
LEAST_COMMON = 8  # rows that a value has at least, to be taken for a frequent one


class FreshScores(NamedTuple):
    """Scores that stand for those of as many fresh rows of the table."""

    row: np.ndarray  # (m,) number of the training row whose score it is
    score: np.ndarray  # (m,)
    weight: np.ndarray  # (m,) of how many rows
    normal: np.ndarray  # (m,) of how many rows without a known anomaly

    @classmethod
    def plain(cls, score, normal):
        """Each training row stands for one: scores (n,), which are normal (n,)."""
        return cls(np.arange(len(score)), score, np.ones(len(score)), normal.astype(np.float64))


class LeaveOut:
    """Groups and folds of training rows.

    Args:
        Z: (n, d) standardised rows.
        y: (n,) labels.
        n_folds: F.
        seed: of the run.
        subjects: (n,) numbers from 0 of what the rows were measured of; None: each of its own.

    Attributes:
        subjects: the same.
        folds: (n,) from 0; both classes are spread evenly over them.
        groups: (n,) rows of one number are left out together.
        coded: (n,) bool, rows that a new row may well be a copy of: of a frequent value, or of
            common ones where rows come again.
    """

    def __init__(self, Z, y, n_folds, seed, subjects=None):
        same = copies(Z, ROUNDING)
        size, size_of_normals = _sizes(same, y == 0, subjects)
        self._same = same
        self.subjects = subjects
        frequent = size > min(max(len(y) / (2 * n_folds), LEAST_COMMON), len(y) / 2)
        times = _common_factor(size_of_normals)  # of a table written k times all are multiples
        common = _made_of_common_values(Z, same)
        coded = common & (Z.shape[1] > 1)
        # A code, not a slip: many rows of it, or several of values that other rows have too.
        large = frequent | (size > MANY * times)
        several = coded & (size > times)
        frequent |= (several | large) & (np.bincount(same, y == 0) > 0)
        self._deal(y, n_folds, frequent, stage_rng(seed, "folds"))
        of_normals = self.folds[y == 0]
        if (of_normals == of_normals[0]).all():  # nothing would be left to compare with
            frequent |= np.bincount(same, y == 0) > 0
            self._deal(y, n_folds, frequent, stage_rng(seed, "folds"))
        # What was only written k times with all of the table does not come again.
        self._written = _times_written(Z, same, size_of_normals) if subjects is None else 1
        again = size > self._written
        coded &= again | (self._written == 1)
        self.coded = (frequent | (coded & several.any()))[same]
        # Many copies are no slip: a code, a template.
        often = size > OFTEN * times
        # Nor are its fewer copies of other rows then.
        often |= size[often].sum() > SHARE_OFTEN * size[size > 1].sum()
        # Few copies over the folds: what is left of them for a row is what a new row will find.
        few = frequent & ~large
        again |= frequent
        self._met_again = (size > 1) & again & (often | frequent | common) & ~few
        self._codes = self._met_again | (few & (size > 1))

    def _deal(self, y, n_folds, frequent, rng):
        """Groups and folds; a ``frequent`` group of copies becomes one for every fold."""
        same = self._same
        alone = len(frequent) + np.arange(len(y))
        unit = np.where(frequent[same], alone, same)
        if self.subjects is not None:
            unit = _joined(self.subjects, same, ~frequent[same])
            most = max(len(y) / n_folds, np.bincount(self.subjects).max())
            held = np.bincount(unit).max() > most  # together, by copies here and there
            if held or len(np.unique(unit[y == 0])) == 1:
                unit = self.subjects
        unit = np.unique(unit, return_inverse=True)[1]
        count = np.bincount(unit)
        kind = (np.bincount(unit, y) > 0).astype(np.int64)
        if self.subjects is not None:  # of an anomalous one there may be no normal row
            kind += np.bincount(unit, y == 0) == 0
        fold = np.zeros(len(count), dtype=np.int64)
        start = 0
        for which in range(3):
            units = rng.permutation(np.flatnonzero(kind == which))
            order = np.argsort(-count[units], kind="stable")  # else in random order
            fold[units[order]] = (start + np.arange(len(units))) % n_folds
            if self.subjects is not None:  # else few of each kind would meet in the first folds
                start += len(units)
        if len(np.unique(fold % 2)) == 1:  # few groups: all in folds that are left out together
            fold = np.arange(len(count)) % n_folds
        self.folds = fold[unit]
        part = len(frequent) + same * n_folds + self.folds
        self.groups = np.where(frequent[same], part, same)
        if self.subjects is not None:
            self.groups = _joined(unit, part, frequent[same])

    def as_fresh(self, left_out, score, normal):
        """What fresh rows of the same table would score, by the training rows.

        A fresh row can be a copy of training rows where rows are copies of each other as columns
        have few values, and then has the score that the detector gives them. Where a row was
        written twice no fresh one is its copy: the left-out scores are as good as fresh there, as
        they are of rows without a copy. How often a code is met is estimated, see
        :mod:`cleaning.repeats`; for a new one stand those that are there once.

        Args:
            left_out: (n,) scores of the training rows.
            score: a function from numbers of training rows to the detector's scores of them.
            normal: (n,) bool, rows without a known anomaly.

        Returns:
            (n,) scores of the training rows, and :class:`FreshScores`.
        """
        if not self._codes.any():
            return left_out, FreshScores.plain(left_out, normal)
        first, size = np.unique(self._same, return_index=True, return_counts=True)[1:]
        # The others were written twice by mistake.
        comes_again = self._codes | (size <= self._written)
        weights = [self._stand_for(rows, comes_again) for rows in (np.ones_like(normal), normal)]
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

    def _stand_for(self, rows, comes_again):
        """For how many fresh rows each row's left-out score stands, and the score of its copies.

        Args:
            rows: (n,) bool, those that are the table.
            comes_again: (groups,) bool, codes.

        Returns:
            Two arrays (n,), which are as many rows in all.
        """
        count = np.bincount(self._same, rows, len(comes_again)) / self._written
        count = np.ceil(count).astype(np.int64)  # up: of labels that differ between the copies
        expected = np.zeros(len(count))
        codes = comes_again & (count > 0)
        if codes.any():
            expected[codes] = expected_counts(count[codes])
        # Rows that are there once among many such hardly come again: not worth their scoring.
        expected[expected < RARE] = 0.0
        share = expected / np.maximum(count, 1)  # the same of each time that it was written
        again = np.where(rows, share[self._same], 0.0)
        alone = np.where(rows & ((count == 1) | ~comes_again)[self._same], 1.0, 0.0)
        scale = rows.sum() / max(alone.sum() + again.sum(), 1e-12)
        return alone * scale, again * scale


def _sizes(same, normal, subjects):
    """How many rows all groups of copies have, and how many normals, of groups that have any.

    Args:
        same: (n,) numbers from 0, equal for copies.
        normal: (n,) bool.
        subjects: (n,) numbers, or None: a value that one subject has again and again is no code,
            and of each subject a row counts.
    """

    def size(rows):
        if subjects is None:
            return np.bincount(same[rows])
        return np.bincount(np.unique(np.column_stack([same, subjects])[rows], axis=0)[:, 0])

    of_normals = size(normal)
    return size(np.ones_like(normal)), of_normals[of_normals > 0]


def _common_factor(size):
    """The largest number of which the sizes (m,) are multiples, but for a part of many.

    Somebody leaves a row out of a table that was written twice, or adds one. Of sizes that are what
    they are by chance half are even at most, and this allows what happens once in 500 tables.
    """
    n_odd = int(max(len(size) - ENOUGH, 0) * ODD)
    most = np.sort(size)[n_odd] if len(size) else 1
    factors = np.arange(1, most + 1)
    n_others = (size % factors[:, None] > 0).sum(1)
    return int(factors[n_others <= n_odd].max())


def _times_written(Z, same, of_normals):
    """How many times the whole table, or its normal rows, seem to have been written.

    Args:
        Z: (n, d) standardised rows.
        same: (n,) numbers from 0, equal for copies.
        of_normals: sizes of the groups with normal rows.
    """
    if len(of_normals) < ENOUGH:
        return 1
    times = _common_factor(of_normals)
    if times > 1 and (of_normals == times).mean() > 1 - ODD and Z.shape[1] > 1:
        first = np.unique(same, return_index=True)[1]
        rows = np.rint(np.asarray(Z, dtype=np.float64)[first] / ROUNDING)
        cells = np.log([len(np.unique(column)) for column in rows.T]).sum()
        if cells < np.log(2 * len(first)):  # a design, whose cells are met equally often
            return 1
    return times


def _joined(first, second, where):
    """(n,) numbers of rows that hang together: equal in ``first``, or in ``second``, both (n,).

    Args:
        where: (n,) bool, rows of which the second number says something.
    """
    second = np.unique(second, return_inverse=True)[1]
    n_first = first.max() + 1
    n = n_first + second.max() + 1
    edges = (first[where], n_first + second[where])
    graph = coo_array((np.ones(len(edges[0])), edges), shape=(n, n))
    return connected_components(graph, directed=False)[1][first]


def _made_of_common_values(Z, same):
    """(groups,) bool: groups of copies of whose values each is in rows of another group as well.

    Of a single column that cannot be asked: any of its values may come again.
    """
    first = np.unique(same, return_index=True)[1]
    common = np.ones(len(first), dtype=bool)
    if Z.shape[1] == 1 or len(first) == len(same):
        return common
    rows = np.rint(np.asarray(Z, dtype=np.float64)[first] / ROUNDING)
    for column in rows.T:
        _, value, count = np.unique(column, return_inverse=True, return_counts=True)
        common &= count[value] > 1
    return common
