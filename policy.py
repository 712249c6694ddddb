"""The agent that generates anomalies: reward (M4), feasible action (M5), PPO (M6), filter and top-l selection (M7).

A rollout starts at a training row, its latent z = E[z | x, y = 1], a temperature tau and a sparsity rho. In each of a
few steps the policy moves all of them by a bounded amount. At the end the row is decoded:

    x^ = x + p(x | z', 1) - p(x | z, 1) + tau * s(x) * direction

with a random direction on a share rho of the features, and s(x) the row's own distance to its five nearest normals. The
last term samples the decoder instead of taking its mean. # DIFF(paper): the paper decodes the mean of p(x | z', 1) from
labelled anomalies only. A mean lies on the data's manifold, and a set made of means spans few directions; starts at
normals and samples around the row restore coverage.

Reward of a rollout, given once at its end (M4):

    R = gamma^episode * weight * H - log W(x^) - penalty * [infeasible]        H = (novelty + coverage) / 2

novelty is -log p_KDE(x^), bounded; coverage is the marginal gain of x^ in the log-determinant of the kernel matrix of
data and candidates: what x^ adds to the entropy of the set that all the others have not. # DIFF(paper): the paper names
H(D u {x^}) without an estimator; without the coverage term a policy collapses onto a few directions.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from evidence import Neighbours
from model import GaussianPolicy, ValueNet

MAX_REFERENCE = 1024  # rows of the KDE and of the kernel matrix: bounds an n^2 term
STEP = {"z": 1.0, "log_tau": 0.7, "logit_rho": 1.0}  # largest change of one step in each part of the state
CEILING = 4.0  # of -log W: a candidate the detector is sure to miss is worth no more than this


class Reward(NamedTuple):
    total: torch.Tensor  # (B,)
    novelty: torch.Tensor  # (B,) in [0, 1]
    coverage: torch.Tensor  # (B,) in [0, 1]
    deception: torch.Tensor  # (B,) -log W, in [0, CEILING]
    feasible: torch.Tensor  # (B,) bool


class Novelty:
    """-log p_KDE of a row under the training rows, standardised by their own leave-one-out values, in [0, 1] (M4)."""

    def __init__(self, reference):
        self.reference = reference
        distance = torch.cdist(reference, reference)  # (m, m)
        nearest = distance.topk(min(6, len(reference)), largest=False).values[:, 1:]
        self.width = float(nearest.mean(1).median().clamp(min=1e-3))
        logs = -distance.square() / (2 * self.width**2)
        own = -torch.logsumexp(logs.fill_diagonal_(-torch.inf), dim=1)
        self.centre, self.spread = float(own.median()), float(own.std().clamp(min=1.0))

    def __call__(self, x):
        logs = -torch.cdist(x, self.reference).square() / (2 * self.width**2)
        return 0.5 + 0.5 * torch.tanh((-torch.logsumexp(logs, dim=1) - self.centre) / (2 * self.spread))


class Coverage:
    """Marginal gains in log det(K + jitter I), K an RBF kernel as wide as the data's median distance (M4, M7)."""

    JITTER = 1e-2

    def __init__(self, data):
        self.data = data
        self.width = float(torch.pdist(data).median().clamp(min=1e-3)) if len(data) > 1 else 1.0

    def kernel(self, a, b):
        return torch.exp(-torch.cdist(a, b).square() / (2 * self.width**2))

    def scale(self, variance):
        """Conditional variance in [jitter, 1 + jitter] to [0, 1]: 0 says the others know all of it, 1 none of it."""
        return (1.0 - variance.clamp(self.JITTER, 1.0).log() / math.log(self.JITTER)).clamp(0.0, 1.0)

    def leave_one_out(self, x):
        """What each row adds beyond data and all other rows: log det K - log det K without it. (B,) in [0, 1]."""
        rows = torch.cat([x, self.data])
        K = self.kernel(rows, rows)  # the jitter bounds its condition: float32 is enough, and twice as fast
        K.diagonal().add_(self.JITTER)
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(K))
        return self.scale(1.0 / inverse.diagonal()[: len(x)])

    def select(self, x, score, count, weight):
        """Greedy top-l: repeatedly the largest score + weight * marginal gain given all chosen so far (M7).

        Pivoted Cholesky: one column of the factor per choice, O(len(x) * count) in all. Returns row numbers.
        """
        K_dd = self.kernel(self.data, self.data).double()
        K_dd.diagonal().add_(self.JITTER)
        factor = torch.linalg.solve_triangular(
            torch.linalg.cholesky(K_dd), self.kernel(self.data, x).double(), upper=False
        )  # (m, B)
        x64 = x.double()
        variance = 1.0 + self.JITTER - factor.square().sum(0)  # (B,) given the data
        columns, chosen = [factor.T], []  # rows of the Cholesky factor so far
        open_ = torch.ones(len(x), dtype=torch.bool)
        basis = torch.zeros(len(x), count, dtype=torch.float64)
        for t in range(min(count, len(x))):
            gain = score.double() + weight * self.scale(variance)
            best = int(gain.masked_fill(~open_, -torch.inf).argmax())
            chosen.append(best)
            open_[best] = False
            k = torch.exp(-(x64 - x64[best]).square().sum(1) / (2 * self.width**2))  # (B,)
            k = k - columns[0] @ columns[0][best] - basis[:, :t] @ basis[best, :t]
            basis[:, t] = k / variance[best].clamp(min=self.JITTER).sqrt()
            variance = (variance - basis[:, t].square()).clamp(min=self.JITTER)
        return torch.tensor(chosen, dtype=torch.long)


class Feasibility:
    """Rejects a candidate as near to the normals as normals are to each other: a mislabelled normal (M7).

    The bound is the ``quantile`` of the normals' leave-one-out mean distance to five other normals.
    """

    def __init__(self, normals, quantile=0.9):
        self.neighbours = Neighbours(normals)
        own, _ = self.neighbours.query(self.neighbours.reference, 5, own=np.arange(len(normals)))
        self.bound = float(np.quantile(own.mean(1), quantile))

    def distance(self, x, own=None):
        """Mean distance to the five nearest normals, (B,); ``own`` as in :meth:`evidence.Neighbours.query`."""
        return self.neighbours.query(x, 5, own)[0].mean(1)

    def __call__(self, x):
        return self.distance(x.cpu().numpy()) > self.bound


def effective_rank(x):
    """exp(entropy of the covariance spectrum): how many directions a set spans."""
    values = torch.linalg.svdvals(x.double() - x.double().mean(0)).square()
    share = values / values.sum().clamp(min=1e-300)
    return float(torch.exp(-(share * share.clamp(min=1e-300).log()).sum()))


class LatentEnvironment:
    """Rollouts in the C-VAE's latent space: state, bounded step, decoding and reward (M4).

    Args:
        X: (n, d) tensor of training rows. y: (n,) labels.
        cvae, detector: trained networks; the detector's logit is read, nothing else of it.
        n_steps: steps of a rollout. anomaly_share: share of rollouts that start at a known anomaly.
        diversity: weight of H in the reward. penalty: taken from infeasible candidates. quantile: bound of the filter.
        coverage, deception: False drops that term of the reward (for ablations).
    """

    def __init__(self, X, y, cvae, detector, rng, n_steps=2, anomaly_share=0.25, diversity=4.0, penalty=2.0,
                 quantile=0.9, coverage=True, deception=True):  # fmt: skip
        self.X, self.cvae, self.detector = X, cvae, detector
        self.n_steps, self.diversity, self.penalty = n_steps, diversity, penalty
        self.use_coverage, self.use_deception = coverage, deception
        normal, anomaly = np.flatnonzero(y.numpy() == 0), np.flatnonzero(y.numpy() == 1)
        self.normals = np.sort(rng.permutation(normal)[: 8 * MAX_REFERENCE])
        self.anomalies = anomaly
        self.anomaly_share = anomaly_share
        self.feasible = Feasibility(X.numpy()[self.normals], quantile)
        self.scales = {0: self.feasible.distance(X.numpy()[self.normals], np.arange(len(self.normals))),
                       1: self.feasible.distance(X.numpy()[anomaly])}  # fmt: skip
        # A row on top of its neighbours (duplicates) still has to move: the table's typical scale is its floor.
        floor = 0.1 * float(np.median(self.scales[0])) + 1e-3
        self.scales = {label: np.maximum(scale, floor) for label, scale in self.scales.items()}
        keep = np.sort(rng.permutation(len(X))[:MAX_REFERENCE])
        self.novelty = Novelty(X[torch.from_numpy(keep)])
        self.covered = Coverage(X[torch.from_numpy(np.sort(rng.permutation(len(X))[: MAX_REFERENCE // 4]))])
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
        self.ticket = torch.rand(self.base.shape, generator=generator)  # a feature moves when its ticket is below rho
        self.noise = torch.randn(self.base.shape, generator=generator)
        self.weight, self.t = weight, 0
        return self.state()

    def state(self):
        """(B, d_latent + 5): z, log tau, logit rho, log s(x), gamma^episode, share of the steps done."""
        rest = [self.log_tau, self.logit_rho / 3, self.scale.log(), torch.full_like(self.log_tau, self.weight),
                torch.full_like(self.log_tau, self.t / self.n_steps)]  # fmt: skip
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
        moved = self.ticket <= torch.maximum(rho, self.ticket.min(1, keepdim=True).values)  # at least one feature
        direction = self.noise * moved
        direction = direction / direction.norm(dim=1, keepdim=True).clamp(min=1e-6)
        sampled = (self.log_tau.exp() * self.scale)[:, None] * direction
        return (self.base + self.cvae.decode(z, self.labels) - self.decoded_start + sampled).clamp(-5.0, 5.0)

    def differentiable_reward(self, x):
        """The smooth part of R, for the gradient: no coverage (it belongs to the set), no hard filter."""
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
        total = self.weight * self.diversity * 0.5 * (novelty + coverage) - self.penalty * (~feasible).float()
        if self.use_deception:
            total = total + deception
        return Reward(total, novelty, coverage, deception, feasible)

    def gradient_action(self):
        """One step to a feasible action (M5): ascend R in z; temperature and sparsity stay. Returns (B, d_action)."""
        z = self.z.detach().requires_grad_(True)
        (slope,) = torch.autograd.grad(self.differentiable_reward(self.decode(z)).sum(), z)
        unit = slope / slope.norm(dim=1, keepdim=True).clamp(min=1e-8)
        # The longest coordinate of the step becomes .9 of the bound; atanh undoes the environment's tanh.
        bounded = 0.9 * unit / unit.abs().amax(1, keepdim=True).clamp(min=1e-8)
        return torch.cat([torch.atanh(bounded), torch.zeros(len(z), 2)], dim=1)


# --- PPO (M6) ---------------------------------------------------------------------------------------------------------


class PPOLoss(NamedTuple):
    total: torch.Tensor
    policy: torch.Tensor
    value: torch.Tensor
    entropy: torch.Tensor
    approx_kl: torch.Tensor


def ppo_loss(log_prob, old_log_prob, advantage, value, value_target, entropy, clip=0.2, value_weight=0.5,
             entropy_weight=0.01):  # fmt: skip
    """Clipped surrogate, squared value error, entropy bonus (Schulman et al. 2017, equation 9). All inputs (B,)."""
    ratio = (log_prob - old_log_prob).exp()
    policy = -torch.minimum(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage).mean()
    value_error = 0.5 * (value - value_target).square().mean()
    approx_kl = (ratio - 1 - (log_prob - old_log_prob)).mean()
    total = policy + value_weight * value_error - entropy_weight * entropy.mean()
    return PPOLoss(total, policy, value_error, entropy.mean(), approx_kl)


def gae(rewards, values, discount=1.0, decay=0.95):
    """Generalised advantage estimates (Schulman et al. 2016). rewards (H, B), values (H + 1, B). Returns (H, B)."""
    advantage, running = torch.zeros_like(rewards), torch.zeros_like(rewards[0])
    for t in range(len(rewards) - 1, -1, -1):
        delta = rewards[t] + discount * values[t + 1] - values[t]
        running = delta + discount * decay * running
        advantage[t] = running
    return advantage


def random_rollout(environment, count, weight, generator):
    """Random actions within the policy's bounds: random search, the control arm of M6. Returns x^, Reward."""
    environment.reset(count, weight, generator)
    for _ in range(environment.n_steps):
        environment.step(torch.randn(count, environment.d_action, generator=generator))
    with torch.no_grad():
        x = environment.decode()
    return x, environment.reward(x)


class LatentAgent:
    """Policy and value net with their optimiser (M6)."""

    def __init__(self, environment, lr=3e-3, epochs=4, minibatch=256, imitation=0.5):
        self.policy = GaussianPolicy(environment.d_state, environment.d_action)
        self.value = ValueNet(environment.d_state)
        self.epochs, self.minibatch, self.imitation = epochs, minibatch, imitation
        parameters = [*self.policy.parameters(), *self.value.parameters()]
        self.optimiser = torch.optim.Adam(parameters, lr=lr)

    def state(self):
        return {name: getattr(self, name).state_dict() for name in ("policy", "value", "optimiser")}

    def load_state(self, state):
        for name, part in state.items():
            getattr(self, name).load_state_dict(part)

    def rollout(self, environment, count, weight, gradient_share, generator):
        """Play ``count`` rollouts, a share of them with gradient actions (M5). Returns x^, Reward, batch."""
        state = environment.reset(count, weight, generator)
        guided = torch.rand(count, generator=generator) < gradient_share  # (B,)
        states, actions, log_probs, values = [], [], [], []
        for _ in range(environment.n_steps):
            with torch.no_grad():
                action, _ = self.policy.act(state, generator)
            if guided.any():
                action = torch.where(guided[:, None], environment.gradient_action(), action)
            with torch.no_grad():
                states.append(state)
                actions.append(action)
                log_probs.append(self.policy.log_prob(state, action))
                values.append(self.value(state))
            state = environment.step(action)
        with torch.no_grad():
            x = environment.decode()
        reward = environment.reward(x)
        rewards = torch.zeros(environment.n_steps, count)
        rewards[-1] = reward.total
        values = torch.stack([*values, torch.zeros(count)])  # the episode ends: no value after the last step
        advantage = gae(rewards, values)
        batch = {
            "state": torch.cat(states), "action": torch.cat(actions), "log_prob": torch.cat(log_probs),
            "advantage": advantage.flatten(), "target": (advantage + values[:-1]).flatten(),
            "guided": guided.repeat(environment.n_steps),
        }  # fmt: skip
        return x, reward, batch

    def update(self, batch, generator):
        """PPO on the policy's own actions; gradient actions that beat expectation are imitated (M5 warms M6 up)."""
        own = ~batch["guided"]
        advantage = batch["advantage"].clone()
        if own.sum() > 1:
            advantage[own] = (advantage[own] - advantage[own].mean()) / (advantage[own].std() + 1e-6)
        loss = None
        for _ in range(self.epochs):
            for rows in torch.randperm(len(advantage), generator=generator).split(self.minibatch):
                mine, taught = rows[own[rows]], rows[~own[rows] & (batch["advantage"][rows] > 0)]
                total = torch.zeros(())
                if len(mine) > 1:
                    normal = self.policy.distribution(batch["state"][mine])
                    log_prob = normal.log_prob(batch["action"][mine]).sum(1)
                    loss = ppo_loss(log_prob, batch["log_prob"][mine], advantage[mine],
                                    self.value(batch["state"][mine]), batch["target"][mine],
                                    normal.entropy().sum(1))  # fmt: skip
                    total = total + loss.total
                if len(taught):
                    mean = self.policy.distribution(batch["state"][taught]).mean
                    distance = (torch.tanh(mean) - torch.tanh(batch["action"][taught])).square().mean()
                    total = total + self.imitation * distance
                if total.requires_grad:
                    self.optimiser.zero_grad()
                    total.backward()
                    torch.nn.utils.clip_grad_norm_([*self.policy.parameters(), *self.value.parameters()], 0.5)
                    self.optimiser.step()
        return loss
