"""Every named stage of a run has its own random streams.

torch's global stream is neither read nor advanced: with the same seed, a stage gives the same
result to the bit, whatever ran before it or runs beside it.
"""

from typing import NamedTuple

import torch
from torch.overrides import TorchFunctionMode

from swift_hydra.seeds import stage_seed


class DrawnFrom(TorchFunctionMode):
    """Context manager: in this thread, draws without a generator of their own use this one.

    Module initialisers draw from torch's global stream, which other threads use too.

    Args:
        generator: torch Generator.
    """

    DRAWS = frozenset(
        {
            torch.Tensor.uniform_,
            torch.Tensor.normal_,
            torch.rand,
            torch.randn,
            torch.randperm,
            torch.nn.init.kaiming_uniform_,
            torch.nn.init.uniform_,
            torch.nn.init.normal_,
        }
    )

    def __init__(self, generator):
        super().__init__()
        self.generator = generator

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func in self.DRAWS and kwargs.get("generator") is None:
            kwargs["generator"] = self.generator
        return func(*args, **kwargs)


class Streams(NamedTuple):
    """The random streams of one stage."""

    weights: torch.Generator  # initial weights, then dropout
    draws: torch.Generator  # batches, noise, order

    def built(self, make):
        """What ``make()`` returns, with initial weights drawn from the stream ``weights``."""
        with DrawnFrom(self.weights):
            return make()


def streams(seed, stage):
    """The :class:`Streams` of one stage."""
    value = stage_seed(seed, stage)
    return Streams(*(torch.Generator().manual_seed(value) for _ in Streams._fields))
