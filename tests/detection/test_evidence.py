"""Evidence is left-out on training rows; M12 does what its formula says."""

import numpy as np
import pytest
from helpers import SHORT_FIT, apart
from sklearn.covariance import ledoit_wolf_shrinkage
from sklearn.metrics import roc_auc_score

from swift_hydra import SwiftHydra
from swift_hydra.detection.evidence import (
    COLUMNS,
    LOCAL,
    Evidence,
    Subspaces,
    column_index,
    shrinkage,
)
from swift_hydra.detection.full import ScoreCombiner
from swift_hydra.detection.pvalue import (
    ALONE,
    MergedPValue,
    TailPValue,
    known_or_unlike,
    platt,
    raised_weight,
    shrunken_shape,
    weight_of_unlike,
    weights_by_auc,
)
from swift_hydra.detection.sides import MIXTURE_COLUMNS, shown


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
    return Evidence.fit(X, y, apart(folds), functions, folds % 2, rng, max_normals=4096)


def test_columns_are_standardised_by_the_normals_and_see_anomalies(fitted):
    X, y, evidence, columns = fitted
    assert columns.all.shape == (500, len(COLUMNS))
    assert columns.without.shape == (4, 500, len(COLUMNS))
    np.testing.assert_allclose(columns.all[y == 0].mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(columns.all[y == 0].std(0), 1, atol=1e-3)
    assert (evidence.transform(X[y == 1] + 1.0).mean(0) > 1.0).all()


def test_training_rows_look_like_new_rows(fitted):
    """Left-out columns of training normals are as those of fresh ones; in-sample ones are not."""
    X, y, evidence, columns = fitted
    fresh = evidence.transform(np.random.default_rng(9).normal(size=(2000, 5)).astype(np.float32))
    assert np.abs(fresh.mean(0)).max() < 0.25
    # A copy of a training row has no neighbour in it: nothing tells it from the training row.
    local = column_index(LOCAL)
    again = evidence.transform(X[y == 0])
    np.testing.assert_allclose(again[:, local], columns.all[y == 0][:, local], atol=1e-5)


def test_local_densities_of_normals_are_those_of_anybody_else():
    """A row is in its neighbours' own densities only if it is a normal: there it is left out."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(4000, 10)).astype(np.float32)
    y = (rng.random(4000) < 0.1).astype(np.int64)
    evidence, columns = fit(X, y, np.arange(4000) % 4, residuals())
    fresh = evidence.transform(rng.normal(size=(4000, 10)).astype(np.float32))
    lof5 = COLUMNS.index("lof5")
    assert abs(fresh[:, lof5].mean()) < 0.06  # .12 where it is in them
    assert abs(columns.all[y == 1, lof5].mean()) < 0.12


def test_a_code_beyond_the_reference_rows_lacks_no_copy():
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 5, size=(200, 4)).astype(np.float32)
    X = np.repeat(codes, 40, axis=0)
    y, folds = np.zeros(len(X), dtype=int), np.arange(len(X)) % 4
    coded = np.ones(len(X), dtype=bool)
    given = ([lambda Z: np.ones(len(Z))], y, np.random.default_rng(0), 1000)
    evidence, columns = Evidence.fit(X, y, apart(folds, coded), *given)
    fresh = evidence.transform(X)
    knn5 = COLUMNS.index("knn5")
    same = columns.all[:, knn5] == fresh[:, knn5]
    assert same.mean() > 0.94  # seven of eight rows are not among the thousand


def test_without_a_fold_no_label_of_it_is_known():
    """Another label of a row changes no view without its fold, of no row."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 2)).astype(np.float32)
    y = (np.arange(200) < 40).astype(np.int64)
    folds = np.arange(200) % 4
    other = y.copy()
    changed = np.flatnonzero(folds == 0)[::5]
    other[changed] = 1 - y[changed]
    parts = [fit(X, labels, folds, residuals())[1] for labels in (y, other)]
    first, second = (part.without[:, :, column_index(LOCAL)] for part in parts)
    # Standardised by the fold's own normals: equal to the bit.
    assert np.array_equal(first[0], second[0])
    assert not np.allclose(first[1], second[1], atol=0.1)


def test_a_row_is_scored_by_the_residual_function_that_did_not_see_it(fitted):
    X, y, _, _ = fitted
    fold = np.arange(500) % 2
    spies = [lambda Z, i=i: np.ones(len(Z)) * (i + 1) for i in (0, 1)]
    _, columns = fit(X, y, fold, spies)
    cvae = columns.all[:, column_index(["cvae"])[0]]
    assert len(np.unique(cvae[fold == 0])) == len(np.unique(cvae[fold == 1])) == 1
    assert cvae[0] < cvae[1]


def test_a_snapshot_round_trip_is_equal_to_the_bit(fitted):
    X, _, evidence, _ = fitted
    again = Evidence.from_snapshot(evidence.snapshot(), residuals())
    assert np.array_equal(evidence.transform(X), again.transform(X))
    older = evidence.snapshot() | {"largest": None}
    older |= {name: older[name][:, :-1] for name in ("centre", "scale")}
    ten = Evidence.from_snapshot(older, residuals()).transform(X)
    assert np.array_equal(ten, again.transform(X)[:, :-1])
    assert shown(ten, MIXTURE_COLUMNS).shape[1] == len(MIXTURE_COLUMNS) - 1


def test_a_row_without_an_anomaly_to_compare_with_changes_no_others(fitted):
    """A normal that is a copy of the only anomaly has no ratio; the rest keep theirs."""
    X = fitted[0].copy()
    y = (np.arange(500) == 0).astype(np.int64)
    X[1] = X[0]
    _, columns = fit(X, y, np.arange(500) % 4, residuals())
    ratio = columns.all[:, column_index(["ratio1"])[0]]
    assert ratio[1] == 0 and abs(ratio[y == 0].mean()) < 1e-3
    assert ratio[y == 0].std() == pytest.approx(1, abs=0.01)


def test_a_residual_that_is_no_number_is_not_hidden(fitted):
    X, y, _, _ = fitted
    broken = [lambda Z: np.full(len(Z), np.nan)] * 2
    evidence, _ = fit(X, y, np.arange(500) % 4, broken)
    assert np.isnan(evidence.transform(X[:3])[:, column_index(["cvae"])]).all()


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


def test_experts_weigh_by_how_well_they_tell_the_classes_apart():
    rng = np.random.default_rng(0)
    y = (np.arange(400) % 8 == 0).astype(int)
    blind, seeing = rng.normal(size=400), y + 0.2 * rng.normal(size=400)
    scores = np.column_stack([blind, seeing])
    weights = weights_by_auc(scores, y)
    assert weights[1] > 3 * weights[0] > 0
    few = weights_by_auc(scores[:9], y[:9])  # two known anomalies say little
    assert 1 < few[1] / few[0] < weights[1] / weights[0]
    np.testing.assert_array_equal(weights_by_auc(scores[:, ::-1], y), weights[::-1])


def test_three_blind_scores_hide_less_of_what_a_fourth_sees_where_no_anomaly_weighs_them():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(1200, 4))
    rows[800:, 3] += 3
    y = np.arange(1200) >= 800
    plain, alone = (
        MergedPValue.fit(rows[:400], exponent=exponent).minus_log_p(rows[400:])
        for exponent in (1.0, ALONE)
    )
    assert roc_auc_score(y[400:], alone) > roc_auc_score(y[400:], plain) + 0.01
    single = rows[:, 3:]  # a power mean of one value is that value
    again = [MergedPValue.fit(single, exponent=e).minus_log_p(single) for e in (1.0, ALONE)]
    assert np.array_equal(*again)
    model = SwiftHydra(trust_normals=True, **SHORT_FIT).fit(rows[:300], np.zeros(300, dtype=int))
    assert model.detector_.combiner.unlike.exponent == ALONE


@pytest.mark.parametrize("exponent", [1.0, ALONE])
def test_merged_p_value_round_trip(exponent):
    scores = np.random.default_rng(0).normal(size=(300, 3))
    merged = MergedPValue.fit(scores, exponent=exponent)
    again = MergedPValue.from_snapshot(merged.snapshot())
    assert np.array_equal(merged.minus_log_p(scores * 2), again.minus_log_p(scores * 2))


def test_the_weight_is_raised_where_known_anomalies_are_told_by_being_unlike():
    """Rows that fit none of four patterns: five labels took .3 of the AUC-PR of none."""
    high, low = np.full(20, 6.0), np.full(20, 1.0)
    shapes = [(shrunken_shape(a), shrunken_shape(b)) for a, b in ((low, high), (high, low))]
    raised = raised_weight(low, high, 0.3, shapes[0], 0.3)

    def log_posterior(w):
        prior = 5 * (0.3 * np.log(w) + 0.7 * np.log1p(-w))
        return known_or_unlike(low, high, w, shapes[0], 0.3).sum() + prior

    assert raised > 0.7
    assert log_posterior(raised) > max(log_posterior(raised - 0.01), log_posterior(raised + 0.01))
    assert raised_weight(low[:2], high[:2], 0.3, shapes[0], 0.3) < raised
    assert raised_weight(high, low, 0.3, shapes[1], 0.3) == 0.3  # of other kinds it says nothing
    assert raised_weight(low, high, 0, shapes[0], 0.3) == 0
    patterns = np.random.default_rng(99).random((4, 15)) > 0.5
    rng = np.random.default_rng(0)
    flipped, usual = rng.random((400, 15)) < 0.05, patterns[rng.integers(0, 4, 400)]
    X, y = np.where(flipped, ~usual, usual).astype(float), (np.arange(400) < 16).astype(int)
    X[:16] = rng.random((16, 15)) > 0.5
    assert SwiftHydra(generator="noise").fit(X, y).detector_.combiner.weight > 0.5
    assert SwiftHydra(unlike_weight=0, **SHORT_FIT).fit(X, y).detector_.combiner.weight == 0


def test_known_or_unlike_is_the_mixture_of_likelihood_ratios():
    known, unlike = np.array([0.2, 1.0, 4.0]), np.array([0.1, 5.0, 0.5])
    p, u = np.exp(-known), np.exp(-unlike)
    np.testing.assert_allclose(
        known_or_unlike(known, unlike, 0.3, (0.1, 0.4)),
        np.log(0.7 * 0.1 * p**-0.9 + 0.3 * 0.4 * u**-0.6),
    )
    np.testing.assert_allclose(known_or_unlike(known, unlike, 0, (0.1, 0.4)), np.log(0.1 * p**-0.9))
    np.testing.assert_allclose(
        known_or_unlike(known, unlike, 0.3, (0.1, 0.9), 0.4),
        np.log(0.7 * 0.1 * p**-0.9 + 0.3 * (0.6 * 0.9 * u**-0.1 + 0.4 * 0.2 * u**-0.8)),
    )

    # A row unlike anything scores high although the experts call it normal.
    def one(known, unlike):
        return known_or_unlike(np.array([known]), np.array([unlike]), 0.3, (0.2, 0.2))[0]

    assert one(0.1, 8.0) > one(3.0, 0.2) > one(0.1, 0.2)


def test_the_one_class_side_counts_less_where_many_hide_for_each_known_one():
    assert weight_of_unlike(0.3, 0.0, 900, 10) == weight_of_unlike(0.3, 0.5, 900, 2) == 0.3
    assert weight_of_unlike(0.3, 0.03, 1000, 10) == pytest.approx(0.15)
    weights = [weight_of_unlike(0.3, share, 2000, 10) for share in np.arange(0, 0.2, 0.01)]
    assert weights == sorted(weights, reverse=True) and weights[-1] < 0.01
    assert weight_of_unlike(0.3, 0.0005, 10**6, 10) > 0.2  # 500 rows of a long table


def test_the_shape_is_estimated_and_shrunk():
    rng = np.random.default_rng(0)
    assert shrunken_shape(rng.exponential(1 / 0.5, 5000)) == pytest.approx(0.5, abs=0.03)
    assert shrunken_shape([]) == pytest.approx(0.2)
    # Anomalies that look more normal than normals: the side fades.
    assert shrunken_shape(np.full(100, 0.1)) == 0.95
    assert shrunken_shape([50.0]) < 0.2 < shrunken_shape([0.0])
    # Of 22 that rank as normals do, the prior alone would make (5 + 22) / (25 + 22) = .57.
    assert 0.8 < shrunken_shape(np.ones(22)) < shrunken_shape(np.ones(200)) <= 0.95
    # A third of them seen is more than chance.
    some = shrunken_shape(np.r_[np.ones(20), np.full(10, 4.6)])
    assert 0.3 < some < 0.6


def test_experts_that_rank_by_chance_do_not_hide_what_the_distance_sees():
    """Known anomalies look like normals; new ones of another kind are far out."""
    found, distance = [], []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        y = (np.arange(530) < 30).astype(int)
        judge = ScoreCombiner.fit(rng.normal(size=(530, 6)), rng.normal(size=(530, 2)), y, 0.3)
        truth = (np.arange(2000) < 100).astype(int)
        experts = rng.normal(size=(2000, 6))
        far = rng.normal(size=(2000, 2)) + 2 * truth[:, None]
        found.append(roc_auc_score(truth, judge.score(experts, far)))
        distance.append(roc_auc_score(truth, judge.unlike.minus_log_p(far)))
    assert np.mean(found) > np.mean(distance) - 0.024, (found, distance)  # .032 before


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


def test_shrinkage_is_ledoit_and_wolfs():
    rng = np.random.default_rng(0)
    for n, d in ((50, 4), (20, 60), (300, 1), (6, 6)):
        rows = rng.normal(size=(n, d)) * rng.uniform(0.1, 3, d)
        rows -= rows.mean(0)
        values = np.linalg.svd(rows, compute_uv=False) ** 2 / n
        expected = ledoit_wolf_shrinkage(rows, assume_centered=True)
        assert shrinkage(rows, values) == pytest.approx(expected, abs=1e-9)


def test_wide_rows_have_the_distances_of_the_full_matrix():
    """Fewer rows than columns: the same Mahalanobis distance as from the d x d matrix."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(12, 30))
    model = Subspaces.fit(rows, np.zeros(12, int), 1)
    centred = rows - rows.mean(0)
    covariance = centred.T @ centred / 12
    shrink = ledoit_wolf_shrinkage(centred, assume_centered=True)
    full = (1 - shrink) * covariance + (shrink * np.trace(covariance) / 30 + 1e-6) * np.eye(30)
    X = rng.normal(size=(5, 30))
    away = X - rows.mean(0)
    expected = np.sqrt(np.einsum("nd,nd->n", away @ np.linalg.inv(full), away))
    np.testing.assert_allclose(model.distances(X, 0)[0], expected, rtol=1e-6)
