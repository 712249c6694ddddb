"""Swift Hydra: a latent policy generates anomalies, a mixture of Mamba experts learns from them.

    python SwiftHydra.py                       # the embedded UCI Yeast set
    python SwiftHydra.py yeast --protocol unseen --seed 1
    python SwiftHydra.py path/to/table.csv --label-column outlier
    python SwiftHydra.py path/to/table.csv --label-column none    # nothing is known: ranks all rows
    python SwiftHydra.py path/to/table.csv --resume    # goes on where the same command was cut off
    python SwiftHydra.py yeast --eval-only results/47_yeast/seen/seed0/checkpoint.pt
    python SwiftHydra.py score --checkpoint results/table/seen/seed0/checkpoint.pt --data new.csv

Uses what pretrain.py saved for the same rows and settings, and pretrains first when nothing is
there. Writes ``results/<dataset>/<protocol>/seed<k>/`` and prints ``AUC-ROC 0.xxxx  AUC-PR 0.xxxx``
last; without labels, ``scores.csv`` there ranks every row. :class:`SwiftHydra` is the same method
for your own code, with scikit-learn's conventions; :func:`generate` and :func:`run_episodes` are
the paper's loop. M1 to M13 in comments are the parts of the method as docs/method.md lists them.
"""

import copy
import importlib
import math
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import NamedTuple

if __name__ == "__main__":
    from swift_hydra.settings import guard_imports

    guard_imports()

import numpy as np
import torch

from swift_hydra import runner
from swift_hydra.cleaning.learned_rows import learned_rows
from swift_hydra.cleaning.suspects import in_doubt
from swift_hydra.data.columns import ColumnSettings
from swift_hydra.data.frames import name_of_labels
from swift_hydra.data.rows import TrainingRows
from swift_hydra.dataloader import RowOptions
from swift_hydra.detection.full import FullDetector
from swift_hydra.detection.largest_value import AboutColumns
from swift_hydra.detection.mixture import DetectorSettings, MixtureDetector
from swift_hydra.detection.pvalue import weight_of_unlike
from swift_hydra.distillation.student import Student
from swift_hydra.estimator import TableDetector, all_or_nothing, in_chunks
from swift_hydra.exported import SUFFIX, Exported, require_onnx, write_onnx
from swift_hydra.flags import (
    RunOptions,
    check_options_and_experts,
    refuse_before_the_work,
    refuse_flags_without_effect,
)
from swift_hydra.generation.controls import (
    COPIED,
    DRAWN,
    GENERATORS,
    N_CANDIDATES,
    PROPOSERS,
    draw_filtered,
)
from swift_hydra.generation.environment import LatentEnvironment
from swift_hydra.generation.refresh import detector_loss, refresh
from swift_hydra.generation.reward import Coverage
from swift_hydra.geometry import effective_rank, twins
from swift_hydra.journal import Journal, Progress, are_numbers
from swift_hydra.model import choose_n_experts
from swift_hydra.modes import own_modes
from swift_hydra.pretrain import (
    PretrainSettings,
    Recipe,
    folder_of,
    load_and_tell,
    pretrain,
)
from swift_hydra.run import score_file
from swift_hydra.run.figures import require_matplotlib
from swift_hydra.run.resume import PACE
from swift_hydra.scan.backends import check_backend
from swift_hydra.seeds import stage_rng
from swift_hydra.settings import (
    InputError,
    check_choice,
    check_settings,
    first_line,
    parse_config,
    place_of,
    resolve_device,
    run_main,
    setting,
    tell,
)
from swift_hydra.snapshot import in_own_numbers
from swift_hydra.thresholds import TrainingScores, check_contamination, compared_with
from swift_hydra.training.seeds import streams
from swift_hydra.training.threads import few_threads

if __name__ == "SwiftHydra":
    # Imported by the clone's short name: use the package's module, so that there is one class only,
    # and one name for it in pickles.
    sys.modules[__name__] = importlib.import_module("swift_hydra.SwiftHydra")

DATASET = "47_yeast"  # edit here, or give a path or an ADBench name on the command line
PRESETS = {"full": FullDetector, "paper": MixtureDetector}
GAMMA = 0.6  # the reward's weight of diversity in episode e is GAMMA ** e
# DIFF(paper): in the paper, all accepted rows count as data in the next episode's reward. Here the
# reward uses the table alone, and only the selection keeps new rows away from accepted ones: from
# so many of the latest, which bounds the kernel matrix.
LATEST = 256
FEWEST = 400
MOST = 1000  # bounds of the number of generated rows where ``n_synthetic`` is None
GENERATING = threading.RLock()  # held while what a fit put off is generated


# --- the class ------------------------------------------------------------------------------------


@dataclass(eq=False, repr=False, kw_only=True)
class SwiftHydra(TableDetector, PretrainSettings, ColumnSettings):
    """Anomaly detector for tables in which all, a few or none of the anomalies are known.

    Higher scores are more anomalous. Labels: 1 is a known anomaly; 0 is taken for normal, though
    such rows may be hidden anomalies; -1 is unlabelled and treated like 0, but never trusted.
    Without any 1, or without y, no anomaly is known. Rows that are probably hidden anomalies are
    not learned from (M13). Every setting is a keyword; most are flags of the command line too.

    Args:
        random_state: seed of every stage; the same seed gives the same scores to the bit on a CPU.
        preset: "paper" is M1-M9 and M13; "full" adds evidence (M10), kernel experts (M11) and the
            one-class OR (M12).
        generator: where generated anomalies come from: "rl" | "gradient" | "cvae" | "noise" |
            "none", or one of the benchmark's controls (see generation/controls.py).
        n_experts: experts of the mixture, or "auto" (see :func:`model.choose_n_experts`).
        k: experts that run for one row.
        n_members: independently trained mixtures, whose scores are averaged; with three a fit takes
            1.6 to 2 times as long.
        n_episodes: episodes of the policy (M8).
        n_synthetic: generated rows; None balances the classes (400 to 1000).
        synthetic_share: share of generated rows in the anomaly half of a training batch.
        unlike_weight: w of M12, the prior share of anomalies unlike the known ones; lowered where
            many of the unlabelled rows look like known anomalies, raised where these are told by
            being unlike normals.
        contamination: expected share of fresh rows from the same source that score above the
            threshold (with "paper", the share of the training rows), or "auto": the estimated
            share of anomalies, .05 where no anomaly is known. Only sets ``threshold_``.
        false_alarms: share of normal rows that ``predict`` may flag; replaces ``contamination``
            unless it is None. With "paper" more are flagged, since it has no left-out scores.
        trust_normals: rows labelled 0 are learned from as normal, even if they look like hidden
            anomalies.
        fast: train a student, a small mixture that imitates the detector's scores and scores in
            its place.
        verify: with ``fast``, the share of rows that the detector scores instead of the student:
            those that score as high as this share of the training rows that are no known anomalies.
            None means .03, .1 if no anomaly is known, or all rows if the student does not follow
            the detector.
        impute: how missing values are treated, see :class:`data.columns.Preparation`.
        categorical: how text columns are treated.
        dates: take dates as days since 1970; otherwise they are refused.
        anomaly_label: the label of anomalies; all others, but -1 beside them, are normal. None
            takes 1, True, yes, or the larger of two numbers.
        majority_anomalies: more than half of the rows may be labelled as anomalies, without a
            warning.
        cvae_steps: training steps of every Beta C-VAE.
        detector_steps: training steps of the pretrained detector.
        beta: weight of the C-VAE's KL term.
        mixture_steps: training steps of the final mixture.
        max_samples: most training rows that are learned from. A larger table is sampled, and at
            most half of the sample are known anomalies; the other rows are scored like new ones.
        max_normals: most normals in the reference set of the neighbour search; a larger table is
            sampled.
        max_centres: most rows that carry a coefficient in a kernel expert, at most half of them
            anomalies.
        device: "auto", "cpu", "cuda", "cuda:1": where pretraining and the mixtures run. The small
            networks of the episodes, the evidence and the student stay on the CPU.
        mamba: "auto", "torch", "numba" or "official", see :func:`scan.backends.choose_backend`.
        cleaning_settings: a dict of arguments of :func:`cleaning.suspects.set_aside`, for
            ablations: ``{"looks": ("likeness",)}``.
        policy_settings: a dict of arguments of :class:`generation.environment.LatentEnvironment`
            and its reward, and ``warm_up``, for ablations.
        mixture_settings: a dict of arguments of :class:`model.MoEDetector`, for ablations.
        detector_settings: a dict of what "full" leaves out, for ablations: ``{"without":
            ("mixture",)}`` or others of :data:`detection.sides.PARTS`.
        progress: a callable ``(stage, step, n_steps, **losses)``, or None.

    Attributes:
        classes_: what 0 and 1 stand for in the labels. If several labels are normal ones, 0 is the
            first of them, and ``predict`` gives it for all.
        n_features_in_: d.
        settings_: every setting as it was at the time of the fit.
        synthetic_: (m, d') generated anomalies in the input's units, columns as prepared: neither
            rounded nor bounded, so that a flag may be any number. If no
            score needs them ("full", no anomaly known, rows not trusted, not ``fast``), they are
            generated when they are first asked for, or saved.
        episode_log_: one dict per episode, likewise; a loaded detector has none.
        label_name_: name of the label column, or None. A data frame to score may still hold it.
        detector_: scores standardised rows.
        device_: the torch device of the detector's networks.
        basis_: what the training rows' scores are made of, a :class:`thresholds.TrainingScores`.
        columns_: what was learned about the columns, a :class:`data.learned_columns.Columns`.
        decision_scores_: (n,) scores of the training rows, with "full" by models that did not see
            the row.
        fresh_scores_: (n,) the scores that new copies of the training rows would get; they differ
            from ``decision_scores_`` only for rows that occur repeatedly.
        expected_scores_: (n,) ascending scores that as many fresh rows of the table are expected
            to get (with "paper", the scores of the training rows); with groups (n_groups_,).
            ``threshold_`` is derived from them (docs/tables.md, "Copies").
        normal_scores_: the same for rows without a known anomaly; p-values compare with them.
        kept_: (n,) False for the training rows that were not learned from: set aside as probable
            anomalies (M13), or not drawn.
        sampled_: (n,) False for the rows of a larger table that were not drawn (``max_samples``).
        n_groups_: number of groups of training rows, or None if ``fit`` was given no groups.
        estimated_contamination_: estimated share of anomalies among the training rows, known ones
            included.
        student_: the :class:`distillation.student.Student` that ``fast`` trained, or None.
        threshold_: the score above which ``predict`` flags.
        labels_: (n,) 1 for the training rows whose ``fresh_scores_`` are above it, else 0.
        feature_names_in_: names of the columns; missing if the training table had none.
        n_experts_: experts of the mixture.
        effective_rank_: of the rows that were learned from, see :func:`geometry.effective_rank`.
        seconds_: wall-clock seconds per stage; a loaded detector has none.

    Raises:
        InputError: (a ValueError) from ``fit`` and scoring for NaN (with the column's name),
            infinity, text, wrong shapes, anomalies only, unknown option values.
    """

    random_state: int = setting(0, "seed of every stage", low=0, high=2**32 - 1, flag=False)
    preset: str = setting(
        "full",
        "paper: the paper's parts alone; full: with distances to the normals, kernel experts and "
        "what is unlike every normal",
        choices=tuple(PRESETS),
    )
    generator: str = setting("rl", "where generated anomalies come from", choices=GENERATORS)
    n_experts: str | int = setting(
        "auto", "experts of the mixture: auto (by the data's complexity) or a number"
    )
    k: int = setting(2, "experts that run for one row", low=1, high=10**6)
    n_members: int = setting(1, "mixtures whose mean scores", low=1, high=100)
    n_episodes: int = setting(5, "episodes of the policy", low=1, high=10**6)
    n_synthetic: int | None = setting(
        None,
        "generated anomalies (default: balances the classes, 400 to 1000)",
        low=1,
        high=10**6,
    )
    synthetic_share: float = setting(
        0.2, "share of generated rows in the anomaly half of a batch", low=0, high=0.99
    )
    unlike_weight: float = setting(
        0.3, "prior share of anomalies unlike the known ones", low=0, high=0.99
    )
    contamination: float | str = setting(
        "auto", "share of fresh rows above the threshold, or auto: the estimated one", flag=False
    )
    false_alarms: float | None = setting(
        None, "share of normal rows that may be above the threshold", low=0, high=0.99
    )
    fast: bool = setting(False, "score with a small mixture that learned the detector's scores")
    verify: float | None = setting(
        None,
        "with fast: share of rows, the highest scores, that the detector scores again (default: "
        ".03, .1 if no anomaly is known, or all where the small mixture does not follow it)",
        low=0,
        high=1,
    )
    mixture_steps: int = setting(300, "training steps of the final mixture", low=1, high=10**6)
    max_normals: int = setting(
        4096, "normals that stand for a larger table in the neighbour search", low=20, high=10**9
    )
    max_centres: int = setting(
        1000, "rows that stand for a larger table in each kernel expert", low=4, high=10**5
    )
    policy_settings: dict | None = setting(None, "of the environment and its reward", flag=False)
    mixture_settings: dict | None = setting(None, "of the experts", flag=False)
    detector_settings: dict | None = setting(None, "of the full detector", flag=False)
    progress: Callable | None = setting(None, "called with stage, step, n_steps", flag=False)

    def fit(
        self,
        X=None,
        y=None,
        groups=None,
        *,
        X_train=None,
        y_train=None,
        pretrained=None,
        journal=None,
    ):
        """Train on rows, with known anomalies or without.

        Args:
            X: (n, d) array-like, data frame or Table, or :class:`data.rows.TrainingRows` without y.
            y: (n,) labels of -1, 0 and 1, or what docs/tables.md lists; None if no row has a label.
            groups: (n,) names or numbers of the subjects (patients, machines) that the rows were
                measured on, where a subject has several rows: they are left out together. None:
                every row has its own subject.
            X_train: ADBench's name for X.
            y_train: ADBench's name for y.
            pretrained: a :class:`pretrain.Pretrained` for the same rows and seed, or a function of
                the :class:`cleaning.learned_rows.LearnedRows` that returns one, which is called if
                the generator starts from networks. None pretrains.
            journal: a :class:`journal.Journal` of a run; None makes one that calls ``progress``.

        Returns:
            Itself.

        Raises:
            InputError: for an argument given under both of its names, rows or labels that cannot
                be read, and settings that leave nothing to learn from.
            FloatingPointError: if a loss is not finite, naming the training and its step.
        """
        if not (X is None or X_train is None) or not (y is None or y_train is None):
            raise InputError("X and X_train, y and y_train are two names of one: give one of each")
        X = X_train if X is None else X
        y = y_train if y is None else y
        if isinstance(X, TrainingRows) and not (y is None and groups is None):
            raise InputError(
                "y, groups: rows of one table have their labels and groups already: leave them out"
            )
        self.check_settings()
        with all_or_nothing(self):  # a failed fit leaves the previous one in use
            rows = X if isinstance(X, TrainingRows) else TrainingRows.read(X, y, self, groups)
            self.label_name_ = name_of_labels(y, rows.columns.own_names or ())
            with own_modes(), few_threads(rows.Z.size):
                self._fit(rows, pretrained, journal or Journal(self.progress))
            return self._set_threshold()

    def _fit(self, rows, pretrained, journal):
        """:meth:`fit` on :class:`data.rows.TrainingRows`, without the threshold."""
        seed = int(self.random_state)
        names = [field.name for field in fields(SwiftHydra) if field.name != "progress"]
        refuse_before_the_work(self, rows.y)
        for name in ("synthetic_", "episode_log_", "_later"):
            vars(self).pop(name, None)  # of an earlier fit
        own = in_own_numbers(self)
        self.settings_ = copy.deepcopy({name: getattr(own, name) for name in names})
        with journal.stage("cleaning"):
            learned = learned_rows(rows, seed, own)
        Z, labels = learned.Z, learned.y
        wanted, self.effective_rank_ = choose_n_experts(learned.Z.numpy())
        self.n_experts_ = wanted if self.n_experts == "auto" else int(self.n_experts)
        if int(self.k) > max(SwiftHydra.k, self.n_experts_):
            tell(f"k={self.k}: the mixture has {self.n_experts_} experts, all of them run")
        self.device_ = resolve_device(self.device)
        settings = self._settings_to_fit(rows, learned)
        generated = Z[:0]
        preset = PRESETS[self.preset]
        if pretrained or self.fast or preset.learns_from_generated(labels, settings):
            generated = self._generate(rows.columns, learned, own, pretrained, journal)
        else:
            settled = type(self)(**own.get_params(deep=False))
            self._later = (rows.columns, learned, settled)
        about = learned.subjects, learned.aside, AboutColumns.of(rows)
        fitted = preset.fit(Z, labels, generated, settings, journal, *about)
        self.detector_ = fitted.detector
        fresh = self._keep_scores(rows, learned, fitted)
        self.columns_ = rows.columns
        self.student_ = None
        if self.fast:
            with journal.stage("student"):
                self._train_student(rows, fresh, generated.numpy(), journal)
        self._set_scores()
        self._name_features()
        self.n_features_in_ = rows.columns.n_features
        self.classes_ = rows.classes
        self.seconds_ = journal.seconds

    def _generate(self, columns, learned, settings, pretrained=None, journal=None):
        """Generate anomalies (m, d) float32, and set ``synthetic_`` and ``episode_log_``.

        Args:
            columns: the :class:`data.learned_columns.Columns`.
            learned: the :class:`cleaning.learned_rows.LearnedRows`.
            settings: those of the fit.
            pretrained, journal: see :meth:`fit`.
        """
        seed, journal = settings.random_state, journal or Journal(self.progress)
        Z, labels = learned.Z, learned.y
        if settings.generator not in ("none", *COPIED):
            with journal.stage("pretrain"):
                if pretrained is None:
                    pretrained = pretrain(Z, labels, seed, settings, journal)
                elif callable(pretrained):
                    pretrained = pretrained(learned)
        with journal.stage("episodes"):
            rows, log = generate(Z, labels, pretrained, seed, settings, journal)
        settings._say_if_fewer(len(rows))
        if settings.preset == "paper" and not labels.any() and not len(rows):
            raise InputError(
                f"generator={settings.generator!r} left no generated row and y marks no anomaly: "
                "the mixture has nothing to learn: give another generator, or preset='full'"
            )
        self.synthetic_, self.episode_log_ = columns.in_units(rows.numpy()), log
        return rows

    def __getattr__(self, name):
        """Generate the anomalies that no score needed once they are asked for."""
        if name in ("synthetic_", "episode_log_"):
            self._generate_later()
            if name in vars(self):
                return vars(self)[name]
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __getstate__(self):
        """The state to pickle; it has the generated anomalies in place of the rows they need."""
        self._generate_later()
        return super().__getstate__()

    def _generate_later(self):
        """Generate what :meth:`_fit` put off, if it did; one thread does, others wait for it."""
        with GENERATING:
            if "_later" in vars(self):
                columns, learned, settings = self._later
                with own_modes(), few_threads(learned.Z.numel()):
                    self._generate(columns, learned, settings)
                del self._later

    def _say_if_fewer(self, n_rows):
        """Warn if fewer rows were generated than were asked for, or none at all."""
        if self.generator == "none" or n_rows >= (self.n_synthetic or 1):
            return
        more = "" if self.generator in DRAWN else ": more n_episodes try more"
        few = f"n_synthetic={self.n_synthetic}: only {n_rows}"
        few = few if self.n_synthetic else f"generator={self.generator!r}: none"
        tell(f"{few} of the candidates passed the filter{more}")

    def _say_what_trust_does(self, y):
        """Warn if ``trust_normals`` is set and none of the labels y (n,) can be trusted."""
        if self.trust_normals and (y == -1).all():
            tell(
                "trust_normals takes rows labelled 0 for normal, and no row has a label: label "
                "them 0 (y = zeros) to have them trusted",
            )

    def _keep_scores(self, rows, learned, fitted):
        """Set the attributes that hold the training rows' scores.

        Returns the scores (m,) that rows that were not learned from get as new ones.
        """
        self.kept_ = learned.kept
        self.sampled_ = learned.sampled
        aside = ~learned.kept
        fresh = in_chunks(fitted.detector.score, rows.Z[aside])
        twin = None if learned.sampled.all() else twins(rows.Z, learned.kept)
        normal = compared_with(rows.y, self.trust_normals, rows.subjects)
        left_out = fresh.copy()
        if fitted.aside is not None:
            left_out[learned.sampled[aside]] = fitted.aside
        again = None
        if learned.aside is not None and learned.aside.stand_for is not None:
            weights = np.stack([np.ones(len(fresh)), np.zeros(len(fresh))])
            weights[:, learned.sampled[aside]] = learned.aside.stand_for
            again = fresh, weights
        self.basis_ = TrainingScores.of(learned.kept, fitted, left_out, normal, twin, again)
        if fitted.aside is not None:  # a new copy of a code has one neighbour more
            codes = np.flatnonzero(learned.sampled[aside])[learned.aside.coded]
            self.basis_.fresh[np.flatnonzero(aside)[codes]] = fresh[codes]
        self.n_groups_ = rows.n_subjects
        if rows.subjects is not None:
            self.basis_ = self.basis_.of_subjects(rows.subjects, normal)
        n_doubtful = in_doubt(rows.y, self.trust_normals).sum()
        n_anomalies = (rows.y == 1).sum() + learned.share * n_doubtful
        self.estimated_contamination_ = float(n_anomalies / len(rows.y))
        return fresh

    def _train_student(self, rows, fresh, generated, journal):
        """Train the student, and note how its scores of the training rows relate to the detector's.

        ``fresh``: (m,) the detector's scores of the rows that it did not learn from.
        """
        scores = np.empty(len(rows.y))
        scores[self.kept_] = in_chunks(self.detector_.score, rows.Z[self.kept_])
        scores[~self.kept_] = fresh
        self.student_ = Student.fit(
            rows,
            kept=self.kept_,
            scores=scores,
            left_out=self.basis_.left_out,
            teacher=self.detector_.score,
            generated=generated,
            settings=self,
            journal=journal,
        )
        if not self.student_stands_in:
            agreement = self.student_.agreement
            tell(
                "fast: the small mixture does not follow its detector (rank correlation "
                f"{agreement['rank_correlation']:.2f}, disagreement on "
                f"{agreement['disagreement']:.0%} of the training rows): the detector scores in "
                "its place; verify=0 (--verify 0) insists on the mixture",
            )
        self.basis_ = self.basis_._replace(beside=self.student_.beside(rows.Z, scores))

    def check_settings(self):
        """Refuse unknown option values before any work. Raises :class:`settings.InputError`."""
        check_settings(self)
        check_contamination(self.contamination)
        if not (self.progress is None or callable(self.progress)):
            raise InputError(f"progress={self.progress!r} is not usable: give a function, or None")
        check_options_and_experts(self)
        check_backend(self.mamba, resolve_device(self.device))

    def export(self, path):
        """Write the student of ``fast=True`` as one ONNX file that holds no training row.

        The model's input X are prepared rows (n, d') float64, and its output is their scores: those
        of ``verify=0``, as is the threshold in the file. ``python SwiftHydra.py score`` accepts the
        file in place of a checkpoint. Needs the packages onnx and onnxruntime.

        Raises:
            InputError: before a fit; without a student; if the student does not follow its detector
                and ``verify`` is not 0; without the packages; or if the file cannot be written.
        """
        self._ready()
        write_onnx(self, place_of(path))

    def _detector_settings(self, **others):
        """The :class:`DetectorSettings` of this object; ``others`` replace its own values."""
        resolved = {"n_experts": self.n_experts_, "device": self.device_, "trust_normals": False}
        return DetectorSettings.of(self, **resolved | others)

    def _settings_to_fit(self, rows, learned):
        """The :class:`DetectorSettings` of a fit, adapted to how many rows are in doubt."""
        counts = (learned.share, learned.n_doubtful, learned.n_known)
        weight = weight_of_unlike(float(self.unlike_weight), *counts)
        self._say_what_trust_does(rows.y)
        return self._detector_settings(trust_normals=not learned.n_doubtful, unlike_weight=weight)

    def detector_from(self, saved):
        """The detector that the part ``detector`` of a checkpoint describes, on the CPU."""
        return PRESETS[self.preset].from_snapshot(saved, self._detector_settings())


# --- the paper's loop (M4 to M8) ------------------------------------------------------------------


class Generated(NamedTuple):
    """Generated anomalies and the log of their generation."""

    rows: torch.Tensor  # (m, d) standardised
    log: list  # one dict per episode, plain numbers


def generate(Z, y, networks, seed, settings, journal=None):
    """Generate anomalies from training rows (M4 to M8).

    Args:
        Z: (n, d) float32 tensor of standardised rows.
        y: (n,) int64 tensor of labels.
        networks: a :class:`pretrain.Pretrained`. It stays unchanged: refreshed copies are used.
        seed: the run's seed.
        settings: a :class:`SwiftHydra`: its generator, n_synthetic, n_episodes, policy_settings,
            synthetic_share and mamba. Without n_synthetic, as many rows as balance the classes, but
            400 to 1000: a detector memorises fewer, and more changed no measured result.
        journal: keeps finished episodes, and returns those of an interrupted run. Generators that
            learn nothing are too quick to need it.

    Returns:
        A :class:`Generated`. It has fewer rows than wanted if too few candidates (1,024 in each
        episode) pass the filter; the log says how many did.
    """
    journal = journal or Journal()
    settings = in_own_numbers(settings)
    kind = settings.generator
    check_choice("generator", kind, GENERATORS)
    if kind == "none":
        return Generated(Z[:0], [])
    # DIFF(paper): the paper takes the best l of every episode until the classes are balanced.
    balance = len(y) - 2 * int((y == 1).sum())
    wanted = settings.n_synthetic or int(np.clip(balance, FEWEST, MOST))
    options = {"warm_up": True, **(settings.policy_settings or {})}
    warm_up = options.pop("warm_up")
    rng = stage_rng(seed, f"generate/{kind}")
    stream = streams(seed, f"generate/{kind}")
    if kind in COPIED:
        rows = COPIED[kind](Z, y, wanted, seed, stream.draws)
        return _finish(rows, [_entry_of(rows)], journal)
    environment = LatentEnvironment(Z, y, networks, rng, **options)
    if kind in DRAWN:
        rows, drawn = draw_filtered(environment, kind, wanted, stream.draws)
        return _finish(rows, [_entry_of(rows) | {"drawn": drawn}], journal)
    recipe = Recipe(synthetic_share=settings.synthetic_share, backend=settings.mamba)
    episodes = Episodes(y, wanted, settings.n_episodes, seed, kind, recipe)
    proposer = stream.built(lambda: PROPOSERS[kind](environment, warm_up=warm_up))
    rows, log = run_episodes(episodes, environment, proposer, stream.draws, journal)
    return _finish(rows, log, journal)


def _entry_of(rows):
    return {"episode": 0, "accepted": len(rows), "effective_rank": _rank(rows)}


def _rank(rows):
    return effective_rank(rows.numpy()) if len(rows) > 1 else 0.0


def _finish(rows, log, journal):
    journal.log += [{"stage": "episodes", **entry} for entry in log]
    return Generated(rows, log)


class Episodes(NamedTuple):
    """Settings that all episodes of a run share."""

    y: torch.Tensor  # (n,) labels of the training rows
    wanted: int  # rows in all
    n: int  # episodes
    seed: int
    kind: str  # the proposer, a key of ``PROPOSERS``
    recipe: Recipe = Recipe()  # how the detector learns between the episodes


def run_episodes(episodes, environment, proposer, generator, journal):
    """The self-reinforcing loop (M8): propose, keep the best, learn from them, propose again.

    Args:
        episodes: :class:`Episodes`.
        environment: a :class:`generation.environment.LatentEnvironment`.
        proposer: proposes :class:`generation.reward.Candidates`; the policy learns from them.
        generator: torch Generator.
        journal: a :class:`journal.Journal`.

    Returns:
        The accepted rows (m, d), and a dict of numbers for every episode.
    """
    accepted, log = environment.X[:0], []
    saved = journal.saved("episodes")
    if saved is not None:
        with journal.taking_up():
            accepted, log = _taken_up(saved, environment, proposer, generator)
            if saved["finished"]:
                return accepted, log
    for episode in range(len(log), episodes.n):
        weight = GAMMA**episode  # diversity first, deception later
        loss = detector_loss(environment, episodes.y, accepted)
        candidates = proposer.propose(N_CANDIDATES, weight, generator)
        share = math.ceil((episodes.wanted - len(accepted)) / (episodes.n - episode))
        accepted = _with_best(accepted, candidates, share, environment)
        entry = {"episode": episode, "diversity_weight": weight, **candidates.numbers()}
        entry |= {"detector_loss": loss, "accepted": len(accepted)}
        log.append(entry | {"effective_rank": _rank(accepted), **candidates.notes})
        journal.step("episodes", episode + 1, episodes.n, **_shown(log[-1]))
        finished = len(accepted) >= episodes.wanted or episode == episodes.n - 1
        if not finished:
            stage = f"{episodes.kind}/{episode}"
            refresh(environment, episodes.y, accepted, episodes.seed, stage, episodes.recipe)
        content = {"finished": finished, "accepted": accepted, "log": log}
        content |= {"generator": generator.get_state(), **environment.snapshot()}
        content["agent"] = proposer.snapshot()
        journal.keep("episodes", content, episode + 1, episodes.n)
        if finished:
            break
    return accepted, log


def _with_best(accepted, candidates, share, environment):
    """The accepted rows and the ``share`` best of the candidates that pass the filter (M7)."""
    reward = candidates.reward
    feasible = reward.feasible.nonzero().squeeze(1)
    if not len(feasible):
        return accepted
    x = candidates.x[feasible]
    known = environment.reward.covered
    covered = Coverage(torch.cat([known.data, accepted[-LATEST:]]), known.width)
    value = reward.without_coverage[feasible]
    best = covered.select(x, value, share, reward.coverage_weight)
    return torch.cat([accepted, x[best]])


def _taken_up(saved, environment, proposer, generator):
    """Resume an interrupted run: its accepted rows and its log; all others go on from its state.

    Raises:
        ValueError: if what was saved does not fit together.
    """
    accepted, log = saved["accepted"], list(saved["log"])
    if accepted.shape[1:] != environment.X.shape[1:] or not accepted.isfinite().all():
        raise ValueError("the generated rows are not finite or not of this table")
    if len(accepted) != (log[-1]["accepted"] if log else 0):
        raise ValueError("the generated rows are not as many as the log says")
    if not all(entry["episode"] == i and are_numbers(entry) for i, entry in enumerate(log)):
        raise ValueError("the log holds something else than the numbers of episodes")
    if not saved["finished"]:
        environment.go_on(saved)
        proposer.go_on(saved["agent"])
        generator.set_state(saved["generator"])
    return accepted, log


def _shown(entry):
    """The entries of an episode's log that the progress display shows."""
    names = ("reward", "novelty", "coverage", "deception", "feasible", "effective_rank")
    return {name: entry[name] for name in names}


# --- command line ---------------------------------------------------------------------------------


def main(argv=None, pace=PACE):
    """Run the command; ``pace`` sets how often a run saves its state for ``--resume``."""
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ["score"]:
        score_file.main(argv[1:], _load)
        return
    about = f"{first_line(__doc__)} To score new rows: python SwiftHydra.py score -h"
    classes = (RowOptions, SwiftHydra, RunOptions)
    which, detector, options = parse_config(classes, about, argv, dataset=DATASET)
    check_settings(which)  # first, so that an error about the seed names the flag --seed
    detector.random_state = which.seed
    progress = Progress(options.quiet, verbose=options.verbose)
    if options.plot:
        require_matplotlib()  # before the work, not after it
    if options.export:
        require_onnx(detector.fast)
    detector.check_settings()
    refuse_flags_without_effect(detector, options, which)
    rows = load_and_tell(which, detector, progress)
    if rows.split is None and (options.eval_only or options.plot):
        flag = "--eval-only" if options.eval_only else "--plot"
        raise InputError(f"{flag} needs labels to compare with: leave it out, or name their column")
    if options.eval_only:
        runner.evaluate(options.eval_only, rows, which, detector)
        return
    refuse_before_the_work(detector, rows.train.y)
    with folder_of(rows, which, options) as folder:
        runner.run(folder, rows, detector, which, options, runner.Work(progress, pace))


def _load(path):
    """The detector in a checkpoint, or in a file that :meth:`SwiftHydra.export` wrote."""
    return (Exported if str(path).lower().endswith(SUFFIX) else SwiftHydra).load(path)


if __name__ == "__main__":
    run_main(main)
