"""The benchmark's tables and figures, from the records alone: the same records give the same bytes.

Tables go into ``results/README.md`` (all of them) and, between their markers, into ``README.md``.
Means are over sets of the mean over seeds, so that every set weighs the same. A set counts for a
protocol when the protocol is defined on it for every seed; all methods of a table are compared on
the same cells.
"""

from collections import defaultdict

import numpy as np
from scipy.stats import rankdata

from swift_hydra.bench.scores import Scores, holm, load_records, paired
from swift_hydra.bench.speed_tables import speed_page
from swift_hydra.data.catalogue import PACKAGE
from swift_hydra.data.splits import PROTOCOLS
from swift_hydra.files import write_bytes

ROOT = PACKAGE.parent  # of the clone
README, RESULTS = ROOT / "README.md", ROOT / "results"
OURS = "full/rl"
SHOWN = {"full/rl": "**Swift Hydra** (`full`)", "paper/rl": "Swift Hydra, `paper`"}
TWO = {0, 1}  # seeds of the ladder and of what was measured on two seeds only


def _name(method):
    return SHOWN.get(method, method)


def _shown_p(p):
    return f"{p:.3f}" if p >= 0.001 else "< .001"


def headline(records, protocol, methods, seeds):
    """One protocol's full comparison as Markdown lines."""
    scores = Scores(records, protocol, seeds, methods)
    if OURS not in scores.complete:
        return []
    order = sorted(scores.complete, key=lambda m: -scores.per_set(m).mean())
    table = np.array([scores.per_set(m) for m in order])  # (methods, sets)
    ranks = np.apply_along_axis(lambda column: rankdata(-column), 0, np.round(table, 9)).mean(1)
    ours = scores.per_set(OURS)
    against = {m: paired(ours, scores.per_set(m)) for m in order if m != OURS}
    adjusted = dict(zip(against, holm([r[4] for r in against.values()]), strict=True))
    peers = [m for m in order if "/" not in m]
    lines = [
        f"## {protocol}: {len(scores.sets)} sets, seeds {', '.join(map(str, scores.seeds))}",
        "",
        "± is the standard deviation over seeds of the mean over sets. The difference is Swift Hydra (`full`) "
        "minus the row, with its bootstrap 95 % interval over sets; p is Wilcoxon's signed-rank test over sets, "
        "corrected by Holm; seconds are means over cells, one thread.",
        "",
        "| method | AUC-ROC | AUC-PR | mean rank | difference | 95 % | p (Holm) | wins / losses | fit s | score s "
        "|",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for m, rank in zip(order, ranks, strict=True):
        roc, pr = scores.over_seeds(m), scores.over_seeds(m, "auc_pr")
        row = (
            f"| {_name(m)} | {roc[0]:.4f} ± {roc[1]:.4f} | {pr[0]:.4f} ± {pr[1]:.4f} | {rank:.2f} "
        )
        if m == OURS:
            row += "| | | | "
        else:
            difference, _, low, high, _, wins, losses = against[m]
            row += f"| {difference:+.4f} | {low:+.4f} to {high:+.4f} | {_shown_p(adjusted[m])} | {wins} / {losses} "
        seconds = [
            np.mean([scores.cells[m][k][n] for k in scores.keys])
            for n in ("fit_seconds", "score_seconds")
        ]
        lines.append(row + f"| {seconds[0]:.2f} | {seconds[1]:.3f} |")
    if peers:
        best = np.max([scores.per_set(m) for m in peers], axis=0)
        wins, losses = (ours > best).sum(), (ours < best).sum()
        lines.append(
            f"| *the best peer of every set, chosen on its test rows* | {best.mean():.4f} | | | "
            f"{ours.mean() - best.mean():+.4f} | | | {wins} / {losses} | | |"
        )
    lines += [""]
    for m, (n, n_failed) in sorted(scores.incomplete.items()):
        lines += [
            f"{_name(m)} has {n} of {len(scores.keys)} cells ({n_failed} failed) and is left out.",
            "",
        ]
    return lines


def overview(records, methods, seeds):
    """The README's table: one row per method, the three protocols side by side."""
    protocols = {p: Scores(records, p, seeds, methods) for p in PROTOCOLS}
    protocols = {p: s for p, s in protocols.items() if OURS in s.complete}
    if not protocols:
        return ["No complete record of the comparison yet."]
    means, fewer = defaultdict(dict), set()
    for p, scores in protocols.items():
        for m in scores.complete:
            means[m][p] = scores.per_set(m).mean(), scores.per_set(m, "auc_pr").mean()
        part = Scores(records, p, TWO, methods)
        for m in set(part.complete) - set(scores.complete):
            fewer.add(m)
            means[m][p] = part.per_set(m).mean(), part.per_set(m, "auc_pr").mean()
    order = sorted(
        means, key=lambda m: -np.mean([v[0] for v in means[m].values()]) + 10 * (len(means[m]) < 2)
    )
    best = {
        (p, i): max(v[p][i] for m, v in means.items() if p in v and m not in fewer)
        for p in protocols
        for i in (0, 1)
    }
    heads = [f"*{p}*, {len(s.sets)} sets" for p, s in protocols.items()]
    lines = [
        "| mean AUC-ROC (AUC-PR) | " + " | ".join(heads) + " |",
        "|---|" + "---:|" * len(protocols),
    ]
    for m in order:
        row = []
        for p in protocols:
            if p not in means[m]:
                row.append("")
                continue
            text = [f"{v:.3f}"[1:] if round(v, 3) < 1 else "1.000" for v in means[m][p]]
            text = [f"**{t}**" if means[m][p][i] == best[p, i] else t for i, t in enumerate(text)]
            row.append(f"{text[0]} ({text[1]})")
        lines.append(
            f"| {_name(m)}{' (seeds 0, 1)' if m in fewer else ''} | " + " | ".join(row) + " |"
        )
    row = []
    for scores in protocols.values():
        peers = [scores.per_set(m) for m in scores.complete if "/" not in m]
        row.append(f"{np.max(peers, axis=0).mean():.3f}"[1:] if peers else "")
    lines.append("| *best peer of every set, chosen on test rows* | " + " | ".join(row) + " |")
    return lines


def ladder(records, protocol, base, methods, seeds, text):
    """Rungs with everything else equal: each row's difference to ``base``."""
    scores = Scores(records, protocol, seeds, methods)
    if base not in scores.complete or len(scores.complete) < 2:
        return []
    reference = scores.per_set(base)
    lines = [
        f"## {text}",
        "",
        f"*{protocol}*, {len(scores.sets)} sets, seeds {', '.join(map(str, scores.seeds))}. The difference is "
        f"`{base}` minus the row ± its standard error over sets; p is Wilcoxon's, not corrected; the rank is the "
        "effective rank of the generated rows.",
        "",
        f"| method | AUC-ROC | AUC-PR | `{base}` minus it | p | wins / losses | rank | fit s | score s |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for m in sorted(scores.complete, key=lambda m: -scores.per_set(m).mean()):
        cells = [scores.cells[m][k] for k in scores.keys]
        rank = np.mean([c.get("effective_rank", 0.0) for c in cells])
        row = f"| {m} | {scores.per_set(m).mean():.4f} | {scores.per_set(m, 'auc_pr').mean():.4f} "
        if m == base:
            row += "| | | "
        else:
            difference, error, _, _, p, wins, losses = paired(reference, scores.per_set(m))
            row += f"| {difference:+.4f} ± {error:.4f} | {_shown_p(p)} | {wins} / {losses} "
        seconds = [np.mean([c[n] for c in cells]) for n in ("fit_seconds", "score_seconds")]
        lines.append(row + f"| {rank:.1f} | {seconds[0]:.1f} | {seconds[1]:.3f} |")
    lines += [""]
    for m, (n, n_failed) in sorted(scores.incomplete.items()):
        lines += [
            f"{m} has {n} of {len(scores.keys)} cells ({n_failed} failed) and is left out.",
            "",
        ]
    return lines


def per_dataset(records, protocol, methods, seeds):
    """Mean and spread over seeds for every set and every complete method."""
    scores = Scores(records, protocol, seeds, methods)
    if OURS not in scores.complete:
        return []
    order = sorted(scores.complete, key=lambda m: -scores.per_set(m).mean())
    lines = [
        f"## {protocol}, every set: AUC-ROC, mean ± standard deviation over seeds",
        "",
        "| set | " + " | ".join(map(_name, order)) + " |",
        "|---|" + "---:|" * len(order),
    ]
    for dataset in scores.sets:
        row = []
        for m in order:
            values = [scores.cells[m][k]["auc_roc"] for k in scores.keys if k[0] == dataset]
            spread = np.std(values, ddof=1) if len(values) > 1 else 0.0
            row.append(f"{np.mean(values):.3f} ± {spread:.3f}")
        lines.append(f"| {dataset} | " + " | ".join(row) + " |")
    return [*lines, ""]


def script_table(records):
    """Times and memory of the main script on whole tables."""
    cells = [r for r in records if r["method"] == "script"]
    if not cells:
        return []
    lines = [
        "## The main script, whole tables",
        "",
        "`python SwiftHydra.py SET --seed 0`, one process after the other; seconds are wall-clock with import and "
        "saving.",
        "",
        "| set | training rows | features | AUC-ROC | AUC-PR | seconds | peak MiB |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for cell in cells:
        name = f"{cell['dataset']} ({cell['protocol']}, seed {cell['seed']})"
        if cell["failed"]:
            lines.append(f"| {name} | | | failed: {cell['failed']} | | | |")
            continue
        lines.append(
            f"| {name} | {cell['n_train']} | {cell['n_features']} | {cell['auc_roc']:.4f} | "
            f"{cell['auc_pr']:.4f} | {cell['wall_seconds']:.0f} | {cell['peak_memory_mib']} |"
        )
    return [*lines, ""]


def sections(records):
    """Everything that is written: (lines of results/README.md, {marker: lines for README.md})."""
    from swift_hydra.bench.methods import ABLATIONS, GROUPS
    from swift_hydra.bench.methods import OURS as ours

    seeds = {0, 1, 2, 3, 4}
    compared = [*ours, *GROUPS["peers"], *GROUPS["foundation"]]
    lines = [
        "# Measured results",
        "",
        "Written by `python benchmark.py --report` from `results/records`.",
        "",
    ]
    for protocol in PROTOCOLS:
        lines += headline(records, protocol, compared, seeds)
    for preset in ("paper", "full"):
        rungs = [m for m in GROUPS["ladder"] if m.startswith(f"{preset}/")]
        for protocol in ("unseen", "seen"):
            lines += ladder(
                records,
                protocol,
                f"{preset}/rl",
                rungs,
                TWO,
                f"Where generated anomalies come from, preset {preset}, {protocol}",
            )
        parts = [f"{preset}/rl", *(f"{preset}/rl/{a}" for a in ABLATIONS)]
        for protocol in ("unseen", "seen"):
            lines += ladder(
                records,
                protocol,
                f"{preset}/rl",
                parts,
                TWO,
                f"What each part gives, preset {preset}, {protocol}",
            )
    lines += script_table(records)
    for protocol in PROTOCOLS:
        lines += per_dataset(records, protocol, compared, seeds)
    tables = {"overview": overview(records, compared, seeds)}
    rungs = [m for m in GROUPS["ladder"] if m.startswith("paper/")]
    parts = ["paper/rl", *(f"paper/rl/{a}" for a in ABLATIONS)]
    for name, methods in (("generators", rungs), ("parts", parts)):
        rows = ladder(records, "unseen", "paper/rl", methods, TWO, "")
        tables[name] = [line for line in rows if line.startswith("|")] or [
            "No complete record of it yet."
        ]
    tables["speed"] = speed_page(RESULTS / "speed")[:-1]
    return lines, tables


def filled(text, tables):
    """``text`` with the lines between ``<!-- name -->`` and ``<!-- /name -->`` replaced."""
    for name, lines in tables.items():
        start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
        if start in text and end in text:
            head, rest = text.split(start, 1)
            text = head + start + "\n" + "\n".join(lines) + "\n" + end + rest.split(end, 1)[1]
    return text


def write_report(records, figures=False):
    """Write the tables, with ``figures`` the diagrams too; returns the paths written."""
    records = load_records(records)
    lines, tables = sections(records)
    written = [RESULTS / "README.md", README]
    write_bytes(written[0], ("\n".join(lines).rstrip() + "\n").encode())
    write_bytes(written[1], filled(README.read_text(), tables).encode())
    return written + (_diagrams(records) if figures else [])


def _diagrams(records):
    """Critical-difference diagrams (Demsar 2006): mean ranks; a bar joins methods that
    Wilcoxon-Holm cannot part.
    """
    from swift_hydra.settings import InputError

    try:
        import matplotlib
        import pandas
        import scikit_posthocs
    except ImportError as error:
        raise InputError(
            f"figures need the package {error.name}: pip install -r requirements-bench.txt"
        ) from None
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from swift_hydra.bench.methods import GROUPS
    from swift_hydra.bench.methods import OURS as ours

    written = []
    for protocol in PROTOCOLS:
        scores = Scores(records, protocol, {0, 1, 2, 3, 4}, [*ours, *GROUPS["peers"]])
        if OURS not in scores.complete:
            continue
        table = pandas.DataFrame({m: scores.per_set(m) for m in scores.complete}, index=scores.sets)
        long = table.reset_index(names="set").melt(
            id_vars="set", var_name="method", value_name="auc"
        )
        p = scikit_posthocs.posthoc_wilcoxon(
            long, "auc", "method", p_adjust="holm", zero_method="zsplit"
        )
        plt.figure(figsize=(9, 3.2))
        scikit_posthocs.critical_difference_diagram(table.rank(axis=1, ascending=False).mean(), p)
        plt.title(f"mean rank on {protocol}, {len(scores.sets)} sets (1 is best)")
        path = RESULTS / f"critical-difference-{protocol}.png"
        plt.savefig(path, dpi=120, bbox_inches="tight")
        plt.close()
        written.append(path)
    return written
