"""torch's modes, which the caller's code may have set: here they are as networks expect them.

A default of float64, a surrounding ``no_grad``, ``inference_mode`` or ``autocast``, another default
device: all of them are usual in somebody's own script, and none is meant for the code in here.
"""

import contextlib
import os
import threading

import torch


class _Single:
    """The default type is float32 while anybody asks for it: it is one for all threads."""

    def __init__(self):
        self._lock = threading.Lock()
        self._n = 0

    def __enter__(self):
        with self._lock:
            if self._n == 0:
                self._before = torch.get_default_dtype()
                torch.set_default_dtype(torch.float32)
            self._n += 1

    def __exit__(self, *error):
        with self._lock:
            self._n -= 1
            if self._n == 0:
                torch.set_default_dtype(self._before)


_single = _Single()


def _alone():
    """In a forked child: the threads that asked are not there, and their lock may be held."""
    global _single
    if _single._n:
        torch.set_default_dtype(_single._before)
    _single = _Single()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_alone)


@contextlib.contextmanager
def own_modes():
    """While it lasts: float32, gradients, no autocast, the CPU. A decorator too."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(_single)
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        for device in ("cpu", "cuda"):
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        if torch.get_default_device().type != "cpu":  # such a context costs time with every call
            stack.enter_context(torch.device("cpu"))
        yield
