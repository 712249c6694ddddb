"""Classifiers with tuned settings, so that a comparison is not only with their defaults."""

import time

import numpy as np
from sklearn.metrics import average_precision_score
from sklearn.model_selection import StratifiedKFold

# CPU seconds for a search: one and a half times those of a fit of this project's detector.
BUDGET_SECONDS = 10.0
MOST_DRAWS = 200  # which a small table reaches within the budget
FOLDS = 3


def between(rng, low, high):
    """A log-uniform draw."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def draw_catboost(rng, imbalance):
    """Settings of a ``CatBoostClassifier``."""
    weights = rng.choice(["None", "SqrtBalanced", "Balanced"])
    return {
        "iterations": int(rng.choice([100, 200, 400])),
        "learning_rate": between(rng, 0.02, 0.3),
        "depth": int(rng.integers(3, 9)),
        "l2_leaf_reg": between(rng, 1.0, 30.0),
        "bootstrap_type": "Bernoulli",
        "subsample": float(rng.uniform(0.6, 1.0)),
        "rsm": float(rng.uniform(0.5, 1.0)),
        "auto_class_weights": None if weights == "None" else str(weights),
    }


def draw_lightgbm(rng, imbalance):
    """Settings of an ``LGBMClassifier``; ``imbalance`` is normal rows per anomaly."""
    return {
        "n_estimators": int(rng.choice([50, 100, 200, 400])),
        "learning_rate": between(rng, 0.02, 0.2),
        "num_leaves": round(between(rng, 4, 64)),
        "min_child_samples": round(between(rng, 5, 50)),
        "reg_lambda": between(rng, 1e-3, 10.0),
        "subsample": float(rng.uniform(0.6, 1.0)),
        "subsample_freq": 1,
        "colsample_bytree": float(rng.uniform(0.5, 1.0)),
        "scale_pos_weight": between(rng, 1.0, max(imbalance, 1.0) ** 0.5),
    }


def draw_xgboost(rng, imbalance):
    """Settings of an ``XGBClassifier``."""
    return {
        "n_estimators": int(rng.choice([50, 100, 200, 400])),
        "learning_rate": between(rng, 0.02, 0.3),
        "max_depth": int(rng.integers(2, 9)),
        "min_child_weight": between(rng, 0.3, 10.0),
        "reg_lambda": between(rng, 0.1, 10.0),
        "subsample": float(rng.uniform(0.6, 1.0)),
        "colsample_bytree": float(rng.uniform(0.5, 1.0)),
        "scale_pos_weight": between(rng, 1.0, max(imbalance, 1.0) ** 0.5),
    }


def draw_extra_trees(rng, imbalance):
    """Settings of an ``ExtraTreesClassifier``."""
    return {
        "max_features": float(rng.uniform(0.1, 1.0)),
        "min_samples_leaf": round(between(rng, 1, 20)),
        "criterion": str(rng.choice(["gini", "entropy"])),
        "class_weight": [None, "balanced"][rng.integers(2)],
    }


def draw_svc(rng, imbalance):
    """Settings of an ``SVC``."""
    return {
        "C": between(rng, 1e-2, 1e3),
        "gamma": between(rng, 1e-4, 1.0),
        "class_weight": [None, "balanced"][rng.integers(2)],
    }


def draw_mlp(rng, imbalance):
    """Settings of an ``MLPClassifier``."""
    width = int(rng.choice([32, 64, 128, 256]))
    return {
        "hidden_layer_sizes": (width,) * int(rng.integers(1, 4)),
        "alpha": between(rng, 1e-6, 1.0),
        "learning_rate_init": between(rng, 3e-4, 1e-2),
        "batch_size": int(rng.choice([32, 64, 128])),
        "max_iter": int(rng.choice([50, 100, 200])),
    }


DRAWS = {
    "CatBoost": draw_catboost,
    "LightGBM": draw_lightgbm,
    "XGBoost": draw_xgboost,
    "ExtraTrees": draw_extra_trees,
    "SVC": draw_svc,
    "MLP": draw_mlp,
}


def scores_of(model, X):
    """Scores (n,) of rows X (n, d): the decision function, or else probabilities of class 1."""
    if hasattr(model, "decision_function"):
        return model.decision_function(X)
    return model.predict_proba(X)[:, 1]


class Tuned:
    """A classifier with the best of its default and randomly drawn settings, refitted on all rows.

    Settings are compared by the mean average precision over stratified folds, at most three and no
    more than a class has rows; the defaults come first. Drawing ends after ``MOST_DRAWS`` settings
    or about ``BUDGET_SECONDS`` of CPU time of this process. Between folds a setting is given up if
    it can no longer be the best, or if the time is over. With fewer than two rows of a class the
    defaults are used. The same seed draws the same settings, but how many are tried depends on the
    machine.

    Args:
        make: a function of settings (keyword arguments) that returns an unfitted classifier.
        draw: a function of numpy's Generator and the number of normal rows per anomaly that returns
            settings.
        seed: seed of the draws and the folds.

    Attributes:
        settings: dict of the chosen settings that differ from the defaults.
        n_scored: number of settings scored on all folds.
    """

    def __init__(self, make, draw, seed):
        self.make = make
        self.draw = draw
        self.seed = seed

    def fit(self, X, y):
        """Search, then train on rows X (n, d) with labels y (n,) of 0 and 1. Returns itself."""
        self.settings, self.n_scored = self._search(X, y)
        self.model = self.make(**self.settings).fit(X, y)
        return self

    def decision_function(self, X):
        """Scores (n,) of rows X (n, d), see :func:`scores_of`."""
        return scores_of(self.model, X)

    def _search(self, X, y):
        end = time.process_time() + BUDGET_SECONDS
        n_folds = min(FOLDS, int((y == 1).sum()), int((y == 0).sum()))
        if n_folds < 2:
            return {}, 0
        split = StratifiedKFold(n_folds, shuffle=True, random_state=self.seed)
        folds = list(split.split(X, y))
        rng = np.random.default_rng(self.seed)
        imbalance = (y == 0).sum() / (y == 1).sum()
        best, highest, n_scored = {}, -1.0, 0
        for i in range(MOST_DRAWS + 1):
            settings = self.draw(rng, imbalance) if i else {}
            total = self._score(settings, (X, y), folds, (highest, end))
            n_scored += total is not None
            if total is not None and total > highest:
                best, highest = settings, total
            if time.process_time() > end:
                break
        return best, n_scored

    def _score(self, settings, rows, folds, limits):
        """Sum of the folds' average precisions; None if it cannot be the best or the time is over.

        Args:
            settings: dict.
            rows: X (n, d) and y (n,).
            folds: pairs of index arrays, one for training and one for scoring.
            limits: the sum to beat, and the CPU time at which the search ends.
        """
        X, y = rows
        highest, end = limits
        total = 0.0
        for i, (train, held) in enumerate(folds):
            possible = total + len(folds) - i
            if possible <= highest or time.process_time() > end:
                return None
            model = self.make(**settings).fit(X[train], y[train])
            total += average_precision_score(y[held], scores_of(model, X[held]))
        return total
