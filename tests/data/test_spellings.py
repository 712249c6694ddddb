"""Ways to write numbers, names and gaps that people's files have: read as meant, or asked about."""

import bz2
import re
import warnings

import numpy as np
import pandas as pd
import pytest
from helpers import ROWS, SHORT_FIT, label, write_rows

from swift_hydra import SwiftHydra
from swift_hydra.data.cells import Held
from swift_hydra.data.columns import ColumnSettings, Preparation
from swift_hydra.data.files import How, stream_table
from swift_hydra.data.reading import Reading, number
from swift_hydra.data.suspicious import notes
from swift_hydra.data.table import as_table
from swift_hydra.data.text_files import PIECE_ROWS
from swift_hydra.dataloader import load_dataset
from swift_hydra.settings import InputError

pytestmark = pytest.mark.usefixtures("few_candidates")


def written(tmp_path, first, row, name="t.csv", rows=ROWS):
    return write_rows(tmp_path / name, first, row, rows)


def load(path, label_column=None, **settings):
    return load_dataset(str(path), label_column, settings=ColumnSettings(**settings))


# --- what marks mean ------------------------------------------------------------------------------


@pytest.mark.parametrize("mark", ".,")
@pytest.mark.parametrize("cell", ["0,113", "0.113"])
def test_nobody_groups_digits_after_a_nought(mark, cell):
    value = number(cell, mark)
    assert value == 0.113 if mark in cell else value is None


@pytest.mark.parametrize(
    ("cell", "value"),
    [("7\u2019876.50", 7876.5), ("-,25", None), (".94", 0.94), ("1,234.5", 1234.5)],
)
def test_numbers_with_a_point(cell, value):
    assert number(cell) == value


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        *((",94", 0.94), ("-,25", -0.25), ("1.234.567,8", 1234567.8), ("1.234", 1234.0)),
        *(("192.168.178.198", None), ("10.0.0.1", None), ("999.168.178.198", 999168178198.0)),
    ],
)
def test_numbers_with_a_comma_and_addresses(cell, value):
    assert number(cell, ",") == value


def test_a_fraction_below_one_tells_of_a_decimal_comma(tmp_path):
    path = written(
        tmp_path, "Zeit;p;label", lambda i: f"{i % 24}.{i % 60:02d};0,{113 + i};{label(i)}"
    )
    with pytest.raises(InputError, match=r"column 'Zeit' holds text, first '0\.00'"):
        load(path)  # times are no numbers beside decimal commas
    data = load_dataset(str(path), drop_columns="Zeit")
    assert data.X[:, 0].tolist() == [(113 + i) / 1000 for i in ROWS]


def test_times_do_not_say_what_a_comma_is(tmp_path):
    path = written(
        tmp_path, "Zeit;Wert;label", lambda i: f"{i % 24}.{i % 60:02d};63,{141 + i};{label(i)}"
    )
    with pytest.raises(InputError, match="column 'Wert' holds '63,141': is the comma a decimal"):
        load(path)
    data = load_dataset(str(path), reading=Reading(decimal="."))
    assert data.X[0, 1] == 63141


def test_a_decimal_point_says_what_a_quoted_comma_is(tmp_path):
    path = written(tmp_path, "a,b,label", lambda i: f'{i / 8},"63,{141 + i}",{label(i)}')
    assert load(path).X[0, 1] == 63141


@pytest.mark.parametrize("code", ["beta-3", "1.0.3", "10.0.0.1", "v2"])
@pytest.mark.parametrize(("mark", "other"), [(",", "."), (".", ",")])
def test_codes_do_not_say_what_the_decimal_mark_is(tmp_path, code, mark, other):
    """Versions in a table of decimal commas, and pairs in one of decimal points."""
    cells = (code, f"1{other}1", f"2{other}0")
    rows = lambda i: f"{cells[i % 3]};{i}{mark}5;{label(i)}"  # noqa: E731
    path = written(tmp_path, "firmware;a;label", rows)
    data = load(path, categorical="onehot")
    assert len(data.table.texts) == 1
    assert data.table.X[:, 1].tolist() == [i + 0.5 for i in ROWS]


def test_decimal_commas_beside_decimal_points_are_asked_about(tmp_path):
    path = written(tmp_path, "q;a;b;label", lambda i: f"{i};{i},5;{i}.5;{label(i)}")
    with pytest.raises(InputError, match="'a' has decimal commas, column 'b' decimal points"):
        load(path, categorical="onehot")
    with pytest.raises(InputError, match=r"column 'b' holds text, first '0\.5'"):
        load_dataset(str(path), reading=Reading(decimal=","))


def test_points_between_thousands_are_named_where_commas_part_cells(tmp_path):
    """As fractions 1.970 and 276 are not written by one program: it keeps zeros, or it does not."""
    rng = np.random.default_rng(0)
    counts = [*rng.integers(10, 99_999, 80), 1970, 276]

    def table(written):
        lines = (f"{written(n)},{i % 7},{i % 9 == 0:d}" for i, n in enumerate(counts))
        path = tmp_path / "t.csv"
        path.write_text("\n".join(["n,b,y", *lines]) + "\n")
        return path

    path = table(lambda n: f"{n:,}".replace(",", "."))
    with pytest.warns(UserWarning, match=r"'n': '\d+\.\d\d0' is taken as a fraction, beside '\d+'"):
        load_dataset(path)
    data = load_dataset(path, reading=Reading(decimal=","))
    assert data.X[:, 0].tolist() == counts
    # What was said of the training table holds for its own file.
    ((new, _),) = stream_table(path, ["n", "b"], 2, how=How(training=data.table.reading))
    assert new.X[:, 0].tolist() == counts
    ((new, _),) = stream_table(path, ["n", "b"], 2, how=How(Reading(decimal=".")))
    assert new.X[-1, 0] == 276 and new.X[-2, 0] == 1.97
    ((new, _),) = stream_table(path, ["n", "b"], 2)  # rows to score: nothing is asked
    for written in (
        lambda n: f"{n / 1000:.3f}",  # fractions and whole numbers as programs write them
        lambda n: f"{n / 1000:g}",
        str,
        lambda n: f"{n / 1000:.3f}" if n % 5 else "0",
        lambda n: f"{n:,}".replace(",", ".") + " kg" * int(n % 3 == 0),  # texts
    ):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            load_dataset(table(written), settings=ColumnSettings(categorical="onehot"))
        assert "fraction" not in " ".join(str(w.message) for w in caught)


def test_usual_words_for_gaps_are_named_where_others_take_their_place(tmp_path):
    colours = ["red", "blue", "null", "red"] * 15
    lines = [f"{'-' if i == 7 else i},{c},{i % 9 == 0:d}" for i, c in enumerate(colours)]
    path = tmp_path / "t.csv"
    path.write_text("\n".join(["n,colour,y", *lines]) + "\n")
    how = ColumnSettings(impute="median", categorical="onehot")
    with pytest.raises(InputError, match=r"a gap\? give --missing='-'"):
        load_dataset(path)
    told = r"'null' \(15 of column 'colour'\) is taken as a text, .* --missing='-,null'"
    with pytest.warns(UserWarning, match=told):
        load_dataset(path, settings=how, reading=Reading(missing="-"))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        data = load_dataset(path, settings=how, reading=Reading(missing="-,null"))
    assert np.isnan(data.table.X).sum() == 16
    assert "'colour'" not in " ".join(str(w.message) for w in caught)


def test_every_column_that_looks_like_codes_is_named(tmp_path):
    rows = [f"{i:05d},0{i % 90 + 100},{i},{i % 9 == 0:d}" for i in range(120)]
    path = tmp_path / "t.csv"
    path.write_text("\n".join(["zip,dep,n,y", *rows]) + "\n")
    told = r"'zip': '00000', 'dep': '0100' are taken as numbers: .* \(c00000\)"
    with pytest.warns(UserWarning, match=told) as caught:
        load_dataset(path)
    assert sum("taken as" in str(w.message) for w in caught) == 1
    path.write_text("\n".join(["zip,dep,n,y", *rows, "00a4,0100,1,0"]) + "\n")
    with warnings.catch_warnings(record=True) as caught:  # texts after all, which is refused
        warnings.simplefilter("always")
        with pytest.raises(InputError, match="'zip' holds text, first '00a4'"):
            load_dataset(path)
    assert "'zip'" not in " ".join(str(w.message) for w in caught)


def test_a_code_may_stand_far_below(tmp_path):
    rows = [f"{i},{i % 5},{i % 9 == 0:d}" for i in range(PIECE_ROWS)]
    path = tmp_path / "t.csv"
    path.write_text("\n".join(["n,b,y", *rows, "007,1,0"]) + "\n")
    with pytest.warns(UserWarning, match="'n': '007' is taken as a number"):
        load_dataset(path)


def test_true_among_numbers_is_one_thing_in_training_and_in_scoring(tmp_path):
    path = tmp_path / "t.csv"
    frame = pd.DataFrame({"a": np.arange(60.0), "b": np.arange(60.0) % 7})
    model = SwiftHydra(generator="none", **SHORT_FIT).fit(frame)
    model.decision_function(frame.assign(a=1.0))
    how = How(held=model.columns_.held)
    for cells in (["TRUE"] * 60, ["true", "False", "7.5"] * 20):
        new = frame.assign(a=cells)
        new.to_csv(path, index=False)
        told = f"column 'a' holds '{cells[0]}'"
        with pytest.raises(InputError, match=told):
            model.decision_function(new)
        with pytest.raises(InputError, match=told):
            list(stream_table(path, ["a", "b"], 2, how=how))
    flags = frame.assign(a=np.arange(60) % 2)
    of_flags = SwiftHydra(generator="none", **SHORT_FIT).fit(flags)
    words = flags.assign(a=["TRUE" if flag else "FALSE" for flag in flags["a"]])
    assert np.array_equal(of_flags.decision_function(flags), of_flags.decision_function(words))


def test_what_training_knew_as_texts_does_not_say_what_the_decimal_mark_is(tmp_path):
    path = written(tmp_path, "firmware;a", lambda i: f"1.1;{i},5")
    ((rows, _),) = stream_table(path, ["firmware", "a"], 2, {0: ["1.1", "2.0"]})
    assert rows.X[:, 1].tolist() == [i + 0.5 for i in ROWS]


@pytest.mark.parametrize("few", ["1.231", "1.230"])
def test_thousands_beside_short_numbers_are_asked_about(tmp_path, few):
    path = written(
        tmp_path, "p;q;label", lambda i: f"{few if i % 20 == 3 else 900 + i};{i};{label(i)}"
    )
    with pytest.raises(InputError, match=f"column 'p' holds '{few}': is the point a decimal"):
        load(path)


def test_a_gap_may_be_a_decimal_of_float32():
    values = np.array([1.5, -999.9, 2.5], dtype=np.float32)
    assert np.isnan(Reading(missing="-999.9").without_gaps(values)).tolist() == [False, True, False]


# --- names and separators -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "row"),
    [
        ("400.0,400.5,401.0,class", lambda i: f"{i / 70},{i / 90},{i / 80},{'ab'[label(i)]}"),
        ("4000,3998,3996,class", lambda i: f"{i / 70},{i / 90},{i / 80},{'ab'[label(i)]}"),
        ("2019,2020,2021,status", lambda i: f"{i},{i + 7},{i * 2},{'ab'[label(i)]}"),
        ("0.1,0.5,0.9,label", lambda i: f"{i},{i + 1},{i * 2},{'ab'[label(i)]}"),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_names_that_are_numbers_are_names(tmp_path, header, row):
    data = load(written(tmp_path, header, row), anomaly_label="b")
    assert len(data.X) == len(ROWS)
    assert data.table.columns == header.split(",")[:-1]


@pytest.mark.parametrize("first", ["$3,5,0", "\u22123,5,0"])
def test_a_sign_is_no_name(tmp_path, first):
    path = written(tmp_path, first, lambda i: f"{i},{i % 7},{label(i)}")
    with pytest.raises(InputError, match=r"holds text, first .* in line 1"):
        load(path)


@pytest.mark.parametrize(
    ("mark", "row"),
    [
        ("\t", lambda i: f"{'xyz'[i % 3]}\t{i},{83 + i % 9}\t{label(i)}"),
        (";", lambda i: f"red, big;{i};{label(i)}"),
        (";", lambda i: f"{i},5;A{i % 7};{label(i)}"),
        ("|", lambda i: f"{i}|a, b; c|{label(i)}"),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_comma_within_a_cell_parts_nothing(tmp_path, mark, row):
    path = written(tmp_path, None, row)
    data = load_dataset(str(path), settings=ColumnSettings(categorical="ordinal"))
    assert data.X.shape == (60, 3)  # two columns, and whether the text of one is new
    assert data.y.tolist() == list(map(label, ROWS))


def test_lines_that_end_with_what_parts_the_cells(tmp_path):
    data = load(written(tmp_path, "a;b;label;", lambda i: f"{i};{i % 7};{label(i)};"))
    assert data.table.columns == ["a", "b"] and data.y.tolist() == list(map(label, ROWS))
    path = written(tmp_path, "a,b,label", lambda i: f"{i},{i % 7},{label(i)},", "u.csv")
    with pytest.raises(InputError, match="which is empty: take the last ',' out"):
        load(path)
    path = written(tmp_path, "a;b;", lambda i: f"{i};{label(i)};{'x' * (i == 59)}", "v.csv")
    with pytest.raises(InputError):  # the last column is not empty everywhere
        load(path)


@pytest.mark.filterwarnings("ignore:t.csv. column")
@pytest.mark.parametrize("ends", ["", ",", ",,,"])
@pytest.mark.parametrize("first", ["a,b,label", None])
def test_columns_of_nothing_at_the_end_are_none(tmp_path, first, ends):
    def row(i):
        return f"{i / 8},{i % 7},{label(i)}{ends}"

    data = load(written(tmp_path, first and first + ends, row))
    assert data.X.shape == (60, 2) and data.y.tolist() == list(map(label, ROWS))
    names = first and first + ends
    late = written(tmp_path, names, lambda i: row(i) + "x" * (i == 250), rows=range(300))
    if ends:
        line, column = 251 + bool(first), 3 + len(ends)
        with pytest.raises(InputError, match=f"line {line} has 'x' in column {column}, which has"):
            load(late)


@pytest.mark.parametrize("ends", ["", ",", ",,"])
@pytest.mark.parametrize("n", [1, 5])
@pytest.mark.parametrize("first", ["a,b,c", None])
def test_a_last_column_without_a_value_stays_where_training_had_it(tmp_path, first, n, ends):
    path = written(tmp_path, first and first + ends, lambda i: f"{i}.5,2,{ends}", rows=range(n))
    how = How(training={"decimal": None, "missing": None, "header": "yes"}, named=True)
    ((rows, _),) = stream_table(path, ["a", "b", "c"], 3, how=how)
    assert rows.X.shape == (n, 3) and np.isnan(rows.X[:, 2]).all()


@pytest.mark.parametrize("first", ["0.5,1.5,y", "2019,2018,class", "7,3,y"])
@pytest.mark.parametrize("asked", [None, "1", 0, "y"])
def test_a_name_above_labels_is_no_label(tmp_path, first, asked):
    path = written(tmp_path, first, lambda i: f"{i % 7},{i % 5 / 2},{label(i)}")
    with pytest.raises(InputError, match=r"label in line 1 is '.*all others are numbers.*--header"):
        load_dataset(
            str(path), settings=ColumnSettings(anomaly_label=asked), reading=Reading(header="no")
        )
    data = load_dataset(str(path), reading=Reading(header="yes"))
    assert data.y.tolist() == list(map(label, ROWS))
    path = written(tmp_path, "a,b,y", lambda i: f"{i},{i % 5},{'bad' if i == 0 else label(i)}")
    with pytest.raises(InputError, match="--anomaly-label"):  # a row of its own
        load(path)


def test_names_of_several_lines(tmp_path):
    header = '"Temp\n(C)";"Druck\n(hPa)";Klasse'
    data = load(written(tmp_path, header, lambda i: f"{i},5;{i % 9},25;{label(i)}"))
    assert data.table.columns == ["Temp\n(C)", "Druck\n(hPa)"] and data.X[1].tolist() == [1.5, 1.25]


def test_a_title_is_named(tmp_path):
    path = written(tmp_path, "Station 7\na;b;label", lambda i: f"{i};{i % 7};{label(i)}")
    with pytest.raises(InputError, match="line 2 has 3 cells, the first line has 1: is that a tit"):
        load(path)


@pytest.mark.parametrize(
    ("start", "what"),
    [
        (b"PK\3\4", "zip"),
        (b"\x1f\x8b\x08", "gzipped"),
        (b"PAR1\x15", "Parquet"),
        (b"ARROW1\0\0\xff\xff", "Arrow.*write it as Parquet"),
        (bz2.compress(b"a,b\n1,2\n"), "bzip2 .*unzip"),
        (bz2.compress(b"a,b\n1,2\n", 1), "bzip2 .*unzip"),
    ],
)
def test_other_formats_are_named_by_their_first_bytes(tmp_path, start, what):
    path = tmp_path / "t.csv"
    path.write_bytes(start + b"\0\0\0 and so on")
    with pytest.raises(InputError, match=f"is .*{what}"):
        load(path)


@pytest.mark.parametrize("name", ["PK", "PAR1", "ARROW1", "BZh9", "FEA1"])
def test_names_like_the_first_bytes_of_other_formats_are_names(tmp_path, name):
    data = load(written(tmp_path, f"{name},b,label", lambda i: f"{i},{i % 7},{label(i)}"))
    assert data.table.columns == [name, "b"]


def test_accents_in_two_parts_are_one_letter(tmp_path):
    path = written(tmp_path, "Gro\u0308\u00dfe,b", lambda i: f"{i},{i % 7}", "new.csv")
    ((rows, _),) = stream_table(path, ["Gr\u00f6\u00dfe", "b"], 2)
    assert len(rows) == 60


def test_a_row_of_known_texts_is_a_row(tmp_path):
    path = written(tmp_path, None, lambda i: "xy"[i % 2] + ",Yes", "new.csv", rows=range(3))
    how = How(training={"decimal": None, "missing": None, "header": "yes"}, named=True)
    texts = {0: ["x", "y"], 1: ["No", "Yes"]}
    ((rows, _),) = stream_table(path, ["a", "b"], 2, texts, how=how)
    assert len(rows) == 3


def test_commas_without_quotes_part_cells_whatever_training_had(tmp_path):
    path = written(tmp_path, "a,b", lambda i: "1.234,2.345", "new.csv", rows=range(2))
    how = How(training={"decimal": ",", "missing": None, "header": "yes"}, named=True)
    ((rows, _),) = stream_table(path, ["a", "b"], 2, how=how)
    assert rows.X[0].tolist() == [1.234, 2.345]


# --- what deserves a word -------------------------------------------------------------------------

RANDOM = np.random.default_rng(0)
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
STREETS = [a + b for a in ("Oak", "Elm", "Main", "Park", "Mill") for b in "abcdefghijkl"]
WORDS = {
    "times, several a second": (1_700_000_000 + np.arange(300) // 3, "times since 1970"),
    "days": (20260101 + np.arange(300) % 28, "times since 1970"),
    "customers": (RANDOM.permutation(np.arange(10_000_000, 10_300_000, 1000)), "like an id"),
    "a clock": (np.cumsum(RANDOM.random(300) + 0.01), "rises or falls through all rows"),
    "pages of a list": (np.arange(300) // 3, "rises or falls through all rows"),
    "text ids": ([f"CUST{i:03d}" for i in range(300)], "another text in every row"),
    "units": ([f"{100 + i} mg/dL" for i in range(300)], "numbers with a unit"),
    "currency": ([f"EUR {100 + i}.50" for i in range(300)], "numbers with a unit"),
    "several units": ([f"{100 + i}{'KMG'[i % 3]}" for i in range(300)], "numbers with a unit"),
    "durations": (
        [f"{i % 9}:{i % 60:02d}:{i % 50:02d}" for i in range(300)],
        "write a time as one number",
    ),
    "pressures": ([f"{100 + i % 60}/{60 + i % 30}" for i in range(300)], "a pair as two columns"),
    "months": ([f"{1960 + i // 12} {MONTHS[i % 12]}" for i in range(300)], "dates are taken as"),
    "months before years": ([f"{MONTHS[i % 12]}-{1960 + i}" for i in range(300)], "dates are take"),
    "months by number": ([f"{1960 + i // 12}-{1 + i % 12:02d}" for i in range(300)], "dates are t"),
    "quarters": ([f"{1960 + i // 4} Q{1 + i % 4}" for i in range(300)], "dates are taken as texts"),
    "addresses": ([f"{10 + i} {STREETS[i % 60]} St" for i in range(300)], "another text in every"),
    "month names": ([f"{1 + i % 28}-Jan-2026" for i in range(300)], "dates are taken as texts"),
}


@pytest.mark.parametrize("kind", WORDS)
def test_columns_that_deserve_a_word_get_it(kind):
    column, word = WORDS[kind]
    rows = np.empty((300, 2), dtype=object)
    rows[:, 0], rows[:, 1] = RANDOM.normal(size=300), column
    said = notes(as_table(rows, texts=True, columns=["a", "it"]))
    assert len(said) == 1 and "'it'" in said[0] and word in said[0], said


@pytest.mark.parametrize(
    "column, advice",
    [
        (RANDOM.lognormal(10.7, 0.3, 300).round(), "leave it out if it is one"),
        (RANDOM.uniform(1.1e9, 2.1e9, 300), "leave it out then"),
    ],
    ids=["salaries", "turnovers"],
)
def test_what_only_looks_like_an_id_or_a_time_is_not_said_to_be_one(column, advice):
    said = notes(as_table(column[:, None]))
    assert len(said) == 1 and advice in said[0], said


def test_rows_that_are_all_equal_are_said():
    """Such as the times of a minute that became float32."""
    times = (1.7e9 + np.arange(50)).astype(np.float32)
    (said,) = notes(as_table(np.column_stack([times, np.ones(50)])))
    assert "all rows are equal" in said
    assert not notes(as_table(np.column_stack([times, RANDOM.normal(size=50)])))


@pytest.mark.parametrize("start", [2**62, np.longdouble(2) ** 62])
def test_long_numbers_in_no_order_are_not_said_to_rise(start):
    """Their steps are 0 in float64."""
    column = start + np.arange(200) % 13
    assert not any("rises" in note for note in notes(as_table(column[:, None])))


def test_measurements_and_codes_get_none():
    rows = np.empty((300, 5), dtype=object)
    rows[:, 0] = RANDOM.normal(size=300)
    rows[:, 1] = RANDOM.integers(0, 5000, 300)
    rows[:, 2] = RANDOM.lognormal(3, 1, 300)
    rows[:, 3] = [f"{'ABC'[i % 3]}{i % 40}" for i in range(300)]
    rows[:, 4] = [f"10.0.{i % 7}.{i % 14}" for i in range(300)]
    assert notes(as_table(rows, texts=True)) == []


@pytest.mark.parametrize("gap", ["--", "-1.#IND"])
def test_a_hint_can_be_followed(tmp_path, gap):
    from swift_hydra.dataloader import RowOptions
    from swift_hydra.settings import parse_config

    path = written(tmp_path, "a,label", lambda i: f"{gap if i == 5 else i},{label(i)}")
    with pytest.raises(InputError) as error:
        load(path)
    flag = re.search(r"--missing='([^']*)'", str(error.value))
    (options,) = parse_config([RowOptions], "", [f"--missing={flag[1]}"])
    assert options.missing == gap


def test_a_fraction_in_a_frame_of_texts_is_asked_about():
    with pytest.raises(InputError, match="0,113"):
        SwiftHydra().fit([["0,113", "1"], ["0,126", "2"]] * 20, [0, 0, 0, 1] * 10)


DAYS = ["2026-01-05", "46027", "20260105", "1767571200"]


@pytest.mark.parametrize("kind", ["csv", "frame", "parquet", "datetimes"])
def test_a_column_of_dates_stays_one(tmp_path, kind):
    frame = pd.DataFrame({"when": ["2026-01-05", "2026-02-07"] * 30, "a": np.arange(60.0)})
    if kind == "datetimes":
        frame["when"] = pd.to_datetime(frame["when"])
    model = SwiftHydra(dates=True, **SHORT_FIT).fit(frame, [0, 0, 0, 1] * 15)
    preparation = Preparation.from_snapshot(model.columns_.preparation.snapshot())
    how = How(dates=True, named=True, held=Held(preparation.dated))

    def scored(values):
        new = pd.DataFrame({"when": values, "a": 1.5})
        if kind in ("frame", "datetimes"):
            return model.decision_function(new)
        path = tmp_path / f"new.{kind}"
        new.to_csv(path, index=False) if kind == "csv" else new.to_parquet(path)
        ((rows, _),) = stream_table(path, ["when", "a"], 2, how=how)
        return rows.X

    assert len(scored(["2026-03-01", "2026-03-02"])) == 2
    for day in DAYS[1:]:
        with pytest.raises(
            InputError, match=r"'when' holds numbers, first .* in training it held da"
        ):
            scored([float(day)] * 2)
    for day in ("05.01.2026", "1/5/2026", "soon"):
        with pytest.raises(InputError, match=f"first '{day}' .*in training it held dates: write"):
            scored([day] * 2)
    other = SwiftHydra(dates=True, **SHORT_FIT).fit(
        frame[["a", "a"]].set_axis(["when", "a"], axis=1), [0, 0, 0, 1] * 15
    )
    with pytest.raises(
        InputError, match=r"'when' holds dates, first .* in training it held numbers"
    ):
        other.decision_function(frame)


SIGN = "a unit, or a sign of its own"


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        ("54.61-", SIGN),
        ("\u221254.61", "another character than -"),
        ("\u201354.61", "another character than -"),
        ("(54.61)", SIGN),
        ("54.61 kg", SIGN),
        ("$54.61", SIGN),
        ("67%", SIGN),
        ("<0.05", SIGN),
        ("120/80", "a span of time, or two numbers"),
        ("1:23:45", "a span of time, or two numbers"),
        ("01. Mai", "did a spreadsheet make a date of a number"),
        ("5-Jan", "did a spreadsheet make a date of a number"),
        ("Jan-05", "did a spreadsheet make a date of a number"),
        ("A7", None),
        ("10.0.0.1", None),
        ("red", None),
    ],
)
@pytest.mark.parametrize("kind", ["file", "frame"])
def test_a_number_that_is_written_unusually_is_told_what_hinders(tmp_path, kind, cell, said):
    """The remedy for texts, --categorical, would make categories of amounts."""
    numbers = [cell if i == 3 else f"{i}.5" for i in range(20)]
    with pytest.raises(InputError, match="column 'a' holds text, first") as refused:
        if kind == "file":
            path = written(
                tmp_path, "a,label", lambda i: f"{numbers[i]},{label(i)}", rows=range(20)
            )
            load(path)
        else:
            as_table(pd.DataFrame({"a": numbers}))
    told = str(refused.value)
    assert f"({said}?" in told if said else "?" not in told


@pytest.mark.parametrize(
    ("cell", "asked"),
    [
        ("31.01.2026", "a date?"),
        ("1/31/26", "a date?"),
        ("2026/01/31 14:30", "a date?"),
        ("28-Jun-2025", "a date?"),
        ("Jun 28, 2025", "a date?"),
        ("28. März 2025", "a date?"),
        ("2026-01-31 02:00 PM", "a date?"),
        ("1.2.3.4", ""),
        ("May", ""),
        ("31.01-2026", ""),
        ("5:30", "a span of time"),
    ],
)
def test_a_date_in_another_form_is_asked_for_in_the_one_that_is_read(tmp_path, cell, asked):
    path = tmp_path / "t.csv"
    rows = (f'"{cell}",{i}.5,{int(i % 5 == 0)}\n' for i in range(30))
    path.write_text("t,a,y\n" + "".join(rows), encoding="utf-8")
    with pytest.raises(InputError) as error:
        load_dataset(path, settings=ColumnSettings(dates=True))
    question = str(error.value).partition(f"{cell!r} in line 2")[2].partition(": give --cat")[0]
    assert question.startswith(f" ({asked}") if asked else not question
    assert ("write it as 2026-01-31" in question) == (asked == "a date?")


@pytest.mark.parametrize("units", ["s,°C,Pa,0", "t,temp,p,0", "30,°C,x,0"])
def test_one_row_of_texts_among_numbers_is_one_problem(tmp_path, units):
    """A second line of names or of units; --categorical would make texts of all columns."""
    rows = [f"{i}.0,2{i}.25,100{i},{int(i % 5 == 0)}" for i in range(30)]
    path = tmp_path / "t.csv"
    for at in (0, 7):
        lines = ["time,temp,press,label", *rows[:at], units, *rows[at:]]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        with pytest.raises(InputError) as error:
            load_dataset(path)
        first = next(cell for cell in units.split(",") if not cell.isdigit())
        assert f"line {at + 2} holds {first!r}" in str(error.value)
        assert "mend it, or take it out" in str(error.value)
        assert "categorical" not in str(error.value)
    both = ["time,temp,press,label", units, *rows, "9,9,broken,0", "9,9,again,0"]
    path.write_text("\n".join(both) + "\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"column 'press' holds text, first '(Pa|p|x)' in"):
        load_dataset(path)
