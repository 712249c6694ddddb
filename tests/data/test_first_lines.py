"""First lines without a bare number, empty lines at the end, and columns that deserve a word."""

import re
import warnings

import numpy as np
import pandas as pd
import pytest
from helpers import ROWS, label, write_rows

from swift_hydra.data.cells import Held
from swift_hydra.data.columns import ColumnSettings
from swift_hydra.data.files import How, stream_table
from swift_hydra.data.header import has_header
from swift_hydra.data.reading import Reading
from swift_hydra.data.rows import TrainingRows
from swift_hydra.dataloader import load_dataset
from swift_hydra.settings import InputError

DATES = ColumnSettings(dates=True)
TEXTS = ColumnSettings(categorical="frequency")
# Cells of a row, and the settings that take them.
KINDS = {
    "dates": (lambda i: f"2025-01-{1 + i % 28:02d}", DATES),
    "moments": (lambda i: f"2025-01-{1 + i % 28:02d} 12:{i % 60:02d}:00", DATES),
    "bools": (lambda i: str(i % 3 == 0), ColumnSettings()),
    "percent": (lambda i: f"{i}.{i % 7} %", TEXTS),
    "money": (lambda i: f"${i}.25", TEXTS),
    "areas": (lambda i: f"{i} kg/m2", TEXTS),
    "spans": (lambda i: f"{i % 24}:{i:02d}:30", TEXTS),
}


def notes_of(path, rows=60, **settings):
    """What is said of a file that is read."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        assert len(load_dataset(str(path), **settings).y) == rows
    return [str(warning.message) for warning in told]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_values_of_any_kind_name_no_column(tmp_path, kind, named):
    value, settings = KINDS[kind]
    path = write_rows(
        tmp_path / "t.csv",
        "first,second,label" if named else None,
        lambda i: f"{value(i)},{value(i + 5)},{'yes' if label(i) else 'no'}",
    )
    data = load_dataset(str(path), settings=settings)
    assert len(data.y) == len(ROWS)
    assert data.columns == (("first", "second") if named else ("x0", "x1"))


def test_a_row_of_bools_or_days_of_a_table_to_score_is_a_row(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("True,False\nFalse,False\n")
    known = How(Reading(), training={"header": "yes"}, named=True)
    assert [len(table) for table, _ in stream_table(path, ["c", "d"], 2, how=known)] == [2]
    path.write_text("2026-01-01,2026-01-02\n2026-02-01,2026-02-02\n")
    dated = known._replace(dates=True, held=Held((0, 1)))
    assert [len(table) for table, _ in stream_table(path, ["c", "d"], 2, how=dated)] == [2]


def test_numbers_outside_of_their_columns_above_few_texts_are_names(tmp_path):
    rng = np.random.default_rng(0)
    values = rng.normal(8, 1, (60, 4))
    path = write_rows(
        tmp_path / "t.csv",
        "7157,672,1956,3845,class",
        lambda i: ",".join(f"{x:.3f}" for x in values[i]) + (",tumor" if label(i) else ",normal"),
    )
    settings = ColumnSettings(anomaly_label="tumor")
    with pytest.warns(UserWarning, match="no values of their columns"):
        data = load_dataset(str(path), settings=settings)
    assert data.columns == ("7157", "672", "1956", "3845") and len(data.y) == 60


@pytest.mark.parametrize("first, said", [("0,1", True), ("1,0", False)])
def test_two_numbers_that_count_the_columns_are_worth_a_word(tmp_path, first, said):
    path = write_rows(tmp_path / "t.csv", first, lambda i: f"{5 + i % 9},{label(i)}")
    assert said == any("counts the columns (0 to 1)" in note for note in notes_of(path, rows=61))


@pytest.mark.parametrize(
    ("first", "row", "is_header"),
    [
        ("patient,ward,dose,5 mg,outcome", "p{i},w{j},d1,{i} mg,ok", True),
        ("name,city,1h,24h,status", "n{i},c{j},{i}h,{i}h,ok", True),
        ("true,pred,y", "False,True,no", True),
        ("2025-01-01,k8d0e,no", "2025-01-{d},k{i}f,no", False),
    ],
)
def test_names_and_values_side_by_side_are_worth_a_word(first, row, is_header):
    below = [row.format(i=i, j=i % 4, d=10 + i % 18).split(",") for i in range(40)]
    with pytest.warns(UserWarning, match="the first line is taken as"):
        assert has_header(first.split(","), below, "t.csv") == is_header


def test_counters_that_rise_beside_a_text_are_a_row():
    below = [["B" + str(i), str(i), f"{i}.5", str(1000 + i)] for i in range(1, 40)]
    below = [[*row, "ok"] for row in below]
    assert not has_header(["Adams", "1", "0.5", "1000", "ok"], below, "t.csv")


def test_lines_of_nothing_say_nothing_of_the_first_line():
    below = [["2025-01-02", "$0.35", "no"]] * 59 + [["", "", ""]] * 80
    assert not has_header(["2025-01-01", "$0.25", "no"], below, "t.csv")


def test_lines_of_nothing_below_rows_to_score_are_said(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("a,b\n1,1\n,\n , \n")
    with pytest.warns(UserWarning, match="2 lines without any cell end the table, from line 3 on"):
        pieces = [*stream_table(path, ["a", "b"], 2)]
    assert [len(table) for table, _ in pieces] == [1]


def test_columns_of_many_values_tell_no_label(tmp_path):
    rng = np.random.default_rng(0)
    path = write_rows(
        tmp_path / "t.csv",
        "a,b,y",
        lambda i: f"{rng.normal():.3f},{rng.normal():.3f},{i % 2}",
        range(16),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_dataset(str(path))


@pytest.mark.parametrize("impute", ["refuse", "median"])
def test_lines_of_nothing_below_a_table_are_no_rows(tmp_path, impute):
    path = write_rows(tmp_path / "t.csv", "a,b,y", lambda i: f"{i % 7}.5,{i % 5},{label(i)}")
    path.write_text(path.read_text() + ",,\n , ,\n")
    assert len(load_dataset(str(path), impute=impute).y) == 60
    path.write_text(path.read_text() + "1.5,2,0\n")
    with pytest.raises(InputError, match="labels are empty in 2 rows, first in line 62"):
        load_dataset(str(path), impute="median")


@pytest.mark.filterwarnings("ignore:the labels")
def test_rows_without_any_value_are_said(tmp_path):
    path = write_rows(
        tmp_path / "t.csv",
        "a,b,y",
        lambda i: f",,{label(i)}" if i in (20, 30) else f"{i % 7}.5,{i % 5},{label(i)}",
    )
    with pytest.warns(UserWarning, match=r"2 rows hold no value at all, first in line 22: leave"):
        load_dataset(str(path), impute="median")


@pytest.mark.parametrize("tells", [True, False])
def test_a_column_that_tells_the_label_is_said(tmp_path, tells):
    def row(i):
        kind = ("dos", "worm")[i % 2] if label(i) and (tells or i > 30) else "quiet"
        return f"{i % 7}.5,{kind},{label(i)}"

    path = write_rows(tmp_path / "t.csv", "a,attack_cat,label", row)
    said = notes_of(path, settings=ColumnSettings(categorical="onehot"))
    assert [bool(re.search("'attack_cat' says of every row", note)) for note in said] == [
        True
    ] * tells


@pytest.mark.parametrize("tells", [True, False])
def test_values_of_single_rows_tell_no_label(tmp_path, tells):
    """A column of zeros, and some fees, tells nothing where either label's are each another."""

    def row(i):
        fee = (i + 0.25 if i < 64 else 9) if label(i) else 0
        return f"{i % 7}.5,{fee if i not in (2, 11) or tells else i},{label(i)}"

    path = write_rows(tmp_path / "t.csv", "a,fee,label", row, rows=range(160))
    said = [note for note in notes_of(path, 160) if "'fee' says of every row" in note]
    assert len(said) == tells


@pytest.mark.parametrize("holder", ["anomalies", "normals", "some"])
@pytest.mark.parametrize("without", ["0.0", ""])
def test_a_column_of_many_values_that_one_class_alone_has_is_said(tmp_path, holder, without):
    """An amount charged back, the time when a case was closed: known after the fact."""

    def row(i):
        holds = label(i) == (holder != "normals") or (holder == "some" and i in (80, 81))
        return f"{i % 7}.5,{f'{i + 9}.25' if holds else without},{label(i)}"

    path = write_rows(tmp_path / "t.csv", "a,loss,label", row, rows=range(160))
    said = notes_of(path, 160, settings=ColumnSettings(impute="indicator"))
    told = any(re.search("'loss' says of every row", note) for note in said)
    # A value that all anomalies share, and no normal row has, may be what makes them anomalies.
    assert told == (holder == "anomalies" or (holder == "normals" and not without)), said


@pytest.mark.parametrize(
    "cell, shown",
    [
        ("0{:03d}", "'0000'"),
        ("1{}E4", "'10E4'"),
        ("3.{}", "'3.10'"),  # of Python 3.9 and 3.10 the second is the later one
        ("3.{:02d}", None),
        ("3.{}5", None),
        ("{}.5", None),
        ("{:02d}", None),
    ],
)
def test_a_number_that_looks_like_a_code_is_said(tmp_path, cell, shown):
    path = write_rows(
        tmp_path / "t.csv", "zip,b,y", lambda i: f"{cell.format(i % 12)},{i % 5}.5,{label(i)}"
    )
    told = [note for note in notes_of(path) if "if it is a code" in note]
    assert len(told) == (shown is not None) and all(f"'zip': {shown}" in note for note in told)


@pytest.mark.parametrize(
    "cell, word",
    [
        ("{} mm Hg", "a unit"),
        ("{} µg/m3", "a unit"),
        ("{} days 01:00:00", "times or pairs"),
        ("1.{}.3", None),
        ("2008-Q{}", None),
        ("{:02d}-2019", None),
        ("{:02d}JAN2026", "dates are taken"),
        ("{} Main 12", None),
        ("{:02d}.03.2026", "dates are taken"),
        ("{} March 2026", "dates are taken"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*counts the rows")
def test_texts_that_are_numbers_or_dates_get_the_right_word(tmp_path, cell, word):
    path = write_rows(
        tmp_path / "t.csv", "a,b,y", lambda i: f"{cell.format(1 + i % 28)},{i % 5}.5,{label(i)}"
    )
    said = notes_of(path, settings=TEXTS)
    words = ("unit", "dates", "times")
    told = [note for note in said if "'a'" in note and any(each in note for each in words)]
    assert len(told) == (word is not None) and all(word in note for note in told), said


def test_a_refused_column_of_parquet_has_no_gaps(tmp_path):
    pandas, _ = pytest.importorskip("pandas"), pytest.importorskip("pyarrow")
    frame = pandas.DataFrame({"a": np.arange(60) % 7 / 2, "y": [label(i) for i in ROWS]})
    frame.insert(0, "when", pandas.Timestamp("2026-01-01") + pandas.to_timedelta(ROWS, "h"))
    frame.to_parquet(tmp_path / "t.parquet")
    with pytest.raises(InputError, match="'when' holds dates") as error:
        load_dataset(str(tmp_path / "t.parquet"))
    assert "missing" not in str(error.value)


def test_labels_that_nobody_chose_are_refused_with_the_flag_that_chooses(tmp_path):
    path = write_rows(tmp_path / "t.csv", "is_fraud,a,b", lambda i: f"{label(i)},{i},{i / 7:.3f}")
    with pytest.raises(InputError, match="or name another column with --label-column"):
        load_dataset(str(path))
    with pytest.raises(InputError) as error:
        load_dataset(str(path), "b")
    assert "--label-column" not in str(error.value)


@pytest.mark.parametrize(
    "line",
    ['"{0},{0},{1}"', "{0}:{0}:{1}", "{0}^{0}^{1}", "{0}~{0}~{1}", "{0}\x01{0}\x01{1}"],
)
def test_lines_that_nothing_parts_are_refused_as_such(tmp_path, line):
    first = line.format("a", "y")
    path = write_rows(tmp_path / "t.csv", first, lambda i: line.format(i % 7, label(i)))
    with pytest.raises(InputError, match="nothing parts the cells of its first line"):
        load_dataset(str(path))
    if '"' not in line:
        path.write_text(f"sep={line[3]}\n{path.read_text()}")
        assert len(load_dataset(str(path)).columns) == 2
    first = "temp in    temp out    y"  # spaces do, but not in the names
    path = write_rows(tmp_path / "t.csv", first, lambda i: f"{i % 7}    {i}    {label(i)}")
    with pytest.raises(InputError, match="nothing parts the cells of its first line"):
        load_dataset(str(path))


@pytest.mark.parametrize("cell", ["x, {}", "'x, {}'", r'"say \"x, {}\""', r"x\, {}"])
def test_cells_with_what_parts_them_are_not_taken_for_names_of_rows_alone(tmp_path, cell):
    path = write_rows(
        tmp_path / "t.csv", "a,note,y", lambda i: f"{i / 7:.3f},{cell.format(i % 3)},{label(i)}"
    )
    with pytest.raises(InputError, match=r"or, if a cell holds ',', write it in quotes \(and a"):
        load_dataset(str(path))


@pytest.mark.parametrize("title", ["// made by X", "Report (1/2)", '"Report, 2026"', "; made by X"])
def test_a_title_is_no_line_that_nothing_parts(tmp_path, title):
    lines = [title, "a,y", *(f"{i},{label(i)}" for i in ROWS)]
    (tmp_path / "t.csv").write_text("\n".join(lines))
    with pytest.raises(InputError, match="line 2 has 2 cells, the first line has 1: is that a t"):
        load_dataset(str(tmp_path / "t.csv"))


def test_names_in_a_comment_are_not_lost_in_silence(tmp_path):
    path = tmp_path / "t.txt"
    X = np.column_stack([[i % 7, i / 7, label(i)] for i in ROWS]).T
    np.savetxt(path, X, header="a b label")
    (note,) = {note for note in notes_of(path) if "comment" in note}
    assert "'# a b label' is taken as a comment: if it names the columns take the # out" in note
    path.write_text(path.read_text().removeprefix("# "))
    assert load_dataset(str(path)).columns == ("a", "b")
    for header in ("made by some program", "1 2 3", "a,b,label"):
        np.savetxt(path, X, header=header)
        assert not [note for note in notes_of(path) if "comment" in note]


def test_annotations_of_influx_are_no_names(tmp_path):
    annotations = [
        "#group,false,false,true,false",
        "#datatype,string,long,double,long",
        "#default,_result,,,",
    ]
    rows = [f",,0,{i / 7:.3f},{label(i)}" for i in ROWS]
    for order in (annotations, [annotations[1], annotations[0], annotations[2]]):
        lines = [*order, ",result,table,_value,y", *rows]
        (tmp_path / "t.csv").write_text("\r\n".join(lines) + "\r\n")
        data = load_dataset(str(tmp_path / "t.csv"), drop_columns="result")
        assert data.columns == ("table", "_value") and data.y.tolist() == list(map(label, ROWS))
    for name in ("#group", "#default", "#datatype"):  # a column's own name
        table = write_rows(tmp_path / "t.csv", f"{name},b,y", lambda i: f"{i % 3},{i},{label(i)}")
        assert load_dataset(str(table)).columns == (name, "b")


# What is named .csv and is no table of text, and the words that say so.
NO_TABLES = {
    "records": (b'\n {"a": 1, "y": 0}\n{"a": 2, "y": 1}\n', "is JSON by its first line"),
    "list of records": (b'[{"a": 1, "y": 0}, {"a": 2, "y": 1}]', "is JSON by its first line"),
    "page": (b"\xef\xbb\xbf<!DOCTYPE html>\n<p>a, b</p>\n", "is HTML or XML by its first line"),
    "SPSS": (b"$FL2@(#) SPSS DATA FILE" + bytes(50), "is no text by its first bytes: save it"),
    "SAS": (bytes(12) + b"\xc2\xea\x81\x60" + bytes(50), "is no text by its first bytes: save"),
    "padding": (b"a,y\n1,0\n" + bytes(200), "is no text by its first bytes: save it"),
    "database": (b"SQLite format 3\0\x10\0\1\1", "is an SQLite database by its first bytes"),
}


@pytest.mark.parametrize("kind", NO_TABLES)
def test_files_of_another_kind_are_refused_as_such(tmp_path, kind):
    content, message = NO_TABLES[kind]
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(InputError, match=message) as error:
        load_dataset(str(tmp_path / "t.csv"), "none", categorical="onehot")
    assert "--encoding" not in str(error.value)


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
def test_texts_of_wide_characters_are_refused_with_their_encoding(tmp_path, encoding):
    text = "größe,y\n" + "1,0\n" * 100  # the last character of what is looked at may be cut
    for start in ("", "aĀ", "\U0001f600"):
        (tmp_path / "t.csv").write_bytes((start + text).encode(encoding))
        with pytest.raises(InputError, match=f"give --encoding {encoding}"):
            load_dataset(str(tmp_path / "t.csv"))


@pytest.mark.parametrize(("name", "said"), [("Is_Fraud", True), ("target", True), ("lid", False)])
def test_a_label_that_was_left_in_is_said(tmp_path, name, said):
    values = np.random.default_rng(0).normal(size=(60, 2)).round(3).tolist()
    labels = [int(i % 9 == 0) for i in range(60)]
    rows = "".join(f"{a},{b},{label}\n" for (a, b), label in zip(values, labels, strict=True))
    path = tmp_path / "t.csv"
    path.write_text(f"a,b,{name}\n" + rows)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        load_dataset(path, "none")
        frame = pd.DataFrame(values, columns=["a", "b"]).assign(**{name: labels})
        TrainingRows.read(frame, None, ColumnSettings())
        TrainingRows.read(frame, np.zeros(60), ColumnSettings())  # nothing hints at another label
        few = np.where(np.cumsum(labels) <= 5, labels, 0)  # the others hide
        TrainingRows.read(frame, few, ColumnSettings())
        frame.assign(smokes=few).to_csv(path, index=False)
        load_dataset(path)  # the last column is taken for the label
    left_in = [str(w.message) for w in caught if "named like a label" in str(w.message)]
    assert len(left_in) == 4 * said
    assert all(f"column {name!r} is named" in text for text in left_in)
