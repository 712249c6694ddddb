"""Reading and checking tables; every message a user can meet, in process and at the shell."""

import io
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from helpers import ROOT, run_script

import swift_hydra.dataloader as dataloader
from swift_hydra.data import files, text_files
from swift_hydra.data.catalogue import resolve_dataset
from swift_hydra.data.files import read_table
from swift_hydra.data.labels import read_labels
from swift_hydra.data.table import check_features, fingerprint
from swift_hydra.dataloader import describe, load_dataset
from swift_hydra.settings import InputError


def save(path, **arrays):
    np.savez(path, **arrays)
    return path


def shell(*args):
    return run_script("dataloader.py", *args)


# ---- reading -------------------------------------------------------------------------------------


def test_embedded_default_is_found_by_any_of_its_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the name must not depend on where the user stands
    for name in ("yeast", "47_yeast", "YEAST", "47_Yeast.npz", dataloader.DEFAULT_DATASET):
        assert resolve_dataset(name).name == "47_yeast.npz"
    data = load_dataset("yeast")
    assert (data.name, data.X.shape, data.X.dtype, data.y.dtype) == (
        "47_yeast",
        (1484, 8),
        np.float64,
        np.int64,
    )
    assert data.columns == tuple(f"x{j}" for j in range(8)) and data.y.sum() == 507
    with pytest.raises(AttributeError):
        data.name = "other"


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int64, np.float16, np.float64, bool])
def test_any_number_type_becomes_floating_point(tmp_path, dtype):
    X, y = (
        (np.arange(20).reshape(10, 2) % 2).astype(dtype),
        np.array([0] * 7 + [1] * 3, dtype=dtype),
    )
    data = load_dataset(save(tmp_path / "a.npz", X=X, y=y.reshape(-1, 1)))
    wide = dtype in (np.int64, np.float64)  # digits that float32 would lose
    assert (
        data.X.dtype == (np.float64 if wide else np.float32)
        and data.y.shape == (10,)
        and data.y.sum() == 3
    )
    np.testing.assert_array_equal(data.X, X.astype(np.float32))


def test_numbers_stored_as_text_are_read(tmp_path):
    path = save(
        tmp_path / "a.npz",
        X=np.array([["1", "2"], ["3", "4.5"], ["5", "6"], ["7", "8"]]),
        y=["0", "1", "1", "0"],
    )
    np.testing.assert_array_equal(
        load_dataset(path).X, np.float32([[1, 2], [3, 4.5], [5, 6], [7, 8]])
    )


CSV_BODY = "1,2,0\n3,4,1\n5,6,1\n7,8,0\n"


@pytest.mark.parametrize(
    ("text", "label", "columns"),
    [
        (CSV_BODY, None, ("x0", "x1")),
        ("a,b,label\n" + CSV_BODY, None, ("a", "b")),
        ("1st,2,0\n" + CSV_BODY, None, ("1st", "2")),  # a header with numbers in it
        ("a,b,label\n" + CSV_BODY, "label", ("a", "b")),
        (CSV_BODY, "x2", ("x0", "x1")),
        (
            "\ufeffa;b;label\r\n" + CSV_BODY.replace(",", ";").replace("\n", "\r\n"),
            None,
            ("a", "b"),
        ),
        ("a\tb\tlabel\n\n" + CSV_BODY.replace(",", "\t"), None, ("a", "b")),
        ('"a, first",b,label\n' + CSV_BODY, None, ("a, first", "b")),
    ],
)
def test_csv_forms(tmp_path, text, label, columns):
    path = tmp_path / "t.csv"
    path.write_bytes(text.encode())
    data = load_dataset(path, label)
    assert data.columns == columns
    np.testing.assert_array_equal(data.X, np.float32([[1, 2], [3, 4], [5, 6], [7, 8]]))
    assert data.y.tolist() == [0, 1, 1, 0]


def test_csv_label_column_in_front(tmp_path):
    (tmp_path / "t.csv").write_text("fraud,a,b\n0,1,2\n1.0,3,4\n1,5,6\n0,7,8\n")
    data = load_dataset(tmp_path / "t.csv", "fraud")
    assert (
        data.columns == ("a", "b")
        and data.y.tolist() == [0, 1, 1, 0]
        and data.X[2].tolist() == [5, 6]
    )


def test_csv_of_several_pieces_names_the_right_line(tmp_path, monkeypatch):
    for module in (files, text_files):
        monkeypatch.setattr(module, "PIECE_ROWS", 7)
    lines = [f"{i},{i % 2}" for i in range(50)]
    (tmp_path / "t.csv").write_text("a,y\n" + "\n".join(lines) + "\n")
    table = read_table(tmp_path / "t.csv").table
    assert table.X[:, 0].tolist() == list(range(50))
    lines[33] = "oops,1"
    (tmp_path / "t.csv").write_text("a,y\n" + "\n".join(lines) + "\n")
    with pytest.raises(InputError, match=r"'a' holds text, first 'oops' in line 35"):
        load_dataset(tmp_path / "t.csv")


# ---- messages ------------------------------------------------------------------------------------

GOOD_X, GOOD_Y = np.arange(12.0).reshape(6, 2), np.array([0, 0, 0, 0, 1, 1])


def with_cell(value, row=3, column=1, dtype=np.float64):
    X = GOOD_X.astype(dtype)
    X[row, column] = value
    return X


BAD_NPZ = {
    "nan": (
        dict(X=with_cell(np.nan), y=GOOD_Y),
        r"1 missing values \(NaN\) in column 'x1', first in row 3 .*fill or drop",
    ),
    "infinity": (
        dict(X=with_cell(-np.inf), y=GOOD_Y),
        r"1 infinite values in column 'x1', first in row 3 .*-inf",
    ),
    "text cell": (
        dict(X=with_cell("red", dtype="U9"), y=GOOD_Y),
        r"column 'x1' holds text, first 'red' in row 3",
    ),
    "complex": (dict(X=GOOD_X + 1j, y=GOOD_Y), r"dtype complex128, give real numbers"),
    "labels": (
        dict(X=GOOD_X, y=[-1, -1, 1, 1, 2, 1]),
        r"the labels are -1, 1, 2: say which is the anomaly",
    ),
    "text labels": (dict(X=GOOD_X, y=list("nnnaaa")), r"the labels are 'a', 'n': say which"),
    "nan label": (
        dict(X=GOOD_X, y=[0, 0, 1, 1, 0, np.nan]),
        r"the labels are empty in 1 rows, first in row 5",
    ),
    "outliers of scikit-learn": (
        dict(X=GOOD_X, y=[1, 1, 1, 1, -1, -1]),
        r"the labels are -1 and 1: .*--anomaly-label -1",
    ),
    "turned round": (
        dict(X=GOOD_X, y=1 - GOOD_Y),
        r"4 of 6 rows are labelled as anomalies, more than half: .*--majority-anomalies",
    ),
    "no anomaly": (dict(X=GOOD_X, y=np.zeros(6)), r"all 6 labels are 0: there is no anomaly"),
    "all anomalies": (dict(X=GOOD_X, y=np.ones(6)), r"all 6 labels are 1: there is no normal row"),
    "one anomaly": (
        dict(X=GOOD_X, y=[0, 0, 0, 0, 0, 1]),
        r"there is 1 anomaly among 6 rows: at least 2",
    ),
    "lengths": (dict(X=GOOD_X, y=GOOD_Y[:4]), r"X has 6 rows and y has 4 labels"),
    "1-D X": (dict(X=GOOD_X[:, 0], y=GOOD_Y), r"X has shape \(6,\): it must be 2-D"),
    "3-D X": (dict(X=GOOD_X[None], y=GOOD_Y), r"X has shape \(1, 6, 2\): it must be 2-D"),
    "2-D y": (
        dict(X=GOOD_X, y=np.stack([GOOD_Y, GOOD_Y], 1)),
        r"y has shape \(6, 2\): it must be 1-D",
    ),
    "0-D y": (dict(X=GOOD_X, y=1), r"y has shape \(\): it must be 1-D"),
    "no row": (dict(X=GOOD_X[:0], y=GOOD_Y[:0]), r"X has no row"),
    "no column": (dict(X=GOOD_X[:, :0], y=GOOD_Y), r"no feature column"),
    "no y": (
        dict(X=GOOD_X, labels=GOOD_Y),
        r"key 'y' is missing, the keys present are \['X', 'labels'\]",
    ),
    "no X": (dict(x=GOOD_X, y=GOOD_Y), r"key 'X' is missing"),
    "pickled X": (dict(X=GOOD_X.astype(object), y=GOOD_Y), r"key 'X' holds pickled Python objects"),
    "pickled y": (dict(X=GOOD_X, y=np.array([{}] * 6)), r"key 'y' holds pickled Python objects"),
}


@pytest.mark.parametrize("case", BAD_NPZ)
def test_bad_npz(tmp_path, case):
    arrays, message = BAD_NPZ[case]
    path = save(tmp_path / "bad.npz", **arrays)
    with pytest.raises(InputError, match=message) as caught:
        load_dataset(path)
    assert "bad.npz" in str(caught.value) and "\n" not in str(caught.value)


def test_missing_key_lists_those_present(tmp_path):
    with pytest.raises(InputError) as caught:
        load_dataset(save(tmp_path / "a.npz", data=GOOD_X, target=GOOD_Y))
    assert "data" in str(caught.value) and "target" in str(caught.value)


def test_a_missing_key_is_told_what_to_do_about_it(tmp_path):
    """Of an .npz of rows alone, and of a group's array, the advice was to save X and y."""
    path = save(tmp_path / "a.npz", X=GOOD_X, unit=np.arange(6))
    with pytest.raises(InputError, match=r"'y' is missing.*give --label-column none"):
        load_dataset(path)
    with pytest.raises(InputError, match=r"'site' is missing.*'unit'\].*with --group-column"):
        load_dataset(path, "none", group_column="site")


def test_a_pickle_is_never_run(tmp_path):
    class Bomb:
        def __reduce__(self):
            return Path.touch, (tmp_path / "ran",)

    member = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        member, {"descr": "|O", "fortran_order": False, "shape": (1, 1)}
    )
    for name, content in {
        "zip.npz": member.getvalue() + pickle.dumps(Bomb()),
        "raw.npz": None,
    }.items():
        if content is None:
            (tmp_path / name).write_bytes(pickle.dumps(Bomb()))
        else:
            with zipfile.ZipFile(tmp_path / name, "w") as archive:
                archive.writestr("X.npy", content)
                archive.writestr("y.npy", content)
        with pytest.raises(InputError):
            load_dataset(tmp_path / name)
    assert not (tmp_path / "ran").exists()


def test_damaged_archives(tmp_path):
    good = save(
        tmp_path / "good.npz", X=np.random.RandomState(0).rand(500, 4), y=np.arange(500) % 2
    ).read_bytes()
    middle = bytearray(good)
    middle[len(good) // 2] ^= 0xFF
    buffer = io.BytesIO()
    np.save(buffer, GOOD_X)
    for name, content in {
        "cut": good[: len(good) // 2],
        "flipped": bytes(middle),
        "empty": b"",
        "page": b"<html>404</html>",
        "npy": buffer.getvalue(),
    }.items():
        (tmp_path / f"{name}.npz").write_bytes(content)
        with pytest.raises(
            InputError, match=f"{name}.npz is (no npz archive|a damaged npz archive)"
        ):
            load_dataset(tmp_path / f"{name}.npz")
    with zipfile.ZipFile(tmp_path / "text.npz", "w") as archive:
        archive.writestr("X", "no array")
        archive.writestr("y", "no array")
    with pytest.raises(InputError, match="key 'X' is no array"):
        load_dataset(tmp_path / "text.npz")


BAD_CSV = {
    "empty": ("", r"is empty"),
    "blank": ("\n\n", r"is empty"),
    "header only": ("a,b,y\n", r"X has no row"),
    "carriage return": (
        "a,b,y\n1,2,0\n1,x\ry,1\n",
        r"line 3 has 2 cells, the first line has 3: it ends with a carriage return alone: put",
    ),
    "ragged": ("a,b,y\n1,2,0\n1,2,3,0\n", r"line 3 has 4 cells, the first line has 3"),
    "short row": ("a,b,y\n1,2,0\n1,0\n", r"line 3 has 2 cells"),
    "text": (
        "a,colour,y\n1,red,0\n2,blue,1\n",
        r"column 'colour' holds text, first 'red' in line 2",
    ),
    "thousands or decimals": (
        "a;b;y\n1;2,500;0\n2;3;1\n",
        r"column 'b' holds '2,500': is the comma a decimal comma",
    ),
    "thousands": ("a,b,y\n1,1_000,0\n2,x,1\n", r"first '1_000' in line 2"),
    "missing": (
        "a,b,y\n1,,0\n,NA,1\n3,4,1\n",
        r"3 missing values \(NaN\) in column 'a', 'b', first in line 2",
    ),
    "infinity": (
        "a,b,y\n1,2,0\n1,inf,1\n3,4,1\n",
        r"1 infinite values in column 'b', first in line 3",
    ),
    "labels": (
        "a,b,y\n1,2,normal\n1,2,attack\n",
        r"the labels are 'attack', 'normal': say which is the anomaly with --anomaly-label",
    ),
    "labels only": ("y\n0\n1\n1\n", r"no feature column"),
}


@pytest.mark.parametrize("case", BAD_CSV)
def test_bad_csv(tmp_path, case):
    text, message = BAD_CSV[case]
    (tmp_path / "bad.csv").write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        load_dataset(tmp_path / "bad.csv")
    assert "bad.csv" in str(caught.value) and "\n" not in str(caught.value)


def test_other_bad_csv(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes(b"a,b\n\xff\xfe,1\n")
    with pytest.raises(InputError, match=r"no UTF-8 text \(byte"):
        load_dataset(path)
    path.write_text("a,b,a,y\n1,2,3,0\n")
    with pytest.raises(
        InputError, match=r"label column 'z' is not there: the columns are 'a', 'b', 'a\.1', 'y'"
    ):
        load_dataset(path, "z")
    with pytest.raises(InputError, match="label column 'a' is there more than once"):
        load_dataset(path, "a")


def test_unknown_places(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "t.xlsx").write_bytes(b"PK")
    for spec, message in {
        "folder": r"folder is a directory: name one",
        "nowhere.csv": r"nowhere.csv does not exist: check the path",
        "data/none.npz": r"does not exist: check the path",
        "data/9_census.npz": r"does not exist: run python dataloader.py --download 9_census",
        "9_CENSUS": r"is not downloaded: run python dataloader.py --download 9_census",
        "census": r"--download 9_census",
        "cifar10": r"is 10 files: name one of CIFAR10_0, .*--download cifar10",
        "yeats": r"neither a file nor a known name: did you mean 47_yeast",
        "qqqqqq": r"neither a file nor a known name: ADBenchDatasets/README.md",
        "t.xlsx": r"suffix '.xlsx' is unknown",
    }.items():
        with pytest.raises(InputError, match=message):
            load_dataset(spec)
    with pytest.raises(InputError, match=r"label_column='y' is for .csv and .parquet files"):
        load_dataset("yeast", "y")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["nowhere.npz"], "does not exist"),
        (["yeats"], "did you mean 47_yeast"),
        (["9_census"], "--download 9_census"),
        (["BAD", "--label-column", "zz"], "label column 'zz' is not there"),
        (["BAD"], "column 'a' holds text"),
        (["--no-such-flag"], "--no-such-flag"),
    ],
)
def test_mistakes_at_the_shell_are_one_line_and_code_2(tmp_path, args, message):
    (tmp_path / "bad.csv").write_text("a,b,y\nred,2,0\n1,2,1\n")
    result = shell(*[tmp_path / "bad.csv" if a == "BAD" else a for a in args])
    assert result.returncode == 2 and result.stdout == ""
    assert (
        result.stderr.count("\n") == 1
        and message in result.stderr
        and "Traceback" not in result.stderr
    )


def test_summary_at_the_shell():
    result = shell()
    assert result.returncode == 0 and result.stderr == ""
    assert (
        "1484" in result.stdout
        and "507 (34.16 %)" in result.stdout
        and "duplicate rows    31" in result.stdout
    )


def test_checks_serve_arrays_too():
    X = check_features([[1, 2], [3, 4]], columns=("a", "b"))
    assert X.dtype == np.float64 and X.flags.c_contiguous
    with pytest.raises(InputError, match="column 'b'"):
        check_features([[1, np.nan], [3, 4]], columns=("a", "b"))
    assert read_labels([True, False, True], majority=True).y.tolist() == [1, 0, 1]


def test_describe_and_fingerprint():
    X = np.float32([[0.0, 1], [-0.0, 1], [2, 1], [2, 1]])
    y = np.array([0, 0, 1, 1])
    assert describe(X, y) == dict(rows=4, features=2, anomalies=2, duplicates=2, constant_columns=1)
    mark = fingerprint(X, y)
    assert len(mark) == 64 and mark == fingerprint(X.astype(np.float64), y.astype(np.int32))
    assert (
        mark != fingerprint(X, 1 - y)
        and mark != fingerprint(X.reshape(2, 4), y)
        and mark != fingerprint(X + 1, y)
    )


def test_importing_the_data_part_does_not_load_torch():
    """Nor does what a worker of the benchmark imports, which starts the processes that compute."""
    code = "import sys, dataloader, swift_hydra.bench.backends; "
    code += "assert not {'torch', 'sklearn', 'pooch'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=60)
