"""What is masked, or of a type that numpy's objects change."""

import datetime

import numpy as np
import pytest
from helpers import SHORT_FIT, made_table

from swift_hydra import SwiftHydra
from swift_hydra.data.labels import read_labels
from swift_hydra.data.table import as_table
from swift_hydra.settings import InputError

X, y = made_table(60, 3, 6)
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
