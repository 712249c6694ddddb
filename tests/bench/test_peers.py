"""Every peer that is installed learns, leaves the input alone, and scores anomalies higher."""

import random
from functools import partial

import numpy as np
import pytest
import torch
from helpers import made_table
from sklearn.metrics import roc_auc_score

from swift_hydra.bench import deep_peers, peers, tuned_peers
from swift_hydra.bench.methods import GROUPS
from swift_hydra.bench.peers import FOUNDATION, NOT_IN_BENCH, PEERS, TABULAR, TUNED, Peer
from swift_hydra.settings import InputError

MODULES = {
    "CatBoost": ("catboost",),
    "CatBoost-tuned": ("catboost",),
    "XGBoost": ("xgboost",),
    "XGBoost-tuned": ("xgboost",),
    "LightGBM": ("lightgbm",),
    "LightGBM-tuned": ("lightgbm",),
    "XGBOD": ("pyod", "xgboost"),
    "RealMLP": ("pytabkit",),
    "TabM": ("pytabkit",),
    "WSAD-DT": ("wsad_dt",),
    **{
        name: ("pyod",) for name in ("ECOD", "LUNAR", "KDE", "PCA", "OCSVM", "GMM", "HBOS", "CBLOF")
    },
}
LABEL_LEARNERS = [name for name in PEERS if PEERS[name][2] == "labels"]
HERE = [name for name in PEERS if name not in FOUNDATION]
# Those that draw from a global stream, or that this project wrote itself.
NEW = ["DeepSAD", "PReNet", "FeaWAD", "RoSAS", "WSAD-DT", *TUNED]
NEW += ["LUNAR", "KDE", "PCA", "OCSVM", "GMM", "HBOS", "CBLOF", "DDAE"]


# Attributes of other people's models: fewer epochs and members than their authors have.
FEWER = {"LUNAR": {"n_epochs": 30}, "WSAD-DT": {"n_ensemble": 2}}


def with_fewer(factory, attributes, seed):
    model = factory(seed)
    for name, value in attributes.items():
        assert getattr(model, name) > value
        setattr(model, name, value)
    return model


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    """A few draws and epochs do for a table of few rows."""
    monkeypatch.setattr(tuned_peers, "MOST_DRAWS", 2)
    monkeypatch.setattr(tuned_peers, "BUDGET_SECONDS", 600.0)
    monkeypatch.setattr(peers, "N_TREES", 50)
    monkeypatch.setattr(deep_peers.DevNet, "BATCHES", 8)
    monkeypatch.setattr(deep_peers.PReNet, "BATCHES", 8)
    monkeypatch.setattr(deep_peers.FeaWAD, "BATCH", 64)
    monkeypatch.setattr(deep_peers.FeaWAD, "BATCHES", 4)
    monkeypatch.setattr(deep_peers.RoSAS, "EPOCHS", 50)
    monkeypatch.setattr(deep_peers.RoSAS, "LEAST_BATCHES", 4)
    monkeypatch.setattr(deep_peers.DDAE, "EPOCHS", 20)
    for name, attributes in FEWER.items():
        factory, *rest = PEERS[name]
        monkeypatch.setitem(PEERS, name, (partial(with_fewer, factory, attributes), *rest))


def need(name):
    for module in MODULES.get(name, ()):
        pytest.importorskip(
            module,
            reason=f"{module} is not installed: pip install '.[bench]' (or {module})",
            exc_type=ImportError,
        )


@pytest.mark.parametrize("name", HERE)
def test_a_peer_finds_shifted_anomalies(name):
    need(name)
    X, y = made_table(n=300, d=4, n_anomalies=40, shift=4.0)
    before = X.copy()
    score = Peer(name, 0).fit(X[::2], y[::2]).decision_function(X[1::2])
    assert np.array_equal(X, before)
    assert score.shape == (150,)
    assert score.dtype == np.float64
    assert roc_auc_score(y[1::2], score) > (0.6 if name in ("ECOD", "HBOS", "PCA") else 0.8)


@pytest.mark.parametrize("name", NEW)
def test_a_seed_decides_alone_and_global_streams_stay(name):
    need(name)
    X, y = made_table(n=60, d=3, n_anomalies=8)

    def scores():
        return Peer(name, 3).fit(X, y).decision_function(X)

    def streams():
        numpys = np.random.get_bit_generator().state["state"]
        return torch.get_rng_state().tolist(), numpys["pos"], list(numpys["key"]), random.getstate()

    before = streams()
    first = scores()
    assert streams() == before
    assert not torch.are_deterministic_algorithms_enabled()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(9)  # it may not matter
        assert np.array_equal(scores(), first)


@pytest.mark.parametrize("name", LABEL_LEARNERS)
def test_no_known_anomaly_is_a_plain_word(name):
    X, y = made_table(n=40)
    with pytest.raises(InputError, match=f"^{name} needs a known anomaly$"):
        Peer(name).fit(X, np.zeros_like(y))


@pytest.mark.parametrize("name", [name for name in HERE if name not in LABEL_LEARNERS])
def test_without_labels_all_rows_are_learnt(name):
    need(name)
    X, y = made_table(n=120, d=4, n_anomalies=6, shift=6.0)
    score = Peer(name, 0).fit(X, np.zeros_like(y)).decision_function(X)
    assert np.isfinite(score).all()
    assert roc_auc_score(y, score) > (0.5 if name == "LOF" else 0.6)
    with pytest.raises(InputError, match=f"^{name} needs a row labelled 0$"):
        Peer(name).fit(X, np.ones_like(y))


@pytest.mark.parametrize("name", [name for name in HERE if name in LABEL_LEARNERS])
def test_one_known_anomaly_is_enough(name):
    need(name)
    X, y = made_table(n=100, d=4, n_anomalies=10, shift=6.0)
    known = np.zeros_like(y)
    known[np.flatnonzero(y)[0]] = 1
    score = Peer(name, 0).fit(X, known).decision_function(X)
    assert score.shape == (100,)
    assert np.isfinite(score).all()


@pytest.mark.parametrize("name", ["PCA", "GMM", "FeaWAD", "WSAD-DT", "DDAE"])
def test_constant_and_repeated_columns_give_numbers(name):
    need(name)
    X, y = made_table(n=60, d=3, n_anomalies=8)
    X = np.concatenate([X, X[:, :1], np.ones((60, 1), np.float32)], 1)
    assert np.isfinite(Peer(name, 0).fit(X, y).decision_function(X)).all()


@pytest.mark.parametrize("name", TUNED)
def test_a_search_ends_with_its_time_and_knows_the_defaults(name, monkeypatch):
    need(name)
    X, y = made_table(n=80, d=3, n_anomalies=8)
    assert Peer(name, 0).fit(X, y).model.n_scored >= 1
    monkeypatch.setattr(tuned_peers, "BUDGET_SECONDS", 0.0)
    late = Peer(name, 0).fit(X, y)
    assert (late.model.settings, late.model.n_scored) == ({}, 0)
    default = Peer(name.removesuffix("-tuned"), 0).fit(X, y)
    assert np.array_equal(late.decision_function(X), default.decision_function(X))


def test_draws_are_settings_of_their_classifiers():
    rng = np.random.default_rng(0)
    for _ in range(50):
        assert 1.0 <= tuned_peers.draw_lightgbm(rng, 0.5)["scale_pos_weight"] <= 1.0
        drawn = tuned_peers.draw_catboost(rng, 30.0)
        assert 3 <= drawn["depth"] <= 8
        assert drawn["auto_class_weights"] in (None, "SqrtBalanced", "Balanced")
    for name, draw in tuned_peers.DRAWS.items():
        need(f"{name}-tuned")
        make, drawn = PEERS[f"{name}-tuned"][0](0).make, draw(rng, 30.0)
        # scikit-learn's own refuse what they do not know, the others name what they were given.
        assert drawn.items() <= make(**drawn).get_params().items()


def test_groups_of_peers_say_what_they_learn_from():
    assert {"XGBOD", "DeepSAD", "kNN", "IsolationForest"} <= set(GROUPS["weak-peers"])
    assert not {*NOT_IN_BENCH, *TUNED} & set(GROUPS["weak-peers"])
    assert {PEERS[name][2] for name in GROUPS["one-class-peers"]} == {"normals"}
    assert (GROUPS["tuned"], GROUPS["tabular"]) == (TUNED, TABULAR)
    assert len(GROUPS["peers"]) == 14  # what was recorded


@pytest.mark.parametrize("name", FOUNDATION)
def test_foundation_models_say_what_is_missing(name):
    try:
        Peer(name, 0).fit(*made_table())
    except InputError as error:
        message = str(error)
        assert "pip install" in message or "weights are not on this machine" in message
        assert "\n" not in message
    else:
        pytest.skip(f"{name} runs here")


def test_an_unknown_peer_is_refused():
    with pytest.raises(InputError, match="'CatBost' is unknown: choose one of CatBoost"):
        Peer("CatBost")
