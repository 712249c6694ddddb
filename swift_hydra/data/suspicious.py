"""Warnings of suspicious columns, before anything is learned from them.

Nothing here changes a value: a placeholder such as 999 is used as a number, scaled like any other
(:class:`data.scaler.ColumnScaler`). But a column that counts the rows, or whose 999 means "not
known", is rarely intended.

Shapes: n rows, d columns.
"""

import re

import numpy as np

from swift_hydra.data.cells import place
from swift_hydra.data.frames import EXACT, as_text, day_of
from swift_hydra.data.scaler import LARGEST, ColumnScaler
from swift_hydra.data.text_files import INDEX
from swift_hydra.data.texts import ALL_DIFFERENT, ALMOST_ALL, SAID, kinds_of_texts
from swift_hydra.geometry import ROUNDING
from swift_hydra.settings import listed

OF_INDEX = re.compile(rf"(?:{INDEX.pattern})|index|level_\d+")  # pandas' names, reset_index's too
FAR = 30.0  # scales from the median, beyond the usual values of a column
ABSURD = 1000.0  # scales from the median, beyond any heavy tail
AGAIN = 3  # a value in at least this many rows recurs
CODES_OF_GAPS = {0.0, -1.0, -9.0, -99.0, -999.0, 9.0, 99.0, 999.0, 9999.0, 99999.0}
MOST_UNKNOWN = 0.4  # share of the rows that lack a value
GAP_BESIDE = 0.6  # least gap beside such a code, in ranges of the middle four fifths
FEW = 0.02  # at most this share of the rows are few
ALMOST = 0.995  # with this share of one value there is little to learn
EMPTY = 0.9  # with this share of gaps a column mostly holds what fills them
EPOCHS = [(1e9 * unit, 2.2e9 * unit) for unit in (1, 1e3, 1e6, 1e9)]  # 2001 to 2039
FEW_VALUES = 20  # most values of a column that may be the label under another name
FEWEST_OF_EACH = 5  # rows of each class; with fewer a match may be chance
VARIED = 10  # a column of measurements has more different values than this
ALIKE = 0.2  # share of the different values that become equal when scaled
LOOKED_AT = 10_000  # most values or rows that are examined
WIDE = 1000.0  # times the smallest value: a column that spans orders of magnitude
FEWEST_IN_COMPANY = 50  # rows; fewer do not show groups of near copies
COMPARED = 2**22  # most numbers (rows times columns) among which neighbours are searched
ASKED = 300  # rows whose neighbours are searched
FARTHEST = 20  # neighbours of each row
LEAP = 4.0  # times the distance of the previous neighbour
LEAPING = 0.25  # share of the rows with a leap beyond their second neighbour
PAIRED = 0.6  # share of the rows with a leap beyond their first neighbour
OF_LABEL = re.compile(
    r"((is|has|true)[ _-]?)?"
    r"(label|class|target|outlier|anomaly|anomalous|fraud|fraudulent|attack|y)s?"
    r"([ _-]?(label|class|flag))?",
    re.IGNORECASE,
)
DIGITS = 100  # floating-point steps within a column's scale; fewer are too coarse
CERTAIN = 20  # binary digits that are 0 in all values together; fewer may be so by chance


def notes(table, asked=False):
    """A list of warnings, one for every kind of suspicious column.

    Args:
        table: a :class:`data.table.Table` with rows in their original order.
        asked: the user has said which texts are gaps.
    """
    found = {}
    X = table.X
    if len(X) < 10 or X.dtype.kind not in "biuf":
        return []
    for j, name in enumerate(table.names()):
        column = X[:, j]
        gaps = int(np.isnan(column).sum()) if column.dtype.kind == "f" else 0
        if EMPTY * len(X) <= gaps < len(X):
            found.setdefault("empty", []).append(f"{name!r} ({gaps} of {len(X)} rows)")
        if j in table.texts:
            for kind, detail in kinds_of_texts(column, table.texts[j], table.lines, asked):
                found.setdefault(kind, []).append(f"{name!r}{detail}")
            continue
        if j in table.categories:
            found.setdefault("categories", []).append(repr(name))
        values = column[~np.isnan(column)] if column.dtype.kind == "f" else column
        if len(values) < 10 or not (np.abs(values) <= LARGEST / 2).all():
            continue
        if OF_INDEX.fullmatch(name) and _number_rows(values):
            found.setdefault("index", []).append(repr(name))
            continue
        for kind, detail in _kinds(values, j in table.dated):
            found.setdefault(kind, []).append(f"{name!r}{detail}")
    said = [f"column {listed(columns)}: {TEXTS[kind]}" for kind, columns in found.items()]
    empty = np.flatnonzero(np.isnan(X).all(axis=1)) if X.dtype.kind == "f" else ()
    if len(empty):
        at = place(int(empty[0]), table.lines)
        what = "a row holds" if len(empty) == 1 else f"{len(empty)} rows hold"
        said.append(f"{what} no value at all, first in {at}: leave it out")
    if (X == X[:1]).all():  # the times of a minute are, in float32
        said.append("all rows are equal: there is nothing to learn from them")
    return said


def company_of_near_copies(Z):
    """Yield at most one warning, if many rows form groups of near copies.

    From the last row of a group to the next neighbour the distance leaps: beyond the second
    neighbour or a later one, or in pairs beyond the first. Independent rows in d continuous columns
    rarely have a leap of more than four times: a share of 4^-2d after two neighbours, less after
    more. (Measured: at most 4 % of the rows in 50 real tables; 20 to 100 % with 60 subjects, each
    measured three to ten times with a tenth to a fiftieth of the differences between subjects; in
    pairs nearly all rows leap after the first neighbour.)

    Args:
        Z: (n, d) standardised rows. Columns of few values and copies up to rounding are ignored. A
            single column is not examined, since there neighbours leap by chance.
    """
    part = Z[:LOOKED_AT]
    fine = [2 * len(np.unique(column)) > len(part) for column in part.T]
    if len(Z) < FEWEST_IN_COMPANY or sum(fine) < 2:
        return
    rows = np.asarray(Z[: max(COMPARED // len(fine), ASKED), fine], dtype=np.float64)
    asked = rows[np.random.default_rng(0).permutation(len(rows))[:ASKED]]
    from sklearn.neighbors import NearestNeighbors  # here: slow to import

    search = NearestNeighbors(n_neighbors=FARTHEST + 1, algorithm="brute").fit(rows)
    near = search.kneighbors(asked)[0][:, 1:]  # without the row itself
    leap = (near[:, 1:] > LEAP * near[:, :-1]) & (near[:, :-1] > ROUNDING * sum(fine) ** 0.5)
    if leap[:, 1:].any(1).mean() > LEAPING or leap[:, 0].mean() > PAIRED:
        yield (
            "many rows stand in groups of near copies: if each group is one subject (a patient, a "
            "session) measured again, the other rows of it tell a row that is left out, and of new "
            "subjects far more are flagged than was said: say which rows are of one subject, "
            "--group-column or groups of fit"
        )


def tell_tales(table, y):
    """Yield warnings of columns that may be the label under another name.

    By their name and values they are a label left in, or their values determine which rows are
    known anomalies.

    Args:
        table: a :class:`data.table.Table`.
        y: (n,) labels.
    """
    known = y == 1
    left_in = []
    for j, name in enumerate(table.names()):
        if OF_LABEL.fullmatch(name.strip()):
            values = np.unique(table.X[:, j])
            if np.count_nonzero(values == values) == 2:
                left_in.append(repr(name))
    if left_in and (known.any() or (y == -1).all()):  # if all are said to be normal, so be it
        why = ", as no label was given" if (y == -1).all() else ""
        yield (
            f"column {listed(left_in)} is named like a label, and learned from like any other"
            f"{why}: leave it out (--drop-columns), or give it as the label (--label-column, y of "
            "fit)"
        )
    if min(known.sum(), (~known).sum()) < FEWEST_OF_EACH:
        return
    most = min(FEW_VALUES, len(y) // 10)
    found = []
    for j, name in enumerate(table.names()):
        column = table.X[:, j]
        if _is_of_one_class(column, known):
            found.append(repr(name))
            continue
        if len(np.unique(column[:LOOKED_AT])) > most:  # spares sorting a long column
            continue
        values, place_of, counts = np.unique(column, return_inverse=True, return_counts=True)
        # A value that one row holds has one label in any case: all such values count as one.
        place_of = np.where(counts[place_of] == 1, np.argmin(counts), place_of)
        counts = np.bincount(place_of, minlength=len(values))
        n_known = np.bincount(place_of, known, len(values))
        if len(values) <= most and ((n_known == 0) | (n_known == counts)).all():
            found.append(repr(name))
    found = [name for name in found if name not in left_in]
    if found:
        yield (
            f"column {listed(found)} says of every row whether it is an anomaly: leave it out "
            "(--drop-columns) if it is the label under another name"
        )


def _is_of_one_class(column, known):
    """Has a column (n,) values for one class only, or one value for all normals and no anomaly?

    ``known``: (n,) bool. An amount charged back, the time when a case was closed.
    """
    gaps = np.isnan(column) if column.dtype.kind == "f" else np.zeros(len(column), dtype=bool)
    if gaps.any():
        return bool((gaps == known).all() or (gaps != known).all())
    one = column[np.argmin(known)]
    return bool((column[~known] == one).all() and (column[known] != one).all())


NOT_KNOWN = "if it stands for 'not known', leave these cells empty and give --impute median"
TEXTS = SAID | {
    "counts": "counts the rows: it says where a row stands, not what it is: leave it out "
    "(--drop-columns)",
    # Of rows that were drawn from a long table, neither the order nor the range is a row number's.
    "index": "has a name and values of the row index that pandas writes: of a sorted table it "
    "tells the label: leave it out (read_csv(..., index_col=0), --drop-columns)",
    # A salary or a pressure in pascals is another whole number in every row of a short table, too.
    "id": "holds another whole number in every row, like an id: leave it out if it is one "
    "(--drop-columns)",
    "epoch": "looks like times since 1970, or days like 20261231: if so, the past rows lie all on "
    "one side of any new one: leave it out then (--drop-columns)",
    "rises": "rises or falls through all rows, as a clock or a page number does: it may say where "
    "a row stands, not what it is: leave it out then (--drop-columns)",
    "placeholder": f"one value far from all others, again and again: {NOT_KNOWN}",
    "apart": f"one value apart from all others, again and again: {NOT_KNOWN}",
    "few": "a few rows are far from all others: they do not move the rest, but look at them",
    "almost": "one value nearly everywhere: the others are too few to learn from",
    "empty": "empty nearly everywhere, and filled with one value: if a value holds for the rows "
    "below it, as in merged cells, write it into each; if it tells something that one is there, "
    "--impute indicator keeps that; else leave the column out (--drop-columns)",
    "categories": "is declared as categories that are numbers, and taken as numbers: where they "
    "are codes, write them as texts (c3) and give --categorical onehot",
    "digits": "float32 holds too few digits of it: give float64",
    "long": "float64 holds too few digits of it, its values fall together: leave it out "
    "(--drop-columns), or subtract a constant before",
    "sizes": "its small values fall together beside the large ones: write all in one unit, or give "
    "their logarithm",
}


def _written(value):
    """A number as a short text, but with all digits that are needed to find it in the table."""
    short = f"{value:g}"
    return short if float(short) == value else as_text(value)


def _date(days):
    """Days since 1970 as a date, without the time."""
    return day_of(float(np.floor(days)))


def _kinds(values, dated):
    """Yield (key of ``TEXTS``, detail) for a column's values (n,); ``dated``: these are days."""
    written, short = (_date, _date) if dated else (_written, "{:g}".format)
    n = len(values)
    distinct, counts = np.unique(values, return_counts=True)
    low, high = float(distinct[0]), float(distinct[-1])
    long = _are_long(distinct)
    if long:
        yield "long", f" ({distinct[0]:g})"
    if len(distinct) == 1:
        return
    whole = values.dtype.kind in "iub" or (values == np.rint(values)).all()
    naming = _naming(values, distinct, whole)
    if naming is not None and not (dated and naming == "id"):
        yield naming, ""
    scaler = ColumnScaler().fit(values[:, None])
    end = _far_end(values, distinct, counts)
    if end is not None:
        if counts[end] >= AGAIN:
            yield "placeholder", f" ({written(distinct[end])} in {counts[end]} rows)"
        else:
            yield "few", f" ({short(distinct[end])}; {counts[end]} rows in all)"
        return
    if counts.max() < 0.9 * n:  # otherwise any other value is merely rare
        yield from _far_values(values, distinct, counts, scaler, (written, short))
    if counts.max() >= ALMOST * n:
        yield "almost", f" ({short(distinct[counts.argmax()])})"
    if too_coarse(scaler)[0] and not dated and _came_in_float32(distinct, whole):
        yield "digits", ""
    if 0 < WIDE * low < high and not long and _fall_together(distinct, scaler):
        yield "sizes", f" ({low:g} to {high:g})"


def _far_values(values, distinct, counts, scaler, how):
    """As :func:`_kinds`, of a column's extremes; ``how``: two functions that write a value."""
    written, short = how
    away = np.abs(scaler.deviations(distinct[:, None])[:, 0])
    far = away > FAR
    if far.any() and counts[far].sum() <= FEW * len(values):
        most = np.argmax(np.where(far, counts, 0))
        if counts[most] >= max(AGAIN, counts[far].sum() / 2):
            yield "placeholder", f" ({written(distinct[most])} in {counts[most]} rows)"
        elif away.max() > ABSURD:
            worst = distinct[np.argmax(away)]
            yield "few", f" ({short(worst)}; {counts[away > ABSURD].sum()} rows in all)"
        return
    apart = _usual_placeholder(values, distinct, counts)
    if apart is not None:
        yield "apart", f" ({written(distinct[apart])} in {counts[apart]} rows)"


def _are_long(distinct):
    """Does float64 hold too few digits of a column's different values (m,), ascending?"""
    low, high = float(distinct[0]), float(distinct[-1])
    largest = max(abs(low), abs(high))
    if largest > EXACT and high - low < DIGITS * np.spacing(largest):
        return True
    wide = distinct.dtype.itemsize > 8  # a long double
    return wide and len(np.unique(distinct.astype(np.float64))) < (1 - ALIKE) * len(distinct)


def too_coarse(scaler):
    """Does float32 hold too few digits of the columns that a scaler was fitted to? (d,) bool."""
    lost = np.abs(scaler.centre) * np.finfo(np.float32).eps * DIGITS > scaler.scale
    return lost & (scaler.start == 0)  # of a logarithm it holds enough


def beyond_float32(values):
    """How many binary digits the numbers have beyond float32's last one: whole numbers, one each.

    0 for those that end with it, less for those that end before.
    """
    mantissa = np.frexp(np.asarray(values, dtype=np.float64))[0]
    digits = np.abs(np.ldexp(mantissa, 53)).astype(np.int64)
    ends = np.log2(np.maximum(digits & -digits, 1)).astype(int)
    return np.where(digits == 0, -24, 29 - ends)


def end_with_float32(distinct, lost):
    """Do all digits of different numbers (m,) end where float32's do, by more than chance?

    Args:
        distinct: the numbers.
        lost: digits beyond float32 that such numbers would have.
    """
    return beyond_float32(distinct).max() == 0 and len(distinct) * lost >= CERTAIN


def _came_in_float32(distinct, whole):
    """Have a column's different values come in float32, or become float64 beside other columns?"""
    if distinct.dtype != np.float64:
        return distinct.dtype == np.float32
    # float32 holds whole numbers up to 2^24, and no odd ones beyond.
    lost = np.log2(np.abs(distinct).max()) - 24 if whole else CERTAIN
    return end_with_float32(distinct, np.ceil(lost))


def _fall_together(distinct, scaler):
    """Do many of a column's different values become equal under its fitted scaler?"""
    some = distinct[:: -(-len(distinct) // LOOKED_AT)]
    if len(some) <= VARIED:
        return False
    places = scaler.transform(some[:, None])
    if scaler.start[0]:  # float32 tells logarithms apart that are as good as equal
        places = np.rint(places / ROUNDING)
    return len(np.unique(places)) < (1 - ALIKE) * len(some)


def _number_rows(values):
    """Are the values (n,) whole numbers from 0 on, another one in every row?"""
    whole = values.dtype.kind in "iu" or (values == np.rint(values)).all()
    return bool(whole) and values.min() >= 0 and len(np.unique(values)) == len(values)


def _naming(values, distinct, whole):
    """The kind of a column that tells which row or when rather than what, or None."""
    n = len(values)
    steps = np.diff(values.astype(np.float64))
    if whole and (steps == steps[0]).all() and steps[0] != 0:
        return "counts"
    if len(distinct) > VARIED and (_are_epochs(values) or (whole and _are_days(distinct))):
        return "epoch"
    if n <= ALL_DIFFERENT:
        return None
    if whole and _are_ids(distinct, n):
        return "id"
    # Comparisons, not steps: in float64 the steps between long numbers are 0.
    one_way = (values[1:] >= values[:-1]).all() or (values[1:] <= values[:-1]).all()
    return "rises" if one_way and len(distinct) > VARIED else None


def _are_epochs(values):
    """Do nearly all values look like times since 1970, in some unit?"""
    values = values.astype(np.float64)  # float16 does not reach so far
    return any(
        ((values >= first) & (values <= last)).mean() >= ALMOST_ALL for first, last in EPOCHS
    )


def _are_days(distinct):
    """Are whole numbers dates written without marks, 20261231 or 20261231235959?"""
    for divisor in (1, 10**6):
        days = distinct.astype(np.float64) // divisor
        year, month, day = days // 10_000, days // 100 % 100, days % 100
        if ((1900 <= year) & (year < 2100) & (1 <= month) & (month <= 12)).all():
            return bool(((1 <= day) & (day <= 31)).all())
    return False


def _are_ids(distinct, n):
    """Do n whole numbers look like ids: almost all differ, in a small range or of equal length?"""
    if len(distinct) < ALMOST_ALL * n:
        return False
    low, high = float(distinct[0]), float(distinct[-1])
    digits = {len(str(int(value))) for value in (low, high)}
    return high - low < 4 * n or (low > 0 and len(digits) == 1 and low >= 10_000)


def _usual_placeholder(values, distinct, counts):
    """The index, 0 or -1, of a usual code for "not known" that stands apart from the others.

    A weight of 0 is not far out by the scale of weights, but the lightest person is far from it.
    None if there is none, or nothing else to compare with.
    """
    if len(distinct) <= VARIED:
        return None
    for end, beside, quantile in ((0, 1, 0.05), (-1, -2, 0.95)):
        many = AGAIN <= counts[end] <= MOST_UNKNOWN * len(values)
        if not many or float(distinct[end]) not in CODES_OF_GAPS:
            continue
        others = values[values != distinct[end]].astype(np.float64)
        gap = abs(float(distinct[end]) - float(distinct[beside]))
        edge = abs(np.quantile(others, quantile) - float(distinct[beside]))
        low, high = np.quantile(others, (0.1, 0.9))
        if gap >= 2 * edge and gap >= GAP_BESIDE * (high - low) > 0:
            return end
    return None


def _far_end(values, distinct, counts):
    """The index, 0 or -1, of an extreme value that many rows share far from all others, or None.

    So many rows change the scale of the column, so the distance is measured in the others' scale.
    """
    if len(distinct) <= VARIED:
        return None
    for end in (0, -1):
        many = FEW * len(values) < counts[end] < 0.9 * len(values)
        if many and float(distinct[end]).is_integer():
            others = values[values != distinct[end]]
            of_others = ColumnScaler().fit(others[:, None])
            if abs(of_others.deviations(distinct[[end], None]).item()) > FAR:
                return end
    return None
