"""Runs of the scripts as children forked from one process that has done its imports: a run without
their seconds.

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

import numpy as np
import torch
from helpers import SHORT, made_table

import swift_hydra.pretrain as pretrain
import SwiftHydra as SwiftHydra
from swift_hydra.run import resume as resume
from swift_hydra.settings import run_main

SCRIPTS = {"SwiftHydra": SwiftHydra.main, "pretrain": pretrain.main}


def run(script, arguments, streams, limits):
    """In the child. limits: max_bytes of a file it writes; nobody: without root's rights; between:
    writes, seconds.
    """
    for number, name in enumerate(streams, 1):
        os.dup2(os.open(name, os.O_WRONLY), number)
    resume.BETWEEN_STAGES = limits.get("between", 0.0)
    if "max_bytes" in limits:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (limits["max_bytes"], limits["max_bytes"]))
    if limits.get("nobody") and os.getuid() == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
    run_main(lambda: SCRIPTS[script](arguments))


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
    resume.WITHIN_STAGES, resume.LARGEST_SHARE = 0.01, 0.5
    # A run of its own, whose result line says that it is ready: what is loaded at first use is
    # there for the children.
    with tempfile.TemporaryDirectory() as folder:
        X, y = made_table(n=100)
        np.savez(Path(folder) / "made.npz", X=X, y=y)
        SwiftHydra.main([f"{folder}/made.npz", "--out", folder, "--quiet", *SHORT])
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
