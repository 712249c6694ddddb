"""Columns of pandas, polars and Arrow tables, by name, whatever they hold.

Nothing of these libraries is imported: a frame is known by what it has.

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
EXACT = 2**53  # whole numbers up to here are float64's to the digit
WRITTEN = 1e22  # whole floats up to here are written to the digit
CODE = re.compile(r"[0-9]E[0-9]")
# No 007, which is a code, and no number of more digits than float64 has.
NUMBER = re.compile(r"[+-]?(?:0|[1-9][0-9]{0,14})(?:\.[0-9]*)?(?:[eE][+-]?[0-9]{1,3})?")


class Days(np.ndarray):
    """Days since 1970 of a column that held dates."""


def frame_names(X):
    """The column names of a data frame as texts, or None for anything else."""
    if hasattr(X, "column_names"):  # Arrow
        return [text_of_name(name) for name in X.column_names]
    if (hasattr(X, "iloc") or hasattr(X, "get_columns")) and hasattr(X, "columns"):
        return [text_of_name(name) for name in X.columns]
    return None


def text_of_name(name):
    """A column's name as a text; of bytes and members of enumerations what they stand for."""
    name = text_of_bytes(name) if isinstance(name, bytes) else name
    return composed(str.__str__(name) if isinstance(name, str) else str(name))


def number_categories(types):
    """Places of the columns, of their types, that are declared as categories which are numbers."""
    return tuple(j for j, kind in enumerate(types) if _kind_of_categories(kind) in ("i", "u", "f"))


def _kind_of_categories(kind):
    """The first letter of the kind of values that a categorical type of pandas or Arrow holds."""
    if hasattr(kind, "categories"):  # pandas, and polars, whose categories are texts
        return getattr(getattr(kind.categories, "dtype", None), "kind", None)
    held = str(getattr(kind, "value_type", "")) if hasattr(kind, "index_type") else ""
    return {"int": "i", "uin": "u", "flo": "f", "dou": "f", "hal": "f"}.get(held[:3])


def stands_apart(kind):
    """Is a pandas column of this type no array beside others?

    Of the gaps of categories pandas makes whole numbers there, or True; of sparse bools it warns.
    """
    return hasattr(kind, "categories") or hasattr(kind, "fill_value")


def frame_types(X):
    """The types of a data frame's columns."""
    return list(X.schema.types) if hasattr(X, "column_names") else list(X.dtypes)


def repeated(names):
    """The names that are there more than once."""
    return [name for name, count in collections.Counter(names).items() if count > 1]


def as_known(names, known):
    """The names, of which one that is a known one but for spaces around it is that one.

    Files of text are read without these, other readers of the same files keep them.
    """
    own = {name.strip(): name for name in known}
    if set(known) <= set(names) or len(own) < len(known):
        return names
    found = [name if name in known else own.get(name.strip(), name) for name in names]
    return found if len(set(found)) == len(set(names)) else names


def with_columns(X, order):
    """A data frame with some of its columns, by their numbers."""
    if hasattr(X, "iloc"):
        return X.iloc[:, order]
    if hasattr(X, "column_names"):  # Arrow takes numbers, as names may be there twice
        return X.select(order)
    return X.select([X.columns[j] for j in order])


def unmasked(X):
    """A masked array with nothing in the place of what is masked."""
    if X.dtype.kind == "f":
        return X.filled(np.nan)
    if X.dtype.kind in "mM":  # as objects, nanoseconds would be whole numbers
        return X.filled(np.array("NaT", X.dtype))
    cells = np.array(X.data, dtype=object)
    cells[np.ma.getmaskarray(X)] = None
    return cells


def is_missing(cell):
    """Is a cell what pandas, polars, Arrow or a text file leave where nothing is known?"""
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
        InputError: naming the column whose kind of values cannot be used.
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
        # Python's own dates end with the year 9999, and it has no float32.
        kind = column.dtype
        simple = simple and (not column.null_count() or kind.is_temporal() or kind.is_float())
        simple = simple and not str(kind).endswith("Int128")  # numpy has none of 16 bytes
        return column.to_numpy() if simple else object_array(column.to_list())
    return arrow_values(X.column(j))


def object_array(cells):
    """(n,) array of Python objects, whatever they are: of equally long lists, too."""
    return np.array([*cells, None], dtype=object)[:-1]


def arrow_values(column):
    """An Arrow column as an array: numbers, or Python's own objects."""
    kind = str(column.type)
    if kind.startswith(("bool", "int", "uint")) and not column.null_count:
        return np.asarray(column)
    # Python's own dates end with the year 9999, and it has no float32.
    if kind.startswith(("float", "double", "timestamp", "date", "duration")):
        return np.asarray(column)
    parts = column.chunks if hasattr(column, "chunks") else [column]
    cells = [cell for part in parts for cell in arrow_objects(part)]
    return object_array(cells)


def arrow_objects(column):
    """The values of an Arrow array; what a dictionary holds is one object for all its rows."""
    if not hasattr(column, "dictionary"):
        return column.to_pylist()
    words = column.dictionary.to_pylist()
    return [None if i is None else words[i] for i in column.indices.to_pylist()]


def cells_of(values, where, dates=False):
    """A column's values (n,) as an array of numbers, or as a list of cells with "" for gaps.

    Bools and whole numbers that float64 does not hold to the digit stay what they are in a list:
    where training had texts, :func:`as_text` finds these again.

    Raises:
        InputError: for dates that are not asked for, and for what is neither number nor text.
    """
    if values.dtype.kind in "biuf":
        return values
    if values.dtype.kind == "c":
        raise InputError(f"{where}: Complex data not supported: give real numbers")
    if values.dtype.kind in "mM" and np.isnat(values).all():  # nothing is known, of any kind
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
    """What :func:`cells_of` made of a column, with nothing where a number stands for a gap.

    Args:
        cells: an array of numbers, or a list.
        reading: a :class:`data.reading.Reading`.
    """
    if isinstance(cells, Days):  # what stands for a gap is no number of days
        return cells
    if isinstance(cells, np.ndarray):
        return reading.without_gaps(cells)
    gaps = reading.gap_numbers()
    if not gaps:
        return cells
    words = (str, bool, np.bool_)  # False is no 0
    return ["" if not isinstance(cell, words) and cell in gaps else cell for cell in cells]


def _is_exact(cell):
    """Would a float64 lose what a value is?"""
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
    """Days since 1970 as they are written: a date, with the time where that is not midnight."""
    moment = np.datetime64(round(value * 86_400), "s")
    return str(moment.astype("datetime64[D]")) if value % 1 == 0 else str(moment)


def _number(cell, where):
    # A timedelta64 calls itself a whole number.
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
    """The text of a value, whatever held it: True, 7 (of 7.0 too), 1234567, 0.1; "" of a gap."""
    if isinstance(cell, str):
        return composed(cell.strip())
    if isinstance(cell, (bool, np.bool_)):
        return str(bool(cell))
    if is_missing(cell):
        return ""
    if isinstance(cell, numbers.Integral):
        return str(int(cell))
    # 0.1 of a float32 is meant as 0.1, not as the float64 beside it.
    value = float(str(cell) if isinstance(cell, np.floating) else cell)
    return str(int(value)) if value.is_integer() and abs(value) < WRITTEN else repr(value)


def one_spelling(text):
    """What all ways to write a bool or a whole number have in common; another text stays.

    1.1 and 1.10 may be two versions of something, 7 and 7.0 hardly are; 1E2 may be a
    code, 1e2 hardly is.
    """
    same = same_value(text)
    if same in ("True", "False"):
        return same
    return same if same.lstrip("-").isdecimal() and not CODE.search(text) else text


def same_value(text):
    """A text that all ways to write a bool or a number have in common; another text stays."""
    word = text.casefold()
    if word in ("true", "false"):
        return word.capitalize()
    return as_text(float(text)) if NUMBER.fullmatch(text) else text


def name_of_labels(y, own):
    """Name of the labels' column, which a frame to score may still have; or None.

    Args:
        y: labels of any container.
        own: names that somebody gave the columns of X, maybe none.
    """
    names = frame_names(y) or [getattr(y, "name", None) or None]
    names = [text_of_name(name) if isinstance(name, str | bytes) else name for name in names]
    if len(names) != 1 or names[0] is None:
        return None
    if not isinstance(names[0], str):  # a number: it counts columns, of X as well perhaps
        return None if str(names[0]) in own else str(names[0])
    if names[0] in own:
        tell(
            f"X: column {names[0]!r} has the name of the labels and is learned from: leave it "
            "out of X if it tells them",
        )
    return names[0]
