"""Tables in files, .npz, .csv and .parquet, read whole or piece by piece.

:func:`read_table` reads a labelled table, :func:`stream_table` rows to score; ``formats.py``
and ``text_files.py`` read the file formats.

Shapes: n rows, d columns.
"""

import collections
import dataclasses
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from swift_hydra.data.cells import CellParser, Held, find_codes, say_of_codes
from swift_hydra.data.formats import ParquetFile, open_table, read_npz, suffix_of
from swift_hydra.data.frames import as_known, as_text
from swift_hydra.data.header import TrainingHeader, shown
from swift_hydra.data.reading import COMMA, MISSING, Reading, number
from swift_hydra.data.subjects import numbers_of
from swift_hydra.data.table import Table, as_table, made_up_names
from swift_hydra.data.text_files import PEEKED_ROWS, PIECE_ROWS
from swift_hydra.files import looked_at
from swift_hydra.settings import InputError, changed, listed, place_of, tell

COPY = re.compile(r"\.\d+$")  # the suffix of a repeated name, see header.distinct
OF_TEXT = {".npz": ("decimal", "encoding", "header"), ".parquet": ("encoding", "header")}
COUNTRY = re.compile("[A-Z]{2}")  # Namibia's code is NA
SAID = 3  # most names in another case that a message lists
NO_LABEL = "none"  # in place of a label column's name: the table has no labels


class Labelled(NamedTuple):
    """A labelled file."""

    table: Table  # unchecked values
    labels: np.ndarray  # (n,) numbers or texts
    label: str  # name of their column, or y
    problems: list  # texts that say what is wrong with cells


def _labelled_npz(path, label_column, drop, texts, reading, dates, group_column):
    """:func:`read_table` of an .npz."""
    if group_column in ("X", "y"):
        raise InputError(
            f"{path}: group_column={group_column!r} holds the rows or their labels: name another"
        )
    unlabelled = label_column == NO_LABEL
    asked = (("drop_columns", drop), ("label_column", None if unlabelled else label_column))
    for name, value in asked:
        if value:
            raise InputError(
                f"{path}: {name}={value!r} is for .csv and .parquet files: an .npz has X and y: "
                "leave columns out of its X"
            )
    keys = ["X", *([] if unlabelled else ["y"]), *([] if group_column is None else [group_column])]
    arrays = dict(zip(keys, read_npz(path, keys), strict=True))
    table = _table_of_npz(path, arrays["X"], texts, reading, dates)
    table = _of_subjects(table, [arrays.get(group_column)], group_column, reading)
    if unlabelled:
        return Labelled(table, np.full(len(table), -1.0), NO_LABEL, [])
    return Labelled(table, arrays["y"], "y", [])


def _of_subjects(table, groups, group_column, reading):
    """The table with its rows' subjects, read from pieces of the group column if there is one."""
    if group_column is None:
        return table
    where = f"{table.source}: group column {group_column!r}"
    groups = groups[0] if len(groups) == 1 else [cell for piece in groups for cell in piece]
    subjects = numbers_of(groups, len(table), where, table.lines, reading.label_gaps())
    return dataclasses.replace(table, subjects=subjects)


def _table_of_npz(path, X, texts, reading, dates):
    table = as_table(X, texts or (), path, dates=dates, reading=reading)
    return dataclasses.replace(table, reading=reading.remembered(None, None))


def _place_of_labels(file, label_column, dropped, of_subjects=()):
    """Number of the label column: the named one, or the last that is not left out."""
    left = set(range(file.width)) - set(file.indexes) - dropped - set(of_subjects)
    if not left:
        out = "group_column and drop_columns" if of_subjects else "drop_columns"
        raise InputError(f"{file.path}: {out}: no column is left: leave fewer out")
    last = max(left)
    if label_column == NO_LABEL:
        return last
    if label_column is None:  # if the last column's name is repeated, file.column refuses it
        name = file.names()[last]
        label_column = next((other for other in file.repeated if _is_copy(name, other)), None)
    label = last if label_column is None else file.column(label_column, "label column")
    if label in dropped:
        raise InputError(
            f"{file.path}: column {label_column!r} is the label column and in drop_columns too: "
            "name another label column, or none"
        )
    if label in of_subjects:
        raise InputError(
            f"{file.path}: column {label_column!r} is the label column and the group column too: "
            "name another of either"
        )
    return label


def _refuse_unparted(file):
    """Refuse a file with a single column whose name contains what may be a separator."""
    name = file.names()[0]
    if isinstance(file, ParquetFile) or file.width > 1:
        return
    if re.search(r"[^\w .()[\]?-]| {2}", name):
        next(file.pieces([0], 1), None)  # raises if lines below have more cells: it is a title
        raise InputError(
            f"{file.path}: nothing parts the cells of its first line, {name[:40]!r}: part them "
            "with commas, semicolons, tabs or |, without quotes around a whole line, or write what "
            "parts them into a line above, as in sep=~"
        )


def _say_of_columns(file, unlabelled, out):
    """Warn of columns that are left out as an index, or kept though they look like one."""
    path, names = file.path, file.names()
    if unlabelled and NO_LABEL in names:
        tell(
            f"{path}: label column {NO_LABEL!r} says that there is no label, and the column of "
            "that name is learned from: rename it if it is the label",
        )
    for j in file.indexes:
        if j in out:
            continue
        told = j in file.told
        what = "is the" if told else "has no name, as the"
        remedy = "reset_index() before it is written" if told else "give it a name"
        tell(
            f"{path}: column {j + 1} ({names[j]!r}) {what} row index that pandas writes: it is "
            f"left out (to keep it, {remedy})",
        )
    if file.kept is not None and file.kept not in out:
        name = names[file.kept]
        tell(
            f"{path}: column {file.kept + 1} has no name, but fractions, as a row index "
            f"hardly has: it is kept as {name!r} (to leave it out, --drop-columns '{name}')",
        )


def _refuse_of_text(path, reading):
    """Refuse settings of text files for other files (Parquet takes ``decimal``: it has texts)."""
    for name, value in changed(reading, OF_TEXT.get(suffix_of(path), ())):
        raise InputError(f"{path}: {name}={value!r} is for text files: leave it out")


def read_table(
    path, label_column=None, drop=(), texts=False, reading=None, dates=False, group_column=None
):
    """Read the features and labels of a file.

    Args:
        path: an existing .npz, text file or .parquet.
        label_column: None takes the last column; with ``NO_LABEL`` there is none, and all labels
            are -1. An .npz allows no other name.
        drop: names of columns to leave out.
        texts: False refuses text.
        reading: a :class:`data.reading.Reading`, or None for the defaults.
        dates: take dates as days since 1970.
        group_column: name of the column, or of the array of an .npz, that names each row's subject
            (a patient, a machine), or None.

    Returns:
        :class:`Labelled`.

    Raises:
        InputError: the file or its content is unusable.
    """
    reading = reading or Reading()
    _refuse_of_text(path, reading)
    if path.suffix.lower() == ".npz":
        return _labelled_npz(path, label_column, drop, texts, reading, dates, group_column)
    unlabelled = label_column == NO_LABEL
    file = open_table(path, reading, dates)
    names = file.names()
    if not unlabelled:
        _refuse_unparted(file)
    out = {file.column(name, "drop_columns:") for name in drop}
    of_subjects = [] if group_column is None else [file.column(group_column, "group column")]
    label = _place_of_labels(file, label_column, out, of_subjects)
    out |= set(of_subjects) if unlabelled else {label, *of_subjects}
    _say_of_columns(file, unlabelled, out)
    out |= set(file.indexes)
    keep = [j for j in range(len(names)) if j not in out]
    columns = [names[j] for j in keep]
    file.look_at(keep if unlabelled else [*keep, label])
    file.say_of_points(keep)
    parse = CellParser(columns, path, file.texts(keep, dates) if texts else (), file.reads(), dates)
    X, labels, groups, lines = _cells_of(file, parse, (keep, of_subjects, label))
    table = Table(
        X,
        columns,
        parse.texts(),
        source=path,
        lines=lines,
        named=file.header is not None,
        reading=file.remembered,
        dated=parse.dated_columns(),
        categories=file.number_categories(keep),
    )
    table = _of_subjects(table, groups, group_column, reading)
    _say_of_words(parse, reading, X)
    problems = [*file.problems.values(), *parse.all_problems()]
    if unlabelled:
        return Labelled(table, np.full(len(table), -1.0), NO_LABEL, problems)
    return Labelled(table, labels, names[label], problems)


def _say_of_words(parse, reading, X):
    """Warn of gaps that may be texts, and of texts that may be gaps.

    A fireplace's quality is None, a country's code NA; and whoever names a gap of the table leaves
    the usual ones to the texts.
    """
    if reading.missing is not None:
        _say_of_usual_gaps(parse, reading, X)
        return
    for word, found in parse.gap_words.items():
        meant = [j for j in sorted(found) if word != "NA" or _are_codes(parse.vocabulary[j])]
        if meant:
            columns = listed(f"{parse.names[j]!r} ({found[j]} rows)" for j in meant)
            tell(
                f"{parse.source}: column {columns}: {word!r} is taken for a gap: give --missing '' "
                "where it is a text"
            )


def _say_of_usual_gaps(parse, reading, X):
    """Warn of usual words for a gap that are texts of rows X (n, d), as --missing names others."""
    found = {}
    for j, known in parse.vocabulary.items() if reading.missing.strip() else ():
        for text, code in known.items():
            if text.casefold() in MISSING:
                n = int((X[:, j] == code).sum())
                found.setdefault(text, []).append(f"{n} of column {parse.names[j]!r}")
    if found:
        cells = "; ".join(f"{text!r} ({listed(where)})" for text, where in found.items())
        words = ",".join(found)
        tell(
            f"{parse.source}: {cells} is taken as a text, since --missing names other gaps: if it "
            f"is one give --missing='{reading.missing},{words}'"
        )


def _are_codes(words):
    """Are all of these words two capital letters?"""
    return len(words) > 1 and all(map(COUNTRY.fullmatch, words))


def _cells_of(file, parse, which):
    """All rows of a file: numbers (n, d), labels (n,), pieces of groups, line numbers or None.

    Args:
        file: what :func:`data.formats.open_table` opened.
        parse: a :class:`data.cells.CellParser` of its d columns.
        which: a list of the numbers of these columns, a list with the number of the group column
            or nothing, and the number of the label column.
    """
    keep, of_subjects, label = which
    blocks = [np.empty((0, len(keep)))]
    labels = [np.empty(0)]
    groups = []
    lines = []
    codes = {}
    for n, given, numbers in file.pieces([*keep, *of_subjects, label], PIECE_ROWS):
        cells = file.cells(given[: len(keep)], keep)
        find_codes(cells, parse.vocabulary, codes, thorough=not lines)
        blocks.append(parse(n, cells, numbers))
        groups += [file.ids(given[len(keep)])] if of_subjects else []
        last = file.labels(given[-1], label)
        if not isinstance(last, np.ndarray):
            last = np.array([_label_text(cell, file.decimal) for cell in last], dtype=object)
        labels.append(last)
        lines.append(numbers)
    codes = {j: code for j, code in codes.items() if j not in parse.problems}
    say_of_codes(codes, parse.names, file.path)
    lines = None if isinstance(file, ParquetFile) else [line for piece in lines for line in piece]
    labels = np.concatenate(labels[1:]) if len(labels) > 1 else labels[0]
    return np.concatenate(blocks), labels, groups, lines


def _label_text(cell, decimal):
    """A label's text; in a file with decimal commas that of ``1,0`` is 1."""
    text = as_text(cell)
    return as_text(number(text, ",")) if decimal == "," and COMMA.fullmatch(text) else text


class How(NamedTuple):
    """How a table that is to be scored is read."""

    reading: Reading = Reading()  # the user's settings
    dates: bool = False  # take dates as days since 1970
    training: dict | None = None  # how the training table was read, see :meth:`Reading.remembered`
    named: bool | None = None  # the training table's names are not made up; None: not known
    held: Held = Held(dated=None)  # what the training's columns held


def stream_table(path, columns, d, texts=(), id_column=None, size=PIECE_ROWS, how=None):
    """The rows of a table that is to be scored, piece by piece.

    Args:
        path: a text file or .parquet, read in pieces, or an .npz with ``X`` (its ``y`` is not
            read).
        columns: the d names of the training table, or None. If the file has a header (Parquet
            always has), columns are found by name, in any order, and others are ignored; otherwise
            there must be d columns in the training's order.
        d: number of columns.
        texts: numbers of the training table's text columns.
        id_column: name of the column that holds the rows' ids, or None for their numbers.
        size: most rows of a piece.
        how: a :class:`How`, or None for the defaults.

    Yields:
        A :class:`Table` of d columns, and its rows' ids.

    Raises:
        InputError: a column is missing, a column of numbers holds text, or the file is unusable in
            another way.
    """
    path = Path(place_of(path))
    with looked_at(path):
        there, is_file = path.exists(), path.is_file()
    if not is_file:
        state = "is no regular file: give one" if there else "does not exist: check the path"
        raise InputError(f"{path} {state}")
    how = how or How()
    _refuse_of_text(path, how.reading)
    reading = how.reading.after(how.training)
    if path.suffix.lower() == ".npz":
        if id_column is not None:
            raise InputError(f"{path}: id_column={id_column!r} is for .csv and .parquet files")
        pieces = _npz_pieces(path, columns, d, texts, size, how._replace(reading=reading))
    else:
        told = {j: set(of) for j, of in texts.items()} if isinstance(texts, dict) else {}
        header = (how.training or {}).get("header")
        n_others = int(id_column is not None)
        known = TrainingHeader(columns, header, told, n_others) if columns else None
        file = open_table(path, reading, how.dates, known)
        if how.reading.decimal is None and not (how.training or {}).get("commas_part_all"):
            file.forget_decimal()
        if file.width == 1 < d:
            # Raises if lines below have more cells: the first line is a title.
            next(file.pieces([0], PEEKED_ROWS), None)
        own = [] if id_column is None else [file.column(id_column, "id column")]
        keep = _columns_to_keep(file, columns, d, own, how.named)
        pieces = _text_pieces(file, columns, d, texts, (keep, own), size, how)
    empty = True
    for piece in pieces:
        empty = False
        yield piece
    if empty:
        raise InputError(f"{path}: holds no row to score")


def _npz_pieces(path, columns, d, texts, size, how):
    (X,) = read_npz(path, ("X",))
    if X.ndim != 2:
        as_table(X, source=path)  # raises
    _check_width(path, X.shape[1], d)
    for start in range(0, len(X), size):
        rows = X[start : start + size]
        piece = as_table(rows, texts, path, columns, how.dates, how.held, how.reading)
        yield piece, range(start, start + len(piece))


def _text_pieces(file, columns, d, texts, which, size, how):
    keep, own = which
    _check_width(file.path, len(keep), d)
    # Not in text columns: the points of versions and addresses are no decimal marks.
    file.look_at([j for number, j in enumerate(keep) if number not in (texts or ())])
    start = 0
    for n, given, numbers in file.pieces([*keep, *own], size):
        names = columns or made_up_names(d)
        reads = file.reads()
        parse = CellParser(names, file.path, texts, reads, how.dates, held=how.held)
        X = parse(n, file.cells(given[:d], keep), numbers)
        parse.refuse(file.path, [*file.problems.values(), *parse.all_problems()])
        ids = file.ids(given[-1]) if own else range(start, start + n)
        yield Table(X, columns, parse.texts(), file.path, numbers), ids
        start += n


def _columns_to_keep(file, columns, d, own, named=None):
    """Numbers of the file's columns that the training table had, in its order."""
    keep = _by_name(file, columns) if file.header and columns else None
    if keep is not None:
        _refuse_copies(file, keep)
        return keep
    # The training table or this one has no names, or none of them are shared.
    if named is None:  # an older checkpoint: judge by the names themselves
        named = columns != made_up_names(d)
    keep = [j for j in range(file.width) if j not in own and j not in file.indexes]
    if file.header and columns and named and len(keep) == d:  # other widths are refused later
        tell(
            f"{file.path}: none of its columns has a name of the training table: they are taken in "
            f"their order{_first_line_as_names(file)}",
        )
    return keep


def _by_name(file, columns):
    """Numbers of the columns with the training's names, or None if the file has none of them.

    Case is ignored if every name then matches exactly one column.
    """
    place = {name: j for j, name in enumerate(as_known(file.header, columns))}
    missing = [name for name in columns if name not in place]
    if not missing:
        return [place[name] for name in columns]
    places = collections.defaultdict(list)
    for j, name in enumerate(file.header):
        places[_loosely(name)].append(j)
    alike = [places.get(_loosely(name), []) for name in columns]
    if all(len(each) == 1 for each in alike) and len({each[0] for each in alike}) == len(columns):
        there = file.header[places[_loosely(missing[0])][0]]
        tell(
            f"{file.path}: names are written in another case than in training, first {there!r} for "
            f"{missing[0]!r}: they are taken as the same",
        )
        return [each[0] for each in alike]
    if len(missing) == len(columns):
        return None
    near = [(file.header[j], name) for name in missing for j in places.get(_loosely(name), [])]
    hint = "".join(f"; {there!r} is there: write it {name!r}" for there, name in near[:SAID])
    raise InputError(
        f"{file.path}: column {listed(map(repr, missing))} of the training table is missing: add "
        f"it{hint}"
    )


def _loosely(name):
    return name.strip().casefold()


def _first_line_as_names(file):
    """The end of a warning, if it was guessed that a text file's first line holds names."""
    if isinstance(file, ParquetFile) or file.reading.header != "auto":
        return ""
    return f", and its first line ({shown(file.header)}) as names: if it is a row give --header no"


def _refuse_copies(file, keep):
    """Refuse columns with one name, unless all of them are used, in the file's order."""
    copies_of = collections.defaultdict(set)
    for j, other in enumerate(file.header):
        for name in {other, COPY.sub("", other)} & file.repeated:
            copies_of[name].add(j)
    kept, in_order = set(keep), keep == sorted(keep)  # once: there may be thousands of copies
    for name, copies in sorted(copies_of.items()):
        if copies & kept and not (copies <= kept and in_order):
            raise InputError(
                f"{file.path}: column {name!r} is there more than once: give every column a name "
                "of its own"
            )


def _is_copy(other, name):
    return name in (other, COPY.sub("", other))


def _check_width(path, found, d):
    if found != d:
        more = ", without labels or groups" if found > d else ""
        raise InputError(
            f"{path}: there are {found} columns, the detector was trained on {d}: "
            f"give the same{more}"
        )
