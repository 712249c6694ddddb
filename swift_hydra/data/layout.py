"""How a text file lies: its lines, what parts its cells, whether its first line names the columns.

Shapes: d columns.
"""

import collections
import csv
import itertools
import re
import unicodedata
import warnings
from typing import NamedTuple

from swift_hydra.data.reading import COMMA, POINT, is_number, numeric
from swift_hydra.settings import InputError

SEPARATORS = ",;\t|"
ONE_COLUMN = "\t"  # what parts the cells where nothing does
PAIR = re.compile(r"[+-]?\d+,\d+")  # two whole numbers, or one with a decimal comma
SPACE = " "  # any number of them between two cells
LONGEST_LINE = 2**26  # characters
PEEKED_LINES = 20  # lines that say what parts the cells
PEEKED = 2**17  # characters of them
PEEKED_ROWS = 200  # rows that say whether the first one names the columns
PEEKED_CELLS = 200_000
MARKS = "\ufeff\u00ef\u00bb\u00bf"  # the byte order mark, and how cp1252 shows that of UTF-8
END = "\x00end\x00"  # a line after the last one: an open quote swallows it
SEP = re.compile(r'"?sep=([^\r\n"])"?\s*', re.IGNORECASE)
PANDAS_ROWS = 3  # columns from which 0, 1, 2, ... are rather names than values


class Lines:
    """The lines of an open text file, each of bounded length, with a look ahead.

    Raises:
        InputError: while it is read, for a line without an end.
    """

    def __init__(self, file, path):
        self._rest = _bounded(file, path)
        self._ahead = collections.deque()

    def __iter__(self):
        while self._ahead:
            yield self._ahead.popleft()
        yield from self._rest

    def peek(self, n):
        """At most n of the next lines, fewer of very long ones; they are still to come."""
        size = sum(map(len, self._ahead))
        while len(self._ahead) < n and (size < PEEKED or len(self._ahead) < 2):
            line = next(self._rest, None)
            if line is None:
                break
            self._ahead.append(line)
            size += len(line)
        return list(itertools.islice(self._ahead, n))

    def skip(self):
        """Pass over the next line."""
        self._ahead.popleft()


def _bounded(file, path):
    n = 0
    while line := file.readline(LONGEST_LINE):
        if n == 0 and line[0] in MARKS:
            line = line.removeprefix(MARKS[1:]).lstrip(MARKS[0])
        n += 1
        if len(line) >= LONGEST_LINE - 3 and line[-1] not in "\r\n":
            raise InputError(f"{path}: line {n} has no end: this is no table")
        if line:  # one letter and an accent, or both in one: the same text
            yield line if line.isascii() else unicodedata.normalize("NFC", line)


# --- what parts the cells -------------------------------------------------------------------------


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
        lines.skip()
        passed += 1
    return separator or find_separator(lines.peek(PEEKED_LINES), path, decimal), passed


def _comment(line, following=""):
    """Is a line with # a comment? Not where the next one has as many cells: then it names them."""
    if not line.startswith("#"):
        return False
    separator = max(SEPARATORS, key=re.sub(r'"[^"]*"', "", line).count)
    rows = [_split([each], separator) for each in (line, following)]
    if rows[0] is None or rows[1] is None or len(rows[0][0]) != len(rows[1][0]):
        return True
    # Words above words: either may be the names. Nobody begins a name with a space.
    return line.startswith("# ") and not any(map(is_number, rows[1][0]))


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
                "name the first column too (of R's write.table: col.names=NA)"
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
        warnings.warn(f"{either}; taken as two columns", stacklevel=2)


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


def stripped(line):
    """A line without spaces at its ends, which would be cells where spaces part them."""
    return line.strip(" \r\n") + "\n"


# --- rows -----------------------------------------------------------------------------------------


def read_rows(lines, separator, passed, path):
    """Rows of cells; blank lines are none, but for those inside a table of one column.

    Args:
        lines: a :class:`Lines` after :func:`read_preamble`.
        separator: of the cells.
        passed: number of lines before.
        path: the file, for messages.

    Yields:
        The number of a row's last line, and its cells.

    Raises:
        InputError: for a quote that is never closed, and for a cell without an end.
    """
    if separator == SPACE:
        lines = map(stripped, lines)
    closed = []  # the last line had an end
    recent = []  # lines of the row at hand
    # A quote after a space is one, and several spaces are as good as one.
    given = {"delimiter": separator, "skipinitialspace": True}
    reader = csv.reader(_with_end(lines, closed, recent), **given)
    width = None
    blank = []
    last = passed
    while True:
        try:
            row = next(reader)
        except csv.Error as error:
            raise InputError(
                f"{path} is no readable CSV ({error}, in the row that begins in line {last + 1}): "
                "close its quotes, or save the file as plain CSV UTF-8"
            ) from error
        last = passed + reader.line_num
        if closed:
            if row != [END]:
                breaks = len(re.findall(r"\r\n|\r|\n", row[-1]))
                line = last - breaks - (not closed[0])
                raise InputError(
                    f"{path}: the quote that begins in line {line} is never closed: mend it"
                )
            return
        if len(recent) > 1:
            _refuse_swallowed(recent, len(row), separator, last, path)
        written = recent[0].strip()
        recent.clear()
        if not row or (len(row) == 1 and not row[0].strip()):
            if width != 1:
                continue
            if not written:  # one that is written as "" is a gap wherever it stands
                blank.append(last)
                continue
        if blank:
            yield from ((line, [""]) for line in blank)
            blank.clear()
        width = width or len(row)
        yield last, row


def _refuse_swallowed(lines, width, separator, last, path):
    """Refuse quotes that join lines of which each is a row of as many cells.

    A text that begins with an inch mark or a quoted word, twice in a file, does that: the rows
    between the two would be gone.
    """
    plain = csv.reader(lines, delimiter=separator, quoting=csv.QUOTE_NONE, skipinitialspace=True)
    if width > 1 and all(len(row) == width for row in plain):
        raise InputError(
            f"{path}: a quote joins lines {last - len(lines) + 1} to {last}, each of which is a "
            "row of its own: a quote that is part of a text is written twice, inside of quotes: "
            '"a ""quoted"" word"'
        )


def _with_end(lines, closed, recent):
    line = "\n"
    for line in lines:
        recent.append(line)
        yield line
    closed.append(line[-1:] in ("\r", "\n"))
    yield END


# --- the first line -------------------------------------------------------------------------------


class Known(NamedTuple):
    """What a table to score can be compared with."""

    names: list | None  # d names of the training table
    header: str | None  # "yes" or "no": whether its file had one; None where that is not known
    texts: dict  # of its text columns, {number: texts}


def has_header(first, below, path, known=None, gaps=frozenset()):
    """Does the first row name the columns?

    A table to score is judged by its first line and the training table alone, where that is known:
    a row's reading does not depend on the rows beside it.

    Args:
        first: cells of the first row.
        below: the next rows.
        path: the file, for messages.
        known: a :class:`Known` of the training table, or None.
        gaps: texts in lower case that stand for a gap.
    """
    below = [row for row in below if len(row) == len(first)]
    known_gaps = [_without(row, gaps) for row in (first, *below)]
    if known is None:
        return _names_columns(known_gaps[0], known_gaps[1:], path)
    cells = {cell.strip() for cell in distinct([cell.strip() for cell in first])}
    names = set(known.names or ())
    made_up = names == {f"x{j}" for j in range(len(names))}
    if names and names <= cells:
        return True
    if known.header == "no":
        return False
    if known.header is None and (made_up or not names):
        return _names_columns(known_gaps[0], known_gaps[1:], path)
    if any(numeric(name) is None for name in names & cells):
        return True
    texts = [known.texts.get(j, ()) for j in range(len(first))]
    if names and all(cell.strip() in of for cell, of in zip(first, texts, strict=True)):
        return False  # a row of texts that training knew
    return not any(map(is_number, first))


def _without(row, gaps):
    """A row with nothing in the place of texts that stand for that."""
    return ["" if cell.strip().casefold() in gaps else cell for cell in row]


def _names_columns(first, below, path):
    """:func:`has_header` of a table of which nothing is known."""
    top = [numeric(cell) for cell in first]
    numbers = [cell.strip() for cell in first if is_number(cell)]
    texts = [j for j, value in enumerate(top) if value is None]
    if not below:
        return bool(texts) and not numbers
    columns = [[cell.strip() for cell in column] for column in zip(*below, strict=True)]
    if _counts(first, below, path):
        return True
    if not texts:
        return False
    # A text that comes again below is a value.
    names = [j for j in texts if first[j].strip() not in columns[j]]
    if not numbers:
        return 2 * len(names) >= len(texts)
    if len(names) == len(texts) and _runs(first, top, columns, names):
        warnings.warn(
            f"{path}: the numbers of the first line go all up or down, as years or wavelengths do, "
            "and it is taken as names: if it is a row give --header no",
            stacklevel=2,
        )
        return True
    # A column with a name above numbers speaks for a header; a stray - or $3 is no name. A number
    # with a fraction speaks for a row, unless all go up; one that comes again is worth a word.
    names = [j for j in names if re.search(r"[^\W\d_]", first[j]) and _mostly_numbers(columns[j])]
    values = [value for value in top if value is not None and value == value]
    ascending = len(values) >= 5 and all(a < b for a, b in itertools.pairwise(values))
    if ascending:
        return bool(names)
    again = [j for j, cell in enumerate(first) if is_number(cell) and cell.strip() in columns[j]]
    fractions = [j for j, value in enumerate(top) if value is not None and value % 1 > 0]
    if len(names) > len(fractions) and again:
        warnings.warn(
            f"{path}: the first line is taken as names, though numbers stand in it: if it is a row "
            "give --header no",
            stacklevel=2,
        )
    return len(names) > len(fractions)


def _runs(first, top, columns, names):
    """Are the numbers of the first row, beside texts ``names``, rather names than values?

    They go all up or all down, and none is like a value of its column, or a text stands above few
    others that come again and again.
    """
    at = [j for j, cell in enumerate(first) if is_number(cell)]
    steps = [b - a for a, b in itertools.pairwise(top[j] for j in at)]
    if len(at) < PANDAS_ROWS or not (all(s > 0 for s in steps) or all(s < 0 for s in steps)):
        return False
    if any(len(set(columns[j])) <= max(len(columns[j]) / 5, 2) for j in names):
        return True
    for j in at:
        values = [value for cell in columns[j] if (value := numeric(cell)) is not None]
        if not values or min(values) <= top[j] <= max(values):
            return False
    return True


def _mostly_numbers(cells):
    values = [numeric(cell) for cell in cells]
    values = [value for value in values if value is None or value == value]
    return bool(values) and 2 * sum(value is not None for value in values) > len(values)


def _counts(first, below, path):
    """Do the numbers of the first row count the columns from 0, as the names that pandas makes up?

    What may be a row is told either way.
    """
    at = [j for j, cell in enumerate(first) if is_number(cell)]
    start = first[at[0]].strip() if at else None
    # Rows that count on (0 1 2, 1 2 3, ...) are values.
    if start not in ("0", "1") or not _counting(first, at) or _counting(below[0], at):
        return False
    names = start == "0" and _are_names(first, below, at)
    again = any(row[j].strip() == first[j].strip() for row in below for j in at)
    if not names and (len(at) < 2 or len(at) < len(first) or again):
        return False
    taken = (
        ", as the names that pandas makes up, and is taken as such: if it is a row give --header no"
        if names
        else " and is taken as a row: if it names them give --header yes"
    )
    warnings.warn(
        f"{path}: the first line counts the columns ({start} to {first[at[-1]].strip()}){taken}",
        stacklevel=2,
    )
    return names


def _counting(row, at):
    """Is every one of the cells of a row one more than the one before?"""
    cells = [row[j].strip() for j in at]
    start = cells[0]
    if not start.isdecimal() or len(start) > 9:
        return False
    return cells == [str(int(start) + k) for k in range(len(cells))]


def _are_names(first, below, at):
    """Fewer than three such names are some over fractions alone, or beside an index, alone."""
    if len(at) >= PANDAS_ROWS:
        return True
    if not first[0].strip() and [row[0].strip() for row in below] == [*map(str, range(len(below)))]:
        return True
    fractions = all(re.search("[.,]", row[j]) for row in below for j in at if row[j].strip())
    return fractions and len(at) > 1


def distinct(names):
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
