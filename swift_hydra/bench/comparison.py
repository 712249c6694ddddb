"""One method compared with others under one protocol: Markdown with tests, intervals and costs."""

from collections import defaultdict

import numpy as np
from scipy.stats import rankdata

from swift_hydra.bench.markdown import row_of, rule_of
from swift_hydra.bench.scores import UNDEFINED, Scores, holm, paired, source_of
from swift_hydra.settings import printable

SWIFT_HYDRA = "full/rl"  # the method that others are compared with
TITLES = {SWIFT_HYDRA: "**Swift Hydra** (`full`)", "paper/rl": "Swift Hydra, `paper`"}
PLAIN_TITLES = {SWIFT_HYDRA: "Swift Hydra (`full`)"}
COMPARED = ("difference", "95 %", "one set left out", "p (Holm)", "wins / losses")
# {head of a column of AUC-PR: the entry of COMPARED that it shows}
OF_PRECISION = {"difference, PR": "difference", "95 %, PR": "95 %", "p (Holm), PR": "p (Holm)"}
COST = ("fit s", "score s")


def title_of(method):
    """A method's name in tables."""
    return TITLES.get(method, method)


def shown_p(p):
    """A p-value in three digits."""
    return f"{p:.3f}" if p >= 0.001 else "< .001"


def short(value):
    """Three decimals without the zero before the point."""
    return f"{value:.3f}"[1:] if round(value, 3) < 1 else "1.000"


def areas(scores, method):
    """A method's mean AUC-ROC and AUC-PR over the sets of a :class:`Scores`."""
    return scores.per_set(method).mean(), scores.per_set(method, "auc_pr").mean()


def best_areas(means, columns):
    """{(column, 0 or 1): largest AUC-ROC or AUC-PR}, from {method: {column: (both)}}."""
    return {
        (name, i): max(v[name][i] for v in means.values() if name in v)
        for name in columns
        for i in (0, 1)
    }


def area_cells(areas_of, columns, best):
    """Cells ``AUC-ROC (AUC-PR)`` from {column: (both)}, the best in bold, missing ones empty."""
    cells = []
    for name in columns:
        values = areas_of.get(name, ())
        bold = ["**" if value == best[name, i] else "" for i, value in enumerate(values)]
        texts = [f"{b}{short(v)}{b}" for b, v in zip(bold, values, strict=True)]
        cells.append(f"{texts[0]} ({texts[1]})" if texts else "")
    return cells


def left_out(scores, title):
    """Markdown lines that name the methods which lack cells."""
    lines = []
    for m, (n, n_failed) in sorted(scores.incomplete.items()):
        of = f"{n} of {len(scores.keys)} cells ({n_failed} failed)"
        lines += [f"{title(m)} has {of} and is left out.", ""]
    return lines


def cost(scores, method):
    """The table cells of ``COST``: mean seconds over the benchmark's cells."""
    fit, score = (scores.per_cell(method, f"{what}_seconds") for what in ("fit", "score"))
    return f"{fit:.2f}", f"{score:.3f}"


def headline(scores, reference=SWIFT_HYDRA):
    """One protocol's full comparison.

    Args:
        scores: a :class:`scores.Scores`.
        reference: the method that the others are compared with.

    Returns:
        Markdown lines; none if the reference lacks cells.
    """
    if reference not in scores.complete:
        return []
    against = _against(scores, reference, "auc_roc")
    precision = _against(scores, reference, "auc_pr")
    lines = [
        f"## {scores.protocol}: {len(scores.sets)} sets, seeds {', '.join(map(str, scores.seeds))}",
        "",
        f"± is the standard deviation over seeds of the mean over sets. The difference is "
        f"{PLAIN_TITLES.get(reference, reference)} minus the row, with its 95 % interval by a "
        "bootstrap over the sets' sources (sets of one source are drawn together), and the lowest "
        "and highest mean difference when one set is left out; p is Wilcoxon's signed-rank test "
        "over sets (which takes sets of one source for independent), corrected by Holm. The "
        "columns with PR say the same of AUC-PR. Seconds are means over cells, one thread, of "
        "whatever day a cell was measured on.",
        "",
        row_of("method", "AUC-ROC", "AUC-PR", "mean rank", *COMPARED, *OF_PRECISION, *COST),
        rule_of(13),
    ]
    for m, rank in mean_ranks(scores).items():
        lines.append(
            row_of(
                title_of(m),
                "{:.4f} ± {:.4f}".format(*scores.over_seeds(m)),
                "{:.4f} ± {:.4f}".format(*scores.over_seeds(m, "auc_pr")),
                f"{rank:.2f}",
                *against[m],
                *(precision[m][COMPARED.index(name)] for name in OF_PRECISION.values()),
                *cost(scores, m),
            )
        )
    return [*lines, *_best_peer_row(scores, reference), "", *left_out(scores, title_of)]


def _against(scores, reference, name):
    """{method: cells of ``COMPARED``} for the complete methods; empty for the reference."""
    ours = scores.per_set(reference, name)
    sources = [source_of(dataset) for dataset in scores.sets]
    others = [m for m in scores.best_first() if m != reference]
    results = [paired(ours, scores.per_set(m, name), sources) for m in others]
    cells = {reference: ("",) * len(COMPARED)}
    for m, r, p in zip(others, results, holm([r.p for r in results]), strict=True):
        cells[m] = (
            f"{r.difference:+.4f}",
            f"{r.low:+.4f} to {r.high:+.4f}",
            f"{r.lowest:+.4f} to {r.highest:+.4f}",
            shown_p(p),
            f"{r.wins} / {r.losses}",
        )
    return cells


def mean_ranks(scores):
    """{method: mean rank over the sets}, the best method by AUC-ROC first."""
    order = scores.best_first()
    table = np.round([scores.per_set(m) for m in order], 9)  # (methods, sets)
    ranks = np.apply_along_axis(lambda column: rankdata(-column), 0, table).mean(1)
    return dict(zip(order, ranks, strict=True))


def _best_peer_row(scores, reference):
    """The last row of :func:`headline`, or none if no peer is complete."""
    best = scores.best_peer_per_set(besides=reference)
    if best is None:
        return []
    ours = scores.per_set(reference)
    wins_and_losses = f"{(ours > best).sum()} / {(ours < best).sum()}"
    difference = f"{ours.mean() - best.mean():+.4f}"
    title = "*the best peer of every set, chosen on its test rows*"
    cells = [title, f"{best.mean():.4f}", "", "", difference, "", "", "", wins_and_losses]
    return [row_of(*cells, *[""] * (len(OF_PRECISION) + len(COST)))]


def without_copies(whole, reference=SWIFT_HYDRA):
    """The comparison on the test rows that are not copies of training rows.

    Args:
        whole: a :class:`scores.Scores`.
        reference: the method that the others are compared with.

    Returns:
        Markdown lines; none if the reference lacks cells or some record lacks these scores.
    """
    cells = [whole.cells[m][key] for m in whole.complete for key in whole.keys]
    if reference not in whole.complete or any("n_test_copies" not in cell for cell in cells):
        return []
    with_copies = {cell["dataset"] for cell in cells if cell["n_test_copies"]}
    empty = {cell["dataset"] for cell in cells if cell["auc_roc_fresh"] is None}
    n_rows, n_copies = (
        sum(whole.cells[reference][key][name] for key in whole.keys)
        for name in ("n_test", "n_test_copies")
    )
    lines = [
        f"### {whole.protocol}, without test rows that are copies of training rows",
        "",
        f"{len(with_copies)} of {len(whole.sets)} sets have such rows, {n_copies} of {n_rows} test "
        "rows over all seeds. The last column but two is the AUC-ROC of all test rows of the same "
        "sets.",
        "",
    ]
    if empty:
        names = ", ".join(sorted(empty))
        lines += [f"Left out, as without copies a class has no row under some seed: {names}.", ""]
    kept = [cell for cell in cells if cell["dataset"] not in empty]
    scores = Scores(kept, whole.protocol)
    if not scores.sets:
        return lines
    against = _against(scores, reference, "auc_roc_fresh")
    head = row_of("method", "AUC-ROC", "AUC-PR", *COMPARED, "with copies", *COST)
    lines += [head, rule_of(10)]
    for m in sorted(scores.complete, key=lambda m: -scores.per_set(m, "auc_roc_fresh").mean()):
        areas = [scores.per_set(m, f"auc_{name}_fresh").mean() for name in ("roc", "pr")]
        of_all = f"{scores.per_set(m).mean():.4f}"
        shown = [f"{area:.4f}" for area in areas]
        lines.append(row_of(title_of(m), *shown, *against[m], of_all, *cost(scores, m)))
    return [*lines, ""]


def per_dataset(scores, reference=SWIFT_HYDRA):
    """Mean and spread over seeds for every set and every complete method.

    Args:
        scores: a :class:`scores.Scores`.
        reference: the method without which there is no table.

    Returns:
        Markdown lines; none if the reference lacks cells.
    """
    if reference not in scores.complete:
        return []
    order = scores.best_first()
    lines = [
        f"## {scores.protocol}, every set: AUC-ROC, mean ± standard deviation over seeds",
        "",
        "| set | " + " | ".join(map(title_of, order)) + " |",
        rule_of(len(order)),
    ]
    for dataset in scores.sets:
        row = []
        for m in order:
            values = [scores.cells[m][k]["auc_roc"] for k in scores.keys if k[0] == dataset]
            spread = np.std(values, ddof=1) if len(values) > 1 else 0.0
            row.append(f"{np.mean(values):.3f} ± {spread:.3f}")
        lines.append(row_of(dataset, *row))
    return [*lines, ""]


def without_scores(records):
    """Markdown lines on sets for which a protocol is undefined, and on cells that failed."""
    undefined = defaultdict(set)
    failed = defaultdict(list)
    for record in records:
        reason = record["failed"]
        if reason is not None and UNDEFINED in reason:
            undefined[record["protocol"]].add(record["dataset"])
        elif reason is not None:
            failed[record["protocol"], record["method"]].append((record["dataset"], reason))
    lines = []
    for protocol, names in sorted(undefined.items()):
        listed = printable(", ".join(sorted(names)))
        lines += [f"*{protocol}* is undefined on, and has no scores of: {listed}.", ""]
    if failed:
        lines += [row_of("protocol", "method", "failed cells", "the first", "all sets"), rule_of(4)]
        for (protocol, method), cells in sorted(failed.items()):
            sets = ", ".join(sorted({name for name, _ in cells}))
            first = ": ".join(cells[0]).replace("|", "/")
            lines.append(row_of(protocol, title_of(method), len(cells), first, sets))
        lines.append("")
    return lines
