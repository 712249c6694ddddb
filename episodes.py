"""The self-reinforcing episodes (M8): propose anomalies, keep the best, learn from them, propose again.

``GENERATORS`` is the ablation ladder; every rung meets the same filter (M7) and delivers the same number of rows:

    rl        the policy of policy.py, warmed up by gradient steps, top-l by reward with coverage   (M4-M7)
    gradient  no policy: gradient ascent on z along R, decoded with y = 1, top-l by R               (M5)
    cvae      no reward: z drawn from the prior N(0, I), decoded with y = 1                          (M2)
    noise     no network: a normal row moved in a random direction on a random share of its features
    none      no generated rows

Controls, for the benchmark: rungs that a generator has to beat to be worth its name.

    search      random search: random actions in place of the policy, the same budget and selection as rl
    uniform     uniform in the box of the training rows
    smote       between a known anomaly and one of its nearest known anomalies (Chawla et al. 2002), not filtered
    oversample  copies of known anomalies, not filtered
"""

import math
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from config import InputError
from model import BetaCVAE, MoEDetector, pack_network, unpack_network
from policy import Coverage, LatentAgent, LatentEnvironment, effective_rank, random_rollout
from training import NO_STORE, seeded, silent, stage_seed, train_cvae, train_detector

GENERATORS = ("rl", "gradient", "cvae", "noise", "none", "search", "uniform", "smote", "oversample")
N_CANDIDATES = 1024  # proposals of an episode
SHOWN = ("reward", "novelty", "coverage", "deception", "feasible", "effective_rank")  # of an episode, while it runs
GAMMA = 0.6  # reward weight of diversity in episode e is GAMMA ** e
LOSS_ROWS = 4096  # most normals of the logged detector loss


class Generated(NamedTuple):
    rows: torch.Tensor  # (n, d) standardised anomalies
    log: list  # one dict per episode, plain numbers


def generate_anomalies(X, y, cvae, detector, seed, kind="rl", n_synthetic=None, n_episodes=5, progress=silent,
                       store=NO_STORE, warm_up=True, **environment_settings):  # fmt: skip
    """Generate anomalies from standardised training rows (M4-M8).

    Args:
        X: (n, d) float32 tensor. y: (n,) int64. cvae, detector: pretrained; refreshed copies are used, these stay.
        kind: one of ``GENERATORS``. n_synthetic: rows wanted; None takes what balances the classes, between 400 and
            1000 (fewer than 400 leave the detector to memorise them, more changed nothing that was measured).
        store: where finished episodes go to, and where they are taken from; the other rungs take no time worth it.
        n_episodes: episodes of "rl", "search" and "gradient"; the other rungs learn nothing from one and use one.
        warm_up: give early rollouts of "rl" gradient actions (M5). environment_settings: see ``LatentEnvironment``.

    Returns:
        A :class:`Generated`. Fewer rows than wanted when too few candidates pass the filter; the log says how many.

    Raises:
        ValueError: for an unknown ``kind``.
    """
    if kind not in GENERATORS:
        raise ValueError(f"generator must be one of {', '.join(GENERATORS)}, however: {kind!r}")
    if kind == "none":
        return Generated(X[:0], [])
    saved = store.get("episodes")
    if saved is not None and saved["finished"]:
        return Generated(saved["accepted"], saved["log"])
    n_anomalies = int((y == 1).sum())
    wanted = n_synthetic or int(np.clip(len(y) - 2 * n_anomalies, 400, 1000))
    rng = np.random.default_rng(stage_seed(seed, f"generate/{kind}"))
    with seeded(seed, f"generate/{kind}") as generator:
        if kind in ("smote", "oversample"):
            return _copied(X, y, kind, wanted, seed, generator)
        environment = LatentEnvironment(X, y, cvae, detector, rng, **environment_settings)
        if kind in ("noise", "cvae", "uniform"):
            return _draw_filtered(environment, kind, wanted, generator)
        agent = LatentAgent(environment) if kind == "rl" else None
        accepted, log = X[:0], []
        if saved is not None:
            accepted, log = saved["accepted"], saved["log"]
            _load_state(saved, environment, agent, generator)
        for episode in range(len(log), n_episodes):
            weight = GAMMA**episode
            detector_loss = _detector_loss(environment.detector, X, y, accepted)
            if kind == "rl":
                x, reward, batch = agent.rollout(environment, N_CANDIDATES, weight, weight / 2 * warm_up, generator)
                loss = agent.update(batch, generator)
            elif kind == "search":
                x, reward, loss = *random_rollout(environment, N_CANDIDATES, weight, generator), None
            else:
                x, reward, loss = *_gradient_candidates(environment, weight, generator), None
            moved = (environment.z - environment.start).norm(dim=1).mean()
            share = math.ceil((wanted - len(accepted)) / (n_episodes - episode))
            open_ = reward.feasible.nonzero().squeeze(1)
            score = reward.total[open_] - environment.diversity * weight * 0.5 * reward.coverage[open_]
            use_coverage = environment.diversity * weight * 0.5 * (kind != "gradient" and environment.use_coverage)
            if len(open_):
                covered = Coverage(torch.cat([environment.covered.data, accepted[-256:]]))
                covered.width = environment.covered.width
                accepted = torch.cat([accepted, x[open_[covered.select(x[open_], score, share, use_coverage)]]])
            log.append({
                "episode": episode, "diversity_weight": weight, "reward": float(reward.total.mean()),
                "novelty": float(reward.novelty.mean()), "coverage": float(reward.coverage.mean()),
                "deception": float(reward.deception.mean()), "feasible": float(reward.feasible.float().mean()),
                "detector_loss": detector_loss, "latent_step": float(moved), "accepted": len(accepted),
                "effective_rank": effective_rank(accepted) if len(accepted) > 1 else 0.0,
            })  # fmt: skip
            if loss is not None:
                log[-1] |= {"policy_loss": loss.policy.item(), "value_loss": loss.value.item(),
                            "policy_entropy": loss.entropy.item(), "approx_kl": loss.approx_kl.item()}  # fmt: skip
            progress("episodes", episode + 1, n_episodes, **{name: log[-1][name] for name in SHOWN})
            finished = len(accepted) >= wanted or episode == n_episodes - 1
            if not finished:
                _refresh(environment, X, y, accepted, seed, f"{kind}/{episode}")
            store.put("episodes", {"finished": finished, "accepted": accepted, "log": log,
                                   **_state(environment, agent, generator)}, episode + 1, n_episodes)  # fmt: skip
            if finished:
                break
    return Generated(accepted, log)


@torch.no_grad()
def _detector_loss(detector, X, y, accepted):
    """Cross-entropy of W on what it has learned from so far (training rows, accepted rows), both classes half: nats."""
    normal, anomaly = X[y == 0], torch.cat([X[y == 1], accepted])
    normal = normal[:: math.ceil(len(normal) / LOSS_ROWS)]
    missed = F.softplus(-detector.score(anomaly)).mean() + F.softplus(detector.score(normal)).mean()
    return float(missed) / 2


def _state(environment, agent, generator):
    """All that an episode leaves to the next one."""
    return {
        "cvae": pack_network(environment.cvae), "detector": pack_network(environment.detector),
        "agent": agent.state() if agent else None, "generator": generator.get_state(),
        "global_generator": torch.get_rng_state(),
    }  # fmt: skip


def _load_state(state, environment, agent, generator):
    environment.cvae = unpack_network(BetaCVAE, state["cvae"])
    environment.detector = unpack_network(MoEDetector, state["detector"])
    if agent:
        agent.load_state(state["agent"])
    generator.set_state(state["generator"])
    torch.set_rng_state(state["global_generator"])


def _refresh(environment, X, y, accepted, seed, stage):
    """M8: C-VAE and detector learn from what was accepted before the next episode (copies: the pretrained stay)."""
    rows, labels = torch.cat([X, accepted]), torch.cat([y, torch.ones(len(accepted), dtype=y.dtype)])
    environment.cvae, _ = train_cvae(rows, labels, seed, f"refresh-cvae/{stage}", _copy(environment.cvae), steps=40)
    environment.detector, _ = train_detector(
        X, y, seed, f"refresh-detector/{stage}", _copy(environment.detector), synthetic=accepted, steps=40, lr=1e-3
    )


def _copy(network):
    return unpack_network(type(network), pack_network(network))


def _gradient_candidates(environment, weight, generator, n_steps=8, lr=0.15):
    """Adam on z along the smooth reward, from latents of known anomalies and normals; x^ is the decoder's mean (M5)."""
    environment.reset(N_CANDIDATES, weight, generator)
    with torch.no_grad():
        mean, log_variance = environment.cvae.encode(environment.base, environment.labels)
        # A few anomalies are drawn many times: q(z | x, 1) is sampled, or their candidates would be copies.
        z = mean + (0.5 * log_variance).exp() * torch.randn(mean.shape, generator=generator)
    z.requires_grad_(True)
    optimiser = torch.optim.Adam([z], lr=lr)
    for _ in range(n_steps):
        x = environment.cvae.decode(z, environment.labels).clamp(-5.0, 5.0)
        optimiser.zero_grad()
        (slope,) = torch.autograd.grad(-environment.differentiable_reward(x).sum(), z)
        z.grad = slope
        optimiser.step()
    environment.z = z.detach()
    with torch.no_grad():
        x = environment.cvae.decode(environment.z, environment.labels).clamp(-5.0, 5.0)
    return x, environment.reward(x)


@torch.no_grad()
def _draw_filtered(environment, kind, wanted, generator, most_rounds=20):
    """Rows of the rungs that learn nothing: drawn until enough of them pass the filter."""
    kept, drawn = environment.X[:0], 0
    for _ in range(most_rounds):
        if kind == "noise":
            environment.anomaly_share = 0.0
            environment.reset(N_CANDIDATES, 1.0, generator)
            x = environment.decode()  # no action was taken: the row, plus its random direction
        elif kind == "uniform":
            low, high = environment.X.min(0).values, environment.X.max(0).values
            x = low + (high - low) * torch.rand(N_CANDIDATES, len(low), generator=generator)
        else:
            z = torch.randn(N_CANDIDATES, environment.d_latent, generator=generator)
            x = environment.cvae.decode(z, torch.ones(len(z))).clamp(-5.0, 5.0)
        drawn += len(x)
        kept = torch.cat([kept, x[torch.from_numpy(environment.feasible(x))]])[:wanted]
        if len(kept) == wanted:
            break
    rank = effective_rank(kept) if len(kept) > 1 else 0.0
    return Generated(kept, [{"episode": 0, "drawn": drawn, "accepted": len(kept), "effective_rank": rank}])


def _copied(X, y, kind, wanted, seed, generator):
    """Rows of the rungs that stay among the known anomalies."""
    known = X[y == 1]
    if kind == "oversample" or len(known) == 1:  # SMOTE between one row and itself is a copy
        rows = known[torch.randint(len(known), (wanted,), generator=generator)]
    else:
        try:
            from imblearn.over_sampling import SMOTE
        except ImportError:
            raise InputError("generator 'smote' needs imbalanced-learn: pip install imbalanced-learn") from None
        smote = SMOTE(sampling_strategy={1: len(known) + wanted}, k_neighbors=min(5, len(known) - 1), random_state=seed)
        rows = torch.from_numpy(smote.fit_resample(X.numpy(), y.numpy())[0][len(X) :])  # new rows come last
    return Generated(rows, [{"episode": 0, "accepted": len(rows), "effective_rank": effective_rank(rows)}])
