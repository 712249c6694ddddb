"""Measure methods on many datasets, seeds and protocols; tables come from the records alone.

    python benchmark.py --datasets DIR --methods ours,peers --seeds 0,1,2,3,4 --jobs 2
    python benchmark.py --datasets DIR --methods ladder --protocols seen,unseen --jobs 2
    python benchmark.py --datasets DIR --methods script --max-rows 0    # the main script
    python benchmark.py --frozen DIR --jobs 2     # one fixed configuration on sets of yours
    python benchmark.py --report                  # tables, from the records
    python benchmark.py --speed --datasets DIR    # times, see swift_hydra/bench/speed.py
    python benchmark.py --dirty OUT --datasets DIR    # dirty tables, see swift_hydra/bench/dirty.py

A method is a peer's name, ``preset/generator`` or ``preset/generator/ablation``, such as
``CatBoost``, ``full/rl`` or ``paper/rl/one-expert``, or a group of methods: ours, peers,
weak-peers (few known anomalies), one-class-peers (none), tuned, tabular, foundation, ladder,
ablations. ``script`` runs ``python SwiftHydra.py`` in a process of its own, on whole tables with
``--max-rows 0``. A cell is done when its record exists, so an interrupted sweep continues where it
stopped. A failed cell is recorded with its reason and does not stop the others (``--retry-failed``
tries again). A record belongs to its set's file as it was then: if the file has changed since, the
command is refused, or the cell is computed again if its record is a failure.
"""

import os
import random
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path

if __name__ == "__main__":
    from swift_hydra.settings import guard_imports

    guard_imports()

from tqdm import tqdm

from swift_hydra.bench.backends import BACKENDS, spread
from swift_hydra.bench.cell import Cell
from swift_hydra.bench.dirty import write_dirty
from swift_hydra.bench.frozen import FROZEN, claim, refuse_flags, write_page
from swift_hydra.bench.methods import GROUPS, check_method
from swift_hydra.bench.pages import write_report
from swift_hydra.bench.places import FROZEN_RECORDS, IMPORT_FROM, RECORDS, SPEED
from swift_hydra.bench.records import key_of, load_records, merge_records, remove_records
from swift_hydra.data.catalogue import DATASET_DIR, read_catalogue, resolve_dataset
from swift_hydra.data.download import EMBEDDED, sha256_of
from swift_hydra.data.splits import parse_protocol, protocol_name
from swift_hydra.run.record import git_hash
from swift_hydra.settings import (
    GIVEN,
    InputError,
    Place,
    check_choice,
    check_range,
    check_settings,
    first_line,
    listed,
    listed_names,
    parse_config,
    printable,
    refuse_idle,
    run_main,
    setting,
    tell,
)

# What --frozen does not let a command line change.
FIXED = ("datasets", "seeds", "protocols", "methods", "max_rows")
FIXED += ("time_limit", "memory_limit", "report", "figures", "speed", "parts", "dirty")

MERGING = 20  # after a merge of records that took t seconds, the next one waits 20 t

# What --report, --speed and --dirty ignore: each does one thing and stops.
CELLS = ("seeds", "protocols", "methods", "jobs", "backend")
CELLS += ("max_rows", "time_limit", "memory_limit", "retry_failed")
IDLE = [
    ("report", True, ("speed", "dirty", "datasets", *CELLS)),
    ("speed", True, ("dirty", *CELLS)),
    ("dirty", GIVEN, (*CELLS, "records")),
    ("report", False, ("figures",)),
    ("speed", False, ("parts",)),
]


@dataclass
class BenchmarkConfig:
    """What is measured, how, and where the records go."""

    datasets: Place = setting(
        str(DATASET_DIR),
        "a folder of .npz files, or names and paths separated by commas",
    )
    seeds: str = setting("0,1", "seeds, separated by commas")
    protocols: str = setting(
        "seen",
        "protocols, separated by commas: seen, few, unseen, one-class, and weak-0.05, weak-10 or "
        "the like (see --labelled of SwiftHydra.py); also local, global, cluster, dependency, "
        "duplicated, irrelevant, flipped (see docs/runs.md)",
    )
    methods: str = setting(
        "ours", "methods or groups of methods, separated by commas (see the top of benchmark.py)"
    )
    max_rows: int = setting(10000, "stratified subsample of larger tables, 0 for all rows")
    jobs: int = setting(
        1, "cells computed at the same time on this machine, one thread each", low=1, high=1024
    )
    backend: str = setting(
        "loky",
        "what computes the cells (see swift_hydra/bench/backends.py): processes of this machine, "
        "or the cluster at RAY_ADDRESS or DASK_SCHEDULER_ADDRESS",
        choices=tuple(BACKENDS),
    )
    time_limit: float = setting(
        1800.0,
        "seconds a cell may take before it is stopped and recorded as failed",
        low=1e-3,
        high=1e9,
    )
    memory_limit: float = setting(8.0, "GiB a cell may ask for, 0 for no limit", low=0, high=1e6)
    retry_failed: bool = setting(False, "compute failed cells again")
    records: Place = setting(
        str(RECORDS),
        "folder of the records; of --frozen, unless it is given, results/frozen",
    )
    frozen: Place | None = setting(
        None,
        "measure one fixed configuration (see swift_hydra/bench/frozen.py) on all .npz files of "
        "this folder, and write its page beside the records",
    )
    speed: bool = setting(
        False,
        "measure times in place of scores, into results/speed, and stop "
        "(see swift_hydra/bench/speed.py)",
    )
    dirty: Place | None = setting(
        None,
        "write dirty versions of some sets into this folder and stop (see bench/dirty.py)",
    )
    parts: str = setting(
        "scan,step,experts,score,fit,run,scale,bounds", "with --speed: what to measure; also gpu"
    )
    report: bool = setting(
        False,
        "write the tables of results/README.md, README.md and docs/ from the records and stop",
    )
    figures: bool = setting(False, "with --report: draw the critical-difference diagrams too")


def main(argv=None, configuration=FROZEN):
    """Run the command line; ``configuration`` is what ``--frozen`` measures."""
    argv = sys.argv[1:] if argv is None else argv
    (config,) = parse_config([BenchmarkConfig], first_line(__doc__), argv)
    refuse_idle(IDLE, config)
    if config.frozen is not None:
        _measure_frozen(config, argv, configuration)
        return
    if config.report or config.speed or config.dirty is not None:
        if config.report:
            written = write_report(config.records, config.figures)
        elif config.speed:
            written = _timed(config)
        else:
            written = write_dirty(_dataset_paths(config.datasets), config.dirty)
        for path in written:
            print(printable(f"written: {path}"))
        return
    _say_lost(_measure(list_cells(config), config))


def _measure(cells, config):
    """Compute the cells without a record; returns how many were lost with their machines."""
    sums = {path: sha256_of(path) for path in {cell.path for cell in cells}}
    _tell_copies(sums)
    cells = [replace(cell, sha256=sums[cell.path]) for cell in cells]
    todo, n_failed, older = _open_cells(cells, config)
    again = f", {n_failed} as failed (--retry-failed computes them again)" if n_failed else ""
    print(f"{len(cells)} cells, {len(cells) - len(todo)} of them recorded already{again}")
    if older:
        print(
            f"of these {len(older)} by other code (commit {listed(dict.fromkeys(older))}): another "
            "folder, --records MINE, measures them again"
        )
    # In random order the finished cells are a fair sample of the rest, so the progress bar's
    # estimate is unbiased.
    random.Random(0).shuffle(todo)
    _prepare_environment()
    failed, lost = _sweep(todo, config)
    print(f"{len(todo) - failed - lost} computed, {failed} failed (see the records)")
    if failed + n_failed == len(cells):
        raise InputError("all cells failed, the reasons are in the records: mend them and go on")
    return lost


def _say_lost(lost):
    if lost:
        sys.exit(f"{lost} cells were lost with their machines: the same command computes them")


def _measure_frozen(config, argv, configuration):
    """Measure a fixed configuration on a folder's sets, and write its page."""
    refuse_flags(argv, FIXED)
    if not Path(config.frozen).is_dir():
        raise InputError(f"{config.frozen}: is no folder: give one that holds .npz files")
    if not any(word.partition("=")[0] == "--records" for word in argv):
        config = replace(config, records=str(FROZEN_RECORDS))
    config = replace(
        config,
        datasets=config.frozen,
        seeds=",".join(map(str, configuration.seeds)),
        max_rows=configuration.max_rows,
    )
    cells = []
    for protocol, methods in configuration.methods.items():
        asked = replace(config, protocols=protocol, methods=",".join(methods))
        cells += list_cells(asked)
    paths = _dataset_paths(config.frozen)
    _check_writable(config.records)
    print(f"configuration SHA-256 {configuration.sha256}", flush=True)
    sums = claim(config.records, configuration, paths)
    lost = _measure(cells, config)
    for path in write_page(config.records, configuration, sums):
        print(printable(f"written: {path}"))
    _say_lost(lost)


def list_cells(config):
    """All cells requested by a command line.

    Args:
        config: a :class:`BenchmarkConfig`.

    Returns:
        A list of :class:`bench.cell.Cell`.

    Raises:
        InputError: a setting is unusable, or a method, protocol or data set is unknown.
    """
    check_settings(config)
    methods = []
    for name in listed_names(config.methods):
        methods += [method for method in GROUPS.get(name, (name,)) if method not in methods]
    for method in methods:
        check_method(method)
    names = [protocol_name(*parse_protocol(name)) for name in listed_names(config.protocols)]
    protocols = list(dict.fromkeys(names))  # weak-0.05 and weak-.05 are the same protocol
    try:
        seeds = list(dict.fromkeys(int(seed) for seed in config.seeds.split(",")))
    except ValueError:
        raise InputError(
            f"seeds={config.seeds!r} is not usable: give integers separated by commas"
        ) from None
    # Refused here: otherwise every cell would fail with these values, and be recorded as failed.
    for seed in seeds:
        check_range("seeds", seed, 0, 2**32 - 1)
    if config.max_rows != 0:
        check_range("max_rows", config.max_rows, 10, 10**9)
    paths = _dataset_paths(config.datasets)
    _refuse_namesakes(paths)
    return [
        Cell(
            records=str(Path(config.records).absolute()),
            path=str(Path(path).absolute()),
            method=method,
            protocol=protocol,
            seed=seed,
            max_rows=config.max_rows,
            time_limit=config.time_limit,
            memory_limit=config.memory_limit,
            git=git_hash(),
        )
        for protocol in protocols
        for seed in seeds
        for path in paths
        for method in methods
    ]


def _dataset_paths(datasets):
    folder = Path(datasets)
    if not folder.is_dir():
        return list(dict.fromkeys(resolve_dataset(name) for name in listed_names(datasets)))
    # Names with a leading dot are no data: macOS writes ._name.npz beside copied files.
    files = (path for path in folder.iterdir() if not path.name.startswith("."))
    paths = sorted(path for path in files if path.suffix.lower() == ".npz")
    if not paths:
        raise InputError(
            f"{folder}: holds no .npz file: give another folder or names with --datasets"
        )
    for path in paths:  # reading a pipe would block; a broken link would be skipped silently
        if not path.is_file():
            raise InputError(f"{path}: is no regular file: take it out of the folder")
    return paths


def _refuse_namesakes(paths):
    """Refuse files of the same name: records identify a set by it, so one would be skipped."""
    first = {}
    for path in map(Path, paths):
        other = first.setdefault(path.stem, path)
        if other.resolve() != path.resolve():
            raise InputError(f"{other} and {path} are records of one name: rename one of them")


def _tell_copies(sums):
    """Warn of copies of one file: each would count in the means and tests.

    Args:
        sums: {path: SHA256 of the file}.
    """
    names = defaultdict(list)
    for path in sorted(sums):
        names[sums[path]].append(Path(path).name)
    for same in names.values():
        if len(same) > 1:
            tell(f"{', '.join(same)}: one file under {len(same)} names counts as often: keep one")


def _open_cells(cells, config):
    """The cells to compute, how many others have failed, and commits of those of other code.

    Records of failures are removed, and their cells computed again, with ``--retry-failed`` or if
    the set's file has changed.
    """
    _check_writable(config.records)
    merge_records(config.records)  # an interrupted sweep may have left unmerged ones
    known = {key_of(record): record for record in load_records(config.records)}
    _refuse_other_rows(cells, known)
    recorded = [cell for cell in cells if cell.key in known]
    failed = {cell.key for cell in recorded if known[cell.key]["failed"] is not None}
    changed = {cell.key for cell in _of_other_tables(recorded, known)}
    if changed - failed:
        _, _, name, _ = min(changed - failed)
        raise InputError(
            f"{config.records}: holds records of another file called {name}: rename this one, or "
            "give another folder with --records"
        )
    again = failed if config.retry_failed else changed
    if again:
        remove_records(config.records, again)
    todo = [cell for cell in cells if cell.key not in known or cell.key in again]
    kept = [(cell.git, known[cell.key].get("git")) for cell in recorded if cell.key not in again]
    older = [there[:8] for here, there in kept if here and there and here != there]
    return todo, len(failed - again), older


def _of_other_tables(cells, known):
    """Yield the cells whose record was computed from a file of other content.

    Records without a SHA256 were computed from the published files. The embedded file holds the
    table of a published one.
    """
    rows = [(Path(name), row["sha256"]) for row in read_catalogue() for name in row["files"]]
    rows = [(name, sha256) for name, sha256 in rows if sha256]
    published = {name.stem: sha256 for name, sha256 in rows}
    embedded = {EMBEDDED[name.name]: sha256 for name, sha256 in rows if name.name in EMBEDDED}
    for cell in cells:
        found = known[cell.key].get("sha256", published.get(cell.dataset, cell.sha256))
        found, own = (embedded.get(sha256, sha256) for sha256 in (found, cell.sha256))
        if found != own:
            yield cell


def _refuse_other_rows(cells, known):
    """Refuse records that were computed with another ``--max-rows`` than the cells'."""
    for cell in cells:
        found = known.get(cell.key, {}).get("max_rows", cell.max_rows)
        if found != cell.max_rows:
            raise InputError(
                f"{cell.records}: holds {cell.method} on {cell.dataset} with --max-rows {found}, "
                f"not {cell.max_rows}: give the same, or another folder with --records"
            )


def _check_writable(records):
    """Make the folder of the records and check that files can be written there."""
    try:
        Path(records).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=records):
            pass
    except OSError as error:
        raise InputError(
            f"{records}: cannot write there ({error.strerror}): choose another --records"
        ) from None


def _prepare_environment():
    """Set what the workers and cells inherit: one thread each, and the path of this project."""
    for name in ("OMP", "OPENBLAS", "MKL", "NUMEXPR"):
        os.environ[f"{name}_NUM_THREADS"] = "1"
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    os.environ["PYTHONPATH"] = os.pathsep.join([*filter(None, paths), str(IMPORT_FROM)])


def _sweep(todo, config):
    """Compute cells and merge their records; returns how many failed and how many were lost."""
    failed = 0
    lost = 0
    merged, pause = time.monotonic(), 0.0
    progress = tqdm(
        spread(todo, config.backend, config.jobs),
        total=len(todo),
        disable=None,
        unit="cell",
        smoothing=0,
    )
    for record in progress:
        if "lost" in record:
            lost += 1
            outcome = f"not computed ({record['lost']})"
        else:
            start = time.monotonic()
            if start - merged >= pause:  # a merge reads and writes all records
                merge_records(config.records)
                merged = time.monotonic()
                pause = MERGING * (merged - start)
            failed += record["failed"] is not None
            outcome = record["failed"] or f"AUC-ROC {record['auc_roc']:.4f}"
        where = f"{record['dataset']} {record['protocol']} seed {record['seed']}"
        tqdm.write(printable(f"{where} {record['method']}: {outcome}"))
    merge_records(config.records)  # a shared file system may show a record late
    return failed, lost


def _timed(config):
    """Measure the requested parts; returns the paths of their records."""
    from swift_hydra.bench.speed import PARTS, measure

    parts = listed_names(config.parts)
    for part in parts:
        check_choice("parts", part, tuple(PARTS))
    mine = config.records != str(RECORDS)
    return measure(parts, config.datasets, config.records if mine else SPEED)


if __name__ == "__main__":
    run_main(main)
