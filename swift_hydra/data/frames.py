"""Columns of pandas, polars and Arrow tables, by name, whatever they hold.

Nothing of these libraries is imported: a frame is known by what it has.

Shapes: n rows, d columns.
"""

import collections
import datetime
import numbers

import numpy as np

from swift_hydra.settings import InputError

DAY = np.timedelta64(1, "D")


def frame_names(X):
    """The column names of a data frame as texts, or None for anything else."""
    if hasattr(X, "column_names"):  # Arrow
        return [str(name) for name in X.column_names]
    if hasattr(X, "columns") and (hasattr(X, "iloc") or hasattr(X, "get_columns")):
        return [str(name) for name in X.columns]
    return None


def repeated(names):
    """The names that are there more than once."""
    return [name for name, count in collections.Counter(names).items() if count > 1]


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
    cells = np.array(X.data, dtype=object)
    cells[np.ma.getmaskarray(X)] = None
    return cells


def is_missing(cell):
    """Is a cell what pandas, polars, Arrow or a text file leave where nothing is known?"""
    if cell is None or type(cell).__name__ in ("NAType", "NaTType"):
        return True
    if isinstance(cell, str):
        return not cell.strip()
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
        return np.asarray(X.iloc[:, j])
    if hasattr(X, "get_columns"):
        column = X.get_columns()[j]
        simple = not column.dtype.is_nested() and not column.null_count()
        return column.to_numpy() if simple else np.array([*column.to_list(), None], object)[:-1]
    return arrow_values(X.column(j))


def arrow_values(column):
    """An Arrow column as an array: numbers, or Python's own objects."""
    kind = str(column.type)
    if kind.startswith(("int", "uint", "float", "double")) and not column.null_count:
        return np.asarray(column)
    return np.array([*column.to_pylist(), None], dtype=object)[:-1]


def cells_of(values, where, dates=False):
    """A column's values (n,) as an array of numbers, or as a list of cells with "" for gaps.

    Raises:
        InputError: for dates that are not asked for, and for what is neither number nor text.
    """
    if values.dtype.kind in "biuf":
        return values
    if values.dtype.kind == "c":
        raise InputError(f"{where}: Complex data not supported: give real numbers")
    if values.dtype.kind == "M":
        return _days(values, where, dates)
    if values.dtype.kind == "S":
        return [cell.decode(errors="replace") for cell in values.tolist()]
    if values.dtype.kind == "U":
        return values.tolist()
    if values.dtype.kind != "O":
        raise InputError(
            f"{where} has the type {values.dtype}: turn it into numbers, or leave it out"
        )
    cells = ["" if is_missing(cell) else cell for cell in values.tolist()]
    cells = [cell.decode(errors="replace") if isinstance(cell, bytes) else cell for cell in cells]
    if any(isinstance(cell, str) and cell for cell in cells):
        return [cell if isinstance(cell, str) else _text(cell, where) for cell in cells]
    if cells and all(isinstance(cell, datetime.date) or cell == "" for cell in cells):
        moments = [None if cell == "" else cell for cell in cells]
        return _days(np.array(moments, dtype="datetime64[us]"), where, dates)
    return np.array([np.nan if cell == "" else _number(cell, where) for cell in cells])


def _days(values, where, dates):
    if not dates:
        raise InputError(
            f"{where} holds dates, first {str(values[:1])[2:21]}: give --dates (dates=True) to "
            "take them as days since 1970, or leave it out"
        )
    days = (values - np.datetime64(0, "s")) / DAY
    return np.where(np.isnat(values), np.nan, days)


def _number(cell, where):
    if isinstance(cell, (numbers.Real, np.bool_)) or type(cell).__name__ == "Decimal":
        return float(cell)
    raise InputError(
        f"{where} holds {type(cell).__name__} values, first {str(cell)[:40]!r}: turn them into "
        "numbers or texts, or leave it out"
    )


def _text(cell, where):
    """A number beside texts."""
    return str(cell) if isinstance(cell, (bool, np.bool_)) else f"{_number(cell, where):g}"
