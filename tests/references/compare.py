"""Do two checkouts give the same scores to the bit? ``python tests/references/compare.py OLD NEW``.

Runs ``SwiftHydra.py`` of both on every set, protocol and preset (seed 0, one thread) and compares
the scores of the test rows. Only the command line and ``scores.npz`` are used, so that checkouts of
any layout can be compared. Runs are kept in ``--work`` under a sum of the checkout's code: a second
call runs what is missing, and changed code runs anew.

    git worktree add /tmp/before HEAD~1
    python tests/references/compare.py /tmp/before . --sets yeast,../6_cardio.npz
"""

import argparse
import hashlib
import itertools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np


def sum_of_code(checkout):
    """Twelve hex digits that change with any line of the scripts and the package."""
    files = sorted([*checkout.glob("*.py"), *checkout.glob("swift_hydra/**/*.py")])
    digest = hashlib.sha256()
    for path in files:
        digest.update(str(path.relative_to(checkout)).encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def scores(checkout, dataset, protocol, preset, work):
    """Scores of the test rows by one checkout, from an earlier call where there are some."""
    checkout = Path(checkout).resolve()
    out = Path(work) / sum_of_code(checkout) / preset
    done = f"*{Path(dataset).stem}/{protocol}/seed0/DONE"
    if not list(out.glob(done)):
        command = [sys.executable, str(checkout / "SwiftHydra.py"), dataset]
        command += ["--protocol", protocol, "--preset", preset, "--out", str(out), "--quiet"]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
    (found,) = out.glob(done)
    with np.load(found.parent / "scores.npz", allow_pickle=False) as arrays:
        return arrays["score"]


def verdict(old, new):
    """What two arrays of scores have in common, in words."""
    if np.array_equal(old, new):
        return "equal"
    if old.shape != new.shape:
        return f"DIFFER in number: {len(new)} by the new one"
    return f"DIFFER by at most {np.abs(old - new).max():.2g}"


def main():
    """Print one line per run; exit with 1 where any differ."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("old", help="a checkout")
    parser.add_argument("new", help="another one; the same twice only fills --work")
    parser.add_argument("--sets", default="yeast", help="names or files, separated by commas")
    parser.add_argument("--protocols", default="seen,few,unseen")
    parser.add_argument("--presets", default="full,paper")
    parser.add_argument("--work", default="/tmp/compared", help="folder of the runs")
    options = parser.parse_args()
    lists = (options.sets, options.protocols, options.presets)
    differ = 0
    for dataset, protocol, preset in itertools.product(*(text.split(",") for text in lists)):
        old = scores(options.old, dataset, protocol, preset, options.work)
        new = scores(options.new, dataset, protocol, preset, options.work)
        differ += not np.array_equal(old, new)
        name = f"{Path(dataset).stem} {protocol} {preset}"
        print(f"{name}: {len(old)} scores {verdict(old, new)}", flush=True)
    sys.exit(f"{differ} runs differ" if differ else 0)


if __name__ == "__main__":
    main()
