"""A file becomes a checked :class:`Dataset` (M1); the splits and the scaler of ``splits.py`` are offered here as well.

    python dataloader.py                                   # a summary of the embedded set
    python dataloader.py 18_Ionosphere                     # a summary of a downloaded ADBench set
    python dataloader.py my.csv --label-column fraud       # ... of your own table
    python dataloader.py --download Ionosphere,Pima        # fetch ADBench sets
    python dataloader.py --download all --source URL       # fetch all of them from a mirror: URL/<file>.npz

Every mistake in a file raises :class:`config.InputError`, one line with the file, the column or key, the value found
and what to do about it.
"""

import contextlib
import csv
import dataclasses
import difflib
import hashlib
import itertools
import re
import sys
import zipfile
from pathlib import Path

import numpy as np
import scipy.sparse

from config import InputError, parse_config, run_main, setting
from splits import PROTOCOLS, Split, Standardizer, make_split

__all__ = [
    "DATASET_DIR",
    "DEFAULT_DATASET",
    "PROTOCOLS",
    "Dataset",
    "Split",
    "Standardizer",
    "check_features",
    "check_labels",
    "describe",
    "fingerprint",
    "load_dataset",
    "make_split",
    "resolve_dataset",
]

DEFAULT_DATASET = "47_yeast"
DATASET_DIR = Path(__file__).parent / "ADBenchDatasets"

MISSING = frozenset({"", "na", "n/a", "nan", "null", "none", "?"})
CHUNK = 65_536  # text rows held at once: Python strings take ten times the room of the numbers
SHOWN = 10  # columns or values listed in a message


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """A checked table.

    Attributes:
        name: the file's stem, for example ``47_yeast``.
        X: (n, d) float32, finite.
        y: (n,) int64, 0 = normal, 1 = anomaly, at least two anomalies and one normal row.
        columns: d names; ``x0, x1, ...`` where the file has none.
        path: the file it came from.
    """

    name: str
    X: np.ndarray
    y: np.ndarray
    columns: tuple[str, ...]
    path: Path


# ======================================================================================================================
# Names and files
# ======================================================================================================================


def resolve_dataset(spec):
    """Find the file behind a path or a name.

    Args:
        spec: an existing file, or a name looked for in ``DATASET_DIR``, case and number optional (``yeast``).

    Returns:
        The path of an existing file.

    Raises:
        InputError: a directory, a missing file, an ADBench set not yet downloaded, an unknown name.
    """
    path = Path(spec).expanduser()
    if path.is_file():
        return path
    from download import catalogue  # here and not above: download.py takes DATASET_DIR from this module

    stem = path.name[:-4] if path.suffix.lower() == ".npz" else path.name
    known, bare = catalogue(), len(path.parts) == 1
    if bare:
        local = {alias: file for file in sorted(DATASET_DIR.glob("*.npz")) for alias in _aliases(file.stem)}
        if stem.casefold() in local:
            return local[stem.casefold()]
    if path.is_dir():
        raise InputError(f"{spec} is a directory: name one .npz or .csv file in it")
    files = known.get(stem.casefold(), ())
    if len(files) > 1:
        names = [Path(f).stem for f in files]
        raise InputError(
            f"dataset {spec!r} is {len(files)} files: name one of {_listed(names)} "
            f"(download: python dataloader.py --download {stem})"
        )
    if files:
        where = "is not downloaded" if bare else "does not exist"
        raise InputError(f"{spec} {where}: run python dataloader.py --download {Path(files[0]).stem}")
    if not bare or path.suffix.lower() in (".npz", ".csv"):
        raise InputError(f"{spec} does not exist: check the path")
    names = {Path(f).stem for group in known.values() for f in group} | {f.stem for f in DATASET_DIR.glob("*.npz")}
    folded = {alias: name for name in sorted(names) for alias in _aliases(name)}
    close = list(dict.fromkeys(folded[c] for c in difflib.get_close_matches(stem.casefold(), folded, n=5, cutoff=0.6)))
    hint = f"did you mean {', '.join(close)}?" if close else "ADBenchDatasets/README.md lists the names"
    raise InputError(f"dataset {spec!r} is neither a file nor a known name: {hint}")


def _aliases(stem):
    """``47_yeast`` answers to ``47_yeast`` and ``yeast``."""
    return {stem.casefold(), re.sub(r"^\d+_", "", stem).casefold()}


def _listed(values):
    values = list(values)
    return ", ".join(map(str, values[:SHOWN])) + (f", ... ({len(values)} in all)" if len(values) > SHOWN else "")


def load_dataset(spec, label_column=None):
    """Read and check a table.

    Args:
        spec: a path or a name, see :func:`resolve_dataset`. ``.npz`` needs ``X`` (n, d) and ``y`` (n,) or (n, 1);
            ``.csv`` may have a header row and separates cells by comma, semicolon or tab.
        label_column: the name of a CSV's label column; None takes the last one.

    Returns:
        A :class:`Dataset`.

    Raises:
        InputError: whatever is wrong with the file or its content.
    """
    path = resolve_dataset(spec)
    kind = path.suffix.lower()
    if kind not in (".npz", ".csv"):
        raise InputError(f"{path}: the suffix {kind!r} is unknown: give an .npz with X and y or a .csv")
    if kind == ".npz" and label_column is not None:
        raise InputError(f"{path}: label_column={label_column!r} is for .csv files: an .npz has its labels in y")
    X, y, columns, lines = (*_read_npz(path), None, None) if kind == ".npz" else _read_csv(path, label_column)
    X = check_features(X, columns, path, lines)
    if y.ndim and len(X) != len(y):
        raise InputError(f"{path}: X has {len(X)} rows and y has {len(y)} labels: they must be of one length")
    y = check_labels(y, path)
    columns = tuple(columns) if columns else tuple(f"x{j}" for j in range(X.shape[1]))
    return Dataset(path.stem, X, y, columns, path)


def _read_npz(path, keys=("X", "y")):
    try:
        with open(path, "rb") as handle:  # is_zipfile on a path takes a file without read permission for a damaged one
            is_archive = zipfile.is_zipfile(handle)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    if not is_archive:
        raise InputError(f"{path} is no npz archive (damaged or of another format): write it with numpy.savez")
    arrays, key = {}, None
    try:
        with np.load(path, allow_pickle=False) as archive:
            for key in keys:
                if key not in archive.files:
                    raise InputError(
                        f"{path}: key {key!r} is missing, the keys present are {archive.files}: save X and y"
                    )
                arrays[key] = archive[key]
                if not isinstance(arrays[key], np.ndarray):  # a member that is no .npy file comes back as bytes
                    raise InputError(f"{path}: key {key!r} is no array: write the file with numpy.savez")
                if arrays[key].dtype.kind == "U" and arrays[key].dtype.itemsize:
                    text = arrays[key].astype(arrays[key].dtype.newbyteorder("=")).reshape(-1)
                    if (text.view(np.uint32) > sys.maxunicode).any():  # numpy reads it, Python then breaks on it
                        raise InputError(f"{path}: key {key!r} holds text that is no Unicode: write the file again")
    except InputError:
        raise
    except Exception as error:  # numpy parses an array's header as Python text: SyntaxError, MemoryError, anything
        if key is not None and "allow_pickle" in str(error):
            raise InputError(
                f"{path}: key {key!r} holds pickled Python objects, which are not read since they can run code: "
                "save plain number arrays"
            ) from error
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:160]
        raise InputError(f"{path} is a damaged npz archive ({reason}): fetch or write it again") from error
    return list(arrays.values())


def _number(cell):
    """The float in a cell, NaN for a missing one, None for text."""
    cell = cell.strip()
    if cell.casefold() in MISSING:
        return float("nan")
    try:
        return None if "_" in cell else float(cell)
    except ValueError:
        return None


def _has_header(first, second):
    """True where some column has text above a number, or the first row has no number at all."""
    top = [_number(c) for c in first]
    if second is None or len(second) != len(first):
        return all(t is None for t in top)
    below = [_number(c) for c in second]
    return all(t is None or t != t for t in top) or any(
        t is None and b is not None for t, b in zip(top, below, strict=True)
    )


@contextlib.contextmanager
def _csv_table(path):
    """Open a .csv: its header (a list of names, or None) and an iterator of (line number, cells) over its rows."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as handle:
            head = handle.readline()
            handle.seek(0)
            reader = csv.reader(handle, delimiter=max(",;\t", key=head.count))
            table = ((reader.line_num, row) for row in reader if row and (len(row) > 1 or row[0].strip()))
            start = list(itertools.islice(table, 2))
            if not start:
                raise InputError(f"{path} is empty: give a table with at least one row")
            first = start[0][1]
            header = _has_header(first, start[1][1] if len(start) > 1 else None)
            names = [c.strip() or f"x{j}" for j, c in enumerate(first)] if header else None
            yield names, itertools.chain(start[header:], table)
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is no UTF-8 text (byte {error.start}): save it as CSV UTF-8") from error
    except csv.Error as error:
        raise InputError(f"{path} is no readable CSV ({error}): save it as plain CSV UTF-8") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error


def _read_csv(path, label_column):
    """Features (n, d) float64 with NaN for missing cells, labels as text, d names, n line numbers (from 1)."""
    blocks, rows, labels, lines = [], [], [], []
    with _csv_table(path) as (header, table):
        first = next(table, None)
        columns = header or [f"x{j}" for j in range(len(first[1]))]
        label = _label_index(path, columns, label_column)
        names = columns[:label] + columns[label + 1 :]
        for line, row in itertools.chain([first] if first else [], table):
            if len(row) != len(columns):
                raise InputError(
                    f"{path}: line {line} has {len(row)} cells, the first line has {len(columns)}: mend it"
                )
            labels.append(row.pop(label).strip())
            rows.append(row)
            lines.append(line)
            if len(rows) == CHUNK:
                blocks.append(_parse(rows, names, path, lines[-len(rows) :]))
                rows = []
    if rows:
        blocks.append(_parse(rows, names, path, lines[-len(rows) :]))
    X = np.concatenate(blocks) if blocks else np.empty((0, len(names)))
    return X, np.array(labels, dtype=str), names, lines


def stream_rows(path, columns, d, id_column=None, block=65536):
    """The rows of a table that is to be scored, block by block.

    Args:
        path: a .csv or .parquet, read in pieces, or an .npz with ``X`` (its ``y`` is not read).
        columns: the d names of the training table, or None. With a header (and always from Parquet) columns are found
            by name, in any order, others are ignored; without one there must be d columns, in the training's order.
        id_column: name of the column that holds the rows' ids, or None for their numbers.

    Yields:
        X (n, d) float32 and n ids.

    Raises:
        InputError: missing columns, text, missing values and whatever else is wrong with the file.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise InputError(f"{path} does not exist: check the path")
    kind = path.suffix.lower()
    if kind == ".npz":
        if id_column is not None:
            raise InputError(f"{path}: id_column={id_column!r} is for .csv and .parquet files")
        pieces = _npz_pieces(path, block)
    elif kind == ".csv":
        pieces = _csv_pieces(path, columns, id_column, block)
    else:
        raise InputError(f"{path}: the suffix {kind!r} is unknown: give a .csv or an .npz with X")
    start = 0
    for X, ids, lines in pieces:
        X = check_features(X, columns, path, lines)
        if X.shape[1] != d:
            raise InputError(f"{path}: there are {X.shape[1]} columns, the detector was trained on {d}: give the same")
        yield X, range(start, start + len(X)) if ids is None else ids
        start += len(X)
    if not start:
        raise InputError(f"{path}: holds no row to score")


def _npz_pieces(path, block):
    X = _read_npz(path, ("X",))[0]
    for start in range(0, len(X), block):
        yield X[start : start + block], None, None


def _csv_pieces(path, wanted, id_column, block):
    """Features (n, d) float64, ids or None, line numbers of a .csv, ``block`` rows at a time."""
    with _csv_table(path) as (header, table):
        place = None if id_column is None else _column(path, header, id_column, "id column")
        if header is not None and wanted is not None and set(wanted) <= set(header):
            keep = [_column(path, header, name, "column") for name in wanted]
        elif header is not None and wanted is not None and not set(wanted) & set(header):
            keep = None  # a training table without names, or another header
        elif header is not None and wanted is not None:
            missing = [name for name in wanted if name not in header]
            raise InputError(f"{path}: column {_listed(map(repr, missing))} of the training table is missing: add it")
        else:
            keep = None
        names, width = wanted, None
        while piece := list(itertools.islice(table, block)):
            rows, ids, lines = [], [], []
            for line, row in piece:
                width = width or len(row)
                if len(row) != width:
                    raise InputError(
                        f"{path}: line {line} has {len(row)} cells, the lines before have {width}: mend it"
                    )
                if place is not None:
                    ids.append(row[place])
                rows.append([row[j] for j in keep] if keep else [c for j, c in enumerate(row) if j != place])
                lines.append(line)
            names = names if names and len(names) == len(rows[0]) else [f"x{j}" for j in range(len(rows[0]))]
            yield _parse(rows, names, path, lines), ids if place is not None else None, lines


def _column(path, header, name, what):
    if header is None or header.count(name) != 1:
        state = "is there more than once" if header and name in header else "is not there"
        columns = f"the columns are {_listed(header)}" if header else "the file has no header"
        raise InputError(f"{path}: {what} {name!r} {state}: {columns}")
    return header.index(name)


def _label_index(path, columns, label_column):
    if label_column is None:
        return len(columns) - 1
    if columns.count(label_column) != 1:
        state = "is there more than once" if label_column in columns else "is not there"
        raise InputError(f"{path}: label column {label_column!r} {state}: the columns are {_listed(columns)}")
    return columns.index(label_column)


def _parse(rows, names, source, lines):
    """Text cells (n, d) to float64; the first cell that is no number is an InputError."""
    try:
        return np.array(rows, dtype=np.float64).reshape(len(rows), len(names))
    except ValueError:  # a missing or a text cell somewhere: the slow way finds out which
        out = np.empty((len(rows), len(names)))
    for i, row in enumerate(rows):
        for j, cell in enumerate(row):
            value = _number(cell)
            if value is None:
                raise InputError(
                    f"{source}: column {names[j]!r} holds text, first {cell.strip()[:40]!r} in {_place(i, lines)}: "
                    "encode it as numbers or drop the column"
                )
            out[i, j] = value
    return out


def _place(i, lines):
    return f"row {i} (counted from 0)" if lines is None else f"line {lines[i]}"


# ======================================================================================================================
# Checks
# ======================================================================================================================


def check_features(X, columns=None, source="X", lines=None):
    """Check a feature table and cast it to float32, before any arithmetic (M1): uint8 files would wrap.

    Args:
        X: (n, d) array-like.
        columns: d names, or None for ``x0, x1, ...``.
        source: the file, or what the messages shall call the table.
        lines: n line numbers of a text file, or None to count rows from 0.

    Returns:
        (n, d) float32, finite, C-contiguous.

    Raises:
        InputError: not 2-D, no row, no column, text, another type than numbers, NaN, infinity (also by overflow).
    """
    if scipy.sparse.issparse(X):
        raise InputError(f"{source}: sparse input is not supported: give a dense array, such as X.toarray()")
    X = np.asarray(X)
    if X.ndim != 2:
        hint = ". Reshape your data: X.reshape(-1, 1) for one feature, X.reshape(1, -1) for one row" * (X.ndim == 1)
        raise InputError(f"{source}: X has shape {X.shape}: it must be 2-D, (rows, features){hint}")
    if len(X) == 0:
        raise InputError(f"{source}: X has no row: give at least a few normal rows and two anomalies")
    if X.shape[1] == 0:
        raise InputError(
            f"{source}: 0 feature(s) (shape={X.shape}) while a minimum of 1 is required: there is no feature column "
            "beside the labels"
        )
    names = list(columns) if columns else [f"x{j}" for j in range(X.shape[1])]
    if X.dtype.kind in "OUS":
        X = _parse(
            [[c.decode(errors="replace") if isinstance(c, bytes) else str(c) for c in row] for row in X],
            names,
            source,
            lines,
        )
    if X.dtype.kind == "c":
        raise InputError(f"{source}: Complex data not supported: X has dtype {X.dtype}, give real numbers")
    if X.dtype.kind not in "biuf":
        raise InputError(f"{source}: X has dtype {X.dtype}: give real numbers")
    with np.errstate(over="ignore"):  # an overflow becomes infinity and is named below
        cast = np.ascontiguousarray(X, dtype=np.float32)
    if not np.isfinite(cast).all():
        nan = np.isnan(cast)
        bad, what = (nan, "missing values (NaN)") if nan.any() else (np.isinf(cast), "infinite values")
        which = np.flatnonzero(bad.any(axis=0))
        row = int(np.flatnonzero(bad.any(axis=1))[0])
        value = X[row, np.flatnonzero(bad[row])[0]]
        found = "" if nan.any() else f" ({float(value):g}; float32 ends at 3.4e38)"
        raise InputError(
            f"{source}: {int(bad.sum())} {what} in column {_listed(repr(names[j]) for j in which)}, "
            f"first in {_place(row, lines)}{found}: fill or drop them"
        )
    return cast


def check_labels(y, source="y", least=2):
    """Check labels and cast them to int64.

    Args:
        y: (n,) or (n, 1) array-like of 0 (normal) and 1 (anomaly).
        source: the file, or what the messages shall call the labels.
        least: anomalies needed. A table needs two, one for each side of a split; a training part can have one.

    Returns:
        (n,) int64.

    Raises:
        InputError: not 1-D, other values than 0 and 1, one class only, fewer than ``least`` anomalies.
    """
    y = np.asarray(y)
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim != 1:
        raise InputError(f"{source}: y has shape {y.shape}: it must be 1-D, one label per row")
    if y.dtype.kind not in "biufOUS":
        raise InputError(f"{source}: the labels have dtype {y.dtype}: recode them as 0 (normal) and 1 (anomaly)")
    if y.dtype.kind == "S":
        y = np.char.decode(y, "utf-8", "replace")
    try:
        values = y.astype(np.float64)
        wrong = not np.isin(values, (0.0, 1.0)).all()
    except (ValueError, TypeError):
        values, wrong = y.astype(str), True
    if wrong:
        found = _listed(f"{v:g}" if isinstance(v, float) else v for v in np.unique(values).tolist())
        raise InputError(f"{source}: the labels are {found}: recode them as 0 (normal) and 1 (anomaly)")
    n_anomalies = int(values.sum())
    if n_anomalies in (0, len(values)):
        only = "0: there is no anomaly" if n_anomalies == 0 else "1: there is no normal row"
        raise InputError(f"{source}: all {len(values)} labels are {only}, give both classes")
    if n_anomalies < least:
        raise InputError(f"{source}: there is 1 anomaly among {len(values)} rows: at least {least} are needed")
    return values.astype(np.int64)


def fingerprint(X, y):
    """SHA256 (hex) of shapes and values, little-endian: tells whether a checkpoint belongs to this table.

    Args:
        X: (n, d), taken as float32.
        y: (n,), taken as int64.
    """
    X, y = np.ascontiguousarray(X, dtype="<f4"), np.ascontiguousarray(y, dtype="<i8")
    digest = hashlib.sha256(f"{X.shape} {y.shape}".encode())
    digest.update(X)
    digest.update(y)
    return digest.hexdigest()


def describe(X, y):
    """Counts of a table as a dict; ``duplicates`` are rows whose features equal an earlier row's."""
    X = np.asarray(X, dtype=np.float32) + np.float32(0)  # -0.0 becomes 0.0, the two are one value
    seen = {hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in X}
    return {
        "rows": len(X),
        "features": X.shape[1],
        "anomalies": int(np.sum(y)),
        "duplicates": len(X) - len(seen),
        "constant_columns": int((X == X[0]).all(axis=0).sum()),
    }


# ======================================================================================================================
# Command line
# ======================================================================================================================


@dataclasses.dataclass
class Options:
    """Settings of ``python dataloader.py``."""

    dataset: str = setting(DEFAULT_DATASET, "an .npz, a .csv or an ADBench name", positional=True)
    label_column: str | None = setting(None, "name of a .csv's label column; none takes the last column")
    download: str | None = setting(None, "ADBench names to fetch, separated by commas, or all")
    source: str | None = setting(None, "mirror to download from: files are taken from SOURCE/<file>.npz")


def main(argv=None):
    """Print a summary of a dataset, or download some."""
    options = parse_config(Options, "Summarise a dataset, or download ADBench sets.", argv)
    if options.download is not None:
        from download import download

        download(options.download, options.source)
        return
    data = load_dataset(options.dataset, options.label_column)
    facts = describe(data.X, data.y)
    print(f"{data.name} ({data.path})")
    print(f"rows              {facts['rows']}")
    print(f"features          {facts['features']}")
    print(f"anomalies         {facts['anomalies']} ({100 * facts['anomalies'] / facts['rows']:.2f} %)")
    print(f"duplicate rows    {facts['duplicates']} (a random split can put copies on both sides)")
    print(f"constant columns  {facts['constant_columns']}")
    print(f"dtype             {data.X.dtype}")
    print(f"fingerprint       {fingerprint(data.X, data.y)[:16]}")


if __name__ == "__main__":
    run_main(main)
