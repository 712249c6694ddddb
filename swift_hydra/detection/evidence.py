"""One-class evidence about a row (M10): how unlike the training normals it is, in ten columns.

# DIFF(paper): an addition; ``preset="paper"`` runs without it.

Distances to neighbours, local density ratios, a Gaussian, a PCA residual, the C-VAE's residual, and
how much nearer known anomalies are. For training rows every column is computed without the row
itself (leave-one-out neighbours, cross-fitted models): computed in-sample they look more normal
than any new row ever will, and a detector trained on that is misled.

Shapes: n rows, d features, c = len(COLUMNS) evidence columns. All arrays are numpy on the CPU.
"""

import numpy as np
from sklearn.covariance import ledoit_wolf_shrinkage

from swift_hydra.geometry import Neighbours

DENSITY = ("knn5", "knn20", "lof5", "lof20")
SUBSPACE = ("gaussian", "pca")
RATIOS = {"ratio1": 1, "ratio3": 3, "ratio5": 5}  # neighbours on either side
COLUMNS = (*DENSITY, *SUBSPACE, "cvae", *RATIOS)
MAX_ANOMALIES = 2048  # known anomalies that stand for more: keeps fit and score linear in the rows
PROJECTED_ROWS = 65536  # rows of one projection: bounds memory, does not change any value
VARIANCE = 0.9  # of the normals, in the directions that count as theirs


def column_index(names):
    """Positions of the named evidence columns."""
    return [COLUMNS.index(name) for name in names]


class Subspaces:
    """Gaussian distance and PCA residual, one eigendecomposition per fold of the normals.

    Args:
        means: (d,) of each fold's model.
        bases: (d, d) eigenvectors in columns.
        scales: (d,) one over the standard deviation along each, shrunken.
        kept: (d,) 1 for the directions beyond the leading 90 % of the variance, else 0.
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
            usable = n_folds > 1 and others.sum() > 1
            parts.append(cls._model(np.asarray(X[others] if usable else X, dtype=np.float64)))
        return cls(*(list(part) for part in zip(*parts, strict=True)))

    @staticmethod
    def _model(rows):
        mean = rows.mean(0)
        covariance = (rows - mean).T @ (rows - mean) / len(rows)
        value, vector = np.linalg.eigh(covariance)
        value = np.clip(value, 0.0, None)
        shrink = ledoit_wolf_shrinkage(rows - mean, assume_centered=True)
        # The same eigenvectors, shrunken eigenvalues.
        shrunk = (1 - shrink) * value + shrink * value.mean() + 1e-6
        # Share of the variance in this direction and all larger ones.
        share = np.cumsum(value[::-1])[::-1] / max(value.sum(), 1e-12)
        return mean, vector, shrunk**-0.5, (share > VARIANCE).astype(np.float64)

    def distances(self, X, f):
        """Mahalanobis distance and residual norm of X under the model of fold f: (2, n)."""
        out = np.empty((2, len(X)))
        for start in range(0, len(X), PROJECTED_ROWS):
            part = slice(start, start + PROJECTED_ROWS)
            centred = np.asarray(X[part], dtype=np.float64) - self.means[f]
            projected = centred @ self.bases[f]  # (n, d)
            out[0, part] = np.sqrt(np.square(projected * self.scales[f]).sum(1))
            out[1, part] = np.sqrt((np.square(projected) * self.kept[f]).sum(1))
        return out

    def __len__(self):
        return len(self.means)

    def snapshot(self):
        """Arrays, the folds along the first axis."""
        return {name: np.stack(part) for name, part in vars(self).items()}

    @classmethod
    def from_snapshot(cls, saved):
        """Rebuild from :meth:`snapshot`."""
        # Memory order as eigh left it: BLAS rounds a transposed operand differently.
        bases = [np.asfortranarray(basis) for basis in saved["bases"]]
        means, scales, kept = (list(saved[name]) for name in ("means", "scales", "kept"))
        return cls(means, bases, scales, kept)


class Evidence:
    """Evidence columns of table rows (M10); :meth:`fit` makes one.

    Args:
        residuals: functions (n, d) -> (n,), C-VAE residuals. The C-VAE itself stays a stranger.
        normals: :class:`geometry.Neighbours` of reference normals.
        anomalies: the same of known anomalies.
        density: (2, m) mean distance of every reference normal to five and to twenty others.
        floor: added to a distance before its logarithm.
        subspaces: :class:`Subspaces` of the normals.
        centre: (c,) mean of the columns over the training normals.
        scale: (c,) standard deviation.
    """

    def __init__(
        self, residuals, normals, anomalies, density, floor, subspaces, centre=0.0, scale=1.0
    ):
        if density.shape != (2, len(normals.reference)):
            raise ValueError("the neighbours' densities are not as many as the neighbours")
        self.residuals = list(residuals)
        self.normals = normals
        self.anomalies = anomalies
        self.density = density
        self.floor = floor
        self.subspaces = subspaces
        self.centre = centre
        self.scale = scale

    @classmethod
    def fit(cls, X, y, folds, residuals, residual_fold, rng, max_normals):
        """Learn from training rows.

        Args:
            X: (n, d) standardised rows.
            y: (n,) labels, 1 for known anomalies (at least one, and two normals).
            folds: (n,) fold of each row for the Gaussian and PCA models.
            residuals: C-VAE residuals; function i was trained without the rows of fold i.
            residual_fold: (n,) which residual function did not see the row.
            rng: numpy Generator that draws the reference rows of a large table.
            max_normals: most reference normals.

        Returns:
            The Evidence, and the cross-fitted columns of the training rows: (n, c) float32,
            standardised by the training normals, not clipped.
        """
        normal = np.flatnonzero(y == 0)
        anomaly = np.flatnonzero(y == 1)
        normals = np.sort(rng.permutation(normal)[:max_normals])
        anomalies = np.sort(rng.permutation(anomaly)[:MAX_ANOMALIES])
        reference = Neighbours(X[normals])
        distance, _ = reference.query(X[normals], 20, own=np.arange(len(normals)))
        density = np.stack([distance[:, :5].mean(1), distance.mean(1)])
        # Duplicate rows have distance 0: the floor keeps their logarithm finite and near the other
        # small ones.
        floor = float(1e-3 * np.median(density[0]) + 1e-6)
        subspaces = Subspaces.fit(X[normal], folds[normal], int(folds.max()) + 1)
        known = Neighbours(X[anomalies])
        self = cls(residuals, reference, known, density, floor, subspaces)
        raw = self._left_out(X, y, normals, anomalies, folds, residual_fold)
        self.centre = raw[y == 0].mean(0)
        self.scale = raw[y == 0].std(0)
        self.scale[self.scale < 1e-6] = 1.0
        return self, self._standardised(raw)

    def _left_out(self, X, y, normals, anomalies, folds, residual_fold):
        """Raw columns of the training rows, each without its row: (n, c)."""
        own_normal = np.full(len(X), -1)
        own_anomaly = np.full(len(X), -1)
        own_normal[normals] = np.arange(len(normals))
        own_anomaly[anomalies] = np.arange(len(anomalies))
        is_normal = y == 0
        columns = {name: np.empty(len(X)) for name in COLUMNS}

        def put(rows, part):
            for name, values in part.items():
                columns[name][rows] = values

        put(is_normal, self._neighbours(X[is_normal], own_normal=own_normal[is_normal]))
        put(~is_normal, self._neighbours(X[~is_normal], own_anomaly=own_anomaly[~is_normal]))
        if len(anomalies) == 1:
            # Left out, no other is there to be near: as far from anomalies as the normals are.
            ratios = np.stack([columns[name][is_normal] for name in RATIOS], axis=1)
            put(~is_normal, dict(zip(RATIOS, ratios.mean(0), strict=True)))
        put(slice(None), self._subspaces(X, range(len(self.subspaces))))
        if len(self.subspaces) > 1:
            for f in range(len(self.subspaces)):
                rows = is_normal & (folds == f)
                put(rows, self._subspaces(X[rows], [f]))
        put(slice(None), self._residual(X, self.residuals))
        for i, residual in enumerate(self.residuals):
            rows = residual_fold == i
            if rows.any():
                put(rows, self._residual(X[rows], [residual]))
        return self._stacked(columns)

    def transform(self, X):
        """Columns of new rows (n, d): (n, c) float32, on the scale of the training normals."""
        columns = {
            **self._neighbours(X),
            **self._subspaces(X, range(len(self.subspaces))),
            **self._residual(X, self.residuals),
        }
        return self._standardised(self._stacked(columns))

    @staticmethod
    def _stacked(columns):
        return np.stack([columns[name] for name in COLUMNS], axis=1)

    def _standardised(self, raw):
        return ((raw - self.centre) / self.scale).astype(np.float32)

    def _log(self, value):
        return np.log(value + self.floor)

    def _neighbours(self, X, own_normal=None, own_anomaly=None):
        """Density and ratio columns from one query of the normals and one of the anomalies."""
        distance, index = self.normals.query(X, 20, own_normal)
        log5 = self._log(distance[:, :5].mean(1))
        log20 = self._log(distance.mean(1))
        around5 = self._log(self.density[0][index[:, :5]].mean(1))
        around20 = self._log(self.density[1][index].mean(1))
        columns = {"knn5": log5, "knn20": log20, "lof5": log5 - around5, "lof20": log20 - around20}
        alone = own_anomaly is not None and len(self.anomalies.reference) == 1
        to_anomaly, _ = self.anomalies.query(X, 5, None if alone else own_anomaly)
        for name, k in RATIOS.items():
            near = self._log(distance[:, :k].mean(1))
            columns[name] = near - self._log(to_anomaly[:, :k].mean(1))
        return columns

    def _subspaces(self, X, folds):
        logs = np.mean([self._log(self.subspaces.distances(X, f)) for f in folds], axis=0)
        return dict(zip(SUBSPACE, logs, strict=True))

    def _residual(self, X, residuals):
        return {"cvae": np.mean([self._log(residual(X)) for residual in residuals], axis=0)}

    def snapshot(self):
        """Everything but the residual functions: arrays and plain numbers."""
        return {
            "normals": self.normals.reference,
            "anomalies": self.anomalies.reference,
            "density": self.density,
            "floor": self.floor,
            "subspaces": self.subspaces.snapshot(),
            "centre": self.centre,
            "scale": self.scale,
        }

    @classmethod
    def from_snapshot(cls, saved, residuals):
        """Rebuild from :meth:`snapshot`; columns are equal to the bit."""
        return cls(
            residuals,
            Neighbours(saved["normals"]),
            Neighbours(saved["anomalies"]),
            saved["density"],
            saved["floor"],
            Subspaces.from_snapshot(saved["subspaces"]),
            centre=saved["centre"],
            scale=saved["scale"],
        )
