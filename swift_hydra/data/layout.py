"""The lines of a text file, and their rows of cells."""

import collections
import csv
import itertools
import re

from swift_hydra.data.reading import composed
from swift_hydra.settings import InputError, tell

SPACE = " "  # the separator if any number of spaces separates cells
LONGEST_LINE = 2**26  # characters
PEEKED = 2**17  # characters looked ahead
MARKS = "\ufeff\u00ef\u00bb\u00bf"  # the byte order mark, and how cp1252 shows that of UTF-8
DOS_END = "\x1a"  # Ctrl-Z, which old programs write after the last line or pad a file with
END = "\x00end\x00"  # a line after the last one: an open quote swallows it
# A cell may be as long as a line; csv has one limit for the whole process.
csv.field_size_limit(max(csv.field_size_limit(), LONGEST_LINE))


class Lines:
    """Iterates over the lines of an open text file, each of bounded length, and can look ahead.

    Attributes:
        broken: the first line that ends with a carriage return alone after lines that do not, or
            None: most likely it is part of a cell.

    Raises:
        InputError: while it is read, for a line longer than ``LONGEST_LINE``.
    """

    def __init__(self, file, path):
        self.broken = None
        self._rest = self._bounded(file, path)
        self._ahead = collections.deque()

    def __iter__(self):
        while self._ahead:
            yield self._ahead.popleft()
        yield from self._rest

    def peek(self, n):
        """At most n of the next lines, fewer if they are very long, without consuming them."""
        size = sum(map(len, self._ahead))
        while len(self._ahead) < n and (size < PEEKED or len(self._ahead) < 2):
            line = next(self._rest, None)
            if line is None:
                break
            self._ahead.append(line)
            size += len(line)
        return list(itertools.islice(self._ahead, n))

    def skip(self):
        """Skip the next line, which must have been peeked at."""
        self._ahead.popleft()

    def _bounded(self, file, path):
        n, usual = 0, "\r"
        while line := file.readline(LONGEST_LINE):
            if line[0] in MARKS:  # at later lines too, since files may have been joined
                line = line.removeprefix(MARKS[1:]).lstrip(MARKS[0])
            n += 1
            if DOS_END in line and not line.strip(DOS_END + "\r\n"):
                return
            if len(line) >= LONGEST_LINE - 3 and line[-1] not in "\r\n":
                raise InputError(f"{path}: line {n} has no end: this is no table")
            if line:
                end = line[-1]
                if end == "\r" and usual == "\n" and self.broken is None:
                    self.broken = n
                usual = end if n == 1 else usual
                yield composed(line)


def stripped(line):
    """A line without spaces at its ends: as separators they would make empty cells."""
    return line.strip(" \r\n") + "\n"


def read_rows(lines, separator, passed, path):
    """Rows of cells; blank lines are skipped, but inside a table of one column they are gaps.

    Args:
        lines: a :class:`Lines` after :func:`data.separator.read_preamble`.
        separator: the character between cells.
        passed: number of lines before.
        path: the file, for messages.

    Yields:
        The number of a row's last line, and its cells.

    Raises:
        InputError: for a quote that is never closed or closed in the middle of another cell, and
            for a cell without an end.
    """
    if separator == SPACE:
        lines = map(stripped, lines)
    closed = []  # filled after the last line: whether that had a line end
    recent = []  # lines of the current row
    # A quote after a space still opens a quoted cell, and several spaces count as one.
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
            row = [cell.replace("\r\n", "\n") for cell in row]  # whatever line ends the file has
        written = recent[0].strip()
        recent.clear()
        if not row or (len(row) == 1 and not row[0].strip()):
            if width != 1:
                continue
            if not written:  # a line of "" is a gap, even at the end of the file
                blank.append(last)
                continue
        if blank:
            yield from ((line, [""]) for line in blank)
            blank.clear()
        width = width or len(row)
        yield last, row


def _refuse_swallowed(lines, width, separator, last, path):
    """Refuse quotes that join lines each of which is a row of as many cells.

    Two texts that begin with a quotation mark of their own, such as a quoted word, have this
    effect: the rows between them would be lost. If the quotes are valid CSV, only warn.
    """
    given = {"delimiter": separator, "skipinitialspace": True}
    plain = csv.reader(lines, quoting=csv.QUOTE_NONE, **given)
    if width <= 1 or not all(len(row) == width for row in plain):
        return
    joined = f"{path}: a quote joins lines {last - len(lines) + 1} to {last}, each of which "
    try:
        list(csv.reader(lines, strict=True, **given))
    except csv.Error:
        raise InputError(
            f"{joined}is a row of its own: a quote that is part of a text is written twice, "
            'inside of quotes: "a ""quoted"" word"'
        ) from None
    # Valid CSV: most likely a cell of several lines, such as an address.
    tell(f"{joined}could be a row of its own: they are taken as one")


def _with_end(lines, closed, recent):
    line = "\n"
    for line in lines:
        recent.append(line)
        yield line
    closed.append(line[-1:] in ("\r", "\n"))
    yield END
