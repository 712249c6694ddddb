"""One-class evidence about a row (M10): how unlike the training normals it is, in eleven columns.

# DIFF(paper): an addition; ``preset="paper"`` runs without it.

The columns are distances to neighbours, local density ratios, a Gaussian distance, a PCA residual,
the C-VAE's residual, how much nearer known anomalies are than normals, and the row's largest value.
For training rows every column is computed without the row itself: models are cross-fitted, and
neither the row nor a copy of it counts as a neighbour or in the neighbours' densities. Computed
in-sample, training rows would look more normal than any new row, and a detector trained on that
would be misled. A new row that is a copy of training rows leaves these out too, so that a column is
the same function of every row.
For codes (recurring rows, of which new rows will be copies) the other copies do count, and only the
training row itself is left out: the number of equal normals is the best evidence there.

Left-out predictions need more: the neighbour columns of the rows around a left-out row know its
label. So the neighbour columns have a view for every fold, in which no row of that fold is a
neighbour, and the model that predicts a fold learns from that fold's view.

Shapes: n rows, d features, c = len(COLUMNS) evidence columns, F folds. All arrays are numpy on the
CPU.
"""

from typing import NamedTuple

import numpy as np

from swift_hydra.detection.largest_value import AboutColumns, LargestValue
from swift_hydra.detection.surroundings import DENSITY, LOCAL, RATIOS, Surroundings
from swift_hydra.geometry import WIDE, Neighbours, spread_over

SUBSPACE = ("gaussian", "pca")
COLUMNS = (*DENSITY, *SUBSPACE, "cvae", *RATIOS, "largest")  # older files lack the last one
IS_RATIO = np.array([name in RATIOS for name in COLUMNS])
MAX_ANOMALIES = 2048  # most known anomalies in the reference: keeps fit and score linear in n
MOST_OF_A_SUBJECT = 200  # most reference rows that were measured on one subject
PROJECTED_ROWS = 65536  # rows of one projection: bounds memory, does not change any value
VARIANCE = 0.9  # share of the normals' variance, in the leading directions that PCA removes


def column_index(names, n_columns=None):
    """Positions of the named evidence columns; without those that an older file lacks."""
    return [COLUMNS.index(name) for name in names if name in COLUMNS[:n_columns]]


def shrinkage(rows, values):
    """Ledoit and Wolf's shrinkage of a covariance towards a multiple of the identity (2004).

    The same number as :func:`sklearn.covariance.ledoit_wolf_shrinkage`, without a d x d matrix.

    Args:
        rows: (n, d) centred.
        values: (min(n, d),) eigenvalues of their covariance.
    """
    n, d = rows.shape
    noise = (np.square(np.square(rows).sum(1)).sum() / n - np.square(values).sum()) / n
    distance = np.square(values).sum() - values.sum() ** 2 / d
    if d == 1 or noise <= 0:
        return 0.0
    return noise / distance if noise < distance else 1.0


class Subspaces:
    """Gaussian distance and PCA residual, one eigendecomposition per fold of the normals.

    Args:
        means: for each fold, (d,) the mean.
        bases: for each fold, (d, r) eigenvectors in columns, r = min(rows, d).
        scales: for each fold, (r + 1,) the inverse of the shrunken standard deviation along each
            eigenvector; the last is that of all directions which no row spans.
        kept: for each fold, (r,) 1 for the eigenvectors whose components make the PCA residual, 0
            for the leading ones, which hold up to 90 % of the variance together.
    """

    def __init__(self, means, bases, scales, kept):
        self.means = means
        self.bases = bases
        self.scales = scales
        self.kept = kept

    @classmethod
    def fit(cls, X, fold, n_folds):
        """Fit to normals X (n, d) with fold numbers (n,): model f leaves fold f out."""
        parts = []
        for f in range(n_folds):
            others = fold != f
            rows = X[others] if n_folds > 1 and others.sum() > 1 else X
            if X.shape[1] > WIDE:
                rows = rows[spread_over(len(rows), WIDE)]
            parts.append(cls._model(np.asarray(rows, dtype=np.float64)))
        return cls(*(list(part) for part in zip(*parts, strict=True)))

    @staticmethod
    def _model(rows):
        n, d = rows.shape
        mean = rows.mean(0)
        centred = rows - mean
        if n < d:  # the rows span n directions: avoid work that is cubic in the columns
            value, left = np.linalg.eigh(centred @ centred.T / n)
            value = np.clip(value, 0.0, None)
            vector = centred.T @ left / np.sqrt(n * np.maximum(value, 1e-12))
            vector *= value > 1e-9
        else:
            value, vector = np.linalg.eigh(centred.T @ centred / n)
            value = np.clip(value, 0.0, None)
        shrink = shrinkage(centred, value)
        # The same eigenvectors, shrunken eigenvalues.
        shrunk = (1 - shrink) * np.append(value, 0.0) + shrink * value.sum() / d + 1e-6
        # Share of the variance in this direction and all larger ones.
        share = np.cumsum(value[::-1])[::-1] / max(value.sum(), 1e-12)
        return mean, vector, shrunk**-0.5, (share > VARIANCE).astype(np.float64)

    def distances(self, X, f):
        """Mahalanobis distance and residual norm of X under the model of fold f: (2, n)."""
        out = np.empty((2, len(X)))
        scale = self.scales[f]
        d, r = self.bases[f].shape
        for start in range(0, len(X), PROJECTED_ROWS):
            part = slice(start, start + PROJECTED_ROWS)
            centred = np.asarray(X[part], dtype=np.float64) - self.means[f]
            projected = np.square(centred @ self.bases[f])  # (n, r)
            beyond = 0.0
            if r < d:
                beyond = np.maximum(np.square(centred).sum(1) - projected.sum(1), 0.0)
            out[0, part] = np.sqrt(projected @ np.square(scale[:-1]) + beyond * scale[-1] ** 2)
            out[1, part] = np.sqrt(projected @ self.kept[f] + beyond)
        return out

    def __len__(self):
        return len(self.means)

    def snapshot(self):
        """Lists with the arrays of each fold."""
        return dict(vars(self))

    @classmethod
    def from_snapshot(cls, saved):
        """Rebuild from :meth:`snapshot`."""
        # In the memory order that eigh returned: BLAS rounds a transposed operand differently.
        bases = [np.asfortranarray(basis) for basis in saved["bases"]]
        return cls(saved["means"], bases, saved["scales"], saved["kept"])


class EvidenceColumns(NamedTuple):
    """Evidence of training rows, or of generated ones."""

    all: np.ndarray  # (n, c) float32; for training rows, without the row itself
    without: np.ndarray  # (F, n, c) the same in the view without fold f


def _drawn(rows, most, subjects, rng):
    """Draw the reference rows from ``rows``: ascending row numbers, at most ``most``.

    At most ``MOST_OF_A_SUBJECT`` are from one subject. The search for a row's neighbours skips the
    rows of its own subject, so that its cost grows with the largest subject.
    """
    rows = rng.permutation(rows)
    if subjects is not None:
        order = np.argsort(subjects[rows], kind="stable")
        of_subject = subjects[rows][order]
        place = np.arange(len(rows)) - np.searchsorted(of_subject, of_subject)  # within its subject
        rows = rows[np.sort(order[place < MOST_OF_A_SUBJECT])]
    return np.sort(rows[:most])


def _own(y, kept, rng):
    """For which training rows one copy in each side's reference counts as the row itself: (2, n).

    That copy is left out. Rows of the other class lose a copy too, as a row's label would otherwise
    show in how many copies are left. If the reference is a sample of its side, they do so with the
    probability that a row of the side itself is in the reference.

    Args:
        y: (n,) labels.
        kept: row numbers of the reference rows of both sides (normals, anomalies).
        rng: numpy Generator.
    """
    own = np.ones((2, len(y)), dtype=bool)
    for label, rows in enumerate(kept):
        n_all = np.count_nonzero(y == label)
        if len(rows) < n_all:
            own[label] = rng.random(len(y)) < len(rows) / n_all
            own[label, y == label] = False
            own[label, rows] = True
    return own


class Evidence:
    """Evidence columns of table rows (M10); :meth:`fit` makes one.

    Args:
        residuals: functions (n, d) -> (n,), C-VAE residuals.
        surroundings: :class:`Surroundings`.
        subspaces: :class:`Subspaces` of the normals.
        largest: a :class:`detection.largest_value.LargestValue`; None in older files.
        centre: (F + 1, c) means of the columns over the training normals, in every view.
        scale: (F + 1, c) their standard deviations.
    """

    def __init__(self, residuals, surroundings, subspaces, largest, centre=None, scale=None):
        self.residuals = list(residuals)
        self.surroundings = surroundings
        self.subspaces = subspaces
        self.largest = largest
        self.n_columns = len(COLUMNS) - (largest is None)
        self.centre = centre
        self.scale = scale

    @classmethod
    def fit(cls, X, y, leave_out, residuals, residual_fold, rng, max_normals, about=None):
        """Learn from training rows.

        Args:
            X: (n, d) standardised rows.
            y: (n,) labels, 1 for known anomalies, of which there may be none; at least two normals.
            leave_out: a :class:`cleaning.leave_out.LeaveOut` of the rows: folds, codes, subjects.
            residuals: C-VAE residual functions; number i was trained without the rows whose
                ``residual_fold`` is i.
            residual_fold: (n,) the number of the residual function that did not see the row.
            rng: numpy Generator that draws the reference rows of a large table.
            max_normals: most reference normals.
            about: the :class:`detection.largest_value.AboutColumns`; None: nothing is known.

        Returns:
            The Evidence, and the :class:`EvidenceColumns` of the training rows: standardised by the
            training normals, not clipped.
        """
        normal = np.flatnonzero(y == 0)
        anomaly = np.flatnonzero(y == 1)
        folds, subjects = leave_out.folds, leave_out.subjects
        n_folds = int(folds.max()) + 1
        kept = (
            _drawn(normal, max_normals, subjects, rng),
            _drawn(anomaly, MAX_ANOMALIES, subjects, rng),
        )
        own = _own(y, kept, rng)
        surroundings = Surroundings(
            *(Neighbours(X[rows]) for rows in kept),
            [folds[rows] for rows in kept],
            n_folds,
            [leave_out.coded[rows] for rows in kept],
            None if subjects is None else [subjects[rows] for rows in kept],
        )
        subspaces = Subspaces.fit(X[normal], folds[normal], n_folds)
        self = cls(residuals, surroundings, subspaces, LargestValue.of(X, about or AboutColumns()))
        models = self._left_out(X, folds, residual_fold)
        raw = self._raw(X, range(n_folds + 1), models, (folds, own, subjects))
        self.centre = np.empty((n_folds + 1, len(COLUMNS)))
        self.scale = np.empty_like(self.centre)
        for view in range(n_folds + 1):
            rows = normal[folds[normal] != view]
            rows = raw[view, rows if len(rows) else normal]
            # Only a ratio can lack anomalies to compare with, in some rows or in all.
            rows = np.where(np.isnan(rows).all(0) & IS_RATIO, 0.0, rows)
            self.centre[view] = np.where(IS_RATIO, np.nanmean(rows, axis=0), rows.mean(0))
            self.scale[view] = np.where(IS_RATIO, np.nanstd(rows, axis=0), rows.std(0))
        self.scale[self.scale < 1e-6] = 1.0
        return self, self._standardised(raw)

    def _left_out(self, X, folds, residual_fold):
        """Columns of the training rows by models that did not learn from them: {name: (n,)}.

        Known anomalies use the same models as the normals of their fold; otherwise the number of
        models in the average would separate the two classes.
        """
        columns = self._models(X)
        if len(self.subspaces) > 1:
            for f in range(len(self.subspaces)):
                rows = folds == f
                for name, values in self._subspaces(X[rows], [f]).items():
                    columns[name][rows] = values
        for i, residual in enumerate(self.residuals):
            rows = residual_fold == i
            if rows.any():
                columns["cvae"][rows] = self._residual(X[rows], [residual])["cvae"]
        columns["largest"] = self.largest(X, among=X)
        return columns

    def transform(self, X):
        """Evidence of new rows (n, d): (n, c) float32, standardised by the training normals."""
        return self._standardised(self._raw(X, [-1], self._models(X)), [-1]).all

    def transform_in_views(self, X):
        """The :class:`EvidenceColumns` of new rows (n, d) in every view."""
        views = range(len(self.centre))
        return self._standardised(self._raw(X, views, self._models(X)))

    def _models(self, X):
        """The columns of new rows (n, d) that models compute: {name: (n,)}."""
        each = self._subspaces(X, range(len(self.subspaces))) | self._residual(X, self.residuals)
        return each if self.largest is None else each | {"largest": self.largest(X)}

    def _raw(self, X, views, models, training=()):
        """All columns of rows (n, d) in some views, not standardised: (views, n, c).

        Args:
            X: (n, d) rows.
            views: numbers of the views.
            models: the columns that models compute, {name: (n,)}.
            training: for training rows, the arguments ``folds``, ``own`` and ``subjects`` of
                :meth:`Surroundings.columns`.
        """
        out = np.empty((len(views), len(X), self.n_columns))
        out[:, :, column_index(LOCAL)] = self.surroundings.columns(X, views, *training)
        for name, values in models.items():
            out[:, :, COLUMNS.index(name)] = values
        return out

    def _standardised(self, raw, views=slice(None)):
        columns = (raw - self.centre[views][:, None]) / self.scale[views][:, None]
        # A ratio without anomalies to compare with gets the normals' mean. NaN in another column
        # stays, and the check of the scores finds it.
        lacking = np.isnan(columns) & IS_RATIO[: self.n_columns]
        columns = np.where(lacking, 0.0, columns).astype(np.float32)
        return EvidenceColumns(columns[-1], columns[:-1])

    def _subspaces(self, X, folds):
        log = self.surroundings.log
        logs = np.mean([log(self.subspaces.distances(X, f)) for f in folds], axis=0)
        return dict(zip(SUBSPACE, logs, strict=True))

    def _residual(self, X, residuals):
        log = self.surroundings.log
        return {"cvae": np.mean([log(residual(X)) for residual in residuals], axis=0)}

    def snapshot(self):
        """Everything but the residual functions and the folds' views: arrays and plain numbers."""
        normals, anomalies = self.surroundings.sides
        return {
            "normals": normals.reference,
            "anomalies": anomalies.reference,
            "coded": self.surroundings.coded,
            "things": self.surroundings.subjects,  # the name that files have for subjects
            "subspaces": self.subspaces.snapshot(),
            "largest": self.largest and self.largest.snapshot(),
            "centre": self.centre[-1:],
            "scale": self.scale[-1:],
        }

    @classmethod
    def from_snapshot(cls, saved, residuals):
        """Rebuild from :meth:`snapshot`; its columns are equal to the bit."""
        sides = (Neighbours(saved[name]) for name in ("normals", "anomalies"))
        largest = saved.get("largest")
        if isinstance(largest, np.ndarray):  # older files hold the measured columns alone
            largest = {"measured": largest}
        told = {"coded": saved.get("coded"), "subjects": saved.get("things")}  # not of older files
        return cls(
            residuals,
            Surroundings(*sides, **told),
            Subspaces.from_snapshot(saved["subspaces"]),
            largest and LargestValue.from_snapshot(largest),
            saved["centre"],
            saved["scale"],
        )
