"""Whatever is in a file, its reader returns something usable or raises one line that names it."""

import copy
import io
import math
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import SAME_EXAMPLES, made_table
from hypothesis import given, settings
from hypothesis import strategies as st

from swift_hydra.data.columns import ColumnSettings, Preparation
from swift_hydra.data.files import stream_table
from swift_hydra.data.rows import TrainingRows
from swift_hydra.data.table import as_table, fingerprint
from swift_hydra.dataloader import Dataset, load_dataset
from swift_hydra.files import content_of, load_checkpoint, with_sum, write_torch
from swift_hydra.journal import Journal
from swift_hydra.pretrain import PretrainSettings, load_pretrained, pretrain, save_pretrained
from swift_hydra.settings import InputError
from swift_hydra.SwiftHydra import SwiftHydra

fuzz = settings(SAME_EXAMPLES, max_examples=100)
few = settings(fuzz, max_examples=60)


def usable_or_refused(read, path):
    """What ``read(path)`` returns, or None where it is refused in the way that is promised."""
    try:
        return read(path)
    except InputError as error:
        assert path.name in str(error)
        assert "\n" not in str(error)
        assert len(str(error)) < 2000
        return None


def check_dataset(path):
    """As it is, and with gaps and texts allowed: what the stricter reading takes, the other reads
    the same.
    """
    strict = check_reading(path, load_dataset)
    loose = check_reading(
        path, lambda path: load_dataset(path, impute="median", categorical="onehot")
    )
    if strict is not None:
        np.testing.assert_array_equal(strict.X, loose.X)


def check_reading(path, read):
    data = usable_or_refused(read, path)
    if data is None:
        return None
    assert isinstance(data, Dataset)
    assert data.X.dtype in (np.float32, np.float64) and data.X.ndim == 2
    assert np.isfinite(data.X).all()
    assert data.y.shape == data.X.shape[:1] and {1} < set(data.y.tolist()) <= {-1, 0, 1}
    assert (data.y == 1).sum() >= 2
    assert len(data.columns) == data.table.X.shape[1] and all(
        isinstance(name, str) for name in data.columns
    )
    return data


def check_stream(path):
    preparation = Preparation().fit(as_table(np.zeros((3, 2))))
    read = lambda path: [preparation.transform(rows) for rows, _ in stream_table(path, None, 2)]  # noqa: E731
    blocks = usable_or_refused(read, path)
    assert blocks is None or all(np.isfinite(X).all() for X in blocks)


# ---- tables --------------------------------------------------------------------------------------


@fuzz
@given(content=st.binary(max_size=300), suffix=st.sampled_from([".npz", ".csv", ".parquet"]))
def test_random_bytes(tmp_path, content, suffix):
    path = tmp_path / f"random{suffix}"
    path.write_bytes(content)
    check_dataset(path)
    check_stream(path)


CELLS = st.one_of(
    st.sampled_from(
        [
            "0",
            "1",
            "1.5",
            "-2",
            "",
            "nan",
            "inf",
            "1e999",
            "1_0",
            "0x1",
            "?",
            '"',
            '"a',
            '""',
            "a\nb",
            "\x00",
            "\ufeff",
            "٣",
            "½",
            "1" * 400,
            "1e-400",
            "é",
            "\r",
            "\u2028",
            " 1 ",
            "1.0",
            "true",
        ]
    ),
    st.floats(width=32).map(str),
    st.text(max_size=4),
)


@fuzz
@given(
    rows=st.lists(st.lists(CELLS, max_size=4), max_size=6),
    separator=st.sampled_from([",", ";", "\t", "|", " ", ",;"]),
    end=st.sampled_from(["\n", "\r\n", "\r", "\n\n"]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "latin-1"]),
)
def test_random_csv(tmp_path, rows, separator, end, encoding):
    path = tmp_path / "random.csv"
    path.write_bytes(end.join(separator.join(row) for row in rows).encode(encoding, "replace"))
    check_dataset(path)
    check_stream(path)


@fuzz
@given(
    values=st.lists(
        st.tuples(st.sampled_from([0.0, -1.5, 3.0, 1e30, 5e-324]), st.integers(0, 1)),
        min_size=4,
        max_size=8,
    ),
    cell=CELLS,
    at=st.integers(0, 7),
)
def test_one_odd_cell_in_a_good_csv(tmp_path, values, cell, at):
    lines = [f"{x},{i},{y}" for i, (x, y) in enumerate(values)]
    lines[at % len(lines)] = f"{cell},7,1"
    path = tmp_path / "good.csv"
    path.write_text("a,b,y\n" + "\n".join(lines), encoding="utf-8", errors="replace")
    check_dataset(path)


def npz_bytes(**arrays):
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def damaged(draw, content):
    """A few bytes changed, a piece cut out, doubled or left over."""
    content = bytearray(content)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(content) - 1))
        kind = draw(st.sampled_from(["byte", "cut", "end", "double"]))
        if kind == "byte":
            content[at] = draw(st.integers(0, 255))
        elif kind == "cut":
            del content[at : at + draw(st.integers(1, 40))]
        elif kind == "end":
            del content[at:]
        else:
            content[at:at] = content[at : at + 20]
        if not content:
            break
    return bytes(content)


@fuzz
@given(data=st.data())
def test_damaged_npz(tmp_path, data):
    X, y = made_table(n=12, d=2, n_anomalies=4)
    path = tmp_path / "damaged.npz"
    path.write_bytes(damaged(data.draw, npz_bytes(X=X, y=y)))
    check_dataset(path)
    check_stream(path)


@fuzz
@given(data=st.data())
def test_a_damaged_array_in_an_intact_archive(tmp_path, data):
    """Past the archive's checksums: the header of an array lies about its type, its shape or its
    length.
    """
    X, y = made_table(n=12, d=2, n_anomalies=4)
    path = tmp_path / "header.npz"
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in (("X", X), ("y", y)):
            buffer = io.BytesIO()
            np.save(buffer, array)
            content = buffer.getvalue()
            head = damaged(data.draw, content[:128]) if data.draw(st.booleans()) else content[:128]
            archive.writestr(f"{name}.npy", head + content[128:])
    check_dataset(path)


@fuzz
@given(
    X=st.sampled_from(
        ["<f8", ">f4", "|u1", "<i8", "<c8", "|b1", "<M8[s]", "<U3", "|S2", "|V4", "<f2"]
    ),
    shape=st.sampled_from([(6, 2), (6,), (0, 2), (6, 0), (6, 2, 1), (), (2, 6)]),
    y=st.sampled_from(["<f8", "|u1", "<U1", "|S1", "<m8[s]", "<c16", "|V1"]),
    fill=st.binary(min_size=8, max_size=8),
)
def test_arrays_of_any_type_and_shape(tmp_path, X, shape, y, fill):
    def array(dtype, shape):
        dtype = np.dtype(dtype)
        size = math.prod(shape) * dtype.itemsize
        return np.frombuffer((fill * (size // 8 + 1))[:size], dtype=dtype).reshape(shape)

    path = tmp_path / "any.npz"
    path.write_bytes(npz_bytes(X=array(X, shape), y=array(y, shape[:1])))
    check_dataset(path)
    path.write_bytes(npz_bytes(X=array(X, shape), y=np.arange(6) % 2))
    check_dataset(path)


# ---- checkpoints ---------------------------------------------------------------------------------

X, Y = made_table(n=60, d=3, n_anomalies=10)
MARK = fingerprint(X, Y)
TINY = {
    "cvae_steps": 3,
    "detector_steps": 3,
    "mixture_steps": 3,
    "n_episodes": 1,
    "n_synthetic": 20,
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder with both kinds of checkpoint, trained on X and Y."""
    saved = tmp_path_factory.mktemp("saved")
    for preset in ("full", "paper"):
        SwiftHydra(preset=preset, **TINY).fit(X, Y).save(saved / f"{preset}.pt")
    rows = TrainingRows.read(X, Y, ColumnSettings())
    settings = PretrainSettings(cvae_steps=20, detector_steps=20)
    journal = Journal()
    Z, labels = torch.from_numpy(rows.Z), torch.from_numpy(rows.y)
    networks = pretrain(Z, labels, 0, settings, journal)
    save_pretrained(saved / "pretrained.pt", networks, rows, 0, settings, journal.log)
    return saved


def check_detector(path):
    model = usable_or_refused(SwiftHydra.load, path)
    if model is not None:
        assert np.isfinite(model.decision_function(X)).all()
        assert model.predict(X).shape == (len(X),)
        assert model.synthetic_.shape[1:] == X.shape[1:]
    return model


@few
@given(data=st.data())
def test_damaged_checkpoint_files(tmp_path, saved, data):
    path = tmp_path / "damaged.pt"
    kind = data.draw(st.sampled_from(["paper", "pretrained"]))
    path.write_bytes(damaged(data.draw, (saved / f"{kind}.pt").read_bytes()))
    if kind == "paper":
        check_detector(path)
    else:
        usable_or_refused(lambda path: load_pretrained(path, MARK), path)


@fuzz
@given(
    content=st.binary(max_size=200),
    start=st.sampled_from([b"", b"PK\x03\x04", b"\x80\x02", b"\x80\x02}q\x00", b"]"]),
)
def test_random_bytes_as_checkpoint(tmp_path, content, start):
    path = tmp_path / "random.pt"
    path.write_bytes(start + content)
    assert usable_or_refused(lambda path: load_checkpoint(path, "SwiftHydra"), path) is None


ODD = st.sampled_from(
    [
        None,
        "text",
        "",
        -1,
        0,
        1,
        3,
        10**12,
        0.5,
        -2.0,
        float("nan"),
        float("inf"),
        True,
        [],
        {},
        [1, "a", None],
        {"a": 1},
        torch.zeros(0),
        torch.tensor(1.0),
        torch.full((3,), float("nan")),
        torch.zeros(3),
        torch.zeros(2, 3),
        torch.zeros(3, dtype=torch.int64),
        torch.ones(4, 4, dtype=torch.bool),
        torch.zeros(1, 1, 1),
    ]
)


def places(content, at=()):
    """Every place of a nested content as the way that leads there."""
    for key, value in content.items() if isinstance(content, dict) else enumerate(content):
        yield (*at, key)
        if isinstance(value, (dict, list)):
            yield from places(value, (*at, key))


def changed(draw, content):
    """One to three places hold something else, or nothing."""
    for _ in range(draw(st.integers(1, 3))):
        *way, last = draw(st.sampled_from(list(places(content))))
        inner = content
        for key in way:
            inner = inner[key]
        if draw(st.booleans()):
            inner[last] = copy.deepcopy(draw(ODD))  # else a later change may nest it in itself
        elif isinstance(inner[last], torch.Tensor) and draw(st.booleans()):
            value = inner[last]
            shorter = value[..., :-1] if value.ndim else value
            inner[last] = draw(
                st.sampled_from(
                    [value.flatten(), shorter, value[None], value.double(), value * -1e6]
                )
            )
        else:
            del inner[last]
        if not content:
            break
    return content


@settings(fuzz, max_examples=120)
@pytest.mark.filterwarnings("ignore")  # of numpy, on the way to a refusal
@given(data=st.data())
def test_checkpoints_of_another_content(tmp_path, saved, data):
    path = tmp_path / "changed.pt"
    kind = data.draw(st.sampled_from(["full", "paper", "pretrained"]))
    write_torch(path, changed(data.draw, torch.load(saved / f"{kind}.pt", weights_only=True)))
    if kind == "pretrained":
        loaded = usable_or_refused(lambda path: load_pretrained(path, MARK), path)
        assert loaded is None or loaded[0].cvae.config["d_features"] == X.shape[1]
    else:
        check_detector(path)


def test_the_untouched_files_load(saved):
    for preset in ("full", "paper"):
        assert check_detector(saved / f"{preset}.pt") is not None
    networks, settings, log = load_pretrained(saved / "pretrained.pt", MARK)
    assert networks.detector.d_features == X.shape[1]
    assert settings["cvae_steps"] == 20
    assert log


@pytest.mark.parametrize("kind", ["pickle", "archive"])
def test_a_checkpoint_runs_no_code(tmp_path, kind):
    class Bomb:
        def __reduce__(self):
            return Path.touch, (tmp_path / "ran",)

    path = tmp_path / "bomb.pt"
    if kind == "archive":
        torch.save({"kind": "SwiftHydra", "parameters": Bomb()}, path)
    else:
        path.write_bytes(pickle.dumps({"kind": "SwiftHydra", "parameters": Bomb()}))
    with pytest.raises(InputError, match=r"bomb\.pt"):
        SwiftHydra.load(path)
    assert not (tmp_path / "ran").exists()


def test_a_checkpoint_takes_no_more_memory_than_its_file(tmp_path):
    """Tensors that repeat one stored number, and archives that are packed."""
    path = tmp_path / "large.pt"
    for repeated in (torch.zeros(1).expand(10**12), torch.ones(2, 1).expand(2, 10**11)):
        write_torch(path, {"kind": "SwiftHydra", "parameters": [{"a": repeated}]})
        with pytest.raises(InputError, match=r"large\.pt: not a readable checkpoint"):
            load_checkpoint(path, "SwiftHydra")
    plain, packed = io.BytesIO(), io.BytesIO()
    torch.save({"kind": "SwiftHydra", "a": torch.zeros(10**6)}, plain)
    with zipfile.ZipFile(plain) as old, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as new:
        for member in old.namelist():
            new.writestr(member, old.read(member))
    path.write_bytes(with_sum(packed.getvalue()))
    with pytest.raises(InputError, match=r"large\.pt: not a readable checkpoint"):
        load_checkpoint(path, "SwiftHydra")
    path.write_bytes(with_sum(plain.getvalue()))
    assert load_checkpoint(path, "SwiftHydra")["a"].shape == (10**6,)


@pytest.mark.parametrize("shape", [(10**13, 5), (300, 10**11)])
def test_an_array_larger_than_memory_is_refused(tmp_path, shape):
    path = tmp_path / "huge.npz"
    head = io.BytesIO()
    described = {"descr": "<f8", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(head, described)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("X.npy", head.getvalue())
        archive.writestr("y.npy", head.getvalue())
    with pytest.raises(InputError, match=r"huge\.npz: there is not enough memory for key 'X'"):
        load_dataset(path)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
        FileNotFoundError(2, "No usable temporary directory found"),
    ],
    ids=repr,
)
def test_what_the_machine_lacks_is_no_damage(tmp_path, monkeypatch, error):
    """A message that says to delete the file would cost its owner a good one."""

    def fails(*args, **options):
        raise error

    path = tmp_path / "good.pt"
    write_torch(path, {"kind": "SwiftHydra"})
    with pytest.raises(InputError, match=r"good\.pt: cannot be used here"), content_of(path):
        fails()
    monkeypatch.setattr(torch, "load", fails)
    with pytest.raises(InputError, match=r"good\.pt: cannot be") as refused:
        load_checkpoint(path, "SwiftHydra")
    assert "delete" not in str(refused.value)
