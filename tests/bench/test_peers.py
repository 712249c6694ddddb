"""Every peer that is installed learns, leaves the input alone, and scores anomalies higher."""

import numpy as np
import pytest
from helpers import made_table
from sklearn.metrics import roc_auc_score

from swift_hydra.bench.peers import FOUNDATION, PEERS, Peer
from swift_hydra.settings import InputError

MODULES = {
    "CatBoost": "catboost",
    "XGBoost": "xgboost",
    "LightGBM": "lightgbm",
    "XGBOD": "pyod",
    "ECOD": "pyod",
}
SLOW = {"XGBOD"}


@pytest.mark.parametrize("name", [name for name in PEERS if name not in FOUNDATION])
def test_a_peer_finds_shifted_anomalies(name):
    if name in MODULES:
        pytest.importorskip(
            MODULES[name], reason=f"{MODULES[name]} is not installed: pip install '.[bench]'"
        )
    if name in SLOW:
        pytest.importorskip("xgboost", reason="XGBOD needs xgboost")
    X, y = made_table(n=300, d=4, n_anomalies=40, shift=4.0)
    before = X.copy()
    score = Peer(name, 0).fit(X[::2], y[::2]).decision_function(X[1::2])
    assert np.array_equal(X, before)
    assert score.shape == (150,)
    assert roc_auc_score(y[1::2], score) > (0.6 if name == "ECOD" else 0.8)


@pytest.mark.parametrize("name", FOUNDATION)
def test_foundation_models_say_what_is_missing(name):
    try:
        Peer(name, 0).fit(*made_table())
    except InputError as error:
        message = str(error)
        assert "pip install" in message or "weights are not on this machine" in message
        assert "\n" not in message


def test_an_unknown_peer_is_refused():
    with pytest.raises(InputError, match="'CatBost' is unknown: choose one of CatBoost"):
        Peer("CatBost")
