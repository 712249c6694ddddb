"""Rows that are trusted: their left-out scores are those of fresh rows, however many columns."""

import numpy as np
import pytest
import torch
from helpers import SHORT_FIT

from swift_hydra import SwiftHydra
from swift_hydra.detection.one_class import TrustedDistance, Whitening


@pytest.mark.parametrize("copies", [1, 3])
def test_a_row_left_out_is_one_that_the_whitening_never_had(copies):
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(60, 25)) @ rng.normal(size=(25, 25))
    rows = np.concatenate([rows, np.repeat(rows[:1], copies - 1, axis=0)])
    others = rows[1:60]
    own = np.zeros((1, len(rows)), dtype=bool)
    own[0, [0, *range(60, len(rows))]] = True
    all_of_them = Whitening(rows)
    left_out = all_of_them.without(rows[:1], own)

    def length(v):
        w = all_of_them(v)
        along = (w * left_out.own_direction).sum()
        return (w.square().sum() + left_out.weight[0] * along.square()) * left_out.factor[0]

    probes = [*rng.normal(size=(5, 1, 25)), rows[:1] - others.mean(0)]
    for v in probes:
        expected = Whitening(others)(v).square().sum()
        # The ridge is of the mean variance, which the row had a part in.
        torch.testing.assert_close(length(v), expected, rtol=0.05, atol=0)
    assert (
        all_of_them(probes[-1]).square().sum() < 0.8 * Whitening(others)(probes[-1]).square().sum()
    )


@pytest.mark.parametrize("n, d", [(200, 10), (200, 150), (100, 400)])
def test_residuals_of_rows_left_out_are_those_of_fresh_rows(n, d):
    rng = np.random.default_rng(0)
    near = TrustedDistance.fit(rng.normal(size=(n, d)), rng)
    left_out = near.score(near.reference, others=True)
    fresh = near.score(rng.normal(size=(500, d)))
    for mine, theirs in zip(left_out.T, fresh.T, strict=True):
        assert abs(np.median(mine) - np.median(theirs)) < 0.5 * theirs.std()


@pytest.mark.parametrize("d", [10, 60, 150])
def test_alarms_of_trusted_rows_are_the_stated_ones_on_wide_tables(d):
    rng = np.random.default_rng(3)
    model = SwiftHydra(trust_normals=True, false_alarms=0.05, **SHORT_FIT)
    model.fit(rng.normal(size=(200, d)), np.zeros(200, dtype=int))
    fresh = rng.normal(size=(1000, d))
    assert model.predict(fresh).mean() < 0.09
    assert (model.p_values(fresh) <= 0.2).mean() < 0.3
