"""The two sides of the full detector: "like a known anomaly", and "unlike the normals".

# DIFF(paper): M10, M11 and M12 are additions; ``preset="paper"`` runs without them.

:class:`KnownSide` has a mixture and kernel experts, :class:`UnlikeSide` a distance and a mixture of
its own. Both are fitted to :class:`CrossFitted` rows and give left-out scores of them, which
``full.py`` joins.

Shapes: n rows, d features, c evidence columns.
"""

from functools import partial
from typing import NamedTuple

import numpy as np
import torch

from swift_hydra.cleaning.additive_expert import AdditiveExpert
from swift_hydra.cleaning.kernel_expert import KernelExpert
from swift_hydra.cleaning.leave_out import LeaveOut
from swift_hydra.detection.coordinates import NormalScores, OwnUnits, PrincipalScores
from swift_hydra.detection.evidence import EvidenceColumns, column_index
from swift_hydra.detection.largest_value import AboutColumns, LargestValue
from swift_hydra.detection.mixture import N_FOLDS, Mixture
from swift_hydra.detection.pvalue import STRENGTH, TAIL, USUAL, TailPValue
from swift_hydra.detection.surroundings import RATIOS
from swift_hydra.detection.tolerant_distance import FAR, TolerantDistance
from swift_hydra.detection.trusted_distance import TrustedDistance
from swift_hydra.geometry import ROUNDING, copies, some_of
from swift_hydra.pretrain import Recipe
from swift_hydra.seeds import stage_rng
from swift_hydra.training.batches import Examples, with_view

ONE_CLASS_STEPS = 200  # most training steps: seven columns are learned sooner than a table
FEW_KNOWN = 8  # fewer known anomalies leave the one-class side as it is without any
ENOUGH_ROWS = 10 * FAR  # normals, for that
CLIP = (-4.0, 8.0)  # bounds of evidence that experts see, in standard deviations of the normals
# Evidence that each model sees. The ratios use the known anomalies: they are no one-class evidence.
# Nor is the largest value, as generated rows have larger ones than anomalies do: the one-class
# mixture would look at little else (letter .91 -> .82 AUC-ROC).
MIXTURE_COLUMNS = ("knn5", "knn20", "lof5", "gaussian", "pca", "cvae", *RATIOS, "largest")
ONE_CLASS_COLUMNS = ("knn5", "knn20", "lof5", "lof20", "gaussian", "pca", "cvae")
DISTANCE = ("knn5",)
KERNEL_COLUMNS = ("knn5", "lof5", *RATIOS, "largest")
# Each kernel expert's norm (or a sum over columns) and its inputs: normal scores of the ranks,
# values and evidence, or whitened values along the principal directions.
KERNELS = (
    ("l2", "ranks"),
    ("l1", "ranks"),
    ("l1", "evidence"),
    ("l2", "directions"),
    ("additive", "ranks"),
)
# What the known side can do without, to measure what it contributes.
PARTS = ("mixture", "kernels", "evidence")
# Prior left-out AUC-ROC of the mixture and of each kernel expert, and how many known anomalies it
# counts for. Along the directions it is weak: that expert sees sums and ratios that no other does,
# and may be blind to all else.
OF_DIRECTIONS = (0.65, 5)
PRIORS = [(USUAL, STRENGTH)]
PRIORS += [OF_DIRECTIONS if sees == "directions" else PRIORS[0] for _, sees in KERNELS]


def _kind_of(norm):
    """The class of a kernel expert with this norm."""
    return AdditiveExpert if norm == "additive" else KernelExpert


def shown(columns, names):
    """The named evidence columns out of (..., c), clipped as experts see them: float32 tensor."""
    some = columns[..., column_index(names, columns.shape[-1])]
    return torch.from_numpy(np.clip(some, *CLIP).astype(np.float32))


def beside(Z, columns, names):
    """Features Z (n, d) and the named evidence columns: (n, d + len(names)) float32 tensor."""
    features = torch.from_numpy(np.asarray(Z, dtype=np.float32))
    return torch.cat([features, shown(columns, names)], dim=1)


class CrossFitted(NamedTuple):
    """The training rows as both sides see them; where neither looks at evidence, it is None."""

    Z: np.ndarray  # (n, d)
    columns: EvidenceColumns | None  # their cross-fitted evidence
    labels: torch.Tensor  # (n,)
    generated: np.ndarray  # (m, d) generated anomalies
    generated_columns: EvidenceColumns | None
    leave_out: LeaveOut
    distances: np.ndarray | None  # (n, 1) column ``knn5`` without the row itself, as scoring has it
    about: AboutColumns
    copied: torch.Tensor | None = None  # (m,) folds of the rows that generated ones copy, else -1

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
        made = (generated, folds, views, generated_views, self.copied)
        return Examples(X, self.labels, *made, left_out)


def copied_folds(generated, Z, folds):
    """Folds (n,) of the rows Z (n, d) that generated rows (m, d) are copies of, else -1: (m,)."""
    m = len(generated)
    same = copies(np.concatenate([generated, Z]), ROUNDING)
    fold = np.full(same.max() + 1, -1)
    fold[same[m:]] = folds
    return torch.from_numpy(fold[same[:m]])


class KnownSide:
    """Is a row like the known anomalies? The mixture and the kernel experts (M9, M11).

    A detector without known anomalies has no such side.

    Args:
        mixture: a :class:`detection.mixture.Mixture` on features and evidence.
        ranks: a :class:`detection.coordinates.NormalScores`.
        directions: a :class:`detection.coordinates.PrincipalScores`; None in older files.
        kernels: :class:`cleaning.kernel_expert.KernelExpert` objects.
        sees_evidence: False if the experts see the features alone.
        own_units: a :class:`detection.coordinates.OwnUnits`; None without skewed columns.
    """

    def __init__(self, mixture, ranks, directions, kernels, sees_evidence=True, own_units=None):
        self.mixture = mixture
        self.ranks = ranks
        self.directions = directions
        self.kernels = kernels
        self.sees_evidence = sees_evidence
        self.own_units = own_units

    @staticmethod
    def used(without):
        """(1 + kernels,) bool: the experts that count without some of ``PARTS``."""
        kernels = ["kernels" not in without] * len(KERNELS)
        return np.array(["mixture" not in without, *kernels])

    @classmethod
    def fit(cls, seen, settings, journal):
        """Fit to :class:`CrossFitted` rows; returns it and left-out scores (n, 1 + kernels)."""
        own_units = seen.about.own_units and seen.about.own_units.fit(seen.Z)
        sees_evidence = "evidence" not in settings.without
        self = cls(None, NormalScores.fit(seen.Z), None, [], sees_evidence, own_units)
        in_all_units = self._in_all_units(seen.Z)
        self.directions = PrincipalScores.fit(in_all_units)
        with journal.stage("mixture"):
            examples = seen.examples(True, self._names(MIXTURE_COLUMNS))
            recipe = Recipe(settings.mixture_steps, settings.synthetic_share)
            self.mixture, left_out = Mixture.train_left_out(
                examples, recipe, "mixture", settings, journal, settings.n_experts
            )
        experts = [left_out]
        y = seen.labels.numpy()
        with journal.stage("kernels"):
            inputs = self._inputs(seen.Z, seen.columns.all)
            views = {  # the inputs that depend on other rows, as they are without a fold's rows
                "evidence": partial(_evidence_without, seen, self._names(KERNEL_COLUMNS)),
                "directions": partial(_directions_without, in_all_units, seen.leave_out.folds),
            }
            for number, (norm, sees) in enumerate(KERNELS):
                expert = _kind_of(norm)(norm, sees)
                rng = stage_rng(settings.random_state, f"kernel{number}")
                most, view = settings.max_centres, views.get(sees)
                experts.append(expert.fit(inputs[sees], y, rng, most, seen.leave_out, view))
                self.kernels.append(expert)
        return self, np.column_stack(experts)

    def _names(self, names):
        """The evidence columns that experts see out of ``names``."""
        return names if self.sees_evidence else ()

    def _of_mixture(self, Z, columns):
        """The mixture's inputs for rows Z (n, d) with evidence (n, c)."""
        return beside(Z, columns, self._names(MIXTURE_COLUMNS))

    def _inputs(self, Z, columns):
        """The kernel experts' inputs, by name, for rows Z (n, d) with evidence (n, c)."""
        return {
            "ranks": self.ranks(Z),
            "evidence": beside(Z, columns, self._names(KERNEL_COLUMNS)).numpy(),
            "directions": self.directions and self.directions(self._in_all_units(Z)),
        }

    def _in_all_units(self, Z):
        return Z if self.own_units is None else self.own_units(Z)

    def score(self, Z, columns):
        """The experts' scores (n, 1 + kernels) of rows Z (n, d) with evidence (n, c)."""
        experts = [self.mixture.logits(self._of_mixture(Z, columns))]
        inputs = self._inputs(Z, columns)
        experts += [expert.score(inputs[expert.sees]) for expert in self.kernels]
        return np.column_stack(experts)

    def experts_of(self, Z, columns):
        """Numbers of the mixture's experts that run for each row: (n, k)."""
        return self.mixture.experts_of(self._of_mixture(Z, columns))

    def snapshot(self):
        """Tensors, arrays and plain values."""
        kernels = [expert.snapshot() for expert in self.kernels]
        return {
            "mixture": self.mixture.snapshot(),
            "ranks": self.ranks.snapshot(),
            "directions": self.directions and self.directions.snapshot(),
            "kernels": kernels,
            "sees_evidence": self.sees_evidence,
            "own_units": self.own_units and self.own_units.snapshot(),
        }

    @classmethod
    def from_snapshot(cls, saved, settings):
        """Rebuild from :meth:`snapshot`."""
        kernels = [_kind_of(expert["norm"]).from_snapshot(expert) for expert in saved["kernels"]]
        mixture = Mixture.from_snapshot(saved["mixture"], settings.mamba)
        directions = saved.get("directions")  # older files have none
        maps = NormalScores(**saved["ranks"]), directions and PrincipalScores(**directions)
        own_units = saved.get("own_units")
        own_units = own_units and OwnUnits(**own_units)
        return cls(mixture, *maps, kernels, saved.get("sees_evidence", True), own_units)


def _evidence_without(seen, names, fold):
    return beside(seen.Z, seen.columns.without[fold], names).numpy()


def _directions_without(rows, folds, fold):
    """The training rows (n, d) along the principal directions of all other folds' rows."""
    others = folds != fold
    return PrincipalScores.fit(rows[others] if others.any() else rows)(rows)


class LoneTail:
    """What a row's largest value adds to its distance, beyond the largest values of the normals.

    A distance hardly shows a single value far out among many columns. Within the normals' .9
    quantile nothing is added: there the largest value is noise beside the distance.

    Args:
        largest: a :class:`detection.largest_value.LargestValue`.
        tail: the :class:`detection.pvalue.TailPValue` of the normals' largest values.
        weight: added for every mean excess of the tail.
    """

    WEIGHT = 0.5  # standard deviations of the normals' distances

    def __init__(self, largest, tail, weight):
        self.largest = largest
        self.tail = tail
        self.weight = weight

    @classmethod
    def fit(cls, Z, distances, y, largest):
        """Fit to training rows; returns it and their distances with what is added.

        Args:
            Z: (n, d) the rows.
            distances: (n, m) their left-out distances.
            y: (n,) labels.
            largest: their :class:`detection.largest_value.LargestValue`.
        """
        normal, far = y == 0, largest(Z, among=Z)
        weight = cls.WEIGHT * float(np.std(distances[normal, 0], dtype=np.float64))
        self = cls(largest, TailPValue.fit(far[normal]), weight)
        return self, self._added(distances, far)

    def added(self, distances, Z):
        """Distances (n, m) of new rows Z (n, d), the first of them with what is added."""
        return self._added(distances, self.largest(Z))

    def _added(self, distances, far):
        """The same, given the rows' largest values (n,)."""
        beyond = np.maximum(self.tail(far) + np.log(TAIL), 0.0)
        more = np.zeros(distances.shape)
        more[:, 0] = self.weight * beyond
        return distances + more

    def snapshot(self):
        """Arrays and plain values."""
        tail = self.tail.snapshot()
        return self.largest.snapshot() | {"tail": tail, "weight": self.weight}

    @classmethod
    def from_snapshot(cls, saved):
        """Rebuild from :meth:`snapshot`."""
        tail = TailPValue(*saved["tail"])
        return cls(LargestValue.from_snapshot(saved), tail, saved["weight"])


class UnlikeSide:
    """Is a row unlike the normals? A distance to them, and a learned expert (M12).

    Args:
        mixture: a :class:`detection.mixture.Mixture` on evidence alone that learned to separate
            normals from generated rows; None without generated rows, or beside a
            TolerantDistance.
        alone: the distance if no anomaly is known: a
            :class:`detection.trusted_distance.TrustedDistance` if the rows are trusted to be
            normal, else a :class:`detection.tolerant_distance.TolerantDistance`, also if hardly any
            is known (:meth:`tolerates`). None if more are: then the distance is that to five
            normals.
        lone: a :class:`LoneTail`; None beside a TolerantDistance, which has its own measure of this
            kind, and in older files.
    """

    def __init__(self, mixture, alone=None, lone=None):
        self.mixture = mixture
        self.alone = alone
        self.lone = lone

    @staticmethod
    def tolerates(y, settings):
        """Is this side to tolerate hidden anomalies, as where nothing is known?

        Too few known anomalies tell neither which rows hide others nor whether the learned expert
        sees what this table's are. A short table is left to its five neighbours: of it, twenty are
        no neighbourhood.

        Args:
            y: (n,) labels.
            settings: :class:`detection.mixture.DetectorSettings`.
        """
        n_known = int((y == 1).sum())
        enough = n_known == 0 or len(y) - n_known >= ENOUGH_ROWS
        return not settings.trust_normals and n_known < FEW_KNOWN and enough

    @classmethod
    def fit(cls, seen, settings, journal, aside=None, largest=None):
        """Fit to :class:`CrossFitted` rows; returns it and left-out scores (n, 1 to 4).

        Args:
            seen: the rows.
            settings: :class:`detection.mixture.DetectorSettings`.
            journal: a :class:`journal.Journal`.
            aside: the :class:`cleaning.suspects.AsideRows`, if there are any.
            largest: the rows' :class:`detection.largest_value.LargestValue`; None makes it.
        """
        with journal.stage("one-class"):
            y = seen.labels.numpy()
            rng = stage_rng(settings.random_state, "one-class/reference")
            if cls.tolerates(y, settings):
                return cls._tolerant(seen, y == 0, rng, aside)
            alone, distances = None, seen.distances
            if not y.any():
                subjects = seen.leave_out.subjects
                alone = TrustedDistance.fit(seen.Z, rng, seen.leave_out.coded, subjects)
                distances = alone.score(seen.Z, True, subjects)
            largest = largest or LargestValue.of(seen.Z, seen.about)
            lone, distances = LoneTail.fit(seen.Z, distances, y, largest)
            if not len(seen.generated) or seen.columns is None:
                return cls(None, alone, lone), distances
            # The only anomalies here are generated ones: this side has to find those that are
            # unlike the known ones.
            examples = seen.examples(False, ONE_CLASS_COLUMNS)
            recipe = Recipe(min(settings.mixture_steps, ONE_CLASS_STEPS), synthetic_share=1.0)
            n_experts = min(settings.n_experts, N_FOLDS)
            mixture, left_out = Mixture.train_left_out(
                examples, recipe, "one-class", settings, journal, n_experts
            )
            scores = np.column_stack([distances, left_out])
            return cls(mixture, alone, lone), scores

    @classmethod
    def _tolerant(cls, seen, normal, rng, aside):
        """A side with a TolerantDistance alone, and its left-out scores (n, 1).

        ``normal``: (n,) bool, the rows without a known anomaly, which it measures from.
        """
        coded, subjects = seen.leave_out.coded, seen.leave_out.subjects
        rows = seen.Z[normal], rng, *some_of(normal, coded, subjects)
        alone = TolerantDistance.fit(*rows, aside, seen.about)
        distances = np.empty((len(normal), 1))
        for others in (True, False):  # known anomalies are new to it
            some = normal == others
            of_subjects = None if subjects is None else subjects[some]
            distances[some] = alone.score(seen.Z[some], others, of_subjects)
        return cls(None, alone), distances

    @property
    def relations(self):
        """The :class:`detection.largest_value.KeptRelations` of the training rows, or None."""
        holder = self.lone or getattr(self.alone, "lone", None)  # a LoneTail, a LoneExcess
        return holder and holder.largest.relations

    def score(self, Z, columns):
        """One-class scores (n, 1 to 4) of rows Z (n, d) with evidence (n, c), None if unseen."""
        distances = self._distances(Z, columns)
        if self.mixture is None:
            return distances
        learned = self.mixture.logits(shown(columns, ONE_CLASS_COLUMNS))
        return np.column_stack([distances, learned])

    def _distances(self, Z, columns):
        """The distances of new rows, (n, 1 to 3)."""
        if self.alone is None:
            distances = columns[:, column_index(DISTANCE)]
        else:
            distances = self.alone.score(Z)
        return distances if self.lone is None else self.lone.added(distances, Z)

    def experts_of(self, Z, columns):
        """Numbers of the mixture's experts that run for each row: (n, k), (n, 0) without one."""
        if self.mixture is None:
            return np.zeros((len(Z), 0), dtype=np.int64)
        return self.mixture.experts_of(shown(columns, ONE_CLASS_COLUMNS))

    def snapshot(self):
        """Tensors and plain values."""
        names = ("mixture", "alone", "lone")
        parts = (getattr(self, name) for name in names)
        return {n: part and part.snapshot() for n, part in zip(names, parts, strict=True)}

    @classmethod
    def from_snapshot(cls, saved, settings):
        """Rebuild from :meth:`snapshot`."""
        mixture, alone = saved["mixture"], saved["alone"]
        if mixture is not None:
            mixture = Mixture.from_snapshot(mixture, settings.mamba)
        if alone is not None:
            trusted = "width" in alone
            alone = TrustedDistance(**alone) if trusted else TolerantDistance.from_snapshot(alone)
        lone = saved.get("lone") and LoneTail.from_snapshot(saved["lone"])
        return cls(mixture, alone, lone)
