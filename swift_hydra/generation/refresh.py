"""The training of both networks on the accepted rows, between two episodes (M8)."""

import copy
import math

import torch
import torch.nn.functional as F

from swift_hydra.journal import Journal
from swift_hydra.pretrain import train_cvae, train_detector
from swift_hydra.training.batches import Examples

STEPS = 40  # training steps of each network
RATE = 1e-3  # the detector's learning rate; the C-VAE's is that of its pretraining
LOSS_ROWS = 4096  # most normals that enter the detector loss


def refresh(environment, y, accepted, seed, stage, recipe):
    """Replace the environment's networks by copies that also learned from the accepted rows.

    The pretrained networks stay unchanged.

    Args:
        environment: a :class:`generation.environment.LatentEnvironment`.
        y: (n,) labels of its training rows.
        accepted: (m, d) generated anomalies so far.
        seed: the run's seed.
        stage: names the random streams.
        recipe: a :class:`pretrain.Recipe`, whose steps and learning rate are replaced.
    """
    cvae = environment.cvae
    detector = environment.detector
    if not len(accepted) and not y.any():
        return  # there is no anomaly to learn from, known or generated
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
    """Cross-entropy of W in nats on normals and anomalies so far, each class with half the weight.

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
