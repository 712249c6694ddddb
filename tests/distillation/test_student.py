"""The small mixture that scores in the detector's place (fast=True)."""

import copy
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers import FEW_STEPS, ROOT, SHORT, SHORT_FIT, made_table, real_set, run_script, run_warm
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from swift_hydra.dataloader import RowOptions, load_rows
from swift_hydra.distillation import student as module
from swift_hydra.distillation.student import (
    Inputs,
    Student,
    centres_of,
    questions,
    rank_correlation,
)
from swift_hydra.files import write_torch
from swift_hydra.journal import Journal
from swift_hydra.settings import InputError
from swift_hydra.SwiftHydra import SwiftHydra, main

pytestmark = pytest.mark.usefixtures("few_candidates")

FEWER = 200  # training steps of a student that tell as much of what it is asked here as 600 do


@pytest.fixture(scope="module")
def table():
    return made_table(n=1000, n_anomalies=80)


@pytest.fixture(scope="module")
def learned(table):
    """The rows and labels that the student's teacher learned from."""
    X, y = table
    return X[:400], y[:400]


@pytest.fixture(scope="module")
def fitted(learned):
    return SwiftHydra(fast=True, verify=0.0, n_synthetic=60, **FEW_STEPS).fit(*learned)


@pytest.fixture(scope="module")
def plain():
    """A small detector without a student, and the rows and labels that it learned from."""
    X, y = made_table(n=120, n_anomalies=20)
    return SwiftHydra(**SHORT_FIT).fit(X, y), X, y


@pytest.fixture(scope="module")
def fresh(table):
    X, y = table
    return X[400:], y[400:]


def teacher(model, X):
    return model.detector_.score(model.columns_.standardise(X))


def test_it_learns_its_teachers_order(fitted, fresh):
    X, y = fresh
    own, wanted = fitted.decision_function(X), teacher(fitted, X)
    assert spearmanr(own, wanted).statistic > 0.85
    assert roc_auc_score(y, own) > roc_auc_score(y, wanted) - 0.03
    assert fitted.student_.agreement["rank_correlation"] > 0.85
    assert 0 <= fitted.student_.agreement["disagreement"] < 0.3


def test_trained_beats_untrained(fitted, fresh):
    X, _ = fresh
    Z = fitted.columns_.standardise(X)
    wanted = teacher(fitted, X)
    untrained = []
    for seed in range(5):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            network = module.MoEDetector(
                fitted.student_.network.d_features, n_experts=module.N_EXPERTS, **module.MIXTURE
            )
        student = Student(fitted.student_.inputs, network.eval(), 0.0, 1.0)
        untrained.append(abs(spearmanr(student.score(Z), wanted).statistic))
    # What goes in says something already: how far out a row is.
    assert np.mean(untrained) < 0.6 < spearmanr(fitted.student_.score(Z), wanted).statistic


def test_a_row_has_one_score(fitted, fresh):
    X = fresh[0][:50]
    together = fitted.decision_function(X)
    alone = np.concatenate([fitted.decision_function(X[i : i + 1]) for i in range(len(X))])
    np.testing.assert_allclose(alone, together, atol=1e-6)


def test_what_is_scored_again_does_not_depend_on_the_rows_beside_it(fitted, learned):
    """Copies of the training rows, too, one of which may lie on the bound."""
    Z = fitted.columns_.standardise(np.concatenate([learned[0][:21]] * 3))
    student = copy.copy(fitted.student_)
    own = student.score(Z)
    student.quantiles = np.quantile(own, np.linspace(0, 1, module.QUANTILES))

    def again(rows):
        return np.isnan(student.score(rows, 0.5, lambda some: np.full(len(some), np.nan)))

    together = again(Z)
    alone = np.concatenate([again(Z[i : i + 1]) for i in range(len(Z))])
    assert np.array_equal(together, alone)
    assert np.array_equal(together, own > np.median(own) + 1e-6)


@pytest.mark.parametrize("n_known", [1, 2, 30])
def test_no_centre_is_a_training_row(n_known):
    X, _ = made_table(n=200)
    y = (np.arange(200) < n_known).astype(np.int64)
    inputs = Inputs.fit(X, y, np.random.default_rng(0))
    centres = torch.cat([inputs.normals, inputs.anomalies])
    rows = torch.from_numpy(X).double()
    assert torch.cdist(centres, rows).min() > 1e-3
    assert len(inputs.anomalies)
    # Nor is one what a centre and another tell: half of a sum of a row and a centre.
    told = (2 * centres[:, None] - centres).reshape(-1, X.shape[1])
    assert torch.cdist(told, rows).min() > 1e-3


def test_a_constant_student_does_not_follow():
    assert rank_correlation(np.zeros(9), np.arange(9.0)) == 0.0
    assert rank_correlation(np.arange(9.0), np.zeros(9)) == 1.0
    student = Student(None, None, 0.0, 1.0, agreement={"disagreement": 0.0, "rank_correlation": 0})
    assert not student.follows


def test_centres_of_a_single_row_and_of_copies():
    row = np.ones((1, 3), dtype=np.float32)
    assert centres_of(row, 8, np.random.default_rng(0)).shape == (1, 3)
    copies = np.repeat(row, 40, axis=0)
    assert np.allclose(centres_of(copies, 8, np.random.default_rng(0)), 1.0)


def test_questions_are_finite_and_reach_beyond_the_rows():
    X, y = made_table()
    Z = np.clip(X, -4.5, 4.5)
    asked = questions(Z, y, Z[:7], np.random.default_rng(0))
    assert asked.shape == (module.QUESTIONS // 3 * 3 + 7, 6)
    assert np.isfinite(asked).all() and np.abs(asked).max() < 5
    assert np.isfinite(questions(Z, 0 * y, Z[:0], np.random.default_rng(0))).all()


@pytest.mark.parametrize("part", [0.0, 0.5, 1.0])
def test_what_a_student_follows_of_memorised_scores_is_estimated(part, monkeypatch):
    rng = np.random.default_rng(0)
    Z, y = rng.normal(size=(200, 3)).astype(np.float32), np.arange(200) % 20 == 0
    left_out = rng.normal(size=200)
    scores = left_out + 0.3 * rng.random(200)
    own = part * scores + (1 - part) * left_out
    monkeypatch.setattr(Student, "score", lambda self, rows: own)
    monkeypatch.setattr(module, "STEPS", 2)
    rows = SimpleNamespace(Z=Z, y=y.astype(int))
    settings = SimpleNamespace(random_state=0, mamba="torch")
    kept = np.ones(200, dtype=bool)
    student = Student.fit(
        rows, kept, scores, left_out, lambda Z: Z[:, 0].astype(float), Z[:0], settings, Journal()
    )
    assert student.followed == pytest.approx(part, abs=0.05)


def test_the_detector_scores_the_top_again(fitted, fresh):
    X, _ = fresh
    student, Z = fitted.student_, fitted.columns_.standardise(X)
    wanted = teacher(fitted, X)
    alone = student.score(Z)
    some = student.score(Z, 0.1, fitted.detector_.score)
    again = some != alone
    assert 0.02 < again.mean() < 0.4
    np.testing.assert_allclose(some[again], wanted[again], atol=1e-6)
    assert alone[again].min() > alone[~again].max()
    np.testing.assert_allclose(student.score(Z, 1.0, fitted.detector_.score), wanted, atol=1e-6)


@pytest.mark.parametrize("n_known", [0, 20])
def test_by_default_the_top_is_scored_again(monkeypatch, tmp_path, n_known):
    monkeypatch.setattr(module, "STEPS", FEWER)
    rng = np.random.default_rng(4)
    X, fresh = rng.normal(size=(300, 4)), rng.normal(size=(3000, 4))
    y = (np.arange(300) < n_known).astype(int)
    X[y == 1] += 3
    fresh[: 10 * n_known] += 3
    model = SwiftHydra(fast=True, n_synthetic=20, **FEW_STEPS).fit(X, y if n_known else None)
    share = 0.03 if n_known else 0.1
    assert model.student_.follows and model.verified_share == share
    scores = model.decision_function(fresh)
    again = scores != copy.copy(model).set_verify(0.0).decision_function(fresh)
    assert share / 3 < again[10 * n_known :].mean() < 2 * share
    assert again[: 10 * n_known].all()
    np.testing.assert_allclose(scores[again], teacher(model, fresh)[again], atol=1e-6)
    model.save(tmp_path / "m.pt")
    assert np.array_equal(SwiftHydra.load(tmp_path / "m.pt").decision_function(fresh), scores)
    for alarms in (0.02, 0.1):  # in the part that is scored again, and at its end
        assert (model.p_values(fresh[10 * n_known :]) <= alarms).mean() < 2 * alarms


def test_an_older_file_is_read(fitted, fresh):
    """In it the detector scored again where the student's experts disagreed, if told to."""
    X, _ = fresh
    saved = fitted.checkpoint()
    for name in ("quantiles", "top"):
        del saved["student"][name]
    saved["student"]["doubts"] = torch.linspace(0, 1, 201)
    basis = saved["basis"]
    basis["shift"], basis["doubt"] = basis.pop("beside"), torch.zeros(len(saved["kept"]))
    older = SwiftHydra.from_checkpoint(copy.deepcopy(saved), "m.pt")
    assert np.array_equal(older.decision_function(X), fitted.decision_function(X))
    assert older.threshold_ == fitted.threshold_
    assert older.set_verify(None).verified_share == 0.0
    saved["parameters"]["verify"] = 0.2
    # If the detector scored all rows, the scores in the file are not the student's.
    saved["decision_scores"] = saved["basis"]["left_out"].clone()
    again = SwiftHydra.from_checkpoint(saved, "m.pt")
    wanted = copy.copy(fitted)
    wanted.student_ = copy.copy(fitted.student_)  # it does not say which rows are known anomalies
    wanted.student_.measure(fitted.basis_.left_out, fitted.basis_.beside)
    wanted.set_verify(0.2)
    assert again.threshold_ == wanted.threshold_ != fitted.threshold_
    np.testing.assert_allclose(again.decision_function(X), wanted.decision_function(X))


def test_it_survives_the_file(fitted, fresh, tmp_path):
    X, _ = fresh
    fitted.save(tmp_path / "m.pt")
    loaded = SwiftHydra.load(tmp_path / "m.pt")
    assert np.array_equal(loaded.decision_function(X), fitted.decision_function(X))
    assert loaded.threshold_ == fitted.threshold_


def test_a_damaged_student_is_refused(fitted, tmp_path):
    for part, value in (
        ("quantiles", torch.zeros(3)),
        ("network", {"config": {}, "state": {}}),
        ("top", 1.5),
    ):
        saved = fitted.checkpoint()
        saved["student"][part] = value
        write_torch(tmp_path / "m.pt", saved)  # with the right sum
        with pytest.raises(InputError, match=r"m\.pt: its content does not fit together"):
            SwiftHydra.load(tmp_path / "m.pt")


def test_what_does_not_score_now_but_would_later_is_refused_by_load(fitted):
    saved = fitted.checkpoint()
    saved["detector"]["known"]["kernels"][0]["alpha"] *= np.nan
    with pytest.raises(InputError, match=r"m\.pt: .* not finite"):  # the student alone scores here
        SwiftHydra.from_checkpoint(saved, "m.pt")
    saved = fitted.checkpoint()
    saved["parameters"]["verify"] = 1.0
    saved["student"]["quantiles"] = torch.zeros(0)
    with pytest.raises(InputError, match=r"m\.pt: its content"):  # the detector alone scores here
        SwiftHydra.from_checkpoint(saved, "m.pt")


@pytest.mark.parametrize("followed", [0.0, 0.5, 1.0])
def test_what_a_student_follows_of_a_memory_is_taken_from_it(followed):
    """Its left-out scores are its own, less so much of what the teacher knows from the row."""
    rng = np.random.default_rng(0)
    left_out = rng.normal(size=400)
    memory = np.where(rng.random(400) < 0.1, 1.5, 0.0)
    student = Student(None, None, 0.0, 1.0, followed=followed)
    own = np.sinh(np.arcsinh(left_out) + followed * memory)
    student.score = lambda Z: own
    beside = student.beside(left_out, np.sinh(np.arcsinh(left_out) + memory))
    assert np.allclose(student.as_left_out(left_out, beside, 0.0), left_out)


@pytest.mark.parametrize("settings", [{"preset": "paper"}, {"trust_normals": True}])
def test_other_teachers(settings, monkeypatch):
    monkeypatch.setattr(module, "STEPS", FEWER)  # AUC-ROC .3 of an untrained one
    X, y = made_table(n=200, n_anomalies=20)
    known = None if "trust_normals" in settings else y
    model = SwiftHydra(fast=True, verify=0.0, n_synthetic=40, **FEW_STEPS, **settings).fit(X, known)
    assert roc_auc_score(y, model.decision_function(X)) > 0.6
    if model.preset == "paper":  # whose detector has no left-out scores
        own = model.decision_function(X)
        np.testing.assert_allclose(model.decision_scores_, own, rtol=1e-6, atol=1e-6)


def test_left_out_scores_of_copies_do_not_know_their_labels(monkeypatch):
    """Labels without meaning that copies of a row have in common: AUC-ROC .5, as without fast."""
    monkeypatch.setattr(module, "STEPS", FEWER)  # its own scores know them: .97
    rng = np.random.default_rng(11)
    rows, label = rng.normal(size=(75, 5)), (rng.random(75) < 0.25).astype(int)
    of = rng.integers(0, 60, 280)
    of = np.concatenate([of, np.arange(60, 75)])  # some rows have no copy
    X, y = rows[of], label[of]
    plain, fast = (
        SwiftHydra(fast=f, verify=0.0, n_synthetic=40, **FEW_STEPS).fit(X, y) for f in (False, True)
    )
    # Three standard errors, as 75 different rows tell; it was .998.
    assert abs(roc_auc_score(y, fast.decision_scores_) - 0.5) < 0.25
    assert spearmanr(fast.decision_scores_, plain.decision_scores_).statistic > 0.6


def test_false_alarms_are_those_of_fresh_rows(monkeypatch):
    """A student's own scores of its training rows flagged two to three times as many."""
    monkeypatch.setattr(module, "STEPS", FEWER)
    alarms = []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        X, fresh = rng.normal(size=(400, 2)), rng.normal(size=(2000, 2))
        y = (np.arange(400) < 30).astype(int)
        X[y == 1] += 3
        model = SwiftHydra(random_state=seed, fast=True, verify=0.0, n_synthetic=40, **FEW_STEPS)
        alarms.append((model.fit(X, y).p_values(fresh) <= 0.05).mean())
    assert 0.02 < np.mean(alarms) < 0.085, alarms


@pytest.mark.parametrize(
    ("bound", "value"), [("LEAST_CORRELATION", 1.1), ("MOST_DISAGREEMENT", -1.0)]
)
def test_a_student_that_does_not_follow_is_not_used(monkeypatch, plain, tmp_path, bound, value):
    monkeypatch.setattr(module, "STEPS", 20)
    for name, never in (("LEAST_CORRELATION", -1.0), ("MOST_DISAGREEMENT", 1.0)):
        monkeypatch.setattr(module, name, value if name == bound else never)
    plain, X, y = plain
    with pytest.warns(UserWarning, match="does not follow its detector"):
        model = SwiftHydra(fast=True, **SHORT_FIT).fit(X, y)
    assert model.verified_share == 1.0
    assert np.array_equal(model.decision_function(X), plain.decision_function(X))
    assert np.array_equal(model.decision_scores_, plain.decision_scores_)
    with pytest.raises(InputError, match="verify=0"):
        model.export(tmp_path / "student.onnx")
    model.verify = 0.0
    assert not np.array_equal(model.decision_function(X), plain.decision_function(X))


def test_alarms_of_a_clean_table_are_those_stated(monkeypatch):
    monkeypatch.setattr(module, "STEPS", FEWER)
    rng = np.random.default_rng(0)
    X = rng.normal(size=(2000, 4))
    y = (np.arange(2000) < 40).astype(np.int64)
    X[y == 1] += 2
    model = SwiftHydra(fast=True, verify=0.0, n_synthetic=60, **FEW_STEPS).fit(X[:1000], y[:1000])
    p = model.p_values(rng.normal(size=(2000, 4)))
    assert abs((p <= 0.05).mean() - 0.05) < 0.03


def test_commands(tmp_path):
    X, y = made_table(n=200, n_anomalies=20)
    np.savez(tmp_path / "t.npz", X=X, y=y)
    words = [ROOT / "SwiftHydra.py", "t.npz", "--fast", "--verify", "0", "--out", "out", *SHORT]
    done = run_warm(*words, cwd=tmp_path, student={"STEPS": FEWER})
    assert done.returncode == 0, done.stderr
    run = tmp_path / "out" / "t" / "seen" / "seed0"
    report = json.loads((run / "report.json").read_text())
    assert report["config"]["fast"] and report["student"]["rank_correlation"] > 0.3
    stages = {json.loads(line)["stage"] for line in (run / "log.jsonl").read_text().splitlines()}
    assert "student" in stages
    np.savez(tmp_path / "new.npz", X=X)
    score = ("SwiftHydra.py", "score", "--checkpoint", run / "checkpoint.pt", "--data", "new.npz")
    scores = []
    for more in ((), ("--verify", "1")):
        done = run_script(*score, *more, "--force", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        scores.append(np.loadtxt(tmp_path / "scores.csv", delimiter=",", skiprows=1)[:, 1])
    model = SwiftHydra.load(run / "checkpoint.pt")
    np.testing.assert_allclose(scores[0], model.decision_function(X), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(scores[1], teacher(model, X), rtol=1e-6, atol=1e-6)


def test_score_flags_by_the_threshold_of_its_own_share(
    fitted, learned, tmp_path, capsys, monkeypatch
):
    X, _ = learned
    fitted.save(tmp_path / "m.pt")
    np.savetxt(tmp_path / "new.csv", X, delimiter=",")
    model = SwiftHydra.load(tmp_path / "m.pt").set_verify(0.5)
    assert model.threshold_ != SwiftHydra.load(tmp_path / "m.pt").threshold_
    monkeypatch.setattr(SwiftHydra, "default_chunk_rows", lambda self: 150)
    command = ["score", "--checkpoint", tmp_path / "m.pt", "--data", tmp_path / "new.csv"]
    command += ["--out", tmp_path / "s.csv", "--force", "--verify", "0.5", "--p-values"]
    for more in ([], ["--false-alarms", "0.05"]):
        main([*map(str, command), *more])
        _, score, flag, p = np.loadtxt(tmp_path / "s.csv", delimiter=",", skiprows=1).T
        if more:
            model.set_false_alarms(0.05)
            assert p[flag == 1].max() <= 0.05 < p[flag == 0].min()
        assert np.array_equal(flag == 1, score > model.threshold_)
        assert f"threshold {model.threshold_:.4g}" in capsys.readouterr().out


def test_verify_without_fast_is_refused():
    done = run_script("SwiftHydra.py", "--verify", "0.1")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "--fast" in done.stderr


def test_verify_without_a_student_is_refused(plain, tmp_path):
    plain, X, _ = plain
    plain.save(tmp_path / "m.pt")
    np.savez(tmp_path / "new.npz", X=X)
    score = ("SwiftHydra.py", "score", "--checkpoint", "m.pt", "--data", "new.npz")
    done = run_script(*score, "--verify", "0.1", cwd=tmp_path)
    assert done.returncode == 2 and "--verify" in done.stderr
    assert "Traceback" not in done.stderr


def test_real_rows_keep_their_order():
    which = RowOptions(dataset=str(real_set("40_vowels")), protocol="seen", seed=10)
    rows = load_rows(which)
    model = SwiftHydra(fast=True, verify=0.0, random_state=10, **FEW_STEPS)
    model.fit(rows.train.X, rows.train.y)
    own = roc_auc_score(rows.y_test, model.decision_function(rows.X_test))
    assert own > roc_auc_score(rows.y_test, teacher(model, rows.X_test)) - 0.03


def test_scores_that_equal_the_bound_but_for_rounding_are_not_found_again():
    student = SimpleNamespace(quantiles=np.linspace(0, 1, module.QUANTILES), spread=2.0)
    scores = np.array([0.4, 0.9, 0.9 + 1e-9, 0.9 + 1e-3])
    assert module.Student._again(student, scores, 0.1).tolist() == [False, False, False, True]
    assert not module.Student._again(student, scores, 0).any()
    assert module.Student._again(student, scores, 1).all()
