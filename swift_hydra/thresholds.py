"""Thresholds for scores, and the training rows' scores from which they are derived (M12).

Shapes: n rows.
"""

import math
from typing import NamedTuple

import numpy as np

from swift_hydra.cleaning.leave_out import FreshScores
from swift_hydra.settings import InputError, check_range, tell

TRUSTED = 50  # with at least so many trusted rows, or subjects, p-values compare with these alone


def compared_with(y, trust_normals, subjects=None):
    """Which training rows with labels (n,) the p-values compare with: (n,) bool.

    Unlabelled rows may hide anomalies. These score high, so that normal rows are flagged less often
    than stated: with half of the labels missing, none of them at a stated 5 %. If enough rows
    labelled 0 are trusted, only these are compared with. Of ``subjects`` (n,) each counts once: of
    three subjects, p-values would be 1/4 or more, however many rows these have.
    """
    trusted = np.flatnonzero(y == 0)
    if subjects is not None:
        trusted = np.unique(subjects[trusted])
    if trust_normals and len(trusted) >= TRUSTED:
        return y == 0
    return y != 1


def check_contamination(value):
    """Raise an InputError unless the value is "auto" or a share from 0 to .99."""
    if isinstance(value, str) and value == "auto":
        return
    try:
        check_range("contamination", value, 0, 0.99, whole=False)
    except InputError as error:
        raise InputError(f"{error}, or 'auto'") from None


def threshold_of(scores, share, rounding=0.0):
    """The threshold above which a share of the scores (n,) lies, as nearly as ties allow.

    It lies midway between two scores. If all or none of them shall be above, it lies beyond the
    outermost score by ``rounding``.
    """
    values, counts = np.unique(scores, return_counts=True)
    above = np.append(len(scores) - np.cumsum(counts), len(scores))  # scores above each; or all
    at = int(np.abs(above - share * len(scores)).argmin())
    if at == len(values):
        return float(min(values[0] - rounding, np.nextafter(values[0], -np.inf)))
    return float(values[at : at + 2].mean()) + (rounding if at == len(values) - 1 else 0.0)


def drawn(scores, weights):
    """An unweighted sample from weighted scores (m,): each is repeated according to its weight.

    Returns as many ascending scores as the weights (m,) sum to.
    """
    order = np.argsort(scores, kind="stable")
    up_to = np.cumsum(weights[order])
    n = round(float(up_to[-1]))
    place = np.searchsorted(up_to, (np.arange(n) + 0.5) * (up_to[-1] / max(n, 1)))
    return scores[order[np.minimum(place, len(order) - 1)]]


class TrainingScores(NamedTuple):
    """The data from which the training rows' scores are computed, for any ``verify``."""

    left_out: np.ndarray  # (n,) the detector's left-out scores
    fresh: np.ndarray  # (n,) the scores that new copies of the rows would get
    # The fields of :class:`cleaning.leave_out.FreshScores`:
    row: np.ndarray  # (m,)
    score: np.ndarray  # (m,)
    weight: np.ndarray  # (m,)
    normal: np.ndarray  # (m,)
    beside: np.ndarray | None = None  # (n,) of :meth:`Student.beside`, if there is a student

    @classmethod
    def of(cls, kept, fitted, aside, normal, twin=None, again=None):
        """Combine the scores of kept training rows with those of all others.

        Args:
            kept: (n,) bool, the training rows that were learned from.
            fitted: a :class:`detection.mixture.Fitted`, with scores of the kept rows.
            aside: (m,) scores of the other rows.
            normal: (n,) bool, the rows that p-values compare with, see :func:`compared_with`.
            twin: (m,) the kept row that each of the other rows is a copy of, else -1; None: there
                are no copies. Copies take that row's scores, as their own would know its label.
            again: the detector's own scores of the other rows (m,), and how many fresh rows each
                stands for by its score in ``aside`` and by this one, (2, m); None: one by the
                first.
        """
        left_out = np.empty(len(kept))
        left_out[kept] = fitted.scores
        fresh = left_out.copy()
        fresh[kept] = fitted.fresh
        row = np.flatnonzero(kept)[fitted.sample.row]
        of_normal = np.where(normal[row], fitted.sample.normal, 0.0)
        sample = fitted.sample._replace(row=row, normal=of_normal)
        if len(aside):
            left_out[~kept], fresh[~kept] = aside, aside
            if twin is not None:
                copied = np.flatnonzero(~kept)[twin >= 0]
                left_out[copied] = fitted.scores[twin[twin >= 0]]
                fresh[copied] = fitted.fresh[twin[twin >= 0]]
            # p-values compare with rows that were set aside, too: they may well be normal, and the
            # false-alarm rate must not exceed the stated one.
            own, weights = (aside, [[1.0], [0.0]]) if again is None else again
            more = _expected(fresh[~kept], own, np.broadcast_to(weights, (2, len(aside))))
            more = more._replace(row=np.flatnonzero(~kept)[more.row])
            more = more._replace(normal=more.weight * normal[more.row])
            # All stand for as many fresh rows as there are.
            sample = sample._replace(
                weight=_scaled(sample.weight, len(kept) - more.weight.sum()),
                normal=_scaled(sample.normal, normal.sum() - more.normal.sum()),
            )
            sample = FreshScores(*map(np.concatenate, zip(sample, more, strict=True)))
        return cls(left_out, fresh, *sample)

    def of_subjects(self, subjects, normal):
        """The same with weights that sum to the number of subjects in place of rows.

        Rows of one subject score alike, so that a subject is no more than one independent
        observation.

        Args:
            subjects: (n,) the subject of each row, numbered from 0.
            normal: (n,) bool, the rows that p-values compare with.
        """
        n_subjects = [len(np.unique(some)) for some in (subjects, subjects[normal])]
        weight = self.weight * (n_subjects[0] / self.weight.sum())
        normal = self.normal * (n_subjects[1] / self.normal.sum())
        return self._replace(weight=weight, normal=normal)


def _expected(left_out, own, weights):
    """The :class:`FreshScores` of rows with two scores (m,) each and their two weights (2, m)."""
    both = [np.flatnonzero(weight) for weight in weights]
    score = np.concatenate([left_out[both[0]], own[both[1]]])
    weight = np.concatenate([of_it[rows] for of_it, rows in zip(weights, both, strict=True)])
    return FreshScores(np.concatenate(both), score, weight, weight)


def _scaled(weights, total):
    """Weights (m,) that sum to a total, unless all are 0."""
    return weights * (total / max(weights.sum(), 1e-12))


def threshold_of_false_alarms(scores, share, rounding, n_groups=None):
    """The threshold above which a share of fresh normal rows scores; infinity if none may.

    Args:
        scores: (m,) ascending scores of normal rows, as many as there are groups if there are any.
        share: 0 to .99.
        rounding: largest difference between scores that count as equal.
        n_groups: number of groups of training rows, or None if there are none.
    """
    m = len(scores)
    # So many normals may score as high as a flagged row; -1 if m is too small to flag any row.
    allowed = int(share * (m + 1) + 1e-9) - 1
    if allowed >= 0:
        return float(scores[m - 1 - allowed]) + rounding
    if share > 0:
        digits = 10 ** (1 - math.floor(math.log10(1 / (m + 1))))
        least = math.ceil(digits / (m + 1)) / digits  # rounded up, or it would be too small
        what = "normal rows" if n_groups is None else "groups of normal rows"
        tell(
            f"false_alarms={share:g}: {m} {what} cannot tell so rare an alarm, and no row is "
            f"ever flagged: give {least:g} or more (--false-alarms, false_alarms)"
        )
    return math.inf
