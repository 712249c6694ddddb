"""One thread for the commands' small work: threads that wait for each other cost time.

On two idle cores a second thread gives a whole run nothing (docs/speed.md has the seconds); where
other processes keep the cores busy, minutes take the place of ten seconds, since a waiting thread
spins. The class leaves the threads of its caller's process alone.
"""

import contextlib

import torch
from threadpoolctl import threadpool_limits

LARGE = 2**24  # numbers in a table, from which on products are worth their threads


@contextlib.contextmanager
def few_threads(numbers):
    """One thread of PyTorch and of linear algebra, unless the table is large.

    Args:
        numbers: rows times columns.
    """
    if numbers >= LARGE:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(before)
