"""The neighbours' columns of the evidence (M10): distances, local densities and ratios.

# DIFF(paper): an addition; ``preset="paper"`` runs without it.

:class:`Surroundings` computes them in F + 1 views: view f leaves out the reference rows of fold f,
and the last one, -1, has all of them. ``evidence.py`` explains which rows are left out, and why.

Shapes: n rows, d features, m distinct reference rows, F folds, K or L neighbours.
"""

import numpy as np

from swift_hydra.geometry import ROUNDING, largest, mean_of_first, shares, without_own

DENSITY = ("knn5", "knn20", "lof5", "lof20")
RATIOS = {"ratio1": 1, "ratio3": 3, "ratio5": 5}  # neighbours among normals, and among anomalies
LOCAL = (*DENSITY, *RATIOS)
NEAREST = (5, 20)  # numbers of neighbours of the densities
NEIGHBOUR_ROWS = 16384  # rows of one neighbour query: bounds memory, does not change any value
NUMBERS = 2**22  # numbers of neighbours' neighbours that are held at once
KEPT = 2**20  # most means without a subject that are kept during a fit
# How many nearest normals, and anomalies, are searched, so that enough remain without a fold.
SEARCHED = (48, 32)  # of three folds or more
SEARCHED_OF_TWO = (96, 32)
SEARCHED_ALL = (21, 6)  # where no fold is left out


class Others:
    """The neighbours of each of m reference rows among the other ones, and their distances.

    Args:
        distance: (m, K) distances to the neighbours, ascending.
        counts: (m, K) number of reference rows that each neighbour stands for (its copies).
        subjects: (m, K) subjects of the neighbours, or None.

    Attributes:
        means: {k: (m,) mean distance to the k nearest; 0 if there are none}.
        farthest: {k: (m,) distance to the last of these}.
    """

    def __init__(self, distance, counts, subjects=None):
        self.distance = distance
        self.counts = counts
        self.subjects = subjects
        self.means, self.farthest = {}, {}
        self.without = {}  # for each k: (m, subjects + 1) results of means_without_subjects
        up_to = np.cumsum(counts, axis=1)
        for k in NEAREST:
            share = shares(distance, counts, k)
            self.means[k] = mean_of_first(distance, share, nothing=0.0)
            last = np.argmax(up_to >= np.minimum(k, up_to[:, -1:]), axis=1)
            self.farthest[k] = distance[np.arange(len(last)), last]

    def means_without(self, k, index, distance, gone):
        """Mean distances of rows' neighbours to their own k nearest, without the rows themselves.

        Args:
            k: number of nearest reference rows.
            index: (n, L) the rows' neighbours, as numbers of distinct reference rows.
            distance: (n, L) their distances to the row.
            gone: (n,) number of reference rows that are left out as the row itself or its copies.

        Returns:
            (n, L) mean distances.
        """
        means = self.means[k][index]
        for n_gone in np.unique(gone[gone > 0]):
            share = shares(self.distance, self.counts, k + n_gone)
            rows = gone == n_gone
            of_row = distance[rows]
            # If the row is among the first k, all n_gone copies are among the first k + n_gone.
            total = (self.distance * share).sum(1)[index[rows]] - n_gone * of_row
            n_left = share.sum(1)[index[rows]] - n_gone
            mean = np.where(n_left > 0, np.maximum(total, 0.0) / np.maximum(n_left, 1), 0.0)
            means[rows] = np.where(of_row <= self.farthest[k][index[rows]], mean, means[rows])
        return means

    def means_without_subjects(self, k, index, of_rows):
        """The same as :meth:`means_without`, without all rows of the row's own subject.

        Args:
            k: number of nearest reference rows.
            index: (n, L) the rows' neighbours, as numbers of distinct reference rows.
            of_rows: (n,) the rows' subjects.

        Returns:
            (n, L) mean distances.
        """
        m, n_subjects = len(self.distance), int(self.subjects.max(initial=-1)) + 1
        if m * (n_subjects + 1) > KEPT:
            return self._means_without(k, index, of_rows)
        # With few subjects the same means are needed again and again.
        if k not in self.without:
            self.without[k] = np.full((m, n_subjects + 1), np.nan)
        found = self.without[k]
        of_rows = np.minimum(of_rows, n_subjects)[:, None]  # the last column: any other subject
        new = np.isnan(found[index, of_rows])
        if new.any():
            pairs = (index * (n_subjects + 1) + of_rows)[new]
            row, subject = np.divmod(np.unique(pairs), n_subjects + 1)
            found[row, subject] = self._means_without(k, row[:, None], subject)[:, 0]
        return found[index, of_rows]

    def _means_without(self, k, index, of_rows):
        """:meth:`means_without_subjects`, computed."""
        counts = without_own(self.counts[index], self.subjects[index], of_rows)  # (n, L, K)
        flat = self.distance[index].reshape(-1, counts.shape[2])
        share = shares(flat, counts.reshape(flat.shape), k)
        return mean_of_first(flat, share, nothing=0.0).reshape(index.shape)


class Surroundings:
    """The neighbours' columns: densities among the normals, and how much nearer anomalies are.

    Args:
        normals: :class:`geometry.Neighbours` of reference normals.
        anomalies: the same of known anomalies.
        folds: fold numbers of both sides' reference rows, two arrays; empty in a loaded detector.
        n_folds: F.
        coded: for both sides, (r,) bool: reference rows that are codes; None: none is.
        subjects: for both sides, (r,) subjects of the reference rows: rows of its own subject are
            no neighbours of a row, except copies that several subjects share. None: no subjects.
    """

    def __init__(self, normals, anomalies, folds=((), ()), n_folds=0, coded=None, subjects=None):
        self.sides = (normals, anomalies)
        self.searched = SEARCHED_OF_TWO if n_folds == 2 else SEARCHED
        self.subjects = subjects
        sides = zip(self.sides, subjects or (None, None), strict=True)
        self._subjects = [side.groups_of(of_side) for side, of_side in sides]
        if subjects is not None:  # all nearest rows may be of the row's own subject
            more = map(largest, self._subjects)
            self.searched = tuple(map(sum, zip(self.searched, more, strict=True)))
        self.coded = coded or [np.zeros(len(side.reference), dtype=bool) for side in self.sides]
        # Number of copies of each distinct row in every view: (F + 1, m).
        self.counts = [
            np.stack([*(side.counts(fold != f) for f in range(n_folds)), side.counts()])
            for side, fold in zip(self.sides, folds, strict=True)
        ]
        near = normals.nearest(normals.reference[normals.distinct], self.searched[0])
        # Rows at no larger distance are copies: after writing and reading a table, its rows differ
        # in their last digits.
        self.beyond = ROUNDING * np.sqrt(normals.reference.shape[1])
        # For the floors, all copies of codes are left out too.
        self._coded = [np.zeros(len(side.distinct), dtype=bool) for side in self.sides]
        # Added to a distance before its logarithm.
        self.floors = np.array([self._floor(near, view) for view in range(n_folds + 1)])
        sides = zip(self.sides, self.coded, strict=True)
        self._coded = [coded[side.distinct] for side, coded in sides]
        self.others = self._others(near)  # of the reference rows, in every view

    def forget_folds(self):
        """Keep only the view of all rows, which is what scoring needs."""
        self.counts = [counts[-1:] for counts in self.counts]
        self.floors = self.floors[-1:]
        self.others = self.others[-1:]
        self.others[0].without.clear()

    def _floor(self, near, view):
        """A thousandth of the typical distance to five others, copies of codes left out."""
        distance, counts, _ = self._counted(0, view, near, 1, self._subjects[0])
        mean = mean_of_first(distance, shares(distance, counts, NEAREST[0]), nothing=0.0)
        return 1e-3 * np.median(mean[self.counts[0][view] > 0]) + 1e-6

    def _others(self, near):
        views = range(len(self.counts[0]))
        subjects = None if self.subjects is None else self._subjects[0][near[1]]
        counted = (self._counted(0, view, near, 1, self._subjects[0]) for view in views)
        return [Others(distance, counts, subjects) for distance, counts, _ in counted]

    def _counted(self, side, view, near, own, subjects=None):
        """How many rows of a side each neighbour stands for, the row's own copies left out.

        Args:
            side: 0 for normals, 1 for anomalies.
            view: number of the view.
            near: what :meth:`geometry.Neighbours.nearest` returned.
            own: how many copies are left out if the row is a code, a number or (n,); of other rows
                all copies are left out.
            subjects: (n,) the rows' subjects, whose rows are left out too; None: no subjects.

        Returns:
            Distances (n, K), counts (n, K), and how many copies were left out, (n,).
        """
        distance, index = near
        counts = self.counts[side][view][index]
        if subjects is not None:
            counts = without_own(counts, self._subjects[side][index], subjects)
        copies = np.where(distance > self.beyond, 0, counts)
        coded = np.where(self._coded[side][index], copies, 0)
        before = np.cumsum(coded, axis=1) - coded
        left = coded - np.clip(np.reshape(own, (-1, 1)) - before, 0, coded)
        return distance, counts - copies + left, (copies - left).sum(1)

    def log(self, value, view=-1):
        """Logarithm of a distance plus the view's floor."""
        return np.log(value + self.floors[view])

    def columns(self, X, views, folds=None, own=None, subjects=None):
        """The columns LOCAL of rows X (n, d) in some of the F + 1 views: (views, n, 7).

        The ratios are NaN if no anomaly is left to compare with.

        Args:
            X: (n, d) rows.
            views: numbers of the views.
            folds: (n,) fold numbers, for training rows only.
            own: (2, n) bool, for training rows only: whether one copy on each side counts as the
                row itself. Without the row's own fold, none does.
            subjects: (n,) subjects, for training rows only, or None.
        """
        out = np.empty((len(views), len(X), len(LOCAL)))
        searched = SEARCHED_ALL if list(views) == [-1] else self.searched
        size = NEIGHBOUR_ROWS if subjects is None else NUMBERS // (max(NEAREST) * self.searched[0])
        for start in range(0, len(X), size):
            part = slice(start, start + size)
            rows = X[part]
            of_rows = None if subjects is None else subjects[part]
            near = self._near(rows, searched)
            for number, view in enumerate(views):
                here = (0, 0) if folds is None else own[:, part] * (folds[part] != view)
                out[number, part] = self._in_view(near, view, here, of_rows)
            if searched == SEARCHED_ALL:  # search more if copies take too many of the places
                short = start + np.flatnonzero(self._short(near))
                if len(short):
                    found = self._near(X[short], self.searched)
                    out[0, short] = self._in_view(found, -1, (0, 0))
        return out

    def _near(self, X, searched):
        return [side.nearest(X, k) for side, k in zip(self.sides, searched, strict=True)]

    def _short(self, near):
        """(n,) bool: rows with fewer neighbours than needed once copies are left out."""
        out = np.zeros(len(near[0][0]), dtype=bool)
        needed = (max(NEAREST), max(RATIOS.values()))
        for side, k in enumerate(needed):
            if near[side][0].shape[1] < self.counts[side].shape[1]:
                _, counts, _ = self._counted(side, -1, near[side], own=0)
                out |= counts.sum(1) < k
        return out

    def _in_view(self, found, view, own, subjects=None):
        (distance, counts, gone), (far, known, _) = (
            self._counted(side, view, found[side], own[side], subjects) for side in (0, 1)
        )
        index = found[0][1]
        logs = []
        local = []
        for k in NEAREST:
            share = shares(distance, counts, k)
            logs.append(self.log(mean_of_first(distance, share, nothing=0.0), view))
            others = self.others[view]
            if subjects is None:
                used = slice(0, np.flatnonzero(share.any(0)).max(initial=0) + 1)
                share = share[:, used]
                density = others.means_without(k, index[:, used], distance[:, used], gone)
            else:  # rows of the own subject, which do not count, may come first
                used = np.argsort(share == 0, axis=1, kind="stable")
                used = used[:, : max((share > 0).sum(1).max(initial=0), 1)]
                share, near = (np.take_along_axis(part, used, axis=1) for part in (share, index))
                density = others.means_without_subjects(k, near, subjects)
            around = mean_of_first(density, share, nothing=0.0)
            local.append(logs[-1] - self.log(around, view))
        columns = [*logs, *local]
        for k in RATIOS.values():
            mean = mean_of_first(far, shares(far, known, k))
            near = mean_of_first(distance, shares(distance, counts, k), nothing=0.0)
            columns.append(self.log(near, view) - self.log(mean, view))
        return np.stack(columns, axis=1)
