"""One-class scores for tables of which no anomaly is known (M12).

# DIFF(paper): additions; the paper has labels.

:class:`TrustedDistance` serves rows that are trusted to be normal; it is the sharper one. Other
rows get :class:`TolerantDistance`, which bears hidden anomalies: once the farthest rows are set
aside, few of a group of anomalies remain, too few to be the twenty nearest neighbours of any row.

Shapes: n rows, r reference rows, d features.
"""

from typing import NamedTuple

import numpy as np
import torch
from scipy.spatial.distance import cdist

from swift_hydra.cleaning.suspects import REFERENCE
from swift_hydra.detection.normal_scores import NormalScores
from swift_hydra.geometry import (
    ROUNDING,
    WIDE,
    Neighbours,
    filled,
    principal_axes,
    spread_over,
    squared_distances,
)

FAR = 20  # neighbours
TRUSTED = 2000  # reference rows of :class:`TrustedDistance`: bounds its n r d
NEAREST = 2  # neighbours by the sum of absolute differences
RIDGE = 0.05  # of the mean variance, added to that along every direction
WIDTHS = np.logspace(-3, 0.3, 10)  # of the kernel, in the median squared distance
LEAST = 1e-9  # squared distances and variances: less is what cancels
ROW_STEP, COLUMN_STEP = 16, 8  # products are of multiples of these
BLOCK = 2048  # rows smoothed at a time: bounds memory


def _some_of(rows, *arrays):
    """Numbered rows of each array; of None, None."""
    return [None if array is None else array[rows] for array in arrays]


class TolerantDistance:
    """Logarithm of the mean distance to the twenty nearest reference rows.

    Args:
        reference: (r, d) rows.
        coded: (r,) bool, those that rows may well be copies of, see
            :class:`cleaning.leave_out.LeaveOut`: of them one is left out. Only for training rows.
        subjects: (r,) numbers of what they were measured of, or None. Only for training rows.
    """

    def __init__(self, reference, coded=None, subjects=None):
        self.reference = np.asarray(reference)
        self.coded = coded
        self.subjects = subjects
        self.neighbours = Neighbours(self.reference)

    @classmethod
    def fit(cls, Z, rng, coded=None, subjects=None):
        """From rows (n, d), a numpy Generator that draws those that stand for a larger table, which
        of them (n,) new rows may be copies of, and what they were measured of.
        """
        rows = np.sort(rng.permutation(len(Z))[:REFERENCE])
        return cls(Z[rows], *_some_of(rows, coded, subjects))

    def score(self, Z, others=False, subjects=None):
        """(n, 1) of rows (n, d).

        ``others`` leaves a row's own copies out, and with ``subjects`` (n,) what is of its own one.
        """
        groups = None if subjects is None else (subjects, self.subjects)
        distance = self.neighbours.mean_distance(Z, FAR, others, 0.0, self.coded, groups)
        return np.log(distance + 1e-6)[:, None]

    def snapshot(self):
        """Arrays and plain values."""
        return {"reference": self.reference}


class Smoother:
    """Residual of a Nadaraya-Watson smoother: how far a row is from the mean of rows around it.

    After Melo et al., kernel contraction matching (CIKM 2026): the width of the Gaussian kernel is
    the one that reproduces the reference rows best when each is left out.

    Args:
        reference: (r, d) rows.
        width: squared, of the kernel; None finds it.
        left_out: a :class:`WithoutItself` of the reference rows; only for that.
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
        """(n,) distances of rows (n, d) to their smoothed selves, each without its own copies."""
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


class WithoutItself(NamedTuple):
    """What whitened rows (n, d) would be compared with if they had not been there themselves.

    A row widens the variance along its own direction, and so makes itself look near; on a wide
    table all rows do. Without it squared lengths in whitened coordinates are those with it, times
    ``factor``, and ``weight`` times the square along ``own_direction`` (Sherman and Morrison).
    """

    own: np.ndarray  # (n, r) bool, its copies among the reference rows
    own_direction: torch.Tensor  # (n, d) the row itself, whitened, from the mean
    weight: torch.Tensor  # (n,)
    factor: torch.Tensor  # (n,)


class Whitening:
    """Rows in coordinates of equal variance along every direction of the reference rows.

    What is small beside the other directions and yet unlike the normals shows there.
    """

    def __init__(self, reference):
        rows = np.asarray(reference, dtype=np.float64)
        self.some = spread_over(len(rows), WIDE if rows.shape[1] > WIDE else len(rows))
        rows = rows[self.some]
        self.n_rows, self.mean = len(rows), rows.mean(0)
        rows = rows - self.mean
        root, directions = principal_axes(rows)
        variance = np.square(root)
        least = RIDGE * variance.sum() / rows.shape[1] + LEAST
        self.directions = torch.from_numpy(filled(directions, COLUMN_STEP, COLUMN_STEP))
        self.beyond = least**-0.5  # along what no row spans
        self.scale = torch.zeros(len(self.directions), dtype=torch.float64)
        self.scale[: len(variance)] = torch.from_numpy((variance + least) ** -0.5 - self.beyond)

    def __call__(self, Z):
        """Rows (n, d) as a float64 tensor, columns of zeros beside it."""
        Z = torch.from_numpy(filled(np.asarray(Z, dtype=np.float64), 1, COLUMN_STEP))
        return self.beyond * Z + (Z @ self.directions.T * self.scale) @ self.directions

    def without(self, Z, own):
        """A :class:`WithoutItself` of rows (n, d), their copies ``own`` (n, r) among these."""
        n = self.n_rows
        m = torch.from_numpy(own[:, self.some].sum(1)).double()  # (n,)
        m[m >= n] = 0
        direction = self(Z) - self(self.mean[None])
        weight = m / (n - m - m * direction.square().sum(1)).clamp_min(LEAST)
        return WithoutItself(own, direction, weight, (n - m) / n)


class TrustedDistance:
    """Three distances to trusted rows: a smoother's residual and the two nearest rows, twice.

    The smoother looks at the rows in coordinates of equal variance. The nearest rows are those by
    the sum of absolute differences (a few values that differ much count less than many that differ
    a little), of the values and of the normal scores of their ranks, where a step counts by how
    many rows it passes.

    Args:
        reference: (r, d) rows.
        width: of the smoother, see there; None finds it.
        coded: (r,) bool, see :class:`TolerantDistance`.
        ranked: bool; False in older files, which have no distance of ranks.
        subjects: (r,), see :class:`TolerantDistance`.
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
        self.views = [(None, self.reference)]  # no function, which could not be pickled
        if ranked:
            ranks = NormalScores.fit(self.reference)
            self.views.append((ranks, ranks(self.reference)))

    @classmethod
    def fit(cls, Z, rng, coded=None, subjects=None):
        """Arguments are those of :meth:`TolerantDistance.fit`."""
        rows = np.sort(rng.permutation(len(Z))[:TRUSTED])
        coded, subjects = _some_of(rows, coded, subjects)
        return cls(Z[rows], coded=coded, ranked=True, subjects=subjects)

    def score(self, Z, others=False, subjects=None):
        """Logarithms of the distances, (n, 3), left out as in :meth:`TolerantDistance.score`."""
        n = len(Z)
        Z = filled(np.asarray(Z, dtype=np.float64), ROW_STEP, 1)
        out = np.empty((len(Z), 1 + len(self.views)))
        for start in range(0, len(Z), BLOCK):
            rows = Z[start : start + BLOCK]
            distances = [
                cdist(rows if ranks is None else ranks(rows), reference, "cityblock")  # (B, r)
                for ranks, reference in self.views
            ]
            left_out = None
            if others:
                own = self._own(distances[0], _some_of(slice(start, start + BLOCK), subjects)[0])
                left_out = self.whitened.without(rows, own)
                for distance in distances:
                    distance[own] = np.inf
            residuals = self.smoother.residuals(self.whitened(rows), left_out)
            nearest = map(self._nearest, distances)
            out[start : start + BLOCK] = np.column_stack([residuals, *nearest])
        return np.log(out[:n] + 1e-6)

    @staticmethod
    def _nearest(distance):
        """(B,) mean of the least distances, of (B, r) where infinite ones are left out."""
        k = min(NEAREST, distance.shape[1])
        nearest = np.sort(np.partition(distance, k - 1, axis=1)[:, :k], axis=1)
        # Copies of one row and another: one other row is all there is.
        return np.where(np.isfinite(nearest), nearest, nearest[:, :1]).mean(1)

    def _own(self, distance, subjects):
        """(n, r) bool by sums of differences: a row's own copies; none where all are such.

        Rows that were written out and read again differ by rounding. Of those that
        new rows may be copies of one is the row itself. So are those of the same of ``subjects``
        (n,).
        """
        own = distance <= ROUNDING * self.reference.shape[1]
        if self.coded is not None:
            own &= ~self.coded | (np.cumsum(own, axis=1) == 1)
        if subjects is not None:  # rows of zeros below them fill a block
            own[: len(subjects)] |= subjects[:, None] == self.subjects
        return own & ~own.all(1, keepdims=True)

    def snapshot(self):
        """Arrays and plain values."""
        ranked = len(self.views) > 1
        return {"reference": self.reference, "width": self.smoother.width, "ranked": ranked}
