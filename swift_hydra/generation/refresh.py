"""Between two episodes both networks learn from what was accepted (M8)."""

import copy
import math

import torch
import torch.nn.functional as F

from swift_hydra.journal import Journal
from swift_hydra.pretrain import train_cvae, train_detector
from swift_hydra.training.batches import Examples

STEPS = 40  # of each training
RATE = 1e-3  # of the detector's: the C-VAE keeps its own
LOSS_ROWS = 4096  # most normals of the detector loss


def refresh(environment, y, accepted, seed, stage, recipe):
    """Give the environment networks that learned from the accepted rows too.

    Copies of its networks learn: the pretrained ones stay as they are.

    Args:
        environment: a :class:`generation.environment.LatentEnvironment`.
        y: (n,) labels of its training rows.
        accepted: (m, d) generated anomalies so far.
        seed: of the run.
        stage: names the random streams.
        recipe: a :class:`pretrain.Recipe`, of which steps and rate are replaced.
    """
    cvae = environment.cvae
    detector = environment.detector
    if not len(accepted) and not y.any():
        return  # no anomaly, known or generated
    rows = torch.cat([environment.X, accepted])
    labels = torch.cat([y, torch.ones(len(accepted), dtype=y.dtype)])
    environment.cvae = train_cvae(
        lambda: copy.deepcopy(cvae),
        rows,
        labels,
        seed,
        f"refresh-cvae/{stage}",
        STEPS,
        Journal(),
    )
    environment.detector = train_detector(
        lambda: copy.deepcopy(detector),
        Examples(environment.X, y, accepted),
        recipe._replace(steps=STEPS, lr=RATE),
        seed,
        f"refresh-detector/{stage}",
        Journal(),
    )


@torch.no_grad()
def detector_loss(environment, y, accepted):
    """Cross-entropy of W on what it has learned from so far, both classes half: nats.

    Args:
        environment: a :class:`generation.environment.LatentEnvironment`.
        y: (n,) labels of its training rows.
        accepted: (m, d) generated anomalies so far.
    """
    X = environment.X
    detector = environment.detector
    normal = X[y == 0]
    anomaly = torch.cat([X[y == 1], accepted])
    normal = normal[:: math.ceil(len(normal) / LOSS_ROWS)]
    on_normals = F.softplus(detector.score(normal)).mean()
    if not len(anomaly):
        return float(on_normals)
    on_anomalies = F.softplus(-detector.score(anomaly)).mean()
    return float(on_anomalies + on_normals) / 2
