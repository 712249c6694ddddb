"""Rows that are left out together: copies, copies up to rounding, values of many rows."""

import itertools

import numpy as np
import pytest
import torch
from helpers import SAME_EXAMPLES, SHORT_FIT, apart
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from swift_hydra import SwiftHydra
from swift_hydra.cleaning.kernel_expert import KernelExpert
from swift_hydra.cleaning.leave_out import ROUNDING, LeaveOut
from swift_hydra.cleaning.repeats import expected_counts
from swift_hydra.cleaning.suspects import set_aside
from swift_hydra.data.table import as_table
from swift_hydra.detection.evidence import COLUMNS, LOCAL, Evidence, EvidenceColumns
from swift_hydra.detection.full import ScoreCombiner
from swift_hydra.detection.largest_value import AboutColumns
from swift_hydra.detection.sides import CrossFitted
from swift_hydra.detection.trusted_distance import TrustedDistance
from swift_hydra.distillation.student import centres_of, questions
from swift_hydra.geometry import Neighbours, copies

pytestmark = pytest.mark.usefixtures("few_candidates")


@SAME_EXAMPLES
@given(
    d=st.integers(2, 40),
    digits=st.integers(4, 6),
    seed=st.integers(0, 1000),
)
def test_rows_written_with_fewer_digits_are_copies(d, digits, seed):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(60, d))
    group = copies(np.concatenate([X, np.round(X, digits)]), ROUNDING)
    assert (group[:60] == group[60:]).mean() > 0.95
    assert len(np.unique(group)) >= 60  # others stay apart


def test_groups_do_not_depend_on_the_order_of_the_rows():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 5))
    X = np.concatenate([X, X + rng.uniform(-1, 1, X.shape) * ROUNDING / 2])
    order = rng.permutation(len(X))
    group, moved = copies(X, ROUNDING), copies(X[order], ROUNDING)
    together = group[:, None] == group
    assert np.array_equal(together[order][:, order], moved[:, None] == moved)


def test_dense_rows_are_not_all_one_group():
    X = np.random.default_rng(0).normal(size=(50_000, 1))
    group = copies(X, ROUNDING)
    width = [np.ptp(X[group == g]) for g in range(0, group.max(), 997)]
    assert max(width) <= 2 * ROUNDING


def test_a_frequent_value_is_left_out_fold_by_fold():
    rng = np.random.default_rng(0)
    X = np.eye(5)[rng.integers(0, 5, 200)]
    y = (rng.random(200) < 0.2).astype(int)
    leave_out = LeaveOut(X, y, 4, 0)
    assert len(np.unique(leave_out.groups)) == 20
    for group in np.unique(leave_out.groups):
        rows = leave_out.groups == group
        assert len(np.unique(leave_out.folds[rows])) == 1 and len(np.unique(X[rows], axis=0)) == 1


FEW_VALUED = {
    "one-hot of 5": lambda rng: np.eye(5)[rng.integers(0, 5, 150)],
    "integers 0 to 4": lambda rng: rng.integers(0, 5, (150, 1)).astype(float),
    "three binaries": lambda rng: rng.integers(0, 2, (300, 3)).astype(float),
    "mostly zero": lambda rng: np.where(rng.random((200, 6)) < 0.1, rng.normal(size=(200, 6)), 0),
}


@pytest.mark.parametrize("kind", FEW_VALUED)
def test_left_out_scores_know_no_label_where_few_values_are(kind):
    aucs = []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        X = FEW_VALUED[kind](rng)
        y = (rng.permutation(len(X)) < len(X) // 5).astype(int)
        model = SwiftHydra(random_state=seed, trust_normals=True, **SHORT_FIT).fit(X, y)
        aucs.append(roc_auc_score(y, model.decision_scores_))
    assert abs(np.mean(aucs) - 0.5) < 0.07, aucs  # a standard error is .02 to .03


def test_distances_of_codes_know_no_label(monkeypatch):
    """A known anomaly is none of the normals around it: one less is too few (AUC-ROC .69)."""
    aucs = []

    def fit(cls, experts, one_class, y, weight, used):
        aucs.append(roc_auc_score(y, one_class[:, 0]))
        return join(cls, experts, one_class, y, weight, used)

    join = ScoreCombiner.fit.__func__
    monkeypatch.setattr(ScoreCombiner, "fit", classmethod(fit))
    for seed in range(4):
        rng = np.random.default_rng(seed)
        X = rng.integers(0, 5, (300, 3)).astype(float)  # 125 codes
        y = (rng.permutation(300) < 60).astype(int)
        SwiftHydra(random_state=seed, trust_normals=True, **SHORT_FIT).fit(X, y)
    assert abs(np.mean(aucs) - 0.5) < 0.06, aucs  # a standard error is .021


def test_a_table_that_holds_every_row_twice_raises_no_more_alarms():
    alarms = {1: [], 2: []}
    for seed in range(3):
        rng = np.random.default_rng(seed)
        X = rng.normal(size=(100, 5))
        y = (np.arange(100) < 10).astype(int)
        X[y == 1] += 2
        fresh = rng.normal(size=(2000, 5))
        for k, found in alarms.items():
            model = SwiftHydra(random_state=seed, false_alarms=0.05, **SHORT_FIT)
            model.fit(np.repeat(X, k, axis=0), np.repeat(y, k))
            found.append(model.predict(fresh).mean())
    assert np.mean(alarms[2]) < 0.09, alarms  # of 90 normals; .10 to .17 with their own scores


@pytest.mark.parametrize("n_values, own", [(3, False), (2, True)])
def test_rows_of_common_values_are_met_again(n_values, own):
    """Few copies without the row itself, or as many as make the row's own label no matter."""
    flagged = []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        X = rng.integers(0, n_values, (2200, 3)).astype(float)
        y = (rng.random(200) < 0.25).astype(int)
        model = SwiftHydra(random_state=seed, contamination=0.1, **SHORT_FIT).fit(X[:200], y)
        scores = model.decision_function(X[:200])
        assert np.allclose(model.fresh_scores_, scores) == own
        flagged.append(model.predict(X[200:]).mean())
    assert 0.05 < np.mean(flagged) < 0.15, flagged


def frequencies(rng, n, n_texts):
    X = np.empty((n, 3), dtype=object)
    X[:, 0] = [f"merchant{i}" for i in rng.integers(0, n_texts, n)]
    X[:, 1:] = rng.normal(size=(n, 2))
    y = (np.arange(n) < n // 10).astype(int)
    X[y == 1, 1] += 3
    return X, y


@pytest.mark.parametrize("n_texts", [20, 2000])
def test_a_new_text_alone_is_no_anomaly(n_texts):
    rng = np.random.default_rng(0)
    model = SwiftHydra(categorical="frequency", false_alarms=0.05, **SHORT_FIT)
    model.fit(*frequencies(rng, 300, n_texts))
    fresh, y = frequencies(rng, 300, n_texts)
    flagged = model.predict(fresh)
    assert flagged[y == 0].mean() < 0.1
    assert flagged[y == 1].mean() > 0.5


def weekdays(rng, n):
    """Weekends run three higher; an anomaly has the level of the other days."""
    day = rng.integers(0, 7, n)
    y = (np.arange(n) < n // 20).astype(int)
    X = np.empty((n, 2), dtype=object)
    X[:, 0] = rng.normal(size=n) + 3 * ((day >= 5) != (y == 1))
    X[:, 1] = [f"day{i}" for i in day]
    return X, y


@pytest.mark.filterwarnings("ignore:X. column")
@pytest.mark.parametrize("n", [200, 1000])
def test_a_text_has_one_frequency_in_training_and_later(n):
    rng = np.random.default_rng(0)
    X, y = weekdays(rng, n)
    model = SwiftHydra(categorical="frequency", false_alarms=0.05, **SHORT_FIT).fit(X, y)
    fresh, labels = weekdays(rng, 1000)
    codes = {text: set() for text in X[:, 1]}
    for rows in (X, fresh):
        for text, row in zip(rows[:, 1], model.columns_.prepare(as_table(rows, True)), strict=True):
            codes[text].add(row[1])
    assert all(len(each) == 1 for each in codes.values())
    assert model.predict(fresh)[labels == 0].mean() < 0.1


def test_texts_of_one_frequency_are_told_where_there_are_few():
    X, y = weekdays(np.random.default_rng(0), 100)
    X[:, 1] = np.where(np.arange(100) % 2, "north", "south")
    with pytest.warns(UserWarning, match=r"column 'x1' \('north', 'south'\): .* onehot"):
        SwiftHydra(categorical="frequency", **SHORT_FIT).fit(X, y)


def test_templates_are_met_again():
    """Anomalies that are copies of a few rows: a fresh one will be a copy too."""
    flagged = []
    for seed in range(2):
        rng = np.random.default_rng(seed)
        kinds = rng.normal(size=(3, 6))
        X = np.concatenate([rng.normal(size=(720, 6)), kinds[rng.integers(0, 3, 80)]])
        y = (np.arange(800) >= 720).astype(int)
        model = SwiftHydra(random_state=seed, **SHORT_FIT).fit(X, y)
        assert model.labels_[y == 1].mean() > 0.9
        fresh = np.concatenate([rng.normal(size=(1800, 6)), kinds[rng.integers(0, 3, 200)]])
        flagged.append(model.predict(fresh).mean())
    assert np.mean(flagged) < 0.14, flagged  # of .1; .18 to .21 by the copies' left-out scores


@pytest.mark.parametrize("often, size", [(True, 100), (False, 3000)])
def test_rows_of_a_pool_are_met_again_however_few_copies_they_have(often, size):
    """Where most copies are many those of the others are no mistake; else a pair may be one."""
    rng = np.random.default_rng(0)
    row = rng.integers(0, size, 300)
    X = rng.normal(size=(size, 6))[row]
    y = (rng.permutation(len(X)) < len(X) // 5).astype(int)
    given = np.zeros(len(X)), lambda rows: np.ones(len(rows)), y == 0
    met, _ = LeaveOut(X, y, 4, 0).as_fresh(*given)
    copied = np.bincount(row)[row] > 1
    assert copied.any() and np.array_equal(met == 1, copied & often)


@pytest.mark.parametrize("mean", [2.0, 5.0, 12.0])
def test_codes_of_one_frequency_are_expected_alike_however_often_they_were_met(mean):
    counts = np.random.default_rng(0).poisson(mean, 400)
    counts = counts[counts > 0]
    expected = expected_counts(counts)
    assert (np.abs(expected - mean) < 0.25 * mean).mean() > 0.95
    assert (np.abs(counts - mean) < 0.25 * mean).mean() < 0.7
    np.testing.assert_allclose(expected.sum() + (counts == 1).sum(), counts.sum(), rtol=0.05)


def test_what_was_met_once_among_the_once_met_is_not_expected_again():
    expected = expected_counts(np.array([1] * 200 + [3, 160]))
    assert expected[0] < 0.1 and expected[-1] == 160
    assert (np.diff(expected) > 0)[-2:].all()


@pytest.mark.parametrize("n_values", [18, 55])
def test_one_column_of_categories_is_flagged_as_often_as_stated(n_values, tmp_path):
    """Fresh rows are codes that were met; the rare ones among them are so by chance."""
    flagged = []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        X = np.eye(n_values)[rng.integers(0, n_values, 2200)]
        y = (rng.random(200) < 0.25).astype(int)
        model = SwiftHydra(random_state=seed, contamination=0.1, **SHORT_FIT).fit(X[:200], y)
        assert len(model.expected_scores_) == 200
        flagged.append(model.predict(X[200:]).mean())
    assert 0.08 < np.mean(flagged) < 0.13, flagged  # .16 of 55 by the counts as they are
    model.save(tmp_path / "model.pt")
    assert SwiftHydra.load(tmp_path / "model.pt").threshold_ == model.threshold_


def codes(rng, patterns, n, n_anomalies):
    """Normals are rows of few patterns, anomalies any rows of the same values."""
    normal = patterns[rng.integers(0, len(patterns), n)]
    X = np.concatenate([normal, rng.integers(1, 6, (n_anomalies, patterns.shape[1]))])
    return X.astype(np.float64), (np.arange(len(X)) >= n).astype(int)


@pytest.mark.parametrize("n_patterns, least", [(8, 0.98), (40, 0.97), (200, 0.75)])
@pytest.mark.parametrize("known", [True, False])
def test_what_many_normals_are_is_normal(n_patterns, least, known):
    """A fresh row of a code that came before is nearer to the normals than one that never did."""
    rng = np.random.default_rng(0)
    patterns = rng.integers(1, 6, (n_patterns, 8)).astype(np.float64)
    X, y = codes(rng, patterns, 300, 15 if known else 0)
    fresh, labels = codes(rng, patterns, 1000, 300)
    model = SwiftHydra(trust_normals=not known, **SHORT_FIT).fit(X, y)
    scores = model.decision_function(fresh)
    assert roc_auc_score(labels, scores) > least  # .5 to .8 where all copies are left out
    alone = [model.decision_function(fresh[i : i + 1])[0] for i in range(0, 1300, 100)]
    np.testing.assert_allclose(alone, scores[::100], atol=1e-6)


def test_generated_copies_of_an_anomaly_tell_nothing_of_its_label():
    """Whoever leaves a row out leaves out what was generated as its copy (AUC-ROC .62)."""
    aucs = []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        X, y = rng.normal(size=(300, 6)), (rng.permutation(300) < 40).astype(int)
        settings = SHORT_FIT | {"mixture_steps": 150}
        model = SwiftHydra(generator="oversample", random_state=seed, trust_normals=True)
        aucs.append(roc_auc_score(y, model.set_params(**settings).fit(X, y).decision_scores_))
    assert abs(np.mean(aucs) - 0.5) < 0.07, aucs  # a standard error is .025


@pytest.mark.parametrize("times", [2, 3])
@pytest.mark.parametrize("of", ["rounded", "codes", "design"])
def test_a_table_that_was_written_several_times_is_that_table(of, times):
    """Rows that are there once in it stand for new rows; .32 was flagged where .1 was stated."""
    rng = np.random.default_rng(3)
    Z = np.rint(rng.normal(size=(150, 4)) * 1.5)
    if of == "codes":
        Z = rng.binomial(4, 0.3, (150, 6)).astype(float)
    if of == "design":  # no cell of which is new
        Z = np.array(list(itertools.product(range(3), range(4), range(2))), dtype=float)
    y = np.zeros(len(Z), dtype=np.int64)
    copies = np.tile(np.arange(len(Z)), times)
    normal = np.ones(len(copies), dtype=bool)
    once = LeaveOut(Z.astype(np.float32), y, 5, 0)
    more = LeaveOut(Z[copies].astype(np.float32), y[copies], 5, 0)
    met, new = np.zeros(len(Z)), np.ones(len(Z))
    share = []
    for folds, n in ((once, len(Z)), (more, len(copies))):
        sample = folds.as_fresh(np.resize(new, n), lambda rows: met[rows % len(Z)], normal[:n])[1]
        share.append(np.average(sample.score, weights=sample.weight))
    if of == "design":
        assert share[1] == 0
    else:
        assert 0.3 < share[0] < 1 and np.isclose(*share)
        size = np.unique(Z, axis=0, return_inverse=True, return_counts=True)[1:]
        alone = (size[1][size[0].ravel()] == 1)[copies]
        assert not more.coded[alone].any()  # the copies of these are no neighbours of theirs


@pytest.mark.parametrize("without", ["a row", "a fifth", "anomalies"])
def test_a_table_that_was_nearly_written_several_times_is_that_table_too(without):
    """One row less beside its copies, and .44 was flagged where .05 was stated."""
    rng = np.random.default_rng(3)
    Z = np.rint(rng.normal(size=(200, 4)) * 1.5).astype(np.float32)
    y = (np.arange(len(Z)) % 5 == 0).astype(np.int64)
    again = {"a row": np.arange(1, 200), "a fifth": np.arange(40, 200)}
    rows = np.concatenate([np.arange(len(Z)), again.get(without, np.flatnonzero(y == 0))])
    shares = []
    for of in (np.arange(len(Z)), rows):
        folds = LeaveOut(Z[of], y[of], 5, 0)
        met = np.zeros(len(of))
        sample = folds.as_fresh(met + 1, lambda some, met=met: met[some], y[of] == 0)[1]
        shares.append(np.average(sample.score, weights=sample.normal))
    assert 0.3 < shares[0] < 1 and np.isclose(*shares, atol=0.05)


def test_sizes_of_codes_have_no_common_factor_by_chance():
    rng = np.random.default_rng(0)
    y = np.zeros(300, dtype=np.int64)
    for n_codes in (12, 20, 40, 150):
        for seed in range(25):
            Z = rng.integers(n_codes, size=(300, 1)).astype(np.float32)
            assert LeaveOut(Z, y, 5, seed)._written == 1


# --- rows that were written out and read again: copies, though their last digits differ -----------
# What leaves a row out leaves those out too, whoever does it: neighbours, trusted rows, cleaning,
# evidence, kernels.

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


def test_a_left_out_code_is_shown_without_all_of_its_copies():
    """Another row is shown with all others around it; how many copies a code has tells its label"""
    rng = np.random.default_rng(0)
    Z = rng.normal(size=(60, 3)).astype(np.float32)
    Z[:30] = rng.integers(0, 2, size=(30, 3))
    leave_out = LeaveOut(Z, (np.arange(60) % 10 == 0).astype(int), 4, 0)
    coded, folds = leave_out.coded, leave_out.folds
    assert coded.any() and not coded.all()
    c = len(COLUMNS)
    without = np.repeat(np.arange(4.0)[:, None, None], 60, axis=1).repeat(c, axis=2)  # its fold
    columns = EvidenceColumns(np.full((60, c), -1.0), without)
    made = EvidenceColumns(np.zeros((0, c)), np.zeros((4, 0, c)))
    y, none = torch.zeros(60, dtype=torch.int64), np.empty((0, 3), np.float32)
    seen = CrossFitted(Z, columns, y, none, made, leave_out, None, AboutColumns())
    examples = seen.examples(True, COLUMNS[:2])
    evidence = examples.left_out[:, 3:].numpy()
    assert (evidence[~coded] == -1).all() and (examples.X[:, 3:] == -1).all()
    np.testing.assert_array_equal(evidence[coded], np.repeat(folds[coded][:, None], 2, axis=1))
