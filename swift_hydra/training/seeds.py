"""A random stream of its own for every named stage of a run.

Nothing reads or moves the global streams: the same seed gives the same stage to the bit, whatever
ran before it.
"""

import zlib
from contextlib import contextmanager

import numpy as np
import torch


def stage_seed(seed, stage):
    """A seed for one stage: stages do not disturb each other when one of them draws more."""
    sequence = np.random.SeedSequence([int(seed), zlib.crc32(stage.encode())])
    return int(sequence.generate_state(1)[0])


def stage_rng(seed, stage):
    """numpy's Generator of one stage."""
    return np.random.default_rng(stage_seed(seed, stage))


@contextmanager
def seeded(seed, stage):
    """Initialise and train inside a stream of its own; yields a torch Generator.

    The global stream is afterwards as it was: module initialisers and dropout read no other.
    """
    value = stage_seed(seed, stage)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(value)
        yield torch.Generator().manual_seed(value)
