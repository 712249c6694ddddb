"""One-class evidence about a row (M10): how unlike the training normals it is, in ten columns.

# DIFF(paper): an addition; ``preset="paper"`` runs without it.

Distances to neighbours, local density ratios, a Gaussian, a PCA residual, the C-VAE's residual, and
how much nearer known anomalies are. For training rows every column is computed without the row
itself (cross-fitted models, neighbours other than the row and its copies, whose own densities do
without the row too): computed in-sample they look more normal than any new row ever will, and a
detector trained on that is misled. New rows that are copies of training rows leave those out too,
so that a column is one function of a row. Where rows are codes, so that new rows will be copies of
training rows, the copies count, but for the training row itself: how many normals are the same is
what tells most about a row there.

That is not enough for predictions that leave a row out: the neighbours' columns of the rows beside
it know its label. So there is a view of the neighbours' columns for every fold, in which nothing of
that fold is a neighbour; whoever predicts a fold learns from that view.

Shapes: n rows, d features, c = len(COLUMNS) evidence columns, F folds. All arrays are numpy on the
CPU.
"""

from typing import NamedTuple

import numpy as np

from swift_hydra.detection.surroundings import DENSITY, LOCAL, RATIOS, Surroundings
from swift_hydra.geometry import WIDE, Neighbours, spread_over

SUBSPACE = ("gaussian", "pca")
COLUMNS = (*DENSITY, *SUBSPACE, "cvae", *RATIOS)
IS_RATIO = np.array([name in RATIOS for name in COLUMNS])
MAX_ANOMALIES = 2048  # known anomalies that stand for more: keeps fit and score linear in the rows
MOST_OF_A_SUBJECT = 200  # reference rows that were measured of one subject
PROJECTED_ROWS = 65536  # rows of one projection: bounds memory, does not change any value
VARIANCE = 0.9  # of the normals, in the directions that count as theirs


def column_index(names):
    """Positions of the named evidence columns."""
    return [COLUMNS.index(name) for name in names]


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
        means: (d,) of each fold's model.
        bases: (d, r) eigenvectors in columns, r = min(rows, d).
        scales: (r + 1,) one over the standard deviation along each, shrunken; the last holds in
            all directions that no row spans.
        kept: (r,) 0 for the directions that hold less than the leading 90 % of the variance
            together, else 1.
    """

    def __init__(self, means, bases, scales, kept):
        self.means = means
        self.bases = bases
        self.scales = scales
        self.kept = kept

    @classmethod
    def fit(cls, X, fold, n_folds):
        """From normals X (n, d) and their fold numbers (n,): model f leaves fold f out."""
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
        if n < d:  # the rows span n directions: nothing is cubic in the columns
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
        """Arrays, in lists over the folds."""
        return dict(vars(self))

    @classmethod
    def from_snapshot(cls, saved):
        """Rebuild from :meth:`snapshot`."""
        # Memory order as eigh left it: BLAS rounds a transposed operand differently.
        bases = [np.asfortranarray(basis) for basis in saved["bases"]]
        return cls(saved["means"], bases, saved["scales"], saved["kept"])


class EvidenceColumns(NamedTuple):
    """Evidence of training rows, or of generated ones."""

    all: np.ndarray  # (n, c) float32; of training rows without the row itself
    without: np.ndarray  # (F, n, c) the same, without anything of fold f


def _drawn(rows, most, subjects, rng):
    """Numbers of the reference rows of a side, ascending: at most so many, and few of each subject.

    A row's own subject is passed over in search of its neighbours: what is looked at would grow
    with the largest of them.
    """
    rows = rng.permutation(rows)
    if subjects is not None:
        order = np.argsort(subjects[rows], kind="stable")
        of_subject = subjects[rows][order]
        place = np.arange(len(rows)) - np.searchsorted(of_subject, of_subject)  # within its subject
        rows = rows[np.sort(order[place < MOST_OF_A_SUBJECT])]
    return np.sort(rows[:most])


def _own(y, kept, rng):
    """Which training rows are one of their copies among the reference rows of each side: (2, n).

    A row of the other class, too, or what it lacks would tell its label: as many of them as of the
    side's own rows are in the reference.

    Args:
        y: (n,) labels.
        kept: numbers of the reference rows of both sides.
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
        centre: (F + 1, c) mean of the columns over the training normals, in every view.
        scale: (F + 1, c) standard deviation.
    """

    def __init__(self, residuals, surroundings, subspaces, centre=None, scale=None):
        self.residuals = list(residuals)
        self.surroundings = surroundings
        self.subspaces = subspaces
        self.centre = centre
        self.scale = scale

    @classmethod
    def fit(cls, X, y, left_out, residuals, residual_fold, rng, max_normals):
        """Learn from training rows.

        Args:
            X: (n, d) standardised rows.
            y: (n,) labels, 1 for known anomalies, if there are any; at least two normals.
            left_out: folds, codes and subjects of the rows, a
                :class:`cleaning.leave_out.LeaveOut`.
            residuals: C-VAE residuals; function i was trained without the rows of fold i.
            residual_fold: (n,) which residual function did not see the row.
            rng: numpy Generator that draws the reference rows of a large table.
            max_normals: most reference normals.

        Returns:
            The Evidence, and the :class:`EvidenceColumns` of the training rows, standardised by the
            training normals, not clipped.
        """
        normal = np.flatnonzero(y == 0)
        anomaly = np.flatnonzero(y == 1)
        folds, subjects = left_out.folds, left_out.subjects
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
            [left_out.coded[rows] for rows in kept],
            None if subjects is None else [subjects[rows] for rows in kept],
        )
        self = cls(residuals, surroundings, Subspaces.fit(X[normal], folds[normal], n_folds))
        models = self._left_out(X, folds, residual_fold)
        raw = self._raw(X, range(n_folds + 1), models, (folds, own, subjects))
        self.centre = np.empty((n_folds + 1, len(COLUMNS)))
        self.scale = np.empty_like(self.centre)
        for view in range(n_folds + 1):
            rows = normal[folds[normal] != view]
            rows = raw[view, rows if len(rows) else normal]
            # Only a ratio can have nothing to compare with, in some rows or in all.
            rows = np.where(np.isnan(rows).all(0) & IS_RATIO, 0.0, rows)
            self.centre[view] = np.where(IS_RATIO, np.nanmean(rows, axis=0), rows.mean(0))
            self.scale[view] = np.where(IS_RATIO, np.nanstd(rows, axis=0), rows.std(0))
        self.scale[self.scale < 1e-6] = 1.0
        return self, self._standardised(raw)

    def _left_out(self, X, folds, residual_fold):
        """Columns of the training rows by models that did not learn from them: {name: (n,)}.

        Known anomalies have theirs from the same models as the normals beside them: else the number
        of models that are averaged would tell the two apart.
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
        return columns

    def transform(self, X):
        """Columns of new rows (n, d): (n, c) float32, on the scale of the training normals."""
        return self._standardised(self._raw(X, [-1], self._models(X)), [-1]).all

    def transform_in_views(self, X):
        """The :class:`EvidenceColumns` of new rows (n, d) in every view."""
        views = range(len(self.centre))
        return self._standardised(self._raw(X, views, self._models(X)))

    def _models(self, X):
        """The models' columns of new rows (n, d): {name: (n,)}."""
        return self._subspaces(X, range(len(self.subspaces))) | self._residual(X, self.residuals)

    def _raw(self, X, views, models, training=()):
        """All columns of rows (n, d) in some views: (views, n, c).

        ``training``: of training rows, ``folds``, ``own`` and ``subjects`` of
        :meth:`Surroundings.columns`.
        """
        out = np.empty((len(views), len(X), len(COLUMNS)))
        out[:, :, column_index(LOCAL)] = self.surroundings.columns(X, views, *training)
        for name, values in models.items():
            out[:, :, COLUMNS.index(name)] = values
        return out

    def _standardised(self, raw, views=slice(None)):
        columns = (raw - self.centre[views][:, None]) / self.scale[views][:, None]
        # Nothing to compare with: as near to anomalies as the normals are. What is no number in
        # another column stays so, and the scores' own check sees it.
        columns = np.where(np.isnan(columns) & IS_RATIO, 0.0, columns).astype(np.float32)
        return EvidenceColumns(columns[-1], columns[:-1])

    def _subspaces(self, X, folds):
        log = self.surroundings.log
        logs = np.mean([log(self.subspaces.distances(X, f)) for f in folds], axis=0)
        return dict(zip(SUBSPACE, logs, strict=True))

    def _residual(self, X, residuals):
        log = self.surroundings.log
        return {"cvae": np.mean([log(residual(X)) for residual in residuals], axis=0)}

    def snapshot(self):
        """Everything but the residual functions and the views: arrays and plain numbers."""
        normals, anomalies = self.surroundings.sides
        return {
            "normals": normals.reference,
            "anomalies": anomalies.reference,
            "coded": self.surroundings.coded,
            "things": self.surroundings.subjects,  # their name in files
            "subspaces": self.subspaces.snapshot(),
            "centre": self.centre[-1:],
            "scale": self.scale[-1:],
        }

    @classmethod
    def from_snapshot(cls, saved, residuals):
        """Rebuild from :meth:`snapshot`; columns are equal to the bit."""
        sides = (Neighbours(saved[name]) for name in ("normals", "anomalies"))
        told = {"coded": saved.get("coded"), "subjects": saved.get("things")}  # not of older files
        return cls(
            residuals,
            Surroundings(*sides, **told),
            Subspaces.from_snapshot(saved["subspaces"]),
            saved["centre"],
            saved["scale"],
        )
