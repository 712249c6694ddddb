"""How text files lie, and what a training file tells of those that are scored.

As many rows come out as went in, each the same wherever it stands, or one line says why not.
"""

import gzip
import itertools
import os
import re
import time
import tracemalloc
import warnings

import numpy as np
import pytest
from helpers import SAME_EXAMPLES
from hypothesis import given, settings
from hypothesis import strategies as st

from swift_hydra.data import files, layout, text_files
from swift_hydra.data.cells import text_columns
from swift_hydra.data.columns import ColumnSettings, Preparation
from swift_hydra.data.files import How, read_table, stream_table
from swift_hydra.data.header import TrainingHeader, has_header
from swift_hydra.data.reading import Reading, number
from swift_hydra.data.separator import find_separator
from swift_hydra.dataloader import load_dataset
from swift_hydra.run.score_file import ScoreOptions, _advised
from swift_hydra.settings import InputError, flag_values

drawn = settings(SAME_EXAMPLES, max_examples=60)
TEXTS = ColumnSettings(impute="median", categorical="onehot")


def train(path, text, label=None, reading=None, texts=True):
    """The table of a training file, as text or bytes."""
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return read_table(path, label, texts=texts, reading=reading).table


def score(path, text, table, reading=None):
    """The rows of a file to score, as a detector that was trained on a table reads it."""
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    saved = Preparation("median", "ordinal").fit(table).snapshot()
    learned = Preparation.from_snapshot(saved)
    how = How(reading or Reading(), False, learned.reading)
    d = learned.d
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pieces = list(stream_table(path, learned.columns or None, d, learned.texts, how=how))
    return [row for piece, _ in pieces for row in cells_of(piece)]


def cells_of(table):
    """Rows of texts and numbers, None for a gap."""
    return [
        [
            None if value != value else table.texts[j][int(value)] if j in table.texts else value
            for j, value in enumerate(row)
        ]
        for row in table.X.tolist()
    ]


# ---- the first line ------------------------------------------------------------------------------

TRAINED = {
    "numbers": (None, [["0.5", "1.5", "2.5"], ["3.5", "0.1", "1"], ["2", "3", "9.5"]]),
    "texts": (None, [["red", "b", "x"], ["blue", "b", "y"], ["red", "c", "x"]] * 2),
    "both": (None, [["red", "0.3", "7.5"], ["blue", "0.4", "1.5"], ["red", "0.7", "1"]]),
    "names": (["a", "b", "c"], [["0.5", "1.5", "2.5"], ["3.5", "0.1", "1"]]),
    "numbers for names": (["0", "1", "2"], [["0.5", "1.5", "2.5"], ["3.5", "0.1", "1"]]),
    "names over texts": (["a", "b", "c"], [["red", "0.3", "x"], ["blue", "0.4", "y"]]),
    "names over flags": (["a", "b", "c"], [["red", "True", "x"], ["blue", "maybe", "y"]]),
}


@pytest.mark.parametrize("kind", TRAINED)
@drawn
@given(data=st.data())
def test_a_rows_reading_does_not_depend_on_the_rows_beside_it(tmp_path, kind, data):
    """With the header of the training file or without; gaps anywhere, a single row, any order."""
    names, rows = TRAINED[kind]
    lines = [",".join(row) for row in ([names] if names else []) + rows]
    given = Reading(header="yes" if names else "no")
    table = train(tmp_path / "t.csv", "\n".join(lines), "none", given)
    assert len(table) == len(rows)
    some = data.draw(st.lists(st.sampled_from(rows), min_size=1, max_size=4))
    new = [list(row) for row in some]
    gap = data.draw(st.integers(0, 2))
    i = data.draw(st.integers(0, len(new) - 1))
    new[i][gap] = ""
    header = names is not None and data.draw(st.booleans())
    text = "\n".join(",".join(row) for row in ([names] if header else []) + new)
    found = score(tmp_path / "new.csv", text, table)
    wanted = [[None if c == "" else number(c) or c for c in row] for row in new]
    assert found == wanted


FIRST_LINES = [
    ("a,b,y", ["1,2,0", "3,4,1"], True),
    ("a,b,y", [",2,0", ",4,1", "5,,0"], True),  # gaps below
    ("a,b,y", ["red,x,no", "blue,z,no"], True),
    ("red,x,no", ["red,z,no", "blue,x,yes"], False),  # texts that come again
    ("-,0.3,1", ["0.2,0.4,0", "0.1,0.5,0"], False),  # no name
    ("n.a.,0.3,1", ["0.2,0.4,0", "n.a.,0.5,0"], False),  # comes again
    ("red,0.3,1", [",0.3,0", "blue,0.2,0"], False),
    ("0.1,red,1", ["0.3,,0", "0.2,blue,0"], False),
    ("1st,2,0", ["1,2,0", "3,4,1"], True),
    ("y,400.5,401,401.5,402,402.5", ["0,3,4,5,6,7.5"] * 3, True),  # wavelengths
    ("0,1,2,3", ["0.5,0.1,0.2,0", "0.5,0.1,0.3,1"], True),  # pandas
    (",0,1,2,3", ["0,0.5,0.1,0.2,0", "1,0.5,0.1,0.3,1"], True),
    ("0,1,2,class", ["0.5,0.1,0.2,a", "0.5,0.1,0.3,b"], True),
    ("0,1", ["0.5,0.1", "0.5,0.2"], True),
    ("0;1", ["0,5;0,1", "0,5;0,2"], True),
    (",0", ["0,0.5", "1,0.1"], True),
    ("0,1", ["5,0", "3,7"], False),  # and is told
    ("0,1", ["1,0", "3,1"], False),
    ("0,1,2,3", ["1,2,3,4", "2,3,4,5"], False),  # lags of a series
    ("1,2,3,4", ["0.5,0.1,0.2,0", "0.5,0.1,0.3,1"], False),  # and is told
    ("3,4,1", ["1,2,0", "5,6,0"], False),
]


@pytest.mark.parametrize(("first", "below", "header"), FIRST_LINES)
def test_the_first_line(tmp_path, first, below, header):
    table = train(tmp_path / "t.csv", "\n".join([first, *below]), "none")
    assert len(table) == len(below) + (not header)
    assert table.reading["header"] == ("yes" if header else "no")


def streamed(path, text, table, header="auto"):
    """What is said, and how many rows there are, where a file is scored."""
    path.write_text(text)
    learned = Preparation("median", "ordinal").fit(table)
    how = How(Reading(header=header), False, learned.reading, learned.named)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        pieces = list(stream_table(path, table.columns, learned.d, learned.texts, how=how))
    return [str(warning.message) for warning in caught], sum(len(piece) for piece, _ in pieces)


NAMED = "color,size,age,flag\nred,S,5,yes\nblue,M,6,no\ngreen,L,7,True\n"


@pytest.mark.parametrize(
    ("first", "row"),
    [
        ("green,,,no", True),
        ("purple,,,", True),
        (",XS,NA,maybe", True),
        (",,,", True),
        ("purple,XS,,maybe", True),
        ("purple,XS,q,TRUE", True),  # which is then refused
        ("farbe,breite,alter,an", False),
        ("COLOR,SIZE,AGE,FLAG", False),
    ],
)
def test_the_first_line_of_a_file_to_score(tmp_path, first, row):
    """A row of gaps and known texts is one, whatever stands below."""
    table = train(tmp_path / "t.csv", NAMED, "none")
    for below in ("red,S,5,yes\n", "blue,,,\n,M,6,no\n"):
        text = f"{first}\n{below}"
        if ",q," in first:
            with pytest.raises(InputError, match=r"line 1 .*--header yes"):
                streamed(tmp_path / "new.csv", text, table)
            continue
        said, n = streamed(tmp_path / "new.csv", text, table)
        assert n == below.count("\n") + row
        assert not row or not said


@pytest.mark.parametrize(("first", "header"), [(",breite,an", True), (",breite,", False)])
def test_an_index_has_no_name(tmp_path, first, header):
    known = TrainingHeader(["color", "flag"], "yes", {0: {"red"}, 1: {"no"}})
    assert has_header(first.split(","), [], tmp_path, known) == header


def test_a_first_line_that_is_taken_as_names_is_quoted(tmp_path):
    table = train(tmp_path / "t.csv", NAMED, "none")
    text = "purple,XS,alter,maybe\nred,S,5,yes\n"
    (said,), n = streamed(tmp_path / "new.csv", text, table)
    assert n == 1 and "none of its columns has a name of the training table" in said
    assert "first line ('purple', 'XS', 'alter', ...) as names: if it is a row give" in said
    (said,), n = streamed(tmp_path / "new.csv", text, table, "yes")
    assert n == 1 and "as names" not in said


@pytest.mark.parametrize(
    ("first", "said"),
    [
        *(("color,size", True), ("red,size", False), (",size", False), ("purple,7", False)),
        *(("NA,size", False), ("purple,XS", True)),
    ],
)
def test_names_over_a_table_of_texts_without_are_told(tmp_path, first, said):
    table = train(tmp_path / "t.csv", "red,S\nblue,M\nred,M\n" * 2, "none")
    assert table.reading["header"] == "no"
    found, n = streamed(tmp_path / "new.csv", f"{first}\nred,S\n", table)
    assert n == 2 and len(found) == said
    assert all("if it names the columns give --header yes" in each for each in found)


JOINED = {
    "numbers": ("a,b,y", lambda i: f"{i},{i % 7},{i % 2}"),
    "texts": ("a,b,y", lambda i: f"{'rgb'[i % 3]},{'xz'[i % 2]},{'no yes'.split()[i % 2]}"),
    "gaps": (",a,y", lambda i: f"{i or ''},{'xz'[i % 2]},{i % 2}"),
    "quoted": ('" a",b,y', lambda i: f"{i},x{i},{i % 2}"),
}


@pytest.mark.parametrize("kind", JOINED)
@pytest.mark.parametrize("at", [1, 20, 250])
@pytest.mark.parametrize("header", ["auto", "yes"])
def test_names_that_come_again_below_are_named_by_their_line(tmp_path, kind, at, header):
    names, row = JOINED[kind]
    lines = [row(i) for i in range(300)]
    lines.insert(at, names)
    text = "\n".join([names, *lines])
    with pytest.raises(InputError, match=f"line {at + 2} is the line of names again"):
        train(tmp_path / "t.csv", text, "none", Reading(header=header))


def test_names_that_come_again_in_another_order_are_no_row_to_take_out(tmp_path):
    lines = [f"{i},{i % 7},{i % 2}" for i in range(300)]
    moved = [f"{i % 7},{i},{i % 2}" for i in range(300)]
    text = "\n".join(["a,b,y", *lines, "b, a,y", *moved])
    with pytest.raises(
        InputError, match=r"line 302 holds the names again, in another order, .* by name"
    ):
        train(tmp_path / "t.csv", text, "none", Reading())
    # Where they are values, as in a ranking of the columns, there is nothing to say.
    ranked = ["a,b,y", "b,a,y", "y,b,a", *["b,y,a", "a,y,b"] * 150]
    settings = ColumnSettings(categorical="onehot")
    how = {"settings": settings, "reading": Reading(header="yes")}
    path = tmp_path / "ranked.csv"
    path.write_text("\n".join(ranked) + "\n")
    assert len(load_dataset(path, label_column="none", **how).X) == 302


@pytest.mark.parametrize("packed", [False, True])
def test_what_is_no_character_is_named_with_its_line(tmp_path, packed):
    """The decoder counts from the piece that it was given, not from the file's beginning."""
    words = ["", "r\u00f6t", "gr\u00fcn"]
    lines = [f"{i},{words[i % 3]},{i % 2}" for i in range(40_000)]
    whole = "\n".join(["a,b,y", *lines]).encode()
    at = whole.index(b"\n30000,") + 3
    broken = whole[:at] + b"\xe4" + whole[at:]
    path = tmp_path / f"t.csv{'.gz' * packed}"
    path.write_bytes(gzip.compress(broken) if packed else broken)
    with pytest.raises(InputError, match=rf"UTF-8 text \(byte {at}, 0xe4, in line 30002\)"):
        load_dataset(path)
    # A character may be in two pieces of the file, and one of its bytes be that of a line's end.
    for ends, (encoding, letter, wrong) in itertools.product(
        "\n\r", [("utf-16-le", "\u0a0a", b"\0\xd8\0\0"), ("cp1252", "\u00e4", b"\x81")]
    ):
        text = ends.join(["a,b,y", f"1,{letter},0", *["2,x,1"] * 15_000, "3,\u00f6", ""])
        whole = text.encode(encoding)
        path.write_bytes(gzip.compress(whole + wrong) if packed else whole + wrong)
        with pytest.raises(InputError, match=rf"\(byte {len(whole)}, .*, in line 15004\)"):
            load_dataset(path, reading=Reading(encoding=encoding))
    path = tmp_path / "cut.csv"
    path.write_bytes("a,b,y\n1,x\u00f6".encode()[:-1])
    with pytest.raises(InputError, match=r"\(it ends within a character, in line 2\)"):
        load_dataset(path)


@pytest.mark.parametrize(
    ("first", "below", "n"),
    [
        ("red,x", ["red,x", "blue,z", "red,z"], 4),  # red is a value
        ("red,x", ["red,x"], 2),
        ("red,x", ["red,x"] * 2 + ["blue,z"] * 9, 12),  # too many to be names
        ("0,1,2", ["5,7,9", "0,1,2"], 2),  # names that pandas makes up, and a row of them
    ],
)
def test_rows_that_come_again_are_rows(tmp_path, first, below, n):
    assert len(train(tmp_path / "t.csv", "\n".join([first, *below]), "none")) == n


def test_columns_that_are_counted_are_told(tmp_path):
    for first, words in (("0,1,2,3", "taken as such"), ("1,2,3,4", "taken as a row")):
        (tmp_path / "t.csv").write_text(first + "\n0.5,0.1,0.2,0\n0.5,0.1,0.3,1\n")
        with pytest.warns(UserWarning, match=words) as caught:
            read_table(tmp_path / "t.csv")
        assert len(caught) == 1


def test_an_explicit_header_wins(tmp_path):
    table = train(tmp_path / "t.csv", "0.5,1\n0.25,0\n", "none")
    new = tmp_path / "new.csv"
    assert len(score(new, "x0,x1\n1,2\n", table)) == 1
    with pytest.raises(InputError, match=r"'x0' in line 1 .*--header yes"):
        score(new, "x0,x1\n1,2\n", table, Reading(header="no"))
    with pytest.raises(InputError, match=r"holds text, first 'a' in line 1 .*--header yes"):
        score(new, "a,b\n1,2\n", table)
    assert len(score(new, "a,b\n1,2\n", table, Reading(header="yes"))) == 1


# ---- what a training file was read with ----------------------------------------------------------


def test_marks_and_gaps_of_training_apply_to_new_rows(tmp_path):
    new = tmp_path / "new.csv"
    german = train(tmp_path / "t.csv", "a;b\n1.234,56;1\n2.000,00;0\n", "none")
    assert german.reading == {"decimal": ",", "missing": None, "header": "yes"}
    assert score(new, "a;b\n1.234;1\n", german) == [[1234.0, 1.0]]
    assert score(new, "a;b\n1.234;1\n", german, Reading(decimal=".")) == [[1.234, 1.0]]
    with pytest.raises(InputError, match=r"'1\.5' in line 2 .*--decimal \."):
        score(new, "a;b\n1.5;1\n", german)
    whole = train(tmp_path / "t.csv", "a;b\n5;1\n2;0\n", "none")  # tells nothing
    assert score(new, "a;b\n1,5;1\n", whole) == [[1.5, 1.0]]
    texts = train(tmp_path / "t.csv", "a;b\nNone;1\nNA;0\n", "none", Reading(missing=""))
    assert score(new, "a;b\nNone;1\n;2\n", texts) == [["None", 1.0], [None, 2.0]]
    # What training knew as a text stays one; other words may be said to be gaps.
    other = Reading(missing="none,gone")
    assert score(new, "a;b\nNone;1\ngone;2\n", texts, other) == [["None", 1.0], [None, 2.0]]


def test_older_checkpoints_know_no_reading(tmp_path):
    table = train(tmp_path / "t.csv", "a;b\n1,5;1\n2,5;0\n", "none")
    saved = Preparation().fit(table).snapshot()
    del saved["reading"]
    assert Preparation.from_snapshot(saved).reading is None
    path = tmp_path / "new.csv"
    path.write_text("a;b\n1,5;1\n")
    ((new, _),) = stream_table(path, ["a", "b"], 2)
    assert new.X.tolist() == [[1.5, 1.0]]


@pytest.mark.parametrize("at", [0, 12_000])
@pytest.mark.parametrize("cell", ["1,5", "1,234"])
def test_the_decimal_mark_is_found_wherever_it_stands(tmp_path, at, cell):
    lines = ["7;0"] * 12_001
    lines[at] = f"{cell};1"
    text = "a;b\n" + "\n".join(lines)
    if cell == "1,5":
        assert train(tmp_path / "t.csv", text, "none").X[at, 0] == 1.5
        return
    with pytest.raises(InputError, match="is the comma a decimal comma"):
        train(tmp_path / "t.csv", text, "none")


# ---- numbers -------------------------------------------------------------------------------------


@pytest.mark.parametrize("decimal", [".", ","])
@pytest.mark.parametrize("missing", [None, "", "NA"])
@pytest.mark.parametrize(
    "cell", ["0_0", "11_2", "Nan", "NAN", "Inf", "-inf", "infinity", "1e5", "7"]
)
def test_a_column_at_once_is_read_as_its_cells_alone(decimal, missing, cell):
    reads = Reading(missing=missing).parser(decimal)
    text = "_" in cell or (missing is not None and cell[-1].isalpha())
    assert (reads(cell) is None) == text
    assert text_columns([[cell, "1"]], reads) == ({0} if text else set())


# ---- lines, quotes and marks ---------------------------------------------------------------------


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("at", [2, 4, 5])
def test_an_open_quote_is_named_by_its_line(tmp_path, end, last, at):
    lines = ["a,b,y", "x,1,0", '"x', 'z",1,1', "x,1,0", "z,4,1"]
    whole = end.join(lines) + end * last
    assert len(train(tmp_path / "t.csv", whole, "none")) == 4
    at += at == 2
    lines[at] = 'z",1,"1' if at == 3 else '"' + lines[at]
    with pytest.raises(InputError, match=rf"quote that begins in line {at + 1} is never closed"):
        train(tmp_path / "t.csv", end.join(lines) + end * last, "none")


def test_an_open_quote_of_a_long_file(tmp_path):
    text = 'a,y\n1,0\n"2,1\n' + "3,0\n" * 100_000
    with pytest.raises(InputError, match="begins in line 3"):
        train(tmp_path / "t.csv", text, "none")


@pytest.mark.parametrize("encoding", [None, "utf-8", "UTF8", "utf-8-sig", "latin-1", "cp1252"])
def test_the_mark_of_byte_order_is_no_text(tmp_path, encoding):
    for text, header in (("a,b\n1,2\n", "yes"), ("1,2\n3,4\n", "no"), ('"a",b\n1,2\n', "yes")):
        content = b"\xef\xbb\xbf" + text.encode()
        table = train(tmp_path / "t.csv", content, "none", Reading(encoding=encoding))
        assert table.reading["header"] == header
        assert table.columns == (["a", "b"] if header == "yes" else ["x0", "x1"])


@pytest.mark.parametrize("below", ["", "\n", "\n\n"])
@pytest.mark.parametrize("separator", [",", ";"])
def test_a_title_above_a_table_to_score_is_refused_as_one(tmp_path, below, separator):
    path = tmp_path / "t.csv"
    path.write_text(f"Report of 2026\n{below}" + "a,b\n1,2\n3,4\n".replace(",", separator))
    with (
        warnings.catch_warnings(action="error"),  # nothing is taken in any order
        pytest.raises(InputError, match=r"first line has 1: is that a title\? Take it out"),
    ):
        list(stream_table(path, ["a", "b"], 2, how=How(named=True)))


@pytest.mark.parametrize("encoding", [None, "latin-1"])
def test_the_mark_of_byte_order_is_no_text_of_a_later_line_either(tmp_path, encoding):
    mark = b"\xef\xbb\xbf"
    reading = Reading(encoding=encoding)
    rows = b"".join(b"%c,%c\n" % (b"xyz"[i % 3], b"pq"[i % 2]) for i in range(12))
    table = train(tmp_path / "t.csv", mark + b"a,b\n" + rows, "none", reading)
    path = tmp_path / "joined.csv"
    once = score(path, mark + b"a,b\n" + rows, table, reading)
    assert score(path, mark + b"a,b\n" + rows + mark + rows + mark, table, reading) == 2 * once
    with pytest.raises(InputError, match="line 14 is the line of names again"):
        score(path, mark + b"a,b\n" + rows + mark + b"a,b\n" + rows, table, reading)


@drawn
@given(cells=st.lists(st.sampled_from(["1", "2.5", "", " ", '""', "x"]), min_size=1, max_size=6))
def test_a_blank_line_inside_one_column_is_a_gap(tmp_path, cells):
    table = train(tmp_path / "t.csv", "\n".join(["a", "7", *cells, "", ""]), "none")
    while cells and not cells[-1].strip():
        cells = cells[:-1]
    cells = ["7", *(cell.strip(' "') for cell in cells)]
    wanted = cells if "x" in cells else [float(cell) if cell else cell for cell in cells]
    assert [row[0] for row in cells_of(table)] == [cell or None for cell in wanted]


def test_every_line_is_bounded_and_comments_take_linear_time(tmp_path, monkeypatch):
    path = tmp_path / "t.csv.gz"
    path.write_bytes(gzip.compress(b"# c\n" * 200_000 + b"a,b\n1,2\n"))
    start = time.process_time()
    assert len(read_table(path, "none").table) == 1
    assert time.process_time() - start < 5
    monkeypatch.setattr(layout, "LONGEST_LINE", 1000)
    with pytest.raises(InputError, match="line 3 has no end"):
        train(tmp_path / "t.csv", "a,b\n1,2\n" + "1" * 2000 + ",2\n", "none")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"a,b\n1,2\n", "is no gzip file: name it .csv"),
        (gzip.compress(b"a,b\n1,2\n", mtime=0) + b"more", "has bytes after its end"),
    ],
)
def test_what_is_wrong_with_a_gzip_file_is_told_apart(tmp_path, content, said):
    path = tmp_path / "t.csv.gz"
    path.write_bytes(content)
    with pytest.raises(InputError, match=said):
        read_table(path, "none")


# ---- what parts the cells ------------------------------------------------------------------------

PARTED = [
    ("1,5;2,3;4,25;0\n", 4),
    ("1,5;2,3;4,25;0\n2,5;1,3;4;1\n", 4),
    ("price (EUR, net, 2020);y\n1,5;0\n2;1\n", 2),
    ("price (EUR, net);y\n1,5;0\n2,5;1\n", 2),
    ("100 101 102\n1 2 3\n", 3),
    ("a b y\n100 101 102\n103 104 105\n", 3),
    ("  a   b y \n 1.5  2 0\n10.5 20 1\n", 3),
    ("1,5 2,5 0\n2,5 3,5 1\n", 3),
    ("5.1 3.5 setosa\n4.9 3.0 setosa\n", 3),
    ("sep= \n100 101 102\n", 3),
    ("2020-01-01 10:00:00,5\n2020-01-02 10:00:00,6\n", 2),
    ("New York\nLos Angeles\n", 1),
    ("a|b;c\n1|2;5\n1|3;5\n", 2),
    ("name,y\nred car,5\n", 2),
    ("1, 2, 0\n3, 4, 1\n", 3),
    ("1,2\t3,4\n", 2),
    ("\t0,951\n\t-1,279\n", 2),
    ("a\n0,5\n1,25\n", 1),
]


@pytest.mark.parametrize(("text", "d"), PARTED)
def test_what_parts_the_cells(tmp_path, text, d):
    assert train(tmp_path / "t.csv", text, "none").X.shape[1] == d


@drawn
@given(
    separator=st.sampled_from(",;\t| "),
    texts=st.lists(st.text("ab(,;|) ", max_size=9), min_size=3, max_size=8),
    place=st.integers(0, 2),
)
def test_what_stands_in_quotes_parts_no_cells(tmp_path, separator, texts, place):
    """A log parted by spaces was parted at the semicolon of a browser's name."""
    rows = [[str(i), f"{i / 7:.3f}"] for i in range(len(texts))]
    for row, text in zip(rows, texts, strict=True):
        row.insert(place, f'"{text}"')
    lines = [separator.join(row) + "\n" for row in [["p", "q", "r"], *rows]]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert find_separator(lines, tmp_path / "t.csv", ".") == separator


def test_spaces_that_part_columns_or_thousands_are_asked_about(tmp_path):
    with pytest.raises(InputError, match="do the spaces part columns or thousands"):
        train(tmp_path / "t.csv", "100 101 102\n103 104 105\n", "none")


@drawn
@given(values=st.lists(st.integers(-999, 999), min_size=1, max_size=8), places=st.integers(1, 3))
def test_decimals_of_one_column_are_never_two_columns_without_a_word(tmp_path, values, places):
    """Without a header nothing else tells 1,50 from a 1 beside a 50."""
    path = tmp_path / "t.csv"
    cells = [f"{value / 10**places:.{places}f}".replace(".", ",") for value in values]
    seconds = [cell.split(",")[1] for cell in cells]
    numbers = [value / 10**places for value in values]
    one = train(path, "\n".join(cells), "none", Reading(decimal=","))
    assert one.X.tolist() == [[value] for value in numbers]
    two = train(path, "\n".join(cells), "none", Reading(decimal="."))
    assert two.X.shape == (len(cells), 2)
    told = train(path, "\n".join(["sep=,", *cells]), "none")
    assert told.X.shape == two.X.shape
    path.write_text("\n".join(cells))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            read_table(path, "none")
        except InputError as error:
            assert "--decimal , (one)" in str(error)
            return
    tells = any("--decimal , (one)" in str(warning.message) for warning in caught)
    assert tells == (len(set(seconds)) > 2)
    negative = any(cell.startswith("-0") for cell in cells)
    assert not negative and not any(len(cell) > 1 and cell[0] == "0" for cell in seconds)


@pytest.mark.parametrize("row", ["{},1", "{},{}", "0{},01", "{},0"])
def test_two_columns_of_whole_numbers_need_no_flag(tmp_path, row):
    lines = [row.format(i, 7 * i) for i in range(1, 15)]
    assert train(tmp_path / "t.csv", "\n".join(lines), "none").X.shape == (14, 2)


# ---- what pandas writes --------------------------------------------------------------------------

pandas_ = pytest.mark.filterwarnings("ignore:.*row index that pandas writes")


@pandas_
def test_indexes_of_pandas(tmp_path):
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    frame = pandas.DataFrame({"x0": [1.5, 2, 3], "x1": [4.5, 5, 6], "y": [0, 1, 1]})
    levels = [("a", 1), ("a", 2), ("b", 1)]
    indexes = {
        "range": None,
        "shuffled": [2, 0, 1],
        "named": pandas.Index([5, 6, 7], name="id"),
        "levels": pandas.MultiIndex.from_tuples(levels),
        "named levels": pandas.MultiIndex.from_tuples(levels, names=["k", "l"]),
    }
    for name, index in indexes.items():
        given = frame if index is None else frame.set_axis(index)
        for kind in ("csv", "parquet"):
            if kind == "csv" and "named" in name:
                continue  # a named index is a column like any other in a text file
            path = tmp_path / f"t.{kind}"
            getattr(given, f"to_{kind}")(path)
            found = read_table(path, texts=True)
            assert (found.table.columns, found.label) == (["x0", "x1"], "y"), (name, kind)
            np.testing.assert_array_equal(found.labels.astype(int), frame["y"])
            ((new, _),) = stream_table(path, ["x0", "x1"], 2)
            np.testing.assert_array_equal(new.X, frame[["x0", "x1"]])


def test_parquet_with_texts_for_numbers_and_binary_ids(tmp_path):
    arrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    path = tmp_path / "t.parquet"
    table = {"id": [b"k1", b"k2", None], "a": ["1,5", "1.234", "2"], "b": [1, 2, 3]}
    parquet.write_table(arrow.table(table), path)
    how = How(Reading(decimal=","))
    ((new, ids),) = stream_table(path, ["a", "b"], 2, id_column="id", how=how)
    assert new.X.tolist() == [[1.5, 1], [1234, 2], [2, 3]] and list(ids) == ["k1", "k2", ""]


# ---- what is said --------------------------------------------------------------------------------


def test_dates_of_arrays_are_scored_as_they_were_learned(tmp_path):
    X = np.array([["2026-01-01"], ["2026-01-02"]], dtype="datetime64[D]")
    np.savez(tmp_path / "t.npz", X=X)
    ((new, _),) = stream_table(tmp_path / "t.npz", None, 1, how=How(dates=True))
    assert new.X[:, 0].tolist() == [20454, 20455]


@pytest.mark.parametrize("cell", ["", "red", "2026-01-01", "1,5", "1.5.2"])
def test_score_advises_no_flag_without_saying_whose_it_is(tmp_path, cell):
    table = train(tmp_path / "t.csv", "a;b\n1.5;1\n2;0\n", "none")
    learned = Preparation().fit(table)
    path = tmp_path / "new.csv"
    path.write_text(f"a;b\n{cell};1\n")
    how = How(training=learned.reading)
    blocks = stream_table(path, learned.columns, 2, how=how)
    with pytest.raises(InputError) as caught:
        list(_advised(learned.transform(rows) for rows, _ in blocks))
    message = str(caught.value)
    own = {"--" + name.replace("_", "-") for name in flag_values(ScoreOptions())}
    others = set(re.findall(r"--[a-z][a-z-]*", message)) - own
    assert others and "set in training" in message
    assert others <= set(re.findall(r"--[a-z][a-z-]*", message.rpartition("[")[2]))


@pytest.mark.parametrize("command", [load_dataset, lambda path: list(stream_table(path, None, 2))])
def test_records_in_a_file_are_told_a_remedy(tmp_path, command):
    X = np.array([(1.5, 2), (2.5, 3)], dtype=[("a", "f8"), ("b", "i8")])
    np.savez(tmp_path / "t.npz", X=X, y=[0, 1])
    with pytest.raises(InputError, match=r"list of records: write it with .*to_parquet, or save"):
        command(tmp_path / "t.npz")


def test_no_rows_and_no_regular_file(tmp_path):
    (tmp_path / "t.csv").write_text("a,b,y\n")
    with pytest.raises(InputError, match="X has no row: give") as caught:
        load_dataset(tmp_path / "t.csv")
    assert "labels" not in str(caught.value)
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.csv")
        for read in (load_dataset, lambda path: next(stream_table(path, None, 2))):
            with pytest.raises(InputError, match="is no regular file"):
                read(tmp_path / "pipe.csv")


def test_a_long_cell_is_a_cell(tmp_path):
    """csv's own limit is 131,072 characters, whether the column is left out or not."""
    rows = "".join(f"{i},{'x' * 200_000 if i == 3 else 'x'},{i % 2}\n" for i in range(12))
    (tmp_path / "t.csv").write_text("a,payload,y\n" + rows)
    assert load_dataset(tmp_path / "t.csv", drop_columns="payload").X.shape == (12, 1)
    with pytest.raises(InputError, match="column 'payload' holds text"):
        load_dataset(tmp_path / "t.csv")


@pytest.mark.parametrize("later", ["12500", "950"])
def test_the_mark_is_found_out_from_the_whole_file(tmp_path, monkeypatch, later):
    """12.500 and 950 may be thousands; 12500 says that points part none, wherever it stands."""
    cells = ["12.500", "950", *["13.250", "8.125"] * 5, later]
    path = tmp_path / "t.csv"
    path.write_text("v;y\n" + "".join(f"{cell};{i % 2}\n" for i, cell in enumerate(cells)))
    for piece in (4, 1000):
        for module in (text_files, files):
            monkeypatch.setattr(module, "PIECE_ROWS", piece)
        if later == "950":
            with pytest.raises(InputError, match=r"12\.500"):
                read_table(path)
        else:
            assert read_table(path).table.X[0, 0] == 12.5


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("last", ["\x1a", "\x1a\x1a\x1a", "\x1a\r\n"])
def test_a_ctrl_z_behind_the_last_line_is_no_row(tmp_path, end, last):
    """Programs of DOS and many instruments end their files with it."""
    for names, row in (("a,b", "1,2"), ("a", "1")):
        table = train(tmp_path / "t.csv", end.join([names, row, row, last]), "none")
        assert len(table) == 2 and not table.texts


def test_a_sheet_that_ends_with_lines_of_separators_takes_no_room_for_their_cells(tmp_path):
    """A million of a hundred separators each, as spreadsheets write them, took a gigabyte."""
    path = tmp_path / "sheet.csv"
    path.write_text("a,b\n1,2\n3,4\n".replace("\n", "," * 300 + "\n") + ("," * 301 + "\n") * 3000)
    file = text_files.CsvFile(path, Reading(header="yes"))
    tracemalloc.start()
    (piece,) = file.pieces([0, 1], 10_000)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert piece == (2, [["1", "3"], ["2", "4"]], [2, 3])
    assert most < 2**21, f"{most} bytes"  # the cells of all lines: 7 MB
