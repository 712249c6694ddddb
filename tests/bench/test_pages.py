"""Tables come from the records alone, are right, and are what the repository holds."""

import numpy as np
import pytest
from scipy.stats import wilcoxon

from swift_hydra.bench.pages import filled, headline, ladder, overview, sections
from swift_hydra.bench.places import PAGES, RECORDS, RESULTS
from swift_hydra.bench.records import load_records
from swift_hydra.bench.scores import UNDEFINED, Scores, holm, paired


def made_records(methods, sets="abcdefgh", seeds=range(5), protocols=("seen",)):
    """Records of methods {name: level of its AUC-ROC}."""
    rng = np.random.default_rng(0)
    return [
        {
            "method": method,
            "protocol": protocol,
            "dataset": dataset,
            "seed": seed,
            "failed": None,
            "auc_roc": level + 0.01 * i + 0.002 * rng.normal(),
            "auc_pr": 0.5,
            "rank_of_generated": 3.0,
            "fit_seconds": 1.0,
            "score_seconds": 0.5,
        }
        for method, level in methods.items()
        for protocol in protocols
        for i, dataset in enumerate(sets)
        for seed in seeds
    ]


def test_headline_compares_on_the_same_cells():
    methods = {"full/rl": 0.853, "CatBoost": 0.80, "kNN": 0.60, "ECOD": 0.5}
    records = []
    for record in made_records(methods):
        cell = record["method"], record["dataset"], record["seed"]
        if cell == ("full/rl", "h", 3):
            record["failed"] = f"it {UNDEFINED}"
        if cell != ("ECOD", "a", 0):
            records.append(record)
    lines = headline(records, "seen", list(methods), {0, 1, 2, 3, 4})
    text = "\n".join(lines)
    assert "seen: 7 sets, seeds 0, 1, 2, 3, 4" in text
    assert "ECOD has 34 of 35 cells (0 failed) and is left out." in text
    row = next(line for line in lines if line.startswith("| CatBoost"))
    assert "+0.05" in row and "7 / 0" in row
    ours = next(line for line in lines if line.startswith("| **Swift Hydra**"))
    assert "0.88" in ours and "1.00" in ours
    assert lines.index(ours) < lines.index(row)


def test_paired_statistics_against_known_values():
    a = np.array([0.9, 0.8, 0.7, 0.95, 0.6])
    b = np.array([0.85, 0.82, 0.6, 0.9, 0.55])
    result = paired(a, b)
    assert result.difference == pytest.approx((a - b).mean())
    assert result.error == pytest.approx((a - b).std(ddof=1) / 5**0.5)
    assert result.low < result.difference < result.high
    assert result.p == pytest.approx(wilcoxon(np.round(a - b, 9)).pvalue)
    assert (result.wins, result.losses) == (4, 1)
    assert paired(a, a).p == 1.0


def test_holm_against_a_worked_example():
    # p = .01 .04 .03 .005, m = 4: sorted .005 * 4, .01 * 3, .03 * 2, .04 * 1 with running maxima
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])


def test_ladder_differences():
    methods = {"paper/rl": 0.803, "paper/none": 0.70, "paper/noise": 0.79}
    records = made_records(methods, protocols=("unseen",))
    text = "\n".join(ladder(records, "unseen", "paper/rl", list(methods), {0, 1}, "Rungs"))
    assert "8 sets, seeds 0, 1" in text
    row = next(line for line in text.splitlines() if line.startswith("| paper/none"))
    assert "+0.10" in row and "8 / 0" in row


def test_older_records_name_the_rank_otherwise():
    records = made_records({"full/rl": 0.9, "full/none": 0.8, "CatBoost": 0.7})
    for record in records:
        rank = record.pop("rank_of_generated")
        if record["method"] == "full/none":
            record["effective_rank"] = rank
        elif record["method"] == "full/rl":
            record["rank_of_generated"] = 2 * rank
    scores = Scores(records, "seen")
    ranks = [scores.rank_of_generated(m) for m in ("full/rl", "full/none", "CatBoost")]
    assert ranks == [6.0, 3.0, 0.0]


def test_the_committed_pages_are_what_the_committed_records_give():
    lines, tables = sections(load_records(RECORDS))
    assert (RESULTS / "README.md").read_text() == "\n".join(lines).rstrip() + "\n"
    pages = {page: page.read_text() for page in PAGES if page.is_file()}
    for name in tables:
        assert any(f"<!-- {name} -->" in text for text in pages.values()), name
    for page, text in pages.items():
        assert filled(text, tables) == text, page


def test_overview_marks_what_has_fewer_seeds():
    protocols = ("seen", "unseen")
    records = made_records({"full/rl": 0.853, "CatBoost": 0.8}, protocols=protocols)
    records += made_records({"paper/rl": 0.9}, seeds=(0, 1), protocols=protocols)
    lines = overview(records, ["full/rl", "paper/rl", "CatBoost"], set(range(5)))
    text = "\n".join(lines)
    assert "*seen*, 8 sets | *unseen*, 8 sets" in text
    assert "Swift Hydra, `paper` (seeds 0, 1) | .93" in text
    full = next(line for line in lines if "`full`" in line)
    assert full.count("**.8") == 2  # bold among methods on all seeds
    assert lines[-1].startswith("| *best peer of every set")
