"""The same values mean the same, whichever container brings them and in whichever order."""

import datetime
import decimal
import enum
import fractions
import itertools
import sqlite3
import warnings

import numpy as np
import pytest
import torch
from helpers import SHORT_FIT, made_table, written

from swift_hydra.data.columns import ColumnSettings, Preparation
from swift_hydra.data.files import How, stream_table
from swift_hydra.data.frames import as_text, name_of_labels, same_value
from swift_hydra.data.labels import read_labels
from swift_hydra.data.learned_columns import Columns
from swift_hydra.data.rows import TrainingRows
from swift_hydra.data.suspicious import notes
from swift_hydra.data.table import as_table
from swift_hydra.dataloader import load_dataset
from swift_hydra.estimator import TableDetector
from swift_hydra.settings import InputError
from swift_hydra.SwiftHydra import SwiftHydra

pytestmark = pytest.mark.usefixtures("few_candidates")

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
        self.settings_ = {"dates": dates}
        self.label_name_ = "y"
        self.detector_ = None
        preparation = Preparation(**how).fit(table)
        flags = np.tile([[0.0], [1.0]], len(preparation.names))  # what is learned of no column
        self.columns_ = Columns(preparation, None, None, *flags)
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


@pytest.mark.parametrize("name", [b"amount", "member"])
def test_names_of_other_types_are_the_texts_that_they_stand_for(name):
    column = enum.Enum("Column", {"AMOUNT": "amount", "LABEL": "y"}, type=str)
    name = column.AMOUNT if name == "member" else name
    X = np.arange(8.0).reshape(4, 2)
    model = Rows(as_table(pandas.DataFrame({name: X[:, 0], "b": X[:, 1]})))
    assert model.columns_.own_names == ["amount", "b"]
    for other in ("amount", name):
        frame = pandas.DataFrame({"b": X[:, 1], other: X[:, 0], column.LABEL: 0})
        np.testing.assert_array_equal(model.rows(frame), X)
    for label in (column.LABEL, b"y"):
        assert name_of_labels(pandas.Series(X[:, 0], name=label), ["amount", "b"]) == "y"


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
        numbered = pandas.DataFrame(X)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            np.testing.assert_array_equal(model.rows(numbered), X)
        with pytest.warns(UserWarning, match="numbered in another order") as caught:
            np.testing.assert_array_equal(model.rows(numbered[[2, 0, 1]]), X)
        assert len(caught) == 1
    assert Rows(load_dataset(tmp_path / "t.npz").table).columns_.own_names is None


def test_labels_in_another_order_than_their_rows_are_said():
    X, y = made_table(n=60, d=3, n_anomalies=10)
    frame, labels = pandas.DataFrame(X, index=range(5, 65)), pandas.Series(y, index=range(5, 65))
    turned = labels[::-1]
    for other in (turned, turned.to_frame("y")):
        with pytest.warns(UserWarning, match=r"y's index is in another order .* give y.loc"):
            TrainingRows.read(frame, other, ColumnSettings())
    groups = pandas.Series(np.repeat(np.arange(20), 3), index=frame.index)
    with pytest.warns(UserWarning, match=r"groups' index is in another order .* give groups.loc"):
        TrainingRows.read(frame, y, ColumnSettings(), groups[::-1])
    shifted, twice = turned.set_axis(range(60)), turned.set_axis([5, 5, *range(7, 65)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for other in (labels, labels.to_frame("y"), turned.to_numpy(), list(y), shifted, twice):
            TrainingRows.read(frame, other, ColumnSettings())
        TrainingRows.read(frame, y, ColumnSettings(), groups)
        TrainingRows.read(frame.to_numpy(), turned, ColumnSettings())
        TrainingRows.read(frame, turned.loc[frame.index], ColumnSettings())


@pytest.mark.parametrize("kind", ["dates", "names"])
def test_labels_of_other_rows_are_said(kind):
    """Such as those that were moved in time: features of the past lack their first rows."""
    X, y = made_table(n=65, d=3, n_anomalies=10)
    index = pandas.date_range("2026-01-01", periods=65)
    index = index if kind == "dates" else index.strftime("r%d%m")
    frame, labels = pandas.DataFrame(X, index=index), pandas.Series(y, index=index)
    groups = pandas.Series(np.arange(65) // 3, index=index)
    for name, given in (("y", (labels[:-5], None)), ("groups", (y[5:], groups[:-5]))):
        told = rf"{name}'s? index lacks 5 rows of X's, first '.*: rows are matched by position"
        with pytest.warns(UserWarning, match=told):
            TrainingRows.read(frame[5:], given[0], ColumnSettings(), given[1])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for other in (labels[5:], labels[:-5].to_numpy(), labels[:-5].reset_index(drop=True)):
            TrainingRows.read(frame[5:], other, ColumnSettings())
        TrainingRows.read(frame[:30], labels[30:60], ColumnSettings())  # wholly others


def test_an_index_that_names_rows_alike_may_be_in_another_order():
    X, y = made_table(n=60, d=3, n_anomalies=10)
    twice = np.arange(60) // 2
    frame, labels = pandas.DataFrame(X, index=twice), pandas.Series(y, index=twice)
    told = "in another order than X's, and names several rows alike"
    with pytest.warns(UserWarning, match=told):
        TrainingRows.read(frame, labels[::-1], ColumnSettings())
    names = np.array([None, "b", "a", None] * 15, dtype=object)
    with pytest.warns(UserWarning, match=told):
        TrainingRows.read(frame.set_axis(names), labels.set_axis(names[::-1]), ColumnSettings())
    levels = pandas.MultiIndex.from_arrays([twice, twice % 3])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for other in (labels, labels[::-1].to_numpy(), labels.set_axis(twice + 1)):
            TrainingRows.read(frame, other, ColumnSettings())
            TrainingRows.read(frame.set_axis(levels), other, ColumnSettings())


def test_columns_of_groups_and_of_complex_numbers():
    X, y = made_table(n=60, d=3, n_anomalies=10)
    groups = np.arange(60) // 3
    for other in (groups[:, None], pandas.DataFrame({"g": groups})):
        with pytest.raises(InputError, match=r"\(60, 1\) for 60 rows: .* \(of one dim"):
            TrainingRows.read(X, y, ColumnSettings(), other)
    frame = pandas.DataFrame(X, columns=list("abc"))
    with pytest.raises(InputError, match=r"Complex data not supported: .* \(not real: 'b'\)"):
        TrainingRows.read(frame.assign(b=1j), y, ColumnSettings())


def test_a_date_where_training_had_numbers_is_quoted_as_a_date():
    frame = pandas.DataFrame({"a": np.arange(60.0), "b": np.arange(60.0) % 7})
    model = SwiftHydra(dates=True, generator="none", **SHORT_FIT).fit(frame)
    days = frame.assign(a=pandas.date_range("2020-01-01", periods=60))
    with pytest.raises(InputError, match="'a' holds dates, first '2020-01-01', in training"):
        model.decision_function(days)


@pytest.mark.parametrize("narrow", [np.float32, np.float16])
def test_a_gap_leaves_other_rows_of_a_narrow_type_as_they_are(narrow):
    rng = np.random.default_rng(0)
    constant = 123456789.3 if narrow == np.float32 else 2048.3
    X = rng.normal(size=(100, 4))
    X[:, 3] = constant
    X[:, 2] *= 1e6  # whose median float16 holds
    model = SwiftHydra(impute="median", generator="none", **SHORT_FIT).fit(X)
    new = np.where(np.arange(4) == 3, constant, rng.normal(size=(20, 4))).astype(narrow)
    before = model.decision_function(new)
    new[19, 0] = np.nan
    assert np.array_equal(model.decision_function(new)[:19], before[:19])
    assert np.array_equal(model.decision_function(new[:1]), before[:1])


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
        list(stream_table(path, ["x0", "x1"], 2, how=How(named=named)))
    assert len(caught) == said


@pytest.mark.parametrize("kind", ["csv", "parquet"])
@pytest.mark.parametrize(
    ("header", "taken"),
    [
        *(("A,B", [1, 2]), ("B,A", [2, 1]), ("B,C,A", [3, 1]), ("B,a", [2, 1]), ("c,A,b", [2, 3])),
        *(("C,D", None), ("B,D", None), ("B,b", "'a' .* is missing"), ("a,A", "'b' .* is missing")),
        ("a,b,A", [1, 2]),
        ("B,A,b", "'a' .* is missing: add it; 'A' is there: write it 'a'$"),
        ("B,a,b", [2, 3]),
        ("a,D,B,b", [1, 4]),
    ],
)
def test_names_in_other_cases_are_taken_by_name_or_told(tmp_path, kind, header, taken):
    names = ["a", "b"]
    frame = pandas.DataFrame([[*range(1, header.count(",") + 2)]], columns=header.split(","))
    path = written(frame, tmp_path, kind)
    stream = stream_table(path, names, len(names), how=How(named=True))
    if isinstance(taken, str):
        with pytest.raises(InputError, match=taken):
            list(stream)
        return
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        ((table, _),) = stream
    said = " ".join(str(warning.message) for warning in caught)
    assert table.X.tolist() == [taken or [1, 2]]
    assert ("in another case than in training" in said) == (
        taken is not None and not set(names) <= set(header.split(","))
    )
    assert ("none of its columns has a name" in said) == (taken is None)


@pytest.mark.parametrize("names", [[" a", "b "], ["a", "b"]])
@pytest.mark.parametrize("there", [["a", "b"], [" b", "a"], ["c ", "b", " a"], ["A ", " B"]])
def test_spaces_around_a_name_are_no_part_of_it_whatever_reads_it(tmp_path, names, there):
    X = np.random.default_rng(0).integers(2, 100, (50, len(there)))  # where is which
    frame = pandas.DataFrame(X, columns=there)
    own = [next(j for j, t in enumerate(there) if t.strip().lower() == n.strip()) for n in names]
    for kind in ("csv", "parquet"):
        stream = stream_table(written(frame, tmp_path, kind), names, 2, how=How(named=True))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            ((table, _),) = stream
        assert table.X.tolist() == X[:, own].tolist()
        assert len(caught) == (there == ["A ", " B"])
    fitted = Rows(as_table(X[:, own], columns=names))
    if "A " not in there and "c " not in there:
        for kind in KINDS[::2]:
            rows = frame_of(kind, list(zip(there, X.T, strict=True)))
            assert fitted.rows(rows).tolist() == X[:, own].tolist()


def test_names_that_differ_in_spaces_alone_stay_two():
    fitted = Rows(as_table(np.zeros((1, 2)), columns=["a", "a "]))
    assert fitted.rows(pandas.DataFrame([[1, 2]], columns=["a ", "a"])).tolist() == [[2, 1]]
    fitted = Rows(as_table(np.zeros((1, 2)), columns=["a", "b"]))
    for header in (["a", "a "], ["a", "b", "b "], [" a", "a ", "b"]):
        with pytest.raises(InputError, match=r"is not known|is missing"):
            fitted.rows(pandas.DataFrame([range(len(header))], columns=header))


# ---- which value is which ------------------------------------------------------------------------

SAME = {
    "True": [True, np.True_, "True", " True", "true"],
    "False": [False, np.False_, "False", "FALSE"],
    "7": [7, 7.0, np.int64(7), np.float32(7), np.uint8(7), decimal.Decimal("7.00"), "7", "7.0"],
    "1234567": [1234567, 1234567.0, np.float32(1234567), decimal.Decimal(1234567), "1234567"],
    "9007199254740993": [2**53 + 1, "9007199254740993", np.int64(2**53 + 1)],
    "0.1": [0.1, np.float32(0.1), np.float64(0.1), decimal.Decimal("0.10"), "0.1", "1e-1"],
    "-1.5": [-1.5, np.float16(-1.5), "-1.50"],
    "1e+300": [1e300, "1e300"],
}
OTHERS = [True, False, "", 1, 0, 8, "007", "70", 1234568, 2**53, "A1", 1.2345e6]


@pytest.mark.parametrize("text", SAME)
def test_one_value_is_one_text_whatever_holds_it(text):
    """The kind: all ways to hold a value, on either side of training."""
    for told, held in itertools.product(SAME[text], SAME[text]):
        train = as_table(np.array([[told], ["A"], ["B"]], dtype=object), True)
        preparation = Preparation("median", "ordinal").fit(train)
        assert preparation.texts[0] == sorted(preparation.texts[0])
        for X in (np.array([[held], ["A"]], object), np.array([[held]], object), [[held]]):
            found = preparation.transform(as_table(X, preparation.texts))[0, 0]
            assert preparation.texts[0][int(found)] not in "AB" and found >= 0, (told, held)
    for other in OTHERS:
        if as_text(other) not in map(as_text, SAME[text]):
            table = as_table(np.array([[other], ["A"]], object), preparation.texts)
            gap = other == ""
            assert preparation.unknown(table)[0, 0] == (not gap), other


@pytest.mark.filterwarnings("ignore:t.csv. column")
@pytest.mark.parametrize("kind", [*KINDS, "parquet"])
@pytest.mark.parametrize(
    ("cells", "new"),
    [
        (["True", "False", "?1"], [True, False, None]),
        (["True", "False", "?1"], [True, False, True]),
        (["1234567", "7", "A1"], [1234567, 7, None]),
        (["1234567", "7", "A1"], [7, 1234567, 7]),
        (["1234567.0", "7.0", "A1"], [7, 1234567, 7]),
        (["0.5", "7", "A1"], [0.5, 7.0, None]),
    ],
)
def test_texts_of_a_file_are_found_in_frames_that_hold_bools_and_numbers(
    tmp_path, kind, cells, new
):
    path = tmp_path / "t.csv"
    path.write_text("code,a,y\n" + "".join(f"{c},{i},{i % 2}\n" for i, c in enumerate(cells * 4)))
    model = Rows(load_dataset(path, categorical="ordinal").table, categorical="ordinal")
    model.columns_.preparation.impute = "median"
    frame = frame_of("arrow" if kind == "parquet" else kind, [("code", new), ("a", [1, 2, 3])])
    if kind == "parquet":
        parquet = pytest.importorskip("pyarrow.parquet")
        parquet.write_table(frame, tmp_path / "t.parquet")
        texts = model.columns_.texts
        ((table, _),) = stream_table(tmp_path / "t.parquet", ["code", "a"], 2, texts)
    else:
        table = model._table(frame)
    found = model.columns_.preparation._encoded(table)[:, 0]
    assert (found >= 0).tolist() == [value is not None for value in new]
    assert np.isnan(found).tolist() == [value is None for value in new]
    for value, code in zip(new, found, strict=True):
        if value is not None:
            assert same_value(model.columns_.texts[0][int(code)]) == as_text(value)


WRITTEN = [  # what one column of training holds, and its categories
    (["7", "7.0", "7.00", "A"], ["7", "A"]),
    (["0", "-0", "1e1", "10", "A"], ["-0", "10", "A"]),
    (["true", "True", "TRUE", "maybe"], ["TRUE", "maybe"]),
    (["1.1", "1.10", "A"], ["1.1", "1.10", "A"]),  # versions
    (["007", "7", "07", "A"], ["007", "07", "7", "A"]),  # codes
    (["1E2", "10E1", "100", "0E5", "A3F"], ["0E5", "100", "10E1", "1E2", "A3F"]),  # the same
    (["A", "a", "1234567890123456", "1234567890123457"],) * 2,
]


@pytest.mark.filterwarnings("ignore:t.csv. column")
@pytest.mark.parametrize(("cells", "texts"), WRITTEN)
@pytest.mark.parametrize("how", ["onehot", "ordinal", "frequency"])
@pytest.mark.parametrize("kind", ["csv", "frame"])
def test_one_value_that_training_wrote_in_several_ways_is_one_text(
    tmp_path, cells, texts, how, kind
):
    column = [cell for k, cell in enumerate(cells, 2) for _ in range(k)]
    frame = pandas.DataFrame({"c": column, "a": range(len(column))})
    table = as_table(frame, True)
    if kind == "csv":
        frame.assign(y=[i % 4 == 0 for i in frame["a"]]).to_csv(tmp_path / "t.csv", index=False)
        table = load_dataset(tmp_path / "t.csv", categorical=how).table
    fitted = Preparation(categorical=how).fit(table)
    preparation = Preparation.from_snapshot(fitted.snapshot())
    assert preparation.texts[0] == sorted(texts)
    rows = preparation.transform(table)[:, :-1]
    assert (rows[:, 0] >= 0).all()
    merged = len(texts) < len(cells)
    assert len(np.unique(rows, axis=0)) == len(texts)
    if how == "frequency" and merged:  # what is one is counted together
        one = [same_value(cell) == same_value(cells[0]) for cell in column]
        assert np.allclose(rows[one], np.log(sum(one)))


def test_what_older_checkpoints_hold_of_long_numbers_is_found():
    train = as_table(np.array([["1.23457e+06"], ["A1"]], dtype=object), True)
    preparation = Preparation(categorical="ordinal").fit(train)
    new = as_table(np.array([[1234567]], dtype=object), preparation.texts)
    assert preparation.transform(new)[0, 0] == -1
    older = Preparation.from_snapshot(preparation.snapshot() | {"named": None})
    assert older.transform(new)[0, 0] == 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_column_without_any_value_holds_gaps(kind):
    model = Rows(as_table(np.arange(6.0).reshape(3, 2), columns=["a", "b"]), impute="median")
    new = frame_of(kind, [("a", [None, None]), ("b", [1.0, None])])
    np.testing.assert_array_equal(model.rows(new), [[2, 1], [2, 3]])
    np.testing.assert_array_equal(model.rows(new[:1]), [[2, 1]])
    with pytest.raises(InputError, match="column 'a' has no value in the training rows"):
        Preparation("median").fit(as_table(new))
    with pytest.raises(InputError, match="the labels are empty in 2 rows"):
        read_labels(as_table(new).X[:, 0])


@pytest.mark.parametrize(
    "values", [pandas.to_datetime([None] * 3), pandas.to_timedelta([None] * 3)]
)
def test_nothing_of_any_type_is_a_gap(values):
    assert np.isnan(as_table(pandas.DataFrame({"a": values})).X).all()


@pytest.mark.filterwarnings("error")
def test_sparse_bools_beside_numbers_are_taken_without_a_word_of_pandas():
    dummies = pandas.get_dummies(pandas.Series(list("aba")), sparse=True)
    frame = pandas.DataFrame({"x": [0.5, 1.5, 2.5]}).join(dummies)
    assert as_table(frame).X.tolist() == [[0.5, 1, 0], [1.5, 0, 1], [2.5, 1, 0]]


def test_parquet_without_any_value(tmp_path):
    arrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    empty = arrow.array([None] * 20)
    for name, message in (("a", "column 'a' has no value"), ("y", "labels are empty in 20 rows")):
        columns = {"a": [*range(20)], "b": [*range(20)], "y": [0, 1] * 10, name: empty}
        parquet.write_table(arrow.table(columns), tmp_path / "t.parquet")
        with pytest.raises(InputError, match=message):
            load_dataset(tmp_path / "t.parquet", impute="median")


@pytest.mark.parametrize("also_text", [False, True])
@pytest.mark.parametrize("values", [[[1], [2]], [datetime.time(7), datetime.time(8)]])
def test_values_of_no_use_in_parquet_have_their_own_remedy_alone(tmp_path, values, also_text):
    """No --categorical makes texts of them."""
    columns = {"b": ["x", "z"] * 10} if also_text else {}
    frame = pandas.DataFrame(columns | {"a": values * 10, "y": [0, 1] * 10})
    with pytest.raises(InputError) as error:
        load_dataset(written(frame, tmp_path, "parquet"))
    told, _, texts = str(error.value).partition("; column 'b'")
    assert told.endswith("turn them into numbers or texts, or leave it out (--drop-columns)")
    assert ("give --categorical" in texts) == also_text


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("word", ["NA", "None", "nan", "NULL", "n/a", "?"])
def test_words_for_gaps_are_texts_in_frames_columns_of_texts(kind, word):
    cells = [word, "DE", None, "FR", "DE"] * 3
    frame = frame_of(kind, [("land", cells), ("a", [float(i) for i in range(15)])])
    table = as_table(frame, True)
    assert table.texts[0] == [word, "DE", "FR"]
    assert np.isnan(table.X[:, 0]).tolist() == [cell is None for cell in cells]
    (note,) = notes(table)[:1]
    assert note.startswith(f"column 'land' ({word!r} in 3 rows): taken as a text")
    assert not any("'land'" in note for note in notes(table, asked=True))
    how = {"impute": "median", "categorical": "ordinal"}
    model = Rows(table, **how)
    assert model.rows(frame)[0, 0] != model.rows(frame)[2, 0]
    # Where training never took it as a text, it is a gap, as it is in files.
    without = frame_of(kind, [("land", ["DE", "DE", "FR"]), ("a", [1.0, 2.0, 3.0])])
    np.testing.assert_array_equal(Rows(as_table(without, True), **how).rows(frame)[:3, 0], [0] * 3)
    numbers = frame_of(kind, [("a", ["1.5", word, "2"])])
    np.testing.assert_array_equal(as_table(numbers, True).X[:, 0], [1.5, np.nan, 2])


def test_a_file_to_score_keeps_the_words_that_training_took_as_texts(tmp_path):
    (tmp_path / "t.csv").write_text("land\nNA\nDE\n\nnull\n")
    ((table, _),) = stream_table(tmp_path / "t.csv", ["land"], 1, {0: ["DE", "NA"]})
    assert table.texts[0] == ["NA", "DE"]


@pytest.mark.parametrize("dictionary", [False, True])
def test_commas_in_parquet_are_what_they_are_in_a_file_of_text(tmp_path, dictionary):
    arrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    path = tmp_path / "t.parquet"
    for cells, wanted in ((["1,5", "0,25", None], 1.5), (["1,234.5", "7", ""], 1234.5)):
        column = arrow.array(cells * 4)
        column = column.dictionary_encode() if dictionary else column
        table = {"a": column, "l": [[f"{i}"] for i in range(12)], "y": [0, 1, 0] * 4}
        parquet.write_table(arrow.table(table), path)
        data = load_dataset(path, impute="median", drop_columns="l")
        assert data.X[0, 0] == wanted
        ((new, _),) = stream_table(path, ["a"], 1, how=How(training=data.table.reading))
        np.testing.assert_array_equal(new.X[:, 0], data.table.X[:, 0])
    doubtful = {"a": ["1,234", "2,345", "7"] * 4, "y": [0, 1, 0] * 4}
    parquet.write_table(arrow.table(doubtful), path)
    with pytest.raises(InputError, match=r"'1,234': is the comma a decimal comma\? Give"):
        load_dataset(path)


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["315", "3E5", "207"], "3E5"),
        (["3E5", "", "207"], "3E5"),
        (["3.5", "3E5", "207"], "3E5"),
        (["3E5", "4e2", "1E5"], None),  # powers of ten alone
        (["3E5", "20", "1.5"], None),
    ],
)
def test_a_short_code_among_codes_of_its_length_may_be_no_power_of_ten(words, code):
    frame = pandas.DataFrame({"code": words * 9, "x": np.arange(27.0)})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        as_table(frame)
    told = [str(w.message) for w in caught if "is taken as a number" in str(w.message)]
    assert len(told) == (code is not None) and (not told or f"'code': {code!r} is" in told[0])


@pytest.mark.parametrize("kind", [*KINDS, "parquet"])
@pytest.mark.parametrize("code, said", [("007", True), ("12E4", True), ("7", False), (7, False)])
def test_texts_that_look_like_codes_and_are_numbers_are_said(tmp_path, kind, code, said):
    cells = [code, *(type(code)(i) for i in range(20, 30))]
    columns = [("zip", cells), ("text", ["01a", *"abcdefghij"]), ("y", [0, 1, 0, 1, *[0] * 7])]
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        if kind == "parquet":
            settings = ColumnSettings(categorical="frequency")
            path = written(pandas.DataFrame(dict(columns)), tmp_path, kind)
            table = load_dataset(str(path), settings=settings).table
        else:
            table = as_table(frame_of(kind, columns[:2]), True)
            model = Rows(table, categorical="frequency")
            model.rows(frame_of(kind, columns[:2]))  # of rows to score nothing more is said
    codes = [str(w.message) for w in told if "if it is a code" in str(w.message)]
    assert len(codes) == said and all(f"column 'zip': {code!r}" in note for note in codes), codes
    assert list(table.texts) == [1]


@pytest.mark.parametrize("kind", KINDS)
def test_a_comma_that_can_be_either_is_asked_about_in_frames_too(kind):
    with pytest.raises(InputError, match="column 'a' holds '1,234': is the comma a decimal"):
        as_table(frame_of(kind, [("a", ["1,234", "12"])]), True)
    for other in ("1,234.5", "0.5"):
        assert as_table(frame_of(kind, [("a", ["1,234", other])])).X[0, 0] == 1234


ODD = {
    "too large": ([10**400, 1], "column 'a' holds a number beyond float64"),
    "too large beside texts": ([10**5000, "x"], "column 'a' holds a number beyond float64"),
    "fraction": ([fractions.Fraction(10**400), 1], "column 'a' holds a number beyond float64"),
    "array": ([np.ones(2), 1], "column 'a' holds ndarray values"),
    "array beside texts": ([np.ones(2), "x"], "column 'a' holds ndarray values"),
    "set": ([{1}, None], "column 'a' holds set values"),
    "time": ([datetime.time(1), None], "column 'a' holds time values"),
    "year 1": (
        [datetime.datetime(1, 1, 1, tzinfo=datetime.timezone(datetime.timedelta(hours=3)))],
        "column 'a' holds dates that cannot be converted",
    ),
    "date beside number": ([datetime.date(2026, 1, 1), 1], "column 'a' holds date values"),
}


@pytest.mark.parametrize("case", ODD)
def test_odd_cells_are_refused_by_name(case):
    values, message = ODD[case]
    column = np.empty(len(values), dtype=object)
    column[:] = values
    for texts in ((), True):
        with pytest.raises(InputError, match=message):
            as_table(column[:, None], texts, columns=["a"], dates=True)


def test_numbers_that_are_none_are_gaps():
    table = as_table(np.array([[decimal.Decimal("sNaN")], [decimal.Decimal("NaN")], [1]], object))
    np.testing.assert_array_equal(table.X[:, 0], [np.nan, np.nan, 1])
    with pytest.raises(InputError, match="give rows of one length"):
        as_table([[1, 2], [3]])


@pytest.mark.parametrize("kind", [*KINDS, "object", "text"])
def test_dates_of_any_zone_are_days_in_utc(kind):
    zone = datetime.timezone(datetime.timedelta(hours=1))
    moment = datetime.datetime(2026, 1, 1, 1, tzinfo=zone)
    X = pandas.DataFrame({"a": pandas.Series([moment, None], dtype=object)})
    if kind == "text":
        X = np.array([["2026-01-01T01:00:00+01:00"], [""]])
    elif kind != "object":
        X = frame_of(kind, [("a", [moment, None])])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(as_table(X, dates=True).X, [[20454], [np.nan]])


def test_arrow_dates_beyond_pythons():
    arrow = pytest.importorskip("pyarrow")
    far = arrow.array([2**40, None], arrow.timestamp("s"))
    assert as_table(arrow.table({"a": far}), dates=True).X[0, 0] == 2**40 / 86_400
    with pytest.raises(InputError, match="column 'a' holds dates, first 36812-02-20"):
        as_table(arrow.table({"a": far}))


# ---- what is said --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        (["1", "2", "n.a.", "4"], "column 'a' ('n.a.' in row 2 (counted from 0)): most cells"),
        (["1,5", "-", "4"], "column 'a' ('-' in row 1 (counted from 0)): most cells are numbers"),
        (["0 %", "1 %", "10 %"], "column 'a' ('0 %'): numbers with a unit"),
        (["5kg", "7kg", "12kg"], "column 'a' ('5kg'): numbers with a unit"),
        (["$5", "$7", "$12"], "column 'a' ('$5'): numbers with a unit"),
        (["(5)", "(7)", "(12)"], "column 'a' ('(5)'): numbers with a unit or a sign"),
        (["5-", "7-", "12-"], "column 'a' ('5-'): numbers with a unit or a sign"),
        (
            ["\u22125", "\u22127", "\u221212"],
            "column 'a' ('\u22125'): numbers with a unit or a sign",
        ),
        (["0,5", "1,5", "12"], "column 'a' ('0,5' in row 0 (counted from 0)): numbers whose"),
        (["2.5", "1,5", "2.5"], "column 'a' ('1,5' in row 1 (counted from 0)): numbers whose"),
        (["2026-01-31", "x", "2026-02-01"], "column 'a' ('2026-01-31' in row 0"),
        (["31.12.2026", "1.1.2027", "x"], "column 'a' ('31.12.2026' in row 0"),
        (["12/31/26 10:15", "x", "1/2/27 9:00"], "column 'a' ('12/31/26 10:15' in row 0"),
        (["A1", "A2", "B3"], None),
        (["1a", "2b", "3c"], None),
        (["red", "7", "green"], None),
        (["True", "False", "x"], None),
    ],
)
def test_numbers_that_became_texts_are_named(cells, said):
    (note, *more) = notes(as_table([[cell] for cell in cells * 5], True, columns=["a"])) or [None]
    assert note is None if said is None else note.startswith(said)
    assert not more


@pytest.mark.parametrize("word", ["", "NaN", "NA", "NULL", "?", "none", None, np.nan, pandas.NA])
@pytest.mark.parametrize("anomaly", [None, "attack", "1"])
def test_labels_that_say_nothing_are_gaps(word, anomaly):
    labels = np.array(["attack", "1", "0", word, "0"], dtype=object)
    with pytest.raises(InputError, match="the labels are empty in 1 rows, first in row 3"):
        read_labels(labels, anomaly_label=anomaly)
    if isinstance(word, str) and word:
        assert read_labels(labels, "y", 1, "attack", gaps=frozenset([""])).y.sum() == 1
        assert read_labels(labels, least=1, anomaly_label=word).y.tolist() == [0, 0, 0, 1, 0]


def test_columns_wider_than_float64_are_refused_and_half_of_it_works():
    rng = np.random.default_rng(0)
    X, y = made_table(n=60, d=3, n_anomalies=10)
    X = X.astype(np.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        X[:, 1] = rng.uniform(-1, 1, 60) * 1.79e308
        with pytest.raises(InputError, match="column 'x1' holds values beyond 9e\\+307"):
            TrainingRows.read(X, y, ColumnSettings())
        X[:, 1] /= 2.1
        rows = TrainingRows.read(X, y, ColumnSettings())
        u = (X[:, 1] / 2 - np.median(X[:, 1]) / 2) / 1e308
        assert abs(np.corrcoef(u, rows.Z[:, 1])[0, 1]) > 0.95
        new = np.array([[0, 1.79e308, 0], [0, -1.79e308, 0]])
        high, low = rows.columns.standardise(new)[:, 1]
        assert rows.Z[:, 1].max() <= high < 5 and -5 < low <= rows.Z[:, 1].min()
        assert np.isfinite(rows.columns.in_units(np.full((1, 3), 5.0))).all()


def test_sizes_of_a_checkpoint_are_compared_before_memory_is_taken(monkeypatch):
    preparation = Preparation().fit(as_table(np.zeros((3, 2))))
    preparation.d = 10**9
    monkeypatch.setattr(np, "arange", lambda n: pytest.fail(f"memory for {n} numbers"))
    with pytest.raises(ValueError, match="does not fit 1000000000 columns"):
        preparation.check(10**9)


def test_dates_in_an_npz_are_taken_where_they_are_asked_for(tmp_path):
    X = np.array([["2026-01-01", "1"], ["2026-01-02", "2"]] * 4)
    np.savez(tmp_path / "t.npz", X=X, y=[0, 1] * 4)
    with pytest.raises(InputError, match=r"a date\? give --dates"):
        load_dataset(tmp_path / "t.npz")
    data = load_dataset(tmp_path / "t.npz", settings=ColumnSettings(dates=True))
    assert data.X[:2, 0].tolist() == [20454, 20455]
    ((table, _),) = stream_table(tmp_path / "t.npz", None, 2, how=How(dates=True))
    np.testing.assert_array_equal(table.X, data.X)


@pytest.mark.parametrize("labels", [[True, False, None] * 4, [2**60, 2**60 + 1, None] * 4])
def test_a_gap_among_labels_of_any_type_is_named(tmp_path, labels):
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    frame = pandas.DataFrame({"a": np.arange(12.0), "y": pandas.array(labels)})
    frame.to_parquet(tmp_path / "t.parquet")
    with pytest.raises(InputError, match="the labels are empty in 4 rows, first in row 2"):
        load_dataset(str(tmp_path / "t.parquet"), "y")


class OtherFrame:
    """As a frame of narwhals: it names its columns, and numpy takes it for an array."""

    columns = ("b", "a")

    def __array__(self, dtype=None, copy=None):
        return np.arange(8.0).reshape(4, 2)


class LabelledArray(OtherFrame):
    """As a DataArray of xarray."""

    columns = property(lambda self: self.missing)  # raises AttributeError
    dims = ("row", "feature")

    def __init__(self, *named):
        self.coords = {dimension: ("b", "a") for dimension in named}


def test_frames_of_other_libraries_are_not_taken_by_place():
    fitted = Rows(as_table(pandas.DataFrame({"a": [1.0, 2.0], "b": [3.0, 4.0]})))
    for frame in (OtherFrame(), LabelledArray("row", "feature")):
        kind = type(frame).__name__
        for read in (as_table, fitted.rows):
            with pytest.raises(InputError, match=rf"{kind}\): give it as .*X.to_pandas\(\)"):
                read(frame)
    for unnamed in (LabelledArray("row"), LabelledArray()):
        assert as_table(unnamed).X.tolist() == np.asarray(unnamed).tolist()


@pytest.mark.parametrize("row", [list, tuple, np.array, pandas.Series])
def test_a_column_of_lists_is_told_how_to_become_a_table(row):
    """Such as df["embedding"]: X.reshape(-1, 1), which a Series has not, was the advice."""
    X = np.arange(12.0).reshape(4, 3)
    column = pandas.Series([row(values) for values in X])
    for some in (column, column.to_numpy()):
        with pytest.raises(InputError, match=r"its cells hold several values: give list\(X\)$"):
            as_table(some)
        assert np.array_equal(as_table(list(some)).X, X)


def test_rows_that_name_their_values_are_not_taken_by_place():
    """As iterrows gives them: columns in another order would be scored as each other."""
    frame = pandas.DataFrame(np.arange(12.0).reshape(4, 3), columns=["a", "b", "c"])
    moved = frame[["c", "a", "b"]]
    database = sqlite3.connect(":memory:")
    database.row_factory = sqlite3.Row
    rows = (
        [row for _, row in moved.iterrows()],
        list(moved.itertuples(index=False)),
        list(moved.to_records(index=False)),
        database.execute("SELECT 7.0 AS c, 5.0 AS a, 6.0 AS b").fetchall(),
    )
    for some in rows:
        with pytest.raises(InputError, match=r"X: is a list of records: give pandas.D") as refused:
            as_table(some)
        advice = str(refused.value).partition(": give ")[2]
        named = eval(advice, {"pandas": pandas, "numpy": np, "X": some})
        assert list(named.columns) == ["c", "a", "b"] and named.dtypes.eq(float).all()
    unnamed = [row for _, row in pandas.DataFrame(frame.to_numpy()).iterrows()]
    assert np.array_equal(as_table(unnamed).X, frame)
    assert np.array_equal(as_table(list(frame.to_numpy())).X, frame)
