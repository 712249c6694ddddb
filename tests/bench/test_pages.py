"""Tables come from the records alone, are right, and are what the repository holds."""

import itertools
import re

import numpy as np
import pytest
from scipy.stats import wilcoxon

from swift_hydra import benchmark
from swift_hydra.bench import policy
from swift_hydra.bench.comparison import headline, without_copies
from swift_hydra.bench.diagrams import diagram
from swift_hydra.bench.methods import GROUPS, PARTS_OF_FULL
from swift_hydra.bench.pages import filled, ladder, overview, sections, write_report
from swift_hydra.bench.places import PAGES, PUBLISHED, RECORDS, RESULTS
from swift_hydra.bench.published import published_means, published_per_set, read_published
from swift_hydra.bench.records import as_line, load_records
from swift_hydra.bench.scores import UNDEFINED, Scores, holm, paired, source_of
from swift_hydra.bench.side_by_side import columns_of, leads_table, means_table, parts_table
from swift_hydra.settings import InputError

pytestmark = pytest.mark.usefixtures("kept_environment")


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


def test_published_figures_are_fractions_of_known_sets():
    published = read_published(PUBLISHED)
    assert {p: len(methods) for p, methods in published.items()} == {
        "one-class": 26,
        "weak-5": 17,
        "weak-10": 17,
        "weak-20": 17,
    }
    areas = np.array([a for ms in published.values() for s in ms.values() for a in s.values()])
    assert areas.shape[1] == 2 and (0 < areas).all() and (areas <= 1).all()
    assert 0.5 < np.median(areas[:, 0]) < 1


def test_published_figures_are_compared_on_the_sets_that_both_have(tmp_path):
    path = tmp_path / "published.csv"
    rows = [f"weak-5,{s},{m}" for s in "abx" for m in ("Better,.9,.4", "Worse,.7,.6")]
    head = "protocol,dataset,method,auc_roc,auc_pr"
    path.write_text("\n".join([head, *rows, "weak-5,a,Part,1,1"]))
    records = made_records({"full/rl": 0.8}, sets="abc", seeds=(0, 1), protocols=("weak-5",))
    published = read_published(path)
    means = published_means(records, published)[2:]
    methods = [line.split(" | ")[2] for line in means]
    assert methods == ["Better", "**Swift Hydra** (`full`)", "Worse"]
    assert means[0].endswith("| .900 | .400 | 2 of 2 |") and means[2].endswith("| 0 of 2 |")
    row = next(line for line in published_per_set(records, published) if line.startswith("| a |"))
    assert row.endswith("| Part 1.000 (1.000) |")
    none = read_published(tmp_path / "none.csv")
    assert published_means(records, none) == ["No record of it yet."]


def test_a_column_has_the_seeds_that_most_have_and_marks_the_others():
    two = made_records({"full/rl": 0.8, "CatBoost": 0.7, "kNN": 0.6}, seeds=(0, 1))
    one = made_records({"DevNet": 0.65}, seeds=(0,))
    records = [r | {"protocol": "weak-5"} for r in (*two, *one)]
    records += [r | {"protocol": "weak-10"} for r in two if r["seed"] == 0 or "/" in r["method"]]
    methods = ["full/rl", "CatBoost", "kNN", "DevNet"]
    columns = columns_of(records, methods)
    text = means_table(records, methods, columns)
    assert "*weak-5*, seeds 0 to 1 | *weak-10*, seed 0" in text[0]
    assert text[2].startswith("| **Swift Hydra** (`full`) | **.83") and "†" not in text[2]
    assert ["†" in line for line in text[3:]] == [False, False, True]
    lead = leads_table(columns)[2]
    assert lead.startswith("| *weak-5*, seeds 0 to 1 | 8 | CatBoost | +0.10")


def test_headline_compares_on_the_same_cells():
    methods = {"full/rl": 0.853, "CatBoost": 0.80, "kNN": 0.60, "ECOD": 0.5}
    records = []
    for record in made_records(methods):
        cell = record["method"], record["dataset"], record["seed"]
        if cell == ("full/rl", "h", 3):
            record["failed"] = f"it {UNDEFINED}"
        if cell != ("ECOD", "a", 0):
            records.append(record)
    lines = headline(Scores(records, "seen", {0, 1, 2, 3, 4}, list(methods)))
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


def test_sets_of_one_source_are_drawn_together():
    names = ["42_WBC", "4_breastw", "43_WDBC", "6_cardio", "30_satellite", "31_satimage-2", "wine"]
    sources = [source_of(name) for name in names]
    assert [sources.index(source) for source in sources] == [0, 0, 0, 3, 4, 4, 6]
    assert source_of("7_Cardiotocography") == source_of("6_cardio")
    assert source_of("19_landsat") == source_of("satellite") and source_of("47_yeast") == "47_yeast"
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 40))
    a[:10] += 3.0
    alone, apart = paired(a, b), paired(a, b, [f"set{i}" for i in range(40)])
    assert (alone.low, alone.high) != (0.0, 0.0) and alone.difference == apart.difference
    together = paired(a, b, ["one"] * 10 + [f"set{i}" for i in range(30)])
    assert together.high - together.low > 1.3 * (alone.high - alone.low)
    assert together.p == alone.p  # the test is over sets


def test_one_set_left_out():
    result = paired(np.array([1.0, 0.0, 0.0, 0.5]), np.zeros(4))
    assert (result.lowest, result.highest) == pytest.approx((0.5 / 3, 0.5))
    records = made_records({"full/rl": 0.853, "CatBoost": 0.80})
    for record in records:
        if (record["method"], record["dataset"]) == ("CatBoost", "c"):
            record["auc_roc"] = 0.1
    lines = headline(Scores(records, "seen", set(range(5)), ["full/rl", "CatBoost"]))
    (row,) = [line for line in lines if line.startswith("| CatBoost")]
    assert row.split(" | ")[6].startswith("+0.05") and " to +0.15" in row.split(" | ")[6]
    assert row.endswith("| 1.00 | 0.500 |")


def with_copies(records):
    """The records as the benchmark writes them now; sets a and b have copies, b nothing else."""
    for record in records:
        record |= {"n_test": 100, "n_test_copies": {"a": 40, "b": 90}.get(record["dataset"], 0)}
        fresh = None if record["dataset"] == "b" else record["auc_roc"] - 0.1
        record |= {"auc_roc_fresh": fresh, "auc_pr_fresh": fresh}
    return records


def test_the_table_without_copies_needs_every_record():
    methods = {"full/rl": 0.853, "CatBoost": 0.80}
    records = with_copies(made_records(methods))
    lines = without_copies(Scores(records, "seen", set(range(5)), list(methods)))
    text = "\n".join(lines)
    assert "2 of 8 sets have such rows, 650 of 4000 test rows" in text
    assert "no row under some seed: b." in text
    ours = next(line for line in lines if line.startswith("| **Swift")).split(" | ")
    kept = [r for r in records if r["method"] == "full/rl" and r["dataset"] != "b"]
    reference = np.mean([r["auc_roc"] for r in kept])
    assert ours[1] == f"{reference - 0.1:.4f}" and f"| {reference:.4f}" in ours
    del records[3]["n_test_copies"]
    assert without_copies(Scores(records, "seen", set(range(5)), list(methods))) == []


@pytest.mark.parametrize("spread", [0.002, 0.02])
def test_labels_of_a_diagram_of_fifteen_methods_do_not_touch(spread):
    pytest.importorskip("scikit_posthocs")
    names = ["full/rl", *GROUPS["peers"]]
    assert len(names) == 15
    records = made_records({name: 0.8 - spread * i for i, name in enumerate(names)})
    figure = diagram(Scores(records, "seen"), "mean rank on seen, 8 sets (1 is best)")
    figure.canvas.draw()
    renderer = figure.canvas.get_renderer()
    (axes,) = figure.axes
    texts = [*axes.texts, axes.title, *axes.xaxis.get_ticklabels()]
    texts = [text for text in texts if text.get_text()]
    assert len(axes.texts) == 15
    boxes = [text.get_window_extent(renderer).padded(1.0) for text in texts]
    touching = [
        (one.get_text(), other.get_text())
        for (one, a), (other, b) in itertools.combinations(zip(texts, boxes, strict=True), 2)
        if a.overlaps(b)
    ]
    assert not touching
    lines = [line.get_window_extent(renderer) for line in axes.lines]
    labels = boxes[: len(axes.texts)]
    assert not [label for label in labels for line in lines if label.overlaps(line)]


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


def test_what_parts_give_is_the_detector_minus_itself_without_them():
    levels = {"full/rl": 0.8} | {m: 0.8 - 0.01 * i for i, m in enumerate(PARTS_OF_FULL, 1)}
    records = made_records(levels, seeds=(0,), protocols=("seen", "unseen"))
    records += made_records({"full/rl": 0.8}, seeds=(1,))  # a seed without the parts
    head, _, *rows = parts_table(records)
    assert "*seen*, 8 sets, seed 0" in head and "*unseen*" in head and "*few*" not in head
    gains = [float(row.split(" | ")[1].split(" ")[0]) for row in rows]
    assert gains == pytest.approx([0.01 * i for i in range(1, 7)], abs=0.0025)
    assert all(row.count(" / +0.000 (0.000)") == 2 for row in rows)
    unfinished = [r for r in records if (r["method"], r["dataset"]) != ("full/none", "a")]
    assert parts_table(unfinished) == ["No complete record of it yet."]


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


def test_own_records_have_a_page_of_their_own(tmp_path):
    """Of the project's pages none is touched by them."""
    own = [r for r in load_records(RECORDS) if r["protocol"] == "few" and r["seed"] == 0]
    few = [r for r in own if r["method"] in ("kNN", "CatBoost") and r["dataset"] < "2"]
    (tmp_path / "few.jsonl").write_text("".join(map(as_line, few)))
    before = {page: page.read_bytes() for page in (*PAGES, RESULTS / "README.md")}
    assert write_report(tmp_path) == [tmp_path / "README.md"]
    assert {page: page.read_bytes() for page in before} == before
    page = (tmp_path / "README.md").read_text()
    n = len({r["dataset"] for r in few})
    assert f"## few: {n} sets, seeds 0" in page and "| CatBoost |" in page
    assert "DevNet" not in page and "47_yeast" not in page
    with pytest.raises(InputError, match="--seeds 0 has no effect with --report"):
        benchmark.main(["--report", "--records", str(tmp_path), "--seeds", "0"])


def test_own_records_that_lack_cells_say_which(tmp_path):
    lacking = made_records({"kNN": 0.8, "CatBoost": 0.9}, sets="ab", seeds=(0,))[:-1]
    lacking.append({**lacking[0], "dataset": "c", "auc_roc": None, "failed": "column 'x' is empty"})
    (tmp_path / "seen.jsonl").write_text("".join(map(as_line, lacking)))
    assert write_report(tmp_path) == [tmp_path / "README.md"]
    page = (tmp_path / "README.md").read_text()
    assert "c: column 'x' is empty" in page
    (tmp_path / "seen.jsonl").write_text("".join(map(as_line, [lacking[0], *lacking[3:]])))
    (tmp_path / "unseen.jsonl").write_text(
        as_line({**lacking[0], "protocol": "unseen"})
        + as_line({**lacking[2], "protocol": "unseen", "dataset": "b"})
    )
    write_report(tmp_path)
    page = (tmp_path / "README.md").read_text()
    assert "## unseen: no method has all cells" in page
    assert "| kNN | 1 | 0 | b, seed 0 |" in page


def test_the_words_on_the_policy_are_those_of_its_table():
    """``level`` and ``open`` are the plan's, and the prose beside the table may not soften them."""
    page = (RESULTS.parent / "docs" / "results.md").read_text()
    table = page.split("<!-- policy -->")[1].split("<!-- /policy -->")[0].splitlines()
    head, rows = table[1], {line[2:4]: line for line in table if line[:4] in ("| rl", "| sh")}
    controls = re.findall(r"(\w+) \(0\.", head)
    verdicts = {name: re.findall(r"level|open|ahead|behind", row) for name, row in rows.items()}
    prose = page.split("<!-- /policy-beside -->")[1].split("\n- ")[1]
    policy, shared = " ".join(prose.split()).split("The proposal")
    said = re.findall(r"\*(\w+)\* \w+ `(\w+)`", policy)
    assert said == list(zip(verdicts["rl"], controls, strict=True))
    (alike,) = set(verdicts["sh"])
    assert f"is *{alike}* with all three" in shared
    if "level" not in verdicts["rl"][controls.index("noise")]:
        assert "could not be told apart from filtered noise" in (
            " ".join((RESULTS.parent / "README.md").read_text().split())
        )


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


def test_the_policys_comparison():
    """The worst arm is behind, the best ahead, equal ones level; halves of a proposal are one."""
    rng = np.random.default_rng(0)
    ease = rng.uniform(0.6, 0.8, size=24)

    def records(gains):
        for method, gain in gains.items():
            for number, base in enumerate(ease):
                if method.endswith(("even", "odd")) and (number % 2 == 0) != method.endswith("odd"):
                    continue
                area = base + gain + rng.normal() * 0.002
                yield {
                    "method": method,
                    "protocol": "unseen",
                    "dataset": f"set{number:02d}",
                    "seed": 5,
                    "failed": None,
                    "auc_roc": area,
                    "auc_pr": area / 2,
                }

    gains = {f"paper/{name}": 0.0 for name in ("search", "boundary", "noise")}
    gains |= {"paper/rl": -0.05, "paper/shared-even": 0.05, "paper/shared-odd": 0.05}
    made = list(records(gains))
    lines = policy.comparison(made)
    assert lines[2].count("behind") == 3 and lines[3].count("ahead") == 3
    level = policy.comparison(list(records(dict.fromkeys(gains, 0.0))))
    assert level[2].count("level") == level[3].count("level") == 3
    (row,) = policy.overview_rows(made, ("seen", "few", "unseen"))
    assert row.count(" / ") == 4
    assert policy.comparison(made[:-1]) == policy.NOTHING
