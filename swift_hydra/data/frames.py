"""Columns of pandas, polars and Arrow tables, whatever types they have.

None of these libraries is imported: a frame is recognised by its attributes.

Shapes: n rows, d columns.
"""

import collections
import datetime
import decimal
import numbers
import re

import numpy as np

from swift_hydra.data.reading import composed, text_of_bytes
from swift_hydra.settings import InputError, tell

DAY = np.timedelta64(1, "D")
EXACT = 2**53  # float64 holds all whole numbers up to here exactly
WRITTEN = 1e22  # whole floats below this are written with all digits
CODE = re.compile(r"[0-9]E[0-9]")
# Not 007, which is a code, nor numbers with more digits than float64 holds.
NUMBER = re.compile(r"[+-]?(?:0|[1-9][0-9]{0,14})(?:\.[0-9]*)?(?:[eE][+-]?[0-9]{1,3})?")


class Days(np.ndarray):
    """Days since 1970 of a column that held dates."""


def frame_names(X):
    """The column names of a data frame as texts, or None for anything else."""
    if isinstance(getattr(X, "column_names", None), list):  # Arrow
        return [text_of_name(name) for name in X.column_names]
    if (hasattr(X, "iloc") or hasattr(X, "get_columns")) and hasattr(X, "columns"):
        return [text_of_name(name) for name in X.columns]
    return None


def text_of_name(name):
    """A column's name as a text; bytes are decoded, a member of an enumeration is its value."""
    name = text_of_bytes(name) if isinstance(name, bytes) else name
    return composed(str.__str__(name) if isinstance(name, str) else str(name))


def number_categories(types):
    """Positions of the column types that are categorical with numbers as categories."""
    return tuple(j for j, kind in enumerate(types) if _kind_of_categories(kind) in ("i", "u", "f"))


def _kind_of_categories(kind):
    """numpy's one-letter kind of the categories of a categorical pandas or Arrow type, or None."""
    kind = getattr(kind, "pyarrow_dtype", kind)  # of a pandas column that Arrow holds
    if hasattr(kind, "categories"):  # pandas, and polars, whose categories are texts
        return getattr(getattr(kind.categories, "dtype", None), "kind", None)
    held = str(getattr(kind, "value_type", "")) if hasattr(kind, "index_type") else ""
    return {"int": "i", "uin": "u", "flo": "f", "dou": "f", "hal": "f"}.get(held[:3])


def orders_of(types):
    """{position: texts of the categories, in their order} of column types that declare an order."""
    ordered = {
        j: kind.categories
        for j, kind in enumerate(types)
        if hasattr(kind, "categories")
        and (getattr(kind, "ordered", False) or type(kind).__name__ == "Enum")  # polars
    }
    return {j: [as_text(c) for c in given if isinstance(c, str)] for j, given in ordered.items()}


def stands_apart(kind):
    """Must a pandas column of this type be converted to an array by itself, without the others?

    Converted with others, gaps in categories become whole numbers or True, and sparse bools cause
    a warning.
    """
    return hasattr(kind, "categories") or hasattr(kind, "fill_value")


def frame_types(X):
    """The types of a data frame's columns."""
    return list(X.schema.types) if hasattr(X, "column_names") else list(X.dtypes)


def repeated(names):
    """The names that occur more than once."""
    return [name for name, count in collections.Counter(names).items() if count > 1]


def as_known(names, known):
    """The names, with those that differ from a known name only in spaces around it replaced by it.

    Text files are read without such spaces here; other readers of the same files keep them.
    """
    own = {name.strip(): name for name in known}
    if len(own) < len(known):
        return names
    known = set(known)
    if known <= set(names):
        return names
    found = [name if name in known else own.get(name.strip(), name) for name in names]
    return found if len(set(found)) == len(set(names)) else names


def with_columns(X, order):
    """A data frame with the columns of these numbers, in this order."""
    if hasattr(X, "iloc"):
        return X.iloc[:, order]
    if hasattr(X, "column_names"):  # Arrow: by number, since names may be repeated
        return X.select(order)
    return X.select([X.columns[j] for j in order])


def unmasked(X):
    """A plain array of a masked one, with NaN, NaT or None for masked cells."""
    if X.dtype.kind == "f":
        return X.filled(np.nan)
    if X.dtype.kind in "mM":  # as objects, nanoseconds would become whole numbers
        return X.filled(np.array("NaT", X.dtype))
    cells = np.array(X.data, dtype=object)
    cells[np.ma.getmaskarray(X)] = None
    return cells


def is_missing(cell):
    """Is a cell what pandas, polars, Arrow or a text file hold for a missing value?"""
    if cell is None or type(cell).__name__ in ("NAType", "NaTType"):
        return True
    if isinstance(cell, str):
        return not cell.strip()
    if isinstance(cell, decimal.Decimal):
        return cell.is_nan()
    return isinstance(cell, numbers.Real) and cell != cell


def cells_of_frame(X, dates, source):
    """The d columns of a data frame: arrays of numbers, or lists of cells with "" for gaps.

    Args:
        X: a frame, see :func:`frame_names`.
        dates: take dates as days since 1970; otherwise they are refused.
        source: what messages call the table.

    Raises:
        InputError: names the column whose kind of values cannot be used.
    """
    names = frame_names(X)
    return [
        cells_of(_column(X, j), f"{source}: column {name!r}", dates) for j, name in enumerate(names)
    ]


def _column(X, j):
    if hasattr(X, "iloc"):
        column = X.iloc[:, j]
        if getattr(column.dtype, "tz", None) is not None:
            column = column.dt.tz_convert("UTC").dt.tz_localize(None)
        return np.asarray(column)
    if hasattr(X, "get_columns"):
        column = X.get_columns()[j]
        simple = not column.dtype.is_nested()
        # As Python objects, dates would end with the year 9999, and float32 would be float64.
        kind = column.dtype
        simple = simple and (not column.null_count() or kind.is_temporal() or kind.is_float())
        simple = simple and not str(kind).endswith("Int128")  # numpy has no such type
        return column.to_numpy() if simple else object_array(column.to_list())
    return arrow_values(X.column(j))


def object_array(cells):
    """(n,) array of any Python objects, even of lists of one length."""
    return np.array([*cells, None], dtype=object)[:-1]


def arrow_values(column):
    """An Arrow column as an array: numbers, or Python's own objects."""
    kind = str(column.type)
    if kind.startswith(("bool", "int", "uint")) and not column.null_count:
        return np.asarray(column)
    # As Python objects, dates would end with the year 9999, and float32 would be float64.
    if kind.startswith(("float", "double", "timestamp", "date", "duration")):
        return np.asarray(column)
    parts = column.chunks if hasattr(column, "chunks") else [column]
    cells = [cell for part in parts for cell in arrow_objects(part)]
    return object_array(cells)


def arrow_objects(column):
    """The values of an Arrow array; rows with one dictionary entry share one object."""
    if not hasattr(column, "dictionary"):
        return column.to_pylist()
    words = column.dictionary.to_pylist()
    return [None if i is None else words[i] for i in column.indices.to_pylist()]


def cells_of(values, where, dates=False):
    """A column's values (n,) as an array of numbers, or as a list of cells with "" for gaps.

    Bools, and whole numbers that float64 does not hold exactly, stay unchanged in a list, so that
    :func:`as_text` gives the same texts as in training if the column held texts there.

    Raises:
        InputError: for dates without ``dates``, and for values that are neither numbers nor texts.
    """
    if values.dtype.kind in "biuf":
        return values
    if values.dtype.kind == "c":
        raise InputError(f"{where}: Complex data not supported: give real numbers")
    if values.dtype.kind in "mM" and np.isnat(values).all():  # only gaps, of whatever kind
        return np.full(len(values), np.nan)
    if values.dtype.kind == "M":
        return _days(values, where, dates)
    if values.dtype.kind == "S":
        return [text_of_bytes(cell) for cell in values.tolist()]
    if values.dtype.kind in "UT":
        return values.tolist()
    if values.dtype.kind != "O":
        raise InputError(
            f"{where} has the type {values.dtype}: turn it into numbers, or leave it out"
        )
    cells = ["" if is_missing(cell) else cell for cell in values.tolist()]
    cells = [text_of_bytes(cell) if isinstance(cell, bytes) else cell for cell in cells]
    present = [cell for cell in cells if not isinstance(cell, str)]
    if any(isinstance(cell, str) and cell for cell in cells):
        for cell in present:
            _number(cell, where)
        return [as_text(cell) for cell in cells]
    if present and all(isinstance(cell, datetime.date) for cell in present):
        return _days(_moments(cells, where), where, dates)
    found = [np.nan if isinstance(cell, str) else _number(cell, where) for cell in cells]
    return cells if any(map(_is_exact, present)) else np.array(found, dtype=np.float64)


def without_gaps(cells, reading):
    """The result of :func:`cells_of`, with gaps in place of the numbers that stand for a gap.

    Args:
        cells: an array of numbers, or a list.
        reading: a :class:`data.reading.Reading`.
    """
    if isinstance(cells, Days):  # a number of days never stands for a gap
        return cells
    if isinstance(cells, np.ndarray):
        return reading.without_gaps(cells)
    gaps = reading.gap_numbers()
    if not gaps:
        return cells
    words = (str, bool, np.bool_)  # False is not 0
    return ["" if not isinstance(cell, words) and cell in gaps else cell for cell in cells]


def _is_exact(cell):
    """Would a conversion to float64 change the text of a value?"""
    if isinstance(cell, numbers.Integral):
        return isinstance(cell, bool) or abs(cell) > EXACT
    return isinstance(cell, np.bool_) or (isinstance(cell, np.floating) and cell.itemsize < 8)


def _moments(cells, where):
    """Dates, "" for gaps, as datetime64 in UTC."""

    def utc(cell):
        if isinstance(cell, datetime.datetime) and cell.tzinfo is not None:
            return cell.astimezone(datetime.UTC).replace(tzinfo=None)
        return cell

    try:
        moments = [None if isinstance(cell, str) else utc(cell) for cell in cells]
        return np.array(moments, dtype="datetime64[us]")
    except (OverflowError, ValueError) as error:
        raise InputError(
            f"{where} holds dates that cannot be converted ({str(error)[:80]}): leave it out"
        ) from None


def _days(values, where, dates):
    if not dates:
        first = values[~np.isnat(values)][:1]
        raise InputError(
            f"{where} holds dates, first {str(first[0])[:19]}: give --dates (dates=True) to "
            "take them as days since 1970, or leave it out"
        )
    days = (values - np.datetime64(0, "s")) / DAY
    return np.where(np.isnat(values), np.nan, days).view(Days)


def day_of(value):
    """The date of a number of days since 1970, with the time unless that is midnight."""
    moment = np.datetime64(round(value * 86_400), "s")
    return str(moment.astype("datetime64[D]")) if value % 1 == 0 else str(moment)


def _number(cell, where):
    # timedelta64 is a subclass of numpy's integers.
    if isinstance(cell, (numbers.Real, np.bool_, decimal.Decimal)) and not isinstance(
        cell, np.timedelta64
    ):
        try:
            return float(cell)
        except OverflowError:
            raise InputError(
                f"{where} holds a number beyond float64's 1.8e308: give its logarithm, or leave it "
                "out"
            ) from None
    raise InputError(
        f"{where} holds {type(cell).__name__} values, first {str(cell)[:40]!r}: turn them into "
        "numbers or texts, or leave it out"
    )


def as_text(cell):
    """A value's text, the same for all types: True, 7 (also for 7.0), 1234567, 0.1; "" for gaps."""
    if isinstance(cell, str):
        return composed(cell.strip())
    if isinstance(cell, (bool, np.bool_)):
        return str(bool(cell))
    if is_missing(cell):
        return ""
    if isinstance(cell, numbers.Integral):
        return str(int(cell))
    # A float32 of 0.1 means 0.1, not 0.10000000149.
    value = float(str(cell) if isinstance(cell, np.floating) else cell)
    return str(int(value)) if value.is_integer() and abs(value) < WRITTEN else repr(value)


def one_spelling(text):
    """One text for all ways to write a bool or a whole number; other texts stay unchanged.

    1.1 and 1.10 may be two versions of something, 7 and 7.0 hardly are; 1E2 may be a
    code, 1e2 hardly is.
    """
    same = same_value(text)
    if same in ("True", "False"):
        return same
    return same if same.lstrip("-").isdecimal() and not CODE.search(text) else text


def same_value(text):
    """One text for all ways to write a bool or a number; other texts stay unchanged."""
    word = text.casefold()
    if word in ("true", "false"):
        return word.capitalize()
    return as_text(float(text)) if NUMBER.fullmatch(text) else text


def name_of_labels(y, own):
    """Name of the label column, which a frame to score may still contain; None if unknown.

    Args:
        y: labels in any container.
        own: names that the user gave to the columns of X; may be empty.
    """
    names = frame_names(y) or [getattr(y, "name", None) or None]
    names = [text_of_name(name) if isinstance(name, str | bytes) else name for name in names]
    if len(names) != 1 or names[0] is None:
        return None
    if not isinstance(names[0], str):  # a number just counts columns, those of X perhaps too
        return None if str(names[0]) in own else str(names[0])
    if names[0] in own:
        tell(
            f"X: column {names[0]!r} has the name of the labels and is learned from: leave it "
            "out of X if it tells them",
        )
    return names[0]
