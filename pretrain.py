"""Train the Beta C-VAE and the Mamba detector on one dataset, and save both with the scaler.

    python pretrain.py                      # the embedded UCI Yeast set
    python pretrain.py yeast --seed 1
    python pretrain.py path/to/table.csv --label-column outlier --protocol unseen
    python pretrain.py path/to/table.csv --resume      # goes on where the same command was cut off

Writes ``results/<dataset>/<protocol>/seed<k>/pretrained.pt``; SwiftHydra.py takes it from there (M1, M2, M3).
"""

import json
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from config import InputError, check_range, parse_config, run_main, setting
from dataloader import PROTOCOLS, Dataset, Split, Standardizer, fingerprint, load_dataset, make_split
from model import BetaCVAE, MoEDetector, pack_network, read_network
from preparation import CATEGORICAL, IMPUTE, Preparation
from progress import Progress
from resume import Store
from runfolder import RunFolder, content_of, load_checkpoint, to_tensors
from tables import Table
from training import NO_STORE, history_log, silent, train_cvae, train_detector

DATASET = "47_yeast"  # edit here, or give a path or an ADBench name on the command line


@dataclass
class PretrainConfig:
    dataset: str = setting(
        DATASET, "an .npz with X and y, a .csv or .parquet with a label column, or an ADBench name", positional=True
    )
    seed: int = setting(0, "seed of the split and of every random stream")
    protocol: str = setting("seen", "which anomalies are known in training", choices=PROTOCOLS)
    n_labelled: int = setting(10, "known anomalies under the protocol 'few'")
    label_column: str | None = setting(None, "label column of a .csv or .parquet (default: the last)")
    impute: str = setting("refuse", "missing values: refuse, or the training rows' median", choices=IMPUTE)
    categorical: str = setting("refuse", "text columns: refuse, onehot or ordinal", choices=CATEGORICAL)
    drop_columns: str | None = setting(None, "columns to leave out, separated by commas")
    max_rows: int | None = setting(None, "stratified subsample of larger tables (default: all rows)")
    cvae_steps: int = setting(200, "training steps of the Beta C-VAE")
    detector_steps: int = setting(100, "training steps of the pretrained detector")
    beta: float = setting(0.2, "weight of the KL term of the Beta C-VAE")
    device: str = setting("auto", "auto, cpu, cuda, cuda:1: where networks train; the episodes' small ones on the CPU")
    out: str = setting("results", "folder that runs are written to")
    resume: bool = setting(False, "go on where the same command was cut off, to the same scores")
    quiet: bool = setting(False, "print only results and errors")
    verbose: bool = setting(False, "a line with every loss each 20 steps and for each episode", short="-v")


class Pretrained(NamedTuple):
    cvae: BetaCVAE
    detector: MoEDetector
    settings: dict
    log: list


class Rows(NamedTuple):
    """A dataset under a protocol: training and test rows as read and as prepared, and their labels."""

    data: Dataset
    split: Split
    train: Table
    X_train: np.ndarray
    y_train: np.ndarray
    test: Table
    X_test: np.ndarray
    y_test: np.ndarray


def load_rows(config):
    """Read, split and prepare what a :class:`PretrainConfig` names. Raises :class:`config.InputError`."""
    data = load_dataset(config.dataset, config.label_column, config.impute, config.categorical, config.drop_columns)
    split = make_split(data.X, data.y, config.protocol, config.seed, config.n_labelled, config.max_rows)
    train, test = data.table.take(split.train), data.table.take(split.test)
    preparation = Preparation(config.impute, config.categorical).fit(train)
    X_train, X_test = preparation.transform(train), preparation.transform(test)
    return Rows(data, split, train, X_train, data.y[split.train], test, X_test, data.y[split.test])


def resolve_device(name):
    """The torch device of a setting. Raises :class:`config.InputError` for one that cannot be used here."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError):
        raise InputError(f"device={name!r} cannot be used here: choose auto or cpu") from None
    return device


def check_pretrain_settings(cvae_steps, detector_steps, beta):
    """Refuse settings that cannot train. Raises :class:`config.InputError`."""
    check_range("cvae_steps", cvae_steps, 1, 10**6)
    check_range("detector_steps", detector_steps, 1, 10**6)
    check_range("beta", beta, 0, 1e6, whole=False)


def pretrain(Z, y, seed, cvae_steps=200, detector_steps=100, beta=0.2, progress=silent, store=NO_STORE, device="cpu"):
    """Train C-VAE (M2) and one Mamba detector (M3) on standardised rows.

    Args:
        Z: (n, d) float32 tensor. y: (n,) int64 tensor with both classes. device: where they train.
        store: where both trainings go on from and leave their state.

    Returns:
        A :class:`Pretrained` on the CPU; its log has one dict per 20 steps.
    """
    Z, y = Z.to(device), y.to(device)
    cvae, cvae_history = train_cvae(Z, y, seed, "cvae", steps=cvae_steps, beta=beta, progress=progress, store=store)
    detector, history = train_detector(Z, y, seed, "detector", steps=detector_steps, progress=progress, store=store)
    log = history_log("cvae", cvae_history, "reconstruction", "kl") + history_log("detector", history, "detector_loss")
    settings = {"cvae_steps": cvae_steps, "detector_steps": detector_steps, "beta": beta}
    return Pretrained(cvae.cpu(), detector.cpu(), settings, log)


def save_pretrained(path, pretrained, scaler, data_fingerprint, seed):
    """Write networks, scaler and the fingerprint of their training rows, atomically."""
    RunFolder.write_torch(path, {
        "kind": "pretrained", "fingerprint": data_fingerprint, "seed": seed, "settings": pretrained.settings,
        "log": pretrained.log,
        "scaler": to_tensors(scaler.state()),
        "cvae": pack_network(pretrained.cvae), "detector": pack_network(pretrained.detector),
    })  # fmt: skip


def load_pretrained(path, data_fingerprint):
    """Read what :func:`save_pretrained` wrote.

    Raises:
        InputError: if the file is damaged, of another kind, or was trained on other rows.
    """
    saved = load_checkpoint(path, "pretrained")
    found = str(saved.get("fingerprint"))
    if found != data_fingerprint:
        raise InputError(f"{path}: was trained on other rows (fingerprint {found[:12]}, this split has "
                         f"{data_fingerprint[:12]}): delete it, or choose another folder with --out")  # fmt: skip
    with content_of(path):
        cvae, detector = read_network(BetaCVAE, saved["cvae"]), read_network(MoEDetector, saved["detector"])
        sizes = {cvae.config["d_features"], detector.d_features, len(saved["scaler"]["mean"])}
        if len(sizes) > 1:
            raise ValueError(f"networks and scaler are for {sizes} features")
        json.dumps(saved["log"])  # goes into log.jsonl
        return Pretrained(cvae, detector, dict(saved["settings"]), list(saved["log"]))


def _settings(config):
    return {"cvae_steps": config.cvae_steps, "detector_steps": config.detector_steps, "beta": config.beta}


def pretrain_and_save(folder, X, y, config, progress):
    """Pretrain on the rows X (n, d), y (n,) of a split and write ``pretrained.pt`` into the run's folder."""
    rows, settings, scaler = fingerprint(X, y), _settings(config), Standardizer().fit(X)
    store = Store(folder.path / "pretrain-resume.pt", rows, {"seed": config.seed, **settings}, config.resume,
                  progress.say)  # fmt: skip
    Z, labels = torch.from_numpy(scaler.transform(X)), torch.from_numpy(y)
    device = resolve_device(config.device)
    pretrained = pretrain(Z, labels, config.seed, **settings, progress=progress, store=store, device=device)
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


if __name__ == "__main__":
    run_main(main)
