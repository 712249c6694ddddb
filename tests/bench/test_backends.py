"""The sweep on clusters: a lost machine costs nothing but time, and what cannot be reached is
named.
"""

import contextlib
import multiprocessing
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
from helpers import ROOT, made_table

from swift_hydra.bench.backends import Idle, spread
from swift_hydra.bench.cell import Cell, run_cell
from swift_hydra.bench.records import load_records
from swift_hydra.settings import InputError

SLOW = pytest.mark.skipif(
    "SWIFT_HYDRA_CLUSTER" not in os.environ, reason="a minute: set SWIFT_HYDRA_CLUSTER=1"
)
SEEDS = 6


@pytest.fixture
def folder(tmp_path):
    X, y = made_table(n=100, d=4, n_anomalies=20)
    for name in "ab":
        np.savez(tmp_path / f"{name}.npz", X=X, y=y)
    return tmp_path


def command(folder, backend):
    words = ["benchmark.py", "--backend", backend, "--datasets", folder]
    words += ["--records", folder / "records"]
    words += ["--methods", "kNN,LogisticRegression,ExtraTrees"]
    return [*words, "--seeds", ",".join(map(str, range(SEEDS)))]


def cell_of(folder):
    return Cell(
        records=str(folder / "records"),
        path=str(folder / "a.npz"),
        method="kNN",
        protocol="seen",
        seed=0,
        max_rows=0,
        time_limit=600,
        memory_limit=4.0,
    )


def recorded(folder):
    return load_records(folder / "records")


def sweep_with_a_kill(folder, backend, environment, kill):
    """Start a sweep, call kill() when some cells are done, and wait for its end."""
    process = subprocess.Popen(
        [sys.executable, *map(str, command(folder, backend))],
        cwd=ROOT,
        text=True,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
    )
    try:
        end = time.monotonic() + 600
        while len(recorded(folder)) < 4:
            assert process.poll() is None and time.monotonic() < end
            time.sleep(0.1)
        kill()
        assert len(recorded(folder)) < 2 * 3 * SEEDS, "the sweep was over before the kill"
        stdout, _ = process.communicate(timeout=600)
    finally:
        process.kill()
    assert process.returncode == 0
    assert f"{2 * 3 * SEEDS} computed, 0 failed" in stdout
    assert [record["failed"] for record in recorded(folder)] == [None] * (2 * 3 * SEEDS)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def processes_of(text):
    """Number and command line of the processes that name a folder of this test, and of their
    children.
    """
    table = subprocess.run(
        ["ps", "-ww", "-eo", "pid=,ppid=,args="], capture_output=True, text=True, check=True
    ).stdout
    rows = [(int(line.split()[0]), int(line.split()[1]), line) for line in table.splitlines()]
    named = {pid for pid, _, line in rows if text in line}
    return [(pid, line) for pid, parent, line in rows if pid in named or parent in named]


@SLOW
def test_a_ray_node_is_killed_midway(folder):
    pytest.importorskip("ray")
    ray = Path(sys.executable).parent / "ray"
    port = free_port()
    home = Path(tempfile.mkdtemp(prefix="ray", dir="/tmp"))
    address = f"127.0.0.1:{port}"
    environment = {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(24),
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    start = [ray, "start", "--node-ip-address", "127.0.0.1", "--num-cpus", "1"]
    head = ["--head", "--port", str(port), "--include-dashboard=false", "--temp-dir", home]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "check": True}
    try:
        subprocess.run([*start, *head], env={**os.environ, **environment}, **quiet)
        first = {pid for pid, line in processes_of(str(home)) if "raylet/raylet" in line}
        environment["RAY_ADDRESS"] = address
        subprocess.run([*start, "--address", address], env={**os.environ, **environment}, **quiet)
        second = {pid for pid, line in processes_of(str(home)) if "raylet/raylet" in line} - first
        assert len(first) == len(second) == 1
        sweep_with_a_kill(folder, "ray", environment, lambda: os.kill(*second, signal.SIGKILL))
    finally:
        for pid, _ in processes_of(str(home)):
            with contextlib.suppress(ProcessLookupError):  # gone with its parent
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(home, ignore_errors=True)


@SLOW
def test_a_dask_worker_is_killed_midway(folder):
    pytest.importorskip("distributed")
    dask = Path(sys.executable).parent / "dask"
    port = free_port()
    address = f"tcp://127.0.0.1:{port}"
    environment = {"DASK_SCHEDULER_ADDRESS": address, "PYTHONPATH": str(ROOT)}
    commands = [
        ["scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard"],
        *[["worker", address, "--nthreads", "1", "--no-nanny"]] * 2,
    ]
    started = [
        subprocess.Popen(
            [dask, *words],
            env={**os.environ, **environment},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for words in commands
    ]
    try:
        sweep_with_a_kill(folder, "dask", environment, started[-1].kill)
    finally:
        for process in started:
            process.kill()
            process.wait()


@pytest.mark.parametrize(
    ("backend", "name", "address"),
    [
        ("ray", "RAY_ADDRESS", "127.0.0.1:9"),
        ("dask", "DASK_SCHEDULER_ADDRESS", "tcp://127.0.0.1:9"),
    ],
)
def test_a_cluster_that_does_not_answer_is_named(folder, backend, name, address, monkeypatch):
    pytest.importorskip({"ray": "ray", "dask": "distributed"}[backend])
    monkeypatch.setenv(name, address)
    with pytest.raises(InputError, match=f"{name}={address}: no "):
        list(spread([cell_of(folder)], backend, 1, connect=1.0))


def test_a_cluster_without_processors_ends_the_sweep():
    seconds = [0.0]
    idle = Idle(lambda: 0, patience=300.0, clock=lambda: seconds[0])
    idle.check([])
    seconds[0] = 301.0
    idle.check(["a result"])
    seconds[0] = 602.0
    with pytest.raises(InputError, match="the same command again"):
        idle.check([])
    busy = Idle(lambda: 2, patience=300.0, clock=lambda: seconds[0])
    seconds[0] = 1000.0
    busy.check([])


def test_a_worker_that_may_start_no_process_says_so(folder):
    """As under a Dask nanny: its workers are daemons."""
    context = multiprocessing.get_context("fork")
    said = context.SimpleQueue()

    def work():
        try:
            run_cell(cell_of(folder))
        except BaseException as error:
            said.put(str(error))
        else:
            said.put("nothing")

    process = context.Process(target=work, daemon=True)
    process.start()
    assert "--no-nanny" in said.get()
    process.join()


def test_a_job_array_shares_the_records(folder):
    """As Slurm starts it: several sweeps at once, here with overlapping seeds, on one folder of
    records.
    """
    words = ["benchmark.py", "--datasets", folder / "a.npz", "--records", folder / "records"]
    words += ["--methods", "kNN"]
    started = [
        subprocess.Popen(
            [sys.executable, *map(str, words), "--seeds", seeds],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        for seeds in ("0,1", "1,0")
    ]
    out = [process.communicate(timeout=600)[0] for process in started]
    assert [process.returncode for process in started] == [0, 0]
    assert all(" 0 failed" in text for text in out)
    assert [record["seed"] for record in recorded(folder)] == [0, 1]
