"""The self-reinforcing episodes (M8): propose anomalies, keep the best, learn from them, propose
again.

``GENERATORS`` is the ablation ladder; every rung meets the same filter (M7) and delivers the same
number of rows:

    rl        the policy of policy.py, warmed up by gradient steps, top-l by reward with coverage
    (M4-M7) gradient  no policy: gradient ascent on z along R, decoded with y = 1, top-l by R
    (M5) cvae      no reward: z drawn from the prior N(0, I), decoded with y = 1
    (M2) noise     no network: a normal row moved in a random direction on a random share of its
    features none      no generated rows

Controls, for the benchmark: rungs that a generator has to beat to be worth its name.

    search      random search: random actions in place of the policy, the same budget and selection
    as rl uniform     uniform in the box of the training rows smote       between a known anomaly
    and one of its nearest known anomalies (Chawla et al. 2002), not filtered oversample  copies of
    known anomalies, not filtered
"""

from typing import NamedTuple

import torch

from swift_hydra.geometry import effective_rank
from swift_hydra.settings import InputError

GENERATORS = ("rl", "gradient", "cvae", "noise", "none", "search", "uniform", "smote", "oversample")
N_CANDIDATES = 1024  # proposals of an episode


class Generated(NamedTuple):
    rows: torch.Tensor  # (n, d) standardised anomalies
    log: list  # one dict per episode, plain numbers


def gradient_candidates(environment, weight, generator, n_steps=8, lr=0.15):
    """Adam on z along the smooth reward, from latents of known anomalies and normals; x^ is the
    decoder's mean (M5).
    """
    environment.reset(N_CANDIDATES, weight, generator)
    with torch.no_grad():
        mean, log_variance = environment.cvae.encode(environment.base, environment.labels)
        # A few anomalies are drawn many times: q(z | x, 1) is sampled, or their candidates would be
        # copies.
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
def draw_filtered(environment, kind, wanted, generator, most_rounds=20):
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
    return Generated(
        kept, [{"episode": 0, "drawn": drawn, "accepted": len(kept), "effective_rank": rank}]
    )


def copied(X, y, kind, wanted, seed, generator):
    """Rows of the rungs that stay among the known anomalies."""
    known = X[y == 1]
    if kind == "oversample" or len(known) == 1:  # SMOTE between one row and itself is a copy
        rows = known[torch.randint(len(known), (wanted,), generator=generator)]
    else:
        try:
            from imblearn.over_sampling import SMOTE
        except ImportError:
            raise InputError(
                "generator 'smote' needs imbalanced-learn: pip install imbalanced-learn"
            ) from None
        smote = SMOTE(
            sampling_strategy={1: len(known) + wanted},
            k_neighbors=min(5, len(known) - 1),
            random_state=seed,
        )
        rows = torch.from_numpy(
            smote.fit_resample(X.numpy(), y.numpy())[0][len(X) :]
        )  # new rows come last
    return Generated(
        rows, [{"episode": 0, "accepted": len(rows), "effective_rank": effective_rank(rows)}]
    )


def random_rollout(environment, count, weight, generator):
    """Random actions within the policy's bounds: random search, the control arm of M6. Returns x^,
    Reward.
    """
    environment.reset(count, weight, generator)
    for _ in range(environment.n_steps):
        environment.step(torch.randn(count, environment.d_action, generator=generator))
    with torch.no_grad():
        x = environment.decode()
    return x, environment.reward(x)
