"""A file becomes a checked :class:`Dataset` (M1); the splits and the scaler of ``splits.py`` are
offered here as well.

    python dataloader.py                                   # a summary of the embedded set
    python dataloader.py 18_Ionosphere                     # a summary of a downloaded ADBench set
    python dataloader.py my.csv --label-column fraud       # ... of your own table
    python dataloader.py --download Ionosphere,Pima        # fetch ADBench sets
    python dataloader.py --download all --source URL       # fetch all of them from a mirror: URL/<file>.npz

Every mistake in a file raises :class:`config.InputError`, one line with the file, the column or
key, the value found and what to do about it.
"""

import dataclasses
import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from swift_hydra.data.catalogue import resolve_dataset
from swift_hydra.data.columns import CATEGORICAL, IMPUTE, Preparation
from swift_hydra.data.files import read_table
from swift_hydra.data.labels import check_labels
from swift_hydra.data.splits import Split, make_split
from swift_hydra.data.table import Table, fingerprint
from swift_hydra.settings import InputError, parse_config, run_main, setting

DEFAULT_DATASET = "47_yeast"


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """A checked table with labels.

    Attributes:
        name: the file's stem, for example ``47_yeast``.
        table: n rows as :class:`preparation.Preparation` takes them.
        X: (n, d)
        float32, finite: the rows prepared by all of them, for the split and for tables of plain
            numbers. What a model learns from is prepared by the training rows alone.
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


def load_dataset(spec, label_column=None, impute="refuse", categorical="refuse", drop_columns=None):
    """Read and check a table.

    Args:
        spec: a path or a name, see :func:`resolve_dataset`. ``.npz`` needs ``X`` (n, d) and ``y``
            (n,) or (n, 1); ``.csv`` may have a header row and separates cells by comma, semicolon
            or tab; ``.parquet`` needs pyarrow.
        label_column: the name of the label column of a ``.csv`` or ``.parquet``; None takes the
            last one.
        impute, categorical: what happens to gaps and texts, see :class:`preparation.Preparation`.
        drop_columns: names of columns to leave out, separated by commas.

    Returns:
        A :class:`Dataset`.

    Raises:
        InputError: whatever is wrong with the file or its content.
    """
    path = resolve_dataset(spec)
    preparation = Preparation(
        impute, categorical
    )  # refuses unknown options before the file is read
    drop = [name.strip() for name in drop_columns.split(",")] if drop_columns else []
    table, y = read_table(path, label_column, drop, find_texts=categorical != "refuse")
    X = preparation.fit(table).transform(table)
    if y.ndim and len(X) != len(y):
        raise InputError(
            f"{path}: X has {len(X)} rows and y has {len(y)} labels: they must be of one length"
        )
    y = check_labels(y, path)
    plain = not table.texts and np.isfinite(table.X).all()
    table = dataclasses.replace(
        table, columns=table.names(), X=X if plain else table.X
    )  # one copy where one will do
    return Dataset(path.stem, table, X, y, tuple(table.columns), path)


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


@dataclasses.dataclass
class Options:
    """Settings of ``python dataloader.py``."""

    dataset: str = setting(
        DEFAULT_DATASET, "an .npz, .csv or .parquet, or an ADBench name", positional=True
    )
    label_column: str | None = setting(
        None, "label column of a .csv or .parquet (default: the last)"
    )
    impute: str = setting(
        "refuse", "missing values: refuse, or the training rows' median", choices=IMPUTE
    )
    categorical: str = setting(
        "refuse", "text columns: refuse, onehot or ordinal", choices=CATEGORICAL
    )
    drop_columns: str | None = setting(None, "columns to leave out, separated by commas")
    download: str | None = setting(None, "ADBench names to fetch, separated by commas, or all")
    source: str | None = setting(
        None, "mirror to download from: files are taken from SOURCE/<file>.npz"
    )


def main(argv=None):
    """Print a summary of a dataset, or download some."""
    options = parse_config(Options, "Summarise a dataset, or download ADBench sets.", argv)
    if options.download is not None:
        from swift_hydra.data.download import download

        download(options.download, options.source)
        return
    data = load_dataset(
        options.dataset,
        options.label_column,
        options.impute,
        options.categorical,
        options.drop_columns,
    )
    facts = describe(data.X, data.y)
    print(f"{data.name} ({data.path})")
    print(f"rows              {facts['rows']}")
    print(f"features          {facts['features']}")
    print(
        f"anomalies         {facts['anomalies']} ({100 * facts['anomalies'] / facts['rows']:.2f} %)"
    )
    print(f"duplicate rows    {facts['duplicates']} (a random split can put copies on both sides)")
    print(f"constant columns  {facts['constant_columns']}")
    print(f"text columns      {len(data.table.texts)}")
    print(
        f"missing values    {int(np.isnan(data.table.X).sum()) if data.table.X.dtype.kind == 'f' else 0}"
    )
    print(f"dtype             {data.X.dtype}")
    print(f"fingerprint       {fingerprint(data.X, data.y)[:16]}")


class Rows(NamedTuple):
    """A dataset under a protocol: training and test rows as read and as prepared, and their labels."""

    data: Dataset
    split: Split
    train: Table
    X_train: np.ndarray
    y_train: np.ndarray
    test: Table
    X_test: np.ndarray
    y_test: np.ndarray


def load_rows(config):
    """Read, split and prepare what a :class:`PretrainConfig` names. Raises
    :class:`config.InputError`.
    """
    data = load_dataset(
        config.dataset, config.label_column, config.impute, config.categorical, config.drop_columns
    )
    split = make_split(
        data.X, data.y, config.protocol, config.seed, config.n_labelled, config.max_rows
    )
    train, test = data.table.take(split.train), data.table.take(split.test)
    preparation = Preparation(config.impute, config.categorical).fit(train)
    X_train, X_test = preparation.transform(train), preparation.transform(test)
    return Rows(data, split, train, X_train, data.y[split.train], test, X_test, data.y[split.test])


if __name__ == "__main__":
    run_main(main)
