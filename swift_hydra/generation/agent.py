"""The agent that moves in latent space: policy, value net and clipped PPO (M6), warmed up by M5.

References: Schulman et al., "Proximal Policy Optimization Algorithms" (2017), and "High-Dimensional
Continuous Control Using Generalized Advantage Estimation" (2016).

Shapes: B rollouts, H steps of each, N = H * B decisions.
"""

import math
from typing import NamedTuple

import torch
from torch import nn

from swift_hydra.generation.reward import Candidates
from swift_hydra.snapshot import is_finite
from swift_hydra.training.optimise import Adam

MAX_GRADIENT_NORM = 0.5
CLIP = 0.2  # range of the probability ratio around 1
VALUE_WEIGHT, ENTROPY_WEIGHT = 0.5, 0.01  # of the value error and the entropy bonus


class GaussianPolicy(nn.Module):
    """pi(a | s) = N(mean(s), diag(exp(log_std))^2) (M6); the environment bounds each step.

    Args:
        d_state: size of an observation.
        d_action: size of an action.
        d_hidden: width of both hidden layers.
        initial_std: standard deviation of every component of an action before training.
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
        # Validating the arguments would take a sixth of an update's time.
        return torch.distributions.Normal(mean, std, validate_args=False)

    def log_prob(self, state, action):
        """log pi(a | s), summed over the action's dimensions: (B,)."""
        return self.distribution(state).log_prob(action).sum(1)

    def act(self, state, generator=None):
        """Draw actions (B, d_action) for states (B, d_state)."""
        normal = self.distribution(state)
        noise = torch.randn(normal.mean.shape, generator=generator).to(state.device)
        return normal.mean + normal.stddev * noise


class ValueNet(nn.Module):
    """V(s): the return expected from a state, (B,).

    Args:
        d_state: size of an observation.
        d_hidden: width of both hidden layers.
    """

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
    """The loss of one minibatch and its parts."""

    total: torch.Tensor
    policy: torch.Tensor
    value: torch.Tensor
    entropy: torch.Tensor
    approx_kl: torch.Tensor


def ppo_loss(log_prob, old_log_prob, advantage, value, value_target, entropy):
    """Clipped surrogate, squared value error, entropy bonus (Schulman et al. 2017, equation 9).

    Args:
        log_prob: (N,) log pi(a | s) of the policy that learns.
        old_log_prob: (N,) the same of the policy that acted.
        advantage: (N,).
        value: (N,) V(s).
        value_target: (N,) returns.
        entropy: (N,) entropy of pi(. | s), in nats.

    Returns:
        A :class:`PPOLoss`.
    """
    log_ratio = log_prob - old_log_prob
    ratio = log_ratio.exp()
    clipped = ratio.clamp(1 - CLIP, 1 + CLIP)
    policy = -torch.minimum(ratio * advantage, clipped * advantage).mean()
    value_error = 0.5 * (value - value_target).square().mean()
    approx_kl = (ratio - 1 - log_ratio).mean()
    total = policy + VALUE_WEIGHT * value_error - ENTROPY_WEIGHT * entropy.mean()
    return PPOLoss(total, policy, value_error, entropy.mean(), approx_kl)


def gae(rewards, values, discount=1.0, decay=0.95):
    """Generalised advantage estimates (Schulman et al. 2016).

    Args:
        rewards: (H, B).
        values: (H + 1, B).
        discount: discount factor gamma.
        decay: lambda.

    Returns:
        (H, B).
    """
    advantage = torch.zeros_like(rewards)
    running = torch.zeros_like(rewards[0])
    for t in range(len(rewards) - 1, -1, -1):
        delta = rewards[t] + discount * values[t + 1] - values[t]
        running = delta + discount * decay * running
        advantage[t] = running
    return advantage


class Decisions(NamedTuple):
    """All decisions of a set of rollouts, step after step."""

    state: torch.Tensor  # (N, d_state)
    action: torch.Tensor  # (N, d_action)
    log_prob: torch.Tensor  # (N,) under the policy that acted
    advantage: torch.Tensor  # (N,)
    target: torch.Tensor  # (N,) target of the value net
    guided: torch.Tensor  # (N,) bool: a gradient action (M5), not one of the policy


class LatentAgent:
    """Policy and value net with their optimiser (M6).

    Args:
        environment: a :class:`generation.environment.LatentEnvironment`.
        lr: learning rate of Adam.
        epochs: passes over the decisions in an update.
        minibatch: decisions per optimiser step.
        imitation: weight of the distance to gradient actions with a positive advantage.
    """

    def __init__(self, environment, lr=3e-3, epochs=4, minibatch=256, imitation=0.5):
        self.policy = GaussianPolicy(environment.d_state, environment.d_action)
        self.value = ValueNet(environment.d_state)
        self.epochs = epochs
        self.minibatch = minibatch
        self.imitation = imitation
        self.parameters = [*self.policy.parameters(), *self.value.parameters()]
        self.optimiser = Adam(self.parameters, lr)

    def snapshot(self):
        """Weights of both networks, and the optimiser's moments."""
        networks = {name: getattr(self, name).state_dict() for name in ("policy", "value")}
        return {**networks, "optimiser": self.optimiser.snapshot()}

    def go_on(self, snapshot):
        """Resume learning from what :meth:`snapshot` returned.

        Raises:
            ValueError: if weights are not finite.
        """
        for name in ("policy", "value"):
            network = getattr(self, name)
            network.load_state_dict(snapshot[name])
            if not is_finite(network):
                raise ValueError(f"{name}: weights that are not finite")
        self.optimiser.go_on(snapshot["optimiser"])

    def play(self, environment, count, weight, gradient_share, generator):
        """Play rollouts, a share of them with gradient actions (M5).

        Args:
            environment: a LatentEnvironment.
            count: B.
            weight: gamma^episode.
            gradient_share: share of the rollouts that take gradient actions.
            generator: torch Generator.

        Returns:
            The final state of the rollouts (a Rollout), the candidates x^ (B, d), their Reward, and
            the Decisions.
        """
        at = environment.reset(count, weight, generator)
        guided = torch.rand(count, generator=generator) < gradient_share  # (B,)
        states = []
        actions = []
        log_probs = []
        values = []
        for _ in range(environment.n_steps):
            state = environment.observation(at)
            with torch.no_grad():
                action = self.policy.act(state, generator)
            if guided.any():
                action[guided] = environment.gradient_action(at.some(guided))
            states.append(state)
            actions.append(action)
            with torch.no_grad():
                log_probs.append(self.policy.log_prob(state, action))
                values.append(self.value(state))
            at = environment.step(at, action)
        with torch.no_grad():
            x = environment.decode(at)
        reward = environment.judge(x, weight)
        rewards = torch.zeros(environment.n_steps, count)
        rewards[-1] = reward.total
        # The rollout ends after the last step, so the value there is 0.
        values = torch.stack([*values, torch.zeros(count)])  # (H + 1, B)
        advantage = gae(rewards, values)  # (H, B)
        decisions = Decisions(
            state=torch.cat(states),
            action=torch.cat(actions),
            log_prob=torch.cat(log_probs),
            advantage=advantage.flatten(),
            target=(advantage + values[:-1]).flatten(),
            guided=guided.repeat(environment.n_steps),
        )
        return at, x, reward, decisions

    def update(self, batch, generator):
        """PPO on the policy's own actions; good gradient actions are imitated (M5 warms M6 up).

        # DIFF(paper): imitation is an addition. PPO's ratio is meaningless for actions that the
        # policy did not draw, so that without imitation it would learn nothing from the warm-up.

        Args:
            batch: :class:`Decisions`.
            generator: torch Generator that shuffles them.

        Returns:
            The last minibatch's :class:`PPOLoss`, or None if no minibatch held two of the policy's
            own actions.
        """
        own = ~batch.guided
        advantage = batch.advantage.clone()
        if own.sum() > 1:
            mean = advantage[own].mean()
            spread = advantage[own].std()
            advantage[own] = (advantage[own] - mean) / (spread + 1e-6)
        loss = None
        for _ in range(self.epochs):
            order = torch.randperm(len(advantage), generator=generator)
            for rows in order.split(self.minibatch):
                mine = rows[own[rows]]
                taught = rows[~own[rows] & (batch.advantage[rows] > 0)]
                total = torch.zeros(())
                if len(mine) > 1:
                    loss = self._loss(batch, mine, advantage)
                    total = total + loss.total
                if len(taught):
                    total = total + self.imitation * self._distance(batch, taught)
                if total.requires_grad:
                    self._step(total)
        return loss

    def _loss(self, batch, rows, advantage):
        normal = self.policy.distribution(batch.state[rows])
        return ppo_loss(
            normal.log_prob(batch.action[rows]).sum(1),
            batch.log_prob[rows],
            advantage[rows],
            self.value(batch.state[rows]),
            batch.target[rows],
            normal.entropy().sum(1),
        )

    def _distance(self, batch, rows):
        """Squared distance of the policy's mean to the actions taken, both bounded by tanh."""
        mean = self.policy.distribution(batch.state[rows]).mean
        return (torch.tanh(mean) - torch.tanh(batch.action[rows])).square().mean()

    def _step(self, total):
        for parameter in self.parameters:
            parameter.grad = None
        total.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, MAX_GRADIENT_NORM)
        self.optimiser.step()


class PolicyProposer:
    """Proposes candidates of the policy, which learns from their rewards ("rl"; M4 to M6).

    Args:
        environment: a LatentEnvironment.
        warm_up: give early rollouts gradient actions (M5).
    """

    def __init__(self, environment, warm_up=True):
        self.environment = environment
        self.agent = LatentAgent(environment)
        self.warm_up = warm_up

    def propose(self, count, weight, generator):
        """``count`` :class:`Candidates` in an episode with ``weight`` gamma^episode."""
        share = weight / 2 * self.warm_up
        at, x, reward, decisions = self.agent.play(
            self.environment, count, weight, share, generator
        )
        loss = self.agent.update(decisions, generator)
        notes = {}
        if loss is not None:
            notes = {
                "policy_loss": loss.policy.item(),
                "value_loss": loss.value.item(),
                "policy_entropy": loss.entropy.item(),
                "approx_kl": loss.approx_kl.item(),
            }
        return Candidates(x, reward, at.z - at.start, notes)

    def snapshot(self):
        """What the agent has learned."""
        return self.agent.snapshot()

    def go_on(self, snapshot):
        """Resume learning from what :meth:`snapshot` returned."""
        self.agent.go_on(snapshot)
