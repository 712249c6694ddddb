"""One cell of the benchmark: one method on one split of one dataset, in a process of its own.

A cell's process has one thread and limits on its memory and time; whatever happens in it, the sweep
goes on. A record is written once, atomically, and never rewritten. Two file locks per cell ensure
this. The worker's lock keeps two sweeps from computing the same cell. The child's lock is for a
killed worker, whose child lives on until it notices: it keeps this child and the one of the next
sweep from both writing.

A failure is recorded only if the cell itself caused it: a child that was killed from outside, or
that ended because its worker or its fork server was gone, is started again.
"""

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from swift_hydra.bench.records import RecordKey, find_record, lock_record, write_record
from swift_hydra.settings import InputError

POLL_SECONDS = 0.5
ORPHANED = 75  # exit code of a process that ended because its parent was gone
SERVER_GONE = 255  # multiprocessing's exit code of a child whose fork server was killed
LOST_CHILDREN = 10  # after this many children lost like that it counts as a crash
# Forking from a clean process that has done the imports takes milliseconds, a new interpreter
# seconds.
START = "forkserver" if hasattr(os, "fork") else "spawn"
PRELOAD = ["sklearn.ensemble", "swift_hydra.bench.content"]  # once per worker, for all its cells


@dataclass(frozen=True)
class Cell:
    """One cell: what is to be computed, and within which limits.

    Args:
        records: folder of the records.
        path: the dataset's file.
        method: a name that :func:`methods.make_method` knows, or ``script``.
        protocol: a name that :func:`data.splits.parse_protocol` knows, such as ``seen`` or
            ``weak-0.05``.
        seed: seed of the split and of the method.
        max_rows: stratified subsample of larger tables, 0 for all rows.
        time_limit: seconds, wall-clock.
        memory_limit: GiB, 0 for no limit.
        sha256: SHA256 of the dataset's file; the record of another file is not this cell's.
        git: the code's commit when the sweep began; None determines it when the cell is computed.
    """

    records: str
    path: str
    method: str
    protocol: str
    seed: int
    max_rows: int
    time_limit: float
    memory_limit: float
    sha256: str = ""
    git: str | None = None

    @property
    def dataset(self):
        return Path(self.path).stem

    @property
    def key(self):
        return RecordKey(self.method, self.protocol, self.dataset, self.seed)

    def named(self):
        """The part of the cell's record that is known before it is computed."""
        return {**self.key._asdict(), "max_rows": self.max_rows, "sha256": self.sha256}

    def find(self):
        """The cell's record, or None."""
        return find_record(self.records, self.key)

    def write(self, content):
        """Write the cell's record: the entries of :meth:`named`, and ``content``."""
        write_record(self.records, self.named() | content)

    def lock(self, holder):
        """A context that holds one of the cell's locks; ``holder`` is ``worker`` or ``child``."""
        return lock_record(self.records, self.key, holder)


def run_cell(cell, sweep=None, start=START, make=None, parent=None):
    """Compute a cell in a child process, unless it has a record.

    A child that ended without a record is started once more, since another process may have used
    up the machine's memory; the second time a crash is recorded.

    Args:
        cell: the :class:`Cell`.
        sweep: process number of the sweep; a worker in another process ends when the sweep does.
        start: multiprocessing's method of starting the child.
        make: a function of a method's name and a seed that returns an unfitted detector; None
            takes :func:`methods.make_method`.
        parent: process number of this process's parent, if it is known; it may be gone by now.

    Returns:
        The record.

    Raises:
        InputError: this process may not start others.
    """
    if sweep not in (None, os.getpid()):
        die_with_parent(parent)
    if multiprocessing.current_process().daemon:
        raise InputError(
            "this worker may not start processes, every cell needs one: dask worker --no-nanny"
        )
    with cell.lock("worker"):
        crashes = 0
        lost = 0
        while (record := cell.find()) is None:
            code = _run_child(cell, start, make)
            if cell.find() is not None:
                continue  # however the child ended after it wrote the record
            if code is None:
                cell.write({"failed": f"TimeLimit: not finished after {cell.time_limit:g} s"})
            elif code in (ORPHANED, SERVER_GONE) and lost < LOST_CHILDREN:
                lost += 1
            elif not crashes:
                crashes += 1
            else:
                # If the same cause is about to kill this process too, it is no crash of the cell.
                time.sleep(2 * POLL_SECONDS)
                cell.write({"failed": f"Crash: the process ended with code {code}"})
    return record


def _run_child(cell, start, make):
    """The exit code of one child, or None if it exceeded its time limit."""
    context = multiprocessing.get_context(start)
    if start == "forkserver":
        context.set_forkserver_preload(PRELOAD)
    child = context.Process(target=_child, args=(cell, make))
    child.start()
    child.join(cell.time_limit)
    late = child.is_alive()
    if late:
        child.kill()
        child.join()
    _kill_group(child.pid)
    return None if late else child.exitcode


def _kill_group(number):
    """Kill what a child has left running, such as the main script."""
    if hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(number, signal.SIGKILL)


def die_with_parent(parent=None, leads=False):
    """End this process when its parent is gone, such as a sweep killed by SIGKILL.

    Args:
        parent: the parent's process number; None takes the current parent's.
        leads: this process leads a process group, which is killed with it.
    """
    if getattr(die_with_parent, "watched", None) == os.getpid():
        return
    die_with_parent.watched = os.getpid()
    parent = parent or os.getppid()
    # A leader is a child of the fork server; the process that asked for it is watched as well.
    asked = multiprocessing.parent_process() if leads else None

    def watch():
        while os.getppid() == parent and (asked is None or asked.is_alive()):
            time.sleep(POLL_SECONDS)
        if leads:
            _kill_group(os.getpid())  # this process too
        os._exit(ORPHANED)

    threading.Thread(target=watch, daemon=True).start()


def _child(cell, make):
    """Write one record, unless the child of a killed worker has just written it."""
    # Imported here: it takes seconds, and the workers that start children do not need it.
    from swift_hydra.bench.content import computed

    leads = hasattr(os, "setpgrp")
    if leads:
        os.setpgrp()
    die_with_parent(leads=leads)
    with cell.lock("child"):
        if cell.find() is None:
            cell.write(computed(cell, make))
