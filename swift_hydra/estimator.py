"""What every fitted detector of table rows can do: score, explain, predict, save and load.

:class:`TableDetector` follows scikit-learn's conventions. Training is in SwiftHydra.py.
"""

import contextlib
import copy
import inspect
from dataclasses import replace

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.exceptions import NotFittedError
from sklearn.utils import ClassifierTags

from swift_hydra.cleaning.leave_out import FreshScores
from swift_hydra.cleaning.suspects import PRIOR
from swift_hydra.data.learned_columns import ENOUGH, Columns, Tally
from swift_hydra.data.reading import Reading
from swift_hydra.data.rows import classes_of
from swift_hydra.data.table import as_table
from swift_hydra.distillation.student import Student
from swift_hydra.files import KIND, content_of, load_checkpoint, write_torch
from swift_hydra.modes import own_modes
from swift_hydra.settings import (
    InputError,
    advised,
    check_range,
    check_settings,
    listed,
    place_of,
    tell,
)
from swift_hydra.snapshot import plain, tensor_of, to_arrays, to_tensors
from swift_hydra.thresholds import (
    TrainingScores,
    check_contamination,
    drawn,
    threshold_of,
    threshold_of_false_alarms,
)
from swift_hydra.training.threads import LARGE_TO_SCORE, few_threads

CHUNK_NUMBERS = 2**22  # numbers scored at a time: memory for one chunk, whatever the table's length
SAME_SCORE = 1e-5  # smaller differences, in the normals' standard deviations, are rounding
CHUNK_ROWS = 65536  # most rows scored at a time
NEARLY_ALL = 0.8  # share of new rows above the threshold that is worth a warning
EXPLAINED_ROWS = 1024  # rows with a replaced column that are scored at a time


def rows_at_once(d):
    """Rows of d columns that are scored at a time."""
    return CHUNK_NUMBERS // d + 1


def in_chunks(score, X, size=None):
    """(n,) results of ``score`` for rows X (n, d), ``size`` rows at a time: bounds memory."""
    size = size or rows_at_once(X.shape[1])
    starts = range(0, max(len(X), 1), size)
    return np.concatenate([score(X[start : start + size]) for start in starts])


@contextlib.contextmanager
def all_or_nothing(estimator):
    """Context manager: if an exception is raised, the estimator's attributes are restored."""
    before = vars(estimator).copy()
    try:
        yield
    except BaseException:
        vars(estimator).clear()
        vars(estimator).update(before)
        raise


@contextlib.contextmanager
def settled():
    """Context manager for reading new rows: errors advise that the fit decided how to read them."""
    try:
        yield
    except InputError as error:
        words = "settled in the fit: mend these rows, or fit again"
        raise InputError(advised(error, (), words)) from error


class NotFitted(InputError, NotFittedError):
    """scikit-learn's NotFittedError, and an :class:`settings.InputError`: no traceback is shown."""


class TableDetector(BaseEstimator):
    """The fitted half of :class:`SwiftHydra.SwiftHydra`.

    ``fit`` sets ``columns_`` (a :class:`data.learned_columns.Columns`), ``detector_`` (which scores
    standardised rows), the training rows' ``decision_scores_`` (left-out scores) and
    ``fresh_scores_`` (those of new copies), ``expected_scores_`` (of fresh rows) and
    ``normal_scores_`` (of fresh rows without a known anomaly), ``kept_``, ``sampled_``,
    ``n_groups_``, ``estimated_contamination_``, ``synthetic_``, ``classes_``, ``n_features_in_``,
    ``n_experts_``, ``effective_rank_``, ``basis_``, ``student_``, and ``settings_``: the parameters
    at the time of the fit, with numbers as plain Python types.
    """

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.required = False  # a fit without labels is possible
        # Two classes only; the tag does not make it a classifier.
        tags.classifier_tags = ClassifierTags(multi_class=False)
        return tags

    # --- scores -----------------------------------------------------------------------------------

    def decision_function(self, X, chunk_rows=None):
        """Scores of rows; higher is more anomalous.

        Args:
            X: (n, d) array-like, data frame or Table.
            chunk_rows: rows scored at a time, which bounds the memory; None takes 65,536, or fewer
                if the table is wide.

        Returns:
            (n,) float64.

        Raises:
            InputError: before ``fit``; for infinity, and for NaN or text that the fit was not set
                up for; and for other columns than the training's (those of a data frame are matched
                by name, in any order).
        """
        parts = [self.score_prepared(rows) for rows in self._prepared(self._table(X), chunk_rows)]
        return np.concatenate(parts)

    def default_chunk_rows(self):
        """Rows that are scored at a time: fewer if the table is wide, which bounds the memory."""
        return min(CHUNK_ROWS, rows_at_once(len(self.columns_.preparation.names)))

    @own_modes()
    def score_prepared(self, X):
        """(n,) scores of rows (n, d') that ``columns_`` has prepared.

        Raises:
            FloatingPointError: if scores are not finite.
        """
        with few_threads(X.size, LARGE_TO_SCORE):
            scores = in_chunks(self._scores_of_prepared, X, self.default_chunk_rows())
        if not np.isfinite(scores).all():
            n_bad = int((~np.isfinite(scores)).sum())
            raise FloatingPointError(f"{n_bad} of {len(scores)} scores are not finite")
        return scores

    def _scores_of_prepared(self, X):
        Z = self.columns_.standardise(X)
        if self._detector_scores_all:
            return self.detector_.score(Z)
        return self.student_.score(Z, self.verified_share, self.detector_.score)

    @property
    def _detector_scores_all(self):
        return self.student_ is None or self.verified_share == 1

    @property
    def student_stands_in(self):
        """Whether the student may score: it follows its detector, or ``verify`` is set."""
        return self.verify is not None or self.student_.follows

    @property
    def verified_share(self):
        """Share of rows that the detector scores in the student's place."""
        if not self.student_stands_in:
            return 1.0
        return self.student_.top if self.verify is None else plain(self.verify)

    def _prepared(self, table, chunk_rows=None):
        """The prepared rows, chunk by chunk; preparing an empty table raises an InputError."""
        return map(self._prepare, self._parts(table, chunk_rows))

    def _prepare(self, part):
        """Prepared rows (n, d') of a part of a table."""
        with settled():
            return self.columns_.prepare(part)

    def _parts(self, table, chunk_rows=None):
        """The table, chunk by chunk; an empty one yields itself."""
        if chunk_rows is not None:
            check_range("chunk_rows", chunk_rows, 1, 10**9)
        chunk = int(chunk_rows or self.default_chunk_rows())
        for start in range(0, max(len(table), 1), chunk):
            yield table.take(slice(start, start + chunk))

    def _check_fitted(self):
        if not hasattr(self, "detector_"):
            raise NotFitted(
                "this SwiftHydra is not fitted yet: call fit(X, y) or SwiftHydra.load(path) first"
            )

    @property
    def n_set_aside(self):
        """How many training rows were set aside as probable anomalies (M13)."""
        return int((self.sampled_ & ~self.kept_).sum())

    def _ready(self):
        """Check that there was a fit, and update what depends on ``verify`` if it has changed."""
        self._check_fitted()
        if getattr(self, "student_", None) is None:
            return
        if plain(self.verify) == self.settings_["verify"]:
            return
        if self.verify is not None:
            check_range("verify", self.verify, 0, 1, whole=False)
        if self.basis_ is None:
            tell(
                f"verify={self.verify}: threshold, flags and p-values are still those of "
                f"verify={self.settings_['verify']}, as the checkpoint is an older one: fit again",
            )
            return
        self._set_scores()
        self._set_threshold(verify=self.verify)

    def _set_scores(self):
        """Set the training rows' scores by what scores new rows: detector, student, or both."""
        basis = self.basis_
        self.decision_scores_ = self._by_what_scores(basis.left_out)
        self.fresh_scores_ = self._by_what_scores(basis.fresh)
        sample = self._by_what_scores(basis.score, basis.row)
        self.expected_scores_ = drawn(sample, basis.weight)
        self.normal_scores_ = drawn(sample, basis.normal)

    def _by_what_scores(self, score, rows=slice(None)):
        """Convert the detector's scores of training rows to those of what scores new rows."""
        if self._detector_scores_all:
            return score
        beside = self.basis_.beside[rows]
        return self.student_.as_left_out(score, beside, self.verified_share)

    def _table(self, X):
        """X as a :class:`data.table.Table` with the columns of the training table."""
        self._ready()
        told = self.columns_.preparation
        how = {"dates": self.settings_["dates"], "held": self.columns_.held}
        how["reading"] = Reading().after(told.reading)  # gaps are marked as in the training file
        with settled():
            X = self.columns_.in_order(X, self.label_name_)
            table = as_table(X, self.columns_.texts, **how)
        if table.X.shape[1] != self.n_features_in_:
            raise InputError(
                f"X has {table.X.shape[1]} features, but SwiftHydra is expecting "
                f"{self.n_features_in_} features as input: give the columns it was trained on"
            )
        return replace(table, columns=table.columns or self.columns_.given_names)

    def explain(self, X, k=3):
        """The features that raise the score of each row most, by occlusion.

        A feature's share is how much the score falls if its value is replaced by the median (or the
        most frequent text) of the training rows without the known anomalies, while all others stay.
        This costs d more scorings of X.

        Args:
            X: (n, d) rows.
            k: number of features to name; more than d means d.

        Returns:
            Names (n, k), the largest share first, and the shares (n, k) in units of the score.
        """
        check_range("k", k, 1, 10**9)
        table = self._table(X)
        k = min(k, self.n_features_in_)
        first = []
        shares = []
        for rows in self._prepared(table):
            score = self.score_prepared(rows)
            raised = np.empty((len(rows), self.n_features_in_))
            # Several columns at once, since a scoring takes a fixed time even for few rows.
            step = max(1, min(EXPLAINED_ROWS, self.default_chunk_rows()) // len(rows))
            for start in range(0, self.n_features_in_, step):
                some = slice(start, min(start + step, self.n_features_in_))
                without = [self.columns_.without(rows, j) for j in range(some.start, some.stop)]
                lower = self.score_prepared(np.concatenate(without))
                raised[:, some] = score[:, None] - lower.reshape(len(without), -1).T
            order = np.argsort(-raised, axis=1, kind="stable")[:, :k]
            first.append(order)
            shares.append(np.take_along_axis(raised, order, axis=1))
        names = np.array(self.columns_.names, dtype=object)
        return names[np.concatenate(first)], np.concatenate(shares)

    def predict_score(self, X):
        """ADBench's name for :meth:`decision_function`."""
        return self.decision_function(X)

    def predict_proba(self, X):
        """(n, 2): probabilities of normal and anomaly if both classes were equally frequent.

        They are calibrated on the known anomalies. Without any (no labels, or normal rows alone)
        they follow from a prior: they rank rows but are no probabilities; use :meth:`p_values`
        there. ``preset="paper"`` does not calibrate: it returns the mixture's own probabilities.
        """
        anomaly = torch.sigmoid(torch.from_numpy(self.decision_function(X))).numpy()
        return np.column_stack([1 - anomaly, anomaly])

    def predict(self, X):
        """(n,) labels of ``classes_``: the second one, 1, for scores above ``threshold_``.

        Warns if nearly all of many rows are above it, or if most of them lie outside a column's
        training range, as such rows are probably of another kind than the training rows. Also warns
        of columns without any value, with gaps that ``impute="indicator"`` does not tell since
        training had none there, with too few digits, with one value in all of many rows, or with
        nearly all values on one side of the training's median; and of relations among columns that
        more rows break than training rows did.
        """
        table = self._table(X)
        tally = Tally(self.columns_)
        flagged = []
        for part in self._parts(table):
            rows = self._prepare(part)
            flagged.append(self.score_prepared(rows) > self.threshold_)
            tally.add(part, rows, int(flagged[-1].sum()))
        empty = tally.emptied()
        if empty:
            tell(f"X: {empty}")
        unlike = self.unlike_training(tally.n_above, tally.n_rows)
        said = [unlike, tally.unmet(), tally.far_outside(), tally.fall_together(), tally.stuck()]
        said += [tally.moved(), self.relations_broken(tally)]
        words = "; ".join(filter(None, said))
        if words:
            tell(f"X: {words}")
        return self.classes_[np.concatenate(flagged).astype(np.int64)]

    def relations_broken(self, tally):
        """A warning if more of many rows break a relation than training rows do, else None.

        ``tally``: a :class:`data.learned_columns.Tally` of the rows.
        """
        look = getattr(self.detector_, "relations_no_longer_kept", None)  # not of every preset
        if tally.n_rows < ENOUGH or look is None:
            return None
        columns = self.columns_
        found = look(columns.standardise(np.concatenate(tally.some)))
        if not found:
            return None
        numbers, share = max(found, key=lambda each: each[1])
        names = dict.fromkeys(columns.names[j] for j in columns.preparation.groups[numbers])
        return (
            f"{100 * share:.0f} % of the rows break a relation among column "
            f"{listed(map(repr, names))} that nearly all training rows keep: look whether they are "
            "rounded or measured in another way"
        )

    def unlike_training(self, n_above, n_rows):
        """A warning if nearly all of many new rows are above the threshold, else None."""
        usual = float((self.normal_scores_ > self.threshold_).mean())
        if n_rows < ENOUGH or n_above < max(NEARLY_ALL, 2 * usual) * n_rows:
            return None
        flagged = self._flagged()
        if n_above <= n_rows * flagged + 3 * (n_rows * flagged * (1 - flagged)) ** 0.5:
            return None  # the training table consists mostly of anomalies, too
        return (
            f"{n_above} of {n_rows} rows are above the threshold, {100 * usual:.2g} % of normal "
            "rows like the training's would be: unless anomalies were picked, compare with the "
            "training table (units, order of the columns, source) or train again"
        )

    def _flagged(self):
        """The expected share of fresh rows above the threshold."""
        return float((self.expected_scores_ > self.threshold_).mean())

    def p_values(self, X):
        """Conformal p-values: how improbable so high a score is for a normal row.

        A p-value is the share of the m training rows without a known anomaly that score as high,
        where the row itself is counted too. The scores of the m rows are left-out scores. For
        recurring rows, they are the scores of fresh copies, weighted by how often such copies are
        expected (docs/tables.md, "Copies"). A share t of fresh normal rows has p-values up to t, or
        less if there are hidden anomalies among the m. ``preset="paper"`` has no left-out scores:
        its p-values are too small, and a warning says so.

        Args:
            X: (n, d) rows.

        Returns:
            (n,) from 1 / (m + 1) to 1.
        """
        self._ready()
        self.tell_if_not_left_out()
        return self.p_values_of(self.decision_function(X))

    def p_values_of(self, scores):
        """The p-values of scores (n,) from :meth:`decision_function`.

        Raises:
            InputError: if the scores are no list of finite numbers.
        """
        self._ready()
        try:
            scores = np.asarray(scores, dtype=np.float64)
        except (TypeError, ValueError):
            scores = np.array([np.nan])
        if scores.ndim != 1:
            raise InputError(
                f"scores: an array of shape {scores.shape}, not a list: give those of "
                "decision_function"
            )
        if not np.isfinite(scores).all():
            raise InputError("scores: not all are finite numbers: give those of decision_function")
        m = len(self.normal_scores_)
        as_high = m - np.searchsorted(self.normal_scores_, scores - self._rounding(), side="left")
        return (as_high + 1) / (m + 1)

    def tell_if_not_left_out(self):
        """Warn that false alarms and p-values of ``preset="paper"`` lack left-out scores."""
        if self.settings_.get("preset") == "paper":
            tell(
                "preset='paper' has no left-out scores: false alarms and p-values rest on scores "
                "of rows that it learned from, and fresh normal rows may be flagged several times "
                "as often as stated: preset='full' (--preset full) leaves rows out"
            )

    def _rounding(self):
        """The largest difference between two scores that count as equal.

        The same row can get another last digit from a student, from another processor, or from an
        exported file than in the fit.
        """
        return SAME_SCORE * float(self.normal_scores_.std())

    def set_contamination(self, contamination):
        """Move ``threshold_`` and ``labels_`` without a refit; returns itself.

        Args:
            contamination: expected share of fresh rows that score above the threshold, 0 to .99, as
                nearly as ties allow; "auto": ``estimated_contamination_``, or .05 if that is 0.
        """
        self._ready()
        check_contamination(contamination)
        return self._set_threshold(contamination=contamination, false_alarms=None)

    def set_false_alarms(self, share):
        """Move ``threshold_`` and ``labels_`` without a refit; returns itself.

        Args:
            share: share of fresh normal rows that may score above the threshold, 0 to .99: flagged
                rows have p-values up to that. ``preset="paper"`` flags more, and a warning says so.
        """
        self._ready()
        check_range("false_alarms", share, 0, 0.99, whole=False)
        return self._set_threshold(false_alarms=share)

    def set_verify(self, share):
        """Change ``verify`` of a detector with a student, and what depends on it, without a refit.

        Args:
            share: share of the rows that the detector scores again, 0 to 1, or None.

        Returns:
            Itself.

        Raises:
            InputError: for another share, or without a student.
        """
        self._check_fitted()
        if share is not None:
            check_range("verify", share, 0, 1, whole=False)
            if self.student_ is None:
                raise InputError(
                    f"verify={share:g}: there is no student whose scores could be verified: fit "
                    "with fast=True"
                )
        with all_or_nothing(self):
            self.verify = share
            self._ready()
        return self

    def _set_threshold(self, **settings):
        """Set threshold and labels by the new settings; changes nothing if a warning is raised."""
        now = self.settings_ | plain(settings)
        if now["false_alarms"] is not None:
            self.tell_if_not_left_out()
            threshold = threshold_of_false_alarms(
                self.normal_scores_, now["false_alarms"], self._rounding(), self.n_groups_
            )
        else:
            share = now["contamination"]
            if share == "auto":  # 0 if all rows are trusted to be normal
                share = self.estimated_contamination_ or PRIOR
            threshold = threshold_of(self.expected_scores_, share, self._rounding())
        labels = (self.fresh_scores_ > threshold).astype(np.int64)
        vars(self).update(settings, settings_=now, threshold_=threshold, labels_=labels)
        self._threshold = threshold
        return self

    # --- checkpoints ------------------------------------------------------------------------------

    def checkpoint(self, fingerprint=None):
        """The fitted detector as tensors and plain values.

        Its settings are those of the fit; what ``set_params`` has changed since will apply to the
        next fit. The exception is ``verify``, which applies to scoring.

        Args:
            fingerprint: fingerprint of the training rows, or None.
        """
        self._ready()
        by_settings = self.threshold_ == vars(self).get("_threshold", self.threshold_)
        return {
            "kind": KIND,
            "fingerprint": fingerprint,
            "parameters": plain(self.settings_ | {"verify": self._verify_to_save()}),
            "columns": to_tensors(self.columns_.snapshot()),
            "classes": plain(self.classes_),
            "label_name": plain(self.label_name_),
            "n_features": self.n_features_in_,
            "n_experts": self.n_experts_,
            "effective_rank": self.effective_rank_,
            "synthetic": tensor_of(self.synthetic_),
            "detector": to_tensors(self.detector_.snapshot()),
            "student": None if self.student_ is None else to_tensors(self.student_.snapshot()),
            "decision_scores": tensor_of(self.decision_scores_),
            "fresh_scores": tensor_of(self.fresh_scores_),
            "expected_scores": tensor_of(self.expected_scores_),
            "normal_scores": tensor_of(self.normal_scores_),
            "kept": tensor_of(self.kept_),
            "n_groups": self.n_groups_,
            "sampled": tensor_of(self.sampled_),
            "estimated_contamination": self.estimated_contamination_,
            "threshold": None if by_settings else float(self.threshold_),
            "basis": self._basis_to_save(),
        }

    def _verify_to_save(self):
        """The current ``verify`` if threshold and p-values follow it, else that of the fit."""
        moved = self.student_ is not None and self.basis_ is not None
        return self.verify if moved else self.settings_["verify"]

    def _basis_to_save(self):
        """The part of a checkpoint that a change of ``verify`` needs; None without a student."""
        if self.student_ is None or self.basis_ is None:
            return None
        return to_tensors(self.basis_._asdict())

    def save(self, path):
        """Write the fitted detector to one file, atomically.

        With ``preset="full"`` it holds standardised training rows: up to ``max_normals`` normals,
        2,048 known anomalies, and ``max_centres`` rows in every kernel expert; if no anomaly is
        known, or hardly any is (fewer than eight among 200 other rows or more), up to 8,192 more
        rows. The student's file holds none, see ``export``.
        """
        write_torch(place_of(path), self.checkpoint())

    @classmethod
    def load(cls, path):
        """Read a detector that :meth:`save` or a run wrote.

        It scores on the CPU; its scores are equal to the bit to those of the saved one there.

        Raises:
            InputError: if the file is missing, damaged or of another kind.
        """
        path = place_of(path)
        return cls.from_checkpoint(load_checkpoint(path, KIND), path)

    @classmethod
    @own_modes()
    def from_checkpoint(cls, saved, path):
        """The detector of a checkpoint that was read from ``path``.

        Raises:
            InputError: if its content does not fit together, or ``cls`` lacks some of its settings.
        """
        cls._refuse_unknown(saved.get("parameters"), path)
        with content_of(path):
            self = cls(**saved["parameters"])
            check_settings(self)
            check_contamination(self.contamination)
            self.settings_ = copy.deepcopy(saved["parameters"])
            self.device_ = torch.device("cpu")
            self.n_features_in_ = saved["n_features"]
            self.columns_ = Columns.from_snapshot(to_arrays(saved["columns"]), self.n_features_in_)
            self.classes_ = classes_of(saved["classes"])
            self.label_name_ = saved["label_name"]
            self.n_experts_ = saved["n_experts"]
            self.effective_rank_ = saved["effective_rank"]
            self.synthetic_ = saved["synthetic"].numpy()
            self.decision_scores_ = saved["decision_scores"].numpy()
            self.fresh_scores_ = saved["fresh_scores"].numpy()
            expected = saved.get("expected_scores", saved["fresh_scores"])  # older files have none
            self.expected_scores_ = np.sort(expected.numpy())
            self.normal_scores_ = saved["normal_scores"].numpy()
            self.kept_ = saved["kept"].numpy()
            older = torch.ones(len(self.kept_), dtype=torch.bool)
            self.sampled_ = saved.get("sampled", older).numpy()
            self.n_groups_ = saved.get("n_groups")  # older files have none
            self.estimated_contamination_ = saved["estimated_contamination"]
            self.detector_ = self.detector_from(to_arrays(saved["detector"]))
            self.student_ = None
            if saved.get("student") is not None:  # older checkpoints have no such part
                student = to_arrays(saved["student"])
                self.student_ = Student.from_snapshot(student, self.mamba, self.decision_scores_)
            self._take_basis(saved.get("basis"))  # older files have none
            check_range("estimated_contamination", self.estimated_contamination_, 0, 1, whole=False)
            self._set_threshold()
            self._take_threshold(saved.get("threshold"))  # older files have none
            self._check_rebuilt()
            return self._name_features()

    def _take_threshold(self, saved):
        """Set a threshold that the user wrote into ``threshold_``; None if it follows settings."""
        if saved is None:
            return
        if not isinstance(saved, float) or saved != saved:
            raise ValueError(f"threshold is {saved!r}")
        self.threshold_ = saved
        self.labels_ = (self.fresh_scores_ > saved).astype(np.int64)

    def _take_basis(self, saved):
        """Set ``basis_`` to that of a checkpoint, or to None."""
        self.basis_ = None
        if saved is None:
            return
        basis = to_arrays(saved)
        if "row" not in basis:  # an older file
            basis |= FreshScores.plain(basis["fresh"], basis["normal"])._asdict()
        older = basis.pop("doubt", None) is not None
        if older:
            basis["beside"] = basis.pop("shift")
        self.basis_ = TrainingScores(**basis)
        if older:  # ``verify`` meant other rows then
            self.student_.measure(self.basis_.left_out, self.basis_.beside)
            self._set_scores()

    @classmethod
    def _refuse_unknown(cls, parameters, path):
        """Refuse a file of a later version, or of a class with other arguments, by its settings.

        Otherwise such a file would be reported as damaged.
        """
        known = inspect.signature(cls).parameters
        takes_any = any(one.kind is one.VAR_KEYWORD for one in known.values())
        names = parameters if isinstance(parameters, dict) and not takes_any else ()
        other = [name for name in names if name not in known]
        if other:
            raise InputError(
                f"{path}: {cls.__name__} here has no setting {listed(map(repr, other))}: load it "
                "with the version, and the class, that wrote it"
            )

    def _name_features(self):
        """Set scikit-learn's ``feature_names_in_`` where the training columns had names."""
        names = self.columns_.own_names
        if names is not None:
            self.feature_names_in_ = np.array(names, dtype=object)
        elif hasattr(self, "feature_names_in_"):  # left by an earlier fit
            del self.feature_names_in_
        return self

    def _check_rebuilt(self):
        """Check shapes and values, and score a few rows: a bad file fails now, not later.

        Raises:
            ValueError: naming what does not fit.
        """
        columns = self.columns_
        rows = self.synthetic_
        scores = self.decision_scores_
        d = len(columns.centre)
        n_expected = self.n_groups_ or len(scores)
        wanted = {
            "classes": (self.classes_ != "", (2,)),  # numbers or texts
            "synthetic": (rows, (*rows.shape[:1], d)),
            "decision_scores": (scores, scores.shape[:1]),
            "fresh_scores": (self.fresh_scores_, scores.shape[:1]),
            "expected_scores": (self.expected_scores_, (n_expected,)),
            "kept": (self.kept_, scores.shape[:1]),
            "sampled": (self.sampled_, scores.shape[:1]),
            "normal_scores": (self.normal_scores_, self.normal_scores_.shape[:1]),
        }
        for name, values in (self.basis_._asdict() if self.basis_ is not None else {}).items():
            of_sample = name in FreshScores._fields
            wanted[f"basis, {name}"] = (
                values,
                (self.basis_.row if of_sample else scores).shape[:1],
            )
        for name, (value, shape) in wanted.items():
            if value.shape != shape or not np.isfinite(value).all():
                raise ValueError(f"{name} is not finite or its shape is {value.shape}, not {shape}")
        known = np.stack([columns.centre, columns.low, columns.high])
        known = np.concatenate([known, rows[:32]])
        if self.student_ is None:
            self.score_prepared(known)
            return
        other = copy.copy(self)  # the student alone, and what a later set_verify asks
        for share in (0.0, 1.0):
            other.verify = share
            other.score_prepared(known)
