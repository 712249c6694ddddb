"""Evidence is left-out on training rows; M12 does what its formula says."""

import numpy as np
import pytest

from swift_hydra.detection.evidence import COLUMNS, Evidence, column_index
from swift_hydra.detection.pvalue import (
    MergedPValue,
    TailPValue,
    known_or_unlike,
    platt,
    shrunken_shape,
)
from swift_hydra.geometry import Neighbours


def residuals(scale=1.0):
    return [lambda Z: np.linalg.norm(Z, axis=1) * scale, lambda Z: np.abs(Z).sum(1) * scale]


@pytest.fixture
def fitted():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(500, 5)).astype(np.float32)
    y = (np.arange(500) < 40).astype(np.int64)
    X[y == 1] += 2.0
    folds = rng.integers(0, 4, 500)
    return X, y, *fit(X, y, folds, residuals())


def fit(X, y, folds, functions):
    rng = np.random.default_rng(1)
    return Evidence.fit(X, y, folds, functions, folds % 2, rng, max_normals=4096)


def test_neighbours_leave_the_row_itself_out():
    X = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    X[1] = X[0]  # a duplicate is another row and stays
    near, index = Neighbours(X).query(X, 3, own=np.arange(60))
    full = np.linalg.norm(X[:, None].astype(np.float64) - X[None], axis=2)
    np.fill_diagonal(full, np.inf)
    np.testing.assert_allclose(near, np.sort(full, 1)[:, :3], atol=1e-5)
    assert (index != np.arange(60)[:, None]).all()
    assert near[0, 0] == 0


def test_neighbours_with_fewer_references_than_asked():
    near, _ = Neighbours(np.eye(3, dtype=np.float32)).query(np.zeros((2, 3)), 20)
    assert near.shape == (2, 3)
    with pytest.raises(ValueError, match="at least two"):
        Neighbours(np.zeros((1, 2))).query(np.zeros((1, 2)), 1, own=np.zeros(1))


def test_columns_are_standardised_by_the_normals_and_see_anomalies(fitted):
    X, y, evidence, columns = fitted
    assert columns.shape == (500, len(COLUMNS))
    np.testing.assert_allclose(columns[y == 0].mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(columns[y == 0].std(0), 1, atol=1e-3)
    assert (evidence.transform(X[y == 1] + 1.0).mean(0) > 1.0).all()


def test_training_rows_look_like_new_rows(fitted):
    """Left-out columns of training normals are as those of fresh ones; in-sample ones are not."""
    X, y, evidence, _ = fitted
    fresh = evidence.transform(np.random.default_rng(9).normal(size=(2000, 5)).astype(np.float32))
    assert np.abs(fresh.mean(0)).max() < 0.25
    in_sample = evidence.transform(X[y == 0])  # the row is its own neighbour here
    assert in_sample[:, column_index(["knn5"])].mean() < -0.5


def test_a_row_is_scored_by_the_residual_function_that_did_not_see_it(fitted):
    X, y, _, _ = fitted
    fold = np.arange(500) % 2
    asked = [[], []]
    spies = [lambda Z, i=i: asked[i].append(len(Z)) or np.ones(len(Z)) * (i + 1) for i in (0, 1)]
    _, columns = fit(X, y, fold, spies)
    cvae = columns[:, column_index(["cvae"])[0]]
    assert len(np.unique(cvae[fold == 0])) == len(np.unique(cvae[fold == 1])) == 1
    assert cvae[0] < cvae[1]


def test_a_snapshot_round_trip_is_equal_to_the_bit(fitted):
    X, _, evidence, _ = fitted
    again = Evidence.from_snapshot(evidence.snapshot(), residuals())
    assert np.array_equal(evidence.transform(X), again.transform(X))


def test_p_values_are_uniform_on_normals_and_fall_beyond_them():
    rng = np.random.default_rng(0)
    tail = TailPValue.fit(rng.normal(size=4000))
    p = np.exp(-tail(rng.normal(size=4000)))
    assert abs(p.mean() - 0.5) < 0.03
    assert abs((p < 0.05).mean() - 0.05) < 0.015
    assert (np.diff(tail(np.linspace(-3, 20, 200))) >= 0).all()
    assert np.isfinite(tail(np.array([1e6]))).all()
    constant = TailPValue.fit(np.zeros(50))
    assert np.isfinite(constant(np.array([-1.0, 0.0, 1.0]))).all()


def test_merged_p_value_round_trip():
    scores = np.random.default_rng(0).normal(size=(300, 3))
    merged = MergedPValue.fit(scores)
    again = MergedPValue.from_snapshot(merged.snapshot())
    assert np.array_equal(merged.minus_log_p(scores * 2), again.minus_log_p(scores * 2))


def test_known_or_unlike_is_the_mixture_of_likelihood_ratios():
    known, unlike = np.array([0.2, 1.0, 4.0]), np.array([0.1, 5.0, 0.5])
    p, u = np.exp(-known), np.exp(-unlike)
    np.testing.assert_allclose(
        known_or_unlike(known, unlike, 0.3, (0.1, 0.4)),
        np.log(0.7 * 0.1 * p**-0.9 + 0.3 * 0.4 * u**-0.6),
    )
    np.testing.assert_allclose(known_or_unlike(known, unlike, 0, (0.1, 0.4)), np.log(0.1 * p**-0.9))

    # A row unlike anything scores high although the experts call it normal.
    def one(known, unlike):
        return known_or_unlike(np.array([known]), np.array([unlike]), 0.3, (0.2, 0.2))[0]

    assert one(0.1, 8.0) > one(3.0, 0.2) > one(0.1, 0.2)


def test_the_shape_is_estimated_and_shrunk():
    rng = np.random.default_rng(0)
    assert shrunken_shape(rng.exponential(1 / 0.5, 5000)) == pytest.approx(0.5, abs=0.03)
    assert shrunken_shape([]) == pytest.approx(0.2)
    # Anomalies that look more normal than normals: the side fades.
    assert shrunken_shape(np.full(100, 0.1)) == 0.95
    assert shrunken_shape([50.0]) < 0.2 < shrunken_shape([0.0])


def test_platt_turns_scores_into_balanced_log_odds():
    rng = np.random.default_rng(0)
    y = np.r_[np.zeros(3000), np.ones(300)].astype(int)
    score = rng.normal(size=3300) + 2 * y  # true balanced log-odds: 2 s - 2
    slope, intercept = platt(score, y)
    assert slope == pytest.approx(2, abs=0.3)
    assert intercept == pytest.approx(-2, abs=0.4)


def test_platt_never_turns_the_order_over():
    y = np.r_[np.zeros(50), 1].astype(int)
    score = np.r_[np.linspace(-1, 1, 50), -3.0]  # the only anomaly, left out, looks most normal
    slope, intercept = platt(score, y)
    assert slope > 0
    assert np.isfinite(intercept)
