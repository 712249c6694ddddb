"""Measure the scan and the training step of a Mamba block, on the CPU and on a GPU."""

import tempfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from swift_hydra import compiled
from swift_hydra.bench.stopwatch import in_turns, made_table
from swift_hydra.model import MoEDetector, mamba_mixer
from swift_hydra.scan import numba_scan
from swift_hydra.scan.backends import choose_backend, has_mamba_kernels, official_scan
from swift_hydra.scan.torch_scan import selective_scan
from swift_hydra.settings import InputError
from swift_hydra.SwiftHydra import SwiftHydra


def scan_inputs(B, L, D, N, device="cpu"):
    """Random arguments of a selective scan with one group, each with a gradient.

    Args:
        B: number of rows.
        L: number of tokens.
        D: number of channels.
        N: number of states.
        device: device of the tensors.

    Returns:
        u (1, B, L, D), delta (1, B, L, D), A (1, D, N), B (1, B, L, N), C (1, B, L, N), D (1, D).
    """
    g = torch.Generator().manual_seed(0)
    u, b, c = (torch.randn(1, B, L, width, generator=g) for width in (D, N, N))
    delta = 0.1 * torch.rand(1, B, L, D, generator=g)
    A = -4 * torch.rand(1, D, N, generator=g)
    return [t.to(device).requires_grad_() for t in (u, delta, A, b, c, torch.ones(1, D))]


def mambapy_scan(u, delta, A, B, C, D):
    """mambapy's parallel scan (Blelloch), called as its own Mamba block calls it.

    The arguments are those of :func:`scan_inputs`; mambapy has no groups, so its tensors are
    (B, L, D, N). Returns (B, L, D).
    """
    from mambapy.pscan import pscan

    decay = torch.exp(delta[0].unsqueeze(-1) * A[0])  # (B, L, D, N)
    inputs = delta[0].unsqueeze(-1) * B[0].unsqueeze(2) * u[0].unsqueeze(-1)  # (B, L, D, N)
    states = pscan(decay, inputs)  # (B, L, D, N)
    return (states @ C[0].unsqueeze(-1)).squeeze(3) + D[0] * u[0]  # (B, L, D)


def _with_gradients(way, tensors):
    def run():
        torch.autograd.grad(way(*tensors).sum(), tensors)

    return run


def _timed_scans(ways, shape, repeats, device="cpu", synchronise=None):
    tensors = scan_inputs(*shape, device=device)
    functions = {name: _with_gradients(way, tensors) for name, way in ways.items()}
    return {"shape": list(shape), "seconds": in_turns(functions, repeats, synchronise)}


def scan(_, repeats, sizes):
    """The part ``scan``: forward and backward of every implementation of the selective scan."""
    if find_spec("mambapy") is None:
        raise InputError("parts: scan compares with mambapy: pip install mambapy==1.2.0")
    ways = {"torch": selective_scan, "mambapy": mambapy_scan}
    if compiled.available():
        ways["numba"] = numba_scan.selective_scan
    shapes = tqdm(sizes.scans, desc="scan", disable=None)
    return {"rows": [_timed_scans(ways, shape, repeats) for shape in shapes]}


def step(_, repeats, sizes):
    """The part ``step``: one training step of four experts' Mamba blocks on the CPU."""
    return {"rows": [_training_step(L, repeats) for L in (8, 32)]}


def _training_step(L, repeats, device="cpu"):
    """Time forward and backward of a Mamba block over L tokens.

    It is run eagerly, compiled by torch, with kernels if there are any, and on a GPU as a CUDA
    graph.
    """
    torch.manual_seed(0)
    experts = MoEDetector(2 * L, 4, n_tokens=L).experts.to(device)
    p = {name.replace("/", "."): value for name, value in experts.mamba.items()}
    x = torch.randn(4, 64, L, 16, device=device)
    cuda = device == "cuda"
    kernels = choose_backend("auto", device)
    failed = None

    def whole(mixer, backend="torch"):
        return lambda: torch.autograd.grad(mixer(p, x, backend).square().mean(), list(p.values()))

    functions = {"eager": whole(mamba_mixer)}
    if kernels != "torch":
        functions[kernels] = whole(mamba_mixer, kernels)
    try:
        compiled = whole(torch.compile(mamba_mixer))
        compiled()
        functions["compiled"] = compiled
    except Exception as error:  # such as a missing compiler; the record says so
        failed = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    if cuda:
        functions["graph"] = _graph(functions["eager"]).replay
    synchronise = torch.cuda.synchronize if cuda else None
    return {
        "tokens": L,
        "rows": len(x[0]),
        "n_experts": 4,
        "seconds": in_turns(functions, 3 * repeats, synchronise),
        "compile_failed": failed,
    }


def _graph(function):
    """A CUDA graph of what ``function`` does on the GPU."""
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        for _ in range(3):
            function()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        function()
    return graph


def gpu(_, repeats, sizes):
    """The part ``gpu``: scan and step on the GPU, and the difference of scores from the CPU's."""
    if not torch.cuda.is_available():
        raise InputError(
            "parts: gpu needs an NVIDIA GPU and a torch that can use it; none is at hand here"
        )
    ways = {"torch": selective_scan}
    if has_mamba_kernels():
        ways["official"] = official_scan
    rows = [
        _timed_scans(ways, shape, 3 * repeats, "cuda", torch.cuda.synchronize)
        for shape in tqdm(sizes.scans, desc="scan", disable=None)
    ]
    steps = [
        _training_step(L, repeats, "cuda") for L in tqdm((8, 32), desc="step", disable=None)
    ]  # torch.compile unrolls the scan: for 128 tokens compiling alone takes minutes
    X, y = made_table(4000, 16, share=0.1)
    model = SwiftHydra(random_state=0, preset="paper", device="cuda", **sizes.settings).fit(X, y)
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
