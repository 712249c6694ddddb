"""Cells of text become numbers, or positions in a column's list of texts.

:func:`text_columns` finds the columns that hold texts, :class:`CellParser` makes the numbers of all
columns, piece by piece, and says what is wrong with the cells of a column of numbers. What one text
means on its own is in ``reading.py``.
"""

import itertools
import re
from operator import contains
from typing import NamedTuple

import numpy as np

from swift_hydra.data.frames import Days, as_text, day_of
from swift_hydra.data.reading import (
    COMMA,
    DATE_LIKE,
    DAY_AND_MONTH,
    MADE_A_DATE,
    MISSING,
    WORD,
    days,
    form_of,
    is_number,
    number,
)
from swift_hydra.settings import LISTED, InputError, listed, tell

HOLDS_TEXT = "holds text, first"
BOOLS = {"true": 1.0, "false": 0.0}
# What spreadsheets and databases write for a missing value, and what is not used for anything else.
GAP_LIKE = ("\\n", "#div/0!", "#n/a", "#value!", "#ref!", "1.#qnan", "-1.#ind", ".", "-", "--")
GAP_LIKE += ("#null!", "#num!", "#name?", "#nv", "(null)", "[null]", "nil", "n.a.", "n.d.", "nd")
GAP_LIKE += ("..", "...", "\u2013", "\u2014", "\u2026")
LIKE_A_CODE = re.compile(r"^[^\S\n]*(0\d\d+|\d{2,}[eE]\d+)[^\S\n]*$", re.MULTILINE)  # 007, 12E4
SHORT_CODE = re.compile(r"\d[eE]\d+")
VERSION = re.compile(r"\d{1,3}(\.(\d|[1-9]\d))?")  # 3.9, 3.10; of prices some are like 3.05
OTHER_MINUS = re.compile(r"\s*[\u2010-\u2015\u2212\uff0d]\s*\d")  # dashes and the mathematical sign


def place(i, lines):
    """How a message names row i."""
    if lines is None or isinstance(lines, range):
        return f"row {i if lines is None else lines[i]} (counted from 0)"
    return f"line {lines[i]}"


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


def find_codes(columns, texts, found=None, thorough=True):
    """Find the columns of numbers with a text that looks like a code.

    Args:
        columns: lists of cells, or arrays of numbers.
        texts: numbers of the columns that are taken as texts.
        found: {number of a column: the text} of earlier cells, or None.
        thorough: also find what only the cells of a whole column show.

    Returns:
        ``found`` with those of these cells.
    """
    found = {} if found is None else found
    for j, cells in enumerate(columns):
        if j in texts or j in found or isinstance(cells, np.ndarray):
            continue
        try:
            joined = "\n".join(cells)
        except TypeError:  # of a frame, which may hold numbers beside texts
            cells = [cell for cell in cells if isinstance(cell, str)]
            joined = "\n".join(cells)
        match = LIKE_A_CODE.search(joined)
        code = match and match[1]
        if code is None and thorough:
            words = list(map(str.strip, cells))
            code = _short_code(words) or _version(words)
        if code is not None:
            found[j] = code
    return found


def say_of_codes(found, names, source):
    """Warn of columns of numbers that look like codes.

    Args:
        found: {number of a column: a text that does}, see :func:`find_codes`.
        names: the columns' names.
        source: the file, or what the message calls the table.
    """
    if found:
        columns = listed(f"{names[j]!r}: {found[j]!r}" for j in sorted(found))
        what = "is taken as a number: if it is a code"
        if len(found) > 1:
            what = "are taken as numbers: if one is a code"
        tell(
            f"{getattr(source, 'name', source)}: column {columns} {what} write it as a text "
            f"(c{found[min(found)]}), or leave it out (--drop-columns)"
        )


def _short_code(words):
    """A text such as 3E5 among others of as many characters that are digits alone, or None.

    Programs write a power of ten with its sign, and people beside numbers of other lengths.
    """
    if len({len(word) for word in words if word}) != 1 or not any(map(str.isdigit, words)):
        return None
    return next(filter(SHORT_CODE.fullmatch, words), None)


def _version(words):
    """A text such as 1.10 if the words are versions, not numbers: 1.9, 1.10, 1.11; else None.

    Numbers have as many decimals each, or none that end in a zero, and some begin with one.
    """
    if not any("." in word for word in words):
        return None
    if not all(map(VERSION.fullmatch, filter(None, words))):
        return None
    decimals = {word: word.partition(".")[2] for word in words}
    two = [word for word, after in decimals.items() if len(after) == 2]
    if len({decimals[word] for word in two}) < 2 or 1 not in map(len, decimals.values()):
        return None
    return next((word for word in two if word.endswith("0")), None)


class Held(NamedTuple):
    """What columns of the training table held, by their numbers."""

    dated: tuple | list | None = ()  # those of dates; None: an older file does not say
    numbers: frozenset = frozenset()  # those of other numbers than 0 and 1


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
        held: what the columns :class:`Held` in training, None in training.

    Attributes:
        problems: {column number: a text that says what is wrong with its cells so far}.
        gap_words: for the words of gaps that may be texts, {number of a text column: how many of
            its cells were gaps since they read so, in capitals or not}.
    """

    def __init__(self, names, source, texts=(), reads=number, dates=False, words=True, held=None):
        self.held = held
        self.dated = None if held is None or held.dated is None else frozenset(held.dated)
        self.names = names
        self.source = source
        self.vocabulary = {j: {} for j in sorted(texts)}
        told = texts.items() if isinstance(texts, dict) else ()
        self.told = {j: frozenset(known) for j, known in told}
        self.reads = reads
        self.dates = dates
        self.words = words
        self.problems = {}
        self.gap_words = {"None": {}, "NA": {}}
        self._texts = {}  # {column: [cells that hold text, where the first is, that cell]}
        self._n_rows = 0
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
        self._n_rows += n
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
                    cell = cells[first[0]]
                    found[j] = day_of(float(cell)) if found is self._dates else str(cell)[:40]
            out[:, j] = values
            if j not in self._more:
                more = np.flatnonzero((values != 0) & (values != 1) & ~np.isnan(values))
                if len(more):
                    self._more[j] = float(values[more[0]])
        self._find_mixtures()
        return out

    def _find_mixtures(self):
        """Add a problem for columns with dates and numbers: 20260104 does not mean 2026-01-04.

        Also for bools beside numbers other than 1 and 0, and in scoring for dates and bools in
        columns that held numbers in training, and for numbers in those that held dates.
        """
        numbers = self._numbers | self._bools
        for j in self._dates.keys() & numbers.keys():
            self.problems.setdefault(
                j,
                f"column {self.names[j]!r} holds dates, first {self._dates[j]!r}, and numbers, "
                f"first {numbers[j]!r}: write all as 2026-01-31",
            )
        for j in self._bools.keys() & self._more.keys():
            self.problems.setdefault(
                j,
                f"column {self.names[j]!r} holds {self._bools[j]!r} and numbers, first "
                f"{self._more[j]:g}: write one or the other",
            )
        if self.held is None:
            return
        for j in self._bools.keys() & self.held.numbers:
            self.problems.setdefault(
                j,
                f"column {self.names[j]!r} holds {self._bools[j]!r}, in training it held numbers: "
                "write numbers",
            )
        if self.dated is None:
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
                for word, found in self.gap_words.items():
                    if text.casefold() == word.casefold():
                        found[j] = found.get(j, 0) + 1
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
        shown = cell.strip()[:40]
        self._texts.setdefault(j, [0, place(i, lines), shown])[0] += 1
        if j not in self.problems:
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
            if DAY_AND_MONTH.fullmatch(shown):
                comma = (
                    " (a day without its year? write it as 2026-01-31 and give --dates; a decimal "
                    "point? give --decimal .)"
                )
        date = ""
        if days(cell) is not None:
            date = " (a date? give --dates)"
        elif DATE_LIKE.fullmatch(shown):
            date = " (a date? write it as 2026-01-31, or 2026-01-31 14:30, and give --dates)"
        elif MADE_A_DATE.fullmatch(shown):
            date = " (did a spreadsheet make a date of a number? take it from where it came)"
        if j in (self.dated or ()):
            comma, date = "", " (in training it held dates: write them as 2026-01-31)"
        gap = "a gap? leave it empty" if shown.casefold() in GAP_LIKE else ""
        if from_file:  # the user's gaps take the place of those that need no flag
            gap = asked_for_gap(shown, any(self.reads(word) is None for word in MISSING))
        known = f"{comma}{date}{gap and f' ({gap})'}"
        form = form_of(shown)
        if known or is_number(cell) or form is None:
            return known
        if OTHER_MINUS.match(shown):
            return " (another character than -? write the minus as -)"
        if isinstance(form, str):
            return " (a span of time, or two numbers? write each number in a column of its own)"
        return " (a unit, or a sign of its own? write the number alone, a minus in front of it)"

    def all_problems(self):
        """What is wrong with the cells so far, as texts.

        Texts of one row in columns that hold numbers in all others are one problem.
        """
        of_row = {}
        for j, (n, where, _) in self._texts.items():
            if n == 1 and self._n_rows > 1 and where != "line 1":  # which may name the columns
                of_row.setdefault(where, []).append(j)
        of_row = {where: columns for where, columns in of_row.items() if len(columns) > 1}
        apart = {j for columns in of_row.values() for j in columns}
        rows = [
            f"{where} holds {listed(repr(self._texts[j][2]) for j in columns)} where all other "
            "rows hold numbers: mend it, or take it out if these are names or units"
            for where, columns in of_row.items()
        ]
        return [*rows, *(text for j, text in self.problems.items() if j not in apart)]

    def refuse_problems(self):
        """Refuse the cells so far if something is wrong with them.

        Raises:
            InputError: names, for every such column, the first cell that is not a number.
        """
        self.refuse(self.source, self.all_problems())

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
