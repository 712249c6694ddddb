"""One-class evidence about a row (M10) and its use beside the detector (M12).

# DIFF(paper): M10 and M12 are this project's additions; ``preset="paper"`` runs without them.

:class:`Evidence` turns a row into a few columns that say how unlike the training normals it is:
distances to neighbours, local density ratios, a Gaussian, a PCA residual, the C-VAE's residual, and
how much nearer known anomalies are. For training rows every column is computed without the row
itself (leave-one-out neighbours, cross-fitted models): computed in-sample they look more normal
than any new row ever will, and a detector trained on that is misled.

:class:`MergedPValue` turns several scores into one p-value against the training normals, and
:func:`known_or_unlike` combines the experts' p-value and the one-class p-value as "a known anomaly
OR unlike normals".

Shapes: n rows, d features, c = len(COLUMNS) evidence columns. All arrays are float32 or float64
numpy on the CPU.
"""

import numpy as np
from sklearn.covariance import ledoit_wolf_shrinkage

from swift_hydra.geometry import Neighbours

COLUMNS = (
    "knn5",
    "knn20",
    "lof5",
    "lof20",
    "gaussian",
    "pca",
    "cvae",
    "ratio1",
    "ratio3",
    "ratio5",
)
MAX_NORMALS, MAX_ANOMALIES = (
    4096,
    2048,
)  # reference rows for neighbours: keeps fit and score linear in the rows
CHUNK = 65536  # rows of one neighbour query: bounds memory, does not change any value


def column_index(names):
    """Positions of the named evidence columns."""
    return [COLUMNS.index(name) for name in names]


class _Subspaces:
    """Gaussian distance and PCA residual, one eigendecomposition per fold of the normals."""

    def __init__(self, X, fold, n_folds, variance=0.9):
        self.means, self.bases, self.scales, self.kept = [], [], [], []
        for f in range(n_folds):
            rows = np.asarray(
                X[fold != f] if n_folds > 1 and (fold != f).sum() > 1 else X, dtype=np.float64
            )
            mean = rows.mean(0)
            covariance = (rows - mean).T @ (rows - mean) / len(rows)
            value, vector = np.linalg.eigh(covariance)
            value = np.clip(value, 0.0, None)
            shrink = ledoit_wolf_shrinkage(rows - mean, assume_centered=True)
            shrunk = (
                (1 - shrink) * value + shrink * value.mean() + 1e-6
            )  # same eigenvectors, shrunken eigenvalues
            share = np.cumsum(value[::-1])[::-1] / max(
                value.sum(), 1e-12
            )  # variance of this and all larger ones
            residual = share > variance  # the directions beyond the leading 90 % of the variance
            self.means.append(mean)
            self.bases.append(vector)
            self.scales.append(shrunk**-0.5)
            self.kept.append(residual.astype(np.float64))

    def distances(self, X, f):
        """Mahalanobis distance and residual norm of X under the model of fold f, each (n,)."""
        out = np.empty((2, len(X)))
        for start in range(0, len(X), CHUNK):
            part = slice(start, start + CHUNK)
            projected = (np.asarray(X[part], dtype=np.float64) - self.means[f]) @ self.bases[
                f
            ]  # (n, d)
            out[0, part] = np.sqrt(np.square(projected * self.scales[f]).sum(1))
            out[1, part] = np.sqrt((np.square(projected) * self.kept[f]).sum(1))
        return out

    def __len__(self):
        return len(self.means)


class Evidence:
    """Evidence columns of table rows (M10).

    Args:
        residuals: functions (n, d) -> (n,), C-VAE residuals; function i was trained without the
            rows whose ``residual_fold`` is i. The C-VAE itself stays a stranger here.
    """

    def __init__(self, residuals):
        self.residuals = list(residuals)

    def fit_transform(self, X, y, folds, residual_fold, rng):
        """Fit on training rows and return their cross-fitted columns.

        Args:
            X: (n, d) standardised rows.
            y: (n,) labels, 1 for known anomalies (at least one, and two normals).
            folds: (n,) fold of each row for the Gaussian and PCA models.
            residual_fold: (n,) which residual function did not see the row.
            rng: numpy Generator that draws the reference rows of a large table.

        Returns:
            (n, c) float32, standardised by the training normals, not clipped.
        """
        normal, anomaly = np.flatnonzero(y == 0), np.flatnonzero(y == 1)
        normals = np.sort(rng.permutation(normal)[:MAX_NORMALS])
        anomalies = np.sort(rng.permutation(anomaly)[:MAX_ANOMALIES])
        self.normals, self.anomalies = Neighbours(X[normals]), Neighbours(X[anomalies])
        own_normal, own_anomaly = np.full(len(X), -1), np.full(len(X), -1)
        own_normal[normals], own_anomaly[anomalies] = (
            np.arange(len(normals)),
            np.arange(len(anomalies)),
        )

        distance, _ = self.normals.query(X[normals], 20, own=np.arange(len(normals)))
        self.density5, self.density20 = distance[:, :5].mean(1), distance.mean(1)
        # Duplicate rows have distance 0: the floor keeps their logarithm finite and near the other
        # small ones.
        self.floor = float(1e-3 * np.median(self.density5) + 1e-6)
        self.subspaces = _Subspaces(X[normal], folds[normal], int(folds.max()) + 1)

        raw = np.empty((len(X), len(COLUMNS)))
        is_normal = y == 0
        raw[is_normal, :4], raw[is_normal, 7:] = self._neighbour_columns(
            X[is_normal], own_normal=own_normal[is_normal]
        )
        raw[~is_normal, :4], raw[~is_normal, 7:] = self._neighbour_columns(
            X[~is_normal], own_anomaly=own_anomaly[~is_normal]
        )
        if (
            len(anomalies) == 1
        ):  # left out, no other is there to be near: as far from anomalies as the normals are
            raw[~is_normal, 7:] = raw[is_normal, 7:].mean(0)
        raw[:, 4:6] = self._subspace_columns(X)
        if len(self.subspaces) > 1:
            for f in range(len(self.subspaces)):
                rows = is_normal & (folds == f)
                raw[rows, 4:6] = self._log(self.subspaces.distances(X[rows], f).T)
        raw[:, 6] = self._residual_column(X)
        for i, residual in enumerate(self.residuals):
            rows = residual_fold == i
            if rows.any():
                raw[rows, 6] = self._log(residual(X[rows]))
        self.centre = raw[is_normal].mean(0)
        self.scale = raw[is_normal].std(0)
        self.scale[self.scale < 1e-6] = 1.0
        return ((raw - self.centre) / self.scale).astype(np.float32)

    def transform(self, X):
        """Columns of new rows, (n, c) float32, on the scale of the training normals."""
        raw = np.empty((len(X), len(COLUMNS)))
        raw[:, :4], raw[:, 7:] = self._neighbour_columns(X)
        raw[:, 4:6] = self._subspace_columns(X)
        raw[:, 6] = self._residual_column(X)
        return ((raw - self.centre) / self.scale).astype(np.float32)

    def _log(self, value):
        return np.log(value + self.floor)

    def _neighbour_columns(self, X, own_normal=None, own_anomaly=None):
        """Density columns (n, 4) and ratio columns (n, 3) from one query of the normals and one of
        the anomalies.
        """
        distance, index = self.normals.query(X, 20, own_normal)
        mean5, mean20 = distance[:, :5].mean(1), distance.mean(1)
        around5, around20 = self.density5[index[:, :5]].mean(1), self.density20[index].mean(1)
        log5, log20 = self._log(mean5), self._log(mean20)
        density = np.stack(
            [log5, log20, log5 - self._log(around5), log20 - self._log(around20)], axis=1
        )
        alone = own_anomaly is not None and len(self.anomalies.reference) == 1
        to_anomaly, _ = self.anomalies.query(X, 5, None if alone else own_anomaly)
        ratio = np.stack(
            [
                self._log(distance[:, :k].mean(1)) - self._log(to_anomaly[:, :k].mean(1))
                for k in (1, 3, 5)
            ],
            axis=1,
        )
        return density, ratio

    def _subspace_columns(self, X):
        folds = range(len(self.subspaces))
        return np.mean([self._log(self.subspaces.distances(X, f).T) for f in folds], axis=0)

    def _residual_column(self, X):
        return np.mean([self._log(residual(X)) for residual in self.residuals], axis=0)

    def state(self):
        """Everything but the residual functions, as arrays and plain numbers."""
        s = self.subspaces
        return {
            "normals": self.normals.reference,
            "anomalies": self.anomalies.reference,
            "density5": self.density5,
            "density20": self.density20,
            "floor": self.floor,
            "centre": self.centre,
            "scale": self.scale,
            "means": np.stack(s.means),
            "bases": np.stack(s.bases),
            "scales": np.stack(s.scales),
            "kept": np.stack(s.kept),
        }

    @classmethod
    def from_state(cls, state, residuals):
        """Rebuild from :meth:`state`; scores of the rebuilt object are equal to the bit."""
        self = cls(residuals)
        self.normals, self.anomalies = Neighbours(state["normals"]), Neighbours(state["anomalies"])
        for name in ("density5", "density20", "floor", "centre", "scale"):
            setattr(self, name, state[name])
        if not self.density5.shape == self.density20.shape == self.normals.reference.shape[:1]:
            raise ValueError("the neighbours' densities are not as many as the neighbours")
        self.subspaces = _Subspaces.__new__(_Subspaces)
        for name in ("means", "bases", "scales", "kept"):
            # Memory order as eigh left it: BLAS rounds a transposed operand differently.
            arrays = list(state[name])
            setattr(
                self.subspaces, name, [np.asfortranarray(a) if a.ndim == 2 else a for a in arrays]
            )
        return self
