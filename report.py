"""The benchmark's tables and figures, from the records alone: the same records give the same bytes.

Tables go into ``results/README.md`` (all of them) and, between their markers, into ``README.md``. Means are over sets
of the mean over seeds, so that every set weighs the same. A set counts for a protocol when the protocol is defined on
it for every seed; all methods of a table are compared on the same cells.
"""

import json
from collections import defaultdict
from pathlib import Path

import numpy as np
from scipy.stats import rankdata, wilcoxon

from dataloader import PROTOCOLS
from runfolder import RunFolder

ROOT = Path(__file__).parent
README, RESULTS = ROOT / "README.md", ROOT / "results"
OURS = "full/rl"
SHOWN = {"full/rl": "**Swift Hydra** (`full`)", "paper/rl": "Swift Hydra, `paper`"}
TWO = {0, 1}  # seeds of the ladder and of what was measured on two seeds only
RESAMPLES = 10000
UNDEFINED = "is undefined for this data set"


def load_records(records):
    """All records of a folder, sorted by method, protocol, dataset and seed."""
    cells = [json.loads(path.read_text()) for path in sorted(Path(records).glob("*/*/*-seed*.json"))]
    return sorted(cells, key=lambda c: (c["method"], c["protocol"], c["dataset"], c["seed"]))


class Scores:
    """The records of one protocol, arranged for comparison.

    Args:
        records: dicts. protocol: its name. seeds: those that a set must have. methods: None for all.
    """

    def __init__(self, records, protocol, seeds=None, methods=None):
        self.cells, failed = defaultdict(dict), defaultdict(dict)
        undefined = set()
        for r in records:
            if r["protocol"] != protocol or r["method"] == "script" or (seeds is not None and r["seed"] not in seeds):
                continue
            if methods is not None and r["method"] not in methods:
                continue
            if r["failed"] is None:
                self.cells[r["method"]][r["dataset"], r["seed"]] = r
            elif UNDEFINED in r["failed"]:
                undefined.add(r["dataset"])
            else:
                failed[r["method"]][r["dataset"], r["seed"]] = r["failed"]
        everywhere = {key for cells in self.cells.values() for key in cells if key[0] not in undefined}
        self.keys = sorted(everywhere)
        self.complete = [m for m in self.cells if everywhere <= set(self.cells[m])]
        self.incomplete = {m: (len(everywhere & set(cells)), len(failed[m])) for m, cells in self.cells.items()
                           if m not in self.complete}  # fmt: skip
        self.failed = {m: len(f) for m, f in failed.items() if f}
        self.sets = sorted({dataset for dataset, _ in self.keys})
        self.seeds = sorted({seed for _, seed in self.keys})

    def per_set(self, method, name="auc_roc"):
        """Mean over seeds for every set, (n_sets,)."""
        cells = self.cells[method]
        return np.array([np.mean([cells[k][name] for k in self.keys if k[0] == d]) for d in self.sets])

    def over_seeds(self, method, name="auc_roc"):
        """(mean, standard deviation over seeds) of the mean over the sets."""
        cells = self.cells[method]
        each = [np.mean([cells[k][name] for k in self.keys if k[1] == s]) for s in self.seeds]
        return float(np.mean(self.per_set(method, name))), float(np.std(each, ddof=1)) if len(each) > 1 else 0.0


def holm(p_values):
    """Holm's step-down correction: adjusted p-values in the order given."""
    p = np.asarray(p_values, dtype=float)
    order, adjusted, running = np.argsort(p), np.empty(len(p)), 0.0
    for rank, i in enumerate(order):
        running = max(running, min(1.0, (len(p) - rank) * p[i]))
        adjusted[i] = running
    return adjusted


def paired(a, b):
    """Mean of a - b over sets, its standard error, bootstrap 95 % interval (two), Wilcoxon p, wins, losses of a."""
    d = np.round(a - b, 9)
    rows = np.random.default_rng(0).integers(0, len(d), size=(RESAMPLES, len(d)))
    low, high = np.quantile(d[rows].mean(1), [0.025, 0.975])
    p = float(wilcoxon(d).pvalue) if np.count_nonzero(d) >= 2 else 1.0
    error = float(d.std(ddof=1) / len(d) ** 0.5) if len(d) > 1 else 0.0
    return float(d.mean()), error, float(low), float(high), p, int((d > 0).sum()), int((d < 0).sum())


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
    lines = [f"## {protocol}: {len(scores.sets)} sets, seeds {', '.join(map(str, scores.seeds))}", "",
             "± is the standard deviation over seeds of the mean over sets. The difference is Swift Hydra (`full`) "
             "minus the row, with its bootstrap 95 % interval over sets; p is Wilcoxon's signed-rank test over sets, "
             "corrected by Holm; seconds are means over cells, one thread.", "",
             "| method | AUC-ROC | AUC-PR | mean rank | difference | 95 % | p (Holm) | wins / losses | fit s | score s "
             "|",
             "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|"]  # fmt: skip
    for m, rank in zip(order, ranks, strict=True):
        roc, pr = scores.over_seeds(m), scores.over_seeds(m, "auc_pr")
        row = f"| {_name(m)} | {roc[0]:.4f} ± {roc[1]:.4f} | {pr[0]:.4f} ± {pr[1]:.4f} | {rank:.2f} "
        if m == OURS:
            row += "| | | | "
        else:
            difference, _, low, high, _, wins, losses = against[m]
            row += f"| {difference:+.4f} | {low:+.4f} to {high:+.4f} | {_shown_p(adjusted[m])} | {wins} / {losses} "
        seconds = [np.mean([scores.cells[m][k][n] for k in scores.keys]) for n in ("fit_seconds", "score_seconds")]
        lines.append(row + f"| {seconds[0]:.2f} | {seconds[1]:.3f} |")
    if peers:
        best = np.max([scores.per_set(m) for m in peers], axis=0)
        wins, losses = (ours > best).sum(), (ours < best).sum()
        lines.append(f"| *the best peer of every set, chosen on its test rows* | {best.mean():.4f} | | | "
                     f"{ours.mean() - best.mean():+.4f} | | | {wins} / {losses} | | |")  # fmt: skip
    lines += [""]
    for m, (n, n_failed) in sorted(scores.incomplete.items()):
        lines += [f"{_name(m)} has {n} of {len(scores.keys)} cells ({n_failed} failed) and is left out.", ""]
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
    order = sorted(means, key=lambda m: -np.mean([v[0] for v in means[m].values()]) + 10 * (len(means[m]) < 2))
    best = {(p, i): max(v[p][i] for m, v in means.items() if p in v and m not in fewer)
            for p in protocols for i in (0, 1)}  # fmt: skip
    heads = [f"*{p}*, {len(s.sets)} sets" for p, s in protocols.items()]
    lines = ["| mean AUC-ROC (AUC-PR) | " + " | ".join(heads) + " |", "|---|" + "---:|" * len(protocols)]
    for m in order:
        row = []
        for p in protocols:
            if p not in means[m]:
                row.append("")
                continue
            text = [f"{v:.3f}"[1:] if round(v, 3) < 1 else "1.000" for v in means[m][p]]
            text = [f"**{t}**" if means[m][p][i] == best[p, i] else t for i, t in enumerate(text)]
            row.append(f"{text[0]} ({text[1]})")
        lines.append(f"| {_name(m)}{' (seeds 0, 1)' if m in fewer else ''} | " + " | ".join(row) + " |")
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
    lines = [f"## {text}", "",
             f"*{protocol}*, {len(scores.sets)} sets, seeds {', '.join(map(str, scores.seeds))}. The difference is "
             f"`{base}` minus the row ± its standard error over sets; p is Wilcoxon's, not corrected; the rank is the "
             "effective rank of the generated rows.", "",
             f"| method | AUC-ROC | AUC-PR | `{base}` minus it | p | wins / losses | rank | fit s | score s |",
             "|---|---:|---:|---:|---:|---:|---:|---:|---:|"]  # fmt: skip
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
        lines += [f"{m} has {n} of {len(scores.keys)} cells ({n_failed} failed) and is left out.", ""]
    return lines


def per_dataset(records, protocol, methods, seeds):
    """Mean and spread over seeds for every set and every complete method."""
    scores = Scores(records, protocol, seeds, methods)
    if OURS not in scores.complete:
        return []
    order = sorted(scores.complete, key=lambda m: -scores.per_set(m).mean())
    lines = [f"## {protocol}, every set: AUC-ROC, mean ± standard deviation over seeds", "",
             "| set | " + " | ".join(map(_name, order)) + " |", "|---|" + "---:|" * len(order)]  # fmt: skip
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
    lines = ["## The main script, whole tables", "",
             "`python SwiftHydra.py SET --seed 0`, one process after the other; seconds are wall-clock with import and "
             "saving.", "",
             "| set | training rows | features | AUC-ROC | AUC-PR | seconds | peak MiB |",
             "|---|---:|---:|---:|---:|---:|---:|"]  # fmt: skip
    for cell in cells:
        name = f"{cell['dataset']} ({cell['protocol']}, seed {cell['seed']})"
        if cell["failed"]:
            lines.append(f"| {name} | | | failed: {cell['failed']} | | | |")
            continue
        lines.append(f"| {name} | {cell['n_train']} | {cell['n_features']} | {cell['auc_roc']:.4f} | "
                     f"{cell['auc_pr']:.4f} | {cell['wall_seconds']:.0f} | {cell['peak_memory_mib']} |")  # fmt: skip
    return [*lines, ""]


def speed_page(folder):
    """The README's speed page from the records of ``python benchmark.py --speed``; parts not measured are left out."""
    parts = {path.stem: json.loads(path.read_text()) for path in sorted(Path(folder).glob("*.json"))}
    lines = []
    for name, table in SPEED_TABLES.items():
        if name in parts:
            record = parts[name]
            title, *rows = table(record)
            versions = ", ".join(
                f"{n} {v}" for n, v in record["versions"].items() if n in ("torch", "numba", "mambapy")
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
        yield (f"| {', '.join(map(str, row['shape']))} | {ms['torch']:.1f} | {numba:.1f} | {ms['mambapy']:.1f} | "
               f"{ms['mambapy'] / ms['torch']:.1f} | {ms['mambapy'] / numba:.1f} |")  # fmt: skip


def _experts_table(record):
    rate = {(row["k"], row["n_experts"]): row["rows_per_second"] for row in record["rows"]}
    counts = sorted({E for _, E in rate})
    yield f"Rows scored per second by the number of experts, {record['n_features']} columns, one thread."
    yield "| experts that run for a row | " + " | ".join(f"of {E}" for E in counts) + " | most / fewest experts |"
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
        yield (f"| {row['n_features']}, {row['n_experts']} | {row['backend']} | {mixture:.1f} | {single:.1f} | "
               f"{single / mixture:.2f} |")  # fmt: skip


def _score_table(record):
    yield (f"Rows scored per second, trained on {record['n_train']:,} rows of {record['n_features']} columns, one "
           "thread.")  # fmt: skip
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
    for name, row in (("fastest", by_rows[0]), ("median", by_rows[len(by_rows) // 2]), ("slowest", by_rows[-1])):
        ours, theirs = row["seconds"]["SwiftHydra"], row["seconds"]["CatBoost"]
        yield (f"| {name}: {row['dataset']}, {row['n_train']} x {row['n_features']} | {ours:.1f} | {theirs:.1f} | "
               f"{ours / theirs:.1f} |")  # fmt: skip


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
        cells = [f"{1e3 * row['seconds'][way]:.2f}" if way in row["seconds"] else "" for way in ways]
        yield f"| {row['tokens']}, {row['rows']} | " + " | ".join(cells) + " |"


def _bounds_table(record):
    rows = record["rows"]
    bounds = list(dict.fromkeys((row["normals"], row["centres"]) for row in rows))
    sets = list(dict.fromkeys(row["dataset"] for row in rows))
    yield (f"Bounds on the rows that stand for a large table: AUC-ROC on {len(sets)} sets cut to 50,000 rows, *seen*, "
           "seed 10.")  # fmt: skip
    yield "| reference normals, kernel centres | mean | " + " | ".join(sets) + " | fit s | score s |"
    yield "|---|" + "---:|" * (len(sets) + 3)
    for bound in bounds:
        mine = [row for row in rows if (row["normals"], row["centres"]) == bound]
        auc = {row["dataset"]: row["auc_roc"] for row in mine}
        total = [sum(row[name] for row in mine) for name in ("fit_seconds", "score_seconds")]
        yield (f"| {bound[0]:,}, {bound[1]:,} | {sum(auc.values()) / len(auc):.4f} | "
               + " | ".join(f"{auc[name]:.4f}" for name in sets) + f" | {total[0]:.0f} | {total[1]:.0f} |")  # fmt: skip


def _scale_table(record):
    yield (
        f"Large tables, one thread; slope of log fit seconds in log rows, 30 columns: {record['slope']:.2f}. Memory is "
        "the peak beyond the table itself and the imports."
    )
    yield "| rows x columns | fit s | score s | rows scored / second | table MiB | memory MiB |"
    yield "|---|---:|---:|---:|---:|---:|"
    for row in record["rows"]:
        beyond = row["peak_mib"] - row["before_mib"]
        yield (f"| {row['n_rows']:,} x {row['n_features']} | {row['fit_seconds']:.1f} | {row['score_seconds']:.1f} | "
               f"{row['n_rows'] / row['score_seconds']:,.0f} | {row['data_mib']:.0f} | {beyond:.0f} |")  # fmt: skip


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
    "scan": _scan_table, "step": _step_table, "experts": _experts_table, "score": _score_table, "fit": _fit_table,
    "run": _run_table, "scale": _scale_table, "bounds": _bounds_table, "gpu": _gpu_table,
}  # fmt: skip


def sections(records):
    """Everything that is written: (lines of results/README.md, {marker: lines for README.md})."""
    from benchmark import ABLATIONS, GROUPS
    from benchmark import OURS as ours

    seeds = {0, 1, 2, 3, 4}
    compared = [*ours, *GROUPS["peers"], *GROUPS["foundation"]]
    lines = ["# Measured results", "", "Written by `python benchmark.py --report` from `results/records`.", ""]
    for protocol in PROTOCOLS:
        lines += headline(records, protocol, compared, seeds)
    for preset in ("paper", "full"):
        rungs = [m for m in GROUPS["ladder"] if m.startswith(f"{preset}/")]
        for protocol in ("unseen", "seen"):
            lines += ladder(records, protocol, f"{preset}/rl", rungs, TWO,
                            f"Where generated anomalies come from, preset {preset}, {protocol}")  # fmt: skip
        parts = [f"{preset}/rl", *(f"{preset}/rl/{a}" for a in ABLATIONS)]
        for protocol in ("unseen", "seen"):
            lines += ladder(records, protocol, f"{preset}/rl", parts, TWO,
                            f"What each part gives, preset {preset}, {protocol}")  # fmt: skip
    lines += script_table(records)
    for protocol in PROTOCOLS:
        lines += per_dataset(records, protocol, compared, seeds)
    tables = {"overview": overview(records, compared, seeds)}
    rungs = [m for m in GROUPS["ladder"] if m.startswith("paper/")]
    parts = ["paper/rl", *(f"paper/rl/{a}" for a in ABLATIONS)]
    for name, methods in (("generators", rungs), ("parts", parts)):
        rows = ladder(records, "unseen", "paper/rl", methods, TWO, "")
        tables[name] = [line for line in rows if line.startswith("|")] or ["No complete record of it yet."]
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
    RunFolder.write_bytes(written[0], ("\n".join(lines).rstrip() + "\n").encode())
    RunFolder.write_bytes(written[1], filled(README.read_text(), tables).encode())
    return written + (_diagrams(records) if figures else [])


def _diagrams(records):
    """Critical-difference diagrams (Demsar 2006): mean ranks; a bar joins methods that Wilcoxon-Holm cannot part."""
    from config import InputError

    try:
        import matplotlib
        import pandas
        import scikit_posthocs
    except ImportError as error:
        raise InputError(f"figures need the package {error.name}: pip install -r requirements-bench.txt") from None
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from benchmark import GROUPS
    from benchmark import OURS as ours

    written = []
    for protocol in PROTOCOLS:
        scores = Scores(records, protocol, {0, 1, 2, 3, 4}, [*ours, *GROUPS["peers"]])
        if OURS not in scores.complete:
            continue
        table = pandas.DataFrame({m: scores.per_set(m) for m in scores.complete}, index=scores.sets)
        long = table.reset_index(names="set").melt(id_vars="set", var_name="method", value_name="auc")
        p = scikit_posthocs.posthoc_wilcoxon(long, "auc", "method", p_adjust="holm", zero_method="zsplit")
        plt.figure(figsize=(9, 3.2))
        scikit_posthocs.critical_difference_diagram(table.rank(axis=1, ascending=False).mean(), p)
        plt.title(f"mean rank on {protocol}, {len(scores.sets)} sets (1 is best)")
        path = RESULTS / f"critical-difference-{protocol}.png"
        plt.savefig(path, dpi=120, bbox_inches="tight")
        plt.close()
        written.append(path)
    return written
