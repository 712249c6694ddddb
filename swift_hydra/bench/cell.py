"""One cell of the benchmark: one method on one split of one dataset, in a process of its own.

A cell's process has one thread, a limit on its memory and one on its time; whatever happens in it,
the sweep goes on. A record is written once, whole, and never rewritten. Two file locks per cell see
to it: the worker's keeps two sweeps from computing the same cell; the child's keeps the child of a
killed worker, in the moment until it notices, from writing beside the child of the sweep that
follows.

A failure is recorded only when it is the cell's own: a child that was ended from outside, or that
left because its worker or its fork server was gone, is started again.
"""

import contextlib
import io
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from swift_hydra.bench.methods import make_method
from swift_hydra.bench.places import SCRIPT
from swift_hydra.bench.records import RecordKey, find_record, lock_record, write_record
from swift_hydra.data.splits import HIDING, parse_protocol
from swift_hydra.data.table import row_digests
from swift_hydra.geometry import share_nearer
from swift_hydra.run.record import git_hash, peak_memory_mib
from swift_hydra.settings import InputError, advised, lacks_memory

try:
    import resource
except ImportError:  # Windows: no memory limit there
    resource = None


POLL_SECONDS = 0.5
ORPHANED = 75  # exit code of a process that left because its parent was gone
SERVER_GONE = 255  # what multiprocessing says of a child whose fork server was killed
LOST_CHILDREN = 10  # so many may be lost like that before it counts as the cell's end
# Forked from a clean process with the imports done: milliseconds, where a new interpreter takes
# seconds.
START = "forkserver" if resource else "spawn"
# Imported once per worker, shared by its cells; the last is what setting torch's determinism back
# after a peer imports, seconds that a cell would have for its own fit.
PRELOAD = ["sklearn.ensemble", "swift_hydra.bench.cell", "torch._inductor.config"]
OWN_FLAGS = ("--max-rows", "--seeds", "--protocols")  # of a sweep, that a cell's reason may name
# What a record of the method "script" takes over from the run's report.json; ``n_hidden`` too where
# the protocol hides anomalies.
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


@dataclass(frozen=True)
class Cell:
    """What is to be computed, and within which limits.

    Args:
        records: folder of the records.
        path: the dataset's file.
        method: a name that :func:`methods.make_method` knows, or ``script``.
        protocol: a name that :func:`data.splits.parse_protocol` knows, such as ``seen`` or
            ``weak-0.05``.
        seed: of the split and of the method.
        max_rows: stratified subsample of larger tables, 0 for all rows.
        time_limit: seconds, wall-clock.
        memory_limit: GiB, 0 for no limit.
        sha256: of the dataset's file; a record of another one is not the cell's.
        git: the code's commit when the sweep began; None asks when the cell is computed.
    """

    records: str
    path: str
    method: str
    protocol: str
    seed: int
    max_rows: int
    time_limit: float
    memory_limit: float
    sha256: str = ""
    git: str | None = None

    @property
    def dataset(self):
        return Path(self.path).stem

    @property
    def key(self):
        return RecordKey(self.method, self.protocol, self.dataset, self.seed)

    def named(self):
        """The part of the cell's record that is known before it is computed."""
        return {**self.key._asdict(), "max_rows": self.max_rows, "sha256": self.sha256}

    def find(self):
        """The cell's record, or None."""
        return find_record(self.records, self.key)

    def write(self, content):
        """Write the cell's record: what names it, and ``content``."""
        write_record(self.records, self.named() | content)

    def lock(self, holder):
        """Hold the cell's lock of its ``worker`` or its ``child``."""
        return lock_record(self.records, self.key, holder)


def run_cell(cell, sweep=None, start=START, make=make_method, parent=None):
    """Compute a cell in a child process unless its record is there.

    A child that ended without a record is started once more (the machine may have been out of
    memory for another's sake); the second time its end is the record.

    Args:
        cell: the :class:`Cell`.
        sweep: process number of the sweep; a worker of its own ends when the sweep does.
        start: how the child is started, a method of multiprocessing.
        make: a function of a method's name and a seed that gives an unfitted detector.
        parent: process number of what started this one, where it is known: it may be gone by now.

    Returns:
        The record.

    Raises:
        InputError: if this process may not start others.
    """
    if sweep not in (None, os.getpid()):
        die_with_parent(parent)
    if multiprocessing.current_process().daemon:
        raise InputError(
            "this worker may not start processes, every cell needs one: dask worker --no-nanny"
        )
    with cell.lock("worker"):
        crashes = 0
        lost = 0
        while (record := cell.find()) is None:
            code = _run_child(cell, start, make)
            if cell.find() is not None:
                continue  # whatever came after it was written
            if code is None:
                cell.write({"failed": f"TimeLimit: not finished after {cell.time_limit:g} s"})
            elif code in (ORPHANED, SERVER_GONE) and lost < LOST_CHILDREN:
                lost += 1
            elif not crashes:
                crashes += 1
            else:
                # What killed the child may be about to kill this process too: then it is no crash.
                time.sleep(2 * POLL_SECONDS)
                cell.write({"failed": f"Crash: the process ended with code {code}"})
    return record


def _run_child(cell, start, make):
    """The exit code of one child, or None if its time was up."""
    context = multiprocessing.get_context(start)
    if start == "forkserver":
        context.set_forkserver_preload(PRELOAD)
    child = context.Process(target=_child, args=(cell, make))
    child.start()
    child.join(cell.time_limit)
    late = child.is_alive()
    if late:
        child.kill()
        child.join()
    _kill_group(child.pid)
    return None if late else child.exitcode


def _kill_group(number):
    """End what a child has left running, such as the main script."""
    if hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(number, signal.SIGKILL)


def die_with_parent(parent=None, leads=False):
    """Leave when the process that started this one is gone, such as a sweep killed by SIGKILL.

    Args:
        parent: its process number; None takes that of today.
        leads: this process leads a group of its own, which ends with it.
    """
    if getattr(die_with_parent, "watched", None) == os.getpid():
        return
    die_with_parent.watched = os.getpid()
    parent = parent or os.getppid()
    # A leader is a server's child: who asked the server for it can be gone before it looks.
    asked = multiprocessing.parent_process() if leads else None

    def watch():
        while os.getppid() == parent and (asked is None or asked.is_alive()):
            time.sleep(POLL_SECONDS)
        if leads:
            _kill_group(os.getpid())  # this process too
        os._exit(ORPHANED)

    threading.Thread(target=watch, daemon=True).start()


def _child(cell, make):
    """One record, unless the child of a killed worker has just written it."""
    leads = hasattr(os, "setpgrp")
    if leads:
        os.setpgrp()
    die_with_parent(leads=leads)
    with cell.lock("child"):
        if cell.find() is None:
            cell.write(_computed(cell, make))


def _computed(cell, make):
    """What a cell's record says: one thread, limited memory, a failure as its reason."""
    import torch
    from threadpoolctl import threadpool_limits

    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    if resource is not None and cell.memory_limit:
        limit = int(cell.memory_limit * 2**30)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    content = {"git": cell.git or git_hash(), "failed": None}
    start = time.perf_counter()
    try:
        with threadpool_limits(1), contextlib.redirect_stdout(io.StringIO()):
            content |= _script(cell) if cell.method == "script" else _scores(cell, make)
    except Exception as error:
        reason = advised(error, OWN_FLAGS, "of SwiftHydra.py; a benchmark has no such flag")
        content["failed"] = f"{type(error).__name__}: {' '.join(reason.split())}"
        if cell.memory_limit and lacks_memory(error):
            content["failed"] = f"MemoryLimit: more than {cell.memory_limit:g} GiB were asked for"
    content["seconds_in_all"] = round(time.perf_counter() - start, 2)
    return content


def _scores(cell, make):
    """Fit on the split's training rows, score its test rows."""
    from swift_hydra.dataloader import RowOptions, load_rows

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
            # Of the test's normal rows, the share with a p-value up to .01 and .05.
            "false_alarms": [round(float((p <= stated).mean()), 4) for stated in (0.01, 0.05)],
        }
    if hasattr(model, "n_scored"):
        content["n_settings_scored"] = model.n_scored
    if hasattr(model, "synthetic_"):
        content |= _of_generated(model, X[y == 1], rows.X_test[y_test == 1])
    return content


def _of_generated(model, known, unknown):
    """What a record says of the generated rows, and of the student that learned from them."""
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
    """The scores of test rows that are no copy of a training row, and how many are one.

    Args:
        rows: a :class:`dataloader.Rows`.
        score: (m,) of its test rows.

    Returns:
        ``auc_roc_fresh`` and ``auc_pr_fresh``, None where a class has no such row, and
        ``n_test_copies``.
    """
    known = set(row_digests(rows.train.X))
    fresh = np.array([digest not in known for digest in row_digests(rows.X_test)])
    y = rows.y_test[fresh]
    both = 0 < y.sum() < len(y)
    areas = _areas(y, score[fresh]) if both else {"auc_roc": None, "auc_pr": None}
    areas = {f"{name}_fresh": area for name, area in areas.items()}
    return areas | {"n_test_copies": int((~fresh).sum())}


def _areas(y, score):
    """Both areas of scores (m,) of rows labelled y (m,)."""
    from sklearn.metrics import average_precision_score, roc_auc_score

    return {
        "auc_roc": round(float(roc_auc_score(y, score)), 6),
        "auc_pr": round(float(average_precision_score(y, score)), 6),
    }


def _script(cell):
    """``python SwiftHydra.py`` as a user runs it, both cores and all."""
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
        report = json.loads(next(Path(out).rglob("report.json")).read_text())
    names = [*REPORTED, "n_hidden"] if protocol in HIDING else REPORTED
    return {name: report[name] for name in names} | {"wall_seconds": round(seconds, 1)}
