"""Rows of one subject measured again and again: a word where most rows have such company."""

import warnings

import numpy as np
import pytest
from helpers import SHORT_FIT

from swift_hydra.data.subjects import numbers_of
from swift_hydra.data.suspicious import company_of_near_copies
from swift_hydra.settings import InputError
from swift_hydra.SwiftHydra import SwiftHydra


def sessions(rng, rows_of_each, apart, n=60, d=6):
    """Rows (n * rows_of_each, d) of n subjects, each measured again with small differences."""
    own = rng.normal(size=(n, d)).repeat(rows_of_each, axis=0)
    return own + apart * rng.normal(size=own.shape)


def said(Z):
    return list(company_of_near_copies(Z))


@pytest.mark.parametrize(("rows_of_each", "apart"), [(2, 0.02), (3, 0.1), (5, 0.05), (10, 0.02)])
def test_groups_of_near_copies_are_said(rows_of_each, apart):
    rng = np.random.default_rng(0)
    Z = sessions(rng, rows_of_each, apart)
    assert "measured again" in said(Z)[0]
    assert said(rng.permutation(Z))
    # Columns of codes beside them take nothing away.
    assert said(np.column_stack([Z, rng.integers(3, size=(len(Z), 2))]))


def around_two(rng):
    """Two heaps, one of them small and far."""
    return np.concatenate([rng.normal(size=(300, 4)), 5 + 0.01 * rng.normal(size=(300, 4))])


@pytest.mark.parametrize(
    "table",
    [
        lambda rng: rng.normal(size=(50, 1)),
        lambda rng: rng.normal(size=(50, 2)),
        lambda rng: rng.exponential(size=(300, 2)) ** 3,
        lambda rng: rng.standard_t(1.5, size=(400, 3)),
        lambda rng: np.cumsum(rng.normal(size=(800, 2)), axis=0),  # drift
        lambda rng: rng.normal(size=(100, 1)) + 0.01 * rng.normal(size=(100, 3)),  # collinear
        around_two,
        lambda rng: rng.normal(size=(100, 3)).repeat(3, axis=0),  # copies
        lambda rng: np.column_stack([np.eye(50)[rng.integers(50, size=300)], rng.normal(size=300)]),
        lambda rng: rng.integers(5, size=(300, 4)),
        lambda rng: sessions(rng, 5, 0.02, n=9),  # too few to say
    ],
)
def test_nothing_is_said_of_rows_that_stand_for_themselves(table):
    assert not any(said(table(np.random.default_rng(seed))) for seed in range(10))


def test_rows_written_twice_are_no_groups():
    rows = np.random.default_rng(0).normal(size=(200, 4))
    assert not said(np.concatenate([rows, rows.round(4)]))


def test_a_fit_says_it_once():
    X = sessions(np.random.default_rng(0), 5, 0.02)
    y = np.arange(60).repeat(5) % 8 == 0
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        SwiftHydra(**SHORT_FIT).fit(X, y)
    about = [str(each.message) for each in caught if "near copies" in str(each.message)]
    assert len(about) == 1 and about[0].startswith("training rows: many rows stand in groups")


def test_what_is_masked_is_no_name():
    with pytest.raises(InputError, match=r"row 2 \(counted from 0\) has none"):
        numbers_of(np.ma.array([1, 1, 2, 2], mask=[0, 0, 1, 0]), 4)
