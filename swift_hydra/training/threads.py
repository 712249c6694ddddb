"""One thread for small work: threads that wait for each other cost more than they bring.

Measured on two idle cores, a whole run: yeast 8.5 s with one thread and 10.6 s with two, cover's
10,000 rows 11.2 and 14.6 s; where other processes keep the cores busy, 10 s and more than 200 s,
since a waiting thread spins.
"""

import contextlib
import threading

import torch
from threadpoolctl import threadpool_limits

LARGE = 2**24  # numbers in a table, from which on products are worth their threads

_lock = threading.Lock()
_limits = []  # of the linear algebra libraries, one for each fit that is inside now


@contextlib.contextmanager
def few_threads(numbers):
    """One thread of PyTorch and of the linear algebra libraries, unless the table is large.

    What was in force before returns when the last of concurrent fits has left: PyTorch's number is
    the calling thread's own, that of the libraries the process's.

    Args:
        numbers: rows times columns.
    """
    if numbers >= LARGE:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with _lock:
        _limits.append(_limits[0] if _limits else threadpool_limits(1))
    try:
        yield
    finally:
        with _lock:
            limits = _limits.pop()
            if not _limits:
                limits.restore_original_limits()
        torch.set_num_threads(before)
