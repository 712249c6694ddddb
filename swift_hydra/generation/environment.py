"""The agent that generates anomalies: reward (M4), feasible action (M5), PPO (M6), filter and top-l
selection (M7).

A rollout starts at a training row, its latent z = E[z | x, y = 1], a temperature tau and a sparsity
rho. In each of a few steps the policy moves all of them by a bounded amount. At the end the row is
decoded:

    x^ = x + p(x | z', 1) - p(x | z, 1) + tau * s(x) * direction

with a random direction on a share rho of the features, and s(x) the row's own distance to its five
nearest normals. The last term samples the decoder instead of taking its mean. # DIFF(paper): the
paper decodes the mean of p(x | z', 1) from labelled anomalies only. A mean lies on the data's
manifold, and a set made of means spans few directions; starts at normals and samples around the row
restore coverage.

Reward of a rollout, given once at its end (M4):

    R = gamma^episode * weight * H - log W(x^) - penalty * [infeasible]        H = (novelty +
    coverage) / 2

novelty is -log p_KDE(x^), bounded; coverage is the marginal gain of x^ in the log-determinant of
the kernel matrix of data and candidates: what x^ adds to the entropy of the set that all the others
have not. # DIFF(paper): the paper names H(D u {x^}) without an estimator; without the coverage term
a policy collapses onto a few directions.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F

from swift_hydra.generation.reward import MAX_REFERENCE, Coverage, Feasibility, Novelty, Reward

STEP = {
    "z": 1.0,
    "log_tau": 0.7,
    "logit_rho": 1.0,
}  # largest change of one step in each part of the state
CEILING = 4.0  # of -log W: a candidate the detector is sure to miss is worth no more than this


class LatentEnvironment:
    """Rollouts in the C-VAE's latent space: state, bounded step, decoding and reward (M4).

    Args:
        X: (n, d) tensor of training rows.
        y: (n,) labels.
        cvae, detector: trained networks; the detector's logit is read, nothing else of it.
        n_steps: steps of a rollout.
        anomaly_share: share of rollouts that start at a known anomaly.
        diversity: weight of H in the reward.
        penalty: taken from infeasible candidates.
        quantile: bound of the filter.
        coverage, deception: False drops that term of the reward (for ablations).
    """

    def __init__(
        self,
        X,
        y,
        cvae,
        detector,
        rng,
        n_steps=2,
        anomaly_share=0.25,
        diversity=4.0,
        penalty=2.0,
        quantile=0.9,
        coverage=True,
        deception=True,
    ):
        self.X, self.cvae, self.detector = X, cvae, detector
        self.n_steps, self.diversity, self.penalty = n_steps, diversity, penalty
        self.use_coverage, self.use_deception = coverage, deception
        normal, anomaly = np.flatnonzero(y.numpy() == 0), np.flatnonzero(y.numpy() == 1)
        self.normals = np.sort(rng.permutation(normal)[: 8 * MAX_REFERENCE])
        self.anomalies = anomaly
        self.anomaly_share = anomaly_share
        self.feasible = Feasibility(X.numpy()[self.normals], quantile)
        self.scales = {
            0: self.feasible.distance(X.numpy()[self.normals], np.arange(len(self.normals))),
            1: self.feasible.distance(X.numpy()[anomaly]),
        }
        # A row on top of its neighbours (duplicates) still has to move: the table's typical scale
        # is its floor.
        floor = 0.1 * float(np.median(self.scales[0])) + 1e-3
        self.scales = {label: np.maximum(scale, floor) for label, scale in self.scales.items()}
        keep = np.sort(rng.permutation(len(X))[:MAX_REFERENCE])
        self.novelty = Novelty(X[torch.from_numpy(keep)])
        self.covered = Coverage(
            X[torch.from_numpy(np.sort(rng.permutation(len(X))[: MAX_REFERENCE // 4]))]
        )
        self.d_latent = cvae.d_latent
        self.d_state, self.d_action = self.d_latent + 5, self.d_latent + 2

    def reset(self, count, weight, generator):
        """Start ``count`` rollouts; ``weight`` is gamma^episode, which the policy sees."""
        n_anomalous = round(count * self.anomaly_share)
        pick = torch.randint(len(self.normals), (count - n_anomalous,), generator=generator).numpy()
        pick_a = torch.randint(len(self.anomalies), (n_anomalous,), generator=generator).numpy()
        rows = np.concatenate([self.normals[pick], self.anomalies[pick_a]])
        scale = np.concatenate([self.scales[0][pick], self.scales[1][pick_a]])
        self.base = self.X[torch.from_numpy(rows)]  # (B, d)
        self.scale = torch.from_numpy(scale).float()  # (B,)
        self.labels = torch.ones(count)
        with torch.no_grad():
            self.start = self.cvae.encode(self.base, self.labels)[0]  # (B, d_latent)
            self.decoded_start = self.cvae.decode(self.start, self.labels)  # (B, d)
        self.z = self.start.clone()
        self.log_tau = torch.rand(count, generator=generator) * math.log(8.0)
        self.logit_rho = torch.logit(torch.rand(count, generator=generator), eps=1e-3)
        self.ticket = torch.rand(
            self.base.shape, generator=generator
        )  # a feature moves when its ticket is below rho
        self.noise = torch.randn(self.base.shape, generator=generator)
        self.weight, self.t = weight, 0
        return self.state()

    def state(self):
        """(B, d_latent + 5): z, log tau, logit rho, log s(x), gamma^episode, share of the steps
        done.
        """
        rest = [
            self.log_tau,
            self.logit_rho / 3,
            self.scale.log(),
            torch.full_like(self.log_tau, self.weight),
            torch.full_like(self.log_tau, self.t / self.n_steps),
        ]
        return torch.cat([self.z, torch.stack(rest, 1)], dim=1)

    def step(self, action):
        """Move by a bounded amount. Returns the next state; :meth:`reward` follows the last step."""
        bounded = torch.tanh(action)
        self.z = self.z + STEP["z"] * bounded[:, : self.d_latent]
        self.log_tau = self.log_tau + STEP["log_tau"] * bounded[:, self.d_latent]
        self.logit_rho = self.logit_rho + STEP["logit_rho"] * bounded[:, self.d_latent + 1]
        self.t += 1
        return self.state()

    def decode(self, z=None):
        """Candidates x^ (B, d) of the current state; differentiable in ``z``."""
        z = self.z if z is None else z
        rho = torch.sigmoid(self.logit_rho)[:, None]
        moved = self.ticket <= torch.maximum(
            rho, self.ticket.min(1, keepdim=True).values
        )  # at least one feature
        direction = self.noise * moved
        direction = direction / direction.norm(dim=1, keepdim=True).clamp(min=1e-6)
        sampled = (self.log_tau.exp() * self.scale)[:, None] * direction
        return (self.base + self.cvae.decode(z, self.labels) - self.decoded_start + sampled).clamp(
            -5.0, 5.0
        )

    def differentiable_reward(self, x):
        """The smooth part of R, for the gradient: no coverage (it belongs to the set), no hard
        filter.
        """
        reward = self.weight * self.diversity * 0.5 * self.novelty(x)
        if self.use_deception:
            reward = reward + F.softplus(-self.detector(x).logit).clamp(max=CEILING)
        return reward

    @torch.no_grad()
    def reward(self, x):
        """R of candidates (B, d) as one set (M4)."""
        novelty = self.novelty(x)
        coverage = self.covered.leave_one_out(x) if self.use_coverage else torch.zeros(len(x))
        deception = F.softplus(-self.detector.score(x)).clamp(max=CEILING)
        feasible = torch.from_numpy(self.feasible(x))
        total = (
            self.weight * self.diversity * 0.5 * (novelty + coverage)
            - self.penalty * (~feasible).float()
        )
        if self.use_deception:
            total = total + deception
        return Reward(total, novelty, coverage, deception, feasible)

    def gradient_action(self):
        """One step to a feasible action (M5): ascend R in z; temperature and sparsity stay. Returns
        (B, d_action).
        """
        z = self.z.detach().requires_grad_(True)
        (slope,) = torch.autograd.grad(self.differentiable_reward(self.decode(z)).sum(), z)
        unit = slope / slope.norm(dim=1, keepdim=True).clamp(min=1e-8)
        # The longest coordinate of the step becomes .9 of the bound; atanh undoes the environment's
        # tanh.
        bounded = 0.9 * unit / unit.abs().amax(1, keepdim=True).clamp(min=1e-8)
        return torch.cat([torch.atanh(bounded), torch.zeros(len(z), 2)], dim=1)
