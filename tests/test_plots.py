"""--plot writes readable PNG files, and says what is missing before any work where matplotlib is not installed."""

import sys

import pytest
from conftest import SHORT, run_script

import plots
import SwiftHydra
from config import InputError


def test_plot_writes_figures(npz, tmp_path):
    pytest.importorskip("matplotlib", reason="figures need matplotlib: pip install matplotlib")
    run = run_script("SwiftHydra.py", npz, "--plot", "--out", tmp_path, *SHORT)
    assert run.returncode == 0, run.stderr
    folder = tmp_path / "made" / "seen" / "seed0"
    for name in ("curves", "scores", "map", "episodes"):
        data = (folder / f"{name}.png").read_bytes()
        assert data.startswith(b"\x89PNG")
        assert len(data) > 5000


def test_missing_matplotlib_is_named_first(npz, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(InputError, match="pip install matplotlib"):
        plots.require_matplotlib()
    with pytest.raises(InputError, match="pip install matplotlib"):
        SwiftHydra.main([str(npz), "--plot", "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()
