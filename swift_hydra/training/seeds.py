"""The two training loops: the Beta C-VAE (M2) and the detector (M3, M8, M9).

Both draw the classes in equal parts, so that a handful of anomalies is in every batch, and both are
fully determined by their seed: every stage has its own generators (see :func:`stage_seed`), nothing
reads or moves the global stream. Settings follow what was measured to suffice on small tables:
AdamW, one-cycle, a few hundred steps, mixup.
"""

import zlib
from contextlib import contextmanager

import numpy as np
import torch


def stage_seed(seed, stage):
    """A seed for one named stage of a run: stages do not disturb each other when one of them draws
    more.
    """
    return int(np.random.SeedSequence([int(seed), zlib.crc32(stage.encode())]).generate_state(1)[0])


@contextmanager
def seeded(seed, stage):
    """Initialise and train inside a stream of its own; yields a generator and leaves the global
    stream as it was.
    """
    value = stage_seed(seed, stage)
    with torch.random.fork_rng(
        devices=[]
    ):  # module initialisers and dropout can only read the global stream
        torch.manual_seed(value)
        yield torch.Generator().manual_seed(value)
