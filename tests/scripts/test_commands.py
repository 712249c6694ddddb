"""The user's own commands as subprocesses: what they print and write, and how they refuse bad
input.
"""

import json
import re

import numpy as np
import pytest
import torch
from helpers import ROOT, SHORT, made_table, real_set, run_script

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
    for key in (
        "config",
        "git",
        "versions",
        "device",
        "mamba_backend",
        "n_train",
        "n_train_anomalies",
        "n_test",
        "n_test_anomalies",
        "n_synthetic",
        "auc_pr",
        "seconds",
        "peak_memory_mib",
    ):
        assert key in report
    assert report["n_synthetic"] > 0
    assert set(report["seconds"]) >= {
        "pretrain",
        "episodes",
        "evidence",
        "mixture",
        "kernels",
        "one-class",
        "score",
    }


def test_the_run_folder(finished):
    _, folder, _, run = finished
    names = {path.name for path in folder.iterdir()} - {"tensorboard"}  # where it is installed
    assert names == {
        "report.json",
        "log.jsonl",
        "scores.npz",
        "checkpoint.pt",
        "pretrained.pt",
        "DONE",
    }
    scores = np.load(folder / "scores.npz", allow_pickle=False)
    from sklearn.metrics import roc_auc_score

    assert round(roc_auc_score(scores["y_test"], scores["score"]), 4) == result(run)
    assert not set(scores["test_index"]) & set(scores["train_index"])
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert {entry["stage"] for entry in log} >= {
        "cvae",
        "detector",
        "episodes",
        "mixture",
        "one-class",
    }


def test_the_checkpoint_scores_the_same_on_its_own(finished):
    base, folder, _, run = finished
    again = run_script(
        "SwiftHydra.py", base / "made.npz", "--eval-only", folder / "checkpoint.pt", "--quiet"
    )
    assert again.stdout.splitlines() == run.stdout.splitlines()[-1:]


def test_same_seed_same_scores_and_pretraining_inline_is_the_same(finished):
    base, folder, _, _ = finished
    inline = run_script(
        "SwiftHydra.py", base / "made.npz", "--out", base / "inline", "--quiet", *SHORT
    )
    result(inline)
    first = np.load(folder / "scores.npz")["score"]
    second = np.load(base / "inline" / "made" / "seen" / "seed0" / "scores.npz")["score"]
    assert np.array_equal(first, second)
    other = run_script(
        "SwiftHydra.py", base / "made.npz", "--out", base / "inline", "--seed", 1, "--quiet", *SHORT
    )
    result(other)
    third = np.load(base / "inline" / "made" / "seen" / "seed1" / "scores.npz")["score"]
    assert first.shape != third.shape or not np.array_equal(first, third)


def test_other_settings_pretrain_again(finished):
    base, _, _, _ = finished
    changed = [*SHORT]
    changed[1] = "31"
    run = run_script(
        "SwiftHydra.py", base / "made.npz", "--out", base / "inline", "--preset", "paper", *changed
    )
    result(run)
    assert "has other settings" in run.stdout


def test_a_csv_and_the_protocols(tmp_path):
    X, y = made_table(n=300, n_anomalies=40)
    lines = [
        "a,b,c,d,e,f,outlier",
        *(",".join(map(str, [*row, label])) for row, label in zip(X, y, strict=True)),
    ]
    (tmp_path / "t.csv").write_text("\n".join(lines))
    for protocol in ("few", "unseen"):
        run = run_script(
            "SwiftHydra.py",
            tmp_path / "t.csv",
            "--label-column",
            "outlier",
            "--protocol",
            protocol,
            "--preset",
            "paper",
            "--out",
            tmp_path,
            "--quiet",
            *SHORT,
        )
        result(run)
        assert (tmp_path / "t" / protocol / "seed0" / "DONE").exists()


def test_a_bare_call_runs_on_the_embedded_set(tmp_path):
    """The default dataset, from a folder that is not the project's, without the network."""
    run = run_script(
        "SwiftHydra.py", "--preset", "paper", "--out", tmp_path / "r", *SHORT, cwd=tmp_path
    )
    result(run)
    assert "47_yeast (seen, seed 0): 593 training rows with 203 known anomalies" in run.stdout


@pytest.mark.parametrize("script", ["pretrain.py", "SwiftHydra.py", "dataloader.py"])
def test_help_documents_every_flag(script):
    text = run_script(script, "-h").stdout
    for line in re.findall(r"^  --\S+", text, flags=re.M):
        assert line.strip() in text
    assert text.count("--") >= 3
    if script == "SwiftHydra.py":
        for flag in (
            "--protocol",
            "--device",
            "--out",
            "--seed",
            "--generator",
            "--preset",
            "--n-experts",
        ):
            assert flag in text


def corrupt(path, keep=0.5):
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])


def bad_cases(tmp_path):
    X, y = made_table()

    def saved(name, **arrays):
        np.savez(tmp_path / name, **arrays)
        return str(tmp_path / name)

    nan, inf = X.copy(), X.copy()
    nan[3, 2], inf[4, 1] = np.nan, np.inf
    (tmp_path / "not.npz").write_text("hello")
    (tmp_path / "text.csv").write_text("a,b,y\n1,red,0\n2,blue,1\n3,red,1\n4,red,0\n")
    few = np.zeros(len(y), dtype=int)
    few[:2] = 1
    (tmp_path / "file").write_text("")
    good = saved("good.npz", X=X, y=y)
    return {
        "missing file": ([str(tmp_path / "gone.npz")], "gone.npz"),
        "not an npz": ([str(tmp_path / "not.npz")], "not.npz"),
        "pickled npz": ([saved("pickled.npz", X=X.astype(object), y=y)], "pickle"),
        "missing key": ([saved("key.npz", X=X, label=y)], "label"),
        "nan": ([saved("nan.npz", X=nan, y=y)], "x2"),
        "infinity": ([saved("inf.npz", X=inf, y=y)], "x1"),
        "text column": ([str(tmp_path / "text.csv")], "red"),
        "labels not 0/1": ([saved("labels.npz", X=X, y=y + 1)], "1, 2"),
        "one class": ([saved("one.npz", X=X, y=np.zeros_like(y))], "no anomaly"),
        "one training anomaly": ([saved("few.npz", X=X, y=few)], "anomal"),
        "lengths": ([saved("len.npz", X=X, y=y[:-1])], "239"),
        "zero rows": ([saved("rows.npz", X=X[:0], y=y[:0])], "row"),
        "zero columns": ([saved("cols.npz", X=X[:, :0], y=y)], "column"),
        "unknown name": (["47_yeats"], "yeast"),
        "unwritable out": ([good, "--out", str(tmp_path / "file" / "x")], "--out"),
        "unknown option value": ([good, "--protocol", "often"], "often"),
        "unknown flag": ([good, "--speed"], "--speed"),
        "experts": ([good, "--n-experts", "lots"], "lots"),
        "device": ([good, "--device", "abacus"], "abacus"),
        "steps": ([good, "--mixture-steps", "0"], "mixture_steps=0"),
        "pretraining steps": ([good, "--cvae-steps", "-3"], "cvae_steps=-3"),
        "batchless": ([good, "--n-synthetic", "-5"], "n_synthetic=-5"),
        "no checkpoint": ([good, "--eval-only", str(tmp_path / "no.pt")], "no.pt"),
        "quiet and verbose": ([good, "--quiet", "-v"], "--verbose"),
    }


CASES = [
    "missing file",
    "not an npz",
    "pickled npz",
    "missing key",
    "nan",
    "infinity",
    "text column",
    "labels not 0/1",
    "one class",
    "one training anomaly",
    "lengths",
    "zero rows",
    "zero columns",
    "unknown name",
    "unwritable out",
    "unknown option value",
    "unknown flag",
    "experts",
    "device",
    "steps",
    "pretraining steps",
    "batchless",
    "no checkpoint",
    "quiet and verbose",
]


def refused(process, needle):
    assert process.returncode == 2, (process.returncode, process.stdout, process.stderr)
    assert "Traceback" not in process.stderr
    assert len(process.stderr.strip().splitlines()) == 1, process.stderr
    assert needle in process.stderr


@pytest.mark.parametrize("case", CASES)
def test_bad_input_is_one_line_and_exit_code_2(case, tmp_path):
    """In this process through main(), which is what the scripts run; a few go through a subprocess
    below.
    """
    import contextlib
    import io

    import SwiftHydra as SwiftHydra
    from swift_hydra.settings import run_main

    arguments, needle = bad_cases(tmp_path)[case]
    arguments = arguments if "--out" in arguments else [*arguments, "--out", str(tmp_path / "out")]
    stderr = io.StringIO()
    with contextlib.redirect_stderr(stderr), pytest.raises(SystemExit) as stop:
        run_main(lambda: SwiftHydra.main(arguments))
    assert stop.value.code == 2
    assert len(stderr.getvalue().strip().splitlines()) == 1, stderr.getvalue()
    assert needle in stderr.getvalue()
    assert not list((tmp_path / "out").rglob("report.json"))


@pytest.mark.parametrize("case", ["missing file", "nan", "unknown option value", "unwritable out"])
def test_bad_input_through_the_command(case, tmp_path):
    arguments, needle = bad_cases(tmp_path)[case]
    for script in ("pretrain.py", "SwiftHydra.py"):
        refused(run_script(script, *arguments), needle)


def test_bad_checkpoints_are_refused_and_nothing_is_damaged(finished, tmp_path):
    base, folder, _, _ = finished
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    damaged = tmp_path / "checkpoint.pt"
    damaged.write_bytes(before["checkpoint.pt"])
    corrupt(damaged)
    data = base / "made.npz"
    refused(run_script("SwiftHydra.py", data, "--eval-only", damaged), "not a readable checkpoint")
    torch.save({"weights": torch.ones(3)}, damaged)
    refused(run_script("SwiftHydra.py", data, "--eval-only", damaged), "checkpoint")
    refused(
        run_script("SwiftHydra.py", data, "--eval-only", folder / "pretrained.pt"), "'pretrained'"
    )
    other = tmp_path / "other.npz"
    X, y = made_table(seed=4)
    np.savez(other, X=X, y=y)
    refused(
        run_script("SwiftHydra.py", other, "--eval-only", folder / "checkpoint.pt"),
        "trained on other rows",
    )
    out = tmp_path / "out" / "made" / "seen" / "seed0"
    out.mkdir(parents=True)
    (out / "pretrained.pt").write_bytes(before["pretrained.pt"])
    corrupt(out / "pretrained.pt")
    refused(run_script("SwiftHydra.py", data, "--out", tmp_path / "out"), "pretrained.pt")
    (tmp_path / "made.npz").write_bytes(other.read_bytes())
    (out / "pretrained.pt").write_bytes(before["pretrained.pt"])
    refused(
        run_script("SwiftHydra.py", tmp_path / "made.npz", "--out", tmp_path / "out"), "other rows"
    )
    assert before == {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_real_sets_of_awkward_shape(tmp_path):
    """80 rows with 13 anomalies, 148 rows with 6: the smallest of ADBench, with short training."""
    for name in ("15_Hepatitis", "21_Lymphography"):
        run = run_script("SwiftHydra.py", real_set(name), "--out", tmp_path, "--quiet", *SHORT)
        result(run)


def test_no_script_does_anything_on_import():
    names = sorted(path.stem for path in ROOT.glob("*.py"))
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import torch; a = torch.random.get_rng_state(); "
    code += (
        "; ".join(f"import {name}" for name in names)
        + "; assert torch.equal(a, torch.random.get_rng_state())"
    )
    import subprocess
    import sys

    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert process.returncode == 0, process.stderr
    assert process.stdout == ""
