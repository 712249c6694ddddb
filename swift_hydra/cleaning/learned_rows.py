"""Which training rows are learned from: a sample of a larger table, without the suspects (M13).

Shapes: n training rows, n' rows that are learned from, d features.
"""

from typing import NamedTuple

import numpy as np
import torch

from swift_hydra.cleaning.suspects import AsideRows, in_doubt, set_aside
from swift_hydra.data.subjects import are_several, from_zero
from swift_hydra.seeds import stage_rng
from swift_hydra.settings import InputError


class LearnedRows(NamedTuple):
    """Training rows that are learned from (M13)."""

    kept: np.ndarray  # (n,) bool, False for rows that are not learned from
    sampled: np.ndarray  # (n,) bool, False for rows that were not drawn
    share: float  # estimated share of hidden anomalies among the doubtful rows
    n_doubtful: int  # rows of the sample that might be hidden anomalies
    n_known: int  # known anomalies of the sample
    Z: torch.Tensor  # (n', d) the kept rows, standardised
    y: torch.Tensor  # (n',) int64, 1 for the known anomalies, of which there may be none
    subjects: np.ndarray | None  # (n',) the subject each row was measured on, numbered from 0
    aside: AsideRows | None  # the rows that were set aside, if no anomaly is known


def learned_rows(rows, seed, settings):
    """Choose the training rows that are learned from: :class:`LearnedRows`.

    From a larger table ``max_samples`` rows are drawn. Every model trains on some hundred batches
    or on some thousand reference rows, so that a hundred thousand rows are as good as a million.
    Searching them for hidden anomalies and leaving each of them out takes a tenth of the time.

    Args:
        rows: :class:`data.rows.TrainingRows`.
        seed: the run's seed.
        settings: a :class:`pretrain.PretrainSettings`.

    Raises:
        InputError: if all drawn rows without a known anomaly belong to one subject.
    """
    options = settings.cleaning_settings or {}
    sampled = sample(rows.y, settings.max_samples, seed, rows.subjects)
    labels = rows.y[sampled]
    others = rows.y != 1
    if not are_several(rows.subjects, sampled & others):
        raise InputError(
            f"max_samples={settings.max_samples}: of the rows that are no known anomalies those of "
            "one group alone were drawn: raise it (--max-samples)"
        )
    trusted = settings.trust_normals
    subjects = from_zero(rows.subjects, sampled)
    cleaned = set_aside(rows.Z[sampled], labels, subjects, seed, trusted, **options)
    kept = sampled.copy()
    kept[sampled] = cleaned.kept
    if not are_several(rows.subjects, kept & others):  # else no other subject to compare with
        kept = sampled.copy()
    y = (rows.y[kept] == 1).astype(np.int64)
    aside = None
    if not y.any() and not kept[sampled].all():
        aside = AsideRows.of(rows.Z[sampled], subjects, cleaned)
    return LearnedRows(
        kept,
        sampled,
        cleaned.share,
        n_doubtful=int(in_doubt(labels, trusted).sum()),
        n_known=int((labels == 1).sum()),
        Z=torch.from_numpy(rows.Z[kept]),
        y=torch.from_numpy(y),
        subjects=from_zero(rows.subjects, kept),
        aside=aside,
    )


def sample(y, most, seed, subjects=None):
    """Draw the rows that represent a table: (n,) bool.

    All rows, if there are no more than ``most``. Otherwise known anomalies fill at most half of the
    sample; if they are fewer, all of them are drawn. The rows of a subject are drawn together:
    subjects with known anomalies fill at most half of the sample, and a subject that does not fit
    in any more is skipped.

    Args:
        y: (n,) labels.
        most: rows of the sample.
        seed: the run's seed.
        subjects: (n,) the subject of each row, numbered from 0; None: every row has its own.

    Raises:
        InputError: if no subject with known anomalies, or none without, is small enough.
    """
    if len(y) <= most:
        return np.ones(len(y), dtype=bool)
    rng = stage_rng(seed, "sample")
    subjects = np.arange(len(y)) if subjects is None else subjects
    size = np.bincount(subjects)
    known = np.bincount(subjects, y == 1) > 0
    drawn = np.zeros(len(size), dtype=bool)
    for which, room, kind in ((known, most // 2, "with"), (~known, most, "without")):
        order = rng.permutation(np.flatnonzero(which))
        room -= int(size[drawn].sum())
        fit = _that_fit(order, size, room)
        if len(order) and not len(fit):
            raise InputError(
                f"max_samples={most}: rows of one group are drawn together, and of the groups "
                f"{kind} known anomalies none has {room} rows or less: raise it (--max-samples), "
                "or give fewer rows of each group"
            )
        drawn[fit] = True
    return drawn[subjects]


def _that_fit(order, size, room):
    """The subjects in ``order`` (m,) that fit, taken one by one while their rows find room."""
    if (size == 1).all():
        return order[:room]
    fit = []
    for subject in order:
        if size[subject] <= room:
            room -= size[subject]
            fit.append(subject)
    return np.array(fit, dtype=np.int64)
