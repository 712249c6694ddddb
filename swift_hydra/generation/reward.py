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
from typing import NamedTuple

import numpy as np
import torch

from swift_hydra.geometry import Neighbours

MAX_REFERENCE = 1024  # rows of the KDE and of the kernel matrix: bounds an n^2 term


class Reward(NamedTuple):
    total: torch.Tensor  # (B,)
    novelty: torch.Tensor  # (B,) in [0, 1]
    coverage: torch.Tensor  # (B,) in [0, 1]
    deception: torch.Tensor  # (B,) -log W, in [0, CEILING]
    feasible: torch.Tensor  # (B,) bool


class Novelty:
    """-log p_KDE of a row under the training rows, standardised by their own leave-one-out values,
    in [0, 1] (M4).
    """

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
        return 0.5 + 0.5 * torch.tanh(
            (-torch.logsumexp(logs, dim=1) - self.centre) / (2 * self.spread)
        )


class Coverage:
    """Marginal gains in log det(K + jitter I), K an RBF kernel as wide as the data's median
    distance (M4, M7).
    """

    JITTER = 1e-2

    def __init__(self, data):
        self.data = data
        self.width = float(torch.pdist(data).median().clamp(min=1e-3)) if len(data) > 1 else 1.0

    def kernel(self, a, b):
        return torch.exp(-torch.cdist(a, b).square() / (2 * self.width**2))

    def scale(self, variance):
        """Conditional variance in [jitter, 1 + jitter] to [0, 1]: 0 says the others know all of it,
        1 none of it.
        """
        return (1.0 - variance.clamp(self.JITTER, 1.0).log() / math.log(self.JITTER)).clamp(
            0.0, 1.0
        )

    def leave_one_out(self, x):
        """What each row adds beyond data and all other rows: log det K - log det K without it. (B,)
        in [0, 1].
        """
        rows = torch.cat([x, self.data])
        K = self.kernel(
            rows, rows
        )  # the jitter bounds its condition: float32 is enough, and twice as fast
        K.diagonal().add_(self.JITTER)
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(K))
        return self.scale(1.0 / inverse.diagonal()[: len(x)])

    def select(self, x, score, count, weight):
        """Greedy top-l: repeatedly the largest score + weight * marginal gain given all chosen so
        far (M7).

        Pivoted Cholesky: one column of the factor per choice, O(len(x) * count) in all. Returns row
        numbers.
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
    """Rejects a candidate as near to the normals as normals are to each other: a mislabelled normal
    (M7).

    The bound is the ``quantile`` of the normals' leave-one-out mean distance to five other normals.
    """

    def __init__(self, normals, quantile=0.9):
        self.neighbours = Neighbours(normals)
        own, _ = self.neighbours.query(self.neighbours.reference, 5, own=np.arange(len(normals)))
        self.bound = float(np.quantile(own.mean(1), quantile))

    def distance(self, x, own=None):
        """Mean distance to the five nearest normals, (B,); ``own`` as in
        :meth:`evidence.Neighbours.query`.
        """
        return self.neighbours.query(x, 5, own)[0].mean(1)

    def __call__(self, x):
        return self.distance(x.cpu().numpy()) > self.bound
