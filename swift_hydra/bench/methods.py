"""The methods that the benchmark knows by name, and groups of them.

A method is a peer's name, ``preset/generator`` or ``preset/generator/ablation``, such as
``CatBoost``, ``full/rl`` or ``paper/rl/one-expert``. The name ``script`` is known too: it runs
``python SwiftHydra.py`` instead of a detector in this process.
"""

from swift_hydra.bench.peers import FOUNDATION, NOT_IN_BENCH, PEERS, TABULAR, TUNED, Peer
from swift_hydra.generation.controls import GENERATORS
from swift_hydra.settings import InputError
from swift_hydra.SwiftHydra import PRESETS, SwiftHydra

# Arguments of SwiftHydra that remove or replace one part, to measure what the part contributes.
ABLATIONS = {
    "no-coverage": {"policy_settings": {"coverage": False}},
    "no-diversity": {"policy_settings": {"diversity": 0.0}},
    "no-deception": {"policy_settings": {"deception": False}},
    "no-filter": {"policy_settings": {"quantile": 0.0, "penalty": 0.0}},
    "no-warm-up": {"policy_settings": {"warm_up": False}},
    "only-anomalies": {"policy_settings": {"anomaly_share": 1.0}},
    "four-experts": {"n_experts": 4},
    "one-expert": {"n_experts": 1},
    # One expert, its widths times 2 (the parameters of four experts) or times 2 ** .5 (the
    # computation of the two experts that run for a row).
    "one-equal-parameters": {"n_experts": 1, "mixture_settings": {"d_model": 32, "d_head": 128}},
    "one-equal-cost": {"n_experts": 1, "mixture_settings": {"d_model": 22, "d_head": 92}},
    "mlp-experts": {"mixture_settings": {"block": "mlp"}},
    "one-token": {"mixture_settings": {"n_tokens": 1}},
    "no-one-class": {"unlike_weight": 0.0},
    "no-mixture": {"detector_settings": {"without": ("mixture",)}},
    "no-kernels": {"detector_settings": {"without": ("kernels",)}},
    "no-evidence": {"detector_settings": {"without": ("evidence",)}},
    "trust-normals": {"trust_normals": True},
    "only-likeness": {"cleaning_settings": {"looks": ("likeness",)}},
    "only-nearness": {"cleaning_settings": {"looks": ("nearness",)}},
    "fast": {"fast": True},
    "three-members": {"n_members": 3},
}

# Ablations that are measured only with "full".
OF_FULL = ("no-one-class", "no-mixture", "no-kernels", "no-evidence")
OF_FULL += ("trust-normals", "only-likeness", "only-nearness", "fast")

# What "full" is without one of its parts, and what that part is.
PARTS_OF_FULL = {
    "full/rl/no-kernels": "kernel experts (M11)",
    "full/rl/no-mixture": "the mixture among the experts (M9)",
    "full/rl/no-evidence": "the experts' evidence (M10)",
    "full/rl/no-one-class": "the one-class side (M12)",
    "full/none": "generated rows (M4 to M8)",
    "full/rl/trust-normals": "cleaning (M13)",
}

# The peers of the recorded sweep; peers added later are in other groups.
RECORDED = (
    *("CatBoost", "ExtraTrees", "RandomForest", "XGBoost", "LightGBM"),
    *("SVC", "LogisticRegression", "MLP", "XGBOD", "DevNet"),
    *("kNN", "LOF", "IsolationForest", "ECOD"),
)
LABEL_LEARNERS = tuple(name for name, (*_, learns_from) in PEERS.items() if learns_from == "labels")
OURS = ("full/rl", "paper/rl")
GROUPS = {
    "ours": OURS,
    "peers": RECORDED,
    "weak-peers": (
        *(name for name in LABEL_LEARNERS if name not in (*NOT_IN_BENCH, *TUNED)),
        "kNN",
        "IsolationForest",
    ),
    "one-class-peers": tuple(name for name in PEERS if name not in LABEL_LEARNERS),
    "tuned": TUNED,
    "tabular": TABULAR,
    "foundation": FOUNDATION,
    "ladder": tuple(
        f"{preset}/{generator}" for preset in ("paper", "full") for generator in GENERATORS
    ),
    "ablations": (
        *(f"paper/rl/{ablation}" for ablation in ABLATIONS if ablation not in OF_FULL),
        *PARTS_OF_FULL,
    ),
}


def make_method(method, seed):
    """An unfitted detector.

    Args:
        method: a peer's name, or ``preset/generator[/ablation]``.
        seed: the detector's random state.
    """
    if method in PEERS:
        return Peer(method, seed)
    preset, generator, *ablation = method.split("/")
    settings = ABLATIONS[ablation[0]] if ablation else {}
    return SwiftHydra(random_state=seed, preset=preset, generator=generator, **settings)


def check_method(method):
    """Refuse a method that :func:`make_method` does not know.

    Raises:
        InputError: lists the known names.
    """
    if method in PEERS or method == "script":
        return
    preset, generator, ablation = [*method.split("/"), None, None][:3]
    if (
        preset not in PRESETS
        or generator not in GENERATORS
        or method.count("/") > 2
        or (ablation is not None and ablation not in ABLATIONS)
    ):
        raise InputError(
            f"methods: {method!r} is unknown: give a group, script, a peer ({', '.join(PEERS)}), "
            f"or preset/generator with one of {', '.join(PRESETS)} and one of "
            f"{', '.join(GENERATORS)} and, after another /, one of {', '.join(ABLATIONS)}"
        )
