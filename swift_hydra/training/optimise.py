"""The two training loops: the Beta C-VAE (M2) and the detector (M3, M8, M9).

Both draw the classes in equal parts, so that a handful of anomalies is in every batch, and both are
fully determined by their seed: every stage has its own generators (see :func:`stage_seed`), nothing
reads or moves the global stream. Settings follow what was measured to suffice on small tables:
AdamW, one-cycle, a few hundred steps, mixup.
"""

import math

import torch

from swift_hydra.snapshot import pack_network


def check_finite(loss, stage, step, **parts):
    """Refuse a loss that is not finite. All values are plain numbers."""
    if not math.isfinite(loss):
        named = ", ".join(f"{name}={value:.4g}" for name, value in parts.items())
        raise FloatingPointError(f"{stage}: the loss is {loss} at step {step} ({named})")


class Optimiser:
    """AdamW with a one-cycle rate and clipped gradients, on one flat tensor.

    On small networks the time of a step is the number of tensors, not of their elements: while this
    lives, parameters and gradients are views of two flat tensors. :meth:`release` gives every
    parameter memory of its own again.

    Args:
        network: what is trained.
        free: parameters whose name has one of these parts are not decayed.
    """

    CLIP = 5.0  # of the gradient's norm

    def __init__(self, network, lr, weight_decay, steps, free=()):
        named = sorted(
            network.named_parameters(), key=lambda item: any(part in item[0] for part in free)
        )
        self.parameters = [p for _, p in named]
        n_decayed = sum(p.numel() for name, p in named if not any(part in name for part in free))
        flat = torch.cat([p.detach().flatten() for p in self.parameters])
        self.grad, start = torch.zeros_like(flat), 0
        for p in self.parameters:
            part = slice(start, start + p.numel())
            p.data, p.grad = flat[part].view_as(p), self.grad[part].view_as(p)
            start = part.stop
        groups = [
            {"params": [flat[:n_decayed]], "weight_decay": weight_decay},
            {"params": [flat[n_decayed:]], "weight_decay": 0.0},
        ]
        for group, part in zip(groups, (self.grad[:n_decayed], self.grad[n_decayed:]), strict=True):
            group["params"][0].grad = part
        self.adamw = torch.optim.AdamW(
            [g for g in groups if g["params"][0].numel()], lr=lr, fused=True
        )
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.adamw, max_lr=lr, total_steps=steps
        )

    def step(self, loss):
        self.grad.zero_()
        loss.backward()
        self.grad.mul_((self.CLIP / (self.grad.norm() + 1e-6)).clamp(max=1.0))
        self.adamw.step()
        self.schedule.step()

    def state(self):
        return self.adamw.state_dict()

    def load_state(self, state, step):
        self.adamw.load_state_dict(state)
        self.schedule.last_epoch = (
            step  # all else that the rate depends on is in the optimiser's groups
        )

    def release(self):
        for p in self.parameters:
            p.data, p.grad = p.data.clone(), None


def steps_left(stage, steps, network, optimiser, history, generator, store):
    """Yield the numbers of the steps that are left, and keep in the store how far the training is.

    The loop's body appends one entry to ``history`` per step. A stage that is finished has no step
    left: its network, generators and history are put in place, and the body never runs.
    """
    saved = store.get(stage)
    if saved is not None:
        history += saved["history"]
        network.load_state_dict(saved["network"])
        generator.set_state(saved["generator"])
        torch.set_rng_state(saved["global_generator"])
        if len(history) < steps:
            optimiser.load_state(saved["optimiser"], len(history))
    for step in range(len(history), steps):
        yield step
        finished = step + 1 == steps
        if finished or store.due():
            store.put(
                stage,
                {
                    "network": pack_network(network)["state"],
                    "optimiser": None if finished else optimiser.state(),
                    "generator": generator.get_state(),
                    "global_generator": torch.get_rng_state(),
                    "history": history,
                },
                step + 1,
                steps,
            )
