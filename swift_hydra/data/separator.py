"""Find the separator of the cells of a text file."""

import collections
import csv
import itertools
import re

from swift_hydra.data.layout import SPACE, stripped
from swift_hydra.data.reading import COMMA, POINT, is_number, numeric
from swift_hydra.settings import InputError, tell

SEPARATORS = ",;\t|"
ONE_COLUMN = "\t"  # the separator used for a file with a single column
PAIR = re.compile(r"[+-]?\d+,\d+")  # two whole numbers, or one with a decimal comma
QUOTED = re.compile(r'"[^"]*"')
PEEKED_LINES = 20  # lines from which the separator is found
# Lines that InfluxDB writes above the names, with as many cells.
ANNOTATION = re.compile(r"#(?:(?:datatype|default),|group(?:,(?:true|false))+\s*$)")
SEP = re.compile(r'"?sep=([^\r\n"])"?\s*', re.IGNORECASE)


def read_preamble(lines, path, decimal=None):
    """Skip comments (#) and Excel's ``sep=;`` at the top of a file, and find its separator.

    Args:
        lines: a :class:`data.layout.Lines`; it is left at the first line of cells.
        path: the file, for messages.
        decimal: the decimal mark, or None if it is not given.

    Returns:
        The separator, and the number of lines skipped.
    """
    passed = 0
    separator = None
    while ahead := lines.peek(2):
        told = SEP.fullmatch(ahead[0])
        if told:
            separator = told[1]
        elif ahead[0].strip() and not _comment(*ahead):
            break
        _say_of_names(*ahead, path=path)
        lines.skip()
        passed += 1
    return separator or find_separator(lines.peek(PEEKED_LINES), path, decimal), passed


def _comment(line, following=""):
    """Is a line with # a comment? Not if the next line has as many cells: then it names columns."""
    if not line.startswith("#"):
        return False
    # Below InfluxDB's lines comes another one, or the names, the first of which is empty.
    if ANNOTATION.match(line) and following[:1] in (*"#,", ""):
        return True
    if not any(mark in line for mark in SEPARATORS):  # one cell: most lines of a licence or a log
        return True
    separator = max(SEPARATORS, key=QUOTED.sub("", line).count)
    rows = [_split([each], separator) for each in (line, following)]
    if rows[0] is None or rows[1] is None or len(rows[0][0]) != len(rows[1][0]):
        return True
    # If the next line holds words only, either may be the names, but a name has no leading space.
    return line.startswith("# ") and not any(map(is_number, rows[1][0]))


def _say_of_names(line, following="", *, path):
    """Warn of a comment with one word for each number below: numpy.savetxt writes names like that.

    Without names, columns are taken by position, even if they were in another order in training.
    """
    words, cells = line[1:].split(), following.split()
    if line[0] != "#" or len(words) != len(cells) or len(cells) < 2 or any(map(is_number, words)):
        return
    if all(map(is_number, cells)):
        tell(
            f"{path}: {line.strip()[:60]!r} is taken as a comment: if it names the columns take "
            "the # out of it"
        )


def find_separator(lines, path, decimal=None):
    """The separator of some lines: the mark that gives all of them the same number of cells.

    If several do, it is the one whose cells are numbers: ``1,5;2`` holds 1,5 and 2, not 1 and
    ``5;2``.

    Args:
        lines: the first lines.
        path: the file, for messages.
        decimal: the decimal mark, or None if it is not given.

    Raises:
        InputError: spaces may separate cells or thousands, or commas may separate cells or be
            decimal commas; or the first line has one cell fewer than the others.
    """
    lines = [line for line in lines if line.strip()]
    if not lines:
        return SEPARATORS[0]
    if decimal != "." and all(PAIR.fullmatch(line.strip()) for line in lines):
        if decimal == ",":
            return ONE_COLUMN
        _refuse_decimals(lines, path)
    # Leave out lines at the end of the sample that lie within an open quote.
    open_quotes = itertools.accumulate(line.count('"') for line in lines)
    n_whole = max((i for i, count in enumerate(open_quotes, 1) if count % 2 == 0), default=1)
    whole = lines[:n_whole]
    bare = QUOTED.sub("", "".join(whole))
    found = {mark: rows for mark in SEPARATORS if (rows := _split(whole, mark))}
    # A quote within a cell quotes nothing: a mark that parts what stands in quotes is no separator.
    found = {m: rows for m, rows in found.items() if _n_marks(rows) == bare.count(m)}
    spaced = _split(list(map(stripped, whole)), SPACE)
    shares, strange = {}, {}
    if len(found) > 1 or spaced:
        shares = {mark: _share_of_numbers(rows) for mark, rows in found.items()}
        strange = {mark: _share_with(rows, found.keys() - {mark}) for mark, rows in found.items()}
    if spaced and max(shares.values(), default=0) < 1:
        marked = any(mark in bare for mark in SEPARATORS)
        if _parted_by_spaces(whole, spaced, marked, path):
            return SPACE
    if found:  # of equals not the comma, which texts and numbers contain more often
        seldom = sorted(found, key=lambda mark: mark == ",")
        return max(seldom, key=lambda m: (-strange.get(m, 0), shares.get(m, 0), len(found[m][0])))
    _refuse_short_header(whole, path)
    first = QUOTED.sub("", lines[0])
    if not any(mark in first for mark in SEPARATORS):
        if all(numeric(line) is not None for line in lines[1:]):
            return ONE_COLUMN  # whose commas are decimal commas
    return max(SEPARATORS, key=lambda mark: (_agreement(whole, mark), first.count(mark)))


def _agreement(lines, mark):
    """Share of the rows with the number of cells that most have; 0 if that is one cell."""
    try:
        widths = collections.Counter(map(len, csv.reader(lines, delimiter=mark)))
    except csv.Error:
        return 0.0
    width, count = widths.most_common(1)[0]
    return count / len(lines) if width > 1 and 2 * count > len(lines) else 0.0


def _share_with(rows, marks):
    """Share of the cells that contain one of these other candidate marks and are no number."""
    cells = [cell for row in rows for cell in row]
    odd = [cell for cell in cells if any(mark in cell for mark in marks)]
    return sum("\t" in cell or numeric(cell) is None for cell in odd) / len(cells)


def _refuse_short_header(lines, path):
    """Refuse a first line with one cell fewer than those below, as R's write.table writes it."""
    for mark in (*SEPARATORS, SPACE):
        rows = _split(list(map(stripped, lines[1:])), mark)
        names = _split([stripped(lines[0])], mark)
        if rows and names and len(names[0]) + 1 == len(rows[0]):
            if not any(row[-1].strip() for row in rows):
                raise InputError(
                    f"{path}: the first line has {len(names[0])} cells, the others one more at "
                    f"their end, which is empty: take the last {mark!r} out of them"
                )
            firsts = [row[0] for row in rows]
            if len(set(firsts)) < len(firsts):
                raise InputError(
                    f"{path}: the first line has {len(names[0])} cells, the others {len(rows[0])}: "
                    "name every column, and write cells that hold what parts them in quotes"
                )
            raise InputError(
                f"{path}: the first line has {len(names[0])} cells, the others {len(rows[0])}: "
                "name the first column too (of R's write.table: col.names=NA), or, if a cell "
                f"holds {mark!r}, write it in quotes (and a quote within them twice)"
            )


def _refuse_decimals(lines, path):
    """Refuse lines such as ``1,05`` that look like one number with a decimal comma, not two cells.

    They do if a first number is -0, or a second one has a leading zero while no first one has:
    nobody writes whole numbers like that. If all second numbers have equally many digits, warn.
    """
    pairs = [line.strip().split(",") for line in lines]
    firsts, seconds = zip(*pairs, strict=True)
    digits = {len(cell) for cell in seconds}
    padded = any(len(cell) > 1 and cell[0] == "0" for cell in seconds)
    padded = padded and not any(re.fullmatch(r"[+-]?0\d+", cell) for cell in firsts)
    either = (
        f"{path}: {lines[0].strip()[:40]!r}: does the comma part two columns, or is it a decimal "
        "comma? Give --decimal . (two columns) or --decimal , (one)"
    )
    if padded or "-0" in firsts:
        raise InputError(either)
    if len(digits) == 1 and len(set(seconds)) > 2:
        tell(f"{either}; taken as two columns")


def _split(lines, mark):
    """Rows of the lines, or None unless all have the same number of cells, more than one."""
    try:
        rows = list(csv.reader(lines, delimiter=mark, skipinitialspace=True))
    except csv.Error:
        return None
    return rows if rows and len(rows[0]) > 1 and len(set(map(len, rows))) == 1 else None


def _n_marks(rows):
    """Number of marks that part the cells of rows."""
    return sum(len(row) - 1 for row in rows)


def _share_of_numbers(rows):
    """Share of numbers among the cells below the first row, or in it if it is the only one."""
    cells = [cell for row in rows[1:] or rows for cell in row]
    return sum("\t" not in cell and numeric(cell) is not None for cell in cells) / len(cells)


def _parted_by_spaces(lines, rows, marked, path):
    """Do spaces part the cells of lines, which they make rows of?

    ``marked``: the lines hold other separators, too.
    """
    if marked:
        return _share_of_numbers(rows) == 1
    if all(_grouped(line.strip()) for line in lines):
        raise InputError(
            f"{path}: {lines[0].strip()[:40]!r}: do the spaces part columns or thousands? Part the "
            "columns by commas or semicolons, or write sep= and a space, or sep=;, into a first "
            "line"
        )
    return all(any(map(is_number, row)) for row in rows[1:] or rows)


def _grouped(line):
    return POINT.fullmatch(line) or COMMA.fullmatch(line)
