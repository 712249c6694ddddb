"""Which scores are alarms: thresholds, and the training rows' scores that they are made of (M12).

Shapes: n rows.
"""

import math
from typing import NamedTuple

import numpy as np

from swift_hydra.cleaning.leave_out import FreshScores
from swift_hydra.settings import InputError, check_range, tell

TRUSTED = 50  # trusted rows that p-values compare with, in place of all without a known anomaly


def compared_with(y, trust_normals):
    """Which training rows with labels (n,) p-values compare with: (n,) bool.

    Unlabelled rows may hide anomalies, which score high and take the place of alarms: where half of
    the labels were missing, none of the normal rows was flagged of 5 % that were stated. Where rows
    labelled 0 are trusted, and many enough, these alone are compared with.
    """
    if trust_normals and (y == 0).sum() >= TRUSTED:
        return y == 0
    return y != 1


def check_contamination(value):
    """Refuse what is neither "auto" nor a share from 0 to .99."""
    if isinstance(value, str) and value == "auto":
        return
    try:
        check_range("contamination", value, 0, 0.99, whole=False)
    except InputError as error:
        raise InputError(f"{error}, or 'auto'") from None


def threshold_of(scores, share, rounding=0.0):
    """The threshold that a share of the scores (n,) is above, the nearest that ties allow.

    All of them may be above, or none; a threshold stands between two scores, or ``rounding``, and
    the least number at least, beyond the outermost.
    """
    values, counts = np.unique(scores, return_counts=True)
    above = np.append(len(scores) - np.cumsum(counts), len(scores))  # of each value, and below all
    at = int(np.abs(above - share * len(scores)).argmin())
    if at == len(values):
        return float(min(values[0] - rounding, np.nextafter(values[0], -np.inf)))
    return float(values[at : at + 2].mean()) + (rounding if at == len(values) - 1 else 0.0)


def drawn(scores, weights):
    """As many scores as the weights (m,) are in all, ascending, each as often as its weight is."""
    order = np.argsort(scores, kind="stable")
    up_to = np.cumsum(weights[order])
    n = round(float(up_to[-1]))
    place = np.searchsorted(up_to, (np.arange(n) + 0.5) * (up_to[-1] / max(n, 1)))
    return scores[order[np.minimum(place, len(order) - 1)]]


class TrainingScores(NamedTuple):
    """What the training rows' scores are made of, whichever share of rows is verified."""

    left_out: np.ndarray  # (n,) the detector's scores by fits without the row
    fresh: np.ndarray  # (n,) the same as fresh copies of rows that come again would have them
    # Of :class:`cleaning.leave_out.FreshScores`:
    row: np.ndarray  # (m,)
    score: np.ndarray  # (m,)
    weight: np.ndarray  # (m,)
    normal: np.ndarray  # (m,)
    shift: np.ndarray | None = None  # (n,) of the student, see Student.beside
    doubt: np.ndarray | None = None  # (n,) its doubt

    @classmethod
    def of(cls, kept, fitted, aside, normal, twin=None):
        """Of n training rows, of which ``kept`` (n,) bool were learned from.

        Args:
            kept: (n,) bool.
            fitted: what a detector's ``fit`` returned, with scores of the kept rows.
            aside: (m,) scores of the others.
            normal: (m,) bool, which of the others are no known anomalies.
            twin: (m,) which kept row one of the others is a copy of, -1 of those that are none;
                None: none is. A copy's own score would know its label.
        """
        left_out = np.empty(len(kept))
        left_out[kept] = fitted.scores
        fresh = left_out.copy()
        fresh[kept] = fitted.fresh
        sample = fitted.sample._replace(row=np.flatnonzero(kept)[fitted.sample.row])
        if len(aside):
            left_out[~kept], fresh[~kept] = aside, aside
            if twin is not None:
                copied = np.flatnonzero(~kept)[twin >= 0]
                left_out[copied] = fitted.scores[twin[twin >= 0]]
                fresh[copied] = fitted.fresh[twin[twin >= 0]]
            # Those set aside belong to what p-values compare with: they may well be normal, and
            # alarms shall be no more frequent than was said.
            more = FreshScores.plain(fresh[~kept], normal)
            more = more._replace(row=np.flatnonzero(~kept))
            sample = FreshScores(*map(np.concatenate, zip(sample, more, strict=True)))
        return cls(left_out, fresh, *sample)

    def among(self, normal):
        """The same, but p-values compare with no other rows than these (n,) bool."""
        return self._replace(normal=np.where(normal[self.row], self.normal, 0.0))

    def of_subjects(self, subjects, normal):
        """The same where rows (n,) were measured of subjects: these are what fresh ones are like.

        Rows of one subject score alike: in all of them there is no more than one to compare with.

        Args:
            subjects: (n,) numbers from 0.
            normal: (n,) bool, the rows that p-values compare with.
        """
        n_subjects = [len(np.unique(some)) for some in (subjects, subjects[normal])]
        weight = self.weight * (n_subjects[0] / self.weight.sum())
        normal = self.normal * (n_subjects[1] / self.normal.sum())
        return self._replace(weight=weight, normal=normal)


def threshold_of_false_alarms(scores, share, rounding):
    """The threshold that a share of fresh normal rows is above; infinity where none may be.

    Args:
        scores: (m,) of the training's normals, ascending.
        share: 0 to .99.
        rounding: by how much two scores may differ and still be one.
    """
    m = len(scores)
    # So many normals may score as high as a flagged row; -1 where m is too small for any.
    allowed = int(share * (m + 1) + 1e-9) - 1
    if allowed >= 0:
        return float(scores[m - 1 - allowed]) + rounding
    if share > 0:
        digits = 10 ** (1 - math.floor(math.log10(1 / (m + 1))))
        least = math.ceil(digits / (m + 1)) / digits  # up, or it would not be enough
        tell(
            f"false_alarms={share:g}: {m} normal rows cannot tell so rare an alarm, and no row is "
            f"ever flagged: give {least:g} or more (--false-alarms, false_alarms)"
        )
    return math.inf
