"""Small work runs in one thread, as threads that wait for each other cost time.

On two idle cores a second thread does not speed up a whole run (docs/speed.md has the seconds). If
other processes keep the cores busy, or a container may use fewer cores than the machine has, ten
seconds become minutes with it, since a waiting thread spins.
"""

import contextlib
import os
import threading
from functools import cache

import torch

from swift_hydra.modes import ProcessWide

LARGE = 2**24  # numbers in a table from which on several threads speed up a fit
LARGE_TO_SCORE = 2**17  # the same for scoring


@cache
def _pools():
    """threadpoolctl's controller of BLAS and OpenMP; cached, as finding the libraries takes time.

    Every BLAS is loaded by NumPy, by scipy.linalg (imported here for that) or by torch.
    """
    import scipy.linalg  # noqa: F401
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def _one_of_blas():
    _before["first"] = torch.get_num_threads()
    pools = _pools()  # here, so that what fails is raised here
    limited, finished = threading.Event(), threading.Event()

    def hold():
        with pools.select(user_api="blas").limit(limits=1):
            limited.set()
            finished.wait()

    # Only the thread that set OpenBLAS's number of threads can restore it with threadpoolctl. An
    # executor's threads would not start any more once the main thread has ended.
    holder = threading.Thread(target=hold, daemon=True)
    try:
        holder.start()
    except RuntimeError:  # the interpreter is ending, and no thread starts
        return lambda: None
    try:
        limited.wait()
    except BaseException:  # Ctrl-C
        finished.set()
        raise

    def put_back():
        finished.set()
        holder.join()

    return put_back


_blas = ProcessWide(_one_of_blas, to_children=False)
_here = threading.local()
_before = {}  # torch's number of threads when the first caller entered


@contextlib.contextmanager
def _one_thread():
    """Limit BLAS to one thread in the whole process, torch and OpenMP in the calling thread."""
    _here.inside = True
    try:
        with _blas:
            before = torch.get_num_threads()
            if before == 1:  # a new thread starts with the number that any thread has set last
                before = _before["first"]
            try:
                with _pools().select(user_api="openmp").limit(limits=1):
                    torch.set_num_threads(1)
                    yield
            finally:
                torch.set_num_threads(before)
    finally:
        _here.inside = False


@contextlib.contextmanager
def few_threads(numbers, large=LARGE):
    """Run PyTorch and linear algebra in one thread, unless the work is large.

    The previous settings are restored afterwards, and several threads of a process may be inside at
    once. Scores are the same to the bit. A limit that the caller has set by threadpoolctl stays.

    Args:
        numbers: rows times columns of the work.
        large: from so many numbers on, nothing is changed.
    """
    small = numbers < large and not getattr(_here, "inside", False)
    with _one_thread() if small else contextlib.nullcontext():
        yield


if hasattr(os, "register_at_fork"):
    # OpenMP's threads do not survive a fork, and the child would wait for them forever.
    os.register_at_fork(after_in_child=lambda: torch.set_num_threads(1))
