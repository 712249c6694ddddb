"""Rows that were measured of one subject again and again: never on both sides of anything."""

import json
import warnings

import numpy as np
import pytest
from helpers import SAME_EXAMPLES, SHORT, SHORT_FIT, apart, refusal, run_script
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from swift_hydra import SwiftHydra, dataloader, geometry
from swift_hydra.cleaning.learned_rows import sample
from swift_hydra.cleaning.leave_out import LeaveOut
from swift_hydra.cleaning.suspects import OtherRows, _nearness
from swift_hydra.data.subjects import numbers_of
from swift_hydra.data.suspicious import company_of_near_copies
from swift_hydra.dataloader import RowOptions, load_rows
from swift_hydra.detection import surroundings
from swift_hydra.detection.evidence import COLUMNS, Evidence
from swift_hydra.detection.surroundings import Others
from swift_hydra.geometry import Neighbours
from swift_hydra.settings import InputError
from swift_hydra.SwiftHydra import main
from swift_hydra.thresholds import compared_with

pytestmark = pytest.mark.usefixtures("few_candidates")


def visits(rng, n=60, of_each=5, d=6, share=0.15, apart=0.1):
    """Rows, labels and numbers of n subjects, each measured again with small differences."""
    own, ill = rng.normal(size=(n, d)), np.arange(n) < share * n
    own[ill, :2] += 2.5
    X = own.repeat(of_each, axis=0) + apart * rng.normal(size=(n * of_each, d))
    order = rng.permutation(len(X))
    return X[order], ill.repeat(of_each).astype(int)[order], np.arange(n).repeat(of_each)[order]


def write(path, X, y, groups):
    lines = ["a,b,c,patient,d,e,f,ill"]
    for row, label, group in zip(X, y, groups, strict=True):
        cells = [f"{value:.17g}" for value in row]
        lines.append(",".join([*cells[:3], f"p{group:03d}", *cells[3:], str(label)]))
    path.write_text("\n".join(lines) + "\n")


# --- the split ------------------------------------------------------------------------------------


def test_max_rows_cuts_a_table_of_groups_by_whole_groups(tmp_path):
    X, y, groups = visits(np.random.default_rng(0), n=200, share=0.2)
    write(tmp_path / "table.csv", X, y, groups)
    whole, cut = (
        load_rows(RowOptions(dataset=str(tmp_path / "table.csv"), group_column="patient", **more))
        for more in ({}, {"max_rows": len(X) // 4})
    )
    subjects = whole.data.table.subjects
    used = np.concatenate([cut.split.train, cut.split.test])
    assert 0.15 * len(X) < len(used) < 0.4 * len(X)
    assert len(set(subjects[used])) >= 10
    of_all = np.bincount(subjects)
    assert all((subjects[used] == s).sum() == of_all[s] for s in set(subjects[used]))


@pytest.mark.parametrize("protocol", ["seen", "few", "unseen", "weak", "one-class"])
@pytest.mark.parametrize("seed", [0, 1])
def test_no_thing_is_on_both_sides_of_a_split(tmp_path, protocol, seed):
    X, y, groups = visits(np.random.default_rng(seed), n=120, share=0.3)
    y[np.random.default_rng(1).random(len(y)) < 0.1] = -1
    y[(y == 1) & (np.random.default_rng(2).random(len(y)) < 0.3)] = 0  # an ill one's good days
    write(tmp_path / "table.csv", X, y, groups)
    options = {"protocol": protocol, "seed": seed, "group_column": "patient"}
    rows = load_rows(RowOptions(dataset=str(tmp_path / "table.csv"), **options))
    split, subjects = rows.split, rows.data.table.subjects
    assert rows.data.columns == ("a", "b", "c", "d", "e", "f")
    assert not set(subjects[split.train]) & set(subjects[split.test])
    assert set(split.known) <= set(split.train) and (rows.data.y[split.known] == 1).all()
    assert set(rows.data.y[split.test]) == {0, 1}
    both = np.column_stack([rows.train.subjects, subjects[split.train]])
    assert len(set(both[:, 0])) == len(set(both[:, 1])) == len({tuple(pair) for pair in both})
    if protocol == "few":
        assert len(set(subjects[split.known])) == 10
    if protocol == "seen":
        assert 0.3 < len(split.train) / len(y) < 0.5


def test_a_label_that_groups_and_a_kind_that_has_no_groups_are_refused(tmp_path, capsys):
    write(tmp_path / "table.csv", *visits(np.random.default_rng(0)))
    where = [str(tmp_path / "table.csv"), "--group-column"]
    said = refusal(capsys, lambda: main([*where, "ill", "--label-column", "ill"]))
    assert "'ill' is the label column and the group column too" in said
    said = refusal(capsys, lambda: main([*where, "nobody"]))
    assert "'nobody'" in said and "patient" in said
    said = refusal(capsys, lambda: main([*where, "patient", "--protocol", "local"]))
    assert "'local'" in said


def test_an_array_of_an_npz_says_the_groups(tmp_path, capsys):
    X, y, groups = visits(np.random.default_rng(0))
    np.savez(tmp_path / "table.npz", X=X, y=y, patient=groups)
    path = str(tmp_path / "table.npz")
    rows = load_rows(RowOptions(dataset=path, group_column="patient"))
    of_train, of_test = (set(groups[part]) for part in (rows.split.train, rows.split.test))
    assert of_train and of_test and not of_train & of_test
    assert "'nobody'" in refusal(capsys, lambda: main([path, "--group-column", "nobody"]))
    dataloader.main([path, "--group-column", "patient"])
    assert "groups            60" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("groups", "said"),
    [
        (["a", None, "b"], "row 1 (counted from 0) has none"),
        (["a", " ", "b"], "row 1 "),
        ([1.0, np.nan, 2.0], "row 1 "),
        (["a", "NA", "b"], "row 1 "),
        (["a", "b"], "shape (2,) for 3 rows"),
        ([["a"], ["b"], ["c"]], "shape (3, 1) for 3 rows"),
        ([["a"], ["b", "c"], []], "groups: is no list of names"),
    ],
)
def test_rows_without_a_group_are_refused(groups, said):
    with pytest.raises(InputError) as error:
        numbers_of(groups, 3)
    assert said in str(error.value)


def test_what_is_masked_is_no_name():
    with pytest.raises(InputError, match=r"row 2 \(counted from 0\) has none"):
        numbers_of(np.ma.array([1, 1, 2, 2], mask=[0, 0, 1, 0]), 4)


def test_groups_are_one_by_what_they_say():
    assert numbers_of([7, "7", 7.0, "a", b"a", "b"], 6).tolist() == [0, 0, 0, 1, 1, 2]
    for kind in (int, complex, np.longdouble, "M8[D]", "S"):
        assert numbers_of(np.array([3, 1, 3]).astype(kind), 3).tolist() == [0, 1, 0]
    joined = ["7", "7.0", b"7.00", "007", "1.1", "1.10", "1E2", "100"]
    assert numbers_of(joined, 8).tolist() == [0, 0, 0, 1, 2, 3, 4, 5]


# --- what is left out in a fit --------------------------------------------------------------------


@given(st.integers(0, 2**32 - 1), st.integers(2, 40), st.booleans())
@SAME_EXAMPLES
def test_a_thing_is_in_one_fold_and_left_out_together(seed, n_subjects, whole):
    rng = np.random.default_rng(seed)
    subjects = np.unique(rng.integers(0, n_subjects, size=60), return_inverse=True)[1]
    Z = rng.integers(0, 3, size=(60, 2)).astype(float) if whole else rng.normal(size=(60, 2))
    y = (rng.random(60) < 0.2).astype(np.int64)
    leave_out = LeaveOut(Z, y, 4, 0, subjects)
    for of in (leave_out.folds, leave_out.groups):
        assert all(len(set(of[subjects == subject])) == 1 for subject in set(subjects))


def test_things_are_dealt_evenly_to_the_folds():
    """Those with and without anomalies in turn, not each kind from the first fold on."""
    for kinds in ([1] * 5 + [0] * 5, [1, 1, 0, 0, 0, 0]):
        subjects = np.arange(len(kinds)).repeat(6)
        y = np.repeat(kinds, 6)
        Z = np.random.default_rng(0).normal(size=(len(y), 2))
        counts = np.bincount(LeaveOut(Z, y, 4, 0, subjects).folds, minlength=4)
        assert counts.max() - counts.min() <= 6, counts


def test_things_that_share_rows_leave_something_to_learn_from():
    """Where all of them do, the subjects of all would be one group, and one of two halves empty."""
    tried = 0
    for seed in range(1000):
        rng = np.random.default_rng(seed)
        n_different = rng.integers(1, 7)
        Z = rng.normal(size=(n_different, 2))[rng.integers(n_different, size=12)]
        subjects = rng.integers(0, 4, 12)
        y = (rng.random(12) < 0.3).astype(int)
        if len(set(subjects[y == 0])) > 1 and y.any():
            tried += 1
            assert len(set(LeaveOut(Z, y, 4, 0, subjects).folds % 2)) == 2
    assert tried > 500


def test_neighbours_are_of_other_subjects():
    rng = np.random.default_rng(0)
    X, _, groups = visits(rng, n=20, of_each=7)
    square = np.square(X[:, None] - X).sum(2)
    apart = np.where(groups[:, None] == groups, np.inf, np.sqrt(square))
    X = X.astype(np.float32)
    for k in (1, 5, 40, 300):
        near = np.sort(apart, axis=1)[:, : min(k, len(X) - 7)]
        mean = Neighbours(X).mean_distance(X, k, others=True, groups=(groups, groups))
        assert np.allclose(mean, near.mean(1), atol=1e-4)


@pytest.mark.parametrize("sizes", [(500, 1), (300, 300), (400, 290, 5, 1)])
def test_a_large_group_is_not_searched_through_for_each_of_its_rows(monkeypatch, sizes):
    """With two groups a fit took ten times as long: every row had the whole reference sorted."""
    rng = np.random.default_rng(0)
    groups = rng.permutation(np.arange(len(sizes)).repeat(sizes))
    X = rng.normal(size=(len(groups), 2)).round(1).astype(np.float32)  # groups share copies
    coded = groups % 2 == 0
    asked = []
    nearest = Neighbours.nearest

    def noted(self, rows, k):
        asked.append(k)
        return nearest(self, rows, k)

    monkeypatch.setattr(Neighbours, "nearest", noted)
    for k in (1, 5, 300):
        given = (X, k, True, 0.0, coded, (groups, groups))
        mean = Neighbours(X).mean_distance(*given)
        assert max(asked) <= k + 300
        with monkeypatch.context() as context:
            context.setattr(geometry, "LARGE", len(X))
            np.testing.assert_allclose(mean, Neighbours(X).mean_distance(*given), rtol=1e-12)
        asked.clear()


def test_means_without_one_of_few_subjects_are_found_once(monkeypatch):
    """With twelve machines of 20,000 rows a fit took three times as long."""
    rng = np.random.default_rng(0)
    distance = np.sort(rng.random((50, 40)), axis=1)
    given = (distance, rng.integers(1, 3, (50, 40)), rng.integers(-1, 3, (50, 40)))
    asked = rng.integers(0, 50, (2000, 20)), rng.integers(0, 5, 2000)
    looked = []
    whole = Others._means_without

    def noted(self, k, index, of_rows):
        looked.append(index.size)
        return whole(self, k, index, of_rows)

    monkeypatch.setattr(Others, "_means_without", noted)
    others = Others(*given)
    for k in (5, 20):
        means = [others.means_without_subjects(k, *asked) for _ in range(2)]
        assert sum(looked) <= 50 * 4
        monkeypatch.setattr(surroundings, "KEPT", 0)
        means.append(Others(*given).means_without_subjects(k, *asked))
        assert np.array_equal(means[0], means[1]) and np.array_equal(means[0], means[2])
        monkeypatch.undo()
        monkeypatch.setattr(Others, "_means_without", noted)
        looked.clear()


def test_evidence_of_a_training_row_is_that_of_a_fit_without_its_subject():
    rng = np.random.default_rng(0)
    X, y, groups = visits(rng, n=24, of_each=4, d=3, share=0.3)
    X = X.astype(np.float32)
    folds = groups % 4
    ones = [lambda Z: np.ones(len(Z))]

    def fitted(rows):
        together = apart(folds[rows], subjects=groups[rows])
        given = (ones, np.zeros(len(rows), dtype=int), np.random.default_rng(0), 4096)
        return Evidence.fit(X[rows], y[rows], together, *given)

    every = np.arange(len(X))
    evidence, columns = fitted(every)
    shown = [COLUMNS.index(name) for name in ("knn5", "knn20", "lof5", "lof20", "ratio1", "ratio3")]
    for subject in (0, 5, 11, 20):
        own = groups == subject
        without, _ = fitted(every[~own])
        # In units, as scales differ by what a subject is among them.
        here, there = (
            (part.centre[-1] + part.scale[-1] * of)[:, shown]
            for part, of in ((evidence, columns.all[own]), (without, without.transform(X[own])))
        )
        assert np.allclose(here, there, atol=1e-3)


def test_few_rows_of_a_long_thing_are_references():
    rng = np.random.default_rng(0)
    X, subjects = rng.normal(size=(2000, 3)).astype(np.float32), np.arange(2000) % 8
    given = ([lambda Z: np.ones(len(Z))], np.zeros(2000, dtype=int), rng, 4096)
    together = apart(subjects % 4, subjects=subjects)
    evidence, columns = Evidence.fit(X, np.zeros(2000, dtype=int), together, *given)
    normals, _ = evidence.surroundings.sides
    assert len(normals.reference) == 1600
    assert set(np.bincount(evidence.surroundings.subjects[0])) == {200}
    fresh = evidence.transform(rng.normal(size=(2000, 3)).astype(np.float32))
    shown = [COLUMNS.index(name) for name in ("knn5", "knn20", "lof5", "lof20")]
    # Those of training have seven subjects around them, new ones eight.
    assert (abs(fresh[:, shown].mean(0) - columns.all[:, shown].mean(0)) < 0.2).all()


def test_left_out_scores_and_alarms_are_those_of_new_subjects():
    X, y, groups = visits(np.random.default_rng(0))
    T, t, _ = visits(np.random.default_rng(1), n=400, of_each=1)
    model = SwiftHydra(false_alarms=0.1, mixture_steps=100).fit(X, y, groups)
    score = model.decision_function(T)
    fresh, left_out = roc_auc_score(t, score), roc_auc_score(y, model.decision_scores_)
    assert abs(fresh - left_out) < 0.1 and fresh > 0.8  # 1.00 left out where nothing is told
    flagged = (score[t == 0] > model.threshold_).mean()
    assert 0.02 < flagged < 0.22  # .99 where nothing is told
    assert len(model.expected_scores_) == 60 and len(model.normal_scores_) == 51


@pytest.mark.parametrize("trusted", [False, True])
def test_where_nothing_is_known_a_thing_is_not_compared_with_itself(trusted):
    flagged = []
    for seed in range(3):
        X, y, groups = visits(np.random.default_rng(seed), share=0.0)
        T, _, _ = visits(np.random.default_rng(100 + seed), n=400, of_each=1, share=0.0)
        settings = {"trust_normals": trusted, "false_alarms": 0.1, "random_state": seed}
        model = SwiftHydra(**SHORT_FIT, **settings).fit(X, y if trusted else None, groups=groups)
        flagged.append((model.decision_function(T) > model.threshold_).mean())
    assert 0.03 < np.mean(flagged) < 0.2, flagged  # of trusted rows 1.00 where nothing is told


def test_rows_set_aside_are_not_compared_with_others_of_their_thing():
    """Of a thing far from all others some rows are set aside, and the others are learned from."""
    X, groups = np.random.default_rng(0).normal(size=(100, 3)), np.arange(100) // 2
    X[:40], groups[:40] = 4 + X[:40] / 10, 0
    model = SwiftHydra(generator="none", **SHORT_FIT).fit(X, groups=groups)
    aside = ~model.kept_[:40]
    assert 5 < aside.sum() < 20 and model.kept_[40:].all()
    scores = model.decision_scores_
    assert scores[:40][aside].min() > scores[40:].max()  # not so as new rows
    assert model.fresh_scores_[:40][aside].min() > model.fresh_scores_[40:].max()


def test_rows_of_few_trusted_subjects_are_not_compared_with_alone():
    """Three subjects of 20 rows each: p-values of 1/4 or more, and no row was ever flagged."""
    groups = np.r_[np.repeat([0, 1, 2], 20), np.arange(3, 63)]
    y = np.where(groups < 3, 0, -1)
    assert compared_with(y, True).sum() == 60
    assert compared_with(y, True, groups).all()
    assert np.array_equal(compared_with(-1 - y, True, groups), groups >= 3)  # 60 subjects
    assert compared_with(-1 - y, False, groups).all()


def test_labels_of_things_that_mean_nothing_are_not_known():
    areas = []
    for seed in range(3):
        X, _, groups = visits(np.random.default_rng(seed), share=0.0)
        y = (np.random.default_rng(seed).random(60) < 0.3)[groups].astype(int)
        model = SwiftHydra(**SHORT_FIT, random_state=seed).fit(X, y, groups)
        areas.append(roc_auc_score(y, model.decision_scores_))
    assert 0.35 < np.mean(areas) < 0.62, areas  # 1.00 where nothing is told


def test_a_sample_draws_whole_subjects():
    groups = np.random.default_rng(0).integers(0, 100, size=1000)
    y = (groups < 10).astype(int)
    drawn = sample(y, 300, 0, groups)
    assert 250 < drawn.sum() <= 300 and y[drawn].any()
    assert not set(groups[drawn]) & set(groups[~drawn])
    with pytest.raises(InputError, match="max_samples"):
        sample(y, 3, 0, groups)


def test_normals_of_few_things_are_in_folds_that_see_each_other():
    """Subjects of which some have no normal row, or nearly none: all normals were in one fold."""
    X = np.random.default_rng(0).normal(size=(60, 4))
    groups = np.array([0] * 25 + [1] * 30 + [2] * 5)
    y = (np.arange(60) >= 50).astype(int)
    assert np.isfinite(SwiftHydra(**SHORT_FIT).fit(X, y, groups).decision_scores_).all()
    for seed in range(200):
        rng = np.random.default_rng(seed)
        groups = np.arange(6).repeat(10)
        y = np.ones(60, dtype=int)
        y[rng.permutation(60)[:5]] = 0
        if len(set(groups[y == 0])) > 1:
            folds = LeaveOut(rng.normal(size=(60, 2)), y, 4, seed, groups).folds
            assert len(set(folds[y == 0] % 2)) == 2


@pytest.mark.parametrize("settings", [{}, {"trust_normals": True}])
def test_a_sample_of_one_thing_is_refused(settings):
    X = np.random.default_rng(0).normal(size=(300, 4))
    model = SwiftHydra(**SHORT_FIT, **settings, max_samples=150)
    with pytest.raises(InputError, match="one group alone"):
        model.fit(X, np.zeros(300, dtype=int), groups=np.arange(3).repeat(100))


def test_known_anomalies_of_its_own_thing_make_no_row_suspicious():
    for seed in range(3):
        X, _, groups = visits(np.random.default_rng(seed), share=0.0)
        known = (groups < 12) & (np.random.default_rng(seed).random(300) < 0.4)
        leave_out = LeaveOut(X, known.astype(int), 4, 0, groups)
        others = OtherRows(X, np.flatnonzero(~known), leave_out)
        near = _nearness(X, known, others)
        own = np.isin(groups, groups[known])[~known]
        assert 0.3 < roc_auc_score(own, near[~known]) < 0.75  # 1.0 by the known ones of its subject


def test_one_group_leaves_nothing_to_compare_with():
    X, y, groups = visits(np.random.default_rng(0))
    with pytest.raises(InputError, match="of one group"):
        SwiftHydra(**SHORT_FIT).fit(X, y, np.where(y == 1, groups, 99))


@pytest.mark.parametrize(("groups", "what"), [(True, "24 groups of normal rows"), (False, "72 no")])
def test_what_cannot_tell_an_alarm_is_called_by_its_name(groups, what):
    X, _, of = visits(np.random.default_rng(0), n=24, of_each=3)
    few = {"random_state": 0, "generator": "none", "false_alarms": 0.001, **SHORT_FIT}
    with pytest.warns(UserWarning, match=f"^false_alarms=0.001: {what}"):
        SwiftHydra(**few).fit(X, groups=of if groups else None)


# --- the commands ---------------------------------------------------------------------------------


def test_a_run_with_groups_scores_a_table_without(tmp_path):
    X, y, groups = visits(np.random.default_rng(0), n=80)
    write(tmp_path / "table.csv", X, y, groups)
    given = [tmp_path / "table.csv", "--group-column", "patient", *SHORT, "--out", tmp_path / "out"]
    assert run_script("SwiftHydra.py", *given).returncode == 0
    run = tmp_path / "out" / "table" / "seen" / "seed0"
    report = json.loads((run / "report.json").read_text())
    assert report["n_groups"] == 32 and report["config"]["group_column"] == "patient"
    model = SwiftHydra.load(run / "checkpoint.pt")
    assert list(model.feature_names_in_) == ["a", "b", "c", "d", "e", "f"]
    new = "a,b,c,d,e,f\n" + "".join(",".join(f"{v:.17g}" for v in row) + "\n" for row in X)
    (tmp_path / "new.csv").write_text(new)
    score = ["score", "--checkpoint", run / "checkpoint.pt", "--out", tmp_path / "scores.csv"]
    assert run_script("SwiftHydra.py", *score, "--data", tmp_path / "new.csv").returncode == 0
    lines = (tmp_path / "scores.csv").read_text().splitlines()[1:]
    scores = [float(line.split(",")[1]) for line in lines]
    assert np.allclose(scores, model.decision_function(X), atol=1e-3)


def test_a_loaded_detector_scores_as_it_did(tmp_path):
    X, y, groups = visits(np.random.default_rng(0))
    for labels in (y, None):
        model = SwiftHydra(**SHORT_FIT).fit(X, labels, groups)
        model.save(tmp_path / "model.pt")
        again = SwiftHydra.load(tmp_path / "model.pt")
        assert np.array_equal(again.decision_function(X), model.decision_function(X))


# --- a word where most rows have such company and no subject is told ------------------------------


def sessions(rng, rows_of_each, apart, n=60, d=6):
    """Rows (n * rows_of_each, d) of n subjects, each measured again with small differences."""
    own = rng.normal(size=(n, d)).repeat(rows_of_each, axis=0)
    return own + apart * rng.normal(size=own.shape)


def said(Z):
    return list(company_of_near_copies(Z))


@pytest.mark.parametrize(("rows_of_each", "apart"), [(2, 0.02), (3, 0.1), (5, 0.05), (10, 0.02)])
def test_groups_of_near_copies_are_said(rows_of_each, apart):
    rng = np.random.default_rng(0)
    Z = sessions(rng, rows_of_each, apart)
    assert "measured again" in said(Z)[0]
    assert said(rng.permutation(Z))
    # Columns of codes beside them take nothing away.
    assert said(np.column_stack([Z, rng.integers(3, size=(len(Z), 2))]))


def around_two(rng):
    """Two heaps, one of them small and far."""
    return np.concatenate([rng.normal(size=(300, 4)), 5 + 0.01 * rng.normal(size=(300, 4))])


@pytest.mark.parametrize(
    "table",
    [
        lambda rng: rng.normal(size=(50, 1)),
        lambda rng: rng.normal(size=(50, 2)),
        lambda rng: rng.exponential(size=(300, 2)) ** 3,
        lambda rng: rng.standard_t(1.5, size=(400, 3)),
        lambda rng: np.cumsum(rng.normal(size=(800, 2)), axis=0),  # drift
        lambda rng: rng.normal(size=(100, 1)) + 0.01 * rng.normal(size=(100, 3)),  # collinear
        around_two,
        lambda rng: rng.normal(size=(100, 3)).repeat(3, axis=0),  # copies
        lambda rng: np.column_stack([np.eye(50)[rng.integers(50, size=300)], rng.normal(size=300)]),
        lambda rng: rng.integers(5, size=(300, 4)),
        lambda rng: sessions(rng, 5, 0.02, n=9),  # too few to say
    ],
)
def test_nothing_is_said_of_rows_that_stand_for_themselves(table):
    assert not any(said(table(np.random.default_rng(seed))) for seed in range(10))


def test_rows_written_twice_are_no_groups():
    rows = np.random.default_rng(0).normal(size=(200, 4))
    assert not said(np.concatenate([rows, rows.round(4)]))


def test_a_fit_says_it_once():
    X = sessions(np.random.default_rng(0), 5, 0.02)
    y = np.arange(60).repeat(5) % 8 == 0
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        SwiftHydra(**SHORT_FIT).fit(X, y)
    about = [str(each.message) for each in caught if "near copies" in str(each.message)]
    assert len(about) == 1 and about[0].startswith("training rows: many rows stand in groups")
