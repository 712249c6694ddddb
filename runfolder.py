"""The folder of a run: ``<out>/<dataset>/<protocol>/seed<k>/``, written atomically, ``DONE`` last.

A file appears whole or not at all: it is written under another name beside its place and then renamed. A run that is
cut off leaves the files of the run before it as they were.
"""

import contextlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

from config import InputError


class RunFolder:
    """One run's place on disk.

    Raises:
        InputError: if the folder cannot be created or written.
    """

    def __init__(self, out, dataset, protocol, seed):
        self.path = Path(out) / dataset / protocol / f"seed{seed}"
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.path):
                pass
        except OSError as error:
            raise InputError(
                f"{out}: cannot write there ({error.strerror}): choose another folder with --out"
            ) from None

    @staticmethod
    def _atomic(path, write):
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
        try:
            with os.fdopen(handle, "wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(name, 0o644)
            os.replace(name, path)
        except OSError as error:
            raise InputError(
                f"{path}: cannot be written ({error.strerror}): free space or choose another --out"
            ) from None
        finally:
            if os.path.exists(name):
                os.unlink(name)

    @classmethod
    def write_torch(cls, path, content):
        """Tensors and plain values only: they load with ``weights_only=True``."""
        cls._atomic(Path(path), lambda file: torch.save(content, file))

    @classmethod
    def write_bytes(cls, path, content):
        """One file, whole or not at all."""
        cls._atomic(Path(path), lambda file: file.write(content))

    def write_results(self, report, log, arrays, checkpoint):
        """All files of a finished run. ``DONE`` goes first and comes back last."""
        (self.path / "DONE").unlink(missing_ok=True)
        lines = "".join(json.dumps(entry) + "\n" for entry in log)
        self.write_bytes(self.path / "log.jsonl", lines.encode())
        if checkpoint is not None:
            self.write_torch(self.path / "checkpoint.pt", checkpoint)
        if arrays is not None:
            self._atomic(self.path / "scores.npz", lambda file: np.savez_compressed(file, **arrays))
        text = json.dumps(report, indent=1) + "\n"
        self.write_bytes(self.path / "report.json", text.encode())
        if report["failed"] is None:
            self.write_bytes(self.path / "DONE", b"")


REMEDY = "delete it and run the command that wrote it again"


def load_checkpoint(path, kind):
    """Read a checkpoint of the given kind on the CPU, tensors and plain values only.

    Raises:
        InputError: if it is missing, damaged, or of another kind.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such checkpoint: check the path")
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # a damaged pickle raises anything, IndexError and TypeError among it
        raise InputError(
            f"{path}: not a readable checkpoint (damaged or not written by this project): {REMEDY}"
        ) from None
    if not isinstance(saved, dict) or str(saved.get("kind")) != kind:
        found = saved.get("kind") if isinstance(saved, dict) else type(saved).__name__
        found = " ".join(repr(found).split())[:60]
        raise InputError(f"{path}: holds {found}, not a {kind!r} checkpoint: {REMEDY}")
    return saved


@contextlib.contextmanager
def content_of(path):
    """While the content of a checkpoint is put to use: whatever is wrong with it names the file.

    Raises:
        InputError: in place of any exception. A readable file can lack any key and hold any type, shape or size.
    """
    try:
        yield
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(f"{path}: its content does not fit together ({reason[:160]}): {REMEDY}") from None


def write_tensorboard(folder, log):
    """The numbers of log.jsonl as TensorBoard scalars, a tag ``stage/key`` each, where TensorBoard is installed.

    Called when all is done: the import takes longer than some stages. What an earlier run wrote there is replaced.
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

    root = Path(__file__).parent
    try:
        command = ["git", "-C", str(root), "rev-parse", "HEAD"]
        git_hash = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        git_hash = None  # an unpacked archive, not a clone
    return {
        "git": git_hash,
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__,
                     "scikit-learn": sklearn.__version__},
        "platform": platform.platform(), "threads": torch.get_num_threads(),
    }  # fmt: skip


def to_tensors(value):
    """Arrays to tensors inside nested dicts and lists; plain values stay."""
    if isinstance(value, dict):
        return {name: to_tensors(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_tensors(item) for item in value]
    return torch.from_numpy(np.array(value)) if isinstance(value, (np.ndarray, np.generic)) else value


def to_arrays(value):
    """The way back of :func:`to_tensors`."""
    if isinstance(value, dict):
        return {name: to_arrays(item) for name, item in value.items()}
    if isinstance(value, list):
        return [to_arrays(item) for item in value]
    return value.numpy() if isinstance(value, torch.Tensor) else value


def peak_memory_mib():
    """Largest resident memory of this process so far in MiB, or None where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10))
