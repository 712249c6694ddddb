"""The tables of the speed page, from the records of ``python benchmark.py --speed``.

A table is a generator: it first yields a title that says what was measured, then Markdown lines.
"""

import json
from pathlib import Path

from swift_hydra.bench.markdown import row_of, rule_of


def speed_page(folder):
    """The tables of all parts that have a record.

    Args:
        folder: folder of the parts' records.

    Returns:
        Markdown lines.
    """
    parts = {
        path.stem: json.loads(path.read_text("utf-8"))
        for path in sorted(Path(folder).glob("*.json"))
    }
    lines = []
    for name, table in SPEED_TABLES.items():
        if name not in parts:
            continue
        record = parts[name]
        title, *rows = table(record)
        shown = ("torch", "numba", "mambapy")
        versions = ", ".join(f"{n} {v}" for n, v in record["versions"].items() if n in shown)
        where = record.get("device") or f"{record['processor']}, {record['cores']} cores"
        lines += [f"**{title}** `{record['command']}`; {where}; {versions}", "", *rows, ""]
    return lines or ["Nothing measured yet.", ""]


def _joined(values):
    return ", ".join(map(str, values))


def _milliseconds(row):
    return {name: 1e3 * value for name, value in row["seconds"].items()}


def _scan_table(record):
    yield "Selective scan, forward and backward, one thread, milliseconds."
    ratios = "mambapy / PyTorch | mambapy / numba"
    yield f"| rows, tokens, channels, states | PyTorch | numba | mambapy | {ratios} |"
    yield rule_of(5)
    for row in record["rows"]:
        ms = _milliseconds(row)
        numba = ms.get("numba", float("nan"))
        values = (ms["torch"], numba, ms["mambapy"])
        ratios = (ms["mambapy"] / ms["torch"], ms["mambapy"] / numba)
        yield row_of(_joined(row["shape"]), *(f"{value:.1f}" for value in (*values, *ratios)))


def _experts_table(record):
    rate = {(row["k"], row["n_experts"]): row["rows_per_second"] for row in record["rows"]}
    counts = sorted({E for _, E in rate})
    columns = f"{record['n_features']} columns"
    yield f"Rows scored per second by the number of experts, {columns}, one thread."
    heads = (f"of {E}" for E in counts)
    yield row_of("experts that run for a row", *heads, "most / fewest experts")
    yield rule_of(len(counts) + 1)
    for k in sorted({k for k, _ in rate}):
        each = [rate.get((k, E)) for E in counts]
        known = [value for value in each if value]
        cells = [f"{value:,.0f}" if value else "" for value in each]
        yield f"| {k} | " + " | ".join(cells) + f" | {known[-1] / known[0]:.2f} |"
    yield ""
    what = "against one detector with the parameters of all of them"
    yield f"Two of E experts {what}, {record['single'][0]['n_rows']:,} rows, milliseconds."
    yield ""
    yield "| columns, experts | backend | mixture | one detector | one detector / mixture |"
    yield "|---|---|---:|---:|---:|"
    for row in record["single"]:
        ms = _milliseconds(row)
        yield row_of(
            f"{row['n_features']}, {row['n_experts']}",
            row["backend"],
            f"{ms['mixture']:.1f}",
            f"{ms['single']:.1f}",
            f"{ms['single'] / ms['mixture']:.2f}",
        )


def _score_table(record):
    trained = f"{record['n_train']:,} rows of {record['n_features']} columns"
    yield f"Rows scored per second, trained on {trained}, one thread."
    yield "| detector | rows / second |"
    yield rule_of(1)
    for name, rate in sorted(record["rows_per_second"].items(), key=lambda item: -item[1]):
        yield row_of(name, f"{rate:,.0f}")


def _fit_table(record):
    rows = record["rows"]
    total = record["total_seconds"]
    how = "(at most 10,000 rows, *seen*, seed 0), one thread each, seconds"
    yield f"A fit on {len(rows)} sets {how}."
    yield "| | Swift Hydra (`full`) | CatBoost | ratio |"
    yield rule_of(3)
    totals = (f"{total['SwiftHydra']:.0f}", f"{total['CatBoost']:.0f}")
    yield row_of("all sets", *totals, f"{record['ratio']:.1f}")
    by_time = sorted(rows, key=lambda row: row["seconds"]["SwiftHydra"])
    for name, i in (("fastest", 0), ("median", len(rows) // 2), ("slowest", -1)):
        row = by_time[i]
        ours = row["seconds"]["SwiftHydra"]
        theirs = row["seconds"]["CatBoost"]
        yield row_of(
            f"{name}: {row['dataset']}, {row['n_train']} x {row['n_features']}",
            f"{ours:.1f}",
            f"{theirs:.1f}",
            f"{ours / theirs:.1f}",
        )


def _run_table(record):
    yield "`python SwiftHydra.py`, whole process on the embedded set."
    yield "| backend, threads | seconds |"
    yield rule_of(1)
    for name, seconds in record["seconds"].items():
        yield row_of(name, f"{seconds:.1f}")


def _step_table(record):
    what = "Training step of four experts' Mamba blocks, forward and backward"
    yield f"{what}, one thread, milliseconds."
    ways = list(dict.fromkeys(way for row in record["rows"] for way in row["seconds"]))
    yield row_of("tokens, rows", *ways)
    yield rule_of(len(ways))
    for row in record["rows"]:
        ms = _milliseconds(row)
        cells = [f"{ms[way]:.2f}" if way in ms else "" for way in ways]
        yield f"| {row['tokens']}, {row['rows']} | " + " | ".join(cells) + " |"


def _bounds_table(record):
    rows = record["rows"]
    bounds = list(dict.fromkeys((row["normals"], row["centres"]) for row in rows))
    sets = list(dict.fromkeys(row["dataset"] for row in rows))
    how = f"AUC-ROC on {len(sets)} sets cut to 50,000 rows, *seen*, seed 10"
    yield f"Bounds on the rows that stand for a large table: {how}."
    yield row_of("reference normals, kernel centres", "mean", *sets, "fit s", "score s")
    yield rule_of(len(sets) + 3)
    for bound in bounds:
        mine = [row for row in rows if (row["normals"], row["centres"]) == bound]
        auc = {row["dataset"]: row["auc_roc"] for row in mine}
        yield row_of(
            f"{bound[0]:,}, {bound[1]:,}",
            f"{sum(auc.values()) / len(auc):.4f}",
            *(f"{auc[name]:.4f}" for name in sets),
            f"{sum(row['fit_seconds'] for row in mine):.0f}",
            f"{sum(row['score_seconds'] for row in mine):.0f}",
        )


def _scale_table(record):
    slope = f"slope of log fit seconds in log rows, 30 columns: {record['slope']:.2f}"
    memory = "Memory is the peak beyond the table itself and the imports."
    yield f"Large tables, one thread; {slope}. {memory}"
    heads = "fit s | score s | rows scored / second | table MiB | memory MiB"
    heads += " | fit s, `--fast --verify 0` | score s"
    yield f"| rows x columns | {heads} |"
    yield rule_of(7)
    for row in record["rows"]:
        yield row_of(
            f"{row['n_rows']:,} x {row['n_features']}",
            f"{row['fit_seconds']:.1f}",
            f"{row['score_seconds']:.1f}",
            f"{row['n_rows'] / row['score_seconds']:,.0f}",
            f"{row['data_mib']:.0f}",
            f"{row['peak_mib'] - row['before_mib']:.0f}",
            *(f"{row['fast'][name]:.1f}" for name in ("fit_seconds", "score_seconds")),
        )


def _gpu_table(record):
    off = f"{record['largest_difference_of_scores']:.1g}"
    spread = f"{record['spread_of_scores']:.2g}"
    how = f"scores differ from the CPU's by at most {off} (spread {spread})"
    yield f"GPU, backend {record['backend']}; {how}."
    yield "| what | milliseconds |"
    yield "|---|---|"
    measured = [
        (f"scan, forward and backward, {_joined(row['shape'])}", row) for row in record["scan"]
    ]
    measured += [
        (f"Mamba block's training step, {row['tokens']} tokens, {row['rows']} rows, 4 experts", row)
        for row in record["step"]
    ]
    for what, row in measured:
        times = (f"{name} {value:.2f}" for name, value in _milliseconds(row).items())
        yield row_of(what, ", ".join(times))


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
