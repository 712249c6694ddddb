"""Other people's detectors, behind ``fit(X, y)`` and ``decision_function(X)``.

Settings are their authors' defaults, one thread each; only the forests have 300 trees and logistic
regression 2,000 iterations. Methods that compare distances or sizes get the same standardised,
clipped rows as this project's detector, trees get the rows as they are. Detectors that take no
labels learn from the training rows labelled normal, which is the stronger use of them.

Every package is imported when its peer is used: ``pip install ".[bench]"``.
"""

import os

import numpy as np

from swift_hydra.data.splits import ClippedZScores
from swift_hydra.settings import InputError

N_TREES = 300
NEIGHBOURS = 5


def _catboost(seed):
    from catboost import CatBoostClassifier

    return CatBoostClassifier(
        random_seed=seed, thread_count=1, verbose=False, allow_writing_files=False
    )


def _extra_trees(seed):
    from sklearn.ensemble import ExtraTreesClassifier

    return ExtraTreesClassifier(N_TREES, random_state=seed, n_jobs=1)


def _random_forest(seed):
    from sklearn.ensemble import RandomForestClassifier

    return RandomForestClassifier(N_TREES, random_state=seed, n_jobs=1)


def _xgboost(seed):
    from xgboost import XGBClassifier

    return XGBClassifier(random_state=seed, n_jobs=1)


def _lightgbm(seed):
    from lightgbm import LGBMClassifier

    return LGBMClassifier(random_state=seed, n_jobs=1, verbose=-1)


def _svc(seed):
    from sklearn.svm import SVC

    return SVC(random_state=seed)


def _logistic(seed):
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(max_iter=2000, random_state=seed)


def _mlp(seed):
    from sklearn.neural_network import MLPClassifier

    return MLPClassifier(random_state=seed)


def _lof(seed):
    from sklearn.neighbors import LocalOutlierFactor

    return LocalOutlierFactor(novelty=True, n_jobs=1)


def _isolation_forest(seed):
    from sklearn.ensemble import IsolationForest

    return IsolationForest(random_state=seed, n_jobs=1)


def _ecod(seed):
    from pyod.models.ecod import ECOD

    return ECOD(n_jobs=1)


def _xgbod(seed):
    from pyod.models.xgbod import XGBOD

    return XGBOD(random_state=seed, n_jobs=1)


def _tabicl(seed):
    from tabicl import TabICLClassifier

    return TabICLClassifier(random_state=seed, n_jobs=1, device="cpu", allow_auto_download=False)


def _tabpfn(seed):
    # A benchmark cell neither downloads weights nor asks a person to log in.
    os.environ |= {"HF_HUB_OFFLINE": "1", "TABPFN_NO_BROWSER": "1", "TABPFN_DISABLE_TELEMETRY": "1"}
    from tabpfn import TabPFNClassifier

    return TabPFNClassifier(random_state=seed, device="cpu", ignore_pretraining_limits=True)


class NormalNeighbours:
    """Mean distance to the five nearest training normals.

    DTE's non-parametric form (Livernoche et al., ICLR 2024).
    """

    def fit(self, X, y=None):
        from sklearn.neighbors import NearestNeighbors

        self.k = min(NEIGHBOURS, len(X))
        self.search = NearestNeighbors(n_jobs=1).fit(X)
        return self

    def decision_function(self, X):
        return self.search.kneighbors(X, n_neighbors=self.k)[0].mean(1)


class DevNet:
    """Deviation network (Pang, Shen and van den Hengel, KDD 2019), in its authors' settings.

    One hidden layer of 20 units; a normal row's score shall deviate little from 5,000 draws of
    N(0, 1), an anomaly's by five standard deviations at least. PyOD carries a version too; it
    scored .07 where logistic regression has .98 (cardio, *seen*), so that it would be no fair peer.

    Args:
        seed: of the weights and the batches.
    """

    MARGIN = 5.0
    HIDDEN = 20
    BATCH = 512
    EPOCHS = 50
    BATCHES = 20  # of an epoch

    def __init__(self, seed):
        self.seed = seed

    def fit(self, X, y):
        import torch
        import torch.nn.functional as F

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            self.net = torch.nn.Sequential(
                torch.nn.Linear(X.shape[1], self.HIDDEN),
                torch.nn.ReLU(),
                torch.nn.Linear(self.HIDDEN, 1),
            )
            X = torch.from_numpy(X)  # (n, d)
            half = self.BATCH // 2  # normals first, anomalies after them
            groups = [torch.from_numpy(np.flatnonzero(y == label)) for label in (0, 1)]
            optimiser = torch.optim.RMSprop(self.net.parameters(), lr=1e-3, weight_decay=0.01)
            for _ in range(self.EPOCHS * self.BATCHES):
                rows = torch.cat(
                    [group[torch.randint(len(group), (half,))] for group in groups]
                )  # (B,)
                reference = torch.randn(5000)
                deviation = (self.net(X[rows])[:, 0] - reference.mean()) / reference.std()  # (B,)
                loss = deviation[:half].abs().mean() + F.relu(self.MARGIN - deviation[half:]).mean()
                optimiser.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
                optimiser.step()
        return self

    def decision_function(self, X):
        import torch

        with torch.no_grad():
            return self.net(torch.from_numpy(X))[:, 0].double().numpy()


# name: (factory, "rows" or "scaled" input, what it learns from: "labels" or "normals")
PEERS = {
    "CatBoost": (_catboost, "rows", "labels"),
    "ExtraTrees": (_extra_trees, "rows", "labels"),
    "RandomForest": (_random_forest, "rows", "labels"),
    "XGBoost": (_xgboost, "rows", "labels"),
    "LightGBM": (_lightgbm, "rows", "labels"),
    "SVC": (_svc, "scaled", "labels"),
    "LogisticRegression": (_logistic, "scaled", "labels"),
    "MLP": (_mlp, "scaled", "labels"),
    "XGBOD": (_xgbod, "scaled", "labels"),
    "DevNet": (DevNet, "scaled", "labels"),
    "TabICL": (_tabicl, "rows", "labels"),
    "TabPFN": (_tabpfn, "rows", "labels"),
    "kNN": (lambda seed: NormalNeighbours(), "scaled", "normals"),
    "LOF": (_lof, "scaled", "normals"),
    "IsolationForest": (_isolation_forest, "scaled", "normals"),
    "ECOD": (_ecod, "scaled", "normals"),
}
# These need weights that no package carries: not part of the default group.
FOUNDATION = ("TabICL", "TabPFN")
SKLEARN_SIGN = ("LOF", "IsolationForest")  # scikit-learn's outlier detectors score normals higher


class Peer:
    """One detector of ``PEERS`` with this project's conventions.

    1 marks anomalies, and a higher score is more anomalous.

    Args:
        name: a key of ``PEERS``.
        seed: its random state.

    Raises:
        InputError: for an unknown name.
    """

    def __init__(self, name, seed=0):
        if name not in PEERS:
            raise InputError(f"peer {name!r} is unknown: choose one of {', '.join(PEERS)}")
        self.name = name
        self.seed = seed

    def fit(self, X, y):
        """Train on labelled rows.

        Args:
            X: rows (n, d).
            y: labels (n,) of 0 and 1; -1, unlabelled, is taken as 0.

        Returns:
            Itself.

        Raises:
            InputError: with the pip line when its package is missing, or with a plain word when
                the weights of a foundation model are not on this machine.
        """
        factory, rows, learns_from = PEERS[self.name]
        X = np.asarray(X)
        y = np.maximum(np.asarray(y).astype(np.int64), 0)
        self.scaler = ClippedZScores(X) if rows == "scaled" else None
        X = self._rows(X)
        try:
            self.model = factory(self.seed)
            if learns_from == "normals":
                self.model.fit(X[y == 0])
            else:
                self.model.fit(X, y)
        except ImportError as error:
            raise InputError(
                f"{self.name} needs the package {error.name}: pip install '.[bench]'"
                + (f", and pip install {error.name}" if self.name in FOUNDATION else "")
            ) from None
        except Exception as error:
            if self.name not in FOUNDATION:
                raise
            reason = " ".join(str(error).split())[:200]
            raise InputError(
                f"{self.name}: its weights are not on this machine, or it does not run here "
                f"({type(error).__name__}: {reason}): download them once, see its own page"
            ) from None
        return self

    def decision_function(self, X):
        """Scores (n,) of rows X (n, d)."""
        X = self._rows(np.asarray(X))
        if hasattr(self.model, "decision_function"):
            score = np.asarray(self.model.decision_function(X), dtype=np.float64)
            score = score.reshape(len(X), -1)[:, -1]  # (n,); some give a column, some two
            return -score if self.name in SKLEARN_SIGN else score
        return np.asarray(self.model.predict_proba(X), dtype=np.float64)[:, 1]

    def _rows(self, X):
        return X if self.scaler is None else self.scaler(X)
