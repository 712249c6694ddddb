"""The folder of a run: ``<out>/<dataset>/<protocol>/seed<k>/``, written atomically, ``DONE`` last.

A file appears whole or not at all: it is written under another name beside its place and then
renamed. A run that is cut off leaves the files of the run before it as they were. One run at a time
has the folder.
"""

import platform
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None


def write_tensorboard(folder, log):
    """The numbers of log.jsonl as TensorBoard scalars, a tag ``stage/key`` each, where TensorBoard
    is installed.

    Called when all is done: the import takes longer than some stages. What an earlier run wrote
    there is replaced.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return
    shutil.rmtree(folder, ignore_errors=True)
    with SummaryWriter(folder) as writer:
        for entry in log:
            step = entry.get("step", entry.get("episode"))
            for key in entry.keys() - {"stage", "step", "episode"}:
                writer.add_scalar(f"{entry['stage']}/{key}", entry[key], step)


def environment_report():
    """Versions and the code's git hash, for report.json."""
    import sklearn

    root = Path(__file__).resolve().parents[2]
    try:
        command = ["git", "-C", str(root), "rev-parse", "HEAD"]
        git_hash = subprocess.run(
            command, capture_output=True, text=True, check=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        git_hash = None  # an unpacked archive, not a clone
    return {
        "git": git_hash,
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
            "scikit-learn": sklearn.__version__,
        },
        "platform": platform.platform(),
        "threads": torch.get_num_threads(),
    }


def peak_memory_mib():
    """Largest resident memory of this process so far in MiB, or None where the system does not
    tell.
    """
    try:  # Linux: getrusage would count what the parent process held when it started this one
        lines = Path("/proc/self/status").read_text().splitlines()
        return round(
            next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 2**10
        )
    except (OSError, StopIteration):
        pass
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10))
