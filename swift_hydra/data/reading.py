"""How a text file writes its values: encoding, numbers, gaps, dates.

What is unambiguous is detected; what can be read in two ways is refused, and the message names the
flag that decides.
"""

import codecs
import functools
import gzip
import math
import re
import unicodedata
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from swift_hydra.settings import AnyText, InputError, setting, tell

# Texts that stand for a gap, beside the empty cell.
MISSING = ("na", "n/a", "nan", "<na>", "nat", "null", "none", "?")
GAPS = frozenset(["", *MISSING])
SPACES = "' \u00a0\u2009\u202f\u2019"  # separators of thousands beside point and comma
GROUPED = r"[1-9]\d{0,2}(?:[MARKS]\d{3})+"  # nobody groups 0123
# Four groups up to 255 are an IP address.
ADDRESS = r"(?!(?:(?:1?\d?\d|2[0-4]\d|25[0-5])\.){3}(?:1?\d?\d|2[0-4]\d|25[0-5])$)"
POINT = re.compile(r"[+-]?" + GROUPED.replace("MARKS", "," + SPACES) + r"(?:\.\d+)?")
COMMA = re.compile(
    rf"{ADDRESS}[+-]?(?:(?:\d+|"
    + GROUPED.replace("MARKS", "." + SPACES)
    + r")(?:,\d*)?|,\d+)(?:[eE][+-]?\d+)?"
)
EITHER = re.compile(r"[+-]?[1-9]\d{0,2}(?:,\d{3})+")  # 1,234: it may mean 1234 or 1.234
EITHER_POINT = re.compile(EITHER.pattern.replace(",\\d", r"\.\d"))
SHORT = re.compile(r"0|[+-]?[1-9]\d{0,2}")  # a whole number below 1000
ODD = re.compile(r"[^\d.,+\-\seE'\u2019]|\d-|\.\d*\.")  # what few numbers contain
MOMENT = re.compile(r"\d{1,2}\.\d{2}")  # 12.58: if all points are like this, times or dates
# UNIT: a number with a unit, as 12 %, $5, EUR 5, <3 or 7 mg/dL, or with a sign that Python does not
# read, as (5), 5- or \u22125. SPAN: 1:23:45, 120/80, 3d 4h. A7 is ambiguous and matches neither.
DIGITS_OF_ONE = r"[+-]?[\d.,][\d.,'\u2019 \u00a0\u202f]*(?:[eEdD][+-]?\d+)?"
UNIT = re.compile(
    r"(?=.*\d)([^\w\s.,]*|[^\W\d_]{1,3}[ $.\u00a0]+[$]?)\s*"
    rf"{DIGITS_OF_ONE}\s*((?:[^\d\s.,](?:[^\d\s]|(?<=m)[23]){{0,14}}(?: [^\d\s]{{1,9}})?)?)"
)
SPAN = re.compile(
    r"\d+(?::\d{2}){1,2}|\d+/\d+|(?:\d+ ?[dhms] ?){2,4}|-?\d+ days?(?: [+-]?\d+:[\d:.]+)?"
)
MONTH = "(?:jan|feb|m[aä]r|apr|ma[iy]|jun|jul|aug|sep|o[ck]t|nov|de[cz])[a-zä]*"
DAY_AND_MONTH = re.compile(r"(0[1-9]|[12]\d|3[01])\.(0[1-9]|1[0-2])\.?")
DATE_LIKE = re.compile(  # what people and programs write for a date, beside ISO's 2026-01-31
    r"(?:\d{1,4}([./-])\d{1,2}\1\d{1,4}|\d{4}-\d\d?"
    rf"|\d{{1,2}}\.?[ -]?{MONTH}[ .,-]*\d{{2,4}}|{MONTH}\.? \d{{1,2}}(?:st|nd|rd|th)?,? *\d{{4}})"
    r"(?:[T ,]+\d{1,2}:\d\d.*)?",
    re.IGNORECASE,
)
# A day without its year, or a month without its day, which spreadsheets make of 1.5 or 1-5.
MADE_A_DATE = re.compile(rf"\d{{1,2}}\.?[ -]?{MONTH}\.?|{MONTH}\.?[ -]\d{{1,4}}", re.IGNORECASE)
MARKED = (
    (b"\xff\xfe\0\0", "utf-32"),
    (b"\0\0\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)
BINARY = {
    b"PK\3\4": ("an Excel file or another zip archive", "save it as CSV UTF-8"),
    b"\x1f\x8b": ("gzipped", "name it .gz"),
    b"PAR1\x15": ("Parquet", "name it .parquet"),
    b"\xd0\xcf\x11\xe0": ("an old Excel file", "save it as CSV UTF-8"),
    b"\x93NUMPY": ("numpy's .npy", "save X and y with numpy.savez"),
    b"ARROW1\0\0": ("Arrow's (.arrow, .feather)", "write it as Parquet"),
    b"\xfd7zXZ\0": ("packed by xz", "unpack it with unxz"),
    b"\x28\xb5\x2f\xfd": ("packed by zstd", "unpack it with unzstd"),
    b"SQLite format 3\0": ("an SQLite database", "write its table as CSV"),
    b"\x89HDF\r\n": ("HDF5", "write its table as CSV or Parquet"),
    b"%PDF-": ("a PDF", "save its table as CSV UTF-8"),
    **{b"BZh%d1AY&SY" % k: ("packed by bzip2", "unpack it with bunzip2") for k in range(1, 10)},
}
# Texts that are not rows of cells: a web page in place of a download, a list of records.
MARKUP = {
    re.compile(rb'\s*(?:\[\s*)?\{\s*"[^"]*"\s*:'): (
        "JSON",
        "write it as a table, such as with pandas.read_json(...).to_csv",
    ),
    re.compile(rb"\s*<(?:!doctype|html|\?xml|table|head|body)\b", re.IGNORECASE): (
        "HTML or XML",
        "save its table as CSV, or fetch the file again",
    ),
}
PIECE = re.compile(r"[\x00-\x7f]?[^\x00-\x7f]+")  # characters that are composed together
LONGEST_PIECE = 1000
WORD = re.compile(r"[+-]?(?:nan|inf|infinity)", re.IGNORECASE)  # words that float() reads


@dataclass(kw_only=True)
class Reading:
    """How the values of a text file are written."""

    decimal: str | None = setting(
        None, "decimal mark of a text file (default: found out)", choices=(".", ",")
    )
    missing: AnyText | None = setting(
        None,
        "texts that stand for a gap, separated by commas, '' for none (default: NA, N/A, NaN, "
        "null, None, NaT, ?; an empty cell always does)",
    )
    encoding: str | None = setting(
        None, "encoding of a text file (default: UTF-8, or UTF-16 with its mark)"
    )
    header: str = setting(
        "auto", "is the first line the columns' names", choices=("auto", "yes", "no")
    )

    def gaps(self):
        """Texts, in lower case, that stand for a gap."""
        given = MISSING if self.missing is None else self.missing.split(",")
        return frozenset(["", *(composed(text.strip()).casefold() for text in given)])

    def label_gaps(self):
        """:meth:`gaps` for labels, without numbers: a 0 that is a gap in features is a label."""
        numbers = ((text, number(text, gaps=frozenset())) for text in self.gaps())
        return frozenset(
            text for text, value in numbers if value is None or not math.isfinite(value)
        )

    def gap_numbers(self):
        """The gaps that are numbers: with -999 a cell of -999.0 is a gap too."""
        if self.missing is None:
            return frozenset()
        found = (number(text, gaps=frozenset()) for text in self.missing.split(","))
        return frozenset(value for value in found if value is not None and math.isfinite(value))

    def without_gaps(self, values):
        """An array of numbers with NaN where it holds one of :meth:`gap_numbers`."""
        gaps = self.gap_numbers()
        if not gaps or values.dtype.kind not in "iuf":
            return values
        gap = np.isin(values, list(gaps))
        if values.dtype.kind == "f":  # -999.9 in float32 is another number than in float64
            gap |= np.isin(values, np.array(list(gaps)).astype(values.dtype))
        return np.where(gap, np.nan, values.astype(np.float64)) if gap.any() else values

    def parser(self, decimal):
        """A function from a cell to its number, NaN for a gap or None for text.

        Args:
            decimal: the decimal mark that was detected or given.
        """
        if decimal == "." and self.missing is None:
            return number
        read = functools.partial(number, decimal=decimal, gaps=self.gaps())
        numbers = self.gap_numbers()
        if not numbers:
            return read

        def read_with_gaps(cell):
            value = read(cell)
            return float("nan") if value in numbers else value

        return read_with_gaps

    def remembered(self, decimal, header):
        """How a file was read, as plain values, so that tables to score are read alike later.

        Args:
            decimal: the decimal mark that was detected or given, or None if no cell has one.
            header: "yes", "no", or None for a file that always has names.
        """
        return {"decimal": decimal, "missing": self.missing, "header": header}

    def after(self, training):
        """This reading, with unset options taken from the training table's file.

        The header is not: see :func:`data.header.has_header`.

        Args:
            training: a result of :meth:`remembered`, or None.
        """
        training = training or {}
        decimal = self.decimal or training.get("decimal")
        missing = training.get("missing") if self.missing is None else self.missing
        return Reading(decimal=decimal, missing=missing, encoding=self.encoding, header=self.header)


def check_remembered(reading):
    """Raise ValueError unless this may be a result of :meth:`Reading.remembered`."""
    allowed = {"decimal": (None, ".", ","), "header": (None, "yes", "no")}
    for name, values in allowed.items():
        value = reading.get(name) if isinstance(reading, dict) else reading
        if not isinstance(value, str | None) or value not in values:
            raise ValueError(f"how the training file was read: {name} is {str(value)[:40]}")
    if not isinstance(reading.get("missing"), str | None):
        raise ValueError("how the training file was read: missing is no text")


def open_text(path, encoding):
    """Open a text file, decompressed if its name ends with .gz.

    Raises:
        InputError: for an unknown encoding.
    """
    if encoding is None:
        with _opener(path)(path, "rb") as file:
            start = file.read(200)
        encoding = _encoding_of(start, path)
    try:
        return _opener(path)(path, "rt", newline="", encoding=encoding)
    except LookupError:
        raise InputError(
            f"encoding={encoding!r} is unknown: give one such as utf-8, cp1252 or utf-16"
        ) from None


def _opener(path):
    """The function that opens a file, decompressed if its name ends with .gz."""
    return gzip.open if path.suffix.lower() == ".gz" else open


def undecodable(path, encoding):
    """Which byte of a text file its encoding lacks, and in which line, as a text.

    The error of reading it counts from the piece of the file that the decoder was given.

    Args:
        path: the file.
        encoding: the encoding's name.
    """
    decoder = codecs.getincrementaldecoder(encoding)()
    n_read, line = 0, 1
    with _opener(path)(path, "rb") as file:
        while piece := file.read(2**16):
            state = decoder.getstate()
            try:
                line += _n_ends(decoder.decode(piece))
            except UnicodeDecodeError as found:
                at = found.start - len(state[0])  # within the piece
                decoder.setstate(state)
                line += _n_ends(decoder.decode(piece[: max(at, 0)]))
                value = found.object[found.start]
                return f"byte {n_read + at}, 0x{value:02x}, in line {line}"
            n_read += len(piece)
    return f"it ends within a character, in line {line}"


def _n_ends(text):
    """The number of ends of lines: a line feed, a carriage return, or both."""
    return text.count("\n") + text.count("\r") - text.count("\r\n")


def _encoding_of(start, path):
    """The encoding of a text file, from its first bytes.

    Raises:
        InputError: the bytes look like UTF-16 or UTF-32 without a byte order mark, or like a file
            of another format.
    """
    for mark, name in MARKED:
        if start.startswith(mark):
            return name
    for magic, (what, remedy) in BINARY.items():
        if start.startswith(magic):
            raise InputError(f"{path}: is {what} by its first bytes, no text: {remedy}")
    for pattern, (what, remedy) in MARKUP.items():
        if pattern.match(start.removeprefix(codecs.BOM_UTF8)):
            raise InputError(f"{path}: is {what} by its first line, no rows of cells: {remedy}")
    if 5 * start.count(b"\0") >= len(start) > 0:  # UTF-16 has nearly one in every two bytes
        order = "be" if start[::2].count(b"\0") > start[1::2].count(b"\0") else "le"
        names = (f"utf-{width}-{order}" for width in (32, 16))
        name = next((name for name in names if _is_text(start, name)), None)
        if name is None:
            raise InputError(f"{path}: is no text by its first bytes: save it as CSV UTF-8")
        raise InputError(f"{path} is no UTF-8 text, perhaps {name}: give --encoding {name}")
    return "utf-8-sig"


def _is_text(start, encoding):
    """Are these bytes printable text in an encoding? The last character may be cut."""
    try:
        text = codecs.getincrementaldecoder(encoding)().decode(start)
    except UnicodeDecodeError:
        return False
    return all(character.isprintable() or character.isspace() for character in text)


def composed(text):
    """A text with every accent and its letter composed into one character (Unicode's NFC)."""
    return text if text.isascii() else PIECE.sub(_composed_piece, text)


def text_of_bytes(cell):
    """Bytes decoded as UTF-8, or else 0x and hexadecimal digits, which keep them distinct."""
    try:
        return cell.decode()
    except UnicodeDecodeError:
        return f"0x{cell.hex()}"


def _composed_piece(match):
    piece = match[0]
    # Many marks in a row take quadratic time; no name and no word has so many.
    return piece if len(piece) > LONGEST_PIECE else unicodedata.normalize("NFC", piece)


def number(cell, decimal=".", gaps=GAPS):
    """The float in a cell, NaN for a gap, None for text."""
    cell = composed(cell.strip())
    if cell.casefold() in gaps:
        return float("nan")
    if WORD.fullmatch(cell):  # if the user's gaps do not include nan, these words are texts
        return float(cell) if "nan" in gaps else None
    if decimal == ".":
        try:
            return None if "_" in cell else float(cell)
        except ValueError:
            marks = ("," + SPACES, None) if POINT.fullmatch(cell) else None
    else:
        marks = ("." + SPACES, ",") if COMMA.fullmatch(cell) else None
    if marks is None:
        return None
    for mark in marks[0]:
        cell = cell.replace(mark, "")
    return float(cell.replace(",", ".") if marks[1] else cell)


def numeric(cell):
    """The number in a cell under either decimal mark, NaN for a gap, None for text."""
    value = number(cell)
    return value if value is not None else number(cell, ",")


def is_number(cell, reads=numeric):
    """Does a cell hold a number: neither text nor a gap?"""
    value = reads(cell)
    return value is not None and value == value


def days(cell):
    """Days since 1970 in a cell with an ISO date, None for anything else.

    Databases write the zone UTC by its name, where ISO has a Z.
    """
    cell = cell.strip()
    if cell.endswith(" UTC"):
        cell = cell.removesuffix(" UTC") + "Z"
    try:
        moment = datetime.fromisoformat(cell)
    except ValueError:
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return moment.timestamp() / 86_400


def form_of(text):
    """The text around the digits of a number with a unit or of a time span; None for others."""
    if SPAN.fullmatch(text):
        return re.sub(r"\d+", "0", text)
    match = UNIT.fullmatch(text)
    if match and not re.search(r"\d\.\d+\.\d", text):  # an address, a version
        return match[1], match[2]
    return None


class Marks:
    """What the cells of a column, seen so far, show about commas and points.

    Attributes:
        text: some cell with a comma is not a number.
        words: some cell is neither a number nor a gap.
        comma: some comma is a decimal comma.
        point: some point is a decimal point.
        moment: all numbers with a decimal point could be times or dates.
    """

    def __init__(self, gaps=GAPS):
        self.gaps = gaps
        self.text = False
        self.words = False
        self.comma = False
        self.point = False
        self.moment = True
        self._either = None  # a cell such as 1,234, whose comma may be either
        self._grouped = None  # a cell such as 12.500
        self._round = None  # one that ends in a zero
        self._whole = None  # a cell such as 950, but not 0
        self._short = False  # some cell is like 950
        self._long = False  # some cell is like 12500: no points between thousands here

    def look(self, cells):
        """Take note of more cells."""
        cells = dict.fromkeys(cells)
        joined = "\n".join(cells)
        if not self.words and ODD.search(joined):
            self.words = any(map(self._is_word, cells))
        if "," in joined and not self.text:
            self._look_at_commas(cells)
        if "." in joined and (self.moment or not self.point):
            self._look_at_points(cells)
        elif not (self._short and self._long):
            for cell in map(str.strip, cells):
                self._look_at_whole(cell)

    def _is_word(self, cell):
        if not ODD.search(cell):
            return False
        return number(cell, gaps=self.gaps) is None and number(cell, ",", self.gaps) is None

    def _look_at_commas(self, cells):
        for cell in cells:
            if "," in cell:
                cell = cell.strip()
                if EITHER.fullmatch(cell):
                    self._either = self._either or cell
                elif COMMA.fullmatch(cell):
                    self.comma = True
                elif not POINT.fullmatch(cell):
                    self.text = True
                    return

    def _look_at_points(self, cells):
        for cell in map(str.strip, cells):
            if "." not in cell:
                self._look_at_whole(cell)
            elif EITHER_POINT.fullmatch(cell):
                self._grouped = self._grouped or cell
                if self._round is None and cell.endswith("0"):
                    self._round = cell
            elif number(cell) is not None:
                self.point = True
                self.moment = self.moment and bool(MOMENT.fullmatch(cell))
                if not self.moment:
                    return

    def _look_at_whole(self, cell):
        if SHORT.fullmatch(cell):
            self._short = True
            self._whole = self._whole or (cell if cell != "0" else None)
        self._long = self._long or (cell.isdecimal() and len(cell) > 3)

    def rounded(self):
        """Two cells such as 12.500 and 950 of one column of numbers that are hardly fractions.

        Programs write fractions with all their digits or without the zeros at their end. None if
        something else shows that points are decimal points.
        """
        numbers = not (self.words or self.text or self.point or self._long)
        return (self._round, self._whole) if numbers and self._round and self._whole else None

    def doubtful(self):
        """A cell that is a different number under either decimal mark, or None.

        A comma as in 1,234 is always in doubt if nothing shows the mark. A point as in 12.500 is
        only in doubt beside whole numbers such as 950: fractions hardly have three digits or none.
        If all cells have a point, or some are like 12.5 or 12500, it is a decimal point.
        """
        if self.text:
            return None
        grouped = self._grouped if self._short and not self._long and not self.point else None
        return self._either or grouped


def _of_numbers(marks, path, names):
    """The decimal mark if columns disagree, decided by those that hold only numbers.

    Raises:
        InputError: these disagree, too.
    """
    numbers = [
        (name, column)
        for name, column in zip(names, marks, strict=True)
        if not (column.words or column.text)
    ]
    commas = [name for name, column in numbers if column.comma]
    points = [name for name, column in numbers if column.point and not column.moment]
    if commas and points:
        raise InputError(
            f"{path}: column {commas[0]!r} has decimal commas, column {points[0]!r} decimal "
            "points: write all numbers alike, or say which one is the decimal mark (--decimal , "
            "or --decimal .): the others are texts then"
        )
    return "," if commas else "."


def _marks(pieces, names, gaps):
    """The :class:`Marks` of d columns; the arguments are those of :func:`find_decimal`."""
    marks = [Marks(gaps) for _ in names]
    for columns in pieces:
        for column, cells in zip(marks, columns, strict=True):
            column.look(cells)
    return marks


def find_decimal(pieces, path, names, gaps, parted_by_commas=False):
    """The decimal mark with which the cells of some columns were written.

    If columns disagree, those that also hold words do not count: versions have points everywhere.

    Args:
        pieces: an iterator over pieces of the columns, each d sequences of cells.
        path: the file, for messages.
        names: d names of the columns.
        gaps: texts that stand for a gap.
        parted_by_commas: commas separate the file's cells. Such files usually have decimal points,
            so that a decimal point anywhere decides.

    Returns:
        A point or a comma, or None if no cell shows it.

    Raises:
        InputError: a number such as 1,234 is ambiguous and nothing else in the file decides, or
            some columns of numbers have decimal commas and others decimal points.
    """
    marks = _marks(pieces, names, gaps)
    points = [column for column in marks if column.point]
    # The points of times and dates in one column say nothing about commas in another.
    point = bool(points) and (parted_by_commas or not all(column.moment for column in points))
    if any(column.comma for column in marks if not column.text):
        if point and not parted_by_commas:
            return _of_numbers(marks, path, names)
        return "," if not point else "."
    if point:
        return "."
    for name, column in zip(names, marks, strict=True):
        cell = column.doubtful()
        if cell:
            is_decimal, parts = ",." if "," in cell else ".,"
            raise InputError(
                f"{path}: {asked_of(name, cell)} Give --decimal {is_decimal} (it is) or --decimal "
                f"{parts} (it parts thousands)"
            )
    return "." if points else None


def say_of_points(columns, path, names, gaps):
    """Warn of numbers such as 12.500 and 950 in one column of a file whose commas part its cells.

    Such files have decimal points, as a rule.

    Args:
        columns: d sequences of cells, of the first rows.
        path, names, gaps: see :func:`find_decimal`.
    """
    marks = _marks([columns], names, gaps)
    if any(column.point for column in marks):
        return
    for name, column in zip(names, marks, strict=True):
        if column.rounded():
            grouped, whole = column.rounded()
            tell(
                f"{path}: column {name!r}: {grouped!r} is taken as a fraction, beside {whole!r}: "
                "if the point parts thousands give --decimal ,"
            )
            return


def asked_of(name, cell):
    """The question about a column with a cell such as 1,234 whose mark no other cell explains."""
    mark = "comma" if "," in cell else "point"
    return f"column {name!r} holds {cell[:40]!r}: is the {mark} a decimal {mark}?"
