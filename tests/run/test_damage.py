"""Runs whose files are damaged, edited or of another run; two runs in one folder; the folder of a
finished run, and what stands in a file's place.
"""

import copy
import json
import os
import random
import shutil
import signal
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers import SHORT, made_table, refusal, trained_cvae
from runs import NAMES, PLOT, POSIX, STEPS, contents, finish, refused, scores

from swift_hydra.files import load_checkpoint, real_place, write_torch
from swift_hydra.journal import Journal
from swift_hydra.pretrain import main as pretrain_main
from swift_hydra.run import resume as state
from swift_hydra.run import row_map
from swift_hydra.run.folder import OPTIONAL, RANKING, RunFolder
from swift_hydra.run.report import ranking
from swift_hydra.run.resume import Store
from swift_hydra.settings import InputError
from swift_hydra.SwiftHydra import SwiftHydra, main


@POSIX
def test_every_damage_to_a_checkpoint_is_noticed(base, tmp_path):
    good, rng = (base.folder("out") / "checkpoint.pt").read_bytes(), random.Random(1)
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(good)
    model = SwiftHydra.load(path)
    assert (
        torch.load(path, weights_only=True)["kind"] == "SwiftHydra"
    )  # an ordinary file of torch for other programs
    X, _ = made_table(n=300, n_anomalies=30)
    assert np.isfinite(model.decision_function(X)).all()
    damaged = [good[: rng.randrange(len(good))] for _ in range(5)] + [b"", good + b"\0"]
    for place in [*(rng.randrange(len(good)) for _ in range(20)), 0, len(good) - 1, len(good) - 70]:
        flipped = bytearray(good)
        flipped[place] ^= 1 << rng.randrange(8)
        damaged.append(bytes(flipped))
    for content in damaged:
        path.write_bytes(content)
        with pytest.raises(InputError, match="not a readable checkpoint"):
            SwiftHydra.load(path)


@POSIX
def test_a_resume_file_that_does_not_fit_is_refused(base):
    path = base.folder("cut")
    base.start("cut", signal=["/resume.pt", signal.SIGKILL]).wait()
    good = {name: (path / name).read_bytes() for name in ("resume.pt", "pretrained.pt")}
    refused(
        base.start("cut", "--resume", "--mixture-steps", 31),
        "mixture_steps=30 (now 31)",
        "without --resume",
    )
    with pytest.raises(InputError, match=r"other rows.*without --resume"):
        Store(path / "resume.pt", "other", {}, True, print)
    rng = random.Random(2)
    for name, content in good.items():
        flipped = bytearray(content)
        flipped[rng.randrange(len(content))] ^= 16
        for damaged in (bytes(flipped), content[: len(content) // 3]):
            (path / name).write_bytes(damaged)
            remedy = "without --resume" if name == "resume.pt" else "run the command that wrote it"
            again = base.start("cut", "--resume")
            refused(again, name, "not a readable checkpoint", remedy)
            assert (path / name).read_bytes() == damaged
        (path / name).write_bytes(content)
    finish(base.start("cut", "--resume"))
    assert np.array_equal(scores(path), base.scores)


@POSIX
def test_a_resume_file_of_another_content_is_refused(base):
    """The sum is right and the content is not: one line, whatever it holds."""
    path = base.folder("content")
    base.start("content", signal=["/resume.pt", signal.SIGKILL]).wait()
    saved = load_checkpoint(path / "resume.pt", "resume")
    entry = saved["entries"]["episodes"]
    rows, logged = entry["accepted"], entry["log"]
    silent = logged[-1] | {"reward": None}
    changes = [
        {"entries": {}},
        {"entries": "x"},
        {"settings": [1]},
        {"last": None},
        {"entries": {"episodes": {}}},
        {"entries": {"episodes": entry | {"accepted": torch.full_like(rows, torch.nan)}}},
        {"entries": {"episodes": entry | {"accepted": rows[:, :1]}}},
        {"entries": {"episodes": entry | {"accepted": rows[:-1]}}},
        {"entries": {"episodes": entry | {"log": 3}}},
        {"entries": {"episodes": entry | {"agent": {"policy": {}}}}},
        {"entries": {"episodes": entry | {"log": [*logged[:-1], silent]}}},
        {"settings": saved["settings"] | {"mixture_steps": torch.zeros(2)}},
    ]
    for change in changes:
        write_torch(path / "resume.pt", saved | change)
        refused(base.start("content", "--resume"), "resume.pt", "does not fit", "without --resume")
    write_torch(path / "resume.pt", saved)
    finish(base.start("content", "--resume"))
    assert np.array_equal(scores(path), base.scores)
    for wrong in ("[" * 200_000, "{}", '{"n_test": 3, "config": []}'):
        (path / "report.json").write_text(wrong)
        refused(base.start("content", "--resume"), "report.json", "run without --resume")


@pytest.mark.parametrize(
    "change",
    [
        lambda saved: saved["history"].__setitem__(3, {"reconstruction": "x", "kl": None}),
        lambda saved: saved["optimiser"]["moments"][0][0].fill_(torch.nan),
        lambda saved: saved["optimiser"]["done"][0].fill_(7),
        lambda saved: saved["network"].update(
            {name: value.double() * 1e300 for name, value in saved["network"].items()}
        ),
    ],
)
def test_a_training_takes_up_nothing_that_none_leaves(change):
    """It was learned from, and the run recorded as failed, or its end met what is no number."""
    X, y = map(torch.from_numpy, made_table(n=60, n_anomalies=10))
    at_five = {}

    class Keeping(Journal):
        def due(self):
            return True

        def keep(self, stage, content, n_done, n_steps):
            if n_done == 5:
                at_five[stage] = copy.deepcopy(content)

        def saved(self, stage):
            return at_five.get(stage)

    trained_cvae(X, y, steps=8, journal=Keeping())
    change(at_five["cvae"])
    with pytest.raises(ValueError):
        trained_cvae(X, y, steps=8, journal=Keeping())


@POSIX
def test_without_resume_a_run_starts_anew(base):
    path = base.folder("anew")
    base.start("anew", signal=["/resume.pt", signal.SIGKILL]).wait()
    (path / "resume.pt").write_bytes(b"damaged")
    anew = finish(base.start("anew"))
    assert "--resume would go on from it" in anew.out
    assert "resuming" not in anew.out
    assert np.array_equal(scores(path), base.scores)
    assert set(contents(path)) == NAMES


@POSIX
def test_a_finished_run_is_not_run_again(base):
    path = base.folder("again")
    shutil.copytree(base.folder("out"), path)
    before = contents(path)
    first = finish(base.start("again", "--resume"))
    assert first.out.splitlines()[-1].startswith("AUC-ROC 0.")
    assert "mixture" not in first.out
    assert contents(path) == before
    assert "using" in finish(base.start("again", "--resume", script="pretrain")).out
    assert contents(path) == before
    (path / "checkpoint.pt").unlink()  # what is missing is made again, and nothing else goes
    (path / "my_notes.png").write_text("mine")
    finish(base.start("again", "--resume"))
    assert (path / "checkpoint.pt").exists() and (path / "my_notes.png").read_text() == "mine"
    (path / "my_notes.png").unlink()
    (path / "scores.npz").write_bytes(before["scores.npz"][:-200])
    refused(base.start("again", "--resume"), "scores.npz", "run without --resume")
    finish(
        base.start("again", "--resume", "--mixture-steps", 31)
    )  # nothing of it is there: it simply runs
    assert not np.array_equal(scores(path), base.scores)


def resume(base, out, *more):
    """The command in this process."""
    table = str(base.where / "made.npz")
    main([table, "--out", str(base.where / out), *STEPS, "--resume", "--quiet", *more])


@POSIX
def test_scores_that_are_not_those_of_the_report_are_refused(base, capsys):
    path = base.folder("arrays")
    shutil.copytree(base.folder("out"), path)
    with np.load(path / "scores.npz") as arrays:
        good = dict(arrays)
    y, score = good["y_test"], good["score"]
    changes = [
        {"y_test": y[::-1]},
        {"y_test": 1 - y},
        {"score": score[::-1]},
        {"score": score.astype(complex)},
        {"score": score.astype("U")},
        {"score": (score > 0)},
        {"y_test": y.astype(float)},
        *({"y_test": np.full(len(y), value)} for value in (0, 1, "a", np.nan)),
        {"y_test": y + (np.arange(len(y)) == y.argmax())},  # of three kinds
    ]
    for change in changes:
        np.savez(path / "scores.npz", **(good | change))
        with pytest.raises(InputError, match=r"scores\.npz: is missing or damaged.*--resume"):
            resume(base, "arrays")
    assert capsys.readouterr().out == ""
    np.savez(path / "scores.npz", **good)
    resume(base, "arrays")
    assert capsys.readouterr().out.startswith("AUC-ROC")


@POSIX
def test_edited_records_are_refused(base, capsys):
    path = base.folder("records")
    shutil.copytree(base.folder("out"), path)
    good = (path / "report.json").read_text()
    report = json.loads(good)
    changed = [{name: value for name, value in report.items() if name != "seconds"}]
    changed += [report | {"seconds": "long"}, report | {"seconds": {"mixture": "long"}}]
    changed += [report | {"auc_roc": str(report["auc_roc"])}, report | {"n_train": "9"}]
    changed += [report | {"versions": []}, report | {"auc_pr": None}]
    for wrong in changed:
        (path / "report.json").write_text(json.dumps(wrong))
        with pytest.raises(InputError, match=r"report\.json: is missing or damaged.*--resume"):
            resume(base, "records", *PLOT)
    (path / "report.json").write_text(json.dumps(report | {"auc_roc": report["auc_roc"] - 0.001}))
    with pytest.raises(InputError, match=r"scores\.npz: is missing or damaged.*--resume"):
        resume(base, "records", *PLOT)
    (path / "report.json").write_text(good)
    log = (path / "log.jsonl").read_text()
    entry = json.loads(log.splitlines()[-1])
    entries = [{}, {"stage": entry["stage"]}, entry | {"step": None}, entry | {"stage": [1]}]
    entries += [entry | {"balance_loss": "x"}, entry | {"balance_loss": 10**400}]
    for line in ("[1]", "", "nothing", *map(json.dumps, entries)):
        (path / "log.jsonl").write_text(f"{log}{line}\n")
        with pytest.raises(InputError, match=r"log\.jsonl: is missing or damaged.*--resume"):
            resume(base, "records", *PLOT)
    for content in ("", log[:-1]):  # as a crash may leave it
        (path / "log.jsonl").write_text(content)
        with pytest.raises(InputError, match=r"log\.jsonl: is missing or damaged.*--resume"):
            resume(base, "records", *PLOT)
    assert capsys.readouterr().out == ""
    # Whatever passes is drawn.
    (path / "log.jsonl").write_text('{"stage": "episodes", "episode": 0}\n' * 2)
    resume(base, "records", *PLOT)
    assert (path / "report.html").exists() == bool(PLOT)


@POSIX
def test_another_checkpoint_beside_a_finished_run_is_refused(base, capsys):
    path = base.folder("foreign")
    shutil.copytree(base.folder("out"), path)
    before = contents(path)
    good = load_checkpoint(path / "checkpoint.pt", "SwiftHydra")
    names = good["columns"] | {
        "preparation": good["columns"]["preparation"] | {"columns": list("abcdef")}
    }
    foreign = [good | {"fingerprint": "another"}, good | {"fingerprint": None}]
    foreign += [good | {"parameters": good["parameters"] | {"k": 3}}, good | {"columns": names}]
    for more in ([], PLOT):
        for content in foreign:
            write_torch(path / "checkpoint.pt", content)
            with pytest.raises(InputError, match=r"checkpoint\.pt: is of a run on other rows"):
                resume(base, "foreign", *more)
        for content in (b"", b"garbage", before["checkpoint.pt"][:-1], before["pretrained.pt"]):
            (path / "checkpoint.pt").write_bytes(content)
            with pytest.raises(InputError, match=r"checkpoint\.pt: .*: run without --resume"):
                resume(base, "foreign", *more)
    assert capsys.readouterr().out == "" and set(contents(path)) == NAMES
    (path / "checkpoint.pt").write_bytes(before["checkpoint.pt"])
    resume(base, "foreign")
    assert contents(path) == before


@POSIX
def test_two_runs_in_one_folder(base):
    path = base.folder("two")
    first = base.start("two", signal=["/pretrain-resume.pt", signal.SIGSTOP])
    first.stopped()
    for script in ("SwiftHydra", "pretrain"):
        refused(
            base.start("two", script=script), str(path), "another run is using this folder", "--out"
        )
    os.kill(first.pid, signal.SIGCONT)
    finish(first)
    assert np.array_equal(scores(path), base.scores)
    assert set(contents(path)) == NAMES
    assert load_checkpoint(path / "checkpoint.pt", "SwiftHydra")["fingerprint"]


@POSIX
def test_reading_needs_no_lock_and_a_lock_leaves_nothing(base, capsys):
    with RunFolder(base.where / "out", "made", "seen", 0).locked() as held:
        with pytest.raises(InputError, match="another run"), held.locked():
            pass
        main(
            [
                str(base.where / "made.npz"),
                "--eval-only",
                str(held.path / "checkpoint.pt"),
                "--quiet",
            ]
        )
        assert capsys.readouterr().out.startswith("AUC-ROC")
        (held.path / ".resume.pt.a_01bcd9.part").write_text("of a killed run")
    with held.locked():
        pass
    assert set(contents(held.path)) == NAMES


def test_what_is_not_of_a_run_stays_in_its_folder(tmp_path):
    """Folders of a file's name, and what ``score`` wrote beside the checkpoint."""
    folder = RunFolder(tmp_path, "made", "seen", 0)
    report = {"failed": None}
    for name in OPTIONAL:
        (folder.path / name).mkdir()
        folder.write_results(report, [], None, None)
        assert (folder.path / name).is_dir() and (folder.path / "DONE").exists()
        (folder.path / name).rmdir()
    scored = folder.path / "scores.csv"
    for first, stays in (("row,score,anomaly", True), (f"{RANKING},mine", True), (RANKING, False)):
        scored.write_text(first + "\n0,1,1\n")
        folder.write_results(report, [], None, None)
        assert scored.exists() == stays
    for name in ("pretrain-resume.pt", "resume.pt"):
        (folder.path / name).mkdir()
        with pytest.raises(InputError, match=f"{name}: is no ordinary file"):
            Store(folder.path / name, "", {}, False, print)


@POSIX
@pytest.mark.parametrize("level", ["made", "made/seen", "made/seen/seed0"])
def test_no_link_leads_out_of_the_folder_of_runs(tmp_path, level):
    out, other = tmp_path / "out", tmp_path / "other"
    (out / level).parent.mkdir(parents=True)
    other.mkdir()
    (out / level).symlink_to(other)
    with pytest.raises(InputError, match=r"a link leads to .*other.*--out"):
        RunFolder(out, "made", "seen", 0)
    assert list(other.iterdir()) == []
    (tmp_path / "link").symlink_to(other)  # the folder itself may be one: it was named
    assert RunFolder(tmp_path / "link", "made", "seen", 0).path.is_dir()


# --- the folder of a finished run -----------------------------------------------------------------

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


def test_a_figure_that_is_missing_is_drawn_again(table, tmp_path, capsys, monkeypatch):
    pytest.importorskip("matplotlib", reason="figures need matplotlib: pip install matplotlib")
    monkeypatch.setattr(row_map, "MAP_ROWS", 20)  # t-SNE of 200 takes seconds
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


def test_a_ranking_is_by_the_scores_that_threshold_and_p_values_rest_on():
    """Of a row that recurs, the score that a fresh copy gets, not the left-out one."""
    model = SimpleNamespace(
        fresh_scores_=np.array([1.0, 3.0, 2.0]),
        decision_scores_=np.array([9.0, 0.0, 5.0]),
        labels_=np.array([0, 1, 0]),
        p_values_of=lambda scores: 1 / (1 + scores),
    )
    lines = ranking(model).decode().splitlines()
    assert lines[1:] == ["0,1,0.5,3,0", "1,3,0.25,1,1", "2,2,0.333333,2,0"]


@pytest.mark.parametrize(("took", "after", "written"), [(0.0, 5, True), (1.0, 5, False)])
def test_a_slow_disk_is_written_to_less_often(took, after, written, tmp_path, monkeypatch):
    """A write may take 3 % of the time: after one of a second, none for half a minute."""
    now = [100.0]
    monkeypatch.setattr(state.time, "monotonic", lambda: now[0])
    store = Store(tmp_path / "resume.pt", "rows", {}, False, print)
    store.took = took
    now[0] += after
    assert not store.due()
    store.put("stage", {"a": 1}, 1, 2)
    assert store.path.exists() == written
    now[0] += 40
    assert store.due()
