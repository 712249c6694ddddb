"""Markdown tables with protocols side by side, and of the detector without its parts."""

import numpy as np

from swift_hydra.bench.comparison import (
    SWIFT_HYDRA,
    area_cells,
    areas,
    best_areas,
    left_out,
    short,
    shown_p,
    title_of,
    without_copies,
)
from swift_hydra.bench.markdown import row_of, rule_of
from swift_hydra.bench.methods import PARTS_OF_FULL
from swift_hydra.bench.scores import HEADLINES, Scores, holm, paired, source_of

# From no known anomaly to all of them, and training on half of the normals alone.
BY_LABELS = ("weak-0", "weak-0.01", "weak-5", "weak-0.05", "weak-10", "weak-0.1", "weak-20")
BY_LABELS += ("weak-0.25", "weak-1.0", "one-class")
FIRST_SEED = {0}  # for measurements with one seed
STUDENT = f"{SWIFT_HYDRA}/fast"
PARTS_PROTOCOLS = (*HEADLINES, "weak-0.05")  # on which every part of "full" is taken out


def columns_of(records, methods, protocols=BY_LABELS):
    """The scores for each protocol of which Swift Hydra has complete records.

    Args:
        records: dicts.
        methods: the methods to compare.
        protocols: names, in the order of the columns.

    Returns:
        {protocol: :class:`Scores`}. The seeds of a protocol are 0, 1, ..., as far as Swift Hydra
        and at least half of the methods that are complete on seed 0 have them.
    """
    columns = {}
    for name in protocols:
        first = Scores(records, name, FIRST_SEED, methods)
        if SWIFT_HYDRA not in first.complete:
            continue
        seeds = set(FIRST_SEED)
        columns[name] = first
        while True:
            seeds.add(len(seeds))
            more = Scores(records, name, seeds, methods)
            own = SWIFT_HYDRA in more.complete and len(more.seeds) == len(seeds)
            if not own or 2 * len(more.complete) < len(first.complete):
                break
            columns[name] = more
    return columns


def means_table(records, methods, columns):
    """AUC-ROC (AUC-PR) of every method, the protocols side by side.

    Args:
        records: dicts.
        methods: the methods to show.
        columns: the result of :func:`columns_of` for the same records and methods.

    Returns:
        Markdown lines. The cell of a method that has fewer seeds than its column, from seed 0 on,
        is marked with a dagger. Methods that lack sets of seed 0 are named below the table.
    """
    if not columns:
        return ["No record of it yet."]
    means = {
        m: {name: areas(s, m) for name, s in columns.items() if m in s.complete} for m in methods
    }
    best = best_areas(means, columns)
    heads = [f"*{name}*, {_seeds(s)}" for name, s in columns.items()]
    lines = [row_of("mean AUC-ROC (AUC-PR)", *heads), rule_of(len(columns))]
    cells = {m: area_cells(means[m], columns, best) for m in methods}
    missing = []
    for i, (name, scores) in enumerate(columns.items()):
        for seeds in _beginnings(scores.seeds[:-1]):
            part = Scores(records, name, seeds, methods)
            for m in set(part.complete) - set(scores.complete):
                cells[m][i] = "{} ({})†".format(*map(short, areas(part, m)))
        first = Scores(records, name, FIRST_SEED, methods)
        missing += [f"*{name}*: {line}" for line in left_out(first, title_of) if line]

    def place(method):
        of = means[method].values()
        return -sum(map(bool, cells[method])), -sum(roc for roc, _ in of)

    for m in sorted((m for m in methods if any(cells[m])), key=place):
        lines.append(row_of(title_of(m), *cells[m]))
    for line in missing:
        lines += ["", line]
    return lines


def tables_without_copies(columns):
    """:func:`comparison.without_copies` for all columns whose records allow it, Markdown lines."""
    return [line for scores in columns.values() for line in without_copies(scores)]


def _beginnings(seeds):
    """The sets {0}, {0, 1} and so on, of seeds 0, 1, 2, ..."""
    return [set(seeds[: i + 1]) for i in range(len(seeds))]


def _seeds(scores):
    """The seeds of a column as a text."""
    seeds = scores.seeds
    return f"seed {seeds[0]}" if len(seeds) == 1 else f"seeds {seeds[0]} to {seeds[-1]}"


def leads_table(columns):
    """Swift Hydra against the best peer of every column.

    Args:
        columns: the result of :func:`columns_of`.

    Returns:
        Markdown lines: for AUC-ROC and AUC-PR the peer with the best mean, the lead over it with
        its standard error over sets, the lead's interval by a bootstrap over the sets' sources, its
        lowest and highest value when one set is left out, p corrected by Holm over all peers, and
        how many peers are behind with such a p below .05.
    """
    heads = ("lead", "95 %", "one set left out", "p (Holm)", "behind, p < .05")
    heads = ("sets", "best peer, AUC-ROC", *heads, "best peer, AUC-PR", *heads)
    lines = [row_of("protocol", *heads), rule_of(len(heads))]
    for name, scores in columns.items():
        peers = [m for m in scores.complete if "/" not in m]
        if not peers:
            continue
        sources = [source_of(dataset) for dataset in scores.sets]
        cells = []
        for area in ("auc_roc", "auc_pr"):
            ours = scores.per_set(SWIFT_HYDRA, area)
            results = [paired(ours, scores.per_set(m, area), sources) for m in peers]
            adjusted = holm([r.p for r in results])
            behind = sum(
                p < 0.05 and r.difference > 0 for p, r in zip(adjusted, results, strict=True)
            )
            best = min(range(len(peers)), key=lambda i: results[i].difference)
            r = results[best]
            cells += [peers[best], f"{r.difference:+.3f} ± {r.error:.3f}"]
            cells += [f"{r.low:+.3f} to {r.high:+.3f}", f"{r.lowest:+.3f} to {r.highest:+.3f}"]
            cells += [shown_p(adjusted[best]), f"{behind} of {len(peers)}"]
        lines.append(row_of(f"*{name}*, {_seeds(scores)}", len(scores.sets), *cells))
    return lines if len(lines) > 2 else ["No record of it yet."]


def student_table(records):
    """The student of ``fast=True`` against the detector that it learned from, as Markdown lines.

    There is a line for every protocol, on the seeds that have records of the student.

    Args:
        records: dicts.
    """
    heads = ("sets", "detector", "student", "difference", "worst set", "sets it follows on")
    lines = [row_of("mean AUC-ROC (AUC-PR)", *heads), rule_of(len(heads))]
    for protocol in (*HEADLINES, *BY_LABELS):
        seeds = _seeds_of(records, STUDENT, protocol)
        scores = Scores(records, protocol, seeds, [SWIFT_HYDRA, STUDENT])
        if not seeds or len(scores.complete) < 2:
            continue
        both = [
            paired(scores.per_set(STUDENT, area), scores.per_set(SWIFT_HYDRA, area))
            for area in ("auc_roc", "auc_pr")
        ]
        change = scores.per_set(STUDENT) - scores.per_set(SWIFT_HYDRA)
        worst = int(change.argmin())
        shares = scores.entries(STUDENT, "verified_share")
        follows = round(len(scores.sets) * np.mean(np.less(shares, 1))) if shares else ""
        lines.append(
            row_of(
                f"*{protocol}*, {_seeds(scores)}",
                len(scores.sets),
                *("{:.3f} ({:.3f})".format(*areas(scores, m)) for m in (SWIFT_HYDRA, STUDENT)),
                "{} ({})".format(*(f"{r.difference:+.3f} ± {r.error:.3f}" for r in both)),
                f"{scores.sets[worst]} {change[worst]:+.3f}",
                follows,
            )
        )
    return lines if len(lines) > 2 else ["No record of it yet."]


def parts_table(records):
    """What each part of "full" gives: the detector minus itself without the part.

    Args:
        records: dicts.

    Returns:
        Markdown lines: for every part and protocol the mean differences of AUC-ROC and AUC-PR with
        their standard errors over sets, on the seeds that have records of all parts.
    """
    columns = {}
    for protocol in PARTS_PROTOCOLS:
        seeds = set.intersection(*(_seeds_of(records, m, protocol) for m in PARTS_OF_FULL))
        scores = Scores(records, protocol, seeds, [SWIFT_HYDRA, *PARTS_OF_FULL])
        if seeds and len(scores.complete) == 1 + len(PARTS_OF_FULL):
            columns[protocol] = scores
    if not columns:
        return ["No complete record of it yet."]
    heads = [f"*{name}*, {len(s.sets)} sets, {_seeds(s)}" for name, s in columns.items()]
    lines = [row_of("the gain by", *heads), rule_of(len(columns))]
    for method, part in PARTS_OF_FULL.items():
        gains = (
            [
                paired(scores.per_set(SWIFT_HYDRA, area), scores.per_set(method, area))
                for area in ("auc_roc", "auc_pr")
            ]
            for scores in columns.values()
        )
        cells = (" / ".join(f"{r.difference:+.3f} ({r.error:.3f})" for r in both) for both in gains)
        lines.append(row_of(part, *cells))
    return lines


def _seeds_of(records, method, protocol):
    """The seeds with records of a method under a protocol."""
    return {r["seed"] for r in records if (r["method"], r["protocol"]) == (method, protocol)}
