"""How columns are prepared: gaps that tell something, and tails of texts that hardly a row has.

Training rows are coded as new ones are.
"""

import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
from helpers import SHORT_FIT
from sklearn.metrics import roc_auc_score

from swift_hydra.data import text_columns
from swift_hydra.data.columns import ColumnSettings, Preparation
from swift_hydra.data.learned_columns import Tally
from swift_hydra.data.rows import TrainingRows
from swift_hydra.data.table import as_table
from swift_hydra.data.text_columns import COUNTED
from swift_hydra.geometry import bend
from swift_hydra.settings import InputError
from swift_hydra.SwiftHydra import SwiftHydra, main

pytestmark = pytest.mark.usefixtures("few_candidates")

SHOPS = 1 / np.arange(1, 201) ** 0.9


# --- gaps -----------------------------------------------------------------------------------------


def frame(seed, n=400):
    """Two columns of numbers and one of texts; of anomalies the second is mostly missing."""
    rng = np.random.default_rng(seed)
    y = (np.arange(n) < n // 10).astype(int)
    X = pd.DataFrame({"a": rng.normal(size=n), "b": rng.normal(size=n)})
    X["c"] = rng.choice(["red", "green", "blue"], n)
    X.loc[rng.random(n) < np.where(y == 1, 0.9, 0.05), "b"] = np.nan
    X.loc[rng.random(n) < 0.1, "c"] = None
    order = rng.permutation(n)
    return X.iloc[order].reset_index(drop=True), y[order]


def table(X):
    return as_table(X, True)


@pytest.mark.parametrize("categorical", ["onehot", "ordinal", "frequency"])
def test_a_gap_has_a_column_of_its_own(categorical):
    X, _ = frame(0)
    prepared = Preparation("indicator", categorical)
    rows = prepared.fit_transform(table(X))
    plain = Preparation("median", categorical).fit_transform(table(X))
    own = [name.endswith(" missing") for name in prepared.names]
    assert [prepared.names[j] for j in np.flatnonzero(own)] == ["b missing", "c missing"]
    assert np.array_equal(rows[:, ~np.array(own)], plain)
    assert np.array_equal(rows[:, own], X[["b", "c"]].isna())
    low, high = prepared.span(rows)
    centre = prepared.centre(rows)
    assert (low[own] == 0).all() and (high[own] == 1).all() and (centre[own] == 0).all()
    assert (low <= centre).all() and (centre <= high).all()
    prepared.check(3)
    again = Preparation.from_snapshot(prepared.snapshot())
    assert np.array_equal(again.transform(table(X)), rows)


def test_a_gap_where_training_had_none_is_filled_alone():
    X, _ = frame(0)
    prepared = Preparation("indicator", "onehot").fit(table(X))
    new = X.head(2).copy()
    new["a"] = [np.nan, 1.0]
    rows = prepared.transform(table(new))
    assert rows.shape[1] == len(prepared.names) and "a missing" not in prepared.names
    assert rows[0, 0] == np.median(X["a"])


def test_a_column_whose_texts_are_one_is_named_beside_columns_of_gaps():
    X = pd.DataFrame({"a": [1.0, None] * 8, "b": [None, 2.0] * 8, "c": ["x", "y"] * 8})
    (note,) = Preparation("indicator", "frequency").fit(table(X)).notes()
    assert note.startswith("column 'c' ('x', 'y')")


def test_what_is_missing_tells(tmp_path):
    X, y = frame(1)
    new, truth = frame(2)
    scores = {}
    for impute in ("median", "indicator"):
        model = SwiftHydra(impute=impute, categorical="onehot", **SHORT_FIT).fit(X, y)
        scores[impute] = model.decision_function(new)
    areas = {impute: roc_auc_score(truth, score) for impute, score in scores.items()}
    assert areas["indicator"] > max(areas["median"], 0.92), areas
    model.save(tmp_path / "model.pt")
    loaded = SwiftHydra.load(tmp_path / "model.pt")
    assert np.array_equal(loaded.decision_function(new), scores["indicator"])
    gaps = new[truth == 1].query("b.isna()").head(10)
    assert (model.explain(gaps, k=1)[0] == "b").mean() > 0.6


def test_a_column_that_is_empty_in_all_new_rows_is_named(tmp_path, capsys):
    X, y = frame(0)
    model = SwiftHydra(impute="median", categorical="onehot", **SHORT_FIT).fit(X, y)
    model.save(tmp_path / "m.pt")
    new, _ = frame(1, 40)
    for path, names in (("some.csv", ()), ("none.csv", ("b", "c"))):
        new[list(names)] = np.nan
        new.to_csv(tmp_path / path, index=False)
        command = ["score", "--checkpoint", tmp_path / "m.pt", "--data", tmp_path / path]
        main([*map(str, command), "--out", str(tmp_path / f"scores_{path}")])
        said = capsys.readouterr().err
        assert ("'b', 'c' is empty in all 40 rows" in said) == bool(names), said
    with pytest.warns(UserWarning, match="'b', 'c' is empty in all 40 rows"):
        model.predict(new)
    model.predict(new[:29])  # of a few rows all may well lack it


def test_gaps_lie_on_no_side_of_the_median(recwarn):
    """With known anomalies, what fills a gap is another number than the normal rows' middle."""
    rng = np.random.default_rng(0)
    X = pd.DataFrame(rng.normal(size=(200, 2)), columns=["a", "b"])
    y = (np.arange(200) < 90).astype(int)
    X.loc[y == 1, "a"] += 3.0
    model = SwiftHydra(impute="median", generator="none", **SHORT_FIT).fit(X, y)
    new = pd.DataFrame(rng.normal(size=(60, 2)), columns=["a", "b"])
    new.loc[2:, "a"] = np.nan
    new.loc[:1, "a"] = -1.0, -1.5
    model.predict(new)
    new.loc[:40, "a"] = np.linspace(0.5, 1.5, 41)
    assert "of column" not in " ".join(str(w.message) for w in recwarn)
    with pytest.warns(UserWarning, match=r"of column 'a' \(above"):
        model.predict(new)


def test_nothing_stands_for_a_gap_that_is_refused(recwarn):
    X, y = frame(0)
    model = SwiftHydra(preset="paper", generator="noise", **SHORT_FIT).fit(X[["a"]], y)
    with pytest.raises(InputError, match="40 missing values"):
        model.predict(X[["a"]][:40] * np.nan)
    assert not [str(w.message) for w in recwarn if "is empty in all" in str(w.message)]


@pytest.mark.parametrize(("column", "met"), [("a", False), ("b", True)])
def test_only_a_gap_that_training_has_met_is_something_unusual(tmp_path, capsys, column, met):
    X, y = frame(0, 60)
    fitted = SwiftHydra(impute="indicator", categorical="onehot", **SHORT_FIT).fit(X, y)
    with pytest.warns(UserWarning, match="is empty in all 60 rows") as told:
        fitted.predict(X.assign(**{column: np.nan}))
    assert ("as if nothing were unusual there" in str(told[0].message)) != met
    few = X.head(3).assign(**{column: [np.nan, 0.0, 1.0]})  # said of one gap, too
    fitted.save(tmp_path / "m.pt")
    few.to_csv(tmp_path / "few.csv", index=False)
    command = ["score", "--checkpoint", tmp_path / "m.pt", "--data", tmp_path / "few.csv"]
    main([*map(str, command), "--out", str(tmp_path / "scores.csv"), "--quiet"])
    assert ("'a' has gaps and had none in training" in capsys.readouterr().err) != met
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        fitted.predict(few)
    assert any("'a' has gaps and had none" in str(each.message) for each in told) != met


def test_gaps_at_random_weigh_little():
    """In standard deviations the few rows with a gap would be the farthest of all."""
    rng = np.random.default_rng(0)
    y = (np.arange(800) % 8 == 0).astype(int)
    X = rng.normal(size=(800, 3)) @ rng.normal(size=(3, 12)) + 0.3 * rng.normal(size=(800, 12))
    X[y == 1] += rng.normal(size=(y.sum(), 12))
    X[rng.random(X.shape) < 0.03] = np.nan
    train = (y == 0) & (np.arange(800) % 2 == 1)
    areas = {}
    for impute in ("median", "indicator"):
        model = SwiftHydra(impute=impute, trust_normals=True, **SHORT_FIT)
        model.fit(X[train], np.zeros(train.sum()))
        areas[impute] = roc_auc_score(y[~train], model.decision_function(X[~train]))
    assert areas["indicator"] > areas["median"] - 0.035, areas


# --- rare texts -----------------------------------------------------------------------------------


def draw(n, rng, start):
    """Shops of which a few are frequent; an anomaly is one that nobody else goes to."""
    y = (rng.random(n) < 0.1).astype(int)
    shop = rng.choice(200, n, p=SHOPS / SHOPS.sum())
    X = np.empty((n, 3), dtype=object)
    X[:, 0], X[:, 1] = rng.lognormal(3, 1, n), rng.normal(40, 9, n)
    X[:, 2] = [f"new{start + i}" if y[i] else f"shop{shop[i]}" for i in range(n)]
    return X, y


@pytest.mark.parametrize("categorical", ["onehot", "frequency"])
def test_a_text_that_no_other_row_has_is_the_same_later(categorical):
    """Of new rows .51 and .80, and twice the alarms, where a training row counted itself."""
    areas, flagged = [], []
    for seed in (1, 2):
        rng = np.random.default_rng(seed)
        model = SwiftHydra(categorical=categorical, random_state=seed, **SHORT_FIT)
        model.fit(*draw(300, rng, 0)).set_false_alarms(0.1)
        fresh, y = draw(1500, rng, 10**6)
        areas.append(roc_auc_score(y, model.decision_function(fresh)))
        flagged.append(model.predict(fresh)[y == 0].mean())
    assert np.mean(areas) > 0.85, areas
    assert 0.05 < np.mean(flagged) < 0.14, flagged


def column(texts):
    return as_table(np.array(texts, dtype=object)[:, None], True)


def with_tail(texts):
    return texts + [f"t{i}" for i in range(len(texts) // 10 + 2)]


@pytest.mark.parametrize("others", [0, 1, 5, COUNTED - 1, COUNTED, 40])
def test_a_code_says_how_many_other_rows_hold_the_text(others):
    """A training row among so many others, and a new row among the same."""
    training = with_tail(["a"] * (others + 1) + ["b"] * others + ["c"] * 90)
    preparation = Preparation(categorical="frequency")
    codes = preparation.fit_transform(column(training))[:, 0]
    later = preparation.transform(column(["b"]), new=True)[0, 0]
    assert later == pytest.approx(codes[0 if others < COUNTED else others + 1])


@pytest.mark.parametrize("categorical", ["onehot", "ordinal", "frequency"])
def test_without_a_tail_a_new_rows_code_is_one_of_the_trainings(categorical):
    """Or no new row would be a copy of one, which thresholds of tables of codes rest on."""
    table = column(["a"] * 9 + ["b"] * 5 + ["c"] * 12)
    preparation = Preparation(categorical=categorical)
    codes = preparation.fit_transform(table)
    assert np.array_equal(preparation.transform(table, new=True), codes)


@pytest.mark.parametrize("categorical", ["onehot", "ordinal", "frequency"])
@pytest.mark.parametrize("impute", ["median", "indicator"])
def test_a_filled_gap_is_the_same_in_training_and_later(impute, categorical):
    table = column(with_tail(["a"] * 25 + ["b"] * 3) + [None] * 3)
    preparation = Preparation(impute, categorical)
    codes = preparation.fit_transform(table)
    later = preparation.transform(column(["a", None]), new=True)
    assert np.array_equal(later[1], codes[-1])


@pytest.mark.parametrize("categorical", ["onehot", "frequency"])
def test_older_files_code_new_rows_as_they_did(categorical):
    table = column(with_tail(["a"] * 5 + ["b"] * 3))
    preparation = Preparation(categorical=categorical).fit(table)
    assert preparation.of_text[0].tail is not None
    saved = preparation.snapshot()
    del saved["tails"]
    old = Preparation.from_snapshot(saved)
    assert np.array_equal(old.transform(table, new=True), old.transform(table))


def test_texts_of_one_row_or_two_share_a_column_where_they_are_many():
    texts = ["a"] * 30 + ["b"] * 20 + ["p", "p"] + [f"t{i}" for i in range(10)]
    preparation = Preparation(categorical="onehot")
    X = preparation.fit_transform(column(texts))
    assert preparation.names == ["x0=a", "x0=b", "x0=(two rows)", "x0=(one row)"]
    assert np.array_equal(X.sum(0), [30, 20, 2, 10])
    later = preparation.transform(column(["a", "p", "t3", "unheard of"]), new=True)
    assert np.array_equal(later, [[1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    again = Preparation.from_snapshot(preparation.snapshot())
    assert np.array_equal(again.transform(column(["t3", "new"]), new=True), later[2:])
    assert not preparation.unknown(column(["new"])).any()
    named = Preparation(categorical="onehot").fit(column([*texts, "(one row)"]))
    assert len(set(named.names)) == len(named.names)


def test_ordinal_texts_of_one_row_are_as_new_ones_where_they_are_many():
    texts = ["a"] * 30 + ["b"] * 20 + ["p", "p"] + [f"t{i}" for i in range(10)]
    preparation = Preparation(categorical="ordinal")
    X = preparation.fit_transform(column(texts))[:, 0]
    assert np.array_equal(np.unique(X, return_counts=True), [[-2, -1, 0, 1], [2, 10, 30, 20]])
    new = column(["a", "p", "t3", "unheard of"])
    later = preparation.transform(new, new=True)
    assert np.array_equal(later[:, 0], [0, -2, -2, -1])
    again = Preparation.from_snapshot(preparation.snapshot())
    assert np.array_equal(again.transform(new, new=True), later)
    older = Preparation.from_snapshot({**preparation.snapshot(), "tails": {}})
    assert np.array_equal(older.transform(new, new=True)[:, 0], [0, 2, 6, -1])
    assert not preparation.unknown(new).any()
    low, high = preparation.span(X[X >= -1, None])
    assert low[0] == -2 and high[0] == 1
    few = Preparation(categorical="ordinal").fit(column(["a"] * 30 + ["b"] * 20 + ["c"]))
    assert np.array_equal(few.transform(column(["b", "c", "new"]), new=True)[:, 0], [1, 2, -1])


def test_customers_that_come_once_or_twice_raise_no_alarms():
    """.14 of new rows for .05, and .30 for .1, where a training row's own place was a code."""
    rng = np.random.default_rng(0)
    X = np.empty((2300, 3), dtype=object)
    X[:, 0] = [f"u{user}" for user in rng.integers(0, 700, 2300)]
    X[:, 1:] = rng.normal(size=(2300, 2))
    model = SwiftHydra(categorical="ordinal", trust_normals=True, **SHORT_FIT)
    model.fit(X[:300], np.zeros(300)).set_false_alarms(0.1)
    assert 0.05 < model.predict(X[300:]).mean() < 0.14


def test_a_single_rare_text_keeps_its_column():
    """What it has in common with new texts is a column, too, and that these are new is another."""
    table = column(["a"] * 30 + ["b"] * 20 + ["c"])
    preparation = Preparation(categorical="onehot").fit(table)
    assert preparation.names == ["x0=a", "x0=b", "x0=c", "x0=(one row)", "x0=(new)"]
    new = preparation.transform(column(["a", "c", "unheard of"]), new=True)
    assert new.tolist() == [[1, 0, 0, 0, 0], [0, 0, 1, 1, 0], [0, 0, 0, 1, 1]]
    assert preparation.unknown(column(["new"])).all()
    again = Preparation.from_snapshot(preparation.snapshot())
    assert np.array_equal(again.transform(column(["a", "c", "unheard of"]), new=True), new)
    saved = preparation.snapshot()
    del saved["single"]
    older = Preparation.from_snapshot(saved)
    assert older.transform(column(["c", "new"]), new=True).tolist() == [[0, 0, 1], [0, 0, 0]]


def test_without_single_texts_only_new_ones_have_a_further_column():
    preparation = Preparation(categorical="onehot").fit(column(["a"] * 30 + ["(new)"] * 20))
    assert preparation.names == ["x0=(new)", "x0=a", "x0=((new))"]
    assert preparation.transform(column(["b", "a"]), new=True).tolist() == [[0, 0, 1], [0, 1, 0]]


def test_a_text_of_one_subject_is_a_single_one():
    """A subject that is left out takes its text along, as a new one brings another."""
    table, subjects = column(["a"] * 30 + ["b"] * 20 + ["c"] * 5), np.arange(55) // 5
    for of, names in ((subjects, ["x0=(one row)", "x0=(new)"]), (None, ["x0=(new)"])):
        preparation = Preparation(categorical="onehot").fit(table, of)
        assert preparation.names == ["x0=a", "x0=b", "x0=c", *names]


def test_a_column_of_many_texts_weighs_as_one_column():
    """In standard deviations eighty texts would be eighty columns, and nothing else be heard."""
    rng = np.random.default_rng(0)
    n = 600
    X = rng.normal(size=(n, 4))
    y = (np.arange(n) % 10 == 0).astype(int)
    X[y == 1] += rng.choice([-2.2, 2.2], size=(y.sum(), 4))
    texts = [f"t{i}" for i in rng.integers(80, size=n)]
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X).add_prefix("x").assign(text=texts, gap=np.where(y, np.nan, X[:, 0]))
    options = {"categorical": "onehot", "impute": "indicator"}
    rows = TrainingRows.read(frame, np.zeros(n), ColumnSettings(**options))
    names = rows.columns.preparation.names
    flags = np.char.startswith(np.array(names), "text=")
    flags[names.index("gap missing")] = True
    assert rows.columns.preparation.flags().tolist() == flags.tolist()
    flags[names.index("text=(new)")] = False
    assert np.allclose(np.ptp(rows.Z[:, flags], axis=0), bend(1.0))
    train = (y == 0) & (np.arange(n) % 2 == 1)

    def auc(table):
        settings = {"trust_normals": True, "categorical": "onehot"} | SHORT_FIT
        model = SwiftHydra(**settings).fit(table[train], np.zeros(train.sum()))
        return roc_auc_score(y[~train], model.decision_function(table[~train]))

    assert auc(frame.drop(columns="gap")) > auc(frame[["x0", "x1", "x2", "x3"]]) - 0.05


@pytest.mark.parametrize("categorical", ["onehot", "ordinal", "frequency"])
def test_the_texts_of_training_are_not_gone_through_for_each_row(monkeypatch, categorical):
    """A row alone cost as much as the training had texts: 50 ms for 20,000."""
    train = column([f"shop {i}" for i in range(200)])
    prepared = Preparation(categorical=categorical).fit(train)
    read = []
    monkeypatch.setattr(text_columns, "same_value", lambda text: read.append(text) or text)
    rows = [column([text]) for text in ("shop 7", "new", "shop 8", "shop 7")]
    some = [prepared.transform(row, new=True) for row in rows]
    assert len(read) < 10
    again = pickle.loads(pickle.dumps(prepared))
    assert "found" not in vars(again.of_text[0])
    assert np.array_equal(some, [again.transform(row, new=True) for row in rows])
    other = column(["shop 8", "new"] * 20)  # learned anew, they are looked up anew
    new = prepared.fit(other).transform(other)
    assert np.array_equal(new, Preparation(categorical=categorical).fit(other).transform(other))


@pytest.mark.parametrize("n", [40, 120, 800])
def test_few_training_rows_have_a_range_of_their_own(n):
    """Beyond the extremes of 40 values lies a twentieth of the next ones: that is no drift."""
    rng = np.random.default_rng(n)
    said = []
    for moved in (0.0, 0.0, 0.0, 0.0, 2.5):
        X, new = rng.normal(size=(n, 12)), rng.normal(size=(500, 12))
        new[:, 3] += moved
        tally = Tally(TrainingRows.read(X, None, ColumnSettings()).columns)
        tally.add(as_table(new), new, 0)
        said.append([*tally.drift(n)])
    assert not any(said[:4])
    assert len(said[4]) == 1 and "column 'x3'" in said[4][0]


def test_a_gap_is_no_further_row_with_the_text_that_fills_it():
    """Of a column with a tail of rare texts, a new row counts as one more row with its text."""
    texts = ["a"] * 5 + [f"t{i}" for i in range(35)]
    frame = pd.DataFrame({"text": texts, "x": np.arange(40.0)})
    preparation = Preparation("median", "frequency")
    preparation.fit_transform(as_table(frame, True))
    new = pd.DataFrame({"text": ["a", None], "x": [0.0, 0.0]})
    held, filled = preparation.transform(as_table(new, True), new=True)[:, 0]
    assert (held, filled) == (np.log(6), np.log(5))


@pytest.mark.parametrize(("n_outside", "named"), [(4, False), (9, True)])
def test_few_rows_beyond_the_range_of_few_training_rows_are_no_drift(n_outside, named):
    """Ten of 300 new rows are expected beyond fifty rows' extremes; as many more may be chance."""
    rows = TrainingRows.read(np.random.default_rng(0).normal(size=(50, 1)), None, ColumnSettings())
    tally = Tally(rows.columns)
    tally.n_rows, tally.outside = 10, np.array([n_outside])
    assert bool(list(tally.drift(50))) == named
