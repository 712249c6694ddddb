"""One proposal distribution for all tables, learned across data sets.

# DIFF(paper): the paper's policy learns anew on every table, from a reward that its own detector
gives. This proposal is learned once, on many tables, and its reward is the final objective: how
well a mixture that was trained with its rows finds anomalies of a held-out kind.

Its parameters have the same meaning on every table. A row is made from a normal row or a known
anomaly: it is moved by a fraction (the way) towards a known anomaly, or away from it if negative;
and then by tau times its distance to its neighbours, in a random direction on a share rho of its
features. The parameters, in units of :data:`SPREAD` around :data:`CENTRE`, are the distributions of
these quantities, and how tau and the way depend on the only feature of the table that is used: how
far its known anomalies are from the normals.

:mod:`bench.proposal` learns the numbers in :data:`LEARNED`. A proposal that was learned on a set
may only be evaluated on other sets.
"""

import math
from dataclasses import replace

import numpy as np
import torch

NAMES = ("starts", "tau", "tau_spread", "rho", "rho_spread", "way", "tau_by_far", "way_by_far")
# Logit of the share of starts at known anomalies, log tau and the log of its spread, logit rho and
# the log of its spread, the way, and the slopes of log tau and of the way.
CENTRE = np.array([-1.1, 1.0, -0.5, 0.0, 0.6, 0.0, 0.0, 0.0])
SPREAD = np.array([1.5, 0.7, 0.4, 1.5, 0.5, 0.3, 0.4, 0.2])
LEARNED = {  # learned on the sets at even and at odd places of the list
    "shared-even": (0.491, 1.375, -0.575, 1.074, -0.573, -0.614, 1.433, 0.352),
    "shared-odd": (0.222, 0.33, -0.408, 1.293, -0.239, -0.219, -0.75, 0.098),
}


@torch.no_grad()
def shared_rows(environment, generator, theta, count):
    """Rows (count, d) that the proposal ``theta`` (8,) makes, before the filter.

    Args:
        environment: a :class:`generation.environment.LatentEnvironment`.
        generator: torch Generator.
        theta: (8,) parameters in the order of ``NAMES``, in units of ``SPREAD`` around ``CENTRE``.
        count: number of rows.
    """
    value = dict(zip(NAMES, CENTRE + SPREAD * np.asarray(theta), strict=True))
    known = environment.X[torch.from_numpy(environment.anomalies)]
    share = 1 / (1 + math.exp(-value["starts"])) if len(known) else 0.0
    at = environment.reset(count, 1.0, generator, anomaly_share=share)
    far = 0.0
    if len(known):
        bound = max(environment.reward.feasible.bound, 1e-3)
        far = float(np.clip(np.log(np.median(environment.scales[1]) / bound), -2, 2))
    normal = torch.randn(3, count, generator=generator)
    log_tau = value["tau"] + value["tau_by_far"] * far + math.exp(value["tau_spread"]) * normal[0]
    logit_rho = value["rho"] + math.exp(value["rho_spread"]) * normal[1]
    base = at.base
    if len(known):
        other = known[torch.randint(len(known), (count,), generator=generator)]
        way = value["way"] + value["way_by_far"] * far + 0.2 * normal[2]
        base = base + way.clamp(-1, 1)[:, None] * (other - base)
    return environment.decode(replace(at, base=base, log_tau=log_tau, logit_rho=logit_rho))
