"""The reward of generated anomalies (M4), the filter and the selection (M7).

R of a rollout is given once, at its end:

    R = gamma^episode * diversity * H - log W(x^) - penalty * [infeasible]
    H = (novelty + coverage) / 2

Novelty is -log p_KDE(x^), bounded; coverage is the marginal gain of x^ in the log-determinant of
the kernel matrix of data and candidates: what x^ adds to the entropy of the set that all the others
have not.

# DIFF(paper): the paper names H(D u {x^}) without an estimator; without the coverage term a policy
collapses onto a few directions. There, D holds what was accepted before; here it is the table's own
rows for as long as the loop lasts, and only the selection sees the accepted ones. H is weighed four
times against -log W, and what the filter rejects loses 2: neither is in the paper.

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
NARROWEST = 1e-3  # standard deviations: rows nearer than that are one
# DIFF(paper): -log W has no bound there. A candidate the detector is sure to miss is worth no more
# than this, or a few of them would outweigh all diversity.
CEILING = 4.0


class Reward(NamedTuple):
    """Rewards of a set of candidates, part by part."""

    total: torch.Tensor  # (B,)
    without_coverage: torch.Tensor  # (B,) what greedy selection adds its own marginal gains to
    novelty: torch.Tensor  # (B,) in [0, 1]
    coverage: torch.Tensor  # (B,) in [0, 1]
    deception: torch.Tensor  # (B,) -log W, in [0, CEILING]
    feasible: torch.Tensor  # (B,) bool
    coverage_weight: float  # of the coverage term in the total


class Novelty:
    """-log p_KDE of a row under the reference rows, in [0, 1] (M4).

    Standardised by the reference rows' own leave-one-out values.

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
        data: (m, d) tensor of rows that are covered already.
        width: of the kernel; None takes the median distance of the data.
    """

    JITTER = 1e-2

    def __init__(self, data, width=None):
        self.data = data
        if width is None:
            apart = squared_distances(data, data).sqrt()
            apart = apart[apart > NARROWEST]  # no copies
            width = float(apart.median()) if len(apart) else 1.0
        self.width = width

    def kernel(self, a, b):
        """RBF kernel of rows a (n, d) with rows b (m, d): (n, m) float64."""
        return torch.exp(-squared_distances(a, b) / (2 * self.width**2))

    def scale(self, variance):
        """Conditional variance in [jitter, 1 + jitter] to [0, 1].

        0 says that the others know all of a row, 1 none of it.
        """
        share = variance.clamp(self.JITTER, 1.0).log() / math.log(self.JITTER)
        return (1.0 - share).clamp(0.0, 1.0)

    def leave_one_out(self, x):
        """What each of the rows x (B, d) adds beyond data and all other rows: (B,) in [0, 1].

        That is log det K - log det K without the row, scaled.
        """
        rows = torch.cat([self.data, x])
        K = self.kernel(rows, rows)
        # K^-1 = M^T M for M the inverse of the Cholesky factor. The last rows of K^-1 are made of
        # the last block of M alone, which is the inverse of the factor's.
        factor = self._factor(K)[len(self.data) :, len(self.data) :]
        inverse, _ = dtrtri(factor.numpy(), lower=1)
        precision = torch.from_numpy(np.square(inverse).sum(0))
        return self.scale(1.0 / precision).to(x.dtype)

    def _factor(self, K):
        """Lower Cholesky factor of K (m, m) with the jitter, in place."""
        # In float64 rounding is 1e-12 of the jitter: there is a factor, whatever the rows.
        K.diagonal().add_(self.JITTER)
        # LAPACK's by way of SciPy: torch's takes half as long again.
        return torch.from_numpy(cholesky(K.numpy(), lower=True, check_finite=False))

    def select(self, x, score, count, weight):
        """Greedy top-l: repeatedly the largest score + weight * marginal gain (M7).

        The gain is what a row adds given all that were chosen so far. Pivoted Cholesky: one column
        of the factor per choice, O(B * count) in all.

        Args:
            x: (B, d) candidates.
            score: (B,) of each by itself.
            count: rows wanted.
            weight: of the marginal gain.

        Returns:
            Row numbers, (min(count, B),).
        """
        count = min(count, len(x))
        K = self.kernel(self.data, self.data)
        cross = self.kernel(self.data, x)
        factor = torch.linalg.solve_triangular(self._factor(K), cross, upper=False)
        variance = 1.0 + self.JITTER - factor.square().sum(0)  # (B,) given the data
        given = factor.T  # (B, m) rows of the Cholesky factor so far, and in basis the new ones
        basis = torch.zeros(len(x), count, dtype=torch.float64)
        square = squared_distances(x, x)
        open_ = torch.ones(len(x), dtype=torch.bool)
        chosen = []
        for t in range(count):
            gain = score.double() + weight * self.scale(variance)
            best = int(gain.masked_fill(~open_, -torch.inf).argmax())
            chosen.append(best)
            open_[best] = False
            k = torch.exp(-square[best] / (2 * self.width**2))  # (B,)
            k = k - given @ given[best] - basis[:, :t] @ basis[best, :t]
            basis[:, t] = k / variance[best].clamp(min=self.JITTER).sqrt()
            variance = (variance - basis[:, t].square()).clamp(min=self.JITTER)
        return torch.tensor(chosen, dtype=torch.long)


class Feasibility:
    """Rejects a candidate as near to the normals as normals are to each other (M7).

    Such a candidate is a mislabelled normal, no anomaly.

    # DIFF(paper): no filter by distance is described there.

    Args:
        normals: (m, d) array.
        quantile: the bound is this quantile of the normals' mean distance to five other normals.

    Attributes:
        own: (m,) that distance of every normal.
        bound: the quantile.
    """

    def __init__(self, normals, quantile=0.9):
        self.neighbours = Neighbours(normals)
        self.own = self._others(normals)
        self.bound = float(np.quantile(self.own, quantile))

    def _others(self, normals):
        """(m,) mean distance of the normals to five others; 0 where all others are copies."""
        return self.neighbours.mean_distance(normals, 5, others=True, nothing=0.0)

    def distance(self, x):
        """Mean distance of rows x (B, d) to the five nearest normals, (B,)."""
        return self.neighbours.mean_distance(x, 5)

    def __call__(self, x):
        """(B, d) tensor to (B,) bool array."""
        return self.distance(x.cpu().numpy()) > self.bound


class RewardFunction:
    """R of candidates (M4): the one place of its weights.

    Args:
        novelty: a :class:`Novelty`.
        covered: a :class:`Coverage` of training rows.
        feasible: a :class:`Feasibility`.
        diversity: weight of H.
        penalty: taken from infeasible candidates.
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
        """Weight of novelty and of coverage, either half of H, in an episode."""
        return weight * self.diversity * 0.5

    def smooth(self, x, detector, weight):
        """The differentiable part of R: no coverage (it belongs to the set), no hard filter.

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
        """R of candidates x (B, d) as one set: a :class:`Reward`."""
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
    moved: torch.Tensor  # (B, d_latent) the way of z
    notes: dict  # numbers for the log

    def numbers(self):
        """What the log says of them: means over the candidates."""
        reward = self.reward
        return {
            "reward": float(reward.total.mean()),
            "novelty": float(reward.novelty.mean()),
            "coverage": float(reward.coverage.mean()),
            "deception": float(reward.deception.mean()),
            "feasible": float(reward.feasible.float().mean()),
            "latent_step": float(self.moved.norm(dim=1).mean()),
        }
