"""Rollouts in the C-VAE's latent space: start, observation, bounded step, decoding (M4).

A rollout starts at a training row x with latent z = E[z | x, y = 1], a temperature tau and a
sparsity rho. In each of a few steps the policy changes z, tau and rho by a bounded amount. At the
end the candidate is decoded:

    x^ = x + p(x | z', 1) - p(x | z, 1) + tau * s(x) * direction

with a random unit direction on a share rho of the features, and s(x) the row's mean distance to its
five nearest normals. The last term samples around the decoder's mean.

# DIFF(paper): the paper decodes the mean of p(x | z', 1) from labelled anomalies only. Means lie on
the data's manifold, so that a set of them spans few directions; starts at normals and samples
around the row restore coverage.

Shapes: B rollouts, d features.
"""

import math
from dataclasses import dataclass, fields, replace

import numpy as np
import torch

from swift_hydra.generation.reward import (
    MAX_REFERENCE,
    Coverage,
    Feasibility,
    Novelty,
    RewardFunction,
)
from swift_hydra.geometry import BOUND
from swift_hydra.model import BetaCVAE, MoEDetector
from swift_hydra.seeds import sample_of
from swift_hydra.snapshot import pack_network, read_network

# Largest change of one step in each part of the state.
# DIFF(paper): an action there changes z alone; here also temperature and sparsity.
STEP_Z = 1.0
STEP_LOG_TAU = 0.7
STEP_LOGIT_RHO = 1.0


@dataclass(frozen=True)
class Rollout:
    """The state of B rollouts, and what was drawn for them at their start."""

    base: torch.Tensor  # (B, d) the rows x they start at
    scale: torch.Tensor  # (B,) s(x)
    labels: torch.Tensor  # (B,) ones: decoded as anomalies
    start: torch.Tensor  # (B, d_latent) z of the base
    decoded_start: torch.Tensor  # (B, d) p(x | z, 1)
    ticket: torch.Tensor  # (B, d) uniform: the direction has the features with tickets up to rho
    noise: torch.Tensor  # (B, d) normal: the direction before it is masked and normalised
    weight: float  # gamma^episode
    z: torch.Tensor  # (B, d_latent)
    log_tau: torch.Tensor  # (B,)
    logit_rho: torch.Tensor  # (B,)
    t: int = 0  # steps done

    def some(self, rows):
        """The rollouts that ``rows`` picks, numbers or (B,) bool."""
        every = {field.name: getattr(self, field.name) for field in fields(self)}
        picked = {name: v[rows] for name, v in every.items() if torch.is_tensor(v)}
        return replace(self, **picked)


class LatentEnvironment:
    """Rollouts from training rows, and the reward of the candidates they decode to (M4).

    The attributes ``cvae`` and ``detector`` are replaced between episodes, when both networks are
    refreshed. Only the detector's logit is used.

    Args:
        X: (n, d) tensor of training rows.
        y: (n,) labels.
        networks: has ``cvae`` and ``detector``.
        rng: numpy Generator that draws the reference rows.
        n_steps: steps of a rollout.
        anomaly_share: share of rollouts that start at a known anomaly, if there is any.
        quantile: sets the filter's bound, see :class:`generation.reward.Feasibility`.
        reward_settings: weights and switches of :class:`generation.reward.RewardFunction`.
    """

    def __init__(
        self,
        X,
        y,
        networks,
        rng,
        n_steps=2,
        anomaly_share=0.25,
        quantile=0.9,
        **reward_settings,
    ):
        self.X = X
        self.cvae = networks.cvae
        self.detector = networks.detector
        self.n_steps = n_steps
        self.anomaly_share = anomaly_share if y.any() else 0.0
        rows = X.numpy()
        normal, anomaly = (np.flatnonzero(y.numpy() == label) for label in (0, 1))
        self.normals = sample_of(normal, 8 * MAX_REFERENCE, rng)
        self.anomalies = anomaly
        feasible = Feasibility(rows[self.normals], quantile)
        scales = [feasible.own, feasible.distance(rows[anomaly])]
        # A row that coincides with its neighbours (duplicates) still has to move, so a tenth of the
        # table's typical scale is the least.
        floor = 0.1 * float(np.median(scales[0])) + 1e-3
        self.scales = [np.maximum(scale, floor) for scale in scales]
        reference = sample_of(len(X), MAX_REFERENCE, rng)
        covered = sample_of(len(X), MAX_REFERENCE // 4, rng)
        self.reward = RewardFunction(
            Novelty(X[torch.from_numpy(reference)]),
            Coverage(X[torch.from_numpy(covered)]),
            feasible,
            **reward_settings,
        )
        self.d_latent = self.cvae.d_latent
        self.d_state = self.d_latent + 5
        self.d_action = self.d_latent + 2

    @torch.no_grad()
    def reset(self, count, weight, generator, anomaly_share=None):
        """Start rollouts.

        Args:
            count: B.
            weight: gamma^episode, which the policy observes.
            generator: torch Generator.
            anomaly_share: share of starts at known anomalies; None takes the environment's.

        Returns:
            A :class:`Rollout`.
        """
        share = self.anomaly_share if anomaly_share is None else anomaly_share
        n_anomalous = round(count * share)
        counts = (count - n_anomalous, n_anomalous)
        groups = (self.normals, self.anomalies)
        picks = [
            torch.randint(max(len(group), 1), (n,), generator=generator).numpy()
            for group, n in zip(groups, counts, strict=True)
        ]
        rows = np.concatenate([group[pick] for group, pick in zip(groups, picks, strict=True)])
        scale = np.concatenate([s[pick] for s, pick in zip(self.scales, picks, strict=True)])
        base = self.X[torch.from_numpy(rows)]  # (B, d)
        labels = torch.ones(count)
        start = self.cvae.encode(base, labels)[0]  # (B, d_latent)
        log_tau = torch.rand(count, generator=generator) * math.log(8.0)
        logit_rho = torch.logit(torch.rand(count, generator=generator), eps=1e-3)
        return Rollout(
            base=base,
            scale=torch.from_numpy(scale).float(),
            labels=labels,
            start=start,
            decoded_start=self.cvae.decode(start, labels),
            ticket=torch.rand(base.shape, generator=generator),
            noise=torch.randn(base.shape, generator=generator),
            weight=weight,
            z=start.clone(),
            log_tau=log_tau,
            logit_rho=logit_rho,
        )

    def observation(self, at):
        """What the policy observes, (B, d_latent + 5).

        z, log tau, logit rho / 3, log s(x), gamma^episode, share of the steps done.
        """
        rest = [
            at.log_tau,
            at.logit_rho / 3,
            at.scale.log(),
            torch.full_like(at.log_tau, at.weight),
            torch.full_like(at.log_tau, at.t / self.n_steps),
        ]
        return torch.cat([at.z, torch.stack(rest, 1)], dim=1)

    def step(self, at, action):
        """The rollouts after an action (B, d_latent + 2), which changes them by bounded amounts."""
        bounded = torch.tanh(action)
        return replace(
            at,
            z=at.z + STEP_Z * bounded[:, : self.d_latent],
            log_tau=at.log_tau + STEP_LOG_TAU * bounded[:, self.d_latent],
            logit_rho=at.logit_rho + STEP_LOGIT_RHO * bounded[:, self.d_latent + 1],
            t=at.t + 1,
        )

    def decode(self, at):
        """The candidates x^ (B, d) of the rollouts; differentiable in their ``z``."""
        rho = torch.sigmoid(at.logit_rho)[:, None]
        least = at.ticket.min(1, keepdim=True).values
        moved = at.ticket <= torch.maximum(rho, least)  # (B, d), at least one feature
        direction = at.noise * moved
        direction = direction / direction.norm(dim=1, keepdim=True).clamp(min=1e-6)
        sampled = (at.log_tau.exp() * at.scale)[:, None] * direction
        decoded = self.cvae.decode(at.z, at.labels)
        return (at.base + decoded - at.decoded_start + sampled).clamp(-BOUND, BOUND)

    def judge(self, x, weight):
        """The :class:`generation.reward.Reward` of candidates x (B, d), judged as one set."""
        return self.reward(x, self.detector, weight)

    def slope(self, x, weight, z):
        """Gradient in z of the smooth part of R, summed over the candidates x (B, d) made of z."""
        (slope,) = torch.autograd.grad(self.reward.smooth(x, self.detector, weight).sum(), z)
        return slope

    def gradient_action(self, at):
        """The action (B, d_latent + 2) that ascends R in z by one bounded step (M5).

        Temperature and sparsity stay as they are.
        """
        z = at.z.detach().requires_grad_(True)
        slope = self.slope(self.decode(replace(at, z=z)), at.weight, z)
        unit = slope / slope.norm(dim=1, keepdim=True).clamp(min=1e-8)
        # The step's largest coordinate becomes .9 of the bound; atanh inverts the tanh in step().
        bounded = 0.9 * unit / unit.abs().amax(1, keepdim=True).clamp(min=1e-8)
        return torch.cat([torch.atanh(bounded), torch.zeros(len(z), 2)], dim=1)

    def snapshot(self):
        """The networks as tensors and plain values."""
        return {"cvae": pack_network(self.cvae), "detector": pack_network(self.detector)}

    def go_on(self, saved):
        """Restore the networks from what :meth:`snapshot` returned."""
        self.cvae = read_network(BetaCVAE, saved["cvae"])
        self.detector = read_network(MoEDetector, saved["detector"])
