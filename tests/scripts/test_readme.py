"""The README's code runs: its Python block as it stands, its commands as far as names and flags go."""

import re
import shlex

import numpy as np
import pytest
from helpers import ROOT, SHORT, made_table, run_script

README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", README, flags=re.M | re.S)


def test_the_python_block_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    X, y = made_table(n=120, n_anomalies=16)
    blocks = [code for language, code in BLOCKS if language == "python"]
    assert blocks
    for code in blocks:
        names = {"X_train": X[::2], "y_train": y[::2], "X_test": X[1::2]}
        exec(compile(code, "README.md", "exec"), names)
        assert len(names["score"]) == len(names["X_test"])


def commands():
    for language, code in BLOCKS:
        if language == "":
            text = re.sub(r"\n\s+(?=\[)", " ", code)
            yield from (
                line.split("#")[0].strip()
                for line in text.splitlines()
                if line.startswith("python ")
            )


@pytest.mark.parametrize("command", list(commands()))
def test_commands_name_scripts_and_flags_that_exist(command):
    words = shlex.split(command.replace("[", " ").replace("]", " ").replace("|", " "))
    script, flags = words[1], [word for word in words if word.startswith("--")]
    text = run_script(script, *(["score"] if words[2] == "score" else []), "-h").stdout
    assert flags or len(words) > 2
    for flag in flags:
        assert re.search(rf"{flag}\b", text), f"{script} has no {flag}"


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
    section = README[README.index("## Your own table") :]
    commands = [
        line.split("#")[0]
        for line in re.search(r"```\n(.*?)```", section, flags=re.S)[1].splitlines()
    ]
    assert len(commands) == 3
    for command in commands[:2]:
        done = run_script(*shlex.split(command)[1:], *SHORT, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[-1].startswith("AUC-ROC ")
    done = run_script(*shlex.split(commands[2])[1:], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len((tmp_path / "scores.csv").read_text().splitlines()) == 301


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^make (\w+)", README, flags=re.M):
        assert re.search(rf"^{target}:", makefile, flags=re.M)
