"""What goes wrong before a script's own code runs: in the imports, which take seconds."""

import os
import signal
import subprocess
import sys

import pytest
from helpers import ROOT

SCRIPTS = ("SwiftHydra", "pretrain", "benchmark", "dataloader")
# The first package each imports from outside; others: numpy.
FIRST = {"benchmark": "tqdm", "pretrain": "torch"}


def started(script, folder, *options):
    """``script`` where packages of ``folder`` come before all others."""
    return subprocess.run(
        [sys.executable, *options, str(ROOT / f"{script}.py"), "yeast"],
        env=os.environ | {"PYTHONPATH": str(folder)},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a terminal's
    )


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_missing_package_is_one_line_with_the_remedy(script, tmp_path):
    done = started(script, tmp_path, "-S")  # Python alone: no package is installed
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert FIRST.get(script, "numpy") in done.stderr
    assert "pip install -r requirements.txt" in done.stderr


@pytest.mark.parametrize("script", SCRIPTS)
def test_an_interrupt_during_imports_is_one_line(script, tmp_path):
    package = FIRST.get(script, "numpy")
    (tmp_path / f"{package}.py").write_text(
        "import os, signal, time\n"
        "try:\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    time.sleep(60)\n"
        "except KeyboardInterrupt:\n"
        "    os.abort()\n"  # as compiled code does that was interrupted
    )
    done = started(script, tmp_path)
    assert done.returncode == 130
    assert done.stderr.startswith("interrupted: ")
    assert done.stderr.count("\n") == 1


def test_what_breaks_in_an_import_shows_its_traceback_on_request(tmp_path):
    (tmp_path / "numpy.py").write_text("raise OSError(22, 'no library', 'libx.so')\n")
    done = started("dataloader", tmp_path)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    shown = subprocess.run(
        [sys.executable, str(ROOT / "dataloader.py"), "--debug"],
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert shown.returncode == 2
    assert "Traceback" in shown.stderr
    assert shown.stderr.endswith(done.stderr)


def test_a_current_folder_that_is_gone_is_said(tmp_path):
    command = f"mkdir gone; cd gone; rmdir ../gone; {sys.executable} {ROOT / 'SwiftHydra.py'} yeast"
    done = subprocess.run(["sh", "-c", command], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("error: the current folder (") and done.stderr.count("\n") == 1


def test_numba_that_may_not_compile_is_as_none(tmp_path):
    shown = "from swift_hydra import compiled; print(compiled.available())"
    environment = os.environ | {"NUMBA_DISABLE_JIT": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", shown]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr
