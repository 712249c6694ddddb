"""The inner part of a Mamba block, row by row in the cache; compiled by numba (an optional extra).

A scan on a CPU is limited by memory traffic and by the exponential. A row's state fits into the
first-level cache, so each row is finished before the next one begins: no array of size (B, L, N, D)
is ever in memory, and the backward pass computes a row's states again instead of reading them. The
exponential is a polynomial that the compiler vectorises; the library's takes a call per number.
:mod:`scan.torch_scan` and :func:`model.mamba_mixer` compute the same in plain PyTorch: they are the
reference, and run without numba, for float64, and on a GPU. :mod:`scan.numba_scan` makes
differentiable functions of the kernels.

Every kernel works on the rows from ``low`` to ``high`` and releases the GIL.

Shapes: G experts, B rows, L tokens, D = d_inner channels, N = d_state, R = dt_rank, K = d_conv.
"""

from typing import NamedTuple

import numpy as np

from swift_hydra.compiled import available


class Scan(NamedTuple):
    """Inputs of the scan, or their gradients."""

    u: np.ndarray  # (G, B, L, D)
    delta: np.ndarray  # (G, B, L, D)
    B: np.ndarray  # (G, B, L, N)
    C: np.ndarray  # (G, B, L, N)
    A: np.ndarray  # (G, N, D)


class Block(NamedTuple):
    """Inputs of a block between its outer projections, or their gradients."""

    xz: np.ndarray  # (G, B, L, 2 D)
    conv: np.ndarray  # (G, K, D)
    conv_bias: np.ndarray  # (G, D)
    to_state: np.ndarray  # (G, R + 2 N, D)
    to_step: np.ndarray  # (G, R, D)
    step_bias: np.ndarray  # (G, D)
    A: np.ndarray  # (G, N, D)
    skip: np.ndarray  # (G, D)


if available():
    from swift_hydra.compiled import compiled, exp, f32, in_order, inlined

    @inlined
    def sigmoid(x):
        return f32(1.0) / (f32(1.0) + exp(-x))

    @inlined
    def softplus(x):
        """log(1 + e ** x) = max(x, 0) + 2 atanh(t / (2 + t)) with t = e ** -|x|."""
        t = exp(-abs(x))
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

    @inlined
    def _scan_row(step, inputs, A, B, C, h, y):
        """One row of the scan, without keeping its states.

        step, inputs = step * u: (L, D); A: (N, D); B, C: (L, N). Writes y (L, D); h (N, D) is work
        space.
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
                    value = exp(step[t, d] * A[n, d]) * h[n, d] + b * inputs[t, d]
                    h[n, d] = value
                    y[t, d] += c * value

    @inlined
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
                    a = exp(step[t, d] * A[n, d])
                    value = b * inputs[t, d]
                    if t > 0:
                        value += a * states[t - 1, n, d]
                    decay[t, n, d] = a
                    states[t, n, d] = value
                    y[t, d] += c * value

    @inlined
    def _scan_row_backward(grad_y, A, grad_A, h, given, kept, grads):
        """The backward of :func:`_scan_row_keeping`.

        grad_y: (L, D); given: step, inputs, B, C; kept: decay, states. Writes grads, in the order
        of given; adds to grad_A (N, D). h (N, D) is work space. Callers make these tuples once for
        all rows if possible.

        The inner loops are short on purpose: each is entered after a check that its arrays do not
        overlap, and with D = 32 a check of ten arrays costs more than the loop.
        """
        step, inputs, B, C = given
        decay, states = kept
        grad_step, grad_inputs, grad_B, grad_C = grads
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
    def scan(y, low, high, *given):
        """The recurrence on the arrays of a :class:`Scan`; writes y (G, B, L, D)."""
        u, delta, B, C, A = given
        _, rows, L, D = u.shape
        inputs = np.empty((L, D), f32)
        h = np.empty((A.shape[1], D), f32)
        for i in range(low, high):
            g, r = i // rows, i % rows
            for t in range(L):
                for d in range(D):
                    inputs[t, d] = delta[g, r, t, d] * u[g, r, t, d]
            _scan_row(delta[g, r], inputs, A[g], B[g, r], C[g, r], h, y[g, r])

    @compiled
    def scan_backward(grad_y, low, high, *arrays):
        """Writes the gradients of :func:`scan`, except that of A, to which it adds.

        ``arrays`` are those of a Scan, then those of its gradients.
        """
        u, delta, B, C, A = arrays[:5]
        grad_u, grad_delta, grad_B, grad_C, grad_A = arrays[5:]
        _, rows, L, D = u.shape
        N = A.shape[1]
        inputs, y, grad_inputs = np.empty((L, D), f32), np.empty((L, D), f32), np.empty((L, D), f32)
        decay, states = np.empty((L, N, D), f32), np.empty((L, N, D), f32)
        h = np.empty((N, D), f32)
        for i in range(low, high):
            g, r = i // rows, i % rows
            for t in range(L):
                for d in range(D):
                    inputs[t, d] = delta[g, r, t, d] * u[g, r, t, d]
            _scan_row_keeping(delta[g, r], inputs, A[g], B[g, r], C[g, r], decay, states, y)
            _scan_row_backward(
                grad_y[g, r],
                A[g],
                grad_A[g],
                h,
                (delta[g, r], inputs, B[g, r], C[g, r]),
                (decay, states),
                (grad_delta[g, r], grad_inputs, grad_B[g, r], grad_C[g, r]),
            )
            for t in range(L):
                for d in range(D):
                    grad_delta[g, r, t, d] += grad_inputs[t, d] * u[g, r, t, d]
                    grad_u[g, r, t, d] = grad_inputs[t, d] * delta[g, r, t, d]

    # --- the block between its outer projections: convolution, projections, scan, gate ------------

    @inlined
    def _convolve(xz, conv, conv_bias, v, u):
        """Causal convolution of xz (L, 2 D): writes v and its activation u, (L, D) each.

        Token t sees the tokens t - K + 1 to t.
        """
        L, D = u.shape
        K = conv.shape[0]
        for t in range(L):
            for d in range(D):
                v[t, d] = conv_bias[d]
        for j in range(K):
            for t in range(K - 1 - j, L):
                for d in range(D):
                    v[t, d] += conv[j, d] * xz[t - K + 1 + j, d]
        flat_v, flat_u = v.reshape(L * D), u.reshape(L * D)
        for i in range(L * D):
            flat_u[i] = flat_v[i] * sigmoid(flat_v[i])

    @inlined
    def _project(u, to_state, low_rank, B, C):
        """Project u (L, D) to the low-rank step (L, R), B (L, N) and C (L, N)."""
        L, D = u.shape
        R, N = low_rank.shape[1], B.shape[1]
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

    @inlined
    def _make_steps(u, low_rank, to_step, step_bias, raw, step, inputs):
        """Write raw, the projected low-rank step; step = softplus(raw); and inputs = step * u.

        low_rank: (L, R); all others are (L, D).
        """
        L, D = u.shape
        for t in range(L):
            for d in range(D):
                raw[t, d] = step_bias[d]
            for r in range(to_step.shape[0]):
                for d in range(D):
                    raw[t, d] += low_rank[t, r] * to_step[r, d]
        flat_raw, flat_step = raw.reshape(L * D), step.reshape(L * D)
        flat_inputs, flat_u = inputs.reshape(L * D), u.reshape(L * D)
        for i in range(L * D):
            flat_step[i] = softplus(flat_raw[i])
        for i in range(L * D):
            flat_inputs[i] = flat_step[i] * flat_u[i]

    @compiled
    def block(out, low, high, *given):
        """The inner part of a Mamba block on a :class:`Block`'s arrays; writes out (G, B, L, D)."""
        xz, conv, conv_bias, to_state, to_step, step_bias, A, skip = given
        _, rows, L, D = out.shape
        N, R = A.shape[1], to_step.shape[1]
        v, u, raw = np.empty((L, D), f32), np.empty((L, D), f32), np.empty((L, D), f32)
        step, inputs, h = np.empty((L, D), f32), np.empty((L, D), f32), np.empty((N, D), f32)
        low_rank, B, C = np.empty((L, R), f32), np.empty((L, N), f32), np.empty((L, N), f32)
        for i in range(low, high):
            g, r = i // rows, i % rows
            _convolve(xz[g, r], conv[g], conv_bias[g], v, u)
            _project(u, to_state[g], low_rank, B, C)
            _make_steps(u, low_rank, to_step[g], step_bias[g], raw, step, inputs)
            _scan_row(step, inputs, A[g], B, C, h, out[g, r])
            for t in range(L):
                for d in range(D):
                    z = xz[g, r, t, D + d]
                    value = out[g, r, t, d] + skip[g, d] * u[t, d]
                    out[g, r, t, d] = value * (z * sigmoid(z))

    # --- its backward, from the gate to the convolution -------------------------------------------

    @in_order
    def _gate_backward(grad_out, xz, skip, u, y, grad_xz, grad_skip):
        """Writes the gate's half of grad_xz and adds to grad_skip (D,).

        y (L, D) is overwritten by its gradient.
        """
        L, D = y.shape
        for t in range(L):
            for d in range(D):
                z, grad = xz[t, D + d], grad_out[t, d]
                s = sigmoid(z)
                value = y[t, d] + skip[d] * u[t, d]
                grad_xz[t, D + d] = grad * value * s * (f32(1.0) + z * (f32(1.0) - s))
                grad = grad * z * s
                y[t, d] = grad
                grad_skip[d] += grad * u[t, d]

    @inlined
    def _steps_backward(grad_y, skip, made, grads, grad_u, grad_step_bias):
        """From the gradients of the scan's inputs to those of u and of raw.

        made: u, raw, step; grads: grad_step, which becomes the gradient of raw, and grad_inputs.
        """
        u, raw, step = made
        grad_step, grad_inputs = grads
        L, D = u.shape
        for t in range(L):
            for d in range(D):
                grad_u[t, d] = grad_y[t, d] * skip[d] + grad_inputs[t, d] * step[t, d]
                grad = (grad_step[t, d] + grad_inputs[t, d] * u[t, d]) * sigmoid(raw[t, d])
                grad_step[t, d] = grad
                grad_step_bias[d] += grad

    @inlined
    def _low_rank_backward(low_rank, to_step, grad_step, grad_to_step, grad_state):
        """From grad_step to the low-rank step's, the first R columns of grad_state (L, R + 2 N)."""
        L, R = low_rank.shape
        D = grad_step.shape[1]
        for t in range(L):
            for q in range(R):
                total = f32(0.0)
                for d in range(D):
                    total += grad_step[t, d] * to_step[q, d]
                    grad_to_step[q, d] += low_rank[t, q] * grad_step[t, d]
                grad_state[t, q] = total

    @inlined
    def _projection_backward(u, to_state, grad_state, grad_u, grad_to_state):
        """From the gradients of the low-rank step, B and C, adds to that of u."""
        L, D = u.shape
        for t in range(L):
            for m in range(grad_state.shape[1]):
                for d in range(D):
                    grad_u[t, d] += grad_state[t, m] * to_state[m, d]
                    grad_to_state[m, d] += grad_state[t, m] * u[t, d]

    @inlined
    def _activation_backward(v, grad_u, grad_conv_bias):
        """grad_u (L, D) becomes the gradient of v."""
        L, D = v.shape
        for t in range(L):
            for d in range(D):
                s = sigmoid(v[t, d])
                grad_u[t, d] *= s * (f32(1.0) + v[t, d] * (f32(1.0) - s))
                grad_conv_bias[d] += grad_u[t, d]

    @inlined
    def _convolution_backward(grad_v, xz, conv, grad_xz, grad_conv):
        """Writes the other half of grad_xz; adds to grad_conv (K, D)."""
        L, D = grad_v.shape
        K = conv.shape[0]
        for t in range(L):
            for d in range(D):
                grad_xz[t, d] = f32(0.0)
        for t in range(L):
            for j in range(max(0, K - 1 - t), K):
                for d in range(D):
                    grad_conv[j, d] += grad_v[t, d] * xz[t - K + 1 + j, d]
                    grad_xz[t - K + 1 + j, d] += grad_v[t, d] * conv[j, d]

    @compiled
    def block_backward(grad_out, low, high, *arrays):
        """Writes the gradient of :func:`block` in xz, and adds to all others.

        ``arrays`` are those of a Block, then those of its gradients.
        """
        xz, conv, conv_bias, to_state, to_step, step_bias, A, skip = arrays[:8]
        grad_xz, grad_conv, grad_conv_bias, grad_to_state = arrays[8:12]
        grad_to_step, grad_step_bias, grad_A, grad_skip = arrays[12:]
        _, rows, L, D = grad_out.shape
        N, R = A.shape[1], to_step.shape[1]
        v, u, raw = np.empty((L, D), f32), np.empty((L, D), f32), np.empty((L, D), f32)
        step, inputs, h = np.empty((L, D), f32), np.empty((L, D), f32), np.empty((N, D), f32)
        low_rank, B, C = np.empty((L, R), f32), np.empty((L, N), f32), np.empty((L, N), f32)
        y, grad_u = np.empty((L, D), f32), np.empty((L, D), f32)
        grad_step, grad_inputs = np.empty((L, D), f32), np.empty((L, D), f32)
        grad_B, grad_C = np.empty((L, N), f32), np.empty((L, N), f32)
        grad_state = np.empty((L, R + 2 * N), f32)
        decay, states = np.empty((L, N, D), f32), np.empty((L, N, D), f32)
        scanned, kept = (step, inputs, B, C), (decay, states)
        grads = (grad_step, grad_inputs, grad_B, grad_C)
        made, of_step = (u, raw, step), (grad_step, grad_inputs)
        for i in range(low, high):
            g, r = i // rows, i % rows
            _convolve(xz[g, r], conv[g], conv_bias[g], v, u)
            _project(u, to_state[g], low_rank, B, C)
            _make_steps(u, low_rank, to_step[g], step_bias[g], raw, step, inputs)
            _scan_row_keeping(step, inputs, A[g], B, C, decay, states, y)
            _gate_backward(grad_out[g, r], xz[g, r], skip[g], u, y, grad_xz[g, r], grad_skip[g])
            _scan_row_backward(y, A[g], grad_A[g], h, scanned, kept, grads)
            _steps_backward(y, skip[g], made, of_step, grad_u, grad_step_bias[g])
            _low_rank_backward(low_rank, to_step[g], grad_step, grad_to_step[g], grad_state)
            grad_state[:, R : R + N] = grad_B
            grad_state[:, R + N :] = grad_C
            _projection_backward(u, to_state[g], grad_state, grad_u, grad_to_state[g])
            _activation_backward(v, grad_u, grad_conv_bias[g])
            _convolution_backward(grad_u, xz[g, r], conv[g], grad_xz[g, r], grad_conv[g])
