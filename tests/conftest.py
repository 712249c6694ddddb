"""Fixtures for all tests; what they and others share is in helpers.py and runs.py."""

import os
import tempfile

# Read when the libraries are loaded. Small tables gain nothing from a second thread, and a thread
# that waits for a core which another process has, as a second worker does, spins for minutes.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# A hundred processes of the tests import the project. With its bytecode kept, as Python does unless
# this is set, only the first of them compiles it.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

import helpers
import numpy as np
import pytest
import torch
from runs import Runs, started

torch.set_num_threads(1)


def pytest_make_parametrize_id(config, val, argname):
    """Bytes are named by their length: what they hold may depend on when tests are collected.

    gzip writes the second into its header, and two workers must collect tests of the same names.
    """
    return f"{argname}-of-{len(val)}-bytes" if isinstance(val, bytes) else None


@pytest.fixture
def kept_environment(monkeypatch):
    """What the benchmark's command sets for its children does not outlast a test of it."""
    for name in ("OMP", "OPENBLAS", "MKL", "NUMEXPR"):
        monkeypatch.setenv(f"{name}_NUM_THREADS", os.environ.get(f"{name}_NUM_THREADS", "1"))
    monkeypatch.setenv("PYTHONPATH", os.environ.get("PYTHONPATH", ""))


@pytest.fixture
def hasty_students():
    with helpers.hasty():
        yield


@pytest.fixture(scope="module")
def few_candidates():
    """For all of a module: its detectors may be compared with each other, not with a command's."""
    with helpers.few_candidates():
        yield


@pytest.fixture
def table():
    return helpers.made_table()


@pytest.fixture
def npz(tmp_path, table):
    path = tmp_path / "made.npz"
    np.savez(path, X=table[0], y=table[1])
    return path


@pytest.fixture
def threads():
    """torch.set_num_threads, undone after the test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def server():
    process = started()
    yield process
    process.kill()
    process.wait()


@pytest.fixture(scope="module")
def base(server):
    with tempfile.TemporaryDirectory() as where:
        os.chmod(where, 0o755)
        yield Runs(where, server)
