"""Files of rows: .npz, .csv and .parquet, read whole or piece by piece.

:func:`read_table` reads a labelled table, :func:`stream_table` rows to score.

Shapes: n rows, d columns.
"""

import collections
import contextlib
import itertools
import re
import sys
import warnings
import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from swift_hydra.data.frames import arrow_values, as_text, cells_of
from swift_hydra.data.layout import (
    PEEKED_CELLS,
    PEEKED_ROWS,
    Known,
    Lines,
    distinct,
    has_header,
    read_preamble,
    read_rows,
)
from swift_hydra.data.reading import Reading, find_decimal, open_text
from swift_hydra.data.table import CellParser, Table, as_table, listed, text_columns
from swift_hydra.settings import InputError

PIECE_ROWS = 65_536  # text rows held at once: Python strings take ten times the room of numbers
NO_LABEL = "none"  # in place of a label column's name: the table has no labels
MOST_COLUMNS = 100_000
TEXT_KINDS = (".csv", ".tsv", ".txt", ".data")
# What pandas calls an index without a name, or one that was written and read before.
INDEX = re.compile(r"|Unnamed: \d+(\.\d+)?|__index_level_\d+__")


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
    except MemoryError as error:
        raise InputError(
            f"{path}: there is not enough memory for key {key!r} ({_short(error)}): give fewer "
            "rows or columns"
        ) from None
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


@contextlib.contextmanager
def _readable(path, encoding):
    """What goes wrong with a text file in one line."""
    try:
        yield
    except UnicodeError as error:
        at = f" (byte {error.start})" if isinstance(error, UnicodeDecodeError) else ""
        kind = encoding or "UTF-8"
        raise InputError(
            f"{path} is no {kind} text{at}: save it as CSV UTF-8, or give --encoding, such as "
            "cp1252"
        ) from error
    except (EOFError, zlib.error) as error:
        raise InputError(f"{path} is a damaged .gz ({error}): fetch or write it again") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error


@contextlib.contextmanager
def _csv_rows(path, reading, is_header):
    """Open a .csv.

    Args:
        reading: a :class:`data.reading.Reading`.
        is_header: does the first row name the columns: a function of it and the rows below.

    Yields:
        Its names (None without a header), its width, its separator, and an iterator of (line
        number, cells).
    """
    encoding = reading.encoding
    with _readable(path, encoding), open_text(path, encoding) as handle:
        lines = Lines(handle, path)
        separator, passed = read_preamble(lines, path, reading.decimal)
        table = read_rows(lines, separator, passed, path)
        start = list(itertools.islice(table, 1))
        if not start:
            raise InputError(f"{path} is empty: give a table with at least one row")
        first = start[0][1]
        if len(first) > MOST_COLUMNS:
            raise InputError(
                f"{path}: the first line has {len(first)} cells, more than {MOST_COLUMNS}: "
                "this is no table for this detector"
            )
        start += itertools.islice(table, min(PEEKED_ROWS, PEEKED_CELLS // len(first) + 1))
        header = is_header(first, [row for _, row in start[1:]])
        names = [c.strip() for c in first] if header else None

        def rows():
            for line, row in itertools.chain(start[header:], table):
                if len(row) != len(first):
                    raise InputError(
                        f"{path}: line {line} has {len(row)} cells, the first line has "
                        f"{len(first)}: mend it"
                    )
                yield line, row

        yield names, len(first), separator, rows()


def _has_quotes(path, encoding):
    """Is there a quote anywhere in a text file?"""
    with _readable(path, encoding), open_text(path, encoding) as handle:
        return any('"' in piece for piece in iter(lambda: handle.read(2**20), ""))


class _Csv:
    """A .csv read piece by piece.

    Args:
        path: the file.
        reading: a :class:`data.reading.Reading`.
        known: a :class:`data.layout.Known` of the training table, or None.

    Attributes:
        header: its names, or None.
        width: the number of its columns.
        indexes: the numbers of columns that pandas wrote for its index.
    """

    def __init__(self, path, reading, known=None):
        self.path = path
        self.reading = reading

        def is_header(first, below):
            if reading.header != "auto":
                return reading.header == "yes"
            return has_header(first, below, path, known)

        with self._rows(is_header) as (names, self.width, separator, _):
            self._name(names)
        found = reading.decimal
        # A file whose separator is the comma and that has no quotes cannot have any in a cell.
        if found is None and (separator != "," or _has_quotes(path, reading.encoding)):
            every = range(self.width)
            pieces = (columns for _, columns, _ in self.pieces(every, PIECE_ROWS))
            found = find_decimal(pieces, path, self.names())
        self.decimal = found or "."
        self.remembered = reading.remembered(found, "yes" if self.header else "no")

    def _rows(self, is_header):
        return _csv_rows(self.path, self.reading, is_header)

    def names(self):
        """The names of all columns, or x0, x1, ..."""
        return self.header or [f"x{j}" for j in range(self.width)]

    def reads(self):
        """A function from a cell to its number, NaN for a gap or None for text."""
        return self.reading.parser(self.decimal)

    def _name(self, names):
        leading = itertools.takewhile(INDEX.fullmatch, names or ())
        self.indexes = list(range(sum(1 for _ in leading)))
        taken = set(names or ())
        for j, name in enumerate(names or ()):
            if not name:
                other = j in self.indexes or f"x{j}" in taken
                names[j] = f"Unnamed: {j}" if other else f"x{j}"
        self.header = names and distinct(names)
        counts = collections.Counter(names or ())
        self.repeated = {name for name, count in counts.items() if count > 1}
        self.place = {name: j for j, name in enumerate(self.names())}

    def pieces(self, keep, size):
        """Pieces of at most ``size`` rows.

        Yields how many, their cells in the columns ``keep``, and their line numbers.
        """
        with self._rows(lambda *_: self.header is not None) as (*_, rows):
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
        # pandas says which columns its index became; other writers of its frames keep the names.
        told = {str(name) for name in (schema.pandas_metadata or {}).get("index_columns", ())}
        self.indexes = [
            j
            for j, name in enumerate(map(str, schema.names))
            if j in self.indexes or name in told or name.startswith("__index_level_")
        ]
        found = reading.decimal or self._found_decimal(schema)
        self.decimal = found or "."
        self.remembered = reading.remembered(found, None)

    def _found_decimal(self, schema):
        """The decimal mark of the columns of texts, see :func:`data.reading.find_decimal`."""
        is_dictionary = self.arrow.types.is_dictionary
        kinds = [kind.value_type if is_dictionary(kind) else kind for kind in schema.types]
        texts = [j for j, kind in enumerate(kinds) if str(kind) in ("string", "large_string")]
        if not texts:
            return None

        def cells():
            for _, columns, _ in self.pieces(texts, PIECE_ROWS):
                yield [[cell or "" for cell in column.to_pylist()] for column in columns]

        return find_decimal(cells(), self.path, [self.header[j] for j in texts])

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
        cells = cells.to_pylist()
        return [
            cell.decode(errors="backslashreplace")
            if isinstance(cell, bytes)
            else ""
            if cell is None
            else str(cell)
            for cell in cells
        ]


def _short(error):
    return " ".join(str(error).split())[:80]


def _open(path, reading, dates, known=None):
    kind = suffix_of(path)
    if kind == ".parquet":
        return _Parquet(path, reading, dates)
    if kind in TEXT_KINDS:
        return _Csv(path, reading, known)
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


def _place_of_labels(file, label_column):
    """Number of the label column: the last one unless it is named."""
    last = max(set(range(file.width)) - set(file.indexes), default=file.width - 1)
    if label_column == NO_LABEL:
        return last
    if label_column is None:  # the last of two columns of one name need not be the one meant
        name = file.names()[last]
        label_column = next((other for other in file.repeated if _is_copy(name, other)), None)
    return last if label_column is None else file.column(label_column, "label column")


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
    names = file.names()
    label = _place_of_labels(file, label_column)
    out = {file.column(name, "drop_columns:") for name in drop}
    if not unlabelled:
        out.add(label)
    for j in file.indexes:
        if j not in out:
            warnings.warn(
                f"{path}: column {j + 1} ({names[j]!r}) is the row index that pandas writes: it is "
                "left out",
                stacklevel=2,
            )
    out |= set(file.indexes)
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
            last = np.array([as_text(cell) for cell in last])
        labels.append(last)
        lines.append(numbers)
    lines = None if isinstance(file, _Parquet) else [line for piece in lines for line in piece]
    labels = np.concatenate(labels[1:]) if len(labels) > 1 else labels[0]
    X = np.concatenate(blocks)
    given = (parse.texts(), path, lines, file.header is not None, file.remembered)
    table = Table(X, columns, *given)
    problems = list(parse.problems.values())
    if unlabelled:
        return Labelled(table, np.full(len(table), -1.0), NO_LABEL, problems)
    return Labelled(table, labels, names[label], problems)


class How(NamedTuple):
    """How a table that is to be scored is read."""

    reading: Reading = Reading()  # what is asked for
    dates: bool = False  # dates are days since 1970
    training: dict | None = None  # how the training table was, see :meth:`Reading.remembered`
    named: bool | None = None  # the training's columns had names, not made up; None: not known


def stream_table(path, columns, d, texts=(), id_column=None, size=PIECE_ROWS, how=None):
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
        how: a :class:`How`, or None for the defaults.

    Yields:
        A :class:`Table` of d columns, and its rows' ids.

    Raises:
        InputError: missing columns, text in a column of numbers and whatever else is wrong with the
            file.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        state = (
            "is no regular file: give one" if path.exists() else "does not exist: check the path"
        )
        raise InputError(f"{path} {state}")
    how = how or How()
    reading = how.reading.after(how.training)
    if path.suffix.lower() == ".npz":
        if id_column is not None:
            raise InputError(f"{path}: id_column={id_column!r} is for .csv and .parquet files")
        pieces = _npz_pieces(path, columns, d, texts, size, how.dates)
    else:
        known = Known(columns, (how.training or {}).get("header")) if columns else None
        file = _open(path, reading, how.dates, known)
        own = [] if id_column is None else [file.column(id_column, "id column")]
        keep = _columns_to_keep(file, columns, d, own, how.named)
        pieces = _text_pieces(file, columns, d, texts, (keep, own), size, how.dates)
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
        _refuse_other_cases(file, columns)
        warnings.warn(
            f"{file.path}: none of its columns has a name of the training table: they are taken in "
            "their order",
            stacklevel=3,
        )
    return [j for j in range(file.width) if j not in own and j not in file.indexes]


def _refuse_other_cases(file, columns):
    """Refuse the training's names in other cases where they stand in another order."""
    folded = [name.casefold() for name in columns]
    here = [name.casefold() for name in file.header if name.casefold() in folded]
    if set(here) == set(folded) and here != folded:
        raise InputError(
            f"{file.path}: the columns are {listed(map(repr, file.header))}, in training "
            f"{listed(map(repr, columns))} in another order: write their names as there"
        )


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
