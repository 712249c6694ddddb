"""What about a table's columns deserves a word before anything is learned from them.

Nothing here changes a value: a placeholder is taken as the number that it is, bent as every other
(:class:`data.scaler.ColumnScaler`). But a column that counts the rows, or whose 999 means "not
known", is rarely meant.

Shapes: n rows, d columns.
"""

import numpy as np

from swift_hydra.data.frames import EXACT, as_text, day_of
from swift_hydra.data.scaler import LARGEST, ColumnScaler
from swift_hydra.data.table import listed, place
from swift_hydra.data.texts import ALL_DIFFERENT, ALMOST_ALL, SAID, kinds_of_texts
from swift_hydra.geometry import ROUNDING

FAR = 30.0  # scales from the median: outside of all that a column usually holds
ABSURD = 1000.0  # the same, beyond what any heavy tail holds
AGAIN = 3  # rows from which on a value comes again and again
FEW = 0.02  # share of the rows
ALMOST = 0.995  # share of one value that leaves little to learn
EPOCHS = [(1e9 * unit, 2.2e9 * unit) for unit in (1, 1e3, 1e6, 1e9)]  # 2001 to 2039
FEW_VALUES = 20  # of a column that may be the label under another name
FEWEST_OF_EACH = 5  # rows of a label, or chance could do it
VARIED = 10  # different values that a column of measurements has at least
ALIKE = 0.2  # share of the different values that cannot be told apart any more
LOOKED_AT = 10_000  # of them
WIDE = 1000.0  # times the smallest value: a column of several sizes
FEWEST_IN_COMPANY = 50  # rows, below which nobody can say
COMPARED = 2**22  # numbers of the rows among which neighbours are looked for
ASKED = 300  # of the rows, for their neighbours
FARTHEST = 20  # neighbours that are looked at
LEAP = 4.0  # times the distance of the neighbour before
LEAPING = 0.25  # share of the rows with a leap beyond their second neighbour
PAIRED = 0.6  # the same beyond the first one
DIGITS = 100  # steps of float32 in a column's scale: fewer are no measurement


def notes(table, asked=False):
    """One text for every kind of suspicious column of a :class:`data.table.Table`.

    Its rows are in the order that they were given in.

    Args:
        table: the rows.
        asked: somebody has said which texts are gaps.
    """
    found = {}
    X = table.X
    if len(X) < 10 or X.dtype.kind not in "biuf":
        return []
    scaler = ColumnScaler()
    for j, name in enumerate(table.names()):
        column = X[:, j]
        if j in table.texts:
            for kind, detail in kinds_of_texts(column, table.texts[j], table.lines, asked):
                found.setdefault(kind, []).append(f"{name!r}{detail}")
            continue
        if j in table.categories:
            found.setdefault("categories", []).append(repr(name))
        values = column[~np.isnan(column)] if column.dtype.kind == "f" else column
        if len(values) < 10 or not (np.abs(values) <= LARGEST / 2).all():
            continue
        for kind, detail in _kinds(values, scaler, j in table.dated):
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
    """A text, one at most, where many rows stand in groups that differ by far less than groups do.

    From the second neighbour to the third, or from one to the next further out, the distance then
    leaps. Of continuous columns it does so for hardly a row: by more than four times, of d columns
    for 4^-2d of them after two neighbours, and less after more. (4 % at most on 50 real tables, 20
    to 100 % where each of 60 subjects was measured three to ten times with a tenth to a fiftieth of
    their differences; of pairs nearly all leap at the first.)

    Args:
        Z: (n, d) standardised rows. Columns of few values, and copies up to rounding, say nothing
            here, nor does a single column, in which neighbours leap by chance.
    """
    part = Z[:LOOKED_AT]
    fine = [2 * len(np.unique(column)) > len(part) for column in part.T]
    if len(Z) < FEWEST_IN_COMPANY or sum(fine) < 2:
        return
    rows = np.asarray(Z[: max(COMPARED // len(fine), ASKED), fine], dtype=np.float64)
    asked = rows[np.random.default_rng(0).permutation(len(rows))[:ASKED]]
    from sklearn.neighbors import NearestNeighbors  # here: a mistake at the shell needs no learner

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
    """Texts, one at most, of columns whose value says of every row whether it is a known anomaly.

    Args:
        table: a :class:`data.table.Table`.
        y: (n,) labels.
    """
    known = y == 1
    if min(known.sum(), (~known).sum()) < FEWEST_OF_EACH:
        return
    most = min(FEW_VALUES, len(y) // 10)
    found = []
    for j, name in enumerate(table.names()):
        column = table.X[:, j]
        if len(np.unique(column[:LOOKED_AT])) > most:  # a long column is sorted if it may matter
            continue
        values, place_of, counts = np.unique(column, return_inverse=True, return_counts=True)
        # A value that one row holds has one label whatever it says: all of these are as one value.
        place_of = np.where(counts[place_of] == 1, np.argmin(counts), place_of)
        counts = np.bincount(place_of, minlength=len(values))
        n_known = np.bincount(place_of, known, len(values))
        if len(values) <= most and ((n_known == 0) | (n_known == counts)).all():
            found.append(repr(name))
    if found:
        yield (
            f"column {listed(found)} says of every row whether it is an anomaly: leave it out "
            "(--drop-columns) if it is the label under another name"
        )


TEXTS = SAID | {
    "counts": "counts the rows: it says where a row stands, not what it is: leave it out "
    "(--drop-columns)",
    # A salary or a pressure in pascals is another whole number in every row of a short table, too.
    "id": "holds another whole number in every row, like an id: leave it out if it is one "
    "(--drop-columns)",
    "epoch": "looks like times since 1970, or days like 20261231: if so, the past rows lie all on "
    "one side of any new one: leave it out then (--drop-columns)",
    "rises": "rises or falls through all rows, as a clock or a page number does: it may say where "
    "a row stands, not what it is: leave it out then (--drop-columns)",
    "placeholder": "one value far from all others, again and again: if it stands for 'not known', "
    "leave these cells empty and give --impute median",
    "few": "a few rows are far from all others: they do not move the rest, but look at them",
    "almost": "one value nearly everywhere: the others are too few to learn from",
    "categories": "is declared as categories that are numbers, and taken as numbers: where they "
    "are codes, write them as texts (c3) and give --categorical onehot",
    "digits": "float32 holds too few digits of it: give float64",
    "long": "float64 holds too few digits of it, its values fall together: leave it out "
    "(--drop-columns), or subtract a constant before",
    "sizes": "its small values fall together beside the large ones: write all in one unit, or give "
    "their logarithm",
}


def _written(value):
    """A number as short as can be, but with all digits that somebody needs to find it."""
    short = f"{value:g}"
    return short if float(short) == value else as_text(value)


def _date(days):
    """Days since 1970 as the date that they were written as."""
    return day_of(float(np.floor(days)))


def _kinds(values, scaler, dated):
    """Pairs of a kind and its detail for a column's values (n,); ``dated``: days since 1970."""
    written, short = (_date, _date) if dated else (_written, "{:g}".format)
    n = len(values)
    distinct, counts = np.unique(values, return_counts=True)
    low, high = float(distinct[0]), float(distinct[-1])
    largest = max(abs(low), abs(high))
    long = largest > EXACT and high - low < DIGITS * np.spacing(largest)
    if long:
        yield "long", f" ({distinct[0]:g})"
    if len(distinct) == 1:
        return
    whole = values.dtype.kind in "iub" or (values == np.rint(values)).all()
    naming = _naming(values, distinct, whole)
    if naming is not None and not (dated and naming == "id"):
        yield naming, ""
    centre, scale = (part[0] for part in scaler.fit(values[:, None]).snapshot().values())
    away = np.abs(distinct.astype(np.float64) - centre) / scale
    far = away > FAR
    end = _far_end(values, distinct, counts, scaler)
    if end is not None:
        if counts[end] >= AGAIN:
            yield "placeholder", f" ({written(distinct[end])} in {counts[end]} rows)"
        else:
            yield "few", f" ({short(distinct[end])}; {counts[end]} rows in all)"
        return
    spread = counts.max() < 0.9 * n  # otherwise another value is rare, and no more than that
    if spread and far.any() and counts[far].sum() <= FEW * n:
        most = np.argmax(np.where(far, counts, 0))
        if counts[most] >= max(AGAIN, counts[far].sum() / 2):
            yield "placeholder", f" ({written(distinct[most])} in {counts[most]} rows)"
        elif away.max() > ABSURD:
            worst = distinct[np.argmax(away)]
            yield "few", f" ({short(worst)}; {counts[away > ABSURD].sum()} rows in all)"
    if counts.max() >= ALMOST * n:
        yield "almost", f" ({short(distinct[counts.argmax()])})"
    if values.dtype == np.float32 and abs(centre) * np.finfo(np.float32).eps * DIGITS > scale:
        yield "digits", ""
    if 0 < WIDE * low < high and not long and _fall_together(distinct, scaler):
        yield "sizes", f" ({low:g} to {high:g})"


def _fall_together(distinct, scaler):
    """Are many of a column's different values one to the networks, under its fitted scaler?"""
    some = distinct[:: -(-len(distinct) // LOOKED_AT)]
    if len(some) <= VARIED:
        return False
    return len(np.unique(scaler.transform(some[:, None]))) < (1 - ALIKE) * len(some)


def _naming(values, distinct, whole):
    """How a column says rather which row or when than what, or None."""
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
    # Not by steps: those of long numbers are 0 in float64.
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
    """Are so many of n whole numbers different, in a small range or of equally many digits?"""
    if len(distinct) < ALMOST_ALL * n:
        return False
    low, high = float(distinct[0]), float(distinct[-1])
    digits = {len(str(int(value))) for value in (low, high)}
    return high - low < 4 * n or (low > 0 and len(digits) == 1 and low >= 10_000)


def _far_end(values, distinct, counts, scaler):
    """Which end of the distinct values, 0 or -1, many rows share, far from all others; or None.

    So many that they move the scale of the whole column: the others' own one tells.
    """
    if len(distinct) <= VARIED:
        return None
    for end in (0, -1):
        many = FEW * len(values) < counts[end] < 0.9 * len(values)
        if many and float(distinct[end]).is_integer():
            others = values[values != distinct[end]]
            centre, scale = (part[0] for part in scaler.fit(others[:, None]).snapshot().values())
            if abs(float(distinct[end]) - centre) > FAR * scale:
                return end
    return None
