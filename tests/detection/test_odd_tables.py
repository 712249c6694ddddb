"""Odd tables: noise columns, narrow directions, drift, templates, one expert that sees."""

import re
import warnings

import numpy as np
import pytest
from helpers import SHORT_FIT
from sklearn.metrics import average_precision_score, roc_auc_score

from swift_hydra.data.columns import ColumnSettings
from swift_hydra.data.rows import TrainingRows
from swift_hydra.data.scaler import ColumnScaler
from swift_hydra.data.table import as_table
from swift_hydra.detection.coordinates import PrincipalScores
from swift_hydra.detection.largest_value import KEPT, AboutColumns, KeptRelations, LargestValue
from swift_hydra.detection.pvalue import bounded, known_or_unlike, weights_by_auc
from swift_hydra.settings import InputError
from swift_hydra.SwiftHydra import SwiftHydra

pytestmark = pytest.mark.usefixtures("few_candidates")


def split(make, seed, n=(500, 25), n_new=(1000, 100)):
    """Rows and labels to train on and to test on: ``make(rng, n, anomalous)`` makes rows."""
    rng = np.random.default_rng(seed)
    parts = []
    for normals, anomalies in (n, n_new):
        X = np.concatenate([make(rng, normals, False), make(rng, anomalies, True)])
        order = rng.permutation(len(X))
        parts += [X[order], (np.arange(len(X)) >= normals)[order].astype(int)]
    return parts


def noise_columns(rng, n, anomalous):
    X = rng.normal(size=(n, 200))
    X[:, 0] += 3.5 * anomalous
    return X


MIX = np.linalg.qr(np.random.default_rng(0).normal(size=(10, 10)))[0]


def narrow_direction(rng, n, anomalous):
    X = rng.normal(size=(n, 10)) * np.geomspace(5, 0.05, 10)
    X[:, -1] += 0.15 * anomalous
    return X @ MIX


def parts_and_sum(rng, n, anomalous):
    parts = rng.lognormal(3, 0.7, (n, 5))
    wrong = rng.choice([0.7, 1.3], n) if anomalous else 1.0
    return np.column_stack([parts, parts.sum(1) * wrong])


def amounts(rng, n, anomalous):
    """Six amounts that depend on each other; one of a row's is slipped by two digits."""
    X = 100 * np.exp(1.2 * rng.normal(size=(n, 6)) @ (np.eye(6) + 0.35 * MIX[:6, :6]))
    if anomalous:
        X[np.arange(n), rng.integers(0, 6, n)] *= rng.choice([0.01, 100.0], n)
    return X


def product(rng, n, anomalous):
    factors = rng.lognormal(3, 1.2, (n, 5))
    wrong = rng.choice([0.6, 1.5], n) if anomalous else 1.0
    return np.column_stack([factors, factors[:, 0] * factors[:, 1] * wrong])


def sum_of_amounts(rng, n, anomalous):
    parts = rng.lognormal(3, 1.2, (n, 5))
    wrong = rng.choice([0.6, 1.5], n) if anomalous else 1.0
    return np.column_stack([parts, parts.sum(1) * wrong])


# In their own unit alone: .79, .57, .99; in logarithms alone the sum has .67.
@pytest.mark.parametrize("make, known", [(amounts, 0), (product, 12), (sum_of_amounts, 12)])
def test_amounts_that_span_orders_of_magnitude(tmp_path, make, known):
    X, y, new, truth = split(make, 0, n=(600, 25))
    told = np.where(np.cumsum(y) > known, 0, y) if known else None
    model = SwiftHydra(**SHORT_FIT).fit(X, told)
    scores = model.decision_function(new)
    assert roc_auc_score(truth, scores) > 0.9
    model.save(tmp_path / "model.pt")
    assert np.array_equal(SwiftHydra.load(tmp_path / "model.pt").decision_function(new), scores)
    absurd = new[:6] * [[0], [-1], [1e9], [1e300], [-1e300], [1e-300]]
    assert np.isfinite(model.decision_function(absurd)).all()


# Fits without learned scales, and without the directions: .83, .60, .76.
@pytest.mark.parametrize(
    "make, least", [(noise_columns, 0.95), (narrow_direction, 0.9), (parts_and_sum, 0.9)]
)
def test_what_tells_is_found(make, least):
    aucs = []
    for seed in range(2):
        X, y, new, truth = split(make, seed)
        model = SwiftHydra(random_state=seed, **SHORT_FIT).fit(X, y)
        aucs.append(roc_auc_score(truth, model.decision_function(new)))
    assert np.mean(aucs) > least, aucs


def test_where_all_rows_drift_away_the_known_anomalies_still_rank_first():
    rng = np.random.default_rng(0)
    time = np.linspace(0, 1, 2600)
    X = rng.normal(size=(2600, 6))
    X[:, 0] += 8 * time
    y = (rng.random(2600) < 0.06).astype(int)
    X[y == 1, 2] += rng.normal(2.5, 1, y.sum())
    X[y == 1, 3] -= 1.5
    model = SwiftHydra(**SHORT_FIT).fit(X[:600], y[:600])
    assert roc_auc_score(y[600:], model.decision_function(X[600:])) > 0.75  # .66 before
    with pytest.warns(UserWarning, match=r"rows are above the threshold, .*column 'x0' is outside"):
        model.predict(X[2000:])


def test_rows_unlike_the_training_rows_are_not_flagged_without_a_word():
    """A sign that changed: no column is outside its range, all rows are flagged."""
    rng = np.random.default_rng(0)
    X = rng.choice([-1, 1], (400, 1)) + 0.05 * rng.normal(size=(400, 4))
    y = (np.arange(400) < 20).astype(int)
    X[y == 1, 3] += 1
    model = SwiftHydra(**SHORT_FIT).fit(X, y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert model.predict(X).mean() < 0.2
        model.predict(X[y == 1])  # of twenty rows all may be anomalies
    with pytest.warns(UserWarning, match="of 400 rows are above the threshold"):
        model.predict(X * [1, -1, 1, 1])


def test_a_recoded_category_is_not_passed_over_however_few_rows_are_flagged():
    """Its one-hot columns are all 0 then: known anomalies that depend on it look normal."""
    pandas = pytest.importorskip("pandas")
    rng = np.random.default_rng(0)
    X = pandas.DataFrame({f"c{j}": rng.choice(list("abcdef"), 400) for j in range(6)})
    y = ((X.c1 == "a") & (X.c2 == "b")).to_numpy().astype(int)
    model = SwiftHydra(categorical="onehot", **SHORT_FIT).fit(X, y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.predict(X)
    X["c1"] = X.c1.str.upper()
    with pytest.warns(UserWarning, match="column 'c1' holds a text that .* in 100 % of the rows"):
        model.predict(X)


def test_what_turned_numbers_into_too_many_texts_is_said():
    pandas = pytest.importorskip("pandas")
    rng = np.random.default_rng(0)
    X = pandas.DataFrame({"a": rng.normal(size=300), "b": list("xyz") * 100})
    y = (np.arange(300) < 20).astype(int)
    for cells, said in (
        ([*map(str, X.a[:299]), "--"], r"'--' in row 299 .*: most cells are numbers"),
        ([f"{value:.5f} mg" for value in X.a], r"mg': numbers with a unit"),
        ([f"2026-01-01T{i // 60:02}:{i % 60:02}" for i in range(300)], "dates=True"),
    ):
        X["a"] = cells
        with pytest.raises(InputError, match=f"more than 255: .*{said}"):
            SwiftHydra(categorical="onehot", **SHORT_FIT).fit(X, y)


def test_wide_and_long_tables_have_as_many_directions_without_a_fold(monkeypatch):
    monkeypatch.setattr("swift_hydra.detection.coordinates.WIDE", 32)
    rng = np.random.default_rng(0)
    X = rng.normal(size=(1000, 40))
    shapes = {PrincipalScores.fit(X[:n])(X[:3]).shape for n in (1000, 990, 33)}
    assert shapes == {(3, 32)}


def test_mostly_anomalies_are_flagged_without_a_word():
    rng = np.random.default_rng(0)
    y = (np.arange(300) < 255).astype(int)
    X = rng.normal(size=(300, 4)) + 2 * y[:, None]
    model = SwiftHydra(majority_anomalies=True, contamination="auto", **SHORT_FIT).fit(X, y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert model.predict(X).mean() > 0.8


def test_the_column_that_is_named_is_the_one_that_is_outside(monkeypatch):
    """Of all rows, not of the first that are looked at; a constant in float32 is still there."""
    monkeypatch.setattr("swift_hydra.estimator.CHUNK_ROWS", 50)
    rng = np.random.default_rng(0)
    X = np.column_stack([np.full(200, 0.1), rng.normal(size=(200, 3))])
    y = (np.arange(200) < 20).astype(int)
    X[y == 1, 1:] += 3
    model = SwiftHydra(**SHORT_FIT).fit(X, y)
    new = X + np.where(np.arange(200)[:, None] < 100, [0, 50, 0, 0], [0, 0, 0, 60])
    new[:, 3] += 40
    with pytest.warns(UserWarning, match="column 'x3' is outside its training range .* in 100 %"):
        model.predict(new.astype(np.float32))


def test_a_range_is_told_in_what_the_column_holds():
    pandas = pytest.importorskip("pandas")
    times = pandas.Timestamp("2025-01-01") + pandas.to_timedelta(np.arange(60), unit="D")
    frame = pandas.DataFrame(
        {
            "day": times,
            "second": times[0] + pandas.to_timedelta(np.arange(60) * 61, unit="s"),
            "offset": 1e9 + np.arange(60) / 100,
            "usual": np.linspace(-1.23456, 1000, 60),
            "constant": 101325.5,
        }
    )
    rows = TrainingRows.read(frame, None, ColumnSettings(dates=True))
    assert [rows.columns.range_of(j) for j in range(5)] == [
        "2025-01-01 to 2025-03-01",
        "2025-01-01 to 2025-01-01T00:59:59",
        "1000000000 to 1000000000.59",
        "-1.235 to 1000",
        "101325.5 to 101325.5",
    ]


def test_a_frame_whose_columns_are_numbered_otherwise_is_named_once():
    pandas = pytest.importorskip("pandas")
    X = np.random.default_rng(0).normal(size=(60, 3))
    model = SwiftHydra(**SHORT_FIT).fit(X, (np.arange(60) < 6).astype(int))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        model.predict(pandas.DataFrame(X + 30).iloc[:, ::-1])
    assert ["another order" in str(each.message) for each in said] == [True, False]
    assert {each.filename for each in said} == {__file__}


def test_p_values_of_what_are_no_scores_are_refused():
    X = np.random.default_rng(0).normal(size=(60, 3))
    model = SwiftHydra(**SHORT_FIT).fit(X, (np.arange(60) < 6).astype(int))
    for scores in (None, ["a"], 0.5, [[0.5]], [np.nan]):
        with pytest.raises(InputError, match="give those of decision_function"):
            model.p_values_of(scores)


@pytest.mark.parametrize("n", [30, 99, 400])
def test_alarms_too_rare_to_be_told_are_not_none_without_a_word(n):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(n, 3)), (np.arange(n) < 9).astype(int)
    model = SwiftHydra(**SHORT_FIT).fit(X, y)
    with pytest.warns(UserWarning, match="no row is ever flagged: give .* or more") as said:
        model.set_false_alarms(0.001)
    assert model.threshold_ == np.inf
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        enough = float(re.search("give (.*) or more", str(said[0].message))[1])
        assert np.isfinite(model.set_false_alarms(enough).threshold_)
        assert model.set_false_alarms(0).threshold_ == np.inf  # none is what was asked for


def test_neither_side_is_surer_than_the_normals_are_many():
    far = np.array([0.0, 1.0, 4.6, 20.0, 200.0])
    held = bounded(far, 100)
    assert np.array_equal(held[:3], far[:3])
    assert held[2] < held[3] < held[4] < np.log(100) + 1  # in order, and hardly more
    alone = known_or_unlike(np.array([3.0, 0.0]), bounded(far[[3, 4]], 100), 0.3, (0.2, 0.2))
    assert alone[0] > alone[1]  # what the experts say orders rows that are all far


@pytest.mark.parametrize("noise", [1e-3, 0.3])
def test_alarms_where_rows_come_from_templates(noise):
    """Nearly equal rows are no copies: a row's template has as many others for a fresh one."""
    flagged = []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        templates = 3 * rng.normal(size=(40, 6))
        X = templates[rng.integers(0, 40, 1500)] + noise * rng.normal(size=(1500, 6))
        y = (np.arange(1500) < 25).astype(int)
        X[y == 1] = 3 * rng.normal(size=(25, 6))
        model = SwiftHydra(random_state=seed, false_alarms=0.05, **SHORT_FIT)
        model.fit(X[:525], y[:525])
        flagged.append(model.predict(X[525:]).mean())
    assert np.mean(flagged) < 0.09, flagged  # .11 to .14 where a fold's neighbours were left out


def test_one_expert_that_sees_is_not_drowned_by_those_that_do_not():
    rng = np.random.default_rng(0)
    y = (np.arange(400) < 60).astype(int)
    seeing = rng.normal(size=400) + 3 * y
    blind = rng.normal(size=(400, 3)) + 0.5 * y[:, None]
    weight = weights_by_auc(np.column_stack([seeing, blind]), y)
    assert weight[0] > 2 * weight[1:].sum()
    few = (np.arange(400) < 4) | (y == 0)  # of four known ones it may be chance
    weight = weights_by_auc(np.column_stack([seeing, blind])[few], y[few])
    assert weight[0] < 2 * weight[1:].sum()


def test_few_known_rows_are_enough_for_the_one_expert_that_sees_broken_relations():
    """The columns hang together; each value of an anomaly is usual, but one does not fit."""

    def rows(n, n_anomalies, rng):
        y = (np.arange(n) < n_anomalies).astype(int)
        loadings = [[1, 0.5, -0.7, 0.3, 1, -0.2], [0.2, -1, 0.6, 0.9, 0.4, 1]]
        X = rng.normal(size=(n, 2)) @ loadings + 0.25 * rng.normal(size=(n, 6))
        X[y == 1, 0] += rng.choice([-1.2, 1.2], size=n_anomalies)
        return X, y

    found = []
    for seed in (0, 3):
        rng = np.random.default_rng(seed)
        X, y = rows(400, 8, rng)
        new, truth = rows(1000, 60, rng)
        model = SwiftHydra(random_state=seed, **SHORT_FIT).fit(X, y)
        found.append(average_precision_score(truth, model.decision_function(new)))
    assert np.mean(found) > 0.5, found  # .45 where 20 known were needed for that expert to count


@pytest.mark.parametrize("shape", [(300, 5), (20, 60), (3, 2), (1200, 1100), (50, 1)])
def test_principal_scores_are_of_one_spread_and_row_by_row_the_same(shape):
    rng = np.random.default_rng(0)
    Z = rng.normal(size=shape) * np.geomspace(1, 0.01, shape[1])
    scores = PrincipalScores.fit(Z)
    all_rows = scores(Z)
    assert np.isfinite(all_rows).all() and np.abs(all_rows).max() < 100
    alone = np.concatenate([scores(Z[[row]]) for row in range(0, len(Z), 7)])
    assert np.array_equal(alone, all_rows[::7])
    again = PrincipalScores(**scores.snapshot())
    assert np.array_equal(again(Z), all_rows)
    if shape == (300, 5):  # four of them wide enough for the ridge not to matter
        assert np.allclose(all_rows[:, :2].std(0), 1, atol=0.05)


@pytest.mark.parametrize("n, d", [(8, 55), (6, 22), (12, 40)])
@pytest.mark.parametrize("n_kinds", [3, 5, 100])
def test_fewer_rows_than_columns(n, d, n_kinds):
    """Without a fold there are fewer directions than with it, also where rows come again."""
    for seed in range(3):
        rng = np.random.default_rng(seed)
        kinds = rng.integers(0, 2, (n_kinds, d)).astype(float)
        X = kinds[rng.integers(0, n_kinds, n)] if n_kinds < 100 else rng.normal(size=(n, d))
        y = (rng.permutation(n) < max(1, n - 5)).astype(int)
        model = SwiftHydra(random_state=seed, majority_anomalies=True, **SHORT_FIT).fit(X, y)
        assert np.isfinite(model.decision_function(X)).all()


@pytest.mark.parametrize("seed, fast", [(18, False), (20, False), (20, True)])
def test_known_anomalies_that_are_copies_of_most_rows_do_not_come_out_lowest(tmp_path, seed, fast):
    """AUC-ROC .44 to .46 of the training rows where nothing looks at them once more."""
    rng = np.random.default_rng(seed)
    n, d = int(rng.integers(9, 40)), int(rng.integers(1, 8))
    X = rng.normal(size=(n, d)) * (rng.random((n, d)) < 0.1)
    alike = np.flatnonzero((X == 0).all(1))
    y = np.zeros(n, dtype=int)
    y[rng.permutation(alike)[: min(len(alike) // 3, n - 5)]] = 1
    model = SwiftHydra(random_state=seed, fast=fast, trust_normals=True, **SHORT_FIT).fit(X, y)
    scores = model.decision_function(X)
    assert roc_auc_score(y, scores) >= 0.5
    model.save(tmp_path / "model.pt")  # which side was not heard is in the file
    assert np.array_equal(SwiftHydra.load(tmp_path / "model.pt").decision_function(X), scores)


def _invoice(rng, n, odd):
    parts = rng.normal(100, 20, (n, 4))
    total = parts.sum(1) + odd * rng.choice([-25, 25], n)
    return np.column_stack([parts, total]).round(1)


def _shares(rng, n, odd):
    X = 100 * rng.dirichlet(np.full(5, 5.0), n)
    X[:, 0] += odd * rng.choice([-7, 7], n)
    return X.round(1)


def _units(rng, n, odd):
    celsius = rng.normal(20, 8, n)
    fahrenheit = 1.8 * celsius + 32 + odd * rng.choice([-9, 9], n)
    return np.column_stack([celsius, fahrenheit, rng.normal(size=(n, 3))]).round(2)


def _amounts(rng, n, odd):
    """A net amount, a tax and their total, which span orders of magnitude."""
    net, tax = rng.lognormal(4, 1, n), rng.lognormal(2, 1, n)
    total = (net + tax) * np.where(odd, rng.choice([0.6, 1.6], n), 1)
    return np.column_stack([net, tax, total, rng.normal(size=(n, 2))]).round(2)


def _products(rng, n, odd):
    number, price = rng.integers(1, 40, n), rng.lognormal(2, 0.8, n).round(2)
    amount = number * price * np.where(odd, rng.choice([0.6, 1.6], n), 1)
    return np.column_stack([number, price, amount, rng.normal(size=(n, 2))]).round(2)


KEPT_BY_ALL = [_invoice, _shares, _units, _amounts, _products]


@pytest.mark.parametrize("make", KEPT_BY_ALL)
def test_a_relation_that_nearly_all_rows_keep_shows_who_breaks_it(make, tmp_path):
    """No value of these rows is unusual, and each has company."""
    rng = np.random.default_rng(4)
    odd = np.arange(400) % 30 == 0
    X, fresh, clean = (make(rng, 400, broken) for broken in (odd, odd, np.zeros(400, dtype=bool)))
    hidden = SwiftHydra(**SHORT_FIT).fit(X)
    assert roc_auc_score(odd, hidden.decision_function(fresh)) > 0.97
    assert average_precision_score(odd, hidden.decision_function(fresh)) > 0.7
    trusted = SwiftHydra(generator="none", trust_normals=True, **SHORT_FIT)
    trusted.fit(clean, np.zeros(400))
    assert roc_auc_score(odd, trusted.decision_function(fresh)) > 0.95
    for model in (hidden, trusted):
        model.save(tmp_path / "m.pt")
        again = SwiftHydra.load(tmp_path / "m.pt").decision_function(fresh)
        assert np.array_equal(again, model.decision_function(fresh))


def _relations(X):
    scaler = ColumnScaler().fit(X)
    Z = scaler.transform(X)
    return KeptRelations.of(Z, np.ones(X.shape[1], dtype=bool), scaler), Z


@pytest.mark.parametrize("make", KEPT_BY_ALL)
def test_rows_that_keep_a_relation_lie_within_its_spread(make):
    X = make(np.random.default_rng(5), 600, np.zeros(600, dtype=bool))
    kept, Z = _relations(X)
    assert 0 < np.median(kept(Z)) < 2 and np.quantile(kept(Z), 0.99) < 8


@pytest.mark.parametrize("times", [3, 30])
def test_rows_far_out_that_keep_a_relation_do_not_break_it(times):
    X = _invoice(np.random.default_rng(5), 600, np.zeros(600, dtype=bool))
    kept, _ = _relations(X)
    scaler = ColumnScaler().fit(X)
    assert np.median(kept(scaler.transform(X * times))) < 3
    X[:, -1] *= 1.3
    assert np.median(kept(scaler.transform(X * times))) > 20


@pytest.mark.parametrize("labels", [None, "trusted", "known"])
def test_amounts_that_are_rounded_in_another_way_are_named(labels):
    """A fifth of the rows, not most: the parts and their total are often off by nothing."""
    rng = np.random.default_rng(4)
    odd = np.arange(400) % 30 == 0
    X, fresh = (_invoice(rng, 400, odd) for _ in range(2))
    y = {None: None, "trusted": np.zeros(400), "known": odd.astype(int)}[labels]
    model = SwiftHydra(**SHORT_FIT, trust_normals=labels == "trusted").fit(X, y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.predict(fresh)
    with pytest.warns(UserWarning, match="break a relation among column 'x0', 'x1', 'x2', 'x3', "):
        model.predict(np.rint(fresh))


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("impute", ["median", "indicator"])
@pytest.mark.parametrize("make", KEPT_BY_ALL)
def test_a_filled_gap_breaks_no_relation(make, impute, dtype, tmp_path):
    """The median is seldom what stood there; a row that holds the median itself may break one."""
    rng = np.random.default_rng(7)
    X, fresh = (make(rng, 600, np.zeros(600, dtype=bool)) for _ in range(2))
    X[rng.random(X.shape) < 0.03] = np.nan
    middle = np.nanmedian(X, axis=0)
    with_gaps, with_medians = fresh.copy(), fresh.copy()
    column = np.arange(600) % X.shape[1]
    with_gaps[np.arange(600), column] = np.nan
    with_medians[np.arange(600), column] = middle[column]
    rows = TrainingRows.read(X.astype(dtype), None, ColumnSettings(impute=impute))
    largest = LargestValue.of(rows.Z, AboutColumns.of(rows))
    largest = LargestValue.from_snapshot(largest.snapshot())
    columns = rows.columns
    kept, gaps, medians = (
        largest.relations(columns.standardise(columns.prepare(as_table(new.astype(dtype)))))
        for new in (fresh, with_gaps, with_medians)
    )
    assert np.quantile(gaps, 0.99) <= np.quantile(kept, 0.99)
    assert np.quantile(medians, 0.8) > 10 * np.quantile(kept, 0.8)  # not all columns are related


def _with_one_code(rng, share):
    """Amounts in 110 columns, 15 rows each; in a share of the rows one is -1, for 'not known'."""
    X = rng.lognormal(0, 0.5, size=(1650, 110))
    rows = rng.random(len(X)) < share
    X[rows, np.arange(len(X))[rows] % 110] = -1
    return X


def test_columns_that_depend_on_nothing_keep_no_relation():
    rng = np.random.default_rng(6)
    for X in (
        rng.normal(size=(60, 6)),
        rng.standard_t(2, size=(300, 20)),
        rng.lognormal(size=(300, 5)),
        rng.normal(size=(200, 2)) @ rng.normal(size=(2, 4)) + 4 * KEPT * rng.normal(size=(200, 4)),
        rng.normal(size=(30, 4)).cumsum(1)[:, [0, 0, 1, 1]],  # too few rows to tell
        np.full((300, 3), 7.0),
        np.where(rng.random((300, 4)) < 0.05, rng.normal(size=(300, 4)), 0.0),
        _with_one_code(rng, 1.0),
        _with_one_code(rng, 0.95),  # eighty rows without a code seemed to keep a relation
    ):
        assert _relations(X)[0] is None


@pytest.mark.parametrize("make", KEPT_BY_ALL)
def test_whether_a_row_breaks_a_relation_does_not_depend_on_the_rows_beside_it(make):
    odd = np.arange(600) % 30 == 0
    kept, Z = _relations(make(np.random.default_rng(7), 600, odd))
    every = kept(Z)
    for rows in (slice(7, 8), slice(100, 137), slice(0, 600, 3)):
        assert np.array_equal(kept(Z[rows]), every[rows])
