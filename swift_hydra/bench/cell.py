"""One cell of the benchmark: one method on one split of one dataset, in a process of its own.

A cell's process has one thread, a limit on its memory and one on its time; whatever happens in it,
the sweep goes on. A record is written once, whole, and never rewritten. Two file locks per cell see
to it: the worker's keeps two sweeps from computing the same cell; the child's keeps the child of a
killed worker, in the moment until it notices, from writing beside the child of the sweep that
follows.

A failure is recorded only when it is the cell's own: a child that was ended from outside, or that
left because its worker or its fork server was gone, is started again.
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
ORPHANED = 75  # exit code of a process that left because its parent was gone
SERVER_GONE = 255  # what multiprocessing says of a child whose fork server was killed
LOST_CHILDREN = 10  # so many may be lost like that before it counts as the cell's end
# Forked from a clean process with the imports done: milliseconds, where a new interpreter takes
# seconds.
START = "forkserver" if hasattr(os, "fork") else "spawn"
PRELOAD = ["sklearn.ensemble", "swift_hydra.bench.content"]  # once per worker, for all its cells


@dataclass(frozen=True)
class Cell:
    """What is to be computed, and within which limits.

    Args:
        records: folder of the records.
        path: the dataset's file.
        method: a name that :func:`methods.make_method` knows, or ``script``.
        protocol: a name that :func:`data.splits.parse_protocol` knows, such as ``seen`` or
            ``weak-0.05``.
        seed: of the split and of the method.
        max_rows: stratified subsample of larger tables, 0 for all rows.
        time_limit: seconds, wall-clock.
        memory_limit: GiB, 0 for no limit.
        sha256: of the dataset's file; a record of another one is not the cell's.
        git: the code's commit when the sweep began; None asks when the cell is computed.
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
        """Write the cell's record: what names it, and ``content``."""
        write_record(self.records, self.named() | content)

    def lock(self, holder):
        """Hold the cell's lock of its ``worker`` or its ``child``."""
        return lock_record(self.records, self.key, holder)


def run_cell(cell, sweep=None, start=START, make=None, parent=None):
    """Compute a cell in a child process unless its record is there.

    A child that ended without a record is started once more (the machine may have been out of
    memory for another's sake); the second time its end is the record.

    Args:
        cell: the :class:`Cell`.
        sweep: process number of the sweep; a worker of its own ends when the sweep does.
        start: how the child is started, a method of multiprocessing.
        make: a function of a method's name and a seed that gives an unfitted detector; None takes
            :func:`methods.make_method`.
        parent: process number of what started this one, where it is known: it may be gone by now.

    Returns:
        The record.

    Raises:
        InputError: if this process may not start others.
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
                continue  # whatever came after it was written
            if code is None:
                cell.write({"failed": f"TimeLimit: not finished after {cell.time_limit:g} s"})
            elif code in (ORPHANED, SERVER_GONE) and lost < LOST_CHILDREN:
                lost += 1
            elif not crashes:
                crashes += 1
            else:
                # What killed the child may be about to kill this process too: then it is no crash.
                time.sleep(2 * POLL_SECONDS)
                cell.write({"failed": f"Crash: the process ended with code {code}"})
    return record


def _run_child(cell, start, make):
    """The exit code of one child, or None if its time was up."""
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
    """End what a child has left running, such as the main script."""
    if hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(number, signal.SIGKILL)


def die_with_parent(parent=None, leads=False):
    """Leave when the process that started this one is gone, such as a sweep killed by SIGKILL.

    Args:
        parent: its process number; None takes that of today.
        leads: this process leads a group of its own, which ends with it.
    """
    if getattr(die_with_parent, "watched", None) == os.getpid():
        return
    die_with_parent.watched = os.getpid()
    parent = parent or os.getppid()
    # A leader is a server's child: who asked the server for it can be gone before it looks.
    asked = multiprocessing.parent_process() if leads else None

    def watch():
        while os.getppid() == parent and (asked is None or asked.is_alive()):
            time.sleep(POLL_SECONDS)
        if leads:
            _kill_group(os.getpid())  # this process too
        os._exit(ORPHANED)

    threading.Thread(target=watch, daemon=True).start()


def _child(cell, make):
    """One record, unless the child of a killed worker has just written it."""
    # The workers that start children need none of what computes: seconds of each.
    from swift_hydra.bench.content import computed

    leads = hasattr(os, "setpgrp")
    if leads:
        os.setpgrp()
    die_with_parent(leads=leads)
    with cell.lock("child"):
        if cell.find() is None:
            cell.write(computed(cell, make))
