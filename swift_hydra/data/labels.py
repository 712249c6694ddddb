"""Labels of rows.

    1   a known anomaly
    0   taken as normal; there may be hidden anomalies among these rows
    -1  unlabelled: treated like 0, but never trusted to be normal

Without any 1 no anomaly is known.
"""

import decimal
import math
import numbers
from typing import NamedTuple

import numpy as np

from swift_hydra.data.cells import place
from swift_hydra.data.frames import EXACT, as_text, is_missing, object_array, same_value, unmasked
from swift_hydra.data.reading import GAPS, composed, text_of_bytes
from swift_hydra.data.table import array_of
from swift_hydra.settings import InputError, listed, tell

RECODE = "or recode them as 0 (normal) and 1 (anomaly)"
SAY = "say which is the anomaly with --anomaly-label (anomaly_label=...)"
LONG = 100  # from this many labels on, a value that occurs once causes a warning
BOOLS = ("false", "true")
TEXT_PAIRS = (BOOLS, ("no", "yes"), ("f", "t"), ("n", "y"))


class Labels(NamedTuple):
    """Checked labels."""

    y: np.ndarray  # (n,) int64 of -1, 0 and 1
    classes: np.ndarray  # (2,) the original values of 0 and 1; if 0 has several, the first

    def __str__(self):
        anomaly = self.classes[1]
        shown = as_text(anomaly) if isinstance(anomaly, np.number) else repr(str(anomaly))
        n_unlabelled = int((self.y == -1).sum())
        others = f", {n_unlabelled} unlabelled (-1)" if n_unlabelled else ""
        return f"anomaly = {shown}: {int((self.y == 1).sum())} of {len(self.y)} rows{others}"


def read_labels(y, source="y", least=2, anomaly_label=None, majority=False, lines=None, gaps=GAPS):
    """Check labels and cast them to -1, 0 and 1.

    Args:
        y: (n,) or (n, 1) array-like: 0 (normal) and 1 (anomaly); any two other numbers that are
            not negative, the larger for anomalies (with a warning); true and false; yes and no.
            -1 beside 0, or beside 0 and 1, is unlabelled, and stays -1.
        source: the file, or what the messages shall call the labels.
        least: number of anomalies needed. A table needs two, one for each side of a split; 0
            accepts labels without any anomaly.
        anomaly_label: the value of anomalies, a text or a number; all others are then normal, and
            -1 beside one of them is unlabelled.
        majority: accept that more than half of the rows are anomalies; otherwise that is refused
            for a table (``least`` above 1), and else causes a warning.
        lines: n line numbers for messages, or None.
        gaps: texts in lower case that are empty labels, unless one is ``anomaly_label``.

    Returns:
        :class:`Labels`.

    Raises:
        InputError: not 1-D, an empty label, values that do not show which one is the anomaly,
            anomalies only, fewer than ``least`` anomalies, more than half anomalies.
    """
    wanted = () if anomaly_label is None else {str(_word(anomaly_label)).casefold()}
    values = _values(y, source, lines, gaps.difference(wanted))
    if anomaly_label is None:
        labels = _known(values, source)
    else:
        labels = _chosen(values, anomaly_label, source)
    n = len(values)
    n_anomalies = int((labels.y == 1).sum())
    if n_anomalies == n or (n_anomalies == 0 and least > 0):
        only = "no anomaly" if n_anomalies == 0 else "no normal row"
        shown = listed(_shown(np.unique(values)))
        raise InputError(
            f"{source}: all {n} labels are {shown}: there is {only}, give both classes"
        )
    if n_anomalies < least:
        raise InputError(
            f"{source}: there is 1 anomaly among {n} rows: at least {least} are needed; "
            "--label-column none ranks all rows without labels"
        )
    if not majority:
        _ask_about_majority(labels, source, refuse=least > 1)
    return labels


def _ask_about_majority(labels, source, refuse):
    """Refuse, or warn, if more than half of the labelled rows (or of all, if no 0) are anomalies.

    If they are not more than half of all rows, unlabelled ones included, this is only a warning: it
    may well be meant.
    """
    n_anomalies = int((labels.y == 1).sum())
    n_labelled = int((labels.y != -1).sum())
    n = n_labelled if 0 in labels.y else len(labels.y)
    if 2 * n_anomalies <= n:
        return
    message = (
        f"{source}: {n_anomalies} of {n} rows {'with -1 left out ' * (n < len(labels.y))}are "
        f"labelled as anomalies, more than half: if another label than "
        f"{_shown(labels.classes[1:])[0]} is the anomaly, {SAY}; if this is meant, give "
        "--majority-anomalies (majority_anomalies=True)"
    )
    if refuse and 2 * n_anomalies > len(labels.y):
        raise InputError(message)
    tell(message)


def _values(y, source, lines, gaps):
    """(n,) float64, or texts if some label is not a number that float64 holds exactly."""
    if isinstance(y, np.ma.MaskedArray):
        y = unmasked(y)
    kind = type(y).__name__
    try:
        y = array_of(y)
    except (TypeError, ValueError):  # sparse, or rows of several lengths
        raise InputError(f"{source}: y is no list of labels: give one label per row") from None
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim != 1:
        hint = f" (it is a {kind})" if y.ndim == 0 else ""  # sparse, lazy, a generator
        raise InputError(
            f"{source}: y has shape {y.shape}: it must be 1-D, one label per row{hint}"
        )
    if y.dtype.kind == "T":  # numpy's texts of any length
        y = y.astype(object)
    if not len(y):
        raise InputError(f"{source}: there is no label: give one per row")
    if y.dtype.kind not in "biufOUS":
        raise InputError(
            f"{source}: the labels have dtype {y.dtype}: give texts or numbers, {RECODE}"
        )
    if y.dtype.kind in "OUS" or (y.dtype.kind in "iuf" and _are_beyond(y)):
        cells = [_word(cell) for cell in y]
        gap = [
            is_missing(cell) or (isinstance(cell, str) and cell.casefold() in gaps)
            for cell in cells
        ]
        _refuse_gaps(np.array(gap, dtype=bool), cells, source, lines)
        try:
            return np.array([_float(cell) for cell in cells])
        except (TypeError, ValueError, OverflowError):
            _refuse_name(cells, source, lines)
            # As objects: in an array of numpy's texts each takes the memory of the longest.
            return object_array(map(_text, cells))
    values = y.astype(np.float64)
    _refuse_gaps(np.isnan(values), values, source, lines)
    return values


def _are_beyond(y):
    """Does float64 fail to tell some of the numbers (n,) from their neighbours?"""
    if y.dtype.kind == "f" and y.dtype.itemsize == 2:  # float16 does not reach so far
        return False
    return bool((((y > EXACT) | (y < -EXACT)) & np.isfinite(y)).any())


def _word(cell):
    """A label as it is compared: bytes are decoded, and spaces around texts are removed."""
    if isinstance(cell, bytes):
        cell = text_of_bytes(cell)
    return composed(cell.strip()) if isinstance(cell, str) else cell


def _refuse_name(cells, source, lines):
    """Refuse a text in a file's first line if all other labels are numbers: it names the column.

    Such a line counts as a row if, for example, the other names are numbers.
    """
    if not isinstance(lines, list) or lines[0] != 1 or len(cells) < 2:
        return
    try:
        for cell in cells[1:]:
            _float(cell)
    except (TypeError, ValueError, OverflowError):
        return
    raise InputError(
        f"{source}: the label in line 1 is {str(cells[0])[:40]!r}, all others are numbers: if that "
        "line names the columns give --header yes, else mend it"
    )


def _float(cell):
    """A label's number.

    Raises:
        ValueError: for a text; so are ``1_0``, as in other columns, and ``nan``, which is a word
            if it is not a gap (``--missing ''``). Also for numbers beyond float64's exact range.
    """
    if isinstance(cell, str) and "_" in cell:
        raise ValueError(cell)
    value = float(cell)
    if value != value or (abs(value) > EXACT and math.isfinite(value)):
        raise ValueError(cell)
    return value


def _text(cell):
    """A label's text; numbers and bools of all types have the same text as in a file."""
    known = isinstance(cell, (numbers.Real, np.bool_, decimal.Decimal))
    return as_text(cell) if known else str(cell)


def _refuse_gaps(gap, cells, source, lines):
    if gap.any():
        first = int(gap.argmax())
        word = isinstance(cells[first], str) and cells[first]
        remedy = "write another word" if lines is None else "--missing ''"
        shown = f" ({word!r}; {remedy} where it is a label)" if word else ""
        # Where all others say the same, they mark the anomalies; -1 and 1 alone are refused.
        marks = len({_text(cells[i]) for i in np.flatnonzero(~gap)}) == 1
        how = "0 if only anomalies are marked" if marks else "-1 where nothing is known"
        raise InputError(
            f"{source}: the labels are empty in {int(gap.sum())} rows, first in "
            f"{place(first, lines)}{shown}: fill them ({how}), or drop these rows"
        )


def _shown(values):
    return [as_text(v) if isinstance(v, (float, np.floating)) else repr(str(v)) for v in values]


def _known(values, source):
    """Labels whose values show which of them is the anomaly."""
    different = np.unique(values)
    if values.dtype.kind == "f":
        found = set(different.tolist())
        if found == {-1.0, 1.0}:
            raise InputError(
                f"{source}: the labels are -1 and 1: scikit-learn's outlier detectors call the "
                "outlier -1: if that is meant, give --anomaly-label -1 (anomaly_label=-1); if -1 "
                "means unlabelled, give 0 for it; if 1 is the anomaly and -1 normal, give "
                "--anomaly-label 1"
            )
        if found <= {-1.0, 0.0, 1.0}:
            return Labels(values.astype(np.int64), np.array([0, 1]))
        if len(found) == 2 and min(found) >= 0 and np.isfinite(different).all():
            anomaly = different[1]
            tell(
                f"the labels are {as_text(different[0])} and {as_text(anomaly)}: "
                f"{as_text(anomaly)} is taken as the "
                "anomaly",
            )
            return Labels((values == anomaly).astype(np.int64), _whole(different))
    else:
        folded = np.array([text.lower() for text in values], dtype=object)
        found = set(folded.tolist())
        for normal, anomaly in TEXT_PAIRS:
            if found <= {normal, anomaly}:
                y = (folded == anomaly).astype(np.int64)
                pair = [
                    next(iter(values[y == label]), word)
                    for label, word in enumerate((normal, anomaly))
                ]
                return Labels(y, np.array(pair))
    raise InputError(f"{source}: the labels are {listed(_shown(different))}: {SAY}, {RECODE}")


def _say_other_cases(values, wanted):
    """Warn of texts that differ from the anomalies' label only in upper and lower case."""
    like = sorted({text for text in values if text.lower() == wanted.lower()})
    others = [text for text in like if text != wanted]
    if others and len(others) < len(like):  # if ``wanted`` does not occur itself, it is refused
        tell(
            f"label {listed(map(repr, others))} differs from {wanted!r} in upper and lower case "
            "alone and is taken as normal: write them alike if it is an anomaly",
        )


def _say_misspelt(values, wanted):
    """Warn of rarer texts that are one slip of the keyboard away from the anomalies' label.

    The others are no slips: bad1 and bad2, atypical and typical.
    """
    texts, counts = np.unique(values, return_counts=True)
    most = int((values == wanted).sum())
    like = [
        text
        for text, count in zip(texts, counts, strict=True)
        if count <= most and _is_slip(text.casefold(), wanted.casefold())
    ]
    if like:
        tell(
            f"label {listed(map(repr, like))} is written like {wanted!r} but for a letter, and is "
            "taken as normal: write them alike if it is an anomaly"
        )


def _is_slip(text, wanted):
    """Do two texts differ by one letter, or two swapped ones, that is neither first nor a digit?"""
    start = _alike(text, wanted)
    rest, other = text[start:], wanted[start:]
    end = _alike(rest[::-1], other[::-1])
    rest, other = rest[: len(rest) - end], other[: len(other) - end]
    one = max(len(rest), len(other)) == 1 or (len(rest) == 2 and rest == other[::-1])
    return bool(one and start and min(len(text), len(wanted)) >= 4 and (rest + other).isalpha())


def _alike(text, other):
    """With how many equal letters two texts begin."""
    pairs = zip(text, other, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(text), len(other)))


def _say_single(values):
    """Warn of labels that a single row of many has: it may be a table's last line, its total."""
    if len(values):
        tell(
            f"label {listed(_shown(values))}: a single row has it and is taken as normal: take the "
            "row out if it is none, such as a total",
        )


def _minus_one(values):
    """(n,) True where a label is -1, a number or a text."""
    if values.dtype.kind == "f":
        return values == -1
    return np.isin(values, [text for text in np.unique(values) if same_value(text) == "-1"])


def _chosen(values, anomaly_label, source):
    """Labels where ``anomaly_label`` is the anomaly, -1 is unlabelled and all others are normal."""
    wanted = _word(anomaly_label)
    if values.dtype.kind == "f":
        word = str(wanted).casefold()
        if word in BOOLS and set(values.tolist()) <= {0.0, 1.0}:  # a frame's bools are numbers here
            wanted = BOOLS.index(word)
        try:
            wanted = _float(wanted)
        except (TypeError, ValueError):
            wanted = None
        if wanted == 1 and 0.0 in values and set(values.tolist()) <= {-1.0, 0.0, 1.0}:
            return _known(values, source)  # 1 is the anomaly by default; -1 stays unlabelled
    else:
        wanted = _text(wanted)
        _say_other_cases(values, wanted)
        _say_misspelt(values, wanted)
        # 1.0 is 1, as in the other columns.
        same = [text for text in np.unique(values) if same_value(text) == same_value(wanted)]
        values = np.where(np.isin(values, same), wanted, values)
    y = np.zeros(len(values), dtype=np.int64) if wanted is None else (values == wanted).astype(int)
    if not y.any():
        raise InputError(
            f"{source}: no label is {anomaly_label!r}: the labels are "
            f"{listed(_shown(np.unique(values)))}: name one of these, or leave the labels out "
            "(y=None, --label-column none) where nothing is known"
        )
    unknown = (y == 0) & _minus_one(values)
    if (y == 0).sum() > unknown.sum():  # with other normal labels, -1 means unlabelled
        y[unknown] = -1
    others, counts = np.unique(values[y == 0], return_counts=True)
    if len(values) >= LONG and counts.max(initial=0) > 1:
        _say_single(others[counts == 1])
    normal = others[0] if len(others) else values[0]
    return Labels(y.astype(np.int64), _whole(np.array([normal, wanted])))


def _whole(classes):
    """The classes (2,) as integers if they are whole numbers; infinity is none."""
    if classes.dtype.kind != "f" or not np.isfinite(classes).all():
        return classes
    return classes.astype(np.int64) if (classes == np.rint(classes)).all() else classes
