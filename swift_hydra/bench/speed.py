"""Measure speed and how it scales: ``python benchmark.py --speed``, one record per part.

    python benchmark.py --speed                     # every part; "fit" needs --datasets DIR
    python benchmark.py --speed --parts scan,score  # some of them
    python benchmark.py --speed --parts gpu         # on a machine with an NVIDIA GPU

Machines are noisy and differ: functions to compare run in one process, in turns, and the median
time is recorded. One thread is used unless the part says otherwise. Records go to
``results/speed/<part>.json``; ``python benchmark.py --report`` makes the speed page from them.

Parts:
    scan: forward and backward of the selective scan, against mambapy's parallel scan.
    step: forward and backward of four Mamba blocks: plain PyTorch, torch.compile, numba.
    experts: rows scored per second by a mixture of 1 to 64 experts, and by one detector with the
        parameters of all experts.
    score: rows scored per second, against ExtraTrees, kNN and a Transformer of the released code's
        size.
    fit: seconds of a fit on every set, against CatBoost with defaults.
    run: ``python SwiftHydra.py`` on the embedded set, whole process, one and two threads.
    scale: seconds and memory of fit and score for 10,000 to 1,000,000 rows, and for 500 columns.
    bounds: AUC-ROC with other bounds on the rows that represent a large table; needs large sets.
    gpu: scan and training step on the GPU, for each backend, and the difference of scores from the
        CPU's.
"""

import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch import nn
from tqdm import tqdm

from swift_hydra import compiled
from swift_hydra.bench.peers import Peer
from swift_hydra.bench.places import IMPORT_FROM, SCRIPT
from swift_hydra.bench.speed_kernels import gpu, scan, step
from swift_hydra.bench.stopwatch import Sizes, in_turns, made_table
from swift_hydra.dataloader import RowOptions, load_rows
from swift_hydra.files import write_bytes
from swift_hydra.model import MoEDetector
from swift_hydra.run.record import environment_report, peak_memory_mib
from swift_hydra.settings import InputError
from swift_hydra.SwiftHydra import SwiftHydra
from swift_hydra.training.threads import few_threads


def measure(parts, datasets, out, repeats=7, sizes=None):
    """Measure the named parts and write their records.

    Args:
        parts: keys of ``PARTS``.
        datasets: a folder of .npz sets, for the parts that need one.
        out: the folder of the records.
        repeats: number of turns, which some parts multiply or divide.
        sizes: a :class:`stopwatch.Sizes`, None for the published ones.

    Returns:
        The records' paths.

    Raises:
        InputError: a part cannot be measured here.
    """
    paths = []
    for part in parts:
        with few_threads(0):
            content = PARTS[part](datasets, repeats, sizes or Sizes())
        environment = environment_report()
        record = {
            "part": part,
            "command": f"python benchmark.py --speed --parts {part}",
            "processor": _processor(),
            "cores": os.cpu_count(),
            "git": environment["git"],
            "versions": environment["versions"]
            | _versions("numba", "mambapy", "catboost", "mamba_ssm"),
            **content,
        }
        Path(out).mkdir(parents=True, exist_ok=True)
        path = Path(out) / f"{part}.json"
        write_bytes(path, (json.dumps(record, indent=1) + "\n").encode())
        paths.append(path)
    return paths


def experts(_, repeats, sizes):
    """The part ``experts``: mixtures of different sizes score the same standard normal rows.

    The mixtures are not trained.
    """
    d = 30
    X = torch.randn(sizes.n_scored, d, generator=torch.Generator().manual_seed(0))  # (n, d)
    rows = []
    for k in (1, 2):
        functions = {}
        for E in sizes.experts:
            if k <= E:
                torch.manual_seed(0)
                mixture = MoEDetector(d, E, k)
                functions[E] = lambda mixture=mixture: mixture.score(X)
        seconds = in_turns(functions, repeats)
        rows += [
            {"k": k, "n_experts": E, "rows_per_second": len(X) / s} for E, s in seconds.items()
        ]
    single = _against_one_detector(repeats, sizes)
    return {"rows": rows, "n_rows": len(X), "n_features": d, "single": single}


def _against_one_detector(repeats, sizes):
    """Compare a mixture that runs two experts per row with one detector of as many parameters.

    The detector's widths are those of an expert times the square root of the number of experts.
    """
    rows = []
    for d, E in sizes.singles:
        n = min(6000, sizes.n_scored)
        X = torch.randn(n, d, generator=torch.Generator().manual_seed(0))  # (n, d)
        wide = {"d_model": round(16 * E**0.5), "d_head": round(64 * E**0.5)}
        for backend in _cpu_backends():
            torch.manual_seed(0)
            single = MoEDetector(d, 1, 1, backend=backend, **wide)
            mixture = MoEDetector(d, E, 2, backend=backend)
            functions = {
                "mixture": lambda model=mixture, X=X: model.score(X),
                "single": lambda model=single, X=X: model.score(X),
            }
            row = {"n_features": d, "n_experts": E, "backend": backend, "n_rows": len(X)}
            rows.append({**row, "seconds": in_turns(functions, repeats)})
    return rows


def _cpu_backends():
    return ["torch", *(["numba"] if compiled.available() else [])]


class ReleasedTransformer(nn.Module):
    """A detector of the size in the authors' released code.

    It has one token per row and two layers of width 128.

    Args:
        d: number of columns.
    """

    def __init__(self, d):
        super().__init__()
        self.embed = nn.Linear(d, 128)
        layer = nn.TransformerEncoderLayer(128, 8, 256, 0.1, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2)
        self.head = nn.Sequential(nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 1))

    @torch.no_grad()
    def score(self, x):
        """Logits (n,) of the rows x (n, d)."""
        parts = [self.head(self.encoder(self.embed(rows)[:, None])[:, 0]) for rows in x.split(4096)]
        return torch.cat(parts).squeeze(1)


def score(_, repeats, sizes):
    """The part ``score``: detectors trained on one table score another."""
    d = 30
    X, y = made_table(sizes.n_train, d, share=0.05)
    new, _ = made_table(sizes.n_scored, d, seed=1)
    functions = {}
    ours = {
        "paper": {"preset": "paper"},
        "full": {},
        "full, --fast --verify 0": {"fast": True, "verify": 0.0},
    }
    for name, settings in ours.items():
        model = SwiftHydra(random_state=0, **settings, **sizes.settings).fit(X, y)
        functions[f"Swift Hydra ({name})"] = lambda model=model: model.decision_function(new)
    for name in ("ExtraTrees", "kNN"):
        peer = Peer(name, 0).fit(X, y)
        functions[name] = lambda peer=peer: peer.decision_function(new)
    transformer = ReleasedTransformer(d).eval()
    functions["Transformer of the released code's size"] = lambda: transformer.score(
        torch.from_numpy(new)
    )
    seconds = in_turns(functions, max(3, repeats // 2))
    return {
        "n_train": len(X),
        "n_rows": len(new),
        "n_features": d,
        "rows_per_second": {name: len(new) / s for name, s in seconds.items()},
    }


def fit(datasets, repeats, sizes):
    """The part ``fit``: both methods in turns on every set.

    On the first set each method runs once more before, to warm up.
    """
    paths = sorted(Path(datasets).glob("*.npz"))
    if len(paths) < 2:
        raise InputError(
            f"{datasets}: the part fit needs a folder of several .npz sets: "
            "give one with --datasets"
        )
    rows = []
    for path in tqdm(paths, desc="fit", disable=None):
        which = RowOptions(dataset=path, max_rows=10_000)
        train = load_rows(which, least=1).train
        X = train.X
        y = train.y
        functions = {
            "SwiftHydra": lambda X=X, y=y: SwiftHydra(random_state=0, **sizes.settings).fit(X, y),
            "CatBoost": lambda X=X, y=y: Peer("CatBoost", 0).fit(X, y),
        }
        seconds = in_turns(functions, max(1, repeats // 3), warm_up=not rows)
        rows.append(
            {"dataset": path.stem, "n_train": len(y), "n_features": X.shape[1], "seconds": seconds}
        )
    total = {name: sum(row["seconds"][name] for row in rows) for name in ("SwiftHydra", "CatBoost")}
    return {"rows": rows, "total_seconds": total, "ratio": total["SwiftHydra"] / total["CatBoost"]}


def run(_, repeats, sizes):
    """The part ``run``: whole processes of the main script, in turns."""
    seconds = {f"{backend}, {threads}": [] for backend in _cpu_backends() for threads in (1, 2)}
    for _ in range(max(3, repeats // 2)):
        for name, each in seconds.items():
            backend, threads = name.split(", ")
            environment = os.environ | {"OMP_NUM_THREADS": threads}
            for other in ("MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
                environment.pop(other, None)
            command = [sys.executable, str(SCRIPT), "--quiet", "--mamba", backend]
            with tempfile.TemporaryDirectory() as out:
                start = time.perf_counter()
                subprocess.run(
                    [*command, "--out", out], check=True, capture_output=True, env=environment
                )
                each.append(time.perf_counter() - start)
    return {"seconds": {name: statistics.median(each) for name, each in seconds.items()}}


def scale(_, repeats, sizes):
    """The part ``scale``: every size in a process of its own, to measure its peak memory."""
    rows = []
    for n, d in tqdm(sizes.tables, desc="scale", disable=None):
        command = [sys.executable, "-m", "swift_hydra.bench.speed", "scale", str(n), str(d)]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [*command, json.dumps(sizes.settings)],
            check=True,
            capture_output=True,
            text=True,
            env=environment,
            cwd=IMPORT_FROM,
        )
        rows.append({"n_rows": n, "n_features": d, **json.loads(done.stdout)})
    narrow = [row for row in rows if row["n_features"] == sizes.tables[0][1]]
    log_rows, log_seconds = (
        np.log([row[name] for row in narrow]) for name in ("n_rows", "fit_seconds")
    )
    slope = np.polyfit(log_rows, log_seconds, 1)[0]
    return {"rows": rows, "slope": float(slope)}


def scale_of(n, d, settings=None):
    """Measure one fit and the scoring of its rows in this process, and the same with ``fast``.

    ``python -m swift_hydra.bench.speed scale N D [SETTINGS]`` prints the result as JSON.

    Args:
        n: number of rows of a synthetic table.
        d: number of its columns.
        settings: further arguments of Swift Hydra.

    Returns:
        A dict of seconds and MiB; with ``fast`` only seconds.
    """
    with few_threads(0):
        X, y = made_table(500, 5, share=0.1)
        quick = SwiftHydra(cvae_steps=2, detector_steps=2, mixture_steps=2)
        quick.fit(X, y).decision_function(X)  # warm-up: imports, compiled kernels
        X, y = made_table(n, d)
        before = peak_memory_mib()
        start = time.perf_counter()
        model = SwiftHydra(random_state=0, **(settings or {})).fit(X, y)
        fitted = time.perf_counter()
        fit_peak = peak_memory_mib()
        model.decision_function(X)
        measured = {
            "fit_seconds": fitted - start,
            "score_seconds": time.perf_counter() - fitted,
            "data_mib": X.nbytes / 2**20,
            "before_mib": before,
            "fit_peak_mib": fit_peak,
            "peak_mib": peak_memory_mib(),
            "stages": model.seconds_,
        }
        del model
        start = time.perf_counter()
        model = SwiftHydra(random_state=0, fast=True, verify=0.0, **(settings or {})).fit(X, y)
        fitted = time.perf_counter()
        model.decision_function(X)
        fast = {"fit_seconds": fitted - start, "score_seconds": time.perf_counter() - fitted}
        return measured | {"fast": fast}


def bounds(datasets, repeats, sizes):
    """The part ``bounds``: other bounds on the rows that represent a large table."""
    rows = []
    for path in tqdm(sorted(Path(datasets).glob("*.npz")), desc="bounds", disable=None):
        rows_of_set = load_rows(RowOptions(dataset=path, seed=10, max_rows=sizes.large), least=1)
        train = rows_of_set.train
        n_used = len(train.y) + len(rows_of_set.y_test)
        if n_used < sizes.large:
            continue
        for normals, centres in sizes.bounds:
            model = SwiftHydra(
                random_state=10, max_normals=normals, max_centres=centres, **sizes.settings
            )
            start = time.perf_counter()
            model.fit(train.X, train.y)
            fitted = time.perf_counter()
            scores = model.decision_function(rows_of_set.X_test)
            scored = time.perf_counter()
            rows.append(
                {
                    "dataset": path.stem,
                    "n_train": len(train.y),
                    "normals": normals,
                    "centres": centres,
                    "auc_roc": roc_auc_score(rows_of_set.y_test, scores),
                    "fit_seconds": fitted - start,
                    "score_seconds": scored - fitted,
                }
            )
    if not rows:
        raise InputError(
            f"{datasets}: the part bounds needs sets of at least {sizes.large} rows: "
            "give one with --datasets"
        )
    return {"rows": rows}


def _processor():
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
        return next(
            line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")
        )
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _versions(*packages):
    found = {}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


PARTS = {f.__name__: f for f in (scan, step, experts, score, fit, run, scale, bounds, gpu)}


def _command(arguments):
    """The command line that measures one size of the part ``scale``."""
    if len(arguments) not in (3, 4) or arguments[0] != "scale":
        sys.exit("usage: python -m swift_hydra.bench.speed scale N D [SETTINGS as JSON]")
    n, d = map(int, arguments[1:3])
    print(json.dumps(scale_of(n, d, *map(json.loads, arguments[3:]))))


if __name__ == "__main__":
    _command(sys.argv[1:])
