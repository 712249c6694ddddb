"""Tables come from the records alone, are right, and are what the repository holds."""

import json

import numpy as np
import pytest
from scipy.stats import wilcoxon

from swift_hydra.bench import pages as report
from swift_hydra.bench.cell import record_path
from swift_hydra.benchmark import RECORDS


def made_records(folder, methods, sets="abcdefgh", seeds=range(5), protocols=("seen",)):
    rng = np.random.default_rng(0)
    for method, level in methods.items():
        for protocol in protocols:
            for i, dataset in enumerate(sets):
                for seed in seeds:
                    cell = {
                        "method": method,
                        "protocol": protocol,
                        "dataset": dataset,
                        "seed": seed,
                        "failed": None,
                        "auc_roc": level + 0.01 * i + 0.002 * rng.normal(),
                        "auc_pr": 0.5,
                        "effective_rank": 3.0,
                        "fit_seconds": 1.0,
                        "score_seconds": 0.5,
                    }
                    path = record_path(folder, method, protocol, dataset, seed)
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_text(json.dumps(cell))
    return report.load_records(folder)


def test_headline_compares_on_the_same_cells(tmp_path):
    methods = {"full/rl": 0.853, "CatBoost": 0.80, "kNN": 0.60, "ECOD": 0.5}
    made_records(tmp_path, methods)
    record_path(tmp_path, "ECOD", "seen", "a", 0).unlink()
    undefined = record_path(tmp_path, "full/rl", "seen", "h", 3)
    undefined.write_text(
        json.dumps(json.loads(undefined.read_text()) | {"failed": f"it {report.UNDEFINED}"})
    )
    lines = report.headline(report.load_records(tmp_path), "seen", list(methods), {0, 1, 2, 3, 4})
    text = "\n".join(lines)
    assert "seen: 7 sets, seeds 0, 1, 2, 3, 4" in text
    assert "ECOD has 34 of 35 cells (0 failed) and is left out." in text
    row = next(line for line in lines if line.startswith("| CatBoost"))
    assert "+0.05" in row and "7 / 0" in row
    ours = next(line for line in lines if line.startswith("| **Swift Hydra**"))
    assert "0.88" in ours and "1.00" in ours
    assert lines.index(ours) < lines.index(row)


def test_paired_statistics_against_known_values():
    a, b = np.array([0.9, 0.8, 0.7, 0.95, 0.6]), np.array([0.85, 0.82, 0.6, 0.9, 0.55])
    mean, error, low, high, p, wins, losses = report.paired(a, b)
    assert mean == pytest.approx((a - b).mean())
    assert error == pytest.approx((a - b).std(ddof=1) / 5**0.5)
    assert low < mean < high
    assert p == pytest.approx(wilcoxon(np.round(a - b, 9)).pvalue)
    assert (wins, losses) == (4, 1)
    assert report.paired(a, a)[4] == 1.0


def test_holm_against_a_worked_example():
    # p = .01 .04 .03 .005, m = 4: sorted .005 * 4, .01 * 3, .03 * 2, .04 * 1 with running maxima
    np.testing.assert_allclose(report.holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])


def test_ladder_differences(tmp_path):
    methods = {"paper/rl": 0.803, "paper/none": 0.70, "paper/noise": 0.79}
    records = made_records(tmp_path, methods, protocols=("unseen",))
    text = "\n".join(report.ladder(records, "unseen", "paper/rl", list(methods), {0, 1}, "Rungs"))
    assert "8 sets, seeds 0, 1" in text
    row = next(line for line in text.splitlines() if line.startswith("| paper/none"))
    assert "+0.10" in row and "8 / 0" in row


def test_the_committed_tables_are_what_the_committed_records_give():
    lines, tables = report.sections(report.load_records(RECORDS))
    assert (report.RESULTS / "README.md").read_text() == "\n".join(lines).rstrip() + "\n"
    readme = report.README.read_text()
    for name in tables:
        assert f"<!-- {name} -->" in readme
    assert report.filled(readme, tables) == readme


def test_overview_marks_what_has_fewer_seeds(tmp_path):
    made_records(tmp_path, {"full/rl": 0.853, "CatBoost": 0.8}, protocols=("seen", "unseen"))
    records = made_records(tmp_path, {"paper/rl": 0.9}, seeds=(0, 1), protocols=("seen", "unseen"))
    lines = report.overview(records, ["full/rl", "paper/rl", "CatBoost"], set(range(5)))
    text = "\n".join(lines)
    assert "*seen*, 8 sets | *unseen*, 8 sets" in text
    assert "Swift Hydra, `paper` (seeds 0, 1) | .93" in text
    assert (
        next(line for line in lines if "`full`" in line).count("**.8") == 2
    )  # bold among methods on all seeds
    assert lines[-1].startswith("| *best peer of every set")
