"""Closed-form experts beside the Mamba experts (M11): kernel ridge on balanced +-1 targets.

# DIFF(paper): an addition; with ``preset="paper"`` only M13 uses them.

With C = K + ridge W^-1 (K the kernel matrix, W the row weights), alpha = C^-1 y solves the weighted
ridge problem, and y_i - alpha_i / (C^-1)_ii is the prediction for row i by the fit without row i,
for a group g of rows y_g - (C^-1)_gg^-1 alpha_g: the left-out scores that calibration needs cost
nothing. Feature weights follow Radhakrishnan et al., "Mechanism for feature learning in neural
networks and backpropagation-free machine learning models" (Science 2024), in diagonal form: fit,
weigh every feature by the root of its mean squared gradient, fit again.

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

RIDGES = (0.03, 0.3, 3.0)
FEW_KNOWN = 8  # of fewer anomalies each weighs so much that the largest ridge would hardly smooth
RIDGES_OF_FEW = (0.03, 0.3, 10.0)
SCALE_RIDGE = 0.3  # while scales are learned
CANCELLED = 1e-13  # of the squared length of two rows
SAME = 1e-6  # standard deviations: rows nearer than that are copies
GRADIENT_ROWS = 400  # centres at which the gradient is taken
FEW_ROWS = 50  # times the columns: of fewer rows scales of all of them know each one's label
CODED = 0.1  # of few rows, from which share of codes on there are no scales
SCORED_ROWS = 256  # scored at a time: their distances stay in the processor's cache
COPIED_ROWS = 65536  # training rows scored at a time: a copy of all of them could be gigabytes


def _balanced(target):
    """Row weights of +-1 targets (m,): the classes weigh half each, 1 on average."""
    counts = {label: max((target == label).sum(), 1) for label in (-1.0, 1.0)}
    return len(target) * np.where(target > 0, 0.5 / counts[1.0], 0.5 / counts[-1.0])


def _typical(distance):
    """Median distance, of rows that are no copies where most are; 1 where all are."""
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
    """What :func:`compiled.sums_of_signs` gives where nothing is compiled."""
    weights = torch.from_numpy(weights)
    sums = np.empty(X.shape, np.float32)
    columns = [torch.from_numpy(np.ascontiguousarray(rows.T, dtype=np.float32)) for rows in (X, Y)]
    for j, (here, there) in enumerate(zip(*columns, strict=True)):
        side = torch.sign(here[:, None] - there)  # (n, m)
        sums[:, j] = torch.einsum("nm,nm->n", weights, side).numpy()
    return sums


class KernelExpert:
    """exp(-|s * (x - x')| / width) with learned feature scales s (M11).

    Args:
        norm: "l2" or "l1".
        sees: name of those of its caller's inputs that it reads.
    """

    def __init__(self, norm, sees=None):
        self.norm = norm
        self.sees = sees

    def fit(self, X, y, rng, max_centres, left_out, views=None):
        """Fit on rows with labels; the classes weigh half each.

        Generated anomalies stay out: they cost .01 to .02 of AUC-ROC on yeast, where they meet the
        kernels' local fit.

        Args:
            X: (n, d).
            y: (n,) labels.
            rng: numpy Generator that draws the centres of a large table.
            max_centres: most centres, at most half of them anomalies: bounds the m^3 of the fit
                and the m of scoring a row.
            left_out: a :class:`cleaning.leave_out.LeaveOut`.
            views: a function from a fold's number to X as it looks without that fold; None where X
                does not depend on other rows.

        Returns:
            (n,) scores of the rows by fits that left them out. Without views every group of rows is
            left out of the one fit, in closed form; rows beyond the centres, and not copies of any,
            were never part of it.
            With views there is a fit without each fold. So there is where rows are few for the
            columns: the others of a class lie away from one that is left out alone, which takes an
            AUC-ROC of labels without meaning to .38. And where several rows were measured of one
            subject: those beyond the centres are told by others of it. Scales are learned again in
            each such fit: those of all rows would know the labels of the ones that are left out.
            Where more than a tenth of so few rows are codes there are none: new rows are copies of
            those whose labels the scales know.
            A fold without which no anomaly is known has nothing to be told by: there, too, groups
            are left out of the one fit.
        """
        X = np.asarray(X)
        few = len(np.unique(left_out.groups)) <= FEW_ROWS * X.shape[1]
        apart = few or left_out.subjects is not None
        if apart:
            views = views or (lambda fold: X)
        scaled = not (few and left_out.coded.mean() > CODED)
        rows, target = self._learn(X, y, rng, max_centres, scaled)
        predicted = self._choose_ridge(target, left_out.groups[rows])
        folds = left_out.folds
        told = [fold for fold in np.unique(folds) if (target[folds[rows] != fold] > 0).any()]
        scores = np.empty(len(X))
        here = np.ones(len(X), dtype=bool) if views is None else ~np.isin(folds, told)
        self._without_groups(scores, X, here, rows, predicted, left_out.groups)
        if views is not None:
            learn = partial(type(self)._learn_scale, scaled=scaled, rng=rng) if apart else None
            self._without_folds(scores, target, rows, folds, told, views, learn)
        return scores

    def _without_groups(self, scores, X, here, rows, predicted, groups):
        """Write scores of the rows ``here`` (n,) by the one fit that leaves groups out.

        Those of the centres are ``predicted`` (m,), those of other rows the fit's.
        """
        others = np.setdiff1d(np.flatnonzero(here), rows)
        self._score_into(scores, X, others)
        # A row beyond the centres whose copy is one has that one's score.
        known, first = np.unique(groups[rows], return_index=True)
        place = np.searchsorted(known, groups[others]).clip(max=len(known) - 1)
        again = known[place] == groups[others]
        scores[others[again]] = predicted[first[place[again]]]
        scores[rows[here[rows]]] = predicted[here[rows]]

    def _learn(self, X, y, rng, max_centres, scaled):
        """Centres from rows X (n, d) with labels; where ``scaled``, scales of the columns.

        Returns numbers of the centres' rows (m,) and their targets.
        """
        anomalies = np.sort(rng.permutation(np.flatnonzero(y == 1))[: max_centres // 2])
        most = max_centres - len(anomalies)
        normals = np.sort(rng.permutation(np.flatnonzero(y == 0))[:most])
        rows = np.concatenate([normals, anomalies])
        self.centres = X[rows].astype(np.float64)
        target = np.where(y[rows] == 1, 1.0, -1.0)
        self._learn_scale(target, scaled, rng)
        return rows, target

    def _without_folds(self, scores, target, rows, folds, told, views, learn=None):
        """Write the scores of the rows of each fold by a fit to the centres of all others.

        Args:
            scores: (n,), written to.
            target: (m,) of the centres.
            rows: (m,) numbers of the centres' rows.
            folds: (n,).
            told: the folds that are written.
            views: see :meth:`fit`.
            learn: finds a fit's scales from its own rows; None: those of all rows.
        """
        for fold in told:
            X = views(fold)
            kept = folds[rows] != fold
            part = self._part_of(X[rows[kept]].astype(np.float64), kept)
            if learn is not None:
                learn(part, target[kept])
            part._solve(target[kept], self.ridge)
            part._score_into(scores, X, np.flatnonzero(folds == fold))

    def _part_of(self, centres, kept):
        """A copy of itself with the centres that are ``kept`` (m,) bool, as they look there."""
        part = copy.copy(self)
        part.centres = centres
        return part

    def _score_into(self, scores, X, rows):
        """Write the scores of numbered rows of X into ``scores``, part by part."""
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
        # What cancels leaves 1e-15 of the rows' size, whose root would be no small distance.
        size = np.square(rows).sum(1)[:, None] + np.square(centres).sum(1)
        square[square < CANCELLED * size] = 0.0
        return np.sqrt(square, out=square)

    def _kernel(self, distance):
        """exp(-distance / width), in place: (n, m)."""
        # torch's exp has vector instructions.
        return torch.from_numpy(distance).mul_(-1 / self.width).exp_().numpy()

    def _own_kernel(self):
        """Kernel of the centres (m, m) under the scales; their typical distance is its width."""
        distance = self._distance(self.centres)
        self.width = _typical(distance)
        return self._kernel(distance)

    def _solve(self, target, ridge):
        """Width and coefficients for targets (m,) of the centres."""
        kernel = self._own_kernel()
        kernel.flat[:: len(kernel) + 1] += ridge / _balanced(target)
        self.alpha = cho_solve(cho_factor(kernel, overwrite_a=True, check_finite=False), target)

    def ridges(self, few):
        """Those of which the best is chosen; ``few``: anomalies are."""
        return RIDGES_OF_FEW if few else RIDGES

    def _choose_ridge(self, target, groups):
        """Width, and coefficients for the ridge with the least weighted left-out error.

        Returns the left-out scores (m,): each row's by the fit without its group (m,).
        """
        K = self._own_kernel()
        weight = _balanced(target)
        best = None
        together = _members(groups)
        small, middle, large = self.ridges(np.count_nonzero(target > 0) < FEW_KNOWN)
        for ridge in (middle, large, small):
            # Where the large one is better than the middle, the small one is worse than both.
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
        """Scales from a fit's mean squared gradient at some centres; ones if not ``scaled``."""
        self.scale = np.ones(self.centres.shape[1])
        if not scaled:
            return
        self._solve(target, SCALE_RIDGE)  # which ridge is best hardly matters to the scales
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
            given = (centres, self.alpha, -1 / self.width, self.norm == "l2")
            return sums_of_kernels(X * self.scale, *given)
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
