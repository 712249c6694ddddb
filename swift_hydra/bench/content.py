"""The computation of a benchmark cell, in the process that :mod:`bench.cell` starts for it."""

import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from swift_hydra.bench.methods import make_method
from swift_hydra.bench.places import SCRIPT
from swift_hydra.data.splits import HIDING, parse_protocol
from swift_hydra.data.table import row_digests
from swift_hydra.dataloader import RowOptions, load_rows
from swift_hydra.geometry import share_nearer
from swift_hydra.run.record import git_hash, peak_memory_mib
from swift_hydra.run.report import measures
from swift_hydra.settings import advised, lacks_memory

try:
    import resource
except ImportError:  # Windows: no memory limit there
    resource = None

OWN_FLAGS = ("--max-rows", "--seeds", "--protocols")  # flags of a sweep that an error may name
# What a record of the method "script" takes from the run's report.json; also ``n_hidden`` if the
# protocol hides anomalies.
REPORTED = (
    "n_train",
    "n_train_anomalies",
    "n_test",
    "n_test_anomalies",
    "n_features",
    "n_synthetic",
    "n_experts",
    "auc_roc",
    "auc_pr",
    "seconds",
    "peak_memory_mib",
    "device",
    "threads",
    "versions",
)


def computed(cell, make=None):
    """Compute the content of a cell's record, with one thread and limited memory.

    Args:
        cell: a :class:`cell.Cell`.
        make: a function of a method's name and a seed that returns an unfitted detector; None
            takes :func:`methods.make_method`.

    Returns:
        The record without the entries that name it; ``failed`` holds the reason of a failure.
    """
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    if resource is not None and cell.memory_limit:
        limit = int(cell.memory_limit * 2**30)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    content = {"git": cell.git or git_hash(), "failed": None}
    start = time.perf_counter()
    try:
        with threadpool_limits(1), contextlib.redirect_stdout(io.StringIO()):
            content |= (
                _script(cell) if cell.method == "script" else _scores(cell, make or make_method)
            )
    except Exception as error:
        reason = advised(error, OWN_FLAGS, "of SwiftHydra.py; a benchmark has no such flag")
        content["failed"] = f"{type(error).__name__}: {' '.join(reason.split())}"
        if cell.memory_limit and lacks_memory(error):
            content["failed"] = f"MemoryLimit: more than {cell.memory_limit:g} GiB were asked for"
    content["seconds_in_all"] = round(time.perf_counter() - start, 2)
    return content


def _scores(cell, make):
    """Fit on the split's training rows and score its test rows; returns entries of the record."""
    protocol, labelled = parse_protocol(cell.protocol)
    which = RowOptions(
        dataset=cell.path,
        protocol=protocol,
        labelled=labelled,
        seed=cell.seed,
        max_rows=cell.max_rows or None,
    )
    rows = load_rows(which, least=1)
    X = rows.train.X
    y = rows.train.y
    y_test = rows.y_test
    model = make(cell.method, cell.seed)
    if hasattr(model, "import_package"):
        model.import_package()
    start = time.perf_counter()
    model.fit(X, y)
    fitted = time.perf_counter()
    score = model.decision_function(rows.X_test)
    scored = time.perf_counter()
    if not np.isfinite(score).all():
        raise FloatingPointError(
            f"{int((~np.isfinite(score)).sum())} of {len(score)} scores are not finite"
        )
    content = {
        "n_train": len(y),
        "n_train_anomalies": int((y == 1).sum()),
        "n_test": len(y_test),
        "n_test_anomalies": int(y_test.sum()),
        "n_features": X.shape[1],
        **_areas(y_test, score),
        "fit_seconds": round(fitted - start, 3),
        "score_seconds": round(scored - fitted, 4),
        "peak_memory_mib": peak_memory_mib(),
        **_without_copies(rows, score),
    }
    if protocol in HIDING:
        content["n_hidden"] = rows.n_hidden
    if hasattr(model, "p_values_of"):
        p = model.p_values_of(score[y_test == 0])
        content |= {
            "n_set_aside": model.n_set_aside,
            "estimated_contamination": round(model.estimated_contamination_, 4),
            # Share of the normal test rows with a p-value up to .01, and up to .05.
            "false_alarms": [round(float((p <= stated).mean()), 4) for stated in (0.01, 0.05)],
        }
    if hasattr(model, "n_scored"):
        content["n_settings_scored"] = model.n_scored
    if hasattr(model, "synthetic_"):
        content |= _of_generated(model, X[y == 1], rows.X_test[y_test == 1])
    return content


def _of_generated(model, known, unknown):
    """A record's entries about the generated rows and the student."""
    last = model.episode_log_[-1] if model.episode_log_ else {}
    content = {
        "n_synthetic": len(model.synthetic_),
        "n_experts": model.n_experts_,
        "rank_of_generated": round(last.get("effective_rank", 0.0), 2),
    }
    if len(model.synthetic_) and len(known):
        sides = map(model.columns_.standardise, (unknown, model.synthetic_, known))
        content["nearer_to_generated"] = round(share_nearer(*sides), 4)
    if getattr(model, "student_", None) is not None:
        content |= {name: round(value, 4) for name, value in model.student_.agreement.items()}
        content["verified_share"] = model.verified_share
    return content


def _without_copies(rows, score):
    """Measures on the test rows that are not copies of training rows.

    Args:
        rows: a :class:`dataloader.Rows`.
        score: (m,) scores of its test rows.

    Returns:
        A dict of ``auc_roc_fresh`` and ``auc_pr_fresh``, None if a class has no such row, and the
        number of copies, ``n_test_copies``.
    """
    known = set(row_digests(rows.train.X))
    fresh = np.array([digest not in known for digest in row_digests(rows.X_test)])
    y = rows.y_test[fresh]
    both = 0 < y.sum() < len(y)
    areas = _areas(y, score[fresh]) if both else _areas([], [])
    areas = {f"{name}_fresh": area for name, area in areas.items()}
    return areas | {"n_test_copies": int((~fresh).sum())}


def _areas(y, score):
    """:func:`run.report.measures`, rounded for records."""
    return {name: area and round(area, 6) for name, area in measures(y, score).items()}


def _script(cell):
    """Run ``python SwiftHydra.py`` as a user does, with all cores; returns the record's entries."""
    environment = {
        name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")
    }
    command = [sys.executable, str(SCRIPT), cell.path, "--quiet"]
    protocol, labelled = parse_protocol(cell.protocol)
    command += ["--protocol", protocol, "--seed", str(cell.seed)]
    if protocol == "weak":
        command += ["--labelled", labelled]
    if cell.max_rows:
        command += ["--max-rows", str(cell.max_rows)]
    with tempfile.TemporaryDirectory() as out:
        start = time.perf_counter()
        process = subprocess.run(
            [*command, "--out", out], capture_output=True, text=True, env=environment
        )
        seconds = time.perf_counter() - start
        if process.returncode:
            last_line = (process.stderr.strip().splitlines() or ["it said nothing"])[-1]
            raise RuntimeError(f"exit code {process.returncode}: {last_line}")
        report = json.loads(next(Path(out).rglob("report.json")).read_text("utf-8"))
    names = [*REPORTED, "n_hidden"] if protocol in HIDING else REPORTED
    return {name: report[name] for name in names} | {"wall_seconds": round(seconds, 1)}
