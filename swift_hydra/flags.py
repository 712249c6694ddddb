"""Flags of ``SwiftHydra.py`` beside the class's settings, and checks for flags without effect.

A flag that would have no effect is taken for a mistake and refused before the work.
"""

import re
from dataclasses import dataclass

import numpy as np

from swift_hydra.cleaning.suspects import LOOKS
from swift_hydra.data.files import NO_LABEL
from swift_hydra.detection.sides import PARTS
from swift_hydra.generation.controls import COPIED, require_package
from swift_hydra.model import EXPERTS
from swift_hydra.pretrain import OutputOptions
from swift_hydra.settings import (
    GIVEN,
    InputError,
    Place,
    check_options,
    refuse_idle,
    setting,
)

MOST_EXPERTS = 1000
# What the settings that are dicts may hold: bounds of numbers, choices, or a set to choose from.
FLAG = [True, False]
OPTIONS = {
    "cleaning_settings": {"looks": set(LOOKS)},
    "detector_settings": {"without": set(PARTS)},
    "policy_settings": {
        "n_steps": (1, 100, True),
        "anomaly_share": (0, 1, False),
        "quantile": (0, 1, False),
        "diversity": (0, 1e6, False),
        "penalty": (0, 1e6, False),
        **dict.fromkeys(("coverage", "deception", "warm_up"), FLAG),
    },
    "mixture_settings": {
        "block": list(EXPERTS),
        "dropout": (0, 0.99, False),
        **dict.fromkeys(("n_tokens", "d_model", "d_state", "d_head"), (1, 4096, True)),
    },
}
# (setting, its value, settings that then have no effect)
IDLE = [
    # Training flags may be given as for the training, although the checkpoint's settings apply.
    ("eval_only", GIVEN, ("plot", "export", "resume", "fast", "verify", "false_alarms")),
    ("preset", "paper", ("unlike_weight", "max_normals", "max_centres")),
    ("generator", "none", ("n_synthetic", "synthetic_share")),
    ("fast", False, ("verify",)),
]
# Without labels "full" has no part for known anomalies: neither mixture nor kernels.
OF_EXPERTS = ("n_experts", "k", "n_members", "unlike_weight", "max_normals", "max_centres")
IDLE_OF_FULL = [("label_column", NO_LABEL, OF_EXPERTS)]


@dataclass
class RunOptions(OutputOptions):
    """What a run does besides training and testing."""

    plot: bool = setting(
        False, "write figures and report.html into the run's folder (needs matplotlib)"
    )
    eval_only: Place | None = setting(
        None, "score the test rows with this checkpoint.pt instead of training"
    )
    export: bool = setting(
        False, "with --fast: write student.onnx, which holds no training row (needs onnx)"
    )


def refuse_flags_without_effect(detector, options, which):
    """Refuse flags of a run that have no effect because of others.

    Args:
        detector: a :class:`SwiftHydra.SwiftHydra` whose settings were checked.
        options: :class:`RunOptions`.
        which: a :class:`dataloader.RowOptions`.

    Raises:
        InputError: names both flags.
    """
    refuse_idle(IDLE, detector, options)
    if detector.preset == "full":
        refuse_idle(IDLE_OF_FULL, detector, which)
    n_experts = str(detector.n_experts)
    if n_experts != "auto" and detector.k != type(detector).k and detector.k > int(n_experts):
        raise InputError(
            f"--k {detector.k} is more than --n-experts {n_experts}: so many cannot run for one row"
        )


def check_options_and_experts(detector):
    """Refuse unknown keys or values in settings that are dicts, and an unusable ``n_experts``."""
    for name, rules in OPTIONS.items():
        check_options(name, getattr(detector, name), rules)
    without = (detector.detector_settings or {}).get("without", ())
    if {"mixture", "kernels"} <= {*without}:
        raise InputError(
            f"detector_settings: without={tuple(without)} leaves no expert: keep one of both"
        )
    auto = detector.n_experts == "auto"
    number = re.fullmatch("[0-9]{1,9}", str(detector.n_experts))
    if not auto and not (number and 1 <= int(number[0]) <= MOST_EXPERTS):
        raise InputError(
            f"n_experts={detector.n_experts!r} is not usable: give 'auto' or an integer from 1 to "
            f"{MOST_EXPERTS}"
        )


def refuse_before_the_work(detector, y):
    """Refuse a generator without its package, or settings that need known anomalies without any.

    Args:
        detector: the estimator.
        y: (n,) labels; if none is 1, no anomaly is known.

    Raises:
        InputError: names the setting.
    """
    if (np.asarray(y) == 1).any():
        require_package(detector.generator)
        return
    if detector.generator in COPIED:
        raise InputError(
            f"generator={detector.generator!r} copies known anomalies, but y marks none: give "
            "another one"
        )
    if detector.preset == "paper" and detector.generator == "none":
        raise InputError(
            "generator='none' and y marks no anomaly: the mixture has nothing to learn: give "
            "another generator, or preset='full'"
        )
