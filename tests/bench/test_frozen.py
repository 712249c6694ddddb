"""One fixed configuration on any folder: what it is cannot be changed, and its page says it all."""

import dataclasses
import hashlib
import json
import re
import shutil

import numpy as np
import pytest
from helpers import ROOT, made_table, refusal, run_script

import swift_hydra.benchmark as benchmark
from swift_hydra.bench import frozen
from swift_hydra.bench.frozen import FROZEN, Configuration, claim, code_sum, write_page
from swift_hydra.bench.methods import GROUPS, RECORDED
from swift_hydra.bench.records import load_records, write_record
from swift_hydra.settings import InputError

pytestmark = pytest.mark.usefixtures("kept_environment")

TINY = Configuration(
    methods={
        "seen": ("LogisticRegression", "kNN"),
        "unseen": ("LogisticRegression", "kNN"),
        "one-class": ("LogisticRegression", "kNN"),
    },
    seeds=(0, 1),
    max_rows=100,
    reference="kNN",
)


@pytest.fixture
def sets(tmp_path):
    folder = tmp_path / "sets"
    folder.mkdir()
    for seed, name in enumerate(("one", "two")):
        X, y = made_table(n=150, d=4, n_anomalies=30, seed=seed)
        np.savez(folder / f"{name}.npz", X=X, y=y)
    X = np.repeat(np.random.default_rng(0).normal(size=(60, 3)), 2, axis=0)
    y = np.zeros(120, dtype=np.int64)
    X[:10], y[:10] = 3.0, 1  # all anomalies are one point: no second kind to be unseen
    np.savez(folder / "one-kind.npz", X=X, y=y)
    return folder


def test_a_sweep_of_a_fixed_configuration_and_its_page(sets, tmp_path, capsys):
    records = tmp_path / "records"
    words = ["--frozen", str(sets), "--records", str(records), "--jobs", "1"]
    benchmark.main(words, TINY)
    said = capsys.readouterr().out.splitlines()
    assert said[0] == f"configuration SHA-256 {TINY.sha256}"
    assert said[1] == "36 cells, 0 of them recorded already"
    # "unseen" is undefined on one set; nothing is known under "one-class" to learn from.
    assert "26 computed, 10 failed (see the records)" in said
    page = (records / "frozen.md").read_text()
    assert f"`{TINY.sha256}`" in page
    text = "".join(re.search(r"```\n(.*?)```", page, flags=re.S)[1].splitlines())
    assert text == TINY.text and hashlib.sha256(text.encode()).hexdigest() == TINY.sha256
    for path in sets.glob("*.npz"):
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        assert f"| {path.stem} | `{digest}` |" in page
    assert "*unseen* is undefined on, and has no scores of: one-kind." in page
    assert "| one-class | LogisticRegression | 6 | one: InputError: " in page
    assert "## seen: 3 sets, seeds 0, 1" in page and "## unseen: 2 sets, seeds 0, 1" in page
    assert "### seen, without test rows that are copies of training rows" in page
    assert "1 of 3 sets have such rows" in page
    assert "one set left out" in page and "| fit s | score s |" in page
    if "No figures" not in page:
        assert (records / "critical-difference-seen.png").is_file()
        assert "![mean ranks on seen](critical-difference-seen.png)" in page
    benchmark.main(words, TINY)  # the same again: nothing to do, the same bytes
    assert "36 cells, 36 of them recorded already" in capsys.readouterr().out
    assert (records / "frozen.md").read_text() == page


def record(method, dataset, seed, **more):
    content = {"method": method, "protocol": "seen", "dataset": dataset, "seed": seed}
    content |= {"failed": None, "git": "abc", "auc_roc": 0.9, "auc_pr": 0.5}
    return content | {"fit_seconds": 1.0, "score_seconds": 0.1} | more


def test_the_page_is_about_its_own_sets_and_names_what_is_missing(tmp_path):
    for seed in TINY.seeds:
        write_record(tmp_path, record("LogisticRegression", "a", seed))
        write_record(tmp_path, record("kNN", "a", seed, failed="TimeLimit: a | b"))
        write_record(tmp_path, record("kNN", "elsewhere", seed))
    (page,) = write_page(tmp_path, TINY, {"a": "0" * 64})
    text = page.read_text()
    assert "elsewhere" not in text and "4 of 12 are recorded" in text and "`abc`" in text
    assert "| seen | kNN | 2 | a: TimeLimit: a / b |" in text
    assert "No table: kNN lacks cells, it has 0 scores." in text


def test_the_sum_is_one_of_the_code_too(tmp_path, monkeypatch):
    """The same where the scripts stand inside of the package, as in a wheel."""
    own = code_sum()
    installed = tmp_path / "swift_hydra"
    shutil.copytree(ROOT / "swift_hydra", installed)
    for script in ("SwiftHydra", "model", "pretrain", "dataloader", "benchmark"):
        shutil.copy(ROOT / f"{script}.py", installed)
    monkeypatch.setattr(frozen.swift_hydra, "__file__", str(installed / "__init__.py"))
    assert code_sum.__wrapped__() == own == json.loads(FROZEN.text)["code"]
    with open(installed / "model.py", "a") as file:
        file.write("# another line\n")
    assert code_sum.__wrapped__() != own


def test_the_configuration_is_what_its_sum_says():
    content = json.loads(FROZEN.text)
    assert content["settings"]["n_episodes"] == 5 and content["settings"]["preset"] == "full"
    assert content["seeds"] == [0, 1, 2, 3, 4] and content["max_rows"] == 10000
    assert content["methods"]["seen"] == ["full/rl", *RECORDED]
    assert content["methods"]["weak-0"] == ["full/rl", *GROUPS["one-class-peers"]]
    names = "seen,few,unseen,weak-0.05,weak-10,weak-0,one-class"
    assert content["protocols"] == names.split(",")
    other = dataclasses.replace(FROZEN, seeds=(0, 1))
    assert other.sha256 != FROZEN.sha256 and len(FROZEN.sha256) == 64
    assert all(FROZEN.reference in methods for methods in FROZEN.methods.values())


def test_a_folder_belongs_to_one_configuration_and_its_files(sets, tmp_path):
    paths = sorted(sets.glob("*.npz"))
    claim(tmp_path, TINY, paths[:1])
    assert set(claim(tmp_path, TINY, paths[1:])) == {path.stem for path in paths[1:]}
    ledger = json.loads((tmp_path / "frozen.json").read_text())
    assert set(ledger["sets"]) == {path.stem for path in paths}
    with pytest.raises(InputError, match=r"records of the configuration .*choose another --rec"):
        claim(tmp_path, dataclasses.replace(TINY, max_rows=99), paths)
    paths[0].write_bytes(b"mended")  # a file that gave no score may be
    write_record(tmp_path, record("kNN", paths[0].stem, 0, failed="InputError: a gap"))
    assert claim(tmp_path, TINY, paths)
    write_record(tmp_path, record("ECOD", paths[0].stem, 0))
    paths[0].write_bytes(b"another")
    with pytest.raises(InputError, match=f"other files called {paths[0].stem}: choose another"):
        claim(tmp_path, TINY, paths)
    for content in ("{", "[" * 100_000, '{"configuration": 3, "sets": 3}'):
        (tmp_path / "frozen.json").write_text(content)
        with pytest.raises(InputError, match=r"frozen\.json: is damaged"):
            claim(tmp_path, TINY, paths)


def test_any_name_of_a_set_stands_on_the_page(tmp_path):
    names = ["a|b", "two\nlines", "\x1b[2J", "\udcff"]
    for name in names:
        write_record(tmp_path, record("kNN", name, 0, failed="ValueError: 'unseen' is undefined"))
    write_page(tmp_path, TINY, dict.fromkeys(names, "0"))
    text = (tmp_path / "frozen.md").read_text()
    assert "\x1b" not in text
    for shown in (r"a\|b", r"two\nlines", r"\x1b[2J", r"\udcff"):
        assert f"| {shown} | `0` |" in text


def test_a_file_is_left_out_for_no_suffix_and_every_failed_set_is_named(sets, tmp_path):
    """Such a set stands in the list of the page, and in no mean."""
    (sets / "two.npz").rename(sets / "two.NPZ")
    config = benchmark.BenchmarkConfig(datasets=str(sets), records=str(tmp_path))
    names = {cell.dataset for cell in benchmark.list_cells(config)}
    assert names == {"one", "one-kind", "two"}
    for name in ("one", "a|b", "two"):
        for seed in TINY.seeds:
            write_record(tmp_path, record("kNN", name, seed, failed="InputError: a gap"))
    write_page(tmp_path, TINY, dict.fromkeys(("one", "a|b", "two"), "0"))
    text = (tmp_path / "frozen.md").read_text()
    assert ": InputError: a gap | a\\|b, one, two |" in text


def test_the_command_refuses_what_would_change_it_and_prints_one_sum(sets, tmp_path, capsys):
    words = ["--frozen", str(sets), "--records", str(tmp_path / "records")]
    changed = [*words, "--methods", "ours", "--seeds=0", "--protocols", "seen"]
    line = refusal(capsys, lambda: benchmark.main(changed))
    assert "leave out --seeds, --protocols, --methods, or measure your own" in line
    write_record(tmp_path / "records", record("kNN", "one", 0))
    done = run_script("benchmark.py", *words, env={"PYTHONHASHSEED": "1"})
    assert done.returncode == 2
    assert done.stdout == f"configuration SHA-256 {FROZEN.sha256}\n"  # of this process
    assert "holds records of another sweep: choose another --records" in done.stderr
    assert len(load_records(tmp_path / "records")) == 1


@pytest.mark.parametrize("flags", [["--max-rows", "5"], ["--report"], ["--no-figures"]])
def test_no_flag_changes_the_configuration(flags, sets):
    with pytest.raises(InputError, match="leave out --"):
        benchmark.main(["--frozen", str(sets), *flags], TINY)


def test_a_folder_is_needed(tmp_path):
    with pytest.raises(InputError, match="is no folder: give one that holds"):
        benchmark.main(["--frozen", str(tmp_path / "nowhere")], TINY)
    with pytest.raises(InputError, match=r"holds no \.npz file"):
        benchmark.main(["--frozen", str(tmp_path)], TINY)
