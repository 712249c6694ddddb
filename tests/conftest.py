"""Shared helpers: small made tables, the real ADBench folder where present, the scripts as subprocesses."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
ADBENCH = ROOT.parent / "shared" / "ADBenchDatasets"

# Small tensors gain nothing from a second thread, and lose much where another process needs its core.
torch.set_num_threads(1)


def made_table(n=240, d=6, n_anomalies=24, seed=0, shift=2.5):
    """Correlated Gaussian normals; anomalies are shifted in two features."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) * 0.5 + rng.normal(size=(n, d))
    y = np.zeros(n, dtype=np.int64)
    y[:n_anomalies] = 1
    X[y == 1, :2] += shift * X.std(0)[:2]
    order = rng.permutation(n)
    return X[order].astype(np.float32), y[order]


@pytest.fixture
def table():
    return made_table()


@pytest.fixture
def npz(tmp_path, table):
    path = tmp_path / "made.npz"
    np.savez(path, X=table[0], y=table[1])
    return path


def real_set(name):
    """Path of a real ADBench file, or a skip that says what is missing."""
    path = ADBENCH / f"{name}.npz"
    if not path.exists():
        pytest.skip(f"{name}.npz is not in ../shared/ADBenchDatasets")
    return path


SHORT = ["--cvae-steps", "30", "--detector-steps", "20", "--mixture-steps", "30", "--n-episodes", "2"]


def run_script(*arguments, cwd=None, env=None):
    """Run one of the project's scripts as a user would. Returns the finished process with text output."""
    command = [sys.executable, str(ROOT / arguments[0]), *map(str, arguments[1:])]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **(env or {})}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300)
