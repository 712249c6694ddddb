"""The two training loops: the Beta C-VAE (M2) and the detector (M3, M8, M9).

Both draw the classes in equal parts, so that a handful of anomalies is in every batch, and both are
fully determined by their seed: every stage has its own generators (see :func:`stage_seed`), nothing
reads or moves the global stream. Settings follow what was measured to suffice on small tables:
AdamW, one-cycle, a few hundred steps, mixup.
"""

from dataclasses import dataclass

import numpy as np
import torch

from swift_hydra.journal import NO_STORE, Clock, history_log
from swift_hydra.model import MoEDetector
from swift_hydra.pretrain import train_detector
from swift_hydra.snapshot import pack_network, read_network
from swift_hydra.training.seeds import stage_seed


def stratified_folds(y, n_folds, seed, stage="folds"):
    """Fold number of every row, (n,): both classes spread evenly over the folds."""
    rng = np.random.default_rng(stage_seed(seed, stage))
    folds = np.zeros(len(y), dtype=np.int64)
    for label in (0, 1):
        rows = rng.permutation(np.flatnonzero(np.asarray(y) == label))
        folds[rows] = np.arange(len(rows)) % n_folds
    return folds


@torch.no_grad()
def out_of_fold(detector, X, folds):
    """Logits (n,) of training rows by the experts that never learned from them.

    A row of fold f is scored by the experts j with j mod F = f, weighted by the router among those.
    Needs at least as many experts as folds.
    """
    folds = torch.as_tensor(folds)
    n_folds, E = int(folds.max()) + 1, detector.n_experts
    if n_folds > E:
        raise ValueError(f"{E} experts cannot leave out {n_folds} folds: use at most {E} folds")
    logits = torch.empty(len(X), device=X.device)
    for fold in range(n_folds):
        own = torch.arange(fold, E, n_folds)
        for rows in (folds == fold).nonzero().squeeze(1).split(4096):
            inputs = X[rows.to(X.device)]
            gates = detector.router.clean(inputs)[:, own]  # (B, E / F)
            top = gates.topk(min(detector.router.k, len(own)), dim=1)
            gates = torch.zeros_like(gates).scatter(1, top.indices, top.values.softmax(1))
            each = torch.stack(
                [detector.experts(inputs, slice(j, j + 1))[0] for j in own.tolist()], dim=1
            )
            logits[rows.to(X.device)] = (gates * each).sum(1)
    return logits


@dataclass
class DetectorSettings:
    """What both detectors are told; see the arguments of :class:`SwiftHydra.SwiftHydra`."""

    seed: int
    n_experts: int
    k: int
    steps: int
    synthetic_share: float
    unlike_weight: float
    cvae_steps: int
    beta: float
    device: torch.device
    backend: str
    mixture: dict  # arguments of the experts, see model.MoEDetector


class MixtureDetector:
    """The mixture of Mamba experts on raw features (``preset="paper"``)."""

    def __init__(self, settings):
        self.settings = settings
        self.log_ = []

    def fit(self, Z, labels, synthetic, progress, seconds, store=NO_STORE):
        """Train on Z (n, d), labels (n,) and generated anomalies (m, d); stage times go into
        ``seconds``.

        ``store`` keeps the trained networks; what takes no training is computed anew when a run
        goes on.
        """
        share = self.settings.synthetic_share
        with Clock(seconds, "mixture"):
            self.mixture = self._train(Z, labels, synthetic, "mixture", progress, store, share)
        self.training_scores_ = self.score(Z.numpy())
        return self

    def score(self, Z):
        """(n,) float64 log-odds of standardised rows (n, d)."""
        return self._logits(self.mixture, torch.from_numpy(Z))

    def expert_usage(self, Z):
        """Numbers of the mixture's experts that run for standardised rows (n, d), the largest gate
        first: (n, k).
        """
        return self.mixture.route(self._mixture_inputs(Z).to(self.settings.device))[1].cpu().numpy()

    def _mixture_inputs(self, Z):
        return torch.from_numpy(Z)

    def _train(
        self,
        rows,
        labels,
        synthetic,
        stage,
        progress,
        store,
        share,
        n_experts=None,
        folds=None,
        steps=None,
    ):
        s = self.settings
        n_experts, steps = n_experts or s.n_experts, steps or s.steps
        mixture, history = train_detector(
            rows.to(s.device),
            labels.to(s.device),
            s.seed,
            stage,
            synthetic=synthetic.to(s.device) if len(synthetic) else None,
            synthetic_share=share,
            n_experts=n_experts,
            k=min(s.k, n_experts),
            folds=folds,
            steps=steps,
            backend=s.backend,
            progress=progress,
            store=store,
            **s.mixture,
        )
        self.log_ += history_log(stage, history, "detector_loss", "balance_loss")
        return mixture

    def _logits(self, mixture, inputs):
        return mixture.score(inputs.to(self.settings.device)).cpu().numpy().astype(np.float64)

    def state(self):
        """Tensors, arrays and plain values."""
        return {"mixture": pack_network(self.mixture)}

    def load_state(self, state):
        self.mixture = self._unpack(state["mixture"])
        return self

    def _unpack(self, packed):
        mixture = read_network(MoEDetector, packed)
        # A backend of the machine it was trained on may be missing here; the one that is everywhere
        # is kept.
        mixture.experts.backend = "torch" if self.settings.backend == "torch" else "auto"
        mixture(
            torch.zeros(1, mixture.d_features)
        )  # all experts: a wrong index in one would show for its rows alone
        return mixture
