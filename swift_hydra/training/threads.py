"""One thread for small work: threads that wait for each other cost time.

On two idle cores a second thread gives a whole run nothing (docs/speed.md has the seconds); where
other processes keep the cores busy, or a container may use fewer of them than the machine has,
minutes take the place of ten seconds, since a waiting thread spins.
"""

import contextlib
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import torch

from swift_hydra.modes import ProcessWide

LARGE = 2**24  # numbers in a table, from which on a fit's products are worth their threads
LARGE_TO_SCORE = 2**17  # the same of rows that are scored


@cache
def _pools():
    """The numbers of threads of linear algebra and of OpenMP: finding their libraries takes time.

    Every BLAS comes with NumPy, with SciPy's linear algebra or with torch.
    """
    import scipy.linalg  # noqa: F401
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def _one_of(api):
    stack = contextlib.ExitStack()
    stack.enter_context(_pools().select(user_api=api).limit(limits=1))
    return stack


def _one_of_blas():
    # threadpoolctl lets no other thread give OpenBLAS's number back than the one that set it.
    setter = ThreadPoolExecutor(1)
    limits = setter.submit(_one_of, "blas").result()

    def put_back():
        setter.submit(limits.close).result()
        setter.shutdown()

    return put_back


_blas = ProcessWide(_one_of_blas, to_children=False)
_here = threading.local()
_before = {}  # torch's number when the first of several threads came


@contextlib.contextmanager
def _one_thread():
    """Linear algebra's number is one for the whole process, torch's and OpenMP's the thread's."""
    before = torch.get_num_threads()
    if _blas.n_asking == 0:
        _before["first"] = before
    elif before == 1:  # a new thread begins with what was set last, anywhere
        before = _before["first"]
    _here.inside = True
    try:
        with _blas, _one_of("openmp"):
            torch.set_num_threads(1)
            yield
    finally:
        _here.inside = False
        torch.set_num_threads(before)


@contextlib.contextmanager
def few_threads(numbers, large=LARGE):
    """One thread of PyTorch and of linear algebra, unless the work is large.

    What was set before is set again afterwards; several threads of a process may be inside. Scores
    are the same to the bit. Where the caller has limited linear algebra by threadpoolctl, that
    limit stays.

    Args:
        numbers: rows times columns.
        large: numbers from which on nothing is changed.
    """
    small = numbers < large and not getattr(_here, "inside", False)
    with _one_thread() if small else contextlib.nullcontext():
        yield


if hasattr(os, "register_at_fork"):
    # OpenMP's threads do not live on in a forked child, which would wait for them for ever.
    os.register_at_fork(after_in_child=lambda: torch.set_num_threads(1))
