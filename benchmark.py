"""Measure methods on many datasets, seeds and protocols; one record per cell, tables from the
records alone.

    python benchmark.py --datasets DIR --seeds 0,1,2,3,4 --protocols seen,few,unseen --methods ours,peers --jobs 2
    python benchmark.py --datasets DIR --seeds 0,1 --protocols unseen --methods ladder --jobs 2
    python benchmark.py --datasets DIR --seeds 0 --methods script --max-rows 0    # the main script, whole tables
    python benchmark.py --report                                                  # tables, from the records
    python benchmark.py --speed --datasets DIR                                    # times, see speed.py

A method is a peer's name, ``preset/generator`` or ``preset/generator/ablation``, such as
``CatBoost``, ``full/rl`` or ``paper/rl/one-expert``, or a group of methods: ours, peers,
foundation, ladder, ablations. ``script`` runs ``python SwiftHydra.py`` in a process of its own. A
cell is done when its record is there: an interrupted sweep goes on where it was, a failed cell is
recorded with its reason and does not stop the others (``--retry-failed`` tries again).
"""

import os
import random
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from swift_hydra.bench.backends import BACKENDS, spread
from swift_hydra.bench.cell import ROOT, Cell
from swift_hydra.bench.methods import GROUPS, check_method
from swift_hydra.bench.pages import write_report
from swift_hydra.data.catalogue import DATASET_DIR, resolve_dataset
from swift_hydra.data.splits import PROTOCOLS
from swift_hydra.settings import (
    InputError,
    check_choice,
    check_range,
    parse_config,
    run_main,
    setting,
)

RECORDS, SPEED = ROOT / "results" / "records", ROOT / "results" / "speed"


@dataclass
class BenchmarkConfig:
    datasets: str = setting(
        str(DATASET_DIR), "a folder of .npz files, or names and paths separated by commas"
    )
    seeds: str = setting("0,1", "seeds, separated by commas")
    protocols: str = setting("seen", "protocols, separated by commas: seen, few, unseen")
    methods: str = setting(
        "ours", "methods or groups of methods, separated by commas (see the top of benchmark.py)"
    )
    max_rows: int = setting(10000, "stratified subsample of larger tables, 0 for all rows")
    jobs: int = setting(1, "cells computed at the same time on this machine, one thread each")
    backend: str = setting(
        "loky",
        "what computes the cells (see clusters.py): processes of this machine, or the "
        "cluster at RAY_ADDRESS or DASK_SCHEDULER_ADDRESS",
        choices=tuple(BACKENDS),
    )
    time_limit: float = setting(
        1800.0, "seconds a cell may take before it is stopped and recorded as failed"
    )
    memory_limit: float = setting(8.0, "GiB a cell may ask for, 0 for no limit")
    retry_failed: bool = setting(False, "compute failed cells again")
    records: str = setting(str(RECORDS), "folder of the records")
    speed: bool = setting(
        False, "measure times in place of scores, into results/speed, and stop (see speed.py)"
    )
    parts: str = setting(
        "scan,step,experts,score,fit,run,scale,bounds", "with --speed: what to measure; also gpu"
    )
    report: bool = setting(
        False, "write the tables of results/README.md and README.md from the records and stop"
    )
    figures: bool = setting(False, "with --report: draw the critical-difference diagrams too")


def main(argv=None):
    config = parse_config(BenchmarkConfig, __doc__.splitlines()[0], argv)
    if config.report:
        for path in write_report(config.records, config.figures):
            print(f"written: {path}")
        return
    if config.speed:
        for path in _measure_speed(config):
            print(f"written: {path}")
        return
    cells = list_cells(config)
    try:
        Path(config.records).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=config.records):
            pass
    except OSError as error:
        raise InputError(
            f"{config.records}: cannot write there ({error.strerror}): choose another --records"
        ) from None
    todo = [cell for cell in cells if _open(cell, config.retry_failed)]
    print(f"{len(cells)} cells, {len(cells) - len(todo)} of them recorded already")
    # In a random order the cells so far are a fair sample of the rest, and the progress bar's
    # estimate an honest one.
    random.Random(0).shuffle(todo)
    for name in ("OMP", "OPENBLAS", "MKL", "NUMEXPR"):
        os.environ[f"{name}_NUM_THREADS"] = "1"  # of the workers and the cells, which inherit it
    failed, lost = 0, 0
    for record in tqdm(
        spread(todo, config.backend, config.jobs),
        total=len(todo),
        disable=None,
        unit="cell",
        smoothing=0,
    ):
        if "lost" in record:
            lost, outcome = lost + 1, f"not computed ({record['lost']})"
        else:
            failed += record["failed"] is not None
            outcome = record["failed"] or f"AUC-ROC {record['auc_roc']:.4f}"
        tqdm.write(
            f"{record['dataset']} {record['protocol']} seed {record['seed']} {record['method']}: {outcome}"
        )
    print(f"{len(todo) - failed - lost} computed, {failed} failed (see the records)")
    if lost:
        sys.exit(f"{lost} cells were lost with their machines: the same command computes them")


def _measure_speed(config):
    from swift_hydra.bench.speed import PARTS, measure

    parts = config.parts.split(",")
    for part in parts:
        check_choice("parts", part, tuple(PARTS))
    return measure(parts, config.datasets, SPEED)


def list_cells(config):
    """All cells that a command line asks for. Raises :class:`config.InputError` for what cannot be
    computed.
    """
    check_range("jobs", config.jobs, 1, 1024)
    check_range("time_limit", config.time_limit, 1e-3, 1e9, whole=False)
    check_range("memory_limit", config.memory_limit, 0, 1e6, whole=False)
    methods = []
    for name in config.methods.split(","):
        methods += [method for method in GROUPS.get(name, (name,)) if method not in methods]
    for method in methods:
        check_method(method)
    protocols = config.protocols.split(",")
    for protocol in protocols:
        check_choice("protocols", protocol, PROTOCOLS)
    try:
        seeds = [int(seed) for seed in config.seeds.split(",")]
    except ValueError:
        raise InputError(
            f"seeds={config.seeds!r} is not usable: give integers separated by commas"
        ) from None
    folder = Path(config.datasets)
    paths = (
        sorted(folder.glob("*.npz"))
        if folder.is_dir()
        else [resolve_dataset(n) for n in config.datasets.split(",")]
    )
    if not paths:
        raise InputError(
            f"{folder}: holds no .npz file: give another folder or names with --datasets"
        )
    return [
        Cell(
            str(Path(config.records).absolute()),
            str(Path(path).absolute()),
            method,
            protocol,
            seed,
            config.max_rows,
            config.time_limit,
            config.memory_limit,
        )
        for protocol in protocols
        for seed in seeds
        for path in paths
        for method in methods
    ]


def _open(cell, retry_failed):
    """Is this cell still to be computed?"""
    if not cell.record.exists():
        return True
    if retry_failed and '"failed": null' not in cell.record.read_text():
        cell.record.unlink()
        return True
    return False


if __name__ == "__main__":
    run_main(main)
