"""The short runs that several files have."""

import os
import tempfile

import pytest
from runs import Runs


@pytest.fixture(scope="module")
def base():
    with tempfile.TemporaryDirectory() as where:
        os.chmod(where, 0o755)
        runs = Runs(where)
        yield runs
        runs.server.kill()
        runs.server.wait()
