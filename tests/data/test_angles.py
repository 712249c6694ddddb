"""ADBench's kinds of anomalies and faults of tables: what is made, and that commands take it."""

import numpy as np
import pytest
from helpers import ROOT, SHORT, made_table, run_script, run_warm
from scipy.stats import ks_2samp, spearmanr
from sklearn.neighbors import NearestNeighbors

from swift_hydra.data.angles import ANGLES, FAULTS, KINDS, irrelevant, made_rows
from swift_hydra.data.columns import ColumnSettings
from swift_hydra.data.splits import make_split, parse_protocol, protocol_name
from swift_hydra.dataloader import RowOptions, load_rows
from swift_hydra.SwiftHydra import main

SHA = """
import hashlib, sys
sys.path.insert(0, "")
from swift_hydra.dataloader import RowOptions, load_rows
for protocol in sys.argv[1:]:
    print(protocol, *load_rows(RowOptions(protocol=protocol)).fingerprints.values())
"""


def blobs(n=900, n_anomalies=300, d=4, seed=0):
    """Normal rows in two correlated groups away from 0; what the anomalies are is of no matter."""
    rng = np.random.default_rng(seed)
    y = (np.arange(n) < n_anomalies).astype(np.int64)
    X = rng.normal(size=(n, d)) @ (np.eye(d) + 1.5)
    X += np.where(rng.random(n) < 0.5, 10.0, 25.0)[:, None]
    return X, y


def rows_of(protocol, path, **options):
    return load_rows(RowOptions(dataset=str(path), protocol=protocol, **options))


@pytest.fixture
def path(tmp_path):
    X, y = made_table(n=300, d=5, n_anomalies=45)
    y = y.copy()
    y[np.flatnonzero(y == 0)[:20]] = -1
    np.savez(tmp_path / "t.npz", X=X, y=y)
    return tmp_path / "t.npz"


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_makes_every_row_anew_and_keeps_the_labels(kind, path):
    seen = rows_of("seen", path)
    rows = rows_of(kind, path)
    labelled = seen.train.y != -1
    assert np.array_equal(rows.split.train, seen.split.train[labelled])  # -1 has no place
    assert np.array_equal(rows.train.y, seen.train.y[labelled])
    assert np.array_equal(rows.split.test, seen.split.test)
    assert np.array_equal(rows.y_test, seen.y_test) and rows.X_test.shape == seen.X_test.shape
    assert np.isfinite(rows.X_test).all() and not (rows.X_test == seen.X_test).any()
    X, y = blobs()
    assert not np.allclose(made_rows(X, y, kind, 0), made_rows(X, y, kind, 1))


def test_local_anomalies_are_nearer_than_global_ones():
    X, y = blobs()
    distance = {}
    for kind in KINDS:
        made = made_rows(X, y, kind, 0)
        nearest = NearestNeighbors(n_neighbors=5).fit(made[y == 0])
        distance[kind] = np.median(nearest.kneighbors(made[y == 1])[0])
    assert distance["local"] < distance["global"] < distance["cluster"]


def test_normal_rows_and_local_ones_have_the_mixtures_moments():
    X, y = blobs(n=6000, n_anomalies=3000)
    made = made_rows(X, y, "local", 0)
    np.testing.assert_allclose(made[y == 0].mean(0), X[y == 0].mean(0), rtol=0.03)
    np.testing.assert_allclose(np.cov(made[y == 0].T), np.cov(X[y == 0].T), rtol=0.1)
    # Two groups 15 apart: within them the variance is 5 times as large.
    low = (made.mean(1) < 17.5)[:, None]
    within = [np.cov(made[(y == label) & low[:, 0]].T)[0, 0] for label in (0, 1)]
    assert 3 < within[1] / within[0] < 6


def test_global_anomalies_fill_the_widened_ranges():
    X, y = blobs()
    anomalies = made_rows(X, y, "global", 0)[y == 1]
    low, high = 1.1 * X[y == 0].min(0), 1.1 * X[y == 0].max(0)
    assert (anomalies >= low).all() and (anomalies <= high).all()
    assert (np.ptp(anomalies, axis=0) > 0.95 * (high - low)).all()


def test_dependency_keeps_the_columns_and_loses_their_dependence():
    X, y = blobs(n=2000, n_anomalies=1000)
    made = made_rows(X, y, "dependency", 0)
    for j in range(X.shape[1]):
        assert ks_2samp(made[y == 0, j], made[y == 1, j]).pvalue > 0.01
        assert ks_2samp(made[y == 0, j], X[y == 0, j]).statistic < 0.08
    off = ~np.eye(X.shape[1], dtype=bool)
    assert np.abs(spearmanr(made[y == 1]).statistic[off]).max() < 0.15
    assert spearmanr(made[y == 0]).statistic[off].min() > 0.7


def test_a_constant_column_and_a_wide_table_are_taken():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(40, 60))
    X[:, 3] = 7.0
    y = (np.arange(40) < 10).astype(np.int64)
    for kind in KINDS:
        made = made_rows(X, y, kind, 0)
        assert np.isfinite(made).all() and (made[y == 0, 3] == 7.0).all()


def test_duplicated_repeats_anomalies_on_either_side(path):
    seen, rows = rows_of("seen", path), rows_of("duplicated", path)
    for name in ("train", "test", "known"):
        of_seen, here = getattr(seen.split, name), getattr(rows.split, name)
        values, counts = np.unique(here, return_counts=True)
        assert np.array_equal(values, of_seen) and (np.diff(here) >= 0).all()
        assert np.array_equal(counts, np.where(seen.data.y[of_seen] == 1, 3, 1))
    assert (rows.train.y == 1).sum() == 3 * (seen.train.y == 1).sum() and rows.n_hidden == 0
    assert rows.y_test.sum() == 3 * seen.y_test.sum()


def test_irrelevant_columns_take_free_names(tmp_path):
    X, y = made_table(120, 4, 16)
    rows = np.column_stack([X, y])
    header = "irrelevant0,a,irrelevant2,b,y"
    np.savetxt(tmp_path / "t.csv", rows, delimiter=",", header=header, comments="", fmt="%.6g")
    columns = rows_of("irrelevant", tmp_path / "t.csv").data.columns
    assert columns == (*header.split(",")[:-1], "irrelevant1", "irrelevant3")


def test_irrelevant_adds_half_as_many_columns_in_the_ranges(path):
    seen, rows = rows_of("seen", path), rows_of("irrelevant", path)
    d = seen.X_test.shape[1]
    assert rows.X_test.shape[1] == d + 3 and rows.data.columns[d:][0] == "irrelevant0"
    assert rows.X_test.dtype == seen.X_test.dtype
    assert np.array_equal(rows.X_test[:, :d], seen.X_test)
    assert np.array_equal(rows.train.y, seen.train.y)
    X = np.array([[0.0, 5.0], [1.0, np.nan], [np.nan, 9.0]])
    added = irrelevant(X, 0, [1])
    assert added.shape == (3, 1) and (added >= 5).all() and (added <= 9).all()


def test_flipped_tells_a_tenth_of_the_labels_wrongly(path):
    seen, rows = rows_of("seen", path), rows_of("flipped", path)
    assert np.array_equal(rows.split.train, seen.split.train)
    wrong = rows.train.y != seen.train.y
    labelled = seen.train.y != -1
    assert wrong.sum() == round(0.1 * labelled.sum()) and not wrong[~labelled].any()
    assert rows.n_hidden == (wrong & (seen.train.y == 1)).sum()
    n_false = (wrong & (seen.train.y == 0)).sum()
    assert f"known anomalies ({n_false} of them normal rows)" in str(rows)
    assert np.array_equal(rows.y_test, seen.y_test)


def test_texts_and_gaps_go_through_every_protocol(tmp_path):
    rng = np.random.default_rng(0)
    lines = ["a,b,colour,outlier"]
    for i in range(120):
        gap = "" if i == 5 else f"{rng.normal():.4f}"
        lines.append(f"{rng.normal():.4f},{gap},{'red' if i % 3 else 'blue'},{int(i % 6 == 0)}")
    (tmp_path / "t.csv").write_text("\n".join(lines) + "\n")
    for protocol in ANGLES:
        which = RowOptions(dataset=str(tmp_path / "t.csv"), protocol=protocol)
        which.label_column = "outlier"
        rows = load_rows(which, ColumnSettings(impute="median", categorical="onehot"))
        assert rows.X_test.shape[1] == 5 + 2 * (protocol == "irrelevant")
        assert np.isfinite(rows.X_test).all()


def test_names_and_rows_are_the_same_in_every_process(tmp_path):
    assert set(ANGLES) == {*KINDS, *FAULTS} and len(ANGLES) == 7
    for name in ANGLES:
        assert parse_protocol(name)[0] == protocol_name(name) == name
    (tmp_path / "sha.py").write_text(SHA)
    other = run_warm(tmp_path / "sha.py", *ANGLES, cwd=ROOT).stdout
    here = [
        " ".join([name, *load_rows(RowOptions(protocol=name)).fingerprints.values()])
        for name in ANGLES
    ]
    assert other.splitlines() == here
    assert len({line.split()[1] for line in here}) == 7


def test_max_rows_is_drawn_before_rows_are_made():
    y = blobs()[1]
    for name in ANGLES:
        split = make_split(None, y, name, 0, max_rows=200)
        assert len(np.unique(np.concatenate([split.train, split.test]))) == 200


@pytest.mark.parametrize("protocol", ANGLES)
def test_the_command_takes_every_protocol(protocol, tmp_path, capsys):
    words = ["--preset", "paper", "--generator", "noise", "--max-rows", "300", *SHORT]
    main(["--protocol", protocol, "--out", str(tmp_path), "--quiet", *words])
    assert capsys.readouterr().out.startswith("AUC-ROC ")
    assert (tmp_path / "47_yeast" / protocol / "seed0" / "report.json").is_file()


def test_the_scripts_take_them_as_processes(tmp_path):
    words = ["--protocol", "flipped", "--out", tmp_path, "--max-rows", "300", *SHORT[:4]]
    done = run_script("pretrain.py", *words)
    assert done.returncode == 0, done.stderr
    assert "hidden ones" in done.stdout
    words = ["--datasets", "47_yeast", "--protocols", "local,irrelevant", "--seeds", "0"]
    words += ["--methods", "kNN", "--max-rows", "300", "--records", tmp_path / "records"]
    done = run_script("benchmark.py", *words)
    assert "2 computed, 0 failed" in done.stdout, done.stdout + done.stderr


def test_irrelevant_columns_lie_in_the_range_of_one_column_each():
    rng = np.random.default_rng(0)
    X = np.column_stack([rng.random((200, 4)), 100 + rng.random((200, 4))])
    added = irrelevant(X, 0)
    assert added.shape == (200, 4) and np.ptp(added, axis=0).max() <= 1
