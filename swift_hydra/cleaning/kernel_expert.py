"""Closed-form experts beside the Mamba experts (M11): kernel ridge on balanced +-1 targets.

# DIFF(paper): an addition; with ``preset="paper"`` only M13 uses them.

With C = K + ridge W^-1 (K the kernel matrix, W the row weights), alpha = C^-1 y solves the weighted
ridge problem. The fit without row i predicts y_i - alpha_i / (C^-1)_ii for it, and the fit without
a group g of rows predicts y_g - (C^-1)_gg^-1 alpha_g for these: the left-out scores that
calibration needs cost nothing. Feature weights follow Radhakrishnan et al., "Mechanism for feature
learning in neural networks and backpropagation-free machine learning models" (Science 2024), in
diagonal form: fit, weight every feature by the root of its mean squared gradient, fit again.

Shapes: n rows, d features, m centres (training rows that carry a coefficient).
"""

import copy
from functools import partial

import numpy as np
import torch
from scipy.linalg import cho_factor, cho_solve, cholesky
from scipy.linalg.lapack import dtrtri
from scipy.spatial.distance import cdist
from sklearn.metrics.pairwise import euclidean_distances

from swift_hydra.compiled import available, city_block_distances, sums_of_kernels, sums_of_signs
from swift_hydra.seeds import sample_of

RIDGES = (0.03, 0.3, 3.0)
FEW_KNOWN = 8  # each of fewer anomalies has so large a weight that a ridge of 3 hardly smooths
RIDGES_OF_FEW = (0.03, 0.3, 10.0)
SCALE_RIDGE = 0.3  # while scales are learned
CANCELLED = 1e-13  # squared distances below this part of two rows' squared lengths are rounding
SAME = 1e-6  # standard deviations: rows nearer than that are copies
GRADIENT_ROWS = 400  # centres at which the gradient is taken
FEW_ROWS = 50  # per column: with no more rows, scales of all of them know each row's label
CODED = 0.1  # if rows are few and a larger share of them are codes, no scales are learned
SCORED_ROWS = 256  # scored at a time: their distances stay in the processor's cache
COPIED_ROWS = 65536  # training rows scored at a time: a copy of all of them could be gigabytes


def balanced(target):
    """Row weights for +-1 targets (m,): both classes have half of the weight; the mean is 1."""
    counts = {label: max((target == label).sum(), 1) for label in (-1.0, 1.0)}
    return len(target) * np.where(target > 0, 0.5 / counts[1.0], 0.5 / counts[-1.0])


def _typical(distance):
    """Median distance; copies are left out if they are the majority; 1 if all are copies."""
    median = float(np.median(distance))
    if median > SAME:
        return median
    apart = distance[distance > SAME]
    return float(np.median(apart)) if len(apart) else 1.0


def _members(groups):
    """Row numbers of every group (m,) that has more than one row."""
    order = np.argsort(groups, kind="stable")
    starts = np.flatnonzero(np.diff(groups[order])) + 1
    return [rows for rows in np.split(order, starts) if len(rows) > 1]


def _sums_of_signs(X, Y, weights):
    """The same as :func:`compiled.sums_of_signs`, without numba."""
    weights = torch.from_numpy(weights)
    sums = np.empty(X.shape, np.float32)
    columns = [torch.from_numpy(np.ascontiguousarray(rows.T, dtype=np.float32)) for rows in (X, Y)]
    for j, (here, there) in enumerate(zip(*columns, strict=True)):
        side = torch.sign(here[:, None] - there)  # (n, m)
        sums[:, j] = torch.einsum("nm,nm->n", weights, side).numpy()
    return sums


class KernelExpert:
    """Kernel ridge regression with exp(-|s * (x - x')| / width) and learned scales s (M11).

    Args:
        norm: "l2" or "l1".
        sees: name of the caller's input that it reads.
    """

    def __init__(self, norm, sees=None):
        self.norm = norm
        self.sees = sees

    def fit(self, X, y, rng, max_centres, leave_out, views=None):
        """Fit on labelled rows, with half of the weight on each class.

        Generated anomalies are not used: on yeast they cost .01 to .02 of AUC-ROC, as they disturb
        the kernels' local fit.

        Args:
            X: (n, d).
            y: (n,) labels.
            rng: numpy Generator that draws the centres from a large table.
            max_centres: most centres, at most half of them anomalies: bounds the m^3 of the fit
                and the m of scoring a row.
            leave_out: a :class:`cleaning.leave_out.LeaveOut`.
            views: a function from a fold's number to X as computed without that fold; None if X
                does not depend on other rows.

        Returns:
            (n,) left-out scores. By default every group of rows is left out of the one fit, in
            closed form; rows that are neither centres nor copies of one were never part of it.
            A separate fit without each fold is made with views; if rows are few for the columns (a
            row that is left out alone lies on the far side of its class's mean, which takes the
            AUC-ROC of meaningless labels to .38); and with subjects, whose rows are alike. In the
            last two cases each fit learns its own scales, as those of all rows know the labels of
            the left-out ones. If more than a tenth of so few rows are codes, no scales are learned:
            new rows would be copies of rows whose labels the scales know.
            If no known anomaly remains without a fold, its groups are left out of the one fit.
        """
        X = np.asarray(X)
        few = len(np.unique(leave_out.groups)) <= FEW_ROWS * X.shape[1]
        apart = few or leave_out.subjects is not None
        if apart:
            views = views or (lambda fold: X)
        scaled = not (few and leave_out.coded.mean() > CODED)
        rows, target = self._learn(X, y, rng, max_centres, scaled)
        predicted = self._choose_ridge(target, leave_out.groups[rows])
        folds = leave_out.folds
        # The folds without whose rows a known anomaly remains to learn from.
        possible = [fold for fold in np.unique(folds) if (target[folds[rows] != fold] > 0).any()]
        scores = np.empty(len(X))
        here = np.ones(len(X), dtype=bool) if views is None else ~np.isin(folds, possible)
        self._without_groups(scores, X, here, rows, predicted, leave_out.groups)
        if views is not None:
            learn = partial(type(self)._learn_scale, scaled=scaled, rng=rng) if apart else None
            self._without_folds(scores, target, rows, folds, possible, views, learn)
        return scores

    def _without_groups(self, scores, X, here, rows, predicted, groups):
        """Write the scores of the rows ``here`` (n,) bool by the one fit that leaves groups out.

        Centres get their left-out scores ``predicted`` (m,), other rows the fit's own scores.
        """
        others = np.setdiff1d(np.flatnonzero(here), rows)
        self._score_into(scores, X, others)
        # A row that is a copy of a centre gets that centre's left-out score.
        known, first = np.unique(groups[rows], return_index=True)
        place = np.searchsorted(known, groups[others]).clip(max=len(known) - 1)
        again = known[place] == groups[others]
        scores[others[again]] = predicted[first[place[again]]]
        scores[rows[here[rows]]] = predicted[here[rows]]

    def _learn(self, X, y, rng, max_centres, scaled):
        """Draw centres from rows X (n, d) with labels y (n,), and learn scales if ``scaled``.

        Returns the row numbers of the centres (m,) and their targets (m,).
        """
        anomalies = sample_of(np.flatnonzero(y == 1), max_centres // 2, rng)
        most = max_centres - len(anomalies)
        normals = sample_of(np.flatnonzero(y == 0), most, rng)
        rows = np.concatenate([normals, anomalies])
        self.centres = X[rows].astype(np.float64)
        target = np.where(y[rows] == 1, 1.0, -1.0)
        self._learn_scale(target, scaled, rng)
        return rows, target

    def _without_folds(self, scores, target, rows, folds, possible, views, learn=None):
        """Write the scores of each fold's rows by a fit to the centres of all other folds.

        Args:
            scores: (n,), written to.
            target: (m,) targets of the centres.
            rows: (m,) row numbers of the centres.
            folds: (n,) fold numbers.
            possible: the folds whose scores are written.
            views: see :meth:`fit`.
            learn: a function that learns a fit's scales from its own rows; None keeps the scales
                that were learned from all rows.
        """
        for fold in possible:
            X = views(fold)
            kept = folds[rows] != fold
            part = self._part_of(X[rows[kept]].astype(np.float64), kept)
            if learn is not None:
                learn(part, target[kept])
            part._solve(target[kept], self.ridge)
            part._score_into(scores, X, np.flatnonzero(folds == fold))

    def _part_of(self, centres, kept):
        """A copy of this expert on ``centres``, its own ``kept`` (m,) bool ones in some view."""
        part = copy.copy(self)
        part.centres = centres
        return part

    def _score_into(self, scores, X, rows):
        """Write the scores of the rows of X that ``rows`` numbers into ``scores``, in parts."""
        for some in np.array_split(rows, len(rows) // COPIED_ROWS + 1):
            scores[some] = self.score(X[some])

    def _distance(self, X):
        """Distances of rows X (n, d) to the centres under the feature scales: (n, m)."""
        return self._between(X * self.scale, self.centres * self.scale)

    def _between(self, rows, centres):
        """Distances of scaled rows (n, d) to scaled centres (m, d): (n, m)."""
        if self.norm == "l1":
            if available():
                return city_block_distances(rows, centres).astype(np.float64)
            return cdist(rows, centres, "cityblock")
        square = euclidean_distances(rows, centres, squared=True)
        # Cancellation leaves 1e-15 of the rows' squared length; its root is not small.
        size = np.square(rows).sum(1)[:, None] + np.square(centres).sum(1)
        square[square < CANCELLED * size] = 0.0
        return np.sqrt(square, out=square)

    def _kernel(self, distance):
        """exp(-distance / width), in place: (n, m)."""
        # torch's exp is vectorised.
        return torch.from_numpy(distance).mul_(-1 / self.width).exp_().numpy()

    def _own_kernel(self):
        """Kernel matrix (m, m) of the scaled centres; the bandwidth is their typical distance."""
        distance = self._distance(self.centres)
        self.width = _typical(distance)
        return self._kernel(distance)

    def _solve(self, target, ridge):
        """Set bandwidth and coefficients for targets (m,) of the centres."""
        kernel = self._own_kernel()
        kernel.flat[:: len(kernel) + 1] += ridge / balanced(target)
        self.alpha = cho_solve(cho_factor(kernel, overwrite_a=True, check_finite=False), target)

    def ridges(self, few):
        """The ridges to choose from; ``few``: whether few anomalies are known."""
        return RIDGES_OF_FEW if few else RIDGES

    def _choose_ridge(self, target, groups):
        """Set bandwidth, the ridge with the least weighted left-out error, and its coefficients.

        Returns the left-out scores (m,): each centre's by the fit without its group (m,).
        """
        K = self._own_kernel()
        weight = balanced(target)
        best = None
        together = _members(groups)
        small, middle, large = self.ridges(np.count_nonzero(target > 0) < FEW_KNOWN)
        for ridge in (middle, large, small):
            # If the large ridge is better than the middle one, the small one is worse than both.
            if ridge == small and best[1] == large:
                break
            system = K.copy()
            system.flat[:: len(K) + 1] += ridge / weight
            # C^-1 = M^T M for M the inverse of the Cholesky factor: a third of the work of C^-1.
            lower = cholesky(system, lower=True, overwrite_a=True, check_finite=False)
            factor, _ = dtrtri(lower, lower=1)
            alpha = factor.T @ (factor @ target)
            left_out = target - alpha / np.square(factor).sum(0)
            for some in together:
                block = factor[:, some].T @ factor[:, some]  # of C^-1
                left_out[some] = target[some] - np.linalg.solve(block, alpha[some])
            error = float(weight @ (target - left_out) ** 2)
            if best is None or error < best[0]:
                best = error, ridge, alpha, left_out
        _, self.ridge, self.alpha, left_out = best
        return left_out

    def _learn_scale(self, target, scaled, rng):
        """Set scales from a fit's mean squared gradient at some centres; ones if not ``scaled``."""
        self.scale = np.ones(self.centres.shape[1])
        if not scaled:
            return
        self._solve(target, SCALE_RIDGE)  # the ridge hardly matters to the scales
        at = self.centres[rng.permutation(len(self.centres))[:GRADIENT_ROWS]]
        distance = self._distance(at)  # (g, m)
        if self.norm == "l2":
            far = np.maximum(distance, 1e-9)
            K = self._kernel(distance) * self.alpha / far
            gradient = self.scale**2 * (at * K.sum(1, keepdims=True) - K @ self.centres)  # (g, d)
        else:
            K = (self._kernel(distance) * self.alpha).astype(np.float32)
            sums = sums_of_signs if available() else _sums_of_signs
            gradient = self.scale * sums(at, self.centres, K)  # (g, d)
        power = np.square(gradient).mean(0)
        self.scale = np.sqrt(np.maximum(power / max(power.max(), 1e-300), 1e-3))

    def score(self, X):
        """(n,) scores of rows (n, d), about -1 for normals and 1 for anomalies."""
        X = np.asarray(X, dtype=np.float64)
        centres = self.centres * self.scale
        if available():
            slope, squared = -1 / self.width, self.norm == "l2"
            return sums_of_kernels(X * self.scale, centres, self.alpha, slope, squared)
        scores = np.empty(len(X))
        for start in range(0, len(X), SCORED_ROWS):
            part = slice(start, start + SCORED_ROWS)
            distance = self._between(X[part] * self.scale, centres)
            scores[part] = self._kernel(distance) @ self.alpha
        return scores

    def snapshot(self):
        """The fit as arrays and plain values."""
        return dict(vars(self))

    @classmethod
    def from_snapshot(cls, saved):
        """Rebuild from :meth:`snapshot`; scores are equal to the bit."""
        older = "evidence" if saved.get("columns") else "ranks"
        self = cls(saved["norm"], saved.get("sees", older))
        for name in ("centres", "scale", "width", "ridge", "alpha"):
            setattr(self, name, saved[name])
        return self
