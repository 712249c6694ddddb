"""Files of rows: .npz, .csv and .parquet, read whole or piece by piece.

:func:`read_table` reads a labelled table, :func:`stream_table` rows to score.

Shapes: n rows, d columns.
"""

import collections
import contextlib
import csv
import functools
import itertools
import re
import sys
import warnings
import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from swift_hydra.data.frames import arrow_values, cells_of
from swift_hydra.data.reading import Reading, find_decimal, number, open_text, read_preamble
from swift_hydra.data.table import CellParser, Table, as_table, listed, text_columns
from swift_hydra.settings import InputError

PIECE_ROWS = 65_536  # text rows held at once: Python strings take ten times the room of numbers
NO_LABEL = "none"  # in place of a label column's name: the table has no labels
LOOKED_AT = 10_000  # rows that say which decimal mark a file has
MOST_COLUMNS = 100_000
TEXT_KINDS = (".csv", ".tsv", ".txt", ".data")
INDEX = re.compile(r"|Unnamed: 0|__index_level_\d+__")  # what pandas calls an index without a name


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


def _numeric(cell):
    """Is a cell a number or a gap under either decimal mark?"""
    return number(cell) if number(cell) is not None else number(cell, ",")


def _has_header(first, second):
    """True where some column has text above a number, or the first row has no number at all."""
    top = [_numeric(c) for c in first]
    if second is None or len(second) != len(first):
        return all(t is None for t in top)
    below = [_numeric(c) for c in second]
    return all(t is None or t != t for t in top) or any(
        t is None and b is not None for t, b in zip(top, below, strict=True)
    )


def _distinct(names):
    """The names, of which a repeated one gets .1, .2, ... as in pandas."""
    given = set(names)
    taken = set()
    last = {}
    out = []
    for name in names:
        new = name
        k = last.get(name, 0)
        while new in taken or (k and new in given):
            k += 1
            new = f"{name}.{k}"
        last[name] = k
        taken.add(new)
        out.append(new)
    return out


@contextlib.contextmanager
def _csv_rows(path, reading):
    """Open a .csv.

    Yields its names (None without a header), its width, and an iterator of (line number, cells).
    """
    try:
        with open_text(path, reading.encoding) as handle:
            separator, passed = read_preamble(handle, path)
            reader = csv.reader(handle, delimiter=separator)
            table = (
                (passed + reader.line_num, row)
                for row in reader
                if row and (len(row) > 1 or row[0].strip())
            )
            start = list(itertools.islice(table, 2))
            if not start:
                raise InputError(f"{path} is empty: give a table with at least one row")
            first = start[0][1]
            if len(first) > MOST_COLUMNS:
                raise InputError(
                    f"{path}: the first line has {len(first)} cells, more than {MOST_COLUMNS}: "
                    "this is no table for this detector"
                )
            header = reading.header == "yes"
            if reading.header == "auto":
                header = _has_header(first, start[1][1] if len(start) > 1 else None)
            names = [c.strip() for c in first] if header else None

            def rows():
                for line, row in itertools.chain(start[header:], table):
                    if len(row) != len(first):
                        raise InputError(
                            f"{path}: line {line} has {len(row)} cells, the first line has "
                            f"{len(first)}: mend it"
                        )
                    yield line, row

            yield names, len(first), rows()
    except UnicodeError as error:
        at = f" (byte {error.start})" if isinstance(error, UnicodeDecodeError) else ""
        kind = reading.encoding or "UTF-8"
        raise InputError(
            f"{path} is no {kind} text{at}: save it as CSV UTF-8, or give --encoding, such as "
            "cp1252"
        ) from error
    except csv.Error as error:
        raise InputError(
            f"{path} is no readable CSV ({error}): save it as plain CSV UTF-8"
        ) from error
    except (EOFError, zlib.error) as error:
        raise InputError(f"{path} is a damaged .gz ({error}): fetch or write it again") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error


class _Csv:
    """A .csv read piece by piece.

    Attributes:
        header: its names, or None.
        width: the number of its columns.
        index: the number of a column that pandas wrote for its index, or None.
    """

    def __init__(self, path, reading):
        self.path = path
        self.reading = reading
        self.decimal = reading.decimal
        with _csv_rows(path, reading) as (names, self.width, rows):
            self._name(names)
            self._find_decimal(rows)

    def _find_decimal(self, rows):
        if self.decimal is None:
            # A file whose separator is the comma and that has no quotes cannot have any in a cell.
            piece = [row for _, row in itertools.islice(rows, LOOKED_AT)]
            names = self.header or [f"x{j}" for j in range(self.width)]
            columns = zip(*piece, strict=True) if piece else [()] * self.width
            self.decimal = find_decimal(columns, self.path, names)

    def reads(self):
        """A function from a cell to its number, NaN for a gap or None for text."""
        if self.decimal == "." and self.reading.missing is None:
            return number
        return functools.partial(number, decimal=self.decimal, gaps=self.reading.gaps())

    def _name(self, names):
        self.index = None
        if names and INDEX.fullmatch(names[0]):
            self.index = 0
        names = names and [name or f"x{j}" for j, name in enumerate(names)]
        self.header = names and _distinct(names)
        counts = collections.Counter(names or ())
        self.repeated = {name for name, count in counts.items() if count > 1}
        numbered = [f"x{j}" for j in range(self.width)]
        self.place = {name: j for j, name in enumerate(self.header or numbered)}

    def pieces(self, keep, size):
        """Pieces of at most ``size`` rows.

        Yields how many, their cells in the columns ``keep``, and their line numbers.
        """
        with _csv_rows(self.path, self.reading) as (_, _, rows):
            while piece := list(itertools.islice(rows, size)):
                columns = [[row[j] for _, row in piece] for j in keep]
                yield len(piece), columns, [line for line, _ in piece]

    def cells(self, columns, keep):
        """The columns ``keep`` of a piece as numbers or texts."""
        return columns

    def texts(self, keep, dates):
        """Which of the columns ``keep`` hold text; reads the whole file."""
        found = set()
        for _, columns, _ in self.pieces(keep, PIECE_ROWS):
            found |= text_columns(self.cells(columns, keep), self.reads(), dates)
        return found

    def column(self, name, what):
        """Number of a column by its name."""
        if name not in self.place or name in self.repeated:
            state = "is there more than once" if name in self.repeated else "is not there"
            header = "" if self.header else "the file has no header, "
            raise InputError(
                f"{self.path}: {what} {name!r} {state}: {header}the columns are "
                f"{listed(map(repr, self.place))}"
            )
        return self.place[name]

    @staticmethod
    def ids(cells):
        """A column of ids as it is in the file."""
        return cells


class _Parquet(_Csv):
    """The same for a .parquet file; columns of numbers come as arrays, rows are counted from 0."""

    def __init__(self, path, reading, dates):
        try:
            import pyarrow as arrow
            import pyarrow.parquet as parquet
        except ImportError:
            raise InputError(f"{path}: .parquet files need pyarrow: pip install pyarrow") from None
        self.path = path
        self.reading = reading
        self.decimal = "."
        self.dates = dates
        self.arrow = arrow
        try:
            self.file = parquet.ParquetFile(path)
        except (arrow.ArrowException, OSError) as error:
            raise InputError(
                f"{path} is no readable .parquet file ({_short(error)}): write it again"
            ) from None
        schema = self.file.schema_arrow
        self.width = len(schema)
        self._name([str(name) for name in schema.names])
        marked = [j for j, name in enumerate(schema.names) if INDEX.fullmatch(str(name))]
        self.index = marked[0] if marked else None

    def pieces(self, keep, size):
        start = 0
        try:
            for batch in self.file.iter_batches(size):
                yield len(batch), [batch.column(j) for j in keep], range(start, start + len(batch))
                start += len(batch)
        except (self.arrow.ArrowException, OSError) as error:
            raise InputError(f"{self.path} is damaged ({_short(error)}): write it again") from None

    def cells(self, columns, keep):
        return [
            cells_of(arrow_values(column), f"{self.path}: column {self.header[j]!r}", self.dates)
            for column, j in zip(columns, keep, strict=True)
        ]

    @staticmethod
    def ids(cells):
        return ["" if cell is None else str(cell) for cell in cells.to_pylist()]


def _short(error):
    return " ".join(str(error).split())[:80]


def _open(path, reading, dates):
    kind = suffix_of(path)
    if kind == ".parquet":
        return _Parquet(path, reading, dates)
    if kind in TEXT_KINDS:
        return _Csv(path, reading)
    raise InputError(
        f"{path}: the suffix {kind!r} is unknown: give an .npz with X and y, a .csv, .tsv or .txt "
        "(also .gz), or a .parquet"
    )


def suffix_of(path):
    """The suffix that says how a file is written: .csv for ``table.csv.gz``."""
    path = Path(path)
    return Path(path.stem if path.suffix.lower() == ".gz" else path.name).suffix.lower()


class Labelled(NamedTuple):
    """A labelled file."""

    table: Table  # unchecked values
    labels: np.ndarray  # (n,) numbers or texts
    label: str  # name of their column, or y
    problems: list  # what is wrong with cells, texts


def _labelled_npz(path, label_column, drop, texts, dates):
    """:func:`read_table` of an .npz."""
    if label_column == NO_LABEL and not drop:
        (X,) = read_npz(path, ["X"])
        table = as_table(X, texts or (), path, dates=dates)
        return Labelled(table, np.full(len(table), -1.0), NO_LABEL, [])
    for name, value in (("label_column", label_column), ("drop_columns", drop)):
        if value:
            raise InputError(
                f"{path}: {name}={value!r} is for .csv and .parquet files: an .npz has X and y"
            )
    X, y = read_npz(path)
    return Labelled(as_table(X, texts or (), path, dates=dates), y, "y", [])


def read_table(path, label_column=None, drop=(), texts=False, reading=None, dates=False):
    """A labelled file: features and labels.

    Args:
        path: an existing .npz, text file or .parquet.
        label_column: None takes the last column, ``NO_LABEL`` says that there is none: the labels
            are then -1. Another name is not for an .npz.
        drop: names of columns to leave out.
        texts: False refuses text.
        reading: a :class:`data.reading.Reading`, or None for the defaults.
        dates: take dates as days since 1970.

    Returns:
        :class:`Labelled`.

    Raises:
        InputError: whatever is wrong with the file.
    """
    if path.suffix.lower() == ".npz":
        return _labelled_npz(path, label_column, drop, texts, dates)
    unlabelled = label_column == NO_LABEL
    file = _open(path, reading or Reading(), dates)
    names = file.header or [f"x{j}" for j in range(file.width)]
    label = len(names) - 1
    if label_column is not None and not unlabelled:
        label = file.column(label_column, "label column")
    out = {file.column(name, "drop_columns:") for name in drop}
    if not unlabelled:
        out.add(label)
    if file.index is not None and file.index not in out:
        shown = file.header[file.index]
        warnings.warn(
            f"{path}: column {file.index + 1} ({shown!r}) is the row index that pandas writes: it "
            "is left out",
            stacklevel=2,
        )
        out.add(file.index)
    keep = [j for j in range(len(names)) if j not in out]
    columns = [names[j] for j in keep]
    found = file.texts(keep, dates) if texts else ()
    parse = CellParser(columns, path, found, file.reads(), dates)
    blocks = [np.empty((0, len(keep)))]
    labels = [np.empty(0)]
    lines = []
    for n, given, numbers in file.pieces([*keep, label], PIECE_ROWS):
        *cells, last = file.cells(given, [*keep, label])
        blocks.append(parse(n, cells, numbers))
        if not isinstance(last, np.ndarray):
            last = np.array([cell.strip() for cell in last])
        labels.append(last)
        lines.append(numbers)
    lines = None if isinstance(file, _Parquet) else [line for piece in lines for line in piece]
    labels = np.concatenate(labels[1:]) if len(labels) > 1 else labels[0]
    named = file.header is not None
    table = Table(np.concatenate(blocks), columns, parse.texts(), path, lines, named)
    problems = list(parse.problems.values())
    if unlabelled:
        return Labelled(table, np.full(len(table), -1.0), NO_LABEL, problems)
    return Labelled(table, labels, names[label], problems)


def stream_table(path, columns, d, texts=(), id_column=None, size=PIECE_ROWS, how=None, named=None):
    """The rows of a table that is to be scored, piece by piece.

    Args:
        path: a text file or .parquet, read in pieces, or an .npz with ``X`` (its ``y`` is not
            read).
        columns: the d names of the training table, or None. With a header (and always from Parquet)
            columns are found by name, in any order, and others are ignored; without one there must
            be d columns in the training's order.
        texts: numbers of the training table's text columns.
        id_column: name of the column that holds the rows' ids, or None for their numbers.
        size: rows of a piece.
        how: a pair of a :class:`data.reading.Reading` and whether dates are days since 1970.
        named: were ``columns`` given, rather than made up? None where that is not known.

    Yields:
        A :class:`Table` of d columns, and its rows' ids.

    Raises:
        InputError: missing columns, text in a column of numbers and whatever else is wrong with the
            file.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise InputError(f"{path} does not exist: check the path")
    reading, dates = how or (Reading(), False)
    if path.suffix.lower() == ".npz":
        if id_column is not None:
            raise InputError(f"{path}: id_column={id_column!r} is for .csv and .parquet files")
        pieces = _npz_pieces(path, columns, d, texts, size, dates)
    else:
        file = _open(path, reading, dates)
        own = [] if id_column is None else [file.column(id_column, "id column")]
        keep = _columns_to_keep(file, columns, d, own, named)
        pieces = _text_pieces(file, columns, d, texts, (keep, own), size, dates)
    empty = True
    for piece in pieces:
        empty = False
        yield piece
    if empty:
        raise InputError(f"{path}: holds no row to score")


def _npz_pieces(path, columns, d, texts, size, dates):
    (X,) = read_npz(path, ("X",))
    _check_width(path, X.shape[1] if X.ndim == 2 else d, d)
    for start in range(0, len(X), size):
        piece = as_table(X[start : start + size], texts, path, columns, dates)
        yield piece, range(start, start + len(piece))


def _text_pieces(file, columns, d, texts, which, size, dates):
    keep, own = which
    _check_width(file.path, len(keep), d)
    start = 0
    for n, given, numbers in file.pieces([*keep, *own], size):
        names = columns or [f"x{j}" for j in range(d)]
        parse = CellParser(names, file.path, texts, file.reads(), dates)
        X = parse(n, file.cells(given[:d], keep), numbers)
        parse.refuse_problems()
        ids = file.ids(given[-1]) if own else range(start, start + n)
        yield Table(X, columns, parse.texts(), file.path, numbers), ids
        start += n


def _columns_to_keep(file, columns, d, own, named=None):
    """Numbers of the file's columns that are the training's, in the training's order."""
    if file.header and columns and set(columns) & set(file.header):
        missing = [name for name in columns if name not in file.place]
        if missing:
            raise InputError(
                f"{file.path}: column {listed(map(repr, missing))} of the training table is "
                "missing: add it"
            )
        keep = [file.place[name] for name in columns]
        _refuse_copies(file, keep)
        return keep
    # The training table or this one has no names, or entirely other ones.
    if named is None:  # an older checkpoint: only the look of the names can tell
        named = columns != [f"x{j}" for j in range(d)]
    if file.header and columns and named:
        warnings.warn(
            f"{file.path}: none of its columns has a name of the training table: they are taken in "
            "their order",
            stacklevel=3,
        )
    return [j for j in range(file.width) if j not in own and j != file.index]


def _refuse_copies(file, keep):
    """Refuse columns of one name, unless all of them are wanted and stand as in training."""
    for name in sorted(file.repeated):
        copies = {j for j, other in enumerate(file.header) if _is_copy(other, name)}
        if copies & set(keep) and not (copies <= set(keep) and keep == sorted(keep)):
            raise InputError(
                f"{file.path}: column {name!r} is there more than once: give every column a name "
                "of its own"
            )


def _is_copy(other, name):
    end = other.removeprefix(name)
    return other == name or (end != other and re.fullmatch(r"\.\d+", end) is not None)


def _check_width(path, found, d):
    if found != d:
        raise InputError(
            f"{path}: there are {found} columns, the detector was trained on {d}: give the same"
        )
