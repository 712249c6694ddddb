"""Mixture and kernel experts on features and evidence, "known anomaly OR unlike normals".

# DIFF(paper): M10, M11 and M12 are additions; ``preset="paper"`` runs without them.

:class:`FullDetector` joins two sides. :class:`KnownSide` asks whether a row is like the known
anomalies, :class:`UnlikeSide` whether it is unlike the normals. Both give left-out scores of the
training rows, which :class:`ScoreCombiner` turns into p-values against those of the normals. So
every score on which calibration or a threshold rests comes from models that did not learn from its
row.

Shapes: n rows, d features, c evidence columns.
"""

import copy
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from sklearn.metrics import roc_auc_score

from swift_hydra.cleaning.additive_expert import AdditiveExpert
from swift_hydra.cleaning.kernel_expert import KernelExpert
from swift_hydra.cleaning.leave_out import LeaveOut
from swift_hydra.detection.coordinates import NormalScores, PrincipalScores
from swift_hydra.detection.evidence import Evidence, EvidenceColumns, column_index
from swift_hydra.detection.mixture import N_FOLDS, Fitted, Mixture, n_folds_of
from swift_hydra.detection.pvalue import (
    ALONE,
    STRENGTH,
    USUAL,
    MergedPValue,
    bounded,
    known_or_unlike,
    likelihood_ratio,
    platt,
    shrunken_shape,
    weights_by_auc,
)
from swift_hydra.detection.surroundings import RATIOS
from swift_hydra.detection.tolerant_distance import TolerantDistance
from swift_hydra.detection.trusted_distance import TrustedDistance
from swift_hydra.geometry import ROUNDING, copies
from swift_hydra.model import BetaCVAE
from swift_hydra.pretrain import Recipe, new_cvae, train_cvae
from swift_hydra.seeds import stage_rng
from swift_hydra.snapshot import pack_network, read_network
from swift_hydra.training.batches import Examples, with_view

ONE_CLASS_STEPS = 200  # most training steps: seven columns are learned sooner than a table
CLIP = (-4.0, 8.0)  # bounds of evidence that experts see, in standard deviations of the normals
# Evidence that each model sees; the ratios use the known anomalies: they are no one-class evidence.
MIXTURE_COLUMNS = ("knn5", "knn20", "lof5", "gaussian", "pca", "cvae", *RATIOS)
ONE_CLASS_COLUMNS = ("knn5", "knn20", "lof5", "lof20", "gaussian", "pca", "cvae")
DISTANCE = ("knn5",)
KERNEL_COLUMNS = ("knn5", "lof5", *RATIOS)
# Each kernel expert's norm (or a sum over columns) and its inputs: normal scores of the ranks,
# values and evidence, or whitened values along the principal directions.
KERNELS = (
    ("l2", "ranks"),
    ("l1", "ranks"),
    ("l1", "evidence"),
    ("l2", "directions"),
    ("additive", "ranks"),
)
# Prior left-out AUC-ROC of the mixture and of each kernel expert, and how many known anomalies it
# counts for. Along the directions it is weak: that expert sees sums and ratios that no other does,
# and may be blind to all else.
OF_DIRECTIONS = (0.65, 5)
PRIORS = [(USUAL, STRENGTH)]
PRIORS += [OF_DIRECTIONS if sees == "directions" else PRIORS[0] for _, sees in KERNELS]
UPRIGHT = 0.5  # AUC-ROC of the training rows; if it is lower, their order is inverted
UPRIGHT_ROWS = 256  # most rows of each class in that check: by chance, only fewer are inverted


def _kind_of(norm):
    """The class of a kernel expert with this norm."""
    return AdditiveExpert if norm == "additive" else KernelExpert


def shown(columns, names):
    """The named evidence columns out of (..., c), clipped as experts see them: float32 tensor."""
    return torch.from_numpy(np.clip(columns[..., column_index(names)], *CLIP).astype(np.float32))


def beside(Z, columns, names):
    """Features Z (n, d) and the named evidence columns: (n, d + len(names)) float32 tensor."""
    features = torch.from_numpy(np.asarray(Z, dtype=np.float32))
    return torch.cat([features, shown(columns, names)], dim=1)


class Residual:
    """A C-VAE's residual on arrays; a class, since a fitted estimator has to be picklable.

    In float64: the rounding of float32 products depends on a row's place in the batch, and on a
    table without information the router would choose experts by rounding alone.
    """

    def __init__(self, cvae):
        self.cvae = cvae.double()

    def __call__(self, Z):
        return self.cvae.residual(torch.from_numpy(np.asarray(Z, dtype=np.float64))).numpy()


class CrossFitted(NamedTuple):
    """The training rows as both sides see them."""

    Z: np.ndarray  # (n, d)
    columns: EvidenceColumns  # their cross-fitted evidence
    labels: torch.Tensor  # (n,)
    generated: np.ndarray  # (m, d) generated anomalies
    generated_columns: EvidenceColumns
    leave_out: LeaveOut
    distances: np.ndarray  # (n, 1) column ``knn5`` without the row itself, as scoring has it

    def examples(self, features, names):
        """What a mixture learns from, :class:`training.batches.Examples`.

        Args:
            features: whether the inputs begin with the features.
            names: the evidence columns that follow.
        """
        X = shown(self.columns.all, names)
        generated = shown(self.generated_columns.all, names)
        if features:
            X = beside(self.Z, self.columns.all, names)
            generated = beside(self.generated, self.generated_columns.all, names)
        both = (self.columns, self.generated_columns)
        views, generated_views = (shown(part.without, names) for part in both)
        folds, coded = self.leave_out.folds, np.flatnonzero(self.leave_out.coded)
        # A left-out row is shown with all other rows around it, as a fresh row is. Not so a code:
        # the number of its other copies tells the row's label, so its whole fold is left out.
        left_out = X.clone()
        left_out[coded] = with_view(X[coded], views[folds[coded], coded])
        made = (generated, folds, views, generated_views, self._copied_folds())
        return Examples(X, self.labels, *made, left_out)

    def _copied_folds(self):
        """Folds of the training rows that the generated rows are copies of, else -1: (m,)."""
        m = len(self.generated)
        same = copies(np.concatenate([self.generated, self.Z]), ROUNDING)
        fold = np.full(same.max() + 1, -1)
        fold[same[m:]] = self.leave_out.folds
        return torch.from_numpy(fold[same[:m]])


class KnownSide:
    """Is a row like the known anomalies? The mixture and the kernel experts (M9, M11).

    A detector without known anomalies has no such side.

    Args:
        mixture: a :class:`detection.mixture.Mixture` on features and evidence.
        ranks: a :class:`detection.coordinates.NormalScores`.
        directions: a :class:`detection.coordinates.PrincipalScores`; None in older files.
        kernels: :class:`cleaning.kernel_expert.KernelExpert` objects.
    """

    def __init__(self, mixture, ranks, directions, kernels):
        self.mixture = mixture
        self.ranks = ranks
        self.directions = directions
        self.kernels = kernels

    @classmethod
    def fit(cls, seen, settings, journal):
        """Fit to :class:`CrossFitted` rows; returns it and left-out scores (n, 1 + kernels)."""
        with journal.stage("mixture"):
            examples = seen.examples(True, MIXTURE_COLUMNS)
            recipe = Recipe(settings.mixture_steps, settings.synthetic_share)
            mixture, left_out = Mixture.train_left_out(
                examples, recipe, "mixture", settings, journal, settings.n_experts
            )
        experts = [left_out]
        y = seen.labels.numpy()
        with journal.stage("kernels"):
            maps = NormalScores.fit(seen.Z), PrincipalScores.fit(seen.Z)
            self = cls(mixture, *maps, [])
            inputs = self._inputs(seen.Z, seen.columns.all)
            views = {  # the inputs that depend on other rows, as they are without a fold's rows
                "evidence": partial(_evidence_without, seen),
                "directions": partial(_directions_without, seen),
            }
            for number, (norm, sees) in enumerate(KERNELS):
                expert = _kind_of(norm)(norm, sees)
                rng = stage_rng(settings.random_state, f"kernel{number}")
                most, view = settings.max_centres, views.get(sees)
                experts.append(expert.fit(inputs[sees], y, rng, most, seen.leave_out, view))
                self.kernels.append(expert)
        return self, np.column_stack(experts)

    def _inputs(self, Z, columns):
        """The kernel experts' inputs, by name, for rows Z (n, d) with evidence (n, c)."""
        return {
            "ranks": self.ranks(Z),
            "evidence": beside(Z, columns, KERNEL_COLUMNS).numpy(),
            "directions": self.directions and self.directions(Z),
        }

    def score(self, Z, columns):
        """The experts' scores (n, 1 + kernels) of rows Z (n, d) with evidence (n, c)."""
        experts = [self.mixture.logits(beside(Z, columns, MIXTURE_COLUMNS))]
        inputs = self._inputs(Z, columns)
        experts += [expert.score(inputs[expert.sees]) for expert in self.kernels]
        return np.column_stack(experts)

    def snapshot(self):
        """Tensors, arrays and plain values."""
        kernels = [expert.snapshot() for expert in self.kernels]
        return {
            "mixture": self.mixture.snapshot(),
            "ranks": self.ranks.snapshot(),
            "directions": self.directions and self.directions.snapshot(),
            "kernels": kernels,
        }

    @classmethod
    def from_snapshot(cls, saved, settings):
        """Rebuild from :meth:`snapshot`."""
        kernels = [_kind_of(expert["norm"]).from_snapshot(expert) for expert in saved["kernels"]]
        mixture = Mixture.from_snapshot(saved["mixture"], settings.mamba)
        directions = saved.get("directions")  # older files have none
        maps = NormalScores(**saved["ranks"]), directions and PrincipalScores(**directions)
        return cls(mixture, *maps, kernels)


def _evidence_without(seen, fold):
    return beside(seen.Z, seen.columns.without[fold], KERNEL_COLUMNS).numpy()


def _directions_without(seen, fold):
    """The training rows along the principal directions of all other folds' rows."""
    others = seen.leave_out.folds != fold
    return PrincipalScores.fit(seen.Z[others] if others.any() else seen.Z)(seen.Z)


class UnlikeSide:
    """Is a row unlike the normals? A distance to them, and a learned expert (M12).

    Args:
        mixture: a :class:`detection.mixture.Mixture` on evidence alone that learned to separate
            normals from generated rows; None without generated rows, or beside a
            TolerantDistance.
        alone: the distance if no anomaly is known: a
            :class:`detection.trusted_distance.TrustedDistance` if the rows are trusted to be
            normal, else a :class:`detection.tolerant_distance.TolerantDistance`. None if anomalies
            are known: then the distance is that to five normals.
    """

    def __init__(self, mixture, alone=None):
        self.mixture = mixture
        self.alone = alone

    @classmethod
    def fit(cls, seen, settings, journal, aside=None):
        """Fit to :class:`CrossFitted` rows; returns it and left-out scores (n, 1 to 4).

        ``aside``: the :class:`cleaning.suspects.AsideRows`, if there are any.
        """
        with journal.stage("one-class"):
            alone = None
            if not seen.labels.any():
                rng = stage_rng(settings.random_state, "one-class/reference")
                rows = seen.Z, rng, seen.leave_out.coded, seen.leave_out.subjects
                if settings.trust_normals:
                    alone = TrustedDistance.fit(*rows)
                else:
                    alone = TolerantDistance.fit(*rows, aside)
            distances = seen.distances
            if alone is not None:
                distances = alone.score(seen.Z, True, seen.leave_out.subjects)
            # An expert learns to accept hidden anomalies among the rows that it takes for normal:
            # beside the distance it cost .017 AUC-ROC (29 sets).
            if not len(seen.generated) or isinstance(alone, TolerantDistance):
                return cls(None, alone), distances
            # The only anomalies here are generated ones: this side has to find those that are
            # unlike the known ones.
            examples = seen.examples(False, ONE_CLASS_COLUMNS)
            recipe = Recipe(min(settings.mixture_steps, ONE_CLASS_STEPS), synthetic_share=1.0)
            n_experts = min(settings.n_experts, N_FOLDS)
            mixture, left_out = Mixture.train_left_out(
                examples, recipe, "one-class", settings, journal, n_experts
            )
            scores = np.column_stack([distances, left_out])
            return cls(mixture, alone), scores

    def score(self, Z, columns):
        """One-class scores (n, 1 to 4) of rows Z (n, d) with evidence (n, c)."""
        distances = self._distances(Z, columns)
        if self.mixture is None:
            return distances
        learned = self.mixture.logits(shown(columns, ONE_CLASS_COLUMNS))
        return np.column_stack([distances, learned])

    def _distances(self, Z, columns):
        """The distances of new rows, (n, 1 to 3)."""
        if self.alone is None:
            return columns[:, column_index(DISTANCE)]
        return self.alone.score(Z)

    def snapshot(self):
        """Tensors and plain values."""
        mixture, alone = (
            None if part is None else part.snapshot() for part in (self.mixture, self.alone)
        )
        return {"mixture": mixture, "alone": alone}

    @classmethod
    def from_snapshot(cls, saved, settings):
        """Rebuild from :meth:`snapshot`."""
        mixture, alone = saved["mixture"], saved["alone"]
        if mixture is not None:
            mixture = Mixture.from_snapshot(mixture, settings.mamba)
        if alone is not None:
            trusted = "width" in alone
            alone = TrustedDistance(**alone) if trusted else TolerantDistance.from_snapshot(alone)
        return cls(mixture, alone)


class ScoreCombiner:
    """Both sides' scores as class-balanced log-odds: "known anomaly OR unlike normals" (M12).

    If no anomaly is known, only the one-class side counts, with the prior shape and without
    calibration.

    Args:
        known: :class:`detection.pvalue.MergedPValue` of the experts' scores, or None.
        unlike: the same for the one-class scores.
        shapes: shapes of both p-values under anomalies, see
            :func:`detection.pvalue.shrunken_shape`.
        weight: prior share of anomalies unlike the known ones.
        calibration: slope and intercept of Platt's calibration.
        n_normals: number of normals that the p-values compare with; None if no anomaly is known,
            and in older files.
    """

    def __init__(self, known, unlike, shapes, weight, calibration=(1.0, 0.0), n_normals=None):
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
            weight: prior share of anomalies unlike the known ones.
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
        self.shapes = [*map(shrunken_shape, self._sides(experts[~normal], one_class[~normal]))]
        self.calibration = platt(self.score(experts, one_class), y)
        return self

    def score(self, experts, one_class):
        """(n,) log-odds from both sides' scores."""
        if self.known is None:
            return likelihood_ratio(self.unlike.minus_log_p(one_class), self.shapes[1])
        slope, shift = self.calibration
        sides = self._sides(experts, one_class)
        return slope * known_or_unlike(*sides, self.weight, self.shapes) + shift

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
        )


class FullDetector:
    """Both sides, and the combiner that joins their scores (``preset="full"``).

    Args:
        evidence: :class:`detection.evidence.Evidence`, with the :class:`Residual` of two C-VAEs,
            each trained on half of the rows.
        known: :class:`KnownSide`, or None if no anomaly is known.
        unlike: :class:`UnlikeSide`.
        judgement: :class:`ScoreCombiner`.
    """

    def __init__(self, evidence, known, unlike, judgement):
        self.evidence = evidence
        self.known = known
        self.unlike = unlike
        self.judgement = judgement

    @classmethod
    def fit(cls, Z, y, generated, settings, journal, subjects=None, aside=None):
        """Arguments and return value are those of :meth:`detection.mixture.MixtureDetector.fit`."""
        with journal.stage("evidence"):
            n_folds = n_folds_of(settings.n_experts)
            leave_out = LeaveOut(Z.numpy(), y.numpy(), n_folds, settings.random_state, subjects)
            evidence, seen = _cross_fit(leave_out, Z, y, generated.numpy(), settings, journal)
        known, experts = None, None
        if y.any():
            known, experts = KnownSide.fit(seen, settings, journal)
        unlike, one_class = UnlikeSide.fit(seen, settings, journal, aside)
        judgement = ScoreCombiner.fit(experts, one_class, y.numpy(), settings.unlike_weight)
        self = cls(evidence, known, unlike, judgement)
        if known is not None:
            self._undo_inversion(seen, experts, one_class, settings)
        scores = self.judgement.score(experts, one_class)
        normal = y.numpy() == 0
        fresh = seen.leave_out.as_fresh(scores, lambda rows: self.score(seen.Z[rows]), normal)
        of_aside = None
        if isinstance(unlike.alone, TolerantDistance):
            if aside is not None:
                of_aside = self.judgement.score(None, unlike.alone.score_aside(aside))
            unlike.alone.forget_folds()
        return Fitted(self, scores, *fresh, of_aside)

    def _undo_inversion(self, seen, experts, one_class, settings):
        """Fit the combiner again if the detector ranks its own training rows in inverted order.

        That is, if known anomalies score below normals on the whole (AUC-ROC < .5). Left-out scores
        cannot show this if a handful of rows are copies of each other. First the experts that
        invert even these rows are dropped, then the one-class side.

        Args:
            seen: :class:`CrossFitted` rows.
            experts: (n, ..) their left-out scores by the known side.
            one_class: (n, ..) their left-out scores by the one-class side.
            settings: has ``unlike_weight`` and ``random_state``.
        """
        y = seen.labels.numpy()
        rng = stage_rng(settings.random_state, "upright")
        of_each = [rng.permutation(np.flatnonzero(y == label)) for label in (0, 1)]
        rows = np.concatenate([some[:UPRIGHT_ROWS] for some in of_each])
        parts = self.parts(seen.Z[rows])
        if roc_auc_score(y[rows], self.judgement.score(*parts)) >= UPRIGHT:
            return
        used = np.array([roc_auc_score(y[rows], column) >= UPRIGHT for column in parts[0].T])
        used |= not used.any()
        for weight in (0.0,) if used.all() else (settings.unlike_weight, 0.0):
            self.judgement = ScoreCombiner.fit(experts, one_class, y, weight, used)
            if roc_auc_score(y[rows], self.judgement.score(*parts)) >= UPRIGHT:
                return

    def parts(self, Z):
        """Both sides' scores (n, ..) of standardised rows (n, d), before they are joined."""
        columns = self.evidence.transform(Z)
        experts = None if self.known is None else self.known.score(Z, columns)
        return experts, self.unlike.score(Z, columns)

    def score(self, Z):
        """(n,) float64 log-odds of standardised rows (n, d)."""
        return self.judgement.score(*self.parts(Z))

    def expert_usage(self, Z):
        """Numbers of the mixture's experts that run for standardised rows (n, d): (n, k).

        If no anomaly is known, those of the one-class mixture; (n, 0) if there is none either.
        """
        columns = self.evidence.transform(Z)
        if self.known is not None:
            return self.known.mixture.experts_of(beside(Z, columns, MIXTURE_COLUMNS))
        if self.unlike.mixture is None:
            return np.zeros((len(Z), 0), dtype=np.int64)
        return self.unlike.mixture.experts_of(shown(columns, ONE_CLASS_COLUMNS))

    def snapshot(self):
        """Tensors, arrays and plain values."""
        return {
            "cvaes": [
                pack_network(copy.deepcopy(residual.cvae).float())
                for residual in self.evidence.residuals
            ],
            "evidence": self.evidence.snapshot(),
            "known": None if self.known is None else self.known.snapshot(),
            "unlike": self.unlike.snapshot(),
            "judgement": self.judgement.snapshot(),
        }

    @classmethod
    def from_snapshot(cls, saved, settings):
        """Rebuild from :meth:`snapshot`; settings: :class:`detection.mixture.DetectorSettings`."""
        cvaes = [read_network(BetaCVAE, packed) for packed in saved["cvaes"]]
        evidence = Evidence.from_snapshot(saved["evidence"], map(Residual, cvaes))
        known = saved["known"] and KnownSide.from_snapshot(saved["known"], settings)
        unlike = UnlikeSide.from_snapshot(saved["unlike"], settings)
        judgement = ScoreCombiner.from_snapshot(saved["judgement"], settings.unlike_weight)
        return cls(evidence, known, unlike, judgement)


def _cross_fit(leave_out, Z, y, generated, settings, journal):
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
    residuals = map(Residual, cvaes)
    evidence, columns = Evidence.fit(
        X, labels, leave_out, residuals, half, rng, max_normals=settings.max_normals
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
    seen = CrossFitted(X, columns, y, generated, generated_columns, leave_out, distances)
    return evidence, seen
