"""The user's commands: what they print and write, and how they refuse bad input."""

import dataclasses
import gc
import json
import re
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import ROOT, SHORT, made_table, real_set, refusal, run_script, run_warm
from sklearn.metrics import roc_auc_score

from swift_hydra.benchmark import BenchmarkConfig
from swift_hydra.data.columns import ColumnSettings
from swift_hydra.data.splits import make_split
from swift_hydra.dataloader import (
    DownloadOptions,
    FileOptions,
    RowOptions,
    load_dataset,
    load_rows,
)
from swift_hydra.pretrain import OutputOptions, PretrainSettings
from swift_hydra.run.score_file import ScoreOptions
from swift_hydra.settings import AnyText, Place, _parser_type, parse_config
from swift_hydra.SwiftHydra import RunOptions, SwiftHydra, main

PRETRAIN_SHORT = SHORT[:4]


def result(process):
    assert process.returncode == 0, process.stderr
    match = re.fullmatch(
        r"AUC-ROC (0\.\d{4}|1\.0000)  AUC-PR (0\.\d{4}|1\.0000)", process.stdout.splitlines()[-1]
    )
    assert match, process.stdout
    return float(match[1])


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """pretrain.py, then SwiftHydra.py, on a made table."""
    base = tmp_path_factory.mktemp("run")
    X, y = made_table(n=300, n_anomalies=30)
    np.savez(base / "made.npz", X=X, y=y)
    pre = run_script("pretrain.py", base / "made.npz", "--out", base / "out", *PRETRAIN_SHORT)
    run = run_script("SwiftHydra.py", base / "made.npz", "--out", base / "out", *SHORT)
    return base, base / "out" / "made" / "seen" / "seed0", pre, run


def test_the_two_commands(finished):
    _, folder, pre, run = finished
    assert pre.returncode == 0, pre.stderr
    assert f"using {folder / 'pretrained.pt'}" in run.stdout
    auc = result(run)
    report = json.loads((folder / "report.json").read_text())
    assert report["failed"] is None
    assert round(report["auc_roc"], 4) == auc
    keys = "config git versions device mamba_backend seconds peak_memory_mib auc_pr n_synthetic "
    keys += "n_train n_train_anomalies n_test n_test_anomalies"
    assert report.keys() >= set(keys.split())
    assert report["n_synthetic"] > 0
    stages = "pretrain episodes evidence mixture kernels one-class score"
    assert report["seconds"].keys() >= set(stages.split())


@pytest.mark.parametrize("words", [["yeast"], ["no-such-set"], ["--no-such-flag"], ["-h"]])
def test_a_warm_process_does_what_a_new_interpreter_does(words):
    warm, cold = (
        run_script("dataloader.py", *words, env=env) for env in (None, {"NEW_INTERPRETER": "1"})
    )
    assert (warm.returncode, warm.stdout, warm.stderr) == (
        cold.returncode,
        cold.stdout,
        cold.stderr,
    )
    assert warm.stdout or warm.stderr


def test_the_run_folder(finished):
    _, folder, _, run = finished
    names = {path.name for path in folder.iterdir()} - {"tensorboard"}  # where it is installed
    files = "report.json log.jsonl scores.npz checkpoint.pt pretrained.pt DONE"
    assert names == set(files.split())
    scores = np.load(folder / "scores.npz", allow_pickle=False)
    assert round(roc_auc_score(scores["y_test"], scores["score"]), 4) == result(run)
    assert not set(scores["test_index"]) & set(scores["train_index"])
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    stages = {entry["stage"] for entry in log}
    assert stages >= {"cvae", "detector", "episodes", "mixture", "one-class"}


def test_the_checkpoint_scores_the_same_on_its_own(finished):
    base, folder, _, run = finished
    again = run_script(
        "SwiftHydra.py", base / "made.npz", "--eval-only", folder / "checkpoint.pt", "--quiet"
    )
    assert again.stdout.splitlines() == run.stdout.splitlines()[-1:]


def test_same_seed_same_scores_and_pretraining_inline_is_the_same(finished):
    base, folder, _, _ = finished
    command = ["SwiftHydra.py", base / "made.npz", "--out", base / "inline", "--quiet", *SHORT]
    result(run_script(*command))
    result(run_script(*command, "--seed", 1))
    first = np.load(folder / "scores.npz")["score"]
    inline = base / "inline" / "made" / "seen"
    assert np.array_equal(np.load(inline / "seed0" / "scores.npz")["score"], first)
    assert not np.array_equal(np.load(inline / "seed1" / "scores.npz")["score"], first)


def test_the_tests_labels_choose_nothing(finished, tmp_path, monkeypatch):
    """Turned over, they change the figures and not a bit of the detector or its scores."""
    base, folder, _, run = finished

    def turned(*given, **more):
        rows = load_rows(*given, **more)
        return rows._replace(y_test=1 - rows.y_test)

    monkeypatch.setattr("swift_hydra.pretrain.load_rows", turned)
    main(list(map(str, [base / "made.npz", "--out", tmp_path, "--quiet", *SHORT])))
    other = tmp_path / "made" / "seen" / "seed0"
    scores = [np.load(path / "scores.npz")["score"] for path in (folder, other)]
    assert np.array_equal(*scores)
    detectors = [SwiftHydra.load(path / "checkpoint.pt") for path in (folder, other)]
    assert detectors[0].threshold_ == detectors[1].threshold_
    report = json.loads((other / "report.json").read_text())
    assert report["auc_roc"] == pytest.approx(1 - result(run), abs=1e-4)
    assert report["threshold"] == detectors[1].threshold_


def test_other_settings_pretrain_again(finished):
    base, folder, _, _ = finished
    other = base / "other" / "made" / "seen" / "seed0"
    other.mkdir(parents=True)
    shutil.copy(folder / "pretrained.pt", other)
    command = ["SwiftHydra.py", base / "made.npz", "--out", base / "other", "--preset", "paper"]
    run = run_script(*command, *SHORT, "--cvae-steps", 31)
    result(run)
    assert "has other settings" in run.stdout


def test_a_csv_and_the_protocols(tmp_path):
    X, y = made_table(n=300, n_anomalies=40)
    lines = [
        "a,b,c,d,e,f,outlier",
        *(",".join(map(str, [*row, label])) for row, label in zip(X, y, strict=True)),
    ]
    (tmp_path / "t.csv").write_text("\n".join(lines))
    command = ["SwiftHydra.py", tmp_path / "t.csv", "--label-column", "outlier", "--quiet"]
    command += ["--preset", "paper", "--out", tmp_path, *SHORT]
    for protocol in ("few", "unseen"):
        result(run_script(*command, "--protocol", protocol))
        assert (tmp_path / "t" / protocol / "seed0" / "DONE").exists()


def test_what_is_labelled_names_the_folder_of_a_weak_run(tmp_path):
    """Two amounts side by side, each with the rows of its split."""
    command = ["SwiftHydra.py", "47_yeast", "--protocol", "weak", "--seed", 1, "--out", tmp_path]
    run = run_script(*command, "--labelled", 10, "--preset", "paper", *SHORT)
    result(run)
    name = "47_yeast (weak-10, seed 1)"
    assert f"{name}: 1038 training rows with 10 known anomalies and 345 hidden ones" in run.stdout
    folder = tmp_path / "47_yeast" / "weak-10" / "seed1"
    report = json.loads((folder / "report.json").read_text())
    assert report["protocol"] == "weak-10" and report["config"]["labelled"] == "10"
    assert (report["n_train_anomalies"], report["n_hidden"]) == (10, 345)
    split = make_split(None, load_dataset("47_yeast").y, "weak", 1, labelled=10)
    scores = np.load(folder / "scores.npz")
    assert np.array_equal(scores["train_index"], split.train)
    assert np.array_equal(scores["test_index"], split.test)
    pre = run_script("pretrain.py", *command[1:], *PRETRAIN_SHORT)  # the default is a share
    assert pre.returncode == 0, pre.stderr
    assert "47_yeast (weak-0.05, seed 1)" in pre.stdout
    assert (tmp_path / "47_yeast" / "weak-0.05" / "seed1" / "pretrained.pt").exists()


def test_a_bare_call_runs_on_the_embedded_set(tmp_path):
    """The default dataset, from a folder that is not the project's, without the network."""
    run = run_script(
        "SwiftHydra.py", "--preset", "paper", "--out", tmp_path / "r", *SHORT, cwd=tmp_path
    )
    result(run)
    assert "47_yeast (seen, seed 0): 593 training rows with 203 known anomalies" in run.stdout


FLAGS = {
    "dataloader.py": (FileOptions, DownloadOptions, ColumnSettings),
    "pretrain.py": (RowOptions, ColumnSettings, PretrainSettings, OutputOptions),
    "SwiftHydra.py": (RowOptions, SwiftHydra, RunOptions),
}


def without_spaces(text):
    """However wide the terminal is, and wherever lines are wrapped."""
    return "".join(text.split())


@pytest.mark.parametrize("script", FLAGS)
def test_help_documents_every_flag(script):
    text = without_spaces(run_script(script, "-h").stdout)
    fields = [field for cls in FLAGS[script] for field in dataclasses.fields(cls)]
    for field in fields:
        if field.metadata["flag"] and not field.metadata["positional"]:
            assert f"--{field.name.replace('_', '-')}" in text
            assert without_spaces(field.metadata["help"]) in text


COMMANDS = {
    "SwiftHydra.py": (RowOptions, SwiftHydra, RunOptions),
    "score": (ScoreOptions,),
    "dataloader.py": (FileOptions, ColumnSettings, DownloadOptions),
    "benchmark.py": (BenchmarkConfig,),
}


def half(data):
    return data[: len(data) // 2]


def contents(folder):
    """{name: bytes} of a folder's files."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def with_value(X, row, column, value):
    X = X.copy()
    X[row, column] = value
    return X


def only_first(y, n):
    """Labels with the first ``n`` rows as the anomalies."""
    return (np.arange(len(y)) < n).astype(int)


# {case: (arrays of the .npz from a made table's X and y, what the message names)}
BAD_ARRAYS = {
    "pickled npz": (lambda X, y: {"X": X.astype(object), "y": y}, "pickle"),
    "missing key": (lambda X, y: {"X": X, "label": y}, "label"),
    "nan": (lambda X, y: {"X": with_value(X, 3, 2, np.nan), "y": y}, "x2"),
    "infinity": (lambda X, y: {"X": with_value(X, 4, 1, np.inf), "y": y}, "x1"),
    "labels not 0/1": (lambda X, y: {"X": X, "y": y + np.arange(len(y)) % 3}, "0, 1, 2, 3"),
    "one class": (lambda X, y: {"X": X, "y": 0 * y}, "no anomaly"),
    "one training anomaly": (lambda X, y: {"X": X, "y": only_first(y, 2)}, "anomal"),
    "lengths": (lambda X, y: {"X": X, "y": y[:-1]}, "239"),
    "zero rows": (lambda X, y: {"X": X[:0], "y": y[:0]}, "row"),
    "zero columns": (lambda X, y: {"X": X[:, :0], "y": y}, "column"),
}

# {case: (arguments, what the message names)}; good.npz is a table that can be read.
BAD_ARGUMENTS = {
    "missing file": (["gone.npz"], "gone.npz"),
    "not an npz": (["not.npz"], "not.npz"),
    "text column": (["text.csv"], "red"),
    "unknown name": (["47_yeats"], "yeast"),
    "unwritable out": (["good.npz", "--out", "file/x"], "--out"),
    "unknown option value": (["good.npz", "--protocol", "often"], "often"),
    "labelled": (["good.npz", "--protocol", "weak", "--labelled", "5%"], "labelled='5%'"),
    "unknown flag": (["good.npz", "--speed"], "--speed"),
    "a flag twice": (
        ["good.npz", "--drop-columns", "a", "--drop-columns", "b"],
        "given twice, 'a'",
    ),
    "experts": (["good.npz", "--n-experts", "lots"], "lots"),
    "no experts of this many": (["good.npz", "--n-experts", "1000000000"], "from 1 to 1000"),
    "digits that are no number": (["good.npz", "--n-experts", "\u00b2"], "n_experts="),
    "device without values": (["good.npz", "--device", "meta"], "device='meta'"),
    "empty checkpoint": (["good.npz", "--eval-only", ""], "--eval-only: is empty"),
    "empty out": (["good.npz", "--out", ""], "--out: is empty"),
    "device": (["good.npz", "--device", "abacus"], "abacus"),
    "steps": (["good.npz", "--mixture-steps", "0"], "mixture_steps=0"),
    "pretraining steps": (["good.npz", "--cvae-steps", "-3"], "cvae_steps=-3"),
    "batchless": (["good.npz", "--n-synthetic", "-5"], "n_synthetic=-5"),
    "no checkpoint": (["good.npz", "--eval-only", "no.pt"], "no.pt"),
    "quiet and verbose": (["good.npz", "--quiet", "-v"], "--verbose"),
}


def bad_input(case, folder):
    """Arguments that a command refuses, and what its message names; their files are in folder."""
    X, y = made_table()
    if case in BAD_ARRAYS:
        arrays, needle = BAD_ARRAYS[case]
        np.savez(folder / "bad.npz", **arrays(X, y))
        return ["bad.npz"], needle
    np.savez(folder / "good.npz", X=X, y=y)
    (folder / "not.npz").write_text("hello")
    (folder / "text.csv").write_text("a,b,y\n1,red,0\n2,blue,1\n3,red,1\n4,red,0\n")
    (folder / "file").write_text("")
    return BAD_ARGUMENTS[case]


def refused(process, needle):
    assert process.returncode == 2, (process.returncode, process.stdout, process.stderr)
    assert "Traceback" not in process.stderr
    assert len(process.stderr.strip().splitlines()) == 1, process.stderr
    assert needle in process.stderr


@pytest.mark.parametrize("case", [*BAD_ARRAYS, *BAD_ARGUMENTS])
def test_bad_input_is_one_line_and_exit_code_2(case, tmp_path, monkeypatch, capsys):
    """In this process, through what the command calls; a few go through the command below."""
    arguments, needle = bad_input(case, tmp_path)
    monkeypatch.chdir(tmp_path)
    assert needle in refusal(capsys, lambda: main(arguments))
    assert not list(tmp_path.rglob("report.json"))


@pytest.mark.parametrize("case", ["missing file", "nan", "unknown option value", "unwritable out"])
def test_bad_input_through_the_command(case, tmp_path):
    arguments, needle = bad_input(case, tmp_path)
    for script in ("pretrain.py", "SwiftHydra.py"):
        refused(run_script(script, *arguments, cwd=tmp_path), needle)


@pytest.mark.parametrize("classes", COMMANDS.values(), ids=COMMANDS)
def test_texts_are_given_and_places_are_found_from_home(classes, monkeypatch, tmp_path, capsys):
    """An empty text is a variable of the shell that was not set; some may be empty."""
    monkeypatch.setenv("HOME", str(tmp_path))
    fields = {field.name: field for cls in classes for field in dataclasses.fields(cls)}
    for name, field in fields.items():
        flag = [] if field.metadata["positional"] else [f"--{name.replace('_', '-')}"]
        kind = _parser_type(field.type)
        if not field.metadata["flag"] or kind in (bool, int, float):
            continue
        if kind is AnyText:
            assert any(getattr(c, name, 0) == "" for c in parse_config(classes, "", [*flag, ""]))
            continue
        with pytest.raises(SystemExit) as stop:
            parse_config(classes, "", [*flag, ""])
        assert stop.value.code == 2 and capsys.readouterr().err.count("\n") == 1
        if kind is Place:
            words = [f"{flag[0]}=~/a"] if flag else ["~/a"]
            found = {getattr(config, name, None) for config in parse_config(classes, "", words)}
            assert found - {None} == {str(tmp_path / "a")}


def test_a_path_at_the_top_of_a_script_is_a_text():
    (which,) = parse_config([RowOptions], "", [], dataset=Path("a.csv"))
    assert which.dataset == "a.csv"


def eval_only(data, checkpoint):
    return run_script("SwiftHydra.py", data, "--eval-only", checkpoint)


def test_bad_checkpoints_are_refused(finished, tmp_path):
    base, folder, _, _ = finished
    data = base / "made.npz"
    before = contents(folder)
    damaged = tmp_path / "checkpoint.pt"
    damaged.write_bytes(half(before["checkpoint.pt"]))
    refused(eval_only(data, damaged), "not a readable checkpoint")
    torch.save({"weights": torch.ones(3)}, damaged)
    refused(eval_only(data, damaged), "checkpoint")
    refused(eval_only(data, folder / "pretrained.pt"), "'pretrained'")
    X, y = made_table(seed=4)
    np.savez(tmp_path / "other.npz", X=X, y=y)
    refused(eval_only(tmp_path / "other.npz", folder / "checkpoint.pt"), "trained on other rows")
    assert contents(folder) == before


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """A checkpoint of a table with a text column and a gap."""
    base = tmp_path_factory.mktemp("mixed")
    X, y = made_table(n=80, d=2, n_anomalies=12)
    rows = [f"{a:.3f},{b:.3f},{'rgb'[i % 3]},{i % 4 or ''},{y[i]}" for i, (a, b) in enumerate(X)]
    (base / "m.csv").write_text("\n".join(["a,b,c,e,y", *rows]) + "\n")
    told = ["--categorical", "onehot", "--impute", "median"]
    steps = ["--cvae-steps", "8", "--detector-steps", "8", "--mixture-steps", "12"]
    steps += ["--n-episodes", "1", "--n-synthetic", "30", "--quiet"]
    main([str(base / "m.csv"), "--out", str(base / "out"), *told, *steps])
    return base, told


def test_settings_that_a_checkpoint_does_not_have_are_said(mixed, capsys):
    """With --preset paper the result of a checkpoint of full was printed without a word."""
    base, told = mixed
    checkpoint = base / "out" / "m" / "seen" / "seed0" / "checkpoint.pt"
    words = [str(base / "m.csv"), "--eval-only", str(checkpoint), "--quiet", *told]
    with pytest.warns(UserWarning, match="was trained with preset='full', not 'paper', k=2, not 1"):
        main([*words, "--preset", "paper", "--k", "1", "--device", "cpu"])
    before = capsys.readouterr().out
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*was trained with")
        main(words)
    assert capsys.readouterr().out == before


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    ("more", "wanted"),
    [
        ([], None),
        (["--categorical", "ordinal"], "with categorical='onehot', not 'ordinal'"),
        (["--anomaly-label", "0"], "with anomaly_label=None, not '0'"),
        (["--drop-columns", "a"], "with the column 'a'"),
        (["--missing", "r"], "with missing=None, not 'r'"),
        (["--seed", "1"], "trained on other rows than m, seen, seed 1"),
    ],
)
def test_other_flags_of_the_columns_are_named(mixed, monkeypatch, capsys, more, wanted):
    base, told = mixed
    monkeypatch.chdir(base)
    checkpoint = base / "out" / "m" / "seen" / "seed0" / "checkpoint.pt"
    words = [str(base / "m.csv"), "--eval-only", str(checkpoint), "--quiet", *told, *more]
    words += ["--majority-anomalies"] * ("--anomaly-label" in more)
    if wanted is None:
        main(words)
        return
    assert wanted in refusal(capsys, lambda: main(words))


def test_bad_pretrained_files_are_refused(finished, tmp_path):
    base, folder, _, _ = finished
    good = (folder / "pretrained.pt").read_bytes()
    out = tmp_path / "out" / "made" / "seen" / "seed0"
    out.mkdir(parents=True)
    (out / "pretrained.pt").write_bytes(half(good))
    command = ["SwiftHydra.py", "--out", tmp_path / "out"]
    error = run_script(*command, base / "made.npz")
    refused(error, "pretrained.pt")
    assert error.stderr.endswith(": delete it and run the command that wrote it again\n")
    assert (out / "pretrained.pt").read_bytes() == half(good)
    (out / "pretrained.pt").write_bytes(good)
    X, y = made_table(seed=4)
    np.savez(tmp_path / "made.npz", X=X, y=y)
    refused(run_script(*command, tmp_path / "made.npz"), "other rows")
    assert (out / "pretrained.pt").read_bytes() == good


def test_real_sets_of_awkward_shape(tmp_path):
    """80 rows with 13 anomalies, 148 rows with 6: the smallest of ADBench, with short training."""
    for name in ("15_Hepatitis", "21_Lymphography"):
        run = run_script("SwiftHydra.py", real_set(name), "--out", tmp_path, "--quiet", *SHORT)
        result(run)


def test_no_script_does_anything_on_import(tmp_path):
    lines = [f"import swift_hydra.{path.stem}" for path in sorted(ROOT.glob("*.py"))]
    drawn = "torch.random.get_rng_state()"
    code = [
        f"import sys; sys.path.insert(0, {str(ROOT)!r})",
        "import torch",
        f"before = {drawn}",
        *lines,
        f"assert torch.equal(before, {drawn})",
    ]
    (tmp_path / "code.py").write_text("\n".join(code))
    process = run_warm(tmp_path / "code.py")
    assert process.returncode == 0, process.stderr
    assert process.stdout == ""


def test_a_table_without_labels_is_ranked(tmp_path):
    X, y = made_table()
    np.savez(tmp_path / "t.npz", X=X)
    command = ("SwiftHydra.py", "t.npz", "--label-column", "none", *SHORT, "--quiet")
    done = run_script(*command, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "results" / "t" / "unlabelled" / "seed0"
    last = done.stdout.splitlines()[-1]
    assert "rows above the threshold" in last and "ranked in" in last
    lines = (folder / "scores.csv").read_text().splitlines()
    assert lines[0] == "row,score,p_value,rank,anomaly"
    row, score, p, rank, _ = np.array([line.split(",") for line in lines[1:]], dtype=float).T
    assert np.array_equal(row, np.arange(len(X)))
    assert np.array_equal(np.sort(rank), np.arange(1, len(X) + 1))
    assert np.all(np.diff(score[np.argsort(rank)]) <= 0) and np.all(
        np.diff(p[np.argsort(rank)]) >= 0
    )
    assert roc_auc_score(y, score) > 0.7
    report = json.loads((folder / "report.json").read_text())
    assert report["auc_roc"] is None and report["n_hidden"] is None and report["n_test"] == 0
    assert report["n_set_aside"] > 0 and report["estimated_contamination"] == 0.05
    before = (folder / "scores.csv").read_bytes()
    done = run_script(*command, "--resume", cwd=tmp_path)
    assert done.returncode == 0 and "scores.csv" in done.stdout
    assert (folder / "scores.csv").read_bytes() == before
    for more in (
        ("--protocol", "few"),
        ("--max-rows", "100"),
        ("--eval-only", "c.pt"),
        ("--plot",),
    ):
        done = run_script(*command, *more, cwd=tmp_path)
        assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
    checkpoint = folder / "checkpoint.pt"
    done = run_script(
        "SwiftHydra.py", "score", "--checkpoint", checkpoint, "--data", "t.npz", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr


def test_a_name_reaches_the_terminal_escaped_and_its_suffix_in_any_case_goes(
    tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    X, _ = made_table(n=60, d=3, n_anomalies=5)
    name = "a\x1b[31m\nb"
    with open(f"{name}.CSV", "w") as file:
        file.writelines(",".join(map(str, row)) + "\n" for row in X)
    for more in ([], ["--resume"]):
        main([f"{name}.CSV", "--label-column", "none", *SHORT, "--quiet", *more])
        out = capsys.readouterr().out
        assert "\x1b" not in out and out.count("\n") == 1 and r"a\x1b[31m\nb" in out
    assert (tmp_path / "results" / name / "unlabelled" / "seed0" / "DONE").exists()


def test_nothing_known_and_one_class(tmp_path):
    X, y = made_table()
    np.savez(tmp_path / "t.npz", X=X, y=y)
    for flags, name in (
        (("--protocol", "weak", "--labelled", "0"), "weak-0"),
        (("--protocol", "one-class", "--trust-normals"), "one-class"),
    ):
        done = run_script("SwiftHydra.py", "t.npz", *flags, *SHORT, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[-1].startswith("AUC-ROC ")
        report = json.loads((tmp_path / "results/t" / name / "seed0/report.json").read_text())
        assert report["n_train_anomalies"] == 0 and report["auc_roc"] > 0.6
        assert (report["n_set_aside"] == 0) == ("--trust-normals" in flags)


def test_threads_come_back(npz, tmp_path):
    """A command takes one thread, and leaves as many as there were."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        main([str(npz), "--quiet", "--out", str(tmp_path), *SHORT])
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    report = json.loads(next(tmp_path.rglob("report.json")).read_text())
    assert report["threads"] == 1


def test_a_command_leaves_the_collector_as_it_was(capsys):
    before = gc.get_threshold()
    try:
        gc.set_threshold(701, 11, 11)
        refusal(capsys, lambda: main(["--seed", "-1"]))
        assert gc.get_threshold() == (701, 11, 11)
    finally:
        gc.set_threshold(*before)
