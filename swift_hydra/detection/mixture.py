"""A trained mixture of Mamba experts as a detector of table rows (M9), with left-out logits.

:class:`MixtureDetector` is ``preset="paper"``: the mixture alone, on raw features. Detectors learn
from standardised real rows plus generated anomalies and score standardised rows; they know neither
files nor scalers nor where generated rows came from.
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
LEFT_OUT_ROWS = 4096  # rows of one left-out computation: bounds memory


@dataclasses.dataclass(frozen=True, kw_only=True)
class DetectorSettings:
    """What detectors are told, under the names of :class:`SwiftHydra.SwiftHydra`'s settings.

    ``n_experts`` and ``device`` are here what "auto" became.
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

    @classmethod
    def of(cls, estimator, **resolved):
        """Those of an estimator, with what its "auto" settings became."""
        names = {field.name for field in dataclasses.fields(cls)} - resolved.keys()
        own = in_own_numbers(estimator)
        settings = {name: getattr(own, name) for name in names} | resolved
        settings["random_state"] = int(settings["random_state"])
        settings["mixture_settings"] = settings["mixture_settings"] or {}
        return cls(**settings)


class Fitted(NamedTuple):
    """A detector and what it says of its training rows."""

    detector: object
    scores: np.ndarray  # (n,) by fits that left the row out, where the detector has them
    fresh: np.ndarray  # (n,) as fresh rows of the same table would have them
    sample: FreshScores


def n_folds_of(n_experts):
    """Folds of the left-out predictions: an expert leaves one out, of a single one there are two.

    See :meth:`Mixture.train_left_out`.
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
        ValueError: for fewer experts than folds.
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
    """Trained mixtures of Mamba experts on the device where they score; their mean is the logit.

    Args:
        networks: :class:`model.MoEDetector` objects, as many as the ensemble has members.
        device: torch device.
    """

    def __init__(self, networks, device):
        self.networks = networks
        self.device = device

    @property
    def network(self):
        """The first member, which stands for the others in figures."""
        return self.networks[0]

    @classmethod
    def train(cls, examples, recipe, stage, settings, journal, n_experts=None):
        """Train on :class:`training.batches.Examples` as a :class:`pretrain.Recipe` says.

        Args:
            examples: rows on the CPU.
            recipe: steps and share of generated rows.
            stage: its name.
            settings: :class:`DetectorSettings`.
            journal: a :class:`journal.Journal`.
            n_experts: None takes those of the settings.
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
        """A mixture, and its logits on training rows by experts that did not learn from them.

        Arguments are those of :meth:`train`; the examples have folds.

        Returns:
            The Mixture, and (n,) logits.
        """
        if n_experts > 1:
            self = cls.train(examples, recipe, stage, settings, journal, n_experts)
            inputs = examples.to(settings.device).to_predict()
            left_out = [out_of_fold(network, inputs, examples.folds) for network in self.networks]
            return self, mean_of(left_out).cpu().numpy()
        alone = examples._replace(folds=None, views=None, synthetic_views=None)
        self = cls.train(alone, recipe, stage, settings, journal, 1)
        logits = np.empty(len(examples.X))
        # One expert leaves nothing out: two further ones, on half of the rows each, do.
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
        """The networks as tensors and plain values; of one alone that one, as ever."""
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
            # All experts: a wrong index in one would show for its rows alone.
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

    @classmethod
    def fit(cls, Z, y, synthetic, settings, journal, subjects=None):
        """Train on standardised rows.

        Args:
            Z: (n, d) float32 tensor.
            y: (n,) int64 tensor.
            synthetic: (m, d) generated anomalies, m may be 0.
            settings: :class:`DetectorSettings`.
            journal: a :class:`journal.Journal`.
            subjects: (n,) numbers from 0 of what the rows were measured of, or None; not used here,
                where nothing is left out.

        Returns:
            :class:`Fitted`.
        """
        recipe = Recipe(settings.mixture_steps, settings.synthetic_share)
        with journal.stage("mixture"):
            examples = Examples(Z, y, synthetic)
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
