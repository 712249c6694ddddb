"""What the documents show runs: Python blocks as they stand, commands as far as names and flags go,
the section on one's own table as typed. What they point at exists.
"""

import functools
import re
import shlex

import numpy as np
import pytest
from helpers import ROOT, SHORT, SHORT_FIT, made_table, run_script, run_warm

from swift_hydra import SwiftHydra

README = ROOT / "README.md"
DOCS = [README, *sorted((ROOT / "docs").glob("*.md"))]
TEXT = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in DOCS}
CARDS = ["ADBenchDatasets/README.md", "results/README.md", "results/NOTES.md"]
LINKED = TEXT | {name: (ROOT / name).read_text(encoding="utf-8") for name in CARDS}
OTHERS = "docs/reference-code.md"  # speaks of the files of another repository


def blocks(language):
    """The fenced blocks of a language in all documents: pairs of a document's name and the code."""
    for name, text in TEXT.items():
        for found, code in re.findall(r"^```(\w*)\n(.*?)^```", text, flags=re.M | re.S):
            if found == language:
                yield name, code


def prose(text):
    """A document without its fenced blocks."""
    return re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)


@pytest.mark.parametrize("name,code", list(blocks("python")))
def test_python_blocks_run(name, code, tmp_path, monkeypatch):
    """With shorter training where they name no number of steps."""
    defaults = SwiftHydra.__init__.__kwdefaults__ | SHORT_FIT
    monkeypatch.setattr(SwiftHydra.__init__, "__kwdefaults__", defaults)
    monkeypatch.chdir(tmp_path)
    X, y = made_table(n=120, n_anomalies=16)
    names = {"X_train": X[::2], "y_train": y[::2], "X_test": X[1::2]}
    exec(compile(code, name, "exec"), names)
    assert len(names["score"]) == len(names["X_test"])


def commands():
    """Every ``python SCRIPT ...`` of the blocks and of the running text."""
    found = []
    for _, code in blocks(""):
        joined = re.sub(r"\n\s+(?=\[)", " ", code)  # the flags of one command on several lines
        found += [line.split("#")[0] for line in joined.splitlines()]
    for text in TEXT.values():
        found += re.findall(r"`([^`]+)`", prose(text))
    for line in found:
        for command in re.findall(r"\bpython (\w+\.py\b[^']*)", line):
            yield " ".join(command.split())


@functools.cache
def help_of(*words):
    done = run_warm(ROOT / words[0], *words[1:], "-h")
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_documents_show_commands_of_every_script():
    scripts = {command.split()[0] for command in commands()}
    assert scripts == {path.name for path in ROOT.glob("*.py")} - {"model.py"}  # has no command


@pytest.mark.parametrize("command", sorted(set(commands())))
def test_commands_name_scripts_and_flags_that_exist(command):
    words = shlex.split(command.replace("[", " ").replace("]", " ").replace("|", " "))
    text = help_of(*(words[:2] if words[1:2] == ["score"] else words[:1]))
    for flag in [word for word in words if word.startswith("-")]:
        assert re.search(rf"(?<![\w-]){flag}(?![\w-])", text), f"{words[0]} has no {flag}"


def test_flags_in_the_running_text_exist():
    shown = "".join(help_of(f"{name}.py") for name in ("SwiftHydra", "benchmark", "dataloader"))
    shown += help_of("SwiftHydra.py", "score")
    for name, text in TEXT.items():
        for code in re.findall(r"`(--[^`]+)`", prose(text)):
            for flag in re.findall(r"(?<!\S)--[\w-]+", code):
                assert re.search(rf"{flag}(?![\w-])", shown), f"{name}: no script has {flag}"


def test_the_own_table_section_works_as_typed(tmp_path):
    """Its commands on made files of the names it uses, with shorter training; results go to the
    current folder.
    """
    pyarrow = pytest.importorskip("pyarrow", reason="Parquet needs pyarrow: pip install pyarrow")
    from pyarrow import parquet

    X, y = made_table(n=300, n_anomalies=30)
    table = np.column_stack([X, y])
    names = [*"abcdef", "outlier"]
    np.savetxt(tmp_path / "table.csv", table, delimiter=",", header=",".join(names), comments="")
    np.savetxt(tmp_path / "new.csv", X, delimiter=",", header="a,b,c,d,e,f", comments="")
    mixed = {name: table[:, j] for j, name in enumerate(names[:-1])}
    mixed["a"] = [None if i % 9 == 0 else value for i, value in enumerate(mixed["a"])]
    mixed |= {
        "colour": ["red", "green", "blue"] * 100,
        "customer": [f"c{i}" for i in range(300)],
        "fraud": y,
    }
    parquet.write_table(pyarrow.table(mixed), tmp_path / "claims.parquet")
    section = TEXT["README.md"].split("\n## Your own table\n")[1]
    typed = [
        line.split("#")[0]
        for line in re.search(r"```\n(.*?)```", section, flags=re.S)[1].splitlines()
    ]
    assert len(typed) == 4
    for command in typed[:2]:
        done = run_script(*shlex.split(command)[1:], *SHORT, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[-1].startswith("AUC-ROC ")
    done = run_script(*shlex.split(typed[2])[1:], *SHORT, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    ranked = (tmp_path / "results" / "table" / "unlabelled" / "seed0" / "scores.csv").read_text()
    assert len(ranked.splitlines()) == 301
    done = run_script(*shlex.split(typed[3])[1:], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len((tmp_path / "scores.csv").read_text().splitlines()) == 301


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text()
    targets = set()
    for text in TEXT.values():
        targets |= set(re.findall(r"(?:^|`)make (\w+)", text, flags=re.M))
    assert {"run", "test"} <= targets
    for target in targets:
        assert re.search(rf"^{target}:", makefile, flags=re.M), f"no make {target}"


def test_extras_and_console_commands_exist():
    project = (ROOT / "pyproject.toml").read_text()
    whole = "".join(TEXT.values())
    extras = set(re.findall(r"\.\[(\w+)\]", whole))
    assert extras == {"fast", "gpu", "onnx", "bench", "dev"}
    for extra in extras:
        assert re.search(rf"^{extra} = \[", project, flags=re.M)
    for command in ("swift-hydra", "swift-hydra-pretrain"):
        assert f"`{command}`" in TEXT["README.md"]
        assert re.search(rf'^{command} = "', project, flags=re.M)


def anchors(text):
    """What GitHub calls the headings of a document."""
    titles = re.findall(r"^#+ (.+)$", prose(text), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("name", list(LINKED))
def test_links_and_pictures_exist(name):
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(LINKED[name])):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = (ROOT / name).parent / path if path else ROOT / name
        assert file.resolve().is_relative_to(ROOT) and file.exists(), f"{name}: no {target}"
        if anchor:
            assert anchor in anchors(file.read_text(encoding="utf-8")), f"{name}: no {target}"


def test_every_document_is_linked_from_the_readme():
    for name in [*TEXT, *CARDS]:
        assert name == "README.md" or f"]({name}" in TEXT["README.md"]


@pytest.mark.parametrize("name", [name for name in TEXT if name != OTHERS])
def test_files_that_are_named_exist(name):
    """Python files and folders in backticks, at the top or as rooms of the package."""
    for word in re.findall(r"`([\w/-]+(?:\.py|/))`", prose(TEXT[name])):
        # What a run writes is not there yet.
        places = [ROOT / word, ROOT / "swift_hydra" / word]
        assert word == "tensorboard/" or any(place.exists() for place in places), word


def test_the_readme_is_short():
    lines = TEXT["README.md"].splitlines()
    assert len(lines) <= 180
    assert all(len(line) <= 120 for line in lines)


def test_the_readme_quotes_the_table_of_results():
    """What its running text says of other protocols is what the records say: that was left behind
    by records that replaced others.
    """
    table = TEXT["docs/results.md"].split("<!-- labels -->")[1].split("<!-- /labels -->")[0]
    rows = [
        re.split(r" *\| *", row) for row in table.replace("*", "").splitlines() if row[:1] == "|"
    ]
    place = {name: rows[0].index(name) for name in rows[0] if name}
    of = {row[1]: row for row in rows[2:]}
    said = " ".join(TEXT["README.md"].split())
    for protocol in ("weak-0.05, seeds 0 to 4", "weak-1.0, seeds 0 to 4"):
        own, peer = (of[name][place[protocol]] for name in ("Swift Hydra (`full`)", "CatBoost"))
        assert f"it has {own}, CatBoost {peer}" in said
    own, *peers = (row[place["weak-0, seeds 0 to 1"]] for row in rows[2:])
    assert f"With none it has {own}, the best peer {max(peers)}" in said
    table = TEXT["docs/results.md"].split("<!-- student -->")[1].split("<!-- /student -->")[0]
    costs = re.findall(r"\| -0(\.\d+) ± ", table)  # a student's AUC-ROC less its detector's
    assert f"at a mean cost of up to {max(costs)} of AUC-ROC" in said
