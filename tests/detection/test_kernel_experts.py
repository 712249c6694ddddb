"""The expert whose kernel adds columns, and the normal scores that kernels see (M11)."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from sklearn.metrics import average_precision_score, roc_auc_score

from swift_hydra.cleaning.additive_expert import EQUAL, WIDTH, AdditiveExpert
from swift_hydra.cleaning.kernel_expert import KernelExpert
from swift_hydra.cleaning.leave_out import LeaveOut
from swift_hydra.data.scaler import ColumnScaler
from swift_hydra.detection.coordinates import POINTS, NormalScores

# --- the additive kernel --------------------------------------------------------------------------


def fitted(X, y, n_centres=400, kind=AdditiveExpert):
    expert = kind("l1") if kind is KernelExpert else kind()
    folds = LeaveOut(X, y, 4, 0)
    return expert, expert.fit(X, y, np.random.default_rng(0), n_centres, folds)


def some_rows(n=200, d=4):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, d))
    X[:, 1] = rng.integers(0, 3, n)  # of few values, with ties
    y = (rng.random(n) < 0.2).astype(int)
    return X, y


def some_coded_rows(n=200, d=4):
    """The same; anomalies have odd codes, normals even ones."""
    X, y = some_rows(n, d)
    X[:, 1] = 2 * np.random.default_rng(0).integers(0, n // 10, n) + y
    return X, y


def by_hand(expert, rows):
    """The sum over all centres and columns, one column at a time."""
    each = zip(rows.T, expert.centres.T, strict=True)
    kernel = np.mean([np.exp(-cdist(x[:, None], c[:, None]) / WIDTH) for x, c in each], axis=0)
    for j in expert.equal:
        kernel += EQUAL * np.equal.outer(rows[:, j], expert.centres[:, j]) / rows.shape[1]
    return kernel @ expert.alpha


@pytest.mark.parametrize("rows_of", [some_rows, some_coded_rows])
def test_scores_are_the_sum_over_centres_and_columns(rows_of):
    expert, _ = fitted(*rows_of())
    assert list(expert.equal) == ([1] if rows_of is some_coded_rows else [])
    rng = np.random.default_rng(1)
    rows = np.concatenate([3 * rng.normal(size=(300, 4)), expert.centres[:20], [[1e5] * 4]])
    rows[:, 1] = np.round(2 * rows[:, 1]) / 2  # half a step from the next code at least, or equal
    scores = expert.score(rows)
    assert np.allclose(scores, by_hand(expert, rows), rtol=0, atol=1e-12)
    assert np.array_equal(scores, np.concatenate([expert.score(row[None]) for row in rows]))
    again = AdditiveExpert.from_snapshot(expert.snapshot())
    assert np.array_equal(again.score(rows), scores)


@pytest.mark.parametrize("rows_of", [some_rows, some_coded_rows])
def test_left_out_scores_are_those_of_a_fit_without_the_row(rows_of):
    X, y = rows_of(n=1000, d=2)  # many for the columns: one fit, in closed form
    expert, left_out = fitted(X, y, 2000)
    groups = LeaveOut(X, y, 4, 0).groups
    order = np.concatenate([np.flatnonzero(y == label) for label in (0, 1)])
    assert np.array_equal(expert.centres, X[order])
    target = np.where(y[order] == 1, 1.0, -1.0)
    weight = len(y) * np.where(target > 0, 0.5 / (target > 0).sum(), 0.5 / (target < 0).sum())
    kernel = expert._own_kernel() + np.diag(expert.ridge / weight)
    for row in (0, 5, int(np.flatnonzero(y == 1)[3])):
        others = np.flatnonzero(groups[order] != groups[row])
        alpha = np.linalg.solve(kernel[np.ix_(others, others)], target[others])
        alone = AdditiveExpert()
        alone.centres, alone.alpha = expert.centres[others], alpha
        alone.equal = expert.equal
        assert alone.score(X[row][None])[0] == pytest.approx(left_out[row], abs=1e-4)


def test_left_out_scores_do_not_know_labels_without_meaning():
    areas = []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        X, y = rng.normal(size=(300, 30)), (rng.random(300) < 0.2).astype(int)
        areas.append(roc_auc_score(y, fitted(X, y)[1]))
    assert abs(np.mean(areas) - 0.5) < 0.06, areas


@pytest.mark.parametrize("hidden", [True, False])
def test_it_is_better_where_anomalies_hide(hidden):
    """A product is local: rows taken for normal take back what a known anomaly says."""
    gains = []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        X, y = rng.normal(size=(1200, 40)), np.arange(1200) % 2
        X[y == 1, :20] += 0.8
        known = np.where(np.cumsum(y) <= 10, y, 0)
        kept = (np.arange(1200) < 600) & (hidden | (known == y))
        given = X[kept], known[kept], 600
        experts = [fitted(*given, kind)[0] for kind in (AdditiveExpert, KernelExpert)]
        areas = [roc_auc_score(y[600:], expert.score(X[600:])) for expert in experts]
        gains.append(areas[0] - areas[1])
    assert np.mean(gains) > 0.04 if hidden else np.mean(gains) < 0.0, gains


def test_codes_that_no_curve_tells_apart_are_seen(monkeypatch):
    """Odd numbers among even ones: the values beside an anomaly's are the normals'."""
    rng = np.random.default_rng(0)
    y = (rng.random(2000) < 0.03).astype(int)
    X = np.column_stack([2 * rng.integers(50, size=2000) + y, rng.normal(size=(2000, 4))])
    some, others = np.arange(1000), np.arange(1000, 2000)

    def precision():
        expert, _ = fitted(X[some], y[some], 1000)
        return average_precision_score(y[others], expert.score(X[others]))

    assert precision() > 0.9
    monkeypatch.setattr("swift_hydra.cleaning.additive_expert.RECUR", 0.0)
    assert precision() < 0.2


@pytest.mark.parametrize("n_known, hidden", [(4, 0), (10, 0), (10, 10)])
def test_an_exact_value_that_known_anomalies_share_is_seen(n_known, hidden, monkeypatch):
    """A port among all ports, a price to the cent: any value near it is a normal row's."""
    rng = np.random.default_rng(0)
    X = np.column_stack([rng.integers(1024, 65535, 1600), rng.integers(0, 24, 1600)])
    X = np.column_stack([X, rng.normal(size=(1600, 3))])
    odd = np.arange(1600) % 40 == 0
    X[odd, 0] = rng.choice([20000, 40000] if n_known > 4 else [30000], odd.sum())
    y, known = np.zeros(800, dtype=int), np.flatnonzero(odd[:800])
    y[known[:n_known]] = 1
    kept = ~odd[:800]
    kept[known[: n_known + hidden]] = True
    ranks = NormalScores.fit(X[:800])

    def precision():
        expert, _ = fitted(ranks(X[:800][kept]), y[kept], 1000)
        return average_precision_score(odd[800:], expert.score(ranks(X[800:])))

    assert precision() > 0.9
    monkeypatch.setattr("swift_hydra.cleaning.additive_expert.SHARED", -1.0)
    assert precision() < 0.6


def test_a_value_that_half_of_all_rows_have_is_no_exact_value_of_the_anomalies():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(400, 4)), np.arange(400) % 40 == 0
    X[rng.random(400) < 0.5, 0] = 0.0  # as most counts are
    assert not len(fitted(X, y.astype(int))[0].equal)


@pytest.mark.parametrize("step", [1.37, 0.01, 1e-4])
def test_codes_are_equal_however_they_were_rounded(step):
    rng = np.random.default_rng(0)
    codes, y = rng.integers(0, 40, 1600), (rng.random(1600) < 0.05).astype(int)
    codes = 2 * codes + y  # odd codes are the anomalies'
    X = np.column_stack([np.round(step * codes + 0.1, 6), rng.normal(size=(1600, 2))])
    scaler = ColumnScaler().fit(X[:800])
    ranks = NormalScores.fit(scaler.transform(X[:800]))
    expert, _ = fitted(ranks(scaler.transform(X[:800])), y[:800], 1000)
    assert list(expert.equal) == [0]
    exact, rounded, other = (
        expert.score(ranks(scaler.transform(rows)))
        for rows in (X[800:], X[800:].astype(np.float32), X[800:] + np.array([step / 4, 0, 0]))
    )
    assert np.abs(rounded - exact).max() < 0.01 * exact.std()
    assert average_precision_score(y[800:], rounded) > 0.9
    assert average_precision_score(y[800:], other) < 0.3


# --- normal scores of ranks -----------------------------------------------------------------------


def test_normal_scores_are_normal_and_nearly_the_ranks():
    Z = np.random.default_rng(0).exponential(size=(2000, 2)).astype(np.float32)
    scores = NormalScores.fit(Z)(Z)
    assert abs(scores.mean()) < 0.02 and abs(scores.std() - 1) < 0.05
    for column, given in zip(Z.T, scores.T, strict=True):
        assert np.all(np.diff(given[np.argsort(column)]) >= 0)


@pytest.mark.parametrize("n", [3, 50, POINTS, 1000])
def test_equal_values_share_the_middle_of_their_ranks(n):
    Z = np.repeat([[0.0, 1.0], [2.0, 1.0]], [n // 2, n - n // 2], axis=0)
    low, high = NormalScores.fit(Z)(np.array([[0.0, 1.0], [2.0, 1.0]]))
    assert low[0] < 0 < high[0] < 1 and low[0] > -1
    assert low[1] == high[1] == 0  # a constant says nothing


def test_order_is_kept_beyond_all_that_was_seen():
    Z = np.linspace(-1, 1, 100)[:, None]
    rows = np.array([[-3.0], [-2.0], [-1.0], [0.0], [1.0], [2.0], [3.0]])
    scores = NormalScores.fit(Z)(rows)[:, 0]
    assert np.all(np.diff(scores) > 0.9)
    assert np.array_equal(NormalScores.fit(Z)(rows[2:3]), scores[2:3, None])


def test_a_kernel_does_not_mind_how_a_column_is_bent():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(400, 4))
    y = (np.abs(X[:, 0] - 0.3) < 0.15).astype(int)
    bent = np.sign(X) * np.expm1(3 * np.abs(X))
    folds = LeaveOut(X, y, 4, 0)
    auc = {}
    for name, inputs in (("values", bent), ("ranks", NormalScores.fit(bent)(bent))):
        scores = KernelExpert("l2").fit(inputs, y, np.random.default_rng(0), 400, folds)
        auc[name] = roc_auc_score(y, scores)
    assert auc["ranks"] > auc["values"] + 0.1


@pytest.mark.parametrize(
    ("known", "shared"),
    [([5.5] * 2 + [3.1] * 2, False), ([5.5] * 3 + [3.1] * 2, True), ([5.5] * 3, True)],
)
def test_known_anomalies_share_a_value_if_half_of_all_but_one_are_told_by_it(known, shared):
    """Two pairs among four may be chance. A column of two values is a curve's."""
    expert = AdditiveExpert()
    normals = np.arange(20.0)
    told = np.concatenate([normals, known])
    expert.centres = np.column_stack([told, told > 4])
    often, found = expert._recurring(np.arange(len(told)) >= 20)
    assert found.tolist() == [shared, False] and not often.any()
