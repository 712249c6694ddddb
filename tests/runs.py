"""Short runs as children of a clean process, for tests of what ends or damages a run.

They are forked with the imports done, so that a run takes a second and not five. The children write
far more often than a run does: a kill then often meets a write.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from helpers import ROOT, SHORT, made_table

POSIX = pytest.mark.skipif(
    os.name != "posix", reason="forks, signals, limits and permissions of POSIX"
)
NAMES = {"report.json", "log.jsonl", "scores.npz", "checkpoint.pt", "pretrained.pt", "DONE"}
STEPS = [*SHORT, "--n-synthetic", "100"]
PLOT = ["--plot"] if find_spec("matplotlib") else []


def started():
    """The process of ``fork_server.py``, ready to be asked."""
    server = subprocess.Popen(
        [sys.executable, ROOT / "tests" / "run" / "fork_server.py"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        text=True,
    )
    assert server.stdout.readline()
    return server


class Runs:
    """Short runs on a made table below a folder that all may read, by a :func:`started` process."""

    def __init__(self, where, server):
        self.where = Path(where)
        self.server = server
        X, y = made_table(n=300, n_anomalies=30)
        np.savez(self.where / "made.npz", X=X, y=y)
        start = time.monotonic()
        finish(self.start("out"))
        self.seconds = time.monotonic() - start
        self.scores = scores(self.folder("out"))

    def folder(self, out):
        return self.where / out / "made" / "seen" / "seed0"

    def ask(self, **request):
        self.server.stdin.write(json.dumps(request) + "\n")
        self.server.stdin.flush()
        return int(self.server.stdout.readline())

    def start(self, out, *more, script="SwiftHydra", **limits):
        steps = STEPS[:4] if script == "pretrain" else STEPS
        arguments = [
            str(self.where / "made.npz"),
            "--out",
            str(self.where / out),
            *steps,
            *map(str, more),
        ]
        return Run(self, arguments, script, limits)


class Run:
    def __init__(self, runs, arguments, script, limits):
        self.runs, self.streams = runs, [tempfile.NamedTemporaryFile() for _ in "oe"]
        self.pid = runs.ask(
            script=script,
            arguments=arguments,
            streams=[s.name for s in self.streams],
            limits=limits,
        )

    def stopped(self):
        """Wait until it has stopped itself."""
        command = ["ps", "-o", "state=", "-p", str(self.pid)]
        end = time.monotonic() + 300
        while time.monotonic() < end:
            if subprocess.run(command, capture_output=True, text=True).stdout.startswith("T"):
                return
            time.sleep(0.01)
        raise AssertionError("the run never stopped")

    def wait(self):
        self.exitcode = self.runs.ask(wait=self.pid)
        self.out, self.err = (stream.read().decode() for stream in self.streams)
        return self


def scores(path):
    with np.load(path / "scores.npz", allow_pickle=False) as arrays:
        return arrays["score"]


def contents(path):
    return {file.name: file.read_bytes() for file in path.iterdir() if file.is_file()}


def finish(run):
    run.wait()
    assert run.exitcode == 0, run.err
    return run


def refused(run, *needles):
    run.wait()
    assert run.exitcode == 2, (run.exitcode, run.out, run.err)
    assert len(run.err.strip().splitlines()) == 1, run.err
    for needle in needles:
        assert needle in run.err
