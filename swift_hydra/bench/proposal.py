"""Learn the proposal that all tables share (generation/shared.py).

``python -m swift_hydra.bench.proposal DIR`` learns it from the sets in a folder by the
cross-entropy method, once from those at even and once from those at odd positions, with seeds from
20 on.
"""

import json
import sys
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
from swift_hydra.generation.shared import NAMES, shared_rows
from swift_hydra.journal import Journal
from swift_hydra.model import BetaCVAE, MoEDetector
from swift_hydra.pretrain import Recipe, train_detector
from swift_hydra.seeds import stage_rng
from swift_hydra.settings import InputError
from swift_hydra.training.batches import Examples
from swift_hydra.training.seeds import streams

N_ROWS = 500  # generated rows for each mixture that rates a proposal
STEPS = 120  # training steps of such a mixture
POPULATION, ELITE, GENERATIONS = 16, 5, 4
FIRST_SEED = 20
MOST_ROWS = 3000  # of each set


class Case(NamedTuple):
    """A table under *unseen*: one kind of anomaly trains, another is held out."""

    environment: LatentEnvironment
    X: torch.Tensor  # (n, d)
    y: torch.Tensor  # (n,)
    held_out: torch.Tensor  # (m, d)
    labels: np.ndarray  # (m,)
    seed: int


class Networks(NamedTuple):
    """Placeholders for the networks of an environment; the shared proposal uses neither."""

    cvae: BetaCVAE
    detector: None


def case_of(path, seed):
    """A :class:`Case` of a set; None if *unseen* is undefined for it."""
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
    """The reward of a proposal ``theta`` (8,).

    It is the AUC-ROC, on the held-out kind of anomalies, of a briefly trained mixture that also
    learned from the proposal's rows.
    """
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
    """Maximise the mean of :func:`payment` by the cross-entropy method: theta (8,), and a log."""
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
    """Learn from the sets at even and at odd positions in the folder, and print both results."""
    paths = sorted(Path(folder).glob("*.npz"))
    for name, some in (("shared-even", paths[::2]), ("shared-odd", paths[1::2])):
        seeds = range(FIRST_SEED, FIRST_SEED + 2 * len(some))
        cases = [case_of(path, seed) for path, seed in zip([*some, *some], seeds, strict=True)]
        theta, log = learn([case for case in cases if case is not None])
        print(json.dumps({name: np.round(theta, 3).tolist(), "log": log}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
