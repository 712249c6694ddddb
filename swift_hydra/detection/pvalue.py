"""p-values against the training normals, and "known anomaly OR unlike normals" (M12).

# DIFF(paper): an addition; ``preset="paper"`` runs without it.

:class:`MergedPValue` turns several scores of a row into one p-value against the left-out scores of
the training normals. :func:`known_or_unlike` joins the experts' p-value and the one-class p-value.
"""

import numpy as np
from scipy.special import expit, gammainc, gammaln, logit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

LEAST_SPREAD = 0.3  # least standard deviation of the normals' calibrated log-odds
LEAST_EXCESS = 0.02  # least mean excess of a tail, in units of the .9 quantile or of 1
SAME = 1e-4  # scores that differ by less, in units of the mean excess, are equal
USUAL = 0.8  # prior of an expert's left-out AUC-ROC
STRENGTH = 20  # known anomalies that this prior counts for
PRIOR_SHAPE = 0.2  # prior of the shape of a p-value's density under anomalies
SHAPE_STRENGTH = 5.0  # known anomalies that this prior counts for
ANY_SHAPE = 0.1  # prior probability that all shapes from 0 to 1 are equally likely instead
MOST_SHAPE = 0.95  # some order remains
UNKNOWN_KINDS = 0.3  # share of the anomalies unlike the known ones of which these tell nothing
LEAST_LEAD = 0.15  # AUC-ROC over chance; all lower ones are equal, or chance would set the weights
SHARPNESS = 6  # exponent of the experts' weights
EM_STEPS = 20  # more change the weight by .005, seldom by .03
GROWTH = 0.1  # slope of a bounded -log p beyond its bound, in log(1 + excess)
FEWEST_THAT_TELL = 3  # known anomalies
HIDDEN_PER_KNOWN = 3  # hidden anomalies per known one that halve the one-class side's weight
LEAST_SHARE = 0.001  # so small a share of hidden anomalies at most halves it
ALONE = 2.0  # exponent of the mean where no anomaly says which scores see it
TAIL = 0.1  # share of the normals that is taken for an exponential tail


class TailPValue:
    """-log p of a score against the left-out scores of the training normals.

    Empirical up to the normals' .9 quantile, with linear interpolation between their scores; above
    it an exponential tail, so that new rows beyond every training normal still differ.

    Args:
        scores: (m,) float64 distinct scores of the normals, ascending.
        minus_log: (m,) -log p at each of them.
        quantile: the .9 quantile of the normals' scores.
        excess: mean excess of the scores above it.
    """

    def __init__(self, scores, minus_log, quantile, excess):
        self.scores = scores
        self.minus_log = minus_log
        self.quantile = quantile
        self.excess = excess

    @classmethod
    def fit(cls, scores):
        """Fit to the normals' scores (n,)."""
        scores = np.sort(np.asarray(scores, dtype=np.float64))
        n = len(scores)
        quantile = float(np.quantile(scores, 1 - TAIL))
        above = scores[scores > quantile] - quantile
        # If nearly all scores are equal, the tail would separate rounding errors alone.
        least = max(0.05 * scores.std(), LEAST_EXCESS * max(1.0, abs(quantile)))
        excess = float(max(above.mean() if len(above) else 0.0, least))
        # Scores that differ by rounding alone are merged: the last digit must not change p.
        same = np.rint((scores - quantile) / (SAME * excess))
        _, first, count = np.unique(same, return_index=True, return_counts=True)
        share = (n - first - 0.5 * count + 0.5) / (n + 1.0)  # at or above; ties count half
        minus_log = -np.log(np.clip(share, TAIL, 1.0))
        return cls(scores[first], minus_log, quantile, excess)

    def __call__(self, scores):
        """(n,) scores to (n,) -log p >= 0."""
        scores = np.asarray(scores, dtype=np.float64)
        body = np.interp(np.minimum(scores, self.quantile), self.scores, self.minus_log)
        return body + np.maximum(scores - self.quantile, 0.0) / self.excess

    def snapshot(self):
        """The arguments, as a list."""
        return [self.scores, self.minus_log, self.quantile, self.excess]


class MergedPValue:
    """One p-value against the training normals from several scores of a row (M12).

    A :class:`TailPValue` of its own turns every score into -log p; another one turns the weighted
    mean of these into -log p.

    Args:
        each: a TailPValue for every score.
        weights: (m,) weights of the mean; 0 for a score that is not used.
        merged: the TailPValue of the mean; None until :meth:`fit` sets it.
        exponent: of a power mean. Beyond 1 the larger of several values count more, so that scores
            that are blind to an anomaly hide less of what one of them sees.
    """

    def __init__(self, each, weights, merged=None, exponent=1.0):
        self.each = each
        self.weights = weights
        self.merged = merged
        self.exponent = exponent

    @classmethod
    def fit(cls, scores, weights=None, exponent=1.0):
        """Fit to left-out scores (n_normals, m) of the training normals; None: equal weights."""
        weights = np.ones(scores.shape[1]) if weights is None else weights
        each = [TailPValue.fit(column) for column in scores.T]
        self = cls(each, weights, exponent=exponent if len(each) > 1 else 1.0)
        self.merged = TailPValue.fit(self._mean(scores))
        return self

    def minus_log_p(self, scores):
        """(n, m) scores to (n,) -log p; larger means less like the normals."""
        return self.merged(self._mean(scores))

    def _mean(self, scores):
        each = [tail(column) for tail, column in zip(self.each, scores.T, strict=True)]
        if self.exponent == 1:
            return np.average(each, axis=0, weights=self.weights)
        powers = np.power(each, self.exponent)
        return np.average(powers, axis=0, weights=self.weights) ** (1 / self.exponent)

    def snapshot(self):
        """Arrays and plain values."""
        tails = [tail.snapshot() for tail in (*self.each, self.merged)]
        return {"tails": tails, "weights": self.weights, "exponent": self.exponent}

    @classmethod
    def from_snapshot(cls, saved):
        """Rebuild from :meth:`snapshot`."""
        if isinstance(saved, list):  # older checkpoints hold tails alone; weights were equal
            saved = {"tails": saved, "weights": np.ones(len(saved) - 1)}
        *each, merged = (TailPValue(*values) for values in saved["tails"])
        return cls(each, saved["weights"], merged, saved.get("exponent", 1.0))


def weights_by_auc(scores, y, usual=USUAL, strength=STRENGTH):
    """Weights (m,) of experts by how well they separate the classes: (AUC-ROC - 1/2)^6.

    With equal weights, several experts that are blind to a table's anomalies would hide what one
    expert sees. With few known anomalies the AUC-ROC is mostly chance, so it is shrunk to a prior.

    Args:
        scores: (n, m) left-out scores.
        y: (n,) labels with at least one anomaly.
        usual: prior of the AUC-ROC, a number or (m,).
        strength: known anomalies that this prior counts for, a number or (m,).
    """
    n_known = int((y == 1).sum())
    area = np.array([roc_auc_score(y, column) for column in scores.T])
    strength = np.asarray(strength)
    area = (n_known * area + strength * np.asarray(usual)) / (n_known + strength)
    return np.maximum(area - 0.5, LEAST_LEAD) ** SHARPNESS


def platt(scores, y):
    """Slope and intercept that turn left-out scores into class-balanced log-odds (Platt 1999).

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
    # A few left-out anomalies can look more normal than the normals: the slope must stay positive.
    if slope < least:
        middle = float((scores[y == 0].mean() + scores[y == 1].mean()) / 2)
        intercept += (slope - least) * middle
        slope = least
    return slope, intercept


def shrunken_shape(minus_log_p):
    """Estimate of the shape a of a p-value's density a p^(a - 1) under anomalies.

    -log p is then exponential with rate a. A gamma prior expects ``PRIOR_SHAPE``. It nearly rules
    out 1: of 22 anomalies that rank as normals do it would still make .6, and a side that says
    nothing of this table's anomalies would go on ranking rows. So a uniform prior from 0 to 1
    stands beside it, and each counts as probable as it is after the known anomalies (Bayesian model
    averaging). If these look like normals, a nears 1, and that side of :func:`known_or_unlike`
    loses its influence.

    Args:
        minus_log_p: (m,) left-out -log p of the known anomalies.
    """
    m, total = len(minus_log_p), float(np.sum(minus_log_p))
    shape, rate = SHAPE_STRENGTH + m, SHAPE_STRENGTH / PRIOR_SHAPE
    expected = shape / (rate + total)
    if m == 0:
        return expected
    total = max(total, m)  # of those that rank below the normals, too, the p-value says nothing
    log_gamma = SHAPE_STRENGTH * np.log(rate) - shape * np.log(rate + total)
    log_gamma += gammaln(shape) - gammaln(SHAPE_STRENGTH)
    mass = gammainc(m + 1, total)
    log_uniform = gammaln(m + 1) + np.log(mass) - (m + 1) * np.log(total)
    uniform = (m + 1) / total * gammainc(m + 2, total) / mass  # mean shape after that prior
    part = expit(np.log(ANY_SHAPE / (1 - ANY_SHAPE)) + log_uniform - log_gamma)
    averaged = (1 - part) * expected + part * uniform
    # The uniform prior may take a side's say, it must not make the side surer.
    return float(min(MOST_SHAPE, max(averaged, expected)))


def known_or_unlike(known, unlike, weight, shapes, unknown_kinds=0.0):
    """log of a mixture of two likelihood ratios: (1 - w) a p^(a - 1) + w b u^(b - 1) (M12).

    Both p-values come from the normals' left-out scores: a side that is often wrong about normals
    cannot be confident.

    How unlike the normals the known anomalies are is a guess of how unlike other kinds are. If the
    known ones look like normals, other kinds may still be far out. So a part of the second ratio
    keeps the shape that is usual.

    Args:
        known: (n,) -log p, how improbable the experts' scores are for a normal row.
        unlike: (n,) -log u, the same for the one-class scores.
        weight: w, the prior share of anomalies unlike the known ones.
        shapes: (a, b), see :func:`shrunken_shape`.
        unknown_kinds: share of the second ratio whose shape is ``PRIOR_SHAPE`` in place of b.
    """
    if weight == 0:
        return likelihood_ratio(known, shapes[0])
    first, second = _two_ratios(known, unlike, shapes, unknown_kinds)
    return np.logaddexp(np.log1p(-weight) + first, np.log(weight) + second)


def _two_ratios(known, unlike, shapes, unknown_kinds):
    """Logarithms of the likelihood ratios that :func:`known_or_unlike` mixes, (n,) each."""
    first, second = map(likelihood_ratio, (known, unlike), shapes)
    if unknown_kinds:
        usual = np.log(unknown_kinds) + likelihood_ratio(unlike, PRIOR_SHAPE)
        second = np.logaddexp(np.log1p(-unknown_kinds) + second, usual)
    return first, second


def raised_weight(known, unlike, weight, shapes, unknown_kinds):
    """w of :func:`known_or_unlike`, raised if the known anomalies are told by being unlike.

    The most probable share of the second ratio (expectation maximisation), where w counts like
    ``SHAPE_STRENGTH`` known anomalies. It is not lowered: that the experts tell the known kinds
    says nothing of others.

    Args:
        known, unlike: (m,) left-out -log p and -log u of the known anomalies.
        weight: w without them; 0 stays.
        shapes, unknown_kinds: see :func:`known_or_unlike`.
    """
    if not 0 < weight < 1:
        return weight
    first, second = _two_ratios(known, unlike, shapes, unknown_kinds)
    share = weight
    for _ in range(EM_STEPS):
        told = expit(logit(share) + second - first)  # (m,) the probability that the second does
        share = (SHAPE_STRENGTH * weight + told.sum()) / (SHAPE_STRENGTH + len(told))
    return max(weight, float(share))


def bounded(minus_log, n):
    """-log p (m,), unchanged up to log n and growing slowly beyond, so that rows keep their order.

    From n normals nobody can tell that a row is rarer than one in n.
    """
    most = np.log(n)
    beyond = np.log1p(np.maximum(minus_log - most, 0.0))
    return np.minimum(minus_log, most) + GROWTH * beyond


def weight_of_unlike(weight, share, n_doubtful, n_known):
    """w of :func:`known_or_unlike`, lowered if anomalies are hidden among the normals.

    If several hidden anomalies were found for each known one by their likeness to it, the one-class
    side has seen such rows as normals and overlooks them, and the table's anomalies seem to be of
    the known kinds.

    Args:
        weight: w without hidden anomalies.
        share: estimated share of hidden anomalies among the doubtful rows, see
            :func:`cleaning.suspects.hidden_share`.
        n_doubtful: number of doubtful rows.
        n_known: number of known anomalies; from fewer than three the share cannot be estimated.
    """
    if n_known < FEWEST_THAT_TELL:
        return weight
    for_each = share * n_doubtful / n_known
    # In a long table, even a negligible share is many rows for each known anomaly.
    return weight / (1 + min(for_each / HIDDEN_PER_KNOWN, share / LEAST_SHARE) ** 2)


def likelihood_ratio(minus_log, shape):
    """log(a p^(a - 1)) from -log p (n,) and the shape a: (n,)."""
    return np.log(shape) + (1 - shape) * np.asarray(minus_log, dtype=np.float64)
