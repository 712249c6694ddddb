"""The reward of generated anomalies (M4), the filter and the selection (M7).

A rollout gets its reward R once, at its end:

    R = gamma^episode * diversity * H - log W(x^) - penalty * [infeasible]
    H = (novelty + coverage) / 2

Novelty is -log p_KDE(x^), bounded. Coverage is the marginal gain of x^ in the log-determinant of
the kernel matrix of data and candidates: what x^ adds to the entropy of the set beyond all others.

# DIFF(paper): the paper names H(D u {x^}) without an estimator; without the coverage term a policy
collapses onto a few directions. In the paper, D includes the rows accepted before; here D is the
table's own rows in every episode, and only the selection uses the accepted ones. H has four times
the weight of -log W, and a candidate that the filter rejects loses 2: neither is in the paper.

Shapes: B candidates, d features, m reference rows.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from scipy.linalg import cholesky
from scipy.linalg.lapack import dtrtri

from swift_hydra.geometry import Neighbours, squared_distances

MAX_REFERENCE = 1024  # rows of the KDE and of the kernel matrix: bounds an n^2 term
NARROWEST = 1e-3  # standard deviations: rows nearer than that are copies; least bandwidth
# DIFF(paper): -log W is unbounded there. It is bounded here, as a few candidates that the detector
# is sure to miss would otherwise outweigh all diversity.
CEILING = 4.0


class Reward(NamedTuple):
    """Rewards of a set of candidates, part by part."""

    total: torch.Tensor  # (B,)
    without_coverage: torch.Tensor  # (B,) to which the greedy selection adds its marginal gains
    novelty: torch.Tensor  # (B,) in [0, 1]
    coverage: torch.Tensor  # (B,) in [0, 1]
    deception: torch.Tensor  # (B,) -log W, in [0, CEILING]
    feasible: torch.Tensor  # (B,) bool
    coverage_weight: float  # weight of the coverage term in the total


class Novelty:
    """-log p_KDE of a row under the reference rows, squashed to [0, 1] (M4).

    It is standardised by the reference rows' own leave-one-out values.

    Args:
        reference: (m, d) tensor.
    """

    def __init__(self, reference):
        self.reference = reference
        nearest = Neighbours(reference.numpy()).mean_distance(reference.numpy(), 5, others=True)
        typical = float(np.nanmedian(nearest)) if np.isfinite(nearest).any() else 1.0
        self.width = max(typical, NARROWEST)
        logs = -squared_distances(reference, reference) / (2 * self.width**2)  # (m, m)
        own = -torch.logsumexp(logs.fill_diagonal_(-torch.inf), dim=1)
        self.centre = float(own.median())
        self.spread = float(own.std().clamp(min=1.0))

    def __call__(self, x):
        """(B, d) to (B,); differentiable."""
        logs = -squared_distances(x, self.reference) / (2 * self.width**2)
        surprise = -torch.logsumexp(logs, dim=1)
        return 0.5 + 0.5 * torch.tanh((surprise - self.centre) / (2 * self.spread)).to(x.dtype)


class Coverage:
    """Marginal gains in log det(K + jitter I), K an RBF kernel (M4, M7).

    Args:
        data: (m, d) tensor of rows that are already covered.
        width: bandwidth of the kernel; None takes the median distance of the data.
    """

    JITTER = 1e-2

    def __init__(self, data, width=None):
        self.data = data
        if width is None:
            apart = squared_distances(data, data).sqrt()
            apart = apart[apart > NARROWEST]  # without copies
            width = float(apart.median()) if len(apart) else 1.0
        self.width = width

    def kernel(self, a, b):
        """RBF kernel of rows a (n, d) with rows b (m, d): (n, m) float64."""
        return torch.exp(-squared_distances(a, b) / (2 * self.width**2))

    def scale(self, variance):
        """Maps a conditional variance in [jitter, 1 + jitter] to [0, 1], on a log scale.

        0 means that the other rows determine a row, 1 that they say nothing about it.
        """
        share = variance.clamp(self.JITTER, 1.0).log() / math.log(self.JITTER)
        return (1.0 - share).clamp(0.0, 1.0)

    def leave_one_out(self, x):
        """What each of the rows x (B, d) adds to the data and all other rows: (B,) in [0, 1].

        That is log det K minus log det K without the row, scaled.
        """
        rows = torch.cat([self.data, x])
        K = self.kernel(rows, rows)
        # K^-1 = M^T M for M the inverse of the Cholesky factor. Its last diagonal entries need only
        # the last block of M, which is the inverse of the factor's last block.
        factor = self._factor(K)[len(self.data) :, len(self.data) :]
        inverse, _ = dtrtri(factor.numpy(), lower=1)
        precision = torch.from_numpy(np.square(inverse).sum(0))
        return self.scale(1.0 / precision).to(x.dtype)

    def _factor(self, K):
        """Lower Cholesky factor of K (m, m) with the jitter, in place."""
        # Rounding in float64 is 1e-12 of the jitter, so that the factor exists for any rows.
        K.diagonal().add_(self.JITTER)
        # SciPy calls LAPACK; torch takes half as long again.
        return torch.from_numpy(cholesky(K.numpy(), lower=True, check_finite=False))

    def select(self, x, score, count, weight):
        """Greedy top-l: repeatedly choose the largest score + weight * marginal gain (M7).

        The gain is what a row adds to the data and to all rows chosen so far. A pivoted Cholesky
        factorisation adds one column of B numbers per choice.

        Args:
            x: (B, d) candidates.
            score: (B,) each candidate's own value.
            count: rows wanted.
            weight: weight of the marginal gain.

        Returns:
            Row numbers, (min(count, B),).
        """
        count = min(count, len(x))
        K = self.kernel(self.data, self.data)
        cross = self.kernel(self.data, x)
        factor = torch.linalg.solve_triangular(self._factor(K), cross, upper=False)
        variance = 1.0 + self.JITTER - factor.square().sum(0)  # (B,) given the data
        given_data = self.kernel(x, x) - factor.T @ factor  # (B, B) covariances
        basis = torch.zeros(count, len(x), dtype=torch.float64)  # columns of the Cholesky factor
        score = score.double().clone()
        chosen = []
        for t in range(count):
            best = int((score + weight * self.scale(variance)).argmax())
            chosen.append(best)
            score[best] = -torch.inf
            k = given_data[best] - basis[:t, best] @ basis[:t]  # (B,) given the chosen rows, too
            basis[t] = k / variance[best].clamp(min=self.JITTER).sqrt()
            variance = (variance - basis[t].square()).clamp(min=self.JITTER)
        return torch.tensor(chosen, dtype=torch.long)


class Feasibility:
    """Rejects candidates that are as near to the normals as normals are to each other (M7).

    Such a candidate would be a normal row with the wrong label.

    # DIFF(paper): no filter by distance is described there.

    Args:
        normals: (m, d) array.
        quantile: the bound is this quantile of the normals' mean distance to five other normals.

    Attributes:
        own: (m,) mean distance of every normal to five others.
        bound: the quantile of these.
    """

    def __init__(self, normals, quantile=0.9):
        self.neighbours = Neighbours(normals)
        self.own = self._others(normals)
        self.bound = float(np.quantile(self.own, quantile))

    def _others(self, normals):
        """(m,) mean distance of the normals to five others; 0 if all others are copies."""
        return self.neighbours.mean_distance(normals, 5, others=True, nothing=0.0)

    def distance(self, x):
        """Mean distance of rows x (B, d) to the five nearest normals, (B,)."""
        return self.neighbours.mean_distance(x, 5)

    def __call__(self, x):
        """Which rows x (B, d) pass: (B,) bool array."""
        return self.distance(x.cpu().numpy()) > self.bound


class RewardFunction:
    """R of candidates (M4); the only place that knows its weights.

    Args:
        novelty: a :class:`Novelty`.
        covered: a :class:`Coverage` of training rows.
        feasible: a :class:`Feasibility`.
        diversity: weight of H.
        penalty: subtracted from the reward of infeasible candidates.
        coverage: False drops the coverage term (for ablations).
        deception: False drops -log W.
    """

    def __init__(
        self,
        novelty,
        covered,
        feasible,
        diversity=4.0,
        penalty=2.0,
        coverage=True,
        deception=True,
    ):
        self.novelty = novelty
        self.covered = covered
        self.feasible = feasible
        self.diversity = diversity
        self.penalty = penalty
        self.use_coverage = coverage
        self.use_deception = deception

    def half(self, weight):
        """Weight in an episode of novelty, and of coverage: each is half of H."""
        return weight * self.diversity * 0.5

    def smooth(self, x, detector, weight):
        """The differentiable part of R, without coverage (a property of the set) and filter.

        Args:
            x: (B, d).
            detector: W, a network whose output has ``logit``.
            weight: gamma^episode.
        """
        reward = self.half(weight) * self.novelty(x)
        if self.use_deception:
            reward = reward + F.softplus(-detector(x).logit).clamp(max=CEILING)
        return reward

    @torch.no_grad()
    def __call__(self, x, detector, weight):
        """The :class:`Reward` of candidates x (B, d), judged as one set."""
        half = self.half(weight)
        novelty = self.novelty(x)
        coverage = self.covered.leave_one_out(x) if self.use_coverage else torch.zeros(len(x))
        deception = F.softplus(-detector.score(x)).clamp(max=CEILING)
        feasible = torch.from_numpy(self.feasible(x))
        total = half * (novelty + coverage) - self.penalty * (~feasible).float()
        if self.use_deception:
            total = total + deception
        without_coverage = total - half * coverage
        coverage_weight = half if self.use_coverage else 0.0
        return Reward(
            total, without_coverage, novelty, coverage, deception, feasible, coverage_weight
        )


class Candidates(NamedTuple):
    """What a proposer proposes in an episode."""

    x: torch.Tensor  # (B, d) standardised
    reward: Reward
    moved: torch.Tensor  # (B, d_latent) the change of z from its start
    notes: dict  # numbers for the log

    def numbers(self):
        """Means over the candidates, for the log."""
        reward = self.reward
        return {
            "reward": float(reward.total.mean()),
            "novelty": float(reward.novelty.mean()),
            "coverage": float(reward.coverage.mean()),
            "deception": float(reward.deception.mean()),
            "feasible": float(reward.feasible.float().mean()),
            "latent_step": float(self.moved.norm(dim=1).mean()),
        }
