"""Set torch's modes as the networks expect them, whatever the caller's code has set.

A user's script may well have a default of float64, matrix products of lower precision, a
surrounding ``no_grad``, ``inference_mode`` or ``autocast``, or another default device. None of
these is meant for the code of this package.
"""

import contextlib
import os
import threading
from typing import NamedTuple

import torch

_BACKENDS = (torch.backends.mkldnn.matmul, torch.backends.cuda.matmul)


class _Defaults(NamedTuple):
    """torch's settings that exist once for the whole process."""

    dtype: torch.dtype
    matmul: str | None  # precision by the older of torch's two interfaces; None if both were used
    backends: list  # precision of every backend by the newer interface

    @classmethod
    def here(cls):
        """The current settings."""
        try:
            matmul = torch.get_float32_matmul_precision()
        except RuntimeError:  # torch refuses to answer if both interfaces were used
            matmul = None
        return cls(torch.get_default_dtype(), matmul, [b.fp32_precision for b in _BACKENDS])

    def put_back(self):
        """Restore these settings."""
        torch.set_default_dtype(self.dtype)
        if self.matmul is not None:
            torch.set_float32_matmul_precision(self.matmul)
        for backend, precision in zip(_BACKENDS, self.backends, strict=True):
            if backend.fp32_precision != precision:
                backend.fp32_precision = precision


class ProcessWide:
    """A context that changes a setting of the whole process while any thread is inside.

    Args:
        change: a function without arguments that changes the setting and returns a function that
            restores it.
        to_children: restore the setting also in a child process that is forked meanwhile.
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
        """Start anew in a child: other threads do not exist there, and may have held the lock."""
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
            if self.n_asking == 0:  # entered before the fork, whose child starts anew
                return
            self.n_asking -= 1
            if self.n_asking == 0:
                self._put_back()


def _exact_products():
    """Use float32 by default and in products: with bfloat16 scores depend on a row's batch."""
    before = _Defaults.here()
    torch.set_default_dtype(torch.float32)
    torch.set_float32_matmul_precision("highest")
    return before.put_back


_single = ProcessWide(_exact_products)


@contextlib.contextmanager
def own_modes():
    """A context, also a decorator, with float32, gradients, no autocast, and the CPU as default."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(_single)
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        for device in ("cpu", "cuda"):
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        if torch.get_default_device().type != "cpu":  # this context slows every torch call
            stack.enter_context(torch.device("cpu"))
        yield
