"""Tables as people have them: frames of every kind, labels in words, files of other places."""

import datetime
import decimal
import gzip
import time
import warnings
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from helpers import ROOT, SAME_EXAMPLES, made_table, run_script
from hypothesis import given, settings
from hypothesis import strategies as st

from swift_hydra.bench.peers import Peer
from swift_hydra.data.columns import ColumnSettings, Preparation
from swift_hydra.data.files import How, read_table, stream_table
from swift_hydra.data.formats import ParquetFile, open_table
from swift_hydra.data.frames import as_known
from swift_hydra.data.labels import read_labels
from swift_hydra.data.learned_columns import Tally
from swift_hydra.data.reading import Reading, number
from swift_hydra.data.rows import TrainingRows
from swift_hydra.data.suspicious import notes
from swift_hydra.data.table import as_table
from swift_hydra.dataloader import load_dataset
from swift_hydra.settings import InputError, printable

drawn = settings(SAME_EXAMPLES, max_examples=40)


# ---- frames --------------------------------------------------------------------------------------


def frame():
    data = {
        "bool": [True, False, True],
        "maybe": pd.array([True, None, False], dtype="boolean"),
        "count": pd.array([1, None, 3], dtype="Int64"),
        "class": pd.Categorical([10, 20, 10]),
        "money": [decimal.Decimal("1.50"), None, decimal.Decimal("2.25")],
        "sparse": pd.arrays.SparseArray([0.0, 0.0, 4.0]),
        "object": [1, 2.5, None],
    }
    return pd.DataFrame(data)


def test_columns_of_every_kind_are_taken_right():
    table = as_table(frame())
    nan = np.nan
    expected = [
        [1, 1, 1, 10, 1.5, 0, 1],
        [0, nan, nan, 20, nan, 0, 2.5],
        [1, 0, 3, 10, 2.25, 4, nan],
    ]
    np.testing.assert_array_equal(table.X, expected)
    assert table.names() == list(frame().columns) and not table.texts


@pytest.mark.parametrize(
    ("order", "said"), [("low mid high", True), ("low mid high", False), ("high low mid", False)]
)
def test_an_order_that_ordinal_does_not_take_is_named(order, said):
    """Low, mid, high were coded 1, 2, 0 without a word."""
    words = order.split()
    ordered = said or order.startswith("high")  # in the second case none is declared
    cells = pd.Categorical(words * 5, categories=[*words, "never"], ordered=ordered)
    table = as_table(pd.DataFrame({"size": cells, "x": range(15)}), True)
    found = list(Preparation(categorical="ordinal").fit(table).notes())
    assert len(found) == said and all("column 'size'" in note for note in found)
    assert not list(Preparation(categorical="onehot").fit(table).notes())
    days = pd.Categorical(pd.to_datetime(["2026-01-02", "2026-01-01"] * 5), ordered=True)
    assert not as_table(pd.DataFrame({"day": days, "c": cells[:10]}), True, dates=True).orders[0]


def test_other_libraries_give_the_same():
    polars = pytest.importorskip("polars")
    arrow = pytest.importorskip("pyarrow")
    given = {"a": [1.5, None, 3.0], "b": [True, False, True], "c": ["x", "y", None]}
    for X in (polars.DataFrame(given), arrow.table(given)):
        table = as_table(X, True)
        assert table.names() == ["a", "b", "c"] and table.texts == {2: ["x", "y"]}
        np.testing.assert_array_equal(table.X[:, :2], [[1.5, 1], [np.nan, 0], [3, 1]])
        assert np.isnan(table.X[2, 2])


def test_what_cannot_be_used_is_refused_by_name():
    days = pd.to_datetime(["2026-01-01", None, "1970-01-02"])
    for name, values, message in (
        ("when", days, "column 'when' holds dates, first 2026-01-01.*--dates"),
        ("day", [datetime.date(2026, 1, 1), None, datetime.date(1970, 1, 2)], "column 'day' holds"),
        ("span", pd.to_timedelta([1, 2, 3], "D"), "column 'span' has the type timedelta"),
        ("list", [[1], [2], [3]], "column 'list' holds list values"),
        ("period", pd.period_range("2026", periods=3), "column 'period' holds Period values"),
        ("complex", [1j, 2, 3], "column 'complex': Complex data not supported"),
    ):
        X = frame().assign(**{name: values})
        with pytest.raises(InputError, match=message):
            as_table(X)
    for values in (days, [datetime.date(2026, 1, 1), None, datetime.date(1970, 1, 2)]):
        found = as_table(frame().assign(when=values), dates=True).X[:, -1]
        np.testing.assert_array_equal(found, [20454, np.nan, 1])


def test_what_is_masked_is_not_used():
    X = np.ma.masked_equal(np.array([[1.0, 999.0], [2.0, 3.0]]), 999.0)
    assert np.isnan(as_table(X).X[0, 1]) and as_table(X).X[1, 1] == 3
    whole = np.ma.masked_equal(np.array([[1, 999], [2, 3]]), 999)
    assert np.isnan(as_table(whole).X[0, 1])
    with pytest.raises(InputError, match="labels are empty in 1 rows, first in row 1"):
        read_labels(np.ma.masked_equal([0, 9, 1, 0], 9))


# ---- labels --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "anomaly", "expected", "classes"),
    [
        ([False, True, True, False, False], None, [0, 1, 1, 0, 0], [0, 1]),
        (["False", "TRUE", "true", "False", "False"], None, [0, 1, 1, 0, 0], ["False", "TRUE"]),
        (["no", "Yes", "yes", "no", "no"], None, [0, 1, 1, 0, 0], ["no", "Yes"]),
        (["1", "2", "2", "1", "1"], None, [0, 1, 1, 0, 0], [1, 2]),
        (["a", "dos", "dos", "b", "a"], "dos", [0, 1, 1, 0, 0], ["a", "dos"]),
        ([1, -1, -1, 1, 1], -1, [0, 1, 1, 0, 0], [1, -1]),
        ([1, -1, -1, 1, 1], "-1", [0, 1, 1, 0, 0], [1, -1]),
        ([0, 7, 7, 3, 3], "7", [0, 1, 1, 0, 0], [0, 7]),
        ([False, True, True, False, False], "True", [0, 1, 1, 0, 0], [0, 1]),
        ([True, False, False, True, True], "false", [0, 1, 1, 0, 0], [1, 0]),
        ([b"no", b"yes", b"yes", b"no", b"no"], None, [0, 1, 1, 0, 0], ["no", "yes"]),
        ([b"no", "dos", b"dos", b"no", "b"], "dos", [0, 1, 1, 0, 0], ["b", "dos"]),
        ([0.0, 1.0, "1", np.int8(0), "x"], "1", [0, 1, 1, 0, 0], ["0", "1"]),
        (["0", "1", "1", "0", "x"], 1.0, [0, 1, 1, 0, 0], ["0", "1"]),
    ],
)
def test_labels_in_words_and_numbers(labels, anomaly, expected, classes):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        labels = np.array(labels, dtype=object)
        found = read_labels(labels, anomaly_label=anomaly)
    assert found.y.tolist() == expected and found.classes.tolist() == classes


@pytest.mark.parametrize(
    ("labels", "more", "message"),
    [
        ([1, -1, -1, 1, 1], {}, "the labels are -1 and 1: .*--anomaly-label -1"),
        (["a", "b", "b", "a", "a"], {}, "the labels are 'a', 'b': say which is the anomaly"),
        (["0", "", "1", "1", "0"], {}, "the labels are empty in 1 rows, first in row 1"),
        ([1, 1, 1, 0, 0], {}, "3 of 5 rows are labelled as anomalies.*--majority-anomalies"),
        ([0, 1, 2, 0, 0], {"anomaly_label": "3"}, "no label is '3': the labels are 0, 1, 2"),
        (["0", "1_0", "1_0", "0"], {}, "the labels are '0', '1_0': say which is the anomaly"),
        (["0", "10", "10", "0"], {"anomaly_label": "1_0"}, "no label is '1_0': the labels are 0"),
        ([[0], [0, 1]], {}, "y is no list of labels: give one label per row"),
        (scipy.sparse.csr_array([[0, 1]]), {}, r"y has shape \(\): .* \(it is a csr_array\)"),
        (map(int, "01"), {}, r"one label per row \(it is a map\)"),
    ],
)
def test_labels_that_leave_a_doubt(labels, more, message):
    with pytest.raises(InputError, match=message):
        read_labels(labels, **more)


@pytest.mark.parametrize("kind", [np.float64, np.float32, np.longdouble, object])
@pytest.mark.parametrize("large", [2.0**54, 2.0**63, -1e30, 1e300, np.inf])
def test_labels_of_any_size_are_the_numbers_that_they_were(large, kind):
    """Beyond int64 the class predicted -9223372036854775808, and no label was 1e300 beside it."""
    rows, _ = made_table(n=30, d=2, n_anomalies=4)
    with np.errstate(over="ignore"):
        y = np.where(np.arange(30) < 4, large, 0).astype(kind)
    with pytest.raises(InputError, match="say which is the anomaly"):
        read_labels(y)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        settings = ColumnSettings(anomaly_label=y[0])
        found = TrainingRows.read(rows, y, settings)
    assert found.y.tolist() == [1] * 4 + [0] * 26 and found.classes.tolist() == [0, y[0]]


@drawn
@given(cells=st.lists(st.sampled_from(["dos", "DOS", "Dos", "ok", "OK"]), min_size=6))
def test_labels_that_differ_in_case_alone_are_named(cells):
    cells += ["dos", "dos", "ok"]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = read_labels(cells, anomaly_label="dos", majority=True)
    assert found.y.tolist() == [int(cell == "dos") for cell in cells]
    said = [str(warning.message) for warning in caught]
    others = {"DOS", "Dos"} & set(cells)
    assert bool(said) == bool(others)
    assert all(repr(other) in said[0] for other in others)


@pytest.mark.parametrize("labels", [[0, 0, -1, 1], [-1, 0.0, "1", 0], [[-1], [0], [1], [0]]])
def test_unlabelled_stays_beside_0_and_1(labels):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = read_labels(labels, least=1)
    flat = np.asarray(labels, dtype=np.float64).ravel()
    assert found.y.dtype == np.int64 and found.y.tolist() == flat.tolist()
    assert str(found) == "anomaly = 1: 1 of 4 rows, 1 unlabelled (-1)"


NOTHING_KNOWN = {
    "normal": [0] * 8,
    "unlabelled": [-1] * 8,
    "both": [0, -1] * 4,
    "bool": [False] * 8,
    "texts": ["no"] * 8,
}


@pytest.mark.parametrize("case", NOTHING_KNOWN)
def test_labels_without_an_anomaly_are_taken_where_none_is_needed(case):
    labels = NOTHING_KNOWN[case]
    found = read_labels(labels, least=0)
    assert found.y.dtype == np.int64 and not (found.y == 1).any()
    assert found.y.tolist() == [-1 if label == -1 else 0 for label in labels]
    for least in (1, 2):
        with pytest.raises(InputError, match="there is no anomaly, give both classes"):
            read_labels(labels, least=least)


@pytest.mark.parametrize(
    ("labels", "more", "message"),
    [
        ([1] * 8, {}, "all 8 labels are 1: there is no normal row"),
        ([-1, 1] * 4, {}, "the labels are -1 and 1: .*if -1 means unlabelled, give 0 for it"),
        ([2] * 8, {}, "the labels are 2: say which is the anomaly"),
        (["a"] * 8, {"anomaly_label": "b"}, "no label is 'b': the labels are 'a'"),
        ([0, np.nan], {}, "the labels are empty in 1 rows"),
        # Not "say which is the anomaly", as was done.
        (
            np.array(["2026-01-01", "2026-01-02"], dtype="M8[s]"),
            {"anomaly_label": "2026-01-01"},
            r"dtype datetime64\[s\]: give texts or numbers",
        ),
    ],
)
def test_labels_that_are_no_labels_stay_refused(labels, more, message):
    with pytest.raises(InputError, match=message):
        read_labels(labels, least=0, **more)


def test_training_rows_where_little_is_known():
    X, y = made_table(n=40, n_anomalies=6)
    some = np.where(np.arange(40) % 2, np.where(y == 1, 1, -1), y)
    rows = {}
    for name, labels in {"all": y, "some": some, "zeros": y * 0, "minus": y * 0 - 1}.items():
        rows[name] = TrainingRows.read(X, labels, ColumnSettings())
        assert rows[name].y.tolist() == labels.tolist() and rows[name].y.dtype == np.int64
    rows["none"] = TrainingRows.read(X, None, ColumnSettings())
    assert rows["none"].y.tolist() == [-1] * 40 and rows["none"].y.dtype == np.int64
    for found in rows.values():
        assert np.array_equal(found.Z, rows["all"].Z) and found.classes.tolist() == [0, 1]
    # A typical row is one of those that are no known anomalies, whatever else they are.
    for name in ("all", "some"):
        assert np.array_equal(rows[name].columns.centre, np.median(X[y == 0], axis=0))
    for name in ("zeros", "minus", "none"):
        assert np.array_equal(rows[name].columns.centre, np.median(X, axis=0))
    assert rows["none"].fingerprint == rows["minus"].fingerprint != rows["zeros"].fingerprint


def test_five_training_rows_must_be_no_known_anomalies():
    X = made_table(n=9)[0]
    for labels in ([1] * 4 + [0] * 5, [1] * 4 + [0, -1, -1, -1, -1], None, [-1] * 9):
        TrainingRows.read(X, labels, ColumnSettings(majority_anomalies=True))
    labels = [1] * 5 + [0, -1, -1, -1]
    with pytest.raises(InputError, match=r"only 4 rows as normal \(0\) or unlabelled \(-1\)"):
        TrainingRows.read(X, labels, ColumnSettings(majority_anomalies=True))
    with pytest.raises(InputError, match="only 4 rows"):
        TrainingRows.read(X[:4], None, ColumnSettings())
    with pytest.raises(InputError, match="X has 9 rows and y has 4"):
        TrainingRows.read(X, [0, 0, 1, 0], ColumnSettings())


def test_other_peoples_detectors_take_unlabelled_as_normal():
    X, y = made_table(n=60)
    some = np.where(np.arange(60) % 2, np.where(y == 1, 1, -1), y)
    for name in ("LogisticRegression", "kNN"):
        scores = [Peer(name).fit(X, labels).decision_function(X) for labels in (y, some)]
        assert np.array_equal(*scores)


def test_the_first_line_says_what_the_label_is(tmp_path):
    rows = "".join(f"{i % 7},{i % 5},{'attack' if i % 9 == 0 else 'ok'}\n" for i in range(60))
    (tmp_path / "t.csv").write_text("a,b,kind\n" + rows)
    run = run_script("dataloader.py", tmp_path / "t.csv", "--anomaly-label", "attack")
    assert "label             column 'kind', anomaly = 'attack': 7 of 60 rows" in run.stdout
    short = ["--cvae-steps", 5, "--detector-steps", 5, "--out", tmp_path]
    run = run_script("pretrain.py", tmp_path / "t.csv", "--anomaly-label", "attack", *short)
    assert run.stdout.startswith("t: label column 'kind', anomaly = 'attack': 7 of 60 rows\n")


# ---- files ---------------------------------------------------------------------------------------

ROWS = [(1234.5, -0.25, 0), (2.0, 3.75, 1), (1500000.0, 0.5, 0), (7.5, 12.0, 1)]
STYLES = {"point": ("", "."), "comma": ("", ","), "german": (".", ","), "swiss": ("'", ".")}
STYLES |= {"english": (",", "."), "french": ("\u202f", ",")}


def written(value, style):
    thousands, point = STYLES[style]
    text = f"{value:,.2f}".replace(",", "T").replace(".", "P")
    return text.replace("T", thousands).replace("P", point)


@drawn
@given(
    style=st.sampled_from(sorted(STYLES)),
    separator=st.sampled_from([";", "\t", "|"]),
    end=st.sampled_from(["\n", "\r\n"]),
    top=st.sampled_from(["", "# made by hand\n", "sep={}\n"]),
    zipped=st.booleans(),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "cp1252"]),
    suffix=st.sampled_from([".csv", ".tsv", ".txt"]),
)
def test_files_of_other_places(tmp_path, style, separator, end, top, zipped, encoding, suffix):
    if style == "french" and encoding == "cp1252":
        return  # has no such space
    lines = [separator.join(["größe", "b", "y"])]
    lines += [separator.join([written(a, style), written(b, style), str(y)]) for a, b, y in ROWS]
    content = (top.format(separator) + "\n".join(lines) + "\n").replace("\n", end).encode(encoding)
    path = tmp_path / f"t{suffix}{'.gz' * zipped}"
    path.write_bytes(gzip.compress(content) if zipped else content)
    reading = Reading(encoding="cp1252" if encoding == "cp1252" else None)
    data = load_dataset(path, reading=reading)
    assert data.name == "t" and data.columns == ("größe", "b")
    np.testing.assert_array_equal(data.X, [row[:2] for row in ROWS])
    ((table, _),) = stream_table(path, ["größe", "b"], 2, how=How(reading))
    np.testing.assert_array_equal(table.X, data.X)


@drawn
@given(st.lists(st.sampled_from([950, 7, 12500, 3000, 12501, 1234567]), min_size=1, max_size=9))
def test_points_that_part_thousands_are_asked_about(tmp_path, values):
    path = tmp_path / "t.csv"
    cells = [f"{value:,}".replace(",", ".") for value in values]
    path.write_text(
        "a;y\n" + "".join(f"{cell};{i % 2}\n" for i, cell in enumerate([*cells, 7, 8, 7, 8]))
    )
    read = Reading(decimal=",")
    data = load_dataset(path, reading=read, settings=ColumnSettings(majority_anomalies=True))
    assert data.X[: len(values), 0].tolist() == values
    if any(value >= 1000 and value % 10 == 0 for value in values):
        with pytest.raises(InputError, match=r"is the point a decimal point|decimal comma\?"):
            load_dataset(path)
        with pytest.raises(InputError, match=r"is the point a decimal point|decimal comma\?"):
            as_table([[cell] for cell in [*cells, "7"]])
    for others in (["0.5"], ["12501"]):  # nothing is parted here
        assert as_table([["12.500"], ["7"], *([cell] for cell in others)]).X[0, 0] == 12.5
    assert as_table([["12.500"], ["9.750"]]).X[0, 0] == 12.5


def test_the_last_of_two_label_columns_is_not_taken(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("a,y,b,y\n" + "".join(f"{i},{i % 2},{i},{i % 2}\n" for i in range(8)))
    for label in (None, "y"):
        with pytest.raises(InputError, match="label column 'y' is there more than once"):
            load_dataset(path, label)
    assert load_dataset(path, "y.1", drop_columns="b").columns == ("a", "y")


def test_a_comma_that_can_be_either_is_asked_about(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("a;y\n1,234;0\n2,500;1\n3,125;0\n4,000;1\n")
    with pytest.raises(InputError, match=r"column 'a' holds '1,234': .*--decimal"):
        load_dataset(path)
    for decimal_, first in ((",", 1.234), (".", 1234.0)):
        assert load_dataset(path, reading=Reading(decimal=decimal_)).X[0, 0] == first


def test_texts_that_look_like_gaps(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("school,a,y\nNone,1,0\nhigh,2,1\nNA,3,0\nlow,4,1\n")
    columns = ColumnSettings(categorical="ordinal")
    with pytest.raises(InputError, match="2 missing values"):
        load_dataset(path, settings=columns)
    filled = ColumnSettings(categorical="ordinal", impute="median")
    data = load_dataset(path, settings=filled, reading=Reading(missing="NA"))
    assert np.isnan(data.table.X[:, 0]).tolist() == [False, False, True, False]
    data = load_dataset(path, settings=columns, reading=Reading(missing=""))
    assert sorted(data.table.texts[0]) == ["NA", "None", "high", "low"]
    assert number("none") != number("none") and number("none", gaps=frozenset([""])) is None


def test_all_that_is_wrong_is_said_at_once(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("a,b,c,y\nx,1,,0\n2,z,3,\n3,4,inf,1\n")
    with pytest.raises(InputError) as caught:
        load_dataset(path)
    message = str(caught.value)
    for part in ("column 'a' holds text, first 'x'", "column 'b' holds text, first 'z'"):
        assert part in message
    assert "column 'c'" in message and "labels are empty in 1 rows, first in line 3" in message
    path.write_text("a,b,y\n1,inf,0\n,2,0\n3,4,1\n")
    with pytest.raises(InputError, match=r"1 missing values .*'a'.*; moreover, 1 infinite .*'b'"):
        load_dataset(path)
    rows = (f"u{i},{i},10.0.{i % 256}.{i},{int(i % 9 == 0)}\n" for i in range(300))
    path.write_text("user,a,host,y\n" + "".join(rows))
    with pytest.raises(InputError, match=r"'user' has 300 .*; text column 'host' has 300"):
        load_dataset(path, categorical="onehot")


@pytest.mark.parametrize("odd", ["0000-00-00", "2026-02-30", "2026-01-01 24:00:00", "-"])
def test_the_cell_that_makes_texts_of_dates_is_named(tmp_path, odd):
    """--dates was given: neither is it the remedy, nor does a cell that it reads need one."""
    cells = [f"2026-01-{1 + i:02d}" for i in range(12)]
    cells[0] = odd
    path = tmp_path / "t.csv"
    rows = (f"{cell},{i},{int(i % 5 == 0)}\n" for i, cell in enumerate(cells))
    path.write_text("day,a,y\n" + "".join(rows))
    taken = ColumnSettings(dates=True, categorical="onehot")
    with pytest.warns(
        UserWarning, match=f"'2026-01-02' in line 3, but '{odd}' in line 2.*: mend it"
    ):
        load_dataset(path, settings=taken)
    path.write_text(path.read_text().replace(odd, ""))
    data = load_dataset(path, settings=ColumnSettings(dates=True, impute="median"))
    assert np.isnan(data.table.X[:, 0]).sum() == 1


def test_every_kind_of_word_among_numbers_is_quoted():
    """One was quoted, as the reason; mended, the next one was, and so on."""
    words = {3: "<0.5", 5: ">200", 6: ">200", 8: "hemolysed", 9: "lost"}
    cells = [words.get(i, i / 4) for i in range(20)]
    found = notes(as_table([[cell] for cell in cells], True, columns=["a"]))
    place = "row 3 (counted from 0)"
    assert found[0].startswith(f"column 'a' ('<0.5' in {place}, '>200', 'hemolysed', ...): most")


def test_a_flag_for_a_gap_is_offered_wherever_one_is_met(tmp_path):
    path = tmp_path / "t.csv"
    cells = ["-" if i == 3 else "NaN" if i == 5 else i / 4 for i in range(20)]
    path.write_text("a,y\n" + "".join(f"{c},{int(i % 5 == 0)}\n" for i, c in enumerate(cells)))
    filled = ColumnSettings(impute="median")
    texts = ColumnSettings(impute="median", categorical="onehot")
    with pytest.raises(InputError, match=r"a gap\? give --missing='-'"):
        load_dataset(path, settings=filled)
    with pytest.warns(UserWarning, match=r"a gap\? give --missing='-'"):
        load_dataset(path, settings=texts)
    given = Reading(missing="-")  # NaN is a gap no more
    with pytest.raises(InputError, match=r"'NaN' in line 7 .a gap\? add it to --missing"):
        load_dataset(path, settings=filled, reading=given)
    with pytest.warns(UserWarning, match=r"'NaN' in line 7; a gap\? add it to --missing"):
        load_dataset(path, settings=texts, reading=given)
    load_dataset(path, settings=filled, reading=Reading(missing="-,NaN"))


def test_a_name_with_a_comma_is_to_be_quoted(tmp_path):
    path = tmp_path / "t.csv"
    rows = "".join(f"{i},{i % 7},{int(i % 5 == 0)}\n" for i in range(20))
    path.write_text('"Creatinine, mg/dL",b,y\n' + rows)
    with pytest.raises(InputError, match="a name with a comma is quoted: '\"Creatinine, mg/dL\"'"):
        load_dataset(path, drop_columns="Creatinine, mg/dL")
    assert load_dataset(path, drop_columns='"Creatinine, mg/dL"').columns == ("b",)
    with pytest.raises(InputError, match=r"'z' is not there: the columns are .*, 'b', 'y'$"):
        load_dataset(path, drop_columns="z")


def test_a_column_that_is_mostly_filled_is_named():
    """Merged cells of a spreadsheet: the most frequent text was in every row, without a word."""
    cells = [["North" if i == 0 else "South" if i == 20 else None, i % 7] for i in range(40)]
    found = notes(as_table(pd.DataFrame(cells, columns=["region", "a"]), True))
    assert [note[:40] for note in found] == ["column 'region' (38 of 40 rows): empty n"]
    half = [["North" if i % 2 else None, i % 7] for i in range(40)]
    assert not notes(as_table(pd.DataFrame(half, columns=["region", "a"]), True))


def test_dates_and_frequencies(tmp_path):
    path = tmp_path / "t.csv"
    lines = [f"2026-01-{1 + i % 28:02d},u{i % 300},{i % 11},{int(i % 10 == 0)}" for i in range(900)]
    path.write_text("day,user,a,y\n" + "\n".join(lines) + "\n")
    with pytest.raises(InputError, match=r"a date\? give --dates"):
        load_dataset(path)
    settings_ = ColumnSettings(dates=True, categorical="frequency")
    data = load_dataset(path, settings=settings_)
    assert data.X.shape == (900, 3) and data.X[:2, 0].tolist() == [20454, 20455]
    np.testing.assert_allclose(data.X[:, 1], np.log(3))


@pytest.mark.parametrize(
    "cell", ["2026-01-02 06:00:00 UTC", "2026-01-02T06:00:00Z", "2026-01-02 08:00:00.0+02"]
)
def test_the_zone_of_a_date_is_read_however_it_is_written(tmp_path, cell):
    lines = [f"{cell},{i},{int(i > 7)}" for i in range(10)]
    (tmp_path / "t.csv").write_text("at,a,y\n" + "\n".join(lines) + "\n")
    data = load_dataset(tmp_path / "t.csv", settings=ColumnSettings(dates=True))
    assert set(data.X[:, 0]) == {20455.25}


@pytest.mark.parametrize("odd", ["20260104", "2026", "7.5", "True"])
@pytest.mark.parametrize("at", [0, 3, 11])
def test_dates_beside_numbers_are_refused(tmp_path, odd, at):
    cells = [f"2026-01-{1 + i:02d}" for i in range(12)]
    cells[at] = odd
    (tmp_path / "t.csv").write_text(
        "day,y\n" + "".join(f"{cell},{int(i % 5 == 0)}\n" for i, cell in enumerate(cells))
    )
    message = f"column 'day' holds dates, first '2026-01-0[12]', and numbers, first '{odd}'"
    with pytest.raises(InputError, match=message):
        load_dataset(tmp_path / "t.csv", settings=ColumnSettings(dates=True))
    with pytest.raises(InputError, match=message):
        as_table([[cell] for cell in cells], columns=["day"], dates=True)


def test_indexes_that_pandas_writes_are_left_out(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text(",a,y\n0,5,0\n1,6,1\n2,5,0\n3,9,1\n")
    with pytest.warns(UserWarning, match="row index that pandas writes"):
        assert load_dataset(path).columns == ("a",)
    path.write_text(path.read_text().replace(",a,y", "Unnamed: 0,a,y"))
    with pytest.warns(UserWarning, match="row index"):
        assert load_dataset(path).columns == ("a",)


def test_a_frame_that_still_holds_the_index_that_a_run_left_out_is_taken():
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(40, 2)), columns=["a", "b"])
    columns = TrainingRows.read(frame, None, ColumnSettings()).columns
    for name in ("Unnamed: 0", "__index_level_0__"):
        read_again = frame.assign(**{name: np.arange(40)})[[name, "b", "a"]]
        assert columns.in_order(read_again, None).equals(frame)
    with pytest.raises(InputError, match="column 'id' is not known"):
        columns.in_order(frame.assign(id=1), None)


@pytest.mark.parametrize("kind", ["csv", "parquet"])
@pytest.mark.parametrize("first", ["", "Unnamed: 0"])
@pytest.mark.parametrize("whole", [True, False])
def test_measurements_without_a_name_are_no_index(tmp_path, kind, first, whole):
    frame = pd.DataFrame({first: np.arange(9) * 3 + (0 if whole else 0.5)})
    frame = frame.assign(a=[5, 6, 7] * 3, y=[0, 0, 1] * 3)
    path, new = tmp_path / f"t.{kind}", tmp_path / f"new.{kind}"

    def write(rows, to):
        if kind == "parquet":
            pytest.importorskip("pyarrow")
            rows.to_parquet(to, index=False)
        else:
            rows.to_csv(to, index=False)

    write(frame, path)
    word = "has no name, as the row index that pandas writes" if whole else "but fractions"
    with pytest.warns(UserWarning, match=word):
        table = load_dataset(path).table
    assert table.columns == (["a"] if whole else [first or "x0", "a"])
    # What is scored is read as in training, whatever its rows hold.
    for cells in ([7, 8], [7.5, 8.5]):
        write(frame.iloc[:2].assign(**{first: cells}), new)
        ((rows, _),) = stream_table(
            new, list(table.columns), len(table.columns), how=How(named=True)
        )
        assert rows.X.tolist() == ([[5], [6]] if whole else [[cells[0], 5], [cells[1], 6]])


@pytest.mark.parametrize("kind", ["csv", "parquet"])
@pytest.mark.parametrize("name", [None, "t"])
def test_an_index_that_a_file_tells_of_is_one_whatever_it_holds(tmp_path, kind, name):
    index = pd.Index(np.arange(9) / 4, name=name)
    frame = pd.DataFrame({"a": [5, 6, 7] * 3, "y": [0, 0, 1] * 3}, index=index)
    path = tmp_path / f"t.{kind}"
    if kind == "parquet":
        pytest.importorskip("pyarrow")
        frame.to_parquet(path)
        with pytest.warns(UserWarning, match="is the row index that pandas writes.*reset_index"):
            assert load_dataset(path).columns == ("a",)
    else:
        frame.to_csv(path)
        ((rows, _),) = stream_table(path, ["a"], 1, how=How(named=True))
        assert rows.X[:, 0].tolist() == [5, 6, 7] * 3


@pytest.mark.parametrize(
    "told", [b"\xff{", b"[]", b"{", b'{"index_columns": null, "columns": ["t"]}', b"[" * 10_000]
)
def test_damaged_notes_of_pandas_spoil_no_parquet(tmp_path, told):
    arrow = pytest.importorskip("pyarrow")
    table = arrow.table({"a": [5, 6, 7] * 3, "y": [0, 0, 1] * 3})
    table = table.replace_schema_metadata({b"pandas": told})
    pytest.importorskip("pyarrow.parquet").write_table(table, tmp_path / "t.parquet")
    assert load_dataset(tmp_path / "t.parquet").columns == ("a",)


def test_many_declared_categories_take_linear_time():
    names = [f"c{i}" for i in range(20_000)]
    told = [{"field_name": name, "pandas_type": "categorical"} for name in [[], *names[1:]]]
    schema = SimpleNamespace(names=names, types=["int64"] * len(names))
    schema.pandas_metadata = {"columns": told}
    file = ParquetFile.__new__(ParquetFile)
    file.file = SimpleNamespace(schema_arrow=schema)
    start = time.process_time()
    assert len(file.number_categories(range(len(names)))) == len(names) - 1
    assert time.process_time() - start < 1  # seconds, once


def test_a_column_named_none_is_no_feature_in_silence(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("a,none\n5,0\n6,1\n5,0\n9,1\n")
    with pytest.warns(UserWarning, match="column of that name is learned from"):
        assert read_table(path, "none").table.columns == ["a", "none"]


def test_ids_are_kept_to_the_digit(tmp_path):
    arrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    ids = [2**60 + i for i in range(4)]
    parquet.write_table(arrow.table({"id": ids, "a": [1.0, 2, 3, 4]}), tmp_path / "t.parquet")
    ((_, found),) = stream_table(tmp_path / "t.parquet", ["a"], 1, id_column="id")
    assert list(found) == [str(i) for i in ids]


def test_a_wide_header_takes_linear_time(tmp_path):
    path = tmp_path / "t.csv"
    names = ["a"] * 20_000
    path.write_text(",".join(names) + ",y\n" + (",".join(["1"] * 20_000) + ",0\n") * 2)
    start = time.process_time()
    with pytest.raises(InputError, match="there is no anomaly"):
        load_dataset(path)
    assert time.process_time() - start < 20  # minutes, where every name looks at all others
    path.write_text(",".join(f"n{i}" for i in range(100_001)) + "\n")
    with pytest.raises(InputError, match="more than 100000"):
        load_dataset(path)


def test_names_of_a_wide_parquet_and_frame_take_linear_time(tmp_path):
    pytest.importorskip("pyarrow")
    names = [f"n{j}" for j in range(12_000)]
    table = pd.DataFrame(np.arange(2.0)[:, None] + np.arange(len(names)) / 7, columns=names)
    table.to_parquet(tmp_path / "t.parquet")
    file = open_table(tmp_path / "t.parquet", Reading(), False)
    start = time.process_time()
    assert file.number_categories(range(len(names))) == ()
    # A name of training is missing, so that each of the others is looked for among the known ones.
    assert as_known(names, [f" {name}" for name in [*names[1:], "other"]])[-1] == f" {names[-1]}"
    assert time.process_time() - start < 2  # 15 and more where every name looks at all others


# ---- what is said --------------------------------------------------------------------------------


def test_suspicious_columns_are_named_once():
    rng = np.random.default_rng(0)
    n = 600
    X = rng.normal(size=(n, 9))
    X[:, 1] = np.arange(n)
    X[:, 2] = rng.permutation(n) + 1000
    X[:, 3] = 1.7e9 + rng.integers(0, 10**6, n)
    X[:9, 4] = -999
    X[0, 5] = 1e12
    X[:, 6] = 0
    X[0, 6] = 1
    table = as_table(X, columns=list("abcdefghi"))
    found = {note.split("'")[1]: note for note in notes(table)}
    for name, words in {
        "b": "counts the rows",
        "c": "like an id",
        "d": "times since 1970",
        "e": "(-999 in 9 rows): one value far from all others",
        "f": "(1e+12; 1 rows in all): a few rows",
        "g": "one value nearly everywhere",
    }.items():
        assert words in found[name]
    assert set(found) == set("bcdefg")
    single = as_table((X[:, :1] + 1e6).astype(np.float32))
    assert any("float32 holds too few digits" in note for note in notes(single))
    beside = as_table(np.column_stack([single.X, np.arange(n) % 7 / 7]).astype(np.float64))
    assert any("float32 holds too few digits" in note for note in notes(beside))


def test_numbers_that_never_were_float32_lack_no_digits():
    """float32 holds all of these whole numbers, quarters and hours exactly."""
    rng = np.random.default_rng(0)
    columns = {
        "a counter of 24 bits": 8_400_000 + np.rint(20 * rng.normal(size=200)),
        "short range": 1_000_000.0 + rng.integers(0, 30, 200),
        "quarters": 101_325 + np.rint(4 * rng.normal(size=200)) / 4,
        "two days": 20261128.0 + 2 * rng.integers(0, 2, 200),
        "pages of memory": 2.0**34 + 4096 * rng.integers(0, 20, 200),
    }
    assert not [note for note in notes(as_table(pd.DataFrame(columns))) if "digits" in note]
    when = pd.Timestamp("2026-11-28") + pd.to_timedelta(3 * rng.integers(0, 2, 200), unit="h")
    dates = as_table(pd.DataFrame({"when": when, **columns}), dates=True)
    assert not [note for note in notes(dates) if "digits" in note]


NORMAL = np.random.default_rng(0).normal(size=200)
MINUTES = 1.7e9 + np.random.default_rng(1).integers(0, 3600, 200)
SHORTENED = {  # training, new rows, are these named
    "a batch of one day": (20261124.0 + np.arange(200) % 7 - 3, np.full(200, 20261128.0), False),
    "another constant": (np.full(200, 20261127.0), np.full(200, 20261128.0), False),
    "a sensor that is off": (101_325 + NORMAL, np.zeros(200), False),
    "a sensor that got stuck": (NORMAL, np.full(200, 0.5), False),
    "a sensor that got stuck, far from 0": (1e9 + NORMAL, np.full(200, 1e9 + 0.6), False),
    "the usual value": (1e9 + NORMAL, np.full(200, 1e9 + np.median(NORMAL)), False),
    "usually 0": (np.maximum(NORMAL - 1, 0), np.zeros(200), False),
    "rounded by someone": (101_325 + NORMAL, np.rint(101_325 + NORMAL), False),
    "empty": (1e9 + np.arange(201) - 100, np.full(200, np.nan), False),
    "the same again": (MINUTES, MINUTES, False),
    "seconds in float32": (MINUTES, MINUTES.astype(np.float32), True),
    "one value": (1e9 + NORMAL, (1e9 + NORMAL).astype(np.float32), True),
    "gaps": (1e9 + NORMAL, np.where(NORMAL > 1, np.nan, 1e9), True),
}


@pytest.mark.filterwarnings("ignore:X. ")
@pytest.mark.parametrize("case", SHORTENED)
def test_new_numbers_are_called_shorter_only_if_float32_shortened_them(case):
    train, new, named = SHORTENED[case]
    options = ColumnSettings(impute="median")
    columns = TrainingRows.read(train[:, None], np.zeros(len(train)), options).columns
    tally = Tally(columns)
    for part in (new[:150], new[150:]):
        table = as_table(part.astype(float)[:, None])
        tally.add(table, columns.prepare(table), 0)
    assert (tally.fall_together() is not None) == named
    assert (tally.stuck() is not None) == case.startswith("a sensor that got stuck")


def _stays(n, rng):
    """Metres of which a tenth are 0, a count, and a column that is nearly always 0."""
    metres = np.where(rng.random(n) < 0.1, 0, rng.gamma(2, 900, n))
    return np.column_stack([metres, rng.poisson(3, n), rng.random(n) < 0.03]).astype(float)


MOVED = {
    "the same": (lambda X: X, ""),
    "kilometres": (lambda X: X * [1e-3, 1, 1], "of column 'a' (below "),
    "another origin": (lambda X: X + np.array([1500, 0, 0]), "of column 'a' (above "),
    "mostly out of range": (lambda X: X * [1000, 1, 1], ""),  # far_outside says so
    "one value": (lambda X: X * [0, 1, 1] + np.array([5, 0, 0]), ""),  # stuck says so
    "half of them": (lambda X: np.where(np.arange(len(X))[:, None] % 2, X, X * [1e-3, 1, 1]), ""),
    "gaps": (lambda X: np.where(np.arange(len(X))[:, None] % 20, np.nan, X), ""),
}


@pytest.mark.filterwarnings("ignore:X. ")
@pytest.mark.parametrize("case", MOVED)
def test_a_unit_whose_values_stay_in_the_training_range_is_named(case):
    change, said = MOVED[case]
    rng = np.random.default_rng(3)
    table = as_table(_stays(900, rng), columns=list("abc"))
    columns = TrainingRows.read(table, None, ColumnSettings(impute="median")).columns
    tally = Tally(columns)
    new = change(_stays(800, rng))
    for part in (new[:9], new[9:]):
        table = as_table(part, columns=list("abc"))
        tally.add(table, columns.prepare(table), 0)
    words = tally.moved()
    assert words is None if not said else words.startswith(said)
    few = Tally(columns)
    few.add(table.take(slice(20)), columns.prepare(table.take(slice(20))), 0)
    assert few.moved() is None


@pytest.mark.filterwarnings("ignore:X. ")
def test_dates_without_their_times_were_no_float32():
    when = pd.Timestamp("2026-11-28") + pd.to_timedelta(MINUTES - 1.7e9, unit="s")
    train = pd.DataFrame({"when": when, "x": NORMAL})
    columns = TrainingRows.read(train, np.zeros(200), ColumnSettings(dates=True)).columns
    tally = Tally(columns)
    new = as_table(train.assign(when=when.min().normalize()), dates=True)
    tally.add(new, columns.prepare(new), 0)
    assert tally.fall_together() is None


def test_an_index_that_pandas_wrote_is_named_in_a_frame_of_drawn_rows():
    """read_csv without index_col: of few shuffled rows neither order nor range looks like one."""
    rng = np.random.default_rng(0)
    drawn = rng.permutation(4000)[:100]
    for name in ("Unnamed: 0", "Unnamed: 0.1", "__index_level_0__", "index", "level_0", ""):
        (note,) = notes(
            as_table(np.column_stack([rng.normal(size=100), drawn]), columns=["a", name])
        )
        assert f"column {name!r}: has a name and values of the row index" in note
    others = {"Unnamed: 2": drawn % 7, "index": drawn + 0.5, "indexed": drawn, "level_1": -drawn}
    for name, values in others.items():
        assert not notes(as_table(values[:, None].astype(float), columns=[name]))


def test_a_column_in_several_units_is_named():
    """Bytes, kB and MB: what the small ones say is lost beside the large ones."""
    rng = np.random.default_rng(0)
    unit = 10.0 ** (4 * rng.integers(0, 3, 400))
    amounts = rng.lognormal(0, 3, 400)
    (note,) = notes(as_table(np.column_stack([unit * rng.normal(1, 0.01, 400), amounts])))
    assert "'x0'" in note and "'x1'" not in note and "write all in one unit" in note


@pytest.mark.parametrize("share", [0.01, 0.1, 0.4, 0.8])
@pytest.mark.parametrize("value", [-999, 999, 1e6])
def test_a_placeholder_is_named_however_many_rows_hold_it(share, value):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(500, 2))
    X[: int(share * 500), 1] = value
    X[:, 0] = np.where(X[:, 0] > 0, value, 0)  # two values are no measurement and a gap
    (note,) = notes(as_table(X))
    assert f"'x1' ({value:g} in {int(share * 500)} rows): one value far from all others" in note


@pytest.mark.parametrize("n", [11, 20, 49, 50, 120])
@pytest.mark.parametrize("rows", [1, 2, 3])
@pytest.mark.parametrize("value", [-999, 10**6])
def test_nothing_is_there_again_and_again_that_one_row_holds(n, rows, value):
    X = np.random.default_rng(0).normal(size=(n, 2))
    X[:rows, 1] = value
    said = " ".join(notes(as_table(X)))
    assert ("again and again" in said) == (rows >= 3 and n >= 20), said
    if rows == 1 and n < 50:
        assert f"'x1' ({value:g}; 1 rows in all): a few rows are far from all others" in said


@pytest.mark.parametrize(
    ("words", "anomaly"),
    [(["ok", "bad", "-1"], "bad"), (["ok", "bad", "-1.0"], "bad"), ([1, 2, -1], 2)],
)
def test_minus_one_is_unlabelled_beside_any_words(words, anomaly):
    """What refuses an empty label says to fill it with -1."""
    given = np.array(words * 3 + words[:1] * 4, dtype=object)
    found = read_labels(given, anomaly_label=anomaly)
    assert found.y.tolist() == [0, 1, -1] * 3 + [0] * 4
    assert found.classes.tolist() == words[:2]
    alone = read_labels(given[given != words[0]], anomaly_label=anomaly, majority=True)
    assert set(alone.y) == {0, 1}  # nothing else names the normal rows


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        *(([90, 1], True), ([90, 1, 1], True), ([90, 2], False), ([60, 1], False)),
        (([1] * 90), False),
    ],
)
def test_a_label_that_one_row_has_is_said(counts, said):
    """The total at the end of a table would be a normal row in silence."""
    words = [f"w{i}" for i, count in enumerate(counts) for _ in range(count)]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        read_labels([*words, *["bad"] * 20], anomaly_label="bad")
    found = [str(w.message) for w in caught]
    assert len(found) == said
    singles = ", ".join(f"'w{i}'" for i, count in enumerate(counts) if count == 1)
    assert not said or f"label {singles}: a single row has it" in found[0]


SLIPS = ["frauds", "faud", "froud", "fruad", "Frauds"]
NO_SLIPS = ["fraud1", "afraud", "braud", "freud's", "fr", "normal"]


@pytest.mark.parametrize("label", [*SLIPS, *NO_SLIPS])
def test_a_misspelt_label_of_anomalies_is_named(label):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        words = [*["ok"] * 60, *[label] * 3, *["fraud"] * 9]
        read_labels(words, anomaly_label="fraud")
        read_labels([*words, *[label] * 7], anomaly_label="fraud")  # what is more frequent is none
    told = [str(w.message) for w in caught if "but for a letter" in str(w.message)]
    assert told == [
        f"label {label!r} is written like 'fraud' but for a letter, and is taken as normal: write "
        "them alike if it is an anomaly"
    ] * (label in SLIPS)


def _heights(code, n_code, rng):
    heights = rng.normal(170, 10, 400).round(1)
    heights[rng.choice(400, n_code, replace=False)] = code
    return heights


@pytest.mark.parametrize(
    ("column", "said"),
    [
        (lambda rng: _heights(0, 12, rng), "(0 in 12 rows)"),
        (lambda rng: _heights(-1, 3, rng), "(-1 in 3 rows)"),
        (lambda rng: _heights(999, 12, rng).clip(max=310) + (_heights(999, 0, rng) > 1e9), ""),
        (lambda rng: _heights(0, 2, rng), ""),  # two people may be as odd
        (lambda rng: _heights(101, 12, rng), ""),  # no usual code
        (lambda rng: rng.poisson(3, 400), ""),
        (lambda rng: np.where(rng.random(400) < 0.2, 0, rng.exponential(50, 400)), ""),
        (lambda rng: np.where(rng.random(400) < 0.7, 0, rng.normal(170, 10, 400)), ""),
    ],
)
def test_a_usual_code_for_not_known_that_stands_apart_is_named(column, said):
    """A height of 0 is five deviations out, no more than an odd but true one may be."""
    values = column(np.random.default_rng(0)).astype(float)
    rng = np.random.default_rng(1)
    told = notes(as_table(np.column_stack([values, rng.normal(size=400)]), columns=["a", "b"]))
    told = [note for note in told if "one value apart" in note]
    assert len(told) == bool(said) and (not said or f"column 'a' {said}: " in told[0])


@pytest.mark.parametrize("start", [2**60, 2**63])
@pytest.mark.parametrize("step", [1, 100, 10**12])
def test_whole_numbers_that_float64_cannot_tell_apart_are_named(start, step):
    values = [start + step * (7 * i % 40) for i in range(40)]
    for column in (np.array(values, dtype=np.uint64), np.array(values, dtype=object), values):
        found = notes(as_table(np.array(column)[:, None]))
        assert any("float64 holds too few digits" in note for note in found) == (step < 10**12)


@pytest.mark.skipif(np.finfo(np.longdouble).nmant <= 52, reason="has no wider type than float64")
@pytest.mark.parametrize("centre", [0, 1, -1e9])
def test_a_long_double_whose_values_fall_together_is_named(centre):
    """They became one number, and all scores equal, without a word."""
    noise = np.random.default_rng(0).normal(size=(60, 1)).astype(np.longdouble)
    centre = np.longdouble(centre)
    for scale, said in ((abs(centre) * 2**-60 or np.longdouble("1e-400"), True), (1, False)):
        found = notes(as_table(centre + scale * noise))
        assert any("its values fall together" in note for note in found) == said, found


@drawn
@given(st.text())
def test_no_control_character_reaches_a_terminal(text):
    shown = printable(text)
    assert all(c.isprintable() for c in shown)
    assert printable("données 表") == "données 表"


def test_a_closed_or_narrow_terminal_ends_no_run(tmp_path):
    import subprocess
    import sys

    command = [sys.executable, str(ROOT / "dataloader.py")]
    (tmp_path / "é表.csv").write_text(
        "é,y\n" + "".join(f"{i},{int(i % 5 == 0)}\n" for i in range(20))
    )
    ascii_ = {"PYTHONIOENCODING": "ascii"}
    run = run_script("dataloader.py", tmp_path / "é表.csv", env=ascii_)
    assert run.returncode == 0 and "\\xe9\\u8868" in run.stdout
    closed = subprocess.run(["sh", "-c", '"$@" >&- 2>&-', "sh", *command], check=False)
    assert closed.returncode == 0
    gone = subprocess.run(["sh", "-c", '"$@" | true', "sh", *command], check=False)
    assert gone.returncode == 0


def test_what_nobody_expected_is_one_line_too():
    code = (
        "from swift_hydra.settings import run_main\ndef f(): raise KeyError('x\\x1b')\nrun_main(f)"
    )
    import subprocess
    import sys

    for more, lines in (([], 1), (["--debug"], 2)):
        run = subprocess.run(
            [sys.executable, "-c", code, *more], capture_output=True, text=True, cwd=ROOT
        )
        assert run.returncode == 2 and "\x1b" not in run.stderr.splitlines()[-1]
        assert "error: unexpected KeyError" in run.stderr
        assert (len(run.stderr.splitlines()) == 1) == (lines == 1)


def test_the_remedies_for_labels_and_for_words_that_are_texts_work(tmp_path):
    """Obeyed, -1 beside 1 was refused next; None among texts became the most frequent text."""
    rng = np.random.default_rng(2)
    frame = pd.DataFrame({"a": rng.normal(size=60), "alley": rng.choice(["Gravel", "Paved"], 60)})
    frame.loc[:5, "alley"] = "None"
    path = tmp_path / "t.csv"
    frame.assign(y=np.where(np.arange(60) < 9, "1", "")).to_csv(path, index=False)
    with pytest.raises(InputError, match=r"fill them \(0 if only anomalies are marked"):
        load_dataset(path, settings=ColumnSettings(impute="median", categorical="onehot"))
    frame.assign(y=(np.arange(60) < 9) * 1).to_csv(path, index=False)
    settings = ColumnSettings(impute="median", categorical="onehot")
    with pytest.warns(UserWarning, match=r"'alley' \(6 rows\): 'None' is taken for a gap"):
        load_dataset(path, settings=settings)
    read = load_dataset(path, settings=settings, reading=Reading(missing=""))
    assert "None" in read.table.texts[1]


@pytest.mark.parametrize("codes", [["DE", "FR", "NA"], ["red", "blue", "NA"]])
def test_the_code_of_namibia_is_said_to_be_taken_for_a_gap(tmp_path, codes):
    cells = [f"{i % 7}.5,{codes[i % 3]},{int(i < 9)}" for i in range(60)]
    path = tmp_path / "t.csv"
    path.write_text("\n".join(["a,land,y", *cells]) + "\n")
    settings = ColumnSettings(impute="median", categorical="onehot")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        load_dataset(path, settings=settings)
    told = ["'land' (20 rows): 'NA' is taken for a gap" in str(note.message) for note in said]
    assert sum(told) == (codes[0] == "DE")
