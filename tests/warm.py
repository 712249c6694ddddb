"""A process that has the libraries loaded and runs one of the project's scripts in a child of it.

What a command does and prints is the same as in a new interpreter; only the two seconds are saved
that importing PyTorch, scikit-learn and numba takes. Nothing of the project is loaded here, so that
each child imports it as a user's process would.

A line of JSON asks (``argv``, ``cwd``, ``environment``, files ``out`` and ``err``, and ``append``,
null or a file that takes the place of ``out`` as after a shell's >>, and constants of
distillation/student.py under ``student``), a line answers with the exit code.
"""

import atexit
import importlib
import json
import os
import runpy
import signal
import sys
import traceback
from pathlib import Path

LIBRARIES = ("torch", "numba", "llvmlite.ir", "sklearn.linear_model", "sklearn.metrics")
LIBRARIES += ("scipy.linalg.lapack", "scipy.spatial.distance", "threadpoolctl", "tqdm", "pandas")
LIBRARIES += ("sklearn.cluster", "sklearn.model_selection", "torch.utils.tensorboard")
SECONDS = 600  # that a command may take


def abs_of(x):
    return abs(x)


def _load():
    for name in LIBRARIES:
        try:
            importlib.import_module(name)
        except ImportError:  # an optional one
            continue
    if "numba" in sys.modules:  # of which most is loaded when something is compiled
        sys.modules["numba"].njit(abs_of)(-1.0)


def _status(raised):
    """The exit code that an interpreter gives for what ended its script."""
    if isinstance(raised, SystemExit):
        if raised.code is None or isinstance(raised.code, int):
            return raised.code or 0
        print(raised.code, file=sys.stderr)
        return 1
    traceback.print_exception(raised)
    return 1


def _change_student(constants):
    if constants:
        sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
        student = importlib.import_module("swift_hydra.distillation.student")
        del sys.path[0]
        vars(student).update(constants)


def _child(asked):
    """Become the command that was asked for, and end as it ends."""
    signal.alarm(SECONDS)
    for stream, name in ((0, os.devnull), (1, asked["out"]), (2, asked["err"])):
        file = os.open(name, os.O_RDWR)
        if stream == 1 and asked["append"]:
            os.close(file)
            file = os.open(asked["append"], os.O_WRONLY | os.O_APPEND)
        os.dup2(file, stream)
        os.close(file)
    os.environ.clear()
    os.environ.update(asked["environment"])
    os.chdir(asked["cwd"])
    sys.argv = asked["argv"]
    sys.path[0] = str(Path(sys.argv[0]).parent)
    code = 0
    try:
        _change_student(asked["student"])
        runpy.run_path(sys.argv[0], run_name="__main__")
    except BaseException as raised:
        code = _status(raised)
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)


def main():
    """Serve until the asking process closes its end."""
    _load()
    answers = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        child = os.fork()
        if not child:
            answers.close()
            _child(json.loads(line))
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), file=answers, flush=True)


if __name__ == "__main__":
    main()
