"""What parts the cells of a text file."""

import collections
import csv
import itertools
import re

from swift_hydra.data.layout import SPACE, stripped
from swift_hydra.data.reading import COMMA, POINT, is_number, numeric
from swift_hydra.settings import InputError, tell

SEPARATORS = ",;\t|"
ONE_COLUMN = "\t"  # what parts the cells where nothing does
PAIR = re.compile(r"[+-]?\d+,\d+")  # two whole numbers, or one with a decimal comma
PEEKED_LINES = 20  # lines that say what parts the cells
# What InfluxDB writes above the names, with as many cells.
ANNOTATION = re.compile(r"#(?:(?:datatype|default),|group(?:,(?:true|false))+\s*$)")
SEP = re.compile(r'"?sep=([^\r\n"])"?\s*', re.IGNORECASE)


def read_preamble(lines, path, decimal=None):
    """The separator; the lines are left at the first one of cells, those before it are counted.

    Comments (#) at the top and Excel's ``sep=;`` are passed over.

    Args:
        lines: a :class:`Lines`.
        path: the file, for messages.
        decimal: the decimal mark, or None where nothing says it.

    Returns:
        Separator, and the number of lines passed over.
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
    """Is a line with # a comment? Not where the next one has as many cells: then it names them."""
    if not line.startswith("#"):
        return False
    if ANNOTATION.match(line) and following[:1] in (*"#,", ""):  # the names begin with no cell
        return True
    separator = max(SEPARATORS, key=re.sub(r'"[^"]*"', "", line).count)
    rows = [_split([each], separator) for each in (line, following)]
    if rows[0] is None or rows[1] is None or len(rows[0][0]) != len(rows[1][0]):
        return True
    # Words above words: either may be the names. Nobody begins a name with a space.
    return line.startswith("# ") and not any(map(is_number, rows[1][0]))


def _say_of_names(line, following="", *, path):
    """Warn of a comment with a word for every number below: numpy.savetxt writes names like that.

    Without them columns are taken in their order, whatever theirs is in training.
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
    """What parts the cells of some lines: what gives all of them equally many cells.

    Of several such, that whose cells are numbers: ``1,5;2`` are two of them and not 1 and ``5;2``.

    Args:
        lines: the first lines.
        path: the file, for messages.
        decimal: the decimal mark, or None where nothing says it.

    Raises:
        InputError: where spaces may part cells or thousands, and commas cells or decimals.
    """
    lines = [line for line in lines if line.strip()]
    if not lines:
        return SEPARATORS[0]
    if decimal != "." and all(PAIR.fullmatch(line.strip()) for line in lines):
        if decimal == ",":
            return ONE_COLUMN
        _refuse_decimals(lines, path)
    # What ends within a quoted cell is no sample.
    open_quotes = itertools.accumulate(line.count('"') for line in lines)
    n_whole = max((i for i, count in enumerate(open_quotes, 1) if count % 2 == 0), default=1)
    whole = lines[:n_whole]
    found = {mark: rows for mark in SEPARATORS if (rows := _split(whole, mark))}
    spaced = _split(list(map(stripped, whole)), SPACE)
    shares, strange = {}, {}
    if len(found) > 1 or spaced:
        shares = {mark: _share_of_numbers(rows) for mark, rows in found.items()}
        strange = {mark: _share_with(rows, found.keys() - {mark}) for mark, rows in found.items()}
    if spaced and max(shares.values(), default=0) < 1 and _parted_by_spaces(whole, spaced, path):
        return SPACE
    if found:  # of equal ones rather what texts and numbers have seldom
        seldom = sorted(found, key=lambda mark: mark == ",")
        return max(seldom, key=lambda m: (-strange.get(m, 0), shares.get(m, 0), len(found[m][0])))
    _refuse_short_header(whole, path)
    bare = re.sub(r'"[^"]*"', "", lines[0])
    if not any(mark in bare for mark in SEPARATORS):
        if all(numeric(line) is not None for line in lines[1:]):
            return ONE_COLUMN  # whose commas are decimal commas
    return max(SEPARATORS, key=lambda mark: (_agreement(whole, mark), bare.count(mark)))


def _agreement(lines, mark):
    """Share of the rows that have as many cells, and more than one, as most have."""
    try:
        widths = collections.Counter(map(len, csv.reader(lines, delimiter=mark)))
    except csv.Error:
        return 0.0
    width, count = widths.most_common(1)[0]
    return count / len(lines) if width > 1 and 2 * count > len(lines) else 0.0


def _share_with(rows, marks):
    """Share of the cells that hold another mark which parts all lines alike, and are no number."""
    cells = [cell for row in rows for cell in row]
    odd = [cell for cell in cells if any(mark in cell for mark in marks)]
    return sum("\t" in cell or numeric(cell) is None for cell in odd) / len(cells)


def _refuse_short_header(lines, path):
    """Refuse names that are one fewer than the cells below, as R's write.table writes them."""
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
    """Refuse lines of two whole numbers, as of ``1,50``, that look like one with a decimal comma.

    Nobody writes a whole number as -0, or 05 beside others of as many digits and no zero before.
    Where nothing tells the two apart it is said.
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
    """Rows of the lines, or None unless all have as many cells, and more than one."""
    try:
        rows = list(csv.reader(lines, delimiter=mark, skipinitialspace=True))
    except csv.Error:
        return None
    return rows if rows and len(rows[0]) > 1 and len(set(map(len, rows))) == 1 else None


def _share_of_numbers(rows):
    """Of the cells below the first row, or of that where it is alone."""
    cells = [cell for row in rows[1:] or rows for cell in row]
    return sum("\t" not in cell and numeric(cell) is not None for cell in cells) / len(cells)


def _parted_by_spaces(lines, rows, path):
    if any(mark in line for line in lines for mark in SEPARATORS):
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
