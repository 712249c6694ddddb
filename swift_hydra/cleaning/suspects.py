"""Which rows without a known anomaly are probably unlabelled (hidden) anomalies (M13).

# DIFF(paper): an addition. The paper takes every unlabelled row for normal; if some of these are
anomalies, all models that learn from them as normal learn the wrong thing.

Two measures of suspicion, neither of which has learned from the row: the left-out score of the
closed-form experts (is the row like the known anomalies?), and the distance to the nearest known
anomaly, relative to the row's own distance to its neighbours. The rows with the largest sum of both
are set aside. They are not used as anomalies either (that did harm): nothing learns from them. How
many are set aside depends on how the known anomalies' own left-out scores rank among the scores of
the rows. Without hidden anomalies, hardly any row ranks above half of the known ones, so that clean
tables keep their rows. If the known anomalies rank like any other row, none is set aside.

If no anomaly is known, the rows that lie farthest from the others are set aside, a fixed share.

Shapes: n rows, d features.
"""

from typing import NamedTuple

import numpy as np

from swift_hydra.cleaning.kernel_expert import KernelExpert
from swift_hydra.cleaning.leave_out import LeaveOut
from swift_hydra.data.subjects import from_zero_beside
from swift_hydra.geometry import ROUNDING, Neighbours, copies
from swift_hydra.seeds import sample_of, stage_rng

PRIOR = 0.05  # share of hidden anomalies before anything is known
IN_COMPANY = 0.15  # with a smaller :func:`company`, the prior is reduced in proportion
NEAREST = 5  # neighbours that :func:`company` looks at
STRENGTH = 5  # known anomalies that the prior counts for
TELLING = (0.6, 0.75)  # AUC of the known anomalies at which the estimate is worth nothing, and all
FARTHEST = 0.15  # share of rows set aside if no anomaly is known; too many cost little
HIGHEST = 8  # one in so many known anomalies, the highest, does not tell how many are hidden
APART = (0.8, 0.9)  # AUC against normals at which known anomalies overlap with them, and do not
MOST = 0.4  # largest share of the doubtful rows that is set aside
LEAST_KEPT = 5  # rows without a known anomaly that are kept at least
NEIGHBOURHOOD = 0.05  # share of the rows that are a row's own neighbourhood
# The same if no anomaly is known. Hidden anomalies of one kind, a tenth of the rows, must not fill
# more than half of it, or they would seem the most normal of all rows.
UNKNOWN = 0.2
REFERENCE = 4096  # most reference rows; a larger table is sampled
CENTRES = 800  # most centres of each closed-form expert
FOLDS = 4
NORMS = ("l2", "l1")  # of the closed-form experts
LOOKS = ("likeness", "nearness")  # to the known anomalies: left-out scores, ratio of distances


class Cleaned(NamedTuple):
    """Which rows remain to learn from."""

    kept: np.ndarray  # (n,) bool, False for the rows that are set aside
    share: float  # estimated share of hidden anomalies among the doubtful rows
    coded: np.ndarray | None  # (n,) see :class:`cleaning.leave_out.LeaveOut`; None: not looked at
    # (2, n) see :meth:`cleaning.leave_out.LeaveOut.stand_for`, if no anomaly is known
    stand_for: np.ndarray | None = None


class AsideRows(NamedTuple):
    """Rows that were set aside: nothing learns from them but how isolated rows are."""

    Z: np.ndarray  # (m, d) standardised
    coded: np.ndarray  # (m,) bool, see :class:`cleaning.leave_out.LeaveOut`
    subjects: np.ndarray | None  # (m,) numbered like those of the kept rows
    # (2, m) how many fresh rows each stands for, by its left-out score and by the detector's own;
    # None: one, by the first
    stand_for: np.ndarray | None = None

    @classmethod
    def of(cls, Z, subjects, cleaned):
        """The rows of Z (n, d) that :func:`set_aside` found, which returned ``cleaned``."""
        aside = ~cleaned.kept
        beside = from_zero_beside(subjects, cleaned.kept, aside)
        stand_for = None if cleaned.stand_for is None else cleaned.stand_for[:, aside]
        return cls(Z[aside], cleaned.coded[aside], beside, stand_for)


def in_doubt(y, trust_normals):
    """(n,) bool: the rows that might be hidden anomalies; labels y are as in :func:`set_aside`."""
    return y == -1 if trust_normals else y != 1


def set_aside(Z, y, subjects, seed, trust_normals=False, looks=LOOKS):
    """Find the rows that are probably hidden anomalies.

    Args:
        Z: (n, d) standardised rows.
        y: (n,) labels: 1 known anomaly, 0 taken for normal, -1 unlabelled.
        subjects: (n,) the subject each row was measured on, numbered from 0; None: every row has
            its own.
        seed: the run's seed.
        trust_normals: keep all rows labelled 0, whatever they look like.
        looks: the measures in ``LOOKS`` that decide if anomalies are known; one alone is an
            ablation.

    Returns:
        :class:`Cleaned`.
    """
    kept = np.ones(len(y), dtype=bool)
    doubtful = np.flatnonzero(in_doubt(y, trust_normals))
    known = y == 1
    most = min(int(MOST * len(doubtful)), int((~known).sum()) - LEAST_KEPT)
    if most < 1:
        return Cleaned(kept, 0.0 if known.any() or not len(doubtful) else PRIOR, None)
    leave_out = LeaveOut(Z, known.astype(np.int64), FOLDS, seed, subjects)
    rng = stage_rng(seed, "cleaning/reference")
    others = OtherRows(Z, sample_of(np.flatnonzero(~known), REFERENCE, rng), leave_out)
    prior = PRIOR
    if known.any():
        suspicion = _like_known(Z, known, others, leave_out, seed, looks)
        prior *= min(1.0, others.company(known) / IN_COMPANY)
    else:
        suspicion = np.log(others.own_distance(UNKNOWN) + 1e-9)
    share = hidden_share(suspicion[doubtful], suspicion[known], prior)
    number = min(round((share if known.any() else FARTHEST) * len(doubtful)), most)
    # Rows that tie at the bound are all kept: their order in the table must not matter.
    bound = np.partition(suspicion[doubtful], -number - 1)[-number - 1]
    kept[doubtful[suspicion[doubtful] > bound]] = False
    return Cleaned(kept, share, leave_out.coded, None if known.any() else leave_out.stand_for())


class OtherRows:
    """The rows without a known anomaly, with which each row is compared (itself left out).

    Args:
        Z: (n, d) all rows.
        reference: row numbers of the reference rows among them.
        leave_out: a :class:`cleaning.leave_out.LeaveOut` of all rows.
    """

    def __init__(self, Z, reference, leave_out):
        self.Z = Z
        self.reference = reference
        self.neighbours = Neighbours(Z[reference])
        self.coded = leave_out.coded[reference]
        self.subjects = leave_out.subjects

    def groups(self, rows, reference):
        """Subjects of rows and of reference rows, for :meth:`geometry.Neighbours.mean_distance`."""
        return None if self.subjects is None else (self.subjects[rows], self.subjects[reference])

    def own_distance(self, share=NEIGHBOURHOOD):
        """Mean distance of every row to the nearest others, a ``share`` of the reference: (n,)."""
        k = max(5, int(share * len(self.reference)))
        groups = self.groups(slice(None), self.reference)
        how = {"others": True, "nothing": 0.0, "coded": self.coded, "groups": groups}
        return self.neighbours.mean_distance(self.Z, k, **how)

    def company(self, known):
        """:func:`company` of the ``known`` anomalies (n,) bool, with one row of each subject."""
        if self.subjects is None:
            return company(self.neighbours, self.Z[known])
        # Reference rows of the known anomalies' own subjects.
        own = np.isin(self.subjects[self.reference], self.subjects[known])
        if own.all():
            return 1.0
        others, of_known = (
            rows[np.unique(self.subjects[rows], return_index=True)[1]]
            for rows in (self.reference[~own], np.flatnonzero(known))
        )
        return company(Neighbours(self.Z[others]), self.Z[of_known])


def company(others, anomalies):
    """How little the known anomalies are isolated among the other rows, 0 to 1.

    With hidden anomalies, the known ones lie among rows of their own kind; without, most of them
    are isolated. The measure is a local outlier factor (Breunig et al. 2000) of plain mean
    distances: a known anomaly's mean distance to its nearest rows, divided by the mean of those
    rows' own mean distances. It is ranked among the same ratios of the rows.

    Args:
        others: :class:`geometry.Neighbours` of the rows without a known anomaly.
        anomalies: (m, d) the known ones.

    Returns:
        Share of the rows that are at least as isolated as a known anomaly, averaged over these.
    """
    first = np.unique(copies(others.reference, ROUNDING), return_index=True)[1]
    rows = others.reference[first]
    if len(rows) <= NEAREST:
        return 1.0
    # In the order of ``distinct``, to which the indices of ``nearest`` refer.
    others = Neighbours(rows)
    rows = rows[others.distinct]
    distance, index = others.nearest(rows, NEAREST + 1)
    own = distance[:, 1:].mean(1)  # the first is the row itself
    alone = np.sort(own / own[index[:, 1:]].mean(1))
    distance, index = others.nearest(anomalies, NEAREST)
    of_known = distance.mean(1) / own[index].mean(1)
    return 1 - float(np.searchsorted(alone, of_known, side="left").mean()) / len(alone)


def hidden_share(doubtful, known, prior=PRIOR):
    """Estimated share of anomalies among the doubtful rows.

    If hidden anomalies score like the known ones, a share j / (m + 1) of them is expected to score
    above the j-th highest known one. So the share of hidden anomalies is at most the share of all
    doubtful rows that score above it, times (m + 1) / j. The estimate is the smallest such bound
    over the upper half of the known anomalies, averaged with the prior; the prior counts as twice
    the bound at most, since hardly any anomaly is hidden if hardly any row ranks above half of the
    known ones.

    The smallest of many bounds is too small where some are noise, as those of the very highest are:
    with as many hidden as known ones, the two highest are known ones in a table of four, and none
    would be hidden. So j starts at an eighth of the known ones. But if these overlap with the
    normals, the rows above most of them are normals. As far as they do (by what their AUC would be
    if so many were hidden), j starts at 2: the highest alone often ranks above all rows.

    Scores that hardly separate the known anomalies from the rest cannot find the hidden ones. So
    the estimate falls to 0 as the rank sum of the known anomalies (Mann and Whitney) comes within
    four to two of its standard deviations of chance, and as their AUC falls through ``TELLING``.
    With a single known anomaly the prior is returned; with two, the average of prior and a bound of
    0.

    Args:
        doubtful: (u,) left-out scores.
        known: (m,) left-out scores of the known anomalies.
        prior: estimate of the share before any score is seen.
    """
    m = len(known)
    if m < 2:  # any row may rank above a single one
        return prior
    if m < 3:
        return prior * STRENGTH / (STRENGTH + m)
    place = np.arange(2, max((m + 1) // 2, 2) + 1)  # j
    ranked = np.sort(doubtful)
    above = 1 - np.searchsorted(ranked, np.sort(known)[m - place], side="left") / len(ranked)
    bounds = np.minimum(above * (m + 1) / place, MOST)
    below = np.searchsorted(ranked, known, "left") + np.searchsorted(ranked, known, "right")
    area = below.mean() / (2 * len(ranked))
    lowest, steady = bounds.min(), bounds[place >= m // HIGHEST].min()
    # Among hidden anomalies the known ones rank by chance, so that their AUC there is 1/2.
    apart = (area - steady / 2) / (1 - steady)
    bound = float(lowest + np.interp(apart, APART, (0, 1)) * (steady - lowest))
    deviations = (area - 0.5) / np.sqrt((m + len(ranked) + 1) / (12 * m * len(ranked)))
    told = np.interp(deviations, (2, 4), (0, 1)) * np.interp(area, TELLING, (0, 1))
    return float(told) * (STRENGTH * min(prior, 2 * bound) + m * bound) / (STRENGTH + m)


def _like_known(Z, known, others, leave_out, seed, looks):
    """How much each row looks like the known anomalies, to models that did not see it: (n,)."""
    of = {
        "likeness": lambda: _likeness(Z, known, leave_out, seed),
        "nearness": lambda: _nearness(Z, known, others),
    }
    return sum(_minus_log_p(of[look](), ~known) for look in looks)


def _likeness(Z, known, leave_out, seed):
    """Mean left-out score of the closed-form experts, (n,)."""
    y = known.astype(np.int64)
    scores = [
        KernelExpert(norm).fit(Z, y, stage_rng(seed, f"cleaning/{norm}"), CENTRES, leave_out)
        for norm in NORMS
    ]
    return np.mean(scores, axis=0)


def _nearness(Z, known, others):
    """Log ratio of a row's distance to its neighbours and to the nearest known anomaly, (n,)."""
    own = others.own_distance()
    anomalies = Neighbours(Z[known])
    near = anomalies.mean_distance(Z, 1, groups=others.groups(slice(None), known))
    # NaN if all known anomalies are copies of one row or rows of one subject.
    groups = others.groups(known, known)
    near[known] = anomalies.mean_distance(Z[known], 1, others=True, groups=groups)
    ratio = np.log(own + 1e-9) - np.log(near + 1e-9)
    ratio[np.isnan(ratio)] = np.nanmin(ratio)
    return ratio


def _minus_log_p(scores, others):
    """-log of the share of the other rows at or above each score: (n,)."""
    ranked = np.sort(scores[others])
    above = len(ranked) - np.searchsorted(ranked, scores, side="left")
    return -np.log((above + 0.5) / (len(ranked) + 1))
