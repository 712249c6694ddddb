"""One proposal for all tables, learned across sets.

# DIFF(paper): the paper's policy learns anew on every table, from a reward that its own detector
gives. This one is learned once, on many tables, and paid by what counts in the end: how well a
mixture that trained with its rows finds anomalies of a kind that was held out.

What is learned means the same on every table. A row is made without a network: a start at a normal
row or a known anomaly, moved some of the way to a known anomaly (negative: away from it), then by a
multiple tau of its distance to its neighbours in a random direction on a share rho of its features.
Learned are the distributions of these, in standard deviations of :data:`SPREAD` around
:data:`CENTRE`, and how tau and the way depend on the one thing that is seen of the table: how far
its known anomalies are from the normals.

``python -m swift_hydra.generation.shared DIR`` learns the numbers of :data:`LEARNED` anew from the
sets in a folder, by the cross-entropy method, with seeds from 20 on. What is learned on a set may
be judged on other sets alone.
"""

import json
import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from tqdm import tqdm

from swift_hydra.data.columns import ColumnSettings
from swift_hydra.data.rows import TrainingRows
from swift_hydra.data.splits import make_split
from swift_hydra.dataloader import load_dataset
from swift_hydra.generation.environment import LatentEnvironment
from swift_hydra.journal import Journal
from swift_hydra.model import BetaCVAE, MoEDetector
from swift_hydra.pretrain import Recipe, train_detector
from swift_hydra.settings import InputError
from swift_hydra.training.batches import Examples
from swift_hydra.training.seeds import stage_rng, streams

NAMES = ("starts", "tau", "tau_spread", "rho", "rho_spread", "way", "tau_by_far", "way_by_far")
# Logit of the share of starts at known anomalies, log tau, log of its spread, logit rho, log of its
# spread, the way, and both slopes.
CENTRE = np.array([-1.1, 1.0, -0.5, 0.0, 0.6, 0.0, 0.0, 0.0])
SPREAD = np.array([1.5, 0.7, 0.4, 1.5, 0.5, 0.3, 0.4, 0.2])
LEARNED = {  # on the sets of even and of odd place in the list
    "shared-even": (0.491, 1.375, -0.575, 1.074, -0.573, -0.614, 1.433, 0.352),
    "shared-odd": (0.222, 0.33, -0.408, 1.293, -0.239, -0.219, -0.75, 0.098),
}

N_ROWS = 500  # generated rows that a mixture learns from while the proposal is learned
STEPS = 120  # of such a mixture
POPULATION, ELITE, GENERATIONS = 16, 5, 4
FIRST_SEED = 20
MOST_ROWS = 3000  # of a set


@torch.no_grad()
def shared_rows(environment, generator, theta, count=1024):
    """Rows (count, d) by the proposal ``theta`` (8,), before the filter.

    Args:
        environment: a :class:`generation.environment.LatentEnvironment`.
        generator: torch Generator.
        theta: in standard deviations of ``SPREAD`` around ``CENTRE``.
        count: rows.
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


# --- how it was learned ---------------------------------------------------------------------------


class Case(NamedTuple):
    """A table under *unseen*: one kind of anomaly trains, another is held out."""

    environment: LatentEnvironment
    X: torch.Tensor  # (n, d)
    y: torch.Tensor  # (n,)
    held_out: torch.Tensor  # (m, d)
    labels: np.ndarray  # (m,)
    seed: int


class Networks(NamedTuple):
    """What an environment needs that reads neither."""

    cvae: BetaCVAE
    detector: None


def case_of(path, seed):
    """A :class:`Case` of a set; None where *unseen* is undefined."""
    data = load_dataset(str(path))
    X, y = data.X, data.y
    try:
        split = make_split(X, y, "unseen", seed, max_rows=MOST_ROWS)
    except InputError:
        return None
    rows = TrainingRows.read(X[split.train], y[split.train], ColumnSettings())
    Z = torch.from_numpy(rows.Z)
    labels = torch.from_numpy(rows.y.astype(np.int64))
    held_out = torch.from_numpy(rows.columns.standardise(X[split.test]))
    networks = Networks(BetaCVAE(Z.shape[1]).eval(), None)
    environment = LatentEnvironment(Z, labels, networks, stage_rng(seed, "shared"))
    return Case(environment, Z, labels, held_out, y[split.test], seed)


def payment(theta, case):
    """AUC-ROC on the held-out kind, of a short mixture with rows of ``theta``."""
    draws = streams(case.seed, "shared/rows").draws
    x = shared_rows(case.environment, draws, theta, 2 * N_ROWS)
    x = x[torch.from_numpy(case.environment.reward.feasible(x))][:N_ROWS].detach()
    detector = train_detector(
        lambda: MoEDetector(case.X.shape[1]),
        Examples(case.X, case.y, x),
        Recipe(steps=STEPS, synthetic_share=0.2),
        case.seed,
        "shared/detector",
        Journal(),
    )
    return roc_auc_score(case.labels, detector.score(case.held_out).numpy())


def learn(cases, seed=0):
    """The cross-entropy method on the mean payment: theta (8,), and a log of the means."""
    rng = np.random.default_rng(seed)
    mean, spread = np.zeros(len(NAMES)), np.ones(len(NAMES))
    log = []
    for _ in range(GENERATIONS):
        thetas = mean + spread * rng.normal(size=(POPULATION, len(NAMES)))
        thetas[0] = mean
        paid = [np.mean([payment(theta, case) for case in cases]) for theta in tqdm(thetas)]
        best = thetas[np.argsort(paid)[::-1][:ELITE]]
        mean, spread = best.mean(0), best.std(0) + 0.05
        log.append({"mean": paid[0], "best": max(paid), "all": float(np.mean(paid))})
    return mean, log


def main(folder):
    """Learn on the sets of even and of odd place in the folder, and print both results."""
    paths = sorted(Path(folder).glob("*.npz"))
    for name, some in (("shared-even", paths[::2]), ("shared-odd", paths[1::2])):
        seeds = range(FIRST_SEED, FIRST_SEED + 2 * len(some))
        cases = [case_of(path, seed) for path, seed in zip([*some, *some], seeds, strict=True)]
        theta, log = learn([case for case in cases if case is not None])
        print(json.dumps({name: np.round(theta, 3).tolist(), "log": log}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
