"""Mamba's inside in one pass over the processor's cache, compiled by numba
(``requirements-fast.txt``; optional).

The floor of a scan on a CPU is memory traffic and the exponential. A row's state fits into the
first-level cache, so a row is finished before the next one begins: nothing of size (B, L, N, D)
ever reaches memory, and the backward computes a row's states again in place of reading them. The
exponential is a polynomial that the compiler turns into vector instructions; the library's is a
call per number. :mod:`selective_scan` and :func:`model.mamba_mixer` compute the same in plain
PyTorch: they are the reference, and what runs where numba is missing, for float64 and on a GPU.

Shapes: G experts, B rows, L tokens, D = d_inner channels, N = d_state, R = dt_rank, K = d_conv
taps.
"""

import itertools
import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
import torch

try:
    from llvmlite import ir
    from numba import njit, types
    from numba.extending import intrinsic
except ImportError:  # the pure PyTorch path runs
    njit = None

SMALL = 2**21  # state updates below which one thread is faster than two


def available():
    """True where numba is installed."""
    return njit is not None


if njit is not None:
    f32 = np.float32

    def compiled(function):
        """Sums may be reordered and multiply-adds fused; NaN and infinity keep their meaning."""
        options = {
            "nogil": True,
            "fastmath": {"reassoc", "contract", "nsz", "arcp"},
            "error_model": "numpy",
        }
        try:
            return njit(cache=True, **options)(function)
        except (
            RuntimeError
        ):  # neither the code's folder nor the home can be written: compiled anew in every process
            return njit(**options)(function)

    @intrinsic
    def _power_of_two(typing, k):
        """2 ** k for a whole float32 in [-126, 127]: its bits, not a call."""

        def code(context, builder, signature, arguments):
            exponent = builder.fptosi(arguments[0], ir.IntType(32))
            bits = builder.shl(builder.add(exponent, ir.IntType(32)(127)), ir.IntType(32)(23))
            return builder.bitcast(bits, ir.FloatType())

        return types.float32(types.float32), code

    @compiled
    def _exp(x):
        """e ** x for float32, relative error below 3e-7; the exponent is cut at -87 and 87,
        float32's range.
        """
        x = f32(-87.0) if x < f32(-87.0) else x
        x = f32(87.0) if x > f32(87.0) else x
        k = np.floor(x * f32(1.4426950408889634) + f32(0.5))
        r = (x - k * f32(0.693359375)) - k * f32(
            -2.12194440e-4
        )  # ln 2 in two parts: k times the first is exact
        p = f32(1 / 5040)
        p = p * r + f32(1 / 720)
        p = p * r + f32(1 / 120)
        p = p * r + f32(1 / 24)
        p = p * r + f32(1 / 6)
        p = p * r + f32(0.5)
        return ((p * r + f32(1.0)) * r + f32(1.0)) * _power_of_two(k)

    @compiled
    def _sigmoid(x):
        return f32(1.0) / (f32(1.0) + _exp(-x))

    @compiled
    def _softplus(x):
        """log(1 + e ** x) = max(x, 0) + 2 atanh(t / (2 + t)) with t = e ** -|x|."""
        t = _exp(-abs(x))
        s = t / (t + f32(2.0))
        q = s * s
        p = f32(2 / 13)
        p = p * q + f32(2 / 11)
        p = p * q + f32(2 / 9)
        p = p * q + f32(2 / 7)
        p = p * q + f32(2 / 5)
        p = p * q + f32(2 / 3)
        return (f32(0.0) if x < f32(0.0) else x) + s * (p * q + f32(2.0))

    # --- one row of the recurrence ----------------------------------------------------------------

    @compiled
    def _scan_row(step, inputs, A, B, C, h, y):
        """step, inputs = step * u: (L, D); A: (N, D); B, C: (L, N). Writes y (L, D); h (N, D) is
        work space.
        """
        L, D = step.shape
        N = A.shape[0]
        h[:] = f32(0.0)
        for t in range(L):
            for d in range(D):
                y[t, d] = f32(0.0)
            for n in range(N):
                b, c = B[t, n], C[t, n]
                for d in range(D):
                    value = _exp(step[t, d] * A[n, d]) * h[n, d] + b * inputs[t, d]
                    h[n, d] = value
                    y[t, d] += c * value

    @compiled
    def _scan_row_keeping(step, inputs, A, B, C, decay, states, y):
        """As :func:`_scan_row`, keeping every state and decay (L, N, D) for the backward."""
        L, D = step.shape
        N = A.shape[0]
        for t in range(L):
            for d in range(D):
                y[t, d] = f32(0.0)
            for n in range(N):
                b, c = B[t, n], C[t, n]
                for d in range(D):
                    a = _exp(step[t, d] * A[n, d])
                    value = b * inputs[t, d]
                    if t > 0:
                        value += a * states[t - 1, n, d]
                    decay[t, n, d] = a
                    states[t, n, d] = value
                    y[t, d] += c * value

    @compiled
    def _scan_row_backward(
        grad_y,
        step,
        inputs,
        A,
        B,
        C,
        decay,
        states,
        h,
        grad_step,
        grad_inputs,
        grad_A,
        grad_B,
        grad_C,
    ):
        """grad_y: (L, D). Writes grad_step, grad_inputs (L, D), grad_B, grad_C (L, N); adds to
        grad_A (N, D).

        The inner loops are short on purpose: each is entered after a check that its arrays do not
        overlap, and with D = 32 a check of ten arrays costs more than the loop.
        """
        L, D = step.shape
        N = A.shape[0]
        h[:] = f32(0.0)  # d loss / d state
        for t in range(L - 1, -1, -1):
            for d in range(D):
                grad_step[t, d] = f32(0.0)
                grad_inputs[t, d] = f32(0.0)
            for n in range(N):
                b, c = B[t, n], C[t, n]
                to_b, to_c = f32(0.0), f32(0.0)
                for d in range(D):
                    to_c += grad_y[t, d] * states[t, n, d]
                    h[n, d] += c * grad_y[t, d]
                for d in range(D):
                    g = h[n, d]
                    to_b += g * inputs[t, d]
                    grad_inputs[t, d] += g * b
                    h[n, d] = g * decay[t, n, d]
                if t > 0:
                    for d in range(D):
                        grad_step[t, d] += h[n, d] * states[t - 1, n, d] * A[n, d]
                    for d in range(D):
                        grad_A[n, d] += h[n, d] * states[t - 1, n, d] * step[t, d]
                grad_B[t, n] = to_b
                grad_C[t, n] = to_c

    # --- the scan alone ---------------------------------------------------------------------------

    @compiled
    def _scan(u, delta, B, C, A, y, low, high):
        _, rows, L, D = u.shape
        N = A.shape[1]
        inputs, h = np.empty((L, D), f32), np.empty((N, D), f32)
        for i in range(low, high):
            g, r = i // rows, i % rows
            for t in range(L):
                for d in range(D):
                    inputs[t, d] = delta[g, r, t, d] * u[g, r, t, d]
            _scan_row(delta[g, r], inputs, A[g], B[g, r], C[g, r], h, y[g, r])

    @compiled
    def _scan_backward(
        grad_y, u, delta, B, C, A, grad_u, grad_delta, grad_B, grad_C, grad_A, low, high
    ):
        _, rows, L, D = u.shape
        N = A.shape[1]
        inputs, y, grad_inputs = np.empty((L, D), f32), np.empty((L, D), f32), np.empty((L, D), f32)
        decay, states, h = np.empty((L, N, D), f32), np.empty((L, N, D), f32), np.empty((N, D), f32)
        for i in range(low, high):
            g, r = i // rows, i % rows
            for t in range(L):
                for d in range(D):
                    inputs[t, d] = delta[g, r, t, d] * u[g, r, t, d]
            _scan_row_keeping(delta[g, r], inputs, A[g], B[g, r], C[g, r], decay, states, y)
            _scan_row_backward(
                grad_y[g, r],
                delta[g, r],
                inputs,
                A[g],
                B[g, r],
                C[g, r],
                decay,
                states,
                h,
                grad_delta[g, r],
                grad_inputs,
                grad_A[g],
                grad_B[g, r],
                grad_C[g, r],
            )
            for t in range(L):
                for d in range(D):
                    grad_delta[g, r, t, d] += grad_inputs[t, d] * u[g, r, t, d]
                    grad_u[g, r, t, d] = grad_inputs[t, d] * delta[g, r, t, d]

    # --- the block between its outer projections: convolution, projections, scan, gate ------------

    @compiled
    def _prepare(
        xz, conv, conv_bias, to_state, to_step, step_bias, v, u, low_rank, B, C, raw, step, inputs
    ):
        """Everything in front of the scan for one row: xz (L, 2 D) to u, step, inputs (L, D) and B,
        C (L, N).
        """
        L, D = u.shape
        K, R, N = conv.shape[0], to_step.shape[0], B.shape[1]
        for t in range(L):
            for d in range(D):
                v[t, d] = conv_bias[d]
        for j in range(K):  # causal: token t sees t - K + 1 .. t
            for t in range(K - 1 - j, L):
                for d in range(D):
                    v[t, d] += conv[j, d] * xz[t - K + 1 + j, d]
        flat_v, flat_u = v.reshape(L * D), u.reshape(L * D)
        for i in range(L * D):
            flat_u[i] = flat_v[i] * _sigmoid(flat_v[i])
        for t in range(L):
            for m in range(R + 2 * N):
                total = f32(0.0)
                for d in range(D):
                    total += u[t, d] * to_state[m, d]
                if m < R:
                    low_rank[t, m] = total
                elif m < R + N:
                    B[t, m - R] = total
                else:
                    C[t, m - R - N] = total
            for d in range(D):
                raw[t, d] = step_bias[d]
            for r in range(R):
                for d in range(D):
                    raw[t, d] += low_rank[t, r] * to_step[r, d]
        flat_raw, flat_step, flat_inputs = (
            raw.reshape(L * D),
            step.reshape(L * D),
            inputs.reshape(L * D),
        )
        for i in range(L * D):
            flat_step[i] = _softplus(flat_raw[i])
        for i in range(L * D):
            flat_inputs[i] = flat_step[i] * flat_u[i]

    @compiled
    def _inner(xz, conv, conv_bias, to_state, to_step, step_bias, A, skip, out, low, high):
        _, rows, L, D = out.shape
        N, R = A.shape[1], to_step.shape[1]
        v, u, raw, step, inputs = (
            np.empty((L, D), f32),
            np.empty((L, D), f32),
            np.empty((L, D), f32),
            np.empty((L, D), f32),
            np.empty((L, D), f32),
        )
        low_rank, B, C, h = (
            np.empty((L, R), f32),
            np.empty((L, N), f32),
            np.empty((L, N), f32),
            np.empty((N, D), f32),
        )
        for i in range(low, high):
            g, r = i // rows, i % rows
            _prepare(
                xz[g, r],
                conv[g],
                conv_bias[g],
                to_state[g],
                to_step[g],
                step_bias[g],
                v,
                u,
                low_rank,
                B,
                C,
                raw,
                step,
                inputs,
            )
            _scan_row(step, inputs, A[g], B, C, h, out[g, r])
            for t in range(L):
                for d in range(D):
                    z = xz[g, r, t, D + d]
                    out[g, r, t, d] = (out[g, r, t, d] + skip[g, d] * u[t, d]) * (z * _sigmoid(z))

    @compiled
    def _inner_backward(
        grad_out,
        xz,
        conv,
        conv_bias,
        to_state,
        to_step,
        step_bias,
        A,
        skip,
        grad_xz,
        grad_conv,
        grad_conv_bias,
        grad_to_state,
        grad_to_step,
        grad_step_bias,
        grad_A,
        grad_skip,
        low,
        high,
    ):
        _, rows, L, D = grad_out.shape
        N, R, K = A.shape[1], to_step.shape[1], conv.shape[1]
        v, u, raw, step, inputs = (
            np.empty((L, D), f32),
            np.empty((L, D), f32),
            np.empty((L, D), f32),
            np.empty((L, D), f32),
            np.empty((L, D), f32),
        )
        y, grad_y, grad_u = np.empty((L, D), f32), np.empty((L, D), f32), np.empty((L, D), f32)
        grad_step, grad_inputs = np.empty((L, D), f32), np.empty((L, D), f32)
        low_rank, B, C, h = (
            np.empty((L, R), f32),
            np.empty((L, N), f32),
            np.empty((L, N), f32),
            np.empty((N, D), f32),
        )
        grad_B, grad_C, grad_state = (
            np.empty((L, N), f32),
            np.empty((L, N), f32),
            np.empty(R + 2 * N, f32),
        )
        decay, states = np.empty((L, N, D), f32), np.empty((L, N, D), f32)
        for i in range(low, high):
            g, r = i // rows, i % rows
            _prepare(
                xz[g, r],
                conv[g],
                conv_bias[g],
                to_state[g],
                to_step[g],
                step_bias[g],
                v,
                u,
                low_rank,
                B,
                C,
                raw,
                step,
                inputs,
            )
            _scan_row_keeping(step, inputs, A[g], B, C, decay, states, y)
            for t in range(L):
                for d in range(D):
                    z, grad = xz[g, r, t, D + d], grad_out[g, r, t, d]
                    s = _sigmoid(z)
                    grad_xz[g, r, t, D + d] = (
                        grad
                        * (y[t, d] + skip[g, d] * u[t, d])
                        * (s * (f32(1.0) + z * (f32(1.0) - s)))
                    )
                    grad = grad * z * s
                    grad_y[t, d] = grad
                    grad_skip[g, d] += grad * u[t, d]
            _scan_row_backward(
                grad_y,
                step,
                inputs,
                A[g],
                B,
                C,
                decay,
                states,
                h,
                grad_step,
                grad_inputs,
                grad_A[g],
                grad_B,
                grad_C,
            )
            for t in range(L):
                for d in range(D):
                    grad_u[t, d] = grad_y[t, d] * skip[g, d] + grad_inputs[t, d] * step[t, d]
                    grad = (grad_step[t, d] + grad_inputs[t, d] * u[t, d]) * _sigmoid(raw[t, d])
                    grad_step[t, d] = grad  # now of the step before its softplus
                    grad_step_bias[g, d] += grad
                for q in range(R):
                    total = f32(0.0)
                    for d in range(D):
                        total += grad_step[t, d] * to_step[g, q, d]
                        grad_to_step[g, q, d] += low_rank[t, q] * grad_step[t, d]
                    grad_state[q] = total
                for n in range(N):
                    grad_state[R + n] = grad_B[t, n]
                    grad_state[R + N + n] = grad_C[t, n]
                for m in range(R + 2 * N):
                    for d in range(D):
                        grad_u[t, d] += grad_state[m] * to_state[g, m, d]
                        grad_to_state[g, m, d] += grad_state[m] * u[t, d]
                for d in range(D):
                    s = _sigmoid(v[t, d])
                    grad_u[t, d] *= s * (f32(1.0) + v[t, d] * (f32(1.0) - s))  # now of v
                    grad_conv_bias[g, d] += grad_u[t, d]
                    grad_xz[g, r, t, d] = f32(0.0)
            for t in range(L):
                for j in range(max(0, K - 1 - t), K):
                    for d in range(D):
                        grad_conv[g, j, d] += grad_u[t, d] * xz[g, r, t - K + 1 + j, d]
                        grad_xz[g, r, t - K + 1 + j, d] += grad_u[t, d] * conv[g, j, d]

    # --- distances --------------------------------------------------------------------------------

    @compiled
    def _city_block(rows, columns, out, low, high):
        """Distances of rows (4 q, d) to columns (d, m), fours low to high: four rows share a pass
        over the columns.
        """
        d, m = columns.shape
        for four in range(low, high):
            x, y = rows[4 * four : 4 * four + 4], out[4 * four : 4 * four + 4]
            y[:] = f32(0.0)
            for j in range(d):
                x0, x1, x2, x3 = x[0, j], x[1, j], x[2, j], x[3, j]
                for c in range(m):
                    y[0, c] += abs(x0 - columns[j, c])
                    y[1, c] += abs(x1 - columns[j, c])
                    y[2, c] += abs(x2 - columns[j, c])
                    y[3, c] += abs(x3 - columns[j, c])


# --- differentiable functions ---------------------------------------------------------------------


@cache
def _pool(process):
    return ThreadPoolExecutor(max(2, os.cpu_count() or 2))


def _parts(n_rows, work):
    """Shares of the rows, one for each thread that is worth its start: [(low, high), ...]."""
    threads = min(torch.get_num_threads(), n_rows) if work > SMALL else 1
    bounds = [n_rows * i // threads for i in range(threads + 1)]
    return list(itertools.pairwise(bounds))


def _run(kernel, parts, *arguments):
    """Call ``kernel(*arguments, low, high)`` for every part, the parts in threads (the kernels
    release the GIL).
    """
    if len(parts) == 1:
        kernel(*arguments[0], *parts[0])
        return
    jobs = [
        _pool(os.getpid()).submit(kernel, *each, *part)
        for each, part in zip(arguments, parts, strict=True)
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
    def forward(ctx, kernels, n_row, shape, n_states, *inputs):
        arrays, out = _arrays(inputs), torch.empty(shape)
        parts = _parts(shape[0] * shape[1], out.numel() * n_states)
        _run(kernels[0], parts, *[[*arrays, out.numpy()]] * len(parts))
        ctx.save_for_backward(*inputs)
        ctx.kernel, ctx.n_row, ctx.parts = kernels[1], n_row, parts
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad_out):
        arrays, n, parts = _arrays(ctx.saved_tensors), ctx.n_row, ctx.parts
        (grad,) = _arrays([grad_out])
        per_row = [np.empty_like(array) for array in arrays[:n]]
        per_expert = [[np.zeros_like(array) for array in arrays[n:]] for _ in parts]
        _run(ctx.kernel, parts, *[[grad, *arrays, *per_row, *sums] for sums in per_expert])
        summed = [sum(sums[1:], sums[0]) for sums in zip(*per_expert, strict=True)]
        return None, None, None, None, *map(torch.from_numpy, [*per_row, *summed])


def city_block(X, Y):
    """Sums of absolute differences between rows X (n, d) and rows Y (m, d): (n, m) float32."""
    rows, columns = (
        np.zeros((-(-len(X) // 4) * 4, X.shape[1]), np.float32),
        np.ascontiguousarray(Y.T, np.float32),
    )
    rows[: len(X)] = X
    out = np.empty((len(rows), columns.shape[1]), np.float32)
    parts = _parts(len(rows) // 4, out.size * len(columns)) if len(X) else []
    _run(_city_block, parts, *[[rows, columns, out]] * len(parts))
    return out[: len(X)]


def selective_scan(u, delta, A, B, C, D):
    """The contract of :func:`selective_scan.selective_scan`, for float32 on the CPU."""
    y = _Fused.apply(
        (_scan, _scan_backward), 4, u.shape, A.shape[-1], u, delta, B, C, A.transpose(1, 2)
    )
    return y + u * D[:, None, None, :]


def mamba_inner(xz, p):
    """A Mamba block between in_proj and out_proj.

    Args:
        xz: (G, B, L, 2 D), what in_proj returns.
        p: stacked parameters under mamba-ssm's names.

    Returns:
        (G, B, L, D), what out_proj is given.
    """
    conv_weight = p["conv1d.weight"][:, :, 0].transpose(1, 2)  # (G, K, D)
    conv_bias = p["conv1d.bias"] if "conv1d.bias" in p else torch.zeros_like(p["D"])
    A = -torch.exp(p["A_log"]).transpose(1, 2)  # (G, N, D)
    shape = (*xz.shape[:3], xz.shape[3] // 2)
    return _Fused.apply(
        (_inner, _inner_backward),
        1,
        shape,
        A.shape[1],
        xz,
        conv_weight,
        conv_bias,
        p["x_proj.weight"],
        p["dt_proj.weight"].transpose(1, 2),
        p["dt_proj.bias"],
        A,
        p["D"],
    )
