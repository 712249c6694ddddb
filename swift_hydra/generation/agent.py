"""The networks of Swift Hydra: Beta C-VAE (M2), Mamba and the mixture of Mamba experts (M3, M9),
latent policy (M6).

Papers: Do et al., "Swift Hydra: Self-Reinforcing Generative Framework for Anomaly Detection with
Multiple Mamba Models" (ICLR 2025); Gu and Dao, "Mamba" (2023); Higgins et al., "beta-VAE" (2017);
Shazeer et al., "Outrageously Large Neural Networks" (2017) for noisy top-k gating.

Glossary (symbol, meaning, shape)
    x, d      a standardised table row and its number of features        (B, d)
    y         label, 0 normal, 1 anomaly                                 (B,)
    z         latent of the Beta C-VAE                                   (B, d_latent)
    T         tokens of a row: groups of features, scanned by Mamba
    E, k      experts, experts that run for one row
    W(x)      the detector's probability of anomaly; networks return its logit
    G         groups evaluated together in one batched computation: the experts
    d_model, d_inner, d_state, dt_rank, d_conv    Mamba's own names, as in mamba_ssm.Mamba
    gates     router weights of a row, k of them non-zero, sum 1         (B, E)
    load      how many rows each expert was chosen for                   (E,)
"""

import math
from typing import NamedTuple

import torch
from torch import nn


class GaussianPolicy(nn.Module):
    """pi(a | s) = N(mean(s), diag(exp(log_std))^2); the environment, not the policy, bounds the
    step (M6).
    """

    def __init__(self, d_state, d_action, d_hidden=64, initial_std=0.6):
        super().__init__()
        self.body = nn.Sequential(
            nn.Linear(d_state, d_hidden), nn.Tanh(), nn.Linear(d_hidden, d_hidden), nn.Tanh()
        )
        self.mean = nn.Linear(d_hidden, d_action)
        nn.init.normal_(self.mean.weight, std=0.01)
        nn.init.zeros_(self.mean.bias)
        self.log_std = nn.Parameter(torch.full((d_action,), math.log(initial_std)))

    def distribution(self, state):
        """Independent normals of shape (B, d_action) for states (B, d_state)."""
        mean = self.mean(self.body(state))
        std = self.log_std.clamp(-3.0, 1.0).exp().expand_as(mean)
        return torch.distributions.Normal(
            mean, std, validate_args=False
        )  # a sixth of an update's time

    def log_prob(self, state, action):
        """log pi(a | s), summed over the action's dimensions: (B,)."""
        return self.distribution(state).log_prob(action).sum(1)

    def act(self, state, generator=None):
        """Draw actions. Returns action (B, d_action) and its log-probability (B,)."""
        normal = self.distribution(state)
        noise = torch.randn(normal.mean.shape, generator=generator).to(state.device)
        action = normal.mean + normal.stddev * noise
        return action, normal.log_prob(action).sum(1)


class ValueNet(nn.Module):
    """V(s): the return expected from a state, (B,)."""

    def __init__(self, d_state, d_hidden=64):
        super().__init__()
        self.body = nn.Sequential(
            nn.Linear(d_state, d_hidden),
            nn.Tanh(),
            nn.Linear(d_hidden, d_hidden),
            nn.Tanh(),
            nn.Linear(d_hidden, 1),
        )

    def forward(self, state):
        return self.body(state).squeeze(1)


class PPOLoss(NamedTuple):
    total: torch.Tensor
    policy: torch.Tensor
    value: torch.Tensor
    entropy: torch.Tensor
    approx_kl: torch.Tensor


def ppo_loss(
    log_prob,
    old_log_prob,
    advantage,
    value,
    value_target,
    entropy,
    clip=0.2,
    value_weight=0.5,
    entropy_weight=0.01,
):
    """Clipped surrogate, squared value error, entropy bonus (Schulman et al. 2017, equation 9). All
    inputs (B,).
    """
    ratio = (log_prob - old_log_prob).exp()
    policy = -torch.minimum(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage).mean()
    value_error = 0.5 * (value - value_target).square().mean()
    approx_kl = (ratio - 1 - (log_prob - old_log_prob)).mean()
    total = policy + value_weight * value_error - entropy_weight * entropy.mean()
    return PPOLoss(total, policy, value_error, entropy.mean(), approx_kl)


def gae(rewards, values, discount=1.0, decay=0.95):
    """Generalised advantage estimates (Schulman et al. 2016). rewards (H, B), values (H + 1, B).
    Returns (H, B).
    """
    advantage, running = torch.zeros_like(rewards), torch.zeros_like(rewards[0])
    for t in range(len(rewards) - 1, -1, -1):
        delta = rewards[t] + discount * values[t + 1] - values[t]
        running = delta + discount * decay * running
        advantage[t] = running
    return advantage


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
        """Play ``count`` rollouts, a share of them with gradient actions (M5). Returns x^, Reward,
        batch.
        """
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
        values = torch.stack(
            [*values, torch.zeros(count)]
        )  # the episode ends: no value after the last step
        advantage = gae(rewards, values)
        batch = {
            "state": torch.cat(states),
            "action": torch.cat(actions),
            "log_prob": torch.cat(log_probs),
            "advantage": advantage.flatten(),
            "target": (advantage + values[:-1]).flatten(),
            "guided": guided.repeat(environment.n_steps),
        }
        return x, reward, batch

    def update(self, batch, generator):
        """PPO on the policy's own actions; gradient actions that beat expectation are imitated (M5
        warms M6 up).
        """
        own = ~batch["guided"]
        advantage = batch["advantage"].clone()
        if own.sum() > 1:
            advantage[own] = (advantage[own] - advantage[own].mean()) / (
                advantage[own].std() + 1e-6
            )
        loss = None
        for _ in range(self.epochs):
            for rows in torch.randperm(len(advantage), generator=generator).split(self.minibatch):
                mine, taught = rows[own[rows]], rows[~own[rows] & (batch["advantage"][rows] > 0)]
                total = torch.zeros(())
                if len(mine) > 1:
                    normal = self.policy.distribution(batch["state"][mine])
                    log_prob = normal.log_prob(batch["action"][mine]).sum(1)
                    loss = ppo_loss(
                        log_prob,
                        batch["log_prob"][mine],
                        advantage[mine],
                        self.value(batch["state"][mine]),
                        batch["target"][mine],
                        normal.entropy().sum(1),
                    )
                    total = total + loss.total
                if len(taught):
                    mean = self.policy.distribution(batch["state"][taught]).mean
                    distance = (
                        (torch.tanh(mean) - torch.tanh(batch["action"][taught])).square().mean()
                    )
                    total = total + self.imitation * distance
                if total.requires_grad:
                    self.optimiser.zero_grad()
                    total.backward()
                    torch.nn.utils.clip_grad_norm_(
                        [*self.policy.parameters(), *self.value.parameters()], 0.5
                    )
                    self.optimiser.step()
        return loss
