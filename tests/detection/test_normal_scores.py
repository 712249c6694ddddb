"""Normal scores of ranks (M11)."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from swift_hydra.cleaning.kernel_expert import KernelExpert
from swift_hydra.cleaning.leave_out import LeaveOut
from swift_hydra.detection.normal_scores import POINTS, NormalScores


def test_they_are_normal_and_nearly_the_ranks():
    Z = np.random.default_rng(0).exponential(size=(2000, 2)).astype(np.float32)
    scores = NormalScores.fit(Z)(Z)
    assert abs(scores.mean()) < 0.02 and abs(scores.std() - 1) < 0.05
    for column, given in zip(Z.T, scores.T, strict=True):
        assert np.all(np.diff(given[np.argsort(column)]) >= 0)


@pytest.mark.parametrize("n", [3, 50, POINTS, 1000])
def test_equal_values_share_the_middle_of_their_ranks(n):
    Z = np.repeat([[0.0, 1.0], [2.0, 1.0]], [n // 2, n - n // 2], axis=0)
    low, high = NormalScores.fit(Z)(np.array([[0.0, 1.0], [2.0, 1.0]]))
    assert low[0] < 0 < high[0] < 1 and low[0] > -1
    assert low[1] == high[1] == 0  # a constant says nothing


def test_order_is_kept_beyond_all_that_was_seen():
    Z = np.linspace(-1, 1, 100)[:, None]
    rows = np.array([[-3.0], [-2.0], [-1.0], [0.0], [1.0], [2.0], [3.0]])
    scores = NormalScores.fit(Z)(rows)[:, 0]
    assert np.all(np.diff(scores) > 0.9)
    assert np.array_equal(NormalScores.fit(Z)(rows[2:3]), scores[2:3, None])


def test_a_kernel_does_not_mind_how_a_column_is_bent():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(400, 4))
    y = (np.abs(X[:, 0] - 0.3) < 0.15).astype(int)
    bent = np.sign(X) * np.expm1(3 * np.abs(X))
    folds = LeaveOut(X, y, 4, 0)
    auc = {}
    for name, inputs in (("values", bent), ("ranks", NormalScores.fit(bent)(bent))):
        scores = KernelExpert("l2").fit(inputs, y, np.random.default_rng(0), 400, folds)
        auc[name] = roc_auc_score(y, scores)
    assert auc["ranks"] > auc["values"] + 0.1
