"""A file becomes a checked :class:`Dataset` (M1); the splits and the scaler of ``splits.py`` are offered here as well.

    python dataloader.py                                   # a summary of the embedded set
    python dataloader.py 18_Ionosphere                     # a summary of a downloaded ADBench set
    python dataloader.py my.csv --label-column fraud       # ... of your own table
    python dataloader.py --download Ionosphere,Pima        # fetch ADBench sets
    python dataloader.py --download all --source URL       # fetch all of them from a mirror: URL/<file>.npz

Every mistake in a file raises :class:`config.InputError`, one line with the file, the column or key, the value found
and what to do about it.
"""

import dataclasses
import difflib
import hashlib
import re
import warnings
from pathlib import Path

import numpy as np

from config import InputError, parse_config, run_main, setting
from preparation import CATEGORICAL, IMPUTE, Preparation
from splits import PROTOCOLS, Split, Standardizer, make_split
from tables import Table, check_features, listed, read_table

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


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """A checked table with labels.

    Attributes:
        name: the file's stem, for example ``47_yeast``.
        table: n rows as :class:`preparation.Preparation` takes them.
        X: (n, d) float32, finite: the rows prepared by all of them, for the split and for tables of plain numbers. What
            a model learns from is prepared by the training rows alone.
        y: (n,) int64, 0 = normal, 1 = anomaly, at least two anomalies and one normal row.
        columns: d names; ``x0, x1, ...`` where the file has none.
        path: the file it came from.
    """

    name: str
    table: Table
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
        raise InputError(f"{spec} is a directory: name one .npz, .csv or .parquet file in it")
    files = known.get(stem.casefold(), ())
    if len(files) > 1:
        names = [Path(f).stem for f in files]
        raise InputError(
            f"dataset {spec!r} is {len(files)} files: name one of {listed(names)} "
            f"(download: python dataloader.py --download {stem})"
        )
    if files:
        where = "is not downloaded" if bare else "does not exist"
        raise InputError(f"{spec} {where}: run python dataloader.py --download {Path(files[0]).stem}")
    if not bare or path.suffix.lower() in (".npz", ".csv", ".parquet"):
        raise InputError(f"{spec} does not exist: check the path")
    names = {Path(f).stem for group in known.values() for f in group} | {f.stem for f in DATASET_DIR.glob("*.npz")}
    folded = {alias: name for name in sorted(names) for alias in _aliases(name)}
    close = list(dict.fromkeys(folded[c] for c in difflib.get_close_matches(stem.casefold(), folded, n=5, cutoff=0.6)))
    hint = f"did you mean {', '.join(close)}?" if close else "ADBenchDatasets/README.md lists the names"
    raise InputError(f"dataset {spec!r} is neither a file nor a known name: {hint}")


def _aliases(stem):
    """``47_yeast`` answers to ``47_yeast`` and ``yeast``."""
    return {stem.casefold(), re.sub(r"^\d+_", "", stem).casefold()}


def load_dataset(spec, label_column=None, impute="refuse", categorical="refuse", drop_columns=None):
    """Read and check a table.

    Args:
        spec: a path or a name, see :func:`resolve_dataset`. ``.npz`` needs ``X`` (n, d) and ``y`` (n,) or (n, 1);
            ``.csv`` may have a header row and separates cells by comma, semicolon or tab; ``.parquet`` needs pyarrow.
        label_column: the name of the label column of a ``.csv`` or ``.parquet``; None takes the last one.
        impute, categorical: what happens to gaps and texts, see :class:`preparation.Preparation`.
        drop_columns: names of columns to leave out, separated by commas.

    Returns:
        A :class:`Dataset`.

    Raises:
        InputError: whatever is wrong with the file or its content.
    """
    path = resolve_dataset(spec)
    preparation = Preparation(impute, categorical)  # refuses unknown options before the file is read
    drop = [name.strip() for name in drop_columns.split(",")] if drop_columns else []
    table, y = read_table(path, label_column, drop, find_texts=categorical != "refuse")
    X = preparation.fit(table).transform(table)
    if y.ndim and len(X) != len(y):
        raise InputError(f"{path}: X has {len(X)} rows and y has {len(y)} labels: they must be of one length")
    y = check_labels(y, path)
    plain = not table.texts and np.isfinite(table.X).all()
    table = dataclasses.replace(table, columns=table.names(), X=X if plain else table.X)  # one copy where one will do
    return Dataset(path.stem, table, X, y, tuple(table.columns), path)


# ======================================================================================================================
# Checks
# ======================================================================================================================


def check_labels(y, source="y", least=2):
    """Check labels and cast them to int64.

    Args:
        y: (n,) or (n, 1) array-like of 0 (normal) and 1 (anomaly); -1 (unlabelled) counts as 0, with a warning.
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
        wrong = not np.isin(values, (-1.0, 0.0, 1.0)).all()
    except (ValueError, TypeError):
        values, wrong = y.astype(str), True
    if wrong:
        found = listed(f"{v:g}" if isinstance(v, float) else v for v in np.unique(values).tolist())
        raise InputError(f"{source}: the labels are {found}: recode them as 0 (normal) and 1 (anomaly)")
    n_unlabelled = int((values == -1).sum())
    if n_unlabelled:
        only = n_unlabelled + int((values == 1).sum()) == len(values)
        opposite = " (in scikit-learn's outlier detectors -1 is the outlier: if that is meant, recode)" if only else ""
        warnings.warn(f"{source}: {n_unlabelled} unlabelled rows (-1) are taken as normal{opposite}", stacklevel=2)
        values = np.maximum(values, 0.0)
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

    dataset: str = setting(DEFAULT_DATASET, "an .npz, .csv or .parquet, or an ADBench name", positional=True)
    label_column: str | None = setting(None, "label column of a .csv or .parquet (default: the last)")
    impute: str = setting("refuse", "missing values: refuse, or the training rows' median", choices=IMPUTE)
    categorical: str = setting("refuse", "text columns: refuse, onehot or ordinal", choices=CATEGORICAL)
    drop_columns: str | None = setting(None, "columns to leave out, separated by commas")
    download: str | None = setting(None, "ADBench names to fetch, separated by commas, or all")
    source: str | None = setting(None, "mirror to download from: files are taken from SOURCE/<file>.npz")


def main(argv=None):
    """Print a summary of a dataset, or download some."""
    options = parse_config(Options, "Summarise a dataset, or download ADBench sets.", argv)
    if options.download is not None:
        from download import download

        download(options.download, options.source)
        return
    data = load_dataset(
        options.dataset, options.label_column, options.impute, options.categorical, options.drop_columns
    )
    facts = describe(data.X, data.y)
    print(f"{data.name} ({data.path})")
    print(f"rows              {facts['rows']}")
    print(f"features          {facts['features']}")
    print(f"anomalies         {facts['anomalies']} ({100 * facts['anomalies'] / facts['rows']:.2f} %)")
    print(f"duplicate rows    {facts['duplicates']} (a random split can put copies on both sides)")
    print(f"constant columns  {facts['constant_columns']}")
    print(f"text columns      {len(data.table.texts)}")
    print(f"missing values    {int(np.isnan(data.table.X).sum()) if data.table.X.dtype.kind == 'f' else 0}")
    print(f"dtype             {data.X.dtype}")
    print(f"fingerprint       {fingerprint(data.X, data.y)[:16]}")


if __name__ == "__main__":
    run_main(main)
