"""Tables as people have them: gaps, texts, Parquet, awkward columns; and the same again when new
rows are scored.
"""

import csv
import json
import warnings

import joblib
import numpy as np
import pytest
from helpers import SHORT, made_table, refusal, run_script
from sklearn.metrics import roc_auc_score

from swift_hydra.data.columns import Preparation
from swift_hydra.data.files import stream_table
from swift_hydra.data.table import as_table
from swift_hydra.dataloader import load_dataset
from swift_hydra.settings import InputError
from swift_hydra.SwiftHydra import SwiftHydra

QUICK = {
    "cvae_steps": 30,
    "detector_steps": 20,
    "mixture_steps": 30,
    "n_episodes": 1,
    "n_synthetic": 60,
}
HEADER = ["customer", "age", "colour", "income", "constant", "age", "debt", "fraud"]


def mixed_table(n=300, seed=0):
    """Rows of text cells with ids, gaps, a text column that tells anomalies, a constant and a
    repeated column.
    """
    X, y = made_table(n=n, d=3, n_anomalies=n // 10, seed=seed)
    rng = np.random.default_rng(seed)
    colours = np.where(
        rng.random(n) < np.where(y == 1, 0.8, 0.1), "violet", rng.choice(["red", "green"], n)
    )
    rows = []
    for i in range(n):
        cells = [
            f"c{i}",
            f"{X[i, 0]:.4f}",
            colours[i],
            f"{X[i, 1]:.4f}",
            "7",
            f"{X[i, 0]:.4f}",
            f"{X[i, 2]:.4f}",
        ]
        for j in (1, 2, 6):
            if rng.random() < 0.1:
                cells[j] = rng.choice(["", "NA", "?"])
        rows.append([*cells, str(y[i])])
    return rows, y


def write_csv(path, rows, header=HEADER):
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def arrow_table(rows):
    arrow = pytest.importorskip("pyarrow", reason="Parquet needs pyarrow: pip install pyarrow")
    columns = []
    for j in range(len(HEADER)):
        cells = [row[j] for row in rows]
        if j in (0, 2):
            column = arrow.array([None if c in ("", "NA", "?") else c for c in cells])
            columns.append(column.dictionary_encode() if j == 2 else column)
        else:
            columns.append(arrow.array([None if c in ("", "NA", "?") else float(c) for c in cells]))
    return arrow.Table.from_arrays(columns, names=HEADER)


def write_parquet(path, table):
    import pyarrow.parquet

    pyarrow.parquet.write_table(table, path)
    return path


OPTIONS = ["--impute", "median", "--categorical", "onehot", "--drop-columns", "customer"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run on the mixed table as a .csv: the folder, the rows, the run's process."""
    base = tmp_path_factory.mktemp("mixed")
    rows, y = mixed_table()
    data = write_csv(base / "mixed.csv", rows)
    run = run_script(
        "SwiftHydra.py",
        data,
        "--label-column",
        "fraud",
        *OPTIONS,
        "--preset",
        "paper",
        "--out",
        base,
        *SHORT,
    )
    assert run.returncode == 0, run.stderr
    return base, rows, y, run


def test_a_table_with_gaps_and_texts_trains_and_scores(trained, tmp_path):
    base, rows, y, run = trained
    assert run.stdout.splitlines()[-1].startswith("AUC-ROC 0.") or "AUC-ROC 1." in run.stdout
    folder = base / "mixed" / "seen" / "seed0"
    config = json.loads((folder / "report.json").read_text())["config"]
    assert (config["impute"], config["categorical"], config["drop_columns"]) == (
        "median",
        "onehot",
        "customer",
    )
    model = SwiftHydra.load(folder / "checkpoint.pt")
    assert model.columns_.given_names == ["age", "colour", "income", "constant", "age.1", "debt"]
    assert model.columns_.preparation.names[1:4] == ["colour=green", "colour=red", "colour=violet"]
    assert model.synthetic_.shape[1] == 9  # a new colour is the ninth
    # Training rows alone made the fills: the checkpoint's median is theirs, to the bit.
    train = np.load(folder / "scores.npz")["train_index"]
    ages = np.array([np.nan if rows[i][1] in ("", "NA", "?") else float(rows[i][1]) for i in train])
    assert model.columns_.preparation.fill[0] == np.nanmedian(ages)
    # New rows: columns in another order, a new colour, one row without any value.
    new = [[row[6], row[1], row[5], row[4], row[3], row[2], row[0]] for row in rows]
    new[0][5] = "ultraviolet"
    new[1][:6] = [""] * 6
    data = write_csv(
        tmp_path / "new.csv",
        new,
        ["debt", "age", "age.1", "constant", "income", "colour", "customer"],
    )
    out = tmp_path / "scores.csv"
    done = run_script(
        "SwiftHydra.py",
        "score",
        "--checkpoint",
        folder / "checkpoint.pt",
        "--data",
        data,
        "--out",
        out,
        "--id-column",
        "customer",
        "--explain",
        "2",
    )
    assert done.returncode == 0, done.stderr
    with open(out, newline="") as file:
        scored = list(csv.DictReader(file))
    assert [row["customer"] for row in scored] == [row[0] for row in rows]
    assert roc_auc_score(y[2:], [float(row["score"]) for row in scored[2:]]) > 0.8
    assert {row["feature_1"] for row in scored} <= {"", *model.columns_.names}


def test_pretraining_uses_the_same_rows(trained):
    base, _, _, _ = trained
    pre = run_script(
        "pretrain.py",
        base / "mixed.csv",
        "--label-column",
        "fraud",
        *OPTIONS,
        "--out",
        base / "again",
        "--device",
        "cpu",
        *SHORT[:4],
    )
    assert pre.returncode == 0, pre.stderr
    run = run_script(
        "SwiftHydra.py",
        base / "mixed.csv",
        "--label-column",
        "fraud",
        *OPTIONS,
        "--preset",
        "paper",
        "--out",
        base / "again",
        *SHORT,
    )
    assert "using " in run.stdout, run.stderr
    assert run.stdout.splitlines()[-1] == trained[3].stdout.splitlines()[-1]


def test_parquet_is_read_as_the_csv_is(trained, tmp_path):
    base, rows, _, _ = trained
    path = write_parquet(tmp_path / "mixed.parquet", arrow_table(rows))
    settings = ("fraud", "median", "onehot", "customer")
    one, two = load_dataset(base / "mixed.csv", *settings), load_dataset(path, *settings)
    assert one.columns == two.columns
    np.testing.assert_array_equal(one.X, two.X)
    np.testing.assert_array_equal(one.y, two.y)
    model = SwiftHydra.load(base / "mixed" / "seen" / "seed0" / "checkpoint.pt")
    arguments = model.columns_.given_names, 6, model.columns_.texts, "customer"
    pieces = [list(stream_table(file, *arguments, size=128)) for file in (base / "mixed.csv", path)]
    assert [len(piece) for piece, _ in pieces[1]] == [128, 128, 44]
    for (csv_rows, csv_ids), (parquet_rows, parquet_ids) in zip(*pieces, strict=True):
        assert list(csv_ids) == list(parquet_ids)
        np.testing.assert_array_equal(
            model.decision_function(csv_rows), model.decision_function(parquet_rows)
        )


def test_ordinal_texts_and_new_ones():
    train = as_table([["red", 1], ["blue", 2], ["red", None], [None, 4]], True)
    preparation = Preparation("median", "ordinal").fit(train)
    np.testing.assert_array_equal(preparation.transform(train), [[1, 1], [0, 2], [1, 2], [1, 4]])
    new = as_table([["green", 5.0], ["blue", 1]], preparation.texts)
    np.testing.assert_array_equal(preparation.transform(new), [[-1, 5], [0, 1]])
    np.testing.assert_array_equal(preparation.unknown(new), [[True, False], [False, False]])
    again = Preparation.from_snapshot(preparation.snapshot())
    np.testing.assert_array_equal(again.transform(new), preparation.transform(new))


def test_the_class_takes_data_frames_with_gaps_and_texts(tmp_path):
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    rows, y = mixed_table()
    frame = pandas.DataFrame(
        [row[1:7] for row in rows], columns=["age", "colour", "income", "constant", "more", "debt"]
    )
    frame = frame.replace({"": None, "NA": None, "?": None})
    for name in frame.columns.drop("colour"):
        frame[name] = pandas.to_numeric(frame[name])
    with pytest.raises(InputError, match="'colour' holds text"):
        SwiftHydra(impute="median", **QUICK).fit(frame, y)
    with pytest.raises(InputError, match=r"missing values.*'age'.*--impute median"):
        SwiftHydra(categorical="onehot", **QUICK).fit(frame, y)
    model = SwiftHydra(impute="median", categorical="onehot", **QUICK).fit(frame, y)
    score = model.decision_function(frame)
    assert roc_auc_score(y, score) > 0.8
    names, _ = model.explain(frame[:5], 6)
    assert set(names[0]) == set(frame.columns)
    model.save(tmp_path / "m.pt")
    assert np.array_equal(SwiftHydra.load(tmp_path / "m.pt").decision_function(frame), score)
    joblib.dump(model, tmp_path / "m.joblib")
    assert np.array_equal(joblib.load(tmp_path / "m.joblib").decision_function(frame), score)


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_a_frames_columns_are_matched_by_name(library, tmp_path):
    frames = pytest.importorskip(library, reason=f"{library} is not installed")
    X, y = made_table(n=150, n_anomalies=20)
    frame = frames.DataFrame({name: X[:, j] for j, name in enumerate("abcdef")})
    model = SwiftHydra(**QUICK).fit(frame, y)
    assert list(model.feature_names_in_) == list("abcdef")
    score = model.decision_function(frame)
    model.save(tmp_path / "m.pt")
    again = SwiftHydra.load(tmp_path / "m.pt")
    for fitted in (model, again):
        np.testing.assert_array_equal(fitted.decision_function(frame[list("fdbeca")]), score)
        np.testing.assert_array_equal(fitted.decision_function(X), score)  # by position
        renamed = frames.DataFrame({name: X[:, j] for j, name in enumerate("zbcdef")})
        with pytest.raises(InputError, match="column 'a' is missing and column 'z' is not known"):
            fitted.decision_function(renamed)
        wider = frames.DataFrame({name: X[:, j % 6] for j, name in enumerate("abcdefg")})
        with pytest.raises(InputError, match="column 'g' is not known"):
            fitted.decision_function(wider)
        with pytest.raises(InputError, match="column 'f' is missing"):
            fitted.decision_function(frame[list("abcde")])
    assert not hasattr(model.fit(X, y), "feature_names_in_")


def test_the_unseen_protocol_parts_anomalies_of_mixed_tables(trained, tmp_path):
    base = trained[0]
    run = run_script(
        "SwiftHydra.py",
        base / "mixed.csv",
        "--label-column",
        "fraud",
        "--protocol",
        "unseen",
        "--impute",
        "median",
        "--categorical",
        "ordinal",
        "--drop-columns",
        "customer,constant",
        "--preset",
        "paper",
        "--out",
        tmp_path,
        *SHORT,
    )
    assert run.returncode == 0, run.stderr


def test_unlabelled_rows_stay_unlabelled(tmp_path):
    X, y = made_table()
    some = np.where(np.arange(len(y)) % 3 == 0, np.where(y == 1, 1, -1), y)
    np.savez(tmp_path / "pu.npz", X=X, y=some)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = load_dataset(tmp_path / "pu.npz")
    np.testing.assert_array_equal(data.y, some)
    n = int((some == -1).sum())
    assert str(data.labels) == f"anomaly = 1: 24 of 240 rows, {n} unlabelled (-1)"
    text = run_script("dataloader.py", tmp_path / "pu.npz").stdout
    assert "anomalies         24 (10.00 %)" in text
    np.savez(tmp_path / "two.npz", X=X, y=np.where(y == 1, 1, -1))
    run = run_script("dataloader.py", tmp_path / "two.npz")
    assert run.returncode == 2
    assert run.stderr.startswith("error: ") and run.stderr.count("\n") == 1
    assert "call the outlier -1" in run.stderr and "--anomaly-label 1" in run.stderr


def test_constant_and_repeated_columns_are_kept_and_harmless(tmp_path):
    X, y = made_table(d=3)
    wide = np.column_stack([X, X[:, 0], np.full(len(X), 0.1)])
    model = SwiftHydra(**QUICK).fit(wide, y)
    assert roc_auc_score(y, model.decision_function(wide)) > 0.8
    write_csv(
        tmp_path / "t.csv",
        [[*row, label] for row, label in zip(wide, y, strict=True)],
        ["a", "b", "c", "a", "k", "y"],
    )
    assert load_dataset(tmp_path / "t.csv").columns == ("a", "b", "c", "a.1", "k")
    text = run_script("dataloader.py", tmp_path / "t.csv").stdout
    assert "constant columns  1" in text


IDS = [[f"id{i}", i, i % 2] for i in range(300)]
BAD = {
    "text": (
        [["red", 1, 0], ["blue", 2, 1]],
        [],
        "column 'a' holds text, first 'red' in line 2: give --categorical",
    ),
    "gap": (
        [[1, "", 0], [2, 2, 1]],
        [],
        "1 missing values (NaN) in column 'b', first in line 2: fill or drop them",
    ),
    "ids": (
        IDS,
        ["--categorical", "onehot"],
        "text column 'a' has 300 different texts, more than 255",
    ),
    "mistyped": (
        [*([i, i, i % 2] for i in range(9)), [1, "2x", 0]],
        [],
        "column 'b' holds text, first '2x' in line 11",
    ),
    "column without a value": (
        [["", i, i % 2] for i in range(9)],
        [],
        "column 'a' has no value at all: leave it out (--drop-columns)",
    ),
    "column without a value, and a gap": (
        [["", i or "", i % 2] for i in range(9)],
        [],
        "column 'a' has no value at all: leave it out (--drop-columns); the others: fill or drop",
    ),
    "empty column": (
        [["", i, i % 2] for i in range(9)],
        ["--impute", "median"],
        "column 'a' has no value",
    ),
    "infinity": (
        [["inf", 1, 0], [1, 2, 1]],
        ["--impute", "median"],
        "1 infinite values in column 'a'",
    ),
    "gap in text": (
        [["", 1, 0], ["x", 2, 1]],
        ["--categorical", "onehot"],
        "missing values (NaN) in column 'a'",
    ),
    "no such column": (
        [[1, 2, 0], [3, 4, 1]],
        ["--drop-columns", "a,z"],
        "drop_columns: 'z' is not there",
    ),
    "option": ([[1, 2, 0], [3, 4, 1]], ["--impute", "mean"], "--impute"),
    "gap in labels": ([[1, 2, 0], [3, 4, ""]], ["--impute", "median"], "the labels are"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_tables_are_refused_in_one_line(tmp_path, case, capsys):
    from swift_hydra.SwiftHydra import main

    rows, options, message = BAD[case]
    data = write_csv(tmp_path / "bad.csv", rows, ["a", "b", "y"])
    words = [str(data), "--out", str(tmp_path / "out"), *options]
    assert message in refusal(capsys, lambda: main(words))
    assert not (tmp_path / "out").exists()


def test_bad_parquet_is_refused(tmp_path, monkeypatch):
    rows, _ = mixed_table(40)
    table = arrow_table(rows)
    path = write_parquet(tmp_path / "t.parquet", table)
    with pytest.raises(InputError, match="column 'customer' holds text, first 'c0' in row 0"):
        load_dataset(path)
    with pytest.raises(InputError, match="label column 'age' is there more than once"):
        load_dataset(path, "age")
    import pyarrow as arrow

    dated = table.append_column("day", arrow.array([0] * len(rows), arrow.timestamp("s")))
    with pytest.raises(InputError, match=r"column 'day' holds dates, .*--dates"):
        load_dataset(
            write_parquet(tmp_path / "dated.parquet", dated), "fraud", categorical="onehot"
        )
    data = path.read_bytes()
    for content in (b"", b"PAR1", data[: len(data) // 2]):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"t.parquet is no readable .parquet file \([^\n]*$"):
            load_dataset(path)
    import sys

    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InputError, match="pip install pyarrow"):
        load_dataset(path)


def test_npz_of_texts(tmp_path):
    np.savez(
        tmp_path / "t.npz",
        X=np.array([["red", "1"], ["blue", "2"], ["red", "3"], ["red", "1"]]),
        y=[0, 1, 1, 0],
    )
    data = load_dataset(tmp_path / "t.npz", categorical="onehot")
    np.testing.assert_array_equal(data.X, [[0, 1, 1], [1, 0, 2], [0, 1, 3], [0, 1, 1]])
    with pytest.raises(InputError, match="column 'x0' holds text"):
        load_dataset(tmp_path / "t.npz")
