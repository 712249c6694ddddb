"""The neighbours' columns of the evidence (M10): distances, local densities and ratios.

# DIFF(paper): an addition; ``preset="paper"`` runs without it.

:class:`Surroundings` finds them in several views, each without the rows of one fold; what is left
out of them, and why, is told in ``evidence.py``.

Shapes: n rows, d features, m distinct reference rows, F folds.
"""

import numpy as np

from swift_hydra.geometry import ROUNDING, largest, mean_of_first, shares, without_own

DENSITY = ("knn5", "knn20", "lof5", "lof20")
RATIOS = {"ratio1": 1, "ratio3": 3, "ratio5": 5}  # neighbours on either side
LOCAL = (*DENSITY, *RATIOS)
NEAREST = (5, 20)  # neighbours of the densities
NEIGHBOUR_ROWS = 16384  # rows of one neighbour query: bounds memory, does not change any value
NUMBERS = 2**22  # of the neighbours of neighbours that are held at once
SEARCHED = (48, 32)  # normals and anomalies looked at: enough are left without any one fold,
SEARCHED_OF_TWO = (96, 32)  # where it is one of two, too
SEARCHED_ALL = (21, 6)  # what is needed where no fold is left out


class Others:
    """The other reference rows around each of m reference rows, and how dense they are there.

    Args:
        distance: (m, K) ascending.
        counts: (m, K) rows that each of them stands for.
        subjects: (m, K) what they were measured of, None where nothing is known of that.

    Attributes:
        means: {k: (m,) mean distance to the k nearest; 0 where there are none}.
        farthest: {k: (m,) how far the last of them is}.
    """

    def __init__(self, distance, counts, subjects=None):
        self.distance = distance
        self.counts = counts
        self.subjects = subjects
        self.means, self.farthest = {}, {}
        up_to = np.cumsum(counts, axis=1)
        for k in NEAREST:
            share = shares(distance, counts, k)
            self.means[k] = mean_of_first(distance, share, nothing=0.0)
            last = np.argmax(up_to >= np.minimum(k, up_to[:, -1:]), axis=1)
            self.farthest[k] = distance[np.arange(len(last)), last]

    def means_without(self, k, index, distance, gone):
        """The same around the neighbours of rows that are reference rows themselves, without these.

        Args:
            k: how many.
            index: (n, L) neighbours, as numbers of reference rows.
            distance: (n, L) how far they are from the row.
            gone: (n,) how many reference rows the row itself is, with its copies.

        Returns:
            (n, L) mean distances.
        """
        means = self.means[k][index]
        for n_gone in np.unique(gone[gone > 0]):
            share = shares(self.distance, self.counts, k + n_gone)
            rows = gone == n_gone
            of_row = distance[rows]
            # The row is among the first k, and all its copies then among the first k and n_gone.
            total = (self.distance * share).sum(1)[index[rows]] - n_gone * of_row
            n_left = share.sum(1)[index[rows]] - n_gone
            mean = np.where(n_left > 0, np.maximum(total, 0.0) / np.maximum(n_left, 1), 0.0)
            means[rows] = np.where(of_row <= self.farthest[k][index[rows]], mean, means[rows])
        return means

    def means_without_subjects(self, k, index, of_rows):
        """The same without all that is of a row's own subject.

        Args:
            k: how many.
            index: (n, L) neighbours, as numbers of reference rows.
            of_rows: (n,) the rows' subjects.

        Returns:
            (n, L) mean distances.
        """
        counts = without_own(self.counts[index], self.subjects[index], of_rows)  # (n, L, K)
        flat = self.distance[index].reshape(-1, counts.shape[2])
        share = shares(flat, counts.reshape(flat.shape), k)
        return mean_of_first(flat, share, nothing=0.0).reshape(index.shape)


class Surroundings:
    """The neighbours' columns: densities among the normals, and whether anomalies are nearer.

    Args:
        normals: :class:`geometry.Neighbours` of reference normals.
        anomalies: the same of known anomalies.
        folds: the folds of both, two arrays; empty ones after :meth:`from_snapshot`.
        n_folds: F.
        coded: of both, which reference rows new rows may be copies of; None: none.
        subjects: of both, numbers of what the reference rows were measured of: those of a row's own
            subject are none of its neighbours, but for copies that several subjects share; None:
            each row is of its own.
    """

    def __init__(self, normals, anomalies, folds=((), ()), n_folds=0, coded=None, subjects=None):
        self.sides = (normals, anomalies)
        self.searched = SEARCHED_OF_TWO if n_folds == 2 else SEARCHED
        self.subjects = subjects
        sides = zip(self.sides, subjects or (None, None), strict=True)
        self._subjects = [side.groups_of(of_side) for side, of_side in sides]
        if subjects is not None:  # a row's own subject may be all that is nearest to it
            more = map(largest, self._subjects)
            self.searched = tuple(map(sum, zip(self.searched, more, strict=True)))
        self.coded = coded or [np.zeros(len(side.reference), dtype=bool) for side in self.sides]
        # How many copies of each distinct row there are without fold f, and in all: (F + 1, m).
        self.counts = [
            np.stack([*(side.counts(fold != f) for f in range(n_folds)), side.counts()])
            for side, fold in zip(self.sides, folds, strict=True)
        ]
        near = normals.nearest(normals.reference[normals.distinct], self.searched[0])
        # What is nearer than this is a copy: rows that were written out and read again differ in
        # their last digits.
        self.beyond = ROUNDING * np.sqrt(normals.reference.shape[1])
        self._coded = [np.zeros(len(side.distinct), dtype=bool) for side in self.sides]
        # Added to a distance before its logarithm.
        self.floors = np.array([self._floor(near, view) for view in range(n_folds + 1)])
        sides = zip(self.sides, self.coded, strict=True)
        self._coded = [coded[side.distinct] for side, coded in sides]
        self.others = self._others(near)  # of the reference rows, in every view

    def forget_folds(self):
        """Keep the view of all rows alone, which scoring needs."""
        self.counts = [counts[-1:] for counts in self.counts]
        self.floors = self.floors[-1:]
        self.others = self.others[-1:]

    def _floor(self, near, view):
        """A thousandth of the typical distance to five others, copies of codes left out."""
        distance, counts, _ = self._counted(0, view, near, 1, self._subjects[0])
        mean = mean_of_first(distance, shares(distance, counts, NEAREST[0]), nothing=0.0)
        return 1e-3 * np.median(mean[self.counts[0][view] > 0]) + 1e-6

    def _others(self, near):
        views = range(len(self.counts[0]))
        subjects = None if self.subjects is None else self._subjects[0][near[1]]
        given = (near, 1, self._subjects[0])
        return [Others(*self._counted(0, view, *given)[:2], subjects) for view in views]

    def _counted(self, side, view, near, own, subjects=None):
        """How many rows of a side each neighbour stands for, the row's own copies left out.

        Args:
            side: 0 for normals, 1 for anomalies.
            view: its number.
            near: what :meth:`geometry.Neighbours.nearest` gave.
            own: how many of its copies a row is itself, a number or (n,): of codes that many are
                left out.
            subjects: (n,) what the rows were measured of, which is left out too; None: nothing is.

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
        """Logarithm of a distance."""
        return np.log(value + self.floors[view])

    def columns(self, X, views, folds=None, own=None, subjects=None):
        """The columns LOCAL of rows X (n, d) in some of the F + 1 views: (views, n, 7).

        The ratios are NaN where no anomaly is left to compare with.

        Args:
            X: rows.
            views: their numbers.
            folds: (n,) of training rows.
            own: (2, n) bool of training rows: each is one of its copies on a side, in the views
                without another fold.
            subjects: (n,) of training rows, what they were measured of, or None.
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
            if searched == SEARCHED_ALL:  # copies may fill what is enough without them
                short = start + np.flatnonzero(self._short(near))
                if len(short):
                    found = self._near(X[short], self.searched)
                    out[0, short] = self._in_view(found, -1, (0, 0))
        return out

    def _near(self, X, searched):
        return [side.nearest(X, k) for side, k in zip(self.sides, searched, strict=True)]

    def _short(self, near):
        """(n,) bool: rows whose neighbours that are no copies are fewer than are needed."""
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
            else:  # a row's own subject, which does not count, stands before what does
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
