"""Do two checkouts give the same scores to the bit?

    python tests/references/compare.py OLD NEW

Runs ``SwiftHydra.py`` of both on every set, protocol and preset (seed 0, one thread) and compares
the scores of the test rows. Only the command line and ``scores.npz`` are used, so that checkouts of
any layout can be compared. Results are kept in ``--work`` by the checkout's name: a second call
runs what is missing.

    git worktree add /tmp/before HEAD~1
    python tests/references/compare.py /tmp/before . --sets yeast,path/to/6_cardio.npz
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

import numpy as np


def scores(checkout, dataset, protocol, preset, work):
    """Scores of the test rows by one checkout, from an earlier call where there are some."""
    out = Path(work) / Path(checkout).resolve().name / preset
    name = Path(dataset).stem
    found = list(out.glob(f"*{name}/{protocol}/seed0/DONE"))
    if not found:
        command = [sys.executable, str(Path(checkout).resolve() / "SwiftHydra.py"), dataset]
        command += ["--protocol", protocol, "--preset", preset, "--out", str(out), "--quiet"]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
        found = list(out.glob(f"*{name}/{protocol}/seed0/DONE"))
    with np.load(found[0].parent / "scores.npz", allow_pickle=False) as arrays:
        return arrays["score"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("old", help="a checkout")
    parser.add_argument("new", help="another one; the same twice only fills --work")
    parser.add_argument("--sets", default="yeast", help="names or files, separated by commas")
    parser.add_argument("--protocols", default="seen,few,unseen")
    parser.add_argument("--presets", default="full,paper")
    parser.add_argument("--work", default="/tmp/compared", help="folder of the runs")
    options = parser.parse_args()
    differ = 0
    for dataset in options.sets.split(","):
        for protocol in options.protocols.split(","):
            for preset in options.presets.split(","):
                old, new = (
                    scores(checkout, dataset, protocol, preset, options.work)
                    for checkout in (options.old, options.new)
                )
                same = np.array_equal(old, new)
                differ += not same
                largest = np.abs(old - new).max() if old.shape == new.shape else np.inf
                verdict = "equal" if same else f"DIFFER by at most {largest:.2g}"
                print(
                    f"{Path(dataset).stem} {protocol} {preset}: {len(old)} scores {verdict}",
                    flush=True,
                )
    sys.exit(f"{differ} runs differ" if differ else 0)


if __name__ == "__main__":
    main()
