"""What is masked, or of a type that numpy's objects or texts change."""

import datetime
import enum

import numpy as np
import pytest
from helpers import SHORT_FIT, made_table

from swift_hydra import SwiftHydra
from swift_hydra.data.files import How, read_table, stream_table
from swift_hydra.data.labels import read_labels
from swift_hydra.data.reading import Reading
from swift_hydra.data.rows import TrainingRows
from swift_hydra.data.table import as_table
from swift_hydra.settings import InputError

pytestmark = pytest.mark.usefixtures("few_candidates")

X, y = made_table(60, 3, 6)
# As services have them: numpy makes "Verdict.OK" of a member, cut to the letters of "ok".
Verdict = enum.Enum("Verdict", {"OK": "ok", "ATTACK": "attack"}, type=str)
HOURS = np.array("2026-01-01", "M8[ns]") + np.arange(120).reshape(60, 2).astype("m8[h]")


@pytest.mark.parametrize("unit", ["ns", "us", "s", "D"])
def test_masked_dates_are_dates(unit):
    dates = HOURS.astype(f"M8[{unit}]")
    masked = np.ma.array(dates)
    masked[3, 1] = np.ma.masked
    with pytest.raises(InputError, match="holds dates"):
        as_table(masked)
    plain = as_table(dates, dates=True).X
    plain[3, 1] = np.nan
    assert np.array_equal(as_table(masked, dates=True).X, plain, equal_nan=True)


@pytest.mark.parametrize("mask", [np.asarray, np.ma.array])
def test_spans_of_time_are_refused_by_name(mask):
    with pytest.raises(InputError, match=r"'x0' .*timedelta64"):
        as_table(mask(HOURS - HOURS[0]))
    with pytest.raises(InputError, match=r"'x1' .*timedelta"):
        as_table(np.array([[1.0, np.timedelta64(1, "D")]] * 3, dtype=object))
    with pytest.raises(InputError, match=r"'x0' .*timedelta"):
        as_table(np.array([[datetime.timedelta(1)]] * 3, dtype=object))


def test_a_list_of_masked_rows_is_masked():
    rows = np.ma.array(X.copy())
    rows[0, 0] = -999
    rows[0, 0] = np.ma.masked
    model = SwiftHydra(impute="median", **SHORT_FIT).fit(X, y)
    assert np.array_equal(model.decision_function([rows[0]]), model.decision_function(rows[:1]))


def test_whole_numbers_of_sixteen_bytes():
    polars = pytest.importorskip("polars", reason="data frames of polars: pip install polars")
    frame = polars.DataFrame({"a": polars.Series([1, 2, None, -4]).cast(polars.Int128)})
    assert np.array_equal(as_table(frame).X, [[1], [2], [np.nan], [-4]], equal_nan=True)


def test_one_written_as_a_fraction_is_the_same_label():
    cells = ["0", "1", "1.0", "U", "0"] * 10
    labels = read_labels(np.array(cells), anomaly_label="1")
    assert labels.y.tolist() == [0, 1, 1, 0, 0] * 10


def test_unlabelled_rows_stay_so_where_the_anomaly_is_named():
    given = np.array([0, 1, -1, 0, 0] * 10)
    labels = read_labels(given, anomaly_label=1, least=0)
    assert np.array_equal(labels.y, given)


def test_no_labels_are_no_labels():
    with pytest.raises(InputError, match="there is no label"):
        SwiftHydra().fit(X, [])


@pytest.mark.parametrize(
    "given", [np.array(["0", "1"]), np.array(["0", "1"], object), np.array([False, True], object)]
)
def test_classes_are_the_labels_that_were_given(given):
    model = SwiftHydra(**SHORT_FIT).fit(X, given[y])
    assert model.classes_.tolist() == given.tolist()
    assert set(model.predict(X)) <= set(given.tolist())


@pytest.mark.parametrize("kind", ["int64", "uint8", "float64", "bool", "text"])
@pytest.mark.parametrize("beside", ["number", "bool", "text"])
def test_gaps_of_declared_categories_are_gaps(kind, beside):
    """pandas makes -9223372036854775808, 0 or True of them where a frame becomes one array."""
    pandas = pytest.importorskip("pandas")
    given = {"bool": [True, False], "text": ["x", "y"]}
    values = np.array(given[kind]) if kind in given else np.array([1, 2], dtype=kind)
    cells = pandas.Categorical([*values, None], categories=values)
    others = {"number": [1, 2, 3], "bool": [True, False, True], "text": ["u", "v", "w"]}[beside]
    table = as_table(pandas.DataFrame({"a": cells, "b": others}), True)
    assert np.isnan(table.X[:, 0]).tolist() == [False, False, True]
    assert not np.isnan(table.X[:, 1]).any()


def test_what_stands_for_a_gap_is_one_in_every_format(tmp_path):
    """-1 beside a gap and numbers of 19 digits in Parquet, in texts of an .npz; no day is one."""
    arrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    missing = Reading(missing="-1,0,unknown")
    columns = {"a": [1700000000000000001, -1, None], "y": [0, 1, 0]}
    columns["d"] = [datetime.date(1970, 1, 1), datetime.date(2026, 1, 1), None]
    path = tmp_path / "t.parquet"
    parquet.write_table(arrow.table({**columns, "y": [0, 1, 0]}), path)
    read = read_table(path, "y", reading=missing, dates=True).table
    assert np.isnan(read.X).tolist() == [[False, False], [True, False], [True, True]]
    assert read.dated == (1,)
    texts = np.array([["1.5", "-1", "b"], ["unknown", "0", "unknown"], ["2", "3", "c"]])
    np.savez(tmp_path / "t.npz", X=texts, y=[0, 1, 0])
    table = read_table(tmp_path / "t.npz", texts=True, reading=missing).table
    assert np.isnan(table.X).tolist() == [[False, True, False], [True] * 3, [False] * 3]
    ((new, _),) = stream_table(tmp_path / "t.npz", None, 3, table.texts, how=How(reading=missing))
    np.testing.assert_array_equal(new.X, table.X)


def test_gaps_and_numbers_stay_what_they_are_beside_texts_of_a_list():
    rows = [["a", 0.1], [float("nan"), 7.0], ["b", True], [b"\xff", 3]]
    table = as_table(rows, True)
    assert table.texts == {0: ["a", "b", "0xff"]}
    assert np.array_equal(table.X, [[0, 0.1], [np.nan, 7], [1, 1], [2, 3]], equal_nan=True)
    with pytest.raises(InputError, match="empty in 1 rows"):
        read_labels(["ok", float("nan"), "attack"], anomaly_label="attack")


@pytest.mark.parametrize("kind", [list, object])
@pytest.mark.parametrize("asked", ["attack", Verdict.ATTACK])
def test_members_of_enumerations_are_the_texts_that_they_stand_for(kind, asked):
    words = [Verdict.ATTACK if known else Verdict.OK for known in y]
    words = words if kind is list else np.array(words, dtype=object)
    table = as_table([[word, 1.0] for word in words], True)
    assert table.texts == {0: ["ok", "attack"]}
    settings = SwiftHydra(anomaly_label=asked)
    with pytest.warns(UserWarning, match="'attack' sorts before 'ok'"):
        rows = TrainingRows.read(X, words, settings)
    assert rows.y.tolist() == y.tolist()
    assert rows.classes.tolist() == ["ok", "attack"]
