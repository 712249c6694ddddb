"""Records of a run's environment: versions, commit, memory; and TensorBoard files."""

import functools
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import sklearn
import torch

from swift_hydra.settings import tell


def write_tensorboard(folder, log):
    """Write the numbers of log.jsonl as TensorBoard scalars, if TensorBoard is installed.

    It is called at the end of a run, since the import takes longer than some stages. The files of
    an earlier run have been removed by then, see :class:`run.folder.RunFolder`. If writing fails
    this is only a warning, since the run's own files are complete.

    Args:
        folder: where they go.
        log: the entries; a number's tag is ``stage/key``.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return
    try:
        with SummaryWriter(folder) as writer:
            for entry in log:
                step = entry.get("step", entry.get("episode"))
                for key in entry.keys() - {"stage", "step", "episode"}:
                    writer.add_scalar(f"{entry['stage']}/{key}", entry[key], step)
    except (OSError, UnicodeError) as error:  # TensorBoard accepts only names in UTF-8
        tell(f"no TensorBoard files in {str(folder)!r}: {error}")


@functools.cache
def git_hash():
    """The code's commit, with ``+`` if the code differs from it; None if this is not a clone.

    It is cached: a process runs the code that was there when it began.
    """
    root = Path(__file__).resolve().parents[2]
    # An installed package may lie inside a repository that is not this one.
    if not (root / "SwiftHydra.py").is_file():
        return None
    try:
        command = ["git", "-C", str(root), "rev-parse", "HEAD"]
        commit = _said_by(command)
        code = ("--", "*.py", "pyproject.toml")
        changed = _said_by([*command[:3], "status", "--porcelain", "--untracked-files=no", *code])
    except (OSError, subprocess.CalledProcessError):
        return None  # an unpacked archive
    return commit + "+" * bool(changed)


def _said_by(command):
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def environment_report():
    """Versions and the code's commit, for report.json."""
    return {
        "git": git_hash(),
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
    """Largest resident memory of this process so far in MiB, or None if it is not known."""
    try:  # Linux: getrusage would count what the parent process held when it started this one
        lines = Path("/proc/self/status").read_text("utf-8").splitlines()
        kib = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
        return round(kib / 2**10)
    except (OSError, StopIteration):
        pass
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10))
