"""Decide whether the first row of a text file names the columns.

Shapes: d columns.
"""

import itertools
import re
from typing import NamedTuple

from swift_hydra.data.cells import bool_number
from swift_hydra.data.frames import same_value
from swift_hydra.data.reading import days, form_of, is_number, numeric
from swift_hydra.data.table import made_up_names
from swift_hydra.settings import tell

SHOWN = 3  # cells of a line that a message quotes
COPIES = 0.05  # largest share of the rows that may repeat the line of names
PANDAS_ROWS = 3  # from this many columns on, 0, 1, 2, ... are taken as names, not as values


class TrainingHeader(NamedTuple):
    """What is known of the training table's header when another table is scored."""

    names: list | None  # d names of the training table
    header: str | None  # "yes" or "no": whether its file had one; None if that is not known
    texts: dict  # {number: texts} of its text columns
    n_others: int = 0  # columns needed beside the features, such as that of the rows' ids


def has_header(first, below, path, known=None, gaps=frozenset()):
    """Does the first row name the columns?

    A table to score is judged by its first row and the training table's header alone, if that is
    known, so that how a row is read does not depend on the rows beside it.

    Args:
        first: cells of the first row.
        below: the next rows.
        path: the file, for messages.
        known: a :class:`TrainingHeader` of the training table, or None.
        gaps: texts in lower case that stand for a gap.
    """
    below = [row for row in below if len(row) == len(first) and any(map(str.strip, row))]
    known_gaps = [_without(row, gaps) for row in (first, *below)]
    if known is None:
        return _names_columns(known_gaps[0], known_gaps[1:], path)
    cells = {cell.strip() for cell in distinct([cell.strip() for cell in first])}
    names = {name.strip() for name in known.names or ()}
    made_up = names == set(made_up_names(len(names)))
    if names and {name.casefold() for name in names} <= {cell.casefold() for cell in cells}:
        return True
    if known.header == "no":
        _say_of_unknown_texts(known_gaps[0], known, path)
        return False
    if known.header is None and (made_up or not names):
        return _names_columns(known_gaps[0], known_gaps[1:], path)
    if any(numeric(name) is None for name in names & cells):
        return True
    return not _is_row(first, known_gaps[0], known)


def _is_row(first, without, known):
    """Is the first line a row like those of the training table?

    It is if it holds a number, a bool, a date, a text that training knew in this column, or a gap
    anywhere but at the start, where an index has no name.

    Args:
        first: its cells.
        without: its cells, empty where the text stands for a gap.
        known: a :class:`TrainingHeader`.
    """
    named = itertools.dropwhile(lambda pair: not pair[0].strip(), zip(first, without, strict=True))
    gap = not any(without) or any(not cell.strip() for _, cell in named)
    known_text = any(_is_known(cell, known.texts.get(j, ())) for j, cell in enumerate(without))
    return gap or known_text or any(map(_is_value, without))


def _is_value(cell):
    """Is it a number, true or false, or a date?"""
    return is_number(cell) or bool_number(cell) is not None or days(cell) is not None


def _is_known(cell, texts):
    """Is a cell one of the training's texts in its column? Bools and numbers match by value."""
    cell = cell.strip()
    return cell in texts or same_value(cell) in map(same_value, texts)


def _say_of_unknown_texts(first, known, path):
    """Warn if the first line of a table of texts is taken as a row but may hold the names."""
    unknown = all(
        cell and numeric(cell) is None and j in known.texts and not _is_known(cell, known.texts[j])
        for j, cell in enumerate(first)
    )
    if unknown and len(first) > 1:
        tell(
            f"{path}: its first line ({shown(first)}) holds no text of the training table in any "
            "column and is taken as a row: if it names the columns give --header yes",
        )


def shown(cells):
    """The first few cells of a line, for messages."""
    few = ", ".join(repr(cell.strip()[:20]) for cell in cells[:SHOWN])
    return few + ", ..." * (len(cells) > SHOWN)


def _without(row, gaps):
    """A row with empty cells in place of texts that stand for a gap."""
    return ["" if cell.strip().casefold() in gaps else cell for cell in row]


def _names_columns(first, below, path):
    """:func:`has_header` without a training table."""
    below = _without_copies(first, below)
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
    # A text that recurs below is a value, and so is one of the same kind as its column's cells.
    below_too = [j for j in texts if first[j].strip() in columns[j]]
    of_kind = [j for j in texts if _is_of_kind(first[j], columns[j])]
    names = [j for j in texts if j not in below_too and j not in of_kind]
    if not numbers:
        is_header = 2 * len(names) >= len(texts)
        # A date above dates is a value, never a name.
        is_header = is_header and not any(_kind(first[j].strip()) == "day" for j in of_kind)
        _say_if_mixed(is_header, [first[j].strip() for j in (*below_too, *of_kind)], names, path)
        return is_header
    if len(names) == len(texts) and _runs(first, top, columns, names):
        tell(
            f"{path}: the numbers of the first line are no values of their columns, or go all up "
            "or down, as years do, and it is taken as names: if it is a row give --header no",
        )
        return True
    # A word above numbers suggests a header (- and $3 are no words). A fraction suggests a row,
    # unless the numbers ascend. A number that recurs below causes a warning.
    names = [j for j in names if re.search(r"[^\W\d_]", first[j]) and _mostly_numbers(columns[j])]
    values = [value for value in top if value is not None and value == value]
    ascending = len(values) >= 5 and all(a < b for a, b in itertools.pairwise(values))
    if ascending:
        return bool(names)
    again = [j for j, cell in enumerate(first) if is_number(cell) and cell.strip() in columns[j]]
    fractions = [j for j, value in enumerate(top) if value is not None and value % 1 > 0]
    if len(names) > len(fractions) and again:
        tell(
            f"{path}: the first line is taken as names, though numbers stand in it: if it is a row "
            "give --header no",
        )
    return len(names) > len(fractions)


def _without_copies(first, below):
    """The rows below without a few that repeat the first line, if that may name the columns.

    Joined files hold their line of names several times. If one of its cells occurs in the same
    column of another row, the first line is not taken for names, and all rows are returned.
    """
    top = [cell.strip() for cell in first]
    others = [row for row in below if [cell.strip() for cell in row] != top]
    n_copies = len(below) - len(others)
    if not others or n_copies > max(1, COPIES * len(below)):
        return below
    alike = any(cell and cell == row[j].strip() for row in others for j, cell in enumerate(top))
    return below if alike else others


def _runs(first, top, columns, names):
    """Are the numbers of the first row, beside the texts ``names``, names rather than values?

    They are if two of three conditions hold: all ascend or all descend; none lies within the range
    of its column (and, unless they ascend or descend, all are whole numbers above fractions); a
    text stands above few texts that recur often.
    """
    at = [j for j, cell in enumerate(first) if is_number(cell)]
    if len(at) < PANDAS_ROWS:
        return False
    steps = [b - a for a, b in itertools.pairwise(top[j] for j in at)]
    one_way = all(s > 0 for s in steps) or all(s < 0 for s in steps)
    above_few = any(len(set(columns[j])) <= max(len(columns[j]) / 5, 2) for j in names)
    if not (one_way or above_few):
        return False
    if one_way and above_few:
        return True
    unlike = one_way or all(top[j] % 1 == 0 and _mostly_fractions(columns[j]) for j in at)
    return unlike and not any(_is_within(top[j], columns[j]) for j in at)


def _numbers_of(column):
    return [value for cell in column if (value := numeric(cell)) is not None]


def _mostly_fractions(column):
    values = _numbers_of(column)
    return 2 * sum(value % 1 > 0 for value in values) > len(values)


def _is_within(value, column):
    """Is a number within its column's range, or the column without numbers?"""
    values = _numbers_of(column)
    return not values or min(values) <= value <= max(values)


def _say_if_mixed(is_header, values, names, path):
    """Warn if a first line of texts holds both cells like values and cells like names."""
    if not values or not names:
        return
    taken, other = ("names", "a row") if is_header else ("a row", "names")
    flag = "no" if is_header else "yes"
    tell(
        f"{path}: the first line is taken as {taken}, though {values[0][:40]!r} in it is like the "
        f"cells below and other cells are not: if it is {other} give --header {flag}"
    )


def _kind(cell):
    """The kind of a text that is a value, not a name: a date, a bool or a number with a unit."""
    if days(cell) is not None:
        return "day"
    return "bool" if bool_number(cell) is not None else form_of(cell)


def _is_of_kind(cell, column):
    """Is a cell of the same kind as most cells of its column?"""
    kind = _kind(cell.strip())
    return kind is not None and 2 * sum(_kind(other) == kind for other in column) > len(column)


def _mostly_numbers(cells):
    values = [numeric(cell) for cell in cells]
    values = [value for value in values if value is None or value == value]
    return bool(values) and 2 * sum(value is not None for value in values) > len(values)


def _counts(first, below, path):
    """Do the numbers of the first row count the columns from 0, like names made up by pandas?

    If they count from 0 or 1, a warning says how the row was taken, unless it looks like any other.
    """
    at = [j for j, cell in enumerate(first) if is_number(cell)]
    start = first[at[0]].strip() if at else None
    # If the next row counts too (0 1 2, then 1 2 3), both are values.
    if start not in ("0", "1") or not _counting(first, at) or _counting(below[0], at):
        return False
    names = start == "0" and _are_names(first, below, at)
    again = [any(row[j].strip() == first[j].strip() for row in below) for j in at]
    # No warning if the numbers occur in their columns: all of them (from 0), or any (from 1).
    usual = all(again) if start == "0" else any(again)
    if not names and (len(at) < 2 or len(at) < len(first) or usual):
        return False
    taken = (
        ", as the names that pandas makes up, and is taken as such: if it is a row give --header no"
        if names
        else " and is taken as a row: if it names them give --header yes"
    )
    tell(
        f"{path}: the first line counts the columns ({start} to {first[at[-1]].strip()}){taken}",
    )
    return names


def _counting(row, at):
    """Is each of these cells of a row one more than the one before?"""
    cells = [row[j].strip() for j in at]
    start = cells[0]
    if not start.isdecimal() or len(start) > 9:
        return False
    return cells == [str(int(start) + k) for k in range(len(cells))]


def _are_names(first, below, at):
    """Are numbers counting from 0 names? Three are; so are two above fractions, one by an index."""
    if len(at) >= PANDAS_ROWS:
        return True
    if not first[0].strip() and [row[0].strip() for row in below] == [*map(str, range(len(below)))]:
        return True
    fractions = all(re.search("[.,]", row[j]) for row in below for j in at if row[j].strip())
    return fractions and len(at) > 1


def distinct(names):
    """The names, with .1, .2, ... appended to repeated ones, as in pandas."""
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
