"""What any fitted detector of table rows does: score, explain, predict, save and load.

:class:`TableDetector` has scikit-learn's conventions. What trains stands in SwiftHydra.py.
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
from swift_hydra.data.frames import as_known, frame_names, repeated, with_columns
from swift_hydra.data.reading import Reading
from swift_hydra.data.rows import ENOUGH, Columns, classes_of
from swift_hydra.data.table import as_table, listed
from swift_hydra.distillation.student import Student
from swift_hydra.files import KIND, content_of, load_checkpoint, write_torch
from swift_hydra.modes import own_modes
from swift_hydra.settings import InputError, advised, check_range, check_settings, tell
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
SAME_SCORE = 1e-5  # standard deviations of the normals' scores that are no difference
CHUNK_ROWS = 65536  # rows scored at a time at most
NEARLY_ALL = 0.8  # of new rows above the threshold: hardly all of them are anomalies
SHOWN = 3  # of these columns that are named
MOSTLY = 0.5  # share of new rows outside a column's training range that is worth a warning
EXPLAINED_ROWS = 1024  # rows with a column replaced that are scored at a time, of several columns


def in_chunks(score, X, size=None):
    """(n,) what a function says of rows X (n, d), of so many at a time: bounds memory."""
    size = size or CHUNK_NUMBERS // X.shape[1] + 1
    starts = range(0, max(len(X), 1), size)
    return np.concatenate([score(X[start : start + size]) for start in starts])


@contextlib.contextmanager
def all_or_nothing(estimator):
    """Around what changes an estimator: where it is cut off, all is as it was before."""
    before = vars(estimator).copy()
    try:
        yield
    except BaseException:
        vars(estimator).clear()
        vars(estimator).update(before)
        raise


@contextlib.contextmanager
def settled():
    """Around what reads new rows: how columns are read was settled in the fit, errors say so."""
    try:
        yield
    except InputError as error:
        words = "settled in the fit: mend these rows, or fit again"
        raise InputError(advised(error, (), words)) from error


class NotFitted(InputError, NotFittedError):
    """scikit-learn's error for an estimator without a fit, one line on the command line."""


class TableDetector(BaseEstimator):
    """The fitted half of :class:`SwiftHydra.SwiftHydra`.

    ``fit`` leaves ``columns_`` (a :class:`data.rows.Columns`), ``detector_`` (scores standardised
    rows), ``decision_scores_`` of the training rows, left out, ``fresh_scores_``, the same as
    fresh copies would have them, ``expected_scores_`` of fresh rows, ``normal_scores_`` of those
    without a known anomaly, ``kept_``, ``sampled_``, ``n_groups_``, ``estimated_contamination_``,
    ``synthetic_``, ``classes_``, ``n_features_in_``, ``n_experts_``, ``effective_rank_`` and
    ``settings_``, the parameters as they were, their numbers Python's own.
    """

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.required = False  # nothing known is a case of its own
        # Two labels; otherwise no classifier: scores matter.
        tags.classifier_tags = ClassifierTags(multi_class=False)
        return tags

    # --- scores -----------------------------------------------------------------------------------

    def decision_function(self, X, chunk_rows=None):
        """Scores of rows; higher is more anomalous.

        Args:
            X: (n, d) array-like, data frame or Table.
            chunk_rows: rows scored at a time, which bounds the memory; None takes 65,536, fewer of
                a wide table.

        Returns:
            (n,) float64.

        Raises:
            InputError: for NaN, infinity, text, other columns than the training's (a data frame's
                are matched by name, in any order), or before ``fit``.
        """
        parts = [self.score_prepared(rows) for rows in self._prepared(self._table(X), chunk_rows)]
        return np.concatenate(parts)

    def default_chunk_rows(self):
        """Rows that are scored at a time: fewer of a wide table, so that memory is the same."""
        return min(CHUNK_ROWS, CHUNK_NUMBERS // len(self.columns_.preparation.names) + 1)

    @own_modes()
    def score_prepared(self, X):
        """(n,) scores of rows (n, d') that ``columns_`` has prepared.

        Raises:
            FloatingPointError: for scores that are not finite.
        """
        with few_threads(X.size, LARGE_TO_SCORE):
            scores = in_chunks(self._scores_of_prepared, X, self.default_chunk_rows())
        if not np.isfinite(scores).all():
            n_bad = int((~np.isfinite(scores)).sum())
            raise FloatingPointError(f"{n_bad} of {len(scores)} scores are not finite")
        return scores

    def _scores_of_prepared(self, X):
        return self._scores_of(self.columns_.standardise(X))

    def _scores_of(self, Z):
        """(n,) scores of standardised rows (n, d')."""
        if self._detector_scores_all:
            return self.detector_.score(Z)
        return self.student_.score(Z, self.verified_share, self.detector_.score)

    @property
    def _detector_scores_all(self):
        return self.student_ is None or self.verified_share == 1

    @property
    def student_stands_in(self):
        """Whether the student may score alone: it follows its detector, or ``verify`` says so."""
        return self.verify is not None or self.student_.follows

    @property
    def verified_share(self):
        """Share of rows that the detector scores in the student's place."""
        return plain(self.verify or 0.0) if self.student_stands_in else 1.0

    def _prepared(self, table, chunk_rows=None):
        """The prepared rows, chunk by chunk; an empty table is refused by its first chunk."""
        return map(self._prepare, self._parts(table, chunk_rows))

    def _prepare(self, part):
        """Prepared rows (n, d') of a part of a table."""
        with settled():
            return self.columns_.prepare(part)

    def _parts(self, table, chunk_rows=None):
        """The table, chunk by chunk; of an empty one, itself."""
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
        """Fitted, and what rests on ``verify`` is of the share that is set now."""
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
        """The training rows' scores by whatever scores: detector, student, or both."""
        basis = self.basis_
        self.decision_scores_ = self._by_what_scores(basis.left_out)
        self.fresh_scores_ = self._by_what_scores(basis.fresh)
        sample = self._by_what_scores(basis.score, basis.row)
        self.expected_scores_ = drawn(sample, basis.weight)
        self.normal_scores_ = drawn(sample, basis.normal)

    def _by_what_scores(self, score, rows=slice(None)):
        """The detector's scores of some training rows as whatever scores would give them."""
        if self._detector_scores_all:
            return score
        shift, doubt = self.basis_.shift[rows], self.basis_.doubt[rows]
        return self.student_.as_left_out(score, shift, doubt, self.verified_share)

    def _table(self, X):
        """X as a table of the training's columns."""
        self._ready()
        told = self.columns_.preparation
        how = {"dates": self.settings_["dates"], "dated": told.dated}
        how["reading"] = Reading().after(told.reading)  # what stands for a gap in a file does here
        with settled():
            table = as_table(self._in_order(X), self.columns_.texts, **how)
        if table.X.shape[1] != self.n_features_in_:
            raise InputError(
                f"X has {table.X.shape[1]} features, but SwiftHydra is expecting "
                f"{self.n_features_in_} features as input: give the columns it was trained on"
            )
        return replace(table, columns=table.columns or self.columns_.given_names)

    def _in_order(self, X):
        """A data frame with the training's columns in the training's order, by their names."""
        names = self.columns_.own_names
        here = frame_names(X)
        if here is None:
            return X
        if names is None:  # of an array: x0, x1, ... that messages speak of, or pandas' 0, 1, ...
            made_up = (self.columns_.names, [str(j) for j in range(self.n_features_in_)])
            names = next((some for some in made_up if set(here) == set(some)), None)
            if names == made_up[1] and here != names:
                tell(
                    "X: its columns are numbered in another order than 0, 1, 2, ...: they were "
                    "taken by these numbers, as columns of the array that was learned from",
                )
        if names is None or here == names:
            return X
        given = here = as_known(here, names)
        known, present = set(names), set(here)
        missing = [name for name in names if name not in present]
        # The labels of the training table, left in the frame, are no column of it.
        here = [name for name in here if name in known or name != self.label_name_]
        other = [name for name in here if name not in known]
        # Which of two is meant cannot be told, unless all stand where they stood.
        twice = repeated(here) if here != names else []
        if missing or other or twice or len(here) != len(names):
            parts = [f"column {listed(map(repr, missing))} is missing"] if missing else []
            parts += [f"column {listed(map(repr, other))} is not known"] if other else []
            parts += [f"column {listed(map(repr, twice))} is there more than once"] if twice else []
            parts = parts or ["a column is there fewer times than in training"]
            raise InputError(
                f"X: {' and '.join(parts)}: give the columns it was trained on, "
                f"{listed(map(repr, names))}, in any order"
            )
        # Of the labels' name there may be any number, of the others there is one here.
        if here == names:
            return with_columns(X, [j for j, name in enumerate(given) if name in known])
        place = {name: j for j, name in enumerate(given)}
        return with_columns(X, [place[name] for name in names])

    def explain(self, X, k=3):
        """The features that raise the score of each row most, by occlusion.

        A feature's share is how much the score falls when its value is replaced by the training
        normals' median (most frequent text) and the other features stay. Costs d further scorings
        of X.

        Args:
            X: (n, d) rows.
            k: features to name, at most d.

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
            # Few rows alone would cost a scoring's fixed time for every column.
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
        """(n, 2): probability of normal and anomaly if both were equally frequent.

        The known anomalies calibrate it. Without one (no labels, or normal rows alone) it has the
        shape that is assumed before any is known: it ranks, but its values are no probabilities;
        :meth:`p_values` hold there. ``preset="paper"`` calibrates nothing: there it is what the
        mixture says.
        """
        anomaly = torch.sigmoid(torch.from_numpy(self.decision_function(X))).numpy()
        return np.column_stack([1 - anomaly, anomaly])

    def predict(self, X):
        """(n,) labels of ``classes_``: the second, 1, for scores above ``threshold_``.

        Warns where that is nearly all of many rows, or where most of them lie outside of what
        training knew of a column: they are hardly of the training rows' kind. So it does of a
        column that is empty in all of them.
        """
        table = self._table(X)
        gaps = sum(map(self.columns_.gaps, self._parts(table)))
        empty = self.columns_.emptied(gaps, len(table))
        if empty:
            tell(f"X: {empty}")
        scores, outside = [], np.zeros(self.n_features_in_, dtype=np.int64)
        for part in self._parts(table):
            rows = self._prepare(part)
            scores.append(self.score_prepared(rows))
            outside += self.columns_.outside(part, rows).sum(0)
        above = np.concatenate(scores) > self.threshold_
        words = [self.unlike_training(int(above.sum()), len(above))]
        words += [self._far_outside(outside, len(above))]
        if any(words):
            words = "; ".join(filter(None, words))
            tell(f"X: {words}")
        return self.classes_[above.astype(np.int64)]

    def unlike_training(self, n_above, n_rows):
        """A line where nearly all of many new rows are above the threshold, else None."""
        usual = float((self.normal_scores_ > self.threshold_).mean())
        if n_rows < ENOUGH or n_above < max(NEARLY_ALL, 2 * usual) * n_rows:
            return None
        flagged = self._flagged()
        if n_above <= n_rows * flagged + 3 * (n_rows * flagged * (1 - flagged)) ** 0.5:
            return None  # mostly anomalies, as the training table is
        return (
            f"{n_above} of {n_rows} rows are above the threshold, {100 * usual:.2g} % of normal "
            "rows like the training's would be: unless anomalies were picked, compare with the "
            "training table (units, order of the columns, source) or train again"
        )

    def _flagged(self):
        """The share of rows like the training rows above the threshold."""
        return float((self.expected_scores_ > self.threshold_).mean())

    def _far_outside(self, outside, n_rows):
        """Columns that most of many rows lie outside of, by their numbers (d,), else None."""
        if n_rows < ENOUGH:
            return None
        columns = self.columns_
        share = outside / n_rows
        found = []
        for j in np.flatnonzero(share >= MOSTLY):
            how = f"is outside its training range ({columns.range_of(j)})"
            how = "holds a text that training did not have" if j in columns.texts else how
            found.append(f"column {columns.names[j]!r} {how} in {100 * share[j]:.0f} % of the rows")
        more = [f"... ({len(found)} in all)"] if len(found) > SHOWN else []
        return "; ".join([*found[:SHOWN], *more]) or None

    def p_values(self, X):
        """How improbable so high a score is for a normal row, (n,) from 1 / (m + 1) to 1.

        Conformal: the share of the m training rows without a known anomaly that score as high, the
        row itself counted. Their scores are by fits that left them out, or, of rows that come again
        in the table, as fresh copies would have them, as often as these are to be expected
        (docs/tables.md, "Copies"). Of fresh normal rows a share t has p-values up to t; fewer where
        anomalies hide among the m. ``preset="paper"`` has no left-out scores: there they are too
        small, which is said.
        """
        self._ready()
        self.tell_if_not_left_out()
        return self.p_values_of(self.decision_function(X))

    def p_values_of(self, scores):
        """The same of scores (n,) that are there already; those that are not finite are refused."""
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
        """Warn where false alarms and p-values are asked of a detector without left-out scores."""
        if self.settings_.get("preset") == "paper":
            tell(
                "preset='paper' has no left-out scores: false alarms and p-values rest on scores "
                "of rows that it learned from, and fresh normal rows may be flagged several times "
                "as often as stated: preset='full' (--preset full) leaves rows out"
            )

    def _rounding(self):
        """By how much two scores may differ and still be one.

        Copies of a row have one score, but a student's, another processor's or an exported file's
        differ from what the fit noted in their last digits.
        """
        return SAME_SCORE * float(self.normal_scores_.std())

    def set_contamination(self, contamination):
        """Move ``threshold_`` and ``labels_`` without a refit; returns itself.

        Args:
            contamination: share above the threshold that is expected of fresh rows like the
                training rows, 0 to .99, the nearest that equal scores allow; "auto" takes
                ``estimated_contamination_``.
        """
        self._ready()
        check_contamination(contamination)
        return self._set_threshold(contamination=contamination, false_alarms=None)

    def set_false_alarms(self, share):
        """Move ``threshold_`` and ``labels_`` without a refit; returns itself.

        Args:
            share: of fresh normal rows that may be above the threshold, 0 to .99: their p-values
                are then at most that. ``preset="paper"`` flags more, which is said.
        """
        self._ready()
        check_range("false_alarms", share, 0, 0.99, whole=False)
        return self._set_threshold(false_alarms=share)

    def set_verify(self, share):
        """Move ``verify`` of a detector with a student, and what rests on it, without a refit.

        Args:
            share: of the rows that the detector scores again, 0 to 1, or None.

        Returns:
            Itself.

        Raises:
            InputError: for another share, or where there is no student.
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
        """With new settings, none of which stays where the warning is made an error."""
        now = self.settings_ | plain(settings)
        if now["false_alarms"] is not None:
            self.tell_if_not_left_out()
            threshold = threshold_of_false_alarms(
                self.normal_scores_, now["false_alarms"], self._rounding()
            )
        else:
            share = now["contamination"]
            share = self.estimated_contamination_ if share == "auto" else share
            threshold = threshold_of(self.expected_scores_, share, self._rounding())
        labels = (self.fresh_scores_ > threshold).astype(np.int64)
        vars(self).update(settings, settings_=now, threshold_=threshold, labels_=labels)
        return self

    # --- checkpoints ------------------------------------------------------------------------------

    def checkpoint(self, fingerprint=None):
        """The fitted detector as tensors and plain values.

        Its settings are those of the fit: what ``set_params`` has set since waits for the next one,
        but for ``verify``, which says how to score.

        Args:
            fingerprint: of the training rows, or None.
        """
        self._ready()
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
            "basis": self._basis_to_save(),
        }

    def _verify_to_save(self):
        """``verify`` as it is set, unless threshold and p-values are those of the fit's."""
        moved = self.student_ is not None and self.basis_ is not None
        return self.verify if moved else self.settings_["verify"]

    def _basis_to_save(self):
        """What other shares to ``verify`` need, where there is a student."""
        if self.student_ is None or self.basis_ is None:
            return None
        return to_tensors(self.basis_._asdict())

    def save(self, path):
        """Write the fitted detector to one file, atomically.

        With ``preset="full"`` it holds training rows, standardised: up to ``max_normals``
        neighbours, 2,048 known anomalies and ``max_centres`` rows in every kernel expert; where
        nothing is known up to 4,096 rows more. The student's file holds none,
        see ``export``.
        """
        write_torch(path, self.checkpoint())

    @classmethod
    def load(cls, path):
        """Read a detector that :meth:`save` or a run wrote.

        It scores on the CPU, bit-equal to the saved one there.

        Raises:
            InputError: if the file is missing, damaged or of another kind.
        """
        return cls.from_checkpoint(load_checkpoint(path, KIND), path)

    @classmethod
    @own_modes()
    def from_checkpoint(cls, saved, path):
        """The detector of a checkpoint that was read from ``path``.

        Raises:
            InputError: if its content does not fit together, or has settings that ``cls`` has not.
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
                self.student_ = Student.from_snapshot(student, self.mamba)
            self.basis_ = None
            if saved.get("basis") is not None:  # older files have none
                basis = to_arrays(saved["basis"])
                if "row" not in basis:
                    basis |= FreshScores.plain(basis["fresh"], basis["normal"])._asdict()
                self.basis_ = TrainingScores(**basis)
            check_range("estimated_contamination", self.estimated_contamination_, 0, 1, whole=False)
            self._set_threshold()
            self._check_rebuilt()
            return self._name_features()

    @classmethod
    def _refuse_unknown(cls, parameters, path):
        """A whole file of a later version, or of a class with other arguments, is not damaged."""
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
        elif hasattr(self, "feature_names_in_"):  # of a fit before this one
            del self.feature_names_in_
        return self

    def _check_rebuilt(self):
        """Shapes and values, then a few rows are scored: what does not fit shows now."""
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
        self.score_prepared(np.concatenate([known, rows[:32]]))
