"""How far rows lie from rows that are trusted to be normal (M12).

# DIFF(paper): an addition; the paper has labels.

:class:`TrustedDistance` is the more sensitive one of two; where rows may hide anomalies,
``tolerant_distance.py`` is safer.

Shapes: n rows, r reference rows, d features.
"""

import numpy as np
import torch
from scipy.spatial.distance import cdist

from swift_hydra.detection.coordinates import LEAST, NormalScores, Whitening
from swift_hydra.geometry import ROUNDING, VECTOR, filled, some_of, squared_distances
from swift_hydra.seeds import sample_of

REFERENCE = 2000  # most reference rows: bounds the n r d of a scoring
NEAREST = 2  # neighbours by the sum of absolute differences
WIDTHS = np.logspace(-3, 0.3, 10)  # squared bandwidths to try, in median squared distances
BLOCK = 2048  # rows scored at a time: bounds memory


class TrustedDistance:
    """Three distances to trusted rows: a smoother's residual, and two to the two nearest rows.

    The smoother works in whitened coordinates. The distances to the nearest rows are sums of
    absolute differences, in which a few large differences count less than many small ones: one of
    the values, and one of the normal scores of their ranks, where a difference counts by the number
    of rows between.

    Args:
        reference: (r, d) rows.
        width: see :class:`Smoother`; None finds it.
        coded: (r,) bool, codes, see :class:`cleaning.leave_out.LeaveOut`: only one copy of them is
            left out. Needed to score training rows only.
        ranked: whether there is a distance of ranks; False in older files.
        subjects: (r,) numbers of the subjects they were measured on, or None. Needed to score
            training rows only.
    """

    def __init__(self, reference, width=None, coded=None, ranked=False, subjects=None):
        self.reference = np.asarray(reference)
        self.coded = coded
        self.subjects = subjects
        self.whitened = Whitening(self.reference)
        left_out = None
        if width is None:
            own = self._own(cdist(self.reference, self.reference, "cityblock"), subjects)
            left_out = self.whitened.without(self.reference, own)
        self.smoother = Smoother(self.whitened(self.reference), width, left_out)
        self.views = [(None, self.reference)]  # None, since a lambda could not be pickled
        if ranked:
            ranks = NormalScores.fit(self.reference)
            self.views.append((ranks, ranks(self.reference)))

    @classmethod
    def fit(cls, Z, rng, coded=None, subjects=None):
        """Draw the reference rows.

        Args:
            Z: (n, d) rows.
            rng: numpy Generator that draws from a large table.
            coded: (n,) bool, rows that new rows may well be copies of.
            subjects: (n,) numbers of the subjects they were measured on, or None.
        """
        rows = sample_of(len(Z), REFERENCE, rng)
        coded, subjects = some_of(rows, coded, subjects)
        return cls(Z[rows], coded=coded, ranked=True, subjects=subjects)

    def score(self, Z, others=False, subjects=None):
        """Logarithms (n, 3) of the distances of rows (n, d).

        Args:
            Z: the rows.
            others: leave out a row's own copies, as training rows need it.
            subjects: (n,) leave out reference rows of the same subject, too; None: no subjects.
        """
        n = len(Z)
        Z = filled(np.asarray(Z, dtype=np.float64), VECTOR, 1)
        out = np.empty((len(Z), 1 + len(self.views)))
        for start in range(0, len(Z), BLOCK):
            rows = Z[start : start + BLOCK]
            distances = [
                cdist(rows if ranks is None else ranks(rows), reference, "cityblock")  # (B, r)
                for ranks, reference in self.views
            ]
            left_out = None
            if others:
                own = self._own(distances[0], some_of(slice(start, start + BLOCK), subjects)[0])
                left_out = self.whitened.without(rows, own)
                for distance in distances:
                    distance[own] = np.inf
            residuals = self.smoother.residuals(self.whitened(rows), left_out)
            nearest = map(self._nearest, distances)
            out[start : start + BLOCK] = np.column_stack([residuals, *nearest])
        return np.log(out[:n] + 1e-6)

    @staticmethod
    def _nearest(distance):
        """Mean (B,) of the least of the distances (B, r); infinite ones are left out."""
        k = min(NEAREST, distance.shape[1])
        nearest = np.sort(np.partition(distance, k - 1, axis=1)[:, :k], axis=1)
        # If only one reference row is no copy, it stands for both neighbours.
        return np.where(np.isfinite(nearest), nearest, nearest[:, :1]).mean(1)

    def _own(self, distance, subjects):
        """Which reference rows are left out when a row is scored: (n, r) bool.

        A row's own copies up to rounding (as a table that was written and read again differs), but
        only one of them if they are codes, and the rows of its own subject. If these are all
        reference rows, none is left out.

        Args:
            distance: (n, r) sums of absolute differences.
            subjects: (n,) the rows' subjects, or None.
        """
        own = distance <= ROUNDING * self.reference.shape[1]
        if self.coded is not None:
            own &= ~self.coded | (np.cumsum(own, axis=1) == 1)
        if subjects is not None:  # the block may end with padding, which has no subject
            own[: len(subjects)] |= subjects[:, None] == self.subjects
        return own & ~own.all(1, keepdims=True)

    def snapshot(self):
        """Arrays and plain values."""
        ranked = len(self.views) > 1
        return {"reference": self.reference, "width": self.smoother.width, "ranked": ranked}


class Smoother:
    """Residual of a Nadaraya-Watson smoother: a row's distance to the weighted mean around it.

    After Melo et al., kernel contraction matching (CIKM 2026): the bandwidth of the Gaussian kernel
    is the one that reproduces the reference rows best when each is left out.

    Args:
        reference: (r, d) rows.
        width: squared bandwidth of the kernel; None finds it.
        left_out: a :class:`detection.coordinates.WithoutItself` of the reference rows, needed to
            find the bandwidth.
    """

    def __init__(self, reference, width=None, left_out=None):
        self.reference = torch.as_tensor(reference).double()
        self.width = self._best_width(left_out) if width is None else float(width)

    def _best_width(self, left_out):
        square = squared_distances(self.reference, self.reference)
        apart = square[torch.from_numpy(~left_out.own)]
        typical = max(float(apart.median()), LEAST) if len(apart) else 1.0
        widths = typical * WIDTHS
        errors = [
            Smoother(self.reference, width).residuals(self.reference, left_out).mean()
            for width in widths
        ]
        return float(widths[int(np.argmin(errors))])

    def residuals(self, Z, left_out=None):
        """Distances (n,) of rows Z (n, d) to what the smoother makes of them.

        With ``left_out``, a :class:`detection.coordinates.WithoutItself` of the rows, each without
        its own copies.
        """
        rows = torch.as_tensor(Z).double()
        square = squared_distances(rows, self.reference)  # (n, r)
        if left_out is not None:
            along = (rows * left_out.own_direction).sum(1, keepdim=True)  # (n, 1)
            along = along - left_out.own_direction @ self.reference.T  # (n, r)
            square = square + left_out.weight[:, None] * along.square()
            square = square * left_out.factor[:, None]
            square = square.masked_fill(torch.from_numpy(left_out.own), torch.inf)
        weight = torch.softmax(-square / (2 * self.width), dim=1)
        away = rows - weight @ self.reference  # (n, d)
        if left_out is None:
            return away.norm(dim=1).numpy()
        along = (away * left_out.own_direction).sum(1)  # (n,)
        square = away.square().sum(1) + left_out.weight * along.square()
        return (square * left_out.factor).sqrt().numpy()
