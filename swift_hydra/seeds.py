"""A random stream of its own for every named stage, and samples of rows, in numpy alone."""

import zlib

import numpy as np


def stage_seed(seed, stage):
    """A seed for one stage: stages do not disturb each other when one of them draws more."""
    sequence = np.random.SeedSequence([int(seed), zlib.crc32(stage.encode())])
    return int(sequence.generate_state(1)[0])


def stage_rng(seed, stage):
    """numpy's Generator of one stage."""
    return np.random.default_rng(stage_seed(seed, stage))


def sample_of(rows, most, rng):
    """At most ``most`` row numbers drawn from ``rows``, ascending.

    Args:
        rows: (n,) row numbers, or n for all numbers below it.
        most: size of the sample.
        rng: numpy Generator.
    """
    return np.sort(rng.permutation(rows)[:most])
