"""One thread for the commands' small work: threads that wait for each other cost time.

Measured on two idle cores, a whole run: yeast 8.5 s with one thread and 10.6 s with two, cover's
10,000 rows 11.2 and 14.6 s; where other processes keep the cores busy, 10 s and more than 200 s,
since a waiting thread spins. The class leaves the threads of its caller's process alone.
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
