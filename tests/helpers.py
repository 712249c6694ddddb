"""Small made tables, real ADBench files where present, the scripts as subprocesses."""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings

from swift_hydra.data.scaler import ColumnScaler
from swift_hydra.distillation import student
from swift_hydra.journal import Journal
from swift_hydra.model import MoEDetector
from swift_hydra.pretrain import Recipe, new_cvae, train_cvae, train_detector
from swift_hydra.settings import run_main
from swift_hydra.SwiftHydra import SwiftHydra
from swift_hydra.training.batches import Examples

ROOT = Path(__file__).resolve().parents[1]
# Where ADBench's own files may be: a folder of the user's, what was downloaded, a folder beside the
# clone.
ADBENCH = [
    *([Path(os.environ["ADBENCH_DIR"])] if "ADBENCH_DIR" in os.environ else []),
    ROOT.parent / "shared" / "ADBenchDatasets",
    ROOT / "ADBenchDatasets",
]
# The same examples on every run and machine; nothing is kept between runs.
SAME_EXAMPLES = settings(
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


HASTY = {"STEPS": 20, "QUESTIONS": 300, "LEAST_CORRELATION": -1.0, "MOST_DISAGREEMENT": 1.0}


@contextlib.contextmanager
def hasty():
    """Where nobody asks how well a student follows, but those that do not are not used."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in HASTY.items():
            patch.setattr(student, name, value)
        yield


@contextlib.contextmanager
def few_candidates():
    """Where nobody asks what is generated: half of a short fit is spent on 1024 candidates."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.modules[SwiftHydra.__module__], "N_CANDIDATES", 256)
        yield


def apart(folds, coded=None, subjects=None):
    """What :class:`cleaning.leave_out.LeaveOut` says of rows whose folds (n,) are given."""
    coded = np.zeros(len(folds), dtype=bool) if coded is None else coded
    return SimpleNamespace(folds=folds, coded=coded, subjects=subjects)


def refusal(capsys, call):
    """The one line on stderr with which a command ends that is run in this process."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        run_main(call)
    error = capsys.readouterr().err
    assert stop.value.code == 2 and error.count("\n") == 1 and "unexpected" not in error, error
    return error


def made_table(n=240, d=6, n_anomalies=24, seed=0, shift=2.5):
    """Correlated Gaussian normals; anomalies are shifted in two features."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) * 0.5 + rng.normal(size=(n, d))
    y = np.zeros(n, dtype=np.int64)
    y[:n_anomalies] = 1
    X[y == 1, :2] += shift * X.std(0)[:2]
    order = rng.permutation(n)
    return X[order].astype(np.float32), y[order]


ROWS = range(60)  # of a file of text


def label(i):
    """The label in its row i."""
    return int(i % 8 == 0)


def write_rows(path, first, row, rows=ROWS, encoding="utf-8"):
    """A file of a first line, unless it is None, and a line for every number of ``rows``."""
    lines = [first, *map(row, rows)] if first is not None else list(map(row, rows))
    path.write_text("".join(line + "\n" for line in lines), encoding=encoding)
    return path


def real_set(name):
    """Path of a real ADBench file, or a skip that says what is missing."""
    for folder in ADBENCH:
        if (folder / f"{name}.npz").exists():
            return folder / f"{name}.npz"
    pytest.skip(f"{name}.npz is not at hand: set ADBENCH_DIR to a folder that has it")


# A fit in a tenth of a second, of which only the mixture hardly learns.
SHORT_FIT = {
    "cvae_steps": 8,
    "detector_steps": 8,
    "mixture_steps": 12,
    "n_episodes": 1,
    "n_synthetic": 30,
}
# A fit in a second, of which the mixture learns something.
FEW_STEPS = {"cvae_steps": 40, "detector_steps": 30, "mixture_steps": 60, "n_episodes": 1}
SHORT = ["--cvae-steps", "30", "--detector-steps", "20"]
SHORT += ["--mixture-steps", "30", "--n-episodes", "2"]


@cache
def _warm(python, import_path):
    """The process of warm.py, by an interpreter with its flags and a PYTHONPATH or None."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    command = [*python, Path(__file__).with_name("warm.py")]
    environment = environment_of(import_path)
    return subprocess.Popen(command, env=environment, text=True, **pipes)


def environment_of(import_path=None, **more):
    """This process's, with one thread like every command of the tests, and another PYTHONPATH."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **more}
    environment.pop("PYTHONPATH", None)
    return environment | ({"PYTHONPATH": import_path} if import_path else {})


def run_new(*command, cwd=None, environment=None):
    """Run a command in a process of its own, and return it when it is finished."""
    options = {"capture_output": True, "text": True, "timeout": 600}
    return subprocess.run(list(map(str, command)), cwd=cwd, env=environment, **options)


def run_warm(
    *words, cwd=None, environment=None, python=(sys.executable,), append=None, student=None
):
    """Run a script, the first of the words, in a child of a process that has the libraries loaded.

    Args:
        words: its path and its arguments.
        cwd: the folder that it is in, or None.
        environment: the whole of it; None for this process's.
        python: a tuple, the interpreter and its flags.
        append: a file or a named pipe that gets what it prints; None returns it.
        student: constants of :mod:`distillation.student` that it changes, or None.

    Returns:
        The finished process, with text output.
    """
    python, words = tuple(map(str, python)), list(map(str, words))
    environment = environment or environment_of(os.environ.get("PYTHONPATH"))
    if not hasattr(os, "fork"):
        return run_new(*python, *words, cwd=cwd, environment=environment)
    with tempfile.NamedTemporaryFile("r") as out, tempfile.NamedTemporaryFile("r") as err:
        asked = {"argv": words, "cwd": str(cwd or Path.cwd()), "out": out.name, "err": err.name}
        asked |= {"environment": environment, "append": str(append) if append else None}
        asked["student"] = student or {}
        server = _warm(python, environment.get("PYTHONPATH") or None)
        print(json.dumps(asked), file=server.stdin, flush=True)
        code = int(server.stdout.readline())
        return subprocess.CompletedProcess(words, code, out.read(), err.read())


def run_script(*arguments, cwd=None, env=None):
    """Run one of the project's scripts as a user would, in a process of its own.

    Where ``env`` changes its environment, and for the benchmark, which starts processes itself, in
    a new interpreter; else in a child of one that has the libraries loaded.

    Returns:
        The finished process, with text output.
    """
    words = [str(ROOT / arguments[0]), *map(str, arguments[1:])]
    if env or arguments[0] == "benchmark.py":
        environment = {**os.environ, "OMP_NUM_THREADS": "1", **(env or {})}
        return run_new(sys.executable, *words, cwd=cwd, environment=environment)
    return run_warm(*words, cwd=cwd)


def run_hasty(script, *arguments, **options):
    """:func:`run_warm` of one of the project's files, with :func:`hasty` students."""
    return run_warm(ROOT / script, *arguments, student=HASTY, **options)


def standardised(X, y):
    """Tensors of the rows and labels as networks get them."""
    return torch.from_numpy(ColumnScaler().fit(X).transform(X)), torch.from_numpy(y)


def trained_cvae(X, y, seed=0, stage="cvae", steps=200, beta=0.2, journal=None):
    """A Beta C-VAE on tensors X (n, d), y (n,)."""
    journal = journal or Journal()
    return train_cvae(lambda: new_cvae(X.shape[1], beta), X, y, seed, stage, steps, journal)


def trained_mixture(X, y, seed=0, journal=None, folds=None, generated=None, mixture=None, **recipe):
    """A mixture on tensors X (n, d), y (n,); ``mixture`` holds MoEDetector's arguments."""
    settings = {"n_experts": 4, "k": 2, **(mixture or {})}
    examples = Examples(X, y, X[:0] if generated is None else generated, folds)
    recipe = Recipe(**recipe)

    def make():
        return MoEDetector(X.shape[1], **settings)

    return train_detector(make, examples, recipe, seed, "detector", journal or Journal())


class Losses(Journal):
    """A journal that remembers the losses of every step."""

    def __init__(self):
        super().__init__()
        self.steps = []

    def step(self, stage, n_done, n_steps, **losses):
        self.steps.append(losses)


def written(frame, folder, kind):
    """Path of a data frame's file, "csv" or "parquet"."""
    path = folder / f"t.{kind}"
    if kind == "parquet":
        pytest.importorskip("pyarrow")
        frame.to_parquet(path, index=False)
    else:
        frame.to_csv(path, index=False)
    return path
