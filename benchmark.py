"""Measure methods on many datasets, seeds and protocols; one record per cell, tables from the records alone.

    python benchmark.py --datasets DIR --seeds 0,1 --protocols seen,unseen --methods paper/rl,paper/none --jobs 2
    python benchmark.py --datasets DIR --seeds 0 --methods script --max-rows 0    # the main script, whole tables
    python benchmark.py --report                                                  # tables in results/README.md

A method is ``preset/generator`` or ``preset/generator/ablation``, such as ``full/rl`` or ``paper/rl/one-expert``;
``script`` runs ``python SwiftHydra.py`` in a process of its own, which is what times and peak memory are taken from. A
cell is done when its record is in ``results/records``: an interrupted sweep goes on where it was. A failed cell is
recorded with its reason and does not stop the others.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from joblib import Parallel, delayed
from sklearn.metrics import average_precision_score, roc_auc_score
from tqdm import tqdm

from config import InputError, check_choice, parse_config, run_main, setting
from dataloader import DATASET_DIR, PROTOCOLS, load_dataset, make_split, resolve_dataset
from episodes import GENERATORS
from runfolder import RunFolder, environment_report

ROOT = Path(__file__).parent
RECORDS = ROOT / "results" / "records"
REPORT = ROOT / "results" / "README.md"
# What each part gives: the same run without it.
ABLATIONS = {
    "no-coverage": {"policy_settings": {"coverage": False}},
    "no-diversity": {"policy_settings": {"diversity": 0.0}},
    "no-deception": {"policy_settings": {"deception": False}},
    "no-filter": {"policy_settings": {"quantile": 0.0, "penalty": 0.0}},
    "no-warm-up": {"policy_settings": {"warm_up": False}},
    "only-anomalies": {"policy_settings": {"anomaly_share": 1.0}},
    "one-expert": {"n_experts": 1},
    "no-one-class": {"unlike_weight": 0.0},
}
PRESET_GENERATORS = tuple(f"{preset}/{generator}" for preset in ("full", "paper") for generator in GENERATORS)
METHODS = ("script", *PRESET_GENERATORS, *(f"{m}/{a}" for m in PRESET_GENERATORS for a in ABLATIONS))


@dataclass
class BenchmarkConfig:
    datasets: str = setting(str(DATASET_DIR), "a folder of .npz files, or names and paths separated by commas")
    seeds: str = setting("0,1", "seeds, separated by commas")
    protocols: str = setting("seen", "protocols, separated by commas: seen, few, unseen")
    methods: str = setting("full/rl", "methods, separated by commas: script, or preset/generator[/ablation]")
    max_rows: int = setting(10000, "stratified subsample of larger tables, 0 for all rows")
    jobs: int = setting(1, "cells computed at the same time, one thread each")
    records: str = setting(str(RECORDS), "folder of the records")
    report: bool = setting(False, "write results/README.md from the records and stop")


def record_path(records, method, protocol, dataset, seed):
    return Path(records) / method.replace("/", "-") / protocol / f"{dataset}-seed{seed}.json"


def run_cell(records, path, method, protocol, seed, max_rows):
    """Compute one cell and write its record, whatever happens in it."""
    import torch

    cell = {"method": method, "protocol": protocol, "dataset": Path(path).stem, "seed": seed, "max_rows": max_rows,
            "git": environment_report()["git"], "failed": None}  # fmt: skip
    try:
        data = load_dataset(path)
        if method == "script":
            cell |= _run_script(path, protocol, seed, max_rows)
        else:
            torch.set_num_threads(1)
            cell |= _run_class(data, method, protocol, seed, max_rows)
    except (InputError, FloatingPointError, RuntimeError, ValueError) as error:
        cell["failed"] = f"{type(error).__name__}: {error}"
    target = record_path(records, method, protocol, cell["dataset"], seed)
    target.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(cell, indent=1) + "\n"
    RunFolder.write_bytes(target, text.encode())
    return cell


def _run_class(data, method, protocol, seed, max_rows):
    from SwiftHydra import SwiftHydra

    split = make_split(data.X, data.y, protocol, seed, max_rows=max_rows or None)
    preset, generator, *ablation = method.split("/")
    model = SwiftHydra(
        random_state=seed, preset=preset, generator=generator, **(ABLATIONS[ablation[0]] if ablation else {})
    )
    start = time.perf_counter()
    model.fit(data.X[split.train], data.y[split.train])
    fitted = time.perf_counter()
    score = model.decision_function(data.X[split.test])
    y = data.y[split.test]
    last = model.episode_log_[-1] if model.episode_log_ else {}
    return {
        "n_train": len(split.train), "n_train_anomalies": int(data.y[split.train].sum()), "n_test": len(y),
        "n_test_anomalies": int(y.sum()), "auc_roc": round(float(roc_auc_score(y, score)), 6),
        "auc_pr": round(float(average_precision_score(y, score)), 6), "n_synthetic": len(model.synthetic_),
        "effective_rank": round(last.get("effective_rank", 0.0), 2), "fit_seconds": round(fitted - start, 2),
        "score_seconds": round(time.perf_counter() - fitted, 3),
    }  # fmt: skip


def _run_script(path, protocol, seed, max_rows):
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, str(ROOT / "SwiftHydra.py"), str(path), "--protocol", protocol, "--seed", str(seed),
                   "--out", out, "--quiet", *(["--max-rows", str(max_rows)] if max_rows else [])]  # fmt: skip
        start = time.perf_counter()
        process = subprocess.run(command, capture_output=True, text=True)
        seconds = time.perf_counter() - start
        if process.returncode:
            raise RuntimeError(f"exit code {process.returncode}: {process.stderr.strip().splitlines()[-1]}")
        report = json.loads(next(Path(out).rglob("report.json")).read_text())
    keep = ("n_train", "n_train_anomalies", "n_test", "n_test_anomalies", "n_features", "n_synthetic", "n_experts",
            "auc_roc", "auc_pr", "seconds", "peak_memory_mib", "device", "threads", "versions")  # fmt: skip
    return {name: report[name] for name in keep} | {"wall_seconds": round(seconds, 1)}


def load_records(records):
    """All records of a folder, sorted by method, protocol, dataset and seed."""
    cells = [json.loads(path.read_text()) for path in sorted(Path(records).rglob("*.json"))]
    return sorted(cells, key=lambda c: (c["method"], c["protocol"], c["dataset"], c["seed"]))


def report(records):
    """The tables of results/README.md as Markdown, from the records alone."""
    by_protocol, script = defaultdict(lambda: defaultdict(dict)), []
    for cell in load_records(records):
        if cell["method"] == "script":
            script.append(cell)
        elif cell["failed"] is None:
            by_protocol[cell["protocol"]][cell["method"]][cell["dataset"], cell["seed"]] = cell
    lines = ["# Measured results", "", "Written by `python benchmark.py --report` from `results/records`.", ""]
    for protocol, methods in sorted(by_protocol.items()):
        lines += _ladder(protocol, methods)
    if script:
        lines += _script_table(script)
    return "\n".join(lines).rstrip() + "\n"


def _ladder(protocol, methods):
    common = sorted(set.intersection(*(set(cells) for cells in methods.values())))
    n_sets = len({dataset for dataset, _ in common})
    lines = [f"## {protocol}: mean over {len(common)} cells ({n_sets} sets) that every method has", "",
             "Differences are paired over the cells, against the same preset without generated rows (none) and with "
             "filtered noise; ± is the standard error over sets.", "",
             "| method | AUC-ROC | AUC-PR | − none | − noise | wins / losses against none | effective rank | fit s |",
             "|---|---:|---:|---:|---:|---:|---:|---:|"]  # fmt: skip
    for method, cells in methods.items():
        preset = method.split("/")[0]

        def against(rung, cells=cells, preset=preset):
            base = methods.get(f"{preset}/{rung}")
            if base is None or base is cells:
                return None
            per_set = defaultdict(list)
            for key in common:
                per_set[key[0]].append(cells[key]["auc_roc"] - base[key]["auc_roc"])
            return np.array([np.mean(values) for values in per_set.values()])

        def shown(difference):
            if difference is None:
                return ""
            return f"{difference.mean():+.4f} ± {difference.std(ddof=1) / len(difference) ** 0.5:.4f}"

        none = against("none")
        wins = "" if none is None else f"{int((none > 0).sum())} / {int((none < 0).sum())}"

        def mean(name, cells=cells):
            return np.mean([cells[key][name] for key in common])

        lines.append(
            f"| {method} | {mean('auc_roc'):.4f} | {mean('auc_pr'):.4f} | {shown(none)} | {shown(against('noise'))} | "
            f"{wins} | {mean('effective_rank'):.1f} | {mean('fit_seconds'):.1f} |"
        )
    return [*lines, ""]


def _script_table(cells):
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


def main(argv=None):
    config = parse_config(BenchmarkConfig, __doc__.splitlines()[0], argv)
    if config.report:
        RunFolder.write_bytes(REPORT, report(config.records).encode())
        print(f"written: {REPORT}")
        return
    methods, protocols = config.methods.split(","), config.protocols.split(",")
    for method in methods:
        if method not in METHODS:
            raise InputError(
                f"methods: {method!r} is unknown: give script, or preset/generator with one of "
                f"{', '.join(PRESET_GENERATORS)} and, after another /, one of {', '.join(ABLATIONS)}"
            )
    for protocol in protocols:
        check_choice("protocols", protocol, PROTOCOLS)
    try:
        seeds = [int(seed) for seed in config.seeds.split(",")]
    except ValueError:
        raise InputError(f"seeds={config.seeds!r} is not usable: give integers separated by commas") from None
    folder = Path(config.datasets)
    paths = (
        sorted(folder.glob("*.npz")) if folder.is_dir() else [resolve_dataset(n) for n in config.datasets.split(",")]
    )
    if not paths:
        raise InputError(f"{folder}: holds no .npz file: give another folder or names with --datasets")
    paths.sort(key=lambda path: path.stat().st_size)  # small ones first: trouble shows early
    cells = [(path, method, protocol, seed) for protocol in protocols for seed in seeds for path in paths
             for method in methods]  # fmt: skip
    todo = [cell for cell in cells if not record_path(config.records, *_key(cell)).exists()]
    print(f"{len(cells)} cells, {len(cells) - len(todo)} of them recorded already")
    calls = (delayed(run_cell)(config.records, path, method, protocol, seed, config.max_rows)
             for path, method, protocol, seed in todo)  # fmt: skip
    results = Parallel(n_jobs=config.jobs, return_as="generator_unordered")(calls)
    failed = 0
    for cell in tqdm(results, total=len(todo), disable=None):
        failed += cell["failed"] is not None
        outcome = cell["failed"] or f"AUC-ROC {cell['auc_roc']:.4f}"
        tqdm.write(f"{cell['dataset']} {cell['protocol']} seed {cell['seed']} {cell['method']}: {outcome}")
    print(f"{len(todo) - failed} computed, {failed} failed (see the records)")


def _key(cell):
    path, method, protocol, seed = cell
    return method, protocol, path.stem, seed


if __name__ == "__main__":
    run_main(main)
