"""Rows of one subject that was measured repeatedly: a patient, a machine, a session.

Such rows predict each other almost like copies. If the rows' subjects are known, a split keeps the
rows of a subject together (:func:`split_of_subjects`), and a fit leaves them out together
(:class:`cleaning.leave_out.LeaveOut`).

Shapes: n rows, t subjects.
"""

import dataclasses
import decimal
import numbers

import numpy as np

from swift_hydra.data.angles import ANGLES
from swift_hydra.data.cells import place
from swift_hydra.data.frames import as_text, is_missing, one_spelling, unmasked
from swift_hydra.data.reading import GAPS, text_of_bytes
from swift_hydra.data.splits import check_max_rows
from swift_hydra.data.table import array_of
from swift_hydra.settings import InputError

FEWEST = 2  # subjects with rows that are not known anomalies: each is compared with others
LEAST_DRAWN = 10  # fewest subjects that are drawn from a larger table


def numbers_of(groups, n, where="groups", lines=None, gaps=GAPS):
    """The subject of each row as a number from 0, in order of first appearance: (n,).

    Args:
        groups: (n,) array-like of the subjects' names or numbers.
        n: number of rows.
        where: what messages call the groups.
        lines: n line numbers of a file, or None.
        gaps: texts in lower case that stand for a missing name.

    Raises:
        InputError: for another length or shape, or a row without a subject.
    """
    if isinstance(groups, np.ma.MaskedArray):
        groups = unmasked(groups)
    try:
        cells = array_of(groups)
    except (TypeError, ValueError):  # sparse, or rows of several lengths
        raise InputError(f"{where}: is no list of names: give one name or number per row") from None
    if cells.shape != (n,):
        remedy = " (of one dimension)" if cells.shape == (n, 1) else ""
        raise InputError(
            f"{where}: has the shape {cells.shape} for {n} rows: give one name or number per row"
            f"{remedy}"
        )
    texts = [_name(cell) for cell in cells.tolist()]
    empty = [i for i, text in enumerate(texts) if not text or text.casefold() in gaps]
    if empty:
        raise InputError(
            f"{where}: {place(empty[0], lines)} has none ({len(empty)} rows in all): give a row "
            "that is of no group a name of its own"
        )
    number = {}
    return np.array([number.setdefault(text, len(number)) for text in texts], dtype=np.int64)


def _name(cell):
    """A subject's name, "" if it is missing."""
    if is_missing(cell):
        return ""
    cell = text_of_bytes(cell) if isinstance(cell, bytes) else cell
    known = isinstance(cell, str | numbers.Real | decimal.Decimal | np.bool_)
    # Joined files: where some ids are missing, pandas writes all of that file's as 7.0.
    return one_spelling(as_text(cell) if known else str(cell))


def checked_subjects(subjects, y):
    """The subjects of training rows, numbered from 0: (n,); None stays None.

    Args:
        subjects: (n,) numbers of the rows' subjects, or None.
        y: (n,) labels.

    Raises:
        InputError: all rows that are not known anomalies belong to one subject.
    """
    if not are_several(subjects, y != 1):
        raise InputError(
            "groups: all rows that are no known anomalies are of one group, and nothing would be "
            "left to compare it with: give rows of several, or no groups"
        )
    return from_zero(subjects)


def are_several(subjects, rows):
    """Do some rows (n,), bool, have several subjects (n,)? True if subjects is None."""
    return subjects is None or len(np.unique(subjects[rows])) >= FEWEST


def from_zero(subjects, rows=slice(None)):
    """The subjects of some rows, renumbered from 0; None stays None."""
    return None if subjects is None else np.unique(subjects[rows], return_inverse=True)[1]


def from_zero_beside(subjects, rows, others):
    """The subjects of other rows, numbered as :func:`from_zero` does it for ``rows``.

    Subjects that only the other rows have get the numbers after these. None stays None.
    """
    if subjects is None:
        return None
    first = np.unique(subjects[rows])
    every = np.concatenate([first, np.setdiff1d(subjects[others], first)])
    order = np.argsort(every)
    return order[np.searchsorted(every, subjects[others], sorter=order)]


def split_of_subjects(X, y, subjects, draw, protocol, max_rows=None):
    """A :class:`data.splits.Split` that has no subject on both sides.

    Subjects are split, each represented by one of its rows, an anomaly if it has any. What a
    protocol counts, such as the ten known anomalies of *few*, are then subjects.

    Args:
        X: (n, d) features, or None, see :func:`data.splits.make_split`.
        y: (n,) labels.
        subjects: (n,) numbers from 0.
        draw: a function of features, labels and a number of rows that draws a Split of rows.
        protocol: the protocol's name.
        max_rows: rows to which a larger table is cut, approximately; None keeps all.

    Raises:
        InputError: as in ``draw``, for an unusable ``max_rows``, or for one of ADBench's angles.
    """
    if protocol in ANGLES:
        raise InputError(
            f"group_column: protocol {protocol!r} knows no groups: leave it out, or give another "
            "protocol"
        )
    order = np.lexsort((np.arange(len(y)), -y))  # 1 before 0 before -1
    row = np.empty(subjects.max() + 1, dtype=np.int64)
    row[subjects[order[::-1]]] = order[::-1]  # a subject's first row in this order is written last
    n_subjects = None
    if max_rows is not None:
        check_max_rows(max_rows)
        n_subjects = max(max_rows * len(row) // len(y), LEAST_DRAWN)
    try:
        split = draw(None if X is None else X[row], y[row], n_subjects)
    except InputError as error:
        raise InputError(f"{error} (with group_column groups are counted, not rows)") from None
    parts = (split.train, split.test, split.known)
    train, test, known = (np.flatnonzero(np.isin(subjects, part)) for part in parts)
    # Unlabelled rows of a tested subject do not train either: they would reveal it.
    test, known = test[y[test] != -1], known[y[known] == 1]
    return dataclasses.replace(split, train=train, test=test, known=known)
