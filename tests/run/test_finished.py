"""What is done to the folder of a finished run, and to what stands in a file's place."""

import json
import os
import shutil

import numpy as np
import pytest
from helpers import SHORT, made_table, refusal

from swift_hydra.files import real_place
from swift_hydra.pretrain import main as pretrain_main
from swift_hydra.run.folder import OPTIONAL, RunFolder
from swift_hydra.settings import InputError
from swift_hydra.SwiftHydra import SwiftHydra, main

X, y = made_table(120, 3, 16)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    path = tmp_path_factory.mktemp("finished") / "t.csv"
    np.savetxt(path, np.column_stack([X, y]), delimiter=",", header="a,b,c,y", comments="")
    return path


def words(table, out, *more):
    return [str(table), "--preset", "paper", "--quiet", "--out", str(out), *SHORT, *more]


@pytest.mark.parametrize("name", OPTIONAL)
def test_a_folder_in_the_place_of_a_file_is_refused_before_the_work(tmp_path, name):
    place = tmp_path / "t" / "seen" / "seed0" / name
    place.mkdir(parents=True)
    with pytest.raises(InputError, match=f"{name}: is no ordinary file: take it away"):
        RunFolder(tmp_path, "t", "seen", 0)


def test_a_figure_that_is_missing_is_drawn_again(table, tmp_path, capsys):
    pytest.importorskip("matplotlib", reason="figures need matplotlib: pip install matplotlib")
    main(words(table, tmp_path, "--plot"))
    said = capsys.readouterr().out
    folder = tmp_path / "t" / "seen" / "seed0"
    drawn = {path.name for path in folder.iterdir()}
    when = os.stat(folder / "report.html").st_mtime_ns
    main(words(table, tmp_path, "--plot", "--resume"))
    assert os.stat(folder / "report.html").st_mtime_ns == when  # nothing to do
    (folder / "curves.png").unlink()
    main(words(table, tmp_path, "--plot", "--resume"))
    assert {path.name for path in folder.iterdir()} == drawn
    assert capsys.readouterr().out == 2 * said
    for name, content in (("curves.png", b""), ("map.png", b"cut"), ("report.html", b"<img <img ")):
        run, before = RunFolder(tmp_path, "t", "seen", 0), (folder / name).read_bytes()
        assert run.has_figures()
        (folder / name).write_bytes(content)  # as a crash may leave it
        assert not run.has_figures()
        (folder / name).write_bytes(before)


def test_a_finished_run_is_replaced_by_one_of_the_same_rows_only(table, tmp_path, capsys):
    """A table of the same file name replaced it, or pretrained.pt beside it, without a word."""
    main(words(table, tmp_path))
    folder = tmp_path / "t" / "seen" / "seed0"
    (folder / "pretrained.pt").unlink()
    before = (folder / "report.json").read_bytes()
    other = tmp_path / "t.csv"
    np.savetxt(other, np.column_stack([X + 1, y]), delimiter=",", header="a,b,c,y", comments="")
    given = [str(other), "--quiet", "--out", str(tmp_path)]
    for command in (main, pretrain_main):
        for more in ([], ["--resume"]):
            error = refusal(capsys, lambda command=command, more=more: command([*given, *more]))
            assert "holds the results of other rows (of dataset" in error and "--out" in error
    assert not (folder / "pretrained.pt").exists()
    assert (folder / "report.json").read_bytes() == before
    with pytest.warns(UserWarning, match=r"had mixture_steps=30 \(now 7\): .* starts anew"):
        main(words(table, tmp_path, "--mixture-steps", "7", "--resume"))
    assert json.loads((folder / "report.json").read_bytes())["config"]["mixture_steps"] == 7


@pytest.fixture(scope="module")
def ranked(tmp_path_factory):
    """A table without labels, and a finished run beside it."""
    folder = tmp_path_factory.mktemp("ranked")
    np.savetxt(folder / "u.csv", X, delimiter=",", header="a,b,c", comments="")
    main(words(folder / "u.csv", folder, "--label-column", "none"))
    return folder


@pytest.mark.parametrize("change", ["words", "sorted", "cut", "empty", "scores", "flags"])
def test_another_ranking_than_the_runs_own_is_refused(ranked, tmp_path, capsys, change):
    shutil.copytree(ranked, tmp_path, dirs_exist_ok=True)
    given = words(tmp_path / "u.csv", tmp_path, "--label-column", "none")
    ranking = tmp_path / "u" / "unlabelled" / "seed0" / "scores.csv"
    main([*given, "--resume"])
    assert capsys.readouterr().out.splitlines()[-1] == str(ranking)
    first, *lines = ranking.read_text().splitlines()
    moved = [line.replace(",", ",1", 1) for line in lines]
    turned = [f"{line[:-1]}{1 - int(line[-1])}" for line in lines]
    others = {
        "words": ["garbage"],
        "sorted": lines[::-1],
        "cut": lines[:-1],
        "empty": [],
        "scores": moved,
        "flags": turned,
    }
    ranking.write_text("\n".join([first, *others[change]]) + "\n")
    before = ranking.read_bytes()
    error = refusal(capsys, lambda: main([*given, "--resume"]))
    assert "scores.csv: is not the ranking that the run wrote: take it away" in error
    assert ranking.read_bytes() == before
    ranking.unlink()
    main([*given, "--resume"])
    assert ranking.read_text().splitlines() == [first, *lines]


def test_a_run_without_labels_says_nothing_of_labels_or_experts(ranked, tmp_path, capsys):
    given = words(ranked / "u.csv", tmp_path, "--label-column", "none")
    main([*given, "--preset", "full", "--no-quiet"])
    said = capsys.readouterr().out
    assert "training rows were not learned from, they look like anomalies\n" in said
    assert " anomalies generated (rl); seconds: " in said


def test_a_saved_detector_has_no_rows_to_be_evaluated_on(table, tmp_path):
    """Of an array: its columns have other names, which no flag could give."""
    SwiftHydra(cvae_steps=4, detector_steps=4, mixture_steps=6, n_episodes=1).fit(X, y).save(
        tmp_path / "m.pt"
    )
    with pytest.raises(InputError, match=r"was written by save\(\)"):
        main([str(table), "--eval-only", str(tmp_path / "m.pt")])


@pytest.mark.skipif(not hasattr(os, "symlink"), reason="links")
def test_a_link_to_itself_is_refused(tmp_path):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(InputError, match="a link that leads to itself"):
        real_place(tmp_path / "loop")
