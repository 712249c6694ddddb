"""The full detector: "known anomaly OR unlike normals" (M12).

# DIFF(paper): M10, M11 and M12 are additions; ``preset="paper"`` runs without them.

:class:`FullDetector` joins the two sides of ``sides.py``, on features and evidence. Both give
left-out scores of the training rows, which :class:`ScoreCombiner` turns into p-values against those
of the normals. So every score on which calibration or a threshold rests comes from models that did
not learn from its row.

Shapes: n rows, d features, c evidence columns.
"""

import copy

import numpy as np
import torch
from sklearn.metrics import roc_auc_score

from swift_hydra.cleaning.leave_out import LeaveOut
from swift_hydra.detection.evidence import Evidence, column_index
from swift_hydra.detection.largest_value import AboutColumns
from swift_hydra.detection.mixture import Fitted, n_folds_of
from swift_hydra.detection.pvalue import (
    ALONE,
    UNKNOWN_KINDS,
    MergedPValue,
    bounded,
    known_or_unlike,
    likelihood_ratio,
    platt,
    raised_weight,
    shrunken_shape,
    weights_by_auc,
)
from swift_hydra.detection.sides import (
    DISTANCE,
    PRIORS,
    CrossFitted,
    KnownSide,
    UnlikeSide,
    copied_folds,
)
from swift_hydra.detection.tolerant_distance import TolerantDistance
from swift_hydra.model import BetaCVAE
from swift_hydra.pretrain import new_cvae, train_cvae
from swift_hydra.seeds import stage_rng
from swift_hydra.snapshot import pack_network, read_network

UPRIGHT = 0.5  # AUC-ROC of the training rows; if it is lower, their order is inverted
UPRIGHT_ROWS = 256  # most rows of each class in that check: by chance, only fewer are inverted


class Residual:
    """A C-VAE's residual on arrays; a class, since a fitted estimator has to be picklable.

    In float64: the rounding of float32 products depends on a row's place in the batch, and on a
    table without information the router would choose experts by rounding alone.
    """

    def __init__(self, cvae):
        self.cvae = cvae.double()

    def __call__(self, Z):
        return self.cvae.residual(torch.from_numpy(np.asarray(Z, dtype=np.float64))).numpy()


class ScoreCombiner:
    """Both sides' scores as class-balanced log-odds: "known anomaly OR unlike normals" (M12).

    If no anomaly is known, only the one-class side counts, with the prior shape and without
    calibration.

    Args:
        known: :class:`detection.pvalue.MergedPValue` of the experts' scores, or None.
        unlike: the same for the one-class scores.
        shapes: shapes of both p-values under anomalies, see
            :func:`detection.pvalue.shrunken_shape`.
        weight: share of the anomalies that are told by being unlike normals.
        calibration: slope and intercept of Platt's calibration.
        n_normals: number of normals that the p-values compare with; None if no anomaly is known,
            and in older files.
        unknown_kinds: see :func:`detection.pvalue.known_or_unlike`; 0 in older files.
    """

    def __init__(
        self,
        known,
        unlike,
        shapes,
        weight,
        calibration=(1.0, 0.0),
        n_normals=None,
        unknown_kinds=UNKNOWN_KINDS,
    ):
        self.unknown_kinds = unknown_kinds
        self.n_normals = n_normals
        self.known = known
        self.unlike = unlike
        self.shapes = shapes
        self.weight = weight
        self.calibration = calibration

    @classmethod
    def fit(cls, experts, one_class, y, weight, used=True):
        """Fit to left-out scores.

        Args:
            experts: (n, ..) scores of the known side, or None if no anomaly is known.
            one_class: (n, ..) scores of the one-class side.
            y: (n,) labels.
            weight: prior of that share; the known anomalies may raise it.
            used: which experts are used: one bool for all, or one for each.
        """
        if experts is None:
            unlike = MergedPValue.fit(one_class, exponent=ALONE)
            return cls(None, unlike, [1.0, shrunken_shape([])], weight)
        normal = y == 0
        weights = weights_by_auc(experts, y, *np.transpose(PRIORS)) * used
        known = MergedPValue.fit(experts[normal], weights)
        unlike = MergedPValue.fit(one_class[normal])
        self = cls(known, unlike, None, weight, n_normals=int(normal.sum()))
        sides = self._sides(experts[~normal], one_class[~normal])
        self.shapes = [*map(shrunken_shape, sides)]
        self.weight = raised_weight(*sides, weight, self.shapes, self.unknown_kinds)
        self.calibration = platt(self.score(experts, one_class), y)
        return self

    def score(self, experts, one_class):
        """(n,) log-odds from both sides' scores."""
        if self.known is None:
            return likelihood_ratio(self.unlike.minus_log_p(one_class), self.shapes[1])
        slope, shift = self.calibration
        sides = self._sides(experts, one_class)
        joined = known_or_unlike(*sides, self.weight, self.shapes, self.unknown_kinds)
        return slope * joined + shift

    def _sides(self, experts, one_class):
        """Both sides' -log p (n,), bounded by what the number of normals can support.

        If new rows drift, all of them are far from the normals; thanks to the bound, the experts'
        scores still rank them.
        """
        sides = self.known.minus_log_p(experts), self.unlike.minus_log_p(one_class)
        if self.n_normals is None:
            return sides
        return [bounded(minus_log, self.n_normals) for minus_log in sides]

    def snapshot(self):
        """Arrays and plain values."""
        return {
            "known": None if self.known is None else self.known.snapshot(),
            "unlike": self.unlike.snapshot(),
            "shapes": self.shapes,
            "weight": self.weight,
            "calibration": list(self.calibration),
            "n_normals": self.n_normals,
            "unknown_kinds": self.unknown_kinds,
        }

    @classmethod
    def from_snapshot(cls, saved, weight):
        """Rebuild from :meth:`snapshot`; ``weight`` is for older files, which do not hold it."""
        known, unlike = (
            None if saved[name] is None else MergedPValue.from_snapshot(saved[name])
            for name in ("known", "unlike")
        )
        return cls(
            known,
            unlike,
            saved["shapes"],
            weight=saved.get("weight", weight),
            calibration=saved["calibration"],
            n_normals=saved.get("n_normals"),
            unknown_kinds=saved.get("unknown_kinds", 0.0),
        )


class FullDetector:
    """Both sides, and the combiner that joins their scores (``preset="full"``).

    Args:
        evidence: :class:`detection.evidence.Evidence`, with the :class:`Residual` of two C-VAEs,
            each trained on half of the rows; None if neither side looks at it.
        known: :class:`detection.sides.KnownSide`, or None if no anomaly is known.
        unlike: :class:`detection.sides.UnlikeSide`.
        combiner: :class:`ScoreCombiner`.
    """

    def __init__(self, evidence, known, unlike, combiner):
        self.evidence = evidence
        self.known = known
        self.unlike = unlike
        self.combiner = combiner

    @staticmethod
    def learns_from_generated(y, settings):
        """See :meth:`detection.mixture.MixtureDetector.learns_from_generated`.

        An expert that learned generated rows alone learned to accept hidden anomalies among the
        rows that it took for normal: beside the distance it cost .017 AUC-ROC (29 sets). So rows
        have to be trusted, or anomalies known.
        """
        return bool(y.any()) or settings.trust_normals

    @classmethod
    def fit(cls, Z, y, generated, settings, journal, subjects=None, aside=None, about=None):
        """Arguments and return value are those of :meth:`detection.mixture.MixtureDetector.fit`."""
        about = about or AboutColumns()
        with journal.stage("evidence"):
            n_folds = n_folds_of(settings.n_experts)
            leave_out = LeaveOut(Z.numpy(), y.numpy(), n_folds, settings.random_state, subjects)
            # If no anomaly is known, only an expert that learns generated ones looks at it.
            if y.any() or (cls.learns_from_generated(y, settings) and len(generated)):
                rows = leave_out, Z, y, generated.numpy(), about
                evidence, seen = _cross_fit(*rows, settings, journal)
            else:
                evidence, made = None, generated.numpy()
                seen = CrossFitted(Z.numpy(), None, y, made, None, leave_out, None, about)
        known, experts = None, None
        if y.any():
            known, experts = KnownSide.fit(seen, settings, journal)
        unlike, one_class = UnlikeSide.fit(
            seen, settings, journal, aside, evidence and evidence.largest
        )
        used = KnownSide.used(settings.without)
        combiner = ScoreCombiner.fit(experts, one_class, y.numpy(), settings.unlike_weight, used)
        self = cls(evidence, known, unlike, combiner)
        if known is not None:
            self._undo_inversion(seen, experts, one_class, settings)
        scores = self.combiner.score(experts, one_class)
        normal = y.numpy() == 0
        fresh = seen.leave_out.as_fresh(scores, lambda rows: self.score(seen.Z[rows]), normal)
        of_aside = None
        if isinstance(unlike.alone, TolerantDistance):
            if aside is not None and known is None:
                of_aside = self.combiner.score(None, unlike.alone.score_aside(aside))
            unlike.alone.forget_training()
        return Fitted(self, scores, *fresh, of_aside)

    def _undo_inversion(self, seen, experts, one_class, settings):
        """Fit the combiner again if the detector ranks its own training rows in inverted order.

        That is, if known anomalies score below normals on the whole (AUC-ROC < .5). Left-out scores
        cannot show this if a handful of rows are copies of each other. First the experts that
        invert even these rows are dropped, then the one-class side.

        Args:
            seen: :class:`detection.sides.CrossFitted` rows.
            experts: (n, ..) their left-out scores by the known side.
            one_class: (n, ..) their left-out scores by the one-class side.
            settings: has ``unlike_weight`` and ``random_state``.
        """
        y = seen.labels.numpy()
        rng = stage_rng(settings.random_state, "upright")
        of_each = [rng.permutation(np.flatnonzero(y == label)) for label in (0, 1)]
        rows = np.concatenate([some[:UPRIGHT_ROWS] for some in of_each])
        parts = self.parts(seen.Z[rows])
        if roc_auc_score(y[rows], self.combiner.score(*parts)) >= UPRIGHT:
            return
        counts = self.combiner.known.weights > 0
        used = np.array([roc_auc_score(y[rows], column) >= UPRIGHT for column in parts[0].T])
        used &= counts
        used = used if used.any() else counts
        for weight in (0.0,) if (used == counts).all() else (settings.unlike_weight, 0.0):
            self.combiner = ScoreCombiner.fit(experts, one_class, y, weight, used)
            if roc_auc_score(y[rows], self.combiner.score(*parts)) >= UPRIGHT:
                return

    def parts(self, Z):
        """Both sides' scores (n, ..) of standardised rows (n, d), before they are joined."""
        columns = self._columns(Z)
        experts = None if self.known is None else self.known.score(Z, columns)
        return experts, self.unlike.score(Z, columns)

    def _columns(self, Z):
        """Evidence (n, c) of rows (n, d); None if neither side looks at it."""
        return self.evidence and self.evidence.transform(Z)

    def score(self, Z):
        """(n,) float64 log-odds of standardised rows (n, d)."""
        return self.combiner.score(*self.parts(Z))

    def relations_no_longer_kept(self, Z):
        """As :meth:`detection.largest_value.KeptRelations.no_longer_kept`; empty without any."""
        relations = self.unlike.relations
        return relations.no_longer_kept(Z) if relations else []

    def expert_usage(self, Z):
        """Numbers of the mixture's experts that run for standardised rows (n, d): (n, k).

        If no anomaly is known, those of the one-class mixture; (n, 0) if there is none either.
        """
        side = self.unlike if self.known is None else self.known
        return side.experts_of(Z, self._columns(Z))

    def snapshot(self):
        """Tensors, arrays and plain values."""
        residuals = self.evidence.residuals if self.evidence else []
        return {
            "cvaes": [pack_network(copy.deepcopy(each.cvae).float()) for each in residuals],
            "evidence": self.evidence and self.evidence.snapshot(),
            "known": None if self.known is None else self.known.snapshot(),
            "unlike": self.unlike.snapshot(),
            "judgement": self.combiner.snapshot(),
        }

    @classmethod
    def from_snapshot(cls, saved, settings):
        """Rebuild from :meth:`snapshot`; settings: :class:`detection.mixture.DetectorSettings`."""
        cvaes = [read_network(BetaCVAE, packed) for packed in saved["cvaes"]]
        evidence = saved["evidence"]
        evidence = evidence and Evidence.from_snapshot(evidence, map(Residual, cvaes))
        known = saved["known"] and KnownSide.from_snapshot(saved["known"], settings)
        unlike = UnlikeSide.from_snapshot(saved["unlike"], settings)
        combiner = ScoreCombiner.from_snapshot(saved["judgement"], settings.unlike_weight)
        return cls(evidence, known, unlike, combiner)


def _cross_fit(leave_out, Z, y, generated, about, settings, journal):
    """The :class:`Evidence`, with two C-VAEs on half of the rows each, and CrossFitted rows."""
    seed = settings.random_state
    X = Z.numpy()
    labels = y.numpy()
    half = leave_out.folds % 2
    cvaes = []
    for h in (0, 1):
        rows = half != h
        cvaes.append(
            train_cvae(
                lambda: new_cvae(Z.shape[1], settings.beta),
                Z[rows],
                y[rows],
                seed,
                f"cvae-half{h}",
                settings.cvae_steps,
                journal,
            )
        )
    rng = stage_rng(seed, "evidence")
    of_cvaes = map(Residual, cvaes), half
    evidence, columns = Evidence.fit(
        X, labels, leave_out, *of_cvaes, rng, settings.max_normals, about
    )
    generated_columns = evidence.transform_in_views(generated)
    evidence.surroundings.forget_folds()
    distances = columns.all[:, column_index(DISTANCE)]
    # For learning, every row of a code has one normal less among its copies, or the missing one
    # would tell the label. A known anomaly is no normal: with one less, its score would be too high
    # (left-out AUC-ROC .69 on meaningless labels), so its distance is computed as for a new row.
    rows = np.flatnonzero((labels == 1) & leave_out.coded)
    if len(rows):
        distances[rows] = evidence.transform(X[rows])[:, column_index(DISTANCE)]
    both = columns, y, generated, generated_columns
    copied = copied_folds(generated, X, leave_out.folds)
    return evidence, CrossFitted(X, *both, leave_out, distances, about, copied)
