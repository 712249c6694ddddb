"""torch's modes, which the caller's code may have set: here they are as networks expect them.

A default of float64, products of lower precision, a surrounding ``no_grad``, ``inference_mode`` or
``autocast``, another default device: all of them are usual in somebody's own script, and none is
meant for the code in here.
"""

import contextlib
import os
import threading
from typing import NamedTuple

import torch

_BACKENDS = (torch.backends.mkldnn.matmul, torch.backends.cuda.matmul)


class _Defaults(NamedTuple):
    """What torch holds once for the whole process."""

    dtype: torch.dtype
    matmul: str | None  # by the older of torch's two names; None where both were used
    backends: list  # the same of every backend, by the newer name

    @classmethod
    def here(cls):
        """Those that are set now."""
        try:
            matmul = torch.get_float32_matmul_precision()
        except RuntimeError:  # torch will not name what both of its names have set
            matmul = None
        return cls(torch.get_default_dtype(), matmul, [b.fp32_precision for b in _BACKENDS])

    def put_back(self):
        """Set them again."""
        torch.set_default_dtype(self.dtype)
        if self.matmul is not None:
            torch.set_float32_matmul_precision(self.matmul)
        for backend, precision in zip(_BACKENDS, self.backends, strict=True):
            if backend.fp32_precision != precision:
                backend.fp32_precision = precision


class ProcessWide:
    """What is one for all threads of a process, changed while any of them asks for it.

    Args:
        change: a function without arguments; returns one that puts back what was there before.
        to_children: whether a child that is forked meanwhile has put back what was there, too.
    """

    def __init__(self, change, to_children=True):
        self._change = change
        self._to_children = to_children
        self._begin()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._alone)

    def _begin(self):
        self._lock = threading.Lock()
        self.n_asking = 0

    def _alone(self):
        """In a child: the threads that asked are not there, and their lock may be held."""
        if self.n_asking and self._to_children:
            self._put_back()
        self._begin()

    def __enter__(self):
        with self._lock:
            if self.n_asking == 0:
                self._put_back = self._change()
            self.n_asking += 1

    def __exit__(self, *error):
        with self._lock:
            self.n_asking -= 1
            if self.n_asking == 0:
                self._put_back()


def _exact_products():
    """float32 by default, and in products: bfloat16 moves scores by a row's place in the batch."""
    before = _Defaults.here()
    torch.set_default_dtype(torch.float32)
    torch.set_float32_matmul_precision("highest")
    return before.put_back


_single = ProcessWide(_exact_products)


@contextlib.contextmanager
def own_modes():
    """While it lasts: all of float32, gradients, no autocast, the CPU. A decorator too."""
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
