"""Files of rows: .npz, .csv and .parquet, read whole or piece by piece.

:func:`read_table` reads a labelled table, :func:`stream_table` rows to score.

Shapes: n rows, d columns.
"""

import contextlib
import csv
import itertools
import sys
import warnings
import zipfile
from pathlib import Path

import numpy as np

from swift_hydra.data.table import CellParser, Table, as_table, listed, number, text_columns
from swift_hydra.settings import InputError

PIECE_ROWS = 65_536  # text rows held at once: Python strings take ten times the room of numbers


# --- .npz -----------------------------------------------------------------------------------------


def read_npz(path, keys=("X", "y")):
    """The named arrays of an .npz, never a pickle.

    Raises:
        InputError: for a damaged file, a missing key, or what is no array of numbers or texts.
    """
    try:
        # is_zipfile on a path takes a file without read permission for a damaged one.
        with open(path, "rb") as handle:
            is_archive = zipfile.is_zipfile(handle)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    if not is_archive:
        raise InputError(
            f"{path} is no npz archive (damaged or of another format): write it with numpy.savez"
        )
    arrays = []
    key = None
    try:
        with np.load(path, allow_pickle=False) as archive:
            for key in keys:
                if key not in archive.files:
                    raise InputError(
                        f"{path}: key {key!r} is missing, the keys present are {archive.files}: "
                        "save X and y"
                    )
                arrays.append(_checked_array(path, key, archive[key]))
    except InputError:
        raise
    except Exception as error:  # numpy parses an array's header as Python text: anything
        if key is not None and "allow_pickle" in str(error):
            raise InputError(
                f"{path}: key {key!r} holds pickled Python objects, which are not read since they "
                "can run code: save plain number arrays"
            ) from error
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:160]
        raise InputError(
            f"{path} is a damaged npz archive ({reason}): fetch or write it again"
        ) from error
    return arrays


def _checked_array(path, key, array):
    if not isinstance(array, np.ndarray):  # a member that is no .npy file comes back as bytes
        raise InputError(f"{path}: key {key!r} is no array: write the file with numpy.savez")
    if array.dtype.kind == "U" and array.dtype.itemsize:
        text = array.astype(array.dtype.newbyteorder("=")).reshape(-1)
        # numpy reads it, Python then breaks on it.
        if (text.view(np.uint32) > sys.maxunicode).any():
            raise InputError(
                f"{path}: key {key!r} holds text that is no Unicode: write the file again"
            )
    return array


# --- .csv and .parquet: pieces of rows ------------------------------------------------------------


def _has_header(first, second):
    """True where some column has text above a number, or the first row has no number at all."""
    top = [number(c) for c in first]
    if second is None or len(second) != len(first):
        return all(t is None for t in top)
    below = [number(c) for c in second]
    return all(t is None or t != t for t in top) or any(
        t is None and b is not None for t, b in zip(top, below, strict=True)
    )


def _distinct(names):
    """The names, of which a repeated one gets .1, .2, ... as in pandas."""
    out = []
    for name in names:
        new = name
        k = 0
        while new in out or (k and new in names):
            k += 1
            new = f"{name}.{k}"
        out.append(new)
    return out


@contextlib.contextmanager
def _csv_rows(path):
    """Open a .csv.

    Yields its names (None without a header), its width, and an iterator of (line number, cells).
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as handle:
            head = handle.readline()
            handle.seek(0)
            reader = csv.reader(handle, delimiter=max(",;\t", key=head.count))
            table = (
                (reader.line_num, row) for row in reader if row and (len(row) > 1 or row[0].strip())
            )
            start = list(itertools.islice(table, 2))
            if not start:
                raise InputError(f"{path} is empty: give a table with at least one row")
            first = start[0][1]
            header = _has_header(first, start[1][1] if len(start) > 1 else None)
            names = [c.strip() or f"x{j}" for j, c in enumerate(first)] if header else None

            def rows():
                for line, row in itertools.chain(start[header:], table):
                    if len(row) != len(first):
                        raise InputError(
                            f"{path}: line {line} has {len(row)} cells, the first line has "
                            f"{len(first)}: mend it"
                        )
                    yield line, row

            yield names, len(first), rows()
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path} is no UTF-8 text (byte {error.start}): save it as CSV UTF-8"
        ) from error
    except csv.Error as error:
        raise InputError(
            f"{path} is no readable CSV ({error}): save it as plain CSV UTF-8"
        ) from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error


class _Csv:
    """A .csv read piece by piece.

    Attributes:
        header: its names, or None.
        width: the number of its columns.
    """

    def __init__(self, path):
        self.path = path
        with _csv_rows(path) as (names, self.width, _):
            self._name(names)

    def _name(self, names):
        self.header = names and _distinct(names)
        self.repeated = {name for name in names or () if names.count(name) > 1}

    def pieces(self, keep, size):
        """Pieces of at most ``size`` rows.

        Yields how many, their cells in the columns ``keep``, and their line numbers.
        """
        with _csv_rows(self.path) as (_, _, rows):
            while piece := list(itertools.islice(rows, size)):
                columns = [[row[j] for _, row in piece] for j in keep]
                yield len(piece), columns, [line for line, _ in piece]

    def texts(self, keep):
        """Which of the columns ``keep`` hold text; reads the whole file."""
        found = set()
        for _, columns, _ in self.pieces(keep, PIECE_ROWS):
            found |= text_columns(columns)
        return found

    def column(self, name, what):
        """Number of a column by its name."""
        if self.header is None or name not in self.header or name in self.repeated:
            state = "is there more than once" if name in self.repeated else "is not there"
            columns = "the file has no header"
            if self.header:
                columns = f"the columns are {listed(self.header)}"
            raise InputError(f"{self.path}: {what} {name!r} {state}: {columns}")
        return self.header.index(name)


class _Parquet(_Csv):
    """The same for a .parquet file; columns of numbers come as arrays, rows are counted from 0."""

    def __init__(self, path):
        try:
            import pyarrow as arrow
            import pyarrow.parquet as parquet
        except ImportError:
            raise InputError(f"{path}: .parquet files need pyarrow: pip install pyarrow") from None
        self.path = path
        self.arrow = arrow
        try:
            self.file = parquet.ParquetFile(path)
        except (arrow.ArrowException, OSError) as error:
            raise InputError(
                f"{path} is no readable .parquet file ({_short(error)}): write it again"
            ) from None
        schema = self.file.schema_arrow
        self.width = len(schema)
        self.kinds = [field.type for field in schema]
        self._name([str(name) for name in schema.names])

    def pieces(self, keep, size):
        start = 0
        try:
            for batch in self.file.iter_batches(size):
                columns = [self._cells(batch.column(j), j) for j in keep]
                yield len(batch), columns, range(start, start + len(batch))
                start += len(batch)
        except (self.arrow.ArrowException, OSError) as error:
            raise InputError(f"{self.path} is damaged ({_short(error)}): write it again") from None

    def _cells(self, column, j):
        is_ = self.arrow.types
        kind = self.kinds[j]
        if is_.is_dictionary(kind):
            kind = kind.value_type
            column = column.dictionary_decode()
        tests = (is_.is_boolean, is_.is_integer, is_.is_floating, is_.is_decimal, is_.is_null)
        if any(test(kind) for test in tests):
            if is_.is_boolean(kind):
                column = column.cast(self.arrow.uint8())
            return column.cast(self.arrow.float64(), safe=False).to_numpy(zero_copy_only=False)
        if is_.is_string(kind) or is_.is_large_string(kind):
            return ["" if text is None else text for text in column.to_pylist()]
        raise InputError(
            f"{self.path}: column {self.header[j]!r} has the type {kind}: turn it into numbers or "
            "text, or leave it out with --drop-columns"
        )


def _short(error):
    return " ".join(str(error).split())[:80]


def _open(path):
    kind = path.suffix.lower()
    if kind not in (".csv", ".parquet"):
        raise InputError(
            f"{path}: the suffix {kind!r} is unknown: give an .npz with X and y, a .csv or a "
            ".parquet"
        )
    return _Csv(path) if kind == ".csv" else _Parquet(path)


def read_table(path, label_column=None, drop=(), find_texts=False, size=PIECE_ROWS):
    """A labelled file: features and labels.

    Args:
        path: an existing .npz, .csv or .parquet.
        label_column: None takes the last column; not for an .npz.
        drop: names of columns to leave out.
        find_texts: False refuses text.
        size: rows read at a time.

    Returns:
        A :class:`Table` with unchecked values, and the labels, an array of numbers or texts.

    Raises:
        InputError: whatever is wrong with the file.
    """
    if path.suffix.lower() == ".npz":
        for name, value in (("label_column", label_column), ("drop_columns", drop)):
            if value:
                raise InputError(
                    f"{path}: {name}={value!r} is for .csv and .parquet files: an .npz has X and y"
                )
        X, y = read_npz(path)
        return as_table(X, find_texts or (), path), y
    file = _open(path)
    names = file.header or [f"x{j}" for j in range(file.width)]
    file.header = names  # x0, x1, ... name the columns of a file without a header
    label = len(names) - 1 if label_column is None else file.column(label_column, "label column")
    out = {label, *(file.column(name, "drop_columns:") for name in drop)}
    keep = [j for j in range(len(names)) if j not in out]
    columns = [names[j] for j in keep]
    parse = CellParser(columns, path, file.texts(keep) if find_texts else ())
    blocks = [np.empty((0, len(keep)))]
    labels = [np.empty(0)]
    lines = []
    for n, cells, numbers in file.pieces([*keep, label], size):
        blocks.append(parse(n, cells[:-1], numbers))
        last = cells[-1]
        if not isinstance(last, np.ndarray):
            last = np.array([cell.strip() for cell in last])
        labels.append(last)
        lines.append(numbers)
    lines = None if isinstance(file, _Parquet) else [line for piece in lines for line in piece]
    labels = np.concatenate(labels[1:]) if len(labels) > 1 else labels[0]
    return Table(np.concatenate(blocks), columns, parse.texts(), path, lines), labels


def stream_table(path, columns, d, texts=(), id_column=None, size=PIECE_ROWS):
    """The rows of a table that is to be scored, piece by piece.

    Args:
        path: a .csv or .parquet, read in pieces, or an .npz with ``X`` (its ``y`` is not read).
        columns: the d names of the training table, or None. With a header (and always from Parquet)
            columns are found by name, in any order, and others are ignored; without one there must
            be d columns in the training's order.
        texts: numbers of the training table's text columns.
        id_column: name of the column that holds the rows' ids, or None for their numbers.
        size: rows of a piece.

    Yields:
        A :class:`Table` of d columns, and its rows' ids.

    Raises:
        InputError: missing columns, text in a column of numbers and whatever else is wrong with the
            file.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise InputError(f"{path} does not exist: check the path")
    if path.suffix.lower() == ".npz":
        if id_column is not None:
            raise InputError(f"{path}: id_column={id_column!r} is for .csv and .parquet files")
        pieces = _npz_pieces(path, columns, d, texts, size)
    else:
        pieces = _text_pieces(path, columns, d, texts, id_column, size)
    empty = True
    for piece in pieces:
        empty = False
        yield piece
    if empty:
        raise InputError(f"{path}: holds no row to score")


def _npz_pieces(path, columns, d, texts, size):
    (X,) = read_npz(path, ("X",))
    _check_width(path, X.shape[1] if X.ndim == 2 else d, d)
    for start in range(0, len(X), size):
        piece = as_table(X[start : start + size], texts, path, columns)
        yield piece, range(start, start + len(piece))


def _text_pieces(path, columns, d, texts, id_column, size):
    file = _open(path)
    own = [] if id_column is None else [file.column(id_column, "id column")]
    keep = _columns_to_keep(file, columns, d, own)
    _check_width(path, len(keep), d)
    start = 0
    for n, cells, numbers in file.pieces([*keep, *own], size):
        parse = CellParser(columns or [f"x{j}" for j in range(d)], path, texts)
        X = parse(n, cells[:d], numbers)
        ids = cells[-1] if own else range(start, start + n)
        yield Table(X, columns, parse.texts(), path, numbers), ids
        start += n


def _columns_to_keep(file, columns, d, own):
    """Numbers of the file's columns that are the training's, in the training's order."""
    if file.header and columns and set(columns) & set(file.header):
        missing = [name for name in columns if name not in file.header]
        if missing:
            raise InputError(
                f"{file.path}: column {listed(map(repr, missing))} of the training table is "
                "missing: add it"
            )
        return [file.header.index(name) for name in columns]
    # The training table or this one has no names, or entirely other ones.
    if file.header and columns and columns != [f"x{j}" for j in range(d)]:
        warnings.warn(
            f"{file.path}: none of its columns has a name of the training table: they are taken in "
            "their order",
            stacklevel=4,
        )
    return [j for j in range(file.width) if j not in own]


def _check_width(path, found, d):
    if found != d:
        raise InputError(
            f"{path}: there are {found} columns, the detector was trained on {d}: give the same"
        )
