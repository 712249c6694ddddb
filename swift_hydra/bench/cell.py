"""One cell of the benchmark: one method on one split of one dataset, computed in a process of its
own.

A cell's process has one thread, a limit on its memory and one on its time; whatever happens in it,
the sweep goes on. A record is written once, whole, and never rewritten. Two file locks per cell see
to it: the worker's keeps two sweeps from computing the same cell; the child's keeps the child of a
killed worker, in the moment until it notices, from writing beside the child of the sweep that
follows.
"""

import contextlib
import io
import json
import multiprocessing
import os
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
from swift_hydra.data.catalogue import PACKAGE
from swift_hydra.files import file_lock, write_bytes
from swift_hydra.run.record import environment_report, peak_memory_mib
from swift_hydra.settings import InputError

try:
    import resource
except ImportError:  # Windows: no memory limit there
    resource = None


ROOT = PACKAGE.parent  # of the clone
POLL_SECONDS = 0.5
# Forked from a clean process with the imports done: milliseconds, where a new interpreter takes
# seconds.
START = "forkserver" if resource else "spawn"
PRELOAD = [
    "sklearn.ensemble",
    "SwiftHydra",
    "peers",
]  # imported once per worker, shared by its cells


@dataclass(frozen=True)
class Cell:
    """What is to be computed, and within which limits."""

    records: str
    path: str
    method: str
    protocol: str
    seed: int
    max_rows: int
    time_limit: float  # seconds
    memory_limit: float  # GiB

    @property
    def dataset(self):
        return Path(self.path).stem

    @property
    def record(self):
        return record_path(self.records, self.method, self.protocol, self.dataset, self.seed)

    def named(self):
        return {
            "method": self.method,
            "protocol": self.protocol,
            "dataset": self.dataset,
            "seed": self.seed,
            "max_rows": self.max_rows,
        }


def record_path(records, method, protocol, dataset, seed):
    """Where a cell's record is."""
    return Path(records) / method.replace("/", "-") / protocol / f"{dataset}-seed{seed}.json"


def run_cell(cell, sweep=None):
    """Compute a cell in a child process unless its record is there; returns the record.

    ``sweep`` is the process number of the sweep: a worker of its own ends when the sweep does. A
    child that a signal killed is started once more (the machine may have been out of memory for
    another's sake); the second time its end is the record.
    """
    if sweep not in (None, os.getpid()):
        _die_with_parent()
    if multiprocessing.current_process().daemon:
        raise InputError(
            "this worker may not start processes, every cell needs one: dask worker --no-nanny"
        )
    with _lock(cell, "worker"):
        for last in (False, True):
            if cell.record.exists():
                break
            context = multiprocessing.get_context(START)
            if START == "forkserver":
                context.set_forkserver_preload(PRELOAD)
            child = context.Process(target=_child, args=(cell,))
            child.start()
            child.join(cell.time_limit)
            if child.is_alive():
                child.kill()
                child.join()
                write_record(
                    cell, {"failed": f"TimeLimit: not finished after {cell.time_limit:g} s"}
                )
            elif not cell.record.exists() and last:
                write_record(
                    cell, {"failed": f"Crash: the process ended with code {child.exitcode}"}
                )
        return json.loads(cell.record.read_text())


def write_record(cell, content):
    cell.record.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(cell.named() | content, indent=1) + "\n"
    write_bytes(cell.record, text.encode())


@contextlib.contextmanager
def _lock(cell, holder):
    """Held by a cell's worker or child while the cell is computed; the system lets go of it when
    its process dies.
    """
    folder = Path(cell.records) / ".locks"
    folder.mkdir(parents=True, exist_ok=True)
    with file_lock(folder / "-".join([*cell.record.with_suffix("").parts[-3:], holder])):
        yield


def _die_with_parent():
    """Leave when the process that started this one is gone, such as a sweep killed by SIGKILL."""
    if getattr(_die_with_parent, "watched", None) == os.getpid():
        return
    _die_with_parent.watched, parent = os.getpid(), os.getppid()

    def watch():
        while os.getppid() == parent:
            time.sleep(POLL_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _child(cell):
    """One record, unless the child of a killed worker has just written it."""
    _die_with_parent()
    with _lock(cell, "child"):
        if not cell.record.exists():
            _compute(cell)


def _compute(cell):
    """One thread, limited memory, one record."""
    import torch
    from threadpoolctl import threadpool_limits

    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    if resource is not None and cell.memory_limit:
        limit = int(cell.memory_limit * 2**30)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    environment = environment_report()
    content = {"git": environment["git"], "failed": None}
    start = time.perf_counter()
    try:
        with threadpool_limits(1), contextlib.redirect_stdout(io.StringIO()):
            content |= _script(cell) if cell.method == "script" else _scores(cell)
    except MemoryError:
        content["failed"] = f"MemoryLimit: more than {cell.memory_limit:g} GiB were asked for"
    except Exception as error:
        content["failed"] = f"{type(error).__name__}: {' '.join(str(error).split())}"
    content["seconds_in_all"] = round(time.perf_counter() - start, 2)
    write_record(cell, content)


def _scores(cell):
    """Fit on the split's training rows, score its test rows."""
    from sklearn.metrics import average_precision_score, roc_auc_score

    from swift_hydra.data.splits import make_split
    from swift_hydra.dataloader import load_dataset

    data = load_dataset(cell.path)
    split = make_split(
        data.X, data.y, cell.protocol, cell.seed, max_rows=cell.max_rows or None, least=1
    )
    X, y = data.X[split.train], data.y[split.train]
    X_test, y_test = data.X[split.test], data.y[split.test]
    model = make_method(cell.method, cell.seed)
    start = time.perf_counter()
    model.fit(X, y)
    fitted = time.perf_counter()
    score = model.decision_function(X_test)
    scored = time.perf_counter()
    if not np.isfinite(score).all():
        raise FloatingPointError(
            f"{int((~np.isfinite(score)).sum())} of {len(score)} scores are not finite"
        )
    content = {
        "n_train": len(y),
        "n_train_anomalies": int(y.sum()),
        "n_test": len(y_test),
        "n_test_anomalies": int(y_test.sum()),
        "n_features": X.shape[1],
        "auc_roc": round(float(roc_auc_score(y_test, score)), 6),
        "auc_pr": round(float(average_precision_score(y_test, score)), 6),
        "fit_seconds": round(fitted - start, 3),
        "score_seconds": round(scored - fitted, 4),
        "peak_memory_mib": peak_memory_mib(),
    }
    if hasattr(model, "synthetic_"):
        last = model.episode_log_[-1] if model.episode_log_ else {}
        content |= {
            "n_synthetic": len(model.synthetic_),
            "n_experts": model.n_experts_,
            "effective_rank": round(last.get("effective_rank", 0.0), 2),
        }
    return content


def _script(cell):
    """``python SwiftHydra.py`` as a user runs it, both cores and all."""
    environment = {
        name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")
    }
    with tempfile.TemporaryDirectory() as out:
        command = [
            sys.executable,
            str(ROOT / "SwiftHydra.py"),
            cell.path,
            "--protocol",
            cell.protocol,
            "--seed",
            str(cell.seed),
            "--out",
            out,
            "--quiet",
            *(["--max-rows", str(cell.max_rows)] if cell.max_rows else []),
        ]
        start = time.perf_counter()
        process = subprocess.run(command, capture_output=True, text=True, env=environment)
        seconds = time.perf_counter() - start
        if process.returncode:
            raise RuntimeError(
                f"exit code {process.returncode}: {process.stderr.strip().splitlines()[-1]}"
            )
        report = json.loads(next(Path(out).rglob("report.json")).read_text())
    keep = (
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
    return {name: report[name] for name in keep} | {"wall_seconds": round(seconds, 1)}
