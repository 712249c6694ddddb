"""Flags of ``SwiftHydra.py`` beside the class's settings, and those that go without effect.

A flag that nothing looks at is a mistake of whoever gave it: it is refused before the work.
"""

from dataclasses import dataclass

from swift_hydra import settings
from swift_hydra.pretrain import OutputOptions
from swift_hydra.settings import GIVEN, InputError, Place, setting

# (setting, its value, what is without effect then)
IDLE = [
    # The flags of the training may be there as they were: what it does is the checkpoint's.
    ("eval_only", GIVEN, ("plot", "export", "resume", "fast", "verify", "false_alarms")),
    ("preset", "paper", ("unlike_weight", "max_normals", "max_centres")),
    ("generator", "none", ("n_synthetic", "synthetic_share")),
]


@dataclass
class RunOptions(OutputOptions):
    """What a run does beside training and testing."""

    plot: bool = setting(
        False, "write figures and report.html into the run's folder (needs matplotlib)"
    )
    eval_only: Place | None = setting(
        None, "score the test rows with this checkpoint.pt instead of training"
    )
    export: bool = setting(
        False, "with --fast: write student.onnx, which holds no training row (needs onnx)"
    )


def refuse_idle(detector, options):
    """Refuse flags that have no effect beside others.

    Args:
        detector: a :class:`SwiftHydra.SwiftHydra` whose settings were checked.
        options: :class:`RunOptions`.

    Raises:
        InputError: naming both.
    """
    settings.refuse_idle(IDLE, detector, options)
    n_experts = str(detector.n_experts)
    if n_experts != "auto" and detector.k != type(detector).k and detector.k > int(n_experts):
        raise InputError(
            f"--k {detector.k} is more than --n-experts {n_experts}: so many cannot run for one row"
        )
    if detector.verify is not None and not detector.fast:
        raise InputError(
            f"--verify {detector.verify:g} is a share of the rows that the small mixture of --fast "
            "scores: give both, or neither"
        )
