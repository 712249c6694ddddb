"""What the benchmark's command sets for its children does not outlast a test of it."""

import os

import pytest


@pytest.fixture(autouse=True)
def kept_environment(monkeypatch):
    for name in ("OMP", "OPENBLAS", "MKL", "NUMEXPR"):
        monkeypatch.setenv(f"{name}_NUM_THREADS", os.environ.get(f"{name}_NUM_THREADS", "1"))
    monkeypatch.setenv("PYTHONPATH", os.environ.get("PYTHONPATH", ""))
