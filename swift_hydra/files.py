"""Atomic writes of files, file locks, and checkpoints with a checksum.

A file appears completely or not at all: it is written under another name in the same folder and
then renamed.
"""

import contextlib
import errno
import glob
import hashlib
import io
import os
import re
import secrets
import string
import sys
import time
import zipfile
from pathlib import Path

from swift_hydra.settings import InputError, in_words, lacks_memory

try:
    import fcntl
except ImportError:  # Windows
    import msvcrt

    fcntl = None


NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # of file systems without locks
FULL = (errno.ENOSPC, errno.EFBIG, *([errno.EDQUOT] if hasattr(errno, "EDQUOT") else []))
LETTERS = string.ascii_lowercase + string.digits + "_"
N_LETTERS = 8  # random letters in a part-file's name, by which part-files are recognised
MOST_NAMED = 200  # bytes of a file's name in that of its part-file: a name has at most 255
KIND = "SwiftHydra"  # of a fitted detector's checkpoint
SUM_BYTES = 64  # SHA256 (hex) of all bytes before, as the comment of torch.save's zip archive
MODE = 0o666  # of a new file, before the system applies the umask (to ask for that is to set it)


@contextlib.contextmanager
def file_lock(path, wait=True):
    """Hold the lock of the file ``path``, which is created if it is missing.

    The system releases the lock when this process dies. If ``path`` is a link it is not followed.

    Args:
        path: the file.
        wait: False gives up at once if the lock is held.

    Raises:
        BlockingIOError: another process holds the lock, and ``wait`` is False.
    """
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
    with os.fdopen(os.open(path, flags, MODE), "r+") as file:
        _lock(file, wait)
        yield file


def _lock(file, wait):
    if fcntl is not None:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    while fcntl is None:
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
            break
        except PermissionError:  # held; msvcrt's waiting lock would give up after ten seconds
            if not wait:
                raise BlockingIOError(errno.EAGAIN, "held by another process") from None
            time.sleep(0.1)


def _start_of_part(path):
    return f".{os.fsdecode(os.fsencode(path.name)[:MOST_NAMED])}."


def remove(path):
    """Remove a file or a link, if there is one; a folder of that name is left alone."""
    if path.is_symlink() or path.is_file():
        path.unlink(missing_ok=True)


def _new_part(path, mode):
    """Create a part-file beside ``path``, locked by this process; returns its handle and name.

    Args:
        path: the final place of the file.
        mode: permissions, before the umask is applied.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    while True:
        drawn = "".join(secrets.choice(LETTERS) for _ in range(N_LETTERS))
        name = path.with_name(f"{_start_of_part(path)}{drawn}.part")
        with contextlib.suppress(FileExistsError):
            handle = os.open(name, flags, mode)
            with contextlib.suppress(OSError):  # file systems without locks
                if fcntl is not None:
                    fcntl.flock(handle, fcntl.LOCK_EX)
            if name.exists():
                return handle, name
            os.close(handle)  # before the lock, another process removed it as a left part-file


def remove_left_parts(path):
    """Remove the part-files of ``path`` that killed processes left: those without a lock."""
    start = _start_of_part(path)
    for left in path.parent.glob(f"{glob.escape(start)}*.part"):
        drawn = left.name.removeprefix(start).removesuffix(".part")
        if not re.fullmatch(f"[{LETTERS}]{{{N_LETTERS}}}", drawn):
            continue  # the user's file, or a part of another file whose name begins alike
        with contextlib.suppress(OSError):
            if fcntl is None:
                continue
            with open(left, "rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                left.unlink(missing_ok=True)


@contextlib.contextmanager
def part(path, write):
    """Write a part-file beside ``path`` and yield its name, to be renamed to ``path``.

    If it was not renamed it is removed at the end.

    Args:
        path: the final place of the file.
        write: a function that is called with an open binary file.

    Raises:
        InputError: there is no room or no permission, or ``path`` is not an ordinary file.
    """
    if path.exists() and not path.is_file():
        # Renaming would replace a device or a pipe by a file.
        raise InputError(f"{path}: is no ordinary file: choose another place")
    name = None
    try:
        remove_left_parts(path)
        # Permissions as before, even while writing: nobody else may read the new content.
        old = path.stat().st_mode & 0o777 if path.exists() else None
        handle, name = _new_part(path, MODE if old is None else old)
        with os.fdopen(handle, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
            if fcntl is None:
                file.close()  # Windows renames no open file
            if old is not None:
                os.chmod(name, old)
            yield name  # still locked, so that nobody removes it as a left part-file
    except OSError as error:
        raise _not_written(path, error) from None
    finally:
        if name is not None:
            with contextlib.suppress(OSError):
                os.unlink(name)


def _not_written(path, error):
    remedy = "free space there" if error.errno in FULL else "make its folder writable"
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        remedy = "make its folder"
    if error.errno == errno.ENXIO:
        return InputError(
            f"{path}: is no ordinary file, and nobody reads from it: start its reader first, or "
            "choose another place"
        )
    return InputError(
        f"{path}: cannot be written ({error.strerror or error}): {remedy} or choose another place"
    )


@contextlib.contextmanager
def looked_at(path):
    """A context in which a path is looked at: one that the system refuses is an InputError."""
    try:
        yield
    except OSError as error:
        long = error.errno == errno.ENAMETOOLONG
        remedy = "give a shorter one" if long else "check the permissions of its folder"
        raise InputError(f"{path}: {error.strerror or error}: {remedy}") from None


def real_place(path):
    """The target of a link; a path to an open pipe, such as /dev/stdout, stays as it is."""
    real = Path(os.path.realpath(path))
    if real.is_symlink():
        raise InputError(f"{path}: is a link that leads to itself: remove it")
    return Path(path) if os.path.exists(path) and not real.exists() else real


def _own_stream(path):
    """1 or 2 if this process's stdout or stderr goes to this path, else None.

    Such a file must not be replaced: it may hold earlier content (``>> all.csv``).
    """
    for stream in (1, 2):
        with contextlib.suppress(OSError):
            if os.path.samestat(os.stat(path), os.fstat(stream)):
                return stream
    return None


def in_place(path):
    """Is a path written in place: a device, a pipe, or the target of this process's output?"""
    path = real_place(path)
    special = path.exists() and not path.is_file() and not path.is_dir()
    return special or _own_stream(path) is not None


def _open_in_place(path):
    """A handle for writing to a path for which :func:`in_place` is true."""
    stream = _own_stream(path)
    if stream is not None:
        sys.stdout.flush()
        return os.dup(stream)
    # Do not wait for a reader of a pipe: it may never come.
    handle = os.open(path, os.O_WRONLY | getattr(os, "O_NONBLOCK", 0))
    os.set_blocking(handle, True)
    return handle


def write_file(path, write):
    """Write one file atomically: ``write`` is called with an open binary file.

    If ``path`` is a link, its target is written and the link stays. Devices, pipes and the target
    of this process's output are written in place.

    Raises:
        InputError: the file cannot be written.
    """
    if not os.path.basename(path):  # without it the folder's name would become the file's
        raise InputError(f"{path}: is the name of a folder: add that of the file")
    with looked_at(path):
        path = real_place(path)
        here = in_place(path)
    if here:
        try:
            with os.fdopen(_open_in_place(path), "wb", buffering=0) as file:
                write(file)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise _not_written(path, error) from None
        return
    with part(path, write) as name:
        os.replace(name, path)


def write_bytes(path, content):
    """Write these bytes to one file, atomically."""
    write_file(path, lambda file: file.write(content))


def write_torch(path, content):
    """Write tensors and plain values, which load with ``weights_only=True``, atomically."""
    write_bytes(path, torch_bytes(content))


REMEDY = (
    "check that this is the file that was meant; if it is a damaged checkpoint, run the command "
    "that wrote it again"
)


def torch_bytes(content):
    """The bytes of torch.save, a zip archive, with their SHA256 as the archive's comment.

    torch.load does not notice every changed byte; by this sum :func:`load_checkpoint` does.
    """
    import torch  # here: locks and plain files do not need it

    buffer = io.BytesIO()
    torch.save(content, buffer)
    return with_sum(buffer.getbuffer())


def with_sum(archive):
    """A zip archive without a comment, given one: its SHA256."""
    data = bytearray(archive)
    data[-2:] = SUM_BYTES.to_bytes(2, "little")  # the archive's last field: its comment's length
    return bytes(data + hashlib.sha256(data).hexdigest().encode())


def load_checkpoint(path, kind, remedy=REMEDY):
    """Read a checkpoint of the given kind on the CPU, tensors and plain values only.

    Raises:
        InputError: it is missing, damaged (if only in one byte), or of another kind.
    """
    import torch

    path = Path(path)
    with looked_at(path):
        if path.is_dir():
            raise InputError(f"{path}: is a folder: give the checkpoint.pt in it")
        if not path.is_file():
            raise InputError(f"{path}: no such checkpoint: check the path")
    if path.suffix == ".onnx":
        raise InputError(f"{path}: is an exported student, which only score takes: {remedy}")
    try:
        with open(path, "rb") as file:
            if not _sum_is_right(file):
                raise ValueError("another SHA256")
            _refuse_packed(file)
            file.seek(0)
            saved = torch.load(file, map_location="cpu", weights_only=True)
        _refuse_repeated(saved)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror}): check its permissions"
        ) from None
    except Exception as error:  # a damaged pickle raises anything, IndexError and TypeError too
        if lacks_memory(error):
            raise _no_room(path, error) from None
        raise InputError(
            f"{path}: not a readable checkpoint (damaged or not written by this project): {remedy}"
        ) from None
    if not isinstance(saved, dict) or str(saved.get("kind")) != kind:
        found = saved.get("kind") if isinstance(saved, dict) else type(saved).__name__
        found = " ".join(repr(found).split())[:60]
        raise InputError(f"{path}: holds {found}, not a {kind!r} checkpoint: {remedy}")
    return saved


def _refuse_packed(file):
    """Refuse an archive whose content is larger than its file: torch.save does not compress."""
    with zipfile.ZipFile(file) as archive:
        if sum(member.file_size for member in archive.infolist()) > os.fstat(file.fileno()).st_size:
            raise ValueError("more content than bytes")


def _refuse_repeated(value):
    """Refuse tensors larger than their storage, which take their full size in memory when used."""
    import torch

    if isinstance(value, torch.Tensor):
        if value.numel() * value.element_size() > value.untyped_storage().nbytes():
            raise ValueError("a tensor of more numbers than are stored")
    elif isinstance(value, (dict, list, tuple)):
        for item in value.values() if isinstance(value, dict) else value:
            _refuse_repeated(item)


def _sum_is_right(file):
    """Does an open file end with the SHA256 of all bytes before? It is read in pieces."""
    size = os.fstat(file.fileno()).st_size - SUM_BYTES
    if size <= 0:
        return False
    file.seek(size)
    told = file.read(SUM_BYTES)
    if not re.fullmatch(rb"[0-9a-f]+", told):
        return False
    file.seek(0)
    digest = hashlib.sha256()
    while size > 0:
        block = file.read(min(size, 1 << 20))
        digest.update(block)
        size -= len(block)
    return digest.hexdigest().encode() == told


def _no_room(path, error):
    """An InputError that blames this machine, not the file, which may be the user's only copy."""
    return InputError(f"{path}: cannot be used here ({in_words(error)}): free memory or disk space")


@contextlib.contextmanager
def content_of(path, remedy=REMEDY):
    """A context in which the content of a checkpoint is used, so that errors name the file.

    Raises:
        InputError: in place of any exception. A readable file can lack any key and hold any type,
            shape or size.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, OSError) or lacks_memory(error):
            raise _no_room(path, error) from None
        raise InputError(
            f"{path}: its content does not fit together ({in_words(error)}): {remedy}"
        ) from None
