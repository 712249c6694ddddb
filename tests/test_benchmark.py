"""The sweep records every cell once, goes on where it was, survives a bad set; its report needs the records alone."""

import json

import numpy as np
import pytest
from conftest import ROOT, made_table, run_script

import benchmark
from config import InputError


@pytest.fixture
def folder(tmp_path):
    X, y = made_table(n=100, d=4, n_anomalies=20)
    np.savez(tmp_path / "good.npz", X=X, y=y)
    (tmp_path / "broken.npz").write_text("not an archive")
    return tmp_path


def sweep(folder, *more):
    return run_script("benchmark.py", "--datasets", folder, "--records", folder / "records", "--seeds", "0",
                      "--methods", "paper/none,script", "--jobs", "2", *more)  # fmt: skip


def test_a_sweep_resumes_and_records_failures(folder):
    first = sweep(folder)
    assert first.returncode == 0, first.stderr
    assert "2 computed, 2 failed" in first.stdout
    records = benchmark.load_records(folder / "records")
    assert [(c["dataset"], c["method"], c["failed"] is None) for c in records] == [
        ("broken", "paper/none", False), ("good", "paper/none", True), ("broken", "script", False),
        ("good", "script", True),
    ]  # fmt: skip
    assert "broken.npz" in records[0]["failed"]
    assert records[3]["peak_memory_mib"] > 50
    kept = benchmark.record_path(folder / "records", "paper/none", "seen", "good", 0)
    before = kept.stat().st_mtime_ns
    benchmark.record_path(folder / "records", "script", "seen", "good", 0).unlink()
    second = sweep(folder)
    assert "4 cells, 3 of them recorded already" in second.stdout
    assert "1 computed, 0 failed" in second.stdout
    assert kept.stat().st_mtime_ns == before


def made_records(folder):
    for method, shift in (("paper/none", 0.0), ("paper/rl", 0.1), ("paper/noise", 0.08)):
        for dataset, base in (("a", 0.7), ("b", 0.8)):
            for seed in (0, 1):
                cell = {"method": method, "protocol": "unseen", "dataset": dataset, "seed": seed, "failed": None,
                        "auc_roc": base + shift, "auc_pr": 0.5, "effective_rank": 3.0, "fit_seconds": 1.0}  # fmt: skip
                path = benchmark.record_path(folder, method, "unseen", dataset, seed)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(json.dumps(cell))


def test_report_pairs_the_cells_every_method_has(tmp_path):
    made_records(tmp_path)
    benchmark.record_path(tmp_path, "paper/rl", "unseen", "b", 1).unlink()
    text = benchmark.report(tmp_path)
    assert "mean over 3 cells (2 sets)" in text
    row = next(line for line in text.splitlines() if line.startswith("| paper/rl |"))
    assert "0.8333" in row
    assert "+0.1000" in row
    assert "+0.0200" in row
    assert "2 / 0" in row


def test_the_committed_report_is_what_the_committed_records_give():
    if not benchmark.REPORT.exists():
        pytest.skip("results/README.md is not there")
    assert benchmark.REPORT.read_text() == benchmark.report(benchmark.RECORDS)


@pytest.mark.parametrize(
    "arguments", [["--methods", "magic"], ["--protocols", "often"], ["--seeds", "a"], ["--datasets", "47_yeats"]]
)
def test_bad_arguments_are_refused(arguments, tmp_path):
    with pytest.raises(InputError):
        benchmark.main([*arguments, "--records", str(tmp_path)])
    assert (ROOT / "benchmark.py").exists()
