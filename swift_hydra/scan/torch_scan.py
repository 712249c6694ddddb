"""The selective scan of Mamba in plain PyTorch, with a hand-written backward pass.

Reference: Gu and Dao, "Mamba: Linear-Time Sequence Modeling with Selective State Spaces" (2023),
section 3.2 and algorithm 2; `selective_scan_ref` of state-spaces/mamba computes the same function.

    h_t = exp(delta_t A) h_{t-1} + delta_t B_t u_t          y_t = C_t h_t + D u_t

Glossary: G groups (experts evaluated together), B rows, L tokens, D channels (d_inner), N states
per channel (d_state). The state is kept as (G, B, N, D), channels last, so that every step is a few
contiguous passes over a block that fits into the processor's cache. Automatic differentiation of
the same loop slices a (.., L, ..) tensor L times, so that its backward pass is quadratic in L; the
one below is linear.
"""

import torch


def selective_scan(u, delta, A, B, C, D):
    """Run the recurrence over the tokens of every row.

    Args:
        u: (G, B, L, D) inputs.
        delta: (G, B, L, D) positive step sizes.
        A: (G, D, N) state matrix, negative real diagonal.
        B: (G, B, L, N) input projection. C: (G, B, L, N) output projection.
        D: (G, D) skip connection.

    Returns:
        (G, B, L, D). Deterministic on the CPU; differentiable once in every argument.
    """
    scan = _traced if torch.jit.is_tracing() else _SelectiveScan.apply
    return scan(u, delta, A, B, C) + u * D[:, None, None, :]


def _traced(u, delta, A, B, C):
    """The same without writing in place, which a traced graph (ONNX) cannot represent."""
    A_t = A.transpose(1, 2).unsqueeze(1)  # (G, 1, N, D)
    state = 0.0
    out = []
    for t in range(u.shape[2]):
        step = delta[:, :, t].unsqueeze(2)  # (G, B, 1, D)
        added = B[:, :, t].unsqueeze(-1) * (step * u[:, :, t].unsqueeze(2))  # (G, B, N, D)
        state = added + torch.exp(step * A_t) * state
        out.append((C[:, :, t].unsqueeze(-1) * state).sum(2))  # (G, B, D)
    return torch.stack(out, dim=2)


class _SelectiveScan(torch.autograd.Function):
    @staticmethod
    def forward(ctx, u, delta, A, B, C):
        G, batch, L, D = u.shape
        N = A.shape[-1]
        A_t = A.transpose(1, 2).unsqueeze(1).contiguous()  # (G, 1, N, D)
        steps = delta.movedim(2, 0).contiguous()  # (L, G, B, D)
        inputs = (delta * u).movedim(2, 0).contiguous()  # (L, G, B, D)
        B_l, C_l = B.movedim(2, 0).contiguous(), C.movedim(2, 0).contiguous()  # (L, G, B, N)
        decay = u.new_empty(L, G, batch, N, D)
        states = u.new_empty(L, G, batch, N, D)
        y = u.new_empty(L, G, batch, 1, D)
        for t in range(L):
            torch.mul(steps[t].unsqueeze(2), A_t, out=decay[t])
            decay[t].exp_()
            torch.mul(B_l[t].unsqueeze(-1), inputs[t].unsqueeze(2), out=states[t])
            if t:
                states[t].addcmul_(decay[t], states[t - 1])
            torch.matmul(C_l[t].unsqueeze(2), states[t], out=y[t])  # (G, B, 1, D)
        ctx.save_for_backward(u, A_t, steps, inputs, B_l, C_l, decay, states)
        return y.squeeze(3).movedim(0, 2)  # (G, B, L, D)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad_y):
        u, A_t, steps, inputs, B_l, C_l, decay, states = ctx.saved_tensors
        L, G, batch, N, D = states.shape
        grad_y = grad_y.movedim(2, 0).contiguous()  # (L, G, B, D)
        grad_h, work = u.new_zeros(G, batch, N, D), u.new_empty(G, batch, N, D)
        grad_A = u.new_zeros(G, batch, N, D)  # summed over the rows once, at the end
        grad_steps = u.new_zeros(L, G, batch, D)
        grad_inputs = u.new_empty(L, G, batch, 1, D)
        grad_B, grad_C = u.new_empty(L, G, batch, N, 1), u.new_empty(L, G, batch, N, 1)
        for t in range(L - 1, -1, -1):
            g = grad_y[t]
            torch.matmul(states[t], g.unsqueeze(-1), out=grad_C[t])
            grad_h.addcmul_(C_l[t].unsqueeze(-1), g.unsqueeze(2))
            torch.matmul(B_l[t].unsqueeze(2), grad_h, out=grad_inputs[t])
            torch.matmul(grad_h, inputs[t].unsqueeze(-1), out=grad_B[t])
            grad_h.mul_(decay[t])
            if t:
                torch.mul(grad_h, states[t - 1], out=work)  # d loss / d (delta_t A)
                grad_A.addcmul_(work, steps[t].unsqueeze(2))
                torch.sum(work.mul_(A_t), dim=2, out=grad_steps[t])
        grad_inputs = grad_inputs.squeeze(3)  # (L, G, B, D)
        delta = steps.movedim(0, 2)
        grad_delta = (grad_steps.movedim(0, 2)).addcmul(grad_inputs.movedim(0, 2), u)
        return (
            grad_inputs.movedim(0, 2) * delta,
            grad_delta,
            grad_A.sum(1).transpose(1, 2),
            grad_B.squeeze(-1).movedim(0, 2),
            grad_C.squeeze(-1).movedim(0, 2),
        )
