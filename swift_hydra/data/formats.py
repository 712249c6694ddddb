"""The formats of table files: .npz, .parquet, and text files such as .csv.

:func:`read_npz` reads arrays; :func:`open_table` opens a file with columns, which is read piece by
piece. Text files have a module of their own, ``text_files.py``.
"""

import re
import sys
import zipfile
from pathlib import Path

import numpy as np

from swift_hydra.data.catalogue import TEXT_KINDS
from swift_hydra.data.frames import arrow_objects, arrow_values, as_text, cells_of, without_gaps
from swift_hydra.data.reading import composed, find_decimal, text_of_bytes
from swift_hydra.data.text_files import PEEKED_ROWS, PIECE_ROWS, CsvFile
from swift_hydra.settings import InputError, in_words, lacks_memory

TEXTS_OF_ARROW = ("string", "large_string", "string_view")


# --- .npz -----------------------------------------------------------------------------------------

# What to do about an array that is missing.
SAVE_IT = {
    "X": "save the rows as X",
    "y": "save the labels as y, or give --label-column none if there are none",
}


def read_npz(path, keys=("X", "y")):
    """The named arrays of an .npz; pickled objects are refused.

    Raises:
        InputError: for a damaged file, a missing key, or what is not an array of numbers or texts.
    """
    try:
        # Given a path, is_zipfile would call a file without read permission damaged.
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
                        f"{SAVE_IT.get(key, 'name one of these with --group-column')}"
                    )
                arrays.append(_checked_array(path, key, archive[key]))
    except InputError:
        raise
    except MemoryError as error:
        raise InputError(
            f"{path}: there is not enough memory for key {key!r} ({_short(error)}): give fewer "
            "rows or columns"
        ) from None
    except Exception as error:  # numpy parses an array's header as Python text: any error
        if key is not None and "allow_pickle" in str(error):
            raise InputError(
                f"{path}: key {key!r} holds pickled Python objects, which are not read since they "
                "can run code: save plain number arrays"
            ) from error
        raise InputError(
            f"{path} is a damaged npz archive ({in_words(error)}): fetch or write it again"
        ) from error
    return arrays


def _checked_array(path, key, array):
    if not isinstance(array, np.ndarray):  # a member that is no .npy file comes back as bytes
        raise InputError(f"{path}: key {key!r} is no array: write the file with numpy.savez")
    if array.dtype.kind == "U" and array.dtype.itemsize:
        text = array.astype(array.dtype.newbyteorder("=")).reshape(-1)
        # numpy reads such text, Python's str cannot hold it.
        if (text.view(np.uint32) > sys.maxunicode).any():
            raise InputError(
                f"{path}: key {key!r} holds text that is no Unicode: write the file again"
            )
    return array


# --- .parquet -------------------------------------------------------------------------------------


class ParquetFile(CsvFile):
    """The same for a .parquet file; columns of numbers come as arrays, rows are counted from 0."""

    separator = None  # of cells; there is none

    def __init__(self, path, reading, dates, known=None):
        try:
            import pyarrow as arrow
            import pyarrow.parquet as parquet
        except ModuleNotFoundError:
            raise InputError(f"{path}: .parquet files need pyarrow: pip install pyarrow") from None
        self.path = path
        self.reading = reading
        self.dates = dates
        self.arrow = arrow
        self.problems = {}
        try:
            self.file = parquet.ParquetFile(path)
            # As dictionaries: a small file can hold gigabytes of repeated texts.
            schema = self.file.schema_arrow
            texts = [field.name for field in schema if str(field.type) in TEXTS_OF_ARROW]
            if texts:
                self.file = parquet.ParquetFile(path, read_dictionary=texts)
        except (arrow.ArrowException, OSError) as error:
            raise _unread(path, "is no readable .parquet file", error) from None
        schema = self.file.schema_arrow
        self.width = len(schema)
        if not self.width:
            raise InputError(f"{path} has no column: write the table again")
        # pandas' metadata name its index columns; other writers of its frames keep only the names.
        told = set(map(str, _told_by_pandas(schema, "index_columns")))
        self.told = frozenset(
            j
            for j, name in enumerate(map(str, schema.names))
            if name in told or name.startswith("__index_level_")
        )
        names = [composed(str(name)) for name in schema.names]
        self._name(names, known, self._has_fractions)

    def number_categories(self, keep):
        schema = self.file.schema_arrow
        names, types = schema.names, schema.types  # built anew by every access
        # Categories that are numbers are stored as plain numbers; only pandas' metadata show them.
        told = [c for c in _told_by_pandas(schema, "columns") if isinstance(c, dict)]
        declared = {str(c.get("field_name")) for c in told if c.get("pandas_type") == "categorical"}
        numbers = ("int", "uint", "float", "double", "halffloat")
        return tuple(
            place
            for place, j in enumerate(keep)
            if names[j] in declared and str(types[j]).startswith(numbers)
        )

    def _has_fractions(self, j):
        if not str(self.file.schema_arrow.types[j]).startswith(("float", "double")):
            return False
        first = next((columns[0] for _, columns, _ in self.pieces([j], PEEKED_ROWS)), ())
        values = np.asarray(first, dtype=np.float64)
        return bool((values[np.isfinite(values)] % 1 > 0).any())

    def _header_of(self):
        return None  # a .parquet always has names

    def _found_decimal(self, keep):
        """The decimal mark of the columns of texts, see :func:`data.reading.find_decimal`."""
        is_dictionary = self.arrow.types.is_dictionary
        every = self.file.schema_arrow.types  # built anew by every access
        types = [every[j] for j in keep]
        kinds = [kind.value_type if is_dictionary(kind) else kind for kind in types]
        texts = [j for j, kind in zip(keep, kinds, strict=True) if str(kind) in TEXTS_OF_ARROW]
        if not texts:
            return None

        def cells():
            for _, columns, _ in self.pieces(texts, PIECE_ROWS):
                yield [[cell or "" for cell in arrow_objects(column)] for column in columns]

        names = [self.header[j] for j in texts]
        return find_decimal(cells(), self.path, names, self.reading.gaps())

    def pieces(self, keep, size):
        names = self.file.schema_arrow.names
        # Unique names allow reading only these columns.
        by_name = bool(keep) and len(set(names)) == len(names)
        wanted = [names[j] if by_name else j for j in keep]
        start = 0
        try:
            for batch in self.file.iter_batches(size, columns=wanted if by_name else None):
                end = start + len(batch)
                yield len(batch), [batch.column(j) for j in wanted], range(start, end)
                start = end
        except (self.arrow.ArrowException, OSError) as error:
            raise _unread(self.path, "is damaged", error) from None

    def cells(self, columns, keep):
        return [self._cells_or_problem(*given) for given in zip(columns, keep, strict=True)]

    def _cells_or_problem(self, column, j):
        try:
            return self._cells(column, j)
        except InputError as error:  # reported together with the problems of other columns
            told = str(error).removeprefix(f"{self.path}: ")
            how = " (--drop-columns)" if told.endswith("leave it out") else ""
            self.problems.setdefault(j, told + how)
            return np.zeros(len(column))

    def _cells(self, column, j):
        return without_gaps(self._values(column, j), self.reading)

    def _values(self, column, j):
        where = f"{self.path}: column {self.header[j]!r}"
        return cells_of(arrow_values(column), where, self.dates)

    def labels(self, column, j):
        if str(column.type).startswith(("time", "date")):  # dates as labels stay texts
            return self.ids(column)
        return self._values(column, j)  # a number that means a gap in features is a label here

    def ids(self, cells):
        kind = str(cells.type)
        # Python's own times have no nanoseconds, and its dates end with the year 9999.
        if kind.startswith(("time", "date")):
            texts = cells.cast(self.arrow.string()).to_pylist()
            return ["" if text is None else re.sub(r"\.0+$", "", text) for text in texts]
        if kind in ("float", "halffloat"):  # 0.1 in float32 stays 0.1
            return [as_text(cell) for cell in np.asarray(cells)]
        return [_id_text(cell) for cell in arrow_objects(cells)]


def _told_by_pandas(schema, key):
    """A list in pandas' metadata of an Arrow schema; empty where they are damaged or missing."""
    try:
        told = schema.pandas_metadata
    except (ValueError, RecursionError):  # no JSON, no UTF-8
        told = None
    told = told.get(key) if isinstance(told, dict) else None
    return told if isinstance(told, list) else []


def _id_text(cell):
    """An id as a text; bytes that are not printable text become 0x and hexadecimal digits."""
    if isinstance(cell, bytes):
        text = text_of_bytes(cell)
        return text if text.isprintable() else f"0x{cell.hex()}"
    return "" if cell is None else str(cell)


def _short(error):
    return " ".join(str(error).split())[:80]


def _unread(path, what, error):
    """An InputError that blames the file, or this machine if it lacks memory, threads or files."""
    lacks = ("memory", "malloc", "worker thread", "temporarily unavailable", "too many open files")
    if lacks_memory(error) or any(word in str(error).casefold() for word in lacks):
        remedy = "allow more memory, threads or open files"
        return InputError(f"{path} cannot be read here ({_short(error)}): {remedy}")
    return InputError(f"{path} {what} ({_short(error)}): write it again")


def open_table(path, reading, dates, known=None):
    """Open a text file or .parquet, by its suffix.

    Args:
        path: the file.
        reading: a :class:`data.reading.Reading`.
        dates: take dates as days since 1970.
        known: a :class:`data.header.TrainingHeader` of the training table, or None.

    Raises:
        InputError: the suffix is another one, or the file is unusable.
    """
    kind = suffix_of(path)
    if kind == ".parquet" and path.suffix.lower() == ".gz":
        raise InputError(f"{path}: a .parquet is compressed already: gunzip it first")
    if kind == ".parquet":
        return ParquetFile(path, reading, dates, known)
    if kind in TEXT_KINDS:
        return CsvFile(path, reading, known)
    if kind == ".npz":
        raise InputError(f"{path}: an .npz is compressed already: gunzip it first")
    raise InputError(
        f"{path}: the suffix {kind!r} is unknown: give an .npz with X and y, a .csv, .tsv or .txt "
        "(also .gz), or a .parquet"
    )


def suffix_of(path):
    """The suffix of a file's format: .csv for ``table.csv.gz``."""
    path = Path(path)
    return Path(path.stem if path.suffix.lower() == ".gz" else path.name).suffix.lower()
