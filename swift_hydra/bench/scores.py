"""Statistics of the benchmark: records arranged for comparison, and the tests between methods.

Values are averaged over seeds first, then over sets, so that every set has the same weight. A set
counts for a protocol if the protocol is defined on it for every seed; all methods of a comparison
are compared on the same cells.

Sets made from the same measurements are not independent: the bootstrap resamples sources, each with
all of its sets (Cameron, Gelbach and Miller 2008, the pairs cluster bootstrap).
"""

import functools
import re
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.stats import wilcoxon

from swift_hydra.data.catalogue import read_catalogue

UNDEFINED = "is undefined for this data set"
RESAMPLES = 10000
HEADLINES = ("seen", "few", "unseen")  # the protocols of the first table
FIVE_SEEDS = {0, 1, 2, 3, 4}  # of the first table
# ADBench's sets that share a source; every other set is a source of its own.
SOURCES = {
    name: source
    for source, names in {
        "Breast Cancer Wisconsin": ("breastw", "WBC", "WDBC", "WPBC"),
        "Cardiotocography": ("cardio", "Cardiotocography"),
        "KDD Cup 99": ("http", "smtp"),
        "Statlog Landsat": ("landsat", "satellite", "satimage-2"),
        "Thyroid Disease": ("annthyroid", "thyroid"),
    }.items()
    for name in names
}


class Scores:
    """The records of one protocol, arranged for comparison.

    Args:
        records: dicts.
        protocol: the protocol's name.
        seeds: the seeds that count, None for all.
        methods: the methods that count, None for all.

    Attributes:
        protocol: the protocol's name.
        cells: {method: {(dataset, seed): record}} of records that did not fail.
        keys: the (dataset, seed) that count, sorted: those that any of the methods has.
        complete: the methods that have all keys.
        incomplete: {method: (number of keys that it has, cells that failed)} of the others.
        sets: the datasets of the keys, sorted.
        seeds: the seeds of the keys, sorted.
    """

    def __init__(self, records, protocol, seeds=None, methods=None):
        self.protocol = protocol
        self.cells = defaultdict(dict)
        failed = defaultdict(dict)
        undefined = set()
        for r in records:
            if r["protocol"] != protocol or r["method"] == "script":
                continue
            if seeds is not None and r["seed"] not in seeds:
                continue
            if methods is not None and r["method"] not in methods:
                continue
            if r["failed"] is None:
                self.cells[r["method"]][r["dataset"], r["seed"]] = r
            elif UNDEFINED in r["failed"]:
                undefined.add(r["dataset"])
            else:
                failed[r["method"]][r["dataset"], r["seed"]] = r["failed"]
        everywhere = {
            key for cells in self.cells.values() for key in cells if key[0] not in undefined
        }
        self.keys = sorted(everywhere)
        self.complete = [m for m in self.cells if everywhere <= set(self.cells[m])]
        self.incomplete = {
            m: (len(everywhere & set(cells)), len(failed[m]))
            for m, cells in self.cells.items()
            if m not in self.complete
        }
        self.sets = sorted({dataset for dataset, _ in self.keys})
        self.seeds = sorted({seed for _, seed in self.keys})

    def per_set(self, method, name="auc_roc"):
        """Mean over seeds for every set, (n_sets,)."""
        cells = self.cells[method]
        return np.array(
            [np.mean([cells[k][name] for k in self.keys if k[0] == d]) for d in self.sets]
        )

    def best_peer_per_set(self, besides=None):
        """For every set the highest mean AUC-ROC of a complete peer, chosen on the set's test rows.

        Args:
            besides: a method that does not count as a peer.

        Returns:
            (n_sets,), or None if no peer is complete.
        """
        peers = [self.per_set(m) for m in self.complete if "/" not in m and m != besides]
        return np.max(peers, axis=0) if peers else None

    def over_seeds(self, method, name="auc_roc"):
        """(mean, standard deviation over seeds) of the mean over the sets."""
        cells = self.cells[method]
        each = [np.mean([cells[k][name] for k in self.keys if k[1] == s]) for s in self.seeds]
        spread = float(np.std(each, ddof=1)) if len(each) > 1 else 0.0
        return float(np.mean(self.per_set(method, name))), spread

    def per_cell(self, method, name):
        """Mean over all cells of an entry such as ``fit_seconds``."""
        return np.mean([self.cells[method][k][name] for k in self.keys])

    def entries(self, method, name):
        """The values of an entry in those cells that have it."""
        return [c[name] for k in self.keys if name in (c := self.cells[method][k])]

    def per_cell_or_none(self, method, name):
        """Mean over the cells that have this entry; None if none has."""
        values = self.entries(method, name)
        return np.mean(values) if values else None

    def rank_of_generated(self, method):
        """Mean effective rank of the generated rows over all cells; 0 for a method without any."""
        # Older records use the second name.
        names = ("rank_of_generated", "effective_rank")
        cells = [self.cells[method][k] for k in self.keys]
        return np.mean([next((c[n] for n in names if n in c), 0.0) for c in cells])

    def best_first(self):
        """The complete methods, by descending mean AUC-ROC."""
        return sorted(self.complete, key=lambda m: -self.per_set(m).mean())


def holm(p_values):
    """Holm's step-down correction: adjusted p-values in the order given."""
    p = np.asarray(p_values, dtype=float)
    adjusted = np.empty(len(p))
    running = 0.0
    for rank, i in enumerate(np.argsort(p)):
        running = max(running, min(1.0, (len(p) - rank) * p[i]))
        adjusted[i] = running
    return adjusted


def source_of(dataset):
    """The source of a set; ADBench's number before its name, as in ``42_WBC``, is ignored."""
    name = re.sub(r"^\d+_", "", dataset)
    return SOURCES.get(name) or _wholes().get(dataset, dataset)


@functools.cache
def _wholes():
    """{file's stem: name of its set} for ADBench's sets of several files, such as CIFAR10."""
    rows = [row for row in read_catalogue() if len(row["files"]) > 1]
    return {Path(name).stem: row["name"] for row in rows for name in row["files"]}


class Paired(NamedTuple):
    """A comparison of two methods over the same sets; ``difference`` is the mean of a - b."""

    difference: float
    error: float  # standard error of the difference
    low: float  # lower end of the bootstrap's 95 % interval
    high: float  # upper end
    lowest: float  # lowest mean difference when one set is left out
    highest: float  # highest
    p: float  # p-value of Wilcoxon's signed-rank test
    wins: int  # sets on which a is higher
    losses: int


def paired(a, b, sources=None):
    """Compare two methods' values on the same sets.

    Args:
        a: (n_sets,) one method's values.
        b: (n_sets,) the other's.
        sources: n_sets names of the sets' sources, which the bootstrap resamples; None takes every
            set for a source of its own.

    Returns:
        A :class:`Paired`.
    """
    d = np.round(a - b, 9)
    n = len(d)
    source = np.arange(n) if sources is None else np.unique(sources, return_inverse=True)[1]
    sums, sizes = np.bincount(source, weights=d), np.bincount(source)
    drawn = np.random.default_rng(0).integers(0, len(sums), size=(RESAMPLES, len(sums)))
    low, high = np.quantile(sums[drawn].sum(1) / sizes[drawn].sum(1), [0.025, 0.975])
    without = (d.sum() - d) / (n - 1) if n > 1 else d
    return Paired(
        difference=float(d.mean()),
        error=float(d.std(ddof=1) / n**0.5) if n > 1 else 0.0,
        low=float(low),
        high=float(high),
        lowest=float(without.min()),
        highest=float(without.max()),
        p=float(wilcoxon(d).pvalue) if np.count_nonzero(d) >= 2 else 1.0,
        wins=int((d > 0).sum()),
        losses=int((d < 0).sum()),
    )
