"""Large tables: the rows that stand for them in all that learns (``max_samples``)."""

import json
import warnings

import numpy as np
import pytest
from helpers import ROOT, SHORT, run_script
from sklearn.metrics import roc_auc_score

from swift_hydra.cleaning.learned_rows import sample
from swift_hydra.cleaning.suspects import PRIOR
from swift_hydra.geometry import twins
from swift_hydra.settings import InputError
from swift_hydra.SwiftHydra import SwiftHydra

pytestmark = pytest.mark.usefixtures("few_candidates")

SHORT_SETTINGS = {"cvae_steps": 40, "detector_steps": 30, "mixture_steps": 60, "n_episodes": 1}


def table(n=4000, seed=0, share=0.05):
    """Rows (n, 4), anomalies moved, and their labels."""
    rng = np.random.default_rng(seed)
    y = (rng.random(n) < share).astype(int)
    return rng.normal(size=(n, 4)) + 3.0 * y[:, None], y


def fitted(X, y, **settings):
    return SwiftHydra(**SHORT_SETTINGS | settings).fit(X, y)


@pytest.mark.parametrize(
    ("y", "n_anomalies", "n_drawn"),
    [
        (np.arange(1000) < 30, 30, 200),  # few: all of them
        (np.arange(1000) < 400, 100, 200),
        (np.arange(1000) >= 40, 100, 140),  # no more normals than there are
        (np.zeros(1000), 0, 200),
        (np.where(np.arange(1000) < 30, 1, -1), 30, 200),
    ],
)
def test_at_most_half_of_a_sample_are_known_anomalies(y, n_anomalies, n_drawn):
    y = y.astype(int)
    drawn = sample(y, 200, 0)
    assert (drawn & (y == 1)).sum() == n_anomalies and drawn.sum() == n_drawn
    assert (drawn != sample(y, 200, 1)).any()
    assert np.array_equal(drawn, sample(y, 200, 0))


@pytest.fixture(scope="module")
def of_some():
    X, y = table()
    return fitted(X, y, max_samples=800)


def test_rows_that_were_not_drawn_are_fresh_ones(of_some):
    X, y = table()
    not_drawn = ~of_some.sampled_
    assert not_drawn.sum() == 3200 and not of_some.kept_[not_drawn].any()
    assert (y[not_drawn] == 0).all()  # all known anomalies are in the sample
    own = of_some.decision_scores_[not_drawn]
    assert own == pytest.approx(of_some.decision_function(X[not_drawn]), abs=1e-6)
    new, labels = table(seed=1)
    assert roc_auc_score(labels, of_some.decision_function(new)) > 0.97
    assert len(of_some.expected_scores_) == len(y)


def test_alarms_of_a_sample_are_as_rare_as_was_said(of_some):
    X, y = table(seed=2)
    flagged = (of_some.p_values(X[y == 0]) < 0.1).mean()
    assert flagged == pytest.approx(0.1, abs=0.03)
    of_all = fitted(*table(), max_samples=4000)
    assert of_all.sampled_.all()
    assert of_some.estimated_contamination_ == pytest.approx(
        of_all.estimated_contamination_, abs=0.02
    )


def test_a_copy_of_a_drawn_row_does_not_know_its_label():
    rng = np.random.default_rng(3)
    X = np.repeat(rng.normal(size=(400, 4)), 2, axis=0)
    y = np.repeat(rng.random(400) < 0.3, 2).astype(int)
    order = rng.permutation(800)
    X, y = X[order], y[order]  # no label means anything
    model = fitted(X, y, max_samples=300, trust_normals=True)
    copied = np.isin(X[:, 0], X[model.sampled_, 0]) & ~model.sampled_
    assert roc_auc_score(y[copied], model.decision_function(X[copied])) > 0.7
    for scores in (model.decision_scores_, model.fresh_scores_):
        assert roc_auc_score(y[copied], scores[copied]) < 0.6


@pytest.mark.parametrize("digits", [None, 5])
def test_twins_are_copies_up_to_rounding(digits):
    rows = np.random.default_rng(0).normal(size=(50, 3))
    again = rows if digits is None else rows.round(digits)
    kept = np.arange(100) < 50
    assert np.array_equal(twins(np.concatenate([rows, again]), kept), np.arange(50))
    assert (twins(np.concatenate([rows, rows + 0.1]), kept) == -1).all()


@pytest.mark.parametrize(
    ("told", "settings"),
    [
        (None, {"fast": True}),
        (np.zeros(900, dtype=int), {}),
        (np.zeros(900, dtype=int), {"trust_normals": True}),
    ],
)
def test_a_sample_of_a_table_of_which_nothing_is_known(told, settings):
    X, y = table(900)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = fitted(X, told, max_samples=300, **settings)
    assert model.sampled_.sum() == 300 and np.isfinite(model.decision_scores_).all()
    assert roc_auc_score(y, model.decision_function(X)) > 0.8
    assumed = 0.0 if model.trust_normals else PRIOR  # of the table, of which a third was drawn
    assert model.estimated_contamination_ == pytest.approx(assumed)


def test_the_papers_detector_of_a_sample():
    X, y = table(900)
    model = fitted(X, y, max_samples=300, preset="paper")
    assert model.sampled_.sum() == 300 and np.isfinite(model.decision_scores_).all()
    new, labels = table(seed=1)
    assert roc_auc_score(labels, model.decision_function(new)) > 0.9


def test_files_of_before_there_were_samples_are_read(of_some, tmp_path):
    saved = of_some.checkpoint()
    del saved["sampled"]
    assert SwiftHydra.from_checkpoint(saved, "older.pt").sampled_.all()


class Own(SwiftHydra):
    """With arguments of its own."""

    def __init__(self, depth=1):
        super().__init__(mixture_steps=depth)


class Passing(SwiftHydra):
    """Whose arguments are those of the class."""

    def __init__(self, **settings):
        super().__init__(**settings)


def test_files_of_a_later_version_or_another_class_are_not_called_damaged(of_some):
    saved = of_some.checkpoint()
    with pytest.raises(InputError, match=r"own\.pt: Own here has no setting '.*: load it with"):
        Own.from_checkpoint(saved, "own.pt")
    assert Passing.from_checkpoint(saved, "own.pt").n_experts_ == of_some.n_experts_
    saved["parameters"]["n_minds"] = 3
    with pytest.raises(InputError, match="SwiftHydra here has no setting 'n_minds': load it with"):
        SwiftHydra.from_checkpoint(saved, "later.pt")


def test_a_sample_is_kept_in_files(of_some, tmp_path):
    of_some.save(tmp_path / "model.pt")
    loaded = SwiftHydra.load(tmp_path / "model.pt")
    assert np.array_equal(loaded.sampled_, of_some.sampled_)
    X = table(seed=1)[0]
    assert np.array_equal(loaded.decision_function(X), of_some.decision_function(X))


def test_a_student_of_a_sample_knows_all_rows():
    X, y = table(1500)
    model = fitted(X, y, max_samples=500, fast=True)
    assert len(model.basis_.beside) == 1500
    new, labels = table(seed=1)
    assert roc_auc_score(labels, model.decision_function(new)) > 0.97


def test_a_run_says_that_a_sample_stands_for_the_table(tmp_path):
    X, y = table(600, share=0.1)
    np.savez(tmp_path / "t.npz", X=X, y=y)
    command = [ROOT / "SwiftHydra.py", "t.npz", "--out", "out", *SHORT, "--max-samples", "150"]
    done = run_script(*command, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    said = "150 rows, drawn from 240, stand for the training rows: --max-samples"
    assert said in done.stdout + done.stderr
    report = json.loads((tmp_path / "out/t/seen/seed0/report.json").read_text())
    assert report["n_sampled"] == 150
    # What was pretrained on another sample is not taken for this one's.
    again = run_script(*command[:-1], "200", cwd=tmp_path)
    assert "has other settings" in again.stdout + again.stderr and again.returncode == 0
