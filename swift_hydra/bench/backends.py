"""Spread the cells of a sweep: over the processes of this machine, or over a Ray or Dask cluster.

Every backend is a generator that yields the cells' records as they are finished. A worker or a
machine that is lost costs time and nothing else: what it was computing is computed again elsewhere.
Ray and Dask are used without joblib, whose Ray pool goes on giving cells to workers that are gone.
"""

import os
import socket
import time

from joblib import Parallel, delayed

from swift_hydra.bench.cell import run_cell
from swift_hydra.settings import InputError

RETRIES = 10  # of a cell whose machine was lost; after that it stays open, for the next call
POLL = 10.0  # seconds between two looks at a cluster that finishes nothing
CONNECT = 10.0  # seconds to reach a cluster
PATIENCE = 300.0  # seconds a cluster may be without any processor


def spread(cells, backend, jobs):
    """Compute cells; yields for each its record (see :func:`cells.run_cell`), or why there is none
    under ``lost``.

    Args:
        cells: a list of :class:`cells.Cell`.
        backend: a name of ``BACKENDS``.
        jobs: cells at the same time on this machine; a cluster that is running takes as many as it
            has processors.

    Raises:
        InputError: if the package is missing, or no cluster answers, or none of its machines is
        left.
    """
    try:
        yield from BACKENDS[backend](cells, jobs)
    except ImportError as error:
        raise InputError(
            f"backend={backend!r} needs the package {error.name}: pip install {PACKAGES[backend]}"
        ) from None


def _loky(cells, jobs):
    yield from Parallel(n_jobs=jobs, backend="loky", batch_size=1, return_as="generator_unordered")(
        delayed(run_cell)(cell, os.getpid()) for cell in cells
    )


def _ray(cells, jobs):
    """On the cluster at RAY_ADDRESS, on the one that ``ray start`` started here, or on one of this
    sweep's own.
    """
    import ray

    address, quiet = (
        os.environ.get("RAY_ADDRESS"),
        {"log_to_driver": False, "logging_level": "error"},
    )
    try:
        if address:
            _knock(address)  # Ray itself would knock for minutes
            ray.init(address, **quiet)
        else:
            try:
                ray.init(num_cpus=jobs, **quiet)
            except ValueError:  # `ray start` has started a cluster here, which knows its processors
                ray.init(**quiet)
    except (OSError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"RAY_ADDRESS={address}: no Ray cluster can be used there ({reason}): ray start --head"
        ) from None
    try:
        compute = ray.remote(run_cell).options(num_cpus=1, max_retries=RETRIES)
        waiting = {compute.remote(cell, os.getpid()): cell for cell in cells}
        idle = _Idle(lambda: ray.cluster_resources().get("CPU", 0))
        while waiting:
            done, _ = ray.wait(list(waiting), timeout=POLL)
            idle.check(done)
            for task in done:
                cell = waiting.pop(task)
                try:
                    yield ray.get(task)
                except ray.exceptions.RayError as error:
                    yield _lost(cell, error)
    finally:
        ray.shutdown()


def _dask(cells, jobs):
    """On the cluster at DASK_SCHEDULER_ADDRESS, or on one of this sweep's own."""
    from distributed import Client, wait

    address = os.environ.get("DASK_SCHEDULER_ADDRESS")
    # Threads suffice on one machine: every cell has a process of its own anyway.
    local = (
        {}
        if address
        else {
            "processes": False,
            "n_workers": jobs,
            "threads_per_worker": 1,
            "dashboard_address": None,
        }
    )
    try:
        client = Client(address, timeout=CONNECT, **local)
    except OSError:
        raise InputError(
            f"DASK_SCHEDULER_ADDRESS={address}: no scheduler answers there: run dask scheduler"
        ) from None
    with client:
        tasks = client.map(run_cell, cells, sweep=os.getpid(), pure=False, retries=RETRIES)
        waiting = dict(zip(tasks, cells, strict=True))
        idle = _Idle(lambda: sum(client.ncores().values()))
        while waiting:
            try:
                done = wait(list(waiting), POLL, return_when="FIRST_COMPLETED").done
            except TimeoutError:
                done = []
            idle.check(done)
            for task in done:
                cell = waiting.pop(task)
                if isinstance(
                    task.exception(), InputError
                ):  # of a worker that can compute no cell at all
                    raise task.exception()
                yield task.result() if task.status == "finished" else _lost(cell, task.exception())


def _knock(address):
    """Raises OSError where nothing listens at ``host:port`` (``ray://`` before it, or a name such
    as ``auto``).
    """
    host, _, port = address.rpartition("/")[2].rpartition(":")
    if port.isdigit():
        socket.create_connection((host, int(port)), CONNECT).close()


class _Idle:
    """Ends a sweep on a cluster whose machines are all gone: it would wait for ever.

    Args:
        processors: a function that counts those of the cluster.
    """

    def __init__(self, processors):
        self.processors, self.alive = processors, time.monotonic()

    def check(self, done):
        if done or self.processors():
            self.alive = time.monotonic()
        elif time.monotonic() - self.alive > PATIENCE:
            raise InputError(
                f"backend: the cluster has had no processor for {PATIENCE:g} s: start machines and run the same "
                "command again, it goes on from here"
            )


def _lost(cell, error):
    return {**cell.named(), "lost": " ".join(f"{type(error).__name__}: {error}".split())[:200]}


BACKENDS = {"loky": _loky, "ray": _ray, "dask": _dask}
PACKAGES = {"ray": "ray", "dask": "'dask[distributed]'"}
