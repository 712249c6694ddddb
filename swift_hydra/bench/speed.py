"""How fast the parts are and how that grows: ``python benchmark.py --speed``, one record per part.

    python benchmark.py --speed                     # every part; "fit" needs --datasets DIR
    python benchmark.py --speed --parts scan,score  # some of them
    python benchmark.py --speed --parts gpu         # on a machine with an NVIDIA GPU

Machines are noisy and differ: what is compared runs in one process, one after the other in turns,
and what is recorded is the median and, where it matters, the median of the ratios. One thread
unless the part says otherwise. Records go to ``results/speed/<part>.json``; ``python benchmark.py
--report`` makes the README's speed page from them.

Parts
    scan      forward and backward of the selective scan, against mambapy's parallel scan
    step      forward and backward of four Mamba blocks: plain PyTorch, torch.compile, numba
    experts   rows scored per second by a mixture of 1 to 64 experts, and against one detector of
    all their parameters score     rows scored per second, against ExtraTrees, kNN and a Transformer
    of the released code's size fit       seconds of a fit on every set, against CatBoost with
    defaults run       ``python SwiftHydra.py`` on the embedded set, whole process, one and two
    threads scale     seconds and memory of fit and score from 10,000 to 1,000,000 rows, and 500
    columns bounds    AUC-ROC under other bounds on the rows that stand for a large table; needs
    large sets gpu       scan and training step on the GPU, backends side by side, and the scores'
    parity with the CPU's
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
from threadpoolctl import threadpool_limits
from torch import nn
from tqdm import tqdm

from swift_hydra.bench.peers import Peer
from swift_hydra.data.catalogue import PACKAGE
from swift_hydra.data.splits import make_split
from swift_hydra.dataloader import load_dataset
from swift_hydra.detection import evidence, kernel_expert
from swift_hydra.files import write_bytes
from swift_hydra.model import MoEDetector, mamba_mixer
from swift_hydra.run.record import environment_report
from swift_hydra.scan import numba_kernels
from swift_hydra.scan.backends import choose_backend, has_mamba_kernels, official_scan
from swift_hydra.scan.torch_scan import selective_scan
from swift_hydra.settings import InputError
from swift_hydra.SwiftHydra import SwiftHydra

ROOT = PACKAGE.parent  # of the clone
SCAN_SHAPES = (
    (128, 8, 64, 16),
    (128, 32, 64, 16),
    (128, 64, 64, 16),
    (1024, 32, 64, 16),
)  # (B, L, D, N)
EXPERTS = (1, 2, 4, 16, 64)
SCALE = ((10_000, 30), (100_000, 30), (1_000_000, 30), (100_000, 500))  # (rows, columns)
SINGLE = ((8, 4), (30, 4), (60, 8), (200, 16))  # (columns, experts)
N_SCORED = 131072
LARGE = 50_000  # rows from which on a set shows what a bound does


def measure(parts, datasets, out, repeats=7):
    """Measure the named parts and write their records into the folder ``out``; returns the records'
    paths.
    """
    paths = []
    for part in parts:
        with threadpool_limits(1):
            before = torch.get_num_threads()
            torch.set_num_threads(1)
            try:
                content = PARTS[part](datasets, repeats)
            finally:
                torch.set_num_threads(before)
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


def in_turns(functions, repeats, synchronise=None, warm_up=True):
    """Median seconds of every function {name: callable}, run in turns, after one warm-up each where
    wanted.
    """
    seconds = {name: [] for name in functions}
    for turn in range(0 if warm_up else 1, repeats + 1):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            if synchronise is not None:
                synchronise()
            if turn:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def _scan_inputs(B, L, D, N, device="cpu"):
    g = torch.Generator().manual_seed(0)
    u, b, c = (torch.randn(1, B, L, width, generator=g) for width in (D, N, N))
    delta, A = 0.1 * torch.rand(1, B, L, D, generator=g), -4 * torch.rand(1, D, N, generator=g)
    return [t.to(device).requires_grad_() for t in (u, delta, A, b, c, torch.ones(1, D))]


def _with_gradients(scan, tensors):
    def run():
        torch.autograd.grad(scan(*tensors).sum(), tensors)

    return run


def _mambapy_scan(u, delta, A, B, C, D):
    """mambapy's parallel scan (Blelloch), called as its own Mamba block calls it: one group, (B, L,
    D, N) tensors.
    """
    from mambapy.pscan import pscan

    decay = torch.exp(delta[0].unsqueeze(-1) * A[0])  # (B, L, D, N)
    inputs = delta[0].unsqueeze(-1) * B[0].unsqueeze(2) * u[0].unsqueeze(-1)
    states = pscan(decay, inputs)
    return (states @ C[0].unsqueeze(-1)).squeeze(3) + D[0] * u[0]


def scan(_, repeats):
    try:
        import mambapy.pscan  # noqa: F401
    except ImportError:
        raise InputError("parts: scan compares with mambapy: pip install mambapy==1.2.0") from None
    rows = []
    for shape in tqdm(SCAN_SHAPES, desc="scan", disable=None):
        tensors = _scan_inputs(*shape)
        ways = {"torch": selective_scan, "mambapy": _mambapy_scan}
        if numba_kernels.available():
            ways["numba"] = numba_kernels.selective_scan
        seconds = in_turns(
            {name: _with_gradients(way, tensors) for name, way in ways.items()}, repeats
        )
        rows.append({"shape": list(shape), "seconds": seconds})
    return {"rows": rows}


def experts(_, repeats):
    """One width of table for all; rows are standard normal, the router is as it is before training."""
    X, rows = torch.randn(N_SCORED, 30, generator=torch.Generator().manual_seed(0)), []
    for k in (1, 2):
        functions = {}
        for E in EXPERTS:
            if k <= E:
                torch.manual_seed(0)
                mixture = MoEDetector(30, E, k)
                functions[E] = lambda mixture=mixture: mixture.score(X)
        seconds = in_turns(functions, repeats)
        rows += [
            {"k": k, "n_experts": E, "rows_per_second": len(X) / s} for E, s in seconds.items()
        ]
    return {
        "rows": rows,
        "n_rows": len(X),
        "n_features": 30,
        "single": _against_one_detector(repeats),
    }


def _against_one_detector(repeats):
    """A mixture of which two experts run, and one detector with the parameters of all of them
    (widths times root E).
    """
    rows = []
    for d, E in SINGLE:
        X = torch.randn(min(6000, N_SCORED), d, generator=torch.Generator().manual_seed(0))
        for backend in ("torch", *(["numba"] if numba_kernels.available() else [])):
            torch.manual_seed(0)
            single = MoEDetector(d, 1, 1, d_model=round(16 * E**0.5), d_head=round(64 * E**0.5))
            models = {"mixture": MoEDetector(d, E, 2), "single": single}
            for model in models.values():
                model.experts.backend = backend
            seconds = in_turns(
                {name: lambda m=m, X=X: m.score(X) for name, m in models.items()}, repeats
            )
            rows.append(
                {
                    "n_features": d,
                    "n_experts": E,
                    "backend": backend,
                    "n_rows": len(X),
                    "seconds": seconds,
                }
            )
    return rows


class ReleasedTransformer(nn.Module):
    """A detector of the size that the authors' repository releases: one token per row, two layers
    of width 128.
    """

    def __init__(self, d):
        super().__init__()
        self.embed = nn.Linear(d, 128)
        layer = nn.TransformerEncoderLayer(128, 8, 256, 0.1, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2)
        self.head = nn.Sequential(nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 1))

    @torch.no_grad()
    def score(self, x):
        parts = [self.head(self.encoder(self.embed(rows)[:, None])[:, 0]) for rows in x.split(4096)]
        return torch.cat(parts).squeeze(1)


def _table(n, d, seed=0, share=0.01):
    """Correlated normals and shifted anomalies: (n, d) float32 and labels (n,)."""
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(d, d)).astype(np.float32) / d**0.5
    X = np.empty((n, d), dtype=np.float32)
    for start in range(0, n, 65536):  # piece by piece: the measured memory is to be the method's
        part = X[start : start + 65536]
        part[:] = rng.standard_normal(part.shape, dtype=np.float32) @ mixing
    y = np.zeros(n, dtype=np.int64)
    y[rng.choice(n, max(20, round(n * share)), replace=False)] = 1
    X[np.flatnonzero(y)[:, None], rng.integers(0, d, size=3)] += 3.0
    return X, y


def score(_, repeats):
    X, y = _table(10_000, 30, share=0.05)
    new = _table(N_SCORED, 30, seed=1)[0]
    functions = {}
    for preset in ("paper", "full"):
        model = SwiftHydra(random_state=0, preset=preset).fit(X, y)
        functions[f"Swift Hydra ({preset})"] = lambda model=model: model.decision_function(new)
    for name in ("ExtraTrees", "kNN"):
        peer = Peer(name, 0).fit(X, y)
        functions[name] = lambda peer=peer: peer.decision_function(new)
    transformer = ReleasedTransformer(30).eval()
    functions["Transformer of the released code's size"] = lambda: transformer.score(
        torch.from_numpy(new)
    )
    seconds = in_turns(functions, max(3, repeats // 2))
    return {
        "n_train": len(X),
        "n_rows": len(new),
        "n_features": 30,
        "rows_per_second": {name: len(new) / s for name, s in seconds.items()},
    }


def fit(datasets, repeats):
    """Every set once per turn, the two methods one after the other; the first turn's first set
    warms up.
    """
    paths = sorted(Path(datasets).glob("*.npz"))
    if len(paths) < 2:
        raise InputError(
            f"{datasets}: the part fit needs a folder of several .npz sets: give one with --datasets"
        )
    rows = []
    for path in tqdm(paths, desc="fit", disable=None):
        data = load_dataset(path)
        split = make_split(data.X, data.y, "seen", 0, max_rows=10_000, least=1)
        X, y = data.X[split.train], data.y[split.train]
        functions = {
            "SwiftHydra": lambda X=X, y=y: SwiftHydra(random_state=0).fit(X, y),
            "CatBoost": lambda X=X, y=y: Peer("CatBoost", 0).fit(X, y),
        }
        seconds = in_turns(functions, max(1, repeats // 3), warm_up=not rows)
        rows.append(
            {"dataset": data.name, "n_train": len(y), "n_features": X.shape[1], "seconds": seconds}
        )
    total = {name: sum(row["seconds"][name] for row in rows) for name in ("SwiftHydra", "CatBoost")}
    return {"rows": rows, "total_seconds": total, "ratio": total["SwiftHydra"] / total["CatBoost"]}


def run(_, repeats):
    backends = ["torch", *(["numba"] if numba_kernels.available() else [])]
    seconds = {f"{backend}, {threads}": [] for backend in backends for threads in (1, 2)}
    for _ in range(max(3, repeats // 2)):
        for name, each in seconds.items():
            backend, threads = name.split(", ")
            environment = os.environ | {"OMP_NUM_THREADS": threads}
            for other in ("MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
                environment.pop(other, None)
            with tempfile.TemporaryDirectory() as out:
                command = [
                    sys.executable,
                    str(ROOT / "SwiftHydra.py"),
                    "--quiet",
                    "--out",
                    out,
                    "--mamba",
                    backend,
                ]
                start = time.perf_counter()
                subprocess.run(command, check=True, capture_output=True, env=environment)
                each.append(time.perf_counter() - start)
    return {"seconds": {name: statistics.median(each) for name, each in seconds.items()}}


SCALE_CODE = """
import json, sys, time
import torch
torch.set_num_threads(1)
from threadpoolctl import threadpool_limits
from swift_hydra.run.record import peak_memory_mib
from swift_hydra.bench.speed import _table
from swift_hydra.SwiftHydra import SwiftHydra

n, d = int(sys.argv[1]), int(sys.argv[2])
with threadpool_limits(1):
    warm = _table(500, 5, share=.1)
    SwiftHydra(cvae_steps=2, detector_steps=2, mixture_steps=2).fit(*warm).decision_function(warm[0])
    X, y = _table(n, d)
    before = peak_memory_mib()
    start = time.perf_counter()
    model = SwiftHydra(random_state=0).fit(X, y)
    fitted = time.perf_counter()
    fit_peak = peak_memory_mib()
    model.decision_function(X)
    print(json.dumps({"fit_seconds": fitted - start, "score_seconds": time.perf_counter() - fitted,
                      "data_mib": X.nbytes / 2**20, "before_mib": before, "fit_peak_mib": fit_peak,
                      "peak_mib": peak_memory_mib(), "stages": model.seconds_}))
"""


def scale(_, repeats):
    """Every size in a process of its own: its peak memory is then its own."""
    rows = []
    for n, d in tqdm(SCALE, desc="scale", disable=None):
        command = [sys.executable, "-c", SCALE_CODE, str(n), str(d)]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            command, check=True, capture_output=True, text=True, env=environment, cwd=ROOT
        )
        rows.append({"n_rows": n, "n_features": d, **json.loads(done.stdout)})
    narrow = [row for row in rows if row["n_features"] == SCALE[0][1]]
    slope = np.polyfit(
        *(np.log([row[name] for row in narrow]) for name in ("n_rows", "fit_seconds")), 1
    )[0]
    return {"rows": rows, "slope": float(slope)}


def gpu(_, repeats):
    if not torch.cuda.is_available():
        raise InputError(
            "parts: gpu needs an NVIDIA GPU and a torch that can use it; none is at hand here"
        )
    synchronise, rows = torch.cuda.synchronize, []
    for shape in SCAN_SHAPES:
        tensors = _scan_inputs(*shape, device="cuda")
        ways = {"torch": selective_scan}
        if has_mamba_kernels():
            ways["official"] = official_scan
        seconds = in_turns(
            {name: _with_gradients(way, tensors) for name, way in ways.items()},
            3 * repeats,
            synchronise,
        )
        rows.append({"shape": list(shape), "seconds": seconds})
    steps = [_training_step(L, repeats, "cuda") for L in (8, 32, 128)]
    X, y = _table(4000, 16, share=0.1)
    model = SwiftHydra(random_state=0, preset="paper", device="cuda").fit(X, y)
    on_gpu = model.decision_function(X)
    with tempfile.TemporaryDirectory() as folder:
        model.save(Path(folder) / "model.pt")
        on_cpu = SwiftHydra.load(Path(folder) / "model.pt").decision_function(X)
    return {
        "device": torch.cuda.get_device_name(),
        "backend": choose_backend("auto", "cuda"),
        "scan": rows,
        "step": steps,
        "largest_difference_of_scores": float(np.abs(on_gpu - on_cpu).max()),
        "spread_of_scores": float(on_cpu.std()),
    }


def step(_, repeats):
    """One training step of four experts' Mamba blocks on the CPU: plain, compiled by torch, by
    numba.
    """
    return {"rows": [_training_step(L, repeats) for L in (8, 32)]}


def _training_step(L, repeats, device="cpu"):
    """Forward and backward of a Mamba block over L tokens: eager, compiled, with kernels, on a GPU
    as a CUDA graph.
    """
    torch.manual_seed(0)
    experts = MoEDetector(2 * L, 4, n_tokens=L).experts.to(device)
    p = {name.replace("/", "."): value for name, value in experts.mamba.items()}
    x, cuda = torch.randn(4, 64, L, 16, device=device), device == "cuda"
    synchronise = torch.cuda.synchronize if cuda else None

    def whole(mixer, backend="torch"):
        return lambda: torch.autograd.grad(mixer(p, x, backend).square().mean(), list(p.values()))

    functions, failed, kernels = {"eager": whole(mamba_mixer)}, None, choose_backend("auto", device)
    if kernels != "torch":
        functions[kernels] = whole(mamba_mixer, kernels)
    try:
        functions["compiled"] = whole(torch.compile(mamba_mixer))
        functions["compiled"]()
    except Exception as error:  # a missing compiler is named in the record
        functions.pop("compiled", None)
        failed = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    if cuda:
        side = torch.cuda.Stream()
        with torch.cuda.stream(side):
            for _ in range(3):
                functions["eager"]()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            functions["eager"]()
        functions["graph"] = graph.replay
    seconds = in_turns(functions, 3 * repeats, synchronise)
    return {
        "tokens": L,
        "rows": len(x[0]),
        "n_experts": 4,
        "seconds": seconds,
        "compile_failed": failed,
    }


# Reference normals, kernel centres.
BOUNDS = ((4096, 1600), (2048, 1600), (8192, 1600), (32768, 1600), (4096, 800), (4096, 3200))


def bounds(datasets, repeats):
    """AUC-ROC and seconds under other bounds on the rows that stand for a large table; the first
    are the defaults.
    """
    rows, before = (
        [],
        (evidence.MAX_NORMALS, kernel_expert.MAX_CENTRES, kernel_expert.MAX_ANOMALIES),
    )
    for path in tqdm(sorted(Path(datasets).glob("*.npz")), desc="bounds", disable=None):
        data = load_dataset(path)
        if len(data.y) < LARGE:
            continue
        split = make_split(data.X, data.y, "seen", 10, max_rows=LARGE, least=1)
        for normals, centres in BOUNDS:
            try:
                evidence.MAX_NORMALS = normals
                kernel_expert.MAX_CENTRES, kernel_expert.MAX_ANOMALIES = centres, centres // 2
                start = time.perf_counter()
                model = SwiftHydra(random_state=10).fit(data.X[split.train], data.y[split.train])
                fitted = time.perf_counter()
                score = model.decision_function(data.X[split.test])
            finally:
                evidence.MAX_NORMALS, kernel_expert.MAX_CENTRES, kernel_expert.MAX_ANOMALIES = (
                    before
                )
            rows.append(
                {
                    "dataset": data.name,
                    "n_train": len(split.train),
                    "normals": normals,
                    "centres": centres,
                    "auc_roc": roc_auc_score(data.y[split.test], score),
                    "fit_seconds": fitted - start,
                    "score_seconds": time.perf_counter() - fitted,
                }
            )
    if not rows:
        raise InputError(
            f"{datasets}: the part bounds needs sets of at least {LARGE} rows: give one with --datasets"
        )
    return {"rows": rows}


def _processor():
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
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
