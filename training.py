"""The two training loops: the Beta C-VAE (M2) and the detector (M3, M8, M9).

Both draw the classes in equal parts, so that a handful of anomalies is in every batch, and both are fully determined
by their seed: every stage has its own generators (see :func:`stage_seed`), nothing reads or moves the global stream.
Settings follow what was measured to suffice on small tables: AdamW, one-cycle, a few hundred steps, mixup.
"""

import math
import zlib
from contextlib import contextmanager

import numpy as np
import torch
import torch.nn.functional as F

from model import BetaCVAE, MoEDetector, choose_backend, pack_network


def stage_seed(seed, stage):
    """A seed for one named stage of a run: stages do not disturb each other when one of them draws more."""
    return int(np.random.SeedSequence([int(seed), zlib.crc32(stage.encode())]).generate_state(1)[0])


@contextmanager
def seeded(seed, stage):
    """Initialise and train inside a stream of its own; yields a generator and leaves the global stream as it was."""
    value = stage_seed(seed, stage)
    with torch.random.fork_rng(devices=[]):  # module initialisers and dropout can only read the global stream
        torch.manual_seed(value)
        yield torch.Generator().manual_seed(value)


def silent(stage, step, n_steps, **losses):
    """The progress callback that prints nothing."""


class NoStore:
    """Keeps nothing of a run: every stage is computed. The one that keeps things is :class:`resume.Store`."""

    def get(self, stage):
        """What :meth:`put` was last given for a stage, or None."""

    def put(self, stage, content, n_done, n_steps):
        """Keep ``content`` (tensors and plain values), all that is needed to go on after ``n_done`` of ``n_steps``."""

    def due(self):
        """Is it time to put something within a long stage?"""
        return False


NO_STORE = NoStore()


def history_log(stage, history, *names):
    """Every 20th step of a training history as dicts for log.jsonl; ``names`` name the leading entries of a step."""
    return [{"stage": stage, "step": i + 1, **dict(zip(names, losses, strict=False))}
            for i, losses in enumerate(history) if i % 20 == 19]  # fmt: skip


def _check_finite(loss, stage, step, **parts):
    """Refuse a loss that is not finite. All values are plain numbers."""
    if not math.isfinite(loss):
        named = ", ".join(f"{name}={value:.4g}" for name, value in parts.items())
        raise FloatingPointError(f"{stage}: the loss is {loss} at step {step} ({named})")


def _half_and_half(normal, anomaly, steps, size, generator):
    """Row numbers of all batches, as many anomalies as normals in each, drawn with replacement: (steps, size)."""
    half = size // 2
    return torch.cat([
        normal[torch.randint(len(normal), (steps, size - half), generator=generator)],
        anomaly[torch.randint(len(anomaly), (steps, half), generator=generator)],
    ], dim=1)  # fmt: skip


class _Optimiser:
    """AdamW with a one-cycle rate and clipped gradients, on one flat tensor.

    On small networks the time of a step is the number of tensors, not of their elements: while this lives, parameters
    and gradients are views of two flat tensors. :meth:`release` gives every parameter memory of its own again.

    Args:
        network: what is trained. free: parameters whose name has one of these parts are not decayed.
    """

    CLIP = 5.0  # of the gradient's norm

    def __init__(self, network, lr, weight_decay, steps, free=()):
        named = sorted(network.named_parameters(), key=lambda item: any(part in item[0] for part in free))
        self.parameters = [p for _, p in named]
        n_decayed = sum(p.numel() for name, p in named if not any(part in name for part in free))
        flat = torch.cat([p.detach().flatten() for p in self.parameters])
        self.grad, start = torch.zeros_like(flat), 0
        for p in self.parameters:
            part = slice(start, start + p.numel())
            p.data, p.grad = flat[part].view_as(p), self.grad[part].view_as(p)
            start = part.stop
        groups = [{"params": [flat[:n_decayed]], "weight_decay": weight_decay},
                  {"params": [flat[n_decayed:]], "weight_decay": 0.0}]  # fmt: skip
        for group, part in zip(groups, (self.grad[:n_decayed], self.grad[n_decayed:]), strict=True):
            group["params"][0].grad = part
        self.adamw = torch.optim.AdamW([g for g in groups if g["params"][0].numel()], lr=lr, fused=True)
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(self.adamw, max_lr=lr, total_steps=steps)

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
        self.schedule.last_epoch = step  # all else that the rate depends on is in the optimiser's groups

    def release(self):
        for p in self.parameters:
            p.data, p.grad = p.data.clone(), None


def _steps(stage, steps, network, optimiser, history, generator, store):
    """Yield the numbers of the steps that are left, and keep in the store how far the training is.

    The loop's body appends one entry to ``history`` per step. A stage that is finished has no step left: its network,
    generators and history are put in place, and the body never runs.
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
            store.put(stage, {
                "network": pack_network(network)["state"], "optimiser": None if finished else optimiser.state(),
                "generator": generator.get_state(), "global_generator": torch.get_rng_state(), "history": history,
            }, step + 1, steps)  # fmt: skip


def train_cvae(X, y, seed, stage="cvae", cvae=None, steps=200, batch=128, lr=2e-3, d_latent=None, beta=0.2,
               progress=silent, store=NO_STORE):  # fmt: skip
    """Train (or refresh, when ``cvae`` is given) the Beta C-VAE on rows X (n, d) with labels y (n,) (M2).

    Args:
        X: float32 tensor of standardised rows. y: int64 tensor; one class alone is allowed.
        seed, stage: name the random stream. d_latent: None takes min(16, d). beta: weight of the KL term.
        store: where the training goes on from and leaves its state, by the stage's name.

    Returns:
        The network in eval mode and its history, a list of (reconstruction, KL) per step.

    Raises:
        FloatingPointError: naming the step and the parts when the loss is not finite.
    """
    with seeded(seed, stage) as generator:
        if cvae is None:
            d = X.shape[1]
            cvae = BetaCVAE(d, d_latent=d_latent or min(16, d), d_hidden=64 if d <= 128 else 256, beta=beta)
        cvae.to(X.device).train()
        normal, anomaly = (y == 0).nonzero().squeeze(1), (y == 1).nonzero().squeeze(1)
        normal, anomaly = (normal, anomaly) if len(normal) and len(anomaly) else (torch.arange(len(y)),) * 2
        rows = _half_and_half(normal, anomaly, steps, batch, generator).to(X.device)  # (steps, B)
        optimiser, history = _Optimiser(cvae, lr, 1e-4, steps), []
        for step in _steps(stage, steps, cvae, optimiser, history, generator, store):
            loss = cvae.loss(X[rows[step]], y[rows[step]], generator)
            history.append((loss.reconstruction.item(), loss.kl.item()))
            _check_finite(sum(history[-1]), stage, step, reconstruction=history[-1][0], kl=history[-1][1])
            optimiser.step(loss.total)
            progress(stage, step + 1, steps, reconstruction=history[-1][0], kl=history[-1][1])
        optimiser.release()
    return cvae.eval(), history


def stratified_folds(y, n_folds, seed, stage="folds"):
    """Fold number of every row, (n,): both classes spread evenly over the folds."""
    rng = np.random.default_rng(stage_seed(seed, stage))
    folds = np.zeros(len(y), dtype=np.int64)
    for label in (0, 1):
        rows = rng.permutation(np.flatnonzero(np.asarray(y) == label))
        folds[rows] = np.arange(len(rows)) % n_folds
    return folds


# What Mamba's authors keep free of weight decay.
NOT_DECAYED = ("A_log", "/D", ".D", "bias", "norm")


def _partners(fold, generator):
    """For every row of every batch another row of the same fold (itself when it is alone): (steps, B) like ``fold``."""
    key = fold.double() + 0.999 * torch.rand(fold.shape, generator=generator, dtype=torch.float64)
    order = torch.argsort(key, dim=1)  # rows of a fold are neighbours, in random order within it
    ordered = fold.gather(1, order)
    first = torch.searchsorted(ordered, ordered)  # where this row's fold begins
    following = torch.arange(1, fold.shape[1] + 1).clamp(max=fold.shape[1] - 1)
    same = ordered[:, following] == ordered
    same[:, -1] = False
    partner = torch.empty_like(order)
    return partner.scatter(1, order, order.gather(1, torch.where(same, following, first)))


def train_detector(X, y, seed, stage="detector", detector=None, synthetic=None, synthetic_share=0.2, n_experts=1, k=1,
                   folds=None, steps=300, batch=64, lr=3e-3, weight_decay=0.05, mixup=0.4, own_weight=1.0,
                   balance_weight=0.02, backend="auto", progress=silent, store=NO_STORE,
                   **expert_settings):  # fmt: skip
    """Train (or refresh, when ``detector`` is given) a mixture of Mamba experts on real and generated rows (M8, M9).

    Args:
        X: (n, d) float32 tensor. y: (n,) int64, 1 for the known anomalies.
        synthetic: (m, d) generated anomalies or None; they fill ``synthetic_share`` of the anomaly half of a batch.
        folds: (n,) int64 or None. With folds, expert j never learns from a row of fold j mod F (F is the number of
            folds), which makes its logits on those rows honest (see :func:`out_of_fold`).
        own_weight: weight of the experts' own loss. Every expert also learns from every row it may see, routed or not,
            so that none starves: the third cure for winner-take-all. # DIFF(paper): not described there.
        backend: of the experts, see :func:`model.choose_backend`. store: as in :func:`train_cvae`.

    Returns:
        The detector in eval mode and its history, a list of (loss, balance loss) per step.

    Raises:
        FloatingPointError: naming the step and the parts when the loss is not finite.
    """
    with seeded(seed, stage) as generator:
        if detector is None:
            detector = MoEDetector(X.shape[1], n_experts=n_experts, k=k, **expert_settings)
        detector.to(X.device).train()
        # Resolved once: looking for kernels that are not there would cost every step a search of the path.
        detector.experts.backend = choose_backend(backend, X.device)
        E = detector.n_experts
        normal, anomaly = (y == 0).nonzero().squeeze(1).cpu(), (y == 1).nonzero().squeeze(1).cpu()
        n_synthetic = 0 if synthetic is None else len(synthetic)
        n_fake = round(batch // 2 * synthetic_share) if n_synthetic else 0
        source = torch.cat([X, synthetic]) if n_fake else X  # (n + m, d)
        # Everything random is drawn before the first step: drawing little by little costs more than a small step.
        rows = _half_and_half(normal, anomaly, steps, batch, generator)  # (steps, B)
        if n_fake:
            rows[:, batch - n_fake :] = len(X) + torch.randint(n_synthetic, (steps, n_fake), generator=generator)
        target = torch.cat([torch.zeros(batch - batch // 2), torch.ones(batch // 2)]).expand(steps, batch)
        fold, n_folds = torch.zeros(len(source), dtype=torch.long), 1
        if folds is not None:
            # Generated rows belong to no real row's fold: they are dealt out by their number.
            n_folds = int(max(folds)) + 1
            fold = torch.cat([torch.as_tensor(folds), torch.arange(len(source) - len(X)) % n_folds])
        fold = fold[rows]  # (steps, B)
        allowed = None
        share = torch.full((E, 1), 1.0 / (E * batch), device=X.device).expand(steps, E, 1)  # of a row in the own loss
        if n_folds > 1:
            allowed = (fold[..., None] != torch.arange(E) % n_folds).to(X.device)  # (steps, B, E)
            share = (allowed / allowed.sum((1, 2), keepdim=True)).transpose(1, 2)  # (steps, E, B)
        if mixup > 0:
            rng = np.random.default_rng(stage_seed(seed, stage + "/mixup"))
            weight = torch.from_numpy(rng.beta(mixup, mixup, size=(steps, batch)).astype(np.float32))
            partner = _partners(fold, generator)
            target = torch.lerp(target.gather(1, partner), target, weight)
            partner, weight = rows.gather(1, partner).to(X.device), weight[..., None].to(X.device)
        rows, target = rows.to(X.device), target.to(X.device)
        optimiser = _Optimiser(detector, lr, weight_decay, steps, NOT_DECAYED)
        history = []
        for step in _steps(stage, steps, detector, optimiser, history, generator, store):
            inputs = source[rows[step]]  # (B, d)
            if mixup > 0:
                inputs = torch.lerp(source[partner[step]], inputs, weight[step])
            out = detector(inputs, None if allowed is None else allowed[step], generator)
            mixture = F.binary_cross_entropy_with_logits(out.logit, target[step])
            balance = out.router.balance_loss
            loss = mixture + balance_weight * balance
            if E > 1:
                each = target[step].expand(E, -1)  # (E, B)
                loss = loss + own_weight * F.binary_cross_entropy_with_logits(
                    out.expert_logits, each, share[step], reduction="sum"
                )
            history.append((mixture.item(), balance.item()))
            _check_finite(loss.item(), stage, step, mixture=history[-1][0], balance=history[-1][1])
            optimiser.step(loss)
            progress(stage, step + 1, steps, loss=history[-1][0], balance=history[-1][1])
        optimiser.release()
    return detector.eval(), history


@torch.no_grad()
def out_of_fold(detector, X, folds):
    """Logits (n,) of training rows by the experts that never learned from them.

    A row of fold f is scored by the experts j with j mod F = f, weighted by the router among those. Needs at least as
    many experts as folds.
    """
    folds = torch.as_tensor(folds)
    n_folds, E = int(folds.max()) + 1, detector.n_experts
    if n_folds > E:
        raise ValueError(f"{E} experts cannot leave out {n_folds} folds: use at most {E} folds")
    logits = torch.empty(len(X), device=X.device)
    for fold in range(n_folds):
        own = torch.arange(fold, E, n_folds)
        for rows in (folds == fold).nonzero().squeeze(1).split(4096):
            inputs = X[rows.to(X.device)]
            gates = detector.router.clean(inputs)[:, own]  # (B, E / F)
            top = gates.topk(min(detector.router.k, len(own)), dim=1)
            gates = torch.zeros_like(gates).scatter(1, top.indices, top.values.softmax(1))
            each = torch.stack([detector.experts(inputs, slice(j, j + 1))[0] for j in own.tolist()], dim=1)
            logits[rows.to(X.device)] = (gates * each).sum(1)
    return logits


def choose_n_experts(X, n_folds=4):
    """The number of experts that a table's complexity asks for (M9), as an explicit rule.

    Complexity is the effective rank of the standardised features, exp(entropy of the normalised eigenvalues of their
    correlation matrix): the number of directions a table really varies in. The rule is 4 experts up to an effective
    rank of 16, doubled at each fourfold of it, at most 16; and never more than one expert per 64 training rows, since
    each needs rows to learn from, with 4 as the floor (one per fold).

    Args:
        X: (n, d) array of standardised training rows.

    Returns:
        4, 8 or 16, and the effective rank it was derived from.
    """
    X = np.asarray(X, dtype=np.float64)
    rows = X[np.linspace(0, len(X) - 1, min(len(X), 4096)).astype(int)]
    values = np.clip(np.linalg.svd(rows - rows.mean(0), compute_uv=False), 0, None) ** 2
    share = values[values > 0] / max(values.sum(), 1e-300)
    rank = float(np.exp(-(share * np.log(share)).sum())) if len(share) else 1.0
    wanted = n_folds * 2 ** max(0, math.ceil(math.log(max(rank, 1e-9) / 16, 4)))
    most = n_folds * 2 ** max(0, math.floor(math.log2(max(1, len(X) // 64 / n_folds))))
    return int(min(wanted, most, 16)), rank
