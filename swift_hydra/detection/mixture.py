"""A trained mixture of Mamba experts as a detector of table rows (M9), with left-out logits.

:class:`MixtureDetector` is ``preset="paper"``: the mixture alone, on raw features. Detectors learn
from standardised training rows and generated anomalies, and score standardised rows. They know
neither files nor scalers, nor how rows were generated.
"""

import dataclasses
from typing import NamedTuple

import numpy as np
import torch

from swift_hydra.cleaning.leave_out import FreshScores
from swift_hydra.model import MoEDetector
from swift_hydra.pretrain import Recipe, train_detector
from swift_hydra.scan.backends import loaded_backend
from swift_hydra.snapshot import in_own_numbers, pack_network, read_network
from swift_hydra.training.batches import Examples

N_FOLDS = 4  # folds of the left-out predictions
LEFT_OUT_ROWS = 4096  # rows that are scored at a time, left out: bounds memory


@dataclasses.dataclass(frozen=True, kw_only=True)
class DetectorSettings:
    """The settings that detectors need, under :class:`SwiftHydra.SwiftHydra`'s names.

    ``n_experts`` and ``device`` are resolved: they are never "auto".
    """

    random_state: int
    n_experts: int
    k: int
    n_members: int
    mixture_steps: int
    synthetic_share: float
    unlike_weight: float
    trust_normals: bool
    cvae_steps: int
    beta: float
    max_normals: int
    max_centres: int
    device: torch.device
    mamba: str
    mixture_settings: dict
    detector_settings: dict

    @classmethod
    def of(cls, estimator, **resolved):
        """The settings of an estimator; ``resolved`` holds the values of its "auto" settings."""
        names = {field.name for field in dataclasses.fields(cls)} - resolved.keys()
        own = in_own_numbers(estimator)
        settings = {name: getattr(own, name) for name in names} | resolved
        settings["random_state"] = int(settings["random_state"])
        for name in ("mixture_settings", "detector_settings"):
            settings[name] = settings[name] or {}
        return cls(**settings)

    @property
    def without(self):
        """Those of :data:`detection.sides.PARTS` that are left out."""
        return self.detector_settings.get("without", ())


class Fitted(NamedTuple):
    """A detector and its scores of its training rows."""

    detector: object
    scores: np.ndarray  # (n,) left-out scores, if the detector has them
    fresh: np.ndarray  # (n,) scores that new copies of the rows would get
    sample: FreshScores  # expected scores of fresh rows
    aside: np.ndarray | None = None  # (m,) left-out scores of the rows set aside; None: as new rows


def n_folds_of(n_experts):
    """Number of folds of the left-out predictions: 2 to ``N_FOLDS``.

    Every expert leaves out one fold; a single expert is cross-fitted on two, see
    :meth:`Mixture.train_left_out`.
    """
    return 2 if n_experts == 1 else min(N_FOLDS, n_experts)


@torch.no_grad()
def out_of_fold(detector, X, folds):
    """Logits (n,) of training rows by the experts that never learned from them.

    A row of fold f is scored by the experts j with j mod F = f, weighted by the router among those.

    Args:
        detector: a :class:`model.MoEDetector` that was trained with ``folds``.
        X: (n, d) tensor of the training rows.
        folds: (n,) their fold numbers.

    Raises:
        ValueError: if there are fewer experts than folds.
    """
    folds = torch.as_tensor(folds)
    n_folds = int(folds.max()) + 1
    E = detector.n_experts
    if n_folds > E:
        raise ValueError(f"{E} experts cannot leave out {n_folds} folds: use at most {E} folds")
    logits = torch.empty(len(X), device=X.device)
    for fold in range(n_folds):
        own = torch.arange(fold, E, n_folds)
        for rows in (folds == fold).nonzero().squeeze(1).split(LEFT_OUT_ROWS):
            inputs = X[rows.to(X.device)]  # (B, d)
            gates = detector.router.clean(inputs)[:, own]  # (B, E / F)
            top = gates.topk(min(detector.router.k, len(own)), dim=1)
            gates = torch.zeros_like(gates).scatter(1, top.indices, top.values.softmax(1))
            each = [detector.experts(inputs, slice(j, j + 1))[0] for j in own.tolist()]
            logits[rows.to(X.device)] = (gates * torch.stack(each, dim=1)).sum(1)
    return logits


class Mixture:
    """An ensemble of trained mixtures of Mamba experts; its logit is the mean of its members'.

    Args:
        networks: :class:`model.MoEDetector` objects, the members of the ensemble.
        device: the torch device where they score.
    """

    def __init__(self, networks, device):
        self.networks = networks
        self.device = device

    @property
    def network(self):
        """The first member, the only one that figures show."""
        return self.networks[0]

    @classmethod
    def train(cls, examples, recipe, stage, settings, journal, n_experts=None):
        """Train on :class:`training.batches.Examples` as a :class:`pretrain.Recipe` says.

        Args:
            examples: the rows, on the CPU.
            recipe: steps and share of generated rows.
            stage: name of the training stage.
            settings: :class:`DetectorSettings`.
            journal: a :class:`journal.Journal`.
            n_experts: number of experts; None takes that of the settings.
        """
        n_experts = n_experts or settings.n_experts
        d = examples.X.shape[1]

        def make():
            k = min(settings.k, n_experts)
            return MoEDetector(d, n_experts=n_experts, k=k, **settings.mixture_settings)

        placed = examples.to(settings.device)
        recipe = recipe._replace(backend=settings.mamba)
        stages = [stage, *(f"{stage}-member{m + 1}" for m in range(1, settings.n_members))]
        networks = [
            train_detector(make, placed, recipe, settings.random_state, name, journal)
            for name in stages
        ]
        return cls(networks, settings.device)

    @classmethod
    def train_left_out(cls, examples, recipe, stage, settings, journal, n_experts):
        """Train a mixture, and score the training rows by experts that did not learn from them.

        Arguments are those of :meth:`train`; the examples must have folds.

        Returns:
            The Mixture, and the left-out logits (n,).
        """
        if n_experts > 1:
            self = cls.train(examples, recipe, stage, settings, journal, n_experts)
            inputs = examples.to(settings.device).to_predict()
            left_out = [out_of_fold(network, inputs, examples.folds) for network in self.networks]
            return self, mean_of(left_out).cpu().numpy()
        alone = examples._replace(folds=None, views=None, generated_views=None)
        self = cls.train(alone, recipe, stage, settings, journal, 1)
        logits = np.empty(len(examples.X))
        # A single expert leaves no rows out, so two more are trained on half of the rows each.
        for h in (0, 1):
            part, left = examples.without(h)
            half = cls.train(part, recipe, f"{stage}-half{h}", settings, journal, 1)
            logits[examples.folds == h] = half.logits(left)
        return self, logits

    def logits(self, inputs):
        """(n,) float64 log-odds of a tensor of rows (n, d)."""
        inputs = inputs.to(self.device)
        each = [network.score(inputs) for network in self.networks]
        return mean_of(each).cpu().numpy().astype(np.float64)

    def experts_of(self, inputs):
        """Numbers of the first member's experts that run for rows (n, d), (n, k).

        The largest gate comes first.
        """
        return self.network.route(inputs.to(self.device))[1].cpu().numpy()

    def snapshot(self):
        """The networks as tensors and plain values; a single one is not wrapped in a list."""
        packed = [pack_network(network) for network in self.networks]
        return packed[0] if len(packed) == 1 else {"members": packed}

    @classmethod
    def from_snapshot(cls, saved, backend):
        """Rebuild from :meth:`snapshot`, on the CPU.

        Args:
            saved: what :meth:`snapshot` returned.
            backend: the setting it was trained with.
        """
        networks = []
        for packed in saved["members"] if "members" in saved else [saved]:
            network = read_network(MoEDetector, packed)
            network.backend = loaded_backend(backend)
            # Runs all experts: a wrong index in one would else fail only for the rows it scores.
            network(torch.zeros(1, network.d_features))
            networks.append(network)
        return cls(networks, torch.device("cpu"))


def mean_of(logits):
    """(n,) mean of the members' logits."""
    return logits[0] if len(logits) == 1 else torch.stack(logits).mean(0)


class MixtureDetector:
    """The mixture of Mamba experts on raw features (``preset="paper"``, M9).

    Args:
        mixture: a trained :class:`Mixture`.
    """

    def __init__(self, mixture):
        self.mixture = mixture

    @staticmethod
    def learns_from_generated(y, settings):
        """Do generated rows matter to the scores of a fit with these labels and settings?"""
        return True

    @classmethod
    def fit(cls, Z, y, generated, settings, journal, subjects=None, aside=None, about=None):
        """Train on standardised rows.

        Args:
            Z: (n, d) float32 tensor.
            y: (n,) int64 tensor.
            generated: (m, d) generated anomalies, m may be 0.
            settings: :class:`DetectorSettings`.
            journal: a :class:`journal.Journal`.
            subjects: not used, since this detector leaves no rows out; see
                :class:`cleaning.leave_out.LeaveOut`.
            aside: not used; see :class:`cleaning.suspects.AsideRows`.
            about: not used; see :class:`detection.largest_value.AboutColumns`.

        Returns:
            :class:`Fitted`.
        """
        recipe = Recipe(settings.mixture_steps, settings.synthetic_share)
        with journal.stage("mixture"):
            examples = Examples(Z, y, generated)
            self = cls(Mixture.train(examples, recipe, "mixture", settings, journal))
        scores = self.score(Z.numpy())
        return Fitted(self, scores, scores, FreshScores.plain(scores, y.numpy() == 0))

    def score(self, Z):
        """(n,) float64 log-odds of standardised rows (n, d)."""
        return self.mixture.logits(torch.from_numpy(Z))

    def expert_usage(self, Z):
        """Numbers of the experts that run for standardised rows (n, d): (n, k)."""
        return self.mixture.experts_of(torch.from_numpy(Z))

    def snapshot(self):
        """Tensors and plain values."""
        return {"mixture": self.mixture.snapshot()}

    @classmethod
    def from_snapshot(cls, saved, settings):
        """Rebuild from :meth:`snapshot`; settings: :class:`DetectorSettings`."""
        return cls(Mixture.from_snapshot(saved["mixture"], settings.mamba))
