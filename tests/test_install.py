"""Installed or in the clone: one import name, from any folder, beside a user's own modules."""

import importlib.util
import os
import pickle
import re
import sys
import venv
from pathlib import Path

import numpy as np
import pytest
from helpers import ROOT, SHORT, environment_of, made_table, run_new, run_warm
from joblib import Parallel, delayed

from SwiftHydra import SwiftHydra

QUICK = {"cvae_steps": 30, "detector_steps": 20, "mixture_steps": 30, "n_episodes": 2}
QUICK |= {"preset": "paper", "mamba": "torch"}
NOT_COMPILED = {"NUMBA_DISABLE_JIT": "1"}  # an installation would compile its own, for ten seconds
FIVE_LINES = f"""\
import numpy as np
from swift_hydra import SwiftHydra
table = np.load("made.npz")
SwiftHydra(**{QUICK}).fit(table["X"], table["y"]).save("model.pt")
print(*SwiftHydra.load("model.pt").decision_function(table["X"]))
"""


def run(*command, cwd):
    """What a command prints; it must end well. Nothing of this process's import path reaches it."""
    done = run_new(*command, cwd=cwd, environment=environment_of(**NOT_COMPILED))
    assert done.returncode == 0, done.stderr
    return done.stdout


def run_by(python, script, *words, cwd):
    """The same of a script, in a child of an interpreter that has the libraries loaded."""
    done = run_warm(script, *words, cwd=cwd, environment=environment_of(), python=(python,))
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The folder of the commands of a fresh environment in which the project's wheel is."""
    for tool in ("hatchling", "pip"):
        if importlib.util.find_spec(tool) is None:
            pytest.skip(f'building the wheel needs {tool}: pip install -e ".[dev]"')
    base = tmp_path_factory.mktemp("install")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    offline = ["--no-index", "--no-deps", "--quiet"]
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", base, cwd=ROOT)
    (wheel,) = base.glob("*.whl")
    venv.create(base / "venv", with_pip=False)
    commands = base / "venv" / ("Scripts" if os.name == "nt" else "bin")
    run(*pip, "--python", commands / "python", "install", *offline, wheel, cwd=base)
    # What the project requires is taken from here. Paths in a .pth file do not bring the .pth files
    # of those folders along: a clone that is installed here with pip -e stays out.
    show = "import sysconfig; print(sysconfig.get_path('purelib'))"
    packages = Path(run(commands / "python", "-c", show, cwd=base).strip())
    here = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    (packages / "required.pth").write_text("\n".join(here))
    return commands


@pytest.fixture(scope="module")
def fitted():
    """A detector of the clone, under the clone's short name, and rows to score."""
    X, y = made_table()
    return SwiftHydra(**QUICK).fit(X, y), X


def test_five_lines_fit_score_save_and_load(installed, tmp_path, npz):
    # torch's compiler would be more than a second of every process that fits.
    first, last = FIVE_LINES.rstrip().rsplit("\n", 1)
    asked = "import sys\ncompiles = 'torch._dynamo' in sys.modules"
    (tmp_path / "five.py").write_text("\n".join([first, asked, last, "print(compiles)"]))
    *printed, compiles = run(installed / "python", "five.py", cwd=tmp_path).split()
    assert compiles == "False"
    score = np.array(printed, dtype=float)
    assert len(score) == len(np.load(npz)["y"])
    assert np.isfinite(score).all()


def test_the_package_alone_does_not_load_torch(installed, tmp_path):
    code = "import sys, swift_hydra; print('torch' in sys.modules, swift_hydra.__file__)"
    loaded, file = run(installed / "python", "-c", code, cwd=tmp_path).split(maxsplit=1)
    assert loaded == "False"
    assert Path(file.strip()).is_relative_to(installed.parent)  # not the clone
    assert run(sys.executable, "-c", code, cwd=ROOT).startswith("False")


@pytest.mark.parametrize("command", ["swift-hydra", "swift-hydra-pretrain"])
def test_the_commands_answer_help(installed, tmp_path, command):
    said = run_by(installed / "python", installed / command, "--help", cwd=tmp_path)
    assert said.startswith(f"usage: {command} ")


def test_the_command_runs_on_the_set_inside_the_wheel(installed, tmp_path):
    quick = ["--quiet", "--preset", "paper", "--mamba", "torch", *SHORT]
    printed = run(installed / "swift-hydra", *quick, cwd=tmp_path)
    assert re.fullmatch(r"AUC-ROC [01]\.\d{4}  AUC-PR [01]\.\d{4}\n", printed)
    assert (tmp_path / "results" / "47_yeast" / "seen" / "seed0" / "DONE").exists()


def test_pickles_go_from_the_clone_to_the_installed_and_back(installed, tmp_path, fitted):
    model, X = fitted
    (tmp_path / "clone.pkl").write_bytes(pickle.dumps((model, X)))
    code = """
import pickle, sys
if "numba" in sys.modules:  # in which the variable was read long ago
    sys.modules["numba"].config.DISABLE_JIT = 1
model, X = pickle.load(open("clone.pkl", "rb"))
from swift_hydra import SwiftHydra
assert type(model) is SwiftHydra
pickle.dump((model, model.decision_function(X)), open("installed.pkl", "wb"))
"""
    (tmp_path / "code.py").write_text(code)
    run_by(installed / "python", "code.py", cwd=tmp_path)
    back, score = pickle.loads((tmp_path / "installed.pkl").read_bytes())
    assert type(back) is SwiftHydra
    assert np.allclose(score, back.decision_function(X))


ORDERS = {
    "short name first": "import SwiftHydra, swift_hydra",
    "package first": "import swift_hydra; swift_hydra.SwiftHydra; import SwiftHydra",
}


@pytest.mark.parametrize("order", ORDERS)
def test_both_names_are_one_class_whichever_comes_first(tmp_path, order):
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); {ORDERS[order]}; "
    code += "print(SwiftHydra.SwiftHydra is swift_hydra.SwiftHydra, SwiftHydra.SwiftHydra)"
    (tmp_path / "code.py").write_text(code)
    printed = run_by(sys.executable, "code.py", cwd=tmp_path)
    assert printed == "True <class 'swift_hydra.SwiftHydra.SwiftHydra'>\n"


def test_modules_of_a_user_are_not_disturbed(tmp_path):
    """A script that appends the clone to the path, beside files that are named like the clone's."""
    own = ["model", "config", "pretrain", "dataloader", "benchmark", "settings", "data"]
    for name in own:
        (tmp_path / f"{name}.py").write_text(f"MINE = {name!r}\n")
    (tmp_path / "script.py").write_text(f"""
import sys
sys.path.append({str(ROOT)!r})
import {own[0]}
from SwiftHydra import SwiftHydra
import {", ".join(own)}
SwiftHydra(n_episodes=1).check_settings()
print(*(module.MINE for module in ({", ".join(own)})))
""")
    assert run_by(sys.executable, "script.py", cwd=tmp_path).split() == own


def test_the_script_runs_from_any_folder(tmp_path):
    (tmp_path / "model.py").write_text("raise ImportError('not this one')")
    script = os.path.relpath(ROOT / "SwiftHydra.py", tmp_path)
    said = run_by(sys.executable, script, "-h", cwd=tmp_path)
    assert said.startswith("usage: SwiftHydra.py ")


def test_a_fitted_estimator_goes_to_other_processes(fitted):
    model, X = fitted
    parts = Parallel(n_jobs=2, backend="loky")(
        delayed(model.decision_function)(part) for part in (X[:120], X[120:])
    )
    assert np.allclose(np.concatenate(parts), model.decision_function(X))
