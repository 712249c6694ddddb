"""The sweep computes every cell once, whatever happens to it; every cell has its limits; bad
arguments are refused.
"""

import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from helpers import ROOT, made_table, run_script

import swift_hydra.benchmark as benchmark
from swift_hydra.bench import cell as cells
from swift_hydra.bench.cell import Cell, record_path, run_cell
from swift_hydra.bench.scores import load_records
from swift_hydra.settings import InputError


@pytest.fixture
def folder(tmp_path):
    X, y = made_table(n=100, d=4, n_anomalies=20)
    np.savez(tmp_path / "good.npz", X=X, y=y)
    (tmp_path / "broken.npz").write_text("not an archive")
    return tmp_path


def sweep(folder, *more):
    return run_script(
        "benchmark.py",
        "--datasets",
        folder,
        "--records",
        folder / "records",
        "--seeds",
        "0",
        "--methods",
        "LogisticRegression,script",
        "--jobs",
        "2",
        *more,
    )


def test_a_sweep_resumes_and_records_failures(folder):
    first = sweep(folder)
    assert first.returncode == 0, first.stderr
    assert "2 computed, 2 failed" in first.stdout
    records = load_records(folder / "records")
    assert [(c["dataset"], c["method"], c["failed"] is None) for c in records] == [
        ("broken", "LogisticRegression", False),
        ("good", "LogisticRegression", True),
        ("broken", "script", False),
        ("good", "script", True),
    ]
    assert "broken.npz" in records[0]["failed"]
    assert records[3]["peak_memory_mib"] > 50
    kept = record_path(folder / "records", "LogisticRegression", "seen", "good", 0)
    before = kept.stat().st_mtime_ns
    record_path(folder / "records", "script", "seen", "good", 0).unlink()
    second = sweep(folder)
    assert "4 cells, 3 of them recorded already" in second.stdout
    assert "1 computed, 0 failed" in second.stdout
    assert kept.stat().st_mtime_ns == before
    third = sweep(folder, "--retry-failed")
    assert "4 cells, 2 of them recorded already" in third.stdout
    assert "0 computed, 2 failed" in third.stdout


def finished(folder):
    return {
        path: (path.stat().st_mtime_ns, path.read_bytes())
        for path in (folder / "records").rglob("*-seed*.json")
    }


def test_sigkill_at_ten_random_moments_damages_nothing(tmp_path):
    X, y = made_table(n=100, d=4, n_anomalies=20)
    for name in "ab":
        np.savez(tmp_path / f"{name}.npz", X=X, y=y)
    command = [
        sys.executable,
        ROOT / "benchmark.py",
        "--datasets",
        tmp_path,
        "--records",
        tmp_path / "records",
        "--seeds",
        ",".join(map(str, range(20))),
        "--methods",
        "kNN,ExtraTrees,DevNet",
        "--jobs",
        "2",
    ]
    rng, before = random.Random(0), {}
    for kill in range(10):
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        time.sleep(rng.uniform(0.5, 7.0))
        # Every second time the sweep alone dies, and its workers have to notice.
        os.killpg(process.pid, signal.SIGKILL) if kill % 2 else process.kill()
        process.wait()
        now = finished(tmp_path)
        assert all(
            now[path] == content for path, content in before.items()
        )  # nothing was written again
        assert all(json.loads(content)["failed"] is None for _, content in now.values())
        before = now
    last = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert last.returncode == 0, last.stderr
    now = finished(tmp_path)
    assert len(now) == 2 * 20 * 3
    assert all(now[path] == content for path, content in before.items())
    assert all(np.isfinite(json.loads(content)["auc_roc"]) for _, content in now.values())


def test_the_child_of_a_killed_worker_is_not_written_over(folder):
    cell = Cell(str(folder / "records"), str(folder / "good.npz"), "kNN", "seen", 0, 0, 60, 4.0)
    with cells._lock(cell, "child"):  # what such a child holds while it computes
        late = threading.Thread(target=run_cell, args=(cell,))
        late.start()
        time.sleep(3.0)
        assert not cell.record.exists()  # the next sweep's child waits
        cells.write_record(cell, {"failed": None, "by": "the first"})
    late.join()
    assert json.loads(cell.record.read_text())["by"] == "the first"


class Slow:
    """A method that never ends, asks for too much, dies, or scores NaN."""

    def __init__(self, what):
        self.what = what

    def fit(self, X, y):
        if self.what == "slow":
            time.sleep(60)
        elif self.what == "large":
            self.block = np.ones((3 * 2**30,), dtype=np.uint8)
        elif self.what == "dead":
            os.kill(os.getpid(), signal.SIGKILL)

    def decision_function(self, X):
        return np.full(len(X), np.nan)


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("slow", "TimeLimit: not finished after 2 s"),
        ("large", "MemoryLimit: more than 1.5 GiB were asked for"),
        ("dead", "Crash: the process ended with code -9"),
        ("nan", "FloatingPointError: 60 of 60 scores are not finite"),
    ],
)
def test_limits_and_crashes_become_records(folder, what, reason, monkeypatch):
    # A forked child sees the replaced method; the sweep's own clean process would not.
    monkeypatch.setattr(cells, "make_method", lambda method, seed: Slow(method))
    monkeypatch.setattr(cells, "START", "fork")
    monkeypatch.setattr(cells, "_die_with_parent", lambda: None)
    record = run_cell(
        Cell(str(folder / "records"), str(folder / "good.npz"), what, "seen", 0, 0, 2, 1.5)
    )
    assert record["failed"] == reason
    assert (
        json.loads(record_path(folder / "records", what, "seen", "good", 0).read_text()) == record
    )


def test_groups_and_methods_are_known():
    for methods in benchmark.GROUPS.values():
        for method in methods:
            cells.check_method(method)
    config = benchmark.BenchmarkConfig(datasets="47_yeast", methods="ours,peers,ladder,ablations")
    listed = benchmark.list_cells(config)
    assert len(listed) == len(set(listed)) == 2 * len({cell.method for cell in listed})


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("methods", "magic"),
        ("methods", "full"),
        ("methods", "full/rl/magic"),
        ("methods", "full/rl/one-expert/x"),
        ("protocols", "often"),
        ("seeds", "a"),
        ("datasets", "47_yeats"),
        ("jobs", 0),
        ("time_limit", 0.0),
    ],
)
def test_bad_arguments_are_refused(setting, value):
    with pytest.raises(InputError):
        benchmark.list_cells(
            dataclasses.replace(benchmark.BenchmarkConfig(datasets="47_yeast"), **{setting: value})
        )


@pytest.mark.parametrize("backend", ["ray", "dask"])
def test_other_backends(folder, backend):
    pytest.importorskip(
        {"ray": "ray", "dask": "distributed"}[backend], reason=f"{backend} is not installed"
    )
    (folder / "broken.npz").unlink()
    done = run_script(
        "benchmark.py",
        "--datasets",
        folder,
        "--records",
        folder / "records",
        "--seeds",
        "0,1",
        "--methods",
        "kNN,LogisticRegression",
        "--jobs",
        "2",
        "--backend",
        backend,
    )
    assert done.returncode == 0, done.stderr
    assert "4 computed, 0 failed" in done.stdout


def test_a_missing_backend_is_named(tmp_path):
    if all(map(_installed, ("ray", "distributed"))):
        pytest.skip("both are installed")
    for backend, module in (("ray", "ray"), ("dask", "distributed")):
        if not _installed(module):
            done = run_script(
                "benchmark.py", "--backend", backend, "--methods", "kNN", "--records", tmp_path
            )
            assert done.returncode == 2
            assert "pip install" in done.stderr


def test_records_that_cannot_be_written_are_named(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    done = run_script(
        "benchmark.py", "--methods", "kNN", "--records", tmp_path / "file" / "records"
    )
    assert done.returncode == 2
    assert "choose another --records" in done.stderr


def _installed(module):
    import importlib.util

    return importlib.util.find_spec(module) is not None
