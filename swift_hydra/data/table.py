"""Rows before they are prepared: an array, a data frame or cells of text become a :class:`Table`.

A table holds numbers, NaN for missing values; a text column holds the positions of its cells' texts
in a list. Text is refused by default; :class:`data.columns.Preparation` turns a table into input
for the networks.

Shapes: n rows, d columns.
"""

import contextlib
import dataclasses
import hashlib
import itertools
import re
from operator import contains
from pathlib import Path

import numpy as np
import scipy.sparse

from swift_hydra.data.frames import (
    Days,
    as_text,
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
from swift_hydra.data.reading import (
    COMMA,
    MISSING,
    WORD,
    Marks,
    Reading,
    asked_of,
    days,
    form_of,
    is_number,
    number,
)
from swift_hydra.settings import InputError, tell

HASHED_ROWS = 65_536  # in float64 at once
LISTED = 10  # most columns or values listed in a message
SHOWN = 100  # most characters of each
HOLDS_TEXT = "holds text, first"
BOOLS = {"true": 1.0, "false": 0.0}
# What spreadsheets and databases write for a missing value, and what is not used for anything else.
GAP_LIKE = ("\\n", "#div/0!", "#n/a", "#value!", "#ref!", "1.#qnan", "-1.#ind", ".", "-", "--")
GAP_LIKE += ("#null!", "#num!", "#name?", "#nv", "(null)", "[null]", "nil", "n.a.", "n.d.", "nd")
GAP_LIKE += ("..", "...", "\u2013", "\u2014", "\u2026")
LIKE_A_CODE = re.compile(r"\s*(?:0\d\d+|\d{2,}[eE]\d+)\s*")  # 007, 12E4


def made_up_names(d):
    """Names for d columns without names: x0, x1, ..."""
    return [f"x{j}" for j in range(d)]


def asked_for_gap(text, told):
    """The question whether a text of a file stands for a gap, with its remedy, or "".

    Args:
        text: the text.
        told: the user has said which texts are gaps, so that the usual ones are no more.
    """
    shown = text.strip()[:40]
    if told and shown.casefold() in (*MISSING, *GAP_LIKE):
        return f"a gap? add it to --missing: '...,{shown}'"
    return f"a gap? give --missing='{shown}'" if shown.casefold() in GAP_LIKE else ""


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


def listed(values):
    """The first values, separated by commas, and the number of all if there are more."""
    values = list(values)
    shown = (s if len(s) <= SHOWN else s[: SHOWN - 3] + "..." for s in map(str, values[:LISTED]))
    return ", ".join(shown) + (f", ... ({len(values)} in all)" if len(values) > LISTED else "")


def place(i, lines):
    """How a message names row i."""
    if lines is None or isinstance(lines, range):
        return f"row {i if lines is None else lines[i]} (counted from 0)"
    return f"line {lines[i]}"


def as_table(X, texts=(), source="X", columns=None, dates=False, dated=None, reading=None):
    """A :class:`Table` from an array-like or a data frame (a Table stays as it is).

    Args:
        X: the rows.
        texts: True to find text columns, or the columns that are text: their numbers, or
            {number: the training's texts}.
        source: what messages call the table.
        columns: d names; None takes a data frame's.
        dates: take dates as days since 1970.
        dated: numbers of the columns that held dates in training, None in training.
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
            f"{source}: sparse input is not supported: give a dense array, such as X.toarray()"
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
    if X.dtype.kind not in "OUSMmT" and (texts is True or not texts) and not dated:
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
    say_of_codes(cells if dated is None else (), names, texts, source)
    parse = CellParser(names, source, texts, reads, dates=dates, words=words, dated=dated)
    n = len(cells[0]) if cells else len(X)
    X = parse(n, cells, None)
    found = {"dated": parse.dated_columns(), "categories": categories, "orders": orders_of(types)}
    table = Table(X, columns, parse.texts(), source, **found)
    parse.refuse_problems()
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


def say_of_codes(columns, names, texts, source):
    """Warn of the first column of numbers with a text that looks like a code.

    Args:
        columns: lists of cells, or arrays of numbers.
        names: the columns' names.
        texts: numbers of the columns that are taken as texts.
        source: the file, or what the message calls the table.
    """
    for j, cells in enumerate(columns):
        words = () if j in texts or isinstance(cells, np.ndarray) else cells
        words = (cell for cell in words if isinstance(cell, str))
        code = next(filter(None, map(LIKE_A_CODE.fullmatch, words)), None)
        if code is not None:
            tell(
                f"{getattr(source, 'name', source)}: column {names[j]!r}: {code[0].strip()!r} is "
                "taken as a number: if it is a code write it as a text (c007), or leave it out "
                "(--drop-columns)"
            )
            return


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
        raise InputError(
            f"{source}: Complex data not supported: X has dtype {X.dtype}, give real numbers"
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
    return (
        f"{int(bad.sum())} {what} in column {listed(repr(names[j]) for j in which)}, "
        f"first in {place(row, lines)}{found}: {remedy}"
    )


def bool_number(cell):
    """1 for a cell with true, 0 for false, None for anything else."""
    return BOOLS.get(cell.strip().casefold())


def text_columns(columns, reads=number, dates=False):
    """Numbers of the columns in which some cell is neither a number, a bool, nor missing.

    Args:
        columns: sequences of cells.
        reads: a function from a cell to its number, NaN or None.
        dates: dates count as numbers.
    """
    found = set()
    for j, cells in enumerate(columns):
        if _at_once(cells, reads) is None and any(
            reads(cell) is None
            and bool_number(cell) is None
            and not (dates and days(cell) is not None)
            for cell in cells
            if isinstance(cell, str)
        ):
            found.add(j)
    return found


def _at_once(cells, reads):
    """(n,) float64 of a column, or None if its cells must be read one by one.

    numpy reads the same numbers as ``number`` with its default settings, and also 1_0, which is
    left to that. Thousands separators and words for gaps make it fail.
    """
    if isinstance(cells, np.ndarray):
        return cells.astype(np.float64)
    try:
        if reads is not number or any(map(contains, cells, itertools.repeat("_"))):
            return None
        return np.array(cells, dtype=np.float64)
    except (TypeError, ValueError):  # a cell that is no text; a gap or a word somewhere
        return None


class CellParser:
    """Columns of cells to numbers, piece by piece.

    Args:
        names: d column names.
        source: what messages call the table.
        texts: numbers of the text columns; their cells become positions in a list of texts that
            grows with every piece. In {number: the training's texts} these are never gaps.
        reads: a function from a cell to its number, NaN for a gap or None for text.
        dates: take dates as days since 1970.
        words: in text columns, too, a text that ``reads`` takes for a gap is a gap.
        dated: numbers of the columns that held dates in training, None in training.

    Attributes:
        problems: {column number: a text that says what is wrong with its cells so far}.
    """

    def __init__(self, names, source, texts=(), reads=number, dates=False, words=True, dated=None):
        self.dated = None if dated is None else frozenset(dated)
        self.names = names
        self.source = source
        self.vocabulary = {j: {} for j in sorted(texts)}
        told = texts.items() if isinstance(texts, dict) else ()
        self.told = {j: frozenset(known) for j, known in told}
        self.reads = reads
        self.dates = dates
        self.words = words
        self.problems = {}
        self._numbers = {}  # {column: its first cell with a number, if dates are taken}
        self._dates = {}  # {column: its first cell with a date}
        self._bools = {}  # {column: its first cell with true or false}
        self._more = {}  # {column: its first number that is neither 1 nor 0}

    def __call__(self, n, columns, lines):
        """The numbers of a piece.

        Args:
            n: how many rows it has.
            columns: d columns, each a list of cells or an array of numbers.
            lines: n numbers of the rows, or None.

        Returns:
            (n, d) float64; 0 in place of a cell that is not a number, which ``problems`` names.
        """
        out = np.empty((n, len(self.names)))
        for j, cells in enumerate(columns):
            if j in self.vocabulary:
                out[:, j] = [self._position(j, cell) for cell in cells]
                continue
            values = _at_once(cells, self.reads)
            if values is None:
                cells = enumerate(cells)
                values = np.array([self._number(i, j, cell, lines) for i, cell in cells])
            elif self.dates:
                found = self._dates if isinstance(cells, Days) else self._numbers
                first = np.flatnonzero(~np.isnan(values)) if j not in found else ()
                if len(first):
                    found[j] = str(cells[first[0]])[:40]
            out[:, j] = values
            if j not in self._more:
                more = np.flatnonzero((values != 0) & (values != 1) & ~np.isnan(values))
                if len(more):
                    self._more[j] = float(values[more[0]])
        self._find_mixtures()
        return out

    def _find_mixtures(self):
        """Add a problem for columns with dates and numbers: 20260104 does not mean 2026-01-04.

        In training also for bools beside numbers other than 1 and 0, and in scoring for dates in
        columns that held numbers in training, and the reverse.
        """
        numbers = self._numbers | self._bools
        for j in self._dates.keys() & numbers.keys():
            self.problems.setdefault(
                j,
                f"column {self.names[j]!r} holds dates, first {self._dates[j]!r}, and numbers, "
                f"first {numbers[j]!r}: write all as 2026-01-31",
            )
        if self.dated is None:
            for j in self._bools.keys() & self._more.keys():
                self.problems.setdefault(
                    j,
                    f"column {self.names[j]!r} holds {self._bools[j]!r} and numbers, first "
                    f"{self._more[j]:g}: write one or the other",
                )
            return
        for j in numbers.keys() & self.dated:
            self.problems.setdefault(
                j,
                f"column {self.names[j]!r} holds numbers, first {numbers[j]!r}, in training "
                "it held dates: write them as 2026-01-31",
            )
        for j in self._dates.keys() - self.dated:
            self.problems.setdefault(
                j,
                f"column {self.names[j]!r} holds dates, first {self._dates[j]!r}, in training it "
                "held numbers: write numbers",
            )

    def dated_columns(self):
        """Numbers of the columns that held dates so far."""
        return tuple(sorted(self._dates))

    def _position(self, j, cell):
        text = as_text(cell)
        known = self.vocabulary[j]
        if text in known:
            return known[text]
        if text not in self.told.get(j, ()):
            value = self.reads(text) if self.words else None
            if not text or (value is not None and value != value):
                return np.nan
        return known.setdefault(text, len(known))

    def _number(self, i, j, cell, lines):
        value = self.reads(cell) if isinstance(cell, str) else float(cell)
        if value is None:
            value, kind = bool_number(cell), self._bools
            if value is None and self.dates:
                value, kind = days(cell), self._dates
            if value is not None:
                kind.setdefault(j, cell.strip()[:40])
        elif self.dates and value is not None and value == value:
            self._numbers.setdefault(j, str(cell).strip()[:40])
        if value is not None:
            return value
        if j not in self.problems:
            shown = cell.strip()[:40]
            first = isinstance(lines, list) and lines[i] == 1
            header = " (the columns' names? give --header yes)" if first else ""
            self.problems[j] = (
                f"column {self.names[j]!r} {HOLDS_TEXT} {shown!r} in "
                f"{place(i, lines)}{self._hint(j, cell, shown, lines is not None)}{header}"
            )
        return 0.0

    def _hint(self, j, cell, shown, from_file):
        """A hint at the meaning of a text in a column of numbers or dates, with a remedy.

        Flags that say how text files are read are suggested only for files.
        """
        remedy = "give --decimal ," if from_file else "write a decimal point"
        comma = f" (a decimal comma? {remedy})" if COMMA.fullmatch(shown) else ""
        if is_number(cell, number) and not WORD.fullmatch(shown):
            comma = " (a decimal point? give --decimal .)"
        date = " (a date? give --dates)" if days(cell) is not None else ""
        if j in (self.dated or ()):
            comma, date = "", " (in training it held dates: write them as 2026-01-31)"
        gap = "a gap? leave it empty" if shown.casefold() in GAP_LIKE else ""
        if from_file:  # the user's gaps take the place of those that need no flag
            gap = asked_for_gap(shown, any(self.reads(word) is None for word in MISSING))
        known = f"{comma}{date}{gap and f' ({gap})'}"
        form = form_of(shown)
        if known or is_number(cell) or form is None:
            return known
        if isinstance(form, str):
            return " (a span of time, or two numbers? write each number in a column of its own)"
        return " (a unit, or a sign of its own? write the number alone, a minus in front of it)"

    def refuse_problems(self):
        """Refuse the cells so far if something is wrong with them.

        Raises:
            InputError: names, for every such column, the first cell that is not a number.
        """
        self.refuse(self.source, list(self.problems.values()))

    @staticmethod
    def refuse(source, problems):
        """Raise an InputError for problems, if any; those of texts come last, with one remedy."""
        if problems:
            told = sorted(problems, key=lambda problem: HOLDS_TEXT in problem)[:LISTED]
            more = f"; ... ({len(problems)} in all)" if len(problems) > LISTED else ""
            remedy = (
                ": give --categorical onehot or ordinal, leave it out with --drop-columns, or mend "
                "it"
            )
            remedy = remedy if any(HOLDS_TEXT in problem for problem in problems) else ""
            raise InputError(f"{source}: {'; '.join(told)}{more}{remedy}")

    def texts(self):
        """{column number: list of texts} so far."""
        return {j: list(known) for j, known in self.vocabulary.items()}


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
