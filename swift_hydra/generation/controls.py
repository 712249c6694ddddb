"""The other generators: simpler ones that the policy has to beat, and controls.

``GENERATORS`` lists all of them. Each delivers the number of rows that is asked for, or fewer if
too few of its candidates pass the filter. The ablation ladder:

    rl        the policy of agent.py, warmed up by gradient steps, top-l by reward with coverage
    gradient  no policy: gradient ascent on z along R, decoded with y = 1, top-l by R       (M5)
    cvae      no reward: z drawn from the prior N(0, I), decoded with y = 1                 (M2)
    noise     no network: a normal row moved in a random direction on some of its features
    none      no generated rows

Controls for the benchmark:

    search      random actions in place of the policy, with the same budget and selection as rl
    boundary    the policy's starts, temperature and sparsity without the policy
    uniform     uniform in the box of the training rows
    smote       between a known anomaly and one of its nearest known anomalies (Chawla et al. 2002)
    oversample  copies of known anomalies
    shared-even, shared-odd  one proposal for all tables, see shared.py

The same filter (M7) applies to all but none, smote and oversample.
"""

import importlib.util
from functools import partial

import torch

from swift_hydra.generation.agent import PolicyProposer
from swift_hydra.generation.reward import Candidates
from swift_hydra.generation.shared import LEARNED, shared_rows
from swift_hydra.geometry import BOUND
from swift_hydra.settings import InputError
from swift_hydra.training.optimise import Adam

N_CANDIDATES = 1024  # candidates per episode, or per round of drawing
GRADIENT_STEPS = 8
GRADIENT_RATE = 0.15
MOST_ROUNDS = 20  # rounds of drawing, if few candidates pass the filter


class Proposer:
    """A proposer that learns nothing, so that it has no state to save."""

    def __init__(self, environment, **_):
        self.environment = environment

    def snapshot(self):
        """Its state: None."""

    def go_on(self, snapshot):
        """Do nothing, as there is no state to restore."""


class SearchProposer(Proposer):
    """Random actions within the policy's bounds: random search, the control arm of M6.

    Args:
        environment: a :class:`generation.environment.LatentEnvironment`.
    """

    def propose(self, count, weight, generator):
        """``count`` :class:`Candidates` in an episode with ``weight`` gamma^episode."""
        environment = self.environment
        at = environment.reset(count, weight, generator)
        for _ in range(environment.n_steps):
            action = torch.randn(count, environment.d_action, generator=generator)
            at = environment.step(at, action)
        with torch.no_grad():
            x = environment.decode(at)
        return Candidates(x, environment.judge(x, weight), at.z - at.start, {})


class GradientProposer(Proposer):
    """Gradient ascent (Adam) on z along the smooth reward, from latents of training rows (M5).

    x^ is the decoder's mean, as in the paper.

    Args:
        environment: a :class:`generation.environment.LatentEnvironment`.
    """

    def propose(self, count, weight, generator):
        """``count`` :class:`Candidates` in an episode with ``weight`` gamma^episode."""
        environment = self.environment
        cvae = environment.cvae
        at = environment.reset(count, weight, generator)
        with torch.no_grad():
            mean, log_variance = cvae.encode(at.base, at.labels)
            # q(z | x, 1) is sampled: a few anomalies are drawn many times, and their candidates
            # would otherwise be copies.
            noise = torch.randn(mean.shape, generator=generator)
            z = mean + (0.5 * log_variance).exp() * noise  # (B, d_latent)
        z.requires_grad_(True)
        optimiser = Adam([z], GRADIENT_RATE)
        for _ in range(GRADIENT_STEPS):
            x = cvae.decode(z, at.labels).clamp(-BOUND, BOUND)
            z.grad = -environment.slope(x, weight, z)
            optimiser.step()
        z = z.detach()
        with torch.no_grad():
            x = cvae.decode(z, at.labels).clamp(-BOUND, BOUND)
        # Selected without marginal gains of coverage, which the ascent does not optimise.
        reward = environment.judge(x, weight)._replace(coverage_weight=0.0)
        return Candidates(x, reward, z - at.start, {})


PROPOSERS = {"rl": PolicyProposer, "search": SearchProposer, "gradient": GradientProposer}


def noise_rows(environment, generator):
    """Normal rows moved in a random direction on a random share of their features, (B, d)."""
    at = environment.reset(N_CANDIDATES, 1.0, generator, anomaly_share=0.0)
    return environment.decode(at)  # no action was taken: the row, plus its random direction


def boundary_rows(environment, generator):
    """Normal rows and known anomalies moved at random, (B, d)."""
    return environment.decode(environment.reset(N_CANDIDATES, 1.0, generator))


def cvae_rows(environment, generator):
    """Means of p(x | z, 1) for z from the prior, (B, d)."""
    z = torch.randn(N_CANDIDATES, environment.d_latent, generator=generator)
    return environment.cvae.decode(z, torch.ones(len(z))).clamp(-BOUND, BOUND)


def uniform_rows(environment, generator):
    """Uniform rows in the bounding box of the training rows, (B, d)."""
    low = environment.X.min(0).values
    high = environment.X.max(0).values
    return low + (high - low) * torch.rand(N_CANDIDATES, len(low), generator=generator)


DRAWN = {
    "noise": noise_rows,
    "boundary": boundary_rows,
    "cvae": cvae_rows,
    "uniform": uniform_rows,
    **{
        name: partial(shared_rows, theta=theta, count=N_CANDIDATES)
        for name, theta in LEARNED.items()
    },
}


@torch.no_grad()
def draw_filtered(environment, kind, wanted, generator):
    """Rows of a generator that learns nothing, drawn until enough of them pass the filter (M7).

    Args:
        environment: a :class:`generation.environment.LatentEnvironment`.
        kind: a key of ``DRAWN``.
        wanted: number of rows.
        generator: torch Generator.

    Returns:
        At most ``wanted`` rows, and how many were drawn to get them.
    """
    kept = environment.X[:0]
    drawn = 0
    for _ in range(MOST_ROUNDS):
        x = DRAWN[kind](environment, generator)
        drawn += len(x)
        feasible = torch.from_numpy(environment.reward.feasible(x))
        kept = torch.cat([kept, x[feasible]])[:wanted]
        if len(kept) == wanted:
            break
    return kept, drawn


def require_package(kind):
    """Refuse a generator whose package is missing, before any work.

    Raises:
        InputError: with the pip command that installs it.
    """
    if kind == "smote" and importlib.util.find_spec("imblearn") is None:
        raise InputError("generator 'smote' needs imbalanced-learn: pip install imbalanced-learn")


def oversample_rows(X, y, wanted, seed, generator):
    """Copies of known anomalies, (wanted, d)."""
    known = X[y == 1]
    return known[torch.randint(len(known), (wanted,), generator=generator)]


def smote_rows(X, y, wanted, seed, generator):
    """SMOTE's rows between known anomalies, (wanted, d); copies if only one anomaly is known.

    Raises:
        InputError: with the pip command, if imbalanced-learn is missing.
    """
    known = int((y == 1).sum())
    if known == 1:  # there is nothing to interpolate with
        return oversample_rows(X, y, wanted, seed, generator)
    require_package("smote")
    from imblearn.over_sampling import SMOTE

    smote = SMOTE(
        sampling_strategy={1: known + wanted},
        k_neighbors=min(5, known - 1),
        random_state=seed,
    )
    rows = smote.fit_resample(X.numpy(), y.numpy())[0]
    return torch.from_numpy(rows[len(X) :])  # new rows come last


COPIED = {"smote": smote_rows, "oversample": oversample_rows}
GENERATORS = (
    "rl",
    "gradient",
    "cvae",
    "noise",
    "none",
    "search",
    "boundary",
    "uniform",
    "smote",
    "oversample",
    *LEARNED,
)
