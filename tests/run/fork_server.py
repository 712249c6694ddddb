"""Runs of the scripts as children forked from one process that has done its imports.

``python fork_server.py`` reads JSON lines: ``{"script", "arguments", "streams", "limits"}`` starts
a run and answers with its process number, ``{"wait": number}`` answers with its exit code (-9 for
SIGKILL) when it has ended. The children keep what is finished far more often than a run does: a
kill then often meets a write.
"""

import json
import os
import signal
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import torch
from helpers import SHORT, made_table

from swift_hydra import pretrain
from swift_hydra.run.resume import Pace
from swift_hydra.settings import run_main
from swift_hydra.SwiftHydra import main as swift_hydra_main

SCRIPTS = {"SwiftHydra": swift_hydra_main, "pretrain": pretrain.main}


def run(script, arguments, streams, limits):
    """In the child.

    Args:
        script: a key of ``SCRIPTS``.
        arguments: of its command line.
        streams: files for stdout and stderr.
        limits: max_bytes of a file it writes; nobody: without root's rights; between: seconds
            from one write to the next; signal: [name, number, count], see :func:`signal_itself`.
    """
    for number, name in enumerate(streams, 1):
        os.dup2(os.open(name, os.O_WRONLY), number)
    pace = Pace(between=limits.get("between", 0.0), within=0.01, share=0.5)
    if "max_bytes" in limits:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (limits["max_bytes"], limits["max_bytes"]))
    if limits.get("nobody") and os.getuid() == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
    if "signal" in limits:
        signal_itself(*limits["signal"])
    run_main(lambda: SCRIPTS[script](arguments, pace))


def signal_itself(name, number, count=1):
    """Signal this process when a file that ends in ``name`` has come into place ``count`` times.

    By itself, so that no moment depends on how busy the machine is.
    """
    seen = 0
    armed = False

    def hook(event, arguments):
        nonlocal seen, armed
        if armed:  # whatever comes next: the file has its place
            armed = False
            os.kill(os.getpid(), number)
        if event == "os.rename" and str(arguments[1]).endswith(name):
            seen += 1
            armed = seen == count

    sys.addaudithook(hook)


def child(**request):
    code = 99
    try:
        run(**request)
        code = 0
    except SystemExit as stop:
        code = stop.code
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


def main():
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # A run of its own, whose result line says that it is ready: what is loaded at first use is
    # there for the children.
    with tempfile.TemporaryDirectory() as folder:
        X, y = made_table(n=100)
        np.savez(Path(folder) / "made.npz", X=X, y=y)
        swift_hydra_main([f"{folder}/made.npz", "--out", folder, "--quiet", *SHORT])
    sys.stdout.flush()
    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            _, status = os.waitpid(request["wait"], 0)
            print(os.waitstatus_to_exitcode(status), flush=True)
            continue
        number = os.fork()
        if number == 0:
            child(**request)
        print(number, flush=True)


if __name__ == "__main__":
    main()
