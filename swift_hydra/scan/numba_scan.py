"""The compiled kernels as differentiable functions of tensors, for float32 on the CPU."""

import numpy as np
import torch

from swift_hydra.compiled import parts, run
from swift_hydra.scan import numba_kernels
from swift_hydra.scan.numba_kernels import Block, Scan


def _arrays(tensors):
    return [t.detach().contiguous().numpy() for t in tensors]


class _Fused(torch.autograd.Function):
    """A kernel and its backward kernel.

    The first ``n_row`` inputs are (G, B, ..), one per row; the others are (G, ..), one per expert.
    The gradients of the latter are sums over rows: every thread has its own sums, which are added
    in a fixed order.
    """

    @staticmethod
    def forward(ctx, kernels, n_row, out, n_states, *inputs):
        shares = parts(out.shape[0] * out.shape[1], out.numel() * n_states)
        run(kernels[0], shares, out.numpy(), [_arrays(inputs)] * len(shares))
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
        run(ctx.kernel, ctx.shares, grad, arguments)
        summed = [sum(sums[1:], sums[0]) for sums in zip(*per_expert, strict=True)]
        return None, None, None, None, *map(torch.from_numpy, [*per_row, *summed])


def selective_scan(u, delta, A, B, C, D):
    """The same as :func:`scan.torch_scan.selective_scan`, for float32 on the CPU."""
    kernels = (numba_kernels.scan, numba_kernels.scan_backward)
    given = Scan(u, delta, B, C, A.transpose(1, 2))
    y = _Fused.apply(kernels, 4, torch.empty(u.shape), A.shape[-1], *given)
    return y + u * D[:, None, None, :]


def mamba_inner(xz, p):
    """A Mamba block between in_proj and out_proj.

    Args:
        xz: (G, B, L, 2 D), the output of in_proj.
        p: stacked parameters under mamba-ssm's names.

    Returns:
        (G, B, L, D), the input of out_proj.
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
