"""What decides how a file is read, and what must not: quotes, comments, columns left out."""

import os
import re
import time
from pathlib import Path

import numpy as np
import pytest
from helpers import ROWS, SHORT_FIT, label
from helpers import write_rows as write

from swift_hydra.data.catalogue import resolve_dataset
from swift_hydra.data.columns import ColumnSettings
from swift_hydra.data.files import How, stream_table
from swift_hydra.data.reading import Reading
from swift_hydra.dataloader import load_dataset
from swift_hydra.settings import InputError, one_line
from swift_hydra.SwiftHydra import SwiftHydra

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.usefixtures("few_candidates"),
]


def load(path, categorical="refuse", impute="refuse", anomaly_label=None, **how):
    settings = ColumnSettings(categorical=categorical, impute=impute, anomaly_label=anomaly_label)
    return load_dataset(str(path), settings=settings, **how)


# --- what is left out decides nothing -------------------------------------------------------------


def frauds(tmp_path):
    return write(
        tmp_path / "t.csv",
        "amount,step,isFraud,isFlagged",
        lambda i: f"{i * 1.5},{i % 7},{label(i)},{int(i % 11 == 0)}",
    )


def test_the_label_is_the_last_column_that_stays(tmp_path):
    data = load(frauds(tmp_path), drop_columns="isFlagged")
    assert data.table.columns == ["amount", "step"]
    assert data.y.tolist() == list(map(label, ROWS))


def test_a_label_that_is_left_out_is_refused(tmp_path):
    with pytest.raises(InputError, match="'isFraud' is the label column and in drop_columns"):
        load(frauds(tmp_path), label_column="isFraud", drop_columns="isFraud")
    with pytest.raises(InputError, match="no column is left"):
        load(frauds(tmp_path), drop_columns="amount,step,isFraud,isFlagged")


@pytest.mark.parametrize("dropped", ["pair", ""])
def test_a_column_that_is_left_out_does_not_decide_the_decimal_mark(tmp_path, dropped):
    sales = ("1,699", "6,264", "2,101", "950")
    path = write(
        tmp_path / "t.tsv",
        "pair\tsales\tlabel" if dropped else "sales\tlabel",
        lambda i: (f"{i % 9},{i % 7}\t" if dropped else "") + f"{sales[i % 4]}\t{label(i)}",
    )
    with pytest.raises(InputError, match="is the comma a decimal comma"):
        load(path, drop_columns=dropped)


def test_nor_does_another_column_of_a_table_to_score(tmp_path):
    path = write(tmp_path / "t.tsv", "pair\tsales", lambda i: f"{i % 9},{i % 7}\t1,699")
    with pytest.raises(InputError, match="is the comma a decimal comma"):
        list(stream_table(path, ["sales"], 1))


def test_names_may_have_spaces_and_commas(tmp_path):
    path = write(tmp_path / "t.csv", '  id, "a, b",c, label', lambda i: f"{i},{i},{i},{label(i)}")
    data = load(path, label_column=" label", drop_columns='" id","a, b"')
    assert data.table.columns == ["c"]


def test_spaces_in_the_names_of_parquet(tmp_path):
    pandas = pytest.importorskip("pandas", reason="data frames need pandas: pip install pandas")
    pytest.importorskip("pyarrow", reason="Parquet needs pyarrow: pip install pyarrow")
    rows = np.arange(60)
    frame = pandas.DataFrame({" Flow ID": rows, " b": rows * 1.5, " Label": rows % 8 == 0})
    frame.to_parquet(tmp_path / "t.parquet")
    data = load(tmp_path / "t.parquet", label_column="Label", drop_columns=" Flow ID")
    assert data.table.columns == [" b"]


# --- quotes and comments --------------------------------------------------------------------------


@pytest.mark.parametrize("dropped", ["name", None])
def test_stray_quotes_do_not_swallow_rows(tmp_path, dropped):
    path = write(
        tmp_path / "t.tsv",
        "a\tname\tlabel",
        lambda i: f"{i}\t{chr(34) if i in (5, 9) else ''}text {i}\t{label(i)}",
    )
    with pytest.raises(InputError, match="a quote joins lines 7 to 11"):
        load(path, categorical="frequency", drop_columns=dropped)


def test_texts_of_several_lines_are_texts(tmp_path):
    path = write(tmp_path / "t.csv", "a,name,label", lambda i: f'{i},"two\nlines, of",{label(i)}')
    assert len(load(path, drop_columns="name").y) == 60


@pytest.mark.parametrize("space", ["", " ", "  "])
def test_quotes_after_a_space_are_quotes(tmp_path, space):
    path = write(
        tmp_path / "t.csv",
        f'a,{space}"name",{space}label',
        lambda i: f'{i * 1.5},{space}"{"red, blue" if i % 2 else "red"}",{space}{label(i)}',
    )
    data = load(path, categorical="onehot")
    assert data.table.columns == ["a", "name"]
    assert sorted(data.table.texts[1]) == ["red", "red, blue"]


def test_spaces_inside_of_quotes_stay_where_spaces_part_cells(tmp_path):
    path = write(
        tmp_path / "t.txt",
        "a name label",
        lambda i: f'  {i * 1.5}   "{"red  one" if i % 2 else "blue"}" {label(i)} ',
    )
    assert sorted(load(path, categorical="onehot").table.texts[1]) == ["blue", "red  one"]


def test_a_row_that_begins_with_a_hash_is_a_row(tmp_path):
    path = write(tmp_path / "t.csv", '#A7,"x, y",5,0', lambda i: f"#B{i},z,{i % 5},{label(i)}")
    assert len(load(path, categorical="frequency", drop_columns="x0").y) == 61


def test_a_comment_with_as_many_commas_as_the_names_is_one(tmp_path):
    path = write(
        tmp_path / "t.csv",
        "# Written by R, 2024-01-01, v1, x\na,b,c,label",
        lambda i: f"{i * 1.5},{i % 7},{i % 5},{label(i)}",
    )
    assert load(path).table.columns == ["a", "b", "c"]


def test_names_after_a_hash_are_names(tmp_path):
    path = write(tmp_path / "t.csv", "# a,b,label", lambda i: f"{i * 1.5},{i % 7},{label(i)}")
    assert load(path).table.columns == ["# a", "b"]


def test_names_that_are_one_too_few_are_refused(tmp_path):
    path = write(
        tmp_path / "t.txt", '"a" "b" "label"', lambda i: f'"{i}" {i * 1.5} {i % 7} {label(i)}'
    )
    with pytest.raises(InputError, match=r"first line has 3 cells, the others 4.*col\.names=NA"):
        load(path)


# --- gaps and numbers -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["csv", "float.csv", "parquet", "npz"])
def test_a_gap_that_is_a_number_is_one_in_every_format(tmp_path, kind):
    pandas = pytest.importorskip("pandas", reason="data frames need pandas: pip install pandas")
    whole = np.array([-999 if i % 9 == 0 else 3 * i for i in ROWS])
    frame = pandas.DataFrame(
        {"age": whole, "b": np.arange(60) % 7, "label": list(map(label, ROWS))}
    )
    if kind == "float.csv":
        frame = frame.astype({"age": float})
    path = tmp_path / f"t.{kind}"
    if kind == "parquet":
        pytest.importorskip("pyarrow", reason="Parquet needs pyarrow: pip install pyarrow")
        frame.to_parquet(path)
    elif kind == "npz":
        np.savez(path, X=frame[["age", "b"]], y=frame["label"])
    else:
        frame.to_csv(path, index=False)
    data = load(path, impute="median", reading=Reading(missing="-999"))
    assert np.isnan(data.table.X[:, 0]).tolist() == (whole == -999).tolist()
    assert data.table.reading["missing"] == "-999"
    how = How(training=data.table.reading)
    columns = None if kind == "npz" else ["age", "b"]
    scored = np.concatenate([table.X for table, _ in stream_table(path, columns, 2, how=how)])
    assert np.array_equal(scored, data.table.X, equal_nan=True)


@pytest.mark.parametrize("kind", ["frame", "objects", "texts"])
def test_what_stood_for_a_gap_in_the_training_file_does_so_in_frames_and_arrays(tmp_path, kind):
    pandas = pytest.importorskip("pandas", reason="data frames need pandas: pip install pandas")
    bmi = [-999 if i % 9 == 0 else 20 + i % 13 for i in ROWS]
    city = ["unk" if i % 10 == 0 else "xyz"[i % 3] for i in ROWS]
    frame = pandas.DataFrame({"bmi": bmi, "city": city, "b": np.arange(60) % 7 * 1.5})
    path = tmp_path / "t.csv"
    frame.assign(label=list(map(label, ROWS))).to_csv(path, index=False)
    how = {"impute": "median", "categorical": "onehot"}
    data = load(path, **how, reading=Reading(missing="-999,unk"))
    fitted = SwiftHydra(**how, **SHORT_FIT).fit(data.table, data.labels.y)
    assert set(fitted.columns_.texts[1]) == {"x", "y", "z"}
    rows = {
        "frame": frame,
        "objects": frame.to_numpy(dtype=object),
        "texts": frame.astype(str).to_numpy(),
    }
    scores = fitted.decision_function(rows[kind])
    assert np.array_equal(scores, fitted.decision_function(data.table))
    numbers = frame.drop(columns="city")
    plain = SwiftHydra(impute="median", **SHORT_FIT).fit(
        load(path, impute="median", reading=Reading(missing="-999"), drop_columns="city").table
    )
    told = numbers.replace(-999, np.nan)
    assert np.array_equal(plain.decision_function(numbers), plain.decision_function(told))


def test_gaps_are_known_where_the_first_line_is_judged(tmp_path):
    path = write(
        tmp_path / "t.csv", "n/k,85,1,0", lambda i: f"{3 * i},{80 + i % 9},{i % 2},{label(i)}"
    )
    assert len(load(path, impute="median", reading=Reading(missing="n/k")).y) == 61


def test_labels_with_decimal_commas(tmp_path):
    path = write(tmp_path / "t.csv", "a;b;label", lambda i: f"{i},5;{i % 7},25;{label(i)},0")
    assert load(path).y.tolist() == list(map(label, ROWS))
    assert load(path, anomaly_label="1").y.tolist() == list(map(label, ROWS))


def test_a_label_nan_is_a_word_where_it_is_no_gap(tmp_path):
    words = Reading(missing="")
    path = write(
        tmp_path / "t.csv", "a,y", lambda i: f"{i % 7},{'nan' if i % 9 == 4 else label(i)}"
    )
    with pytest.raises(InputError, match="the labels are '0', '1', 'nan': say which"):
        load(path, reading=words)
    assert load(path, anomaly_label="nan", reading=words).y.tolist() == [i % 9 == 4 for i in ROWS]
    ones = [i % 9 != 4 and label(i) for i in ROWS]
    assert load(path, anomaly_label="1", reading=words).y.tolist() == ones


@pytest.mark.parametrize("gap", ["\\N", "#DIV/0!", "1.#QNAN", "-", "#NULL!", "(null)", "n.d.", "–"])
def test_what_others_write_for_a_gap_has_a_remedy(tmp_path, gap):
    path = write(tmp_path / "t.csv", "a,label", lambda i: f"{i if i % 5 else gap},{label(i)}")
    with pytest.raises(InputError, match=re.escape(f"--missing='{gap}'")):
        load(path)
    assert np.isnan(load(path, impute="median", reading=Reading(missing=gap)).table.X).sum() == 12


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
def test_encodings_without_a_mark_are_named(tmp_path, encoding):
    path = write(tmp_path / "t.csv", "a,label", lambda i: f"{i},{label(i)}", encoding=encoding)
    with pytest.raises(InputError, match=f"--encoding {encoding}"):
        load(path)
    assert len(load(path, reading=Reading(encoding=encoding)).y) == 60


def test_utf_32_with_its_mark(tmp_path):
    path = write(tmp_path / "t.csv", "a,label", lambda i: f"{i},{label(i)}", encoding="utf-32")
    assert len(load(path).y) == 60


# --- bounds ---------------------------------------------------------------------------------------


def test_long_texts_take_linear_time(tmp_path):
    path = write(
        tmp_path / "t.csv", "a,b,label", lambda i: f"1{' ' * 30_000}!{i},{i % 5},{label(i)}"
    )
    start = time.process_time()
    load(path, categorical="ordinal")
    assert time.process_time() - start < 5  # 64 seconds for twelve of 16,000, once


def test_many_repeated_names_take_linear_time(tmp_path):
    names = ["amount", "age", *(f"c{i // 2}" for i in range(40_000))]
    path = write(tmp_path / "t.csv", ",".join(names), lambda i: ",".join(["1"] * len(names)), [0])
    start = time.process_time()
    next(stream_table(path, ["amount", "age"], 2))
    assert time.process_time() - start < 5  # minutes, once


def test_many_repeated_names_that_are_used_take_linear_time(tmp_path):
    names = [f"c{i // 2}" for i in range(20_000)]
    path = write(tmp_path / "t.csv", ",".join(names), lambda i: ",".join(["1"] * len(names)), [0])
    known = [name for i in range(10_000) for name in (f"c{i}", f"c{i}.1")]
    start = time.process_time()
    ((table, _),) = stream_table(path, known, len(known))
    assert table.X.shape == (1, 20_000)
    assert time.process_time() - start < 5  # 10 s at this width, minutes at the widest


def test_a_number_of_thousands_of_digits_is_infinite(tmp_path):
    path = write(
        tmp_path / "t.csv", f"0,1,2\n{'9' * 5000},2,1", lambda i: f"{i},{i % 5},{label(i)}"
    )
    with pytest.raises(InputError, match="infinite"):
        load(path)


def test_messages_are_bounded(tmp_path):
    path = write(tmp_path / "t.csv", "a,label", lambda i: f"{i},{chr(97 + i % 10) * 10_000}")
    with pytest.raises(InputError) as caught:
        load(path)
    assert len(str(caught.value)) < 3000
    path = write(tmp_path / "t.csv", "a;b;label", lambda i: f"1{'.000' * 5000 * (i > 5)};2;{i % 2}")
    with pytest.raises(InputError, match="decimal point") as caught:
        load(path)
    assert len(str(caught.value)) < 3000
    name = "é" * 100_000
    path = write(tmp_path / "t.csv", f"a,{name}", lambda i: f"{i},{'xy'[i % 2]}")
    with pytest.raises(InputError) as caught:
        load(path)
    line = one_line(caught.value)
    assert len(line) < 5000 and line.endswith("with --label-column")


def test_no_column_and_no_table(tmp_path):
    arrow = pytest.importorskip("pyarrow", reason="Parquet needs pyarrow: pip install pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(arrow.table({}), tmp_path / "t.parquet")
    with pytest.raises(InputError, match="has no column"):
        load(tmp_path / "t.parquet")
    np.savez(tmp_path / "t.npz", X=np.array(1.0))
    with pytest.raises(InputError, match="must be 2-D"):
        list(stream_table(tmp_path / "t.npz", None, 1))


def test_a_tilde_in_a_name_is_part_of_it(tmp_path):
    here = Path.cwd()
    os.chdir(tmp_path)
    try:
        write(Path("~$t.csv"), "a,label", lambda i: f"{i * 1.5},{label(i)}")
        assert len(load("~$t.csv").y) == 60
        assert len(list(stream_table("~$t.csv", ["a"], 1))) == 1
        with pytest.raises(InputError, match="does not exist"):
            resolve_dataset("~nobody/t.csv")
    finally:
        os.chdir(here)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_text_of_two_lines_with_as_many_commas_as_a_row_is_one(tmp_path, end):
    """Each half could be a row; quotes as quotes are written say that they are one."""
    lines = ["id,address,x,y"]
    for i in range(12):
        lines += [f'{i},"Main St {i}, Berlin, B', f'Germany, EU",{i}.5,{i % 2}']
    (tmp_path / "t.csv").write_bytes(end.join(lines).encode())
    with pytest.warns(UserWarning, match="could be a row of its own: they are taken as one"):
        table = load(tmp_path / "t.csv", categorical="frequency", drop_columns="id").table
    assert len(table) == 12
    assert table.texts[0][0] == "Main St 0, Berlin, B\nGermany, EU"
