"""The short runs that several files have."""

import os
import tempfile

import pytest
from runs import Runs, started


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
