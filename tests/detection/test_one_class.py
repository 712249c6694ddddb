"""Distances where nothing is known: of trusted rows, and of rows that may hide anomalies."""

import numpy as np
import pytest
import torch
from helpers import SHORT_FIT
from sklearn.metrics import average_precision_score, roc_auc_score

from swift_hydra import SwiftHydra
from swift_hydra.cleaning.leave_out import LeaveOut
from swift_hydra.cleaning.suspects import AsideRows, set_aside
from swift_hydra.data.scaler import ColumnScaler, without_themselves
from swift_hydra.data.subjects import from_zero_beside
from swift_hydra.detection.coordinates import NormalScores, Whitening
from swift_hydra.detection.largest_value import AboutColumns, GapCounts, LargestValue
from swift_hydra.detection.tolerant_distance import (
    FOLDS,
    LOCAL,
    LONE,
    DistanceExcess,
    LocalExcess,
    Relations,
    TolerantDistance,
)
from swift_hydra.detection.trusted_distance import TrustedDistance
from swift_hydra.geometry import Neighbours, bend, folds_by_value

FLAG = float(bend(1.0))  # a column of 0 and 1 keeps its unit

pytestmark = pytest.mark.usefixtures("few_candidates")


@pytest.mark.parametrize("copies", [1, 3])
def test_a_row_left_out_is_one_that_the_whitening_never_had(copies):
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(60, 25)) @ rng.normal(size=(25, 25))
    rows = np.concatenate([rows, np.repeat(rows[:1], copies - 1, axis=0)])
    others = rows[1:60]
    own = np.zeros((1, len(rows)), dtype=bool)
    own[0, [0, *range(60, len(rows))]] = True
    all_of_them = Whitening(rows)
    left_out = all_of_them.without(rows[:1], own)

    def length(v):
        w = all_of_them(v)
        along = (w * left_out.own_direction).sum()
        return (w.square().sum() + left_out.weight[0] * along.square()) * left_out.factor[0]

    probes = [*rng.normal(size=(5, 1, 25)), rows[:1] - others.mean(0)]
    for v in probes:
        expected = Whitening(others)(v).square().sum()
        # The ridge is of the mean variance, which the row had a part in.
        torch.testing.assert_close(length(v), expected, rtol=0.05, atol=0)
    assert (
        all_of_them(probes[-1]).square().sum() < 0.8 * Whitening(others)(probes[-1]).square().sum()
    )


@pytest.mark.parametrize("n, d", [(200, 10), (200, 150), (100, 400)])
def test_residuals_of_rows_left_out_are_those_of_fresh_rows(n, d):
    rng = np.random.default_rng(0)
    near = TrustedDistance.fit(rng.normal(size=(n, d)), rng)
    left_out = near.score(near.reference, others=True)
    fresh = near.score(rng.normal(size=(500, d)))
    for mine, theirs in zip(left_out.T, fresh.T, strict=True):
        assert abs(np.median(mine) - np.median(theirs)) < 0.5 * theirs.std()


@pytest.mark.parametrize("d", [10, 60, 150])
def test_alarms_of_trusted_rows_are_the_stated_ones_on_wide_tables(d):
    rng = np.random.default_rng(3)
    model = SwiftHydra(trust_normals=True, false_alarms=0.05, **SHORT_FIT)
    model.fit(rng.normal(size=(200, d)), np.zeros(200, dtype=int))
    fresh = rng.normal(size=(1000, d))
    assert model.predict(fresh).mean() < 0.09
    assert (model.p_values(fresh) <= 0.2).mean() < 0.3


def groups_and_scattered(rng, n):
    """Rows of one large group and three small ones, a twentieth scattered: (n, 6), (n,) bool."""
    group = rng.choice(4, n, p=[0.82, 0.06, 0.06, 0.06])
    centres = np.zeros((4, 6))
    centres[[1, 2, 3], [0, 1, 2]] = 6
    scattered = rng.random(n) < 0.05
    rows = centres[group] + rng.normal(size=(n, 6)) * np.where(scattered, 3.2, 1.0)[:, None]
    return rows, scattered


def without_labels(rows, seed):
    """The distance that judges rows of which nothing is known, and which rows are kept."""
    cleaned = set_aside(rows, np.full(len(rows), -1), None, seed)
    kept = cleaned.kept
    coded = LeaveOut(rows[kept], np.zeros(kept.sum(), dtype=int), 4, seed).coded
    aside = AsideRows.of(rows, None, cleaned)
    return TolerantDistance.fit(rows[kept], np.random.default_rng(seed), coded, None, aside), kept


def test_small_groups_of_normal_rows_that_were_set_aside_are_no_anomalies():
    gains = []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        judge, kept = without_labels(groups_and_scattered(rng, 600)[0], seed)
        fresh, scattered = groups_and_scattered(rng, 1500)
        judge.excesses, judge.local = judge.excesses[:1], None
        whole = average_precision_score(scattered, judge.score(fresh)[:, 0])
        judge.excesses = []
        gains.append(whole - average_precision_score(scattered, judge.score(fresh)[:, 0]))
        assert (~kept).sum() == 90
    assert min(gains) > 0.03, gains


def test_a_tight_group_of_hidden_anomalies_is_not_excused():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(600, 6))
    rows[:30] = 3 + 0.3 * rng.normal(size=(30, 6))
    judge, kept = without_labels(rows, 0)
    scores = judge.score(np.concatenate([rng.normal(size=(500, 6)), rows[:30]]))[:, 0]
    assert not kept[:30].any()
    assert scores[500:].min() > np.quantile(scores[:500], 0.98)


def test_a_row_that_was_set_aside_is_as_isolated_as_if_it_were_new():
    rng = np.random.default_rng(0)
    rows = groups_and_scattered(rng, 400)[0]
    judge, kept = without_labels(rows, 0)
    company = judge.excesses[0]
    all_rows = company.reference
    order = [int(np.flatnonzero((all_rows == row).all(1))[0]) for row in rows[~kept][:10]]
    for row, place in zip(rows[~kept][:10], order, strict=True):
        others = DistanceExcess(
            np.delete(all_rows, place, axis=0), None, None, 5, usual=company.usual
        )
        far = np.log([3.0])
        assert company(row[None], far) == others(row[None], far)


@pytest.mark.parametrize("kind", ["codes", "subjects"])
def test_rows_that_were_set_aside_are_scored_as_if_they_had_not_been_there(kind):
    rng = np.random.default_rng(0)
    rows, subjects = rng.integers(0, 4, size=(300, 3)).astype(float), None
    if kind == "subjects":
        subjects = np.repeat(np.arange(60), 5)
        rows = rng.normal(size=(60, 4))[subjects] + 0.3 * rng.normal(size=(300, 4))
    labels = np.zeros(300, dtype=int)
    cleaned = set_aside(rows, labels - 1, subjects, 0)
    kept = cleaned.kept
    aside = AsideRows.of(rows, subjects, cleaned)
    coded = LeaveOut(rows, labels, 4, 0, subjects).coded
    assert coded[~kept].all() == (kind == "codes")
    beside = from_zero_beside(subjects, kept, kept)
    judge = TolerantDistance.fit(rows[kept], rng, coded[kept], beside, aside)
    judge.relations = judge.local = judge.lone = None  # their own tests are below
    scores = judge.score_aside(aside)[:, 0]
    for i in np.flatnonzero(~kept)[:10]:
        others = np.arange(300) != i if subjects is None else subjects != subjects[i]
        company, ranks = judge.excesses
        alone = DistanceExcess(rows[others], coded[others], None, company.k, usual=company.usual)
        folds = folds_by_value(aside.Z, FOLDS) if subjects is None else aside.subjects % FOLDS
        own = ranks.apart[folds[(~kept)[:i].sum()]].ranks  # without the row's fold
        mine = own(rows[kept & others]), coded[kept & others]
        ranked = DistanceExcess(*mine, None, ranks.k, own, ranks.usual)
        as_new = TolerantDistance(rows[kept & others], excesses=[alone, ranked])
        as_new = as_new.score(rows[i : i + 1])
        np.testing.assert_allclose(scores[(~kept)[:i].sum()], as_new[0, 0], rtol=1e-9)


def test_alarms_are_the_stated_ones_where_codes_were_set_aside():
    short = {"generator": "none", "cvae_steps": 1, "false_alarms": 0.05}
    flagged = []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        rows = rng.integers(0, 4, size=(300, 4)).astype(float)
        model = SwiftHydra(random_state=seed, **short).fit(rows)
        flagged.append(model.predict(rng.integers(0, 4, size=(2000, 4)).astype(float)).mean())
        assert (model.labels_ == model.predict(rows))[~model.kept_].all()
    assert np.mean(flagged) < 0.062, flagged


def test_copies_do_not_bend_what_is_usual():
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 3, size=(500, 3)).astype(float)
    judge, _ = without_labels(codes, 0)
    for excess in judge.excesses:
        _, height, slope = excess.usual
        assert np.isfinite([height, slope]).all() and 0 <= slope < 3 and height > -9
    odd = judge.score(np.array([[7.0, 7.0, 7.0]]))[0, 0]
    assert odd > judge.score(codes).max()


def test_heavy_tails_of_one_column_do_not_hide_what_is_odd_in_the_others():
    gains = []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        rows, fresh = (rng.normal(size=(n, 6)) for n in (600, 1500))
        for some in (rows, fresh):
            some[:, 0] = np.exp(2 * some[:, 0]) / 20
        odd = np.arange(1500) < 60
        fresh[odd, 1:] += 2.0
        judge = without_labels(rows, seed)[0]
        judge.local = None
        whole = average_precision_score(odd, judge.score(fresh)[:, 0])
        judge.excesses = judge.excesses[:1]
        gains.append(whole - average_precision_score(odd, judge.score(fresh)[:, 0]))
    assert min(gains) > 0.02, gains


def test_ranks_of_a_row_left_out_are_those_that_never_had_its_subject():
    """Subjects far out filled the highest ranks: of new ones 8 % were flagged, stated were 5 %."""
    rng = np.random.default_rng(0)
    subjects = np.repeat(np.arange(8), 25)
    rows = rng.normal(size=(8, 6))[subjects] + 0.3 * rng.normal(size=(200, 6))
    judge = TolerantDistance.fit(rows, rng, np.zeros(200, dtype=bool), subjects)
    far = judge._far(rows, True, subjects)
    excess = judge.excesses[1]
    logs = excess._logs(rows, far, True, subjects)
    for i in range(8):
        own = subjects == i
        others = TolerantDistance.fit(rows[~own], rng).excesses[1]
        expected = others._logs(rows[own], far[own], False, None)
        np.testing.assert_allclose(logs[own], expected, atol=1e-4)
    one = TolerantDistance.fit(rows, rng, np.zeros(200, dtype=bool), np.zeros(200, dtype=int))
    assert np.isfinite(one.score(rows, True, np.zeros(200, dtype=int))).all()
    judge.forget_training()
    assert (logs - excess._logs(rows, far, True, subjects)).mean() > 0.02


@pytest.mark.parametrize("kind", ["rows", "codes"])
def test_ranks_of_a_training_row_are_those_that_never_had_it(kind):
    """A row far out had a rank of its own, and p-values of small tables were too small."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(100, 20)) if kind == "rows" else rng.integers(0, 3, size=(100, 2)) * 1.0
    coded = np.full(100, kind == "codes")
    judge = TolerantDistance.fit(rows, rng, coded)
    fold, excess = folds_by_value(rows, FOLDS), judge.excesses[1]
    assert len(np.unique(fold)) > 4
    for number, apart in enumerate(excess.apart):
        expected = NormalScores.fit(rows[(fold != number) | coded])
        for scores, of_others in zip(apart.ranks.scores, expected.scores, strict=True):
            np.testing.assert_array_equal(scores, of_others)
    far = judge._far(rows, True, None)
    with_itself = excess._logs(rows, far, True, None)
    judge.forget_training()
    difference = with_itself - excess._logs(rows, far, True, None)
    assert (difference == 0).all() if kind == "codes" else difference.mean() > 0.01


@pytest.mark.parametrize("n, d", [(100, 8), (60, 25), (100, 300)])
@pytest.mark.parametrize("kind", ["rows", "copies", "codes", "subjects"])
def test_relations_of_a_row_left_out_are_those_that_never_had_it(n, d, kind):
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) / d**0.5
    group = np.arange(n) // (5 if kind == "subjects" else 1)
    if kind in ("copies", "codes"):
        rows[50:55] = rows[:5]
        group[50:55] = group[:5]
    coded = np.full(n, kind == "codes")
    subjects = group if kind == "subjects" else None
    ratio = (
        Relations(rows, coded, subjects)._logs(rows, None, others, subjects) for others in (1, 0)
    )
    left_out, whole = ratio
    for i in range(0, 50, 7):
        others = np.arange(n) != i if kind == "codes" else group != group[i]
        expected = Relations(rows[others])._logs(rows[i : i + 1], None, False, None)[0]
        # The ridge is of the mean variance, in which a subject had a part.
        assert abs(left_out[i] - expected) < (0.05 if kind == "subjects" else 1e-5)
    assert d < 300 or kind == "subjects" or np.median(left_out - whole) > 1


def linked_columns(rng, n):
    """Rows of 40 columns that hang on six causes; in a twentieth one value does not fit; (n,)."""
    odd = rng.random(n) < 0.05
    rows = rng.normal(size=(n, 6)) @ np.random.default_rng(0).normal(size=(6, 40))
    rows += rng.normal(size=(n, 40))
    rows[odd, rng.integers(0, 40, odd.sum())] += 10
    return rows / rows.std(0), odd


@pytest.mark.parametrize("seed", range(3))
def test_rows_that_break_a_relation_stand_out_where_nothing_is_known(seed):
    rng = np.random.default_rng(seed)
    judge, _ = without_labels(linked_columns(rng, 600)[0], seed)
    fresh, odd = linked_columns(rng, 1500)
    whole = average_precision_score(odd, judge.score(fresh)[:, 0])
    judge.relations = None
    assert whole > average_precision_score(odd, judge.score(fresh)[:, 0]) + 0.1


@pytest.mark.parametrize("kind", ["rows", "copies", "subjects"])
def test_local_factors_of_a_row_left_out_are_those_that_never_had_it(kind):
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(300, 4)) * np.repeat([0.1, 1], 150)[:, None]
    group = np.arange(300) // (5 if kind == "subjects" else 1)
    if kind == "copies":
        rows[250:] = rows[:50]
        group[250:] = group[:50]
    subjects = group if kind == "subjects" else None
    left_out = LocalExcess(Neighbours(rows), subjects)._logs(rows, None, True, subjects)
    for i in range(0, 300, 7):
        others = group != group[i]
        there = None if subjects is None else subjects[others]
        alone = LocalExcess(Neighbours(rows[others]), there)
        of_it = None if subjects is None else subjects[i : i + 1]
        expected = alone._logs(rows[i : i + 1], None, False, of_it)[0]
        # Of its neighbours' own distances the row itself may be a part.
        assert expected - 0.01 < left_out[i] < expected + 0.7
    assert abs(np.log(np.median(np.exp(left_out)))) < 0.2  # in the dense half and in the other


@pytest.mark.parametrize("seed", range(3))
def test_rows_beside_a_dense_group_stand_out_by_their_neighbours_where_densities_differ(seed):
    """The sparse group's own distances are ten times theirs, whatever the others are."""
    rng = np.random.default_rng(seed)
    odd = np.arange(600) % 25 == 0

    def made():
        away = rng.normal(size=(600, 4))
        away *= rng.uniform(0.8, 1.4, (600, 1)) / np.linalg.norm(away, axis=1, keepdims=True)
        dense, sparse = rng.normal(0, 0.1, (600, 4)), rng.normal(8, 2, (600, 4))
        return np.where(odd[:, None], away, np.where(np.arange(600)[:, None] % 2, dense, sparse))

    model = SwiftHydra(**SHORT_FIT).fit(made())
    local = model.detector_.unlike.alone.local
    assert roc_auc_score(odd, model.decision_function(made())) > 0.8 and local.weight > 0.9
    again = LocalExcess(local.neighbours, **local.snapshot())
    assert again.weight == local.weight
    one_cloud = SwiftHydra(**SHORT_FIT).fit(rng.exponential(size=(600, 4)))
    assert one_cloud.detector_.unlike.alone.local.weight == LOCAL


@pytest.mark.parametrize("seed", range(3))
def test_rows_beside_a_dense_group_stand_out_where_nothing_is_known(seed):
    rng = np.random.default_rng(seed)

    def table(n):
        """A dense group, a sparse one, and odd rows (n,) around the dense one."""
        odd = rng.random(n) < 0.03
        dense = rng.random(n) < 0.5
        rows = np.where(dense[:, None], 0.05, 1) * rng.normal(size=(n, 6))
        rows[odd] = 0.5 * rng.normal(size=(odd.sum(), 6))
        return rows + np.where(dense | odd, 6, 0)[:, None], odd

    judge, _ = without_labels(table(800)[0], seed)
    fresh, odd = table(2000)
    whole = average_precision_score(odd, judge.score(fresh)[:, 0])
    again = TolerantDistance.from_snapshot(judge.snapshot())
    assert np.array_equal(again.score(fresh), judge.score(fresh))
    judge.local = None
    assert whole > average_precision_score(odd, judge.score(fresh)[:, 0]) + 0.05


@pytest.mark.parametrize("tail", ["normal", "student", "exponential"])
def test_one_value_far_out_is_found_among_many_columns(tail):
    """A slip or a spike: it adds little to the distance of a row of fifty columns."""
    draw = {
        "normal": lambda rng: rng.normal(size=(1000, 50)),
        "student": lambda rng: rng.standard_t(3, size=(1000, 50)),
        "exponential": lambda rng: rng.exponential(size=(1000, 50)),
    }[tail]
    found = []
    for seed in range(2):
        rng = np.random.default_rng(seed)
        X, odd = draw(rng), np.arange(1000) % 20 == 0
        X[odd, rng.integers(0, 50, 50)] += {"normal": 5, "student": 15}.get(tail, 10)
        X[:, 0] = rng.random(1000) < 0.01  # a rare code is no slip
        Z = ColumnScaler().fit(X).transform(X)
        kept = np.linalg.norm(Z, axis=1) < np.quantile(np.linalg.norm(Z, axis=1), 0.85)
        aside = AsideRows(Z[~kept], np.zeros((~kept).sum(), bool), None)
        judge = TolerantDistance.fit(Z[kept], rng, np.zeros(kept.sum(), bool), None, aside)
        judge.forget_training()  # as files do
        scores = judge.score(Z, True)[:, 0]
        again = TolerantDistance.from_snapshot(judge.snapshot()).score(Z, True)[:, 0]
        assert np.array_equal(again, scores)
        judge.lone = None
        without = judge.score(Z, True)[:, 0]
        found.append([roc_auc_score(odd, scores), roc_auc_score(odd, without)])
    with_it, without = np.mean(found, axis=0)
    assert with_it > 0.92 > 0.88 > without, (with_it, without)


def test_one_wait_far_beyond_all_others_is_found_where_nothing_is_known():
    found = []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        rows = rng.exponential(5, (1200, 6))
        odd = np.arange(1200) % 20 == 0
        rows[odd, rng.integers(0, 6, odd.sum())] = rng.uniform(50, 80, odd.sum())
        rows = rows.round(1)
        model = SwiftHydra(generator="none", random_state=seed).fit(rows[:600])
        found.append(average_precision_score(odd[600:], model.decision_function(rows[600:])))
    assert np.mean(found) > 0.8, found


@pytest.mark.parametrize("known", [True, False])
def test_one_value_far_out_is_found_where_anomalies_are_known_or_rows_trusted(known, tmp_path):
    rng = np.random.default_rng(0)
    X, odd = rng.normal(size=(2000, 50)), np.arange(2000) % 20 == 0
    X[odd, rng.integers(0, 50, 100)] += 5
    train = (np.arange(2000) < 1000) & (known | ~odd)
    model = SwiftHydra(trust_normals=True, **SHORT_FIT).fit(X[train], odd[train])
    fresh = model.columns_.standardise(X[1000:])
    experts, distances = model.detector_.parts(fresh)
    found = {"all": model.decision_function(X[1000:]), "distance": distances[:, 0]}
    if known:
        found |= {"mixture": experts[:, 0], "kernel": experts[:, 3]}
    found = {name: roc_auc_score(odd[1000:], scores) for name, scores in found.items()}
    assert min(found.values()) > 0.9, found
    model.detector_.unlike.lone = None
    without = model.detector_.parts(fresh)[1][:, 0]
    assert roc_auc_score(odd[1000:], without) < found["distance"] - 0.05


def misspelt(n):
    """A table of numbers and texts, and its rows (n,) in which one text is misspelt."""
    rng = np.random.default_rng(0)
    odd = np.arange(n) % 33 == 0
    texts = np.empty((n, 2), dtype=object)
    texts[:, 0] = rng.choice(["red", "green", "blue", "white"], n)
    texts[:, 1] = [f"town {i}" for i in np.minimum(rng.geometric(0.25, n), 12)]
    for i in np.flatnonzero(odd):
        texts[i, i % 2] += f"{i}"
    return np.column_stack([rng.normal(size=(n, 6)).astype(object), texts]), odd


@pytest.mark.parametrize("categorical", ["onehot", "ordinal", "frequency"])
@pytest.mark.parametrize("known", ["nothing", "trusted", "five"])
def test_misspelt_texts_are_found(categorical, known, tmp_path):
    """New rows with a text of their own had .72 (onehot) and .62 (ordinal), nothing known."""
    X, odd = misspelt(1200)
    train = (np.arange(1200) < 600) & ~(odd & (known == "trusted"))
    y = np.zeros(1200, dtype=int)
    if known == "five":
        y[np.flatnonzero(odd)[:5]] = 1
    model = SwiftHydra(categorical=categorical, trust_normals=known == "trusted", **SHORT_FIT)
    model.fit(X[train], y[train] if known != "nothing" else None).set_false_alarms(0.05)
    fresh, odd_ones = X[600:], odd[600:]
    assert roc_auc_score(odd_ones, model.decision_function(fresh)) > 0.97
    assert model.predict(fresh)[~odd_ones].mean() < 0.1
    if known == "nothing":
        assert roc_auc_score(odd[train], model.decision_scores_) > 0.97
    model.save(tmp_path / "m.pt")
    again = SwiftHydra.load(tmp_path / "m.pt").decision_function(fresh)
    assert np.array_equal(again, model.decision_function(fresh))


def test_a_text_is_as_far_out_as_rows_with_texts_so_rare_are_few():
    Z = np.zeros((100, 6), dtype=np.float32)
    Z[:, 0] = np.arange(100)  # a number
    Z[:96, 1], Z[96:98, 2], Z[98, 3], Z[99, 4] = FLAG, FLAG, FLAG, FLAG  # texts; nobody has a fifth
    flags = np.arange(6) > 0
    rarity = LargestValue.rarity_of(Z, flags)
    np.testing.assert_allclose(rarity, [1, 1, 5, 50**0.5, 50**0.5, 50**0.5], rtol=1e-6)
    largest = LargestValue.of(Z, AboutColumns(rarity))
    np.testing.assert_allclose(
        np.exp(largest(Z[96:, :] * flags)), rarity[[2, 2, 3, 4]] * FLAG, 1e-6
    )
    subjects = np.r_[np.arange(96), 96, 96, 97, 97]  # both rows of a text are of one subject
    of_them = LargestValue.rarity_of(Z, flags, subjects)
    np.testing.assert_allclose(of_them, [1, 1, 5, 5, 5, 5], rtol=1e-6)
    assert LargestValue.rarity_of(Z, np.zeros(6, dtype=bool)) is None


def test_the_largest_value_of_a_training_row_is_that_of_a_row_the_scaler_never_had():
    rng = np.random.default_rng(0)
    for n in (5, 29, 30, 31, 60):
        X = rng.standard_t(3, size=(n, 8))
        Z = ColumnScaler().fit(X).transform(X)
        largest = LargestValue(np.ones(8, dtype=bool))
        each = []
        for i in range(n):
            others = ColumnScaler().fit(np.delete(X, i, axis=0))
            each.append(np.abs(others.deviations(X[i : i + 1])).max())
        each = np.clip(each, LargestValue.INSIDE, LargestValue.OUTSIDE)
        assert max(each) > 4
        np.testing.assert_allclose(np.exp(largest(Z, among=Z)), each, rtol=1e-5)
        np.testing.assert_allclose(np.exp(largest(Z[::2], among=Z)), each[::2], rtol=1e-5)


def test_the_largest_value_counts_without_the_row_among_kept_rows_and_those_set_aside():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(40, 30))
    Z = ColumnScaler().fit(X).transform(X)
    kept, aside = Z[:34], AsideRows(Z[34:], np.zeros(6, dtype=bool), None)
    judge = TolerantDistance.fit(kept, rng, np.zeros(34, dtype=bool), None, aside)
    scores = judge.score(kept, True), judge.score_aside(aside)
    lone, judge.lone = judge.lone, None
    for got, rows in zip(scores, (kept, Z[34:]), strict=True):
        others = rows is kept
        without = judge.score(kept, True) if others else judge.score_aside(aside)
        far = judge._far(rows, others, None)
        added = LONE * lone(rows, far, True)
        assert (added > LONE * lone(rows, far)).any()
        np.testing.assert_allclose((got - without)[:, 0], added, atol=1e-9)


def test_p_values_of_a_wide_short_table_are_those_of_new_rows():
    """The scale of its columns and its principal axes are the training rows' own."""
    rates = []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        model = SwiftHydra(generator="none", random_state=seed).fit(rng.normal(size=(30, 200)))
        rates.append((model.p_values(rng.normal(size=(500, 200))) <= 0.2).mean())
    assert np.mean(rates) < 0.2, rates


@pytest.mark.parametrize(("trusted", "usual"), [(False, 0.03), (True, 0.03), (True, 0.6)])
def test_rows_with_many_gaps_are_found_where_gaps_are_told(trusted, usual, tmp_path):
    """Each gap is usual, and four flags among eight columns add little to a distance."""

    def rows(seed, odd):
        rng = np.random.default_rng(seed)
        gap = rng.random((600, 8)) < np.repeat([0.03, usual], 4)
        gap[odd, 2:6] = True
        return np.where(gap, np.nan, rng.normal(size=(600, 8)))

    none, odd = np.zeros(600, dtype=bool), np.arange(600) % 60 == 0
    model = SwiftHydra(impute="indicator", generator="none", trust_normals=trusted, **SHORT_FIT)
    model.fit(rows(0, none if trusted else odd), np.zeros(600))
    fresh = rows(1, odd)
    assert roc_auc_score(odd, model.decision_function(fresh)) > 0.95
    model.save(tmp_path / "m.pt")
    again = SwiftHydra.load(tmp_path / "m.pt").decision_function(fresh)
    assert np.array_equal(again, model.decision_function(fresh))


def test_gaps_count_by_the_share_of_rows_with_as_many():
    Z = np.zeros((100, 3))
    Z[:20, 1], Z[:5, 2], Z[0, 0] = FLAG, FLAG, 3.0  # of 3 columns, 2 say where a value is missing
    gaps = GapCounts.of(Z, np.array([False, True, True]))
    np.testing.assert_allclose(gaps(Z[[99, 19, 0]]), [1, 0.2**-0.5, 0.05**-0.5])
    np.testing.assert_allclose(np.exp(LargestValue([0, 0, 0], gaps=gaps)(Z[1:2])), 0.05**-0.5)
    assert GapCounts.of(Z, np.array([False, True, False])) is None


@pytest.mark.parametrize("share", [0.1, 0.45, 0.55, 0.9])
def test_gaps_are_counted_however_usual_they_are(share):
    """Where most cells are empty, the median of the indicator is 1, and a value is what differs."""
    gap = np.random.default_rng(0).random((400, 5)) < share
    Z = ColumnScaler().fit(gap.astype(float)).transform(gap.astype(float))
    gaps = GapCounts.of(Z, np.ones(5, dtype=bool))
    at_least = (gap.sum(1)[:, None] <= gap.sum(1)).mean(1)  # share of rows with as many or more
    np.testing.assert_allclose(gaps(Z), at_least**-0.5, rtol=1e-6)


def test_values_of_few_kinds_are_in_one_unit_whichever_row_is_left_out():
    X = np.zeros((50, 3))
    X[:3, 1], X[:20, 2] = 1.0, 5.0
    u = ColumnScaler().fit(X).deviations(X)
    assert np.array_equal(without_themselves(u, u)[3:], u[3:])
    assert np.isfinite(without_themselves(u, u)).all()
    assert np.array_equal(without_themselves(u[:4], u[:4]), u[:4])  # too few to leave one out


@pytest.mark.parametrize("d", [10, 60, 150])
def test_alarms_are_the_stated_ones_on_wide_tables_of_which_nothing_is_known(d):
    rng = np.random.default_rng(3)
    model = SwiftHydra(false_alarms=0.05, **SHORT_FIT).fit(rng.normal(size=(200, d)))
    fresh = rng.normal(size=(1000, d))
    assert model.predict(fresh).mean() < 0.09
    assert (model.p_values(fresh) <= 0.2).mean() < 0.3
    shares = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        model = SwiftHydra(false_alarms=0.05, random_state=seed).fit(rng.normal(size=(100, d)))
        p = model.p_values(rng.normal(size=(1000, d)))
        shares.append([(p <= stated).mean() for stated in (0.02, 0.05, 0.2)])
    error = np.std(shares, axis=0) / np.sqrt(len(shares) - 1)
    assert (np.mean(shares, axis=0) < np.array([0.02, 0.05, 0.2]) * 1.2 + 2 * error).all()


def test_evidence_is_learned_where_a_side_looks_at_it(tmp_path):
    X = np.random.default_rng(0).normal(size=(80, 3))
    for trusted, generator in ((False, "noise"), (True, "none"), (True, "noise")):
        model = SwiftHydra(trust_normals=trusted, generator=generator, **SHORT_FIT)
        model.fit(X, np.zeros(80))
        looked_at = trusted and generator != "none"
        assert (model.detector_.evidence is not None) == looked_at
        assert model.detector_.expert_usage(X).shape[1] == looked_at * model.k
        model.save(tmp_path / "m.pt")
        again = SwiftHydra.load(tmp_path / "m.pt").decision_function(X)
        assert np.array_equal(again, model.decision_function(X))


def answers(rng, n):
    """Fifteen answers of yes and no in four patterns, 5 % of them turned round; 4 % by chance."""
    pattern = np.random.default_rng(99).random((4, 15)) > 0.5
    X = pattern[rng.integers(0, 4, n)] ^ (rng.random((n, 15)) < 0.05)
    odd = rng.random(n) < 0.04
    X[odd] = rng.random((odd.sum(), 15)) > 0.5
    return X.astype(float), odd.astype(int)


@pytest.mark.parametrize("grouped", [False, True])
def test_few_known_anomalies_leave_the_distance_that_tolerates_hidden_ones(grouped, tmp_path):
    X, odd = answers(np.random.default_rng(0), 500)
    fresh, truth = answers(np.random.default_rng(1), 1000)
    groups = np.arange(500) // 2 if grouped else None
    precision = {}
    for n_known in (5, 7, 8):
        y = np.where(np.cumsum(odd) <= n_known, odd, 0)
        model = SwiftHydra(generator="noise", **SHORT_FIT).fit(X, y, groups)
        alone = model.detector_.unlike.alone
        assert isinstance(alone, TolerantDistance) == (n_known < 8)
        precision[n_known] = average_precision_score(truth, model.decision_function(fresh))
        assert (model.p_values(fresh[truth == 0]) <= 0.05).mean() < 0.1
        model.save(tmp_path / "m.pt")
        again = SwiftHydra.load(tmp_path / "m.pt").decision_function(fresh)
        assert np.array_equal(again, model.decision_function(fresh))
    assert min(precision[5], precision[7]) > precision[8] + 0.05, precision  # what labels may cost


def test_few_known_anomalies_change_nothing_where_rows_are_trusted_or_few():
    X, odd = answers(np.random.default_rng(0), 500)
    y = np.where(np.cumsum(odd) <= 5, odd, 0)
    for rows, trusted in ((slice(500), True), (slice(190), False)):
        model = SwiftHydra(generator="noise", trust_normals=trusted, **SHORT_FIT)
        unlike = model.fit(X[rows], y[rows]).detector_.unlike
        assert unlike.alone is None and unlike.mixture is not None


@pytest.mark.parametrize("kind", ["flags", "texts"])
def test_p_values_of_codes_that_are_set_aside(kind):
    """Of equally frequent codes those that chance made rarer are set aside, and will come again."""
    shares = []
    for seed in range(6):
        rng = np.random.default_rng(seed)

        def rows(n, rng=rng):
            if kind == "flags":
                return (rng.random((n, 5)) > 0.5).astype(float)
            return np.eye(4)[rng.integers(0, 4, (n, 3))].reshape(n, 12)

        model = SwiftHydra(generator="none", **SHORT_FIT).fit(rows(100 if kind == "flags" else 300))
        assert not model.kept_.all()
        p = model.p_values(rows(3000))
        shares.append([(p <= stated).mean() for stated in (0.1, 0.2)])
        assert abs(model.basis_.weight.sum() - len(model.kept_)) < 1e-6
        assert abs(model.basis_.normal.sum() - len(model.kept_)) < 1e-6
    assert np.all(np.mean(shares, axis=0) < (0.125, 0.235))
    assert np.all(np.mean(shares, axis=0) > (0.03, 0.1))
