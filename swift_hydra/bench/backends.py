"""Spread the cells of a sweep: over this machine's processes, or over a Ray or Dask cluster.

Every backend is a generator that yields the cells' records as they are finished. If a worker or a
machine is lost, only time is lost: its cell is computed again elsewhere. Ray and Dask are used
without joblib, whose Ray pool goes on giving cells to workers that are gone. The workers write
working files into the folder of the records (see ``records.py``); only the sweep merges them.
"""

import contextlib
import os
import signal
import socket
import time

from joblib import Parallel, delayed

from swift_hydra.bench.cell import run_cell
from swift_hydra.settings import InputError, in_words

RETRIES = 10  # of a cell whose machine was lost; after that it is left to the next call
POLL = 10.0  # seconds between two checks of a cluster that finishes nothing
CONNECT = 10.0  # seconds to reach a cluster
PATIENCE = 300.0  # seconds a cluster may be without any processor


def spread(cells, backend, jobs, connect=CONNECT):
    """Compute cells and yield their records as they are finished.

    Args:
        cells: a list of :class:`cell.Cell`.
        backend: a name of ``BACKENDS``.
        jobs: cells at the same time on this machine; a running cluster takes as many as it has
            processors.
        connect: seconds to reach a cluster.

    Yields:
        For each cell its record (see :func:`cell.run_cell`), or a dict that names the cell and
        says under ``lost`` why there is no record.

    Raises:
        InputError: the package is missing, no cluster answers, or none of its machines is left.
    """
    try:
        yield from BACKENDS[backend](cells, jobs, connect)
    except ImportError as error:
        raise InputError(
            f"backend={backend!r} needs the package {error.name}: pip install {PACKAGES[backend]}"
        ) from None


def _loky(cells, jobs, _):
    pool = Parallel(n_jobs=jobs, backend="loky", batch_size=1, return_as="generator_unordered")
    with _interrupts_ignored():
        here = os.getpid()  # the parent of the workers started here
        records = pool(delayed(run_cell)(cell, here, parent=here) for cell in cells)
    yield from records


@contextlib.contextmanager
def _interrupts_ignored():
    """Processes started in this block never see Ctrl-C: ignored signals are inherited.

    A terminal sends Ctrl-C to the workers too, and one that is still importing would print its
    traceback. The sweep stops its workers itself. (A blocked signal is inherited as well, but
    multiprocessing's resource tracker unblocks it.)
    """
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def _ray_cluster(jobs, connect):
    """The cluster at RAY_ADDRESS, or one that ``ray start`` started here, or a new local one."""
    import ray

    address = os.environ.get("RAY_ADDRESS")
    quiet = {"log_to_driver": False, "logging_level": "error"}
    try:
        if address:
            _knock(address, connect)  # Ray itself would try for minutes
            ray.init(address, **quiet)
        else:
            try:
                ray.init(num_cpus=jobs, **quiet)
            except ValueError:  # a cluster of `ray start` runs here; it takes no num_cpus
                ray.init(**quiet)
    except (OSError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"RAY_ADDRESS={address}: no Ray cluster can be used there ({reason}): ray start --head"
        ) from None
    try:
        yield ray
    finally:
        ray.shutdown()


def _ray(cells, jobs, connect):
    with _ray_cluster(jobs, connect) as ray:
        compute = ray.remote(run_cell).options(num_cpus=1, max_retries=RETRIES)
        waiting = {compute.remote(cell, os.getpid()): cell for cell in cells}
        idle = Idle(lambda: ray.cluster_resources().get("CPU", 0))
        while waiting:
            done, _ = ray.wait(list(waiting), timeout=POLL)
            idle.check(done)
            for task in done:
                cell = waiting.pop(task)
                try:
                    yield ray.get(task)
                except ray.exceptions.RayError as error:
                    yield _lost(cell, error)


def _dask_client(jobs, connect):
    """A client of the cluster at DASK_SCHEDULER_ADDRESS, or of a new local one."""
    from distributed import Client

    address = os.environ.get("DASK_SCHEDULER_ADDRESS")
    # Threads suffice on one machine: every cell has a process of its own anyway.
    local = {
        "processes": False,
        "n_workers": jobs,
        "threads_per_worker": 1,
        "dashboard_address": None,
    }
    try:
        return Client(address, timeout=connect, **({} if address else local))
    except OSError:
        raise InputError(
            f"DASK_SCHEDULER_ADDRESS={address}: no scheduler answers there: run dask scheduler"
        ) from None


def _dask(cells, jobs, connect):
    from distributed import wait

    with _dask_client(jobs, connect) as client:
        tasks = client.map(run_cell, cells, sweep=os.getpid(), pure=False, retries=RETRIES)
        waiting = dict(zip(tasks, cells, strict=True))
        idle = Idle(lambda: sum(client.ncores().values()))
        while waiting:
            try:
                done = wait(list(waiting), POLL, return_when="FIRST_COMPLETED").done
            except TimeoutError:
                done = []
            idle.check(done)
            for task in done:
                cell = waiting.pop(task)
                error = task.exception()
                if isinstance(error, InputError):  # this worker cannot compute any cell
                    raise error
                yield task.result() if task.status == "finished" else _lost(cell, error)


def _knock(address, connect):
    """Check that something listens at ``host:port``.

    The address may begin with ``ray://``; a name such as ``auto`` is not checked.

    Raises:
        OSError: nothing listens there.
    """
    host, _, port = address.rpartition("/")[2].rpartition(":")
    if port.isdigit():
        socket.create_connection((host, int(port)), connect).close()


class Idle:
    """Ends a sweep on a cluster whose machines are all gone, which would wait for ever.

    Args:
        processors: a function that returns the cluster's number of processors.
        patience: seconds that the cluster may be without any.
        clock: a function that returns the time in seconds.
    """

    def __init__(self, processors, patience=PATIENCE, clock=time.monotonic):
        self.processors = processors
        self.patience = patience
        self.clock = clock
        self.alive = clock()

    def check(self, done):
        """Check the cluster; to be called regularly.

        Args:
            done: the tasks finished since the last call.

        Raises:
            InputError: for too long there has been no processor, and nothing was finished.
        """
        if done or self.processors():
            self.alive = self.clock()
        elif self.clock() - self.alive > self.patience:
            raise InputError(
                f"backend: the cluster has had no processor for {self.patience:g} s: "
                "start machines and run the same command again, it goes on from here"
            )


def _lost(cell, error):
    return {**cell.named(), "lost": in_words(error, 200)}


BACKENDS = {"loky": _loky, "ray": _ray, "dask": _dask}
PACKAGES = {"ray": "ray", "dask": "'dask[distributed]'"}
