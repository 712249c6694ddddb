"""What a run says and writes: plain lines, log.jsonl, report.json, TensorBoard.

docs/runs.md defines every key.
"""

import json
import re
import sys

import numpy as np
import pytest
import torch
from helpers import ROOT, SHORT, made_table, run_hasty, run_script

from swift_hydra.generation.controls import GENERATORS
from swift_hydra.pretrain import PretrainSettings, pretrain
from swift_hydra.run.folder import RunFolder
from swift_hydra.run.record import write_tensorboard
from swift_hydra.SwiftHydra import SwiftHydra, generate

PAGE = (ROOT / "docs" / "runs.md").read_text(encoding="utf-8")


def defined(title):
    """The names in backticks in the first columns, all but the last, of the table under a title."""
    section = PAGE.split(f"\n### {title}")[1].split("\n#")[0]
    rows = [line.split("|")[1:-1] for line in section.splitlines() if line.startswith("| ")]
    return {name for row in rows for cell in row[:-1] for name in re.findall(r"`(\w+)`", cell)}


@pytest.fixture(scope="module")
def verbose(tmp_path_factory):
    """A finished run with -v: its output and its folder."""
    base = tmp_path_factory.mktemp("verbose")
    X, y = made_table(n=200, n_anomalies=30)
    np.savez(base / "made.npz", X=X, y=y)
    words = ["--out", base, "-v", "--fast", "--n-synthetic", "5000", *SHORT]
    run = run_hasty("SwiftHydra.py", base / "made.npz", *words)
    assert run.returncode == 0, run.stderr
    return run.stdout, base / "made" / "seen" / "seed0"


def entries(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_every_logged_key_is_defined_in_the_documents(verbose):
    found = {key for entry in entries(verbose[1]) for key in entry}
    Z, y = map(torch.from_numpy, made_table(n=60, d=3, n_anomalies=8))
    networks = pretrain(Z, y, 0, PretrainSettings(cvae_steps=20, detector_steps=20))
    for kind in GENERATORS:
        settings = SwiftHydra(generator=kind, n_synthetic=20, n_episodes=1)
        try:
            log = generate(Z, y, networks, 0, settings).log
        except ValueError as error:  # smote without imbalanced-learn
            assert "pip install" in str(error)
            continue
        found |= {key for entry in log for key in entry}
    names = defined("Every logged number")
    assert found - {"stage"} == names


def test_every_key_of_the_report_is_defined_in_the_documents(verbose):
    report = json.loads((verbose[1] / "report.json").read_text())
    assert set(report) == defined("Every key of `report.json`")
    assert isinstance(report["n_experts"], int) and isinstance(report["n_synthetic"], int)
    assert report["device"] in ("cpu", "cuda") and report["mamba_backend"] in (
        "torch",
        "numba",
        "official",
    )


def test_verbose_prints_settings_losses_and_episodes(verbose):
    stdout, folder = verbose
    settings = next(line for line in stdout.splitlines() if "mixture_steps=30" in line)
    report = json.loads((folder / "report.json").read_text())
    assert (
        f"device={report['device']}" in settings and f"mamba={report['mamba_backend']}" in settings
    )
    lines = [line.split() for line in stdout.splitlines()]
    steps = [words[1] for words in lines if words[:1] == ["mixture"]]
    assert steps == ["20/30", "30/30"]
    episodes = [line for line in stdout.splitlines() if re.match(r" +episodes +\d/2 ", line)]
    assert len(episodes) == 2
    for name in ("reward", "novelty", "coverage", "deception", "feasible", "effective_rank"):
        assert all(f"{name} " in line for line in episodes)


def test_quiet_prints_the_result_alone_and_pretrain_knows_both_flags(tmp_path):
    np.savez(tmp_path / "made.npz", X=made_table()[0], y=made_table()[1])
    both = run_script("pretrain.py", tmp_path / "made.npz", "--out", tmp_path, "-v", "--quiet")
    assert both.returncode == 2 and both.stderr.count("\n") == 1 and "contradict" in both.stderr
    quiet = run_script(
        "pretrain.py", tmp_path / "made.npz", "--out", tmp_path, "--quiet", *SHORT[:4]
    )
    assert quiet.returncode == 0 and quiet.stdout == quiet.stderr == ""


def test_tensorboard_has_the_numbers_of_the_log(tmp_path):
    pytest.importorskip("torch.utils.tensorboard", exc_type=ImportError)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log = [
        {"stage": "cvae", "step": 20, "kl": 0.5},
        {"stage": "cvae", "step": 40, "kl": 0.25},
        {"stage": "episodes", "episode": 0, "reward": -1.5, "accepted": 100},
    ]
    folder = RunFolder(tmp_path, "a", "seen", 0)
    place = folder.path / "tensorboard"
    for _ in range(2):  # the second run replaces the first
        folder.write_results({"failed": "a reason"}, [], None, None)
        write_tensorboard(place, log)
    assert len(list(place.iterdir())) == 1
    events = EventAccumulator(str(place)).Reload()
    assert set(events.Tags()["scalars"]) == {"cvae/kl", "episodes/reward", "episodes/accepted"}
    assert [(e.step, e.value) for e in events.Scalars("cvae/kl")] == [(20, 0.5), (40, 0.25)]
    assert [(e.step, e.value) for e in events.Scalars("episodes/reward")] == [(0, -1.5)]


def test_without_tensorboard_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    write_tensorboard(tmp_path / "tensorboard", [{"stage": "cvae", "step": 20, "kl": 0.5}])
    assert not (tmp_path / "tensorboard").exists()
