"""The student as one ONNX file."""

import copy
import sys

import numpy as np
import pytest
from helpers import FEW_STEPS, SHORT, SHORT_FIT, hasty, made_table, refusal, run_hasty, run_script
from scipy.spatial.distance import cdist

from swift_hydra.exported import Exported
from swift_hydra.settings import InputError
from swift_hydra.SwiftHydra import SwiftHydra, main

pytestmark = pytest.mark.usefixtures("few_candidates")

pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
onnx = pytest.importorskip("onnx", reason="onnx is not installed")


@pytest.fixture(scope="module")
def model():
    X, y = made_table(n=400, n_anomalies=30)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("swift_hydra.distillation.student.STEPS", 200)  # it follows as well
        return SwiftHydra(fast=True, verify=0.0, n_synthetic=60, **FEW_STEPS).fit(X, y)


@pytest.fixture(scope="module")
def file(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("export") / "student.onnx"
    model.export(path)
    return path


@pytest.mark.parametrize("share", [1.5, -0.1, "x", True])
def test_a_refused_share_to_verify_changes_nothing(model, share):
    X, _ = made_table(n=20)
    before = model.decision_function(X)
    with pytest.raises(InputError, match="verify"):
        model.set_verify(share)
    assert model.verify == 0.0 and np.array_equal(model.decision_function(X), before)


def test_equal_scores_on_ten_thousand_rows(model, file):
    X = np.random.default_rng(1).normal(size=(10_000, 6)) * 2
    X[0] = 1e12
    own = model.decision_function(X)
    exported = Exported.load(file)
    np.testing.assert_allclose(exported.decision_function(X), own, atol=1e-5, rtol=1e-5)
    assert exported.threshold_ == model.threshold_
    assert np.array_equal(exported.predict(X[:100]), model.predict(X[:100]))
    np.testing.assert_allclose(exported.p_values(X[:100]), model.p_values(X[:100]), atol=0.01)


def test_narrow_rows_are_scored_as_by_the_checkpoint(tmp_path):
    """A constant that float32 does not hold: the file saw another value in every row."""
    X, y = made_table(n=200, d=3, n_anomalies=20)
    constants = np.random.default_rng(0).normal(size=4) * [1e9, 1e9, 1e12, 1e12]
    X = np.column_stack([X.astype(np.float64), np.tile(constants, (200, 1))])
    with hasty():
        model = SwiftHydra(fast=True, verify=0.0, **SHORT_FIT).fit(X, y)
    model.export(tmp_path / "student.onnx")
    exported = Exported.load(tmp_path / "student.onnx")
    for rows in (X, X.astype(np.float32)):
        own = model.decision_function(rows)
        np.testing.assert_allclose(exported.decision_function(rows), own, atol=1e-5, rtol=1e-5)


def test_columns_that_count_by_a_power_do_so_in_the_file(tmp_path):
    X, y = made_table(n=300, n_anomalies=40)
    X = np.column_stack([np.exp(1.5 * X[:, 0]), -np.square(X[:, 1]), X])
    with hasty():
        model = SwiftHydra(fast=True, verify=0.0, **SHORT_FIT).fit(X, y)
    assert (model.columns_.scaler.start[:2] > 0).all()
    model.export(tmp_path / "student.onnx")
    exported = Exported.load(tmp_path / "student.onnx")
    for sign in (1, 0, -1, 1e9):  # of the two amounts: as in training, or impossible
        rows = X * np.where(np.arange(X.shape[1]) < 2, sign, 1)
        own = model.decision_function(rows)
        np.testing.assert_allclose(exported.decision_function(rows), own, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("share", [0.05, 0.4])
def test_false_alarms_are_those_of_the_checkpoint(model, file, tmp_path, share):
    X, _ = made_table(n=200, n_anomalies=20, seed=3)
    own = copy.copy(model).set_false_alarms(share)
    exported = Exported.load(file).set_false_alarms(share)
    assert exported.threshold_ == pytest.approx(own.threshold_, abs=1e-9)
    assert np.array_equal(exported.predict(X), own.predict(X))
    assert exported._flagged() == pytest.approx(own._flagged(), abs=0.1)
    assert abs(Exported.load(file)._flagged() - own._flagged()) > 0.1 or share < 0.4
    np.savetxt(tmp_path / "t.csv", X, delimiter=",", header="a,b,c,d,e,f", comments="")
    words = ["score", "--checkpoint", file, "--data", tmp_path / "t.csv", "--quiet"]
    words += ["--false-alarms", share, "--out", tmp_path / "s.csv"]
    main([*map(str, words)])
    flags = np.genfromtxt(tmp_path / "s.csv", delimiter=",", skip_header=1)[:, 2]
    assert np.array_equal(flags, own.predict(X))
    with pytest.raises(InputError, match="false_alarms"):
        exported.set_false_alarms(2)
    with pytest.warns(UserWarning, match="no row is ever flagged"):
        assert exported.set_false_alarms(1e-9).threshold_ == np.inf


@pytest.mark.parametrize("verify", [0.3, 1.0])
def test_threshold_and_p_values_are_of_who_scores(model, tmp_path, verify):
    """The file has no detector that would score rows again."""
    other = copy.copy(model).set_verify(verify)
    assert other.threshold_ != model.threshold_
    assert other.student_.follows
    other.export(tmp_path / "o.onnx")
    assert Exported.load(tmp_path / "o.onnx").threshold_ == model.threshold_
    other.student_ = copy.copy(other.student_)
    other.student_.agreement = other.student_.agreement | {"rank_correlation": 0.0}
    with pytest.raises(InputError, match="verify=0"):
        other.export(tmp_path / "o.onnx")
    assert other.verify == verify


def test_plain_onnxruntime_scores_prepared_rows(model, file):
    import onnxruntime

    X = np.random.default_rng(2).normal(size=(3, 6))
    session = onnxruntime.InferenceSession(str(file))
    for rows in (X, X[:1]):  # any number of them
        (scores,) = session.run(None, {"X": rows})
        np.testing.assert_allclose(scores, model.decision_function(rows), atol=1e-5, rtol=1e-5)


def test_it_is_small_and_holds_no_training_row(model, file):
    content = file.read_bytes()
    assert len(content) < 2**20
    X, _ = made_table(n=400, n_anomalies=30)
    for rows in (X, X.astype(np.float64), model.columns_.standardise(X)):
        for row in rows:
            assert row[:2].tobytes() not in content
    Z = model.columns_.standardise(X)
    graph = onnx.load(file).graph
    constants = [a.t for node in graph.node for a in node.attribute if a.HasField("t")]
    arrays = [onnx.numpy_helper.to_array(a) for a in [*graph.initializer, *constants]]
    rows = [a if a.shape[1] == Z.shape[1] else a.T for a in arrays if a.ndim == 2]
    rows = [a for a in rows if a.shape[1] == Z.shape[1]]
    assert sum(map(len, rows)) >= 64  # the centres, each a mean of several rows, are among them
    assert min(cdist(a, Z).min() for a in rows) > 1e-3
    values = {f"{value:.6g}" for value in X[:, 0]}
    assert sum(value in content.decode("latin-1") for value in values) <= 2  # the column's range


def test_without_a_student_it_is_refused(tmp_path):
    X, y = made_table(n=120, n_anomalies=20)
    plain = SwiftHydra(**SHORT_FIT).fit(X, y)
    with pytest.raises(InputError, match="fast=True"):
        plain.export(tmp_path / "s.onnx")
    assert not (tmp_path / "s.onnx").exists()


def test_the_package_is_named_where_it_is_missing(file, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(InputError, match="pip install onnx onnxruntime"):
        Exported.load(file)


@pytest.mark.parametrize("damage", ["missing", "empty", "text", "cut", "other"])
def test_damaged_files_are_refused_in_one_line(file, tmp_path, damage):
    import onnx

    path = tmp_path / "s.onnx"
    if damage == "other":
        x = onnx.helper.make_tensor_value_info("X", onnx.TensorProto.DOUBLE, ["n", 6])
        node = onnx.helper.make_node("Identity", ["X"], ["score"])
        out = onnx.helper.make_tensor_value_info("score", onnx.TensorProto.DOUBLE, ["n", 6])
        graph = onnx.helper.make_graph([node], "other", [x], [out])
        opset = [onnx.helper.make_opsetid("", 17)]
        onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    elif damage != "missing":
        content = {"empty": b"", "text": b"no model", "cut": file.read_bytes()[:5000]}[damage]
        path.write_bytes(content)
    with pytest.raises(InputError, match=r"s\.onnx") as error:
        Exported.load(path)
    assert "\n" not in str(error.value)


def test_a_file_that_cannot_be_read_is_no_want_of_memory(file, tmp_path, monkeypatch):
    (tmp_path / "folder.onnx").mkdir()
    with pytest.raises(InputError, match="is a folder"):
        Exported.load(tmp_path / "folder.onnx")
    monkeypatch.setattr("swift_hydra.exported.os.access", lambda *_: False)  # root may read all
    with pytest.raises(InputError, match="check its permissions"):
        Exported.load(file)


def test_a_graph_that_asks_for_too_much_memory_is_refused(file, tmp_path, monkeypatch):
    import onnx

    model = onnx.load(file)
    size = onnx.numpy_helper.from_array(np.array([2**35 // 8]), "size")  # 32 GiB, in a few bytes
    zero = onnx.helper.make_tensor("zero", onnx.TensorProto.DOUBLE, [1], [0.0])
    make = onnx.helper.make_node
    (score,) = [node for node in model.graph.node if "score" in node.output]
    score.output[:] = ["sound"]
    model.graph.initializer.append(size)
    model.graph.node.extend(
        [
            make("ConstantOfShape", ["size"], ["much"], value=zero),
            make("ReduceSum", ["much"], ["little"], keepdims=0),
            make("Add", ["sound", "little"], ["score"]),
        ]
    )
    onnx.save(model, tmp_path / "s.onnx")
    with pytest.raises(InputError, match=r"s\.onnx: .*(memory|does not fit together)"):
        Exported.load(tmp_path / "s.onnx")
    monkeypatch.setattr("swift_hydra.exported.LARGEST_FILE", 100)
    with pytest.raises(InputError, match="more than 100 bytes"):
        Exported.load(file)


def test_commands(tmp_path, capsys, monkeypatch):
    X, y = made_table(n=200, n_anomalies=20)
    texts = np.where(X[:, 2] > 0, "red", "blue")
    lines = ["a,b,c,outlier"]
    for row, text, label in zip(X, texts, y, strict=True):
        lines.append(f"{row[0]:.5f},{row[1]:.5f},{text},{label}")
    (tmp_path / "t.csv").write_text("\n".join(lines) + "\n")
    flags = (
        "--categorical",
        "onehot",
        "--fast",
        "--verify",
        "0",
        "--export",
        "--out",
        "out",
        *SHORT,
    )
    done = run_hasty("SwiftHydra.py", "t.csv", "--label-column", "outlier", *flags, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    run = tmp_path / "out" / "t" / "seen" / "seed0"
    (tmp_path / "new.csv").write_text(
        "\n".join(",".join(line.split(",")[:3]) for line in lines) + "\n"
    )
    scores = []
    for name in ("checkpoint.pt", "student.onnx"):
        arguments = ("--checkpoint", run / name, "--data", "new.csv", "--p-values", "--force")
        done = run_script("SwiftHydra.py", "score", *arguments, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        scores.append(np.loadtxt(tmp_path / "scores.csv", delimiter=",", skiprows=1))
    np.testing.assert_allclose(scores[1][:, 1], scores[0][:, 1], atol=1e-5, rtol=1e-5)
    assert np.array_equal(scores[1][:, 2], scores[0][:, 2])
    monkeypatch.chdir(tmp_path)
    content = (run / "student.onnx").read_bytes()
    for damaged in (content[:-1], b""):  # as a crash may leave it
        (run / "student.onnx").write_bytes(damaged)
        assert not Exported.is_whole(run / "student.onnx")
    main(["t.csv", "--label-column", "outlier", *map(str, flags), "--resume"])
    assert (run / "student.onnx").read_bytes() == content
    words = ["score", "--checkpoint", run / "student.onnx", "--data", tmp_path / "new.csv"]
    words = [*map(str, words), "--verify", "0.1", "--force"]
    assert "--verify" in refusal(capsys, lambda: main(words))
    assert "--fast" in refusal(capsys, lambda: main([str(tmp_path / "t.csv"), "--export"]))
