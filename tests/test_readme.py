"""The README's code runs: its Python block as it stands, its commands as far as names and flags go."""

import re
import shlex

import pytest
from conftest import ROOT, made_table, run_script

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
            yield from (line.split("#")[0].strip() for line in text.splitlines() if line.startswith("python "))


@pytest.mark.parametrize("command", list(commands()))
def test_commands_name_scripts_and_flags_that_exist(command):
    words = shlex.split(command.replace("[", " ").replace("]", " ").replace("|", " "))
    script, flags = words[1], [word for word in words if word.startswith("--")]
    text = run_script(script, "-h").stdout
    assert flags or len(words) > 2
    for flag in flags:
        assert re.search(rf"{flag}\b", text), f"{script} has no {flag}"


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^make (\w+)", README, flags=re.M):
        assert re.search(rf"^{target}:", makefile, flags=re.M)
