"""Training rows with their labels: read, checked, prepared and standardised once (M1).

Shapes: n rows, d columns of the table, d' prepared ones.
"""

import collections
from functools import cached_property

import numpy as np

from swift_hydra.data.columns import Preparation
from swift_hydra.data.frames import object_array
from swift_hydra.data.labels import Labels, read_labels
from swift_hydra.data.learned_columns import Columns
from swift_hydra.data.scaler import ColumnScaler, check_span
from swift_hydra.data.subjects import checked_subjects, numbers_of
from swift_hydra.data.suspicious import company_of_near_copies, notes, tell_tales
from swift_hydra.data.table import array_of, as_table, fingerprint
from swift_hydra.settings import InputError, tell

MIN_NORMALS = 5  # fewer cannot be split into folds from which normal rows can be learned


def _say_if_turned(classes):
    """Warn of classes (2,) that scikit-learn's scorers would take the other way round.

    They take the larger label for the anomaly: roc_auc of a perfect detector would be 0.
    """
    normal, anomaly = classes.tolist()
    try:
        turned = anomaly < normal
    except TypeError:  # of two types
        turned = str(anomaly) < str(normal)
    if turned:
        tell(
            f"the anomaly's label {anomaly!r} sorts before {normal!r}: scikit-learn's scorers, "
            "such as roc_auc, take the larger label for the anomaly: with these give labels of 0 "
            "and 1",
        )


def _say_order_of_rows(X, given, name):
    """Warn if the index of labels or groups says that they are not a frame's, row by row.

    Rows are matched by position, as in scikit-learn: nothing else would show that a frame was
    sorted or shuffled after its labels were taken from it, or that labels were moved in time. An
    index that only counts the rows from 0 says nothing.

    Args:
        X: the rows.
        given: what is given beside them, or None.
        name: its name, "y" or "groups".
    """
    index, other = getattr(X, "index", None), getattr(given, "index", None)
    if not (hasattr(index, "equals") and hasattr(other, "equals")) or index.equals(other):
        return
    if len(index) != len(other) or getattr(index, "nlevels", 1) != getattr(other, "nlevels", 1):
        return  # refused below; of several levels against one nothing tells what belongs together
    whose = f"{name}'{'s' * (name[-1] != 's')} index"
    alone = index.is_unique and other.is_unique
    if not alone:
        _say_of_rows_named_alike(index, other, name, whose)
        return
    both = index.isin(other)
    if both.all():
        tell(
            f"{whose} is in another order than X's: rows are matched by position; give "
            f"{name}.loc[X.index]"
        )
    elif both.any() and not (_counts(index) or _counts(other)):
        here, n = index[np.flatnonzero(~both)[0]], int((~both).sum())
        tell(
            f"{whose} lacks {n} row{'s' * (n > 1)} of X's, first {str(here)[:40]!r}: rows are "
            f"matched by position; give X and {name} of the same rows, or {name}.to_numpy() if "
            "they belong together as they are"
        )


def _say_of_rows_named_alike(index, other, name, whose):
    """Warn if two indexes in which rows share a name have the same ones in different orders."""
    if collections.Counter(index.tolist()) == collections.Counter(other.tolist()):
        tell(
            f"{whose} is in another order than X's, and names several rows alike: rows are matched "
            f"by position; sort both, or give {name}.to_numpy() if they belong together as they are"
        )


def _counts(index):
    """Whether an index only counts the rows from 0."""
    return index.equals(type(index)(range(len(index)))) if index.dtype.kind in "iu" else False


def _as_given(y, labels):
    """The classes (2,) as y holds them: a text may have been read as a number, or the reverse."""
    cells = array_of(y).reshape(-1)
    told = cells.dtype.kind not in "OUT" and labels.classes.dtype.kind not in "OU"
    if told or len(np.unique(labels.y)) < 2:
        return labels.classes
    given = [next(iter(cells[labels.y == label]), None) for label in (0, 1)]
    if any(isinstance(cell, bytes | None) for cell in given):
        return labels.classes
    return classes_of(given)


def classes_of(labels):
    """Two labels as an array that keeps a number beside a text (numpy would make two texts).

    A text that is a member of an enumeration becomes its value.
    """
    labels = [str.__str__(label) if isinstance(label, str) else label for label in labels]
    if isinstance(labels[0], str) != isinstance(labels[1], str):
        return object_array(labels)
    return np.array(labels)


class TrainingRows:
    """Training rows with their labels, read and checked; see :meth:`read`.

    Args:
        columns: a :class:`data.learned_columns.Columns` that was learned from these rows.
        X: (n, d') prepared rows, float32 or float64.
        y: (n,) int64: 1 for known anomalies, 0 for rows taken as normal, -1 for unlabelled ones.
        classes: (2,) the user's labels for normal and anomaly.
        subjects: (n,) numbers from 0 of the rows' subjects (see data/subjects.py), or None.

    Attributes:
        Z: (n, d') the rows standardised, float32.
    """

    def __init__(self, columns, X, y, classes, subjects=None):
        self.columns = columns
        self.X = X
        self.y = y
        self.classes = classes
        self.subjects = subjects
        self.Z = columns.standardise(X)

    @classmethod
    def read(cls, X, y, settings, groups=None):
        """Check and prepare rows.

        Args:
            X: (n, d) array-like, data frame or Table.
            y: (n,) labels, all of which may be 0 or -1; :class:`data.labels.Labels` that are
                checked already; or None if nothing is known: all are then -1.
            settings: a :class:`data.columns.ColumnSettings`.
            groups: (n,) names or numbers of the rows' subjects; None takes those of a Table.

        Raises:
            InputError: the rows, the labels or the groups are unusable, or fewer than
                ``MIN_NORMALS`` rows are not known anomalies.
        """
        _say_order_of_rows(X, y, "y")
        _say_order_of_rows(X, groups, "groups")
        table = as_table(X, settings.categorical != "refuse" or (), dates=settings.dates)
        subjects = table.subjects if groups is None else numbers_of(groups, len(table))
        preparation = Preparation.of(settings)
        X = preparation.mark_gaps(preparation.fit_transform(table, subjects), table)
        if len(X) < 2:
            raise InputError(
                f"X has n_samples = {len(X)}: give at least {MIN_NORMALS} normal rows and an "
                "anomaly"
            )
        check_span(X, preparation.names, table.source)
        if not isinstance(y, Labels):
            for note in [*notes(table), *preparation.notes()]:
                tell(f"X: {note}")
            if y is None:
                y = Labels(np.full(len(X), -1, dtype=np.int64), np.array([0, 1]))
            else:
                read = read_labels(y, "y", 0, settings.anomaly_label, settings.majority_anomalies)
                y = read._replace(classes=_as_given(y, read))
                _say_if_turned(y.classes)
            if len(X) == len(y.y):
                for note in tell_tales(table, y.y):
                    tell(f"X: {note}")
        y, classes = y
        if len(X) != len(y):
            raise InputError(f"X has {len(X)} rows and y has {len(y)}: give one label per row")
        n_others = int((y != 1).sum())
        if n_others < MIN_NORMALS:
            what = f"y marks only {n_others} rows as normal (0) or unlabelled (-1)"
            if (y == -1).all():  # nothing is known
                what = f"X has only {n_others} rows"
            raise InputError(f"{what}: at least {MIN_NORMALS} are needed")
        centre = preparation.centre(X[y != 1])
        scaler = ColumnScaler().fit(X, preparation.flags(), preparation.places())
        scaler.centre = preparation.without_steps(scaler.centre)
        low, high = preparation.span(X)
        subjects = checked_subjects(subjects, y)
        rows = cls(Columns(preparation, scaler, centre, low, high), X, y, classes, subjects)
        for note in company_of_near_copies(rows.Z) if subjects is None else ():
            tell(f"training rows: {note}")
        return rows

    @property
    def n_subjects(self):
        """The number of subjects, or None if these are unknown."""
        return None if self.subjects is None else int(self.subjects.max()) + 1

    @cached_property
    def fingerprint(self):
        """SHA256 of the prepared rows, labels and subjects, which identifies the training data."""
        if self.subjects is None:
            return fingerprint(self.X, self.y)
        return fingerprint(self.X, np.concatenate([self.y, self.subjects]))
