"""Which training rows are left out together: copies of a row, in folds of equal make-up.

A prediction of a row by a fit that has seen a copy of it, label included, is no prediction. A value
that a large part of the rows has is another matter: left out as a whole it would take much of the
table with it, and one row of many tells little about the others. Its rows are dealt over the folds,
and have their mean prediction in common.

Shapes: n rows, F folds.
"""

import numpy as np

from swift_hydra.geometry import copies
from swift_hydra.seeds import stage_rng

ROUNDING = (
    2.0**-13
)  # standard deviations: rows that differ by less are copies, written out and back
LEAST_COMMON = 8  # rows that a value has at least, to be taken for a frequent one


class LeaveOut:
    """Groups and folds of training rows.

    Args:
        Z: (n, d) standardised rows.
        y: (n,) labels.
        n_folds: F.
        seed: of the run.

    Attributes:
        folds: (n,) from 0; both classes are spread evenly over them.
        groups: (n,) rows of one number are left out together.
    """

    def __init__(self, Z, y, n_folds, seed):
        same = copies(Z, ROUNDING)
        size = np.bincount(same)
        self._same = same
        self._repeated = size > 1
        frequent = size > min(max(len(y) / (2 * n_folds), LEAST_COMMON), len(y) / 2)
        self._deal(y, n_folds, frequent, stage_rng(seed, "folds"))
        of_normals = self.folds[y == 0]
        if (of_normals == of_normals[0]).all():  # nothing would be left to compare with
            frequent |= np.bincount(same, y == 0) > 0
            self._deal(y, n_folds, frequent, stage_rng(seed, "folds"))
        self._frequent = [np.flatnonzero(same == group) for group in np.flatnonzero(frequent)]

    def _deal(self, y, n_folds, frequent, rng):
        """Groups and folds; rows of the ``frequent`` groups of copies are left out one by one."""
        same = self._same
        self.groups = np.where(frequent[same], len(frequent) + np.arange(len(y)), same)
        _, first, unit = np.unique(self.groups, return_index=True, return_inverse=True)
        count = np.bincount(unit)
        anomalous = np.bincount(unit, y) > 0
        # Rows of a frequent value stay beside each other, so that all folds get as many.
        kind = np.where(frequent[same[first]], same[first] + 1, 0)
        fold = np.zeros(len(count), dtype=np.int64)
        for label in (False, True):
            units = rng.permutation(np.flatnonzero(anomalous == label))
            order = np.lexsort([-count[units], kind[units]])  # stable: else in random order
            fold[units[order]] = np.arange(len(units)) % n_folds
        if len(np.unique(fold % 2)) == 1:  # few groups: all in folds that are left out together
            fold = np.arange(len(count)) % n_folds
        self.folds = fold[unit]

    def as_fresh(self, left_out, score):
        """The training rows' scores as fresh rows of the same table would have them, (n,).

        A fresh row can be a copy of training rows where rows are copies of each other, and then has
        the score that the detector gives them; the other rows' left-out scores are as good as
        fresh.

        Args:
            left_out: (n,) scores of the training rows.
            score: a function from numbers of training rows to the detector's scores of them.
        """
        fresh = left_out.copy()
        if self._repeated.any():
            first = np.unique(self._same, return_index=True)[1]
            of_group = np.empty(len(first))
            of_group[self._repeated] = score(first[self._repeated])
            rows = self._repeated[self._same]
            fresh[rows] = of_group[self._same[rows]]
        return fresh

    def shared(self, scores):
        """Left-out scores (n, m), of rows of a frequent value their mean; in place."""
        for rows in self._frequent:
            scores[rows] = scores[rows].mean(0)
        return scores
