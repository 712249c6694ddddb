"""Train the Beta C-VAE and the Mamba detector on one dataset, and save both with the scaler.

    python pretrain.py                      # the embedded UCI Yeast set
    python pretrain.py yeast --seed 1
    python pretrain.py path/to/table.csv --label-column outlier --protocol unseen

Writes ``results/<dataset>/<protocol>/seed<k>/pretrained.pt``; SwiftHydra.py takes it from there (M1, M2, M3).
"""

import json
from dataclasses import dataclass
from typing import NamedTuple

import torch

from config import InputError, check_range, parse_config, run_main, setting
from dataloader import PROTOCOLS, Standardizer, fingerprint, load_dataset, make_split
from model import BetaCVAE, MoEDetector, pack_network, read_network
from progress import Progress
from runfolder import RunFolder, content_of, load_checkpoint, to_tensors
from training import history_log, silent, train_cvae, train_detector

DATASET = "47_yeast"  # edit here, or give a path or an ADBench name on the command line


@dataclass
class PretrainConfig:
    dataset: str = setting(
        DATASET, "an .npz with X and y, a .csv with a label column, or an ADBench name", positional=True
    )
    seed: int = setting(0, "seed of the split and of every random stream")
    protocol: str = setting("seen", "which anomalies are known in training", choices=PROTOCOLS)
    n_labelled: int = setting(10, "known anomalies under the protocol 'few'")
    label_column: str | None = setting(None, "label column of a .csv (default: the last)")
    max_rows: int | None = setting(None, "stratified subsample of larger tables (default: all rows)")
    cvae_steps: int = setting(200, "training steps of the Beta C-VAE")
    detector_steps: int = setting(100, "training steps of the pretrained detector")
    beta: float = setting(0.2, "weight of the KL term of the Beta C-VAE")
    out: str = setting("results", "folder that runs are written to")
    quiet: bool = setting(False, "print only results and errors")
    verbose: bool = setting(False, "a line with every loss each 20 steps and for each episode", short="-v")


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


def pretrain(Z, y, seed, cvae_steps=200, detector_steps=100, beta=0.2, progress=silent):
    """Train C-VAE (M2) and one Mamba detector (M3) on standardised rows.

    Args:
        Z: (n, d) float32 tensor. y: (n,) int64 tensor with both classes.

    Returns:
        A :class:`Pretrained`; its log has one dict per 20 steps.
    """
    cvae, cvae_history = train_cvae(Z, y, seed, "cvae", steps=cvae_steps, beta=beta, progress=progress)
    detector, history = train_detector(Z, y, seed, "detector", steps=detector_steps, progress=progress)
    log = history_log("cvae", cvae_history, "reconstruction", "kl") + history_log("detector", history, "detector_loss")
    return Pretrained(cvae, detector, {"cvae_steps": cvae_steps, "detector_steps": detector_steps, "beta": beta}, log)


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


def main(argv=None):
    config = parse_config(PretrainConfig, __doc__.splitlines()[0], argv)
    progress = Progress(config.quiet, verbose=config.verbose)
    check_pretrain_settings(config.cvae_steps, config.detector_steps, config.beta)
    data = load_dataset(config.dataset, config.label_column)
    split = make_split(data.X, data.y, config.protocol, config.seed, config.n_labelled, config.max_rows)
    folder = RunFolder(config.out, data.name, config.protocol, config.seed)
    X, y = data.X[split.train], data.y[split.train]
    scaler = Standardizer().fit(X)
    progress.say(
        f"{data.name} ({config.protocol}, seed {config.seed}): {len(y)} training rows, {int(y.sum())} anomalies"
    )
    Z, labels = torch.from_numpy(scaler.transform(X)), torch.from_numpy(y)
    pretrained = pretrain(Z, labels, config.seed, config.cvae_steps, config.detector_steps, config.beta, progress)
    path = folder.path / "pretrained.pt"
    save_pretrained(path, pretrained, scaler, fingerprint(X, y), config.seed)
    progress.say(f"saved {path}")


if __name__ == "__main__":
    run_main(main)
