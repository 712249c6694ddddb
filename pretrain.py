"""Train the Beta C-VAE and the Mamba detector on one dataset, and save both with the scaler.

    python pretrain.py                      # the embedded UCI Yeast set
    python pretrain.py yeast --seed 1
    python pretrain.py path/to/table.csv --label-column outlier --protocol unseen
    python pretrain.py path/to/table.csv --resume      # goes on where the same command was cut off

Writes ``results/<dataset>/<protocol>/seed<k>/pretrained.pt``; SwiftHydra.py takes it from there
(M1, M2, M3). The two training loops below train all other C-VAEs and detectors, too; the policy and
the student have loops of their own.
"""

import contextlib
import math
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

if __name__ == "__main__":
    from swift_hydra.settings import guard_imports

    guard_imports()

import torch
import torch.nn.functional as F

from swift_hydra.cleaning.learned_rows import learned_rows
from swift_hydra.data.columns import ColumnSettings
from swift_hydra.dataloader import RowOptions, load_rows
from swift_hydra.files import content_of, load_checkpoint, remove, write_torch
from swift_hydra.geometry import BOUND, Neighbours
from swift_hydra.journal import Journal, Progress
from swift_hydra.model import BetaCVAE, MoEDetector
from swift_hydra.run.folder import RunFolder
from swift_hydra.run.resume import PACE, Store, check_log, refuse_other_rows
from swift_hydra.scan.backends import check_backend, choose_backend, loaded_backend
from swift_hydra.seeds import stage_rng
from swift_hydra.settings import (
    InputError,
    Place,
    check_settings,
    first_line,
    parse_config,
    resolve_device,
    run_main,
    setting,
)
from swift_hydra.snapshot import in_own_numbers, pack_network, plain, read_network, to_tensors
from swift_hydra.training.batches import BatchPlan, Examples, half_and_half
from swift_hydra.training.gradients import mixture_loss, of_cvae
from swift_hydra.training.optimise import Optimiser, Training
from swift_hydra.training.seeds import streams
from swift_hydra.training.threads import few_threads

DATASET = "47_yeast"  # edit here, or give a path or an ADBench name on the command line
REMEDY = "delete it and run the command that wrote it again"  # of a damaged pretrained.pt
STAND_INS = 400
CVAE_BATCH = 128
CVAE_RATE = 2e-3
CVAE_DECAY = 1e-4
NOT_DECAYED = ("A_log", ".D", "bias", "norm")  # the first two as in Mamba's own code


@dataclass(eq=False, repr=False, kw_only=True)
class PretrainSettings:
    """How the Beta C-VAE and the first detector are trained."""

    cvae_steps: int = setting(200, "training steps of the Beta C-VAE", low=1, high=10**6)
    detector_steps: int = setting(
        100, "training steps of the pretrained detector", low=1, high=10**6
    )
    beta: float = setting(0.2, "weight of the KL term of the Beta C-VAE", low=0, high=1e6)
    trust_normals: bool = setting(
        False, "take rows labelled 0 for normal, also those that look like hidden anomalies"
    )
    max_samples: int = setting(
        100_000,
        "training rows that stand for a larger table in all that learns",
        low=100,
        high=10**9,
    )
    cleaning_settings: dict | None = setting(None, "of what is set aside", flag=False)
    device: str = setting(
        "auto", "auto, cpu, cuda, cuda:1: where networks train; the episodes' small ones on the CPU"
    )
    mamba: str = setting(
        "auto", "Mamba backend: auto, torch, numba (CPU) or official (mamba-ssm, CUDA)"
    )


@dataclass
class OutputOptions:
    """Where a run is written, and what it prints."""

    out: Place = setting("results", "folder that runs are written to")
    resume: bool = setting(False, "go on where the same command was cut off, to the same scores")
    quiet: bool = setting(False, "print only results, warnings and errors")
    verbose: bool = setting(
        False, "a line with every loss each 20 steps and for each episode", short="-v"
    )


# --- the two training loops (M2, M3, M8, M9) ------------------------------------------------------


def new_cvae(n_features, beta):
    """An untrained Beta C-VAE for rows of ``n_features``; wide tables get wider layers."""
    d_hidden = 64 if n_features <= 128 else 128
    return BetaCVAE(n_features, d_latent=min(16, n_features), d_hidden=d_hidden, beta=beta)


def train_cvae(make, X, y, seed, stage, steps, journal):
    """Train a Beta C-VAE (M2).

    Each class fills half of every batch, so that even a handful of anomalies is seen.

    Args:
        make: a function without arguments that returns the network: a new one, initialised from
            this stage's random stream, or one to train further.
        X: (n, d) float32 tensor of standardised rows.
        y: (n,) int64 tensor; one class alone is allowed.
        seed: the run's seed.
        stage: names the random stream, and the training in the journal.
        steps: training steps.
        journal: a :class:`journal.Journal`.

    Returns:
        The network in eval mode.

    Raises:
        FloatingPointError: naming the step and the parts when the loss is not finite.
    """
    stream = streams(seed, stage)
    cvae = stream.built(make).to(X.device).train()
    normal, anomaly = ((y == label).nonzero().squeeze(1) for label in (0, 1))
    if not len(normal) or not len(anomaly):
        normal = anomaly = torch.arange(len(y))
    rows = half_and_half(normal, anomaly, steps, CVAE_BATCH, stream.draws)  # (S, B)
    rows = rows.to(X.device)
    optimiser = Optimiser(cvae, CVAE_RATE, CVAE_DECAY, steps)
    training = Training(stage, cvae, optimiser, steps, stream, journal)
    for step in training:
        loss, gradient = of_cvae(cvae, X[rows[step]], y[rows[step]], stream.draws)
        parts = {"reconstruction": loss.reconstruction.item(), "kl": loss.kl.item()}
        training.learn(loss.total, gradient, **parts)
    return cvae.eval()


class Recipe(NamedTuple):
    """How a detector is trained; the defaults did best on small tables.

    Attributes:
        steps: training steps.
        synthetic_share: share of generated rows in the anomaly half of a batch.
        lr: largest learning rate of the one-cycle schedule.
        batch: rows of a batch.
        weight_decay: weight decay of AdamW.
        mixup: both parameters of the Beta distribution of mix-up's weights; 0 for no mix-up.
        own_weight: weight of the experts' own loss. Every expert also learns from every row it may
            see, routed or not, so that none starves: the third cure for winner-take-all.
        balance_weight: weight of the router's balance loss.
        backend: Mamba backend of the experts, see :func:`scan.backends.choose_backend`.
    """

    steps: int = 300
    synthetic_share: float = 0.2  # DIFF(paper): there, generated rows count like known anomalies
    lr: float = 3e-3
    batch: int = 64
    weight_decay: float = 0.05
    mixup: float = 0.4  # DIFF(paper): not described there
    own_weight: float = 1.0  # DIFF(paper): not described there
    balance_weight: float = 0.02
    backend: str = "auto"


def train_detector(make, examples, recipe, seed, stage, journal):
    """Train a mixture of Mamba experts on real and generated rows (M8, M9).

    Args:
        make: a function without arguments that returns the :class:`model.MoEDetector`: a new one,
            initialised from this stage's random stream, or one to train further.
        examples: :class:`training.batches.Examples`.
        recipe: a :class:`Recipe`.
        seed: the run's seed.
        stage: names the random stream, and the training in the journal.
        journal: a :class:`journal.Journal`.

    Returns:
        The detector in eval mode.

    Raises:
        FloatingPointError: naming the step and the parts when the loss is not finite.
    """
    stream = streams(seed, stage)
    device = examples.X.device
    detector = stream.built(make).to(device).train()
    # Resolved once: searching for missing kernels would cost time in every step.
    detector.backend = choose_backend(recipe.backend, device)
    compiled = detector.backend == "numba"
    loss_of = partial(mixture_loss, detector) if compiled else detector.loss
    rng = stage_rng(seed, stage + "/mixup")
    plan = BatchPlan(examples, detector.n_experts, recipe, stream.draws, rng)
    optimiser = Optimiser(detector, recipe.lr, recipe.weight_decay, recipe.steps, NOT_DECAYED)
    training = Training(stage, detector, optimiser, recipe.steps, stream, journal)
    for step in training:
        loss = loss_of(plan.batch(step), recipe, stream)
        parts = {"detector_loss": loss.mixture.item()}
        if detector.n_experts > 1:
            parts["balance_loss"] = loss.balance.item()
        training.learn(loss.total, **parts)
    detector.backend = loaded_backend(recipe.backend)  # it may score on another device
    return detector.eval()


# --- both on one set of rows ----------------------------------------------------------------------


def stand_ins(Z, seed):
    """Rows that take the place of anomalies if none is known: (m, d).

    # DIFF(paper): an addition; in the paper, anomalies are known from the start.

    Each is a row moved in a random direction by one to eight times its distance to its neighbours.

    Args:
        Z: (n, d) tensor of rows taken for normal.
        seed: the run's seed.
    """
    draws = streams(seed, "stand-ins").draws
    base = Z[torch.randint(len(Z), (STAND_INS,), generator=draws)]
    near = Neighbours(Z.numpy()).mean_distance(base.numpy(), 5, others=True, nothing=0.0)
    step = torch.from_numpy(near).float() + 1e-3  # (m,)
    step = step * (torch.rand(STAND_INS, generator=draws) * math.log(8.0)).exp()
    direction = F.normalize(torch.randn(base.shape, generator=draws), dim=1)
    return (base + step[:, None] * direction).clamp(-BOUND, BOUND)


class Pretrained(NamedTuple):
    """The two networks that the episodes start from, on the CPU."""

    cvae: BetaCVAE
    detector: MoEDetector


def pretrain(Z, y, seed, settings, journal=None):
    """Train a C-VAE (M2) and one Mamba detector (M3) on standardised rows.

    Args:
        Z: (n, d) float32 tensor.
        y: (n,) int64 tensor; if it has no anomaly, :func:`stand_ins` are added as anomalies.
        seed: seed of both trainings.
        settings: a :class:`PretrainSettings`.
        journal: keeps the state of both trainings, and resumes them; None keeps nothing.

    Returns:
        A :class:`Pretrained`.
    """
    journal = journal or Journal()
    settings = in_own_numbers(settings)
    device = resolve_device(settings.device)
    if not y.any():
        moved = stand_ins(Z, seed)
        Z = torch.cat([Z, moved])
        y = torch.cat([y, torch.ones(len(moved), dtype=y.dtype)])
    Z = Z.to(device)
    y = y.to(device)
    d = Z.shape[1]

    def make_cvae():
        return new_cvae(d, settings.beta)

    # DIFF(paper): one small expert, not a large Mamba detector, as it is retrained so often.
    def make_detector():
        return MoEDetector(d, n_experts=1, k=1)

    cvae = train_cvae(make_cvae, Z, y, seed, "cvae", settings.cvae_steps, journal)
    recipe = Recipe(steps=settings.detector_steps, backend=settings.mamba)
    detector = train_detector(
        make_detector, Examples(Z, y, Z[:0]), recipe, seed, "detector", journal
    )
    return Pretrained(cvae.cpu(), detector.cpu())


def _decisive(settings, n_rows):
    """The settings that decide the networks, as plain values.

    ``max_samples`` is one of them only if the table is larger. Left out are the device, the Mamba
    backend (it changes nothing but rounding), and settings that have no command-line flag.
    """
    names = ("cvae_steps", "detector_steps", "beta", "trust_normals")
    sampled = {"max_samples": settings.max_samples} if n_rows > settings.max_samples else {}
    return plain({name: getattr(settings, name) for name in names} | sampled)


def save_pretrained(path, pretrained, rows, seed, settings, log):
    """Write networks, scaler and the fingerprint of their training rows, atomically.

    Args:
        path: the file.
        pretrained: a :class:`Pretrained`.
        rows: the :class:`data.rows.TrainingRows` it learned from.
        seed: the run's seed.
        settings: a :class:`PretrainSettings`.
        log: entries for log.jsonl.
    """
    content = {
        "kind": "pretrained",
        "fingerprint": rows.fingerprint,
        "seed": seed,
        "settings": _decisive(settings, len(rows.y)),
        "log": log,
        "scaler": to_tensors(rows.columns.scaler.snapshot()),
        "cvae": pack_network(pretrained.cvae),
        "detector": pack_network(pretrained.detector),
    }
    write_torch(path, content)


def load_pretrained(path, fingerprint):
    """Read what :func:`save_pretrained` wrote.

    Args:
        path: the file.
        fingerprint: fingerprint of the training rows it is to be used on.

    Returns:
        A :class:`Pretrained`, its settings, and its log entries.

    Raises:
        InputError: if the file is damaged, of another kind, or was trained on other rows.
    """
    saved = load_checkpoint(path, "pretrained", REMEDY)
    found = str(saved.get("fingerprint"))
    if found != fingerprint:
        raise InputError(
            f"{path}: was trained on other rows (fingerprint {found[:12]}, this split has "
            f"{fingerprint[:12]}): delete it, or choose another folder with --out"
        )
    with content_of(path, REMEDY):
        cvae = read_network(BetaCVAE, saved["cvae"])
        detector = read_network(MoEDetector, saved["detector"])
        sizes = {cvae.config["d_features"], detector.d_features, len(saved["scaler"]["centre"])}
        if len(sizes) > 1:
            raise ValueError(f"networks and scaler are for {sizes} features")
        check_log(saved["log"])  # goes into log.jsonl
        return Pretrained(cvae, detector), dict(saved["settings"]), list(saved["log"])


def pretrain_and_save(folder, rows, learned, seed, settings, options, journal, pace=PACE):
    """Pretrain on the training rows of a split and write ``pretrained.pt``.

    Args:
        folder: the run's :class:`run.folder.RunFolder`.
        rows: :class:`data.rows.TrainingRows`.
        learned: the :class:`cleaning.learned_rows.LearnedRows` of them.
        seed: the run's seed.
        settings: a :class:`PretrainSettings`.
        options: an :class:`OutputOptions`.
        journal: a :class:`journal.Journal` whose ``progress`` has a method ``say``.
        pace: how often a run saves its state, see :class:`run.resume.Pace`.

    Returns:
        A :class:`Pretrained`.
    """
    stamp = {"seed": seed, **_decisive(settings, len(rows.y)), "mamba": settings.mamba}
    path = folder.path / "pretrain-resume.pt"
    say = journal.progress.say
    store = Store(path, rows.fingerprint, stamp, options.resume, say, pace)
    own = Journal(journal.progress, store)
    pretrained = pretrain(learned.Z, learned.y, seed, settings, own)
    save_pretrained(folder.path / "pretrained.pt", pretrained, rows, seed, settings, own.log)
    journal.log += own.log
    store.clear()
    return pretrained


def reuse_or_pretrain(folder, rows, learned, seed, settings, options, journal, pace=PACE):
    """Load what was saved for these rows and settings; otherwise pretrain, and save the result.

    Arguments and return value are those of :func:`pretrain_and_save`.
    """
    path = folder.path / "pretrained.pt"
    if path.exists():
        pretrained, found, log = load_pretrained(path, rows.fingerprint)
        if found == _decisive(settings, len(rows.y)):
            journal.progress.say(f"using {path}")
            # Left by a run that was killed after saving, before it could remove this file.
            remove(folder.path / "pretrain-resume.pt")
            journal.log += log
            return pretrained
        journal.progress.say(f"{path} has other settings ({found}): pretraining again")
    return pretrain_and_save(folder, rows, learned, seed, settings, options, journal, pace)


# --- command line ---------------------------------------------------------------------------------


@dataclass(eq=False, repr=False, kw_only=True)
class _Settings(ColumnSettings, PretrainSettings):
    """All settings that decide the networks."""


def load_and_tell(which, settings, progress):
    """Load the rows of a :class:`dataloader.RowOptions`, and say what they are."""
    rows = load_rows(which, settings)
    progress.say(f"{rows.data.name}: {rows.label}")
    progress.say(f"{rows.data.name} ({which.protocol_name}, seed {which.seed}): {rows}")
    return rows


@contextlib.contextmanager
def folder_of(rows, which, options):
    """Context manager: the locked folder of a run, with the threads that its training takes.

    Args:
        rows: a :class:`dataloader.Rows`.
        which: their :class:`dataloader.RowOptions`.
        options: an :class:`OutputOptions`.
    """
    place = (options.out, rows.data.name, which.protocol_name, which.seed)
    run = RunFolder(*place, table=rows.data.path)
    with run.locked() as folder, few_threads(rows.train.Z.size):
        refuse_other_rows(folder, rows.fingerprints)
        yield folder


def main(argv=None, pace=PACE):
    """Run the command; ``pace`` sets how often a run saves its state for ``--resume``."""
    classes = (RowOptions, _Settings, OutputOptions)
    about = first_line(__doc__)
    which, settings, options = parse_config(classes, about, argv, dataset=DATASET)
    progress = Progress(options.quiet, verbose=options.verbose)
    check_settings(which)
    check_settings(settings)
    check_backend(settings.mamba, resolve_device(settings.device))  # refused before the work
    rows = load_and_tell(which, settings, progress)
    train = reuse_or_pretrain if options.resume else pretrain_and_save
    with folder_of(rows, which, options) as folder:
        learned = learned_rows(rows.train, which.seed, settings)
        train(folder, rows.train, learned, which.seed, settings, options, Journal(progress), pace)
        progress.say(f"saved {folder.path / 'pretrained.pt'}")


if __name__ == "__main__":
    run_main(main)
