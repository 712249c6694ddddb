"""How a text file writes its values: encoding, separator, header, numbers, gaps, dates.

What a file leaves no doubt about is found out; what can be read in two ways is refused with the
flag that decides it.
"""

import gzip
import re
from dataclasses import dataclass
from datetime import UTC, datetime

from swift_hydra.settings import InputError, setting

MISSING = ("na", "n/a", "nan", "<na>", "nat", "null", "none", "?")  # beside the empty cell
SEPARATORS = ",;\t|"
LONGEST_LINE = 2**26  # characters
SPACES = "' \u00a0\u202f"  # what parts thousands beside point and comma
GROUPED = r"\d{1,3}(?:[MARKS]\d{3})+"
POINT = re.compile(r"[+-]?" + GROUPED.replace("MARKS", "," + SPACES) + r"(?:\.\d+)?")
COMMA = re.compile(
    r"[+-]?(?:\d+|" + GROUPED.replace("MARKS", "." + SPACES) + r")(?:,\d+)?(?:[eE][+-]?\d+)?"
)
EITHER = re.compile(r"[+-]?[1-9]\d{0,2}(?:,\d{3})+")  # 1,234: a thousand, or a little over one
MARKS = re.compile(r"[',.\s]")


@dataclass(kw_only=True)
class Reading:
    """How the values of a text file are written."""

    decimal: str | None = setting(
        None, "decimal mark of a text file (default: found out)", choices=(".", ",")
    )
    missing: str | None = setting(
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
        return frozenset(["", *(text.strip().casefold() for text in given)])


def open_text(path, encoding):
    """An open text file, gunzipped where its name ends with .gz.

    Raises:
        InputError: for an unknown encoding.
    """
    zipped = path.suffix.lower() == ".gz"
    if encoding is None:
        with (gzip.open if zipped else open)(path, "rb") as file:
            mark = file.read(2)
        encoding = "utf-16" if mark in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        opener = gzip.open if zipped else open
        return opener(path, "rt", newline="", encoding=encoding)
    except LookupError:
        raise InputError(
            f"encoding={encoding!r} is unknown: give one such as utf-8, cp1252 or utf-16"
        ) from None


def read_preamble(file, path):
    """The separator; the file is left at its first line of cells, and the lines before are counted.

    Comments (#) at the top and Excel's ``sep=;`` are passed over.

    Returns:
        Separator, and the number of lines passed over.
    """
    passed = 0
    separator = None
    while True:
        start = file.tell()
        line = file.readline(LONGEST_LINE)
        if len(line) == LONGEST_LINE:
            raise InputError(f"{path}: line {passed + 1} has no end: this is no table")
        told = re.fullmatch(r'"?sep=(.)"?\s*', line, re.IGNORECASE)
        if told:
            separator = told[1]
        elif not (line.strip() == "" and line) and not _comment(line, file):
            file.seek(start)
            bare = re.sub(r'"[^"]*"', "", line)
            return separator or max(SEPARATORS, key=bare.count), passed
        passed += 1


def _comment(line, file):
    """Is a line with # a comment? Not where the next one has as many cells: then it names them."""
    if not line.startswith("#"):
        return False
    start = file.tell()
    following = file.readline(LONGEST_LINE)
    file.seek(start)
    separator = max(SEPARATORS, key=line.count)
    cells = line.count(separator)
    return not (cells and cells == following.count(separator))


def number(cell, decimal=".", gaps=frozenset(["", *MISSING])):
    """The float in a cell, NaN for a gap, None for text."""
    cell = cell.strip()
    if cell.casefold() in gaps:
        return float("nan")
    if decimal == ".":
        try:
            return None if "_" in cell else float(cell)
        except ValueError:
            marks = ("," + SPACES, None) if POINT.fullmatch(cell) else None
    else:
        marks = ("." + SPACES, ",") if COMMA.fullmatch(cell) else None
        if marks is None and cell.lower().lstrip("+-") in ("inf", "infinity"):
            return float(cell)
    if marks is None:
        return None
    for mark in marks[0]:
        cell = cell.replace(mark, "")
    return float(cell.replace(",", ".") if marks[1] else cell)


def days(cell):
    """Days since 1970 in a cell with an ISO date, None for anything else."""
    try:
        moment = datetime.fromisoformat(cell.strip())
    except ValueError:
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return moment.timestamp() / 86_400


def find_decimal(columns, path, names):
    """The decimal mark that the cells of some columns were written with.

    Args:
        columns: sequences of cells.
        path: the file, for messages.
        names: of the columns.

    Raises:
        InputError: where 1,234 could be either and nothing else in the file tells.
    """
    doubtful = None
    comma = point = False
    for name, cells in zip(names, columns, strict=True):
        odd = [cell.strip() for cell in cells if isinstance(cell, str) and MARKS.search(cell)]
        point = point or any("." in cell and number(cell) is not None for cell in odd)
        with_comma = [cell for cell in odd if "," in cell]
        if not all(COMMA.fullmatch(cell) or POINT.fullmatch(cell) for cell in with_comma):
            continue  # text
        for cell in with_comma:
            if EITHER.fullmatch(cell):
                doubtful = doubtful or (name, cell)
            elif COMMA.fullmatch(cell):
                comma = True
    if comma:
        return "," if not point else "."
    if doubtful and not point:
        name, cell = doubtful
        raise InputError(
            f"{path}: column {name!r} holds {cell!r}: is the comma a decimal comma? Give --decimal "
            ", (it is) or --decimal . (it parts thousands)"
        )
    return "."
