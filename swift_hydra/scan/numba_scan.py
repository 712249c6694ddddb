"""The compiled kernels as functions of tensors: the scan, the block's inside, L1 distances.

They compute on the CPU in float32. :func:`available` says whether numba is installed.
"""

import itertools
import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
import torch

from swift_hydra.scan import numba_kernels
from swift_hydra.scan.numba_kernels import Block, Scan

SMALL = 2**21  # state updates below which one thread is faster than two


def available():
    """True where numba is installed."""
    return numba_kernels.njit is not None


@cache
def _pool(process):
    return ThreadPoolExecutor(max(2, os.cpu_count() or 2))


def parts(n_rows, work):
    """Shares of the rows, one for each thread that is worth its start: [(low, high), ...].

    Args:
        n_rows: rows to share.
        work: state updates in all.
    """
    threads = min(torch.get_num_threads(), n_rows) if work > SMALL else 1
    bounds = [n_rows * i // threads for i in range(threads + 1)]
    return list(itertools.pairwise(bounds))


def _run(kernel, shares, out, arguments):
    """Call ``kernel(out, low, high, *arguments)`` for every share, in threads if there are several.

    Args:
        kernel: a compiled function, which releases the GIL.
        shares: (low, high) of each.
        out: the array that all of them write or read, each its own rows.
        arguments: a list of arrays for each share.
    """
    if len(shares) == 1:
        kernel(out, *shares[0], *arguments[0])
        return
    pool = _pool(os.getpid())
    jobs = [
        pool.submit(kernel, out, *share, *each)
        for share, each in zip(shares, arguments, strict=True)
    ]
    for job in jobs:
        job.result()


def _arrays(tensors):
    return [t.detach().contiguous().numpy() for t in tensors]


class _Fused(torch.autograd.Function):
    """A kernel and its backward.

    The first ``n_row`` inputs are (G, B, ..), one per row; the others are (G, ..), one per expert.
    Gradients of the latter are sums over rows: every thread has its own, and they are added in a
    fixed order.
    """

    @staticmethod
    def forward(ctx, kernels, n_row, out, n_states, *inputs):
        shares = parts(out.shape[0] * out.shape[1], out.numel() * n_states)
        _run(kernels[0], shares, out.numpy(), [_arrays(inputs)] * len(shares))
        ctx.save_for_backward(*inputs)
        ctx.kernel = kernels[1]
        ctx.n_row = n_row
        ctx.shares = shares
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad_out):
        given = _arrays(ctx.saved_tensors)
        (grad,) = _arrays([grad_out])
        per_row = [np.empty_like(array) for array in given[: ctx.n_row]]
        per_expert = [[np.zeros_like(array) for array in given[ctx.n_row :]] for _ in ctx.shares]
        arguments = [[*given, *per_row, *sums] for sums in per_expert]
        _run(ctx.kernel, ctx.shares, grad, arguments)
        summed = [sum(sums[1:], sums[0]) for sums in zip(*per_expert, strict=True)]
        return None, None, None, None, *map(torch.from_numpy, [*per_row, *summed])


def city_block(X, Y):
    """Sums of absolute differences between rows X (n, d) and rows Y (m, d): (n, m) float32."""
    rows = np.zeros((-(-len(X) // 4) * 4, X.shape[1]), np.float32)
    rows[: len(X)] = X
    columns = np.ascontiguousarray(Y.T, np.float32)
    out = np.empty((len(rows), columns.shape[1]), np.float32)
    shares = parts(len(rows) // 4, out.size * len(columns)) if len(X) else []
    _run(numba_kernels.city_block, shares, out, [[rows, columns]] * len(shares))
    return out[: len(X)]


def selective_scan(u, delta, A, B, C, D):
    """The contract of :func:`scan.torch_scan.selective_scan`, for float32 on the CPU."""
    kernels = (numba_kernels.scan, numba_kernels.scan_backward)
    given = Scan(u, delta, B, C, A.transpose(1, 2))
    y = _Fused.apply(kernels, 4, torch.empty(u.shape), A.shape[-1], *given)
    return y + u * D[:, None, None, :]


def mamba_inner(xz, p):
    """A Mamba block between in_proj and out_proj.

    Args:
        xz: (G, B, L, 2 D), what in_proj returns.
        p: stacked parameters under mamba-ssm's names.

    Returns:
        (G, B, L, D), what out_proj is given.
    """
    kernels = (numba_kernels.block, numba_kernels.block_backward)
    given = Block(
        xz=xz,
        conv=p["conv1d.weight"][:, :, 0].transpose(1, 2),  # (G, K, D)
        conv_bias=p["conv1d.bias"] if "conv1d.bias" in p else torch.zeros_like(p["D"]),
        to_state=p["x_proj.weight"],
        to_step=p["dt_proj.weight"].transpose(1, 2),  # (G, R, D)
        step_bias=p["dt_proj.bias"],
        A=-torch.exp(p["A_log"]).transpose(1, 2),  # (G, N, D)
        skip=p["D"],
    )
    out = torch.empty((*xz.shape[:3], xz.shape[3] // 2))
    return _Fused.apply(kernels, 1, out, given.A.shape[1], *given)
