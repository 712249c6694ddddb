"""The benchmark's tables and figures, from the records alone: the same records give the same bytes.

Tables go into ``results/README.md`` (all of them) and, between their markers, into ``README.md``.
Means are over sets of the mean over seeds, so that every set weighs the same. A set counts for a
protocol when the protocol is defined on it for every seed; all methods of a table are compared on
the same cells.
"""

import json
from pathlib import Path


def speed_page(folder):
    """The README's speed page from the records of ``python benchmark.py --speed``; parts not
    measured are left out.
    """
    parts = {
        path.stem: json.loads(path.read_text()) for path in sorted(Path(folder).glob("*.json"))
    }
    lines = []
    for name, table in SPEED_TABLES.items():
        if name in parts:
            record = parts[name]
            title, *rows = table(record)
            versions = ", ".join(
                f"{n} {v}"
                for n, v in record["versions"].items()
                if n in ("torch", "numba", "mambapy")
            )
            where = record.get("device") or f"{record['processor']}, {record['cores']} cores"
            lines += [f"**{title}** `{record['command']}`; {where}; {versions}", "", *rows, ""]
    return lines or ["Nothing measured yet.", ""]


def _scan_table(record):
    yield "Selective scan, forward and backward, one thread, milliseconds."
    yield "| rows, tokens, channels, states | PyTorch | numba | mambapy | mambapy / PyTorch | mambapy / numba |"
    yield "|---|---:|---:|---:|---:|---:|"
    for row in record["rows"]:
        ms = {name: 1e3 * value for name, value in row["seconds"].items()}
        numba = ms.get("numba", float("nan"))
        yield (
            f"| {', '.join(map(str, row['shape']))} | {ms['torch']:.1f} | {numba:.1f} | {ms['mambapy']:.1f} | "
            f"{ms['mambapy'] / ms['torch']:.1f} | {ms['mambapy'] / numba:.1f} |"
        )


def _experts_table(record):
    rate = {(row["k"], row["n_experts"]): row["rows_per_second"] for row in record["rows"]}
    counts = sorted({E for _, E in rate})
    yield f"Rows scored per second by the number of experts, {record['n_features']} columns, one thread."
    yield (
        "| experts that run for a row | "
        + " | ".join(f"of {E}" for E in counts)
        + " | most / fewest experts |"
    )
    yield "|---|" + "---:|" * (len(counts) + 1)
    for k in sorted({k for k, _ in rate}):
        each = [rate.get((k, E)) for E in counts]
        known = [value for value in each if value]
        cells = [f"{value:,.0f}" if value else "" for value in each]
        yield f"| {k} | " + " | ".join(cells) + f" | {known[-1] / known[0]:.2f} |"
    yield ""
    yield "Two of E experts against one detector with the parameters of all of them, 6,000 rows, milliseconds."
    yield ""
    yield "| columns, experts | backend | mixture | one detector | one detector / mixture |"
    yield "|---|---|---:|---:|---:|"
    for row in record["single"]:
        mixture, single = (1e3 * row["seconds"][name] for name in ("mixture", "single"))
        yield (
            f"| {row['n_features']}, {row['n_experts']} | {row['backend']} | {mixture:.1f} | {single:.1f} | "
            f"{single / mixture:.2f} |"
        )


def _score_table(record):
    yield (
        f"Rows scored per second, trained on {record['n_train']:,} rows of {record['n_features']} columns, one "
        "thread."
    )
    yield "| detector | rows / second |"
    yield "|---|---:|"
    for name, rate in sorted(record["rows_per_second"].items(), key=lambda item: -item[1]):
        yield f"| {name} | {rate:,.0f} |"


def _fit_table(record):
    rows, total = record["rows"], record["total_seconds"]
    yield f"A fit on {len(rows)} sets (at most 10,000 rows, *seen*, seed 0), one thread each, seconds."
    yield "| | Swift Hydra (`full`) | CatBoost | ratio |"
    yield "|---|---:|---:|---:|"
    yield f"| all sets | {total['SwiftHydra']:.0f} | {total['CatBoost']:.0f} | {record['ratio']:.1f} |"
    by_rows = sorted(rows, key=lambda row: row["seconds"]["SwiftHydra"])
    for name, row in (
        ("fastest", by_rows[0]),
        ("median", by_rows[len(by_rows) // 2]),
        ("slowest", by_rows[-1]),
    ):
        ours, theirs = row["seconds"]["SwiftHydra"], row["seconds"]["CatBoost"]
        yield (
            f"| {name}: {row['dataset']}, {row['n_train']} x {row['n_features']} | {ours:.1f} | {theirs:.1f} | "
            f"{ours / theirs:.1f} |"
        )


def _run_table(record):
    yield "`python SwiftHydra.py`, whole process on the embedded set."
    yield "| backend, threads | seconds |"
    yield "|---|---:|"
    for name, seconds in record["seconds"].items():
        yield f"| {name} | {seconds:.1f} |"


def _step_table(record):
    yield "Training step of four experts' Mamba blocks, forward and backward, one thread, milliseconds."
    ways = list(dict.fromkeys(way for row in record["rows"] for way in row["seconds"]))
    yield "| tokens, rows | " + " | ".join(ways) + " |"
    yield "|---|" + "---:|" * len(ways)
    for row in record["rows"]:
        cells = [
            f"{1e3 * row['seconds'][way]:.2f}" if way in row["seconds"] else "" for way in ways
        ]
        yield f"| {row['tokens']}, {row['rows']} | " + " | ".join(cells) + " |"


def _bounds_table(record):
    rows = record["rows"]
    bounds = list(dict.fromkeys((row["normals"], row["centres"]) for row in rows))
    sets = list(dict.fromkeys(row["dataset"] for row in rows))
    yield (
        f"Bounds on the rows that stand for a large table: AUC-ROC on {len(sets)} sets cut to 50,000 rows, *seen*, "
        "seed 10."
    )
    yield (
        "| reference normals, kernel centres | mean | " + " | ".join(sets) + " | fit s | score s |"
    )
    yield "|---|" + "---:|" * (len(sets) + 3)
    for bound in bounds:
        mine = [row for row in rows if (row["normals"], row["centres"]) == bound]
        auc = {row["dataset"]: row["auc_roc"] for row in mine}
        total = [sum(row[name] for row in mine) for name in ("fit_seconds", "score_seconds")]
        yield (
            f"| {bound[0]:,}, {bound[1]:,} | {sum(auc.values()) / len(auc):.4f} | "
            + " | ".join(f"{auc[name]:.4f}" for name in sets)
            + f" | {total[0]:.0f} | {total[1]:.0f} |"
        )


def _scale_table(record):
    yield (
        f"Large tables, one thread; slope of log fit seconds in log rows, 30 columns: {record['slope']:.2f}. Memory is "
        "the peak beyond the table itself and the imports."
    )
    yield "| rows x columns | fit s | score s | rows scored / second | table MiB | memory MiB |"
    yield "|---|---:|---:|---:|---:|---:|"
    for row in record["rows"]:
        beyond = row["peak_mib"] - row["before_mib"]
        yield (
            f"| {row['n_rows']:,} x {row['n_features']} | {row['fit_seconds']:.1f} | {row['score_seconds']:.1f} | "
            f"{row['n_rows'] / row['score_seconds']:,.0f} | {row['data_mib']:.0f} | {beyond:.0f} |"
        )


def _gpu_table(record):
    off, spread = record["largest_difference_of_scores"], record["spread_of_scores"]
    yield f"GPU, backend {record['backend']}; scores differ from the CPU's by at most {off:.1g} (spread {spread:.2g})."
    yield "| what | milliseconds |"
    yield "|---|---|"
    for row in record["scan"]:
        ms = ", ".join(f"{name} {1e3 * value:.2f}" for name, value in row["seconds"].items())
        yield f"| scan, forward and backward, {', '.join(map(str, row['shape']))} | {ms} |"
    for row in record["step"]:
        ms = ", ".join(f"{name} {1e3 * value:.2f}" for name, value in row["seconds"].items())
        yield f"| Mamba block's training step, {row['tokens']} tokens, {row['rows']} rows, 4 experts | {ms} |"


SPEED_TABLES = {
    "scan": _scan_table,
    "step": _step_table,
    "experts": _experts_table,
    "score": _score_table,
    "fit": _fit_table,
    "run": _run_table,
    "scale": _scale_table,
    "bounds": _bounds_table,
    "gpu": _gpu_table,
}
