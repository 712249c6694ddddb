"""The class: it learns, its scores differ, what it generates reaches the final training."""

import copy
import pickle
import re
import warnings
from concurrent.futures import ThreadPoolExecutor

import joblib
import numpy as np
import pytest
import torch
from helpers import SHORT_FIT, made_table
from sklearn.base import clone
from sklearn.metrics import get_scorer, roc_auc_score
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import RobustScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from swift_hydra import pretrain
from swift_hydra.detection import mixture
from swift_hydra.settings import InputError
from swift_hydra.SwiftHydra import SwiftHydra
from swift_hydra.thresholds import threshold_of

pytestmark = pytest.mark.usefixtures("few_candidates")

SHORT = {
    "cvae_steps": 60,
    "detector_steps": 40,
    "mixture_steps": 60,
    "n_episodes": 2,
    "n_synthetic": 100,
}
# Where no quality is asked for.
HASTY = SHORT_FIT | {"n_episodes": 2}


def split(**settings):
    X, y = made_table(n=600, n_anomalies=60, **settings)
    return train_test_split(X, y, test_size=0.6, stratify=y, random_state=0)


@pytest.fixture(scope="module")
def fitted():
    X, X_test, y, y_test = split()
    return SwiftHydra(**SHORT).fit(X, y), X, X_test, y, y_test


@pytest.mark.parametrize("preset", ["full", "paper"])
def test_trained_beats_untrained_on_the_same_seed(preset):
    """The Mamba mixture itself: the kernel experts beside it would hide an untrained one."""
    X, X_test, y, y_test = split(shift=2.0)
    auc = {}
    for steps in (1, 150):
        settings = SHORT | {"cvae_steps": steps, "detector_steps": steps, "mixture_steps": steps}
        model = SwiftHydra(preset=preset, generator="none", **settings).fit(X, y)
        Z = model.columns_.standardise(X_test)
        score = model.detector_.parts(Z)[0][:, 0] if preset == "full" else model.detector_.score(Z)
        auc[steps] = roc_auc_score(y_test, score)
    assert auc[150] > 0.85
    assert auc[150] > auc[1] + 0.03


def test_scores_are_finite_diverse_and_higher_for_anomalies(fitted):
    model, _, X_test, _, y_test = fitted
    score = model.decision_function(X_test)
    assert score.shape == (len(X_test),)
    assert np.isfinite(score).all()
    assert len(np.unique(score.round(6))) > 0.9 * len(score)
    assert score[y_test == 1].mean() > score[y_test == 0].mean()
    np.testing.assert_array_equal(model.predict_score(X_test), score)
    proba = model.predict_proba(X_test)
    assert np.allclose(proba.sum(1), 1)
    assert np.array_equal(np.argsort(proba[:, 1], kind="stable"), np.argsort(score, kind="stable"))


@pytest.mark.parametrize("preset", ["full", "paper"])
def test_generated_rows_are_in_the_final_training_and_only_there(preset, monkeypatch):
    """The released code resets its data before the final training: no generated row reaches it."""
    X, _, y, _ = split()
    seen = {}
    original = pretrain.train_detector

    def spy(make, examples, recipe, seed, stage, journal):
        seen[stage] = examples
        return original(make, examples, recipe, seed, stage, journal)

    monkeypatch.setattr(mixture, "train_detector", spy)
    model = SwiftHydra(preset=preset, **SHORT).fit(X, y)
    generated = torch.from_numpy(model.columns_.standardise(model.synthetic_))
    assert len(generated) == SHORT["n_synthetic"]
    rows, labels, learned_from = seen["mixture"][:3]
    d = X.shape[1]
    torch.testing.assert_close(learned_from[:, :d], generated, rtol=0, atol=1e-4)
    # The real part is the training set as given: no generated row is passed off as a real one,
    # test rows are unknown.
    kept = model.kept_
    assert kept.sum() > 0.95 * len(X) and kept[y == 1].all()
    torch.testing.assert_close(rows[:, :d], torch.from_numpy(model.columns_.standardise(X[kept])))
    assert np.array_equal(labels.numpy(), y[kept])
    assert torch.cdist(learned_from[:, :d], rows[:, :d]).min() > 0


def test_generated_rows_change_the_final_detector():
    X, X_test, y, _ = split()
    with_rows, without = (
        SwiftHydra(preset="paper", generator=g, **HASTY).fit(X, y) for g in ("rl", "none")
    )
    assert len(with_rows.synthetic_) == HASTY["n_synthetic"]
    assert len(without.synthetic_) == 0
    assert not np.allclose(with_rows.decision_function(X_test), without.decision_function(X_test))


def test_generated_rows_that_no_score_needs_are_made_when_they_are_asked_for(tmp_path):
    X = split()[0]

    def networks(learned):
        return pretrain.pretrain(learned.Z, learned.y, 0, at_once)

    at_once = SwiftHydra(**HASTY)
    at_once.fit(X, pretrained=networks)
    assert {"pretrain", "episodes"} < at_once.seconds_.keys()
    models = [SwiftHydra(**HASTY).fit(X) for _ in range(4)]
    for model in models:
        assert not {"pretrain", "episodes"} & model.seconds_.keys()
        assert np.array_equal(model.decision_scores_, at_once.decision_scores_)
        model.set_params(n_synthetic=3, generator="noise")  # these are for the next fit
    models[1].save(tmp_path / "model.pt")
    models[1] = SwiftHydra.load(tmp_path / "model.pt")
    models[2] = pickle.loads(pickle.dumps(models[2]))
    assert "_later" not in vars(models[2])
    with ThreadPoolExecutor(3) as pool:  # three ask at once
        rows = list(pool.map(lambda _: models[3].synthetic_, range(3)))
    assert rows[0] is rows[1] is rows[2]
    assert all(np.array_equal(model.synthetic_, at_once.synthetic_) for model in models)
    assert models[0].episode_log_ == models[2].episode_log_ == at_once.episode_log_
    again = models[0].set_params(generator="none").fit(X)
    assert len(again.synthetic_) == 0 and again.episode_log_ == []
    with pytest.raises(AttributeError, match="synthetic_"):
        SwiftHydra().synthetic_  # noqa: B018


def test_same_seed_same_scores_to_the_bit_other_seed_other_scores():
    X, X_test, y, _ = split()
    scores = []
    for seed in (3, 3, 4):
        torch.manual_seed(len(scores))  # the global streams must not matter
        np.random.seed(len(scores))  # noqa: NPY002
        scores.append(SwiftHydra(random_state=seed, **HASTY).fit(X, y).decision_function(X_test))
    assert np.array_equal(scores[0], scores[1])
    assert not np.array_equal(scores[0], scores[2])


@pytest.mark.parametrize("preset", ["full", "paper"])
def test_save_and_load_give_bit_equal_scores(preset, tmp_path):
    X, X_test, y, _ = split()
    model = SwiftHydra(preset=preset, **HASTY).fit(X, y)
    model.save(tmp_path / "model.pt")
    again = SwiftHydra.load(tmp_path / "model.pt")
    assert np.array_equal(model.decision_function(X_test), again.decision_function(X_test))
    assert np.array_equal(model.predict(X_test), again.predict(X_test))
    assert np.array_equal(model.synthetic_, again.synthetic_)
    saved = torch.load(tmp_path / "model.pt", weights_only=True)  # tensors and plain values only
    assert saved["kind"] == "SwiftHydra"


@pytest.mark.parametrize("n_experts", [1, 2, 5])
def test_any_number_of_experts(n_experts):
    X, X_test, y, y_test = split()
    model = SwiftHydra(n_experts=n_experts, **SHORT).fit(X, y)
    assert model.n_experts_ == model.detector_.known.mixture.network.n_experts == n_experts
    assert roc_auc_score(y_test, model.decision_function(X_test)) > 0.8


@pytest.mark.parametrize("settings", [{"preset": "paper"}, {}, {"n_experts": 1}])
def test_members_of_an_ensemble_differ_and_their_mean_scores(settings, tmp_path):
    X, X_test, y, _ = split()
    one = SwiftHydra(**HASTY, **settings).fit(X, y)
    three = SwiftHydra(n_members=3, **HASTY, **settings).fit(X, y)

    def mixtures(model):
        sides = (model.detector_.known, model.detector_.unlike) if model.preset == "full" else ()
        return [side.mixture for side in sides or [model.detector_]]

    for single, several in zip(mixtures(one), mixtures(three), strict=True):
        inputs = torch.randn(50, single.network.d_features)
        each = [network.score(inputs).double().numpy() for network in several.networks]
        assert len(each) == 3
        np.testing.assert_allclose(several.logits(inputs), np.mean(each, axis=0), atol=1e-6)
        assert np.array_equal(each[0], single.logits(inputs))  # the first is the one alone
        assert all(np.abs(each[a] - each[b]).mean() > 0.01 for a, b in ((0, 1), (0, 2), (1, 2)))
    assert not np.array_equal(one.decision_scores_, three.decision_scores_)
    three.save(tmp_path / "m.pt")
    loaded = SwiftHydra.load(tmp_path / "m.pt")
    assert np.array_equal(loaded.decision_function(X_test), three.decision_function(X_test))


def test_left_out_training_scores_are_honest(fitted):
    """decision_scores_ come from models that did not see the row: not much better than on the test
    rows.
    """
    model, X, X_test, y, y_test = fitted
    train = roc_auc_score(y, model.decision_scores_)
    test = roc_auc_score(y_test, model.decision_function(X_test))
    assert train < test + 0.05
    assert roc_auc_score(y, model.decision_function(X)) >= train


def test_contamination_only_moves_the_threshold(fitted):
    model, X, *_ = fitted
    before = model.decision_function(X)
    model.set_contamination(0.3)
    assert abs(model.labels_.mean() - 0.3) < 0.02
    assert np.array_equal(before, model.decision_function(X))
    model.set_contamination(0.1)
    assert abs(model.labels_.mean() - 0.1) < 0.02
    model.set_contamination("auto")  # the default
    assert abs(model.labels_.mean() - model.estimated_contamination_) < 0.02


def test_a_threshold_that_was_written_by_hand_is_kept(fitted, tmp_path):
    model, X, *_ = fitted
    by_hand = copy.copy(model)
    by_hand.threshold_ = float(np.quantile(model.decision_scores_, 0.8))
    by_hand.save(tmp_path / "m.pt")
    same = SwiftHydra.load(tmp_path / "m.pt")
    assert same.threshold_ == by_hand.threshold_ != model.threshold_
    assert np.array_equal(same.predict(X), by_hand.predict(X))
    assert same.labels_.sum() == (same.fresh_scores_ > same.threshold_).sum()
    same.set_contamination("auto").save(tmp_path / "m.pt")
    assert SwiftHydra.load(tmp_path / "m.pt").threshold_ == model.threshold_
    rare = copy.copy(model)
    with pytest.warns(UserWarning, match="so rare an alarm"):
        rare.set_false_alarms(1e-6)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rare.save(tmp_path / "rare.pt")
    wrong = torch.load(tmp_path / "m.pt", weights_only=True) | {"threshold": float("nan")}
    torch.save(wrong, tmp_path / "m.pt")
    with pytest.raises(InputError, match="not a readable checkpoint"):
        SwiftHydra.load(tmp_path / "m.pt")


def test_the_docstring_names_every_setting_and_attribute(fitted):
    parts = re.split("Attributes:|Raises:", SwiftHydra.__doc__)
    arguments, attributes, _ = (re.findall(r"^ {8}(\w+): ", part, flags=re.M) for part in parts)
    assert sorted(arguments) == sorted(SwiftHydra().get_params())
    own = {name for name in vars(fitted[0]) if name.endswith("_")}
    assert own == set(attributes) - {"feature_names_in_"}  # of a frame


def test_scoring_streams_in_chunks(fitted):
    model, _, X_test, _, _ = fitted
    whole = model.decision_function(X_test)
    parts = model.decision_function(X_test, chunk_rows=9)
    np.testing.assert_allclose(parts, whole, rtol=0, atol=1e-12)


def test_scikit_learn_conventions(fitted):
    model, X, _, y, _ = fitted
    twin = clone(SwiftHydra(random_state=5, preset="paper"))
    assert twin.get_params()["random_state"] == 5
    assert not hasattr(clone(model), "detector_")
    assert SwiftHydra(**HASTY).fit(X_train=X, y_train=y).n_features_in_ == X.shape[1]
    # A fit stores nothing in constructor parameters.
    assert clone(model).get_params() == model.get_params() == SwiftHydra(**SHORT).get_params()


def test_the_calls_of_adbench(tmp_path):
    """RunPipeline.model_fit's sequence for a ``Customized`` method, with what its data generator
    hands over.
    """
    X, X_test, y, _ = split()
    low, high = X.min(0), X.max(0)
    data = {
        "X_train": ((X - low) / (high - low)).astype(np.float64),
        "y_train": y.astype(np.int32),
        "X_test": ((X_test - low) / (high - low)).astype(np.float64),
    }
    scores = []
    for seed in np.arange(2) + 1:  # numpy integers, as there
        clf = lambda seed, model_name: SwiftHydra(random_state=seed, **HASTY)  # noqa: E731  the README's customized
        clf = clf(seed=seed, model_name="Customized")
        clf = clf.fit(X_train=data["X_train"], y_train=data["y_train"])
        scores.append(clf.predict_score(data["X_test"]))
        assert scores[-1].shape == (len(X_test),) and np.isfinite(scores[-1]).all()
    assert not np.array_equal(*scores)
    clf.save(tmp_path / "a.pt")  # a numpy seed must not make the file unreadable
    assert np.array_equal(
        SwiftHydra.load(tmp_path / "a.pt").predict_score(data["X_test"]), scores[-1]
    )


def test_tiny_tables_and_odd_columns():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(30, 4)).astype(np.float32)
    X[:, 2] = 7.0  # constant
    X[10:20] = X[0]  # duplicates
    y = np.zeros(30, dtype=int)
    y[:2] = 1
    X[:2] += 3
    for d in (1, 4):
        score = SwiftHydra(**HASTY).fit(X[:, :d], y).decision_function(X[:, :d])
        assert np.isfinite(score).all()
    for few in (np.r_[0:2, 20:28], np.r_[0:1, 20:28]):  # two anomalies or one, eight normals
        for generator in ("rl", "none"):
            model = SwiftHydra(generator=generator, **HASTY).fit(X[few], y[few])
            assert np.isfinite(model.decision_function(X)).all()
    integers = (X * 10).astype(np.uint8)
    assert np.isfinite(SwiftHydra(**HASTY).fit(integers, y).decision_function(integers)).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"preset": "huge"}, "preset='huge' is unknown: choose one of 'full', 'paper'"),
        ({"generator": "magic"}, "generator='magic' is unknown"),
        ({"n_experts": "many"}, "n_experts='many'"),
        ({"n_experts": 0}, "n_experts=0"),
        ({"n_episodes": 0}, "n_episodes=0"),
        ({"contamination": 1.5}, "contamination=1.5"),
        ({"device": "quantum"}, "device='quantum'"),
        ({"mamba": "official"}, "mamba-ssm kernels cannot run here"),
        ({"random_state": -1}, "random_state=-1"),
    ],
)
def test_unknown_option_values_are_named(change, message, table):
    if change.get("mamba") == "official" and torch.cuda.is_available():
        pytest.skip("this machine may have the official kernels")
    with pytest.raises(InputError, match=message.replace("(", r"\(")):
        SwiftHydra(**SHORT | change).fit(*table)


def test_bad_tables_are_refused(table):
    X, y = table
    model = SwiftHydra(**HASTY)
    with pytest.raises(InputError, match="rows and y has"):
        model.fit(X, y[:-1])
    with pytest.raises(InputError, match="x3"):
        model.fit(np.where(np.arange(6) == 3, np.nan, X), y)
    with pytest.raises(InputError, match="only 4 rows as normal"):
        model.fit(X[:30], np.r_[np.zeros(4, int), np.ones(26, int)])
    with pytest.raises(InputError, match="labels are 0, 1, 2"):
        model.fit(X, np.arange(len(X)) % 3)
    with pytest.raises(InputError, match="not fitted"):
        model.decision_function(X)
    model.fit(X, y)
    with pytest.raises(InputError, match=r"X has no row: there is nothing .* to score"):
        model.decision_function(X[:0])
    with pytest.raises(InputError, match="expecting 6 features"):
        model.decision_function(X[:, :4])


def test_other_labels(table):
    X, y = table
    with pytest.warns(UserWarning, match="labels are 2 and 4: 4 is taken as the anomaly"):
        model = SwiftHydra(**SHORT).fit(X, np.where(y == 1, 4, 2))
    assert set(model.predict(X)) == {2, 4}
    assert roc_auc_score(y, model.decision_function(X)) > 0.8
    some = np.where(np.cumsum(y == 0) <= 100, np.where(y == 0, -1, y), y)
    other = SwiftHydra(**HASTY).fit(X, some)
    assert set(other.predict(X)) == {0, 1}


TINY = {**SHORT_FIT, "mixture_steps": 5}


@pytest.mark.parametrize(
    ("normal", "anomaly", "said"),
    [("ok", "attack", True), (1, -1, True), ("ok", "zero", False), (3, 7, False)],
)
def test_labels_that_scorers_take_the_other_way_round_are_said(table, normal, anomaly, said):
    X, y = table
    labels = np.where(y == 1, anomaly, normal)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = SwiftHydra(anomaly_label=anomaly, preset="paper", **TINY).fit(X, labels)
    assert any("sorts before" in str(warning.message) for warning in caught) == said
    auc = roc_auc_score(y, model.decision_function(X))
    assert get_scorer("roc_auc")(model, X, labels) == pytest.approx(1 - auc if said else auc)


def test_the_labels_name_is_known_and_no_feature_in_silence(table):
    pandas = pytest.importorskip("pandas")
    X, y = table
    frame = pandas.DataFrame(X, columns=list("abcdef"))
    both = frame.assign(label=y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for labels in (both["label"], both[["label"]]):
            model = SwiftHydra(preset="paper", **TINY).fit(frame, labels)
            assert model.label_name_ == "label"
            scores = model.decision_function(both[["label", *"fedcba"]])
            assert np.array_equal(scores, model.decision_function(frame))
    with pytest.warns(UserWarning, match="column 'label' has the name of the labels"):
        model = SwiftHydra(preset="paper", **TINY).fit(both, both[["label"]])
    assert model.n_features_in_ == 7


@parametrize_with_checks(
    [SwiftHydra(cvae_steps=2, detector_steps=2, mixture_steps=2, n_episodes=1, n_synthetic=20)],
    expected_failed_checks=lambda estimator: {
        "check_dtype_object": "text is refused with a ValueError that names the column",
    },
)
@pytest.mark.filterwarnings("ignore:the labels are", "ignore:y. .* more than half", "ignore:X. col")
def test_scikit_learns_own_checks(estimator, check):
    check(estimator)


def test_grid_search_and_pipeline(table):
    X, y = table
    quick = SwiftHydra(**SHORT)
    search = GridSearchCV(
        make_pipeline(RobustScaler(), quick),
        {"swifthydra__generator": ["none", "noise"]},
        scoring="roc_auc",
        cv=2,
    )
    search.fit(X, y)
    assert search.best_score_ > 0.8


def test_pickle_round_trip(fitted, tmp_path):
    model, _, X_test, _, _ = fitted
    assert pickle.dumps(clone(model))  # an unfitted estimator travels to workers
    joblib.dump(model, tmp_path / "model.joblib")
    again = joblib.load(tmp_path / "model.joblib")
    assert np.array_equal(again.decision_function(X_test), model.decision_function(X_test))


def test_a_detector_in_memory_that_cannot_be_written_to_is_saved(fitted, tmp_path):
    """Where a joblib file is mapped into memory; torch warns of such arrays."""
    model, _, X_test, _, _ = fitted
    joblib.dump(model, tmp_path / "model.joblib")
    mapped = joblib.load(tmp_path / "model.joblib", mmap_mode="r")
    assert not mapped.decision_scores_.flags.writeable
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mapped.save(tmp_path / "model.pt")
        scores = mapped.decision_function(X_test)
        mapped.predict_proba(X_test)
        mapped.explain(X_test[:2])
    assert np.array_equal(SwiftHydra.load(tmp_path / "model.pt").decision_function(X_test), scores)


@pytest.mark.parametrize(
    ("scores", "share", "above"),
    [
        ([0, 1, 2, 3], 0.25, 1),
        ([0, 1, 2, 2], 0.05, 0),  # not half of them
        ([0, 0, 0, 1, 2], 0.99, 5),  # nearer than two
        ([0, 1], 0.0, 0),
        ([7, 7], 0.1, 0),
    ],
)
def test_a_threshold_stands_beside_equal_scores_not_on_them(scores, share, above):
    scores = np.array(scores, dtype=float)
    threshold = threshold_of(scores, share, rounding=1e-3)
    for digit in (-1e-6, 1e-6):  # as another processor may round them
        assert (scores + digit > threshold).sum() == above
