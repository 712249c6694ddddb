"""The benchmark's tables and figures, from the records alone: the same records give the same bytes.

Tables go into ``results/README.md`` (all of them) and, between their markers, into ``README.md``.
Means are over sets of the mean over seeds, so that every set weighs the same. A set counts for a
protocol when the protocol is defined on it for every seed; all methods of a table are compared on
the same cells.
"""

import json
from collections import defaultdict
from pathlib import Path

import numpy as np
from scipy.stats import wilcoxon

UNDEFINED = "is undefined for this data set"
RESAMPLES = 10000


def load_records(records):
    """All records of a folder, sorted by method, protocol, dataset and seed."""
    cells = [
        json.loads(path.read_text()) for path in sorted(Path(records).glob("*/*/*-seed*.json"))
    ]
    return sorted(cells, key=lambda c: (c["method"], c["protocol"], c["dataset"], c["seed"]))


class Scores:
    """The records of one protocol, arranged for comparison.

    Args:
        records: dicts.
        protocol: its name.
        seeds: those that a set must have.
        methods: None for all.
    """

    def __init__(self, records, protocol, seeds=None, methods=None):
        self.cells, failed = defaultdict(dict), defaultdict(dict)
        undefined = set()
        for r in records:
            if (
                r["protocol"] != protocol
                or r["method"] == "script"
                or (seeds is not None and r["seed"] not in seeds)
            ):
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
        self.failed = {m: len(f) for m, f in failed.items() if f}
        self.sets = sorted({dataset for dataset, _ in self.keys})
        self.seeds = sorted({seed for _, seed in self.keys})

    def per_set(self, method, name="auc_roc"):
        """Mean over seeds for every set, (n_sets,)."""
        cells = self.cells[method]
        return np.array(
            [np.mean([cells[k][name] for k in self.keys if k[0] == d]) for d in self.sets]
        )

    def over_seeds(self, method, name="auc_roc"):
        """(mean, standard deviation over seeds) of the mean over the sets."""
        cells = self.cells[method]
        each = [np.mean([cells[k][name] for k in self.keys if k[1] == s]) for s in self.seeds]
        return float(np.mean(self.per_set(method, name))), float(np.std(each, ddof=1)) if len(
            each
        ) > 1 else 0.0


def holm(p_values):
    """Holm's step-down correction: adjusted p-values in the order given."""
    p = np.asarray(p_values, dtype=float)
    order, adjusted, running = np.argsort(p), np.empty(len(p)), 0.0
    for rank, i in enumerate(order):
        running = max(running, min(1.0, (len(p) - rank) * p[i]))
        adjusted[i] = running
    return adjusted


def paired(a, b):
    """Mean of a - b over sets, its standard error, bootstrap 95 % interval (two), Wilcoxon p, wins,
    losses of a.
    """
    d = np.round(a - b, 9)
    rows = np.random.default_rng(0).integers(0, len(d), size=(RESAMPLES, len(d)))
    low, high = np.quantile(d[rows].mean(1), [0.025, 0.975])
    p = float(wilcoxon(d).pvalue) if np.count_nonzero(d) >= 2 else 1.0
    error = float(d.std(ddof=1) / len(d) ** 0.5) if len(d) > 1 else 0.0
    return (
        float(d.mean()),
        error,
        float(low),
        float(high),
        p,
        int((d > 0).sum()),
        int((d < 0).sum()),
    )
