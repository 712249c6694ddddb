"""p-values against the training normals, and "known anomaly OR unlike normals" (M12).

# DIFF(paper): an addition; ``preset="paper"`` runs without it.

:class:`MergedPValue` turns several scores of a row into one p-value against the training normals'
own left-out scores. :func:`known_or_unlike` joins the experts' p-value and the one-class p-value.
"""

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

LEAST_SPREAD = 0.3  # of the normals' log-odds after calibration
LEAST_EXCESS = 0.02  # of a score's size, or of 1
SAME = 1e-4  # of the tail's mean excess
USUAL = 0.8  # an expert's left-out AUC-ROC before any anomaly is known
STRENGTH = 20  # how many anomalies that is worth
LEAST_LEAD = 0.15  # over chance; what lies below is alike, or weights would follow chance
SHARPNESS = 6  # of the experts' weights
GROWTH = 0.1  # of a bounded p-value, with the logarithm of what is beyond
FEWEST_THAT_TELL = 3  # known anomalies
HIDDEN_PER_KNOWN = 3  # hidden anomalies for each known one at which the one-class side has half
LEAST_SHARE = 0.001  # of the rows, hidden, that means something
TAIL = 0.1  # share of the normals beyond which the tail is taken for exponential


class TailPValue:
    """-log p of a one-class score against the training normals' own (left-out) scores.

    Empirical up to the normals' .9 quantile, straight between two of their scores; an exponential
    tail above it, so that new rows beyond every training normal still differ from each other.

    Args:
        scores: (m,) float64 different scores of the normals, ascending.
        minus_log: (m,) -log p at each of them.
        quantile: their .9 quantile.
        excess: mean excess of the scores above it.
    """

    def __init__(self, scores, minus_log, quantile, excess):
        self.scores = scores
        self.minus_log = minus_log
        self.quantile = quantile
        self.excess = excess

    @classmethod
    def fit(cls, scores):
        """From the normals' scores (n,)."""
        scores = np.sort(np.asarray(scores, dtype=np.float64))
        n = len(scores)
        quantile = float(np.quantile(scores, 1 - TAIL))
        above = scores[scores > quantile] - quantile
        # Where nearly all scores are equal rounding would be all that the tail tells apart.
        least = max(0.05 * scores.std(), LEAST_EXCESS * max(1.0, abs(quantile)))
        excess = float(max(above.mean() if len(above) else 0.0, least))
        # Scores that differ by rounding alone are one: no step where a last digit decides.
        same = np.rint((scores - quantile) / (SAME * excess))
        _, first, count = np.unique(same, return_index=True, return_counts=True)
        share = (n - first - 0.5 * count + 0.5) / (n + 1.0)  # at and above, ties half
        minus_log = -np.log(np.clip(share, TAIL, 1.0))
        return cls(scores[first], minus_log, quantile, excess)

    def __call__(self, scores):
        """(n,) scores to (n,) -log p >= 0."""
        scores = np.asarray(scores, dtype=np.float64)
        body = np.interp(np.minimum(scores, self.quantile), self.scores, self.minus_log)
        return body + np.maximum(scores - self.quantile, 0.0) / self.excess


class MergedPValue:
    """One p-value against the training normals from several scores of a row (M12).

    Every score becomes -log p by its own :class:`TailPValue`; their mean is turned into a p-value
    again.

    Args:
        each: a TailPValue for every score.
        weights: (m,) of the mean, positive.
        merged: the TailPValue of the mean; None until :meth:`fit` has it.
    """

    def __init__(self, each, weights, merged=None):
        self.each = each
        self.weights = weights
        self.merged = merged

    @classmethod
    def fit(cls, scores, weights=None):
        """From left-out scores (n_normals, m) of the training normals; no weights: equal ones."""
        weights = np.ones(scores.shape[1]) if weights is None else weights
        self = cls([TailPValue.fit(column) for column in scores.T], weights)
        self.merged = TailPValue.fit(self._mean(scores))
        return self

    def minus_log_p(self, scores):
        """(n, m) scores to (n,) -log p; larger is less like the normals."""
        return self.merged(self._mean(scores))

    def _mean(self, scores):
        each = [tail(column) for tail, column in zip(self.each, scores.T, strict=True)]
        return np.average(each, axis=0, weights=self.weights)

    def snapshot(self):
        """Arrays and plain values."""
        tails = [*self.each, self.merged]
        tails = [[tail.scores, tail.minus_log, tail.quantile, tail.excess] for tail in tails]
        return {"tails": tails, "weights": self.weights}

    @classmethod
    def from_snapshot(cls, saved):
        """Rebuild from :meth:`snapshot`."""
        if isinstance(saved, list):  # older checkpoints have tails alone, of equal weights
            saved = {"tails": saved, "weights": np.ones(len(saved) - 1)}
        *each, merged = (TailPValue(*values) for values in saved["tails"])
        return cls(each, saved["weights"], merged)


def weights_by_auc(scores, y, usual=USUAL):
    """Weights (m,) of experts by how well they tell the classes apart: (AUC-ROC - 1/2)^6.

    Several experts that are blind to a table's anomalies would else drown what one of them sees. Of
    few known anomalies the AUC-ROC is mostly chance: it is drawn towards a usual one.

    Args:
        scores: (n, m) left-out.
        y: (n,) labels, an anomaly among them.
        usual: their AUC-ROC before any anomaly is known, a number or (m,).
    """
    n_known = int((y == 1).sum())
    area = np.array([roc_auc_score(y, column) for column in scores.T])
    area = (n_known * area + STRENGTH * np.asarray(usual)) / (n_known + STRENGTH)
    return np.maximum(area - 0.5, LEAST_LEAD) ** SHARPNESS


def platt(scores, y):
    """Slope and intercept that make class-balanced log-odds of left-out scores (Platt 1999).

    Args:
        scores: (n,).
        y: (n,) labels.
    """
    scores = np.asarray(scores, dtype=np.float64)
    y = np.asarray(y)
    fit = LogisticRegression(C=1.0, class_weight="balanced").fit(scores[:, None], y)
    slope = float(fit.coef_[0, 0])
    intercept = float(fit.intercept_[0])
    least = LEAST_SPREAD / max(float(scores[y == 0].std()), 0.1 * LEAST_SPREAD)
    # A few left-out anomalies can look more normal than the normals: the order must not turn over.
    if slope < least:
        middle = float((scores[y == 0].mean() + scores[y == 1].mean()) / 2)
        intercept += (slope - least) * middle
        slope = least
    return slope, intercept


def shrunken_shape(minus_log_p, prior=0.2, strength=10.0):
    """The shape a of a p-value's density a p^(a - 1) under anomalies.

    -log p is then exponential with rate a, so that the estimate is conjugate. Where known anomalies
    look like normals, a nears 1: that side of :func:`known_or_unlike` fades.

    Args:
        minus_log_p: (m,) of the known anomalies, left out.
        prior: the shape before any anomaly is known.
        strength: how many anomalies the prior counts for.
    """
    minus_log_p = np.asarray(minus_log_p, dtype=np.float64)
    n = strength + len(minus_log_p)
    return float(min(0.95, n / (strength / prior + minus_log_p.sum())))


def known_or_unlike(known, unlike, weight, shapes):
    """log of a mixture of two likelihood ratios: (1 - w) a p^(a - 1) + w b u^(b - 1) (M12).

    Both p-values come from the normals' left-out scores: neither side can be surer than it was
    right about normals.

    Args:
        known: (n,) -log p, how improbable the experts' scores are for a normal row.
        unlike: (n,) -log u, the same of the one-class scores.
        weight: w, the prior share of anomalies unlike the known ones.
        shapes: (a, b), see :func:`shrunken_shape`.
    """
    first = likelihood_ratio(known, shapes[0])
    if weight == 0:
        return first
    second = likelihood_ratio(unlike, shapes[1])
    return np.logaddexp(np.log1p(-weight) + first, np.log(weight) + second)


def bounded(minus_log, n):
    """-log p (m,) as it is up to log n, and hardly growing beyond, so that rows keep an order.

    No n normals say that a row is rarer than one in n.
    """
    most = np.log(n)
    beyond = np.log1p(np.maximum(minus_log - most, 0.0))
    return np.minimum(minus_log, most) + GROWTH * beyond


def weight_of_unlike(weight, share, n_doubtful, n_known):
    """w of :func:`known_or_unlike` where anomalies hide that were recognised by their likeness.

    Where each known anomaly stands for several hidden ones, these are among the normals of the
    one-class side, which passes over them, and the kinds that are known are what the table has.

    Args:
        weight: w where none hide.
        share: of the doubtful rows, estimated to hide, see :func:`cleaning.suspects.hidden_share`.
        n_doubtful: how many these are.
        n_known: known anomalies; fewer than three tell nothing of how many hide.
    """
    if n_known < FEWEST_THAT_TELL:
        return weight
    for_each = share * n_doubtful / n_known
    # Of a long table a share that means nothing would be many rows.
    return weight / (1 + min(for_each / HIDDEN_PER_KNOWN, share / LEAST_SHARE) ** 2)


def likelihood_ratio(minus_log, shape):
    """log of a p^(a - 1), of -log p (n,) and the shape a: (n,)."""
    return np.log(shape) + (1 - shape) * np.asarray(minus_log, dtype=np.float64)
