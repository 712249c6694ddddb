"""The compiled kernels as differentiable functions of tensors, for float32 on the CPU."""

import numpy as np
import torch
import torch.nn.functional as F

from swift_hydra.compiled import parts, run
from swift_hydra.scan import numba_kernels
from swift_hydra.scan.numba_kernels import Block, Scan

EPSILON = 1e-5  # of the root mean square


def arrays_of(tensors):
    """The contiguous arrays of tensors, which a kernel takes."""
    return [t.detach().contiguous().numpy() for t in tensors]


def _gradients(kernel, given, n_row, shares, grad):
    """Gradients of the arrays ``given`` by a backward kernel, as tensors.

    The first ``n_row`` arrays are (G, B, ..), one per row; the others are (G, ..), one per expert.
    The gradients of the latter are sums over rows: every thread has its own sums, which are added
    in a fixed order.
    """
    per_row = [np.empty_like(array) for array in given[:n_row]]
    per_expert = [[np.zeros_like(array) for array in given[n_row:]] for _ in shares]
    run(kernel, shares, grad, [[*given, *per_row, *sums] for sums in per_expert])
    summed = [sum(sums[1:], sums[0]) for sums in zip(*per_expert, strict=True)]
    return list(map(torch.from_numpy, [*per_row, *summed]))


class _Fused(torch.autograd.Function):
    """A kernel and its backward kernel; inputs are what :func:`_gradients` is given."""

    @staticmethod
    def forward(ctx, kernels, n_row, out, n_states, *inputs):
        shares = parts(out.shape[0] * out.shape[1], out.numel() * n_states)
        run(kernels[0], shares, out.numpy(), [arrays_of(inputs)] * len(shares))
        ctx.save_for_backward(*inputs)
        ctx.kernel = kernels[1]
        ctx.n_row = n_row
        ctx.shares = shares
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad_out):
        given = arrays_of(ctx.saved_tensors)
        (grad,) = arrays_of([grad_out])
        return None, None, None, None, *_gradients(ctx.kernel, given, ctx.n_row, ctx.shares, grad)


def selective_scan(u, delta, A, B, C, D):
    """The same as :func:`scan.torch_scan.selective_scan`, for float32 on the CPU."""
    kernels = (numba_kernels.scan, numba_kernels.scan_backward)
    given = Scan(u, delta, B, C, A.transpose(1, 2))
    y = _Fused.apply(kernels, 4, torch.empty(u.shape), A.shape[-1], *given)
    return y + u * D[:, None, None, :]


def _block(xz, p):
    """The :class:`scan.numba_kernels.Block` of xz (G, B, L, 2 D) and stacked parameters."""
    return Block(
        xz=xz,
        conv=p["conv1d.weight"][:, :, 0].transpose(1, 2),  # (G, K, D)
        conv_bias=p["conv1d.bias"] if "conv1d.bias" in p else torch.zeros_like(p["D"]),
        to_state=p["x_proj.weight"],
        to_step=p["dt_proj.weight"].transpose(1, 2),  # (G, R, D)
        step_bias=p["dt_proj.bias"],
        A=-torch.exp(p["A_log"]).transpose(1, 2),  # (G, N, D)
        skip=p["D"],
    )


def mamba_inner(xz, p):
    """A Mamba block between in_proj and out_proj.

    Args:
        xz: (G, B, L, 2 D), the output of in_proj.
        p: stacked parameters under mamba-ssm's names.

    Returns:
        (G, B, L, D), the input of out_proj.
    """
    given = _block(xz, p)
    out = torch.empty((*xz.shape[:3], xz.shape[3] // 2))
    kernels = (numba_kernels.block, numba_kernels.block_backward)
    return _Fused.apply(kernels, 1, out, given.A.shape[1], *given)


class _Experts(torch.autograd.Function):
    """:func:`experts`. The sums are in autograd's order, so that results are equal to the bit."""

    @staticmethod
    def forward(ctx, inputs, kept, names, *parameters):
        p = dict(zip(names, parameters, strict=True))
        G, T, _, width = p["token_weight"].shape
        B = inputs.shape[1]
        tokens = torch.bmm(inputs, p["token_weight"].flatten(0, 1)).view(G, T, B, width)
        tokens = (tokens + p["token_bias"]).transpose(1, 2).contiguous()  # (G, B, T, d_model)
        scale = torch.rsqrt(tokens.square().mean(-1, keepdim=True) + EPSILON)
        unit = tokens * scale
        normed = (unit * p["norm_weight"][:, None, None]).view(G, B * T, width)
        xz = torch.bmm(normed, p["in_proj.weight"].transpose(1, 2)).view(G, B, T, -1)
        block = _block(xz, p)
        arrays = arrays_of(block)
        inner = torch.empty((G, B, T, xz.shape[3] // 2))
        shares = parts(G * B, inner.numel() * block.A.shape[1])
        run(numba_kernels.block, shares, inner.numpy(), [arrays] * len(shares))
        inner = inner.view(G, B * T, -1)
        mixed = torch.bmm(inner, p["out_proj.weight"].transpose(1, 2)).view_as(tokens)
        flat = (tokens + mixed).view(G, B, T * width)
        raw = torch.baddbmm(p["head_bias"], flat, p["head_weight"])  # (G, B, d_head)
        h = F.silu(raw)
        h = h if kept is None else h * kept
        ctx.p, ctx.shares, ctx.arrays = p, shares, arrays
        ctx.made = (inputs, kept, tokens, scale, unit, normed, inner, flat, raw, h)
        return torch.baddbmm(p["out_bias"], h, p["out_weight"]).squeeze(-1)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        p = ctx.p
        inputs, kept, tokens, scale, unit, normed, inner, flat, raw, h = ctx.made
        G, B, T, width = tokens.shape
        of = {}
        grad = grad[..., None]  # (G, B, 1)
        of["out_bias"] = grad.sum(1, keepdim=True)
        of["out_weight"] = torch.bmm(h.transpose(1, 2), grad)
        grad = grad * p["out_weight"].transpose(1, 2)  # (G, B, d_head)
        grad = torch.ops.aten.silu_backward(grad if kept is None else grad * kept, raw)
        of["head_bias"] = grad.sum(1, keepdim=True)
        of["head_weight"] = torch.bmm(flat.transpose(1, 2), grad)
        of_flat = torch.bmm(grad, p["head_weight"].transpose(1, 2)).view(G, B * T, width)
        of["out_proj.weight"] = torch.bmm(of_flat.transpose(1, 2), inner)
        of_inner = torch.bmm(of_flat, p["out_proj.weight"]).view(G, B, T, -1)
        of_xz = _Experts._of_block(of, ctx.arrays, ctx.shares, of_inner)
        of["in_proj.weight"] = torch.bmm(of_xz.transpose(1, 2), normed)
        grad = torch.bmm(of_xz, p["in_proj.weight"]).view_as(tokens)
        of["norm_weight"] = (grad * unit).sum((1, 2))
        grad = grad * p["norm_weight"][:, None, None]
        of_mean = -0.5 * (grad * tokens).sum(-1, keepdim=True) * scale.pow(3) / width
        grad = of_flat.view_as(tokens) + grad * scale + of_mean * (2.0 * tokens)
        of["token_bias"] = grad.sum(1)[:, :, None]
        grad = grad.transpose(1, 2).reshape(G * T, B, width)
        of["token_weight"] = torch.bmm(inputs.transpose(1, 2), grad).view_as(p["token_weight"])
        return None, None, None, *(of[name] for name in p)

    @staticmethod
    def _of_block(of, arrays, shares, grad):
        """Adds the gradients of a block's parameters to ``of``; returns that of xz."""
        kernel = numba_kernels.block_backward
        made = Block(*_gradients(kernel, arrays, 1, shares, grad.numpy()))
        of["conv1d.bias"], of["x_proj.weight"] = made.conv_bias, made.to_state
        of["dt_proj.bias"], of["D"] = made.step_bias, made.skip
        of["conv1d.weight"] = made.conv.transpose(1, 2)[:, :, None]
        of["dt_proj.weight"] = made.to_step.transpose(1, 2)
        of["A_log"] = (made.A * torch.from_numpy(Block(*arrays).A)).transpose(1, 2)
        return made.xz.flatten(1, 2)


def experts(inputs, kept, p):
    """Logits (G, B) of Mamba experts with one gradient for all they are made of, to train them.

    Autograd's bookkeeping for the thirty operations takes an eighth of the time.

    Args:
        inputs: (G * T, B, w) the features of every token.
        kept: (G, B, d_head) factors of dropout, or None.
        p: all their stacked parameters, those of Mamba under mamba-ssm's names.
    """
    return _Experts.apply(inputs, kept, tuple(p), *p.values())
