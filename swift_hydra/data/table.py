"""Rows before they are prepared: an array, a data frame or cells of text become a :class:`Table`.

A table holds numbers, NaN for missing values; a text column holds the positions of its cells' texts
in a list. Text is refused by default; :class:`data.columns.Preparation` turns a table into input
for the networks.

Shapes: n rows, d columns.
"""

import contextlib
import dataclasses
import hashlib
from pathlib import Path

import numpy as np
import scipy.sparse

from swift_hydra.data.cells import CellParser, find_codes, place, say_of_codes, text_columns
from swift_hydra.data.frames import (
    cells_of,
    cells_of_frame,
    frame_names,
    frame_types,
    number_categories,
    orders_of,
    stands_apart,
    unmasked,
    without_gaps,
)
from swift_hydra.data.reading import Marks, Reading, asked_of, number
from swift_hydra.settings import InputError, listed

HASHED_ROWS = 65_536  # in float64 at once


def made_up_names(d):
    """Names for d columns without names: x0, x1, ..."""
    return [f"x{j}" for j in range(d)]


@dataclasses.dataclass(frozen=True, eq=False)
class Table:
    """Rows before they are prepared.

    Attributes:
        X: (n, d) numbers, NaN where a value is missing; a text column holds positions in its list
            of texts.
        columns: d names, or None if the rows came without.
        texts: {column number: list of its different texts}; empty for a table of numbers.
        source: the file, or what messages call the table.
        lines: n line numbers of a text file, a range of row numbers, or None.
        named: False if the names were made up for messages (x0, x1, ...).
        reading: how the file was read, see :meth:`data.reading.Reading.remembered`, or None.
        dated: numbers of the columns that held dates.
        categories: numbers of the columns declared as categorical with numbers as categories.
        orders: {column number: texts of its categories} of columns that declare their order.
        subjects: (n,) numbers from 0 of the rows' subjects (see data/subjects.py), or None.
    """

    X: np.ndarray
    columns: list | None = None
    texts: dict = dataclasses.field(default_factory=dict)
    source: object = "X"
    lines: list | None = None
    named: bool = True
    reading: dict | None = None
    dated: tuple = ()
    categories: tuple = ()
    orders: dict = dataclasses.field(default_factory=dict)
    subjects: np.ndarray | None = None

    def __len__(self):
        return len(self.X)

    def take(self, rows):
        """The table of some rows, a slice or an array of their numbers."""
        if isinstance(rows, slice):
            lines = range(len(self))[rows] if self.lines is None else self.lines[rows]
        else:
            lines = None if self.lines is None else [self.lines[i] for i in rows]
        subjects = None if self.subjects is None else self.subjects[rows]
        return dataclasses.replace(self, X=self.X[rows], lines=lines, subjects=subjects)

    def names(self):
        """d names: the columns' own or x0, x1, ..."""
        return list(self.columns or made_up_names(self.X.shape[1]))


def as_table(X, texts=(), source="X", columns=None, dates=False, held=None, reading=None):
    """A :class:`Table` from an array-like or a data frame (a Table stays as it is).

    Args:
        X: the rows.
        texts: True to find text columns, or the columns that are text: their numbers, or
            {number: the training's texts}.
        source: what messages call the table.
        columns: d names; None takes a data frame's.
        dates: take dates as days since 1970.
        held: a :class:`data.cells.Held` of the training table; None in training.
        reading: a :class:`data.reading.Reading` that says what stands for a gap, or None.

    Raises:
        InputError: sparse or not 2-D, a type other than real numbers, text in a column that is not
            a text column, a comma that may be a decimal comma.
    """
    if isinstance(X, Table):
        return X
    kind = type(X).__name__
    if hasattr(X, "collect") and hasattr(X, "lazy"):  # first: its columns would be computed
        raise InputError(f"{source}: is a lazy frame: give {source}.collect()")
    if scipy.sparse.issparse(X):
        raise InputError(
            f"{source}: sparse input is not supported: give X.toarray(), or sparse_output=False"
        )
    _refuse_records(X, source)
    given = frame_names(X)
    columns = given if columns is None else columns
    X = _without_what_is_masked(X)
    frame = X if given is not None else None
    types = () if frame is None else frame_types(frame)
    categories = number_categories(types)
    at_once = hasattr(X, "iloc") and not any(map(stands_apart, types))
    X = _array(X, source) if frame is None or at_once else np.empty((0, 0), object)
    if X.ndim != 2:
        _refuse_shape(X, kind, source)
    columns = list(columns) if columns else None
    reading = reading or Reading()
    if X.dtype.kind not in "OUSMmT" and (texts is True or not texts) and not (held and held.dated):
        return Table(reading.without_gaps(X), columns, {}, source, categories=categories)
    names = columns or made_up_names(X.shape[1])
    if frame is not None:
        cells = cells_of_frame(frame, dates, source)
    else:
        cells = _cells_of_array(X, names, dates, source)
    cells = [without_gaps(column, reading) for column in cells]
    reads = reading.parser(".")
    # In training a frame's texts such as "NA" are no gaps, unless the user says which texts are.
    words = texts is not True or reads is not number
    texts = text_columns(cells, reads, dates=dates) if texts is True else texts
    _refuse_doubtful(cells, names, texts, source)
    parse = CellParser(names, source, texts, reads, dates=dates, words=words, held=held)
    X = parse(len(cells[0]) if cells else len(X), cells, None)
    found = {"dated": parse.dated_columns(), "categories": categories, "orders": orders_of(types)}
    table = Table(X, columns, parse.texts(), source, **found)
    parse.refuse_problems()
    if held is None:
        say_of_codes(find_codes(cells, table.texts), names, source)
    return table


def _without_what_is_masked(X):
    """A masked array, or a list of masked rows, as an array with gaps; all else unchanged."""
    if isinstance(X, list | tuple) and any(isinstance(row, np.ma.MaskedArray) for row in X):
        with contextlib.suppress(ValueError):  # rows of several lengths are refused later
            X = np.ma.stack(X)
    return unmasked(X) if isinstance(X, np.ma.MaskedArray) else X


def _cells_of_array(X, names, dates, source):
    """The d columns of an array of texts or objects, as :func:`data.frames.cells_of` gives them."""
    where = [f"{source}: column {name!r}" for name in names]
    return [cells_of(column, at, dates) for column, at in zip(X.T, where, strict=True)]


def _refuse_shape(X, kind, source):
    hint = ""
    if X.ndim == 1:
        hint = ". Reshape your data: X.reshape(-1, 1) for one feature, X.reshape(1, -1) for one row"
    if X.ndim == 1 and len(X) and hasattr(X[0], "__len__") and not isinstance(X[0], str | bytes):
        hint = f": its cells hold several values: give list({source})"
    if X.ndim == 0:
        hint = f" ({kind}): give an array or a data frame"
    raise InputError(f"{source}: X has shape {X.shape}: it must be 2-D, (rows, features){hint}")


def _refuse_records(X, source):
    """Refuse rows that name their values, which numpy would take by their places.

    Also frames of libraries that are not known here, such as narwhals and xarray.
    """
    if type(getattr(X, "dtype", None)).__name__ == "Struct":  # of polars
        raise InputError(f"{source}: is a list of records: give {source}.struct.unnest()")
    if (hasattr(X, "columns") and frame_names(X) is None) or _has_coordinates(X):
        kind = f"{type(X).__module__.partition('.')[0]}.{type(X).__name__}"
        raise InputError(
            f"{source}: is a frame of a kind that is not known here ({kind}): give it as one of "
            f"pandas, such as {source}.to_pandas()"
        )
    first = X[0] if isinstance(X, list | tuple) and len(X) else None
    of_array, records = (
        getattr(getattr(some, "dtype", None), "names", None) for some in (X, first)
    )
    # pandas finds the names in dicts, named tuples and arrays alone.
    named = f"numpy.array({source})" if records else source
    if hasattr(first, "iloc"):
        records = any(isinstance(name, str) for name in first.index)
    elif hasattr(first, "keys"):  # also rows of databases
        records, named = True, source if isinstance(first, dict) else f"map(dict, {source})"
    if of_array or records or hasattr(first, "_fields"):  # of named tuples
        remedy = f"give pandas.DataFrame({named})"
        if isinstance(source, Path):
            remedy = "write it with pandas.DataFrame(...).to_parquet, or save one 2-D array"
        raise InputError(f"{source}: is a list of records: {remedy}")


def _has_coordinates(X):
    """Are the columns of a 2-D array named by coordinates, as xarray has them?"""
    dims, coords = getattr(X, "dims", None), getattr(X, "coords", ())
    return isinstance(dims, tuple) and len(dims) == 2 and dims[1] in coords


def array_of(values):
    """A numpy array of an array-like, also of a torch tensor on any device or in a graph.

    In lists with texts every cell stays an object of its own: numpy would turn all cells into
    texts, gaps into ``nan``, and would truncate members of enumerations.

    Raises:
        ValueError: for rows of several lengths.
        TypeError: for a sparse tensor, and for one without values.
    """
    try:
        if isinstance(values, list | tuple) and any(map(_is_tensor, values)):
            values = [_without_graph(value) for value in values]
        values = _without_graph(values)
        array = np.asarray(values)
        texts = isinstance(values, list | tuple) and array.dtype.kind in "US"
    except UnicodeDecodeError:  # bytes beside texts
        texts = True
    except RuntimeError as error:  # torch's for tensors on the device "meta", or nested ones
        raise TypeError(str(error)) from None
    return np.array(values, dtype=object) if texts else array


def _is_tensor(values):
    return hasattr(values, "detach") and hasattr(values, "is_sparse")


def _without_graph(values):
    """A torch tensor as one that numpy takes; all else unchanged."""
    if not _is_tensor(values):
        return values
    values = values.detach().cpu()
    if values.is_sparse or values.is_nested:
        return values
    values = values.resolve_conj().resolve_neg()
    unknown = str(values.dtype).startswith(("torch.bfloat16", "torch.float8"))  # to numpy
    return values.float() if unknown else values


def _array(X, source):
    try:
        return array_of(X)
    except (TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:120]
        ragged = isinstance(error, ValueError)
        remedy = "give rows of one length" if ragged else "give a dense array or a data frame"
        raise InputError(f"{source}: is no table ({reason}): {remedy}") from None


def _refuse_doubtful(columns, names, texts, source):
    """Refuse 1,234 in a column of numbers if no other number shows what its comma means."""
    marks = {}
    for j, cells in enumerate(columns):
        if j not in texts and not isinstance(cells, np.ndarray):
            marks[j] = Marks()
            marks[j].look([cell for cell in cells if isinstance(cell, str)])
    doubtful = [(j, cell) for j, column in marks.items() if (cell := column.doubtful())]
    if doubtful and not any(column.point for column in marks.values()):
        j, cell = doubtful[0]
        raise InputError(f"{source}: {asked_of(names[j], cell)} Give numbers in place of texts")


def check_features(X, columns=None, source="X", lines=None, missing=False):
    """Check a feature table and make its numbers floating-point.

    This comes before any arithmetic (M1), in which uint8 would wrap around. Types that float32
    cannot represent exactly stay float64 until they are centred.

    Args:
        X: (n, d) array-like.
        columns: d names, or None for ``x0, x1, ...``.
        source: the file, or what messages call the table.
        lines: n line numbers of a text file, or None to count rows from 0.
        missing: True accepts NaN.

    Returns:
        (n, d) float32 for narrow types, else float64; finite (except NaN with ``missing``),
        C-contiguous.

    Raises:
        InputError: not 2-D, no row, no column, text, another type than numbers, NaN, infinity (also
            by overflow).
    """
    X = as_table(X, source=source, columns=columns).X
    if len(X) == 0:
        raise InputError(f"{source}: X has no row: there is nothing to learn from or to score")
    if X.shape[1] == 0:
        raise InputError(
            f"{source}: 0 feature(s) (shape={X.shape}) while a minimum of 1 is required: there is "
            "no feature column beside the labels"
        )
    names = list(columns or made_up_names(X.shape[1]))
    if X.dtype.kind == "c":
        which = [repr(names[j]) for j in np.flatnonzero(X.imag.any(axis=0))]
        of_columns = f" (not real: {listed(which)})" if which else ""
        raise InputError(
            f"{source}: Complex data not supported: X has dtype {X.dtype}, give real numbers"
            f"{of_columns}"
        )
    if X.dtype.kind not in "biuf":
        raise InputError(f"{source}: X has dtype {X.dtype}: give real numbers")
    narrow = np.can_cast(X.dtype, np.float32)
    with np.errstate(over="ignore"):  # a longdouble's overflow becomes infinity and is named below
        cast = np.ascontiguousarray(X, dtype=np.float32 if narrow else np.float64)
    finite = np.isfinite(cast)
    if finite.all():
        return cast
    nan = np.isnan(cast)
    if missing and (finite | nan).all():
        return cast
    wrong = (nan & (not missing), np.isinf(cast))
    said = (_of_cells(X, bad, names, lines) for bad in wrong if bad.any())
    raise InputError(f"{source}: {'; moreover, '.join(said)}")


def _of_cells(X, bad, names, lines):
    """What is said of missing or infinite values, ``bad`` (n, d)."""
    which = np.flatnonzero(bad.any(axis=0))
    row = int(np.flatnonzero(bad.any(axis=1))[0])
    value = float(X[row, np.flatnonzero(bad[row])[0]])
    what = "infinite values"
    found = f" ({value:g})"
    remedy = "fill or drop them"
    if np.isnan(value):
        what = "missing values (NaN)"
        found = ""
        remedy = "fill or drop them, or give --impute median or indicator (impute='median')"
        empty = np.flatnonzero(bad.all(axis=0))
        if len(empty) and len(bad) > 1:  # nothing to fill them with
            of_it = f"column {listed(repr(names[j]) for j in empty)} has no value at all: "
            of_it += "leave it out (--drop-columns)"
            remedy = of_it if len(empty) == len(which) else f"{of_it}; the others: {remedy}"
    return (
        f"{int(bad.sum())} {what} in column {listed(repr(names[j]) for j in which)}, "
        f"first in {place(row, lines)}{found}: {remedy}"
    )


def fingerprint(X, y):
    """SHA256 (hex) of shapes and values: tells whether a checkpoint belongs to this table.

    Args:
        X: (n, d), taken as float64.
        y: (n,), taken as int64.
    """
    y = np.ascontiguousarray(y, dtype="<i8")
    digest = hashlib.sha256(f"{X.shape} {y.shape}".encode())
    for start in range(0, len(X), HASHED_ROWS):
        digest.update(np.ascontiguousarray(X[start : start + HASHED_ROWS], dtype="<f8"))
    digest.update(y)
    return digest.hexdigest()


def row_digests(X):
    """Digests of rows X (n, d): n bytes objects, equal for rows of equal values."""
    X = np.asarray(X, dtype=np.float64) + 0.0  # -0.0 becomes 0.0: the two are equal
    return [hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in X]
