"""Gaps that tell something: ``impute="indicator"`` keeps what a median hides."""

import warnings

import numpy as np
import pandas as pd
import pytest
from helpers import SHORT_FIT
from sklearn.metrics import roc_auc_score

from swift_hydra.data.columns import Preparation
from swift_hydra.data.table import as_table
from swift_hydra.settings import InputError
from swift_hydra.SwiftHydra import SwiftHydra, main


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
