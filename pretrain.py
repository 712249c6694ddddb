"""The two training loops: the Beta C-VAE (M2) and the detector (M3, M8, M9).

Both draw the classes in equal parts, so that a handful of anomalies is in every batch, and both are
fully determined by their seed: every stage has its own generators (see :func:`stage_seed`), nothing
reads or moves the global stream. Settings follow what was measured to suffice on small tables:
AdamW, one-cycle, a few hundred steps, mixup.
"""

import json
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from swift_hydra.data.columns import CATEGORICAL, IMPUTE, Standardizer
from swift_hydra.data.splits import PROTOCOLS
from swift_hydra.data.table import fingerprint
from swift_hydra.dataloader import load_rows
from swift_hydra.files import content_of, load_checkpoint, write_torch
from swift_hydra.journal import NO_STORE, Progress, history_log, silent
from swift_hydra.model import BetaCVAE, MoEDetector
from swift_hydra.run.folder import RunFolder
from swift_hydra.run.resume import Store
from swift_hydra.scan.backends import choose_backend
from swift_hydra.settings import (
    InputError,
    check_range,
    parse_config,
    resolve_device,
    run_main,
    setting,
)
from swift_hydra.snapshot import pack_network, read_network, to_tensors
from swift_hydra.training.batches import half_and_half, partners
from swift_hydra.training.optimise import Optimiser, check_finite, steps_left
from swift_hydra.training.seeds import seeded, stage_seed


def train_cvae(
    X,
    y,
    seed,
    stage="cvae",
    cvae=None,
    steps=200,
    batch=128,
    lr=2e-3,
    d_latent=None,
    beta=0.2,
    progress=silent,
    store=NO_STORE,
):
    """Train (or refresh, when ``cvae`` is given) the Beta C-VAE on rows X (n, d) with labels y (n,)
    (M2).

    Args:
        X: float32 tensor of standardised rows.
        y: int64 tensor; one class alone is allowed.
        seed, stage: name the random stream.
        d_latent: None takes min(16, d).
        beta: weight of the KL term.
        store: where the training goes on from and leaves its state, by the stage's name.

    Returns:
        The network in eval mode and its history, a list of (reconstruction, KL) per step.

    Raises:
        FloatingPointError: naming the step and the parts when the loss is not finite.
    """
    with seeded(seed, stage) as generator:
        if cvae is None:
            d = X.shape[1]
            cvae = BetaCVAE(
                d, d_latent=d_latent or min(16, d), d_hidden=64 if d <= 128 else 256, beta=beta
            )
        cvae.to(X.device).train()
        normal, anomaly = (y == 0).nonzero().squeeze(1), (y == 1).nonzero().squeeze(1)
        normal, anomaly = (
            (normal, anomaly) if len(normal) and len(anomaly) else (torch.arange(len(y)),) * 2
        )
        rows = half_and_half(normal, anomaly, steps, batch, generator).to(X.device)  # (steps, B)
        optimiser, history = Optimiser(cvae, lr, 1e-4, steps), []
        for step in steps_left(stage, steps, cvae, optimiser, history, generator, store):
            loss = cvae.loss(X[rows[step]], y[rows[step]], generator)
            history.append((loss.reconstruction.item(), loss.kl.item()))
            check_finite(
                sum(history[-1]), stage, step, reconstruction=history[-1][0], kl=history[-1][1]
            )
            optimiser.step(loss.total)
            progress(stage, step + 1, steps, reconstruction=history[-1][0], kl=history[-1][1])
        optimiser.release()
    return cvae.eval(), history


# What Mamba's authors keep free of weight decay.
NOT_DECAYED = ("A_log", "/D", ".D", "bias", "norm")


def train_detector(
    X,
    y,
    seed,
    stage="detector",
    detector=None,
    synthetic=None,
    synthetic_share=0.2,
    n_experts=1,
    k=1,
    folds=None,
    steps=300,
    batch=64,
    lr=3e-3,
    weight_decay=0.05,
    mixup=0.4,
    own_weight=1.0,
    balance_weight=0.02,
    backend="auto",
    progress=silent,
    store=NO_STORE,
    **expert_settings,
):
    """Train (or refresh, when ``detector`` is given) a mixture of Mamba experts on real and
    generated rows (M8, M9).

    Args:
        X: (n, d) float32 tensor.
        y: (n,) int64, 1 for the known anomalies.
        synthetic: (m, d) generated anomalies or None; they fill ``synthetic_share`` of the anomaly
            half of a batch.
        folds: (n,) int64 or None. With folds, expert j never learns from a row of fold j mod F (F
            is the number of folds), which makes its logits on those rows honest (see
            :func:`out_of_fold`).
        own_weight: weight of the experts' own loss. Every expert also learns from every row it may
            see, routed or not, so that none starves: the third cure for winner-take-all. #
            DIFF(paper): not described there.
        backend: of the experts, see :func:`model.choose_backend`.
        store: as in :func:`train_cvae`.

    Returns:
        The detector in eval mode and its history, a list of (loss, balance loss) per step.

    Raises:
        FloatingPointError: naming the step and the parts when the loss is not finite.
    """
    with seeded(seed, stage) as generator:
        if detector is None:
            detector = MoEDetector(X.shape[1], n_experts=n_experts, k=k, **expert_settings)
        detector.to(X.device).train()
        # Resolved once: looking for kernels that are not there would cost every step a search of
        # the path.
        detector.experts.backend = choose_backend(backend, X.device)
        E = detector.n_experts
        normal, anomaly = (y == 0).nonzero().squeeze(1).cpu(), (y == 1).nonzero().squeeze(1).cpu()
        n_synthetic = 0 if synthetic is None else len(synthetic)
        n_fake = round(batch // 2 * synthetic_share) if n_synthetic else 0
        source = torch.cat([X, synthetic]) if n_fake else X  # (n + m, d)
        # Everything random is drawn before the first step: drawing little by little costs more than
        # a small step.
        rows = half_and_half(normal, anomaly, steps, batch, generator)  # (steps, B)
        if n_fake:
            rows[:, batch - n_fake :] = len(X) + torch.randint(
                n_synthetic, (steps, n_fake), generator=generator
            )
        target = torch.cat([torch.zeros(batch - batch // 2), torch.ones(batch // 2)]).expand(
            steps, batch
        )
        fold, n_folds = torch.zeros(len(source), dtype=torch.long), 1
        if folds is not None:
            # Generated rows belong to no real row's fold: they are dealt out by their number.
            n_folds = int(max(folds)) + 1
            fold = torch.cat([torch.as_tensor(folds), torch.arange(len(source) - len(X)) % n_folds])
        fold = fold[rows]  # (steps, B)
        allowed = None
        share = torch.full((E, 1), 1.0 / (E * batch), device=X.device).expand(
            steps, E, 1
        )  # of a row in the own loss
        if n_folds > 1:
            allowed = (fold[..., None] != torch.arange(E) % n_folds).to(X.device)  # (steps, B, E)
            share = (allowed / allowed.sum((1, 2), keepdim=True)).transpose(1, 2)  # (steps, E, B)
        if mixup > 0:
            rng = np.random.default_rng(stage_seed(seed, stage + "/mixup"))
            weight = torch.from_numpy(
                rng.beta(mixup, mixup, size=(steps, batch)).astype(np.float32)
            )
            partner = partners(fold, generator)
            target = torch.lerp(target.gather(1, partner), target, weight)
            partner, weight = rows.gather(1, partner).to(X.device), weight[..., None].to(X.device)
        rows, target = rows.to(X.device), target.to(X.device)
        optimiser = Optimiser(detector, lr, weight_decay, steps, NOT_DECAYED)
        history = []
        for step in steps_left(stage, steps, detector, optimiser, history, generator, store):
            inputs = source[rows[step]]  # (B, d)
            if mixup > 0:
                inputs = torch.lerp(source[partner[step]], inputs, weight[step])
            out = detector(inputs, None if allowed is None else allowed[step], generator)
            mixture = F.binary_cross_entropy_with_logits(out.logit, target[step])
            balance = out.router.balance_loss
            loss = mixture + balance_weight * balance
            if E > 1:
                each = target[step].expand(E, -1)  # (E, B)
                loss = loss + own_weight * F.binary_cross_entropy_with_logits(
                    out.expert_logits, each, share[step], reduction="sum"
                )
            history.append((mixture.item(), balance.item()))
            check_finite(loss.item(), stage, step, mixture=history[-1][0], balance=history[-1][1])
            optimiser.step(loss)
            progress(stage, step + 1, steps, loss=history[-1][0], balance=history[-1][1])
        optimiser.release()
    return detector.eval(), history


DATASET = "47_yeast"  # edit here, or give a path or an ADBench name on the command line


@dataclass
class PretrainConfig:
    dataset: str = setting(
        DATASET,
        "an .npz with X and y, a .csv or .parquet with a label column, or an ADBench name",
        positional=True,
    )
    seed: int = setting(0, "seed of the split and of every random stream")
    protocol: str = setting("seen", "which anomalies are known in training", choices=PROTOCOLS)
    n_labelled: int = setting(10, "known anomalies under the protocol 'few'")
    label_column: str | None = setting(
        None, "label column of a .csv or .parquet (default: the last)"
    )
    impute: str = setting(
        "refuse", "missing values: refuse, or the training rows' median", choices=IMPUTE
    )
    categorical: str = setting(
        "refuse", "text columns: refuse, onehot or ordinal", choices=CATEGORICAL
    )
    drop_columns: str | None = setting(None, "columns to leave out, separated by commas")
    max_rows: int | None = setting(
        None, "stratified subsample of larger tables (default: all rows)"
    )
    cvae_steps: int = setting(200, "training steps of the Beta C-VAE")
    detector_steps: int = setting(100, "training steps of the pretrained detector")
    beta: float = setting(0.2, "weight of the KL term of the Beta C-VAE")
    device: str = setting(
        "auto", "auto, cpu, cuda, cuda:1: where networks train; the episodes' small ones on the CPU"
    )
    out: str = setting("results", "folder that runs are written to")
    resume: bool = setting(False, "go on where the same command was cut off, to the same scores")
    quiet: bool = setting(False, "print only results and errors")
    verbose: bool = setting(
        False, "a line with every loss each 20 steps and for each episode", short="-v"
    )


class Pretrained(NamedTuple):
    cvae: BetaCVAE
    detector: MoEDetector
    settings: dict
    log: list


def check_pretrain_settings(cvae_steps, detector_steps, beta):
    """Refuse settings that cannot train. Raises :class:`config.InputError`."""
    check_range("cvae_steps", cvae_steps, 1, 10**6)
    check_range("detector_steps", detector_steps, 1, 10**6)
    check_range("beta", beta, 0, 1e6, whole=False)


def pretrain(
    Z,
    y,
    seed,
    cvae_steps=200,
    detector_steps=100,
    beta=0.2,
    progress=silent,
    store=NO_STORE,
    device="cpu",
):
    """Train C-VAE (M2) and one Mamba detector (M3) on standardised rows.

    Args:
        Z: (n, d) float32 tensor.
        y: (n,) int64 tensor with both classes.
        device: where they train.
        store: where both trainings go on from and leave their state.

    Returns:
        A :class:`Pretrained` on the CPU; its log has one dict per 20 steps.
    """
    Z, y = Z.to(device), y.to(device)
    cvae, cvae_history = train_cvae(
        Z, y, seed, "cvae", steps=cvae_steps, beta=beta, progress=progress, store=store
    )
    detector, history = train_detector(
        Z, y, seed, "detector", steps=detector_steps, progress=progress, store=store
    )
    log = history_log("cvae", cvae_history, "reconstruction", "kl") + history_log(
        "detector", history, "detector_loss"
    )
    settings = {"cvae_steps": cvae_steps, "detector_steps": detector_steps, "beta": beta}
    return Pretrained(cvae.cpu(), detector.cpu(), settings, log)


def save_pretrained(path, pretrained, scaler, data_fingerprint, seed):
    """Write networks, scaler and the fingerprint of their training rows, atomically."""
    write_torch(
        path,
        {
            "kind": "pretrained",
            "fingerprint": data_fingerprint,
            "seed": seed,
            "settings": pretrained.settings,
            "log": pretrained.log,
            "scaler": to_tensors(scaler.state()),
            "cvae": pack_network(pretrained.cvae),
            "detector": pack_network(pretrained.detector),
        },
    )


def load_pretrained(path, data_fingerprint):
    """Read what :func:`save_pretrained` wrote.

    Raises:
        InputError: if the file is damaged, of another kind, or was trained on other rows.
    """
    saved = load_checkpoint(path, "pretrained")
    found = str(saved.get("fingerprint"))
    if found != data_fingerprint:
        raise InputError(
            f"{path}: was trained on other rows (fingerprint {found[:12]}, this split has "
            f"{data_fingerprint[:12]}): delete it, or choose another folder with --out"
        )
    with content_of(path):
        cvae, detector = (
            read_network(BetaCVAE, saved["cvae"]),
            read_network(MoEDetector, saved["detector"]),
        )
        sizes = {cvae.config["d_features"], detector.d_features, len(saved["scaler"]["mean"])}
        if len(sizes) > 1:
            raise ValueError(f"networks and scaler are for {sizes} features")
        json.dumps(saved["log"])  # goes into log.jsonl
        return Pretrained(cvae, detector, dict(saved["settings"]), list(saved["log"]))


def _settings(config):
    return {
        "cvae_steps": config.cvae_steps,
        "detector_steps": config.detector_steps,
        "beta": config.beta,
    }


def pretrain_and_save(folder, X, y, config, progress):
    """Pretrain on the rows X (n, d), y (n,) of a split and write ``pretrained.pt`` into the run's
    folder.
    """
    rows, settings, scaler = fingerprint(X, y), _settings(config), Standardizer().fit(X)
    store = Store(
        folder.path / "pretrain-resume.pt",
        rows,
        {"seed": config.seed, **settings},
        config.resume,
        progress.say,
    )
    Z, labels = torch.from_numpy(scaler.transform(X)), torch.from_numpy(y)
    device = resolve_device(config.device)
    pretrained = pretrain(
        Z, labels, config.seed, **settings, progress=progress, store=store, device=device
    )
    save_pretrained(folder.path / "pretrained.pt", pretrained, scaler, rows, config.seed)
    store.clear()
    return pretrained


def reuse_or_pretrain(folder, X, y, config, progress):
    """What was saved for these rows and settings, or a pretraining that is saved for the next run."""
    path = folder.path / "pretrained.pt"
    if path.exists():
        pretrained = load_pretrained(path, fingerprint(X, y))
        if pretrained.settings == _settings(config):
            progress.say(f"using {path}")
            return pretrained
        progress.say(f"{path} has other settings ({pretrained.settings}): pretraining again")
    return pretrain_and_save(folder, X, y, config, progress)


def main(argv=None):
    config = parse_config(PretrainConfig, __doc__.splitlines()[0], argv)
    progress = Progress(config.quiet, verbose=config.verbose)
    check_pretrain_settings(config.cvae_steps, config.detector_steps, config.beta)
    resolve_device(config.device)  # refused before the work
    rows = load_rows(config)
    X, y = rows.X_train, rows.y_train
    progress.say(
        f"{rows.data.name} ({config.protocol}, seed {config.seed}): {len(y)} training rows, {int(y.sum())} anomalies"
    )
    with RunFolder(config.out, rows.data.name, config.protocol, config.seed).locked() as folder:
        (reuse_or_pretrain if config.resume else pretrain_and_save)(folder, X, y, config, progress)
        progress.say(f"saved {folder.path / 'pretrained.pt'}")


def command():
    """The console command ``swift-hydra-pretrain``."""
    run_main(main)


if __name__ == "__main__":
    command()
