"""Shared by the measured parts: their sizes, timing in turns, and a synthetic table."""

import statistics
import time
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Sizes:
    """Sizes of the measured parts; the defaults are those of the published records.

    Args:
        scans: (B, L, D, N) of each selective scan: rows, tokens, channels and states.
        experts: numbers of experts.
        singles: (columns, experts) of each mixture that is compared with one detector.
        tables: (rows, columns) of each table in the part ``scale``.
        n_scored: number of rows scored in one call.
        n_train: rows of the table on which ``score`` trains.
        large: rows to which sets are cut in the part ``bounds``; smaller sets are left out.
        bounds: pairs (reference normals, kernel centres), the defaults first.
        settings: further arguments of every Swift Hydra that is fitted.
    """

    scans: tuple = ((128, 8, 64, 16), (128, 32, 64, 16), (128, 64, 64, 16), (1024, 32, 64, 16))
    experts: tuple = (1, 2, 4, 16, 64)
    singles: tuple = ((8, 4), (30, 4), (60, 8), (200, 16))
    tables: tuple = ((10_000, 30), (100_000, 30), (1_000_000, 30), (100_000, 500))
    n_scored: int = 131072
    n_train: int = 10_000
    large: int = 50_000
    bounds: tuple = (
        (4096, 1000),
        (2048, 1000),
        (8192, 1000),
        (32768, 1000),
        (4096, 500),
        (4096, 1600),
    )
    settings: dict = field(default_factory=dict)


def in_turns(functions, repeats, synchronise=None, warm_up=True):
    """Median seconds of every function, run in turns.

    Args:
        functions: {name: callable}.
        repeats: number of turns that count.
        synchronise: a function called after each one, for example to wait for a GPU, or None.
        warm_up: run each function once before.

    Returns:
        {name: seconds}.
    """
    seconds = {name: [] for name in functions}
    for turn in range(0 if warm_up else 1, repeats + 1):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            if synchronise is not None:
                synchronise()
            if turn:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def made_table(n, d, seed=0, share=0.01):
    """A synthetic table of correlated normals and shifted anomalies.

    Args:
        n: number of rows.
        d: number of columns.
        seed: seed of the rows.
        share: share of anomalies; there are at least 20.

    Returns:
        Rows (n, d) in float32, and labels (n,).
    """
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(d, d)).astype(np.float32) / d**0.5
    X = np.empty((n, d), dtype=np.float32)
    for start in range(0, n, 65536):  # in pieces, to keep the table out of the peak memory
        part = X[start : start + 65536]
        part[:] = rng.standard_normal(part.shape, dtype=np.float32) @ mixing
    y = np.zeros(n, dtype=np.int64)
    y[rng.choice(n, max(20, round(n * share)), replace=False)] = 1
    X[np.flatnonzero(y)[:, None], rng.integers(0, d, size=3)] += 3.0
    return X, y
