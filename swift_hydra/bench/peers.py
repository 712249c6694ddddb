"""Other people's detectors, behind ``fit(X, y)`` and ``decision_function(X)``.

Settings are their authors' defaults, with one thread each; only ExtraTrees and RandomForest have
300 trees and logistic regression 2,000 iterations. Methods that compare distances or sizes get rows
standardised by mean and standard deviation and clipped at 5 of these. Trees, methods that use only
the order within columns, and networks with a preparation of their own get the rows unchanged.
Networks whose authors say so get the standardised rows scaled to 0 to 1. Detectors that use no
labels are trained on the rows labelled 0, where they are stronger than on all rows. Under protocols
with few labels there may be anomalies among these. "GMM" is PyOD's, with one Gaussian; PyOD's ECOD
ranks the rows to score together with the training rows.

Every package is imported when its peer is used: ``pip install ".[bench]"``.
"""

import contextlib
import logging
import os
import random
from functools import partial

import numpy as np

from swift_hydra.data.splits import ClippedZScores
from swift_hydra.settings import InputError

N_TREES = 300
NEIGHBOURS = 5


def _catboost(seed, **settings):
    from catboost import CatBoostClassifier

    return CatBoostClassifier(
        random_seed=seed, thread_count=1, verbose=False, allow_writing_files=False, **settings
    )


def _extra_trees(seed, **settings):
    from sklearn.ensemble import ExtraTreesClassifier

    return ExtraTreesClassifier(N_TREES, random_state=seed, n_jobs=1, **settings)


def _random_forest(seed):
    from sklearn.ensemble import RandomForestClassifier

    return RandomForestClassifier(N_TREES, random_state=seed, n_jobs=1)


def _xgboost(seed, **settings):
    from xgboost import XGBClassifier

    return XGBClassifier(random_state=seed, n_jobs=1, **settings)


def _lightgbm(seed, **settings):
    from lightgbm import LGBMClassifier

    return LGBMClassifier(random_state=seed, n_jobs=1, verbose=-1, **settings)


def _tuned(name, make, seed):
    from swift_hydra.bench.tuned_peers import DRAWS, Tuned

    return Tuned(partial(make, seed), DRAWS[name], seed)


def _svc(seed, **settings):
    from sklearn.svm import SVC

    return SVC(random_state=seed, **settings)


def _logistic(seed):
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(max_iter=2000, random_state=seed)


def _mlp(seed, **settings):
    from sklearn.neural_network import MLPClassifier

    return MLPClassifier(random_state=seed, **settings)


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


def _wsad_dt(seed):
    """Dual-tailed kernels (Durani, Nitzl, Plant and Boehm, ICML 2025), the authors' package."""
    from wsad_dt import WSADDT

    # Its five members are seeded with multiples of the seed, which would all be 0.
    return WSADDT(seed=seed + 1)


def _lunar(seed):
    from pyod.models.lunar import LUNAR

    model = LUNAR(random_state=seed, n_jobs=1)
    model.device = "cpu"  # by default it uses a GPU if there is one
    model.network.to("cpu")
    return model


def _kde(seed):
    from pyod.models.kde import KDE

    return KDE()


def _ocsvm(seed):
    from pyod.models.ocsvm import OCSVM

    return OCSVM()


def _gmm(seed):
    from pyod.models.gmm import GMM

    return GMM(random_state=seed)


def _hbos(seed):
    from pyod.models.hbos import HBOS

    return HBOS()


def _cblof(seed):
    from pyod.models.cblof import CBLOF

    return CBLOF(random_state=seed, n_jobs=1)


def _network(name, seed):
    from swift_hydra.bench import deep_peers

    return getattr(deep_peers, name)(seed)


def _tabicl(seed):
    from tabicl import TabICLClassifier

    return TabICLClassifier(random_state=seed, n_jobs=1, device="cpu", allow_auto_download=False)


def _tabpfn(seed):
    # A benchmark cell neither downloads weights nor asks a person to log in.
    os.environ |= {"HF_HUB_OFFLINE": "1", "TABPFN_NO_BROWSER": "1", "TABPFN_DISABLE_TELEMETRY": "1"}
    from tabpfn import TabPFNClassifier

    return TabPFNClassifier(random_state=seed, device="cpu", ignore_pretraining_limits=True)


def _without_lightnings_lines():
    """Silence Lightning, which reports at every fit which processors it did not find."""
    for name in ("pytorch_lightning", "lightning.pytorch", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)


def _realmlp(seed):
    """RealMLP (Holzmueller, Grinsztajn and Steinwart, NeurIPS 2024), its authors' package.

    Its settings are those that the authors tuned on 118 tables; the epoch is chosen on a fifth of
    the rows.
    """
    from pytabkit import RealMLP_TD_Classifier

    _without_lightnings_lines()
    return RealMLP_TD_Classifier(device="cpu", random_state=seed, n_threads=1, verbosity=0)


def _tabm(seed):
    """TabM (Gorishniy, Kotelnikov and Babenko, ICLR 2025), 32 networks that share weights."""
    from pytabkit import TabM_D_Classifier

    _without_lightnings_lines()
    return TabM_D_Classifier(device="cpu", random_state=seed, n_threads=1, verbosity=0)


class NormalNeighbours:
    """The mean distance to the five nearest training normals as the score.

    This is the non-parametric form of DTE (Livernoche et al., ICLR 2024).
    """

    def fit(self, X, y=None):
        from sklearn.neighbors import NearestNeighbors

        self.k = min(NEIGHBOURS, len(X))
        self.search = NearestNeighbors(n_jobs=1).fit(X)
        return self

    def decision_function(self, X):
        return self.search.kneighbors(X, n_neighbors=self.k)[0].mean(1)


class FullRankPCA:
    """PyOD's PCA without directions of zero variance, by which it would divide.

    Args:
        seed: the random state.
    """

    def __init__(self, seed):
        self.seed = seed

    def fit(self, X, y=None):
        from pyod.models.pca import PCA

        size = np.linalg.svd(X - X.mean(0, dtype=np.float64), compute_uv=False)
        least = size.max() * max(X.shape) * np.finfo(np.float32).eps
        rank = max(int((size > least).sum()), 1)
        self.model = PCA(n_components=rank, random_state=self.seed).fit(X)
        return self

    def decision_function(self, X):
        return self.model.decision_function(X)


@contextlib.contextmanager
def _random_state_kept():
    """Restore the global random states afterwards: some packages seed them or draw from them."""
    import torch

    numpys = np.random.get_bit_generator()
    before = numpys.state
    pythons = random.getstate()
    deterministic = torch.are_deterministic_algorithms_enabled()
    cudnn = torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        numpys.state = before
        random.setstate(pythons)
        if torch.are_deterministic_algorithms_enabled() != deterministic:
            torch.use_deterministic_algorithms(deterministic)  # slow: it loads torch's compiler
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = cudnn


# name: (factory, "rows", "scaled" or "unit" input, what it learns from: "labels" or "normals")
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
    "DevNet": (partial(_network, "DevNet"), "unit", "labels"),
    "DeepSAD": (partial(_network, "DeepSAD"), "unit", "labels"),
    "PReNet": (partial(_network, "PReNet"), "unit", "labels"),
    "FeaWAD": (partial(_network, "FeaWAD"), "unit", "labels"),
    "RoSAS": (partial(_network, "RoSAS"), "unit", "labels"),
    "WSAD-DT": (_wsad_dt, "unit", "labels"),
    "CatBoost-tuned": (partial(_tuned, "CatBoost", _catboost), "rows", "labels"),
    "LightGBM-tuned": (partial(_tuned, "LightGBM", _lightgbm), "rows", "labels"),
    "XGBoost-tuned": (partial(_tuned, "XGBoost", _xgboost), "rows", "labels"),
    "ExtraTrees-tuned": (partial(_tuned, "ExtraTrees", _extra_trees), "rows", "labels"),
    "SVC-tuned": (partial(_tuned, "SVC", _svc), "scaled", "labels"),
    "MLP-tuned": (partial(_tuned, "MLP", _mlp), "scaled", "labels"),
    "RealMLP": (_realmlp, "rows", "labels"),
    "TabM": (_tabm, "rows", "labels"),
    "TabICL": (_tabicl, "rows", "labels"),
    "TabPFN": (_tabpfn, "rows", "labels"),
    "kNN": (lambda seed: NormalNeighbours(), "scaled", "normals"),
    "LOF": (_lof, "scaled", "normals"),
    "IsolationForest": (_isolation_forest, "rows", "normals"),
    "ECOD": (_ecod, "rows", "normals"),
    "LUNAR": (_lunar, "scaled", "normals"),
    "KDE": (_kde, "scaled", "normals"),
    "PCA": (FullRankPCA, "scaled", "normals"),
    "OCSVM": (_ocsvm, "scaled", "normals"),
    "GMM": (_gmm, "scaled", "normals"),
    "HBOS": (_hbos, "scaled", "normals"),
    "CBLOF": (_cblof, "scaled", "normals"),
    "DDAE": (partial(_network, "DDAE"), "scaled", "normals"),
}
# These need weights that no package contains: not part of the default group.
FOUNDATION = ("TabICL", "TabPFN")
TABULAR = ("RealMLP", "TabM")  # general networks for tables
NOT_IN_BENCH = (*FOUNDATION, *TABULAR)  # the extra "bench" does not install their packages
TUNED = tuple(name for name in PEERS if name.endswith("-tuned"))
SKLEARN_SIGN = ("LOF", "IsolationForest")  # scikit-learn's outlier detectors score normals higher


class Peer:
    """One detector of ``PEERS`` with this project's conventions.

    1 marks anomalies, and a higher score is more anomalous.

    Args:
        name: a key of ``PEERS``.
        seed: the random state.

    Attributes:
        n_scored: how many settings were scored on all folds; only of peers in ``TUNED``.

    Raises:
        InputError: for an unknown name.
    """

    def __init__(self, name, seed=0):
        if name not in PEERS:
            raise InputError(f"peer {name!r} is unknown: choose one of {', '.join(PEERS)}")
        self.name = name
        self.seed = seed

    def import_package(self):
        """Import the peer's package, so that the time of a fit does not include this."""
        factory, *_ = PEERS[self.name]
        with contextlib.suppress(Exception), _random_state_kept():  # fit reports errors
            factory(self.seed)

    def fit(self, X, y):
        """Train on labelled rows.

        Args:
            X: rows (n, d).
            y: labels (n,) of 0 and 1, where 0 may hide anomalies; -1 (unlabelled) is taken as 0.
                There must be a 0, and for a peer that learns from labels a 1.

        Returns:
            Itself.

        Raises:
            InputError: the labels lack a class that the peer needs, its package is missing, or the
                weights of a foundation model are not on this machine.
        """
        factory, rows, learns_from = PEERS[self.name]
        X = np.asarray(X)
        y = np.maximum(np.asarray(y).astype(np.int64), 0)
        if not (y == 0).any():
            raise InputError(f"{self.name} needs a row labelled 0")
        if learns_from == "labels" and not (y == 1).any():
            raise InputError(f"{self.name} needs a known anomaly")
        self.scaler = None if rows == "rows" else ClippedZScores(X)
        self.range = None
        if rows == "unit":
            Z = self.scaler(X)
            self.range = Z.min(0), Z.max(0)
        X = self._rows(X)
        try:
            with _random_state_kept():
                self.model = factory(self.seed)
                if learns_from == "normals":
                    self.model.fit(X[y == 0])
                else:
                    self.model.fit(X, y)
        except ImportError as error:
            raise InputError(
                f"{self.name} needs the package {error.name}: pip install '.[bench]'"
                + (f", and pip install {error.name}" if self.name in NOT_IN_BENCH else "")
            ) from None
        except Exception as error:
            if self.name not in FOUNDATION:
                raise
            reason = " ".join(str(error).split())[:200]
            raise InputError(
                f"{self.name}: its weights are not on this machine, or it does not run here "
                f"({type(error).__name__}: {reason}): download them once, see its own page"
            ) from None
        if self.name in TUNED:
            self.n_scored = self.model.n_scored
        return self

    def decision_function(self, X):
        """Scores (n,) of rows X (n, d)."""
        X = self._rows(np.asarray(X))
        with _random_state_kept():
            if not hasattr(self.model, "decision_function"):
                return np.asarray(self.model.predict_proba(X), dtype=np.float64)[:, 1]
            score = np.asarray(self.model.decision_function(X), dtype=np.float64)
        score = score.reshape(len(X), -1)[:, -1]  # (n,); some return one column, some two
        return -score if self.name in SKLEARN_SIGN else score

    def _rows(self, X):
        if self.scaler is None:
            return X
        X = self.scaler(X)
        if self.range is None:
            return X
        low, high = self.range
        return (X - low) / np.where(high > low, high - low, 1)
