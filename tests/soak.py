"""What the timed suite cannot afford: hundreds of random tables, labels without meaning, kills.

    python tests/soak.py tables --n 300      fits with the class's defaults
    python tests/soak.py labels --n 20       left-out scores and alarms where labels mean nothing
    python tests/soak.py kills --n 25        of each signal, over pretrain, run, score and a sweep

Every table and kill follows from its number, ``--first`` is where to begin. One line for each that
breaks what is promised, then the counts; exit code 1 where there was one.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from helpers import ROOT, SHORT, made_table
from sklearn.metrics import roc_auc_score

from swift_hydra.bench.records import key_of, load_records
from swift_hydra.data.rows import MIN_NORMALS
from swift_hydra.settings import InputError
from swift_hydra.SwiftHydra import SwiftHydra

# ---- random tables -------------------------------------------------------------------------------

SHAPES = {
    "plain": lambda rng, X: X,
    "rows repeated": lambda rng, X: X[rng.integers(0, max(2, len(X) // 3), len(X))],
    "one-hot": lambda rng, X: np.eye(5)[np.digitize(X, [-1, 0, 1, 2])].reshape(len(X), -1),
    "sparse": lambda rng, X: X * (rng.random(X.shape) < 0.1),
    "huge": lambda rng, X: X * 10.0 ** rng.uniform(3, 30, X.shape[1]),
    "tiny": lambda rng, X: X * 10.0 ** -rng.uniform(3, 30, X.shape[1]),
    "offset": lambda rng, X: X + 10.0 ** rng.uniform(3, 12, X.shape[1]),
    "heavy tails": lambda rng, X: np.sinh(3 * X),
    "whole numbers": lambda rng, X: np.round(X),
}
KNOWN = {"none": 0.0, "one": 1, "few": 5, "half": 0.5, "all": 1.0}
SHARES = (0.02, 0.1, 0.5, 0.9)  # of anomalies


def random_table(number):
    """A table of a kind, its labels, its true labels, the class's settings for it, and its name."""
    rng = np.random.default_rng(number)
    shape, known = list(SHAPES)[number % 9], rng.choice(list(KNOWN))
    n, d = int(np.exp(rng.uniform(np.log(6), np.log(401)))), int(rng.integers(1, 61))
    truth = rng.permutation(n) < max(1, round(rng.choice(SHARES) * n))
    X = rng.normal(size=(n, d)) @ (np.eye(d) + rng.normal(size=(d, d)) / d)
    X[truth] += rng.choice([0, 2, 4]) * rng.choice([-1, 1], d) * (rng.random(d) < 0.5)
    if shape == "rows repeated":
        rows = np.arange(n)
        rows = SHAPES[shape](rng, rows)
        X, truth = X[rows], truth[rows]
    else:
        X = SHAPES[shape](rng, X)
    share = KNOWN[known]
    n_known = round(share * truth.sum()) if isinstance(share, float) else min(share, truth.sum())
    y = np.zeros(n, dtype=int)
    y[rng.permutation(np.flatnonzero(truth))[: min(n_known, n - MIN_NORMALS)]] = 1
    y[(y == 0) & (rng.random(n) < rng.choice([0, 0.5]))] = -1
    if not (y == 0).any():  # of 1 and -1 alone nobody can tell what they mean
        y[y == -1] = 0
    settings = {
        "random_state": number,
        "fast": number % 3 == 0,
        "majority_anomalies": bool(y.mean() > 0.5),
    }
    return X, y if y.any() else None, truth, settings, f"{number} {shape}, {n} x {d}, {known} known"


def check_table(number):
    """What is wrong with table ``number``, and whether it was refused."""
    X, y, _, settings, _ = random_table(number)
    try:
        model = SwiftHydra(**settings).fit(X, y)
    except InputError as error:
        return [f"refused: {error}"]
    score = model.decision_function(X)
    wrong = [] if np.isfinite(score).all() else ["scores that are not finite"]
    rows = np.random.default_rng(number).permutation(len(X))[:40]
    alone = np.concatenate([model.decision_function(X[[row]]) for row in rows])
    if np.abs(alone - score[rows]).max() > 1e-6:
        wrong.append(f"rows alone differ by {np.abs(alone - score[rows]).max():.1e}")
    meant = y is not None and 1 <= (y == 1).sum() < len(y)
    if meant and roc_auc_score(y == 1, score) < 0.5:
        wrong.append(f"known anomalies lowest: {roc_auc_score(y == 1, score):.3f}")
    if number % 3 == 1:
        again = SwiftHydra(**settings).fit(X, y).decision_function(X)
        if not np.array_equal(again, score):
            wrong.append("another fit of the same seed gave other bits")
    return wrong


def soak_tables(numbers):
    """A count of each that went wrong."""
    broken = 0
    for number in numbers:
        try:
            wrong = check_table(number)
        except Exception as error:
            wrong = [f"{type(error).__name__}: {error}"]
        broken += bool(wrong)
        for what in wrong:
            print(f"{random_table(number)[-1]}: {what}", flush=True)
    print(f"{len(numbers)} tables, {broken} with something to say")
    return broken


# ---- labels that mean nothing --------------------------------------------------------------------

FEATURES = {
    "one-hot": lambda rng, n: np.eye(5)[rng.integers(0, 5, (n, 3))].reshape(n, -1),
    "whole numbers": lambda rng, n: rng.integers(0, 5, (n, 3)).astype(float),
    "mostly zero": lambda rng, n: np.where(rng.random((n, 6)) < 0.1, rng.normal(size=(n, 6)), 0.0),
    "continuous": lambda rng, n: rng.normal(size=(n, 6)),
}
STATED = 0.1  # share flagged


def label_table(number, n=300, n_fresh=2000):
    """Rows, labels, fresh rows and the name of a kind of table."""
    rng = np.random.default_rng(number)
    kinds = [*FEATURES, "rows repeated"]
    kind = kinds[number % len(kinds)]
    if kind == "rows repeated":  # fresh rows are copies of the same few
        pool = rng.normal(size=(n // 3, 6))
        make = lambda rng, n: pool[rng.integers(0, len(pool), n)]  # noqa: E731
    else:
        make = FEATURES[kind]
    X = make(rng, n)
    return X, (rng.permutation(n) < n // 5).astype(int), make(rng, n_fresh), kind


def soak_labels(numbers):
    """Left-out AUC-ROC and the share of fresh rows flagged; those beyond two standard errors."""
    far_auc, far_share, aucs = 0, 0, []
    for number in numbers:
        X, y, fresh, kind = label_table(number)
        model = SwiftHydra(random_state=number, contamination=STATED, trust_normals=True).fit(X, y)
        auc, flagged = roc_auc_score(y, model.decision_scores_), model.predict(fresh).mean()
        n_1, n_0 = y.sum(), len(y) - y.sum()
        z_auc = (auc - 0.5) / np.sqrt((n_1 + n_0 + 1) / (12 * n_1 * n_0))
        # Where rows tie, the share can only be what some threshold gives: the next one bounds it.
        below = model.fresh_scores_[model.fresh_scores_ <= model.threshold_]
        at_most = (model.decision_function(fresh) >= below.max()).mean() if len(below) else 1.0
        error = np.sqrt(STATED * (1 - STATED) * (1 / len(X) + 1 / len(fresh)))
        z_share = max((flagged - STATED) / error, 0) or min((at_most - STATED) / error, 0)
        far_auc, far_share = far_auc + (abs(z_auc) > 2), far_share + (abs(z_share) > 2)
        aucs.append(auc)
        print(
            f"{number} {kind}: AUC-ROC {auc:.3f} ({z_auc:+.1f} se), flagged {flagged:.3f}"
            f" ({z_share:+.1f} se)",
            flush=True,
        )
    mean, se = np.mean(aucs), np.std(aucs, ddof=1) / np.sqrt(len(aucs))
    print(f"{len(numbers)} tables: AUC-ROC {mean:.3f} (se {se:.3f}), beyond 2 se {far_auc}")
    print(f"share flagged beyond 2 se: {far_share}")
    return int(abs(mean - 0.5) > 2 * se) + max(0, far_share - max(2, len(numbers) // 10))


# ---- kills ---------------------------------------------------------------------------------------

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
CODES = {signal.SIGKILL: {-9}, signal.SIGTERM: {143, -15}, signal.SIGINT: {130, -2}}


def run(arguments):
    """A command to its end; returns (exit code, what it said)."""
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def killed(arguments, number, after):
    """Start a command in a session of its own, signal it, and wait for all of its processes.

    Returns:
        what is wrong: an exit code or words that are not of the signal or of a finished command,
        or a process that is left.
    """
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(
            [sys.executable, *map(str, arguments)],
            env=ENVIRONMENT,
            stdout=said,
            stderr=said,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
        time.sleep(after)
        process.send_signal(number)
        code = process.wait()
        said.seek(0)
        text = said.read()
    wrong = [] if code in CODES[number] | {0} else [f"exit code {code}: {text[-200:]}"]
    if number != signal.SIGKILL and "Traceback" in text:
        wrong.append(f"a traceback: {text.strip().splitlines()[-1]}")
    end = time.monotonic() + 30
    while time.monotonic() < end:
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            return wrong
        time.sleep(0.05)
    listed = ["ps", "-o", "pid=,stat=,args=", "-g", str(process.pid)]
    left = subprocess.run(listed, capture_output=True, text=True).stdout
    os.killpg(process.pid, signal.SIGKILL)
    return [*wrong, f"left: {left.strip()}"]


def files_below(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


class Kills:
    """One command, what it leaves when nobody ends it, and how it goes on after a kill."""

    def __init__(self, folder):
        self.folder = folder
        (folder / "sets").mkdir()
        self.made = folder / "sets" / "made.npz"
        X, y = made_table(n=300, n_anomalies=30)
        np.savez(self.made, X=X, y=y)

    def measure(self, arguments, out):
        start = time.monotonic()
        code, said = run(arguments(out))
        assert code == 0, said
        self.seconds = time.monotonic() - start
        return self.content(out)

    def content(self, out):
        """Every file of a folder, in which times differ, by what does not."""
        found = {}
        for name in files_below(out):
            path = out / name
            if ".tfevents." in name:  # named by the moment and the process
                continue
            if path.suffix == ".npz":
                with np.load(path, allow_pickle=False) as arrays:
                    found[name] = [arrays[key].tobytes() for key in sorted(arrays)]
            else:
                found[name] = path.read_bytes() if path.suffix == ".csv" else None
        return found

    def go(self, n, arguments, again=()):
        """``n`` kills of each signal at moments spread over the command's time, each finished by
        the same command and ``again``, compared with one that nobody ended."""
        rng = random.Random(0)
        whole = self.measure(arguments, self.folder / "whole")
        for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT):
            for i in range(n):
                out = self.folder / f"{number.name}{i}"
                command, after = arguments(out), (i + rng.random()) / n * self.seconds
                wrong = killed(command, number, after)
                parts = {name for name in files_below(out) if name.endswith(".part")}
                if parts and number != signal.SIGKILL:
                    wrong.append(f"left behind: {sorted(parts)}")
                code, said = run([*command, *again])
                if code:
                    wrong.append(f"the next one ended with {code}: {said.strip()[-200:]}")
                elif self.content(out) != whole:
                    wrong.append("the next one left something else")
                yield f"{number.name} {i} after {after:.2f} s", wrong

    def pretrain(self, n):
        steps = SHORT[:4]
        command = lambda out: [ROOT / "pretrain.py", self.made, "--out", out, *steps]  # noqa: E731
        yield from self.go(n, command)

    def run(self, n):
        yield from self.go(n, self.command, ["--resume"])

    def command(self, out):
        more = ["--n-synthetic", 100]
        return [ROOT / "SwiftHydra.py", self.made, "--out", out, *SHORT, *more]

    def score(self, n):
        code, said = run(self.command(self.folder / "model"))
        assert code == 0, said
        model = self.folder / "model" / "made" / "seen" / "seed0" / "checkpoint.pt"
        rows = self.folder / "rows.csv"
        X = made_table(n=100_000)[0]
        np.savetxt(rows, X, delimiter=",", header=",".join(f"x{i}" for i in range(6)), comments="")

        def command(out):
            out.mkdir(exist_ok=True)
            words = [ROOT / "SwiftHydra.py", "score", "--checkpoint", model, "--data", rows]
            return [*words, "--out", out / "scores.csv", "--force"]

        yield from self.go(n, command)

    def sweep(self, n):
        """Kills of one sweep that goes on: nothing recorded is lost, computed again or failed."""
        rng = random.Random(0)
        command = [ROOT / "benchmark.py", "--datasets", self.made.parent, "--jobs", 2]
        command += ["--methods", "kNN,ExtraTrees,IsolationForest", "--protocols", "seen,few"]
        before = {}
        for i in range(3 * n):
            number = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)[i % 3]
            records = self.folder / f"records{i // 15}"
            after = rng.uniform(0, 8)
            sweep = [*command, "--seeds", ",".join(map(str, range(40))), "--records", records]
            before = before if i % 15 else {}
            wrong = killed(sweep, number, after)
            now = {key_of(record): record for record in load_records(records)}
            if any(now.get(key) != record for key, record in before.items()):
                wrong.append("a record is lost or was made again")
            if any(record["failed"] for record in now.values()):
                wrong.append("a cell counts as failed")
            before = now
            yield f"{number.name} {i} after {after:.2f} s, {len(now)} records", wrong


def soak_kills(n, parts):
    broken = 0
    for part in parts:
        with tempfile.TemporaryDirectory() as folder:
            count = 0
            for what, wrong in getattr(Kills(Path(folder)), part)(n):
                count += 1
                broken += bool(wrong)
                for fault in wrong:
                    print(f"{part}, {what}: {fault}", flush=True)
            print(f"{part}: {count} kills", flush=True)
    print(f"{broken} with something to say")
    return broken


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["tables", "labels", "kills"])
    parser.add_argument("--n", type=int, default=20)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--parts", default="pretrain,run,score,sweep")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    numbers = range(asked.first, asked.first + asked.n)
    if asked.what == "kills":
        return soak_kills(asked.n, asked.parts.split(","))
    return {"tables": soak_tables, "labels": soak_labels}[asked.what](numbers)


if __name__ == "__main__":
    sys.exit(bool(main()))
