"""Rows that were written out and read again: copies, though their last digits differ.

What leaves a row out leaves those out too, whoever does it: neighbours, trusted rows, cleaning,
evidence, kernels.
"""

import numpy as np
import pytest
from helpers import SHORT_FIT, apart
from sklearn.metrics import roc_auc_score

from swift_hydra import SwiftHydra
from swift_hydra.cleaning.kernel_expert import KernelExpert
from swift_hydra.cleaning.leave_out import LeaveOut
from swift_hydra.cleaning.suspects import set_aside
from swift_hydra.detection.evidence import COLUMNS, LOCAL, Evidence
from swift_hydra.detection.trusted_distance import TrustedDistance
from swift_hydra.distillation.student import centres_of, questions
from swift_hydra.geometry import ROUNDING, Neighbours, copies

pytestmark = pytest.mark.usefixtures("few_candidates")

WRITTEN = {
    "exact": lambda X, rng: X,
    "six digits": lambda X, rng: np.vectorize(lambda value: float(f"{value:.6g}"))(X),
    "noise": lambda X, rng: X + 1e-6 * rng.normal(size=X.shape),
    "four decimals": lambda X, rng: X.round(4),
}


@pytest.mark.parametrize("kind", WRITTEN)
def test_trusted_rows_written_twice_raise_no_more_alarms(kind):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 5))
    X = np.concatenate([X, WRITTEN[kind](X, rng)])
    model = SwiftHydra(trust_normals=True, false_alarms=0.05, **SHORT_FIT | {"n_synthetic": 5})
    model.fit(X, np.zeros(len(X)))
    assert model.predict(rng.normal(size=(2000, 5))).mean() < 0.12  # .4 to 1.0 with its own copies


@pytest.mark.parametrize("kind", WRITTEN)
def test_a_rows_own_copies_are_none_of_its_neighbours(kind):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 5)).astype(np.float32)
    twice = np.concatenate([X, WRITTEN[kind](X, rng)]).astype(np.float32)
    alone = Neighbours(X).mean_distance(X, 1, others=True)
    assert np.allclose(Neighbours(twice).mean_distance(X, 1, others=True), alone, atol=2e-4)


@pytest.mark.parametrize("n_copies", [2, 4, 6, 40])
def test_however_often_a_row_is_written_it_is_one_group(n_copies):
    rng = np.random.default_rng(0)
    X = np.repeat(rng.normal(size=(2000 // n_copies, 8)), n_copies, axis=0)
    group = copies(X + rng.uniform(-1, 1, X.shape) * ROUNDING / 12, ROUNDING)
    wanted = np.arange(len(X)) // n_copies
    assert (
        len(np.unique(group)) == len(np.unique(wanted)) == len(set(zip(group, wanted, strict=True)))
    )


def test_one_dense_cluster_does_not_part_the_other_copies():
    rng = np.random.default_rng(0)
    X = np.repeat(rng.normal(size=(900, 2)), 2, axis=0)
    X = np.concatenate([X, np.zeros((200, 2))]) + rng.uniform(-1, 1, (2000, 2)) * ROUNDING / 12
    group = copies(X, ROUNDING)
    assert (group[0:1800:2] == group[1:1800:2]).mean() > 0.99
    assert len(np.unique(group[1800:])) == 1


@pytest.mark.parametrize("n_copies", [4, 7])  # of seven all five nearest rows are copies
def test_left_out_scores_know_no_label_of_rows_written_again(n_copies):
    rng = np.random.default_rng(0)
    X = np.repeat(rng.normal(size=(150, 10)), n_copies, axis=0)
    X += rng.uniform(-1e-5, 1e-5, X.shape)
    y = np.repeat(rng.random(150) < 0.2, n_copies).astype(int)
    model = SwiftHydra(trust_normals=True, false_alarms=0.1, **SHORT_FIT).fit(X, y)
    assert 0.35 < roc_auc_score(y, model.decision_scores_) < 0.65  # up to 1 of parted copies
    assert 0.03 < model.predict(rng.normal(size=(2000, 10))).mean() < 0.25  # 1.00


def test_of_jittered_codes_a_training_row_lacks_itself_alone():
    rng = np.random.default_rng(0)
    templates = rng.normal(size=(5, 6))
    X = np.concatenate([np.repeat(templates, 20, axis=0), rng.normal(size=(200, 6))])
    X = (X + rng.uniform(-1e-5, 1e-5, X.shape)).astype(np.float32)
    coded = np.arange(300) < 100
    folds = np.arange(300) % 4
    given = ([lambda Z: np.ones(len(Z))], np.zeros(300, dtype=int), rng, 4096)
    _, columns = Evidence.fit(X, np.zeros(300, dtype=int), apart(folds, coded), *given)
    knn5 = columns.all[:, COLUMNS.index("knn5")]
    assert knn5[coded].max() < knn5[~coded].min()  # its other nineteen copies are around it


def test_a_row_beyond_the_centres_is_not_scored_by_its_copy():
    rng = np.random.default_rng(0)
    Z = np.repeat(rng.normal(size=(750, 8)), 4, axis=0)
    y = np.repeat(rng.random(750) < 0.2, 4).astype(int)
    scores = KernelExpert("l2").fit(Z, y, rng, 400, LeaveOut(Z, y, 4, 0))
    assert 0.4 < roc_auc_score(y, scores) < 0.6  # .67


@pytest.mark.parametrize("noise", [0, 1e-5])
def test_hidden_anomalies_are_found_where_rows_are_written_twice(noise):
    rng = np.random.default_rng(1)
    X = rng.normal(size=(600, 6))
    X[540:] = X[540:] * 0.3 + [4, 4, 0, 0, 0, 0]
    y = np.zeros(600, dtype=int)
    y[540:555] = 1
    Z = np.concatenate([X, X + noise * rng.uniform(-1, 1, X.shape)]).astype(np.float32)
    cleaned = set_aside(Z, np.concatenate([y, y]), None, 1)
    hidden = np.tile(np.arange(600) >= 555, 2)
    assert (~cleaned.kept[hidden]).mean() > 0.4  # none of them where copies keep them company
    assert (~cleaned.kept[~hidden]).mean() < 0.02


def test_evidence_of_a_row_is_the_same_in_training_and_after():
    rng = np.random.default_rng(0)
    normals = np.repeat(rng.normal(size=(10, 4)), 30, axis=0)
    anomalies = np.repeat(rng.normal(size=(4, 4)) + 3, 8, axis=0)
    X = np.concatenate([normals, anomalies])
    X = (X + rng.uniform(-1e-5, 1e-5, X.shape)).astype(np.float32)
    y = (np.arange(len(X)) >= 300).astype(int)
    folds = LeaveOut(X, y, 4, 0).folds

    def residual(Z):
        return np.abs(Z[:, 0]).astype(np.float64)

    given = ([residual, residual], folds % 2, rng, 4096)
    evidence, columns = Evidence.fit(X, y, apart(folds), *given)
    local = [COLUMNS.index(name) for name in LOCAL]
    again = evidence.transform(X)
    assert np.allclose(columns.all[:, local], again[:, local], atol=0.05)


def test_trusted_rows_are_scored_alone_as_together():
    rng = np.random.default_rng(0)
    for d in (1, 3, 5, 12):
        Z = rng.normal(size=(300, d)).astype(np.float32)
        near = TrustedDistance.fit(Z, rng)
        together = near.score(Z)
        for size in (1, 2, 7, 100):
            for start in (0, 5, 150):
                part = slice(start, start + size)
                assert np.array_equal(near.score(Z[part]), together[part])


def test_no_centre_is_a_row_that_was_written_twice():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 4))
    Z = np.concatenate([X, X + 1e-6]).astype(np.float32)
    centres = centres_of(Z, 64, np.random.default_rng(0))
    apart = np.abs(centres[:, None] - Z).max(axis=2).min(axis=1)
    assert apart.min() > 10 * ROUNDING


def test_no_question_is_a_training_row():
    rng = np.random.default_rng(0)
    Z = rng.normal(size=(200, 5)).astype(np.float32)
    asked = questions(Z, np.zeros(200, dtype=int), Z[:0], rng)
    known = {row.tobytes() for row in Z}
    # A mix-up may have all its weight on one row; .17 of whole swaps before.
    assert np.mean([row.tobytes() in known for row in asked]) < 0.03
