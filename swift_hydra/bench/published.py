"""Figures that other papers published for the same sets, beside our own measurements.

``results/published.csv`` holds the means per set, as fractions, of two collections:

- ``weak-5``, ``weak-10``, ``weak-20``: the 17 methods of ADGym (Jiang et al., NeurIPS 2023; from
  the repository Minqi824/ADGym at b924f7f): 70 % of the rows train, 5, 10 or 20 anomalies are
  known, the others stay among the rows labelled 0; three seeds.
- ``one-class``: the 26 methods of DTE (Livernoche, Jain, Hezaveh and Ravanbakhsh, ICLR 2024; from
  the tables in A-Chicharito-S/FoMo-0D at 34d4339): half of the normals train; five seeds.

Those runs used other splits, row limits and preparations. A difference of a hundredth between their
figures and ours means nothing.
"""

import csv
from collections import defaultdict

import numpy as np

from swift_hydra.bench.comparison import short, title_of
from swift_hydra.bench.markdown import row_of, rule_of

PROTOCOLS = ("weak-5", "weak-10", "weak-20", "one-class")
SHOWN = 5  # published methods in a table of means
BESIDE = ("full/rl", "full/rl/trust-normals")  # our methods in these tables


def read_published(path):
    """The published figures.

    Args:
        path: a CSV file with the columns protocol, dataset, method, auc_roc and auc_pr.

    Returns:
        {protocol: {method: {dataset: (AUC-ROC, AUC-PR)}}}, empty if there is no such file.
    """
    published = defaultdict(lambda: defaultdict(dict))
    if not path.is_file():
        return published
    with open(path, newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            areas = (float(row["auc_roc"]), float(row["auc_pr"]))
            published[row["protocol"]][row["method"]][row["dataset"]] = areas
    return published


def _measured(records, protocol):
    """{method: {dataset: (AUC-ROC, AUC-PR)}} of our methods: means over the recorded seeds."""
    cells = defaultdict(lambda: defaultdict(list))
    for r in records:
        if r["protocol"] == protocol and r["method"] in BESIDE and r["failed"] is None:
            cells[r["method"]][r["dataset"]].append((r["auc_roc"], r["auc_pr"]))
    return {
        method: {name: tuple(np.mean(areas, 0)) for name, areas in sets.items()}
        for method, sets in cells.items()
    }


def _in_common(ours, theirs):
    """The sets, sorted, that all of our methods and at least one of theirs have."""
    sets = set.intersection(*(set(cells) for cells in ours.values()))
    return sorted(sets & set.union(*(set(cells) for cells in theirs.values())))


def _mean(cells, sets):
    """Mean AUC-ROC and AUC-PR over sets, None if one is missing."""
    return np.mean([cells[s] for s in sets], 0) if set(sets) <= set(cells) else None


def _side_by_side(records, published):
    """Yield for each protocol that both have: its name, our figures, theirs, sets and their means.

    The sets are those in common, and the means are of the methods that have all of them.
    """
    for protocol in PROTOCOLS:
        ours, theirs = _measured(records, protocol), published[protocol]
        if ours and theirs:
            sets = _in_common(ours, theirs)
            means = {m: _mean(cells, sets) for m, cells in theirs.items()}
            yield protocol, ours, theirs, sets, {m: v for m, v in means.items() if v is not None}


def published_means(records, published):
    """The best published means beside ours, over the sets that both cover.

    Args:
        records: dicts of our own measurements.
        published: see :func:`read_published`.

    Returns:
        Markdown lines.
    """
    lines = [
        row_of("protocol", "sets", "method", "AUC-ROC", "AUC-PR", "better than ours on"),
        "|---|---:|---|---:|---:|---:|",
    ]
    for protocol, ours, theirs, sets, means in _side_by_side(records, published):
        base = BESIDE[0] if protocol != "one-class" or BESIDE[1] not in ours else BESIDE[1]
        rows = {title_of(m): (_mean(cells, sets), "") for m, cells in ours.items()}
        for m in sorted(means, key=lambda m: -means[m][0])[:SHOWN]:
            better = sum(theirs[m][s][0] > ours[base][s][0] for s in sets)
            rows[m] = (means[m], f"{better} of {len(sets)}")
        for m, (mean, better) in sorted(rows.items(), key=lambda row: -row[1][0][0]):
            lines.append(row_of(f"*{protocol}*", len(sets), m, *map(short, mean), better))
    return lines if len(lines) > 2 else ["No record of it yet."]


def published_per_set(records, published):
    """Every set's published figures beside ours.

    Args:
        records: dicts of our own measurements.
        published: see :func:`read_published`.

    Returns:
        Markdown lines: AUC-ROC (AUC-PR) of our methods, of the published method with the best
        mean, and of the best published method of the set.
    """
    lines = []
    for protocol, ours, theirs, sets, means in _side_by_side(records, published):
        first = max(means, key=lambda m: means[m][0])
        lines += [
            f"## Published figures beside ours, {protocol}",
            "",
            "AUC-ROC (AUC-PR). Runs of others, on splits and row limits of their own: see "
            "`swift_hydra/bench/published.py` for their sources.",
            "",
            row_of("set", *map(title_of, ours), f"{first}, published", "best published of the set"),
            rule_of(len(ours) + 2),
        ]
        for s in sets:
            best = max((m for m in theirs if s in theirs[m]), key=lambda m: theirs[m][s][0])
            own = (_both(cells[s]) for cells in ours.values())
            lines.append(
                row_of(s, *own, _both(theirs[first][s]), f"{best} {_both(theirs[best][s])}")
            )
        lines.append("")
    return lines


def _both(areas):
    return "{} ({})".format(*map(short, areas))
