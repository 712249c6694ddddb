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

from model import BetaCVAE, MoEDetector, choose_backend


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


def history_log(stage, history, *names):
    """Every 20th step of a training history as dicts for log.jsonl; ``names`` name the leading entries of a step."""
    return [{"stage": stage, "step": i + 1, **dict(zip(names, losses, strict=False))}
            for i, losses in enumerate(history) if i % 20 == 19]  # fmt: skip


def _check_finite(loss, stage, step, **parts):
    if not torch.isfinite(loss):
        named = ", ".join(f"{name}={value.item():.4g}" for name, value in parts.items())
        raise FloatingPointError(f"{stage}: the loss is {loss.item()} at step {step} ({named})")


def _half_and_half(normal, anomaly, size, generator):
    """Row numbers of a batch with as many anomalies as normals, drawn with replacement: (size,)."""
    half = size // 2
    return torch.cat([
        normal[torch.randint(len(normal), (size - half,), generator=generator)],
        anomaly[torch.randint(len(anomaly), (half,), generator=generator)],
    ])  # fmt: skip


def train_cvae(X, y, seed, stage="cvae", cvae=None, steps=300, batch=128, lr=2e-3, d_latent=None, beta=0.2,
               progress=silent):  # fmt: skip
    """Train (or refresh, when ``cvae`` is given) the Beta C-VAE on rows X (n, d) with labels y (n,) (M2).

    Args:
        X: float32 tensor of standardised rows. y: int64 tensor; one class alone is allowed.
        seed, stage: name the random stream. d_latent: None takes min(16, d). beta: weight of the KL term.

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
        optimiser = torch.optim.AdamW(cvae.parameters(), lr=lr, weight_decay=1e-4, fused=True)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=lr, total_steps=steps)
        history = []
        for step in range(steps):
            rows = _half_and_half(normal, anomaly, batch, generator).to(X.device)
            loss = cvae.loss(X[rows], y[rows], generator)
            _check_finite(loss.total, stage, step, reconstruction=loss.reconstruction, kl=loss.kl)
            optimiser.zero_grad()
            loss.total.backward()
            torch.nn.utils.clip_grad_norm_(cvae.parameters(), 5.0)
            optimiser.step()
            schedule.step()
            history.append((loss.reconstruction.item(), loss.kl.item()))
            progress(stage, step + 1, steps, reconstruction=history[-1][0], kl=history[-1][1])
    return cvae.eval(), history


def stratified_folds(y, n_folds, seed, stage="folds"):
    """Fold number of every row, (n,): both classes spread evenly over the folds."""
    rng = np.random.default_rng(stage_seed(seed, stage))
    folds = np.zeros(len(y), dtype=np.int64)
    for label in (0, 1):
        rows = rng.permutation(np.flatnonzero(np.asarray(y) == label))
        folds[rows] = np.arange(len(rows)) % n_folds
    return folds


def _partners(fold, generator):
    """For every row of a batch another row of the same fold (itself when it is alone): (B,)."""
    key = fold.double() + 0.999 * torch.rand(len(fold), generator=generator, dtype=torch.float64)
    order = torch.argsort(key)  # rows of a fold are neighbours, in random order within it
    ordered = fold[order]
    first = torch.searchsorted(ordered, ordered)  # where this row's fold begins
    following = torch.arange(1, len(fold) + 1)
    same = (following < len(fold)) & (ordered[following.clamp(max=len(fold) - 1)] == ordered)
    partner = torch.empty_like(order)
    partner[order] = order[torch.where(same, following, first)]
    return partner


def _optimiser(detector, lr, weight_decay):
    """AdamW without decay on what Mamba's authors keep free of it (A_log, D, biases, norms)."""
    free = ("A_log", "/D", ".D", "bias", "norm")
    groups = [
        {"params": [p for n, p in detector.named_parameters() if any(f in n for f in free)], "weight_decay": 0.0},
        {"params": [p for n, p in detector.named_parameters() if not any(f in n for f in free)],
         "weight_decay": weight_decay},
    ]  # fmt: skip
    return torch.optim.AdamW(groups, lr=lr, fused=True)


def train_detector(X, y, seed, stage="detector", detector=None, synthetic=None, synthetic_share=0.2, n_experts=1, k=1,
                   folds=None, steps=300, batch=64, lr=3e-3, weight_decay=0.05, mixup=0.4, own_weight=1.0,
                   balance_weight=0.02, backend="auto", progress=silent, **expert_settings):  # fmt: skip
    """Train (or refresh, when ``detector`` is given) a mixture of Mamba experts on real and generated rows (M8, M9).

    Args:
        X: (n, d) float32 tensor. y: (n,) int64, 1 for the known anomalies.
        synthetic: (m, d) generated anomalies or None; they fill ``synthetic_share`` of the anomaly half of a batch.
        folds: (n,) int64 or None. With folds, expert j never learns from a row of fold j mod F (F is the number of
            folds), which makes its logits on those rows honest (see :func:`out_of_fold`).
        own_weight: weight of the experts' own loss. Every expert also learns from every row it may see, routed or not,
            so that none starves: the third cure for winner-take-all. # DIFF(paper): not described there.

    Returns:
        The detector in eval mode and its history, a list of (loss, balance loss) per step.

    Raises:
        FloatingPointError: naming the step and the parts when the loss is not finite.
    """
    with seeded(seed, stage) as generator:
        if detector is None:
            detector = MoEDetector(X.shape[1], n_experts=n_experts, k=k, **expert_settings)
        detector.to(X.device).train()
        detector.experts.backend = choose_backend(backend) if X.is_cuda else "torch"
        E = detector.n_experts
        normal, anomaly = (y == 0).nonzero().squeeze(1).cpu(), (y == 1).nonzero().squeeze(1).cpu()
        n_synthetic = 0 if synthetic is None else len(synthetic)
        n_fake = round(batch // 2 * synthetic_share) if n_synthetic else 0
        fold_of = torch.as_tensor(folds) if folds is not None else None
        n_folds = int(fold_of.max()) + 1 if folds is not None else 1
        expert_fold = torch.arange(E) % n_folds
        optimiser = _optimiser(detector, lr, weight_decay)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=lr, total_steps=steps)
        rng, history = np.random.default_rng(stage_seed(seed, stage + "/mixup")), []
        for step in range(steps):
            rows = _half_and_half(normal, anomaly, batch, generator)
            target = torch.cat([torch.zeros(batch - batch // 2), torch.ones(batch // 2)])
            inputs = X[rows.to(X.device)]  # (B, d)
            fold = fold_of[rows] if fold_of is not None else torch.zeros(batch, dtype=torch.long)
            if n_fake:
                fake = torch.randint(n_synthetic, (n_fake,), generator=generator)
                inputs = torch.cat([inputs[:-n_fake], synthetic[fake.to(X.device)]])
                # Generated rows belong to no real row's fold: they are dealt out by their number.
                fold = torch.cat([fold[:-n_fake], fake % n_folds])
            if mixup > 0:
                weight = torch.from_numpy(rng.beta(mixup, mixup, size=batch).astype(np.float32))
                partner = _partners(fold, generator)
                mixed = inputs[partner.to(X.device)]
                inputs = mixed + weight.to(X.device)[:, None] * (inputs - mixed)
                target = weight * target + (1 - weight) * target[partner]
            allowed = None
            if n_folds > 1:
                allowed = (fold[:, None] != expert_fold).to(X.device)  # (B, E)
            target = target.to(X.device)
            out = detector(inputs, allowed, generator)
            mixture = F.binary_cross_entropy_with_logits(out.logit, target)
            own = F.binary_cross_entropy_with_logits(
                out.expert_logits, target.expand(E, -1), reduction="none"
            )  # (E, B)
            own = own.mean() if allowed is None else (own * allowed.T).sum() / allowed.sum()
            loss = mixture + (own_weight * own if E > 1 else 0.0) + balance_weight * out.router.balance_loss
            _check_finite(loss, stage, step, mixture=mixture, own=own, balance=out.router.balance_loss)
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(detector.parameters(), 5.0)
            optimiser.step()
            schedule.step()
            history.append((mixture.item(), out.router.balance_loss.item()))
            progress(stage, step + 1, steps, loss=history[-1][0], balance=history[-1][1])
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
