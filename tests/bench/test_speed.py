"""The speed measurements run, on tables small enough for a test, and their page is made from their
records.
"""

import json
import subprocess
from importlib.util import find_spec
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers import hasty, made_table, refusal, run_hasty

import swift_hydra.benchmark as benchmark
from swift_hydra.bench import speed
from swift_hydra.bench.speed_kernels import mambapy_scan, scan_inputs
from swift_hydra.bench.speed_tables import speed_page
from swift_hydra.bench.stopwatch import Sizes
from swift_hydra.scan.torch_scan import selective_scan
from swift_hydra.settings import InputError

pytestmark = pytest.mark.usefixtures("kept_environment")

SMALL = Sizes(
    scans=((4, 3, 8, 2),),
    experts=(1, 2, 4),
    singles=((5, 4),),
    tables=((150, 5), (300, 5)),
    n_scored=300,
    n_train=300,
    large=100,
    bounds=((20, 40), (4096, 1600)),
    settings={"cvae_steps": 2, "detector_steps": 2, "mixture_steps": 2, "n_episodes": 1},
)


def one_in_full():
    """In place of subprocess.run, with which each size is measured in a process of its own.

    The first is run as it is. To those after it, the libraries are loaded and a hasty student will
    do: its 600 steps would be as long as all that is asked for here.
    """
    commands = []

    def run(command, **options):
        commands.append(command)
        if len(commands) == 1:
            return subprocess.run(command, **options)
        assert command[:4] == commands[0][:4]
        return run_hasty("swift_hydra/bench/speed.py", *command[3:], environment=options["env"])

    return SimpleNamespace(run=run)


def test_every_part_writes_a_record_and_the_page_shows_it(tmp_path, monkeypatch):
    for name in "ab":
        X, y = made_table(n=120, d=4)
        np.savez(tmp_path / f"{name}.npz", X=X, y=y)
    threads = torch.get_num_threads()

    def no_compiler(function):
        raise RuntimeError("no compiler here")

    monkeypatch.setattr(torch, "compile", no_compiler)
    monkeypatch.setattr(speed, "subprocess", one_in_full())
    parts = ["step", "experts", "score", "scale", "bounds"]
    parts += ["scan"] if find_spec("mambapy") else []
    parts += ["fit"] if find_spec("catboost") else []
    with hasty():
        paths = speed.measure(parts, tmp_path, tmp_path / "speed", repeats=1, sizes=SMALL)
    assert torch.get_num_threads() == threads
    records = {path.stem: json.loads(path.read_text()) for path in paths}
    shown = [(row["k"], row["n_experts"]) for row in records["experts"]["rows"]]
    assert shown == [(1, 1), (1, 2), (1, 4), (2, 2), (2, 4)]
    assert len(records["score"]["rows_per_second"]) == 6
    assert 50 < records["scale"]["rows"][0]["peak_mib"] < 20_000
    assert "no compiler here" in records["step"]["rows"][0]["compile_failed"]
    assert [row["normals"] for row in records["bounds"]["rows"]] == [20, 4096] * 2
    assert np.isfinite(records["scale"]["slope"])
    if "scan" in records:
        assert set(records["scan"]["rows"][0]["seconds"]) >= {"torch", "mambapy"}
    if "fit" in records:
        assert [row["dataset"] for row in records["fit"]["rows"]] == ["a", "b"]
    page = "\n".join(speed_page(tmp_path / "speed"))
    assert page.count("**") == 2 * len(parts)


def test_the_scan_that_is_compared_with_computes_the_same():
    pytest.importorskip("mambapy", reason="mambapy is not installed: pip install mambapy==1.2.0")
    tensors = scan_inputs(3, 8, 5, 4)
    ours = selective_scan(*tensors)
    theirs = mambapy_scan(*tensors)
    torch.testing.assert_close(ours[0], theirs, rtol=1e-4, atol=1e-5)


def test_what_cannot_be_measured_is_refused(tmp_path, capsys):
    words = ["--speed", "--parts", "everything"]
    assert "everything" in refusal(capsys, lambda: benchmark.main(words))
    with pytest.raises(InputError, match=r"several \.npz sets"):
        speed.fit(tmp_path, 1, SMALL)
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="NVIDIA GPU"):
            speed.gpu(tmp_path, 1, SMALL)


def test_a_page_without_records_says_so(tmp_path):
    assert speed_page(tmp_path) == ["Nothing measured yet.", ""]
