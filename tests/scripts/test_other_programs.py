"""The class as other programs use it: names of arguments, subclasses, kinds of values, copies."""

import copy
import enum
import threading
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
from helpers import SHORT_FIT, made_table

from swift_hydra import SwiftHydra
from swift_hydra.run.report import ranking
from swift_hydra.settings import InputError

pytestmark = pytest.mark.usefixtures("few_candidates")

X, y = made_table(120, 4, 12)


class Preset(enum.StrEnum):
    PAPER = "paper"


def short(**settings):
    return SwiftHydra(**SHORT_FIT | settings)


VALUES = {
    "decimal labels": lambda: short().fit(X, [Decimal(int(label)) for label in y]),
    "a numpy text as name": lambda: short().fit(X, pd.Series(y, name=np.array(["lab"])[0])),
    "a fraction": lambda: short(contamination=Fraction(1, 10)).fit(X, y),
    "a member of an enumeration": lambda: short(preset=Preset.PAPER).fit(X, y),
    "a decimal as anomaly": lambda: short(anomaly_label=Decimal(1)).fit(X, y),
    "an array of settings": lambda: short(cleaning_settings={"looks": np.array(["nearness"])}).fit(
        X, y
    ),
    "labels of two kinds": lambda: short(anomaly_label="attack").fit(
        X, ["attack" if label else 0 for label in y]
    ),
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("kind", VALUES)
def test_what_is_saved_can_be_loaded(kind, tmp_path):
    model = VALUES[kind]()
    model.save(tmp_path / "model.pt")
    again = SwiftHydra.load(tmp_path / "model.pt")
    assert np.array_equal(again.decision_function(X), model.decision_function(X))
    assert again.threshold_ == model.threshold_
    assert [str(label) for label in again.classes_] == [str(label) for label in model.classes_]


def test_both_names_of_rows_and_labels_may_be_mixed():
    wanted = short().fit(X, y).decision_function(X)
    for names in ({"X_train": X, "y": y}, {"X": X, "y_train": y}, {"X_train": X, "y_train": y}):
        assert np.array_equal(short().fit(**names).decision_function(X), wanted)
    with pytest.raises(InputError, match="two names of one"):
        short().fit(X, y, y_train=y)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (lambda: None, "NoneType.: give an array or a data frame"),
        (lambda: {"a": 1}, "dict.: give an array or a data frame"),
        (lambda: (row for row in X), "generator.: give an array or a data frame"),
        (lambda: pytest.importorskip("polars").LazyFrame({"a": [1]}), r"give X\.collect\(\)"),
        (lambda: pytest.importorskip("polars").DataFrame({"a": [1]}).to_struct(), "struct.unnest"),
    ],
)
def test_what_is_no_table_is_named(rows, message):
    with pytest.raises(InputError, match=message):
        short().fit(rows(), [0, 1])


class Paper(SwiftHydra):
    """scikit-learn's way to a subclass: settings of its own."""

    def __init__(self, *, random_state=0):
        super().__init__(**SHORT_FIT, random_state=random_state, preset="paper")


def test_a_subclass_with_its_own_settings_fits_and_is_saved(tmp_path):
    model = Paper(random_state=3).fit(X, y)
    wanted = short(preset="paper", random_state=3).fit(X, y).decision_function(X)
    assert np.array_equal(model.decision_function(X), wanted)
    model.save(tmp_path / "model.pt")
    again = SwiftHydra.load(tmp_path / "model.pt")
    assert again.preset == "paper" and np.array_equal(again.decision_function(X), wanted)


class Bar:
    def __init__(self):
        self.lock = threading.Lock()
        self.stages = set()

    def step(self, stage, *_, **__):
        self.stages.add(stage)

    __call__ = step


@pytest.mark.parametrize("kind", ["method", "object"])
def test_progress_may_be_anything_that_can_be_called(kind):
    bar = Bar()
    short(progress=bar.step if kind == "method" else bar).fit(X, y)
    assert "mixture" in bar.stages


def test_a_fitted_detector_goes_on_as_it_was_fitted(tmp_path):
    model = short(dates=True).fit(X, y)
    scores = model.decision_function(X)
    model.set_params(dates=False, contamination="nope")
    assert np.array_equal(model.decision_function(X), scores)
    model.set_false_alarms(0.1).save(tmp_path / "model.pt")
    assert SwiftHydra.load(tmp_path / "model.pt").threshold_ == model.threshold_


@pytest.mark.usefixtures("hasty_students")
def test_another_share_to_verify_has_the_thresholds_of_a_fit_with_it(tmp_path):
    model = short(fast=True, verify=0.0).fit(X, y)
    model.save(tmp_path / "model.pt")
    model = SwiftHydra.load(tmp_path / "model.pt")
    for share in (1.0, 0.3):
        wanted = short(fast=True, verify=share).fit(X, y)
        model.set_params(verify=share)
        assert np.array_equal(model.predict(X), wanted.predict(X))
        assert np.array_equal(model.p_values(X), wanted.p_values(X))
        assert model.threshold_ == wanted.threshold_
        assert np.array_equal(model.decision_scores_, wanted.decision_scores_)
    model.set_params(verify=7)
    with pytest.raises(InputError, match="verify=7"):
        model.predict(X)


def test_a_copy_has_its_own_threshold(tmp_path):
    model = short().fit(X, y)
    other = copy.copy(model)
    other.set_contamination(0.5)
    model.save(tmp_path / "model.pt")
    assert SwiftHydra.load(tmp_path / "model.pt").threshold_ == model.threshold_


def test_rows_without_a_label_are_not_trusted_and_it_is_said():
    with pytest.warns(UserWarning, match="no row has a label: label them 0"):
        model = short(trust_normals=True).fit(X)
    plain = short().fit(X)
    assert np.array_equal(model.decision_function(X), plain.decision_function(X))


def test_a_ranking_agrees_with_itself():
    """Rank, flag and p-value of a row are of one score, also where rows have few values."""
    rows = np.random.default_rng(0).integers(0, 4, (400, 3)).astype(float)
    model = short(contamination=0.1).fit(rows)
    lines = [line.split(",") for line in ranking(model).decode().splitlines()[1:]]
    score, p, rank, flag = (np.array([float(line[j]) for line in lines]) for j in (1, 2, 3, 4))
    assert score[flag == 1].min() > score[flag == 0].max() and flag.sum() > 0
    assert rank[flag == 1].max() < rank[flag == 0].min()
    assert p[flag == 1].max() <= p[flag == 0].min()
    assert (p <= 0.05).mean() < 0.1
