"""Measure methods on many datasets, seeds and protocols; one record per cell, tables from the
records alone.

    python benchmark.py --datasets DIR --seeds 0,1,2,3,4 --protocols seen,few,unseen --methods ours,peers --jobs 2
    python benchmark.py --datasets DIR --seeds 0,1 --protocols unseen --methods ladder --jobs 2
    python benchmark.py --datasets DIR --seeds 0 --methods script --max-rows 0    # the main script, whole tables
    python benchmark.py --report                                                  # tables, from the records
    python benchmark.py --speed --datasets DIR                                    # times, see speed.py

A method is a peer's name, ``preset/generator`` or ``preset/generator/ablation``, such as
``CatBoost``, ``full/rl`` or ``paper/rl/one-expert``, or a group of methods: ours, peers,
foundation, ladder, ablations. ``script`` runs ``python SwiftHydra.py`` in a process of its own. A
cell is done when its record is there: an interrupted sweep goes on where it was, a failed cell is
recorded with its reason and does not stop the others (``--retry-failed`` tries again).
"""

from swift_hydra.bench.peers import FOUNDATION, PEERS
from swift_hydra.generation.controls import GENERATORS
from swift_hydra.settings import InputError

try:
    import resource
except ImportError:  # Windows: no memory limit there
    resource = None


# What each part gives: the same run with that part taken out or replaced (arguments of SwiftHydra).
ABLATIONS = {
    "no-coverage": {"policy_settings": {"coverage": False}},
    "no-diversity": {"policy_settings": {"diversity": 0.0}},
    "no-deception": {"policy_settings": {"deception": False}},
    "no-filter": {"policy_settings": {"quantile": 0.0, "penalty": 0.0}},
    "no-warm-up": {"policy_settings": {"warm_up": False}},
    "only-anomalies": {"policy_settings": {"anomaly_share": 1.0}},
    "four-experts": {"n_experts": 4},
    "one-expert": {"n_experts": 1},
    # Widths times 2 and 2 ** .5: the parameters of four experts, the computation of the two that
    # run for a row.
    "one-equal-parameters": {"n_experts": 1, "mixture_settings": {"d_model": 32, "d_head": 128}},
    "one-equal-cost": {"n_experts": 1, "mixture_settings": {"d_model": 22, "d_head": 92}},
    "mlp-experts": {"mixture_settings": {"block": "mlp"}},
    "one-token": {"mixture_settings": {"n_tokens": 1}},
    "no-one-class": {"unlike_weight": 0.0},
}

OURS = ("full/rl", "paper/rl")
GROUPS = {
    "ours": OURS,
    "peers": tuple(name for name in PEERS if name not in FOUNDATION),
    "foundation": FOUNDATION,
    "ladder": tuple(
        f"{preset}/{generator}" for preset in ("paper", "full") for generator in GENERATORS
    ),
    "ablations": (
        *(f"paper/rl/{ablation}" for ablation in ABLATIONS if ablation != "no-one-class"),
        *(f"full/rl/{ablation}" for ablation in ("mlp-experts", "one-expert", "no-one-class")),
    ),
}


def make_method(method, seed):
    """An unfitted detector: a peer's name, or ``preset/generator[/ablation]``."""
    from swift_hydra.bench.peers import PEERS, Peer

    if method in PEERS:
        return Peer(method, seed)
    from swift_hydra.SwiftHydra import SwiftHydra

    preset, generator, *ablation = method.split("/")
    settings = ABLATIONS[ablation[0]] if ablation else {}
    return SwiftHydra(random_state=seed, preset=preset, generator=generator, **settings)


def check_method(method):
    """Refuse a method that :func:`make_method` does not know. Raises :class:`config.InputError`."""
    from swift_hydra.bench.peers import PEERS
    from swift_hydra.generation.controls import GENERATORS
    from swift_hydra.SwiftHydra import PRESETS

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
            f"methods: {method!r} is unknown: give a group, script, a peer ({', '.join(PEERS)}), or preset/generator "
            f"with one of {', '.join(PRESETS)} and one of {', '.join(GENERATORS)} and, after another /, one of "
            f"{', '.join(ABLATIONS)}"
        )
