"""Distances are exact: of copies, far from the origin, whatever is asked about beside a row."""

import numpy as np
import pytest
import torch
from helpers import SAME_EXAMPLES
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from swift_hydra import compiled, geometry
from swift_hydra.cleaning.kernel_expert import _sums_of_signs
from swift_hydra.generation.reward import Coverage, Novelty
from swift_hydra.geometry import (
    BEND,
    Neighbours,
    bend,
    copies,
    effective_rank,
    mean_of_first,
    principal_axes,
    shares,
    spread_over,
    unbend,
)


@st.composite
def rows(draw, most=40):
    """Standardised rows of many kinds: spread, on a grid, one-hot, repeated, all alike, far out."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n, d = draw(st.integers(2, most)), draw(st.integers(1, 12))
    kind = draw(st.sampled_from(["normal", "grid", "onehot", "repeated", "alike", "tiny", "far"]))
    if kind == "normal":
        X = rng.normal(size=(n, d))
    elif kind == "grid":
        X = rng.integers(-2, 3, (n, d)) / 2
    elif kind == "onehot":
        X = np.eye(d)[rng.integers(0, d, n)] * 3
    elif kind == "repeated":
        X = rng.normal(size=(3, d))[rng.integers(0, 3, n)]
    elif kind == "alike":
        X = np.full((n, d), 0.3)
    elif kind == "tiny":
        at, size = [(4.0, 1e-2), (4.9, 1e-5)][rng.integers(2)]  # far out, and very far
        X = at + rng.normal(size=(n, d)) * size
    else:
        X = bend(rng.normal(size=(n, d)) * 10.0 ** rng.integers(0, 12, (n, 1)))
    return np.clip(X, -BEND, BEND).astype(np.float32)


@settings(SAME_EXAMPLES, max_examples=60)
@given(rows(), st.integers(1, 25))
def test_a_rows_neighbours_do_not_depend_on_the_rows_beside_it(X, k):
    search = Neighbours(X)
    distance, index = search.nearest(X, k)
    for i in range(len(X)):
        one, at = search.nearest(X[i : i + 1], k)
        assert np.array_equal(one[0], distance[i]) and np.array_equal(at[0], index[i])
    assert (distance[:, 0] == 0).all()  # a row is its own copy, and exactly so
    assert (np.diff(distance, axis=1) >= 0).all() and np.isfinite(distance).all()


@settings(SAME_EXAMPLES, max_examples=60)
@given(rows())
def test_distances_are_those_of_differences(X):
    inside = (np.abs(unbend(X)) < 9).all(1)  # beyond there is one coordinate more
    X = X[inside]
    if len(X) < 2:
        return
    search = Neighbours(X)
    distance, index = search.nearest(X, len(X))
    expected = np.linalg.norm(X[:, None].astype(np.float64) - X[search.distinct][index], axis=2)
    np.testing.assert_allclose(distance, expected, atol=2e-5)


def test_no_row_has_no_copies():
    assert len(copies(np.empty((0, 3)))) == 0
    assert Neighbours(np.empty((0, 3))).nearest(np.zeros((2, 3)), 5)[0].shape == (2, 0)


def test_copies_are_numbered_as_they_come():
    rows = np.random.default_rng(0).integers(3, size=(500, 4)).astype(float)
    first = {}
    wanted = [first.setdefault(tuple(row), len(first)) for row in rows]
    assert np.array_equal(copies(rows), wanted)


@settings(SAME_EXAMPLES, max_examples=40)
@given(rows(), st.integers(1, 6))
def test_copies_count_and_can_be_left_out(X, k):
    search = Neighbours(X)
    full = np.linalg.norm(X[:, None].astype(np.float64) - X[None], axis=2)
    same = copies(X)
    for i in range(len(X)):
        others = np.sort(full[i][same != same[i]])[:k]
        mean = search.mean_distance(X[i : i + 1], k, others=True)[0]
        if not len(others):
            assert np.isnan(mean)
        elif (np.abs(unbend(X)) < 9).all():
            assert mean == pytest.approx(others.mean(), abs=1e-4)
    if (np.abs(unbend(X)) < 9).all():
        own = search.mean_distance(X, k)
        np.testing.assert_allclose(own, np.sort(full, 1)[:, :k].mean(1), atol=1e-4)


@pytest.mark.skipif(not compiled.available(), reason="numba is not installed: pip install numba")
@settings(SAME_EXAMPLES, max_examples=60)
@given(rows(most=400), st.integers(1, 25))
def test_compiled_neighbours_are_the_plain_ones(X, k):
    """Whatever is level, far out or all alike; the compiled way may leave rows to the plain one."""
    search = Neighbours(X)
    asked = np.concatenate([X, X[::-1] + np.float32(0.01)])
    compiled_ones = search.nearest(asked, k)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiled, "njit", None)
        plain = search.nearest(asked, k)
    assert all(np.array_equal(a, b) for a, b in zip(compiled_ones, plain, strict=True))


@pytest.mark.parametrize("d, k", [(2, 40), (3, 21), (3, 6)])
def test_of_equally_near_rows_the_first_is_taken(d, k):
    """On a lattice most neighbours are level, more of them than are asked for."""
    grid = np.stack(np.meshgrid(*[np.arange(8.0) / 4] * d), axis=-1).reshape(-1, d)
    X = np.random.default_rng(0).permutation(grid)[:400]
    search = Neighbours(X)
    distance, index = search.nearest(X[:100], k)
    every = search.nearest(X[:100], len(X))
    assert np.array_equal(distance, every[0][:, :k])
    assert np.array_equal(index, every[1][:, :k])
    level = np.diff(every[0], axis=1) == 0
    assert level.mean() > 0.5 and (np.diff(every[1], axis=1)[level] > 0).all()


@pytest.mark.skipif(not compiled.available(), reason="numba is not installed: pip install numba")
@pytest.mark.parametrize("shape", [(0, 5, 3), (1, 1, 1), (7, 33, 12), (600, 700, 50)])
@pytest.mark.parametrize("metric", ["cityblock", "euclidean"])
def test_compiled_sums_of_kernels(shape, metric, threads):
    rng, (n, m, d) = np.random.default_rng(0), shape
    X, Y, weights = rng.normal(size=(n, d)), rng.normal(size=(m, d)), rng.normal(size=m)
    expected = np.exp(-0.3 * cdist(X, Y, metric)) @ weights
    for number in (1, 2):
        threads(number)
        sums = compiled.sums_of_kernels(X, Y, weights, -0.3, metric == "euclidean")
        np.testing.assert_allclose(sums, expected, atol=1e-5)
    if n:
        one = compiled.sums_of_kernels(X[:1], Y, weights, -0.3, metric == "euclidean")
        assert one[0] == sums[0]  # whatever rows are beside it


@pytest.mark.skipif(not compiled.available(), reason="numba is not installed: pip install numba")
@pytest.mark.parametrize("shape", [(1, 1, 1), (7, 33, 12), (300, 200, 700)])
def test_compiled_city_block_distances_and_sums_of_signs(shape, threads):
    rng, (n, m, d) = np.random.default_rng(0), shape
    X, Y = (rng.integers(-4, 5, size=(rows, d)) / 4 for rows in (n, m))  # many are equal
    weights = rng.normal(size=(n, m)).astype(np.float32)
    apart, sides = cdist(X, Y, "cityblock"), _sums_of_signs(X, Y, weights)
    for number in (1, 2):
        threads(number)
        np.testing.assert_allclose(compiled.city_block_distances(X, Y), apart, rtol=1e-6)
        np.testing.assert_allclose(compiled.sums_of_signs(X, Y, weights), sides, atol=1e-3)
    assert (np.diag(compiled.city_block_distances(X, X)) == 0).all()
    by_hand = (weights[:, :, None] * np.sign(X[:, None] - Y)).sum(1)
    np.testing.assert_allclose(sides, by_hand, atol=1e-3)


def test_shares_of_copies():
    distance = np.array([[0.0, 1.0, 2.0, 3.0]])
    counts = np.array([[4, 2, 1, 9]])
    assert shares(distance, counts, 5).tolist() == [[4, 1, 0, 0]]
    assert shares(distance, counts, 5, 0.0).tolist() == [[0, 2, 1, 2]]
    assert shares(distance, counts, 5, 1.5).tolist() == [[0, 0, 1, 4]]
    assert mean_of_first(distance, shares(distance, counts, 5, 0.0))[0] == (2 + 2 + 6) / 5
    assert np.isnan(mean_of_first(distance[:, :1], shares(distance[:, :1], counts[:, :1], 5, 0.0)))[
        0
    ]


def test_what_the_bend_hides_is_kept_as_a_distance():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 50)).astype(np.float32)
    u = rng.normal(size=(4, 50))
    u[:, 7] = [3, 12, 1000, 1e12]
    near = Neighbours(X).mean_distance(bend(u), 5)
    assert near[0] < near[1] < near[2] < near[3] and near[2] > 2 * near[0]


@settings(SAME_EXAMPLES, max_examples=40)
@given(rows())
def test_coverage_has_a_factor_whatever_the_rows(X):
    data = torch.from_numpy(X)
    gain = Coverage(data).leave_one_out(data)
    assert torch.isfinite(gain).all() and (gain >= 0).all() and (gain <= 1).all()
    chosen = Coverage(data).select(data, torch.zeros(len(X)), 5, 1.0)
    assert len(set(chosen.tolist())) == min(5, len(X))
    novelty = Novelty(data)(data)
    assert torch.isfinite(novelty).all() and novelty.dtype == torch.float32


def test_effective_rank_of_either_shape():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(500, 8))
    assert 7.8 < effective_rank(X) <= 8
    assert effective_rank(X[:9]) == pytest.approx(effective_rank(np.c_[X[:9], np.zeros((9, 30))]))
    assert effective_rank(np.ones((5, 3))) == 1.0


def test_a_mean_of_many_needs_no_order(monkeypatch):
    rng = np.random.default_rng(0)
    reference = rng.normal(size=(700, 4)).astype(np.float32)
    neighbours = Neighbours(reference)
    rows = np.concatenate([reference[:50], reference[50:100] + 1e-6, rng.normal(size=(50, 4))])
    means = neighbours.mean_distance(rows, 300, others=True)
    assert np.array_equal(neighbours.mean_distance(rows[3:5], 300, others=True), means[3:5])
    monkeypatch.setattr(geometry, "MANY", 10**9)
    assert np.allclose(neighbours.mean_distance(rows, 300, others=True), means, rtol=1e-12)


def test_axes_where_the_fast_way_gives_up(monkeypatch):
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(50, 6)) * np.geomspace(10, 0.1, 6)
    root, axes = principal_axes(rows)

    def gives_up(*args, **how):
        raise np.linalg.LinAlgError("SVD did not converge")

    monkeypatch.setattr(np.linalg, "svd", gives_up)
    again, same = principal_axes(rows)
    assert np.allclose(again, root) and np.allclose(np.abs(np.sum(same * axes, axis=1)), 1)


def test_rows_that_stand_for_a_table_are_as_many_as_may_be_and_from_all_of_it():
    """Every second one of 1,025 would be half as many as 1,024."""
    for n in (1, 5, 1024, 1025, 1500, 2049):
        rows = spread_over(n, 1024)
        assert len(np.unique(rows)) == min(n, 1024)
        assert rows[0] == 0 and rows[-1] == n - 1


@pytest.mark.parametrize("period", [2, 3, 4, 8])
def test_rows_that_stand_for_a_table_are_of_all_things_that_were_measured_in_turn(period):
    rows = spread_over(period * 1024, 1024)
    assert np.bincount(rows % period, minlength=period).min() > 0.8 * 1024 / period
    assert np.diff(rows).max() < 2 * period


def test_rows_that_were_searched_already_have_the_same_neighbours():
    X = np.random.default_rng(0).normal(size=(300, 4)).clip(-4, 4)
    mine, other = Neighbours(X), Neighbours(X[::2])
    found = mine.searched(X, 6)
    some = np.arange(300) % 3 == 0
    for k in (3, 6, 9):  # more than were searched: searched anew
        for by in (mine, other):
            for again, first in zip(
                by.nearest(found[some], k), by.nearest(X[some], k), strict=True
            ):
                np.testing.assert_array_equal(again, first)
    means = [mine.mean_distance(rows, 5, others=True) for rows in (found, X)]
    np.testing.assert_array_equal(*means)
