"""The same values mean the same, whichever container brings them and in whichever order."""

import itertools
import warnings

import numpy as np
import pytest
import torch
from helpers import made_table

from swift_hydra.data.columns import Preparation
from swift_hydra.data.files import stream_table
from swift_hydra.data.rows import Columns
from swift_hydra.data.table import as_table
from swift_hydra.dataloader import load_dataset
from swift_hydra.estimator import TableDetector
from swift_hydra.settings import InputError
from swift_hydra.SwiftHydra import SwiftHydra

pandas = pytest.importorskip("pandas")

TINY = {
    "cvae_steps": 8,
    "detector_steps": 8,
    "mixture_steps": 12,
    "n_episodes": 1,
    "n_synthetic": 30,
}
KINDS = ("pandas", "polars", "arrow")


def frame_of(kind, columns):
    """A frame of pairs of a name and its values."""
    if kind == "arrow":
        arrow = pytest.importorskip("pyarrow")
        names, values = zip(*columns, strict=True)
        return arrow.Table.from_arrays([arrow.array(v) for v in values], names=list(names))
    if kind == "polars":
        return pytest.importorskip("polars").DataFrame(dict(columns))
    frame = pandas.concat([pandas.Series(values) for _, values in columns], axis=1)
    frame.columns = [name for name, _ in columns]
    return frame


# ---- which column is which -----------------------------------------------------------------------


class Rows(TableDetector):
    """A detector that has only learned the columns: its scores are the rows themselves."""

    def __init__(self, table, dates=False, **how):
        self.dates = dates
        self.label_name_ = "y"
        self.detector_ = None
        preparation = Preparation(**how).fit(table)
        self.columns_ = Columns(preparation, None, None, None, None)
        self.n_features_in_ = self.columns_.n_features

    def rows(self, X):
        return np.concatenate(list(self._prepared(self._table(X))))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("names", [["x0", "x1", "x2"], ["a", "b", "c"], ["2", "1", "0"]])
def test_names_that_were_given_are_matched_however_they_look(kind, names):
    X = np.arange(12.0).reshape(4, 3)
    given = list(zip(names, X.T.tolist(), strict=True))
    model = Rows(as_table(frame_of(kind, given)))
    assert model.columns_.own_names == names
    for order in itertools.permutations(given):
        for labels in ([], [("y", [0, 1, 0, 1])]):
            np.testing.assert_array_equal(model.rows(frame_of(kind, [*order, *labels])), X)
    np.testing.assert_array_equal(model.rows(X), X)
    for new in ("x3", "other"):
        renamed = [(new, given[0][1]), *given[1:]]
        with pytest.raises(InputError, match=f"{names[0]!r} is missing and column {new!r} is not"):
            model.rows(frame_of(kind, renamed))


def test_names_that_nobody_gave_bind_nothing(tmp_path):
    X, y = np.arange(12.0).reshape(4, 3), np.array([0, 1, 1, 0])
    np.savetxt(tmp_path / "t.csv", np.column_stack([X, y]), delimiter=",", fmt="%g")
    np.savez(tmp_path / "t.npz", X=X, y=y)
    for table in (as_table(X), load_dataset(tmp_path / "t.csv").table):
        model = Rows(table)
        assert model.columns_.own_names is None and model.columns_.names == ["x0", "x1", "x2"]
        for names in ("abc", ["x1", "x2", "x3"]):
            frame = pandas.DataFrame(X, columns=list(names))
            np.testing.assert_array_equal(model.rows(frame), X)
        frame = pandas.DataFrame(X, columns=["x0", "x1", "x2"])
        np.testing.assert_array_equal(model.rows(frame[["x2", "x0", "x1"]]), X)
    assert Rows(load_dataset(tmp_path / "t.npz").table).columns_.own_names is None


def test_what_names_are_is_kept_in_files(tmp_path):
    X, y = made_table(n=60, d=3, n_anomalies=10)
    frame = pandas.DataFrame(X, columns=["x0", "x1", "x2"])
    frame.assign(y=y).to_csv(tmp_path / "t.csv", index=False)
    data = load_dataset(tmp_path / "t.csv")
    assert data.table.named
    for rows, named in ((data.table, True), (X, False)):
        model = SwiftHydra(**TINY).fit(rows, y)
        model.save(tmp_path / "m.pt")
        saved = torch.load(tmp_path / "m.pt", weights_only=True)
        again = SwiftHydra.load(tmp_path / "m.pt")
        score = model.decision_function(X)
        for fitted in (model, again):
            assert hasattr(fitted, "feature_names_in_") == named
            np.testing.assert_array_equal(fitted.decision_function(frame.iloc[:, ::-1]), score)
        other = frame.rename(columns={"x0": "a"})
        if named:
            with pytest.raises(InputError, match="'x0' is missing and column 'a' is not known"):
                again.decision_function(other)
        else:
            np.testing.assert_array_equal(again.decision_function(other), score)
        del saved["columns"]["preparation"]["named"]  # as older files are
        old = SwiftHydra.from_checkpoint(saved, "old.pt")
        np.testing.assert_array_equal(old.decision_function(frame.iloc[:, ::-1]), score)
        np.testing.assert_array_equal(old.decision_function(other), score)


@pytest.mark.parametrize("kind", ["pandas", "arrow"])
def test_two_columns_of_one_name_are_refused(kind):
    X = np.arange(12.0).reshape(4, 3)
    twice = frame_of(kind, list(zip("aab", X.T.tolist(), strict=True)))
    with pytest.raises(InputError, match="column 'a' is there more than once"):
        Rows(as_table(twice))
    model = Rows(as_table(X, columns=list("abc")))
    for names in ("aabc", "abca", "aab"):
        frame = frame_of(kind, [(name, X[:, 0].tolist()) for name in names])
        with pytest.raises(InputError, match="column 'a' is there more than once"):
            model.rows(frame)
    model.columns_.preparation.columns = list("aab")  # as an older fit left it
    np.testing.assert_array_equal(model.rows(twice), X)
    with pytest.raises(InputError, match="column 'a' is there more than once"):
        model.rows(frame_of(kind, list(zip("baa", X.T.tolist(), strict=True))))


@pytest.mark.parametrize(
    ("trained", "header", "taken"),
    [
        ("abc", "abc", [0, 1, 2]),
        ("abc", "cdba", [3, 2, 0]),
        ("abc", "aabc", None),
        ("abc", "abca", None),
        (["a", "a.1", "b"], "aab", [0, 1, 2]),
        (["a", "a.1", "b"], "aabc", [0, 1, 2]),
        (["a", "a.1", "b"], "baa", None),
        (["a", "a.1", "b"], "aaab", None),
        ("abc", "abcdd", [0, 1, 2]),
    ],
)
def test_two_columns_of_one_name_in_a_file_to_score(tmp_path, trained, header, taken):
    X = np.arange(20.0).reshape(4, 5)[:, : len(header)]
    path = tmp_path / "t.csv"
    np.savetxt(path, X, delimiter=",", header=",".join(header), comments="", fmt="%g")
    if taken is None:
        with pytest.raises(InputError, match="column 'a' is there more than once"):
            list(stream_table(path, list(trained), 3))
    else:
        ((table, _),) = stream_table(path, list(trained), 3)
        np.testing.assert_array_equal(table.X, X[:, taken])


@pytest.mark.parametrize(("named", "said"), [(True, True), (False, False), (None, False)])
def test_other_names_in_a_file_to_score_are_said_where_names_were_given(tmp_path, named, said):
    path = tmp_path / "t.csv"
    path.write_text("a,b\n1,2\n3,4\n")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        list(stream_table(path, ["x0", "x1"], 2, named=named))
    assert len(caught) == said
