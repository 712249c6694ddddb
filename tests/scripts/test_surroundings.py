"""The class in somebody else's program: torch's modes, settings, fits that are cut off, files."""

import contextlib
import copy
import inspect
import os
import subprocess
import sys
import threading
import warnings
from dataclasses import fields
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import SHORT_FIT, hasty, made_table
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from threadpoolctl import ThreadpoolController

from swift_hydra import SwiftHydra, estimator
from swift_hydra.cleaning.suspects import set_aside
from swift_hydra.dataloader import load_dataset
from swift_hydra.detection.sides import PARTS
from swift_hydra.exported import Exported
from swift_hydra.flags import OPTIONS
from swift_hydra.generation.agent import PolicyProposer
from swift_hydra.generation.environment import LatentEnvironment
from swift_hydra.generation.reward import RewardFunction
from swift_hydra.model import MambaExperts, MoEDetector
from swift_hydra.modes import own_modes
from swift_hydra.settings import InputError
from swift_hydra.training.threads import LARGE_TO_SCORE, few_threads

pytestmark = pytest.mark.usefixtures("few_candidates")

X, y = made_table(120, 4, 12)


@pytest.fixture(scope="module", autouse=True)
def hasty_students():
    with hasty():
        yield


def short(**settings):
    return SwiftHydra(**SHORT_FIT, **settings)


@pytest.fixture(scope="module")
def fitted_once():
    return short().fit(X, y)


@pytest.fixture(scope="module")
def student_fitted_once():
    return short(fast=True).fit(X, y)


@pytest.fixture
def fitted(fitted_once):
    """A detector that the test may change: the fit itself is what most tests here do not ask of."""
    return copy.deepcopy(fitted_once)


@pytest.fixture
def with_student(student_fitted_once):
    return copy.deepcopy(student_fitted_once)


@pytest.fixture(scope="module")
def scores(fitted_once):
    return fitted_once.decision_function(X)


def float64():
    class Default:
        def __enter__(self):
            torch.set_default_dtype(torch.float64)

        def __exit__(self, *error):
            assert torch.get_default_dtype() == torch.float64
            torch.set_default_dtype(torch.float32)

    return Default()


def low_precision():
    """bfloat16 in products, as torch.set_float32_matmul_precision allows it."""

    class Products:
        def __enter__(self):
            torch.set_float32_matmul_precision("medium")

        def __exit__(self, *error):
            assert torch.get_float32_matmul_precision() == "medium"
            torch.set_float32_matmul_precision("highest")

    return Products()


MODES = {
    "float64": float64,
    "low_precision": low_precision,
    "no_grad": torch.no_grad,
    "inference": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "meta": lambda: torch.device("meta"),
}


@pytest.mark.parametrize("mode", MODES)
def test_the_callers_torch_modes_change_nothing(mode, scores, tmp_path):
    with MODES[mode]():
        model = short().fit(X, y)
        assert np.array_equal(model.decision_function(X), scores)
        model.save(tmp_path / "model.pt")
        assert np.array_equal(SwiftHydra.load(tmp_path / "model.pt").decision_function(X), scores)
        if mode == "float64":  # a student is trained longer than all the rest here
            model = short(fast=True, verify=0).fit(X, y)
            model.save(tmp_path / "model.pt")
            again = SwiftHydra.load(tmp_path / "model.pt").decision_function(X)
            assert np.array_equal(again, model.decision_function(X))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_the_precision_of_products_is_kept_and_given_back():
    """By either of torch's names for it, and to a child that is forked meanwhile."""
    backend = torch.backends.mkldnn.matmul
    try:
        for precision in ("medium", "high"):
            torch.set_float32_matmul_precision(precision)
            before = backend.fp32_precision
            with own_modes():
                assert torch.get_float32_matmul_precision() == "highest"
                child = os.fork()
                if not child:
                    os._exit(torch.get_float32_matmul_precision() != precision)
                assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
            assert torch.get_float32_matmul_precision() == precision
            assert backend.fp32_precision == before
        torch.set_float32_matmul_precision("highest")
        backend.fp32_precision = "bf16"
        with own_modes():
            assert backend.fp32_precision == "ieee"
        assert backend.fp32_precision == "bf16"
    finally:
        torch.set_float32_matmul_precision("highest")
        backend.fp32_precision = "none"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_child_that_leaves_what_was_entered_before_the_fork_sets_the_modes_again():
    """It counted one caller less than none, and a later fit ran in the child's own modes."""
    with float64():
        with contextlib.suppress(KeyError), own_modes():
            child = os.fork()
            if not child:
                raise KeyError
        if not child:
            with own_modes():
                inside = torch.get_default_dtype()
            os._exit(inside != torch.float32 or torch.get_default_dtype() != torch.float64)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def numbers_of_threads():
    pools = ThreadpoolController().info()
    return [torch.get_num_threads(), *(pool["num_threads"] for pool in pools)]


def set_threads(number):
    """Of everything; linear algebra's by a thread that ends, since the one that sets it owns it."""
    pools = ThreadpoolController()
    blas = pools.select(user_api="blas")
    setter = threading.Thread(target=blas.limit, kwargs={"limits": number})
    setter.start()
    setter.join()
    pools.select(user_api="openmp").limit(limits=number)
    torch.set_num_threads(number)


@pytest.fixture
def two_threads():
    """Two threads of everything, as a caller's process may have."""
    set_threads(2)
    yield numbers_of_threads()
    set_threads(1)


def test_a_fit_and_small_scoring_take_one_thread_and_give_the_others_back(two_threads, scores):
    """Waiting threads of small products took a fit of ten seconds minutes on busy cores."""
    seen = []
    model = short(progress=lambda *_, **losses: seen.append(set(numbers_of_threads()))).fit(X, y)
    assert seen and set(map(frozenset, seen)) == {frozenset({1})}
    assert numbers_of_threads() == two_threads
    detector = model.detector_

    class Asked:
        def score(self, Z):
            seen.append(set(numbers_of_threads()))
            return detector.score(Z) if len(Z) == len(X) else np.zeros(len(Z))  # many take long

    model.detector_ = Asked()
    assert np.array_equal(model.decision_function(X), scores)
    assert seen[-1] == {1} and numbers_of_threads() == two_threads
    rows = LARGE_TO_SCORE // X.shape[1] + 1
    model.decision_function(np.tile(X, (rows // len(X) + 1, 1)))
    assert seen[-1] == {2} and numbers_of_threads() == two_threads
    with pytest.raises(InputError):
        model.set_params(progress=None, max_samples=4).fit(X, np.r_[y[:20], y[:-20]])
    assert numbers_of_threads() == two_threads


def test_threads_that_overlap_give_back_what_was_there(two_threads):
    """Whoever leaves first: linear algebra's number is one for all, torch's is each thread's."""
    inside, leave, after = threading.Barrier(2), threading.Event(), {}

    def work(name):
        with few_threads(1):
            inside.wait()
            if name == "last":
                leave.wait()
                after["inside"] = numbers_of_threads()
        after[name] = torch.get_num_threads()

    workers = [threading.Thread(target=work, args=[name]) for name in ("first", "last")]
    for worker in workers:
        worker.start()
    workers[0].join()
    leave.set()
    workers[1].join()
    assert set(after["inside"]) == {1} and after["first"] == after["last"] == 2
    assert numbers_of_threads() == two_threads
    with few_threads(1):
        with few_threads(1):
            pass
        assert set(numbers_of_threads()) == {1}  # the inner one ends nothing
    with few_threads(10, large=10):
        assert numbers_of_threads() == two_threads


AT_THE_END = """
import atexit, threading, time
import numpy as np
from swift_hydra import SwiftHydra
model = SwiftHydra.load({path!r})
def score(where):
    print(where, len(model.decision_function(np.zeros((1, {d})))), flush=True)
def work():
    threading.main_thread().join()
    score("thread")
atexit.register(score, "exit")
threading.Thread(target=work).start()
"""


def test_a_program_that_ends_scores_to_the_end(fitted, tmp_path):
    """A worker outlives the main thread: "cannot schedule new futures after shutdown" it was."""
    path = str(tmp_path / "model.pt")
    fitted.save(path)
    code = AT_THE_END.format(path=path, d=X.shape[1])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.split() == ["thread", "1", "exit", "1"], done.stderr


def test_threads_under_another_default_type(scores):
    found = {}

    def fit(k):
        found[k] = short().fit(X, y).decision_function(X)

    with float64():
        threads = [threading.Thread(target=fit, args=[k]) for k in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert all(np.array_equal(found[k], scores) for k in range(3))


def test_no_global_random_stream_is_moved_by_loading(with_student, tmp_path):
    with_student.save(tmp_path / "model.pt")
    before = torch.get_rng_state()
    SwiftHydra.load(tmp_path / "model.pt")
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("stage", ["cvae", "mixture", "student"])
def test_a_fit_that_is_cut_off_leaves_the_one_before(stage, with_student):
    model = with_student.set_verify(0)
    scores, threshold = model.decision_function(X), model.threshold_
    seen = []

    def cut(name, *_, **losses):
        seen.append(name)
        if name.startswith(stage):
            raise KeyboardInterrupt

    model.set_params(progress=cut)
    with pytest.raises(KeyboardInterrupt):
        model.fit(100 * X[:, :3] + 50, y)
    assert seen[-1].startswith(stage)
    assert np.array_equal(model.decision_function(X), scores) and model.threshold_ == threshold


def test_a_first_fit_that_is_cut_off_is_none():
    def cut(*_, **losses):
        raise KeyboardInterrupt

    model = short(progress=cut)
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, y)
    with pytest.raises(NotFittedError):
        model.decision_function(X)


@pytest.mark.parametrize(
    "call",
    [
        lambda model: model.set_contamination(0.1),
        lambda model: model.set_false_alarms(0.1),
        lambda model: model.p_values_of([0.0]),
        lambda model: model.save("model.pt"),
        lambda model: model.explain(X),
        lambda model: model.export("student.onnx"),
    ],
)
def test_before_fit(call):
    with pytest.raises(NotFittedError):
        call(SwiftHydra(fast=True))


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("trust_normals", "False"),
        ("fast", "no"),
        ("dates", "yes"),
        ("majority_anomalies", None),
        ("policy_settings", [1]),
        ("policy_settings", {"warmup": True}),
        ("mixture_settings", {"heads": 1}),
        ("mixture_settings", {"k": 1}),
        ("cleaning_settings", {"looks_like": 1}),
        ("cleaning_settings", {"looks": "likeness"}),
        ("cleaning_settings", {"looks": ()}),
        ("detector_settings", {"without": ()}),
        ("detector_settings", {"without": ("distances",)}),
        ("detector_settings", {"without": ("kernels", "evidence", "mixture")}),
        ("mixture_settings", {"block": "tree"}),
        ("mixture_settings", {"n_tokens": 0}),
        ("mixture_settings", {"backend": "torch"}),
        ("policy_settings", {"n_steps": 0}),
        ("policy_settings", {"anomaly_share": 1.5}),
        ("policy_settings", {"quantile": 95}),
        ("policy_settings", {"coverage": "no"}),
        ("progress", 5),
        ("device", None),
    ],
)
def test_settings_of_another_kind_are_refused_by_name(setting, value):
    with pytest.raises(InputError, match=setting) as caught:
        short(**{setting: value}).fit(X, y)
    assert "\n" not in str(caught.value)


def test_every_option_of_the_parts_can_be_given():
    """What OPTIONS lists is what the parts take, but for what is a setting of its own."""
    takers = {
        "cleaning_settings": (set_aside,),
        "policy_settings": (LatentEnvironment, RewardFunction, PolicyProposer),
        "mixture_settings": (MoEDetector, MambaExperts),
    }
    own = {f.name for f in fields(SwiftHydra)} | {"backend"}
    for name, functions in takers.items():
        parameters = [p for f in functions for p in inspect.signature(f).parameters.values()]
        assert (
            OPTIONS[name].keys() == {p.name for p in parameters if p.default is not p.empty} - own
        )


@pytest.mark.parametrize("part", PARTS)
def test_a_part_of_the_detector_can_be_left_out(tmp_path, fitted, part):
    whole = fitted.detector_
    model = short(detector_settings={"without": (part,)}).fit(X, y)
    known = model.detector_.known
    counts = model.detector_.combiner.known.weights > 0
    assert counts.tolist() == [part != "mixture"] + [part != "kernels"] * len(known.kernels)
    n_inputs = known.mixture.network.router.clean.in_features
    assert (n_inputs == X.shape[1]) == (part == "evidence")
    scores = model.decision_function(X)
    assert not np.array_equal(scores, fitted.decision_function(X))
    assert whole.known.sees_evidence and (whole.combiner.known.weights > 0).all()
    model.save(tmp_path / "model.pt")
    assert np.array_equal(SwiftHydra.load(tmp_path / "model.pt").decision_function(X), scores)


def test_numpys_bools_are_bools():
    assert short(trust_normals=np.True_).fit(X, y).kept_.all()
    short(trust_normals=np.False_).check_settings()


def test_settings_from_a_search_are_saved(tmp_path):
    policy = {"warm_up": np.bool_(True), "quantile": np.float64(0.8)}
    model = short(preset="paper", policy_settings=policy, unlike_weight=np.float32(0.25))
    model.fit(X, y).save(tmp_path / "model.pt")
    loaded = SwiftHydra.load(tmp_path / "model.pt")
    assert np.array_equal(loaded.decision_function(X), model.decision_function(X))
    assert loaded.policy_settings == {"warm_up": True, "quantile": 0.8}


# Every setting that is a number, at one that uint8 holds, or a share.
WHOLE = {name: int(value) for name, value in SHORT_FIT.items()}
WHOLE |= {"random_state": 3, "n_experts": 4, "k": 2, "max_normals": 100, "max_centres": 40}
WHOLE |= {"max_samples": 200, "n_members": 2}
SHARES = {"beta": 0.375, "synthetic_share": 0.25, "unlike_weight": 0.375, "verify": 0.25}
SHARES |= {"contamination": 0.1875, "false_alarms": 0.1875}  # all of them exact in any type


def test_all_settings_that_are_numbers_are_tried_as_other_numbers():
    bounded = [f.name for f in fields(SwiftHydra) if f.metadata.get("low") is not None]
    assert {*bounded, "n_experts", "contamination"} == {*WHOLE, *SHARES}


@pytest.fixture(scope="module")
def in_pythons_numbers():
    return SwiftHydra(fast=True, **WHOLE, **SHARES).fit(X, y)


def test_rows_that_stand_for_more_are_as_many_as_stated(in_pythons_numbers):
    detector = in_pythons_numbers.detector_
    assert [len(k.centres) for k in detector.known.kernels] == [40] * len(detector.known.kernels)
    assert len(detector.evidence.surroundings.sides[0].reference) == 100


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize(
    ("whole", "real"),
    [(np.uint8, np.float16), (np.int16, np.float32), (np.uint8, Fraction)],
)
def test_numbers_of_any_type_are_the_numbers_that_they_are(
    whole, real, in_pythons_numbers, tmp_path
):
    given = {name: whole(value) for name, value in WHOLE.items()}
    given |= {name: real(value) for name, value in SHARES.items()}
    model = SwiftHydra(fast=True, **given)
    assert clone(model).get_params()["unlike_weight"] is given["unlike_weight"]
    model.fit(X, y).save(tmp_path / "model.pt")
    assert model.k is given["k"] and type(model.settings_["k"]) is int
    plainly = copy.deepcopy(in_pythons_numbers)
    scores, threshold = plainly.decision_function(X), plainly.threshold_
    for same in (model, SwiftHydra.load(tmp_path / "model.pt")):
        assert np.array_equal(same.decision_function(X), scores)
        assert np.array_equal(same.decision_function(X, chunk_rows=whole(90)), scores)
        assert same.threshold_ == threshold
    for setter, share in (("contamination", 0.25), ("false_alarms", 0.125), ("verify", 0.5)):
        getattr(model, f"set_{setter}")(real(share)).save(tmp_path / "model.pt")
        getattr(plainly, f"set_{setter}")(share)
        for same in (model, SwiftHydra.load(tmp_path / "model.pt")):
            assert same.threshold_ == plainly.threshold_
            assert np.array_equal(same.decision_function(X), plainly.decision_function(X))


def test_what_is_set_after_a_fit_waits_for_the_next(fitted, tmp_path):
    model = fitted
    model.set_params(preset="paper", contamination=0.3, random_state=None, unlike_weight=0.9)
    model.save(tmp_path / "model.pt")
    loaded = SwiftHydra.load(tmp_path / "model.pt")
    assert (loaded.preset, loaded.contamination, loaded.random_state) == ("full", "auto", 0)
    assert loaded.threshold_ == model.threshold_
    assert np.array_equal(loaded.predict(X), model.predict(X))
    model.set_contamination(0.3).save(tmp_path / "model.pt")
    assert SwiftHydra.load(tmp_path / "model.pt").threshold_ == model.threshold_


@pytest.mark.parametrize("k", [0, -1, 2.5, "2", None])
def test_features_to_name_are_counted(k, fitted):
    with pytest.raises(InputError, match="k="):
        fitted.explain(X, k=k)


def test_rows_at_a_time_and_scores_are_checked(fitted):
    with pytest.raises(InputError, match="chunk_rows"):
        fitted.decision_function(X, chunk_rows=-1)
    with pytest.raises(InputError, match="finite"):
        fitted.p_values_of([np.nan])


TENSORS = {
    "with a gradient": lambda rows: torch.tensor(rows, requires_grad=True),
    "bfloat16": lambda rows: torch.tensor(rows).bfloat16(),
    "float8": lambda rows: torch.tensor(rows).to(torch.float8_e4m3fn),
    "a view of minus": lambda rows: torch._neg_view(torch.tensor(-rows)),
    "a list of rows with a gradient": lambda rows: list(torch.tensor(rows, requires_grad=True)),
    "a tuple of bfloat16": lambda rows: tuple(torch.tensor(rows).bfloat16()),
}
NO_TENSORS = {
    "meta": lambda rows: rows.to("meta"),
    "sparse": lambda rows: rows.to_sparse(),
    "nested": lambda rows: torch.nested.nested_tensor(list(rows)),
}


@pytest.mark.parametrize("kind", TENSORS)
def test_tensors_are_arrays(kind, fitted):
    rows = TENSORS[kind](X)
    labels = [torch.tensor(float(label), requires_grad=True) for label in y]
    model = short().fit(rows, labels if isinstance(rows, list) else torch.tensor(y))
    plainly = torch.stack([*rows]).detach().float().resolve_neg().numpy()
    same = fitted if np.array_equal(plainly, X) else short().fit(plainly, y)
    assert np.array_equal(model.decision_scores_, same.decision_scores_)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("kind", NO_TENSORS)
def test_tensors_that_numpy_does_not_take_are_refused_in_one_line(kind):
    """torch's RuntimeErrors and NotImplementedErrors were shown as they were."""
    tensor = NO_TENSORS[kind](torch.tensor(X))
    told = {"X": "no table .*: give a dense array", "y": "y is no list", "groups": "no list of"}
    for name, words in told.items():
        with pytest.raises(InputError, match=words) as caught:
            short().fit(**{"X": X, "y": y, name: tensor})
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("column", [np.arange(120) == 50, X[:, 0] > 0])
def test_the_smallest_number_is_one(column):
    with np.errstate(all="raise", under="ignore"):
        model = short().fit(np.column_stack([X, column * 5e-324]), y)
    assert np.isfinite(model.decision_scores_).all()


def test_whole_numbers_of_all_of_int64(recwarn):
    rows = np.random.default_rng(0).integers(-(2**63), 2**63 - 1, (120, 3))
    with np.errstate(all="raise", under="ignore"):
        short().fit(rows, y)
    assert not [w for w in recwarn if "like an id" in str(w.message)]


def test_labels_of_two_kinds_are_what_they_were_in_the_file(tmp_path):
    labels = np.array([*("attack" if label else 0 for label in y), None], dtype=object)[:-1]
    model = short(anomaly_label="attack").fit(X, labels)
    model.save(tmp_path / "model.pt")
    assert set(model.predict(X)) <= {0, "attack"} and 0 in model.predict(X)
    assert (SwiftHydra.load(tmp_path / "model.pt").predict(X) == model.predict(X)).all()
    with pytest.raises(InputError, match=r"No such file or directory.*: make its folder or"):
        model.save(tmp_path / "nowhere" / "model.pt")


def test_scores_that_differ_by_rounding_have_one_p_value():
    """Or all copies of a code would be flagged by who rounds in another way than the fit did."""
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 3, (200, 2)).astype(float)
    model = short(false_alarms=0.05).fit(codes, (np.arange(200) < 8).astype(int))
    scores = model.normal_scores_
    for other in (scores * (1 + 1e-12), scores * (1 - 1e-12)):
        assert np.array_equal(model.p_values_of(other), model.p_values_of(scores))
        assert np.array_equal(other > model.threshold_, scores > model.threshold_)


def test_paper_says_that_its_alarms_rest_on_rows_that_were_learned_from(fitted, tmp_path):
    """On 120 rows of 30 columns .36 of fresh normal rows were flagged where .05 was stated."""
    model = short(preset="paper", fast=True, verify=0.0).fit(X, y)
    model.save(tmp_path / "m.pt")
    loaded = SwiftHydra.load(tmp_path / "m.pt")
    for one in (model, loaded):
        with pytest.warns(UserWarning, match="paper.* has no left-out scores"):
            one.set_false_alarms(0.1)
        with pytest.warns(UserWarning, match="may be flagged several times as often as stated"):
            one.p_values(X)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fitted.set_false_alarms(0.1).p_values(X)


def test_a_chunk_is_smaller_where_texts_become_many_columns(monkeypatch):
    texts = [[f"t{i % 30}", float(i % 7)] for i in range(120)]
    model = short(categorical="onehot").fit(texts, y)
    monkeypatch.setattr(estimator, "CHUNK_NUMBERS", 320)
    assert model.default_chunk_rows() == 320 // 32 + 1


def test_new_rows_with_gaps_are_told_that_the_fit_settled_it(fitted):
    rows = X[:3].copy()
    rows[1, 0] = np.nan
    for call in (fitted.predict, fitted.decision_function, fitted.p_values):
        with pytest.raises(InputError, match=r"--impute: settled in the fit: mend these rows"):
            call(rows)


def test_a_threshold_that_a_warning_stops_is_the_one_before(fitted, tmp_path):
    model = fitted
    before = model.threshold_, model.false_alarms, dict(model.settings_)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserWarning, match="cannot tell so rare an alarm"):
            model.set_false_alarms(1e-9)
    assert (model.threshold_, model.false_alarms, model.settings_) == before
    model.save(tmp_path / "m.pt")
    assert SwiftHydra.load(tmp_path / "m.pt").threshold_ == before[0]


def test_a_share_to_verify_that_a_warning_stops_is_the_one_before(with_student):
    model = with_student
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.set_false_alarms(1e-9)
    before = model.verify, model.settings_["verify"], model.fresh_scores_.copy()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserWarning, match="cannot tell so rare an alarm"):
            model.set_verify(0.5)
    assert (model.verify, model.settings_["verify"]) == before[:2]
    assert np.array_equal(model.fresh_scores_, before[2])


def test_warnings_name_the_line_that_asked(tmp_path):
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        wide = np.column_stack([X, np.arange(len(X))])
        model = SwiftHydra(**SHORT_FIT | {"n_synthetic": 9999}).fit(wide, y)
        model.set_false_alarms(1e-9)
        model.save(tmp_path / "m.pt")
        SwiftHydra.load(tmp_path / "m.pt").predict(np.tile(wide[:1] + 99, (300, 1)))
    assert len(told) >= 5 and {w.filename for w in told} == {__file__}, [str(w) for w in told]


def test_a_score_alone_and_shares_are_refused_with_what_is_meant(fitted):
    model = fitted
    with pytest.raises(InputError, match=r"an array of shape \(\), not a list: give those"):
        model.p_values_of(1.0)
    for share in (None, True, 1, -0.1, "x"):
        with pytest.raises(InputError, match=r"a number from 0 to 0\.99, or 'auto'"):
            model.set_contamination(share)


def test_networks_that_nobody_asks_are_not_trained(fitted):
    assert "pretrain" not in short(generator="none").fit(X, y).seconds_
    assert fitted.generator == "rl" and "pretrain" in fitted.seconds_


@pytest.mark.parametrize("asked", [None, 60])
def test_candidates_of_which_none_is_left_are_said(monkeypatch, asked):
    def with_none(rows, *_):
        return rows[:0]

    monkeypatch.setattr(sys.modules[SwiftHydra.__module__], "_with_best", with_none)
    settings = {"preset": "paper", "generator": "gradient", "n_synthetic": asked}
    said = "n_synthetic=60: only 0 of" if asked else "generator='gradient': none of"
    with pytest.warns(UserWarning, match=f"{said} the candidates passed the filter: more n_epi"):
        model = SwiftHydra(**SHORT_FIT | settings).fit(X, y)
    assert not len(model.synthetic_)


@pytest.mark.parametrize("suffix", [".pt", ".onnx"])
def test_a_name_that_the_system_refuses_is_an_error_of_the_input(fitted, tmp_path, suffix):
    """In the class it was an OSError, of which no docstring says anything."""
    model = fitted
    path = tmp_path / ("n" * 300 + suffix)
    load = SwiftHydra.load
    if suffix == ".onnx":
        pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
        load = Exported.load
    for act in (model.save, load, load_dataset):
        with pytest.raises(InputError, match=r"n: File name too long: give a shorter one$"):
            act(str(path.with_suffix("")))
        for given in ("", b"a\0b", "a\0b", "\ud800", None, 5):
            with pytest.raises(InputError, match=r" is no (path: give|name that a file can have)"):
                act(given)
    with pytest.raises(InputError, match="none/: is the name of a folder: add that of the file"):
        model.save(f"{tmp_path}/none/")


def test_a_path_may_be_of_any_type_and_start_at_home(fitted, tmp_path, monkeypatch):
    """``save("~/m.pt")`` wrote into a folder named ``~``, and bytes ended with a TypeError."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    model = fitted
    for kind in (str, os.fsencode, Path):
        model.save(kind("~/m.pt"))
        assert SwiftHydra.load(kind("~/m.pt")).threshold_ == model.threshold_
        (tmp_path / "m.pt").unlink()
    np.savez(tmp_path / "t.npz", X=X, y=y)
    assert len(load_dataset(b"~/t.npz").X) == len(X)
