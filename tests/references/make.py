"""Make the frozen references again: ``python tests/references/make.py``.

test_references.py compares with them, so that a change of numerics cannot pass unseen. Make them
again only on purpose: after a change that is meant to change scores (a default, an algorithm, the
order of random draws), or when the checkpoint's layout changes and old files shall no longer load.
Say in the commit which of the two it was, and check first that the benchmark agrees: afterwards
nothing remembers the old scores.

Writes ``checkpoint.pt`` (a trained detector) and ``scores.npz``: training rows, labels, rows to
score, their scores by the checkpoint, and the package versions and system they were made with.
"""

import platform
import sys
from pathlib import Path

import numpy as np
import torch

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

from swift_hydra import SwiftHydra, compiled  # noqa: E402
from swift_hydra.dataloader import load_dataset  # noqa: E402
from swift_hydra.files import write_file  # noqa: E402

# Short, but every part of the full preset learns something; the plain PyTorch path, which every
# machine has.
SETTINGS = {
    "random_state": 7,
    "cvae_steps": 60,
    "detector_steps": 40,
    "mixture_steps": 80,
    "n_episodes": 2,
    "n_synthetic": 60,
    "mixture_settings": {"d_head": 16},
    "device": "cpu",
    "mamba": "torch",
}


def rows():
    """Training rows (120, 8), labels and rows to score (60, 8) of the embedded yeast set, every
    eighth row.
    """
    data = load_dataset("47_yeast")
    X, y = data.X[::8], data.y[::8]
    return X[:120], y[:120], X[120:180]


def made_with():
    """What rounding and random draws depend on, as text."""
    numba = "with numba" if compiled.available() else "without numba"
    system = f"{platform.system()} {platform.machine()}"
    return f"torch {torch.__version__}, {numba}, numpy {np.__version__}, {system}"


def main():
    X, y, new = rows()
    torch.set_num_threads(1)
    model = SwiftHydra(**SETTINGS).fit(X, y)
    model.save(HERE / "checkpoint.pt")
    arrays = {
        "X": X,
        "y": y,
        "new": new,
        "score": model.decision_function(new),
        "made_with": np.array(made_with()),
    }
    write_file(HERE / "scores.npz", lambda file: np.savez_compressed(file, **arrays))
    print(f"written: {HERE / 'checkpoint.pt'}, {HERE / 'scores.npz'} ({made_with()})")


if __name__ == "__main__":
    main()
