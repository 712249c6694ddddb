"""Which rows without a known anomaly are probably anomalies nobody has labelled (M13).

# DIFF(paper): an addition. The paper takes every row that is not labelled for normal; where those
hide anomalies, all that takes them for normal learns the wrong thing.

Two looks at a row, neither of which has learned from it: the closed-form experts' left-out score
(is it like the known anomalies?), and how near the nearest known anomaly is in units of the row's
own distance to its neighbours. The rows that both find most suspicious are set aside: they are no
anomalies either (taken for such they did harm), they are just not learned from. How many are set
aside depends on how the known anomalies' own left-out scores rank among the rows': where nothing is
hidden hardly any row ranks above half of them, so that clean tables keep their rows; where the
known anomalies rank like any other row, none is set aside.

Shapes: n rows, d features.
"""

from typing import NamedTuple

import numpy as np

from swift_hydra.cleaning.kernel_expert import KernelExpert
from swift_hydra.cleaning.leave_out import LeaveOut
from swift_hydra.geometry import ROUNDING, Neighbours, copies
from swift_hydra.seeds import stage_rng

PRIOR = 0.05  # share of hidden anomalies before anything is known
IN_COMPANY = 0.15  # share of the rows, see company(), from which on the prior holds whole
NEAREST = 5  # rows around a known anomaly that keep it company
STRENGTH = 5  # known anomalies that the prior counts for
TELLING = (0.6, 0.75)  # area under the known anomalies' curve: from nothing told to all
FARTHEST = 0.15  # share of rows that is set aside where nothing is known: too many cost little
MOST = 0.4  # of the rows that may be set aside
LEAST_KEPT = 5  # rows that stay
NEIGHBOURHOOD = 0.05  # share of the rows that are a row's own neighbourhood
# The same where nothing is known. Hidden anomalies of one kind, a tenth of the rows, must not fill
# half of it: they would seem the most normal of all.
UNKNOWN = 0.2
REFERENCE = 4096  # rows that stand for a larger table
CENTRES = 800  # of each closed-form expert
FOLDS = 4
NORMS = ("l2", "l1")  # of the closed-form experts
LOOKS = ("likeness", "nearness")  # to the known anomalies: left-out scores, ratio of distances


class Cleaned(NamedTuple):
    """What is left to learn from."""

    kept: np.ndarray  # (n,) bool, False for the rows that are set aside
    share: float  # of the rows that might hide anomalies, estimated to be some


def in_doubt(y, trust_normals):
    """(n,) bool: the rows that might hide anomalies, of labels (n,) as in :func:`set_aside`."""
    return y == -1 if trust_normals else y != 1


def set_aside(Z, y, subjects, seed, trust_normals=False, looks=LOOKS):
    """Find the rows that are not to be learned from.

    Args:
        Z: (n, d) standardised rows.
        y: (n,) labels: 1 known anomaly, 0 taken for normal, -1 unlabelled.
        subjects: (n,) numbers from 0 of what the rows were measured of; None: each of its own.
        seed: of the run.
        trust_normals: rows labelled 0 stay, whatever they look like.
        looks: which of ``LOOKS`` decide where anomalies are known; one of them is an ablation.

    Returns:
        :class:`Cleaned`.
    """
    kept = np.ones(len(y), dtype=bool)
    doubtful = np.flatnonzero(in_doubt(y, trust_normals))
    known = y == 1
    most = min(int(MOST * len(doubtful)), int((~known).sum()) - LEAST_KEPT)
    if most < 1:
        return Cleaned(kept, 0.0 if known.any() or not len(doubtful) else PRIOR)
    left_out = LeaveOut(Z, known.astype(np.int64), FOLDS, seed, subjects)
    others = OtherRows(Z, _some(np.flatnonzero(~known), seed), left_out)
    prior = PRIOR
    if known.any():
        suspicion = _like_known(Z, known, others, left_out, seed, looks)
        prior *= min(1.0, others.company(known) / IN_COMPANY)
    else:
        suspicion = np.log(others.own_distance(UNKNOWN) + 1e-9)
    share = hidden_share(suspicion[doubtful], suspicion[known], prior)
    number = min(round((share if known.any() else FARTHEST) * len(doubtful)), most)
    # Of equally suspicious rows all stay: which of them comes first must not matter.
    bound = np.partition(suspicion[doubtful], -number - 1)[-number - 1]
    kept[doubtful[suspicion[doubtful] > bound]] = False
    return Cleaned(kept, share)


class OtherRows:
    """The rows without a known anomaly, which each row is compared with, itself left out.

    Args:
        Z: (n, d) all rows.
        reference: numbers of those that stand for them.
        left_out: a :class:`cleaning.leave_out.LeaveOut` of all rows.
    """

    def __init__(self, Z, reference, left_out):
        self.Z = Z
        self.reference = reference
        self.neighbours = Neighbours(Z[reference])
        self.coded = left_out.coded[reference]
        self.subjects = left_out.subjects

    def groups(self, rows, reference):
        """Subjects of some rows and of what they are compared with, as neighbours take them."""
        return None if self.subjects is None else (self.subjects[rows], self.subjects[reference])

    def own_distance(self, share=NEIGHBOURHOOD):
        """Mean distance of every row to a share of the others, (n,)."""
        k = max(5, int(share * len(self.reference)))
        groups = self.groups(slice(None), self.reference)
        return self.neighbours.mean_distance(self.Z, k, True, 0.0, self.coded, groups)

    def company(self, known):
        """:func:`company` of the known anomalies (n,) bool; of each subject one row tells."""
        if self.subjects is None:
            return company(self.neighbours, self.Z[known])
        own = np.isin(
            self.subjects[self.reference], self.subjects[known]
        )  # the known anomalies' own
        if own.all():
            return 1.0
        others, of_known = (
            rows[np.unique(self.subjects[rows], return_index=True)[1]]
            for rows in (self.reference[~own], np.flatnonzero(known))
        )
        return company(Neighbours(self.Z[others]), self.Z[of_known])


def company(others, anomalies):
    """How ordinary it is for the known anomalies to have rows around them, 0 to 1.

    Where anomalies hide, the known ones stand among others of their kind; where none do, most stand
    alone. Local outlier factors (Breunig et al. 2000), plain means of distances: a known anomaly's
    distance to the nearest rows over those rows' own, ranked among the same of the rows.

    Args:
        others: :class:`geometry.Neighbours` of the rows without a known anomaly.
        anomalies: (m, d) the known ones.

    Returns:
        Mean share of the rows that stand at least as alone as a known anomaly.
    """
    first = np.unique(copies(others.reference, ROUNDING), return_index=True)[1]
    rows = others.reference[first]
    if len(rows) <= NEAREST:
        return 1.0
    # In the order of ``distinct``, which ``nearest`` speaks of.
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

    If hidden anomalies score like the known ones, as many of them lie above the j-th highest known
    one as of those, in share: j / (m + 1). All rows up there are at most that many times more. The
    smallest such bound over the upper half of the known ones, drawn up towards the prior, but to no
    more than twice the bound: where hardly any row ranks above half of the known anomalies,
    hardly any is hidden. The highest known one alone says too little: it is often above all rows.

    Scores that hardly tell the known anomalies from the rest cannot tell the hidden ones either:
    the share fades where their rank sum is no further from chance than two to four of its standard
    deviations (Mann and Whitney), and where the area is below ``TELLING``. A single one ranks
    nothing and the prior stands; two hardly do, and it is weighed against a bound of 0.

    Args:
        doubtful: (u,) left-out scores.
        known: (m,) left-out scores of the known anomalies.
        prior: share before they are looked at.
    """
    m = len(known)
    if m < 2:  # any row may rank above a single one
        return prior
    if m < 3:
        return prior * STRENGTH / (STRENGTH + m)
    place = np.arange(2, max((m + 1) // 2, 2) + 1)  # j
    ranked = np.sort(doubtful)
    above = 1 - np.searchsorted(ranked, np.sort(known)[m - place], side="left") / len(ranked)
    bound = min(float((above * (m + 1) / place).min()), MOST)
    below = np.searchsorted(ranked, known, "left") + np.searchsorted(ranked, known, "right")
    area = below.mean() / (2 * len(ranked))
    deviations = (area - 0.5) / np.sqrt((m + len(ranked) + 1) / (12 * m * len(ranked)))
    told = np.clip((deviations - 2) / 2, 0, 1)
    told *= np.clip((area - TELLING[0]) / (TELLING[1] - TELLING[0]), 0, 1)
    return float(told) * (STRENGTH * min(prior, 2 * bound) + m * bound) / (STRENGTH + m)


def _some(rows, seed):
    """At most ``REFERENCE`` of the row numbers, ascending."""
    return np.sort(stage_rng(seed, "cleaning/reference").permutation(rows)[:REFERENCE])


def _like_known(Z, known, others, left_out, seed, looks):
    """How much a row looks like the known anomalies, by nothing that has learned from it: (n,)."""
    of = {
        "likeness": lambda: _likeness(Z, known, left_out, seed),
        "nearness": lambda: _nearness(Z, known, others),
    }
    return sum(_minus_log_p(of[look](), ~known) for look in looks)


def _likeness(Z, known, left_out, seed):
    """Mean left-out score of the closed-form experts, (n,)."""
    y = known.astype(np.int64)
    scores = [
        KernelExpert(norm).fit(Z, y, stage_rng(seed, f"cleaning/{norm}"), CENTRES, left_out)
        for norm in NORMS
    ]
    return np.mean(scores, axis=0)


def _nearness(Z, known, others):
    """Log of a row's distance to its own neighbours over that to the known anomalies, (n,)."""
    own = others.own_distance()
    anomalies = Neighbours(Z[known])
    near = anomalies.mean_distance(Z, 1, groups=others.groups(slice(None), known))
    # NaN: copies of one row, or all of one subject.
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
