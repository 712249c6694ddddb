"""A text file of cells, such as a .csv, read piece by piece.

How its lines are cut into cells is in ``layout.py``, what parts them in ``separator.py``, and
whether the first of them names the columns in ``header.py``.
"""

import collections
import contextlib
import dataclasses
import gzip
import itertools
import re
import zlib

from swift_hydra.data.cells import text_columns
from swift_hydra.data.header import distinct, has_header
from swift_hydra.data.layout import Lines, read_rows
from swift_hydra.data.reading import (
    composed,
    find_decimal,
    numeric,
    open_text,
    say_of_points,
    undecodable,
)
from swift_hydra.data.separator import read_preamble
from swift_hydra.data.table import made_up_names
from swift_hydra.settings import InputError, listed, listed_names, tell

PIECE_ROWS = 65_536  # text rows held at once: Python strings take ten times the memory of numbers
MOST_COLUMNS = 100_000
PEEKED_ROWS = 200  # rows used to decide whether the first one names the columns
PEEKED_CELLS = 200_000
ENOUGH_ROWS = 5000  # rows that show whether points part thousands, where commas part cells
# How pandas names an index without a name, also one that was written and read again.
INDEX = re.compile(r"|Unnamed: \d+(\.\d+)?|__index_level_\d+__")


@contextlib.contextmanager
def _readable(path, encoding):
    """Turn errors of reading a text file into an InputError of one line."""
    try:
        yield
    except UnicodeError as error:
        known = isinstance(error, UnicodeDecodeError)
        at = f" ({undecodable(path, encoding or error.encoding)})" if known else ""
        kind = encoding or "UTF-8"
        raise InputError(
            f"{path} is no {kind} text{at}: save it as CSV UTF-8, or give --encoding, such as "
            "cp1252"
        ) from error
    except gzip.BadGzipFile as error:
        with open(path, "rb") as file:
            zipped = file.read(2) == b"\x1f\x8b"
        what = "has bytes after its end: fetch or write it again"
        what = what if zipped else "is no gzip file: name it .csv, .tsv or .txt"
        raise InputError(f"{path} {what}") from error
    except (EOFError, zlib.error) as error:
        raise InputError(f"{path} is a damaged .gz ({error}): fetch or write it again") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error


@contextlib.contextmanager
def _csv_rows(path, reading, is_header, least=None):
    """Open a text file of cells.

    Args:
        path: the file.
        reading: a :class:`data.reading.Reading`.
        is_header: a function of the first row and the rows below that says whether the first row
            names the columns.
        least: number of columns of the training table, or None.

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
        width = _width([row for _, row in start], least)
        header = is_header(first[:width], [row[:width] for _, row in start[1:]])
        names = [c.strip() for c in first[:width]] if header else None
        again = _again(names or (), [row[:width] for _, row in start[1:]])

        def rows():
            given = itertools.chain(start[header:], table)
            if width > 1:
                given = _up_to_the_last_cell(given, path, least is not None)
            for line, row in given:
                if again(row[:width]):
                    _refuse_names(path, line, row[:width], names)
                _refuse_row(line, row, len(first), width, path, lines.broken)
                yield line, row[:width]

        yield names, width, separator, rows()


def _up_to_the_last_cell(rows, path, say):
    """The rows (line number, cells) without empty ones at the end, which spreadsheets write.

    ``say`` warns of the rows left out: the user of a table to score may expect scores for them.
    """
    empty = []
    for line, row in rows:
        if not any(map(str.strip, row)):
            # Of a sheet that ends with a million of them each would take the room of a row.
            row = empty[-1][1] if empty and empty[-1][1] == row else row
            empty.append((line, row))
            continue
        yield from empty
        empty.clear()
        yield line, row
    if empty and say:
        tell(
            f"{path}: {len(empty)} lines without any cell end the table, from line {empty[0][0]} "
            "on: they are no rows"
        )


def _refuse_row(line, row, n_cells, width, path, broken):
    """Refuse a row with another number of cells than the first line, or values beyond the width.

    ``broken``: see :class:`data.layout.Lines`.
    """
    if len(row) != n_cells:
        title = ": is that a title? Take it out" if n_cells == 1 else f": mend it ({row[0][:40]!r})"
        if broken == line:
            title = (
                ": it ends with a carriage return alone: put that cell in quotes, or take it out"
            )
        raise InputError(
            f"{path}: line {line} has {len(row)} cells, the first line has {n_cells}{title}"
        )
    if any(map(str.strip, row[width:])):
        j = next(j for j in range(width, len(row)) if row[j].strip())
        raise InputError(
            f"{path}: line {line} has {row[j].strip()[:40]!r} in column {j + 1}, which "
            "has neither a name nor a value in the first lines: name it, or take the "
            "value out"
        )


def _width(rows, least):
    """The number of columns, without those at the end that are empty in all first rows.

    Lines that end with a separator have one such column, lines of spreadsheets several. A table to
    score keeps at least ``least`` columns, the training table's number; otherwise that is None.
    """
    width = len(rows[0])
    full = [row for row in rows if len(row) == width]
    while (
        width > (least or 1)
        and (least or len(full) > 1)
        and not any(row[width - 1].strip() for row in full)
    ):
        width -= 1
    return width


def _again(names, first):
    """A function that says whether a row repeats the line of names.

    Names that are all numbers repeat in ordinary rows: then no row counts as a repetition. In
    another order they do, too, unless the ``first`` rows hold them so: then they are values.
    """
    names = list(names)
    if all(numeric(name) is not None for name in names):
        return lambda row: False
    known, ordered = frozenset(names), sorted(names)

    def has_all(row):
        return row[0].strip() in known and sorted(map(str.strip, row)) == ordered

    if any(map(has_all, first)):
        return lambda row: row[0].strip() == names[0] and [cell.strip() for cell in row] == names
    return has_all


def _refuse_names(path, line, row, names):
    """Refuse a row that holds the names of the columns again."""
    if [cell.strip() for cell in row] == names:
        raise InputError(
            f"{path}: line {line} is the line of names again, as where files were joined: take it "
            "out (if both are rows give --header no)"
        )
    raise InputError(
        f"{path}: line {line} holds the names again, in another order, as where files were joined "
        "whose columns are ordered otherwise: join them by name (if both are rows give --header no)"
    )


def _filled(names, indexes=()):
    """The names, with an empty one replaced by ``x<j>``, or ``Unnamed: <j>`` as in pandas.

    The latter is for an index, and for other columns if ``x<j>`` is taken.
    """
    taken = set(names)
    return [
        name or (f"Unnamed: {j}" if j in indexes or f"x{j}" in taken else f"x{j}")
        for j, name in enumerate(names)
    ]


def _has_quotes(path, encoding):
    """Is there a quote anywhere in a text file?"""
    with _readable(path, encoding), open_text(path, encoding) as handle:
        return any('"' in piece for piece in iter(lambda: handle.read(2**20), ""))


class CsvFile:
    """A text file of cells, such as a .csv, read piece by piece.

    Args:
        path: the file.
        reading: a :class:`data.reading.Reading`.
        known: a :class:`data.header.TrainingHeader` of the training table, or None.

    Attributes:
        header: its names, or None.
        width: the number of its columns.
        indexes: the numbers of columns taken for an index that pandas wrote.
        told: the numbers of columns that the file itself declares to be an index.
        kept: the number of a first column without a name that is taken for a feature, or None.
        problems: {column number: a text that says why its values are unusable}.
    """

    told = frozenset()
    kept = None

    def __init__(self, path, reading, known=None):
        self.path = path
        self.reading = reading
        self.problems = {}
        self.least = None  # fewest columns: an empty last one may be a feature of the training
        if known is not None and known.names:
            self.least = len(known.names) + known.n_others

        def is_header(first, below):
            if reading.header != "auto":
                return reading.header == "yes"
            return has_header(first, below, path, known, reading.gaps())

        with self._rows(is_header) as (names, self.width, separator, rows):

            def has_fractions(j):
                first = itertools.islice(rows, PEEKED_ROWS)
                return any((numeric(row[j]) or 0) % 1 > 0 for _, row in first)

            self._name(names, known, has_fractions)
        self.separator = separator

    def forget_decimal(self):
        """Ignore the training table's decimal mark if no cell of this file can hold a comma."""
        if self.reading.decimal is not None and self._commas_part_all():
            self.reading = dataclasses.replace(self.reading, decimal=None)

    def _commas_part_all(self):
        """Does every comma separate cells, because nothing is quoted?"""
        return self.separator == "," and not _has_quotes(self.path, self.reading.encoding)

    def look_at(self, keep):
        """Find the decimal mark from the columns ``keep`` alone.

        Raises:
            InputError: it is ambiguous.
        """
        found = self.reading.decimal or self._found_decimal(keep)
        self.decimal = found or "."
        self.remembered = self.reading.remembered(found, self._header_of())
        if self.reading.decimal == "," and self._commas_part_all():
            self.remembered["commas_part_all"] = True  # and points thousands

    def _header_of(self):
        return "yes" if self.header else "no"

    def _found_decimal(self, keep):
        if self._commas_part_all():
            return None
        pieces = (columns for _, columns, _ in self.pieces(keep, PIECE_ROWS))
        return find_decimal(pieces, *self._told(keep), self.separator == ",")

    def say_of_points(self, keep):
        """Warn of points that may part thousands in the columns ``keep`` of a training table."""
        if self.reading.decimal is None and self._commas_part_all():
            _, some, _ = next(self.pieces(keep, ENOUGH_ROWS), (0, [()] * len(keep), []))
            say_of_points(some, *self._told(keep))

    def _told(self, keep):
        """The path, the names of the columns ``keep``, and what stands for a gap."""
        names = self.names()
        return self.path, [names[j] for j in keep], self.reading.gaps()

    def _rows(self, is_header):
        return _csv_rows(self.path, self.reading, is_header, self.least)

    def names(self):
        """The names of all columns, or x0, x1, ..."""
        return self.header or made_up_names(self.width)

    def reads(self):
        """A function from a cell to its number, NaN for a gap or None for text."""
        return self.reading.parser(self.decimal)

    def _name(self, names, known, has_fractions):
        leading = itertools.takewhile(INDEX.fullmatch, names or ())
        self.indexes = list(range(sum(1 for _ in leading)))
        if set(self.indexes) - self.told:
            self._keep_a_first_column(names, known, has_fractions)
        self.indexes = sorted({*self.indexes, *self.told})
        names = names and _filled(names, self.indexes)
        self.header = names and distinct(names)
        counts = collections.Counter(names or ())
        self.repeated = {name for name, count in counts.items() if count > 1}
        self.place = {name: j for j, name in enumerate(self.names())}

    def _keep_a_first_column(self, names, known, has_fractions):
        """Keep a first column without a name as a feature if it holds fractions.

        In a table to score it is kept if the training table has a column of the name that it gets.
        """
        j = next(j for j in self.indexes if j not in self.told)
        if known is not None and known.names:
            filled = _filled(names)
            is_feature = filled[j] in known.names and set(known.names) <= set(filled)
        else:
            is_feature = has_fractions(j)
        if is_feature:
            self.kept = j
            self.indexes = self.indexes[:j]

    def pieces(self, keep, size):
        """Pieces of at most ``size`` rows.

        Yields the number of rows, their cells in the columns ``keep``, and their line numbers.
        """
        with self._rows(lambda *_: self.header is not None) as (*_, rows):
            while piece := list(itertools.islice(rows, size)):
                columns = [[row[j] for _, row in piece] for j in keep]
                yield len(piece), columns, [line for line, _ in piece]

    def cells(self, columns, keep):
        """The columns ``keep`` of a piece as numbers or texts."""
        return columns

    def number_categories(self, keep):
        """Positions in ``keep`` of columns declared as categorical whose categories are numbers."""
        return ()  # a text file declares no types

    def labels(self, column, j):
        """The cells of the label column, which has the number j."""
        return column

    def texts(self, keep, dates):
        """Which of the columns ``keep`` hold text; reads the whole file."""
        found = set()
        for _, columns, _ in self.pieces(keep, PIECE_ROWS):
            found |= text_columns(self.cells(columns, keep), self.reads(), dates)
        return found

    def column(self, name, what):
        """Number of the column with this name; it may use composed or decomposed accents.

        Args:
            name: the name.
            what: what messages call the column.

        Raises:
            InputError: there is no such column, or more than one.
        """
        name = composed(name)
        if name not in self.place:  # the two may differ in spaces around them
            like = [j for other, j in self.place.items() if other.strip() == name.strip()]
            if len(like) == 1:
                return like[0]
        if name not in self.place or name in self.repeated:
            state = "is there more than once" if name in self.repeated else "is not there"
            header = "" if self.header else "the file has no header, "
            whole = [own for own in self.place if name in listed_names(own)]  # a, of 'a, b'
            quote = what.startswith("drop_columns") and whole and name not in self.place
            hint = f"; a name with a comma is quoted: '\"{whole[0]}\"'" if quote else ""
            raise InputError(
                f"{self.path}: {what} {name!r} {state}: {header}the columns are "
                f"{listed(map(repr, self.place))}{hint}"
            )
        return self.place[name]

    @staticmethod
    def ids(cells):
        """The cells of an id column as the file writes them."""
        return cells
