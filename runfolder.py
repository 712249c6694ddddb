"""The folder of a run: ``<out>/<dataset>/<protocol>/seed<k>/``, written atomically, ``DONE`` last.

A file appears whole or not at all: it is written under another name beside its place and then renamed. A run that is
cut off leaves the files of the run before it as they were. One run at a time has the folder.
"""

import contextlib
import errno
import hashlib
import io
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from config import InputError

try:
    import fcntl
except ImportError:  # Windows
    import msvcrt

    fcntl = None

NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # what some network file systems say
FULL = (errno.ENOSPC, errno.EFBIG, *([errno.EDQUOT] if hasattr(errno, "EDQUOT") else []))
SUM_BYTES = 64  # SHA256 (hex) of all that is before it, as the comment of the zip archive that torch.save writes


@contextlib.contextmanager
def file_lock(path, wait=True):
    """Hold the lock of the file ``path``, which is created; the system lets go of it when this process dies.

    Raises:
        BlockingIOError: if another process holds it and ``wait`` is False.
    """
    with open(path, "w") as file:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        while fcntl is None:
            try:
                msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
                break
            except PermissionError:  # held; the lock that waits would give up after ten seconds
                if not wait:
                    raise BlockingIOError(errno.EAGAIN, "held by another process") from None
                time.sleep(0.1)
        yield file


class RunFolder:
    """One run's place on disk.

    Raises:
        InputError: if the folder cannot be created or written.
    """

    FILES = ("log.jsonl", "checkpoint.pt", "scores.npz", "report.json", "DONE", "pretrained.pt", "pretrain-resume.pt",
             "resume.pt")  # fmt: skip

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

    @contextlib.contextmanager
    def locked(self):
        """This run's alone: a second run is refused until this one ends, however it ends. Reading needs no lock.

        Raises:
            InputError: if another run has the folder.
            KeyboardInterrupt: with what to do next, in place of the one without words.
        """
        lock = self.path / ".lock"
        with contextlib.ExitStack() as stack:
            try:
                while True:
                    file = stack.enter_context(file_lock(lock, wait=False))
                    with contextlib.suppress(FileNotFoundError):
                        if os.path.samestat(os.fstat(file.fileno()), os.stat(lock)):
                            break
                    stack.close()  # its holder ended and removed it between our opening and our locking it
            except BlockingIOError:
                raise InputError(
                    f"{self.path}: another run is using this folder: wait for its end, or choose another with --out"
                ) from None
            except OSError as error:
                if error.errno not in NO_LOCKS:
                    raise InputError(f"{lock}: cannot be written ({error.strerror}): delete it, or choose another "
                                     "folder with --out") from None  # fmt: skip
                print(f"warning: {self.path} cannot be locked ({error.strerror}): see to it that no second run uses it",
                      file=sys.stderr)  # fmt: skip
            for name in self.FILES:  # what a killed run was about to write
                for part in self.path.glob(f".{name}.*.part"):
                    part.unlink(missing_ok=True)
            try:
                yield self
            except KeyboardInterrupt:
                raise KeyboardInterrupt("the same command with --resume goes on from what is on disk") from None
            finally:
                with contextlib.suppress(OSError):  # Windows does not remove an open file
                    lock.unlink()

    @staticmethod
    @contextlib.contextmanager
    def _part(path, write):
        """The name of a finished file beside ``path``, to be renamed to it; gone at the end otherwise."""
        name = None
        try:
            handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
            with os.fdopen(handle, "wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(name, 0o644)
            yield name
        except OSError as error:
            remedy = "free space there" if error.errno in FULL else "make its folder writable"
            raise InputError(
                f"{path}: cannot be written ({error.strerror or error}): {remedy} or choose another place"
            ) from None
        finally:
            if name is not None:
                with contextlib.suppress(OSError):
                    os.unlink(name)

    @classmethod
    def _atomic(cls, path, write):
        with cls._part(path, write) as name:
            os.replace(name, path)

    @classmethod
    def write_torch(cls, path, content):
        """Tensors and plain values only: they load with ``weights_only=True``."""
        cls.write_bytes(path, _torch_bytes(content))

    @classmethod
    def write_bytes(cls, path, content):
        """One file, whole or not at all."""
        cls._atomic(Path(path), lambda file: file.write(content))

    def write_results(self, report, log, arrays, checkpoint, figures=None):
        """All files of a finished run, ``DONE`` last; figures of an earlier run go.

        Args:
            report: dict. log: list of dicts. arrays: dict or None. checkpoint: dict or None.
            figures: {file name: bytes} or None.

        All of them are on disk before the first takes its place: when there is no room, the run before stays whole.
        """
        contents = {"log.jsonl": "".join(json.dumps(entry) + "\n" for entry in log).encode()}
        if checkpoint is not None:
            contents["checkpoint.pt"] = _torch_bytes(checkpoint)
        if arrays is not None:
            buffer = io.BytesIO()
            np.savez_compressed(buffer, **arrays)
            contents["scores.npz"] = buffer.getvalue()
        contents |= figures or {}
        contents["report.json"] = (json.dumps(report, indent=1) + "\n").encode()
        if report["failed"] is None:
            contents["DONE"] = b""
        with contextlib.ExitStack() as stack:
            parts = {}
            for name, content in contents.items():
                parts[name] = stack.enter_context(
                    self._part(self.path / name, lambda file, content=content: file.write(content))
                )
            (self.path / "DONE").unlink(missing_ok=True)
            for old in [*self.path.glob("*.png"), self.path / "report.html"]:
                if old.name not in contents:
                    old.unlink(missing_ok=True)
            for name, part in parts.items():
                os.replace(part, self.path / name)


REMEDY = "delete it and run the command that wrote it again"


def _torch_bytes(content):
    """What torch.save writes, an ordinary zip archive, with the SHA256 of it all as its comment.

    torch.load does not notice every changed byte of the archive; :func:`load_checkpoint` does by this sum.
    """
    buffer = io.BytesIO()
    torch.save(content, buffer)
    data = bytearray(buffer.getbuffer())
    data[-2:] = SUM_BYTES.to_bytes(2, "little")  # the archive's last field, the length of its comment
    return bytes(data + hashlib.sha256(data).hexdigest().encode())


def load_checkpoint(path, kind, remedy=REMEDY):
    """Read a checkpoint of the given kind on the CPU, tensors and plain values only.

    Raises:
        InputError: if it is missing, damaged (by as little as a byte), or of another kind.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such checkpoint: check the path")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}): check its permissions") from None
    try:
        if hashlib.sha256(memoryview(data)[:-SUM_BYTES]).hexdigest().encode() != data[-SUM_BYTES:]:
            raise ValueError("another SHA256")
        saved = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception:  # a damaged pickle raises anything, IndexError and TypeError among it
        raise InputError(
            f"{path}: not a readable checkpoint (damaged or not written by this project): {remedy}"
        ) from None
    if not isinstance(saved, dict) or str(saved.get("kind")) != kind:
        found = saved.get("kind") if isinstance(saved, dict) else type(saved).__name__
        found = " ".join(repr(found).split())[:60]
        raise InputError(f"{path}: holds {found}, not a {kind!r} checkpoint: {remedy}")
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
    try:  # Linux: getrusage would count what the parent process held when it started this one
        lines = Path("/proc/self/status").read_text().splitlines()
        return round(next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 2**10)
    except (OSError, StopIteration):
        pass
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10))
