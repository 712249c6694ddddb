"""Scoring new tables: order, names, drift, explanations, and what is refused."""

import csv
import os
import re
import shutil
import stat
import subprocess
import time
import warnings

import numpy as np
import pandas as pd
import pytest
from helpers import ROOT, made_table, refusal, run_script, run_warm

from swift_hydra.data.files import stream_table
from swift_hydra.data.table import as_table
from swift_hydra.run.score_file import harmless
from swift_hydra.SwiftHydra import SwiftHydra, main

SHORT = {
    "cvae_steps": 60,
    "detector_steps": 40,
    "mixture_steps": 60,
    "n_episodes": 2,
    "n_synthetic": 100,
}
NAMES = ["age", "height", "income", "debt"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    X, y = made_table(n=300, d=4, n_anomalies=30)
    model = SwiftHydra(**SHORT).fit(as_table(X, columns=NAMES), y)
    model.save(folder / "checkpoint.pt")
    return model, X, folder / "checkpoint.pt"


def write_csv(path, header, rows):
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([header, *rows] if header else rows)
    return path


def score(checkpoint, data, *more):
    return run_script("SwiftHydra.py", "score", "--checkpoint", checkpoint, "--data", data, *more)


def score_here(checkpoint, data, *more):
    """The same command in this process."""
    main(["score", *map(str, ("--checkpoint", checkpoint, "--data", data, *more))])


def refused_here(capsys, checkpoint, data, *more):
    """The line with which it refuses."""
    return refusal(capsys, lambda: score_here(checkpoint, data, *more))


def test_columns_that_lost_digits_or_got_stuck_since_training_are_named(tmp_path, capsys):
    """A float32 file: every value of a column with a large offset becomes the same, and usual."""
    X, y = made_table(n=120, d=3, n_anomalies=10)
    X = X + np.array([0, 1e9, 0])
    columns = dict(zip("abc", X.T, strict=True))
    few = {"cvae_steps": 5, "detector_steps": 5, "mixture_steps": 5, "n_synthetic": 10}
    model = SwiftHydra(preset="paper", n_episodes=1, **few).fit(pd.DataFrame(columns), y)
    model.save(tmp_path / "checkpoint.pt")
    for name, kind in {"wide": np.float64, "narrow": np.float32, "mixed": np.float32}.items():
        frame = pd.DataFrame(columns).astype(kind)
        frame = frame.astype({"a": np.float64}) if name == "mixed" else frame
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            model.predict(frame)
        told = [str(w.message) for w in caught if "fewer digits" in str(w.message)]
        frame.to_csv(tmp_path / "new.csv", index=False)
        score_here(tmp_path / "checkpoint.pt", tmp_path / "new.csv", "--out", tmp_path / "s.csv")
        told.append(capsys.readouterr().err)
        assert all(("column 'b' has fewer digits" in line) == (name != "wide") for line in told)
        assert len(told) == 1 + (name != "wide")
        (tmp_path / "s.csv").unlink()
    stuck = pd.DataFrame(columns).assign(c=np.quantile(X[:, 2], 0.6))  # within the range
    said = r"column 'c' \(.*\) has one value in all 120 rows and had others in training"
    with pytest.warns(UserWarning, match=said):
        model.predict(stuck)
    stuck.to_csv(tmp_path / "new.csv", index=False)
    score_here(tmp_path / "checkpoint.pt", tmp_path / "new.csv", "--out", tmp_path / "s.csv")
    assert re.search(said, capsys.readouterr().err)


def test_rows_keep_their_order_and_columns_are_found_by_name(trained, tmp_path):
    model, X, checkpoint = trained
    rows = [[f"c{i}", *x[::-1], "?"] for i, x in enumerate(X)]
    data = write_csv(tmp_path / "new.csv", ["customer", *NAMES[::-1], "note"], rows)
    out = tmp_path / "scores.csv"
    done = score(checkpoint, data, "--id-column", "customer", "--explain", "2", "--out", out)
    assert done.returncode == 0, done.stderr
    assert "300 rows scored" in done.stdout
    assert done.stderr == ""
    with open(out, newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["customer"] for row in table] == [f"c{i}" for i in range(300)]
    np.testing.assert_allclose(
        [float(row["score"]) for row in table], model.decision_function(X), rtol=1e-4, atol=1e-4
    )
    above = [row for row in table if row["anomaly"] == "1"]
    assert 0 < len(above) < 100
    assert all(row["feature_1"] in NAMES and row["feature_2"] in NAMES for row in above)
    assert all(row["feature_1"] == "" for row in table if row["anomaly"] == "0")
    np.savez(tmp_path / "new.npz", X=X)
    done = score(checkpoint, tmp_path / "new.npz", "--out", tmp_path / "again.csv", "--quiet")
    assert done.stdout == ""
    with open(tmp_path / "again.csv", newline="") as file:
        again = list(csv.DictReader(file))
    assert [row["row"] for row in again] == [str(i) for i in range(300)]
    np.testing.assert_allclose(
        [float(r["score"]) for r in again], [float(r["score"]) for r in table], rtol=1e-4, atol=1e-4
    )


def test_drift_is_named(trained, tmp_path):
    _, X, checkpoint = trained
    moved = X.copy()
    moved[:, 2] += 100
    done = score(
        checkpoint,
        write_csv(tmp_path / "new.csv", NAMES, moved.tolist()),
        "--out",
        tmp_path / "s.csv",
    )
    assert done.returncode == 0
    assert (
        "drift: 100.0 % of the rows are outside the training range of column 'income'"
        in done.stderr
    )
    assert done.stderr.count("drift") == 1
    assert "300 of 300 rows are above the threshold" in done.stderr


def test_columns_without_the_trainings_names_are_taken_in_their_order_with_a_warning(
    trained, tmp_path
):
    model, X, _ = trained
    data = write_csv(tmp_path / "other.csv", ["p", "q", "r", "s"], X[:5].tolist())
    with pytest.warns(UserWarning, match="none of its columns has a name of the training table"):
        ((rows, _),) = stream_table(data, NAMES, 4)
    np.testing.assert_array_equal(model.decision_function(rows), model.decision_function(X[:5]))


@pytest.mark.parametrize(
    ("header", "cells", "more", "message"),
    [
        (NAMES[:3], [[1, 2, 3]], [], "column 'debt' of the training table is missing"),
        (NAMES, [[1, 2, 3, "x"]], [], "column 'debt' holds text, first 'x' in line 2"),
        (NAMES, [[1, 2, "", 4]], [], "missing values (NaN) in column 'income', first in line 2"),
        (NAMES, [[1, 2, 3, 4], [1, 2, 3]], [], "line 3 has 3 cells"),
        (NAMES, [[1, 2, 3, 4]], ["--id-column", "name"], "id column 'name' is not there"),
        (
            [*NAMES, "score"],
            [[1, 2, 3, 4, 5]],
            ["--id-column", "score"],
            "id_column='score': the scores have a column of that name",
        ),
        (NAMES, [], [], "holds no row to score"),
        (
            None,
            [[1, 2, 3, 4, 5], [1, 2, 3, 4, 5]],
            [],
            "there are 5 columns, the detector was trained on 4",
        ),
        (NAMES, [[1, 2, 3, 4]], ["--explain", "9"], "explain=9"),
        (NAMES, [[1, 2, 3, 4]], ["--out", "/nowhere/s.csv"], "its folder does not exist"),
        (NAMES, [[1, 2, 3, 4]], ["--out", "new/"], "new/: is a folder that does not exist"),
        (NAMES, [[1, 2, 3, 4]], ["--out", "new/."], "new/.: is a folder that does not exist"),
    ],
)
def test_what_cannot_be_scored_is_refused_and_nothing_is_damaged(
    trained, tmp_path, capsys, header, cells, more, message
):
    out = tmp_path / "scores.csv"
    out.write_text("of an earlier run")
    words = (trained[2], write_csv(tmp_path / "new.csv", header, cells), "--out", out, *more)
    if "holds text" in message:  # one of them as a process of its own
        done = score(*words)
        assert done.returncode == 2
        assert message in done.stderr
        assert done.stderr.count("\n") == 1
    else:
        assert message in refused_here(capsys, *words)
    assert out.read_text() == "of an earlier run"
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("which", ["data", "checkpoint", "link"])
def test_what_is_read_is_never_written_over(trained, tmp_path, which, capsys):
    data = write_csv(tmp_path / "new.csv", NAMES, [[1, 2, 3, 4]] * 5)
    checkpoint = tmp_path / "c.pt"
    shutil.copy(trained[2], checkpoint)
    out = {"data": data, "checkpoint": checkpoint, "link": tmp_path / "link.csv"}[which]
    if which == "link":
        out.symlink_to(data)
    before = data.read_bytes(), checkpoint.read_bytes()
    error = refused_here(capsys, checkpoint, data, "--out", out)
    assert "it would be lost: choose another --out" in error
    assert (data.read_bytes(), checkpoint.read_bytes()) == before


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes are POSIX")
def test_a_device_or_pipe_is_not_replaced(trained, tmp_path):
    data = write_csv(tmp_path / "new.csv", NAMES, [[1, 2, 3, 4]] * 5)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    done = score(trained[2], data, "--out", pipe)
    assert done.returncode == 2
    assert "is no ordinary file, and nobody reads from it" in done.stderr
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    with subprocess.Popen(["cat", pipe], stdout=subprocess.PIPE, text=True) as reader:
        done = score(trained[2], data, "--out", pipe)
        lines = reader.stdout.read().splitlines()
    assert done.returncode == 0 and lines[0] == "row,score,anomaly" and len(lines) == 6
    done = score(trained[2], data, "--out", "/dev/stdout")
    assert len(done.stdout.splitlines()) == 6 and "rows scored" in done.stderr
    command = [ROOT / "SwiftHydra.py", "score", "--checkpoint", trained[2]]
    command += ["--data", data, "--out", "/dev/stdout"]
    (tmp_path / "all.csv").write_text("before\n")
    assert run_warm(*command, append=tmp_path / "all.csv").returncode == 0  # as a shell's >> does
    assert (tmp_path / "all.csv").read_text() == f"before\n{done.stdout}"
    with subprocess.Popen(["cat", pipe], stdout=subprocess.PIPE, text=True) as reader:
        done = run_warm(*command, append=pipe)
        lines = reader.stdout.read().splitlines()
    assert len(lines) == 6 and "rows scored" in done.stderr
    assert score(trained[2], data, "--out", "/dev/null").returncode == 0
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_scores_of_other_rows_are_not_replaced(trained, tmp_path, capsys):
    data = write_csv(tmp_path / "new.csv", NAMES, [[1, 2, 3, 3]] * 5)
    out = tmp_path / "scores.csv"
    checkpoint = trained[2]
    for _ in range(2):  # the same rows again are welcome
        score_here(checkpoint, data, "--out", out)
    kept = out.read_bytes()
    more = write_csv(tmp_path / "more.csv", NAMES, [[1, 2, 3, 3]] * 6)
    done = score(checkpoint, more, "--out", out)
    assert done.returncode == 2 and "--force" in done.stderr and out.read_bytes() == kept
    assert score(checkpoint, more, "--out", out, "--force").returncode == 0
    assert len(out.read_text().splitlines()) == 7
    other = write_csv(tmp_path / "other.csv", NAMES, [[0, 2, 3, 3]] * 6)  # as many rows
    kept = out.read_bytes()
    refused_here(capsys, checkpoint, other, "--out", out)
    assert out.read_bytes() == kept
    noted = tmp_path / "noted.csv"
    lines = out.read_text().splitlines()
    noted.write_text("".join(f"{line},note {i}\n" for i, line in enumerate(lines)))
    kept = noted.read_bytes()
    refused_here(capsys, checkpoint, more, "--out", noted)
    assert noted.read_bytes() == kept
    packed = tmp_path / "scores.csv.gz"
    assert "leave .gz out" in refused_here(capsys, checkpoint, more, "--out", packed)
    mine = tmp_path / "notes.txt"
    mine.write_text("mine")
    refused_here(capsys, checkpoint, data, "--out", mine)
    assert mine.read_text() == "mine"
    link = tmp_path / "link.csv"
    link.symlink_to(out)
    score_here(checkpoint, more, "--out", link)
    assert link.is_symlink()


def test_whatever_stands_at_out_is_kept(trained, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    data = write_csv(tmp_path / "new.csv", NAMES, [[1, 2, 3, 4]] * 5)
    command = (trained[2], "~/new.csv", "--quiet", "--out")
    long, out = b"x" * 200_000, tmp_path / "mine"
    for mine in (long, b'row,score,anomaly\n"' + long, b"\0\xff", b"row,score,anomaly\n0,\0,1\n"):
        out.write_bytes(mine)
        assert "holds something else" in refused_here(capsys, *command, out)
        assert out.read_bytes() == mine
    for name in ("s.csv.GZ", "s.parquet", "s.pt", "s.xlsx"):
        assert "as plain text" in refused_here(capsys, *command, tmp_path / name)
    assert "it would be lost" in refused_here(capsys, *command, data)
    longest = tmp_path / ("n" * 251 + ".csv")
    for _ in range(2):
        score_here(*command, longest)
    assert len(longest.read_text().splitlines()) == 6
    assert not list(tmp_path.glob(".*.part"))


@pytest.mark.parametrize("value", ["nan", "5", "-1", "inf"])
def test_shares_are_shares(trained, tmp_path, value, capsys):
    words = (trained[2], tmp_path / "new.csv")
    for flag in ("verify", "false_alarms"):
        error = refused_here(capsys, *words, f"--{flag.replace('_', '-')}={value}")
        assert f"{flag}={float(value)} is not usable" in error


def test_what_killed_runs_left_goes_and_modes_are_the_users(trained, tmp_path):
    data = write_csv(tmp_path / "new.csv", NAMES, [[1, 2, 3, 4]] * 5)
    out = tmp_path / "scores.csv"
    (tmp_path / ".scores.csv.a_01bcd9.part").write_text("half")
    before = os.umask(0o077)
    try:
        score_here(trained[2], data, "--out", out)
    finally:
        os.umask(before)
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert not list(tmp_path.glob(".*.part"))


def test_cells_that_a_spreadsheet_would_run_are_defused(trained, tmp_path):
    ids = ["=cmd|' /C calc'!A0", "@SUM(1)", "+1", "-2.5", "plain"]
    rows = [[name, 1, 2, 3, 4] for name in ids]
    data = write_csv(tmp_path / "new.csv", ["id", *NAMES], rows)
    done = score(trained[2], data, "--out", tmp_path / "s.csv", "--id-column", "id")
    assert done.returncode == 0
    with open(tmp_path / "s.csv", newline="") as file:
        found = [row[0] for row in csv.reader(file)][1:]
    assert found == ["'=cmd|' /C calc'!A0", "'@SUM(1)", "+1", "-2.5", "plain"]


@pytest.mark.parametrize(
    ("cell", "wanted"),
    [
        ("a;=1+1", "a;'=1+1"),
        ("a\t @cmd", "a\t' @cmd"),
        ("=1;-2+3", "'=1;'-2+3"),
        ("a;-5;b=1", "a;-5;b=1"),
        ("1\t\tb;\t=2", "1\t\tb;\t'=2"),
    ],
)
def test_formulas_behind_what_parts_cells_elsewhere_are_defused(cell, wanted):
    assert harmless(cell) == wanted


def test_a_cell_of_many_tabs_is_looked_at_in_linear_time():
    start = time.process_time()
    assert harmless("a" + "\t" * 30_000 + "=b") == "a" + "\t" * 30_000 + "'=b"
    assert time.process_time() - start < 1  # a minute, once


def test_what_the_training_file_was_read_with_is_in_the_checkpoint(trained, tmp_path, capsys):
    """A file without a header stays one, whatever its first row; the training's decimal mark."""
    model, _, _ = trained
    data = tmp_path / "new.csv"
    data.write_text("1.234;2;3;4\n")
    other = SwiftHydra.load(trained[2])
    other.columns_.preparation.columns = [f"x{j}" for j in range(4)]
    other.columns_.preparation.reading = {"decimal": ",", "missing": None, "header": "no"}
    other.save(tmp_path / "c.pt")
    expected = model.decision_function([[1234, 2, 3, 4], [1.234, 2, 3, 4]])
    for more, value in ([], expected[0]), (["--decimal", "."], expected[1]):
        score_here(tmp_path / "c.pt", data, "--out", tmp_path / "s.csv", "--force", *more)
        with open(tmp_path / "s.csv", newline="") as file:
            (row,) = csv.DictReader(file)
        assert float(row["score"]) == pytest.approx(value, rel=1e-4, abs=1e-4)
    data.write_text("red;2;;4\n1;2;3;4\n")
    error = refused_here(capsys, tmp_path / "c.pt", data, "--out", tmp_path / "s.csv", "--force")
    assert "'red' in line 1" in error and "set in training" in error


def test_missing_arguments_are_named(tmp_path):
    done = run_script("SwiftHydra.py", "score", "--data", tmp_path / "x.csv")
    assert done.returncode == 2
    assert "checkpoint: is missing" in done.stderr


def test_blocks_are_bounded(tmp_path):
    data = write_csv(tmp_path / "long.csv", None, [[i, -i, 1.5] for i in range(1000)])
    blocks = list(stream_table(data, None, 3, size=256))
    assert [len(rows) for rows, _ in blocks] == [256, 256, 256, 232]
    assert np.concatenate([rows.X for rows, _ in blocks])[:, 0].tolist() == list(range(1000))
    assert [i for _, ids in blocks for i in ids] == list(range(1000))


def test_explanations_name_the_planted_feature():
    """One of 20 features is moved; 200 trials on correlated normals, at least 90 % named first."""
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(20, 20)) / 20**0.5 + np.eye(20)
    X = (rng.normal(size=(700, 20)) @ mixing).astype(np.float32)
    y = np.zeros(700, dtype=int)
    y[:30] = 1
    spread = X.std(0)
    X[np.arange(30), rng.integers(0, 20, 30)] += 5 * spread[0]
    model = SwiftHydra(**SHORT).fit(X[:500], y[:500])
    new, planted = X[500:].copy(), rng.integers(0, 20, 200)
    new[np.arange(200), planted] += 5 * spread[planted] * rng.choice([-1, 1], 200)
    names, raised = model.explain(new, 3)
    assert names.shape == raised.shape == (200, 3)
    assert (np.diff(raised, axis=1) <= 0).all()
    assert np.mean(names[:, 0] == [f"x{j}" for j in planted]) >= 0.9


def test_columns_are_explained_many_at_a_time(trained, monkeypatch):
    """One scoring for each column of few rows takes minutes of a wide table."""
    model, X, _ = trained
    score, sizes = model.score_prepared, []
    rows = model.columns_.prepare(as_table(X))
    apart = [score(rows) - score(model.columns_.without(rows, j)) for j in range(4)]

    def counted(rows):
        sizes.append(len(rows))
        return score(rows)

    monkeypatch.setattr(model, "score_prepared", counted)
    for bound, n, wanted in ((1024, 5, [5, 20]), (600, 300, [300, 600, 600]), (9, 5, [5] * 5)):
        monkeypatch.setattr("swift_hydra.estimator.EXPLAINED_ROWS", bound)
        sizes.clear()
        names, raised = model.explain(X[:n], 4)
        assert sizes == wanted
        for row, (named, values) in enumerate(zip(names, raised, strict=True)):
            by_name = dict(zip(named, values, strict=True))
            expected = [column[row] for column in apart]
            np.testing.assert_allclose([by_name[name] for name in NAMES], expected, atol=1e-5)


def test_p_values_and_alarms_by_their_rate(trained, tmp_path):
    model, X, checkpoint = trained
    data = write_csv(tmp_path / "new.csv", NAMES, X)
    out = tmp_path / "scores.csv"
    more = ("--p-values", "--false-alarms", "0.05", "--explain", "1")
    done = score(checkpoint, data, "--out", out, *more)
    assert done.returncode == 0, done.stderr
    with open(out, newline="") as file:
        table = list(csv.DictReader(file))
    p = np.array([float(row["p_value"]) for row in table])
    np.testing.assert_allclose(p, model.p_values(X), rtol=1e-4, atol=3 / len(X))
    flagged = np.array([row["anomaly"] == "1" for row in table])
    assert 0 < flagged.sum() < 60 and p[flagged].max() <= p[~flagged].min()
    assert all((row["feature_1"] != "") == (row["anomaly"] == "1") for row in table)
    done = score(checkpoint, data, "--out", out, "--false-alarms", "2")
    assert done.returncode == 2 and "false_alarms=2" in done.stderr
