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
from sklearn.linear_model import LogisticRegression

LEAST_SPREAD = 0.3  # of the normals' log-odds after calibration


class TailPValue:
    """-log p of a one-class score against the training normals' own (left-out) scores.

    Empirical up to the normals' .9 quantile, an exponential tail above it, so that new rows beyond
    every training normal still differ from each other.
    """

    def __init__(self, scores=None):
        if scores is not None:
            self.sorted = np.sort(np.asarray(scores, dtype=np.float64))
            self.quantile = float(np.quantile(self.sorted, 0.9))
            above = self.sorted[self.sorted > self.quantile] - self.quantile
            self.excess = float(
                max(above.mean() if len(above) else 0.0, 1e-6 * max(1.0, abs(self.quantile)))
            )

    def __call__(self, scores):
        """(n,) scores to (n,) -log p >= 0."""
        scores = np.asarray(scores, dtype=np.float64)
        n = len(self.sorted)
        below = np.searchsorted(self.sorted, scores, side="left")
        body = -np.log(np.clip((n - below + 0.5) / (n + 1.0), 0.1, 1.0))
        tail = -np.log(0.1) + (scores - self.quantile) / self.excess
        return np.where(scores > self.quantile, tail, body)


class MergedPValue:
    """One p-value against the training normals from several scores of a row (M12).

    Every score becomes -log p by its own :class:`TailPValue`; their mean is turned into a p-value
    again.
    """

    def fit(self, scores):
        """scores: (n_normals, m) left-out scores of the training normals."""
        self.each = [TailPValue(column) for column in scores.T]
        self.merged = TailPValue(self._mean(scores))
        return self

    def _mean(self, scores):
        return np.mean(
            [tail(column) for tail, column in zip(self.each, scores.T, strict=True)], axis=0
        )

    def minus_log_p(self, scores):
        """(n, m) scores to (n,) -log p; larger is less like the normals."""
        return self.merged(self._mean(scores))

    def state(self):
        return [[t.sorted, t.quantile, t.excess] for t in [*self.each, self.merged]]

    @classmethod
    def from_state(cls, state):
        self, tails = cls(), []
        for values in state:
            tail = TailPValue()
            tail.sorted, tail.quantile, tail.excess = values
            tails.append(tail)
        self.each, self.merged = tails[:-1], tails[-1]
        return self


def platt(scores, y):
    """Slope and intercept that turn left-out scores into class-balanced log-odds (Platt 1999)."""
    scores, y = np.asarray(scores, dtype=np.float64), np.asarray(y)
    fit = LogisticRegression(C=1.0, class_weight="balanced").fit(scores[:, None], y)
    slope, intercept = float(fit.coef_[0, 0]), float(fit.intercept_[0])
    least = LEAST_SPREAD / max(float(scores[y == 0].std()), 1e-6)
    if (
        slope < least
    ):  # a few left-out anomalies can look more normal than the normals: the order must not turn over
        intercept += (slope - least) * float((scores[y == 0].mean() + scores[y == 1].mean()) / 2)
        slope = least
    return slope, intercept


def shrunken_shape(minus_log_p, prior=0.2, strength=10.0):
    """The shape a of a p-value's density a p^(a - 1) under anomalies, from the known ones' left-out
    -log p, (m,).

    -log p is then exponential with rate a, so that the estimate is conjugate, with ``strength``
    pseudo-anomalies at the prior. Where known anomalies look like normals, a nears 1: that side of
    :func:`known_or_unlike` fades.
    """
    minus_log_p = np.asarray(minus_log_p, dtype=np.float64)
    return float(min(0.95, (strength + len(minus_log_p)) / (strength / prior + minus_log_p.sum())))


def known_or_unlike(known, unlike, weight, shapes):
    """log of a mixture of two likelihood ratios: (1 - w) a p^(a - 1) + w b u^(b - 1) (M12).

    Args:
        known: (n,) -log p, how improbable the experts' scores are for a normal row.
        unlike: (n,) -log u, the same of the one-class scores.
        weight: w, the prior share of anomalies unlike the known ones.
        shapes: (a, b), see :func:`shrunken_shape`.

    Both p-values come from the normals' left-out scores: neither side can be surer than it was
    right about normals.
    """
    sides = [
        np.log(shape) + (1 - shape) * np.asarray(minus_log, dtype=np.float64)
        for shape, minus_log in zip(shapes, (known, unlike), strict=True)
    ]
    if weight == 0:
        return sides[0]
    return np.logaddexp(np.log1p(-weight) + sides[0], np.log(weight) + sides[1])
