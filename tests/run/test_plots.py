"""--plot writes readable figures and one page; what is missing is named before any work."""

import base64
import json
import re
import sys
import types

import numpy as np
import pytest
import torch
from helpers import SHORT, made_table, run_script, standardised
from sklearn.metrics import log_loss

from swift_hydra.model import ROW_BLOCK
from swift_hydra.pretrain import PretrainSettings, pretrain
from swift_hydra.run import figures as plots
from swift_hydra.run import row_map
from swift_hydra.run.folder import FIGURE_FILES
from swift_hydra.run.page import page
from swift_hydra.settings import InputError
from swift_hydra.SwiftHydra import SwiftHydra, generate, main

FIGURES = {name for name, *_ in plots.FIGURES}
assert set(FIGURE_FILES) == FIGURES  # those go when a run without --plot replaces one


@pytest.fixture(autouse=True)
def few_points(monkeypatch):
    """In the map of every figure that is drawn in this process: t-SNE of 200 takes seconds."""
    monkeypatch.setattr(row_map, "MAP_ROWS", 20)


def run_main(path, out, *more):
    """The command in this process. Returns the run's folder, its figures' names and the page."""
    pytest.importorskip("matplotlib", reason="figures need matplotlib: pip install matplotlib")
    main([str(path), "--plot", "--quiet", "--out", str(out), *SHORT, *more])
    folder = out / path.stem / "seen" / "seed0"
    figures = {figure.name: figure.read_bytes() for figure in folder.glob("*.png")}
    for data in figures.values():
        assert data.startswith(b"\x89PNG")
        assert len(data) > 5000
    text = (folder / "report.html").read_text()
    embedded = re.findall(r'src="data:image/png;base64,([^"]*)"', text)
    assert sorted(base64.b64decode(image) for image in embedded) == sorted(figures.values())
    assert len(re.findall(r"<img |\bsrc=|\bhref=|url\(|<script|<link|@import", text)) == 2 * len(
        embedded
    )
    return folder, set(figures), text


def test_the_command_writes_figures_and_prints_the_result_last(npz, tmp_path):
    pytest.importorskip("matplotlib", reason="figures need matplotlib: pip install matplotlib")
    awkward = tmp_path / "a&b <i>.npz"
    awkward.write_bytes(npz.read_bytes())
    run = run_script("SwiftHydra.py", awkward, "--plot", "--out", tmp_path, *SHORT)
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines()[-1].startswith("AUC-ROC 0.")
    folder = tmp_path / "a&b <i>" / "seen" / "seed0"
    assert {path.name for path in folder.glob("*.png")} == FIGURES
    assert not list(folder.glob(".*"))
    text, report = (
        (folder / "report.html").read_text(),
        json.loads((folder / "report.json").read_text()),
    )
    assert "<h1>a&amp;b &lt;i&gt;, seen, seed 0</h1>" in text
    assert "<i>" not in text
    assert f"AUC-ROC {report['auc_roc']:.4f}, AUC-PR {report['auc_pr']:.4f}" in text
    for name in (*report["config"], *report["seconds"], *report["versions"]):
        assert f"<th>{name}</th>" in text
    assert str(folder / "report.html") in run.stdout


def test_figures_without_generated_rows_episodes_or_experts(npz, tmp_path):
    """What an earlier run left and this one has nothing to show in goes away."""
    _, before, _ = run_main(npz, tmp_path, "--preset", "paper")
    assert before == FIGURES
    folder, after, text = run_main(
        npz, tmp_path, "--preset", "paper", "--generator", "none", "--n-experts", "1"
    )
    assert after == FIGURES - {"episodes.png", "experts.png"}
    assert "<h2>Episodes</h2>" not in text
    assert (folder / "DONE").exists()


def test_figures_where_no_anomaly_is_known(npz, tmp_path):
    pytest.importorskip("matplotlib", reason="figures need matplotlib: pip install matplotlib")
    main([str(npz), "--protocol", "one-class", "--plot", "--quiet", "--out", str(tmp_path), *SHORT])
    folder = tmp_path / "made" / "one-class" / "seed0"
    assert (folder / "report.html").exists() and (folder / "curves.png").exists()
    assert not (folder / "experts.png").exists()


def test_a_figure_that_fails_loses_no_fit(npz, tmp_path, monkeypatch, capsys):
    pytest.importorskip("matplotlib", reason="figures need matplotlib: pip install matplotlib")
    words = [str(npz), "--preset", "paper", "--plot", "--quiet", "--out", str(tmp_path), *SHORT]

    def broken(plt, run):
        raise ValueError("no figure")

    with monkeypatch.context() as patched:
        patched.setattr(plots, "FIGURES", (("map.png", broken, "", ""),))
        with pytest.raises(InputError, match=r"are written, .*ValueError: no figure.*--resume"):
            main(words)
    said = capsys.readouterr().out
    folder = tmp_path / "made" / "seen" / "seed0"
    before = {name: (folder / name).read_bytes() for name in ("DONE", "checkpoint.pt")}
    assert said.startswith("AUC-ROC") and not (folder / "report.html").exists()
    main([*words, "--resume"])
    assert capsys.readouterr().out == said and (folder / "report.html").exists()
    assert before == {name: (folder / name).read_bytes() for name in before}


@pytest.mark.parametrize("columns", [1, 2])
def test_one_feature_a_constant_one_and_two_test_anomalies(tmp_path, columns):
    X, y = made_table(n=60, d=1, n_anomalies=4)
    np.savez(tmp_path / "narrow.npz", X=np.column_stack([X, np.ones_like(X)])[:, :columns], y=y)
    assert run_main(tmp_path / "narrow.npz", tmp_path)[1] == FIGURES


@pytest.mark.parametrize("preset", ["paper", "full"])
def test_expert_usage_counts_every_row_and_its_experts_are_those_that_score(preset):
    X, y = made_table()
    model = SwiftHydra(
        preset=preset, n_episodes=1, mixture_steps=30, detector_steps=20, cvae_steps=20
    )
    model.fit(X, y)
    usage, mixture = (
        model.detector_.expert_usage(model.columns_.standardise(X)),
        (model.detector_ if preset == "paper" else model.detector_.known).mixture.network,
    )
    assert usage.shape == (len(X), 2)
    assert (usage[:, 0] != usage[:, 1]).all()
    assert 0 <= usage.min() and usage.max() < model.n_experts_
    called = np.zeros(model.n_experts_, dtype=int)
    experts = mixture.experts.forward

    def counting(rows, index):
        called[index] += len(rows)
        return experts(rows, index)

    mixture.experts.forward = counting
    model.decision_function(X)
    chosen = np.bincount(usage.ravel(), minlength=model.n_experts_)
    assert called.tolist() == (-(-chosen // ROW_BLOCK) * ROW_BLOCK).tolist()


def test_detector_loss_is_logged_for_every_episode():
    X, y = made_table()
    Z, labels = standardised(X, y)
    networks = pretrain(Z, labels, 0, PretrainSettings(cvae_steps=20, detector_steps=20))
    made = generate(Z, labels, networks, 0, SwiftHydra(n_synthetic=60, n_episodes=3))
    losses = [entry["detector_loss"] for entry in made.log]
    probability = torch.sigmoid(networks.detector.score(Z)).numpy()
    expected = log_loss(
        y, probability, sample_weight=np.where(y == 1, 1 / y.sum(), 1 / (1 - y).sum())
    )
    assert losses[0] == pytest.approx(expected, rel=1e-4)
    assert len(set(losses)) == 3  # each episode meets another detector


def test_umap_is_a_third_panel_where_it_is_installed(monkeypatch):
    pyplot = plots.require_matplotlib()
    seen = []

    class UMAP:
        def __init__(self, **settings):
            seen.append(settings)

        def fit_transform(self, rows):
            return rows[:, :2]

    X, y = made_table(d=2)
    X[:, 1] = 1.0
    run = plots.Run(
        y_train=y[:99],
        train_score=y[:99],
        Z_train=X[:99],
        y_test=y[99:],
        score=y[99:],
        p_test=1 - 0.9 * y[99:],
        Z_test=X[99:],
        generated=X[:0],
        log=[],
        n_experts=1,
        expert_usage=None,
    )
    for module, panels in ((types.SimpleNamespace(UMAP=UMAP), 3), (None, 2)):
        monkeypatch.setitem(sys.modules, "umap", module)
        figure = row_map.map_of_rows(pyplot, run)
        assert [len(axis.collections) for axis in figure.axes] == [4] * panels
        pyplot.close(figure)
    assert seen[0]["random_state"] == 0
    # UMAP divides by the range of each direction it starts from.
    assert np.ptp(seen[0]["init"], axis=0).all()


def test_all_text_is_escaped():
    bad = "<script>&\"'\x1b[2J\udcff"  # a file's name may hold any byte
    report = {
        "dataset": bad,
        "protocol": bad,
        "seed": 0,
        "n_train": 1,
        "n_train_anomalies": 1,
        "n_test": 1,
        "n_test_anomalies": 1,
        "n_features": 1,
        "effective_rank": 1,
        "n_synthetic": 0,
        "n_experts": 1,
        "device": bad,
        "mamba_backend": bad,
        "peak_memory_mib": None,
        "seconds": {bad: 1.0},
        "git": None,
        "versions": {bad: bad},
        "platform": bad,
        "threads": 1,
        "config": {bad: bad, "label_column": None},
        "auc_roc": 0.5,
        "auc_pr": 0.5,
    }
    text = page(report, [(bad, bad, b"png")])
    assert "<script" not in text and "\x1b" not in text
    assert text.encode().count(rb"\x1b[2J\udcff") > 10
    assert text.count("&lt;script&gt;&amp;") > 10
    assert "<th>label_column</th><td>default</td>" in text


def test_missing_matplotlib_is_named_first(npz, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(InputError, match="pip install matplotlib"):
        plots.require_matplotlib()
    with pytest.raises(InputError, match="pip install matplotlib"):
        main([str(npz), "--plot", "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_closeness_counts_test_anomalies_that_generated_rows_come_nearer_to():
    rng = np.random.default_rng(0)
    Z_train = rng.normal(size=(60, 2)).astype(np.float32)
    y_train = (np.arange(60) < 2).astype(int)
    Z_train[y_train == 1] = (-4, 0)
    Z_test = np.array([[4, 0], [4, 0.5], [-4, 0.1], [-4, -0.1]], dtype=np.float32)
    given = {"y_train": y_train, "Z_train": Z_train, "y_test": np.ones(4), "Z_test": Z_test}
    names = [name for name in plots.Run._fields if name not in given]
    run = plots.Run(**given, **dict.fromkeys(names))
    near = np.array([[3.9, 0.2]] * 50, dtype=np.float32)
    assert row_map.closeness(run._replace(generated=near))[0] == 0.5
    assert row_map.closeness(run._replace(generated=near * [0.01, 1]))[0] == 0.5  # nearer than -4
    assert row_map.closeness(run._replace(generated=near - [8.1, 0]))[0] == 0
    assert row_map.closeness(run._replace(generated=near[:0])) is None
