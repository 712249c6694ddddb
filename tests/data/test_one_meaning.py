"""One table written in several ways has one meaning: accents, bools, long numbers, digits, ids."""

import os
import tracemalloc
import unicodedata
import warnings

import numpy as np
import pytest
import torch
from helpers import SHORT_FIT, made_table, written
from sklearn.metrics import roc_auc_score

from swift_hydra.data.columns import ColumnSettings
from swift_hydra.data.files import stream_table
from swift_hydra.data.labels import read_labels
from swift_hydra.data.reading import LONGEST_PIECE, Reading, composed
from swift_hydra.data.rows import TrainingRows
from swift_hydra.data.suspicious import notes
from swift_hydra.data.table import as_table
from swift_hydra.dataloader import load_dataset
from swift_hydra.detection.coordinates import NormalScores
from swift_hydra.modes import own_modes
from swift_hydra.settings import InputError, advised
from swift_hydra.SwiftHydra import SwiftHydra

pandas = pytest.importorskip("pandas")
pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.usefixtures("few_candidates"),
]

ROWS = np.arange(60)
LABELS = (ROWS % 6 == 0).astype(int)


def load(path, **settings):
    return load_dataset(str(path), settings=ColumnSettings(**settings))


# --- accents --------------------------------------------------------------------------------------


def parted(text):
    """An accent and its letter as two characters."""
    return unicodedata.normalize("NFD", text)


@pytest.mark.parametrize("kind", ["csv", "parquet"])
@pytest.mark.parametrize("asked", ["café", parted("café")])
def test_labels_names_and_texts_of_either_form_are_one(tmp_path, kind, asked):
    words = [w if i % 2 else parted(w) for i, w in enumerate(np.where(LABELS, "café", "ok"))]
    frame = pandas.DataFrame({parted("é"): ROWS % 7, "w": np.where(ROWS % 3, "b", parted("ü"))})
    data = load(
        written(frame.assign(y=words), tmp_path, kind), anomaly_label=asked, categorical="onehot"
    )
    assert data.y.tolist() == LABELS.tolist()
    assert data.table.columns == ["é", "w"]
    assert data.table.texts[1] == ["ü", "b"]


@pytest.mark.parametrize("kind", ["csv", "parquet"])
@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_flags_of_either_form_are_one(tmp_path, kind, form):
    word = unicodedata.normalize(form, "café")
    frame = pandas.DataFrame({"a": ROWS % 7, "café": LABELS, "café id": ROWS, "y": 1 - LABELS})
    frame = frame.assign(w=np.where(ROWS % 3, "b", parted("café")))
    path = written(frame, tmp_path, kind)
    settings = ColumnSettings(categorical="onehot", impute="median")
    options = {"settings": settings, "reading": Reading(missing=word)}
    data = load_dataset(str(path), word, drop_columns=f"y,{word} id", **options)
    assert data.y.tolist() == LABELS.tolist()
    assert data.table.columns == ["a", "w"] and data.table.texts[1] == ["b"]
    ((_, ids),) = stream_table(path, ["a"], 1, id_column=f"{word} id")
    assert [int(row) for row in ids] == ROWS.tolist()


@pytest.mark.parametrize("kind", ["csv", "parquet", "npz"])
@pytest.mark.parametrize("gap", ["0", "-1", "?,1.0"])
def test_a_number_that_is_a_gap_of_the_features_is_a_label(tmp_path, kind, gap):
    y = np.where(ROWS % 6 == 1, -1, LABELS)
    frame = pandas.DataFrame({"a": (ROWS % 7) - 1, "b": ROWS, "y": y})
    if kind == "npz":
        path = tmp_path / "t.npz"
        np.savez(path, X=frame[["a", "b"]].to_numpy(), y=y)
    else:
        path = written(frame, tmp_path, kind)
    settings = ColumnSettings(impute="median")
    data = load_dataset(str(path), settings=settings, reading=Reading(missing=gap))
    assert data.y.tolist() == y.tolist()
    number = float(gap.split(",")[-1])
    assert np.array_equal(np.isnan(data.table.X[:, 0]), frame.a == number)


def test_a_text_that_is_a_gap_is_no_label(tmp_path):
    frame = pandas.DataFrame({"a": ROWS, "y": np.where(ROWS == 3, "?", LABELS.astype(str))})
    with pytest.raises(InputError, match="the labels are empty in 1 rows"):
        load_dataset(str(written(frame, tmp_path, "csv")), reading=Reading(missing="0,?"))


def test_a_list_of_names_with_a_line_break(tmp_path):
    frame = pandas.DataFrame({"a": ROWS, "b\nc": ROWS, "d": ROWS, "y": LABELS})
    path = str(written(frame, tmp_path, "csv"))
    with pytest.raises(InputError, match=r"drop_columns='b.nc' .* line break in quotes"):
        load_dataset(path, drop_columns="b\nc")
    with pytest.raises(InputError, match="drop_columns="):
        load_dataset(path, drop_columns="b" * 200_000)
    assert load_dataset(path, drop_columns='"b\nc",d').columns == ("a",)


def test_a_frame_of_the_other_form_has_the_same_scores():
    X, y = made_table(n=60, n_anomalies=6, d=2)
    frame = pandas.DataFrame(X, columns=["é", "b"]).assign(w=np.where(ROWS % 3, "ü", "b"))
    model = SwiftHydra(categorical="onehot", **SHORT_FIT).fit(frame, y)
    other = frame.rename(columns=parted).assign(w=[*map(parted, frame.w)])
    assert np.array_equal(model.decision_function(other), model.decision_function(frame))


def test_many_marks_in_a_row_take_no_time_and_stay():
    assert composed("naïve" + parted("é") * 3) == "naïve" + "é" * 3
    assert composed("a" + "\u0323\u0301" * LONGEST_PIECE) == "a" + "\u0323\u0301" * LONGEST_PIECE


# --- bools ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("spell", [str, lambda b: str(b).upper(), lambda b: str(b).lower()])
def test_bools_of_a_text_file_are_those_of_parquet(tmp_path, spell):
    frame = pandas.DataFrame({"a": ROWS % 7, "night": ROWS % 2 == 0, "y": LABELS})
    bools = load(written(frame, tmp_path, "parquet"))
    path = written(frame.assign(night=[*map(spell, frame.night)]), tmp_path, "csv")
    texts = load(path)
    np.testing.assert_array_equal(bools.X, texts.X)
    ((scored, _),) = stream_table(path, ["a", "night"], 2)
    np.testing.assert_array_equal(scored.X[:, 1], frame.night)
    array = as_table(frame[["night"]].astype(str).to_numpy(), texts=True)
    assert not array.texts and (array.X[:, 0] == frame.night).all()


def test_bools_beside_other_numbers_or_texts_are_no_numbers(tmp_path):
    frame = pandas.DataFrame({"a": ["True", "False", "2.5"] * 20, "y": LABELS})
    with pytest.raises(InputError, match=r"'a' holds 'True' and numbers, first 2\.5"):
        load(written(frame, tmp_path, "csv"))
    frame = pandas.DataFrame({"a": ["True", "False", "maybe"] * 20, "y": LABELS})
    data = load(written(frame, tmp_path, "csv"), categorical="onehot")
    assert data.table.texts[0] == ["True", "False", "maybe"]
    frame = pandas.DataFrame({"a": ["True", "0", "1"] * 20, "y": LABELS})
    assert load(written(frame, tmp_path, "csv")).X[:3, 0].tolist() == [1, 0, 1]


# --- digits ---------------------------------------------------------------------------------------


def test_a_last_digit_moves_no_normal_score():
    rng = np.random.default_rng(0)
    values = rng.choice([0.1, 0.2, 0.3, 0.4, 0.5], 300)
    jittered = np.where(rng.random(300) < 0.5, values, np.nextafter(values, 1))
    centred = jittered - 0.3
    ranks = NormalScores.fit(centred[:, None])
    np.testing.assert_allclose(
        ranks((values - 0.3)[:, None]),
        ranks((np.nextafter(values, 1) - 0.3)[:, None]),
        atol=1e-6,
    )


@pytest.mark.parametrize(("unit", "offset"), [(1, 0), (1e-6, 0), (1e3, 0), (1, -7), (1, 1e9)])
def test_what_was_constant_in_training_is_told_in_any_unit(unit, offset):
    X, y = made_table(n=120, n_anomalies=12, d=3)
    X = np.column_stack([X, np.full(len(X), 7.0)]).astype(np.float64)
    changed = np.column_stack([X[:, :3], np.full(len(X), 14.0)])
    model = SwiftHydra(**SHORT_FIT).fit(X * unit + offset, y)
    same, other = (model.decision_function(rows[y == 0] * unit + offset) for rows in (X, changed))
    assert roc_auc_score([0] * len(same) + [1] * len(other), [*same, *other]) > 0.9


# --- labels ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["array", "texts", "csv", "parquet"])
def test_whole_numbers_that_float64_would_merge_are_labels_of_their_own(tmp_path, kind):
    big = 2**60
    y = np.where(LABELS, big + 1, np.where(ROWS % 5 == 1, big, 0))
    if kind in ("csv", "parquet"):
        frame = pandas.DataFrame({"a": ROWS % 7, "y": y})
        found = load(written(frame, tmp_path, kind), anomaly_label=str(big + 1)).y
    else:
        found = read_labels(y if kind == "array" else y.astype(str), anomaly_label=big + 1).y
    assert found.tolist() == LABELS.tolist()
    if kind == "array":
        X, _ = made_table(n=60, d=2)
        model = SwiftHydra(anomaly_label=big + 1, **SHORT_FIT).fit(X, y)
        assert model.classes_[1] == big + 1


def test_labels_of_bytes_decimal_commas_and_almost_equal_numbers(tmp_path):
    words = np.where(LABELS, b"bad", b"ok")
    assert read_labels(words, anomaly_label=b"bad").y.tolist() == LABELS.tolist()
    frame = pandas.DataFrame({"a": (ROWS % 7) / 4, "b": ROWS % 5, "y": LABELS})
    path = tmp_path / "t.csv"
    frame.map(lambda v: f"{v:.8e}".replace(".", ",")).to_csv(path, sep=";", index=False)
    assert load(path).y.tolist() == LABELS.tolist()
    almost = np.where(LABELS, 0.1 + 0.2, 0.0)
    with pytest.raises(InputError, match=r"the labels are 0, 0\.30000000000000004"):
        read_labels(almost, anomaly_label="0.3")


def test_one_long_label_takes_no_room_in_all_rows():
    words = np.array(["ok"] * 2000, dtype=object)
    words[7] = "x" * 50_000
    tracemalloc.start()
    with pytest.raises(InputError, match="the labels are"):
        read_labels(words)
    assert tracemalloc.get_traced_memory()[1] < 20e6
    tracemalloc.stop()


@pytest.mark.parametrize("ones, said", [(30, True), (8, False)])
def test_most_of_the_labelled_rows_are_asked_about_where_others_are_unlabelled(ones, said):
    y = np.full(200, -1)
    y[:ones], y[ones : ones + 20] = 1, 0
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        read_labels(y)
    assert any("more than half" in str(w.message) for w in caught) == said


# --- containers -----------------------------------------------------------------------------------


def test_a_text_that_comes_again_and_again_takes_the_room_of_one(tmp_path):
    arrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    n, path = 20_000, tmp_path / "t.parquet"
    texts = arrow.DictionaryArray.from_arrays(np.zeros(n, np.int32), ["x" * 20_000])
    plain = arrow.array(["DE", "FR"] * (n // 2))
    y = (np.arange(n) % 10 == 0).astype(int)
    table = {"a": texts, "b": plain, "c": np.arange(n) % 9, "y": y}
    parquet.write_table(arrow.table(table), path)
    tracemalloc.start()
    data = load(path, categorical="frequency")
    assert tracemalloc.get_traced_memory()[1] < 50e6  # 400e6 where every row has its own
    tracemalloc.stop()
    assert data.table.texts[1] == ["DE", "FR"]


BYTES = [b"\xff\x01", b"\xfe\x01", "\u00e9".encode(), b"a"]
TEXTS_OF_BYTES = ["0xff01", "0xfe01", "\u00e9", "a"]


@pytest.mark.parametrize("kind", ["S", "object", "npz", "parquet"])
def test_bytes_that_are_no_text_stay_apart(tmp_path, kind):
    cells = (BYTES * 15)[: len(ROWS)]
    X = np.array(cells, "S2" if kind in ("S", "npz") else object)[:, None]
    if kind == "npz":
        np.savez(tmp_path / "t.npz", X=X, y=LABELS)
        table = load(tmp_path / "t.npz", categorical="onehot").table
    elif kind == "parquet":
        path = written(pandas.DataFrame({"a": cells, "y": LABELS}), tmp_path, kind)
        table = load(path, categorical="onehot").table
    else:
        table = as_table(X, texts=True)
    assert table.texts[0] == TEXTS_OF_BYTES


@pytest.mark.parametrize("kind", ["S", "object", "parquet"])
@pytest.mark.parametrize("asked", [BYTES[0], TEXTS_OF_BYTES[0]])
def test_labels_of_bytes_that_are_no_text_stay_apart(tmp_path, kind, asked):
    words = np.array([BYTES[0] if label else BYTES[1] for label in LABELS], dtype=object)
    if kind == "parquet":
        path = written(pandas.DataFrame({"a": ROWS, "y": words}), tmp_path, kind)
        assert load(path, anomaly_label=asked).y.tolist() == LABELS.tolist()
    else:
        words = words.astype("S2") if kind == "S" else words
        assert read_labels(words, anomaly_label=asked).y.tolist() == LABELS.tolist()


def test_ids_of_parquet_stay_apart(tmp_path):
    arrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    columns = {
        "times": arrow.array([123456789, 123456790], arrow.time64("ns")),
        "bytes": arrow.array([b"\xff", b"\\xff"]),
        "uuids": arrow.array([bytes(16), bytes(range(16))], arrow.binary(16)),
        "floats": arrow.array([0.1, 0.2], arrow.float32()),
        "years": arrow.array([3_000_000, 3_000_001], arrow.date32()),
    }
    expected = {
        "times": ["00:00:00.123456789", "00:00:00.123456790"],
        "bytes": ["0xff", "\\xff"],
        "uuids": ["0x" + "00" * 16, "0x" + bytes(range(16)).hex()],
        "floats": ["0.1", "0.2"],
        "years": ["10183-09-21", "10183-09-22"],
    }
    path = tmp_path / "t.parquet"
    parquet.write_table(arrow.table({"a": [1.0, 2.0], **columns}), path)
    for name in columns:
        ((_, ids),) = stream_table(path, ["a"], 1, id_column=name)
        assert list(ids) == expected[name] and len(set(ids)) == 2


@pytest.mark.parametrize("kind", ["csv", "parquet"])
@pytest.mark.parametrize("dates", [False, True])
def test_a_label_that_is_a_date_is_a_text(tmp_path, kind, dates):
    days = pandas.to_datetime(np.where(LABELS, "2021-01-01", "1999-12-31"))
    path = written(pandas.DataFrame({"a": ROWS % 7, "y": days}), tmp_path, kind)
    label = "2021-01-01" if kind == "csv" else "2021-01-01 00:00:00"
    assert load(path, anomaly_label=label, dates=dates).y.tolist() == LABELS.tolist()


def test_pandas_own_column_numbers_are_places_of_an_array():
    X, y = made_table(n=60, n_anomalies=6, d=4)
    model = SwiftHydra(**SHORT_FIT).fit(X, y)
    moved = pandas.DataFrame(X)[[3, 2, 1, 0]]
    assert np.array_equal(model.decision_function(moved), model.decision_function(X))


@pytest.mark.parametrize("shape", ["records", "dicts"])
def test_lists_of_records_are_told_to_become_a_frame(shape):
    frame = pandas.DataFrame(made_table(n=60, d=2)[0], columns=["a", "b"])
    records = frame.to_records(index=False) if shape == "records" else frame.to_dict("records")
    with pytest.raises(InputError, match=r"give pandas.DataFrame\(X\)"):
        SwiftHydra().fit(records, LABELS)


def test_half_floats_are_looked_at_without_a_warning():
    X = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float16)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert notes(as_table(X)) == []


def test_names_in_messages_are_escaped():
    X, y = made_table(n=60, n_anomalies=6, d=2)
    frame = pandas.DataFrame(X, columns=["a\x1b[2J", "b"])
    model = SwiftHydra(**SHORT_FIT).fit(frame, y)
    with pytest.raises(InputError) as refused:
        model.decision_function(frame.assign(z=1))
    assert "\x1b" not in str(refused.value)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_child_forked_during_a_fit_has_its_own_default_type():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with own_modes():
            child = os.fork()
            if not child:
                with own_modes():
                    single = torch.zeros(1).dtype == torch.float32
                os._exit(not (single and torch.zeros(1).dtype == torch.float64))
        assert os.waitpid(child, 0)[1] == 0
    finally:
        torch.set_default_dtype(before)


def test_declared_categories_that_are_numbers_are_named(tmp_path):
    """They stay numbers, in their order; whoever declared them may have meant codes."""
    pandas, arrow = pytest.importorskip("pandas"), pytest.importorskip("pyarrow")
    columns = {"code": [1, 2, 3] * 4, "share": [0.5, 1.5] * 6, "word": ["x", "y"] * 6}
    frame = pandas.DataFrame({name: pandas.Categorical(v) for name, v in columns.items()})
    frame["plain"] = np.arange(12.0) % 5
    coded = {name: arrow.array(v).dictionary_encode() for name, v in columns.items()}
    said = "column 'code', 'share': is declared as categories that are numbers"
    coded = arrow.table(coded)
    held = coded.to_pandas(types_mapper=pandas.ArrowDtype)
    for table in (frame, frame[["code", "share"]], coded, held):
        found = [note for note in notes(as_table(table, True)) if "declared" in note]
        assert len(found) == 1 and found[0].startswith(said)
    frame["y"] = [0, 1] * 6
    frame.to_parquet(tmp_path / "t.parquet")
    data = load_dataset(tmp_path / "t.parquet", categorical="onehot")
    assert any(note.startswith(said) for note in notes(data.table))
    assert not any("declared" in note for note in notes(as_table(frame[["word", "plain"]], True)))


def test_the_labels_name_of_the_other_form_is_known():
    """A series has its name as it was written; columns of frames are composed."""
    X, y = made_table(n=60, n_anomalies=6, d=2)
    name = parted("Größe")
    frame = pandas.DataFrame(X, columns=["a", "b"])
    model = SwiftHydra(**SHORT_FIT).fit(frame, pandas.Series(y, name=name))
    for label in (name, "Größe"):
        scores = model.decision_function(frame.assign(**{label: y}))
        assert np.array_equal(scores, model.decision_function(frame))


def test_remedies_of_the_class_are_none_of_files():
    for cells, remedy in (([1.0, "-"], "leave it empty"), (["1,5", "2"], "write a decimal point")):
        with pytest.raises(InputError, match=remedy) as error:
            as_table(np.array([*cells, None], dtype=object)[:-1, None])
        assert "--missing" not in str(error.value) and "--decimal" not in str(error.value)


def test_all_problems_of_a_parquet_file_are_said_at_once(tmp_path):
    frame = pandas.DataFrame({"day": pandas.to_datetime(["2026-01-01"] * 12), "word": ["x"] * 12})
    frame["cells"] = [[1, 2]] * 12
    frame["y"] = [0, 1] * 6
    frame.to_parquet(tmp_path / "t.parquet")
    with pytest.raises(InputError, match=r"'day' holds dates.*'cells' holds .*'word' holds text"):
        load_dataset(tmp_path / "t.parquet")


def test_numbers_that_somebody_has_to_find_are_written_out():
    values = np.r_[np.arange(60.0), [99999999.0] * 6]
    table = as_table(values[:, None], columns=["x"])
    assert any("99999999 in 6 rows" in note for note in notes(table))
    labels = np.where(np.arange(40) < 4, 1234568, 1234567)
    with pytest.warns(UserWarning, match="the labels are 1234567 and 1234568"):
        assert "1234568" in str(read_labels(labels))


def test_medians_of_large_float32_values_are_finite():
    X = np.full((12, 1), 3e38, dtype=np.float32)
    columns = TrainingRows.read(X, np.array([0, 1] * 6), ColumnSettings()).columns
    assert np.isfinite(columns.centre).all()


def test_only_flags_are_advised_about():
    error = InputError("export--final.csv: '--abc' and more: give --impute median (--dates)")
    assert advised(error, (), "set in training").endswith("[--impute, --dates: set in training]")
