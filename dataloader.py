"""A file becomes checked rows under a protocol (M1).

    python dataloader.py                                   # a summary of the embedded set
    python dataloader.py 18_Ionosphere                     # a summary of a downloaded ADBench set
    python dataloader.py my.csv --label-column fraud       # ... of your own table
    python dataloader.py --download Ionosphere,Pima        # fetch ADBench sets
    python dataloader.py --download all --source URL       # from a mirror: URL/<file>.npz

Every mistake in a file raises :class:`settings.InputError`, one line with the file, the column or
key, the value found and what to do about it.
"""

import csv
import itertools
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

if __name__ == "__main__":
    from swift_hydra.settings import guard_imports

    guard_imports()

import numpy as np

from swift_hydra.data.angles import KINDS, irrelevant, made_rows
from swift_hydra.data.catalogue import resolve_dataset
from swift_hydra.data.cells import CellParser
from swift_hydra.data.columns import ColumnSettings, Preparation
from swift_hydra.data.download import download
from swift_hydra.data.files import NO_LABEL, read_table
from swift_hydra.data.formats import suffix_of
from swift_hydra.data.labels import Labels, read_labels
from swift_hydra.data.reading import Reading
from swift_hydra.data.rows import TrainingRows
from swift_hydra.data.splits import LABELLED, PROTOCOLS, Split, make_split, protocol_name
from swift_hydra.data.subjects import split_of_subjects
from swift_hydra.data.suspicious import notes, tell_tales
from swift_hydra.data.table import Table, fingerprint, row_digests
from swift_hydra.settings import (
    GIVEN,
    AnyText,
    InputError,
    Place,
    changed,
    flag_values,
    parse_config,
    printable,
    refuse_idle,
    run_main,
    setting,
    tell,
)

DEFAULT_DATASET = "47_yeast"
UNLABELLED = "unlabelled"  # in place of a protocol's name: all rows train, none test
LONGEST_NAME = 10_000  # characters


@dataclass
class FileOptions(Reading):
    """Which table is read, which of its columns, and how they are written."""

    dataset: Place = setting(
        DEFAULT_DATASET,
        "an .npz with X and y, a .csv, .tsv, .txt (also .gz) or .parquet with a label column, or "
        "an ADBench name",
        positional=True,
    )
    label_column: str | None = setting(
        None, "label column of a .csv or .parquet (default: the last); none: there are no labels"
    )
    drop_columns: AnyText | None = setting(None, "columns to leave out, separated by commas")
    group_column: str | None = setting(
        None, "column that says of what a row was measured (patient, machine): kept together"
    )


@dataclass
class RowOptions(FileOptions):
    """Which rows train and which test."""

    seed: int = setting(0, "seed of the split and of every random stream", low=0, high=2**32 - 1)
    protocol: str = setting("seen", "which anomalies are known in training", choices=PROTOCOLS)
    n_labelled: int = setting(10, "known anomalies under the protocol 'few'")
    labelled: str = setting(
        LABELLED,
        "known anomalies under the protocol 'weak': a share of the training's with a decimal "
        "point, or a whole number of them (0: none)",
    )
    max_rows: int | None = setting(
        None, "stratified subsample of larger tables (default: all rows)"
    )

    @property
    def protocol_name(self):
        """The protocol as folders and messages name it, such as ``seen`` or ``weak-0.05``."""
        if self.label_column == NO_LABEL:
            return UNLABELLED
        return protocol_name(self.protocol, self.labelled)


@dataclass(frozen=True, eq=False)
class Dataset:
    """A checked table, with labels unless ``label`` is ``NO_LABEL``.

    Attributes:
        name: the file's stem, for example ``47_yeast``.
        table: n rows as :class:`data.columns.Preparation` takes them.
        labels: checked labels with at least two anomalies and one other row; without a label
            column all are -1.
        label: name of the label column.
        path: the file it came from.
        settings: how gaps and texts are treated.
    """

    name: str
    table: Table
    labels: Labels
    label: str
    path: Path
    settings: ColumnSettings

    @property
    def y(self):
        """(n,) int64, 0 = normal, 1 = anomaly, -1 = unlabelled."""
        return self.labels.y

    @property
    def columns(self):
        """d names; ``x0, x1, ...`` where the file has none."""
        return tuple(self.table.columns)

    @property
    def X(self):
        """(n, d') the rows, prepared with statistics of all n: for inspection, not for training."""
        return Preparation.of(self.settings).fit_transform(self.table)


class Rows(NamedTuple):
    """A dataset under a protocol; without labels all rows train and the test part is empty."""

    data: Dataset
    split: Split | None  # None without labels
    train: TrainingRows  # with the labels that the protocol reveals, not all that the file has
    X_test: np.ndarray  # (m, d') the test rows, prepared with statistics of the training rows
    y_test: np.ndarray  # (m,)

    @property
    def fingerprints(self):
        """SHA256 of the training and the test part, under the names used in a run's report."""
        return {
            "train_fingerprint": self.train.fingerprint,
            "test_fingerprint": fingerprint(self.X_test, self.y_test),
        }

    @property
    def label(self):
        """A text: the label column, the value that marks anomalies, and how many there are."""
        if self.split is None:
            return f"no label column, {len(self.train.y)} rows"
        return f"label column {self.data.label!r}, {self.data.labels}"

    @property
    def n_hidden(self):
        """How many training rows are anomalies but not known ones; None without labels."""
        if self.split is None:
            return None
        of_train, told = (self.data.y[rows] for rows in (self.split.train, self.split.known))
        return int((of_train == 1).sum()) - int((told == 1).sum())

    def __str__(self):
        if self.split is None:
            return f"{len(self.train.y)} training rows, of which nothing is known"
        subjects = "" if self.train.subjects is None else f" of {self.train.n_subjects} groups"
        n_known = len(self.split.known)
        known = f"{len(self.train.y)} training rows{subjects} with {n_known} known anomalies"
        n_wrong = int((self.data.y[self.split.known] != 1).sum())
        if n_wrong:
            known += f" ({n_wrong} of them normal rows)"
        if self.n_hidden:
            known += f" and {self.n_hidden} hidden ones"
        return f"{known}, {len(self.y_test)} test rows with {int(self.y_test.sum())}"


def load_rows(options, settings=None, least=2):
    """Read a table, split it, and prepare both parts with statistics of the training rows.

    Args:
        options: a :class:`RowOptions`.
        settings: a :class:`data.columns.ColumnSettings`; None refuses gaps, texts and dates.
        least: fewest known anomalies to train on, see :func:`data.splits.make_split`.

    Returns:
        A :class:`Rows`.

    Raises:
        InputError: the file or its content is unusable, or the split is undefined.
    """
    settings = settings or ColumnSettings()
    data = load_dataset(
        options.dataset,
        options.label_column,
        drop_columns=options.drop_columns,
        settings=settings,
        reading=options,
        group_column=options.group_column,
    )
    if options.label_column == NO_LABEL:
        return _all_rows(data, options, settings)
    of_protocol = {"n_labelled": "few", "labelled": "weak"}
    for name, value in changed(options, of_protocol):
        protocol = of_protocol[name]
        if protocol != options.protocol:
            raise InputError(
                f"{name}={value!r} is for the protocol {protocol!r}, not {options.protocol!r}: "
                f"give --protocol {protocol}, or leave it out"
            )
    data, split = _split_of(data, options, least)
    y = np.minimum(data.y, 0)  # anomalies that are not revealed count as normal, -1 stays
    y[split.known] = 1
    labels = Labels(y[split.train], data.labels.classes)
    train = TrainingRows.read(data.table.take(split.train), labels, settings)
    X_test = train.columns.prepare(data.table.take(split.test))
    return Rows(data, split, train, X_test, data.y[split.test])


def _split_of(data, options, least):
    """The data set as changed by its protocol, and its :class:`data.splits.Split`."""

    def draw(X, y, max_rows):
        return make_split(
            X,
            y,
            options.protocol,
            options.seed,
            n_labelled=options.n_labelled,
            max_rows=max_rows,
            least=least,
            labelled=options.labelled,
        )

    X, subjects = (data.X if options.protocol == "unseen" else None), data.table.subjects
    if subjects is None:
        split = draw(X, data.y, options.max_rows)
    else:
        split = split_of_subjects(X, data.y, subjects, draw, options.protocol, options.max_rows)
    return _changed(data, split), split


def _changed(data, split):
    """The data set with the synthetic rows or columns of its protocol; most protocols have none."""
    table = data.table
    if split.protocol in KINDS:
        preparation = Preparation.of(data.settings)
        X = np.array(preparation.fit_transform(table), dtype=np.float64)
        rows = np.sort(np.concatenate([split.train, split.test]))
        X[rows] = made_rows(X[rows], data.y[rows], split.protocol, split.seed)
        table = replace(table, X=X, columns=list(preparation.names), texts={}, dated=())
    elif split.protocol == "irrelevant":
        numbers = [j for j in range(table.X.shape[1]) if j not in table.texts]
        added = irrelevant(table.X, split.seed, numbers)
        own = table.names()
        free = (name for j in itertools.count() if (name := f"irrelevant{j}") not in own)
        columns = [*own, *itertools.islice(free, added.shape[1])]
        table = replace(table, X=np.column_stack([table.X, added]), columns=columns)
    return replace(data, table=table)


def _all_rows(data, options, settings):
    """:class:`Rows` of a table without labels."""
    _refuse_for_labels(options, ("protocol", "max_rows", "n_labelled", "labelled"))
    if hasattr(settings, "trust_normals"):  # training settings; ColumnSettings alone have none
        _refuse_for_labels(settings, ("trust_normals",))
    train = TrainingRows.read(data.table, data.labels, settings)
    return Rows(data, None, train, train.X[:0], data.y[:0])


def _refuse_for_labels(config, names):
    """Refuse settings about labels for a table without labels."""
    for name, value in changed(config, names):
        raise InputError(
            f"{name}={value!r} is for tables with labels: with label_column='none' all rows "
            "train: leave it out"
        )


def load_dataset(
    spec,
    label_column=None,
    impute="refuse",
    categorical="refuse",
    drop_columns=None,
    settings=None,
    reading=None,
    group_column=None,
):
    """Read and check a table.

    Args:
        spec: a path or a name, see :func:`data.catalogue.resolve_dataset`. ``.npz`` needs ``X``
            (n, d) and ``y`` (n,) or (n, 1); a text file may have a header row and separates cells
            by comma, semicolon, tab, | or spaces; ``.parquet`` needs pyarrow.
        label_column: the label column of a text file or ``.parquet``; None takes the last one,
            "none" means that there are no labels.
        impute: how gaps are treated, see :class:`data.columns.Preparation`.
        categorical: how texts are treated, see there.
        drop_columns: names of columns to leave out, separated by commas; a name that contains a
            comma or a line break is quoted, ``"a, b",c``.
        settings: a :class:`data.columns.ColumnSettings` in place of the two.
        reading: a :class:`data.reading.Reading` of a text file, or None.
        group_column: column (or array of an .npz) of the rows' subjects, see data/subjects.py.

    Returns:
        A :class:`Dataset`.

    Raises:
        InputError: the file or its content is unusable; one message names all problems.
    """
    settings = settings or ColumnSettings(impute=impute, categorical=categorical)
    if label_column == NO_LABEL:
        _refuse_for_labels(settings, ("anomaly_label", "majority_anomalies"))
    path, reading = resolve_dataset(spec), reading or Reading()
    preparation = Preparation.of(settings)  # refuses unknown options first
    table, y, label, problems = read_table(
        path,
        label_column,
        _names_of(drop_columns) if drop_columns else [],
        texts=settings.categorical != "refuse",
        reading=reading,
        dates=settings.dates,
        group_column=group_column,
    )
    _check_lengths(path, table, y)
    checks = [
        lambda: CellParser.refuse(path, problems),
        lambda: preparation.fit_transform(table),
        lambda: _labels_of(path, y, label, settings, table.lines, reading, label_column is None),
    ]
    _, X, labels = _all_or_every_problem(checks, path)
    said = (*notes(table, asked=reading.missing is not None), *preparation.notes())
    for note in (*said, *tell_tales(table, labels.y)):
        tell(f"{path.name}: {note}")
    if not table.texts and np.isfinite(table.X).all():
        table = replace(table, X=X)  # keep one copy of the numbers, not two
    table = replace(table, columns=table.names(), named=bool(table.columns) and table.named)
    return Dataset(stem_of(path), table, labels, label, path, settings)


def _check_lengths(path, table, y):
    if y.ndim and len(table) != len(y):
        raise InputError(
            f"{path}: X has {len(table)} rows and y has {len(y)} labels: they must be of one length"
        )
    if not len(table):
        raise InputError(f"{path}: X has no row: give at least a few normal rows and two anomalies")


def _names_of(drop_columns):
    """The names in a comma-separated list; names with a comma or a line break are quoted."""
    try:
        names = next(csv.reader([drop_columns], skipinitialspace=True))
        longest = max(map(len, names), default=0)
        if longest > LONGEST_NAME:
            raise csv.Error(f"one of {longest} characters")
        return names
    except csv.Error as error:  # csv's own message about line breaks talks of opening files
        broken = len(drop_columns.splitlines()) > 1
        reason = "a line break outside of quotes" if broken else error
        raise InputError(
            f"drop_columns={drop_columns[:80]!r} is no list of names ({reason}): put names with a "
            "comma or a line break in quotes within it: '\"a, b\",c'"
        ) from None


def _labels_of(path, y, label, settings, lines, reading, by_default):
    """:class:`data.labels.Labels` of a file; all -1 where it has none.

    Args:
        by_default: the user did not name the label column.
    """
    if label == NO_LABEL:
        return Labels(y.astype(np.int64), np.array([0, 1]))
    where = path if label == "y" else f"{path}: column {label!r}"
    how = settings.anomaly_label, settings.majority_anomalies
    try:
        return read_labels(y, where, 2, *how, lines, reading.label_gaps())
    except InputError as error:
        if by_default and path.suffix.lower() != ".npz":  # the last column
            raise InputError(f"{error}, or name another column with --label-column") from None
        raise


def stem_of(path):
    """The data set's name: its file's without suffixes, and never a path such as ``..``."""
    stem = path.name
    for suffix in (".gz", suffix_of(path)):
        stem = stem[: -len(suffix)] if suffix and stem.lower().endswith(suffix) else stem
    return stem.strip(". ") or "table"


def _all_or_every_problem(checks, path):
    """Call functions without arguments: all results, or one InputError with all messages."""
    results = []
    problems = []
    for check in checks:
        try:
            results.append(check())
        except InputError as error:
            problems.append(str(error))
    if problems:
        first, *others = problems
        others = [other.removeprefix(f"{path}: ") for other in others]
        raise InputError("; moreover, ".join([first, *others]))
    return results


def describe(X, y):
    """Counts of a table as a dict; ``duplicates`` are rows that equal an earlier row.

    Args:
        X: (n, d) features.
        y: (n,) labels, 1 for anomalies.
    """
    X = np.asarray(X, dtype=np.float64)
    return {
        "rows": len(X),
        "features": X.shape[1],
        "anomalies": int((np.asarray(y) == 1).sum()),
        "duplicates": len(X) - len(set(row_digests(X))),
        "constant_columns": int((X == X[0]).all(axis=0).sum()),
    }


@dataclass
class DownloadOptions:
    """What ``python dataloader.py`` fetches."""

    download: str | None = setting(None, "ADBench names to fetch, separated by commas, or all")
    source: str | None = setting(
        None, "mirror to download from: files are taken from SOURCE/<file>.npz"
    )


def main(argv=None):
    """Print a summary of a dataset, or download some."""
    classes = (FileOptions, ColumnSettings, DownloadOptions)
    about = "Summarise a dataset, or download ADBench sets."
    file, settings, fetch = parse_config(classes, about, argv)
    of_a_table = tuple(flag_values(file, settings))
    idle = [("download", GIVEN, of_a_table), ("download", None, ("source",))]
    refuse_idle(idle, file, settings, fetch)
    if fetch.download is not None:
        download(fetch.download, fetch.source)
        return
    data = load_dataset(
        file.dataset,
        file.label_column,
        drop_columns=file.drop_columns,
        settings=settings,
        reading=file,
        group_column=file.group_column,
    )
    X = data.X
    table = data.table.X
    facts = describe(X, data.y)
    percent = 100 * facts["anomalies"] / facts["rows"]
    n_missing = int(np.isnan(table).sum()) if table.dtype.kind == "f" else 0
    print(printable(f"{data.name} ({data.path})"))
    told = f"column {data.label!r}, {data.labels}" if data.label != NO_LABEL else "no label column"
    print(printable(f"label             {told}"))
    print(f"rows              {facts['rows']}")
    if data.table.subjects is not None:
        print(f"groups            {data.table.subjects.max() + 1}")
    print(f"features          {facts['features']}")
    print(f"anomalies         {facts['anomalies']} ({percent:.2f} %)")
    print(f"duplicate rows    {facts['duplicates']} (a random split can put copies on both sides)")
    print(f"constant columns  {facts['constant_columns']}")
    print(f"text columns      {len(data.table.texts)}")
    print(f"missing values    {n_missing}")
    print(f"dtype             {X.dtype}")
    print(f"fingerprint       {fingerprint(X, data.y)[:16]}")


if __name__ == "__main__":
    run_main(main)
