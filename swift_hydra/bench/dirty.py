"""Dirty versions of clean tables, with faults that occur in tables that nobody cleaned.

    python benchmark.py --datasets DIR --dirty OUT             # writes OUT/<set>-<kind>.npz
    python benchmark.py --datasets OUT --methods full/rl,peers --seeds 0,1,2 \\
        --records results/dirty

A dirty table has the same rows as its clean one, in the same order (repeated rows replace others),
so that splits of both have the same rows.

Shapes: n rows, d features.
"""

import io
import zlib
from pathlib import Path

import numpy as np

from swift_hydra.data.formats import read_npz
from swift_hydra.dataloader import load_dataset
from swift_hydra.files import write_bytes
from swift_hydra.settings import InputError

SETS = (
    "47_yeast",
    "6_cardio",
    "40_vowels",
    "20_letter",
    "27_PageBlocks",
    "12_fault",
    "38_thyroid",
    "4_breastw",
    "39_vertebral",
    "43_WDBC",
)
OFFSET = 1e9
ABSURD = 1e12
SENTINEL = 999_999.0
ONE_IN = 900


def absurd(X, y, rng):
    """One normal row per 900 rows, at least one, has an absurd value in all columns."""
    rows = _some_normals(y, rng, max(round(len(X) / ONE_IN), 1))
    X[rows] = ABSURD
    return X


def sentinels(X, y, rng):
    """1 % of the cells of normal rows hold a number that stands for a missing value."""
    hit = (rng.random(X.shape) < 0.01) & (y == 0)[:, None]
    X[hit] = SENTINEL
    return X


def offset(X, y, rng):
    """A large number is added to every column."""
    return X + OFFSET


def exponentiated(X, y, rng):
    """The exponential of the standardised columns, which has heavy right tails."""
    scale = X.std(0)
    scale[scale == 0] = 1.0
    return np.exp(np.clip((X - X.mean(0)) / scale, -20, 20))


def repeated(X, y, rng):
    """30 % of the rows are copies of other rows of their class."""
    for label in (0, 1):
        rows = np.flatnonzero(y == label)
        replaced = rng.permutation(rows)[: round(0.3 * len(rows))]
        kept = np.setdiff1d(rows, replaced)
        X[replaced] = X[rng.choice(kept, len(replaced))]
    return X


KINDS = {
    "clean": lambda X, y, rng: X,
    "absurd": absurd,
    "sentinels": sentinels,
    "offset": offset,
    "exponentiated": exponentiated,
    "repeated": repeated,
}


def _some_normals(y, rng, n):
    return rng.permutation(np.flatnonzero(y == 0))[:n]


def _write_own(target, X, y):
    """Write one table, unless a file with other content is there."""
    if target.exists():
        try:
            found = read_npz(target)
        except InputError:
            found = ()
        if not found or not all(map(np.array_equal, found, (X, y))):
            raise InputError(
                f"{target}: is there already and holds something else: give an empty folder"
            )
    buffer = io.BytesIO()
    np.savez_compressed(buffer, X=X, y=y)
    write_bytes(target, buffer.getvalue())


def write_dirty(paths, out):
    """Write all dirty versions of those files whose set is in ``SETS``; returns their paths.

    Raises:
        InputError: a file of that name has other content, or none of the sets is in ``SETS``.
    """
    Path(out).mkdir(parents=True, exist_ok=True)
    written = []
    for path in paths:
        if Path(path).stem not in SETS:
            continue
        data = load_dataset(path)
        for kind, change in KINDS.items():
            rng = np.random.default_rng(zlib.crc32(f"{data.name}-{kind}".encode()))
            X = change(np.array(data.X, dtype=np.float64), data.y, rng)
            target = Path(out) / f"{data.name}-{kind}.npz"
            _write_own(target, X, data.y)
            written.append(target)
    if not written:
        raise InputError(f"datasets: none is called {', '.join(SETS)}: give some of these")
    return written
